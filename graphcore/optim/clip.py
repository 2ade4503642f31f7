"""Clipping of gradients, between ``compute_gradients`` and ``apply_gradients``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphcore.api import elementwise as ew
from graphcore.api.logic import clip
from graphcore.api.reductions import sum as sum_of
from graphcore.api.special import safe_sqrt
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.errors import UsageError
from graphcore.optim.groups import non_negative

__all__ = ["clip_by_global_norm", "clip_by_norm", "clip_by_value"]


def clip_by_value(gradients: Any, low: float, high: float) -> Any:
    """Gradients with every element limited to ``low`` .. ``high``.

    Args:
        gradients: a tensor, or a list of tensors, of None or of (gradient, variable) pairs.
        low: smallest value.
        high: largest value.

    Returns:
        What was given, clipped.

    Raises:
        UsageError: ``low`` is above ``high``.
    """
    if low > high:
        raise UsageError(f"clip_by_value: low {low} is above high {high}")
    return _mapped(lambda g: clip(g, low, high), gradients)


def clip_by_norm(gradients: Any, max_norm: float) -> Any:
    """Each gradient scaled so that its own Euclidean norm is at most ``max_norm``; a shorter one is untouched.

    Args:
        gradients: a tensor, or a list of tensors, of None or of (gradient, variable) pairs.
        max_norm: the limit.

    Returns:
        What was given, clipped.
    """
    limit = _limit("clip_by_norm", max_norm)
    return _mapped(lambda g: ew.multiply(g, _factor(_squared(g), limit)[0]), gradients)


def clip_by_global_norm(gradients: Sequence[Any], max_norm: float) -> tuple[list[Any], Tensor]:
    """All gradients scaled by one factor so that the norm of all elements together is at most ``max_norm``.

    Args:
        gradients: a list of tensors, of None or of (gradient, variable) pairs.
        max_norm: the limit.

    Returns:
        The list, clipped, and the norm before clipping (a scalar tensor).

    Raises:
        UsageError: no gradients.

    >>> from graphcore.api.variable import Variable
    >>> clipped, norm = clip_by_global_norm([Variable([3.0, 4.0])], 1.0)
    >>> norm.shape
    ()
    """
    limit = _limit("clip_by_global_norm", max_norm)
    present = [g for g in map(_gradient_of, gradients) if g is not None]
    if not present:
        raise UsageError("clip_by_global_norm: there are no gradients")
    factor, norm = _factor(ew.add_n([_squared(g) for g in present]), limit)
    return _mapped(lambda g: ew.multiply(g, ew.astype(factor, g.dtype)), list(gradients)), norm


def _limit(op: str, value: float) -> float:
    limit = non_negative(op, "max_norm", value)
    if not limit:
        raise UsageError(f"{op}: max_norm must be positive")
    return limit


def _squared(g: Tensor) -> Tensor:
    return sum_of(ew.square(g))


def _factor(squared: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """What to multiply by (exactly 1 within the limit), and the norm. Differentiable at 0."""
    norm = safe_sqrt(squared)
    return ew.divide(limit, ew.maximum(norm, limit)), norm


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Variable)


def _gradient_of(item: Any) -> Any:
    return item[0] if _is_pair(item) else item


def _mapped(function: Any, gradients: Any) -> Any:
    if gradients is None:
        return None
    if _is_pair(gradients):
        return _mapped(function, gradients[0]), gradients[1]
    if isinstance(gradients, (list, tuple)):
        return type(gradients)([_mapped(function, g) for g in gradients])
    return function(gradients)
