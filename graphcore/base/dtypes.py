"""Element types: how a value is stored, in what it is computed, and how types promote.

Promotion follows the Python array API standard, extended by bfloat16 and by the mixed cases that the standard leaves
open (integer with float gives the float; bfloat16 with float16 gives float32). Python scalars are weak: they take the
tensor's type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from graphcore.base.errors import DTypeError
from graphcore.base.shapes import Extent

__all__ = [
    "ALL",
    "DType",
    "as_dtype",
    "bfloat16",
    "bool_",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "position_dtype",
    "promote",
    "result_type",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]


@dataclass(frozen=True)
class DType:
    """An element type.

    Attributes:
        name: its public name, e.g. ``"float32"``.
        kind: ``"f"`` real floating, ``"i"`` signed, ``"u"`` unsigned, ``"b"`` boolean.
        itemsize: bytes of one stored element.
        compute: the name of the type that arithmetic runs in (float16 and bfloat16 are stored, and computed in
            float32).
    """

    name: str
    kind: str
    itemsize: int
    compute: str

    @property
    def storage(self) -> np.dtype[Any]:
        """The NumPy type of a stored element."""
        return np.dtype(ml_dtypes.bfloat16 if self == bfloat16 else self.name)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.is_signed or self.is_unsigned

    @property
    def is_signed(self) -> bool:
        """Whether it is a signed integer."""
        return self.kind == "i"

    @property
    def is_unsigned(self) -> bool:
        """Whether it is an unsigned integer."""
        return self.kind == "u"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def rounds(self) -> bool:
        """Whether a computed value must be rounded to be stored (it is computed in a wider type)."""
        return self.compute != self.name

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        """Equal to the same type, also when that is given as a string or a NumPy type."""
        if isinstance(other, DType):
            return self is other or self.name == other.name
        if isinstance(other, (str, np.dtype, type)):
            try:
                return self.name == as_dtype(other).name
            except DTypeError:
                return False
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)


float16 = DType("float16", "f", 2, "float32")
bfloat16 = DType("bfloat16", "f", 2, "float32")
float32 = DType("float32", "f", 4, "float32")
float64 = DType("float64", "f", 8, "float64")
int8 = DType("int8", "i", 1, "int8")
int16 = DType("int16", "i", 2, "int16")
int32 = DType("int32", "i", 4, "int32")
int64 = DType("int64", "i", 8, "int64")
uint8 = DType("uint8", "u", 1, "uint8")
uint16 = DType("uint16", "u", 2, "uint16")
uint32 = DType("uint32", "u", 4, "uint32")
uint64 = DType("uint64", "u", 8, "uint64")
bool_ = DType("bool", "b", 1, "bool")

ALL: tuple[DType, ...] = (
    float16,
    bfloat16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
    bool_,
)
_BY_NAME = {d.name: d for d in ALL}
_ALIASES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "int": "int64",
    "long": "int64",
    "bool_": "bool",
}


def position_dtype(*extents: Extent) -> DType:
    """The type of positions below some extents: int32 where it holds them, int64 where one is larger or symbolic.

    Args:
        extents: one past the largest magnitude that computing with the positions meets.

    >>> position_dtype(3, 2**31 - 1), position_dtype(2**31)
    (int32, int64)
    """
    return int32 if all(isinstance(e, int) and e < 2**31 for e in extents) else int64


def as_dtype(value: Any) -> DType:
    """The ``DType`` that a name, NumPy type, Python type or ``DType`` means.

    Python's ``float`` means float32 (the default float), ``int`` int64 and ``bool`` bool.

    Raises:
        DTypeError: no such type.
    """
    if isinstance(value, DType):
        return value
    if value is float:
        return float32
    if value is int:
        return int64
    if value is bool:
        return bool_
    if isinstance(value, str):
        name = _ALIASES.get(value, value)
    else:
        try:
            name = "None" if value is None else np.dtype(value).name  # to NumPy, None is float64
        except TypeError:
            name = repr(value)
    found = _BY_NAME.get(name)
    if found is None:
        raise DTypeError(f"{value!r} is not a dtype of graphcore; use one of {', '.join(_BY_NAME)}")
    return found


def promote(a: DType, b: DType) -> DType:
    """The type that two tensors' types promote to (symmetric)."""
    if a == b:
        return a
    if a.is_bool or b.is_bool:
        return b if a.is_bool else a
    if a.is_float and b.is_float:
        if {a.name, b.name} == {"float16", "bfloat16"}:
            return float32
        return a if a.itemsize > b.itemsize else b
    if a.is_float or b.is_float:
        return a if a.is_float else b
    if a.kind == b.kind:
        return a if a.itemsize > b.itemsize else b
    signed, unsigned = (a, b) if a.is_signed else (b, a)
    if signed.itemsize > unsigned.itemsize:
        return signed
    if unsigned.itemsize < 8:
        return _BY_NAME[f"int{unsigned.itemsize * 16}"]
    raise DTypeError(f"{a.name} and {b.name} have no common integer type; cast one with .astype(...)")


def result_type(*operands: Any) -> DType:
    """The common type of tensors (anything with ``.dtype``) or dtypes, and weak Python scalars.

    A Python scalar takes the type of the others if its kind fits; an integer tensor with a Python float gives float32.
    """
    strong = [
        as_dtype(o.dtype) if hasattr(o, "dtype") else o for o in operands if not isinstance(o, (bool, int, float))
    ]
    weak = [o for o in operands if isinstance(o, (bool, int, float))]
    if not strong:
        return as_dtype(max((type(o) for o in weak), key=(bool, int, float).index))
    result: DType = as_dtype(strong[0])
    for other in strong[1:]:
        result = promote(result, as_dtype(other))
    for scalar in weak:
        if isinstance(scalar, float) and not result.is_float:
            result = float32
        elif isinstance(scalar, int) and not isinstance(scalar, bool) and result.is_bool:
            result = int64
    return result
