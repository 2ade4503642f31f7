"""Sums over a product's rows or a convolution's pixels, gathered where its elements are made: a bias's gradient, a
channel's mean.

Where the family that takes the product can, every block of its work adds up its own columns or channels in its
epilogue, and a second, small kernel adds up the blocks' sums and computes what is made of them. Elsewhere the second
kernel sums what the first one stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Extent
from graphcore.kernel.collapse import collapse_axes
from graphcore.kernel.expr import Expr, load, reduce, walk
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, as_index
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store
from graphcore.kernel.parts import Part, Parts, Workspace, without_unused
from graphcore.kernel.widths import is_narrow
from graphcore.plan.target import Reject, Target
from passes.kernels.split_reductions import layout_of, with_values

__all__ = ["gathered_by_blocks", "product_sums", "summed_apart"]

_Blocks = Mapping[Axis, "int | None"]


@dataclass(frozen=True)
class _Sums:
    """A product's kernel: stores of elements, stores made of sums of elements, and these sums."""

    elements: tuple[Store, ...]
    results: tuple[Store, ...]
    sums: tuple[Expr, ...]


def _find(kernel: Kernel) -> _Sums | Reject:
    if kernel.kind is not KernelKind.CONTRACT:
        return Reject("it makes no product")
    sums = tuple(v for v in kernel.reductions() if set(v.reduce_axes) & set(kernel.axes))
    if not sums:
        return Reject("it gathers no sums of a product")
    results = tuple(s for s in kernel.stores if any(v in sums for v in walk(s.value)))
    return _Sums(tuple(s for s in kernel.stores if s not in results), results, sums)


def product_sums(kernel: Kernel, target: Target, sizes: Mapping[str, int]) -> Parts | Reject:
    """A product and the kernel of what is made of its elements' sums, or why the kernel stays whole.

    Args:
        kernel: any.
        target: says over which blocks the product's epilogue can gather.
        sizes: the symbolic extents' values.
    """
    found = _find(kernel)
    if isinstance(found, Reject):
        return found
    if target.blocks is None or not is_narrow(kernel, sizes):
        return Reject("products and their sums are one loop nest")
    blocks = target.blocks(_probe(kernel, found), sizes)
    line = f"{kernel.name} stores the elements that {kernel.name}_sums sums"
    if blocks is None:
        reason = "the product's epilogue gathers nothing"
    elif any(not blocks.keys() <= set(r.reduce_axes) for r in found.sums):
        reason = "a block adds up more than a sum takes"
    elif any(r.dtype != _accumulated(kernel, found) for r in found.sums):
        reason = "the sums are of another type than the product's own"
    else:
        parts = gathered_by_blocks(kernel, blocks)
        if target.blocks(parts.parts[0].kernel, sizes) == blocks:
            line = f"{kernel.name} adds up its blocks' elements in its epilogue, {kernel.name}_sums the blocks' sums"
            return replace(parts, reasons=(line,))
        reason = "with sums in its epilogue the product would have other blocks"
    return replace(summed_apart(kernel), reasons=(f"{line}: {reason}",))


def gathered_by_blocks(kernel: Kernel, blocks: Mapping[Axis, int | None]) -> Parts:
    """The product with its blocks' sums as stores of mode "add", and the kernel that adds those up.

    Args:
        kernel: a product's, with sums over its elements.
        blocks: the axes that a block sums over, all of them axes of every sum; with the block's extent, None for all.

    Raises:
        ValueError: the kernel has no such sums.
    """
    parts = _found(kernel)
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
    return _parts(kernel, parts, params, stores, known)


def summed_apart(kernel: Kernel) -> Parts:
    """The product, storing the elements that are summed, and a kernel that sums them.

    Raises:
        ValueError: the kernel has no sums over a product's elements.
    """
    parts = _found(kernel)
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
    return _parts(kernel, parts, params, stores, known)


def _found(kernel: Kernel) -> _Sums:
    found = _find(kernel)
    if isinstance(found, Reject):
        raise ValueError(f"kernel {kernel.name}: {found.reason}")
    return found


def _probe(kernel: Kernel, parts: _Sums) -> Kernel:
    """The product without its sums: how it would be cut into blocks."""
    whole, at = layout_of(kernel.axes)
    body = parts.sums[0].args[0]
    return replace(
        kernel,
        params=(*kernel.params, Param("probe", body.dtype, whole)),
        stores=parts.elements or (Store(len(kernel.params), at, body),),
    )


def _accumulated(kernel: Kernel, parts: _Sums) -> DType:
    """The type of the product's own sums, of which its epilogue can add up more."""
    return _probe(kernel, parts).reductions()[0].dtype


def _parts(
    kernel: Kernel, parts: _Sums, params: Sequence[Param], stores: Sequence[Store], known: Mapping[Expr, Expr]
) -> Parts:
    """The product with other stores, and the kernel of everything that is made of the sums.

    Args:
        params: the kernel's and after them the workspaces'.
        known: the sums as the second kernel computes them.
    """
    product = replace(kernel, params=tuple(params), stores=tuple(stores))
    results = tuple(with_values(s, known) for s in parts.results)
    needed = {a for r in known.values() if r.fn == "reduce" for a in r.reduce_axes}
    needed |= {a for s in results for a in s.index.axes()}
    axes = tuple(a for a in kernel.axes if a in needed)
    sums = collapse_axes(
        replace(product, name=f"{kernel.name}_sums", axes=axes, stores=results, kind=KernelKind.ROWS, form=None)
    )
    spaces = tuple(Workspace(p.shape, p.dtype) for p in params[len(kernel.params) :])
    made = (without_unused(product), without_unused(sums))
    return Parts(kernel, tuple(Part(small, used, counted=small) for used, small in made), spaces)
