"""Sums and extremes of zeros have one sign on every device, however many elements there are and whoever knows that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.sessions import DEVICES

import graphcore as gc
import graphcore.functional as F

SUMS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: gc.sum(x, 1),
    "mean": lambda x: gc.mean(x, 1),
    "sum of a constant": lambda x: x[:, 0] * 0 + gc.sum(gc.constant(np.full((3, 1), -0.0, np.float32)), 1),
    "matmul": lambda x: x @ gc.ones((x.shape[1], 2), x.dtype),
    "convolution": lambda x: F.conv2d(x.reshape(1, 1, 3, -1), gc.ones((1, 1, 1, 1), x.dtype)),
    "average": lambda x: F.avg_pool2d(x.reshape(1, 1, 3, -1), 1),
}


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_sum_of_negative_zeros_is_zero(device: str, dtype: str, count: int) -> None:
    """As in NumPy, whose sums begin at 0; the extent is a number or known when fed."""
    fixed, turned = gc.placeholder(dtype, (3, count)), gc.placeholder(dtype, (gc.Dim("n"), 3))
    with gc.Session(device) as session:
        found = session.run(
            [*(build(fixed) for build in SUMS.values()), gc.sum(turned, 0)],
            {fixed: np.full((3, count), -0.0), turned: np.full((count, 3), -0.0)},
        )
    for name, value in zip((*SUMS, "open"), found, strict=True):
        assert (value == 0).all() and not np.signbit(value.astype(np.float32)).any(), name


@pytest.mark.parametrize("device", DEVICES)
def test_extremes_of_zeros_do_not_depend_on_their_order(device: str) -> None:
    """0 is above -0, elementwise and reduced, in vectors and in their tails."""
    rng = np.random.default_rng(0)
    for count in (2, 3, 7, 16, 37):
        values = np.where(rng.random((4, count)) < 0.5, -0.0, 0.0).astype(np.float32)
        values[0], values[1], values[2, 0], values[3, -1] = -0.0, 0.0, 0.0, -0.0
        x = gc.placeholder("float32", values.shape)
        with gc.Session(device) as session:
            fetches = [gc.max(x, 1), gc.min(x, 1), gc.maximum(x, -x), gc.minimum(x, -x)]
            high, low, up, down = session.run(fetches, {x: values})
        np.testing.assert_array_equal(np.signbit(high), np.signbit(values).all(1))
        np.testing.assert_array_equal(np.signbit(low), np.signbit(values).any(1))
        assert not np.signbit(up).any() and np.signbit(down).all()
