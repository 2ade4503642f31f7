"""What holds of scalar functions in any language: extremes with a constant."""

from __future__ import annotations

import math

from graphcore.kernel.expr import Expr

__all__ = ["bounded"]


def bounded(e: Expr, args: list[str]) -> tuple[str, list[str]]:
    """The function and the operands of an expression; an extreme with a constant is simpler, where ties are its own."""
    if e.fn in ("max", "min") and e.dtype.is_float:
        for i, bound in enumerate(e.args):
            if bound.fn == "const" and (bound.value != 0 or (math.copysign(1, bound.value) > 0) == (e.fn == "max")):
                return {"max": "atleast", "min": "atmost"}[e.fn], [args[1 - i], args[i]]
    return e.fn, args
