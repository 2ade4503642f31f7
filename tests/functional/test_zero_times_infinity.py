"""What gradients must be where a rule would multiply zero by infinity: rows of zeros, constant rows, masked scores.

The table is the decision, with PyTorch's choice where that is finite: 0 where there is no direction to go, the limit
where there is one. All cases run in one program a device and are compared with formulas in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.sessions import DEVICES, opened

import graphcore as gc
from graphcore import functional as F
from graphcore.api.tensor import Tensor

INF, NAN = np.inf, np.nan


@dataclass(frozen=True)
class Case:
    """``build`` of tensors that are fed ``at``; its value, and the gradients of sum(weights * value) for each.

    ``bends`` is the gradient of sum(weights * first gradient), where it is compared.
    """

    build: Callable[..., Tensor]
    at: tuple[Any, ...]
    value: Any
    slopes: tuple[Any, ...]
    weights: Any = 1.0
    bends: Any = None


def array(*rows: Any) -> Any:
    return np.array(rows, np.float64)


ROWS = array([0, 0, 0], [0, 3, -4], [2, 0, 0], [1, 1, 1])


def norm_case(p: float) -> Case:
    with np.errstate(all="ignore"):
        sizes, power = np.abs(ROWS), max(min(p, 99.0), -99.0)
        if p == INF:
            value = sizes.max(1)
            slopes = np.sign(ROWS) * (sizes == value[:, None]) / (sizes == value[:, None]).sum(1, keepdims=True)
        else:
            value = (sizes**power).sum(1) ** (1 / power)
            slopes = np.sign(ROWS) * sizes ** (power - 1) * value[:, None] ** (1 - power)
            slopes = np.where((ROWS == 0) | (value[:, None] == 0), 0, slopes)
    return Case(lambda x: gc.norm(x, p, 1), (ROWS,), value, (slopes,))


WEIGHTS = array(1, -2, 5)


def probabilities(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def moved(p: Any, c: Any) -> Any:
    """p * (c - <c, p>): how softmax answers to c."""
    return p * (c - (c * p).sum(-1, keepdims=True))


SCORES = array([0, 0, 0], [1e4, 0, -1e4], [-INF, 0, 0], [-INF, -INF, 3], [1, -INF, 2])
P = probabilities(SCORES)
INNER = (WEIGHTS * P).sum(1, keepdims=True)


def centred(c: Any) -> Any:
    return c - c.mean(-1, keepdims=True)


def attention(mask: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)


MASK = np.array([[True, False], [False, False]])
CONSTANT = array([2, 2, 2], [0, 0, 0], [-7, -7, -7])
CHANNELS = CONSTANT.T[:, :, None] * np.ones((3, 3, 2))  # every channel is constant

CASES: dict[str, Case] = {
    **{f"norm of order {p}": norm_case(p) for p in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, INF)},
    "norm of order -1 with a zero": Case(lambda x: gc.norm(x, -1.0, 1), (ROWS[:2],), [0, 0], (0 * ROWS[:2],)),
    "norm of one zero": Case(lambda x: gc.norm(x, 3, 1), (array([0], [-2]),), [0, 2], (array([0], [-1]),)),
    "root of a masked square": Case(
        lambda x: gc.sqrt(gc.where(x == 0, 0.0, x * x)), (array(0, 3),), [0, 3], (array(0, 1),)
    ),
    "root of a square": Case(
        lambda x: gc.sqrt(x * x), (array(0, 3),), [0, 3], (array(NAN, 1),)
    ),  # as the user wrote it
    **{
        f"normalised zeros, order {p}": Case(
            lambda x, p=p: F.normalize(x, p, 1), (ROWS[:1],), ROWS[:1], (1e12 * WEIGHTS[None],), WEIGHTS
        )
        for p in (1.0, 1.5, 2.0, 3.0, INF)
    },
    "cosine with zeros": Case(
        lambda x, y: F.cosine_similarity(x, y, 0), (array(0, 0), array(3, 4)), 0, (array(0.6e8, 0.8e8), array(0, 0))
    ),
    "cosine of zeros": Case(
        lambda x, y: F.cosine_similarity(x, y, 0), (array(0, 0), array(0, 0)), 0, (array(0, 0), array(0, 0))
    ),
    "triplet of equals, order 3": Case(
        lambda x, y: F.triplet_margin_loss(x, y + 1e-6, y + 1e-6, p=3.0),
        (array([1, 2]), array([1, 2])),
        1,
        (array([0, 0]), array([0, 0])),
    ),
    "var of constants": Case(lambda x: gc.var(x, 1), (CONSTANT,), [0, 0, 0], (0 * CONSTANT,)),
    "std of constants": Case(lambda x: gc.std(x, 1), (CONSTANT,), [0, 0, 0], (0 * CONSTANT,)),
    "unbiased std of constants": Case(lambda x: gc.std(x, 1, correction=1), (CONSTANT,), [0, 0, 0], (0 * CONSTANT,)),
    "var of one": Case(lambda x: gc.var(x, 1), (array([3], [0]),), [0, 0], (array([0], [0]),)),
    "std of one": Case(lambda x: gc.std(x, 1), (array([3], [0]),), [0, 0], (array([0], [0]),)),
    "unbiased var of one": Case(lambda x: gc.var(x, 1, correction=1), (array([3]),), [NAN], (array([NAN]),)),
    "layer norm of constants": Case(
        lambda x: F.layer_norm(x, 3),
        (CONSTANT,),
        0 * CONSTANT,
        (0 * CONSTANT + centred(WEIGHTS) / math.sqrt(1e-5),),
        WEIGHTS,
    ),
    "layer norm of one": Case(lambda x: F.layer_norm(x, 1), (array([3], [-2]),), [[0], [0]], (array([0], [0]),)),
    "rms norm of zeros": Case(
        lambda x: F.rms_norm(x, 3, eps=1e-6), (0 * CONSTANT,), 0 * CONSTANT, (0 * CONSTANT + WEIGHTS * 1e3,), WEIGHTS
    ),
    "group norm of constants": Case(
        lambda x: F.group_norm(x, 1),
        (CONSTANT,),
        0 * CONSTANT,
        (0 * CONSTANT + centred(WEIGHTS) / math.sqrt(1e-5),),
        WEIGHTS,
    ),
    "instance norm of constants": Case(lambda x: F.instance_norm(x), (CHANNELS,), 0 * CHANNELS, (0 * CHANNELS,)),
    "batch norm of constants": Case(
        lambda x: F.batch_norm(x, None, None, training=True),
        (CHANNELS,),
        0 * CHANNELS,
        ((0 * CHANNELS + (WEIGHTS - WEIGHTS.mean())[:, None, None]) / math.sqrt(1e-5),),
        WEIGHTS[:, None, None],
    ),
    "local response of zeros": Case(
        lambda x: F.local_response_norm(x, 3), (array([[0.0], [0.0]]),), array([[0.0], [0.0]]), (array([[1.0], [1.0]]),)
    ),
    "product without, with one and with two zeros": Case(
        lambda x: gc.prod(x, 1),
        (array([2, 3, 4], [0, 3, 4], [0, 3, 0]),),
        [24, 0, 0],
        (array([12, 8, 6], [12, 0, 0], [0, 0, 0]),),
        bends=array([7, 6, 5], [7, 4, 3], [3, 0, 3]),
    ),
    "logsumexp": Case(
        lambda x: gc.logsumexp(x, 1),
        (SCORES,),
        [math.log(3), 1e4, math.log(2), 3, 2 + math.log1p(math.exp(-1))],
        (P,),
        bends=0 * P,
    ),
    "logsumexp of infinities": Case(
        lambda x: gc.logsumexp(x, 1),
        (array([-INF, -INF, -INF, -INF], [INF, 1, INF, -INF], [-INF, -INF, -INF, 7]),),
        [-INF, INF, 7],
        (array([0.25] * 4, [0.5, 0, 0.5, 0], [0, 0, 0, 1]),),
    ),
    "logsumexp of one": Case(
        lambda x: gc.logsumexp(x, 1),
        (array([3], [-INF], [INF], [-1e4]),),
        [3, -INF, INF, -1e4],
        (array([1], [1], [1], [1]),),
    ),
    "logaddexp of infinities": Case(
        gc.logaddexp,
        (array(-INF, INF, INF, 0), array(-INF, INF, -INF, -INF)),
        [-INF, INF, INF, 0],
        (array(0.5, 0.5, 1, 1), array(0.5, 0.5, 0, 0)),
    ),
    "softmax": Case(
        lambda x: F.softmax(x, 1),
        (SCORES,),
        P,
        (moved(P, WEIGHTS),),
        WEIGHTS,
        moved(P, WEIGHTS) * (WEIGHTS - INNER) - P * (moved(P, WEIGHTS) * WEIGHTS).sum(1, keepdims=True),
    ),
    "softmax of one": Case(lambda x: F.softmax(x, 1), (array([3], [-1e30]),), [[1], [1]], (array([0], [0]),)),
    "softmax of nothing": Case(lambda x: F.softmax(x, 1), (array([-INF, -INF]),), [[NAN, NAN]], (array([NAN, NAN]),)),
    "log softmax": Case(
        lambda x: F.log_softmax(x, 1),
        (SCORES[:2],),
        np.log(np.maximum(P[:2], 1e-300)) * [[1], [0]] + array([0, 0, 0], [0, -1e4, -2e4]),
        (WEIGHTS - P[:2] * 4,),
        WEIGHTS,
        -4 * moved(P[:2], WEIGHTS),
    ),
    "log softmax of masked scores": Case(
        lambda x: F.log_softmax(x, 1),
        (SCORES[2:3],),
        [[-INF, -math.log(2), -math.log(2)]],
        (WEIGHTS - P[2:3] * 4,),
        WEIGHTS,
    ),
    "log softmax of one": Case(lambda x: F.log_softmax(x, 1), (array([3], [-1e30]),), [[0], [0]], (array([0], [0]),)),
    "cross entropy of masked classes": Case(
        lambda x: F.cross_entropy(x, [0, 0, 2, 2, 1], reduction="none"),
        (SCORES,),
        [math.log(3), 0, math.log(2), 0, INF],
        (P - np.eye(3)[[0, 0, 2, 2, 1]],),
    ),
    "cross entropy of what is ignored": Case(
        lambda x: F.cross_entropy(x, [-100, -100]), (array([1, 2], [3, -INF]),), NAN, (array([0, 0], [0, 0]),)
    ),
    "cross entropy without classes": Case(
        lambda x: F.cross_entropy(x, [0], reduction="none"), (array([-INF, -INF]),), [NAN], (array([NAN, NAN]),)
    ),
    "cross entropy with a class of weight 0": Case(
        lambda x: F.cross_entropy(x, [0, 1], weight=[1.0, 0.0, 1.0], reduction="none"),
        (SCORES[[2, 4]][:, [1, 0, 2]],),
        [math.log(2), 0],
        (array([-0.5, 0, 0.5], [0, 0, 0]),),
    ),
    "cross entropy with probabilities of 0": Case(
        lambda x: F.cross_entropy(x, array([0.0, 0.25, 0.75]).astype(np.float32), reduction="none"),
        (SCORES[2:3],),
        [math.log(2)],
        (P[2:3] - array([0, 0.25, 0.75]),),
    ),
    "nll of impossible, without weight": Case(
        lambda x: F.nll_loss(x, [0, 1], weight=[0.0, 1.0], reduction="none"),
        (array([-INF, 0], [-INF, -2]),),
        [0, 2],
        (array([0, 0], [0, -1]),),
    ),
    "kl of impossible": Case(
        lambda x, t: F.kl_div(x, t, "none"),
        (array(-INF, -1, -INF), array(0, 0, 0.5)),
        [0, 0, INF],
        (array(0, 0, -0.5), array(0, 0, INF)),
    ),
    "kl of logarithms of impossible": Case(
        lambda x, t: F.kl_div(x, t, "none", log_target=True),
        (array(-INF, -1), array(-INF, -INF)),
        [0, 0],
        (array(0, 0), array(0, 0)),
    ),
    "cross entropy of saturated sigmoids": Case(
        lambda x: F.binary_cross_entropy(F.sigmoid(x), array(1, 0, 0, 1).astype(np.float32), reduction="sum"),
        (array(200, -200, 200, -200),),
        200,
        (array(0, 0, 0, 0),),
    ),
    "cross entropy of nearly saturated sigmoids": Case(
        lambda x: F.binary_cross_entropy(F.sigmoid(x), array(1, 0).astype(np.float32), reduction="sum"),
        (array(20, -110),),
        math.log1p(math.exp(-20)),
        (array(-1 / (1 + math.exp(20)), 0),),
    ),
    "attention to nothing": Case(
        attention(MASK),
        (array([1, 2], [3, 4]), array([1, 0], [0, 1]), array([5, 6], [7, 8])),
        array([5, 6], [0, 0]),
        (array([0, 0], [0, 0]), array([0, 0], [0, 0]), array([1, 1], [0, 0])),
    ),
    "attention to nothing by adding": Case(
        attention(np.where(MASK, 0, -INF).astype(np.float32)),
        (array([1, 2], [3, 4]), array([1, 0], [0, 1]), array([5, 6], [7, 8])),
        array([5, 6], [0, 0]),
        (array([0, 0], [0, 0]), array([0, 0], [0, 0]), array([1, 1], [0, 0])),
    ),
    "powers of 0 by exponents": Case(
        lambda x, y: gc.pow(x, y),
        (array(0, 0, 0, 0, 0, -2, -2, INF), array(0, 1, 2, 0.5, -1, 3, 2, -1)),
        [1, 0, 0, 0, INF, -8, 4, 0],
        (array(0, 1, 0, INF, -INF, 12, -4, 0), array(0, 0, 0, 0, -INF, NAN, NAN, 0)),
    ),
    "division by 0": Case(
        gc.divide, (array(1, 0, -1), array(0, 0, 0)), [INF, NAN, -INF], (array(INF, INF, INF), array(-INF, NAN, INF))
    ),
    "all dropped": Case(lambda x: F.dropout(x, 1.0), (array(INF, 1),), [0, 0], (array(0, 0),)),
    "all dropped to the mean": Case(lambda x: F.alpha_dropout(x, 1.0), (array(INF, 1),), [0, 0], (array(0, 0),)),
    "angle and distance of the origin": Case(
        lambda x, y: gc.atan2(x, y) + gc.hypot(x, y),
        (array(0, -0.0), array(0, 0.0)),
        [0, 0],
        (array(0, 0), array(0, 0)),
    ),
    "a mask over a broadcast": Case(
        lambda x, y: gc.where(array(1, 0, 0).astype(bool), gc.log(x) * y, 0.0),
        (array(2, 0, -1), array(3, 3, 3)),
        [3 * math.log(2), 0, 0],
        (array(1.5, 0, 0), array(math.log(2), 0, 0)),
    ),
    "the same condition written twice": Case(
        lambda x: gc.where(x > 0, gc.log(x), 0.0) + gc.where(x > 0, gc.rsqrt(x), 0.0),
        (array(0, 1, -1),),
        [0, 1, 0],
        (array(0, 0.5, 0),),
    ),
    "logarithms cut from below": Case(
        lambda x: gc.maximum(gc.log(x), -100.0) + gc.relu(gc.log(x)) + F.hardtanh(gc.log(x)),
        (array(0, math.sqrt(math.e)),),
        [-101, 1.5],
        (array(0, 3 / math.sqrt(math.e)),),
    ),
}


def program(dtype: str) -> tuple[list[Tensor], dict[Tensor, Any]]:
    fetches: list[Tensor] = []
    feeds: dict[Tensor, Any] = {}
    for case in CASES.values():
        xs = [gc.placeholder(dtype, a.shape) for a in case.at]
        feeds |= {x: a.astype(dtype) for x, a in zip(xs, case.at, strict=True)}
        y = case.build(*xs)
        weights = gc.constant(np.broadcast_to(case.weights, y.shape), dtype)
        first = gc.gradients((y * weights).sum(), xs)
        fetches += [y, *first]
        if case.bends is not None:
            more = gc.constant(np.broadcast_to(case.weights, case.at[0].shape), dtype)
            fetches.append(gc.gradients((first[0] * more).sum(), xs[0])[0])
    return fetches, feeds


@pytest.mark.parametrize(("device", "dtype"), [*((d, "float32") for d in DEVICES), ("numpy", "float64")])
def test_gradients_are_what_the_table_says(device: str, dtype: str) -> None:
    fetches, feeds = program(dtype)
    with opened(device) as session:
        found = iter(session.run(fetches, feeds))
    wrong = []
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    for name, case in CASES.items():
        wanted = [("value", case.value), *((f"slope {i}", s) for i, s in enumerate(case.slopes))]
        wanted += [] if case.bends is None else [("bend", case.bends)]
        for what, want in wanted:
            got = next(found)
            scale = 1e2 if "normal" in name or "norm of c" in name else 1.0
            if not np.allclose(got, want, tolerance, tolerance * scale, equal_nan=True):
                wrong.append(f"{what} of {name}:\n{got}\ninstead of\n{np.asarray(want)}")
    assert not wrong, "\n".join(wrong)


def test_a_logistic_model_of_zeros_learns() -> None:
    """Its logits are all 0, where the loss has the slope 1/2 - target."""
    x, target = array([1, 2], [-1, 0], [0, 3]), np.array([1.0, 0.0, 1.0])
    for pos_weight in (None, 3.0):
        weights = gc.Variable(np.zeros(2), name="weights")
        loss = F.binary_cross_entropy_with_logits(gc.constant(x) @ weights, target, pos_weight=pos_weight)
        slope = gc.gradients(loss, weights)[0]
        positive = 1.0 if pos_weight is None else pos_weight
        with gc.Session("numpy:kernels") as session:
            found = session.run(slope)
        np.testing.assert_allclose(found, x.T @ np.where(target == 1, -positive / 2, 0.5) / 3, rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_samples_pass_gradients_to_their_parameters(device: str) -> None:
    """What is drawn is a smooth function of mean and scale, also where the scale is 0."""
    gc.random.seed(3)
    a, b = gc.placeholder("float32", (4096,)), gc.placeholder("float32", (4096,))
    samples = [
        gc.random.normal((4096,), a, b),
        gc.random.uniform((4096,), a, b),
        a + b * gc.random.gumbel((4096,)),
        a + b * gc.random.exponential((4096,)),
    ]
    units = [y - a if y is not samples[1] else (y - a) / (b - a) for y in samples]
    slopes = [s for y in samples for s in gc.gradients(y.sum(), [a, b])]
    with opened(device) as session:
        found = session.run([*units, *slopes], {a: np.full(4096, 2.0), b: np.full(4096, 3.0)})
        still = session.run(slopes, {a: np.full(4096, 2.0), b: np.zeros(4096)})
    units, slopes = found[:4], found[4:]
    for i, unit in enumerate(units):
        first, second = slopes[2 * i : 2 * i + 2]
        drawn = unit if i == 1 else unit / 3
        np.testing.assert_allclose(first, 1 - drawn if i == 1 else 1 + 0 * drawn, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(second, drawn, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(s).all() for s in still)
