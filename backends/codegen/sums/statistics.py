"""Sums over a product's rows or a convolution's pixels, gathered where its elements are made: a bias's gradient, a
channel's mean.

On CPUs every block of work adds up its own columns or channels in its epilogue and a second, small kernel adds up the
blocks' sums and computes what is made of them. Where the template cannot do that, the second kernel sums what the first
one stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from backends.codegen.device_model import DeviceModel
from backends.codegen.sums.split import layout_of, with_values, without_unused
from backends.codegen.template import Scheduler
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Extent
from graphcore.kernel.collapse import collapse_axes
from graphcore.kernel.expr import Expr, load, reduce, walk
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, as_index
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store
from graphcore.plan.backend import Piece
from graphcore.plan.target import Reject

__all__ = ["Statistics"]


class Gatherer(Scheduler, Protocol):
    """A template whose epilogue takes stores of mode "add", last of a kernel's stores: every block of its work has a
    place of its own."""

    name: str

    def blocks(self, kernel: Kernel, piece: Piece) -> Mapping[Axis, int | None] | None:
        """The axes that a block of the scheduled work sums over, each with the block's extent (None: all of it); None
        where it cannot."""


@dataclass(frozen=True)
class _Parts:
    """A product's kernel cut in two: stores of elements, and stores made of sums of elements."""

    elements: tuple[Store, ...]
    results: tuple[Store, ...]
    sums: tuple[Expr, ...]


def _find(kernel: Kernel) -> _Parts | None:
    sums = (
        tuple(v for v in kernel.values() if v.fn == "reduce" and set(v.reduce_axes) & set(kernel.axes))
        if kernel.kind is KernelKind.CONTRACT
        else ()
    )
    results = tuple(s for s in kernel.stores if any(v in sums for v in walk(s.value)))
    return _Parts(tuple(s for s in kernel.stores if s not in results), results, sums) if sums else None


class Statistics:
    """Schedules the two kernels that it makes with the templates it was given."""

    name = "statistics"

    def __init__(self, gatherers: Sequence[Gatherer], templates: Sequence[Scheduler]) -> None:
        self.gatherers = gatherers
        self.templates = templates

    def schedule(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        parts = _find(kernel)
        if parts is None:
            return Reject("it gathers no sums of a product")
        gathered = (self._in_epilogue(kernel, parts, g, model, hints) for g in self.gatherers)
        return next((pieces for pieces in gathered if pieces is not None), None) or self._apart(
            kernel, parts, model, hints
        )

    def _in_epilogue(
        self, kernel: Kernel, parts: _Parts, template: Gatherer, model: DeviceModel, hints: Mapping[str, int]
    ) -> list[Piece] | None:
        """The product with its blocks' sums, and the kernel that adds those up; None where the template cannot."""
        whole, at = layout_of(kernel.axes)
        body = parts.sums[0].args[0]
        probe = replace(
            kernel,
            params=(*kernel.params, Param("probe", body.dtype, whole)),
            stores=parts.elements or (Store(len(kernel.params), at, body),),
        )
        alone = template.schedule(probe, model, hints)
        blocks = template.blocks(probe, alone[-1]) if not isinstance(alone, Reject) else None
        if blocks is None or any(
            not blocks.keys() <= set(r.reduce_axes) or r.dtype != _accumulated(probe) for r in parts.sums
        ):
            return None
        cut: dict[Axis, Axis] = {}
        for n, (axis, extent) in enumerate(blocks.items()):
            if extent is not None:
                count: Extent = (axis.extent + (extent - 1)) // extent
                cut[axis] = Axis(f"part{n}", count, PARALLEL)
        over = {part: Axis(part.name, part.extent, REDUCE) for part in cut.values()}
        shape, at = layout_of((*cut.values(), *(a for a in kernel.axes if a not in blocks)))
        here = at.substitute(
            {part: as_index(a) // extent for a, extent in blocks.items() if extent is not None for part in (cut[a],)}
        )
        params, stores, known = list(kernel.params), list(parts.elements), {}
        for r in parts.sums:
            stores.append(Store(len(params), here, r.args[0], "add"))
            inner = {a: Axis(f"{a.name}_all", a.extent, REDUCE) for a in r.reduce_axes if a not in blocks}
            there = at.substitute({a: as_index(b) for a, b in (*over.items(), *inner.items())})
            places = (*over.values(), *inner.values())
            total = load(len(params), there, r.dtype)
            known[r] = reduce("add", places, total) if places else total
            params.append(Param(f"p{len(params)}", r.dtype, shape))
        made = replace(kernel, params=tuple(params), stores=tuple(stores))
        used, small = without_unused(made)
        pieces = template.schedule(small, model, hints)
        assert not isinstance(pieces, Reject) and template.blocks(small, pieces[-1]) == blocks
        count, work = len(kernel.params), _workspaces(kernel, made)
        return [
            *_moved(pieces, small, used, count, work),
            *self._results(made, parts, known, count, work, model, hints),
        ]

    def _apart(self, kernel: Kernel, parts: _Parts, model: DeviceModel, hints: Mapping[str, int]) -> list[Piece]:
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
            known[r] = reduce("add", r.reduce_axes, load(stored.param, stored.index, r.dtype))
        made = replace(kernel, params=tuple(params), stores=tuple(stores))
        used, small = without_unused(made)
        count, work = len(kernel.params), _workspaces(kernel, made)
        first = _moved(self._scheduled(small, model, hints), small, used, count, work)
        return [*first, *self._results(made, parts, known, count, work, model, hints)]

    def _results(
        self,
        kernel: Kernel,
        parts: _Parts,
        known: Mapping[Expr, Expr],
        count: int,
        work: list[Any],
        model: DeviceModel,
        hints: Mapping[str, int],
    ) -> list[Piece]:
        """The kernel of everything that is made of the sums."""
        stores = tuple(with_values(s, known) for s in parts.results)
        needed = {a for r in known.values() for a in r.reduce_axes} | {a for s in stores for a in s.index.axes()}
        axes = tuple(a for a in kernel.axes if a in needed)
        sums = collapse_axes(
            replace(kernel, name=f"{kernel.name}_sums", axes=axes, stores=stores, kind=KernelKind.ROWS, form=None)
        )
        used, small = without_unused(sums)
        return _moved(self._scheduled(small, model, hints), small, used, count, work)

    def _scheduled(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece]:
        answers = (t.schedule(kernel, model, hints) for t in self.templates)
        return next(a for a in answers if not isinstance(a, Reject))


def _accumulated(kernel: Kernel) -> DType:
    """The type of the product's own sums, of which its epilogue can add up more."""
    return next(v.dtype for v in kernel.values() if v.fn == "reduce")


def _workspaces(kernel: Kernel, made: Kernel) -> list[Any]:
    """The parameters that a kernel made of another one has beside that one's own."""
    return [(i, p.shape, p.dtype) for i, p in enumerate(made.params[len(kernel.params) :])]


def _moved(pieces: Sequence[Piece], small: Kernel, used: tuple[int, ...], count: int, work: list[Any]) -> list[Piece]:
    """Pieces of a part of a kernel of ``count`` parameters as pieces of the kernel; their workspaces join the ones in
    ``work``."""
    before = len(work)
    own = {number: (number + before, shape, dtype) for p in pieces for number, shape, dtype in p.workspace}
    work += [own[n] for n in sorted(own)]
    moved = []
    for p in pieces:
        params = tuple(used[n] if n < len(small.params) else count + before + n - len(small.params) for n in p.params)
        moved.append(replace(p, params=params, workspace=tuple(w for w in work if count + w[0] in params)))
    return moved
