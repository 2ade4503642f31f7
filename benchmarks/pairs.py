"""Programs of two checkouts beside each other: ``python -m benchmarks.pairs OLD [--step gpt] [--pairs 30]
[--alone]``; with ``--alone`` the products and convolutions of ``benchmarks.alone`` in place of training steps.

Each step runs in two processes, one per checkout, which take turns in short blocks; a pair is one block of each. Where
a process's memory happens to lie can favour it for all its life, so every few pairs begin with new processes. What is
reported is the median of the pairs' ratios old / new, so above 1 the new checkout is faster, with a bootstrap interval
that draws processes, then their pairs. A step passes if the interval's upper end is at least 0.97, all steps together
if that of their geometric mean is at least 1. Noise of the machine falls on both sides of a pair; it widens the
interval but does not shift it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
EACH, TOGETHER = 0.97, 1.0  # what the intervals' upper ends must reach
_BLOCK = 0.25  # seconds of a turn
_LIFE = 5  # pairs that processes live for
_DRAWS = 2000


def work(step: str, device: str, source: str) -> None:
    """The process of one checkout: build, then run a block for every line on standard input."""
    spec = importlib.util.spec_from_file_location(source, HERE.with_name(f"{source}.py"))
    assert spec is not None and spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    import graphcore as gc  # of the checkout that PYTHONPATH names

    fetches, feeds = models.STEPS[step]()
    session = gc.Session(device, seed=1)
    call = session.make_callable(fetches, list(feeds))
    arrays = list(feeds.values())
    cost = session.compile(fetches, feeds).cost_analysis()
    memory = session.compile(fetches, feeds).memory_analysis()
    for _ in range(3):
        call(*arrays)
    counts = {"launches": cost["launches"], "kernels": len(cost["kernels"]), "bytes": cost["bytes_accessed"]}
    print(json.dumps({**counts, "arena": memory["arena_bytes"]}), flush=True)
    begin = time.perf_counter()
    call(*arrays)
    repeats = max(1, round(_BLOCK / (time.perf_counter() - begin)))
    for _ in sys.stdin:
        begin = time.perf_counter()
        for _ in range(repeats):
            call(*arrays)
        print((time.perf_counter() - begin) / repeats, flush=True)


class Worker:
    """One checkout's process."""

    def __init__(self, root: Path, step: str, device: str, source: str) -> None:
        command = [sys.executable, str(HERE), "--work", step, "--device", device, str(root)]
        command += ["--alone"] if source == "alone" else []
        environment = {**os.environ, "PYTHONPATH": str(root)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
        )
        self.counts: dict[str, Any] = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended early; its error is above")
        return line

    def block(self) -> float:
        """Seconds a step over one block."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def measure(step: str, old: Path, new: Path, device: str, pairs: int, source: str) -> dict[str, Any]:
    """One step: the ratios of its pairs, medians, counts of both checkouts."""
    lives = -(-pairs // _LIFE)
    times = np.empty((lives, _LIFE, 2))
    for life in times:
        workers = [Worker(root, step, device, source) for root in (old, new)]
        try:
            for i, pair in enumerate(life):
                for side in (0, 1) if i % 2 == 0 else (1, 0):
                    pair[side] = workers[side].block()
        finally:
            for w in workers:
                w.close()
    logs = np.log(times[..., 0] / times[..., 1])
    rng = np.random.default_rng(0)
    drawn = rng.integers(lives, size=(_DRAWS, lives, 1)), rng.integers(_LIFE, size=(_DRAWS, lives, _LIFE))
    medians = np.median(logs[drawn], axis=(1, 2))
    return {
        "step": step,
        "old_ms": float(np.median(times[..., 0])) * 1e3,
        "new_ms": float(np.median(times[..., 1])) * 1e3,
        "ratio": float(np.exp(np.median(logs))),
        "low": float(np.exp(np.quantile(medians, 0.025))),
        "high": float(np.exp(np.quantile(medians, 0.975))),
        "old": workers[0].counts,
        "new": workers[1].counts,
        "draws": medians,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a step is slower or costs more than before."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path, help="the folder of the checkout to compare with")
    parser.add_argument("--step", type=lambda text: text.split(","), default=[], help="all by default")
    parser.add_argument("--device", default="opencl:intel")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--alone", action="store_true", help="products and convolutions alone")
    parser.add_argument("--out", help="the result file; benchmarks/results/pairs.json, or pairs_alone.json, by default")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    source = "alone" if options.alone else "models"
    if options.work:
        work(options.work, options.device, source)
        return 0
    from benchmarks.timing import environment, table, write_results

    steps = list(importlib.import_module(f"benchmarks.{source}").STEPS)

    found = []
    for step in options.step or steps:
        found.append(measure(step, options.old.resolve(), HERE.parents[1], options.device, options.pairs, source))
        print(table([row(found[-1])], list(row(found[-1]))), flush=True)
    together = np.exp(np.mean([r.pop("draws") for r in found], axis=0))
    low, middle, high = (float(np.quantile(together, q)) for q in (0.025, 0.5, 0.975))
    print(table([row(r) for r in found], list(row(found[0]))))
    print(f"geometric mean {middle:.3f}x, 95% interval {low:.3f} to {high:.3f}")
    slow = [r["step"] for r in found if r["high"] < EACH]
    grown = [r["step"] for r in found if any(r["new"][k] > r["old"][k] for k in r["new"])]
    report = {**environment(), "device": options.device, "pairs": options.pairs, "steps": found, "mean": middle}
    print("written to", write_results("pairs_alone" if options.alone else "pairs", report, options.out))
    print(f"slower: {', '.join(slow) or 'none'}; larger: {', '.join(grown) or 'none'}")
    return 1 if slow or grown or high < TOGETHER else 0


def row(r: dict[str, Any]) -> dict[str, str]:
    """A table's line."""
    return {
        "step": r["step"],
        "old ms": f"{r['old_ms']:.3f}",
        "new ms": f"{r['new_ms']:.3f}",
        "old / new": f"{r['ratio']:.3f}x",
        "95%": f"{r['low']:.3f} to {r['high']:.3f}",
        **{k: f"{r['old'][k]:,.0f} -> {v:,.0f}" if r["old"][k] != v else f"{v:,.0f}" for k, v in r["new"].items()},
    }


if __name__ == "__main__":
    sys.exit(main())
