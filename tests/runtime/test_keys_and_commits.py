"""Checkpoint keys depend on modules and scopes alone; what was trained is never given up for initial values."""

from __future__ import annotations

import gc as garbage
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc

Made = Callable[[], Any]


class Net(gc.nn.Module):
    def __init__(self) -> None:
        self.body = gc.nn.Linear(3, 2)
        self.norm = gc.nn.LayerNorm(2)

    def forward(self, x: Any) -> Any:
        return self.norm(self.body(x))


def trained(net: Net) -> tuple[gc.Tensor, Any]:
    x = gc.placeholder("float32", (None, 3))
    return x, gc.optim.Adam(lr=0.1).minimize((net(x) ** 2 * gc.arange(1, 3).astype("float32")).sum())


DATA = np.arange(12, dtype=np.float32).reshape(4, 3)
PATHS = ["body.bias", "body.weight", "norm.bias", "norm.weight"]


def in_scope(name: str | None) -> Net:
    if name is None:
        return Net()
    with gc.name_scope(name):
        return Net()


# --- keys -------------------------------------------------------------------------------------------------------------


def test_two_modules_in_scopes_are_saved_apart(sess: gc.Session, tmp_path: Path) -> None:
    one, two, plain = in_scope("one"), in_scope("two"), in_scope(None)
    steps = [trained(net) for net in (one, two, plain)]
    for x, step in steps:
        sess.run(step, {x: DATA})
    state = sess.state_dict()
    slots = ("", "optim/exp_avg/", "optim/exp_avg_sq/")
    keys = {f"{slot}{scope}{path}" for slot in slots for scope in ("one/", "two/", "") for path in PATHS}
    assert set(state) == keys | {f"optim/step/{scope}body.bias" for scope in ("one/", "two/", "")}
    assert sorted(sess.state_dict(one)) == PATHS
    sess.save(tmp_path / "all")
    sess.save(tmp_path / "one", one)
    with gc.Session(sess.device, seed=5) as other:
        other.restore(tmp_path / "all", module=two)
        other.restore(tmp_path / "one", module=one)
        for net, scope in ((one, "one"), (two, "two")):
            for path, value in other.state_dict(net).items():
                np.testing.assert_array_equal(value, state[f"{scope}/{path}"])
        text = message_of(gc.SessionError, lambda: other.restore(tmp_path / "one", module=two))
        assert "missing 'body.bias'" in text and "unexpected 'one/body.bias'" in text


def test_relative_keys_are_second(fast: gc.Session, tmp_path: Path) -> None:
    """A file of a module alone, as from elsewhere, fits one that is in a scope; a session's file by its full keys."""
    plain, scoped = in_scope(None), in_scope("scoped")
    fast.save(tmp_path / "plain", plain)
    fast.restore(tmp_path / "plain", module=scoped)
    for path, value in fast.state_dict(scoped).items():
        np.testing.assert_array_equal(value, fast.state_dict(plain)[path])
    fast.set_value(scoped.norm.weight, [5.0, 6.0])
    fast.save(tmp_path / "both")
    fast.set_value(scoped.norm.weight, [0.0, 0.0])
    fast.restore(tmp_path / "both", module=scoped)
    assert fast.get_value(scoped.norm.weight).tolist() == [5, 6]
    assert fast.get_value(plain.norm.weight).tolist() == [1, 1]


def test_names_of_a_file_are_renamed(fast: gc.Session, tmp_path: Path) -> None:
    net = Net()
    values = {f"model.{path}": value + 1 for path, value in fast.state_dict(net).items()}
    gc.io.save_arrays(tmp_path / "f", values)
    table = {f"model.{path}": path for path in PATHS}
    for names in (table, lambda key: key.removeprefix("model.")):
        fast.load_state_dict({path: values[f"model.{path}"] * 0 for path in PATHS}, module=net)
        fast.restore(tmp_path / "f", module=net, names=names)
        np.testing.assert_array_equal(fast.get_value(net.body.weight), values["model.body.weight"])
    text = message_of(gc.SessionError, lambda: fast.restore(tmp_path / "f", net, names=lambda key: "w"))
    assert "names makes 'w' of both" in text


