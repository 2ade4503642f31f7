"""Primitive operations: one class an op, holding all its facts, and the registry of those classes.

There are six kinds. Passes look at kinds and declared facts, never at lists of op names:

* MAP: every output element is a scalar function of the operands' elements at the same index.
* VIEW: every output element is one input element elsewhere (an index map).
* REDUCE: elements combined over axes by a monoid.
* CONTRACT: products summed over axes (matmul, convolution).
* OPAQUE: anything else that lowers to kernel IR by itself (gather, concatenation, scatter, random bits).
* REGION: an op that owns graphs (checkpoint, custom gradients, control flow).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, FormatError, GradientError, ShapeError
from graphcore.base.shapes import Extent, Shape, format_shape, product
from graphcore.kernel.contraction import ContractionRoles
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis, Index

__all__ = [
    "ANY",
    "BITS",
    "BOOL",
    "FLOAT",
    "INTEGER",
    "REAL",
    "Condition",
    "Contract",
    "Cut",
    "Draw",
    "Effect",
    "Example",
    "Kind",
    "Leaf",
    "Lowering",
    "Map",
    "Mask",
    "Op",
    "Opaque",
    "Precision",
    "Read",
    "Reduce",
    "TensorType",
    "View",
    "lookup",
    "one_type",
    "primitive",
    "registered",
]


class Kind(Enum):
    """What passes need to know about an op's structure."""

    LEAF = "leaf"
    MAP = "map"
    VIEW = "view"
    REDUCE = "reduce"
    CONTRACT = "contract"
    OPAQUE = "opaque"
    REGION = "region"


class Effect(Enum):
    """PURE ops may be merged, cloned and removed; the others keep build order and stay once reachable."""

    PURE = "pure"
    HOST = "host"
    COLLECTIVE = "collective"


class Precision(Enum):
    """Where an op may be computed in a narrower floating type."""

    NARROW = "narrow"  # gains from one: sums of products, accumulated in the compute type
    FOLLOWS = "follows"  # as its operands are
    WIDE = "wide"  # loses too much: long sums, exponentials, powers


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value."""

    shape: Shape
    dtype: DType

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Any:
        """Number of elements (an extent)."""
        return product(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"


@functools.lru_cache(maxsize=4096)
def one_type(shape: Shape, dtype: DType) -> tuple[TensorType]:
    """What ``infer`` of an op with one result returns. Nodes of one type share it, which keeps large graphs small."""
    return (TensorType(shape, dtype),)


FLOAT, INTEGER, BOOL, REAL, BITS, ANY = "f", "iu", "b", "fiu", "iub", "fiub"
_KIND_NAMES = {
    "f": "floating-point",
    "iu": "integer",
    "b": "bool",
    "fiu": "numeric",
    "iub": "integer or bool",
    "fiub": "any",
}

# read(operand, index, guard=None): an operand's element; where the guard is false nothing is read and the value is 0.
Read = Callable[..., Expr]
Example = tuple[Any, ...]
Cut = tuple[Shape, Shape, tuple[int, ...]]  # starts, lengths and steps of a slice


class Condition(NamedTuple):
    """Two extents that an op relies on being equal in every run, or with ``least`` the first on being no smaller.

    ``axis`` is the operand's; ``why`` names the function that needs it, ``against`` describes the other operand.
    """

    axis: int
    have: Extent
    want: Extent
    why: str | None = None
    against: str | None = None
    least: bool = False


@dataclass(frozen=True)
class Lowering:
    """What an op sees while it is lowered: its operands' and results' types, which result is wanted, fresh reduction
    axes."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    output: int
    axis: Callable[[Any, int], Axis | None]


class Mask(NamedTuple):
    """Where a cotangent may differ from zero: where ``condition``, a tensor, has the value ``keeps``.

    Going on from there the cotangent is multiplied by derivatives, and zero times infinity is NaN. So differentiation
    applies the mask again after such products; a ``light`` one only after those with derivatives of ``steep`` ops.
    """

    condition: Any
    keeps: bool = True
    light: bool = False


@dataclass(frozen=True)
class Draw:
    """One random draw, until the graph of a run numbers its draws.

    Attributes:
        scope: the name scopes in which it was built.
        order: how many draws this process had built before: one number a draw, smaller for the earlier of two.
    """

    scope: tuple[str, ...]
    order: int


