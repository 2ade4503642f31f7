"""Modules: registration, paths, state, modes; layers against NumPy and PyTorch's numbers."""

from __future__ import annotations

import gc as garbage
import weakref

import numpy as np
import pytest
from support.float64 import Oracle

import graphcore as gc
from graphcore import nn
from graphcore.ir.graph import toposort


class Block(nn.Module):
    """A module with a parameter, a buffer and a submodule, that does not call super().__init__()."""

    def __init__(self) -> None:
        self.inner = nn.Linear(2, 2)
        self.scale = gc.Variable(2.0, name="scale")
        self.count = gc.Variable(np.int64(0), name="count")

    def forward(self, x):
        return self.inner(x) * self.scale


def model_and_input():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Block2d(), nn.Linear(8, 2)), gc.placeholder("float32", (3, 4))


class Block2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(x))


def test_registration_and_paths():
    block = Block()
    assert [k for k, _ in block.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
    assert [k for k, _ in block.named_buffers()] == ["count"]
    assert [k for k, _ in block.named_modules()] == ["", "inner"]
    outer = nn.Sequential(nn.ReLU(), block)
    assert block.inner.weight.key_hint == "1.inner.weight"
    late = nn.Linear(2, 2)
    block.late = late
    assert late.bias.key_hint == "1.late.bias"
    assert list(outer.children()) == [outer[0], block]
    del block.late
    assert "1.late.bias" not in outer.state_dict()


def test_assignment_replaces_and_explicit_names_do_not():
    model = Block()
    model.inner = nn.Linear(2, 3)
    assert model.inner.weight.shape == (3, 2) and len(list(model.parameters())) == 3
    with pytest.raises(
        gc.UsageError, match=r"already has 'inner'(.|\n)*first at .*test_nn.py:\d+(.|\n)*again at .*test_nn.py:\d+"
    ):
        model.add_module("inner", nn.Linear(2, 2))
    with pytest.raises(gc.UsageError, match="already has 'scale'"):
        model.register_parameter("scale", gc.Variable(1.0))
    with pytest.raises(gc.UsageError, match="another attribute"):
        model.register_buffer("training", np.zeros(2))
    with pytest.raises(gc.UsageError, match="dots"):
        model.add_module("a.b", nn.ReLU())
    with pytest.raises(gc.UsageError, match="contain itself"):
        model.inner.parent = model
    model.scale = 3.0  # a plain value takes the name away
    assert "scale" not in dict(model.named_parameters())


def test_shared_modules_count_once():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert [k for k, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert sorted(model.state_dict()) == ["0.bias", "0.weight"]
    assert len(list(model.modules())) == 3


def test_modules_are_freed():
    model = nn.Sequential(nn.Linear(2, 2))
    seen = weakref.ref(model)
    inner = model[0]
    del model
    garbage.collect()
    assert seen() is None and inner._parent() is None


def test_modes_act_on_what_is_built_afterwards():
    model, x = model_and_input()
    trained = model.train()(x)
    evaluated = model.eval()(x)
    again = model(x)
    feed = {x: np.random.default_rng(0).normal(size=(3, 4))}
    oracle = Oracle()
    a, b = oracle.run([evaluated, again], feed)
    np.testing.assert_array_equal(a, b)
    assert not any(m.training for m in model.modules())
    assert any(n.op.name.startswith("random") for n in toposort([trained]))
    assert not any(n.op.name.startswith("random") for n in toposort([evaluated]))


def test_freeze_keeps_parameters_parameters():
    model = nn.Linear(2, 2).freeze()
    assert len(list(model.parameters())) == 2 and not any(p.trainable for p in model.parameters())
    with pytest.raises(gc.GradientError, match="no trainable"):
        gc.optim.SGD(lr=0.1).minimize(model(gc.ones((1, 2))).sum())
    assert all(p.trainable for p in model.unfreeze().parameters())


def test_apply_visits_children_first():
    seen: list[str] = []
    nn.Sequential(nn.Linear(1, 1), nn.ReLU()).apply(lambda m: seen.append(type(m).__name__))
    assert sorted(seen[:2]) == ["Linear", "ReLU"] and seen[2] == "Sequential"


def test_state_round_trip():
    a, b = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2)), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))
    state = a.state_dict()
    assert list(state) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    state["0.weight"] = np.arange(6.0).reshape(2, 3)  # float64 is cast
    assert b.load_state_dict(state) == ([], [])
    assert b[0].weight.initial.tolist() == [[0, 1, 2], [3, 4, 5]] and b[0].weight.initial.dtype == np.float32
    np.testing.assert_array_equal(a.state_dict()["0.bias"], b.state_dict()["0.bias"])
    np.testing.assert_array_equal(
        Oracle(seed=7).get(a[0].bias), state["0.bias"]
    )  # what was shown is what a run starts from
    assert next(iter(a.state_dict("net"))) == "net.0.weight"


