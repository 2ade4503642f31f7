"""The initial value of a variable as PyTorch changes ``.data``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.api import initializers
from graphcore.base.signposts import missing

if TYPE_CHECKING:
    from graphcore.api.variable import Variable

__all__ = ["InitialValue"]


class InitialValue:
    """A variable's initial value, as PyTorch changes ``.data`` in place: each method gives the variable another one and
    returns it.

    Raises:
        SessionError: an open session has used the variable.
    """

    def __init__(self, variable: Variable) -> None:
        self._variable = variable

    def normal_(self, mean: float = 0.0, std: float = 1.0) -> Variable:
        """Normal numbers."""
        v = self._variable
        return self._replaced("data.normal_", initializers.normal(v.shape, mean, std, v.dtype))

    def uniform_(self, a: float = 0.0, b: float = 1.0) -> Variable:
        """Numbers evenly from ``a`` to ``b``."""
        v = self._variable
        return self._replaced("data.uniform_", initializers.uniform(v.shape, a, b, v.dtype))

    def fill_(self, value: float) -> Variable:
        """One number everywhere."""
        v = self._variable
        return self._replaced("data.fill_", initializers.constant(v.shape, value, v.dtype))

    def zero_(self) -> Variable:
        """Zeros."""
        return self.fill_(0)

    def copy_(self, value: Any) -> Variable:
        """An array of the variable's shape."""
        return self._replaced("data.copy_", value)

    def _replaced(self, function: str, initial: Any) -> Variable:
        self._variable.check_unused(function)
        self._variable.set_initial(initial)
        return self._variable

    def __getattr__(self, name: str) -> Any:
        raise missing("Tensor", "data")
