"""The rules that a contraction keeps against the loops of its kernel: a fault names the field that breaks one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Extent, product
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import Expr, walk
from graphcore.kernel.forms import Computed, Contraction
from graphcore.kernel.index import Axis

__all__ = ["verify_contraction"]

_LAST = 2**31  # beyond every extent


def verify_contraction(form: Contraction, kernel: str, axes: Sequence[Axis], values: Sequence[Expr]) -> None:
    """Check a contraction against its kernel's name, axes and values.

    Raises:
        VerifyError: an axis with a role that its operands do not give it, a result that the kernel does not have, an
            operand that is not what the loops multiply, a type, an extent or a window that does not fit.
    """
    fault = next(_faults(form, axes, values), None)
    if fault is not None:
        raise VerifyError(f"kernel {kernel}: its contraction's {fault}")


def _faults(form: Contraction, axes: Sequence[Axis], values: Sequence[Expr]) -> Iterator[str]:
    total = form.total
    if form.result not in values or total.fn != "reduce" or total.combine != "add" or total.args[0].fn != "mul":
        yield "result is no sum of products that the kernel makes"
        return
    roles = (*form.rows, *form.columns, *form.terms, *form.batch)
    if len(set(roles)) != len(roles):
        twice = sorted({str(a) for a in roles if roles.count(a) > 1})
        yield f"rows, columns, terms and batch give {', '.join(twice)} two roles"
    if total.reduce_axes != form.terms:
        yield f"terms are {form.terms}, its loops add up over {total.reduce_axes}"
    if form.window is not None and not (form.rows and form.columns):
        yield "rows or columns are missing beside its window"
        return
    if set(axes) != {a for a in form.result_axes if a in axes or a.extent != 1}:
        yield f"rows, columns and batch are {form.result_axes}, the kernel's axes {tuple(axes)}"
    yield from _type_faults(form)
    for side, operand in zip(("left", "right"), form.operands, strict=True):
        if not operand.value.axes <= set(operand.axes):
            yield f"{side} operand depends on axes that are not its own: {operand}"
        if product(a.extent for a in operand.axes) != product(operand.shape):
            yield f"{side} operand of the shape {operand.shape} is not walked by axes of {_extents(operand.axes)}"
    yield from _product_faults(form) if form.window is None else _window_faults(form, form.window)


def _type_faults(form: Contraction) -> Iterator[str]:
    said, total = form.types, form.total
    for name, wanted, has in (
        ("left", said.left, form.left.value.dtype),
        ("right", said.right, form.right.value.dtype),
        ("accumulator", said.accumulator, total.dtype),
        ("result", said.result, form.result.dtype),
    ):
        if wanted != has:
            yield f"types say that {name} is {wanted}, it is {has}"
    for multiplied in (total.args[0], *form.factors):
        if multiplied.dtype != total.dtype:
            yield f"types have a product of {multiplied.dtype}, added up in {total.dtype}"


def _extents(axes: Sequence[Axis]) -> tuple[Extent, ...]:
    return tuple(a.extent for a in axes)


def _product_faults(form: Contraction) -> Iterator[str]:
    for side, operand, factor in zip(("left", "right"), form.operands, form.factors, strict=True):
        if operand.value not in (factor, *(factor.args if factor.fn == "cast" else ())):
            yield f"{side} operand is {operand}, its loops multiply {factor!r}"
        if operand.value.axes != set(operand.axes) or len(set(operand.axes)) != len(operand.axes):
            yield f"{side} operand is walked over {operand.axes}, it depends on {sorted(map(str, operand.value.axes))}"
        if _extents(operand.axes) != tuple(operand.shape):
            yield f"{side} operand of the shape {operand.shape} is walked over axes of {_extents(operand.axes)}"
    left, right = (factor.axes for factor in form.factors)
    for name, axes, own in (
        ("rows", form.rows, left - right),
        ("columns", form.columns, right - left),
        ("batch", form.batch, {a for a in form.batch if (a in left) == (a in right)}),
    ):
        if stray := [a for a in axes if a not in own]:
            yield f"{name} have {stray}, which the operands give another role"


# --- windows ----------------------------------------------------------------------------------------------------------


def _window_faults(form: Contraction, window: Window) -> Iterator[str]:
    images, weights, made = form.parts()
    rank = len(window.taps)
    lengths = {"stride": len(window.stride), "dilation": len(window.dilation), "padding": len(window.padding) // 2}
    if {len(images), len(weights), len(made)} != {rank + 2}:
        yield f"operands and result of {len(images)}, {len(weights)} and {len(made)} axes do not fit a window of {rank}"
        return
    if wrong := [name for name, length in lengths.items() if length != rank] + ["padding"] * (len(window.padding) % 2):
        yield f"window has another number of {wrong[0]} than of taps: {window}"
        return
    steps = {"taps": window.taps, "stride": window.stride, "dilation": window.dilation}
    if wrong := [name for name, numbers in steps.items() if min(numbers, default=1) < 1]:
        yield f"window has {wrong[0]} below one: {window}"
        return
    counts = tuple(window.positions(axis, images[axis + 2]) for axis in range(rank))
    facts = {
        "groups": window.groups > 0 and images[1] == weights[1] * window.groups and _divides(window.groups, weights[0]),
        "taps": tuple(weights[2:]) == window.taps,
        "stride, padding or dilation": tuple(made[2:]) == counts,
        "parts": images[0] == made[0] and weights[0] == made[1],
    }
    if wrong := [name for name, fits in facts.items() if not fits]:
        yield (
            f"window's {wrong[0]} do not fit images {tuple(images)}, weights {tuple(weights)} and what is made of "
            f"{tuple(made)}: {window}"
        )
        return
    if form.batch or len(form.result_axes) != rank + 2:
        yield f"rows {form.rows}, columns {form.columns} and batch {form.batch} are not those of a window of {rank}"
        return
    terms = _windows_terms(form, window)
    if terms is None:
        yield f"terms are {form.terms}, whose extents are not those that its window sums over"
        return
    yield from _load_faults(_Probe(form, window, terms))


def _divides(groups: int, outputs: Extent) -> bool:
    return isinstance(outputs, int) and outputs % groups == 0


def _windows_terms(form: Contraction, window: Window) -> tuple[Axis | None, ...] | None:
    """The axis of every term, None for those of extent 1 that have no loop; None if axes and terms do not fit."""
    images, weights, made = form.parts()
    each = weights[0] // window.groups
    wanted = {
        WindowResult.POSITION: weights[1:],
        WindowResult.PLACE: (each, *window.taps),
        WindowResult.TAP: (images[0], *made[2:]),
    }[window.result]
    left, found = list(form.terms), list[Axis | None]()
    for extent in wanted:
        if left and left[0].extent == extent:
            found.append(left.pop(0))
        elif extent == 1:
            found.append(None)
        else:
            return None
    return None if left else tuple(found)


@dataclass(frozen=True)
class _Point:
    """One product of a convolution: image, output, channel of its group; a position and a tap along every axis.

    Or many of them, all of whose numbers are arrays.
    """

    image: Any
    output: Any
    channel: Any
    positions: tuple[Any, ...]
    taps: tuple[Any, ...]

    @staticmethod
    def of_all(points: Iterable[_Point]) -> _Point:
        """Many points as one of arrays."""
        rows = [(p.image, p.output, p.channel, *p.positions, *p.taps) for p in points]
        image, output, channel, *places = np.array(rows, np.int64).T
        rank = len(places) // 2
        return _Point(image, output, channel, tuple(places[:rank]), tuple(places[rank:]))


class _Probe:
    """A convolution at single points: where its operands say that a value lies, and where its loops load it."""

    def __init__(self, form: Contraction, window: Window, terms: tuple[Axis | None, ...]) -> None:
        self.form, self.window, self.terms = form, window, terms
        self.images, self.weights, self.made = form.parts()
        self.each = int(self.weights[0]) // window.groups
        # Values are walked once, and not at every point.
        self.said = [_loads(operand.value) for operand in form.operands]
        self.done = [_loads(factor) for factor in form.factors]

    def points(self) -> Iterator[_Point]:
        """The first ones, the second ones and the last ones of everything, inside of the images."""

        def some(extent: Extent, at: int) -> int:
            return min(at, extent - 1) if isinstance(extent, int) else 0

        ends = (0, 0, 0), (_LAST, _LAST, _LAST), (0, _LAST, 0), (0, 0, _LAST)
        for (n, o, c), at, tap in itertools.product(ends, (0, 1, 2, _LAST), (0, 1, _LAST)):
            yield _Point(
                some(self.images[0], n),
                some(self.weights[0], o),
                some(self.weights[1], c),
                tuple(some(e, at) for e in self.made[2:]),
                tuple(some(e, tap) for e in self.window.taps),
            )

    def coordinates(self, p: _Point) -> tuple[Any, tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """Whether it lies outside of the padding, and where in the images, the weights and what is made."""
        w = self.window
        places = tuple(
            at * stride + tap * dilation - low
            for at, tap, stride, dilation, low in zip(
                p.positions, p.taps, w.stride, w.dilation, w.padding[0::2], strict=True
            )
        )
        inside: Any = True
        for at, e in zip(places, self.images[2:], strict=True):
            inside = inside & (at >= 0) & (at < int(e))
        channel = p.output // self.each * int(self.weights[1]) + p.channel
        return inside, (p.image, channel, *places), (p.output, p.channel, *p.taps), (p.image, p.output, *p.positions)

    def sides(self, p: _Point) -> tuple[Any, list[_Side]]:
        """Whether it lies outside of the padding, and what both operands say and the loops do there."""
        inside, images, weights, made = self.coordinates(p)
        result, left, right, terms = {
            WindowResult.POSITION: (made, images, weights, (p.channel, *p.taps)),
            WindowResult.PLACE: (images, made, weights, (p.output % self.each, *p.taps)),
            WindowResult.TAP: (weights, images, made, (p.image, *p.positions)),
        }[self.window.result]
        loops = dict(zip(self.form.result_axes, result, strict=True))
        loops.update({a: at for a, at in zip(self.terms, terms, strict=True) if a is not None})
        walked = [_walked(operand, at) for operand, at in zip(self.form.operands, (left, right), strict=True)]
        return inside, [
            _Side(*side, loops) for side in zip(("left", "right"), self.said, self.done, walked, strict=True)
        ]

    def differences(self, p: _Point) -> list[tuple[str, int | None]] | None:
        """For both operands how much further the loops load than the operand says, None where only one of them loads;
        None in the padding."""
        inside, sides = self.sides(p)
        return [(side.name, distance) for side in sides for distance in side.distances()] if inside else None

    def all_agree(self) -> bool:
        """Whether loops and operands load the same at all points. Asked of all at once: what it cannot tell, it
        denies."""
        inside = [p for p in dict.fromkeys(self.points()) if self.coordinates(p)[0]]
        return not inside or all(side.agrees() for side in self.sides(_Point.of_all(inside))[1])


class _Side(NamedTuple):
    """An operand: its name, what it says that it loads and what the loops do, and the place that is looked at."""

    name: str
    said: list[Expr]
    done: list[Expr]
    walked: Mapping[Axis, Any]
    loops: Mapping[Axis, Any]

    def distances(self) -> Iterator[int | None]:
        """How much further the loops load than the operand says."""
        said, done = _loaded(self.said, self.walked), _loaded(self.done, self.loops)
        for param in said.keys() | done.keys():
            for x, y in itertools.zip_longest(said.get(param, ()), done.get(param, ())):
                yield None if x is None or y is None else y - x

    def agrees(self) -> bool:
        """Whether both load the same at all points; of operands that load each parameter once."""
        said, done = ({load.param: load for load in loads} for loads in (self.said, self.done))
        if said.keys() != done.keys() or not len(said) == len(self.said) == len(self.done):
            return False
        for param, load in said.items():
            here, there = load.index.at(self.walked), done[param].index.at(self.loops)
            if here is None or there is None:
                return False
            holds, does = _guarded(load, self.walked), _guarded(done[param], self.loops)
            if np.any((holds != does) | (holds & (here != there))):
                return False
        return True


def _walked(operand: Computed, at: Sequence[Any]) -> dict[Axis, Any]:
    """The operand's axes at a place of its shape; neighbours may be walked as one."""
    flat: Any = 0
    for place, extent in zip(at, operand.shape, strict=True):
        flat = flat * (int(extent) if isinstance(extent, int) else 1) + place
    found = {}
    for axis in reversed(operand.axes):
        extent = axis.extent if isinstance(axis.extent, int) else flat + 1
        found[axis], flat = flat % extent, flat // extent
    return found


