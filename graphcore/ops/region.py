"""Regions: ops that own graphs. Captures are explicit inputs, so a body is closed.

``checkpoint`` computes its body and recomputes it for the gradient; ``custom_gradient`` computes its body and takes the
gradient from a rule that the user gave. Before fusion both are inlined; autodiff sees them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from graphcore.base.errors import GradientError
from graphcore.base.shapes import agree
from graphcore.ir.agreement import taken
from graphcore.ir.graph import Graph, inline
from graphcore.ir.node import Builder
from graphcore.ir.op import Kind, Op, TensorType, primitive

__all__ = ["Checkpoint", "CustomGradient", "Region"]


class Region(Op):
    """An op with bodies; its operands are the first body's inputs."""

    kind = Kind.REGION
    arity = None
    runs_once: ClassVar[bool] = True
    bodies: tuple[Graph, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return tuple(t.type for t in self.bodies[0].outputs)


@primitive
class Checkpoint(Region):
    """The body's outputs. Its intermediate values are not kept for the gradient but computed again."""

    bodies: tuple[Graph, ...]
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """Differentiate a marked copy of the body: the mark keeps it from being merged with the original."""
        serial = call.node.serial + 1
        copies = inline(self.bodies[0], call.inputs, clone=serial, derived=True)
        return call.differentiate(copies, call.inputs, gradients)  # type: ignore[no-any-return]


@primitive
class CustomGradient(Region):
    """The body's outputs with a user's gradient: ``rule(*gradients of the first ``results`` outputs) -> gradients of
    the first ``arguments`` inputs``. The other outputs are new values of variables."""

    cosmetic: ClassVar[frozenset[str]] = Region.cosmetic | {"rule"}  # used up before a run
    bodies: tuple[Graph, ...]
    rule: Callable[..., Any]
    arguments: int
    place: str
    results: int
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        body = self.bodies[0]
        pairs = list(zip(gradients, call.outs, strict=True))[: self.results]
        filled = [g if g is not None else Builder().zeros_like(t) for g, t in pairs]
        answer = self.rule(*filled)
        given = tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)
        if len(given) != self.arguments:
            raise GradientError(
                f"custom_gradient: the function at {self.place} has {self.arguments} arguments, its gradient "
                f"function gave {len(given)} gradients"
            )
        for i, (g, t) in enumerate(zip(given, body.inputs, strict=False)):
            if g is not None and (g.dtype != t.dtype or not agree(g.shape, t.shape)):
                raise GradientError(
                    f"custom_gradient: gradient {i + 1} of the function at {self.place} is {g.type}, its argument is "
                    f"{t.type}"
                )
        present = tuple(
            taken(g, t.shape, "custom_gradient", t) for g, t in zip(given, body.inputs, strict=False) if g is not None
        )
        # The rule closes over values inside the body; outside they are the body's copies over the real operands.
        moved = iter(inline(Graph(present, (), body.inputs), call.inputs, derived=True) if present else ())
        return (*(None if g is None else next(moved) for g in given), *(None for _ in call.inputs[self.arguments :]))
