"""Scalar functions that have a body, as C functions: one for each type and width that a source calls."""

from __future__ import annotations

from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.language import Language
from graphcore.base import dtypes
from graphcore.kernel import functions
from graphcore.kernel.expr import ELEMENT
from graphcore.kernel.ir import Kernel

__all__ = ["body_text", "has_body"]

_TYPES = {"float": dtypes.float32, "double": dtypes.float64, "char": dtypes.int8, "short": dtypes.int16}
_TYPES |= {"int": dtypes.int32, "long": dtypes.int64, "uchar": dtypes.uint8, "ushort": dtypes.uint16}
_TYPES |= {"uint": dtypes.uint32, "ulong": dtypes.uint64, "bool": dtypes.bool_}


def has_body(name: str) -> bool:
    """Whether a function of the table has a body; others are built in, or no functions of the table."""
    found = functions.registered().get(name)
    return found is not None and found.body is not None


def body_text(name: str, kind: str, width: int, language: Language) -> str:
    """The C function ``gc_<name>_<kind><width>`` over register values.

    Args:
        name: a function that has a body.
        kind: the operands' type in a register, ``bool`` for masks.
        width: lanes.
        language: what the body calls built-ins of.
    """
    dtype = _TYPES[kind]
    arguments, value = functions.expanded(name, dtype)
    known = {argument: f"x{argument.position}" for argument in arguments}
    emitter = Emitter(Kernel(name, (), (ELEMENT,), ()), DeviceModel(language, "", width), values=known)
    with emitter.lanes(ELEMENT, "0", width):
        result = emitter.vector(value, width)
    parameters = ", ".join(f"{language.vector_type(dtype, width)} x{i}" for i in range(len(arguments)))
    suffix = str(width) if width > 1 else ""
    lines = [*emitter.lines, f"return {result};"]
    body = "".join(f"    {line}\n" for line in lines)
    result_type = language.vector_type(value.dtype, width)
    return f"static inline {result_type} gc_{name}_{kind}{suffix}({parameters}) {{\n{body}}}\n"
