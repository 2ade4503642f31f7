"""Lookups by index."""

from __future__ import annotations

from typing import Any

from graphcore.api import indexing
from graphcore.api.elementwise import stop_gradient
from graphcore.api.logic import not_equal, where
from graphcore.api.operands import build, fail, in_range, tensor
from graphcore.api.tensor import Tensor
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import format_shape

__all__ = ["embedding", "one_hot"]


def embedding(indices: Any, weight: Any, padding_idx: int | None = None) -> Tensor:
    """Rows of a table: indices (...) and weight (V, D) give (..., D).

    Args:
        indices: integers from 0 to V - 1. A computed one out of range gives a row of NaN, constant and fed ones raise.
        weight: (V, D).
        padding_idx: a row that gets no gradient.

    Raises:
        DTypeError: indices that are no integers (the two arguments may be swapped).
        ShapeError: the weight is no matrix.

    >>> embedding([[0, 1]], [[1.0], [2.0], [3.0]]).shape
    (1, 2, 1)
    """
    at, table = tensor("embedding", indices), tensor("embedding", weight)
    if not at.dtype.is_integer:
        swapped = (
            "; the order is embedding(indices, weight)"
            if table.dtype.is_integer
            else "; cast them with .astype('int64')"
        )
        raise fail(DTypeError, f"embedding: the indices are {at.dtype}, but must be integers{swapped}", at, table)
    if table.ndim != 2:
        raise fail(ShapeError, f"embedding: the weight is {format_shape(table.shape)}, but must be (V, D)", at, table)
    at = in_range("embedding", at, table.shape[0], negative=False)
    rows = build("take", table, at, axis=0)
    if padding_idx is None:
        return rows
    pad = padding_idx if padding_idx >= 0 else padding_idx + int(table.shape[0])
    real = build("reshape", not_equal(at, pad), shape=(*at.shape, 1))
    return where(real, rows, stop_gradient(rows))


def one_hot(x: Any, num_classes: int) -> Tensor:
    """PyTorch's one_hot: integers (...) give int64 (..., num_classes).

    >>> one_hot([0, 2], 3).dtype
    int64
    """
    if num_classes < 1:
        raise fail(
            ShapeError,
            f"one_hot: num_classes is {num_classes}, but must be known and positive while building",
            tensor("one_hot", x),
        )
    return indexing.one_hot(x, num_classes, "int64")
