"""Sessions: fetches, feeds, variables, updates, random state, symbolic sizes, the compile cache and its memory."""

from __future__ import annotations

import gc as garbage
import re
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphcore as gc
from graphcore import compiled as compiled_module

DEVICES = ("numpy", "numpy:kernels", "opencl:intel", "opencl:pocl")
Pair = namedtuple("Pair", "first second")


@pytest.fixture(params=DEVICES)
def sess(request: pytest.FixtureRequest) -> Iterator[gc.Session]:
    """An open session on every device that is there."""
    try:
        session = gc.Session(request.param)
    except gc.DeviceError as error:
        pytest.skip(f"no {request.param}: {error}")
    with session:
        yield session


@pytest.fixture
def fast() -> Iterator[gc.Session]:
    """A session where the device does not matter."""
    with gc.Session("numpy:kernels") as session:
        yield session


def message_of(error: type[Exception], call: Any) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# --- fetches ----------------------------------------------------------------------------------------------------------


def test_results_have_the_nesting_of_the_fetches(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (2,), name="x")
    w = gc.Variable([1.0, 2.0], name="w")
    step = gc.optim.SGD(lr=0.5).minimize((w * w).sum())
    fetches = {"a": [x + 1, (x * 2, None)], "pair": Pair(x, w.assign(w + 1) if False else x - 1), "step": step, "empty": [], "w": w}
    found = sess.run(fetches, {x: [1.0, 2.0]})
    assert list(found) == list(fetches)
    assert isinstance(found["a"], list) and isinstance(found["a"][1], tuple) and isinstance(found["pair"], Pair)
    np.testing.assert_array_equal(found["a"][0], [2, 3])
    np.testing.assert_array_equal(found["a"][1][0], [2, 4])
    np.testing.assert_array_equal(found["pair"].first, [1, 2])
    np.testing.assert_array_equal(found["pair"].second, [0, 1])
    assert found["a"][1][1] is None and found["step"] is None and found["empty"] == []
    np.testing.assert_array_equal(found["w"], [1, 2])
    np.testing.assert_array_equal(sess.get_value(w), [0, 0])


def test_a_single_fetch_an_update_and_nothing(sess: gc.Session) -> None:
    w = gc.Variable(1.0)
    assert sess.run(w.assign(w + 1)) is None
    value = sess.run(w)
    assert isinstance(value, np.ndarray) and value.shape == () and value.dtype == np.float32 and value == 2
    assert sess.run([]) == [] and sess.run({}) == {} and sess.run(None) is None


def test_the_same_tensor_may_be_fetched_often_and_every_fetch_is_fresh(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (3,))
    w = gc.Variable(np.ones(3, np.float32))
    constant = gc.constant(np.arange(3, dtype=np.float32))
    fed = np.array([5, 6, 7], np.float32)
    run = lambda: sess.run([x, x, w, w, constant, constant, x * 1, x.reshape(3, 1)], {x: fed})
    first = run()
    kept = [a.copy() for a in first]
    for i, a in enumerate(first):
        assert a.flags.writeable and a.flags.owndata or a.base is None or a.base is not fed
        a[...] = -99 - i
    for i, a in enumerate(first):
        assert (a == -99 - i).all(), "two fetches share memory"
    np.testing.assert_array_equal(fed, [5, 6, 7])
    for again, before in zip(run(), kept, strict=True):
        np.testing.assert_array_equal(again, before)
    np.testing.assert_array_equal(sess.get_value(w), np.ones(3))


def test_a_result_is_not_overwritten_by_the_next_run(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (4,))
    f = sess.make_callable(x * 2, [x])
    first = f(np.ones(4, np.float32))
    f(np.full(4, 7, np.float32))
    np.testing.assert_array_equal(first, np.full(4, 2))


# --- feeds ------------------------------------------------------------------------------------------------------------


def test_any_tensor_can_be_fed(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (3,), name="x")
    hidden = x * 2
    constant = gc.constant([1.0, 1.0, 1.0])
    y = hidden + constant
    np.testing.assert_array_equal(sess.run(y, {hidden: [10, 20, 30]}), [11, 21, 31])  # x is not needed then
    np.testing.assert_array_equal(sess.run(y, {x: [1, 2, 3], constant: [0, 0, 5]}), [2, 4, 11])
    np.testing.assert_array_equal(sess.run([hidden, y], {hidden: [1, 1, 1]})[0], [1, 1, 1])
    np.testing.assert_array_equal(sess.run(x, {x: [1, 2, 3]}), [1, 2, 3])


def test_feeding_a_random_tensor_suppresses_its_draws_and_its_step(sess: gc.Session) -> None:
    with gc.name_scope("fed"):
        noise = gc.random.normal(shape=(4,))
    step = gc.random.state()[1]
    before = sess.get_value(step)
    np.testing.assert_array_equal(sess.run(noise + 1, {noise: np.zeros(4)}), np.ones(4))
    assert sess.get_value(step) == before


