"""The driver of rewrite rules: one sweep from the operands up, interning while it builds.

A node is looked at when its operands are settled, that is, in their final form. It is interned over them (so equal
nodes are one), and the rules of its op are tried. What a rule builds is settled in the same way before it replaces the
node. Users are built only afterwards, over the replacement: nothing is ever updated in place, no list of users is kept,
and dead nodes are not visited. Every settled node has seen all its rules over settled operands, so one sweep reaches
the fixed point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphcore.base.dtypes import DType
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Dim
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Builder, Node, Value
from graphcore.ir.op import Effect, Op
from passes.graph.base import Call, Match, Replacement, Rule
from passes.stage import StageContext

__all__ = ["rewrite"]

_GROWTH = 16  # nodes that rules may build, per node of the graph
_GROWTH_FLOOR = 4096
_EFFECT_WALK = 64  # nodes looked at to see that a rewrite keeps the effects below a node
_NO_FLOATS = {int, bool, str, type(None), Dim, DType}

Values = tuple[Value, ...]


def rewrite(graph: Graph, rules: Sequence[Rule], ctx: StageContext) -> Graph:
    """Apply rules until none fires, merge equal nodes and drop what nothing needs.

    Args:
        graph: side updates are already among its updates; regions are not entered.
        rules: tried in this order on every node of an op they fit.
        ctx: fuel, counters and explanations.

    Returns:
        The new graph; the given one if nothing changed.

    Raises:
        VerifyError: a rule gave a value of another type, or built an op with an effect.
    """
    return _Sweep(graph, rules, ctx).run()


class _Sweep:
    """One run.

    Attributes:
        settled: a node's values in their final form.
        awaited: what a node will be replaced by, once that is settled. Such a node is on the stack.
        twin: the interned node over settled operands, where that is another one.
        below_effect: settled nodes that have an op with an effect below them or are one.
    """

    def __init__(self, graph: Graph, rules: Sequence[Rule], ctx: StageContext) -> None:
        self.graph = graph
        self.rules = tuple(rules)
        self.ctx = ctx
        # Build order, which ops with effects keep. Gradients come last: of equal nodes the forward one stays, and its
        # line with it.
        self.order = sorted(
            graph.nodes(), key=lambda node: (node.origin.derived and node.op.effect is Effect.PURE, node.serial)
        )
        self.table: dict[Any, Node] = {}
        self.settled: dict[int, Values] = {}
        self.awaited: dict[int, Values] = {}
        self.twin: dict[int, Node] = {}
        self.below_effect: set[int] = set()
        self.effects_moved = False
        self.rules_of: dict[type[Op], tuple[Rule, ...]] = {}
        self.room = _GROWTH * len(self.order) + _GROWTH_FLOOR
        self.current: Node | None = None
        self.builder = Builder(make=self.build)

    def run(self) -> Graph:
        try:
            for node in self.order:
                self.settle(node)
        finally:
            del self.builder  # it builds through this object: a circle of the two would keep the graph
        old = self.graph.roots
        new = [self.value(t) for t in old]
        return self.graph if tuple(new) == old else self.graph.with_roots(new)

    def value(self, t: Value) -> Value:
        """The settled form of a value."""
        return self.settled[t.node.serial][t.index]

    def settle(self, start: Node) -> None:
        """Settle a node and, before it, all that it needs. The stack replaces recursion: any depth works."""
        stack = [start]
        while stack:
            node = stack[-1]
            if node.serial in self.settled:
                stack.pop()
                continue
            awaited = self.awaited.get(node.serial)
            needs = [
                t.node for t in (awaited if awaited is not None else node.inputs) if t.node.serial not in self.settled
            ]
            if needs:
                stack.extend(n for n in needs if not self.breaks_loop(n))
            elif awaited is not None:
                self.settled[node.serial] = tuple(self.value(t) for t in awaited)
                del self.awaited[node.serial]
            else:
                self.visit(node)

    def breaks_loop(self, node: Node) -> bool:
        """A node whose own replacement needs it keeps its form."""
        if node.serial not in self.awaited:
            return False
        self.ctx.loops += 1
        self.ctx.say(f"{node}: rules undo each other here; the node was kept")
        kept = self.twin.get(node.serial, node)
        self.keep(kept)
        self.settled[node.serial] = kept.outputs
        return True

    def visit(self, node: Node) -> None:
        """Intern a node over its settled operands; try the rules if it is the first of its kind."""
        inputs = tuple(self.value(t) for t in node.inputs)
        same = inputs == node.inputs
        if node.op.effect is not Effect.PURE:
            self.keep_effect(node, inputs, same)
            return
        interned = self.intern(node.op, inputs, node.clone, node.device, lambda: node if same else _over(node, inputs))
        if interned is not node:
            self.awaited[node.serial] = interned.outputs
            self.twin[node.serial] = interned
            return
        replacement = self.try_rules(node)
        if replacement is None:
            self.keep(node)
        else:
            self.awaited[node.serial] = replacement

    def intern(self, op: Op, inputs: Values, clone: int, device: str | None, make: Callable[[], Node]) -> Node:
        """The node equal to this one; ``make`` gives it if it is the first."""
        key = _key(op, inputs, clone, device)
        if key is None:
            return make()
        try:
            found = self.table.get(key)
        except TypeError:  # an op of a user with an attribute that cannot be hashed
            return make()
        if found is None:
            found = self.table[key] = make()
        return found

    def keep_effect(self, node: Node, inputs: Values, same: bool) -> None:
        """Settle an op with an effect. Once one is built anew, all later ones are: serials still tell their order."""
        self.effects_moved = self.effects_moved or not same
        kept = _over(node, inputs) if self.effects_moved else node
        self.keep(kept)
        self.settled[node.serial] = kept.outputs

    def keep(self, node: Node) -> None:
        """Settle a node as it is."""
        self.settled[node.serial] = node.outputs
        if node.op.effect is not Effect.PURE or any(t.node.serial in self.below_effect for t in node.inputs):
            self.below_effect.add(node.serial)

    def try_rules(self, node: Node) -> Values | None:
        """What the first rule that fires puts in the node's place."""
        self.ctx.visits += 1
        op = type(node.op)
        if op not in self.rules_of:
            self.rules_of[op] = tuple(r for r in self.rules if r.fits(op))
        self.current = node
        call = Call(node, self.builder)
        for rule in self.rules_of[op]:
            if self.ctx.exhausted or self.room <= 0:
                return None
            self.ctx.attempts += 1
            found = _checked(rule, node, rule(call))
            if found is not None and self.keeps_effects(node, found):
                self.ctx.hit(rule.name)
                if self.ctx.verbose:
                    self.ctx.say(f"{node}: {rule.name}: {rule.formula}")
                return found
        return None

    def build(self, op: Op, inputs: Values) -> Node:
        """A node for a rule: the interned one, or a new one with the marks of the node that the rule looks at."""
        like = self.current
        assert like is not None
        if op.effect is not Effect.PURE:
            raise VerifyError(f"a rule for {like} builds {op.name}, which has an effect")
        clone = like.clone if inputs else 0  # constants need no copies

        def make() -> Node:
            self.room -= 1
            if self.room == 0:
                self.ctx.say(f"{like}: rewriting stopped: rules built {_GROWTH} times as many nodes as the graph had")
            types = op.infer(*(t.type for t in inputs))
            return Node(op, inputs, types, like.origin, detached=like.detached, clone=clone, device=like.device)

        return self.intern(op, inputs, clone, like.device, make)

    def keeps_effects(self, node: Node, replacement: Values) -> bool:
        """Whether every op with an effect below a node is still below its replacement.

        The answer is no where that takes long to tell.
        """
        pending = [t.node for t in node.inputs if t.node.serial in self.below_effect]
        if not pending:
            return True
        reached: set[int] = set()
        fresh = [t.node for t in replacement]
        while fresh and len(reached) < _EFFECT_WALK:
            found = fresh.pop()
            if found.serial not in reached:
                reached.add(found.serial)
                if found.serial not in self.settled:
                    fresh.extend(t.node for t in found.inputs)
        for _ in range(_EFFECT_WALK):
            if not pending:
                return True
            below = pending.pop()
            if below.serial in reached:
                continue
            if below.op.effect is not Effect.PURE:
                return False
            pending.extend(t.node for t in below.inputs if t.node.serial in self.below_effect)
        return not pending


