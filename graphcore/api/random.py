"""Random tensors: new draws every run, the same seed the same draws.

Bits come from a counter (seed, step, stream, element): the seed and the step are two hidden variables that a session
keeps, the step advances by one in every run that draws, and every random tensor of a run has a stream of its own.
Streams are numbered when the graph of a run is collected, per name scope and in the order of building: the same fetches
draw the same, whatever else was built, and what is in one scope does not change the draws of another.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from graphcore.api import operands as coercion
from graphcore.api.agreement import taken
from graphcore.api.elementwise import add, log, minimum, multiply, negative, subtract
from graphcore.api.initializers import generator
from graphcore.api.logic import clip, less
from graphcore.api.operands import align, build, cast, fail, tensor
from graphcore.api.reductions import argmax
from graphcore.api.reductions import sum as total
from graphcore.api.special import erfinv
from graphcore.api.tensor import Tensor, node_over, result, wrap
from graphcore.api.variable import Variable, placeholder
from graphcore.base import dtypes, source
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.shapes import Dim, Shape, agree, as_shape, format_shape
from graphcore.base.signposts import missing
from graphcore.ir.graph import Graph, rebuild, toposort
from graphcore.ir.node import Node, device
from graphcore.ir.op import Draw, lookup

# fmt: off
__all__ = [
    "bernoulli",
    "bits",
    "categorical",
    "default_seed",
    "exponential",
    "gumbel",
    "normal",
    "permutation",
    "rand",
    "randint",
    "randn",
    "seed",
    "state",
    "truncated_normal",
    "uniform",
]
# fmt: on


_P = ParamSpec("_P")


@dataclass
class _Shared:
    """What all draws of the process have in common: the seed last set, the hidden variables, and how many initial
    values were drawn without a session since then, by key."""

    seed: int = 0
    state: tuple[Variable, Variable, Tensor] | None = None
    drawn: dict[str, int] = field(default_factory=dict)


_shared = _Shared()
_lock = threading.RLock()
_draws = itertools.count()


def _words(value: int) -> Any:
    return np.array([value & 0xFFFFFFFF, (value >> 32) & 0xFFFFFFFF], np.uint32)


def seed(value: int) -> None:
    """Set the seed: any integer, its low 64 bits count.

    Sessions take it as their initial state, and NumPy draws of initial values start from it. Without a call it is 0.

    >>> seed(42)
    """
    try:
        number = int(value.__index__())
    except (AttributeError, TypeError):
        raise UsageError(f"random.seed: {value!r} is no integer") from None
    with _lock:
        _shared.seed = number & 0xFFFFFFFFFFFFFFFF
        _shared.drawn.clear()
        if _shared.state is not None:
            _shared.state[0].set_initial(_words(_shared.seed))


def default_seed() -> int:
    """The seed last set (0 if none was)."""
    return _shared.seed


def state() -> tuple[Variable, Variable, Tensor]:
    """The hidden variables: the seed (uint32[2]) and the step (uint32[]), and the step's next value."""
    with _lock:
        if _shared.state is None:
            with source.reset_scopes(()), device(None):
                key = Variable(_words(_shared.seed), trainable=False, name="random/seed")
                step = Variable(np.uint32(0), trainable=False, name="random/step")
                _shared.state = key, step, build("add", step.read(), coercion.scalar("random", 1, dtypes.uint32))
        return _shared.state


def is_seed(variable: Variable) -> bool:
    """Whether a variable is the hidden seed, which every session starts with its own."""
    return _shared.state is not None and variable is _shared.state[0]


def is_state(variable: Variable) -> bool:
    """Whether a variable is one of the hidden ones of draws."""
    return _shared.state is not None and any(variable is v for v in _shared.state[:2])


def rekeyed(x: Tensor, words: Any) -> tuple[Tensor, dict[Tensor, Any]]:
    """A tensor with draws from a seed of its own, at step 0, as an initial value is: they neither depend on a session's
    step nor advance it.

    Args:
        x: any tensor; one without draws stays as it is.
        words: the seed, uint32[2].

    Returns:
        The tensor, and what to feed for it.
    """
    draws = [node for node in toposort([x.value]) if node.op.draw is not None]
    if not draws:
        return x, {}
    key, step = placeholder("uint32", (2,), "seed"), placeholder("uint32", (), "step")
    fresh = (key.value, step.value)
    copies = [Node(n.op, fresh, n.types, n.origin, detached=n.detached, device=n.device) for n in draws]
    mapping = {n.output(): copy.output() for n, copy in zip(draws, copies, strict=True)}
    return wrap(rebuild(Graph((x.value,)), mapping)[0]), {key: words, step: np.uint32(0)}


