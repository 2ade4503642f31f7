"""How often products and convolutions load an operand, as the families' schedules walk it: what fusion asks before it
lets a product compute an operand while it loads it."""

from __future__ import annotations

from backends.codegen.cpu_conv.schedule import TASKS_PER_CORE
from backends.codegen.cpu_conv.weight_schedule import CACHED_SUMS
from backends.codegen.cpu_product.schedule import PANEL
from graphcore.base.shapes import Shape, product, typical
from graphcore.kernel.contraction import ContractionRoles, Role, Window, WindowResult
from graphcore.plan.target import Loads

__all__ = ["loads_on"]

_MOST = 4.0  # what is loaded more often has left the cache anyway


def loads_on(cores: int) -> Loads:
    """``Target.loads`` of a device with so many cores. GPUs' families walk products in panels too; convolutions they
    take as the loop nest does, for which this is a guess."""

    def loads(roles: ContractionRoles, shapes: tuple[Shape, ...], operand: int, elements: float) -> float | None:
        if roles.window is not None:
            return _convolution_loads(roles.window, shapes, operand, cores)
        terms = product(e for e, role in zip(shapes[0], roles.first, strict=True) if role is Role.TERM)
        uses = typical(product(shapes[2])) * typical(terms) / max(elements, 1.0)  # results that an element enters
        return min(max(uses / PANEL, 1.0), _MOST)

    return loads


def _convolution_loads(window: Window, shapes: tuple[Shape, ...], operand: int, cores: int) -> float | None:
    """A convolution packs images once for every part of its output channels.

    None for weights, which would be computed into a buffer of their own, and for windows of one tap: they or their
    gradients read images in place, and do too little with each element.
    """
    gathers = window.result is WindowResult.TAP
    if all(t == 1 for t in window.taps) or (operand == 1 and not gathers):
        return None
    if operand == 1:
        sums = typical(product(shapes[2])) / window.groups
        return min(max(sums / CACHED_SUMS, 1.0), _MOST)
    if gathers:
        return 1.0
    units = max(typical(shapes[0][0]) * window.groups, 1.0)
    parts = max(TASKS_PER_CORE * cores / units, 1.0)  # few images: tasks share out output channels
    phases = 1
    if window.result is WindowResult.PLACE:
        for step, taps in zip(window.stride, window.taps, strict=True):
            phases *= min(step, taps)
    return min(parts * phases, _MOST)
