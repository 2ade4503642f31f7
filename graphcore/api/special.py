"""Special functions, elementwise. Operands broadcast and promote as in NumPy; integers are taken as float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcore.api.elementwise import divide, multiply, real, sqrt
from graphcore.api.logic import equal, where
from graphcore.api.operands import aligned, build, promote
from graphcore.api.tensor import Tensor
from graphcore.base.errors import UsageError

# fmt: off
__all__ = [
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "hypot",
    "lgamma",
    "logaddexp",
    "polygamma",
    "softplus",
]
# fmt: on

erf = real("erf", "The error function")
erfc = real("erfc", "1 - erf(x)")
erfinv = real("erfinv", "The inverse of erf")
lgamma = real("lgamma", "The logarithm of the absolute gamma function")
digamma = real("digamma", "The derivative of lgamma")


def polygamma(n: int, x: Any) -> Tensor:
    """The n-th derivative of digamma (n = 0: digamma itself), elementwise. Any shape; integers are taken as float32.

    Raises:
        UsageError: ``n`` is no integer of at least 0, or ``x`` no tensor, number or array.

    >>> polygamma(1, [0.5]).shape
    (1,)
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise UsageError(f"polygamma: n is {n!r}, but must be an integer of at least 0")
    return build("polygamma", *promote("polygamma", x, floating=True), order=int(n)) if n else digamma(x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e ** (beta x)) / beta, elementwise and without overflow (``threshold`` is accepted for PyTorch's sake;
    nothing needs it).

    >>> softplus([0.0]).shape
    (1,)
    """
    (t,) = promote("softplus", x, floating=True)
    return build("softplus", t) if beta == 1 else divide(build("softplus", multiply(t, beta)), beta)


def logaddexp(x1: Any, x2: Any) -> Tensor:
    """log(e ** x1 + e ** x2), elementwise and without overflow. Shapes broadcast. Equals share the gradient, also equal
    infinities.

    >>> logaddexp([0.0], 1.0).shape
    (1,)
    """
    return build("log_add_exp", *aligned("logaddexp", x1, x2, floating=True))


def hypot(x1: Any, x2: Any) -> Tensor:
    """sqrt(x1 ** 2 + x2 ** 2), elementwise, without overflow; the gradient at the origin is 0.

    >>> hypot([3.0], [4.0]).shape
    (1,)
    """
    return build("hypot", *aligned("hypot", x1, x2, floating=True))


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root with gradient 0, not infinity, at 0."""
    zero = equal(x, 0)
    return where(zero, x, sqrt(where(zero, 1.0, x)))
