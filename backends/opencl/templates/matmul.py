"""The product template: kernels with one sum of products of two matrices, batched or not, and an elementwise epilogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.base import Piece
from backends.opencl.emit import Dialect, Emitter, Scope
from backends.opencl.templates.base import NAME, signature, sizes_of
from backends.opencl.templates.gemm_code import GemmConfig, Operand, choose, emit_gemm, tasks
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis, Index
from graphcore.kernel.ir import Kernel
from graphcore.shapes import Extent, bind
from graphcore.target import Reject

__all__ = ["Matmul", "Product", "find_product"]

_SMALL = 2048  # multiply-adds below which the loop nest is as good


@dataclass(frozen=True)
class Product:
    """A kernel seen as a product: its sum, operands and the roles of its axes. ``row`` or ``col`` None is a vector."""

    total: Expr
    left: Expr
    right: Expr
    row: Axis | None
    col: Axis | None
    term: Axis
    batch: tuple[Axis, ...]


@dataclass(frozen=True)
class MatmulConfig:
    """The generator's schedule and the sizes it was chosen for."""

    gemm: GemmConfig

    def describe(self) -> str:
        g = self.gemm
        packed = "".join(name for name, on in (("A", g.pack_a), ("B", g.pack_b)) if on)
        return f"tile {g.mr}x{g.nr}" + (f", packs {packed}" if packed else "") + (", dot" if g.dot else "")


def find_product(kernel: Kernel) -> Product | Reject:
    """The product inside a kernel, or why there is none."""
    sums = [v for v in kernel.values() if v.fn == "reduce"]
    if len(sums) != 1 or sums[0].data[0] != "add" or len(sums[0].data[1]) != 1:
        return Reject("it is not one sum over one axis")
    total = sums[0]
    (term,) = total.data[1]
    body = total.args[0]
    if body.fn != "mul" or any(a.fn != "load" or a.args for a in body.args) or body.dtype.name not in ("float32", "float64"):
        return Reject("the sum's terms are not products of two loaded float32 or float64 elements")
    if term in kernel.axes:
        return Reject("the summed axis belongs to the result")
    left, right = body.args
    roles = _roles(kernel, left.data[1], right.data[1], term)
    if isinstance(roles, Reject):
        return roles
    rows, cols, batch = roles
    if len(rows) > 1 or len(cols) > 1:
        return Reject("the result's rows or columns are not one axis")
    row, col = rows[0] if rows else None, cols[0] if cols else None
    if any(s.index.axes() != frozenset(kernel.axes) for s in kernel.stores):
        return Reject("it stores values smaller than the product")
    if _step(kernel, col) != 1 and _step(kernel, row) == 1:  # write along contiguous elements: compute the transpose
        left, right, row, col = right, left, col, row
    return Product(total, left, right, row, col, term, tuple(batch))


def _step(kernel: Kernel, axis: Axis | None) -> int | None:
    return kernel.stores[0].index.stride(axis) if axis is not None else None


def _roles(kernel: Kernel, left: Index, right: Index, term: Axis) -> tuple[list[Axis], list[Axis], list[Axis]] | Reject:
    rows: list[Axis] = []
    cols: list[Axis] = []
    batch: list[Axis] = []
    for axis in kernel.axes:
        a, b = left.stride(axis), right.stride(axis)
        if a is None or b is None:
            return Reject(f"an operand is not linear in {axis}")
        if not a and not b:
            return Reject(f"no operand depends on {axis}")
        (batch if a and b else rows if a else cols).append(axis)
    if not left.stride(term) or not right.stride(term):
        return Reject("an operand is not linear in the summed axis")
    return rows, cols, batch


