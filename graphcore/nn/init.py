"""What PyTorch's ``nn.init`` does to parameters: replaces their initial values, before a session uses them.

Weights are laid out (outputs, inputs, ...), as layers have them. Each function returns the variable, and raises
SessionError if an open session has used it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphcore.api import initializers
from graphcore.api.variable import Variable
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import format_shape

# fmt: off
__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "orthogonal_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]
# fmt: on

_GAINS = {"relu": math.sqrt(2.0), "tanh": 5.0 / 3.0, "selu": 0.75}
_PLAIN = ("linear", "sigmoid", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By what a nonlinearity's layer should scale its weights.

    Args:
        nonlinearity: ``"linear"``, ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"selu"``, ``"leaky_relu"`` or a layer's.
        param: the slope of a leaky ReLU, 0.01 by default.

    Raises:
        UsageError: another name.

    >>> calculate_gain("linear")
    1.0
    """
    if nonlinearity in _PLAIN:
        return 1.0
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        known = ", ".join((*_PLAIN, *_GAINS, "leaky_relu"))
        raise UsageError(f"calculate_gain: no nonlinearity {nonlinearity!r}; use one of {known}")
    return _GAINS[nonlinearity]


def _replaced(function: str, variable: Any, initial: Any) -> Variable:
    _usable(function, variable).set_initial(initial)
    return variable  # type: ignore[no-any-return]


def _usable(function: str, variable: Any) -> Variable:
    """A variable that no session has used."""
    if not isinstance(variable, Variable):
        raise UsageError(f"{function}: expected a Variable, such as a module's weight, got {type(variable).__name__}")
    variable.check_unused(function)
    return variable


def uniform_(tensor: Variable, a: float = 0.0, b: float = 1.0) -> Variable:
    """Numbers evenly from ``a`` to ``b``."""
    v = _usable("uniform_", tensor)
    return _replaced("uniform_", v, initializers.uniform(v.shape, a, b, v.dtype))


def normal_(tensor: Variable, mean: float = 0.0, std: float = 1.0) -> Variable:
    """Normal numbers."""
    v = _usable("normal_", tensor)
    return _replaced("normal_", v, initializers.normal(v.shape, mean, std, v.dtype))


def trunc_normal_(tensor: Variable, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Variable:
    """Normal numbers between ``a`` and ``b``."""
    v = _usable("trunc_normal_", tensor)
    low, high = (a - mean) / std, (b - mean) / std
    return _replaced("trunc_normal_", v, initializers.truncated_normal(v.shape, mean, std, low, high, v.dtype))


def constant_(tensor: Variable, val: float) -> Variable:
    """One number everywhere."""
    v = _usable("constant_", tensor)
    return _replaced("constant_", v, initializers.constant(v.shape, val, v.dtype))


def ones_(tensor: Variable) -> Variable:
    """Ones."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Variable) -> Variable:
    """Zeros."""
    return constant_(tensor, 0.0)


def eye_(tensor: Variable) -> Variable:
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    v = _usable("eye_", tensor)
    return _replaced("eye_", v, initializers.eye(v.shape, dtype=v.dtype))


def dirac_(tensor: Variable, groups: int = 1) -> Variable:
    """A convolution's weight that keeps as many channels of its input as it can, in each of ``groups``.

    Raises:
        ShapeError: no weight of a convolution, or outputs that the groups do not divide.
    """
    v = _usable("dirac_", tensor)
    if v.ndim not in (3, 4, 5) or v.shape[0] % groups:
        raise ShapeError(
            f"dirac_: takes a convolution's weight whose outputs {groups} groups divide, got {format_shape(v.shape)}"
        )
    array = np.zeros(v.shape, v.dtype.storage)
    outputs = array.shape[0] // groups
    middle = tuple(extent // 2 for extent in array.shape[2:])
    for group in range(groups):
        for i in range(min(outputs, array.shape[1])):
            array[(group * outputs + i, i, *middle)] = 1
    return _replaced("dirac_", v, array)


def xavier_uniform_(tensor: Variable, gain: float = 1.0) -> Variable:
    """Uniform with variance gain ** 2 * 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""
    return _spread("xavier_uniform_", tensor, gain, True, None)


def xavier_normal_(tensor: Variable, gain: float = 1.0) -> Variable:
    """Normal with variance gain ** 2 * 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""
    return _spread("xavier_normal_", tensor, gain, False, None)


def kaiming_uniform_(
    tensor: Variable, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Variable:
    """Uniform with variance gain ** 2 / fan (He et al., 2015), ``a`` being a leaky ReLU's slope."""
    return _spread("kaiming_uniform_", tensor, calculate_gain(nonlinearity, a), True, mode)


def kaiming_normal_(
    tensor: Variable, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Variable:
    """Normal with variance gain ** 2 / fan (He et al., 2015), ``a`` being a leaky ReLU's slope."""
    return _spread("kaiming_normal_", tensor, calculate_gain(nonlinearity, a), False, mode)


def orthogonal_(tensor: Variable, gain: float = 1.0) -> Variable:
    """Rows or columns of length ``gain`` that are orthogonal to each other, the later axes taken as one."""
    v = _usable("orthogonal_", tensor)
    return _replaced("orthogonal_", v, initializers.orthogonal(v.shape, gain, v.dtype))


def _spread(function: str, tensor: Any, gain: float, flat: bool, mode: str | None) -> Variable:
    """Numbers of a variance by a weight's inputs and outputs, by ``mode`` or their mean."""
    v = _usable(function, tensor)
    if v.ndim < 2:
        raise ShapeError(f"{function}: takes a weight of at least 2 axes, got {format_shape(v.shape)}")
    if mode not in (None, "fan_in", "fan_out"):
        raise UsageError(f"{function}: mode is {mode!r}; use 'fan_in' or 'fan_out'")
    inputs, outputs = initializers.fans(v.shape, 1, 0)
    fan = (inputs + outputs) / 2 if mode is None else inputs if mode == "fan_in" else outputs
    std = gain / math.sqrt(max(fan, 1))
    if flat:
        bound = math.sqrt(3.0) * std
        return _replaced(function, v, initializers.uniform(v.shape, -bound, bound, v.dtype))
    return _replaced(function, v, initializers.normal(v.shape, 0.0, std, v.dtype))
