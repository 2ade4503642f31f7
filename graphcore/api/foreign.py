"""What NumPy and habits from elsewhere ask of tensors: functions as methods, other names, ufuncs, NumPy's functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from graphcore.api import creation, elementwise, indexing, logic, padding, products, reductions, shaping, special
from graphcore.api.tensor import Tensor
from graphcore.base.errors import UsageError
from graphcore.base.signposts import SAME, SAME_METHODS, missing

__all__ = ["FUNCTIONS", "METHODS", "array_function", "array_ufunc", "other_name"]

# The functions of the package by name, and those of them that take the tensor first.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(module, name)
    for module in (creation, elementwise, indexing, logic, padding, products, reductions, shaping, special)
    for name in module.__all__
    if name not in ("Basic", "basic_index", "getitem")  # of the indexing itself
}
_TENSOR_NOT_FIRST = {
    *({*creation.__all__} - {"full_like", "ones_like", "tril", "triu", "zeros_like"}),
    *("add_n", "broadcast_arrays", "concat", "concatenate", "dim_value", "einsum", "stack", "where"),
}
METHODS = {name: f for name, f in FUNCTIONS.items() if name not in _TENSOR_NOT_FIRST}

# Ufuncs that NumPy calls for an operator with an array on its left: the operator, and the reflected one.
_OPERATORS = {
    "add": ("__add__", "__radd__"),
    "subtract": ("__sub__", "__rsub__"),
    "multiply": ("__mul__", "__rmul__"),
    "divide": ("__truediv__", "__rtruediv__"),
    "floor_divide": ("__floordiv__", "__rfloordiv__"),
    "remainder": ("__mod__", "__rmod__"),
    "power": ("__pow__", "__rpow__"),
    "matmul": ("__matmul__", "__rmatmul__"),
    "bitwise_and": ("__and__", "__rand__"),
    "bitwise_or": ("__or__", "__ror__"),
    "bitwise_xor": ("__xor__", "__rxor__"),
    "left_shift": ("__lshift__", "__rlshift__"),
    "right_shift": ("__rshift__", "__rrshift__"),
    "less": ("__lt__", "__gt__"),
    "less_equal": ("__le__", "__ge__"),
    "greater": ("__gt__", "__lt__"),
    "greater_equal": ("__ge__", "__le__"),
    "equal": ("__eq__", "__eq__"),
    "not_equal": ("__ne__", "__ne__"),
}
_COMPARISONS = frozenset({"__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"})
_REDUCTIONS = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
}
_FACTS: dict[Any, Callable[[Tensor], Any]] = {
    np.shape: lambda t: t.shape,
    np.ndim: lambda t: t.ndim,
    np.size: lambda t: t.size,
}


def other_name(self: Tensor, name: str) -> Any:
    """``Tensor.__getattr__``: a function that takes the tensor first, as a method.

    Raises:
        AttributeError: another name; the message says what to write, where that is known.
    """
    function = METHODS.get(SAME_METHODS.get(name, name))
    if function is None:
        raise missing("Tensor", name)
    return partial(function, self)


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """``Tensor.__array_ufunc__``: ``array + t`` builds what ``t`` makes of it.

    Raises:
        UsageError: another ufunc; the message names the function of ours.
    """
    name = ufunc.__name__
    names = _OPERATORS.get(name) if method == "__call__" and len(inputs) == 2 else None
    if names is None:
        whole, ours = (name, name) if method == "__call__" else (f"{name}.{method}", _REDUCTIONS.get(name, name))
        raise UsageError(f"np.{whole} of a symbolic tensor (by __array_ufunc__): {_instead(ours)}")
    if options:
        raise UsageError(
            f"np.{name} of a symbolic tensor takes no {', '.join(options)}: an array cannot hold what has no value "
            f"before a run; write y = array + t for array += t"
        )
    first, second = (
        v[()] if isinstance(v, np.ndarray) and v.ndim == 0 and names[0] in _COMPARISONS else v for v in inputs
    )  # NumPy makes arrays of its numbers before it compares them
    return getattr(first, names[0])(second) if isinstance(first, Tensor) else getattr(second, names[1])(first)


def array_function(self: Tensor, function: Any, types: Any, args: Any, options: Any) -> Any:
    """``Tensor.__array_function__``: NumPy's functions of shapes work; others are refused, by the names of ours."""
    if function in _FACTS and len(args) == 1 and not options:
        return _FACTS[function](args[0])
    raise UsageError(f"np.{function.__name__} of a symbolic tensor: {_instead(function.__name__)}")


def _instead(name: str) -> str:
    ours = SAME.get(name, name)
    if ours in FUNCTIONS or "." in ours:
        return f"write gc.{ours}"
    return "arrays are computed by NumPy before a run, or after it from what sess.run(t) gives"
