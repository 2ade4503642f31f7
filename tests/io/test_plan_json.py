"""Plans as JSON: equal texts for equal plans, equal plans and bits from texts, and what damaged texts say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.damage import check_damages
from support.devices import backend
from support.random_programs import seeded
from support.stages import training_step

import graphcore as gc
from backends.codegen.nest.family import Nest
from backends.codegen.registry import BY_NAME, registered
from backends.opencl.target import make_target
from benchmarks.golden import DEVICES, examples, steps
from graphcore.base.errors import FormatError, UsageError
from graphcore.io.checkpoint import load_arrays, save_arrays
from graphcore.io.plan_json import plan_from_json, plan_to_json
from graphcore.ir.graph import Graph, collect
from graphcore.plan.plan import Plan
from graphcore.runtime.feeds import sizes_of
from passes.pipeline import Compilation, compile_graph

SPECS = ("numpy:kernels", "opencl")


def _compiled(fetches: Any, feeds: Mapping[gc.Tensor, Any], target: Any) -> Compilation:
    tensors = [f for f in fetches if isinstance(f, gc.Tensor)]
    graph = collect(tensors, [f for f in fetches if not isinstance(f, gc.Tensor)], tuple(feeds))
    sizes = sizes_of(tuple(feeds), [np.shape(a) for a in feeds.values()], frozenset(), ())
    return compile_graph(Graph(graph.outputs, graph.updates, tuple(feeds)), target, sizes, verify=True)


def _same(plan: Plan) -> Plan:
    """The plan read from its text, after checks that it and its text are the same."""
    store: dict[str, Any] = {}
    text = plan_to_json(plan, store)
    found = plan_from_json(text, store)
    assert found == plan and str(found) == str(plan)
    assert plan_to_json(found, {}) == text
    return found


def _programs() -> list[tuple[Any, dict[gc.Tensor, Any]]]:
    """Programs of every family of CPUs: products, convolutions, bucket sums, loop nests; constants, several types."""
    rng = np.random.default_rng(0)
    image, words = (
        gc.placeholder("float32", (None, 4, 9, 9), name="image"),
        gc.placeholder("int32", (None, 3), name="words"),
    )
    w, table = (
        gc.Variable(rng.normal(size=(8, 4, 3, 3)).astype(np.float32)),
        gc.Variable(np.ones((400, 64), np.float32)),
    )
    y = gc.nn.functional.max_pool2d(gc.relu(gc.nn.functional.conv2d(image, w, padding=1)), 2).mean()
    z = (gc.nn.functional.embedding(words, table) * gc.constant(rng.normal(size=64).astype(np.float32))).mean()
    convolved = [y, *(v.assign(v - g) for v, g in zip([w], gc.gradients(y, [w]), strict=True))]
    embedded = [z, gc.constant(np.arange(3, dtype=np.int64)), table.assign(table - gc.gradients(z, [table])[0])]
    found = [
        training_step(),
        (convolved, {image: rng.normal(size=(3, 4, 9, 9)).astype(np.float32)}),
        (embedded, {words: rng.integers(0, 400, (50, 3)).astype(np.int32)}),
    ]
    for seed in range(6):
        program = seeded(seed)
        found.append(([v.tensor for v in program.fetched], program.feeds))
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_plans_come_back_equal_and_compute_the_same_bits(spec: str) -> None:
    device = backend(spec)
    families = set()
    for fetches, feeds in _programs():
        made = _compiled(fetches, feeds, device.target)
        plans = made.plan, _same(made.plan)
        families |= {step.family for step in made.plan.steps}
        rng = np.random.default_rng(1)
        values = [rng.standard_normal(v.shape).astype(v.dtype.storage) for v in made.slots]
        results = []
        for plan in plans:
            for variable, value in zip(made.slots, values, strict=True):
                device.write(variable, value)
            fetched = device.bind(device.compile(plan), made.placed, made.slots).run(list(feeds.values()))
            results.append([a.tobytes() for a in (*fetched, *map(device.read, made.slots))])
        assert results[0] == results[1]
    assert len(families) >= (1 if spec == "numpy:kernels" else 4), families


@pytest.mark.parametrize("name", DEVICES)
def test_plans_of_other_devices_come_back_equal(name: str) -> None:
    for fetches, feeds in _programs()[:3]:
        _same(_compiled(fetches, feeds, make_target(DEVICES[name])).plan)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["intel", "pocl", "oracle"])
def test_all_golden_plans_come_back_equal(name: str) -> None:
    target = backend("numpy:kernels").target if name == "oracle" else make_target(DEVICES[name])
    count = 0
    for program in (*steps(), *examples()):
        _same(compile_graph(program.graph, target, program.sizes).plan)
        count += 1
    assert count > 20


def test_constants_go_through_a_file(tmp_path: Path) -> None:
    plan = next(p for p in (_compiled(*p, backend("opencl").target).plan for p in _programs()) if p.constants)
    store: dict[str, Any] = {}
    text = plan_to_json(plan, store)
    save_arrays(tmp_path / "arrays.safetensors", store)
    arrays, _ = load_arrays(tmp_path / "arrays.safetensors")
    assert plan_from_json(text, dict(arrays)) == plan
    with pytest.raises(UsageError, match="needs a store"):
        plan_to_json(plan)
    with pytest.raises(FormatError, match=r"constants\[0\]\.digest: no array of the digest"):
        plan_from_json(text)
    digest = next(iter(store))
    for other, words in ((store[digest] * 0 + 9, "bytes are others"), (np.zeros(77, np.uint8), "dtype|shape")):
        with pytest.raises(FormatError, match=words):
            plan_from_json(text, {**store, digest: other})


@pytest.mark.parametrize(("number", "share"), [(0, 0.008), (1, 0.002), (2, 0.002)])
def test_damages_are_refused_by_name(number: int, share: float) -> None:
    _check_damages(number, share)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_many_more_damages_are_refused_by_name(number: int) -> None:
    _check_damages(number, 0.05)


def _check_damages(number: int, share: float) -> None:
    plan = _compiled(*_programs()[number], backend("opencl").target).plan
    store: dict[str, Any] = {}
    text = plan_to_json(plan, store)
    read, write = lambda t: plan_from_json(t, store), lambda p: plan_to_json(p, {})
    assert check_damages(text, read, write, share, number) > 20


class _Undeclared(Nest):
    name = "undeclared"
    choices = None


def test_families_of_other_packages() -> None:
    """Plans name them; where they are not registered, or do not say what their choices are, an error says so."""
    fetches, feeds = training_step()
    with registered(_Undeclared(), before="conv"), gc.Session("opencl") as session:
        plan = session.compile(fetches, feeds).plan
        with pytest.raises(UsageError, match="of the family undeclared has choices of the class NestConfig"):
            plan_to_json(plan)
    text = plan_to_json(_compiled(fetches, feeds, backend("opencl").target).plan)
    with pytest.raises(FormatError, match=r"steps\[\d\]: no family of schedules is named 'mine'.*graphcore\.families"):
        plan_from_json(text.replace('"family":"nest"', '"family":"mine"'))


def test_own_families_declare_their_choices() -> None:
    assert not [name for name, family in BY_NAME.items() if family.choices is None]
