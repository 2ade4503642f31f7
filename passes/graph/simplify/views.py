"""Views: chains of them become one, and those that move nothing go away. All exact, since no element is computed."""

from __future__ import annotations

from graphcore.base.shapes import Dim, Shape, is_static
from graphcore.ir.leaves import RequireRange, RequireShape
from graphcore.ir.node import Value
from graphcore.ir.op import View
from graphcore.ops.view import Broadcast, Concat, Flip, Pad, Permute, Reshape, Slice
from passes.graph.base import Call, Match, Replacement, rule

__all__ = ["VIEWS"]

_OPERANDS_SEARCHED = 64  # a slice of a concatenation of more operands is left alone, so that many slices stay linear


@rule(Reshape, Broadcast, RequireShape, RequireRange)
def same_shape_to_operand(call: Call) -> Replacement:
    """reshape(x) -> x, broadcast(x) -> x, require_shape(x) -> x, where x has the shape; require_range(x) -> x"""
    return call.arg(0) if call.arg(0).shape == call.shape else None


@rule(Reshape)
def reshape_of_reshape(call: Call) -> Replacement:
    """reshape(reshape(x)) -> reshape(x)"""
    inner = call.arg(0)
    return call.b.reshape(inner.inputs[0], shape=call.shape) if inner.is_op(Reshape) else None


@rule(View)
def view_of_uniform(call: Call) -> Replacement:
    """view(broadcast(one element)) -> broadcast(one element)"""
    inner = call.arg(0)
    if call.is_op(Broadcast, RequireShape) or not inner.is_op(Broadcast) or inner.arg(0).type.size != 1:
        return None
    return call.b.broadcast_to(_as_scalar(call, inner.arg(0)), call.shape)


def _as_scalar(call: Call, one: Match) -> Value:
    return one.value if not one.shape else call.b.reshape(one.value, shape=())


@rule(Permute)
def permute_of_permute(call: Call) -> Replacement:
    """permute(permute(x, p), q) -> permute(x, p[q])"""
    inner = call.arg(0)
    return (
        call.b.permute(inner.inputs[0], axes=tuple(inner.op.axes[a] for a in call.op.axes))
        if inner.is_op(Permute)
        else None
    )


@rule(Permute)
def permute_in_order_to_reshape(call: Call) -> Replacement:
    """permute(x) -> x, or reshape(x), where no axis longer than 1 passes another"""
    moved = [a for a in call.op.axes if call.arg(0).shape[a] != 1]
    if moved != sorted(moved):
        return None
    return call.arg(0) if call.arg(0).shape == call.shape else call.b.reshape(call.inputs[0], shape=call.shape)


@rule(Broadcast)
def broadcast_of_broadcast(call: Call) -> Replacement:
    """broadcast(broadcast(x)) -> broadcast(x)"""
    inner = call.arg(0)
    return call.b.broadcast_to(inner.inputs[0], call.shape) if inner.is_op(Broadcast) else None


@rule(Broadcast)
def broadcast_of_added_axes(call: Call) -> Replacement:
    """broadcast(reshape(x)) -> broadcast(x), where the reshape only adds leading axes of 1"""
    inner = call.arg(0)
    if not inner.is_op(Reshape):
        return None
    source = inner.arg(0).shape
    added = len(inner.shape) - len(source)
    return (
        call.b.broadcast_to(inner.inputs[0], call.shape) if added > 0 and inner.shape == (1,) * added + source else None
    )


@rule(Broadcast)
def broadcast_to_reshape(call: Call) -> Replacement:
    """broadcast(x) -> reshape(x), where it only adds leading axes of 1"""
    source = call.arg(0).shape
    added = len(call.shape) - len(source)
    return (
        call.b.reshape(call.inputs[0], shape=call.shape) if added > 0 and call.shape == (1,) * added + source else None
    )


@rule(Slice)
def slice_of_all(call: Call) -> Replacement:
    """x[0:n] -> x"""
    op = call.op
    return (
        call.arg(0)
        if op.lengths == call.arg(0).shape and not any(op.starts) and all(s == 1 for s in op.steps)
        else None
    )


@rule(Slice)
def slice_of_slice(call: Call) -> Replacement:
    """x[a:b:s][c:d:t] -> x[a + c*s : ... : s*t]"""
    inner, op = call.arg(0), call.op
    if not inner.is_op(Slice):
        return None
    starts = tuple(a + c * s for a, s, c in zip(inner.op.starts, inner.op.steps, op.starts, strict=True))
    steps = tuple(s * t for s, t in zip(inner.op.steps, op.steps, strict=True))
    return call.b.slice(inner.inputs[0], starts=starts, lengths=op.lengths, steps=steps)


