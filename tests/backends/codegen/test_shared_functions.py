"""Functions that steps of different sizes share: what is a size is an argument, and texts are equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.device_names import RUNTIMES
from support.sessions import opened

import graphcore as gc
from backends.opencl.device.device import DeviceInfo
from backends.opencl.program import generate
from backends.opencl.target import device_model, make_target
from graphcore import functional as F
from graphcore.ir.graph import Graph, collect
from passes.pipeline import compile_graph

# Two cores that nothing is known of; their vectors have 64 bytes, whatever the machine's have.
DEVICE = DeviceInfo(
    index=0,
    platform="C",
    vendor="other",
    name="two cores",
    version="",
    driver="1",
    kind="cpu",
    compute_units=2,
    local_mem=32768,
    global_mem=2**32,
    max_alloc=2**30,
    max_work_group=1,
    extensions=frozenset({"cl_khr_fp64"}),
    fp64=True,
    fp16=False,
    vector_width=16,
)
RNG = np.random.default_rng(3)

# images, channels, height, width; filters, kernel; geometry
SIZES: tuple[tuple[tuple[int, ...], int, int, dict[str, Any]], ...] = (
    ((32, 64, 32, 32), 64, 3, {"padding": 1}),
    ((32, 128, 16, 16), 256, 3, {"padding": 1, "stride": 2}),
    ((8, 20, 9, 7), 33, 1, {}),
    ((5, 12, 11, 11), 36, 3, {"groups": 2}),
    ((3, 48, 4, 4), 30, 2, {"dilation": 2}),
)


def gradient(
    shape: tuple[int, ...], filters: int, kernel: int, geometry: Mapping[str, Any], lr: float | None = None
) -> tuple[list[Any], tuple[Any, Any]]:
    """A weight gradient over a symbolic batch, or with a rate what it makes of a variable; and what to feed."""
    x = gc.placeholder("float32", (None, *shape[1:]), name="x")
    start = np.zeros((filters, shape[1] // geometry.get("groups", 1), kernel, kernel), np.float32)
    w = gc.Variable(start, name="w")
    y = F.conv2d(x, w, **geometry)
    m = gc.placeholder("float32", (None, *y.shape[1:]), name="m")
    (dw,) = gc.gradients(gc.sum(y * m), [w])
    return [dw if lr is None else w - lr * dw], (x, m)


def reduction(fetches: list[Any], fed: tuple[Any, Any], batch: int) -> str:
    """The text of the function that makes a weight gradient of its sums."""
    graph = collect(fetches, [], fed)
    graph = Graph(graph.outputs, graph.updates, fed)
    made = compile_graph(graph, make_target(DEVICE), {str(t.shape[0]): batch for t in fed})
    source = generate(made.plan, device_model(DEVICE))
    last = next(i for i, s in enumerate(made.plan.steps) if s.kernel.form is not None)
    function = source.functions[source.of_step[last]]
    return function.text.replace(function.name, "f")


@pytest.mark.parametrize("lr", [None, 0.5])
def test_reductions_of_weight_gradients_of_all_sizes_are_one_text(lr: float | None) -> None:
    """Batch, channels, taps, stride, groups: none of them is in the text, nor how much work was cut for them."""
    texts = {reduction(*gradient(*size, lr=lr), batch=size[0][0]) for size in SIZES}
    assert len(texts) == 1


def test_what_does_not_walk_the_weights_in_order_keeps_the_length_of_a_filter() -> None:
    """With a rate for every filter, an element's place is no longer all that counts."""

    def scaled(channels: int, filters: int) -> str:
        (dw,), fed = gradient((4, channels, 9, 9), filters, 3, {})
        scale = gc.Variable(np.ones((filters, 1, 1, 1), np.float32), name="scale")
        return reduction([dw * scale], fed, 4)

    assert scaled(8, 32) == scaled(8, 48)
    assert scaled(8, 32) != scaled(16, 32)


@pytest.mark.parametrize("device", RUNTIMES)
def test_a_shared_reduction_gives_each_size_its_own_gradient(device: str) -> None:
    """In one program, two batches each, against the oracle."""
    cases = [gradient(*size, lr=lr) for size in SIZES[1:] for lr in (None, 0.5)]
    fetches, session = [f[0] for f, _ in cases], opened(device, seed=1)
    for batch in (5, 2):
        feeds = {
            t: RNG.integers(-3, 4, (batch, *map(int, t.shape[1:]))).astype(np.float32) for _, fed in cases for t in fed
        }
        with gc.Session("numpy") as oracle:
            wanted = oracle.run(fetches, feeds)
        for got, right in zip(session.run(fetches, feeds), wanted, strict=True):
            np.testing.assert_array_equal(got, right)  # sums of small integers are exact
