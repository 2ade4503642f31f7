"""Every math function of generated kernels against float64 or extended precision, on every device at its widths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends.codegen import mathlib
from backends.codegen.prelude import prelude_for
from backends.opencl.compiler import build
from backends.opencl.device.device import DeviceInfo, icd, list_devices, open_device
from backends.opencl.language import language_of
from graphcore.kernel import functions

pytest.importorskip("pyopencl")
special = pytest.importorskip("scipy.special")

Array = np.ndarray[Any, Any]
WIDE = np.longdouble
DEVICES = [d for d in list_devices() if d.kind in ("cpu", "gpu")]


def digamma(x: Array) -> Array:
    """psi(x): SciPy's for positive numbers; below, the recurrence or the reflection, where SciPy loses digits."""
    part = x - np.rint(x)
    mirrored = special.digamma(1 - x) - np.pi / np.tan(np.pi * part)
    result = np.where(x > -1, special.digamma(x + 1) - 1 / x, np.where(part == 0, np.nan, mirrored))
    return np.where((x >= 0) | ~np.isfinite(x), special.digamma(x), result)


def zeta(x: Array, n: Array) -> Array:
    """n! zeta(n + 1, x): SciPy's, which takes x down to -100 or so by the recurrence."""
    return np.asarray(special.gamma(n + 1) * special.zeta(n + 1, x))


def polygamma(x: Array, n: Array) -> Array:
    """The n-th derivative of psi by SciPy's zeta; far below 0, the terms around the nearest pole less the rest."""
    sign, part = np.where(n % 2 == 0, -1.0, 1.0), x - np.rint(x)
    mirrored = zeta(part, n) + sign * (zeta(1 - part, n) - zeta(1 - np.minimum(x, 0), n))
    result = sign * np.where(x < -100, mirrored, zeta(np.maximum(x, -100.5), n))
    result = np.where((part == 0) & (x < 0), np.where(sign > 0, np.inf, np.nan), result)
    result = np.where(x == 0, np.where(sign > 0, np.inf, np.copysign(np.inf, -x)), result)
    return np.where(np.isfinite(x), result, np.where(x > 0, 0.0, np.nan))


