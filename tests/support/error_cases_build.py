"""Wrong uses while building: every one gives our error, says what is wrong and what to write, and names the user's lines."""

# ruff: noqa: E501 - one case is one line, so that the line in its message can be checked

from __future__ import annotations

import os
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import functional as F

HERE = os.path.abspath(__file__)

__all__ = ["CASES", "ph"]


def ph(shape: Any, dtype: str = "float32") -> gc.Tensor:
    return gc.placeholder(dtype, shape)


# A case: a function that builds one wrong thing on one line (operands on that line too), the error, and fragments of its message.
# A fragment "{line}" stands for "this file:the line of the case", which must be in the message as often as there are operands listed.
CASES: list[tuple[Any, type[Exception], list[str]]] = [
    (
        lambda: gc.placeholder("float32", (3, 4)) + gc.placeholder("float32", (3,)),
        gc.ShapeError,
        [
            "add: shapes do not broadcast (4 against 3 at axis -1): (3, 4) and (3,)",
            "write operand 2 as x[:, None]",
            "operand 2 is placeholder: float32(3,), built at {line}",
        ],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)) * gc.placeholder("float32", (4, 3)),
        gc.ShapeError,
        [
            "multiply: shapes do not broadcast",
            "one is the other's transpose: write x.T",
            "operand 1 is placeholder: float32(3, 4), built at {line}",
        ],
    ),
    (
        lambda: gc.placeholder("float32", (2, 3)) - np.zeros((2, 4)),
        gc.ShapeError,
        ["subtract: shapes do not broadcast (3 against 4 at axis -1)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (2, 3)) @ gc.placeholder("float32", (4, 3)),
        gc.ShapeError,
        [
            "matmul: the inner extents differ (3 against 4): (2, 3) and (4, 3)",
            "transpose the second operand: x @ w.T",
            "{line}",
        ],
    ),
    (
        lambda: gc.placeholder("float32", (None, 28, 28)) @ gc.placeholder("float32", (784, 10)),
        gc.ShapeError,
        ["the inner extents differ (28 against 784)", "flatten the first operand: x.reshape(-1, 784) @ w", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", ()) @ gc.placeholder("float32", (3,)),
        gc.ShapeError,
        ["matmul: () @ (3,): a rank-0 operand; use * to scale", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (2, 3, 4)) @ gc.placeholder("float32", (5, 4, 2)),
        gc.ShapeError,
        ["matmul: the leading axes do not broadcast", "{line}"],
    ),
    (
        lambda: gc.placeholder("bool", (2, 2)) @ gc.placeholder("bool", (2, 2)),
        gc.DTypeError,
        ["matmul: operands are bool; cast with .astype('int32')", "{line}"],
    ),
    (
        lambda: gc.placeholder("bool", (2,)) + gc.placeholder("bool", (2,)),
        gc.DTypeError,
        ["add: operands are bool", "use logical_and, logical_or (&, |)", "{line}"],
    ),
    (
        lambda: gc.placeholder("int64", (2,)) + gc.placeholder("uint64", (2,)),
        gc.DTypeError,
        ["add: int64 and uint64 have no common integer type", "{line}"],
    ),
    (lambda: gc.placeholder("uint8", (2,)) + 300, gc.DTypeError, ["add: the number 300 does not fit uint8 (0 to 255)"]),
    (
        lambda: gc.placeholder("int32", (2,)) ** -1,
        gc.DTypeError,
        ["pow: integers to the negative power -1; cast the base with .astype('float32')", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (2,)) & 1,
        gc.DTypeError,
        ["bitwise_and: operands are float32, but bitwise_and takes integers or bools", "{line}"],
    ),
    (lambda: ~gc.placeholder("float32", (2,)), gc.DTypeError, ["bitwise_invert: the operand is float32", "{line}"]),
    (
        lambda: bool(gc.placeholder("bool", ())),
        gc.UsageError,
        ["bool() of a symbolic tensor", "sess.run", "gc.where", "{line}"],
    ),
    (
        lambda: 1 if gc.placeholder("float32", ()) > 0 else 2,
        gc.UsageError,
        ["bool() of a symbolic tensor", "operand 1 is greater: bool(), built at {line}"],
    ),
    (
        lambda: int(gc.placeholder("int32", ())),
        gc.UsageError,
        ["int() of a symbolic tensor", "t.astype('int64')", "{line}"],
    ),
    (lambda: float(gc.placeholder("float32", ())), gc.UsageError, ["float() of a symbolic tensor", "{line}"]),
    (lambda: range(gc.placeholder("int32", ())), gc.UsageError, ["an index or range of a symbolic tensor", "{line}"]),
    (
        lambda: np.asarray(gc.placeholder("float32", (2,))),
        gc.UsageError,
        ["np.asarray() of a symbolic tensor", "gc.* functions", "{line}"],
    ),
    (lambda: np.exp(gc.placeholder("float32", (2,))), TypeError, ["__array_ufunc__", "write gc.exp"]),
    (
        lambda: list(gc.placeholder("float32", (2,))),
        gc.UsageError,
        ["iteration of a symbolic tensor", "gc.unstack(t, axis)", "range(t.shape[0])", "{line}"],
    ),
    (
        lambda: 1.0 in gc.placeholder("float32", (2,)),
        gc.UsageError,
        ["'in' of a symbolic tensor", "gc.any(t == value)", "{line}"],
    ),
    (
        lambda: len(gc.placeholder("float32", (None,))),
        gc.UsageError,
        ["len() of a tensor whose first extent", "gc.dim_value(t.shape[0])", "{line}"],
    ),
    (lambda: f"{gc.placeholder('float32', ()):.3f}", gc.UsageError, ["format '.3f' of a symbolic tensor", "{line}"]),
    (
        lambda: gc.placeholder("float32", (2,)).item(),
        gc.UsageError,
        [".item() of a symbolic tensor", "sess.run(t)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (2,)).__setitem__(0, 1.0),
        gc.UsageError,
        ["x = x.at[index].set(value)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).sum(axis=2),
        gc.ShapeError,
        ["sum: axis 2 is out of range for a tensor of rank 2; use -2 to 1", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).mean(axis=(0, -2)),
        gc.ShapeError,
        ["mean: axes (0, -2) name an axis twice", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", ()).max(axis=0),
        gc.ShapeError,
        ["max: axis 0 is out of range for a tensor of rank 0, which has no axes", "{line}"],
    ),
    (lambda: gc.placeholder("float32", (0, 3)).max(axis=0), gc.ShapeError, ["max of nothing is not defined", "{line}"]),
    (
        lambda: gc.placeholder("bool", (3,)).max(),
        gc.DTypeError,
        ["max: the operand is bool; use gc.any or gc.all", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3,)).sum(axis=0, dim=0),
        gc.UsageError,
        ["sum: axis=0 and dim=0 are two names of one argument"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).reshape(5, 2),
        gc.ShapeError,
        ["reshape: (3, 4) has 12 elements, (5, 2) has 10; extent 0 would have to be 6", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).reshape(5, -1),
        gc.ShapeError,
        ["12 elements are not divisible by 5, so -1 cannot be inferred", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).reshape(-1, -1),
        gc.ShapeError,
        ["more than one extent is -1", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).reshape(None, 4),
        gc.ShapeError,
        ["reshape: None is no integer; use -1 for the extent to infer", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (gc.Dim("batch"), 4)).reshape(32, 4),
        gc.ShapeError,
        ["batch is not known until it is fed: use -1 or x.shape[0]", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).permute(0, 0),
        gc.ShapeError,
        ["permute_dims: (0, 0) is no permutation of the 2 axes of (3, 4)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).transpose(0, 1),
        gc.UsageError,
        ["nothing to do in NumPy and a swap in PyTorch; write x.T", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).squeeze(0),
        gc.ShapeError,
        ["squeeze: axis 0 of (3, 4) has the extent 3, not 1", "{line}"],
    ),
    (
        lambda: gc.broadcast_to(gc.placeholder("float32", (3, 4)), (3, 5)),
        gc.ShapeError,
        ["broadcast_to: (3, 4) does not broadcast to (3, 5)", "{line}"],
    ),
    (
        lambda: gc.concat([gc.placeholder("float32", (3, 4)), gc.placeholder("float32", (2, 5))]),
        gc.ShapeError,
        ["concat: extents differ outside axis 0", "{line}"],
    ),
    (
        lambda: gc.concat(gc.placeholder("float32", (3, 4))),
        gc.UsageError,
        ["concat: takes a list of tensors", "{line}"],
    ),
    (
        lambda: gc.stack([gc.placeholder("float32", (3,)), gc.placeholder("float32", (4,))]),
        gc.ShapeError,
        ["stack: shapes differ: (3,) and (4,)", "{line}"],
    ),
    (
        lambda: gc.split(gc.placeholder("float32", (5,)), 2),
        gc.ShapeError,
        ["split: the extent 5 of axis 0 of (5,) does not divide into 2 equal parts", "{line}"],
    ),
    (
        lambda: gc.unstack(gc.placeholder("float32", (None, 2))),
        gc.ShapeError,
        ["unstack: axis 0", "symbolic; it must be fixed", "{line}"],
    ),
    (
        lambda: gc.pad(gc.placeholder("float32", (3,)), (-1, 0)),
        gc.ShapeError,
        ["pad: widths (-1, 0) must not be negative", "{line}"],
    ),
    (
        lambda: gc.pad(gc.placeholder("float32", (3,)), 3, mode="reflect"),
        gc.ShapeError,
        ["pad: mode 'reflect' cannot add 3 elements to axis 0 of (3,)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4))[3],
        gc.ShapeError,
        ["index: 3 is out of range for axis 0 with extent 3 of (3, 4)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4))[0, 0, 0],
        gc.ShapeError,
        ["index: 3 indices for a tensor of rank 2, (3, 4)", "{line}"],
    ),
    (lambda: gc.placeholder("float32", (3, 4))[..., 0, ...], gc.ShapeError, ["more than one '...'", "{line}"]),
    (
        lambda: gc.placeholder("float32", (3,))[gc.placeholder("float32", (3,)) > 0],
        gc.UsageError,
        ["index: a boolean mask", "gc.where(mask, x, 0)", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3,))[gc.placeholder("float32", (2,))],
        gc.DTypeError,
        ["index: an index tensor is float32", "{line}"],
    ),
    (lambda: gc.placeholder("float32", (3,))["a"], gc.UsageError, ["index: 'a' is no index", "{line}"]),
    (lambda: gc.placeholder("float32", (3,))[1.5], gc.UsageError, ["index: 1.5 is no index", "{line}"]),
    (lambda: gc.placeholder("float32", (3,))[::0], gc.ShapeError, ["a slice's step must not be 0", "{line}"]),
    (
        lambda: gc.placeholder("float32", (3, 4))[[0, 7]],
        gc.ShapeError,
        ["index: 7 is out of range for axis 0 with extent 3", "{line}"],
    ),
    (
        lambda: gc.placeholder("float32", (3, 4)).at[0].set(gc.ones((5,))),
        gc.ShapeError,
        ["at: the value does not broadcast to the indexed part (4,)", "{line}"],
    ),
    (
        lambda: gc.placeholder("int32", (3,)).at[0].set(1.5),
        gc.DTypeError,
        ["at: the value is of a type that does not fit int32", "{line}"],
    ),
    (
        lambda: gc.take(gc.placeholder("float32", (3,)), gc.placeholder("float32", (2,))),
        gc.DTypeError,
        ["take: indices are float32", "{line}"],
    ),
    (
        lambda: gc.where(gc.placeholder("float32", (3,)), 1.0, 0.0),
        gc.DTypeError,
        ["where: the condition is float32, but must be bool", "x != 0", "{line}"],
    ),
    (lambda: gc.exp("text"), gc.UsageError, ["exp: an operand is 'text' of type str"]),
    (
        lambda: gc.add(gc.placeholder("float32", (3,)), None),
        gc.UsageError,
        ["add: an operand is None of type NoneType"],
    ),
    (lambda: gc.placeholder("float32", (3,)) + "text", TypeError, ["unsupported operand"]),
    (
        lambda: gc.einsum("ij,jk->ik", gc.placeholder("float32", (2, 3)), gc.placeholder("float32", (4, 5))),
        gc.ShapeError,
        ["einsum: 'ij,jk->ik': the label 'j' has the extents 3 and 4", "{line}"],
    ),
    (
        lambda: gc.einsum("ijk->i", gc.placeholder("float32", (2, 3))),
        gc.ShapeError,
        ["the term 'ijk' names 3 axes, its operand (2, 3) has 2", "{line}"],
    ),
    (
        lambda: gc.einsum("ij,jk->ik", gc.placeholder("float32", (2, 3))),
        gc.UsageError,
        ["has 2 terms, but there are 1 operands"],
    ),
    (lambda: gc.einsum("i1->i", gc.placeholder("float32", (2, 3))), gc.UsageError, ["'i1' in 'i1->i' must be letters"]),
    (
        lambda: gc.einsum("ij->iq", gc.placeholder("float32", (2, 3))),
        gc.UsageError,
        ["the output label 'q' is in no operand"],
    ),
    (lambda: gc.einsum("ij->ii", gc.placeholder("float32", (2, 3))), gc.UsageError, ["the output names 'i' twice"]),
    (
        lambda: gc.tensordot(gc.placeholder("float32", (2, 3)), gc.placeholder("float32", (4, 5)), 1),
        gc.ShapeError,
        ["tensordot: axes (1,) and (0,) do not pair up", "{line}"],
    ),
    (lambda: gc.outer(gc.placeholder("float32", (2, 3)), [1.0]), gc.ShapeError, ["outer: takes two vectors", "{line}"]),
    (
        lambda: gc.zeros((None, 3)),
        gc.ShapeError,
        ["zeros: None in the shape (None, 3) is no extent; for a symbolic extent use x.shape[0]"],
    ),
    (lambda: gc.zeros((2, -3)), gc.ShapeError, ["zeros: the extent -3 in the shape (2, -3) is negative"]),
    (
        lambda: gc.ones((2,), "complex64"),
        gc.DTypeError,
        ["'complex64' is not a dtype of graphcore; use one of float16"],
    ),
    (lambda: gc.arange(0, 5, 0), gc.ShapeError, ["arange: the step must not be 0"]),
    (lambda: gc.placeholder((3, 4)), gc.DTypeError, ["the order is placeholder(dtype, shape)"]),
    (lambda: gc.placeholder("float32", (3.5,)), gc.ShapeError, ["3.5 in the shape (3.5,) is no extent"]),
    (lambda: gc.constant([gc.ones(())]), TypeError, ["np.asarray() of a symbolic tensor"]),
    (
        lambda: F.softmax(gc.placeholder("float32", (3,)), 1),
        gc.ShapeError,
        ["softmax: axis 1 is out of range for a tensor of rank 1", "{line}"],
    ),
    (
        lambda: F.gelu(gc.placeholder("float32", (3,)), "erf"),
        gc.UsageError,
        ["gelu: approximate is 'erf'; use 'none' or 'tanh'"],
    ),
    (
        lambda: F.cross_entropy(gc.placeholder("float32", (8, 10)), gc.placeholder("int64", (8, 1))),
        gc.ShapeError,
        ["cross_entropy: class indices must have the shape (8,)", ".squeeze(-1)", "{line}"],
    ),
    (
        lambda: F.cross_entropy(gc.placeholder("float32", (8, 10)), gc.placeholder("float32", (8,))),
        gc.ShapeError,
        ["cross_entropy: probabilities must have the input's shape", "target.astype('int64')", "{line}"],
    ),
    (
        lambda: F.cross_entropy(gc.placeholder("float32", (8, 10)), gc.placeholder("int64", (8,)), gc.ones((9,))),
        gc.ShapeError,
        ["one element per class, (10,)", "{line}"],
    ),
    (
        lambda: F.cross_entropy(gc.placeholder("float32", (8, 10)), gc.placeholder("int64", (8,)), reduction="avg"),
        gc.UsageError,
        ["reduction is 'avg'; use 'mean'"],
    ),
    (
        lambda: F.mse_loss(gc.placeholder("float32", (8, 1)), gc.placeholder("float32", (8,))),
        gc.ShapeError,
        ["mse_loss: input and target have different shapes", "use .squeeze(-1)", "{line}"],
    ),
    (
        lambda: F.linear(gc.placeholder("float32", (8, 10)), gc.placeholder("float32", (10, 4))),
        gc.ShapeError,
        ["the weight is (out, in): pass w.T", "{line}"],
    ),
    (
        lambda: F.layer_norm(gc.placeholder("float32", (8, 10)), 8),
        gc.ShapeError,
        ["layer_norm: normalized_shape (8,) is not the end of the shape (8, 10)", "{line}"],
    ),
    (
        lambda: F.batch_norm(gc.placeholder("float32", (8, 3)), gc.ones((4,)), gc.ones((4,))),
        gc.ShapeError,
        ["batch_norm: the running_mean must have the shape (3,)", "{line}"],
    ),
    (
        lambda: F.conv2d(gc.placeholder("float32", (1, 8, 8, 3)), gc.placeholder("float32", (4, 3, 3, 3))),
        gc.ShapeError,
        ["conv2d: the input has 8 channels, the weight takes 3", "x.permute(0, 3, 1, 2)", "{line}"],
    ),
    (
        lambda: F.conv2d(gc.placeholder("float32", (1, 3, 2, 2)), gc.placeholder("float32", (4, 3, 5, 5))),
        gc.ShapeError,
        ["conv2d: the window (5, 5)", "does not fit", "{line}"],
    ),
    (
        lambda: F.conv2d(
            gc.placeholder("float32", (1, 3, 8, 8)), gc.placeholder("float32", (4, 3, 5, 5)), padding="full"
        ),
        gc.UsageError,
        ["'same' or 'valid'"],
    ),
    (
        lambda: F.max_pool2d(gc.placeholder("float32", (8, 8)), 2),
        gc.ShapeError,
        ["max_pool2d: the input must be (N, C, H, W) or without N, got (8, 8)", "{line}"],
    ),
    (
        lambda: F.max_pool2d(gc.placeholder("float32", (1, 8, 8)), 2, padding=2),
        gc.ShapeError,
        ["padding (2, 2) must be at most half of the window (2, 2)"],
    ),
    (
        lambda: F.embedding(gc.placeholder("float32", (5, 3)), gc.placeholder("int64", (2,))),
        gc.DTypeError,
        ["the order is embedding(indices, weight)", "{line}"],
    ),
    (
        lambda: F.dropout(gc.placeholder("float32", (3,)), 1.5),
        gc.UsageError,
        ["dropout: p is 1.5, but must be a number between 0 and 1"],
    ),
    (
        lambda: gc.random.normal(mean=[2.0, 3.0]),
        gc.ShapeError,
        ["random.normal: the parameters broadcast to (2,), not to the shape ()", "is shape=...", "{line}"],
    ),
    (
        lambda: gc.random.normal((None,)),
        gc.ShapeError,
        ["random.normal: None in the shape (None,); use x.shape[0] of a placeholder"],
    ),
    (lambda: gc.random.randint(5, 5), gc.UsageError, ["random.randint: high 5 must be above low 5"]),
    (
        lambda: gc.random.uniform(shape=(3,), dtype="int32"),
        gc.DTypeError,
        ["random.uniform: the dtype is int32, but must be a floating type; use randint"],
    ),
    (lambda: gc.init.he_normal((10,)), gc.ShapeError, ["this initializer needs at least 2 axes"]),
    (lambda: gc.init.zeros((None, 3)), gc.ShapeError, ["variables need fixed extents"]),
    (
        lambda: gc.gradients(gc.placeholder("float32", (3,)) * 2, gc.placeholder("float32", (3,))),
        gc.GradientError,
        ["no grad_ys; reduce it to a scalar first", "{line}"],
    ),
    (
        lambda: gc.Variable(gc.ones((2,)), name="w").__iadd__(1.0),
        gc.UsageError,
        ["on the variable 'w'", "w.assign(w + value)", "{line}"],
    ),
]
