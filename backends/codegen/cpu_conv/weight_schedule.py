"""Schedules of the weight gradient on CPU runtimes: register tiles, blocks of pixels, and how work is cut into
tasks."""

from __future__ import annotations

from dataclasses import dataclass

from backends.codegen.cpu_conv.code import ConvShape
from backends.codegen.cpu_conv.schedule import TASKS_PER_CORE, register_count
from backends.codegen.nest.schedule import blocks
from graphcore.base.shapes import Extent, dim_min

CACHED_SUMS = 64 * 1024  # sums that stay in the cache while a task walks its images once


@dataclass(frozen=True)
class WeightConfig:
    """How the weight gradient of one shape is computed.

    Attributes:
        width: lanes of a vector, at most the device's: fewer where a group has few output channels.
        vector_tiles: channel vectors of the register tiles, falling; they cover the channels of a group.
        channels: input channels of a register tile; the rest forms its own tile.
        rows: output rows of a block.
        images: images of a block; more than one only with ``rows`` equal to the output's rows.
        direct: read x in place (no padding reached, no fused load).
        part_channels: input channels of one item; a part is a run of (group, item).
        parts: cuts of the items.
        chunks: cuts of the blocks; each keeps sums of its own.
        reduce_tasks: most tasks of the second function.
        tile_taps: most (channel, ky, kx) of a register tile; a tile's are cut into even runs, one walk each.
    """

    width: int
    vector_tiles: tuple[int, ...]
    channels: int
    rows: int
    images: int
    direct: bool
    part_channels: int
    parts: int
    chunks: int
    reduce_tasks: int
    tile_taps: int


@dataclass(frozen=True)
class WeightSizes:
    """Derived sizes of one configured weight gradient, all literals of the text."""

    group_in: int
    group_out: int
    padded_out: int
    taps: int
    pixels: int
    x_rows: int
    x_pitch: int
    x_image: int
    x_panel: int
    dy_panel: int
    sums: int

    @property
    def scratch(self) -> int:
        """Elements of one task's packed x and dy."""
        return self.x_panel + self.dy_panel


