"""Seconds from nothing to the first loss: ``python -m benchmarks.cold_compile [--step unet] [--rounds 5]``.

Every measurement is a fresh process with empty caches, graphcore's, PoCL's and the user's cache folder, and starts when
everything is imported: build the step, compile it, run it once. Where JAX is installed its process takes turns with
graphcore's. Reported are medians, their ratios, and where graphcore's time goes: building the graph, the stages of the
pipeline, the generation of text, the vendor's compiler (as long as this process waits for it, whoever else compiles
beside it), and the first run with the variables' first values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import graphcore as gc
from backends.opencl.compiler.build import build_stats
from benchmarks.models import STEPS
from benchmarks.timing import OtherLoad, environment, table, write_results

BOTH = ("resnet18", "unet", "gpt", "vit")  # that are written in JAX as well
_CACHES = ("GRAPHCORE_CACHE", "POCL_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "NEO_CACHE_DIR")
_PERSISTENT = ("JAX_COMPILATION_CACHE_DIR", "GRAPHCORE_POCL_CACHE_DIR")
_JAX = "jax"


def work(step: str, device: str) -> dict[str, Any]:
    """Build, compile and run a step of graphcore once, in a process that has done none of it."""
    times = [time.perf_counter()]
    fetches, feeds = STEPS[step]()
    session = gc.Session(device, seed=1)
    times.append(time.perf_counter())
    compiled = session.compile(fetches, feeds)
    times.append(time.perf_counter())
    stages = sum(record.seconds for record in compiled.compilation.records)
    source = compiled.program.source
    begin = time.perf_counter()
    loss = float(session.run(fetches, feeds)[0])
    times.append(time.perf_counter())
    built, vendor = build_stats(), build_stats().seconds
    waiting = times[2] - times[1]
    parts = {
        "build": times[1] - times[0],
        "stages": stages,
        "text": max(waiting - stages - vendor, 0.0),  # PoCL compiles while the first run waits
        "compiler": vendor,
        "first run": times[3] - begin,
    }
    return {
        "seconds": round(times[-1] - times[0], 3),
        "cpu": round(sum(os.times()[:4]), 2),
        "parts": {name: round(seconds, 3) for name, seconds in parts.items()},
        "loss": loss,
        "bytes": compiled.program.length,
        "functions": len(source.functions),
        "programs": [
            {"functions": len({f for f, p in source.calls if p == number}), "steps": steps}
            for number, steps in sorted(Counter(source.program_of_step).items())
        ],
        "compiled": built.compiled,
        "apart": built.apart,
    }


def alone(command: Sequence[str]) -> dict[str, Any]:
    """What a process with empty caches prints."""
    with tempfile.TemporaryDirectory() as folder:
        environment_of_child = {k: v for k, v in os.environ.items() if k not in _PERSISTENT}
        done = subprocess.run(
            [sys.executable, *command],
            env=environment_of_child | dict.fromkeys(_CACHES, folder),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(step: str, device: str, rounds: int, with_jax: bool) -> dict[str, list[dict[str, Any]]]:
    """All rounds of a step, by competitor; the one that goes first changes."""
    commands = {device: ["-m", "benchmarks.cold_compile", "--work", step, "--device", device]}
    if with_jax:
        commands[_JAX] = ["-m", "benchmarks.jax_steps", step]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in list(commands) if number % 2 == 0 else reversed(list(commands)):
            found[name].append(alone(commands[name]))
    return found


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of a competitor's rounds; what does not vary, of the last."""
    last = rounds[-1]
    return {
        **last,
        "seconds": statistics.median(r["seconds"] for r in rounds),
        "cpu": statistics.median(r["cpu"] for r in rounds),
        "parts": {part: statistics.median(r["parts"][part] for r in rounds) for part in last["parts"]},
        "all": [r["seconds"] for r in rounds],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_compile", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--step", type=lambda text: text.split(","), default=list(BOTH), help=f"of {', '.join(STEPS)}")
    parser.add_argument("--device", default="opencl:intel")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without JAX")
    parser.add_argument("--out", help="the result file; benchmarks/results/cold_compile.json by default")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        print(json.dumps(work(options.work, options.device)))
        return 0
    jax = find_spec(_JAX) is not None and not options.alone
    load, found = OtherLoad(), []
    for step in options.step:
        rounds = measure(step, options.device, options.rounds, jax and step in BOTH)
        found.append({"step": step, **{name: summary(r) for name, r in rounds.items()}})
        print(table(_rows(found[-1]), ("step", "who", "seconds", "ratio", "cpu s", "parts")), flush=True)
    report = {
        **environment((_JAX, "intel-opencl-rt", "pocl-binary-distribution")),
        "device": options.device,
        "rounds": options.rounds,
        "other_processes_share": load.share(),
        "steps": found,
    }
    print("written to", write_results("cold_compile", report, options.out))
    return 0


def _rows(result: Mapping[str, Any]) -> list[dict[str, str]]:
    names = [name for name in result if name != "step"]
    base = result[_JAX]["seconds"] if _JAX in result else None
    return [
        {
            "step": result["step"],
            "who": name,
            "seconds": f"{result[name]['seconds']:.2f}",
            "ratio": f"{result[name]['seconds'] / base:.2f}x" if base else "",
            "cpu s": f"{result[name]['cpu']:.1f}",
            "parts": ", ".join(f"{part} {seconds:.2f}" for part, seconds in result[name]["parts"].items()),
        }
        for name in names
    ]


if __name__ == "__main__":
    sys.exit(main())
