"""Names as feeds and fetches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc


def built() -> tuple[gc.Tensor, gc.Tensor, gc.Variable, gc.Tensor]:
    x = gc.placeholder("float32", (None,), name="x")
    with gc.name_scope("net"):
        w = gc.Variable([2.0, 3.0], name="w")
        c = gc.constant([1.0, 1.0], name="c")
        y = x * w + c
    return x, c, w, y


def test_names_stand_for_what_the_other_fetches_reach(sess: gc.Session) -> None:
    x, c, w, y = built()
    fed = np.array([1.0, 2.0], np.float32)
    assert sess.run(y, {"x": fed}).tolist() == [3, 7]
    assert sess.run(y, {"x:0": fed, "net/c": [0, 0]}).tolist() == [2, 6]
    found = sess.run({"y": y, "more": ["net/w", ("x", "net/c:0")]}, {x: fed})
    assert [v.tolist() for v in (found["more"][0], *found["more"][1])] == [[2, 3], [1, 2], [1, 1]]
    assert sess.run([w.assign(w * y.sum()), "net/w"], {"x": fed})[1].tolist() == [2, 3]
    assert sess.make_callable([y, "x"], ["x"])(fed)[1].tolist() == [1, 2]
    assert sess.compile(y, {"x": (2,)}).memory_analysis()["feed_bytes"] == 8
    assert gc.function([x], [y, "x"])(fed)[1].tolist() == [1, 2]


def test_else_for_what_the_session_compiled(sess: gc.Session) -> None:
    x, _, w, y = built()
    fed = np.array([1.0, 2.0], np.float32)
    assert "no tensor has the name 'x'" in message_of(gc.UsageError, lambda: sess.run("x", {x: fed}))
    sess.run([y, w.assign(w + 1.0), gc.random.normal((2,)) + y], {x: fed})
    assert sess.run("net/w").tolist() == [3, 4]
    assert sess.run(["x", "net/w", "net/c"], {"x": fed})[0].tolist() == [1, 2]
    assert sess.run("net/add", {"x": fed}).tolist() == [4, 9]  # made of op and scope, and the only one
    with gc.Session(sess.device) as fresh:
        assert "no tensor has the name 'net/w'" in message_of(gc.UsageError, lambda: fresh.run("net/w"))


def test_a_module_s_variables_have_their_paths(fast: gc.Session) -> None:
    model = gc.nn.Sequential(gc.nn.Linear(2, 2), gc.nn.BatchNorm2d(2))
    y = model[1](model[0](gc.ones((3, 2))).reshape(3, 2, 1, 1))
    bias, mean = fast.run([y, "0.bias", "1.running_mean"])[1:]
    assert bias.shape == (2,) and mean.tolist() == [0, 0]
    assert "use sess.set_value" in message_of(gc.FeedError, lambda: fast.run(y, {"0.bias": [1, 2]}))


@pytest.mark.parametrize("compiled", [False, True])
def test_names_that_none_or_two_have(fast: gc.Session, compiled: bool) -> None:
    a, b = gc.placeholder("float32", (), name="same"), gc.placeholder("float32", (), name="same")
    total = a + b + gc.placeholder("float32", (), name="other")
    feeds: dict[Any, Any] = {a: 1, b: 2, "other": 3}
    if compiled:
        fast.run(total, feeds)
    for error, call in (
        (gc.FeedError, lambda: fast.run(total, {"same": 1})),
        (gc.UsageError, lambda: fast.run([total, "same"], feeds)),
    ):
        text = message_of(error, call)
        assert "2 tensors have the name 'same'" in text and text.count(f"{__file__}:") == 2
    text = message_of(gc.FeedError, lambda: fast.run(total, {"othr": 1}))
    assert "no tensor has the name 'othr'" in text and "there are 'other'" in text
    assert ("'same'" in message_of(gc.UsageError, lambda: fast.run("sane"))) is compiled


def test_a_draw_is_one_tensor_in_all_programs(fast: gc.Session) -> None:
    noise = gc.exp(gc.random.normal((2,)))
    fast.run([noise, noise * 2.0])
    fast.run([gc.random.uniform((2,)), noise])
    assert fast.run("exp").shape == (2,)
