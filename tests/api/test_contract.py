"""What users of NumPy and PyTorch write, through the public interface alone, against NumPy."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc
from graphcore.base import notices

A = np.random.default_rng(3).standard_normal((3, 4, 5)).astype("float32")


@pytest.fixture(scope="module", params=["numpy", "auto"])
def session(request: Any) -> Any:
    with gc.Session(device=request.param) as opened:
        yield opened


@pytest.mark.parametrize("parts", [2, 3])
def test_gradient_through_concat_along_a_symbolic_axis(session: Any, parts: int) -> None:
    x = gc.placeholder("float32", (None, 3))
    y = gc.concat([x * float(k + 1) for k in range(parts)], 0)
    gradient = gc.gradients((y * y).sum(), x)[0]
    for rows in (1, 4):
        fed = A[0, :rows, :3]
        expected = 2 * sum((k + 1) ** 2 for k in range(parts)) * fed
        np.testing.assert_allclose(session.run(gradient, {x: fed}), expected, rtol=1e-5)


def test_second_gradient_through_concat_along_a_symbolic_axis(session: Any) -> None:
    x = gc.placeholder("float32", (None,))
    y = (gc.concat([x[:1], x, x[1:]]) ** 3).sum()
    (second,) = gc.gradients([gc.gradients(y, x)[0].sum()], [x])
    np.testing.assert_allclose(session.run(second, {x: [1.0, 2.0, 3.0]}), [12.0, 24.0, 36.0], rtol=1e-5)


@pytest.mark.parametrize(
    "key",
    [
        np.array([True, False, True]),
        [False, False, False],
        (slice(None), np.array([True, False, True, True])),
        (..., np.array([True, False, True, False, False])),
        A > 0,
        (slice(1, 3), np.ones((4, 5), bool)),
        (0, A[0, :, 0] > 0, slice(1, 3)),
        (A[:, :, 0] > 0, None),
    ],
)
def test_constant_masks_index(session: Any, key: Any) -> None:
    result = gc.constant(A)[key]
    assert result.shape == A[key].shape
    np.testing.assert_array_equal(session.run(result), A[key])


def test_a_mask_of_another_shape_is_out_of_range() -> None:
    with pytest.raises(IndexError, match="mask"):
        gc.constant(A)[np.array([True, False])]


@pytest.mark.parametrize("index", [3, -4, [0, 5], (0, 0, 0, 0), (..., ...), (0, np.array([4]))])
def test_bad_indices_are_index_errors_and_value_errors(index: Any) -> None:
    with pytest.raises(IndexError) as caught:
        gc.constant(A)[index]
    assert isinstance(caught.value, (gc.GraphcoreError, ValueError))
    assert "test_contract.py" in str(caught.value)


_UFUNC = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@pytest.mark.parametrize("name", ["set", "add", "mul", "min", "max"])
@pytest.mark.parametrize("mask", [A > 0, A[:, 0, 0] > 0, A[:, :, 0] > 0])
@pytest.mark.parametrize("fed", [False, True])
def test_at_a_mask(session: Any, name: str, mask: np.ndarray, fed: bool) -> None:
    value = np.arange(A[mask].shape[-1] if mask.ndim < 3 else 1, dtype="float32")[: None if mask.ndim < 3 else 1]
    value = value if mask.ndim < 3 else np.float32(0.25)
    expected = A.copy()
    expected[mask] = value if name == "set" else _UFUNC[name](A[mask], value)
    condition = gc.placeholder("bool", mask.shape)
    result = getattr(gc.constant(A).at[condition if fed else mask], name)(value)
    np.testing.assert_allclose(session.run(result, {condition: mask} if fed else None), expected, rtol=1e-6)


def test_at_a_mask_refuses_what_does_not_fit() -> None:
    x = gc.constant(A)
    with pytest.raises(gc.ShapeError, match="mask"):
        x.at[np.ones((4,), bool)].set(0.0)
    with pytest.raises(gc.ShapeError, match="broadcast"):
        x.at[A > 0].set(gc.ones((2,)))


@pytest.mark.parametrize(
    "key",
    [
        ([0, 1], [1, 2]),
        ([0, 0], [-1, 3]),
        (slice(None), [1, 1]),
        (slice(None), [0, 2], 1),
        ([[0, 1], [2, 2]], slice(None), 0),
        (..., [4, 0, 4]),
    ],
)
@pytest.mark.parametrize("scalar", [False, True])
def test_at_integer_arrays_anywhere(session: Any, key: Any, scalar: bool) -> None:
    value = np.float32(2.5) if scalar else np.arange(A[key].size, dtype="float32").reshape(A[key].shape)
    added, placed = A.copy(), A.copy()
    np.add.at(added, key, value)
    placed[key] = value
    x = gc.constant(A)
    results = session.run([x.at[key].add(value), x.at[key].set(value)])
    np.testing.assert_allclose(results[0], added, rtol=1e-6)
    np.testing.assert_array_equal(results[1], placed)


def test_at_integer_tensors_has_gradients(session: Any) -> None:
    x, v = gc.placeholder("float32", (3, 4)), gc.placeholder("float32", (2,))
    rows, columns = gc.constant([0, 2]), gc.constant([1, 3])
    to_x, to_v = gc.gradients((x.at[rows, columns].set(v) * 3.0).sum(), [x, v])
    expected = np.full((3, 4), 3.0)
    expected[[0, 2], [1, 3]] = 0
    got = session.run([to_x, to_v], {x: A[:, :, 0], v: [1.0, 2.0]})
    np.testing.assert_array_equal(got[0], expected)
    np.testing.assert_array_equal(got[1], [3.0, 3.0])


def test_scatter_add_takes_an_index_smaller_than_both(session: Any) -> None:
    x, src = A[0], np.ones((4, 5), "float32")
    index = np.array([[0, 1], [2, 3], [1, 1]])
    for dim in (0, 1):
        expected = x.copy()
        for i, j in np.ndindex(index.shape):
            expected[(index[i, j], j) if dim == 0 else (i, index[i, j])] += src[i, j]
        np.testing.assert_allclose(session.run(gc.scatter_add(x, dim, index, src)), expected, rtol=1e-6)
    with pytest.raises(gc.ShapeError, match="no larger"):
        gc.scatter_add(x, 0, np.zeros((2, 6), "int64"), np.ones((2, 6), "float32"))


def test_dim_is_another_name_of_axis(session: Any) -> None:
    x = gc.constant(A)
    got = session.run(
        [gc.concat([x, x], dim=1), gc.stack([x, x], dim=-1), gc.split(x, 2, dim=1)[1], gc.squeeze(x[:1], dim=0)]
    )
    expected = [np.concatenate([A, A], 1), np.stack([A, A], -1), A[:, 2:], A[0]]
    for value, wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    np.testing.assert_allclose(
        session.run(gc.tensordot(x, A[0], dims=2)), np.tensordot(A, A[0], 2), rtol=1e-4, atol=1e-5
    )


def test_none_is_no_dtype() -> None:
    with pytest.raises(gc.DTypeError, match="None"):
        gc.placeholder(None, (2,))


def test_a_mean_in_place_of_a_shape_is_refused() -> None:
    with pytest.raises(gc.ShapeError, match="shape="):
        gc.random.truncated_normal(0.0, 1.0, (1000,))
    with pytest.raises(gc.ShapeError, match="shape="):
        gc.random.exponential(2.0, (3,))


def test_pooling_modules_take_the_functions_options(session: Any) -> None:
    x = gc.constant(A[None])
    functional = gc.nn.functional
    pairs = [
        (gc.nn.MaxPool2d(2, 2, ceil_mode=True)(x), functional.max_pool2d(x, 2, 2, ceil_mode=True), (1, 3, 2, 3)),
        (gc.nn.MaxPool2d(2, 1, 0, 2)(x), functional.max_pool2d(x, 2, 1, dilation=2), (1, 3, 2, 3)),
        (
            gc.nn.AvgPool2d(3, 2, 1, count_include_pad=False)(x),
            functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            (1, 3, 2, 3),
        ),
    ]
    for layer, function, shape in pairs:
        assert layer.shape == shape
        np.testing.assert_array_equal(*session.run([layer, function]))


def test_module_state_with_initial_tensors() -> None:
    class Scaled(gc.nn.Module):
        def __init__(self) -> None:
            self.scale = gc.Variable(gc.ones((2,)) * 3.0, name="scale")

    state = Scaled().state_dict()
    np.testing.assert_array_equal(state["scale"], [3.0, 3.0])

    class Drawn(gc.nn.Module):
        def __init__(self) -> None:
            self.noise = gc.Variable(gc.random.normal(shape=(2,)), name="noise")

    with pytest.raises(gc.UsageError, match="sess.state_dict"):
        Drawn().state_dict()


def test_kl_div_loss(session: Any) -> None:
    p = np.array([[0.25, 0.75], [0.5, 0.5]], "float32")
    logs = np.log(np.array([[0.5, 0.5], [0.1, 0.9]], "float32"))
    each = p * (np.log(p) - logs)
    for reduction, expected in (("mean", each.mean()), ("batchmean", each.sum() / 2), ("sum", each.sum())):
        np.testing.assert_allclose(session.run(gc.nn.KLDivLoss(reduction)(logs, p)), expected, rtol=1e-4)
    logs_too = gc.nn.KLDivLoss("none", log_target=True)(logs, np.log(p))
    np.testing.assert_allclose(session.run(logs_too), each, rtol=1e-4, atol=1e-6)


def test_single_tensors_for_jvp_and_hvp(session: Any) -> None:
    x, v = np.array([1.0, 2.0], "float32"), np.array([1.0, -1.0], "float32")
    y, along = gc.jvp(lambda t: t**2, gc.constant(x), gc.constant(v))
    (product,) = gc.hvp(lambda t: (t**3).sum(), gc.constant(x), gc.constant(v))
    got = session.run([y, along, product])
    for value, expected in zip(got, [x**2, 2 * x * v, 6 * x * v], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_checkpoint_passes_keywords_on(session: Any) -> None:
    x = gc.constant([1.0, 2.0])
    y = gc.checkpoint(lambda t, scale=1.0: gc.sin(t) * scale)(x, scale=3.0)
    got = session.run([y, gc.gradients(y.sum(), x)[0]])
    np.testing.assert_allclose(got[0], 3 * np.sin([1.0, 2.0]), rtol=1e-5)
    np.testing.assert_allclose(got[1], 3 * np.cos([1.0, 2.0]), rtol=1e-5)


def test_restore_before_first_use(session: Any, tmp_path: Any) -> None:
    """A fresh session keeps what was restored until its variables are used, optimizer state included."""
    w = gc.Variable([1.0, 2.0], name="w")
    step = gc.optim.Adam(lr=0.1).minimize((w * w).sum())
    with gc.Session(device="numpy") as first:
        first.run(step)
        first.save(tmp_path / "state")
        expected = [first.run([w, step])[0], first.get_value(w)]
    with gc.Session(device="numpy") as second:
        second.restore(tmp_path / "state")
        assert "w" in second.state_dict()
        np.testing.assert_array_equal([second.run([w, step])[0], second.get_value(w)], expected)
    other = gc.Variable([1.0], name="other")
    with gc.Session(device="numpy") as strict, gc.Session(device="numpy") as loose:
        strict.restore(tmp_path / "state")
        with pytest.raises(gc.SessionError, match="'other'.*not in the state"):
            strict.run(other)
        loose.restore(tmp_path / "state", strict=False)
        np.testing.assert_array_equal(loose.run(other), [1.0])


def test_gradients_can_be_switched_off_at_once() -> None:
    gc.set_grad_enabled(False)
    try:
        assert not gc.grad_enabled()
        with gc.set_grad_enabled(True):
            assert gc.grad_enabled()
        assert not gc.grad_enabled()
    finally:
        gc.set_grad_enabled(True)

    @gc.set_grad_enabled(False)
    def inside() -> bool:
        return gc.grad_enabled()

    assert gc.grad_enabled() and not inside() and gc.grad_enabled()


@pytest.mark.parametrize("step", [lambda t, w: t * w + 0.5, lambda t, w: gc.tanh(t), lambda t, w: t * 1.01])
def test_gradients_of_long_elementwise_chains_run(session: Any, step: Any) -> None:
    x, w = gc.placeholder("float32", (50,)), gc.Variable(np.float32(0.99))
    t = x
    for _ in range(300):
        t = step(t, w)
    value, gradient = session.run([t, gc.gradients(t.sum(), x)[0]], {x: np.linspace(-1, 1, 50, dtype="float32")})
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_labels_of_minus_100_are_ignored_by_default(session: Any) -> None:
    logits = gc.constant(A[0, :, :3])
    labels = np.array([0, -100, 2, -100])
    kept = gc.nn.functional.cross_entropy(gc.constant(A[0, [0, 2], :3]), np.array([0, 2]))
    got = session.run([gc.nn.functional.cross_entropy(logits, labels), gc.nn.CrossEntropyLoss()(logits, labels), kept])
    np.testing.assert_allclose(got[:2], [got[2]] * 2, rtol=1e-5)


def test_long_sums_are_accurate(session: Any) -> None:
    """A million times 0.1: one running sum in float32 would be off by more than 1e-4."""
    x = gc.placeholder("float32", (None,))
    fed = np.full(1_000_003, 0.1, "float32")
    exact = fed.astype(np.float64).sum()
    np.testing.assert_allclose(session.run([x.sum(), x.mean() * len(fed)], {x: fed}), exact, rtol=2e-5)


def test_sines_of_sines_and_their_gradients(session: Any) -> None:
    x = gc.placeholder("float32", (40,))
    fed = np.linspace(-9, 9, 40).astype("float32")
    y = gc.sin(gc.sin(gc.sin(x)))
    inner, middle = np.sin(fed.astype(np.float64)), np.sin(np.sin(fed.astype(np.float64)))
    got = session.run(gc.gradients(y.sum(), x)[0], {x: fed})
    np.testing.assert_allclose(got, np.cos(middle) * np.cos(inner) * np.cos(fed.astype(np.float64)), atol=1e-5)


def test_the_package_runs_as_a_command() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "graphcore", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.startswith("graphcore ")


def test_max_and_min_give_values_that_know_their_positions(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``[0]`` directly on such a result is a row, as in NumPy, and PyTorch's values: it warns, once a line."""
    monkeypatch.setattr(notices, "_warned", set())
    x = gc.constant(A)
    for build, reduced, position in ((gc.max, np.max, np.argmax), (gc.min, np.min, np.argmin)):
        for axis, keepdims in ((1, False), (-1, True), (0, False)):
            found = build(x, axis, keepdims)
            got = session.run([found, found.values, found.indices])
            for value, expected in zip(got, [reduced(A, axis, keepdims=keepdims)] * 2, strict=False):
                np.testing.assert_array_equal(value, expected)
            np.testing.assert_array_equal(got[2], position(A, axis, keepdims=keepdims))
    assert "along one axis" in message_of(gc.UsageError, lambda: x.max().indices)
    assert ".values, m.indices" in message_of(gc.UsageError, lambda: [*x.max(1)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            first, second = x.max(1)[0], x.min(dim=1)[1]  # one line
        later = x.max(1)[0]
        quiet = [x.max(1).values[0], x.max(1)[2], x.max(1)[:1], x.max(1)[..., 0], x.amax((0, 1))[0], (x.max(1) * 1)[0]]
    assert [w.category for w in caught] == [gc.ResultWarning] * 2
    assert "row 0 of the values; write .values or .indices" in str(caught[0].message)
    got = session.run([first, second, later, quiet[0]])
    for value, expected in zip(got, [A.max(1)[0], A.min(1)[1], A.max(1)[0], A.max(1)[0]], strict=True):
        np.testing.assert_array_equal(value, expected)
