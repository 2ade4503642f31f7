"""Dropout, and modules that only change the shape or nothing."""

from __future__ import annotations

from typing import Any

from graphcore import functional as F
from graphcore.api.shaping import flatten
from graphcore.api.tensor import Tensor
from graphcore.base.errors import UsageError
from graphcore.nn.module import Module

__all__ = ["Dropout", "Flatten", "Identity"]


class Dropout(Module):
    """Zeroes elements with probability ``p`` and scales the others by 1/(1-p) in training; the input in evaluation.

    Args:
        p: probability of a zero, in [0, 1].

    >>> from graphcore import nn
    >>> nn.Dropout(0.2)
    Dropout(p=0.2)
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise UsageError(f"Dropout: p is a probability between 0 and 1, got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with new zeros in every run."""
        return F.dropout(x, self.p, training=True) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """The axes from ``start_dim`` to ``end_dim`` made one: (N, C, H, W) -> (N, C*H*W) by default.

    Args:
        start_dim: first axis to join.
        end_dim: last axis to join.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in the new shape."""
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Its input. Takes any arguments of a constructor, so that it can stand in for another layer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Arguments are ignored."""

    def forward(self, x: Any) -> Any:
        """``x``."""
        return x
