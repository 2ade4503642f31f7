"""The cost models beside measured times: ``python -m benchmarks.costs [--fit] [--check] [--device opencl:intel]``.

``--fit`` measures about forty kernels (``benchmarks.cost_kernels``) and prints the numbers of a device class that
describe them best, for ``backends/codegen/device_costs.py``: they are data that is shipped, never what some machine
measured. ``--check`` times every step of the training steps of ``benchmarks.models`` in its place in the run and
compares; it fails if the median |log(model / measured)| is above 0.35. Without either, both.

Times are taken with one core doing all of a step's tasks, so that other processes cost least; with ``--cores`` all
cores share them. The least of many passes counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import graphcore as gc
from backends.opencl.launch_modes import LAUNCHES
from backends.opencl.measure import MeasuredStep, measure_steps
from backends.opencl.runtime import BoundPlan
from benchmarks.cost_kernels import KERNELS, Built, levels
from benchmarks.models import STEPS
from benchmarks.timing import OtherLoad, environment, table, write_results
from graphcore.base.errors import GraphcoreError
from graphcore.plan.costs import CostModel
from graphcore.train.progress import Progress

ACCEPTED = 0.35
_FITTED = (
    "row_seconds", "task_seconds", "instruction_seconds", "scattered_seconds", "turn_seconds", "overlap",
)  # fmt: skip
_TRUST = 0.2  # how strongly a number is held to the one that is shipped, in parts of one kernel's error
_LEAST = 1e-7  # seconds below which times are mostly the clock's


@dataclass(frozen=True)
class Timed:
    """One step of a program beside the model.

    Attributes:
        program: its name.
        step: what was measured.
        footprint: bytes that the program touches.
    """

    program: str
    step: MeasuredStep
    footprint: int

    def modelled(self, costs: CostModel, alone: bool) -> float:
        """The model's seconds."""
        return costs.seconds(self.step.row.work, self.step.row.tasks, self.footprint, alone)

    def error(self, costs: CostModel, alone: bool) -> float:
        """log(model / measured)."""
        return float(np.log(self.modelled(costs, alone) / max(self.step.best, _LEAST)))


def measured(device: str, name: str, build: Callable[[], Built], seconds: float, alone: bool) -> list[Timed]:
    """Every step of a program, timed in its place."""
    fetches, feeds = build()
    with gc.Session(device, seed=1) as session:
        session.run(fetches, feeds)  # gives variables their values
        compiled = session.compile(fetches, feeds)
        arrays = [feeds[t] for t in feeds]
        placed = compiled.place(compiled.hints)
        slots = compiled.slots
        found = measure_steps(compiled.backend, compiled.program, placed, slots, arrays, seconds, alone=alone)
        footprint = BoundPlan(compiled.backend, compiled.program, placed, slots, LAUNCHES["step"]).footprint
    return [Timed(name, step, footprint) for step in found]


def launching(device: str, costs: CostModel, seconds: float) -> float:
    """Seconds of one more level: starting its launch and waiting for its tasks."""
    fetches, feeds = levels()
    best = {}
    with gc.Session(device) as session:
        session.run(fetches, feeds)
        compiled = session.compile(fetches, feeds)
        placed = compiled.place(compiled.hints)
        for mode in (LAUNCHES["level"], LAUNCHES["one"]):
            bound = BoundPlan(compiled.backend, compiled.program, placed, compiled.slots, mode)
            arrays, times = list(feeds.values()), []
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 10:
                begin = time.perf_counter()
                bound.run(arrays)
                times.append(time.perf_counter() - begin)
            best[mode] = min(times), bound.launches
    (by_level, launches), (one, _) = best.values()
    return (by_level - one / costs.cores) / launches


# The fit


