"""Programs and stages for tests of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import graphcore as gc
from graphcore.api.tensor import Tensor
from graphcore.ir.graph import Graph
from graphcore.plan.backend import open_backend
from graphcore.plan.target import Target
from passes.graph.base import Pass
from passes.stage import StageContext

NAMES = "inline-regions simplify specialize fuse recompute lower rewrite-kernels schedule updates levels memory".split()


def small_program() -> tuple[Tensor, Tensor]:
    """A placeholder and an elementwise chain with a sum, of which one op is for nothing."""
    x = gc.placeholder("float32", (3, 4), name="x")
    return x, gc.exp(x * 1.0 + 2.0).sum(axis=1)


def training_step() -> tuple[list[Any], dict[Tensor, Any]]:
    """A step with products, values that are computed again, and updates in place."""
    rng = np.random.default_rng(0)
    x = gc.placeholder("float32", (None, 4), name="x")
    w = gc.Variable(rng.normal(size=(4, 8)).astype(np.float32), name="w")
    b = gc.Variable(np.zeros(8, np.float32), name="b")
    v = gc.Variable(rng.normal(size=(8, 3)).astype(np.float32), name="v")
    h = x @ w + b
    loss = ((0.5 * h * (1.0 + gc.erf(h))) @ v).var()
    updates = [p.assign(p - 0.1 * g) for p, g in zip((w, b, v), gc.gradients(loss, [w, b, v]), strict=True)]
    return [loss, *updates], {x: rng.normal(size=(40, 4)).astype(np.float32)}


def oracle_target() -> Target:
    """What the passes know of the kernel oracle."""
    target: Target = open_backend("numpy:kernels").target
    return target


def small_graph() -> Graph:
    """The graph of ``small_program``."""
    x, y = small_program()
    return Graph((y,), (), (x,))


@dataclass(frozen=True)
class Talks(Pass):
    """Changes nothing and says so."""

    name: ClassVar[str] = "talks"
    line: str = "nothing to do here"

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        ctx.say(self.line)
        return graph
