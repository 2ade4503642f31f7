"""What tests of the front end need: tensors evaluated with the ops' NumPy references, without a session; what errors
say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable, placeholder, variable_of
from graphcore.base.shapes import Dim, bind
from graphcore.base.source import Origin
from graphcore.ir.graph import collect, toposort
from graphcore.ir.node import Node, Value, make_node
from graphcore.ir.op import Op
from graphcore.ir.state import StateSlot

__all__ = ["as_value", "computed", "evaluate", "message_of", "node_of", "numeric_gradient", "ph", "value_of"]


def message_of(error: type[Exception], call: Callable[[], Any]) -> str:
    """The text of the error that a call must raise."""
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def ph(*shape: Any, dtype: str = "float64", name: str | None = None) -> Tensor:
    """A placeholder; in float64 by default, for differences. Errors place it here, not in the test."""
    return placeholder(dtype, shape, name)


def computed(indices: Tensor) -> Tensor:
    """The same indices as a result: whether they are in range is then for the op to judge, not for the check of
    feeds."""
    return indices + 0


def value_of(variable: Variable) -> Any:
    """The initial value of a variable, with draws from a generator seeded with 0."""
    initial = variable.initial
    if isinstance(initial, Tensor):
        return evaluate([initial])[0]
    return np.asarray(initial.sample(np.random.default_rng(0)) if hasattr(initial, "sample") else initial)


def evaluate(
    tensors: Sequence[Tensor],
    feeds: Mapping[Tensor, Any] | None = None,
    variables: Mapping[Variable, Any] | None = None,
) -> list[Any]:
    """The values of tensors by NumPy.

    Args:
        tensors: what to compute.
        feeds: arrays for placeholders or any other tensor.
        variables: values other than the initial ones.

    Returns:
        One array per tensor. Every result's shape and type is checked against what inference said.
    """
    values: dict[Value, Any] = {}
    sizes: dict[str, int] = {}
    for t, a in (feeds or {}).items():
        array = np.asarray(a).astype(t.dtype.storage)
        assert array.ndim == t.ndim, f"{t} is fed an array of shape {array.shape}"
        for extent, size in zip(t.shape, array.shape, strict=True):
            if isinstance(extent, Dim) and extent.is_symbol:
                assert sizes.setdefault(repr(extent), size) == size, (
                    f"{extent} is fed as {sizes[repr(extent)]} and {size}"
                )
        values[as_value(t)] = array
    given = {v.slot: np.asarray(a) for v, a in (variables or {}).items()}
    tensors = collect(list(map(as_value, tensors)), (), map(as_value, feeds or ())).outputs
    fed = {value.node for value in values}
    for node in toposort(tensors, lambda n: n in fed):
        if node not in fed:
            for i, result in enumerate(_results(node, values, sizes, given)):
                expected = tuple(bind(e, sizes) for e in node.types[i].shape)
                assert result.shape == expected, f"{node}: the reference gave {result.shape}, inference says {expected}"
                assert result.dtype == node.types[i].dtype.storage, (
                    f"{node}: the reference gave {result.dtype}, inference says {node.types[i]}"
                )
                values[Value(node, i)] = result
    return [values[as_value(t)] for t in tensors]


def as_value(t: Any) -> Value:
    """A value itself, or that of a tensor."""
    value: Value = t if isinstance(t, Value) else t.value
    return value


def node_of(op: Op, operands: Iterable[Any], *origin: Origin, **marks: Any) -> Node:
    """A node over values or tensors, with marks as ``make_node`` takes them."""
    return make_node(op, tuple(map(as_value, operands)), *origin, **marks)


def _results(
    node: Node, values: Mapping[Value, Any], sizes: Mapping[str, int], given: Mapping[StateSlot, Any]
) -> list[Any]:
    op: Any = node.op
    if op.name == "variable":
        value = given[op.slot] if op.slot in given else value_of(variable_of(op.slot))
        return [np.asarray(value).astype(op.slot.dtype.storage)]
    if op.name == "constant":
        return [op.array]
    operands = [values[as_value(t)] for t in node.inputs]
    if hasattr(op, "bodies"):
        body = op.bodies[0]
        return evaluate(list(body.outputs), dict(zip(body.inputs, operands, strict=True)))
    found = _bound(op, sizes).reference(*operands)
    return [np.asarray(f) for f in (found if isinstance(found, tuple) else (found,))]


def _bound(op: Op, sizes: Mapping[str, int]) -> Op:
    """The op with symbolic extents among its attributes replaced."""

    def known(value: Any) -> Any:
        if isinstance(value, Dim):
            return value.bind(sizes)
        return tuple(known(v) for v in value) if isinstance(value, tuple) else value

    attributes = op.attributes()
    changed = {k: known(v) for k, v in attributes.items() if known(v) is not v and isinstance(v, (Dim, tuple))}
    return dataclasses.replace(op, **changed) if changed else op


def numeric_gradient(
    loss: Tensor, x: Tensor, at: Any, feeds: Mapping[Tensor, Any] | None = None, eps: float = 1e-6
) -> Any:
    """The gradient of a scalar for a placeholder by central differences (build in float64)."""
    at = np.asarray(at, np.float64)
    result = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        shifted = [at.copy(), at.copy()]
        shifted[0][i] += eps
        shifted[1][i] -= eps
        high, low = (evaluate([loss], {**(feeds or {}), x: a})[0] for a in shifted)
        result[i] = (high - low) / (2 * eps)
    return result