def _loads(value: Expr) -> list[Expr]:
    """The loads that a value is made of."""
    return [v for v in walk(value) if v.fn == "load"]


def _loaded(loads: Sequence[Expr], point: Mapping[Axis, Any]) -> dict[int, tuple[int, ...]]:
    """Which elements of which parameters are loaded at a point, in order; those at addresses from memory left out."""
    found: dict[int, set[int]] = {}
    for load in loads:
        at = load.index.at(point)
        if at is not None and _guarded(load, point):
            found.setdefault(load.param, set()).add(at)
    return {param: tuple(sorted(indices)) for param, indices in found.items()}


def _guarded(load: Expr, point: Mapping[Axis, Any]) -> Any:
    """Whether a load may read something at a point."""
    return True if load.guard is None else _may_hold(load.guard, point)


def _may_hold(guard: Expr, point: Mapping[Axis, Any]) -> Any:
    """Whether no part of a conjunction is known to be false at a point."""
    if guard.fn == "and":
        return _may_hold(guard.args[0], point) & _may_hold(guard.args[1], point)
    if guard.fn == "in_range" and isinstance(guard.high, int):
        at = guard.index.at(point)
        return True if at is None else (guard.low <= at) & (at < guard.high)
    return guard.fn != "const" or bool(guard.value)


