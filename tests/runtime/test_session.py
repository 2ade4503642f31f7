"""Sessions: what a run takes and gives -- fetches, feeds, callables, symbolic sizes, a limit on memory."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support.sessions import opened
from support.values import message_of

import graphcore as gc

Pair = namedtuple("Pair", "first second")


# --- fetches ----------------------------------------------------------------------------------------------------------


def test_results_have_the_nesting_of_the_fetches(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (2,), name="x")
    w = gc.Variable([1.0, 2.0], name="w")
    step = gc.optim.SGD(lr=0.5).minimize((w * w).sum())
    fetches = {
        "a": [x + 1, (x * 2, None)],
        "pair": Pair(x, w.assign(w + 1) if False else x - 1),
        "step": step,
        "empty": [],
        "w": w,
    }
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
        assert (a.flags.writeable and a.flags.owndata) or a.base is None or a.base is not fed
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


@pytest.mark.parametrize(
    "value",
    [
        3,
        3.0,
        True,
        np.float64(3),
        np.int8(3),
        [3.0] * 4,
        (3,) * 4,
        np.full(4, 3),
        np.full(4, 3, np.uint8),
        np.full((8,), 3.0)[::2],
        np.full((4, 2), 3.0)[:, 1],
        np.array([3.0, 3, 3, 3])[::-1],
        np.full(4, 3, ">f4"),
        np.full(4, 3, np.float16),
        np.full(4, 3, ml_dtypes.bfloat16),
    ],
    ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}",
)
def test_feeds_convert_within_their_kind(sess: gc.Session, value: Any) -> None:
    shape = np.shape(value)
    x = gc.placeholder("float32", shape)
    found = sess.run(x * 1, {x: value})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(value, np.float64).astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float16", 1.5),
        ("bfloat16", 1.5),
        ("float64", 1 / 3),
        ("int8", -5),
        ("uint8", 250),
        ("int32", 2**30),
        ("int64", 2**62),
        ("uint32", 2**32 - 1),
        ("uint64", 2**63),
        ("bool", True),
    ],
)
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
    np.testing.assert_array_equal(
        sess.run(half, {half: np.array([1, 2, 3], ml_dtypes.bfloat16)}).astype(np.float32), [1, 2, 3]
    )


def test_feeds_that_do_not_fit(fast: gc.Session) -> None:
    x, i = gc.placeholder("float32", (2, 3), name="x"), gc.placeholder("int32", (2,), name="i")
    u, b = gc.placeholder("uint8", (1,), name="u"), gc.placeholder("bool", (), name="b")
    wrong = [
        (x, np.zeros((2, 4)), "axis 1 must be 3, not 4"),
        (x, np.zeros(6), "rank 1"),
        (x, [[1, 2], [3]], "no array"),
        (x, "text", "'text', which holds no numbers"),
        (x, x, "itself a symbolic tensor"),
        (x, None, "holds no numbers"),
        (x, np.zeros((2, 3), np.complex64), "complex64"),
        (i, [1.5, 2], "float64"),
        (i, np.zeros(2, np.float32), "array.astype('int32')"),
        (u, [300], "holds 300, which uint8 cannot"),
        (u, [-1], "holds -1"),
        (i, [2**31, 0], "2147483648"),
        (b, 1, "int64"),
        (u, np.array([1], np.int64), "int64"),
        (x, np.array([["a"] * 3] * 2), "holds no numbers"),
        (x, np.zeros((2, 3), "datetime64[s]"), "datetime64"),
    ]
    for t, value, fragment in wrong:
        text = message_of(gc.FeedError, lambda t=t, value=value: fast.run(t.astype("float32") * 1, {t: value}))
        assert fragment in text and f"{t.name}: {t.type}, built at {__file__}:" in text, text


def test_feed_dict_itself(fast: gc.Session) -> None:
    x, y = gc.placeholder("float32", (), name="x"), gc.placeholder("float32", (), name="y")
    w = gc.Variable(1.0, name="w")
    assert "placeholder 'y' is not fed" in message_of(gc.FeedError, lambda: fast.run(x + y, {x: 1}))
    assert "no tensor has the name 'z'" in message_of(gc.FeedError, lambda: fast.run(x, {"z": 1}))
    assert "keys must be tensors or their names, got int" in message_of(gc.FeedError, lambda: fast.run(x, {3: 1}))
    assert "expected a dict" in message_of(gc.UsageError, lambda: fast.run(x, [1.0]))  # type: ignore[arg-type]
    assert "sess.set_value" in message_of(gc.FeedError, lambda: fast.run(w * x, {x: 1, w: 2}))
    assert "is fed twice" in message_of(gc.FeedError, lambda: fast.make_callable(x, [x, x])(1, 2))
    assert fast.run(x, {x: 1, y: 2}) == 1  # more than is needed is no error: evaluation shares its feeds with training


def test_fetches_that_cannot_be(fast: gc.Session) -> None:
    x = gc.placeholder("float32", (), name="x")
    assert "there is no global graph" in message_of(gc.UsageError, lambda: fast.run("x", {x: 1}))
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
    assert sess.make_callable(y + 1, ["y"])(1.0) == 2  # type: ignore[list-item]
    assert "inputs must be tensors, got int" in message_of(gc.UsageError, lambda: sess.make_callable(y, [3]))  # type: ignore[list-item]
    assert "no tensor has the name 'z'" in message_of(gc.FeedError, lambda: sess.make_callable(y, ["z"]))


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
    for call in (
        lambda: session.run(x, {x: 1}),
        lambda: f(1.0),
        lambda: session.get_value(w),
        lambda: session.set_value(w, 1),
        lambda: session.state_dict(),
        lambda: session.make_callable(x, [x]),
        lambda: session.compile(x, {x: ()}),
        lambda: session.save("x"),
        lambda: session.restore("x"),
        lambda: session.__enter__(),
    ):
        assert "the session is closed" in message_of(gc.SessionError, call)
    assert session.closed


def test_options_and_metadata_of_a_run(sess: gc.Session) -> None:
    x = gc.placeholder("float32", ())
    told, metadata = {}, gc.RunMetadata()  # type: ignore[var-annotated]
    sess.run(x + 1, {x: 1}, run_metadata=told)
    sess.run(x + 1, {x: 1}, run_metadata=metadata)
    assert metadata.launches == told["launches"] == (1 if sess.device.startswith("opencl") else 0) and metadata.mode
    assert "holds infinity" in message_of(
        gc.SessionError, lambda: sess.run(x / 0, {x: 1}, options=gc.RunOptions(check_numerics=True))
    )


def test_check_numerics_names_the_tensor() -> None:
    with gc.Session("numpy", check_numerics=True) as session:
        x = gc.placeholder("float32", (2,))
        with gc.name_scope("risky"):
            y = gc.log(x)
        np.testing.assert_allclose(session.run(y, {x: [1, 2]}), np.log([1, 2]), rtol=1e-6)
        text = message_of(gc.SessionError, lambda: session.run([x, y], {x: [1, -1]}))
        assert "'risky/log' holds NaN" in text and f"{__file__}:" in text
        assert "holds infinity" in message_of(gc.SessionError, lambda: session.make_callable(y, [x])([1, 0]))


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
    slope = gc.gradients((mean * mean), x)[0]
    for n in (1, 4, 6):
        data = np.arange(1, n + 1, dtype=np.float32)
        found = sess.run([mean, slope], {x: data})
        np.testing.assert_allclose(found[0], data.mean(), rtol=1e-6)
        np.testing.assert_allclose(found[1], np.full(n, 2 * data.mean() / n), rtol=1e-5)


def test_equal_dims_that_differ_in_the_feeds(sess: gc.Session) -> None:
    batch = gc.Dim("batch")
    x, y = gc.placeholder("float32", (batch, 2), name="x"), gc.placeholder("float32", (batch,), name="y")
    text = message_of(gc.FeedError, lambda: sess.run([x, y], {x: np.zeros((3, 2)), y: np.zeros(4)}))
    assert (
        "batch is 3 in the feed for 'x', but 4 at axis 0 of the feed for 'y'" in text
        and text.count(f"{__file__}:") == 2
    )


@pytest.mark.parametrize("first", [True, False])
def test_unknown_dims_that_an_op_needs_equal(sess: gc.Session, first: bool) -> None:
    x, y = gc.placeholder("float32", (None, 2), name="x"), gc.placeholder("float32", (None, 2), name="y")
    z = x + y
    if not first:  # the check must not depend on what was compiled before
        assert sess.run(z.sum(), {x: np.ones((3, 2)), y: np.ones((3, 2))}) == 12
    for n in (2, 4, 1):
        text = message_of(gc.FeedError, lambda n=n: sess.run(z.sum(), {x: np.ones((3, 2)), y: np.ones((n, 2))}))
        assert f"is {n} in this feed" in text and "needs it to be 3" in text, text
        assert text.startswith("axis 0 of y") and "but add, built at" in text and "\n  x: float32(" in text, text
        assert text.count(f"{__file__}:") == 3, text  # of the sum, and of both operands
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
    session = opened(device, memory_limit="1KB")
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
        assert (
            "the memory limit is 1,000 bytes; the plan needs" in text
            and "8,192 bytes: variable w" in text
            and "test_session.py" in text
        )
        assert not taken and not session._backend.has(w)
        assert session.run(gc.constant(1.0) + 1) == 2
    assert isinstance(pytest.raises(gc.OutOfMemoryError, lambda: _limited(y, x, 8_000)).value, MemoryError)
    assert _limited(y, x, "1MiB").shape == (16, 32)


def _limited(y: Any, x: Any, limit: Any) -> Any:
    with gc.Session("numpy:kernels", memory_limit=limit) as session:
        return session.run(y, {x: np.zeros((16, 32))})


@pytest.mark.parametrize("limit", ["", "2 apples", "GB", "nanGB", [1]])
def test_memory_limits_that_are_none(limit: Any) -> None:
    assert "is no size; write bytes or text like '2GB'" in message_of(
        gc.UsageError, lambda: gc.Session("numpy", memory_limit=limit)
    )
