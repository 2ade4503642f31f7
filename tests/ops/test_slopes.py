"""First and second derivatives of elementwise ops at zero, ties, saturation and infinity, against float64 formulas.

All ops of one or two numbers are differentiated over their whole grids in one program a device. The table of formulas
has every differentiable op, and what an op declares about its smoothness agrees with it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from support.devices import computed_ops
from support.sessions import DEVICES, opened
from support.slopes import ONE, TWO, One

import graphcore as gc
from graphcore.api.tensor import Tensor, node_over, wrap
from graphcore.ir.op import Map, Op, lookup

MORE = {"where", "cast"}  # of three operands, and to other types: tested by themselves
ULPS = 64  # of the type compared: a slope is made of a handful of operations of up to 4 each


def differentiable_maps() -> dict[str, type[Op]]:
    """The ops that the table must have."""
    return {
        name: cls
        for name, cls in computed_ops().items()
        if issubclass(cls, Map) and cls.differentiable and "f" in cls.operands
    }


def op_of(name: str) -> Op:
    case: Any = ONE.get(name) or TWO[name]
    return lookup(name)(**dict(getattr(case, "attributes", ())))  # type: ignore[no-any-return]


def columns(case: Any, dtype: str) -> list[Any]:
    """The points of a case as float64 arrays of numbers that the type has, one a operand."""
    points = np.array(case.points, np.float64).reshape(len(case.points), -1)
    with np.errstate(all="ignore"):
        return [c.astype(dtype).astype(np.float64) for c in points.T]


def exact(case: Any, dtype: str) -> list[tuple[Any, Any]]:
    """The slopes and the slopes of those by formula, each with what errors are relative to besides it."""
    with np.errstate(all="ignore"):
        xs = columns(case, dtype)
        first, second = case.first(*xs), case.second(*xs)
        found = [first, second] if isinstance(case, One) else [*first, *second]
        scale = case.scale if isinstance(case, One) else case.scale(*xs)
        return [(np.broadcast_to(np.asarray(f, np.float64), xs[0].shape), scale) for f in found]


def wrong(got: Any, exact: Any, scale: Any) -> Any:
    """Where a derivative is not the exact one: NaN and infinity must be where they are there.

    Nothing is compared where already the terms of the exact one are too large for the type.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        near = np.abs(got - exact) <= ULPS * float(info.eps) * np.maximum(np.abs(exact), scale) + 4 * float(info.tiny)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return ~(same | near) & (scale <= float(info.max))


def derivatives(name: str, dtype: str) -> tuple[list[Tensor], dict[Tensor, Any]]:
    """An op's slopes and second slopes over its grid, and the feeds."""
    case: Any = ONE.get(name) or TWO[name]
    feeds = {gc.placeholder(dtype, c.shape): c for c in columns(case, dtype)}
    xs = list(feeds)
    g = gc.placeholder(dtype, xs[0].shape)
    first = gc.gradients(wrap(node_over(op_of(name), xs).output()), xs, [g], unconnected="zero")
    second = [s for i, f in enumerate(first) for s in gc.gradients(f, xs[i:], [g], unconnected="zero")]
    return [*first, *second], {**feeds, g: np.ones(xs[0].shape)}


@functools.cache
def every_op(dtype: str) -> tuple[list[Tensor], dict[Tensor, Any]]:
    fetches, feeds = [], {}
    for name in (*ONE, *TWO):
        outputs, given = derivatives(name, dtype)
        fetches += outputs
        feeds |= {t: a.astype(dtype) for t, a in given.items()}
    return fetches, feeds


@pytest.mark.parametrize(("device", "dtype"), [*((d, "float32") for d in DEVICES), ("numpy", "float64")])
def test_slopes_are_those_of_the_formulas(device: str, dtype: str) -> None:
    fetches, feeds = every_op(dtype)
    with opened(device) as session:
        found = iter(session.run(fetches, feeds))
    faults = []
    for name in (*ONE, *TWO):
        case: Any = ONE.get(name) or TWO[name]
        for order, (want, scale) in enumerate(exact(case, dtype)):
            got = next(found)
            for i in np.flatnonzero(wrong(got, want, scale)):
                faults.append(f"{name}, derivative {order} at {case.points[i]}: {got[i]} instead of {want[i]}")
    assert not faults, "\n".join(faults)


def test_the_table_has_every_differentiable_op() -> None:
    assert {*ONE, *TWO} == {*differentiable_maps()} - MORE


PLAIN = (0.0, 0.5, 1.0, 2.5)


def has_corners(op: Op, case: Any, points: Any, step: float = 1e-6) -> bool:
    """Whether the op's difference quotient to some side of a point is not the formula's slope; where the slope is not
    finite or the op has no value beside the point, nothing is compared."""
    xs = list(points.reshape(len(points), -1).T)
    slopes = [case.first(*xs)] if isinstance(case, One) else case.first(*xs)
    corners = False
    for i, slope in enumerate(slopes):
        low, here, high = (
            np.asarray(op.reference(*(x + sign * step * (j == i) for j, x in enumerate(xs)))) for sign in (-1, 0, 1)
        )
        for quotient in ((here - low) / step, (high - here) / step):
            compared = np.isfinite(slope) & np.isfinite(quotient)
            corners |= bool((compared & (np.abs(quotient - slope) > 1e-3 * (1 + np.abs(slope)))).any())
    return corners


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_smooth_is_what_has_no_corners(name: str) -> None:
    case: Any = ONE.get(name) or TWO[name]
    points = [p for p in case.points if np.isin(np.abs(p), PLAIN).all()]
    if name == "atan2":
        points = [(y, x) for y, x in points if y or x > 0]  # the cut, where the angle jumps but its slope does not
    op = op_of(name)
    with np.errstate(all="ignore"):
        assert op.smooth != has_corners(op, case, np.array(points))


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_steep_is_what_has_infinite_slopes(name: str) -> None:
    """At some finite point, also at an edge of the domain, by the formulas."""
    case: Any = ONE.get(name) or TWO[name]
    values = np.array([0.0, 1.0, -1.0, 0.5, -2.5])
    with np.errstate(all="ignore"):
        slopes = [case.first(values)] if isinstance(case, One) else case.first(*np.meshgrid(values, values))
        cls: Any = type(op_of(name))
        assert cls.steep == any(np.isinf(s).any() for s in slopes)


def test_selections_and_casts_pass_slopes_on() -> None:
    x = gc.placeholder("float32", (3,))
    y = gc.where([True, False, True], x * x, 3 * x).astype("float64").astype("float32")
    first = gc.gradients(y, x, np.ones(3, np.float32))[0]
    with gc.Session("numpy:kernels") as session:
        found = session.run([first, gc.gradients(first.sum(), x)[0]], {x: [0.0, 0.0, np.inf]})
    np.testing.assert_array_equal(found, [[0, 3, np.inf], [2, 0, 2]])
