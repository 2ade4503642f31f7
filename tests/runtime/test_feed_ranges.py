"""Labels and indices out of range: fed ones are refused, constant ones where they are written, computed ones are
named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc
from graphcore.nn import functional as F
from graphcore.runtime import feed_ranges, program_cache

HERE = Path(__file__).name
X = gc.constant(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
M = gc.constant(np.arange(12, dtype=np.float32).reshape(3, 4))

# What reads an integer feed of shape (2,): the function, the largest number that it takes, and whether negative ones
# count from the end; and what is allowed besides.
READERS: dict[str, tuple[Callable[[Any], Any], str, int, bool, int | None]] = {
    "cross_entropy": (lambda k: F.cross_entropy(M[:2], k), "cross_entropy", 3, False, -100),
    "smooth": (lambda k: F.cross_entropy(M[:2], k, label_smoothing=0.1), "cross_entropy", 3, False, -100),
    "ignore 7": (lambda k: F.cross_entropy(M[:2], k, ignore_index=7), "cross_entropy", 3, False, 7),
    "ignore none": (lambda k: F.nll_loss(M[:2], k, ignore_index=None), "nll_loss", 3, False, None),
    "nll_loss": (lambda k: F.nll_loss(M[:2], k), "nll_loss", 3, False, -100),
    "module": (lambda k: gc.nn.CrossEntropyLoss()(M[:2], k), "cross_entropy", 3, False, -100),
    "embedding": (lambda k: F.embedding(k, M), "embedding", 2, False, None),
    "Embedding": (lambda k: gc.nn.Embedding(6, 2)(k), "embedding", 5, False, None),
    "take": (lambda k: gc.take(X, k, axis=1), "take", 3, True, None),
    "take flat": (lambda k: gc.take(X, k), "take", 59, True, None),
    "gather": (lambda k: gc.gather(M, 1, k[:, None]), "gather", 3, True, None),
    "take_along_axis": (lambda k: gc.take_along_axis(M, k[None], -1), "take_along_axis", 3, True, None),
    "index": (lambda k: X[k], "index", 2, True, None),
    "index of an axis": (lambda k: X[:, k, 1:], "index", 3, True, None),
    "indices": (lambda k: X[k, 0], "index", 2, True, None),
    "one_hot": (lambda k: gc.one_hot(k, 6), "one_hot", 5, True, None),
    "F.one_hot": (lambda k: F.one_hot(k, 6), "one_hot", 5, True, None),
    "index_add": (lambda k: gc.index_add(M, 0, k, np.ones((2, 4), np.float32)), "index_add", 2, True, None),
    "scatter_add": (lambda k: gc.scatter_add(M, 1, k[None], gc.ones((1, 2))), "scatter_add", 3, True, None),
    "at.set": (lambda k: M.at[k].set(0.0), "at", 2, True, None),
    "at.add": (lambda k: M.at[k].add(1.0), "at", 2, True, None),
    "at.add below": (lambda k: M.at[:, k].add(1.0), "index", 3, True, None),
    "at.get": (lambda k: M.at[k].get(), "index", 2, True, None),
}


@pytest.mark.parametrize("case", READERS)
@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_what_is_fed_is_checked(fast: gc.Session, case: str, dtype: str) -> None:
    build, name, high, negative, allowed = READERS[case]
    k = gc.placeholder(dtype, (2,), name="k")
    y = build(k)
    signed = dtype == "int64"
    good = [0, high, *([-high - 1] if negative and signed else [])]
    good += [allowed] if allowed is not None and (signed or allowed >= 0) else []
    call = fast.make_callable(y, [k])
    for value in good:
        call(np.array([0, value], dtype))
    low = -high - 1 if negative else 0
    text = f"which is {low} to {high}" + ("" if allowed is None else f", or {allowed}")
    for value in (high + 1, *([low - 1, -(2**40)] if signed else [])):
        for run in (lambda a: call(a), lambda a: fast.run(y, {k: a})):
            message = message_of(gc.FeedError, lambda run=run, value=value: run(np.array([0, value], dtype)))
            assert f"the feed for 'k': {value} at position (1,) is out of range, {text}" in message
            assert f"{name} was built at" in message and message.count(HERE) == 2
    for answer in fast.run([y], {k: np.zeros(2, dtype)}):  # a refused run leaves the session as it was
        assert answer.shape == y.shape


def test_through_views_casts_and_slices_positions_are_those_of_the_feed(fast: gc.Session) -> None:
    ids = gc.placeholder("int32", (None, 6), name="ids")
    table = gc.Variable(np.zeros((7, 2), np.float32))
    logits = F.embedding(ids[:, :-1], table) @ gc.zeros((2, 7))
    loss = F.cross_entropy(logits.mT, ids.astype("int64")[:, 1:])
    sparse = gc.take(table, ids[:, 1:][:, ::2].T.reshape(-1, 1), axis=0)
    good = np.full((2, 6), 3, np.int32)
    assert np.isfinite(fast.run(loss, {ids: good}))
    cases: list[tuple[Any, tuple[int, int], int, bool]] = [
        (loss, (1, 0), 9, False),
        (loss, (1, 0), -100, False),  # read by the table only
        (loss, (1, 3), -1, False),
        (loss, (0, 5), -100, True),  # read by the loss only
        (sparse, (1, 3), 7, False),
        (sparse, (1, 5), 7, False),
        (sparse, (1, 2), 7, True),  # left out
        (sparse, (1, 0), 7, True),
    ]
    for fetched, place, value, fits in cases:
        fed = good.copy()
        fed[place] = value
        if fits:
            fast.run(fetched, {ids: fed})
        else:
            assert f"{value} at position {place}" in message_of(
                gc.FeedError, lambda t=fetched, fed=fed: fast.run(t, {ids: fed})
            )


def test_of_several_feeds_the_wrong_one_is_named(fast: gc.Session) -> None:
    a, b, scalar = (gc.placeholder("int64", s, name=n) for s, n in (((2,), "a"), ((2,), "b"), ((), "scalar")))
    y = gc.take(X, gc.concat([gc.stack([a, b]).reshape(-1), scalar[None]]), axis=0)
    feeds = {a: [0, 2], b: [1, -3], scalar: 1}
    fast.run(y, feeds)
    for t, value, place in ((a, [3, 0], " at position (0,)"), (b, [0, -4], " at position (1,)"), (scalar, 3, "")):
        text = message_of(gc.FeedError, lambda t=t, value=value: fast.run(y, {**feeds, t: value}))
        wrong = value if t is scalar else value[0] if t is a else value[1]
        assert f"the feed for {t.name!r}: {wrong}{place} is out of range, which is -3 to 2" in text


def test_symbolic_extents_are_those_of_the_run(fast: gc.Session) -> None:
    rows, k = gc.placeholder("float32", (gc.Dim("n"), 2)), gc.placeholder("int64", (None,), name="k")
    call = fast.make_callable(gc.take(rows, k[1:], axis=0), [rows, k])
    for n in (3, 5, 3, 0):
        if n:
            call(np.zeros((n, 2)), [99, 0, n - 1, -n])
        text = message_of(gc.FeedError, lambda n=n: call(np.zeros((n, 2)), [0, 0, n]))
        assert f"{n if n else 0} at position ({2 if n else 1},)" in text
        assert (f"which is {-n} to {n - 1}" if n else "nothing: the axis is empty") in text
        call(np.zeros((n, 2)), [99])  # nothing is read


def test_inside_regions_and_for_any_tensor_that_is_fed(fast: gc.Session) -> None:
    k = gc.placeholder("int64", (2,), name="k")
    inner = gc.checkpoint(lambda x, i: gc.checkpoint(lambda j: F.cross_entropy(x, j.reshape(-1)))(i))
    loss = inner(M[:2], k[None])
    fast.run(loss, {k: [0, 3]})
    assert "4 at position (1,)" in message_of(gc.FeedError, lambda: fast.run(loss, {k: [0, 4]}))
    shifted = k + 1
    y = gc.take(X, shifted, axis=0)
    assert np.isnan(fast.run(y, {k: [0, 2]})[1]).all()  # computed
    fast.run(y, {shifted: [0, 2]})
    assert "3 at position (0,)" in message_of(gc.FeedError, lambda: fast.run(y, {shifted: [3, 0]}))


@pytest.mark.parametrize(
    "case", [c for c, (_, name, *_) in READERS.items() if name not in ("scatter_add", "index_add")]
)
def test_constants_are_checked_where_they_are_written(case: str) -> None:
    """Not those of one_hot and scatters, which say what they make of others; those of indices by ``x[...]`` are."""
    build, name, high, _, allowed = READERS[case]
    if name == "one_hot":
        assert build(gc.constant([0, high + 1])).shape == (2, high + 1)
        return
    for value in (high + 1, -high - 9):
        text = message_of(gc.OutOfRangeError, lambda value=value: build(gc.constant([0, value])))
        assert f"{name}: {value} at position" in text and "is out of range" in text and HERE in text
    if allowed is not None:
        assert build(gc.constant([0, allowed])).dtype == "float32"


def test_the_check_costs_two_reductions_a_run(fast: gc.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is searched once; a feed that is read twice is looked at once; feeds that none reads are not."""
    calls = {"search": 0, "look": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(program_cache, "ranges_of", counted("search", feed_ranges.ranges_of))
    monkeypatch.setattr(feed_ranges, "outside", counted("look", feed_ranges.outside))
    x, k, other = gc.placeholder("float32", (None, 4)), gc.placeholder("int64", (None,)), gc.placeholder("int64", (2,))
    loss = F.cross_entropy(x, k) + F.nll_loss(x, k) + other.sum()
    step = fast.make_callable([loss, *gc.gradients(loss, x)], [x, k, other])
    for n in (8, 8, 3, 8):
        step(np.zeros((n, 4)), np.zeros(n, np.int64), [7, 9])
    assert calls == {"search": 1, "look": 4}
    plain = fast.make_callable(other.sum() * 2, [other])
    plain([7, 9])
    assert calls == {"search": 2, "look": 4}


# --- computed ---------------------------------------------------------------------------------------------------------


def test_computed_labels_give_nan_and_are_named() -> None:
    """By ``detect_anomaly`` whatever they are computed from, by ``check_numerics`` if no variable is among that."""
    k = gc.placeholder("int64", (2,), name="k")
    w = gc.Variable(np.ones(2, np.int64) * 3, trainable=False)
    with gc.name_scope("head"):
        losses = {
            "cross_entropy": F.cross_entropy(M[:2], k + 1),
            "take": gc.sum(gc.take(M, k * 2, axis=1)),
            "embedding": gc.checkpoint(lambda i: gc.sum(F.embedding(i - 4, M)))(k),
        }
    options = gc.RunOptions(check_numerics=True)
    with gc.Session("numpy:kernels") as session:
        for name, loss in losses.items():
            assert np.isnan(session.run(loss, {k: [0, 3]}))
            with gc.detect_anomaly():
                text = message_of(gc.SessionError, lambda loss=loss: session.run(loss, {k: [0, 3]}))
            assert "the first NaN comes from an index out of range" in text and f"\n  {name}, built at" in text
            assert HERE in text and "is out of range, which is" in text
            text = message_of(gc.SessionError, lambda loss=loss: session.run(loss, {k: [0, 3]}, options=options))
            assert f"\n  {name}, built at" in text and "gc.detect_anomaly()" in text
        by_variable = F.cross_entropy(M[:2], k + w)
        with gc.detect_anomaly():
            assert "cross_entropy, built at" in message_of(
                gc.SessionError, lambda: session.run(by_variable, {k: [0, 3]})
            )
        text = message_of(gc.SessionError, lambda: session.run(by_variable, {k: [0, 3]}, options=options))
        assert "built at" in text and "gc.detect_anomaly() around the run" in text


def test_the_nan_of_a_constant_is_not_to_blame_before_it_is_used() -> None:
    x = gc.placeholder("float32", (2,), name="x")
    with gc.Session("numpy:kernels") as session, gc.detect_anomaly():
        guarded = gc.where(x > 0, x, np.float32(np.nan))
        assert session.run(guarded, {x: [1.0, 2.0]}).tolist() == [1.0, 2.0]
        text = message_of(gc.SessionError, lambda: session.run(gc.exp(guarded), {x: [1.0, -2.0]}))
        assert "the op where made the first NaN, out of a constant's" in text
        assert "the op log made the first NaN" in message_of(
            gc.SessionError,
            lambda: session.run(gc.where(x > 0, np.float32(np.nan), 1.0) * gc.log(x), {x: [-1.0, -0.5]}),
        )
        assert "constant 'constant' holds NaN before anything is computed" in message_of(
            gc.SessionError, lambda: session.run(gc.constant([np.nan, 1.0])[:1])
        )
        with gc.name_scope("inner"):
            y = gc.checkpoint(lambda t: gc.sqrt(t))(x)
        assert "the op sqrt in inner made the first NaN" in message_of(
            gc.SessionError, lambda: session.run(y, {x: [-1.0, 0.5]})
        )
