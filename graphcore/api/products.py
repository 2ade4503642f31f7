"""Contractions: matrix products, dot products, einsum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphcore.api.agreement import taken
from graphcore.api.elementwise import multiply
from graphcore.api.logic import equal, where
from graphcore.api.operands import axis_of, build, cast, fail, fit, promote, tensor
from graphcore.api.reductions import sum as total
from graphcore.api.shaping import moveaxis, permute_dims, reshape
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.shapes import Extent, agree, broadcast_shapes, common_extent, format_shape, may_equal, product
from graphcore.ir.node import mismatch

__all__ = ["diagonal", "dot", "einsum", "matmul", "outer", "tensordot", "trace", "vecdot"]


def _numbers(op: str, *values: Any) -> list[Tensor]:
    tensors = promote(op, *values)
    if tensors[0].dtype.is_bool:
        raise fail(DTypeError, f"{op}: operands are bool; cast with .astype('int32') or .astype('float32')", *tensors)
    return tensors


def _with_extent(op: str, x: Tensor, axis: int, extent: Extent, against: Tensor) -> Tensor:
    """``x`` with an axis known to have the extent that another operand has."""
    return taken(x, tuple(extent if a == axis % x.ndim else e for a, e in enumerate(x.shape)), op, against)


def _summed(op: str, a: Tensor, i: int, b: Tensor, j: int) -> tuple[Tensor, Tensor]:
    """Two operands that are summed over an axis of each, which may be equal, with one extent along them."""
    extent = common_extent((a.shape[i], b.shape[j]))
    return _with_extent(op, a, i, extent, b), _with_extent(op, b, j, extent, a)


def matmul(x1: Any, x2: Any) -> Tensor:
    """The matrix product ``x1 @ x2``.

    Args:
        x1: shape (..., M, K), or (K,) for a row.
        x2: shape (..., K, N), or (K,) for a column.

    Returns:
        Shape (..., M, N) without the axes that a vector stood for; leading axes broadcast. Types promote; sums are in
        the compute type.

    Raises:
        ShapeError: K differs, an operand has rank 0, or leading axes do not broadcast.
        DTypeError: bools.

    >>> matmul([[1.0, 2.0]], [3.0, 4.0]).shape
    (1,)
    """
    a, b = _numbers("matmul", x1, x2)
    if a.ndim == 0 or b.ndim == 0:
        raise fail(
            ShapeError,
            f"matmul: {format_shape(a.shape)} @ {format_shape(b.shape)}: a rank-0 operand; use * to scale",
            a,
            b,
        )
    row, column = a.ndim == 1, b.ndim == 1
    inner = a.shape[-1], b.shape[0 if column else -2]
    if not may_equal(*inner):
        raise ShapeError(
            f"{mismatch('matmul', a, b, f'the inner extents differ ({inner[0]} against {inner[1]})')}\n  "
            f"{_matmul_hint(a, b)}"
        )
    first = reshape(a, (1, *a.shape)) if row else a
    second = reshape(b, (*b.shape, 1)) if column else b
    result = _product(*_summed("matmul", first, -1, second, -2))
    shape = result.shape
    wanted = (*shape[:-2], *(() if row else shape[-2:-1]), *(() if column else shape[-1:]))
    return reshape(result, wanted)


def _matmul_hint(a: Tensor, b: Tensor) -> str:
    if a.ndim > 1 and b.ndim > 1:
        if b.shape[-1] == a.shape[-1]:
            return "transpose the second operand: x @ w.T (PyTorch's weights are (out, in))"
        if a.shape[-2] == b.shape[-2]:
            return "transpose the first operand: x.T @ w"
        if isinstance(b.shape[-2], int) and product(a.shape[1:]) == b.shape[-2]:
            return f"flatten the first operand: x.reshape(-1, {b.shape[-2]}) @ w"
    return "the last axis of the first must equal the second-last of the second"


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product of operands of rank 2 and more: as one 2-D product where the second has no batch axes."""
    if b.ndim == 2:
        if a.ndim == 2:
            return build("matmul", a, b)
        rows = reshape(a, (product(a.shape[:-1]), a.shape[-1]))
        return reshape(build("matmul", rows, b), (*a.shape[:-1], b.shape[-1]))
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ShapeError:
        raise mismatch("matmul", a, b, "the leading axes do not broadcast") from None
    first = fit(a, (*batch, *a.shape[-2:]), "matmul", b)
    return build("matmul", first, fit(b, (*batch, *b.shape[-2:]), "matmul", a))


