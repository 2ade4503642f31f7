"""Products compute light work on their operands while they load them: casts, scales, gathers, views that do not walk
memory evenly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, INTEL, RUNTIMES_AND_GPU
from support.sessions import opened

import graphcore as gc
from graphcore.api.tensor import Tensor

RNG = np.random.default_rng(7)


def values(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def bytes_of(*shape: int) -> Any:
    return RNG.integers(0, 256, shape).astype(np.uint8)


A, B = values(48, 96), values(96, 40)
ROWS = RNG.integers(-300, 300, 48).astype(np.int32)
TABLE = values(300, 96)

# A name, the graph of its operands, their values, and the result in float64.
CASES: dict[str, tuple[Callable[..., Tensor], list[Any], Callable[..., Any]]] = {
    "bytes cast and scaled": (
        lambda x, w: (x.astype("float32") * (1 / 255)) @ w,
        [bytes_of(48, 96), B],
        lambda x, w: x / 255.0 @ w,
    ),
    "right operand scaled by rows": (lambda x, w, s: x @ (w * s), [A, B, values(96, 1)], lambda x, w, s: x @ (w * s)),
    "right operand scaled by columns": (lambda x, w, s: x @ (w * s), [A, B, values(40)], lambda x, w, s: x @ (w * s)),
    "both operands": (lambda x, w, s: (x - s) @ (w + 1), [A, B, values(48, 1)], lambda x, w, s: (x - s) @ (w + 1)),
    "gathered rows": (lambda t, i, w: gc.take(t, i, axis=0) @ w, [TABLE, ROWS, B], lambda t, i, w: t[i] @ w),
    "turned and scaled": (
        lambda x, w, s: (x * s).T @ w,
        [A, values(48, 40), values(48, 1)],
        lambda x, w, s: (x * s).T @ w,
    ),
    "right operand turned": (lambda x, w: x @ (w * 2).T, [A, values(40, 96)], lambda x, w: x @ (w * 2).T),
    "a batch of products": (
        lambda x, w, s: (x * s) @ w,
        [values(3, 33, 17), values(3, 17, 20), values(3, 1, 1)],
        lambda x, w, s: (x * s) @ w,
    ),
    "half operands": (
        lambda x, w: (x.astype("float16").astype("float32")) @ w,
        [A, B],
        lambda x, w: x.astype(np.float16).astype(np.float64) @ w,
    ),
    "few rows": (lambda x, w: (x * 3) @ w, [values(3, 300), values(300, 64)], lambda x, w: (x * 3) @ w),
    "one row": (lambda x, w: (x * 3) @ w, [values(1, 300), values(300, 64)], lambda x, w: (x * 3) @ w),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_work_before_a_product_is_part_of_it(device: str, name: str) -> None:
    build, arrays, reference = CASES[name]
    with opened(device) as session:
        feeds = {gc.placeholder(str(a.dtype), a.shape): a for a in arrays}
        y = build(*feeds)
        compiled = session.compile(y, feeds)
        kernels = compiled.cost_analysis()["kernels"]
        assert [k["family"] for k in kernels] in (["matmul"], ["gpu-matmul"]) or (
            name in ("few rows", "one row") and "gpu" in device
        ), compiled.explain()
        expected = reference(*(a if a.dtype.kind == "i" else a.astype(np.float64) for a in arrays))
        np.testing.assert_allclose(session.run(y, feeds), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 7, 50])
def test_products_of_half_types_use_tiles(device: str, dtype: str, rows: int) -> None:
    """They add up in float32 and round once: exactly the rounded result of the same product in float32."""
    with opened(device) as session:
        x, w = gc.placeholder(dtype, (rows, 96)), gc.placeholder(dtype, (96, 40))
        feeds = {x: values(rows, 96).astype(x.dtype.storage), w: B.astype(w.dtype.storage)}
        wide = x.astype("float32") @ w.astype("float32")
        compiled = session.compile(x @ w, feeds)
        assert [k["family"] for k in compiled.cost_analysis()["kernels"]] == ["matmul"], compiled.explain()
        half, full = session.run([x @ w, wide.astype(dtype)], feeds)
        np.testing.assert_array_equal(half.view(np.uint16), full.view(np.uint16))


@pytest.mark.parametrize("device", CPUS)
def test_another_batch_size_with_a_prologue(device: str) -> None:
    with opened(device) as session:
        x, w = gc.placeholder("uint8", (None, 96)), gc.Variable(B)
        y = (x.astype("float32") * 0.5) @ w
        for rows in (48, 5, 1, 64):
            fed = bytes_of(rows, 96)
            np.testing.assert_allclose(session.run(y, {x: fed}), fed * 0.5 @ B.astype(np.float64), rtol=1e-4, atol=1e-3)


def test_heavy_work_is_stored() -> None:
    """An exponential of every element once a panel would cost more than storing it."""
    with opened(INTEL) as session:
        x, w = gc.placeholder("float32", (512, 512)), gc.placeholder("float32", (512, 512))
        compiled = session.compile(gc.exp(x) @ w, {x: (512, 512), w: (512, 512)})
        assert len(compiled.cost_analysis()["kernels"]) == 2, compiled.explain()
