"""Dropout: random zeros, new ones every run; the gradient sees the same mask."""

from __future__ import annotations

from typing import Any

from graphcore.api import random
from graphcore.api.elementwise import add, multiply
from graphcore.api.logic import where
from graphcore.api.operands import fail, fit, promote, training_flag
from graphcore.api.tensor import Tensor
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import Shape, format_shape
from graphcore.base.source import name_scope

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d"]


def _checked(name: str, x: Any, p: float) -> Tensor:
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise UsageError(f"{name}: p is {p!r}, but must be a number between 0 and 1")
    return promote(name, x, floating=True)[0]


def _nothing(t: Tensor) -> Tensor:
    """Zeros in place of ``t``, which gets the gradient 0; of infinities, too."""
    return where(False, t, 0.0)


def _masked(t: Tensor, p: float, shape: Shape) -> Tensor:
    """``t`` / (1 - p) where a draw of ``shape``, which broadcasts, keeps it, else 0."""
    if p == 1:
        return _nothing(t)
    keep = fit(random.bernoulli(1.0 - p, shape), t.shape)
    return where(keep, multiply(t, 1.0 / (1.0 - p)), 0.0)


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Elements zeroed with probability ``p``, the others divided by 1 - p; ``x`` itself unless training.

    Raises:
        UsageError: p is no probability.

    >>> dropout([1.0, 2.0], 0.5).shape
    (2,)
    """
    t = _checked("dropout", x, p)
    if not training_flag("dropout", training) or p == 0:
        return t
    with name_scope("dropout"):
        return _masked(t, p, t.shape)


def _channels(name: str, x: Any, p: float, training: bool, spatial: int) -> Tensor:
    t = _checked(name, x, p)
    if t.ndim != spatial + 2:
        raise fail(ShapeError, f"{name}: takes {spatial + 2} axes, (N, C, ...), got {format_shape(t.shape)}", t)
    if not training_flag(name, training) or p == 0:
        return t
    with name_scope(name):
        return _masked(t, p, (*t.shape[:2], *(1,) * spatial))


def dropout1d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout of whole channels of x (N, C, L).

    >>> dropout1d([[[1.0, 2.0]]]).shape
    (1, 1, 2)
    """
    return _channels("dropout1d", x, p, training, 1)


def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout of whole channels of x (N, C, H, W).

    >>> dropout2d([[[[1.0, 2.0]]]]).shape
    (1, 1, 1, 2)
    """
    return _channels("dropout2d", x, p, training, 2)


def alpha_dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout to selu's lower limit that keeps mean 0 and variance 1 (Klambauer et al., 2017).

    >>> alpha_dropout([1.0, 2.0]).shape
    (2,)
    """
    t = _checked("alpha_dropout", x, p)
    if not training_flag("alpha_dropout", training) or p == 0:
        return t
    if p == 1:
        return _nothing(t)
    limit = -1.7580993408473766
    scale = ((1 - p) * (1 + p * limit**2)) ** -0.5
    with name_scope("alpha_dropout"):
        kept = where(random.bernoulli(1.0 - p, t.shape), t, limit)
        return add(multiply(kept, scale), -scale * p * limit)