def vecdot(x1: Any, x2: Any, axis: int = -1) -> Tensor:
    """The sum of products along an axis; the other axes broadcast.

    >>> vecdot([[1.0, 2.0]], [3.0, 4.0]).shape
    (1,)
    """
    a, b = _numbers("vecdot", x1, x2)
    for t in (a, b):
        axis_of("vecdot", t, axis)
    if not may_equal(a.shape[axis], b.shape[axis]):
        raise mismatch("vecdot", a, b, f"extents of axis {axis} differ ({a.shape[axis]} against {b.shape[axis]})")
    a, b = _summed("vecdot", moveaxis(a, axis, -1), -1, moveaxis(b, axis, -1), -1)
    return total(multiply(a, b), -1, dtype=a.dtype)


def dot(x1: Any, x2: Any) -> Tensor:
    """The inner product of two vectors, else the matrix product.

    >>> dot([1.0, 2.0], [3.0, 4.0]).shape
    ()
    """
    return matmul(x1, x2)


def outer(x1: Any, x2: Any) -> Tensor:
    """All products of two vectors' elements: (N,), (M,) -> (N, M).

    >>> outer([1.0, 2.0], [3.0]).shape
    (2, 1)
    """
    a, b = _numbers("outer", x1, x2)
    if a.ndim != 1 or b.ndim != 1:
        raise mismatch("outer", a, b, "takes two vectors; flatten them with .reshape(-1)")
    return multiply(reshape(a, (*a.shape, 1)), reshape(b, (1, *b.shape)))


def tensordot(x1: Any, x2: Any, axes: Any = 2, *, dims: Any = None) -> Tensor:
    """Products summed over axes of both: the last n of ``x1`` with the first n of ``x2``, or the pairs ``(axes1,
    axes2)``.

    Raises:
        ShapeError: paired extents differ.

    >>> tensordot([[1.0, 2.0]], [[3.0], [4.0]], 1).shape
    (1, 1)
    """
    a, b = _numbers("tensordot", x1, x2)
    axes = axes if dims is None else dims  # PyTorch's name
    if isinstance(axes, int):
        if not 0 <= axes <= (a.ndim if a.ndim < b.ndim else b.ndim):
            raise mismatch("tensordot", a, b, f"cannot sum over {axes} axes")
        left, right = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        one, two = axes
        left = [axis_of("tensordot", a, i) for i in (one if isinstance(one, Sequence) else (one,))]
        right = [axis_of("tensordot", b, i) for i in (two if isinstance(two, Sequence) else (two,))]
    if not agree(tuple(a.shape[i] for i in left), tuple(b.shape[j] for j in right)):
        raise mismatch("tensordot", a, b, f"axes {tuple(left)} and {tuple(right)} do not pair up")
    for i, j in zip(left, right, strict=True):
        a, b = _summed("tensordot", a, i, b, j)
    free_a = [i for i in range(a.ndim) if i not in left]
    free_b = [i for i in range(b.ndim) if i not in right]
    shape = (*(a.shape[i] for i in free_a), *(b.shape[i] for i in free_b))
    rows = permute_dims(a, (*free_a, *left))
    columns = permute_dims(b, (*right, *free_b))
    inner = product(a.shape[i] for i in left)
    flat = matmul(
        reshape(rows, (product(a.shape[i] for i in free_a), inner)),
        reshape(columns, (product(b.shape[i] for i in right), product(b.shape[i] for i in free_b))),
    )
    return reshape(flat, shape)


