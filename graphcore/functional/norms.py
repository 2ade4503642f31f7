"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphcore.api import reductions
from graphcore.api.agreement import taken
from graphcore.api.elementwise import add, divide, maximum, multiply, pow, stop_gradient, subtract
from graphcore.api.operands import axis_of, build, cast, count_of, fail, promote, tensor, training_flag
from graphcore.api.shaping import reshape
from graphcore.api.tensor import Tensor, carrying
from graphcore.api.variable import Variable
from graphcore.base import dtypes
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import Dim, Shape, agree, format_shape, product
from graphcore.base.source import name_scope
from graphcore.ir.node import mismatch

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "normalize", "rms_norm"]

Updates = tuple[tuple[Variable, Tensor], ...]


def _float(name: str, x: Any) -> tuple[Tensor, Any]:
    """The operand in its compute type, and the type of the result."""
    (t,) = promote(name, x, floating=True)
    return cast(t, dtypes.as_dtype(t.dtype.compute)), t.dtype


def _parameter(name: str, what: str, value: Any, shape: Shape, x: Tensor) -> Tensor | None:
    if value is None:
        return None
    p = cast(tensor(name, value), x.dtype)
    if not agree(p.shape, shape):
        raise mismatch(name, x, p, f"the {what} must have the shape {format_shape(shape)}")
    return taken(p, shape, name, x)


def _last_axes(name: str, x: Tensor, normalized_shape: Any) -> tuple[int, ...]:
    wanted = tuple(normalized_shape) if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    if not wanted or len(wanted) > x.ndim or x.shape[x.ndim - len(wanted) :] != wanted:
        raise fail(
            ShapeError, f"{name}: normalized_shape {wanted} is not the end of the shape {format_shape(x.shape)}", x
        )
    return tuple(range(x.ndim - len(wanted), x.ndim))


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else multiply(y, weight)
    return y if bias is None else add(y, bias)


def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes; halves are computed in float32.

    Args:
        x: (..., *normalized_shape).
        normalized_shape: an extent or the extents of the last axes.
        weight, bias: of the normalized shape, or None.

    Raises:
        ShapeError: the shapes do not fit.

    >>> layer_norm([[1.0, 2.0]], 2).shape
    (1, 2)
    """
    t, result = _float("layer_norm", x)
    axes = _last_axes("layer_norm", t, normalized_shape)
    shape = t.shape[axes[0] :]
    w, b = _parameter("layer_norm", "weight", weight, shape, t), _parameter("layer_norm", "bias", bias, shape, t)
    with name_scope("layer_norm"):
        y, _, _ = reductions.normalize(t, axes, eps)
        return cast(_scaled(y, w, b), result)


def rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x ** 2) + eps) * weight over the last axes; ``eps`` None is the type's smallest step from 1.

    >>> rms_norm([[1.0, 2.0]], 2).shape
    (1, 2)
    """
    t, result = _float("rms_norm", x)
    axes = _last_axes("rms_norm", t, normalized_shape)
    w = _parameter("rms_norm", "weight", weight, t.shape[axes[0] :], t)
    small = eps if eps is not None else 2.0**-52 if t.dtype == dtypes.float64 else 2.0**-23
    with name_scope("rms_norm"):
        power = reductions.mean(multiply(t, t), axes, True)
        return cast(_scaled(multiply(t, build("rsqrt", add(power, small))), w, None), result)


def _per_channel(t: Tensor | None, rank: int) -> Tensor | None:
    """A vector along axis 1."""
    return None if t is None else build("reshape", t, shape=(1, *t.shape, *(1,) * (rank - 2)))


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for every channel (axis 1).

    Args:
        x: (N, C) or (N, C, d1, ...).
        running_mean, running_var: (C,); used as they are unless training. Variables among them take, in every run that
            computes a
            training result, ``(1 - momentum) * old + momentum * batch statistic`` (the variance by n - 1, as PyTorch
            does).
            None in training keeps no statistics.
        weight, bias: (C,) or None.
        training: use the batch's own statistics.

    Raises:
        ShapeError: the shapes do not fit.

    >>> batch_norm([[1.0, 2.0]], [0.0, 0.0], [1.0, 1.0]).shape
    (1, 2)
    """
    t, result = _float("batch_norm", x)
    training = training_flag("batch_norm", training)
    if t.ndim < 2 or isinstance(t.shape[1], Dim):
        raise fail(
            ShapeError, f"batch_norm: takes (N, C, ...) with a fixed number of channels, got {format_shape(t.shape)}", t
        )
    if not training and (running_mean is None or running_var is None):
        raise UsageError("batch_norm: running_mean and running_var are needed unless training=True")
    shape: Shape = (t.shape[1],)
    kept = [
        _parameter("batch_norm", what, v, shape, t)
        for what, v in (("running_mean", running_mean), ("running_var", running_var))
    ]
    w, b = (
        _per_channel(_parameter("batch_norm", what, v, shape, t), t.ndim)
        for what, v in (("weight", weight), ("bias", bias))
    )
    moved: Updates = ()
    with name_scope("batch_norm"):
        if training:
            y, moved = _by_batch_statistics(t, (running_mean, running_var), momentum, eps)
        else:
            mean, var = (_per_channel(v, t.ndim) for v in kept)
            assert mean is not None and var is not None
            y = multiply(subtract(t, mean), build("rsqrt", add(var, eps)))
        return carrying(cast(_scaled(y, w, b), result), moved)


def _by_batch_statistics(t: Tensor, running: tuple[Any, Any], momentum: float, eps: float) -> tuple[Tensor, Updates]:
    """What is normalised by the batch's statistics, and the updates of the running ones."""
    axes = (0, *range(2, t.ndim))
    count = product(t.shape[a] for a in axes)
    if count in (0, 1):
        raise fail(
            ShapeError, f"batch_norm: training needs more than one value per channel, got {format_shape(t.shape)}", t
        )
    mean = reductions.mean(t, axes, True)
    centred = subtract(t, mean)
    var = reductions.mean(multiply(centred, centred), axes, True)
    n = count_of([t.shape[a] for a in axes], t.dtype)
    unbiased = multiply(var, divide(n, maximum(subtract(n, 1.0), 1.0)))
    updates = []
    for variable, statistic in zip(running, (mean, unbiased), strict=True):
        if isinstance(variable, Variable):
            seen = stop_gradient(reshape(statistic, variable.shape))
            new = add(multiply(variable.read(), 1.0 - momentum), multiply(cast(seen, variable.dtype), momentum))
            updates.append((variable, new))
    return multiply(centred, build("rsqrt", add(var, eps))), tuple(updates)


