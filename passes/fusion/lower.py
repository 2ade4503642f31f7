"""Lowering: a group of nodes becomes one kernel, mechanically.

Every node says what one element of it is (``Op.lower``). Inside a group a read of another member becomes that member's
expression, so any legal partition computes the same function: fusing changes where values live, never which operations
are done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from graphcore.base.errors import CompileError, VerifyError
from graphcore.base.shapes import Extent, bind, product
from graphcore.ir.graph import Graph
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind, Lowering
from graphcore.kernel import expr
from graphcore.kernel.collapse import collapse_axes, split_axes
from graphcore.kernel.contraction import Role
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed, Contraction, ContractionTypes, find_product
from graphcore.kernel.index import REDUCE, Axis, Index, as_index, flatten
from graphcore.kernel.ir import Kernel, Param, Store, print_kernel, verify_kernel
from graphcore.kernel.parts import Parts, print_parts, verify_parts
from passes.fusion.partition import Group, Partition, contraction_of, is_scalar_constant
from passes.stage import Stage, StageContext

__all__ = ["GroupKernel", "Kernels", "Lower", "LoweredGroup", "lower_node", "verify_kernels"]

AxisFor = Callable[[Node, Extent, int], "Axis | None"]


def lower_node(node: Node, output: int, index: tuple[Index, ...], read: Callable[..., Expr], axis_for: AxisFor) -> Expr:
    """One element of a node's result, its operands read through ``read(tensor, index, guard)``."""
    call = Lowering(
        tuple(t.type for t in node.inputs),
        node.types,
        output,
        lambda extent, position: axis_for(node, extent, position),
    )

    def read_operand(i: int, at: tuple[Index, ...], guard: Expr | None = None) -> Expr:
        return read(node.inputs[i], at, guard)

    try:
        return node.op.lower(call, index, read_operand)
    except NotImplementedError:  # the base class's answer: never fall back to the host in silence
        raise CompileError(
            f"{node.op.name} has no kernel: its class defines no lowering\n  it was built at {node.origin.place}"
        ) from None


