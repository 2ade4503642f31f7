"""Reverse-mode differentiation: gradients are ordinary nodes of the same graph.

The driver is one reverse topological sweep without recursion. It owns what every rule would otherwise repeat: summing the
contributions to one value (by one n-ary add), cutting at integers, detached nodes and stops, checking that a cotangent has its
value's type, and telling three answers apart: *disconnected* (no path), *not differentiable* (an error that names op and line) and
*zero* (a rule that contributes nothing).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphcore.errors import GradientError
from graphcore.graph import builder_for, toposort
from graphcore.node import Builder, Node, Tensor, describe
from graphcore.source import reset_scopes

__all__ = ["differentiate"]


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

    def differentiate(self, ys: Sequence[Tensor], xs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Gradients inside a region: of its copied outputs for its operands."""
        pairs = [(y, g) for y, g in zip(ys, gradients, strict=True) if g is not None]
        return tuple(differentiate([y for y, _ in pairs], xs, [g for _, g in pairs], frontier=True))


def differentiate(ys: Sequence[Tensor], xs: Sequence[Tensor], grad_ys: Sequence[Tensor], stop: Iterable[Tensor] = (), *,
                  frontier: bool = False) -> list[Tensor | None]:
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
    order = toposort(ys, (lambda node: all((node.serial, i) in stops for i in range(len(node.types)))) if stops else None)
    needed = _between(order, {x.key for x in xs}, stops)
    pending: dict[tuple[int, int], list[Tensor]] = {}
    for y, g in zip(ys, grad_ys, strict=True):
        pending.setdefault(y.key, []).append(g)
    total: dict[tuple[int, int], Tensor] = {}
    wanted = {x.key for x in xs}
    for node in reversed(order):
        keys = [(node.serial, i) for i in range(len(node.types))]
        b = builder_for(node)
        gradients: list[Tensor | None] = []
        for key in keys:
            parts = pending.pop(key, None)
            gradient = None if parts is None else _summed(parts, b)
            if gradient is not None and key in wanted:
                total[key] = gradient
            gradients.append(None if key in stops else gradient)
        if node.serial not in needed or node.detached or all(g is None for g in gradients):
            continue
        with reset_scopes(node.origin.scope):
            contributions = _apply_rule(node, b, gradients)
        for operand, contribution in zip(node.inputs, contributions, strict=True):
            if contribution is not None and operand.dtype.is_float and (operand.node.serial in needed or operand.key in wanted):
                pending.setdefault(operand.key, []).append(contribution)
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


def _apply_rule(node: Node, b: Builder, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
    op = node.op
    if not any(t.dtype.is_float for t in node.types):
        return (None,) * len(node.inputs)
    if not op.differentiable:
        raise GradientError(f"{op.name} is not differentiable, and a gradient was asked for through it\n  it was built at {node.origin.place}\n"
                            f"  wrap its input in gc.stop_gradient(...) if no gradient should flow here")
    given = gradients if op.kind.value == "region" or len(node.types) == 1 else [
        g if g is not None else b.zeros_like(t) for g, t in zip(gradients, node.outputs, strict=True)]
    result = op.vjp(Call(node, b), *given)
    if len(result) != len(node.inputs):
        raise GradientError(f"the gradient rule of {op.name} gave {len(result)} gradients for {len(node.inputs)} operands")
    for g, t in zip(result, node.inputs, strict=True):
        if g is not None and t.dtype.is_float and (g.shape != t.shape or g.dtype != t.dtype):
            raise GradientError(f"the gradient rule of {op.name} gave {g.type} for an operand of {t.type}: {describe(t)}")
    return result
