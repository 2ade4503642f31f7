"""Does an array fit? One rule for all who take arrays from users."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["outside", "range_text", "wrong_position"]


def outside(array: Any, extent: int, negative: bool, allowed: int | None) -> tuple[int, ...] | None:
    """The position of the first element that names no position along an axis of ``extent``; None if all do.

    Args:
        array: integers of any shape.
        extent: of the axis.
        negative: whether negative elements count from the end.
        allowed: a number that is borne besides.
    """
    low = -extent if negative else 0
    # Every run asks this of its labels: finding where the extremes are starts four times faster than finding them.
    if not array.size or (array.item(array.argmax()) < extent and array.item(array.argmin()) >= low):
        return None
    wrong = (array >= extent) | (array < low)
    if allowed is not None:
        wrong &= array != allowed
    at = int(wrong.argmax())
    return tuple(int(i) for i in np.unravel_index(at, array.shape)) if wrong.flat[at] else None


def range_text(extent: int, negative: bool, allowed: int | None) -> str:
    """What may be in such an array."""
    if not extent:
        text = "nothing: the axis is empty"
    else:
        text = f"{-extent if negative else 0} to {extent - 1}"
    return text if allowed is None else f"{text}, or {allowed}"


def wrong_position(array: Any, position: tuple[int, ...], extent: int, negative: bool, allowed: int | None) -> str:
    """What to say of such an element: ``9 at position (3,) is out of range, which is 0 to 4``."""
    at = f" at position {position}" if position else ""
    return f"{array[position]}{at} is out of range, which is {range_text(extent, negative, allowed)}"