def _inside(call: Call, low: Shape, source: Shape) -> bool:
    """Whether a non-empty slice reads only within ``source``, which starts at ``low``."""
    op = call.op
    if not all(map(is_static, (op.starts, op.lengths, low, source))) or 0 in op.lengths:
        return False
    ends = (start + (length - 1) * step for start, length, step in zip(op.starts, op.lengths, op.steps, strict=True))
    return all(a <= s and e < a + n for s, e, a, n in zip(op.starts, ends, low, source, strict=True))


@rule(Slice)
def slice_of_pad(call: Call) -> Replacement:
    """pad(x)[a:b] -> x[a - low : b - low], where it reads no padding"""
    inner = call.arg(0)
    if not inner.is_op(Pad) or any(inner.op.gaps) or not _inside(call, inner.op.low, inner.arg(0).shape):
        return None
    starts = tuple(s - a for s, a in zip(call.op.starts, inner.op.low, strict=True))
    return call.b.slice(inner.inputs[0], starts=starts, lengths=call.op.lengths, steps=call.op.steps)


@rule(Slice)
def slice_of_concat(call: Call) -> Replacement:
    """concat(x, y)[a:b] -> y[a - n : b - n], where it reads only one operand"""
    inner = call.arg(0)
    if not inner.is_op(Concat) or len(inner.inputs) > _OPERANDS_SEARCHED:
        return None
    axis, before = inner.op.axis, 0
    for part in inner.args:
        extent = part.shape[axis]
        if isinstance(extent, Dim):
            return None
        low = tuple(before if a == axis else 0 for a in range(len(part.shape)))
        if _inside(call, low, part.shape):
            starts = tuple(s - a for s, a in zip(call.op.starts, low, strict=True))
            return call.b.slice(part.value, starts=starts, lengths=call.op.lengths, steps=call.op.steps)
        before += extent
    return None


@rule(Flip)
def flip_of_nothing(call: Call) -> Replacement:
    """flip(x) over no axis, or over axes of 1, -> x"""
    axes = tuple(a for a in call.op.axes if call.shape[a] != 1)
    if axes == call.op.axes:
        return None if axes else call.arg(0)
    return call.b.flip(call.inputs[0], axes=axes) if axes else call.arg(0)


@rule(Flip)
def flip_of_flip(call: Call) -> Replacement:
    """flip(flip(x, p), q) -> flip(x, axes in one of p and q)"""
    inner = call.arg(0)
    return (
        call.b.flip(inner.inputs[0], axes=tuple(sorted(set(inner.op.axes) ^ set(call.op.axes))))
        if inner.is_op(Flip)
        else None
    )


@rule(Concat)
def concat_of_one(call: Call) -> Replacement:
    """concat(x) -> x, operands without elements dropped"""
    if len(call.inputs) == 1:
        return call.arg(0)
    kept = [arg.value for arg in call.args if arg.shape[call.op.axis] != 0]
    if len(kept) == len(call.inputs):
        return None
    return call.b.concat(*kept, axis=call.op.axis) if kept else call.arg(0)


@rule(Pad)
def pad_with_nothing(call: Call) -> Replacement:
    """pad(x) with widths of 0 -> x"""
    op = call.op
    return (
        call.arg(0)
        if not any((*op.low, *op.gaps)) and all(h == 0 for h in op.high) and call.shape == call.arg(0).shape
        else None
    )


@rule(Pad)
def pad_of_pad(call: Call) -> Replacement:
    """pad(pad(x)) -> pad(x) with the sums of the widths"""
    inner, op = call.arg(0), call.op
    if not inner.is_op(Pad) or any((*op.gaps, *inner.op.gaps)):
        return None
    low = tuple(a + b for a, b in zip(op.low, inner.op.low, strict=True))
    high = tuple(a + b for a, b in zip(op.high, inner.op.high, strict=True))
    return call.b.pad(inner.inputs[0], low=low, high=high, gaps=op.gaps)


VIEWS = (
    same_shape_to_operand,
    reshape_of_reshape,
    view_of_uniform,
    permute_of_permute,
    permute_in_order_to_reshape,
    broadcast_of_broadcast,
    broadcast_of_added_axes,
    broadcast_to_reshape,
    slice_of_all,
    slice_of_slice,
    slice_of_pad,
    slice_of_concat,
    flip_of_nothing,
    flip_of_flip,
    concat_of_one,
    pad_with_nothing,
    pad_of_pad,
)
