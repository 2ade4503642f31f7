"""The stage of kernel rewrites: before kernels are scheduled, those are cut that no schedule runs well as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from graphcore.kernel.ir import Kernel
from graphcore.kernel.parts import Parts, refined
from graphcore.plan.target import Reject, Target
from passes.fusion.lower import Kernels
from passes.kernels.bucket_sums import bucket_sums
from passes.kernels.product_sums import product_sums
from passes.kernels.split_reductions import split_reductions
from passes.stage import Stage, StageContext

__all__ = ["REWRITES", "Rewrite", "RewriteKernels"]

# A rewrite says what a kernel becomes on a device for some sizes, or why it stays as it is.
Rewrite = Callable[[Kernel, Target, Mapping[str, int]], Parts | Reject]
# What each rewrite, by number, has said of the kernels of one run: equal ones are asked once.
Answers = dict[tuple[int, Kernel], Parts | Reject]
# The parts that one rewrite makes are given to those after it, never to itself again.
REWRITES: tuple[tuple[str, Rewrite], ...] = (
    ("product-sums", product_sums),
    ("bucket-sums", bucket_sums),
    ("split-reductions", split_reductions),
)


@dataclass(frozen=True)
class RewriteKernels(Stage[Kernels, Kernels]):
    """Cut kernels into parts that the target runs better, one after the other.

    Requires: kernels in an order in which they can run.
    Ensures: the same kernels, some with the parts that run instead. What a part sums, and in which order, follows from
    extents and the class of the device alone.
    """

    name: ClassVar[str] = "rewrite-kernels"
    takes: ClassVar[type] = Kernels
    gives: ClassVar[type] = Kernels
    rewrites: tuple[tuple[str, Rewrite], ...] = REWRITES

    def run(self, kernels: Kernels, ctx: StageContext, /) -> Kernels:
        listed = []
        answers: Answers = {}
        for made in kernels.listed:
            parts = self.cut(made.kernel, ctx, answers, 0) if made.kernel.stores else None
            for line in parts.reasons if parts is not None else ():
                ctx.say(line)
            listed.append(made if parts is None else made._replace(parts=parts))
        return Kernels(kernels.graph, tuple(listed))

    def cut(self, kernel: Kernel, ctx: StageContext, answers: Answers, start: int) -> Parts | None:
        """What the first of the rewrites from a number on makes of a kernel, cut further by those after it; None where
        none does."""
        for number, (name, rewrite) in enumerate(self.rewrites[start:], start):
            if ctx.exhausted:
                return None
            ctx.attempts += 1
            made = answers.get((number, kernel))
            if made is None:
                made = answers[number, kernel] = rewrite(kernel, ctx.target, ctx.sizes)
            if isinstance(made, Parts):
                ctx.hit(name)
                return refined(
                    made,
                    lambda part, after=number + 1: self.cut(part, ctx, answers, after),  # type: ignore[misc]
                )
            if ctx.verbose:
                ctx.say(f"{name}: {kernel.name} stays as it is: {made.reason}")
        return None
