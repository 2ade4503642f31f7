"""Graphs as trees of text, and for networkx."""

from __future__ import annotations

import io

import pytest

import graphcore as gc
from graphcore.ir.graph import collect
from graphcore.tools.pictures import dprint, dump, to_networkx


def test_dprint_shows_a_tree_and_shared_values_once(capsys):
    x = gc.placeholder("float32", (3,), name="x")
    with gc.name_scope("s"):
        h = gc.exp(x * 2.0)
    (g,) = gc.gradients((h * h).sum(), [x])
    assert dprint(h * h) is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip().split("  #")[0] for line in lines] == [
        "%5 = mul : float32(3,)", "%4 = exp : float32(3,)", "%3 = mul : float32(3,)",
        "%0 = placeholder x : float32(3,)", "2 : float32(3,)", "%4 (above)",
    ]  # fmt: skip
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4, 6, 6, 2]
    assert lines[0].split("# ")[1].startswith("test_dump_text.py:")
    w = gc.Variable([1.0, 2.0, 3.0], name="w")
    dprint({"step": w.assign(w - g)})
    text = capsys.readouterr().out
    assert text.startswith("w <- %") and "[gradient]" in text and "variable w" in text


def test_deep_graphs_print_and_dump(tmp_path):
    x = gc.placeholder("float32", (2,), name="x")
    y = x
    for _ in range(5000):
        y = gc.sin(y)
    out = io.StringIO()
    dprint(y, file=out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 5001 and "[depth 5000] %0 = placeholder x" in lines[-1]
    assert max(map(len, lines)) < 200
    dump(y, tmp_path / "deep.dot")
    assert (tmp_path / "deep.dot").read_text().count("->") == 5001


def test_to_networkx():
    networkx = pytest.importorskip("networkx")
    x = gc.placeholder("float32", (None, 3), name="x")
    w = gc.Variable([1.0, 2.0, 3.0], name="w")
    y = gc.exp(x) * gc.exp(x)
    square = y * y
    graph = collect([square], [w.assign(w * 2.0)])
    made = to_networkx(graph)
    assert isinstance(made, networkx.MultiDiGraph) and networkx.is_directed_acyclic_graph(made)
    assert set(made) == {n.serial for n in graph.nodes()}
    assert made.number_of_edges() == sum(len(n.inputs) for n in graph.nodes())
    assert sorted(d["operand"] for d in made[y.node.serial][square.node.serial].values()) == [0, 1]
    data = made.nodes[x.node.serial]
    assert (data["op"], data["name"], data["dtype"], data["shape"]) == ("placeholder", "x", "float32", x.shape)
    assert data["origin"].startswith(__file__) and data["derived"] is False
    assert made.graph["outputs"] == [(square.node.serial, 0)] and list(made.graph["updates"]) == ["w"]


def test_dprint_enters_region_bodies(capsys):
    x = gc.placeholder("float32", (4,), name="x")
    dprint(gc.checkpoint(lambda a: gc.exp(gc.sin(a)))(x))
    lines = [line.strip().split(" : ")[0] for line in capsys.readouterr().out.splitlines()]
    assert "checkpoint" in lines[0] and lines[1].endswith("placeholder x")
    assert lines[2].startswith("body 0 gives %") and "exp" in lines[2] and "sin" in lines[3]
