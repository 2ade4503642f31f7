"""Data sets and loaders: what feeds a training loop with batches of NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.base.signposts import missing
from graphcore.data.dataset import Dataset, Subset, TensorDataset, collate, random_split
from graphcore.data.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "collate", "random_split"]

if not TYPE_CHECKING:  # a checker that saw this would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        raise missing("data", name)
