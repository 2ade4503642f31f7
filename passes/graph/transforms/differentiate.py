"""Reverse-mode differentiation: gradients are ordinary nodes of the same graph.

The driver is one reverse topological sweep without recursion. It owns what every rule would otherwise repeat: summing
the contributions to one value (by one n-ary add), cutting at integers, detached nodes and stops, checking that a
cotangent has its value's type, and telling three answers apart: *disconnected* (no path), *not differentiable* (an
error that names op and line) and *zero* (a rule that contributes nothing).

It also keeps what a selection masks out at zero. The cotangent of the branch that ``where`` did not take is zero there,
but going on through the branch it is multiplied by derivatives, and zero times infinity is NaN: ``where(x > 0, sqrt(x),
0)`` at zero. So through elementwise ops the mask travels with the cotangent and is applied again wherever a product
could undo it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.base.errors import GradientError
from graphcore.base.garbage import collector_paused
from graphcore.base.source import deriving
from graphcore.ir.graph import builder_for, toposort
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Builder, Node, Tensor, describe
from graphcore.ir.op import Kind

__all__ = ["differentiate"]

Mask = tuple[Tensor, bool]  # a condition, and which of its values keeps the cotangent


@dataclass
class Call:
    """What a gradient rule sees: the node, its operands and results, and a builder that copies its origin."""

    node: Node
    b: Builder

    @property
    def op(self) -> Any:
        return self.node.op

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.node.inputs

    @property
    def out(self) -> Tensor:
        return Tensor(self.node, 0)

    @property
    def outs(self) -> tuple[Tensor, ...]:
        return self.node.outputs

    def differentiate(
        self, ys: Sequence[Tensor], xs: Sequence[Tensor], gradients: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        """Gradients inside a region: of its copied outputs for its operands."""
        pairs = [(y, g) for y, g in zip(ys, gradients, strict=True) if g is not None]
        return tuple(differentiate([y for y, _ in pairs], xs, [g for _, g in pairs], frontier=True))


@collector_paused()
def differentiate(
    ys: Sequence[Tensor],
    xs: Sequence[Tensor],
    grad_ys: Sequence[Tensor],
    stop: Iterable[Tensor] = (),
    *,
    frontier: bool = False,
) -> list[Tensor | None]:
    """The gradient of ``sum(y * grad_y)`` with respect to each of ``xs``; None where no path leads there.

    Args:
        ys, xs: tensors of floating types.
        grad_ys: one cotangent for each of ``ys``, of its type.
        stop: values that gradients do not pass (they may still be among ``xs``).
        frontier: treat ``xs`` as the sweep's boundary: nothing is differentiated beyond them.

    Raises:
        GradientError: an op on the path is not differentiable; the message names it and its line.
    """
    stops = {t.key for t in stop} | ({x.key for x in xs} if frontier else set())
    order = toposort(
        ys, (lambda node: all((node.serial, i) in stops for i in range(len(node.types)))) if stops else None
    )
    needed = _between(order, {x.key for x in xs}, stops)
    pending: dict[tuple[int, int], list[tuple[Tensor, Mask | None]]] = {}
    for y, g in zip(ys, grad_ys, strict=True):
        pending.setdefault(y.key, []).append((g, None))
    total: dict[tuple[int, int], Tensor] = {}
    wanted = {x.key for x in xs}
    for node in reversed(order):
        keys = [(node.serial, i) for i in range(len(node.types))]
        b = builder_for(node)
        gradients: list[Tensor | None] = []
        mask: Mask | None = None
        for key in keys:
            parts = pending.pop(key, None)
            gradient = None if parts is None else _summed([g for g, _ in parts], b)
            mask = _common(parts) if parts is not None and node.op.kind is Kind.MAP else None
            if gradient is not None and key in wanted:
                total[key] = gradient
            gradients.append(None if key in stops else gradient)
        if node.serial not in needed or node.detached or all(g is None for g in gradients):
            continue
        with deriving(node.origin.scope):
            contributions = _apply_rule(node, b, gradients)
            masks = _masks(node, mask, b)
            for operand, contribution, inner in zip(node.inputs, contributions, masks, strict=True):
                if (
                    contribution is not None
                    and operand.dtype.is_float
                    and (operand.node.serial in needed or operand.key in wanted)
                ):
                    if mask is not None:
                        contribution = _applied(mask, contribution, gradients[0], b)
                    pending.setdefault(operand.key, []).append((contribution, inner))
    return [total.get(x.key) for x in xs]


def _between(order: Sequence[Node], wanted: set[tuple[int, int]], stops: set[tuple[int, int]]) -> set[int]:
    """Serials of nodes through which a wanted value reaches a root."""
    needed: set[int] = set()
    for node in order:
        for t in node.inputs:
            inner = t.node.serial in needed and t.key not in stops and not t.node.detached
            if (inner or t.key in wanted) and t.dtype.is_float:
                needed.add(node.serial)
                break
    return needed


def _summed(parts: list[Tensor], b: Builder) -> Tensor:
    return parts[0] if len(parts) == 1 else b.add_n(*parts)


def _common(parts: list[tuple[Tensor, Mask | None]]) -> Mask | None:
    """The mask that all contributions to a value have, if it is one."""
    first = parts[0][1]
    if first is None or any(m is None or m[1] is not first[1] or not m[0].same(first[0]) for _, m in parts[1:]):
        return None
    return first


def _masks(node: Node, mask: Mask | None, b: Builder) -> Sequence[Mask | None]:
    """The masks of a node's operands' cotangents: its own cotangent's, and for a selection's branches the condition as
    well."""
    if not node.op.selects:
        return (mask,) * len(node.inputs)
    condition = node.inputs[0]
    branches: list[Mask | None] = [(condition, True), (condition, False)]
    if mask is not None:
        outer = mask[0] if mask[1] else b.logical_not(mask[0])
        branches = [
            (b.logical_and(outer, condition if taken else b.logical_not(condition)), True) for taken in (True, False)
        ]
    return (None, *branches)


def _applied(mask: Mask, contribution: Tensor, gradient: Tensor | None, b: Builder) -> Tensor:
    """A contribution with what is masked out at zero again."""
    if gradient is None or contribution.same(gradient) or _keeps_zero(contribution, gradient):
        return contribution
    zero = b.zeros_like(contribution)
    return b.where(mask[0], contribution, zero) if mask[1] else b.where(mask[0], zero, contribution)


def _keeps_zero(contribution: Tensor, gradient: Tensor) -> bool:
    """Whether a contribution is zero where the cotangent is: it is made of that and of fixed numbers only, as a scaling
    is."""
    node = contribution.node
    if node.op.kind is not Kind.MAP:
        return False
    operands = []
    for t in node.inputs:
        if t.same(gradient):
            operands.append(np.zeros((), t.dtype.storage))
            continue
        while t.node.op.kind is Kind.VIEW:
            t = t.node.inputs[0]
        if not isinstance(t.node.op, Constant) or t.size != 1:
            return False
        operands.append(t.node.op.array.reshape(()))
    with np.errstate(all="ignore"):
        return bool(node.op.reference(*operands) == 0)


def _apply_rule(node: Node, b: Builder, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
    op = node.op
    if not any(t.dtype.is_float for t in node.types):
        return (None,) * len(node.inputs)
    if not op.differentiable:
        raise GradientError(
            f"{op.name} is not differentiable, and a gradient was asked for through it"
            f"\n  it was built at {node.origin.place}\n"
            f"  wrap its input in gc.stop_gradient(...) if no gradient should flow here"
        )
    given = (
        gradients
        if op.kind is Kind.REGION or len(node.types) == 1
        else [g if g is not None else b.zeros_like(t) for g, t in zip(gradients, node.outputs, strict=True)]
    )
    result = op.vjp(Call(node, b), *given)
    if len(result) != len(node.inputs):
        raise GradientError(
            f"the gradient rule of {op.name} gave {len(result)} gradients for {len(node.inputs)} operands"
        )
    for g, t in zip(result, node.inputs, strict=True):
        if g is not None and t.dtype.is_float and (g.shape != t.shape or g.dtype != t.dtype):
            raise GradientError(
                f"the gradient rule of {op.name} gave {g.type} for an operand of {t.type}: {describe(t)}"
            )
    return result
