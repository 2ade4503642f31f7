"""Extents: integers or symbolic ``Dim`` expressions, the arithmetic on them, and which may be equal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphcore.base.errors import ShapeError, UsageError

__all__ = [
    "Count",
    "Dim",
    "Extent",
    "bind",
    "defined_by",
    "dim_max",
    "dim_min",
    "may_equal",
    "product",
    "reach",
    "symbols_of",
    "typical",
]

_TYPICAL = 64
_NO_CALL = "t.size is the number of elements and no function; t.shape has the extents, t.shape[0] the first"
_unnamed = itertools.count()

# A monomial is a sorted tuple of atoms; an atom is a symbol's key or an application ("//", "%", "min") of two operands.
_Atom = tuple[Any, ...]
_Terms = tuple[tuple[tuple[_Atom, ...], int], ...]


class Count(int):
    """A number of elements: an integer, and an error that says what to write for ``t.size(0)``."""

    def __call__(self, *args: Any) -> Any:
        """Not defined, as for ``Dim``."""
        raise UsageError(_NO_CALL)


class Dim:
    """A symbolic extent: a polynomial with integer coefficients over named sizes.

    ``Dim("batch")`` equals every other ``Dim("batch")``; each ``Dim()`` is unique. Supports ``+ - * // %`` with
    integers and other dims, and ``dim_min`` / ``dim_max``. Extents are non-negative.

    Terms are kept in one order, what divides is divided, and a maximum is written by a minimum, so that extents which
    are equal for that reason are equal objects' values: what is cut off and what is left add up to the whole.

    >>> b = Dim("batch")
    >>> (b * 4 + 8) // 4 == b + 2
    True
    >>> dim_min(b, 3) + dim_max(b - 3, 0) == b
    True
    """

    __slots__ = ("_hash", "_terms", "_text")

    def __call__(self, *args: Any) -> Any:
        """Not defined: ``t.size(0)`` means an extent in PyTorch; here ``t.size`` is the number of elements."""
        raise UsageError(_NO_CALL)

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ShapeError(f"a Dim's name is a non-empty string, got {name!r}")
        atom: _Atom = ("sym", name if name is not None else f"?{next(_unnamed)}")
        self._terms: _Terms = (((atom,), 1),)
        self._hash = hash(self._terms)
        self._text = ""

    @staticmethod
    def _build(terms: Mapping[tuple[_Atom, ...], int]) -> Extent:
        kept = tuple(sorted(((m, c) for m, c in terms.items() if c), key=repr))
        if not kept:
            return 0
        if len(kept) == 1 and not kept[0][0]:
            return kept[0][1]
        return Dim._of(kept)

    @staticmethod
    def _of(terms: _Terms) -> Dim:
        """The extent of sorted terms."""
        dim = object.__new__(Dim)
        dim._terms = terms
        dim._hash = hash(terms)
        dim._text = ""
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
        if isinstance(other, int):
            return self._times(int(other))
        terms: dict[tuple[_Atom, ...], int] = {}
        for (m1, c1), (m2, c2) in itertools.product(self._terms, _terms_of(other)):
            monomial = tuple(sorted(m1 + m2, key=repr))
            terms[monomial] = terms.get(monomial, 0) + c1 * c2
        return Dim._build(terms)

    __rmul__ = __mul__

    def _times(self, factor: int) -> Extent:
        """The extent times a number: the same monomials in the same order."""
        if factor == 1:
            return self
        if factor == 0:
            return 0
        return Dim._of(tuple([(monomial, c * factor) for monomial, c in self._terms]))

    def __floordiv__(self, other: Extent) -> Extent:
        return _quotient(self, other)

    def __rfloordiv__(self, other: int) -> Extent:
        return _quotient(other, self)

    def __mod__(self, other: Extent) -> Extent:
        return _remainder(self, other)

    def __rmod__(self, other: int) -> Extent:
        return _remainder(other, self)

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
        self._text = self._text or self._shown()  # terms are sorted by it, again and again
        return self._text

    def _shown(self) -> str:
        parts = []
        for monomial, coefficient in self._terms:
            factors = [_show_atom(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        parts.sort(key=lambda part: part.startswith("-"))  # n - 1, 5 - n
        return " + ".join(parts).replace("+ -1*", "- ").replace("+ -", "- ")

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


def _terms_of(extent: Extent) -> _Terms:
    return extent._terms if isinstance(extent, Dim) else (((), int(extent)),)


def _quotient(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = _divide_exactly(a, b)
    if exact is not None:
        return exact
    if isinstance(b, int) and b > 0:
        whole = Dim._build({m: c // b for m, c in _terms_of(a) if c % b == 0 or not m})
        if whole != 0:
            return whole + _quotient(a - whole * b, b)
    return Dim._build({(("//", a, b),): 1})


def _remainder(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if _divide_exactly(a, b) is not None:
        return 0
    if isinstance(b, int) and b > 0:
        rest = Dim._build({m: c % b for m, c in _terms_of(a)})
        if rest != a:
            return _remainder(rest, b)
    return Dim._build({(("%", a, b),): 1})


def dim_min(a: Extent, b: Extent) -> Extent:
    """The smaller of two extents."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    sign = _sign(a - b)
    if sign is not None:
        return b if sign > 0 else a
    a, b = sorted((a, b), key=lambda e: (isinstance(e, int), repr(e)))
    constant = dict(_terms_of(a)).get((), 0)
    if constant and isinstance(b, int):
        return dim_min(a - constant, b - constant) + constant
    for monomial, coefficient in _terms_of(a) if isinstance(b, int) else ():
        if len(monomial) != 1 or monomial[0][0] != "min" or not isinstance(monomial[0][2], int):
            continue
        _, whole, part = monomial[0]
        inner = Dim._build({monomial: 1})
        if coefficient == 1 and a == inner:  # min(min(n, j), k)
            return dim_min(whole, min(part, b))
        if coefficient == -1 and a + inner == whole and _sign(whole) == 1 and min(part, b) >= 0:
            return dim_min(whole, part + b) - inner  # min(n - min(n, j), k), of what j left of n
    return Dim._build({(("min", a, b),): 1})


