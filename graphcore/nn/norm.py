"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcore import functional as F
from graphcore.api import elementwise as ew
from graphcore.api.tensor import Tensor, carrying
from graphcore.api.variable import Variable
from graphcore.base.dtypes import as_dtype
from graphcore.base.errors import ShapeError, UsageError
from graphcore.ir.node import describe
from graphcore.nn.module import Module

__all__ = ["BatchNorm2d", "LayerNorm"]


class BatchNorm2d(Module):
    """Normalises each channel of (N, C, H, W) over batch and space, then scales and shifts it.

    In training the statistics are the batch's, and a run that computes the output also moves the running ones; in
    evaluation they are the running ones.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of the batch in the running statistics; None for their plain average over all batches.
        affine: whether there are a weight and a bias for each channel (1 and 0 at first).
        track_running_stats: whether running statistics are kept; without them evaluation uses the batch's too.
        dtype: element type of parameters and statistics.

    >>> from graphcore import nn
    >>> sorted(nn.BatchNorm2d(8).state_dict())
    ['bias', 'num_batches_tracked', 'running_mean', 'running_var', 'weight']
    """

    weight: Variable | None
    bias: Variable | None
    running_mean: Variable | None
    running_var: Variable | None
    num_batches_tracked: Variable | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = "float32",
    ) -> None:
        if momentum is not None and not 0 <= momentum <= 1:
            raise UsageError(f"BatchNorm2d: momentum must be between 0 and 1 or None, got {momentum}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        zeros, ones = np.zeros(num_features, as_dtype(dtype).storage), np.ones(num_features, as_dtype(dtype).storage)
        self.register_parameter("weight", Variable(ones, name="weight") if affine else None)
        self.register_parameter("bias", Variable(zeros, name="bias") if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", Variable(zeros, False, "running_mean") if tracked else None)
        self.register_buffer("running_var", Variable(ones, False, "running_var") if tracked else None)
        self.register_buffer(
            "num_batches_tracked", Variable(np.int64(0), False, "num_batches_tracked") if tracked else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` normalised, of its shape.

        Raises:
            ShapeError: no 4 axes, or another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ShapeError(f"BatchNorm2d: takes (N, {self.num_features}, H, W); x is {describe(x)}")
        batch = self.training or not self.track_running_stats
        if not self.training or self.num_batches_tracked is None or self.running_var is None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, batch, 0.0, self.eps)
        count = ew.add(self.num_batches_tracked, 1)
        share: Any = self.momentum
        if share is None:
            share = ew.reciprocal(ew.astype(count, self.running_var.dtype))
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, batch, share, self.eps)
        return carrying(y, ((self.num_batches_tracked, count),))

    def extra_repr(self) -> str:
        flags = (
            ""
            if self.affine and self.track_running_stats
            else f", affine={self.affine}, track_running_stats={self.track_running_stats}"
        )
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}{flags}"


class LayerNorm(Module):
    """Normalises over the last axes, then scales and shifts by a weight and a bias of their shape.

    Args:
        normalized_shape: the extents of the last axes, or one number for the last axis.
        eps: added to the variance.
        elementwise_affine: whether there is a weight (1 at first).
        bias: whether there is also a bias (0 at first).
        dtype: element type of the parameters.

    >>> from graphcore import nn
    >>> nn.LayerNorm(64).weight.shape
    (64,)
    """

    weight: Variable | None
    bias: Variable | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        storage = as_dtype(dtype).storage
        self.register_parameter(
            "weight", Variable(np.ones(shape, storage), name="weight") if elementwise_affine else None
        )
        self.register_parameter(
            "bias", Variable(np.zeros(shape, storage), name="bias") if elementwise_affine and bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` normalised, of its shape."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
