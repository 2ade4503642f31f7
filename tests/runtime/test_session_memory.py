"""What a session keeps of its programs, how much of them, and what closing it frees."""

from __future__ import annotations

import gc as garbage
import re
import weakref
from typing import Any

import numpy as np
import pytest
from support.sessions import opened

import graphcore as gc
from graphcore.runtime.compiled import STAGES

DEVICES = ("numpy:kernels", "opencl:intel", "opencl:pocl", "opencl:intel:as-gpu")


def training(rows: Any = None) -> tuple[Any, Any, Any]:
    x = gc.placeholder("float32", (rows, 6), name="x")
    w = gc.Variable(np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6), name="w")
    loss = (gc.softmax(gc.tanh(x @ w), axis=1) ** 2).mean()
    return x, w, [loss, w.assign(w - 0.1 * gc.gradients(loss, [w])[0])]


def timeless(text: str) -> str:
    return re.sub(r"[\d.]+ ms", "ms", text)


@pytest.mark.parametrize("device", DEVICES)
def test_a_program_that_ran_keeps_no_stage_and_gives_every_one_again(device: str) -> None:
    with opened(device) as session:
        x, w, step = training()
        feed = np.ones((4, 6), np.float32)
        fresh = session.compile(step, {x: feed})
        partition = weakref.ref(fresh.compilation.partition)
        stages = (*STAGES, *fresh.pipeline.names)
        texts = [fresh.as_text(stage) for stage in stages]
        explained = timeless(fresh.explain())
        assert fresh.compilation is fresh.compilation and partition() is not None
        session.run(step, {x: feed})
        seen = session.compile(step, {x: feed})
        assert seen.plan is fresh.plan
        del fresh
        assert partition() is None
        assert [seen.as_text(stage) for stage in stages] == texts
        assert timeless(seen.explain()) == explained
        (program,) = session._cache.programs.values()
        assert [c._made for c in program.compiled] == [None]
        first = session.run(step, {x: np.ones((9, 6), np.float32)})[0]  # other sizes are bound to what was kept
        assert len(program.compiled) == 1 and np.isfinite(first)


@pytest.mark.parametrize("device", ["opencl:intel", "opencl:intel:as-gpu"])
@pytest.mark.parametrize("launch", ["step", "one"])
def test_texts_are_not_kept_once_they_are_built(device: str, launch: str) -> None:
    with opened(device, launch=launch) as session:
        x, w, step = training()
        session.run(step, {x: np.ones((4, 6))})
        compiled = session.compile(step, {x: (4, 6)})
        source = compiled.program.source
        assert source.text == source.whole == "" and not any(f.text for f in source.functions)
        text = compiled.as_text("source")
        assert "__kernel" in text and all(f.name in text for f in source.functions)
        session._backend.launch = "step"  # a GPU builds another program of the same texts
        assert np.isfinite(session.run(step, {x: np.ones((7, 6))})[0])


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_compiled_for_shapes_is_what_runs_with_them(device: str) -> None:
    with opened(device) as session:
        x, w, step = training()
        compiled = session.compile(step, {x: (4, 6)})
        assert session.cache_info().executables == 1
        session.run(step, {x: np.ones((4, 6))})
        (program,) = session._cache.programs.values()
        assert [*program.bound.values()] == [compiled.bound]
        session.run(step, {x: np.ones((5, 6))})
        assert session.cache_info().executables == 2 and session.cache_info().compilations == 1


# --- bounded by bytes -------------------------------------------------------------------------------------------------


def scaled(i: int) -> tuple[Any, Any]:
    x = gc.placeholder("float32", (3,), name="x")
    return x, gc.exp(x * float(i))


def expected(i: int) -> Any:
    return np.exp(np.arange(3, dtype=np.float32) / 8 * i)


FEED = np.arange(3, dtype=np.float32) / 8


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_used_longest_ago_goes_first(device: str) -> None:
    with opened(device) as probe:
        x, y = scaled(1)
        probe.run(y, {x: FEED})
        one = probe.cache_info().bytes
        assert 0 < one < probe.cache_info().limit == 256 << 20
    with opened(device, cache_limit=int(3.5 * one)) as session:
        graphs = [scaled(i) for i in range(1, 9)]
        backend_programs = []
        for i, (x, y) in enumerate(graphs, start=1):
            np.testing.assert_allclose(session.run(y, {x: FEED}), expected(i), rtol=1e-5)
            backend_programs.append(weakref.ref(next(reversed(session._cache.programs.values())).compiled[0]))
            first = graphs[0]  # used again and again, so it stays
            np.testing.assert_allclose(session.run(first[1], {first[0]: FEED}), expected(1), rtol=1e-5)
        info = session.cache_info()
        assert info.programs == info.compilations == info.executables == 3 and info.evicted == 5
        assert info.bytes <= info.limit and len(session._cache.entries) == 3
        assert [r() is not None for r in backend_programs] == [True, *[False] * 5, True, True]
        for i, (x, y) in enumerate(graphs, start=1):  # those that went are compiled again
            np.testing.assert_allclose(session.run(y, {x: FEED}), expected(i), rtol=1e-5)
        assert session.cache_info().compilations == 3


