"""Data sets, splits and the loader: order, determinism, collation, threads and errors."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import tracemalloc
from collections import namedtuple
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.data import DataLoader, Dataset, Subset, TensorDataset, collate, random_split

Point = namedtuple("Point", "x y")


class Numbers(Dataset):
    """Item `i` is (i, i squared as a vector); may wait, and may fail on one item."""

    def __init__(
        self, size: int, broken: int | None = None, error: type[Exception] = OSError, wait: float = 0.0
    ) -> None:
        self.size, self.broken, self.error, self.wait = size, broken, error, wait
        self.threads: set[str] = set()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        self.threads.add(threading.current_thread().name)
        if not 0 <= index < self.size:
            raise IndexError(index)
        if index == self.broken:
            raise self.error("unreadable")
        time.sleep(self.wait * (index % 3))
        return index, np.full(2, index * index, np.float32)


def flat(loader: DataLoader) -> list[int]:
    """The first fields of an epoch, in order."""
    return [int(i) for batch in loader for i in batch[0]]


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("graphcore-loader")]


# --- data sets --------------------------------------------------------------------------------------------------------


def test_tensor_dataset_items_and_iteration() -> None:
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4)
    dataset = TensorDataset(x, y)
    assert len(dataset) == 4
    row, label = dataset[-1]
    assert row.tolist() == [9.0, 10.0, 11.0] and label == 3
    assert [int(label) for _, label in dataset] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        dataset[4]


def test_tensor_dataset_refuses_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="at least one"):
        TensorDataset()
    with pytest.raises(ShapeError, match=r"\(4, 3\), \(5,\)"):
        TensorDataset(np.zeros((4, 3)), np.zeros(5))
    with pytest.raises(ShapeError, match="array 1"):
        TensorDataset(np.zeros(4), 3.0)
    with pytest.raises(DTypeError, match="Python objects"):
        TensorDataset(np.array([None, 1]))


@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.bool_])
def test_tensor_dataset_batches_are_contiguous_copies(order: str, dtype: Any) -> None:
    x = np.arange(7 * 4 * 3).reshape(7, 4, 3).astype(dtype)
    stored = {"C": x, "F": np.asfortranarray(x), "strided": np.repeat(x, 2, axis=1)[:, ::2]}[order]
    loader = DataLoader(TensorDataset(stored), batch_size=3, shuffle=True)
    (batch,) = next(iter(loader))
    assert batch.flags.c_contiguous and batch.dtype == x.dtype and not np.shares_memory(batch, stored)
    indices = np.array([5, 0, 2])
    assert np.array_equal(TensorDataset(stored).batch(indices)[0], x[indices])


def test_batches_of_arrays_that_are_not_contiguous_do_not_copy_them_whole() -> None:
    dataset = TensorDataset(np.zeros((1000, 1000), np.float32, order="F"))
    tracemalloc.start()
    try:
        dataset.batch(np.array([3, 1]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_tensor_dataset_is_not_read_item_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: TensorDataset, index: Any) -> Any:
        raise AssertionError(f"item {index} was read alone")

    monkeypatch.setattr(TensorDataset, "__getitem__", refuse)
    dataset = TensorDataset(np.arange(10))
    subset = Subset(Subset(dataset, range(9, -1, -1)), [0, 5, 9])
    assert flat(DataLoader(dataset, batch_size=4)) == list(range(10))
    assert flat(DataLoader(subset, batch_size=2)) == [9, 4, 0]


def test_subset_indices() -> None:
    subset = Subset(Numbers(5), [4, -5, 4])
    assert [i for i, _ in subset] == [4, 0, 4]
    assert len(Subset(Numbers(5), [])) == 0
    for bad in [[5], [-6]]:
        with pytest.raises(IndexError, match="5 samples"):
            Subset(Numbers(5), bad)
    wrong: Any
    for wrong in [[0.5], [[0]], [True, False]]:
        with pytest.raises(UsageError):
            Subset(Numbers(5), wrong)


@pytest.mark.parametrize(
    ("size", "lengths", "sizes"),
    [
        (10, [7, 3], [7, 3]),
        (10, [0.75, 0.25], [8, 2]),
        (100, [0.71, 0.29], [71, 29]),
        (10, [1 / 3] * 3, [4, 3, 3]),
        (5, [0, 5], [0, 5]),
        (0, [0.5, 0.5], [0, 0]),
        (3, [0.1] * 10, [1, 1, 1] + [0] * 7),
        (1_000_000, [np.float32(0.1), np.float32(0.9)], [100_000, 900_000]),
    ],
)
def test_random_split_sizes(size: int, lengths: list[float], sizes: list[int]) -> None:
    parts = random_split(range(size), lengths)
    assert [len(part) for part in parts] == sizes
    assert sorted(np.concatenate([part.indices for part in parts]).tolist()) == list(range(size))


def test_random_split_depends_on_the_seed_alone() -> None:
    def split(seed: int) -> list[list[int]]:
        return [part.indices.tolist() for part in random_split(range(50), [0.8, 0.2], seed)]

    assert split(1) == split(1)
    assert split(1) != split(2)
    assert split(1)[0] != sorted(split(1)[0])


@pytest.mark.parametrize("lengths", [[5, 6], [0.5, 0.4], [-1, 11], [float("nan"), 1.0], [1.5, -0.5], []])
def test_random_split_refuses_lengths_that_do_not_add_up(lengths: list[float]) -> None:
    with pytest.raises(UsageError, match="random_split"):
        random_split(range(10), lengths)


# --- collation --------------------------------------------------------------------------------------------------------


def test_collate_nested_samples() -> None:
    samples = [{"image": np.full((2, 3), i, np.uint8), "meta": (i, [i / 2, Point(i, True)])} for i in range(4)]
    batch = collate(samples)
    assert batch["image"].shape == (4, 2, 3) and batch["image"].dtype == np.uint8
    number, (half, point) = batch["meta"]
    assert number.tolist() == [0, 1, 2, 3] and number.dtype == np.int64
    assert half.tolist() == [0.0, 0.5, 1.0, 1.5] and half.dtype == np.float64
    assert isinstance(point, Point) and point.y.dtype == np.bool_ and point.x.tolist() == [0, 1, 2, 3]


def test_collate_names_the_item_and_the_field() -> None:
    good = {"a": (np.zeros((3, 4)), 1)}
    with pytest.raises(
        ShapeError, match=r"sample\['a'\]\[0\] has shape \(3, 4\) in item 7, but shape \(2, 4\) in item 9"
    ):
        collate([good, good, {"a": (np.zeros((2, 4)), 1)}], labels=[7, 8, 9])
    with pytest.raises(UsageError, match=r"keys \['a'\] in item 0, but keys \['b'\] in item 1"):
        collate([good, {"b": 1}])
    with pytest.raises(UsageError, match=r"sample\['a'\] has 2 fields in item 0, but 1 fields in item 1"):
        collate([good, {"a": (1,)}])
    with pytest.raises(UsageError, match="type int"):
        collate([(1, 2), 3])
    with pytest.raises(UsageError, match="NoneType"):
        collate([(1, None), (2, None)])
    with pytest.raises(UsageError, match="at least one"):
        collate([])


# --- the loader -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(0, 20),
    batch_size=st.integers(1, 7),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    workers=st.sampled_from([0, 0, 1, 3]),
    own=st.booleans(),
)
def test_an_epoch_covers_the_data_once(
    size: int, batch_size: int, shuffle: bool, drop_last: bool, workers: int, own: bool
) -> None:
    dataset = Numbers(size) if own else TensorDataset(np.arange(size), np.arange(size, dtype=np.float32) ** 2)
    loader = DataLoader(dataset, batch_size, shuffle, workers, drop_last, seed=3)
    batches = list(loader)
    sizes = [len(numbers) for numbers, _ in batches]
    full, rest = divmod(size, batch_size)
    assert sizes == [batch_size] * full + ([rest] if rest and not drop_last else [])
    assert len(loader) == len(batches)
    seen = [int(i) for numbers, _ in batches for i in numbers]
    assert len(set(seen)) == len(seen) and set(seen) <= set(range(size))
    if not shuffle:
        assert seen == list(range(len(seen)))
    for numbers, squares in batches:
        assert np.array_equal(squares.reshape(len(numbers), -1)[:, 0], numbers.astype(np.float32) ** 2)


def test_shuffles_differ_by_epoch_and_seed_and_repeat() -> None:
    def epochs(seed: int, workers: int = 0) -> list[list[int]]:
        loader = DataLoader(TensorDataset(np.arange(100)), 8, shuffle=True, num_workers=workers, seed=seed)
        return [flat(loader) for _ in range(3)]

    first = epochs(0)
    assert first == epochs(0) == epochs(0, workers=2)
    assert len({tuple(order) for order in first + epochs(1)}) == 6
    assert all(sorted(order) == list(range(100)) for order in first)


def test_the_shuffle_is_fixed_for_good() -> None:
    # Resumed runs, on later versions too, rely on this very order.
    loader = DataLoader(TensorDataset(np.arange(8)), 8, shuffle=True, seed=5)
    expected = [np.random.Generator(np.random.PCG64([5, epoch])).permutation(8).tolist() for epoch in range(2)]
    assert [flat(loader), flat(loader)] == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", range(13))
def test_resume_goes_on_with_the_next_batch(workers: int, taken: int) -> None:
    def make(seed: int) -> DataLoader:
        return DataLoader(TensorDataset(np.arange(20)), 6, shuffle=True, num_workers=workers, seed=seed)

    def stream(loader: DataLoader) -> Any:
        while True:
            yield from (batch[0].tolist() for batch in loader)

    expected = list(itertools.islice(stream(make(4)), 16))
    stopped = make(4)
    for _ in zip(range(taken), stream(stopped), strict=False):
        pass
    # zip draws nothing after its first argument has ended: exactly `taken` batches were handed out.
    state = stopped.state_dict()
    assert state == {"epoch": taken // 4, "batch": taken % 4, "seed": 4}
    resumed = make(0)
    resumed.load_state_dict(state)
    assert list(itertools.islice(stream(resumed), 16 - taken)) == expected[taken:]


def test_an_epoch_left_early_is_not_repeated() -> None:
    loader = DataLoader(TensorDataset(np.arange(50)), 10, shuffle=True)
    reference = DataLoader(TensorDataset(np.arange(50)), 10, shuffle=True)
    flat(reference)
    for _ in loader:
        break
    assert loader.epoch == 0
    assert flat(loader) == flat(reference)
    assert loader.epoch == 2


def test_an_older_iterator_does_not_move_the_state() -> None:
    loader = DataLoader(TensorDataset(np.arange(6)), 2)
    old, new = iter(loader), iter(loader)
    next(new)
    assert len(list(old)) == 3
    assert loader.state_dict() == {"epoch": 1, "batch": 1, "seed": 0}


def test_set_epoch_picks_the_shuffle() -> None:
    loader = DataLoader(TensorDataset(np.arange(30)), 7, shuffle=True)
    orders = [flat(loader) for _ in range(4)]
    loader.set_epoch(2)
    assert flat(loader) == orders[2]
    assert flat(loader) == orders[3]


@pytest.mark.parametrize(
    "arguments",
    [{"batch_size": 0}, {"batch_size": 2.0}, {"batch_size": True}, {"num_workers": -1}, {"seed": -1}, {"seed": "x"}],
)
def test_bad_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments))):
        DataLoader(Numbers(3), **arguments)


def test_bad_states_are_refused_and_change_nothing() -> None:
    loader = DataLoader(Numbers(3), seed=9)
    state: Any
    for state in [{}, {"epoch": 1}, {"epoch": -1, "batch": 0, "seed": 0}, {"epoch": 0, "batch": "1", "seed": 0}]:
        with pytest.raises(UsageError):
            loader.load_state_dict(state)
    assert loader.state_dict() == {"epoch": 0, "batch": 0, "seed": 9}


def test_plain_sequences_and_own_collation() -> None:
    pairs = [(i, float(i)) for i in range(5)]
    numbers, floats = next(iter(DataLoader(pairs, batch_size=3)))
    assert numbers.tolist() == [0, 1, 2] and floats.dtype == np.float64
    assert list(DataLoader([1, 2, 3], batch_size=2, collate_fn=sum)) == [3, 3]
    (batch,) = DataLoader(np.arange(6).reshape(3, 2), batch_size=3)
    assert batch.tolist() == [[0, 1], [2, 3], [4, 5]]


# --- workers ----------------------------------------------------------------------------------------------------------


def test_workers_keep_the_order_and_do_the_work() -> None:
    dataset = Numbers(40, wait=0.002)
    assert flat(DataLoader(dataset, batch_size=3, num_workers=4)) == list(range(40))
    assert len(dataset.threads) > 1 and threading.main_thread().name not in dataset.threads
    assert loader_threads() == []


def test_workers_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10)

    class Meeting(Numbers):
        def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
            barrier.wait()  # passes only with three items under way
            return super().__getitem__(index)

    assert flat(DataLoader(Meeting(6), num_workers=3)) == list(range(6))


def test_prefetching_is_bounded() -> None:
    read: list[int] = []

    class Counted(Numbers):
        def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
            read.append(index)
            return super().__getitem__(index)

    iterator = iter(DataLoader(Counted(1000), num_workers=2))
    next(iterator)
    time.sleep(0.1)
    assert 1 <= len(read) <= 5  # the one handed out, and two for each worker
    iterator.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("error", [OSError, KeyError, IndexError, ShapeError])
def test_errors_reach_the_consumer_with_the_item(workers: int, error: type[Exception]) -> None:
    loader = DataLoader(
        Subset(Numbers(30, broken=17, error=error), range(29, -1, -1)), batch_size=4, num_workers=workers
    )
    seen: list[int] = []
    with pytest.raises(error, match="unreadable") as caught:
        for numbers, _ in loader:
            seen.extend(numbers.tolist())
    assert seen == list(range(29, 17, -1))
    assert caught.value.__notes__ == ["while loading item 17 of Numbers"]
    assert loader_threads() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_iteration_in_a_data_set_does_not_end_the_epoch_silently(workers: int) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        flat(DataLoader(Numbers(30, broken=17, error=StopIteration), batch_size=4, num_workers=workers))


def test_samples_that_do_not_stack_are_named() -> None:
    ragged = [np.zeros(3), np.zeros(3), np.zeros(4), np.zeros(3)]
    with pytest.raises(ShapeError, match=r"shape \(3,\) in item 0, but shape \(4,\) in item 2"):
        list(DataLoader(ragged, batch_size=4, num_workers=1))


def test_no_threads_stay_after_break_close_or_without_a_start() -> None:
    loader = DataLoader(Numbers(100, wait=0.001), batch_size=2, num_workers=3)
    for _ in loader:
        assert len(loader_threads()) == 3
        break
    gc.collect()
    assert loader_threads() == []
    iterator = iter(loader)
    assert loader_threads() == []
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert loader_threads() == []
