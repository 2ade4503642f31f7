"""Binding other sizes reads what the plan says: tasks, arguments and work are extents, and no family is asked."""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
from support.device_names import RUNTIMES_AND_GPU

import graphcore as gc
from backends.codegen.registry import BY_NAME
from graphcore.base.shapes import bind


def program():
    """Products, a convolution, a scatter, rows and elementwise work over one symbolic batch."""
    batch = gc.Dim("batch")
    x = gc.placeholder("float32", (batch, 3, 10, 10), name="x")
    labels = gc.placeholder("int32", (batch,), name="labels")
    w = gc.Variable(np.random.default_rng(1).standard_normal((8, 3, 3, 3)).astype(np.float32), name="w")
    v = gc.Variable(np.random.default_rng(2).standard_normal((8 * 64, 40)).astype(np.float32), name="v")
    table = gc.Variable(np.random.default_rng(3).standard_normal((20, 40)).astype(np.float32), name="table")
    hidden = gc.relu(gc.nn.functional.conv2d(x, w)).reshape((batch, 8 * 64)) @ v + gc.take(table, labels, axis=0)
    loss = gc.softmax(hidden, axis=1).max(axis=1).sum()
    return [loss, *gc.gradients(loss, [w, v, table])], x, labels


def feeds(x, labels, rows):
    rng = np.random.default_rng(rows)
    values = rng.standard_normal((rows, 3, 10, 10)).astype(np.float32)
    return {x: values, labels: rng.integers(0, 20, rows).astype(np.int32)}


@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_other_sizes_ask_no_family(device: str) -> None:
    fetches, x, labels = program()
    with gc.Session(device) as session, gc.Session("numpy") as oracle:
        session.run(fetches, feeds(x, labels, 24))
        plan = session.compile(fetches, {x: (24, 3, 10, 10), labels: (24,)}).plan
        asked = AssertionError("a family was asked")
        with ExitStack() as patched:
            for kind in {c for family in BY_NAME.values() for c in type(family).__mro__[:-1]}:
                for method in {"tasks", "arguments", "work"} & vars(kind).keys():
                    patched.enter_context(mock.patch.object(kind, method, side_effect=asked))
            for rows in (5, 1, 0, 67):
                given = feeds(x, labels, rows)
                for got, wanted in zip(session.run(fetches, given), oracle.run(fetches, given), strict=True):
                    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4)
    assert len({s.family for s in plan.steps}) >= (2 if device.endswith("as-gpu") else 4)


@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_steps_that_store_nothing_have_no_tasks(device: str) -> None:
    fetches, x, labels = program()
    with gc.Session(device) as session:
        plan = session.compile(fetches, {x: (24, 3, 10, 10), labels: (24,)}).plan
    some = [bind(s.tasks, {"batch": 24}) for s in plan.steps]
    none = [bind(s.tasks, {"batch": 0}) for s in plan.steps]
    assert min(some) >= 1
    for step, tasks in zip(plan.steps, none, strict=True):
        stored = [[bind(a.extent, {"batch": 0}) for a in s.index.axes()] for s in step.kernel.stores]
        if stored:
            assert (tasks == 0) == all(0 in extents for extents in stored), step.kernel.name
    assert 0 in none and max(none) >= 1
