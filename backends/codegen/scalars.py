"""The text of single operations on register values: functions, conversions of width, reads, writes, identities of
monoids."""

from __future__ import annotations

import math

from backends.codegen import mathlib
from backends.codegen.cnames import literal, mask_of, memory_type, register_type, vector_type
from graphcore.base.dtypes import DType, bfloat16, float16
from graphcore.kernel.expr import Expr

__all__ = ["HEX", "apply", "bounded", "identity", "iota", "load_text", "spread", "store_text"]

HEX = "0123456789abcdef"


def iota(width: int, kind: str = "int") -> str:
    return f"({kind}{width})({', '.join(map(str, range(width)))})"


def spread(text: str, dtype: DType, have: int, want: int) -> str:
    """A scalar as a vector of equal lanes (a bool's 1 becomes -1)."""
    if have == want or want == 1:
        return text
    return f"({vector_type(dtype, want)})({'-(' + text + ')' if dtype.is_bool else text})"


def load_text(pointer: str, index: str, dtype: DType, width: int) -> str:
    """A read of ``width`` neighbouring elements into register form."""
    suffix = str(width) if width > 1 else ""
    if dtype == float16:
        return f"vload_half{suffix}(0, {pointer} + {index})"
    # Through an under-aligned vector type: PoCL's vloadN costs three times as much.
    raw = (
        f"*(__global const gcu_{memory_type(dtype)}{width}*)({pointer} + {index})"
        if width > 1
        else f"{pointer}[{index}]"
    )
    if dtype == bfloat16:
        return f"as_float{suffix}(convert_uint{suffix}({raw}) << 16)"
    if dtype.is_bool:
        return f"(convert_int{suffix}({raw}) != 0)" if width > 1 else f"({raw} != 0)"
    return raw


def store_text(pointer: str, index: str, value: str, dtype: DType, width: int) -> str:
    """A write of ``width`` neighbouring elements from register form; half values are rounded already."""
    suffix = str(width) if width > 1 else ""
    if dtype == float16:
        return f"vstore_half{suffix}({value}, 0, {pointer} + {index});"
    if dtype == bfloat16:
        value = f"convert_ushort{suffix}(as_uint{suffix}({value}) >> 16)"
    elif dtype.is_bool:
        value = f"convert_uchar{width}({value} & 1)" if width > 1 else f"(uchar)({value})"
    return (
        f"*(__global gcu_{memory_type(dtype)}{width}*)({pointer} + {index}) = {value};"
        if width > 1
        else f"{pointer}[{index}] = {value};"
    )


def identity(combine: str, dtype: DType) -> bool | int | float:
    """The value that changes nothing when combined."""
    if combine in ("add", "or"):
        return 0
    if combine in ("mul", "and"):
        return 1
    lowest = combine in ("max", "argmax")
    if dtype.is_float:
        return float("-inf") if lowest else float("inf")
    if dtype.is_bool:
        return not lowest
    bits = int(dtype.itemsize) * 8
    if dtype.is_unsigned:
        return 0 if lowest else 2**bits - 1
    return int(-(2 ** (bits - 1)) if lowest else 2 ** (bits - 1) - 1)


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


def _infix(fn: str, args: list[str], dtype: DType, width: int) -> str:
    """An operator. Signed integers wrap around, which C leaves undefined and compilers make use of."""
    sign, scalar = _INFIX[fn], width == 1
    if fn not in ("add", "sub", "mul") or not dtype.is_integer or (scalar and dtype.itemsize < 4 and fn != "mul"):
        return f"({args[0]} {sign} {args[1]})"
    kind = vector_type(dtype, width)
    if scalar and dtype.itemsize < 4:  # promoted to int, which the product of two ushort may not fit
        return f"(({kind})((uint){args[0]} {sign} (uint){args[1]}))"
    if dtype.is_unsigned:
        return f"({args[0]} {sign} {args[1]})"
    return f"as_{kind}(as_u{kind}({args[0]}) {sign} as_u{kind}({args[1]}))"


def bounded(e: Expr, args: list[str]) -> tuple[str, list[str]]:
    """The function and the operands of an expression; an extreme with a constant is simpler, where ties are its own."""
    if e.fn in ("max", "min") and e.dtype.is_float:
        for i, bound in enumerate(e.args):
            if bound.fn == "const" and (bound.value != 0 or (math.copysign(1, bound.value) > 0) == (e.fn == "max")):
                return {"max": "atleast", "min": "atmost"}[e.fn], [args[1 - i], args[i]]
    return e.fn, args


def apply(vendor: str, fn: str, args: list[str], dtype: DType, width: int) -> str:
    """A scalar function of register values as C; ``dtype`` is the operands' type."""
    if fn in _INFIX:
        return _infix(fn, args, dtype, width)
    if fn in _COMPARE:
        if dtype.is_bool and width > 1:
            args = [f"({a} & 1)" for a in args]
        return mask_of(f"{args[0]} {_COMPARE[fn]} {args[1]}", dtype, width)
    if fn == "not":
        return f"(~{args[0]})" if width > 1 else f"(!{args[0]})"
    if fn == "neg":
        zero = spread(literal(0, dtype), dtype, 1, width)
        return _infix("sub", [zero, args[0]], dtype, width) if dtype.is_signed else f"(-{args[0]})"
    if dtype.is_float and fn in mathlib.FUNCTIONS:
        name = mathlib.call(fn, vendor, "double" if register_type(dtype) == "double" else "float", width)
        return f"{name}({', '.join(args)})"
    kind = "bool" if dtype.is_bool else register_type(dtype)
    return f"gc_{fn}_{kind}{width if width > 1 else ''}({', '.join(args)})"
