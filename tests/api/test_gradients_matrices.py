"""Products with Jacobians, and Jacobians and Hessians as matrices, against NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from support.values import evaluate, message_of, ph

import graphcore as gc
from graphcore.api.tensor import Tensor

HERE = __file__


def test_vjp_jvp_and_hvp_against_the_matrices() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((3, 4))
    x, v, u = rng.standard_normal(4), rng.standard_normal(4), rng.standard_normal(3)

    def f(t: Tensor) -> Tensor:
        return gc.tanh(gc.constant(a) @ t)

    matrix = (1 - np.tanh(a @ x) ** 2)[:, None] * a
    y, back = gc.vjp(f, x)
    (pulled,) = back(u)
    y2, pushed = gc.jvp(f, [x], [v])
    np.testing.assert_allclose(evaluate([y, y2], {}), [np.tanh(a @ x)] * 2, rtol=1e-12)
    np.testing.assert_allclose(evaluate([pulled], {})[0], matrix.T @ u, rtol=1e-10)
    np.testing.assert_allclose(evaluate([pushed], {})[0], matrix @ v, rtol=1e-10)
    np.testing.assert_allclose(evaluate([gc.jacobian(f, x)], {})[0], matrix, rtol=1e-10)
    (product,) = gc.hvp(lambda t: (t**4).sum() + (t[0] * t[1]), [x], [v])
    hessian = np.diag(12 * x**2)
    hessian[0, 1] = hessian[1, 0] = 1
    np.testing.assert_allclose(evaluate([product], {})[0], hessian @ v, rtol=1e-10)
    np.testing.assert_allclose(
        evaluate([gc.hessian(lambda t: (t**4).sum() + (t[0] * t[1]), x)], {})[0], hessian, rtol=1e-10
    )


def test_matrices_of_several_inputs_and_outputs() -> None:
    p, q = np.array([1.0, 2.0]), np.array([[3.0], [5.0]])
    rows = gc.jacobian(lambda x, y: (x * x, (y * y).sum()), (p, q))
    shapes = [[t.shape for t in row] for row in rows]
    assert shapes == [[(2, 2), (2, 2, 1)], [(2,), (2, 1)]]
    found = [evaluate(list(row), {}) for row in rows]
    np.testing.assert_array_equal(found[0][0], np.diag([2, 4]))
    np.testing.assert_array_equal(found[0][1], np.zeros((2, 2, 1)))
    np.testing.assert_array_equal(found[1][1], [[6], [10]])
    blocks = gc.hessian(lambda x, y: x.sum() * y.sum(), (p, q))
    assert [[b.shape for b in row] for row in blocks] == [[(2, 2), (2, 2, 1)], [(2, 1, 2), (2, 1, 2, 1)]]
    np.testing.assert_array_equal(evaluate([blocks[0][1]], {})[0], np.ones((2, 2, 1)))
    assert "symbolic extent" in message_of(gc.ShapeError, lambda: gc.jacobian(lambda t: t * 2, ph(None)))
    assert gc.jacobian(lambda t: t[:0], p).shape == (0, 2)


class Pair(NamedTuple):
    """Two results by name."""

    square: Tensor
    cube: Tensor


def test_what_is_single_changes_no_type() -> None:
    """One x, one y, one primal: the result is a list where it is one for several."""
    at = {(x := ph(2)): np.array([2.0, 3.0])}
    for xs in (x, [x], (x,), {x: None}.keys()):
        for ys in ((x * x).sum(), [(x * x).sum()]):
            found = gc.gradients(ys, xs)
            assert type(found) is list and len(found) == 1
            np.testing.assert_array_equal(evaluate(found, at), [[4, 6]])
    assert gc.gradients(gc.sum(x), ph(2)) == [None] and gc.gradients(gc.sum(x), []) == []
    for primals, tangents in ((x, np.ones(2)), ([x], [np.ones(2)])):
        product = gc.hvp(lambda t: (t**3).sum(), primals, tangents)
        assert type(product) is list and len(product) == 1
        y, along = gc.jvp(lambda t: t**2, primals, tangents)
        np.testing.assert_array_equal(evaluate([*product, y, along], at), [[12, 18], [4, 9], [4, 6]])
    two, back = gc.vjp(lambda t: (t**2, t**3), x)
    assert type(two) is tuple
    for answer in (back(np.ones(2), np.ones(2)), back((np.ones(2), np.ones(2)))):
        np.testing.assert_array_equal(evaluate(answer, at), [[16, 33]])
    y, along = gc.jvp(lambda t: Pair(t**2, t**3), x, np.ones(2))
    assert type(y) is type(along) is Pair
    np.testing.assert_array_equal(evaluate([along.cube, along.square], at), [[12, 27], [4, 6]])


def test_a_list_of_gradients_is_no_operand() -> None:
    x = ph(2)
    for use in (lambda g: x - g, lambda g: gc.where(x > 0, g, 0.0), lambda g: x @ g, lambda g: gc.exp(g)):
        text = message_of(gc.UsageError, lambda use=use: use(gc.gradients(gc.sum(x * x), x)))
        assert "gc.stack" in text and "gc.gradients(y, x)[0]" in text


def test_matrices_of_functions_curried_and_of_tensors() -> None:
    at = np.array([2.0, 3.0])
    x, y = ph(2), ph(2)

    def f(t: Tensor, u: Tensor) -> Tensor:
        return (t * t * u).sum()

    by_hand = np.diag([4.0, 6.0])
    second = [gc.hessian(lambda t: (t**3).sum() / 3, x), gc.hessian(lambda t: (t**3).sum() / 3)(x)]
    second += [gc.hessian((x**3).sum() / 3, x), gc.hessian((x**3).sum() / 3, (x,))[0][0], gc.jacobian(x * x, x)]
    np.testing.assert_allclose(evaluate(second, {x: at}), [by_hand] * len(second), rtol=1e-12)
    blocks = gc.hessian(f, argnums=(0, 1))(x, y)
    assert [len(row) for row in blocks] == [2, 2]
    first = [gc.jacobian(f)(x, y), gc.jacobian(f, argnums=-1)(x, y), blocks[0][1], gc.hessian(f(x, y), (x, y))[0][1]]
    got = evaluate(first, {x: at, y: np.array([5.0, 7.0])})
    for value, expected in zip(got, [[20, 42], [4, 9], by_hand, by_hand], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert "Write gc.hessian(y, x)" in message_of(gc.UsageError, lambda: gc.hessian(x.sum()))
    assert "argnums is 2" in message_of(gc.UsageError, lambda: gc.jacobian(f, argnums=2)(x, y))
    assert "got ndarray" in message_of(gc.UsageError, lambda: gc.jacobian(x * 2, at))
