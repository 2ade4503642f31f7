"""The product template: kernels with one sum of products of two matrices, batched or not.

An elementwise epilogue is computed on the tile's sums in registers. Stores of mode "add" come last: each task adds up
its own columns. A factor that is more than a matrix in memory (a cast, a scale, a gather, a view that is not linear) is
a prologue: it is computed while its panels are packed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.codegen.cnames import register_type
from backends.codegen.cpu_product.code import GemmConfig, Operand, emit_gemm, tasks
from backends.codegen.cpu_product.product import Product, find_product, is_plain
from backends.codegen.cpu_product.schedule import menu
from backends.codegen.cpu_product.work import product_work
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.language import Space
from backends.codegen.template import NAME, signature, sizes_of
from graphcore.base.dtypes import float64
from graphcore.base.shapes import Extent, bind
from graphcore.base.shapes import product as product_of
from graphcore.kernel.expr import Expr, walk
from graphcore.kernel.index import Axis, Index
from graphcore.kernel.ir import Kernel, Store
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["Matmul"]

_SMALL = 32  # products of which so many are worth a task are as well a loop nest
_MOST_COLUMNS = 4096  # sums that a task may hold in its private memory


@dataclass(frozen=True)
class MatmulConfig:
    """The generator's schedule and the sizes it was chosen for."""

    gemm: GemmConfig

    def describe(self) -> str:
        g = self.gemm
        packed = "".join(name for name, on in (("A", g.pack_a), ("B", g.pack_b)) if on)
        return f"tile {g.mr}x{g.nr}" + (f", packs {packed}" if packed else "") + (", dot" if g.dot else "")


@dataclass
class Prologue:
    """A factor that is computed while it is loaded, by C functions of its row and term (or term and column): one a
    vector width.

    Args:
        letter: tells the functions of the two factors apart.
        factor: its expression.
        own: its row or column; None for a vector.
        term: the summed axis.
        batch: C names of the batch axes.
    """

    letter: str
    factor: Expr
    own: Axis | None
    term: Axis
    batch: Mapping[Axis, str]
    widths: set[int] = field(default_factory=set)

    @property
    def along_term(self) -> bool:
        """The direction of its vectors: the one in which more of its loads are contiguous."""
        loads = [v.index for v in walk(self.factor) if v.fn == "load"]
        near_term = sum(i.stride(self.term) == 1 for i in loads)
        return near_term >= sum(self.own is not None and i.stride(self.own) == 1 for i in loads)

    def call(self, names: Sequence[str], own: str, term: str, width: int) -> str:
        self.widths.add(width)
        return f"{NAME}_{self.letter}{width}({', '.join([*names, *self.batch.values(), own, term])})"

    def functions(self, kernel: Kernel, model: DeviceModel) -> str:
        """The functions that were called."""
        return "".join(self._function(kernel, model, width) for width in sorted(self.widths))

    def _function(self, kernel: Kernel, model: DeviceModel, width: int) -> str:
        codes = {**self.batch, self.term: "gt", **({} if self.own is None else {self.own: "go"})}
        emitter = Emitter(kernel, model, within=(*kernel.axes, self.term), axes=codes, aligned=False)
        lane = self.term if self.along_term or self.own is None else self.own
        with emitter.lanes(lane, codes[lane], width):
            result = emitter.vector(self.factor, width)
        lines = "".join(f"  {line}\n" for line in [*emitter.lines, f"return {result};"])
        language = model.language
        parameters = signature(language, kernel, [f"const int {name}" for name in (*self.batch.values(), "go", "gt")])
        return (
            f"static inline {language.always_inline} {language.vector_type(self.factor.dtype, width)} "
            f"{NAME}_{self.letter}{width}({parameters}) {{\n{lines}}}\n"
        )


