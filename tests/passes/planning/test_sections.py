"""Arenas of several sections: no value crosses from one into the next, and few are needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.stages import oracle_target

import graphcore as gc
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph
from passes.pipeline import compile_graph
from passes.planning.offsets import Block, assign_offsets, check_no_overlap
from passes.planning.placement import place
from passes.planning.sections import check_sections, place_in_sections

SECTION = 1024 * 128


def values(seed: int, count: int, largest: int = SECTION) -> list[Block]:
    """Values of which a few are nearly as large as a section, with short and long lives."""
    draw = np.random.default_rng(seed)
    sizes = np.minimum((largest * draw.random(count) ** 4).astype(int) + 1, largest)
    starts = draw.integers(0, 40, count)
    lives = (40 * draw.random(count) ** 3).astype(int)
    return [Block(i, int(s), int(a), int(a + n)) for i, (s, a, n) in enumerate(zip(sizes, starts, lives, strict=True))]


@pytest.mark.parametrize("seed", range(8))
def test_values_lie_in_one_section_each(seed: int) -> None:
    blocks = values(seed, 20 + 60 * seed)
    bound = assign_offsets(blocks).lower_bound
    found = place_in_sections(blocks, SECTION, 128, bound)
    check_no_overlap(blocks, found.offsets)
    check_sections(blocks, found.offsets, SECTION)
    assert all(at % 128 == 0 for at in found.offsets.values())
    assert found.total >= max(found.offsets[b.key] + b.size for b in blocks)
    assert found.total <= 1.35 * bound + SECTION
    assert found == place_in_sections(blocks, SECTION, 128, bound)


def test_values_as_large_as_a_section() -> None:
    blocks = [*(Block(i, SECTION, 0, 3) for i in range(3)), Block(3, 1, 0, 9), Block(4, SECTION, 4, 9)]
    found = place_in_sections(blocks, SECTION, 128, 3 * SECTION + 128)
    assert sorted(found.offsets[i] for i in range(3)) == [0, SECTION, 2 * SECTION]
    assert found.offsets[3] == 3 * SECTION and found.total == 3 * SECTION + 128
    check_no_overlap(blocks, found.offsets)


def test_what_crosses_is_found() -> None:
    blocks = [Block(0, 100, 0, 1), Block(1, SECTION, 2, 3)]
    check_sections(blocks, {0: SECTION - 100, 1: SECTION}, SECTION)
    with pytest.raises(VerifyError, match=f"at {SECTION - 99} lies in the sections 0 to 1"):
        check_sections(blocks, {0: SECTION - 99, 1: 0}, SECTION)


def test_a_plan_has_sections_only_where_one_allocation_would_be_too_large() -> None:
    x = gc.placeholder("float32", (gc.Dim("rows"), 64), name="x")
    y = gc.softmax(gc.softmax(x, 1) @ gc.constant(np.eye(64, dtype=np.float32)), 0)
    plan = compile_graph(Graph((y,), (), (x,)), oracle_target(), {"rows": 100}).plan
    usual = place(plan, {"rows": 100})
    assert place(plan, {"rows": 100}, section=usual.arena_bytes) == usual
    limit = 100 * 64 * 4
    several = place(plan, {"rows": 100}, section=limit + 100)
    assert several.arena_bytes > limit and several.strategy.endswith("in sections")
    assert several.lower_bound_bytes == usual.lower_bound_bytes
    made = compile_graph(Graph((y,), (), (x,)), replace(oracle_target(), max_alloc=limit), {"rows": 100})
    assert made.placed.offsets == several.offsets
    assert made.placed.arena_bytes == sum(made.placed.tops) <= len(made.placed.tops) * limit
    assert usual.lower_bound_bytes <= made.placed.arena_bytes <= 1.1 * usual.arena_bytes