def diagonal(x: Any, offset: int = 0) -> Tensor:
    """The diagonal of the last two axes (fixed extents): (..., N, M) -> (..., K).

    >>> diagonal([[1, 2], [3, 4]]).shape
    (2,)
    """
    t = tensor("diagonal", x)
    if t.ndim < 2 or not all(isinstance(e, int) for e in t.shape[-2:]):
        raise fail(ShapeError, f"diagonal: needs two last axes of fixed extents, got {format_shape(t.shape)}", t)
    n, m = int(t.shape[-2]), int(t.shape[-1])
    start = offset if offset >= 0 else -offset * m
    count = min(n, m - offset) if offset >= 0 else min(n + offset, m)
    lead = t.shape[:-2]
    flat = reshape(t, (*lead, n * m))
    k = len(lead)
    return build("slice", flat, starts=(0,) * k + (start,), lengths=(*lead, max(count, 0)), steps=(1,) * k + (m + 1,))


def trace(x: Any, offset: int = 0) -> Tensor:
    """The sum of the diagonal of the last two axes.

    >>> trace([[1.0, 2.0], [3.0, 4.0]]).shape
    ()
    """
    return total(diagonal(x, offset), -1)


# einsum: every axis has a label; operands are contracted from left to right, each pair as one batched matrix product.


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein's summation: products of operands, summed over the labels that the output does not have.

    Args:
        equation: e.g. ``"bij,bjk->bik"``; ``...`` stands for axes that broadcast; without ``->`` the output has the
            labels that occur once, sorted.
        operands: one tensor per term.

    Raises:
        UsageError: a malformed equation, or not one operand per term.
        ShapeError: a term has not as many labels as its operand axes, or a label has two extents.

    >>> einsum("ij,jk->ik", [[1.0, 2.0]], [[3.0], [4.0]]).shape
    (1, 1)
    """
    tensors = _numbers("einsum", *operands) if operands else []
    terms, output = _parse(equation, tensors)
    extents = _label_extents(equation, terms, tensors)
    items = [_unify(t, labels, extents, tensors) for t, labels in zip(tensors, terms, strict=True)]
    value, labels = items[0]
    for position, (other, other_labels) in enumerate(items[1:], 1):
        later = set(output).union(*(ls for _, ls in items[position + 1 :]))
        value, labels = _contract_pair(value, labels, other, other_labels, later)
    gone = tuple(i for i, label in enumerate(labels) if label not in output)
    if gone:
        value, labels = total(value, gone, dtype=value.dtype), [label for label in labels if label in output]
    missing = [label for label in output if label not in labels]
    if missing:
        raise UsageError(f"einsum: {equation!r}: the output label {missing[0]!r} is in no operand")
    return permute_dims(value, tuple(labels.index(label) for label in output))


def _parse(equation: str, tensors: list[Tensor]) -> tuple[list[list[str]], list[str]]:
    """The labels of every term and of the output; the axes that ``...`` stands for are labelled 0, 1, ... aligned at
    the right."""
    if not isinstance(equation, str):
        raise UsageError(f"einsum: the first argument is the equation, e.g. 'ij,jk->ik', got {type(equation).__name__}")
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    texts = left.split(",")
    if len(texts) != len(tensors):
        raise UsageError(f"einsum: {equation!r} has {len(texts)} terms, but there are {len(tensors)} operands")
    for part in (*texts, right):
        plain = part.replace("...", "", 1)
        if not all(c.isalpha() for c in plain):
            raise UsageError(f"einsum: {part!r} in {equation!r} must be letters and at most one '...'")
    wide = 0
    for part, t in zip(texts, tensors, strict=True):
        named = len(part.replace("...", ""))
        if t.ndim < named or ("..." not in part and t.ndim != named):
            raise fail(
                ShapeError,
                f"einsum: {equation!r}: the term {part!r} names {named} axes, its operand {format_shape(t.shape)} has "
                f"{t.ndim}",
                t,
            )
        wide = max(wide, t.ndim - named if "..." in part else 0)
    terms = [_labels(part, t.ndim - len(part.replace("...", "")), wide) for part, t in zip(texts, tensors, strict=True)]
    if not arrow:
        flat = [label for term in terms for label in term]
        once = sorted(label for label in set(flat) if label.isalpha() and flat.count(label) == 1)
        return terms, [str(i) for i in range(wide)] + once
    output = _labels(right, wide, wide)
    repeated = [label for label in output if output.count(label) > 1]
    if repeated:
        raise UsageError(f"einsum: {equation!r}: the output names {repeated[0]!r} twice")
    return terms, output


def _labels(part: str, spread: int, wide: int) -> list[str]:
    before, dots, after = part.partition("...")
    return [*before, *(str(i) for i in range(wide - spread, wide) if dots), *after]


def _label_extents(equation: str, terms: list[list[str]], tensors: list[Tensor]) -> dict[str, Extent]:
    extents: dict[str, Extent] = {}
    owner: dict[str, Tensor] = {}
    for t, labels in zip(tensors, terms, strict=True):
        for label, extent in zip(labels, t.shape, strict=True):
            known = extents.setdefault(label, extent)
            first = owner.setdefault(label, t)
            if known == 1 and label.isdigit():
                extents[label], owner[label] = extent, t
            elif not may_equal(known, extent) and not (extent == 1 and label.isdigit()):
                raise mismatch(
                    "einsum", first, t, f"{equation!r}: the label {label!r} has the extents {known} and {extent}"
                )
            elif not isinstance(known, int) and isinstance(extent, int) and extent != 1:
                extents[label] = extent
    return extents


def _unify(t: Tensor, labels: list[str], extents: dict[str, Extent], tensors: list[Tensor]) -> tuple[Tensor, list[str]]:
    """An operand with its labels' extents and every label once: a repeated one takes the diagonal."""
    wanted = tuple(extents[label] for label in labels)
    t = fit(t, wanted, "einsum", next((u for u in tensors if u is not t and set(wanted) & set(u.shape)), None))
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            dtype = dtypes.position_dtype(t.shape[i], t.shape[j])
            at = [build("iota", shape=t.shape, axis=a, dtype=dtype) for a in (i, j)]
            t = total(where(equal(*at), t, cast(tensor("einsum", 0), t.dtype)), j, dtype=t.dtype)
            labels = labels[:j] + labels[j + 1 :]
    return t, labels


