"""What the tests of sessions share: devices, and sessions on those that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from graphcore.api.tensor import Tensor
from support.device_names import RUNTIMES

__all__ = ["DEVICES", "ROOT", "exactly", "launching_freely", "opened"]

ROOT = Path(__file__).resolve().parents[2]
DEVICES = ("numpy", "numpy:kernels", *RUNTIMES)


def opened(device: str, **options: Any) -> gc.Session:
    """A session; skips the test where the device is not there."""
    try:
        return gc.Session(device, **options)
    except gc.DeviceError as error:
        pytest.skip(f"no {device}: {error}")


def launching_freely(session: gc.Session, patch: pytest.MonkeyPatch) -> gc.Session:
    """The session with kernels that cost nothing to launch, so that small graphs are cut as large ones are."""
    backend: Any = session._backend
    patch.setattr(
        backend,
        "target",
        replace(
            backend.target, costs=replace(backend.target.costs, launch_seconds=0.0, row_seconds=0.0, task_seconds=0.0)
        ),
    )
    return session


def exactly(build: Callable[..., Sequence[Tensor]], arrays: Sequence[Any]) -> list[Any]:
    """What ``build`` makes of arrays, by NumPy in float64."""
    with gc.Session("numpy") as oracle:
        wide = {gc.placeholder("float64", a.shape): a.astype(np.float64) for a in arrays}
        return list(oracle.run(list(build(*wide)), wide))
