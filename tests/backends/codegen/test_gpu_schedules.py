"""GPU schedules and launch modes, run on the CPU runtimes: work-groups, local memory, barriers and transfers as on a
GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, INTEL, RUNTIMES, RUNTIMES_AND_GPU

import graphcore as gc
from backends.codegen.device_model import DeviceModel
from backends.codegen.gpu_product import family
from backends.codegen.gpu_product.family import choose_tile, tiles_of
from backends.opencl.device.device import open_device
from backends.opencl.language import language_of
from backends.opencl.launch_modes import LAUNCHES
from backends.opencl.runtime import OpenCLBackend
from backends.opencl.target import device_model
from graphcore import nn
from graphcore.api.tensor import Tensor
from graphcore.base.errors import DeviceError, UsageError
from graphcore.ir.graph import Graph
from graphcore.plan.backend import open_backend
from passes.pipeline import compile_graph
from passes.planning.placement import place

# PoCL compiles barriers slowly.
SLOW_RUNTIMES = (RUNTIMES[0], *(pytest.param(spec, marks=pytest.mark.slow) for spec in RUNTIMES[1:]))
H100 = DeviceModel(
    language_of("nvidia"), "nvidia", 1, cores=132, device="H100", kind="gpu", group=256, local_memory=49152
)


@functools.cache
def as_gpu(spec: str, cores: int = 0) -> Any:
    """A CPU runtime with a GPU's schedules; with ``cores``, those of a GPU that has so many."""
    try:
        device = open_device(spec)
    except DeviceError as error:
        pytest.skip(f"no {spec}: {error}")
    if cores:
        device = replace(device, info=replace(device.info, compute_units=cores))
    return OpenCLBackend(device, kind="gpu")


@functools.cache
def plain(spec: str) -> Any:
    try:
        return open_backend(spec)
    except DeviceError as error:
        pytest.skip(f"no {spec}: {error}")


def compiled(backend: Any, outputs: list[Tensor], feeds: dict[Tensor, Any], launch: str = "level") -> Any:
    """The outputs as one bound plan."""
    sizes = {
        next(iter(e.symbols())): n
        for t, a in feeds.items()
        for e, n in zip(t.shape, a.shape, strict=True)
        if not isinstance(e, int)
    }
    stages = compile_graph(Graph(tuple(outputs), (), tuple(feeds)), backend.target, sizes, verify=True)
    backend.launch = launch
    try:
        return backend.bind(backend.compile(stages.plan), place(stages.plan, sizes))
    finally:
        backend.launch = "auto"


def inputs(*shapes: tuple[int, ...], symbolic: bool = False, seed: int = 0) -> dict[Tensor, Any]:
    """Placeholders with normal numbers; with ``symbolic`` their first extents are symbols."""
    rng = np.random.default_rng(seed)
    return {
        gc.placeholder("float32", ((None, *s[1:]) if symbolic else s)): rng.standard_normal(s).astype(np.float32)
        for s in shapes
    }


def check(
    backend: Any, build: Callable[..., Any], feeds: dict[Tensor, Any], template: str, tolerance: float = 1e-5
) -> Any:
    """Run on a backend and on NumPy; the plan must have a step of the template."""
    built = build(*feeds)
    outputs = list(built) if isinstance(built, tuple) else [built]
    bound = compiled(backend, outputs, feeds)
    templates = [s.family for s in bound.plan.steps]
    assert template in templates, templates
    with gc.Session("numpy") as oracle:
        wanted = oracle.run(outputs, feeds)
    for got, want in zip(bound.run(list(feeds.values())), wanted, strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(
            got, want, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(want).max(initial=0)))
        )
    return bound


def test_memory_is_transferred_and_the_device_string_forces_it():
    backend = plain(f"{INTEL}:as-gpu")
    assert backend.model.kind == "gpu" and not backend.arena.on_host and backend.model.group > 1
    assert device_model(open_device(INTEL).info).kind == "cpu"


@pytest.mark.parametrize("spec", RUNTIMES)
def test_elementwise(spec):
    backend = as_gpu(spec)
    bound = check(
        backend, lambda x, y: (gc.exp(x) * 2 + y, gc.transpose(x, (1, 0)) * 3), inputs((33, 57), (33, 57)), "nest", 2e-6
    )
    assert all(s.choices.strided for s in bound.plan.steps)
    assert "u += tasks" in backend.source(bound.program)
    feeds = inputs((70000,))
    check(backend, lambda x: gc.relu(x) - 1, feeds, "nest", 0.0)


