"""graphcore: define-then-run deep learning on OpenCL.

This file is a table: every public name, and the module that it is loaded from on first use. It imports nothing else, so
that every file of the package can import what it needs at its top.

>>> import graphcore as gc
>>> x = gc.placeholder("float32", (None, 3), name="x")
>>> (x * 2 + 1).shape == x.shape
True
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, what ``__getattr__`` loads on first use
    from graphcore import data as data
    from graphcore import functional as functional
    from graphcore import io as io
    from graphcore import nn as nn
    from graphcore import ops as ops
    from graphcore import optim as optim
    from graphcore import train as train
    from graphcore import viz as viz
    from graphcore.api import initializers
    from graphcore.api import random as random
    from graphcore.api.creation import *  # noqa: F403
    from graphcore.api.elementwise import *  # noqa: F403
    from graphcore.api.gradients import *  # noqa: F403
    from graphcore.api.indexing import *  # noqa: F403
    from graphcore.api.logic import *  # noqa: F403
    from graphcore.api.padding import *  # noqa: F403
    from graphcore.api.products import *  # noqa: F403
    from graphcore.api.reductions import *  # noqa: F403
    from graphcore.api.shaping import *  # noqa: F403
    from graphcore.api.special import *  # noqa: F403
    from graphcore.api.tensor import Tensor as Tensor
    from graphcore.api.variable import Update as Update
    from graphcore.api.variable import Variable as Variable
    from graphcore.api.variable import constant as constant
    from graphcore.api.variable import placeholder as placeholder
    from graphcore.base.dtypes import *  # noqa: F403
    from graphcore.base.errors import *  # noqa: F403
    from graphcore.base.notices import BuildWarning as BuildWarning
    from graphcore.base.notices import DeviceWarning as DeviceWarning
    from graphcore.base.notices import DTypeWarning as DTypeWarning
    from graphcore.base.notices import GraphcoreWarning as GraphcoreWarning
    from graphcore.base.notices import ResultWarning as ResultWarning
    from graphcore.base.shapes import Dim as Dim
    from graphcore.base.source import name_scope as name_scope
    from graphcore.functional import embedding as embedding
    from graphcore.functional import log_softmax as log_softmax
    from graphcore.functional import softmax as softmax
    from graphcore.ir.graph import Graph as Graph
    from graphcore.ir.node import Node as Node
    from graphcore.ir.node import device as device
    from graphcore.ir.node import enable_grad as enable_grad
    from graphcore.ir.node import grad_enabled as grad_enabled
    from graphcore.ir.node import no_grad as no_grad
    from graphcore.ir.node import set_grad_enabled as set_grad_enabled
    from graphcore.runtime import session as session
    from graphcore.runtime.options import RunMetadata as RunMetadata
    from graphcore.runtime.options import RunOptions as RunOptions
    from graphcore.runtime.session import Session as Session
    from graphcore.runtime.session import default_session as default_session
    from graphcore.runtime.session import function as function
    from graphcore.tools.gradcheck import *  # noqa: F403
    from graphcore.tools.pictures import dprint as dprint
    from graphcore.tools.pictures import dump as dump

    init = initializers

# Modules and the names that are loaded from them. What is public in them is here and nothing else; a test compares.
_NAMES = {
    "graphcore.base.dtypes": """
        DType bfloat16 bool_ float16 float32 float64 int16 int32 int64 int8 promote result_type uint16 uint32 uint64
        uint8
    """,
    "graphcore.base.errors": """
        CompileError DTypeError DeviceError FeedError FormatError GradientError GraphError GraphcoreError
        OutOfMemoryError OutOfRangeError SessionError ShapeError UsageError VerifyError
    """,
    "graphcore.base.notices": "BuildWarning DTypeWarning DeviceWarning GraphcoreWarning ResultWarning",
    "graphcore.base.shapes": "Dim",
    "graphcore.base.source": "name_scope",
    "graphcore.ir.graph": "Graph",
    "graphcore.ir.node": "Node device enable_grad grad_enabled no_grad set_grad_enabled",
    "graphcore.api.operators": "Tensor",
    "graphcore.api.creation": """
        arange array asarray eye full full_like linspace meshgrid ones ones_like tril triu zeros zeros_like
    """,
    "graphcore.api.elementwise": """
        abs acos acosh add add_n asin asinh astype atan atan2 atanh ceil copysign cos cosh divide exp exp2 expm1
        floor floor_divide log log10 log1p log2 maximum minimum multiply negative positive pow reciprocal relu
        remainder round rsqrt sigmoid sign sin sinh sqrt square stop_gradient subtract tan tanh trunc
    """,
    "graphcore.api.gradients": "backward checkpoint custom_gradient gradients hvp jvp vjp",
    "graphcore.api.indexing": "gather index_add one_hot scatter_add take take_along_axis",
    "graphcore.api.logic": """
        bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor clip equal
        greater greater_equal isclose isfinite isinf isnan less less_equal logical_and logical_not logical_or
        logical_xor nan_to_num not_equal signbit where
    """,
    "graphcore.api.padding": "pad",
    "graphcore.api.products": "diagonal dot einsum matmul outer tensordot trace vecdot",
    "graphcore.api.reductions": """
        all amax amin any argmax argmin count_nonzero logsumexp max mean min norm prod std sum var
    """,
    "graphcore.api.shaping": """
        broadcast_arrays broadcast_to concat concatenate dim_value expand_dims flatten flip matrix_transpose moveaxis
        permute permute_dims repeat reshape roll split squeeze stack swapaxes tile transpose unsqueeze unstack
    """,
    "graphcore.api.special": "digamma erf erfc erfinv hypot lgamma logaddexp polygamma softplus",
    "graphcore.api.variable": "Update Variable constant placeholder",
    "graphcore.functional": "embedding log_softmax softmax",
    "graphcore.runtime.options": "RunMetadata RunOptions",
    "graphcore.runtime.session": "Session default_session function",
    "graphcore.tools.gradcheck": "detect_anomaly gradcheck gradgradcheck hessian jacobian",
    "graphcore.tools.pictures": "dprint dump",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
# Names that stand for whole modules.
_MODULES = {
    **{name: f"graphcore.{name}" for name in ("data", "functional", "io", "nn", "ops", "optim", "train", "viz")},
    "init": "graphcore.api.initializers",
    "random": "graphcore.api.random",
    "session": "graphcore.runtime.session",
}

if not TYPE_CHECKING:  # a checker that saw these would take every name for one of the package's
    __all__ = sorted({*_HOME, *_MODULES})

    def __getattr__(name: str) -> Any:
        """Load a part of the package on first use."""
        if name in _MODULES:
            value: Any = importlib.import_module(_MODULES[name])
        elif name in _HOME:
            value = getattr(importlib.import_module(_HOME[name]), name)
        else:
            return _carried_over(name)
        globals()[name] = value
        return value


def _carried_over(name: str) -> Any:
    """What a name of another library means here, where that is the same; else an error that says what to write."""
    module = sys.modules[__name__]
    if name.startswith("__"):
        raise AttributeError(f"module 'graphcore' has no attribute {name!r}", name=name, obj=module)
    signposts = importlib.import_module("graphcore.base.signposts")
    if name not in signposts.SAME:
        raise signposts.missing("gc", name)
    return functools.reduce(getattr, signposts.SAME[name].split("."), module)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
