"""Element types that change without a word: a float64 array of NumPy's among tensors of float32."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from graphcore.base import notices
from graphcore.nn import functional as F

A = np.ones((3, 3))
X = gc.placeholder("float32", (3, 3), name="x")
H = gc.placeholder("float16", (3, 3), name="h")
N = gc.placeholder("int32", (3, 3), name="n")
D = gc.placeholder("float64", (3, 3), name="d")
W = gc.Variable(A, name="w")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts without lines that were warned of."""
    monkeypatch.setattr(notices, "_warned", set())
    yield


def told(build: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call gives, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = build()
    assert all(w.category is gc.DTypeWarning and w.filename == __file__ for w in caught)
    return result, [str(w.message) for w in caught]


WIDENING: dict[str, Callable[[], Any]] = {
    "add": lambda: X + A,
    "multiply": lambda: A * X,
    "pow": lambda: X ** np.array(2.0),
    "equal": lambda: X == A,
    "less": lambda: A[0] > X,
    "maximum": lambda: gc.maximum(X, A),
    "where": lambda: gc.where(X > 0, X, A),
    "clip": lambda: gc.clip(X, A, None),
    "atan2": lambda: gc.atan2(X, A),
    "isclose": lambda: gc.isclose(X, A),
    "add_n": lambda: gc.add_n([X, A]),
    "matmul": lambda: X @ A,
    "reversed matmul": lambda: A @ X,
    "einsum": lambda: gc.einsum("ij,jk", X, A),
    "tensordot": lambda: gc.tensordot(X, A),
    "concat": lambda: gc.concat([X, A]),
    "stack": lambda: gc.stack([X, A]),
    "scatter_add": lambda: gc.scatter_add(X, 0, np.zeros((3, 3), int), A),
    "index_add": lambda: gc.index_add(X, 0, [0, 1, 2], A),
    "mse_loss": lambda: F.mse_loss(X, A),
    "binary_cross_entropy": lambda: F.binary_cross_entropy(X, A),
    "linear": lambda: F.linear(X, A),
    "conv2d": lambda: F.conv2d(X[None, None], np.ones((1, 1, 2, 2))),
    "attention": lambda: F.scaled_dot_product_attention(X[None], A[None], X[None]),
    "half": lambda: H * A,
    "integers": lambda: N * A,
    "a variable": lambda: X @ W,
    "a view of a variable": lambda: X + W[0][None].T,
    "a constant": lambda: X - gc.constant(A),
}


@pytest.mark.parametrize("case", WIDENING)
def test_a_float64_array_among_narrower_tensors_warns(case: str) -> None:
    result, messages = told(WIDENING[case])
    assert result.dtype in ("float64", "bool")
    (message,) = messages
    given = {"half": "float16", "integers": "int32"}.get(case, "float32")
    assert f"a tensor of {given} becomes float64, because operand " in message
    assert f"the tensor is {'n' if case == 'integers' else 'h' if case == 'half' else ''}" in message
    if "variable" in case or case == "a constant":
        assert "make it with dtype='float32'" in message and __file__ in message
    else:
        wanted = "float16" if case == "half" else "float32"
        assert "is a NumPy array of float64 (" in message and f"a.astype(np.{wanted})" in message


QUIET: dict[str, tuple[Callable[[], Any], str]] = {
    "Python numbers": (lambda: X * 2.5 + 1, "float32"),
    "NumPy's float64 numbers, which are Python's": (
        lambda: X * np.pi * np.sqrt(2) / np.float64(3) * A.mean(),
        "float32",
    ),
    "float32 arrays": (lambda: X + np.ones(3, np.float32), "float32"),
    "integer arrays": (lambda: X + np.arange(3), "float32"),
    "lists": (lambda: X + [1.0, 2.0, 3.0], "float32"),
    "a number for integers": (lambda: N * 0.5, "float32"),
    "what is float64 already": (lambda: D * A + W, "float64"),
    "a mixture that is fed": (lambda: X + D, "float64"),
    "a mixture with more than arrays": (lambda: gc.add_n([X, D, A]), "float64"),
    "arrays alone": (lambda: gc.add(A, A), "float64"),
    "meant": (lambda: X.astype("float64") + A, "float64"),
    "at.set": (lambda: X.at[0].set(A[0]), "float32"),
    "at.add": (lambda: H.at[[0, 1]].add(A[0]), "float16"),
    "class weights": (lambda: F.cross_entropy(X, [0, 1, 2], weight=A[0]), "float32"),
    "pos_weight": (lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=A), "float32"),
    "weight": (lambda: F.binary_cross_entropy(X, X, weight=A), "float32"),
    "half and a number": (lambda: F.binary_cross_entropy_with_logits(H, H, pos_weight=2.0), "float16"),
    "layer_norm": (lambda: F.layer_norm(X, (3,), A[0], A[0]), "float32"),
    "bias": (lambda: F.linear(X, X, A[0]), "float32"),
    "full_like": (lambda: gc.full_like(X, np.float64(3)), "float32"),
    "pad": (lambda: gc.pad(X, 1, constant_values=np.float64(3)), "float32"),
    "grad_ys": (lambda: gc.gradients(X * 2, X, A)[0], "float32"),
}


@pytest.mark.parametrize("case", QUIET)
def test_what_changes_no_type_is_quiet(case: str) -> None:
    build, dtype = QUIET[case]
    result, messages = told(build)
    assert result.dtype == dtype and not messages


def test_a_line_warns_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            y = X + A
        y = X + A
    assert y.dtype == "float64" and len(caught) == 2 and caught[0].lineno == caught[1].lineno - 1
    assert issubclass(gc.DTypeWarning, gc.GraphcoreWarning) and issubclass(gc.GraphcoreWarning, UserWarning)


def test_values_for_at_that_do_not_fit_are_refused_without_a_warning() -> None:
    for x, value in ((N, A), (N, 1.5), (X, D), (H, X), (X, gc.constant(A))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(gc.DTypeError, match=rf"does not fit {x.dtype}; cast it with .astype\('{x.dtype}'\)"):
                x.at[:].set(value)
