"""graphcore: define-then-run deep learning on OpenCL.

>>> import graphcore as gc
>>> x = gc.placeholder("float32", (None, 3), name="x")
>>> (x * 2 + 1).shape == x.shape
True
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from graphcore import functional, init, operators, ops, random
from graphcore.creation import *  # noqa: F403
from graphcore.creation import __all__ as _creation
from graphcore.dtypes import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    promote,
    result_type,
    uint8,
    uint16,
    uint32,
    uint64,
)
from graphcore.dtypes import bool_ as bool_
from graphcore.elementwise import *  # noqa: F403
from graphcore.elementwise import __all__ as _elementwise
from graphcore.errors import *  # noqa: F403
from graphcore.errors import __all__ as _errors
from graphcore.gradients import backward, checkpoint, custom_gradient, gradients, hvp, jvp, vjp
from graphcore.graph import Graph, Update
from graphcore.indexing import gather, index_add, one_hot, scatter_add, take, take_along_axis
from graphcore.linear import *  # noqa: F403
from graphcore.linear import __all__ as _linear
from graphcore.node import Node, Tensor, device, enable_grad, grad_enabled, no_grad, set_grad_enabled
from graphcore.padding import pad
from graphcore.reductions import *  # noqa: F403
from graphcore.reductions import __all__ as _reductions
from graphcore.shapes import Dim
from graphcore.shaping import *  # noqa: F403
from graphcore.shaping import __all__ as _shaping
from graphcore.source import name_scope
from graphcore.variable import Variable, constant, placeholder

if TYPE_CHECKING:  # for type checkers, what ``__getattr__`` loads on first use
    from graphcore import data as data
    from graphcore import io as io
    from graphcore import nn as nn
    from graphcore import optim as optim
    from graphcore import session as session
    from graphcore import train as train
    from graphcore import viz as viz
    from graphcore.checks import detect_anomaly as detect_anomaly
    from graphcore.checks import gradcheck as gradcheck
    from graphcore.checks import gradgradcheck as gradgradcheck
    from graphcore.checks import hessian as hessian
    from graphcore.checks import jacobian as jacobian
    from graphcore.dumping import dprint as dprint
    from graphcore.dumping import dump as dump
    from graphcore.session import RunMetadata as RunMetadata
    from graphcore.session import RunOptions as RunOptions
    from graphcore.session import Session as Session
    from graphcore.session import default_session as default_session
    from graphcore.session import function as function

operators.install()

softmax, log_softmax, embedding = functional.softmax, functional.log_softmax, functional.embedding

# fmt: off
# Names that live in modules which are loaded on first use: the module, and the name in it (None: the module itself).
_LAZY: dict[str, tuple[str, str | None]] = {
    **{name: (f"graphcore.{name}", None) for name in ("nn", "optim", "data", "train", "models", "viz", "io", "linalg")},
    **{name: (f"graphcore.{name}", None) for name in ("session", "control", "order")},
    **{name: ("graphcore.session", name) for name in ("Session", "default_session", "function")},
    **{name: ("graphcore.session", name) for name in ("RunOptions", "RunMetadata")},
    **{name: ("graphcore.control", name) for name in ("cond", "while_loop", "scan")},
    **{name: ("graphcore.order", name) for name in ("sort", "argsort", "topk", "searchsorted", "unique", "nonzero")},
    **{name: ("graphcore.order", name) for name in ("cumsum", "cumprod", "scatter")},
    **{name: ("graphcore.checks", name) for name in ("gradcheck", "gradgradcheck", "detect_anomaly")},
    **{name: ("graphcore.checks", name) for name in ("jacobian", "hessian")},
    **{name: ("graphcore.custom", name) for name in ("Function", "kernel", "numpy_op")},
    **{name: ("graphcore.dumping", name) for name in ("dump", "dprint")},
    **{name: ("graphcore.io", name) for name in ("save", "load")},
}

__all__ = [
    *_creation, *_elementwise, *_errors, *_linear, *_reductions, *_shaping, "DType", "bool_", "bfloat16", "float16",
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "promote",
    "result_type", "Dim", "Graph", "Node", "Tensor", "Update", "Variable", "backward", "checkpoint", "constant",
    "custom_gradient", "device", "embedding", "enable_grad", "functional", "gather", "grad_enabled", "gradients", "hvp",
    "index_add", "init", "jvp", "log_softmax", "name_scope", "no_grad", "one_hot", "ops", "pad", "placeholder",
    "random", "scatter_add", "set_grad_enabled", "softmax", "take", "take_along_axis", "vjp",
]
# fmt: on


if not TYPE_CHECKING:  # a checker that saw it would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        """Load a part of the package on first use."""
        if name not in _LAZY:
            raise AttributeError(f"module 'graphcore' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        module_name, attribute = _LAZY[name]
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name != module_name:
                raise
            raise AttributeError(
                f"module 'graphcore' has no attribute {name!r}: {module_name} is not installed"
            ) from None
        if attribute is None:
            return module
        try:
            value = getattr(module, attribute)
        except AttributeError:
            raise AttributeError(
                f"module 'graphcore' has no attribute {name!r}: {module_name} does not have it"
            ) from None
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
