"""Checks for graph-to-graph passes: the printed graph and the values, before and after."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.api.tensor import Tensor
from graphcore.ir.graph import Graph, verify_graph
from graphcore.ir.interpret import interpret
from graphcore.ir.op import Kind
from graphcore.ir.printer import attribute_text, print_graph
from passes.graph.base import Match, Pass, PassContext
from support.values import as_value

__all__ = ["SPECIAL", "assert_same_bits", "check_rewrite", "evaluate", "expression", "run_passes", "special_operands"]

SPECIAL = {
    "float16": (0.0, -0.0, 1.0, -1.0, 2.5, -3.0, np.inf, -np.inf, np.nan, 6e-8, -6e-8, 65504.0, -65504.0),
    "bfloat16": (0.0, -0.0, 1.0, -1.0, 2.5, -3.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3.3e38, -3.3e38),
    "float32": (0.0, -0.0, 1.0, -1.0, 2.5, -3.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3.4028235e38, -3.4028235e38),
    "float64": (0.0, -0.0, 1.0, -1.0, 2.5, -3.0, np.inf, -np.inf, np.nan, 5e-324, -1e-310, 1.797e308, -1.797e308),
    "int8": (0, 1, -1, 2, -3, 127, -128),
    "int32": (0, 1, -1, 2, -3, 2**31 - 1, -(2**31)),
    "int64": (0, 1, -1, 2, -3, 2**63 - 1, -(2**63)),
    "uint8": (0, 1, 2, 127, 128, 255),
    "uint32": (0, 1, 2, 2**31, 2**32 - 1),
    "bool": (False, True),
}


def special_operands(count: int, dtype: Any) -> list[np.ndarray[Any, Any]]:
    """All combinations of a type's special values, one flat array for each of ``count`` operands."""
    with np.errstate(all="ignore"):
        values = np.array(SPECIAL[dtype.name]).astype(dtype.storage)
    grid = np.meshgrid(*([np.arange(len(values))] * count), indexing="ij")
    return [values[g.reshape(-1)] for g in grid]


def evaluate(graph: Graph, feeds: Mapping[Tensor, Any]) -> list[np.ndarray[Any, Any]]:
    """The graph's roots by the interpreter."""
    values = {as_value(t): np.asarray(a, t.dtype.storage) for t, a in feeds.items()}
    return [np.asarray(a) for a in interpret(graph, values)]


def assert_same_bits(got: Sequence[Any], want: Sequence[Any]) -> None:
    """Equal shapes, types and bits; all NaNs are one value."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        nan_a, nan_b = np.not_equal(a, a), np.not_equal(b, b)
        np.testing.assert_array_equal(nan_a, nan_b)
        bits = f"u{a.itemsize}"
        unequal = (np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)) & ~nan_a
        assert not unequal.any(), f"{a[unequal][:4]} is not {b[unequal][:4]}"


def run_passes(graph: Graph, passes: Sequence[Pass], ctx: PassContext | None = None) -> Graph:
    """The graph after some passes, verified after each."""
    ctx = ctx or PassContext()
    for step in passes:
        graph = step.run(graph, ctx)
        verify_graph(graph)
    assert ctx.loops == 0
    return graph


def check_rewrite(
    before: Graph | Tensor, passes: Sequence[Pass], after: str, feeds: Mapping[Tensor, Any] | None = None
) -> Graph:
    """Run passes and compare the printed graph and the values.

    Args:
        before: a graph, or its only output.
        passes: run in order.
        after: the graph expected then, as printed; indentation common to all lines is ignored.
        feeds: arrays of placeholders, by tensor; those missing are filled with small integers.

    Returns:
        The graph after the passes.
    """
    graph = before if isinstance(before, Graph) else Graph((before,))
    given = dict(feeds or {})
    for node in graph.nodes():
        if node.op.kind is Kind.LEAF and node.op.name != "constant" and not any(t.node is node for t in given):
            given[node.output()] = _filler(node.output())
    text = print_graph(graph)
    result = run_passes(graph, passes)
    assert print_graph(graph) == text, "the pass changed the graph it was given"
    printed, expected = print_graph(result), textwrap.dedent(after).strip("\n").rstrip()
    assert printed == expected, f"the graph became\n{printed}\nnot\n{expected}"
    assert_same_bits(evaluate(result, given), evaluate(graph, given))
    again = run_passes(result, passes)
    assert again is result, "running the passes again changed the graph"
    return result


def expression(t: Tensor) -> str:
    """A small graph as one expression, e.g. ``neg(mul(x, 2.0))``; what is one number everywhere is printed as that."""
    number = Match(as_value(t)).splat
    if number is not None:
        return repr(number)
    label = getattr(t.node.op, "label", None)
    if label:
        return str(label)
    parts = ", ".join(filter(None, (*(expression(i) for i in t.node.inputs), attribute_text(t.node))))
    return f"{t.node.op.name}({parts})" + (f".{t.index}" if t.index else "")


def _filler(t: Tensor) -> np.ndarray[Any, Any]:
    shape = tuple(int(e) for e in t.shape)  # symbolic placeholders are fed by the test
    return (np.arange(math.prod(shape)) % 5 - 1).reshape(shape).astype(t.dtype.storage)
