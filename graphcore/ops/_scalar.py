"""Ops that are one function of the table of scalar functions, elementwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.ir.op import Map
from graphcore.kernel import expr, functions, interpret
from graphcore.kernel.expr import Expr

__all__ = ["Scalar", "computed"]


def computed(function: Callable[..., Any], *inputs: Any) -> Any:
    """A NumPy function of operands of one type: computed in the compute type, rounded back to the storage type."""
    stored = inputs[0].dtype
    wide = np.dtype(dtypes.as_dtype(stored).compute)
    with np.errstate(all="ignore"):
        return np.asarray(function(*(x.astype(wide) for x in inputs))).astype(stored)


class Scalar(Map):
    """One function of ``kernel.functions``: ``fn``, or else of the op's own name."""

    fn: ClassVar[str] = ""

    def function(self, dtype: DType) -> str:
        """The function's name, for operands of a type."""
        return self.fn or self.name

    def scalar(self, *args: Expr) -> Expr:
        return expr.call(self.function(args[0].dtype), *args)

    def reference(self, *inputs: Any) -> Any:
        name = self.function(dtypes.as_dtype(inputs[0].dtype))
        if functions.lookup(name).test:
            return np.asarray(interpret.apply(name, *inputs))
        return computed(lambda *wide: interpret.apply(name, *wide), *inputs)