def test_symbolic_batch_serves_other_sizes():
    backend = as_gpu(RUNTIMES[0])
    feeds = inputs((37, 50), symbolic=True)
    (x,) = feeds
    y = gc.softmax(x, axis=-1)
    bound = check(backend, lambda _: y, feeds, "gpu-rows")
    for rows in (1, 300):
        other = np.random.default_rng(rows).standard_normal((rows, 50)).astype(np.float32)
        (got,) = backend.bind(bound.program, place(bound.plan, {next(iter(x.shape[0].symbols())): rows})).run([other])
        want = np.exp(other - other.max(1, keepdims=True))
        np.testing.assert_allclose(got, want / want.sum(1, keepdims=True), rtol=1e-5)


def layer_norm(x: Tensor) -> Tensor:
    d = x - gc.mean(x, axis=-1, keepdims=True)
    return d * gc.rsqrt(gc.mean(d * d, axis=-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("spec", RUNTIMES)
def test_rows(spec):
    backend = as_gpu(spec)
    check(backend, lambda x: gc.softmax(x, axis=-1), inputs((37, 101)), "gpu-rows")
    check(backend, layer_norm, inputs((3, 5, 1000)), "gpu-rows")
    labels = np.random.default_rng(1).integers(0, 100, 21)
    x, y = gc.placeholder("float32", (21, 100)), gc.placeholder("int64", (21,))
    feeds = {x: np.random.default_rng(0).standard_normal((21, 100)).astype(np.float32), y: labels}
    check(
        backend,
        lambda x, y: (nn.functional.cross_entropy(x, y), gc.gradients(nn.functional.cross_entropy(x, y), [x])[0]),
        feeds,
        "gpu-rows",
    )


@pytest.mark.parametrize("spec", SLOW_RUNTIMES)
def test_reductions(spec):
    backend = as_gpu(spec)
    check(backend, lambda x: (gc.sum(x, axis=1), gc.max(x, axis=1), gc.min(x, axis=1)), inputs((70, 333)), "gpu-rows")
    check(backend, lambda x: (gc.sum(x, axis=0), gc.mean(x, axis=(0, 2))), inputs((90, 5, 40)), "nest")
    check(backend, lambda x: gc.sum(x * x), inputs((61, 67)), "gpu-rows")
    check(backend, lambda x: gc.all(x > -9.0), inputs((61, 67)), "gpu-rows")


@pytest.mark.parametrize("spec", SLOW_RUNTIMES)
def test_first_of_equal_extremes_and_nan(spec):
    backend = as_gpu(spec)
    x = gc.placeholder("float32", (6, 300))
    rows = np.random.default_rng(0).integers(0, 5, (6, 300)).astype(np.float32)
    rows[4, [77, 200]] = np.nan
    bound = compiled(backend, [gc.argmax(x, axis=1), gc.argmin(x, axis=1), gc.max(x, axis=1)], {x: rows})
    assert {s.family for s in bound.plan.steps} == {"gpu-rows"}
    highest, lowest, values = bound.run([rows])
    np.testing.assert_array_equal(highest, np.argmax(rows, 1))
    np.testing.assert_array_equal(lowest, np.argmin(rows, 1))
    np.testing.assert_array_equal(values, rows.max(1))


@pytest.mark.parametrize("spec", SLOW_RUNTIMES)
def test_long_reductions_are_split(spec):
    backend = as_gpu(spec, cores=64)
    for build, feeds, extra in [
        (gc.sum, inputs((10007,)), "gpu-rows"),  # a prime: the last block is guarded
        (lambda x: gc.sum(x, axis=0), inputs((777, 40)), "nest"),
        (lambda x: gc.max(x, axis=0) + 1, inputs((1024, 8), symbolic=True), "nest"),
    ]:
        bound = check(backend, build, feeds, extra, 2e-5)
        assert [s.helper for s in bound.plan.steps] == [True, False], bound.plan.steps
        assert bound.plan.steps[0].workspace and bound.plan.steps[0].kernel.name.endswith("_parts")
    # Elements and sums of one domain: the elements that need a sum read it from memory.
    bound = check(backend, lambda x: (gc.sum(x * x), x * 2), inputs((9001,)), "gpu-rows")
    assert [s.helper for s in bound.plan.steps].count(True) in (1, 2)
    bound = check(backend, lambda x: (gc.mean(x), x - gc.mean(x)), inputs((50, 200)), "gpu-rows")
    assert bound.plan.steps[0].kernel.name.endswith("_parts")
    bound = check(backend, lambda x, y: gc.relu(gc.matmul(x, y)), inputs((33, 2051), (2051, 40)), "gpu-matmul", 3e-5)
    assert [s.helper for s in bound.plan.steps] == [True, False]


@pytest.mark.parametrize("spec", RUNTIMES)
def test_matmul(spec):
    backend = as_gpu(spec)
    check(backend, lambda x, y, b: gc.relu(gc.matmul(x, y) + b), inputs((70, 45), (45, 83), (83,)), "gpu-matmul")
    check(
        backend,
        lambda x, y: gc.matmul(gc.transpose(x, (1, 0)), gc.transpose(y, (1, 0))) * 2,
        inputs((17, 33), (9, 17)),
        "gpu-matmul",
    )
    check(backend, lambda x, y: gc.tanh(gc.matmul(x, y)), inputs((3, 20, 37), (3, 37, 33)), "gpu-matmul")


def test_matmul_shapes_and_types():
    backend = as_gpu(RUNTIMES[0])
    for m, n, k in [(8, 8, 8), (64, 64, 16), (65, 63, 17), (200, 9, 31)]:
        check(backend, gc.matmul, inputs((m, k), (k, n)), "gpu-matmul")
    check(backend, gc.matmul, inputs((1, 40), (40, 40)), "nest")  # neighbouring columns are neighbours in memory
    check(backend, lambda x, y: gc.matmul(x, gc.transpose(y, (1, 0))), inputs((1, 40), (40, 40)), "gpu-rows")
    check(
        backend,
        lambda x, y: gc.matmul(x.astype("float64"), y.astype("float64")),
        inputs((33, 20), (20, 30)),
        "gpu-matmul",
        1e-12,
    )
    feeds = inputs((50, 20), symbolic=True)
    check(
        backend,
        lambda x: gc.matmul(x, gc.constant(np.arange(240, dtype=np.float32).reshape(20, 12) / 240)),
        feeds,
        "gpu-matmul",
    )


@pytest.mark.parametrize("spec", SLOW_RUNTIMES)
def test_convolution_is_a_product(spec):
    backend = as_gpu(spec)
    feeds = inputs((2, 8, 9, 7), (16, 8, 3, 3))

    def build(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = nn.functional.conv2d(x, w, stride=2, padding=1)
        return (gc.relu(y), *gc.gradients(gc.sum(y * y), [x, w]))

    bound = check(backend, build, feeds, "gpu-matmul", 2e-5)
    assert sum(s.family == "gpu-matmul" for s in bound.plan.steps) >= 3


def training(
    device: str, model: nn.Module, images: Any, labels: Any, steps: int, launch: str = "auto"
) -> tuple[list[Any], Any]:
    """Losses of a few training steps, and the compiled step."""
    x, y = gc.placeholder("float32", (None, *images.shape[1:])), gc.placeholder("int64", (None,))
    loss = nn.functional.cross_entropy(model(x), y)
    train = gc.optim.Adam(lr=0.01).minimize(loss)
    with gc.Session(device, seed=0) as session:
        if launch != "auto":
            session._backend.launch = launch
        losses = [float(session.run([loss, train], {x: images, y: labels})[0]) for _ in range(steps)]
        return losses, session.compile([loss, train], {x: images, y: labels})


def data(*shape: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, 10, shape[0])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(36, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 9, 10),
    )


@pytest.mark.parametrize("spec", SLOW_RUNTIMES)
@pytest.mark.parametrize(("make", "shape"), [(mlp, (20, 36)), (cnn, (6, 3, 6, 6))])
def test_training_steps(spec, make, shape):
    plain(spec)
    images, labels = data(*shape)
    wanted, _ = training("numpy", make(), images, labels, 4)
    losses, step = training(f"{spec}:as-gpu", make(), images, labels, 4)
    np.testing.assert_allclose(losses, wanted, rtol=2e-4)
    assert "gpu-matmul" in {s.family for s in step.plan.steps} and losses[-1] < losses[0]


@pytest.mark.parametrize(
    "device",
    [*RUNTIMES_AND_GPU, *(pytest.param(f"{spec}:as-gpu", marks=pytest.mark.slow) for spec in CPUS[1:])],
)
def test_launch_modes_give_equal_bits(device):
    plain(device)
    images, labels = data(16, 36)
    found = {}
    for launch, mode in LAUNCHES.items():
        losses, step = training(device, mlp(), images, labels, 3, launch)
        assert step.bound.mode == mode and step.bound.launch == launch and f"launched as: {mode}" in step.explain()
        found[launch] = losses, step.launches
    assert found["step"][0] == found["level"][0] == found["one"][0]
    assert found["step"][1] >= found["level"][1] > found["one"][1] == 1
    assert found["step"][1] > found["level"][1]  # Adam's updates are rows of one launch


def test_launch_option_is_checked():
    backend = plain(INTEL)
    assert backend.launch == "auto"
    with pytest.raises(UsageError, match="auto, step, level, one"):
        backend.launch = "warp"


def test_one_program_serves_all_launches_on_cpus():
    backend = plain(INTEL)
    feeds = inputs((33, 9))
    (x,) = feeds
    sources = {
        backend.source(compiled(backend, [gc.exp(x), gc.sum(x, axis=1)], feeds, launch).program) for launch in LAUNCHES
    }
    assert len(sources) == 1 and "run_plan" in next(iter(sources))


def test_equal_steps_share_a_kernel_and_a_launch():
    backend = as_gpu(RUNTIMES[0])
    feeds = inputs((40, 8), (40, 8), (40, 8))
    bound = compiled(backend, [gc.exp(gc.transpose(x, (1, 0))) for x in feeds], feeds, "level")
    assert len(bound.plan.steps) >= 1 and bound.launches == len(bound.plan.levels) == 1
    source = backend.source(bound.program)
    assert source.count("__kernel") == len(bound.program.source.functions) and "run_plan" not in source


def test_tiles_grow_with_the_product():
    sizes = [choose_tile(n, n, 1, 4, H100).tile[0] for n in (64, 512, 1024, 4096)]
    assert sizes == sorted(sizes) and sizes[0] == 32 and sizes[-1] == 128
    assert all(choose_tile(n, n, 1, 8, H100).nbytes(8) <= H100.local_memory for n in (64, 4096))
    assert choose_tile(4096, 4096, 1, 4, H100, bare=False).tile == (128, 64)
    config = choose_tile(4096, 4096, 1, 4, H100)
    assert config.across * config.down == H100.group and config.rows * config.cols * 4 <= 256


@pytest.mark.parametrize("itemsize", [4, 8])
def test_every_tile_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, itemsize: int) -> None:
    """Results are added up in the order of the terms whatever the tile, so that time alone may choose it."""
    backend = as_gpu("opencl:intel")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(f"float{8 * itemsize}") for s in ((2, 70, 43), (2, 43, 85)))
    feeds = {gc.placeholder(str(x.dtype), x.shape): x for x in (a, b)}
    menu = tiles_of(itemsize, backend.model)
    assert len({t.tile for t in menu}) == len(menu) > 2
    few = [replace(menu[-1], depth=8), replace(menu[-1], buffers=1), replace(menu[-1], across_vector=1, down_vector=1)]
    found = []
    for tile in [*menu, *few]:
        monkeypatch.setattr(family, "choose_tile", lambda *_, tile=tile: tile)
        bound = compiled(backend, [gc.matmul(*feeds)], feeds)
        assert [s.choices for s in bound.plan.steps] == [tile]
        found.append(bound.run(list(feeds.values()))[0])
    np.testing.assert_allclose(found[0], a.astype("float64") @ b.astype("float64"), rtol=1e-5, atol=1e-4)
    assert all(np.array_equal(f, found[0]) for f in found)


def test_blocks_of_terms_are_loaded_while_others_are_multiplied() -> None:
    """Two buffers where local memory holds them, and one of fewer terms where it is small."""
    assert [t.buffers for t in tiles_of(4, H100)] == [2] * 7
    small = replace(H100, local_memory=9000)
    assert all(t.nbytes(4) <= 9000 for t in tiles_of(4, small)) and {t.buffers for t in tiles_of(4, small)} == {1, 2}
    assert choose_tile(64, 64, 1, 4, replace(H100, local_memory=64)) is None
