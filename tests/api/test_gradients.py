"""The driver of gradients: depth, the three answers, stops, custom gradients, checkpoints, matrices, the checks
themselves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from support.values import evaluate, message_of, ph

import graphcore as gc
from graphcore import functional as F
from graphcore.api.tensor import Builder, Tensor
from graphcore.ir.graph import toposort
from graphcore.ir.op import Map, primitive

HERE = __file__


# --- depth ------------------------------------------------------------------------------------------------------------


def check_chain(length: int) -> None:
    x = ph()
    y = x
    for _ in range(length // 2):
        y = gc.sin(y) + 0.5
    (g,) = gc.gradients([y], [x])
    value, expected = 0.3, 1.0
    for _ in range(length // 2):
        expected *= np.cos(value)
        value = np.sin(value) + 0.5
    got, last = evaluate([g, y], {x: 0.3})
    np.testing.assert_allclose(last, value, rtol=1e-12)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_a_chain_much_deeper_than_the_stack_differentiates() -> None:
    check_chain(6_000)


@pytest.mark.slow
def test_a_chain_of_100_000_ops_differentiates() -> None:
    check_chain(100_000)


def test_a_value_used_often_gets_one_sum() -> None:
    x = ph(4)
    y = gc.tanh(x)
    total = y * 1.5
    for i in range(50):
        total = total + y * float(i)
    before = len(toposort([total]))
    g = gc.gradients(total.sum(), x)[0]
    sums = [n for n in toposort([g]) if n.op.name == "add_n"]
    assert len(sums) == 1 and len(sums[0].inputs) == 51
    assert len(toposort([g])) < 6 * before
    np.testing.assert_allclose(evaluate([g], {x: np.zeros(4)})[0], np.full(4, 1.5 + 1225))


def test_sharing_does_not_grow_exponentially() -> None:
    x = ph()
    y = x
    for _ in range(60):
        y = y * y * 0.5 + y
    g = gc.gradients(y, x)[0]
    assert len(toposort([g])) < 2000


# --- three answers ----------------------------------------------------------------------------------------------------


@primitive
class RoughSteps(Map):
    """A user's op of floats without a gradient."""

    differentiable: ClassVar[bool] = False


def test_disconnected_not_differentiable_and_zero_are_three_answers() -> None:
    x, z = ph(3, name="x"), ph(3, name="z")
    n = ph(3, dtype="int32", name="n")
    loss = (x * 2).sum()
    assert gc.gradients(loss, z)[0] is None  # disconnected
    assert gc.gradients(loss, [x, z])[1] is None
    through_integers = x.astype("int32").astype("float64").sum()
    assert gc.gradients(through_integers, x)[0] is None
    assert gc.gradients((x * n.astype("float64")).sum(), [x])[0] is not None
    zero = gc.gradients(gc.floor(x).sum(), x, unconnected="zero")[0]  # a rule that contributes nothing
    np.testing.assert_array_equal(evaluate([zero], {x: np.ones(3)})[0], np.zeros(3))
    assert gc.gradients(gc.argmax(x).astype("float64") + loss, x)[0] is not None
    rough = Builder().rough_steps
    text = message_of(gc.GradientError, lambda: gc.gradients(rough(x).sum(), x))  # not differentiable
    assert "rough_steps is not differentiable" in text and "gc.stop_gradient" in text and f"{HERE}:" in text
    assert gc.gradients(rough(x).sum() + loss, z)[0] is None  # not on a path to z


def test_what_stands_for_an_unconnected_gradient() -> None:
    x, z = ph(3, name="x"), gc.placeholder("float64", (2, 2), name="z")  # z's line is told, so it is made here
    loss = x.sum()
    zeros = gc.gradients(loss, [x, z], unconnected="zero")[1]
    assert zeros.type == z.type
    np.testing.assert_array_equal(evaluate([zeros], {z: np.ones((2, 2))})[0], np.zeros((2, 2)))
    text = message_of(gc.GradientError, lambda: gc.gradients(loss, [x, z], unconnected="raise"))
    assert "do not depend on xs[1], z: float64(2, 2)" in text and f"{HERE}:" in text
    assert "'none', 'zero' or 'raise'" in message_of(gc.UsageError, lambda: gc.gradients(loss, x, unconnected="zeros"))


def test_the_gradient_of_a_value_for_itself_and_for_values_on_the_way() -> None:
    x = ph(3)
    h = x * 2
    y = (h * h).sum()
    gx, gh, gy = gc.gradients(y, [x, h, y])
    at = {x: np.array([1.0, 2, 3])}
    for g, value in ((gx, [8, 16, 24]), (gh, [4, 8, 12]), (gy, 1)):
        np.testing.assert_array_equal(evaluate([g], at)[0], value)


