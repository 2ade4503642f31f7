"""What a sum of products sums over what: the roles of its operands' and its result's axes, and its window.

A matrix product has rows, columns and terms. A convolution has a window besides: along the axes that the window walks,
a place of one operand, the images, is made of a position of the window and of a tap inside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from graphcore.base.shapes import Extent

__all__ = ["ContractionRoles", "Role", "Window", "WindowResult"]


class Role(Enum):
    """The part that one axis of an operand or of the result plays."""

    BATCH = "batch"  # of both operands and the result
    ROW = "row"  # of one operand and the result
    COLUMN = "column"  # of the other operand and the result
    TERM = "term"  # of both operands, and summed
    WALKED = "walked"  # of the images: positions of the window and taps inside of it


class WindowResult(Enum):
    """What an element of the result is for: that decides which of positions and taps are summed."""

    POSITION = "forward"  # a position of the window: a convolution
    PLACE = "input gradient"  # a place of the images: sums over the windows that hold it
    TAP = "weights"  # a tap of the window: sums over its positions

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Window:
    """A window over the last axes of the images.

    Attributes:
        result: what an element of the result is for.
        taps: extents of the window.
        stride, dilation: steps between positions, and between taps, along every such axis.
        padding: places added before and after every such axis.
        groups: parts of the channels; rows, columns and terms of different parts do not meet.
    """

    result: WindowResult
    taps: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def __str__(self) -> str:
        taps, stride, dilation = ("x".join(map(str, n)) for n in (self.taps, self.stride, self.dilation))
        padding = ",".join(map(str, self.padding))
        return f"{self.result} {taps} stride {stride} padding {padding} dilation {dilation} groups {self.groups}"

    def positions(self, axis: int, places: Extent) -> Extent:
        """How many positions it has along one of the axes that it walks."""
        low, high = self.padding[2 * axis : 2 * axis + 2]
        room = places + (low + high - self.dilation[axis] * (self.taps[axis] - 1) - 1)
        return room // self.stride[axis] + 1


@dataclass(frozen=True)
class ContractionRoles:
    """A sum of products by the roles of axes.

    Attributes:
        first, second, result: a role for every axis of the two operands and of the result.
        window: how it walks the first operand, or the result where that holds places; None for a matrix product.
    """

    first: tuple[Role, ...]
    second: tuple[Role, ...]
    result: tuple[Role, ...]
    window: Window | None = None

    def column(self) -> int | None:
        """The one axis of the result that is a column; None where several are."""
        columns = [axis for axis, role in enumerate(self.result) if role is Role.COLUMN]
        return columns[0] if len(columns) == 1 else None
