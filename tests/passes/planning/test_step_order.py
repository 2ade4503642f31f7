"""Step orders: all topological, the peak as defined, the best one kept, near-linear."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcore.base.errors import VerifyError
from passes.planning.flow import Access, Flow
from passes.planning.order import best_order, candidate_orders, simulate

# ------------------------------------------------------------------------------------------------- programs


@st.composite
def programs(draw: st.DrawFn, most: int = 9) -> tuple[list[Access], dict[int, int], set[int]]:
    """Steps over a few buffers, written once, again, or in place; sizes of most, what is kept."""
    steps: list[Access] = []
    buffers = st.lists(st.integers(0, 7), max_size=3).map(tuple)
    for number in range(draw(st.integers(0, most))):
        after = tuple(draw(st.sets(st.integers(0, number - 1), max_size=2))) if number else ()
        steps.append(Access(draw(buffers), draw(buffers), draw(st.integers(0, 40)), after))
    free = draw(st.sets(st.integers(0, 7), max_size=2))
    sizes = {buffer: draw(st.integers(0, 50)) for buffer in range(8) if buffer not in free}
    return steps, sizes, draw(st.sets(st.integers(0, 7), max_size=2))


def meaning(steps: Sequence[Access], order: Sequence[int]) -> tuple[dict[int, object], dict[int, int]]:
    """Run the steps symbolically: what each step read, and who wrote each buffer last."""
    writer: dict[int, int] = {}
    seen: dict[int, object] = {}
    for number in order:
        seen[number] = tuple(writer.get(buffer) for buffer in steps[number].reads)
        writer.update(dict.fromkeys(steps[number].writes, number))
    return seen, writer


def peak_by_definition(steps: Sequence[Access], order: Sequence[int], sizes: dict[int, int], keep: set[int]) -> int:
    """Sum of what is live at each position, lifetimes looked up one by one."""
    spans = {}
    for buffer in sizes:
        touches = [at for at, n in enumerate(order) if buffer in steps[n].reads or buffer in steps[n].writes]
        if not touches:
            continue
        begin = 0 if buffer in steps[order[touches[0]]].reads else touches[0]
        spans[buffer] = (begin, len(order) if buffer in keep else touches[-1])
    return max(
        (
            steps[number].workspace + sum(sizes[b] for b, (begin, end) in spans.items() if begin <= at <= end)
            for at, number in enumerate(order)
        ),
        default=0,
    )


def is_legal(steps: Sequence[Access], order: Sequence[int]) -> bool:
    """Whether the order computes what the steps as built do, with the extra edges kept."""
    place = {number: at for at, number in enumerate(order)}
    extra = all(place[other] < place[number] for number, step in enumerate(steps) for other in step.after)
    return extra and meaning(steps, order) == meaning(steps, range(len(steps)))


def training(depth: int, seed: int = 0) -> tuple[list[Access], dict[int, int]]:
    """A chain forward and backward, all updates at the end; sizes vary, weights cost nothing."""
    rng = random.Random(seed)
    steps: list[Access] = []
    sizes: dict[int, int] = {}

    def make(reads: tuple[int, ...], size: int, workspace: int = 0) -> int:
        buffer = len(sizes)
        sizes[buffer] = size
        steps.append(Access(reads, (buffer,), workspace))
        return buffer

    sizes.update(dict.fromkeys(range(depth), 0))
    values = [make((), 64)]
    for weight in range(depth):
        values.append(make((values[-1], weight), rng.choice([32, 64, 128]), rng.choice([0, 0, 256])))
    grad = make((values[-1],), sizes[values[-1]])
    gradients = []
    for weight in reversed(range(depth)):
        gradients.append((weight, make((grad, values[weight]), rng.choice([16, 512]))))
        grad = make((grad, weight), sizes[values[weight]])
    for weight, gradient in gradients:
        steps.append(Access((gradient, weight), (weight,)))
    return steps, sizes


# ------------------------------------------------------------------------------------------------- properties


@settings(max_examples=150, deadline=None)
@given(programs())
def test_candidates_are_legal_and_the_best_is_kept(program) -> None:  # type: ignore[no-untyped-def]
    steps, sizes, keep = program
    flow = Flow(steps)
    peaks = {}
    for name, order in candidate_orders(flow, sizes, keep).items():
        assert sorted(order) == list(range(len(steps)))
        assert is_legal(steps, order), name
        peaks[name] = simulate(flow, order, sizes, keep)
        assert peaks[name] == peak_by_definition(steps, order, sizes, keep), name
    best = best_order(flow, sizes, keep)
    assert best.name == min(peaks, key=lambda name: peaks[name])
    assert best.peak == peaks[best.name] == simulate(flow, best.order, sizes, keep)


@settings(max_examples=40, deadline=None)
@given(programs(most=6))
def test_no_order_beats_the_optimum_and_as_built_is_as_built(program) -> None:  # type: ignore[no-untyped-def]
    steps, sizes, keep = program
    flow = Flow(steps)
    legal = [order for order in permutations(range(len(steps))) if is_legal(steps, order)]
    optimum = min(simulate(flow, order, sizes, keep) for order in legal)
    found = best_order(flow, sizes, keep)
    assert optimum <= found.peak <= simulate(flow, range(len(steps)), sizes, keep)
    assert candidate_orders(flow, sizes, keep)["as built"] == list(range(len(steps)))


@settings(max_examples=100, deadline=None)
@given(programs(most=7))
def test_levels_are_longest_paths(program) -> None:  # type: ignore[no-untyped-def]
    steps = program[0]
    levels = Flow(steps).levels()
    for number, step in enumerate(steps):
        needs = [0]
        for other, earlier in enumerate(steps[:number]):
            reads = set(earlier.writes) & {*step.reads, *step.writes}
            if reads or set(earlier.reads) & set(step.writes) or other in step.after:
                needs.append(levels[other] + 1)
        assert levels[number] == max(needs)


# ------------------------------------------------------------------------------------------------- cases


def test_least_peak_runs_consumers_at_once() -> None:
    """Made in one go, all large values would be live together; used at once, only one is."""
    count = 10
    steps = [Access((), (i,)) for i in range(count)] + [Access((i,), (count + i,)) for i in range(count)]
    sizes = {i: 100 if i < count else 1 for i in range(2 * count)}
    results = set(range(count, 2 * count))
    assert simulate(Flow(steps), range(2 * count), sizes, results) == 1000 + 1
    assert best_order(Flow(steps), sizes, results).peak == 100 + count


def test_a_step_moves_forward_when_it_becomes_the_last_reader() -> None:
    """Step 3 would grow memory by 20 until step 2 has run; from then on it frees the 100 bytes of buffer 0."""
    steps = [
        Access((), (0,)),
        Access((), (1,), after=(0,)),
        Access((0,), (2,)),
        Access((0,), (3,)),
        Access((), (4,), after=(0,)),
    ]
    sizes = {0: 100, 1: 5, 2: 10, 3: 20, 4: 15}
    orders = candidate_orders(Flow(steps), sizes, keep={1, 2, 3, 4})
    assert orders["least growth first"] == [0, 1, 2, 3, 4]
    assert orders["least peak first"] == [0, 1, 2, 3, 4]


def test_updates_come_early() -> None:
    steps, sizes = training(30)
    built = simulate(Flow(steps), range(len(steps)), sizes)
    found = best_order(Flow(steps), sizes)
    assert found.peak < 0.6 * built
    assert is_legal(steps, found.order)


def test_ties_go_to_the_steps_as_built() -> None:
    steps = [Access((), (0,)), Access((), (1,)), Access((0, 1), (2,))]
    found = best_order(Flow(steps), {0: 4, 1: 4, 2: 4})
    assert (found.order, found.peak, found.name) == ((0, 1, 2), 12, "as built")


def test_kept_free_workspace_and_in_place() -> None:
    steps = [Access((0,), (1,), workspace=5), Access((1,), (1,)), Access((1,), (2,))]
    sizes = {0: 100, 1: 10, 2: 1}
    flow, order = Flow(steps), range(3)
    assert simulate(flow, order, sizes) == 115
    assert simulate(flow, order, {1: 10, 2: 1}) == 15
    assert simulate(flow, order, sizes, keep={0}) == 115
    assert simulate(flow, order, {**sizes, 2: 10}, keep={0}) == 120


def test_readers_go_before_the_writer_that_replaces() -> None:
    steps = [Access((0,), (1,)), Access((0,), (2,)), Access((3,), (0,)), Access((0,), (4,))]
    assert Flow(steps).levels() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "steps",
    [
        [Access((), (0,), after=(1,)), Access((0,), (1,))],
        [Access((), (0,), after=(0,))],
        [Access((), (0,), after=(4,))],
        [Access((), (0,), after=(-1,))],
    ],
)
def test_impossible_dependencies(steps: list[Access]) -> None:
    with pytest.raises(VerifyError):
        best_order(Flow(steps), {0: 1, 1: 1})
    with pytest.raises(VerifyError):
        Flow(steps).levels()


def test_a_later_step_may_be_required_first() -> None:
    steps = [Access((), (0,), after=(1,)), Access((), (1,))]
    assert all(order == [1, 0] for order in candidate_orders(Flow(steps), {0: 1, 1: 1}).values())
    assert Flow(steps).levels() == [1, 0]


@pytest.mark.parametrize("order", [[0], [0, 0], [0, 1, 2], [1, 2]])
def test_simulate_wants_each_step_once(order: list[int]) -> None:
    with pytest.raises(ValueError, match="each once"):
        simulate(Flow([Access((), (0,)), Access((0,), (1,))]), order, {0: 1, 1: 1})


def test_nothing_to_order() -> None:
    assert best_order(Flow([]), {}).order == ()
    assert Flow([]).levels() == []
    assert Flow([]).peak([], {}) == 0


# ------------------------------------------------------------------------------------------------- scaling


def wide(count: int) -> tuple[list[Access], dict[int, int]]:
    """Many values read by the same two steps and by one step each: the worst case for keys that change."""
    steps = [Access((), (i,)) for i in range(count)]
    steps += [Access(tuple(range(count)), (count + i,)) for i in range(2)]
    steps += [Access((i,), (count + 2 + i,)) for i in range(count)]
    return steps, dict.fromkeys(range(2 * count + 2), 8)


def test_work_is_near_linear() -> None:
    for small, large in ((training(2_500), training(25_000)), (wide(5_000), wide(50_000))):
        first = best_order(Flow(small[0]), small[1])
        second = best_order(Flow(large[0]), large[1])
        assert len(second.order) >= 100_000
        assert second.work <= 13 * first.work


def test_a_long_chain_needs_no_recursion() -> None:
    count = 20_000
    steps = [Access((i,), (i + 1,)) for i in range(count)]
    found = best_order(Flow(steps), dict.fromkeys(range(count + 1), 8))
    assert (found.order, found.peak) == (tuple(range(count)), 16)
    assert Flow(steps).levels()[-1] == count - 1
