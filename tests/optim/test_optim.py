"""Optimizers against PyTorch's numbers and NumPy's formulas, clipping, and the errors."""

from __future__ import annotations

import numpy as np
import pytest
from support.float64 import Oracle

import graphcore as gc
from graphcore import nn, optim
from graphcore.base.shapes import is_static
from graphcore.ir.graph import toposort

START = [0.5, -1.0, 2.0]
GRADIENTS = [[0.3, -0.7, 1.1], [-0.2, 0.4, 0.9], [0.5, 0.1, -1.3], [0.05, -0.6, 0.2]]

# What torch 2.13 makes of START (float64) after the four gradients.
TORCH = [
    ("SGD", {"lr": 0.1}, [0.435, -0.92, 1.91]),
    ("SGD", {"lr": 0.1, "momentum": 0.9}, [0.35103, -0.82667, 1.60481]),
    (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        [0.2954582581, -0.7528722459, 1.5328083969],
    ),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3}, [0.3791, -0.83228, 1.67136]),
    ("Adam", {"lr": 0.1}, [0.2748376042, -0.8302416526, 1.7708620821]),
    (
        "Adam",
        {"lr": 0.05, "betas": (0.5, 0.9), "eps": 0.001, "weight_decay": 0.1},
        [0.3780804573, -0.907305798, 1.9000585069],
    ),
    ("AdamW", {"lr": 0.1}, [0.2732275521, -0.8265982219, 1.7633849502]),
    ("AdamW", {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.2}, [0.3713871787, -0.8821456942, 1.8167968998]),
    ("RMSprop", {"lr": 0.1}, [-0.8383084409, -0.022831305, 0.9384873013]),
    (
        "RMSprop",
        {"lr": 0.05, "alpha": 0.9, "eps": 0.0001, "weight_decay": 0.1, "momentum": 0.9, "centered": True},
        [-0.1583356008, -0.4927257133, 1.2632102759],
    ),
]


@pytest.mark.parametrize(("name", "options", "expected"), TORCH, ids=lambda v: str(v) if isinstance(v, str) else None)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-6)])
def test_steps_equal_torch(name, options, expected, dtype, tolerance):
    p = gc.Variable(np.array(START, dtype), name="p")
    c = gc.placeholder(dtype, (3,))
    step = getattr(optim, name)(**options).minimize((p * c).sum())
    oracle = Oracle()
    for gradient in GRADIENTS:
        oracle.run([step], {c: gradient})
    np.testing.assert_allclose(oracle.get(p), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "options", "expected"), [TORCH[2], TORCH[7], TORCH[9]], ids=lambda v: v if isinstance(v, str) else None
)
def test_steps_equal_torch_in_a_session(name, options, expected):
    """On the default device, several parameters at once: their updates share kernels."""
    parameters = [gc.Variable(np.array(START * n, np.float32), name=f"p{n}") for n in (1, 2, 5)]
    c = gc.placeholder("float32", (3,))
    loss = sum((p * gc.concat([c] * n)).sum() for n, p in zip((1, 2, 5), parameters, strict=True))
    step = getattr(optim, name)(**options).minimize(loss)
    with gc.Session() as sess:
        train = sess.make_callable([loss, step], [c])
        for gradient in GRADIENTS:
            train(np.array(gradient, np.float32))
        for n, p in zip((1, 2, 5), parameters, strict=True):
            np.testing.assert_allclose(sess.get_value(p), expected * n, rtol=0, atol=2e-6)


def test_first_adam_step_is_exact_in_float32():
    """The first step is lr * sign(g) up to eps: a correction computed as 1 - 0.999**1 in float32 is off by 5e-5."""
    p = gc.Variable(np.zeros(1, np.float32))
    step = optim.Adam(lr=1.0, eps=0.0).minimize((p * 0.25).sum())
    oracle = Oracle()
    oracle.run([step])
    np.testing.assert_allclose(oracle.get(p), [-1.0], rtol=5e-7)


def test_all_reads_see_the_values_before_the_step():
    x, y = gc.Variable(1.0), gc.Variable(2.0)
    loss = x * y
    oracle = Oracle()
    value, _ = oracle.run([loss, optim.SGD(lr=0.1).minimize(loss)])
    assert value == 2.0
    np.testing.assert_allclose([oracle.get(x), oracle.get(y)], [1.0 - 0.2, 2.0 - 0.1], rtol=1e-6)