@pytest.mark.parametrize("value", [
    3, 3.0, True, np.float64(3), np.int8(3), [3.0] * 4, (3,) * 4, np.full(4, 3), np.full(4, 3, np.uint8), np.full((8,), 3.0)[::2],
    np.full((4, 2), 3.0)[:, 1], np.array([3.0, 3, 3, 3])[::-1], np.full(4, 3, ">f4"), np.full(4, 3, np.float16), np.full(4, 3, ml_dtypes.bfloat16),
], ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}")
def test_feeds_convert_within_their_kind(sess: gc.Session, value: Any) -> None:
    shape = np.shape(value)
    x = gc.placeholder("float32", shape)
    found = sess.run(x * 1, {x: value})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(value, np.float64).astype(np.float32))


@pytest.mark.parametrize(("dtype", "value"), [
    ("float16", 1.5), ("bfloat16", 1.5), ("float64", 1 / 3), ("int8", -5), ("uint8", 250), ("int32", 2**30), ("int64", 2**62), ("uint32", 2**32 - 1),
    ("uint64", 2**63), ("bool", True),
])
def test_every_dtype_passes_through(sess: gc.Session, dtype: str, value: Any) -> None:
    x = gc.placeholder(dtype, (2,))
    storage = gc.DType.storage.fget(x.dtype)  # type: ignore[attr-defined]
    for fed in ([value, value], np.array([value, value]).astype(storage)):
        found = sess.run([x, x.reshape(2, 1)], {x: fed})
        assert found[0].dtype == storage and found[1].shape == (2, 1)
        assert (found[0] == np.array([value, value]).astype(storage)).all()


def test_bfloat16_feeds_fetches_and_variables(sess: gc.Session) -> None:
    x = gc.placeholder("bfloat16", (3,))
    w = gc.Variable(np.array([1, 2, 3], ml_dtypes.bfloat16))
    y = sess.run(x + w, {x: np.array([1, 0.5, 0.25], np.float32)})
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y.astype(np.float32), [2, 2.5, 3.25])
    np.testing.assert_array_equal(sess.run(x.astype("float32"), {x: np.array([1, 2, 3], np.float16)}), [1, 2, 3])
    half = gc.placeholder("float16", (3,))
    np.testing.assert_array_equal(sess.run(half, {half: np.array([1, 2, 3], ml_dtypes.bfloat16)}).astype(np.float32), [1, 2, 3])


def test_feeds_that_do_not_fit(fast: gc.Session) -> None:
    x, i = gc.placeholder("float32", (2, 3), name="x"), gc.placeholder("int32", (2,), name="i")
    u, b = gc.placeholder("uint8", (1,), name="u"), gc.placeholder("bool", (), name="b")
    wrong = [
        (x, np.zeros((2, 4)), "axis 1 must be 3, not 4"), (x, np.zeros(6), "rank 1"), (x, [[1, 2], [3]], "no array"), (x, "text", "'text', which holds no numbers"),
        (x, x, "itself a symbolic tensor"), (x, None, "holds no numbers"), (x, np.zeros((2, 3), np.complex64), "complex64"), (i, [1.5, 2], "float64"),
        (i, np.zeros(2, np.float32), "array.astype('int32')"), (u, [300], "holds 300, which uint8 cannot"), (u, [-1], "holds -1"), (i, [2**31, 0], "2147483648"),
        (b, 1, "int64"), (u, np.array([1], np.int64), "int64"), (x, np.array([["a"] * 3] * 2), "holds no numbers"),
        (x, np.zeros((2, 3), "datetime64[s]"), "datetime64"),
    ]
    for t, value, fragment in wrong:
        text = message_of(gc.FeedError, lambda t=t, value=value: fast.run(t.astype("float32") * 1, {t: value}))
        assert fragment in text and f"{t.name}: {t.type}, built at {__file__}:" in text, text


def test_feed_dict_itself(fast: gc.Session) -> None:
    x, y = gc.placeholder("float32", (), name="x"), gc.placeholder("float32", (), name="y")
    w = gc.Variable(1.0, name="w")
    assert "placeholder 'y' is not fed" in message_of(gc.FeedError, lambda: fast.run(x + y, {x: 1}))
    assert "'x' is a name" in message_of(gc.FeedError, lambda: fast.run(x, {"x": 1}))
    assert "keys must be tensors, got int" in message_of(gc.FeedError, lambda: fast.run(x, {3: 1}))
    assert "expected a dict" in message_of(gc.UsageError, lambda: fast.run(x, [1.0]))  # type: ignore[arg-type]
    assert "sess.set_value" in message_of(gc.FeedError, lambda: fast.run(w * x, {x: 1, w: 2}))
    assert "is fed twice" in message_of(gc.FeedError, lambda: fast.make_callable(x, [x, x])(1, 2))
    assert fast.run(x, {x: 1, y: 2}) == 1  # more than is needed is no error: evaluation shares its feeds with training


def test_fetches_that_cannot_be(fast: gc.Session) -> None:
    x = gc.placeholder("float32", (), name="x")
    assert "'x' is a name; there is no global graph" in message_of(gc.UsageError, lambda: fast.run("x", {x: 1}))
    assert "cannot fetch a float" in message_of(gc.UsageError, lambda: fast.run([x, 1.0], {x: 1}))
    assert "cannot fetch a function" in message_of(gc.UsageError, lambda: fast.run({"a": message_of}))


