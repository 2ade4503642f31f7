"""What losses share: their operands and their reductions."""

from __future__ import annotations

from typing import Any

from graphcore.api import reductions
from graphcore.api.agreement import taken_as
from graphcore.api.operands import aligned, build, cast, fit, promote
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import UsageError

__all__ = ["check_reduction", "pair", "reduced", "weighted", "wide"]


def reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    """A loss per element as its mean, its sum or itself."""
    if reduction == "mean":
        return reductions.mean(loss)
    if reduction == "sum":
        return reductions.sum(loss)
    if reduction == "none":
        return loss
    raise UsageError(f"{name}: reduction is {reduction!r}; use 'mean', 'sum' or 'none'")


def check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise UsageError(f"{name}: reduction is {reduction!r}; use 'mean', 'sum' or 'none'")


def wide(t: Tensor) -> Tensor:
    return cast(t, dtypes.as_dtype(t.dtype.compute))


def pair(name: str, input: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target of one floating type and one shape; numbers broadcast, tensors do not."""
    a, b = promote(name, input, target, floating=True)
    if b.ndim == 0 or a.ndim == 0:
        shape = a.shape if b.ndim == 0 else b.shape
        return fit(a, shape), fit(b, shape)
    hint = (
        "a loss does not broadcast: an (N, 1) output against (N,) targets would compare all pairs; "
        "use .squeeze(-1) or .reshape(x.shape)"
    )
    return a, taken_as(name, a, b, "input and target have different shapes", hint)


def weighted(weight: Any, x: Tensor) -> Tensor:
    """weight * x, and 0 where the weight is 0 and x infinite: what does not count adds nothing and gets no gradient."""
    return build("weigh", *aligned("weighted", weight, x))
