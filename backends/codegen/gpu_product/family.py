"""Contractions on GPUs: tiles in local memory, a small block of sums in every work item's registers, any elementwise
epilogue.

A contraction is one sum of products over any number of axes. The axes of the result that only one factor depends on are
its rows, those that only the other depends on its columns, those of both its batch. Factors are arbitrary expressions:
what is loaded into a tile is whatever the kernel's body says, guards and divided indices included. So products of
matrices, batched or transposed, and convolutions with both their gradients (as implicit products) are one piece of
code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.codegen.amounts import Amounts, below
from backends.codegen.cnames import register_bytes, register_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.gpu_rows.family import decode
from backends.codegen.language import Space
from backends.codegen.nest.schedule import blocks
from backends.codegen.recognition import recognised
from backends.codegen.sharing import among_groups, at_most
from backends.codegen.template import NAME, signature
from graphcore.base.dtypes import float32, float64
from graphcore.base.shapes import Extent, bind, product
from graphcore.kernel.expr import Expr, dynamic_values, walk
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject, Sharing

__all__ = ["GpuMatmul", "TileConfig", "TiledProduct", "find_contraction"]

_SMALLEST = 8  # rows or columns below which a tile is mostly empty
_SHORTEST = 8  # terms below which the tiles are not used again
_GROUPS_PER_CORE = 16
_BUSY = 2  # tiles a multiprocessor that keep it busy
_SHARES = {
    2: 20,
    4: 35,
    8: 55,
}  # per cent of the peak that the inner loop allows, by the results of a work item and way


@dataclass(frozen=True)
class TiledProduct:
    """A kernel's contraction as its tiles walk it: its factors and the roles of its axes, outermost first."""

    total: Expr
    left: Expr
    right: Expr
    rows: tuple[Axis, ...]
    cols: tuple[Axis, ...]
    terms: tuple[Axis, ...]
    batch: tuple[Axis, ...]


@dataclass(frozen=True)
class TileConfig:
    """A tile of the result, computed by one group of ``across * down`` work items.

    Attributes:
        across, down: work items along the columns and the rows.
        rows, cols: results of one work item.
        depth: terms in local memory at a time.
    """

    across: int
    down: int
    rows: int
    cols: int
    depth: int

    @property
    def tile(self) -> tuple[int, int]:
        return self.rows * self.down, self.cols * self.across

    def describe(self) -> str:
        return f"tile {self.tile[0]}x{self.tile[1]}x{self.depth}, {self.rows}x{self.cols} a work item"


@recognised
def find_contraction(kernel: Kernel) -> TiledProduct | Reject:
    """The sum of products inside a kernel, or why there is none."""
    form = kernel.product()
    if form is None or sum(v.fn == "reduce" for v in kernel.values()) != 1:
        return Reject("it is not one sum of products")
    if form.types.accumulator not in (float32, float64):
        return Reject("the sum's terms are not products of float32 or float64 values")
    if any(
        s.mode != "set" or s.index.axes() != frozenset(kernel.axes) or any(True for _ in dynamic_values(s.index))
        for s in kernel.stores
    ):
        return Reject("it stores other elements than the result's")
    left, right = form.factors
    if not all(set(form.terms) & f.axes for f in (left, right)):
        return Reject("a factor depends on no summed axis")
    rows, cols = form.rows, form.columns
    if not rows or not cols:
        return Reject("it has no rows or no columns")
    if (
        kernel.axes[-1] in rows
    ):  # neighbouring work items take neighbouring columns: let those be neighbours in the result
        left, right, rows, cols = right, left, cols, rows
    return TiledProduct(form.total, left, right, rows, cols, form.terms, form.batch)


