"""One case for every public function that takes two tensors: what it is called with, and which axes may be unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import functional as F

__all__ = ["CASES", "Case"]

_RNG = np.random.default_rng(7)


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        name: the function, as users write it, and perhaps a variant in parentheses.
        build: from tensors to a tensor.
        arrays: what is fed for them.
        fixed: for each operand the axes whose extents stay numbers; all others are ``None``.
        smaller: whether an operand may be smaller than another one, where both extents are known; unknown ones are
            taken to be equal.
    """

    name: str
    build: Callable[..., Any]
    arrays: tuple[Any, ...]
    fixed: tuple[tuple[int, ...], ...]
    smaller: bool = False

    @property
    def function(self) -> str:
        return self.name.partition(" (")[0]


def _f(*shape: int) -> Any:
    return _RNG.uniform(0.2, 0.9, shape).astype(np.float32)


def _i(high: int, *shape: int) -> Any:
    return _RNG.integers(0, high, shape).astype(np.int64)


def _b(*shape: int) -> Any:
    return _RNG.integers(0, 2, shape).astype(bool)


CASES: list[Case] = []


def _case(
    name: str,
    build: Callable[..., Any],
    *arrays: Any,
    fixed: dict[int, tuple[int, ...]] | None = None,
    smaller: bool = False,
) -> None:
    kept = tuple((fixed or {}).get(i, ()) for i in range(len(arrays)))
    CASES.append(Case(name, build, tuple(np.asarray(a) for a in arrays), kept, smaller))


_ELEMENTWISE = (
    "add subtract multiply divide floor_divide remainder pow maximum minimum atan2 copysign hypot logaddexp equal "
    "not_equal less less_equal greater greater_equal isclose"
)
for _name in _ELEMENTWISE.split():
    _case(_name, getattr(gc, _name), _f(3, 2), _f(3, 2))
for _name in ("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"):
    _case(_name, getattr(gc, _name), _b(3, 2), _b(3, 2))
for _name in ("bitwise_left_shift", "bitwise_right_shift"):
    _case(_name, getattr(gc, _name), _i(5, 3, 2), _i(3, 3, 2))
_case("add (leading axes)", gc.add, _f(4, 3, 2), _f(2))
_case("subtract (flattened)", lambda x, y: x.reshape(-1) - y.reshape(-1), _f(3, 2), _f(3, 2))
_case("subtract (halves)", lambda x, y: x[1:] - y[:-1], _f(4, 2), _f(4, 2))
_case("multiply (three)", lambda x, y, z: x * y * z, _f(3, 2), _f(3, 2), _f(3, 2))
_case("where", gc.where, _b(3, 2), _f(3, 2), _f(3, 2))
_case("clip", gc.clip, _f(3, 2), _f(3, 2) * 0.5, _f(3, 2) + 0.5)
_case("broadcast_arrays", lambda x, y: sum(gc.broadcast_arrays(x, y)), _f(3, 2), _f(2))
_case("polygamma", lambda x, y: gc.polygamma(1, x) + y, _f(3), _f(3))

_case("matmul", gc.matmul, _f(3, 4), _f(4, 2))
_case("matmul (batches)", gc.matmul, _f(2, 3, 4), _f(2, 4, 2))
_case("matmul (rows of a batch)", gc.matmul, _f(2, 3, 4), _f(4, 2))
_case("matmul (vectors)", gc.matmul, _f(4), _f(4))
_case("matmul (flattened)", lambda x, y: x.reshape(1, -1) @ y.reshape(-1, 1), _f(3, 2), _f(3, 2))
_case("dot", gc.dot, _f(4), _f(4))
_case("vecdot", gc.vecdot, _f(3, 4), _f(3, 4))
_case("outer", gc.outer, _f(3), _f(2))
_case("tensordot", lambda x, y: gc.tensordot(x, y, 1), _f(3, 4), _f(4, 2))
_case("tensordot (two axes)", lambda x, y: gc.tensordot(x, y, 2), _f(3, 2, 4), _f(2, 4, 2))
_case("einsum", lambda x, y: gc.einsum("ij,jk->ik", x, y), _f(3, 4), _f(4, 2))
_case("einsum (batches)", lambda x, y: gc.einsum("bij,bjk->bik", x, y), _f(2, 3, 4), _f(2, 4, 2))
_case("einsum (no sum)", lambda x, y: gc.einsum("ij,ij->ij", x, y), _f(3, 4), _f(3, 4))
_case("einsum (diagonal)", lambda x, y: gc.einsum("ii,i->i", x, y), _f(3, 3), _f(3))
_case("meshgrid", lambda x, y: sum(gc.meshgrid(x, y)), _f(3), _f(2))

