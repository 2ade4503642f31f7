"""Integer index expressions over loop axes, kept in a canonical form that makes equal addresses equal objects' values.

An ``Index`` is ``constant + sum(coefficient * atom)``; an atom is an ``Axis``, a ``Div`` or ``Mod`` of an index by a
positive constant, or a ``Dynamic`` value read from memory. Division and remainder simplify with the known ranges of the
axes, which is what makes a reshape, a transpose and their inverses vanish from a kernel's addresses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Union

from graphcore.base.shapes import Dim, Extent, Shape

__all__ = [
    "PARALLEL",
    "REDUCE",
    "SEQUENTIAL",
    "Atom",
    "Axis",
    "Div",
    "Dynamic",
    "Index",
    "Mod",
    "as_index",
    "flatten",
    "unflatten",
]

PARALLEL, REDUCE, SEQUENTIAL = "parallel", "reduce", "sequential"


@dataclass(frozen=True)
class Axis:
    """A loop: a name that is unique within its kernel, an extent (symbolic for a leading batch axis) and a kind."""

    name: str
    extent: Extent
    kind: str = PARALLEL

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Div:
    """``value // divisor`` with a positive constant divisor."""

    value: Index
    divisor: int

    def __repr__(self) -> str:
        return f"({self.value})//{self.divisor}"


@dataclass(frozen=True)
class Mod:
    """``value % divisor`` with a positive constant divisor."""

    value: Index
    divisor: int

    def __repr__(self) -> str:
        return f"({self.value})%{self.divisor}"


@dataclass(frozen=True)
class Dynamic:
    """An integer that the kernel computes (a gather's index); ``extent`` bounds it to 0 .. extent-1 after clamping."""

    value: Any
    extent: Extent

    def __repr__(self) -> str:
        return f"[{self.value}]"


Atom = Union[Axis, Div, Mod, Dynamic]  # noqa: UP007 - the classes come later in this file
_UNBOUNDED = 2**62


@dataclass(frozen=True)
class Index:
    """``constant + sum(coefficient * atom)``, terms sorted by the atoms' text; build with ``as_index`` and
    operators."""

    constant: int
    terms: tuple[tuple[Atom, int], ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False, hash=False)

    def __hash__(self) -> int:
        cached = self._cache.get("hash")
        if cached is None:
            cached = self._cache["hash"] = hash((self.constant, self.terms))
        return int(cached)

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.constant + other, self.terms) if other else self
        if not other.terms:
            return self + other.constant
        if not self.terms:
            return other + self.constant
        return _sum(self, other)

    __radd__ = __add__

    def __sub__(self, other: Index | int) -> Index:
        return self + other * -1

    def __mul__(self, factor: int) -> Index:
        if factor == 1:
            return self
        if factor == 0:
            return Index(0)
        return Index(self.constant * factor, tuple((a, c * factor) for a, c in self.terms))

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Index:
        return _divide(self, divisor)

    def __mod__(self, divisor: int) -> Index:
        return _remainder(self, divisor)

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def range(self) -> tuple[int, int]:
        """Inclusive bounds; symbolic extents count as unbounded above."""
        cached = self._cache.get("range")
        if cached is None:
            low = high = self.constant
            for atom, coefficient in self.terms:
                a, b = _atom_range(atom)
                if coefficient < 0:
                    a, b = b, a
                low, high = low + a * coefficient, high + b * coefficient
            cached = self._cache["range"] = (max(low, -_UNBOUNDED), min(high, _UNBOUNDED))
        return cached

    def axes(self) -> frozenset[Axis]:
        """The axes this index depends on, through divisions and dynamic values too."""
        cached = self._cache.get("axes")
        if cached is None:
            cached = frozenset().union(*(_atom_axes(a) for a, _ in self.terms)) if self.terms else frozenset()
            self._cache["axes"] = cached
        return cached

    def stride(self, axis: Axis) -> int | None:
        """The constant step along ``axis``; None where the dependence is not linear."""
        step = 0
        for atom, coefficient in self.terms:
            if atom == axis:
                step = coefficient
            elif axis in _atom_axes(atom):
                return None
        return step

    def without(self, axes: Iterable[Axis]) -> Index:
        """The index with the linear terms of ``axes`` dropped."""
        dropped = set(axes)
        return Index(self.constant, tuple((a, c) for a, c in self.terms if a not in dropped))

    def substitute(self, mapping: Mapping[Axis, Index]) -> Index:
        """The index with axes replaced by indices."""
        if not (self.axes() & mapping.keys()):
            return self
        total = Index(self.constant)
        for atom, coefficient in self.terms:
            total = total + _substitute_atom(atom, mapping) * coefficient
        return total

    def at(self, point: Mapping[Axis, Any]) -> Any:
        """The number that the index is at a point of its axes, an array of them for arrays; None where an axis is not
        there or memory decides.

        An axis of extent 1 is 0, whether it is there or not.
        """
        total: Any = self.constant
        for atom, coefficient in self.terms:
            place: Any
            if isinstance(atom, Axis):
                place = point.get(atom, 0 if atom.extent == 1 else None)
            elif isinstance(atom, Dynamic):
                place = None
            else:
                place = atom.value.at(point)
                if place is not None:
                    place = place // atom.divisor if isinstance(atom, Div) else place % atom.divisor
            if place is None:
                return None
            total = total + coefficient * place
        return total

    def with_values(self, values: Mapping[Any, Any]) -> Index:
        """The index with the values that it reads from memory replaced."""
        if all(isinstance(atom, Axis) for atom, _ in self.terms):
            return self
        total = Index(self.constant)
        for atom, coefficient in self.terms:
            total = total + _with_values(atom, values) * coefficient
        return total

    def __repr__(self) -> str:
        parts = [(f"{a}" if c == 1 else f"{c}*{a}") for a, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)