def fitted(costs: CostModel, timed: Sequence[Timed], alone: bool) -> CostModel:
    """The numbers that describe some steps best, near those of ``costs``: damped least squares of the logarithms."""
    start = np.log(np.array(_numbers(costs)))
    weights = _weights(timed)

    def residuals(logs: Any) -> Any:
        model = _with_numbers(costs, list(np.exp(logs)))
        errors = np.array([t.error(model, alone) for t in timed])
        robust = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2 / 0.09) - 1)) * 0.3
        return np.concatenate([weights * robust, _TRUST * (logs - start)])

    logs, damping = start.copy(), 1e-2
    now = residuals(logs)
    for _ in range(60):
        jacobian = np.stack([(residuals(logs + step) - now) / 1e-4 for step in 1e-4 * np.eye(len(start))], axis=1)
        step = np.linalg.solve(jacobian.T @ jacobian + damping * np.eye(len(start)), -jacobian.T @ now)
        then = residuals(logs + step)
        if then @ then < now @ now:
            logs, now, damping = logs + step, then, damping / 3
            if np.abs(step).max() < 1e-3:
                break
        else:
            damping *= 4
    return _with_numbers(costs, list(np.exp(logs)))


def _numbers(costs: CostModel) -> list[float]:
    rates = (r for _, r in costs.product_rates)
    return [*(getattr(costs, n) for n in _FITTED), *costs.far_seconds, *costs.bytes_per_second, *rates]


def _with_numbers(costs: CostModel, numbers: Sequence[float]) -> CostModel:
    plain, rest = [float(n) for n in numbers[: len(_FITTED)]], [float(n) for n in numbers[len(_FITTED) :]]
    return replace(
        costs,
        **dict(zip(_FITTED, plain, strict=True)),  # type: ignore[arg-type]
        far_seconds=(rest[0], rest[1], rest[2]),
        bytes_per_second=(rest[3], rest[4], rest[5]),
        product_rates=tuple((t, r) for (t, _), r in zip(costs.product_rates, rest[6:], strict=True)),
    )


def _weights(timed: Sequence[Timed]) -> Any:
    """Equal kernels count less each, and so do the kernels of one program."""
    keys = [(t.program, t.step.row.work, t.step.row.tasks) for t in timed]
    return np.array([keys.count(k) ** -0.5 for k in keys])


# Reports


