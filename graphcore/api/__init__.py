"""What users call on tensors. Importing anything here registers the primitives and gives tensors their operators."""

from graphcore import ops
from graphcore.api import operators

__all__ = ["operators", "ops"]
