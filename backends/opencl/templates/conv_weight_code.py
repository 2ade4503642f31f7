"""Text of the convolution's weight gradient for CPU runtimes.

dw[o, c, ky, kx] = sum over n and output pixels of dy[n, o, pixel] * x[n, c, pixel * stride + tap * dilation - padding]

Schedule: lanes are output channels. A block of dy (some rows of one image, or several small images) is transposed
once to [pixel][channel]; the rows of x that it meets are copied once with their padding. A register tile of channel
vectors times taps then walks the pixels with a few aligned vector loads and one broadcast of x per tap, the taps
being literal offsets. Sums of one task stay in its part of the workspace; a second function adds the tasks' sums in
order, transposes them back and runs the epilogue. No atomics: the same sizes give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.opencl.templates.conv_code import (
    CONTRACT, ConvShape, Load, Names, Writer, emit_copy, emit_fill, load, plain_load, store, vector, vector_types,
    widths_below,
)  # fmt: skip
from backends.opencl.templates.conv_schedule import register_count

WeightEpilogue = Callable[[str, str, str, int], list[str]]
"""``epilogue(o, k, acc, width)``: statements that store ``width`` elements of dw from element ``o * K + k``.

``o`` and ``k`` are C expressions: output channel over all groups, and position in (channel of the group, ky, kx)
flattened, whose extent is K; ``acc`` names the vector (a scalar for width 1). Each element is handed over once.
"""


@dataclass(frozen=True)
class WeightConfig:
    """How the weight gradient of one shape is computed.

    Attributes:
        width: lanes of a vector, at most the device's: fewer where a group has few output channels.
        vector_tiles: channel vectors of the register tiles, falling; they cover the channels of a group.
        channels: input channels of a register tile; the rest forms its own tile.
        taps: sizes of the runs into which the (channel, ky, kx) of a tile are cut; one loop over pixels each.
        rows: output rows of a block.
        images: images of a block; more than one only with ``rows`` equal to the output's rows.
        direct: read x in place (no padding reached, no fused load).
        part_channels: input channels of one item; a part is a run of (group, item).
        parts: cuts of the items.
        chunks: cuts of the blocks; each keeps sums of its own.
        reduce_tasks: most tasks of the second function.
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
class _Sizes:
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


def _sizes(shape: ConvShape, config: WeightConfig) -> _Sizes:
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
    return _Sizes(group_in, group_out, padded, kh * kw, pixels, x_rows, x_pitch, x_image, x_panel, dy_panel, sums)


def weight_workspace_elements(shape: ConvShape, config: WeightConfig) -> int:
    """Elements of the workspace of both functions, for any batch."""
    sizes = _sizes(shape, config)
    return config.chunks * sizes.sums + config.parts * config.chunks * sizes.scratch


