"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphcore.api import elementwise as ew
from graphcore.api.variable import Variable
from graphcore.ir.node import Tensor
from graphcore.optim.base import LearningRate, Optimizer, non_negative

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """p <- p - lr m' / (sqrt(v') + eps), with running means of g and g^2 corrected for their start (arXiv:1412.6980).

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  m' = m / (1 - b1^t),  v' = v / (1 - b2^t) in step t = 1, 2, ...

    Args:
        lr: learning rate (a number, scalar tensor or function of the step count).
        betas: b1 and b2, in [0, 1).
        eps: added to the root.
        weight_decay: g <- g + weight_decay p.

    Raises:
        UsageError: a number out of its range.

    >>> from graphcore import optim
    >>> optim.Adam(lr=1e-3).betas
    (0.9, 0.999)
    """

    _decoupled = False

    def __init__(
        self,
        lr: LearningRate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr)
        name = type(self).__name__
        b1, b2 = betas
        self.betas = (non_negative(name, "betas[0]", b1, 1.0), non_negative(name, "betas[1]", b2, 1.0))
        self.eps = non_negative(name, "eps", eps)
        self.weight_decay = non_negative(name, "weight_decay", weight_decay)

    def _scalars(self, lr: Any, count: Callable[[], Any]) -> dict[str, Tensor]:
        t = count()
        b1, b2 = self.betas
        scalars = {"rate": lr / _correction(b1, t), "root": ew.rsqrt(_correction(b2, t))}
        if self._decoupled and self.weight_decay:
            scalars["kept"] = 1 - lr * self.weight_decay
        return scalars

    def _update(self, gradient: Any, variable: Any, scalars: dict[str, Any]) -> list[tuple[Variable, Tensor]]:
        p = variable
        g = gradient
        if self.weight_decay and self._decoupled:
            p = p * scalars["kept"]
        elif self.weight_decay:
            g = g + self.weight_decay * p
        b1, b2 = self.betas
        m_slot: Any = self._slot(variable, "m")
        v_slot: Any = self._slot(variable, "v")
        m = m_slot + (1 - b1) * (g - m_slot)
        v = b2 * v_slot + (1 - b2) * (g * g)
        step = scalars["rate"] * m / (ew.sqrt(v) * scalars["root"] + self.eps)
        return [(variable, p - step), (m_slot, m), (v_slot, v)]


class AdamW(Adam):
    """Adam with decoupled weight decay: p <- (1 - lr weight_decay) p before the step (arXiv:1711.05101).

    Args:
        lr: learning rate (a number, scalar tensor or function of the step count).
        betas: shares of the running means that stay, in [0, 1).
        eps: added to the root.
        weight_decay: the decay.

    >>> from graphcore import optim
    >>> optim.AdamW(lr=1e-3).weight_decay
    0.01
    """

    _decoupled = True

    def __init__(
        self,
        lr: LearningRate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)


def _correction(beta: float, t: Any) -> Any:
    """1 - beta^t, by expm1: in float32 the difference itself would lose five digits for beta = 0.999 at t = 1."""
    return ew.negative(ew.expm1(t * math.log(beta))) if beta else 1.0
