"""Graphs as JSON: equal texts, plans and bits after reading, and what cannot be written or read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from support.damage import check_damages
from support.devices import backend
from support.random_programs import seeded
from support.stages import training_step

import graphcore as gc
from benchmarks.golden import examples, steps
from graphcore.base.errors import FormatError, UsageError
from graphcore.io.graph_json import SavedSlot, graph_from_json, graph_to_json
from graphcore.io.plan_json import plan_to_json
from graphcore.ir import op as ops
from graphcore.ir.fingerprint import fingerprint
from graphcore.ir.graph import Graph, collect, slots_of
from graphcore.ir.node import Builder
from graphcore.ir.op import FLOAT, Map, TensorType
from graphcore.ir.state import StateSlot
from graphcore.runtime.feeds import sizes_of
from passes.pipeline import Compilation, compile_graph


def _made(saved: SavedSlot) -> StateSlot:
    slot = StateSlot(TensorType(saved.shape, saved.dtype), np.zeros(saved.shape, saved.dtype.storage), saved.origin)
    slot.name = saved.key
    return slot


def _again(graph: Graph) -> Graph:
    """The graph read from its text, after a check that the texts are the same."""
    store: dict[str, Any] = {}
    text = graph_to_json(graph, store)
    found = graph_from_json(text, _made, store)
    assert graph_to_json(found, {}) == text
    return found


def _plan_text(made: Compilation) -> str:
    return plan_to_json(made.plan, {})


def _results(made: Compilation, arrays: Sequence[Any]) -> list[bytes]:
    """What a compilation for the kernel oracle fetches and leaves in its variables, from values that are always the
    same."""
    device, rng = backend("numpy:kernels"), np.random.default_rng(0)
    for variable in made.slots:
        device.write(variable, np.abs(rng.standard_normal(variable.shape)).astype(variable.dtype.storage))
    fetched = device.bind(device.compile(made.plan), made.placed, made.slots).run(arrays)
    return [a.tobytes() for a in (*fetched, *map(device.read, made.slots))]


def _check(graph: Graph, sizes: Mapping[str, int], arrays: Sequence[Any] | None) -> None:
    """Text, plan and bits are the same after reading."""
    target = backend("numpy:kernels").target
    found = _again(graph)
    lines = fingerprint(graph).lines, fingerprint(found).lines
    renamed = dict(zip(fingerprint(graph).symbols, fingerprint(found).symbols, strict=True))
    first = compile_graph(graph, target, sizes)
    second = compile_graph(found, target, {renamed.get(k, k): v for k, v in sizes.items()})
    back = {new: old for old, new in renamed.items()}
    text = re.sub(r"\?\d+", lambda found: back.get(found.group(), found.group()), _plan_text(second))
    assert text == _plan_text(first)
    assert bool(slots_of(graph)) or lines[0] == lines[1]  # the variables are others
    if arrays is not None:
        assert _results(first, arrays) == _results(second, arrays)


def _graph(fetches: Sequence[Any], feeds: Mapping[Any, Any]) -> tuple[Graph, dict[str, int], list[Any]]:
    tensors = [f for f in fetches if isinstance(f, gc.Tensor)]
    graph = collect(tensors, [f for f in fetches if not isinstance(f, gc.Tensor)], tuple(feeds))
    sizes = sizes_of(tuple(feeds), [np.shape(a) for a in feeds.values()], frozenset(), ())
    return Graph(graph.outputs, graph.updates, tuple(feeds)), sizes, list(feeds.values())


def _network() -> tuple[list[Any], dict[gc.Tensor, Any]]:
    """Batch statistics, dropout's draws, a checkpoint and its recomputation, names, scopes, two unnamed extents."""
    rng = np.random.default_rng(0)
    x = gc.placeholder("float32", (None, 3, 6, 6), name="x")
    other = gc.placeholder("float32", (None, 4), name="other")
    with gc.name_scope("body"):
        norm, conv = gc.nn.BatchNorm2d(4), gc.nn.Conv2d(3, 4, 3)
        h = gc.checkpoint(lambda t: gc.tanh(conv(t)))(x)
        h = gc.nn.functional.dropout(norm(h), 0.5).mean(axis=(2, 3))
    y = gc.concat([h, other[1:]], axis=0) * gc.constant(rng.normal(size=4).astype(np.float32), name="scale")
    loss = (y * y).sum() / gc.dim_value(y.shape[0] + 1, "float32")
    parameters = [*norm.parameters(), *conv.parameters()]
    updates = [v.assign(v - 0.1 * g) for v, g in zip(parameters, gc.gradients(loss, parameters), strict=True)]
    arrays = {x: rng.normal(size=(5, 3, 6, 6)), other: rng.normal(size=(7, 4))}
    return [loss, *updates], {t: a.astype(np.float32) for t, a in arrays.items()}


@pytest.mark.parametrize("build", [training_step, _network])
def test_graphs_come_back_with_equal_plans_and_bits(build: Callable[[], Any]) -> None:
    _check(*_graph(*build()))


