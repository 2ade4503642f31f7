"""What type checkers see is what is there: Tensor's operators and methods, the package's lazy names, and no others."""

from __future__ import annotations

import ast
import configparser
import inspect
import os
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import graphcore as gc
from graphcore.api.operators import Casts, Operators, Refusals

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """\
from typing import assert_type

import numpy as np

import graphcore as gc
from graphcore import Tensor, Variable

x = gc.placeholder("float32", (4, 3), name="x")
w = gc.Variable(np.ones((3, 2), np.float32), name="w")
a = np.ones(3, np.float32)

assert_type(w, Variable)
assert_type(x + 1, Tensor)
assert_type(2.0 ** -x, Tensor)
assert_type(a * x - [1, 2, 3], Tensor)
assert_type(x @ w, Tensor)
assert_type(x == 0, Tensor)
assert_type((x > a) & ~(x != x) | True, Tensor)
assert_type(abs(x), Tensor)
assert_type(len(x), int)
assert_type(x[0, :, None] + x[1:, ..., :1], Tensor)
assert_type(x.at[0].set(1.0).at[:, 1].add(x[:, 0]), Tensor)
assert_type(x.T.mT.reshape(2, -1).sum(axis=0, keepdims=True, dtype="float64"), Tensor)
assert_type(x.mean(dim=-1, keepdim=True).exp().clip(0, 1).int().bool(), Tensor)
assert_type(x.split(2), list[Tensor])
loss = ((x @ w).relu() ** 2).mean()
(g,) = gc.gradients(loss, [w])
update = w.assign(w - 0.1 * g)
with gc.Session("numpy:kernels", seed=0) as sess:
    assert_type(sess, gc.Session)
    result = sess.run([loss, update], {x: np.ones((4, 3), np.float32)})[0]
"""

HEAD = """\
import graphcore as gc

x = gc.placeholder("float32", (4, 3))
w = gc.Variable([1.0])
"""

MISTAKES = {  # a line, and what the checker says
    'x + "a"': "incompatible type",
    'x @ {"a": 1}': "incompatible type",
    "x.summ()": 'no attribute "summ"',
    "x.sum(axes=1)": 'keyword argument "axes"',
    "x.exp(3)": "Too many arguments",
    "x.at[0].put(1)": 'no attribute "put"',
    "x.T()": "not callable",
    "s: str = x * 2": "Incompatible types",
    "x[0] = 1": "indexed assignment",
    "for row in x: pass": "__iter__",
    "1.0 in x": "right operand type for in",
    "int(x)": 'argument type "Tensor"',
    "x.item()": 'no attribute "item"',
    "w += 1": "Incompatible types",
    "gc.Sesion()": 'no attribute "Sesion"',
    "gc.Session(sed=0)": 'keyword argument "sed"',
}


def members(*classes: type) -> set[str]:
    """The methods and properties that classes themselves define."""
    return {name for c in classes for name, member in vars(c).items() if hasattr(member, "__get__")}


def surface() -> tuple[list[str], list[str]]:
    """Expressions for all that a tensor and the package have, and those of them that a checker is to refuse."""
    tensor = sorted(
        set(dir(gc.Tensor)) - set(dir(object)) - {"__slots__", "__weakref__", "__slotnames__"}
    )  # copying leaves the last
    package = sorted(gc.__all__)
    refused = [f"x.{n}" for n in sorted(members(Refusals))] + [f"gc.{n}" for n in package if not hasattr(gc, n)]
    return [f"x.{n}" for n in tensor] + [f"gc.{n}" for n in package], refused


def mypy(folder: Path, cache: Path, programs: dict[str, str]) -> dict[str, dict[int, str]]:
    """What mypy says of programs: messages by program and line."""
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--follow-imports=silent", "--no-pretty",
               f"--cache-dir={cache}", *(f"{name}.py" for name in programs)]  # fmt: skip
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr  # errors were found, and mypy itself had none
    found: dict[str, dict[int, str]] = {name: defaultdict(str) for name in programs}
    for name, line, message in re.findall(r"^(\w+)\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found[name][int(line)] += message
    return found


def after_head(lines: Iterable[str]) -> str:
    return HEAD + "".join(f"{line}\n" for line in lines)


def by_line(report: dict[int, str], lines: Iterable[str]) -> dict[str, str]:
    """The messages by line of a program made with ``after_head``."""
    numbered = dict(enumerate(lines, HEAD.count("\n") + 1))
    return {numbered[number]: message for number, message in report.items()}


def test_a_checker_sees_what_is_there(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One run for three programs, since mypy reads the whole package for it: right, wrong, and all names."""
    pytest.importorskip("mypy")
    assert request.config.cache is not None
    expressions, refused = surface()
    programs = {"right": PROGRAM, "wrong": after_head(MISTAKES), "names": after_head(expressions)}
    reports = mypy(tmp_path, request.config.cache.mkdir("mypy"), programs)
    assert dict(reports["right"]) == {}

    said = by_line(reports["wrong"], MISTAKES)
    missed = {line: said.get(line, "nothing") for line, part in MISTAKES.items() if part not in said.get(line, "")}
    assert missed == {}, "what mypy says of these lines is not what it should"

    said = by_line(reports["names"], expressions)
    assert {e: m for e, m in said.items() if e not in refused} == {}, "there, but not seen: declare it"
    assert set(refused) - set(said) == set(), "seen, but refused or not there"


def test_the_program_runs(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    assert np.isfinite(runpy.run_path(str(path))["result"])


def test_every_declared_member_is_installed() -> None:
    own = {n.name for n in ast.walk(ast.parse(inspect.getsource(gc.Tensor))) if isinstance(n, ast.FunctionDef)}
    declared = members(Casts, Operators, Refusals)
    for kind in (Casts, Operators, Refusals):
        for name in members(kind):
            assert vars(gc.Tensor)[name] is vars(kind)[name], name
    assert own & declared == set(), "installing hides these, and checkers see what was hidden"
    assert members(gc.Tensor) - own - declared == {"grad", "value", "__weakref__"}, "installed, but not declared"


def test_the_packages_are_marked_as_typed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for package in ("graphcore", "passes", "backends"):
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in config["options.package_data"][package].split()