class LoweredGroup:
    """The lowering of one group; ``kernel`` is the result, ``tensors`` the values behind its parameters."""

    def __init__(self, partition: Partition, group: Group) -> None:
        self.partition = partition
        self.group = group
        self.tensors: list[Value] = []
        self.params: dict[Value, int] = {}
        self.memo: dict[tuple[Any, ...], Expr] = {}
        self.fresh: dict[tuple[int, int], Axis] = {}
        self.contracted: Node | None = None
        self.kernel = self._kernel()

    def _kernel(self) -> Kernel:
        stores = []
        for t in self.group.stored:
            if t.size == 0:
                continue
            index = self.group.members[t]
            value = self.value(t, index, None)
            stores.append((t, flatten(index, t.shape), value))
        form = self._convolution()
        done = tuple(Store(self.param(t), index, value) for t, index, value in stores)
        params = tuple(Param(f"p{i}", t.dtype, t.shape) for i, t in enumerate(self.tensors))
        bound = {a for v in expr.walk(*(s.value for s in done)) if v.fn == "reduce" for a in v.reduce_axes}
        # A scalar that another kernel's loops store on the side must not lose them all to an empty axis.
        axes = tuple(
            a
            for a in self.group.axes
            if a.extent != 1 and (a.extent != 0 or a in bound or any(a in s.index.axes() for s in done))
        )
        return Kernel(kernel_name(self.group), params, axes, done, self.group.kind, origins(self.group), form)

    @property
    def walks_window(self) -> bool:
        """Whether it has a convolution."""
        roles = contraction_of(self.contracted) if self.contracted is not None else None
        return roles is not None and roles.window is not None

    def _convolution(self) -> Contraction | None:
        """The contraction with its window; None where it has none, or where an operand cannot be told."""
        node = self.contracted
        roles = contraction_of(node) if node is not None else None
        if node is None or roles is None or roles.window is None:
            return None
        places = self.group.members[node.output()]
        result = self.value(node.output(), places, None)
        total = result.args[0] if result.fn == "cast" else result
        fixed = (e for t in (*node.inputs, node.output()) for e in t.shape[1:])
        if total.fn != "reduce" or any(not isinstance(e, int) or e < 1 for e in fixed):
            return None
        left, right = (self._operand(t) for t in node.inputs)
        if left is None or right is None:
            return None
        axes = [next(iter(index.axes()), Axis(f"u{place}", 1)) for place, index in enumerate(places)]
        rows, columns = (
            tuple(a for a, role in zip(axes, roles.result, strict=True) if (role is Role.COLUMN) == wanted)
            for wanted in (False, True)
        )
        types = ContractionTypes(left.value.dtype, right.value.dtype, total.dtype, result.dtype)
        return Contraction(rows, columns, total.reduce_axes, (), left, right, result, types, roles.window)

    def _operand(self, t: Value) -> Computed | None:
        """What an element of a convolution's operand is made of, over axes of its own; None where that cannot be
        told."""
        n, c, *walked = t.shape
        image, channel, pixel = axes = Axis("n", n), Axis("c", c), Axis("p", product(walked))
        direct = self._direct(t)
        if direct is not None:
            at = flatten(tuple(map(as_index, axes)), tuple(a.extent for a in axes))
            return Computed(expr.load(direct, at, self.tensors[direct].dtype), axes, t.shape)
        known, memo = len(self.tensors), dict(self.memo)
        value = self.value(t, (as_index(image), as_index(channel), *_places(as_index(pixel), walked)), None)
        if len(self.tensors) == known:
            return Computed(value, axes, t.shape)
        for unread in self.tensors[known:]:  # elements that the contraction never meets are made of more than it loads
            del self.params[unread]
        del self.tensors[known:]
        self.memo = memo
        return None

    def _direct(self, t: Value) -> int | None:
        """The parameter that holds an operand as it is, or None when it is read through a view."""
        while t.node.op.is_alias and t not in self.params:
            t = t.node.inputs[0]
        return self.params.get(t)

    def param(self, t: Value) -> int:
        number = self.params.get(t)
        if number is None:
            number = self.params[t] = len(self.tensors)
            self.tensors.append(t)
        return number

    def value(self, t: Value, index: tuple[Index, ...], guard: Expr | None) -> Expr:
        """The expression of one element; where ``guard`` is false it is 0 and nothing is loaded."""
        memo_key = (t, index, guard)
        found = self.memo.get(memo_key)
        if found is None:
            found = self.memo[memo_key] = self._value(t, index, guard)
        return found

    def _value(self, t: Value, index: tuple[Index, ...], guard: Expr | None) -> Expr:
        node = t.node
        if self.partition.loads(t, self.group):
            return expr.load(self.param(t), flatten(index, t.shape), t.dtype, guard)
        if is_scalar_constant(node):
            value = expr.const(node.op.scalar, t.dtype)  # type: ignore[attr-defined]
        elif t in self.group.members:
            if node.op.kind is Kind.CONTRACT:
                self.contracted = node
            value = self.memo.get((t, index, None)) or lower_node(node, t.index, index, self.value, self.axis_for)
            self.memo[t, index, None] = value
        else:
            # Everything below is read only where the guard holds, so loads stay in bounds.
            value = lower_node(
                node, t.index, index, lambda x, at, inner=None: self.value(x, at, _both(guard, inner)), self.axis_for
            )
        if guard is None or (value.fn == "load" and value.guard is guard):
            return value
        return expr.select(guard, value, expr.const(0, t.dtype))

    def axis_for(self, node: Node, extent: Extent, position: int) -> Axis | None:
        key = (node.serial, position)
        if key in self.group.bound:
            return self.group.bound[key]
        if extent == 1:
            return None
        if key not in self.fresh:
            self.fresh[key] = Axis(f"r{len(self.fresh)}", extent, REDUCE)
        return self.fresh[key]


