"""Step orders: all topological, the peak as defined, the best one kept, near-linear."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcore.base.errors import VerifyError
from passes.planning.order import StepInfo, best_order, candidate_orders, level_of, simulate

# ------------------------------------------------------------------------------------------------- programs


@st.composite
def programs(draw: st.DrawFn, most: int = 9) -> tuple[list[StepInfo], dict[int, int], set[int], set[int]]:
    """Steps over a few buffers, written once, again, or in place; sizes, what is kept, what is external."""
    steps: list[StepInfo] = []
    buffers = st.lists(st.integers(0, 7), max_size=3).map(tuple)
    for number in range(draw(st.integers(0, most))):
        after = tuple(draw(st.sets(st.integers(0, number - 1), max_size=2))) if number else ()
        steps.append(StepInfo(draw(buffers), draw(buffers), draw(st.integers(0, 40)), after, draw(st.integers(0, 3))))
    sizes = {buffer: draw(st.integers(0, 50)) for buffer in range(8)}
    return steps, sizes, draw(st.sets(st.integers(0, 7), max_size=2)), draw(st.sets(st.integers(0, 7), max_size=2))


def meaning(steps: Sequence[StepInfo], order: Sequence[int]) -> tuple[dict[int, object], dict[int, int]]:
    """Run the steps symbolically: what each step read, and who wrote each buffer last."""
    writer: dict[int, int] = {}
    seen: dict[int, object] = {}
    for number in order:
        seen[number] = tuple(writer.get(buffer) for buffer in steps[number].inputs)
        writer.update(dict.fromkeys(steps[number].outputs, number))
    return seen, writer


def peak_by_definition(
    steps: Sequence[StepInfo], order: Sequence[int], sizes: dict[int, int], keep: set[int], external: set[int]
) -> int:
    """Sum of what is live at each position, lifetimes looked up one by one."""
    spans = {}
    for buffer in sizes:
        touches = [at for at, n in enumerate(order) if buffer in steps[n].inputs or buffer in steps[n].outputs]
        if not touches or buffer in external:
            continue
        begin = 0 if buffer in steps[order[touches[0]]].inputs else touches[0]
        spans[buffer] = (begin, len(order) if buffer in keep else touches[-1])
    return max(
        (
            steps[number].workspace + sum(sizes[b] for b, (begin, end) in spans.items() if begin <= at <= end)
            for at, number in enumerate(order)
        ),
        default=0,
    )


def is_legal(steps: Sequence[StepInfo], order: Sequence[int]) -> bool:
    """Whether the order computes what the steps as built do, with the extra edges kept."""
    place = {number: at for at, number in enumerate(order)}
    extra = all(place[other] < place[number] for number, step in enumerate(steps) for other in step.after)
    return extra and meaning(steps, order) == meaning(steps, range(len(steps)))


def training(depth: int, seed: int = 0) -> tuple[list[StepInfo], dict[int, int], set[int]]:
    """A chain forward and backward, all updates at the end; sizes vary, weights are external."""
    rng = random.Random(seed)
    steps: list[StepInfo] = []
    sizes: dict[int, int] = {}

    def make(reads: tuple[int, ...], size: int, workspace: int = 0) -> int:
        buffer = len(sizes)
        sizes[buffer] = size
        steps.append(StepInfo(reads, (buffer,), workspace))
        return buffer

    weights = set(range(depth))
    sizes.update(dict.fromkeys(weights, 0))
    values = [make((), 64)]
    for weight in range(depth):
        values.append(make((values[-1], weight), rng.choice([32, 64, 128]), rng.choice([0, 0, 256])))
    grad = make((values[-1],), sizes[values[-1]])
    gradients = []
    for weight in reversed(range(depth)):
        gradients.append((weight, make((grad, values[weight]), rng.choice([16, 512]))))
        grad = make((grad, weight), sizes[values[weight]])
    for weight, gradient in gradients:
        steps.append(StepInfo((gradient, weight), (weight,)))
    return steps, sizes, weights


# ------------------------------------------------------------------------------------------------- properties


@settings(max_examples=150, deadline=None)
@given(programs())
def test_candidates_are_legal_and_the_best_is_kept(program) -> None:  # type: ignore[no-untyped-def]
    steps, sizes, keep, external = program
    peaks = {}
    for name, order in candidate_orders(steps, sizes, keep, external).items():
        assert sorted(order) == list(range(len(steps)))
        assert is_legal(steps, order), name
        peaks[name] = simulate(steps, order, sizes, keep, external)
        assert peaks[name] == peak_by_definition(steps, order, sizes, keep, external), name
    best = best_order(steps, sizes, keep, external)
    assert best.name == min(peaks, key=lambda name: peaks[name])
    assert best.peak == peaks[best.name] == simulate(steps, best.order, sizes, keep, external)


@settings(max_examples=40, deadline=None)
@given(programs(most=6))
def test_no_order_beats_the_optimum_and_as_built_is_as_built(program) -> None:  # type: ignore[no-untyped-def]
    steps, sizes, keep, external = program
    legal = [order for order in permutations(range(len(steps))) if is_legal(steps, order)]
    optimum = min(simulate(steps, order, sizes, keep, external) for order in legal)
    found = best_order(steps, sizes, keep, external)
    assert optimum <= found.peak <= simulate(steps, range(len(steps)), sizes, keep, external)
    assert candidate_orders(steps, sizes, keep, external)["as built"] == list(range(len(steps)))


@settings(max_examples=100, deadline=None)
@given(programs(most=7))
def test_levels_are_longest_paths(program) -> None:  # type: ignore[no-untyped-def]
    steps = program[0]
    levels = level_of(steps)
    for number, step in enumerate(steps):
        needs = [0]
        for other, earlier in enumerate(steps[:number]):
            reads = set(earlier.outputs) & {*step.inputs, *step.outputs}
            if reads or set(earlier.inputs) & set(step.outputs) or other in step.after:
                needs.append(levels[other] + 1)
        assert levels[number] == max(needs)


# ------------------------------------------------------------------------------------------------- cases


def test_least_peak_runs_consumers_at_once() -> None:
    """Made in one go, all large values would be live together; used at once, only one is."""
    count = 10
    steps = [StepInfo((), (i,)) for i in range(count)] + [StepInfo((i,), (count + i,)) for i in range(count)]
    sizes = {i: 100 if i < count else 1 for i in range(2 * count)}
    results = set(range(count, 2 * count))
    assert simulate(steps, range(2 * count), sizes, results) == 1000 + 1
    assert best_order(steps, sizes, results).peak == 100 + count


def test_a_step_moves_forward_when_it_becomes_the_last_reader() -> None:
    """Step 3 would grow memory by 20 until step 2 has run; from then on it frees the 100 bytes of buffer 0."""
    steps = [
        StepInfo((), (0,)),
        StepInfo((), (1,), after=(0,)),
        StepInfo((0,), (2,)),
        StepInfo((0,), (3,)),
        StepInfo((), (4,), after=(0,)),
    ]
    sizes = {0: 100, 1: 5, 2: 10, 3: 20, 4: 15}
    orders = candidate_orders(steps, sizes, keep={1, 2, 3, 4})
    assert orders["least growth first"] == [0, 1, 2, 3, 4]
    assert orders["least peak first"] == [0, 1, 2, 3, 4]


def test_updates_come_early() -> None:
    steps, sizes, weights = training(30)
    built = simulate(steps, range(len(steps)), sizes, external=weights)
    found = best_order(steps, sizes, external=weights)
    assert found.peak < 0.6 * built
    assert is_legal(steps, found.order)


def test_ties_go_to_the_steps_as_built() -> None:
    steps = [StepInfo((), (0,)), StepInfo((), (1,)), StepInfo((0, 1), (2,))]
    found = best_order(steps, {0: 4, 1: 4, 2: 4})
    assert (found.order, found.peak, found.name) == ((0, 1, 2), 12, "as built")


def test_kept_external_workspace_and_in_place() -> None:
    steps = [StepInfo((0,), (1,), workspace=5), StepInfo((1,), (1,)), StepInfo((1,), (2,))]
    sizes = {0: 100, 1: 10, 2: 1}
    order = range(3)
    assert simulate(steps, order, sizes) == 115
    assert simulate(steps, order, {1: 10, 2: 1}, external={0}) == 15
    assert simulate(steps, order, sizes, keep={0}) == 115
    assert simulate(steps, order, {**sizes, 2: 10}, keep={0}) == 120


def test_readers_go_before_the_writer_that_replaces() -> None:
    steps = [StepInfo((0,), (1,)), StepInfo((0,), (2,)), StepInfo((3,), (0,)), StepInfo((0,), (4,))]
    assert level_of(steps) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "steps",
    [
        [StepInfo((), (0,), after=(1,)), StepInfo((0,), (1,))],
        [StepInfo((), (0,), after=(0,))],
        [StepInfo((), (0,), after=(4,))],
        [StepInfo((), (0,), after=(-1,))],
    ],
)
def test_impossible_dependencies(steps: list[StepInfo]) -> None:
    with pytest.raises(VerifyError):
        best_order(steps, {0: 1, 1: 1})
    with pytest.raises(VerifyError):
        level_of(steps)


def test_a_later_step_may_be_required_first() -> None:
    steps = [StepInfo((), (0,), after=(1,)), StepInfo((), (1,))]
    assert all(order == [1, 0] for order in candidate_orders(steps, {0: 1, 1: 1}).values())
    assert level_of(steps) == [1, 0]


@pytest.mark.parametrize("order", [[0], [0, 0], [0, 1, 2], [1, 2]])
def test_simulate_wants_each_step_once(order: list[int]) -> None:
    with pytest.raises(ValueError, match="each once"):
        simulate([StepInfo((), (0,)), StepInfo((0,), (1,))], order, {0: 1, 1: 1})


def test_nothing_to_order() -> None:
    assert best_order([], {}).order == ()
    assert level_of([]) == []


# ------------------------------------------------------------------------------------------------- scaling


def wide(count: int) -> tuple[list[StepInfo], dict[int, int]]:
    """Many values read by the same two steps and by one step each: the worst case for keys that change."""
    steps = [StepInfo((), (i,)) for i in range(count)]
    steps += [StepInfo(tuple(range(count)), (count + i,)) for i in range(2)]
    steps += [StepInfo((i,), (count + 2 + i,)) for i in range(count)]
    return steps, dict.fromkeys(range(2 * count + 2), 8)


def test_work_is_near_linear() -> None:
    for small, large in ((training(2_500), training(25_000)), (wide(5_000), wide(50_000))):
        first = best_order(small[0], small[1])
        second = best_order(large[0], large[1])
        assert len(second.order) >= 100_000
        assert second.work <= 13 * first.work


def test_a_long_chain_needs_no_recursion() -> None:
    count = 20_000
    steps = [StepInfo((i,), (i + 1,)) for i in range(count)]
    found = best_order(steps, dict.fromkeys(range(count + 1), 8))
    assert (found.order, found.peak) == (tuple(range(count)), 16)
    assert level_of(steps)[-1] == count - 1
