"""Parts of kernels: what the verifier refuses, how parts are cut again, how they print and run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphcore.base.dtypes import float32, int32
from graphcore.base.errors import VerifyError
from graphcore.kernel import expr
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Dynamic, Index, as_index
from graphcore.kernel.interpret import run_kernel, run_parts
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.kernel.parts import Part, Parts, Workspace, print_parts, refined, uncut, verify_parts, without_unused

ROW, R = Axis("i0", 6, PARALLEL), Axis("r0", 6, REDUCE)
AT = as_index(ROW)
VECTOR, ONE = Param("p0", float32, (6,)), Param("p1", float32, ())


def doubled() -> Kernel:
    """p1 = p0 + p0, elementwise."""
    x = expr.load(0, AT, float32)
    return Kernel("doubled", (VECTOR, Param("p1", float32, (6,))), (ROW,), (Store(1, AT, expr.call("add", x, x)),))


def summed() -> Kernel:
    """p1 = the sum of p0."""
    total = expr.reduce("add", (R,), expr.load(0, as_index(R), float32))
    return Kernel("summed", (VECTOR, ONE), (), (Store(1, as_index(Axis("one", 1)) * 0, total),))


def whole() -> Kernel:
    """p1 = the sum of p0 + p0."""
    x = expr.load(0, as_index(R), float32)
    return replace(
        summed(),
        name="whole",
        stores=(replace(summed().stores[0], value=expr.reduce("add", (R,), expr.call("add", x, x))),),
    )


def parts() -> Parts:
    return Parts(
        whole(),
        (Part(doubled(), (0, 2), helper=True), Part(summed(), (2, 1), counted=whole())),
        (Workspace((6,), float32),),
        ("for the test",),
    )


def test_parts_run_one_after_the_other() -> None:
    verify_parts(parts())
    x, wanted, found = np.arange(6, dtype=np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)
    run_kernel(whole(), [x, wanted])
    run_parts(parts(), [x, found])
    assert found == wanted == 30


def test_workspaces_hold_nothing_at_first_and_zeros_where_parts_add_to_them() -> None:
    early = replace(parts(), parts=parts().parts[1:])
    found = np.zeros(1, np.float32)
    run_parts(early, [np.ones(6, np.float32), found])
    assert np.isnan(found)
    adding = replace(doubled(), stores=(replace(doubled().stores[0], mode="add"),))
    added = replace(parts(), parts=(replace(parts().parts[0], kernel=adding), parts().parts[1]))
    run_parts(added, [np.ones(6, np.float32), found])
    assert found == 12


PLACES: dict[str, Callable[[Index], Index]] = {
    "itself": lambda at: at,
    "a step": lambda at: at * 2 + 1,
    "a quotient": lambda at: (at + AT) // 2,
    "a remainder": lambda at: (at + AT) % 3,
}


@pytest.mark.parametrize("place", PLACES)
def test_indices_are_read_from_the_parameters_that_are_left(place: str) -> None:
    """p3 = p2 at what p1 says, as a number, a load and a test of its range; the unused p0 goes."""
    named = Dynamic(expr.load(1, AT, int32), 3)
    at = PLACES[place](as_index(named))
    value = expr.call("add", expr.load(2, at, float32), expr.index_value(at, float32))
    value = expr.select(expr.in_range(at, 1, 4), value, expr.const(-1, float32))
    params = tuple(Param(f"p{n}", t, (6,)) for n, t in enumerate((float32, int32, float32, float32)))
    kernel = Kernel("gathers", params, (ROW,), (Store(3, AT, value),))
    used, small = without_unused(kernel)
    assert used == (1, 2, 3) and not small.read() - {0, 1}
    arrays = [np.full(6, 7, np.float32), np.array([2, 0, 1, 1, 2, 0], np.int32), np.arange(6, dtype=np.float32) * 10]
    wanted, found = np.zeros(6, np.float32), np.zeros(6, np.float32)
    run_kernel(kernel, [*arrays, wanted])
    run_kernel(small, [*arrays[1:], found])
    np.testing.assert_array_equal(found, wanted)
    assert len(set(wanted)) > 2


def test_the_print_says_what_is_behind_each_parameter() -> None:
    text = print_parts(parts())
    assert text.startswith("part 0 of whole over p0, w0\nkernel doubled") and "part 1 of whole over w0, p1\n" in text
    assert str(parts()) == text


def with_part(number: int, **changes: object) -> Parts:
    made = list(parts().parts)
    made[number] = replace(made[number], **changes)  # type: ignore[arg-type]
    return replace(parts(), parts=tuple(made))


BROKEN: dict[str, Callable[[], Parts]] = {
    "1 parameters are behind the 2 of doubled": lambda: with_part(0, params=(0,)),
    "nothing is behind p1 of doubled": lambda: with_part(0, params=(0, 3)),
    "p1 of doubled is of another type": lambda: replace(parts(), workspaces=(Workspace((6,), int32),)),
    "summed reads p0, which no part has written": lambda: replace(parts(), parts=parts().parts[::-1]),
    "doubled writes parameter 0 of whole": lambda: with_part(0, params=(0, 0)),
    "no part of whole writes its parameter 1": lambda: replace(parts(), parts=parts().parts[:1]),
    "store to unknown parameter 5": lambda: with_part(
        0, kernel=replace(doubled(), stores=(replace(doubled().stores[0], param=5),))
    ),
}


@pytest.mark.parametrize("words", BROKEN)
def test_broken_parts_are_refused(words: str) -> None:
    with pytest.raises(VerifyError, match=re.escape(words)):
        verify_parts(BROKEN[words]())


def test_a_part_is_cut_again_over_the_same_memory() -> None:
    """The sum becomes a copy and the sum of the copy: one more workspace, after the ones that were there."""
    x = expr.load(0, AT, float32)
    copy = replace(doubled(), name="copy", stores=(Store(1, AT, x),))

    def again(kernel: Kernel) -> Parts | None:
        if kernel != summed():
            return None
        cut = (Part(copy, (0, 2), helper=True), Part(summed(), (2, 1), counted=kernel))
        return Parts(kernel, cut, (Workspace((6,), float32),), ("again",))

    made = refined(parts(), again)
    verify_parts(made)
    assert [p.params for p in made.parts] == [(0, 2), (2, 3), (3, 1)]
    assert [p.helper for p in made.parts] == [True, True, False]
    assert [p.counted for p in made.parts] == [None, None, summed()]
    assert made.reasons == ("for the test", "again") and len(made.workspaces) == 2
    found = np.zeros(1, np.float32)
    run_parts(made, [np.arange(6, dtype=np.float32), found])
    assert found == 30


def test_parts_of_what_no_report_counts_are_not_counted() -> None:
    hidden = with_part(1, counted=None, helper=True)
    made = refined(hidden, lambda kernel: uncut(kernel) if kernel == summed() else None)
    assert made.parts[1].helper and made.parts[1].counted is None
