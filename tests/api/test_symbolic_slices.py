"""Indices and slices of axes that only feeds measure: NumPy's values, gradients, and errors with the lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.sessions import opened
from support.values import message_of

import graphcore as gc

KEYS: list[Any] = [-1, -2, 1, slice(-3, None), slice(None, -2), slice(1, -1), slice(-4, 3), slice(5, None)]
KEYS += [slice(2, 5), slice(-5, -2), slice(None, None, 2), slice(1, None, 3), slice(None, None, -1), slice(4, 1, -2)]
KEYS += [slice(-1, -4, -1), slice(None, None, -3), slice(3, None, -1), (slice(None, None, -1), -1)]
KEYS += [(slice(1, None), slice(None, None, -1)), (-1, slice(-2, None)), (None, -1), (..., -1)]
SIZES = (7, 3, 2)


@pytest.fixture(scope="module", params=["numpy", "numpy:kernels", "opencl:intel"])
def session(request: Any) -> Any:
    with opened(request.param) as found:
        yield found


@pytest.mark.parametrize("inner", [3, None])
def test_values_and_gradients(session: gc.Session, inner: int | None) -> None:
    x = gc.placeholder("float32", (None, inner), name="x")
    ys = [x[key] for key in KEYS] + [gc.flip(x), gc.flip(x, 0)]
    gradients = [gc.gradients((y * y).sum(), x)[0] for y in ys]
    for n in SIZES:
        fed = np.arange(1, 3.0 * n + 1, dtype=np.float32).reshape(n, 3)
        found = session.run([ys, gradients], {x: fed})
        expected = [fed[key] for key in KEYS] + [np.flip(fed), np.flip(fed, 0)]
        for key, y, g, want in zip([*KEYS, "flip", "flip 0"], *found, expected, strict=True):
            np.testing.assert_array_equal(y, want, err_msg=f"{key} of {n}")
            inside = np.zeros_like(fed)
            if isinstance(key, str):
                inside[:] = fed
            else:
                inside[key] = fed[key]
            np.testing.assert_array_equal(g, 2 * inside, err_msg=f"gradient of {key} of {n}")


@pytest.mark.parametrize("n", [0, 1])
def test_of_few_elements(session: gc.Session, n: int) -> None:
    keys = [slice(1, None), slice(None, -1), slice(None, -3), slice(2, -3), slice(1, None, 2), slice(None, None, -1)]
    x = gc.placeholder("float32", (None, 2), name="x")
    ys = [x[key] for key in keys]
    fed = np.full((n, 2), 3, np.float32)
    found, gradients = session.run([ys, [gc.gradients((y * y).sum(), x)[0] for y in ys]], {x: fed})
    for key, y, g in zip(keys, found, gradients, strict=True):
        inside = np.zeros_like(fed)
        inside[key] = 2 * fed[key]
        np.testing.assert_array_equal(y, fed[key])
        np.testing.assert_array_equal(g, inside)


@pytest.mark.parametrize(("key", "least"), [(5, 6), (-4, 4), ((slice(None), -3), 3)])
def test_a_position_that_is_not_there(session: gc.Session, key: Any, least: int) -> None:
    x = gc.placeholder("float32", (None, None), name="x")
    y = x[key]
    text = message_of(gc.FeedError, lambda: session.run(y, {x: np.ones((3, 2), np.float32)}))
    assert f"needs it to be at least {least}" in text and text.count(f"{__file__}:") == 2, text


def test_what_is_cut_off_and_what_is_left_make_the_whole() -> None:
    x = gc.placeholder("float32", (gc.Dim("n"), 2))
    assert gc.concat([x[-1:], x[:-1]]).shape == x.shape == gc.concat([x[:3], x[3:]]).shape
    assert x[1:].shape == x[:-1].shape == x[::-1][1:].shape
    assert x[1:][1:].shape == x[2:].shape


def test_slices_of_what_was_put_at_an_end(session: gc.Session) -> None:
    x, v = gc.placeholder("float32", (None, 2), name="x"), gc.placeholder("float32", (2,), name="v")
    set_ = x.at[-1].set(v)
    added = gc.zeros_like(x).at[-2:].add(v)
    last = gc.gradients((set_[-1] * added[-1]).sum(), v)[0]
    for n in (3, 5):
        fed = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
        found = session.run([set_, set_[-1], set_[0], added, last], {x: fed, v: [7, 8]})
        put, zeros = fed.copy(), np.zeros_like(fed)
        put[-1], zeros[-2:] = [7, 8], [7, 8]
        for a, b in zip(found, [put, put[-1], put[0], zeros, np.array([14, 16])], strict=True):
            np.testing.assert_array_equal(a, b)


def test_split(session: gc.Session) -> None:
    x = gc.placeholder("float32", (None, 2), name="x")
    half = gc.split(x.reshape(-1), 2)
    parts = [*half, *gc.split(x, [1, -1])]
    fed = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = session.run(parts, {x: fed})
    for a, b in zip(found, [*np.split(fed.ravel(), 2), *np.split(fed, [1, -1])], strict=True):
        np.testing.assert_array_equal(a, b)
