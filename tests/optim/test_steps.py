"""Both ways of writing a step: ``minimize`` and PyTorch's ``backward`` and ``step``; parameter groups; what is read
when."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc
from graphcore import nn, optim
from graphcore.base import notices

X = gc.placeholder("float32", (None, 3), name="x")
BATCH = np.arange(12, dtype=np.float32).reshape(4, 3) / 10


def trained(build: Callable[[], tuple[list[gc.Variable], Any]], steps: int = 3) -> list[Any]:
    """The variables' values after some runs of the step that ``build`` gives."""
    variables, step = build()
    with gc.Session("numpy") as session:
        for _ in range(steps):
            session.run(step, {X: BATCH})
        return [session.get_value(v) for v in variables]


def model() -> tuple[gc.Variable, gc.Variable, gc.Tensor]:
    w, b = gc.Variable(np.ones((3, 2), np.float32), name="w"), gc.Variable(np.zeros(2, np.float32), name="b")
    return w, b, ((X @ w + b - 1.0) ** 2).mean()


MAKERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda *params: optim.SGD(*params, lr=0.1, momentum=0.9, dampening=0.1),
    "Adam": lambda *params: optim.Adam(*params, lr=0.1, weight_decay=0.1),
    "AdamW": lambda *params: optim.AdamW(*params, lr=0.1),
    "RMSprop": lambda *params: optim.RMSprop(*params, lr=0.1, centered=True, momentum=0.5),
    "a schedule": lambda *params: optim.SGD(*params, lr=lambda t: 0.1 / (1 + t)),
}


@pytest.mark.parametrize("case", MAKERS)
def test_every_way_of_writing_a_step_is_the_same_step(case: str) -> None:
    make = MAKERS[case]

    def by_minimize() -> Any:
        w, b, loss = model()
        return [w, b], make().minimize(loss)

    def by_minimize_of_parameters() -> Any:
        w, b, loss = model()
        return [w, b], make([w, b]).minimize(loss)

    def by_backward() -> Any:
        w, b, loss = model()
        opt = make([w, b])
        opt.zero_grad()
        loss.backward()
        return [w, b], opt.step()

    def by_closure() -> Any:
        w, b, loss = model()
        opt = make(iter([("w", w), ("b", b)]))
        calls: list[None] = []

        def closure() -> gc.Tensor:
            calls.append(None)
            opt.zero_grad()
            loss.backward()
            return loss

        step = opt.step(closure)
        assert len(calls) == 1
        return [w, b], step

    wanted = trained(by_minimize)
    for build in (by_minimize_of_parameters, by_backward, by_closure):
        for value, expected in zip(trained(build), wanted, strict=True):
            np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: optim.Adam([w], 0.25),
        lambda w: optim.Adam([w], lr=0.25),
        lambda w: optim.Adam(params=[w], lr=0.25),
        lambda w: optim.Adam((w,), 0.25, (0.9, 0.999)),
        lambda w: optim.Adam(0.25),
        lambda w: optim.Adam(0.25, (0.9, 0.999), 1e-8),
        lambda w: optim.Adam(lr=0.25),
        lambda w: optim.Adam(np.float32(0.25)),
    ],
)
def test_parameters_or_a_number_stand_first(make: Callable[[gc.Variable], Any]) -> None:
    w = gc.Variable([1.0, 2.0])
    opt = make(w)
    assert opt.lr == 0.25 and opt.betas == (0.9, 0.999) and opt.eps == 1e-8
    assert len(opt.minimize((w * w).sum())) == 4


def test_a_module_and_a_scalar_tensor_stand_first_for_what_they_are() -> None:
    layer = nn.Linear(3, 2)
    assert [v.shape for v in optim.SGD(layer, 0.1).param_groups[0]["params"]] == [(2, 3), (2,)]
    rate = gc.Variable(0.5, trainable=False)
    assert optim.SGD(rate).lr is rate and optim.SGD(rate).param_groups == []


# --- .grad ------------------------------------------------------------------------------------------------------------


