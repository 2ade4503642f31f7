"""What a convolution on a CPU does: operations of its register tiles, packing, sums on their way, and the epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from backends.codegen.amounts import Amounts, below
from backends.codegen.cpu_conv.code import ConvProblem, ConvShape, Taps
from backends.codegen.cpu_conv.prologue import Operand
from backends.codegen.cpu_conv.schedule import (
    ConvConfig,
    extra_rows,
    stage_size,
    tile_cost,
    uses_out_scratch,
)
from backends.codegen.cpu_conv.weight_schedule import WeightConfig, even_runs, pixel_blocks, weight_sizes
from backends.codegen.cpu_conv.weight_schedule import tile_cost as weight_tile_cost
from backends.codegen.nest.schedule import blocks
from graphcore.base.shapes import Extent, dim_min
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import Work

__all__ = ["image_work", "weight_result_work", "weight_sums_work"]

_COPIED, _TURNED = 2, 6  # instructions for a vector that is copied as it lies, and transposed with its neighbours
_PIECES = 2  # vectors that a row's rest takes, on the average


def image_work(
    kernel: Kernel, problem: ConvProblem, config: ConvConfig, image: Operand, batch: Extent, lane: Axis | None
) -> Work:
    """The work of a forward convolution or an input gradient.

    Args:
        kernel: with its epilogue.
        problem, config: the sums and their schedule.
        image: the operand that is packed.
        batch: images.
        lane: the axis along the pixels.
    """
    total = _total(kernel)
    itemsize = total.dtype.itemsize
    bands = blocks(batch, config.images) * (problem.groups * -(-problem.grid[0] // config.rows))
    pixels = config.rows * problem.grid[1] * config.images
    amounts = Amounts(kernel, lane, config.width)
    cycles, moved = 0.0, 0
    for ty in problem.taps_y:
        for tx in problem.taps_x:
            steps = problem.in_channels * ty.count * tx.count
            cycles += steps * _tiles(problem, config, pixels, config.width * itemsize)
            if not config.direct:
                moved += problem.in_channels * _packing(problem, config, ty, tx)
    outputs = problem.out_channels * problem.phases * -(-pixels // config.width)
    if uses_out_scratch(problem, config):
        moved += outputs * _COPIED * (problem.in_channels // config.depth)
    amounts.instructions = bands * moved * 1
    if isinstance(image, Computed):
        _computed(amounts, image, bands * problem.in_channels * -(-_staged(problem, config) // config.width))
    _operands(amounts, kernel, total)
    rows = config.images * problem.out_channels * problem.phases
    vectors = rows * (-(-pixels // config.images // config.width) + (_PIECES if pixels % config.width else 0))
    _finish(amounts, kernel, total, bands * vectors)
    return amounts.work(bands * round(cycles * 2 * config.width), total.dtype.name)


def _tiles(problem: ConvProblem, config: ConvConfig, pixels: int, vector_bytes: int) -> float:
    """Cycles of one step of all register tiles of a band, as if every tile did nothing but multiply and add."""
    half = config.width // 2 if config.half_tail else 0
    whole, rest = divmod(pixels, config.width)
    whole += rest > half
    columns: list[tuple[float, int]] = []
    for tile in config.vector_tiles:
        columns.append((tile, whole // tile))
        whole %= tile
    if half and 0 < rest <= half:
        columns.append((0.5, 1))
    left, cost = problem.out_channels, 0.0
    for channels in config.channel_tiles:
        times, left = divmod(left, channels)
        cost += times * sum(n * tile_cost(channels, v, vector_bytes) for v, n in columns)
    return cost


def _packing(problem: ConvProblem, config: ConvConfig, ty: Taps, tx: Taps) -> int:
    """Instructions that pack one input channel of a band, by every part's tasks."""
    classes = ty.classes(problem.stride[0]) if config.share else ty.count
    rows = (config.rows + extra_rows(problem, config.share)) * classes * config.images
    staged = -(-stage_size(problem, config, ty, tx) // config.width) * config.images
    spread = rows * tx.count * -(-problem.grid[1] // config.width)
    if problem.stride[1] > 2:
        spread *= config.width
    return config.parts * (staged * _COPIED * 2 + spread * (_COPIED if problem.stride[1] == 1 else _COPIED * 2))


def _staged(problem: ConvProblem, config: ConvConfig) -> int:
    """Elements of one input channel that a band loads."""
    each = [stage_size(problem, config, ty, tx) for ty in problem.taps_y for tx in problem.taps_x]
    return config.parts * config.images * sum(each)


def weight_sums_work(
    kernel: Kernel, shape: ConvShape, config: WeightConfig, operands: Sequence[Operand], batch: Extent
) -> Work:
    """The work of the first step of a weight gradient: tasks' sums over blocks of pixels."""
    sizes, count = weight_sizes(shape, config), pixel_blocks(shape, config, batch)
    dtype = kernel.params[-1].dtype
    amounts = Amounts(kernel, None, config.width)
    taps = config.channels * sizes.taps
    vectors = sizes.padded_out // config.width
    cycles = 0.0
    for tile in config.vector_tiles:
        times, vectors = divmod(vectors, tile)
        runs = even_runs(taps, config.tile_taps)
        tiles = times * sizes.group_in / config.channels
        cycles += tiles * sum(weight_tile_cost(tile, run, config.width * dtype.itemsize) for run in runs)
    items = -(-sizes.group_in // config.part_channels)
    packed = items * -(-sizes.pixels // config.width) * sizes.padded_out * _TURNED
    packed += -(-(items * sizes.x_panel) // config.width) * _COPIED
    kept = sizes.sums // shape.groups // config.width * 2
    amounts.instructions = count * (shape.groups * (packed + kept))
    for operand in operands:
        if isinstance(operand, Computed):
            elements = sizes.pixels * sizes.padded_out * items + sizes.x_panel * items
            _computed(amounts, operand, count * (shape.groups * -(-elements // config.width)))
        else:
            amounts.touched[operand] = kernel.params[operand].size
    products = count * round(shape.groups * sizes.pixels * cycles * 2 * config.width)
    amounts.touched[len(kernel.params) - 1] = config.chunks * sizes.sums
    return amounts.work(products, dtype.name)


def weight_result_work(
    kernel: Kernel, shape: ConvShape, config: WeightConfig, batch: Extent, lane: Axis | None
) -> Work:
    """The work of its last step: adding up the tasks' sums, and the epilogue."""
    sizes, total = weight_sizes(shape, config), _total(kernel)
    amounts = Amounts(kernel, lane, config.width)
    chunks = dim_min(config.chunks, pixel_blocks(shape, config, batch))
    vectors = sizes.sums // config.width
    amounts.instructions = chunks * (2 * vectors) + _TURNED * vectors
    amounts.far = (chunks + 1) * vectors  # every task's sums, and a row of the result
    amounts.touched[len(kernel.params) - 1] = chunks * sizes.sums
    _finish(amounts, kernel, total, vectors)
    return amounts.work()


def _total(kernel: Kernel) -> Expr:
    return kernel.reductions()[0]


def _computed(amounts: Amounts, operand: Computed, vectors: Extent) -> None:
    """Count an operand that is computed while it is packed."""
    loops = Amounts(amounts.kernel, operand.axes[-1], amounts.width)
    for value in below(operand.value):
        loops.value(value, vectors)
    amounts.add(loops)
    for value in below(operand.value):
        if value.fn == "load":
            amounts.touched[value.param] = amounts.kernel.params[value.param].size


def _operands(amounts: Amounts, kernel: Kernel, total: Expr) -> None:
    for value in below(total):
        if value.fn == "load":
            amounts.touched[value.param] = kernel.params[value.param].size


def _finish(amounts: Amounts, kernel: Kernel, total: Expr, vectors: Extent) -> None:
    """Count what is made of the sums, vector by vector."""
    for value in below(*(s.value for s in kernel.stores), stop=total):
        amounts.value(value, vectors)
    for store in kernel.stores:
        amounts.access(store.param, store.index, vectors)
    amounts.instructions = amounts.instructions + vectors * _COPIED