@pytest.mark.parametrize("device", DEVICES)
def test_the_one_in_use_stays_whatever_its_size(device: str) -> None:
    with opened(device, cache_limit=1) as session:
        x, w, step = training()
        values = [float(session.run(step, {x: np.ones((4, 6))})[0]) for _ in range(4)]
        assert values == sorted(values, reverse=True) and len(set(values)) == 4
        assert session.cache_info().compilations == 1 and session.cache_info().evicted == 0
        x2, y2 = scaled(2)
        session.run(y2, {x2: FEED})
        info = session.cache_info()
        assert info.compilations == info.evicted == 1
        assert session.run(step, {x: np.ones((4, 6))})[0] < values[-1]  # the variable is no part of a program


@pytest.mark.parametrize("device", DEVICES)
def test_a_callable_outlives_the_eviction_of_its_program(device: str) -> None:
    with opened(device, cache_limit=1) as session:
        made = []
        for i in range(1, 4):
            x, y = scaled(i)
            made.append(session.make_callable(y, [x]))
        for _ in range(2):
            for i, call in enumerate(made, start=1):
                np.testing.assert_allclose(call(FEED), expected(i), rtol=1e-5)
                assert session.cache_info().compilations == 1
        assert session.cache_info().evicted == 5


@pytest.mark.parametrize("device", DEVICES)
def test_compilations_of_one_graph_count_one_by_one(device: str) -> None:
    with opened(device, cache_limit=1) as session:
        x = gc.placeholder("float32", (4, None), name="x")
        y = gc.softmax(x, axis=0)
        for n in (3, 50, 700, 3):
            np.testing.assert_allclose(session.run(y, {x: np.ones((4, n))}), np.full((4, n), 0.25), rtol=1e-6)
            info = session.cache_info()
            assert info.programs == info.compilations == info.executables == 1


def test_what_users_hold_of_an_evicted_program_still_works() -> None:
    with opened("opencl:intel", cache_limit=1) as session:
        x, y = scaled(5)
        held = session.compile(y, {x: FEED})
        before = held.as_text("source")
        for i in range(1, 4):
            other, z = scaled(i)
            session.run(z, {other: FEED})
        assert held.as_text("source") == before and "exp" in held.explain()
        np.testing.assert_allclose(session.run(y, {x: FEED}), expected(5), rtol=1e-5)


def test_a_cache_limit_is_a_size() -> None:
    assert gc.Session("numpy", cache_limit="1GB").cache_info().limit == 10**9
    with pytest.raises(gc.UsageError, match="cache_limit: 'much' is no size"):
        gc.Session("numpy", cache_limit="much")


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_closing_frees_programs_and_memory(device: str) -> None:
    session = opened(device)
    x, w, step = training()
    call = session.make_callable(step, [x])
    call(np.ones((4, 6)))
    session.run(step, {x: np.ones((8, 6))})
    (program,) = session._cache.programs.values()
    gone = [weakref.ref(o) for o in (program.compiled[0], *program.bound.values())]
    if device.startswith("opencl"):
        gone += [
            weakref.ref(b) for b in (program.compiled[0].program, *(s for s, _ in session._backend._slots.values()))
        ]
    assert session.memory_info().variables >= 36 * 4
    session.close()
    session.close()
    garbage.collect()
    assert [r() for r in gone] == [None] * len(gone)
    assert session._backend.memory().variables == session._backend.memory().arena == 0
    info = session.cache_info()
    assert info.programs == info.compilations == info.bytes == 0
    for use in (lambda: call(np.ones((4, 6))), lambda: session.get_value(w), session.memory_info):
        with pytest.raises(gc.SessionError, match="closed"):
            use()


@pytest.mark.parametrize("device", DEVICES)
def test_a_dropped_session_frees_its_graphs_and_variables(device: str) -> None:
    session = opened(device)
    x, w, step = training()
    session.run(step, {x: np.ones((4, 6))})
    gone = [weakref.ref(o) for o in (x.node, w, step[0].node, session, session._backend)]
    del x, w, step, session
    garbage.collect()
    assert [r() for r in gone] == [None] * len(gone)