def test_slots_are_named_made_once_and_keyed():
    model = nn.Sequential(nn.Linear(3, 2))
    adam = optim.Adam()
    loss = (model(gc.ones((1, 3))) ** 2).sum()
    first = adam.minimize(loss)
    before = adam.variables()
    second = adam.minimize(loss)
    assert all(a is b for a, b in zip(before, adam.variables(), strict=True))
    assert len(first) == len(second) == 7  # two parameters, two slots each, and the step count
    weight = model[0].weight
    assert sorted(adam.slots(weight)) == ["exp_avg", "exp_avg_sq"]
    assert {v.key_hint for v in adam.variables()} == {
        "optim/exp_avg/0.weight",
        "optim/exp_avg_sq/0.weight",
        "optim/exp_avg/0.bias",
        "optim/exp_avg_sq/0.bias",
        "optim/step/0.bias",  # the smallest key
    }
    assert all(not v.trainable for v in adam.variables())
    assert adam.slots(weight)["exp_avg"].name == "optim/exp_avg/0.weight"
    assert not any(isinstance(v.initial, np.ndarray) for v in adam.slots(weight).values())


def test_step_count_is_exact_and_shared():
    p = gc.Variable(np.zeros(2, np.float32))
    adam = optim.Adam()
    step = adam.minimize((p * p).sum())
    oracle = Oracle()
    for _ in range(3):
        oracle.run([step])
    assert oracle.get(adam.iterations) == 3 and oracle.get(adam.iterations).dtype == np.int64


@pytest.mark.parametrize(
    "optimizer", [optim.SGD(momentum=0.9, weight_decay=0.1), optim.Adam(), optim.AdamW(), optim.RMSprop(centered=True)]
)
def test_updates_have_equal_structure(optimizer):
    """The fuser makes one kernel of the updates of all parameters only if they are the same expression."""
    variables = [gc.Variable(np.ones(n, np.float32), name=f"v{n}") for n in (2, 3, 5)]
    gradients = [gc.placeholder("float32", v.shape) for v in variables]
    step = optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
    own = {id(u.variable): u.value for u in step.updates}
    shapes = []
    for v in variables:
        nodes = toposort([own[id(v)]])
        shapes.append([n.op.name for n in nodes if n.op.name not in ("variable", "placeholder")])
        assert all(is_static(t.shape) for n in nodes for t in n.outputs)
    assert shapes[0] == shapes[1] == shapes[2]


def test_learning_rate_variable_and_schedule():
    rate = gc.Variable(0.5, trainable=False, name="rate")
    p = gc.Variable(np.float32(0.0))
    step = optim.SGD(lr=rate).minimize(p * 1.0)
    oracle = Oracle()
    oracle.run([step])
    oracle.values[rate.uid] = np.float32(0.25)
    oracle.run([step])
    np.testing.assert_allclose(oracle.get(p), -0.75)

    q = gc.Variable(np.float32(0.0))
    scheduled = optim.SGD(lr=lambda t: 1 / (1 + t)).minimize(q * 1.0)
    for _ in range(3):
        oracle.run([scheduled])
    np.testing.assert_allclose(oracle.get(q), -(1 + 1 / 2 + 1 / 3), rtol=1e-6)


def test_minimize_converges():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    w = gc.Variable(np.zeros(3, np.float32))
    step = optim.Adam(lr=0.05).minimize(((gc.constant(a) @ w - gc.constant(b)) ** 2).mean())
    oracle = Oracle()
    for _ in range(400):
        oracle.run([step])
    np.testing.assert_allclose(oracle.get(w), np.linalg.lstsq(a, b, rcond=None)[0], atol=1e-3)


def test_side_updates_happen_with_the_step_alone():
    """A sum's gradient does not need the normalised values, but the step must move the statistics all the same."""
    norm = nn.BatchNorm2d(1)
    x = gc.constant(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2))
    step = optim.SGD(lr=0.1).minimize(norm(x).sum())
    oracle = Oracle()
    oracle.run([step])
    assert norm.running_mean is not None
    np.testing.assert_allclose(oracle.get(norm.running_mean), [0.15], rtol=1e-6)
    oracle.run([step])
    np.testing.assert_allclose(oracle.get(norm.running_mean), [0.15 * 0.9 + 0.15], rtol=1e-6)