def test_backward_and_step_act_in_line_order(fast: gc.Session) -> None:
    w = gc.Variable(3.0, name="w")
    opt = optim.SGD([w], lr=1.0)
    (w * w).backward()  # 6
    (w * 2).backward()  # and 2 of another loss
    twice = opt.step()
    opt.zero_grad()
    (w * 5).backward()
    once = opt.step()
    w.zero_grad()
    fast.run(once)
    assert fast.get_value(w) == -2.0
    fast.set_value(w, 3.0)
    fast.run(twice)  # what was built before zero_grad is as it was
    assert fast.get_value(w) == 3.0 - 8.0
    assert "no trainable parameter has a gradient" in message_of(gc.GradientError, opt.step)


def test_step_leaves_out_what_has_no_gradient_or_is_frozen_when_it_is_built(fast: gc.Session) -> None:
    a, b, c = (gc.Variable(1.0, name=n) for n in "abc")
    opt = optim.SGD([a, b, c], lr=1.0)
    (a * 2 + b * 3).backward()
    b.requires_grad = False
    assert not b.trainable and [u.variable for u in opt.step()] == [a]
    assert b.requires_grad_() is b and [u.variable for u in opt.step()] == [a, b]
    assert [u.variable for u in opt.minimize(a * c)] == [a, c]  # of the parameters those that the loss depends on
    d = gc.Variable(1.0, name="d")
    assert "no trainable parameter of the optimizer" in message_of(gc.GradientError, lambda: opt.minimize(d * 2))
    assert "only floating types" in message_of(
        gc.DTypeError, lambda: setattr(gc.Variable(np.int64(1)), "requires_grad", True)
    )


def test_minimize_neither_reads_nor_writes_grad() -> None:
    w = gc.Variable(2.0)
    loss = w * w
    optim.SGD([w], lr=0.1).minimize(loss)
    assert w.grad is None
    loss.backward()
    kept = w.grad
    optim.SGD(lr=0.1).compute_gradients(loss)
    assert w.grad is kept


def test_backward_takes_a_gradient_inputs_and_pytorchs_switches(fast: gc.Session) -> None:
    w, v = gc.Variable([1.0, 2.0], name="w"), gc.Variable([3.0, 4.0], name="v")
    y = w * v
    assert "reduce it to a scalar" in message_of(gc.GradientError, y.backward)
    y.backward(np.array([1.0, 10.0], np.float32), retain_graph=True, create_graph=True, inputs=[w])
    assert v.grad is None
    np.testing.assert_array_equal(fast.run(w.grad), [3, 40])
    y.sum().backward(inputs=w)
    np.testing.assert_array_equal(fast.run(w.grad), [6, 44])
    fixed = gc.Variable(1.0, trainable=False, name="fixed")
    assert "only on 'fixed'" in message_of(gc.GradientError, (fixed * 2).backward)


def test_other_tensors_have_a_grad_if_they_are_asked_to(fast: gc.Session) -> None:
    w = gc.Variable([1.0, 2.0])
    h, other = w * 3, w * 1
    assert not hasattr(h, "grad")
    assert "t.retain_grad()" in message_of(AttributeError, lambda: h.grad)
    h.retain_grad()
    assert h.grad is None
    (h * h + other).sum().backward()
    h.retain_grad()  # again: nothing is lost
    np.testing.assert_array_equal(fast.run(h.grad), [6, 12])
    (h * 2).sum().backward()
    np.testing.assert_array_equal(fast.run([h.grad, w.grad]), [[8, 14], [25, 43]])
    assert not hasattr(other, "grad")


def test_a_step_by_backward_moves_the_statistics_of_a_batch_norm(fast: gc.Session) -> None:
    """A sum's gradient does not need the normalised values."""
    norm = nn.BatchNorm2d(1)
    assert norm.running_mean is not None
    opt = optim.SGD(norm.parameters(), lr=0.1)
    norm(gc.constant(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2))).sum().backward()
    step = opt.step()
    fast.run(step)
    np.testing.assert_allclose(fast.get_value(norm.running_mean), [0.15], rtol=1e-6)
    fast.run(step)
    np.testing.assert_allclose(fast.get_value(norm.running_mean), [0.15 * 0.9 + 0.15], rtol=1e-6)


