"""Derivatives: ``gradients`` and what is built on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np

from graphcore.api.agreement import taken
from graphcore.api.tensor import Builder, Tensor, known_tensor, node_over, result, value_of, wrap
from graphcore.api.variable import Variable, as_tensor, read_variables
from graphcore.base import source
from graphcore.base.errors import DTypeError, GradientError, ShapeError, UsageError
from graphcore.base.garbage import collector_paused
from graphcore.base.notices import warn_of_building
from graphcore.base.shapes import agree
from graphcore.ir.graph import Graph, carry_updates, close_over, side_updates, toposort
from graphcore.ir.leaves import Parameter
from graphcore.ir.node import Node, Value, describe, make_node
from graphcore.ir.op import Op
from graphcore.ir.state import StateSlot
from graphcore.ops.region import Checkpoint, CustomGradient
from passes.graph.transforms.differentiate import differentiate

__all__ = [
    "backward",
    "checkpoint",
    "custom_gradient",
    "gradients",
    "hvp",
    "jvp",
    "retain_grad",
    "stop_gradient",
    "vjp",
]

_GRAD: Any = vars(Tensor)["grad"]  # the slot itself: asking the tensor would make an error for each that holds none


def _listed(value: Any) -> list[Any]:
    """A single value in a list; lists, tuples and other iterables but tensors and arrays as lists."""
    single = isinstance(value, (Tensor, np.ndarray, Mapping, str)) or not isinstance(value, Iterable)
    return [value] if single else list(value)


def gradients(
    ys: Any, xs: Any, grad_ys: Any = None, stop_gradients: Any = None, unconnected: str = "none"
) -> list[Any]:
    """Symbolic gradients of ``sum(ys)`` with respect to ``xs``.

    Args:
        ys: a tensor or a list of them, of floating types. One that is not a scalar needs its ``grad_ys``.
        xs: a tensor or variable, or a list (or other iterable) of them, of floating types.
        grad_ys: cotangents, one for each of ``ys``, of the same shapes; None entries mean one for a scalar.
        stop_gradients: tensors that gradients do not pass through.
        unconnected: what stands for the gradient of an x that ``ys`` do not depend on: ``"none"`` (None), ``"zero"`` or
            ``"raise"``.

    Returns:
        Always a list, one entry for each of ``xs``, also where that is a single tensor. Gradients are ordinary tensors
        of the shapes and types of ``xs``: differentiate them again.

    Raises:
        GradientError: a non-scalar y without grad_ys, a non-differentiable op on the path, or an unconnected x with
            ``"raise"``.

    >>> w = Variable(3.0)
    >>> (g,) = gradients(w * w, w)
    >>> g.shape
    ()
    """
    if unconnected not in ("none", "zero", "raise"):
        raise UsageError(f"gradients: unconnected is {unconnected!r}; use 'none', 'zero' or 'raise'")
    outputs = [_checked(y, "ys") for y in _listed(ys)]
    targets = [_checked(x, "xs") for x in _listed(xs)]
    given = _cotangents(ys, outputs, grad_ys)
    seeds = [_seed(y, g) for y, g in zip(outputs, given, strict=True)]
    stops = _listed(stop_gradients) if stop_gradients is not None else []
    for t in stops:
        if not isinstance(t, Tensor):
            raise UsageError(f"gradients: stop_gradients must be tensors, got {type(t).__name__}")
    derived = differentiate(*([t.value for t in ts] for ts in (outputs, targets, seeds, stops)))
    found = [None if g is None else wrap(g) for g in derived]
    for i, (x, g) in enumerate(zip(targets, found, strict=True)):
        if g is None and unconnected == "raise":
            raise GradientError(
                f"gradients: the ys do not depend on xs[{i}], {describe(x)}; pass unconnected='zero' for zeros"
            )
        if g is None and unconnected == "zero":
            found[i] = Builder().zeros_like(x)
    with collector_paused():
        return _carrying(found, outputs)


def _carrying(found: Sequence[Tensor | None], ys: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients, with which a run performs the side updates of what they are gradients of."""
    values = [y.value for y in ys]
    moving = tuple((None, y) for y in values) if side_updates(values) else ()
    return [None if g is None else wrap(carry_updates(g.value, moving)) for g in found]


