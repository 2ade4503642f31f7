"""Families of schedules from other packages: registered, asked before graphcore's own, refused where they are wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from support.device_names import CPUS, INTEL, RUNTIMES
from support.sessions import opened

import graphcore as gc
from backends.codegen import registry
from backends.codegen.family import Family
from backends.codegen.nest.family import Nest
from backends.codegen.registry import register, registered
from graphcore.base.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]

# A package of somebody else: scalar loops for sums of rows, and for elementwise kernels of one axis.
PACKAGE = '''
    from dataclasses import dataclass

    from backends.codegen.emitter import Emitter
    from backends.codegen.family import Family
    from backends.codegen.template import function
    from graphcore.base.shapes import dim_min, product
    from graphcore.plan.costs import Work
    from graphcore.plan.target import Reject


    @dataclass(frozen=True)
    class Turns:
        """How many rows a task takes at a time."""

        rows: int

        def describe(self):
            return f"{self.rows} rows a turn"


    class RowSums(Family):
        name = "row-sums"
        version = "1.0"

        def serves(self, device):
            return device.is_cpu

        def candidates(self, kernel, device, hints):
            sums = [v for v in kernel.values() if v.fn == "reduce"]
            if [v.combine for v in sums] != ["add"] or not kernel.axes or set(sums[0].reduce_axes) != {kernel.axes[-1]}:
                return Reject("it is not one sum of each row")
            if any(s.mode != "set" or kernel.axes[-1] in s.index.axes() for s in kernel.stores):
                return Reject("it stores more than the rows' sums")
            return [Turns(1), Turns(2)]

        def emit(self, kernel, choices, device):
            (total,) = (v for v in kernel.values() if v.fn == "reduce")
            rows, column, em = kernel.axes[:-1], kernel.axes[-1], Emitter(kernel, device)
            em.line(f"const int units = {' * '.join(em.extent(a.extent) for a in rows) or '1'};")
            with em.block("for (int u = task; u < units; u += tasks)", rows):
                rest = "u"
                for a in reversed(rows):
                    em.name_axis(a, f"({rest} % {em.extent(a.extent)})")
                    rest = f"({rest} / {em.extent(a.extent)})"
                em.line("float sum = 0.0f;")
                with em.loop(column):
                    em.line(f"sum += {em.value(total.args[0])};")
                em.define(total, "sum")
                em.store_all(kernel.stores)
            return function(device.language, kernel, em.lines)

        def tasks(self, kernel, choices, device):
            return dim_min(product(a.extent for a in kernel.axes[:-1]), 4)

        def work(self, kernel, choices):
            elements = product(a.extent for a in kernel.axes)
            return Work(instructions=elements, traffic=4 * elements)


    def add(register):
        register(RowSums(), before="matmul")
'''
PROGRAM = """
    import sys
    import numpy as np
    import graphcore as gc

    device = sys.argv[1]
    x, y, z = (gc.placeholder("float32", (None, 37), name=n) for n in "xyz")
    fetches = [gc.exp(x).sum(axis=1) * 2, y.sum(axis=1), (z * 3).max(axis=1)]
    given = np.linspace(-1, 1, 5 * 37, dtype=np.float32).reshape(5, 37)
    with gc.Session(device) as session, gc.Session("numpy") as oracle:
        for rows in (5, 1, 0):
            feeds = {t: given[:rows] + i for i, t in enumerate((x, y, z))}
            for got, wanted in zip(session.run(fetches, feeds), oracle.run(fetches, feeds)):
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        compiled = session.compile(fetches, dict.fromkeys((x, y, z), (5, 37)))
        print(compiled.explain())
        print(compiled.backend.target.name)
