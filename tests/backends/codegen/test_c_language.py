"""Another language: the functions of a training step as C with vector extensions, compiled by the system's compiler and
run over one arena, against the oracle."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from backends.codegen.c_language import FLAGS, CLanguage
from backends.codegen.functions import Function, functions_of
from backends.codegen.prelude import prelude_for
from backends.opencl.device.device import DeviceInfo
from backends.opencl.target import device_model, make_target
from graphcore import nn, optim
from graphcore.api.variable import variable_of
from graphcore.base.shapes import bind
from graphcore.ir.graph import Graph, collect
from graphcore.plan.plan import CONSTANT, VARIABLE, Placed, Plan
from graphcore.runtime.feeds import sizes_of
from graphcore.runtime.fetches import flatten_fetches
from passes.pipeline import compile_graph

COMPILER = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler (cc, gcc, clang)")
C = CLanguage()
# A processor of two cores that nothing is known of; its vectors have 64 bytes, whatever the machine's have.
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


def entry(f: Function) -> str:
    """A function that calls one of a plan's with the addresses and the sizes of a step."""
    addresses = [f"at[{i}]" for i in range(len(f.kernel.params))]
    call = f.call(C, addresses, [f"sizes[{i}]" for i in range(f.arguments)], "task", "tasks")
    return f"void run_{f.number}(char** at, const long* sizes, int task, int tasks) {{ {call} }}\n"


