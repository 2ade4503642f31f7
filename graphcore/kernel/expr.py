"""Scalar expressions: what one element of a kernel computes. Data, interned, typed at construction.

Interning makes structural equality object identity, so shared values are found for free and memo tables are cheap.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Dim, Extent
from graphcore.kernel.index import Axis, Index

__all__ = [
    "ELEMENT",
    "INDEXED",
    "REDUCERS",
    "Expr",
    "Signature",
    "argument",
    "call",
    "cast",
    "const",
    "declare",
    "in_range",
    "index_value",
    "leaf",
    "let_ref",
    "load",
    "rebuild",
    "reduce",
    "select",
    "size_value",
    "substituted",
    "total",
    "walk",
]

# Kinds that have an index.
INDEXED = frozenset(("load", "index", "in_range"))
_KINDS = INDEXED | {"const", "size", "reduce", "let", "argument", "cast", "select"}
# The axis that the arguments of a function's body run along: they differ from element to element.
ELEMENT = Axis("element", 1)
# The monoids a reduction may use; arg-reducers give the position of the first extreme element (of the first NaN, if
# any).
REDUCERS = frozenset("add mul max min and or argmax argmin".split())

_T = TypeVar("_T")


class _Field(Generic[_T]):
    """A typed property of some kinds of expressions, each of which keeps it at a position of its data."""

    def __init__(self, **positions: int) -> None:
        self.positions = positions

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, e: None, owner: type) -> _Field[_T]: ...

    @overload
    def __get__(self, e: Expr, owner: type) -> _T: ...

    def __get__(self, e: Expr | None, owner: type) -> _T | _Field[_T]:
        if e is None:
            return self
        position = self.positions.get(e.fn)
        if position is None:
            raise AttributeError(f"a {e.fn} has no {self.name}: {e!r}")
        found: _T = e._data[position]
        return found


class Expr:
    """An interned scalar expression.

    Attributes:
        fn: what it is: ``const load index size in_range reduce let argument cast select`` or a scalar function's name.
        args: operand expressions.
        dtype: its type.
        axes: the free axes that its value depends on.

    What is not an operand is a typed property that only the kinds named with it have; asking another kind is an
    AttributeError.
    """

    __slots__ = ("__weakref__", "_below", "_data", "args", "axes", "dtype", "fn")
    fn: str
    args: tuple[Expr, ...]
    dtype: DType
    axes: frozenset[Axis]
    _data: tuple[Any, ...]
    _below: tuple[Expr, ...]

    # The number of a constant: a bool, an int, or a float that its type can hold.
    value = _Field[Any](const=0)
    # The position of the parameter that is read.
    param = _Field[int](load=0)
    # Where a load reads, what an index gives as a number, what in_range compares.
    index = _Field[Index](load=1, index=0, in_range=0)
    # The symbolic extent whose number it is.
    extent = _Field[Dim](size=0)
    # The smallest index that is in range, and the extent that it must stay below.
    low = _Field[int](in_range=1)
    high = _Field[Extent](in_range=2)
    # Which operand of its function an argument is.
    position = _Field[int](argument=0)
    # The monoid of a reduction, one of REDUCERS, and the axes that it combines over, outermost first.
    combine = _Field[str](reduce=0)
    reduce_axes = _Field[tuple[Axis, ...]](reduce=1)
    # The name of what a form makes, and the axes that it is over.
    label = _Field[str](let=0)
    over = _Field[tuple[Axis, ...]](let=1)

    @property
    def guard(self) -> Expr | None:
        """The condition without which a load reads nothing and is 0; None if it always reads."""
        if self.fn != "load":
            raise AttributeError(f"a {self.fn} has no guard: {self!r}")
        return self.args[0] if self.args else None

    def substitute(self, mapping: Mapping[Axis, Index]) -> Expr:
        """The expression with free axes replaced by indices."""
        return substituted((self,), mapping)[0]

    def __repr__(self) -> str:
        if self.fn == "const":
            return repr(self.value)
        if self.fn == "load":
            return f"{self.param}[{self.index}]" + (f" if {self.guard}" if self.guard else "")
        if self.fn == "in_range":
            return f"{self.low} <= {self.index} < {self.high}"
        inner = ", ".join([*map(repr, self.args), *map(str, self._data)])
        return f"{self.fn}<{self.dtype}>({inner})" if self.fn == "cast" else f"{self.fn}({inner})"


_interned: weakref.WeakValueDictionary[tuple[Any, ...], Expr] = weakref.WeakValueDictionary()
_NO_AXES: frozenset[Axis] = frozenset()


def _intern(fn: str, args: tuple[Expr, ...], dtype: DType, data: tuple[Any, ...], axes: frozenset[Axis]) -> Expr:
    key = (fn, args, dtype.name, data)
    found = _interned.get(key)
    if found is None:
        found = object.__new__(Expr)
        found.fn, found.args, found.dtype, found._data, found.axes = fn, args, dtype, data, axes
        found._below = (*args, *dynamic_values(found.index)) if fn in INDEXED else args
        _interned[key] = found
    return found


def _union(args: tuple[Expr, ...]) -> frozenset[Axis]:
    axes = _NO_AXES
    for a in args:
        if a.axes and a.axes is not axes:
            axes = axes | a.axes
    return axes


class _Bits(float):
    """A float constant compared by its bits, so that -0.0 and 0.0 stay apart and NaN equals itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and np.float64(self).tobytes() == np.float64(other).tobytes()

    def __hash__(self) -> int:
        return hash(np.float64(self).tobytes())


