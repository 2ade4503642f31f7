"""The kernel-IR oracle: kernels evaluated over whole index grids with NumPy.

Every axis becomes one dimension of a broadcast grid, so a value of the IR is an array over the axes it depends on. It
is meant to be obviously right, not fast: a matrix product materialises all of its products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphcore.base.shapes import bind
from graphcore.ir.op import lookup
from graphcore.kernel.expr import Expr, walk
from graphcore.kernel.index import Axis, Div, Dynamic, Index, Mod
from graphcore.kernel.ir import Kernel

__all__ = ["run_kernel"]


def run_kernel(kernel: Kernel, buffers: list[Any], sizes: Mapping[str, int] | None = None) -> None:
    """Execute a kernel on flat arrays of the storage types, one a parameter, in place."""
    _Evaluation(kernel, buffers, sizes or {}).run()


class _Evaluation:
    def __init__(self, kernel: Kernel, buffers: list[Any], sizes: Mapping[str, int]) -> None:
        self.kernel, self.buffers, self.sizes = kernel, buffers, sizes
        axes: dict[Axis, None] = dict.fromkeys(kernel.axes)
        for value in kernel.values():
            axes.update(dict.fromkeys(value.axes))
            if value.fn == "reduce":
                axes.update(dict.fromkeys(value.reduce_axes))
        self.position = {axis: i for i, axis in enumerate(axes)}
        self.rank = len(axes)
        self.values: dict[Expr, Any] = {}

    def extent(self, axis: Axis) -> int:
        return int(bind(axis.extent, self.sizes))

    def grid(self, axis: Axis) -> Any:
        shape = [1] * self.rank
        shape[self.position[axis]] = -1
        return np.arange(self.extent(axis), dtype=np.int64).reshape(shape)

    def run(self) -> None:
        with np.errstate(all="ignore"):
            for value in walk(*(s.value for s in self.kernel.stores)):
                self.values[value] = self.evaluate(value)
            results = [(s, self.index(s.index), self.values[s.value]) for s in self.kernel.stores]
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
        if e.fn == "const":
            return self.rounded(np.asarray(e.value, np.dtype(e.dtype.compute)), e)
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
        if e.fn == "reduce":
            return self.rounded(self.reduce(e, args[0]), e)
        if e.fn == "cast":
            return self.rounded(_cast(args[0], e), e)
        if e.fn == "select":
            return np.where(*args)
        return self.rounded(_FUNCTIONS[e.fn](*args), e)

    def rounded(self, value: Any, e: Expr) -> Any:
        """Half types are computed wider, and every result is rounded to its storage type."""
        wide = np.dtype(e.dtype.compute)
        return (
            np.asarray(value).astype(e.dtype.storage).astype(wide) if e.dtype.rounds else np.asarray(value).astype(wide)
        )

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
        return _REDUCERS[combine](full, axis=dims, keepdims=True)


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


def _by_reference(name: str) -> Any:
    def apply(x: Any) -> Any:
        return lookup(name)().reference(np.asarray(x))

    return apply


def _polygamma(x: Any, order: Any) -> Any:
    """The order is a constant of the kernel."""
    return lookup("polygamma")(int(order)).reference(np.asarray(x))


def _mulhi(a: Any, b: Any) -> Any:
    return ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)


_FUNCTIONS: dict[str, Any] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _by_reference("erf"),
    "erfc": _by_reference("erfc"),
    "erfinv": _by_reference("erfinv"),
    "lgamma": _by_reference("lgamma"),
    "digamma": _by_reference("digamma"),
    "polygamma": _polygamma,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.round,
    "sigmoid": _by_reference("sigmoid"),
    "reciprocal": lambda x: 1 / x,
    "bit_not": np.invert,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "atan2": np.arctan2,
    "copysign": np.copysign,
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    "mulhi": _mulhi,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
}
_REDUCERS: dict[str, Any] = {"add": np.sum, "mul": np.prod, "max": np.max, "min": np.min, "and": np.all, "or": np.any}
