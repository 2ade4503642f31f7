"""Warnings: something works, and is probably not what was meant. Each is given once a line."""

from __future__ import annotations

import warnings

from graphcore.base.source import capture

__all__ = ["DTypeWarning", "DeviceWarning", "GraphcoreWarning", "warn_once"]


class GraphcoreWarning(UserWarning):
    """Base of every warning of graphcore."""


class DTypeWarning(GraphcoreWarning):
    """An element type became another one than the user is likely to have meant."""


class DeviceWarning(GraphcoreWarning):
    """Something was to be moved to a device, which only a session can."""


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
