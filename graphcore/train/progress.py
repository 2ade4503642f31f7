"""Progress of an epoch: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from graphcore.base.errors import UsageError
from graphcore.base.terminal import columns, is_terminal

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Show how far an epoch is, how fast it goes, when it will end, and its metrics.

    On a terminal it is a bar. Elsewhere (a log file, CI) it is plain lines: one in 5 seconds, and one at the end.

    Args:
        total: Units in the epoch; None if unknown.
        desc: What stands in front, as "epoch 3/10".
        unit: What is counted.
        enabled: None for a bar on a terminal and lines elsewhere; True for a bar even where the stream does not claim
            to be a terminal; False for silence.
        stream: Where to write; standard error by default.

    Raises:
        UsageError: `total` is negative.

    Example:
        >>> with Progress(60000, "epoch 1/10") as progress:
        ...     for images, labels in loader:
        ...         progress.set_metrics(loss=0.31)
        ...         progress.update(len(images))
    """

    def __init__(
        self,
        total: int | None,
        desc: str = "",
        unit: str = "samples",
        enabled: bool | None = None,
        stream: TextIO | None = None,
    ) -> None:
        if total is not None and total < 0:
            raise UsageError(f"total of Progress must not be negative, got {total}")
        target = sys.stderr if stream is None else stream
        self._view: _Bar | _Lines | None = None
        # A program without a console has no standard error at all.
        if enabled is not False and target is not None:
            view = _Bar if enabled or is_terminal(target) else _Lines
            self._view = view(total, desc, unit, target)

    def update(self, count: int = 1) -> None:
        """Count further units as done.

        Args:
            count: How many since the last call.
        """
        if self._view is not None:
            self._guard(self._view.update, count)

    def set_metrics(self, **metrics: Any) -> None:
        """Set what is shown behind the rate from the next update on; earlier metrics of other names stay.

        Args:
            metrics: Name to number (also a NumPy or 0-d array) or text.
        """
        if self._view is not None:
            self._view.metrics.update({name: _format_metric(value) for name, value in metrics.items()})

    def close(self) -> None:
        """End the epoch: the bar stays with its last state, or the last line is written. A second call does nothing."""
        view, self._view = self._view, None
        if view is not None:
            self._guard(view.close)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _guard(self, action: Any, *arguments: Any) -> None:
        # A closed pipe or log, or one that lacks a character, must not end a training run: show nothing from then on.
        try:
            action(*arguments)
        except (OSError, ValueError):
            self._view = None


class _QuietBar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no watching thread: the bar redraws as it is updated


class _Bar:
    """The bar of tqdm, with our metrics behind it."""

    def __init__(self, total: int | None, desc: str, unit: str, stream: TextIO) -> None:
        self.metrics: dict[str, str] = {}
        # A terminal that does not know its size (a container's, a bare pty) says 0, and tqdm would then draw nothing.
        size = {"ncols": 80, "nrows": 24} if columns(stream) == 0 else {"dynamic_ncols": True}
        self._bar = _QuietBar(total=total, desc=desc or None, unit=f" {unit}", file=stream, leave=True, **size)

    def update(self, count: int) -> None:
        self._bar.set_postfix_str(_join(self.metrics), refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        self._bar.set_postfix_str(_join(self.metrics), refresh=False)
        self._bar.close()


class _Lines:
    """Plain lines, each complete in itself."""

    def __init__(self, total: int | None, desc: str, unit: str, stream: TextIO) -> None:
        self.metrics: dict[str, str] = {}
        self._total, self._unit, self._stream = total, unit, stream
        self._prefix = f"{desc}: " if desc else ""
        self._done = 0
        self._start = self._last = monotonic()

    def update(self, count: int) -> None:
        self._done += count
        now = monotonic()
        # The last units are left to close(), which follows at once with the same figures.
        if now - self._last >= _SECONDS_BETWEEN_LINES and self._done != self._total:
            self._last = now
            self._write(self._progress(now - self._start))

    def close(self) -> None:
        elapsed = monotonic() - self._start
        self._write(f"{self._count()} in {tqdm.format_interval(elapsed)}, {self._rate(elapsed)}")

    def _progress(self, elapsed: float) -> str:
        parts = [self._count(), self._rate(elapsed)]
        if self._total and self._done:
            parts.append(f"ETA {tqdm.format_interval(max(self._total - self._done, 0) * elapsed / self._done)}")
        return ", ".join(parts)

    def _count(self) -> str:
        if not self._total:
            return f"{self._done} {self._unit}"
        return f"{self._done}/{self._total} {self._unit} ({100 * self._done / self._total:.0f}%)"

    def _rate(self, elapsed: float) -> str:
        rate = self._done / elapsed if elapsed > 0 else 0.0
        return f"{rate:.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s"

    def _write(self, text: str) -> None:
        metrics = _join(self.metrics)
        self._stream.write(f"{self._prefix}{text}{', ' if metrics else ''}{metrics}\n")
        self._stream.flush()


def _format_metric(value: Any) -> str:
    if isinstance(value, str):
        return value
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def _join(metrics: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in metrics.items())
