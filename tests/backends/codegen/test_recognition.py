"""A kernel is recognised once, and remembered no longer than it lives."""

from __future__ import annotations

import gc as collector
import weakref
from dataclasses import replace

import numpy as np
import pytest
from support.device_names import INTEL
from support.sessions import opened

import graphcore as gc
from backends.codegen.recognition import recognised
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel


def kernel(extent: int = 4) -> Kernel:
    return Kernel("k", (), (Axis("i0", extent),), ())


def test_an_answer_is_remembered_for_one_kernel_and_its_other_arguments() -> None:
    asked = []

    @recognised
    def extent(of: Kernel, times: int = 1) -> int:
        asked.append((of, times))
        return int(of.axes[0].extent) * times

    one, equal, other = kernel(), kernel(), kernel(5)
    assert [extent(one), extent(one), extent(one, 2), extent(one, times=2), extent(one, 2)] == [4, 4, 8, 8, 8]
    assert [extent(equal), extent(other), extent(replace(one, axes=other.axes))] == [4, 5, 5]
    assert [times for of, times in asked if of is one] == [1, 2, 2]  # by position and by name are two questions
    assert len(asked) == 6


def test_what_a_function_raises_is_not_remembered() -> None:
    answers = iter([ValueError("first"), 7])

    @recognised
    def find(of: Kernel) -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    one = kernel()
    with pytest.raises(ValueError, match="first"):
        find(one)
    assert find(one) == 7 == find(one)


def test_kernels_die_and_their_addresses_are_used_again() -> None:
    @recognised
    def extent(of: Kernel) -> int:
        return int(of.axes[0].extent)

    one = kernel()
    assert extent(one) == 4
    dead = weakref.ref(one)
    del one
    assert dead() is None
    for size in range(1, 200):  # many of these lie where the one before lay
        assert extent(kernel(size)) == size


def test_answers_do_not_hold_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = gc.placeholder("float32", (64, 96), name="x"), gc.placeholder("float32", (96, 48), name="w")
    feeds = {x: np.ones((64, 96), np.float32), w: np.ones((96, 48), np.float32)}
    asked: dict[int, int] = {}
    real = Kernel.product

    def counted(self: Kernel) -> object:
        asked[id(self)] = asked.get(id(self), 0) + 1
        return real(self)

    monkeypatch.setattr(Kernel, "product", counted)
    with opened(INTEL) as session:
        np.testing.assert_array_equal(session.run(gc.relu(x @ w), feeds), np.full((64, 48), 96.0, np.float32))
        steps = session.compile(gc.relu(x @ w), {x: (64, 96), w: (96, 48)}).plan.steps
        assert [s.family for s in steps] == ["matmul"]
        assert asked[id(steps[0].kernel)] == 1  # scheduling, work, tasks and text
        alive = weakref.ref(steps[0].kernel)
        del steps
    asked.clear()
    del session
    collector.collect()
    assert alive() is None