def const(value: bool | int | float, dtype: DType) -> Expr:
    """A constant of a type; floating values are rounded to it first."""
    if dtype.is_bool:
        stored: Any = bool(value)
    elif dtype.is_float:
        with np.errstate(over="ignore"):
            stored = _Bits(float(dtype.storage.type(value)))
    else:
        stored = int(value)
    return _intern("const", (), dtype, (stored, dtype.name), _NO_AXES)


def load(param: int, index: Index, dtype: DType, guard: Expr | None = None) -> Expr:
    """An element of a parameter at a flat index; where ``guard`` is false nothing is read and the value is 0."""
    if guard is not None and guard.fn == "const":
        return load(param, index, dtype) if guard.value else const(0, dtype)
    args = () if guard is None else (guard,)
    return _intern("load", args, dtype, (param, index), index.axes() | _union(args))


def index_value(index: Index, dtype: DType) -> Expr:
    """An index as a number (an arange, a one-hot's position)."""
    if index.is_constant:
        return const(index.constant, dtype)
    return _intern("index", (), dtype, (index,), index.axes())


def size_value(extent: Extent, dtype: DType) -> Expr:
    """A symbolic extent as a number, read from the launch's arguments."""
    return _intern("size", (), dtype, (extent,), _NO_AXES) if isinstance(extent, Dim) else const(extent, dtype)


def in_range(index: Index, low: int, high: Extent) -> Expr:
    """Whether ``low <= index < high``; folded where the axes' ranges decide."""
    bottom, top = index.range()
    if bottom >= low and isinstance(high, int) and top < high:
        return const(True, dtypes.bool_)
    if isinstance(high, int) and (top < low or bottom >= high):
        return const(False, dtypes.bool_)
    return _intern("in_range", (), dtypes.bool_, (index, low, high), index.axes())


def reduce(combine: str, axes: tuple[Axis, ...], body: Expr) -> Expr:
    """``body`` combined over ``axes``; accumulates in the body's compute type."""
    dtype = dtypes.int64 if combine.startswith("arg") else body.dtype
    return _intern("reduce", (body,), dtype, (combine, axes), body.axes - frozenset(axes))


def total(axes: tuple[Axis, ...], body: Expr) -> Expr:
    """``body`` summed over ``axes``. Where there are none it is one element, and added to 0 as in any sum, which makes
    -0 of floats 0: so the bits of a sum do not depend on whether an extent of 1 is known."""
    if axes:
        return reduce("add", axes, body)
    return call("add", body, const(0, body.dtype)) if body.dtype.is_float else body


def let_ref(name: str, value: Expr) -> Expr:
    """A reference to a named value of the kernel's body."""
    return _intern("let", (), value.dtype, (name, tuple(sorted(value.axes, key=lambda a: a.name))), value.axes)


def leaf(name: str, dtype: DType, axes: tuple[Axis, ...]) -> Expr:
    """A value that the kernel's form makes, at a point of axes."""
    return _intern("let", (), dtype, (name, axes), frozenset(axes))


def both(a: Expr, b: Expr) -> Expr:
    """Logical and, folded for constants."""
    if a.fn == "const":
        return b if a.value else a
    if b.fn == "const":
        return a if b.value else b
    return a if a is b else call("and", a, b)


def cast(value: Expr, dtype: DType) -> Expr:
    """Conversion; float to integer truncates, anything to bool is ``!= 0``."""
    if value.dtype == dtype:
        return value
    if value.fn == "const":
        number = value.value
        if dtype.is_float:  # to the compute type first, as on a device
            return const(float(np.asarray(number, np.dtype(value.dtype.compute)).astype(dtype.compute)), dtype)
        if not dtype.is_integer or not isinstance(number, float):
            return const(_wrap(number, dtype), dtype)
    return _intern("cast", (value,), dtype, (), value.axes)


def _wrap(number: Any, dtype: DType) -> Any:
    return number if not dtype.is_integer else int(np.array(int(number) & (2**64 - 1), np.uint64).astype(dtype.storage))


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """``yes`` where ``condition`` holds, else ``no``; both are evaluated, loads inside are guarded by the caller."""
    if condition.fn == "const":
        return yes if condition.value else no
    if yes is no:
        return yes
    args = (condition, yes, no)
    return _intern("select", args, yes.dtype, (), _union(args))