@dataclass(frozen=True)
class Op:
    """Base of all primitives. Dataclass fields are the attributes; subclasses are frozen dataclasses through
    ``primitive``.

    What follows ``kind`` are facts: what passes, backends and tools ask of an op instead of its name.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    arity: ClassVar[int | None] = 1  # None: any number of operands
    kind: ClassVar[Kind] = Kind.OPAQUE
    effect: ClassVar[Effect] = Effect.PURE
    differentiable: ClassVar[bool] = True
    smooth: ClassVar[bool] = True  # the slope has no jumps where it is finite (no corners, ties, steps)
    steep: ClassVar[bool] = False  # the slope may be infinite at finite operands
    # Where values are: may a reader share, look through, or repeat the op?
    is_alias: ClassVar[bool] = False  # the result has the very bytes of the operand: they may share a buffer
    inverts_index: ClassVar[bool] = False  # a view that can be walked backwards: it defines ``result_index``
    only_repeats: ClassVar[bool] = False  # a view that repeats the operand's elements and leaves none out
    joins: ClassVar[bool] = False  # the operands side by side
    inline: ClassVar[bool] = False  # costs nothing to repeat: readers compute it where they need it
    literal_beyond: ClassVar[int | None] = None  # results of more elements than this need their extents as numbers
    loops: ClassVar[bool] = False  # an OPAQUE op whose element takes a loop of its own
    updates_operand: ClassVar[int | None] = None  # the result is this operand with some elements replaced
    runs_once: ClassVar[bool] = False  # a region whose result is what its body gives, run exactly once
    # What is computed: which operands may be swapped, split or left out, and at what price?
    commutative: ClassVar[bool] = False  # two operands may be swapped
    identity: ClassVar[float | None] = None  # the operand that changes nothing
    retypes: ClassVar[bool] = False  # the value of its operand, perhaps in another type
    cheap: ClassVar[bool] = True  # an elementwise function that takes a few instructions
    precision: ClassVar[Precision] = Precision.FOLLOWS
    _attribute_names: ClassVar[tuple[str, ...]] = ()
    cosmetic: ClassVar[frozenset[str]] = frozenset({"label", "place"})  # attributes that no result depends on

    @property
    def given_name(self) -> str | None:
        """The user's name for the value, where it has one."""
        return None

    def cut(self) -> Cut | None:
        """The slice of the operand that the result is, where it is one."""
        return None

    def linear_in(self, count: int) -> tuple[int, ...]:
        """Of ``count`` operands those that the result is linear in, all of them together and the others fixed.

        MAP ops need not say so: their derivative is a product. CONTRACT ops are linear in each operand besides.
        """
        return ()

    def contraction_roles(self, *inputs: TensorType) -> ContractionRoles | None:
        """What a CONTRACT op sums over what."""
        return None

    def literal_extents(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Extent, ...]:
        """Extents that its lowering needs as numbers, wherever its operands and results are."""
        return ()

    def conditions(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Condition, ...]:
        """What it relies on that only the feeds decide."""
        return ()

    def masks(self, call: Any) -> tuple[Mask | None, ...]:
        """For every operand where it may get a gradient at all; None for everywhere that the result gets one."""
        return (None,) * len(call.inputs)

    def commutes(self, operands: DType) -> bool:
        """Whether swapping two operands of a type gives the same bits.

        A maximum of 0 and -0 gives one of the two, and which one depends on the order. Such selections are the
        commutative ops without an identity element whose results are floats.
        """
        return self.commutative and (self.identity is not None or not operands.is_float)

    @property
    def draw(self) -> Draw | None:
        """The random draw that this op makes, where no graph has numbered it yet."""
        return None

    def numbered(self, stream: int) -> Op:
        """The op that makes this ``draw`` from a stream of random numbers."""
        raise NotImplementedError(self.name)  # pragma: no cover - every op with a draw overrides it

    @classmethod
    def migrate(cls, version: int, attributes: dict[str, Any]) -> dict[str, Any]:
        """The attributes, as JSON values, of this version from those that an older one wrote.

        Raises:
            FormatError: there is no way from that version.
        """
        raise FormatError(f"version {version} of {cls.name} cannot be read; this one is {cls.version}")

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The results' types.

        Raises:
            ShapeError, DTypeError: the operands do not fit.
        """
        raise NotImplementedError(self.name)  # pragma: no cover - every registered op overrides it; a test checks

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        """The value of one element of result ``call.output`` at ``index``."""
        raise NotImplementedError(self.name)  # pragma: no cover - every lowered op overrides it; a test checks

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """Cotangents of the operands from those of the results; None where there is none (a zero)."""
        raise GradientError(f"{self.name} has no gradient")

    def reference(self, *inputs: Any) -> Any:
        """The results by NumPy."""
        raise NotImplementedError(self.name)  # pragma: no cover - every registered op overrides it; a test checks

    def examples(self) -> Iterator[Example]:
        """``(op, operand arrays...)`` tuples for the registry-driven tests."""
        return iter(())

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{k}={v!r}' for k, v in self.attributes().items())})"

    @classmethod
    def attribute_names(cls) -> tuple[str, ...]:
        """The fields, without the facts that the class declares for all its ops."""
        if "_attribute_names" not in vars(cls):
            cls._attribute_names = tuple(f.name for f in fields(cls))
        return cls._attribute_names

    def attributes(self) -> dict[str, Any]:
        """Names and values of the attributes that show, in order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.repr}

    def check(self, position: int, given: TensorType, kinds: str) -> None:
        """Raise DTypeError unless an operand's dtype is of one of the kinds."""
        if given.dtype.kind not in kinds:
            hint = "; cast it with .astype('float32')" if kinds == FLOAT else ""
            raise DTypeError(
                f"{self.name}: operand {position + 1} has dtype {given.dtype}, but {self.name} takes "
                f"{_KIND_NAMES.get(kinds, kinds)} types{hint}"
            )


