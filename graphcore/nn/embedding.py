"""Embedding tables."""

from __future__ import annotations

from typing import Any

from graphcore import functional as F
from graphcore.api import initializers as init
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.errors import UsageError
from graphcore.nn.module import Module

__all__ = ["Embedding"]


class Embedding(Module):
    """Rows of a table by number: indices (...) -> (..., embedding_dim).

    Args:
        num_embeddings: rows of the table.
        embedding_dim: columns of the table.
        padding_idx: a row that gets no gradient, so it stays as it was initialised.
        dtype: element type of the table.

    The table is drawn from the standard normal distribution.

    >>> from graphcore import nn
    >>> nn.Embedding(1000, 64).weight.shape
    (1000, 64)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, dtype: Any = "float32"
    ) -> None:
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise UsageError(f"Embedding: padding_idx {padding_idx} is not one of {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Variable(init.normal((num_embeddings, embedding_dim), std=1.0), name="weight", dtype=dtype)

    def forward(self, indices: Tensor) -> Tensor:
        """Rows of the table, of shape (*indices.shape, embedding_dim)."""
        return F.embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
