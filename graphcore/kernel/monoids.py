"""What holds of the monoids that reductions combine by."""

from __future__ import annotations

from graphcore.base.dtypes import DType

__all__ = ["identity"]


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