def _over(node: Node, inputs: Values) -> Node:
    """The node over settled operands of the same types, without its side updates, which were collected before."""
    return Node(node.op, inputs, node.types, node.origin, detached=node.detached, clone=node.clone, device=node.device)


def _checked(rule: Rule, node: Node, replacement: Replacement) -> Values | None:
    """A rule's answer as one value for every result of the node; None if it leaves the node as it is."""
    if replacement is None:
        return None
    if isinstance(replacement, Match):
        replacement = replacement.value
    values = (replacement,) if isinstance(replacement, Value) else tuple(replacement)
    given = tuple(t.type for t in values)
    if given != node.types:
        old, new = ", ".join(map(str, node.types)), ", ".join(map(str, given))
        raise VerifyError(f"the rule {rule.name} replaced {node}, of type {old}, by {new}")
    if values == node.outputs:
        return None
    return values


def _key(op: Op, inputs: Values, clone: int, device: str | None) -> Any:
    """What makes two nodes equal; None for a node that is equal to no other."""
    if isinstance(op, Constant):
        return (op.digest, clone, device) if op.digest else None  # without a digest, nobody looked at its bytes
    operands: Any = tuple((t.node.serial, t.index) for t in inputs)
    if len(operands) == 2 and operands[1] < operands[0] and op.commutes(inputs[0].dtype):
        operands = operands[::-1]
    return type(op), op, operands, clone, device, _float_attributes(op)


def _float_attributes(op: Op) -> tuple[str, ...]:
    """Float attributes as text: 0.0 and -0.0 are equal numbers but different attributes, and NaN is equal to itself."""
    found = []
    for name in op.attribute_names():
        value = getattr(op, name)
        if type(value) in _NO_FLOATS:
            continue
        kinds = set(map(type, value)) if isinstance(value, tuple) else {type(value)}
        if not kinds <= _NO_FLOATS and any(issubclass(kind, float) for kind in kinds):
            found.append(f"{name}={value!r}")
    return tuple(found)
