"""What every graph-to-graph pass is made of: the pass, and rewrite rules.

A rule is a function of one node that gives an equal value or None; its docstring is its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import graphcore.ops  # noqa: F401 - rules build nodes by the names of ops
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Shape
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Builder, Node, Value
from graphcore.ir.op import Op, TensorType
from passes.stage import Stage, StageContext

__all__ = ["CONTRACTS", "Call", "Match", "OpClass", "Pass", "PassContext", "Replacement", "Rule", "rule"]

OpClass = type[Op]

# What a rule promises about numbers. Exact: the same bits for all operands, where all NaNs count as one value.
CONTRACTS = ("exact", "ignores-sign-of-zero", "reassociates", "ignores-nan")


PassContext = StageContext  # what graph passes are told and report is what all stages are and do


@dataclass(frozen=True)
class Pass(Stage[Graph, Graph]):
    """Base of the stages from graph to graph.

    A subclass's docstring says what it requires and ensures, and whether it enters regions.
    """

    name: ClassVar[str] = "pass"
    takes: ClassVar[type] = Graph
    gives: ClassVar[type] = Graph

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        """The rewritten graph; the given one is unchanged.

        Args:
            graph: a verified graph.
            ctx: limits for the pass, and where it counts and explains what it did.
        """
        raise TypeError(f"the pass {type(self).__name__} does not define run")


class Match:
    """A value as rules see it."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Whether this is the very same value."""
        return isinstance(other, Match) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    @property
    def node(self) -> Node:
        return self.value.node

    @property
    def op(self) -> Any:
        """The primitive that made the value; rules read its attributes once they know its class."""
        return self.value.node.op

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The operands as values."""
        return self.value.node.inputs

    @property
    def args(self) -> tuple[Match, ...]:
        """The operands."""
        return tuple(Match(t) for t in self.value.node.inputs)

    def arg(self, position: int) -> Match:
        """One operand."""
        return Match(self.value.node.inputs[position])

    def is_op(self, *classes: OpClass) -> bool:
        """Whether the value was made by an op of one of these classes."""
        return isinstance(self.value.node.op, classes)

    @property
    def splat(self) -> bool | int | float | None:
        """The number that all elements are, if that is known: a one-element constant, or a broadcast of one."""
        op = self.value.node.op
        if op.only_repeats:
            op = self.value.node.inputs[0].node.op
        if not isinstance(op, Constant) or op.array.size != 1:
            return None
        number = op.array.item()
        return float(number) if op.dtype.is_float else number

    def is_number(self, number: float) -> bool:
        """Whether all elements are known to be ``number``, the sign of a zero included."""
        known = self.splat
        return known is not None and known == number and math.copysign(1, known) == math.copysign(1, number)


class Call(Match):
    """The node that a rule looks at, and ``b``, through which the rule builds what replaces it.

    What ``b`` builds is interned and carries the node's origin, device and marks.
    """

    __slots__ = ("b",)

    def __init__(self, node: Node, b: Builder) -> None:
        super().__init__(Value(node, 0))
        self.b = b


Replacement = Value | Match | Sequence[Value] | None


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        name: the function's name.
        targets: op classes (base classes stand for all that derive from them) or op names it is tried on.
        function: gives an equal value, one for each result of the node, or None.
        contract: one of ``CONTRACTS``.
        formula: what it does, e.g. ``-(-x) -> x``.
    """

    name: str
    targets: tuple[str | OpClass, ...]
    function: Callable[[Call], Replacement]
    contract: str
    formula: str

    def __call__(self, call: Call) -> Replacement:
        return self.function(call)

    def fits(self, op: OpClass) -> bool:
        """Whether the rule is to be tried on ops of this class."""
        return any(op.name == t if isinstance(t, str) else issubclass(op, t) for t in self.targets)


def rule(*targets: str | OpClass, contract: str = "exact") -> Callable[[Callable[[Call], Replacement]], Rule]:
    """Make a function of a ``Call`` a rewrite rule; its docstring is its formula.

    Args:
        targets: op classes or names.
        contract: what it promises about numbers, one of ``CONTRACTS``.

    Raises:
        ValueError: no target, no formula or an unknown contract.
    """
    if not targets or contract not in CONTRACTS:
        raise ValueError(
            f"a rule needs ops to be tried on, and a contract of {', '.join(CONTRACTS)}; got {targets} and {contract!r}"
        )

    def make(function: Callable[[Call], Replacement]) -> Rule:
        name = function.__name__
        if not function.__doc__:
            raise ValueError(f"the rule {name} has no docstring; write its formula there")
        return Rule(name, targets, function, contract, function.__doc__.strip().splitlines()[0])

    return make
