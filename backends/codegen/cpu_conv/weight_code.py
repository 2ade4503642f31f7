"""Text of the convolution's weight gradient for CPU runtimes.

dw[o, c, ky, kx] = sum over n and output pixels of dy[n, o, pixel] * x[n, c, pixel * stride + tap * dilation - padding]

Schedule: lanes are output channels. A block of dy (some rows of one image, or several small images) is transposed
once to [pixel][channel]; the rows of x that it meets are copied once with their padding. A register tile of channel
vectors times taps then walks the pixels with a few aligned vector loads and one broadcast of x per tap, the taps
being literal offsets. Sums of one task stay in its part of the workspace; a second function adds the tasks' sums in
order, transposes them back and runs the epilogue: one text for all sizes. No atomics: the same sizes give the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.codegen.cpu_conv.code import (
    ConvShape,
    Load,
    Names,
    Writer,
    emit_copy,
    emit_fill,
    load,
    plain_load,
    store,
    vector_types,
    widths_below,
)
from backends.codegen.cpu_conv.weight_schedule import (
    REDUCE_ARGUMENTS,
    WeightConfig,
    choose_weight,
    even_runs,
    reduce_arguments,
    reduce_task_count,
    weight_sizes,
    weight_task_count,
    weight_workspace_elements,
)
from backends.codegen.language import Language, Space
from backends.codegen.transposition import FROM_GLOBAL, FROM_PRIVATE, PRIVATE, transpose

__all__ = [
    "REDUCE_ARGUMENTS",
    "WeightConfig",
    "WeightEpilogue",
    "choose_weight",
    "reduce_arguments",
    "reduce_code",
    "reduce_task_count",
    "weight_code",
    "weight_task_count",
    "weight_workspace_elements",
]

WeightEpilogue = Callable[[str, str, str, int], list[str]]
"""``epilogue(o, k, acc, width)``: statements that store ``width`` elements of dw from element ``o * K + k``.