# --- callables, functions, sessions -----------------------------------------------------------------------------------


def test_make_callable(sess: gc.Session) -> None:
    x, y = gc.placeholder("float32", (None,), name="x"), gc.placeholder("float32", (), name="y")
    w = gc.Variable(0.0)
    f = sess.make_callable({"z": x * y, "step": w.assign(w + y)}, [x, y])
    for n in (1, 3, 3, 2):
        np.testing.assert_array_equal(f(np.arange(n), 2)["z"], np.arange(n) * 2)
    assert sess.get_value(w) == 8
    assert "takes 2 arrays (x, y), got 1" in message_of(gc.FeedError, lambda: f([1.0]))
    assert sess.make_callable(y + 1, y)(1.0) == 2
    assert "inputs must be tensors, got str" in message_of(gc.UsageError, lambda: sess.make_callable(y, ["y"]))  # type: ignore[list-item]


def test_function_runs_in_the_default_session() -> None:
    x = gc.placeholder("float32", ())
    w = gc.Variable(10.0)
    f = gc.function([x], [x + w], updates=[w.assign(w + 1)])
    g = gc.function(x, x * 3)
    with gc.Session("numpy") as one:
        assert gc.default_session() is one
        assert f(1.0) == [11] and f(1.0) == [12] and g(2) == 6
        with gc.Session("numpy") as two:
            assert gc.default_session() is two
            assert f(1.0) == [11]  # its own variables
        assert gc.default_session() is one
        assert f(1.0) == [13]
    assert "cannot fetch an int" in message_of(gc.UsageError, lambda: gc.function([x], 3))


def test_a_closed_session_says_so() -> None:
    x = gc.placeholder("float32", ())
    w = gc.Variable(1.0)
    with gc.Session("numpy") as session:
        f = session.make_callable(x, [x])
    for call in (lambda: session.run(x, {x: 1}), lambda: f(1.0), lambda: session.get_value(w), lambda: session.set_value(w, 1), lambda: session.state_dict(),
                 lambda: session.make_callable(x, [x]), lambda: session.compile(x, {x: ()}), lambda: session.save("x"), lambda: session.restore("x"),
                 lambda: session.__enter__()):
        assert "the session is closed" in message_of(gc.SessionError, call)
    assert session.closed


def test_options_and_metadata_of_a_run(sess: gc.Session) -> None:
    x = gc.placeholder("float32", ())
    told, metadata = {}, gc.RunMetadata()  # type: ignore[var-annotated]
    sess.run(x + 1, {x: 1}, run_metadata=told)
    sess.run(x + 1, {x: 1}, run_metadata=metadata)
    assert metadata.launches == told["launches"] == (1 if sess.device.startswith("opencl") else 0) and metadata.mode
    assert "holds infinity" in message_of(gc.SessionError, lambda: sess.run(x / 0, {x: 1}, options=gc.RunOptions(check_numerics=True)))


def test_check_numerics_names_the_tensor() -> None:
    with gc.Session("numpy", check_numerics=True) as session:
        x = gc.placeholder("float32", (2,))
        with gc.name_scope("risky"):
            y = gc.log(x)
        np.testing.assert_allclose(session.run(y, {x: [1, 2]}), np.log([1, 2]), rtol=1e-6)
        text = message_of(gc.SessionError, lambda: session.run([x, y], {x: [1, -1]}))
        assert "'risky/log' holds NaN" in text and f"{__file__}:" in text
        assert "holds infinity" in message_of(gc.SessionError, lambda: session.make_callable(y, [x])([1, 0]))


# --- variables --------------------------------------------------------------------------------------------------------


def test_variables_initialise_on_first_use(sess: gc.Session) -> None:
    a = gc.Variable([1.0, 2.0], name="a")
    b = gc.Variable(a.read() * 3, name="b")  # from another variable
    c = gc.Variable(gc.init.normal((3, 2)), name="c")
    assert sess.run(b).tolist() == [3, 6]
    assert sess.get_value(c).shape == (3, 2)
    sess.set_value(a, [5.0, 5.0])
    assert sess.run(b).tolist() == [3, 6]  # only once
    assert sess.run(a + b).tolist() == [8, 11]


def test_a_value_set_before_the_first_use_is_not_overwritten(sess: gc.Session) -> None:
    w = gc.Variable([1.0, 2.0])
    sess.set_value(w, np.array([7.0, 8.0]))
    assert sess.run(w).tolist() == [7, 8]


def test_get_value_is_a_copy_and_sessions_do_not_share(sess: gc.Session) -> None:
    w = gc.Variable([1.0, 2.0])
    sess.get_value(w)[...] = 9
    sess.set_value(w, sess.get_value(w) + 1)
    given = np.array([4.0, 4.0], np.float32)
    assert sess.get_value(w).tolist() == [2, 3]
    sess.set_value(w, given)
    given[...] = 0
    assert sess.get_value(w).tolist() == [4, 4]
    with gc.Session(sess.device) as other:
        assert other.get_value(w).tolist() == [1, 2]


