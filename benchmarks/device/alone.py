"""Single operations by the device's own clock, beside PyTorch's on CUDA where that is installed.

Run as ``python -m benchmarks.device.alone --device opencl:gpu``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import graphcore as gc
from backends.opencl.measure import measure_steps
from benchmarks.device.alone_cases import Alone, cases
from benchmarks.device.report import Options, Report, parse_part, torch_module


def measure(case: Alone, options: Options) -> tuple[dict[str, Any], Any]:
    """Microseconds of all kernels together, the rates, and each kernel; and the result."""
    tensor, feeds = case.build()
    with gc.Session(options.device, launch="level") as session:
        found = session.run(tensor, feeds)
        compiled = session.compile(tensor, feeds)
        arrays = list(feeds.values())
        steps = measure_steps(
            compiled.backend, compiled.program, compiled.place(compiled.hints), arrays, 0.02 if options.small else 0.15
        )
    times = [statistics.median(s.seconds) for s in steps]
    seconds = sum(times)
    row = {
        "us": round(seconds * 1e6, 2),
        "tflops": round(case.flops / seconds / 1e12, 3),
        "gbs": round(case.nbytes / seconds / 1e9, 1),
        "kernels": [
            {
                "family": s.step.family,
                "choices": s.step.choices.describe(),
                "tasks": s.row.tasks,
                "us": round(t * 1e6, 2),
            }
            for s, t in zip(steps, times, strict=True)
        ],
    }
    return row, found


def difference(found: Any, wanted: Any) -> float:
    """The greatest, as a part of the greatest number that is wanted."""
    wide, exact = np.asarray(found).astype(np.float64), np.asarray(wanted).astype(np.float64)
    if wide.shape != exact.shape:
        raise ValueError(f"the result is {wide.shape}, not {exact.shape}")
    return float(np.abs(wide - exact).max() / np.abs(exact).max())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if a case failed."""
    options = parse_part("alone", arguments)
    report = Report("alone", options)
    torch = torch_module("torch_peers")
    made = cases(options.small)
    for group in report.cases(made):
        for name, case in made[group]().items():
            with report.case(name) as row:
                measured, found = measure(case, options)
                row.update(measured)
                wanted = case.wanted(*case.arrays) if case.wanted else None
                if torch is not None:
                    row["peers"], theirs = torch.measure(case)
                    wanted = theirs if wanted is None else wanted
                if wanted is not None:
                    row["wrong"] = difference(found, wanted)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
