"""Every op on every device, through fusion, planning and generated code, against its reference in float64.

The cases of one op are outputs of one plan: they amortise a compilation, and their kernels meet in one program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from support.devices import (
    DEVICES,
    computed_ops,
    examples_of,
    judge,
    run_on,
    run_plan,
)

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import placeholder
from graphcore.base import dtypes
from graphcore.ir.op import Map, Reduce

OPS = computed_ops()
Case = tuple[Any, ...]  # an op and its operand arrays; an operand given twice is one array object
FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int32", "uint8", "int64", "uint32", "int8", "int16", "uint16", "uint64")
BY_KIND = {
    "f": FLOATS,
    "iu": INTEGERS,
    "b": ("bool",),
    "fiu": (*FLOATS, *INTEGERS),
    "iub": (*INTEGERS, "bool"),
    "fiub": (*FLOATS, *INTEGERS, "bool"),
}
FIRST = ("float32", "bfloat16", "int32", "uint8", "bool")  # the others are slow tests


def dtype_of(array: Any) -> dtypes.DType:
    return dtypes.as_dtype(np.asarray(array).dtype)


def build(cases: Sequence[Case]) -> tuple[list[Tensor], dict[Tensor, Any], list[int]]:
    """One graph of all cases: its outputs, the feeds, and how many outputs each case has."""
    b, outputs, feeds, counts = Builder(), [], {}, []
    for op, *arrays in cases:
        made: dict[int, Tensor] = {}
        for a in arrays:
            if id(a) not in made:
                made[id(a)] = placeholder(dtype_of(a), np.shape(a))
                feeds[made[id(a)]] = a
        node = b.apply(op, *(made[id(a)] for a in arrays))
        outputs += [node.output(i) for i in range(len(node.types))]
        counts.append(len(node.types))
    return outputs, feeds, counts


def scattered(array: Any) -> Any:
    """An equal array that is not contiguous: every second element of a reversed one."""
    array = np.asarray(array)
    if array.ndim == 0:
        return array
    wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2 + 1), array.dtype)
    view = wide[..., ::-1][..., 1::2]
    view[...] = array
    assert view.size < 2 or not view.flags.c_contiguous
    return view


def check(device: str, cases: Sequence[Case]) -> None:
    """Run cases as one plan, twice: the second time with feeds that are not contiguous, to the same bits."""
    outputs, feeds, counts = build(cases)
    bound = run_plan(device, outputs, feeds)
    found = bound.run(feeds)
    again = bound.run({p: scattered(a) for p, a in feeds.items()})
    wrong, position = [], 0
    for (op, *arrays), count in zip(cases, counts, strict=True):
        got, twice = found[position : position + count], again[position : position + count]
        position += count
        shown = ", ".join(f"{dtype_of(a)}{list(np.shape(a))}" for a in arrays)
        problem = judge(op, arrays, got)
        if problem is not None:
            wrong.append(f"{op} of {shown}: {problem}")
        if any(a.tobytes() != b.tobytes() for a, b in zip(got, twice, strict=True)):
            wrong.append(f"{op} of {shown}: another result for operands that are not contiguous")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("device", DEVICES)
def test_examples(device: str, name: str) -> None:
    check(device, examples_of(OPS[name]))


# -- elementwise: vectors with a rest, every type, special values, one operand twice


def numbers(dtype: str, seed: int, size: int = 37) -> Any:
    """Numbers that reach all corners of a type: specials first, then a spread of magnitudes."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(size) > 0.5
    kind = dtypes.as_dtype(dtype)
    if not kind.is_float:
        info = np.iinfo(kind.storage)
        special = [0, 1, info.max, info.min, info.max - 1, info.min + 1, 7, 3]
        values = rng.integers(max(info.min, -50), min(info.max, 50), size).astype(kind.storage)
        values[rng.permutation(size)[: len(special)]] = np.array(special, kind.storage)
        return values
    special_floats = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1.5]
    values = rng.standard_normal(size) * np.exp2(rng.integers(-6, 5, size))
    values[rng.permutation(size)[: len(special_floats)]] = special_floats
    return values.astype(kind.storage)


