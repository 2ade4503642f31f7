"""Every elementwise op over special values, in vectors of mixed lanes: each lane is what the same values alone give.

One runtime's vector built-ins let lanes spoil each other, which single values never show, nor vectors of like ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from support.devices import RUNTIMES, Bound, computed_ops, judge, run_plan
from support.rewrites import assert_same_bits

from graphcore.api.tensor import Builder
from graphcore.api.variable import placeholder
from graphcore.base.dtypes import ALL, as_dtype
from graphcore.base.shapes import Dim
from graphcore.ir.op import Map, Op
from graphcore.kernel import functions, interpret
from graphcore.kernel.expr import argument
from graphcore.ops.compare import Cast

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
ROUNDS = 6  # each pair of values stands in so many lanes


def special_values(dtype: str) -> Any:
    """Zeros, ones, the least and the largest, and what is typical, of either sign."""
    kind = as_dtype(dtype)
    if kind.is_integer:
        facts = np.iinfo(dtype)
        bits = 8 * kind.itemsize
        some = [0, 1, 2, 3, 7, bits - 1, bits, bits + 1, 100, facts.max - 1, facts.max, facts.min, facts.min + 1]
        return np.unique(np.array([v for v in (*some, -1, -2, -7, -100) if facts.min <= v <= facts.max], dtype))
    least, tiny, huge = {
        "float16": (6e-8, 6.2e-5, 6e4),
        "bfloat16": (1e-40, 1.2e-38, 3e38),
        "float32": (1e-42, 1.2e-38, 3e38),
        "float64": (5e-320, 2.3e-308, 1.7e308),
    }[dtype]
    positive = [0.0, least, tiny, 1e-5, 0.125, 0.7, 1.0, 1.5, 3.0, 10.25, 80.0, 105616.0, huge, np.inf]
    with np.errstate(over="ignore"):
        return np.array([*positive, *(-v for v in positive), np.nan]).astype(kind.storage)


def mixed(values: Any) -> list[Any]:
    """All pairs of values, several times in different orders, and some left over for vectors' tails."""
    pairs = np.stack(np.meshgrid(np.arange(len(values)), np.arange(len(values))), -1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(pairs) for _ in range(ROUNDS)])
    order = np.concatenate([order, order[: (15 - len(order)) % 16]])
    return [order[:, 0], order[:, 1]]


class Run:
    """Ops of one or two operands of a type, run as one program on one device."""

    def __init__(self, spec: str, ops: Sequence[tuple[Op, int]], dtype: str) -> None:
        self.values, (self.first, self.second) = special_values(dtype), mixed(special_values(dtype))
        extent, b = Dim("n"), Builder()
        self.operands = [placeholder(dtype, (extent,), name=n) for n in "xy"]
        outputs = [b.apply(op, *self.operands[:arity]).output(0) for op, arity in ops]
        arrays = [self.values[self.first], self.values[self.second]]
        bound = run_plan(spec, outputs, dict(zip(self.operands, arrays, strict=True)))
        self.results = self._results(bound, arrays)
        self.bound = bound

    def _results(self, bound: Bound, arrays: Sequence[Any]) -> list[Any]:
        return bound.run(dict(zip(self.operands, arrays, strict=True)))

    def alone(self, i: int, j: int) -> list[Any]:
        """The results of one pair of values in a program run for nothing else."""
        feeds = dict(zip(self.operands, (self.values[[i]], self.values[[j]]), strict=True))
        return self.bound.at(feeds).run(feeds)


def ops_of(kind: str) -> list[tuple[Op, int]]:
    """The elementwise ops of one or two operands of a kind of type, with how many."""
    found: list[tuple[Op, int]] = []
    for name, cls in computed_ops().items():
        if issubclass(cls, Map) and cls.arity in (1, 2) and kind in cls.operands and name not in ("cast", "polygamma"):
            found.append((cls(), cls.arity))
    return found + ([(computed_ops()["polygamma"](order=2), 1)] if kind == "f" else [])  # type: ignore[call-arg]


def expected(op: Op, operands: Sequence[Any]) -> list[Any] | None:
    """The results of an exact op, which all devices have to give to the bit: by its reference, and by its lowering."""
    dtype = as_dtype(operands[0].dtype)
    value = op.scalar(*(argument(i, dtype) for i in range(len(operands))))  # type: ignore[attr-defined]
    if not functions.is_exact(value):
        return None
    with np.errstate(all="ignore"):
        lowered = interpret.evaluate(value, [x.astype(dtype.compute) for x in operands]).astype(value.dtype.storage)
        return [np.asarray(op.reference(*operands)), np.broadcast_to(lowered, operands[0].shape)]


def differences(what: str, got: Any, want: Any) -> list[str]:
    """A line if two arrays have other bits."""
    try:
        assert_same_bits([got], [want])
    except AssertionError as error:
        return [f"{what}: {error}"]
    return []


def wrong_values(op: Op, operands: Sequence[Any], got: Any) -> Iterator[str]:
    """What is wrong with the results of one op."""
    right = expected(op, operands)
    if right is not None:
        yield from differences(f"{op.name} by its reference", got, right[0])
        yield from differences(f"{op.name} by its lowering", got, right[1])
    told = judge(op, operands, [got])
    if told is not None:
        yield f"{op.name}: {told}"
    if len(operands) == 1 and as_dtype(got.dtype).is_float:  # a limit that is a number is reached
        with np.errstate(all="ignore"):
            limit = op.reference(operands[0].astype(np.float64)).astype(np.float64)
        known = np.isinf(operands[0].astype(np.float64)) & np.isin(limit, (-1.0, 0.0, 1.0, 2.0))
        yield from differences(f"{op.name} of infinities", got[known].astype(np.float64), limit[known])


def check(spec: str, ops: Sequence[tuple[Op, int]], dtype: str) -> None:
    run = Run(spec, ops, dtype)
    count = len(run.values)
    _, first, same = np.unique(run.first * count + run.second, return_index=True, return_inverse=True)
    assert len(first) == count**2
    pairs = [run.values[run.first[first]], run.values[run.second[first]]]
    wrong = []
    for (op, arity), got in zip(ops, run.results, strict=True):
        wrong += differences(f"{op.name} depends on the lane or its neighbours", got, got[first][same])
        wrong += wrong_values(op, pairs[:arity], got[first])
    for i in range(count):
        j = (i + 7) % count
        at = int(np.flatnonzero((run.first == i) & (run.second == j))[0])
        for (op, _), got, single in zip(ops, run.results, run.alone(i, j), strict=True):
            wrong += differences(f"{op.name} of {run.values[i]}, {run.values[j]} alone", single, got[[at]])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("spec", RUNTIMES)
def test_floats_in_mixed_lanes(spec: str, dtype: str) -> None:
    check(spec, ops_of("f"), dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("spec", RUNTIMES)
def test_integers_in_mixed_lanes(spec: str, dtype: str) -> None:
    check(spec, ops_of(as_dtype(dtype).kind), dtype)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("spec", RUNTIMES)
def test_conversions_in_mixed_lanes(spec: str, dtype: str) -> None:
    check(spec, [(Cast(target), 1) for target in ALL], dtype)