def _cotangents(ys: Any, outputs: Sequence[Tensor], grad_ys: Any) -> list[Any]:
    """One cotangent, or None, for each output. For a single ``ys`` a list is an array, unless it holds one tensor."""
    if grad_ys is None:
        return [None] * len(outputs)
    single = isinstance(ys, Tensor) and not (isinstance(grad_ys, (list, tuple)) and len(grad_ys) == 1)
    given = [grad_ys] if single else _listed(grad_ys)
    if len(given) != len(outputs):
        raise UsageError(f"gradients: {len(outputs)} ys but {len(given)} grad_ys")
    return given


def _checked(value: Any, role: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise UsageError(f"gradients: {role} must be tensors, got {type(value).__name__}")
    if not value.dtype.is_float:
        raise GradientError(
            f"gradients: {role} must be of floating types, {describe(value)} is {value.dtype}; cast it with "
            f".astype('float32')"
        )
    return value


def _seed(y: Tensor, given: Any) -> Tensor:
    if given is None:
        if y.shape != ():
            raise GradientError(
                f"gradients: y has the shape {y.shape} and no grad_ys; reduce it to a scalar first, e.g. y.sum() or "
                f"y.mean(), or pass grad_ys\n"
                f"  y is {describe(y)}"
            )
        return Builder().full((), 1, y.dtype)
    seed = as_tensor(given, y.dtype)
    if not agree(seed.shape, y.shape):
        raise ShapeError(f"gradients: grad_ys has the shape {seed.shape}, its y {y.shape}\n  y is {describe(y)}")
    if seed.dtype != y.dtype:
        raise DTypeError(f"gradients: grad_ys is {seed.dtype}, its y {y.dtype}\n  y is {describe(y)}")
    return taken(seed, y.shape, "gradients", y)


def backward(loss: Tensor, inputs: Any = None, gradient: Any = None) -> None:
    """Add the symbolic gradient of ``loss`` to the ``.grad`` of what it depends on.

    That happens now, while building: ``.grad`` is an ordinary tensor, whose value a run gives. A run that computes it
    performs the side updates of the loss, those of batch normalisations, too.

    Args:
        loss: a scalar; another tensor needs its ``gradient``.
        inputs: whose ``.grad`` to add to; by default every trainable variable that the loss depends on, and every
            tensor there that was asked for with ``retain_grad()``.
        gradient: the loss's own gradient, of its shape.

    Raises:
        GradientError: the loss is no scalar and has no gradient, or nothing that it depends on is trainable.

    >>> w = Variable(3.0)
    >>> backward(w * w)
    >>> w.grad.shape
    ()
    """
    nodes = toposort([_checked(loss, "ys").value])
    if inputs is None:
        targets: list[Tensor] = [v for v in read_variables(nodes) if v.trainable]
        targets += [t for t in _tensors(loss, nodes) if _retained(t) and not isinstance(t, Variable)]
        if not targets:
            frozen = ", ".join(repr(v.name) for v in read_variables(nodes)[:5])
            raise GradientError(
                f"backward: {describe(loss)}, depends on no trainable variable"
                + (f" (only on {frozen}, which are not trainable)" if frozen else "")
            )
    else:
        targets = _listed(inputs)
    warn_of_building("backward()", targets[0].node.serial if targets else -1)
    for t, g in zip(targets, gradients(loss, targets, None if gradient is None else [gradient]), strict=True):
        if g is not None:
            before = t.grad if _retained(t) else None
            t.grad = g if before is None else Builder().add(before, g)


def retain_grad(x: Tensor) -> None:
    """Ask ``backward`` to leave the gradient of ``x``, which is no variable, in ``x.grad``; None until then."""
    if not _retained(x):
        x.grad = None


def _tensors(loss: Tensor, nodes: Sequence[Node]) -> list[Tensor]:
    """The tensors that a loss is computed from and that anybody holds, each once; and the loss."""
    operands = dict.fromkeys(t for node in nodes for t in node.inputs)
    return [t for t in map(known_tensor, (*operands, loss.value)) if t is not None]


def _retained(t: Tensor) -> bool:
    """Whether a tensor object holds a gradient, or the place for one."""
    try:
        _GRAD.__get__(wrap(t.value))
    except AttributeError:
        return False
    return True


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., list[Any]]]:
    """``f(*primals)`` and a function from its cotangent to the primals' cotangents.

    Args:
        f: from tensors to a tensor, or a list or tuple of them, of floating types.
        primals: tensors or arrays.

    Returns:
        What ``f`` gives, and a function of one cotangent for each of its results (one by one, or in one list); that
        always gives a list, one entry for each primal.

    >>> y, back = vjp(lambda x: x * x, Variable(3.0))
    >>> (g,) = back(1.0)
    """
    inputs = [as_tensor(p) for p in primals]
    y = f(*inputs)

    def back(*cotangents: Any) -> list[Any]:
        together = isinstance(y, (list, tuple)) and len(cotangents) == 1 and isinstance(cotangents[0], (list, tuple))
        return gradients(_listed(y), inputs, list(cotangents[0] if together else cotangents), unconnected="zero")

    return y, back


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """``f(*primals)`` and its directional derivative along ``tangents``.

    By two reverse sweeps: with ``g(u) = J^T u`` linear in ``u``, ``J v`` is the gradient of ``<g(u), v>`` for ``u``.

    Args:
        f: from tensors to a tensor, or a list or tuple of them, of floating types.
        primals: a tensor or array, or a list or tuple of them.
        tangents: one for each of ``primals``, of the same shapes.

    Returns:
        ``(y, dy)``: what ``f`` gives, and the same nesting of its derivatives.

    >>> y, dy = jvp(lambda x: x * x, [Variable(3.0)], [1.0])
    >>> dy.shape
    ()
    """
    primals, tangents = _paired("jvp", primals, tangents)
    inputs = [as_tensor(p) for p in primals]
    y = f(*inputs)
    ys = _listed(y)
    us = [Builder().full(t.shape, 0, t.dtype) for t in ys]
    back = gradients(ys, inputs, us, unconnected="zero")
    directions = [as_tensor(t, b.dtype) for t, b in zip(tangents, back, strict=True)]
    return y, _like(y, gradients(back, us, directions, unconnected="zero"))