@dataclass(frozen=True)
class Signature:
    """What a scalar function takes and gives.

    Attributes:
        name: a lower-case identifier.
        arity: how many operands, all of one type.
        operands: the kinds of types that it takes, as in ``DType.kind``.
        test: whether the value is a bool; else it has the operands' type.
    """

    name: str
    arity: int = 1
    operands: str = "f"
    test: bool = False


_SIGNATURES: dict[str, Signature] = {}


def declare(signature: Signature) -> None:
    """Let ``call`` apply a function; ``functions.register`` adds what it means.

    Raises:
        ValueError: the name is taken, or means something else in an expression, or is no lower-case identifier.
    """
    name = signature.name
    if name in _SIGNATURES or name in _KINDS or not (name.isidentifier() and name.islower()):
        raise ValueError(f"{name!r} cannot name a scalar function: it is taken or no lower-case identifier")
    _SIGNATURES[name] = signature


def call(fn: str, *args: Expr) -> Expr:
    """A scalar function applied.

    Raises:
        ValueError: no such function, or operands that it does not take.
    """
    signature = _SIGNATURES.get(fn)
    if signature is None:
        raise ValueError(f"{fn!r} is no scalar function of the kernel IR")
    dtype = args[0].dtype if args else None
    if dtype is None or len(args) != signature.arity or dtype.kind not in signature.operands:
        raise ValueError(f"{fn} takes {signature.arity} operands of kinds {signature.operands}, not {args}")
    return _intern(fn, args, dtypes.bool_ if signature.test else dtype, (), _union(args))


def argument(position: int, dtype: DType) -> Expr:
    """An operand of a function's body."""
    return _intern("argument", (), dtype, (position,), frozenset((ELEMENT,)))


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every expression below ``roots`` once, operands first (also through dynamic indices)."""
    seen: set[Expr] = set()
    stack: list[Expr | tuple[Expr]] = [*reversed(roots)]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):  # what is below it has been given
            yield node[0]
        elif node not in seen:
            seen.add(node)
            if node._below:
                stack.append((node,))
                stack.extend(node._below[::-1])
            else:
                yield node


def children(node: Expr) -> tuple[Expr, ...]:
    """Operands, and the values that the indices of a load read."""
    return node._below


def dynamic_values(index: Index) -> Iterator[Expr]:
    """The scalar expressions inside an index."""
    for atom, _ in index.terms:
        value = getattr(atom, "value", None)
        if isinstance(value, Expr):
            yield value
        elif isinstance(value, Index):
            yield from dynamic_values(value)


def substituted(roots: Sequence[Expr], mapping: Mapping[Axis, Index]) -> list[Expr]:
    """Expressions with free axes replaced by indices; what they share is rebuilt once."""
    memo: dict[Expr, Expr] = {}
    for node in walk(*roots):
        memo[node] = _rebuild(node, memo, mapping)
    return [memo[root] for root in roots]


def _rebuild(node: Expr, memo: Mapping[Expr, Expr], mapping: Mapping[Axis, Index]) -> Expr:
    args = tuple(memo[a] for a in node.args)
    if node.fn == "load":
        return load(node.param, node.index.substitute(mapping), node.dtype, *args)
    if node.fn == "index":
        return index_value(node.index.substitute(mapping), node.dtype)
    if node.fn == "in_range":
        return in_range(node.index.substitute(mapping), node.low, node.high)
    if node.fn == "reduce":
        replaced = [(a, mapping.get(a)) for a in node.reduce_axes]
        bound = dict.fromkeys(b for a, r in replaced for b in (sorted(r.axes(), key=str) if r else (a,)))
        return reduce(node.combine, tuple(bound), args[0])
    return rebuild(node, args)


def rebuild(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The same expression over other operands."""
    if args == node.args:
        return node
    if node.fn == "reduce":
        return reduce(node.combine, node.reduce_axes, args[0])
    if node.fn == "load":
        return load(node.param, node.index, node.dtype, *args)
    if node.fn == "cast":
        return cast(args[0], node.dtype)
    if node.fn == "select":
        return select(*args)
    return _intern(node.fn, args, node.dtype, node._data, _union(args))


def transform(root: Expr, change: Callable[[Expr, tuple[Expr, ...]], Expr | None]) -> Expr:
    """Rebuild bottom-up; ``change(node, new_args)`` gives a replacement or None to keep the node over its new
    operands."""
    memo: dict[Expr, Expr] = {}
    for node in walk(root):
        args = tuple(memo[a] for a in node.args)
        replacement = change(node, args)
        memo[node] = replacement if replacement is not None else rebuild(node, args)
    return memo[root]
