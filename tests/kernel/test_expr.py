"""Scalar expressions: interned, and read by properties that only the kinds have that they belong to."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from graphcore.base import dtypes
from graphcore.base.shapes import Dim
from graphcore.kernel import expr
from graphcore.kernel.expr import walk
from graphcore.kernel.index import REDUCE, Axis, Dynamic, Index, as_index
from graphcore.kernel.ir import Kernel, Param, Store

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


def test_values_come_once_and_after_what_they_are_made_of() -> None:
    named = expr.load(1, as_index(ROW), dtypes.int64)
    gathered = expr.load(0, as_index(Dynamic(named, 7)) * 4 + as_index(COLUMN), dtypes.float32, TEST)
    twice = expr.call("add", gathered, gathered)
    order = list(walk(twice, expr.call("mul", twice, LOAD), named))
    assert order == [TEST, named, gathered, twice, LOAD, expr.call("mul", twice, LOAD)]


def test_a_kernel_made_of_another_has_values_and_reductions_of_its_own() -> None:
    total = expr.reduce("add", (COLUMN,), LOAD)
    param = Param("p0", dtypes.float32, (N,))
    kernel = Kernel("k", (param,) * 3, (ROW,), (Store(0, as_index(ROW), total),))
    assert list(kernel.values()) == [TEST, LOAD, total] == list(kernel.values())
    assert list(kernel.reductions()) == [total]
    other = replace(kernel, stores=(Store(0, as_index(ROW), LOAD),))
    assert list(other.values()) == [TEST, LOAD] and not other.reductions()
    assert kernel == replace(kernel)  # what it has been asked is no part of it


HIGH, LOW, ONE = Axis("i", 5), Axis("j", 6), Axis("u", 1)
FLAT = as_index(HIGH) * 6 + as_index(LOW)
INDICES = (
    Index(3),
    FLAT,
    FLAT // 4 * 7 + FLAT % 4,
    (FLAT + -9) // 5,
    (FLAT + -9) % 5 + as_index(LOW) * -2,
    ((FLAT + 1) // 3 % 4 + as_index(HIGH)) // 2,
)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_at_a_point_is_the_number_that_substitution_gives(index: Index) -> None:
    for i, j in itertools.product(range(5), range(6)):
        assert index.at({HIGH: i, LOW: j}) == index.substitute({HIGH: Index(i), LOW: Index(j)}).constant


def test_an_index_at_a_point_is_none_where_the_point_does_not_say_it() -> None:
    assert FLAT.at({LOW: 2}) is None and (FLAT // 4).at({HIGH: 2}) is None
    assert as_index(Dynamic(LOAD, 9)).at({ROW: 0, COLUMN: 0}) is None
    assert Index(2, ((ONE, 5),)).at({}) == 2  # the only place of an axis of extent 1
