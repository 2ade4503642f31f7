"""Linear maps and attention."""

from __future__ import annotations

import math
from typing import Any

from graphcore.api.agreement import taken
from graphcore.api.creation import tril
from graphcore.api.elementwise import add, multiply
from graphcore.api.logic import where
from graphcore.api.operands import cast, fail, promote, tensor
from graphcore.api.products import einsum, matmul
from graphcore.api.shaping import broadcast_to, matrix_transpose
from graphcore.api.tensor import Tensor
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import agree, format_shape, may_equal
from graphcore.base.source import name_scope
from graphcore.functional.activations import masked_softmax, softmax
from graphcore.functional.dropout import dropout
from graphcore.ir.node import mismatch

__all__ = ["bilinear", "linear", "scaled_dot_product_attention"]


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """x @ weight.T + bias.

    Args:
        x: (..., in).
        weight: (out, in), or (in,).
        bias: (out,), or None.

    Raises:
        ShapeError: the shapes do not fit.

    >>> linear([[1.0, 2.0]], [[1.0, 1.0], [0.0, 1.0], [2.0, 2.0]]).shape
    (1, 3)
    """
    t, w = promote("linear", x, weight, floating=True)
    if w.ndim not in (1, 2) or t.ndim == 0:
        raise mismatch("linear", t, w, "takes x (..., in) and weight (out, in)")
    if not may_equal(t.shape[-1], w.shape[-1]):
        turned = w.ndim == 2 and w.shape[0] == t.shape[-1]
        hint = "; the weight is (out, in): pass w.T, or write x @ w" if turned else ""
        raise mismatch("linear", t, w, f"x has {t.shape[-1]} features, the weight takes {w.shape[-1]}{hint}")
    y = matmul(t, matrix_transpose(w) if w.ndim == 2 else w)
    if bias is None:
        return y
    b = cast(tensor("linear", bias), y.dtype)
    if not agree(b.shape, w.shape[:-1]):
        raise mismatch("linear", w, b, f"the bias must have the shape {format_shape(w.shape[:-1])}")
    return add(y, taken(b, w.shape[:-1], "linear", w))


def bilinear(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Tensor:
    """y[..., o] = x1[..., i] weight[o, i, j] x2[..., j] + bias[o].

    >>> bilinear([[1.0, 2.0]], [[1.0]], [[[1.0], [1.0]]]).shape
    (1, 1)
    """
    y = einsum("...i,oij,...j->...o", x1, weight, x2)
    return y if bias is None else add(y, bias)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query @ key.T * scale + mask) @ value.

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, V).
        attn_mask: broadcasts to (..., L, S); bool (False: not attended) or added to the scores. A row that is masked
            altogether gives 0.
        dropout_p: dropout of the attention weights.
        is_causal: position l attends to positions up to l.
        scale: 1 / sqrt(E) by default.

    Returns:
        (..., L, V).

    Raises:
        ShapeError: the shapes do not fit.

    >>> scaled_dot_product_attention([[1.0, 2.0]], [[1.0, 2.0], [0.0, 1.0]], [[1.0], [2.0]]).shape
    (1, 1)
    """
    q, k, v = promote("scaled_dot_product_attention", query, key, value, floating=True)
    for t in (q, k, v):
        if t.ndim < 2:
            raise fail(
                ShapeError,
                f"scaled_dot_product_attention: operands need at least 2 axes, got {format_shape(t.shape)}",
                q,
                k,
                v,
            )
    if is_causal and attn_mask is not None:
        raise UsageError(
            "scaled_dot_product_attention: is_causal=True and attn_mask exclude each other; put the triangle into the "
            "mask"
        )
    if scale is None:
        if not isinstance(q.shape[-1], int):
            raise fail(
                ShapeError,
                f"scaled_dot_product_attention: the last extent of {format_shape(q.shape)} is symbolic; pass scale=",
                q,
            )
        scale = 1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    with name_scope("attention"):
        scores = matmul(multiply(q, scale), matrix_transpose(k))
        if is_causal:  # no row is empty
            weights = softmax(
                where(tril(broadcast_to(tensor("attention", True), scores.shape[-2:])), scores, -math.inf)
            )
        elif attn_mask is not None:
            mask = tensor("scaled_dot_product_attention", attn_mask)
            masked = where(mask, scores, -math.inf) if mask.dtype.is_bool else add(scores, cast(mask, scores.dtype))
            weights = masked_softmax(masked, masked.ndim - 1)
        else:
            weights = softmax(scores)
        return matmul(dropout(weights, dropout_p) if dropout_p else weights, v)
