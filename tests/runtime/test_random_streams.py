"""What runs draw: the same fetches the same numbers, in every build, session, process and after resuming."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sessions import ROOT, opened

import graphcore as gc

DEVICES = ("numpy", "opencl:intel", "opencl:pocl")


def training(dropped: Any = None) -> tuple[gc.Tensor, list[Any], gc.Variable]:
    """A loss with two dropouts, one of them recomputed for the gradient, and a step of gradient descent."""
    w = dropped if dropped is not None else gc.Variable(np.linspace(-1, 1, 64, dtype=np.float32), name="w")
    with gc.name_scope("first"):
        h = gc.functional.dropout(w * 2, 0.5)
    with gc.name_scope("second"):
        y = gc.checkpoint(lambda v: gc.functional.dropout(gc.tanh(v), 0.25))(h)
    loss = (y * y).sum()
    (gradient,) = gc.gradients(loss, [w])
    return loss, [w.assign(w - 0.1 * gradient)], w


def steps(session: gc.Session, built: tuple[gc.Tensor, list[Any], gc.Variable], count: int) -> list[Any]:
    loss, update, w = built
    return [*(session.run([loss, update])[0] for _ in range(count)), session.get_value(w)]


def same(found: list[Any], wanted: list[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_builds_of_one_step_share_their_program_and_draws(device: str) -> None:
    first = training()
    builds = [first, *(training(first[2]) for _ in range(3))]
    with opened(device, seed=5) as session:
        mixed = steps(session, builds[0], 1)[:1] + steps(session, builds[1], 1)[:1] + steps(session, builds[2], 2)
        assert session.cache_info().programs == session.cache_info().compilations == 1
        alike = [session.run([loss, update])[0] for loss, update, _ in builds]
        assert len(set(map(float, alike))) == 4  # a run goes on where the one before stopped
    with opened(device, seed=5) as session:
        same(steps(session, builds[3], 4), mixed)
    with opened(device, seed=6) as session:
        assert not np.array_equal(steps(session, builds[3], 4)[-1], mixed[-1])


@pytest.mark.parametrize("device", DEVICES)
def test_one_run_draws_once(device: str) -> None:
    """A gradient, a recomputation and every loss on a draw see that draw; another call is another draw."""
    w = gc.Variable(np.ones(256, np.float32))
    with gc.name_scope("drop"):
        once, again = (gc.functional.dropout(w, 0.5) for _ in range(2))
    (gradient,) = gc.gradients(once.sum(), [w])
    recomputed = gc.checkpoint(lambda v: v * once)(w)
    (through,) = gc.gradients(recomputed.sum(), [w])
    with opened(device) as session:
        a, b, g, r, t = session.run([once, again, gradient, recomputed, through])
        np.testing.assert_array_equal(a, g)
        np.testing.assert_array_equal(a, r)
        np.testing.assert_array_equal(r + a, t)  # d (w * dropout(w)), at w = 1
        assert not np.array_equal(a, b) and set(a) == set(b) == {0, 2}
        assert not np.array_equal(session.run(once), a)
    with opened(device) as session:
        np.testing.assert_array_equal(session.run(once), a)  # it is the first of its scope here, too


@pytest.mark.parametrize("device", DEVICES)
def test_draws_of_one_run_are_independent(device: str) -> None:
    n = 20_000
    with gc.name_scope("a"):
        drawn = [gc.random.normal((n,)) for _ in range(3)]
    with gc.name_scope("b"), gc.name_scope("0"):
        drawn += [gc.random.normal((n,)) for _ in range(2)]
    with opened(device, seed=3) as session:
        values = np.stack([*session.run(drawn), *session.run(drawn)])
    assert abs(values.mean(1)).max() < 0.03 and abs(values.std(1) - 1).max() < 0.03
    assert abs(np.corrcoef(values) - np.eye(len(values))).max() < 0.03


def test_feeding_a_draw_leaves_the_others() -> None:
    with gc.name_scope("fed"):
        a, b = gc.random.normal((8,)), gc.random.normal((8,))
    scaled = a * 2
    y = scaled + b
    with gc.Session("numpy") as session:
        whole = session.run(b)
    with gc.Session("numpy") as session:
        both = session.run([b, y])[0]
    for fed in (a, scaled):
        with gc.Session("numpy") as session:
            found = session.run([b, y], {fed: np.zeros(8)})
        np.testing.assert_array_equal(found, [both, both])
    assert not np.array_equal(both, whole)  # alone it is the first of its scope


RESUME = """
import sys
import numpy as np
import graphcore as gc
from test_random_streams import steps, training

others = [gc.random.normal((3,)) for _ in range(4)]  # this process has built and run other things
with gc.name_scope("first"):
    others.append(gc.functional.dropout(gc.Variable(np.ones(3, np.float32)) + others[0], 0.5))
gc.Session("numpy").run(others)
with gc.Session(sys.argv[1], seed=11) as session:
    initial = session.state_dict(gc.nn.Linear(3, 2))
with gc.Session(sys.argv[1], seed=99) as session:
    session.restore(sys.argv[2])
    np.savez(sys.argv[3], *steps(session, training(), 2), *initial.values())
"""


@pytest.mark.parametrize("device", DEVICES)
def test_another_process_goes_on_as_this_one(device: str, tmp_path: Path) -> None:
    built = training()
    with opened(device, seed=11) as session:
        steps(session, built, 2)
        session.save(tmp_path / "state.safetensors")
        wanted = steps(session, built, 2)
    with opened(device, seed=11) as session:
        initial = session.state_dict(gc.nn.Linear(3, 2))
    with opened(device) as session:
        session.restore(tmp_path / "state.safetensors")
        same(steps(session, training(), 2), wanted)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "runtime")))
    subprocess.run(
        [sys.executable, "-c", RESUME, device, tmp_path / "state.safetensors", tmp_path / "found.npz"],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    with np.load(tmp_path / "found.npz") as found:
        same(list(found.values()), [*wanted, *initial.values()])
