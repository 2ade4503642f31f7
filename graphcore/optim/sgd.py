"""Gradient descent with momentum, and RMSprop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphcore.api import elementwise as ew
from graphcore.api.logic import equal, where
from graphcore.api.variable import Variable
from graphcore.base.errors import UsageError
from graphcore.ir.node import Tensor
from graphcore.optim.base import LearningRate, Optimizer, non_negative

__all__ = ["SGD", "RMSprop"]

_Updates = list[tuple[Variable, Tensor]]


class SGD(Optimizer):
    """p <- p - lr d, where d is the gradient g, or with momentum a running sum of gradients b.

    b <- momentum b + (1 - dampening) g, and d = b, or g + momentum b with ``nesterov``.

    Args:
        lr: learning rate (a number, scalar tensor or function of the step count).
        momentum: share of the running sum that stays.
        dampening: share of the gradient that does not enter the running sum (the first one enters whole, as in
            PyTorch).
        weight_decay: g <- g + weight_decay p.
        nesterov: look ahead by one momentum step; needs momentum and no dampening.

    Raises:
        UsageError: a negative number, or nesterov without momentum or with dampening.

    >>> from graphcore import optim
    >>> optim.SGD(lr=0.1, momentum=0.9).lr
    0.1
    """

    def __init__(
        self,
        lr: LearningRate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(lr)
        self.momentum = non_negative("SGD", "momentum", momentum)
        self.dampening = non_negative("SGD", "dampening", dampening)
        self.weight_decay = non_negative("SGD", "weight_decay", weight_decay)
        self.nesterov = nesterov
        if nesterov and (not momentum or dampening):
            raise UsageError("SGD: nesterov needs a momentum and no dampening")

    def _scalars(self, lr: Any, count: Callable[[], Any]) -> dict[str, Tensor]:
        if not (self.momentum and self.dampening):
            return {"lr": lr}
        first = equal(count(), 1)
        return {"lr": lr, "entering": ew.astype(where(first, 1.0, 1.0 - self.dampening), lr.dtype)}

    def _update(self, gradient: Any, variable: Any, scalars: dict[str, Any]) -> _Updates:
        p = variable
        g = gradient + self.weight_decay * p if self.weight_decay else gradient
        if not self.momentum:
            return [(variable, p - scalars["lr"] * g)]
        slot: Any = self._slot(variable, "momentum")
        b = self.momentum * slot + (scalars["entering"] * g if self.dampening else g)
        d = g + self.momentum * b if self.nesterov else b
        return [(variable, p - scalars["lr"] * d), (slot, b)]


class RMSprop(Optimizer):
    """p <- p - lr g / (sqrt(v) + eps) with v <- alpha v + (1 - alpha) g^2, a running mean (Hinton's lecture 6e).

    Args:
        lr: learning rate (a number, scalar tensor or function of the step count).
        alpha: share of the running means that stays.
        eps: added to the root.
        weight_decay: g <- g + weight_decay p.
        momentum: share of a running sum of the steps that stays; 0 for none.
        centered: subtract the squared running mean of gradients from v (Graves, arXiv:1308.0850).

    Raises:
        UsageError: a negative number.

    >>> from graphcore import optim
    >>> optim.RMSprop(lr=0.01).alpha
    0.99
    """

    def __init__(
        self,
        lr: LearningRate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(lr)
        self.alpha = non_negative("RMSprop", "alpha", alpha)
        self.eps = non_negative("RMSprop", "eps", eps)
        self.weight_decay = non_negative("RMSprop", "weight_decay", weight_decay)
        self.momentum = non_negative("RMSprop", "momentum", momentum)
        self.centered = centered

    def _scalars(self, lr: Any, count: Callable[[], Any]) -> dict[str, Tensor]:
        return {"lr": lr}

    def _update(self, gradient: Any, variable: Any, scalars: dict[str, Any]) -> _Updates:
        p = variable
        g = gradient + self.weight_decay * p if self.weight_decay else gradient
        slot: Any = self._slot(variable, "v")
        v = self.alpha * slot + (1 - self.alpha) * (g * g)
        slots: _Updates = [(slot, v)]
        centre = v
        if self.centered:
            mean_slot: Any = self._slot(variable, "mean")
            mean = mean_slot + (1 - self.alpha) * (g - mean_slot)
            slots.append((mean_slot, mean))
            centre = v - mean * mean
        d = g / ew.add(ew.sqrt(centre), self.eps)
        if self.momentum:
            momentum_slot: Any = self._slot(variable, "momentum")
            d = self.momentum * momentum_slot + d
            slots.append((momentum_slot, d))
        return [(variable, p - scalars["lr"] * d), *slots]
