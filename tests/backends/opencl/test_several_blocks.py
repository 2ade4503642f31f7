"""Devices whose largest allocation is small: a space is several blocks, and everything computes what it did."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.devices import RUNTIMES, backend, computed_ops, examples_of, judge
from support.sessions import opened

import graphcore as gc
from backends.opencl.memory import Pool, Space
from backends.opencl.program import POINTERS
from backends.opencl.runtime import OpenCLBackend
from graphcore.api.tensor import Builder, wrap
from graphcore.base import dtypes
from graphcore.runtime import session as sessions

DEVICES = (*RUNTIMES, f"{RUNTIMES[0]}:as-gpu")
LARGE = 64 * 2**20


def limited(spec: str, largest: int, memory: int | None = None) -> OpenCLBackend:
    """A device that allocates at most ``largest`` bytes at once."""
    found = backend(spec)
    info = replace(found.device.info, max_alloc=largest, global_mem=memory or found.device.info.global_mem)
    return OpenCLBackend(replace(found.device, info=info))


@contextmanager
def session_on(spec: str, largest: int, memory: int | None = None, launch: str = "auto") -> Iterator[gc.Session]:
    """A session on such a device, none of whose blocks is larger than it allows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "open_backend", lambda _: limited(spec, largest, memory))
        session = opened(spec, launch=launch)
    with session:
        yield session
        assert max(session.memory_info().blocks) <= largest


def counts(session: gc.Session) -> tuple[int, int, int]:
    """Blocks of the arena, of variables and of constants."""
    b: Any = session._backend
    return len(b.arena.blocks), len(b.variables.blocks), len(b.constants.blocks)


def pointers(session: gc.Session) -> list[int]:
    """How many blocks the kernels of the programs take that were built."""
    made = [c.program for p in session._cache.programs.values() for c in p.compiled]
    return sorted(q.pointers for p in made for q in (p, *p.wider.values()) if q.built or q.whole)


class Model:
    """Tables, constants and values in between, each of a given number of floats."""

    def __init__(self, floats: int) -> None:
        rng = np.random.default_rng(0)
        self.tables = [gc.Variable(rng.standard_normal(floats, np.float32), name=f"table{i}") for i in range(3)]
        self.x = gc.placeholder("float32", (floats,), name="x")
        fixed = [gc.constant(rng.standard_normal(floats, np.float32)) for _ in range(2)]
        hidden = [gc.tanh(t * self.x) + c for t, c in zip(self.tables, (*fixed, 0.5), strict=True)]
        order = gc.flip(hidden[0])  # fetched, so it is stored
        self.loss = (order * hidden[1] + hidden[2]).sum()
        slopes = gc.gradients(self.loss, self.tables)
        self.step = [self.loss, order, [t.assign(t - 0.1 * g) for t, g in zip(self.tables, slopes, strict=True)]]
        self.feed = rng.standard_normal(floats, np.float32)

    def run(self, session: gc.Session, steps: int = 2) -> list[Any]:
        losses = [session.run(self.step, {self.x: self.feed})[:2] for _ in range(steps)]
        return [*(a for pair in losses for a in pair), *(session.get_value(t) for t in self.tables)]


def close(found: list[Any], wanted: list[Any]) -> None:
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * float(np.max(np.abs(want))))


@pytest.mark.parametrize("launch", ["step", "level", "one"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_in_several_blocks(device: str, launch: str) -> None:
    model = Model(3000)
    with gc.Session("numpy") as oracle:
        wanted = model.run(oracle)
    with session_on(device, 16384, launch=launch) as session:
        close(model.run(session), wanted)
        assert min(counts(session)) > 1, "the arena, variables and constants"
        assert pointers(session) == [sum(counts(session))]
        info = session.memory_info()
        assert sum(info.blocks) == info.arena + info.variables + info.constants
    with opened(device, launch=launch) as session:
        close(model.run(session), wanted)
        assert counts(session) == (1, 1, 1) and pointers(session) == [POINTERS]


def test_blocks_of_64_megabytes() -> None:
    model = Model(10 * 2**20)
    with opened(RUNTIMES[0]) as plain:
        wanted = model.run(plain, 1)
    with session_on(RUNTIMES[0], LARGE) as session:
        found = model.run(session, 1)
        assert min(counts(session)) > 1
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True))


OPS = (
    "add argmax avg_pool avg_pool_grad broadcast cast concat conv2d conv2d_input_grad conv2d_weight_grad erf exp flip "
    "gelu iota logical_or matmul max max_pool max_pool_grad one_hot pad permute prod pow scatter_add "
    "scatter_along slice softplus sum take take_along where random_bits"
).split()


