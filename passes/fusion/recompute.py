"""Narrowing the cut: values that are cheaper to compute again than to store and load are not stored.

A stored elementwise value is recomputed by its readers when everything it is made of is in memory anyway and the
target's cost model says that the arithmetic costs less than the traffic. This is what keeps a GELU's or a ReLU's
backward from storing intermediate values, and what lets a chain of elementwise work vanish into its only reader.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import ClassVar

from graphcore.base.shapes import typical
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind, Map, Reduce
from graphcore.kernel import functions
from graphcore.kernel.ir import KernelKind
from graphcore.plan.target import Target
from passes.fusion.partition import Group, Partition, contraction_of, is_inline, is_scalar_constant
from passes.stage import Stage, StageContext

__all__ = ["Recompute"]

Readers = dict[Value, dict[int, Group]]  # the groups that read a value, by number

_GATHER = 16.0  # operations that an element is worth which an index names
_MOST_IN_A_PROLOGUE = 20.0  # operations of a product on an element that it loads: a cast, a scale, a gather
_SMALL_SUM = 1024  # elements that every task of a reader may add up again, to save a kernel that makes one number
_TASKS = 8
_MAX_OPS = 24
_MAX_CHAIN = 32  # ops that a reader may compute again one after the other: chains of recomputed values end somewhere


@dataclass(frozen=True)
class Recompute(Stage[Partition, Partition]):
    """Narrow the cut.

    Requires: groups in an order in which they can run.
    Ensures: the same groups with fewer stored values, without those that store nothing any more; results stay stored.
    """

    name: ClassVar[str] = "recompute"
    takes: ClassVar[type] = Partition
    gives: ClassVar[type] = Partition

    def run(self, partition: Partition, ctx: StageContext, /) -> Partition:
        return narrow_the_cut(partition, ctx)


def narrow_the_cut(partition: Partition, ctx: StageContext) -> Partition:
    """The same groups with fewer stored values."""
    target, forced = ctx.target, partition.pinned
    partition = replace(partition, groups=[replace(g, reads=dict(g.reads)) for g in partition.groups])
    home = partition.group_of()
    readers: Readers = {}
    for group in partition.groups:
        for key in group.reads:
            if key in home:
                readers.setdefault(key, {})[group.number] = group
    stored = {t for g in partition.groups for t in g.stored}
    chosen: set[Value] = set(partition.recomputed)
    above: dict[Value, int] = {}  # how many ops its readers compute again on top of a value
    for group in reversed(partition.groups):
        root = _common_root(group, stored, chosen, forced, readers, target)
        if root is not None:
            stored.add(root)
            group.stored = [
                t for node in group.nodes for t in node.outputs if t == root or any(t == s for s in group.stored)
            ]
            ctx.say(
                f"{root.node.op.name} at {root.node.origin} is stored: several values that others read are made of it"
            )
        vanishes = _vanishes(group, stored, chosen, forced, readers, target)
        for t in reversed(group.stored):
            if t in forced or t not in readers:
                continue
            frontier = _frontier(t, stored, chosen)
            if frontier is None:
                continue
            gain = _gain(t, frontier, readers[t], target)
            chain = above.get(t, 0) + len(frontier[2])
            if gain is None or chain > _MAX_CHAIN or (gain <= 0 and not vanishes):
                ctx.say(f"{t.node.op.name} at {t.node.origin} is stored: {len(readers[t])} other kernels read it")
                continue
            chosen |= {t} | (frontier[2] - stored)
            for source in frontier[0]:
                above[source] = max(above.get(source, 0), chain)
            for reader in readers[t].values():
                reader.reads.pop(t, None)
                for source in frontier[0]:
                    if source not in reader.members:
                        reader.reads.setdefault(source, source)
                    if source in home and home[source] is not reader:
                        readers.setdefault(source, {})[reader.number] = reader
            ctx.say(
                f"{t.node.op.name} at {t.node.origin} is computed again by its {len(readers[t])} readers: "
                f"cheaper than storing it"
            )
        group.stored = [t for t in group.stored if t not in chosen]
    return replace(partition, groups=tuple(g for g in partition.groups if g.stored), recomputed=frozenset(chosen))


def _common_root(
    group: Group, stored: set[Value], chosen: set[Value], forced: AbstractSet[Value], readers: Readers, target: Target
) -> Value | None:
    """A member to be stored so that several stored members, which are elementwise made of it, need not be.

    A GELU's backward reads three values made of the product's result: storing that one is a third of the traffic and
    memory.
    """
    stuck = [t for t in group.stored if t not in forced and t in readers and _frontier(t, stored, chosen) is None]
    if len(stuck) < 2:
        return None
    best: Value | None = None
    best_gain = 0.0
    for root in [t for node in group.nodes for t in node.outputs if t not in stored and t.size == stuck[0].size]:
        stored.add(root)
        gain = _gain_of_root(root, stuck, stored, chosen, readers, target)
        stored.discard(root)
        if gain > 0 and gain >= best_gain:
            best, best_gain = root, gain
    return best


def _gain_of_root(
    root: Value, stuck: list[Value], stored: set[Value], chosen: set[Value], readers: Readers, target: Target
) -> float:
    total = -target.costs.traffic_seconds(typical(root.size) * root.dtype.itemsize)
    loaded: set[tuple[int, Value]] = set()
    for t in stuck:
        frontier = _frontier(t, stored, chosen)
        if frontier is None or not any(s == root for s in frontier[0]):
            continue
        gain = _gain(t, frontier, readers[t], target, loaded)
        if gain is not None and gain > 0:
            total += gain
            loaded |= {(number, root) for number in readers[t]}
    return total


def _vanishes(
    group: Group, stored: set[Value], chosen: set[Value], forced: AbstractSet[Value], readers: Readers, target: Target
) -> bool:
    """Whether all that a group stores is better computed again, counting that its kernel is gone and need not be
    started."""
    total = target.costs.kernel_seconds
    for t in group.stored:
        frontier = _frontier(t, stored, chosen) if t not in forced and t in readers else None
        gain = _gain(t, frontier, readers[t], target) if frontier is not None else None
        if gain is None:
            return False
        total += gain
    return total > 0


def _frontier(t: Value, stored: set[Value], chosen: set[Value]) -> tuple[list[Value], float, set[Value]] | None:
    """What ``t`` is elementwise made of: values in memory, flops per element, values passed through. None if it is not
    elementwise."""
    flops = 0.0
    found: dict[Value, Value] = {}
    seen: set[Value] = {t}
    sums = False
    stack = [t]
    while stack:
        value = stack.pop()
        node = value.node
        if is_scalar_constant(node):
            continue
        in_memory = value in stored and value not in chosen and not sums
        if value != t and (node.op.kind is Kind.LEAF or in_memory):
            found[value] = value
            continue
        if _is_small_sum(node):
            sums = True
            flops += typical(node.inputs[0].size)
        elif not is_inline(node):
            if node.op.kind not in (Kind.MAP, Kind.OPAQUE) or node.op.loops:
                return None
            flops += _flops(node)
        if len(seen) > _MAX_OPS:
            return None
        for operand in node.inputs:
            if operand not in seen:
                seen.add(operand)
                stack.append(operand)
    if sums and any(s.node.op.kind is not Kind.LEAF for s in found.values()):
        return None  # below a sum everything is computed from what is in memory anyway
    return list(found.values()), flops, seen - found.keys()


def _is_small_sum(node: Node) -> bool:
    """Whether a node adds up few elements to one number: how many labels count, say."""
    return (
        isinstance(node.op, Reduce)
        and node.op.combine == "add"
        and node.types[0].size == 1
        and typical(node.inputs[0].size) <= _SMALL_SUM
    )


def _gain(
    t: Value,
    frontier: tuple[list[Value], float, set[Value]],
    readers: dict[int, Group],
    target: Target,
    loaded: AbstractSet[tuple[int, Value]] = frozenset(),
) -> float | None:
    """Seconds that readers win by computing a value again; None where they cannot or where it never pays.

    ``loaded`` are groups' numbers with values that they are going to read anyway.
    """
    sources, flops, _ = frontier
    points = typical(t.size)
    if points == 1 and all(typical(s.size) == 1 for s in sources):
        # A scalar is computed once a task wherever it is needed; a kernel of its own would cost a launch.
        return target.costs.kernel_seconds
    nbytes = points * t.dtype.itemsize
    saved = float(nbytes)
    extra_reads = 0.0
    extra_flops = -flops * points
    for reader in readers.values():
        product = _product_of(t, reader)
        loads = 1.0 if product is None else _loads(product, t, target)
        if loads is None or (product is not None and flops > _MOST_IN_A_PROLOGUE):
            return None  # a product reads every element many times
        saved += nbytes * loads
        if reader.kind is KernelKind.WINDOW and any(n.op.loops for n in reader.nodes):
            return None
        extra_flops += flops * points * (_repeats(points, reader) if product is None else loads)
        for source in sources:
            if source not in reader.reads and source not in reader.members and (reader.number, source) not in loaded:
                extra_reads += min(typical(source.size), points) * source.dtype.itemsize * loads
    if any(typical(s.size) > points * 1.01 and s.node.op.kind is not Kind.LEAF for s in sources):
        return None  # a larger value would have to be kept
    return target.costs.traffic_seconds(saved - extra_reads) - target.costs.elementwise_seconds(max(extra_flops, 0.0))


def _repeats(points: float, reader: Group) -> float:
    """How often the reader would compute each element: once where the value has the size of its rows or of its
    domain."""
    if points == 1:
        return _TASKS
    domain, rows = 1.0, 1.0
    for extent in reader.shape:
        domain *= typical(extent)
    for axis in reader.axes:
        if axis not in (reader.columns or ()):
            rows *= typical(axis.extent)
    if points == rows:
        return 1.0
    return max(domain / max(points, 1.0), 1.0) * (1 + reader.reductions)


def _loads(product: Node, t: Value, target: Target) -> float | None:
    """How often a product loads, and so computes, each element of a value that an operand is made of. None if it must
    not."""
    roles = contraction_of(product)
    if roles is None or target.loads is None:
        return None
    shapes = (*(u.shape for u in product.inputs), product.types[0].shape)
    return target.loads(roles, shapes, int(_reaches(product.inputs[1], t)), typical(t.size))


def _flops(node: Node) -> float:
    if node.op.kind is Kind.OPAQUE:
        return _GATHER
    return 1.0 if isinstance(node.op, Map) and node.op.cheap else functions.cost("exp")


def _product_of(t: Value, reader: Group) -> Node | None:
    """The product in the reading group that a value is an operand of, looking through inline nodes."""
    return next(
        (n for n in reader.nodes if n.op.kind is Kind.CONTRACT and any(_reaches(operand, t) for operand in n.inputs)),
        None,
    )


def _reaches(operand: Value, t: Value) -> bool:
    """Whether an operand is ``t``, looking through inline nodes."""
    stack = [operand]
    while stack:
        value = stack.pop()
        if value == t:
            return True
        if is_inline(value.node):
            stack.extend(value.node.inputs)
    return False
