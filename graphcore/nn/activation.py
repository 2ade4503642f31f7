"""Activations as modules; elementwise unless they say otherwise."""

from __future__ import annotations

from graphcore import functional as F
from graphcore.api import elementwise
from graphcore.api.tensor import Tensor
from graphcore.nn.module import Module

__all__ = ["GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return elementwise.relu(x)


class GELU(Module):
    """x Phi(x), Phi the normal distribution function; with ``approximate="tanh"`` its tanh approximation.

    Args:
        approximate: ``"none"`` or ``"tanh"``.
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """x Phi(x)."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x sigmoid(x), also called swish."""

    def forward(self, x: Tensor) -> Tensor:
        """x sigmoid(x)."""
        return F.silu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x))."""
        return elementwise.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """tanh(x)."""
        return elementwise.tanh(x)


class LeakyReLU(Module):
    """x where x > 0, else ``negative_slope`` x.

    Args:
        negative_slope: the slope below 0.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """x or negative_slope x."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class _OverAxis(Module):
    """A function over one axis.

    Args:
        dim: the axis.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_OverAxis):
    """exp(x) / sum(exp(x)) over the axis ``dim``."""

    def forward(self, x: Tensor) -> Tensor:
        """Positive numbers that add up to 1 along the axis."""
        return F.softmax(x, self.dim)


class LogSoftmax(_OverAxis):
    """x - log(sum(exp(x))) over the axis ``dim``."""

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of the softmax."""
        return F.log_softmax(x, self.dim)
