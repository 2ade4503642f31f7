"""The functions of ``graphcore.functional`` under PyTorch's name for them."""

from __future__ import annotations

from graphcore.functional import *  # noqa: F403
from graphcore.functional import __all__ as _functions

__all__ = list(_functions)  # noqa: PLE0605
