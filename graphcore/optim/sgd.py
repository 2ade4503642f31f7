"""Gradient descent with momentum, and RMSprop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphcore.api import elementwise as ew
from graphcore.api.logic import equal, where
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.errors import UsageError
from graphcore.optim.base import Optimizer
from graphcore.optim.groups import LearningRate, Parameters, checked_rate, non_negative

__all__ = ["SGD", "RMSprop"]


class SGD(Optimizer):
    """p <- p - lr d, where d is the gradient g, or with momentum a running sum of gradients b.

    b <- momentum b + (1 - dampening) g, and d = b, or g + momentum b with ``nesterov``.

    Args:
        params: what to train: parameters, a module, or groups of parameters with options; None for what ``minimize``
            finds. A learning rate may stand here alone.
        lr: learning rate (a number, scalar tensor or function of the step count).
        momentum: share of the running sum that stays.
        dampening: share of the gradient that does not enter the running sum (the first one enters whole, as in
            PyTorch).
        weight_decay: g <- g + weight_decay p.
        nesterov: look ahead by one momentum step; needs momentum and no dampening.
        name: a part of the checkpoint keys, for a second optimizer of the same variables.

    The state of a parameter is ``momentum_buffer`` (b).

    Raises:
        UsageError: a negative number, or nesterov without momentum or with dampening.

    >>> from graphcore import optim
    >>> optim.SGD(lr=0.1, momentum=0.9).lr
    0.1
    """

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    slot_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Parameters = None,
        lr: LearningRate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **options}, name)

    @classmethod
    def _checked(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {n: non_negative("SGD", n, options[n]) for n in ("momentum", "dampening", "weight_decay")}
        nesterov = bool(options["nesterov"])
        if nesterov and (not numbers["momentum"] or numbers["dampening"]):
            raise UsageError("SGD: nesterov needs a momentum and no dampening")
        return {"lr": checked_rate("SGD", options["lr"]), **numbers, "nesterov": nesterov}

    def _scalars(self, lr: Any, count: Callable[[], Any], options: Mapping[str, Any]) -> dict[str, Tensor]:
        if not (options["momentum"] and options["dampening"]):
            return {"lr": lr}
        first = equal(count(), 1)
        return {"lr": lr, "entering": ew.astype(where(first, 1.0, 1.0 - options["dampening"]), lr.dtype)}

    def _update(
        self, gradient: Any, variable: Any, scalars: dict[str, Any], options: Mapping[str, Any]
    ) -> list[tuple[Variable, Tensor]]:
        p, momentum = variable, options["momentum"]
        g = gradient + options["weight_decay"] * p if options["weight_decay"] else gradient
        if not momentum:
            return [(variable, p - scalars["lr"] * g)]
        slot: Any = self._slot(variable, "momentum_buffer")
        b = momentum * slot + (scalars["entering"] * g if options["dampening"] else g)
        d = g + momentum * b if options["nesterov"] else b
        return [(variable, p - scalars["lr"] * d), (slot, b)]


class RMSprop(Optimizer):
    """p <- p - lr g / (sqrt(v) + eps) with v <- alpha v + (1 - alpha) g^2, a running mean (Hinton's lecture 6e).

    Args:
        params: what to train: parameters, a module, or groups of parameters with options; None for what ``minimize``
            finds. A learning rate may stand here alone.
        lr: learning rate (a number, scalar tensor or function of the step count).
        alpha: share of the running means that stays.
        eps: added to the root.
        weight_decay: g <- g + weight_decay p.
        momentum: share of a running sum of the steps that stays; 0 for none.
        centered: subtract the squared running mean of gradients from v (Graves, arXiv:1308.0850).
        name: a part of the checkpoint keys, for a second optimizer of the same variables.

    The state of a parameter is ``square_avg`` (v), ``grad_avg`` and ``momentum_buffer``.

    Raises:
        UsageError: a negative number.

    >>> from graphcore import optim
    >>> optim.RMSprop(lr=0.01).alpha
    0.99
    """

    alpha: float
    eps: float
    weight_decay: float
    momentum: float
    centered: bool
    slot_names = ("square_avg", "grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Parameters = None,
        lr: LearningRate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        options = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
        super().__init__(params, {"lr": lr, **options}, name)

    @classmethod
    def _checked(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {n: non_negative("RMSprop", n, options[n]) for n in ("alpha", "eps", "weight_decay", "momentum")}
        return {"lr": checked_rate("RMSprop", options["lr"]), **numbers, "centered": bool(options["centered"])}

    def _scalars(self, lr: Any, count: Callable[[], Any], options: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"lr": lr}

    def _update(
        self, gradient: Any, variable: Any, scalars: dict[str, Any], options: Mapping[str, Any]
    ) -> list[tuple[Variable, Tensor]]:
        p, alpha = variable, options["alpha"]
        g = gradient + options["weight_decay"] * p if options["weight_decay"] else gradient
        slot: Any = self._slot(variable, "square_avg")
        v = alpha * slot + (1 - alpha) * (g * g)
        slots: list[tuple[Variable, Tensor]] = [(slot, v)]
        centre = v
        if options["centered"]:
            mean_slot: Any = self._slot(variable, "grad_avg")
            mean = mean_slot + (1 - alpha) * (g - mean_slot)
            slots.append((mean_slot, mean))
            centre = v - mean * mean
        d = g / ew.add(ew.sqrt(centre), options["eps"])
        if options["momentum"]:
            momentum_slot: Any = self._slot(variable, "momentum_buffer")
            d = options["momentum"] * momentum_slot + d
            slots.append((momentum_slot, d))
        return [(variable, p - scalars["lr"] * d), *slots]
