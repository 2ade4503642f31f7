"""The kernel-IR oracle: kernels evaluated over whole index grids with NumPy.

Every axis becomes one dimension of a broadcast grid, so a value of the IR is an array over the axes it depends on. It
is meant to be obviously right, not fast: a matrix product materialises all of its products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphcore.base.dtypes import DType, as_dtype
from graphcore.base.shapes import bind, product
from graphcore.kernel import functions
from graphcore.kernel.expr import Expr, let_ref, transform, walk
from graphcore.kernel.forms import Computed, Contraction
from graphcore.kernel.index import Axis, Div, Dynamic, Index, Mod
from graphcore.kernel.ir import Kernel
from graphcore.kernel.meaning import contracted, whole
from graphcore.kernel.parts import Parts
from graphcore.kernel.whole_forms import WholeForm

__all__ = ["apply", "evaluate", "reduced", "rounded", "run_kernel", "run_parts", "step"]


def run_kernel(
    kernel: Kernel, buffers: list[Any], sizes: Mapping[str, int] | None = None, by_form: bool = False
) -> None:
    """Execute a kernel on flat arrays of the storage types, one a parameter, in place.

    Args:
        kernel: the kernel.
        buffers: one a parameter.
        sizes: extents by name.
        by_form: compute a contraction as what it is, not as its loops say: a second meaning to compare with.

    Raises:
        ValueError: ``by_form``, and the kernel has no form.
    """
    evaluation = _Evaluation(kernel, buffers, sizes or {})
    if isinstance(kernel.form, WholeForm):
        evaluation.know_whole(kernel.form)
    elif by_form:
        if kernel.form is None:
            raise ValueError(f"kernel {kernel.name} has no form")
        evaluation.know(kernel.form)
    evaluation.run()


def run_parts(parts: Parts, buffers: list[Any], sizes: Mapping[str, int] | None = None) -> None:
    """Execute what a kernel was cut into, one part after the other.

    Workspaces hold what is no result (NaN in every floating type) until a part writes them; those that a part adds to
    start at zero, as the families of schedules start them.

    Args:
        parts: the kernel's parts.
        buffers: one a parameter of the whole kernel.
        sizes: extents by name.
    """
    spaces = []
    for number, space in enumerate(parts.workspaces):
        added = any(
            s.mode == "add" and part.params[s.param] == len(buffers) + number
            for part in parts.parts
            for s in part.kernel.stores
        )
        nbytes = int(bind(product(space.shape), sizes or {})) * space.dtype.itemsize
        spaces.append(np.full(nbytes, 0 if added else 0xFF, np.uint8).view(space.dtype.storage))
    behind = [*buffers, *spaces]
    for part in parts.parts:
        run_kernel(part.kernel, [behind[p] for p in part.params], sizes)


class _Evaluation:
    def __init__(self, kernel: Kernel, buffers: list[Any], sizes: Mapping[str, int]) -> None:
        self.kernel, self.buffers, self.sizes = kernel, buffers, sizes
        axes: dict[Axis, None] = dict.fromkeys(kernel.axes)
        operands = kernel.form.operands if kernel.form is not None else ()
        for operand in operands:
            axes.update(dict.fromkeys(operand.axes))
        for value in walk(*(s.value for s in kernel.stores), *(o.value for o in operands)):
            axes.update(dict.fromkeys(value.axes))
            if value.fn == "reduce":
                axes.update(dict.fromkeys(value.reduce_axes))
        self.position = {axis: i for i, axis in enumerate(axes)}
        self.rank = len(axes)
        self.values: dict[Expr, Any] = {}
        self.stores = kernel.stores

    def extent(self, axis: Axis) -> int:
        return int(bind(axis.extent, self.sizes))

    def grid(self, axis: Axis) -> Any:
        shape = [1] * self.rank
        shape[self.position[axis]] = -1
        return np.arange(self.extent(axis), dtype=np.int64).reshape(shape)

    def know(self, form: Contraction) -> None:
        """Compute a contraction by its NumPy meaning; stores then see its result as a leaf."""
        with np.errstate(all="ignore"):
            left, right = (self.operand(o) for o in form.operands)
            made = contracted(form, left, right, self.sizes)
        held = form.left.axes + form.right.axes
        axes = [a for a in form.result_axes if (form.window is not None or a in held) and a in self.position]
        leaf = let_ref("result", form.result)
        self.values[leaf] = rounded(self.spread(made, axes), form.types.result)
        self.stores = tuple(
            replace(s, value=transform(s.value, lambda e, _: leaf if e is form.result else None))
            for s in self.kernel.stores
        )

    def know_whole(self, form: WholeForm) -> None:
        """Compute what a form's leaves are."""
        with np.errstate(all="ignore"):
            results = whole(form, [self.operand(o) for o in form.operands], self.sizes)
        for leaf, axes, made in zip(form.results, form.result_axes(), results, strict=True):
            self.values[leaf] = rounded(self.spread(made, axes), leaf.dtype)

    def spread(self, made: Any, axes: Sequence[Axis]) -> Any:
        """An array over some axes as a value of the grid."""
        made = made.reshape([self.extent(a) for a in axes])
        made = made.transpose(sorted(range(len(axes)), key=lambda i: self.position[axes[i]]))
        shape = [1] * self.rank
        for axis in axes:
            shape[self.position[axis]] = self.extent(axis)
        return made.reshape(shape)

    def operand(self, operand: Computed) -> Any:
        """All of a form's operand, in its shape."""
        for value in walk(operand.value):
            self.values[value] = self.evaluate(value)
        extents = [self.extent(a) for a in operand.axes]
        shape = [1] * self.rank
        for axis, extent in zip(operand.axes, extents, strict=True):
            shape[self.position[axis]] = extent
        own = [self.position[a] for a in operand.axes]
        others = [d for d in range(self.rank) if d not in own]
        full = np.broadcast_to(self.values[operand.value], shape).transpose(*own, *others)
        return full.reshape([int(bind(e, self.sizes)) for e in operand.shape])

    def run(self) -> None:
        with np.errstate(all="ignore"):
            for value in walk(*(s.value for s in self.stores)):
                if value not in self.values:
                    self.values[value] = self.evaluate(value)
            results = [(s, self.index(s.index), self.values[s.value]) for s in self.stores]
        for store, where, value in results:  # all loads happen before any store, as if nothing were in place
            shape = np.broadcast_shapes(
                np.shape(where), np.shape(value), *(self.grid(a).shape for a in store.index.axes())
            )
            target, where = self.buffers[store.param], np.broadcast_to(where, shape).ravel()
            flat = np.broadcast_to(value, shape).ravel().astype(target.dtype)
            if store.mode == "add":
                np.add.at(target, where, flat)
            else:
                target[where] = flat

    def index(self, index: Index) -> Any:
        total: Any = np.int64(index.constant)
        for atom, coefficient in index.terms:
            if isinstance(atom, Axis):
                part = self.grid(atom)
            elif isinstance(atom, Div):
                part = self.index(atom.value) // atom.divisor
            elif isinstance(atom, Mod):
                part = self.index(atom.value) % atom.divisor
            else:
                assert isinstance(atom, Dynamic)
                part = np.asarray(self.values[atom.value]).astype(np.int64)
            total = total + part * coefficient
        return total

    def evaluate(self, e: Expr) -> Any:
        if e.fn == "load":
            return self.load(e)
        if e.fn == "index":
            return self.index(e.index).astype(np.dtype(e.dtype.compute))
        if e.fn == "size":
            return np.asarray(bind(e.extent, self.sizes), np.dtype(e.dtype.compute))
        if e.fn == "in_range":
            where = self.index(e.index)
            return (where >= e.low) & (where < bind(e.high, self.sizes))
        args = [self.values[a] for a in e.args]
        return rounded(self.reduce(e, args[0]), e.dtype) if e.fn == "reduce" else step(e, args)

    def load(self, e: Expr) -> Any:
        param, index = e.param, e.index
        where, source = self.index(index), self.buffers[param]
        guard = self.values[e.guard] if e.guard else np.True_
        where, guard = np.broadcast_arrays(where, guard)
        wide = np.dtype(e.dtype.compute)
        if where.size == 0 or not guard.any() or source.size == 0:
            return np.zeros(where.shape, wide)
        if (where[guard] < 0).any() or (where[guard] >= source.size).any():
            raise IndexError(f"kernel {self.kernel.name}: load outside parameter {param}: {index}")
        return np.where(guard, source[np.where(guard, where, 0)].astype(wide), wide.type(0))

    def reduce(self, e: Expr, body: Any) -> Any:
        combine, axes = e.combine, e.reduce_axes
        shape = list(np.shape(body)) if np.ndim(body) else [1] * self.rank
        for axis in axes:
            shape[self.position[axis]] = self.extent(axis)
        full = np.broadcast_to(body, shape)
        dims = tuple(self.position[a] for a in axes)
        if combine in ("argmax", "argmin"):
            count = math.prod(shape[d] for d in dims)
            moved = np.moveaxis(full, dims, range(-len(dims), 0))
            flat = moved.reshape(*moved.shape[: -len(dims)], count)
            result = (np.argmax if combine == "argmax" else np.argmin)(flat, axis=-1)
            return np.expand_dims(result, sorted(dims))
        return reduced(combine, full, dims, keepdims=True)


