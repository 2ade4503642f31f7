"""Offsets in an arena that is several buffers on the device, because one allocation would be too large.

A *section* is what one buffer holds. Addresses go through all of them: section number times the size of a section, plus
the offset in it; the one rule beside lifetimes is that no value crosses from one section into the next. Values are
placed one after another at the lowest address that is free for their whole life, largest first or in some other order;
the best order wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphcore.base.errors import VerifyError
from passes.planning.offsets import Block, Placement

__all__ = ["check_sections", "place_in_sections", "section_tops"]


def place_in_sections(blocks: Sequence[Block], section: int, alignment: int, lower_bound: int) -> Placement:
    """Give each value an address in as few sections as any of some orders needs.

    Args:
        blocks: the values, none larger than a section.
        section: bytes of a section, a multiple of the alignment.
        alignment: bytes; addresses are multiples of it.
        lower_bound: the most bytes that live at once.

    Returns:
        Addresses; the same for the same values. The total is the end of the last section that is used, counted from
        the beginning of the first.
    """
    orders = {
        "largest first": lambda b: (-b.size, b.start),
        "largest and longest first": lambda b: (-b.size * (b.end - b.start + 1), b.start),
        "earliest first": lambda b: (b.start, -b.size),
    }
    found = {name: _placed(sorted(blocks, key=key), section, alignment) for name, key in orders.items()}
    sizes = {b.key: b.size for b in blocks}
    ends = {name: max((at + sizes[key] for key, at in offsets.items()), default=0) for name, offsets in found.items()}
    best = min(orders, key=lambda name: ends[name])
    return Placement(found[best], -(-ends[best] // alignment) * alignment, lower_bound, f"{best}, in sections")


def _placed(order: Sequence[Block], section: int, alignment: int) -> dict[int, int]:
    low, high, start, end = (np.zeros(len(order), np.int64) for _ in range(4))
    offsets: dict[int, int] = {}
    for count, block in enumerate(order):
        size = -(-block.size // alignment) * alignment
        meets = np.flatnonzero((start[:count] <= block.end) & (end[:count] >= block.start))
        meets = meets[np.argsort(low[meets], kind="stable")]
        at = 0
        for bottom, top in zip(low[meets].tolist(), high[meets].tolist(), strict=True):
            if at + size <= bottom:
                break
            at = _inside(max(at, top), size, section)
        low[count], high[count], start[count], end[count] = at, at + size, block.start, block.end
        offsets[block.key] = at
    return offsets


def _inside(at: int, size: int, section: int) -> int:
    """The first address from ``at`` on from which a value does not cross into the next section."""
    return at if at % section + size <= section else -(-at // section) * section


def section_tops(blocks: Sequence[Block], offsets: Mapping[int, int], section: int, alignment: int) -> tuple[int, ...]:
    """How far values reach in each section."""
    tops: dict[int, int] = {}
    for block in blocks:
        number, at = divmod(offsets[block.key], section)
        tops[number] = max(tops.get(number, 0), at + -(-block.size // alignment) * alignment)
    return tuple(tops.get(number, 0) for number in range(max(tops, default=-1) + 1))


def check_sections(blocks: Sequence[Block], offsets: Mapping[int, int], section: int) -> None:
    """Prove that every value lies in one section.

    Raises:
        VerifyError: one crosses from one section into the next (a defect of the planner).
    """
    for block in blocks:
        first, last = offsets[block.key] // section, (offsets[block.key] + block.size - 1) // section
        if block.size and first != last:
            raise VerifyError(
                f"{block} at {offsets[block.key]} lies in the sections {first} to {last} of {section} bytes"
            )
