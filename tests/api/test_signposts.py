"""Names from elsewhere: they work, or the error names ours; and every name that a message or a document gives is
there."""

from __future__ import annotations

import ast
import copy
import functools
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sessions import ROOT
from support.values import message_of

import graphcore as gc
from graphcore.api.foreign import METHODS
from graphcore.base import notices, signposts
from graphcore.base.signposts import SAME, SAME_METHODS, SignpostError

X = gc.placeholder("float32", (2, 3), name="x")
A = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
NAME = re.compile(r"\bgc\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
OWN = re.compile(r"\b(?:sess|session)\.([a-z]\w*)\(")
PART = re.compile(r"\b((?:nn|optim|data|train)\.[A-Z]\w*)")


def resolve(dotted: str) -> Any:
    return functools.reduce(getattr, dotted.split("."), gc)


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the packages' sources, documentation strings and messages alike, and the documents."""
    for package in ("graphcore", "passes", "backends"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_every_name_that_a_text_gives_is_there() -> None:
    wrong, seen = [], set()
    for place, text in texts():
        for name in (*NAME.findall(text), *PART.findall(text)):
            seen.add(name)
            try:
                resolve(name)
            except AttributeError:
                wrong.append(f"{place}: gc.{name}")
        for name in OWN.findall(text):
            seen.add(name)
            if not hasattr(gc.Session, name):
                wrong.append(f"{place}: sess.{name}")
    assert not wrong, "\n".join(wrong)
    assert {"Session", "nn.functional.cross_entropy", "random.seed", "run", "set_value", "nn.Linear"} <= seen


@pytest.mark.parametrize("name", SAME)
def test_names_that_mean_the_same_work(name: str) -> None:
    assert name not in gc.__all__ and resolve(SAME[name]) is getattr(gc, name)
    assert name not in dir(gc)


@pytest.mark.parametrize("place", signposts._ADVICE)
def test_other_names_raise_what_to_write(place: str) -> None:
    holder = X if place == "Tensor" else gc if place == "gc" else resolve(place)
    for name, advice in signposts._ADVICE[place].items():
        text = message_of(SignpostError, lambda name=name: getattr(holder, name))
        assert text.endswith(f": {advice}") and name in text
        assert not hasattr(holder, name) and getattr(holder, name, None) is None
    assert issubclass(SignpostError, AttributeError) and issubclass(SignpostError, gc.GraphcoreError)


@pytest.mark.parametrize("place", signposts._PLANNED)
def test_names_to_come_say_so(place: str) -> None:
    holder = gc if place == "gc" else resolve(place)
    for name in signposts._PLANNED[place].split():
        if name not in dir(holder):  # else it has come
            assert "is not in this version" in message_of(SignpostError, lambda name=name: getattr(holder, name))


def test_names_that_are_nowhere() -> None:
    for holder in (gc, X, gc.nn, gc.nn.functional, gc.optim, gc.data, gc.train, gc.random):
        text = message_of(AttributeError, lambda holder=holder: holder.no_such_name)
        assert text.endswith(" has no attribute 'no_such_name'")
    assert not hasattr(gc, "__wrapped__") and not hasattr(X, "__array_interface__")
    assert copy.copy(X).same(X)


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_functions_that_take_the_tensor_first_are_methods() -> None:
    assert {"take_along_axis", "tile", "log10", "maximum", "isclose", "vecdot", "tril", "logaddexp"} <= METHODS.keys()
    assert not {"concat", "where", "einsum", "zeros", "stack"} & METHODS.keys()
    with gc.Session("numpy") as session:
        got = session.run([X.log10(), X.mul(2), X.sub(X.T.T), X.roll(1, axis=1), X.eq(A), X.mm(X.T)], {X: A})
    wanted = [np.log10(A), A * 2, A * 0, np.roll(A, 1, 1), A == A, A @ A.T]
    for value, expected in zip(got, wanted, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name, ours in SAME_METHODS.items():
        assert hasattr(X, name) == (ours in METHODS or name in vars(gc.Tensor)), name


def test_sizes_as_in_numpy_and_the_error_for_the_others() -> None:
    assert X.size == X.numel() == X.nelement() == 6 and X.size * 2 == 12 and X.dim() == 2
    assert X.clone() is X and X.contiguous() is X
    symbolic = gc.placeholder("float32", (None, 3))
    assert symbolic.size == symbolic.shape[0] * 3 == symbolic.numel()
    for t in (X, symbolic):
        for call in (
            lambda t=t: t.size(),
            lambda t=t: t.size(0),
            lambda t=t: t.numel()(1),
        ):
            assert "t.shape[0]" in message_of(gc.UsageError, call)


def test_devices_are_for_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    for device in ("cuda", "cpu", "cuda:1", "mps"):
        assert "gc.Session(device=" in message_of(gc.UsageError, lambda device=device: X.to(device))
    assert X.to("float16").dtype == X.to(dtype=gc.float16).dtype == "float16"
    model = gc.nn.Sequential(gc.nn.Linear(2, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert model.to("cuda:0") is model.cuda() is model.cpu() is model.to(device="cpu", non_blocking=True)
    assert [w.category for w in caught] == [gc.DeviceWarning] and "gc.Session(device=" in str(caught[0].message)
    for dtype in ("float16", gc.float64, np.float32):
        assert model.to(dtype) is model and {v.dtype for v in model.parameters()} == {gc.asarray([1.0], dtype).dtype}


# --- NumPy's functions ------------------------------------------------------------------------------------------------

OPERATORS: list[Callable[[Any, Any], Any]] = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip
BITS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]


@pytest.mark.parametrize("array", [A, A[0], np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.0, np.float32)])
def test_operators_with_an_array_on_the_left(fast: gc.Session, array: Any) -> None:
    for op in OPERATORS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy's numbers are weak on the left, too
            y = op(array, X)
        assert isinstance(y, gc.Tensor) and y.dtype in ("float32", "bool")
        np.testing.assert_allclose(fast.run(y, {X: A * 0.5}), op(array, A * np.float32(0.5)), rtol=1e-5)
    assert (A @ X.T).shape == (2, 2) and np.add(X, array).same(np.add(X, array)) is False


def test_bits_and_logic_with_an_array_on_the_left(fast: gc.Session) -> None:
    n, b = gc.placeholder("int32", (3,)), gc.placeholder("bool", (3,))
    left, right = np.array([6, 5, 3], np.int32), np.array([1, 2, 3], np.int32)
    for op in BITS:
        np.testing.assert_array_equal(fast.run(op(left, n), {n: right}), op(left, right))
    for op in BITS[:3]:
        flags = np.array([True, False, True])
        np.testing.assert_array_equal(fast.run(op(flags, b), {b: [True, True, False]}), op(flags, [True, True, False]))


@pytest.mark.parametrize(
    ("call", "ours"),
    [
        (lambda: np.exp(X), "write gc.exp"),
        (lambda: np.arctan2(X, A), "write gc.atan2"),
        (lambda: np.absolute(X), "write gc.abs"),
        (lambda: np.maximum(A, X), "write gc.maximum"),
        (lambda: np.add.reduce(X), "write gc.sum"),
        (lambda: np.maximum.reduce(X), "write gc.max"),
        (lambda: np.sum(X), "write gc.sum"),
        (lambda: np.mean(X, axis=0), "write gc.mean"),
        (lambda: np.concatenate([A, X]), "write gc.concatenate"),
        (lambda: np.where(X, A, 0), "write gc.where"),
        (lambda: np.reshape(X, (6,)), "write gc.reshape"),
        (lambda: np.fft.fft(X), "by NumPy before a run"),
        (lambda: np.frexp(X), "by NumPy before a run"),
        (lambda: operator.iadd(A.copy(), X), "write y = array + t"),
        (lambda: np.add(A, X, where=A > 2), "takes no where"),
    ],
)
def test_numpy_functions_are_refused_by_the_names_of_ours(call: Callable[[], Any], ours: str) -> None:
    text = message_of(gc.UsageError, call)
    assert text.startswith("np.") and ours in text
    assert np.shape(X) == (2, 3) and np.ndim(X) == 2 and np.size(X) == 6


def test_this_file_is_where_signposts_are_kept() -> None:
    assert Path(signposts.__file__).parent.name == "base"  # which imports nothing that asks for names


def test_variables_take_updates_by_the_names_of_tensorflow(fast: gc.Session) -> None:
    w = gc.Variable([1.0, 2.0], name="w")
    added, taken = w.assign_add(1), w.assign_sub([0.5, 1.0])
    fast.run(added)
    fast.run([taken])
    np.testing.assert_array_equal(fast.get_value(w), [1.5, 2.0])
    assert added.variable is w and added.value.shape == (2,)
    assert "has shape (2,), the value (3, 2)" in message_of(
        gc.ShapeError, lambda: w.assign_add(np.ones((3, 2), np.float32))
    )
    assert "w.assign_add(value)" in message_of(SignpostError, lambda: (w * 2).assign_add(1))