"""


def install(folder: Path, source: str, entry: str = "theirs:add") -> dict[str, str]:
    """A package ``theirs`` as an installer leaves it, and the environment in which Python finds it."""
    (folder / "theirs.py").write_text(dedent(source))
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[graphcore.families]\ntheirs = {entry}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def run(environment: dict[str, str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", dedent(program), *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("device", CPUS)
def test_an_installed_family_takes_kernels_over(device: str, tmp_path: Path) -> None:
    done = run(install(tmp_path, PACKAGE), PROGRAM, device)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^kernel \d+ \w+: level 0, family row-sums \(1 rows a turn\)$", done.stdout, re.M)) == 2
    assert re.search(r"^kernel \d+ \w+: level 0, family nest", done.stdout, re.M)  # the maximum
    assert "with row-sums=theirs.RowSums@1.0" in done.stdout


@pytest.mark.parametrize(
    ("source", "entry", "words"),
    [
        ("add = 3", "theirs:add", "it names a int, and must name a function that calls register"),
        ("def add(register): register(3)", "theirs:add", "register takes a family of schedules, not int"),
        ("def add(register): pass", "theirs:gone", "gone"),
        ("def add(register): raise KeyError('broken')", "theirs:add", "broken"),
    ],
)
def test_a_bad_entry_point_is_named(source: str, entry: str, words: str, tmp_path: Path) -> None:
    done = run(install(tmp_path, source, entry), f"import graphcore as gc; gc.Session('{RUNTIMES[0]}')")
    assert done.returncode != 0
    assert words in done.stderr
    assert f"in the entry point theirs of graphcore.families ({entry})" in done.stderr


def test_what_a_broken_entry_point_registered_is_taken_back(tmp_path: Path) -> None:
    source = PACKAGE + "\n        raise ValueError('later')\n"
    program = """
        import backends.codegen.registry as registry
        for _ in range(2):
            try:
                registry.identity()
            except ValueError as error:
                print(error, "row-sums" in registry.BY_NAME)
    """
    done = run(install(tmp_path, source), program)
    assert done.stdout == "later False\nlater False\n", done.stderr


# --- registering by a call --------------------------------------------------------------------------------------------


class Renamed(Nest):
    """The loop nest under another name."""

    name = "renamed"
    version = "7"


def families(session: gc.Session, size: int) -> set[str]:
    x = gc.placeholder("float32", (size,), name="x")
    given = np.arange(size, dtype=np.float32)
    np.testing.assert_array_equal(session.run(x * 2 + 1, {x: given}), given * 2 + 1)
    return {k["family"] for k in session.compile(x * 2 + 1, {x: (size,)}).cost_analysis()["kernels"]}


def test_a_family_counts_for_sessions_that_are_opened_later() -> None:
    with opened(INTEL) as before:
        assert families(before, 11) == {"nest"}
        with registered(Renamed()), opened(INTEL) as inside:
            assert families(inside, 11) == {"renamed"}
            assert families(before, 12) == {"nest"}
            assert "renamed" in registry.identity() and "@7" in registry.identity()
        with opened(INTEL) as after:
            assert families(after, 13) == {"nest"}
    assert registry.identity() == "" and "renamed" not in registry.BY_NAME


class Nameless(Nest):
    """Has the name of its parent only."""


class Half(Family):
    name = "half"

    def emit(self, kernel, choices, device):
        return ""


class Empty(Nest):
    name = "empty"

    def candidates(self, kernel, model, hints):
        return []

    schedule = Family.schedule


@pytest.mark.parametrize(
    ("family", "before", "words"),
    [
        (3, "nest", "register takes a family of schedules, not int: extend backends.codegen.family.Family"),
        (Renamed, "nest", "register takes an instance: write register(Renamed(), ...)"),
        (Half(), "nest", "Half does not define candidates, tasks, work: write these methods"),
        (Nameless(), "nest", "Nameless has no name of its own: set name = '...'"),
        (Nest(), "nest", "there is a family 'nest' already, backends.codegen.nest.family.Nest"),
        (Renamed(), "nets", "renamed cannot be asked before 'nets': there are conv,"),
    ],
    ids=["no family", "class", "half", "nameless", "twice", "before"],
)
def test_what_cannot_be_registered(family, before: str, words: str) -> None:
    names = list(registry.BY_NAME)
    with pytest.raises(UsageError, match=re.escape(words)):
        register(family, before=before)
    assert list(registry.BY_NAME) == names and registry.identity() == ""


def test_a_family_twice() -> None:
    with registered(Renamed()), pytest.raises(UsageError, match="or is registered twice"):
        register(Renamed())


def test_a_family_without_choices_is_named() -> None:
    x = gc.placeholder("float32", (5,), name="x")
    with (
        registered(Empty()),
        opened(INTEL) as session,
        pytest.raises(gc.CompileError, match="the family empty offers no choices for"),
    ):
        session.run(x * 2, {x: np.ones(5)})
