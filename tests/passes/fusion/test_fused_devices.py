"""Fused kernels on every device: products with all kinds of epilogues, and programs over symbolic batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.devices import DEVICES, differing, run_on, run_plan

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import placeholder
from graphcore.base import dtypes
from graphcore.base.shapes import Dim
from graphcore.ir.graph import Graph
from graphcore.ir.interpret import interpret

# -- what is fused behind a product or a convolution reads its other operands in every way


def epilogues() -> tuple[list[Tensor], dict[Tensor, Any]]:
    """Products with something on top; whole numbers, so that results are exact."""
    b, outputs = Builder(), []
    feeds: dict[Tensor, Any] = {}

    def fed(*shape: int, low: int = -3, high: int = 4, dtype: str = "float32") -> Tensor:
        t = placeholder(dtype, shape)
        feeds[t] = np.random.default_rng(len(feeds)).integers(low, high, shape).astype(dtype)
        return t

    for m, n in ((37, 42), (5, 90)):
        product = b.matmul(fed(m, 30), fed(30, n))
        repeated = b.reshape(b.broadcast_to(b.reshape(fed(n // 2), shape=(n // 2, 1)), (n // 2, 2)), shape=(n,))
        rows = b.reshape(fed(m), shape=(m, 1))
        for other in (
            repeated,
            rows,
            b.permute(fed(n, m), axes=(1, 0)),
            b.flip(fed(m, n), axes=(1,)),
            b.pad(fed(m - 1, n - 5), low=(1, 2), high=(0, 3), gaps=(0, 0)),
            b.slice(fed(m, 2 * n), starts=(0, 1), lengths=(m, n), steps=(1, 2)),
            b.take(fed(m, 9), fed(n, low=-9, high=9, dtype="int64"), axis=1),
            b.concat(fed(m, 3), fed(m, n - 3), axis=1),
            b.iota(shape=(m, n), axis=1, dtype=dtypes.float32),
        ):
            outputs.append(b.add(b.matmul(*product.node.inputs), b.broadcast_to(other, (m, n))))
        outputs += [
            b.greater(b.add(product, b.broadcast_to(rows, (m, n))), 0),
            b.permute(b.mul(product, product), axes=(1, 0)),
            b.cast(b.neg(product), dtype=dtypes.int8),
        ]
    for size, kernel in ((9, 3), (1, 1), (2, 2)):
        geometry: dict[str, Any] = {
            "stride": (1, 1),
            "padding": (kernel - 1, 0, 0, kernel - 1),
            "dilation": (1, 1),
            "groups": 1,
        }
        operands = fed(2, 3, size, size + 1), fed(5, 3, kernel, kernel)
        shape = b.conv2d(*operands, **geometry).shape
        extents = [int(e) for e in shape]
        for other in (
            b.reshape(fed(5), shape=(5, 1, 1)),
            fed(*extents),
            b.flip(fed(*extents), axes=(3,)),
            b.permute(fed(*extents[::-1]), axes=(3, 2, 1, 0)),
            fed(2, 1, 1, 1),
            fed(extents[3]),
        ):
            outputs.append(b.relu(b.add(b.conv2d(*operands, **geometry), b.broadcast_to(other, shape))))
    return outputs, feeds


@pytest.mark.parametrize("device", DEVICES)
def test_epilogues(device: str) -> None:
    outputs, feeds = epilogues()
    expected = interpret(Graph(tuple(outputs), (), tuple(feeds)), {t.value: a for t, a in feeds.items()})
    for number, (got, exact) in enumerate(zip(run_on(device, outputs, feeds), expected, strict=True)):
        assert np.array_equal(got, exact), (
            f"output {number}, {outputs[number].node.inputs[-1]}: {np.sum(got != exact)} of {got.size} differ"
        )


# -- symbolic leading extents: one program for every batch size, none included


def batch_graphs(n: Dim) -> tuple[list[Tensor], list[Tensor], Callable[..., list[Any]]]:
    """Outputs over a symbolic batch, their placeholders, and the same by NumPy in float64."""
    b = Builder()
    x, w, k = placeholder("float32", (n, 37)), placeholder("float32", (37, 21)), placeholder("int32", (n,))
    step = placeholder("int64", ())
    top = b.max(x, axes=(1,))
    shifted = b.exp(b.sub(x, b.broadcast_to(b.reshape(top, shape=(n, 1)), (n, 37))))
    total = b.sum(shifted, axes=(1,))
    soft = b.div(shifted, b.broadcast_to(b.reshape(total, shape=(n, 1)), (n, 37)))
    counter = b.add(step, 1)
    outputs = [
        soft,
        b.sum(x, axes=(0,)),
        b.sum(x, axes=(0, 1)),
        b.matmul(x, w),
        b.matmul(b.permute(x, axes=(1, 0)), x),
        counter,
        b.take(w, k, axis=0),
        b.argmax(x, axes=(1,)),
        b.greater(x, 0),
        b.dim_value(extent=n, dtype=dtypes.float32),
        b.iota(shape=(n, 3), axis=0, dtype=dtypes.int32),
        b.pad(x, low=(0, 1), high=(0, 2), gaps=(0, 0)),
        b.scatter_add(k, x, rows=37),
        b.slice(x, starts=(0, 5), lengths=(n, 16), steps=(1, 2)),
    ]

    def by_numpy(x: Any, w: Any, k: Any, step: Any) -> list[Any]:
        wide, weights = x.astype(np.float64), w.astype(np.float64)
        raised = np.exp(wide - wide.max(1, initial=-np.inf, keepdims=True))
        scattered_sums = np.zeros((37, 37))
        np.add.at(scattered_sums, k, wide)
        return [
            raised / raised.sum(1, keepdims=True),
            wide.sum(0),
            wide.sum(),
            wide @ weights,
            wide.T @ wide,
            step + 1,
            weights[k],
            x.argmax(1),
            x > 0,
            float(len(x)),
            np.arange(len(x))[:, None] + np.zeros((1, 3), int),
            np.pad(wide, ((0, 0), (1, 2))),
            scattered_sums,
            wide[:, 5:37:2],
        ]

    return outputs, [x, w, k, step], by_numpy


@pytest.mark.parametrize("device", DEVICES)
def test_symbolic_batches(device: str) -> None:
    """Compiled once; also for no rows at all, where sums are zero and scalars are still stored."""
    outputs, placeholders, by_numpy = batch_graphs(Dim("n"))

    def feeds(size: int) -> dict[Tensor, Any]:
        rng = np.random.default_rng(size)

        def normal(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(np.float32)

        arrays = [
            normal(size, 37),
            normal(37, 21),
            rng.integers(-37, 37, size).astype(np.int32),
            np.array(41),
        ]
        return dict(zip(placeholders, arrays, strict=True))

    bound = run_plan(device, outputs, feeds(5))
    for size in (5, 1, 0, 16, 23):
        given = feeds(size)
        for number, (got, exact) in enumerate(zip(bound.at(given).run(given), by_numpy(*given.values()), strict=True)):
            assert got.shape == np.shape(exact), f"output {number} for {size} rows"
            if got.dtype.kind == "f":
                scale = np.full(got.shape, np.abs(exact).max(initial=0.0) + 8.0)
                assert differing(got, exact, scale, 4.0) is None, (
                    f"output {number} for {size} rows: {differing(got, exact, scale, 4.0)}"
                )
            else:
                assert np.array_equal(got, exact), f"output {number} for {size} rows"
