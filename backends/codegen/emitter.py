"""Expressions to text: scopes, lanes and the placement of every value at the outermost loop that it depends on.

An ``Emitter`` holds a stack of scopes, one a loop. A value is written into the innermost scope that binds one of its
axes, so what depends on a row only is computed once a row. Text of an inner loop is appended to its parent when the
loop closes, hence whatever the inner loop hoists stands before it. One axis may be the *lane* axis: values that depend
on it are explicit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from backends.codegen.accumulator import Accumulator
from backends.codegen.cnames import counter_dtype, counter_type, register_type
from backends.codegen.device_model import DeviceModel, narrow_positions
from backends.codegen.scalars import bounded
from backends.codegen.template import sizes_of
from backends.codegen.vector_loads import load_vector
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Dim, Extent
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis, Div, Dynamic, Index, Mod
from graphcore.kernel.ir import Kernel, Store

__all__ = ["Emitter", "Scope"]


@dataclass
class Scope:
    """A loop body being written."""

    axes: frozenset[Axis]
    lines: list[str] = field(default_factory=list)
    names: dict[object, str] = field(default_factory=dict)

    def line(self, *texts: str) -> None:
        """Write lines."""
        self.lines.extend(texts)

    def define(self, value: object, text: str) -> None:
        """From here on, a value (or whatever else has a name) is this text."""
        self.names[value] = text


class Emitter:
    """Writes values of one kernel.

    Args:
        kernel: whose values are written; its parameters are called ``p0``, ``p1`` and so on.
        model: the device's.
        sizes: C names of the symbolic extents, where they are not the kernel's own.
        within: axes whose loops stand around all that is written.
        axes: C texts of axes that others have bound.
        values: C texts of values that are known already.
        aligned: whether vectors start at multiples of their width.

    Others change an emitter by its methods alone.
    """

    def __init__(
        self,
        kernel: Kernel,
        model: DeviceModel,
        *,
        sizes: Mapping[Dim, str] | None = None,
        within: Iterable[Axis] = (),
        axes: Mapping[Axis, str] | None = None,
        values: Mapping[Expr, str] | None = None,
        aligned: bool = True,
    ) -> None:
        self.kernel = kernel
        self.model = model
        self.language = model.language
        self.pointers = [f"p{i}" for i in range(len(kernel.params))]
        self.sizes = sizes_of(kernel) if sizes is None else sizes
        self.lane: Axis | None = None
        self.width = 1
        self.aligned = aligned
        self.axis_code: dict[Axis, str] = dict(axes or {})
        self.scopes: list[Scope] = [Scope(frozenset(within))]
        for value, text in (values or {}).items():
            self.define(value, text)
        self.cached: Mapping[Expr, Callable[[int], str]] = {}
        self.pinned: dict[Expr, frozenset[Axis]] = {}  # more axes whose loops a value must stay inside
        self.narrow = frozenset[Expr]() if kernel.wide else narrow_positions(kernel)
        self.counter, self.counts = counter_type(kernel), counter_dtype(kernel)  # of positions and extents
        self._names = 0

    # Scopes and names

    @property
    def scope(self) -> Scope:
        return self.scopes[-1]

    @property
    def lines(self) -> list[str]:
        """What was written into the innermost scope: of a finished function, everything."""
        return list(self.scope.lines)

    def line(self, *texts: str) -> None:
        self.scope.line(*texts)

    def define(self, value: Expr, text: str) -> None:
        """Inside the innermost scope a value is this text from here on."""
        self.scope.define(value, text)

    def name_axis(self, axis: Axis, code: str) -> None:
        """From here on, an axis is written like this."""
        self.axis_code[axis] = code

    def keep_inside(self, value: Expr, axes: Iterable[Axis]) -> None:
        """A value is never moved out of the loops of these axes, also where it does not depend on them."""
        self.pinned[value] = frozenset(axes)

    @contextmanager
    def reading(self, values: Mapping[Expr, Callable[[int], str]]) -> Iterator[None]:
        """Inside, these values are read from where they are kept, as the text for a width, and not computed."""
        before, self.cached = self.cached, values
        try:
            yield
        finally:
            self.cached = before

    def fresh(self, prefix: str = "v") -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    @contextmanager
    def block(self, header: str, axes: Sequence[Axis] = ()) -> Iterator[Scope]:
        """A nested scope that binds axes; its text goes into the parent when it closes, and nowhere if an exception
        ends it.

        An interrupt may come between any two lines here: an emitter that one has passed through is not used again.
        """
        parent, inner = self.scope, Scope(frozenset(axes))
        self.scopes.append(inner)
        yield inner
        self.scopes.pop()
        parent.line(f"{header} {{", *("  " + text for text in inner.lines), "}")

    @contextmanager
    def loop(self, axis: Axis, name: str | None = None) -> Iterator[Scope]:
        """A scalar loop over an axis."""
        variable = name or self.fresh(axis.name + "_")
        self.axis_code[axis] = variable
        header = f"for ({self.counter} {variable} = 0; {variable} < {self.extent(axis.extent)}; ++{variable})"
        with self.block(header, (axis,)) as scope:
            yield scope

    @contextmanager
    def lanes(self, axis: Axis, base: str, width: int) -> Iterator[None]:
        """Inside, values that depend on ``axis`` are vectors of ``width`` starting at ``base``."""
        before = self.lane, self.width, self.axis_code.get(axis)
        self.lane, self.width = axis, width
        self.axis_code[axis] = base
        try:
            yield
        finally:
            self.lane, self.width = before[0], before[1]
            if before[2] is not None:
                self.axis_code[axis] = before[2]

    def extent(self, extent: Extent) -> str:
        return self.sizes[extent] if isinstance(extent, Dim) else self.number(extent)

    def number(self, value: int) -> str:
        """A count as C, of a type that products of it fit."""
        text = f"{value}L" if self.kernel.wide else str(value)
        return text if value >= 0 else f"({text})"

    def iota(self, width: int) -> str:
        """The numbers of the lanes as a vector of positions."""
        return self.language.iota(width, self.counter)

    def place(self, axes: frozenset[Axis]) -> Scope:
        """The innermost scope that binds one of ``axes``."""
        for scope in reversed(self.scopes):
            if scope.axes & axes:
                return scope
        return self.scopes[0]

    def home(self, e: Expr) -> Scope:
        """The scope that a value is written into."""
        more = self.pinned.get(e)
        return self.place(e.axes | more if more else e.axes)

    def is_vector(self, axes: frozenset[Axis]) -> bool:
        return self.width > 1 and self.lane in axes

    def width_of(self, value: Expr) -> int:
        return self.width if self.is_vector(value.axes) else 1

    # Values

    def value(self, e: Expr) -> str:
        """The C text of a value: a name, or a literal."""
        if e.fn == "const":
            return self.language.literal(e.value, e.dtype)
        place = self.home(e)
        for scope in self.scopes:
            if e in scope.names:
                return scope.names[e]
            if scope is place:
                break
        if e in self.cached:
            text = self.cached[e](self.width_of(e))
        elif e.fn == "reduce":
            return self.inner_reduce(e, place)
        else:
            text = self.text(e)
        name = self.fresh()
        place.line(f"const {self.language.vector_type(e.dtype, self.width_of(e))} {name} = {text};")
        place.define(e, name)
        return name

    def vector(self, e: Expr, width: int) -> str:
        """A value as ``width`` lanes: scalars are spread."""
        return self.language.spread(self.value(e), e.dtype, self.width_of(e), width)

    def text(self, e: Expr) -> str:
        width, language = self.width_of(e), self.language
        if e.fn == "load":
            return self.load(e)
        if e.fn == "index":
            return language.convert(self.index(e.index, width), self.counts, e.dtype, width)
        if e.fn == "size":
            return language.convert(self.extent(e.extent), self.counts, e.dtype, 1)
        if e.fn == "in_range":
            return self.in_range(e, width)
        args = [self.vector(a, width) for a in e.args]
        if e.fn == "select":
            condition, yes, no = args
            mask = language.mask_for(condition, e.dtype, width)
            return f"({language.select(mask, yes, no, register_type(e.dtype), width)})"
        if e.fn == "cast" and e.args[0] in self.narrow:
            return args[0]
        if e.fn == "cast":
            return self.rounded(language.convert(args[0], e.args[0].dtype, e.dtype, width), e.dtype, width)
        return self.rounded(language.apply(*bounded(e, args), e.args[0].dtype, width), e.dtype, width)

    def rounded(self, text: str, dtype: DType, width: int) -> str:
        """Half types compute in float; every result is rounded to what storing it would keep."""
        return f"gc_round_{dtype.name}{width if width > 1 else ''}({text})" if dtype.rounds else text

    # Indices

    def index(self, index: Index, width: int = 1) -> str:
        """An index as C: a scalar, or a vector of the lanes."""
        parts: list[str] = []
        for atom, coefficient in index.terms:
            text = self.atom(atom, width)
            parts.append(text if coefficient == 1 else f"{text}*{self.number(coefficient)}")
        if index.constant or not parts:
            parts.append(self.number(index.constant))
        text = " + ".join(parts)
        if width > 1 and not self.is_vector(index.axes()):
            return self.language.splat(text, self.counter, width)
        return text if len(parts) == 1 else f"({text})"

    def atom(self, atom: object, width: int) -> str:
        if isinstance(atom, Axis):
            code = self.axis_code[atom]
            if width > 1 and atom == self.lane:
                return f"({code} + {self.iota(width)})"
            return code
        if isinstance(atom, Dynamic):
            value: Expr = atom.value
            own = width if self.is_vector(value.axes) else 1
            return self.language.convert(self.value(value), value.dtype, self.counts, own)
        assert isinstance(atom, (Div, Mod))
        own = width if width > 1 and self.is_vector(atom.value.axes()) else 1
        inner = self.index(atom.value, own)
        low, _ = atom.value.range()
        if low >= 0:
            return f"({inner} {'/' if isinstance(atom, Div) else '%'} {self.number(atom.divisor)})"
        shifted = -low + (low % atom.divisor)  # a multiple of the divisor that makes the operand non-negative
        divisor, shift = self.number(atom.divisor), self.number(shifted)
        if isinstance(atom, Div):
            return f"(({inner} + {shift}) / {divisor} - {self.number(shifted // atom.divisor)})"
        return f"(({inner} + {shift}) % {divisor})"

    def in_range(self, e: Expr, width: int) -> str:
        index, low, high = e.index, e.low, e.high
        text = self.index(index, width)
        name = self.fresh("k")
        self.home(e).line(f"const {self.language.vector(self.counter, width)} {name} = {text};")
        bottom, top = index.range()
        checks = []
        if bottom < low:
            checks.append(f"({name} >= {self.number(low)})")
        if not isinstance(high, int) or top >= high:
            checks.append(f"({name} < {self.extent(high)})")
        if not checks:
            return "-1" if width > 1 else "1"
        checked = " & ".join(checks)
        return self.language.mask_of(checked, self.counts, width) if self.kernel.wide else checked

    def position(self, axes: Sequence[Axis]) -> str:
        """The row-major position over axes as C."""
        text = "0"
        for axis in axes:
            code = self.axis_code[axis]
            text = f"({text} * {self.extent(axis.extent)} + {code})" if text != "0" else code
        return text

    # Memory

    def load(self, e: Expr) -> str:
        if self.width_of(e) > 1:
            return load_vector(self, e)
        text = self.language.load(self.pointers[e.param], self.index(e.index), e.dtype, 1)
        return f"({self.value(e.guard)} ? {text} : {self.language.literal(0, e.dtype)})" if e.guard else text

    def store_all(self, stores: Sequence[Store]) -> None:
        """Compute the values of all stores, then write them: a store may be in place over what another one reads."""
        for store in stores:
            self.value(store.value)
        for store in stores:
            self.store(store)

    def store(self, store: Store) -> None:
        """Write one element, or the lanes."""
        pointer, dtype, language = self.pointers[store.param], store.value.dtype, self.language
        vector = self.is_vector(store.index.axes())
        width = self.width if vector else 1
        value = self.vector(store.value, width)
        if not vector or (self.lane is not None and store.index.stride(self.lane) == 1):
            self.line(language.store(pointer, self.index(store.index), value, dtype, width))
            return
        where, held = self.fresh("x"), self.fresh("w")
        step = store.index.stride(self.lane) if self.lane is not None else None
        if step is None:
            self.line(f"const {language.vector(self.counter, width)} {where} = {self.index(store.index, width)};")
            places = [language.lane(where, i) for i in range(width)]
        else:
            self.line(f"const {self.counter} {where} = {self.index(store.index)};")
            places = [f"({where} {'-' if step < 0 else '+'} {abs(i * step)})" for i in range(width)]
        self.line(f"const {language.vector_type(dtype, width)} {held} = {value};")
        for i, place in enumerate(places):
            lane = language.lane(held, i)
            self.line(language.store(pointer, place, f"(-{lane})" if dtype.is_bool else lane, dtype, 1))

    # Reductions

    def inner_reduce(self, e: Expr, place: Scope) -> str:
        """A reduction whose axes belong to it alone: loops at the point of use, inside the scope that its free axes
        need."""
        while self.scope is not place:  # its loops must be text of the scope it belongs to
            return self._hoisted(e, place)
        width = self.width_of(e)
        accumulator = Accumulator(self, e, width)
        accumulator.declare(place)
        self._nest(list(e.reduce_axes), accumulator, e)
        name = accumulator.finish(place)
        place.define(e, name)
        return name

    def _hoisted(self, e: Expr, place: Scope) -> str:
        position = self.scopes.index(place)
        inner, self.scopes = self.scopes[position + 1 :], self.scopes[: position + 1]
        try:
            return self.inner_reduce(e, place)
        finally:
            self.scopes.extend(inner)

    def _nest(self, axes: list[Axis], accumulator: Accumulator, e: Expr) -> None:
        if axes:
            with self.loop(axes[0]):
                self._nest(axes[1:], accumulator, e)
            return
        accumulator.add(e.args[0], self.position(e.reduce_axes))
