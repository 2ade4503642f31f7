"""Sums over what indices name, without looking at every index for every row: scatter-add, the gradient of ``take``.

Such a kernel says ``out[v, e] = sum over n of (g[n, e] if index[n] names v else 0)``. Done as said it takes rows x N
steps. Here a first kernel puts the points n in the order of their rows, equal ones as they come, and says where every
row's points start. The kernel itself then sums over places in this order, guarded by the row's start and the next
one's, with everything that is fused to it. What is left out are zeros, so that the sums of a device that adds one term
after the other are the same to the bit; nothing is added by atomics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphcore.base.dtypes import int32, int64
from graphcore.base.shapes import Shape, bind, product
from graphcore.kernel.buckets import count_below, in_bucket
from graphcore.kernel.expr import Expr, cast, const, leaf, load, reduce, transform
from graphcore.kernel.forms import Computed
from graphcore.kernel.guards import assuming
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Dynamic, as_index
from graphcore.kernel.indexed_sums import IndexedSum, find_indexed_sums
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store
from graphcore.kernel.parts import Part, Parts, Workspace, without_unused
from graphcore.kernel.rows import columns_of
from graphcore.kernel.whole_forms import Sort
from graphcore.plan.target import Reject, Target

__all__ = ["bucket_sums", "summed_by_row"]


def bucket_sums(kernel: Kernel, target: Target, sizes: Mapping[str, int]) -> Parts | Reject:
    """A kernel whose sums take the points of a row only, after those that put the points in order; or why it stays
    whole.

    Args:
        kernel: any.
        target: says whether an order is worth the kernel that makes it.
        sizes: the symbolic extents' values.
    """
    if target.orders is None:
        return Reject("the device puts nothing in order")
    found = find_indexed_sums(kernel)
    if isinstance(found, str):
        return Reject(found)
    if columns_of(kernel):
        return Reject("it reduces over its results too")
    if kernel.form is not None:
        return Reject("it is more than its loops")
    results = int(bind(product(a.extent for a in kernel.axes), sizes))
    made = summed_by_row(kernel)
    for s in found:
        points, rows = (int(bind(e, sizes)) for e in (s.axis.extent, s.rows))
        if rows < 2 or not all(target.orders(p.kernel, results, sizes) for p in made.parts[:-1]):
            return Reject(f"{points} indices into {rows} rows are too few to be worth sorting")
    names = ", ".join(dict.fromkeys(p.kernel.name for p in made.parts[:-1]))
    return replace(made, reasons=(f"{kernel.name} sums every row's own points, which {names} puts in order",))


def summed_by_row(kernel: Kernel) -> Parts:
    """A kernel for every order of points that its sums need, and the kernel with these sums over places in it.

    Args:
        kernel: has sums over what indices name, that depend on the summed axis alone.

    Raises:
        ValueError: it has no such sums.
    """
    found = find_indexed_sums(kernel)
    if isinstance(found, str):
        raise ValueError(f"kernel {kernel.name}: {found}")
    params, sorts = list(kernel.params), []
    starts_of: dict[Expr, int] = {}
    known: dict[Expr, Expr] = {}
    for s in found:
        point = Axis("i0", s.axis.extent, PARALLEL)
        key = s.row.substitute({s.axis: as_index(point)})
        if key not in starts_of:
            starts_of[key] = len(params)
            params += [_numbers(len(params), (s.rows + 1,)), _numbers(len(params) + 1, (point.extent,))]
            sorts.append(_order(kernel, params, point, key, starts_of[key], s))
        known[s.total] = _over_order(s, starts_of[key], known)
    stores = tuple(replace(s, value=transform(s.value, lambda e, _: known.get(e))) for s in kernel.stores)
    used, main = without_unused(replace(kernel, params=tuple(params), stores=stores))
    spaces = tuple(Workspace(p.shape, p.dtype) for p in params[len(kernel.params) :])
    return Parts(kernel, (*sorts, Part(main, used, counted=main)), spaces)


def _numbers(position: int, shape: Shape) -> Param:
    return Param(f"p{position}", int32, shape)


def _order(kernel: Kernel, params: list[Param], point: Axis, key: Expr, starts: int, s: IndexedSum) -> Part:
    """The kernel that stores where every row's points start, and behind that the order of the points."""
    row, over = Axis("i1", s.rows + 1, PARALLEL), Axis("r0", point.extent, REDUCE)
    results = (leaf("keys", int32, (point,)), leaf("points", int64, (point,)))
    form = Sort((Computed(key, (point,), (point.extent,)),), results, point)
    stores = (
        Store(starts + 1, as_index(point), cast(results[1], int32)),
        Store(starts, as_index(row), count_below(key, point, over, row)),
    )
    made = replace(
        kernel,
        name=f"{kernel.name}_sort",
        params=tuple(params),
        axes=(point, row),
        stores=stores,
        kind=KernelKind.SCATTER,
        form=form,
    )
    used, small = without_unused(made)
    return Part(small, used, helper=True)


def _over_order(s: IndexedSum, starts: int, known: Mapping[Expr, Expr]) -> Expr:
    """A sum over the places in an order; ``known`` are the sums that its terms may need."""
    point = load(starts + 1, as_index(s.axis), int32)
    at = {s.axis: as_index(Dynamic(point, s.axis.extent))}
    test, *within = (c.substitute(at) for c in (s.test, *s.within))
    body = transform(s.total.args[0], lambda e, _: known.get(e)).substitute(at)
    guards = {test: in_bucket(s.axis, starts, s.position), **{c: const(True, c.dtype) for c in within}}
    return reduce("add", (s.axis,), assuming(body, guards))
