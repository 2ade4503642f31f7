"""Arena sizes against bounds worked out by hand, freedom of overlap, updates in place. Plans only: nothing is built or
run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.devices import backend
from support.plan_models import RUNTIMES, cnn, mlp, train, transformer

import graphcore as gc
from graphcore import optim
from graphcore.api.tensor import Tensor
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Dim, bind
from graphcore.ir.graph import Graph, collect
from graphcore.plan.plan import ARENA, Placed, Plan, print_plan
from graphcore.runtime.fetches import flatten_fetches
from passes.pipeline import Compilation, compile_graph
from passes.planning.flow import lifetimes
from passes.planning.offsets import Block, check_no_overlap
from passes.planning.placement import place

F = 4
ALIGNMENT = 128


def planned(fetches: Any, feeds: Mapping[Tensor, Any]) -> tuple[Compilation, Placed]:
    """A run's plan and its placement, on the first CPU runtime."""
    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates, tuple(t.value for t in feeds))
    graph = Graph(graph.outputs, graph.updates, tuple(feeds))
    sizes: dict[str, int] = {}
    for t, array in feeds.items():
        for extent, size in zip(t.shape, array.shape, strict=True):
            if isinstance(extent, Dim):
                sizes.update(dict.fromkeys(extent.symbols(), size))
    compilation = compile_graph(graph, backend(RUNTIMES[0]).target, sizes)
    return compilation, place(compilation.plan, sizes)


def largest(plan: Plan, placed: Placed) -> str:
    """What is live where most is."""

    def size(n: int) -> int:
        return int(bind(plan.buffers[n].nbytes, placed.sizes))  # type: ignore[arg-type]

    lives = placed.lifetimes
    levels = {s for life in lives.values() for s in life}
    peak = max(levels, key=lambda s: sum(size(n) for n, (a, b) in lives.items() if a <= s <= b))
    live = sorted((n for n, (a, b) in lives.items() if a <= peak <= b), key=size, reverse=True)
    return f"level {peak}:\n" + "\n".join(
        f"{size(n):>12,} {lives[n]} {plan.buffers[n].role} {plan.buffers[n].label} {plan.buffers[n].shape}"
        for n in live
    )


def check(fetches: Any, feeds: Mapping[Tensor, Any], bound: int) -> None:
    """The arena is near its lower bound, and that is near what must be kept; an independent check finds no overlap."""
    compilation, placed = planned(fetches, feeds)
    plan = compilation.plan
    told = (
        f"{placed.arena_bytes:,} bytes, lower bound {placed.lower_bound_bytes:,}, by hand {bound:,}"
        f"\n{largest(plan, placed)}\n{print_plan(plan, placed)}\n{compilation.explain()}"
    )
    assert placed.arena_bytes <= 1.02 * placed.lower_bound_bytes, told
    assert placed.arena_bytes <= 1.1 * bound, told
    blocks = [
        Block(n, max(int(bind(plan.buffers[n].nbytes, placed.sizes)), 1), a, b) for n, (a, b) in lifetimes(plan).items()
    ]  # type: ignore[arg-type]
    assert {b.key for b in blocks} == {
        n for s in plan.steps for n in (*s.buffers, *s.workspace) if plan.buffers[n].space == ARENA
    } | {*plan.feeds}
    check_no_overlap(blocks, placed.offsets)
    together = next((a, b) for a in blocks for b in blocks if a.key != b.key and a.start <= b.end and b.start <= a.end)
    with pytest.raises(VerifyError):  # the check does see an overlap
        check_no_overlap(blocks, {**placed.offsets, together[0].key: placed.offsets[together[1].key]})


def test_mlp() -> None:
    batch = 128
    # Most is live when the first layer's gradient is made: its operands x and d h1, and the gradients of all three
    # weights, which wait for the optimizer's step. (At the turn it is less: x, h1, h2 and their signs.)
    check(
        *train(mlp([784, 512, 512, 10]), (784,), batch),
        F * (batch * 784 + batch * 512 + 784 * 512 + 512 * 512 + 512 * 10),
    )


