"""Sums over a product's rows, gathered where its elements are made: a bias's gradient, a column's mean.

On CPUs every task of the product adds up its own columns in its epilogue and a second, small kernel adds up the tasks' sums and
computes what is made of them. Where the product's template cannot do that, the second kernel sums what the first one stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.base import Piece
from backends.opencl.emit import Dialect
from backends.opencl.templates.base import Scheduler
from backends.opencl.templates.gpu_split import layout_of, with_values, without_unused
from backends.opencl.templates.matmul import Matmul, find_product
from graphcore.kernel.expr import Expr, load, reduce, walk
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.shapes import Extent
from graphcore.target import Reject

__all__ = ["Statistics"]

_MOST_COLUMNS = 4096  # sums that a task may hold in its private memory


@dataclass(frozen=True)
class _Parts:
    """A product's kernel cut in two: stores of elements, and stores made of sums of elements."""

    elements: tuple[Store, ...]
    results: tuple[Store, ...]
    sums: tuple[Expr, ...]


def _find(kernel: Kernel) -> _Parts | None:
    sums = tuple(v for v in kernel.values() if v.fn == "reduce" and set(v.data[1]) & set(kernel.axes)) if kernel.kind == "contract" else ()
    results = tuple(s for s in kernel.stores if any(v in sums for v in walk(s.value)))
    return _Parts(tuple(s for s in kernel.stores if s not in results), results, sums) if sums else None


class Statistics:
    """Schedules the two kernels that it makes with the templates it was given."""

    name = "statistics"

    def __init__(self, product: Matmul, templates: Sequence[Scheduler]) -> None:
        self.product = product
        self.templates = templates

    def schedule(self, kernel: Kernel, dialect: Dialect, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        parts = _find(kernel)
        if parts is None:
            return Reject("it gathers no sums of a product")
        return self._in_epilogue(kernel, parts, dialect, hints) or self._apart(kernel, parts, dialect, hints)

    def _in_epilogue(self, kernel: Kernel, parts: _Parts, dialect: Dialect, hints: Mapping[str, int]) -> list[Piece] | None:
        """The product with its tasks' sums, and the kernel that adds those up; None where the product's template cannot."""
        whole, at = layout_of(kernel.axes)
        body = parts.sums[0].args[0]
        probe = replace(kernel, params=(*kernel.params, Param("probe", body.dtype, whole)),
                        stores=parts.elements or (Store(len(kernel.params), at, body),))
        chosen = self.product.schedule(probe, dialect, hints)
        if isinstance(chosen, Reject):
            return None
        product, gemm = find_product(probe), chosen[0].config.gemm
        assert not isinstance(product, Reject)
        row, col = product.row, product.col
        if row is None or col is None or not isinstance(col.extent, int) or (not gemm.n_block and col.extent > _MOST_COLUMNS):
            return None
        if any(r.dtype.rounds or row not in r.data[1] or col in r.data[1] for r in parts.sums):
            return None
        height = gemm.mr * gemm.m_block
        blocks: Extent = (row.extent + (height - 1)) // height if height else 1
        part, over = Axis("part", blocks, PARALLEL), Axis("part", blocks, REDUCE)
        shape, at = layout_of((part, *product.batch, col))
        here = at.substitute({part: as_index(row) // height if height else Index(0)})
        params, stores, known = list(kernel.params), list(parts.elements), {}
        for r in parts.sums:
            stores.append(Store(len(params), here, r.args[0], "add"))
            inner = {a: Axis(f"{a.name}_all", a.extent, REDUCE) for a in r.data[1] if a is not row}
            there = at.substitute({part: as_index(over), **{a: as_index(b) for a, b in inner.items()}})
            known[r] = reduce("add", (over, *inner.values()), load(len(params), there, r.dtype))
            params.append(Param(f"p{len(params)}", r.dtype, shape))
        made = replace(kernel, params=tuple(params), stores=tuple(stores))
        used, small = without_unused(made)
        count, work = len(kernel.params), _workspaces(kernel, made)
        product_piece = Piece(small, self.product.name, chosen[0].config, tuple(range(len(small.params))))
        return [*_moved([product_piece], small, used, count, work), *self._results(made, parts, known, count, work, dialect, hints)]

    def _apart(self, kernel: Kernel, parts: _Parts, dialect: Dialect, hints: Mapping[str, int]) -> list[Piece]:
        """The product, storing the elements that are summed, and a kernel that sums them."""
        whole, at = layout_of(kernel.axes)
        params, stores, known = list(kernel.params), list(parts.elements), {}
        for r in parts.sums:
            body = r.args[0]
            stored = next((s for s in stores if s.value is body), None)
            if stored is None:
                stored = Store(len(params), at, body)
                stores.append(stored)
                params.append(Param(f"p{len(params)}", body.dtype, whole))
            known[r] = reduce("add", r.data[1], load(stored.param, stored.index, r.dtype))
        made = replace(kernel, params=tuple(params), stores=tuple(stores))
        used, small = without_unused(made)
        count, work = len(kernel.params), _workspaces(kernel, made)
        first = _moved(self._scheduled(small, dialect, hints), small, used, count, work)
        return [*first, *self._results(made, parts, known, count, work, dialect, hints)]

    def _results(self, kernel: Kernel, parts: _Parts, known: Mapping[Expr, Expr], count: int, work: list[Any], dialect: Dialect,
                 hints: Mapping[str, int]) -> list[Piece]:
        """The kernel of everything that is made of the sums."""
        stores = tuple(with_values(s, known) for s in parts.results)
        needed = {a for r in known.values() for a in r.data[1]} | {a for s in stores for a in s.index.axes()}
        axes = tuple(a for a in kernel.axes if a in needed)
        used, small = without_unused(replace(kernel, name=f"{kernel.name}_sums", axes=axes, stores=stores, kind="rows", facts=()))
        return _moved(self._scheduled(small, dialect, hints), small, used, count, work)

    def _scheduled(self, kernel: Kernel, dialect: Dialect, hints: Mapping[str, int]) -> Sequence[Piece]:
        answers = (t.schedule(kernel, dialect, hints) for t in self.templates)
        return next(a for a in answers if not isinstance(a, Reject))


def _workspaces(kernel: Kernel, made: Kernel) -> list[Any]:
    """The parameters that a kernel made of another one has beside that one's own."""
    return [(i, p.shape, p.dtype) for i, p in enumerate(made.params[len(kernel.params):])]


def _moved(pieces: Sequence[Piece], small: Kernel, used: tuple[int, ...], count: int, work: list[Any]) -> list[Piece]:
    """Pieces of a part of a kernel of ``count`` parameters as pieces of the kernel; their workspaces join the ones in ``work``."""
    before = len(work)
    own = {number: (number + before, shape, dtype) for p in pieces for number, shape, dtype in p.workspace}
    work += [own[n] for n in sorted(own)]
    moved = []
    for p in pieces:
        params = tuple(used[n] if n < len(small.params) else count + before + n - len(small.params) for n in p.params)
        moved.append(replace(p, params=params, workspace=tuple(w for w in work if count + w[0] in params)))
    return moved