def test_step_and_zero_grad_need_parameters() -> None:
    for call in (optim.Adam(lr=0.1).step, optim.Adam(lr=0.1).zero_grad):
        assert "Adam(model.parameters(), lr=0.001)" in message_of(gc.UsageError, call)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups_have_options_of_their_own(fast: gc.Session) -> None:
    a, b, c = (gc.Variable(1.0, name=n) for n in "abc")
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}, {"params": [c], "momentum": 0.9}], lr=0.1)
    assert [g["lr"] for g in opt.param_groups] == [0.1, 0.5, 0.1] and opt.momentum == 0.0
    opt.param_groups[0]["weight_decay"] = 1.0
    (a + b + c).backward()
    step = opt.step()
    fast.run(step)
    fast.run(step)
    first = 1.0 - 0.1 * (1 + 1.0)
    np.testing.assert_allclose(
        [fast.get_value(v) for v in (a, b, c)], [first - 0.1 * (1 + first), 0.0, 1 - 0.1 - 0.1 * 1.9], rtol=1e-6
    )
    assert sorted(opt.slots(c)) == ["momentum_buffer"] and not opt.slots(a)


def test_a_groups_rate_may_be_a_variable_or_a_schedule(fast: gc.Session) -> None:
    a, b, rate = gc.Variable(0.0), gc.Variable(0.0), gc.Variable(0.5, trainable=False, name="rate")
    opt = optim.SGD([{"params": [a], "lr": rate}, {"params": [b], "lr": lambda t: 1 / (1 + t)}], lr=9.0)
    step = opt.minimize(a + b)
    fast.run(step)
    fast.set_value(rate, 0.25)
    fast.run(step)
    np.testing.assert_allclose([fast.get_value(a), fast.get_value(b)], [-0.75, -1.5], rtol=1e-6)
    assert fast.get_value(opt.iterations) == 2


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ([{"params": [1.0]}], "params must be Variables, got float"),
        ([{"lr": 0.1}], "it lacks 'params'"),
        ([{"params": [], "learning_rate": 0.1}], "it has 'learning_rate'"),
        ([{"params": [gc.Variable(1.0)], "lr": -1}], "lr must be a finite number"),
        ([], "params is empty"),
        ("weights", "params must be parameters in a list"),
        (3 * [gc.Variable(1.0, name="thrice")], "'thrice', made at"),
    ],
)
def test_bad_groups(params: Any, text: str) -> None:
    assert text in message_of(gc.UsageError, lambda: optim.SGD(params, lr=0.1))


def test_options_are_not_assigned_after_a_step_was_built() -> None:
    w = gc.Variable(1.0)
    opt = optim.SGD([w], lr=0.1)
    opt.param_groups[0]["lr"] = 0.2
    assert opt.param_groups[0]["lr"] == 0.2
    opt.minimize(w * 2)
    for change in (
        lambda: opt.param_groups[0].__setitem__("lr", 0.01),
        lambda: opt.param_groups[0].update(lr=0.01),
    ):
        assert "lr=gc.Variable(" in message_of(gc.UsageError, change)
    free = optim.Adam(lr=0.1)
    free.lr = 0.2
    assert free.defaults["lr"] == 0.2
    free.minimize(w * 2)
    assert "assigned after a step was built" in message_of(gc.UsageError, lambda: setattr(free, "lr", 0.3))
    assert "has no attribute 'momentum'" in message_of(AttributeError, lambda: free.momentum)


# --- state ------------------------------------------------------------------------------------------------------------


