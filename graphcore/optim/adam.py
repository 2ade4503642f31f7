"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from graphcore.api import elementwise as ew
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.optim.base import Optimizer
from graphcore.optim.groups import LearningRate, Parameters, checked_rate, non_negative

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """p <- p - lr m' / (sqrt(v') + eps), with running means of g and g^2 corrected for their start (arXiv:1412.6980).

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  m' = m / (1 - b1^t),  v' = v / (1 - b2^t) in step t = 1, 2, ...

    Args:
        params: what to train: parameters, a module, or groups of parameters with options; None for what ``minimize``
            finds. A learning rate may stand here alone.
        lr: learning rate (a number, scalar tensor or function of the step count).
        betas: b1 and b2, in [0, 1).
        eps: added to the root.
        weight_decay: g <- g + weight_decay p.
        name: a part of the checkpoint keys, for a second optimizer of the same variables.

    The state of a parameter is ``exp_avg`` (m) and ``exp_avg_sq`` (v).

    Raises:
        UsageError: a number out of its range.

    >>> from graphcore import optim
    >>> optim.Adam(lr=1e-3).betas
    (0.9, 0.999)
    """

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    slot_names = ("exp_avg", "exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Parameters = None,
        lr: LearningRate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, name)

    @classmethod
    def _checked(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        b1, b2 = options["betas"]
        op = cls.__name__
        return {
            "lr": checked_rate(op, options["lr"]),
            "betas": (non_negative(op, "betas[0]", b1, 1.0), non_negative(op, "betas[1]", b2, 1.0)),
            "eps": non_negative(op, "eps", options["eps"]),
            "weight_decay": non_negative(op, "weight_decay", options["weight_decay"]),
        }

    def _scalars(self, lr: Any, count: Callable[[], Any], options: Mapping[str, Any]) -> dict[str, Tensor]:
        t = count()
        b1, b2 = options["betas"]
        scalars = {"rate": lr / _correction(b1, t), "root": ew.rsqrt(_correction(b2, t))}
        if self._decoupled and options["weight_decay"]:
            scalars["kept"] = 1 - lr * options["weight_decay"]
        return scalars

    def _update(
        self, gradient: Any, variable: Any, scalars: dict[str, Any], options: Mapping[str, Any]
    ) -> list[tuple[Variable, Tensor]]:
        p = variable
        g = gradient
        decay = options["weight_decay"]
        if decay and self._decoupled:
            p = p * scalars["kept"]
        elif decay:
            g = g + decay * p
        b1, b2 = options["betas"]
        m_slot: Any = self._slot(variable, "exp_avg")
        v_slot: Any = self._slot(variable, "exp_avg_sq")
        m = m_slot + (1 - b1) * (g - m_slot)
        v = b2 * v_slot + (1 - b2) * (g * g)
        step = scalars["rate"] * m / (ew.sqrt(v) * scalars["root"] + options["eps"])
        return [(variable, p - step), (m_slot, m), (v_slot, v)]


class AdamW(Adam):
    """Adam with decoupled weight decay: p <- (1 - lr weight_decay) p before the step (arXiv:1711.05101).

    Args:
        params: what to train: parameters, a module, or groups of parameters with options; None for what ``minimize``
            finds. A learning rate may stand here alone.
        lr: learning rate (a number, scalar tensor or function of the step count).
        betas: shares of the running means that stay, in [0, 1).
        eps: added to the root.
        weight_decay: the decay.
        name: a part of the checkpoint keys, for a second optimizer of the same variables.

    >>> from graphcore import optim
    >>> optim.AdamW(lr=1e-3).weight_decay
    0.01
    """

    _decoupled = True

    def __init__(
        self,
        params: Parameters = None,
        lr: LearningRate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, name=name)


def _correction(beta: float, t: Any) -> Any:
    """1 - beta^t, by expm1: in float32 the difference itself would lose five digits for beta = 0.999 at t = 1."""
    return ew.negative(ew.expm1(t * math.log(beta))) if beta else 1.0
