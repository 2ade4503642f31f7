"""How code is spelled is known to languages, and what a vendor's runtime is like to descriptions of devices. Read from
the syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODEGEN = ROOT / "backends" / "codegen"

# The languages, and the mathematical functions of OpenCL C's runtimes.
LANGUAGES = {"language.py", "opencl_c.py", "c_language.py", "mathlib.py", "mathcode.py"}
SPELLED = re.compile(
    r"__global|__local|__private|\bvload|\bvstore|convert_|\bbarrier\(|get_local_id|get_group_id|OPENCL"
)
# Texts in which families still spell OpenCL C themselves, by file. The numbers may only fall.
STILL_SPELLED: dict[str, int] = {}

# Files that describe devices, and so know vendors.
DESCRIPTIONS = {
    "backends/codegen/device_costs.py",
    "backends/opencl/device/device.py",
    "backends/opencl/language.py",
    "backends/opencl/target.py",
}
# Comparisons of vendors elsewhere, by file. The numbers may only fall.
STILL_COMPARED: dict[str, int] = {}


def texts(module: ast.Module) -> Iterator[str]:
    """The texts in a module, the constant parts of formatted ones among them, but for documentation."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    loose = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents | loose:
            yield node.value


def vendors_compared(module: ast.Module) -> Iterator[int]:
    """Lines that compare a vendor with something."""
    for node in ast.walk(module):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            if any(
                (isinstance(s, ast.Attribute) and s.attr == "vendor") or (isinstance(s, ast.Name) and s.id == "vendor")
                for s in sides
            ):
                yield node.lineno


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_only_languages_spell() -> None:
    found = {}
    for path in sorted(CODEGEN.rglob("*.py")):
        name = str(path.relative_to(CODEGEN))
        if name not in LANGUAGES:
            found[name] = sum(bool(SPELLED.search(text)) for text in texts(parsed(path)))
    assert {name: n for name, n in found.items() if n} == STILL_SPELLED


def test_only_descriptions_know_vendors() -> None:
    found = {}
    for folder in ("graphcore", "passes", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name not in DESCRIPTIONS:
                found[name] = len({*vendors_compared(parsed(path))})
    assert {name: n for name, n in found.items() if n} == STILL_COMPARED


def test_the_checks_see_what_they_look_for() -> None:
    spelled = '"""__global"""\nx = f"{a} __global {b}"\ny = "vload4(0, p)"\nz = "convert"\ndef f():\n    "barrier()"\n'
    assert [bool(SPELLED.search(t)) for t in texts(ast.parse(spelled))].count(True) == 2
    compared = ("vendor == 'x'", "info.vendor in ('x', 'y')", "'x' != d.info.vendor", "vendor in TABLE")
    assert all([*vendors_compared(ast.parse(text))] == [1] for text in compared)
    assert not [*vendors_compared(ast.parse("table[vendor]; name == 'x'"))]
