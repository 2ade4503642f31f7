"""Kernels as JSON: equal texts for equal kernels, equal kernels from texts, and what damaged texts say."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from support.damage import check_damages
from support.devices import backend
from support.form_kernels import product_kernel, window_kernel
from support.random_programs import seeded
from support.stages import training_step

import graphcore as gc
from graphcore.base.dtypes import ALL, as_dtype, float32, float64
from graphcore.base.errors import FormatError
from graphcore.base.shapes import Dim, dim_min
from graphcore.io.kernel_json import kernel_from_json, kernel_to_json
from graphcore.ir.graph import Graph, collect
from graphcore.kernel import expr
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import Axis, Dynamic, Index, as_index
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.kernel.whole_forms import Factor, Factorisation, Scan, Sort, Transform, TransformKind, WholeForm
from passes.pipeline import compile_graph

ROW, COLUMN, PAIR, HALF = Axis("i0", 4), Axis("i1", 4), Axis("i2", 2), Axis("i3", 3)


def _storing(value: Expr, *params: Param) -> Kernel:
    """A kernel that stores one value for every point of its axes."""
    axes = tuple(sorted(value.axes, key=str))
    shape = tuple(a.extent for a in axes)
    index = Index(0)
    for axis in axes:
        index = index * (axis.extent if isinstance(axis.extent, int) else 1) + as_index(axis)
    return Kernel(
        "one", (*params, Param(f"p{len(params)}", value.dtype, shape)), axes, (Store(len(params), index, value),)
    )


def _whole(form: type[WholeForm], results: tuple[Expr, ...], axes: tuple[Axis, ...], *rest: object) -> Kernel:
    """A kernel of a form of one operand over ``axes``, which stores its results."""
    shape = tuple(a.extent for a in axes)
    at = Index(0)
    for axis in axes:
        at = at * int(axis.extent) + as_index(axis)  # type: ignore[call-overload]
    operand = Computed(expr.load(0, at, float32), axes, shape)
    stores, params = [], [Param("p0", float32, shape)]
    for number, result in enumerate(results, 1):
        own = result.over
        index = Index(0)
        for axis in own:
            index = index * axis.extent + as_index(axis)
        params.append(Param(f"p{number}", result.dtype, tuple(a.extent for a in own)))
        stores.append(Store(number, index, result))
    every = tuple(dict.fromkeys((*axes, *(a for r in results for a in r.over))))
    return Kernel("whole", tuple(params), every, tuple(stores), form=form((operand,), results, *rest))  # type: ignore[arg-type]


def _leaf(*axes: Axis, dtype: str = "float32") -> Expr:
    return expr.leaf(f"made_{dtype}", as_dtype(dtype), axes)


def _by_hand() -> list[Kernel]:
    n, m = Dim("n"), Dim("m")
    lead = Axis("i0", n * m // 3 + dim_min(n, 7) * 2 + n % m)
    position = expr.load(0, as_index(ROW), as_dtype("int32"))
    gathered = expr.load(1, as_index(Dynamic(position, 9)) * 2 + as_index(ROW) // 3 + as_index(ROW) % 3, float32)
    guard = expr.in_range(as_index(ROW) - 1, 0, 3)
    picked = expr.select(guard, expr.load(0, as_index(ROW) - 1, float32, guard), expr.const(-0.0, float32))
    sized = expr.call("mul", expr.size_value(n + 1, float32), expr.index_value(as_index(lead), float32))
    within = expr.select(expr.in_range(as_index(lead), 2, n), expr.const(1, float32), expr.const(math.inf, float32))
    best = expr.reduce("argmax", (COLUMN,), expr.load(0, as_index(ROW) * 4 + as_index(COLUMN), float32))
    kernels = [
        _storing(gathered, Param("p0", as_dtype("int32"), (4,)), Param("p1", float32, (40,))),
        _storing(picked, Param("p0", float32, (4,))),
        _storing(expr.call("add", sized, within)),
        _storing(best, Param("p0", float32, (4, 4))),
        replace(_storing(expr.const(3, float32)), scratch=((0, "rw"),), wide=True, origins=("a", "ü ☃ \ud800")),
        _whole(Scan, (_leaf(ROW, COLUMN),), (ROW, COLUMN), COLUMN, "add", True, True),
        _whole(Sort, (_leaf(ROW, COLUMN), _leaf(ROW, COLUMN, dtype="int64")), (ROW, COLUMN), COLUMN, True),
        _whole(Transform, (_leaf(ROW, HALF, PAIR),), (ROW, COLUMN), (COLUMN,), PAIR, TransformKind.FROM_REAL, HALF),
        _whole(Factor, (_leaf(ROW, COLUMN), _leaf(ROW, dtype="int64")), (ROW, COLUMN), Factorisation.LU),
        product_kernel("bfloat16", "float32", "bfloat16"),
        product_kernel("int8", "int32", "int32", turned=True),
        window_kernel(Window(WindowResult.POSITION, (3, 2), (2, 1), (1, 1, 0, 1), (1, 2), 2), (6, 7), *["float32"] * 3),
    ]
    kernels += [
        _storing(expr.call("add", expr.const(1, d), expr.load(0, Index(0), d)), Param("p0", d, ()))
        for d in ALL
        if not d.is_bool
    ]
    return kernels


def _compiled() -> list[Kernel]:
    """Kernels of training steps and of random programs, as several devices run them."""
    (loss, *updates), feeds = training_step()
    (x,) = feeds
    graphs = [
        (Graph((loss,), tuple((u.variable, u.value) for u in updates), (x,)), dict.fromkeys(x.shape[0].symbols(), 40))
    ]  # type: ignore[union-attr]
    for seed in range(25):
        program = seeded(seed)
        graphs.append((Graph(tuple(v.tensor for v in program.fetched), (), tuple(program.feeds)), {}))
    w = gc.Variable(np.ones((6, 4, 3, 3), np.float32))
    image = gc.placeholder("float32", (None, 4, 9, 9), name="image")
    table, words = gc.Variable(np.ones((11, 5), np.float32)), gc.placeholder("int32", (None, 3), name="words")
    y = gc.nn.functional.max_pool2d(gc.relu(gc.nn.functional.conv2d(image, w, padding=1)), 2).mean()
    z = gc.nn.functional.embedding(words, table).mean()
    for fed, result, variable in ((image, y, w), (words, z, table)):
        graph = collect([result, *gc.gradients(result, [variable])])
        sizes = dict.fromkeys(fed.shape[0].symbols(), 5)  # type: ignore[union-attr]
        graphs.append((Graph(graph.outputs, (), (fed,)), sizes))
    plans = [
        compile_graph(g, backend(d).target, sizes).plan for g, sizes in graphs for d in ("numpy:kernels", "opencl")
    ]
    return [step.kernel for plan in plans for step in plan.steps]


def test_kernels_come_back_equal() -> None:
    kernels = [*_by_hand(), *_compiled()]
    assert len(kernels) > 100 and len({k.form.__class__ for k in kernels}) == 6
    for kernel in kernels:
        text = kernel_to_json(kernel)
        found = kernel_from_json(text)
        assert found == kernel, f"{found}\ninstead of\n{kernel}"
        assert str(found) == str(kernel)
        assert kernel_to_json(found) == text


def test_kernels_that_come_back_compute_the_same_bits() -> None:
    kernel = product_kernel("float32", "float32", "float32")
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(int(p.size)).astype(np.float32) for p in kernel.params[:2]]  # type: ignore[call-overload]
    made = []
    for each in (kernel, kernel_from_json(kernel_to_json(kernel))):
        result = np.zeros(int(kernel.params[2].size), np.float32)  # type: ignore[call-overload]
        run_kernel(each, [*operands, result])
        made.append(result)
    assert made[0].any() and made[0].tobytes() == made[1].tobytes()


@pytest.mark.parametrize(
    "value",
    [
        0.0,
        -0.0,
        0.1,
        1e308,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        -math.nan,
        struct.unpack("<d", b"\1\2\0\0\0\0\xf8\x7f")[0],
    ],
)
def test_constants_keep_their_bits(value: float) -> None:
    kernel = _storing(expr.const(value, float64))
    found = kernel_from_json(kernel_to_json(kernel)).stores[0].value.value
    assert struct.pack("<d", found) == struct.pack("<d", value)


@pytest.mark.parametrize("number", range(len(_by_hand())))
def test_every_damage_is_refused_by_name(number: int) -> None:
    kernel = _by_hand()[number]
    assert check_damages(kernel_to_json(kernel), kernel_from_json, kernel_to_json, 0.12, number) > 20


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t[:-1], "it is no JSON"),
        (lambda t: "[" * 100_000, "it is no JSON"),
        (lambda t: t.replace('"version":1', '"version":2'), "the version is 2, and this graphcore reads 1"),
        (lambda t: t.replace("graphcore.kernel", "graphcore.plan"), "the format is 'graphcore.plan'"),
        (lambda t: t.replace('"fn":"add"', '"fn":"launch"'), "value_table[5]: 'launch' is no scalar function"),
        (lambda t: t.replace('"mode":"set"', '"mode":"get"'), "kernel.stores[0].mode"),
        (lambda t: t.replace('"args":[0,', '"args":[77,'), "value_table[2].args[0]: 77 is not in"),
        (lambda t: t.replace('"name":"product"', '"name":"a b"'), "its name is no identifier"),
    ],
)  # fmt: skip
def test_messages(spoil: object, words: str) -> None:
    text = kernel_to_json(product_kernel("float32", "float32", "float32"))
    with pytest.raises(FormatError) as error:
        kernel_from_json(spoil(text))  # type: ignore[operator]
    assert words in str(error.value)