def rows_of(timed: Sequence[Timed], costs: CostModel, alone: bool) -> list[dict[str, Any]]:
    """A line for every step, equal ones once."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for t in timed:
        key = (t.program, t.step.step.kernel.name, t.step.row.work, t.step.row.tasks)
        line = lines.setdefault(
            key,
            {
                "program": t.program,
                "kernel": t.step.step.kernel.name,
                "family": t.step.step.family,
                "times": 0,
                "model_us": round(t.modelled(costs, alone) * 1e6, 2),
                "measured": [],
            },
        )
        line["times"] += 1
        line["measured"].append(t.step.best * 1e6)
    for line in lines.values():
        line["measured_us"] = round(statistics.median(line.pop("measured")), 2)
        line["log"] = round(float(np.log(line["model_us"] / max(line["measured_us"], _LEAST * 1e6))), 2)
    return list(lines.values())


def summary(timed: Sequence[Timed], costs: CostModel, alone: bool) -> dict[str, Any]:
    """Medians of the errors, together, by family and by program, and both sums of every program."""
    errors = [abs(t.error(costs, alone)) for t in timed]

    def medians(name: Callable[[Timed], str]) -> dict[str, float]:
        names = dict.fromkeys(map(name, timed))
        return {
            n: round(statistics.median(e for t, e in zip(timed, errors, strict=True) if name(t) == n), 3) for n in names
        }

    programs = dict.fromkeys(t.program for t in timed)
    totals = {
        p: [
            round(1e3 * sum(t.modelled(costs, alone) for t in timed if t.program == p), 3),
            round(1e3 * sum(t.step.best for t in timed if t.program == p), 3),
        ]
        for p in programs
    }
    return {
        "median": round(statistics.median(errors), 3),
        "ninth tenth": round(float(np.quantile(errors, 0.9)), 3),
        "by family": medians(lambda t: t.step.step.family),
        "by program": medians(lambda t: t.program),
        "model and measured ms": totals,
    }


def run(
    device: str, names: Mapping[str, Callable[[], Any]], seconds: float, alone: bool, title: str
) -> tuple[CostModel, list[Timed]]:
    """All programs' steps, and the model that is shipped for the device."""
    timed: list[Timed] = []
    with gc.Session(device) as session:
        costs = session.compile(gc.exp(gc.zeros((4,))), {}).backend.target.costs
    with Progress(len(names), title, "programs") as progress:
        for name, build in names.items():
            timed += measured(device, name, build, seconds, alone)
            progress.update(1)
    return costs, timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit, compare, print, write; 1 if the model misses its target."""
    options = parse(arguments)
    alone, report, missed = not options.cores, {}, False
    for device in options.device:
        load = OtherLoad()
        try:
            found: dict[str, Any] = {"cores": "all" if options.cores else "one"}
            if options.fit:
                costs, timed = run(device, KERNELS, options.seconds, alone, f"{device} kernels")
                launch = launching(device, costs, options.seconds)
                better = fitted(costs, timed, alone)
                numbers = {n: float(f"{getattr(better, n):.3g}") for n in _FITTED}
                numbers["far_seconds"] = [float(f"{s:.3g}") for s in better.far_seconds]
                numbers["product_rates"] = {t: float(f"{r:.3g}") for t, r in better.product_rates}
                numbers["bytes_per_second"] = [float(f"{r:.3g}") for r in better.bytes_per_second]
                numbers["launch and level seconds"] = float(f"{launch:.3g}")
                found["fit"] = {
                    "numbers": numbers,
                    "shipped": summary(timed, costs, alone),
                    "fitted": summary(timed, better, alone),
                    "kernels": rows_of(timed, better, alone),
                }
                show(f"{device}: kernels, fitted", found["fit"]["kernels"], found["fit"]["fitted"])
                print("\n".join(f"    {name}={value}," for name, value in numbers.items()), flush=True)
            if options.check:
                costs, timed = run(device, {n: STEPS[n] for n in options.step}, options.seconds, alone, device)
                found["check"] = {**summary(timed, costs, alone), "steps": rows_of(timed, costs, alone)}
                show(f"{device}: training steps", found["check"]["steps"], summary(timed, costs, alone))
                missed |= found["check"]["median"] > ACCEPTED
        except GraphcoreError as error:
            print(f"skipping {device}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found["class"] = costs.name
        found["other_processes_share"] = load.share()
        report[device] = found
    if not report:
        print("no device opens", file=sys.stderr)
        return 1
    print("written to", write_results("costs", {**environment(), "devices": report}, options.out))
    return int(missed)


def show(title: str, rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> None:
    """Print a table, the worst first, and what it comes to."""
    ordered = sorted(rows, key=lambda r: -abs(r["log"]))
    print(f"\n{title}\n{table(ordered, ['program', 'kernel', 'family', 'times', 'model_us', 'measured_us', 'log'])}")
    print("\n".join(f"{name}: {value}" for name, value in told.items()), flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="measure kernels and print the numbers that fit them")
    parser.add_argument("--check", action="store_true", help="compare the shipped numbers with training steps")
    parser.add_argument("--step", type=lambda text: text.split(","), default=list(STEPS), help=f"of {', '.join(STEPS)}")
    parser.add_argument("--device", type=lambda text: text.split(","), default=["opencl:intel", "opencl:pocl"])
    parser.add_argument("--cores", action="store_true", help="let all cores share a step's tasks")
    parser.add_argument("--seconds", type=float, default=10.0, help="of passes for every program")
    parser.add_argument("--out", help="the result file; benchmarks/results/costs.json by default")
    options = parser.parse_args(arguments)
    if not options.fit and not options.check:
        options.fit = options.check = True
    return options


if __name__ == "__main__":
    sys.exit(main())
