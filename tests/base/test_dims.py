"""Symbolic extents: their arithmetic against numbers, what may be equal, what an equality defines; slices of them."""

from __future__ import annotations

import itertools
import random

import pytest

from graphcore.api.spans import symbolic_span
from graphcore.base.errors import ShapeError
from graphcore.base.shapes import (
    Dim,
    Extent,
    agree,
    bind,
    broadcast_shapes,
    broadcasts,
    common_shape,
    defined_by,
    dim_max,
    dim_min,
    may_equal,
    product,
    reach,
    symbols_of,
)

N, M, K = Dim("n"), Dim("m"), Dim("k")


def _grown(rng: random.Random, depth: int, values: dict[str, int]) -> tuple[Extent, int]:
    """A random extent, and its value by plain arithmetic."""
    if depth == 0:
        number = rng.randint(0, 6)
        return rng.choice([(N, values["n"]), (M, values["m"]), (number, number)])
    (a, x), (b, y) = _grown(rng, depth - 1, values), _grown(rng, depth - 1, values)
    operation = rng.choice(["add", "sub", "mul", "quotient", "remainder", "min", "max"])
    if operation in ("quotient", "remainder"):
        b = y = rng.randint(1, 5)
    results: dict[str, tuple[Extent, int]] = {
        "add": (a + b, x + y),
        "sub": (a - b, x - y),
        "mul": (a * b, x * y),
        "quotient": (a // b if b else 0, x // y if y else 0),
        "remainder": (a % b if b else 0, x % y if y else 0),
        "min": (dim_min(a, b), min(x, y)),
        "max": (dim_max(a, b), max(x, y)),
    }
    return results[operation]


def test_arithmetic_is_that_of_numbers() -> None:
    rng = random.Random(0)
    for _ in range(1500):
        values = {"n": rng.randint(0, 7), "m": rng.randint(0, 7)}
        extent, value = _grown(rng, rng.randint(1, 3), values)
        assert bind(extent, values) == value, (extent, values)
        other, same = _grown(rng, 2, values)
        if value == same:
            assert may_equal(extent, other), (extent, other, values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((4 * N + 3) // 4, N),
        ((N + 7) // 4, (N + 3) // 4 + 1),
        ((5 * N + 8) % 4, N % 4),
        (dim_min(N, M), dim_min(M, N)),
        (dim_min(dim_min(N, 5), 3), dim_min(N, 3)),
        (dim_min(N + 2, 7), dim_min(N, 5) + 2),
        (dim_min(N, 5) + dim_max(N - 5, 0), N),
        (dim_max(dim_max(N - 1, 0) - 1, 0), dim_max(N - 2, 0)),
        (dim_min(N, N + M), N),
        (dim_min(N, 0), 0),
        ((N * M - 2 * N + 5) * 3, 3 * (N * M) + 15 - 6 * N),
        ((M - N) * -1, N - M),
        ((N + M) * 0, 0),
        (product([3, N + 1, 2, M]), 6 * (M * N) + M * 6),
        (product([M, 4, N]), product([N, M, 4])),
        (product([N, 0, M]), 0),
    ],
)
def test_equal_extents_have_one_form(one: Extent, other: Extent) -> None:
    assert one == other and hash(one) == hash(other)


@pytest.mark.parametrize(
    ("extent", "text"),
    [(N - 1, "n - 1"), (5 - N, "5 - n"), (2 * N - M, "2*n - m"), (dim_max(N - 3, 0), "n - min(n, 3)")]
    + [((N + 1) // 2, "((n + 1) // 2)"), (N // 2, "(n // 2)")],
)
def test_text(extent: Extent, text: str) -> None:
    assert str(extent) == text


@pytest.mark.parametrize(
    ("a", "b", "possible"),
    [
        (N, M, True),
        (N, 5, True),
        (N, 0, True),
        (N, N + 1, False),
        (N + 1, 0, False),
        (N + M + 2, 1, False),
        (2 * N, 7, False),
        (2 * N, 8, True),
        (2 * N, 2 * M + 1, False),
        (6 * N, 4 * M + 2, True),
        (N * M, K, True),
        (N - 3, 0, True),
        (dim_min(N, 5), 7, True),  # not decided
    ],
)
def test_which_extents_may_be_equal(a: Extent, b: Extent, possible: bool) -> None:
    assert may_equal(a, b) is possible and may_equal(b, a) is possible
    assert agree((3, a), (3, b)) is possible and not agree((a,), (a, b))
    assert broadcasts((a,), (2, b)) is possible and broadcasts((1,), (2, b)) and not broadcasts((2, a), (b,))


def test_common_extents() -> None:
    assert broadcast_shapes((N, 1), (M, 3), (K,)) == (N, 3)
    assert broadcast_shapes((N,), (M,), (5,)) == (5,)
    assert common_shape((N, M), (K, 4)) == (N, 4)
    for shapes in (((N,), (N + 1,), (5,)), ((N,), (M,), (N + 1,)), ((3,), (N,), (4,))):
        with pytest.raises(ShapeError, match="do not broadcast"):
            broadcast_shapes(*shapes)
        with pytest.raises(ShapeError, match="differ"):
            common_shape(*shapes)


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (N, M, ("n", M)),
        (5, N, ("n", 5)),
        (N + 1, M, ("m", N + 1)),
        (2 * N + 4, 2 * M, ("m", N + 2)),
        (4 * N, 4 * M, ("m", N)),
        (N * M, K, ("k", N * M)),
        (N + M, K + 3, ("k", N + M - 3)),
        (2 * N, 3 * M, None),
        (N * M, N * K, None),
        (N, dim_min(N, 5), None),
        (N * N, N, None),
    ],
)
def test_what_an_equality_defines(a: Extent, b: Extent, found: tuple[str, Extent] | None) -> None:
    assert defined_by(a, b) == found
    if found is None:
        return
    symbol, extent = found
    assert symbol not in symbols_of([extent])
    defined = {symbol: extent}
    assert bind(a, defined) == bind(b, defined)  # type: ignore[arg-type]
    assert (symbol == found[0] and extent == found[1]) or symbol != found[0]


def test_reach() -> None:
    for count, step in itertools.product(range(4), range(1, 4)):
        expected = (count - 1) * step + 1 if count else 0
        assert reach(count, step) == expected == bind(reach(N, step), {"n": count})


def test_slices_are_those_of_numpy() -> None:
    bounds = (None, 0, 1, 2, 5, -1, -2, -5)
    for begin, end, step in itertools.product(bounds, bounds, (None, 1, 2, 3, -1, -2, -3)):
        start, count, stride = symbolic_span(slice(begin, end, step), N)
        for n in range(8):
            first, number = bind(start, {"n": n}), bind(count, {"n": n})
            places = [first + i * abs(stride) for i in range(number)]
            expected = list(range(n))[begin:end:step]
            assert (places if stride > 0 else places[::-1]) == expected, (begin, end, step, n)
            assert number >= 0 and first >= 0