def test_set_value_checks_shape_and_type(fast: gc.Session) -> None:
    w, n = gc.Variable([1.0, 2.0], name="w"), gc.Variable(np.int32(0), name="n")
    assert "set_value: variable 'w' has shape (2,), the value (3,)" in message_of(gc.ShapeError, lambda: fast.set_value(w, [1, 2, 3]))
    assert f"the variable was made at {__file__}:" in message_of(gc.ShapeError, lambda: fast.set_value(w, 1.0))
    assert "variable 'n' is int32, the value float64" in message_of(gc.DTypeError, lambda: fast.set_value(n, 1.5))
    assert "symbolic tensor" in message_of(gc.UsageError, lambda: fast.set_value(w, w * 2))
    assert "expected a Variable, got Tensor" in message_of(gc.UsageError, lambda: fast.set_value(w * 2, [1, 2]))  # type: ignore[arg-type]
    fast.set_value(n, 7)
    fast.set_value(w, [1, 2])
    assert fast.get_value(n) == 7


def test_state_dict_and_back(sess: gc.Session) -> None:
    with gc.name_scope("net"):
        w, n = gc.Variable([1.0, 2.0], name="w"), gc.Variable(np.int64(3), name="n")
    h = gc.Variable(np.array([1, 2], ml_dtypes.bfloat16), name="h")
    sess.run([w.assign(w * 2), n.assign(n + 1), h.assign(h * 2)])
    state = sess.state_dict()
    assert sorted(state) == ["h", "net/n", "net/w"]
    assert state["h"].dtype == ml_dtypes.bfloat16 and state["net/n"] == 4
    with gc.Session(sess.device) as other:
        other.run([w, n, h])
        other.load_state_dict(state)
        for key, value in other.state_dict().items():
            assert value.dtype == state[key].dtype and value.tobytes() == state[key].tobytes()
        text = message_of(gc.SessionError, lambda: other.load_state_dict({"net/w": [0, 0], "more": 1}))
        assert "missing 'h', 'net/n', unexpected 'more'; pass strict=False" in text
        other.load_state_dict({"net/w": [0, 0], "more": 1}, strict=False)
        assert other.get_value(w).tolist() == [0, 0]
        text = message_of(gc.ShapeError, lambda: other.load_state_dict({"net/n": 9, "net/w": [1, 2, 3]}, strict=False))
        assert "load_state_dict: 'net/w'" in text and other.get_value(n) == 4  # nothing was loaded
    with gc.Session(sess.device) as fresh:
        assert "a session knows the variables that it has used" in message_of(gc.SessionError, lambda: fresh.load_state_dict(state))


def test_two_variables_of_one_name_cannot_be_saved(fast: gc.Session) -> None:
    one, two = gc.Variable(1.0, name="same"), gc.Variable(2.0, name="same")
    assert fast.run([one, two]) == [1, 2]
    text = message_of(gc.SessionError, lambda: fast.state_dict())
    assert "'same'" in text and text.count(f"{__file__}:") == 2


def test_save_and_restore(sess: gc.Session, tmp_path: Path) -> None:
    w = gc.Variable(np.arange(6, dtype=np.float32).reshape(2, 3), name="w")
    h = gc.Variable(np.array([1.5, 2.5], ml_dtypes.bfloat16), name="h")
    flag = gc.Variable(np.array([True, False]), name="flag")
    sess.run([w.assign(w + 1), h, flag])
    path = tmp_path / "state.safetensors"
    sess.save(path)
    sess.run([w.assign(w * 0), h.assign(h * 0), flag.assign(~flag)])
    sess.restore(path)
    assert sess.get_value(w).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert sess.get_value(h).dtype == ml_dtypes.bfloat16 and sess.get_value(h).astype(float).tolist() == [1.5, 2.5]
    assert sess.get_value(flag).tolist() == [True, False]
    with pytest.raises(FileNotFoundError):
        sess.restore(tmp_path / "missing")
    (tmp_path / "bad").write_bytes(b"no checkpoint")
    with pytest.raises(gc.FormatError):
        sess.restore(tmp_path / "bad")


def test_state_of_a_module(sess: gc.Session) -> None:
    model = gc.nn.Linear(3, 2)
    other = gc.Variable(1.0)
    x = gc.placeholder("float32", (None, 3))
    sess.run([model(x), other], {x: np.zeros((1, 3))})
    state = sess.state_dict(model)
    assert sorted(state) == ["bias", "weight"]
    sess.load_state_dict({k: np.full_like(v, 2) for k, v in state.items()}, module=model)
    np.testing.assert_array_equal(sess.run(model(x), {x: np.ones((1, 3))}), [[8, 8]])


