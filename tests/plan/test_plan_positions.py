"""Plans refer to nothing higher: feeds and variables are positions, and who binds a plan says what stands there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.devices import backend
from support.stages import training_step

import graphcore as gc
from graphcore.ir.graph import Graph, slots_of
from graphcore.kernel.expr import Expr
from passes.pipeline import Compilation, compile_graph

# Where the classes of what a plan holds are defined.
BELOW = ("graphcore.base", "graphcore.kernel", "graphcore.plan", "backends", "builtins", "numpy", "enum")


def _compiled(spec: str) -> tuple[Compilation, Any]:
    (loss, *updates), feeds = training_step()
    (x,) = feeds
    graph = Graph((loss,), tuple((u.variable, u.value) for u in updates), (x,))
    sizes = dict.fromkeys(x.shape[0].symbols(), 40)  # type: ignore[union-attr]
    return compile_graph(graph, backend(spec).target, sizes, verify=True), x


def _within(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, Expr):
        parts = [*value.args, *value.axes]
    else:
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        parts = [getattr(value, f.name) for f in fields]
    for part in parts:
        yield from _within(part)


@pytest.mark.parametrize("spec", ["numpy:kernels", "opencl"])
def test_a_plan_holds_nothing_of_graphs(spec: str) -> None:
    found = {type(value).__module__ for value in _within(_compiled(spec)[0].plan)}
    assert "graphcore.plan.plan" in found
    assert not {module for module in found if not module.startswith(BELOW)}


@pytest.mark.parametrize("spec", ["numpy:kernels", "opencl"])
def test_one_program_over_other_variables(spec: str) -> None:
    """A plan that was compiled for some variables runs over others of the same types at its positions."""
    made, x = _compiled(spec)
    device = backend(spec)
    program = device.compile(made.plan)
    others = [gc.Variable(np.zeros(v.shape, v.dtype.storage), name=f"v{i}").slot for i, v in enumerate(made.slots)]
    assert len(others) > 1
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(v.shape).astype(v.dtype.storage) for v in others]
    fed = rng.standard_normal((40, *x.shape[1:])).astype(np.float32)
    results = []
    for slots in (made.slots, others):
        for variable, value in zip(slots, values, strict=True):
            device.write(variable, value)
        fetched = device.bind(program, made.placed, slots).run([fed])
        results.append([*fetched, *(device.read(v) for v in slots)])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    assert any((a != b).any() for a, b in zip(results[0][1:], values, strict=True))  # the updates did happen


def test_variables_count_by_first_appearance() -> None:
    a, b, c, d = (gc.Variable(np.full((2,), i, np.float32), name=n) for i, n in enumerate("abcd"))
    y = gc.checkpoint(lambda t: t * b.read() + b.read())(a.read() + 1)
    graph = Graph((y,), ((c, y), (d, c.read()), (a, y)))
    assert [v.name for v in slots_of(graph)] == ["a", "b", "c", "d"]
