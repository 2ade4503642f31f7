"""Derivatives: ``gradients`` and what is built on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

from graphcore.api.variable import Variable, as_tensor
from graphcore.base import source
from graphcore.base.errors import DTypeError, GradientError, ShapeError, UsageError
from graphcore.ir.graph import close_over, toposort
from graphcore.ir.leaves import Parameter
from graphcore.ir.node import Builder, Tensor, describe, make_node
from graphcore.ops.region import Checkpoint, CustomGradient
from passes.graph.transforms.differentiate import differentiate

__all__ = ["backward", "checkpoint", "custom_gradient", "gradients", "hvp", "jvp", "stop_gradient", "vjp"]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def gradients(ys: Any, xs: Any, grad_ys: Any = None, stop_gradients: Any = None, unconnected: str = "none") -> Any:
    """Symbolic gradients of ``sum(ys)`` with respect to ``xs``.

    Args:
        ys: a tensor or a list of them. One that is not a scalar needs its ``grad_ys``.
        xs: a tensor or list of tensors or variables.
        grad_ys: cotangents, one for each of ``ys``, of the same shapes; None entries mean one for a scalar.
        stop_gradients: tensors that gradients do not pass through.
        unconnected: what stands for the gradient of an x that ``ys`` do not depend on: ``"none"``, ``"zero"`` or
            ``"raise"``.

    Returns:
        A list like ``xs``, or one gradient if ``xs`` is a single tensor. Gradients are ordinary tensors: differentiate
        them again.

    Raises:
        GradientError: a non-scalar y without grad_ys, a non-differentiable op on the path, or an unconnected x with
            ``"raise"``.

    >>> w = Variable(3.0)
    >>> gradients(w * w, w).shape
    ()
    """
    if unconnected not in ("none", "zero", "raise"):
        raise UsageError(f"gradients: unconnected is {unconnected!r}; use 'none', 'zero' or 'raise'")
    outputs = [_checked(y, "ys") for y in _listed(ys)]
    targets = [_checked(x, "xs") for x in _listed(xs)]
    single = not isinstance(ys, (list, tuple)) and not (
        isinstance(grad_ys, (list, tuple)) and len(grad_ys) == 1
    )  # then a list is an array
    given = [None] * len(outputs) if grad_ys is None else [grad_ys] if single else _listed(grad_ys)
    if len(given) != len(outputs):
        raise UsageError(f"gradients: {len(outputs)} ys but {len(given)} grad_ys")
    seeds = [_seed(y, g) for y, g in zip(outputs, given, strict=True)]
    stops = list(_listed(stop_gradients)) if stop_gradients is not None else []
    found = differentiate(outputs, targets, seeds, stops)
    for i, (x, g) in enumerate(zip(targets, found, strict=True)):
        if g is None and unconnected == "raise":
            raise GradientError(
                f"gradients: the ys do not depend on xs[{i}], {describe(x)}; pass unconnected='zero' for zeros"
            )
        if g is None and unconnected == "zero":
            found[i] = Builder().zeros_like(x)
    return found if isinstance(xs, (list, tuple)) else found[0]


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
    if seed.shape != y.shape:
        raise ShapeError(f"gradients: grad_ys has the shape {seed.shape}, its y {y.shape}\n  y is {describe(y)}")
    if seed.dtype != y.dtype:
        raise DTypeError(f"gradients: grad_ys is {seed.dtype}, its y {y.dtype}\n  y is {describe(y)}")
    return seed


def backward(loss: Tensor, variables: Sequence[Variable] | None = None) -> None:
    """Add the symbolic gradient of a scalar to ``variable.grad`` of every trainable variable it depends on."""
    if variables is None:
        variables = [n.op.variable for n in toposort([loss]) if n.op.name == "variable" and n.op.variable.trainable]  # type: ignore[attr-defined]
    for variable, g in zip(variables, gradients(loss, list(variables)), strict=True):
        if g is not None:
            variable.grad = g if variable.grad is None else Builder().add(variable.grad, g)


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., list[Any]]]:
    """``f(*primals)`` and a function from its cotangent to the primals' cotangents."""
    inputs = [as_tensor(p) for p in primals]
    y = f(*inputs)
    return y, lambda *cotangents: gradients(_listed(y), inputs, list(cotangents), unconnected="zero")


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``f(*primals)`` and its directional derivative along ``tangents``.

    By two reverse sweeps: with ``g(u) = J^T u`` linear in ``u``, ``J v`` is the gradient of ``<g(u), v>`` for ``u``.
    """
    primals, tangents = _listed(primals), _listed(tangents)
    if len(primals) != len(tangents):
        raise UsageError(f"jvp: {len(primals)} primals but {len(tangents)} tangents; pass one tangent for each primal")
    inputs = [as_tensor(p) for p in primals]
    y = f(*inputs)
    ys = _listed(y)
    us = [Builder().full(t.shape, 0, t.dtype) for t in ys]
    back = gradients(ys, inputs, us, unconnected="zero")
    forward = gradients(
        back, us, [as_tensor(t, b.dtype) for t, b in zip(tangents, back, strict=True)], unconnected="zero"
    )
    return y, forward if isinstance(y, (list, tuple)) else forward[0]


def hvp(f: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]) -> list[Tensor]:
    """Hessian of a scalar function times a vector."""
    primals, tangents = _listed(primals), _listed(tangents)
    if len(primals) != len(tangents):
        raise UsageError(f"hvp: {len(primals)} primals but {len(tangents)} tangents; pass one tangent for each primal")
    inputs = [as_tensor(p) for p in primals]
    first = gradients(f(*inputs), inputs, unconnected="zero")
    directions = [as_tensor(t, g.dtype) for t, g in zip(tangents, first, strict=True)]
    return gradients(first, inputs, directions, unconnected="zero")  # type: ignore[no-any-return]


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
        body, captured = close_over(outputs, inputs)
        node = make_node(Checkpoint((body,)), (*map(as_tensor, args), *captured))
        return _like(nested, node.outputs)

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
        body, captured = close_over(_listed(nested), inputs)
        op = CustomGradient((body,), rule, len(args), place)
        node = make_node(op, (*map(as_tensor, args), *captured))
        return _like(nested, node.outputs)

    return wrapper


def _parameters(args: Sequence[Any]) -> list[Tensor]:
    tensors = [as_tensor(a) for a in args]
    return [make_node(Parameter(t.shape, t.dtype), ()).output() for t in tensors]


def _trace(function: Callable[..., Any], args: Sequence[Any]) -> tuple[list[Tensor], list[Tensor], Any]:
    inputs = _parameters(args)
    nested = function(*inputs)
    return inputs, _listed(nested), nested


def _like(nested: Any, outputs: Sequence[Tensor]) -> Any:
    return type(nested)(outputs) if isinstance(nested, (list, tuple)) else outputs[0]