def test_initial_values_of_a_module_come_too_late_for_an_open_session(fast: gc.Session) -> None:
    model = gc.nn.Linear(3, 2)
    state = {"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}
    model.load_state_dict(state)
    assert fast.get_value(model.bias).tolist() == [1, 1]
    text = message_of(gc.SessionError, lambda: model.load_state_dict({k: v * 2 for k, v in state.items()}))
    assert "sess.load_state_dict(state, module=module)" in text and f"{__file__}:" in text
    fast.close()
    model.load_state_dict({k: v * 2 for k, v in state.items()})
    with gc.Session("numpy") as other:
        assert other.get_value(model.bias).tolist() == [2, 2]


# --- updates ----------------------------------------------------------------------------------------------------------


def test_reads_come_before_writes(sess: gc.Session) -> None:
    a, b = gc.Variable([1.0, 2.0]), gc.Variable([3.0, 4.0])
    fetched = sess.run([a.assign(b), b.assign(a), a, b, a.reshape(2, 1), a * 1, (a + b).sum()])  # a swap
    assert [f.ravel().tolist() for f in fetched[2:]] == [[1, 2], [3, 4], [1, 2], [1, 2], [10]]
    assert sess.get_value(a).tolist() == [3, 4] and sess.get_value(b).tolist() == [1, 2]


@pytest.mark.parametrize("make", [lambda v: v + 1, lambda v: v * 0, lambda v: v[::-1] * 2 + v, lambda v: gc.zeros((4,)), lambda v: v - v.mean(), lambda v: v[::-1],
                                  lambda v: v.reshape(2, 2).T.reshape(4), lambda v: gc.cumsum(v) if False else v * v.sum()],
                         ids=["add", "zero", "mix", "constant", "mean", "flip", "transpose", "sum"])
def test_a_fetched_variable_has_its_old_value(sess: gc.Session, make: Any) -> None:
    start = np.array([1, 2, 3, 5], np.float32)
    v = gc.Variable(start)
    new = make(v)
    expected = sess.run(new)
    late = ((new.sum() * 0 + v) * 1).sum()  # needs the new value and then the old one
    before, total, after = sess.run([v, late, new, v.assign(new)])[:3]
    np.testing.assert_array_equal(before, start)
    assert total == start.sum()
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(sess.get_value(v), expected)


def test_updates_that_need_each_others_old_values(sess: gc.Session) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5, 5)).astype(np.float32)
    a, b = gc.Variable(x), gc.Variable(y)
    found = sess.run([a.assign(b @ b), b.assign(a @ a), a, (a @ b).sum(), b @ b])
    np.testing.assert_array_equal(found[2], x)
    np.testing.assert_allclose(found[3], (x @ y).sum(), rtol=1e-4)
    np.testing.assert_allclose(found[4], y @ y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sess.get_value(a), y @ y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sess.get_value(b), x @ x, rtol=1e-4, atol=1e-5)


def test_fused_updates_read_old_values(sess: gc.Session) -> None:
    a, b = gc.Variable(np.arange(37, dtype=np.float32)), gc.Variable(np.arange(37, dtype=np.float32)[::-1].copy())
    c = gc.Variable(1.0)
    sess.run([a.assign(a + b), b.assign(a - b), c.assign(c + (a * b).sum())])
    x, y = np.arange(37, dtype=np.float32), np.arange(37, dtype=np.float32)[::-1]
    np.testing.assert_array_equal(sess.get_value(a), x + y)
    np.testing.assert_array_equal(sess.get_value(b), x - y)
    assert sess.get_value(c) == 1 + (x * y).sum()


def test_chains_of_assigns_over_runs(sess: gc.Session) -> None:
    a, b, c = gc.Variable(1.0), gc.Variable(2.0), gc.Variable(3.0)
    rotate = [a.assign(b), b.assign(c), c.assign(a)]
    for expected in ([2, 3, 1], [3, 1, 2], [1, 2, 3]):
        sess.run(rotate)
        assert sess.run([a, b, c]) == expected
    assert sess.run(a.assign(a)) is None and sess.get_value(a) == 1


def test_the_same_update_twice_is_one_and_two_different_ones_are_an_error(sess: gc.Session) -> None:
    w = gc.Variable(1.0, name="w")
    value = w + 1
    update, same = w.assign(value), w.assign(value)
    sess.run([update, update, [update], same])
    assert sess.get_value(w) == 2
    other = w.assign(w + 2)
    text = message_of(gc.GraphError, lambda: sess.run([update, other]))
    assert "'w' is updated twice" in text
    line = re.findall(re.escape(__file__) + r":(\d+)", text)
    assert len(set(line)) == 2, text
    assert sess.get_value(w) == 2


def test_batch_norm_moves_its_statistics_once_a_run(sess: gc.Session) -> None:
    norm = gc.nn.BatchNorm2d(3)
    x = gc.placeholder("float32", (None, 3, 1, 1))
    y = norm(x)
    data = np.array([[1, 2, 3], [3, 4, 5]], np.float32).reshape(2, 3, 1, 1)
    sess.run([y, y.sum(), (y * 2).mean()], {x: data})
    state = sess.state_dict(norm)
    np.testing.assert_allclose(state["running_mean"], 0.1 * data.mean((0, 2, 3)), rtol=1e-5)
    norm.eval()
    sess.run(norm(x), {x: data})
    np.testing.assert_allclose(sess.state_dict(norm)["running_mean"], 0.1 * data.mean((0, 2, 3)), rtol=1e-5)


