"""Regions that only group nodes are inlined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from support.rewrites import check_rewrite, expression, run_passes
from support.values import node_of

from graphcore.api.tensor import Builder, Tensor, wrap
from graphcore.api.variable import placeholder
from graphcore.base import source
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Parameter
from graphcore.ir.op import Kind, Op, TensorType
from graphcore.ops.region import Checkpoint
from passes.graph.base import PassContext
from passes.graph.inline_regions import InlineRegions
from passes.graph.simplify import Simplify


def _x(shape: Any = (2,), name: str = "x") -> Tensor:
    return placeholder("float32", shape, name=name)


def _region(build: Callable[..., Tensor], *inputs: Tensor, clone: int = 0) -> Tensor:
    parameters = tuple(wrap(node_of(Parameter(t.shape, t.dtype), ()).output()) for t in inputs)
    op: Op = Checkpoint((Graph((build(*parameters),), (), parameters),))
    return wrap(node_of(op, inputs, clone=clone).output())


def test_regions_are_inlined_with_those_inside_them() -> None:
    b, x = Builder(), _x()
    inner = _region(lambda p: _region(lambda q, r: b.mul(q, r), b.tanh(p), p), x)
    check_rewrite(
        b.add(inner, x),
        [InlineRegions()],
        """
        %0 = placeholder(shape=(2), dtype=float32, label=x) : float32(2,)
        %1 = tanh(%0) : float32(2,)
        %2 = mul(%1, %0) : float32(2,)
        %3 = add(%2, %0) : float32(2,)
        return %3
        """,
    )


def test_inlined_recomputations_keep_their_mark() -> None:
    b, x = Builder(), _x()
    graph = Graph((_region(b.tanh, x), _region(b.tanh, x, clone=5)))
    after = run_passes(graph, [InlineRegions(), Simplify()])
    assert [t.node.clone for t in after.outputs] == [0, 5]
    assert [expression(t) for t in after.outputs] == ["tanh(x)", "tanh(x)"]


def test_bodies_of_a_gradients_region_are_part_of_the_gradient() -> None:
    b, x = Builder(), _x()
    region = _region(b.tanh, x).node
    copy = node_of(region.op, region.inputs, source.derived(region.origin))
    after = InlineRegions().run(Graph((region.output(), copy.output())), PassContext())
    assert [t.node.op.name for t in after.outputs] == ["tanh", "tanh"]
    assert [t.node.origin.derived for t in after.outputs] == [False, True]


def test_regions_of_other_kinds_stay() -> None:
    @dataclass(frozen=True, eq=False)
    class Repeat(Op):
        """The body, run several times."""

        bodies: tuple[Graph, ...]
        name: ClassVar[str] = "test_repeat"
        kind: ClassVar[Kind] = Kind.REGION
        runs_once: ClassVar[bool] = False

        def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
            return tuple(t.type for t in self.bodies[0].outputs)

    b, x = Builder(), _x()
    region = _region(b.tanh, x)
    repeat = node_of(Repeat(region.node.op.bodies), (region,))  # type: ignore[attr-defined]
    after = InlineRegions().run(Graph((repeat.output(),)), PassContext())
    assert after.outputs[0].node.op is repeat.op
    assert after.outputs[0].node.inputs[0].node.op.name == "tanh"


def test_many_regions_are_inlined_in_one_sweep() -> None:
    b, t = Builder(), _x()
    for _ in range(2000):
        t = _region(b.tanh, t)
    ctx = PassContext()
    after = InlineRegions().run(Graph((t,)), ctx)
    assert ctx.hits == {"inline-regions": 2000}
    assert ctx.visits == 2001
    assert len(after.nodes()) == 2001
