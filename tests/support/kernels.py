"""Kernels for tests of kernel rewrites, and the oracle's word on whether parts do what their kernel does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphcore.api.tensor import Tensor
from graphcore.base.shapes import bind
from graphcore.ir.graph import Graph
from graphcore.kernel.interpret import run_kernel, run_parts
from graphcore.kernel.ir import Kernel
from graphcore.kernel.parts import Parts, verify_parts
from graphcore.plan.backend import open_backend
from passes.fusion.lower import Kernels, Lower
from passes.pipeline import DEFAULT, compile_graph

__all__ = ["Compared", "compared", "kernels_of", "lowered", "whole_numbers"]


def lowered(outputs: Sequence[Tensor], inputs: Sequence[Tensor], sizes: Mapping[str, int] | None = None) -> Kernels:
    """The kernels of some outputs as fusion and lowering leave them, before any rewrite. Another kernel costs nothing,
    so that even small products gather their sums."""
    target = open_backend("numpy:kernels").target
    target = replace(target, costs=replace(target.costs, row_seconds=0.0, task_seconds=0.0, kernel_launches=0.0))
    graph = Graph(tuple(outputs), (), tuple(inputs))
    return compile_graph(graph, target, sizes or {}, pipeline=DEFAULT, upto=Lower.name).latest(Kernels)


def kernels_of(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], sizes: Mapping[str, int] | None = None
) -> list[Kernel]:
    """The same without what is behind their parameters."""
    return [k.kernel for k in lowered(outputs, inputs, sizes).listed]


def whole_numbers(kernel: Kernel, sizes: Mapping[str, int], seed: int = 0, among: Sequence[int] = (-1, 0, 1, 2)) -> Any:
    """A flat array for every parameter, of small whole numbers: their sums and products are exact in any order."""
    rng = np.random.default_rng(seed)
    arrays = []
    for p in kernel.params:
        drawn = rng.choice(among, int(bind(p.size, sizes)))
        arrays.append((np.abs(drawn) if p.dtype.is_unsigned else drawn).astype(p.dtype.storage))
    return arrays


@dataclass(frozen=True)
class Compared:
    """What a kernel and its parts left in each parameter that the kernel writes."""

    wanted: Mapping[int, Any]
    found: Mapping[int, Any]

    def exactly(self) -> None:
        """Fail unless all are the same to the bit, signs of zeros apart."""
        for position, wanted in self.wanted.items():
            np.testing.assert_array_equal(self.found[position], wanted, err_msg=f"parameter {position}")

    def within(self, bound: float) -> None:
        """Fail unless all are as near as ``bound`` times the largest magnitude."""
        for position, wanted in self.wanted.items():
            most = bound * max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
            np.testing.assert_allclose(self.found[position], wanted, rtol=0, atol=most, err_msg=f"parameter {position}")


def compared(parts: Parts, arrays: Sequence[Any], sizes: Mapping[str, int]) -> Compared:
    """Verify parts, and run them and their kernel on the kernel oracle, over outputs that hold no results yet."""
    verify_parts(parts)
    kernel = parts.whole
    both = []
    for _ in range(2):
        both.append([a.copy() for a in arrays])
        for position in kernel.written() - kernel.read():
            both[-1][position].view(np.uint8)[:] = 0x7B
    run_kernel(kernel, both[0], sizes)
    run_parts(parts, both[1], sizes)
    written = sorted(kernel.written())
    return Compared({p: both[0][p] for p in written}, {p: both[1][p] for p in written})