# --- random -----------------------------------------------------------------------------------------------------------


def test_draws_change_with_every_run_and_repeat_with_the_seed(sess: gc.Session) -> None:
    with gc.name_scope("draws"):
        noise = gc.random.normal(shape=(5,)), gc.random.uniform(shape=(5,))
    device = sess.device
    runs = [np.concatenate(sess.run(list(noise))) for _ in range(3)]
    assert len({r.tobytes() for r in runs}) == 3 and not np.array_equal(runs[0][:5], runs[0][5:])
    for seed, same in ((None, True), (sess.seed, True), (sess.seed + 1, False)):
        with gc.Session(device, seed=seed) as other:
            again = [np.concatenate(other.run(list(noise))) for _ in range(3)]
        assert (np.array(again).tobytes() == np.array(runs).tobytes()) is same
    one = sess.run([noise[0], noise[0] * 1])
    np.testing.assert_array_equal(*one)  # one run, one draw


def test_random_state_is_saved_and_restored(sess: gc.Session, tmp_path: Path) -> None:
    with gc.name_scope("resumed"):
        noise = gc.random.normal(shape=(5,))
    sess.run(noise)
    sess.save(tmp_path / "s")
    following = sess.run(noise)
    sess.restore(tmp_path / "s")
    np.testing.assert_array_equal(sess.run(noise), following)
    with gc.Session(sess.device, seed=99) as resumed:
        resumed.run(noise)
        resumed.restore(tmp_path / "s")
        np.testing.assert_array_equal(resumed.run(noise), following)


def test_initial_values_repeat_with_the_seed() -> None:
    w = gc.Variable(gc.init.normal((4,))), gc.Variable(gc.init.normal((4,)))
    values = []
    for seed in (1, 1, 2):
        with gc.Session("numpy", seed=seed) as session:
            values.append(np.array(session.run(list(w))))
    assert values[0].tobytes() == values[1].tobytes() != values[2].tobytes()
    assert not np.array_equal(*values[0])


# --- symbolic sizes ---------------------------------------------------------------------------------------------------


def test_batch_sizes_from_nothing_to_many(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (None, 3), name="x")
    w = gc.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))
    y, total = x @ w + 1, (x * 2).sum()
    for n in (4, 1, 0, 7, 33, 1):
        data = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
        found = sess.run([y, total, x[1:] if n else x, x.sum(axis=0)], {x: data})
        np.testing.assert_allclose(found[0], data @ np.arange(6).reshape(3, 2) + 1, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], data.sum() * 2, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[3], data.sum(0), rtol=1e-4, atol=1e-5)


def test_means_and_gradients_follow_the_batch_size(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (None,))
    mean = x.mean()
    slope = gc.gradients((mean * mean), x)
    for n in (1, 4, 6):
        data = np.arange(1, n + 1, dtype=np.float32)
        found = sess.run([mean, slope], {x: data})
        np.testing.assert_allclose(found[0], data.mean(), rtol=1e-6)
        np.testing.assert_allclose(found[1], np.full(n, 2 * data.mean() / n), rtol=1e-5)


def test_equal_dims_that_differ_in_the_feeds(sess: gc.Session) -> None:
    batch = gc.Dim("batch")
    x, y = gc.placeholder("float32", (batch, 2), name="x"), gc.placeholder("float32", (batch,), name="y")
    text = message_of(gc.FeedError, lambda: sess.run([x, y], {x: np.zeros((3, 2)), y: np.zeros(4)}))
    assert "batch is 3 in the feed for 'x', but 4 at axis 0 of the feed for 'y'" in text and text.count(f"{__file__}:") == 2


@pytest.mark.parametrize("first", [True, False])
def test_unknown_dims_that_an_op_needs_equal(sess: gc.Session, first: bool) -> None:
    x, y = gc.placeholder("float32", (None, 2), name="x"), gc.placeholder("float32", (None, 2), name="y")
    z = x + y
    if not first:  # the check must not depend on what was compiled before
        assert sess.run(z.sum(), {x: np.ones((3, 2)), y: np.ones((3, 2))}) == 12
    for n in (2, 4, 1):
        text = message_of(gc.FeedError, lambda n=n: sess.run(z.sum(), {x: np.ones((3, 2)), y: np.ones((n, 2))}))
        assert f"is {n} in this feed" in text and "needs it to be 3" in text and text.count(f"{__file__}:") == 2, text
    assert sess.run(z.sum(), {x: np.ones((5, 2)), y: np.ones((5, 2))}) == 20


def test_a_size_that_no_feed_gives(fast: gc.Session) -> None:
    n = gc.Dim("n")
    x = gc.placeholder("float32", (n,), name="x")
    hidden = x * 2
    assert "placeholder 'x' is not fed" in message_of(gc.FeedError, lambda: fast.run(gc.zeros((n,)) + x))
    assert "extents n are not known" in message_of(gc.FeedError, lambda: fast.run(gc.zeros((n,)) * 2))
    assert fast.run((hidden + 1).sum(), {hidden: np.ones(4)}) == 8


