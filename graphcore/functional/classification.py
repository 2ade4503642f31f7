"""Losses of classes and probabilities: PyTorch's signatures and reductions ("mean", "sum", "none")."""

from __future__ import annotations

import math
from typing import Any

from graphcore.api import reductions
from graphcore.api.agreement import taken, taken_as
from graphcore.api.elementwise import add, divide, exp, log, log1p, multiply, negative, subtract
from graphcore.api.logic import clip, equal, greater_equal, less, logical_and, not_equal, where
from graphcore.api.operands import build, cast, fail, fit, in_range, promote, tensor
from graphcore.api.special import softplus
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.shapes import agree, format_shape
from graphcore.base.source import name_scope
from graphcore.functional.activations import shifted
from graphcore.functional.loss_terms import check_reduction, pair, reduced, weighted, wide
from graphcore.ir.node import mismatch

# fmt: off
__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "kl_div",
    "nll_loss",
]
# fmt: on


def _class_axis(name: str, x: Tensor) -> int:
    if x.ndim == 0:
        raise fail(ShapeError, f"{name}: the input has no class axis; it is (N, C), (C,) or (N, C, d1, ...)", x)
    return 0 if x.ndim == 1 else 1


def _indices(name: str, x: Tensor, target: Tensor, axis: int) -> Tensor:
    """Class indices with the shape of ``x`` without its class axis."""
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    if not agree(target.shape, rest):
        hint = "; drop the last axis with .squeeze(-1)" if target.ndim == x.ndim and target.shape[-1] == 1 else ""
        raise mismatch(
            name,
            x,
            target,
            f"class indices must have the shape {format_shape(rest)} for the input {format_shape(x.shape)}{hint}",
        )
    return taken(target, rest, name, x)


class _Classes:
    """Integer targets against a tensor with a class axis: what every class-index loss needs, as one pass over the
    classes."""

    def __init__(self, name: str, x: Tensor, target: Tensor, axis: int, ignore_index: int | None) -> None:
        self.axis, self.rank = axis, x.ndim
        t = in_range(name, _indices(name, x, target, axis), x.shape[axis], negative=False, allowed=ignore_index)
        self.shape = t.shape
        count = (
            build("dim_value", extent=x.shape[axis], dtype=dtypes.int64)
            if not isinstance(x.shape[axis], int)
            else x.shape[axis]
        )
        dtype = dtypes.position_dtype(x.shape[axis])
        fits = t.dtype.itemsize >= dtype.itemsize and t.dtype.is_signed
        wide = t if fits else cast(t, dtype if t.dtype.itemsize < 4 else dtypes.int64)
        self.valid = logical_and(greater_equal(wide, 0), less(wide, count))
        self.kept = None if ignore_index is None else not_equal(wide, ignore_index)
        column = build("reshape", cast(wide, dtype), shape=tuple(1 if a == axis else e for a, e in enumerate(x.shape)))
        position = build("iota", shape=x.shape, axis=axis, dtype=dtype)
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
    if not agree(w.shape, (x.shape[axis],)):
        raise mismatch(name, x, w, f"the weight must have one element per class, ({x.shape[axis]},)")
    return taken(w, (x.shape[axis],), name, x)


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
        A scalar, or with "none" the shape of the class indices. A computed index that is no class gives NaN.

    Raises:
        ShapeError, DTypeError, OutOfRangeError (FeedError where it is fed): the target does not fit the input.

    >>> cross_entropy([[1.0, 2.0]], [1]).shape
    ()
    """
    check_reduction("cross_entropy", reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise UsageError(f"cross_entropy: label_smoothing is {label_smoothing}, but must be between 0 and 1")
    (x,) = promote("cross_entropy", input, floating=True)
    t = tensor("cross_entropy", target)
    result, x = x.dtype, wide(x)
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
        loss = weighted(classes.pick(w), loss)
    if smoothing:
        smooth = _smooth_part(z, lse, w, axis, classes)
        loss = add(multiply(loss, 1.0 - smoothing), multiply(smooth, smoothing))
    return classes.finish("cross_entropy", loss, w, reduction)


def _smooth_part(z: Tensor, lse: Tensor, w: Tensor | None, axis: int, classes: _Classes) -> Tensor:
    """The mean over classes of -w log p."""
    if w is None:
        return subtract(lse, reductions.mean(z, axis))
    lifted = build("reshape", lse, shape=tuple(1 if a == axis else e for a, e in enumerate(z.shape)))
    per_class = weighted(classes.spread(w), subtract(lifted, z))
    return reductions.mean(per_class, axis)


def _probability_cross_entropy(x: Tensor, target: Tensor, w: Tensor | None, axis: int, smoothing: float) -> Tensor:
    t = taken_as(
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
    surprise = weighted(t, subtract(lse, z))
    if w is not None:
        spread = build("reshape", w, shape=tuple(w.shape[0] if a == axis else 1 for a in range(x.ndim)))
        surprise = weighted(spread, surprise)
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
    check_reduction("nll_loss", reduction)
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
        return classes.finish("nll_loss", loss if w is None else weighted(classes.pick(w), loss), w, reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log target - input) for log probabilities ``input``; "batchmean" divides the sum by the first extent.

    Where the target's probability is 0 the loss and its gradients are 0, whatever the input.

    >>> kl_div([[-1.0, -2.0]], [[0.5, 0.5]], reduction="batchmean").shape
    ()
    """
    a, b = pair("kl_div", input, target)
    with name_scope("kl_div"):
        probability, surprise = (exp(b), subtract(b, a)) if log_target else (b, subtract(log(b), a))
        loss = where(equal(probability, 0), 0.0, multiply(probability, surprise))
        if reduction != "batchmean":
            return reduced("kl_div", loss, reduction)
        if loss.ndim == 0:
            raise fail(ShapeError, "kl_div: reduction 'batchmean' needs a batch axis", loss)
        return divide(reductions.sum(loss), build("dim_value", extent=loss.shape[0], dtype=loss.dtype))


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(target log input + (1 - target) log(1 - input)) for probabilities; logarithms are cut at -100, where their
    gradient is 0.

    >>> binary_cross_entropy([0.5], [1.0]).shape
    ()
    """
    a, b = pair("binary_cross_entropy", input, target)
    with name_scope("binary_cross_entropy"):
        yes, no = clip(log(a), -100.0), clip(log1p(negative(a)), -100.0)
        loss = negative(add(multiply(b, yes), multiply(subtract(1.0, b), no)))
        return reduced("binary_cross_entropy", _rescaled(loss, weight), reduction)


def _rescaled(loss: Tensor, weight: Any) -> Tensor:
    """A loss, or a target, times a weight of its type, as class weights are."""
    return loss if weight is None else multiply(loss, cast(tensor("weight", weight), loss.dtype))


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """binary_cross_entropy(sigmoid(input), target) without overflow or cut; ``pos_weight`` scales the part of positive
    targets.

    >>> binary_cross_entropy_with_logits([0.5], [1.0]).shape
    ()
    """
    a, b = pair("binary_cross_entropy_with_logits", input, target)
    with name_scope("binary_cross_entropy_with_logits"):
        positive = _rescaled(b, pos_weight)
        loss = add(weighted(positive, softplus(negative(a))), weighted(subtract(1.0, b), softplus(a)))
        return reduced("binary_cross_entropy_with_logits", _rescaled(loss, weight), reduction)
