"""Random programs of all kinds of ops, whose results are known exactly.

Feeds are small whole numbers, and every value's magnitude is bounded while the program grows, so that sums and products
are exact in any order: results must be equal, whatever was fused. Functions that round (exp, division, ...) make
*rough* values, which feed continuous ops only and are compared within a tolerance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import placeholder
from graphcore.base import dtypes

__all__ = ["Program", "Value", "seeded"]

LIMIT = 2.0**22  # below this, float32 holds every whole number and every sum of them
HALF_LIMIT = 60000.0
EXTENTS = (1, 2, 3, 4, 5, 8, 16, 17, 19, 33)
DTYPES = ("float32",) * 6 + ("int32", "int64", "uint8", "bool", "float16", "bfloat16", "float64")
Pick = Callable[[int], int]  # a number below another one


@dataclass(frozen=True)
class Value:
    """A tensor of a program: its largest magnitude, whether it was rounded, whether NaN or infinity may be inside."""

    tensor: Tensor
    bound: float
    rough: bool = False
    special: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape  # type: ignore[return-value]

    @property
    def dtype(self) -> dtypes.DType:
        return self.tensor.dtype


class Refused(Exception):
    """A step that would leave what is exact; another one is tried."""


class Program:
    """A random program; every decision is a call of ``pick``."""

    def __init__(self, pick: Pick, steps: int) -> None:
        self.pick, self.b = pick, Builder()
        self.values: list[Value] = []
        self.feeds: dict[Tensor, Any] = {}
        self.used: set[tuple[int, int]] = set()
        for _ in range(2 + pick(3)):
            self.feed()
        made = 0
        for _ in range(4 * steps):
            step = self.STEPS[pick(len(self.STEPS))]
            try:
                step(self)
            except Refused:
                continue
            made += 1
            if made >= steps:
                break
        # Every value that nothing reads is fetched, and every third of the others.
        self.fetched = [v for v in self.values if v.tensor.value not in self.used or pick(3) == 0]

    # Drawing

    def feed(self) -> None:
        shape: list[int] = []
        for _ in range(self.pick(5)):
            extent = 0 if self.pick(40) == 39 else EXTENTS[self.pick(len(EXTENTS))]
            if int(np.prod([*shape, extent])) <= 2000:
                shape.append(extent)
        dtype = dtypes.as_dtype(DTYPES[self.pick(len(DTYPES))])
        rng = np.random.default_rng(self.pick(2**16))
        array = rng.integers(0 if dtype.kind in "ub" else -3, 2 if dtype.is_bool else 4, shape).astype(dtype.storage)
        special = dtype.is_float and self.pick(8) == 7
        if special:
            array[rng.random(shape) < 0.1] = np.nan
            array[rng.random(shape) < 0.1] = -np.inf
        t = placeholder(dtype, tuple(shape))
        self.feeds[t] = array
        self.add(t, 3.0, special=special)

    def add(self, t: Tensor, bound: float, *sources: Value, rough: bool = False, special: bool = False) -> Value:
        rough, special = rough or any(s.rough for s in sources), special or any(s.special for s in sources)
        if t.dtype.is_float:
            if bound > (HALF_LIMIT if t.dtype.name == "float16" else LIMIT) or (rough and t.dtype.rounds):
                raise Refused
        else:
            bound = min(bound, 2.0 ** (8 * t.dtype.itemsize))
        if int(np.prod(t.shape)) > 6000:  # type: ignore[arg-type]
            raise Refused
        self.used.update(s.tensor.value for s in sources)
        self.values.append(Value(t, bound, rough and t.dtype.is_float, special and t.dtype.is_float))
        return self.values[-1]

    def any(self, fits: Callable[[Value], bool]) -> Value:
        """One of the values that fit; later ones are likelier."""
        found = [v for v in self.values if fits(v)]
        if not found:
            raise Refused
        return found[len(found) - 1 - min(self.pick(len(found)), self.pick(len(found)))]

    def partner(self, x: Value, fits: Callable[[Value], bool] = lambda v: True) -> Value:
        """A value of ``x``'s type and shape: itself, another, a smaller or a reduced one broadcast, or a number."""
        equal = [v for v in self.values if v.dtype == x.dtype and fits(v)]
        same = [v for v in equal if v.shape == x.shape]
        smaller = [v for v in equal if v.shape != x.shape and broadcasts(v.shape, x.shape)]
        choice = self.pick(4)
        if choice == 0 and smaller:
            small = smaller[self.pick(len(smaller))]
            self.used.add(small.tensor.value)
            return Value(self.b.broadcast_to(small.tensor, x.shape), small.bound, small.rough, small.special)
        if choice == 1 and x.shape and not x.dtype.is_bool and 0 not in x.shape:
            axis = self.pick(len(x.shape))
            kept = tuple(1 if a == axis else e for a, e in enumerate(x.shape))
            best = self.b.reshape(self.b.max(x.tensor, axes=(axis,)), shape=kept)
            return Value(self.b.broadcast_to(best, x.shape), x.bound, x.rough, x.special)
        if choice == 2:
            number = self.pick(3)
            return Value(self.b.full(x.shape, number, x.dtype), 2.0)
        return same[self.pick(len(same))] if same else x

    # Steps

    def unary(self) -> None:
        x = self.any(lambda v: not v.dtype.is_bool)
        name = ("neg", "abs", "sign", "relu", "square")[self.pick(5)]
        if name == "square":
            self.add(self.b.mul(x.tensor, x.tensor), x.bound**2, x)
        elif name == "relu" and x.dtype.is_float:
            self.add(self.b.relu(x.tensor), x.bound, x)
        elif name == "sign" and not x.rough:
            self.add(self.b.sign(x.tensor), 1.0, x)
        else:
            self.add(
                getattr(self.b, "neg" if name == "sign" else "abs" if name == "relu" else name)(x.tensor),
                max(x.bound, 255.0 if x.dtype.kind == "u" else 0.0),
                x,
            )

    def rough(self) -> None:
        x = self.any(lambda v: v.dtype.is_float and not v.dtype.rounds and not (v.rough and v.bound > 8))
        name = ("exp", "tanh", "sigmoid", "sin", "div", "sqrt")[self.pick(6)]
        if name == "div":
            y = self.b.add(self.b.abs(x.tensor), 1)
            self.add(self.b.div(x.tensor, y), 1.0, x, rough=True)
        elif name == "sqrt":
            self.add(self.b.sqrt(self.b.add(self.b.abs(x.tensor), 1)), x.bound + 1, x, rough=True)
        elif name != "exp" or (x.bound <= 8 and not x.rough):
            self.add(getattr(self.b, name)(x.tensor), 3000.0 if name == "exp" else 1.0, x, rough=True)

    def binary(self) -> None:
        x = self.any(lambda v: not v.dtype.is_bool)
        y = self.partner(x)
        name = ("add", "sub", "mul", "maximum", "minimum")[self.pick(5)]
        bound = {"mul": x.bound * y.bound, "add": x.bound + y.bound, "sub": x.bound + y.bound}.get(
            name, max(x.bound, y.bound)
        )
        if x.dtype.kind == "u":
            bound = max(bound, 255.0)
        left, right = (x, y) if self.pick(2) else (y, x)
        self.add(getattr(self.b, name)(left.tensor, right.tensor), bound, x, y)

    def division(self) -> None:
        x = self.any(lambda v: not v.dtype.is_bool and not v.rough and not v.special)
        y = self.partner(x, lambda v: not v.rough and not v.special)
        divisor = self.b.add(self.b.mul(y.tensor, 2), 1) if x.dtype.is_float else y.tensor
        bound = 2 * y.bound + 1 if self.pick(2) else x.bound
        name = "remainder" if bound != x.bound else "floor_divide"
        self.add(getattr(self.b, name)(x.tensor, divisor), max(x.bound, bound) + 1, x, y)

    def bits(self) -> None:
        x = self.any(lambda v: not v.dtype.is_float)
        y = self.partner(x)
        name = ("bitwise_and", "bitwise_or", "bitwise_xor")[self.pick(3)]
        self.add(getattr(self.b, name)(x.tensor, y.tensor), 2.0**64, x, y)

    def compare(self) -> None:
        x = self.any(lambda v: not v.rough and not v.dtype.is_bool)
        y = self.partner(x, lambda v: not v.rough)
        name = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")[self.pick(6)]
        self.add(getattr(self.b, name)(x.tensor, y.tensor), 1.0, x, y)

    def where(self) -> None:
        x = self.any(lambda v: True)
        y = self.partner(x)
        tests = [v for v in self.values if v.dtype.is_bool and broadcasts(v.shape, x.shape)]
        if not tests:
            raise Refused
        test = tests[self.pick(len(tests))]
        self.add(
            self.b.where(self.b.broadcast_to(test.tensor, x.shape), x.tensor, y.tensor),
            max(x.bound, y.bound),
            x,
            y,
            test,
        )

    def cast(self) -> None:
        target = dtypes.as_dtype(DTYPES[self.pick(len(DTYPES))])
        x = self.any(lambda v: target.is_float or not (v.rough or v.special))
        bound = x.bound
        if target.is_integer:
            bound = 2.0**64 if x.bound > 2.0 ** (8 * target.itemsize - 1) or target.kind == "u" else x.bound
        self.add(self.b.cast(x.tensor, dtype=target), 1.0 if target.is_bool else bound, x)

    def reshape(self) -> None:
        x = self.any(lambda v: True)
        size, shape = int(np.prod(x.shape)), []
        for _ in range(self.pick(4)):
            factors = [e for e in range(1, 40) if size and size % e == 0]
            shape.append(factors[self.pick(len(factors))] if factors else 0)
            size //= max(shape[-1], 1)
        shape.insert(self.pick(len(shape) + 1), size)
        if int(np.prod(shape)) != int(np.prod(x.shape)):
            raise Refused
        self.add(self.b.reshape(x.tensor, shape=tuple(shape)), x.bound, x)

    def permute(self) -> None:
        x = self.any(lambda v: len(v.shape) > 1)
        axes = list(range(len(x.shape)))
        for i in range(len(axes) - 1):
            j = i + self.pick(len(axes) - i)
            axes[i], axes[j] = axes[j], axes[i]
        self.add(self.b.permute(x.tensor, axes=tuple(axes)), x.bound, x)

    def broadcast(self) -> None:
        x = self.any(lambda v: len(v.shape) < 4)
        shape = [EXTENTS[self.pick(5)] if e == 1 else e for e in x.shape]
        if self.pick(2):
            shape.insert(0, EXTENTS[self.pick(6)])
        self.add(self.b.broadcast_to(x.tensor, tuple(shape)), x.bound, x)

    def slice(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        starts, lengths, steps = [], [], []
        for extent in x.shape:
            start, step = self.pick(min(extent, 3) + 1), 1 + (self.pick(6) == 5)
            starts.append(start)
            steps.append(step)
            lengths.append(max((extent - start + step - 1) // step - self.pick(2), 0))
        self.add(self.b.slice(x.tensor, starts=tuple(starts), lengths=tuple(lengths), steps=tuple(steps)), x.bound, x)

    def flip(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        self.add(self.b.flip(x.tensor, axes=(self.pick(len(x.shape)),)), x.bound, x)

    def pad(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        low, high, gaps = (tuple(self.pick(n) for _ in x.shape) for n in (3, 4, 2))
        self.add(self.b.pad(x.tensor, low=low, high=high, gaps=gaps), x.bound, x)

    def concat(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        axis = self.pick(len(x.shape))
        fitting = [
            v
            for v in self.values
            if v.dtype == x.dtype
            and len(v.shape) == len(x.shape)
            and all(a == axis or v.shape[a] == e for a, e in enumerate(x.shape))
        ]
        parts = [x, *(fitting[self.pick(len(fitting))] for _ in range(1 + self.pick(2)))]
        self.add(self.b.concat(*(p.tensor for p in parts), axis=axis), max(p.bound for p in parts), *parts)

    def reduce(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        axes = tuple(a for a in range(len(x.shape)) if self.pick(2)) or (self.pick(len(x.shape)),)
        count = int(np.prod([x.shape[a] for a in axes]))
        if x.dtype.is_bool:
            self.add(getattr(self.b, ("all", "any")[self.pick(2)])(x.tensor, axes=axes), 1.0, x)
            return
        name = ("sum", "sum", "max", "min", "prod", "argmax", "argmin")[self.pick(7)]
        if name not in ("sum", "prod") and count == 0:
            raise Refused
        if name.startswith("arg"):
            if x.rough or x.shape[axes[0]] == 0:
                raise Refused
            self.add(getattr(self.b, name)(x.tensor, axes=axes[:1]), float(x.shape[axes[0]]), x)
            return
        if name == "prod" and x.dtype.is_float and max(x.bound, 1.0) ** min(count, 40) > LIMIT:
            raise Refused
        bound = {
            "sum": max(x.bound * count, 1.0),
            "prod": max(x.bound, 1.0) ** min(count, 40) if x.dtype.is_float else 0.0,
        }.get(name, x.bound)
        if x.dtype.is_float and x.bound * count > LIMIT:
            raise Refused
        self.add(getattr(self.b, name)(x.tensor, axes=axes), bound if x.dtype.is_float else 2.0**64, x)

    def normalise(self) -> None:
        """Several reductions of one value spread back over it: the shape of softmax and of normalisation layers."""
        x = self.any(lambda v: v.dtype.is_float and len(v.shape) > 0 and 0 not in v.shape)
        axis = self.pick(len(x.shape))
        kept = tuple(1 if a == axis else e for a, e in enumerate(x.shape))

        def spread(t: Tensor) -> Tensor:
            return self.b.broadcast_to(self.b.reshape(t, shape=kept), x.shape)

        moved = self.b.sub(x.tensor, spread(self.b.max(x.tensor, axes=(axis,))))
        total = self.b.sum(moved, axes=(axis,))
        bound = 2 * x.bound * (x.shape[axis] + 1)
        if self.pick(2):
            self.add(total, bound, x)
        self.add(self.b.add(moved, spread(total)), bound, x)

    def matmul(self) -> None:
        x = self.any(lambda v: len(v.shape) in (2, 3) and not v.dtype.is_bool)
        swap = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
        left = self.b.permute(x.tensor, axes=swap) if self.pick(2) else x.tensor
        lead, k = left.shape[:-2], left.shape[-1]
        fitting = [
            (v, turned)
            for v in self.values
            if v.dtype == x.dtype and len(v.shape) == len(x.shape) and v.shape[:-2] == lead
            for turned in (False, True)
            if v.shape[-1 if turned else -2] == k
        ]
        if not fitting:
            raise Refused
        y, turned = fitting[self.pick(len(fitting))]
        right = self.b.permute(y.tensor, axes=swap) if turned else y.tensor
        bound = max(x.bound * y.bound * int(k), 1.0)
        self.add(self.b.matmul(left, right), bound if x.dtype.is_float else 2.0**64, x, y)

    def take(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        index = self.any(lambda v: v.dtype.is_integer and len(v.shape) < 3)
        self.add(
            self.b.take(x.tensor, index.tensor, axis=self.pick(len(x.shape))),
            x.bound,
            x,
            index,
            special=x.dtype.is_float,
        )

    def positions(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0)
        if self.pick(2):
            index = self.any(lambda v: v.dtype.is_integer and len(v.shape) < 3)
            self.add(self.b.one_hot(index.tensor, depth=EXTENTS[self.pick(len(EXTENTS))], dtype=x.dtype), 1.0, index)
        else:
            self.add(
                self.b.iota(shape=x.shape, axis=self.pick(len(x.shape)), dtype=dtypes.int32),
                40.0 if max(x.shape) < 40 else 2.0**31,
            )

    def scatter(self) -> None:
        x = self.any(lambda v: len(v.shape) > 0 and not v.dtype.is_bool)
        found = [v for v in self.values if v.dtype.is_integer and v.shape == x.shape[:1]]
        if not found:
            raise Refused
        index = found[self.pick(len(found))]
        bound = max(x.bound * x.shape[0], 1.0) if x.dtype.is_float else 2.0**64
        self.add(self.b.scatter_add(index.tensor, x.tensor, rows=EXTENTS[self.pick(len(EXTENTS))]), bound, x, index)

    def pool(self) -> None:
        x = self.any(lambda v: v.dtype.is_float and len(v.shape) > 1 and min(v.shape[-2:]) > 1)
        window = (1 + self.pick(2), 1 + self.pick(3) if x.shape[-1] > 2 else 2)
        low = tuple(self.pick(n) for n in window)
        geometry: dict[str, Any] = {
            "window": window,
            "stride": (1 + self.pick(2), 1 + self.pick(2)),
            "padding": (low[0], 0, low[1], 0),
        }
        name = ("max_pool", "avg_pool", "max_pool_index")[self.pick(3)]
        if name == "avg_pool":
            self.add(
                self.b.avg_pool(x.tensor, **geometry, count_include_pad=bool(self.pick(2))), x.bound, x, rough=True
            )
        elif name == "max_pool":
            self.add(self.b.max_pool(x.tensor, **geometry, dilation=(1, 1)), x.bound, x)
        elif not x.rough and not x.special:
            self.add(self.b.max_pool_index(x.tensor, **geometry, dilation=(1, 1)), 6.0, x)

    def conv(self) -> None:
        x = self.any(lambda v: not v.dtype.is_bool and len(v.shape) == 4)
        found = [
            v
            for v in self.values
            if v.dtype == x.dtype
            and len(v.shape) == 4
            and v.shape[1] == x.shape[1]
            and 0 not in v.shape[1:]
            and all(a <= b + 1 for a, b in zip(v.shape[2:], x.shape[2:], strict=True))
        ]
        if not found:
            raise Refused
        w = found[self.pick(len(found))]
        bound = max(x.bound * w.bound * int(np.prod(w.shape[1:])), 1.0)
        stride = (1 + self.pick(2), 1 + self.pick(2))
        self.add(
            self.b.conv2d(x.tensor, w.tensor, stride=stride, padding=(1, 0, 0, 1), dilation=(1, 1), groups=1),
            bound if x.dtype.is_float else 2.0**64,
            x,
            w,
        )

    STEPS = (
        unary,
        binary,
        binary,
        binary,
        division,
        bits,
        compare,
        where,
        cast,
        cast,
        rough,
        reshape,
        reshape,
        permute,
        permute,
        broadcast,
        slice,
        flip,
        pad,
        concat,
        reduce,
        reduce,
        reduce,
        normalise,
        matmul,
        matmul,
        take,
        positions,
        scatter,
        pool,
        conv,
    )


def broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return len(small) <= len(large) and all(e in (1, f) for e, f in zip(reversed(small), reversed(large), strict=False))


def seeded(seed: int, steps: int | None = None) -> Program:
    """The program of a seed."""
    rng = random.Random(seed)
    return Program(rng.randrange, steps or rng.randrange(5, 61))
