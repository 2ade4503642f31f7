"""Feeds: what is fed becomes an array that fits, and the shapes of the arrays give the symbolic extents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.arrays import beyond, shown
from graphcore.base.errors import FeedError, GraphError, UsageError
from graphcore.base.shapes import Dim, bind, format_shape, symbols_of
from graphcore.ir.constraints import Constraint
from graphcore.ir.graph import Graph, rebuild
from graphcore.ir.leaves import Parameter, Placeholder, StateRead
from graphcore.ir.node import Node, Value, describe, make_node

__all__ = [
    "as_feed",
    "cast_feed",
    "check_feeds",
    "feed_points",
    "listed_inputs",
    "shape_of",
    "sizes_of",
    "split_feeds",
    "symbols_in",
]


def feed_points(graph: Graph, fed: tuple[Value, ...]) -> tuple[Graph, tuple[Value, ...]]:
    """The graph with every fed tensor replaced by a placeholder; ``inputs`` are those placeholders."""
    mapping = {}
    points = []
    for t in fed:
        if isinstance(t.node.op, Placeholder):
            points.append(t)
            continue
        point = make_node(Placeholder(t.shape, t.dtype, f"{t.name} (fed)"), (), t.node.origin).output()
        mapping[t] = point
        points.append(point)
    if mapping:
        graph = graph.with_roots(rebuild(graph, mapping))
    return Graph(graph.outputs, graph.updates, tuple(points)), tuple(fed)


def check_feeds(graph: Graph, fed: Sequence[Value]) -> None:
    """Raise unless the fed tensors can be fed and everything else that the graph needs has a value.

    Raises:
        FeedError: a variable or one tensor twice among the fed ones; a placeholder that is not.
        UsageError: a value of a region's body.
        GraphError: a variable got another element type after something was built on it.
    """
    seen = set()
    for t in fed:
        if isinstance(t.node.op, StateRead):
            raise FeedError(
                f"feed_dict: {t.name!r} is a variable; use sess.set_value(variable, array)\n  {describe(t)}"
            )
        if t in seen:
            raise FeedError(f"feed_dict: {t.name!r} is fed twice\n  {describe(t)}")
        seen.add(t)
    points = {t.node.serial for t in graph.inputs}
    for node in graph.nodes():
        if isinstance(node.op, StateRead) and node.types != node.op.infer():
            (built,), (now,) = node.types, node.op.infer()
            raise GraphError(
                f"variable {node.op.slot.name!r} was {built.dtype} when something was built on it, and is "
                f"{now.dtype}; change the type of a module before it is called\n"
                f"  the variable was made at {node.op.slot.place}"
            )
        if isinstance(node.op, Placeholder) and node.serial not in points:
            t = node.output()
            raise FeedError(
                f"placeholder {t.name!r} is not fed; pass it in the feed_dict, e.g. sess.run(..., {{{_word(t)}: "
                f"array}})\n  {describe(t)}"
            )
        if isinstance(node.op, Parameter):
            raise UsageError(
                f"{node} belongs to the body of a checkpoint, custom gradient or loop and cannot be fetched outside"
            )


def _word(t: Value) -> str:
    label = t.name.rsplit("/", 1)[-1]
    return label if label.isidentifier() else "x"


def split_feeds(feed_dict: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """What is fed, values or names, and what with.

    Raises:
        UsageError, FeedError: no mapping, or a key that is neither.
    """
    if not feed_dict:
        return (), []
    if not isinstance(feed_dict, Mapping):
        raise UsageError(
            f"feed_dict: expected a dict of tensor to array, got {type(feed_dict).__name__}; write {{x: array}}"
        )
    for key in feed_dict:
        if not isinstance(key, (Tensor, str)):
            raise FeedError(f"feed_dict: keys must be tensors or their names, got {type(key).__name__}")
    return tuple([key.value if isinstance(key, Tensor) else key for key in feed_dict]), list(feed_dict.values())


def listed_inputs(inputs: Any) -> tuple[Any, ...]:
    """The inputs of ``make_callable``, one or several, as values or names.

    Raises:
        UsageError: one that is neither a tensor nor a name.
    """
    given = [inputs] if isinstance(inputs, (Tensor, str)) else list(inputs)
    for t in given:
        if not isinstance(t, (Tensor, str)):
            raise UsageError(f"make_callable: inputs must be tensors, got {type(t).__name__}")
    return tuple([t.value if isinstance(t, Tensor) else t for t in given])


def shape_of(t: Value, value: Any) -> tuple[int, ...]:
    """A shape, or an array's shape."""
    if (
        isinstance(value, (tuple, list))
        and len(value) == t.ndim
        and all(isinstance(e, (int, np.integer)) for e in value)
    ):
        return tuple(int(e) for e in value)
    return tuple(np.shape(value))


