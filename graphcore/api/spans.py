"""Slices of axes whose extents are symbolic."""

from __future__ import annotations

from dataclasses import dataclass

from graphcore.base.shapes import Dim, Extent, dim_max, dim_min

__all__ = ["symbolic_span"]


@dataclass(frozen=True)
class _Bound:
    """A bound of a slice: at a distance from an end of an axis, or at the other end where the axis is shorter."""

    distance: int
    from_end: bool
    extent: Dim

    @classmethod
    def of(cls, value: int | None, extent: Dim, default: int | None, beyond: int = 0) -> _Bound:
        """The bound ``value + beyond``; without a value the one at ``default``, None for the end."""
        if value is None:
            return cls(0, default is None, extent)
        return cls(-value - beyond, True, extent) if value < 0 else cls(value + beyond, False, extent)

    @property
    def place(self) -> Extent:
        inside = dim_min(self.extent, self.distance)
        return self.extent - inside if self.from_end else inside

    @property
    def start(self) -> Extent:
        """Where a slice begins; where nothing is there, it may lie beyond the end."""
        return self.place if self.from_end else self.distance

    def up_to(self, other: _Bound) -> Extent:
        """How many elements stand between this bound and another one."""
        if self.from_end == other.from_end:
            return other.place - self.place if (self.distance > other.distance) == self.from_end else 0
        if other.from_end:
            return self.extent - dim_min(self.extent, self.distance + other.distance)
        return dim_max(other.place - self.place, 0)


def symbolic_span(item: slice, extent: Dim) -> tuple[Extent, Extent, int]:
    """NumPy's slice of an axis that is not known to be long enough: a bound beyond an end is that end.

    Args:
        item: a slice of integers or None; its step is not 0.
        extent: of the axis.

    Returns:
        Start, number and step; for a negative step the start of the reversed, increasing slice.
    """
    step = 1 if item.step is None else item.step
    if step > 0:
        low, high = _Bound.of(item.start, extent, 0), _Bound.of(item.stop, extent, None)
    else:  # down from what stands before the upper bound
        low, high = _Bound.of(item.stop, extent, 0, 1), _Bound.of(item.start, extent, None, 1)
    count = (low.up_to(high) + abs(step) - 1) // abs(step)
    if count == 0:
        return 0, 0, 1
    if step >= -1:
        return low.start, count, step
    return high.place - 1 - (count - 1) * -step, count, step