class Matmul(Family):
    """Products on CPUs: register tiles, packed panels, vector epilogue."""

    name = "matmul"
    choices = MatmulConfig
    build_weight = 1.3

    def serves(self, model: DeviceModel) -> bool:
        return model.is_cpu

    def candidates(
        self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[MatmulConfig] | Reject:
        product = find_product(kernel)
        if isinstance(product, Reject):
            return product
        m, n, k = (_size(x, hints) for x in (product.row, product.col, product.term))
        costs, rate = model.costs, product.total.dtype.name
        if costs.product_seconds(2 * m * n * k, rate) * _SMALL < costs.least_task_seconds or n < 2:
            return Reject(f"{m}x{n}x{k} is too small to be worth tiles")
        width = model.width // (2 if product.total.dtype == float64 else 1)
        if width < 2:
            return Reject("the device has no vectors of this type")
        a, b, _ = self.operands(kernel, product, model, dict.fromkeys(product.batch, "0"))
        found = menu(
            m,
            n,
            k,
            a,
            b,
            width,
            model.cores,
            f"{model.vendor} {model.device}",
            register_type(product.total.dtype),
            literal_n=_literal(product.col),
            task=round(costs.product_operations(costs.least_task_seconds, rate) / 2),
        )
        return [MatmulConfig(config) for config in found]

    def order_of_sums(self, kernel: Kernel, config: MatmulConfig) -> Hashable:
        """Tiles add terms up in their order; dot schedules by lanes, split sums in parts, and sums of results that the
        epilogue gathers by blocks of rows."""
        gemm = config.gemm
        if gemm.dot or gemm.split_k > 1 or any(s.mode == "add" for s in kernel.stores):
            return gemm
        return "terms in order"

    def bodies(self, kernel: Kernel, config: MatmulConfig) -> float:
        """The products that are written out for a tile."""
        return config.gemm.mr * config.gemm.nr * config.gemm.k_unroll

    def blocks(self, kernel: Kernel, config: MatmulConfig) -> Mapping[Axis, int | None] | None:
        """The rows of a task's tiles."""
        product, gemm = find_product(kernel), config.gemm
        if (
            isinstance(product, Reject)
            or product.row is None
            or product.col is None
            or not isinstance(product.col.extent, int)
        ):
            return None
        if not gemm.n_block and product.col.extent > _MOST_COLUMNS:
            return None
        return {product.row: gemm.mr * gemm.m_block or None}

    def operands(
        self, kernel: Kernel, product: Product, model: DeviceModel, batch: Mapping[Axis, str]
    ) -> tuple[Operand, Operand, list[Prologue]]:
        """Both factors for the generator, as (rows, terms) and (terms, columns), and the prologues behind them."""
        names = [*(f"p{i}" for i in range(len(kernel.params))), *sizes_of(kernel).values()]
        found: list[Prologue] = []

        def operand(letter: str, factor: Expr, own: Axis | None) -> Operand:
            if is_plain(factor, own, product.term):
                step, term_step = factor.index.stride(own) if own else 0, factor.index.stride(product.term)
                assert step is not None and term_step is not None, "a plain factor is read in even steps"
                return Operand(self._pointer(kernel, factor, product, batch, model), step, term_step)
            prologue = Prologue(letter, factor, own, product.term, batch)
            found.append(prologue)
            steps = (2, 1) if prologue.along_term else (1, 2)
            return Operand("", *steps, load=lambda i, t, width: prologue.call(names, i, t, width))

        def turned(x: Operand) -> Operand:
            load = x.load
            return Operand(x.pointer, x.col, x.row, load and (lambda t, j, width: load(j, t, width)))

        a, b = operand("a", product.left, product.row), turned(operand("b", product.right, product.col))
        return a, b, found

    def emit(self, kernel: Kernel, config: MatmulConfig, model: DeviceModel) -> str:
        product = find_product(kernel)
        assert isinstance(product, Product)
        sizes, language = sizes_of(kernel), model.language
        batch = {axis: f"gb{i}" for i, axis in enumerate(product.batch)}
        pointers = [f"p{i}" for i in range(len(kernel.params))]
        a, b, prologues = self.operands(kernel, product, model, batch)
        sums = [s for s in kernel.stores if s.mode == "add"]
        before, after = self._sums(kernel, product, config.gemm, sums, batch, model)
        dims = tuple("1" if axis is None else _extent(axis, sizes) for axis in (product.row, product.col, product.term))

        def epilogue(row: str, col: str, acc: str, width: int) -> list[str]:
            assert product.col is not None
            emitter = Emitter(
                kernel,
                model,
                within=(*kernel.axes, product.term),
                axes={**batch, **({} if product.row is None else {product.row: f"({row})"})},
                values={product.total: acc},
                aligned=False,
            )
            with emitter.lanes(product.col, f"({col})", width):
                emitter.store_all(kernel.stores[: len(kernel.stores) - len(sums)])
                for i, store in enumerate(sums):
                    place = f"gs{i} + ({col} - gm_jb)"
                    target = language.deref(f"gm_v{width}", place, Space.PRIVATE) if width > 1 else f"*({place})"
                    emitter.line(f"{target} += {emitter.vector(store.value, width)};")
            return emitter.lines

        inner = f"{NAME}_block"
        parameters = signature(language, kernel, [f"const int {name}" for name in batch.values()])
        text = emit_gemm(language, inner, parameters, config.gemm, dims, a, b, epilogue, before, after)  # type: ignore[arg-type]
        names = [*pointers, *sizes.values()]
        decode = self._decode(product, batch, sizes)
        call = ", ".join([*names, *batch.values()])
        text = "".join(p.functions(kernel, model) for p in prologues) + text
        return (
            f"{text}GC_NOINLINE static void {NAME}({signature(language, kernel)}, const int task, const int tasks) {{\n"
            f"{decode}  {inner}({call}, gt);\n}}\n"
        )

    def _sums(
        self,
        kernel: Kernel,
        product: Product,
        gemm: GemmConfig,
        sums: Sequence[Store],
        batch: Mapping[Axis, str],
        model: DeviceModel,
    ) -> tuple[list[str], list[str]]:
        """A task's own sums of its columns: made before its work, and stored after it, each task to its own place."""
        before, after = [], []
        for i, store in enumerate(sums):
            assert product.col is not None
            kind, name = register_type(store.value.dtype), f"gs{i}"
            size = gemm.nr * gemm.n_block if gemm.n_block else product.col.extent
            row = {} if product.row is None else {product.row: "gm_ib"}
            emitter = Emitter(kernel, model, axes={**batch, product.col: "gc", **row})
            before += [
                model.language.private(f"{kind} {name}[{size}];"),
                f"for (int gc = 0; gc < {size}; ++gc) {name}[gc] = 0;",
            ]
            after.append(
                f"for (int gc = gm_jb; gc < gm_je; ++gc) p{store.param}[{emitter.index(store.index)}] = {name}[gc - "
                f"gm_jb];"
            )
        return before, after

    def _pointer(
        self, kernel: Kernel, operand: Expr, product: Product, batch: Mapping[Axis, str], model: DeviceModel
    ) -> str:
        """The operand's start as C: its parameter, plus what the batch axes and constants add."""
        param, index = operand.param, operand.index
        emitter = Emitter(kernel, model, axes=batch)
        rest = index.without([a for a in (product.row, product.col, product.term) if a is not None])
        return f"p{param}" if rest == Index(0) else f"(p{param} + {emitter.index(rest)})"

    def _decode(self, product: Product, batch: Mapping[Axis, str], sizes: Mapping[Any, str]) -> str:
        if not batch:
            return "  const int gt = task;\n"
        count = " * ".join(sizes.get(a.extent, str(a.extent)) for a in batch)
        lines = [f"  const int per = tasks / ({count});", "  const int gt = task % per;", "  int rest = task / per;"]
        for axis, name in reversed(list(batch.items())):
            extent = sizes.get(axis.extent, str(axis.extent))
            lines.append(f"  const int {name} = rest % {extent}; rest /= {extent};")
        return "\n".join(lines) + "\n"

    def tasks(self, kernel: Kernel, config: MatmulConfig, model: DeviceModel) -> Extent:
        product = find_product(kernel)
        assert isinstance(product, Product)
        rows, columns = (1 if axis is None else axis.extent for axis in (product.row, product.col))
        return tasks(config.gemm, rows, columns) * product_of(axis.extent for axis in product.batch)

    def work(self, kernel: Kernel, config: MatmulConfig) -> Work:
        return product_work(kernel, config.gemm)


def _size(axis: Axis | None, sizes: Mapping[str, int]) -> int:
    return 1 if axis is None else int(bind(axis.extent, sizes))


def _extent(axis: Axis, names: Mapping[Any, str]) -> str:
    """An axis's extent as C."""
    return names.get(axis.extent, str(axis.extent))


def _literal(axis: Axis | None) -> bool:
    return axis is None or isinstance(axis.extent, int)
