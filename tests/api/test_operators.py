"""Tensor's operators, indexing and methods, and the array functions, against NumPy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support.values import evaluate

import graphcore as gc
from graphcore.api.tensor import wrap
from graphcore.ir.graph import toposort

RNG = np.random.default_rng(0)
A = RNG.standard_normal((3, 4)).astype(np.float32)
B = RNG.standard_normal((4,)).astype(np.float32)
POSITIVE = (np.abs(A) + 0.3).astype(np.float32)
UNIT = (RNG.random((3, 4)) * 1.6 - 0.8).astype(np.float32)
CUBE = RNG.standard_normal((3, 4, 5)).astype(np.float32)
I = np.array([[5, -3, 2], [-7, 4, 1]], np.int32)  # noqa: E741
J = np.array([2, -2, 3], np.int32)
FLAGS = np.array([True, False, True])


def check(function: Any, *arrays: Any, expected: Any = None, symbolic: bool = False) -> None:
    """``function`` of placeholders equals ``function`` of arrays (or ``expected``)."""
    arrays = tuple(np.asarray(a) for a in arrays)
    holders = [gc.placeholder(a.dtype, (None, *a.shape[1:]) if symbolic else a.shape) for a in arrays]
    result = function(*holders)
    many = isinstance(result, (list, tuple))
    got = evaluate(list(result) if many else [result], dict(zip(holders, arrays, strict=True)))
    want = function(*arrays) if expected is None else expected
    for g, w in zip(got, want if many else [want], strict=True):
        assert g.shape == np.shape(w)
        np.testing.assert_allclose(g, w, rtol=2e-6, atol=1e-6)


OPERATORS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "truediv": lambda x, y: x / y,
    "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_binary_operators(name: str) -> None:
    f = OPERATORS[name]
    check(f, A, B)
    check(f, I, J)
    x = gc.placeholder("float32", A.shape)
    for got, want in (
        (f(x, 2), f(A, np.float32(2))),
        (f(2, x), f(np.float32(2), A)),
        (f(B, x), f(B, A)),
        (f(x, [1, 2, 3, 4]), f(A, np.arange(1, 5))),
    ):
        np.testing.assert_allclose(evaluate([got], {x: A})[0], want, rtol=2e-6)


@pytest.mark.parametrize("f", [lambda x, y: x & y, lambda x, y: x | y, lambda x, y: x ^ y], ids=["and", "or", "xor"])
def test_bits_and_logic(f: Any) -> None:
    check(f, I, J)
    check(f, FLAGS, np.array([True, True, False]))
    check(lambda x: f(x, 3), I)
    check(lambda x: f(True, x), FLAGS)


def test_unary_operators_and_shifts() -> None:
    check(lambda x: -x, A)
    check(lambda x: +x, A)
    check(lambda x: abs(x), A)
    check(lambda x: ~x, I)
    check(lambda x: ~x, FLAGS)
    check(lambda x: x << 2, I)
    check(lambda x: x >> 1, I)
    check(lambda x: x @ B, A)
    check(lambda x: A.T @ x, A)


@pytest.mark.parametrize("p", [2, 1, 3, 0.5, -0.5, -1, 0, 2.5])
def test_power(p: float) -> None:
    check(lambda x: x**p, POSITIVE)
    x = gc.placeholder("float32", ())
    np.testing.assert_allclose(evaluate([p**x], {x: 2.0})[0], float(p) ** 2.0, rtol=1e-6)


def test_promotion() -> None:
    f, h, b16, i, u, flag = (
        gc.placeholder(d, (2,)) for d in ("float32", "float16", "bfloat16", "int32", "uint8", "bool")
    )
    cases = [
        (f + 1, "float32"),
        (h + 1.5, "float16"),
        (i + 1, "int32"),
        (i + 1.5, "float32"),
        (i / i, "float32"),
        (flag + 1, "int64"),
        (f + i, "float32"),
        (h + b16, "float32"),
        (h + f, "float32"),
        (u + i, "int32"),
        (i // 2, "int32"),
        (i == 1.5, "bool"),
        (f + np.float64(1.0), "float32"),
        (f + np.zeros(2), "float64"),
        (h * np.float32(1), "float32"),
        (gc.exp(i), "float32"),
        (u.sum(), "uint64"),
        (i.sum(), "int64"),
        (flag.sum(), "int64"),
        (h.sum(), "float16"),
        (i.mean(), "float32"),
        (flag.mean(), "float32"),
        (f.argmax(), "int64"),
        (flag & True, "bool"),
    ]
    assert [str(t.dtype) for t, _ in cases] == [d for _, d in cases]


def test_casts_and_broadcasts_are_nodes() -> None:
    x, y = gc.placeholder("float32", (3, 4)), gc.placeholder("int32", (4,))
    names = [n.op.name for n in toposort([x + y])]
    assert sorted(names) == ["add", "broadcast", "cast", "placeholder", "placeholder"]
    assert [n.op.name for n in toposort([x + x])] == ["placeholder", "add"]


def test_symbolic_extents_become_requirements() -> None:
    x, y, z = (
        gc.placeholder("float32", (None, 4)),
        gc.placeholder("float32", (None, 4)),
        gc.placeholder("float32", (5, 4)),
    )
    assert (x + y).shape == x.shape
    assert (x + z).shape == (5, 4)
    assert [n.op.name for n in toposort([x + z])].count("require_shape") == 1
    assert (x + 1).shape == x.shape
    assert not any(n.op.name == "require_shape" for n in toposort([x * x + B]))
    check(lambda a, b: a * b + a.mean(0), A, A, symbolic=True)
    assert (x * x.shape[0]).dtype == "float32"
    np.testing.assert_array_equal(evaluate([x * x.shape[0]], {x: A})[0], A * 3)


INDICES: list[Any] = [
    1,
    -1,
    slice(1, None),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(2, 0, -1),
    slice(-2, None),
    slice(5, 9),
    (slice(None), 2),
    (..., 0),
    (..., None),
    None,
    (1, None, ..., slice(None, None, 2)),
    (slice(0, 2), slice(None, None, -2), slice(3, 0, -1)),
    (0, 1, 2),
    (slice(None), None, -1),
    (slice(2, 1),),
    [0, 2],
    (slice(None), [1, 1, -1]),
    ([0, 1], [2, 3]),
    ([0, 1], slice(None), [4, -5]),
    (0, slice(None), [1, 2, 3]),
    (..., np.array([[0, 1], [2, -3]])),
    (None, [0, 1], None, slice(1, 3)),
    ([[0], [2]], [1, 2]),
    (slice(None), [0, 3], None, [1, 1]),
    (np.int64(1), np.array(2)),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing(index: Any) -> None:
    check(lambda x: x[index], CUBE)


def test_indexing_by_tensors() -> None:
    x, i = gc.placeholder("float32", (3, 4)), gc.placeholder("int64", (2,))
    feeds = {x: A, i: np.array([2, -1])}
    got = evaluate([x[i], x[:, i], x[i, i], x[i, 1], x[gc.constant(1)]], feeds)
    n = feeds[i]
    for g, w in zip(got, (A[n], A[:, n], A[n, n], A[n, 1], A[1]), strict=True):
        np.testing.assert_array_equal(g, w)


def test_indexing_symbolic_axes() -> None:
    for f in (
        lambda x: x[1:],
        lambda x: x[:-1],
        lambda x: x[::2],
        lambda x: x[:2],
        lambda x: x[:9],
        lambda x: x[1:-1],
        lambda x: x[0],
        lambda x: x[:, ::-1],
        lambda x: x[1:] - x[:-1],
    ):
        check(f, A, symbolic=True)


@pytest.mark.parametrize(
    "index", [1, slice(1, None), (slice(None), slice(None, None, -2)), (..., -1), (None, 0)], ids=repr
)
@pytest.mark.parametrize("method", ["add", "set", "multiply", "min", "max", "divide"])
def test_at(index: Any, method: str) -> None:
    want = A.copy()
    part = want[index]
    value = (np.abs(RNG.standard_normal(part.shape)) + 0.5).astype(np.float32)
    change = {
        "add": np.add,
        "set": lambda a, b: b,
        "multiply": np.multiply,
        "min": np.minimum,
        "max": np.maximum,
        "divide": np.divide,
    }[method]
    if index == (None, 0):
        want[0] = change(part, value)[0]
    else:
        want[index] = change(part, value)
    check(lambda x: getattr(x.at[index], method)(value), A, expected=want)


def test_at_rows() -> None:
    rows, value = np.array([0, 2, 2]), RNG.standard_normal((3, 4)).astype(np.float32)
    added, put = A.copy(), A.copy()
    np.add.at(added, rows, value)
    put[rows] = value
    check(lambda x: x.at[rows].add(value), A, expected=added)
    check(lambda x: x.at[rows].set(value), A, expected=put)
    check(lambda x: x.at[gc.constant(rows)].add(1.0), A, expected=A + np.array([[1], [0], [2]], np.float32))
    check(lambda x: x.at[2:1].set(5.0) + x.at[:0].add(1.0), A, expected=2 * A)


METHODS = [
    lambda x: x.reshape(2, -1),
    lambda x: x.reshape((6, 2)),
    lambda x: x.reshape(-1),
    lambda x: x.T,
    lambda x: x.flatten(),
    lambda x: x.transpose(),
    lambda x: x.sum(),
    lambda x: x.sum(axis=1),
    lambda x: x.sum(axis=(0, 1)),
    lambda x: x.mean(axis=0, keepdims=True),
    lambda x: x.max(axis=1),
    lambda x: x.min(),
    lambda x: x.prod(axis=0),
    lambda x: x.argmax(axis=1),
    lambda x: x.argmin(),
    lambda x: x.var(axis=1),
    lambda x: x.std(),
    lambda x: x.clip(-0.5, 0.5),
    lambda x: x.squeeze(),
    lambda x: x.astype("int32"),
    lambda x: x.swapaxes(0, 1),
    lambda x: x.mT,
]


@pytest.mark.parametrize("f", METHODS, ids=range(len(METHODS)))
def test_methods_like_numpy(f: Any) -> None:
    check(f, A)


def test_methods_like_pytorch() -> None:
    x = gc.placeholder("float32", (3, 4, 5))
    assert (
        x.sum(dim=1, keepdim=True).shape == (3, 1, 5)
        and x.permute(2, 0, 1).shape == (5, 3, 4)
        and x.transpose(0, 2).shape == (5, 4, 3)
    )
    assert (
        x.unsqueeze(1).shape == (3, 1, 4, 5)
        and x.flatten(1).shape == (3, 20)
        and x[:1].expand(6, -1, 5).shape == (6, 4, 5)
    )
    assert (
        x.view(12, 5).shape == (12, 5)
        and x.float().dtype == "float32"
        and x.long().dtype == "int64"
        and x.bool().dtype == "bool"
    )
    assert x.detach().node.op.name == "stop_gradient" and len(x) == 3
    w = gc.Variable(2.0, name="w")
    (w * w * w).backward()
    assert w.grad is not None
    assert evaluate([w.grad])[0] == 12


FUNCTIONS: list[tuple[str, Any, Any]] = [
    *(
        (n, A, None)
        for n in (
            "exp",
            "exp2",
            "expm1",
            "sin",
            "cos",
            "tan",
            "sinh",
            "cosh",
            "tanh",
            "floor",
            "ceil",
            "trunc",
            "abs",
            "sign",
            "isnan",
            "isinf",
            "isfinite",
            "signbit",
            "square",
            "negative",
            "positive",
            "logical_not",
            "nan_to_num",
            "tril",
            "triu",
            "flip",
            "zeros_like",
            "ones_like",
            "transpose",
        )
    ),
    ("round", A * 3, None),
    *((n, POSITIVE, None) for n in ("log", "log2", "log10", "log1p", "sqrt", "reciprocal")),
    ("rsqrt", POSITIVE, lambda x: 1 / np.sqrt(x)),
    ("atanh", UNIT, np.arctanh),
    ("asin", UNIT, np.arcsin),
    ("acos", UNIT, np.arccos),
    ("atan", A, np.arctan),
    ("asinh", A, np.arcsinh),
    ("acosh", POSITIVE + 1, np.arccosh),
    ("sigmoid", A, lambda x: 1 / (1 + np.exp(-x))),
    ("relu", A, lambda x: np.maximum(x, 0)),
    ("softplus", A * 9, lambda x: np.logaddexp(x, 0)),
    ("logsumexp", A * 9, lambda x: np.log(np.exp(x).sum())),
    ("norm", A, np.linalg.norm),
    ("diagonal", A, np.diagonal),
    ("count_nonzero", I, np.count_nonzero),
    ("unstack", A, list),
]


@pytest.mark.parametrize(("name", "x", "reference"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_functions_of_one(name: str, x: Any, reference: Any) -> None:
    check(getattr(gc, name), x, expected=(reference or getattr(np, name))(x))


PAIRS = [
    "maximum",
    "minimum",
    "copysign",
    "hypot",
    "logaddexp",
    "logical_and",
    "logical_or",
    "logical_xor",
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "remainder",
    "less",
    "isclose",
]


@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_two(name: str) -> None:
    check(getattr(gc, name), A, B, expected=getattr(np, name)(A, B))


SHAPING: list[Any] = [
    lambda m, x: m.moveaxis(x, 0, -1),
    lambda m, x: m.expand_dims(x, (0, 2)),
    lambda m, x: m.broadcast_to(x, (2, 3, 4, 5)),
    lambda m, x: m.tile(x, (2, 1, 3)),
    lambda m, x: m.tile(x, 2),
    lambda m, x: m.repeat(x, 2, axis=1),
    lambda m, x: m.repeat(x, 3),
    lambda m, x: m.roll(x, 2, axis=1),
    lambda m, x: m.roll(x, -1),
    lambda m, x: m.roll(x, (1, 2), axis=(0, 2)),
    lambda m, x: m.flip(x, axis=(0, 2)),
    lambda m, x: m.split(x, 2, axis=1),
    lambda m, x: m.split(x, [1, 3], axis=2),
    lambda m, x: m.stack([x, x + 1], 1),
    lambda m, x: m.concatenate([x, x[:1], x], 0),
    lambda m, x: m.pad(x, 1),
    lambda m, x: m.pad(x, ((0, 1), (2, 0), (1, 1))),
    lambda m, x: m.pad(x, 1, mode="constant", constant_values=7),
    lambda m, x: m.pad(x, ((1, 2), (0, 0), (2, 1)), mode="edge"),
    lambda m, x: m.pad(x, ((1, 2), (0, 0), (2, 1)), mode="reflect"),
    lambda m, x: m.pad(x, 2, mode="wrap"),
    lambda m, x: m.swapaxes(x, 0, 2),
    lambda m, x: m.take(x, np.array([[0, 1], [-1, 2]]), axis=1),
    lambda m, x: m.take(x, np.array([3, 59])),
    lambda m, x: m.broadcast_arrays(x, x[0]),
    lambda m, x: m.take_along_axis(x, m.argmax(x, axis=1, keepdims=True), axis=1),
    lambda m, x: m.where(x > 0, x, -1.0),
    lambda m, x: m.clip(x, None, 0.3),
    lambda m, x: m.tensordot(x, x, ([0, 2], [0, 2])),
    lambda m, x: m.einsum("ijk,ijl->ikl", x, x),
    lambda m, x: m.einsum("iji->j", x[:, :, :3]),
    lambda m, x: m.outer(x[0, 0], x[0, 1]),
    lambda m, x: m.any(x > 1, axis=0),
    lambda m, x: m.all(x > -1, axis=(0, 1)),
    lambda m, x: m.var(x, axis=(0, 2)),
    lambda m, x: m.matmul(x, x[0].T),
    lambda m, x: m.matmul(x[0, 0], m.transpose(x, (0, 2, 1))),
    lambda m, x: m.squeeze(x[:1], axis=0),
]


@pytest.mark.parametrize("f", SHAPING, ids=range(len(SHAPING)))
def test_array_functions(f: Any) -> None:
    check(lambda x: f(gc, x), CUBE, expected=f(np, CUBE))


def test_reshape_symbolic() -> None:
    x = gc.placeholder("float32", (None, 4, 6))
    n = x.shape[0]
    assert x.reshape(-1, 24).shape == (n, 24) and x.reshape(n, -1).shape == (n, 24) and x.reshape(-1).shape == (n * 24,)
    assert x.reshape(n * 2, 12).shape == (n * 2, 12) and gc.zeros((n, 2)).shape == (n, 2)
    check(lambda a: a.reshape(-1, 2).mean() + a.reshape(-1, 4).sum(0), A, symbolic=True)
    m = gc.placeholder("float32", (None, 4))
    np.testing.assert_allclose(evaluate([gc.arange(m.shape[0])], {m: A})[0], np.arange(3))


def test_creation() -> None:
    cases = [
        (gc.zeros((2, 3)), np.zeros((2, 3), np.float32)),
        (gc.ones(2, "int8"), np.ones(2, np.int8)),
        (gc.full((2,), 7.5), np.full(2, 7.5, np.float32)),
        (gc.eye(3, 4, 1), np.eye(3, 4, 1, np.float32)),
        (gc.arange(5), np.arange(5)),
        (gc.arange(5, 0, -2), np.arange(5, 0, -2)),
        (gc.arange(0.5, 2, 0.25), np.arange(0.5, 2, 0.25, np.float32)),
        (gc.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32)),
        (gc.one_hot([0, 2, 5], 3), np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], np.float32)),
        (gc.array([1, 2]), np.array([1, 2])),
        (gc.tril(gc.ones((3, 4)), -1), np.tril(np.ones((3, 4), np.float32), -1)),
        (gc.triu(gc.ones((3, 4)), 2), np.triu(np.ones((3, 4), np.float32), 2)),
        (gc.asarray([gc.constant(1.0), 2.0]), np.array([1, 2], np.float32)),
        *zip(gc.meshgrid([1, 2], [3, 4, 5]), np.meshgrid([1, 2], [3, 4, 5]), strict=True),
    ]
    for t, want in cases:
        got = evaluate([t])[0]
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def test_identity_and_hash() -> None:
    x = gc.placeholder("float32", ())
    assert {x: 1}[x] == 1 and x.same(wrap(x.node.output())) and (x == x).dtype == "bool"
    assert (x == None) is False and (x != "text") is True  # noqa: E711
    assert x in [x]


def test_variables_are_tensors() -> None:
    w = gc.Variable(np.ones(3, np.float32), name="w")
    assert (w + 1).shape == (3,) and (1 - w)[0].shape == () and w.assign(w + 1).value.shape == (3,)


def test_import_is_light() -> None:
    heavy = ("pyopencl", "networkx", "scipy", "passes", "backends")
    code = f"import sys, graphcore; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_public_names_exist_and_have_docs() -> None:
    assert len(set(gc.__all__)) == len(gc.__all__)
    for name in gc.__all__:
        value = getattr(gc, name)
        assert not callable(value) or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        _ = gc.sesion
