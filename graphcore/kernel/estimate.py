"""How much a kernel does, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphcore.base.shapes import Extent, bind
from graphcore.kernel.ir import Kernel

__all__ = ["estimate"]


def estimate(kernel: Kernel, hints: Mapping[str, int]) -> tuple[float, float]:
    """Arithmetic operations and bytes of a kernel: every distinct value over the axes it depends on, every buffer
    once."""
    flops = 0.0
    extents = {a: float(_number(a.extent, hints)) for a in kernel.axes}
    touched: dict[int, float] = {}
    for value in kernel.reductions():
        extents.update({a: float(_number(a.extent, hints)) for a in value.reduce_axes})
    for value in kernel.values():
        axes = set(value.axes)
        if value.fn == "reduce":
            axes |= value.args[0].axes
        count = 1.0
        for a in axes:
            count *= extents.get(a, 1.0)
        if value.fn == "load":
            p = kernel.params[value.param]
            size = float(_number(p.size, hints))
            touched[value.param] = touched.get(value.param, 0.0) + min(count, size) * p.dtype.itemsize
        elif value.fn not in ("const", "index", "size", "in_range", "cast", "let"):
            flops += count
    for number, total in touched.items():
        p = kernel.params[number]
        touched[number] = min(total, float(_number(p.size, hints)) * p.dtype.itemsize)
    stored = 0.0
    for store in kernel.stores:
        count = 1.0
        for a in store.index.axes():
            count *= extents.get(a, 1.0)
        count = min(count, float(_number(kernel.params[store.param].size, hints)))
        stored += count * kernel.params[store.param].dtype.itemsize
    return flops, sum(touched.values()) + stored


def _number(extent: Extent, hints: Mapping[str, int]) -> Any:
    return bind(extent, hints)
