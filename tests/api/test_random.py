"""Random tensors and initial values: distributions, seeds, steps, streams."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from support.values import evaluate, message_of, node_of

import graphcore as gc
from graphcore.api.tensor import wrap
from graphcore.ir.fingerprint import fingerprint
from graphcore.ir.graph import Graph, collect, copy_node, toposort
from graphcore.ir.leaves import Parameter
from graphcore.ops.region import Checkpoint


def draw(t: gc.Tensor, seed: int = 0, step: int = 0) -> Any:
    return draw_all([t], seed, step)[0]


def draw_all(tensors: Sequence[gc.Tensor], seed: int = 0, step: int = 0) -> list[Any]:
    """What one run draws."""
    key, counter, _ = gc.random.state()
    return evaluate(tensors, {}, {key: np.array([seed, 0], np.uint32), counter: np.uint32(step)})


def test_random_distributions() -> None:
    gc.random.seed(7)
    n = 40_000
    u, z, b = (
        draw(gc.random.uniform((n,), -1, 3)),
        draw(gc.random.normal((n,), 2, 3)),
        draw(gc.random.bernoulli(0.3, (n,))),
    )
    assert u.min() >= -1 and u.max() < 3 and abs(u.mean() - 1) < 0.03 and abs(u.std() - 4 / 12**0.5) < 0.02
    assert abs(z.mean() - 2) < 0.06 and abs(z.std() - 3) < 0.05 and np.isfinite(z).all()
    assert abs(b.mean() - 0.3) < 0.01
    t, r = draw(gc.random.truncated_normal((n,), 0, 1)), draw(gc.random.randint(-2, 5, (n,)))
    assert t.min() >= -2 and t.max() <= 2 and abs(t.std() - 0.8796) < 0.01
    assert set(r) == set(range(-2, 5)) and abs(np.bincount(r + 2) / n - 1 / 7).max() < 0.01
    assert (
        abs(draw(gc.random.exponential((n,), 2.0)).mean() - 2) < 0.05
        and abs(draw(gc.random.gumbel((n,))).mean() - 0.5772) < 0.03
    )
    c = draw(gc.random.categorical(np.log(np.broadcast_to(np.array([0.2, 0.5, 0.3], np.float32), (n, 3)))))
    assert abs(np.bincount(c) / n - [0.2, 0.5, 0.3]).max() < 0.01
    p = draw(gc.random.permutation(50))
    assert sorted(p) == list(range(50)) and list(p) != list(range(50))
    assert sorted(draw(gc.random.permutation(gc.constant([3.0, 1.0, 2.0])))) == [1, 2, 3]
    for dtype in ("float16", "bfloat16", "float64"):
        v = draw(gc.random.uniform((n,), 0, 1, dtype)).astype(np.float64)
        assert v.min() >= 0 and v.max() < 1 and abs(v.mean() - 0.5) < 0.01
    assert draw(gc.random.bernoulli(1.0, (9,))).all() and not draw(gc.random.bernoulli(0.0, (9,))).any()


def test_random_seeds_steps_and_streams() -> None:
    def build() -> list[gc.Tensor]:
        first, second = gc.random.normal(shape=(8,)), gc.random.normal(shape=(8,))
        with gc.name_scope("drop"):
            return [first, second, gc.random.normal(shape=(8,))]

    gc.random.seed(3)
    once, twice = build(), build()
    values = draw_all(once)
    for v, again in zip(values, draw_all(twice), strict=True):
        np.testing.assert_array_equal(v, again)
    assert len({v.tobytes() for v in values}) == 3
    assert not np.array_equal(values[0], draw(once[0], step=1)) and not np.array_equal(values[0], draw(once[0], seed=1))
    graph = collect(once)
    assert [v.name for v, _ in graph.updates] == ["random/step"]
    assert evaluate([graph.updates[0][1]], {}, {gc.random.state()[1]: np.uint32(4)})[0] == 5
    assert not collect([gc.constant(1.0) + 1]).updates
    assert list(gc.random.state()[0].initial) == [3, 0] and gc.random.default_seed() == 3


def test_scopes_do_not_disturb_each_other() -> None:
    def build(extra: int) -> list[gc.Tensor]:
        with gc.name_scope("a"):
            others = [gc.random.uniform(shape=(4,)) for _ in range(extra)]
        with gc.name_scope("b"):
            return [gc.random.uniform(shape=(4,)), *others]

    alone, beside = draw_all(build(0)), draw_all(build(2))
    np.testing.assert_array_equal(alone[0], beside[0])
    assert len({v.tobytes() for v in beside}) == 3


def test_initializers() -> None:
    rng = np.random.default_rng(0)
    shape = (400, 300)
    std = {
        "he_normal": (2 / 400) ** 0.5,
        "he_uniform": (2 / 400) ** 0.5,
        "xavier_normal": (2 / 700) ** 0.5,
        "xavier_uniform": (2 / 700) ** 0.5,
        "lecun_normal": (1 / 400) ** 0.5,
        "lecun_uniform": (1 / 400) ** 0.5,
    }
    for name, want in std.items():
        found = getattr(gc.init, name)(shape)
        sample = found.sample(rng)
        assert sample.shape == found.shape == shape and sample.dtype == np.float32
        assert abs(sample.std() / want - 1) < 0.02 and abs(sample.mean()) < 0.01 * want
    assert abs(gc.init.he_normal((300, 400), in_axis=1, out_axis=0).sample(rng).std() / (2 / 400) ** 0.5 - 1) < 0.02
    assert gc.init.fans((64, 3, 5, 5)) == (75, 1600)
    q = gc.init.orthogonal((6, 4)).sample(rng)
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-6)
    t = gc.init.truncated_normal((1000,), 1.0, 0.5).sample(rng)
    assert t.min() >= 0 and t.max() <= 2
    np.testing.assert_array_equal(gc.init.constant((2,), 3).sample(rng), [3, 3])
    np.testing.assert_array_equal(gc.init.eye((2, 3)).sample(rng), np.eye(2, 3))
    assert gc.Variable(gc.init.zeros((2, 3), "float16")).dtype == "float16"


def test_extreme_words_stay_in_range() -> None:
    words = np.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
    shape = (5,)

    def extremes(t: gc.Tensor) -> Any:
        return evaluate([t], {n.output(): words for n in toposort([t]) if n.op.name == "random_bits"})[0]

    for dtype in ("float16", "bfloat16", "float32", "float64"):
        u, v = extremes(gc.random.uniform(shape, 0, 1, dtype)), extremes(gc.random.uniform(shape, -3, 7, dtype))
        assert u[0] == 0 and (u < 1).all() and v[0] == -3 and (v < 7).all(), dtype
        far = extremes(gc.random.uniform(shape, 1000, 1001, dtype)).astype(np.float64)  # where steps are coarse
        assert far[0] == 1000 and (far >= 1000).all() and (far < 1001).all(), dtype
        normal, gumbel = gc.random.normal(shape, 0, 1, dtype), gc.random.gumbel(shape, dtype)
        for t in (normal, gumbel, gc.random.exponential(shape, 1.0, dtype)):
            assert np.isfinite(extremes(t).astype(np.float64)).all(), t
        z = extremes(gc.random.normal(shape, 0, 1, dtype)).astype(np.float64)
        np.testing.assert_allclose(z, -z[[4, 3, 2, 1, 0]], rtol=1e-2, atol=1e-5)
    r = extremes(gc.random.randint(-5, 2, shape))
    assert r[0] == -5 and r[-1] == 1


def test_streams_never_collide() -> None:
    colliding = ("s15566", "s19757")  # whose first draws have one hash
    tensors = []
    for scope in colliding:
        with gc.name_scope(scope):
            tensors.append(gc.random.bits((4,)))
    alone = [streams(collect([t]).outputs) for t in tensors]
    assert alone[0] == alone[1]
    assert streams(collect(tensors).outputs) == [alone[0][0], alone[0][0] + 1]
    assert streams(collect(tensors[::-1]).outputs) == [
        alone[0][0] + 1,
        alone[0][0],
    ]  # whatever order they are fetched in


def streams(tensors: Sequence[gc.Tensor]) -> list[Any]:
    """Of the draws that these are."""
    return [t.node.op.stream for t in tensors]  # type: ignore[attr-defined]


def test_draws_are_numbered_by_scope_and_order_in_their_graph() -> None:
    """Whatever was built before or beside them, and is not fetched."""

    def build() -> list[gc.Tensor]:
        with gc.name_scope("a"):
            first, second = gc.random.bits((4,)), gc.random.bits((4,))
        with gc.name_scope("b"):
            return [first, second, gc.random.bits((4,))]

    once, twice = build(), build()
    numbers = streams(collect(once).outputs)
    assert streams(collect(twice).outputs) == numbers and len(set(numbers)) == 3
    assert streams(collect(once[::-1]).outputs) == numbers[::-1]
    assert streams(collect([once[0], twice[1], twice[2]]).outputs) == numbers
    assert streams(collect(once[1:]).outputs) == [numbers[0], numbers[2]]
    assert len(set(streams(collect([*once, *twice]).outputs))) == 6
    assert streams(collect([*once, *twice]).outputs)[:3] == numbers
    assert len({fingerprint(collect(g)).digest for g in (once, twice)}) == 1
    assert fingerprint(collect(once)).digest != fingerprint(collect([once[1], once[0], once[2]])).digest


def test_a_draw_has_one_number_wherever_it_is() -> None:
    """In its copies, in bodies of regions, and where other draws are fed."""
    w = gc.Variable(np.ones(4, np.float32))
    one, two = gc.random.bits((4,)), gc.random.bits((4,))
    copy = copy_node(one.node, one.node.inputs, clone=1).output()
    assert one.node is not copy.node
    numbers = streams(collect([one, two]).outputs)
    assert streams(collect([one, copy, two]).outputs) == [numbers[0], *numbers]
    cut = collect([one + two, two], (), [one.value]).outputs
    assert streams(cut[1:]) == numbers[1:] and cut[0].node.inputs[0] == one.value

    parameter = wrap(node_of(Parameter((4,), w.dtype), ()).output())
    inner = Graph((parameter * gc.cast(two, "float32"),), (), (parameter,))
    outer = Graph((node_of(Checkpoint((inner,)), (parameter,)).output(),), (), (parameter,))
    region = node_of(Checkpoint((outer,)), (w.read(),)).output()
    numbered = collect([region, one])
    body: Any = numbered.outputs[0].node.op
    body = body.bodies[0].outputs[0].node.op
    found = [n.op.stream for n in body.bodies[0].nodes() if n.op.name == "random_bits"]  # type: ignore[attr-defined]
    assert found == numbers[1:] and streams(numbered.outputs[1:]) == numbers[:1]


def test_a_draw_without_a_number_has_no_value() -> None:
    t = gc.random.bits((4,))
    key, step = np.zeros(2, np.uint32), np.uint32(0)
    text = message_of(gc.GraphError, lambda: t.node.op.reference(key, step))
    assert "collect(...)" in text and "session" in text
    assert collect([t]).outputs[0].node.op.reference(key, step).shape == (4,)


def test_copies_stay_on_their_device() -> None:
    with gc.device("opencl:0"):
        y = gc.random.normal((4,)) * 2
    with gc.device("opencl:1"):
        graph = collect([y])
    assert {n.device for n in graph.nodes() if n.inputs} == {None, "opencl:0"}
    assert {n.device for n in toposort([graph.updates[0][1]])} == {None}


def test_the_shape_comes_first() -> None:
    r = gc.random
    a, t = np.array([1.0, 2.0, 3.0]), gc.constant([1.0, 2.0, 3.0])
    same: list[tuple[Any, tuple[int, ...]]] = [
        (r.normal((2, 3)), (2, 3)), (r.normal([2, 3], 1.0, 2), (2, 3)), (r.normal(5), (5,)), (r.normal(shape=5), (5,)),
        (r.normal(), ()), (r.normal(mean=1.0, std=2.0), ()), (r.normal(mean=1.0, shape=(2,)), (2,)),
        (r.normal((3,), a, t), (3,)), (r.normal((2, 3), [0.0, 1.0, 2.0], t), (2, 3)),
        (r.uniform((2,), -1, 1), (2,)), (r.uniform((3,), -t, a), (3,)), (r.uniform(low=-1, high=1, shape=(2,)), (2,)),
        (r.truncated_normal((1000,)), (1000,)), (r.truncated_normal((3,), a, 0.1), (3,)),
        (r.exponential((3,)), (3,)), (r.exponential((3,), a), (3,)), (r.exponential(scale=2.0, shape=(2,)), (2,)),
        (r.gumbel((3,)), (3,)), (r.rand(2, 3), (2, 3)), (r.randn((2, 3)), (2, 3)), (r.rand(), ()),
    ]  # fmt: skip
    for y, shape in same:
        assert y.shape == shape and y.dtype == "float32"
    batch = gc.placeholder("float32", (None, 2)).shape[0]
    assert r.normal((batch, 2), std=2.0).shape == (batch, 2)


def test_other_orders_are_refused_or_mean_what_they_say() -> None:
    r, t = gc.random, gc.constant([1.0, 2.0])
    wrong: list[Any] = [
        lambda: r.normal(0.0, 1.0, (2,)), lambda: r.normal(0, 1, (2,)), lambda: r.normal(0, 1), lambda: r.normal(1, 0),
        lambda: r.normal(t, t, (2,)), lambda: r.normal(t, 1.0), lambda: r.normal(np.zeros(2), 1.0, (2,)),
        lambda: r.uniform(-1.0, 1.0, (2,)), lambda: r.uniform(0, 1), lambda: r.uniform(0.5),
        lambda: r.exponential(2.0, (2,)), lambda: r.exponential(2, (2,)), lambda: r.truncated_normal(0, 1, (2,)),
    ]  # fmt: skip
    for call in wrong:
        text = message_of(gc.ShapeError, call)
        assert "the shape comes first: gc.random." in text and "((3, 4), " in text
    for y, shape in (
        (r.bernoulli((2, 3), 0.3), (2, 3)), (r.bernoulli(0.3, (2, 3)), (2, 3)), (r.bernoulli((2, 3)), (2, 3)),
        (r.bernoulli(t), (2,)), (r.bernoulli([0.0, 1.0]), (2,)), (r.bernoulli(p=0.3, shape=(4,)), (4,)),
        (r.bernoulli(1, (9,)), (9,)), (r.bernoulli(), ()), (r.bernoulli(0.3), ()),
        (r.randint(0, 7, (2, 3)), (2, 3)), (r.randint((2, 3), 0, 7), (2, 3)), (r.randint((2, 3), 7), (2, 3)),
        (r.randint(7), ()), (r.randint(low=0, high=7, shape=(4,)), (4,)), (r.randint(7, shape=(4,)), (4,)),
    ):  # fmt: skip
        assert y.shape == shape
    assert set(draw(r.randint((400,), 7))) == set(range(7)) and set(draw(r.randint((400,), -2, 1))) == {-2, -1, 0}
    assert draw(r.bernoulli([0.0, 1.0])).tolist() == [False, True]


def test_parameters_do_not_change_the_type() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = gc.random.normal((3,), np.zeros(3), np.ones(3), "float16")
        z = gc.random.uniform((3,), np.zeros(3), np.array([1, 2, 3]))
    assert y.dtype == "float16" and z.dtype == "float32"
    assert np.isfinite(draw(y).astype(np.float64)).all() and (draw(z) < [1, 2, 3]).all()
