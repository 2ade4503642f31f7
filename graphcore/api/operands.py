"""From what users write to operands of primitives: promotion, explicit casts, explicit broadcasts, and errors that show
lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphcore.api.agreement import taken
from graphcore.api.tensor import Tensor, result
from graphcore.api.variable import fixed, is_tensor_like
from graphcore.base import dtypes
from graphcore.base.arrays import outside, wrong_position
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, GraphcoreError, OutOfRangeError, ShapeError, UsageError
from graphcore.base.notices import DTypeWarning, warn_once
from graphcore.base.shapes import (
    Dim,
    Extent,
    Shape,
    broadcast_shapes,
    format_shape,
    may_equal,
    normalize_axes,
    normalize_axis,
)
from graphcore.ir.leaves import Constant, StateRead
from graphcore.ir.node import describe, make_node, mismatch, with_operands
from graphcore.ir.op import Kind, Op, lookup

# fmt: off
__all__ = [
    "align",
    "aligned",
    "apply",
    "axes_of",
    "axis_of",
    "build",
    "cast",
    "count_of",
    "fail",
    "fit",
    "full",
    "in_range",
    "is_operand",
    "promote",
    "scalar",
    "tensor",
    "training_flag",
]
# fmt: on


def build(name: str, *inputs: Tensor, **attributes: Any) -> Tensor:
    """Result 0 of the registered op ``name``."""
    return result(make_node(lookup(name)(**attributes), tuple([t.value for t in inputs])))


def apply(op: Op, *inputs: Tensor) -> Tensor:
    """Result 0 of an op instance."""
    return result(make_node(op, tuple([t.value for t in inputs])))


def fail(error: type[GraphcoreError], message: str, *operands: Tensor) -> GraphcoreError:
    """An error to raise, with the operands' types and lines below its message."""
    return with_operands(error(message), operands)


def training_flag(op: str, value: Any) -> bool:
    """Whether a call is built for training.

    Raises:
        UsageError: a tensor, whose value a run has: what is built cannot depend on it.
    """
    if isinstance(value, Tensor):
        raise fail(
            UsageError,
            f"{op}: training is a tensor, and decides what is built; build both calls, one with training=True "
            f"(model.train() before model(x)) and one with training=False (model.eval()), and fetch the one that a run "
            f"is for",
            value,
        )
    return bool(value)


def is_operand(value: Any) -> bool:
    """Whether an operator takes ``value`` as its other operand."""
    return isinstance(value, Dim) or is_tensor_like(value)


