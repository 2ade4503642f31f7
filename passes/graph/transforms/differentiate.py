"""Reverse-mode differentiation: gradients are ordinary nodes of the same graph.

The driver is one reverse topological sweep without recursion. It owns what every rule would otherwise repeat: summing
the contributions to one value (by one n-ary add), cutting at integers, detached nodes and stops, checking that a
cotangent has its value's type, and telling three answers apart: *disconnected* (no path), *not differentiable* (an
error that names op and line) and *zero* (a rule that contributes nothing).

It also keeps what a selection masks out at zero. The cotangent of the branch that ``where`` did not take is zero there,
but going on through the branch it is multiplied by derivatives, and zero times infinity is NaN: ``where(x > 0, sqrt(x),
0)`` at zero, or ``maximum(log(x), -100)``. So through elementwise ops the mask travels with the cotangent and is
applied again wherever a product could undo it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.base.errors import GradientError
from graphcore.base.garbage import collector_paused
from graphcore.base.source import deriving
from graphcore.ir.graph import builder_for, toposort
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Builder, Node, Value, describe
from graphcore.ir.op import Kind, Mask

__all__ = ["differentiate"]


@dataclass(frozen=True)
class Kept:
    """Where a cotangent may differ from zero by the masks on its way; ``firm`` leaves out the light ones."""

    firm: Mask | None = None
    full: Mask | None = None


EVERYWHERE = Kept()


@dataclass
class Call:
    """What a gradient rule sees: the node, its operands and results, and a builder that copies its origin.

    ``kept`` are the masks of the results' cotangents.
    """

    node: Node
    b: Builder
    kept: Sequence[Kept] = ()

    @property
    def op(self) -> Any:
        return self.node.op

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self.node.inputs

    @property
    def out(self) -> Value:
        return Value(self.node, 0)

    @property
    def outs(self) -> tuple[Value, ...]:
        return self.node.outputs

    @property
    def mask(self) -> Mask | None:
        """What is to be applied to the operands' cotangents again."""
        if self.op.kind is not Kind.MAP:
            return None
        return self.kept[0].full if self.op.steep else self.kept[0].firm

    def differentiate(
        self, ys: Sequence[Value], xs: Sequence[Value], gradients: Sequence[Value | None]
    ) -> tuple[Value | None, ...]:
        """Gradients inside a region: of its copied outputs for its operands."""
        there = [i for i, g in enumerate(gradients) if g is not None]
        seeds = [g for g in gradients if g is not None]
        kept = [self.kept[i] for i in there]
        return tuple(differentiate([ys[i] for i in there], xs, seeds, frontier=True, kept=kept))


@collector_paused()
def differentiate(
    ys: Sequence[Value],
    xs: Sequence[Value],
    grad_ys: Sequence[Value],
    stop: Iterable[Value] = (),
    *,
    frontier: bool = False,
    kept: Sequence[Kept] | None = None,
) -> list[Value | None]:
    """The gradient of ``sum(y * grad_y)`` with respect to each of ``xs``; None where no path leads there.

    Args:
        ys, xs: values of floating types.
        grad_ys: one cotangent for each of ``ys``, of its type.
        stop: values that gradients do not pass (they may still be among ``xs``).
        frontier: treat ``xs`` as the sweep's boundary: nothing is differentiated beyond them.
        kept: where each of ``grad_ys`` may differ from zero.

    Raises:
        GradientError: an op on the path is not differentiable; the message names it and its line.
    """
    stops = {*stop, *(xs if frontier else ())}
    order = toposort(ys, (lambda node: stops.issuperset(node.outputs)) if stops else None)
    wanted = set(xs)
    needed = _between(order, wanted, stops)
    pending: dict[Value, list[tuple[Value, Kept]]] = {}
    for y, g, k in zip(ys, grad_ys, kept or [EVERYWHERE] * len(ys), strict=True):
        pending.setdefault(y, []).append((g, k))
    total: dict[Value, Value] = {}
    for node in reversed(order):
        results = node.outputs
        b = builder_for(node)
        gradients: list[Value | None] = []
        followed = results if node.op.kind in (Kind.MAP, Kind.REGION) else ()
        call = Call(node, b, [_union([k for _, k in pending.get(t, [])], b) for t in followed])
        for t in results:
            parts = pending.pop(t, None)
            gradient = None if parts is None else _summed([g for g, _ in parts], b)
            if gradient is not None and t in wanted:
                total[t] = gradient
            gradients.append(None if t in stops else gradient)
        if node.serial not in needed or node.detached or all(g is None for g in gradients):
            continue
        with deriving(node.origin.scope):
            contributions = _apply_rule(call, gradients)
            masks = _masks(call)
            mask = call.mask
            for operand, contribution, inner in zip(node.inputs, contributions, masks, strict=True):
                if (
                    contribution is not None
                    and operand.dtype.is_float
                    and (operand.node.serial in needed or operand in wanted)
                ):
                    if mask is not None:
                        contribution = _applied(mask, contribution, gradients[0], b)
                    pending.setdefault(operand, []).append((contribution, inner))
    return [total.get(x) for x in xs]


