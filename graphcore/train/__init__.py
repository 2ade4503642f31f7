"""Training loops and their progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.base.signposts import missing
from graphcore.train.fit import EarlyStop, History, accuracy, fit
from graphcore.train.progress import Progress

__all__ = ["EarlyStop", "History", "Progress", "accuracy", "fit"]

if not TYPE_CHECKING:  # a checker that saw this would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        raise missing("train", name)
