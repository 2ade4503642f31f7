"""The line that says what takes long: shown on terminals alone, taken back, and never an error of its own."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from graphcore.base.terminal import Waiting

ROOT = Path(__file__).resolve().parents[2]
_WRITTEN = 20.0  # seconds in which the thread of the line must have written


class Stream(io.StringIO):
    """Tells when something was written."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.written = terminal, threading.Event()

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.written.set()


class Broken(Stream):
    def write(self, text: str) -> int:
        self.written.set()
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHCORE_QUIET", raising=False)


def test_a_terminal_shows_the_line_and_gets_it_erased() -> None:
    stream = Stream(terminal=True)
    with Waiting("compiling 38 functions in 2 processes", after=0, stream=stream) as waiting:
        waiting.start()
        waiting.start()
        assert stream.written.wait(_WRITTEN)
    shown = stream.getvalue()
    assert shown.startswith("\r\x1b[Kgraphcore: compiling 38 functions in 2 processes ... 0 s")
    assert shown.endswith("\r\x1b[K") and "\n" not in shown


def test_elsewhere_it_is_one_plain_line() -> None:
    stream = Stream(terminal=False)
    with Waiting("compiling 1 functions", after=0, stream=stream) as waiting:
        waiting.start()
        assert stream.written.wait(_WRITTEN)
    assert re.fullmatch(r"graphcore: compiling 1 functions \.\.\. \d+ s\n", stream.getvalue())


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_soon_done_shows_nothing(terminal: bool) -> None:
    stream = Stream(terminal)
    with Waiting("compiling", stream=stream) as waiting:
        waiting.start()
    with Waiting("compiling", after=0, stream=stream):
        pass  # and what was not even started
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("quiet", "shows"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_the_environment_switches_it_off(quiet: str, shows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHCORE_QUIET", quiet)
    stream = Stream(terminal=True)
    with Waiting("compiling", after=0, stream=stream) as waiting:
        waiting.start()
        assert (waiting._thread is not None) == shows
        if shows:
            assert stream.written.wait(_WRITTEN)
    assert ("compiling" in stream.getvalue()) == shows


def test_of_two_at_once_one_is_shown() -> None:
    first, second = Stream(terminal=True), Stream(terminal=True)
    with Waiting("first", after=0, stream=first) as outer:
        outer.start()
        assert first.written.wait(_WRITTEN)
        with Waiting("second", after=0, stream=second) as inner:
            inner.start()
            assert inner._thread is not None
            inner._thread.join(_WRITTEN)
    assert second.getvalue() == ""
    with Waiting("third", after=0, stream=second) as later:
        later.start()
        assert second.written.wait(_WRITTEN)
    assert "third" in second.getvalue()


def test_an_error_inside_takes_the_line_back_and_passes() -> None:
    stream = Stream(terminal=True)
    with pytest.raises(KeyboardInterrupt), Waiting("compiling", after=0, stream=stream) as waiting:
        waiting.start()
        assert stream.written.wait(_WRITTEN)
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\r\x1b[K")
    assert waiting._thread is not None and not waiting._thread.is_alive()


def test_a_stream_that_fails_is_left_alone() -> None:
    stream = Broken(terminal=True)
    with Waiting("compiling", after=0, stream=stream) as waiting:
        waiting.start()
        assert stream.written.wait(_WRITTEN)
    assert waiting._thread is not None and not waiting._thread.is_alive()


def test_a_program_without_a_console_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Waiting("compiling", after=0) as waiting:
        waiting.start()
        assert waiting._thread is None


SCRIPT = """
import time
from graphcore.base.terminal import Waiting
with Waiting("compiling " + "many " * 30, after=0) as waiting:
    waiting.start()
    time.sleep(0.5)
"""


def test_a_long_line_is_cut_to_the_terminal() -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 40))
    try:
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, stderr=follower, check=True)
        shown = os.read(leader, 100_000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    lines = [line for line in shown.split("\r\x1b[K") if line]
    assert lines and {len(line) for line in lines} == {39}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_thread_that_does_not_start_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """An interrupt while it starts goes on as it is; having no threads to spare hinders nothing."""

    def fail(thread: threading.Thread) -> None:
        raise error("before it has started")

    monkeypatch.setattr(threading.Thread, "start", fail)
    done = False
    expected = pytest.raises(KeyboardInterrupt) if error is KeyboardInterrupt else contextlib.nullcontext()
    with expected, Waiting("compiling", stream=io.StringIO()) as waiting:
        waiting.start()
        done = True
    assert done == (error is RuntimeError)
