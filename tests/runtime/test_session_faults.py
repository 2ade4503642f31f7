"""Sessions under faults: kills, failed allocations, kernels that do not build, hostile names, ops without a kernel."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sessions import ROOT, opened

import graphcore as gc
from graphcore.api.tensor import Builder
from graphcore.ir.op import _REGISTRY, Map, primitive

# --- kills ------------------------------------------------------------------------------------------------------------

SAVE = """
    import sys
    import numpy as np
    import graphcore as gc
    sess = gc.Session("numpy")
    w = gc.Variable(np.zeros(200_000), name="w")
    n = gc.Variable(np.int64(0), name="n")
    step = sess.make_callable([w.assign(w + 1), n.assign(n + 1)])
    sess.state_dict()
    step()
    sess.save(sys.argv[1])
    print("saved", flush=True)
    while True:
        step()
        sess.save(sys.argv[1])
"""


def check_kills(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    path = tmp_path / "state"
    newest = 0
    for _ in range(count):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVE), str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout is not None and child.stdout.readline() == "saved\n"
            time.sleep(float(rng.random()) * 0.02)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(20)
            assert child.stdout is not None
            child.stdout.close()
        with gc.Session("numpy") as session:
            w, n = gc.Variable(np.zeros(200_000), name="w"), gc.Variable(np.int64(0), name="n")
            session.run([w, n])
            session.restore(path)
            value, number = session.get_value(w), session.get_value(n)
        assert number >= 1 and (value == number).all()
        newest = max(newest, int(number))
    assert newest > 1  # some were killed while they replaced an older file


def test_killed_saves_leave_the_old_or_the_new_file(tmp_path: Path) -> None:
    check_kills(tmp_path, 10)


@pytest.mark.slow
def test_many_killed_saves_leave_the_old_or_the_new_file(tmp_path: Path) -> None:
    check_kills(tmp_path, 200)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["host", "buffer"])
def test_every_failed_allocation_is_told_and_survived(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyopencl as cl

    from backends.opencl import memory

    opened("opencl:intel").close()
    for number in range(40):
        session = gc.Session("opencl:intel")
        w = gc.Variable(np.ones((64, 64), np.float32), name="w")
        v = gc.Variable(np.ones((64, 64), np.float32), name="v")
        x = gc.placeholder("float32", (None, 64), name="x")
        y = gc.tanh(x @ w) @ v + gc.constant(np.ones((1, 64), np.float32) * 3)
        loss = (y * y).mean()
        step = [w.assign(w + 1), v.assign(v + 1)]
        data = np.ones((256, 64), np.float32)
        calls = 0

        def failing(real: Any, error: Exception, number: int = number) -> Any:
            def allocate(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls - 1 == number:
                    raise error
                return real(*args, **kwargs)

            return allocate

        caught = None
        with monkeypatch.context() as patch:
            if what == "buffer":
                patch.setattr(
                    cl,
                    "Buffer",
                    failing(cl.Buffer, cl.MemoryError("clCreateBuffer failed: MEM_OBJECT_ALLOCATION_FAILURE")),
                )
            else:
                patch.setattr(memory.np, "empty", failing(np.empty, MemoryError("no memory")))
            try:
                session.run([loss, step], {x: data})
            except gc.OutOfMemoryError as error:
                caught = error
        if caught is None:
            assert calls <= number, "the failure was swallowed"
            break
        assert "cannot allocate" in str(caught) and re.search(r"[\d,]+ bytes", str(caught))
        with session:
            failed_early = session.run([w, v])  # as if nothing had happened
            assert [a[0, 0] for a in failed_early] == [1, 1], "the failed run counted"
            value, _ = session.run([loss, step], {x: data})
            np.testing.assert_allclose(value, (np.tanh(64) * 64 + 3) ** 2, rtol=1e-5)
            assert [session.get_value(t)[0, 0] for t in (w, v)] == [2, 2]
    else:
        pytest.fail("the run allocates without end")
    assert number >= 2, "no allocation failed"  # the variables' block, and the arena


def test_a_plan_that_the_device_cannot_hold_lists_its_largest_values(
    intel: gc.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backends.opencl.memory import Memory

    real = Memory.grow

    def limited(self: Any, size: int) -> None:
        if size > 100_000:
            raise gc.OutOfMemoryError(f"it cannot allocate {size:,} bytes")
        real(self, size)

    monkeypatch.setattr(Memory, "grow", limited)
    w = gc.Variable(np.ones((100, 100), np.float32), name="w")
    x = gc.placeholder("float32", (None, 100), name="x")
    y = gc.softmax(x @ w, axis=1) @ w
    with pytest.raises(gc.OutOfMemoryError) as caught:
        intel.run(y, {x: np.ones((500, 100))})
    text = str(caught.value)
    assert (
        "the plan needs" in text
        and "200,000 bytes: " in text
        and f"{Path(__file__).name}:" in text
        and "variable w" in text
    )
    np.testing.assert_allclose(intel.run(y, {x: np.ones((20, 100))}), np.ones((20, 100)), rtol=1e-5)


def test_more_than_the_device_has(intel: gc.Session) -> None:
    x = gc.placeholder("float32", (), name="x")
    huge = gc.broadcast_to(x, (2**22, 2**22)) * 2
    with pytest.raises(gc.OutOfMemoryError) as caught:
        intel.run(huge, {x: 1})
    assert "70,368,744,177,664 bytes" in str(caught.value)
    assert intel.run(x * 2, {x: 3}) == 6


# --- kernels that do not build ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["opencl:intel", "opencl:pocl"])
def test_a_kernel_that_does_not_build_shows_its_source(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.codegen.registry import BY_NAME

    with opened(device) as session:
        x = gc.placeholder("float32", (7, 3), name="x")
        nest = type(BY_NAME["nest"])
        real = nest.emit
        with monkeypatch.context() as patch:
            patch.setattr(nest, "emit", lambda self, *args: real(self, *args).replace("{\n", "{\n  this is no C;\n", 1))
            with pytest.raises(gc.CompileError) as caught:
                session.run(x * 2 + 0.125, {x: np.ones((7, 3))})
        text = str(caught.value)
        assert re.search(r">\s*\d+ \|   this is no C;", text), text
        assert "build log" in text and "error" in text and f"from {Path(__file__).name}:" in text
        np.testing.assert_array_equal(session.run(x * 2 + 0.125, {x: np.ones((7, 3))}), np.full((7, 3), 2.125))


HOSTILE = (
    '"); system("touch /tmp/x',
    "<script>alert(1)</script>",
    "*/ int x; /*",
    "a\\\nb",
    "%s%n",
    "}; #include <stdio.h>",
    "\u202e\x00end",
    "{have}",
)


def test_hostile_names_never_reach_the_source(intel: gc.Session) -> None:
    for name in HOSTILE:
        with gc.name_scope(name):
            x = gc.placeholder("float32", (None, 3), name=name)
            w = gc.Variable(np.ones((3, 2), np.float32), name=name)
            c = gc.constant(np.arange(2, dtype=np.float32), name=name)
            y = gc.softmax(x @ w + c, axis=1)
        update = w.assign(w * 2)
        compiled = intel.compile([y, update], {x: (4, 3)})
        source = compiled.as_text("source")
        assert "kernel" in source
        for fragment in {name, *re.findall(r"\w{5,}", name)} - {"include"}:
            assert fragment not in source, fragment
        assert intel.run([y, update], {x: np.ones((4, 3))})[0].shape == (4, 2)
        for stage in ("built", "simplified", "fused", "kernels", "plan"):
            assert isinstance(compiled.as_text(stage), str)
        with pytest.raises(gc.FeedError) as caught:
            intel.run(y, {x: np.ones((4, 5))})
        assert name in str(caught.value)


@pytest.mark.parametrize("device", ["numpy:kernels", "opencl:intel"])
def test_an_op_without_a_kernel_is_named(device: str) -> None:
    @primitive
    class Unlowered(Map):
        """y = x, with a reference and no kernel."""

        name = "unlowered_for_test"

        def reference(self, x: Any) -> Any:
            return x

    try:
        with opened(device) as session:
            x = gc.placeholder("float32", (3,), name="x")
            y = Builder().unlowered_for_test(x * 2)
            with pytest.raises(gc.CompileError) as caught:
                session.run(y + 1, {x: [1, 2, 3]})
            assert "unlowered_for_test has no kernel" in str(caught.value) and f"{__file__}:" in str(caught.value)
            assert session.run(x * 2, {x: [1, 2, 3]}).tolist() == [2, 4, 6]
    finally:
        del _REGISTRY["unlowered_for_test"]


def test_the_oracle_names_an_op_without_a_reference() -> None:
    from graphcore.ir.graph import Graph
    from graphcore.ir.interpret import interpret

    @primitive
    class Unknown(Map):
        """An op of which nothing is known."""

        name = "unknown_for_test"

    try:
        x = gc.placeholder("float32", (3,))
        y = Builder().unknown_for_test(x)
        with pytest.raises(gc.CompileError) as caught:
            interpret(Graph((y,), (), (x,)), {x.value: np.ones(3, np.float32)})
        assert "unknown_for_test" in str(caught.value) and f"{__file__}:" in str(caught.value)
    finally:
        del _REGISTRY["unknown_for_test"]