def _cast(value: Any, e: Expr) -> Any:
    if e.dtype.is_bool:
        return value != 0
    source, wide = e.args[0].dtype, np.dtype(e.dtype.compute)
    if source.is_float and e.dtype.is_integer:  # out of range saturates and NaN gives 0, as on the device
        info = np.iinfo(wide)
        inside = np.nan_to_num(np.trunc(value), nan=0.0, posinf=float(info.max), neginf=float(info.min))
        high = inside >= float(info.max)
        return np.where(
            high, info.max, np.where(inside <= float(info.min), info.min, np.where(high, 0, inside).astype(wide))
        )
    return np.asarray(value).astype(wide)


def apply(name: str, *operands: Any) -> Any:
    """A scalar function of arrays of one compute type, which broadcast."""
    function = functions.lookup(name)
    if function.numpy is not None:
        return function.numpy(*operands)
    return evaluate(functions.expanded(name, as_dtype(np.asarray(operands[0]).dtype))[1], operands)


def evaluate(value: Expr, operands: Sequence[Any]) -> Any:
    """An expression over the arguments that ``operands`` are, arrays of their compute types, which broadcast."""
    known: dict[Expr, Any] = {}
    for e in walk(value):
        known[e] = operands[e.position] if e.fn == "argument" else step(e, [known[a] for a in e.args])
    return known[value]


