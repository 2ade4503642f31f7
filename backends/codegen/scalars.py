"""What holds of scalar functions in any language: identities of monoids, extremes with a constant."""

from __future__ import annotations

import math

from graphcore.base.dtypes import DType
from graphcore.kernel.expr import Expr

__all__ = ["bounded", "identity"]


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


def bounded(e: Expr, args: list[str]) -> tuple[str, list[str]]:
    """The function and the operands of an expression; an extreme with a constant is simpler, where ties are its own."""
    if e.fn in ("max", "min") and e.dtype.is_float:
        for i, bound in enumerate(e.args):
            if bound.fn == "const" and (bound.value != 0 or (math.copysign(1, bound.value) > 0) == (e.fn == "max")):
                return {"max": "atleast", "min": "atmost"}[e.fn], [args[1 - i], args[i]]
    return e.fn, args