def hvp(f: Callable[..., Tensor], primals: Any, tangents: Any) -> list[Tensor]:
    """Hessian of a scalar function times a vector: always a list, one entry for each of ``primals``.

    >>> (product,) = hvp(lambda x: x**3, [Variable(2.0)], [1.0])
    """
    primals, tangents = _paired("hvp", primals, tangents)
    inputs = [as_tensor(p) for p in primals]
    first = gradients(f(*inputs), inputs, unconnected="zero")
    directions = [as_tensor(t, g.dtype) for t, g in zip(tangents, first, strict=True)]
    return gradients(first, inputs, directions, unconnected="zero")


def _paired(op: str, primals: Any, tangents: Any) -> tuple[list[Any], list[Any]]:
    """Primals and as many tangents."""
    primals, tangents = _listed(primals), _listed(tangents)
    if len(primals) != len(tangents):
        raise UsageError(f"{op}: {len(primals)} primals but {len(tangents)} tangents; pass one tangent for each primal")
    return primals, tangents


def stop_gradient(x: Any) -> Tensor:
    """``x``, through which no gradient flows. Also ``x.detach()``."""
    return Builder().stop_gradient(as_tensor(x))


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its intermediate values recomputed for the gradient and not kept.

    >>> f = checkpoint(lambda x: x * x + x)
    """

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        inputs, outputs, nested = _trace(partial(function, **options), args)
        for t in outputs:
            if not isinstance(t, Tensor):
                raise UsageError(
                    f"checkpoint: the function called at {source.capture().place} must return a tensor or a list of "
                    f"them, got {type(t).__name__}"
                )
        return _like(nested, _region(lambda body: Checkpoint((body,)), outputs, inputs, args))

    return wrapper


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the function returns ``(y, grad_fn)``, and ``grad_fn(*dy)`` gives the gradients of its arguments.

    >>> @custom_gradient
    ... def clipped(x):
    ...     return x, lambda g: g
    """

    @wraps(function)
    def wrapper(*args: Any) -> Any:
        place = source.capture().place
        inputs = _parameters(args)
        answer = function(*inputs)
        if not (isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1])):
            raise UsageError(
                f"custom_gradient: the function called at {place} must return (y, grad_fn), got {type(answer).__name__}"
            )
        nested, rule = answer
        outputs = _listed(nested)

        def made(body: Graph) -> CustomGradient:
            return CustomGradient((body,), _OnTensors(rule), len(args), place, len(outputs))

        return _like(nested, _region(made, outputs, inputs, args))

    return wrapper


