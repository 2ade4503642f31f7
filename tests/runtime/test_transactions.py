"""A run is one transaction: all that it reads is from before it, all that it writes lands at its end."""

from __future__ import annotations

import re

import numpy as np
from support.values import message_of

import graphcore as gc


def test_fetched_variables_and_losses_are_of_before(sess: gc.Session) -> None:
    w = gc.Variable([3.0], name="w")
    loss = (w * w).sum()
    optimizer = gc.optim.SGD([w], lr=0.25, momentum=0.5)
    count = optimizer.iterations
    step = optimizer.minimize(loss)
    found = sess.run([w, loss, step, count, w * 1.0, (w - 1.0).sum()])
    assert [np.ravel(v).tolist() for v in (*found[:2], *found[3:])] == [[3], [9], [0], [3], [2]]
    assert sess.get_value(w).tolist() == [1.5] and sess.get_value(count) == 1


def test_numbers_and_arrays_are_assigned(sess: gc.Session) -> None:
    w, n = gc.Variable([3.0, 4.0]), gc.Variable(np.int64(3))
    sess.run([w.assign([5, 6]), n.assign(7)])
    assert sess.get_value(w).tolist() == [5, 6] and sess.get_value(n) == 7
    sess.run([w.assign(np.array([1.0, 2.0])), n.assign_add(1)])
    assert sess.get_value(w).tolist() == [1, 2] and sess.get_value(n) == 8


def test_a_step_fetched_twice_counts_once(sess: gc.Session) -> None:
    w = gc.Variable([3.0])
    optimizer = gc.optim.SGD([w], lr=0.25)
    count = optimizer.iterations
    step = optimizer.minimize((w * w).sum())
    assert sess.run([step, {"again": (step, [step])}, *step])[0] is None
    assert sess.get_value(w).tolist() == [1.5] and sess.get_value(count) == 1


def test_two_steps_of_one_variable_raise(sess: gc.Session) -> None:
    w = gc.Variable([3.0], name="w")
    first = gc.optim.SGD(lr=0.5).minimize((w * w).sum())
    second = gc.optim.SGD(lr=0.25).minimize((w * w).sum())
    text = message_of(gc.GraphError, lambda: sess.run([first, second]))
    assert "'w' is updated twice" in text and len(set(re.findall(re.escape(__file__) + r":(\d+)", text))) == 2
    assert sess.get_value(w).tolist() == [3]


def test_steps_over_other_variables_are_simultaneous_and_share_draws(sess: gc.Session) -> None:
    """A GAN's two steps in one run: the second sees the generator of before, and the same noise."""
    g, d = gc.Variable([2.0], name="g"), gc.Variable([3.0], name="d")
    noise = gc.random.uniform((1,), 1.0, 2.0)
    fake = noise * g
    both = [
        gc.optim.SGD([g], lr=1.0).minimize((fake * d).sum()),  # g - noise * d
        gc.optim.SGD([d], lr=1.0).minimize((fake * d).sum()),  # d - noise * g
    ]
    drawn, _ = sess.run([noise, both])
    np.testing.assert_allclose(sess.get_value(g), 2.0 - drawn * 3.0, rtol=1e-6)
    np.testing.assert_allclose(sess.get_value(d), 3.0 - drawn * 2.0, rtol=1e-6)
    before = sess.get_value(g)
    sess.run(both[1])  # one after the other draws anew
    assert not np.allclose(sess.get_value(d), 3.0 - drawn * 2.0 - drawn * before)


def test_a_graph_takes_updates_and_steps() -> None:
    w = gc.Variable([3.0], name="w")
    step = gc.optim.Adam(lr=0.25).minimize((w * w).sum())
    for updates in (step, [w.assign(w * 2.0)], tuple(step)):
        found = gc.Graph((w * 1.0,), updates).to_networkx()
        assert "w" in found.graph["updates"] and len(found) > 1
    assert {u.variable.name for u in step} > {"w"}
    with gc.Session("numpy") as session:
        values = session.run([u.value for u in step])
        session.run(step)
        for update, value in zip(step, values, strict=True):
            np.testing.assert_array_equal(session.get_value(update.variable), value)