def choose_tile(m: int, n: int, k: int, batch: int, itemsize: int, model: DeviceModel) -> TileConfig:
    """Large tiles where there are enough of them for all multiprocessors, else small ones."""
    across = 1
    while across * across < model.group:
        across *= 2
    down = model.group // across
    for each in (8, 4):
        config = TileConfig(across, down, each, each, 16)
        height, width = config.tile
        tiles = batch * -(-m // height) * -(-n // width)
        if tiles >= 2 * model.cores and itemsize * each <= 32 and tile_bytes(config, itemsize) <= model.local_memory:
            return config
    return TileConfig(across, down, 2, 2, 16)


def tile_bytes(config: TileConfig, itemsize: int) -> int:
    """Local memory of both factors' tiles; the odd row length keeps work items off each other's banks."""
    height, width = config.tile
    return config.depth * (height + 1 + width + 1) * itemsize


class GpuMatmul(Family):
    """Sums of products on GPUs."""

    name = "gpu-matmul"

    def serves(self, model: DeviceModel) -> bool:
        return model.is_gpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[TileConfig] | Reject:
        found = find_contraction(kernel)
        if isinstance(found, Reject):
            return found
        m, n, k, batch = (_count(axes, hints) for axes in (found.rows, found.cols, found.terms, found.batch))
        if m < _SMALLEST or n < _SMALLEST or k < _SHORTEST:
            return Reject(f"{m}x{n}x{k} is too small for tiles")
        config = choose_tile(m, n, k, batch, register_bytes(found.total.dtype), model)
        if tile_bytes(config, register_bytes(found.total.dtype)) > model.local_memory:
            return Reject("its tiles do not fit the local memory")
        return [config]

    def local_bytes(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> int:
        return tile_bytes(config, register_bytes(_contraction(kernel).total.dtype))

    def tasks(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> Extent:
        """Work-groups: one a tile, but no more than keep the device busy."""
        return at_most(_tiles(_contraction(kernel), config), _GROUPS_PER_CORE * model.cores)

    def sharing(self, kernel: Kernel, config: TileConfig, model: DeviceModel, sizes: Mapping[str, int]) -> Sharing:
        tiles = int(bind(_tiles(_contraction(kernel), config), sizes))
        return among_groups(kernel, _BUSY * model.cores // max(tiles, 1), model, sizes)

    def work(self, kernel: Kernel, config: TileConfig) -> Work:
        found = _contraction(kernel)
        (height, width), terms, tiles = config.tile, _extent(found.terms), _tiles(found, config)
        amounts = Amounts(kernel, None, 1)
        loads = tiles * blocks(terms, config.depth) * config.depth  # of a row of both tiles
        for factor, side in ((found.left, height), (found.right, width)):
            for value in below(factor):
                amounts.value(value, loads * side)
        results = product(a.extent for a in kernel.axes)
        for value in below(*(s.value for s in kernel.stores), stop=found.total):
            amounts.value(value, results)
        for store in kernel.stores:
            amounts.access(store.param, store.index, results)
        operations = tiles * height * width * terms * 2
        return amounts.work(operations * 100 // _SHARES[config.rows], found.total.dtype.name)

    def emit(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> str:
        body = "\n".join("  " + line for line in _Tiles(kernel, config, model).emit())
        return (
            f"GC_NOINLINE static void {NAME}({signature(model.language, kernel)}, const int task, const int tasks, "
            f"{model.language.pointer('char', Space.LOCAL)} pool) {{\n{body}\n}}\n"
        )


def _contraction(kernel: Kernel) -> TiledProduct:
    found = find_contraction(kernel)
    assert isinstance(found, TiledProduct)
    return found


def _tiles(found: TiledProduct, config: TileConfig) -> Extent:
    """How many tiles the result has."""
    height, width = config.tile
    return _extent(found.batch) * blocks(_extent(found.rows), height) * blocks(_extent(found.cols), width)


def _extent(axes: Sequence[Axis]) -> Extent:
    return product(a.extent for a in axes)


def _count(axes: Sequence[Axis], sizes: Mapping[str, int]) -> int:
    return int(bind(product(a.extent for a in axes), sizes))


class _Tiles:
    """Writes the function's body."""

    def __init__(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> None:
        self.kernel, self.config, self.model = kernel, config, model
        self.found = _contraction(kernel)
        self.kind = register_type(self.found.total.dtype)
        self.em = Emitter(kernel, model)

    def extents(self, axes: Sequence[Axis]) -> str:
        return " * ".join(self.em.extent(a.extent) for a in axes) or "1"

    def emit(self) -> list[str]:
        em, c, f = self.em, self.config, self.found
        height, width = c.tile
        floats = em.language.pointer(self.kind, Space.LOCAL)
        em.line(f"const int item = {em.language.local_id()}, x = item % {c.across}, y = item / {c.across};")
        em.line(f"{floats} const left = ({floats})pool;")
        em.line(f"{floats} const right = left + {c.depth * (height + 1)};")
        em.line(f"const int m = {self.extents(f.rows)}, n = {self.extents(f.cols)}, k = {self.extents(f.terms)};")
        em.line(f"const int down = (m + {height - 1}) / {height}, across = (n + {width - 1}) / {width};")
        em.line(f"const int tiles = down * across * {self.extents(f.batch)};")
        with em.block("for (int tile = task; tile < tiles; tile += tasks)", f.batch):
            em.line(f"const int col_start = tile % across * {width}, row_start = tile / across % down * {height};")
            if f.batch:
                em.line("const int product = tile / across / down;")
                decode(em, f.batch, "product")
            em.line(f"{self.kind} sums[{c.rows}][{c.cols}];")
            em.line(f"{self.each()} sums[i][j] = 0;")
            # A few blocks of terms, unrolled, have all their loads in flight and take the registers of two groups.
            blocks = em.language.rolled(f"for (int term_start = 0; term_start < k; term_start += {c.depth})")
            with em.block(blocks):
                self.fill("left", f.left, f.rows, "row_start", "m", height)
                self.fill("right", f.right, f.cols, "col_start", "n", width)
                em.line(em.language.barrier())
                self.multiply()
                em.line(em.language.barrier())
            self.finish()
        return em.lines

    def each(self) -> str:
        """The loops over a work item's results."""
        c, unrolled = self.config, self.em.language.unrolled
        down, across = (f"for (int {i} = 0; {i} < {n}; ++{i})" for i, n in (("i", c.rows), ("j", c.cols)))
        return f"{unrolled(down)} {unrolled(across)}"

    def fill(self, tile: str, factor: Expr, outer: Sequence[Axis], start: str, end: str, size: int) -> None:
        """A factor's tile: zeros outside of it. Neighbouring work items load along the axis that is contiguous in
        memory."""
        em, c, group = self.em, self.config, self.config.across * self.config.down
        along_terms = self.contiguous(factor, self.found.terms[-1], outer[-1])
        inner, at, term = (
            (c.depth, f"e / {c.depth}", f"e % {c.depth}") if along_terms else (size, f"e % {size}", f"e / {size}")
        )
        assert inner
        with em.block(f"for (int e = item; e < {size * c.depth}; e += {group})", (*outer, *self.found.terms)):
            em.line(f"const int at = {at}, term = {term}, here = {start} + at, term_here = term_start + term;")
            em.line(f"{self.kind} value = 0;")
            with em.block(f"if (here < {end} && term_here < k)", (*outer, *self.found.terms)):
                decode(em, outer, "here")
                decode(em, self.found.terms, "term_here")
                em.line(f"value = {em.value(factor)};")
            em.line(f"{tile}[term * {size + 1} + at] = value;")

    @staticmethod
    def contiguous(factor: Expr, term: Axis, outer: Axis) -> bool:
        """Whether the factor's elements along the terms are closer in memory than those along its own axis."""
        loads = [v.index for v in walk(factor) if v.fn == "load"]

        def near(axis: Axis) -> int:
            return sum(i.stride(axis) == 1 for i in loads)

        return near(term) > near(outer)

    def multiply(self) -> None:
        em, c = self.em, self.config
        height, width = c.tile
        with em.block(f"for (int t = 0; t < {c.depth}; ++t)"):
            em.line(f"{self.kind} a[{c.rows}], b[{c.cols}];")
            down, across = (
                em.language.unrolled(f"for (int {i} = 0; {i} < {n}; ++{i})") for i, n in (("i", c.rows), ("j", c.cols))
            )
            em.line(f"{down} a[i] = left[t * {height + 1} + y + i * {c.down}];")
            em.line(f"{across} b[j] = right[t * {width + 1} + x + j * {c.across}];")
            em.line(f"{self.each()} {em.language.multiply_add('sums[i][j]', 'a[i]', 'b[j]', self.kind, 1)}")

    def finish(self) -> None:
        """The epilogue and the stores of this work item's results."""
        em, c, f = self.em, self.config, self.found
        with em.block(self.each(), (*f.rows, *f.cols)):
            em.line(f"const int row = row_start + y + i * {c.down}, col = col_start + x + j * {c.across};")
            with em.block("if (row < m && col < n)", (*f.rows, *f.cols)):
                decode(em, f.rows, "row")
                decode(em, f.cols, "col")
                em.define(f.total, "sums[i][j]")
                em.store_all(self.kernel.stores)
