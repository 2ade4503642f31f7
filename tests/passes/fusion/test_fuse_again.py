"""What a graph is cut into does not depend on what the process compiled before."""

from __future__ import annotations

from backends.opencl.target import make_target
from benchmarks.golden import DEVICES, partition_text, steps
from passes.fusion.partition import Partition
from passes.pipeline import compile_graph


def test_a_graph_is_cut_in_the_same_way_again() -> None:
    """Indices are kept, so that a second compilation meets axes that are equal to its own and not the same objects."""
    gpt = next(p for p in steps() if p.name == "gpt")
    target = make_target(DEVICES["h100"])
    first, again = (compile_graph(gpt.graph, target, gpt.sizes, upto=Partition).partition for _ in range(2))
    assert partition_text(first) == partition_text(again)