def _blocks(shape: ConvShape, config: WeightConfig, batch: int) -> int:
    return -(-batch // config.images) * -(-shape.out_height // config.rows)


def weight_task_count(shape: ConvShape, config: WeightConfig, batch: int) -> int:
    """Tasks of the first function."""
    return config.parts * min(_blocks(shape, config, batch), config.chunks)


def reduce_task_count(shape: ConvShape, config: WeightConfig, batch: int) -> int:
    """Tasks of the second function, to start when all tasks of the first are done (any batch, also 0)."""
    del batch
    return min(_reduce_tiles(shape, config), config.reduce_tasks)


def _reduce_tiles(shape: ConvShape, config: WeightConfig) -> int:
    sizes = _sizes(shape, config)
    k = sizes.group_in * sizes.taps
    return shape.groups * (sizes.padded_out // config.width) * -(-k // config.width)


def _tile_cost(vectors: int, taps: int, vector_bytes: int) -> float:
    """Cycles of one pixel of a register tile: products against loads, and latency."""
    if vector_bytes >= 64:
        return max(vectors * taps, vectors + taps, 4) + 0.7
    return max(vectors * taps, vectors + taps, 8) + 0.7


def _runs(total: int, most: int) -> list[int]:
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
                        runs = _runs(c * taps, most)
                        bodies += len(runs)
                        cost += times_v * times_c * sum(_tile_cost(v, r, vector_bytes) for r in runs)
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
    blocks = -(-batch // images) * -(-shape.out_height // rows)
    # items: input channels whose sums stay in the cache, in whole tiles; then more parts where blocks are few
    fit = max(1, 64 * 1024 // (padded * kh * kw))
    wanted = 4 * cores
    if shape.groups * -(-group_in // fit) * blocks < wanted:
        fit = min(fit, max(1, -(-group_in * shape.groups * blocks // wanted)))
    part_channels = min(group_in, -(-min(fit, group_in) // channels) * channels)
    items = shape.groups * -(-group_in // part_channels)
    parts = min(items, wanted) if items * padded * part_channels * kh * kw > 16 * 1024 or blocks < wanted else 1
    chunks = max(1, min(blocks, -(-wanted // parts)))
    return WeightConfig(
        width, tiles, channels, rows, images, direct, part_channels, parts, chunks, 2 * cores, most
    )


def weight_code(
    name: str, params: str, shape: ConvShape, config: WeightConfig, *, dtype: str = "float",
    names: Names | None = None, load_dy: Load | None = None, load_x: Load | None = None,
) -> str:  # fmt: skip
    """Write ``GC_NOINLINE static void name(params, int task)``: sums of dy times x into the workspace.

    Args:
        name: function name.
        params: C parameter list without the final ``int task``.
        shape, config: from ``choose_weight``.
        dtype: ``float`` or ``double``.
        names: parameter names; ``source`` is dy and ``weight`` is x here.
        load_dy, load_x: fused loads by element index; must be pure. ``load_x`` not with ``config.direct``.
    """
    if load_x is not None and config.direct:
        raise ValueError("a direct schedule reads x in place; choose_weight(..., fused_load=True)")
    return _WeightText(shape, config, dtype, names or Names("dy", "x"), load_dy, load_x).sums_text(name, params)


def reduce_code(
    name: str, params: str, shape: ConvShape, config: WeightConfig, epilogue: WeightEpilogue, *,
    dtype: str = "float", names: Names | None = None,
) -> str:  # fmt: skip
    """Write ``GC_NOINLINE static void name(params, int task)``: add the tasks' sums in order and store dw.

    Args:
        name, params, shape, config, dtype, names: as for ``weight_code``.
        epilogue: stores the results.
    """
    text = _WeightText(shape, config, dtype, names or Names("dy", "x"), None, None)
    return text.reduce_text(name, params, epilogue)


def emit_transpose(w: Writer, dtype: str, width: int, rows: list[str]) -> list[str]:
    """Transpose ``width`` vectors of ``width`` lanes in registers; returns the names of the results."""
    kind, level = vector(dtype, width), 0
    while 1 << level < width:
        merged = []
        for i in range(width // 2):
            for half in ("lo", "hi"):
                name = f"t{level}_{len(merged)}"
                w.add(f"{kind} {name}; {name}.even = {rows[i]}.{half}; {name}.odd = {rows[i + width // 2]}.{half};")
                merged.append(name)
        rows, level = merged, level + 1
    return rows


class _WeightText:
    """The two functions being written."""

    def __init__(
        self, shape: ConvShape, config: WeightConfig, dtype: str, names: Names, load_dy: Load | None,
        load_x: Load | None,
    ) -> None:  # fmt: skip
        self.shape, self.config, self.dtype, self.names = shape, config, dtype, names
        self.load_dy = load_dy or plain_load(names.source, dtype)
        self.load_x = load_x or plain_load(names.weight, dtype)
        self.sizes = _sizes(shape, config)
        self.vec = vector(dtype, config.width)
        self.w = Writer()

    def _prologue(self) -> None:
        """Run-time numbers both functions share."""
        s, c = self.shape, self.config
        bands = -(-s.out_height // c.rows)
        self.w.add(*vector_types(self.dtype))
        self.w.add(f"const int blocks = (({self.names.batch} + {c.images - 1}) / {c.images}) * {bands};")
        self.w.add(f"const int chunks = min(blocks, {c.chunks});")

    def sums_text(self, name: str, params: str) -> str:
        """The first function."""
        s, c, z, w = self.shape, self.config, self.sizes, self.w
        items = -(-z.group_in // c.part_channels)
        bands = -(-s.out_height // c.rows)
        with w.block(f"GC_NOINLINE static void {name}({params}, int task)"):
            self._prologue()
            w.add("if (chunks == 0) return;")
            w.add("const int chunk = task % chunks, part = task / chunks;")
            w.add(
                f"__global {self.dtype}* const sums = {self.names.workspace} + (size_t)chunk * {z.sums};",
                f"__global {self.dtype}* const panel = {self.names.workspace} + {c.chunks * z.sums}L"
                f" + (size_t)task * {z.scratch};",
                f"__global {self.dtype}* const dyt = panel + {z.x_panel};",
                "const int first_block = (int)((long)blocks * chunk / chunks);",
                "const int last_block = (int)((long)blocks * (chunk + 1) / chunks);",
                f"const int last_item = {s.groups * items} * (part + 1) / {c.parts};",
            )
            start = f"int item = {s.groups * items} * part / {c.parts}"
            with w.block(f"for ({start}; item < last_item; ++item)"):
                w.add(f"const int group = item / {items}, first_c = (item % {items}) * {c.part_channels};")
                w.add(f"const int last_c = min(first_c + {c.part_channels}, {z.group_in});")
                with w.block("for (int block = first_block; block < last_block; ++block)"):
                    w.add(f"const int row0 = (block % {bands}) * {c.rows};")
                    w.add(f"const int rows = min({c.rows}, {s.out_height} - row0);")
                    w.add(f"const int image0 = (block / {bands}) * {c.images};")
                    w.add(f"const int images = min({c.images}, {self.names.batch} - image0);")
                    if not c.direct:
                        self._pack_x()
                    self._pack_dy()
                    self._tiles()
        return w.text()

    def _pack_x(self) -> None:
        """Copy the rows of x that the block meets, padding written out: [channel][image][row][column]."""
        s, c, z, w = self.shape, self.config, self.sizes, self.w
        begin = min(z.x_pitch, s.padding[1])
        end = max(begin, min(z.x_pitch, s.width + s.padding[1]))
        reach = (s.kernel[0] - 1) * s.dilation[0] + 1
        with w.block("for (int c = first_c; c < last_c; ++c)"), w.block("for (int i = 0; i < images; ++i)"):
            w.add(
                f"const int plane = ((image0 + i) * {s.channels} + group * {z.group_in} + c) * {s.height * s.width};"
            )
            with w.block(f"for (int j = 0; j < (rows - 1) * {s.stride[0]} + {reach}; ++j)"):
                w.add(f"const int iy = row0 * {s.stride[0]} - {s.padding[0]} + j;")
                w.add(
                    f"__global {self.dtype}* const to = panel + ((c - first_c) * {c.images} + i) * {z.x_image}"
                    f" + j * {z.x_pitch};"
                )
                with w.block(f"if (iy < 0 || iy >= {s.height})"):
                    emit_fill(w, self.dtype, "to", 0, z.x_pitch, c.width)
                with w.block("else"):
                    w.add(f"const int from = plane + iy * {s.width};")
                    emit_fill(w, self.dtype, "to", 0, begin, c.width)
                    if end > begin:
                        index = f"from + {begin - s.padding[1]}"
                        emit_copy(w, self.dtype, self.load_x, f"(to + {begin})", index, end - begin, c.width)
                    emit_fill(w, self.dtype, "to", end, z.x_pitch - end, c.width)

    def _pack_dy(self) -> None:
        """Transpose the block of dy: [channel tile][pixel][channel of the tile], missing channels zero."""
        s, c, z, w = self.shape, self.config, self.sizes, self.w
        plane = s.out_height * s.out_width
        with w.block("for (int i = 0; i < images; ++i)"):
            w.add(f"const int count = rows * {s.out_width}, pixel0 = i * count;")
            w.add(
                f"const int from = ((image0 + i) * {s.filters} + group * {z.group_out}) * {plane}"
                f" + row0 * {s.out_width};"
            )
            for first, vectors, tiles in self._tile_runs():
                pitch = vectors * c.width
                full = min(tiles * vectors, max(0, z.group_out // c.width - first))
                with w.block(f"for (int b = {first}; b < {first + tiles * vectors}; ++b)"):
                    w.add(
                        f"__global {self.dtype}* const to = dyt + {first * c.width * z.pixels} + "
                        f"((b - {first}) / {vectors}) * {pitch * z.pixels} + ((b - {first}) % {vectors}) * {c.width}"
                        f" + pixel0 * {pitch};"
                    )
                    if full == tiles * vectors:
                        self._transpose_rows(c.width, pitch, plane)
                    else:
                        with w.block(f"if (b < {first + full})"):
                            self._transpose_rows(c.width, pitch, plane)
                        with w.block("else"):
                            self._transpose_rows(z.group_out % c.width, pitch, plane)

    def _tile_runs(self) -> list[tuple[int, int, int]]:
        """(first vector, vectors of a tile, tiles) of every size of tile, covering the group's channels."""
        total, first, runs = self.sizes.padded_out // self.config.width, 0, []
        for vectors in self.config.vector_tiles:
            tiles = (total - first) // vectors
            if tiles:
                runs.append((first, vectors, tiles))
                first += tiles * vectors
        return runs

    def _transpose_rows(self, channels: int, pitch: int, plane: int) -> None:
        """Transpose one vector of channels, of which ``channels`` exist, over the pixels of one image."""
        w, width = self.w, self.config.width
        w.add(f"const int row = from + b * {width * plane};", "int p = 0;")
        with w.block(f"for (; p + {width} <= count; p += {width})"):
            for lane in range(width):
                value = self.load_dy(f"(row + {lane * plane} + p)", width) if lane < channels else f"({self.vec})(0)"
                w.add(f"const {self.vec} r{lane} = {value};")
            results = emit_transpose(w, self.dtype, width, [f"r{lane}" for lane in range(width)])
            for lane, result in enumerate(results):
                w.add(store(result, f"to + (p + {lane}) * {pitch}", width, self.dtype))
        with w.block("for (; p < count; ++p)"):
            with w.block(f"for (int l = 0; l < {channels}; ++l)"):
                w.add(f"to[p * {pitch} + l] = {self.load_dy(f'(row + l * {plane} + p)', 1)};")
            if channels < width:
                with w.block(f"for (int l = {channels}; l < {width}; ++l)"):
                    w.add(f"to[p * {pitch} + l] = 0;")

    def _tiles(self) -> None:
        """All register tiles of one block."""
        s, c, z, w = self.shape, self.config, self.sizes, self.w
        if c.direct:
            channel, image, row = s.height * s.width, s.channels * s.height * s.width, s.width
            w.add(
                f"__global const {self.dtype}* const base = {self.names.weight} + "
                f"(size_t)(image0 * {s.channels} + group * {z.group_in} + first_c) * {channel}"
                f" + row0 * {s.stride[0] * s.width};"
            )
        else:
            channel, image, row = c.images * z.x_image, z.x_image, z.x_pitch
            w.add(f"__global const {self.dtype}* const base = panel;")
        for first, vectors, tiles in self._tile_runs():
            pitch = vectors * c.width
            with w.block(f"for (int tile = 0; tile < {tiles}; ++tile)"):
                w.add(
                    f"__global const {self.dtype}* const dyb = dyt + {first * c.width * z.pixels}"
                    f" + tile * {pitch * z.pixels};"
                )
                w.add("int c = first_c;")
                # the rest of a part is taken channel by channel where parts do not consist of whole tiles
                rest = {(min(c.part_channels, z.group_in)) % c.channels, z.group_in % c.part_channels % c.channels}
                for channels in sorted({c.channels, *rest} - {0}, reverse=True):
                    with w.block(f"for (; c + {channels} <= last_c; c += {channels})"):
                        w.add(
                            f"__global const {self.dtype}* const xb = base + (c - first_c) * {channel};",
                            f"__global {self.dtype}* const sb = sums + ((group * {z.group_in} + c) * {z.taps})"
                            f" * {z.padded_out} + {first * c.width} + tile * {pitch};",
                        )
                        self._runs_of_taps(vectors, channels, channel, image, row)

    def _runs_of_taps(self, vectors: int, channels: int, channel: int, image: int, row: int) -> None:
        """The runs of taps of one tile, each a walk over all pixels of the block."""
        s = self.shape
        kh, kw = s.kernel
        offsets = [
            k * channel + y * s.dilation[0] * row + x * s.dilation[1]
            for k in range(channels)
            for y in range(kh)
            for x in range(kw)
        ]
        first = 0
        for count in _runs(len(offsets), self.config.tile_taps):
            with self.w.block():
                self._run(vectors, offsets[first : first + count], first, image, row)
            first += count

    def _run(self, vectors: int, offsets: list[int], first: int, image: int, row: int) -> None:
        """Sums of one register tile over the pixels of the block, kept in the workspace between blocks."""
        s, c, z, w = self.shape, self.config, self.sizes, self.w
        places = [
            (f"s{v}_{k}", f"sb + {(first + k) * z.padded_out + v * c.width}")
            for k in range(len(offsets))
            for v in range(vectors)
        ]
        for name, place in places:
            w.add(f"{self.vec} {name} = ({self.vec})(0);")
        with w.block("if (block != first_block)"):
            for name, place in places:
                w.add(f"{name} = {load(place, c.width, self.dtype)};")
        pitch = vectors * c.width
        unroll = 2 if s.out_width % 2 == 0 else 1
        with w.block("for (int i = 0; i < images; ++i)"), w.block("for (int y = 0; y < rows; ++y)"):
            w.add(
                f"__global const {self.dtype}* dp = dyb + (i * rows + y) * {s.out_width * pitch};",
                f"__global const {self.dtype}* xp = xb + i * {image} + y * {s.stride[0] * row};",
            )
            step = f"dp += {unroll * pitch}, xp += {unroll * s.stride[1]}"
            with w.block(f"for (int x = 0; x < {s.out_width}; x += {unroll}, {step})"):
                for copy in range(unroll):
                    with w.block():
                        w.add(CONTRACT)
                        for v in range(vectors):
                            w.add(f"const {self.vec} d{v} = {load(f'dp + {copy * pitch + v * c.width}', c.width, self.dtype)};")
                        for k, offset in enumerate(offsets):
                            w.add(f"const {self.vec} x{k} = ({self.vec})(xp[{offset + copy * s.stride[1]}]);")
                            w.add(*(f"s{v}_{k} = d{v} * x{k} + s{v}_{k};" for v in range(vectors)))
        for name, place in places:
            w.add(store(name, place, c.width, self.dtype))

    def reduce_text(self, name: str, params: str, epilogue: WeightEpilogue) -> str:
        """The second function."""
        s, c, z, w = self.shape, self.config, self.sizes, self.w
        depth = z.group_in * z.taps
        across, down = z.padded_out // c.width, -(-depth // c.width)
        tiles = _reduce_tiles(s, c)
        tasks = min(tiles, c.reduce_tasks)
        with w.block(f"GC_NOINLINE static void {name}({params}, int task)"):
            self._prologue()
            w.add(f"const int last = (int)({tiles}L * (task + 1) / {tasks});")
            with w.block(f"for (int t = (int)({tiles}L * task / {tasks}); t < last; ++t)"):
                w.add(f"const int group = t / {across * down}, o = (t / {down}) % {across} * {c.width};")
                w.add(f"const int k = (t % {down}) * {c.width};")
                w.add(f"const int count = min({c.width}, {depth} - k);")
                w.add(
                    f"__global const {self.dtype}* const from = {self.names.workspace} + "
                    f"(group * {depth} + k) * {z.padded_out} + o;"
                )
                w.add(f"{self.dtype} tile[{c.width * c.width}];")
                with w.block(f"for (int j = 0; j < {c.width}; ++j)"):
                    w.add(f"{self.vec} sum = ({self.vec})(0);")
                    with w.block("if (j < count) for (int h = 0; h < chunks; ++h)"):
                        w.add(f"sum += {load(f'from + (size_t)h * {z.sums} + j * {z.padded_out}', c.width, self.dtype)};")
                    w.add(store("sum", f"tile + j * {c.width}", c.width, self.dtype, "__private"))
                self._store_tile(epilogue)
        return w.text()

    def _store_tile(self, epilogue: WeightEpilogue) -> None:
        """Transpose a tile of sums and hand its rows to the epilogue."""
        c, z, w = self.config, self.sizes, self.w
        with w.block():
            for lane in range(c.width):
                w.add(f"const {self.vec} r{lane} = {load(f'tile + {lane * c.width}', c.width, self.dtype, '__private')};")
            results = emit_transpose(w, self.dtype, c.width, [f"r{lane}" for lane in range(c.width)])
            for lane, result in enumerate(results):
                w.add(store(result, f"tile + {lane * c.width}", c.width, self.dtype, "__private"))
        with w.block(f"for (int m = 0; m < min({c.width}, {z.group_out} - o); ++m)"):
            w.add("int q = 0;")
            for piece in [c.width, *(k for k in widths_below(c.width) if k != 2)]:
                with w.block(f"for (; q + {piece} <= count; q += {piece})"):
                    w.add(f"const {vector(self.dtype, piece)} acc = {load(f'tile + m * {c.width} + q', piece, self.dtype, '__private')};")
                    w.add(*epilogue(f"(group * {z.group_out} + o + m)", "(k + q)", "acc", piece))
