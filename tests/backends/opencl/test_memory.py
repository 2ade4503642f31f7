"""Device memory: how often blocks grow, what is copied on the way, and whose place in them is given to others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.sessions import opened

import graphcore as gc
from backends.opencl.memory import Memory, Pool, Space

DEVICES = ("opencl:intel", "opencl:pocl", "opencl:intel:as-gpu")


def variables(count: int, floats: int) -> list[gc.Variable]:
    return [gc.Variable(np.full(floats, i, np.float32), name=f"v{i}") for i in range(count)]


def total(vs: Sequence[gc.Variable]) -> Any:
    return gc.add_n([v.sum() for v in vs]) if len(vs) > 1 else vs[0].sum()


@pytest.mark.parametrize("device", DEVICES)
def test_variables_of_a_program_get_their_place_at_once(device: str) -> None:
    with opened(device) as session:
        vs = variables(100, 3000)
        updates = [v.assign(v + 1) for v in vs]
        for repeats in range(3):
            value, _ = session.run([total(vs), updates])
            assert value == 3000 * (99 * 50 + 100 * repeats)
        blocks = session._backend.variables
        assert blocks.growths == 1 and blocks.copied == 0
        assert session._backend.memory().variables >= 100 * 12000


@pytest.mark.parametrize("device", DEVICES)
def test_restored_variables_get_their_place_at_once(device: str) -> None:
    vs = variables(20, 3000)
    with opened(device) as session:
        session.run(vs[0])
        session.load_state_dict({v.name: np.full(3000, 7, np.float32) for v in vs[:1]})
        for v in vs:
            session._variables.note(v)
        session.load_state_dict({v.name: np.full(3000, 7, np.float32) for v in vs})
        assert session._backend.variables.growths == 2
        assert session._backend.variables.copied <= 12288
        assert all((session.get_value(v) == 7).all() for v in vs)


@pytest.mark.parametrize("device", DEVICES)
def test_what_growing_copies_is_bounded_by_the_final_size(device: str) -> None:
    with opened(device) as session:
        vs = variables(60, 2048)
        for v in vs:  # one after the other: nobody could know of them before
            session.set_value(v, np.full(2048, 3, np.float32))
        block = session._backend.variables
        assert block.growths < 15 and block.copied <= 2 * block.size
        assert session.run(total(vs)) == 60 * 2048 * 3


@pytest.mark.parametrize("device", DEVICES)
def test_programs_over_growing_sizes_copy_nothing_of_the_arena(device: str) -> None:
    with opened(device) as session:
        w = gc.Variable(np.ones((8, 8), np.float32))
        x = gc.placeholder("float32", (None, 8))
        y = gc.softmax(x @ w, axis=1) @ w
        for rows in range(100, 6000, 100):
            np.testing.assert_allclose(session.run(y, {x: np.ones((rows, 8))}), np.ones((rows, 8)), rtol=1e-5)
        found = session._backend.memory()
        assert found.copied == 0 and session._backend.arena.growths < 15


@pytest.fixture
def device() -> Any:
    return opened("opencl:intel")._backend.device


def filled(pool: Pool, sizes: dict[str, int]) -> Any:
    slots = pool.place(sizes)
    for key, slot in slots.items():
        pool.memory.write(slot.offset, np.full(sizes[key], ord(key), np.uint8))
    return slots


def content(pool: Pool, slot: Any, size: int) -> set[int]:
    return set(pool.memory.read(slot.offset, (size,), np.dtype(np.uint8)).tolist())


def test_places_nobody_holds_are_given_to_others(device: Any) -> None:
    pool = Pool(Space(device))
    sizes = {"a": 1000, "b": 5000, "c": 300}
    held = filled(pool, sizes)
    size, middle = pool.memory.size, held["b"].offset
    assert pool.place({"b": 5000})["b"] is held["b"]
    del held["b"]
    fresh = filled(pool, {"d": 2000, "e": 3000, "f": 1})
    assert fresh["d"].offset == middle and fresh["e"].offset >= fresh["d"].offset + 2000
    assert pool.memory.size == size
    for key, slot in {**held, **fresh}.items():
        assert content(pool, slot, {**sizes, "d": 2000, "e": 3000, "f": 1}[key]) == {ord(key)}
    more = filled(pool, {"g": 100_000})
    assert all(content(pool, held[key], sizes[key]) == {ord(key)} for key in held)
    assert content(pool, more["g"], 100_000) == {ord("g")}
    ends = sorted((s.offset, s.end) for s in {**held, **fresh, **more}.values())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


def test_growth_keeps_to_what_the_device_allows(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Memory(device)
    block.grow(1_000_000)
    monkeypatch.setattr(Memory, "_most", lambda self: 1_200_000)
    block.grow(1_100_000)
    assert 1_100_000 <= block.size <= 1_200_000
    block.grow(1_300_000)  # whether the device gives it, the device says
    assert block.size >= 1_300_000
    monkeypatch.undo()
    assert block._most() <= device.info.max_alloc


def test_growth_beyond_what_is_free_takes_what_must_be(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Memory(device)
    block.grow(1_000_000)
    real = Memory._move

    def limited(self: Memory, wanted: int) -> None:
        if wanted > 1_200_000:
            raise gc.OutOfMemoryError(f"cannot allocate {wanted:,} bytes")
        real(self, wanted)

    monkeypatch.setattr(Memory, "_move", limited)
    block.grow(1_100_000)
    assert 1_100_000 <= block.size <= 1_200_000
    with pytest.raises(gc.OutOfMemoryError):
        block.grow(1_300_000)
    assert block.size <= 1_200_000


@pytest.mark.parametrize("device", DEVICES)
def test_constants_of_forgotten_programs_make_room(device: str) -> None:
    with opened(device) as session:
        x = gc.placeholder("float32", ())
        sizes = []
        for i in range(12):
            kept = gc.constant(np.arange(5000, dtype=np.float32) + i)
            np.testing.assert_array_equal(session.run(kept * x, {x: 2}), (np.arange(5000, dtype=np.float32) + i) * 2)
            sizes.append(session._backend.constants.size)
            session._cache.clear()
        assert sizes[-1] == sizes[1], sizes
