"""Optimizers with PyTorch's formulas and TensorFlow's ``minimize``, and clipping of gradients."""

from __future__ import annotations

from graphcore.optim.adam import Adam, AdamW
from graphcore.optim.base import LearningRate, Optimizer, TrainStep
from graphcore.optim.clip import clip_by_global_norm, clip_by_norm, clip_by_value
from graphcore.optim.sgd import SGD, RMSprop

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "LearningRate",
    "Optimizer",
    "RMSprop",
    "TrainStep",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
]
