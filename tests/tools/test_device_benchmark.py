"""The benchmark of a device: what its parts compute is right, and what fails costs only itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.device_names import RUNTIMES

import graphcore as gc
from backends.opencl.device.device import open_device
from benchmarks.device.alone import difference
from benchmarks.device.alone_cases import cases
from benchmarks.device.cold import EXPECTED, LOSSES, compared, first_losses
from benchmarks.device.probe import Bench, product
from benchmarks.device.report import Options, Report
from benchmarks.models import STEPS
from graphcore.base.errors import DeviceError


def options(out: Path, seconds: float = 60.0, only: tuple[str, ...] = ()) -> Options:
    return Options("numpy:kernels", seconds, small=True, compiled=False, only=only, out=out)


def test_what_fails_is_written_and_ends_nothing(tmp_path: Path) -> None:
    report = Report("part", options(tmp_path / "part.json"))
    for name in report.cases(("first", "second", "third")):
        with report.case(name) as row:
            row["us"] = 1.5
            if name == "second":
                raise ValueError("the device is lost")
        written = json.loads((tmp_path / "part.json").read_text())["cases"]
        assert [r["case"] for r in written][-1] == name  # before the next begins
    assert report.failed
    assert written == [
        {"case": "first", "us": 1.5},
        {"case": "second", "us": 1.5, "error": "ValueError: the device is lost"},
        {"case": "third", "us": 1.5},
    ]


def test_what_there_is_no_time_for_is_noted(tmp_path: Path) -> None:
    report = Report("part", options(tmp_path / "part.json", seconds=-1.0, only=("b", "c")))
    assert list(report.cases("abc")) == []
    assert report.rows == [{"case": name, "left out": "no time left"} for name in "bc"] and not report.failed


def test_the_expected_losses_are_those_of_the_steps() -> None:
    expected = json.loads(EXPECTED.read_text())["losses"]
    assert list(expected) == list(STEPS) and all(len(losses) == LOSSES for losses in expected.values())
    assert compared(first_losses("numpy:kernels", "mlp_small"), expected["mlp_small"]) < 1e-5


@pytest.mark.parametrize("title", cases(small=True))
def test_operations_alone_are_what_numpy_makes_of_them(title: str) -> None:
    for case in cases(small=True)[title]().values():
        tensor, feeds = case.build()
        with gc.Session("numpy") as session:
            found = session.run(tensor, feeds)
        assert case.flops > 0 and case.nbytes > 0
        if case.wanted is None:
            assert np.isfinite(found).all() and np.abs(found).max() > 0
        else:
            assert difference(found, case.wanted(*case.arrays)) < (5e-3 if found.dtype.itemsize == 2 else 1e-6)


def test_the_product_of_the_probe_is_right() -> None:
    try:
        device = open_device(RUNTIMES[0], profiling=True)
    except DeviceError as error:
        pytest.skip(f"no {RUNTIMES[0]}: {error}")
    found = product(Bench(device, small=True), 256)
    assert found["wrong"] < 1e-6 and found["us"] > 0
