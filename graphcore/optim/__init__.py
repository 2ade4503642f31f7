"""Optimizers with PyTorch's formulas and TensorFlow's ``minimize``, and clipping of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.base.signposts import missing
from graphcore.optim.adam import Adam, AdamW
from graphcore.optim.base import Optimizer, TrainStep
from graphcore.optim.clip import clip_by_global_norm, clip_by_norm, clip_by_value
from graphcore.optim.groups import LearningRate, ParamGroup
from graphcore.optim.sgd import SGD, RMSprop

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "LearningRate",
    "Optimizer",
    "ParamGroup",
    "RMSprop",
    "TrainStep",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
]

if not TYPE_CHECKING:  # a checker that saw this would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        raise missing("optim", name)