def step(e: Expr, args: list[Any]) -> Any:
    """A constant, or a function, a conversion or a selection over the values of its operands.

    Half types are computed wider, and every result is rounded to its storage type.
    """
    if e.fn == "select":
        return np.where(*args)
    if e.fn == "const":
        made = np.asarray(e.value, np.dtype(e.dtype.compute))
    else:
        made = _cast(args[0], e) if e.fn == "cast" else apply(e.fn, *args)
    return rounded(made, e.dtype)


def rounded(value: Any, dtype: DType) -> Any:
    """A value in the compute type, as storing it would leave it."""
    wide = np.dtype(dtype.compute)
    return np.asarray(value).astype(dtype.storage).astype(wide) if dtype.rounds else np.asarray(value).astype(wide)


def reduced(combine: str, x: Any, axes: tuple[int, ...], keepdims: bool = False) -> Any:
    """An array combined over axes by a monoid. The largest of 0 and -0 is 0, the smallest -0, in whichever order."""
    result = _REDUCERS[combine](x, axis=axes, keepdims=keepdims)
    if combine not in ("max", "min") or not np.issubdtype(x.dtype, np.floating) or not axes:
        return result
    wanted = (x == 0) & (np.signbit(x) == (combine == "min"))
    zero = x.dtype.type(0.0 if combine == "max" else -0.0)
    return np.where((result == 0) & np.any(wanted, axis=axes, keepdims=keepdims), zero, result)


_REDUCERS: dict[str, Any] = {"add": np.sum, "mul": np.prod, "max": np.max, "min": np.min, "and": np.all, "or": np.any}