def test_two_modules_without_scopes_are_told_what_to_write(fast: gc.Session) -> None:
    fast.run([*Net().parameters(), *Net().parameters()])
    text = message_of(gc.SessionError, fast.state_dict)
    assert "two variables have the checkpoint key 'body.weight'" in text and "with gc.name_scope('generator')" in text


def built(order: int) -> dict[str, Any]:
    """The state of a session that trains unnamed variables, after ``order`` others were built in the process."""
    for _ in range(order):
        gc.Variable(1.0)
    with gc.name_scope("loose"):
        a, b = gc.Variable(gc.init.normal((2,))), gc.Variable(gc.init.normal((2,)))
    c = gc.Variable(gc.init.normal((2,)))
    step = gc.optim.SGD(lr=0.1, momentum=0.9).minimize((a * b + c).sum())
    with gc.Session("numpy", seed=3) as session:
        session.run(step)
        return session.state_dict()


def test_keys_of_unnamed_variables_do_not_depend_on_the_process() -> None:
    first, second = built(0), built(3)
    weights = {"loose/variable", "loose/variable_1", "variable"}
    assert set(first) == weights | {f"optim/momentum_buffer/{key}" for key in weights}
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_the_key_of_a_step_count_is_the_smallest_trained(fast: gc.Session) -> None:
    a, b = gc.Variable(2.0), gc.Variable(3.0, name="b")
    fast.run([gc.optim.Adam(lr=0.1).minimize(b * b), gc.optim.Adam(lr=0.1).minimize(a * a)])
    assert {key for key in fast.state_dict() if key.startswith("optim/step/")} == {
        "optim/step/b",
        "optim/step/variable",
    }


def test_a_checkpoint_without_optimizer_state(fast: gc.Session, tmp_path: Path) -> None:
    net = Net()
    x, step = trained(net)
    fast.run(step, {x: DATA})
    fast.save(tmp_path / "model", net)
    fast.run(step, {x: DATA})
    assert "missing 'optim/exp_avg/body.bias'" in message_of(gc.SessionError, lambda: fast.restore(tmp_path / "model"))
    fast.restore(tmp_path / "model", strict="model")
    with gc.Session("numpy:kernels") as fresh:
        fresh.restore(tmp_path / "model", strict="model")
        fresh.run(step, {x: DATA})
        fast.run(step, {x: DATA})
        other = gc.Variable(1.0, name="other")
        with gc.Session("numpy") as late:
            late.restore(tmp_path / "model", strict="model")
            assert "'other'" in message_of(gc.SessionError, lambda: late.run(other))
    assert "strict is 'all'" in message_of(gc.UsageError, lambda: fast.restore(tmp_path / "model", strict="all"))


# --- values -----------------------------------------------------------------------------------------------------------


def change_by_a_step(session: gc.Session, net: Net) -> None:
    x, step = trained(net)
    session.run(step, {x: DATA})


CHANGES: dict[str, Callable[[gc.Session, Net], Any]] = {
    "step": change_by_a_step,
    "callable": lambda s, net: s.make_callable(net.body.bias.assign(net.body.bias + 1.0))(),
    "set_value": lambda s, net: s.set_value(net.body.bias, [7.0, 8.0]),
    "load_state_dict": lambda s, net: s.load_state_dict({p: v + 1 for p, v in s.state_dict(net).items()}, module=net),
}


