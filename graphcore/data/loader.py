"""The loader: batches of a data set, in order or shuffled, prefetched by threads if asked."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from graphcore.base.errors import UsageError
from graphcore.data.dataset import load_batch, load_samples, shuffled

__all__ = ["DataLoader"]

_BATCHES_AHEAD = 2  # for each worker: one being made, one waiting


class DataLoader:
    """Iterate over a data set in batches of NumPy arrays; every iteration is one epoch.

    Epochs count up with each `iter(loader)`. The order of epoch `e` depends on `seed` and `e` alone, so a resumed run
    sees what an uninterrupted one would have seen, with any number of workers.

    Args:
        dataset: A `Dataset`, or anything with a length and items.
        batch_size: Samples in a batch, at least 1.
        shuffle: A new random order each epoch.
        num_workers: Threads that make batches ahead of time (the data set must bear calls from several threads); 0
            makes them in the caller's thread. The order of batches is the same.
        drop_last: Leave out a last batch that is smaller than the others.
        seed: Of the shuffles, at least 0.
        collate_fn: Makes a batch of a list of samples, in place of `collate`.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> for images, labels in DataLoader(dataset, batch_size=32, shuffle=True):
        ...     sess.run(train_step, {x: images, y: labels})
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = _checked_int("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.num_workers = _checked_int("num_workers", num_workers, 0)
        self.drop_last = drop_last
        self.seed = _checked_int("seed", seed, 0)
        self.collate_fn = collate_fn
        # Where the next batch is: what state_dict tells. An iterator moves it only while it is the newest one.
        self._epoch = 0
        self._batch = 0
        self._current: object | None = None

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        size = len(self.dataset)
        return size // self.batch_size if self.drop_last else math.ceil(size / self.batch_size)

    @property
    def epoch(self) -> int:
        """The epoch in progress; between epochs, the one that comes next."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration run this epoch, from its start.

        Args:
            epoch: At least 0.
        """
        self._epoch, self._batch, self._current = _checked_int("epoch", epoch, 0), 0, None

    def state_dict(self) -> dict[str, int]:
        """Where the loader is, for `load_state_dict`: the epoch, the batches handed out in it, and the seed."""
        if self._batch and self._batch >= len(self):
            return {"epoch": self._epoch + 1, "batch": 0, "seed": self.seed}
        return {"epoch": self._epoch, "batch": self._batch, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another loader of the same data set and batch size was: the next iteration yields its next batch.

        Args:
            state: What `state_dict` gave.

        Raises:
            UsageError: An entry is missing or not a count.
        """
        missing = {"epoch", "batch", "seed"} - state.keys()
        if missing:
            raise UsageError(f"the state of a DataLoader lacks {sorted(missing)}, it has {sorted(state)}")
        seed = _checked_int("seed", state["seed"], 0)
        batch = _checked_int("batch", state["batch"], 0)
        self.set_epoch(state["epoch"])
        self.seed, self._batch = seed, batch

    def __iter__(self) -> Iterator[Any]:
        """The batches of the next epoch; an epoch that was left early is not taken up again."""
        if self._current is not None:
            self._epoch, self._batch = self._epoch + 1, 0
        # The token is here, not in the generator: the epoch counts even if no batch is drawn from it.
        token = self._current = object()
        return self._run_epoch(token, self._epoch, self._batch)

    def _run_epoch(self, token: object, epoch: int, start: int) -> Iterator[Any]:
        size = len(self.dataset)
        order = shuffled(size, self.seed, epoch) if self.shuffle else np.arange(size)
        batches = (order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(start, len(self)))
        with contextlib.closing(self._prefetched(batches) if self.num_workers else self._made(batches)) as made:
            for number, batch in enumerate(made, start + 1):
                if self._current is token:
                    self._batch = number
                yield batch
        if self._current is token:
            self.set_epoch(epoch + 1)

    def _made(self, batches: Iterator[np.ndarray]) -> Generator[Any, None, None]:
        # Not map(): a StopIteration out of a data set would end the epoch there without a word.
        for indices in batches:
            yield self._make(indices)

    def _prefetched(self, batches: Iterator[np.ndarray]) -> Generator[Any, None, None]:
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="graphcore-loader")
        waiting: deque[Future[Any]] = deque()
        try:
            for indices in itertools.islice(batches, self.num_workers * _BATCHES_AHEAD):
                waiting.append(pool.submit(self._make, indices))
            while waiting:
                batch = waiting.popleft().result()
                for indices in itertools.islice(batches, 1):
                    waiting.append(pool.submit(self._make, indices))
                yield batch
        finally:
            # Reached at the end, on an error, and when the consumer drops the iterator.
            pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, indices: np.ndarray) -> Any:
        if self.collate_fn is None:
            return load_batch(self.dataset, indices)
        return self.collate_fn(load_samples(self.dataset, indices))


def _checked_int(name: str, value: int, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise UsageError(f"{name} of a DataLoader must be an integer of at least {minimum}, got {value!r}")
    return int(value)
