"""Groups that compute the same share one kernel, and what is asked of a kernel is asked once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.stages import oracle_target

import graphcore as gc
from backends.codegen import registry
from backends.opencl.program import generate
from graphcore.ir.graph import Graph
from graphcore.kernel.ir import Kernel
from graphcore.plan.backend import Piece, open_backend
from graphcore.plan.target import Reject, Target
from passes.fusion.lower import Kernels
from passes.pipeline import compile_graph

LAYERS = 5


def deep() -> Graph:
    """Five layers alike, and a sum of another kind."""
    x = gc.placeholder("float32", (4, 8))
    y = x
    for _ in range(LAYERS):
        y = gc.tanh(y @ gc.Variable(np.ones((8, 8), np.float32)))
    return Graph((y, gc.sum(x)), (), (x,))


def test_equal_groups_share_one_kernel_and_others_do_not() -> None:
    kernels = [made.kernel for made in compile_graph(deep(), oracle_target(), {}, upto="lower").latest(Kernels).listed]
    shared = Counter(map(id, kernels))
    assert sorted(shared.values()) == [1, LAYERS]
    assert len(set(kernels)) == 2


def test_a_kernel_is_its_own_whatever_it_was_asked() -> None:
    kernel = compile_graph(deep(), oracle_target(), {}, upto="lower").latest(Kernels).listed[0].kernel
    equal, named, elsewhere = replace(kernel), replace(kernel, name="other"), replace(kernel, origins=("y",))
    kernel.values()
    assert kernel == equal and hash(kernel) == hash(equal)
    assert kernel not in (named, elsewhere)


def test_equal_kernels_are_scheduled_once_and_each_has_its_step() -> None:
    target, asked = oracle_target(), Counter[Kernel]()
    inner = target.schedule
    assert inner is not None

    def schedule(kernel: Kernel, of: Target, sizes: Mapping[str, int]) -> Sequence[Piece] | Reject:
        asked[kernel] += 1
        return inner(kernel, of, sizes)

    plan = compile_graph(deep(), replace(target, schedule=schedule), {}, verify=True).plan
    assert len(plan.steps) == LAYERS + 1
    assert len({step.buffers for step in plan.steps}) == LAYERS + 1
    assert list(asked.values()) == [1, 1]


def test_the_text_of_equal_kernels_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_backend("opencl")
    emitted = Counter[str]()
    for family in registry.BY_NAME.values():

        def emit(kernel, choices, model, family=family, inner=family.emit):  # type: ignore[no-untyped-def]
            emitted[family.name] += 1
            return inner(kernel, choices, model)

        monkeypatch.setattr(family, "emit", emit)
    plan = compile_graph(deep(), backend.target, {}).plan  # its schedules are compared by their texts
    source = generate(plan, backend.model)
    assert sum(emitted.values()) == len(source.functions) < len(plan.steps)
    assert set(source.of_step) == set(range(len(source.functions)))
    backend.close()
