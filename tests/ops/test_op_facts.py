"""What ops say of themselves, checked against their references and their lowerings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.devices import FAMILIES

from graphcore.base import dtypes
from graphcore.ir.op import Kind, Lowering, Map, Op, TensorType, View, lookup, primitive, registered
from graphcore.kernel import expr
from graphcore.kernel.contraction import Role
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index, flatten

OPS = {name: cls for name, cls in registered().items() if cls.__module__ in FAMILIES}
EXAMPLES = {
    name: [(op, arrays) for op, *arrays in cls.examples(object.__new__(cls))]
    for name, cls in OPS.items()
    if cls.kind not in (Kind.LEAF, Kind.REGION)
}
CASES = [
    pytest.param(op, arrays, id=f"{name}-{i}") for name, all_ in EXAMPLES.items() for i, (op, arrays) in enumerate(all_)
]


def of(fact: str) -> list[Any]:
    """The examples of ops that have a fact."""
    return [p for p in CASES if getattr(p.values[0], fact)]


def reference(op: Op, arrays: Any) -> Any:
    with np.errstate(all="ignore"):
        found = op.reference(*arrays)
    return found[0] if isinstance(found, tuple) else found


class Lowered(NamedTuple):
    """One element of an op's first result: its value, its index, and where every operand is read."""

    value: Expr
    index: tuple[Index, ...]
    reads: list[list[tuple[Index, ...]]]


def lowered(op: Op, arrays: Any) -> Lowered:
    inputs = tuple(TensorType(np.shape(a), dtypes.as_dtype(np.asarray(a).dtype)) for a in arrays)
    outputs = op.infer(*inputs)
    index = tuple(as_index(Axis(f"i{n}", e, PARALLEL)) for n, e in enumerate(outputs[0].shape))
    reads: list[list[tuple[Index, ...]]] = [[] for _ in inputs]

    def read(i: int, at: tuple[Index, ...], guard: Expr | None = None) -> Expr:
        reads[i].append(at)
        return expr.load(i, flatten(at, inputs[i].shape), inputs[i].dtype, guard)

    def axis(extent: Any, position: int) -> Axis | None:
        return Axis(f"r{position}", extent, REDUCE) if extent != 1 else None

    return Lowered(op.lower(Lowering(inputs, outputs, 0, axis), index, read), index, reads)


def reduces(op: Op, arrays: Any) -> bool:
    return any(v.fn == "reduce" for v in expr.walk(lowered(op, arrays).value))


@pytest.mark.parametrize(("op", "arrays"), of("is_alias"))
def test_aliases_have_the_bytes_of_their_operand(op: Op, arrays: Any) -> None:
    assert reference(op, arrays).tobytes() == np.ascontiguousarray(arrays[0]).tobytes()


@pytest.mark.parametrize(("op", "arrays"), of("inverts_index"))
def test_views_that_invert_say_where_an_element_goes(op: Op, arrays: Any) -> None:
    assert isinstance(op, View) and type(op).result_index is not View.result_index
    numbers = np.arange(np.size(arrays[0])).reshape(np.shape(arrays[0]))
    viewed = op.reference(numbers)
    for place in np.ndindex(*numbers.shape):
        found = op.result_index(numbers.shape, tuple(map(Index, place)))
        assert not any(i.terms for i in found)
        assert viewed[tuple(i.constant for i in found)] == numbers[place]


@pytest.mark.parametrize(("op", "arrays"), of("only_repeats"))
def test_repeating_views_lose_and_make_nothing(op: Op, arrays: Any) -> None:
    result = reference(op, arrays)
    assert {*result.ravel().tolist()} == ({*np.ravel(arrays[0]).tolist()} if result.size else set())


@pytest.mark.parametrize(("op", "arrays"), of("joins"))
def test_joined_operands_are_all_there(op: Op, arrays: Any) -> None:
    assert reference(op, arrays).size == sum(a.size for a in arrays)
    assert sorted(reference(op, arrays).ravel().tolist()) == sorted(x for a in arrays for x in a.ravel().tolist())


