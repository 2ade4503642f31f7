"""Schedules of the CPU convolution generators: register tiles, bands, packing, and how work is cut into tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from backends.codegen.cpu_conv.code import CACHE_ELEMENTS, ConvProblem, Taps
from backends.codegen.nest.schedule import blocks
from graphcore.base.shapes import Extent, dim_min

TASKS_PER_CORE = 4  # what a core should have to choose from
_SHALLOWEST = 32  # input channels of a part: the sums' way to the workspace and back is paid once a part
_MOST_TILINGS = 4  # that are offered for one convolution
_LESS_TEXT = 0.8  # of the text of the one before, which the next has at most
_MOST_PIXELS = 400  # of an image that is taken whole, in parts of its channels, rather than in bands of rows


@dataclass(frozen=True)
class ConvConfig:
    """How ``conv_forward_code`` computes one problem.

    Attributes:
        width: lanes of a vector (16, 8, 4).
        channel_tiles: output channels of the register tiles, falling; the last must tile what the others leave.
        vector_tiles: pixel vectors of the register tiles, falling, ending in 1; those that no unit meets have no text.
        rows: grid rows of a band; a unit of work is one band of one group of one image.
        images: images of a unit; more than one only with ``rows`` equal to the grid's rows and ``share`` off.
        share: kernel rows of one residue read the same packed plane, shifted by rows.
        direct: read the input in place (1x1, stride 1, no padding, no fused load).
        parts: cuts of the output channels; tasks of different parts pack the same input.
        chunks: cuts of the units; ``parts * chunks`` tasks at most.
        half_tail: finish with a tile of half vectors where half a vector or less is left.
        inline: run the epilogue on registers for whole vectors instead of looping over a small array.
        depth: input channels that are packed at a time, a divisor of all; fewer than all keep sums in the workspace in
            between.
    """

    width: int
    channel_tiles: tuple[int, ...]
    vector_tiles: tuple[int, ...]
    rows: int
    images: int
    share: bool
    direct: bool
    parts: int
    chunks: int
    half_tail: bool
    inline: bool
    depth: int


@dataclass(frozen=True)
class Scratch:
    """Sizes, in elements, of one task's slice of the workspace."""

    plane: int
    panel: int
    out_pitch: int
    out: int
    stage: int

    @property
    def slice(self) -> int:
        """Elements of one task, a multiple of 32."""
        return -(-(self.panel + self.out + self.stage) // 32) * 32


def register_count(vector_bytes: int) -> int:
    """Vector registers: 32 where vectors are 64 bytes wide, else 16."""
    return 32 if vector_bytes >= 64 else 16


def planes_per_channel(problem: ConvProblem, share: bool) -> int:
    """Packed planes of one input channel in the worst phase."""
    rows = max(t.classes(problem.stride[0]) if share else t.count for t in problem.taps_y)
    return rows * max(t.count for t in problem.taps_x)


def extra_rows(problem: ConvProblem, share: bool) -> int:
    """Packed rows beyond the band's own: the reach of the taps that share a plane."""
    if not share:
        return 0
    return max(t.class_shift(t.count - 1, problem.stride[0]) if t.count else 0 for t in problem.taps_y)


def uses_out_scratch(problem: ConvProblem, config: ConvConfig) -> bool:
    """Whether tiles go through the workspace before the epilogue: several images a unit, interleaved phases, or
    channels in parts."""
    return config.images > 1 or problem.phases > 1 or config.depth < problem.in_channels


def part_channels(problem: ConvProblem, config: ConvConfig) -> int:
    """Output channels of one part: a multiple of the largest tile, except where all channels are one part."""
    tile = config.channel_tiles[0]
    if config.parts == 1:
        return problem.out_channels
    return -(-problem.out_channels // (config.parts * tile)) * tile


def stage_pitch(problem: ConvProblem, taps: Taps) -> int:
    """Columns of one channel's padded rows, which all kernel columns are read from."""
    return (problem.grid[1] - 1) * problem.stride[1] + max(0, taps.count - 1) * taps.gap + 1


def stage_size(problem: ConvProblem, config: ConvConfig, taps_y: Taps, taps_x: Taps) -> int:
    """Elements of one channel's padded rows for one band, with room to read whole vectors behind the last."""
    classes = taps_y.classes(problem.stride[0]) if config.share else taps_y.count
    rows = (config.rows + extra_rows(problem, config.share) - 1) * problem.stride[0]
    rows += max(0, classes - 1) * taps_y.gap + 1
    size = rows * stage_pitch(problem, taps_x) + 2 * config.width * problem.stride[1]
    return -(-size // 16) * 16


def scratch(problem: ConvProblem, config: ConvConfig) -> Scratch:
    """Layout of one task's scratch: packed planes, then (where needed) the outputs of all channels of the part."""
    width, reach = config.width, max(config.vector_tiles)
    pixels = config.rows * problem.grid[1] * config.images
    pitch = -(-pixels // width) * width
    plane = (config.rows + extra_rows(problem, config.share)) * problem.grid[1] * config.images
    plane = -(-(plane + width) // 16) * 16  # rows are written in whole vectors, past the last row too
    if plane // 16 % 2 == 0:
        plane += 16  # an odd number of lines, so that planes spread over the cache's sets
    panel = 0
    if not config.direct:
        panel = config.depth * planes_per_channel(problem, config.share) * plane + reach * width
    out = 0
    if uses_out_scratch(problem, config):
        pitch += reach * width
        out = part_channels(problem, config) * problem.phases * pitch
        panel = max(panel, config.rows * problem.phase_step[0] * problem.out_size[1] + width)
        panel = -(-panel // 16) * 16
    stage = (
        0 if config.direct else max(stage_size(problem, config, y, x) for y in problem.taps_y for x in problem.taps_x)
    )
    return Scratch(plane, panel, pitch, out, stage)


def band_rows(problem: ConvProblem, config: ConvConfig) -> set[int]:
    """How many grid rows units may have: the last band of an image may be lower."""
    return {min(config.rows, problem.grid[0] - first) for first in range(0, problem.grid[0], config.rows)}


def tile_limits(problem: ConvProblem, config: ConvConfig) -> dict[tuple[int, int], set[int]]:
    """The register tiles that units of any batch meet, (vectors, lanes), and how many pixels of theirs there are."""
    found: dict[tuple[int, int], set[int]] = {}
    half = config.width // 2 if config.half_tail else 0
    for rows, images in product(band_rows(problem, config), range(1, config.images + 1)):
        pixels, at = images * rows * problem.grid[1], 0
        for vectors in config.vector_tiles:
            span = vectors * config.width
            while at + span - config.width + half < pixels:
                found.setdefault((vectors, config.width), set()).add(min(pixels - at, span))
                at += span
        if half and at < pixels:
            found.setdefault((1, half), set()).add(pixels - at)
    return found


def workspace_elements(problem: ConvProblem, config: ConvConfig) -> int:
    """Elements of the workspace, for any batch."""
    return scratch(problem, config).slice * config.parts * config.chunks


def units(problem: ConvProblem, config: ConvConfig, batch: Extent) -> Extent:
    """Units of work for ``batch`` images."""
    return blocks(batch, config.images) * (problem.groups * -(-problem.grid[0] // config.rows))


def task_count(problem: ConvProblem, config: ConvConfig, batch: Extent) -> Extent:
    """Tasks to start for ``batch`` images: the function's ``task`` runs from 0 to this number."""
    return dim_min(units(problem, config, batch), config.chunks) * config.parts


def tile_cost(channels: int, vectors: float, vector_bytes: int) -> float:
    """Cycles of one step of a register tile: products against loads, both one a cycle, and latency."""
    if vector_bytes >= 64:
        if vectors < 1:  # half vectors: two products and two loads a cycle
            return max(channels / 2, (channels + 1.5) / 2, 4) + 0.3
        return max(channels * vectors, channels + 2 * vectors, 4) + 0.3
    # loads are not quite hidden here: measured, 4x3 and 6x2 beat 2x5 and 12x1 by 3 to 15%
    return max(channels * vectors, 8) + 0.2 * (channels + 1.5 * vectors)


@dataclass(frozen=True)
class Tiling:
    """Register tiles that cover the channels and the pixels of a unit.

    Attributes:
        channels, vectors: as in ``ConvConfig``.
        half: whether half a vector is a tile of its own.
        cycles: of one step of all tiles.
        text: vectors that are written out for one step of every tile.
    """

    channels: tuple[int, ...]
    vectors: tuple[int, ...]
    half: bool
    cycles: float
    text: int


@lru_cache(maxsize=4096)
def _tilings(channels: int, vectors: int, half: bool, vector_bytes: int) -> tuple[Tiling, ...]:
    """Ways to cover ``channels`` times ``vectors`` (plus half a vector): the cheapest, then the cheapest of those with
    ever less text."""
    found: list[Tiling] = []
    registers = register_count(vector_bytes)
    for mo in range(1, min(channels, 24) + 1):
        for nv in range(1, max(1, min(vectors, 6)) + 1):
            # with more sums than three quarters of the registers compilers spill
            if mo * nv > registers * 3 // 4 or mo * nv + nv + 1 > registers:
                continue
            rest_o, rest_v = channels % mo, vectors % nv
            columns = [(nv, vectors // nv), (rest_v, 1 if rest_v else 0), (0.5, 1 if half else 0)]
            cost = sum(
                times_o * times_v * tile_cost(o, v, vector_bytes)
                for o, times_o in ((mo, channels // mo), (rest_o, 1))
                for v, times_v in columns
                if o and v
            )
            # every further body is text to compile and instructions to fetch
            cost *= 1 + 0.01 * ((rest_o > 0) + (rest_v > 1))
            channel_tiles = (mo, rest_o) if rest_o else (mo,)
            vector_tiles = tuple(sorted({nv, rest_v or 1, 1}, reverse=True))
            written = [*(v for v in {nv, rest_v} if v and vectors), *([1] if half else [])]
            text = sum(o * v + o + v for o in channel_tiles for v in written)
            found.append(Tiling(channel_tiles, vector_tiles, half, cost, text))
    best: list[Tiling] = []
    for tiling in sorted(found, key=lambda t: t.cycles):
        if not best or tiling.text < best[-1].text * _LESS_TEXT:
            best.append(tiling)
    return tuple(best[:_MOST_TILINGS])


def is_direct(problem: ConvProblem) -> bool:
    """Whether output pixel p of one channel reads exactly input pixel p: nothing needs packing."""
    taps = (*problem.taps_y, *problem.taps_x)
    return (
        problem.phases == 1 and problem.stride == (1, 1) and problem.in_size == problem.grid
        and all(t.count == 1 and t.shift == 0 for t in taps)
    )  # fmt: skip


def _depth(problem: ConvProblem, share: bool, pixels: int) -> int:
    """Input channels to pack at a time: all, or the most of a few equal parts whose planes stay in the cache."""
    per_channel = planes_per_channel(problem, share) * (pixels + extra_rows(problem, share) * problem.grid[1])
    for parts in range(1, problem.in_channels // _SHALLOWEST + 1):
        if problem.in_channels % parts == 0 and problem.in_channels // parts * per_channel <= CACHE_ELEMENTS:
            return problem.in_channels // parts
    return problem.in_channels


def _band_rows(problem: ConvProblem, share: bool, outputs: int, width: int) -> int:
    """Rows of a band: as many as fit the cache, evenly cut, few enough pixels to keep the scratch small."""
    columns = problem.grid[1]
    per_row = columns * (problem.in_channels * planes_per_channel(problem, share) + outputs)
    reach = extra_rows(problem, share)
    rows = max(1, CACHE_ELEMENTS // max(per_row, 1) - reach)
    rows = max(rows, min(problem.grid[0], -(-3 * width // columns)))
    bands = -(-problem.grid[0] // min(rows, problem.grid[0]))
    return -(-problem.grid[0] // bands)


def menu(problem: ConvProblem, **options: Any) -> tuple[ConvConfig, ...]:
    """What can be chosen, the schedule of ``choose`` first, whose arguments it takes, then those with other register
    tiles.

    None of them changes bits: every tile adds up channels, then taps, in their order; what the epilogue gathers goes by
    rows and images, lane by lane.
    """
    return tuple(dict.fromkeys(choose(problem, **options, rank=rank) for rank in range(_MOST_TILINGS)))


def text_length(problem: ConvProblem, config: ConvConfig) -> int:
    """Vectors that are written out for one step of every tile of every phase."""
    tiles = [v for v, _ in tile_limits(problem, config)]
    return problem.phases * sum(o * v + o + v for o in config.channel_tiles for v in tiles)


def choose(
    problem: ConvProblem,
    *,
    width: int,
    batch: int,
    cores: int,
    fused_load: bool = False,
    itemsize: int = 4,
    rank: int = 0,
) -> ConvConfig:
    """Pick a schedule.

    Args:
        problem: what to compute.
        width: lanes of a vector (16, 8 or 4).
        batch: expected number of images; any other number works too.
        cores: compute units of the device.
        fused_load: a ``load_x`` callback will be given, so that reading in place would repeat its work.
        itemsize: bytes of an element; ``width * itemsize`` should be the device's register width.
        rank: which of the register tiles to take, 0 for the best, those with less text after it; of those that there
            are, the last for a higher one.
    """
    pixels = problem.grid_pixels
    tail_waste = -(-pixels // width) * width / pixels
    direct = is_direct(problem) and not fused_load and pixels >= width and (tail_waste < 1.15 or batch == 1)
    small = not direct and batch > 1 and tail_waste > 1.12 and pixels < 128
    images = 1
    rows = problem.grid[0]
    share = not small
    if small:
        # flatten pixels of several images: about six vectors, but no more images than every core needs
        images = max(1, min(-(-6 * width // pixels), -(-batch // (2 * cores))))
        share = images == 1
    elif direct:
        rows = problem.grid[0]
    else:
        outputs = problem.out_channels * problem.phases if problem.phases > 1 else 0
        rows = _band_rows(problem, share, outputs, width)
    depth = problem.in_channels
    if small:
        depth = _depth(problem, share, pixels * images)
    elif (
        not direct and rows < problem.grid[0] and pixels <= _MOST_PIXELS
    ):  # a whole image in parts of its channels, not bands
        whole = _depth(problem, share, pixels)
        depth, rows = (whole, problem.grid[0]) if whole < problem.in_channels else (depth, rows)
    vector_bytes = width * itemsize
    vectors, tail = divmod(rows * problem.grid[1] * images, width)
    # half a vector costs half a vector only where a whole one is two of the core's multipliers
    half = vector_bytes >= 64 and 0 < tail <= width // 2
    vectors += tail > 0 and not half
    limit = min(vectors, pixels // width) if direct else vectors
    tilings = _tilings(problem.out_channels, max(limit, 1), half, vector_bytes)
    tiling = tilings[min(rank, len(tilings) - 1)]
    total = -(-batch // images) * problem.groups * -(-problem.grid[0] // rows)
    wanted = TASKS_PER_CORE * cores
    parts = 1
    if total < wanted:
        parts = max(1, min(-(-wanted // total), problem.out_channels // tiling.channels[0]))
    terms = problem.in_channels * max(t.count for t in problem.taps_y) * max(t.count for t in problem.taps_x)
    return ConvConfig(
        width,
        tiling.channels,
        tiling.vectors,
        rows,
        images,
        share,
        direct,
        parts,
        min(total, wanted * 2),
        half,
        terms < 128,
        depth,
    )
