"""Numbers that an element type cannot hold: refused where they are written or fed, never wrapped around."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc
from graphcore.ir.graph import Update, toposort
from graphcore.ir.leaves import Constant

F = gc.nn.functional
X, U, B = gc.placeholder("int8", (3,), name="x"), gc.placeholder("uint8", (3,)), gc.placeholder("bool", (3,))
REAL = gc.placeholder("float32", (3,))
HUGE = 10**400


def variable() -> gc.Variable:
    return gc.Variable([1, 2, 3], dtype="int8", name="n")


WRITTEN: dict[str, Callable[[Any], Any]] = {
    "constant": lambda n: gc.constant(n, "int8"),
    "constant list": lambda n: gc.constant([[1, n]], "int8"),
    "constant array": lambda n: gc.constant(np.array([1, n]), "int8"),
    "named": lambda n: gc.asarray([1, n], "int8", name="c"),
    "asarray": lambda n: gc.asarray(n, "int8"),
    "Variable": lambda n: gc.Variable([n], dtype="int8"),
    "init.constant": lambda n: gc.init.constant((2,), n, "int8"),
    "set_initial": lambda n: variable().set_initial([1, 2, n]),
    "assign": lambda n: variable().assign([1, 2, n]),
    "assign_add": lambda n: variable().assign_add(n),
    "full": lambda n: gc.full((2,), n, "int8"),
    "full_like": lambda n: gc.full_like(X, n),
    "linspace": lambda n: gc.linspace(0, n, 3, dtype="int8"),
    "add": lambda n: X + n,
    "radd": lambda n: n + X,
    "compare": lambda n: n > X,
    "where": lambda n: gc.where(B, X, n),
    "clip": lambda n: X.clip(0, n),
    "at": lambda n: X.at[0].set(n),
    "at a mask": lambda n: X.at[B].add(n),
    "masked_fill": lambda n: X.masked_fill(B, n),
    "pad": lambda n: gc.pad(X, 1, constant_values=n),
    "functional.pad": lambda n: F.pad(X, (1, 1), value=n),
    "scatter_add": lambda n: gc.scatter_add(X, 0, np.array([0, 1, 2]), n),
}


FLOATS_MEAN_SOMETHING_ELSE = (
    "add radd compare where clip masked_fill assign assign_add set_initial at scatter_add at a mask".split(" ", 11)
)


@pytest.mark.parametrize(
    "number", [128, -129, 300, 300.0, 2**70, HUGE, float("nan"), -float("inf")], ids=lambda n: str(n)[:9]
)
@pytest.mark.parametrize("way", WRITTEN)
def test_an_integer_type_refuses_what_it_cannot_hold(way: str, number: Any) -> None:
    if isinstance(number, float) and way in FLOATS_MEAN_SOMETHING_ELSE:
        number = int(number) if np.isfinite(number) else HUGE
    if way == "linspace":  # computes in float64
        number = 300 if not -1e9 < number < 1e9 else number
    text = message_of(gc.DTypeError, lambda: WRITTEN[way](number))
    assert "int8 (-128 to 127)" in text
    assert ("of 401 digits" if number == HUGE else str(number)) in text
    assert way.split()[0] in text or way not in gc.__all__


@pytest.mark.parametrize("number", [-128, 127, np.int64(127), True, 3.0])
@pytest.mark.parametrize("way", ["constant", "constant list", "full", "pad", "Variable", "functional.pad"])
def test_what_it_can_hold_keeps_its_value(way: str, number: Any) -> None:
    with gc.Session("numpy") as session:
        found = session.run(WRITTEN[way](number), {X: [1, 2, 3]})
    assert found.dtype == np.int8 and int(number) in found


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_the_edges_of_every_integer_type(kind: str) -> None:
    info = np.iinfo(kind)
    for edge, beyond in ((int(info.min), int(info.min) - 1), (int(info.max), int(info.max) + 1)):
        op: Any = gc.constant([edge], kind).node.op
        assert op.array.tolist() == [edge]
        for number in (beyond, float(beyond)) if info.bits < 64 else (beyond,):
            for make in (partial(gc.constant, number), partial(gc.constant, [number]), partial(gc.full, (2,), number)):
                assert str(number) in message_of(gc.DTypeError, partial(make, dtype=kind))


def calls() -> Iterator[Callable[[], Any]]:
    """Every public function of tensors, called with the number 300 where a number may stand."""
    arguments = [(X, 300), (300, X), (X, 0, 300), (B, X, 300), (X, 300, 300), (X, B, 300), (X, (1, 1), "constant", 300)]
    for module in (gc, F):
        for name in dir(module):
            function = getattr(module, name)
            if callable(function) and not name.startswith("_") and not isinstance(function, type):
                yield from (partial(function, *args) for args in arguments)


def test_no_function_wraps_a_number() -> None:
    """In 8 bits 300 would be 44, and 300.0 too."""
    built = 0
    for call in calls():
        try:
            made = call()
        except (gc.GraphcoreError, TypeError, ValueError, IndexError, AttributeError):
            continue
        values = [
            t.value if isinstance(t, Update) else t for t in (made if isinstance(made, (list, tuple)) else [made])
        ]
        for node in toposort([t for t in values if isinstance(t, gc.Tensor)]):
            built += 1
            if isinstance(node.op, Constant) and node.op.dtype.itemsize == 1:
                assert 44 not in node.op.array, call
    assert built > 300


def test_a_floating_type_rounds_to_infinity_and_refuses_what_is_beyond_all_floats() -> None:
    assert np.isinf(gc.constant(1e6, "float16").node.op.array)  # type: ignore[attr-defined]
    assert gc.constant(2**70, "float32").node.op.array == 2.0**70  # type: ignore[attr-defined]
    ways: list[Callable[[], Any]] = [
        lambda: gc.constant(HUGE, "float32"),
        lambda: REAL + HUGE,
        lambda: REAL.clip(0, HUGE),
        lambda: gc.full((2,), HUGE, "float16"),
        lambda: gc.random.uniform((2,), 0, HUGE),
        lambda: gc.random.normal((2,), HUGE),
        lambda: gc.gradients(REAL, REAL, grad_ys=[HUGE, 1, 1]),
    ]
    for way in ways:
        assert "of 401 digits does not fit float" in message_of(gc.DTypeError, way)
    assert "a finite number" in message_of(gc.UsageError, lambda: gc.optim.SGD(lr=HUGE))


@pytest.mark.parametrize("value", [[300, 1, 2], np.array([1, 300, 2]), [1, 2, 2**70], np.array([1, 2, -129], np.int16)])
def test_feeds_and_values_of_variables(sess: gc.Session, value: Any) -> None:
    n = variable()
    text = message_of(gc.FeedError, lambda: sess.run(X + 1, {X: value}))
    assert "the feed for 'x' holds" in text and f"{__file__}:" in text
    assert "the feed for 'x' holds" in message_of(gc.FeedError, lambda: sess.make_callable(X + 1, [X])(value))
    for load in (lambda: sess.set_value(n, value), lambda: sess.load_state_dict({"n": value}, strict=False)):
        sess.run(n)
        assert "'n' holds" in message_of(gc.DTypeError, load)
    assert sess.run([n, X + 1], {X: np.array([1, -128, 126])})[1].tolist() == [2, -127, 127]
    assert sess.get_value(n).tolist() == [1, 2, 3]
