"""How the loop-nest template lays out a kernel: lanes, units of work, tiles; and how much work that is."""

from __future__ import annotations

from dataclasses import dataclass

from backends.codegen.device_model import DeviceModel
from graphcore.base.shapes import Extent, product
from graphcore.kernel import functions
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.kernel.rows import columns_of, rows_of

__all__ = [
    "TILE",
    "NestConfig",
    "blocks",
    "choose_nest",
    "is_expensive",
    "nest_units",
    "tail_widths",
]

TILE = 32  # elements that a tiled axis is walked by: two cache lines of floats
_FAR = (
    256  # bytes between lanes from which on every lane is a cache line of its own, and neighbours' are not prefetched
)


_EXPENSIVE = 4.0  # additions


@dataclass(frozen=True)
class NestConfig:
    """How a nest is laid out.

    Attributes:
        lane: the axis that vectors run along; None for scalar code.
        width: lanes.
        leading: whether the outermost row axis's extent is an argument, so that kernels over different sizes are one
            function.
        strided: whether task t takes the units t, t + tasks, ... (GPUs: neighbouring work items then touch neighbouring
            elements), not a run of neighbouring units.
        tiled: an axis that a task walks in short runs before it goes on to the next lanes: what is contiguous along it,
            and far apart along the lanes, then comes by cache lines.
    """

    lane: Axis | None
    width: int
    leading: bool = False
    strided: bool = False
    tiled: Axis | None = None

    def describe(self) -> str:
        lanes = f"lanes={self.width} over {self.lane}" if self.lane is not None else "scalar"
        return (
            lanes
            + (", strided" if self.strided else "")
            + (f", tiled over {self.tiled}" if self.tiled is not None else "")
        )


def choose_nest(kernel: Kernel, model: DeviceModel) -> NestConfig:
    """Pick the lane axis: the one along which most of the traffic is contiguous."""
    width = model.lanes(kernel)
    best: Axis | None = None
    best_score = 0.0
    columns = columns_of(kernel)
    ordered = [v.reduce_axes for v in kernel.reductions() if v.combine.startswith("arg")]
    for position, axis in enumerate(kernel.axes):
        if (isinstance(axis.extent, int) and axis.extent < 2) or any(axis in axes[:-1] for axes in ordered):
            continue  # of equal elements the first counts: lanes run along the innermost of the axes that are searched
        score = _contiguity(kernel, axis)
        if isinstance(axis.extent, int) and axis.extent < width:
            score *= axis.extent / width
        score += 0.01 * position - (0.25 if axis in columns else 0.0)
        if score > best_score:
            best, best_score = axis, score
    if best is None or width == 1:
        return NestConfig(None, 1)
    while isinstance(best.extent, int) and width > best.extent:
        width //= 2
    return (
        NestConfig(best, width, tiled=_tiled(kernel, best) if model.is_cpu else None)
        if width > 1
        else NestConfig(None, 1)
    )


def _tiled(kernel: Kernel, lane: Axis) -> Axis | None:
    """The axis along which something is contiguous that is far apart along the lanes: a transposed operand's, or
    result's."""
    together = columns_of(kernel) if lane in columns_of(kernel) else rows_of(kernel)
    if any(v.combine.startswith("arg") for v in kernel.reductions()):
        return None  # of equal elements the first counts
    steps = [(v.index, v.dtype.itemsize) for v in kernel.values() if v.fn == "load"] + [
        (s.index, s.value.dtype.itemsize) for s in kernel.stores
    ]
    far = [index for index, size in steps if abs(index.stride(lane) or 0) * size >= _FAR]
    long = [a for a in together if a != lane and (not isinstance(a.extent, int) or a.extent >= TILE)]
    return next((a for a in long if any(index.stride(a) == 1 for index in far)), None)


def _contiguity(kernel: Kernel, axis: Axis) -> float:
    """A score: contiguous accesses along the axis count 1, ones in few vectors 0.5, uniform ones 0.2, others cost 1;
    stores count double."""
    score = 0.0
    for index, weight in [(s.index, 2.0) for s in kernel.stores] + [
        (v.index, 1.0) for v in kernel.values() if v.fn == "load"
    ]:
        step = index.stride(axis)
        score += weight * (1.0 if step == 1 else 0.2 if step == 0 else 0.5 if step in (-1, 2) else -1.0)
    return score


def nest_units(kernel: Kernel, config: NestConfig) -> Extent:
    """The number of independent units of work: points of the row axes, a lane axis counted in blocks."""
    extents: list[Extent] = []
    for axis in rows_of(kernel):
        whole = blocks(axis.extent, TILE) * TILE if axis == config.tiled else axis.extent
        extents.append(blocks(axis.extent, config.width) if axis == config.lane else whole)
    return product(extents)


def is_expensive(value: Expr) -> bool:
    """Whether a value is a function that is worth keeping rather than computing again."""
    return functions.work(value) >= _EXPENSIVE


def blocks(extent: Extent, width: int) -> Extent:
    return (extent + (width - 1)) // width


def tail_widths(count: int) -> list[int]:
    """A count below 16 as descending powers of two."""
    return [w for w in (8, 4, 2, 1) if count & w]
