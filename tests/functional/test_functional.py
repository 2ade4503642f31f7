"""Activations, losses, normalisation, convolution: values against NumPy, gradients against float64 differences."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from support.values import evaluate, numeric_gradient

import graphcore as gc
from graphcore import functional as F
from graphcore.api.variable import variable_of
from graphcore.ir.graph import collect, toposort

RNG = np.random.default_rng(1)
X = RNG.standard_normal((4, 5)) * 2
Y = RNG.standard_normal((4, 5))
P = RNG.random((4, 5)) * 0.9 + 0.05
T = np.array([1, 4, 0, 2])
IMAGES = RNG.standard_normal((2, 4, 6, 7))


def softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


def differentiable(function: Any, *arrays: Any, tolerance: float = 2e-7) -> Any:
    """The value of ``function``, after its gradients for all floating arrays are compared with differences."""
    holders = [gc.placeholder(a.dtype, a.shape) for a in arrays]
    feeds = dict(zip(holders, arrays, strict=True))
    y = function(*holders)
    loss = (y * RNG.standard_normal(y.shape)).sum()
    floating = [h for h in holders if h.dtype.is_float]
    for h, g in zip(floating, evaluate(gc.gradients(loss, floating), feeds), strict=True):
        np.testing.assert_allclose(g, numeric_gradient(loss, h, feeds[h], feeds), rtol=2e-5, atol=tolerance)
    return evaluate([y], feeds)[0]


ACTIVATIONS: dict[str, Any] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "silu": lambda x: x * sigmoid(x),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "gelu": lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanhshrink": lambda x: x - np.tanh(x),
    "logsigmoid": lambda x: np.log(sigmoid(x)),
    "softmax": softmax,
    "log_softmax": lambda x: np.log(softmax(x)),
    "softmin": lambda x: softmax(-x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    np.testing.assert_allclose(differentiable(getattr(F, name), X), ACTIVATIONS[name](X), rtol=1e-9, atol=1e-12)


def test_activations_with_arguments() -> None:
    np.testing.assert_allclose(
        differentiable(lambda x: F.gelu(x, approximate="tanh"), X),
        0.5 * X * (1 + np.tanh((2 / np.pi) ** 0.5 * (X + 0.044715 * X**3))),
        rtol=1e-9,
    )
    np.testing.assert_allclose(differentiable(lambda x: F.glu(x, 0), X), X[:2] * sigmoid(X[2:]))
    np.testing.assert_allclose(differentiable(lambda x: F.softmax(x, axis=0), X), softmax(X, 0))
    np.testing.assert_allclose(differentiable(F.prelu, X, Y[0]), np.where(X > 0, X, X * Y[0]))
    np.testing.assert_allclose(differentiable(lambda x: F.threshold(x, 0.5, -1.0), X), np.where(X > 0.5, X, -1))


def test_extreme_logits() -> None:
    x = np.array([[1e4, 0, -1e4], [-np.inf, 0.0, 1.0], [500, 500, 500]])
    t = gc.constant(x)
    soft, log_soft, loss = evaluate([F.softmax(t), F.log_softmax(t), F.cross_entropy(t, [0, 2, 1], reduction="none")])
    np.testing.assert_allclose(soft, softmax(x))
    np.testing.assert_allclose(log_soft[0], [0, -1e4, -2e4])
    np.testing.assert_allclose(loss, [0, math.log(1 + math.exp(-1)), math.log(3)], atol=1e-12)
    np.testing.assert_array_equal(evaluate([gc.logsumexp(gc.constant([-np.inf, -np.inf]))])[0], -np.inf)
    np.testing.assert_allclose(
        evaluate([F.binary_cross_entropy_with_logits(gc.constant([1e4, -1e4]), [1.0, 1.0], reduction="none")])[0],
        [0, 1e4],
    )


def log_probabilities(x: Any) -> Any:
    return np.log(softmax(x, 1))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 4])
def test_cross_entropy_of_classes(reduction: str, smoothing: float, weighted: bool, ignore: int | None) -> None:
    w = P[0] if weighted else None
    factor = P[0] if weighted else np.ones(5)
    logp = log_probabilities(X)
    loss = (1 - smoothing) * -logp[np.arange(4), T] * factor[T] + smoothing * -(logp * factor).sum(1) / 5
    kept = np.ones(4, bool) if ignore is None else ignore != T
    loss = np.where(kept, loss, 0)
    want = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / (factor[T] * kept).sum()}[reduction]
    got = differentiable(
        lambda x, t: F.cross_entropy(x, t, w, ignore_index=ignore, reduction=reduction, label_smoothing=smoothing), X, T
    )
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_cross_entropy_shapes_and_types() -> None:
    logits, classes = RNG.standard_normal((2, 5, 3)), RNG.integers(0, 5, (2, 3))
    want = -np.take_along_axis(log_probabilities(logits), classes[:, None], 1).mean()
    for dtype in ("int64", "int32", "uint8"):
        np.testing.assert_allclose(
            differentiable(lambda x, t: F.cross_entropy(x, t), logits, classes.astype(dtype)), want
        )
    np.testing.assert_allclose(evaluate([F.cross_entropy(X[0], 3)])[0], -log_probabilities(X)[0, 3])
    np.testing.assert_allclose(
        differentiable(lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1), X, softmax(Y)),
        -((0.9 * softmax(Y) + 0.02) * log_probabilities(X)).sum(1).mean(),
    )
    np.testing.assert_allclose(
        differentiable(lambda x, t: F.nll_loss(x, t, P[0]), X, T), -(X[np.arange(4), T] * P[0][T]).sum() / P[0][T].sum()
    )
    computed = gc.constant(np.array([0, 4, -4, -1])) + 1
    out_of_range = evaluate([F.cross_entropy(gc.constant(X), computed, reduction="none")])[0]
    assert list(np.isnan(out_of_range)) == [False, True, True, False]
    half = gc.placeholder("float16", (4, 5))
    assert F.cross_entropy(half, T).dtype == "float16"


def test_cross_entropy_on_symbolic_batches() -> None:
    x, t = gc.placeholder("float64", (None, 5)), gc.placeholder("int64", (None,))
    loss = F.cross_entropy(x, t)
    value, g = evaluate([loss, gc.gradients(loss, x)[0]], {x: X, t: T})
    np.testing.assert_allclose(value, -log_probabilities(X)[np.arange(4), T].mean())
    np.testing.assert_allclose(g, (softmax(X) - np.eye(5)[T]) / 4, atol=1e-12)


def test_cross_entropy_is_one_row_kernel() -> None:
    """Loss and gradient reduce along classes only (but for the mean over rows), without gathers or scatters."""
    x, t = gc.placeholder("float32", (8, 10)), gc.placeholder("int64", (8,))
    loss = F.cross_entropy(x, t)
    nodes = toposort([loss, gc.gradients(loss, x)[0]])
    kinds = Counter(n.op.kind.value for n in nodes)
    assert kinds["contract"] == 0 and {n.op.name for n in nodes if n.op.kind.value == "opaque"} == {"iota"}
    reductions = [(n.op.name, n.op.axes) for n in nodes if n.op.kind.value == "reduce"]  # type: ignore[attr-defined]
    assert Counter(a for _, a in reductions) == {(0,): 2, (1,): 3}  # over rows: the losses, and how many labels count
    assert len([n for n in nodes if n.op.kind.value == "map"]) <= 30
    assert all(n.origin.scope == ("cross_entropy",) for n in nodes if n.op.kind.value == "map")


LOSSES: dict[str, tuple[Any, Any]] = {
    "mse_loss": ((X, Y), (X - Y) ** 2),
    "l1_loss": ((X, Y), np.abs(X - Y)),
    "huber_loss": ((X, Y), np.where(np.abs(X - Y) < 1, (X - Y) ** 2 / 2, np.abs(X - Y) - 0.5)),
    "smooth_l1_loss": ((X, Y), np.where(np.abs(X - Y) < 1, (X - Y) ** 2 / 2, np.abs(X - Y) - 0.5)),
    "kl_div": ((X, P), P * (np.log(P) - X)),
    "binary_cross_entropy": ((P, P[::-1]), -(P[::-1] * np.log(P) + (1 - P[::-1]) * np.log(1 - P))),
    "binary_cross_entropy_with_logits": ((X, P), -(P * np.log(sigmoid(X)) + (1 - P) * np.log(1 - sigmoid(X)))),
    "poisson_nll_loss": ((X, Y), np.exp(X) - Y * X),
    "soft_margin_loss": ((X, np.sign(Y)), np.log1p(np.exp(-np.sign(Y) * X))),
    "hinge_embedding_loss": ((X, np.sign(Y)), np.where(Y > 0, X, np.maximum(0, 1 - X))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    (a, b), want = LOSSES[name]
    target = gc.constant(b)
    for reduction, expected in (("none", want), ("mean", want.mean()), ("sum", want.sum())):
        np.testing.assert_allclose(
            differentiable(lambda x, r=reduction: getattr(F, name)(x, target, reduction=r), a),
            expected,
            rtol=1e-9,
            atol=1e-12,
        )


def test_losses_with_arguments() -> None:
    d = np.abs(X - Y)
    np.testing.assert_allclose(
        differentiable(lambda x: F.huber_loss(x, gc.constant(Y), delta=2.0), X),
        np.where(d < 2, d * d / 2, 2 * (d - 1)).mean(),
    )
    np.testing.assert_allclose(
        differentiable(lambda x: F.smooth_l1_loss(x, gc.constant(Y), beta=2.0), X),
        np.where(d < 2, d * d / 4, d - 1).mean(),
    )
    np.testing.assert_allclose(
        differentiable(lambda x: F.kl_div(x, gc.constant(P), "batchmean"), X), (P * (np.log(P) - X)).sum() / 4
    )
    np.testing.assert_allclose(
        differentiable(lambda x: F.kl_div(x, gc.constant(Y), "sum", log_target=True), X), (np.exp(Y) * (Y - X)).sum()
    )
    weight = 1 + 1.5 * P
    want = (1 - P) * X + weight * np.log1p(np.exp(-X)) - 0 * X
    np.testing.assert_allclose(
        differentiable(
            lambda x: F.binary_cross_entropy_with_logits(x, gc.constant(P), pos_weight=2.5, reduction="none"), X
        ),
        want,
    )
    cosine = (X * Y).sum(1) / np.sqrt((X * X).sum(1) * (Y * Y).sum(1))
    np.testing.assert_allclose(differentiable(F.cosine_similarity, X, Y), cosine)
    assert evaluate([F.kl_div(gc.constant([0.0]), gc.constant([0.0]))])[0] == 0


def normalised(x: Any, axes: tuple[int, ...]) -> Any:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def test_norms() -> None:
    w, b = RNG.standard_normal(5), RNG.standard_normal(5)
    np.testing.assert_allclose(
        differentiable(lambda x, w, b: F.layer_norm(x, 5, w, b), X, w, b), normalised(X, (1,)) * w + b, rtol=1e-9
    )
    np.testing.assert_allclose(differentiable(lambda x: F.layer_norm(x, (4, 5)), X), normalised(X, (0, 1)), rtol=1e-9)
    np.testing.assert_allclose(
        differentiable(lambda x, w: F.rms_norm(x, (5,), w, 1e-6), X, w),
        X / np.sqrt((X * X).mean(1, keepdims=True) + 1e-6) * w,
    )
    small = IMAGES[:, :, :2, :2]
    w4, b4 = w[:4], b[:4]
    grouped = normalised(small.reshape(2, 2, -1), (2,)).reshape(small.shape) * w4[:, None, None] + b4[:, None, None]
    np.testing.assert_allclose(
        differentiable(lambda x, w, b: F.group_norm(x, 2, w, b), small, w4, b4, tolerance=1e-6), grouped, rtol=1e-9
    )
    np.testing.assert_allclose(
        differentiable(F.instance_norm, small, tolerance=1e-6), normalised(small, (2, 3)), rtol=1e-9
    )
    np.testing.assert_allclose(differentiable(F.normalize, X), X / np.linalg.norm(X, axis=1, keepdims=True))
    squares = np.pad(X * X, ((0, 0), (1, 1)))
    base = 1 + 0.1 / 3 * (squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:])
    np.testing.assert_allclose(
        differentiable(lambda x: F.local_response_norm(x, 3, alpha=0.1)[:, :, 0], X[:, :, None]), X / base**0.75
    )


def test_batch_norm() -> None:
    mean, var = (
        gc.Variable(np.full(4, 0.5), trainable=False, name="mean"),
        gc.Variable(np.full(4, 2.0), trainable=False, name="var"),
    )
    small = IMAGES[:, :, :2, :2]
    y = differentiable(lambda x: F.batch_norm(x, mean, var, training=True), small, tolerance=1e-6)
    np.testing.assert_allclose(y, normalised(small, (0, 2, 3)), rtol=1e-9)
    x = gc.placeholder("float64", (None, 4, 2, 2))
    out = F.batch_norm(x, mean, var, training=True, momentum=0.25)
    for root in (out, gc.gradients((out * out * out).sum(), x)[0]):
        updates = {variable_of(slot): new for slot, new in collect([root]).updates}
        assert set(updates) == {mean, var}
        new_mean, new_var = evaluate([updates[mean], updates[var]], {x: small})
        np.testing.assert_allclose(new_mean, 0.75 * 0.5 + 0.25 * small.mean((0, 2, 3)))
        np.testing.assert_allclose(new_var, 0.75 * 2 + 0.25 * small.var((0, 2, 3), ddof=1))
    y = differentiable(lambda x, w, b: F.batch_norm(x, mean, var, w, b), small, Y[0, :4], Y[1, :4])
    np.testing.assert_allclose(y, (small - 0.5) / np.sqrt(2 + 1e-5) * Y[0, :4, None, None] + Y[1, :4, None, None])
    assert not collect([F.batch_norm(x, mean, var)]).updates


def correlate(
    x: Any, w: Any, stride: tuple[int, int], padding: tuple[int, int, int, int], dilation: tuple[int, int], groups: int
) -> Any:
    """Convolution by its definition."""
    x = np.pad(x, ((0, 0), (0, 0), padding[:2], padding[2:]))
    kh, kw = ((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True))
    rows, columns = (x.shape[2] - kh) // stride[0] + 1, (x.shape[3] - kw) // stride[1] + 1
    out, each = np.zeros((x.shape[0], w.shape[0], rows, columns)), w.shape[0] // groups
    for o in range(w.shape[0]):
        part = x[:, o // each * w.shape[1] : (o // each + 1) * w.shape[1]]
        for i in range(rows):
            for j in range(columns):
                window = part[
                    :,
                    :,
                    i * stride[0] : i * stride[0] + kh : dilation[0],
                    j * stride[1] : j * stride[1] + kw : dilation[1],
                ]
                out[:, o, i, j] = (window * w[o]).sum((1, 2, 3))
    return out


@pytest.mark.parametrize(
    ("options", "geometry"),
    [
        ({}, ((1, 1), (0, 0, 0, 0), (1, 1), 1)),
        ({"stride": 2, "padding": 1}, ((2, 2), (1, 1, 1, 1), (1, 1), 1)),
        ({"padding": "same", "dilation": 2}, ((1, 1), (2, 2, 2, 2), (2, 2), 1)),
        ({"padding": (2, 1), "stride": (1, 2), "groups": 2}, ((1, 2), (2, 2, 1, 1), (1, 1), 2)),
        ({"padding": "valid"}, ((1, 1), (0, 0, 0, 0), (1, 1), 1)),
    ],
    ids=str,
)
def test_conv2d(options: dict[str, Any], geometry: Any) -> None:
    w, b = RNG.standard_normal((2, 4 // geometry[3], 3, 3)), RNG.standard_normal(2)
    small = IMAGES[:1, :, :5, :6]
    got = differentiable(lambda x, w, b: F.conv2d(x, w, b, **options), small, w, b, tolerance=1e-6)
    np.testing.assert_allclose(got, correlate(small, w, *geometry) + b[:, None, None], rtol=1e-9, atol=1e-12)


def test_conv_variants() -> None:
    w = RNG.standard_normal((3, 4, 2, 3))
    even = evaluate([F.conv2d(IMAGES[0], w, padding="same")])[0]
    np.testing.assert_allclose(even, correlate(IMAGES[:1], w, (1, 1), (0, 1, 1, 1), (1, 1), 1)[0], atol=1e-12)
    line = IMAGES[:, :, 0]
    got = differentiable(lambda x, k: F.conv1d(x, k, None, 2, 1), line, w[:, :, 0], tolerance=1e-6)
    np.testing.assert_allclose(
        got, correlate(line[:, :, None], w[:, :, :1], (1, 2), (0, 0, 1, 1), (1, 1), 1)[:, :, 0], atol=1e-12
    )
    x, k = gc.placeholder("float64", (1, 2, 3, 3)), gc.placeholder("float64", (2, 4, 3, 3))
    a, kernel, image = (
        RNG.standard_normal((1, 2, 3, 3)),
        RNG.standard_normal((2, 4, 3, 3)),
        RNG.standard_normal((1, 4, 6, 6)),
    )
    up = evaluate([F.conv_transpose2d(x, k, None, 2, 1, 1)], {x: a, k: kernel})[0]
    down = correlate(image, kernel, (2, 2), (1, 1, 1, 1), (1, 1), 1)
    assert up.shape == image.shape
    np.testing.assert_allclose((up * image).sum(), (a * down).sum())  # the transpose of conv2d


def windows(x: Any, k: int, s: int) -> Any:
    rows, columns = (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1
    return np.stack(
        [x[:, :, p : p + (rows - 1) * s + 1 : s, q : q + (columns - 1) * s + 1 : s] for p in range(k) for q in range(k)]
    )


def test_pools() -> None:
    x = IMAGES[:1, :2]
    np.testing.assert_allclose(differentiable(lambda t: F.max_pool2d(t, 2), x), windows(x, 2, 2).max(0))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    np.testing.assert_allclose(differentiable(lambda t: F.max_pool2d(t, 3, 2, 1), x), windows(padded, 3, 2).max(0))
    np.testing.assert_allclose(differentiable(lambda t: F.avg_pool2d(t, 3, 1), x), windows(x, 3, 1).mean(0))
    zeros = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    ones = np.pad(np.ones_like(x), ((0, 0), (0, 0), (1, 1), (1, 1)))
    np.testing.assert_allclose(evaluate([F.avg_pool2d(x, 3, 2, 1)])[0], windows(zeros, 3, 2).mean(0))
    np.testing.assert_allclose(
        evaluate([F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)])[0],
        windows(zeros, 3, 2).sum(0) / windows(ones, 3, 2).sum(0),
    )
    assert F.max_pool2d(x, 2, ceil_mode=True).shape == (1, 2, 3, 4) and F.max_pool2d(x[0], 2).shape == (2, 3, 3)
    assert F.max_pool2d(x, 2, 3, ceil_mode=True).shape == (1, 2, 2, 3)
    np.testing.assert_allclose(
        differentiable(lambda t: F.max_pool1d(t, 3, 2), x[0]),
        np.stack([x[0, :, :, i : i + 5 : 2] for i in range(3)]).max(0),
    )
    np.testing.assert_allclose(
        differentiable(lambda t: F.adaptive_avg_pool2d(t, (3, 1)), x), x.reshape(1, 2, 3, 2, 7).mean((3, 4))[..., None]
    )
    np.testing.assert_allclose(
        evaluate([F.adaptive_avg_pool2d(x, (None, 3))])[0],
        np.stack([x[..., a:b].mean(-1) for a, b in ((0, 3), (2, 5), (4, 7))], -1),
    )
    np.testing.assert_allclose(evaluate([F.adaptive_max_pool2d(x, 1)])[0], x.max((2, 3), keepdims=True))
    np.testing.assert_allclose(
        differentiable(lambda t: F.pad(t, (1, 0, 2, 1), value=3.0), x),
        np.pad(x, ((0, 0), (0, 0), (2, 1), (1, 0)), constant_values=3),
    )
    np.testing.assert_allclose(
        evaluate([F.pad(x, (-1, 1), "replicate")])[0], np.pad(x[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)), "edge")
    )


def test_linear_attention_embedding() -> None:
    w, b = RNG.standard_normal((3, 5)), RNG.standard_normal(3)
    np.testing.assert_allclose(differentiable(F.linear, X, w, b), X @ w.T + b)
    cube = RNG.standard_normal((2, 4, 5))
    np.testing.assert_allclose(differentiable(F.linear, cube, w, b), cube @ w.T + b)
    flat = [
        n.op.name
        for n in toposort([F.linear(gc.placeholder("float32", (None, 4, 5)), gc.placeholder("float32", (3, 5)))])
        if n.op.name == "matmul"
    ]
    assert flat == ["matmul"]
    q, k, v = RNG.standard_normal((2, 3, 5)), RNG.standard_normal((2, 4, 5)), RNG.standard_normal((2, 4, 6))
    scores = q @ k.swapaxes(1, 2) / 5**0.5
    np.testing.assert_allclose(differentiable(F.scaled_dot_product_attention, q, k, v), softmax(scores) @ v)
    causal = np.where(np.tril(np.ones((3, 4), bool)), scores, -np.inf)
    np.testing.assert_allclose(
        differentiable(lambda a, b, c: F.scaled_dot_product_attention(a, b, c, is_causal=True), q, k, v),
        softmax(causal) @ v,
    )
    np.testing.assert_allclose(
        differentiable(lambda a: F.scaled_dot_product_attention(a, a, a, gc.constant(scores[0, :, :3])), q[0]),
        softmax(q[0] @ q[0].T / 5**0.5 + scores[0, :, :3]) @ q[0],
    )
    table = RNG.standard_normal((5, 3))
    np.testing.assert_allclose(
        differentiable(lambda w: F.embedding(np.array([[1, 4], [1, 0]]), w), table), table[[[1, 4], [1, 0]]]
    )
    t = gc.placeholder("float64", (5, 3))
    g = evaluate([gc.gradients(F.embedding(np.array([1, 2, 1]), t, padding_idx=2).sum(), t)[0]], {t: table})[0]
    np.testing.assert_array_equal(g[:, 0], [0, 2, 0, 0, 0])
    np.testing.assert_array_equal(evaluate([F.one_hot(T, 5)])[0], np.eye(5, dtype=np.int64)[T])


def test_dropout() -> None:
    gc.random.seed(1)
    x = gc.placeholder("float32", (100, 200))
    y = F.dropout(x, 0.25)
    got, g = evaluate([y, gc.gradients(y.sum(), x)[0]], {x: np.ones((100, 200))})
    assert set(np.unique(got)) == {np.float32(0), np.float32(4 / 3)} and abs((got == 0).mean() - 0.25) < 0.01
    np.testing.assert_array_equal(got, g)  # the gradient sees the same mask
    assert F.dropout(x, 0.25, training=False).same(x) and F.dropout(x, 0.0).same(x)
    assert not evaluate([F.dropout(x, 1.0)], {x: np.ones((100, 200))})[0].any()
    channels = evaluate([F.dropout2d(gc.ones((8, 16, 3, 3)), 0.5)])[0]
    assert all(len(np.unique(c)) == 1 for c in channels.reshape(-1, 9)) and len(np.unique(channels)) == 2
    z = evaluate([F.alpha_dropout(gc.random.normal(shape=(40_000,)), 0.2)])[0]
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.03
    assert [v.name for v, _ in collect([y]).updates] == ["random/step"]


def test_reductions_have_safe_gradients() -> None:
    zeros = np.zeros(3)
    x = gc.placeholder("float64", (3,))
    for loss in (gc.norm(x), gc.std(x), gc.hypot(x, 0.0 * x).sum(), gc.norm(x, 1), F.cosine_similarity(x, x, 0)):
        assert np.isfinite(evaluate([gc.gradients(loss, x)[0]], {x: zeros})[0]).all()
    for f in (
        lambda t: gc.norm(t, axis=1),
        lambda t: gc.norm(t, 3, axis=1),
        lambda t: gc.std(t, 1, correction=1),
        lambda t: gc.var(t, (0, 1)),
        lambda t: gc.logsumexp(t, 0),
        lambda t: gc.norm(t, math.inf),
        lambda t: gc.prod(t, 1),
        lambda t: gc.clip(t, -1, 1),
        lambda t: t.max(1),
        lambda t: gc.logaddexp(t, 0.5),
        lambda t: gc.hypot(t, 2.0),
        lambda t: gc.einsum("ij,kj->ik", t, t),
        lambda t: t[::-1, 1::2] * 2,
        lambda t: t.at[1:, 0].multiply(3.0),
        lambda t: t[np.array([0, 0, 2])],
        lambda t: gc.take_along_axis(t, np.array([[0, 0, 4]] * 4), 1),
    ):
        differentiable(f, X)
    differentiable(lambda t: gc.where(t > 0, gc.sqrt(gc.where(t > 0, t, 1.0)), 0.0), X)