_case("concat", lambda x, y: gc.concat([x, y], 1), _f(3, 2), _f(3, 4))
_case("concat (three)", lambda x, y, z: gc.concat([x, y, z], 0), _f(3, 2), _f(2, 2), _f(1, 2))
_case("concat (flattened)", lambda x, y: gc.concat([x, y], None), _f(3, 2), _f(2, 2))
_case("stack", lambda x, y: gc.stack([x, y], 1), _f(3, 2), _f(3, 2))

_case("take", lambda x, i: gc.take(x, i, 0), _f(3, 2), _i(3, 2, 2))
_case("take_along_axis", lambda x, i: gc.take_along_axis(x, i, 1), _f(3, 2), _i(2, 3, 4))
_case("gather", lambda x, i: gc.gather(x, 1, i), _f(3, 2), _i(2, 3, 4), smaller=True)
_case("gather (rows)", lambda x, i: gc.gather(x, 1, i), _f(3, 2), _i(2, 3, 4), fixed={0: (0,), 1: (0,)})
_case("scatter_add", lambda x, i, s: gc.scatter_add(x, 1, i, s), _f(3, 2), _i(2, 3, 4), _f(3, 4), smaller=True)
_case("index_add", lambda x, i, s: gc.index_add(x, 0, i, s), _f(3, 2), _i(3, 4), _f(4, 2))
_case("index_add (last)", lambda x, i, s: gc.index_add(x, 1, i, s), _f(3, 2), _i(2, 4), _f(3, 4))
_case("getitem (pairs)", lambda x, i, j: x[i, j], _f(3, 2), _i(3, 4), _i(2, 4))
_case("getitem (rows)", lambda x, i: x[i], _f(3, 2), _i(3, 4))
_case("at.add", lambda x, i, v: x.at[i].add(v), _f(3, 2), _i(3, 4), _f(4, 2))
_case("at.set", lambda x, i, v: x.at[i].set(v), _f(3, 2), _i(3, 4), _f(4, 2))
_case("at.add (slice)", lambda x, v: x.at[1:].add(v), _f(3, 2), _f(2, 2))
_case("at.set (slice)", lambda x, v: x.at[:2].set(v), _f(3, 2), _f(2, 2))
_case("at.set (end)", lambda x, v: x.at[-1].set(v), _f(3, 2), _f(2))
_case("at.multiply (backwards)", lambda x, v: x.at[::-1].multiply(v), _f(3, 2), _f(3, 2))
_case("at.add (mask)", lambda x, m, v: x.at[m].add(v), _f(3, 2), _b(3), _f(2))
_case("at.set (mask)", lambda x, m, v: x.at[m].set(v), _f(3, 2), _b(3, 2), _f(1)[0])
_case("at.add (pairs)", lambda x, i, j, v: x.at[i, j].add(v), _f(3, 2), _i(3, 4), _i(2, 4), _f(4))
_case("at.set (pairs)", lambda x, i, j, v: x.at[i, j].set(v), _f(3, 2), _i(3, 4), _i(2, 4), _f(4))
_case("embedding", gc.embedding, _i(3, 4), _f(3, 2))
_case("functional.embedding", F.embedding, _i(3, 4), _f(3, 2))


def _seeded(x: Any, y: Any) -> Any:
    return gc.gradients(x * x, x, y)[0]


def _scaled(x: Any, y: Any) -> Any:
    @gc.custom_gradient
    def f(a: Any) -> Any:
        return a * a, lambda g: g * y

    return gc.gradients(f(x).sum(), x)[0]