@pytest.mark.parametrize(("op", "arrays"), [p for p in CASES if p.values[0].cut() is not None])
def test_cuts_are_slices(op: Op, arrays: Any) -> None:
    starts, lengths, steps = op.cut() or ((), (), ())
    where = tuple(slice(a, a + int(n) * s, s) for a, n, s in zip(starts, lengths, steps, strict=True))
    assert np.array_equal(reference(op, arrays), arrays[0][where])


@pytest.mark.parametrize(("op", "arrays"), of("retypes"))
def test_retyped_values_are_the_same_where_they_fit(op: Op, arrays: Any) -> None:
    given, found = np.asarray(arrays[0]), reference(op, arrays)
    if np.can_cast(given.dtype, found.dtype, "safe"):
        assert np.array_equal(found.astype(given.dtype), given, equal_nan=given.dtype.kind == "f")


def test_loops_are_those_of_the_lowering() -> None:
    """An op that loops has a reduction in some example, one that does not has none in any."""
    for name, examples in EXAMPLES.items():
        looping = [(op, arrays) for op, arrays in examples if op.loops]
        still = [(op, arrays) for op, arrays in examples if not op.loops and op.kind is Kind.OPAQUE]
        assert not looping or any(reduces(*e) for e in looping), name
        assert not any(reduces(*e) for e in still), name
        assert all(op.kind is Kind.OPAQUE for op, _ in looping), name


@pytest.mark.parametrize(("op", "arrays"), of("inline"))
def test_what_is_inline_is_cheap_to_repeat(op: Op, arrays: Any) -> None:
    assert op.kind in (Kind.VIEW, Kind.OPAQUE) and not op.loops


@pytest.mark.parametrize("name", EXAMPLES)
def test_linear_operands(name: str) -> None:
    """The result is linear in the operands that the op says, all at once, and in no other one."""
    if issubclass(OPS[name], Map):
        return
    bends: dict[tuple[int, ...], bool] = {}
    for op, arrays in EXAMPLES[name]:
        wide = [np.asarray(a, np.float64) if np.asarray(a).dtype == np.float32 else np.asarray(a) for a in arrays]
        claimed = op.linear_in(len(wide))
        assert all(0 <= i < len(wide) for i in claimed)
        floats = [i for i, a in enumerate(wide) if a.dtype == np.float64 and a.size]
        _, bent = bend(op, wide, [i for i in claimed if i in floats])
        assert not bent
        others = {(i,) for i in floats} | {tuple(floats)} if op.kind is not Kind.CONTRACT else ()
        for some in others:
            moved, bent = bend(op, wide, some)
            if not {*some} <= {*claimed} and moved:
                bends[some] = bends.get(some, False) or bent
    assert all(bends.values()), f"{name} is linear in operands {[some for some, bent in bends.items() if not bent]}"


def bend(op: Op, arrays: list[Any], moved: Sequence[int]) -> tuple[bool, bool]:
    """Whether other operands at some positions change a floating result, and whether they do so nonlinearly."""
    rng = np.random.default_rng(5)
    other = {i: rng.permutation(arrays[i].ravel()).reshape(arrays[i].shape) * 0.5 + 0.25 for i in moved}
    results = [
        reference(op, [change(a, other[i]) if i in other else a for i, a in enumerate(arrays)])
        for change in (lambda a, b: a, lambda a, b: b, lambda a, b: a + b)
    ]
    if results[0].dtype != np.float64 or not moved:
        return False, False
    first, second, both = results
    with np.errstate(all="ignore"):
        return True, not np.allclose(first + second, both, 1e-9, 1e-9, equal_nan=True)


@pytest.mark.parametrize(("op", "arrays"), [p for p in of("commutative") if len(p.values[1]) == 2])
def test_commuting_operands(op: Op, arrays: Any) -> None:
    """The same value in either order; the same bits where the op says so."""
    swapped = reference(op, arrays[::-1])
    assert np.array_equal(reference(op, arrays), swapped, equal_nan=swapped.dtype.kind == "f")
    if arrays[0].dtype != np.float32 or not op.commutes(dtypes.float32):
        return
    special = np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan], np.float32)
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    one, two = reference(op, [x, y]), reference(op, [y, x])
    assert ((one == two) & (np.signbit(one) == np.signbit(two)) | (one != one) & (two != two)).all()


