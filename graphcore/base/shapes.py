"""Shapes: tuples whose extents are integers or symbolic ``Dim`` expressions, and the arithmetic on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphcore.base.errors import ShapeError, UsageError

__all__ = [
    "Count",
    "Dim",
    "Extent",
    "Shape",
    "as_shape",
    "bind",
    "broadcast_shapes",
    "dim_max",
    "dim_min",
    "inner_extents",
    "is_static",
    "normalize_axes",
    "normalize_axis",
    "product",
    "row_major_strides",
    "symbols_of",
    "typical",
]

_TYPICAL = 64
_NO_CALL = "t.size is the number of elements and no function; t.shape has the extents, t.shape[0] the first"
_unnamed = itertools.count()

# A monomial is a sorted tuple of atoms; an atom is a symbol's key or an application ("//", "%", "min", "max") of two
# operands.
_Atom = tuple[Any, ...]
_Terms = tuple[tuple[tuple[_Atom, ...], int], ...]
_APPLY: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}


class Count(int):
    """A number of elements: an integer, and an error that says what to write for ``t.size(0)``."""

    def __call__(self, *args: Any) -> Any:
        """Not defined, as for ``Dim``."""
        raise UsageError(_NO_CALL)


class Dim:
    """A symbolic extent: a polynomial with integer coefficients over named sizes.

    ``Dim("batch")`` equals every other ``Dim("batch")``; each ``Dim()`` is unique. Supports ``+ - * // %`` with
    integers and other dims, and ``dim_min`` / ``dim_max``. Extents are non-negative.

    >>> b = Dim("batch")
    >>> (b * 4 + 8) // 4 == b + 2
    True
    """

    __slots__ = ("_hash", "_terms")

    def __call__(self, *args: Any) -> Any:
        """Not defined: ``t.size(0)`` means an extent in PyTorch; here ``t.size`` is the number of elements."""
        raise UsageError(_NO_CALL)

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ShapeError(f"a Dim's name is a non-empty string, got {name!r}")
        atom: _Atom = ("sym", name if name is not None else f"?{next(_unnamed)}")
        self._terms: _Terms = (((atom,), 1),)
        self._hash = hash(self._terms)

    @staticmethod
    def _build(terms: Mapping[tuple[_Atom, ...], int]) -> Extent:
        kept = tuple(sorted(((m, c) for m, c in terms.items() if c), key=repr))
        if not kept:
            return 0
        if len(kept) == 1 and not kept[0][0]:
            return kept[0][1]
        dim = object.__new__(Dim)
        dim._terms = kept
        dim._hash = hash(kept)
        return dim

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self._terms == other._terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Extent) -> Extent:
        terms = dict(self._terms)
        for monomial, coefficient in _terms_of(other):
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Dim._build(terms)

    __radd__ = __add__

    def __neg__(self) -> Extent:
        return self * -1

    def __sub__(self, other: Extent) -> Extent:
        return self + other * -1

    def __rsub__(self, other: Extent) -> Extent:
        return (self * -1) + other

    def __mul__(self, other: Extent) -> Extent:
        terms: dict[tuple[_Atom, ...], int] = {}
        for (m1, c1), (m2, c2) in itertools.product(self._terms, _terms_of(other)):
            monomial = tuple(sorted(m1 + m2, key=repr))
            terms[monomial] = terms.get(monomial, 0) + c1 * c2
        return Dim._build(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        exact = _divide_exactly(self, other)
        return exact if exact is not None else _apply("//", self, other)

    def __rfloordiv__(self, other: int) -> Extent:
        return _apply("//", other, self)

    def __mod__(self, other: Extent) -> Extent:
        return 0 if _divide_exactly(self, other) is not None else _apply("%", self, other)

    def bind(self, values: Mapping[str, int]) -> Extent:
        """The extent with symbols replaced by integers; an ``int`` once every symbol is known."""
        total: Extent = 0
        for monomial, coefficient in self._terms:
            factor: Extent = coefficient
            for atom in monomial:
                factor = factor * _bind_atom(atom, values)
            total = total + factor
        return total

    def symbols(self) -> frozenset[str]:
        """The names of the symbols in this extent."""
        found: set[str] = set()
        for monomial, _ in self._terms:
            for atom in monomial:
                found |= {atom[1]} if atom[0] == "sym" else symbols_of(atom[1:])
        return frozenset(found)

    @property
    def is_symbol(self) -> bool:
        """Whether this is a bare symbol."""
        return (
            len(self._terms) == 1
            and self._terms[0][1] == 1
            and len(self._terms[0][0]) == 1
            and self._terms[0][0][0][0] == "sym"
        )

    def coefficient(self) -> int:
        """The integer factor of a one-term extent (1 for sums)."""
        return self._terms[0][1] if len(self._terms) == 1 else 1

    def __repr__(self) -> str:
        parts = []
        for monomial, coefficient in self._terms:
            factors = [_show_atom(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts)

    def __bool__(self) -> bool:
        return True

    def __lt__(self, other: Any) -> bool:
        raise ShapeError(
            f"the symbolic extent {self} has no value yet, so it cannot be compared; give the placeholder a fixed "
            f"extent"
        )

    __le__ = __gt__ = __ge__ = __lt__

    def __int__(self) -> int:
        raise ShapeError(
            f"the symbolic extent {self} has no value until a session feeds it; use gc.dim_value(...) for it as a "
            f"tensor"
        )

    __index__ = __int__


Extent = int | Dim
Shape = tuple[Extent, ...]


def _terms_of(extent: Extent) -> _Terms:
    return extent._terms if isinstance(extent, Dim) else (((), int(extent)),)


def _apply(op: str, a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return _APPLY[op](a, b)
    if a == b:
        return {"//": 1, "%": 0}.get(op, a)
    return Dim._build({((op, a, b),): 1})


def _bind_atom(atom: _Atom, values: Mapping[str, int]) -> Extent:
    if atom[0] == "sym":
        return values[atom[1]] if atom[1] in values else Dim._build({(atom,): 1})
    return _apply(atom[0], bind(atom[1], values), bind(atom[2], values))


def _show_atom(atom: _Atom) -> str:
    if atom[0] == "sym":
        return str(atom[1])
    return f"{atom[0]}({atom[1]}, {atom[2]})" if atom[0].isalpha() else f"({atom[1]} {atom[0]} {atom[2]})"


def _divide_exactly(a: Extent, b: Extent) -> Extent | None:
    """a / b when b is one term that divides every term of a; else None."""
    divisor = _terms_of(b)
    if len(divisor) != 1:
        return 1 if a == b else None
    ((atoms, coefficient),) = divisor
    if coefficient == 0:
        return None
    result: dict[tuple[_Atom, ...], int] = {}
    for monomial, c in _terms_of(a):
        rest = list(monomial)
        for atom in atoms:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % coefficient:
            return None
        result[tuple(rest)] = c // coefficient
    return Dim._build(result)


def dim_min(a: Extent, b: Extent) -> Extent:
    """The smaller of two extents."""
    return _apply("min", a, b)


def dim_max(a: Extent, b: Extent) -> Extent:
    """The larger of two extents."""
    return _apply("max", a, b)


def as_shape(shape: Any) -> Shape:
    """A shape from an int, ``None``, ``Dim`` or a sequence of them; ``None`` becomes a new unique ``Dim``.

    Raises:
        ShapeError: a negative extent or something that is no extent.
    """
    if shape is None or isinstance(shape, (int, Dim)) or not isinstance(shape, Iterable):
        shape = (shape,)
    return tuple(_as_extent(e, shape) for e in shape)


def _as_extent(extent: Any, shape: Any) -> Extent:
    if extent is None:
        return Dim()
    if isinstance(extent, Dim):
        return extent
    try:
        value = extent.__index__() if not isinstance(extent, bool) else -1
    except (AttributeError, TypeError):
        raise ShapeError(
            f"{extent!r} in the shape {shape!r} is no extent; use non-negative integers, None or gc.Dim"
        ) from None
    if value < 0 or value >= 2**62:
        raise ShapeError(f"{extent!r} in the shape {tuple(shape)!r} is not an extent between 0 and 2**62")
    return int(value)


def product(extents: Iterable[Extent]) -> Extent:
    """The product of extents (1 for none)."""
    result: Extent = 1
    for extent in extents:
        result = result * extent
    return result


def bind(extent: Extent, values: Mapping[str, int]) -> Extent:
    """``extent`` with the symbols in ``values`` replaced."""
    return extent.bind(values) if isinstance(extent, Dim) else extent


def typical(extent: Extent) -> int:
    """An extent for cost models, which have to decide before sizes are known: every symbol counts as 64."""
    return int(bind(extent, dict.fromkeys(symbols_of([extent]), _TYPICAL)))


def is_static(shape: Sequence[Extent]) -> bool:
    """Whether no extent is symbolic."""
    return not any(isinstance(e, Dim) for e in shape)


def symbols_of(extents: Iterable[Any]) -> frozenset[str]:
    """The names of all symbols in some extents."""
    return frozenset().union(*(e.symbols() for e in extents if isinstance(e, Dim)))


def inner_extents(shape: Shape) -> Shape:
    """Extents that enter a stride of row-major memory: all behind the first that is not 1."""
    lead = next((i for i, e in enumerate(shape) if e != 1), len(shape))
    return shape[lead + 1 :]


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that shapes broadcast to, by NumPy's rule.

    An unknown extent never broadcasts. Against another unknown or fixed extent it is taken to be equal (fixed extents
    win); the caller records that as a constraint, checked when feeds bind.

    Raises:
        ShapeError: the shapes do not broadcast.
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[Extent] = []
    for i in range(-rank, 0):
        extent: Extent = 1
        for shape in shapes:
            if len(shape) < -i or shape[i] == 1 or shape[i] == extent:
                continue
            other = shape[i]
            if extent == 1 or (isinstance(extent, Dim) and isinstance(other, int)):
                extent = other
            elif isinstance(extent, int) and isinstance(other, int):
                listed = " and ".join(map(format_shape, shapes))
                raise ShapeError(f"shapes {listed} do not broadcast: {extent} against {other} at axis {i}")
        result.append(extent)
    return tuple(result)


def format_shape(shape: Shape) -> str:
    """A shape as text, e.g. ``(batch, 10)``."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def normalize_axis(axis: Any, rank: int, op: str = "axis") -> int:
    """A non-negative axis.

    Raises:
        ShapeError: out of range or no integer.
    """
    try:
        value = axis.__index__()
    except (AttributeError, TypeError):
        raise ShapeError(f"{op}: axis {axis!r} is not an integer") from None
    if not -rank <= value < rank:
        raise ShapeError(
            f"{op}: axis {axis} is out of range for a tensor of rank {rank}; use {-rank} to {rank - 1}"
            if rank
            else f"{op}: axis {axis} is out of range for a tensor of rank 0, which has no axes"
        )
    return int(value % rank)


def normalize_axes(axes: Any, rank: int, op: str = "axis") -> tuple[int, ...]:
    """Sorted non-negative axes; ``None`` means all.

    Raises:
        ShapeError: out of range or repeated.
    """
    if axes is None:
        return tuple(range(rank))
    if not isinstance(axes, Iterable):
        axes = (axes,)
    result = sorted(normalize_axis(a, rank, op) for a in axes)
    if len(set(result)) != len(result):
        raise ShapeError(f"{op}: axes {tuple(axes)} name an axis twice")
    return tuple(result)


def row_major_strides(shape: Shape) -> Shape:
    """Element strides of a contiguous tensor."""
    strides: list[Extent] = []
    step: Extent = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))
