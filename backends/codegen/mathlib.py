"""The built-in math functions of the table in generated kernels: which OpenCL built-in to call, or own code where none
is good enough.

Measured against extended precision over the whole range, special values included, alone and in vectors of mixed lanes,
on Intel's CPU runtime and on PoCL 3.0 for CPUs with and without AVX-512. The built-ins stay within 4 ulp, and a lane is
what the same value alone is, save on PoCL:

* Of 64-byte vectors of doubles `pow` is wrong where lanes differ: it goes lane by lane.
* `sin`, `cos` and `tan` of float vectors give 0.0102 for sin(0.00001) as soon as one lane is above 125.
* `tanh` of floats is never 1.
* Scalars, and vectors of less than 16 bytes, differ from the others in the last place: they are computed as parts of
  vectors.
* `pow` of floats takes ten times as long as our code, `erf` twice as long (on Intel's runtime as well).

`fmod` is own code on both: PoCL's, of 64-byte vectors of doubles, is wrong or does not end for lanes that differ;
Intel's gives b, not 0, for some multiples of tiny numbers.

PoCL on a CPU with AVX-512 that its LLVM does not know hangs or aborts on any 64-byte vector, whatever is computed: use
`DeviceInfo.lanes`.
"""

from __future__ import annotations

from backends.codegen import mathcode
from backends.codegen.language import Quirks

__all__ = ["FUNCTIONS", "NOWHERE", "TWO", "call", "definition"]

_SAME = """
    exp exp2 expm1 log log2 log10 log1p sqrt pow fma copysign floor ceil trunc sin cos tan asin acos atan atan2 sinh
    cosh tanh asinh acosh atanh erf erfc lgamma
""".split()
# Rounding goes to even, as in NumPy; OpenCL's `round` does not. Floor division and remainder are made of `fmod`.
_BUILTIN = {**{name: name for name in _SAME}, "round": "rint", "fmod": "fmod"}
NOWHERE = frozenset(("erfinv", "digamma", "polygamma"))  # no built-in has them
_EXACT = frozenset(("sqrt", "fma", "copysign", "floor", "ceil", "trunc", "round"))
TWO = frozenset(("pow", "atan2", "copysign", "polygamma", "fmod"))

# The functions of the table that this module computes, for float and double.
FUNCTIONS = frozenset(_BUILTIN) - {"fmod"} | NOWHERE


def call(fn: str, quirks: Quirks, dtype: str, width: int) -> str:
    """Return the name of the C function that computes a scalar function.

    Args:
        fn: One of `FUNCTIONS`, or "fmod".
        quirks: The runtime's.
        dtype: "float" or "double".
        width: Lanes of the vectors it is called with: 1, 2, 4, 8 or 16.

    Returns:
        A built-in, or a function that `definition` gives.
    """
    own = _template(fn, dtype, width, quirks) is not None
    return f"gc_{fn}_{dtype}{width if width > 1 else ''}" if own else _BUILTIN[fn]


def definition(fn: str, quirks: Quirks, dtype: str, width: int) -> str | None:
    """Return the C function of that name, which may call others by such names; None where a built-in serves."""
    text = _template(fn, dtype, width, quirks)
    if text is None:
        return None
    suffix, least = str(width) if width > 1 else "", _least(dtype)
    for mark, value in (
        ("$fn", fn),
        ("$one", call(fn, quirks, dtype, 1)),
        ("$wide", call(fn, quirks, dtype, least)),
        ("$exp", call("exp", quirks, dtype, width)),
        ("$log", call("log", quirks, dtype, width)),
        ("$part", "s0" if width == 1 else "lo"),
        ("$W", f"{dtype}{least}"),
        ("$x", ", ".join(["x"] * (least // width))),
        ("$y", ", ".join(["y"] * (least // width))),
        ("$T", dtype + suffix),
        ("$S", dtype),
        ("$I", "int" + suffix),
        ("$D", "double" + suffix),
        ("$L", "long" + suffix),
        ("$M", ("int" if dtype == "float" else "long") + suffix),
        ("$U", ("uint" if dtype == "float" else "ulong") + suffix),
        ("$any", "any" if width > 1 else ""),
        ("$H", f"{dtype}{width // 2}"),
        ("$n", str(width)),
        ("$CONTRACT", mathcode.CONTRACT),
    ):
        text = text.replace(mark, value)
    return text


def _least(dtype: str) -> int:
    """Lanes of a vector of 16 bytes."""
    return 4 if dtype == "float" else 2


def _template(fn: str, dtype: str, width: int, quirks: Quirks) -> str | None:
    """The text of a function with its marks; None for a built-in."""
    single = dtype == "float"
    if fn in ("digamma", "polygamma") or (fn == "erfinv" and not single):
        return _by_lane(fn) if width > 1 else _for_one(fn, dtype)
    if fn == "fmod":
        return mathcode.fmod(dtype) if quirks.inexact_fmod else None
    if quirks.own_pow and fn == "pow" and not single:
        return _by_lane(fn) if width > 1 else None
    if quirks.own_pow and fn == "pow":
        return mathcode.POW if width <= 4 else mathcode.POW_BY_HALVES
    if quirks.short_vectors_differ and width < _least(dtype) and fn not in _EXACT:
        return mathcode.WIDER_TWO if fn in TWO else mathcode.WIDER
    if fn in ("erf", "erfinv") and single:
        return mathcode.ERF if fn == "erf" else mathcode.ERFINV_FLOAT
    if quirks.lanes_spoil_sines and single and fn in ("sin", "cos", "tan"):
        return mathcode.trigonometric(fn)
    if quirks.tanh_below_one and single and fn == "tanh":
        return mathcode.TANH
    # Intel's compiler (2026.2) dies when one kernel has the sine and the cosine of x and both of sin(x): it merges them
    # into sincos.
    return mathcode.EVEN if quirks.merges_sincos and fn == "cos" else None


def _by_lane(fn: str) -> str:
    return mathcode.BY_LANE_TWO if fn in TWO else mathcode.BY_LANE


def _for_one(fn: str, dtype: str) -> str:
    """The text of a function that is written for one value."""
    if fn == "erfinv":
        return mathcode.ERFINV_DOUBLE
    return mathcode.digamma(dtype) if fn == "digamma" else mathcode.polygamma(dtype)