def test_load_state_dict_errors_change_nothing():
    model = nn.Linear(3, 2)
    state = model.state_dict()
    with pytest.raises(gc.FormatError, match=r"missing: 'bias'(.|\n)*unexpected: 'extra'"):
        model.load_state_dict({"weight": state["weight"], "extra": np.zeros(1)})
    with pytest.raises(gc.ShapeError, match="'bias' has shape"):
        model.load_state_dict({"weight": state["weight"] + 1, "bias": np.zeros(3)})
    with pytest.raises(gc.DTypeError, match="'weight' is float32"):
        model.load_state_dict({"weight": np.zeros((2, 3), np.int64), "bias": state["bias"]})
    np.testing.assert_array_equal(model.state_dict()["weight"], state["weight"])
    found = model.load_state_dict({"weight": state["weight"], "extra": np.zeros(1)}, strict=False)
    assert found.missing_keys == ["bias"] and found.unexpected_keys == ["extra"]


def test_repr():
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.1)))) == (
        "Sequential(\n  (0): Linear(in_features=2, out_features=3, bias=True)\n  (1): Sequential(\n    "
        "(0): ReLU()\n    (1): Dropout(p=0.1)\n  )\n)"
    )
    assert (
        repr(nn.Conv2d(1, 2, 3, padding=1, bias=False))
        == "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)"
    )


def test_name_scopes():
    model = nn.Sequential(nn.Linear(2, 2))
    y = model(gc.ones((1, 2)))
    assert y.node.origin.scope[:2] == ("Sequential", "Linear_0")
    assert y.node.origin.file.endswith("test_nn.py")
    assert "test_nn.py" in model[0].weight.place


def test_containers():
    model = nn.Sequential({"first": nn.Linear(2, 3), "act": nn.ReLU()})
    assert [k for k, _ in model.named_parameters()] == ["first.weight", "first.bias"]
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    layers.append(nn.ReLU())
    assert len(layers) == 4 and len(layers[1:]) == 3 and isinstance(layers[1:], nn.ModuleList)
    assert isinstance(layers[-1], nn.ReLU)
    layers[0] = nn.Linear(2, 5)
    assert layers[0].weight.shape == (5, 2) and layers[0].weight.key_hint == "0.weight"
    with pytest.raises(gc.UsageError, match="cannot be called"):
        layers(gc.ones((1, 2)))
    with pytest.raises(gc.UsageError, match="takes modules"):
        nn.Sequential(abs)
    with pytest.raises(gc.UsageError, match="does not define forward"):
        nn.Module()(gc.ones((1,)))


# -- layers -----------------------------------------------------------------------------------------------------------


def test_parameter_shapes_are_torch_s():
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.Linear(6, 3),
        nn.LayerNorm(3),
        nn.Embedding(7, 3),
    )
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        "0.weight": (6, 2, 3, 3),
        "0.bias": (6,),
        "1.weight": (6,),
        "1.bias": (6,),
        "1.running_mean": (6,),
        "1.running_var": (6,),
        "1.num_batches_tracked": (),
        "3.weight": (3, 6),
        "3.bias": (3,),
        "4.weight": (3,),
        "4.bias": (3,),
        "5.weight": (7, 3),
    }


