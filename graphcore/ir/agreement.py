"""What is built on extents that are taken to be equal: the one place where that is decided and recorded."""

from __future__ import annotations

from graphcore.base.shapes import Shape
from graphcore.ir.leaves import RequireShape
from graphcore.ir.node import Named, Value, describe, make_node

__all__ = ["taken"]


def taken(x: Value, shape: Shape, op: str | None = None, against: Named | None = None) -> Value:
    """``x``, known to have a shape; what is not sure is checked when feeds bind.

    Args:
        x: the value.
        shape: what it must be; never broadcast.
        op: the function that needs it, for messages.
        against: what has these extents, for messages.

    Raises:
        ShapeError: the shapes are not equal for any sizes.
    """
    if x.shape == shape:
        return x
    other = None if against is None else describe(against)
    return make_node(RequireShape(shape, op, other), (x,)).output(0)
