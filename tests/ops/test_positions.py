"""Positions that a graph counts have a type that holds them, however long the axis is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.devices import RUNTIMES, run_on

import graphcore as gc
import graphcore.functional as F
from graphcore.api.tensor import Builder, Tensor, wrap
from graphcore.base.dtypes import int32, int64, position_dtype
from graphcore.ir.graph import Graph
from graphcore.ops.pool import AvgPool, MaxPool, MaxPoolGrad, MaxPoolIndex
from graphcore.ops.positions import Iota

SHORT, LONG = 5, 2**31 + 9


def matrix(extent: Any, dtype: str = "float32") -> Tensor:
    return gc.broadcast_to(gc.placeholder(dtype, (1, 1)), (3, extent))


def square(extent: Any) -> Tensor:
    return gc.broadcast_to(gc.placeholder("float32", (1, 1)), (extent, extent))


def slope(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    (gradient,) = gc.gradients(f(x).sum(), [x])
    return gradient


def labels() -> Tensor:
    return gc.placeholder("uint8", (3,))


# What counts positions along an axis of a given extent.
COUNTING: dict[str, Callable[[Any], Tensor]] = {
    "eye": lambda n: gc.eye(3, n),
    "eye, rows": lambda n: gc.eye(n, 3),
    "tril": lambda n: gc.tril(matrix(n)),
    "triu": lambda n: gc.triu(matrix(n)),
    "diagonal": lambda n: gc.einsum("ii->i", square(n)),
    "trace": lambda n: gc.einsum("ii->", square(n)),
    "prod's gradient": lambda n: slope(gc.prod, gc.placeholder("float32", (n,))),
    "cross_entropy": lambda n: F.cross_entropy(matrix(n), labels()),
    "nll_loss": lambda n: F.nll_loss(matrix(n), labels()),
    "nll_loss of int32": lambda n: F.nll_loss(matrix(n), gc.placeholder("int32", (3,))),
}


def positions(output: Tensor) -> set[Any]:
    """The types of all positions that a tensor is computed from."""
    return {n.op.dtype for n in Graph((output,), ()).nodes() if isinstance(n.op, Iota)}


@pytest.mark.parametrize("name", COUNTING)
def test_positions_take_their_type_from_the_extent(name: str) -> None:
    count = COUNTING[name]
    assert positions(count(SHORT)) == {int32}
    assert positions(count(LONG)) == {int64}
    assert positions(count(gc.Dim("n"))) == {int64}, "a symbolic extent may become as large"


def test_the_type_holds_the_last_position() -> None:
    assert position_dtype() == position_dtype(0, 2**31 - 1) == int32
    assert position_dtype(2**31) == position_dtype(1, gc.Dim("n")) == int64
    assert positions(gc.eye(3, k=2**31 - 4)) == positions(gc.eye(3, k=-(2**31) + 4)) == {int32}
    assert positions(gc.eye(3, k=2**31)) == positions(gc.eye(3, k=-(2**33))) == {int64}, "rows plus k"


def test_taps_of_windows_that_32_bits_do_not_count() -> None:
    b, x = Builder(), gc.placeholder("float32", (1, LONG))
    geometry = {"window": (1, LONG), "stride": (1, LONG), "padding": (0,) * 4, "dilation": (1, 1)}
    assert b.apply(MaxPoolIndex(**geometry), x).output(0).dtype == int64
    assert slope(lambda t: wrap(b.apply(MaxPool(**geometry), t).output(0)), x).shape == (1, LONG)
    with pytest.raises(gc.DTypeError, match="the index has dtype int64, not int32"):
        small = {**geometry, "window": (1, 3), "stride": (1, 3), "input_size": (1, 9)}
        b.apply(MaxPoolGrad(**small), gc.ones((1, 3)), gc.zeros((1, 3), "int64"))


@pytest.mark.parametrize(
    "arguments",
    [(LONG, None, 1, "int32"), (300, None, 1, "int8"), (0, 2**31 + 1, 2**30, "int32"), (5, -200, -2, "int8")],
)
def test_arange_refuses_a_type_that_does_not_hold_its_numbers(arguments: Any) -> None:
    with pytest.raises(gc.DTypeError, match=r"arange: -?\d+ to \d+ does not fit int"):
        gc.arange(*arguments)


def test_arange_to_the_ends_of_a_type() -> None:
    assert gc.arange(2**31, dtype="int32").dtype == int32
    assert gc.arange(LONG).dtype == int64
    for arguments in ((-128, 128, 1, "int8"), (127, -129, -5, "int8"), (0, 256, 5, "uint8")):
        (found,) = run_on(RUNTIMES[-1], [gc.arange(*arguments)], {})
        np.testing.assert_array_equal(found, np.arange(*arguments[:3]).astype(arguments[3]))


@pytest.mark.parametrize("device", RUNTIMES)
def test_positions_at_the_end_of_a_long_axis(device: str) -> None:
    """Views of broadcast tensors take no memory; only the last columns are computed."""
    last = slice(LONG - 4, LONG)
    x, row = gc.placeholder("float32", (1, 1)), gc.placeholder("float32", (3, 1))
    wide = gc.broadcast_to(row, (3, LONG))
    far = gc.broadcast_to(x, (1, 2**31 + 2))
    average = wrap(Builder().apply(AvgPool((1, 4), (1, 2**20), (0, 0, 0, 2), False), far).output(0))
    outputs = [
        gc.eye(3, LONG, LONG - 3)[:, last],
        gc.eye(LONG, 3, 3 - LONG)[last],
        gc.tril(wide, LONG - 3)[:, last],
        gc.triu(wide, LONG - 3)[:, last],
        gc.arange(LONG)[last],
        gc.one_hot(gc.constant([LONG - 2, -1]), LONG)[:, last],
        average[:, -2:],
    ]
    feeds = {x: np.ones((1, 1), np.float32), row: np.arange(1, 4, dtype=np.float32)[:, None]}
    eye, tall, lower, upper, places, hot, means = run_on(device, outputs, feeds)
    full = np.broadcast_to(feeds[row], (3, 4))
    np.testing.assert_array_equal(eye, np.eye(3, 4, 1))
    np.testing.assert_array_equal(tall, np.eye(4, 3, -1))
    np.testing.assert_array_equal(lower, np.tril(full, 1))
    np.testing.assert_array_equal(upper, np.triu(full, 1))
    np.testing.assert_array_equal(places, np.arange(LONG - 4, LONG))
    np.testing.assert_array_equal(hot, [[0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(means, [[1, 1]], "the last window starts at 2**31")


def test_nll_loss_past_32_bits_of_classes() -> None:
    """Of all that is summed only the target's column is not zero."""
    logits, target = gc.placeholder("float32", (2, 1)), gc.placeholder("int64", (2,))
    spread = gc.broadcast_to(logits, (2, LONG))
    device = RUNTIMES[0]
    (found,) = run_on(
        device,
        [F.nll_loss(spread, target, reduction="none")],
        {logits: np.array([[3.0], [4.0]], np.float32), target: np.array([LONG - 1, 2])},
    )
    np.testing.assert_array_equal(found, [-3, -4])