def _between(order: Sequence[Node], wanted: set[Value], stops: set[Value]) -> set[int]:
    """Serials of nodes through which a wanted value reaches a root."""
    needed: set[int] = set()
    for node in order:
        for t in node.inputs:
            inner = t.node.serial in needed and t not in stops and not t.node.detached
            if (inner or t in wanted) and t.dtype.is_float:
                needed.add(node.serial)
                break
    return needed


def _summed(parts: list[Value], b: Builder) -> Value:
    return parts[0] if len(parts) == 1 else b.add_n(*parts)


def _union(kept: list[Kept], b: Builder) -> Kept:
    """The masks of a sum of cotangents: where one of them may differ from zero."""
    if not kept:
        return EVERYWHERE
    firm = functools.reduce(lambda one, other: _either(one, other, b), (k.firm for k in kept))
    if all(k.full is k.firm for k in kept):
        return Kept(firm, firm)
    return Kept(firm, functools.reduce(lambda one, other: _either(one, other, b), (k.full for k in kept)))


def _either(one: Mask | None, other: Mask | None, b: Builder) -> Mask | None:
    """The union of two masks; None, which is everywhere, where one holds where the other does not."""
    if one is None or other is None:
        return None
    if one.condition == other.condition:
        return one if one.keeps is other.keeps else None
    return Mask(b.logical_or(_holding(one, b), _holding(other, b)))


def _both(one: Mask | None, other: Mask | None, b: Builder) -> Mask | None:
    """The intersection of two masks."""
    if one is None or other is None:
        return one or other
    return Mask(b.logical_and(_holding(one, b), _holding(other, b)))


def _holding(mask: Mask, b: Builder) -> Value:
    """A condition that holds where the mask keeps."""
    return mask.condition if mask.keeps else b.logical_not(mask.condition)


def _masks(call: Call) -> Sequence[Kept]:
    """The masks of a node's operands' cotangents: its own cotangent's, and those that the op adds."""
    if call.op.kind is not Kind.MAP:
        return (EVERYWHERE,) * len(call.inputs)
    found, kept = [], call.kept[0]
    for own in call.op.masks(call):
        full = _both(kept.full, own, call.b)
        alike = kept.firm is kept.full and not (own and own.light)
        found.append(Kept(full if alike else kept.firm if own and own.light else _both(kept.firm, own, call.b), full))
    return found


def _applied(mask: Mask, contribution: Value, gradient: Value | None, b: Builder) -> Value:
    """A contribution with what is masked out at zero again."""
    if gradient is None or contribution == gradient or _keeps_zero(contribution, gradient):
        return contribution
    zero = b.zeros_like(contribution)
    return b.where(mask.condition, *((contribution, zero) if mask.keeps else (zero, contribution)))


def _keeps_zero(contribution: Value, gradient: Value) -> bool:
    """Whether a contribution is zero where the cotangent is: it is made of that and of fixed numbers only, as a scaling
    is."""
    node = contribution.node
    if node.op.kind is not Kind.MAP:
        return False
    operands = []
    for t in node.inputs:
        if t == gradient:
            operands.append(np.zeros((), t.dtype.storage))
            continue
        while t.node.op.kind is Kind.VIEW:
            t = t.node.inputs[0]
        if not isinstance(t.node.op, Constant) or t.size != 1:
            return False
        operands.append(t.node.op.array.reshape(()))
    with np.errstate(all="ignore"):
        return bool(node.op.reference(*operands) == 0)


def _apply_rule(call: Call, gradients: list[Value | None]) -> Sequence[Value | None]:
    node, op, b = call.node, call.op, call.b
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
    result: Sequence[Value | None] = op.vjp(call, *given)
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
