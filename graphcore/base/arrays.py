"""Does an array fit? One rule for all who take arrays from users."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["beyond", "outside", "range_text", "shown", "wrong_position"]


def beyond(array: Any, storage: np.dtype[Any]) -> Any:
    """The least or largest element of an array that an integer type cannot hold, None if it holds all; other types
    round what they are given.

    Args:
        array: numbers of any type and shape.
        storage: the type that they are to become.
    """
    real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating) or array.dtype == object
    if not np.issubdtype(storage, np.integer) or not array.size or not real:
        return None
    if np.issubdtype(array.dtype, np.integer) and np.can_cast(array.dtype, storage, "safe"):
        return None
    info = np.iinfo(storage)
    low, high = np.min(array), np.max(array)  # NaN is both if it is there
    if array.dtype != object:
        low, high = low.item(), high.item()  # which compare exactly
    if not low > info.min - 1:
        return low
    return None if high < info.max + 1 else high


def shown(number: Any, digits: int = 40) -> str:
    """A number in a message: of one with very many digits how many these are."""
    text = str(number) if not isinstance(number, int) or abs(number) < 10**digits else ""
    return text or f"of {len(str(abs(number)))} digits"


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
