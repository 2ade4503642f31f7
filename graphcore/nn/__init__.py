"""Layers, losses and containers, with PyTorch's names and constructor arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.base.signposts import missing
from graphcore.nn import functional, init, utils
from graphcore.nn.activation import (
    GELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from graphcore.nn.containers import ModuleList, Sequential
from graphcore.nn.conv import Conv2d
from graphcore.nn.dropout import Dropout, Flatten, Identity
from graphcore.nn.embedding import Embedding
from graphcore.nn.linear import Linear
from graphcore.nn.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
)
from graphcore.nn.module import IncompatibleKeys, Module
from graphcore.nn.norm import BatchNorm2d, LayerNorm
from graphcore.nn.parameters import Buffer, Parameter, ParameterDict, ParameterList
from graphcore.nn.pooling import AvgPool2d, MaxPool2d

__all__ = [
    "GELU",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "HuberLoss",
    "Identity",
    "IncompatibleKeys",
    "KLDivLoss",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
    "init",
    "utils",
]

if not TYPE_CHECKING:  # a checker that saw this would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        raise missing("nn", name)
