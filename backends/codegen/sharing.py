"""What families answer whether parts of long sums would use more of the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.codegen.device_model import DeviceModel
from graphcore.base.shapes import Extent, bind, dim_max, dim_min, product
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.kernel.rows import is_contiguous, row_reductions, rows_of
from graphcore.plan.target import Sharing

__all__ = ["ITEMS_PER_CORE", "among_cores", "among_groups", "among_items", "at_most", "points"]

ITEMS_PER_CORE = 512  # work items that keep a multiprocessor busy
_BLOCK = 256  # elements of a partial sum at least, where work items share it
_ALONE = 32  # and where one work item sums them up alone
_LEVEL_WORTH = 1.5  # what another level saves on CPUs must be so many times what it costs
_APART = 8  # how many times longer a turn takes where neighbouring elements are not neighbours in memory


def points(axes: Sequence[Axis], sizes: Mapping[str, int]) -> int:
    """How many points some axes have together."""
    return int(bind(product(a.extent for a in axes), sizes))


def at_most(units: Extent, tasks: Extent) -> Extent:
    """A task a unit, but no more than some tasks; one at least."""
    return dim_max(dim_min(units, tasks), 1)


def among_cores(units: int, seconds: float, model: DeviceModel) -> Sharing:
    """Parts for all cores of a CPU, each worth a task and all together another level.

    Args:
        units: of work that the results are.
        seconds: what one core takes for all of it.
    """
    busy = units >= 2 * model.cores
    parts = 1 if busy else min(4 * model.cores // max(units, 1), model.costs.tasks_worth(seconds))
    return Sharing(parts, _BLOCK, seconds * (1 - 1 / model.cores) / _LEVEL_WORTH)


def among_groups(kernel: Kernel, parts: int, model: DeviceModel, sizes: Mapping[str, int]) -> Sharing:
    """So many parts for the work-groups of a GPU."""
    return Sharing(parts, _BLOCK, _waiting(kernel, model, sizes))


def among_items(kernel: Kernel, model: DeviceModel, sizes: Mapping[str, int]) -> Sharing:
    """Parts for the work items of a GPU, one a result and part."""
    parts = ITEMS_PER_CORE * model.cores // max(points(rows_of(kernel), sizes), 1)
    return Sharing(parts, _ALONE, _waiting(kernel, model, sizes))


def _waiting(kernel: Kernel, model: DeviceModel, sizes: Mapping[str, int]) -> float:
    """Seconds that a sum waits for its terms, one after the other."""
    reductions = row_reductions(kernel)
    length = points(reductions[0].reduce_axes, sizes)
    return length * (1 if is_contiguous(kernel, reductions) else _APART) * model.costs.turn_seconds