# --- memory limit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["numpy:kernels", "opencl:intel"])
def test_a_memory_limit_is_checked_before_anything_is_allocated(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        session = gc.Session(device, memory_limit="1KB")
    except gc.DeviceError as error:
        pytest.skip(str(error))
    w = gc.Variable(gc.init.normal((32, 64)), name="w")
    x = gc.placeholder("float32", (None, 32))
    y = gc.relu(x @ w) @ w.T
    taken: list[Any] = []
    if device == "opencl:intel":
        from backends.opencl.memory import Memory

        grow = Memory.grow
        monkeypatch.setattr(Memory, "grow", lambda self, size: (taken.append(size), grow(self, size))[1])
    with session:
        text = message_of(gc.OutOfMemoryError, lambda: session.run(y, {x: np.zeros((16, 32))}))
        assert "the memory limit is 1,000 bytes; the plan needs" in text and "8,192 bytes: variable w" in text and "test_session.py" in text
        assert not taken and not session._backend.has(w)
        assert session.run(gc.constant(1.0) + 1) == 2
    assert isinstance(pytest.raises(gc.OutOfMemoryError, lambda: _limited(y, x, 8_000)).value, MemoryError)
    assert _limited(y, x, "1MiB").shape == (16, 32)


def _limited(y: Any, x: Any, limit: Any) -> Any:
    with gc.Session("numpy:kernels", memory_limit=limit) as session:
        return session.run(y, {x: np.zeros((16, 32))})


@pytest.mark.parametrize("limit", ["", "2 apples", "GB", "nanGB", [1]])
def test_memory_limits_that_are_none(limit: Any) -> None:
    assert "is no size; write bytes or text like '2GB'" in message_of(gc.UsageError, lambda: gc.Session("numpy", memory_limit=limit))


# --- the compile cache ------------------------------------------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for every compilation of a graph."""
    made: list[Any] = []
    real = compiled_module.Compiled.__init__

    def counted(self: Any, *args: Any) -> None:
        made.append(self)
        real(self, *args)

    monkeypatch.setattr(compiled_module.Compiled, "__init__", counted)
    return made


def test_one_compilation_serves_many_batch_sizes(sess: gc.Session, compilations: list[Any]) -> None:
    x = gc.placeholder("float32", (None, 8))
    y = gc.softmax(x * 2, axis=1)
    for n in (16, 8, 1, 3, 100, 16):
        assert sess.run(y, {x: np.zeros((n, 8))}).shape == (n, 8)
    assert len(compilations) == 1
    c = sess.compile(y, {x: (16, 8)})
    assert len(compilations) == 1 and c.memory_analysis()["feed_bytes"] == 16 * 8 * 4
    larger = sess.compile(y, {x: np.zeros((32, 8))})
    assert larger.memory_analysis()["feed_bytes"] == 2 * c.memory_analysis()["feed_bytes"] == 2 * 16 * 8 * 4


def build(w: gc.Variable, rate: float = 0.01) -> tuple[Any, ...]:
    """The same graph on every call, built anew: symbolic sizes, constants, gradients, a checkpoint, an update."""
    x, y = gc.placeholder("float32", (None, 6)), gc.placeholder("float32", (None,))
    block = gc.checkpoint(lambda v: gc.tanh(v @ w.reshape(6, 1)) * gc.constant(np.linspace(0, 1, 5, dtype=np.float32)))
    loss = ((block(x).sum(axis=1) - y) ** 2).mean()
    g = gc.gradients(loss, w)
    return x, y, loss, w.assign(w - rate * g)


def test_rebuilding_a_graph_neither_compiles_nor_leaks(compilations: list[Any]) -> None:
    try:
        session = gc.Session("opencl:intel")
    except gc.DeviceError as error:
        pytest.skip(str(error))
    from backends.opencl.build import build_count

    w = gc.Variable(np.linspace(-1, 1, 6, dtype=np.float32), name="w")
    rng = np.random.default_rng(0)
    reference = w.initial.astype(np.float64)
    with session:
        programs, nodes, held = [], [], []
        for i in range(300):
            x, y, loss, step = build(w)
            n = 4 + i % 3
            a, b = rng.standard_normal((n, 6)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
            value, _ = session.run([loss, step], {x: a, y: b})
            h = np.tanh(a.astype(np.float64) @ reference)
            residual = h * 2.5 - b
            assert abs(value - (residual**2).mean()) < 1e-4 * max(1, value)
            reference -= 0.01 * (a * (2 * residual * 2.5 * (1 - h * h) / n)[:, None]).sum(0)
            if i in (10, 150, 299):
                del x, y, loss, step
                garbage.collect()
                programs.append(build_count())
                nodes.append(sum(isinstance(o, gc.Node) for o in garbage.get_objects()))
                held.append(len(session._programs))
        np.testing.assert_allclose(session.get_value(w), reference, rtol=1e-2, atol=1e-3)
        assert len(compilations) == 1 and len(set(programs)) == 1 and set(held) == {1}
        assert max(nodes) - min(nodes) <= 0, nodes


def test_graphs_that_differ_do_not_share(fast: gc.Session, compilations: list[Any]) -> None:
    w, v = gc.Variable(np.full(3, 2, np.float32)), gc.Variable(np.full(3, 5, np.float32))
    x = gc.placeholder("float32", (3,))
    makers = [lambda: x * w, lambda: x * v, lambda: w * x + 0 * x, lambda: x + w, lambda: x * 2, lambda: x * 3, lambda: (x * w).sum(), lambda: (x * w).sum(axis=0, keepdims=True),
              lambda: x * gc.constant([1.0, 2.0, 3.0]), lambda: x * gc.constant([1.0, 2.0, 4.0]), lambda: (x * w)[0:2], lambda: (x * w)[1:3], lambda: x.astype("float64") * 2]
    arrays = np.array([1, 2, 3], np.float32)
    expected = [arrays * 2, arrays * 5, arrays * 2, arrays + 2, arrays * 2, arrays * 3, 12, [12], [1, 4, 9], [1, 4, 12], [2, 4], [4, 6], arrays * 2]
    for make, value in zip(makers, expected, strict=True):
        np.testing.assert_array_equal(fast.run(make(), {x: arrays}), value)
    count = len(compilations)
    assert count == len(makers)
    for make, value in zip(makers, expected, strict=True):
        np.testing.assert_array_equal(fast.run(make(), {x: arrays}), value)
    assert len(compilations) == count


def test_what_is_fed_and_fetched_is_part_of_the_fingerprint(fast: gc.Session) -> None:
    x, y = gc.placeholder("float32", ()), gc.placeholder("float32", ())
    d = x - y
    assert fast.run(d, {x: 5, y: 3}) == 2
    assert fast.run(d, {y: 3, x: 5}) == 2  # another order of feeds
    assert fast.make_callable(d, [y, x])(3, 5) == 2
    assert fast.run([x, d], {x: 5, y: 3}) == [5, 2] and fast.run([d, x], {x: 5, y: 3}) == [2, 5]
    assert fast.run([d * 2, d], {d: 7}) == [14, 7]


def test_named_and_unnamed_sizes_are_renumbered(fast: gc.Session, compilations: list[Any]) -> None:
    def pair(a: Any, b: Any) -> tuple[Any, ...]:
        x, y = gc.placeholder("float32", (a, 2)), gc.placeholder("float32", (b, 2))
        return x, y, gc.concat([x, y]).sum(axis=1)

    for a, b in ((None, None), (gc.Dim("zz"), gc.Dim("aa")), (gc.Dim("aa"), gc.Dim("zz")), (None, None)):
        x, y, z = pair(a, b)
        assert fast.run(z, {x: np.ones((3, 2)), y: np.ones((1, 2))}).tolist() == [2] * 4
    assert len(compilations) == 1
    same = gc.Dim("s")
    x, y, z = pair(same, same)
    assert fast.run(z, {x: np.ones((2, 2)), y: np.ones((2, 2))}).tolist() == [2] * 4
    assert len(compilations) == 2  # equal sizes are another graph


def test_compile_shows_the_lines_of_the_graph_that_was_asked_for(fast: gc.Session) -> None:
    x = gc.placeholder("float32", (3,))
    one = x * 2 + 1
    two = x * 2 + 1
    fast.run(one, {x: [1, 2, 3]})
    lines = [re.search(r"test_session\.py:(\d+)", fast.compile(t, {x: (3,)}).as_text("fused")) for t in (one, two)]
    assert lines[0] and lines[1] and int(lines[1][1]) == int(lines[0][1]) + 1


def test_recomputed_nodes_are_not_the_originals(fast: gc.Session, compilations: list[Any]) -> None:
    x = gc.placeholder("float32", (4,))
    plain = gc.gradients((gc.tanh(gc.exp(x)) ** 2).sum(), x)
    again = gc.gradients((gc.checkpoint(lambda v: gc.tanh(gc.exp(v)))(x) ** 2).sum(), x)
    data = np.linspace(-1, 1, 4)
    np.testing.assert_allclose(fast.run(plain, {x: data}), fast.run(again, {x: data}), rtol=1e-6)
    assert len(compilations) == 2


def test_a_dropped_graph_is_freed_while_its_program_lives(fast: gc.Session) -> None:
    w = gc.Variable(1.0)

    def once() -> None:
        x = gc.placeholder("float32", ())
        fast.run(x * w + 1, {x: 1})

    once()
    garbage.collect()
    before = sum(isinstance(o, gc.Node) for o in garbage.get_objects())
    for _ in range(20):
        once()
    garbage.collect()
    assert sum(isinstance(o, gc.Node) for o in garbage.get_objects()) <= before
    assert len(fast._programs) == 1


def test_the_caches_are_bounded(fast: gc.Session) -> None:
    from graphcore.cached import CACHE_SIZE

    x = gc.placeholder("float32", ())
    for i in range(CACHE_SIZE + 5):
        assert fast.run(x * float(i), {x: 2}) == 2 * i
    assert len(fast._programs) == len(fast._entries) == CACHE_SIZE