def _places(pixel: Index, extents: Sequence[Extent]) -> tuple[Index, ...]:
    """A pixel's place along every axis that a window walks."""
    places = []
    for extent in reversed(extents[1:]):
        places.append(pixel % int(bind(extent, {})))
        pixel = pixel // int(bind(extent, {}))
    return (pixel, *reversed(places))


def _both(a: Expr | None, b: Expr | None) -> Expr | None:
    if a is None or b is None:
        return a if b is None else b
    return expr.both(a, b)


class GroupKernel(NamedTuple):
    """A group's kernel, the values behind its parameters, and the parts that run instead of it; None where it runs
    itself."""

    group: Group
    kernel: Kernel
    values: tuple[Value, ...]
    parts: Parts | None = None


@dataclass(frozen=True)
class Kernels:
    """A graph as kernels, in an order in which they can run. One without stores makes empty values only.

    Groups that compute the same share one kernel, as the layers of a deep model do: what is asked of it is asked once.
    """

    graph: Graph
    listed: tuple[GroupKernel, ...]

    def __str__(self) -> str:
        return "\n\n".join(print_kernel(k.kernel) if k.parts is None else print_parts(k.parts) for k in self.listed)


def verify_kernels(kernels: Kernels) -> None:
    """Check every kernel by itself, and the parts that run instead of it.

    Raises:
        VerifyError: naming the kernel; or parts that are those of another kernel.
    """
    for made in kernels.listed:
        if made.parts is not None and made.parts.whole is not made.kernel:
            raise VerifyError(f"kernel {made.kernel.name} was changed after it was cut into parts")
    for kernel in dict.fromkeys(made.kernel for made in kernels.listed):
        if kernel.stores:
            verify_kernel(kernel)
    for parts in dict.fromkeys(made.parts for made in kernels.listed):
        if parts is not None:
            verify_parts(parts)


@dataclass(frozen=True)
class Lower(Stage[Partition, Kernels]):
    """Make a kernel of every group.

    Requires: a legal partition.
    Ensures: a kernel for every group, in the same order.
    """

    name: ClassVar[str] = "lower"
    takes: ClassVar[type] = Partition
    gives: ClassVar[type] = Kernels

    def run(self, partition: Partition, ctx: StageContext, /) -> Kernels:
        known: dict[Kernel, Kernel] = {}
        lowered = (lower_group(partition, g) for g in partition.groups)
        shared = (made._replace(kernel=known.setdefault(made.kernel, made.kernel)) for made in lowered)
        return Kernels(partition.graph, tuple(shared))


def lower_group(partition: Partition, group: Group) -> GroupKernel:
    """The kernel of a group, with its axes merged."""
    lowered = LoweredGroup(partition, group)
    kernel = lowered.kernel
    if not lowered.walks_window:  # schedules of convolutions know their axes by position, so they stay as they are
        # A product's schedules want one axis for its rows.
        kernel = collapse_axes(split_axes(kernel) if lowered.contracted is None else kernel)
    if kernel.form is None:
        kernel = replace(kernel, form=find_product(kernel.axes, kernel.values()))
    return GroupKernel(group, kernel, tuple(lowered.tensors))


def kernel_name(group: Group) -> str:
    """A C name made of the ops inside: never of a user's text."""
    names = []
    for node in group.nodes:
        word = re.sub(r"\W", "", node.op.name)
        if word not in names and not node.op.retypes:
            names.append(word)
    heavy = [n.op.name for n in group.nodes if n.op.kind in (Kind.CONTRACT, Kind.REDUCE)]
    ordered = [n for n in names if n in heavy] + [n for n in names if n not in heavy]
    return "_".join(ordered[:4]) or "copy"


def origins(group: Group) -> tuple[str, ...]:
    """Lines for the comment above a kernel: each node and the user's line."""
    return tuple(f"{node.op.name} {', '.join(map(str, node.types))} from {node.origin}" for node in group.nodes)
