"""What a device cannot hold or compute with: refused by name before anything is built or allocated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphcore.base.dtypes import float64
from graphcore.base.errors import DTypeError, OutOfMemoryError
from graphcore.base.shapes import bind, format_shape
from graphcore.kernel.ir import Kernel
from graphcore.plan.plan import Buffer, Placed, Plan
from graphcore.plan.target import Target

__all__ = ["refuse_doubles", "refuse_oversized"]

_LISTED = 5  # of the values that are too large together


def refuse_doubles(kernel: Kernel, target: Target) -> None:
    """Refuse float64 on a device without it.

    Raises:
        DTypeError: naming the ops and the user's lines.
    """
    if target.fp64 or float64 not in {*(v.dtype for v in kernel.values()), *(p.dtype for p in kernel.params)}:
        return
    lines = [line for line in kernel.origins if float64.name in line] or list(kernel.origins)
    raise DTypeError(
        f"{target.name} has no float64, which {kernel.name} computes with; cast to float32, or use another device\n  "
        + "\n  ".join(lines)
    )


def refuse_oversized(plan: Plan, placed: Placed, target: Target) -> None:
    """Refuse values that the device cannot allocate.

    Raises:
        OutOfMemoryError: one value is larger than the largest allocation, or all that live at once are larger than the
            memory together with variables and constants; the message says which, their sizes and the user's lines.
    """
    held = [b for b in plan.buffers if b.number in placed.offsets or b.position is not None]
    for buffer in held:
        if bind(buffer.nbytes, placed.sizes) > target.max_alloc:
            raise OutOfMemoryError(
                f"{_described(buffer, placed.sizes)}, and {target.name} allocates at most {target.max_alloc:,} bytes "
                f"at once: compute it in parts, or use a narrower dtype"
            )
    outside = sum(int(bind(b.nbytes, placed.sizes)) for b in held if b.position is not None)
    if placed.arena_bytes + outside > target.memory:
        raise OutOfMemoryError(
            f"the values that live at once take {placed.arena_bytes:,} bytes, variables and constants {outside:,}, and "
            f"{target.name} has {target.memory:,}; the largest:\n  " + "\n  ".join(_largest(held, placed.sizes))
        )


def _largest(buffers: Iterable[Buffer], sizes: Mapping[str, int]) -> list[str]:
    ordered = sorted(buffers, key=lambda b: -int(bind(b.nbytes, sizes)))
    return [_described(b, sizes) for b in ordered[:_LISTED]]


def _described(buffer: Buffer, sizes: Mapping[str, int]) -> str:
    """A value with its type, its size and the line that made it."""
    shape = format_shape(tuple(bind(e, sizes) for e in buffer.shape))
    return f"{buffer.label} is {buffer.dtype}{shape} of {int(bind(buffer.nbytes, sizes)):,} bytes"
