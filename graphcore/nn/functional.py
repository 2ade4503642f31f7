"""The functions of ``graphcore.functional`` under PyTorch's name for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore import functional
from graphcore.base.signposts import missing
from graphcore.functional import *

__all__ = functional.__all__

if not TYPE_CHECKING:  # a checker that saw this would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        raise missing("nn.functional", name)
