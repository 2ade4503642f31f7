"""Functions and losses of one number at zero, ties, saturation and infinity: values, first and second derivatives.

All curves of ``support.curves`` are differentiated in one program a device and compared with formulas in float64.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from support.curves import CURVES, Curve
from support.sessions import DEVICES, opened

import graphcore as gc
from graphcore.api.tensor import Tensor

ULPS = 64  # of the type compared, of chains of about ten operations


def at(curve: Curve, dtype: str) -> Any:
    """The points, as numbers that the type has."""
    with np.errstate(all="ignore"):
        return np.array(curve.points).astype(dtype).astype(np.float64)


@functools.cache
def program(dtype: str) -> tuple[list[Tensor], dict[Tensor, Any]]:
    """Of every curve the value and two derivatives, and the feeds."""
    fetches: list[Tensor] = []
    feeds = {}
    for curve in CURVES.values():
        x = gc.placeholder(dtype, (len(curve.points),))
        feeds[x] = at(curve, dtype).astype(dtype)
        y = curve.build(x)
        first = gc.gradients(y.sum(), x, unconnected="zero")[0]
        fetches += [y, first, gc.gradients(first.sum(), x, unconnected="zero")[0]]
    return fetches, feeds


def faults(name: str, what: str, got: Any, exact: Any) -> list[str]:
    curve, info = CURVES[name], np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        exact = np.broadcast_to(np.asarray(exact, np.float64), got.shape)
        rounded = exact.astype(got.dtype)
        unit = float(info.eps) * np.maximum(np.abs(exact), curve.scale)
        good = (
            (got == rounded)
            | (np.isnan(got) & np.isnan(rounded))
            | (np.abs(got - exact) <= ULPS * unit + 4 * float(info.tiny))
        )
    return [f"{what} of {name} at {curve.points[i]}: {got[i]} instead of {exact[i]}" for i in np.flatnonzero(~good)]


@pytest.mark.parametrize(("device", "dtype"), [*((d, "float32") for d in DEVICES), ("numpy", "float64")])
def test_values_and_derivatives(device: str, dtype: str) -> None:
    fetches, feeds = program(dtype)
    with opened(device) as session:
        found = iter(session.run(fetches, feeds))
    wrong = []
    for name, curve in CURVES.items():
        x = at(curve, dtype)
        for what in ("value", "first", "second"):
            with np.errstate(all="ignore"):
                wrong += faults(name, what, next(found), getattr(curve, what)(x))
    assert not wrong, "\n".join(wrong)
