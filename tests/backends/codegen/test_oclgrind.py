"""Every kernel template in Oclgrind, a simulator that reports accesses outside of buffers and data races on standard
error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2]
CASES = HERE / "support/oclgrind_cases.py"
CPU, GPU = "opencl:oclgrind", "opencl:oclgrind:as-gpu"
FAMILIES = ("elementwise", "reductions", "rows", "matmul", "conv", "conv-more", "pool", "index", "random", "training")
# The templates that a family must have run, or it tests something else than it seems to.
TEMPLATES = {
    CPU: {
        "matmul": {"matmul", "nest"},
        "conv": {"conv", "conv-sums"},
        "conv-more": {"conv", "conv-sums"},
        "index": {"scatter", "scatter-rows", "scatter-sort", "nest"},
    },
    GPU: {
        "reductions": {"gpu-rows", "nest"},
        "matmul": {"gpu-matmul", "gpu-rows"},
        "conv": {"gpu-matmul", "gpu-rows"},
        "index": {"scatter", "gpu-sort", "nest"},
    },
}
REPORTS = ("Invalid", "race", "ninitialized", "OCLGRIND", "divergence", "nsupported")
RACE = """
import numpy as np
from backends.opencl.device.device import open_device
device = open_device("opencl:oclgrind")
from backends.opencl.device.icd import load
cl = load()
program = cl.Program(device.context, "__kernel void race(__global int* x) { x[0] = get_global_id(0); }").build()
program.race(device.queue, (2,), (1,), cl.Buffer(device.context, cl.mem_flags.READ_WRITE, 4))
device.queue.finish()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process whose only OpenCL platform is Oclgrind."""
    found = sorted(Path("/usr").glob("lib*/**/liboclgrind-rt-icd.so"))
    if not found:
        pytest.skip("Oclgrind is not installed")
    folder = tmp_path_factory.mktemp("oclgrind")
    (folder / "oclgrind.icd").write_text(f"{found[0]}\n", encoding="utf-8")
    paths = os.pathsep.join((str(HERE.parent), str(HERE)))
    return {
        **os.environ,
        "OCL_ICD_VENDORS": str(folder),
        "GRAPHCORE_CACHE": str(folder / "cache"),
        "PYTHONPATH": paths,
        "OCLGRIND_DATA_RACES": "1",
    }


def simulate(environment: dict[str, str], *arguments: str, **variables: str) -> tuple[dict[str, Any], str, int]:
    """Run a script: the results by case, standard error and the exit status."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env={**environment, **variables}, capture_output=True, text=True, timeout=900, check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {f["case"]: f for f in found}, done.stderr, done.returncode


def check(environment: dict[str, str], device: str, family: str, **variables: str) -> None:
    """A family's cases: right values, no report, and the templates that they are there for."""
    found, errors, status = simulate(environment, str(CASES), device, family, **variables)
    assert status == 0, errors[-3000:]
    assert found
    wrong = [f"{name}: {text}" for name, result in found.items() for text in result["wrong"]]
    assert not wrong, "\n".join(wrong)
    assert not any(word in errors for word in REPORTS), errors[:6000]
    templates = {t for result in found.values() for t in result["templates"]}
    assert templates >= TEMPLATES[device].get(family, {"nest"}), templates


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [4, 8, 16])
def test_cpu_schedules(environment: dict[str, str], width: int, family: str) -> None:
    check(environment, CPU, family, GRAPHCORE_VECTOR_WIDTH=str(width))


@pytest.mark.parametrize("family", FAMILIES)
def test_gpu_schedules(environment: dict[str, str], family: str) -> None:
    check(environment, GPU, family)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if "conv" not in f]
)  # the simulator's check crashes in convolutions
def test_no_value_is_used_before_it_is_written(environment: dict[str, str], family: str) -> None:
    check(environment, CPU, family, OCLGRIND_UNINITIALIZED="1")


@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_block_that_is_too_short_is_reported(environment: dict[str, str], device: str) -> None:
    """What the other tests would show if something were wrong."""
    _, errors, _ = simulate(environment, str(CASES), device, "matmul", "4", "products")
    assert "Invalid read" in errors or "Invalid write" in errors, errors[:3000]


def test_a_race_is_reported(environment: dict[str, str]) -> None:
    _, errors, status = simulate(environment, "-c", RACE)
    assert status == 0, errors[-3000:]
    assert "race" in errors


def test_the_vector_width_must_be_one_that_exists(environment: dict[str, str]) -> None:
    code = "from backends.opencl.device.device import open_device; open_device('opencl:oclgrind')"
    _, errors, status = simulate(environment, "-c", code, GRAPHCORE_VECTOR_WIDTH="5")
    assert status != 0
    assert "GRAPHCORE_VECTOR_WIDTH is '5'" in errors