def dim_max(a: Extent, b: Extent) -> Extent:
    """The larger of two extents."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else a + b - dim_min(a, b)


def _sign(difference: Extent) -> int | None:
    """1 if a difference of extents is at least 0 for all sizes, -1 if at most; None where that is not known."""
    if isinstance(difference, int):
        return 1 if difference > 0 else -1
    if all(atom[0] == "sym" for monomial, _ in difference._terms for atom in monomial):
        if all(c > 0 for _, c in difference._terms):
            return 1
        if all(c < 0 for _, c in difference._terms):
            return -1
    return None


def reach(count: Extent, step: int) -> Extent:
    """How many places ``count`` elements take up that are ``step`` apart."""
    return count + (count - dim_min(count, 1)) * (step - 1)


def may_equal(a: Extent, b: Extent) -> bool:
    """Whether two extents are equal for some sizes. What is not known to differ may be; whoever builds on it records
    the equality, as ``agreement.taken`` does."""
    difference = a - b
    if isinstance(difference, int):
        return difference == 0
    constant = sum(c for monomial, c in difference._terms if not monomial)
    if constant and _sign(difference) is not None:  # at least the constant away from 0
        return False
    return constant % math.gcd(*(c for monomial, c in difference._terms if monomial)) == 0


def _bind_atom(atom: _Atom, values: Mapping[str, int]) -> Extent:
    if atom[0] == "sym":
        return values[atom[1]] if atom[1] in values else Dim._build({(atom,): 1})
    return _APPLY[atom[0]](bind(atom[1], values), bind(atom[2], values))


def _show_atom(atom: _Atom) -> str:
    if atom[0] == "sym":
        return str(atom[1])
    a, b = atom[1:]
    if atom[0].isalpha():
        return f"{atom[0]}({a}, {b})"
    return f"({f'({a})' if ' ' in str(a) else a} {atom[0]} {f'({b})' if ' ' in str(b) else b})"


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


def defined_by(a: Extent, b: Extent) -> tuple[str, Extent] | None:
    """The symbol that the equality of two extents defines by other symbols and numbers, and its extent; None where it
    defines none, as ``2*n == 3*m``."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Dim) and one.is_symbol and not one.symbols() & symbols_of([other]):
            return one._terms[0][0][0][1], other
    terms = _terms_of(a - b)
    common = math.gcd(*(c for _, c in terms))
    for monomial, coefficient in terms:
        rest = Dim._build({m: -c // coefficient for m, c in terms if m != monomial})
        alone = len(monomial) == 1 and monomial[0][0] == "sym" and monomial[0][1] not in symbols_of([rest])
        if alone and abs(coefficient) == common:
            return monomial[0][1], rest
    return None


_APPLY: dict[str, Callable[[Extent, Extent], Extent]] = {"//": _quotient, "%": _remainder, "min": dim_min}


def product(extents: Iterable[Extent]) -> Extent:
    """The product of extents (1 for none)."""
    number: int = 1
    symbolic: Extent | None = None
    for extent in extents:
        if isinstance(extent, int):
            number *= extent
        else:
            symbolic = extent if symbolic is None else symbolic * extent
    return number if symbolic is None else symbolic * number


def bind(extent: Extent, values: Mapping[str, int]) -> Extent:
    """``extent`` with the symbols in ``values`` replaced."""
    return extent.bind(values) if isinstance(extent, Dim) else extent


def typical(extent: Extent) -> int:
    """An extent for cost models, which have to decide before sizes are known: every symbol counts as 64."""
    return int(bind(extent, dict.fromkeys(symbols_of([extent]), _TYPICAL)))


def symbols_of(extents: Iterable[Any]) -> frozenset[str]:
    """The names of all symbols in some extents."""
    return frozenset().union(*(e.symbols() for e in extents if isinstance(e, Dim)))
