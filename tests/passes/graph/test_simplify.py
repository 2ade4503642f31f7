"""Every rule of simplify: what it makes of a graph, and that no bit of the values changes."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rewrites import assert_same_bits, check_rewrite, evaluate, expression, run_passes, special_operands
from support.simplify_cases import ELEMENTWISE, SHAPED, Elementwise, Shaped, constant_of

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import placeholder
from graphcore.base.dtypes import ALL, as_dtype
from graphcore.base.shapes import is_static
from graphcore.ir.graph import Graph
from passes.graph.base import CONTRACTS, PassContext
from passes.graph.simplify import EXACT, INEXACT, Simplify
from passes.graph.simplify.logic import holds_all_of

NAMES = ("x", "y", "z", "w")
ALL_CONTRACTS = Simplify(contracts=frozenset(CONTRACTS))


def _simplified(t: Tensor, step: Simplify | None = None) -> tuple[Tensor, PassContext]:
    ctx = PassContext()
    return run_passes(Graph((t,)), [step or Simplify()], ctx).outputs[0], ctx


def test_every_exact_rule_has_a_case() -> None:
    assert {r.name for r in EXACT} == {case.rule for case in (*ELEMENTWISE, *SHAPED)}
    assert len({r.name for r in (*EXACT, *INEXACT)}) == len(EXACT) + len(INEXACT)
    assert {r.contract for r in EXACT} == {"exact"}
    assert all(r.contract in CONTRACTS[1:] for r in INEXACT)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_elementwise_rule(case: Elementwise) -> None:
    for dtype in map(as_dtype, case.types):
        arrays = special_operands(case.operands, dtype)
        operands = [placeholder(dtype, arrays[0].shape, name=n) for n, _ in zip(NAMES, arrays, strict=False)]
        before = case.build(Builder(), *operands)
        after, ctx = _simplified(before)
        assert case.rule in ctx.hits, dtype
        if dtype.name == case.types[0]:
            assert expression(after) == case.after
        feeds = dict(zip(operands, arrays, strict=True))
        assert_same_bits(evaluate(Graph((after,)), feeds), evaluate(Graph((before,)), feeds))


@pytest.mark.parametrize("case", SHAPED, ids=str)
def test_shaped_rule(case: Shaped) -> None:
    x = placeholder(case.dtype, case.shape, name="x")
    before = case.build(Builder(), x)
    after, ctx = _simplified(before)
    assert case.rule in ctx.hits
    assert expression(after) == case.after
    if is_static(x.shape) and is_static(before.shape):
        values = special_operands(1, x.dtype)[0]
        for shift in range(len(values)):
            feeds = {x: np.resize(np.roll(values, shift), x.shape)}
            assert_same_bits(evaluate(Graph((after,)), feeds), evaluate(Graph((before,)), feeds))


def _cases_left_alone(b: Builder) -> dict[str, Tensor]:
    x, y = placeholder("float32", (2, 3), name="x"), placeholder("float32", (2, 3), name="y")
    i, u = placeholder("int32", (2, 3), name="i"), placeholder("uint8", (2, 3), name="u")
    return {
        "x + 0 is 0 for -0": b.add(x, 0.0),
        "x - -0 is 0 for -0": b.sub(x, -0.0),
        "0 - x is 0 for 0": b.sub(0.0, x),
        "x * 0 is NaN for infinity": b.mul(x, 0),
        "x - x is NaN for infinity": b.sub(x, x),
        "x / x is NaN for 0": b.div(x, x),
        "a reciprocal rounds": b.div(x, 3.0),
        "2 ** -127 is denormal": b.div(x, 2.0**127),
        "x == x is false for NaN": b.equal(x, x),
        "not x < y holds for NaN": b.logical_not(b.less(x, y)),
        "the sum of 1 element": b.sum(b.reshape(x, shape=(6, 1)), axes=(1,)),
        "sums round": b.sum(b.sum(x, axes=(0,)), axes=(0,)),
        "powers round": b.pow(x, 2.0),
        "a narrowing cast": b.cast(b.cast(x, dtype=as_dtype("float16")), dtype=x.dtype),
        "floats saturate": b.cast(b.cast(u, dtype=as_dtype("float32")), dtype=as_dtype("int8")),
        "a float32 does not hold an int32": b.cast(b.cast(i, dtype=as_dtype("float32")), dtype=i.dtype),
        "an int32 would round twice": b.cast(b.cast(i, dtype=as_dtype("float64")), dtype=as_dtype("bfloat16")),
        "a constant with equal ends": b.mul(x, b.broadcast(constant_of([1, 2, 1]), shape=(2, 3))),
        "a permutation that moves": b.permute(x, axes=(1, 0)),
        "a broadcast with other axes": b.add(b.broadcast(b.max(x, axes=(0,)), shape=(2, 3)), y),
        "max tells the zeros by order": b.sub(b.maximum(x, y), b.maximum(y, x)),
        "a range is no constant": b.iota(shape=(3,), axis=0, dtype=as_dtype("int32")),
    }


@pytest.mark.parametrize("name", _cases_left_alone(Builder()))
def test_left_alone(name: str) -> None:
    graph = Graph((_cases_left_alone(Builder())[name],))
    assert run_passes(graph, [Simplify()]) is graph


def test_printed_graph() -> None:
    b = Builder()
    x = placeholder("float32", (4, 3), name="x")
    bias = placeholder("float32", (3,), name="bias")
    scaled = b.mul(b.add(x, b.broadcast(b.mul(bias, 1), shape=(4, 3))), b.div(1.0, b.full((4, 3), 2.0, x.dtype)))
    check_rewrite(
        b.sub(scaled, b.neg(b.stop_gradient(b.mul(b.add(b.broadcast(bias, shape=(4, 3)), x), 0.5)))),
        [Simplify()],
        """
        %0 = placeholder(shape=(4, 3), dtype=float32, label=x) : float32(4, 3)
        %1 = placeholder(shape=(3), dtype=float32, label=bias) : float32(3,)
        %2 = broadcast(%1, shape=(4, 3)) : float32(4, 3)
        %3 = add(%0, %2) : float32(4, 3)
        %4 = constant(0.5) : float32()
        %5 = broadcast(%4, shape=(4, 3)) : float32(4, 3)
        %6 = mul(%3, %5) : float32(4, 3)
        %7 = add(%6, %6) : float32(4, 3)
        return %7
        """,
    )


def test_mean_over_a_fixed_batch_divides_by_a_constant() -> None:
    b = Builder()
    x = placeholder("float32", (8, 2), name="x")
    count = b.mul(b.dim_value(extent=8, dtype=x.dtype), b.dim_value(extent=2, dtype=x.dtype))
    check_rewrite(
        b.div(b.sum(x, axes=(0, 1)), count),
        [Simplify()],
        """
        %0 = placeholder(shape=(8, 2), dtype=float32, label=x) : float32(8, 2)
        %1 = sum(%0, axes=(0, 1)) : float32()
        %2 = constant(0.0625) : float32()
        %3 = mul(%1, %2) : float32()
        return %3
        """,
    )


def test_large_constants_are_not_copied_by_views_or_broadcasts() -> None:
    b = Builder()
    x = placeholder("float32", (100, 100), name="x")
    big = constant_of(np.arange(10000).reshape(100, 100))
    row = constant_of(np.arange(100))
    t, _ = _simplified(b.add(b.permute(big, axes=(1, 0)), b.add(x, b.broadcast(row, shape=(100, 100)))))
    assert (
        expression(t)
        == "add(permute(constant(<100x100>), axes=(1, 0)), add(x, broadcast(constant(<100>), shape=(100, 100))))"
    )
    t, _ = _simplified(b.add(x, b.neg(b.sqrt(big))))
    assert expression(t) == "add(x, constant(<100x100>))"


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("exp", {}), ("sin", {}), ("sigmoid", {}), ("erf", {}), ("pow", {}), ("atan2", {})]
    + [("sum", {"axes": (0,)}), ("prod", {"axes": (0,)}), ("matmul", {})],
)
def test_what_devices_may_compute_to_other_bits_is_not_folded(name: str, attributes: dict[str, Any]) -> None:
    b = Builder()
    operands = [constant_of([[1.5, 0.25], [3.0, 7.0]])] * (2 if name in ("pow", "atan2", "matmul") else 1)
    t, ctx = _simplified(getattr(b, name)(*operands, **attributes))
    assert expression(t).startswith(name) and "fold_constants" not in ctx.hits


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (lambda b: b.sign(constant_of([-0.0, -2.5, np.nan])), [0.0, -1.0, np.nan]),
        (lambda b: b.floor_divide(constant_of([-5.0, 5.0, -5.5]), constant_of([np.inf, np.inf, 2.0])), [-1, 0, -3]),
        (lambda b: b.remainder(constant_of([-5.0, 5.0, 6.0]), constant_of([np.inf, np.inf, -3.0])), [np.inf, 5, -0.0]),
        (lambda b: b.maximum(constant_of([0.0, -0.0, -0.0]), constant_of([-0.0, 0.0, -0.0])), [0.0, 0.0, -0.0]),
        (lambda b: b.minimum(constant_of([0.0, -0.0, 0.0]), constant_of([-0.0, 0.0, 0.0])), [-0.0, -0.0, 0.0]),
        (lambda b: b.max(constant_of([[-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]]), axes=(1,)), [0.0, 0.0, -0.0]),
        (lambda b: b.min(constant_of([[-0.0, 0.0], [0.0, -0.0], [0.0, 0.0]]), axes=(1,)), [-0.0, -0.0, 0.0]),
        (lambda b: b.round(constant_of([0.5, 1.5, -2.5])), [0.0, 2.0, -2.0]),
        (lambda b: b.rsqrt(constant_of([0.0, -0.0, 0.25])), [np.inf, -np.inf, 2.0]),
        (lambda b: b.pow(constant_of([2, -1, 0, 3], "int32"), constant_of([-1, -3, -1, 4], "int32")), [0, -1, 0, 81]),
        (lambda b: b.sum(constant_of([[1, 2], [3, 4]], "int32"), axes=(1,)), [3, 7]),
        (lambda b: b.take(constant_of([1.0, 2.0, 3.0]), constant_of([2, 0], "int32"), axis=0), [3.0, 1.0]),
    ],
)
def test_what_is_exact_is_folded(build: Any, value: list[Any]) -> None:
    t, _ = _simplified(build(Builder()))
    assert t.node.op.name == "constant"
    assert_same_bits([t.node.op.array], [np.array(value, t.dtype.storage)])  # type: ignore[attr-defined]


@pytest.mark.parametrize("middle", ALL, ids=str)
def test_merged_casts_keep_every_bit(middle: Any) -> None:
    for source in ALL:
        if source.name not in ("uint16", "uint64", "int16"):
            array = special_operands(1, source)[0]
            for target in ALL:
                x = placeholder(source, array.shape, name="x")
                b = Builder()
                graph = Graph((b.cast(b.cast(x, dtype=middle), dtype=target),))
                after = run_passes(graph, [Simplify()])
                assert_same_bits(evaluate(after, {x: array}), evaluate(graph, {x: array}))
                if not holds_all_of(middle, source) and middle.name != target.name:
                    assert len(after.nodes()) == 3


INEXACT_CASES: dict[str, tuple[Any, str]] = {
    "add_positive_zero": (lambda b, x, y: b.add(x, 0.0), "x"),
    "sum_of_single_elements": (lambda b, x, y: b.sum(b.reshape(x, shape=(2, 1, 3)), axes=(1,)), "x"),
    "subtract_itself": (lambda b, x, y: b.sub(x, x), "0.0"),
    "divide_by_itself": (lambda b, x, y: b.div(x, x), "1.0"),
    "multiply_by_zero": (lambda b, x, y: b.mul(x, -0.0), "0.0"),
    "log_of_exp": (lambda b, x, y: b.log(b.exp(x)), "x"),
    "root_of_square": (lambda b, x, y: b.sqrt(b.mul(x, x)), "abs(x)"),
    "product_of_exponentials": (lambda b, x, y: b.mul(b.exp(x), b.exp(y)), "exp(add(x, y))"),
    "float_power": (lambda b, x, y: b.pow(x, -1.0), "reciprocal(x)"),
    "add_n_of_sums": (lambda b, x, y: b.add_n(b.add(x, y), b.add_n(x, y, x), y), "add_n(x, y, x, y, x, y)"),
    "factors_combine": (lambda b, x, y: b.mul(b.mul(x, 3.0), 0.5), "mul(x, 1.5)"),
    "float_reduce_of_reduce": (lambda b, x, y: b.sum(b.sum(x, axes=(0,)), axes=(0,)), "sum(x, axes=(0, 1))"),
    "sum_over_broadcast": (
        lambda b, x, y: b.sum(b.broadcast(x, shape=(5, 2, 3)), axes=(0, 1)),
        "mul(sum(x, axes=(0)), 5.0)",
    ),
}


def test_every_inexact_rule_has_a_case() -> None:
    assert {r.name for r in INEXACT} == set(INEXACT_CASES)


@pytest.mark.parametrize("name", INEXACT_CASES)
def test_inexact_rule_is_off_unless_allowed(name: str) -> None:
    build, after = INEXACT_CASES[name]
    x, y = placeholder("float32", (2, 3), name="x"), placeholder("float32", (2, 3), name="y")
    before = build(Builder(), x, y)
    kept, ctx = _simplified(before)
    assert name not in ctx.hits
    changed, ctx = _simplified(before, ALL_CONTRACTS)
    assert name in ctx.hits
    assert expression(changed) == after
    feeds = {x: np.linspace(0.5, 2, 6).reshape(2, 3), y: np.linspace(-1, 1, 6).reshape(2, 3)}
    got, want = evaluate(Graph((changed,)), feeds)[0], evaluate(Graph((kept,)), feeds)[0]
    np.testing.assert_allclose(got, want, rtol=1e-6)


# --- random graphs ----------------------------------------------------------------------------------------------------

_UNARY = ("neg", "abs", "relu", "floor", "ceil", "stop_gradient")
_BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
_CONSTANTS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0)
_BROADCASTS = {(): (3,), (3,): (2, 3), (1,): (3,), (2, 1): (2, 3), (1, 3): (2, 3)}


def _made(b: Builder, name: str, *operands: Any, **attributes: Any) -> Tensor:
    result: Tensor = getattr(b, name)(*operands, **attributes)
    return result


def _grow(draw: Any, b: Builder, values: list[Tensor]) -> Tensor:
    """One more value over those there are."""
    x = draw(st.sampled_from(values))
    kind = draw(
        st.sampled_from(("unary", "binary", "binary", "constant", "broadcast", "view", "reduce", "where", "add_n"))
    )
    if kind == "unary":
        return _made(b, draw(st.sampled_from(_UNARY)), x)
    if kind == "constant":
        number, first = draw(st.sampled_from(_CONSTANTS)), draw(st.booleans())
        return _made(b, draw(st.sampled_from(_BINARY)), *((number, x) if first else (x, number)))
    if kind == "broadcast" and x.shape in _BROADCASTS:
        return b.broadcast(x, shape=_BROADCASTS[x.shape])
    if kind == "view" and x.ndim:
        choice = draw(st.sampled_from(("permute", "reshape", "flip", "slice")))
        if choice == "permute":
            return b.permute(x, axes=tuple(draw(st.permutations(range(x.ndim)))))
        if choice == "reshape":
            return b.reshape(x, shape=draw(st.sampled_from(((x.size,), (1, x.size), (x.size, 1)))))
        if choice == "flip":
            return b.flip(x, axes=tuple(a for a in range(x.ndim) if draw(st.booleans())))
        return b.slice(x, starts=(0,) * x.ndim, lengths=tuple(max(1, e - 1) for e in x.shape), steps=(1,) * x.ndim)
    if kind == "reduce" and x.ndim:
        return _made(b, draw(st.sampled_from(("sum", "max", "prod"))), x, axes=(draw(st.integers(0, x.ndim - 1)),))
    same = [v for v in values if v.shape == x.shape]
    y, z = draw(st.sampled_from(same)), draw(st.sampled_from(same))
    if kind == "where":
        return b.where(b.logical_not(b.less(x, y)), z, y)
    return b.add_n(x, y, z) if kind == "add_n" else _made(b, draw(st.sampled_from(_BINARY)), x, y)


@st.composite
def _programs(draw: Any) -> tuple[Graph, dict[Tensor, Any]]:
    b = Builder()
    leaves = [placeholder("float32", shape, name=f"p{i}") for i, shape in enumerate(((), (3,), (2, 3), (2, 1)))]
    values = list(leaves)
    for _ in range(draw(st.integers(1, 14))):
        values.append(_grow(draw, b, values))
    numbers = st.sampled_from(special_operands(1, leaves[0].dtype)[0].tolist())
    feeds = {t: np.array([draw(numbers) for _ in range(int(t.size))], np.float32).reshape(t.shape) for t in leaves}
    return Graph((values[-1], values[draw(st.integers(0, len(values) - 1))])), feeds


@settings(max_examples=300, deadline=None)
@given(_programs())
def test_random_graphs_keep_every_bit(program: tuple[Graph, dict[Tensor, Any]]) -> None:
    graph, feeds = program
    after = run_passes(graph, [Simplify()])
    assert_same_bits(evaluate(after, feeds), evaluate(graph, feeds))
    assert run_passes(after, [Simplify()]) is after, textwrap.indent(str(graph), "  ")
