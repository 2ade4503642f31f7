"""What the cases of ``test_errors`` are made of: values that many of them use, and how they run."""

from __future__ import annotations

import pathlib
from typing import Any, ClassVar

import numpy as np

import graphcore as gc
from graphcore.ir.op import Map, primitive

HERE = str(pathlib.Path(__file__).resolve())
X = gc.placeholder("float32", (None, 4), name="x")
S = gc.placeholder("float32", (), name="s")
N = gc.placeholder("int32", (3,), name="n")
W = gc.Variable(np.ones((4, 2), np.float32), name="w")
B = gc.Variable(np.zeros(2, np.float32), name="b")
K = gc.Variable(np.int32(1), name="k")
LONELY = gc.Variable(1.0, name="lonely")
LOSS = ((X @ W + B) ** 2).mean()
ESCAPED: list[Any] = []
gc.checkpoint(lambda t: (ESCAPED.append(t * 2), t)[1])(X)
Session, nn, optim = gc.Session, gc.nn, gc.optim


@primitive
class RoughErrorSteps(Map):
    """A user's op of floats without a gradient."""

    differentiable: ClassVar[bool] = False


def line_of(name: str) -> str:
    """Where this file makes a module-level value."""
    for number, text in enumerate(pathlib.Path(HERE).read_text(encoding="utf-8").splitlines(), 1):
        if text.startswith(f"{name} = ") or (f"{name} = " in text.split("#")[0] and not text.startswith(" ")):
            return f"{HERE}:{number}"
    raise AssertionError(name)


def run(fetches: Any, feeds: Any = None) -> Any:
    with Session("numpy") as session:
        return session.run(fetches, feeds)


def on(method: str, *args: Any, **kwargs: Any) -> Any:
    with Session("numpy") as session:
        return getattr(session, method)(*args, **kwargs)


def load_into_a_used_session(state: Any) -> None:
    with Session("numpy") as session:
        session.run(gc.Variable(1.0, name="used"))
        session.load_state_dict(state)


def folder(name: str) -> str:
    return str(pathlib.Path(HERE).parent / name)
