"""Small graphs for the simulator Oclgrind, which reports accesses outside of buffers, data races and the like.

``python oclgrind_cases.py DEVICE FAMILY`` runs the cases of a family and prints a line of JSON for each. Their
memory is ``tight_memory``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import graphcore as gc
import graphcore.nn.functional as F
from backends.codegen import vector_loads as lanes
from backends.codegen.gpu_product import family as gpu_matmul
from backends.codegen.nest.family import Nest
from backends.codegen.nest.schedule import nest_units
from backends.codegen.scatter import gpu_sort
from backends.codegen.scatter import rows as scatter_rows
from backends.codegen.scatter import sort as scatter_sort
from backends.opencl import memory, target
from graphcore import nn, optim
from graphcore.base.shapes import bind
from graphcore.plan.costs import CostModel
from support.runtimes import differences
from support.tight_memory import GPU, Tight

BATCH, SMALLER = 5, 3
_ALIGN = 128
_LAUNCHES = ("one", "step", "level")
_FILLINGS = (255, 0, 60)  # what values that nothing has written look like: NaN or -1, zero, a number near 0.01


# -- cases


class Inputs:
    """Makes the placeholders of a case and feeds for them.

    Attributes:
        batch: the extent that is symbolic if ``symbolic``.
    """

    def __init__(self, symbolic: bool) -> None:
        self.symbolic = symbolic
        self.batch: Any = gc.Dim("batch") if symbolic else BATCH
        self.made: list[tuple[Any, Callable[[Any, tuple[int, ...]], Any]]] = []

    def __call__(self, dtype: str, *shape: Any, below: int | None = None) -> Any:
        """A placeholder of normal numbers, or of integers from 0 to ``below``."""
        x = gc.placeholder(dtype, shape)

        def draw(rng: Any, extents: tuple[int, ...]) -> Any:
            if dtype == "bool":
                return rng.random(extents) > 0.5
            if below is not None:
                return rng.integers(0, below, extents).astype(x.dtype.storage)
            numbers = rng.standard_normal(extents)
            return (numbers if x.dtype.is_float else numbers * 20).astype(x.dtype.storage)

        self.made.append((x, draw))
        return x

    def feeds(self, batch: int) -> dict[Any, Any]:
        rng = np.random.default_rng(batch)
        return {
            x: draw(rng, tuple(e if isinstance(e, int) else int(e.bind({"batch": batch})) for e in x.shape))
            for x, draw in self.made
        }


Case = Callable[[Inputs], Any]
FAMILIES: dict[str, dict[str, Case]] = {}


def case(family: str) -> Callable[[Case], Case]:
    """Register a case: a function of ``Inputs`` that gives the fetches."""

    def register(build: Case) -> Case:
        FAMILIES.setdefault(family, {})[build.__name__] = build
        return build

    return register


def with_gradients(y: Any, *xs: Any) -> list[Any]:
    """A value and the gradients of its weighted sum: weights that differ show elements in the wrong place."""
    return [y, *gc.gradients((y * gc.sin(y + 1.0)).sum(), list(xs))]


@case("elementwise")
def floats(i: Inputs) -> Any:
    found = []
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        x, y = i(dtype, i.batch, 7), i(dtype, 7)
        found += [gc.tanh(x) * y + 1.0, gc.where(x > y, gc.exp(x), gc.abs(y)), gc.maximum(x, y) / 3.0]
    return found


@case("elementwise")
def integers(i: Inputs) -> Any:
    found = []
    for dtype in ("int8", "int32", "int64", "uint8"):
        x, y = i(dtype, i.batch, 37), i(dtype, i.batch, 1)
        found += [x * y - x, gc.maximum(x, y), x == y]
    return found


@case("elementwise")
def bools(i: Inputs) -> Any:
    x, y = i("bool", i.batch, 19), i("bool", 19)
    return [gc.logical_and(x, y), gc.logical_not(x), x.astype("float32") * 2.0, gc.where(x, 1.0, 2.0)]


@case("elementwise")
def wide(i: Inputs) -> Any:
    x, y = i("float32", i.batch, 64), i("float64", 3, i.batch)
    return [
        gc.sigmoid(x),
        gc.erf(x),
        gc.log1p(gc.abs(x)),
        gc.sqrt(gc.abs(y)),
        gc.sin(y) + gc.cos(y),
        x.astype("int8"),
        x.astype("bfloat16"),
    ]


@case("reductions")
def sums(i: Inputs) -> Any:
    x = i("float32", i.batch, 6, 21)
    return [
        x.sum(),
        x.sum(axis=0),
        x.sum(axis=1),
        x.sum(axis=2),
        x.sum(axis=(0, 2)),
        x.mean(axis=(1, 2)),
        gc.var(x, axis=2),
    ]


@case("reductions")
def extremes(i: Inputs) -> Any:
    x, k = i("float32", i.batch, 19), i("int8", i.batch, 35)
    return [
        x.max(axis=1),
        x.min(axis=0),
        k.max(),
        k.min(axis=1),
        gc.argmax(x, axis=1),
        gc.argmax(x, axis=0),
        gc.argmin(k, axis=1),
        gc.argmax(x),
    ]


@case("reductions")
def other_types(i: Inputs) -> Any:
    x, h, b, d = i("bfloat16", i.batch, 18), i("float16", i.batch, 9), i("bool", i.batch, 33), i("float64", i.batch, 13)
    return [
        x.sum(axis=1),
        h.sum(axis=0),
        gc.any(b, axis=1),
        gc.all(b, axis=0),
        d.sum(),
        gc.logsumexp(d, axis=1),
        gc.prod(d, axis=0),
    ]


@case("reductions")
def long_sums(i: Inputs) -> Any:
    x, w = i("float32", 700, i.batch), i("float32", i.batch, 1300)
    return [x.sum(axis=0), x.sum(), w.sum(axis=1), w.sum(), w.max()]


@case("rows")
def softmaxes(i: Inputs) -> Any:
    x, y = i("float32", i.batch, 21), i("float32", i.batch, 3, 5)
    return [*with_gradients(F.softmax(x, dim=1), x), F.log_softmax(x, dim=1), F.softmax(y, dim=1), F.softmax(x, dim=0)]


@case("rows")
def layer_norms(i: Inputs) -> Any:
    x, w, b = i("float32", i.batch, 3, 18), i("float32", 18), i("float32", 18)
    return with_gradients(F.layer_norm(x, (18,), w, b), x, w, b)


@case("rows")
def cross_entropies(i: Inputs) -> Any:
    x, y = i("float32", i.batch, 11), i("int64", i.batch, below=11)
    loss = F.cross_entropy(x, y)
    return [loss, gc.gradients(loss, x)[0], (gc.argmax(x, axis=1) == y).astype("float32").mean()]


@case("matmul")
def products(i: Inputs) -> Any:
    x, w, bias = i("float32", i.batch, 19), i("float32", 19, 37), i("float32", 37)
    return [x @ w, gc.maximum(x @ w + bias, 0.0)]


@case("matmul")
def transposed(i: Inputs) -> Any:
    x, w, y = i("float32", i.batch, 19), i("float32", 37, 19), i("float32", i.batch, 33)
    return [x @ w.T, x.T @ y, w @ x.T]


@case("matmul")
def batched(i: Inputs) -> Any:
    x, y = i("float32", i.batch, 7, 9), i("float32", i.batch, 9, 18)
    return with_gradients(x @ y, x, y)


@case("matmul")
def larger(i: Inputs) -> Any:
    x, w, v = i("float32", i.batch, 150), i("float32", 150, 50), i("float32", 50, 1)
    return with_gradients(gc.maximum(x @ w, 0.0) @ v, x, w, v)


@case("matmul")
def other_products(i: Inputs) -> Any:
    a, b = i("float64", i.batch, 13), i("float64", 13, 21)
    c, d = i("bfloat16", i.batch, 16), i("bfloat16", 16, 9)
    e, f = i("int32", i.batch, 5), i("int32", 5, 17)
    g, h = i("float16", i.batch, 8), i("float16", 8, 19)
    return [a @ b, c @ d, e @ f, g @ h]


@case("matmul")
def before_and_after(i: Inputs) -> Any:
    x, s, w, rows = i("float32", i.batch, 70), i("float32", i.batch, 1), i("float32", 70, 37), i("int32", i.batch)
    return [(x * s) @ w, gc.sum(gc.maximum((x * s) @ w, 0.0), axis=0), gc.take(w.T, rows % 37, axis=0) @ w]


def _convolution(i: Inputs, channels: int, filters: int, size: int, window: int, **options: Any) -> list[Any]:
    x, w = (
        i("float32", i.batch, channels, size, size + 1),
        i("float32", filters, channels // options.get("groups", 1), window, window),
    )
    return with_gradients(F.conv2d(x, w, **options), x, w)


@case("conv")
def padded(i: Inputs) -> Any:
    x, w, a = i("float32", i.batch, 3, 6, 7), i("float32", 5, 3, 3, 3), i("float32", 1, 3, 1, 1)
    return [
        *_convolution(i, 3, 5, 6, 3, padding=1),
        *with_gradients(F.conv2d(gc.maximum(x * a, 0.0), w, padding=1), x, w),
    ]


@case("conv")
def strided(i: Inputs) -> Any:
    return _convolution(i, 2, 4, 7, 3, stride=2, padding=1)


@case("conv-more")
def grouped(i: Inputs) -> Any:
    return _convolution(i, 4, 6, 5, 3, groups=2)


@case("conv-more")
def depthwise(i: Inputs) -> Any:
    return _convolution(i, 4, 4, 5, 3, groups=4, padding=1)


@case("conv-more")
def pointwise(i: Inputs) -> Any:
    return _convolution(i, 18, 17, 4, 1)


@case("conv-more")
def with_epilogue(i: Inputs) -> Any:
    x, w, b = i("float32", i.batch, 1, 6, 6), i("float32", 17, 1, 5, 5), i("float32", 17)
    return F.relu(F.conv2d(x, w, b, padding=2, dilation=1))


@case("conv-more")
def with_sums(i: Inputs) -> Any:
    """Sums a channel: of a result and of what is made of it, read in place, in phases, of several images a unit."""
    x, w, v = i("float32", i.batch, 2, 6, 7), i("float32", 5, 2, 3, 3), i("float32", 5, 2, 1, 1)
    y, z, small = F.relu(F.conv2d(x, w, padding=1)), F.conv2d(x, v), F.conv2d(x[:, :, :4, :5], w)
    dx = gc.gradients((F.conv2d(x, w, stride=2, padding=1) * 2.0).sum(), [x])[0]
    return [y, *(gc.sum(t, axis=(0, 2, 3)) for t in (y, z, small, dx))]


@case("pool")
def maxima(i: Inputs) -> Any:
    x = i("float32", i.batch, 3, 6, 7)
    return [*with_gradients(F.max_pool2d(x, 2), x), *with_gradients(F.max_pool2d(x, 3, stride=2, padding=1), x)]


@case("pool")
def averages(i: Inputs) -> Any:
    x = i("float32", i.batch, 3, 6, 7)
    return [*with_gradients(F.avg_pool2d(x, 2), x), *with_gradients(F.avg_pool2d(x, 3, stride=2, padding=1), x)]


@case("index")
def lookups(i: Inputs) -> Any:
    t, k, j = i("float32", 11, 18), i("int64", i.batch, 4, below=11), i("int32", i.batch, below=18)
    return [*with_gradients(F.embedding(k, t), t), gc.take(t, j, axis=1), gc.take(t, k)]


@case("index")
def scatters(i: Inputs) -> Any:
    x, k, s = i("float32", 9, 7), i("int64", i.batch, 7, below=9), i("float32", i.batch, 7)
    r, rows = i("int32", i.batch, below=9), i("float32", i.batch, 7)
    return [
        gc.scatter_add(x, 0, k, s),
        gc.index_add(x, 0, r, rows),
        gc.one_hot(r, 9),
        gc.take_along_axis(x, k % 7, axis=0),
    ]


@case("index")
def sorted_sums(i: Inputs) -> Any:
    """Sums by row with an update: duplicates, negative indices and ones out of range, two lookups in one table, no
    inner axis."""
    table, bias = gc.Variable(np.ones((11, 21), np.float32)), gc.Variable(np.ones(9, np.float32))
    k, j, w = i("int64", i.batch, 4, below=40), i("int32", i.batch, below=9), i("float32", i.batch, 4, 21)
    rows, scales = gc.take(table, k - 6, axis=0), i("float32", i.batch)
    loss = (
        (gc.where(gc.isnan(rows), 0.0, rows) * w).sum()
        + (gc.take(table, j, axis=0) * 3.0).sum()
        + (gc.take(bias, j, axis=0) * scales).sum()
    )
    return [loss, optim.SGD(lr=0.1).minimize(loss, [table, bias])]


@case("index")
def moves(i: Inputs) -> Any:
    x, y = i("float32", i.batch, 5, 9), i("float32", i.batch, 5, 4)
    return [
        gc.concat([x, y], axis=2),
        gc.concat([x, x], axis=0),
        gc.pad(x, ((0, 0), (1, 2), (3, 0))),
        x[:, 1:4:2, ::-1],
        gc.flip(x, axis=1),
        gc.permute_dims(x, (2, 0, 1)),
        gc.permute_dims(x, (0, 2, 1)),
        gc.roll(x, 2, axis=2),
        gc.repeat(y, 2, axis=2),
        gc.tril(x @ gc.permute_dims(x, (0, 2, 1))),
    ]


@case("index")
def narrow_moves(i: Inputs) -> Any:
    x, b = i("int8", i.batch, 21), i("bool", i.batch, 21)
    return [
        gc.concat([x, x], axis=1),
        gc.flip(x, axis=1),
        x[:, 3:],
        gc.permute_dims(b, (1, 0)),
        gc.pad(b, ((1, 0), (0, 2))),
        x[:, ::4],
    ]


@case("random")
def draws(i: Inputs) -> Any:
    x = i("float32", i.batch, 21)
    return [
        gc.random.uniform(shape=(i.batch, 21)),
        gc.random.normal(shape=(19,)),
        gc.random.randint(0, 7, shape=(i.batch, 9)),
        *with_gradients(F.dropout(x, 0.3), x),
    ]


@case("training")
def counters(i: Inputs) -> Any:
    """Variables updated by kernels that compute other things as well, with the old value, the new one or none of the
    two."""
    x, found = i("float32", i.batch, 21), []
    for used in ("none", "old", "new"):
        for shape in ((), (21,)):
            w = gc.Variable(np.full(shape, 2, np.float32))
            new = w + 1.0
            found += [gc.exp(x) * {"none": 2.0, "old": w, "new": new}[used], w.assign(new)]
    momentum, rate = gc.Variable(np.ones(21, np.float32)), gc.Variable(np.float32(0.5))
    moved = momentum * rate + x.sum(axis=0)
    return [*found, momentum.assign(moved), rate.assign(rate * 0.5), (x * moved).sum(axis=1)]


def _training(i: Inputs, model: Any, x: Any, classes: int) -> Any:
    y = i("int64", i.batch, below=classes)
    loss = F.cross_entropy(model(x), y)
    return [loss, optim.Adam(lr=0.01).minimize(loss, model)]


@case("training")
def mlp(i: Inputs) -> Any:
    return _training(i, nn.Sequential(nn.Linear(13, 18), nn.ReLU(), nn.Linear(18, 5)), i("float32", i.batch, 13), 5)


@case("training")
def cnn(i: Inputs) -> Any:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4))
    return _training(i, model, i("float32", i.batch, 1, 6, 6), 4)


# -- running


def run_case(build: Case, device: str, symbolic: bool, missing: int = 0, gathering: bool = False) -> dict[str, Any]:
    """Two runs with the full batch and, if it is symbolic, one with a smaller one: what was wrong, and which templates
    ran.

    ``gathering`` lets launches cost nothing, so that products of small results gather sums in their epilogues, too.
    """
    gc.random.seed(1)
    inputs = Inputs(symbolic)
    built = build(inputs)
    fetches = list(built) if isinstance(built, (list, tuple)) else [built]
    wrong: list[str] = []
    with gc.Session(device, seed=3) as session, gc.Session("numpy", seed=3) as oracle:
        if gathering:
            target = session._backend.target
            session._backend.target = replace(
                target, costs=replace(target.costs, launch_seconds=0.0, row_seconds=0.0, task_seconds=0.0)
            )
        tight = Tight(session._backend, 2 if symbolic and device.endswith(GPU) else 1, missing)
        for batch in (BATCH, BATCH, SMALLER) if symbolic else (BATCH,):
            feeds = inputs.feeds(batch)
            wrong += [
                f"batch {batch}: {text}"
                for text in differences(session.run(fetches, feeds), oracle.run(fetches, feeds))
            ]
        state = session.state_dict()
        expected = oracle.state_dict()
        wrong += [f"variables: {text}" for text in differences(list(state.values()), [expected[key] for key in state])]
    return {"wrong": wrong, "templates": sorted(tight.templates)}


def main(device: str, family: str, missing: int = 0, only: str = "") -> None:
    """Run a family's cases; what the simulator says on standard error stands after the name of the case."""
    memory._SLACK, memory._PAGE = 0, 1
    target._GROUP = 64  # small groups are simulated faster, and small products shall run in tiles too
    gpu_matmul._SMALLEST = gpu_matmul._SHORTEST = 4
    scatter_sort._FEWEST, scatter_sort._COMPARED = 2, 10**6
    gpu_sort._FEWEST = gpu_sort._FEWEST_PAIRS = 2
    gpu_sort._PIECE = 1  # small pieces, so that there are several
    scatter_rows._worth_a_row = lambda compared, model: compared >= 2
    CostModel.tasks_worth = lambda costs, seconds: 16  # type: ignore[method-assign]
    if (
        "OCLGRIND_UNINITIALIZED" in os.environ
    ):  # the simulator's check crashes where a vector is made of every second element of two
        lanes._is_whole = lambda step, width: step in (-1, 0, 1)
    plain = Nest.tasks

    def many(nest: Nest, kernel: Any, config: Any, model: Any, sizes: Mapping[str, int]) -> int:
        if config.strided:
            return plain(nest, kernel, config, model, sizes)
        return max(
            1, min(int(bind(nest_units(kernel, config), sizes)), 7)
        )  # where one would do: there are no races within one

    Nest.tasks = many  # type: ignore[method-assign]
    for name, build in FAMILIES[family].items():
        for symbolic in (True,) if device.endswith(GPU) else (False, True):
            label = f"{name}[{'symbolic' if symbolic else 'static'}]"
            if only not in label:
                continue
            print(f"case {label}", file=sys.stderr, flush=True)
            try:
                found = run_case(build, device, symbolic, missing, family in ("matmul", "conv", "conv-more"))
            except (gc.GraphcoreError, AssertionError):
                found = {"wrong": [traceback.format_exc()], "templates": []}
            print(json.dumps({"case": label, **found}), flush=True)


if __name__ == "__main__":
    main(
        sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0, sys.argv[4] if len(sys.argv) > 4 else ""
    )