def _load_faults(probe: _Probe) -> Iterator[str]:
    """What differs when positions, taps and channels move says which part of the window is wrong."""
    if any(extent == 0 for operand in probe.form.operands for extent in operand.shape):
        return  # nothing is loaded
    if probe.all_agree():
        return
    seen: dict[_Point, list[tuple[str, int | None]]] = {}
    for point in dict.fromkeys(probe.points()):  # of small windows and extents, many are the same
        found = probe.differences(point)
        if found is not None:
            seen[point] = found
    wrong = {p: found for p, found in seen.items() if any(distance != 0 for _, distance in found)}
    if not wrong:
        return
    point, found = next(iter(wrong.items()))
    side, distance = next(pair for pair in found if pair[1] != 0)
    first = {p: f for p, f in seen.items() if not (p.image or p.output or p.channel)}
    groups = not any(p in wrong for p in first)
    by_position = {tap: {tuple(f) for p, f in first.items() if p.taps == tap} for tap in {p.taps for p in first}}
    by_tap = {at: {tuple(f) for p, f in first.items() if p.positions == at} for at in {p.positions for p in first}}
    part = "groups" if groups else "padding"
    if any(len(f) > 1 for f in by_tap.values()):
        part = "dilation"
    if any(len(f) > 1 for f in by_position.values()):
        part = "stride"
    how = "load other elements" if distance is None else f"load {distance:+d} elements further"
    yield f"window's {part} or {side} operand is not what its loops say: at {point} they {how} than {probe.window} does"