@pytest.mark.parametrize(
    ("layer", "bound"),
    [(nn.Linear(400, 300), 400**-0.5), (nn.Conv2d(32, 64, 3), 288**-0.5), (nn.Conv2d(32, 64, 3, groups=4), 72**-0.5)],
)
def test_default_initialisation(layer, bound):
    weight, bias = Oracle().get(layer.weight), Oracle(1).get(layer.bias)
    assert np.abs(weight).max() <= bound and np.abs(bias).max() <= bound
    np.testing.assert_allclose(weight.std(), bound / 3**0.5, rtol=0.03)
    assert abs(weight.mean()) < 0.02 * bound


def test_linear_and_embedding():
    layer, table = nn.Linear(3, 2), nn.Embedding(5, 3, padding_idx=-4)
    indices = gc.constant(np.array([[0, 1], [4, 1]]))
    y = layer(table(indices))
    oracle = Oracle()
    (found,) = oracle.run([y])
    rows = oracle.get(table.weight)[[[0, 1], [4, 1]]]
    np.testing.assert_allclose(found, rows @ oracle.get(layer.weight).T + oracle.get(layer.bias), rtol=1e-5)
    (gradient,) = oracle.run([gc.gradients(table(indices).sum(), table.weight)[0]])
    assert gradient.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]  # row 1 is padding


def test_conv_and_pools_against_loops():
    x = np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype(np.float32)
    conv = nn.Conv2d(2, 4, 3, stride=2, padding="valid", groups=2)
    oracle = Oracle()
    found = oracle.run([conv(gc.constant(x)), nn.MaxPool2d(2, 1)(gc.constant(x)), nn.AvgPool2d((2, 3))(gc.constant(x))])
    w, b = oracle.get(conv.weight), oracle.get(conv.bias)
    expected = np.empty((2, 4, 2, 2), np.float32)
    for n, o, i, j in np.ndindex(expected.shape):
        g = o // 2
        expected[n, o, i, j] = (x[n, g : g + 1, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * w[o]).sum() + b[o]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))
    np.testing.assert_allclose(found[1], windows.max((-1, -2)))
    np.testing.assert_allclose(found[2], x[:, :, :4, :3].reshape(2, 2, 2, 2, 1, 3).mean((3, 5)), rtol=1e-5)
    assert nn.Conv2d(2, 2, 5, padding="same", dilation=2).padding == (4, 4)
    with pytest.raises(gc.UsageError, match="same"):
        nn.Conv2d(2, 2, 4, padding="same")
    with pytest.raises(gc.ShapeError, match="groups"):
        nn.Conv2d(3, 4, 3, groups=2)


BN_INPUT = np.sin(np.arange(16.0)).reshape(2, 2, 2, 2)


def test_batch_norm_equals_torch():
    """Numbers of torch 2.13 (float64) after two training runs, and in evaluation."""
    norm = nn.BatchNorm2d(2, momentum=0.3, dtype="float64")
    norm.load_state_dict({"weight": np.array([1.5, -0.5]), "bias": np.array([0.1, 0.2], np.float32)}, strict=False)
    x = gc.constant(BN_INPUT)
    y, z = norm.train()(x), norm.eval()(x)
    oracle = Oracle()
    oracle.run([y])
    found = oracle.run([y])[0]
    np.testing.assert_allclose(
        found.ravel()[:4],
        [-0.3878108009976117, 1.4893560859454937, 1.6406643940317431, -0.07299803739934752],
        rtol=1e-9,
    )
    np.testing.assert_allclose(oracle.get(norm.running_mean), [0.111521306925055, 0.011878769883220612], rtol=1e-9)
    np.testing.assert_allclose(oracle.get(norm.running_var), [0.7535163442195838, 0.771685983720949], rtol=1e-9)
    assert oracle.get(norm.num_batches_tracked) == 2
    found = oracle.run([z])[0]
    np.testing.assert_allclose(
        found.ravel()[:4],
        [-0.09270806285752661, 1.3613481095294115, 1.4785517427474013, 0.15114635692807024],
        rtol=1e-9,
    )
    assert oracle.get(norm.num_batches_tracked) == 2