def map_cases(dtypes_wanted: Sequence[str]) -> Iterator[tuple[str, list[Case]]]:
    """For every elementwise op the cases of the given types."""
    for name, cls in OPS.items():
        if not issubclass(cls, Map) or name == "cast":
            continue
        op: Any = cls()
        cases: list[Case] = []
        for dtype in dtypes_wanted:
            if name == "where":
                cases.append((op, numbers("bool", 1), numbers(dtype, 2), numbers(dtype, 3)))
            elif dtype in BY_KIND[cls.operands]:
                arity = 3 if op.arity is None else op.arity
                operands = [numbers(dtype, seed + 1) for seed in range(arity)]
                if name == "pow" and dtype in INTEGERS:
                    operands[1] = np.abs(operands[1] % 7).astype(operands[1].dtype)
                if name == "copysign":
                    operands[1] = np.nan_to_num(operands[1], nan=3.0).astype(
                        operands[1].dtype
                    )  # a NaN's sign is unspecified
                if name in ("lgamma", "digamma"):
                    operands[0] = np.where(
                        operands[0] == -np.inf, 2, np.maximum(operands[0], operands[0].dtype.type(-0.5))
                    )
                cases.append((op, *operands))
                twice = numbers(dtype, 9)
                if arity > 1 and not (name == "pow" and dtype in INTEGERS) and name != "copysign":
                    cases.append((op, *(twice for _ in range(arity))))
        if cases:
            yield name, cases


def grouped(named: Iterator[tuple[str, list[Case]]], size: int) -> list[Any]:
    """Cases of several ops as one parameter, so that one compilation serves them."""
    found: list[tuple[list[str], list[Case]]] = [([], [])]
    for name, cases in named:
        if len(found[-1][1]) >= size:
            found.append(([], []))
        found[-1][0].append(name)
        found[-1][1].extend(cases)
    return [pytest.param(cases, id=f"{names[0]}-to-{names[-1]}") for names, cases in found if cases]


@pytest.mark.parametrize("cases", grouped(map_cases(FIRST), 24))
@pytest.mark.parametrize("device", DEVICES)
def test_elementwise(device: str, cases: list[Case]) -> None:
    check(device, cases)


@pytest.mark.slow
@pytest.mark.parametrize("cases", grouped(map_cases([d for d in BY_KIND["fiub"] if d not in FIRST]), 40))
@pytest.mark.parametrize("device", DEVICES)
def test_elementwise_in_other_types(device: str, cases: list[Case]) -> None:
    check(device, cases)


def casts(targets: Sequence[str]) -> list[Case]:
    cast: Any = OPS["cast"]
    extremes = np.array(
        [
            2.9,
            -2.9,
            3e9,
            -3e9,
            1e19,
            -1e19,
            127.5,
            -128.5,
            255.5,
            65535.9,
            4294967295.0,
            np.nan,
            np.inf,
            -np.inf,
            2.0**63,
            -(2.0**63),
            0.4,
            1.00390625,
            1.01171875,
            1.00048828125,
            1.00146484375,
        ]
    )  # the last are halfway between numbers of half types
    with np.errstate(over="ignore"):
        operands = {
            source: extremes.astype(dtypes.as_dtype(source).storage) if source in FLOATS else numbers(source, 4)
            for source in BY_KIND["fiub"]
        }
    return [(cast(dtypes.as_dtype(target)), operand) for target in targets for operand in operands.values()]


@pytest.mark.parametrize("device", DEVICES)
def test_casts(device: str) -> None:
    check(device, casts(("float32", "int32", "uint8", "bool", "bfloat16", "int64")))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_casts_to_other_types(device: str) -> None:
    check(
        device,
        casts([d for d in BY_KIND["fiub"] if d not in ("float32", "int32", "uint8", "bool", "bfloat16", "int64")]),
    )


# -- reductions: rows, columns, several axes, rests of vectors, NaN anywhere, ties, nothing to reduce

SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((5, 37), (1,)),
    ((37, 5), (0,)),
    ((3, 37, 4), (1,)),
    ((3, 7, 21), (1, 2)),
    ((21, 3, 7), (0, 2)),
    ((4, 19), (0, 1)),
    ((3,), (0,)),
    ((1, 37), (1,)),
    ((19, 1, 3), (0, 1)),
    ((2, 9, 3), (0,)),
)