class Leaf(Op):
    """A value that no op computes: placeholder, variable, constant, parameter of a region."""

    kind = Kind.LEAF
    arity = 0


class Map(Op):
    """One scalar function, elementwise; operands have equal shapes (the front end broadcasts) and equal dtypes."""

    kind = Kind.MAP
    operands: ClassVar[str] = ANY
    result: ClassVar[DType | None] = None  # None: the operands' dtype

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        first = inputs[0]
        for position, given in enumerate(inputs):
            self.check(position, given, self.operands)
            if given.dtype != first.dtype:
                raise DTypeError(
                    f"{self.name}: operands have dtypes {first.dtype} and {given.dtype}; cast one with .astype(...)"
                )
            if given.shape != first.shape:
                raise ShapeError(
                    f"{self.name}: operands have shapes {format_shape(first.shape)} and {format_shape(given.shape)}"
                )
        return one_type(first.shape, self.result or first.dtype)

    def commutes(self, operands: DType) -> bool:
        return super().commutes(operands) or (self.commutative and self.result is not None)

    def scalar(self, *args: Expr) -> Expr:
        """The scalar function."""
        raise NotImplementedError(self.name)  # pragma: no cover - every map overrides it; a test checks

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        return self.scalar(*(read(i, index) for i in range(len(call.inputs))))


class View(Op):
    """An index map of one operand."""

    kind = Kind.VIEW
    inline: ClassVar[bool] = True

    def cut(self) -> Cut | None:
        """The slice of the operand that the result is, where it is one."""
        return None

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        """The operand's index for an output index."""
        raise NotImplementedError(self.name)  # pragma: no cover - every view overrides it; a test checks

    def result_index(self, source: Shape, index: tuple[Index, ...]) -> tuple[Index, ...]:
        """The result's index for an index of the operand, which has the shape ``source``; for ``inverts_index``."""
        raise NotImplementedError(self.name)  # pragma: no cover - a test checks all that invert

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        return read(0, self.source_index(call, index))


class Reduce(Op):
    """A monoid over axes. ``combine`` names it (see ``kernel.expr.REDUCERS``)."""

    kind = Kind.REDUCE
    combine: ClassVar[str] = "add"


class Contract(Op):
    """A sum of products. Lowers to an ``add`` reduction of a product of two reads."""

    kind = Kind.CONTRACT
    arity = 2
    precision: ClassVar[Precision] = Precision.NARROW


class Opaque(Op):
    """An op with a lowering of its own."""

    kind = Kind.OPAQUE


_REGISTRY: dict[str, type[Op]] = {}
_INSTANCES: dict[type, Any] = {}


def _only_instance(cls: type[Op]) -> Op:
    """``__new__`` of ops without attributes: all nodes of one share it."""
    found: Op | None = _INSTANCES.get(cls)
    if found is None:
        found = _INSTANCES[cls] = object.__new__(cls)
    return found


_T = TypeVar("_T", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def primitive(cls: _T) -> _T:
    """Make a class a frozen dataclass and register it under its snake-case name (or its ``name``).

    Raises:
        ValueError: another module has registered the name, or an attribute has the name of a fact.
    """
    own_eq = "__eq__" in cls.__dict__  # leaves with an identity of their own keep it
    # Making a dataclass compiles six functions; an op without attributes of its own inherits all it needs.
    plain = not own_eq and all("ClassVar" in str(a) for a in inspect.get_annotations(cls).values())
    result: Any = cls if plain else dataclass(frozen=True, eq=not own_eq, repr=False)(cls)
    if not own_eq and not fields(result) and "__new__" not in cls.__dict__:
        result.__new__ = staticmethod(_only_instance)
    hiding = [f.name for f in fields(result) if hasattr(Op, f.name)]
    if hiding:
        raise ValueError(f"{cls.__name__}: the attributes {', '.join(hiding)} hide what ops are asked by these names")
    if not cls.__dict__.get("name"):
        words = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__)
        result.name = words.lstrip("_")
    if result.name in _REGISTRY and _REGISTRY[result.name].__module__ != result.__module__:
        raise ValueError(f"an op named {result.name!r} is already registered by {_REGISTRY[result.name].__module__}")
    _REGISTRY[result.name] = result
    return result  # type: ignore[no-any-return]


def lookup(name: str) -> Any:
    """The registered op class of a name."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise AttributeError(f"no op named {name!r} is registered") from None


def registered() -> dict[str, type[Op]]:
    """All registered ops by name."""
    return dict(_REGISTRY)
