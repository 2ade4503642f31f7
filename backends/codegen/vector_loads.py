"""Reading the lanes of a vector: together where their elements are neighbours, one by one only where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends.codegen.cnames import register_type
from backends.codegen.language import Language
from graphcore.base.dtypes import DType
from graphcore.kernel.expr import Expr, dynamic_values
from graphcore.kernel.index import Axis, Div, Index, Mod

if TYPE_CHECKING:
    from backends.codegen.emitter import Emitter, Scope

__all__ = ["load_vector"]


def load_vector(em: Emitter, e: Expr) -> str:
    """A load of which the address or the guard depends on the lane, as an expression; helper values become lines before
    it."""
    param, index = e.param, e.index
    pointer, dtype, width, lane = em.pointers[param], e.dtype, em.width, em.lane
    assert lane is not None
    guard = e.guard
    own = em.language
    if guard is None or not em.is_vector(guard.axes):
        zero = own.splat(own.literal(0, dtype), register_type(dtype), width)
        around = "{}" if guard is None else f"({em.value(guard)} ? {{}} : {zero})"
        step = index.stride(lane)
        if step is not None and _is_whole(step, width):
            return around.format(_stepped(own, pointer, em.index(index), dtype, width, step))
        shared = _shared(em, index)
        if shared:
            at = em.fresh("k")
            held = (
                em.value(guard) if guard is not None else None
            )  # the guard stands before the load: outside of it the address may be anywhere
            em.home(e).line(f"const {em.counter} {at} = {em.index(index)};")
            lines, text = _spread_out(em, pointer, at, f"({at} + {width // shared[0]})", dtype, shared, held)
            em.home(e).line(*lines)
            return text
    return _sorted_out(em, e, guard)


def _is_whole(step: int, width: int) -> bool:
    """Whether few vectors hold all elements of lanes that are ``step`` apart."""
    return step in (-1, 0, 1) or (step == 2 and width > 2)


def _stepped(own: Language, pointer: str, index: str, dtype: DType, width: int, step: int) -> str:
    """Lanes ``step`` elements apart from ``index``; no more is touched than the elements from the first to the last."""
    if step == 0:
        return own.spread(own.load(pointer, index, dtype, 1), dtype, 1, width)
    if step == 1:
        return own.load(pointer, index, dtype, width)
    kind = register_type(dtype)
    if step == -1:
        return own.reversed(own.load(pointer, f"({index} - {width - 1})", dtype, width), kind, width)
    first, last = (own.load(pointer, at, dtype, width) for at in (index, f"({index} + {width - 1})"))
    return own.interlaced(first, last, kind, width, last=True)


def _through(index: Index, lane: Axis) -> list[tuple[object, int]]:
    """The parts of an index that depend on the lane, with their coefficients."""
    return [(atom, times) for atom, times in index.terms if lane in Index(0, ((atom, 1),)).axes()]


def _shared(em: Emitter, index: Index) -> tuple[int, int] | None:
    """``(n, c)`` where the index steps by ``(lane + c) // n``, so that n lanes share an element (upsampling, pooling's
    gradient).

    Vectors start at multiples of their width, so a divisor of it tells which lanes share: the first group is c lanes
    short.
    """
    assert em.lane is not None
    through = _through(index, em.lane)
    if not em.aligned or len(through) != 1 or not isinstance(through[0][0], Div) or through[0][1] != 1:
        return None
    divided = through[0][0]
    if divided.value.terms != ((em.lane, 1),) or divided.divisor not in (2, 4, 8) or divided.divisor >= em.width:
        return None
    return divided.divisor, divided.value.constant % divided.divisor


def _spread_out(
    em: Emitter, pointer: str, at: str, last: str, dtype: DType, shared: tuple[int, int], guard: str | None = None
) -> tuple[list[str], str]:
    """Few elements from ``at``, the last of which is at ``last``, spread over the lanes that share them: lines, and the
    vector."""
    (many, short), width = shared, em.width
    own, count, name = em.language, width // many, em.fresh("x")
    kind, zero = register_type(dtype), own.literal(0, dtype)
    text = own.load(pointer, at, dtype, count)
    held = f"{guard} ? {text} : {own.splat(zero, kind, count)}" if guard else text
    lines = [f"const {own.vector(kind, count)} {name} = {held};"]
    elements = [own.lane(name, i) for i in range(count)]
    if short:
        text = own.load(pointer, last, dtype, 1)
        lines.append(f"const {kind} {name}e = {f'{guard} ? {text} : {zero}' if guard else text};")
        elements.append(f"-{name}e" if dtype.is_bool else f"{name}e")
    return lines, own.lanes([elements[(i + short) // many] for i in range(width)], kind)


@dataclass(frozen=True)
class _Together:
    """How to read all lanes at once, where ``condition`` holds (None: always): lines, and the vector made of them."""

    condition: str | None
    lines: Sequence[str]
    vector: str


def _sorted_out(em: Emitter, e: Expr, guard: Expr | None) -> str:
    """Lanes that may be together: one vector where they turn out to be, nothing where all are guarded away, else lane
    by lane.

    Concatenations, padding, rolls and windows are together but at their seams.
    """
    param, index = e.param, e.index
    pointer, dtype, width = em.pointers[param], e.dtype, em.width
    assert em.lane is not None
    own, home, result, at = em.language, em.home(e), em.fresh("x"), em.fresh("k")
    kind, mask = register_type(dtype), None
    some = every = None
    if guard is not None and em.is_vector(guard.axes):
        mask = em.fresh("g")
        home.line(f"const {own.vector('int', width)} {mask} = {em.vector(guard, width)};")
        some, every = (_folded(em, home, mask, whole, width) for whole in (False, True))
    elif guard is not None:
        some = every = em.value(guard)
    step = index.stride(em.lane)
    if step is not None:
        home.line(f"const {em.counter} {at} = {em.index(index)};")
        addresses = [f"({at} {'-' if step < 0 else '+'} {abs(i * step)})" for i in range(width)]
        together = (
            _Together(None, (), _stepped(own, pointer, at, dtype, width, step)) if _is_whole(step, width) else None
        )
    else:
        home.line(f"const {own.vector(em.counter, width)} {at} = {em.index(index, width)};")
        addresses = [own.lane(at, i) for i in range(width)]
        together = _neighbours(em, index, pointer, at, dtype)
    apart = _one_by_one(own, pointer, addresses, dtype, mask)
    zero = own.splat(own.literal(0, dtype), kind, width)
    home.line(f"{own.vector(kind, width)} {result} = {zero};")
    if together is None:
        home.line(f"if ({some}) {result} = {apart};" if some else f"{result} = {apart};")
        return result
    condition = " && ".join(c for c in (every, together.condition) if c)
    home.line(" ".join([f"if ({condition}) {{", *together.lines, f"{result} = {together.vector};", "}"]))
    home.line(f"else{f' if ({some})' if some else ''} {result} = {apart};")
    return result


def _folded(em: Emitter, home: Scope, mask: str, every: bool, width: int) -> str:
    """Whether any or all lanes of a mask are set: by a built-in where that is known to be no call."""
    own, sign = em.language, "&" if every else "|"
    if not own.quirks.calls_any:
        return own.folded(mask, every, "int", width)
    while width > 1:
        low, high = own.halves(mask, "int", width)
        width //= 2
        half = em.fresh("f")
        home.line(f"const {own.vector('int', width)} {half} = {low} {sign} {high};")
        mask = half
    return mask


def _neighbours(em: Emitter, index: Index, pointer: str, at: str, dtype: DType) -> _Together | None:
    """For lanes' addresses ``at`` made of quotients and remainders: all are neighbours, share few elements, or are one
    element."""
    assert em.lane is not None
    own, width = em.language, em.width
    first, last = own.lane(at, 0), own.lane(at, width - 1)
    if any(em.lane in value.axes for value in dynamic_values(index)):
        return None
    shared = _shared(em, index)
    if shared:
        return _Together(None, *_spread_out(em, pointer, first, last, dtype, shared))
    through = _through(index, em.lane)
    if any(isinstance(atom, Mod) for atom, _ in through):
        neighbours = own.folded(f"{at} == {first} + {em.iota(width)}", True, em.counter, width)
        return _Together(neighbours, (), own.load(pointer, first, dtype, width))
    if len(through) == 1:  # one quotient: addresses only grow with the lane, or only fall
        return _Together(f"{first} == {last}", (), own.spread(own.load(pointer, first, dtype, 1), dtype, 1, width))
    return None


def _one_by_one(own: Language, pointer: str, addresses: Sequence[str], dtype: DType, mask: str | None) -> str:
    lanes = []
    for i, address in enumerate(addresses):
        text = own.load(pointer, address, dtype, 1)
        lanes.append(f"{own.lane(mask, i)} ? {text} : {own.literal(0, dtype)}" if mask else text)
    vector = own.lanes(lanes, register_type(dtype))
    return f"-{vector}" if dtype.is_bool else vector
