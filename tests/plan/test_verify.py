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
from graphcore.base.dtypes import float64
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Buffer, Launch, Plan
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


def _another_fetch(plan: Plan) -> Plan:
    fetch = plan.fetches[0]
    assert fetch.buffer is not None
    more = replace(plan.buffers[fetch.buffer], number=len(plan.buffers))
    return replace(plan, buffers=(*plan.buffers, more), fetches=(replace(fetch, buffer=more.number),))


def _steps(change: Callable[[Launch], Launch]) -> Callable[[Plan], Plan]:
    """The plan with another first step."""
    return lambda plan: replace(plan, steps=(change(plan.steps[0]), *plan.steps[1:]))


def _buffers(wanted: Callable[[Buffer], bool], **changes: Any) -> Callable[[Plan], Plan]:
    """The plan with another first buffer of those that are wanted."""

    def spoil(plan: Plan) -> Plan:
        first = next(b for b in plan.buffers if wanted(b))
        return replace(plan, buffers=tuple(replace(b, **changes) if b is first else b for b in plan.buffers))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_another_fetch, "is fetched, which nothing has written"),
        (lambda p: replace(p, steps=p.steps[::-1]), "comes after one of level"),
        (lambda p: replace(p, steps=tuple(replace(s, level=0) for s in p.steps)), "which its own level writes"),
        (lambda p: replace(p, steps=(replace(p.steps[0]), *p.steps)), "is written by two steps of level 0"),
        (lambda p: replace(p, steps=p.steps[1:]), "which nothing has written"),
        (_steps(lambda s: replace(s, buffers=s.buffers[:-1])), "buffers for"),
        (_steps(lambda s: replace(s, workspace=(10**6,))), "which does not exist"),
        (_steps(lambda s: replace(s, level=10**9)), "is in level 1000000000 of"),
        (_buffers(lambda b: b.number == 1, number=0), "buffer 1 has the number 0"),
        (_buffers(lambda b: b.role == "feed", dtype=float64), "as float32"),
        (_buffers(lambda b: b.space == ARENA, position=0), "of the space arena has the position 0"),
        (_buffers(lambda b: b.space == VARIABLE, position=None), "of the space variable has the position None"),
        (_buffers(lambda b: b.space == VARIABLE, space=CONSTANT), "of 0"),
        (_buffers(lambda b: b.space == VARIABLE, position=1), "each of another variable"),
        (lambda p: replace(p, variables=p.variables[1:]), "each of another variable"),
        (lambda p: replace(p, feeds=p.variables[:1]), "are in the arena"),
        (lambda p: replace(p, feeds=(10**6,)), "buffer 1000000 does not exist"),
        (lambda p: replace(p, in_place=((p.variables[0], 0),)), "in place"),
        (lambda p: replace(p, fetches=(replace(p.fetches[0], buffer=None),)), "of a buffer or of a constant"),
        (lambda p: replace(p, fetches=(replace(p.fetches[0], buffer=10**6),)), "of nothing that exists"),
        (lambda p: replace(p, fetches=(replace(p.fetches[0], shape=(2,)),)), "other elements than what it views"),
    ],
)
def test_wrong_plans_are_refused(spoil: Callable[[Plan], Plan], words: str) -> None:
    plan = _compiled().plan
    verify_plan(plan)
    with pytest.raises(VerifyError, match=re.escape(words)):
        verify_plan(spoil(plan))


def test_values_without_elements_need_not_be_written() -> None:
    x = gc.placeholder("float32", (0, 3), name="x")
    w = gc.Variable(np.zeros((0, 3), np.float32), name="w")
    y = gc.exp(x) + w
    with gc.Session("numpy:kernels", verify=True) as sess:
        assert sess.run([y, y.sum(), w.assign(y)], {x: np.zeros((0, 3), np.float32)})[0].shape == (0, 3)