def as_index(value: Index | Atom | int) -> Index:
    """An index from an axis, atom or integer; an axis of extent 1 is the constant 0."""
    if isinstance(value, Index):
        return value
    if isinstance(value, (Axis, Div, Mod, Dynamic)):
        return Index(0) if isinstance(value, Axis) and value.extent == 1 else Index(0, ((value, 1),))
    return Index(int(value))


def flatten(index: tuple[Index, ...], shape: Shape) -> Index:
    """The row-major linear index. Only the leading extent may be symbolic (it enters no stride)."""
    total = Index(0)
    stride = 1
    for position in range(len(shape) - 1, -1, -1):
        total = total + index[position] * stride
        extent = shape[position]
        if isinstance(extent, Dim):
            if any(shape[p] != 1 for p in range(position)):
                raise ValueError(f"the symbolic extent {extent} is not leading in {shape}")
            break
        stride *= extent
    return total


def unflatten(flat: Index, shape: Shape) -> tuple[Index, ...]:
    """The multi-index of a row-major linear index (inverse of ``flatten``)."""
    result: list[Index] = [Index(0)] * len(shape)
    lead = next((p for p, e in enumerate(shape) if e != 1), 0)
    for position in range(len(shape) - 1, -1, -1):
        extent = shape[position]
        if position == lead:
            result[position] = flat
            break
        if isinstance(extent, Dim):
            raise ValueError(f"the symbolic extent {extent} is not leading in {shape}")
        if extent == 0:
            return tuple(Index(0) for _ in shape)
        result[position] = flat % extent
        flat = flat // extent
    return tuple(result)


def _atom_range(atom: Atom) -> tuple[int, int]:
    if isinstance(atom, (Axis, Dynamic)):
        return (0, max(atom.extent - 1, 0)) if isinstance(atom.extent, int) else (0, _UNBOUNDED)
    low, high = atom.value.range()
    if isinstance(atom, Mod):
        return (0, min(high, atom.divisor - 1)) if low >= 0 else (0, atom.divisor - 1)
    return low // atom.divisor, high if high == _UNBOUNDED else high // atom.divisor


def _atom_axes(atom: Atom) -> frozenset[Axis]:
    if isinstance(atom, Axis):
        return frozenset((atom,))
    if isinstance(atom, Dynamic):
        return atom.value.axes  # type: ignore[no-any-return]
    return atom.value.axes()


