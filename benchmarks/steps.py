"""Whole training steps against PyTorch and JAX: ``python -m benchmarks.steps [--quick] [--case mlp] [--peers
pytorch,jax] [--device opencl:intel]``.

A step is: feed the batch from NumPy, forward, backward, Adam, read the loss. All competitors run in one process with as
many threads as there are cores and take turns in short blocks. Peers that are not installed are skipped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from benchmarks.competitors import CASES, PEERS, Case, graphcore_step
from benchmarks.timing import Measured, OtherLoad, environment, interleave, table, write_results
from graphcore.base.errors import GraphcoreError

DEVICES = "opencl:intel,opencl:pocl"
_BUSY = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the result file."""
    options = parse(arguments)
    report: dict[str, Any] = {
        **environment(("torch", "jax", "intel-opencl-rt", "pocl-binary-distribution")),
        "devices": {},
        "cases": [],
    }
    for name in options.case:
        case = CASES[name]
        competitors = prepare(case, options.device, options.peers, report["devices"])
        if not competitors:
            print("nothing to measure: no device opens and no peer is installed", file=sys.stderr)
            return 1
        load = OtherLoad()
        interleave(competitors, options.rounds, options.block, name)
        others = load.share()
        report["cases"].append({**summary(case, competitors), "other_processes_share": others})
        show(case, competitors)
        if others is not None and others > _BUSY:
            print(f"other processes used {others:.0%} of the machine meanwhile: do not cite these numbers")
    print("written to", write_results("steps", report, options.out))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--case", type=listed(CASES), default=list(CASES), help=f"of {', '.join(CASES)}; all by default"
    )
    parser.add_argument("--peers", type=listed(PEERS), default=list(PEERS), help=f"of {', '.join(PEERS)}, or 'none'")
    parser.add_argument(
        "--device",
        type=lambda text: text.split(","),
        default=DEVICES.split(","),
        help=f"graphcore's devices, {DEVICES} by default",
    )
    parser.add_argument("--quick", action="store_true", help="few short rounds")
    parser.add_argument("--rounds", type=int, help="turns of each competitor")
    parser.add_argument("--block", type=float, help="seconds of a turn")
    parser.add_argument("--out", help="the result file; benchmarks/results/steps.json by default")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (5 if options.quick else 21)
    options.block = options.block or (0.05 if options.quick else 0.25)
    return options


def listed(known: Any) -> Callable[[str], list[str]]:
    """A parser of comma-separated names."""

    def names(text: str) -> list[str]:
        chosen = [] if text == "none" else text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name}; there are {', '.join(known)}")
        return chosen

    return names


def prepare(case: Case, devices: Sequence[str], peers: Sequence[str], found: dict[str, str]) -> list[Measured]:
    """Everything that can run, built and warmed up; ``found`` receives the devices' own names."""
    ready: list[Measured] = []
    for device in devices:
        begin = time.perf_counter()
        try:
            step, compiled = graphcore_step(case, device)
        except GraphcoreError as error:
            print(f"skipping {device}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found[device] = str(compiled.backend.target.name)
        ready.append(Measured(f"graphcore {device}", step, time.perf_counter() - begin))
    for peer in peers:
        module, make = PEERS[peer]
        if find_spec(module) is None:
            print(f"skipping {peer}: {module} is not installed", file=sys.stderr)
            continue
        begin = time.perf_counter()
        step = make(case)
        step()
        ready.append(Measured(peer, step, time.perf_counter() - begin))
    return ready


def summary(case: Case, competitors: Sequence[Measured]) -> dict[str, Any]:
    """A case's results as data."""
    return {
        "case": case.name,
        "title": case.title,
        "results": [
            {
                "name": c.name,
                "median_ms": round(c.median * 1e3, 5),
                "best_ms": round(c.best * 1e3, 5),
                "setup_seconds": round(c.setup_seconds, 2),
                "loss": round(c.loss, 6),
            }
            for c in competitors
        ],
    }


def show(case: Case, competitors: Sequence[Measured]) -> None:
    """Print medians and best blocks, and how many times longer each takes than each graphcore device."""
    ours = [c for c in competitors if c.name.startswith("graphcore")]
    rows = []
    for c in competitors:
        row = {
            "competitor": c.name,
            "ms a step": f"{c.median * 1e3:.3f}",
            "best": f"{c.best * 1e3:.3f}",
            "setup s": f"{c.setup_seconds:.1f}",
            "loss": f"{c.loss:.4f}",
        }
        for mine in ours:
            row[f"/ {mine.name.split(':')[-1]} (best)"] = f"{c.median / mine.median:.2f}x ({c.best / mine.best:.2f}x)"
        rows.append(row)
    print(f"\n{case.title}\n{table(rows, list(rows[0]))}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
