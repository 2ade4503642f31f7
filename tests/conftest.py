"""Fixtures that several files use, and the repository's root on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.device_names import INTEL
from support.sessions import DEVICES, ROOT, opened

import graphcore as gc

# Tests read `benchmarks`, which is not installed; only `python -m pytest` finds it by itself.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

_STATES: dict[str, Any] = {}  # of the generators when their files were imported


@pytest.fixture(autouse=True)
def own_random_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of a file draws the same numbers, whichever ran before it: the generator ``RNG`` starts anew."""
    module = request.module
    if isinstance(getattr(module, "RNG", None), np.random.Generator):
        fresh = np.random.default_rng()
        fresh.bit_generator.state = _STATES.setdefault(module.__name__, module.RNG.bit_generator.state)
        monkeypatch.setattr(module, "RNG", fresh)


@pytest.fixture(params=DEVICES)
def sess(request: pytest.FixtureRequest) -> Iterator[gc.Session]:
    """An open session on every device that is there."""
    with opened(request.param) as session:
        yield session


@pytest.fixture
def fast() -> Iterator[gc.Session]:
    """A session where the device does not matter."""
    with gc.Session("numpy:kernels") as session:
        yield session


@pytest.fixture
def intel() -> Iterator[gc.Session]:
    """A session on Intel's OpenCL runtime."""
    with opened(INTEL) as session:
        yield session
