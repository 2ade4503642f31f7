"""Habits that every file keeps: short, typed, explained. Read from the syntax trees."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.syntax_trees import ROOT, modules, tree


def sources() -> list[Path]:
    return [*modules().values(), *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]


def test_no_file_is_over_500_lines() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
    assert {name: n for name, n in lengths.items() if n > 500} == {}


def test_nothing_executes_data_or_is_left_undone() -> None:
    wrong = []
    for path in modules().values():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                wrong += [
                    f"{path}:{node.lineno} imports {n}"
                    for n in names
                    if n.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "cloudpickle")
                ]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                wrong.append(f"{path}:{node.lineno} calls {node.func.id}")
            if isinstance(node, ast.Call) and any(
                k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False for k in node.keywords
            ):
                wrong.append(f"{path}:{node.lineno} allows pickle")
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{path}:{node.lineno} has a bare except")
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"\b(TO" + "DO|FIX" + "ME|X" + r"XX)\b", line):
                wrong.append(f"{path}:{number} is left undone: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_expressions_are_read_by_their_typed_properties() -> None:
    """What an expression keeps by position has names; only the file that defines them knows the positions."""
    wrong = [
        f"{name}:{node.lineno}"
        for name in modules()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and node.attr == "_data" and name != "graphcore.kernel.expr"
    ]
    assert not wrong, wrong


CLOCK = re.compile(r"\b(?:time\.(?:time|monotonic|perf_counter|process_time|thread_time)(?:_ns)?|timeit\.\w+)\(")


def test_no_test_reads_a_clock() -> None:
    """How long something takes is measured by ``benchmarks``; tests count work."""
    wrong = [str(p) for p in sorted((ROOT / "tests").rglob("*.py")) if CLOCK.search(p.read_text(encoding="utf-8"))]
    assert not wrong, wrong
    assert CLOCK.search("start = time.perf_counter" + "()") and not CLOCK.search("time.sleep(0.1)")


def test_every_file_says_what_it_is_for() -> None:
    missing = [
        str(p)
        for p in sources()
        if p.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))
    ]
    assert not missing, missing
