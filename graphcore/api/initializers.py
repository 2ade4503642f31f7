"""Initial values of variables: objects with a shape, a dtype and ``sample(rng)``, drawn by NumPy when a session first
uses them.

Weights of rank 2 count as (in, out), as in ``x @ w``; of higher rank as convolution kernels (out, in, height, width).
Pass ``in_axis=1, out_axis=0`` for PyTorch's (out, in) matrices.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.shapes import Shape, as_shape, format_shape, is_static
from graphcore.ir.leaves import Constant

# fmt: off
__all__ = [
    "Initializer",
    "constant",
    "eye",
    "fans",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
# fmt: on


@dataclass(frozen=True)
class Initializer:
    """A recipe for an array.

    Attributes:
        shape: its extents.
        dtype: its element type.
        kind: the name of the recipe.
        draw: from a generator and the shape to an array.
    """

    shape: tuple[int, ...]
    dtype: DType
    kind: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], Any]

    def sample(self, rng: np.random.Generator) -> Any:
        """A new array of the shape and storage type."""
        return np.asarray(self.draw(rng, self.shape)).astype(self.dtype.storage)

    def __repr__(self) -> str:
        return f"init.{self.kind}({format_shape(self.shape)}, {self.dtype})"


def generator(seed: int, key: str, rank: int) -> np.random.Generator:
    """The generator of an initial value: of the variable with this checkpoint key that is the ``rank``-th of those with
    the key, from 0, where a seed of 64 bits is set. Nothing else has a part in it."""
    words = np.frombuffer(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "<u4")
    return np.random.default_rng([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, rank, *map(int, words)])


def _make(
    kind: str,
    shape: Any,
    dtype: Any,
    draw: Callable[[np.random.Generator, tuple[int, ...]], Any],
    floating: bool = True,
) -> Initializer:
    extents: Shape = as_shape(shape)
    if not is_static(extents):
        raise ShapeError(f"init.{kind}: the shape {format_shape(extents)} is symbolic; variables need fixed extents")
    found = dtypes.as_dtype(dtype)
    if floating and not found.is_float:
        raise DTypeError(f"init.{kind}: the dtype is {found}, but must be a floating type")
    return Initializer(tuple(int(e) for e in extents), found, kind, draw)


def constant(shape: Any, value: float, dtype: Any = "float32") -> Initializer:
    """One number everywhere.

    >>> constant((2, 3), 0.1).shape
    (2, 3)
    """
    try:
        held = Constant.of(value, dtypes.as_dtype(dtype)).array
    except DTypeError as error:
        raise DTypeError(f"init.constant: {error}; give a wider dtype") from None
    return _make("constant", shape, dtype, lambda rng, s: np.full(s, held), False)


def zeros(shape: Any, dtype: Any = "float32") -> Initializer:
    """Zeros.

    >>> zeros((10,)).shape
    (10,)
    """
    return _make("zeros", shape, dtype, lambda rng, s: np.zeros(s), False)


def ones(shape: Any, dtype: Any = "float32") -> Initializer:
    """Ones.

    >>> ones((10,)).shape
    (10,)
    """
    return _make("ones", shape, dtype, lambda rng, s: np.ones(s), False)


def uniform(shape: Any, low: float = -0.05, high: float = 0.05, dtype: Any = "float32") -> Initializer:
    """Numbers evenly from ``low`` to ``high``.

    >>> uniform((2, 3), -1.0, 1.0).shape
    (2, 3)
    """
    return _make("uniform", shape, dtype, lambda rng, s: rng.uniform(low, high, s))


def normal(shape: Any, mean: float = 0.0, std: float = 0.05, dtype: Any = "float32") -> Initializer:
    """Normal numbers.

    >>> normal((2, 3), std=0.02).shape
    (2, 3)
    """
    return _make("normal", shape, dtype, lambda rng, s: rng.normal(mean, std, s))


def _truncated(rng: np.random.Generator, shape: tuple[int, ...], lower: float = -2.0, upper: float = 2.0) -> Any:
    """Standard normal numbers between bounds: draws outside are drawn again (bounds far in a tail would take long)."""
    values = rng.standard_normal(shape)
    while True:
        out = (values < lower) | (values > upper)
        if not out.any():
            return values
        values[out] = rng.standard_normal(int(out.sum()))


def truncated_normal(
    shape: Any, mean: float = 0.0, std: float = 0.05, lower: float = -2.0, upper: float = 2.0, dtype: Any = "float32"
) -> Initializer:
    """Normal numbers no farther from the mean than ``lower`` and ``upper`` standard deviations.

    >>> truncated_normal((2, 3), std=0.02).shape
    (2, 3)
    """
    if not lower < upper or lower > 4 or upper < -4 or upper - lower < 1e-3:
        raise UsageError(
            f"init.truncated_normal: lower {lower} and upper {upper} must be some way apart and within 4 standard "
            f"deviations of the mean"
        )
    return _make(
        "truncated_normal",
        shape,
        dtype,
        lambda rng, s: mean + std * _truncated(rng, np.atleast_1d(np.empty(s)).shape, lower, upper).reshape(s),
    )


def fans(shape: Any, in_axis: int | None = None, out_axis: int | None = None) -> tuple[int, int]:
    """Inputs and outputs of one unit of a weight: the axes' extents times the extents of all other axes.

    >>> fans((784, 10)), fans((64, 3, 5, 5))
    ((784, 10), (75, 1600))
    """
    extents = tuple(int(e) for e in as_shape(shape))
    if len(extents) < 2:
        raise ShapeError(
            f"init: the shape {format_shape(extents)} has no input and output axes; this initializer needs at least 2 "
            f"axes"
        )
    default = (0, 1) if len(extents) == 2 else (1, 0)
    i, o = (default[0] if in_axis is None else in_axis), (default[1] if out_axis is None else out_axis)
    if not all(-len(extents) <= a < len(extents) for a in (i, o)) or i % len(extents) == o % len(extents):
        raise ShapeError(f"init: in_axis {i} and out_axis {o} must be two axes of {format_shape(extents)}")
    field = math.prod(e for a, e in enumerate(extents) if a not in (i % len(extents), o % len(extents)))
    return extents[i] * field, extents[o] * field


def _scaled(kind: str, shape: Any, variance: float, flat: bool, dtype: Any) -> Initializer:
    """Zero-mean numbers of a variance, uniform or normal."""
    spread = math.sqrt(variance)
    if flat:
        bound = math.sqrt(3.0) * spread
        return _make(kind, shape, dtype, lambda rng, s: rng.uniform(-bound, bound, s))
    return _make(kind, shape, dtype, lambda rng, s: rng.normal(0.0, spread, s))


def xavier_uniform(
    shape: Any, gain: float = 1.0, dtype: Any = "float32", in_axis: int | None = None, out_axis: int | None = None
) -> Initializer:
    """Uniform with variance gain ** 2 * 2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    >>> xavier_uniform((784, 10)).shape
    (784, 10)
    """
    return _scaled("xavier_uniform", shape, gain**2 * 2 / max(sum(fans(shape, in_axis, out_axis)), 1), True, dtype)


def xavier_normal(
    shape: Any, gain: float = 1.0, dtype: Any = "float32", in_axis: int | None = None, out_axis: int | None = None
) -> Initializer:
    """Normal with variance gain ** 2 * 2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    >>> xavier_normal((784, 10)).shape
    (784, 10)
    """
    return _scaled("xavier_normal", shape, gain**2 * 2 / max(sum(fans(shape, in_axis, out_axis)), 1), False, dtype)


def _fan(shape: Any, mode: str, in_axis: int | None, out_axis: int | None) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise UsageError(f"init: mode is {mode!r}; use 'fan_in' or 'fan_out'")
    return max(fans(shape, in_axis, out_axis)[mode == "fan_out"], 1)


def he_uniform(
    shape: Any,
    a: float = 0.0,
    mode: str = "fan_in",
    dtype: Any = "float32",
    in_axis: int | None = None,
    out_axis: int | None = None,
) -> Initializer:
    """Uniform with variance 2 / ((1 + a ** 2) fan), for ReLU or leaky ReLU of slope ``a`` (He et al., 2015).

    >>> he_uniform((784, 10)).shape
    (784, 10)
    """
    return _scaled("he_uniform", shape, 2 / ((1 + a * a) * _fan(shape, mode, in_axis, out_axis)), True, dtype)


def he_normal(
    shape: Any,
    a: float = 0.0,
    mode: str = "fan_in",
    dtype: Any = "float32",
    in_axis: int | None = None,
    out_axis: int | None = None,
) -> Initializer:
    """Normal with variance 2 / ((1 + a ** 2) fan), for ReLU or leaky ReLU of slope ``a`` (He et al., 2015).

    >>> he_normal((784, 10)).shape
    (784, 10)
    """
    return _scaled("he_normal", shape, 2 / ((1 + a * a) * _fan(shape, mode, in_axis, out_axis)), False, dtype)


def lecun_uniform(
    shape: Any, dtype: Any = "float32", in_axis: int | None = None, out_axis: int | None = None
) -> Initializer:
    """Uniform with variance 1 / fan_in.

    >>> lecun_uniform((784, 10)).shape
    (784, 10)
    """
    return _scaled("lecun_uniform", shape, 1 / _fan(shape, "fan_in", in_axis, out_axis), True, dtype)


def lecun_normal(
    shape: Any, dtype: Any = "float32", in_axis: int | None = None, out_axis: int | None = None
) -> Initializer:
    """Normal with variance 1 / fan_in.

    >>> lecun_normal((784, 10)).shape
    (784, 10)
    """
    return _scaled("lecun_normal", shape, 1 / _fan(shape, "fan_in", in_axis, out_axis), False, dtype)


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal


def orthogonal(shape: Any, gain: float = 1.0, dtype: Any = "float32") -> Initializer:
    """A matrix of orthonormal rows or columns, whichever are fewer; axes after the first count as one (Saxe et al.,
    2014).

    >>> orthogonal((64, 32)).shape
    (64, 32)
    """
    extents = as_shape(shape)
    if len(extents) < 2:
        raise ShapeError(f"init.orthogonal: the shape {format_shape(extents)} needs at least 2 axes")

    def draw(rng: np.random.Generator, s: tuple[int, ...]) -> Any:
        rows, columns = s[0], math.prod(s[1:])
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # the sign makes the distribution uniform
        return gain * (q if rows >= columns else q.T).reshape(s)

    return _make("orthogonal", shape, dtype, draw)


def eye(shape: Any, gain: float = 1.0, dtype: Any = "float32") -> Initializer:
    """``gain`` on the diagonal of a matrix, zeros elsewhere.

    >>> eye((3, 3)).shape
    (3, 3)
    """
    extents = as_shape(shape)
    if len(extents) != 2:
        raise ShapeError(f"init.eye: the shape {format_shape(extents)} is no matrix's")
    return _make("eye", shape, dtype, lambda rng, s: gain * np.eye(s[0], s[1]))
