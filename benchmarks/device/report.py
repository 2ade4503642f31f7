"""What the parts share: their command line, results that are written after every case, and clocks.

A part is a module that runs as a process of its own (``python -m benchmarks.device.probe``), so that what fails or
hangs in one costs only itself. It writes its results after every case, and leaves out the cases that it has no time
for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.timing import environment

__all__ = ["Options", "Report", "event_seconds", "parse_part", "seconds_of", "torch_module"]

_LONGEST = 1200  # characters of an error that is kept


@dataclass(frozen=True)
class Options:
    """What a part was asked for.

    Attributes:
        device: graphcore's device string.
        seconds: after which no case begins.
        small: little of everything, to try the benchmark itself.
        compiled: whether PyTorch's compiler is measured too.
        only: names of cases; all if empty.
        out: the result file.
    """

    device: str
    seconds: float
    small: bool
    compiled: bool
    only: tuple[str, ...]
    out: Path


def parse_part(part: str, arguments: Sequence[str] | None = None) -> Options:
    """The command line of a part's process."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.device.{part}")
    parser.add_argument("--device", default="opencl:gpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="after which no case begins")
    parser.add_argument("--small", action="store_true", help="little of everything")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--only", default="", help="names of cases, with commas")
    parser.add_argument("--out", type=Path, default=Path(f"device_{part}.json"))
    found = parser.parse_args(arguments)
    only = tuple(name for name in found.only.split(",") if name)
    return Options(found.device, found.seconds, found.small, found.compile, only, found.out)


class Report:
    """The results of a part: printed and written as they come.

    Args:
        part: its name.
        options: what it was asked for.
    """

    def __init__(self, part: str, options: Options) -> None:
        self.part, self.options = part, options
        self.end = time.perf_counter() + options.seconds
        self.rows: list[dict[str, Any]] = []
        self.header = {"part": part, "device": options.device, **environment(("torch",))}

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.perf_counter()

    @property
    def failed(self) -> bool:
        """Whether a case failed."""
        return any("error" in row for row in self.rows)

    def cases(self, names: Iterable[str]) -> Iterator[str]:
        """The names that are wanted, as long as there is time; the others are noted as left out."""
        for name in names:
            if self.options.only and name not in self.options.only:
                continue
            if self.left > 0:
                yield name
            else:
                self.add({"case": name, "left out": "no time left"})

    @contextmanager
    def case(self, name: str) -> Iterator[dict[str, Any]]:
        """A row to fill; what is raised meanwhile is its result. Nothing that a device does may end the others."""
        row: dict[str, Any] = {"case": name}
        try:
            yield row
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"[:_LONGEST]
        self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Keep, print and write a row."""
        self.rows.append(row)
        shown = ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k != "case" and not isinstance(v, list))
        print(f"{self.part} {row['case']}: {shown}", flush=True)
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.options.out.with_suffix(".part")
        fresh.write_text(json.dumps({**self.header, "cases": self.rows}, indent=1, default=str) + "\n")
        fresh.replace(self.options.out)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + ")"
    return str(value)


def seconds_of(work: Callable[[], Any], seconds: float = 0.3, least: int = 5) -> float:
    """The median of repeated work, by this process's clock."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def event_seconds(queue: Any, enqueue: Callable[[], Any], count: int = 10) -> float:
    """The median of a command's seconds by the device's clock.

    Args:
        queue: records the times of its commands.
        enqueue: gives the command's event.
        count: how many are timed, after two that are not.
    """
    times: list[float] = []
    for _ in range(count + 2):
        event = enqueue()
        queue.finish()
        times.append((event.profile.end - event.profile.start) * 1e-9)
    return statistics.median(times[2:])


def torch_module(name: str) -> Any:
    """A module of this package that needs PyTorch, where that is installed and has a GPU; else None."""
    if find_spec("torch") is None:
        return None
    module = import_module(f"benchmarks.device.{name}")
    return module if module.torch.cuda.is_available() else None
