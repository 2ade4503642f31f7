"""Pooling."""

from __future__ import annotations

from graphcore import functional as F
from graphcore.api.tensor import Tensor
from graphcore.nn.conv import pair
from graphcore.nn.module import Module

__all__ = ["AvgPool2d", "MaxPool2d"]


class _Pool2d(Module):
    """Window, step and padding of a pooling layer."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("stride", stride)
        self.padding = pair("padding", padding)
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}" + (
            "" if self.padding == (0, 0) else f", padding={self.padding}"
        )


class MaxPool2d(_Pool2d):
    """The maximum of each window: (N, C, H, W) -> (N, C, H', W').

    Args:
        kernel_size: height and width of the window, or one number for both.
        stride: step of the window; the window's size if None.
        padding: elements of minus infinity on each side.
        dilation: step between the elements of a window.
        ceil_mode: whether partial windows at the end count.

    >>> from graphcore import nn
    >>> nn.MaxPool2d(2).stride
    (2, 2)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = pair("dilation", dilation)

    def forward(self, x: Tensor) -> Tensor:
        """The windows' maxima."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool2d(_Pool2d):
    """The mean of each window: (N, C, H, W) -> (N, C, H', W').

    Args:
        kernel_size: height and width of the window, or one number for both.
        stride: step of the window; the window's size if None.
        padding: zeros on each side.
        ceil_mode: whether partial windows at the end count.
        count_include_pad: whether the padding's zeros count as elements of their windows.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """The windows' means."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
