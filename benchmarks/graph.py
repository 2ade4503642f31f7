"""Seconds and counted work of each compiler stage on large graphs: ``python -m benchmarks.graph [--quick] [--nodes
10000,100000] [--graph chain]``.

Work is counted in node visits, rule attempts and Python calls, which do not depend on the machine; seconds do. A
second, separate run counts the calls, so that the profiler does not slow the timed one.
"""

from __future__ import annotations

import argparse
import cProfile
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.graphs import GRAPHS, collected
from benchmarks.timing import environment, table, write_results
from graphcore.plan.backend import open_backend
from graphcore.train.progress import Progress
from passes.pipeline import compile_graph

TARGET_SECONDS = 5.0  # the whole pipeline on 10,000 nodes


def measure(name: str, nodes: int, target: Any) -> dict[str, Any]:
    """One graph through the pipeline, timed, then counted."""
    begin = time.perf_counter()
    graph = collected(GRAPHS[name], nodes)
    building = time.perf_counter() - begin
    begin = time.perf_counter()
    compiled = compile_graph(graph, target, {})
    total = time.perf_counter() - begin
    stages = {
        r.name: {"seconds": round(r.seconds, 4), "visits": r.visits, "attempts": r.attempts} for r in compiled.records
    }
    return {
        "graph": name,
        "nodes": len(compiled.built.nodes()),
        "kernels": len(compiled.plan.steps),
        "build_seconds": round(building, 4),
        "total_seconds": round(total, 4),
        "calls": calls(lambda: compile_graph(compiled.built, target, {})),
        "stages": stages,
    }


def calls(work: Callable[[], Any]) -> int:
    """Python calls that some work makes."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        work()
    finally:
        profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 if the pipeline misses its target on 10,000 nodes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--graph", type=lambda text: text.split(","), default=list(GRAPHS), help=f"of {', '.join(GRAPHS)}"
    )
    parser.add_argument("--nodes", type=lambda text: [int(n) for n in text.split(",")], help="10000,100000 by default")
    parser.add_argument("--quick", action="store_true", help="10,000 nodes only")
    parser.add_argument("--device", default="opencl", help="whose schedules are chosen")
    parser.add_argument("--out", help="the result file; benchmarks/results/graph.json by default")
    options = parser.parse_args(arguments)
    sizes = options.nodes or ([10_000] if options.quick else [10_000, 100_000])
    target = open_backend(options.device).target
    found: list[dict[str, Any]] = []
    with Progress(len(sizes) * len(options.graph), "graphs", "graphs") as progress:
        for nodes in sizes:
            for name in options.graph:
                found.append(measure(name, nodes, target))
                progress.update(1)
    print(table([row(r) for r in found], list(row(found[0]))))
    slow = [r for r in found if r["nodes"] <= 11_000 and r["total_seconds"] > TARGET_SECONDS]
    for r in slow:
        print(f"{r['graph']}: {r['total_seconds']:.1f} s on {r['nodes']} nodes, the target is {TARGET_SECONDS:.0f} s")
    print("written to", write_results("graph", {**environment(), "device": target.name, "graphs": found}, options.out))
    return 1 if slow else 0


def row(result: dict[str, Any]) -> dict[str, str]:
    """A table's line."""
    stages = result["stages"]
    return {
        "graph": result["graph"],
        "nodes": f"{result['nodes']:,}",
        "kernels": f"{result['kernels']:,}",
        "build s": f"{result['build_seconds']:.2f}",
        **{f"{name} s": f"{s['seconds']:.2f}" for name, s in stages.items()},
        "pipeline s": f"{result['total_seconds']:.2f}",
        "attempts": f"{sum(s['attempts'] for s in stages.values()):,}",
        "calls": f"{result['calls']:,}",
    }


if __name__ == "__main__":
    sys.exit(main())