def _contract_pair(a: Tensor, la: list[str], b: Tensor, lb: list[str], later: set[str]) -> tuple[Tensor, list[str]]:
    """One product of two operands: labels of both that are needed later are batch axes, the other shared ones are
    summed."""
    a, la = _sum_private(a, la, set(lb) | later)
    b, lb = _sum_private(b, lb, set(la) | later)
    batch = [label for label in la if label in lb and label in later]
    inner = [label for label in la if label in lb and label not in later]
    rows = [label for label in la if label not in lb]
    columns = [label for label in lb if label not in la]
    if not inner:  # no sum: an elementwise product of broadcast operands
        order = batch + rows + columns
        return multiply(_spread(a, la, order), _spread(b, lb, order)), order
    sizes = {**dict(zip(la, a.shape, strict=True)), **dict(zip(lb, b.shape, strict=True))}
    lead = tuple(sizes[label] for label in batch)
    left = permute_dims(a, tuple(la.index(label) for label in batch + rows + inner))
    right = permute_dims(b, tuple(lb.index(label) for label in batch + inner + columns))
    k = product(sizes[label] for label in inner)
    left = reshape(left, (*lead, product(sizes[label] for label in rows), k))
    right = reshape(right, (*lead, k, product(sizes[label] for label in columns)))
    order = batch + rows + columns
    return reshape(build("matmul", left, right), tuple(sizes[label] for label in order)), order


def _sum_private(t: Tensor, labels: list[str], needed: set[str]) -> tuple[Tensor, list[str]]:
    gone = tuple(i for i, label in enumerate(labels) if label not in needed)
    return (total(t, gone, dtype=t.dtype), [label for label in labels if label in needed]) if gone else (t, labels)


def _spread(t: Tensor, labels: list[str], order: list[str]) -> Tensor:
    """``t`` with its axes in ``order`` and 1 for labels it has not."""
    t = permute_dims(t, tuple(labels.index(label) for label in order if label in labels))
    rest = iter(t.shape)
    return reshape(t, tuple(next(rest) if label in labels else 1 for label in order))
