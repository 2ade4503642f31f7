"""The devices that tests run on: CPU runtimes, or the one that the environment variable GRAPHCORE_TEST_DEVICE names.

``GRAPHCORE_TEST_DEVICE=opencl:gpu python -m pytest tests/ops`` runs on a GPU what every device must pass. What is about
the schedules of CPUs is skipped then: it has no device.
"""

from __future__ import annotations

import os

__all__ = ["AS_GPU", "CPUS", "INTEL", "RUNTIMES", "RUNTIMES_AND_GPU"]

INTEL = "opencl:intel"
_CHOSEN = os.environ.get("GRAPHCORE_TEST_DEVICE", "")

CPUS = () if _CHOSEN else (INTEL, "opencl:pocl")  # runtimes with the schedules of CPUs
RUNTIMES = (_CHOSEN,) if _CHOSEN else CPUS  # devices of which every test that names none must hold
AS_GPU = _CHOSEN or f"{INTEL}:as-gpu"  # one with the schedules of GPUs
RUNTIMES_AND_GPU = tuple(dict.fromkeys((*RUNTIMES, AS_GPU)))