@pytest.mark.parametrize("way", CHANGES)
def test_a_module_reads_the_open_session_that_changed_it_last(way: str) -> None:
    net = Net()
    before = net.state_dict()
    with gc.Session("numpy") as first, gc.Session("numpy") as second:
        for session in (first, second, first):
            CHANGES[way](session, net)
            found = net.state_dict("p")
            for path, value in session.state_dict(net).items():
                np.testing.assert_array_equal(found[f"p.{path}"], value)
            assert not np.array_equal(found["p.body.bias"], before["body.bias"])
        np.testing.assert_array_equal(net.state_dict(session=second)["body.bias"], second.state_dict(net)["body.bias"])
        first.close()
        np.testing.assert_array_equal(net.state_dict()["body.bias"], second.state_dict(net)["body.bias"])


@pytest.mark.parametrize("way", CHANGES)
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_what_a_closed_session_trained_is_not_given_up_silently(way: str, end: str) -> None:
    net = Net()
    session = gc.Session("numpy")
    CHANGES[way](session, net)
    if end == "closed":
        session.close()
    else:
        del session
        garbage.collect()
    text = message_of(gc.SessionError, net.state_dict)
    assert "sess.commit()" in text and "session=" in text and f"{__file__}:" in text
    with gc.Session("numpy") as later:
        later.run(net.body.bias)  # which starts from initial values, and changes nothing
        assert "sess.commit()" in message_of(gc.SessionError, net.state_dict)
        later.set_value(net.body.bias, [1.0, 2.0])
        assert net.state_dict()["body.bias"].tolist() == [1, 2]
        later.commit(net)
    assert net.state_dict()["body.bias"].tolist() == [1, 2]


def test_loading_says_what_the_initial_values_are() -> None:
    net = Net()
    state = net.state_dict()
    with gc.Session("numpy") as session:
        change_by_a_step(session, net)
    net.load_state_dict(state)
    np.testing.assert_array_equal(net.state_dict()["body.weight"], state["body.weight"])


def test_commit_makes_values_initial(sess: gc.Session) -> None:
    net = Net()
    x = gc.placeholder("float32", (None, 3))
    optimizer = gc.optim.Adam(net.parameters(), lr=0.1)
    step = optimizer.minimize((net(x) ** 2 * gc.arange(1, 3).astype("float32")).sum())
    noise = gc.random.normal((3,))
    for _ in range(2):
        sess.run([step, noise], {x: DATA})
    expected = sess.state_dict()
    sess.commit(net)
    sess.commit(optimizer)
    for _ in range(2):
        with gc.Session("numpy", seed=8) as later:
            later.run([optimizer.iterations, *net.parameters()])
            for key, value in later.state_dict().items():
                np.testing.assert_array_equal(value, expected[key])
            assert later.get_value(optimizer.iterations) == 2
    sess.run(step, {x: DATA})
    sess.commit()
    with gc.Session("numpy", seed=8) as later, gc.Session("numpy", seed=8) as fresh:
        np.testing.assert_array_equal(later.get_value(net.body.weight), sess.get_value(net.body.weight))
        np.testing.assert_array_equal(later.run(noise), fresh.run(noise))
        assert later.state_dict()["random/step"] == 1  # draws are not values of a model
    assert "expected a module" in message_of(gc.UsageError, lambda: sess.commit(3))


def test_fit_commits() -> None:
    net = Net()
    target = np.zeros((4, 2), np.float32)
    history = gc.train.fit(
        net,
        (DATA, target),
        loss=gc.nn.MSELoss(),
        optimizer=gc.optim.Adam(lr=0.1),
        epochs=1,
        device="numpy",
        progress=False,
    )
    expected = history.session.state_dict(net)
    history.session.close()
    for path, value in net.state_dict().items():
        np.testing.assert_array_equal(value, expected[path])
    with gc.Session("numpy") as session:
        np.testing.assert_array_equal(session.get_value(net.body.weight), expected["body.weight"])


def test_the_session_in_use_has_the_values() -> None:
    net = Net()
    with gc.Session("numpy", seed=11) as session:
        value = session.get_value(net.body.weight)
        np.testing.assert_array_equal(net.state_dict()["body.weight"], value)
        np.testing.assert_array_equal(session.state_dict(net)["body.bias"], net.state_dict()["body.bias"])