def test_selections_of_floats_do_not_commute() -> None:
    """A maximum of 0 and -0 is one of the two, by their order; comparisons have no such choice."""
    assert not lookup("maximum")().commutes(dtypes.float32) and lookup("maximum")().commutes(dtypes.int32)
    assert lookup("equal")().commutes(dtypes.float32) and lookup("add")().commutes(dtypes.float32)
    assert not lookup("sub")().commutes(dtypes.int32)


@pytest.mark.parametrize(("op", "arrays"), [p for p in CASES if p.values[0].identity is not None])
def test_identities_change_nothing(op: Op, arrays: Any) -> None:
    if len(arrays) == 2:
        neutral = np.full_like(arrays[0], op.identity)
        assert np.array_equal(reference(op, [arrays[0], neutral]), arrays[0], equal_nan=arrays[0].dtype.kind == "f")


@pytest.mark.parametrize(("op", "arrays"), [p for p in CASES if p.values[0].kind is Kind.CONTRACT])
def test_roles_are_those_of_the_lowering(op: Op, arrays: Any) -> None:
    types = [TensorType(a.shape, dtypes.as_dtype(a.dtype)) for a in arrays]
    roles = op.contraction_roles(*types)
    assert roles is not None
    assert [len(roles.first), len(roles.second)] == [t.rank for t in types]
    if (roles.window and roles.window.groups > 1) or any(e < 2 for t in (*types, *op.infer(*types)) for e in t.shape):
        return  # groups are rows and columns at once, and extents of 1 have no axes
    found = lowered(op, arrays)
    assert len(roles.result) == len(found.index)
    ((first,), (second,)) = found.reads
    depends = [frozenset().union(*(i.axes() for i in at)) for at in (first, second)]
    sides: dict[Role, set[int]] = {}
    mine: dict[Role, set[Axis]] = {}
    for role, index in zip(roles.result, found.index, strict=True):
        (axis,) = index.axes()
        where = {i for i, axes in enumerate(depends) if axis in axes}
        assert len(where) == (2 if role is Role.BATCH else 1)
        sides.setdefault(Role.ROW if role is Role.WALKED else role, set()).update(where)
        mine.setdefault(role, set()).add(axis)
    assert len(sides[Role.ROW]) == len(sides[Role.COLUMN]) == 1 and sides[Role.ROW] != sides[Role.COLUMN]
    for at, given in ((first, roles.first), (second, roles.second)):
        for index, role in zip(at, given, strict=True):
            summed = {a for a in index.axes() if a.kind == REDUCE}
            kept = index.axes() - summed
            assert bool(summed) == (role in (Role.TERM, Role.WALKED))
            if role is Role.TERM:  # where the result is walked, positions follow from a place and a tap
                assert not kept or Role.WALKED in roles.result
            else:
                assert kept and (role is Role.WALKED or kept <= mine[role])


def test_attributes_may_not_hide_facts() -> None:
    with pytest.raises(ValueError, match="loops, cut"):

        @primitive
        class Looping(Map):
            """x, with attributes that passes would take for answers."""

            loops: int  # type: ignore[assignment]
            cut: int  # type: ignore[assignment]

    assert "looping" not in registered()


def test_every_fact_is_used_by_some_op() -> None:
    facts = (
        "is_alias",
        "inverts_index",
        "only_repeats",
        "joins",
        "inline",
        "loops",
        "commutative",
        "smooth",
        "steep",
        "retypes",
    )
    for fact in facts:
        assert any(getattr(op, fact) for examples in EXAMPLES.values() for op, _ in examples), fact
        assert not all(getattr(op, fact) for examples in EXAMPLES.values() for op, _ in examples), fact
