"""Text of a convolution, forward or with respect to its input, for CPU runtimes.

Schedule: lanes are consecutive output pixels of one image (or of several small images). The input of a band of rows
is packed once into planes, one per channel and kernel column, with the padding written out and the stride resolved,
so that kernel row ``ky`` of a plane is the same plane read some rows further on. A register tile of channels times
pixel vectors then reads one unaligned vector per product row and one broadcast weight per product column.

Compilers take as long for what becomes of the sums as for the products, so all tiles share one function for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from backends.codegen.cpu_conv.code import (
    ConvProblem,
    Load,
    Names,
    Taps,
    Writer,
    emit_copy,
    emit_fill,
    emit_spread,
    load,
    names_of,
    plain_load,
    row_pieces,
    store,
    vector_types,
)
from backends.codegen.cpu_conv.schedule import (
    ConvConfig,
    Scratch,
    band_rows,
    extra_rows,
    part_channels,
    scratch,
    stage_pitch,
    tile_limits,
    uses_out_scratch,
)
from backends.codegen.language import Language, Space

Epilogue = Callable[[str, str, str, str, int], list[str]]
"""``epilogue(n, o, pixel, acc, width)``: statements that store ``width`` outputs.

``n``, ``o`` and ``pixel`` are C expressions: image, output channel over all groups, and the first of ``width``
consecutive pixels (``y * out_width + x``) of that channel; ``acc`` names the vector (a scalar for width 1).
Each output is handed over exactly once.
"""

UNROLL_PRODUCTS = 220
"""Products of one unrolled loop body: enough to hide the loop, few enough to compile quickly."""


def conv_code(
    language: Language, name: str, params: str, problem: ConvProblem, config: ConvConfig, epilogue: Epilogue, *,
    dtype: str = "float", names: Names | None = None, load_x: Load | None = None,
    before: Sequence[str] = (), after: Sequence[str] = (), private: Sequence[str] = (),
) -> str:  # fmt: skip
    """Write ``GC_NOINLINE static void name(params, int task)``.

    Args:
        language: what it is written in.
        name: function name.
        params: C parameter list without the final ``int task``; declares what ``names`` and the callbacks use.
        problem: from ``forward_problem`` or ``input_gradient_problem``.
        config: from ``choose``.
        epilogue: stores the outputs.
        dtype: ``float`` or ``double``.
        names: parameter names.
        load_x: fused load of the images, by element index into them; must be pure. Not with ``config.direct``.
        before, after: statements around every unit, which covers ``rows`` grid rows from ``row0``, ``images`` images
            from ``image0`` and the channels ``first_o`` to ``last_o`` of ``group``.
        private: names of private arrays of ``dtype`` that ``before`` declares and the epilogue uses.

    Returns:
        Its text; the caller defines ``GC_NOINLINE``.
    """
    if load_x is not None and config.direct:
        raise ValueError("a direct schedule reads the input in place; choose(..., fused_load=True)")
    return _ConvText(language, problem, config, epilogue, dtype, names or Names(), load_x, private).text(
        name, params, before, after
    )


class _ConvText:
    """One function being written."""

    def __init__(
        self, language: Language, problem: ConvProblem, config: ConvConfig, epilogue: Epilogue, dtype: str,
        names: Names, load_x: Load | None, private: Sequence[str],
    ) -> None:  # fmt: skip
        self.problem, self.config, self.epilogue, self.dtype, self.names = problem, config, epilogue, dtype, names
        self.language = language
        self.target, self.source = language.pointer(dtype), language.pointer(dtype, const=True)
        self.load_x = load_x or plain_load(self.language, names.source, dtype)
        self.space: Scratch = scratch(problem, config)
        self.out_scratch = uses_out_scratch(problem, config)
        self.vec = self.language.vector(dtype, config.width)
        self.private = private
        self.limits = tile_limits(problem, config)
        self.w = Writer(language, dtype)

    def text(self, name: str, params: str, before: Sequence[str], after: Sequence[str]) -> str:
        """The function, after the one that finishes its tiles."""
        self.finish, self.params = f"{name}_finish", params
        finish = "" if self.out_scratch else self._finish_text()
        return finish + self._main_text(name, params, before, after)

    def _main_text(self, name: str, params: str, before: Sequence[str], after: Sequence[str]) -> str:
        p, c, w = self.problem, self.config, self.w
        bands = -(-p.grid[0] // c.rows)
        per_image = p.groups * bands
        channels = part_channels(p, c)
        with w.block(f"GC_NOINLINE static void {name}({params}, int task)"):
            w.add(*vector_types(self.language, self.dtype))
            w.add(f"const int units = (({self.names.batch} + {c.images - 1}) / {c.images}) * {per_image};")
            w.add(f"const int chunks = min(units, {c.chunks});")
            w.add("const int chunk = task % max(chunks, 1), part = task / max(chunks, 1);")
            w.add(f"const int first_o = part * {channels}, last_o = min(first_o + {channels}, {p.out_channels});")
            if self.space.slice:
                w.add(f"{self.target} const panel = {self.names.workspace} + (size_t)task * {self.space.slice};")
            w.add("const int last_unit = (int)((long)units * (chunk + 1) / max(chunks, 1));")
            with w.block("for (int unit = (int)((long)units * chunk / max(chunks, 1)); unit < last_unit; ++unit)"):
                w.add(f"const int row0 = (unit % {bands}) * {c.rows}, rows = min({c.rows}, {p.grid[0]} - row0);")
                w.add(f"const int group = (unit / {bands}) % {p.groups};")
                w.add(f"const int image0 = (unit / {per_image}) * {c.images};")
                w.add(f"const int images = min({c.images}, {self.names.batch} - image0);")
                w.add(f"const int pixels = images * rows * {p.grid[1]};")
                w.add(*before)
                self._unit()
                w.add(*after)
        return w.text()

    def _unit(self) -> None:
        """One band of one group of one image (or a few whole images): pack, multiply, store."""
        phase = 0
        for ty in self.problem.taps_y:
            for tx in self.problem.taps_x:
                with self.w.block(
                    f"for (int first_c = 0; first_c < {self.problem.in_channels}; first_c += {self.config.depth})"
                ):
                    if ty.count and tx.count and not self.config.direct:
                        self._pack(ty, tx)
                    self._channels(ty, tx, phase)
                phase += 1
        if self.out_scratch:
            self._store_scratch()

    def _pack(self, ty: Taps, tx: Taps) -> None:
        """Copy the band's input rows into planes: [channel][row class][kernel column][image][row][column]."""
        p, c, w, space = self.problem, self.config, self.w, self.space
        classes = ty.classes(p.stride[0]) if c.share else ty.count
        columns, pitch = p.grid[1], stage_pitch(p, tx)
        total = p.groups * p.in_channels
        w.add(f"{self.target} const stage = panel + {space.panel + space.out};")
        w.add(f"const int packed = rows + {extra_rows(p, c.share)};")
        images = f"for (int i = 0; i < {'images' if c.images > 1 else 1}; ++i)"
        with w.block(images), w.block(f"for (int c = 0; c < {c.depth}; ++c)"):
            w.add(
                f"const int source = ((image0 + i) * {total} + group * {p.in_channels} + first_c + c)"
                f" * {p.in_size[0] * p.in_size[1]};"
            )
            self._stage(ty, tx, classes)
            with w.block(f"for (int q = 0; q < {classes}; ++q)"), w.block("for (int j = 0; j < packed; ++j)"):
                w.add(
                    f"{self.target} const to = panel + (c * {classes} + q) * {tx.count * space.plane}"
                    f" + i * {p.grid_pixels} + j * {columns};"
                )
                w.add(f"{self.source} const line = stage + (j * {p.stride[0]} + q * {ty.gap}) * {pitch};")
                for t in range(tx.count):
                    to, line = f"to + {t * space.plane}", f"line + {t * tx.gap}"
                    emit_spread(w, to, line, columns, p.stride[1], c.width)

    def _stage(self, ty: Taps, tx: Taps, classes: int) -> None:
        """Write one channel's rows with their padding: every element is loaded (and any fused load run) once."""
        p, c, w = self.problem, self.config, self.w
        height, width = p.in_size
        pitch = stage_pitch(p, tx)
        begin = min(pitch, max(0, -tx.shift))
        end = max(begin, min(pitch, width - tx.shift))
        with w.block(f"for (int j = 0; j < (packed - 1) * {p.stride[0]} + {(classes - 1) * ty.gap + 1}; ++j)"):
            w.add(f"const int iy = row0 * {p.stride[0]} + {ty.shift} + j;")
            w.add(f"{self.target} const to = stage + j * {pitch};")
            with w.block(f"if (iy < 0 || iy >= {height})"):
                emit_fill(w, "to", 0, pitch, c.width)
            with w.block("else"):
                w.add(f"const int from = source + iy * {width};")
                emit_fill(w, "to", 0, begin, c.width)
                if end > begin:
                    index = f"from + {begin + tx.shift}"
                    emit_copy(w, self.load_x, f"to + {begin}", index, end - begin, c.width)
                emit_fill(w, "to", end, pitch - end, c.width)

    def _channels(self, ty: Taps, tx: Taps, phase: int) -> None:
        """All register tiles of one phase."""
        p, c, w = self.problem, self.config, self.w
        w.add("int o = first_o;")
        for tile_o in c.channel_tiles:
            with w.block(f"for (; o + {tile_o} <= last_o; o += {tile_o})"):
                first = f" + first_c * {p.weight_strides[2]}" if c.depth < p.in_channels else ""
                w.add(f"const int base_w = group * {p.weight_strides[0]} + o * {p.weight_strides[1]}{first};")
                w.add("int at = 0;")
                half = c.width // 2 if c.half_tail else 0
                for tile_v in (v for v in c.vector_tiles if (v, c.width) in self.limits):
                    bound = f"at + {(tile_v - 1) * c.width + half} < pixels"
                    with w.block(f"for (; {bound}; at += {tile_v * c.width})"):
                        self._tile(ty, tx, phase, tile_o, tile_v, c.width)
                if half and (1, half) in self.limits:
                    with w.block("if (at < pixels)"):
                        self._tile(ty, tx, phase, tile_o, 1, half)

    def _tile(self, ty: Taps, tx: Taps, phase: int, tile_o: int, tile_v: int, lanes: int) -> None:
        """One register tile: sum over input channels and taps, then hand the sums on."""
        p, c, w = self.problem, self.config, self.w
        span, kind = tile_v * lanes, self.language.vector(self.dtype, lanes)
        zero = self.language.splat("0", self.dtype, lanes)
        sums = [[f"s{o}_{v}" for v in range(tile_v)] for o in range(tile_o)]
        for row in sums:
            w.add(f"{kind} {', '.join(f'{s} = {zero}' for s in row)};")
        if c.direct:
            # the last tile starts early instead of reading past the plane; ``skip`` lanes are another tile's
            total = p.groups * p.in_channels
            w.add(f"const int start = min(row0 * {p.grid[1]} + at, {p.grid_pixels - span});")
            w.add(f"const int skip = row0 * {p.grid[1]} + at - start;")
            w.add(
                f"{self.source} const band = {self.names.source} + "
                f"(size_t)(image0 * {total} + group * {p.in_channels}) * {p.grid_pixels} + start;"
            )
        elif ty.count and tx.count:
            w.add(f"{self.source} const band = panel + at;")
        if self.out_scratch:
            self._keep(phase)
        if c.depth < p.in_channels:
            with w.block("if (first_c > 0)"):
                w.add(
                    *(
                        f"{value} = {load(self.language, where, lanes, self.dtype)};"
                        for value, where in self._kept(sums, lanes)
                    )
                )
        if ty.count and tx.count:
            self._sum(ty, tx, sums, lanes)
        if self.out_scratch:
            w.add(*(store(self.language, value, where, lanes, self.dtype) for value, where in self._kept(sums, lanes)))
        else:
            self._finish(sums, lanes)

    def _sum(self, ty: Taps, tx: Taps, sums: list[list[str]], lanes: int) -> None:
        """The loops over input channels and taps around the products of one tile."""
        w, kind = self.w, self.language.vector(self.dtype, lanes)
        tile = len(sums) * len(sums[0])
        unroll_x = tx.count if tile * ty.count * tx.count <= UNROLL_PRODUCTS else 1
        copies = 1
        if unroll_x == tx.count:
            copies = max(1, min(4, 96 // (tile * ty.count * tx.count)))
        depth = self.config.depth
        split = depth - depth % copies
        for begin, end, step in ((0, split, copies), (split, depth, 1)):
            if begin == end:
                continue
            with w.block(f"for (int c = {begin}; c < {end}; c += {step})"):
                # Every variable's life is marked in what compilers read, so there is one for all of a kind.
                operands = ", ".join([*(f"x{v}" for v in range(len(sums[0]))), "w"])
                w.add(self.language.contract, f"{kind} {operands};")
                if unroll_x == tx.count:
                    self._pointers(ty, tx, "0")
                    for copy in range(step):
                        for t in range(tx.count):
                            self._products(ty, tx, sums, lanes, copy, t)
                else:
                    with w.block(f"for (int t = 0; t < {tx.count}; ++t)"):
                        self._pointers(ty, tx, "t")
                        self._products(ty, tx, sums, lanes, 0, 0)

    def _pointers(self, ty: Taps, tx: Taps, tap: str) -> None:
        """Pointers to the packed planes and weights of input channel ``c`` (and kernel column ``t``)."""
        p, c, names = self.problem, self.config, self.names
        _, _, stride_c, stride_y, stride_x = p.weight_strides
        constant = ty.first * stride_y + tx.first * stride_x
        classes = ty.classes(p.stride[0]) if c.share else ty.count
        plane = p.grid_pixels if c.direct else self.space.plane
        column = "" if tap == "0" else f" + {tap} * {tx.step * stride_x}"
        shift = "" if tap == "0" else f" + {tap} * {plane}"
        self.w.add(
            f"{self.source} const pw = {names.weight} + (base_w + c * {stride_c} + {constant}{column});",
            f"{self.source} const px = band + (c * {classes * tx.count * plane}{shift});",
        )

    def _products(self, ty: Taps, tx: Taps, sums: list[list[str]], lanes: int, copy: int, t: int) -> None:
        """Products of one input channel and one kernel column: every kernel row, unrolled."""
        p, c, w = self.problem, self.config, self.w
        _, stride_o, stride_c, stride_y, stride_x = p.weight_strides
        classes = ty.classes(p.stride[0]) if c.share else ty.count
        plane = p.grid_pixels if c.direct else self.space.plane
        for k in range(ty.count):
            row = ty.class_shift(k, p.stride[0]) * p.grid[1] if c.share else 0
            at = ((copy * classes + k % classes) * tx.count + t) * plane + row
            weight = copy * stride_c + k * ty.step * stride_y + t * tx.step * stride_x
            for v in range(len(sums[0])):
                w.add(f"x{v} = {load(self.language, f'px + {at + v * lanes}', lanes, self.dtype)};")
            for o, row_sums in enumerate(sums):
                w.add(f"w = {self.language.splat(f'pw[{weight + o * stride_o}]', self.dtype, lanes)};")
                w.add(*(f"{s} = w * x{v} + {s};" for v, s in enumerate(row_sums)))

    def _keep(self, phase: int) -> None:
        """Where a tile's sums are kept in the workspace: [channel of the part][phase][pixel]."""
        self.w.add(
            f"{self.target} const keep = panel + {self.space.panel} + "
            f"((o - first_o) * {self.problem.phases} + {phase}) * {self.space.out_pitch} + at;"
        )

    def _kept(self, sums: list[list[str]], lanes: int) -> list[tuple[str, str]]:
        """A tile's sums, each with its place."""
        pitch = self.problem.phases * self.space.out_pitch
        return [(value, f"keep + {o * pitch + v * lanes}") for o, row in enumerate(sums) for v, value in enumerate(row)]

    def _finish(self, sums: list[list[str]], lanes: int) -> None:
        """Epilogue of a tile, on registers where whole vectors allow it, else by the function for the rest."""
        p, c, w = self.problem, self.config, self.w
        span = len(sums[0]) * lanes
        first = f"row0 * {p.grid[1]} + at"
        if self._inline(lanes):
            whole = self.limits[len(sums[0]), lanes] == {span}
            with w.block("" if whole else f"if (at + {span} <= pixels{' && skip == 0' if c.direct else ''})"):
                for o, row in enumerate(sums):
                    for v, value in enumerate(row):
                        with w.block():
                            w.add(f"const {self.vec} acc = {value};")
                            pixel = f"({first} + {v * c.width})"
                            channel = f"(group * {p.out_channels} + o + {o})"
                            w.add(*self.epilogue("image0", channel, pixel, "acc", c.width))
            if whole:
                return
            w.add("else")
        with w.block():
            w.add(f"{self.language.private(f'{self.dtype} tile[{len(sums) * span}]')};")
            for o, row in enumerate(sums):
                for v, value in enumerate(row):
                    w.add(
                        store(self.language, value, f"tile + {o * span + v * lanes}", lanes, self.dtype, Space.PRIVATE)
                    )
            skip = "skip" if c.direct else "0"
            handed = [names_of(self.params), f"tile + {skip}", str(len(sums)), str(span)]
            handed += [f"min(pixels - at, {span} - {skip})", "image0, group, o, first_o", first, *self.private]
            w.add(f"{self.finish}({', '.join(handed)});")

    def _inline(self, lanes: int) -> bool:
        """Whether whole vectors of a tile go to the epilogue in registers."""
        return self.config.inline and lanes == self.config.width

    def _finish_text(self) -> str:
        """The function that takes a tile's sums from a private array to the epilogue; none where no tile needs it."""
        p, w = self.problem, self.w
        limits = {
            limit
            for (vectors, lanes), found in self.limits.items()
            for limit in found
            if not (self._inline(lanes) and found == {vectors * lanes})
        }
        if not limits:
            return ""
        floats, array = (self.language.pointer(self.dtype, Space.PRIVATE, const) for const in (True, False))
        declared = [self.params, f"{floats} const tile", "const int count", "const int span", "const int limit"]
        declared += [f"const int {name}" for name in ("image0", "group", "o", "first_o", "first")]
        declared += [f"{array} const {name}" for name in self.private]
        with w.block(f"GC_NOINLINE static void {self.finish}({', '.join(declared)})"):
            w.add(*vector_types(self.language, self.dtype))
            with w.block("for (int m = 0; m < count; ++m)"):
                w.add(f"{floats} const from = tile + m * span;")
                self._finish_row("image0", f"(group * {p.out_channels} + o + m)", "first", Space.PRIVATE, limits)
        text, self.w = w.text(), Writer(self.language, self.dtype)
        return text

    def _finish_row(self, n: str, o: str, first: str, space: Space, limits: Iterable[int]) -> None:
        """Epilogue over ``limit`` consecutive pixels held at ``from``: one of these numbers."""
        w = self.w
        w.add("int q = 0;")
        for piece in row_pieces(limits, self.config.width):
            with w.block(f"for (; q + {piece} <= limit; q += {piece})"):
                value = load(self.language, "from + q", piece, self.dtype, space)
                w.add(f"const {self.language.vector(self.dtype, piece)} acc = {value};")
                w.add(*self.epilogue(n, o, f"({first} + q)", "acc", piece))

    def _store_scratch(self) -> None:
        """Epilogue over the sums kept in the workspace, phases interleaved into rows first."""
        p, w = self.problem, self.w
        kept = f"panel + {self.space.panel} + m * {p.phases * self.space.out_pitch} + i * {p.grid_pixels}"
        with w.block("for (int i = 0; i < images; ++i)"), w.block("for (int m = 0; m < last_o - first_o; ++m)"):
            channel = f"(group * {p.out_channels} + first_o + m)"
            if p.phases == 1:
                limits = [rows * p.grid[1] for rows in band_rows(p, self.config)]
                w.add(f"{self.source} const from = {kept};", f"const int limit = rows * {p.grid[1]};")
                self._finish_row("(image0 + i)", channel, f"row0 * {p.grid[1]}", Space.GLOBAL, limits)
                return
            step_y, step_x = p.phase_step
            out_h, out_w = p.out_size
            w.add(f"{self.source} const kept = {kept};")
            w.add(f"const int lines = min({step_y} * rows, {out_h} - {step_y} * row0);")
            with w.block("for (int y = 0; y < lines; ++y)"):
                w.add(
                    f"{self.source} const line = kept + "
                    f"(y % {step_y}) * {step_x * self.space.out_pitch} + (y / {step_y}) * {p.grid[1]};"
                )
                for rx in range(step_x):
                    with w.block(f"for (int x = 0; x < {len(range(rx, out_w, step_x))}; ++x)"):
                        w.add(f"panel[y * {out_w} + x * {step_x} + {rx}] = line[{rx * self.space.out_pitch} + x];")
            w.add(f"{self.source} const from = panel;", f"const int limit = lines * {out_w};")
            starts = range(0, p.grid[0], self.config.rows)
            limits = [min(step_y * self.config.rows, out_h - step_y * row0) * out_w for row0 in starts]
            self._finish_row("(image0 + i)", channel, f"{step_y} * row0 * {out_w}", Space.GLOBAL, limits)
