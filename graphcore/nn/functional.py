"""The functions of ``graphcore.functional`` under PyTorch's name for them."""

from __future__ import annotations

from graphcore import functional
from graphcore.functional import *

__all__ = functional.__all__
