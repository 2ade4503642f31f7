"""Seconds and counted work of each compiler stage on large graphs: ``python -m benchmarks.graph [--quick] [--nodes 10000,100000] [--graph chain]``.

Work is counted in node visits, rule attempts and Python calls, which do not depend on the machine; seconds do. A second, separate run
counts the calls, so that the profiler does not slow the timed one.
"""

from __future__ import annotations

import argparse
import cProfile
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphcore as gc
from backends.base import open_backend
from benchmarks.timing import environment, table, write_results
from graphcore import optim
from graphcore.graph import Graph, collect
from graphcore.node import Tensor
from graphcore.structure import flatten_fetches
from graphcore.train.progress import Progress
from passes.base import PassContext
from passes.fuse import Fuse
from passes.pipeline import DEFAULT, compile_graph

TARGET_SECONDS = 5.0  # the whole pipeline on 10,000 nodes


def chain(nodes: int) -> tuple[Any, Tensor]:
    """One operation after the other."""
    x = gc.placeholder("float32", (64,))
    t = x
    for _ in range(nodes // 4):
        t = gc.tanh(t + 1.0)
    return t, x


def wide_optimizer(nodes: int) -> tuple[Any, Tensor]:
    """Adam over many small variables."""
    variables = [gc.Variable(np.zeros(8, np.float32)) for _ in range(max(nodes // 32, 1))]
    x = gc.placeholder("float32", (8,))
    loss = added([(v * x).sum() for v in variables])
    return [loss, optim.Adam(1e-3).minimize(loss, variables)], x


def many_users(nodes: int) -> tuple[Any, Tensor]:
    """One value that thousands of others read."""
    x = gc.placeholder("float32", (8,))
    y = gc.exp(x)
    return added([y * float(i) for i in range(nodes // 4)]), x


def fibonacci(nodes: int) -> tuple[Any, Tensor]:
    """Every value reads the two before it: as many paths as a Fibonacci number."""
    x = gc.placeholder("float32", (8,))
    a, b = x, gc.tanh(x)
    for _ in range(nodes - 2):
        a, b = b, a + b
    return b, x


def diamonds(nodes: int) -> tuple[Any, Tensor]:
    """Fork and join, again and again: 2^n paths."""
    x = gc.placeholder("float32", (8,))
    t = x
    for _ in range(nodes // 3):
        t = gc.sin(t) + gc.cos(t)
    return t, x


def added(values: list[Any]) -> Any:
    """The sum by a balanced tree."""
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + values[len(values) // 2 * 2:]
    return values[0]


GRAPHS: dict[str, Callable[[int], tuple[Any, Tensor]]] = {g.__name__: g for g in (chain, wide_optimizer, many_users, fibonacci, diamonds)}


def collected(name: str, nodes: int) -> tuple[Graph, float]:
    """A run's graph, and the seconds that building took."""
    begin = time.perf_counter()
    fetches, fed = GRAPHS[name](nodes)
    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates, (fed,))
    graph = Graph(graph.outputs, graph.updates, (fed,))
    return graph, time.perf_counter() - begin


def measure(name: str, nodes: int, target: Any) -> dict[str, Any]:
    """One graph through the pipeline, timed, then counted."""
    graph, building = collected(name, nodes)
    begin = time.perf_counter()
    compiled = compile_graph(graph, target, {})
    total = time.perf_counter() - begin
    stages = {r.name: {"seconds": round(r.seconds, 4), "visits": r.visits} for r in compiled.records}
    for p in DEFAULT:
        context = PassContext()
        graph = p.run(graph, context)
        stages[p.name]["attempts"] = context.rule_attempts
    fusion = Fuse(graph, target)
    fusion.run()
    stages["fuse"].update(visits=fusion.visits, attempts=fusion.attempts)
    return {
        "graph": name, "nodes": len(compiled.built.nodes()), "kernels": len(compiled.plan.steps), "build_seconds": round(building, 4),
        "total_seconds": round(total, 4), "calls": calls(lambda: compile_graph(compiled.built, target, {})), "stages": stages,
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
    parser.add_argument("--graph", type=lambda text: text.split(","), default=list(GRAPHS), help=f"of {', '.join(GRAPHS)}")
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
        "graph": result["graph"], "nodes": f"{result['nodes']:,}", "kernels": f"{result['kernels']:,}", "build s": f"{result['build_seconds']:.2f}",
        **{f"{name} s": f"{s['seconds']:.2f}" for name, s in stages.items()}, "pipeline s": f"{result['total_seconds']:.2f}",
        "attempts": f"{sum(s.get('attempts', 0) for s in stages.values()):,}", "calls": f"{result['calls']:,}",
    }


if __name__ == "__main__":
    sys.exit(main())
