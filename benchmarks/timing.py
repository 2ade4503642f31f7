"""Interleaved timing, tables and result files that the benchmarks share.

Absolute times of a shared machine mean little. Competitors take turns in short blocks within one process, so that
whatever else the machine does hits all of them, and what is reported is the median over blocks and the ratios of
medians.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from graphcore.train.progress import Progress

__all__ = ["Measured", "OtherLoad", "environment", "interleave", "table", "write_results"]

_WARM_STEPS = 2  # of every block: they refill caches and wake the competitor's threads
_REST = 0.003  # seconds between blocks: idle OpenMP threads spin for a while and would steal the next block's cores


class Measured:
    """Times of one competitor.

    Args:
        name: what tables call it.
        step: one whole step; its result is read on the host.
        setup_seconds: building, compiling and the first step.
    """

    def __init__(self, name: str, step: Callable[[], float], setup_seconds: float) -> None:
        self.name, self.step, self.setup_seconds = name, step, setup_seconds
        self.seconds: list[float] = []
        self.loss = float("nan")

    @property
    def median(self) -> float:
        """Seconds of a step: the median over blocks of a block's median."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """Seconds of a step in the fastest block: nearest to what an idle machine would give."""
        return min(self.seconds)

    def block(self, seconds: float) -> None:
        """Run steps for about so long and keep their median time."""
        for _ in range(_WARM_STEPS):
            self.loss = self.step()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            self.loss = self.step()
            times.append(time.perf_counter() - begin)
        self.seconds.append(statistics.median(times))


class OtherLoad:
    """How much of the machine other processes use meanwhile. Above a tenth, comparisons favour whoever needs no threads
    in lockstep."""

    def __init__(self) -> None:
        self._begin = self._read()

    @staticmethod
    def _read() -> tuple[float, float] | None:
        try:
            fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        mine = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        return sum(fields) - fields[3] - fields[4] - mine, float(sum(fields))

    def share(self) -> float | None:
        """The share of all processor time since the start, from 0 to 1; None where the system does not tell."""
        now, begin = self._read(), self._begin
        if now is None or begin is None or now[1] <= begin[1]:
            return None
        return round(max(now[0] - begin[0], 0.0) / (now[1] - begin[1]), 3)


def interleave(competitors: Sequence[Measured], rounds: int, block_seconds: float, title: str) -> None:
    """Let all take turns, in an order that moves by one each round."""
    with Progress(rounds * len(competitors), title, "blocks") as progress:
        for number in range(rounds):
            for position in range(len(competitors)):
                competitor = competitors[(position + number) % len(competitors)]
                competitor.block(block_seconds)
                progress.update(1)
                time.sleep(_REST)


def environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """The machine and the versions behind a measurement; nothing that names a user, host or path."""
    versions = {}
    for name in ("numpy", "pyopencl", *packages):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    version = importlib.import_module("graphcore.version").__version__
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "graphcore": version,
        "versions": versions,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1].strip() if found else platform.processor()


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as aligned text."""
    cells = [[str(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)), "  ".join("-" * w for w in widths)]
    lines += ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def write_results(name: str, result: Mapping[str, Any], out: str | None) -> str:
    """Write a result file; by default ``results/<name>.json`` beside the benchmarks. Returns its name without
    folders."""
    target = Path(out) if out else Path(__file__).parent / "results" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    return target.name