def reduce_cases(dtype: str) -> list[Case]:
    """Every reduction of a type over every shape."""
    cases: list[Case] = []
    rng = np.random.default_rng(11)
    found: list[Any] = [c for c in OPS.values() if issubclass(c, Reduce)]
    for cls in found:
        if dtype not in BY_KIND[cls.operands]:
            continue
        for shape, axes in SHAPES:
            if cls.combine.startswith("arg"):
                axes = axes[-1:]
            if dtype == "bool":
                x: Any = rng.random(shape) > (0.05 if cls.combine == "and" else 0.95)
            elif dtypes.as_dtype(dtype).is_float:
                spread = 0.1 if cls.combine == "mul" else 4.0
                x = (np.round(rng.standard_normal(shape) * spread, 1) + (cls.combine == "mul")).astype(
                    dtypes.as_dtype(dtype).storage
                )  # rounded: ties
            else:
                x = rng.integers(0, 4, shape).astype(dtype)
            cases.append((cls(axes=axes), x))
            if dtypes.as_dtype(dtype).is_float and shape[-1] > 20:
                holes = x.copy()
                holes[..., -1], holes[..., 0, 3], holes[0, ..., 5] = np.nan, np.nan, -np.inf
                cases.append((cls(axes=axes), holes))
            if not cls.needs_elements:
                empty = list(shape)
                empty[axes[0]] = 0
                cases.append((cls(axes=axes), np.zeros(empty, x.dtype)))
            empty = [0 if i not in axes else e for i, e in enumerate(shape)]
            cases.append((cls(axes=axes), np.zeros(empty, x.dtype)))
    return cases


