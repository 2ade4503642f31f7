"""The text of loop nests: any kernel of the IR as explicit loops over vectors.

The domain's axes split into *row* axes, which tasks share out, and *column* axes, which the kernel's reductions bind.
For one point of the row axes the columns are walked once a *phase*: a reduction belongs to the phase after the
reductions that its body needs, and a store over columns to the phase after those that its value needs. So softmax has
three phases (maximum, sum, results), an elementwise kernel none. One axis becomes the lanes of vectors: a column axis
(lanes are folded at a phase's end) or a row axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from backends.codegen.accumulator import Accumulator
from backends.codegen.cnames import register_type
from backends.codegen.emitter import Emitter, Scope
from backends.codegen.nest.schedule import (
    TILE,
    NestConfig,
    blocks,
    is_expensive,
    nest_units,
    tail_widths,
)
from graphcore.base.dtypes import float64
from graphcore.base.shapes import product
from graphcore.kernel.expr import Expr, children, walk
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Store
from graphcore.kernel.rows import columns_of, rows_of

__all__ = ["NestCode", "store_free"]

_CACHE_BYTES = 16384  # of private memory for values that several phases need
_BLOCK = 512  # elements, or vectors, that one accumulator of a long sum adds up


class NestCode:
    """Writes the function of one kernel."""

    def __init__(self, emitter: Emitter, config: NestConfig) -> None:
        self.em, self.kernel, self.config = emitter, emitter.kernel, config
        self.columns = columns_of(self.kernel)
        self.rows = rows_of(self.kernel)
        self.depth: dict[Expr, int] = {}
        self.kept: dict[Expr, tuple[str, int]] = {}
        self.tile = ""
        self.stores: Sequence[Store] = self.kernel.stores
        self.order = list(walk(*(s.value for s in self.kernel.stores)))
        for value in self.order:
            below = max((self.depth[c] for c in _operands(value)), default=0)
            self.depth[value] = below + (1 if self.is_row_reduce(value) else 0)

    def is_row_reduce(self, value: Expr) -> bool:
        return value.fn == "reduce" and bool(self.columns) and value.reduce_axes[0] in self.columns

    def emit(self) -> list[str]:
        em, config = self.em, self.config
        units = nest_units(self.kernel, config)
        self.free_scalars()
        self.pin()
        if units == 1 and not config.leading:
            em.line("if (task != 0) return;")
            self.unit("0")
            return em.lines
        total = self._units_code()
        em.line(f"const {em.counter} units = {total};")
        if config.strided:
            header = f"for ({em.counter} u = task; u < units; u += tasks)"
        else:
            em.line(
                f"const {em.counter} begin = ({em.counter})((long)units * task / tasks), "
                f"end = ({em.counter})((long)units * (task + 1) / tasks);"
            )
            header = f"for ({em.counter} u = begin; u < end; ++u)"
        with em.block(header, self.rows):
            self.unit("u")
        return em.lines

    def free_scalars(self) -> None:
        """Scalars that have nothing to do with the rows: stored by the first task, also when there are no rows."""
        free = [s for s in self.kernel.stores if self.rows and not s.index.axes() and not s.value.axes]
        self.stores = [s for s in self.kernel.stores if s not in free]
        store_free(self.em, free, self.stores, "if (task == 0)")

    def pin(self) -> None:
        """A phase's reductions, and what is made of them, stay inside the rows' loops even where they depend on no
        row."""
        for value in self.order:
            if self.is_row_reduce(value) or any(c in self.em.pinned for c in _operands(value)):
                self.em.keep_inside(value, self.rows)

    def bound(self, axis: Axis) -> str:
        """An axis's extent as C."""
        return "m0" if self.config.leading and axis == self.kernel.axes[0] else self.em.extent(axis.extent)

    def known(self, axis: Axis) -> int | None:
        """An axis's extent if the text may rely on it."""
        return (
            None
            if (self.config.leading and axis == self.kernel.axes[0]) or not isinstance(axis.extent, int)
            else axis.extent
        )

    def _units_code(self) -> str:
        parts = []
        for axis in self.rows:
            text = self.bound(axis)
            whole = f"(({text} + {TILE - 1}) / {TILE} * {TILE})" if axis == self.config.tiled else text
            parts.append(
                f"(({text} + {self.config.width - 1}) / {self.config.width})" if axis == self.config.lane else whole
            )
        return " * ".join(parts) or "1"

    def unit(self, variable: str) -> None:
        """Code for one unit: decode the row axes, then the phases; a lane axis among the rows is guarded at its end."""
        em, config = self.em, self.config
        digits = self.digits()
        rest, block, inner = variable, None, ""
        for position in range(len(digits) - 1, -1, -1):
            axis, count, step = digits[position]
            code = rest if position == 0 else f"({rest} % {count})"
            name = em.fresh(axis.name + "_")
            em.line(
                f"const {em.counter} {name} = "
                f"{code if step == 1 else f'{code} * {step}'}{inner if step == TILE and axis == config.tiled else ''};"
            )
            em.name_axis(axis, name)
            if axis == config.lane:
                block = name
            if axis == config.tiled and step == 1:
                inner = f" + {name}"
            elif axis == config.tiled:
                em.line(f"if ({name} >= {self.bound(axis)}) continue;")
            rest = f"({rest} / {count})"
        if block is None:
            self.phases()
            return
        assert config.lane is not None
        self.lane_block(config.lane, block)

    def digits(self) -> list[tuple[Axis, str, int]]:
        """The row axes as digits of a unit's number, the slowest first: how many values each has, and what one of them
        stands for."""
        config, found = self.config, []
        for axis in self.rows:
            bound, step = self.bound(axis), config.width if axis == config.lane else 1
            if axis != config.tiled:
                known = axis.extent if isinstance(axis.extent, int) and bound != "m0" else None
                found.append(
                    (
                        axis,
                        bound
                        if step == 1
                        else f"(({bound} + {step - 1}) / {step})"
                        if known is None
                        else str(blocks(known, step)),
                        step,
                    )
                )
        if config.tiled in self.rows:  # its blocks around the lanes, its elements inside of them
            at = next((i for i, digit in enumerate(found) if digit[0] == config.lane), len(found))
            found.insert(at, (config.tiled, f"(({self.bound(config.tiled)} + {TILE - 1}) / {TILE})", TILE))
            found.append((config.tiled, str(TILE), 1))
        return found

    def lane_block(self, axis: Axis, base: str) -> None:
        """A full vector where it fits; else what is left, in halving widths for a known extent, lane by lane
        otherwise."""
        em, width, extent = self.em, self.config.width, self.known(axis)
        if extent is not None and extent % width == 0:
            self.row_lanes(axis, base, width)
            return
        with em.block(f"if ({base} + {width} <= {self.bound(axis)})", self.rows):
            self.row_lanes(axis, base, width)
        if extent is not None:
            with em.block("else", self.rows):
                start = extent // width * width
                for piece in tail_widths(extent % width):
                    with em.block("", (axis,)):
                        self.row_lanes(axis, em.number(start), piece)
                    start += piece
            return
        lane = em.fresh(axis.name + "_")
        with (
            em.block("else"),
            em.block(f"for ({em.counter} {lane} = {base}; {lane} < {self.bound(axis)}; ++{lane})", self.rows),
        ):
            self.row_lanes(axis, lane, 1)

    def row_lanes(self, axis: Axis, base: str, width: int) -> None:
        with self.em.lanes(axis, base, width):
            self.phases()

    # Phases

    def phases(self) -> None:
        """All stores of one unit, a loop over the columns for every level of reductions."""
        em = self.em
        over_columns = [s for s in self.stores if s.index.axes() & set(self.columns)]
        once = [s for s in self.stores if s not in over_columns]
        reduces = [v for v in walk(*(s.value for s in self.stores)) if self.is_row_reduce(v)]
        last = max([*(self.depth[r] for r in reduces), *(self.depth[s.value] + 1 for s in over_columns)], default=0)
        self.cache_shared(reduces, over_columns)
        for level in range(1, last + 1):
            mine = [r for r in reduces if self.depth[r] == level]
            stores = [s for s in over_columns if self.depth[s.value] + 1 == level]
            if mine or stores:
                self.phase(mine, stores)
        for store in once:
            em.value(store.value)
        for store in once:
            if set(self.rows) - store.index.axes() and not store.index.axes():
                first = " && ".join(f"{em.axis_code[a]} == 0" for a in self.rows) or "1"
                with em.block(f"if ({first})"):
                    self.scalar_store(store)
            else:
                em.store(store)

    def scalar_store(self, store: Store) -> None:
        self.em.store(store)

    def cache_shared(self, reduces: Sequence[Expr], stores: Sequence[Store]) -> None:
        """Keep expensive values that several phases need in a private array, where a row is short enough."""
        em = self.em
        count = product(a.extent for a in self.columns)
        self.kept = {}
        if not isinstance(count, int) or self.config.strided or self.config.lane not in (None, *self.columns[-1:]):
            return  # a GPU's private arrays live in its slow memory
        phases: dict[Expr, set[int]] = {}
        for root, level in [(r.args[0], self.depth[r]) for r in reduces] + [
            (s.value, self.depth[s.value] + 1) for s in stores
        ]:
            for value in _reached(root, self.is_row_reduce):
                if is_expensive(value) and value.axes & set(self.columns) and value.dtype.is_float:
                    phases.setdefault(value, set()).add(level)
        budget = _CACHE_BYTES
        for value, levels in phases.items():
            size = count * (8 if value.dtype == float64 else 4)
            if len(levels) > 1 and size <= budget and value.axes >= set(self.columns):
                budget -= size
                name = em.fresh("c")
                em.line(f"{register_type(value.dtype)} {name}[{count}];")
                self.kept[value] = (name, min(levels))

    def phase(self, reduces: Sequence[Expr], stores: Sequence[Store]) -> None:
        em, lane, width = self.em, self.config.lane, self.config.width
        outer = em.scope
        in_columns = lane in self.columns
        lane_width = width if in_columns else em.width
        accumulators = [Accumulator(em, r, lane_width if (in_columns or em.is_vector(r.axes)) else 1) for r in reduces]
        for accumulator in accumulators:
            accumulator.declare(outer)
        level = self.depth[reduces[0]] if reduces else self.depth[stores[0].value] + 1
        tails: list[list[Accumulator]] = []
        tiled = self.config.tiled if self.config.tiled in self.columns else None
        loops = [a for a in self.columns if a not in (lane, tiled)] + (
            [lane] if in_columns and lane is not None else []
        )
        if tiled is None:
            self.column_loops(loops, accumulators, reduces, stores, level, tails, outer)
        else:
            self.tile = em.fresh("t")
            with em.block(
                f"for ({em.counter} {self.tile} = 0; {self.tile} < {em.extent(tiled.extent)}; {self.tile} += {TILE})",
                (Axis(self.tile, 1),),
            ):
                self.column_loops(loops, accumulators, reduces, stores, level, tails, outer)
        for position, (accumulator, reduce) in enumerate(zip(accumulators, reduces, strict=True)):
            name = accumulator.finish(outer, lanes_reduced=in_columns)
            for extra in tails:
                name = accumulator.joined(extra[position])
            outer.define(reduce, name)

    def column_loops(
        self,
        axes: Sequence[Axis],
        accumulators: Sequence[Accumulator],
        reduces: Sequence[Expr],
        stores: Sequence[Store],
        level: int,
        tails: list[list[Accumulator]],
        outer: Scope,
    ) -> None:
        em, lane = self.em, self.config.lane
        if not axes:
            self.column_point(accumulators, reduces, stores, level)
            return
        axis, rest = axes[0], axes[1:]
        if axis != lane or axis not in self.columns:
            if rest or not self.is_long(axis, 1, accumulators):
                with em.loop(axis):
                    self.column_loops(rest, accumulators, reduces, stores, level, tails, outer)
            else:
                self.blocked_loop(axis, em.extent(axis.extent), 1, accumulators, reduces, stores, level)
            return
        width, extent = self.config.width, axis.extent
        full = (
            em.number(extent // width * width)
            if isinstance(extent, int)
            else f"{em.extent(extent)} / {width} * {width}"
        )
        if self.is_long(axis, width, accumulators):
            self.blocked_loop(axis, full, width, accumulators, reduces, stores, level)
        elif not isinstance(extent, int) or extent >= width:
            name = em.fresh(axis.name + "_")
            with (
                em.block(f"for ({em.counter} {name} = 0; {name} < {full}; {name} += {width})", (axis,)),
                em.lanes(axis, name, width),
            ):
                self.column_point(accumulators, reduces, stores, level)
        self.column_tail(axis, accumulators, reduces, stores, level, tails, full, outer)

    def is_long(self, axis: Axis, width: int, accumulators: Sequence[Accumulator]) -> bool:
        """Whether floating sums along an axis add up so many elements that their rounding errors would show."""
        extent = axis.extent
        return any(map(_is_float_sum, accumulators)) and (not isinstance(extent, int) or extent > 4 * _BLOCK * width)

    def blocked_loop(
        self,
        axis: Axis,
        full: str,
        width: int,
        accumulators: Sequence[Accumulator],
        reduces: Sequence[Expr],
        stores: Sequence[Store],
        level: int,
    ) -> None:
        """A loop in blocks, whose sums are added up apart: the error grows with a block's length and the blocks'
        number, not their product."""
        em = self.em
        start, name, end = em.fresh("b"), em.fresh(axis.name + "_"), em.fresh("e")
        step = _BLOCK * width
        with em.block(f"for ({em.counter} {start} = 0; {start} < {full}; {start} += {step})", (Axis(start, 1),)):
            em.line(f"const {em.counter} {end} = min({start} + {em.number(step)}, {full});")
            inner = [Accumulator(em, a.e, a.width) if _is_float_sum(a) else a for a in accumulators]
            for a, b in zip(accumulators, inner, strict=True):
                if a is not b:
                    b.declare(em.scope)
            em.name_axis(axis, name)
            with em.block(f"for ({em.counter} {name} = {start}; {name} < {end}; {name} += {width})", (axis,)):
                if width > 1:
                    with em.lanes(axis, name, width):
                        self.column_point(inner, reduces, stores, level)
                else:
                    self.column_point(inner, reduces, stores, level)
            for a, b in zip(accumulators, inner, strict=True):
                if a is not b:
                    em.line(f"{a.name} += {b.name};")

    def column_tail(
        self,
        axis: Axis,
        accumulators: Sequence[Accumulator],
        reduces: Sequence[Expr],
        stores: Sequence[Store],
        level: int,
        tails: list[list[Accumulator]],
        full: str,
        outer: Scope,
    ) -> None:
        """What is left of a row, with accumulators of its own that are joined with the main ones after the loops.

        A known extent leaves vectors of halving widths, an unknown one single elements.
        """
        em, width, extent = self.em, self.config.width, axis.extent
        if isinstance(extent, int) and extent % width == 0:
            return
        if isinstance(extent, int):
            start = extent // width * width
            for piece in tail_widths(extent % width):
                extra = [Accumulator(em, r, piece) for r in reduces]
                for accumulator in extra:
                    accumulator.declare(outer)
                if extra:
                    tails.append(extra)
                with em.block("", (axis,)), em.lanes(axis, em.number(start), piece):
                    self.column_point(extra, reduces, stores, level)
                start += piece
            return
        extra = [Accumulator(em, r, 1) for r in reduces]
        for accumulator in extra:
            accumulator.declare(outer)
        if extra:
            tails.append(extra)
        name = em.fresh(axis.name + "_")
        with (
            em.block(f"for ({em.counter} {name} = {full}; {name} < {em.extent(extent)}; ++{name})", (axis,)),
            em.lanes(axis, name, 1),
        ):
            self.column_point(extra, reduces, stores, level)

    def column_point(
        self, accumulators: Sequence[Accumulator], reduces: Sequence[Expr], stores: Sequence[Store], level: int
    ) -> None:
        """One element (or vector) of the columns; the elements of a tile that are next to each other elsewhere."""
        em, tiled = self.em, self.config.tiled
        if tiled not in self.columns:
            self.point(accumulators, reduces, stores, level)
            return
        assert tiled is not None
        name = em.fresh(tiled.name + "_")
        em.name_axis(tiled, name)
        end = f"min({self.tile} + {em.number(TILE)}, {em.extent(tiled.extent)})"
        with em.block(f"for ({em.counter} {name} = {self.tile}; {name} < {end}; ++{name})", (tiled,)):
            self.point(accumulators, reduces, stores, level)

    def point(
        self, accumulators: Sequence[Accumulator], reduces: Sequence[Expr], stores: Sequence[Store], level: int
    ) -> None:
        em = self.em
        kept = self.kept
        with em.reading({e: self._reader(e, name) for e, (name, first) in kept.items() if first < level}):
            for accumulator, reduce in zip(accumulators, reduces, strict=True):
                accumulator.add(reduce.args[0], em.position(reduce.reduce_axes))
            em.store_all(stores)
        for e, (name, first) in kept.items():
            if first == level and e in em.scope.names:
                where, width = em.position(self.columns), em.width_of(e)
                kind, value = register_type(e.dtype), em.scope.names[e]
                vector = em.language.put(value, f"{name} + {where}", kind, width)
                em.line(vector if width > 1 else f"{name}[{where}] = {value};")

    def _reader(self, e: Expr, name: str) -> Callable[[int], str]:
        def read(width: int) -> str:
            where, kind = self.em.position(self.columns), register_type(e.dtype)
            return self.em.language.take(f"{name} + {where}", kind, width) if width > 1 else f"{name}[{where}]"

        return read


def store_free(em: Emitter, free: Sequence[Store], others: Sequence[Store], header: str) -> None:
    """Store scalars in a block that only one work item enters, and read there what only they need: it may be what they
    overwrite."""
    if not free:
        return
    inside = Axis("free", 1)
    shared = set(walk(*(s.value for s in others)))
    for value in walk(*(s.value for s in free)):
        if value not in shared:
            em.keep_inside(value, (inside,))
    with em.block(header, (inside,)):
        for store in free:
            em.store(store)


def _is_float_sum(accumulator: Accumulator) -> bool:
    return accumulator.combine == "add" and accumulator.dtype.is_float


def _operands(value: Expr) -> Iterable[Expr]:
    return children(value)


def _reached(root: Expr, stop) -> Iterable[Expr]:  # type: ignore[no-untyped-def]
    """Values below ``root`` that are computed at the same level: reductions of earlier phases are not entered."""
    seen: set[Expr] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if value in seen or stop(value):
            continue
        seen.add(value)
        stack.extend(_operands(value))
    return seen
