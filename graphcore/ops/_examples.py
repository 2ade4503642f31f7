"""Operand arrays for the ops' ``examples``: small, seeded, away from the points where an op is not differentiable."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["booleans", "floats", "integers", "positive", "unit"]


def floats(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Normal numbers, no closer than 0.05 to zero."""
    values = np.random.default_rng(seed + 7 * len(shape)).standard_normal(shape)
    return (values + np.sign(values) * 0.05).astype(dtype)


def positive(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Numbers in 0.3 .. 2.3."""
    return (np.random.default_rng(seed + 1).random(shape) * 2 + 0.3).astype(dtype)


def unit(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Numbers in -0.9 .. 0.9, no closer than 0.05 to zero."""
    values = np.random.default_rng(seed + 2).random(shape) * 1.7 - 0.85
    return (values + np.sign(values) * 0.05).astype(dtype)


def integers(*shape: int, low: int = -20, high: int = 20, dtype: str = "int32", seed: int = 0) -> Any:
    return np.random.default_rng(seed + 3).integers(low, high, shape).astype(dtype)


def booleans(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed + 4).random(shape) > 0.5
