"""Every kernel of the training steps by the device's own clock, beside the cost model.

Run as ``python -m benchmarks.device.kernels --device opencl:gpu``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.costs import Timed, measured
from benchmarks.device.cold import SMALL
from benchmarks.device.report import Report, parse_part
from benchmarks.models import STEPS
from benchmarks.timing import table
from graphcore.plan.backend import open_backend
from graphcore.plan.costs import CostModel

_LARGEST = 15
_KEPT = 60  # lines of the result file for every step


def families(timed: Sequence[Timed], costs: CostModel) -> dict[str, dict[str, Any]]:
    """Steps, microseconds and the model's, by family, the most expensive first."""
    found: dict[str, dict[str, Any]] = {}
    for t in timed:
        line = found.setdefault(t.step.step.family, {"steps": 0, "us": 0.0, "model us": 0.0})
        line["steps"] += 1
        line["us"] += _median(t) * 1e6
        line["model us"] += t.modelled(costs, alone=False) * 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1]["us"]))


def lines(timed: Sequence[Timed], costs: CostModel) -> list[dict[str, Any]]:
    """Equal kernels as one line, those that take longest together first."""
    groups: dict[tuple[Any, ...], list[Timed]] = {}
    for t in timed:
        step = t.step.step
        key = (step.kernel.name, step.family, step.choices.describe(), t.step.row.work, t.step.row.tasks)
        groups.setdefault(key, []).append(t)
    found = []
    for (name, family, choices, _, tasks), members in groups.items():
        seconds = statistics.median(map(_median, members))
        step = members[0].step.step
        found.append(
            {
                "kernel": name,
                "family": family,
                "choices": choices,
                "rows": len(members),
                "tasks": tasks,
                "us": round(seconds * 1e6, 2),
                "all us": round(seconds * 1e6 * len(members), 1),
                "GFLOP/s": round(step.flops / seconds / 1e9, 1),
                "GB/s": round(step.nbytes / seconds / 1e9, 1),
                "model us": round(members[0].modelled(costs, alone=False) * 1e6, 2),
            }
        )
    return sorted(found, key=lambda line: -line["all us"])


def _median(t: Timed) -> float:
    return statistics.median(t.step.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a step failed."""
    options = parse_part("kernels", arguments)
    report = Report("kernels", options)
    costs = open_backend(options.device).target.costs
    for name in report.cases(SMALL if options.small else STEPS):
        with report.case(name) as row:
            timed = measured(options.device, name, STEPS[name], 0.2 if options.small else 0.5, alone=False)
            found, by_family = lines(timed, costs), families(timed, costs)
            row["steps"] = len(timed)
            row["us"] = sum(map(_median, timed)) * 1e6
            row["model us"] = sum(t.modelled(costs, alone=False) for t in timed) * 1e6
            row["families"] = [{"family": family, **line} for family, line in by_family.items()]
            row["kernels"] = found[:_KEPT]
            print(f"{name}, by family\n{table([_rounded(f) for f in row['families']], list(row['families'][0]))}")
            print(table([{**line, "choices": line["choices"][:40]} for line in found[:_LARGEST]], list(found[0])))
    return int(report.failed)


def _rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 1) if isinstance(v, float) else v for k, v in line.items()}


if __name__ == "__main__":
    sys.exit(main())
