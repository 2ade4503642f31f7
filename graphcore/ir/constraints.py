"""What a graph relies on about its extents: collected here, solved by ``specialize``, checked when feeds bind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphcore.base.errors import FeedError
from graphcore.base.shapes import Extent, bind, dim_min, symbols_of
from graphcore.ir.node import Named, Node, describe
from graphcore.ir.op import Condition, Kind

__all__ = ["Constraint", "check_constraints", "constraints_of"]


@dataclass(frozen=True)
class Constraint:
    """Two extents that must be equal in every run, or the first no smaller; and what to say where they are not."""

    have: Extent
    want: Extent
    text: str
    least: bool = False

    def check(self, sizes: Mapping[str, int], feeds: Mapping[str, Named] | None = None) -> None:
        """Raise FeedError unless it holds for these sizes; ``feeds`` are the tensors that gave them."""
        a, b = bind(self.have, sizes), bind(self.want, sizes)
        if a == b or (self.least and dim_min(a, b) == b):
            return
        given = [feeds[name] for name in sorted(symbols_of((self.have, self.want))) if name in feeds] if feeds else []
        lines = dict.fromkeys(f"\n  {describe(t)}" for t in given)
        text = self.text.replace("{have}", str(a)).replace("{want}", str(b))
        raise FeedError(text + "".join(line for line in lines if line not in text))


def constraints_of(nodes: Sequence[Node]) -> tuple[Constraint, ...]:
    """The equalities between extents that the ops of a graph rely on, those inside regions too."""
    found: dict[tuple[Extent, Extent, bool], Constraint] = {}
    pending = list(nodes)
    for node in pending:
        if node.op.kind is Kind.REGION:
            for body in node.op.bodies:  # type: ignore[attr-defined]
                pending += body.nodes()
        for condition in node.op.conditions(tuple(t.type for t in node.inputs), node.types):
            key = condition.have, condition.want, condition.least
            if condition.have != condition.want and key not in found:
                found[key] = Constraint(condition.have, condition.want, _text(node, condition), condition.least)
    return tuple(found.values())


def check_constraints(nodes: Sequence[Node], sizes: Mapping[str, int]) -> None:
    """Raise FeedError unless every equality that a graph relies on holds for these sizes."""
    for constraint in constraints_of(nodes):
        constraint.check(sizes)


def _text(node: Node, condition: Condition) -> str:
    """A template: ``{have}`` and ``{want}`` stand for the extents' values."""
    operand = node.inputs[0]
    what = f"axis {condition.axis} of {_quoted(operand.name)} is {{have}} in this feed, but "
    place = f"built at {_quoted(node.origin.place)}"
    if condition.why:
        what = f"{what}{condition.why}, {place}, needs it to be "
    else:
        what = f"{what}the op {place} needs it to be "
    what += "at least {want}" if condition.least else f"{{want}}: {condition.have} must equal {condition.want}"
    lines = (describe(operand), *([condition.against] if condition.against else []))
    return what + "".join(f"\n  {_quoted(line)}" for line in lines)


def _quoted(text: str) -> str:
    """A user's text inside a template of ``Constraint``."""
    return text.replace("{have}", "{ have}").replace("{want}", "{ want}")
