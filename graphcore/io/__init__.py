"""Files: checkpoints of arrays in the safetensors format."""

from __future__ import annotations

from graphcore.io.checkpoint import load_arrays, save_arrays

__all__ = ["load_arrays", "save_arrays"]
