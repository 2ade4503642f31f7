"""Training loops and their progress."""

from __future__ import annotations

from graphcore.train.fit import EarlyStop, History, accuracy, fit
from graphcore.train.progress import Progress

__all__ = ["EarlyStop", "History", "Progress", "accuracy", "fit"]
