"""Where a node comes from: the user's line and the open name scopes."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Origin",
    "capture",
    "current_scope",
    "derived",
    "deriving",
    "name_scope",
    "register_exclusion",
    "reset_scopes",
]

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_EXCLUDED: list[str] = [_HERE]
for _sibling in ("passes", "backends"):
    _EXCLUDED.append(os.path.join(os.path.dirname(os.path.dirname(_HERE)), _sibling) + os.sep)


@dataclass(frozen=True)
class Origin:
    """A user's source line and name scope; ``derived`` marks what autodiff built."""

    file: str
    line: int
    function: str
    scope: tuple[str, ...] = ()
    derived: bool = False

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def place(self) -> str:
        """``file:line`` with the whole path, for error messages."""
        return f"{self.file}:{self.line}"


def register_exclusion(path: str) -> None:
    """Do not attribute nodes to files below ``path``: libraries built on graphcore call this with their own folder."""
    _EXCLUDED.append(os.path.join(os.path.abspath(path), ""))


def capture() -> Origin:
    """The innermost frame outside graphcore and the registered exclusions."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(tuple(_EXCLUDED)):
        frame = frame.f_back
    return _shared(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, current_scope(), _deriving.get())


def derived(origin: Origin) -> Origin:
    """The origin of what is derived from a node: its line and scope, marked."""
    if origin.derived:
        return origin
    return _shared(origin.file, origin.line, origin.function, origin.scope, True)


# A line in a loop builds thousands of nodes: they share one origin, which the garbage collector then visits once.
_shared = functools.lru_cache(maxsize=4096)(Origin)


_scope: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("graphcore_scope", default=())
_deriving: contextvars.ContextVar[bool] = contextvars.ContextVar("graphcore_deriving", default=False)


def current_scope() -> tuple[str, ...]:
    """The open name scopes, outermost first."""
    return _scope.get()


@contextlib.contextmanager
def name_scope(name: str) -> Iterator[str]:
    """Prefix the names of what is built inside; scopes nest.

    >>> with name_scope("encoder"):
    ...     pass
    """
    token = _scope.set((*_scope.get(), str(name)))
    try:
        yield "/".join(_scope.get())
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def reset_scopes(path: tuple[str, ...]) -> Iterator[None]:
    """Build inside exactly the given scopes."""
    token = _scope.set(path)
    try:
        yield
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def deriving(path: tuple[str, ...]) -> Iterator[None]:
    """Build a gradient, inside the scopes of its forward node: rules of users mark what they build as well."""
    scope, marked = _scope.set(path), _deriving.set(True)
    try:
        yield
    finally:
        _deriving.reset(marked)
        _scope.reset(scope)