_case("gradients", _seeded, _f(3, 2), _f(3, 2))
_case("custom_gradient", _scaled, _f(3, 2), _f(3, 2))
_case("checkpoint", lambda x, y: gc.checkpoint(lambda a, b: a * b + a)(x, y), _f(3, 2), _f(3, 2))
_case("jvp", lambda x, y: gc.jvp(lambda a: a * a, [x], [y])[1], _f(3, 2), _f(3, 2))
_case("hvp", lambda x, y: gc.hvp(lambda a: (a**3).sum(), [x], [y])[0], _f(3, 2), _f(3, 2))
_case("vjp", lambda x, y: gc.vjp(lambda a: a * a, x)[1](y)[0], _f(3, 2), _f(3, 2))

for _name in "mse_loss l1_loss huber_loss smooth_l1_loss soft_margin_loss hinge_embedding_loss kl_div".split():
    _case(f"functional.{_name}", getattr(F, _name), _f(3, 2), _f(3, 2))
for _name in ("binary_cross_entropy", "binary_cross_entropy_with_logits", "poisson_nll_loss"):
    _case(f"functional.{_name}", getattr(F, _name), _f(3, 2), _f(3, 2))
_case("functional.cosine_similarity", F.cosine_similarity, _f(3, 2), _f(3, 2))
_case("functional.gaussian_nll_loss", F.gaussian_nll_loss, _f(3, 2), _f(3, 2), _f(3, 2))
_case("functional.margin_ranking_loss", F.margin_ranking_loss, _f(3), _f(3), _f(3))
_case("functional.triplet_margin_loss", F.triplet_margin_loss, _f(3, 2), _f(3, 2), _f(3, 2))
_case("functional.cross_entropy", F.cross_entropy, _f(3, 4), _i(4, 3))
_case("functional.cross_entropy (images)", F.cross_entropy, _f(2, 4, 3), _i(4, 2, 3))
_case("functional.cross_entropy (probabilities)", F.cross_entropy, _f(3, 4), _f(3, 4))
_case("functional.cross_entropy (weights)", F.cross_entropy, _f(3, 4), _i(4, 3), _f(4))
_case("functional.nll_loss", F.nll_loss, _f(3, 4), _i(4, 3))
_case("functional.prelu", F.prelu, _f(3, 2) - 0.5, _f(2))
_case("functional.linear", F.linear, _f(3, 4), _f(2, 4), _f(2))
_case("functional.bilinear", F.bilinear, _f(3, 2), _f(3, 4), _f(5, 2, 4), _f(5))
_case(
    "functional.scaled_dot_product_attention",
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5),
    *(_f(2, 3, 4), _f(2, 5, 4), _f(2, 5, 2)),
)
_case(
    "functional.scaled_dot_product_attention (mask)",
    lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, scale=0.5),
    *(_f(3, 4), _f(5, 4), _f(5, 2), _b(3, 5)),
)
_case("functional.layer_norm", lambda x, w, b: F.layer_norm(x, 2, w, b), _f(3, 2), _f(2), _f(2), fixed={0: (1,)})
_case("functional.rms_norm", lambda x, w: F.rms_norm(x, 2, w), _f(3, 2), _f(2), fixed={0: (1,)})
_case("functional.group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), _f(3, 4), _f(4), _f(4), fixed={0: (1,)})
_case("functional.instance_norm", F.instance_norm, _f(3, 4, 5), _f(4), _f(4), fixed={0: (1,)})
_case("functional.batch_norm", F.batch_norm, _f(3, 4), _f(4), _f(4), _f(4), _f(4), fixed={0: (1,)})
_case("functional.conv1d", F.conv1d, _f(2, 3, 5), _f(4, 3, 2), _f(4), fixed={0: (1, 2), 1: (0, 1, 2)})
_case("functional.conv1d (channels)", F.conv1d, _f(2, 3, 5), _f(4, 3, 2), fixed={0: (2,), 1: (0, 1, 2)})
_case("functional.conv2d", F.conv2d, _f(2, 3, 5, 4), _f(4, 3, 2, 2), _f(4), fixed={0: (2, 3), 1: (0, 1, 2, 3)})
_case(
    "functional.conv_transpose2d",
    F.conv_transpose2d,
    *(_f(2, 3, 5, 4), _f(3, 4, 2, 2), _f(4)),
    fixed={0: (2, 3), 1: (0, 1, 2, 3)},
)
_case("random.normal", lambda x, m: gc.random.normal(m.shape, x, 0.0) + m, _f(3, 2), _f(3, 2))
