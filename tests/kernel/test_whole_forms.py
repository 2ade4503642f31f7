"""Scans, sorts, transforms and factorisations: their meaning on the kernel oracle, and the rules that they keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.numpy.runtime import open_numpy
from backends.opencl.target import make_target
from benchmarks.golden import DEVICES
from graphcore.base.dtypes import as_dtype, int64
from graphcore.base.errors import VerifyError
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import Axis, as_index, flatten
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, Param, Store, print_kernel, verify_kernel
from graphcore.kernel.parts import without_unused
from graphcore.kernel.whole_forms import Factor, Factorisation, Scan, Sort, WholeForm
from graphcore.plan.target import Reject

B, J, K = Axis("i0", 3), Axis("i1", 4), Axis("i2", 5)
Make = Callable[[tuple[Computed, ...], tuple[Expr, ...]], WholeForm]


def kernel_of(
    make: Make, axes: tuple[Axis, ...], results: list[tuple[Any, tuple[Axis, ...]]], dtype: str, parts: int = 1
) -> Kernel:
    """A form of operands plus one, each in a parameter; what is stored is each result plus itself."""
    own, shape = as_dtype(dtype), tuple(int(a.extent) for a in axes)  # type: ignore[call-overload]
    at = flatten(tuple(map(as_index, axes)), shape)
    operands = tuple(
        Computed(expr.call("add", expr.load(i, at, own), expr.const(1, own)), axes, shape) for i in range(parts)
    )
    params = [Param(f"p{i}", own, shape) for i in range(parts)]
    leaves, stores = [], []
    for number, (kind, over) in enumerate(results):
        leaf = expr.leaf(f"result{number}", kind or own, over)
        extents = tuple(a.extent for a in over)
        stores.append(Store(len(params), flatten(tuple(map(as_index, over)), extents), expr.call("add", leaf, leaf)))
        params.append(Param(f"p{len(params)}", leaf.dtype, extents))
        leaves.append(leaf)
    every = tuple(dict.fromkeys(a for over in (axes, *(o for _, o in results)) for a in over))
    return Kernel("whole", tuple(params), every, tuple(stores), form=make(operands, tuple(leaves)))


def run(kernel: Kernel, *given: Any) -> list[Any]:
    """What a kernel stores, halved, and in the shape of its parameters."""
    verify_kernel(kernel)
    made = kernel.params[len(given) :]
    buffers = [x.ravel().astype(p.dtype.storage) for x, p in zip(given, kernel.params, strict=False)]
    buffers += [np.zeros(p.shape, p.dtype.storage).ravel() for p in made]  # type: ignore[arg-type]
    run_kernel(kernel, buffers)
    return [b.reshape(p.shape) / 2 for b, p in zip(buffers[len(given) :], made, strict=True)]


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


SCANS = {"add": np.cumsum, "mul": np.cumprod, "max": np.maximum.accumulate, "min": np.minimum.accumulate}


@pytest.mark.parametrize("combine", SCANS)
@pytest.mark.parametrize("axis", [B, J, K], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_scans(combine: str, axis: Axis, reverse: bool) -> None:
    x, number = numbers(3, 4, 5), (B, J, K).index(axis)
    kernel = kernel_of(lambda o, r: Scan(o, r, axis, combine, reverse), (B, J, K), [(None, (B, J, K))], "float64")
    (got,) = run(kernel, x)
    turned = np.flip(x + 1, number) if reverse else x + 1
    wanted = SCANS[combine](turned, axis=number)
    np.testing.assert_allclose(got, np.flip(wanted, number) if reverse else wanted, 1e-12)


@pytest.mark.parametrize(("combine", "identity"), [("add", 0), ("mul", 1)])
def test_exclusive_scans_begin_with_the_identity(combine: str, identity: int) -> None:
    x = np.arange(12).reshape(3, 4)
    kernel = kernel_of(lambda o, r: Scan(o, r, J, combine, exclusive=True), (B, J), [(None, (B, J))], "int64")
    (got,) = run(kernel, x)
    assert np.array_equal(got[:, 0], [identity] * 3)
    assert np.array_equal(got[:, 1:], SCANS[combine](x + 1, axis=1)[:, :-1])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_sorts_are_stable_and_put_nan_last(descending: bool, dtype: str) -> None:
    x = np.array([[2.0, 1.0, 2.0, 1.0, 0.0], [5, 4, 3, 2, 1], [0, 0, 0, 0, 0], [1, 3, 1, 3, 1]])
    axes = Axis("i0", 4), K
    kernel = kernel_of(lambda o, r: Sort(o, r, K, descending), axes, [(None, axes), (int64, axes)], dtype)
    if dtype == "float32":
        x[1, 2] = np.nan
    keys, where = run(kernel, x)
    key = np.where(np.isnan(x), np.inf, -x if descending else x)
    wanted = np.argsort(key, axis=1, kind="stable")
    assert np.array_equal(where, wanted)
    assert np.array_equal(keys, np.take_along_axis(x + 1, wanted, 1), equal_nan=True)


def test_cholesky() -> None:
    n, m = Axis("i1", 4), Axis("i2", 4)
    kernel = kernel_of(lambda o, r: Factor(o, r, Factorisation.CHOLESKY), (B, n, m), [(None, (B, n, m))], "float64")
    a = numbers(3, 4, 4)
    a = a @ a.swapaxes(1, 2) + 4 * np.eye(4)
    (low,) = run(kernel, a - 1)
    np.testing.assert_allclose(low @ low.swapaxes(1, 2), a, 1e-10)
    assert np.array_equal(low, np.tril(low)) and (np.diagonal(low, axis1=1, axis2=2) > 0).all()


def test_lu_permutes_rows() -> None:
    n, m = Axis("i1", 4), Axis("i2", 4)
    results = [(None, (B, n, m)), (int64, (B, n))]
    kernel = kernel_of(lambda o, r: Factor(o, r, Factorisation.LU), (B, n, m), results, "float64")
    a = numbers(3, 4, 4)
    a[0, 0, 0] = 0
    packed, order = run(kernel, a - 1)
    product = (np.tril(packed, -1) + np.eye(4)) @ np.triu(packed)
    np.testing.assert_allclose(product, np.take_along_axis(a, order.astype(int)[..., None], 1), atol=1e-12)
    assert (order != np.arange(4)).any() and np.abs(np.tril(packed, -1)).max() <= 1


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (3, 5), (4, 4)])
def test_qr_is_reduced(rows: int, columns: int) -> None:
    n, m, k = Axis("i1", rows), Axis("i2", columns), Axis("i3", min(rows, columns))
    results = [(None, (B, n, k)), (None, (B, k, m))]
    kernel = kernel_of(lambda o, r: Factor(o, r, Factorisation.QR, k), (B, n, m), results, "float64")
    a = numbers(3, rows, columns)
    q, r = run(kernel, a - 1)
    np.testing.assert_allclose(q @ r, a, atol=1e-12)
    np.testing.assert_allclose(q.swapaxes(1, 2) @ q, np.stack([np.eye(min(rows, columns))] * 3), atol=1e-12)
    assert np.array_equal(r, np.triu(r))


def scan_kernel() -> Kernel:
    return kernel_of(lambda o, r: Scan(o, r, J), (B, J), [(None, (B, J))], "float32")


def test_broken_forms_are_refused() -> None:
    scan = scan_kernel()
    square = kernel_of(lambda o, r: Factor(o, r, Factorisation.LU), (B, J), [(None, (B, J)), (int64, (B,))], "float64")
    form = scan.form
    assert isinstance(form, Scan)
    other = expr.leaf("result0", as_dtype("float64"), (B, J))
    stray = replace(form.operands[0], value=expr.load(7, form.operands[0].value.args[0].index, as_dtype("float32")))
    broken: dict[str, tuple[Kernel, Any]] = {
        "which no parameter is": (scan, replace(form, operands=(stray,))),
        "cannot combine by and": (scan, replace(form, combine="and")),
        "cannot combine by exclusive max": (scan, replace(form, combine="max", exclusive=True)),
        "is along i2, which its operand lacks": (scan, replace(form, axis=K)),
        "axes that are not the kernel's": (scan, replace(form, operands=(replace(form.operands[0], axes=(B, K)),))),
        "an operand of": (scan, replace(form, operands=(replace(form.operands[0], shape=(12,)),))),
        "has results of": (scan, replace(form, results=(other,))),
        "is no leaf over": (scan, replace(form, results=(form.operands[0].value,))),
        "does not make": (scan, replace(form, results=(expr.leaf("else", as_dtype("float32"), (B, J)),))),
        "has no operands": (scan, replace(form, operands=())),
        "has 1 results, not 2": (scan, replace(form, results=form.results * 2)),
        "no form makes": (scan, None),
        "takes square matrices, not 3 x 4": (square, square.form),
    }
    for words, (kernel, made) in broken.items():
        with pytest.raises(VerifyError, match=words):
            verify_kernel(replace(kernel, form=made))


def test_a_form_is_printed() -> None:
    kernel = scan_kernel()
    line = "scan axis i1, combine add, reverse False, exclusive False: float32[i0,i1] of p0 -> float32[i0,i1]"
    assert f"\n  {line}\n" in print_kernel(kernel) and str(kernel) == print_kernel(kernel)
    n, m, k = Axis("i1", 4), Axis("i2", 3), Axis("i3", 3)
    results: list[tuple[Any, tuple[Axis, ...]]] = [(None, (B, n, k)), (None, (B, k, m))]
    qr = kernel_of(lambda o, r: Factor(o, r, Factorisation.QR, k), (B, n, m), results, "float64")
    line = "factor kind qr, inner i3: float64[i0,i1,i2] of p0 -> float64[i0,i1,i3], float64[i0,i3,i2]"
    assert f"\n  {line}\n" in str(qr)


def test_operands_are_read_and_move_with_their_parameters() -> None:
    kernel = scan_kernel()
    assert kernel.read() == {0} and kernel.written() == {1}
    form = kernel.form
    assert isinstance(form, Scan)
    two = replace(
        kernel,
        params=(kernel.params[1], *kernel.params),
        stores=(replace(kernel.stores[0], param=2),),
        form=form.renumbered({0: 1}),
    )
    used, small = without_unused(two)
    assert used == (1, 2) and small == kernel
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(run(small, x)[0], np.cumsum(x + 1, axis=1))


@pytest.mark.parametrize("device", ["intel", "h100"])
def test_a_device_refuses_by_name(device: str) -> None:
    target = make_target(DEVICES[device])
    assert target.schedule is not None
    answer = target.schedule(scan_kernel(), target, {})
    assert isinstance(answer, Reject) and answer.reason == "no family takes a Scan kernel"
    oracle = open_numpy("numpy:kernels").target
    assert oracle.schedule is not None and not isinstance(oracle.schedule(scan_kernel(), oracle, {}), Reject)
