"""The rules that a contraction keeps against the loops of its kernel: a fault names the field that breaks one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
    """One product of a convolution: image, output, channel of its group; a position and a tap along every axis."""

    image: int
    output: int
    channel: int
    positions: tuple[int, ...]
    taps: tuple[int, ...]


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

    def coordinates(self, p: _Point) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
        """Where it lies in the images, the weights and what is made; None in the padding."""
        w = self.window
        places = tuple(
            at * stride + tap * dilation - low
            for at, tap, stride, dilation, low in zip(
                p.positions, p.taps, w.stride, w.dilation, w.padding[0::2], strict=True
            )
        )
        if not all(0 <= at < int(e) for at, e in zip(places, self.images[2:], strict=True)):
            return None
        channel = p.output // self.each * int(self.weights[1]) + p.channel
        return (p.image, channel, *places), (p.output, p.channel, *p.taps), (p.image, p.output, *p.positions)

    def differences(self, p: _Point) -> list[tuple[str, int | None]] | None:
        """For both operands how much further the loops load than the operand says, None where only one of them loads;
        None in the padding."""
        parts = self.coordinates(p)
        if parts is None:
            return None
        images, weights, made = parts
        result, left, right, terms = {
            WindowResult.POSITION: (made, images, weights, (p.channel, *p.taps)),
            WindowResult.PLACE: (images, made, weights, (p.output % self.each, *p.taps)),
            WindowResult.TAP: (weights, images, made, (p.image, *p.positions)),
        }[self.window.result]
        loops = dict(zip(self.form.result_axes, result, strict=True))
        loops.update({a: at for a, at in zip(self.terms, terms, strict=True) if a is not None})
        found: list[tuple[str, int | None]] = []
        for side, operand, at, says, does in zip(
            ("left", "right"), self.form.operands, (left, right), self.said, self.done, strict=True
        ):
            said, done = _loaded(says, _walked(operand, at)), _loaded(does, loops)
            for param in said.keys() | done.keys():
                pairs = itertools.zip_longest(said.get(param, ()), done.get(param, ()))
                found += [(side, None if x is None or y is None else y - x) for x, y in pairs]
        return found


def _walked(operand: Computed, at: Sequence[int]) -> dict[Axis, int]:
    """The operand's axes at a place of its shape; neighbours may be walked as one."""
    flat = 0
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


def _loaded(loads: Sequence[Expr], point: Mapping[Axis, int]) -> dict[int, tuple[int, ...]]:
    """Which elements of which parameters are loaded at a point, in order; those at addresses from memory left out."""
    found: dict[int, set[int]] = {}
    for load in loads:
        at, guard = load.index.at(point), load.guard
        if at is not None and (guard is None or _may_hold(guard, point)):
            found.setdefault(load.param, set()).add(at)
    return {param: tuple(sorted(indices)) for param, indices in found.items()}


def _may_hold(guard: Expr, point: Mapping[Axis, int]) -> bool:
    """Whether no part of a conjunction is known to be false at a point."""
    if guard.fn == "and":
        return all(_may_hold(part, point) for part in guard.args)
    if guard.fn == "in_range" and isinstance(guard.high, int):
        at = guard.index.at(point)
        return at is None or guard.low <= at < guard.high
    return guard.fn != "const" or bool(guard.value)


def _load_faults(probe: _Probe) -> Iterator[str]:
    """What differs when positions, taps and channels move says which part of the window is wrong."""
    if any(extent == 0 for operand in probe.form.operands for extent in operand.shape):
        return  # nothing is loaded
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
