"""Families configure an emitter by what they give it and change it by its methods: read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CODEGEN = Path(__file__).resolve().parents[3] / "backends" / "codegen"
OWNERS = ("emitter.py", "accumulator.py")  # the classes of these files hold what only they may change
MUTATORS = {
    *("append", "extend", "insert", "pop", "remove", "clear", "update", "setdefault", "popitem"),
    *("add", "discard", "sort", "reverse"),
}


def held(classes: list[ast.ClassDef]) -> set[str]:
    """The attributes of the instances of classes: fields, and what methods assign to ``self``."""
    found = set()
    for node in (n for c in classes for n in ast.walk(c)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    for each in classes:
        found |= {n.target.id for n in each.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return found


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def in_emitter(node: ast.AST, up: dict[ast.AST, ast.AST], names: set[str]) -> bool:
    """Whether ``self`` is an emitter here: inside a class that extends one."""
    while node in up:
        node = up[node]
        if isinstance(node, ast.ClassDef):
            return any(isinstance(b, ast.Name) and b.id in names for b in node.bases)
    return False


def changes(text: str, attributes: set[str], classes: set[str]) -> Iterator[str]:
    """The statements that change an emitter's attributes, or a list or table that it holds, also by another name."""
    tree = ast.parse(text)
    up = parents(tree)

    def own(node: ast.expr) -> bool:
        """Whether this is an attribute of an emitter, a scope or an accumulator."""
        if not isinstance(node, ast.Attribute) or node.attr not in attributes:
            return False
        return not is_self(node.value) or in_emitter(node, up, classes)

    def aliases(function: ast.AST) -> set[str]:
        pairs = []
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    together = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                    pairs += zip(target.elts, node.value.elts, strict=False) if together else [(target, node.value)]
        return {t.id for t, v in pairs if isinstance(t, ast.Name) and own(v)}

    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Module)):
        names = aliases(function) if isinstance(function, ast.FunctionDef) else set()
        for node in ast.walk(function):
            container = None
            if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                container = node if isinstance(node, ast.Attribute) else node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
                container = node.func.value
            if container is None:
                continue
            if own(container) or (isinstance(container, ast.Name) and container.id in names):
                yield ast.unparse(node)


@pytest.fixture(scope="module")
def rule() -> tuple[set[str], set[str]]:
    """Attributes that only their classes may change, and these classes."""
    classes = [n for f in OWNERS for n in ast.parse((CODEGEN / f).read_text()).body if isinstance(n, ast.ClassDef)]
    return held(classes), {c.name for c in classes}


def test_only_emitters_change_themselves(rule):
    paths = [p for p in CODEGEN.rglob("*.py") if p.name not in OWNERS]
    assert len(paths) > 20
    found = {str(p.relative_to(CODEGEN)): sorted(set(changes(p.read_text(), *rule))) for p in paths}
    assert {p: lines for p, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "def f(em): em.aligned = False",
        "def f(em): em.scopes = []",
        "def f(em): em.axis_code.update(batch)",
        "def f(em): em.axis_code[axis] = 'i'",
        "def f(em): del em.scope.names[value]",
        "def f(em): em.scope.lines += ['x']",
        "def f(em):\n    lines = em.scope.lines\n    lines.append('x')",
        "def f(em):\n    own, lines = em.language, em.home(e).lines\n    lines.extend(x)",
        "class C:\n    def f(self): self.em.pinned[value] = axes",
        "class C(Emitter):\n    def f(self): self.pinned[value] = axes",
        "def f(main): main.name, main.position = name, at",
    ],
)
def test_the_rule_sees_changes(line, rule):
    assert list(changes(line, *rule))


@pytest.mark.parametrize(
    "line",
    [
        "def f(em): em.name_axis(axis, 'i')",
        "def f(em): lines = em.lines\nlines = []\nlines.append('x')",
        "class C:\n    def __init__(self, kernel): self.kernel, self.width = kernel, 1",
        "class C(Emitter):\n    def __init__(self, starts): self.starts = starts",
        "def f(em): return em.axis_code[axis]",
    ],
)
def test_the_rule_allows(line, rule):
    assert not list(changes(line, *rule))
