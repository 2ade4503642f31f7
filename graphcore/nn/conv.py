"""Convolutions."""

from __future__ import annotations

import math
from typing import Any

from graphcore import functional as F
from graphcore.api import initializers as init
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.errors import ShapeError, UsageError
from graphcore.nn.linear import fan_in_bound
from graphcore.nn.module import Module

__all__ = ["Conv2d"]


class Conv2d(Module):
    """2-D cross-correlation: (N, in_channels, H, W) -> (N, out_channels, H', W').

    H' = (H + 2 padding - dilation (kernel - 1) - 1) // stride + 1, and W' likewise.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the window, or one number for both.
        stride: step of the window.
        padding: zeros on each side; ``"valid"`` for none, ``"same"`` for an output of the input's size (stride 1, odd
            windows).
        dilation: distance of the window's elements.
        groups: channels are split into this many groups, which do not see each other.
        bias: whether a bias is added to each output channel.
        dtype: element type of the parameters.

    The weight (out_channels, in_channels / groups, height, width) and the bias are drawn from U(-1/sqrt(fan_in),
    1/sqrt(fan_in)), fan_in = in_channels / groups * height * width, as in PyTorch.

    >>> from graphcore import nn
    >>> nn.Conv2d(3, 16, 3, padding=1).weight.shape
    (16, 3, 3, 3)
    """

    bias: Variable | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"Conv2d: {in_channels} input and {out_channels} output channels do not divide into {groups} groups"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = pair("kernel_size", kernel_size), pair("stride", stride)
        self.dilation = pair("dilation", dilation)
        self.padding = _padding(padding, self.kernel_size, self.stride, self.dilation)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = fan_in_bound(math.prod(shape[1:]))
        self.weight = Variable(init.uniform(shape, -bound, bound), name="weight", dtype=dtype)
        self.register_parameter(
            "bias", Variable(init.uniform((out_channels,), -bound, bound), name="bias", dtype=dtype) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The correlation of ``x`` with the weight, plus the bias."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, default in (("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1)):
            value = getattr(self, name)
            text += "" if value == default else f", {name}={value}"
        return text + ("" if self.bias is not None else ", bias=False")


def pair(name: str, value: Any) -> tuple[int, int]:
    """Two numbers from one or two.

    Raises:
        UsageError: something else.
    """
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(values) != 2 or not all(isinstance(v, int) for v in values):
        raise UsageError(f"{name} must be an integer or two of them, got {value!r}")
    return values


def _padding(
    padding: Any, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding != "same":
        return pair("padding", padding)
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if stride != (1, 1) or any(span % 2 for span in spans):
        raise UsageError(
            f"Conv2d: padding='same' needs the stride 1 and a window that is odd after dilation; the "
            f"stride is {stride}, "
            f"the kernel {kernel} with the dilation {dilation}"
        )
    return spans[0] // 2, spans[1] // 2
