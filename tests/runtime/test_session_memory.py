"""What a session keeps of its programs, how much of them, and what closing it frees."""

from __future__ import annotations

import re
import weakref
from typing import Any

import numpy as np
import pytest
from support.sessions import opened

import graphcore as gc
from graphcore.runtime.compiled import STAGES

DEVICES = ("numpy:kernels", "opencl:intel", "opencl:pocl", "opencl:intel:as-gpu")


def training(rows: Any = None) -> tuple[Any, Any, Any]:
    x = gc.placeholder("float32", (rows, 6), name="x")
    w = gc.Variable(np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6), name="w")
    loss = (gc.softmax(gc.tanh(x @ w), axis=1) ** 2).mean()
    return x, w, [loss, w.assign(w - 0.1 * gc.gradients(loss, [w])[0])]


def timeless(text: str) -> str:
    return re.sub(r"[\d.]+ ms", "ms", text)


@pytest.mark.parametrize("device", DEVICES)
def test_a_program_that_ran_keeps_no_stage_and_gives_every_one_again(device: str) -> None:
    with opened(device) as session:
        x, w, step = training()
        feed = np.ones((4, 6), np.float32)
        fresh = session.compile(step, {x: feed})
        partition = weakref.ref(fresh.compilation.partition)
        stages = (*STAGES, *fresh.pipeline.names)
        texts = [fresh.as_text(stage) for stage in stages]
        explained = timeless(fresh.explain())
        assert fresh.compilation is fresh.compilation and partition() is not None
        session.run(step, {x: feed})
        seen = session.compile(step, {x: feed})
        assert seen.plan is fresh.plan
        del fresh
        assert partition() is None
        assert [seen.as_text(stage) for stage in stages] == texts
        assert timeless(seen.explain()) == explained
        (program,) = session._cache.programs.values()
        assert [c._made for c in program.compiled] == [None]
        first = session.run(step, {x: np.ones((9, 6), np.float32)})[0]  # other sizes are bound to what was kept
        assert len(program.compiled) == 1 and np.isfinite(first)


@pytest.mark.parametrize("device", ["opencl:intel", "opencl:intel:as-gpu"])
@pytest.mark.parametrize("launch", ["step", "one"])
def test_texts_are_not_kept_once_they_are_built(device: str, launch: str) -> None:
    with opened(device, launch=launch) as session:
        x, w, step = training()
        session.run(step, {x: np.ones((4, 6))})
        compiled = session.compile(step, {x: (4, 6)})
        source = compiled.program.source
        assert source.text == source.whole == "" and not any(f.text for f in source.functions)
        text = compiled.as_text("source")
        assert "__kernel" in text and all(f.name in text for f in source.functions)
        session._backend.launch = "step"  # a GPU builds another program of the same texts
        assert np.isfinite(session.run(step, {x: np.ones((7, 6))})[0])