def each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of Python's math module (the C library's) for arrays; at a pole, infinite."""

    def one(x: float) -> float:
        try:
            return function(x)
        except (ValueError, OverflowError):
            return math.inf

    return np.vectorize(one, otypes=[np.float64])


SAME = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")
ARCS = ("asin", "acos", "atan", "atan2", "asinh", "acosh", "atanh")
REFERENCES: dict[str, Callable[..., Array]] = {
    **{name: getattr(np, name) for name in (*SAME, "floor", "ceil", "trunc", "copysign")},
    **{name: getattr(np, "arc" + name[1:]) for name in ARCS},
    "round": np.rint,
    "pow": np.power,
    "fma": lambda x, y: functions.lookup("fma").numpy(x, y, x),  # type: ignore[misc]
    "erf": each(math.erf),
    "erfc": each(math.erfc),
    "erfinv": special.erfinv,
    "lgamma": each(math.lgamma),
    "digamma": digamma,
    "polygamma": polygamma,
}
BINARY = {"pow", "atan2", "copysign", "polygamma", "fma"}
NARROW = {"erf", "erfc", "erfinv", "lgamma", "digamma", "polygamma"}  # references in float64 only
# Units in the last place, else 4.
LIMITS = {"erf": 8.0, "erfc": 8.0, "erfinv": 8.0, "lgamma": 16.0, "digamma": 16.0, "polygamma": 16.0}
EXACT = {"fma", "floor", "ceil", "trunc", "round", "copysign"}


def inputs(dtype: Any, seed: int) -> Array:
    """Special values, then numbers of all magnitudes, and more of them where functions do something."""
    rng, facts = np.random.default_rng(seed), np.finfo(dtype)
    some = [0.0, 1.0, 0.5, 1.5, 2.0, 2.5, 3.0, np.pi, 20.0, 88.7, 103.0, 709.5, 745.0, 1e-5, np.inf, float(facts.max)]
    some += [float(facts.tiny), 1 - float(facts.epsneg), 1 + float(facts.eps), 105615.0, 105616.0, 8388609.0]
    values = np.array([*some, *(-x for x in some), np.nan])
    powers = np.exp2(rng.uniform(np.log2(float(facts.tiny)) + 1, np.log2(float(facts.max)) * 0.999, 1500))
    parts = [values, powers * rng.choice([-1, 1], 1500), rng.uniform(-10, 10, 1500), rng.uniform(-1, 1, 800)]
    parts += [1 + rng.normal(0, 1e-3, 200), rng.uniform(-100, 100, 300)]
    return np.resize(np.concatenate(parts).astype(dtype), 4352)


def orders(x: Array) -> Array:
    """The orders of polygamma that go with the inputs: 1 to 5 in turn."""
    return (1 + np.arange(x.size) % 5).astype(x.dtype)


def errors(got: Array, reference: Array) -> Array:
    """Distance in units in the last place; 0 where both are the same infinity or NaN, else infinite."""
    rounded = reference.astype(got.dtype)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    finite = np.isfinite(got) & np.isfinite(rounded)
    tiny = np.finfo(got.dtype).tiny
    unit = np.spacing(np.maximum(np.abs(np.where(finite, rounded, 1)), tiny)).astype(
        WIDE
    )  # results below may flush to 0
    distance = np.abs(np.where(finite, got, 0).astype(WIDE) - np.where(finite, reference, 0).astype(WIDE)) / unit
    return np.where(same & ~finite, 0, np.where(finite, distance, np.inf)).astype(np.float64)


def compute(info: DeviceInfo, dtype: str, width: int) -> tuple[dict[str, Array], Array, Array]:
    """Run every function on one device; return the results and both operands."""
    cl, language = icd.load(), language_of(info.vendor)
    device = open_device(info.spec)
    vector = f"{dtype}{width}" if width > 1 else dtype
    load, store = ("vload{0}(i, {1})", "vstore{0}({1}, i, o)") if width > 1 else ("{1}[i]", "o[i] = {1}")
    kernels = []
    for fn in sorted(mathlib.FUNCTIONS):
        operands = "a, b, a" if fn == "fma" else "a, b" if fn in BINARY else "a"
        call = f"{language.function(fn, dtype, width)}({operands})"
        kernels.append(
            f"__kernel void k_{fn}(__global const {dtype} *x, __global const {dtype} *y, __global {dtype} *o) {{\n"
            f"  int i = get_group_id(0);\n  {vector} a = {load.format(width, 'x')}, b = {load.format(width, 'y')};\n"
            f"  {store.format(width, call)};\n}}\n"
        )
    body = "".join(kernels)
    program = build.build_program(device, language.header + prelude_for(body, language) + body)
    kind = np.float32 if dtype == "float" else np.float64
    x, y = inputs(kind, 1), np.random.default_rng(3).permutation(inputs(kind, 2))
    flags = cl.mem_flags
    buffers = [cl.Buffer(device.context, flags.COPY_HOST_PTR, hostbuf=a) for a in (x, y, x, orders(x))]
    results = {}
    for fn in mathlib.FUNCTIONS:
        kernel = cl.Kernel(program, f"k_{fn}")
        kernel.set_args(buffers[0], buffers[3 if fn == "polygamma" else 1], buffers[2])
        cl.enqueue_nd_range_kernel(device.queue, kernel, (len(x) // width,), (1,))
        results[fn] = np.empty_like(x)
        cl.enqueue_copy(device.queue, results[fn], buffers[2])
    return results, x, y


def cases() -> list[Any]:
    found = []
    for info in DEVICES:
        for dtype, size in (("float", 4), ("double", 8)):
            if dtype == "float" or info.fp64:
                widths = sorted({1, info.lanes(size)})
                found += [pytest.param(info, dtype, w, id=f"{info.vendor}-{dtype}{w}") for w in widths]
    return found


@pytest.mark.parametrize(("info", "dtype", "width"), cases())
def test_functions_are_accurate(info: DeviceInfo, dtype: str, width: int) -> None:
    results, x, y = compute(info, dtype, width)
    wrong = []
    for fn, got in sorted(results.items()):
        wide = got.dtype.type if fn == "fma" else np.float64 if fn in NARROW else WIDE
        with np.errstate(all="ignore"):
            second = orders(x) if fn == "polygamma" else y
            reference = REFERENCES[fn](*(a.astype(wide) for a in ((x, second) if fn in BINARY else (x,))))
            error = errors(got, reference)
            if fn in ("lgamma", "digamma"):  # near their zeros x does not determine the value better than absolutely
                scale = np.maximum(1, np.abs(reference))
                error = np.where(np.abs(got - reference) <= 32 * np.finfo(got.dtype).eps * scale, 0, error)
            if fn == "polygamma":  # as near the roots of its even orders: absolutely, as the next pole is large
                scale = zeta(np.abs(x - np.rint(x)).astype(wide), second.astype(wide))
                error = np.where((x < 0) & (np.abs(got - reference) <= 16 * np.finfo(got.dtype).eps * scale), 0, error)
        limit = 0.0 if fn in EXACT else LIMITS.get(fn, 4.0)
        bad = np.flatnonzero(~(error <= limit))
        if bad.size:
            i = bad[np.argmax(error[bad])]
            wrong.append(
                f"{fn}({x[i]!r}, {y[i]!r}) = {got[i]!r}, not {reference[i]!r}: {error[i]:.3g} ulp, {bad.size} such"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("info", "dtype", "width"), cases())
def test_signs_of_zero(info: DeviceInfo, dtype: str, width: int) -> None:
    results, x, _ = compute(info, dtype, width)
    zero = x == 0
    assert np.signbit(x[zero]).any() and not np.signbit(x[zero]).all()
    for fn in (
        "sin",
        "tan",
        "tanh",
        "erf",
        "erfinv",
        "asin",
        "atan",
        "sinh",
        "expm1",
        "log1p",
        "sqrt",
        "floor",
        "round",
    ):
        assert (results[fn][zero] == 0).all() and (np.signbit(results[fn][zero]) == np.signbit(x[zero])).all(), fn


def test_every_function_has_a_reference() -> None:
    assert set(REFERENCES) == mathlib.FUNCTIONS


def test_prelude_defines_what_is_called_and_nothing_else() -> None:
    def defined(source: str, vendor: str) -> list[str]:
        return re.findall(
            r"\b(gc_\w+)\((?:float|double)\d* \w+(?:, \w+ \w+)*\) {", prelude_for(source, language_of(vendor))
        )

    source = "y = gc_erfinv_double4(x) + gc_sin_float8(z) + sin(x);"
    assert sorted(defined(source, "pocl")) == ["gc_erfinv_double", "gc_erfinv_double4", "gc_sin_float8"]
    assert defined("y = exp(x);", "pocl") == []
    assert defined("gc_softplus_float8(x)", "nvidia") == ["gc_abs_float8", "gc_atleast_float8", "gc_softplus_float8"]
    assert defined("gc_pow_float16(x, y)", "pocl") == ["gc_pow_float4", "gc_pow_float8", "gc_pow_float16"]
    assert defined("gc_floordiv_double8(x, y)", "pocl") == ["gc_fmod_double8", "gc_floordiv_double8"]
