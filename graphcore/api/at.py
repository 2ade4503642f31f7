"""``x.at[index]``: copies of a tensor with the named elements changed."""

from __future__ import annotations

from typing import Any

from graphcore.api.agreement import taken
from graphcore.api.elementwise import add, divide, maximum, minimum, multiply
from graphcore.api.indexing import (
    Basic,
    basic_index,
    check_constant,
    expand_index,
    getitem,
    is_array,
    is_mask,
    named_positions,
    rows_added,
)
from graphcore.api.logic import equal, greater_equal, less, where
from graphcore.api.operands import align, build, cast, fail, fit, full, promote, tensor
from graphcore.api.reductions import max as largest
from graphcore.api.shaping import reshape
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, UsageError
from graphcore.base.shapes import agree, broadcasts, format_shape, product
from graphcore.ir.node import mismatch

__all__ = ["At"]


class At:
    """``x.at[index]``: copies of ``x`` with the named elements changed.

    ``add``, ``set``, ``multiply`` (``mul``), ``divide``, ``min`` and ``max`` take a value that broadcasts to
    ``x[index]``; the result is of the type of ``x``. The index is

    * basic (slices, integers, None, ``...``);
    * a boolean tensor or array for the first axes; the value broadcasts to the axes that are left;
    * any other that has integer arrays or tensors: ``add`` adds up duplicates, ``set`` lets the last one win, and the
      others are not defined.
    """

    def __init__(self, x: Tensor, key: Any = None) -> None:
        self._x = x
        self._key = key

    def __getitem__(self, key: Any) -> At:
        return At(self._x, key)

    def get(self) -> Tensor:
        """``x[index]``."""
        return getitem(self._x, self._key)

    def add(self, value: Any) -> Tensor:
        """``x`` with the value added at the index."""
        if self._mask() is not None:
            return self._masked(add, value)
        index = self._array_index()
        if index is None and self._has_arrays():
            return self._flattened("add", value)
        if index is not None:
            return add(self._x, rows_added(self._x, index, self._value(value), "at.add"))
        where_, v = self._prepared(value)
        return add(self._x, where_.place(v, self._x.shape))

    def set(self, value: Any) -> Tensor:
        """``x`` with the value at the index."""
        if self._mask() is not None:
            return self._masked(lambda _, v: v, value)
        index = self._array_index()
        if index is None and self._has_arrays():
            return self._flattened("set", value)
        if index is not None:
            return self._set_rows(index, self._value(value))
        where_, v = self._prepared(value)
        inside = where_.place(full(where_.shape, True, dtypes.bool_), self._x.shape)
        return where(inside, where_.place(v, self._x.shape), self._x)

    def multiply(self, value: Any) -> Tensor:
        """``x`` with the elements at the index multiplied."""
        return self._combined(multiply, value)

    mul = multiply

    def divide(self, value: Any) -> Tensor:
        """``x`` with the elements at the index divided."""
        return self._combined(divide, value)

    def min(self, value: Any) -> Tensor:
        """``x`` with the elements at the index no larger than the value."""
        return self._combined(minimum, value)

    def max(self, value: Any) -> Tensor:
        """``x`` with the elements at the index no smaller than the value."""
        return self._combined(maximum, value)

    def _combined(self, function: Any, value: Any) -> Tensor:
        if self._mask() is not None:
            return self._masked(function, value)
        if self._has_arrays():
            raise fail(
                UsageError,
                "at: with an integer tensor as index only add and set are defined (an index may occur twice)",
                self._x,
            )
        return self.set(function(self.get(), self._value(value)))

    def _has_arrays(self) -> bool:
        return any(is_array(i) for i in expand_index(self._x, self._key))

    def _array_index(self) -> Tensor | None:
        """The one array that indexes the first axis, if that is what the index is."""
        items = expand_index(self._x, self._key)
        if not items or not is_array(items[0]) or any(is_array(i) or i != slice(None) for i in items[1:]):
            return None
        check_constant(self._x, 0, items[0], self._x.shape[0])
        return named_positions("at", items[0], self._x.shape[0])

    def _flattened(self, operation: str, value: Any) -> Tensor:
        """An operation on the same elements of the flattened tensor."""
        x, v = self._x, self._value(value)
        places = build("iota", shape=(product(x.shape),), axis=0, dtype=dtypes.int64)
        wanted = getitem(reshape(places, x.shape), self._key)
        if not broadcasts(v.shape, wanted.shape):
            raise mismatch("at", x, v, f"the value does not broadcast to the indexed part {format_shape(wanted.shape)}")
        flat = At(reshape(x, (-1,)), reshape(wanted, (-1,)))
        return reshape(getattr(flat, operation)(reshape(fit(v, wanted.shape, "at", x), (-1,))), x.shape)

    def _mask(self) -> Tensor | None:
        """The index, if it is one boolean tensor or array."""
        is_tensor = isinstance(self._key, Tensor) and self._key.dtype.is_bool
        return tensor("at", self._key) if is_tensor or is_mask(self._key) else None

    def _masked(self, function: Any, value: Any) -> Tensor:
        mask, v, shape = self._mask(), self._value(value), self._x.shape
        assert mask is not None
        rest = shape[mask.ndim :]
        if not agree(mask.shape, shape[: mask.ndim]):
            raise mismatch("at", self._x, mask, "the mask must have the shape of the first axes")
        mask = taken(mask, shape[: mask.ndim], "at", self._x)
        if not broadcasts(v.shape, rest):
            raise mismatch("at", self._x, v, f"under a mask, the value must broadcast to {format_shape(rest)}")
        wide = reshape(mask, (*mask.shape, *(1,) * len(rest)))
        return where(wide, function(self._x, fit(v, shape, "at", self._x)), self._x)

    def _value(self, value: Any) -> Tensor:
        """A value as a tensor of the type of ``x``; as in a feed, an array of floats takes a floating one's."""
        x, v = self._x, value
        if not isinstance(value, (Tensor, bool, int, float)):
            v = tensor("at", value)
            v = tensor("at", value, x.dtype) if v.dtype.is_float and x.dtype.is_float else v
        try:
            fits = dtypes.result_type(x, v) == x.dtype
        except DTypeError:
            fits = False
        if not fits:
            raise fail(
                DTypeError,
                f"at: the value is of a type that does not fit {x.dtype}; cast it with .astype('{x.dtype}')",
                x,
                *([v] if isinstance(v, Tensor) else []),
            )
        return promote("at", x, v)[1]

    def _prepared(self, value: Any) -> tuple[Basic, Tensor]:
        where_, v = basic_index(self._x, expand_index(self._x, self._key)), self._value(value)
        if not broadcasts(v.shape, where_.shape):
            raise mismatch(
                "at", self._x, v, f"the value does not broadcast to the indexed part {format_shape(where_.shape)}"
            )
        return where_, fit(v, where_.shape, "at", self._x)

    def _set_rows(self, index: Tensor, value: Tensor) -> Tensor:
        """For every row the last index that names it, by comparison of all pairs."""
        x, rows = self._x, self._x.shape[0]
        wanted = (*index.shape, *x.shape[1:])
        if not broadcasts(value.shape, wanted):
            raise mismatch("at.set", x, value, f"the values must be {format_shape(wanted)}")
        flat = cast(reshape(index, (-1,)), dtypes.int64)
        counted = where(less(flat, 0), add(flat, rows), flat)
        pairs = (rows, product(index.shape))
        row = build("iota", shape=pairs, axis=0, dtype=dtypes.int64)
        turn = build("iota", shape=pairs, axis=1, dtype=dtypes.int64)
        hits = equal(*align("at.set", row, counted))
        if pairs[1] == 0:
            return x
        last = largest(where(hits, turn, -1), 1)
        rows_of_value = reshape(fit(value, wanted, "at.set", x), (pairs[1], *x.shape[1:]))
        chosen = build("take", rows_of_value, maximum(last, 0), axis=0)
        named = reshape(greater_equal(last, 0), (rows, *(1,) * (x.ndim - 1)))
        return where(named, chosen, x)
