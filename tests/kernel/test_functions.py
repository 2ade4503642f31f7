"""The table of scalar functions: entries that fit the ops, forms that are right, and additions from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from support.devices import computed_ops
from support.rewrites import assert_same_bits
from support.sessions import DEVICES

import graphcore as gc
from graphcore.api.operands import build, promote
from graphcore.base import dtypes
from graphcore.ir.op import Example, primitive
from graphcore.kernel import expr, functions, interpret
from graphcore.kernel.expr import Expr, argument, call, const
from graphcore.kernel.functions import Function
from graphcore.kernel.index import REDUCE, Axis, as_index
from graphcore.ops._examples import floats
from graphcore.ops._scalar import Scalar
from graphcore.ops.elementwise import Unary


def test_ops_and_their_functions_take_the_same_operands() -> None:
    seen = 0
    for name, cls in computed_ops().items():
        # Relu is max with a constant, and polygamma's order is an operand of its function.
        if issubclass(cls, Scalar) and name not in ("relu", "polygamma"):
            for dtype in (t for t in dtypes.ALL if t.kind in cls.operands):
                entry, seen = functions.lookup(cls().function(dtype)), seen + 1
                assert entry.arity == cls.arity, name
                assert dtype.kind in entry.operands or not dtype.is_float, name
                assert entry.test == (cls.result is not None or dtype.is_bool), name
    assert seen > 300


@pytest.mark.parametrize(
    ("name", "x", "exact"),
    [("sqrt", 2.0, True), ("rsqrt", 2.0, True), ("mod", 2.0, True), ("max", 2.0, True), ("hypot", 2.0, True)]
    + [("exp", 2.0, False), ("pow", 2.0, False), ("sigmoid", 2.0, False), ("softplus", 2.0, False)]
    + [("pow", 2, True), ("mod", 2, True), ("sign", 2, True)],
)
def test_what_is_exact(name: str, x: float, exact: bool) -> None:
    dtype = dtypes.int32 if isinstance(x, int) else dtypes.float32
    value = call(name, *(argument(i, dtype) for i in range(functions.lookup(name).arity)))
    assert functions.is_exact(value) == exact


@pytest.mark.parametrize("combine", ["add", "mul", "max", "argmin"])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int32], ids=str)
def test_sums_of_floats_are_not_exact(combine: str, dtype: dtypes.DType) -> None:
    row = Axis("r", 8, REDUCE)
    total = expr.reduce(combine, (row,), expr.load(0, as_index(row), dtype))
    assert functions.is_exact(expr.call("neg", total)) == (dtype.is_integer or combine in ("max", "argmin"))


def test_a_body_costs_what_it_is_made_of() -> None:
    assert functions.cost("exp") > functions.cost("div") > functions.cost("add") == 1
    assert functions.cost("rsqrt") == functions.cost("sqrt") + functions.cost("div")
    x = argument(0, dtypes.float32)
    assert functions.work(call("exp", x)) == functions.cost("exp")
    assert functions.work(const(1, dtypes.float32)) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_rounds_once(dtype: Any) -> None:
    eps = np.finfo(dtype).eps
    one, tiny = dtype(1), np.finfo(dtype).tiny
    cases = [
        (one + eps, one + eps, -(one + 2 * eps), eps * eps),  # what the rounded product loses
        (one + eps, one - eps, -one, -eps * eps),
        (one, one, eps / 2, one),  # a tie, to even
        (one + eps, one, eps / 2, one + 2 * eps),
        (tiny, dtype(0.5), tiny * eps, tiny / 2 + tiny * eps),  # denormal
        (tiny, dtype(0.5), -tiny / 2, dtype(0.0)),
        (dtype(-0.0), one, dtype(-0.0), dtype(-0.0)),
        (dtype(np.inf), one, dtype(-np.inf), dtype(np.nan)),
        (np.finfo(dtype).max, dtype(2), -np.finfo(dtype).max, np.finfo(dtype).max),
        (np.finfo(dtype).max, dtype(2), dtype(0), dtype(np.inf)),
    ]
    a, b, c, want = (np.array(column, dtype) for column in zip(*cases, strict=True))
    with np.errstate(all="ignore"):
        assert_same_bits([interpret.apply("fma", a, b, c)], [want])


BODIES: dict[str, Callable[..., Any]] = {
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "excess": lambda x, y: np.where(x == y, 0, x - y),
    "weigh": lambda x, y: np.where((x == 0) & np.isinf(y), 0, x * y),
    "softplus": lambda x: np.logaddexp(x, 0),
    "silu": lambda x: np.where(x == -np.inf, 0, x / (1 + np.exp(-x))),
    "gelu": lambda x: np.where(x == -np.inf, 0, x * (0.5 + 0.5 * np.vectorize(math.erf)(x / math.sqrt(2)))),
    "mish": lambda x: np.where(x == -np.inf, 0, x * np.tanh(np.logaddexp(x, 0))),
    "log_add_exp": np.logaddexp,
    "hypot": np.hypot,
    "gaussian": lambda x: np.exp(-(x * x)),
    "one_minus_square": lambda x: 1 - x * x,
}


def test_bodies_compute_their_formulas() -> None:
    assert {n for n, f in functions.registered().items() if f.body and not n.startswith("probe")} == {*BODIES}
    x = np.array([-800.0, -30, -2.5, -1, -0.75, -1e-3, -0.0, 0.0, 1e-3, 0.5, 1, 2.5, 30, 800, np.inf, -np.inf, np.nan])
    a, b = np.meshgrid(x, x)
    with np.errstate(all="ignore"):
        for name, formula in BODIES.items():
            operands = (x,) if functions.lookup(name).arity == 1 else (a, b)
            want = formula(*operands)
            if name == "hypot":
                want = np.where(np.isnan(a) | np.isnan(b), np.nan, want)
            np.testing.assert_allclose(interpret.apply(name, *operands), want, rtol=1e-12, atol=1e-15, err_msg=name)


# --- additions from outside -------------------------------------------------------------------------------------------


def _probe_swish(x: Expr) -> Expr:
    """x / (1 + e^-x)"""
    return call("mul", x, call("sigmoid", x))


def _probe_ease(x: Expr, y: Expr) -> Expr:
    """x^2 (3 - 2 x) + y, where y is added by a fused step, and NaN below 0"""
    smooth = call("mul", call("mul", x, x), call("sub", const(3, x.dtype), call("add", x, x)))
    negative = call("lt", x, const(0, x.dtype))
    return expr.select(negative, const(math.nan, x.dtype), call("fma", smooth, const(1, x.dtype), y))


functions.register(Function("probe_swish", body=_probe_swish))
functions.register(Function("probe_ease", 2, body=_probe_ease))


@primitive
class ProbeSwish(Unary):
    """x / (1 + e^-x), elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        s = b.sigmoid(x)
        return b.mul(g, b.add(s, b.mul(out, b.sub(1, s))))