def test_batch_norm_cumulative_average_equals_torch():
    norm = nn.BatchNorm2d(2, momentum=None, dtype="float64")
    oracle = Oracle()
    oracle.run([norm(gc.constant(BN_INPUT))])
    oracle.run([norm(gc.constant(2 * BN_INPUT))])
    np.testing.assert_allclose(oracle.get(norm.running_mean), [0.3280038438972206, 0.03493755848006063], rtol=1e-9)
    np.testing.assert_allclose(oracle.get(norm.running_var), [1.2917467853901168, 1.3808136456909268], rtol=1e-9)


def test_batch_norm_twice_in_one_run_moves_twice():
    norm = nn.BatchNorm2d(2, dtype="float64")
    oracle, other = Oracle(), Oracle()
    oracle.run([norm(gc.constant(BN_INPUT)) + norm(gc.constant(2 * BN_INPUT))])
    other.run([norm(gc.constant(BN_INPUT))])
    other.run([norm(gc.constant(2 * BN_INPUT))])
    np.testing.assert_allclose(oracle.get(norm.running_mean), other.get(norm.running_mean), rtol=1e-12)
    assert oracle.get(norm.num_batches_tracked) == 2


def test_batch_norm_gradient():
    norm = nn.BatchNorm2d(2, dtype="float64")
    x = gc.placeholder("float64", BN_INPUT.shape)
    loss = (norm(x) * gc.constant(np.cos(BN_INPUT))).sum()
    g = gc.gradients(loss, x)[0]
    oracle = Oracle()
    direction, eps = np.cos(np.arange(16.0)).reshape(BN_INPUT.shape), 1e-6
    (gradient,) = oracle.run([g], {x: BN_INPUT})
    high, low = (oracle.run([loss], {x: BN_INPUT + s * eps * direction})[0] for s in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (high - low) / (2 * eps), rtol=1e-6)