def _substitute_atom(atom: Atom, mapping: Mapping[Axis, Index]) -> Index:
    if isinstance(atom, Axis):
        return mapping.get(atom) or as_index(atom)
    if isinstance(atom, Dynamic):
        return as_index(Dynamic(atom.value.substitute(mapping), atom.extent))
    inner = atom.value.substitute(mapping)
    return inner // atom.divisor if isinstance(atom, Div) else inner % atom.divisor


def _with_values(atom: Atom, values: Mapping[Any, Any]) -> Index:
    if isinstance(atom, Axis):
        return as_index(atom)
    if isinstance(atom, Dynamic):
        return as_index(Dynamic(values[atom.value], atom.extent))
    inner = atom.value.with_values(values)
    return inner // atom.divisor if isinstance(atom, Div) else inner % atom.divisor


@lru_cache(maxsize=200_000)
def _key(atom: Atom) -> str:
    return repr(atom)


def _canonical(constant: int, terms: Mapping[Atom, int]) -> Index:
    return Index(constant, tuple(sorted(((a, c) for a, c in terms.items() if c), key=lambda t: _key(t[0]))))


@lru_cache(maxsize=100_000)
def _sum(a: Index, b: Index) -> Index:
    terms = dict(a.terms)
    for atom, coefficient in b.terms:
        terms[atom] = terms.get(atom, 0) + coefficient
    constant = a.constant + b.constant
    recombined = _recombine(terms)
    if recombined is None:
        return _canonical(constant, terms)
    rest, whole = recombined
    return _canonical(constant, rest) + whole


def _recombine(terms: dict[Atom, int]) -> tuple[dict[Atom, int], Index] | None:
    """Undo a split: ``c*(x//c) + x%c -> x`` and ``a*((x//a)%b) + x%a -> x%(a*b)``, under a common factor."""
    for atom, factor in terms.items():
        if not isinstance(atom, Mod) or not factor:
            continue
        high = atom.value // atom.divisor
        if len(high.terms) == 1 and high.constant == 0 and high.terms[0][1] == 1:
            other = high.terms[0][0]
            if terms.get(other) == factor * atom.divisor and other != atom:
                rest = {a: c for a, c in terms.items() if a != atom and a != other}
                return rest, atom.value * factor
        for other, coefficient in terms.items():
            if isinstance(other, Mod) and coefficient == factor * atom.divisor and other.value == high:
                rest = {a: c for a, c in terms.items() if a != atom and a != other}
                return rest, (atom.value % (atom.divisor * other.divisor)) * factor
    return None


@lru_cache(maxsize=100_000)
def _divide(value: Index, divisor: int) -> Index:
    if divisor == 1:
        return value
    outside = {a: c // divisor for a, c in value.terms if c % divisor == 0}
    inside = {a: c for a, c in value.terms if c % divisor}
    quotient, constant = divmod(value.constant, divisor)
    whole = _canonical(quotient, outside)
    rest = _canonical(constant, inside)
    low, high = rest.range()
    if low >= 0 and high < divisor:
        return whole
    common = math.gcd(divisor, *inside.values())
    if common > 1:
        reduced = _canonical(constant // common, {a: c // common for a, c in inside.items()})
        return whole + _divide(reduced, divisor // common)
    if len(rest.terms) == 1 and rest.constant == 0 and rest.terms[0][1] == 1 and isinstance(rest.terms[0][0], Div):
        nested = rest.terms[0][0]
        return whole + _divide(nested.value, nested.divisor * divisor)
    return whole + as_index(Div(rest, divisor))


@lru_cache(maxsize=100_000)
def _remainder(value: Index, divisor: int) -> Index:
    if divisor == 1:
        return Index(0)
    inside = {a: c for a, c in value.terms if c % divisor}
    rest = _canonical(value.constant % divisor, inside)
    low, high = rest.range()
    if low >= 0 and high < divisor:
        return rest
    common = math.gcd(divisor, *inside.values())
    if common > 1:
        reduced = _canonical(rest.constant // common, {a: c // common for a, c in inside.items()})
        return _remainder(reduced, divisor // common) * common + rest.constant % common
    if len(rest.terms) == 1 and rest.constant == 0 and rest.terms[0][1] == 1:
        nested = rest.terms[0][0]
        if isinstance(nested, Mod) and nested.divisor % divisor == 0:
            return _remainder(nested.value, divisor)
    return as_index(Mod(rest, divisor))