def test_several_ys_and_repeated_operands() -> None:
    x = ph(2)
    at = {x: np.array([1.0, 3])}
    np.testing.assert_array_equal(evaluate([gc.gradients([x.sum(), (x * x).sum(), x.sum()], x)[0]], at)[0], [4, 8])
    np.testing.assert_array_equal(evaluate([gc.gradients((x * x * x + x / x).sum(), x)[0]], at)[0], [3, 27])
    np.testing.assert_array_equal(evaluate(gc.gradients(x.sum(), [x, x]), at), [[1, 1], [1, 1]])


# --- stops ------------------------------------------------------------------------------------------------------------


def test_stop_gradient_and_stop_gradients() -> None:
    x = ph(2)
    at = {x: np.array([2.0, 3])}
    for stopped in (gc.stop_gradient(x), x.detach()):
        np.testing.assert_array_equal(evaluate([gc.gradients((stopped * x).sum(), x)[0]], at)[0], [2, 3])
        assert gc.gradients(stopped.sum(), x)[0] is None
    h = x * x
    y = (h * x).sum()
    np.testing.assert_array_equal(evaluate([gc.gradients(y, x)[0]], at)[0], [12, 27])
    np.testing.assert_array_equal(evaluate([gc.gradients(y, x, stop_gradients=[h])[0]], at)[0], [4, 9])
    gx, gh = gc.gradients(y, [x, h], stop_gradients=h)
    np.testing.assert_array_equal(evaluate([gx, gh], at), [[4, 9], [2, 3]])


def test_no_grad_as_context_and_decorator() -> None:
    x = ph(2)
    at = {x: np.array([2.0, 3])}
    with gc.no_grad():
        assert not gc.grad_enabled()
        frozen = x * 5
        with gc.enable_grad():
            live = x * 7
    assert gc.grad_enabled()

    @gc.no_grad()
    def f(t: Tensor) -> Tensor:
        return t * 11

    np.testing.assert_array_equal(evaluate([gc.gradients((frozen * x + live + f(x)).sum(), x)[0]], at)[0], [17, 22])
    y = (x * x).sum()
    with gc.no_grad():  # gradients may be taken inside: what was built outside is differentiable
        g = gc.gradients(y, x)[0]
    np.testing.assert_array_equal(evaluate([g], at)[0], [4, 6])


def test_grad_ys() -> None:
    x = ph(2, name="x")
    y = x * x
    at = {x: np.array([1.0, 2])}
    np.testing.assert_array_equal(evaluate([gc.gradients(y, x, grad_ys=[10.0, 100])[0]], at)[0], [20, 400])
    u = ph(2)
    g = gc.gradients(y, x, u)[0]
    np.testing.assert_array_equal(evaluate([gc.gradients(g, u, [1.0, 1.0])[0]], {**at, u: np.ones(2)})[0], [2, 4])
    assert "no grad_ys; reduce it to a scalar" in message_of(gc.GradientError, lambda: gc.gradients(y, x))
    assert "grad_ys has the shape (3,), its y (2,)" in message_of(
        gc.ShapeError, lambda: gc.gradients(y, x, [1.0, 1.0, 1.0])
    )
    assert "1 ys but 2 grad_ys" in message_of(gc.UsageError, lambda: gc.gradients([y], [x], [u, u]))
    np.testing.assert_array_equal(evaluate([gc.gradients(y, x, [u])[0]], {**at, u: np.ones(2)})[0], [2, 4])
    assert "grad_ys is float32, its y float64" in message_of(
        gc.DTypeError, lambda: gc.gradients(y, x, ph(2, dtype="float32"))
    )


# --- custom gradients -------------------------------------------------------------------------------------------------


def test_custom_gradient_replaces_the_rule() -> None:
    @gc.custom_gradient
    def clipped(x: Tensor, limit: Tensor) -> Any:
        return x * limit, lambda g: (gc.clip(g, -1.0, 1.0), None)

    x, limit = ph(3), ph()
    y = clipped(x, limit)
    gx, gl = gc.gradients(y, [x, limit], [5.0, 0.5, -7])
    at = {x: np.array([1.0, 2, 3]), limit: np.float64(2)}
    assert gl is None
    np.testing.assert_array_equal(evaluate([y, gx], at), [[2, 4, 6], [1, 0.5, -1]])


