"""Vector loads whose lanes are not simply neighbours: seams, steps, shared elements, guards; and long sums in several
tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, RUNTIMES_AND_GPU
from support.sessions import opened

import graphcore as gc
from graphcore import functional as F
from graphcore.api.tensor import Tensor

RNG = np.random.default_rng(13)
DTYPES = ("float32", "float64", "float16", "int8", "int64", "bool")

# Widths around the vectors' and beside them, so that seams fall on every lane.
COLUMNS = (5, 16, 33, 70)
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "reversed": lambda x: x[:, ::-1],
    "every second": lambda x: x[:, ::2],
    "every second, from the last": lambda x: x[:, ::-2],
    "every third": lambda x: x[:, 1::3],
    "rolled": lambda x: gc.roll(x, 3, axis=1),
    "rolled as a whole": lambda x: gc.roll(x, 7),
    "concatenated": lambda x: gc.concat([x, x[:, 1:], x[:, :2]], axis=1),
    "concatenated rows": lambda x: gc.concat([x, x[1:]], axis=0),
    "padded": lambda x: gc.pad(x, ((1, 0), (2, 3))),
    "stacked": lambda x: gc.stack([x, x], axis=2),
    "repeated": lambda x: gc.repeat(x, 2, axis=1),
    "repeated four times": lambda x: gc.repeat(x, 4, axis=1)[:, 1:-2],
    "tiled": lambda x: gc.tile(x, (1, 3)),
    "reshaped in the middle": lambda x: gc.reshape(gc.permute_dims(x, (1, 0)), (-1,)),
    "rows one after the other": lambda x: gc.reshape(x[:, 1:], (-1,)),
    "a row for each": lambda x: gc.broadcast_to(x[:, :1], x.shape),
}


def matrix(dtype: str, columns: int) -> Any:
    values = RNG.integers(0, 2, (9, columns)) if dtype == "bool" else RNG.integers(-100, 100, (9, columns))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_views(device: str, dtype: str) -> None:
    """Exact: nothing is computed."""
    with opened(device) as session, gc.Session("numpy") as oracle:
        for columns in COLUMNS:
            x = gc.placeholder(dtype, (9, columns))
            fetches = {name: view(x) for name, view in VIEWS.items()}
            feeds = {x: matrix(dtype, columns)}
            found, expected = session.run(fetches, feeds), oracle.run(fetches, feeds)
            for name in VIEWS:
                np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name}, {columns} columns")


def turned(x: Tensor, shape: tuple[int, ...] = (-1,)) -> Tensor:
    return gc.reshape(gc.permute_dims(x, (0, 2, 1)), shape)


def check(found: Any, expected: Any, name: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)


TRANSPOSED: dict[str, Callable[[Tensor], Tensor]] = {
    "a transpose": lambda x: gc.permute_dims(x, (2, 1, 0)) * 2.0,
    "with its mirror": lambda x: gc.permute_dims(x, (0, 2, 1))[:, :50, :50] + x[:, :50, :50],
    "flat": turned,
    "rows of another length": lambda x: turned(x, (-1, 100)) - turned(x, (-1, 100))[:1],
    "softmax of its rows": lambda x: gc.softmax(turned(x, (-1, 50)), -1),
    "softmax of columns": lambda x: gc.softmax(gc.permute_dims(x, (0, 2, 1)), -1),
    "first largest": lambda x: gc.argmax(gc.round(gc.permute_dims(x, (2, 0, 1))), axis=(-1)),
    "first largest of all": lambda x: gc.argmax(gc.round(turned(x))),
    "sum": lambda x: gc.sum(gc.permute_dims(x, (2, 1, 0)) * gc.reshape(x, (70, 50, 3))),
    "largest": lambda x: gc.max(turned(x, (70, 150)) * 3.0, axis=0),
    "heads": lambda x: gc.reshape(gc.permute_dims(gc.reshape(x, (3, 50, 2, 35)), (0, 2, 1, 3)), (6, -1)) * 2.0,
}


@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_transposes(device: str) -> None:
    """In tiles where rows are far apart, and along axes that views divide; forward and backward."""
    x = gc.placeholder("float32", (3, 50, 70))
    feeds = {x: RNG.standard_normal((3, 50, 70)).astype(np.float32) * 4}
    fetches: dict[str, Any] = {name: view(x) for name, view in TRANSPOSED.items()}
    fetches |= {
        f"gradient of {name}": gc.gradients(gc.sum(gc.square(y)), [x])[0]
        for name, y in list(fetches.items())
        if y.dtype == x.dtype
    }
    with opened(device) as session, gc.Session("numpy") as oracle:
        expected = oracle.run(fetches, feeds)
        for name, y in fetches.items():  # each alone, too: together they are cut into other kernels
            check(session.run(y, feeds), expected[name], name)
        for name, y in session.run(fetches, feeds).items():
            check(y, expected[name], name)


POOLS = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 5, "stride": 4, "padding": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
]


@pytest.mark.parametrize("geometry", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_pools(device: str, kind: str, geometry: dict[str, Any]) -> None:
    """Forward and backward over widths that leave every rest."""
    pool = F.max_pool2d if kind == "max" else F.avg_pool2d
    with opened(device) as session, gc.Session("numpy") as oracle:
        for width in (7, 16, 19, 40):
            x = gc.placeholder("float32", (2, 3, 11, width))
            y = pool(x, **geometry)
            fetches = [y, gc.gradients(gc.sum(y * gc.stop_gradient(gc.sin(y))), [x])[0]]
            feeds = {x: RNG.standard_normal((2, 3, 11, width)).astype(np.float32)}
            for a, b in zip(session.run(fetches, feeds), oracle.run(fetches, feeds), strict=True):
                np.testing.assert_allclose(a, b, atol=2e-6)


LONG = (3, 70_001)


@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
@pytest.mark.parametrize("shape", [(300_000,), LONG, (512, 700), (2, 400_000)], ids=str)
def test_long_reductions(device: str, shape: tuple[int, ...]) -> None:
    """Whole sums and sums of few rows, with stores beside them that do and do not need the result."""
    x = gc.placeholder("float32", shape)
    fetches = [
        gc.sum(x),
        gc.max(x),
        gc.mean(x, axis=-1),
        gc.min(x * 2.0, axis=-1, keepdims=True),
        x * 2.0,
        x - gc.mean(x),
        x - gc.max(x, axis=-1, keepdims=True),
    ]
    feeds = {x: RNG.standard_normal(shape).astype(np.float32) + 1}
    with opened(device) as session, gc.Session("numpy") as oracle:
        found = session.run(fetches, feeds)
        for a, b in zip(found, oracle.run(fetches, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
        for _ in range(5):
            np.testing.assert_array_equal(session.run(fetches, feeds)[0], found[0])


@pytest.mark.parametrize("device", CPUS)
def test_a_whole_sum_is_shared_out(device: str) -> None:
    """Tasks sum blocks, a second kernel the blocks' sums; the elementwise work beside it is done on the way, and
    counted once."""
    x, half = (gc.Variable(np.ones((1000, 1000), np.float32)) for _ in range(2))
    with opened(device) as session:
        compiled = session.compile([gc.sum(x * x), half.assign(x * 0.5)])
        assert "_parts" in compiled.explain()
        kernels = compiled.cost_analysis()["kernels"]
        assert sum(k["bytes"] for k in kernels) < 2.1 * 4e6, compiled.explain()
        assert session.run([gc.sum(x * x), half.assign(x * 0.5)])[0] == 1e6
        np.testing.assert_array_equal(session.get_value(half), np.full((1000, 1000), 0.5, np.float32))


@pytest.mark.parametrize("device", CPUS)
def test_any_length_of_a_batch(device: str) -> None:
    """A symbolic extent is cut at run time, and nothing is compiled again."""
    x = gc.placeholder("float32", (None, 1000))
    with opened(device) as session:
        for rows in (1, 900, 37, 2000, 8):
            a = RNG.standard_normal((rows, 1000)).astype(np.float32)
            total, kept = session.run([gc.sum(x), x + 1.0], {x: a})
            np.testing.assert_allclose(total, a.astype(np.float64).sum(), rtol=0, atol=1e-7 * np.abs(a).sum())
            np.testing.assert_array_equal(kept, a + np.float32(1))
