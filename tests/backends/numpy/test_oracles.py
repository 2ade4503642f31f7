"""The two oracles as devices: ``"numpy"`` interprets the graph as it was built, ``"numpy:kernels"`` the plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc
from graphcore.api.operands import apply
from graphcore.ir.op import _REGISTRY, Kind, Op, TensorType, primitive


@pytest.fixture
def sort() -> Iterator[Any]:
    """An op with a reference and without a lowering."""

    @primitive
    class SortedForOracles(Op):
        """The elements of the last axis in order."""

        kind = Kind.OPAQUE
        arity = 1

        def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
            return (inputs[0],)

        def reference(self, *inputs: Any) -> Any:
            return np.sort(inputs[0], axis=-1)

    yield lambda x: apply(SortedForOracles(), x)
    del _REGISTRY[SortedForOracles.name]


def test_the_graph_oracle_needs_no_lowering(sort: Any) -> None:
    x, w = gc.placeholder("float32", (None, 4), name="x"), gc.Variable(np.array([2.0, 0.0, 1.0, 3.0], np.float32))
    y = sort(x * 2.0) + 1.0
    data = np.array([[3, 1, 2, 0]], np.float32)
    with gc.Session("numpy") as session:
        found, _ = session.run([y, w.assign(sort(w))], {x: data})
        np.testing.assert_array_equal(found, [[1, 3, 5, 7]])
        assert session.get_value(w).tolist() == [0, 1, 2, 3]
        call = session.make_callable(y, [x])
        assert [call(np.tile(data, (n, 1))).shape for n in (1, 3, 100)] == [(1, 4), (3, 4), (100, 4)]
        compiled = session.compile(y, {x: (2, 4)})
        assert "sorted_for_oracles" in compiled.as_text("built")
        assert "sorted_for_oracles" in message_of(gc.CompileError, compiled.explain)
    with gc.Session("numpy:kernels") as session:
        assert "has no kernel" in message_of(gc.CompileError, lambda: session.run(y, {x: data}))


def test_what_the_graph_oracle_runs_can_be_explained() -> None:
    x = gc.placeholder("float32", (None, 4))
    y = gc.softmax(x, 1)
    with gc.Session("numpy") as session:
        session.run(y, {x: np.ones((2, 4))})
        compiled = session.compile(y, {x: (3, 4)})
        assert compiled.memory_analysis()["feed_bytes"] == 48
        assert "softmax" not in compiled.as_text("plan") and "level 0" in compiled.as_text("plan")
        assert compiled.cost_analysis()["levels"] >= 1 and "fuse" in compiled.explain()


def test_a_variable_that_no_kernel_needs_is_read(sess: gc.Session) -> None:
    """Of no rows nothing is computed; what multiplies nothing, or is cancelled, is needed by the graph alone."""
    x = gc.placeholder("float32", (None, 3))
    w, b, n = gc.Variable(np.ones((3, 2), np.float32)), gc.Variable([1.0, 2.0]), gc.Variable(np.int64(3))
    kept = gc.Variable(np.zeros((0, 2), np.float32))
    assert sess.run(x @ w + b, {x: np.zeros((0, 3))}).shape == (0, 2)
    assert sess.run((x @ w).sum(0), {x: np.zeros((0, 3))}).tolist() == [0, 0]
    assert sess.run([n - n, n * 0]) == [0, 0]
    assert sess.run([kept.assign(kept + b), kept])[1].shape == (0, 2)
    only = gc.Variable([5.0], name="only")
    sess.run(only.assign(gc.constant([6.0])))
    assert sess.state_dict()["only"].tolist() == [6]
