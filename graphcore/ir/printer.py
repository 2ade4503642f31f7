"""Graphs as text: one line a node, stable numbering, no memory addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.base.dtypes import DType
from graphcore.ir.leaves import Constant, StateRead
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind

if TYPE_CHECKING:
    from graphcore.ir.graph import Graph

__all__ = ["attribute_text", "print_graph"]


def attribute_text(node: Node) -> str:
    """A node's attributes, ``name=value`` separated by commas."""
    op = node.op
    if isinstance(op, Constant):
        array = op.array
        return repr(array.item()) if array.size == 1 else f"<{'x'.join(map(str, array.shape))}>"
    if isinstance(op, StateRead):
        return op.slot.name
    shown = {
        k: v for k, v in op.attributes().items() if k not in ("bodies", "rule") and not (k == "label" and v is None)
    }
    return ", ".join(f"{k}={_value_text(v)}" for k, v in shown.items())


def _value_text(value: Any) -> str:
    if isinstance(value, DType):
        return value.name
    return "(" + ", ".join(map(str, value)) + ")" if isinstance(value, tuple) else str(value)


def print_graph(graph: Graph, origins: bool = False) -> str:
    """The graph as text: ``%3 = mul(%1, %2) : float32(4, 4)``; bodies of regions are indented."""
    return "\n".join(_lines(graph, origins, ""))


def _lines(graph: Graph, origins: bool, indent: str) -> list[str]:
    numbers: dict[int, int] = {}
    lines: list[str] = []

    def ref(t: Value) -> str:
        suffix = f".{t.index}" if len(t.node.types) > 1 else ""
        return f"%{numbers[t.node.serial]}{suffix}"

    for parameter in graph.inputs:
        numbers[parameter.node.serial] = len(numbers)
    if graph.inputs:
        lines.append(f"{indent}({', '.join(f'{ref(p)}: {p.type}' for p in graph.inputs)})")
    for node in graph.nodes():
        if node.serial in numbers:
            continue
        numbers[node.serial] = len(numbers)
        operands = ", ".join(filter(None, (", ".join(ref(t) for t in node.inputs), attribute_text(node))))
        types = ", ".join(map(str, node.types))
        place = f"  # {node.origin}" if origins else ""
        mark = " [recomputed]" if node.clone else ""
        lines.append(f"{indent}%{numbers[node.serial]} = {node.op.name}({operands}) : {types}{mark}{place}")
        if node.op.kind is Kind.REGION:
            for body in node.op.bodies:  # type: ignore[attr-defined]
                lines.extend(_lines(body, origins, indent + "    "))
    if graph.outputs:
        lines.append(f"{indent}return {', '.join(ref(t) for t in graph.outputs)}")
    for slot, value in graph.updates:
        lines.append(f"{indent}{slot.name} <- {ref(value)}")
    return lines
