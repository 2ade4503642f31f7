"""Convolutions compute light work on their operands while they pack them: casts, scales, normalisation of channels,
views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, INTEL, RUNTIMES_AND_GPU
from support.sessions import opened

import graphcore as gc
from graphcore import functional as F
from graphcore import nn, optim
from graphcore.api.tensor import Tensor

RNG = np.random.default_rng(11)
Pair = tuple[Tensor, Tensor]


def values(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def bytes_of(*shape: int) -> Any:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def templates(session: gc.Session, fetches: Any, feeds: Any) -> list[str]:
    """Of a graph's kernels, in order; helpers such as a weight gradient's partial sums are not among them."""
    return [k["family"] for k in session.compile(fetches, feeds).cost_analysis()["kernels"]]


def exact(build: Callable[..., Sequence[Tensor]], arrays: Sequence[Any]) -> list[Any]:
    """What a graph of float32 or integer arrays gives when everything is float64."""
    fed = {gc.placeholder("float64", a.shape): a.astype(np.float64) for a in arrays}
    with gc.Session("numpy") as oracle:
        return [np.asarray(r) for r in oracle.run(list(build(*fed)), fed)]


def check(results: Sequence[Any], expected: Sequence[Any], rtol: float = 2e-5) -> None:
    assert len(results) == len(expected)
    for result, right in zip(results, expected, strict=True):
        assert result.shape == right.shape and np.abs(right).max() > 0
        np.testing.assert_allclose(result.astype(np.float64), right, rtol=rtol, atol=rtol * np.abs(right).max())


def real(x: Tensor) -> Tensor:
    """Bytes as float32; the oracle's float64 stays."""
    return x.astype("float32") if x.dtype.name == "uint8" else x


# What is done to the images x (N, 6, H, W) and the weights w, with a scale s of the channels and t of the filters.
WORK: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Pair]] = {
    "channels": lambda x, w, s, t: (gc.relu(real(x) * s + 0.1), w),
    "turned": lambda x, w, s, t: (real(x).transpose((0, 1, 3, 2)) * 2, w),
    "sliced": lambda x, w, s, t: (real(x)[:, :, 1:, :-1] * 1, w),
    "flipped": lambda x, w, s, t: (gc.flip(real(x), (3,)), w),
    "weights": lambda x, w, s, t: (real(x) - s, w.transpose((0, 1, 3, 2)) * t),
}
# Planes, height and width of the window, geometry.
CASES: list[tuple[tuple[int, int], int, dict[str, int]]] = [
    ((7, 7), 3, {"padding": 1}),
    ((14, 14), 3, {"padding": 1}),
    ((14, 9), 3, {"stride": 2, "padding": 1}),
    ((9, 13), 2, {"padding": 2, "dilation": 2, "groups": 2}),
    ((40, 37), 3, {}),
    ((12, 12), 1, {}),
    ((6, 10), 1, {"stride": 2}),
]
NAMES = [str((*planes, window, *geometry.items())) for planes, window, geometry in CASES]


