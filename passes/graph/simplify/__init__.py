"""Local rewriting to a fixed point: constants, arithmetic, logic, views and reductions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphcore.ir.graph import Graph
from passes.graph.base import Pass, Rule
from passes.graph.rewrite import rewrite
from passes.graph.simplify.algebra import ALGEBRA
from passes.graph.simplify.folding import FOLDING
from passes.graph.simplify.inexact import INEXACT
from passes.graph.simplify.logic import LOGIC
from passes.graph.simplify.reductions import REDUCTIONS
from passes.graph.simplify.views import VIEWS
from passes.stage import StageContext

__all__ = ["EXACT", "INEXACT", "Simplify"]

EXACT: tuple[Rule, ...] = (*VIEWS, *REDUCTIONS, *ALGEBRA, *LOGIC, *FOLDING)


@dataclass(frozen=True)
class Simplify(Pass):
    """Local rewriting to a fixed point; regions are not entered.

    Requires: a verified graph whose gradients have been taken and whose side updates are among its updates.
    Ensures: the same outputs, no dead nodes, no two equal nodes, origins and recomputation marks kept; running it again
    changes nothing.

    Attributes:
        rules: tried in this order on every node.
        contracts: rules with other promises are left out; add ``"reassociates"`` and so on to allow more.
    """

    name: ClassVar[str] = "simplify"
    rules: tuple[Rule, ...] = (*EXACT, *INEXACT)
    contracts: frozenset[str] = frozenset({"exact"})

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        return rewrite(graph, [r for r in self.rules if r.contract in self.contracts], ctx)
