"""A first-come lock that an interrupt cannot break.

Ctrl-C raises KeyboardInterrupt between any two bytecodes, so a lock whose ``__exit__`` is Python code can be left held
for good. Here every turn has a lock of its own, held by a plain ``with`` (whose exit is one C call) for as long as the
turn lasts, and a turn begins when the turn before it has ended.
"""

from __future__ import annotations

import threading

__all__ = ["Line", "Turn"]


class Turn:
    """A place in the line: hold ``lock`` while it lasts."""

    __slots__ = ("before", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.before: Turn | None = None


class Line:
    """Turns are served in the order in which they wait.

    >>> line, turn = Line(), Turn()
    >>> with turn.lock:
    ...     line.wait(turn)
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last: Turn | None = None

    def wait(self, turn: Turn) -> None:
        """Queue up and return when every earlier turn has ended. The caller holds ``turn.lock``, and releasing it ends
        the turn.

        A turn that was given up while it waited still has its ``before``, so whoever comes next waits for that one too.
        """
        with self._guard:
            turn.before = self._last
            self._last = turn
        before = turn.before
        while before is not None:
            with before.lock:
                following = before.before
            before = following
        turn.before = None
