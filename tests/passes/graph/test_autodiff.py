"""Gradients: every differentiable primitive against finite differences, first and second order, alone and in
compositions."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from support.devices import FAMILIES
from support.values import evaluate, message_of, ph

import graphcore as gc
import graphcore.ops
from graphcore import functional as F
from graphcore.api.tensor import Tensor, node_over, wrap
from graphcore.base import dtypes
from graphcore.ir.graph import toposort
from graphcore.ir.op import Kind, Op, registered

PRIMITIVES: dict[str, Any] = {
    name: cls
    for name, cls in registered().items()
    if cls.__module__ in FAMILIES and cls.kind not in (Kind.LEAF, Kind.REGION) and cls.differentiable
}


# --- every primitive --------------------------------------------------------------------------------------------------


def widened(example: tuple[Any, ...]) -> tuple[Op, list[Any]] | None:
    """An example in float64, moved off ties and kinks by a little; None if it has no floating operand."""
    op, *arrays = example
    if not any(dtypes.as_dtype(np.asarray(a).dtype).is_float for a in arrays):
        return None
    rng = np.random.default_rng(5)
    wide = []
    for a in map(np.asarray, arrays):
        if dtypes.as_dtype(a.dtype).is_float:
            a = a.astype(np.float64)
            a = a * (1 + 1e-3 * rng.standard_normal(a.shape))
        wide.append(a)
    changed = {k: dtypes.float64 for k, v in op.attributes().items() if isinstance(v, dtypes.DType) and v.is_float}
    return (dataclasses.replace(op, **changed) if changed else op), wide


def examples() -> list[Any]:
    found = []
    for name, cls in sorted(PRIMITIVES.items()):
        seen = set()
        for i, example in enumerate(cls.examples(object.__new__(cls))):
            wide = widened(example)
            if wide is None or not all(np.isfinite(a).all() for a in wide[1] if a.dtype.kind == "f"):
                continue
            if name == "stop_gradient":  # wrong by definition; it has a test of its own
                continue
            key = (repr(wide[0]), *(a.tobytes() + repr((a.shape, a.dtype)).encode() for a in wide[1]))
            if key not in seen:
                seen.add(key)
                found.append(pytest.param(*wide, id=f"{name}-{i}"))
    return found


EXAMPLES = examples()


def outputs_of(op: Op, operands: Sequence[Tensor]) -> list[Tensor]:
    return [wrap(t) for t in node_over(op, operands).outputs if t.dtype.is_float]


def slope(
    loss: Tensor, at: Mapping[Tensor, Any], directions: Mapping[Tensor, Any], step: float = 1e-4
) -> tuple[float, float]:
    """The derivative of a scalar along directions, by a four-point rule, and the size of the values that went into
    it."""

    def value(h: float) -> float:
        return float(evaluate([loss], {x: a + h * directions[x] if x in directions else a for x, a in at.items()})[0])

    points = [value(k * step) for k in (-2, -1, 1, 2)]
    return (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * step), max(map(abs, points))


def check_directional(
    loss: Tensor, xs: Sequence[Tensor], at: Mapping[Tensor, Any], seed: int, tolerance: float = 1e-6
) -> None:
    """``<J v, u>`` by differences against ``<v, J^T u>`` by the gradient graph, along random directions."""
    rng = np.random.default_rng(seed)
    gradients = gc.gradients(loss, list(xs), unconnected="zero")
    found = evaluate(gradients, at)
    for x, g in zip(xs, found, strict=True):
        v = rng.standard_normal(at[x].shape)
        numeric, size = slope(loss, at, {x: v})
        ours = float((g * v).sum())
        scale = max(abs(numeric), float(np.abs(g * v).sum()), 1e-3)
        assert abs(ours - numeric) <= tolerance * scale + 1e-10 * size, (
            f"for {x.name}: {ours!r}, by differences {numeric!r}"
        )


def weighted(ys: Sequence[Tensor], weights: Sequence[Any]) -> Tensor:
    total = gc.constant(0.0, "float64")
    for y, w in zip(ys, weights, strict=True):
        total = total + (y * (gc.constant(w) if isinstance(w, np.ndarray) else w)).sum()
    return total


def test_every_differentiable_primitive_has_examples() -> None:
    named = {p.id.rsplit("-", 1)[0] for p in EXAMPLES}
    assert set(PRIMITIVES) - named == {
        "dim_value",
        "iota",
        "one_hot",
        "require_range",
        "stop_gradient",
    }  # nothing that could be differentiated goes in
    assert len(named) > 60


@pytest.mark.parametrize(("op", "arrays"), EXAMPLES)
def test_first_order(op: Op, arrays: list[Any]) -> None:
    rng = np.random.default_rng(1)
    fed = [ph(*a.shape, dtype=str(a.dtype), name=f"x{i}") for i, a in enumerate(arrays)]
    ys = outputs_of(op, fed)
    if not ys:
        assert op.name == "cast"  # to integers
        return
    loss = weighted(ys, [rng.standard_normal(tuple(y.shape)) for y in ys])
    xs = [x for x in fed if x.dtype.is_float]
    check_directional(loss, xs, dict(zip(fed, arrays, strict=True)), 2)


@pytest.mark.parametrize(("op", "arrays"), EXAMPLES)
def test_second_order(op: Op, arrays: list[Any]) -> None:
    rng = np.random.default_rng(3)
    fed = [ph(*a.shape, dtype=str(a.dtype), name=f"x{i}") for i, a in enumerate(arrays)]
    ys = outputs_of(op, fed)
    if not ys:
        assert op.name == "cast"
        return
    us = [ph(*y.shape, name=f"u{i}") for i, y in enumerate(ys)]
    xs = [x for x in fed if x.dtype.is_float]
    first = gc.gradients(weighted(ys, us), xs, unconnected="zero")
    loss = weighted(first, [rng.standard_normal(tuple(x.shape)) for x in xs])
    at = dict(zip(fed, arrays, strict=True)) | {u: rng.standard_normal(tuple(u.shape)) for u in us}
    check_directional(loss, [*xs, *us], at, 4, 1e-5)


def test_lgamma_has_derivatives_of_every_order() -> None:
    special = pytest.importorskip("scipy.special")
    x = ph(4)
    at = np.array([0.3, 1.0, 4.5, 60.0])
    y = gc.lgamma(x)
    for expected in (special.digamma(at), *(special.polygamma(n, at) for n in range(1, 5))):
        y = gc.gradients(y.sum(), x)[0]
        np.testing.assert_allclose(evaluate([y], {x: at})[0], expected, rtol=1e-13)


def test_polygamma_of_the_front_end() -> None:
    special = pytest.importorskip("scipy.special")
    at = np.array([0.3, 4.5])
    x = ph(2)
    for n in (0, 1, 4):
        np.testing.assert_allclose(evaluate([gc.polygamma(n, x)], {x: at})[0], special.polygamma(n, at), rtol=1e-13)
    assert gc.polygamma(1, [1, 2]).dtype.name == "float32"  # integers are taken as float32
    wrong: list[Any] = [-1, 1.0, True, "1"]
    for n in wrong:
        assert f"polygamma: n is {n!r}, but must be" in message_of(gc.UsageError, functools.partial(gc.polygamma, n, x))


# --- compositions, to the second order and without NaN ----------------------------------------------------------------

BLOCKS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "fourth power": (lambda x: x**4, [(3,)]),
    "cube root of a square": (lambda x: (x * x + 1) ** (1 / 3), [(3,)]),
    "softmax": (lambda x: F.softmax(x, axis=1), [(3, 4)]),
    "log softmax": (lambda x: F.log_softmax(x, axis=0), [(3, 4)]),
    "logsumexp": (lambda x: gc.logsumexp(x, axis=1), [(3, 4)]),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(3, 4), (4,), (4,)]),
    "variance": (lambda x: gc.var(x, axis=1) + gc.std(x, axis=0).sum(), [(3, 4)]),
    "convolution": (
        lambda x, w, b: gc.tanh(F.conv2d(x, w, b, stride=2, padding=1)),
        [(2, 2, 5, 4), (3, 2, 3, 3), (3,)],
    ),
    "pooling": (lambda x: F.max_pool2d(x * x, 2) + F.avg_pool2d(x * x * x, 2), [(1, 2, 4, 4)]),
    "attention": (lambda q, k, v: F.softmax(q @ k.T / 2.0, axis=-1) @ v, [(3, 4), (5, 4), (5, 2)]),
    "gelu": (lambda x: F.gelu(x) * F.gelu(x, "tanh") + F.silu(x), [(4,)]),
    "einsum": (lambda a, b: gc.einsum("ij,kj->ik", a, b) ** 2, [(2, 3), (4, 3)]),
    "indexing": (
        lambda x: x[1:, ::2] * x[:-1, ::-2][:, :2] + gc.take(x, gc.constant([0, 0, 2]), axis=0)[:2, :2] ** 2,
        [(3, 4)],
    ),
    "max and min": (lambda x: x.max(axis=1) * x.min(axis=0).sum(), [(3, 4)]),
    "product": (lambda x: gc.prod(x, axis=1), [(2, 3)]),
    "norms": (lambda x: gc.norm(x) * gc.norm(x, 1, axis=0).sum(), [(3, 4)]),
    "where": (lambda x: gc.where(x > 0, x**3, gc.exp(x)), [(5,)]),
    "cross entropy": (lambda x: F.cross_entropy(x, gc.constant([0, 2, 1])), [(3, 4)]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_first_and_second_derivatives_of(name: str) -> None:
    f, shapes = BLOCKS[name]
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(s) for s in shapes]
    assert gc.gradcheck(f, arrays)
    assert gc.gradgradcheck(f, arrays)


def test_third_and_fourth_derivatives() -> None:
    x = ph()
    y = x**4
    expected = [4 * 2.0**3, 12 * 2.0**2, 24 * 2.0, 24.0, 0.0]
    for value in expected:
        y = gc.gradients(y, x, unconnected="zero")[0]
        np.testing.assert_allclose(evaluate([y], {x: 2.0})[0], value, rtol=1e-12)


@pytest.mark.parametrize(
    ("f", "bad", "expected"),
    [
        (lambda x: gc.where(x > 0, gc.sqrt(x), 0.0), [-1.0, 0.0, 4.0], [0, 0, 0.25]),
        (lambda x: gc.where(x > 0, gc.log(x), x), [-1.0, 0.0, 2.0], [1, 1, 0.5]),
        (lambda x: gc.where(x != 0, 1 / x, 0.0), [0.0, 2.0, -4.0], [0, -0.25, -0.0625]),
        (lambda x: gc.where(gc.abs(x) < 1, gc.asin(x), x), [2.0, 0.0, -3.0], [1, 1, 1]),
        (lambda x: gc.where(x < 700, gc.exp(x), 1.0), [1000.0, 0.0, 720.0], [0, 1, 0]),
    ],
    ids=["sqrt", "log", "reciprocal", "asin", "exp"],
)
def test_where_leaks_no_nan_from_the_branch_not_taken(f: Any, bad: list[float], expected: list[float]) -> None:
    x = ph(3)
    g = gc.gradients(f(x).sum(), x)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(evaluate([g], {x: np.array(bad)})[0], expected)


@pytest.mark.parametrize(
    ("f", "bad", "expected"),
    [
        (lambda x: gc.maximum(gc.log(x), -100.0), [0.0, 2.0], [0, 0.5]),
        (lambda x: gc.minimum(1 / x, 4.0), [0.0, 0.5], [0, -4]),
        (lambda x: gc.clip(gc.log(x), -100.0), [0.0, 2.0], [0, 0.5]),
        (lambda x: gc.maximum(x * gc.log(x / 2), -1.0), [0.0, 2.0], [np.nan, 1]),  # NaN is larger than any number
        (lambda x: gc.maximum(3 * gc.log(x) * gc.exp(x), 0.0), [0.0, 1.0], [0, 1.5 * np.e]),  # and a tie at 1
        (lambda x: gc.relu(gc.log(x)), [0.0, 2.0], [0, 0.5]),
        (lambda x: F.relu6(gc.rsqrt(x) * -1.0), [0.0, 4.0], [0, 0]),
        (lambda x: gc.relu(gc.where(x > 0, gc.log(x), -1.0)), [0.0, 2.0], [0, 0.5]),
        (lambda x: gc.where(x > 0, gc.log(x), 0.0) + gc.where(x > 0.0, gc.sqrt(x), 1.0), [0.0, 1.0], [0, 1.5]),
        (lambda x: F.leaky_relu(gc.log(x)) * 0 + F.threshold(gc.log(x), -5.0, 0.0), [1.0, 2.0], [1, 0.5]),
        (lambda x: F.hardtanh(gc.log(x), -1.0, 1.0), [0.0, 2.0], [0, 0.5]),
        (lambda x: F.elu(-gc.sqrt(x), 0.0) + gc.maximum(-gc.log(x), 0.0) * 0, [1.0, 4.0], [0, 0]),
    ],
    ids=lambda p: None,
)
def test_what_is_cut_has_no_gradient(f: Any, bad: list[float], expected: list[float]) -> None:
    """Whatever the slope is before the cut: zero times infinity is zero there."""
    x = ph(2)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(evaluate(gc.gradients(f(x).sum(), x), {x: np.array(bad)})[0], expected)


def test_masks_enter_checkpoints() -> None:
    """Recomputation does not change what a selection keeps."""
    x = ph(3)
    at = {x: np.array([-1.0, 0.0, 4.0])}

    def two(t: Tensor) -> list[Tensor]:
        return [gc.log(t), gc.sqrt(t) * 2.0]

    for function in (two, gc.checkpoint(two)):
        first, second = function(x)
        y = gc.where(x > 0, first, 0.0) + gc.where(x > 1, second, x)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(evaluate(gc.gradients(y.sum(), x), at)[0], [1, 1, 0.75])


def test_a_light_mask_costs_nothing_where_slopes_are_finite() -> None:
    """Activations are everywhere: theirs is applied again only after ops whose slope may be infinite."""
    x, w = ph(3), ph(3)
    graph = toposort(gc.gradients(gc.relu(gc.tanh(x * w + 1.0) * w).sum(), [x, w]))
    assert sum(n.op.name == "where" for n in graph) == 1
    graph = toposort(gc.gradients(gc.relu(gc.log(x * w)).sum(), [x, w]))
    assert sum(n.op.name == "where" for n in graph) == 2


def test_nested_selections_and_what_they_cost() -> None:
    x = ph(4)
    at = {x: np.array([-1.0, 0.0, 4.0, 1e3])}
    y = gc.where(x > 0, gc.where(x < 700, gc.exp(x) * gc.sqrt(x), 2 * gc.log(x)), x * x * 3)
    with np.errstate(all="ignore"):
        got = evaluate([gc.gradients(y.sum(), x)[0]], at)[0]
    np.testing.assert_allclose(got, [-6, 0, np.exp(4.0) * 2.25, 2e-3], rtol=1e-12)
    shared = gc.sqrt(x)  # also used outside the selection: there its gradient is what it is
    with np.errstate(all="ignore"):
        got = evaluate([gc.gradients((gc.where(x > 0, shared, 0.0) + shared).sum(), x)[0]], at)[0]
    assert np.isnan(got[0]) and got[1] == np.inf and got[2] == 0.5
    for f in (
        lambda: gc.where(x > 0, x * 0.5, x * 2.0 - 1.0),
        lambda: gc.where(x > 0, -x, x),
    ):  # scaling keeps zero: nothing to do again
        first = f()
        assert sum(n.op.name == "where" for n in toposort([gc.gradients(first.sum(), x)[0]])) == 2


def test_what_a_selection_masks_stays_masked_whatever_comes_from_above() -> None:
    a, b, w = ph(2), ph(2), ph(2)
    y = (gc.where(a > 0, a, b) * w).sum()
    ga, gb = gc.gradients(y, [a, b])
    found = evaluate([ga, gb], {a: np.array([1.0, -1]), b: np.ones(2), w: np.array([np.inf, np.nan])})
    np.testing.assert_array_equal(found, [[np.inf, 0], [0, np.nan]])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: gc.norm(x),
        lambda x: gc.norm(x, axis=1).sum(),
        lambda x: gc.norm(x, 1),
        lambda x: gc.std(x),
        lambda x: gc.norm(x, float("inf")),
    ],
    ids=["2", "axis", "1", "std", "inf"],
)
def test_norms_have_finite_gradients_at_zero(f: Any) -> None:
    x = ph(2, 3)
    assert np.isfinite(evaluate([gc.gradients(f(x), x)[0]], {x: np.zeros((2, 3))})[0]).all()


def test_ties_are_shared_by_reductions_and_the_first_wins_in_pools() -> None:
    x = ph(2, 4)
    at = {x: np.array([[1.0, 3, 3, 2], [5, 5, 5, 5]])}
    np.testing.assert_array_equal(
        evaluate([gc.gradients(x.max(axis=1).sum(), x)[0]], at)[0], [[0, 0.5, 0.5, 0], [0.25] * 4]
    )
    np.testing.assert_array_equal(
        evaluate([gc.gradients(x.min(axis=1).sum(), x)[0]], at)[0], [[1, 0, 0, 0], [0.25] * 4]
    )
    image = ph(1, 1, 2, 2)
    g = gc.gradients(F.max_pool2d(image, 2).sum(), image)[0]
    np.testing.assert_array_equal(evaluate([g], {image: np.ones((1, 1, 2, 2))})[0], [[[[1, 0], [0, 0]]]])


@pytest.mark.parametrize(
    "f",
    [
        gc.relu,
        gc.abs,
        gc.sign,
        gc.floor,
        lambda x: gc.maximum(x, 0.0),
        lambda x: gc.clip(x, 0.0, 1.0),
        lambda x: x**2,
        lambda x: x**1,
        lambda x: x**0,
    ],
    ids=["relu", "abs", "sign", "floor", "maximum", "clip", "square", "first", "zeroth"],
)
def test_kinks_have_finite_gradients(f: Any) -> None:
    x = ph(3)
    g = evaluate([gc.gradients(f(x).sum(), x, unconnected="zero")[0]], {x: np.zeros(3)})[0]
    assert np.isfinite(g).all() and (g == g[0]).all() and 0 <= g[0] <= 1
