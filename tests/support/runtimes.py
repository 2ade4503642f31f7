"""One OpenCL runtime in a process of its own, for tests of generated text: a test file starts itself as a script."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcore.base.dtypes import as_dtype

ROOT = Path(__file__).resolve().parents[2]
__all__ = ["differences", "open_runtime", "result_of", "results"]


def open_runtime(runtime: str) -> tuple[Any, Any, Any] | None:
    """(pyopencl, context, queue) of one runtime, or None where it is not installed. Only in a fresh process."""
    os.environ["PYOPENCL_NO_CACHE"] = "1"
    folder = tempfile.mkdtemp()
    os.environ["POCL_CACHE_DIR"] = folder
    if runtime == "intel":
        libraries = Path(sys.prefix) / "lib"
        try:
            for name in ("libintlc.so.5", "libimf.so", "libsvml.so", "libirng.so"):
                ctypes.CDLL(str(libraries / name), ctypes.RTLD_GLOBAL)
        except OSError:
            return None
        Path(folder, "intel.icd").write_text(f"{libraries / 'libintelocl.so'}\n", encoding="utf-8")
        os.environ["OCL_ICD_VENDORS"] = folder
    if runtime == "oclgrind":
        simulators = sorted(Path("/usr").glob("lib*/**/liboclgrind-rt-icd.so"))
        if not simulators:
            return None
        Path(folder, "oclgrind.icd").write_text(f"{simulators[0]}\n", encoding="utf-8")
        os.environ.update(OCL_ICD_VENDORS=folder, OCLGRIND_DATA_RACES="1")
    try:
        import pyopencl as cl
    except ImportError:
        return None
    wanted = {"intel": "Intel", "pocl": "Portable", "oclgrind": "Oclgrind"}[runtime]
    for platform in cl.get_platforms():
        if wanted in platform.name:
            context = cl.Context([platform.get_devices()[0]])
            return cl, context, cl.CommandQueue(context)
    return None


@cache
def results(script: str, runtime: str, group: str, timeout: float) -> dict[str, Any]:
    """All results of one set on one runtime: what a script, run in a process of its own, prints as JSON lines.

    Args:
        script: path of the file to run with the next two as arguments.
        runtime: as for ``open_runtime``.
        group: the set of cases.
        timeout: seconds.

    Returns:
        The results by case; ``missing`` where the runtime is not installed, ``failure`` if the process failed, and the
        simulator's ``reports``.
    """
    command = [sys.executable, script, runtime, group]
    paths = os.pathsep.join((str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found.update(json.loads(line))
    found["reports"] = [line for line in done.stderr.splitlines() if "Invalid" in line or "race" in line]
    if done.returncode:
        found["failure"] = f"exit status {done.returncode}: {done.stderr[-2000:]}"
    return found


def result_of(script: str, runtime: str, group: str, name: str, timeout: float) -> Any:
    """The result of one case among ``results``; skips the test where the runtime is missing."""
    found = results(script, runtime, group, timeout)
    if found.get("missing"):
        pytest.skip(f"the OpenCL runtime {runtime} is not installed")
    assert name in found, found.get("failure", "no result")
    return found[name]


def _tolerance(dtype: Any) -> float:
    return {"float16": 4e-3, "bfloat16": 3e-2, "float64": 1e-11}.get(np.dtype(dtype).name, 3e-5)


def differences(found: Any, wanted: Any) -> Iterator[str]:
    """What differs between two lists of results."""
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if b is None:
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            yield f"result {number} is {a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
        elif not as_dtype(b.dtype).is_float:
            if not np.array_equal(a, b):
                yield f"result {number} differs: {a.ravel()[:8]} instead of {b.ravel()[:8]}"
        else:
            near, far = a.astype(np.float64), b.astype(np.float64)
            limit = _tolerance(b.dtype) * max(1.0, float(np.abs(far).max(initial=0.0)))
            if not np.allclose(near, far, rtol=_tolerance(b.dtype), atol=limit):
                yield f"result {number} differs by {np.abs(near - far).max()}"
