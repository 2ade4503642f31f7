"""Affine maps."""

from __future__ import annotations

import math
from typing import Any

from graphcore import functional as F
from graphcore.api import initializers as init
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.nn.module import Module

__all__ = ["Linear"]


class Linear(Module):
    """y = x W^T + b: (..., in_features) -> (..., out_features).

    Args:
        in_features: extent of the input's last axis.
        out_features: extent of the output's last axis.
        bias: whether b is added.
        dtype: element type of the parameters.

    W of shape (out_features, in_features) and b are drawn from U(-1/sqrt(in_features), 1/sqrt(in_features)), as in
    PyTorch.

    >>> from graphcore import nn
    >>> nn.Linear(784, 10).weight.shape
    (10, 784)
    """

    bias: Variable | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = "float32") -> None:
        self.in_features, self.out_features = in_features, out_features
        bound = fan_in_bound(in_features)
        self.weight = Variable(init.uniform((out_features, in_features), -bound, bound), name="weight", dtype=dtype)
        self.register_parameter(
            "bias", Variable(init.uniform((out_features,), -bound, bound), name="bias", dtype=dtype) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` times the transposed weight, plus the bias."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def fan_in_bound(fan_in: int) -> float:
    """PyTorch's default for weights and biases: Kaiming's uniform bound with a = sqrt(5), which is 1/sqrt(fan_in)."""
    return 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