def built(text: str, folder: Path) -> ctypes.CDLL:
    """The shared object of a source."""
    source, target = folder / "functions.c", folder / "functions.so"
    source.write_text(text)
    command = [str(COMPILER), "-O2", "-shared", "-fPIC", "-w", *FLAGS, str(source), "-o", str(target), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return ctypes.CDLL(str(target))


class Steps:
    """A plan whose functions are C, run step by step over one arena.

    Args:
        fetches, feeds: as for ``Session.run``.
        folder: for the source and what is built of it.
    """

    def __init__(self, fetches: Any, feeds: dict[Any, Any], folder: Path) -> None:
        tensors, updates, _ = flatten_fetches(fetches)
        graph = collect(tensors, updates, tuple(t.value for t in feeds))
        graph = Graph(graph.outputs, graph.updates, tuple(feeds))
        sizes = sizes_of(tuple(feeds), [np.shape(a) for a in feeds.values()], frozenset(), ())
        made = compile_graph(graph, make_target(DEVICE), sizes)
        self.plan: Plan = made.plan
        self.slots = made.slots
        self.placed: Placed = made.placed
        self.model = replace(device_model(DEVICE), language=C)
        self.functions, self.of_step = functions_of(self.plan, self.model)
        body = "\n".join(f.text for f in self.functions)
        self.text = C.header + prelude_for(body, C) + body + "".join(map(entry, self.functions))
        self.code = built(self.text, folder)

    def run(self, arrays: Sequence[Any], variables: dict[Any, Any]) -> list[Any]:
        """Fetches of fed arrays; the variables' arrays are updated."""
        arena = np.full(self.placed.arena_bytes + 64, 0xFF, np.uint8)  # NaN in every floating type
        buffers = [self._view(b, arena, variables) for b in self.plan.buffers]
        for number, array in zip(self.plan.feeds, arrays, strict=True):
            np.copyto(buffers[number], np.asarray(array).astype(buffers[number].dtype).reshape(-1))
        for step, number in zip(self.plan.steps, self.of_step, strict=True):
            sizes = [int(bind(e, self.placed.sizes)) for e in step.arguments]
            tasks = int(bind(step.tasks, self.placed.sizes))
            at = (ctypes.c_void_p * len(step.buffers))(*(buffers[n].ctypes.data for n in step.buffers))
            function = getattr(self.code, f"run_{number}")
            for task in range(tasks):
                function(at, (ctypes.c_long * len(sizes))(*sizes), ctypes.c_int(task), ctypes.c_int(tasks))
        results = []
        for fetch in self.plan.fetches:
            shape = tuple(int(bind(e, self.placed.sizes)) for e in fetch.shape)
            results.append(np.array(self.plan.fetched(fetch, buffers)).reshape(shape))
        return results

    def _view(self, buffer: Any, arena: Any, variables: dict[Any, Any]) -> Any:
        if buffer.space == VARIABLE:
            return variables[variable_of(self.slots[self.plan.slot(buffer.number)])].reshape(-1)
        if buffer.space == CONSTANT:
            return np.ascontiguousarray(self.plan.constant(buffer)).reshape(-1)
        if buffer.number not in self.placed.offsets:
            return np.empty(0, buffer.dtype.storage)
        start = self.placed.offsets[buffer.number]
        return arena[start : start + int(bind(buffer.nbytes, self.placed.sizes))].view(buffer.dtype.storage)


def compared(
    fetches: Any, feeds: dict[Any, Any], variables: Sequence[Any], folder: Path, runs: int, rtol: float
) -> Steps:
    """Run a step several times in C and on the oracle: all outputs and variables agree."""
    with gc.Session("numpy") as oracle:
        held = {v: np.array(oracle.get_value(v)) for v in variables}
        steps = Steps(fetches, feeds, folder)
        held |= {v: np.array(oracle.get_value(v)) for v in map(variable_of, steps.slots) if v not in held}
        expected = [oracle.run(fetches, feeds) for _ in range(runs)]
        finals = {v: np.array(oracle.get_value(v)) for v in held}
    for want in expected:
        results = steps.run(list(feeds.values()), held)
        flat, _, _ = flatten_fetches(fetches)
        assert len(results) == len(flat)
        for result, value in zip(results, [w for w in want if w is not None], strict=True):
            np.testing.assert_allclose(result, value, rtol=rtol, atol=rtol)
    for variable, value in finals.items():
        np.testing.assert_allclose(held[variable], value, rtol=rtol, atol=rtol, err_msg=str(variable))
    return steps


def mlp(batch: int) -> tuple[Any, dict[Any, Any], list[Any]]:
    """A step of a classifier with a layer norm, cross entropy and Adam; its feeds and variables.

    Adam divides by the gradient's size: without an epsilon above the rounding errors it would show these alone.
    """
    model = nn.Sequential(
        nn.Linear(50, 96), nn.ReLU(), nn.LayerNorm(96), nn.Linear(96, 64), nn.Tanh(), nn.Linear(64, 10)
    )
    x, y = gc.placeholder("float32", (None, 50), name="x"), gc.placeholder("int64", (None,), name="y")
    rng = np.random.default_rng(0)
    feeds = {x: rng.standard_normal((batch, 50), dtype=np.float32), y: rng.integers(0, 10, batch)}
    logits = model(x)
    loss = nn.functional.cross_entropy(logits, y)
    accuracy = gc.mean(gc.cast(gc.equal(gc.argmax(logits, axis=1), y), "float32"))
    fetches = [loss, accuracy, gc.softmax(logits, axis=1), optim.Adam(1e-2, eps=1e-4).minimize(loss)]
    return fetches, feeds, list(model.parameters())


def test_a_training_step_runs_in_c(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Products, rows and updates of a classifier: 17 functions when this was written."""
    fetches, feeds, variables = mlp(67)
    steps = compared(fetches, feeds, variables, tmp_path, runs=3, rtol=2e-4)
    record_property("functions", len(steps.functions))
    assert {s.family for s in steps.plan.steps} == {"matmul", "nest"}
    assert len(steps.functions) >= 15


def test_convolutions_run_in_c(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Images, their strided gradients, and sums of weights."""
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, stride=2, padding=1)
    x = gc.placeholder("float32", (None, 3, 20, 22), name="x")
    loss = (second(gc.relu(first(x))) ** 2).mean()
    feeds = {x: np.random.default_rng(2).standard_normal((5, 3, 20, 22), dtype=np.float32)}
    variables = [*first.parameters(), *second.parameters()]
    steps = compared([loss, optim.SGD(0.1).minimize(loss)], feeds, variables, tmp_path, runs=2, rtol=2e-4)
    record_property("functions", len(steps.functions))
    assert {"conv", "conv-sums"} <= {s.family for s in steps.plan.steps}


def assorted() -> tuple[list[Any], dict[Any, Any]]:
    """Elementwise work on most types, and loads that are not of neighbours."""
    rng = np.random.default_rng(1)
    feeds: dict[Any, Any] = {}

    def fed(dtype: str, values: Any) -> Any:
        made = gc.placeholder(dtype, values.shape)
        feeds[made] = values
        return made

    a = fed("float32", rng.standard_normal((9, 35)).astype(np.float32))
    b = fed("float64", rng.standard_normal((9, 35)))
    i = fed("int32", rng.integers(-(2**31), 2**31, (9, 35)).astype(np.int32))
    j = fed("int64", rng.integers(-9, 9, (9, 35)))
    u = fed("uint8", rng.integers(0, 256, (9, 35)).astype(np.uint8))
    table = fed("float32", rng.standard_normal((40, 35)).astype(np.float32))
    rows = fed("int64", rng.integers(0, 40, (9,)))
    half = gc.cast(a, "bfloat16") * gc.cast(b, "bfloat16")
    large = a * 1e10
    fetches = [
        *(gc.exp(a), gc.tanh(b), gc.erf(a), gc.where(a > 0, a, b.cast("float32")), gc.maximum(a, 0.0), gc.gelu(a)),
        *(i + i, i * i, i // j.cast("int32"), j % 4, -i, gc.maximum(i, 7), u + u, u // 3, gc.abs(i)),
        *(
            large.cast("int32"),
            gc.cast(b * 300, "uint8"),
            u.cast("float32"),
            (a > 0.5).cast("int64"),
            half.cast("float32"),
        ),
        *(gc.logical_and(a > 0, b > 0), gc.logical_not(a > 0), gc.floor_divide(a, b.cast("float32") + 0.3)),
        *(gc.concat([a, table], axis=0), gc.flip(a, axis=1), gc.pad(a, ((1, 2), (3, 1))), gc.transpose(a)),
        *(a[:, ::2], gc.take(table, rows, axis=0), gc.gradients(gc.take(table, rows, axis=0).sum(), table)[0]),
        *(gc.argmax(a, axis=1), gc.argmin(a, axis=0), gc.max(a, axis=1), gc.prod(a, axis=0), gc.sum(i, axis=1)),
        *(gc.any(a > 2, axis=1), gc.all(a > -3, axis=0), gc.max(half, axis=1).cast("float32")),
    ]
    return fetches, feeds


def test_types_and_scattered_loads_run_in_c(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    fetches, feeds = assorted()
    steps = compared(fetches, feeds, (), tmp_path, runs=1, rtol=2e-5)
    record_property("functions", len(steps.functions))
    for sort in ("splat", "select", "from_float", "as", "any", "reversed", "ends"):
        assert f"gc_{sort}_" in steps.text, sort