@primitive
class ProbeEase(Scalar):
    """x^2 (3 - 2 x) + y, elementwise; NaN below 0."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = "f"

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        b, g, x = call.b, gradients[0], call.inputs[0]
        return b.mul(g, b.mul(b.mul(x, 6), b.sub(1, x))), g

    def examples(self) -> Iterator[Example]:
        yield self, np.abs(floats(3, 5)), floats(3, 5, seed=1)


def probe_swish(x: Any) -> gc.Tensor:
    """What a user's package would offer beside the ops."""
    return build("probe_swish", *promote("probe_swish", x, floating=True))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_function_from_outside_runs_everywhere(device: str, dtype: str) -> None:
    """Function, op and a name for users: values and gradients, fused with others, in vectors and their tails."""
    x, y = gc.placeholder(dtype, (5, 7)), gc.placeholder(dtype, (5, 7))
    out = probe_swish(x) * build("probe_ease", x, y) + gc.sin(y)
    gx, gy = gc.gradients(out.sum(), [x, y])
    rng = np.random.default_rng(0)
    a, c = (rng.uniform(0.1, 2, (5, 7)).astype(x.dtype.storage) for _ in range(2))
    with gc.Session(device) as session:
        got = session.run([out, gx, gy], {x: a, y: c})
    a, c = a.astype(np.float64), c.astype(np.float64)
    s = 1 / (1 + np.exp(-a))
    swish, ease = a * s, a * a * (3 - 2 * a) + c
    want = (swish * ease + np.sin(c), (s + swish * (1 - s)) * ease + swish * 6 * a * (1 - a), swish + np.cos(c))
    tolerance = {"float32": 2e-6, "float64": 1e-14, "bfloat16": 0.05}[dtype]
    for found, right in zip(got, want, strict=True):
        np.testing.assert_allclose(found.astype(np.float64), right, rtol=tolerance, atol=8 * tolerance)


def test_an_exact_body_from_outside_is_folded_to_the_devices_bits() -> None:
    values = np.array([0.0, -0.0, 0.3, 0.1, 1.0, 7.7, -1.0, np.inf, np.nan], np.float32)
    y = np.array([0.1, -0.0, 1e-9, 3.0, -1.0, 1e30, 1.0, 1.0, 1.0], np.float32)
    known = build("probe_ease", gc.constant(values), gc.constant(y))
    fed = [gc.placeholder("float32", (9,)) for _ in range(2)]
    for device in DEVICES:
        with gc.Session(device) as session:
            folded, computed = session.run([known, build("probe_ease", *fed)], dict(zip(fed, (values, y), strict=True)))
        assert_same_bits([folded], [computed])


def _probe_test(x: Expr) -> Expr:
    return call("isnan", x)


def _probe_itself(x: Expr) -> Expr:
    return call("probe_self", x)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (lambda: Function("probe_none"), "give either its NumPy form or its body"),
        (lambda: Function("probe_both", numpy=np.exp, body=_probe_swish), "give either its NumPy form or its body"),
        (lambda: functions.register(Function("exp", numpy=np.exp)), "'exp' cannot name a scalar function"),
        (lambda: functions.register(Function("select", numpy=np.exp)), "'select' cannot name a scalar function"),
        (lambda: functions.register(Function("Probe x", numpy=np.exp)), "no lower-case identifier"),
        (lambda: functions.register(Function("probe_odd", body=lambda x: call("isnan", x))), "gives bool, not float32"),
        (
            lambda: functions.register(Function("probe_self", body=lambda x: call("probe_self", x))),
            "no scalar function",
        ),
        (lambda: functions.lookup("nothing"), "no scalar function"),
        (lambda: call("nothing", const(1, dtypes.int32)), "no scalar function"),
        (lambda: call("exp", const(1, dtypes.int32)), "exp takes 1 operands of kinds f"),
        (lambda: call("add", const(1, dtypes.int32)), "add takes 2 operands"),
    ],
)
def test_mistakes_are_named(entry: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        entry()