def weight_sizes(shape: ConvShape, config: WeightConfig) -> WeightSizes:
    """Sizes of scratch and sums."""
    group_in, group_out = shape.channels // shape.groups, shape.filters // shape.groups
    kh, kw = shape.kernel
    padded = -(-group_out // config.width) * config.width
    pixels = config.rows * shape.out_width * config.images
    x_rows = (config.rows - 1) * shape.stride[0] + (kh - 1) * shape.dilation[0] + 1
    x_pitch = (shape.out_width - 1) * shape.stride[1] + (kw - 1) * shape.dilation[1] + 1
    x_image = x_rows * x_pitch
    x_panel = 0 if config.direct else -(-config.part_channels * config.images * x_image // 32) * 32
    sums = shape.groups * group_in * kh * kw * padded
    dy_panel = -(-pixels * padded // 32) * 32
    return WeightSizes(group_in, group_out, padded, kh * kw, pixels, x_rows, x_pitch, x_image, x_panel, dy_panel, sums)


def weight_workspace_elements(shape: ConvShape, config: WeightConfig) -> int:
    """Elements of the workspace of both functions, for any batch."""
    sizes = weight_sizes(shape, config)
    return config.chunks * sizes.sums + config.parts * config.chunks * sizes.scratch


def pixel_blocks(shape: ConvShape, config: WeightConfig, batch: Extent) -> Extent:
    """Blocks of pixels for ``batch`` images."""
    return blocks(batch, config.images) * -(-shape.out_height // config.rows)


def weight_task_count(shape: ConvShape, config: WeightConfig, batch: Extent) -> Extent:
    """Tasks of the first function."""
    return dim_min(pixel_blocks(shape, config, batch), config.chunks) * config.parts


REDUCE_ARGUMENTS = ("chunks", "groups", "outputs", "padded", "depth")
"""What the second function is told of a convolution: the sums that were made of every element, groups, and of a group
its output channels, these in whole vectors, and the elements of one of them."""


def reduce_arguments(shape: ConvShape, config: WeightConfig, batch: Extent) -> list[Extent]:
    """The values of ``REDUCE_ARGUMENTS``."""
    sizes = weight_sizes(shape, config)
    depth = sizes.group_in * sizes.taps
    return [
        dim_min(pixel_blocks(shape, config, batch), config.chunks),
        shape.groups,
        sizes.group_out,
        sizes.padded_out,
        depth,
    ]


def reduce_task_count(shape: ConvShape, config: WeightConfig) -> int:
    """Tasks of the second function, to start when all tasks of the first are done (any batch, also 0)."""
    return min(reduce_tiles(shape, config), config.reduce_tasks)


def reduce_tiles(shape: ConvShape, config: WeightConfig) -> int:
    """Square tiles of dw that the second function's tasks share."""
    sizes = weight_sizes(shape, config)
    k = sizes.group_in * sizes.taps
    return shape.groups * (sizes.padded_out // config.width) * -(-k // config.width)


def tile_cost(vectors: int, taps: int, vector_bytes: int) -> float:
    """Cycles of one pixel of a register tile: products against loads, and latency."""
    if vector_bytes >= 64:
        return max(vectors * taps, vectors + taps, 4) + 0.7
    return max(vectors * taps, vectors + taps, 8) + 0.7


def even_runs(total: int, most: int) -> list[int]:
    """``total`` cut into even runs of at most ``most``."""
    count = -(-total // most)
    return [total // count + (i < total % count) for i in range(count)]


def _choose_tile(group_in: int, vectors: int, taps: int, vector_bytes: int) -> tuple[tuple[int, ...], int, int]:
    """Cheapest (vector tiles, channels of a tile, most taps of a run)."""
    registers = register_count(vector_bytes)
    best: tuple[float, tuple[int, ...], int, int] | None = None
    for ov in range(1, min(vectors, 6) + 1):
        for channels in sorted({min(group_in, c) for c in (1, 2, 3, 4, 5, 6, 8, 10, 12)}):
            if channels > 1 and channels * taps > 36:
                continue
            # with more sums than this compilers spill: measured, 26 of 32 registers lose 15% and 12 of 16 lose 30%
            most = max(1, registers * 5 // 8 // ov)
            cost, bodies = 0.0, 0
            for v, times_v in ((ov, vectors // ov), (vectors % ov, 1)):
                for c, times_c in ((channels, group_in // channels), (group_in % channels, 1)):
                    if v and c:
                        runs = even_runs(c * taps, most)
                        bodies += len(runs)
                        cost += times_v * times_c * sum(tile_cost(v, r, vector_bytes) for r in runs)
            cost *= 1 + 0.005 * bodies
            if best is None or cost < best[0]:
                tiles = (ov, vectors % ov) if vectors % ov else (ov,)
                best = (cost, tiles, channels, most)
    assert best is not None
    return best[1:]


def choose_weight(
    shape: ConvShape, *, width: int, batch: int, cores: int, fused_load: bool = False, itemsize: int = 4
) -> WeightConfig:
    """Pick a schedule.

    Args:
        shape: the convolution.
        width: lanes of a vector of the device (16, 8 or 4).
        batch: expected number of images; any other number works too.
        cores: compute units of the device.
        fused_load: a ``load_x`` callback will be given.
        itemsize: bytes of an element; ``width * itemsize`` should be the device's register width.
    """
    vector_bytes = width * itemsize
    group_in, group_out = shape.channels // shape.groups, shape.filters // shape.groups
    kh, kw = shape.kernel
    while width > 4 and width // 2 >= group_out:
        width //= 2
    padded = -(-group_out // width) * width
    tiles, channels, most = _choose_tile(group_in, padded // width, kh * kw, vector_bytes)
    inside = (shape.out_height - 1) * shape.stride[0] + (kh - 1) * shape.dilation[0] < shape.height
    inside = inside and (shape.out_width - 1) * shape.stride[1] + (kw - 1) * shape.dilation[1] < shape.width
    direct = not fused_load and inside and shape.padding == (0, 0)
    pixels = shape.out_height * shape.out_width
    wanted_pixels = max(64, min(512, 32 * 1024 // padded))
    rows, images = shape.out_height, 1
    if pixels > wanted_pixels:
        rows = max(1, wanted_pixels // shape.out_width)
        rows = -(-shape.out_height // -(-shape.out_height // rows))
    elif batch > 1:
        images = max(1, min(wanted_pixels // pixels, -(-batch // (2 * cores))))
    units = -(-batch // images) * -(-shape.out_height // rows)
    # items: input channels whose sums stay in the cache, in whole tiles; then more parts where units are few
    fit = max(1, CACHED_SUMS // (padded * kh * kw))
    wanted = TASKS_PER_CORE * cores
    if shape.groups * -(-group_in // fit) * units < wanted:
        fit = min(fit, max(1, -(-group_in * shape.groups * units // wanted)))
    part_channels = min(group_in, -(-min(fit, group_in) // channels) * channels)
    items = shape.groups * -(-group_in // part_channels)
    parts = min(items, wanted) if items * padded * part_channels * kh * kw > 16 * 1024 or units < wanted else 1
    chunks = max(1, min(units, -(-wanted // parts)))
    return WeightConfig(width, tiles, channels, rows, images, direct, part_channels, parts, chunks, 2 * cores, most)
