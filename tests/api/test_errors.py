"""Wrong uses of what comes after building: every one gives our error, says what is wrong and what to write, and names
the user's lines."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from support import error_cases_running, error_cases_training
from support.error_values import line_of

import graphcore as gc

CASES = [*error_cases_running.CASES, *error_cases_training.CASES]


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 90
    assert {c[1] for c in CASES} >= {
        gc.FeedError,
        gc.UsageError,
        gc.GraphError,
        gc.DeviceError,
        gc.SessionError,
        gc.ShapeError,
        gc.DTypeError,
        gc.GradientError,
        gc.OutOfMemoryError,
        gc.FormatError,
    }


@pytest.mark.parametrize(
    ("do", "error", "builtin", "fragments"),
    CASES,
    ids=[f"{c[0].__code__.co_firstlineno}-{c[3][0][:30]}" for c in CASES],
)
def test_message(do: Any, error: type[Exception], builtin: type[Exception], fragments: list[str]) -> None:
    with pytest.raises(builtin) as caught:
        do()
    assert type(caught.value) is error, repr(caught.value)
    text = str(caught.value)
    for fragment in fragments:
        for name in ("X", "S", "N", "W", "B", "K", "LOSS", "LONELY"):
            if f"{{{name}}}" in fragment:
                fragment = fragment.replace(f"{{{name}}}", line_of(name))
        fragment = fragment.replace("{line}", f"{do.__code__.co_filename}:{do.__code__.co_firstlineno}")
        assert fragment in text, f"\n{fragment}\nis not in\n{text}"
    assert "object at 0x" not in text and "Traceback" not in text and "\n\n\n" not in text


def test_every_error_is_ours_and_a_builtin() -> None:
    from graphcore.base import errors

    expected = {
        "ShapeError": ValueError,
        "OutOfRangeError": IndexError,
        "DTypeError": TypeError,
        "FeedError": ValueError,
        "GradientError": ValueError,
        "GraphError": ValueError,
        "DeviceError": RuntimeError,
        "OutOfMemoryError": MemoryError,
        "CompileError": RuntimeError,
        "FormatError": ValueError,
        "VerifyError": RuntimeError,
        "SessionError": RuntimeError,
        "UsageError": TypeError,
    }
    assert set(errors.__all__) == {*expected, "GraphcoreError"}
    for name, builtin in expected.items():
        assert issubclass(getattr(gc, name), gc.GraphcoreError) and issubclass(getattr(gc, name), builtin), name


def test_a_misspelt_name_gets_a_suggestion() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "import graphcore as gc\ngc.placholder"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).resolve().parents[2],
        check=False,
    )
    assert "Did you mean: 'placeholder'?" in done.stderr