@pytest.mark.parametrize("dtype", ["float32", "bool"])
@pytest.mark.parametrize("device", DEVICES)
def test_reductions(device: str, dtype: str) -> None:
    check(device, reduce_cases(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int32", "int64", "uint8", "uint32"])
@pytest.mark.parametrize("device", DEVICES)
def test_reductions_in_other_types(device: str, dtype: str) -> None:
    check(device, reduce_cases(dtype))


# -- larger shapes than the examples have, where lanes, guards and rests of vectors meet


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtypes.as_dtype(dtype).storage)


def whole(low: int, high: int, *shape: int, dtype: str = "int64") -> Any:
    return np.random.default_rng(low + high).integers(low, high, shape).astype(dtype)


def views(op: Any) -> list[Case]:
    return [
        (op["permute"](axes=(1, 0)), normal(37, 21)),
        (op["permute"](axes=(2, 0, 1)), whole(-9, 9, 5, 21, 3, dtype="int8")),
        (op["reshape"](shape=(21, 37)), normal(37, 21)),
        (op["flip"](axes=(1,)), normal(3, 37)),
        (op["flip"](axes=(0,)), normal(37, dtype="float64")),
        (op["slice"](starts=(1, 3), lengths=(2, 17), steps=(1, 2)), normal(3, 37)),
        (op["broadcast"](shape=(5, 37)), normal(5, 1)),
        (op["broadcast"](shape=(5, 37)), normal(37) > 0),
        (op["slice"](starts=(0,), lengths=(0,), steps=(1,)), normal(9)),
        (op["permute"](axes=(1, 0)), normal(9, 20) > 0),
        (op["permute"](axes=(1, 0)), normal(9, 20, dtype="bfloat16")),
    ]


def guards(op: Any) -> list[Case]:
    return [
        (op["pad"](low=(1, 3), high=(0, 5), gaps=(0, 0)), normal(3, 37)),
        (op["pad"](low=(0, 1), high=(2, 0), gaps=(1, 2)), normal(3, 17)),
        (op["pad"](low=(2, 0), high=(2, 0), gaps=(0, 0)), normal(3, 37) > 0),
        (op["pad"](low=(3,), high=(9,), gaps=(0,)), whole(-9, 9, 13)),
        (op["concat"](axis=1), normal(3, 5), normal(3, 17, seed=1), normal(3, 1, seed=2)),
        (op["concat"](axis=0), normal(2, 19), normal(3, 19, seed=1)),
        (op["concat"](axis=0), normal(9) > 0, normal(20, seed=1) > 0),
        (op["pad"](low=(2,), high=(1,), gaps=(0,)), normal(30, dtype="float16")),
    ]


def gathers(op: Any) -> list[Case]:
    return [
        (op["take"](axis=0), normal(11, 37), whole(-11, 11, 5)),
        (op["take"](axis=1), normal(3, 11), whole(-13, 13, 37)),
        (op["take"](axis=1), normal(3, 11, 19), whole(-11, 11, 4, 2, dtype="int32")),
        (op["take"](axis=0), whole(0, 99, 50), whole(0, 60, 37, dtype="uint8")),
        (op["take"](axis=0, zeros=True), normal(9, dtype="float16"), whole(-12, 12, 37, dtype="int16")),
        (op["take"](axis=0), normal(9, 3) > 0, whole(-9, 9, 37)),
        (op["take"](axis=0), normal(5, dtype="float64"), np.array([2**62, -(2**62), 4, 2**32, 2**31])),
        (op["take_along"](axis=1), normal(5, 21), whole(-21, 21, 5, 37)),
        (op["take_along"](axis=0), normal(21, 37), whole(-21, 21, 4, 37, dtype="int32")),
        (op["one_hot"](depth=37, dtype=dtypes.float32), whole(-40, 40, 21)),
        (op["one_hot"](depth=5, dtype=dtypes.bool_), whole(0, 9, 37, dtype="uint8")),
        (op["scatter_add"](rows=9), whole(-11, 11, 37), normal(37, 21)),
        (op["scatter_add"](rows=37), whole(0, 37, 60, dtype="int32"), normal(60)),
        (op["scatter_along"](axis=1, extent=21), whole(-21, 21, 5, 37), normal(5, 37)),
        (
            op["scatter_along"](axis=0, extent=4),
            whole(-4, 4, 9, 37, dtype="int8"),
            whole(-9, 9, 9, 37, dtype="int32"),
        ),
    ]


def random(op: Any) -> list[Case]:
    return [
        (
            op["random_bits"](stream=5, shape=(3, 37)),
            np.array([2**32 - 1, 2**31], np.uint32),
            np.array(2**32 - 1, np.uint32),
        ),
        (op["iota"](shape=(3, 37), axis=1, dtype=dtypes.uint64),),
        (op["iota"](shape=(300, 3), axis=0, dtype=dtypes.uint8),),
        (op["iota"](shape=(70000,), axis=0, dtype=dtypes.float32),),
        (op["iota"](shape=(40,), axis=0, dtype=dtypes.bfloat16),),
        (op["iota"](shape=(70000,), axis=0, dtype=dtypes.int16),),
    ]


def windows(op: Any) -> list[Case]:
    pool = {"window": (3, 2), "stride": (2, 1), "padding": (1, 0, 0, 1), "dilation": (1, 1)}
    tiles = {"window": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    mean = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1), "count_include_pad": False}
    image, half = normal(2, 3, 11, 19), normal(2, 3, 11, 19, dtype="float16")
    index = op["max_pool_index"](**pool).reference(image)
    tiled = op["max_pool_index"](**tiles).reference(image[..., :10, :18])
    return [
        (op["max_pool"](**pool), image),
        (op["max_pool"](**tiles), image),
        (op["max_pool"](**pool), half),
        (op["max_pool_index"](**pool), image),
        (op["max_pool_index"](**tiles), half),
        (op["max_pool_grad"](**pool, input_size=(11, 19)), normal(*index.shape), index),
        (op["max_pool_grad"](**tiles, input_size=(10, 18)), normal(*tiled.shape), tiled),
        (op["max_pool_grad"](**tiles, input_size=(11, 18)), normal(*tiled.shape), tiled),
        (op["max_pool_gather"](**pool), image, index),
        (op["avg_pool"](**mean), image),
        (op["avg_pool"](**mean), image.astype(np.float64)),
        (op["avg_pool_grad"](**mean, input_size=(11, 19)), normal(2, 3, 6, 10)),
        (op["max_pool"](**tiles), np.where(image > 0, np.nan, image).astype(np.float32)),
    ]


