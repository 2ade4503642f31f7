"""The kinds of numbers in generated code: what an element is in memory, and in a register.

In a register float16 and bfloat16 are float, and a bool is an int mask: 0 or 1 as a scalar, 0 or -1 in a vector's
lanes.
"""

from __future__ import annotations

from graphcore.base.dtypes import DType, int32, int64
from graphcore.kernel.ir import Kernel

__all__ = [
    "KIND_BYTES",
    "SIGNED",
    "counter_dtype",
    "counter_type",
    "memory_type",
    "register_bytes",
    "register_type",
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
SIGNED = {1: "char", 2: "short", 4: "int", 8: "long"}
# Bytes of a register, by kind: helpers for bools take masks.
KIND_BYTES = {
    "float": 4,
    "double": 8,
    "char": 1,
    "uchar": 1,
    "short": 2,
    "ushort": 2,
    "int": 4,
    "uint": 4,
    "long": 8,
    "ulong": 8,
    "bool": 4,
}


def counter_dtype(kernel: Kernel) -> DType:
    """The type of a kernel's positions, counts and extents."""
    return int64 if kernel.wide else int32


def counter_type(kernel: Kernel) -> str:
    """The same as a C type."""
    return register_type(counter_dtype(kernel))


def memory_type(dtype: DType) -> str:
    """The kind of a stored element."""
    return _MEMORY[dtype.name]


def register_type(dtype: DType) -> str:
    """The kind of a scalar in a register."""
    return "int" if dtype.is_bool else _MEMORY[dtype.compute]


def register_bytes(dtype: DType) -> int:
    """Bytes of one lane in a register."""
    return KIND_BYTES[register_type(dtype)]
