"""Wrong uses while building: every one gives our error, says what is wrong and what to write, and names the user's lines."""

# ruff: noqa: E501 - one case is one line, so that the line in its message can be checked

from __future__ import annotations

import copy
import os
import traceback
from typing import Any

import numpy as np
import pytest
from support.error_cases_build import CASES, ph

import graphcore as gc

HERE = os.path.abspath(__file__)


@pytest.mark.parametrize(
    ("build", "error", "fragments"), CASES, ids=[f"{i}-{c[2][0][:40]}" for i, c in enumerate(CASES)]
)
def test_message(build: Any, error: type[Exception], fragments: list[str]) -> None:
    here, line = build.__code__.co_filename, build.__code__.co_firstlineno
    with pytest.raises(error) as caught:
        build()
    message = str(caught.value)
    for fragment in fragments:
        wanted = fragment.replace("{line}", f"{here}:{line}")
        assert wanted in message, f"{wanted!r} is not in:\n{message}"
    # The traceback goes through the user's line as well, and no line of graphcore is named as the user's.
    assert any(f.filename == here and f.lineno == line for f in traceback.extract_tb(caught.value.__traceback__))
    assert f"{os.sep}graphcore{os.sep}" not in message


def test_errors_are_what_python_would_raise() -> None:
    for error, base in (
        (gc.ShapeError, ValueError),
        (gc.DTypeError, TypeError),
        (gc.UsageError, TypeError),
        (gc.GradientError, ValueError),
    ):
        assert issubclass(error, base) and issubclass(error, gc.GraphcoreError)


def test_operands_on_other_lines_are_named() -> None:
    first = gc.placeholder("float32", (3, 4), name="inputs")
    second = gc.Variable(np.zeros((3, 5), np.float32), name="weights")
    with pytest.raises(gc.ShapeError) as caught:
        _ = first @ second
    line = first.node.origin.line
    assert f"inputs: float32(3, 4), built at {HERE}:{line}" in str(caught.value)
    assert f"weights: float32(3, 5), built at {HERE}:{line + 1}" in str(caught.value)
    assert "transpose the first operand: x.T @ w" in str(caught.value)


def test_refused_building_leaves_operands_usable() -> None:
    x = ph((3, 4))
    with pytest.raises(gc.ShapeError):
        x.reshape(5, 5)
    assert (x + 1).shape == (3, 4) and copy.copy(x).same(x)
