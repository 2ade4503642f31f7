"""What a language of generated code spells: pointers, vectors, loads, stores, conversions, masks, barriers, built-ins.

Emitters own the structure of the text: loops, blocks, names, scalar arithmetic, calls. All of that is the C that OpenCL
C, CUDA C and GCC's and Clang's C have in common, with operators that also take vectors. Whatever these languages spell
differently is a method here. A scalar in a register has a *kind* (``cnames``): the names ``float``, ``double``,
``char``, ``uchar``, ``short``, ``ushort``, ``int``, ``uint``, ``long`` and ``ulong``, with 32 bits in an ``int`` and 64
in a ``long``, which a header must define where the language does not. A mask is an int: 0 or 1 as a scalar, 0 or -1 in
the lanes of a vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from backends.codegen.cnames import KIND_BYTES, SIGNED, memory_type, register_bytes, register_type
from graphcore.base.dtypes import DType, bfloat16, float16

__all__ = ["Language", "Quirks", "Space"]


class Space(Enum):
    """Where what a pointer points to is kept: in the device's memory, a work-group's, or a work item's own."""

    GLOBAL = "global"
    LOCAL = "local"
    PRIVATE = "private"


@dataclass(frozen=True)
class Quirks:
    """What a runtime's compiler or library does otherwise than one would wish.

    Attributes:
        calls_fma: ``fma`` is a call that is not inlined, which costs a factor of eight.
        calls_any: so may be the built-ins that fold a mask.
        vectorizes_sums: the compiler makes vectors of a scalar sum, which changes its order, unless it is told not to.
        inexact_fmod: ``fmod`` is wrong, or does not end, for some operands.
        merges_sincos: the compiler dies of the sine and the cosine of the same values in one kernel.
        short_vectors_differ: functions of less than 16 bytes differ from those of longer vectors in the last place.
        own_pow: ``pow`` of doubles is wrong where lanes differ, and of floats slow.
        lanes_spoil_sines: ``sin``, ``cos`` and ``tan`` of floats are wrong as soon as one lane is large.
        tanh_below_one: ``tanh`` of floats is never 1.
        unrolls_at_length: of the time that the compiler takes, much is for unrolling loops of CPUs' functions, which
            are written with their vectors and copies already.
    """

    calls_fma: bool = False
    calls_any: bool = False
    vectorizes_sums: bool = False
    inexact_fmod: bool = False
    merges_sincos: bool = False
    short_vectors_differ: bool = False
    own_pow: bool = False
    lanes_spoil_sines: bool = False
    tanh_below_one: bool = False
    unrolls_at_length: bool = False


