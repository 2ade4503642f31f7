"""Values of graphs and the tensors that users hold for them."""

from __future__ import annotations

import ast
import gc as garbage
import weakref
from pathlib import Path

import numpy as np

import graphcore as gc
from graphcore.api.tensor import known_tensor, wrap
from graphcore.ir.graph import Graph
from graphcore.ir.node import Value

ROOT = Path(__file__).resolve().parents[2]
# Attributes of other classes: blocks of memory, sums over bins.
OTHERS = {
    *(f"passes/planning/{n}.py" for n in ("offsets", "sections")),
    *(f"backends/codegen/scatter/{n}.py" for n in ("family", "work", "rows")),
}


def asked(text: str) -> list[str]:
    """Where a program asks something for the identity of a tensor, or whether it is the same as another."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in ("key", "same"):
            found.append(f"{node.lineno}: .{node.attr}")
    return found


def test_values_are_compared_and_looked_up_as_they_are() -> None:
    files = [
        path
        for folder in ("graphcore/ir", "graphcore/ops", "passes", "backends")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in OTHERS
    ]
    assert len(files) > 100
    found = {str(path): asked(path.read_text(encoding="utf-8")) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert asked("if a.same(b):\n    c = d.key") == ["1: .same", "2: .key"]


def test_equal_values_are_one_key() -> None:
    x, y = gc.placeholder("float32", (3,)), gc.placeholder("float32", (3,))
    node = gc.exp(x).node
    assert node.output() == node.outputs[0] == Value(node, 0) and hash(node.output()) == hash(Value(node))
    assert node.inputs == (x.value,) and x.value != y.value and x.value in {x.value: 1} and y.value not in {x.value}
    assert (x.value.shape, x.value.dtype, x.value.size) == (x.shape, x.dtype, 3)


def test_a_value_has_one_tensor_while_anybody_holds_it() -> None:
    x = gc.placeholder("float32", (4, 6))
    parts = gc.split(x, 2)
    w = gc.Variable(np.zeros((4, 6), np.float32))
    for t in (x, w, *parts, x.max(), gc.checkpoint(gc.exp)(x)):
        plain = t.values if isinstance(t, type(x.max())) else t
        assert wrap(t.value) is plain and wrap(Value(*t.value)) is plain
    assert w.read() is w and parts[0] is not parts[1]
    assert gc.gradients((x * w).sum(), w)[0] is not gc.gradients((x * w).sum(), w)[0]


def test_tensors_that_nobody_holds_are_forgotten() -> None:
    x = gc.placeholder("float32", ())
    value = (x * 2).value
    assert known_tensor(value) is None and known_tensor(x.value) is x
    assert wrap(value) * 1 is not None
    w = gc.Variable(np.ones(2, np.float32))
    (w * w).sum().backward()
    assert w.grad is not None and known_tensor(w.value) is w
    gone = [weakref.ref(w), weakref.ref(w.grad), weakref.ref(w.grad.node)]
    del w
    garbage.collect()  # a variable holds its gradient, which reads the variable
    assert [r() for r in gone] == [None] * 3


def test_gradients_are_kept_for_the_tensors_that_asked() -> None:
    x = gc.placeholder("float32", (3,))
    h, m = x * 2, x.max()
    h.retain_grad()
    m.retain_grad()
    (h * m).sum().backward()
    with gc.Session("numpy") as session:
        for grad, want in ((h.grad, [3.0, 3.0, 3.0]), (m.grad, 12.0)):
            assert grad is not None
            np.testing.assert_array_equal(session.run(grad, {x: [1, 2, 3]}), np.float32(want))


def test_graphs_are_made_of_values_or_of_tensors() -> None:
    x = gc.placeholder("float32", (3,))
    w = gc.Variable(np.zeros(3, np.float32))
    y = x + 1
    of_values, of_tensors = Graph((y.value,), ((w, y.value),), (x.value,)), Graph((y,), ((w, y),), (x,))  # type: ignore[arg-type]
    assert of_tensors == of_values and isinstance(of_tensors.outputs[0], Value)
