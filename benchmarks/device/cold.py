"""The training steps from nothing, each in a process of its own and as many at once as there are cores for: seconds to
the first loss, how they are launched, and the first losses beside those of a CPU.

Run as ``python -m benchmarks.device.cold --device opencl:gpu``. What is compiled is in the cache afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import graphcore as gc
from backends.opencl.compiler.build import build_stats
from benchmarks.device.report import Report, parse_part
from benchmarks.models import STEPS

EXPECTED = Path(__file__).parents[1] / "results" / "expected_losses.json"
LOSSES = 3
SEED = 1
SMALL = ("mlp_small",)
_CHILD = "--step"


def first_losses(device: str, name: str) -> list[float]:
    """The losses of a step's first runs."""
    fetches, feeds = STEPS[name]()
    with gc.Session(device, seed=SEED) as session:
        return [float(session.run(fetches, feeds)[0]) for _ in range(LOSSES)]


def from_nothing(device: str, name: str) -> dict[str, Any]:
    """A step's first runs and what was compiled for them; in a process that has done nothing else."""
    begin = time.perf_counter()
    fetches, feeds = STEPS[name]()
    with gc.Session(device, seed=SEED) as session:
        losses = [float(session.run(fetches, feeds)[0])]
        seconds = time.perf_counter() - begin
        losses += [float(session.run(fetches, feeds)[0]) for _ in range(LOSSES - 1)]
        compiled = session.compile(fetches, feeds)
        return {
            "seconds": round(seconds, 2),
            "compiler": round(build_stats().seconds, 2),
            "functions": len(compiled.program.source.functions),
            "steps": len(compiled.plan.steps),
            "mode": compiled.bound.mode,
            "launches": compiled.launches,
            "losses": losses,
        }


def compared(losses: Sequence[float], expected: Sequence[float]) -> float:
    """The greatest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True))


def in_process(device: str, name: str, seconds: float) -> dict[str, Any]:
    """What a process of its own finds.

    Raises:
        RuntimeError: it failed.
        subprocess.TimeoutExpired: it took longer than so many seconds.
    """
    command = [sys.executable, "-m", "benchmarks.device.cold", _CHILD, name, device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1.0), check=False)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if a step failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [_CHILD]:
        print(json.dumps(from_nothing(given[2], given[1])))
        return 0
    options = parse_part("cold", given)
    report = Report("cold", options)
    expected: Mapping[str, list[float]] = json.loads(EXPECTED.read_text())["losses"]
    names = list(report.cases(SMALL if options.small else STEPS))
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        running = {pool.submit(lambda n: in_process(options.device, n, report.left), name): name for name in names}
        for done in as_completed(running):
            with report.case(running[done]) as row:
                row.update(done.result())
                row["worst loss"] = compared(row["losses"], expected[running[done]])
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
