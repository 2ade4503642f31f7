"""Warnings: something works, and is probably not what was meant. Each is given once a line."""

from __future__ import annotations

import warnings
from collections import OrderedDict

from graphcore.base.source import capture

__all__ = [
    "BuildWarning",
    "DTypeWarning",
    "DeviceWarning",
    "GraphcoreWarning",
    "ResultWarning",
    "warn_of_building",
    "warn_once",
]


class GraphcoreWarning(UserWarning):
    """Base of every warning of graphcore."""


class BuildWarning(GraphcoreWarning):
    """A line builds what it was likely meant to run: the same again and again, or data as a part of the program."""


class DTypeWarning(GraphcoreWarning):
    """An element type became another one than the user is likely to have meant."""


class DeviceWarning(GraphcoreWarning):
    """Something was to be moved to a device, which only a session can."""


class ResultWarning(GraphcoreWarning):
    """A result means one thing here and another one in a library that it looks like."""


_warned: set[tuple[str, int, str]] = set()


def warn_once(category: type[GraphcoreWarning], topic: str, message: str) -> None:
    """Warn at the user's line, unless that line was warned of the same before, whatever the filters say.

    Args:
        category: of the warning.
        topic: what it is about.
        message: its text; Python adds the line.
    """
    origin = capture()
    key = origin.file, origin.line, topic
    if key not in _warned:
        _warned.add(key)
        warnings.warn_explicit(message, category, origin.file, origin.line)


_OFTEN = 4  # times that a line may build the same before it is told
_LINES = 1024  # lines that are counted
_built: OrderedDict[tuple[str, int, str, int], int] = OrderedDict()


def warn_of_building(what: str, identity: int) -> None:
    """Count that the user's line builds something; the fourth time, warn.

    Args:
        what: it builds, for the message.
        identity: of what it builds that for: the same line may serve several.
    """
    origin = capture()
    key = origin.file, origin.line, what, identity
    _built[key] = _built.pop(key, 0) + 1
    while len(_built) > _LINES:
        _built.popitem(last=False)
    if _built[key] == _OFTEN:
        warn_once(
            BuildWarning,
            "building",
            f"{what} is built here for the {_OFTEN}th time; build it once, before the loop, and run it inside: "
            f"sess.run([loss, step], feeds)",
        )