def tensor(op: str, value: Any, dtype: DType | None = None) -> Tensor:
    """``value`` as a tensor: itself, or a constant; extents become the tensors that hold them.

    Raises:
        UsageError: something that is no tensor, number or array.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Dim):
        return build("dim_value", extent=value, dtype=dtype or dtypes.int64)
    if not is_tensor_like(value):
        raise UsageError(
            f"{op}: an operand is {value!r} of type {type(value).__name__}; pass a tensor, a number or an array"
        )
    if isinstance(value, (list, tuple)) and _holds_tensors(value):
        raise UsageError(
            f"{op}: an operand is a {type(value).__name__} that holds tensors; join them with gc.stack([...]), or take "
            f"one of them, as in gc.gradients(y, x)[0]"
        )
    try:
        return fixed(op, value, dtype)
    except (ValueError, TypeError) as error:
        if isinstance(error, GraphcoreError):
            raise
        raise UsageError(f"{op}: {value!r} is no array of numbers") from None


def _holds_tensors(values: Sequence[Any]) -> bool:
    return any(isinstance(v, Tensor) or (isinstance(v, (list, tuple)) and _holds_tensors(v)) for v in values)


def scalar(op: str, value: bool | int | float, dtype: DType) -> Tensor:
    """A rank-0 constant of ``dtype``.

    Raises:
        DTypeError: a number that the type cannot hold.
    """
    try:
        return apply(Constant.of(value, dtype))
    except DTypeError as error:
        raise DTypeError(f"{op}: {error}; cast the tensor to a wider type first") from None


def full(shape: Shape, value: bool | int | float, dtype: DType, op: str = "full") -> Tensor:
    """A number broadcast to a shape, for the function ``op``."""
    return fit(scalar(op, value, dtype), shape)


def cast(x: Tensor, dtype: DType) -> Tensor:
    """``x`` as ``dtype``; itself if it is one already."""
    return x if x.dtype == dtype else build("cast", x, dtype=dtype)


def promote(op: str, *values: Any, floating: bool = False) -> list[Tensor]:
    """Operands cast to their common type. Python numbers are weak; ``floating`` turns an integer result type into
    float32."""
    items = [v if isinstance(v, (Tensor, bool, int, float, Dim)) else tensor(op, v) for v in values]
    try:
        dtype = dtypes.result_type(*(0 if isinstance(v, Dim) else v for v in items))
    except DTypeError as error:
        raise fail(DTypeError, f"{op}: {error}", *(v for v in items if isinstance(v, Tensor))) from None
    if floating and not dtype.is_float:
        dtype = dtypes.float32
    if dtype == dtypes.float64:
        _warn_of_double(op, values, items)
    return [
        cast(v, dtype)
        if isinstance(v, Tensor)
        else tensor(op, v, dtype)
        if isinstance(v, Dim)
        else scalar(op, v, dtype)
        for v in items
    ]


def _warn_of_double(op: str, values: Sequence[Any], items: Sequence[Any]) -> None:
    """Say so where only constants and variables, which NumPy makes float64 unless told otherwise, make a tensor of
    another type float64."""
    tensors = [(i, t) for i, t in enumerate(items) if isinstance(t, Tensor)]
    wide = [i for i, t in tensors if t.dtype == dtypes.float64]
    other = next((t for i, t in tensors if i not in wide and isinstance(values[i], Tensor)), None)
    if other is None or not all(_is_stored(items[i]) for i in wide):
        return
    first, wanted = values[wide[0]], other.dtype.name if other.dtype.is_float else "float32"
    if isinstance(first, Tensor):
        what, instead = describe(first), f"make it with dtype={wanted!r}"
    else:
        what = f"a NumPy array of float64 {format_shape(items[wide[0]].shape)}"
        instead = f"write a.astype(np.{wanted}), or make it so, as in np.ones(3, np.{wanted})"
    warn_once(
        DTypeWarning,
        "float64",
        f"{op}: a tensor of {other.dtype} becomes float64, because operand {wide[0] + 1} is {what}; {instead}, or cast "
        f"the tensor with .astype('float64') if you mean it\n  the tensor is {describe(other)}",
    )


def _is_stored(t: Tensor) -> bool:
    """Whether a tensor is a constant or a variable, or a view of one."""
    node = t.node
    while node.op.kind is Kind.VIEW:
        node = node.inputs[0].node
    return isinstance(node.op, (Constant, StateRead))


def fit(x: Tensor, shape: Shape, op: str | None = None, against: Tensor | None = None) -> Tensor:
    """``x`` broadcast to a shape that ``broadcasts`` allows; extents taken to be equal are recorded as requirements.

    ``op`` and ``against``, the function and the tensor that has such extents, are for messages.
    """
    if x.shape == shape:
        return x
    lead = len(shape) - x.ndim
    x = taken(x, tuple(e if e == 1 else shape[lead + i] for i, e in enumerate(x.shape)), op, against)
    return x if x.shape == shape else build("broadcast", x, shape=shape)


def align(op: str, *tensors: Tensor) -> list[Tensor]:
    """Operands broadcast to their common shape.

    Raises:
        ShapeError: naming the op, the first two shapes that clash, their lines and a way out.
    """
    try:
        shape = broadcast_shapes(*(t.shape for t in tensors))
    except ShapeError:
        raise _explain_broadcast(op, tensors) from None
    return [t if t.shape == shape else fit(t, shape, op, _other(t, shape, tensors)) for t in tensors]


def _other(x: Tensor, shape: Shape, tensors: Sequence[Tensor]) -> Tensor | None:
    """Which of some tensors has an extent of their common shape that ``x`` may lack."""
    axes = [i for i in range(-x.ndim, 0) if x.shape[i] != 1 and x.shape[i] != shape[i]]
    return next((t for t in tensors for i in axes if t.ndim >= -i and t.shape[i] == shape[i]), None)


def aligned(op: str, *values: Any, floating: bool = False) -> list[Tensor]:
    """Operands of one type and shape."""
    return align(op, *promote(op, *values, floating=floating))


def _explain_broadcast(op: str, tensors: Sequence[Tensor]) -> ShapeError:
    for i, a in enumerate(tensors):
        for b in tensors[i + 1 :]:
            for axis in range(-1, -min(a.ndim, b.ndim) - 1, -1):
                x, y = a.shape[axis], b.shape[axis]
                if x != 1 and y != 1 and not may_equal(x, y):
                    error = mismatch(op, a, b, f"shapes do not broadcast ({x} against {y} at axis {axis})")
                    return ShapeError(f"{error}\n  {_broadcast_hint(a, b)}")
    shapes = " and ".join(format_shape(t.shape) for t in tensors)
    return ShapeError(
        f"{op}: shapes {shapes} do not broadcast together"
        + "".join(f"\n  operand {i + 1} is {describe(t)}" for i, t in enumerate(tensors))
    )


def _broadcast_hint(a: Tensor, b: Tensor) -> str:
    for small, large, which in ((b, a, 2), (a, b, 1)):
        missing = large.ndim - small.ndim
        if missing > 0 and small.shape == large.shape[: small.ndim]:
            index = ", ".join([":"] * small.ndim + ["None"] * missing)
            return f"shapes are aligned at the last axis; to match the leading axes write operand {which} as x[{index}]"
    if a.ndim == b.ndim == 2 and a.shape == b.shape[::-1]:
        return "one is the other's transpose: write x.T for one of them; for a matrix product write a @ b"
    return "extents must be equal or 1, aligned at the last axis; insert axes with x[:, None] or x.reshape(...)"


def in_range(
    op: str,
    indices: Tensor,
    extent: Extent,
    *,
    negative: bool = True,
    allowed: int | None = None,
    constants: bool = True,
) -> Tensor:
    """Integers that name positions along an axis: constants are checked here, fed ones when they are fed.

    Args:
        op: the function that reads them, for messages.
        indices: of an integer type.
        extent: of the axis.
        negative: whether negative ones count from the end.
        allowed: a number that is borne besides.
        constants: whether constants are checked; not by functions that say what they make of others.

    Raises:
        OutOfRangeError: a constant that is out of range.
    """
    node = indices.node
    while node.op.is_alias:
        node = node.inputs[0].node
    if not isinstance(node.op, Constant) or isinstance(extent, Dim):
        return build("require_range", indices, extent=extent, negative=negative, allowed=allowed, label=op)
    array = node.op.array
    wrong = outside(array, extent, negative, allowed) if constants else None
    if wrong is not None:
        raise fail(OutOfRangeError, f"{op}: {wrong_position(array, wrong, extent, negative, allowed)}", indices)
    return indices


def axis_of(op: str, x: Tensor, axis: Any, rank: int | None = None) -> int:
    """A non-negative axis of ``x`` (of a tensor of ``rank``, if given)."""
    try:
        return normalize_axis(axis, x.ndim if rank is None else rank, op)
    except ShapeError as error:
        raise fail(ShapeError, str(error), x) from None


def axes_of(op: str, x: Tensor, axes: Any) -> tuple[int, ...]:
    """Sorted non-negative axes of ``x``; None means all."""
    try:
        return normalize_axes(axes, x.ndim, op)
    except ShapeError as error:
        raise fail(ShapeError, str(error), x) from None


def count_of(extents: Sequence[Extent], dtype: DType) -> Tensor:
    """The product of extents as a rank-0 tensor; symbolic ones stay symbolic."""
    total: Extent = 1
    for extent in extents:
        total = total * extent
    return build("dim_value", extent=total, dtype=dtype) if isinstance(total, Dim) else scalar("count", total, dtype)