@dataclass(frozen=True)
class _OnTensors:
    """A user's gradient function, which is given tensors, as a function of values."""

    rule: Callable[..., Any]

    def __call__(self, *gradients: Value) -> tuple[Any, ...]:
        answer = self.rule(*map(wrap, gradients))
        return tuple(map(value_of, answer if isinstance(answer, (tuple, list)) else (answer,)))


def _region(
    make: Callable[[Graph], Op], outputs: Sequence[Tensor], inputs: Sequence[Tensor], args: Sequence[Any]
) -> list[Tensor]:
    """What a region gives whose body gives ``outputs`` from ``inputs``, over the arguments and what the body captures:
    with them a run performs the body's side updates, whose values are further results."""
    results, parameters = [t.value for t in outputs], [t.value for t in inputs]
    side = _inner_updates(results, parameters)
    body, captured = close_over([*results, *(value for _, value in side)], parameters)
    given = make_node(make(body), (*(as_tensor(a).value for a in args), *captured)).outputs
    updates = tuple((slot, t) for (slot, _), t in zip(side, given[len(results) :], strict=True))
    return [wrap(carry_updates(t, updates)) for t in given[: len(results)]]


def _inner_updates(outputs: Sequence[Value], inputs: Sequence[Value]) -> tuple[tuple[StateSlot, Value], ...]:
    """The side updates that the body of a region performs, which its node is to carry: those by values that depend on
    the body's inputs, and those of nodes that do."""
    inside = {t.node.serial for t in inputs}
    for node in toposort(outputs):
        if any(t.node.serial in inside for t in node.inputs):
            inside.add(node.serial)
    return side_updates(outputs, lambda node: node.serial not in inside)


def _parameters(args: Sequence[Any]) -> list[Tensor]:
    tensors = [as_tensor(a) for a in args]
    return [result(node_over(Parameter(t.shape, t.dtype), ())) for t in tensors]


def _trace(function: Callable[..., Any], args: Sequence[Any]) -> tuple[list[Tensor], list[Tensor], Any]:
    inputs = _parameters(args)
    nested = function(*inputs)
    return inputs, _listed(nested), nested


def _like(nested: Any, outputs: Sequence[Tensor]) -> Any:
    """The outputs in the nesting of what a function returned."""
    if not isinstance(nested, (list, tuple)):
        return outputs[0]
    kind: Any = type(nested)
    return kind(*outputs) if hasattr(nested, "_fields") else kind(outputs)