def test_custom_gradient_captures_and_uses_inner_values() -> None:
    w = gc.Variable(np.array([2.0, 4.0]))
    scale = ph(2)

    @gc.custom_gradient
    def f(x: Tensor) -> Any:
        hidden = gc.exp(x) * w * scale
        return hidden + 1, lambda g: g * hidden * 10

    x = ph(2)
    y = f(x)
    g = gc.gradients(y.sum(), x)[0]
    at = {x: np.zeros(2), scale: np.array([1.0, 3])}
    np.testing.assert_allclose(evaluate([y, g], at), [[3, 13], [20, 120]])
    (captured,) = gc.gradients(y.sum(), [w], unconnected="zero")
    np.testing.assert_array_equal(evaluate([captured], at)[0], [0, 0])  # the rule speaks for the arguments only
    second = gc.gradients(g.sum(), x)[0]  # the rule itself is differentiable
    np.testing.assert_allclose(evaluate([second], at)[0], [20, 120])


def test_custom_gradients_nest_and_run() -> None:
    @gc.custom_gradient
    def inner(x: Tensor) -> Any:
        return x * 2, lambda g: g * 100

    @gc.custom_gradient
    def outer(x: Tensor) -> Any:
        y = inner(x) + 1
        return (y, y * 2), lambda g, h: gc.gradients([inner(x)], [x], [g + h])[0]

    x = ph(2)
    a, b = outer(x)
    g = gc.gradients(a.sum() + 3 * b.sum(), x)[0]
    at = np.array([1.0, 2])
    np.testing.assert_array_equal(evaluate([a, b], {x: at}), [[3, 5], [6, 10]])
    np.testing.assert_array_equal(evaluate([g], {x: at})[0], [400, 400])
    with gc.Session("numpy:kernels") as session:
        np.testing.assert_array_equal(session.run([a, g], {x: at}), [[3, 5], [400, 400]])


def test_custom_gradients_that_are_wrong() -> None:
    x = ph(2)
    cases = [
        (lambda t: (t * 2, lambda g: (g, g)), "has 1 arguments, its gradient function gave 2 gradients"),
        (lambda t: (t * 2, lambda g: g.sum()), "gradient 1 of the function at"),
        (lambda t: (t * 2, lambda g: g.astype("float32")), "is float32(2,), its argument is float64(2,)"),
    ]
    for f, fragment in cases:
        y = gc.custom_gradient(f)(x).sum()
        text = message_of(gc.GradientError, lambda y=y: gc.gradients(y, x))
        assert fragment in text and f"{HERE}:" in text, text
    for f in (lambda t: t * 2, lambda t: (t, t, t), lambda t: (t, 3)):
        text = message_of(gc.UsageError, lambda f=f: gc.custom_gradient(f)(x))
        assert "must return (y, grad_fn)" in text and f"{HERE}:" in text


# --- checkpoint -------------------------------------------------------------------------------------------------------