def own_generator(variable: Variable) -> np.random.Generator:
    """The generator of an initial value that no session draws: that of the next variable with its key in a session
    which takes the seed last set."""
    with _lock:
        rank = _shared.drawn.get(variable.draw_key, 0)
        _shared.drawn[variable.draw_key] = rank + 1
        return generator(_shared.seed, variable.draw_key, rank)


def _shape(op: str, shape: Any) -> Shape:
    for e in shape if isinstance(shape, (tuple, list)) else (shape,):
        if e is None:
            raise ShapeError(
                f"random.{op}: None in the shape {shape!r}; use x.shape[0] of a placeholder for a symbolic extent"
            )
        if isinstance(e, (float, str, Tensor)):
            raise ShapeError(
                f"random.{op}: {e!r} in the shape is no extent; the order of arguments is in help(gc.random.{op})"
            )
    return as_shape(shape)


def _shape_first(function: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """A function of a shape and parameters that refuses them in the order of NumPy, the shape last, where it would
    take one for the other."""

    @functools.wraps(function)
    def checked(*args: _P.args, **options: _P.kwargs) -> Tensor:
        first, *others = args or ((),)
        count = isinstance(first, (int, np.integer)) and not isinstance(first, bool)
        shaped = isinstance(first, (tuple, list, Dim)) or (count and not others)
        if not shaped or any(isinstance(v, tuple) for v in others):
            name = function.__name__
            names = list(inspect.signature(function).parameters)
            example = ", ".join(names[1 : 1 + max(len(others), 1)])
            raise ShapeError(
                f"random.{name}: the shape comes first: gc.random.{name}((3, 4), {example}), or by name, shape=..."
            )
        return function(*args, **options)

    return checked


def _parameter(op: str, value: Any, dtype: DType) -> Any:
    """A number or a tensor as it is, an array as a constant of a floating type: it does not change that of the
    result."""
    if isinstance(value, (Tensor, float)):
        return value
    if isinstance(value, int):
        coercion.scalar(f"random.{op}", value, dtype)  # which raises where it is beyond all floats
        return value
    given = tensor(f"random.{op}", value)
    return tensor(f"random.{op}", value, dtype) if given.dtype.is_float else given


def bits(shape: Any) -> Tensor:
    """Uniform 32-bit words, uint32, new ones every run.

    >>> bits((3,)).dtype
    uint32
    """
    extents = _shape("bits", shape)
    key, step, following = state()
    random_bits: Any = lookup("random_bits")
    op = random_bits(stream=Draw(source.current_scope(), next(_draws)), shape=extents)
    return result(node_over(op, (key, step), updates=((step, following),)))


def _float_type(op: str, dtype: Any) -> DType:
    found = dtypes.as_dtype(dtype)
    if not found.is_float:
        raise DTypeError(
            f"random.{op}: the dtype is {found}, but must be a floating type"
            + ("; use randint" if found.is_integer else "")
        )
    return found


def _fraction(shape: Shape, dtype: DType, centred: bool = False) -> Tensor:
    """Numbers in [0, 1), evenly spaced as finely as the type has them all; ``centred`` ones lie in (0, 1), symmetric
    around 1/2."""
    half = 0.5 if centred else 0.0
    if dtype == dtypes.float64:
        high = cast(build("bitwise_right_shift", *_with(bits(shape), 6)), dtype)
        low = cast(build("bitwise_right_shift", *_with(bits(shape), 6)), dtype)
        whole = add(multiply(high, 2.0**26), low)
        return multiply(add(whole, half) if centred else whole, 2.0**-52)
    keep = {dtypes.float16: 11, dtypes.bfloat16: 8}.get(dtype, 24) - centred
    words = cast(build("bitwise_right_shift", *_with(bits(shape), 32 - keep)), dtypes.float32)
    return multiply(add(words, half) if centred else words, 2.0**-keep)


def _with(x: Tensor, number: int) -> list[Tensor]:
    return align("random", x, coercion.scalar("random", number, x.dtype))


@_shape_first
def uniform(shape: Any = (), low: Any = 0.0, high: Any = 1.0, dtype: Any = "float32") -> Tensor:
    """Numbers evenly from ``low`` up to but without ``high`` (numbers, or tensors that broadcast to ``shape``).

    >>> uniform((2, 3), -1.0, 1.0).shape
    (2, 3)
    """
    extents, wanted = _shape("uniform", shape), _float_type("uniform", dtype)
    u = _fraction(extents, wanted)
    low, high = (_parameter("uniform", v, u.dtype) for v in (low, high))
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        if not low < high and low != high:
            raise UsageError(f"random.uniform: low {low} is above high {high}")
        if (low, high) == (0, 1):
            return cast(u, wanted)
        scaled = cast(add(multiply(u, float(high) - float(low)), float(low)), wanted)
        below = _largest_below(float(high), wanted)
        return minimum(scaled, below) if low != high else scaled
    return cast(_fitted("uniform", add(multiply(u, subtract(high, low)), low), extents), wanted)


def _largest_below(value: float, dtype: DType) -> float:
    """The largest number of a type below a number: rounding must not reach the open end."""
    stored = dtype.storage.type
    nearest = stored(value)
    return float(nearest if float(nearest) < value else np.nextafter(nearest, stored(-np.inf)))


def _fitted(op: str, x: Tensor, shape: Shape) -> Tensor:
    if not agree(x.shape, shape):
        raise fail(
            ShapeError,
            f"random.{op}: the parameters broadcast to {format_shape(x.shape)}, not to the shape "
            f"{format_shape(shape)}; the argument for it is shape=...",
            x,
        )
    return taken(x, shape, f"random.{op}")


def _standard_normal(shape: Shape, dtype: DType) -> Tensor:
    """By the inverse distribution function: one draw gives one number, monotonic in the bits."""
    u = _fraction(shape, dtypes.float64 if dtype == dtypes.float64 else dtypes.float32, centred=True)
    return multiply(erfinv(subtract(multiply(u, 2.0), 1.0)), math.sqrt(2.0))


@_shape_first
def normal(shape: Any = (), mean: Any = 0.0, std: Any = 1.0, dtype: Any = "float32") -> Tensor:
    """Normal numbers of a mean and standard deviation (numbers, or tensors that broadcast to ``shape``).

    >>> normal((2, 3), std=0.1).shape
    (2, 3)
    """
    extents, wanted = _shape("normal", shape), _float_type("normal", dtype)
    z = _standard_normal(extents, wanted)
    mean, std = (_parameter("normal", v, z.dtype) for v in (mean, std))
    if not (isinstance(std, (int, float)) and std == 1):
        z = multiply(z, std)
    if not (isinstance(mean, (int, float)) and mean == 0):
        z = add(z, mean)
    return cast(_fitted("normal", z, extents), wanted)


@_shape_first
def truncated_normal(
    shape: Any = (),
    mean: Any = 0.0,
    std: Any = 1.0,
    dtype: Any = "float32",
    lower: float = -2.0,
    upper: float = 2.0,
) -> Tensor:
    """Normal numbers between ``mean + lower * std`` and ``mean + upper * std``.

    >>> truncated_normal((2, 3), std=0.02).shape
    (2, 3)
    """
    extents, wanted = _shape("truncated_normal", shape), _float_type("truncated_normal", dtype)
    if not lower < upper:
        raise UsageError(f"random.truncated_normal: lower {lower} must be below upper {upper}")
    a, b = math.erf(lower / math.sqrt(2.0)), math.erf(upper / math.sqrt(2.0))
    u = _fraction(extents, dtypes.float64 if wanted == dtypes.float64 else dtypes.float32, centred=True)
    z = multiply(erfinv(add(multiply(u, b - a), a)), math.sqrt(2.0))
    mean, std = (_parameter("truncated_normal", v, z.dtype) for v in (mean, std))
    return cast(_fitted("truncated_normal", add(multiply(clip(z, lower, upper), std), mean), extents), wanted)


def bernoulli(shape: Any = None, p: Any = None, dtype: Any = "bool") -> Tensor:
    """True (or 1, of ``dtype``) with probability ``p``: a number (1/2 by default), or a tensor, whose shape is then the
    default.

    ``bernoulli(0.3, (2, 3))`` and ``bernoulli(p)`` are understood, too: only a tuple is a shape.

    >>> bernoulli((2, 3), 0.3).dtype
    bool
    """
    if isinstance(p, tuple) or (p is None and shape is not None and not isinstance(shape, tuple)):
        shape, p = p, shape
    p = 0.5 if p is None else p
    chance = p if isinstance(p, (int, float)) else tensor("random.bernoulli", p)
    extents = _shape("bernoulli", (chance.shape if isinstance(chance, Tensor) else ()) if shape is None else shape)
    if isinstance(chance, Tensor):
        hit = less(_fraction(extents, dtypes.float32), chance)
        return cast(_fitted("bernoulli", hit, extents), dtypes.as_dtype(dtype))
    if not 0 <= chance <= 1:
        raise UsageError(f"random.bernoulli: p is {chance}, but must be between 0 and 1")
    threshold = round(chance * 2**32)
    drawn = bits(extents)
    hit = coercion.full(extents, True, dtypes.bool_) if threshold == 2**32 else less(drawn, threshold)
    return cast(hit, dtypes.as_dtype(dtype))


def randint(low: Any, high: Any = None, shape: Any = (), dtype: Any = "int64") -> Tensor:
    """Integers from ``low`` up to but without ``high`` (from 0 to ``low``, if only one is given).

    The order is NumPy's and PyTorch's; as with the other functions a tuple may come first: ``randint((2, 3), 0, 10)``.
    The range may hold up to 2 ** 32 integers; probabilities are equal up to 2 ** -32 of each other.

    >>> randint(0, 10, (2, 3)).dtype
    int64
    """
    if isinstance(low, (tuple, list)):
        low, high, shape = (high, shape, low) if shape != () else (high, None, low)
    if high is None:
        low, high = 0, low
    if not isinstance(low, (int, np.integer)) or not isinstance(high, (int, np.integer)):
        raise UsageError(f"random.randint: low {low!r} and high {high!r} must be integers")
    span, wanted = int(high) - int(low), dtypes.as_dtype(dtype)
    if not 0 < span <= 2**32:
        raise UsageError(f"random.randint: high {high} must be above low {low}, by at most 2**32")
    if not wanted.is_integer:
        raise DTypeError(f"random.randint: the dtype is {wanted}, but must be an integer type")
    info = np.iinfo(wanted.storage)
    if low < info.min or high - 1 > info.max:
        raise DTypeError(f"random.randint: {low} to {high - 1} does not fit {wanted} ({info.min} to {info.max})")
    product = multiply(cast(bits(_shape("randint", shape)), dtypes.uint64), span)
    drawn = cast(build("bitwise_right_shift", *_with(product, 32)), dtypes.int64)
    return cast(add(drawn, int(low)) if low else drawn, wanted)


def gumbel(shape: Any = (), dtype: Any = "float32") -> Tensor:
    """Standard Gumbel numbers, -log(-log(u)).

    >>> gumbel((3,)).shape
    (3,)
    """
    extents, wanted = _shape("gumbel", shape), _float_type("gumbel", dtype)
    u = _fraction(extents, dtypes.float64 if wanted == dtypes.float64 else dtypes.float32, centred=True)
    return cast(negative(log(negative(log(u)))), wanted)


@_shape_first
def exponential(shape: Any = (), scale: Any = 1.0, dtype: Any = "float32") -> Tensor:
    """Exponential numbers of mean ``scale`` (a number, or a tensor that broadcasts to ``shape``).

    >>> exponential((3,), 2.0).shape
    (3,)
    """
    extents, wanted = _shape("exponential", shape), _float_type("exponential", dtype)
    u = _fraction(extents, dtypes.float64 if wanted == dtypes.float64 else dtypes.float32, centred=True)
    scale = _parameter("exponential", scale, u.dtype)
    return cast(_fitted("exponential", multiply(negative(log(u)), scale), extents), wanted)


def categorical(logits: Any, axis: int = -1) -> Tensor:
    """Class numbers, int64, drawn along an axis with probabilities softmax(logits).

    >>> categorical([[0.0, 1.0]]).shape
    (1,)
    """
    t = tensor("random.categorical", logits)
    noise = gumbel(t.shape, t.dtype if t.dtype == dtypes.float64 else "float32")
    return argmax(add(t, noise), axis)


def permutation(x: Any) -> Tensor:
    """A random order: of 0 .. n - 1 (int64) for an integer n, else of the slices of a tensor along its first axis.

    Positions are ranks of random words, found by comparing all pairs: n * n comparisons.

    >>> permutation(5).shape
    (5,)
    """
    values = x if isinstance(x, Tensor) or np.ndim(x) else None
    if values is None and (isinstance(x, bool) or not isinstance(x, (int, np.integer)) or x < 0):
        raise UsageError(f"random.permutation: {x!r} is neither a length nor a tensor")
    data = None if values is None else tensor("random.permutation", values)
    if data is not None and (data.ndim == 0 or isinstance(data.shape[0], Dim)):
        raise fail(ShapeError, "random.permutation: needs a first axis of fixed extent", data)
    n = int(x) if data is None else int(data.shape[0])
    order = _ranks(n)
    return order if data is None else build("take", data, order, axis=0)


def _ranks(n: int) -> Tensor:
    words = bits((n,))
    mine, other = (coercion.fit(build("reshape", words, shape=s), (n, n)) for s in ((n, 1), (1, n)))
    i, j = (build("iota", shape=(n, n), axis=a, dtype=dtypes.position_dtype(n)) for a in (0, 1))
    earlier = build(
        "logical_or", build("less", other, mine), build("logical_and", build("equal", other, mine), build("less", j, i))
    )
    return total(earlier, 1)


def rand(*shape: Any, dtype: Any = "float32") -> Tensor:
    """Uniform numbers in [0, 1): ``rand(2, 3)``.

    >>> rand(2, 3).shape
    (2, 3)
    """
    return uniform(shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape, dtype=dtype)


def randn(*shape: Any, dtype: Any = "float32") -> Tensor:
    """Standard normal numbers: ``randn(2, 3)``.

    >>> randn(2, 3).shape
    (2, 3)
    """
    return normal(shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape, dtype=dtype)


if not TYPE_CHECKING:  # a checker that saw this would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        raise missing("random", name)
