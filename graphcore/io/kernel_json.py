"""Kernels as lossless JSON: axes and expressions by position in tables, operands before what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Extent
from graphcore.io.fields import At, Codec, parse, render
from graphcore.kernel import expr
from graphcore.kernel.expr import ELEMENT, REDUCERS, Expr, walk
from graphcore.kernel.index import PARALLEL, REDUCE, SEQUENTIAL, Atom, Axis, Div, Dynamic, Index, Mod
from graphcore.kernel.ir import Kernel, verify_kernel
from graphcore.kernel.whole_forms import Factor, Scan, Sort, Transform, WholeForm

__all__ = [
    "decode_kernel",
    "decode_tabled",
    "encode_kernel",
    "encode_tabled",
    "kernel_from_json",
    "kernel_to_json",
]

_FORMAT, _VERSION = "graphcore.kernel", 1
Variants = Mapping[type, tuple[type, ...]]
_FORMS: Variants = {WholeForm: (Scan, Sort, Transform, Factor)}
_AXIS_KINDS = {kind: kind for kind in (PARALLEL, REDUCE, SEQUENTIAL)}
_DIVISIONS: dict[str, type[Div] | type[Mod]] = {"//": Div, "%": Mod}


def kernel_to_json(kernel: Kernel) -> str:
    """The canonical text of a kernel: equal kernels have equal texts.

    >>> from graphcore.base.dtypes import float32
    >>> from graphcore.kernel.ir import Param
    >>> kernel = Kernel("empty", (Param("p0", float32, (4,)),), (), ())
    >>> kernel_from_json(kernel_to_json(kernel)) == kernel
    True
    """
    return render({"format": _FORMAT, "version": _VERSION, "kernel": encode_kernel(kernel)})


def kernel_from_json(text: str) -> Kernel:
    """The kernel that a text of ``kernel_to_json`` stands for, verified.

    Raises:
        FormatError: the text is damaged or of another version; the message names the field.
    """
    return decode_kernel(parse(text, _FORMAT, _VERSION).fields("format", "version", "kernel")["kernel"])


def encode_kernel(kernel: Kernel) -> dict[str, Any]:
    """A kernel as JSON values."""
    return encode_tabled(kernel, Kernel, _FORMS)


def decode_kernel(at: At) -> Kernel:
    """The kernel that JSON values stand for, verified.

    Raises:
        FormatError: they are damaged; the message names the field.
    """
    kernel: Kernel = decode_tabled(at, Kernel, _FORMS)
    at.guarded(verify_kernel, kernel)
    return kernel


def encode_tabled(value: Any, hint: Any, variants: Variants) -> dict[str, Any]:
    """A dataclass that holds axes and expressions as JSON values, with tables of these.

    Args:
        value: the data.
        hint: its declared type.
        variants: subclasses that may stand where a class is declared.
    """
    codec = _Tables(variants)
    fields = codec.encode(value, hint)
    return {"axis_table": codec.axes, "value_table": codec.values, **fields}


def decode_tabled(at: At, hint: Any, variants: Variants) -> Any:
    """What ``encode_tabled`` made JSON values of.

    Raises:
        FormatError: they are damaged; the message names the field.
    """
    given = dict(at.expect(dict))
    for table in ("axis_table", "value_table"):
        if table not in given:
            raise at.fault(f"lacks the field {table!r}")
    codec = _Tables(variants)
    codec.read_axes(at.at("axis_table"))
    codec.read_values(at.at("value_table"))
    own = {name: value for name, value in given.items() if name not in ("axis_table", "value_table")}
    found = codec.decode(At(own, at.path), hint)
    if at.guarded(encode_tabled, found, hint, variants) != at.value:
        raise at.fault("is not in its canonical form: tables in another order, or something in them that nothing uses")
    return found


class _Tables(Codec):
    """Tables of axes and expressions, which what is inside of the data refers to."""

    def __init__(self, variants: Variants) -> None:
        super().__init__(None, variants)
        self.axes: list[Any] = []
        self.values: list[Any] = []
        self.axis_position: dict[Axis, int] = {}
        self.value_position: dict[Expr, int] = {}
        self.known_axes: list[Axis] = []
        self.known_values: list[Expr] = []

    def encode_arm(self, value: Any, hint: Any, tagged: bool) -> Any:
        if hint is Axis:
            return self.axis(value)
        if hint is Index:
            return self.index(value)
        return self.expression(value) if hint is Expr else super().encode_arm(value, hint, tagged)

    def decode_arm(self, at: At, hint: Any) -> Any:
        if hint is Axis:
            return self.known_axes[at.integer(0, len(self.known_axes))]
        if hint is Index:
            return self.index_in(at)
        return self.value_in(at) if hint is Expr else super().decode_arm(at, hint)

    # Axes

    def axis(self, axis: Axis) -> int:
        """The position of an axis, which is new to the table where it has none yet."""
        if axis not in self.axis_position:
            self.axis_position[axis] = len(self.axes)
            extent = self.encode(axis.extent, Extent)
            self.axes.append({"name": axis.name, "extent": extent, "kind": axis.kind})
        return self.axis_position[axis]

    def read_axes(self, at: At) -> None:
        for item in at.items():
            given = item.fields("name", "extent", "kind")
            kind = given["kind"].expect(str)
            if kind not in _AXIS_KINDS:
                raise given["kind"].fault(f"{kind!r} is not one of {', '.join(_AXIS_KINDS)}")
            axis = Axis(_identifier(given["name"]), self.extent_in(given["extent"]), kind)
            if axis in self.known_axes:
                raise item.fault(f"the axis {axis} stands in the table twice")
            self.known_axes.append(axis)

    def extent_in(self, at: At) -> Extent:
        if isinstance(at.value, int):
            return at.integer(0)
        found: Extent = self.decode(at, Extent)
        return found

    # Indices

    def index(self, index: Index) -> dict[str, Any]:
        terms = [[coefficient, self.atom(atom)] for atom, coefficient in index.terms]
        return {"constant": index.constant, "terms": terms}

    def atom(self, atom: Atom) -> dict[str, Any]:
        if isinstance(atom, Axis):
            return {"axis": self.axis(atom)}
        if isinstance(atom, Dynamic):
            return {"value": self.expression(atom.value), "extent": self.encode(atom.extent, Extent)}
        return {"//" if isinstance(atom, Div) else "%": self.index(atom.value), "divisor": atom.divisor}

    def index_in(self, at: At) -> Index:
        given = at.fields("constant", "terms")
        terms = []
        for item in given["terms"].items():
            parts = item.items()
            if len(parts) != 2:
                raise item.fault("is no coefficient with its atom")
            coefficient = parts[0].integer()
            if coefficient == 0:
                raise parts[0].fault("a coefficient is not 0")
            terms.append((self.atom_in(parts[1]), coefficient))
        if len({atom for atom, _ in terms}) < len(terms):
            raise given["terms"].fault("an atom has two coefficients")
        return Index(given["constant"].integer(), tuple(terms))

    def atom_in(self, at: At) -> Atom:
        given = at.expect(dict)
        if "axis" in given:
            found: Axis = self.decode(at.fields("axis")["axis"], Axis)
            return found
        if "value" in given:
            fields = at.fields("value", "extent")
            value = self.value_in(fields["value"])
            if not value.dtype.is_integer:
                raise fields["value"].fault(f"an index takes integers, not {value.dtype}")
            return Dynamic(value, self.extent_in(fields["extent"]))
        kind = next((name for name in _DIVISIONS if name in given), None)
        if kind is None:
            raise at.fault("is no axis, value, quotient or remainder")
        fields = at.fields(kind, "divisor")
        return _DIVISIONS[kind](self.index_in(fields[kind]), fields["divisor"].integer(2))

    # Expressions

    def expression(self, value: Expr) -> int:
        """The position of an expression; it and what it is made of are new to the table where they have none yet."""
        if value not in self.value_position:
            for each in walk(value):
                if each not in self.value_position:
                    entry = self.entry(each)
                    self.value_position[each] = len(self.values)
                    self.values.append(entry)
        return self.value_position[value]

    def entry(self, value: Expr) -> dict[str, Any]:
        found: dict[str, Any] = {"fn": value.fn}
        for name, hint in _FIELDS.get(value.fn, {}).items():
            found[name] = self.encode(getattr(value, name), hint)
        if value.fn == "const":
            found["value"] = self.encode(value.value, float if value.dtype.is_float else type(value.value))
        return {**found, "args": [self.value_position[arg] for arg in value.args]}

    def read_values(self, at: At) -> None:
        for item in at.items():
            made = self.entry_in(item)
            if made in self.value_position:
                raise item.fault(f"the expression {self.value_position[made]} stands in the table once more")
            self.value_position[made] = len(self.known_values)
            self.known_values.append(made)

    def value_in(self, at: At) -> Expr:
        return self.known_values[at.integer(0, len(self.known_values))]

    def entry_in(self, at: At) -> Expr:
        fn = at.expect(dict).get("fn")
        if not isinstance(fn, str):
            raise at.fault("lacks the field 'fn', a text")
        hints = _FIELDS.get(fn, {})
        given = at.fields("fn", "args", *hints, *(["value"] if fn == "const" else []))
        args = tuple(map(self.value_in, given["args"].items()))
        data = {name: self.decode(given[name], hint) for name, hint in hints.items()}
        if fn == "const":
            data["value"] = _constant_in(given["value"], data["dtype"])
        if "label" in data:
            _identifier(given["label"])
        if "combine" in data and data["combine"] not in REDUCERS:
            raise given["combine"].fault(f"{data['combine']!r} is not one of {', '.join(sorted(REDUCERS))}")
        if fn in _ARGUMENTS and len(args) not in _ARGUMENTS[fn]:
            raise at.fault(f"a {fn} of {len(args)} operands")
        made: Expr = at.guarded(_MAKERS[fn], *args, **data) if fn in _MAKERS else at.guarded(_called, fn, *args)
        if made.fn != fn or made.args != args:
            raise at.fault(f"is not the canonical form of {made.fn}")
        return made


def _called(fn: str, *args: Expr) -> Expr:
    if len({arg.dtype for arg in args}) > 1:
        raise ValueError(f"{fn} of operands of types {', '.join(a.dtype.name for a in args)}")
    return expr.call(fn, *args)


def _selected(condition: Expr, yes: Expr, no: Expr) -> Expr:
    if not condition.dtype.is_bool or yes.dtype != no.dtype:
        raise ValueError(f"selects by {condition.dtype} between {yes.dtype} and {no.dtype}")
    return expr.select(condition, yes, no)


def _loaded(*guard: Expr, param: int, index: Index, dtype: DType) -> Expr:
    if param < 0 or (guard and not guard[0].dtype.is_bool):
        raise ValueError("it loads from no parameter, or its guard is no bool")
    return expr.load(param, index, dtype, *guard)


def _identifier(at: At) -> str:
    name: str = at.expect(str)
    if not (name.isidentifier() and name.isascii()) or name == ELEMENT.name:
        raise at.fault(f"{name!r} is no name")
    return name


def _constant_in(at: At, dtype: DType) -> bool | int | float:
    if dtype.is_bool:
        found: bool = at.expect(bool)
        return found
    if not dtype.is_float:
        return at.integer()
    value: float = Codec().decode(at, float)
    made = expr.const(value, dtype).value
    if Codec().encode(made, float) != at.value:
        raise at.fault(f"{at.value} is no {dtype}")
    return value


# What an expression of each kind keeps beside its operands, as far as its type does not follow from those.
_FIELDS: dict[str, dict[str, Any]] = {
    "const": {"dtype": DType},
    "load": {"param": int, "index": Index, "dtype": DType},
    "index": {"index": Index, "dtype": DType},
    "size": {"extent": Extent, "dtype": DType},
    "in_range": {"index": Index, "low": int, "high": Extent},
    "reduce": {"combine": str, "reduce_axes": tuple[Axis, ...]},
    "let": {"label": str, "dtype": DType, "over": tuple[Axis, ...]},
    "cast": {"dtype": DType},
}
_ARGUMENTS = {
    **dict.fromkeys(("const", "index", "size", "in_range", "let"), (0,)),
    **dict.fromkeys(("reduce", "cast"), (1,)),
    "load": (0, 1),
    "select": (3,),
}
_MAKERS: dict[str, Callable[..., Expr]] = {
    "const": lambda value, dtype: expr.const(value, dtype),
    "load": _loaded,
    "index": lambda index, dtype: expr.index_value(index, dtype),
    "size": lambda extent, dtype: expr.size_value(extent, dtype),
    "in_range": lambda index, low, high: expr.in_range(index, low, high),
    "reduce": lambda body, combine, reduce_axes: expr.reduce(combine, reduce_axes, body),
    "let": lambda label, dtype, over: expr.leaf(label, dtype, over),
    "cast": lambda value, dtype: expr.cast(value, dtype),
    "select": _selected,
}