def _check_random(seeds: range) -> None:
    for seed in seeds:
        program = seeded(seed)
        _check(*_graph([v.tensor for v in program.fetched], program.feeds))


def test_random_graphs_come_back() -> None:
    _check_random(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_random_graphs_come_back(hundred: int) -> None:
    _check_random(range(100 * hundred, 100 * hundred + 100))


@pytest.mark.slow
def test_all_golden_graphs_come_back_with_equal_plans() -> None:
    """But for those that hold a function of the user's, which are refused by its line."""
    refused = []
    for program in (*steps(), *examples()):
        try:
            _check(program.graph, program.sizes, None)
        except UsageError as error:
            assert re.search(r"custom_gradient at .*:\d+ cannot be written: its attribute 'rule'", str(error))
            refused.append(program.name)
    assert refused == ["gpt", "vit", "custom_gradient/0"]


def test_origins_names_and_marks_are_kept() -> None:
    graph, _, _ = _graph(*_network())
    found = _again(graph)
    pairs = list(zip(graph.nodes(), found.nodes(), strict=True))
    assert len(pairs) > 50
    clones: dict[int, int] = {}
    for old, new in pairs:
        assert new.op.name == old.op.name
        if new.op.name != "variable":
            assert (new.origin, new.op.given_name) == (old.origin, old.op.given_name)
        assert (new.detached, new.device, bool(new.clone)) == (old.detached, old.device, bool(old.clone))
        assert clones.setdefault(old.clone, new.clone) == new.clone
    assert [v.name for v, _ in found.updates] == [v.name for v, _ in graph.updates]
    assert len(clones) > 1 and len(graph.updates) > 4 and any(new.origin.scope for _, new in pairs)
    assert any(new.origin.derived for _, new in pairs)


def test_what_only_a_program_holds_is_refused_by_line() -> None:
    x = gc.placeholder("float32", (3,), name="x")

    @gc.custom_gradient
    def doubled(t: gc.Tensor) -> Any:
        return t * 2, lambda g: g * 2

    with pytest.raises(UsageError, match=r"custom_gradient at .*test_graph_json\.py:\d+ cannot be written.*'rule'"):
        graph_to_json(collect([doubled(x)]), {})
    with pytest.raises(UsageError, match="random draw without a number"):
        graph_to_json(Graph((gc.random.normal((3,)),)), {})
    with pytest.raises(UsageError, match="needs a store"):
        graph_to_json(collect([x + gc.constant([1.0, 2.0, 3.0])]))


@ops.primitive
class Halved(Map):
    """x / 2, elementwise: an op of another package, in its second version."""

    name = "halved_for_tests"
    version: ClassVar[int] = 2
    operands = FLOAT
    times: int

    @classmethod
    def migrate(cls, version: int, attributes: dict[str, Any]) -> dict[str, Any]:
        return {"times": 1, **attributes}


def test_ops_of_other_packages_and_older_versions() -> None:
    x = gc.placeholder("float32", (3,), name="x")
    graph = Graph((Builder().apply(Halved(1), x.value).output(),), (), (x,))
    text = graph_to_json(graph)
    assert graph_from_json(text, _made).outputs[0].node.op == Halved(1)
    older = text.replace('"attributes":{"times":1}', '"attributes":{}').replace('"version":2}', '"version":1}')
    assert older != text and graph_from_json(older, _made).outputs[0].node.op == Halved(1)
    with pytest.raises(FormatError, match="version 3 of halved_for_tests, of which this graphcore has 2"):
        graph_from_json(text.replace('"version":2}', '"version":3}'), _made)
    with pytest.raises(
        FormatError, match=r"nodes\[1\]\.op: no op named 'mine'.*entry point of the group graphcore.ops"
    ):
        graph_from_json(text.replace("halved_for_tests", "mine"), _made)
    y = gc.exp(x)
    with pytest.raises(FormatError, match=r"nodes\[1\]\.version: 0 is not in"):
        graph_from_json(graph_to_json(Graph((y,), (), (x,))).replace('"version":1}]', '"version":0}]'), _made)


def test_variables_have_to_fit() -> None:
    v = gc.Variable(np.zeros(3, np.float32), name="v")
    text = graph_to_json(collect([v.read() + 1]), {})
    with pytest.raises(
        FormatError, match=r"slots\[0\]: the variable 'v' is float32\(3,\), the one that was given for it float32\(4,\)"
    ):
        graph_from_json(text, lambda slot: _made(replace(slot, shape=(4,))), {})


def test_damages_are_refused_by_name() -> None:
    graph, _, _ = _graph(*training_step())
    store: dict[str, Any] = {}
    text = graph_to_json(graph, store)
    read: Callable[[str], Graph] = lambda t: graph_from_json(t, _made, store)
    assert check_damages(text, read, lambda g: graph_to_json(g, {}), 0.005, 0) > 50