def test_slots_have_pytorchs_names_and_a_name_tells_optimizers_apart(fast: gc.Session) -> None:
    w, a = gc.Variable([1.0], name="w"), gc.Variable([1.0], name="a")
    loss = (w * w * a).sum()
    keys = {}
    for opt in (optim.SGD(momentum=0.9), optim.AdamW(name="second"), optim.RMSprop(centered=True, momentum=0.1)):
        opt.minimize(loss, [w, a])
        keys[type(opt).__name__] = {v.key_hint for v in opt.variables() if not str(v.key_hint).endswith("/w")}
    assert keys == {
        "SGD": {"optim/momentum_buffer/a"},
        "AdamW": {"optim/second/exp_avg/a", "optim/second/exp_avg_sq/a", "optim/second/step/a"},
        "RMSprop": {"optim/square_avg/a", "optim/grad_avg/a", "optim/momentum_buffer/a"},
    }
    both = [optim.Adam(lr=0.1, name="one").minimize(loss), optim.Adam(lr=0.1, name="two").minimize(loss)]
    for step in both:
        fast.run(step)
    assert {"optim/one/exp_avg/w", "optim/two/exp_avg/w", "optim/two/step/a"} <= fast.state_dict().keys()


def test_iterations_count_where_they_are_asked_for_in_time(fast: gc.Session) -> None:
    w = gc.Variable(1.0)
    sgd = optim.SGD([w], lr=0.1)
    count = sgd.iterations
    step = sgd.minimize(w * 2)
    for _ in range(3):
        fast.run(step)
    assert fast.get_value(count) == 3 and sgd.iterations is count
    late = optim.SGD([w], lr=0.1)
    late.minimize(w * 2)
    assert "before building the step" in message_of(gc.UsageError, lambda: late.iterations)


def test_a_line_that_builds_again_and_again_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    monkeypatch.setattr(notices, "_built", type(notices._built)())
    w = gc.Variable(1.0)
    opt = optim.SGD([w], lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):  # a loop as PyTorch has it
            opt.zero_grad()
            (w * w).backward()
            opt.step()
        for _ in range(6):  # other variables each time: that is no such loop
            optim.SGD(lr=0.1).minimize(gc.Variable(1.0) * 2)
    assert [w.category for w in caught] == [gc.BuildWarning] * 2
    assert caught[0].lineno == caught[1].lineno - 1 and "before the loop" in str(caught[0].message)


# --- clipping between backward and step -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "norm"), [(2.0, 13.0), (1.0, 19.0), (np.inf, 12.0), (3.0, (27 + 64 + 1728) ** (1 / 3))]
)
@pytest.mark.parametrize("limit", [6.5, 100.0])
def test_clip_grad_norm_scales_all_gradients(fast: gc.Session, kind: float, norm: float, limit: float) -> None:
    a, b, unused = gc.Variable([0.0, 0.0]), gc.Variable(0.0), gc.Variable(0.0)
    ((a * gc.constant([3.0, -4.0])).sum() + b * 12).backward()
    before = optim.SGD([a, b], lr=1.0).step()
    found = nn.utils.clip_grad_norm_(iter([a, b, unused]), limit, norm_type=kind)
    assert unused.grad is None
    factor = min(1.0, limit / (norm + 1e-6))
    got = fast.run([found, a.grad, b.grad])
    for value, expected in zip(got, [norm, [3 * factor, -4 * factor], 12 * factor], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    fast.run(before)  # built before the clipping
    assert fast.get_value(b) == -12


def test_clip_grad_value_and_what_has_no_gradient(fast: gc.Session) -> None:
    a = gc.Variable([0.0, 0.0])
    assert fast.run(nn.utils.clip_grad_norm_([a], 1.0)) == 0 and a.grad is None
    (a * gc.constant([3.0, -4.0])).sum().backward()
    nn.utils.clip_grad_value_(a, 3.5)
    np.testing.assert_array_equal(fast.run(a.grad), [3.0, -3.5])
    for call in (lambda: nn.utils.clip_grad_norm_([a], 0), lambda: nn.utils.clip_grad_value_([a], -1.0)):
        assert "must be positive" in message_of(gc.UsageError, call)
