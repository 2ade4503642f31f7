"""How element types look in OpenCL C: in memory, in a register, and as explicit vectors.

In a register float16 and bfloat16 are float, and a bool is an int mask: 0 or 1 as a scalar, 0 or -1 in a vector's lanes
(what OpenCL's comparisons give).
"""

from __future__ import annotations

from graphcore.base.dtypes import DType, int32, int64
from graphcore.kernel.ir import Kernel

__all__ = [
    "convert",
    "counter_dtype",
    "counter_type",
    "literal",
    "mask_for",
    "memory_type",
    "register_type",
    "vector_type",
]

_MEMORY = {
    "float16": "half",
    "bfloat16": "ushort",
    "float32": "float",
    "float64": "double",
    "int8": "char",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "uint8": "uchar",
    "uint16": "ushort",
    "uint32": "uint",
    "uint64": "ulong",
    "bool": "uchar",
}
_SIGNED = {1: "char", 2: "short", 4: "int", 8: "long"}


def counter_dtype(kernel: Kernel) -> DType:
    """The type of a kernel's positions, counts and extents."""
    return int64 if kernel.wide else int32


def counter_type(kernel: Kernel) -> str:
    """The same as a C type."""
    return register_type(counter_dtype(kernel))


def memory_type(dtype: DType) -> str:
    """The C type of a stored element."""
    return _MEMORY[dtype.name]


def register_type(dtype: DType) -> str:
    """The C type of a scalar in a register."""
    return "int" if dtype.is_bool else _MEMORY[dtype.compute]


def vector_type(dtype: DType, width: int) -> str:
    """The C type of ``width`` lanes in a register (a scalar for width 1)."""
    return register_type(dtype) + (str(width) if width > 1 else "")


def register_bytes(dtype: DType) -> int:
    """Bytes of one lane in a register."""
    return {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "long": 8, "ulong": 8, "double": 8}.get(
        register_type(dtype), 4
    )


def literal(value: bool | int | float, dtype: DType) -> str:
    """A scalar constant in a register, exact to the last bit."""
    kind = register_type(dtype)
    if dtype.is_bool:
        return "1" if value else "0"
    if dtype.is_float:
        suffix = "" if kind == "double" else "f"
        number = float(value)
        if number != number:
            return "NAN" if suffix else "((double)NAN)"
        if number in (float("inf"), float("-inf")):
            text = "INFINITY" if suffix else "((double)INFINITY)"
            return text if number > 0 else f"(-{text})"
        text = number.hex() if number != int(number) or abs(number) >= 2**24 else f"{int(number)}.0"
        if text == "0.0" and str(number)[0] == "-":
            text = "-0.0"
        return f"({text}{suffix})" if text.startswith("-") else f"{text}{suffix}"
    if kind == "long":
        return f"({value}L)" if value > -(2**63) else "(-9223372036854775807L - 1)"
    if kind == "ulong":
        return f"{value}UL"
    if kind == "uint":
        return f"{value}u"
    if value == -(2**31):
        return "(-2147483647 - 1)"
    return f"({kind})({value})" if kind not in ("int",) else (f"({value})" if value < 0 else str(value))


def mask_for(mask: str, dtype: DType, width: int) -> str:
    """An int mask as the mask that selects between values of ``dtype``: vector lanes must have the same size."""
    size = register_bytes(dtype)
    return mask if width == 1 or size == 4 else f"convert_{_SIGNED[size]}{width}({mask})"


def mask_of(comparison: str, dtype: DType, width: int) -> str:
    """The result of comparing values of ``dtype`` as an int mask."""
    return f"({comparison})" if width == 1 or register_bytes(dtype) == 4 else f"convert_int{width}({comparison})"


def convert(text: str, source: DType, target: DType, width: int) -> str:
    """Conversion between register types. Floats to integers truncate and saturate (NaN gives 0), integers wrap, to bool
    is ``!= 0``."""
    if source.is_bool and target.is_bool:
        return text
    if target.is_bool:
        zero = literal(0, source)
        return mask_of(f"{text} != {zero if width == 1 else f'({vector_type(source, width)})({zero})'}", source, width)
    goal = vector_type(target, width)
    if source.is_bool:
        bit = f"({text} & 1)" if width > 1 else text
        return bit if goal == vector_type(source, width) else f"convert_{goal}({bit})"
    if register_type(source) == register_type(target):
        return text
    if source.is_float and target.is_integer:  # PoCL's conversions of NaN give the lowest value
        zero = literal(0, source) if width == 1 else f"({vector_type(source, width)})({literal(0, source)})"
        return f"convert_{goal}_sat(({text} == {text}) ? {text} : {zero})"
    return f"convert_{goal}({text})"