def test_checkpoint_gives_the_same_values_and_gradients() -> None:
    w = gc.Variable(np.linspace(-1, 1, 9).reshape(3, 3))

    def block(x: Tensor) -> Tensor:
        return gc.tanh(gc.exp(x @ w) * 0.5)

    x = ph(None, 3)
    plain, again = block(block(x)).sum(), gc.checkpoint(block)(gc.checkpoint(block)(x)).sum()
    at = {x: np.random.default_rng(0).standard_normal((4, 3))}
    results = [evaluate([loss, *gc.gradients(loss, [x, w])], at) for loss in (plain, again)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    second = [gc.gradients(gc.gradients(loss, x)[0].sum(), w)[0] for loss in (plain, again)]
    np.testing.assert_allclose(*evaluate(second, at), rtol=1e-10)


def test_recomputed_nodes_stay_apart_from_the_originals() -> None:
    from passes.graph.base import PassContext
    from passes.graph.inline_regions import InlineRegions
    from passes.graph.simplify import Simplify

    def exps(loss: Tensor) -> int:
        graph = gc.Graph((loss, gc.gradients(loss, x)[0]), (), (x,))
        for p in (InlineRegions(), Simplify()):
            graph = p.run(graph, PassContext())
        return sum(n.op.name == "exp" for n in graph.nodes())

    x = ph(3)

    def body(t: Tensor) -> Tensor:
        return gc.tanh(gc.exp(t))

    assert exps(body(x).sum()) == 1
    assert exps(gc.checkpoint(body)(x).sum()) == 2
    nested = gc.checkpoint(lambda t: body(gc.checkpoint(body)(t)))
    assert exps(nested(x).sum()) > exps(body(body(x)).sum())


def test_checkpoint_of_several_values_in_several_sessions() -> None:
    f = gc.checkpoint(lambda a, b: (a * b, gc.sin(a) + b))
    a, b = ph(3), ph(3)
    p, q = f(a, b)
    ga, gb = gc.gradients((p * q).sum(), [a, b])
    u, v = np.array([1.0, 2, 3]), np.array([0.5, -1, 2])
    expected = [v * (np.sin(u) + v) + u * v * np.cos(u), u * (np.sin(u) + v) + u * v]
    for device in ("numpy", "numpy:kernels"):
        with gc.Session(device) as session:
            np.testing.assert_allclose(session.run([ga, gb], {a: u, b: v}), expected, rtol=1e-12)


def test_dropout_inside_a_checkpoint_draws_one_mask() -> None:
    x = ph(200, dtype="float32")
    y = gc.checkpoint(lambda t: F.dropout(t, 0.5) * 1.0)(x)
    g = gc.gradients(y.sum(), x)[0]
    with gc.Session("numpy") as session:
        value, slope_ = session.run([y, g], {x: np.ones(200)})
    np.testing.assert_array_equal(value, slope_)
    assert 0 < (value == 0).sum() < 200


# --- backward ---------------------------------------------------------------------------------------------------------


def test_backward_accumulates_until_it_is_zeroed() -> None:
    w, fixed = gc.Variable(np.array([1.0, 2.0]), name="w"), gc.Variable(np.array([3.0, 4.0]), trainable=False)
    unused = gc.Variable(1.0)
    loss = (w * w * fixed).sum()
    loss.backward()
    assert fixed.grad is None and unused.grad is None
    np.testing.assert_array_equal(evaluate([w.grad], {})[0], [6, 16])
    (w * 10).sum().backward()
    np.testing.assert_array_equal(evaluate([w.grad], {})[0], [16, 26])
    w.zero_grad()
    assert w.grad is None


# --- the checks themselves --------------------------------------------------------------------------------------------


def test_gradcheck_finds_wrong_gradients() -> None:
    @gc.custom_gradient
    def wrong(x: Tensor) -> Any:
        return x * x, lambda g: g * x * 2.01

    at = np.array([1.0, 2.0])
    text = message_of(gc.GradientError, lambda: gc.gradcheck(wrong, [at]))
    assert (
        "output 0 for input 0" in text
        and "2 of 4 derivatives differ" in text
        and "2.01, the difference quotient 2" in text
        and f"{HERE}:" in text
    )
    assert gc.gradcheck(wrong, at, raise_exception=False) is False
    assert gc.gradcheck(wrong, at, rtol=0.1)

    @gc.custom_gradient
    def wrong_second(x: Tensor) -> Any:
        return x**3, lambda g: g * (3 * x * x).detach()

    assert gc.gradcheck(wrong_second, at)
    assert gc.gradgradcheck(wrong_second, at, raise_exception=False) is False


def test_gradcheck_refuses_what_it_cannot_check() -> None:
    assert "no input is of a floating type" in message_of(
        gc.UsageError, lambda: gc.gradcheck(lambda n: n * 2, [np.arange(3)])
    )
    assert "f gives no tensor of a floating type" in message_of(
        gc.UsageError, lambda: gc.gradcheck(lambda x: x > 0, [np.ones(3)])
    )
    assert "draw random numbers" in message_of(
        gc.UsageError, lambda: gc.gradcheck(lambda x: F.dropout(x, 0.5), [np.ones(30)])
    )
    assert "got a symbolic tensor" in message_of(gc.UsageError, lambda: gc.gradcheck(lambda x: x, [ph(3)]))
    assert gc.gradcheck(lambda x, n: gc.take(x, n), [np.array([1.0, 2, 3]), np.array([2, 0, 2])])
    w = gc.Variable(np.array([1.0, 2.0, 3.0]))
    assert gc.gradcheck(lambda x: (x * w).sum(), np.ones(3))


def test_detect_anomaly_names_the_first_op() -> None:
    x = ph(2, name="x")
    w = gc.Variable(np.array([1.0, -4.0]), name="w")
    with gc.Session("numpy:kernels") as session:
        loss = (gc.sqrt(x) * 0).sum()
        g = gc.gradients(loss, x)[0]
        plain = session.run(g, {x: [0.0, 1.0]})
        assert np.isnan(plain[0])  # not watched: no error
        with gc.detect_anomaly():
            np.testing.assert_array_equal(session.run(loss, {x: [0.0, 1.0]}), 0)
            text = message_of(gc.SessionError, lambda: session.run(g, {x: [0.0, 1.0]}))
            assert "a gradient op div made the first NaN" in text and f"{HERE}:" in text
            f = session.make_callable(gc.log(x) * 2 + 1, [x])
            assert f([1.0, 1.0]).tolist() == [1, 1]
            assert "the op log made the first NaN" in message_of(gc.SessionError, lambda: f([1.0, -1.0]))
            assert "op sqrt made the first NaN" in message_of(
                gc.SessionError, lambda: session.run(w.assign(gc.sqrt(w)))
            )
            assert "placeholder 'x' holds NaN before" in message_of(
                gc.SessionError, lambda: session.run(x * 2, {x: [np.nan, 1]})
            )
        assert np.isnan(f([1.0, -1.0])[1])