def products(op: Any) -> list[Case]:
    conv = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    return [
        (op["matmul"](), normal(37, 29), normal(29, 41, seed=1)),
        (op["matmul"](), normal(3, 17, 9), normal(3, 9, 33, seed=1)),
        (op["matmul"](), normal(37, 29, dtype="float64"), normal(29, 41, seed=1, dtype="float64")),
        (op["matmul"](), normal(1, 100), normal(100, 64, seed=1)),
        (op["matmul"](), normal(64, 100), normal(100, 1, seed=1)),
        (op["matmul"](), whole(-9, 9, 9, 20), whole(-9, 9, 20, 37)),
        (op["matmul"](), normal(20, 30, dtype="bfloat16"), normal(30, 20, seed=1, dtype="bfloat16")),
        (op["matmul"](), normal(30, 0), normal(0, 40)),
        (op["conv2d"](**conv), normal(2, 5, 9, 11), normal(7, 5, 3, 3, seed=1)),
        (op["conv2d"](**conv), normal(0, 5, 9, 11), normal(7, 5, 3, 3, seed=1)),
        (op["conv2d"](**conv), normal(2, 5, 9, 11, dtype="float64"), normal(7, 5, 3, 3, seed=1, dtype="float64")),
        (op["conv2d_input_grad"](**conv, input_size=(9, 11)), normal(2, 7, 9, 11), normal(7, 5, 3, 3, seed=1)),
        (op["conv2d_weight_grad"](**conv, kernel_size=(3, 3)), normal(2, 5, 9, 11), normal(2, 7, 9, 11, seed=1)),
        (op["conv2d_weight_grad"](**conv, kernel_size=(3, 3)), normal(0, 5, 9, 11), normal(0, 7, 9, 11)),
    ]


LARGER = {family.__name__: family(OPS) for family in (views, guards, gathers, random, windows, products)}


@pytest.mark.parametrize("family", LARGER)
@pytest.mark.parametrize("device", DEVICES)
def test_larger_shapes(device: str, family: str) -> None:
    check(device, LARGER[family])


# -- constants are written into kernels, exact to the last bit


def constants(dtype: str) -> list[bool | int | float]:
    kind = dtypes.as_dtype(dtype)
    if kind.is_bool:
        return [False, True]
    if kind.is_integer:
        info = np.iinfo(kind.storage)
        return [0, 1, int(info.min), int(info.min) + 1, int(info.max), int(info.max) - 1, int(info.max) // 3]
    tiny = {"float16": 6e-8, "bfloat16": 1e-40, "float32": 1e-45, "float64": 5e-324}[dtype]
    big = {"float16": 65504.0, "bfloat16": 3.3e38, "float32": 3.4028234e38, "float64": 1.7976931348623157e308}[dtype]
    return [0.0, -0.0, 1.0, -0.1, 1 / 3, tiny, -tiny, big, 123456789.0, -16777217.0, np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("device", DEVICES)
def test_constants_keep_their_bits(device: str) -> None:
    """Alone, and chosen by a mask lane by lane."""
    b, mask = Builder(), placeholder("bool", (19,))
    outputs, expected = [], []
    chosen = np.arange(19) % 3 == 0
    for dtype in BY_KIND["fiub"]:
        kind = dtypes.as_dtype(dtype)
        for value in constants(dtype):
            with np.errstate(over="ignore"):
                stored, one = (np.array(v).astype(kind.storage) for v in (value, 1))
            outputs += [b.full((19,), value, kind), b.where(mask, b.full((19,), value, kind), b.full((19,), 1, kind))]
            expected += [np.full(19, stored), np.where(chosen, stored, one)]
    for t, got, exact in zip(outputs, run_on(device, outputs, {mask: chosen}), expected, strict=True):
        nan = exact != exact
        assert got.dtype == exact.dtype and np.array_equal(got != got, nan), t
        assert got[~nan].tobytes() == exact[~nan].tobytes(), f"{t}: {got[~nan][:1]} instead of {exact[~nan][:1]}"


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_below_the_normal_range_are_kept(device: str) -> None:
    """Devices must not flush them to zero."""
    cases = []
    for dtype, small in (("float32", 1e-40), ("float64", 1e-310), ("float16", 3e-6), ("bfloat16", 1e-39)):
        x = (np.arange(1, 20) * small).astype(dtypes.as_dtype(dtype).storage)
        cases += [(OPS["add"](), x, x[::-1].copy()), (OPS["mul"](), x, np.full_like(x, 0.5)), (OPS["maximum"](), x, -x)]
    check(device, cases)
