"""The stage of kernel rewrites: what it tells, that it can be left out, stopped and checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.stages import oracle_target

import graphcore as gc
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph
from graphcore.kernel.parts import Parts
from graphcore.plan.backend import open_backend
from graphcore.plan.target import Sharing, Target
from passes.driver import check
from passes.fusion.lower import Kernels, verify_kernels
from passes.kernels.rewrite import RewriteKernels
from passes.pipeline import DEFAULT, compile_graph
from passes.stage import StageContext


def cutting() -> Target:
    """The oracle, as if it had use for two parts of every sum, and no epilogues."""
    return replace(oracle_target(), shares=lambda *_: Sharing(2, 4, 1.0), blocks=lambda *_: None)


def graph() -> Graph:
    """A product, its sums over 64 rows, and a sum of its own: the product's sums are cut in two again."""
    a, b = gc.placeholder("float32", (64, 3)), gc.placeholder("float32", (3, 5))
    y = a @ b
    return Graph((y, gc.sum(y, axis=0) * 2.0, gc.sum(gc.exp(a))), (), (a, b))


def rewritten(context: StageContext) -> Kernels:
    costs = context.target.costs
    free = replace(context.target, costs=replace(costs, row_seconds=0.0, task_seconds=0.0, kernel_launches=0.0))
    lowered = compile_graph(graph(), free, {}, upto="lower").latest(Kernels)
    made = RewriteKernels().run(lowered, context)
    check(RewriteKernels(), made, context)
    return made


def test_rewrites_are_given_what_those_before_them_made() -> None:
    context = StageContext(cutting(), {})
    made = rewritten(context)
    parts = {k.kernel.name: [p.kernel.name for p in k.parts.parts] for k in made.listed if k.parts is not None}
    assert parts == {
        "matmul_sum_mul": ["matmul_sum_mul", "matmul_sum_mul_sums_parts", "matmul_sum_mul_sums"],
        "sum_exp": ["sum_exp_parts", "sum_exp"],
    }
    assert context.hits == {"product-sums": 1, "split-reductions": 2}
    assert len(context.explain) == 3 and "sums of 64 terms" in context.explain[1]
    assert "part 1 of matmul_sum_mul over" in str(made)


def test_the_plan_runs_the_parts_and_computes_the_same() -> None:
    made = [compile_graph(graph(), target, {}, verify=True) for target in (cutting(), oracle_target())]
    names = [[s.kernel.name for s in m.plan.steps] for m in made]
    assert "sum_exp_parts" in names[0] and "sum_exp_parts" not in names[1]
    assert "rewrite-kernels: " in made[0].explain() and "is cut into sum_exp_parts, sum_exp" in made[0].explain()
    helper = next(s for s in made[0].plan.steps if s.kernel.name == "sum_exp_parts")
    assert helper.helper and helper.workspace and not helper.flops
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    w = np.ones((3, 5), np.float32)
    wanted = (x @ w, (x @ w).sum(0) * 2, np.exp(x).sum())
    for m in made:
        for found, exact in zip(run(m, [x, w]), wanted, strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


def run(made: Any, feeds: list[Any]) -> list[Any]:
    backend = open_backend("numpy:kernels")
    return list(backend.bind(backend.compile(made.plan), made.placed).run(feeds))


def test_without_the_stage_kernels_run_as_they_were_lowered() -> None:
    made = compile_graph(graph(), cutting(), {}, pipeline=DEFAULT.remove("rewrite-kernels"))
    assert not any(s.helper for s in made.plan.steps)


def test_fuel_stops_it() -> None:
    made = rewritten(StageContext(cutting(), {}, fuel=1))
    assert [k.kernel.name for k in made.listed if k.parts is not None] == ["matmul_sum_mul"]
    assert not any(k.parts for k in rewritten(StageContext(cutting(), {}, fuel=0)).listed)


def test_a_kernel_that_changed_after_it_was_cut_is_refused() -> None:
    made = rewritten(StageContext(cutting(), {}))
    wrong = [
        k._replace(kernel=replace(k.kernel, name="mine")) if isinstance(k.parts, Parts) else k for k in made.listed
    ]
    with pytest.raises(VerifyError, match="kernel mine was changed after it was cut into parts"):
        verify_kernels(Kernels(made.graph, tuple(wrong)))