@pytest.mark.parametrize("device", DEVICES)
def test_ops_in_several_blocks(device: str) -> None:
    known, cases = computed_ops(), []
    for name in OPS:
        cases += examples_of(known[name])[:1]
    b, outputs, feeds, places = Builder(), [], {}, []
    for op, *arrays in cases:
        operands = [gc.placeholder(dtypes.as_dtype(np.asarray(a).dtype), np.shape(a)) for a in arrays]
        feeds.update(zip(operands, arrays, strict=True))
        node = b.apply(op, *operands)
        outputs += [wrap(t) for t in node.outputs]
        places.append(len(node.types))
    with session_on(device, 8192) as session:
        found = session.run(outputs, feeds)
        assert counts(session)[0] > 1
    wrong = []
    for (op, *arrays), count in zip(cases, places, strict=True):
        problem = judge(op, arrays, found[:count])
        wrong += [f"{op}: {problem}"] if problem is not None else []
        del found[:count]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("device", DEVICES)
def test_sizes_that_grow_take_more_blocks(device: str) -> None:
    x = gc.placeholder("float32", (None, 64), name="x")
    w = gc.Variable(np.ones((64, 64), np.float32), name="w")
    y = gc.softmax(gc.relu(x @ w) @ w, axis=0) @ w
    rng = np.random.default_rng(1)
    arrays = {rows: rng.standard_normal((rows, 64), np.float32) for rows in (10, 100, 120, 20, 100)}
    with gc.Session("numpy") as oracle:
        wanted = {rows: oracle.run(y, {x: a}) for rows, a in arrays.items()}
    with session_on(device, 40_000) as session:
        for rows, array in arrays.items():
            np.testing.assert_allclose(session.run(y, {x: array}), wanted[rows], rtol=1e-4, atol=1e-4)
        assert counts(session)[0] > 1 and len(session._cache.programs) == 1
        assert session.memory_info().copied == 0
        assert session.cache_info().executables == 4
        (first, *more) = pointers(session)
        assert first == POINTERS and more, "few rows fit into one block"
        many = [gc.Variable(np.full((40, 64), i, np.float32), name=f"v{i}") for i in range(9)]
        session.run([v.assign(v + 1) for v in many])
        np.testing.assert_allclose(session.run(y, {x: arrays[100]}), wanted[100], rtol=1e-4, atol=1e-4)
        assert all((session.get_value(v) == i + 1).all() for i, v in enumerate(many))
        assert counts(session)[1] > 2
    assert session._backend.memory().variables == session._backend.memory().arena == 0


@pytest.mark.parametrize("device", DEVICES[1:])
def test_what_a_device_does_not_hold(device: str) -> None:
    with session_on(device, 16384, memory=60_000) as session:
        v = gc.Variable(np.ones(4096, np.float32), name="wide")
        for use in (lambda: session.set_value(v, np.ones(4096)), lambda: session.run(v)):
            with pytest.raises(gc.OutOfMemoryError, match=r"variable wide .*float32\(4096,\) of 16,384 bytes"):
                use()
        many = [gc.Variable(np.ones(3000, np.float32), name=f"v{i}") for i in range(6)]
        with pytest.raises(gc.OutOfMemoryError, match=r"variables and constants 72,000.*has 60,000; the largest"):
            session.run(gc.add_n(many).sum())
        with pytest.raises(gc.OutOfMemoryError, match=r"has 60,000 bytes, of which \d"):
            for each in many:
                session.set_value(each, np.ones(3000, np.float32))
        assert session.run(gc.exp(gc.zeros((3,)))).tolist() == [1, 1, 1]


def test_pools_over_several_blocks() -> None:
    """Values come, stay and go: none crosses from one block into the next, and all keep what they hold."""
    space = Space(limited(RUNTIMES[0], 8192).device)
    pool, rng, held, sizes = Pool(space), np.random.default_rng(2), {}, {}
    for turn in range(60):
        for key in [k for k in held if rng.random() < 0.3]:
            del held[key]
        fresh = {(turn, i): int(8000 * rng.random() ** 3) + 1 for i in range(int(rng.integers(1, 4)))}
        sizes |= fresh
        held |= (slots := pool.place(fresh))
        for (turn_of, i), slot in slots.items():
            space.write(slot.offset, np.full(fresh[turn_of, i], (turn_of + 60 * i) % 251, np.uint8))
        ends = sorted((s.offset, s.end) for s in held.values())
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
        assert all(first // space.section == (end - 1) // space.section for first, end in ends)
        for (turn_of, i), slot in held.items():
            found = space.read(slot.offset, (sizes[turn_of, i],), np.dtype(np.uint8))
            assert (found == (turn_of + 60 * i) % 251).all()
    assert len(space.blocks) > 1 and all(b.size <= 8192 for b in space.blocks)
    with pytest.raises(gc.OutOfMemoryError, match="at most 7,936 at once"):
        pool.place({"large": 7937})
