"""The text of a tiled product.

A work-group computes tiles of the result, a block of terms at a time: while it multiplies one block out of local
memory, the elements of the next one are on their way into registers, from where they go into a second buffer. So loads
take as long as the products between them, and one barrier a block is enough. A work item's results lie in small squares
of rows and columns that are neighbours: it reads both factors as short vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from backends.codegen.cnames import register_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.gpu_product.shape import TileConfig, TiledProduct
from backends.codegen.gpu_rows.family import decode
from backends.codegen.language import Space
from graphcore.kernel.expr import Expr, walk
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel

__all__ = ["product_text"]

_UNROLLED = 4  # terms: enough to hide the loads from local memory, few enough to compile quickly


def product_text(kernel: Kernel, found: TiledProduct, config: TileConfig, model: DeviceModel) -> list[str]:
    """The lines of the function's body."""
    return _Tiles(kernel, found, config, model).emit()


class _Side:
    """One factor's tiles: what is loaded, and where it goes.

    Attributes:
        name: of its local memory; ``next_`` before it names the registers.
        factor: what the kernel's body says of an element.
        outer: its own axes.
        start, end: C texts of where the tile begins and the axes end.
        size: elements of the tile along its own axes.
        pitch: elements between two terms in local memory.
        loads: elements that a work item loads.
        at, term: C texts of the place in the tile of its element number ``r``.
    """

    def __init__(
        self, name: str, factor: Expr, outer: Sequence[Axis], terms: Sequence[Axis], start: str, end: str, size: int
    ) -> None:
        self.name, self.factor, self.outer = name, factor, outer
        self.start, self.end, self.size = start, end, size
        self.along_terms = _contiguous(factor, terms[-1], outer[-1])
        self.pitch = self.loads = 0
        self.at = self.term = ""

    def place(self, config: TileConfig, vector: int) -> None:
        """Share the tile out among the work items: neighbours load along the axis that is contiguous in memory."""
        group = config.across * config.down
        self.pitch = self.size + vector
        self.loads = -(-self.size * config.depth // group)
        inner = config.depth if self.along_terms else self.size
        if group % inner == 0:  # then the inner place is the same for all of a work item's elements
            inside, outside = f"item % {inner}", f"item / {inner} + r * {group // inner}"
        else:
            inside, outside = (f"(item + r * {group}) {sign} {inner}" for sign in "%/")
        self.at, self.term = (outside, inside) if self.along_terms else (inside, outside)


class _Tiles:
    """Writes the function's body."""

    def __init__(self, kernel: Kernel, found: TiledProduct, config: TileConfig, model: DeviceModel) -> None:
        self.kernel, self.found, self.config = kernel, found, config
        self.kind = register_type(found.total.dtype)
        self.em = Emitter(kernel, model)
        height, width = config.tile
        self.left = _Side("left", found.left, found.rows, found.terms, "row_start", "m", height)
        self.right = _Side("right", found.right, found.cols, found.terms, "col_start", "n", width)
        self.left.place(config, config.down_vector)
        self.right.place(config, config.across_vector)

    def extents(self, axes: Sequence[Axis]) -> str:
        return " * ".join(self.em.extent(a.extent) for a in axes) or "1"

    def emit(self) -> list[str]:
        em, c, f = self.em, self.config, self.found
        height, width = c.tile
        floats = em.language.pointer(self.kind, Space.LOCAL)
        em.line(f"const int item = {em.language.local_id()}, x = item % {c.across}, y = item / {c.across};")
        em.line(f"{floats} const left = ({floats})pool;")
        em.line(f"{floats} const right = left + {c.buffers * c.depth * self.left.pitch};")
        em.line(f"const int m = {self.extents(f.rows)}, n = {self.extents(f.cols)}, k = {self.extents(f.terms)};")
        em.line(f"const int down = (m + {height - 1}) / {height}, across = (n + {width - 1}) / {width};")
        em.line(f"const int tiles = down * across * {self.extents(f.batch)};")
        em.line(f"int filled = {c.buffers - 1};")
        with em.block("for (int tile = task; tile < tiles; tile += tasks)", f.batch):
            em.line(f"const int col_start = tile % across * {width}, row_start = tile / across % down * {height};")
            if f.batch:
                em.line("const int product = tile / across / down;")
                decode(em, f.batch, "product")
            em.line(f"{self.kind} sums[{c.rows}][{c.cols}];")
            em.line(f"{self.each()} sums[i][j] = 0;")
            # The first turn only loads. Not unrolled: two turns would take the registers of two groups.
            turns = f"for (int term_start = -{c.depth}; term_start < k; term_start += {c.depth})"
            with em.block(em.language.rolled(turns)):
                self.turn()
            self.finish()
        return em.lines

    def turn(self) -> None:
        """Load a block of terms, multiply the one before it, put the loaded one where it can be read."""
        em, c = self.em, self.config
        em.line(f"const int more = term_start + {c.depth} < k;")
        for side in (self.left, self.right):
            em.line(f"{self.kind} next_{side.name}[{side.loads}];")
        with em.block("if (more)"):
            self.load(self.left)
            self.load(self.right)
        with em.block("if (term_start >= 0)"):
            self.multiply()
        if c.buffers > 1:
            em.line("filled ^= 1;")
        else:
            em.line(em.language.barrier())
        with em.block("if (more)"):
            self.put(self.left)
            self.put(self.right)
        em.line(em.language.barrier())

    def each(self) -> str:
        """The loops over a work item's results."""
        c, unrolled = self.config, self.em.language.unrolled
        down, across = (f"for (int {i} = 0; {i} < {n}; ++{i})" for i, n in (("i", c.rows), ("j", c.cols)))
        return f"{unrolled(down)} {unrolled(across)}"

    def load(self, side: _Side) -> None:
        """A work item's elements of the next block: zeros outside of the factor."""
        em, terms = self.em, self.found.terms
        axes = (*side.outer, *terms)
        with em.block(em.language.unrolled(f"for (int r = 0; r < {side.loads}; ++r)"), axes):
            em.line(f"const int here = {side.start} + {side.at};")
            em.line(f"const int term_here = term_start + {self.config.depth} + {side.term};")
            em.line(f"{self.kind} value = 0;")
            with em.block(f"if (here < {side.end} && term_here < k)", axes):
                decode(em, side.outer, "here")
                decode(em, terms, "term_here")
                em.line(f"value = {em.value(side.factor)};")
            em.line(f"next_{side.name}[r] = value;")

    def put(self, side: _Side) -> None:
        """The loaded elements into local memory."""
        place = f"{self.buffer(side)}({side.term}) * {side.pitch} + {side.at}"
        loop = self.em.language.unrolled(f"for (int r = 0; r < {side.loads}; ++r)")
        guard = "" if self.exact(side) else f"if ({side.term} < {self.config.depth} && {side.at} < {side.size}) "
        self.em.line(f"{loop} {guard}{side.name}[{place}] = next_{side.name}[r];")

    def exact(self, side: _Side) -> bool:
        """Whether the work items' elements are just those of the tile."""
        return side.loads * self.config.across * self.config.down == side.size * self.config.depth

    def buffer(self, side: _Side) -> str:
        """Where the filled buffer begins, as the first summand of a place."""
        return f"filled * {self.config.depth * side.pitch} + " if self.config.buffers > 1 else ""

    def multiply(self) -> None:
        em, c = self.em, self.config
        with em.block(em.language.unrolled(f"for (int t = 0; t < {c.depth}; ++t)", _UNROLLED)):
            self.read("a", self.left, "y", c.rows, c.down, c.down_vector)
            self.read("b", self.right, "x", c.cols, c.across, c.across_vector)
            em.line(f"{self.each()} {em.language.multiply_add('sums[i][j]', 'a[i]', 'b[j]', self.kind, 1)}")

    def read(self, name: str, side: _Side, own: str, count: int, items: int, vector: int) -> None:
        """A work item's elements of one term, in vectors."""
        em = self.em
        kind, parts = em.language.vector(self.kind, vector), []
        for i in range(count // vector):
            place = f"{side.name} + {self.buffer(side)}t * {side.pitch} + {i * items * vector} + {own} * {vector}"
            em.line(f"const {kind} {name}{i} = {em.language.deref(kind, place, Space.LOCAL, const=True)};")
            parts += [em.language.lane(f"{name}{i}", j) if vector > 1 else f"{name}{i}" for j in range(vector)]
        em.line(f"const {self.kind} {name}[{count}] = {{{', '.join(parts)}}};")

    def finish(self) -> None:
        """The epilogue and the stores of this work item's results."""
        em, c, f = self.em, self.config, self.found
        with em.block(self.each(), (*f.rows, *f.cols)):
            row = _result("i", "y", c.down, c.down_vector)
            col = _result("j", "x", c.across, c.across_vector)
            em.line(f"const int row = row_start + {row}, col = col_start + {col};")
            with em.block("if (row < m && col < n)", (*f.rows, *f.cols)):
                decode(em, f.rows, "row")
                decode(em, f.cols, "col")
                em.define(f.total, "sums[i][j]")
                em.store_all(self.kernel.stores)


def _result(number: str, own: str, items: int, vector: int) -> str:
    """The place in the tile of a work item's result of this number, along one side."""
    if vector == 1:
        return f"{own} + {number} * {items}"
    return f"{number} / {vector} * {items * vector} + {own} * {vector} + {number} % {vector}"


def _contiguous(factor: Expr, term: Axis, outer: Axis) -> bool:
    """Whether the factor's elements along the terms are closer in memory than those along its own axis."""
    loads = [v.index for v in walk(factor) if v.fn == "load"]

    def near(axis: Axis) -> int:
        return sum(i.stride(axis) == 1 for i in loads)

    return near(term) > near(outer)
