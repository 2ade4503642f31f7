"""Every registered op by its own examples: types against the NumPy reference, float64 against the stored type."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from support.devices import FAMILIES

from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, GraphcoreError, GraphError, ShapeError, UsageError
from graphcore.base.shapes import Dim
from graphcore.ir.op import Kind, Lowering, Map, Op, TensorType, View, lookup, registered
from graphcore.kernel import expr
from graphcore.kernel.index import Axis, Index, as_index, flatten, unflatten
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.ops.random import RandomBits, philox

# Tests may register ops of their own.
OPS: dict[str, Any] = {name: cls for name, cls in registered().items() if cls.__module__ in FAMILIES}
COMPUTED = {name: cls for name, cls in OPS.items() if cls.kind not in (Kind.LEAF, Kind.REGION)}
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-6}


def examples_of(cls: type[Op]) -> list[tuple[Any, ...]]:
    """An op's examples; they are yielded by an instance but depend on no attribute."""
    return list(cls.examples(object.__new__(cls)))


def typed(array: Any) -> TensorType:
    return TensorType(np.shape(array), dtypes.as_dtype(np.asarray(array).dtype))


def results(op: Op, arrays: Any) -> tuple[Any, ...]:
    with np.errstate(all="ignore"):
        found = op.reference(*arrays)
    return found if isinstance(found, tuple) else (found,)


EXAMPLES = [
    pytest.param(example, id=f"{name}-{i}")
    for name, cls in COMPUTED.items()
    for i, example in enumerate(examples_of(cls))
]


def test_the_registry_holds_every_family() -> None:
    assert {cls.__module__ for cls in OPS.values()} == FAMILIES


@pytest.mark.parametrize("name", OPS)
def test_class_is_complete(name: str) -> None:
    cls = OPS[name]
    assert cls.name == name
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "no docstring but the one of dataclass"
    assert cls.__dataclass_params__.frozen
    assert cls.infer is not Op.infer
    assert len({f.name for f in dataclasses.fields(cls)} & {"name", "kind", "arity"}) == 0


@pytest.mark.parametrize("name", COMPUTED)
def test_class_says_how_to_compute(name: str) -> None:
    cls = COMPUTED[name]
    assert examples_of(cls)
    assert cls.reference is not Op.reference
    assert cls.lower is not Op.lower
    if issubclass(cls, Map):
        assert cls.scalar is not Map.scalar
    if issubclass(cls, View):
        assert cls.source_index is not View.source_index
    if cls.differentiable and cls.arity != 0:
        assert cls.vjp is not Op.vjp, "differentiable, but without a gradient rule"


@pytest.mark.parametrize("example", EXAMPLES)
def test_inferred_types_are_those_of_the_reference(example: tuple[Any, ...]) -> None:
    op, *arrays = example
    assert op.arity is None or op.arity == len(arrays)
    inferred = op.infer(*map(typed, arrays))
    found = results(op, arrays)
    assert [str(t) for t in inferred] == [str(typed(r)) for r in found]


@pytest.mark.parametrize("example", EXAMPLES)
def test_reference_agrees_with_float64(example: tuple[Any, ...]) -> None:
    op, *arrays = example
    kinds = [typed(a).dtype for a in arrays]
    wide = [a.astype(np.float64) if t.is_float else a for a, t in zip(arrays, kinds, strict=True)]
    coarsest = max((TOLERANCE.get(t.name, 1e-12) for t in kinds if t.is_float), default=0.0)
    for narrow, exact in zip(results(op, arrays), results(op, wide), strict=True):
        dtype = typed(narrow).dtype
        if not dtype.is_float:
            assert np.array_equal(narrow, exact)
            continue
        tolerance = max(coarsest, TOLERANCE.get(dtype.name, 0.0))
        with np.errstate(over="ignore"):
            rounded = np.asarray(exact).astype(dtype.storage)  # overflow to infinity is right
        np.testing.assert_allclose(narrow.astype(np.float64), rounded.astype(np.float64), tolerance, tolerance)


@pytest.mark.parametrize("example", EXAMPLES)
def test_equal_attributes_are_equal_ops(example: tuple[Any, ...]) -> None:
    op = example[0]
    again = type(op)(**{f.name: getattr(op, f.name) for f in dataclasses.fields(op)})
    assert again == op and hash(again) == hash(op)


