"""``ir.agreement`` over tensors: what functions build on extents that are taken to be equal."""

from __future__ import annotations

from graphcore.api.tensor import Tensor, wrap_new
from graphcore.base.errors import ShapeError
from graphcore.base.shapes import Shape, agree
from graphcore.ir import agreement
from graphcore.ir.node import mismatch

__all__ = ["taken", "taken_as"]


def taken(x: Tensor, shape: Shape, op: str | None = None, against: Tensor | None = None) -> Tensor:
    """``x``, known to have a shape; what is not sure is checked when feeds bind.

    Args:
        x: the tensor.
        shape: what it must be; never broadcast.
        op: the function that needs it, for messages.
        against: the tensor that has these extents, for messages.

    Raises:
        ShapeError: the shapes are not equal for any sizes.
    """
    return x if x.shape == shape else wrap_new(agreement.taken(x.value, shape, op, against))


def taken_as(op: str, a: Tensor, b: Tensor, what: str, hint: str = "") -> Tensor:
    """``b``, known to have the shape of ``a``.

    Raises:
        ShapeError: the shapes are not equal for any sizes; ``what`` says so, ``hint`` what to do.
    """
    if not agree(a.shape, b.shape):
        raise ShapeError(f"{mismatch(op, a, b, what)}" + (f"\n  {hint}" if hint else ""))
    return taken(b, a.shape, op, a)
