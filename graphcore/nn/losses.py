"""Losses as modules: called with (prediction, target). ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``."""

from __future__ import annotations

from typing import Any

from graphcore import functional as F
from graphcore.api.tensor import Tensor
from graphcore.base.errors import UsageError
from graphcore.nn.module import Module

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss"]


class _Loss(Module):
    """Base of losses.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise UsageError(f"{type(self).__name__}: reduction is {reduction!r}; use 'mean', 'sum' or 'none'")
        self.reduction = reduction

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """Cross entropy of logits (N, C, ...) against class numbers (N, ...) or probabilities (N, C, ...).

    Args:
        weight: weights of the classes, of shape (C,).
        ignore_index: targets of this number do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: share of the target that is spread evenly over the classes, in [0, 1].
    """

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index, self.label_smoothing = weight, ignore_index, label_smoothing

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.cross_entropy(
            prediction,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """Negative log likelihood of log-probabilities (N, C, ...) against class numbers (N, ...).

    Args:
        weight: weights of the classes, of shape (C,).
        ignore_index: targets of this number do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index = weight, ignore_index

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.nll_loss(
            prediction, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class MSELoss(_Loss):
    """(prediction - target)^2."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.mse_loss(prediction, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|prediction - target|."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.l1_loss(prediction, target, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of logits against probabilities of the same shape.

    Args:
        weight: factors of the elements' losses.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: factors of the positive class.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = weight, pos_weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.binary_cross_entropy_with_logits(
            prediction, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class HuberLoss(_Loss):
    """d^2 / 2 where d = |prediction - target| is at most ``delta``, else delta (d - delta / 2).

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        delta: where the square ends, positive.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if delta <= 0:
            raise UsageError(f"HuberLoss: delta must be positive, got {delta}")
        self.delta = delta

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.huber_loss(prediction, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """target (log target - prediction), for log probabilities as the prediction.

    Args:
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batchmean"``, the sum divided by the first extent.
        log_target: whether the target holds log probabilities too.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction, self.log_target = reduction, log_target

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar unless the reduction is ``"none"``."""
        return F.kl_div(prediction, target, reduction=self.reduction, log_target=self.log_target)
