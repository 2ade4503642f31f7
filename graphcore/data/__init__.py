"""Data sets and loaders: what feeds a training loop with batches of NumPy arrays."""

from __future__ import annotations

from graphcore.data.dataset import Dataset, Subset, TensorDataset, collate, random_split
from graphcore.data.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "collate", "random_split"]
