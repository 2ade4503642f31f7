"""Losses: PyTorch's signatures and reductions ("mean", "sum", "none")."""

from __future__ import annotations

import math
from typing import Any

from graphcore.api import reductions
from graphcore.api.elementwise import (
    abs,
    add,
    clip,
    divide,
    equal,
    exp,
    greater_equal,
    less,
    log,
    logical_and,
    maximum,
    multiply,
    negative,
    not_equal,
    relu,
    safe_sqrt,
    softplus,
    square,
    subtract,
    where,
)
from graphcore.api.operands import build, cast, fail, fit, promote, same_shape, tensor
from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.shapes import format_shape
from graphcore.base.source import name_scope
from graphcore.functional.activations import shifted
from graphcore.ir.node import Tensor, mismatch

# fmt: off
__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
]
# fmt: on


def reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    """A loss per element as its mean, its sum or itself."""
    if reduction == "mean":
        return reductions.mean(loss)
    if reduction == "sum":
        return reductions.sum(loss)
    if reduction == "none":
        return loss
    raise UsageError(f"{name}: reduction is {reduction!r}; use 'mean', 'sum' or 'none'")


def _check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise UsageError(f"{name}: reduction is {reduction!r}; use 'mean', 'sum' or 'none'")


def _wide(t: Tensor) -> Tensor:
    return cast(t, dtypes.as_dtype(t.dtype.compute))