def operands(planes: tuple[int, int], window: int, geometry: dict[str, int], batch: int = 5) -> list[Any]:
    return [
        bytes_of(batch, 6, *planes),
        values(8, 6 // geometry.get("groups", 1), window, window),
        values(1, 6, 1, 1),
        values(8, 1, 1, 1),
    ]


@pytest.mark.parametrize("planes,window,geometry", CASES, ids=NAMES)
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_work_before_a_convolution_is_part_of_it(
    device: str, planes: tuple[int, int], window: int, geometry: dict[str, int]
) -> None:
    arrays = operands(planes, window, geometry)

    def build(*given: Tensor) -> list[Tensor]:
        return [F.conv2d(*work(*given), **geometry) for work in WORK.values()]

    with opened(device) as session:
        fed = {gc.placeholder(str(a.dtype), a.shape): a for a in arrays}
        fetches = build(*fed)
        check(session.run(fetches, fed), exact(build, arrays))
        if device in CPUS:
            for name, fetch in zip(WORK, fetches, strict=True):
                # Weights are computed once, by a kernel before; 1x1 windows are too little work for each element.
                before = ["nest"] * ((window == 1) + (name == "weights"))
                assert templates(session, fetch, fed) == [*before, "conv"], name


@pytest.mark.parametrize("planes,window,geometry", CASES, ids=NAMES)
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_work_before_the_gradients_of_a_convolution(
    device: str, planes: tuple[int, int], window: int, geometry: dict[str, int]
) -> None:
    """Both gradients read the scaled bytes of dy, and the weights' one the normalised images."""
    arrays = operands(planes, window, geometry)
    shape = exact(lambda x, w, s, t: [F.conv2d(x, w, **geometry)], arrays)[0].shape
    arrays.append(bytes_of(*shape))

    def build(x: Tensor, w: Tensor, s: Tensor, t: Tensor, g: Tensor) -> list[Tensor]:
        images = real(x) * s
        y = F.conv2d(gc.relu(images + 0.1), w, **geometry)
        dy = real(g) * t.reshape((1, 8, 1, 1)) * (1 / 255)
        return list(gc.gradients(y, [images, w], grad_ys=dy))

    with opened(device) as session:
        fed = {gc.placeholder(str(a.dtype), a.shape): a for a in arrays}
        fetches = build(*fed)
        check(session.run(fetches, fed), exact(build, arrays))
        if device in CPUS and window > 1:
            assert templates(session, fetches, fed) == ["conv", "conv"]


@pytest.mark.parametrize("device", CPUS)
def test_batches_of_any_size(device: str) -> None:
    """One program; a mean over the batch puts its size into the prologue of dy."""
    arrays = operands((14, 14), 3, {})

    def build(x: Tensor, w: Tensor, s: Tensor, t: Tensor) -> list[Tensor]:
        y = F.conv2d(gc.relu(real(x) * s), w, padding=1)
        return [y, *gc.gradients((y * y * t.reshape((1, 8, 1, 1))).mean(), [w])]

    with opened(device) as session:
        x, *rest = gc.placeholder("uint8", (None, 6, 14, 14)), *(gc.placeholder("float32", a.shape) for a in arrays[1:])
        fetches = build(x, *rest)
        for batch in (5, 1, 40):
            arrays[0] = bytes_of(batch, 6, 14, 14)
            fed = dict(zip((x, *rest), arrays, strict=True))
            check(session.run(fetches, fed), exact(build, arrays))
        assert templates(session, fetches, fed) == ["conv", "conv"]


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("planes,window,geometry", CASES[1:4] + CASES[5:6], ids=NAMES[1:4] + NAMES[5:6])
def test_convolutions_of_half_types_use_tiles(
    device: str, dtype: str, planes: tuple[int, int], window: int, geometry: dict[str, int]
) -> None:
    """They multiply and add up in float32 and round once."""
    with opened(device) as session:
        wanted = operands(planes, window, geometry)[:2]
        x, w = (gc.placeholder(dtype, a.shape) for a in wanted)
        fed = {t: (a / (100 if t is x else 1)).astype(t.dtype.storage) for t, a in zip((x, w), wanted, strict=True)}
        y = F.conv2d(x, w, **geometry)
        fetches = [y, *gc.gradients(y, [x, w], grad_ys=y)]
        assert set(templates(session, fetches, fed)) == {"conv"}
        results = session.run(fetches, fed)

        def build(a: Tensor, b: Tensor, dy: Tensor) -> list[Tensor]:
            z = F.conv2d(a, b, **geometry)
            return [z, *gc.gradients(z, [a, b], grad_ys=dy)]

        arrays = [np.asarray(a).astype(np.float32) for a in (fed[x], fed[w], results[0])]
        check(results, exact(build, arrays), {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype] * 1.01)


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize("stride", [1, 2])
def test_normalised_activations_are_not_stored(device: str, stride: int) -> None:
    """A training step of convolutions with batch normalisation: no kernel stores what the next convolution reads."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 4, 3),
    )
    x = gc.placeholder("float32", (None, 3, 14, 14))
    loss = (net(x) ** 2).mean()
    step = optim.SGD(0.1).minimize(loss, net.parameters())
    feeds = {x: values(5, 3, 14, 14)}
    with opened(device, seed=4) as session, gc.Session("numpy", seed=4) as oracle:
        compiled = session.compile([loss, step], feeds)
        stored = [
            b.label.split()[0]
            for b in compiled.plan.buffers
            if b.shape[1:] in ((8, 14, 14), (16, 14 // stride, 14 // stride))
        ]
        assert "conv2d" in stored and "relu" not in stored, stored
        for _ in range(2):
            np.testing.assert_allclose(
                session.run([loss, step], feeds)[0], oracle.run([loss, step], feeds)[0], rtol=1e-4
            )
        for variable in net.parameters():
            np.testing.assert_allclose(session.get_value(variable), oracle.get_value(variable), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", CPUS)
def test_sums_of_a_convolution_keep_its_operands(device: str) -> None:
    """The kernel of the sums takes a parameter with it: the convolution's operands are then at other positions."""

    def build(x: Tensor, w: Tensor, s: Tensor, q: Tensor) -> list[Tensor]:
        return [(q + 1) / (F.conv2d(x * s, w, padding=1) + 5).sum((0, 1, 2))]

    arrays = [values(5, 6, 9, 7), values(8, 6, 3, 3), values(1, 6, 1, 1), values(7)]
    with opened(device) as session:
        fed = {gc.placeholder("float32", a.shape): a for a in arrays}
        check(session.run(build(*fed), fed), exact(build, arrays))


def test_heavy_work_is_stored() -> None:
    """An exponential would be computed once for every reader."""
    with opened(INTEL) as session:
        x, w = gc.placeholder("float32", (8, 6, 14, 14)), gc.placeholder("float32", (8, 6, 3, 3))
        feeds = {x: (8, 6, 14, 14), w: (8, 6, 3, 3)}
        assert templates(session, F.conv2d(gc.exp(x), w), feeds) == ["nest", "conv"]
        assert templates(session, F.conv2d(gc.relu(x), w), feeds) == ["conv"]
