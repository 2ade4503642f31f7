"""Fixtures that several files use, and the repository's root on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.sessions import DEVICES, ROOT, opened

import graphcore as gc

# Tests read `benchmarks`, which is not installed; only `python -m pytest` finds it by itself.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


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
    with opened("opencl:intel") as session:
        yield session
