"""The training loop: batches, metrics, validation, checkpoints, early stop, and a bar that shows how it goes."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from graphcore.api.elementwise import astype
from graphcore.api.logic import equal
from graphcore.api.reductions import argmax, mean
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable, placeholder, read_variables, variable_of
from graphcore.base import dtypes
from graphcore.base.errors import FormatError, ShapeError, UsageError
from graphcore.base.shapes import Dim
from graphcore.data import DataLoader, Dataset, TensorDataset
from graphcore.io.checkpoint import load_arrays
from graphcore.ir.graph import collect
from graphcore.ir.node import describe
from graphcore.nn import Module
from graphcore.optim import Optimizer
from graphcore.runtime.session import Session
from graphcore.train.progress import Progress

__all__ = ["EarlyStop", "History", "accuracy", "fit"]

Metric = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EarlyStop:
    """Stop when a metric has not improved for some epochs.

    Attributes:
        patience: epochs without improvement that are borne, at least 1.
        monitor: the metric's name; by default ``val_loss``, or ``loss`` without validation.
        min_delta: the least change that is an improvement.
        mode: ``"min"`` or ``"max"``: which way is better.
    """

    patience: int = 3
    monitor: str | None = None
    min_delta: float = 0.0
    mode: str = "min"

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max") or self.patience < 1:
            raise UsageError(
                f"EarlyStop: patience is at least 1 and mode 'min' or 'max', got {self.patience} and {self.mode!r}"
            )

    def stale(self, values: list[float]) -> int:
        """How many epochs ago the best value was."""
        sign = 1.0 if self.mode == "min" else -1.0
        best, since = math.inf, 0
        for value in values:
            better = sign * value < best - self.min_delta
            best, since = (sign * value, 0) if better else (best, since + 1)
        return since


@dataclass
class History:
    """What a training run measured.

    Attributes:
        epochs: one dictionary an epoch: ``epoch``, ``loss``, the metrics, the same with ``val_`` in front, ``seconds``,
            ``samples_per_second``.
        session: the session that holds the trained values; close it when done, unless it was yours.
        stopped_early: whether the early stop ended the run.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    session: Any = None
    stopped_early: bool = False

    def __getitem__(self, name: str) -> list[float]:
        """A metric's values over the epochs."""
        if self.epochs and not any(name in row for row in self.epochs):
            raise KeyError(f"no metric {name!r}; there are {', '.join(self.epochs[-1])}")
        return [row[name] for row in self.epochs if name in row]

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def last(self) -> dict[str, float]:
        """The last epoch's numbers."""
        return self.epochs[-1] if self.epochs else {}

    def __str__(self) -> str:
        if not self.epochs:
            return "no epochs"
        columns = list(dict.fromkeys(itertools.chain.from_iterable(self.epochs)))
        rows = [columns, *([f"{row[c]:.4g}" if c in row else "" for c in columns] for row in self.epochs)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of rows whose largest entry is at the target's class number: (N, C, ...) and (N, ...) -> scalar.

    >>> from graphcore.api.variable import read_variables, Variable
    >>> accuracy(Variable([[0.1, 0.9]]), Variable([1])).shape
    ()
    """
    found = argmax(prediction, axis=1)
    return mean(astype(equal(found, astype(target, found.dtype)), "float32"))


def fit(
    model: Any,
    data: Any,
    *,
    loss: Any,
    optimizer: Optimizer,
    epochs: int = 1,
    validation: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    session: Any = None,
    device: str = "auto",
    batch_size: int = 32,
    shuffle: bool = True,
    progress: bool | None = None,
    fast_dev_run: bool = False,
    overfit_batches: int = 0,
    early_stop: EarlyStop | int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int | None = None,
    on_epoch_end: Callable[[dict[str, float]], Any] | None = None,
) -> History:
    """Train a model.

    Args:
        model: a module, or a function from input tensors to a prediction.
        data: batches ``(x, ..., y)`` that can be iterated over once an epoch (a ``DataLoader``), a ``Dataset``, or a
            tuple of arrays ``(x, ..., y)`` of shapes (n, ...). The last item is the target, the others are the model's
            arguments.
        loss: function or module of (prediction, target) that gives a scalar.
        optimizer: of ``gc.optim``.
        epochs: passes over the data.
        validation: like ``data``; evaluated after each epoch with the model in evaluation mode.
        metrics: name to function of (prediction, target) that gives a scalar, averaged over samples.
        session: where to train; a new ``gc.Session(device=device, seed=seed)`` by default, which the result holds.
        device: for the new session.
        batch_size: for data sets and arrays.
        shuffle: whether data sets and arrays are shuffled, anew each epoch.
        progress: None for a bar on a terminal and plain lines elsewhere, True for a bar, False for silence.
        fast_dev_run: run one batch of training and of validation only, without checkpoint or early stop.
        overfit_batches: train on the first so many batches again and again, without validation, to see whether the
            model can learn.
        early_stop: when to stop, or the patience in epochs.
        checkpoint: file that the session's variables are saved to after every epoch.
        resume: go on from the checkpoint if the file exists.
        seed: of the new session and of the shuffles.
        on_epoch_end: called with each epoch's numbers.

    Returns:
        The history. What the model and the optimizer hold in its session are their initial values in later ones.

    Raises:
        UsageError: the data is no such thing, is empty, or an argument is out of range.
        ShapeError: the loss or a metric is not a scalar.

    >>> from graphcore import nn, optim  # doctest: +SKIP
    >>> history = fit(nn.Linear(4, 1), (x, y), loss=nn.MSELoss(), optimizer=optim.SGD(0.1), epochs=5)  # doctest: +SKIP
    """
    _check(epochs, overfit_batches, resume, checkpoint)
    measured = _checked_metrics(metrics)
    batches = _loader("data", data, batch_size, shuffle, seed or 0)
    checks = None if validation is None or overfit_batches else _loader("validation", validation, batch_size, False, 0)
    if fast_dev_run:
        epochs, early_stop, checkpoint, resume = min(epochs, 1), None, None, False
    if overfit_batches or fast_dev_run:
        batches = list(itertools.islice(batches, 1 if fast_dev_run else overfit_batches))
    stop = EarlyStop(early_stop) if isinstance(early_stop, int) else early_stop
    history = History(session=_session(device, seed) if session is None else session)
    restored = checkpoint if resume and checkpoint is not None and Path(checkpoint).exists() else None
    run = _Run(model, loss, measured, optimizer, checks is not None, history.session, restored)
    _Loop(run, history, batches, checks, fast_dev_run, stop, checkpoint, on_epoch_end, progress).train(epochs)
    run.commit()
    return history


def _check(epochs: int, overfit_batches: int, resume: bool, checkpoint: str | os.PathLike[str] | None) -> None:
    if epochs < 0 or overfit_batches < 0:
        raise UsageError(f"fit: epochs and overfit_batches must not be negative, got {epochs} and {overfit_batches}")
    if resume and checkpoint is None:
        raise UsageError("fit: resume needs a checkpoint")


def _checked_metrics(metrics: Any) -> dict[str, Metric]:
    if metrics is None:
        return {}
    named = isinstance(metrics, Mapping) and all(isinstance(name, str) and callable(f) for name, f in metrics.items())
    if not named or "loss" in metrics:
        given = "the name 'loss', which is taken" if named else repr(metrics)[:80]
        raise UsageError(
            "fit: metrics maps names to functions of (prediction, target) that give scalar tensors\n"
            f"  got {given}; write metrics={{'accuracy': accuracy}}"
        )
    return dict(metrics)


@dataclass(frozen=True)
class _Loop:
    """What one call of ``fit`` does in every epoch: the parts are ``fit``'s arguments, made ready."""

    run: _Run
    history: History
    batches: Any
    checks: Any
    one_check: bool
    stop: EarlyStop | None
    checkpoint: str | os.PathLike[str] | None
    on_epoch_end: Callable[[dict[str, float]], Any] | None
    progress: bool | None

    def train(self, epochs: int) -> None:
        """Run the epochs that are not done yet, until the last or the early stop."""
        start = self.run.epochs_done()
        if start >= epochs > 0:  # the session is to hold what was trained
            self._first(iter(self.batches))
        for epoch in range(start, epochs):
            row = self._measured(epoch, epochs)
            self.history.epochs.append(row)
            if self.checkpoint is not None:
                self.history.session.set_value(self.run.done, np.int64(epoch + 1))
                self.history.session.save(os.fspath(self.checkpoint))
            if self.on_epoch_end is not None:
                self.on_epoch_end(row)
            if self._stale():
                self.history.stopped_early = True
                break

    def _measured(self, epoch: int, epochs: int) -> dict[str, float]:
        """One epoch's training and validation, as a row of the history."""
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        drawn = iter(self.batches)
        every = itertools.chain([self._first(drawn)], drawn)  # the first batch that is drawn is trained on
        row = self.run.epoch(every, _samples(self.batches), f"epoch {epoch + 1}/{epochs}", epoch, self.progress)
        if self.checks is not None:
            checks = itertools.islice(self.checks, 1) if self.one_check else self.checks
            row.update(self.run.validate(checks, self.progress))
        return row

    def _first(self, drawn: Iterator[Any]) -> Any:
        """The first batch, for which the graphs are built, if they are not yet."""
        first = next(drawn, None)
        if first is None:
            raise UsageError("fit: the data is empty")
        self.run.build(first)
        return first

    def _stale(self) -> bool:
        """Whether the early stop has seen enough."""
        if self.stop is None:
            return False
        monitored = self.stop.monitor or ("loss" if self.checks is None else "val_loss")
        return self.stop.stale(self.history[monitored]) >= self.stop.patience


class _Run:
    """The compiled functions of one call of ``fit``, made when the first batch is there.

    Args:
        model, loss, metrics, optimizer: as for ``fit``.
        validated: whether there is a validation.
        session: where to train.
        restored: a checkpoint to go on from.
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        metrics: dict[str, Metric],
        optimizer: Optimizer,
        validated: bool,
        session: Any,
        restored: str | os.PathLike[str] | None,
    ) -> None:
        self.names = ["loss", *metrics]
        self.session = session
        self.done = Variable(np.int64(0), trainable=False, name="epochs_done")
        self.done.key_hint = "fit/epochs_done"
        self._parts = model, loss, metrics, optimizer, validated
        self._restored = restored
        self.train_call: Callable[..., Any] | None = None
        self.check_call: Callable[..., Any] | None = None

    def epochs_done(self) -> int:
        """How many epochs the checkpoint has behind it, 0 without one.

        Raises:
            FormatError: no checkpoint, or none of ``fit``.
        """
        if self._restored is None:
            return 0
        state = load_arrays(os.fspath(self._restored))[0]
        if self.done.key_hint not in state:
            raise FormatError(
                f"fit: {os.fspath(self._restored)!r} is no checkpoint of fit: it lacks {self.done.key_hint!r}"
            )
        return int(state[self.done.key_hint])

    def build(self, first: Any) -> None:
        """Build the graphs for batches like this one, once, and take up the checkpoint if there is one."""
        if self.train_call is not None:
            return
        model, loss, metrics, optimizer, validated = self._parts
        self.inputs = _placeholders(_fields(first))
        with _mode(model, True):
            values = self._measure(model, loss, metrics)
            step = optimizer.minimize(values[0])
        checks: list[Tensor] = []
        if validated:
            with _mode(model, False):
                checks = self._measure(model, loss, metrics)
            self.check_call = self.session.make_callable(checks, self.inputs)
        self.train_call = self.session.make_callable([*values, step], self.inputs)
        if self._restored is not None:
            graph = collect([t.value for t in (*values, *checks)], step.updates)
            read = read_variables(graph.nodes())
            for variable in (*read, *(variable_of(slot) for slot, _ in graph.updates), self.done):
                self.session.get_value(variable)  # a session restores the variables that it knows
            self.session.restore(os.fspath(self._restored))

    def _measure(self, model: Any, loss: Any, metrics: dict[str, Metric]) -> list[Tensor]:
        *inputs, target = self.inputs
        prediction = model(*inputs)
        values = [loss(prediction, target), *(metric(prediction, target) for metric in metrics.values())]
        for name, value in zip(self.names, values, strict=True):
            if not isinstance(value, Tensor) or value.shape != ():
                given = describe(value) if isinstance(value, Tensor) else type(value).__name__
                raise ShapeError(f"fit: {name} must be a scalar tensor; reduce it with .mean()\n  it is {given}")
        return values

    def commit(self) -> None:
        """Let later sessions start from what was trained."""
        model, _, _, optimizer, _ = self._parts
        if self.train_call is not None:
            self.session.commit(model if isinstance(model, Module) else None)
            self.session.commit(optimizer)

    def epoch(
        self, batches: Iterable[Any], samples: int | None, desc: str, epoch: int, progress: bool | None
    ) -> dict[str, float]:
        """One pass over the training data."""
        assert self.train_call is not None
        totals, began = _Means(self.names), perf_counter()
        with Progress(samples, desc, enabled=progress) as bar:
            for batch in batches:
                fields = _fields(batch)
                totals.add(self.train_call(*fields), len(fields[0]))
                bar.set_metrics(**totals.means())
                bar.update(len(fields[0]))
        seconds = perf_counter() - began
        return {
            "epoch": epoch + 1,
            **totals.means(),
            "seconds": seconds,
            "samples_per_second": totals.count / max(seconds, 1e-9),
        }

    def validate(self, batches: Iterable[Any], progress: bool | None) -> dict[str, float]:
        """One pass over the validation data."""
        assert self.check_call is not None
        totals = _Means([f"val_{name}" for name in self.names])
        with Progress(_samples(batches), "validation", enabled=progress) as bar:
            for batch in batches:
                fields = _fields(batch)
                totals.add(self.check_call(*fields), len(fields[0]))
                bar.set_metrics(**totals.means())
                bar.update(len(fields[0]))
        if not totals.count:
            raise UsageError("fit: the validation data is empty")
        return totals.means()


class _Means:
    """Means over samples of what batches gave."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.count = names, 0
        self.sums = [0.0] * len(names)

    def add(self, values: Iterable[Any], count: int) -> None:
        self.count += count
        for i, value in zip(range(len(self.names)), values, strict=False):  # the last value is the training step's None
            self.sums[i] += float(value) * count

    def means(self) -> dict[str, float]:
        return (
            {name: total / self.count for name, total in zip(self.names, self.sums, strict=True)} if self.count else {}
        )


@contextmanager
def _mode(model: Any, training: bool) -> Iterator[None]:
    """A module in training or evaluation mode, and in its modes of before afterwards."""
    if not isinstance(model, Module):
        yield
        return
    before = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _session(device: str, seed: int | None) -> Any:
    return Session(device=device, seed=seed) if seed is not None else Session(device=device)


def _loader(role: str, data: Any, batch_size: int, shuffle: bool, seed: int) -> Any:
    if isinstance(data, tuple):
        data = TensorDataset(*data)
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size, shuffle=shuffle, seed=seed)
    if isinstance(data, Iterator):
        raise UsageError(
            f"fit: {role} can be iterated over only once; pass a DataLoader, a list of batches, a Dataset "
            "or a tuple of arrays"
        )
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, np.ndarray, Tensor)):
        raise UsageError(
            f"fit: {role} must be a DataLoader, a list of batches, a Dataset or a tuple of arrays (x, y), "
            f"got {type(data).__name__}"
        )
    return data


