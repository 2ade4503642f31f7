"""The verifiers of partitions and plans: every rule, broken by hand in a right one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.stages import oracle_target, training_step

import graphcore as gc
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph
from graphcore.plan.plan import Plan
from graphcore.plan.verify import verify_plan
from passes.fusion.partition import Group, Partition, verify_partition
from passes.pipeline import Compilation, compile_graph


def _compiled() -> Compilation:
    (loss, *updates), feeds = training_step()
    (x,) = feeds
    graph = Graph((loss,), tuple((u.variable, u.value) for u in updates), (x,))
    sizes = dict.fromkeys(x.shape[0].symbols(), 40)  # type: ignore[union-attr]
    return compile_graph(graph, oracle_target(), sizes, verify=True)


def _changed(partition: Partition, wanted: Callable[[Group], bool], **changes: Any) -> Partition:
    """The partition with another first group of those that are wanted."""
    first = next(g for g in partition.groups if wanted(g))
    changed = replace(first, **{name: change(first) for name, change in changes.items()})
    return replace(partition, groups=[changed if g is first else g for g in partition.groups])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda p: _changed(p, lambda g: g.number == 0, stored=lambda g: []),
            "which no kernel of a lower level stores",
        ),
        (lambda p: replace(p, groups=p.groups[::-1]), "which no kernel of a lower level stores"),
        (lambda p: _changed(p, lambda g: g.level > 1, level=lambda g: 1), "which no kernel of a lower level stores"),
        (lambda p: replace(p, groups=p.groups[:-1]), "no kernel stores the result"),
        (lambda p: _changed(p, lambda g: True, stored=lambda g: g.stored * 2), "which is not its own alone"),
        (lambda p: _changed(p, lambda g: True, members=lambda g: {}), "which is not its own alone"),
    ],
)
def test_wrong_partitions_are_refused(spoil: Callable[[Partition], Partition], words: str) -> None:
    partition = _compiled().partition
    verify_partition(partition)
    with pytest.raises(VerifyError, match=words):
        verify_partition(spoil(partition))


def _another_fetch(plan: Plan) -> None:
    plan.buffers.append(replace(plan.buffers[plan.fetches[0].buffer], number=len(plan.buffers)))  # type: ignore[index]
    plan.fetches[0] = replace(plan.fetches[0], buffer=len(plan.buffers) - 1)


def _backwards(plan: Plan) -> None:
    plan.steps.reverse()


def _all_at_once(plan: Plan) -> None:
    plan.steps = [replace(step, level=0) for step in plan.steps]


def _twice(plan: Plan) -> None:
    plan.steps.insert(0, replace(plan.steps[0]))


def _no_first_step(plan: Plan) -> None:
    del plan.steps[0]


def _a_buffer_less(plan: Plan) -> None:
    plan.steps[0] = replace(plan.steps[0], buffers=plan.steps[0].buffers[:-1])


def _a_buffer_beyond(plan: Plan) -> None:
    plan.steps[0] = replace(plan.steps[0], workspace=(len(plan.buffers),))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_another_fetch, "is fetched, which nothing has written"),
        (_backwards, "comes after one of level"),
        (_all_at_once, "which its own level writes"),
        (_twice, "is written by two steps of level 0"),
        (_no_first_step, "which nothing has written"),
        (_a_buffer_less, "buffers for"),
        (_a_buffer_beyond, "which does not exist"),
    ],
)
def test_wrong_plans_are_refused(spoil: Callable[[Plan], None], words: str) -> None:
    plan = _compiled().plan
    verify_plan(plan)
    spoil(plan)
    with pytest.raises(VerifyError, match=re.escape(words)):
        verify_plan(plan)


def test_values_without_elements_need_not_be_written() -> None:
    x = gc.placeholder("float32", (0, 3), name="x")
    w = gc.Variable(np.zeros((0, 3), np.float32), name="w")
    y = gc.exp(x) + w
    with gc.Session("numpy:kernels", verify=True) as sess:
        assert sess.run([y, y.sum(), w.assign(y)], {x: np.zeros((0, 3), np.float32)})[0].shape == (0, 3)
