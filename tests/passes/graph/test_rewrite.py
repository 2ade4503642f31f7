"""The rewrite driver: sharing, dead nodes, marks, effects and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from support.rewrites import assert_same_bits, check_rewrite, evaluate, expression, run_passes
from support.values import node_of

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import Variable, placeholder
from graphcore.base import source
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph, verify_graph
from graphcore.ir.leaves import Constant, Parameter
from graphcore.ir.node import Node, device, no_grad
from graphcore.ir.op import Effect, Map, Op, Opaque, TensorType
from graphcore.ops.arithmetic import Add, Mul, Neg, Sub
from passes.graph.base import Call, Pass, PassContext, Replacement, Rule, rule
from passes.graph.rewrite import rewrite
from passes.graph.simplify import EXACT, Simplify


# Ops of these tests, kept out of the registry.
@dataclass(frozen=True)
class _Print(Op):
    """x, shown to the user."""

    name: ClassVar[str] = "test_print"
    effect: ClassVar[Effect] = Effect.HOST

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return inputs

    def reference(self, *inputs: Any) -> Any:
        return inputs[0]


@dataclass(frozen=True)
class _MinMax(Opaque):
    """The minimum and the maximum of two operands."""

    name: ClassVar[str] = "test_minmax"
    arity: ClassVar[int | None] = 2

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return inputs

    def reference(self, *inputs: Any) -> Any:
        return np.minimum(*inputs), np.maximum(*inputs)


@dataclass(frozen=True)
class _Attributes(Map):
    """x, with attributes of any kind."""

    value: Any = 0.0
    name: ClassVar[str] = "test_attributes"

    def reference(self, *inputs: Any) -> Any:
        return inputs[0]


@rule(Neg)
def negation_twice(call: Call) -> Replacement:
    """-(-x) -> x"""
    return call.arg(0).arg(0) if call.arg(0).is_op(Neg) else None


def _x(shape: Any = (2,), name: str = "x") -> Tensor:
    return placeholder("float32", shape, name=name)


def _interned(graph: Graph, *rules: Rule) -> Graph:
    result = rewrite(graph, rules, PassContext())
    verify_graph(result)
    return result


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_equal_nodes_become_one() -> None:
    b, x = Builder(), _x()
    first, second = b.tanh(b.add(x, 2.0)), b.tanh(b.add(x, 2.0))
    check_rewrite(
        b.mul(first, second),
        [Simplify()],
        """
        %0 = placeholder(shape=(2), dtype=float32, label=x) : float32(2,)
        %1 = constant(2.0) : float32()
        %2 = broadcast(%1, shape=(2)) : float32(2,)
        %3 = add(%0, %2) : float32(2,)
        %4 = tanh(%3) : float32(2,)
        %5 = mul(%4, %4) : float32(2,)
        return %5
        """,
    )


def test_of_equal_nodes_a_gradients_goes() -> None:
    x = placeholder("float32", (2,))
    line = source.capture()
    early, late = Builder(source.derived(line)).exp(x), Builder(line).exp(x)
    after = run_passes(Graph((early, late)), [Simplify()])
    assert after.outputs[0] == after.outputs[1]
    assert not after.outputs[0].node.origin.derived


def test_operands_of_commutative_ops_may_be_swapped() -> None:
    b, x, y = Builder(), _x(), _x(name="y")
    pairs = {"add": 1, "mul": 1, "sub": 2, "maximum": 2, "equal": 1}
    for name, count in pairs.items():
        graph = _interned(Graph((getattr(b, name)(x, y), getattr(b, name)(y, x))))
        assert len(set(graph.outputs)) == count, name
    i, j = placeholder("int32", (2,)), placeholder("int32", (2,))
    graph = _interned(Graph((b.maximum(i, j), b.maximum(j, i))))
    assert graph.outputs[0] == graph.outputs[1]


def test_constants_are_equal_by_their_bytes() -> None:
    def make(value: Any, dtype: str = "float32") -> Tensor:
        return node_of(Constant.of(value, placeholder(dtype, ()).dtype), ()).output()

    b, x = Builder(), _x(())
    same = _interned(Graph((b.add(x, make(2)), b.add(x, make(2)))))
    assert same.outputs[0] == same.outputs[1]
    zeros = _interned(Graph((b.add(x, make(0.0)), b.add(x, make(-0.0)))))
    assert zeros.outputs[0] != zeros.outputs[1]
    unseen = [node_of(Constant(np.array(v, np.float32), x.dtype), ()).output() for v in (1, 2)]  # made without a digest
    kept = _interned(Graph(tuple(b.add(x, c) for c in unseen)))
    assert kept.outputs[0] != kept.outputs[1]


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (0.0, -0.0, False),
        (1.5, 1.5, True),
        (float("nan"), float("nan"), False),
        ((1.0, 0.0), (1.0, -0.0), False),
        ([1], [1], False),
    ],
)
def test_attributes_decide_equality(one: Any, other: Any, merged: bool) -> None:
    x = _x()
    graph = _interned(Graph(tuple(node_of(_Attributes(v), (x,)).output() for v in (one, other))))
    assert (graph.outputs[0] == graph.outputs[1]) is merged


def test_placeholders_are_never_merged_and_reads_of_a_variable_are() -> None:
    b, variable = Builder(), Variable(np.zeros(2, np.float32), name="v")
    copy = node_of(variable.node.op, ()).output()
    graph = _interned(Graph((b.neg(variable), b.neg(copy), b.neg(_x(name="a")), b.neg(_x(name="a")))))
    assert len(set(graph.outputs)) == 3


def test_labels_do_not_count() -> None:
    b, x = Builder(), _x(())
    op = Constant.of(3, x.dtype)
    named = Constant(op.array, op.dtype, op.digest, "three")
    graph = _interned(Graph((b.add(x, node_of(op, ()).output()), b.add(x, node_of(named, ()).output()))))
    assert graph.outputs[0] == graph.outputs[1]


def test_recomputations_are_not_merged_and_keep_their_mark() -> None:
    x = _x()
    original, clone = node_of(Neg(), (x,)), node_of(Neg(), (x,), clone=7)
    nested = node_of(Neg(), (node_of(Neg(), (clone.output(),), clone=7).output(),), clone=7)
    graph = _interned(Graph((original.output(), nested.output())), negation_twice)
    assert [t.node.clone for t in graph.outputs] == [0, 7]
    assert graph.outputs[1].node is clone
    built = run_passes(Graph((node_of(Add(), (x, clone.output()), clone=7).output(),)), [Simplify()])
    assert expression(built.outputs[0]) == "sub(x, x)"
    assert built.outputs[0].node.clone == 7


# --- what stays -------------------------------------------------------------------------------------------------------


def test_a_graph_that_nothing_changes_comes_back() -> None:
    b, x = Builder(), _x()
    graph = Graph((b.tanh(x), x))
    assert rewrite(graph, EXACT, PassContext()) is graph
    partly = Graph((b.tanh(b.neg(x)), b.exp(b.neg(b.neg(x)))))
    result = _interned(partly, negation_twice)
    assert result.outputs[0].node is partly.outputs[0].node
    assert result.outputs[1].node is not partly.outputs[1].node


def test_dead_nodes_are_not_visited() -> None:
    b, x = Builder(), _x()
    live, ctx = b.tanh(x), PassContext()
    for _ in range(50):
        b.exp(b.neg(x))
    rewrite(Graph((live,)), EXACT, ctx)
    assert ctx.visits == 2


def test_rebuilt_and_new_nodes_keep_origin_marks_and_device() -> None:
    x = _x()
    with source.name_scope("block"), no_grad(), device("opencl:1"):
        b = Builder()
        summed = b.add(x, b.neg(b.tanh(x)))
        result = b.exp(summed)
    graph = run_passes(Graph((result,)), [Simplify()])
    top = graph.outputs[0].node
    assert expression(graph.outputs[0]) == "exp(sub(x, tanh(x)))"
    for new, old in ((top, result.node), (top.inputs[0].node, summed.node)):
        assert new is not old
        assert (new.origin, new.detached, new.device) == (old.origin, True, "opencl:1")


def test_side_updates_are_dropped_from_rebuilt_nodes() -> None:
    b, x = Builder(), _x()
    variable = Variable(np.zeros(2, np.float32), name="v")
    node = node_of(Neg(), (b.neg(b.neg(x)),), updates=((variable.slot, x.value),))
    graph = rewrite(Graph((node.output(),), ((variable, b.neg(b.neg(x))),)), [negation_twice], PassContext())
    assert not graph.outputs[0].node.updates
    assert graph.updates[0][0] is variable.slot
    assert graph.updates[0][1] == x.value


def test_bodies_keep_their_parameters() -> None:
    b = Builder()
    p = node_of(Parameter((2,), _x().dtype), ()).output()
    body = rewrite(Graph((b.neg(b.neg(p)),), (), (p,)), [negation_twice], PassContext())
    assert body.inputs == (p,)
    assert body.outputs[0] == p


# --- several results --------------------------------------------------------------------------------------------------


def _minmax(x: Tensor, y: Tensor) -> Node:
    return node_of(_MinMax(), (x, y))


def test_nodes_with_several_results() -> None:
    b, x, y = Builder(), _x(), _x(name="y")
    node, same = _minmax(b.neg(b.neg(x)), y), _minmax(x, b.neg(b.neg(y)))
    result = _interned(Graph((node.output(1), same.output(0), b.sub(node.output(1), same.output(1)))), negation_twice)
    assert result.outputs[0].node is result.outputs[1].node
    assert [t.index for t in result.outputs[:2]] == [1, 0]
    assert expression(result.outputs[2]) == "sub(test_minmax(x, y).1, test_minmax(x, y).1)"


def test_a_rule_may_replace_every_result() -> None:
    @rule(_MinMax)
    def minmax_to_two(call: Call) -> Replacement:
        """minmax(x, y) -> min(x, y), max(x, y)"""
        return [call.b.minimum(*call.inputs), call.b.maximum(*call.inputs)]

    x, y = _x(), _x(name="y")
    before = Graph(_minmax(x, y).outputs[::-1])
    after = _interned(before, minmax_to_two)
    assert [expression(t) for t in after.outputs] == ["maximum(x, y)", "minimum(x, y)"]
    feeds = {x: [1, 4], y: [3, 2]}
    assert_same_bits(evaluate(after, feeds), evaluate(before, feeds))


# --- effects ----------------------------------------------------------------------------------------------------------


def _shown(x: Tensor) -> Tensor:
    return node_of(_Print(), (x,)).output()


def test_ops_with_effects_are_not_merged_and_keep_their_order() -> None:
    b, x = Builder(), _x()
    first = _shown(b.neg(b.neg(x)))
    second = _shown(x)
    third = _shown(x)
    result = _interned(Graph((third, second, first)), negation_twice)
    nodes = [t.node for t in result.outputs]
    assert len({n.serial for n in nodes}) == 3
    assert [n.inputs[0] == x.value for n in nodes] == [True] * 3
    assert sorted(nodes, key=lambda n: n.serial) == nodes[::-1]


def test_no_rewrite_removes_an_effect() -> None:
    b, i = Builder(), placeholder("int32", (2,), name="i")
    graph = run_passes(Graph((b.mul(b.add(_shown(i), i), 0),)), [Simplify()])
    assert expression(graph.outputs[0]) == "mul(add(test_print(i), i), 0)"
    below = run_passes(Graph((b.neg(b.neg(_shown(i))), b.mul(i, 0))), [Simplify()])
    assert [expression(t) for t in below.outputs] == ["test_print(i)", "0"]


def test_a_rule_may_not_build_an_effect() -> None:
    @rule(Neg)
    def show(call: Call) -> Replacement:
        """-x -> print(x)"""
        return call.b.apply(_Print(), *call.inputs).output()

    with pytest.raises(VerifyError, match="effect"):
        rewrite(Graph((Builder().neg(_x()),)), [show], PassContext())


# --- limits -----------------------------------------------------------------------------------------------------------


def test_fuel_stops_after_so_many_rewrites() -> None:
    b, x = Builder(), _x()
    t = x
    for i in range(6):
        t = b.mul(b.neg(b.neg(b.add(t, float(i + 2)))), 1.0)
    full = PassContext()
    run_passes(Graph((t,)), [Simplify()], full)
    total = sum(full.hits.values())
    assert total == 12
    values = evaluate(Graph((t,)), {x: [1, -3]})
    seen = set()
    for fuel in range(total + 2):
        ctx = PassContext(fuel=fuel)
        result = run_passes(Graph((t,)), [Simplify()], ctx)
        assert sum(ctx.hits.values()) == min(fuel, total)
        assert ctx.fuel == max(0, fuel - total)
        assert_same_bits(evaluate(result, {x: [1, -3]}), values)
        seen.add(expression(result.outputs[0]))
    assert len(seen) == total + 1


def test_rules_that_undo_each_other_end() -> None:
    @rule(Add)
    def add_to_sub(call: Call) -> Replacement:
        """a + b -> a - (-b)"""
        return call.b.sub(call.inputs[0], call.b.neg(call.inputs[1]))

    @rule(Sub)
    def sub_to_add(call: Call) -> Replacement:
        """a - (-b) -> a + b"""
        return call.b.add(call.inputs[0], call.arg(1).inputs[0]) if call.arg(1).is_op(Neg) else None

    b, x, y = Builder(), _x(), _x(name="y")
    ctx = PassContext()
    before = Graph((b.tanh(b.add(x, y)),))
    after = rewrite(before, [add_to_sub, sub_to_add], ctx)
    verify_graph(after)
    assert ctx.loops == 1
    assert "undo" in ctx.explain[0]
    feeds = {x: [1, 2], y: [3, 4]}
    assert_same_bits(evaluate(after, feeds), evaluate(before, feeds))


def test_a_rule_that_contains_what_it_replaces_ends() -> None:
    @rule(Neg)
    def wrap(call: Call) -> Replacement:
        """-x -> -x * 1"""
        return call.b.mul(call.value, 1.0)

    ctx = PassContext()
    after = rewrite(Graph((Builder().neg(_x()),)), [wrap], ctx)
    assert expression(after.outputs[0]) == "neg(x)"
    assert ctx.loops == 1


def test_a_loop_through_an_operand_that_simplifies_ends_simplified() -> None:
    @rule("tanh")
    def tanh_to_exp(call: Call) -> Replacement:
        """tanh(x) -> exp(-(-x))"""
        return call.b.exp(call.b.neg(call.b.neg(call.inputs[0])))

    @rule("exp")
    def exp_within(call: Call) -> Replacement:
        """exp(x) -> exp(-(-x)) * 1"""
        return call.b.mul(call.b.exp(call.b.neg(call.b.neg(call.inputs[0]))), 1.0)

    ctx = PassContext()
    after = rewrite(Graph((Builder().tanh(_x()),)), [negation_twice, tanh_to_exp, exp_within], ctx)
    assert ctx.loops == 1
    assert expression(after.outputs[0]) == "exp(x)"


def test_growth_is_capped() -> None:
    @rule(Mul)
    def scale_up(call: Call) -> Replacement:
        """x * c -> (x * c') * c'', ever larger"""
        number = call.arg(1).splat
        return None if number is None else call.b.mul(call.inputs[0], float(number) + 1)

    ctx = PassContext()
    result = rewrite(Graph((Builder().mul(_x(), 1.0),)), [scale_up], ctx)
    verify_graph(result)
    assert len(ctx.explain) == 1
    assert "stopped" in ctx.explain[0]
    assert ctx.hits["scale_up"] < 10_000


def test_a_replacement_must_have_the_type() -> None:
    @rule(Neg)
    def forget_a_dimension(call: Call) -> Replacement:
        """-x -> sum(x)"""
        return call.b.sum(call.inputs[0], axes=(0,))

    with pytest.raises(VerifyError, match="forget_a_dimension"):
        rewrite(Graph((Builder().neg(_x()),)), [forget_a_dimension], PassContext())


def test_a_rule_states_targets_formula_and_contract() -> None:
    def silent(call: Call) -> Replacement:
        return None

    with pytest.raises(ValueError, match="docstring"):
        rule(Neg)(silent)
    with pytest.raises(ValueError, match="contract"):
        rule(Neg, contract="roughly")
    with pytest.raises(ValueError, match="ops"):
        rule()
    assert (negation_twice.name, negation_twice.formula, negation_twice.contract) == (
        "negation_twice",
        "-(-x) -> x",
        "exact",
    )


def test_rules_fit_ops_by_class_base_and_name() -> None:
    def nothing(call: Call) -> Replacement:
        """x -> x"""
        return None

    assert rule(Map)(nothing).fits(Neg)
    assert rule("neg")(nothing).fits(Neg)
    assert not rule("mul", Sub)(nothing).fits(Neg)


def test_what_a_rule_returns_unchanged_is_no_rewrite() -> None:
    @rule(Neg)
    def itself(call: Call) -> Replacement:
        """-x -> -x"""
        return call.b.neg(call.inputs[0])

    ctx = PassContext(verbose=True)
    graph = Graph((Builder().neg(_x()),))
    assert rewrite(graph, [itself], ctx) is graph
    assert (ctx.hits, ctx.explain) == ({}, [])


def test_a_pass_without_run_says_so() -> None:
    with pytest.raises(TypeError, match="does not define run"):
        Pass().run(Graph(()), PassContext())