``o`` and ``k`` are C expressions: output channel over all groups, and position in (channel of the group, ky, kx)
flattened, whose extent is K; ``acc`` names the vector (a scalar for width 1). Each element is handed over once.
"""


def weight_code(
    language: Language, name: str, params: str, shape: ConvShape, config: WeightConfig, *, dtype: str = "float",
    names: Names | None = None, load_dy: Load | None = None, load_x: Load | None = None,
) -> str:  # fmt: skip
    """Write ``GC_NOINLINE static void name(params, int task)``: sums of dy times x into the workspace.

    Args:
        language: what it is written in.
        name: function name.
        params: C parameter list without the final ``int task``.
        shape, config: from ``choose_weight``.
        dtype: ``float`` or ``double``.
        names: parameter names; ``source`` is dy and ``weight`` is x here.
        load_dy, load_x: fused loads by element index; must be pure. ``load_x`` not with ``config.direct``.
    """
    if load_x is not None and config.direct:
        raise ValueError("a direct schedule reads x in place; choose_weight(..., fused_load=True)")
    return _WeightText(language, shape, config, dtype, names or Names("dy", "x"), load_dy, load_x).sums_text(
        name, params
    )


def reduce_code(
    language: Language, name: str, params: str, config: WeightConfig, epilogue: WeightEpilogue, *,
    dtype: str = "float", workspace: str = Names().workspace,
) -> str:  # fmt: skip
    """Write ``GC_NOINLINE static void name(params, int task)``: add the tasks' sums in order and store dw.

    Every size is an argument, so that convolutions of any size share its text.

    Args:
        language: what it is written in.
        name: function name.
        params: C parameter list without the final ``int task``; declares an ``int`` for all of ``REDUCE_ARGUMENTS``.
        config: from ``choose_weight``; of it, only the lanes and the most tasks count.
        epilogue: stores the results.
        dtype: ``float`` or ``double``.
        workspace: the parameter that holds the sums.
    """
    w, width = Writer(language, dtype), config.width
    vec, source = language.vector(dtype, width), language.pointer(dtype, const=True)
    with w.block(f"GC_NOINLINE static void {name}({params}, int task)"):
        w.add(*vector_types(language, dtype))
        w.add(f"const int across = padded / {width}, down = (depth + {width - 1}) / {width};")
        w.add("const int tiles = groups * across * down;")
        w.add(f"const int tasks = min(tiles, {config.reduce_tasks}), last = (int)((long)tiles * (task + 1) / tasks);")
        with w.block("for (int t = (int)((long)tiles * task / tasks); t < last; ++t)"):
            w.add(f"const int group = t / (across * down), o = (t / down) % across * {width};")
            w.add(f"const int k = (t % down) * {width}, count = min({width}, depth - k);")
            w.add(f"{source} const from = {workspace} + (group * depth + k) * padded + o;")
            w.add(f"{language.private(f'{dtype} tile[{width * width}]')};")
            with w.block(f"for (int j = 0; j < {width}; ++j)"):
                w.add(f"{vec} sum = {language.splat('0', dtype, width)};")
                with w.block("if (j < count) for (int h = 0; h < chunks; ++h)"):
                    part = "from + (size_t)h * (groups * depth * padded) + j * padded"
                    w.add(f"sum += {load(language, part, width, dtype)};")
                w.add(store(language, "sum", f"tile + j * {width}", width, dtype, Space.PRIVATE))
            w.add(transpose(PRIVATE, dtype, width, "tile", str(width), "tile", str(width)))
            _store_tile(w, width, epilogue)
    return w.text()


def _store_tile(w: Writer, width: int, epilogue: WeightEpilogue) -> None:
    """Hand the rows of a tile to the epilogue."""
    with w.block(f"for (int m = 0; m < min({width}, outputs - o); ++m)"):
        w.add("int q = 0;")
        for piece in [width, *(k for k in widths_below(width) if k != 2)]:
            with w.block(f"for (; q + {piece} <= count; q += {piece})"):
                value = load(w.language, f"tile + m * {width} + q", piece, w.dtype, Space.PRIVATE)
                w.add(f"const {w.language.vector(w.dtype, piece)} acc = {value};")
                w.add(*epilogue("(group * outputs + o + m)", "(k + q)", "acc", piece))


class _WeightText:
    """The first function being written."""

    def __init__(
        self, language: Language, shape: ConvShape, config: WeightConfig, dtype: str, names: Names,
        load_dy: Load | None, load_x: Load | None,
    ) -> None:  # fmt: skip
        self.shape, self.config, self.dtype, self.names = shape, config, dtype, names
        self.language = language
        self.target, self.source = language.pointer(dtype), language.pointer(dtype, const=True)
        self.zeros = language.splat("0", dtype, config.width)
        self.plain_dy = load_dy is None
        self.load_dy = load_dy or plain_load(self.language, names.source, dtype)
        self.load_x = load_x or plain_load(self.language, names.weight, dtype)
        self.sizes = weight_sizes(shape, config)
        self.vec = self.language.vector(dtype, config.width)
        self.w = Writer(language, dtype)

    def _prologue(self) -> None:
        """Run-time numbers."""
        s, c = self.shape, self.config
        bands = -(-s.out_height // c.rows)
        self.w.add(*vector_types(self.language, self.dtype))
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
                f"{self.target} const sums = {self.names.workspace} + (size_t)chunk * {z.sums};",
                f"{self.target} const panel = {self.names.workspace} + {c.chunks * z.sums}L"
                f" + (size_t)task * {z.scratch};",
                f"{self.target} const dyt = panel + {z.x_panel};",
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
            w.add(f"const int plane = ((image0 + i) * {s.channels} + group * {z.group_in} + c) * {s.height * s.width};")
            with w.block(f"for (int j = 0; j < (rows - 1) * {s.stride[0]} + {reach}; ++j)"):
                w.add(f"const int iy = row0 * {s.stride[0]} - {s.padding[0]} + j;")
                w.add(
                    f"{self.target} const to = panel + ((c - first_c) * {c.images} + i) * {z.x_image}"
                    f" + j * {z.x_pitch};"
                )
                with w.block(f"if (iy < 0 || iy >= {s.height})"):
                    emit_fill(w, "to", 0, z.x_pitch, c.width)
                with w.block("else"):
                    w.add(f"const int from = plane + iy * {s.width};")
                    emit_fill(w, "to", 0, begin, c.width)
                    if end > begin:
                        index = f"from + {begin - s.padding[1]}"
                        emit_copy(w, self.load_x, f"(to + {begin})", index, end - begin, c.width)
                    emit_fill(w, "to", end, z.x_pitch - end, c.width)

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
                        f"{self.target} const to = dyt + {first * c.width * z.pixels} + "
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
        plain = self.plain_dy and channels == width
        if not plain:
            w.add(f"{self.language.private(f'{self.dtype} made[{width * width}]')};")
            for lane in range(channels, width):
                w.add(store(self.language, self.zeros, f"made + {lane * width}", width, self.dtype, Space.PRIVATE))
        with w.block(f"for (; p + {width} <= count; p += {width})"):
            to = f"to + p * {pitch}"
            if plain:
                origin = f"{self.names.source} + (row + p)"
                w.add(transpose(FROM_GLOBAL, self.dtype, width, origin, str(plane), to, str(pitch)))
            else:
                with w.block(f"for (int l = 0; l < {channels}; ++l)"):
                    value = self.load_dy(f"(row + l * {plane} + p)", width)
                    w.add(store(self.language, value, f"made + l * {width}", width, self.dtype, Space.PRIVATE))
                w.add(transpose(FROM_PRIVATE, self.dtype, width, "made", str(width), to, str(pitch)))
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
                f"{self.source} const base = {self.names.weight} + "
                f"(size_t)(image0 * {s.channels} + group * {z.group_in} + first_c) * {channel}"
                f" + row0 * {s.stride[0] * s.width};"
            )
        else:
            channel, image, row = c.images * z.x_image, z.x_image, z.x_pitch
            w.add(f"{self.source} const base = panel;")
        for first, vectors, tiles in self._tile_runs():
            pitch = vectors * c.width
            with w.block(f"for (int tile = 0; tile < {tiles}; ++tile)"):
                w.add(f"{self.source} const dyb = dyt + {first * c.width * z.pixels} + tile * {pitch * z.pixels};")
                w.add("int c = first_c;")
                # the rest of a part is taken channel by channel where parts do not consist of whole tiles
                rest = {(min(c.part_channels, z.group_in)) % c.channels, z.group_in % c.part_channels % c.channels}
                for channels in sorted({c.channels, *rest} - {0}, reverse=True):
                    with w.block(f"for (; c + {channels} <= last_c; c += {channels})"):
                        w.add(
                            f"{self.source} const xb = base + (c - first_c) * {channel};",
                            f"{self.target} const sb = sums + ((group * {z.group_in} + c) * {z.taps})"
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
        for count in even_runs(len(offsets), self.config.tile_taps):
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
        for name, _ in places:
            w.add(f"{self.vec} {name} = {self.zeros};")
        with w.block("if (block != first_block)"):
            for name, place in places:
                w.add(f"{name} = {load(self.language, place, c.width, self.dtype)};")
        pitch = vectors * c.width
        unroll = 2 if s.out_width % 2 == 0 else 1
        with w.block("for (int i = 0; i < images; ++i)"), w.block("for (int y = 0; y < rows; ++y)"):
            w.add(
                f"{self.source} dp = dyb + (i * rows + y) * {s.out_width * pitch};",
                f"{self.source} xp = xb + i * {image} + y * {s.stride[0] * row};",
            )
            step = f"dp += {unroll * pitch}, xp += {unroll * s.stride[1]}"
            with w.block(f"for (int x = 0; x < {s.out_width}; x += {unroll}, {step})"):
                # Every variable's life is marked in what compilers read, so there is one for all of a kind.
                operands = ", ".join([*(f"d{v}" for v in range(vectors)), "spread"])
                w.add(self.language.contract, f"{self.vec} {operands};")
                for copy in range(unroll):
                    for v in range(vectors):
                        value = load(self.language, f"dp + {copy * pitch + v * c.width}", c.width, self.dtype)
                        w.add(f"d{v} = {value};")
                    for k, offset in enumerate(offsets):
                        value = self.language.splat(f"xp[{offset + copy * s.stride[1]}]", self.dtype, c.width)
                        w.add(f"spread = {value};", *(f"s{v}_{k} = d{v} * spread + s{v}_{k};" for v in range(vectors)))
        for name, place in places:
            w.add(store(self.language, name, place, c.width, self.dtype))
