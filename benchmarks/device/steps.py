"""Milliseconds of whole training steps, beside PyTorch on CUDA where that is installed.

Run as ``python -m benchmarks.device.steps --device opencl:gpu``. A step feeds the batch from NumPy, runs forward,
backward and Adam, and reads the loss. The competitors take turns in short blocks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import graphcore as gc
from benchmarks.device.cold import SEED, SMALL
from benchmarks.device.report import Options, Report, parse_part, torch_module
from benchmarks.models import STEPS
from benchmarks.timing import Measured, interleave

_ROUNDS = 7
_BLOCK = 0.08  # seconds of a turn


def ours(device: str, name: str, row: dict[str, Any]) -> tuple[gc.Session, Measured]:
    """A session, to be closed, and graphcore's step; how it is launched goes to the row."""
    begin = time.perf_counter()
    fetches, feeds = STEPS[name]()
    session = gc.Session(device, seed=SEED)
    call, arrays = session.make_callable(fetches, list(feeds)), list(feeds.values())

    def step() -> float:
        return float(call(*arrays)[0])

    step()
    seconds = time.perf_counter() - begin
    compiled = session.compile(fetches, feeds)
    row.update({"mode": compiled.bound.mode, "launches": compiled.launches, "steps": len(compiled.plan.steps)})
    return session, Measured("graphcore", step, seconds)


def theirs(peers: Any, options: Options, name: str, row: dict[str, Any]) -> list[Measured]:
    """PyTorch's steps; one that fails is noted, and does not end ours."""
    found = []
    arrays = list(STEPS[name]()[1].values())
    for title, make in peers.competitors(options.compiled).items():
        begin = time.perf_counter()
        try:
            step = make(name, *arrays)
            step()
        except Exception as error:
            row[title] = f"{type(error).__name__}: {error}"[:300]
            continue
        found.append(Measured(title, step, time.perf_counter() - begin))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if a step failed."""
    options = parse_part("steps", arguments)
    report = Report("steps", options)
    peers = torch_module("torch_steps")
    for name in report.cases(SMALL if options.small else STEPS):
        with report.case(name) as row:
            session, mine = ours(options.device, name, row)
            with session:
                competitors = [mine, *(theirs(peers, options, name, row) if peers else [])]
                interleave(competitors, 2 if options.small else _ROUNDS, _BLOCK, name)
                row["ms"] = {c.name: round(c.median * 1e3, 4) for c in competitors}
                row["best ms"] = {c.name: round(c.best * 1e3, 4) for c in competitors}
                row["setup s"] = {c.name: round(c.setup_seconds, 2) for c in competitors}
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
