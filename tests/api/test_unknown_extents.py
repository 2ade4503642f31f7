"""Every public function of two tensors with extents that are ``None``: what it gives for static shapes where the fed
extents agree, and an error with the lines where they do not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.dims_cases import CASES, Case
from support.sessions import opened
from support.values import message_of

import graphcore as gc
from graphcore import functional

TENSORS = frozenset(
    "x1 x2 input input1 input2 target w weight bias index indices src source query key value var anchor positive "
    "negative condition grad_ys running_mean".split()
)
LISTS = frozenset({"xs", "operands"})
# Another name; axes; types; numbers.
OTHERS = frozenset("concatenate moveaxis result_type functional.pad functional.threshold".split())
NAMES = [c.name for c in CASES]


def _takes_two(function: Any) -> bool:
    names = inspect.signature(function).parameters.keys() if inspect.isfunction(function) else ()
    return len(TENSORS.union("x").intersection(names)) > 1 or bool(LISTS.intersection(names))


def test_every_function_of_two_tensors_has_a_case() -> None:
    known = {c.function for c in CASES}
    for place, module in (("", gc), ("functional.", functional)):
        names = [n for n in dir(module) if not n.startswith("_") and _takes_two(getattr(module, n))]
        assert len(names) > 20
        aliases = {n for n in names if getattr(module, n) in [c.build for c in CASES]}
        missing = {place + n for n in names if n not in aliases} - known - OTHERS
        assert not missing


def _built(case: Case, unknown: bool, arrays: Sequence[Any]) -> tuple[list[Any], dict[Any, Any]]:
    """The result, its gradients where it has some, and what is fed."""
    inputs = []
    for i, (array, fixed) in enumerate(zip(arrays, case.fixed, strict=True)):
        shape = tuple(None if unknown and a not in fixed else e for a, e in enumerate(array.shape))
        inputs.append(gc.placeholder(str(array.dtype), shape, name=f"p{i}"))
    y = case.build(*inputs)
    floats = [x for x in inputs if x.dtype.is_float]
    results = [y]
    if y.dtype.is_float and floats and case.function not in ("custom_gradient",):
        results += [g for g in gc.gradients((y * y).sum(), floats) if g is not None]
    return results, dict(zip(inputs, arrays, strict=True))


def _close(found: Sequence[Any], expected: Sequence[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.fixture(scope="module")
def oracle() -> Any:
    with gc.Session("numpy") as session:
        yield session


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_values_and_gradients(oracle: gc.Session, case: Case) -> None:
    _close(oracle.run(*_built(case, True, case.arrays)), oracle.run(*_built(case, False, case.arrays)))


@pytest.mark.parametrize("part", range(4))
def test_on_a_device(oracle: gc.Session, part: int) -> None:
    """As one program, so that it is compiled once."""
    results: list[Any] = []
    feeds: dict[Any, Any] = {}
    expected: list[Any] = []
    for case in CASES[part::4]:
        fetched, fed = _built(case, True, case.arrays)
        results += fetched
        feeds |= fed
        expected += oracle.run(*_built(case, False, case.arrays))
    with opened("opencl:intel") as session:
        _close(session.run(results, feeds), expected)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_one_element_more(oracle: gc.Session, case: Case) -> None:
    """Every axis in turn: where static shapes are refused, feeds are, by both lines; elsewhere values are equal."""
    for operand, array in enumerate(case.arrays):
        for axis in set(range(array.ndim)) - set(case.fixed[operand]):
            arrays = list(case.arrays)
            arrays[operand] = np.concatenate([array, array.take([0], axis)], axis)
            results = _built(case, True, case.arrays)
            feeds = dict(zip(results[1], arrays, strict=True))
            try:
                static = _built(case, False, arrays)
            except gc.GraphcoreError:
                text = message_of(gc.FeedError, lambda r=results, f=feeds: oracle.run(r[0], f))
                assert text.count(".py:") >= 2 and re.search(r"\bp\d: ", text), text
            else:
                if not case.smaller:
                    _close(oracle.run(results[0], feeds), oracle.run(*static))


def test_lines_of_two_operands(oracle: gc.Session) -> None:
    x = gc.placeholder("float32", (None, None), name="x")
    y = gc.placeholder("float32", (None, None), name="y")
    z = x.reshape(-1) - y.reshape(-1)
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    a = np.arange(6, dtype=np.float32)
    assert not oracle.run(z, {x: a.reshape(2, 3), y: a.reshape(3, 2)}).any()
    text = message_of(gc.FeedError, lambda: oracle.run(z, {x: a.reshape(2, 3), y: a.reshape(3, 2)[:2]}))
    assert "axis 0 of reshape is 4 in this feed, but subtract, built at" in text and "needs it to be 6" in text
    for number in (line, line - 1, line - 2):
        assert f"{__file__}:{number}" in text, (number, text)


def test_extents_that_cannot_be_equal_are_refused_while_building() -> None:
    n = gc.Dim("n")
    x, y = gc.placeholder("float32", (n,), name="x"), gc.placeholder("float32", (n + 1,), name="y")
    for build in (lambda: x + y, lambda: x @ y, lambda: gc.stack([x, y]), lambda: gc.where(y > 0, x, 0.0)):
        text = message_of(gc.ShapeError, build)
        assert "n + 1" in text and text.count(f"{__file__}:") == 2, text


@pytest.mark.parametrize("device", ["numpy", "opencl:intel"])
def test_equalities_of_products_leave_one_program(device: str) -> None:
    """An equality that defines no symbol binds its own; one that does leaves the batch symbolic."""
    x = gc.placeholder("float32", (None, 2), name="x")
    y = gc.placeholder("float32", (None, 2), name="y")
    z = gc.placeholder("float32", (None, 4), name="z")
    flat = x.reshape(-1) * y.reshape(-1) + z.reshape(-1)
    with opened(device) as session:
        for n in (2, 4, 6):
            fed = [np.arange(2.0 * n, dtype=np.float32).reshape(s) for s in ((n, 2), (n, 2), (-1, 4))]
            expected = fed[0].ravel() * fed[1].ravel() + fed[2].ravel()
            np.testing.assert_array_equal(session.run(flat, dict(zip((x, y, z), fed, strict=True))), expected)


def test_what_a_variable_takes(oracle: gc.Session) -> None:
    v = gc.Variable(np.zeros(3, np.float32), name="v")
    x = gc.placeholder("float32", (None,), name="x")
    gradient = gc.placeholder("float32", (None,), name="g")
    step = gc.optim.SGD(0.5).apply_gradients([(gradient, v)])
    oracle.run(v.assign(x * 2), {x: [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(oracle.run(v), [2, 4, 6])
    oracle.run(step, {gradient: [2.0, 2.0, 2.0]})
    np.testing.assert_array_equal(oracle.run(v), [1, 3, 5])
    for update, fed in ((v.assign(x * 2), {x: [1.0, 2.0]}), (step, {gradient: [1.0] * 4})):
        text = message_of(gc.FeedError, lambda u=update, f=fed: oracle.run(u, f))
        assert "needs it to be 3" in text and "v: float32(3,)" in text, text
