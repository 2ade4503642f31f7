"""A backend from outside: the package that the documents show, installed in a folder, trains what the oracle trains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.documents import ARCHITECTURE, files_of, install

import graphcore as gc
from graphcore import nn, optim
from graphcore.base.errors import DeviceError

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
DEVICE = "demo-c"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package, from which Python imports it."""
    install(files_of(ARCHITECTURE), tmp_path, monkeypatch)
    return tmp_path


def trained(
    device: str, fetches: list[Any], batches: list[dict[Any, Any]], variables: Any
) -> tuple[list[Any], list[Any]]:
    """What steps fetch on a device, and the variables after them."""
    with gc.Session(device, seed=3) as session:
        results = [session.run(fetches, feeds)[:-1] for feeds in batches]
        return results, [session.get_value(v) for v in variables]


def same(fetches: list[Any], batches: list[dict[Any, Any]], variables: Any) -> None:
    """A training step does the same on the device and on the oracle."""
    runs = [trained(device, fetches, batches, variables) for device in (DEVICE, "numpy")]
    for found, wanted in zip(*(results for results, _ in runs), strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b, v in zip(*(values for _, values in runs), variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=v.name)


def test_a_perceptron_trains(installed: Path) -> None:
    model = nn.Sequential(nn.Linear(20, 33), nn.ReLU(), nn.LayerNorm(33), nn.Linear(33, 5))
    x, y = gc.placeholder("float32", (None, 20)), gc.placeholder("int64", (None,))
    loss = nn.functional.cross_entropy(model(x), y)
    step = optim.SGD(0.1, momentum=0.9).minimize(loss)
    rng = np.random.default_rng(0)
    sizes = (16, 16, 7, 1)  # the last ones without compiling again
    batches = [{x: rng.standard_normal((n, 20), np.float32), y: rng.integers(0, 5, n)} for n in sizes]
    same([loss, step], batches, list(model.parameters()))
    with gc.Session(DEVICE) as session:
        compiled = session.compile([loss, step], batches[0])
        assert {"matmul", "nest"} <= {s.family for s in compiled.plan.steps}
        assert "void run_0(char** at" in compiled.as_text("source") and "family matmul (" in compiled.explain()


def test_an_embedding_trains(installed: Path) -> None:
    """Its gradient's rows are put in order first, as on every device of these families."""
    table = nn.Embedding(500, 24)
    at, weights = gc.placeholder("int64", (90,)), gc.placeholder("float32", (90, 24))
    loss = (table(at) * weights).mean()
    step = optim.SGD(5.0).minimize(loss)
    rng = np.random.default_rng(1)
    batches = [{at: rng.integers(0, 500, 90), weights: rng.standard_normal((90, 24), np.float32)} for _ in range(2)]
    same([loss, step], batches, [table.weight])
    with gc.Session(DEVICE) as session:
        assert {"scatter-sort", "scatter"} <= {s.family for s in session.compile([loss, step], batches[0]).plan.steps}


def test_what_is_not_installed_is_no_device() -> None:
    with pytest.raises(DeviceError, match=f"no backend for device '{DEVICE}'"):
        gc.Session(DEVICE)