def test_variables_argument():
    a, b = gc.Variable(1.0, name="a"), gc.Variable(2.0, name="b")
    oracle = Oracle()
    oracle.run([optim.SGD(lr=0.1).minimize(a * b, [a])])
    assert oracle.get(b) == 2.0
    np.testing.assert_allclose(oracle.get(a), 0.8, rtol=1e-6)
    frozen = nn.Linear(2, 1)
    frozen.weight.trainable = False
    step = optim.SGD(lr=0.1).minimize(frozen(gc.ones((1, 2))).sum(), frozen)
    assert [u.variable for u in step] == [frozen.bias]


# -- clipping ---------------------------------------------------------------------------------------------------------


def test_clip_by_global_norm():
    a, b = gc.constant(np.array([3.0], np.float32)), gc.constant(np.array([0.0, 4.0], np.float32))
    (ca, none, cb), norm = optim.clip_by_global_norm([a, None, b], 1.0)
    assert none is None
    va, vb, vn = Oracle().run([ca, cb, norm])
    np.testing.assert_allclose(vn, 5.0)
    np.testing.assert_allclose(np.r_[va, vb], [0.6, 0.0, 0.8], rtol=1e-6)
    (ca, cb), _ = optim.clip_by_global_norm([a, b], 5.5)
    va, vb = Oracle().run([ca, cb])
    assert np.r_[va, vb].tolist() == [3.0, 0.0, 4.0]  # exactly untouched within the limit


def test_clip_by_norm_and_value_keep_pairs():
    v = gc.Variable(np.zeros(2, np.float32))
    g = gc.constant(np.array([3.0, 4.0], np.float32))
    ((clipped, same),) = optim.clip_by_norm([(g, v)], 1.0)
    assert same is v
    ((limited, _),) = optim.clip_by_value([(g, v)], -1.0, 3.5)
    zero = optim.clip_by_norm(gc.zeros((2,)), 1.0)
    found = Oracle().run([clipped, limited, zero])
    np.testing.assert_allclose(found[0], [0.6, 0.8], rtol=1e-6)
    assert found[1].tolist() == [3.0, 3.5] and found[2].tolist() == [0.0, 0.0]
    step = optim.SGD(lr=1.0).apply_gradients([(clipped, v)])
    oracle = Oracle()
    oracle.run([step])
    np.testing.assert_allclose(oracle.get(v), [-0.6, -0.8], rtol=1e-6)


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_name_what_is_wrong():
    w, other = gc.Variable([1.0, 2.0], name="w"), gc.Variable(1.0, name="other")
    loss = (w * w).sum()
    sgd = optim.SGD(lr=0.1)
    with pytest.raises(gc.GradientError, match=r"scalar.*\.mean\(\)"):
        sgd.minimize(w * w)
    with pytest.raises(gc.GradientError, match=r"does not depend on the variable 'other'.*test_optim.py"):
        sgd.minimize(loss, [w, other])
    with pytest.raises(gc.GradientError, match="no trainable variable"):
        sgd.minimize(gc.constant(1.0) * 2)
    fixed = gc.Variable(1.0, trainable=False, name="fixed")
    with pytest.raises(gc.GradientError, match="only on 'fixed'"):
        sgd.minimize(fixed * 2)
    with pytest.raises(gc.GradientError, match="stop_gradient"):
        sgd.minimize(gc.stop_gradient(w).sum())
    with pytest.raises(gc.UsageError, match="comes twice"):
        sgd.apply_gradients([(w * 1.0, w), (w * 2.0, w)])
    with pytest.raises(gc.ShapeError, match="'w' has shape"):
        sgd.apply_gradients([(other * 1.0, w)])
    with pytest.raises(gc.UsageError, match="Variables"):
        sgd.minimize(loss, [loss])


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=-0.1),
        lambda: optim.SGD(lr=float("nan")),
        lambda: optim.SGD(lr=0.1, nesterov=True),
        lambda: optim.Adam(betas=(1.0, 0.9)),
        lambda: optim.AdamW(weight_decay=-1),
        lambda: optim.SGD([]),
        lambda: optim.Adam(gc.Variable([1.0]), lr=0.1),
        lambda: optim.Adam({"w": gc.Variable(1.0)}),
        lambda: optim.Adam([gc.Variable(1.0), gc.constant(1.0)]),
        lambda: optim.clip_by_global_norm([gc.constant(1.0)], 0),
        lambda: optim.clip_by_value(gc.constant(1.0), 1, 0),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(gc.UsageError):
        make()


def test_learning_rate_must_be_a_scalar():
    with pytest.raises(gc.ShapeError, match="scalar"):
        optim.SGD(lr=gc.Variable([0.1, 0.2]))
