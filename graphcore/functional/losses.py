"""Losses of numbers and distances: PyTorch's signatures and reductions ("mean", "sum", "none")."""

from __future__ import annotations

from typing import Any

from graphcore.api import reductions
from graphcore.api.elementwise import abs, add, divide, exp, log, maximum, multiply, negative, relu, square, subtract
from graphcore.api.logic import clip, equal, where
from graphcore.api.operands import promote
from graphcore.api.special import safe_sqrt, softplus
from graphcore.api.tensor import Tensor
from graphcore.base.errors import UsageError
from graphcore.base.source import name_scope
from graphcore.functional.loss_terms import pair, reduced, weighted

# fmt: off
__all__ = [
    "cosine_similarity",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
]
# fmt: on


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(input - target) ** 2. Shapes must be equal.

    Raises:
        ShapeError: the shapes differ.

    >>> mse_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    a, b = pair("mse_loss", input, target)
    with name_scope("mse_loss"):
        return reduced("mse_loss", square(subtract(a, b)), reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """|input - target|. Shapes must be equal.

    >>> l1_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    a, b = pair("l1_loss", input, target)
    with name_scope("l1_loss"):
        return reduced("l1_loss", abs(subtract(a, b)), reduction)


def _quadratic_near_zero(distance: Tensor, delta: float) -> Tensor:
    """d ** 2 / 2 for |d| < delta, else delta (|d| - delta / 2), smooth at 0: c (d - c / 2) with c = d cut to -delta ..
    delta."""
    near = clip(distance, -delta, delta)
    return multiply(near, subtract(distance, multiply(near, 0.5)))


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d ** 2 / 2 for |d| = |input - target| < delta, else delta (|d| - delta / 2).

    >>> huber_loss([1.0, 2.0], [1.0, 0.0]).shape
    ()
    """
    if delta <= 0:
        raise UsageError(f"huber_loss: delta is {delta}, but must be positive")
    a, b = pair("huber_loss", input, target)
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
    a, b = pair("smooth_l1_loss", input, target)
    with name_scope("smooth_l1_loss"):
        return reduced("smooth_l1_loss", divide(_quadratic_near_zero(subtract(a, b), beta), beta), reduction)


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """log(1 + e ** (-target input)) for targets 1 and -1.

    >>> soft_margin_loss([0.5], [1.0]).shape
    ()
    """
    a, b = pair("soft_margin_loss", input, target)
    return reduced("soft_margin_loss", softplus(negative(multiply(a, b))), reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """input where the target is 1, max(0, margin - input) where it is -1.

    >>> hinge_embedding_loss([0.5], [1.0]).shape
    ()
    """
    a, b = pair("hinge_embedding_loss", input, target)
    return reduced("hinge_embedding_loss", where(equal(b, 1.0), a, relu(subtract(margin, a))), reduction)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Tensor:
    """max(0, -target (input1 - input2) + margin).

    >>> margin_ranking_loss([0.5], [0.1], [1.0]).shape
    ()
    """
    a, b = pair("margin_ranking_loss", input1, input2)
    return reduced("margin_ranking_loss", relu(add(multiply(negative(target), subtract(a, b)), margin)), reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, eps: float = 1e-8, reduction: str = "mean"
) -> Tensor:
    """e ** input - target input (with ``log_input``), else input - target log(input + eps).

    >>> poisson_nll_loss([0.5], [1.0]).shape
    ()
    """
    a, b = pair("poisson_nll_loss", input, target)
    loss = subtract(exp(a), weighted(b, a)) if log_input else subtract(a, weighted(b, log(add(a, eps))))
    return reduced("poisson_nll_loss", loss, reduction)


def gaussian_nll_loss(input: Any, target: Any, var: Any, eps: float = 1e-6, reduction: str = "mean") -> Tensor:
    """(log var + (input - target) ** 2 / var) / 2, with variances of at least ``eps`` (constant for gradients where
    cut).

    >>> gaussian_nll_loss([0.5], [1.0], [0.1]).shape
    ()
    """
    a, b = pair("gaussian_nll_loss", input, target)
    v = maximum(promote("gaussian_nll_loss", a, var)[1], eps)
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