def _fields(batch: Any) -> list[np.ndarray]:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise UsageError(f"fit: a batch must be a tuple (x, ..., y), got {type(batch).__name__}")
    return [np.asarray(item) for item in batch]


def _placeholders(fields: list[np.ndarray]) -> list[Tensor]:
    """One placeholder a field; the first axis is the batch. Doubles, which NumPy makes by default, become float32."""
    batch = Dim("batch")
    names = ["x", "y"] if len(fields) == 2 else [*(f"x{i}" for i in range(len(fields) - 1)), "y"]
    made = []
    for name, array in zip(names, fields, strict=True):
        if array.ndim == 0 or len(array) != len(fields[0]):
            raise ShapeError(
                f"fit: the fields of a batch need a common first axis, got shapes "
                f"{', '.join(str(f.shape) for f in fields)}"
            )
        dtype = dtypes.float32 if array.dtype == np.float64 else dtypes.as_dtype(array.dtype)
        made.append(placeholder(dtype, (batch, *array.shape[1:]), name))
    return made


def _samples(batches: Any) -> int | None:
    """Samples in an epoch, if that is known beforehand."""
    if isinstance(batches, list):
        return sum(len(_fields(batch)[0]) for batch in batches)
    if isinstance(batches, DataLoader):
        size = len(batches.dataset)
        return size // batches.batch_size * batches.batch_size if batches.drop_last else size
    return None
