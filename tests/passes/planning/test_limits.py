"""What a device cannot hold or compute with is refused by name, before anything is built or allocated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.devices import RUNTIMES, backend
from support.stages import oracle_target

import graphcore as gc
from graphcore.ir.graph import Graph
from passes.pipeline import compile_graph

LIMIT = 64 * 2**20


def compiled(outputs: list[Any], feeds: tuple[Any, ...] = (), sizes: dict[str, int] | None = None, **facts: Any) -> Any:
    """Outputs compiled for a device of which some facts are given."""
    return compile_graph(Graph(tuple(outputs), (), feeds), replace(oracle_target(), **facts), sizes or {})


def refused(kind: type[Exception], *words: str, **call: Any) -> str:
    with pytest.raises(kind) as caught:
        compiled(**call)
    text = str(caught.value)
    assert all(w in text for w in (*words, "test_limits.py:")), text
    return text


def test_one_value_that_is_too_large() -> None:
    x = gc.placeholder("float32", (4097, 4096), name="pixels")
    refused(
        gc.OutOfMemoryError,
        "placeholder 'pixels'",
        "float32(4097, 4096)",
        "67,125,248 bytes",
        "at most 67,108,864 bytes",
        outputs=[x.sum()],
        feeds=(x,),
        max_alloc=LIMIT,
    )
    small = gc.placeholder("float32", (4096, 4096), name="pixels")
    assert compiled([small[0].sum()], (small,), max_alloc=LIMIT + 1024)
    a, b = gc.placeholder("uint8", (9000, 1)), gc.placeholder("uint8", (1, 9000))
    refused(gc.OutOfMemoryError, "matmul at", "uint8(9000, 9000)", outputs=[a @ b], feeds=(a, b), max_alloc=LIMIT)
    assert compiled([(a * b).sum()], (a, b), max_alloc=LIMIT), "what is not stored takes no memory"
    w = gc.Variable(gc.init.zeros((2**25,)), name="table")
    refused(gc.OutOfMemoryError, "variable table", "float32(33554432,)", outputs=[w.sum()], max_alloc=LIMIT)
    c = gc.constant(np.arange(25, dtype=np.float32).reshape(5, 5))
    refused(gc.OutOfMemoryError, "constant at", "100 bytes", outputs=[gc.exp(c).sum()], max_alloc=99)


def test_values_that_are_too_large_together() -> None:
    x, y = (gc.placeholder("uint8", (3 * 2**24,), name=n) for n in "xy")
    w = gc.Variable(gc.init.zeros((2**20,)), name="table")
    call = {"outputs": [(x + y).sum() + w.sum()], "feeds": (x, y), "max_alloc": LIMIT}
    text = refused(gc.OutOfMemoryError, "live at once", "100,663,", "constants 4,194,304", **call, memory=100 * 2**20)
    assert "'x'" in text and "'y'" in text and "variable table" in text
    assert compiled(**call, memory=2**28), "two allocations hold them"


def test_symbolic_extents_by_their_sizes() -> None:
    x = gc.placeholder("float32", (gc.Dim("rows"), 1024), name="x")
    call = {"outputs": [x.sum()], "feeds": (x,), "max_alloc": LIMIT}
    assert compiled(**call, sizes={"rows": 16383})
    refused(gc.OutOfMemoryError, "float32(16385, 1024)", **call, sizes={"rows": 16385})


@pytest.mark.parametrize("device", RUNTIMES)
def test_a_placeholder_that_no_device_holds(device: str) -> None:
    backend(device)
    x = gc.placeholder("float32", (200_000, 200_000), name="x")
    with gc.Session(device=device) as session:
        with pytest.raises(gc.OutOfMemoryError, match=r"placeholder 'x' at .*test_limits.py:\d+ is float32\(200000, "):
            session.compile(x @ x, {x: (200_000, 200_000)})
        rows = gc.placeholder("float32", (None, 2**20), name="rows")
        product = rows.sum()
        session.compile(product, {rows: (1, 2**20)})
        with pytest.raises(gc.OutOfMemoryError, match="placeholder 'rows'"):
            session.compile(product, {rows: (2**20, 2**20)})


def test_float64_where_a_device_has_none() -> None:
    x = gc.placeholder("float32", (3,))
    wide = gc.cast(x, "float64")
    text = refused(gc.DTypeError, "no float64", outputs=[gc.exp(wide) + 1.0], feeds=(x,), fp64=False)
    assert "exp float64(3,)" in text
    refused(gc.DTypeError, "no float64", outputs=[gc.cast(wide.sum(), "float32")], feeds=(x,), fp64=False)
    assert compiled([gc.exp(x)], (x,), fp64=False)
    assert compiled([gc.exp(wide)], (x,))
