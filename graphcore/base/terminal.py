"""What may be shown on a terminal, and a line that stands there while something takes long."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from time import monotonic
from types import TracebackType
from typing import TextIO

__all__ = ["Waiting", "columns", "is_terminal"]

QUIET = "GRAPHCORE_QUIET"
_SHOW_AFTER = 1.0  # seconds
_SAY_AFTER = 30.0  # where a line cannot be taken back
_BETWEEN = 1.0
_END = 5.0  # seconds to wait for a stream that does not take the line
_ERASE = "\r\x1b[K"


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream says that it is a terminal."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # a bare object with write(), or a closed file
        return False


def columns(stream: TextIO) -> int | None:
    """The width of the terminal behind a stream, None if there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return None


class Waiting:
    """A line on the terminal from the second on that something takes, with the seconds so far, erased at its end.

    Where standard error is no terminal, one plain line tells of what takes half a minute. One line is shown at a time:
    the first. The environment variable ``GRAPHCORE_QUIET`` (anything but empty and 0) switches it off.

    Args:
        what: is done, as "compiling 38 functions in 2 processes".
        after: seconds until it is shown; by default 1, and 30 where there is no terminal.
        stream: where to write; standard error by default.

    Example:
        >>> with Waiting("compiling 38 functions") as waiting:
        ...     waiting.start()  # when it turns out that there is something to do; again does nothing
        ...     compile_them()
    """

    _showing = threading.Lock()

    def __init__(self, what: str, after: float | None = None, stream: TextIO | None = None) -> None:
        self.what = what
        self._stream = sys.stderr if stream is None else stream
        terminal = self._stream is not None and is_terminal(self._stream)  # a program without a console has none
        self._terminal = terminal
        self._after = after if after is not None else _SHOW_AFTER if terminal else _SAY_AFTER
        self._begin = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to wait; only the first call does."""
        if self._thread is not None or self._stream is None or os.environ.get(QUIET, "0") not in ("", "0"):
            return
        self._begin = monotonic()
        thread = threading.Thread(target=self._watch, name="graphcore-waiting", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads: what is done does not need this one
            thread.start()
            self._thread = thread  # now it can be joined; one that an interrupt came between ends by the event

    def __enter__(self) -> Waiting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_END)

    def _watch(self) -> None:
        if self._ended.wait(self._after) or not self._showing.acquire(blocking=False):
            return
        try:
            self._show()
        except (OSError, ValueError):  # a closed pipe or terminal must not end what is done meanwhile
            pass
        finally:
            self._showing.release()

    def _show(self) -> None:
        if not self._terminal:
            self._write(f"{self._line()}\n")
            return
        try:
            while True:
                width = columns(self._stream) or 80
                self._write(_ERASE + self._line()[: width - 1])  # a longer one would leave its first part behind
                if self._ended.wait(_BETWEEN):
                    break
        finally:
            self._write(_ERASE)

    def _line(self) -> str:
        return f"graphcore: {self.what} ... {monotonic() - self._begin:.0f} s"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