def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Layer norm over each of ``num_groups`` groups of channels of x (N, C, ...), then weight and bias (C,).

    >>> group_norm([[1.0, 2.0, 3.0, 4.0]], 2).shape
    (1, 4)
    """
    t, result = _float("group_norm", x)
    if t.ndim < 2 or isinstance(t.shape[1], Dim) or num_groups < 1 or t.shape[1] % num_groups:
        raise fail(
            ShapeError, f"group_norm: the channels of {format_shape(t.shape)} do not split into {num_groups} groups", t
        )
    w, b = (
        _per_channel(_parameter("group_norm", what, v, (t.shape[1],), t), t.ndim)
        for what, v in (("weight", weight), ("bias", bias))
    )
    with name_scope("group_norm"):
        grouped = (
            reshape(t, (t.shape[0], num_groups, -1))
            if t.ndim == 2
            else reshape(t, (t.shape[0], num_groups, product(t.shape[1:]) // num_groups))
        )
        y, _, _ = reductions.normalize(grouped, (2,), eps)
        return cast(_scaled(reshape(y, t.shape), w, b), result)


def instance_norm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Each channel of each sample of x (N, C, d1, ...) normalised over its own positions.

    >>> instance_norm([[[1.0, 2.0]]]).shape
    (1, 1, 2)
    """
    t, _ = _float("instance_norm", x)
    if t.ndim < 3 or isinstance(t.shape[1], Dim):
        raise fail(
            ShapeError,
            f"instance_norm: takes (N, C, d1, ...) with a fixed number of channels, got {format_shape(t.shape)}",
            t,
        )
    return group_norm(x, int(t.shape[1]), weight, bias, eps)


def normalize(x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(norm of x along an axis, eps).

    >>> normalize([[3.0, 4.0]]).shape
    (1, 2)
    """
    t, result = _float("normalize", x)
    axis = axis_of("normalize", t, dim)
    return cast(divide(t, maximum(reductions.norm(t, p, axis, True), eps)), result)


def _response_base(t: Tensor, size: int, alpha: float, k: float) -> Tensor:
    """The divisor's base of local response normalisation: k + alpha * mean of squares over ``size`` neighbouring
    channels."""
    squares = multiply(t, t)
    wide = build(
        "pad",
        squares,
        low=tuple(size // 2 if a == 1 else 0 for a in range(t.ndim)),
        high=tuple((size - 1) // 2 if a == 1 else 0 for a in range(t.ndim)),
        gaps=(0,) * t.ndim,
    )
    parts = [
        build(
            "slice", wide, starts=tuple(i if a == 1 else 0 for a in range(t.ndim)), lengths=t.shape, steps=(1,) * t.ndim
        )
        for i in range(size)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return add(multiply(total, alpha / size), k)


def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha * mean of squares over ``size`` neighbouring channels) ** beta (Krizhevsky et al., 2012).

    >>> local_response_norm([[[1.0], [2.0]]], 2).shape
    (1, 2, 1)
    """
    t, result = _float("local_response_norm", x)
    if t.ndim < 3 or isinstance(t.shape[1], Dim) or size < 1:
        raise fail(
            ShapeError,
            f"local_response_norm: takes (N, C, d1, ...) and a positive size, got {format_shape(t.shape)} and {size}",
            t,
        )
    with name_scope("local_response_norm"):
        return cast(divide(t, pow(_response_base(t, size, alpha, k), beta)), result)