def _pair(name: str, input: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target of one floating type and one shape; numbers broadcast, tensors do not."""
    a, b = promote(name, input, target, floating=True)
    if b.ndim == 0 or a.ndim == 0:
        shape = a.shape if b.ndim == 0 else b.shape
        return fit(a, shape), fit(b, shape)
    hint = (
        "a loss does not broadcast: an (N, 1) output against (N,) targets would compare all pairs; "
        "use .squeeze(-1) or .reshape(x.shape)"
    )
    return a, same_shape(name, a, b, "input and target have different shapes", hint)


def _class_axis(name: str, x: Tensor) -> int:
    if x.ndim == 0:
        raise fail(ShapeError, f"{name}: the input has no class axis; it is (N, C), (C,) or (N, C, d1, ...)", x)
    return 0 if x.ndim == 1 else 1


def _indices(name: str, x: Tensor, target: Tensor, axis: int) -> Tensor:
    """Class indices with the shape of ``x`` without its class axis."""
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    if target.ndim != len(rest) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(rest, target.shape, strict=False)
    ):
        hint = "; drop the last axis with .squeeze(-1)" if target.ndim == x.ndim and target.shape[-1] == 1 else ""
        raise mismatch(
            name,
            x,
            target,
            f"class indices must have the shape {format_shape(rest)} for the input {format_shape(x.shape)}{hint}",
        )
    return target if target.shape == rest else build("require_shape", target, shape=rest)


class _Classes:
    """Integer targets against a tensor with a class axis: what every class-index loss needs, as one pass over the
    classes."""

    def __init__(self, name: str, x: Tensor, target: Tensor, axis: int, ignore_index: int | None) -> None:
        self.axis, self.rank = axis, x.ndim
        t = _indices(name, x, target, axis)
        self.shape = t.shape
        count = (
            build("dim_value", extent=x.shape[axis], dtype=dtypes.int64)
            if not isinstance(x.shape[axis], int)
            else x.shape[axis]
        )
        wide = (
            t
            if t.dtype.itemsize >= 4 and t.dtype.kind == "i"
            else cast(t, dtypes.int32 if t.dtype.itemsize < 4 else dtypes.int64)
        )
        self.valid = logical_and(greater_equal(wide, 0), less(wide, count))
        self.kept = None if ignore_index is None else not_equal(wide, ignore_index)
        narrow = cast(wide, dtypes.int32)
        column = build("reshape", narrow, shape=tuple(1 if a == axis else e for a, e in enumerate(x.shape)))
        position = build("iota", shape=x.shape, axis=axis, dtype=dtypes.int32)
        self.hit = build("equal", fit(column, x.shape), position)

    def pick(self, x: Tensor) -> Tensor:
        """The target class's element of ``x``, of its shape or a vector of one element per class."""
        return self.total(where(self.hit, self.spread(x), 0.0))

    def spread(self, weight: Tensor) -> Tensor:
        """A vector of one number per class along the class axis."""
        if weight.ndim == self.rank:
            return weight
        return build("reshape", weight, shape=tuple(weight.shape[0] if a == self.axis else 1 for a in range(self.rank)))

    def total(self, x: Tensor) -> Tensor:
        """The sum over classes."""
        return build("sum", x, axes=(self.axis,))

    def finish(self, name: str, loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        """NaN where a target is no class, 0 where it is ignored; then the reduction, a mean by the weights of the
        targets."""
        loss = where(self.valid, loss, math.nan)
        if self.kept is not None:
            loss = where(self.kept, loss, 0.0)
        if reduction != "mean" or (weight is None and self.kept is None):
            return reduced(name, loss, reduction)
        if weight is None:
            assert self.kept is not None
            share = cast(self.kept, loss.dtype)
        else:
            share = self.pick(weight)
            share = share if self.kept is None else where(self.kept, share, 0.0)
        return divide(reductions.sum(loss), reductions.sum(share))


def _weight(name: str, weight: Any, x: Tensor, axis: int) -> Tensor | None:
    if weight is None:
        return None
    w = cast(tensor(name, weight), x.dtype)
    if w.ndim != 1 or (w.shape[0] != x.shape[axis] and isinstance(x.shape[axis], int)):
        raise mismatch(name, x, w, f"the weight must have one element per class, ({x.shape[axis]},)")
    return w


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy of softmax(input) against classes or probabilities.

    Args:
        input: logits, (N, C), (C,) or (N, C, d1, ...).
        target: class indices of any integer type, (N,), () or (N, d1, ...); or probabilities of the input's shape.
        weight: one factor per class, (C,); the mean is then weighted.
        ignore_index: targets equal to it count for nothing (-100 is what PyTorch ignores, too; None: every target
            counts).
        reduction: "mean", "sum" or "none".
        label_smoothing: how much of the target is spread evenly over all classes, 0 to 1.

    Returns:
        A scalar, or with "none" the shape of the class indices. An index that is no class gives NaN.

    Raises:
        ShapeError, DTypeError: the target does not fit the input.

    >>> cross_entropy([[1.0, 2.0]], [1]).shape
    ()
    """
    _check_reduction("cross_entropy", reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise UsageError(f"cross_entropy: label_smoothing is {label_smoothing}, but must be between 0 and 1")
    (x,) = promote("cross_entropy", input, floating=True)
    t = tensor("cross_entropy", target)
    result, x = x.dtype, _wide(x)
    axis = _class_axis("cross_entropy", x)
    w = _weight("cross_entropy", weight, x, axis)
    if t.dtype.is_bool:
        raise fail(
            DTypeError,
            "cross_entropy: the target is bool; class indices are integers, probabilities floats: use .astype('int64')",
            x,
            t,
        )
    with name_scope("cross_entropy"):
        if t.dtype.is_float:
            loss = _probability_cross_entropy(x, t, w, axis, label_smoothing)
            return cast(reduced("cross_entropy", loss, reduction), result)
        return cast(_index_cross_entropy(x, t, w, axis, ignore_index, reduction, label_smoothing), result)


def _log_sum(z: Tensor, axis: int) -> Tensor:
    """log(sum(e ** z)) of shifted logits, without the class axis."""
    return log(build("sum", exp(z), axes=(axis,)))


def _index_cross_entropy(
    x: Tensor, target: Tensor, w: Tensor | None, axis: int, ignore_index: int | None, reduction: str, smoothing: float
) -> Tensor:
    """log(sum(e ** z)) - z[target] with z = x - max(x): one pass over each row, forward and backward."""
    classes = _Classes("cross_entropy", x, target, axis, ignore_index)
    z = shifted(x, axis)
    lse = _log_sum(z, axis)
    loss = subtract(lse, classes.pick(z))
    if w is not None:
        loss = multiply(loss, classes.pick(w))
    if smoothing:
        smooth = _smooth_part(z, lse, w, axis, classes)
        loss = add(multiply(loss, 1.0 - smoothing), multiply(smooth, smoothing))
    return classes.finish("cross_entropy", loss, w, reduction)


def _smooth_part(z: Tensor, lse: Tensor, w: Tensor | None, axis: int, classes: _Classes) -> Tensor:
    """The mean over classes of -w log p."""
    if w is None:
        return subtract(lse, reductions.mean(z, axis))
    per_class = multiply(
        subtract(build("reshape", lse, shape=tuple(1 if a == axis else e for a, e in enumerate(z.shape))), z),
        classes.spread(w),
    )
    return reductions.mean(per_class, axis)


def _probability_cross_entropy(x: Tensor, target: Tensor, w: Tensor | None, axis: int, smoothing: float) -> Tensor:
    t = same_shape(
        "cross_entropy",
        x,
        cast(target, x.dtype),
        "probabilities must have the input's shape",
        "for class indices pass integers: target.astype('int64')",
    )
    if smoothing:
        t = add(multiply(t, 1.0 - smoothing), divide(smoothing, _class_count(x, axis)))
    z = shifted(x, axis)
    lse = build("reshape", _log_sum(z, axis), shape=tuple(1 if a == axis else e for a, e in enumerate(x.shape)))
    surprise = multiply(t, subtract(lse, z))
    if w is not None:
        surprise = multiply(
            surprise, build("reshape", w, shape=tuple(w.shape[0] if a == axis else 1 for a in range(x.ndim)))
        )
    return build("sum", surprise, axes=(axis,))


def _class_count(x: Tensor, axis: int) -> Tensor:
    return build("dim_value", extent=x.shape[axis], dtype=x.dtype)


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int | None = -100, reduction: str = "mean"
) -> Tensor:
    """-input[target]: the loss of log probabilities (N, C, ...) against class indices (N, ...), with the arguments of
    ``cross_entropy``.

    >>> nll_loss([[-1.0, -2.0]], [1]).shape
    ()
    """
    _check_reduction("nll_loss", reduction)
    (x,) = promote("nll_loss", input, floating=True)
    t = tensor("nll_loss", target)
    if not t.dtype.is_integer:
        raise fail(
            DTypeError,
            f"nll_loss: the target is {t.dtype}, but class indices are integers; cast with .astype('int64')",
            x,
            t,
        )
    axis = _class_axis("nll_loss", x)
    w = _weight("nll_loss", weight, x, axis)
    with name_scope("nll_loss"):
        classes = _Classes("nll_loss", x, t, axis, ignore_index)
        loss = negative(classes.pick(x))
        return classes.finish("nll_loss", loss if w is None else multiply(loss, classes.pick(w)), w, reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(input - target) ** 2. Shapes must be equal.

    Raises:
        ShapeError: the shapes differ.

    >>> mse_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    a, b = _pair("mse_loss", input, target)
    with name_scope("mse_loss"):
        return reduced("mse_loss", square(subtract(a, b)), reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """|input - target|. Shapes must be equal.

    >>> l1_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    a, b = _pair("l1_loss", input, target)
    with name_scope("l1_loss"):
        return reduced("l1_loss", abs(subtract(a, b)), reduction)


def _quadratic_near_zero(distance: Tensor, delta: float) -> Tensor:
    """d ** 2 / 2 for |d| < delta, else delta (|d| - delta / 2), without a branch: with c = min(|d|, delta), c (|d| - c
    / 2)."""
    size = abs(distance)
    near = clip(size, None, delta)
    return multiply(near, subtract(size, multiply(near, 0.5)))


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d ** 2 / 2 for |d| = |input - target| < delta, else delta (|d| - delta / 2).

    >>> huber_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    if delta <= 0:
        raise UsageError(f"huber_loss: delta is {delta}, but must be positive")
    a, b = _pair("huber_loss", input, target)
    with name_scope("huber_loss"):
        return reduced("huber_loss", _quadratic_near_zero(subtract(a, b), delta), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """huber_loss / beta; with ``beta=0`` it is l1_loss.

    >>> smooth_l1_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    if beta < 0:
        raise UsageError(f"smooth_l1_loss: beta is {beta}, but must not be negative")
    if beta == 0:
        return l1_loss(input, target, reduction)
    a, b = _pair("smooth_l1_loss", input, target)
    with name_scope("smooth_l1_loss"):
        return reduced("smooth_l1_loss", divide(_quadratic_near_zero(subtract(a, b), beta), beta), reduction)


def _x_log_x(t: Tensor) -> Tensor:
    """t log t, 0 at 0."""
    zero = equal(t, 0)
    return where(zero, 0.0, multiply(t, log(where(zero, 1.0, t))))


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log target - input) for log probabilities ``input``; "batchmean" divides the sum by the first extent.

    >>> kl_div([[-1.0, -2.0]], [[0.5, 0.5]], reduction="batchmean").shape
    ()
    """
    a, b = _pair("kl_div", input, target)
    with name_scope("kl_div"):
        loss = multiply(exp(b), subtract(b, a)) if log_target else subtract(_x_log_x(b), multiply(b, a))
        if reduction != "batchmean":
            return reduced("kl_div", loss, reduction)
        if loss.ndim == 0:
            raise fail(ShapeError, "kl_div: reduction 'batchmean' needs a batch axis", loss)
        return divide(reductions.sum(loss), build("dim_value", extent=loss.shape[0], dtype=loss.dtype))


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(target log input + (1 - target) log(1 - input)) for probabilities; logarithms are at least -100.

    >>> binary_cross_entropy([0.5], [1.0]).shape
    ()
    """
    a, b = _pair("binary_cross_entropy", input, target)
    with name_scope("binary_cross_entropy"):
        yes, no = maximum(log(a), -100.0), maximum(log(subtract(1.0, a)), -100.0)
        loss = negative(add(multiply(b, yes), multiply(subtract(1.0, b), no)))
        return reduced("binary_cross_entropy", loss if weight is None else multiply(loss, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """binary_cross_entropy(sigmoid(input), target) without overflow; ``pos_weight`` scales the part of positive
    targets.

    >>> binary_cross_entropy_with_logits([0.5], [1.0]).shape
    ()
    """
    a, b = _pair("binary_cross_entropy_with_logits", input, target)
    with name_scope("binary_cross_entropy_with_logits"):
        if pos_weight is None:
            loss = subtract(softplus(a), multiply(a, b))
        else:
            factor = add(1.0, multiply(subtract(pos_weight, 1.0), b))
            loss = add(multiply(subtract(1.0, b), a), multiply(factor, softplus(negative(a))))
        return reduced(
            "binary_cross_entropy_with_logits", loss if weight is None else multiply(loss, weight), reduction
        )


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """log(1 + e ** (-target input)) for targets 1 and -1.

    >>> soft_margin_loss([0.5], [1.0]).shape
    ()
    """
    a, b = _pair("soft_margin_loss", input, target)
    return reduced("soft_margin_loss", softplus(negative(multiply(a, b))), reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """input where the target is 1, max(0, margin - input) where it is -1.

    >>> hinge_embedding_loss([0.5], [1.0]).shape
    ()
    """
    a, b = _pair("hinge_embedding_loss", input, target)
    return reduced("hinge_embedding_loss", where(equal(b, 1.0), a, relu(subtract(margin, a))), reduction)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Tensor:
    """max(0, -target (input1 - input2) + margin).

    >>> margin_ranking_loss([0.5], [0.1], [1.0]).shape
    ()
    """
    a, b = _pair("margin_ranking_loss", input1, input2)
    return reduced("margin_ranking_loss", relu(add(multiply(negative(target), subtract(a, b)), margin)), reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, eps: float = 1e-8, reduction: str = "mean"
) -> Tensor:
    """e ** input - target input (with ``log_input``), else input - target log(input + eps).

    >>> poisson_nll_loss([0.5], [1.0]).shape
    ()
    """
    a, b = _pair("poisson_nll_loss", input, target)
    loss = subtract(exp(a), multiply(b, a)) if log_input else subtract(a, multiply(b, log(add(a, eps))))
    return reduced("poisson_nll_loss", loss, reduction)


def gaussian_nll_loss(input: Any, target: Any, var: Any, eps: float = 1e-6, reduction: str = "mean") -> Tensor:
    """(log var + (input - target) ** 2 / var) / 2, with variances of at least ``eps`` (constant for gradients where
    cut).

    >>> gaussian_nll_loss([0.5], [1.0], [0.1]).shape
    ()
    """
    a, b = _pair("gaussian_nll_loss", input, target)
    v = maximum(var, eps)
    return reduced("gaussian_nll_loss", multiply(add(log(v), divide(square(subtract(a, b)), v)), 0.5), reduction)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along an axis; norms are at least ``eps``.

    >>> cosine_similarity([[1.0, 0.0]], [[0.0, 1.0]]).shape
    (1,)
    """
    a, b = promote("cosine_similarity", x1, x2, floating=True)
    lengths = [maximum(safe_sqrt(reductions.sum(square(t), dim, True)), eps) for t in (a, b)]
    return reductions.sum(multiply(divide(a, lengths[0]), divide(b, lengths[1])), dim)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2.0, reduction: str = "mean"
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin) with p-norms along the last axis.

    >>> triplet_margin_loss([[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]).shape
    ()
    """
    near = reductions.norm(add(subtract(anchor, positive), 1e-6), p, -1)
    far = reductions.norm(add(subtract(anchor, negative), 1e-6), p, -1)
    return reduced("triplet_margin_loss", relu(add(subtract(near, far), margin)), reduction)
