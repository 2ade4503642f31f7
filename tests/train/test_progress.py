"""Progress: a bar on a terminal, plain lines elsewhere, and never an error of its own."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from pathlib import Path

import numpy as np
import pytest

from graphcore.base.errors import UsageError
from graphcore.train import progress as module
from graphcore.train.progress import Progress

ROOT = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """Fails from its second write on."""

    def write(self, text: str) -> int:
        if self.getvalue():
            raise BrokenPipeError
        return super().write(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that plain lines see, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_lines_come_at_most_every_five_seconds_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(1000, "epoch 2/3", stream=stream) as progress:
        for step in range(100):
            clock[0] += 0.12
            progress.set_metrics(loss=1 / (step + 1), accuracy=np.float32(0.5))
            progress.update(10)
    assert stream.getvalue().splitlines() == [
        "epoch 2/3: 420/1000 samples (42%), 83 samples/s, ETA 00:06, loss 0.02381, accuracy 0.5",
        "epoch 2/3: 840/1000 samples (84%), 83 samples/s, ETA 00:01, loss 0.0119, accuracy 0.5",
        "epoch 2/3: 1000/1000 samples (100%) in 00:12, 83 samples/s, loss 0.01, accuracy 0.5",
    ]


def test_quick_epochs_have_one_line_each(clock: list[float]) -> None:
    stream = io.StringIO()
    for epoch in range(3):
        with Progress(4, f"epoch {epoch}", "batches", stream=stream) as progress:
            for _ in range(4):
                clock[0] += 0.5
                progress.update()
    assert stream.getvalue() == "".join(f"epoch {i}: 4/4 batches (100%) in 00:02, 2 batches/s\n" for i in range(3))


def test_lines_without_a_total_a_step_or_time(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(None, stream=stream) as progress:
        clock[0] += 6
        progress.update(3)
    with Progress(0, "empty", stream=stream):
        pass
    assert stream.getvalue().splitlines() == [
        "3 samples, 0.5 samples/s",
        "3 samples in 00:06, 0.5 samples/s",
        "empty: 0 samples in 00:00, 0 samples/s",
    ]


def test_the_end_of_an_epoch_is_told_once_even_if_late(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress(10, stream=stream)
    clock[0] += 20
    progress.update(10)
    progress.close()
    progress.close()
    progress.update(10)
    assert stream.getvalue() == "10/10 samples (100%) in 00:20, 0.5 samples/s\n"


def test_lines_have_no_control_characters(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(10, "epoch", stream=stream) as progress:
        for _ in range(10):
            clock[0] += 3
            progress.update()
    assert not re.search(r"[\r\x1b]", stream.getvalue())
    assert stream.getvalue().endswith("\n")


def test_a_line_is_written_when_the_loop_fails(clock: list[float]) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress(10, stream=stream) as progress:
        progress.update(4)
        raise KeyError
    assert stream.getvalue().startswith("4/10 samples (40%)")


@pytest.mark.parametrize(("stream", "enabled"), [(Terminal(), None), (Terminal(), True), (io.StringIO(), True)])
def test_bar_shows_count_rate_and_metrics(stream: io.StringIO, enabled: bool | None) -> None:
    with Progress(60, "epoch 1/2", enabled=enabled, stream=stream) as progress:
        for step in range(6):
            progress.set_metrics(loss=0.5, step=step, note="ok", best=np.array(2, np.int64))
            progress.update(10)
    last = stream.getvalue().rstrip("\n").split("\r")[-1]
    assert last.startswith("epoch 1/2: 100%|")
    assert "60/60 [" in last and re.search(r"[\d.]+ samples/s", last)
    assert "loss 0.5, step 5, note ok, best 2" in last
    assert stream.getvalue().endswith("\n")


def test_metrics_set_after_the_last_update_are_shown() -> None:
    for stream in [Terminal(), io.StringIO()]:
        with Progress(1, stream=stream) as progress:
            progress.update()
            progress.set_metrics(val_loss=0.25)
        assert "val_loss 0.25" in stream.getvalue()


def test_disabled_is_silent() -> None:
    for stream in [Terminal(), io.StringIO()]:
        with Progress(10, enabled=False, stream=stream) as progress:
            progress.set_metrics(loss=1.0)
            progress.update(10)
        assert stream.getvalue() == ""


@pytest.mark.parametrize("enabled", [None, True])
def test_a_broken_or_closed_stream_does_not_end_the_run(clock: list[float], enabled: bool | None) -> None:
    closed = io.StringIO()
    for stream in [Broken(), closed]:
        with Progress(100, enabled=enabled, stream=stream) as progress:
            closed.close()
            for _ in range(100):
                clock[0] += 6
                progress.set_metrics(loss=1.0)
                progress.update()


def test_closed_streams_and_programs_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Terminal()
    closed.close()
    for enabled in [None, True]:
        with Progress(3, enabled=enabled, stream=closed) as progress:
            progress.update(3)
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(3) as progress:
        progress.set_metrics(loss=1.0)
        progress.update(3)


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    with Progress(10, enabled=True, stream=Terminal()) as progress:
        progress.update(5)
        assert threading.active_count() == before


def test_negative_total_is_refused() -> None:
    with pytest.raises(UsageError, match="-1"):
        Progress(-1)


SCRIPT = """
from graphcore.train.progress import Progress
with Progress(300, "epoch 1/1") as progress:
    for _ in range(3):
        progress.set_metrics(loss=0.125)
        progress.update(100)
"""


def test_standard_error_in_a_pipe() -> None:
    piped = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"epoch 1/1: 300/300 samples \(100%\) in 00:00, \d+ samples/s, loss 0\.125\n", piped.stderr)
    assert piped.stdout == ""


@pytest.mark.parametrize("columns", [0, 100])  # 0: a terminal that does not know its size
def test_standard_error_on_a_real_terminal(columns: int) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24 if columns else 0, columns))
    try:
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, stderr=follower, check=True)
        shown = os.read(leader, 100_000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert "\r" in shown and "100%" in shown and "300/300" in shown and "loss 0.125" in shown
