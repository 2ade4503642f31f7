"""Scalar expressions: interned, and read by properties that only the kinds have that they belong to."""

from __future__ import annotations

import pytest

from graphcore.base import dtypes
from graphcore.base.shapes import Dim
from graphcore.kernel import expr
from graphcore.kernel.index import REDUCE, Axis, as_index

N = Dim("n")
ROW, COLUMN = Axis("i", N), Axis("r", 4, REDUCE)
TEST = expr.in_range(as_index(ROW), 1, N)
LOAD = expr.load(2, as_index(ROW) * 4 + as_index(COLUMN), dtypes.float32, TEST)

KINDS = {
    "const": (expr.const(2.5, dtypes.float32), {"value": 2.5}),
    "load": (LOAD, {"param": 2, "index": as_index(ROW) * 4 + as_index(COLUMN), "guard": TEST}),
    "index": (expr.index_value(as_index(ROW), dtypes.int32), {"index": as_index(ROW)}),
    "size": (expr.size_value(N, dtypes.int32), {"extent": N}),
    "in_range": (TEST, {"index": as_index(ROW), "low": 1, "high": N}),
    "reduce": (expr.reduce("max", (COLUMN,), LOAD), {"combine": "max", "reduce_axes": (COLUMN,)}),
    "add": (expr.call("add", LOAD, LOAD), {}),
}
PROPERTIES = ("value", "param", "index", "guard", "extent", "low", "high", "combine", "reduce_axes")


@pytest.mark.parametrize("kind", KINDS)
def test_an_expression_has_the_properties_of_its_kind_and_no_others(kind: str) -> None:
    e, expected = KINDS[kind]
    assert e.fn == kind
    for name in PROPERTIES:
        if name in expected:
            assert getattr(e, name) == expected[name]
        else:
            with pytest.raises(AttributeError, match=f"a {kind} has no {name}"):
                getattr(e, name)


def test_equal_expressions_are_one_object() -> None:
    again = expr.load(2, as_index(ROW) * 4 + as_index(COLUMN), dtypes.float32, expr.in_range(as_index(ROW), 1, N))
    assert again is LOAD
    assert expr.load(2, LOAD.index, dtypes.float32).guard is None
    assert expr.const(0.0, dtypes.float32) is not expr.const(-0.0, dtypes.float32)
    assert expr.const(float("nan"), dtypes.float32) is expr.const(float("nan"), dtypes.float32)