def sizes_of(
    tensors: Sequence[Value],
    shapes: Sequence[tuple[int, ...]],
    needed: frozenset[str],
    constraints: Sequence[Constraint],
) -> dict[str, int]:
    """The values of the symbols, from the fed shapes.

    Args:
        tensors, shapes: what is fed, and the shapes of the arrays.
        needed: the symbols of the graph.
        constraints: equalities that must hold.

    Raises:
        FeedError: a shape that does not fit its tensor or another feed.
    """
    sizes: dict[str, int] = {}
    came_from: dict[str, Value] = {}
    for t, shape in zip(tensors, shapes, strict=True):
        if len(shape) != t.ndim:
            raise FeedError(
                f"the feed for {t.name!r} has rank {len(shape)}, shape {format_shape(shape)}; it must have rank "
                f"{t.ndim}: {format_shape(t.shape)}\n  {describe(t)}"
            )
        for axis, (want, have) in enumerate(zip(t.shape, shape, strict=True)):
            if isinstance(want, Dim) and want.is_symbol:
                (symbol,) = want.symbols()
                known = sizes.setdefault(symbol, int(have))
                if known != have:
                    raise FeedError(
                        f"{want} is {known} in the feed for {came_from[symbol].name!r}, but {have} at axis {axis} of "
                        f"the feed for {t.name!r}\n"
                        f"  {describe(came_from[symbol])}\n  {describe(t)}"
                    )
                came_from.setdefault(symbol, t)
    for t, shape in zip(tensors, shapes, strict=True):
        for axis, (want, have) in enumerate(zip(t.shape, shape, strict=True)):
            if bind(want, sizes) != have:
                raise FeedError(
                    f"the feed for {t.name!r} has the shape {format_shape(shape)}, but axis {axis} must be "
                    f"{bind(want, sizes)}, not {have}: {format_shape(t.shape)}\n  {describe(t)}"
                )
    missing = needed - sizes.keys()
    if missing:
        raise FeedError(
            f"the extents {', '.join(sorted(missing))} are not known from the feeds; feed a tensor that has them in "
            f"its shape"
        )
    for constraint in constraints:
        constraint.check(sizes, came_from)
    return sizes


def symbols_in(nodes: Sequence[Node]) -> frozenset[str]:
    """The symbols in the types of nodes."""
    return symbols_of(e for n in nodes for kind in n.types for e in kind.shape)


def as_feed(value: Any, t: Value) -> Any:
    """A fed value as an array.

    Raises:
        FeedError: a tensor, a ragged list, a number that does not fit, or something that is no array.
    """
    if isinstance(value, Tensor):
        raise FeedError(
            f"the feed for {t.name!r} is itself a symbolic tensor; feed an array, or build the graph on that tensor"
            f"\n  the feed is {describe(value)}\n  {describe(t)}"
        )
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise FeedError(f"the feed for {t.name!r} is no array: {error}\n  {describe(t)}") from None
    if array.dtype == object and array.size and all(isinstance(v, int) for v in array.flat):
        _check_range(array, t)  # Python integers beyond int64
    if array.dtype == object or (array.dtype.kind in "USV" and array.dtype != dtypes.bfloat16.storage):
        shown = f"{value!r:.60}" if array.ndim == 0 else f"an array of {array.dtype}"
        raise FeedError(f"the feed for {t.name!r} is {shown}, which holds no numbers\n  {describe(t)}")
    if not hasattr(value, "dtype") and array.dtype.kind in "fi" and _weak_fits(array, t):
        _check_range(array, t)
        return array.astype(t.dtype.storage)
    return array


def _weak_fits(array: Any, t: Value) -> bool:
    """Python numbers take the tensor's type where the kind fits; an empty list has no kind."""
    return (
        array.size == 0
        or (array.dtype.kind == "f" and t.dtype.is_float)
        or (array.dtype.kind == "i" and (t.dtype.is_float or t.dtype.is_integer))
    )


def _check_range(array: Any, t: Value) -> None:
    wrong = beyond(array, t.dtype.storage)
    if wrong is not None:
        info = np.iinfo(t.dtype.storage)
        raise FeedError(
            f"the feed for {t.name!r} holds {shown(wrong)}, which {t.dtype} cannot: it goes from {info.min} to "
            f"{info.max}\n  {describe(t)}"
        )


def cast_feed(t: Value, array: Any) -> Any:
    """The array, if its type converts to the tensor's within its kind, and what it holds fits.

    Raises:
        FeedError: it does not, as a float for an integer.
    """
    storage, half = t.dtype.storage, dtypes.bfloat16.storage
    if array.dtype.kind in "biuf" and np.can_cast(array.dtype, storage, "same_kind"):
        _check_range(array, t)
        return array
    if array.dtype == half and t.dtype.is_float:
        return array.astype(storage)
    if array.dtype.kind not in "biufc" and array.dtype != half:
        raise FeedError(
            f"the feed for {t.name!r} is an array of {array.dtype}, which holds no numbers\n  {describe(t)}"
        )
    raise FeedError(
        f"the feed for {t.name!r} has dtype {array.dtype}, which does not convert to {t.dtype} without losing what "
        f"it means; "
        f"convert it with array.astype({t.dtype.name!r})\n  {describe(t)}"
    )
