"""Sessions: what they keep from run to run -- variables, updates, random state, compiled programs."""

from __future__ import annotations

import gc as garbage
import re
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support.sessions import opened
from support.values import message_of

import graphcore as gc
from graphcore.base import notices
from graphcore.runtime import compiled as compiled_module

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
    assert "set_value: variable 'w' has shape (2,), the value (3,)" in message_of(
        gc.ShapeError, lambda: fast.set_value(w, [1, 2, 3])
    )
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
        fresh.load_state_dict(state)  # before it has used any
        assert fresh.state_dict().keys() == state.keys() and fresh.run(n) == 4
        text = message_of(gc.SessionError, lambda: fresh.load_state_dict(state))
        assert "a session knows the variables that it has used" in text


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


@pytest.mark.parametrize(
    "make",
    [
        lambda v: v + 1,
        lambda v: v * 0,
        lambda v: v[::-1] * 2 + v,
        lambda v: gc.zeros((4,)),
        lambda v: v - v.mean(),
        lambda v: v[::-1],
        lambda v: v.reshape(2, 2).T.reshape(4),
        lambda v: gc.cumsum(v) if False else v * v.sum(),
    ],
    ids=["add", "zero", "mix", "constant", "mean", "flip", "transpose", "sum"],
)
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


def test_variables_without_elements_are_updated(sess: gc.Session) -> None:
    a, b, c = (gc.Variable(np.ones(shape, np.float32)) for shape in ((0, 2), (0, 2), (2,)))
    for step in ([a.assign(a * 2), c.assign(c + a.sum()), a], [a.assign(b), b.assign(a), a], [a.assign(b * 0), b, a]):
        assert sess.run(step)[-1].shape == (0, 2)
    assert sess.get_value(a).shape == (0, 2) and sess.get_value(c).tolist() == [1, 1]


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
    g = gc.gradients(loss, w)[0]
    return x, y, loss, w.assign(w - rate * g)


def test_rebuilding_a_graph_neither_compiles_nor_leaks(compilations: list[Any]) -> None:
    session = opened("opencl:intel")
    from backends.opencl.compiler.build import build_count

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
                held.append(len(session._cache.programs))
        np.testing.assert_allclose(session.get_value(w), reference, rtol=1e-2, atol=1e-3)
        assert len(compilations) == 1 and len(set(programs)) == 1 and set(held) == {1}
        assert max(nodes) - min(nodes) <= 0, nodes


def test_graphs_that_differ_do_not_share(fast: gc.Session, compilations: list[Any]) -> None:
    w = gc.Variable(np.full(3, 2, np.float32))
    x = gc.placeholder("float32", (3,))
    makers = [
        lambda: x * w,
        lambda: w * x + 0 * x,
        lambda: x + w,
        lambda: x * 2,
        lambda: x * 3,
        lambda: (x * w).sum(),
        lambda: (x * w).sum(axis=0, keepdims=True),
        lambda: x * gc.constant([1.0, 2.0, 3.0]),
        lambda: x * gc.constant([1.0, 2.0, 4.0]),
        lambda: (x * w)[0:2],
        lambda: (x * w)[1:3],
        lambda: x.astype("float64") * 2,
    ]
    arrays = np.array([1, 2, 3], np.float32)
    expected = [
        arrays * 2,
        arrays * 2,
        arrays + 2,
        arrays * 2,
        arrays * 3,
        12,
        [12],
        [1, 4, 9],
        [1, 4, 12],
        [2, 4],
        [4, 6],
        arrays * 2,
    ]
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
    lines = [
        re.search(re.escape(Path(__file__).name) + r":(\d+)", fast.compile(t, {x: (3,)}).as_text("fused"))
        for t in (one, two)
    ]
    assert lines[0] and lines[1] and int(lines[1][1]) == int(lines[0][1]) + 1


def test_recomputed_nodes_are_not_the_originals(fast: gc.Session, compilations: list[Any]) -> None:
    x = gc.placeholder("float32", (4,))
    plain = gc.gradients((gc.tanh(gc.exp(x)) ** 2).sum(), x)[0]
    again = gc.gradients((gc.checkpoint(lambda v: gc.tanh(gc.exp(v)))(x) ** 2).sum(), x)[0]
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
    assert len(fast._cache.programs) == 1


def test_the_caches_are_bounded(fast: gc.Session) -> None:
    from graphcore.runtime.program_cache import CACHE_SIZE

    x = gc.placeholder("float32", ())
    for i in range(CACHE_SIZE + 5):
        assert fast.run(x * float(i), {x: 2}) == 2 * i
    assert len(fast._cache.programs) == len(fast._cache.entries) == CACHE_SIZE


def test_a_fetch_of_many_programs_is_told_once(fast: gc.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    x, y = gc.placeholder("float32", (None, 2), name="x"), gc.placeholder("float32", (2, None), name="y")
    batch, length = gc.softmax(x, 1), gc.softmax(y, 1).sum(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(3, 8):
            fast.run(length, {y: np.ones((2, n))})
        for n in (64, 5, 8, 100):
            fast.run(batch, {x: np.ones((n, 2))})
        assert [w.category for w in caught] == [gc.BuildWarning] and caught[0].filename == __file__
        assert "because axis 1 of 'y' was 4 and is 5; pad it to few sizes" in str(caught[0].message)
        for n in (1, 10, 100):
            fast.run(batch * 2, {x: np.ones((n, 2))})
    assert "because axis 0 of 'x' was 10 and is 100" in str(caught[1].message)