def test_batch_norm_without_statistics_or_affine():
    norm = nn.BatchNorm2d(2, affine=False, track_running_stats=False).eval()
    assert not list(norm.parameters()) and not list(norm.buffers())
    found = Oracle().run([norm(gc.constant(BN_INPUT.astype(np.float32)))])[0]
    np.testing.assert_allclose(found.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(found.std((0, 2, 3)), 1, rtol=1e-4)
    with pytest.raises(gc.ShapeError, match=r"takes \(N, 2, H, W\)"):
        norm(gc.ones((2, 3, 4, 4)))


def test_layer_norm():
    layer = nn.LayerNorm((2, 3))
    layer.load_state_dict({"weight": np.arange(6.0).reshape(2, 3), "bias": np.ones((2, 3))})
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    found = Oracle().run([layer(gc.constant(x))])[0]
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    np.testing.assert_allclose(
        found, (x - mean) / np.sqrt(var + 1e-5) * np.arange(6.0).reshape(2, 3) + 1, rtol=1e-4, atol=1e-5
    )
    assert nn.LayerNorm(3, bias=False).bias is None and not list(nn.LayerNorm(3, elementwise_affine=False).parameters())


def _erf(x):
    from math import erf

    return np.vectorize(erf)(x)


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.GELU(), lambda x: x * 0.5 * (1 + _erf(x / 2**0.5))),
        (nn.GELU("tanh"), lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.Tanh(), np.tanh),
        (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
        (nn.Softmax(1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (nn.LogSoftmax(0), lambda x: x - np.log(np.exp(x).sum(0, keepdims=True))),
        (nn.Identity(3, a=1), lambda x: x),
        (nn.Flatten(0), np.ravel),
    ],
    ids=lambda v: repr(v) if isinstance(v, nn.Module) else "",
)
def test_activations(layer, reference):
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    np.testing.assert_allclose(Oracle().run([layer(gc.constant(x))])[0], reference(x), rtol=1e-6, atol=1e-12)


def test_flatten_keeps_the_batch_symbolic():
    x = gc.placeholder("float32", (None, 2, 3))
    assert nn.Flatten()(x).shape == (x.shape[0], 6)


def _log_softmax(x):
    return x - np.log(np.exp(x).sum(1, keepdims=True))


A, B = np.random.default_rng(0).normal(size=(2, 5, 3))
LABELS = np.array([0, 2, 1, 1, 0])
WEIGHT = np.array([0.5, 1.0, 2.0])
HUBER = np.where(np.abs(A - B) <= 0.5, (A - B) ** 2 / 2, 0.5 * (np.abs(A - B) - 0.25))
PICKED = -_log_softmax(A)[np.arange(5), LABELS]


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        (nn.MSELoss(), B, ((A - B) ** 2).mean()),
        (nn.MSELoss("sum"), B, ((A - B) ** 2).sum()),
        (nn.L1Loss("none"), B, np.abs(A - B)),
        (nn.HuberLoss(delta=0.5), B, HUBER.mean()),
        (nn.CrossEntropyLoss(), LABELS, PICKED.mean()),
        (nn.CrossEntropyLoss(reduction="none"), LABELS, PICKED),
        (nn.CrossEntropyLoss(weight=WEIGHT), LABELS, (PICKED * WEIGHT[LABELS]).sum() / WEIGHT[LABELS].sum()),
        (nn.CrossEntropyLoss(ignore_index=1), LABELS, PICKED[LABELS != 1].mean()),
        (nn.CrossEntropyLoss(label_smoothing=0.1), LABELS, (0.9 * PICKED - 0.1 * _log_softmax(A).mean(1)).mean()),
        (nn.NLLLoss(), LABELS, -A[np.arange(5), LABELS].mean()),
        (nn.BCEWithLogitsLoss(), (B > 0) * 1.0, np.log1p(np.exp(np.where(B > 0, -A, A))).mean()),
        (
            nn.BCEWithLogitsLoss(pos_weight=WEIGHT),
            (B > 0) * 1.0,
            np.where(B > 0, WEIGHT * np.log1p(np.exp(-A)), np.log1p(np.exp(A))).mean(),
        ),
    ],
)
def test_losses(loss, target, expected):
    (found,) = Oracle().run([loss(gc.constant(A), gc.constant(target))])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bad_arguments():
    for make in (
        lambda: nn.Dropout(1.5),
        lambda: nn.MSELoss("average"),
        lambda: nn.Embedding(3, 2, padding_idx=3),
        lambda: nn.HuberLoss(delta=0),
        lambda: nn.BatchNorm2d(2, momentum=2.0),
        lambda: nn.MaxPool2d((1, 2, 3)),
    ):
        with pytest.raises(gc.UsageError):
            make()


def test_a_network_learns():
    """End to end on the oracle: layers, gradients and updates together."""
    rng = np.random.default_rng(0)
    x_data = rng.normal(size=(16, 1, 4, 4)).astype(np.float32)
    labels = (x_data[:, 0, :2].sum((1, 2)) > x_data[:, 0, 2:].sum((1, 2))).astype(np.int64)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    loss = nn.CrossEntropyLoss()(model(gc.constant(x_data)), gc.constant(labels))
    step = gc.optim.AdamW(lr=0.02).minimize(loss)
    oracle = Oracle()
    values = [float(oracle.run([loss, step])[0]) for _ in range(40)]
    assert values[-1] < 0.1 * values[0]