_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "bit_and": "&",
    "bit_or": "|",
    "bit_xor": "^",
    "and": "&",
    "or": "|",
    "xor": "^",
}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class Language(ABC):
    """Spells values and memory.

    In signatures ``kind`` is a scalar's, ``width`` the lanes (1: a scalar), a ``place`` the text of an address, and
    ``text`` that of a value, which a method may repeat only where its documentation says so.

    Attributes:
        quirks: of the runtime that compiles the text.
        header: the start of every source; it defines ``GC_NOINLINE``, ``min`` and ``max`` of ints, ``NAN`` and
            ``INFINITY`` where the language does not.
        contract: a line at the start of a block in which products and sums may be one operation.
        always_inline: an attribute before a function.
    """

    quirks: Quirks
    header: str
    contract: str
    always_inline = "__attribute__((always_inline))"

    # Types

    def vector(self, kind: str, width: int) -> str:
        """The type of ``width`` lanes."""
        return f"{kind}{width}" if width > 1 else kind

    def vector_type(self, dtype: DType, width: int) -> str:
        """The type of ``width`` lanes of a dtype in registers."""
        return self.vector(register_type(dtype), width)

    @abstractmethod
    def pointer(self, kind: str, space: Space = Space.GLOBAL, const: bool = False) -> str:
        """The type of a pointer to elements."""

    @abstractmethod
    def private(self, declaration: str) -> str:
        """The declaration of a variable or an array of a work item's own."""

    def loose_type(self, kind: str, width: int, name: str) -> str:
        """A definition of ``name`` as the vector with an element's alignment."""
        return f"typedef {self.vector(kind, width)} {name} __attribute__((aligned({KIND_BYTES[kind]})));"

    @abstractmethod
    def deref(self, loose: str, place: str, space: Space = Space.GLOBAL, const: bool = False) -> str:
        """The vector of a loose type at a place, to be read or assigned to."""

    # Vectors

    @abstractmethod
    def splat(self, text: str, kind: str, width: int) -> str:
        """A scalar in all lanes."""

    @abstractmethod
    def lanes(self, texts: Sequence[str], kind: str) -> str:
        """A vector of scalars."""

    @abstractmethod
    def lane(self, text: str, number: int) -> str:
        """One lane of a vector, also to be assigned to."""

    @abstractmethod
    def halves(self, text: str, kind: str, width: int) -> tuple[str, str]:
        """The lower and the upper half of ``width`` lanes."""

    @abstractmethod
    def reversed(self, text: str, kind: str, width: int) -> str:
        """The lanes in the other order."""

    @abstractmethod
    def interlaced(self, even: str, odd: str, kind: str, width: int, last: bool = False) -> str:
        """The even lanes of a vector, then those of another one (with ``last`` its odd lanes)."""

    @abstractmethod
    def interleave(self, name: str, first: str, second: str, high: bool, kind: str, width: int) -> str:
        """The statement that declares a vector of the lower (or higher) halves of two names' lanes in turn."""

    @abstractmethod
    def zero(self, kind: str, width: int) -> str:
        """What a vector's declaration is initialised with to be zero."""

    def iota(self, width: int, kind: str = "int") -> str:
        """0, 1, 2, ... in the lanes."""
        return self.lanes([*map(str, range(width))], kind)

    def spread(self, text: str, dtype: DType, have: int, want: int) -> str:
        """A scalar as a vector of equal lanes (a bool's 1 becomes -1)."""
        if have == want or want == 1:
            return text
        return self.splat(f"-({text})" if dtype.is_bool else text, register_type(dtype), want)

    # Values

    @abstractmethod
    def select(self, mask: str, yes: str, no: str, kind: str, width: int) -> str:
        """One of two values by a mask of lanes of their size."""

    @abstractmethod
    def as_kind(self, text: str, source: str, kind: str, width: int) -> str:
        """The bits of a value as a value of another kind of the same size."""

    @abstractmethod
    def to_kind(self, text: str, source: str, kind: str, width: int) -> str:
        """A value converted, as C's casts do; integers wrap around."""

    @abstractmethod
    def to_integer(self, text: str, source: str, zero: str, kind: str, width: int) -> str:
        """A float as an integer: truncated, saturated, ``zero`` (of floats) for NaN. The text is repeated."""

    @abstractmethod
    def folded(self, mask: str, every: bool, kind: str, width: int) -> str:
        """Whether any lane of a mask, whose lanes are of a kind, is set, or all are."""

    @abstractmethod
    def function(self, fn: str, kind: str, width: int) -> str:
        """The name of what computes a function of ``mathlib.FUNCTIONS``, or ``fmod``, for float or double."""

    @abstractmethod
    def definition(self, fn: str, kind: str, suffix: str) -> str | None:
        """The helper ``gc_<fn>_<kind><suffix>``, where the suffix is the width or empty, or None for none."""

    @abstractmethod
    def rounding(self, dtype: str, suffix: str) -> str:
        """The helper ``gc_round_<dtype><suffix>``: floats rounded to what a half type keeps, to nearest even."""

    @abstractmethod
    def multiply_add(self, total: str, a: str, b: str, kind: str, width: int) -> str:
        """The statement that adds a product to a sum, in one operation where that is fast."""

    # Memory

    @abstractmethod
    def load_half(self, place: str, width: int) -> str:
        """Half-precision elements as floats."""

    @abstractmethod
    def store_half(self, value: str, place: str, width: int) -> str:
        """Floats as half-precision elements."""

    @abstractmethod
    def take(self, place: str, kind: str, width: int) -> str:
        """A vector read from a private array."""

    @abstractmethod
    def put(self, value: str, place: str, kind: str, width: int) -> str:
        """A vector written to a private array."""

    # Work-groups

    @abstractmethod
    def local_id(self) -> str:
        """The number of this work item in its group, an int."""

    @abstractmethod
    def barrier(self) -> str:
        """The statement that waits for the group, whose local memory is the same for all afterwards."""

    @property
    @abstractmethod
    def in_order(self) -> str:
        """What stands before a loop whose sums must be added up in their order."""

    @abstractmethod
    def unrolled(self, loop: str, times: int | None = None) -> str:
        """A loop's header with a wish to unroll it, wholly or so many times."""

    @abstractmethod
    def rolled(self, loop: str) -> str:
        """A loop's header with a wish not to unroll it, however short it is."""

    @property
    def all_rolled(self) -> str:
        """What stands at the start of a source none of whose loops shall be unrolled; nothing where that is no use."""
        return ""

    # What is made of these, for dtypes

    def literal(self, value: bool | int | float, dtype: DType) -> str:
        """A scalar constant in a register, exact to the last bit."""
        kind = register_type(dtype)
        if dtype.is_bool:
            return "1" if value else "0"
        if dtype.is_float:
            return _float_literal(float(value), kind)
        if kind == "long":
            return f"({value}L)" if value > -(2**63) else "(-9223372036854775807L - 1)"
        if kind == "ulong":
            return f"{value}UL"
        if kind == "uint":
            return f"{value}u"
        if value == -(2**31):
            return "(-2147483647 - 1)"
        return f"({kind})({value})" if kind not in ("int",) else (f"({value})" if value < 0 else str(value))

    def mask_for(self, mask: str, dtype: DType, width: int) -> str:
        """An int mask as the mask that selects between values of ``dtype``: vector lanes must have the same size."""
        size = register_bytes(dtype)
        return mask if width == 1 or size == 4 else self.to_kind(mask, "int", SIGNED[size], width)

    def mask_of(self, comparison: str, dtype: DType, width: int) -> str:
        """The result of comparing values of ``dtype`` as an int mask."""
        size = register_bytes(dtype)
        if width == 1 or size == 4:
            return f"({comparison})"
        return self.to_kind(comparison, SIGNED[size], "int", width)

    def convert(self, text: str, source: DType, target: DType, width: int) -> str:
        """Conversion between register types. Floats to integers truncate and saturate (NaN gives 0), integers wrap, to
        bool is ``!= 0``."""
        if source.is_bool and target.is_bool:
            return text
        kind, goal = register_type(source), register_type(target)
        zero = self.literal(0, source)
        if target.is_bool:
            return self.mask_of(f"{text} != {zero if width == 1 else self.splat(zero, kind, width)}", source, width)
        if source.is_bool:
            bit = f"({text} & 1)" if width > 1 else text
            return bit if goal == kind else self.to_kind(bit, kind, goal, width)
        if kind == goal:
            return text
        if source.is_float and target.is_integer:
            return self.to_integer(text, kind, zero if width == 1 else self.splat(zero, kind, width), goal, width)
        return self.to_kind(text, kind, goal, width)

    def load(self, pointer: str, index: str, dtype: DType, width: int) -> str:
        """A read of ``width`` neighbouring elements into register form."""
        kind = memory_type(dtype)
        if dtype == float16:
            return self.load_half(f"{pointer} + {index}", width)
        # Through an under-aligned vector type: PoCL's vloadN costs three times as much.
        raw = (
            self.deref(f"gcu_{kind}{width}", f"{pointer} + {index}", const=True) if width > 1 else f"{pointer}[{index}]"
        )
        if dtype == bfloat16:
            return self.as_kind(f"{self.to_kind(raw, kind, 'uint', width)} << 16", "uint", "float", width)
        if dtype.is_bool:
            return f"({self.to_kind(raw, kind, 'int', width) if width > 1 else raw} != 0)"
        return raw

    def store(self, pointer: str, index: str, value: str, dtype: DType, width: int) -> str:
        """A write of ``width`` neighbouring elements from register form; half values are rounded already."""
        kind = memory_type(dtype)
        if dtype == float16:
            return self.store_half(value, f"{pointer} + {index}", width)
        if dtype == bfloat16:
            value = self.to_kind(f"{self.as_kind(value, 'float', 'uint', width)} >> 16", "uint", kind, width)
        elif dtype.is_bool:
            value = self.to_kind(f"{value} & 1", "int", kind, width) if width > 1 else f"({kind})({value})"
        if width > 1:
            return f"{self.deref(f'gcu_{kind}{width}', f'{pointer} + {index}')} = {value};"
        return f"{pointer}[{index}] = {value};"

    def apply(self, fn: str, args: list[str], dtype: DType, width: int) -> str:
        """A scalar function of register values; ``dtype`` is the operands' type."""
        kind = register_type(dtype)
        if fn in _INFIX:
            return self._infix(fn, args, dtype, width)
        if fn in _COMPARE:
            if dtype.is_bool and width > 1:
                args = [f"({a} & 1)" for a in args]
            return self.mask_of(f"{args[0]} {_COMPARE[fn]} {args[1]}", dtype, width)
        if fn == "not":
            return f"(~{args[0]})" if width > 1 else f"(!{args[0]})"
        if fn == "neg":
            zero = self.spread(self.literal(0, dtype), dtype, 1, width)
            return self._infix("sub", [zero, args[0]], dtype, width) if dtype.is_signed else f"(-{args[0]})"
        if dtype.is_float and self.has_function(fn):
            return f"{self.function(fn, kind, width)}({', '.join(args)})"
        return f"gc_{fn}_{self.vector('bool' if dtype.is_bool else kind, width)}({', '.join(args)})"

    @abstractmethod
    def has_function(self, fn: str) -> bool:
        """Whether ``function`` names what computes a function of floats; else it is a helper of arithmetic."""

    def _infix(self, fn: str, args: list[str], dtype: DType, width: int) -> str:
        """An operator. Signed integers wrap around, which C leaves undefined and compilers make use of."""
        sign, scalar = _INFIX[fn], width == 1
        if fn not in ("add", "sub", "mul") or not dtype.is_integer or (scalar and dtype.itemsize < 4 and fn != "mul"):
            return f"({args[0]} {sign} {args[1]})"
        kind = register_type(dtype)
        if scalar and dtype.itemsize < 4:  # promoted to int, which the product of two ushort may not fit
            return f"(({kind})((uint){args[0]} {sign} (uint){args[1]}))"
        if dtype.is_unsigned:
            return f"({args[0]} {sign} {args[1]})"
        left, right = (self.as_kind(a, kind, f"u{kind}", width) for a in args)
        return self.as_kind(f"{left} {sign} {right}", f"u{kind}", kind, width)


def _float_literal(number: float, kind: str) -> str:
    suffix = "" if kind == "double" else "f"
    if number != number:
        return "NAN" if suffix else "((double)NAN)"
    if number in (float("inf"), float("-inf")):
        text = "INFINITY" if suffix else "((double)INFINITY)"
        return text if number > 0 else f"(-{text})"
    text = number.hex() if number != int(number) or abs(number) >= 2**24 else f"{int(number)}.0"
    if text == "0.0" and str(number)[0] == "-":
        text = "-0.0"
    return f"({text}{suffix})" if text.startswith("-") else f"{text}{suffix}"
