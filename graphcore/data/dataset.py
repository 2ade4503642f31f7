"""Data sets: things with a length and items, and ways to split and batch them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.base.errors import DTypeError, ShapeError, UsageError

__all__ = ["Dataset", "Subset", "TensorDataset", "collate", "load_batch", "random_split"]


class Dataset(ABC):
    """Samples by number; subclasses define `__len__` and `__getitem__`.

    A sample is an array or number, or a tuple, list or dict of samples. A `DataLoader` with workers calls the methods
    from several threads at once.

    Example:
        >>> class Squares(Dataset):
        ...     def __len__(self) -> int: return 10
        ...     def __getitem__(self, index: int) -> tuple[int, int]: return index, index * index
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Sample number `index`."""

    def __iter__(self) -> Iterator[Any]:
        """All samples in order."""
        return (self[index] for index in range(len(self)))

    def batch(self, indices: np.ndarray) -> Any:
        """The samples of these numbers, collated; override it where many samples can be had in one go.

        Args:
            indices: Sample numbers, int64 of shape (n,).

        Returns:
            The nesting of one sample, with arrays of shape (n, ...) as leaves.
        """
        return collate(load_samples(self, indices), labels=indices)


class TensorDataset(Dataset):
    """Arrays with a common first dimension; sample `i` is the tuple of their `i`-th rows.

    Args:
        arrays: One or more arrays (or what `np.asarray` takes) of shapes (n, ...). They are not copied.

    Raises:
        UsageError: No arrays.
        ShapeError: An array has no dimension, or the first dimensions differ.
        DTypeError: An array holds Python objects.

    Example:
        >>> dataset = TensorDataset(np.zeros((100, 784), np.float32), np.zeros(100, np.int64))
        >>> image, label = dataset[3]
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise UsageError("TensorDataset needs at least one array")
        self.arrays: tuple[np.ndarray, ...] = tuple(np.asarray(array) for array in arrays)
        shapes = ", ".join(str(array.shape) for array in self.arrays)
        for position, array in enumerate(self.arrays):
            if array.dtype == object:
                raise DTypeError(f"array {position} of TensorDataset holds Python objects, not numbers")
            if array.ndim == 0:
                raise ShapeError(f"array {position} of TensorDataset has no first dimension: shapes {shapes}")
        if len({len(array) for array in self.arrays}) > 1:
            raise ShapeError(f"the arrays of TensorDataset differ in their first dimension: shapes {shapes}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(array[index] for array in self.arrays)

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows of these numbers: one contiguous copy of shape (n, ...) for each array."""
        return tuple(_take_rows(array, indices) for array in self.arrays)


class Subset(Dataset):
    """Some samples of another data set, in a given order.

    Args:
        dataset: A `Dataset`, or anything with a length and items.
        indices: Sample numbers in it, of shape (n,); repeats are fine, negative ones count from the end.

    Raises:
        UsageError: The indices are not a flat sequence of integers.
        IndexError: An index is out of range.

    Example:
        >>> first_ten = Subset(dataset, range(10))
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray) -> None:
        positions = np.asarray(indices)
        if positions.size == 0:
            positions = positions.astype(np.int64)  # an empty list comes as float64
        if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
            raise UsageError(
                "the indices of Subset must be a flat sequence of integers, "
                f"got {positions.dtype} of shape {positions.shape}"
            )
        size = len(dataset)
        outside = positions[(positions < -size) | (positions >= size)]
        if outside.size:
            raise IndexError(f"index {outside[0]} is out of range for a data set of {size} samples")
        self.dataset = dataset
        self.indices: np.ndarray = np.where(positions < 0, positions + size, positions).astype(np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def batch(self, indices: np.ndarray) -> Any:
        """The samples of these numbers, batched by the data set below."""
        return load_batch(self.dataset, self.indices[indices])


def random_split(dataset: Any, lengths: Sequence[int] | Sequence[float], seed: int = 0) -> list[Subset]:
    """Split a data set at random into parts that do not overlap and together are the whole.

    Args:
        dataset: A `Dataset`, or anything with a length and items.
        lengths: The sizes of the parts, adding up to `len(dataset)`; or fractions, adding up to 1 (the samples that
            rounding down leaves over go to the parts one by one, from the first).
        seed: The same seed gives the same parts.

    Returns:
        One `Subset` for each length.

    Raises:
        UsageError: The lengths are negative or do not add up.

    Example:
        >>> train, validation = random_split(dataset, [0.9, 0.1], seed=1)
    """
    size = len(dataset)
    counts = _part_sizes(lengths, size)
    order = shuffled(size, seed)
    ends = np.cumsum(counts)
    return [Subset(dataset, order[end - count : end]) for end, count in zip(ends, counts, strict=True)]


def _part_sizes(lengths: Sequence[int] | Sequence[float], size: int) -> list[int]:
    if any(not math.isfinite(length) or length < 0 for length in lengths):
        raise UsageError(f"the lengths of random_split must not be negative, got {list(lengths)}")
    if all(isinstance(length, int | np.integer) for length in lengths) and sum(lengths) == size:
        return [int(length) for length in lengths]
    total = math.fsum(lengths)
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise UsageError(
            f"the lengths of random_split add up to {total:g}: "
            f"they must be sizes that add up to {size} or fractions that add up to 1, got {list(lengths)}"
        )
    # The nudge keeps 0.29 * 100 = 28.999... at 29. Each part loses less than one sample: one round hands out the rest.
    counts = [math.floor(size * length / total + 1e-9) for length in lengths]
    for position in range(size - sum(counts)):
        counts[position] += 1
    return counts


def shuffled(size: int, *seeds: int) -> np.ndarray:
    """The numbers 0 to `size` - 1 in an order that depends on the seeds alone, int64 of shape (size,)."""
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise UsageError(f"a seed must be an integer that is not negative, got {seed!r}")
    generator = np.random.Generator(np.random.PCG64([int(seed) for seed in seeds]))
    return generator.permutation(size)


def load_batch(dataset: Any, indices: np.ndarray) -> Any:
    """The collated samples of these numbers, of a `Dataset` or of anything with items."""
    if isinstance(dataset, Dataset):
        return dataset.batch(indices)
    return collate(load_samples(dataset, indices), labels=indices)


def load_samples(dataset: Any, indices: np.ndarray) -> list[Any]:
    """The samples of these numbers, one by one; an error is noted with the number of its sample."""
    return [_get_item(dataset, int(index)) for index in indices]


def collate(samples: Sequence[Any], labels: Sequence[int] | np.ndarray | None = None) -> Any:
    """Stack samples into a batch, leaf by leaf.

    Args:
        samples: At least one sample: an array or number, or a tuple, list or mapping of samples, all of one nesting.
        labels: What to call the samples in messages; their positions by default.

    Returns:
        Tuples for tuples and lists (named ones stay named), dicts for mappings, contiguous arrays of shape
        (len(samples), ...) for leaves. Python floats become float64 and integers int64, as in NumPy.

    Raises:
        UsageError: No samples, or their nestings differ.
        ShapeError: The shapes of a leaf differ.

    Example:
        >>> images, labels = collate([(np.zeros(3), 0), (np.ones(3), 1)])
    """
    if not len(samples):
        raise UsageError("collate needs at least one sample")
    return _collate(samples, range(len(samples)) if labels is None else labels, "")


def _collate(samples: Sequence[Any], labels: Sequence[int] | np.ndarray | range, where: str) -> Any:
    first = samples[0]
    if isinstance(first, Mapping):
        for sample, label in zip(samples, labels, strict=True):
            if not isinstance(sample, Mapping) or sample.keys() != first.keys():
                raise UsageError(_mismatch(where, f"keys {list(first)}", _keys(sample), labels[0], label))
        return {key: _collate([sample[key] for sample in samples], labels, f"{where}[{key!r}]") for key in first}
    if isinstance(first, tuple | list):
        for sample, label in zip(samples, labels, strict=True):
            if not isinstance(sample, tuple | list) or len(sample) != len(first):
                raise UsageError(_mismatch(where, f"{len(first)} fields", _fields(sample), labels[0], label))
        fields = [_collate(field, labels, f"{where}[{i}]") for i, field in enumerate(zip(*samples, strict=True))]
        # A named tuple takes its fields as arguments, a plain one as an iterable.
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
    return _stack(samples, labels, where)


def _stack(samples: Sequence[Any], labels: Sequence[int] | np.ndarray | range, where: str) -> np.ndarray:
    leaves = [np.asarray(sample) for sample in samples]
    for leaf, label in zip(leaves, labels, strict=True):
        if leaf.shape != leaves[0].shape:
            raise ShapeError(_mismatch(where, f"shape {leaves[0].shape}", f"shape {leaf.shape}", labels[0], label))
        if leaf.dtype == object:
            raise UsageError(f"cannot make an array of sample{where} of item {label}: {type(samples[0]).__name__}")
    return np.ascontiguousarray(np.stack(leaves))


def _mismatch(where: str, expected: str, found: str, first: Any, label: Any) -> str:
    return f"cannot make a batch: sample{where} has {expected} in item {first}, but {found} in item {label}"


def _keys(sample: Any) -> str:
    return f"keys {list(sample)}" if isinstance(sample, Mapping) else f"type {type(sample).__name__}"


def _fields(sample: Any) -> str:
    return f"{len(sample)} fields" if isinstance(sample, tuple | list) else f"type {type(sample).__name__}"


def _get_item(dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    except Exception as error:
        error.add_note(f"while loading item {index} of {type(dataset).__name__}")
        raise


def _take_rows(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    if array.flags.c_contiguous:
        return np.take(array, indices, axis=0)
    # np.take would first copy the whole of an array that is not contiguous.
    return np.ascontiguousarray(array[indices])
