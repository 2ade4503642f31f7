"""Values of graphs and the tensors that users hold for them."""

from __future__ import annotations

import ast
import gc as garbage
import weakref
from pathlib import Path

import numpy as np
from support.values import message_of

import graphcore as gc
from graphcore.api.tensor import known_tensor, wrap
from graphcore.ir.graph import Graph
from graphcore.ir.node import Value

ROOT = Path(__file__).resolve().parents[2]


def asked(text: str) -> list[str]:
    """Where a program asks whether something is the same as another, as it would a tensor."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr == "same":
            found.append(f"{node.lineno}: .{node.attr}")
    return found


def test_values_are_compared_and_looked_up_as_they_are() -> None:
    folders = ("graphcore/ir", "graphcore/ops", "passes", "backends")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    found = {str(path): asked(path.read_text(encoding="utf-8")) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert asked("x = 1\nif a.same(b):\n    c = d.key") == ["2: .same"]
    # Nor is there another identity to ask for: mypy refuses it.
    assert not hasattr(Value, "key") and not hasattr(gc.Tensor, "key")


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


def test_a_slot_has_one_reading_node_at_a_time() -> None:
    with gc.device("opencl:0"), gc.name_scope("net"):
        w = gc.Variable(np.zeros(3, np.float32), name="w")
    slot, serial, label = w.slot, w.node.serial, w.node.op.given_name
    assert slot.read() is not slot.read() and slot.read() == w.value and slot.read().node is w.node
    gone = weakref.ref(w)
    del w
    assert gone() is None
    with gc.device("opencl:1"):
        again = slot.read()
    assert again.node.serial > serial and slot.read() == again and again.type == slot.type
    assert (again.node.device, again.node.op.given_name, again.name, slot.name) == (
        "opencl:0", label, "net/w", "net/w",
    )  # fmt: skip


def test_a_variable_is_made_again_as_it_was() -> None:
    w = gc.Variable(np.zeros(3, np.float32), name="w")
    w.key_hint, w.trainable = "head/w", False
    w.set_initial([1.0, 2.0, 3.0])
    update = w.assign(w + 1.0)
    assert update.variable is w and update.slot is w.slot and isinstance(update, gc.Update)
    uid, place = w.uid, w.place
    del w
    made = update.variable
    assert made is update.variable and made.value == update.slot.read()
    assert (made.uid, made.place, made.name, made.trainable) == (uid, place, "head/w", False)
    assert made.initial.tolist() == [1, 2, 3] and made.grad is None
    made.key_hint = None
    assert made.name == update.slot.name == "w"


def test_what_is_assigned_may_be_numbers() -> None:
    w = gc.Variable(np.zeros(2, np.float32), name="w")
    with gc.Session("numpy") as session:
        for value in (np.array([1, 2], np.float32), [3.0, 4.0], w * 2.0, (5, 6)):
            want = [6, 8] if isinstance(value, gc.Tensor) else list(value)
            session.run(w.assign(value))
            assert session.get_value(w).tolist() == want


def test_a_value_is_no_list_of_its_parts() -> None:
    x, w = gc.placeholder("float32", (2,), name="x"), gc.Variable(np.zeros(2, np.float32))
    for use in (lambda: gc.constant(x.value), lambda: w.assign(x.value), lambda: w + x.value, lambda: gc.exp(x.value)):
        assert "its tensor is meant: x: float32(2,)" in message_of(gc.UsageError, use)
