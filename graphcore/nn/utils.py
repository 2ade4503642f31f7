"""What acts on the ``.grad`` of parameters between ``backward()`` and ``step()``, while building."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from graphcore.api import elementwise as ew
from graphcore.api import reductions
from graphcore.api.logic import clip
from graphcore.api.shaping import stack
from graphcore.api.special import safe_sqrt
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable, constant
from graphcore.base.errors import UsageError

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def clip_grad_norm_(parameters: Any, max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale the ``.grad`` of parameters by one factor, so that the norm of all of them together is at most
    ``max_norm``.

    Args:
        parameters: a variable, or an iterable of them; those without a ``.grad`` are left out.
        max_norm: the limit, positive.
        norm_type: 2, another positive number, or infinity.

    Returns:
        The norm before, a float32 scalar tensor (0 if there are no gradients). The factor is PyTorch's, ``max_norm /
        (norm + 1e-6)`` and at most 1.

    Raises:
        UsageError: a limit or a type of norm that is not positive.
    """
    if not max_norm > 0 or not norm_type > 0:
        raise UsageError(f"clip_grad_norm_: max_norm and norm_type must be positive, got {max_norm} and {norm_type}")
    held = _with_gradients(parameters)
    if not held:
        return constant(0.0)
    norm = _norm([g for _, g in held], norm_type)
    factor = clip(ew.divide(float(max_norm), ew.add(norm, 1e-6)), None, 1.0)
    for variable, g in held:
        variable.grad = ew.multiply(g, ew.astype(factor, g.dtype))
    return norm


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Limit every element of the ``.grad`` of parameters to ``-clip_value`` .. ``clip_value``.

    Args:
        parameters: a variable, or an iterable of them; those without a ``.grad`` are left out.
        clip_value: the limit, positive.

    Raises:
        UsageError: a limit that is not positive.
    """
    if not clip_value > 0:
        raise UsageError(f"clip_grad_value_: clip_value must be positive, got {clip_value}")
    for variable, g in _with_gradients(parameters):
        variable.grad = clip(g, -float(clip_value), float(clip_value))


def _with_gradients(parameters: Any) -> list[tuple[Variable, Tensor]]:
    listed: Iterable[Any] = [parameters] if isinstance(parameters, Variable) else parameters
    return [(v, v.grad) for v in listed if v.grad is not None]


def _norm(gradients: list[Tensor], kind: float) -> Tensor:
    """The norm of all elements together, in float32."""
    wide = [ew.astype(g, "float32") for g in gradients]
    if math.isinf(kind):
        return reductions.max(stack([reductions.max(ew.abs(g)) for g in wide]))
    if kind == 2:
        return safe_sqrt(ew.add_n([reductions.sum(ew.square(g)) for g in wide]))
    return ew.pow(ew.add_n([reductions.sum(ew.pow(ew.abs(g), kind)) for g in wide]), 1.0 / kind)