def test_cnn() -> None:
    batch, size = 64, 28
    x = batch * size * size
    h1 = 32 * x
    p1 = h1 // 4
    # A framework that saves tensors for backward has the most when the gradient of the first pool and relu is made: it
    # holds the input, relu's result and the pool's indices (int32), and makes d h1 (of relu's size) from d p1.
    check(*train(cnn(32, 64, size), (1, size, size), batch), F * (x + h1 + p1 + p1 + h1))


def test_transformer() -> None:
    layers, width, heads, positions, batch = 12, 64, 4, 32, 4
    tokens = batch * positions * width
    scores = batch * heads * positions * positions
    # Saved for backward by a layer: for both norms the centred input and the result (a product's operand), q, k, v,
    # what attention mixed, the 4 times wider input of GELU and its result, softmax's result.
    layer = 2 * 2 * tokens + 3 * tokens + tokens + 2 * 4 * tokens + scores
    check(*transformer(layers, width, heads, positions, batch), F * layers * layer)


def test_updates_are_in_place() -> None:
    fetches, feeds = train(mlp([64, 64, 10]), (64,), 32)
    compilation, _ = planned(fetches, feeds)
    plan = compilation.plan
    updated = {id(u.slot) for u in fetches[1]}
    slots = compilation.slots
    written = {id(slots[plan.slot(b)]) for b, _ in plan.in_place}
    names = {id(v): v.name for v in slots}
    assert written == updated, (sorted(names[i] for i in updated - written), compilation.explain())
    for buffer, step in plan.in_place:
        assert buffer in plan.steps[step].writes
    assert not [s for s in plan.steps if s.kernel.name == "copy"], compilation.explain()


def test_a_swap_is_copied() -> None:
    """Neither variable may be overwritten before the other's new value is safe."""
    a, b = gc.Variable(np.zeros(8, np.float32)), gc.Variable(np.ones(8, np.float32))
    compilation, _ = planned([a.assign(b), b.assign(a)], {})
    assert [s for s in compilation.plan.steps if s.kernel.name == "copy"], compilation.explain()


def test_gathering_updates_gives_way_to_memory() -> None:
    """With one large gradient, made first, its update does not wait for the others."""
    x = gc.placeholder("float32", (1024, 16))
    wide, narrow, square, large = (
        gc.Variable(np.full(shape, 0.01, np.float32)) for shape in ((16, 1024), (1024, 16), (16, 16), (1024, 1024))
    )
    hidden = gc.tanh(x @ wide)  # as large as the last weight; its gradient comes two products after the last weight's
    loss = gc.square(gc.reshape(gc.tanh(hidden @ narrow) @ square, (16, 1024)) @ large).mean()
    fetches = [loss, optim.Adam(1e-3).minimize(loss)]
    compilation, placed = planned(fetches, {x: np.zeros((1024, 16), np.float32)})
    at = {compilation.plan.buffers[b].shape: compilation.plan.steps[i].level for b, i in compilation.plan.in_place}
    assert at[1024, 1024] < at[16, 1024], f"{compilation.explain()}\n{largest(compilation.plan, placed)}"


def test_only_steps_in_elementwise_order_write_over_what_they_read() -> None:
    """A schedule that does not store each element right after loading it may read an old value again: copied."""
    w = gc.Variable(np.ones((64, 64), np.float32), name="w")
    target = backend(RUNTIMES[0]).target
    assert target.schedule is not None
    inner = target.schedule

    def out_of_order(*arguments: Any) -> Any:
        return [replace(piece, elementwise_order=False) for piece in inner(*arguments)]

    _, updates, _ = flatten_fetches(w.assign(w * 2.0))
    graph = collect([], updates, ())
    usual, other = (compile_graph(graph, t, {}) for t in (target, replace(target, schedule=out_of_order)))
    assert len(usual.plan.in_place) == 1 and not other.plan.in_place
    assert len(other.plan.steps) == len(usual.plan.steps) + 1 and "out of order" in other.explain()