def test_examples_cover_the_edges() -> None:
    """Every elementwise op is tried on rank 0 or empty operands; what training needs most also in half types."""
    for name, cls in COMPUTED.items():
        shapes = [np.shape(a) for _, *arrays in examples_of(cls) for a in arrays]
        if issubclass(cls, Map):
            assert any(len(s) == 0 or 0 in s for s in shapes), name
    for name in ("add", "mul", "exp", "relu", "tanh", "cast", "matmul"):
        used = {typed(a).dtype.name for _, *arrays in examples_of(OPS[name]) for a in arrays}
        assert {"float16", "bfloat16"} <= used, name


# -- what ops refuse


def t(dtype: str, *shape: Any) -> TensorType:
    return TensorType(shape, dtypes.as_dtype(dtype))


POOL = {"window": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
CONV = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
FLOAT4 = t("float32", 1, 3, 5, 5)

Wrong = tuple[str, dict[str, Any], tuple[TensorType, ...], type[GraphcoreError], tuple[str, ...]]
WRONG: list[Wrong] = [
    ("add", {}, (t("float32", 2), t("float32", 3)), ShapeError, ("(2,)", "(3,)")),
    ("add", {}, (t("float32", 2), t("int32", 2)), DTypeError, ("float32", "int32", "astype")),
    ("add", {}, (t("bool", 2), t("bool", 2)), DTypeError, ("bool", "numeric")),
    ("div", {}, (t("int32", 2), t("int32", 2)), DTypeError, ("int32", "floating-point", "astype")),
    ("exp", {}, (t("int64", 2),), DTypeError, ("int64", "floating-point")),
    ("add_n", {}, (), GraphError, ("at least one",)),
    ("add_n", {}, (t("float32", 2), t("float32", 2), t("float32", 1)), ShapeError, ("(2,)", "(1,)")),
    ("less", {}, (t("bool", 2), t("bool", 2)), DTypeError, ("bool",)),
    ("equal", {}, (t("int32", 2), t("int64", 2)), DTypeError, ("int32", "int64")),
    ("logical_and", {}, (t("int32", 2), t("int32", 2)), DTypeError, ("int32", "bool")),
    ("bitwise_xor", {}, (t("float32", 2), t("float32", 2)), DTypeError, ("float32", "integer or bool")),
    ("bitwise_left_shift", {}, (t("bool", 2), t("bool", 2)), DTypeError, ("bool", "integer")),
    ("isnan", {}, (t("bool", 2),), DTypeError, ("bool",)),
    ("where", {}, (t("int32", 2), t("float32", 2), t("float32", 2)), DTypeError, ("int32", "bool")),
    ("where", {}, (t("bool", 2), t("float32", 2), t("float64", 2)), DTypeError, ("float32", "float64")),
    ("where", {}, (t("bool", 3), t("float32", 2), t("float32", 2)), ShapeError, ("(3,)", "(2,)")),
    ("take", {"axis": 0}, (t("float32", 2), t("float32", 2)), DTypeError, ("float32", "integer")),
    ("take", {"axis": 1}, (t("float32", 2), t("int32", 2)), ShapeError, ("axis 1", "(2,)")),
    ("one_hot", {"depth": 2, "dtype": dtypes.float32}, (t("bool", 2),), DTypeError, ("bool", "integer")),
    ("take_along", {"axis": 1}, (t("float32", 2, 3), t("int32", 3, 3)), ShapeError, ("(2, 3)", "(3, 3)", "axis 1")),
    ("take_along", {"axis": 0}, (t("float32", 2, 3), t("int32", 2)), ShapeError, ("(2, 3)", "(2,)")),
    ("scatter_add", {"rows": 4}, (t("int32", 2), t("float32", 3, 1)), ShapeError, ("(2,)", "(3, 1)")),
    ("scatter_add", {"rows": 4}, (t("int32", 2), t("bool", 2)), DTypeError, ("bool", "numeric")),
    ("scatter_along", {"axis": 0, "extent": 4}, (t("int32", 2), t("float32", 3)), ShapeError, ("(2,)", "(3,)")),
    ("scatter_along", {"axis": 2, "extent": 4}, (t("int32", 2), t("float32", 2)), ShapeError, ("axis 2", "(2,)")),
    ("random_bits", {"stream": 0, "shape": (2,)}, (t("int32", 2), t("uint32")), DTypeError, ("int32", "uint32")),
    ("random_bits", {"stream": 0, "shape": (2,)}, (t("uint32", 3), t("uint32")), ShapeError, ("(3,)", "(2,)")),
    ("matmul", {}, (t("float32", 2, 3), t("float32", 2, 3)), ShapeError, ("(2, 3)", ".T")),
    ("matmul", {}, (t("float32", 2, 3), t("float64", 3, 2)), DTypeError, ("float32", "float64")),
    ("conv2d", CONV, (FLOAT4, t("float32", 4, 2, 3, 3)), ShapeError, ("(1, 3, 5, 5)", "(4, 2, 3, 3)")),
    ("conv2d", CONV, (FLOAT4, t("float64", 4, 3, 3, 3)), DTypeError, ("float32", "float64")),
    ("conv2d", CONV, (FLOAT4, t("float32", 4, 3, 7, 3)), ShapeError, ("(7, 3)", "(5, 5)", "does not fit")),
    (
        "conv2d",
        CONV,
        (t("float32", 3, 5, 5), t("float32", 4, 3, 3, 3)),
        ShapeError,
        ("(3, 5, 5)", "(4, 3, 3, 3)", "4 axes"),
    ),
    ("conv2d", {**CONV, "groups": 2}, (FLOAT4, t("float32", 4, 1, 3, 3)), ShapeError, ("2 groups", "(1, 3, 5, 5)")),
    ("conv2d", {**CONV, "stride": (0, 1)}, (FLOAT4, t("float32", 4, 3, 3, 3)), ShapeError, ("stride (0, 1)",)),
    ("conv2d", CONV, (t("float32", 1, 3, Dim("h"), 5), t("float32", 4, 3, 3, 3)), ShapeError, ("(h, 5)", "fixed")),
    (
        "conv2d_input_grad",
        {**CONV, "input_size": (5, 5)},
        (t("float32", 1, 4, 2, 3), t("float32", 4, 3, 3, 3)),
        ShapeError,
        ("(1, 4, 2, 3)", "(4, 3, 3)"),
    ),
    (
        "conv2d_weight_grad",
        {**CONV, "kernel_size": (3, 3)},
        (FLOAT4, t("float32", 1, 4, 2, 3)),
        ShapeError,
        ("(1, 3, 5, 5)", "(1, 4, 2, 3)", "3 x 3"),
    ),
    ("max_pool", POOL, (t("int32", 1, 4, 4),), DTypeError, ("int32", "floating-point")),
    ("max_pool", POOL, (t("float32", 4),), ShapeError, ("(4,)", "2 axes")),
    ("max_pool", {**POOL, "padding": (2, 0, 0, 0)}, (t("float32", 4, 4),), ShapeError, ("(2, 0, 0, 0)", "(2, 2)")),
    (
        "max_pool_grad",
        {**POOL, "input_size": (4, 4)},
        (t("float32", 2, 3), t("int32", 2, 3)),
        ShapeError,
        ("(2, 3)", "(4, 4)"),
    ),
    (
        "max_pool_grad",
        {**POOL, "input_size": (4, 4)},
        (t("float32", 2, 2), t("int64", 2, 2)),
        DTypeError,
        ("int64", "int32"),
    ),
    ("max_pool_gather", POOL, (t("float32", 4, 4), t("int32", 4, 4)), ShapeError, ("(4, 4)", "(2, 2)")),
    ("sum", {"axes": (2,)}, (t("float32", 2, 3),), ShapeError, ("(2,)", "(2, 3)")),
    ("max", {"axes": (0,)}, (t("float32", 0, 3),), ShapeError, ("(0, 3)",)),
    ("argmax", {"axes": (0, 1)}, (t("float32", 2, 3),), ShapeError, ("(0, 1)",)),
    ("reshape", {"shape": (5,)}, (t("float32", 2, 3),), ShapeError, ("(5,)", "(2, 3)", "6")),
    ("permute", {"axes": (0, 0)}, (t("float32", 2, 3),), ShapeError, ("(0, 0)", "(2, 3)")),
    ("concat", {"axis": 0}, (t("float32", 2, 3), t("float32", 2, 4)), ShapeError, ("(2, 3)", "(2, 4)")),
    ("concat", {"axis": 0}, (t("float32", 2, 3), t("int32", 2, 3)), DTypeError, ("float32", "int32")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{i}-{w[0]}" for i, w in enumerate(WRONG)])
def test_wrong_operands_are_named(wrong: Wrong) -> None:
    name, attributes, given, error, words = wrong
    with pytest.raises(error) as caught:
        lookup(name)(**attributes).infer(*given)
    message = str(caught.value)
    assert message.startswith(f"{name}:"), message
    for word in words:
        assert word in message, (word, message)


# -- references that are more than one call of NumPy


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter: list[int], key: list[int], words: str) -> None:
    found = philox(np.array(counter, np.uint32), np.array(key, np.uint32))
    assert " ".join(f"{w:08x}" for w in found) == words


def test_random_bits_depend_on_element_step_stream_and_seed_only() -> None:
    seed, step = np.array([1, 2], np.uint32), np.array(5, np.uint32)
    bits = RandomBits(3, (6, 7)).reference(seed, step)
    assert np.array_equal(RandomBits(3, (50,)).reference(seed, step)[:42], bits.ravel())
    counter = np.array([41 // 4, 0, 5, 3], np.uint32)
    assert bits[5, 6] == philox(counter, seed)[41 % 4]
    others = [
        RandomBits(4, (6, 7)).reference(seed, step),
        RandomBits(3, (6, 7)).reference(seed, step + np.uint32(1)),
        RandomBits(3, (6, 7)).reference(seed + np.uint32(1), step),
    ]
    for other in others:
        assert (other == bits).sum() <= 1
    big = RandomBits(0, (40_000,)).reference(seed, step).astype(np.float64) / 2**32
    assert abs(big.mean() - 0.5) < 0.01 and abs(big.var() - 1 / 12) < 0.005


def test_erfinv_inverts_erf() -> None:
    x = np.concatenate([np.linspace(-3.5, 3.5, 71), [1e-9, -1e-5, 5.0]])
    y = OPS["erf"]().reference(x)
    back = OPS["erfinv"]().reference(y)
    slope = 2 / math.sqrt(math.pi) * np.exp(-x * x)  # rounding of y is all that is lost
    assert np.all(np.abs(back - x) <= 4e-16 * np.abs(x) + 3e-16 / slope)
    assert np.isnan(OPS["erfinv"]().reference(np.array(1.5)))


def test_digamma_is_the_slope_of_lgamma() -> None:
    x = np.array([0.01, 0.5, 1.0, 1.4616321449683623, 3.3, 9.99, 25.0, 1e4, -0.5, -3.7])
    h = 1e-4 * np.maximum(np.abs(x), 0.02)
    lgamma = OPS["lgamma"]().reference
    # Richardson's extrapolation of central differences
    coarse, fine = ((lgamma(x + s) - lgamma(x - s)) / (2 * s) for s in (h, h / 2))
    np.testing.assert_allclose(OPS["digamma"]().reference(x), (4 * fine - coarse) / 3, rtol=1e-7, atol=1e-8)
    euler = 0.57721566490153286
    exact = [-euler, -euler - 2 * math.log(2)]
    np.testing.assert_allclose(OPS["digamma"]().reference(np.array([1.0, 0.5])), exact, rtol=1e-14)


def test_polygamma_is_the_derivative_of_digamma() -> None:
    special = pytest.importorskip("scipy.special")
    rng = np.random.default_rng(0)
    x = np.concatenate([np.exp(rng.uniform(math.log(1e-3), math.log(1e4), 300)), [1e-3, 1.0, 9.0, 1e4, 1e30]])
    for order in (1, 2, 3, 5, 12, 40):
        got = OPS["polygamma"](order).reference(x)
        with np.errstate(all="ignore"):
            exact = (-1) ** (order + 1) * math.factorial(order) * special.zeta(order + 1, x)
        np.testing.assert_allclose(got, exact, rtol=5e-15, atol=np.finfo(np.float64).tiny)
    trigamma = OPS["polygamma"](1).reference(np.array([1.0, 0.5]))
    np.testing.assert_allclose(trigamma, [math.pi**2 / 6, math.pi**2 / 2], rtol=1e-15)


def test_polygamma_below_zero_obeys_the_recurrence() -> None:
    x = -np.arange(1.0, 40 * 64) / 64  # so that x + 1 is exact
    x = np.append(x[x != np.rint(x)], -(2.0**40) - 0.25)
    for order in (1, 2, 3, 6):
        reference = OPS["polygamma"](order).reference
        # psi(1 + x) - psi(x) = 1 / x, differentiated; it is judged by the pole next to x
        step = (-1) ** order * math.factorial(order) / x ** (order + 1)
        scale = math.factorial(order) / np.abs(x - np.rint(x)) ** (order + 1)
        assert np.all(np.abs(reference(x + 1) - reference(x) - step) <= 5e-15 * scale)


def test_polygamma_at_its_poles_and_limits() -> None:
    x = np.array([0.0, -0.0, -1.0, -7.0, np.inf, -np.inf, np.nan])
    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(OPS["polygamma"](1).reference(x), [inf, inf, inf, inf, 0, nan, nan])
    np.testing.assert_array_equal(OPS["polygamma"](2).reference(x), [-inf, inf, nan, nan, 0, nan, nan])
    # What overflows is the result only, no factor of it.
    exact = sum(math.factorial(300) / (100 + k) ** 301 for k in range(400))
    np.testing.assert_allclose(OPS["polygamma"](300).reference(np.array([1e-2, 100.0])), [-inf, -exact], rtol=1e-13)


def test_polygamma_refuses_order_0() -> None:
    with pytest.raises(UsageError, match="the order is 0, but must be at least 1"):
        OPS["polygamma"](0).infer(t("float32", 2))


def test_casts_saturate_and_wrap() -> None:
    cast = OPS["cast"]
    values = np.array([2.9, -2.9, np.nan, np.inf, -np.inf, 1e30], np.float32)
    assert cast(dtypes.int32).reference(values).tolist() == [2, -2, 0, 2**31 - 1, -(2**31), 2**31 - 1]
    assert cast(dtypes.uint64).reference(values).tolist() == [2, 0, 0, 2**64 - 1, 0, 2**64 - 1]
    assert cast(dtypes.uint8).reference(np.array([300, -1], np.int32)).tolist() == [44, 255]


def conv_by_hand(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One product at a time."""
    top, bottom, left, right = padding
    n, c, h, width = x.shape
    o, each, kh, kw = w.shape
    rows = (h + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, o, rows, columns))
    for b, m, i, j, k, p, q in itertools.product(*map(range, (n, o, rows, columns, each, kh, kw))):
        u, v = i * stride[0] + p * dilation[0] - top, j * stride[1] + q * dilation[1] - left
        if 0 <= u < h and 0 <= v < width:
            y[b, m, i, j] += x[b, m // (o // groups) * each + k, u, v] * w[m, k, p, q]
    return y


@pytest.mark.parametrize("example", examples_of(OPS["conv2d"])[:9])
def test_convolution_and_its_gradients_are_one_trilinear_form(example: tuple[Any, ...]) -> None:
    """<conv(x, w), g> = <x, input_grad(g, w)> = <w, weight_grad(x, g)>, and the first is right."""
    op, x, w = example
    x, w = x.astype(np.float64), w.astype(np.float64)
    y = op.reference(x, w)
    np.testing.assert_allclose(y, conv_by_hand(x, w, op.stride, op.padding, op.dilation, op.groups), atol=1e-12)
    g = np.random.default_rng(5).standard_normal(y.shape)
    dx = OPS["conv2d_input_grad"](**op.geometry(), input_size=x.shape[2:]).reference(g, w)
    dw = OPS["conv2d_weight_grad"](**op.geometry(), kernel_size=w.shape[2:]).reference(x, g)
    assert (x * dx).sum() == pytest.approx((y * g).sum(), abs=1e-10)
    assert (w * dw).sum() == pytest.approx((y * g).sum(), abs=1e-10)


def test_pooling_by_hand() -> None:
    x = np.array([[1, 5, 2, 0], [5, 3, 0, 0], [7, 7, -1, -2], [7, 7, -3, -4]], np.float32)
    index = OPS["max_pool_index"](**POOL).reference(x)
    assert OPS["max_pool"](**POOL).reference(x).tolist() == [[5, 2], [7, -1]]
    assert index.tolist() == [[1, 0], [0, 0]], "the first of equals"
    g = np.array([[10, 20], [30, 40]], np.float32)
    dx = OPS["max_pool_grad"](**POOL, input_size=(4, 4)).reference(g, index)
    assert dx.tolist() == [[0, 10, 20, 0], [0, 0, 0, 0], [30, 0, 40, 0], [0, 0, 0, 0]]
    assert OPS["max_pool_gather"](**POOL).reference(dx, index).tolist() == g.tolist()
    padded = {"window": (2, 2), "stride": (2, 2), "padding": (1, 1, 1, 1)}
    corner = np.array([[4, 8], [12, 16]], np.float32)
    assert OPS["avg_pool"](**padded, count_include_pad=False).reference(corner).tolist() == corner.tolist()
    assert OPS["avg_pool"](**padded, count_include_pad=True).reference(corner).tolist() == (corner / 4).tolist()


@pytest.mark.parametrize(("pool", "grad"), [("avg_pool", "avg_pool_grad"), ("max_pool_gather", "max_pool_grad")])
def test_pooling_gradients_are_transposes(pool: str, grad: str) -> None:
    for op, x, *index in examples_of(OPS[pool]):
        if x.dtype != np.float32:
            continue
        x = x.astype(np.float64)
        y = op.reference(x, *index)
        g = np.random.default_rng(6).standard_normal(y.shape)
        dx = OPS[grad](**op.geometry(), input_size=x.shape[-2:]).reference(g, *index)
        assert (y * g).sum() == pytest.approx((x * dx).sum(), abs=1e-10)


def test_indices_count_from_the_end_and_never_leave() -> None:
    x = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    found = OPS["take"](0).reference(x, np.array([-1, 0, 3, -4]))
    assert found[:2].tolist() == [[5, 6], [1, 2]] and np.isnan(found[2:]).all()
    assert OPS["take"](0, True).reference(x, np.array([-1, 3])).tolist() == [[5, 6], [0, 0]]
    assert OPS["one_hot"](3, dtypes.int32).reference(np.array([-1, 0, 3])).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    added = OPS["scatter_add"](3).reference(np.array([1, 1, -1, 3, -4]), np.ones(5, np.float32))
    assert added.tolist() == [0, 2, 1]
    along = OPS["scatter_along"](1, 3).reference(np.array([[0, 0, 2], [-1, 3, 1]]), np.ones((2, 3), np.float32))
    assert along.tolist() == [[2, 0, 1], [0, 1, 1]]
    assert OPS["take_along"](1).reference(x, np.array([[-1], [0], [1]])).tolist() == [[2], [3], [6]]


def test_a_draw_of_more_blocks_than_one_word_counts() -> None:
    """Elements past 2**34 take the second word of the counter."""
    seed, step, shape = np.array([11, 12], np.uint32), np.array(5, np.uint32), (2**30, 64)
    axis = Axis("i", 16)
    first = 2**34 - 8

    def read(operand: int, at: tuple[Index, ...], guard: Any = None) -> Any:
        return expr.load(operand, flatten(at, ((2,), ())[operand]), dtypes.uint32, guard)

    call = Lowering((), (), 0, lambda extent, position: None)
    value = RandomBits(3, shape).lower(call, unflatten(as_index(axis) + first, shape), read)
    params = tuple(Param(f"p{n}", dtypes.uint32, s) for n, s in enumerate(((2,), (), (16,))))
    out = np.zeros(16, np.uint32)
    run_kernel(Kernel("draw", params, (axis,), (Store(2, as_index(axis), value),)), [seed, step.reshape(1), out])
    blocks = [(first + n) // 4 for n in range(16)]
    wanted = [philox([b % 2**32, b // 2**32, 5, 3], seed)[(first + n) % 4] for n, b in enumerate(blocks)]
    np.testing.assert_array_equal(out, np.array(wanted, np.uint32))
    assert blocks[-1] // 2**32 == 1