class Matmul:
    """The template for products on CPUs: register tiles, packed panels, vector epilogue."""

    name = "matmul"

    def schedule(self, kernel: Kernel, dialect: Dialect, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        if dialect.kind == "gpu":
            return Reject("its register tiles are made for CPUs")
        product = find_product(kernel)
        if isinstance(product, Reject):
            return product
        m, n, k = (_size(x, hints) for x in (product.row, product.col, product.term))
        if m * n * k < _SMALL or n < 2:
            return Reject(f"{m}x{n}x{k} is too small to be worth tiles")
        width = dialect.width // (2 if product.total.dtype.name == "float64" else 1)
        if width < 2:
            return Reject("the device has no vectors of this type")
        config = choose(m, n, k, *self.operands(product), width, dialect.cores, f"{dialect.vendor} {dialect.device}",
                        "double" if product.total.dtype.name == "float64" else "float", literal_n=_literal(product.col))
        return [Piece(kernel, self.name, MatmulConfig(config), tuple(range(len(kernel.params))))]

    def operands(self, product: Product, left: str = "", right: str = "") -> tuple[Operand, Operand]:
        a, b, t = product.left.data[1], product.right.data[1], product.term
        return (Operand(left, a.stride(product.row) if product.row else 0, a.stride(t)),
                Operand(right, b.stride(t), b.stride(product.col) if product.col else 0))

    def arguments(self, kernel: Kernel, config: MatmulConfig) -> list[Extent]:
        return list(sizes_of(kernel))

    def emit(self, kernel: Kernel, config: MatmulConfig, dialect: Dialect) -> str:
        product = find_product(kernel)
        assert isinstance(product, Product)
        sizes = sizes_of(kernel)
        batch = {axis: f"gb{i}" for i, axis in enumerate(product.batch)}
        pointers = [f"p{i}" for i in range(len(kernel.params))]
        left, right = (self._pointer(kernel, e, product, batch, dialect) for e in (product.left, product.right))
        dims = tuple("1" if axis is None else _extent(axis, sizes) for axis in (product.row, product.col, product.term))

        def epilogue(row: str, col: str, acc: str, width: int) -> list[str]:
            emitter = Emitter(kernel, dialect, pointers, sizes)
            emitter.scopes = [Scope(frozenset((*kernel.axes, product.term)))]
            emitter.axis_code.update(batch)
            if product.row is not None:
                emitter.axis_code[product.row] = f"({row})"
            assert product.col is not None
            with emitter.lanes(product.col, f"({col})", width):
                emitter.axis_code[product.col] = f"({col})"
                emitter.scope.names[product.total] = acc
                emitter.store_all(kernel.stores)
            return emitter.scope.lines

        inner = f"{NAME}_block"
        parameters = signature(kernel, [f"const int {name}" for name in batch.values()])
        a, b = self.operands(product, left, right)
        text = emit_gemm(inner, parameters, config.gemm, dims, a, b, epilogue)  # type: ignore[arg-type]
        names = [*pointers, *sizes.values()]
        decode = self._decode(product, batch, sizes)
        call = ", ".join([*names, *batch.values()])
        return (f"{text}GC_NOINLINE static void {NAME}({signature(kernel)}, const int task, const int tasks) {{\n"
                f"{decode}  {inner}({call}, gt);\n}}\n")

    def _pointer(self, kernel: Kernel, operand: Expr, product: Product, batch: Mapping[Axis, str], dialect: Dialect) -> str:
        """The operand's start as C: its parameter, plus what the batch axes and constants add."""
        param, index = operand.data
        emitter = Emitter(kernel, dialect, [], {})
        emitter.axis_code.update(batch)
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

    def tasks(self, kernel: Kernel, config: MatmulConfig, dialect: Dialect, sizes: Mapping[str, int]) -> int:
        product = find_product(kernel)
        assert isinstance(product, Product)
        count = tasks(config.gemm, _size(product.row, sizes), _size(product.col, sizes))
        for axis in product.batch:
            count *= _size(axis, sizes)
        return count


def _size(axis: Axis | None, sizes: Mapping[str, int]) -> int:
    return 1 if axis is None else int(bind(axis.extent, sizes))


def _extent(axis: Axis, names: Mapping[Any, str]) -> str:
    """An axis's extent as C."""
    return names.get(axis.extent, str(axis.extent))


def _literal(axis: Axis | None) -> bool:
    return axis is None or isinstance(axis.extent, int)
