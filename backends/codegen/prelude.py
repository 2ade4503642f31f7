"""Helper functions that generated code calls: written once per type and width, only those that a source mentions."""

from __future__ import annotations

import re

from backends.codegen import mathlib

__all__ = ["PRAGMAS", "prelude_for"]

PRAGMAS = """\
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma OPENCL FP_CONTRACT OFF
#define GC_NOINLINE __attribute__((noinline))
"""

_NAME = re.compile(r"\bgc_([a-z0-9_]+?)_(float|double|char|uchar|short|ushort|int|uint|long|ulong)(2|4|8|16)?\b")
_LOOSE = re.compile(
    r"\bgcu_(float|double|char|uchar|short|ushort|int|uint|long|ulong)(2|4|8|16)\b"
)  # vectors with an element's alignment
_ROUND = re.compile(r"\bgc_round_(float16|bfloat16)(2|4|8|16)?\b")
_BITS = {
    "float": 32,
    "double": 64,
    "char": 8,
    "uchar": 8,
    "short": 16,
    "ushort": 16,
    "int": 32,
    "uint": 32,
    "long": 64,
    "ulong": 64,
}
_LANES = {8: "char", 16: "short", 32: "int", 64: "long"}


def prelude_for(source: str, vendor: str) -> str:
    """Definitions of every helper that ``source`` mentions."""
    rounds = sorted({(m[1], m[2] or "") for m in _ROUND.finditer(source)})
    names = sorted({(m[1], m[2], m[3] or "") for m in _NAME.finditer(source)} - {("round", "float", "16")})
    parts = [_rounding(kind, suffix) for kind, suffix in rounds]
    parts += [text for fn, kind, suffix in names if (text := _definition(fn, kind, suffix)) is not None]
    body = "\n".join(parts)
    loose = sorted({(m[1], m[2]) for m in _LOOSE.finditer(source)})
    types = "".join(
        f"typedef {kind}{n} gcu_{kind}{n} __attribute__((aligned({_BITS[kind] // 8})));\n" for kind, n in loose
    )
    return types + mathlib.prelude_for(body + source, vendor) + body + "\n"


def _rounding(kind: str, n: str) -> str:
    """Round a float to half precision or bfloat16, to nearest even, and back to float."""
    if kind == "bfloat16":
        return (
            f"static inline float{n} gc_round_bfloat16{n}(float{n} x) {{ uint{n} b = as_uint{n}(x); "
            f"uint{n} r = (b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u; return "
            f"{_choose('x != x', 'x', f'as_float{n}(r)', 'float', n)}; }}"
        )
    # vstore_half rounds to nearest even on every device, with or without half arithmetic.
    return (
        f"static inline float{n} gc_round_float16{n}(float{n} x) {{ ushort s[{n or 1}]; vstore_half{n}_rte(x, 0, "
        f"(half*)s); "
        f"return vload_half{n}(0, (const half*)s); }}"
    )


def _choose(condition: str, yes: str, no: str, kind: str, n: str) -> str:
    """A select on a native comparison of values of ``kind``."""
    return f"(({condition}) ? ({yes}) : ({no}))"


def _definition(fn: str, kind: str, n: str) -> str | None:
    t, lanes = f"{kind}{n}", f"{_LANES[_BITS[kind]]}{n}"
    name, real, signed = f"gc_{fn}_{t}", kind in ("float", "double"), not kind.startswith("u")
    one, zero = f"({t})(1)", f"({t})(0)"

    def unary(body: str) -> str:
        return f"static inline {t} {name}({t} a) {{ {body} }}"

    def binary(body: str) -> str:
        return f"static inline {t} {name}({t} a, {t} b) {{ {body} }}"

    def test(condition: str) -> str:
        result = condition if not n or _BITS[kind] == 32 else f"convert_int{n}({condition})"
        return f"static inline int{n} {name}({t} a) {{ return {result}; }}"

    if fn in ("max", "min"):
        sign = ">" if fn == "max" else "<"
        nan = " | (a != a)" if real else ""
        return binary(f"return ((a {sign} b){nan}) ? a : b;")
    if fn == "abs":
        return unary("return fabs(a);" if real else f"return (a < {zero}) ? -a : a;" if signed else "return a;")
    if fn == "sign":
        negative = f"(a < {zero}) ? -{one} : a" if signed else "a"
        return unary(f"return (a > {zero}) ? {one} : ({negative});")
    if fn == "bit_not":
        return unary("return ~a;")
    if fn == "reciprocal":
        return unary(f"return {one} / a;")
    if fn == "isnan":
        return test("a != a")
    if fn == "isinf":
        return test(f"fabs(a) == ({t})(INFINITY)")
    if fn == "isfinite":
        return test(f"fabs(a) < ({t})(INFINITY)")
    if fn == "shift_left":
        return binary(f"return ((b >= {zero}) & (b < ({t})({_BITS[kind]}))) ? (a << b) : {zero};")
    if fn == "shift_right":
        rest = f"((a < {zero}) ? -{one} : {zero})" if signed else zero
        return binary(f"return ((b >= {zero}) & (b < ({t})({_BITS[kind]}))) ? (a >> b) : {rest};")
    if fn == "mulhi":
        return binary("return mul_hi(a, b);")
    if fn in ("floordiv", "mod"):
        return binary(_division(fn, t, lanes, real, signed))
    if fn == "pow" and not real:
        return binary(
            f"{t} r = {one}; {t} base = a; {t} e = b; for (int i = 0; i < {_BITS[kind]}; ++i) {{ "
            f"r = ((e & {one}) != {zero}) ? r * base : r; base = base * base; e = e >> {one}; }} return r;"
        )
    return None


def _division(fn: str, t: str, lanes: str, real: bool, signed: bool) -> str:
    """Python's floor division and remainder; by zero gives 0 for integers (as NumPy does) and never traps."""
    one, zero = f"({t})(1)", f"({t})(0)"
    if real:
        rest = (
            f"{t} r = fmod(a, b); r = ((r != {zero}) & ((r < {zero}) != (b < {zero}))) ? r + b : r; r = (r == "
            f"{zero}) ? copysign({zero}, b) : r;"
        )
        if fn == "mod":
            return rest + " return r;"
        return (
            f"{rest} {t} q = (a - r) / b; {t} f = floor(q); f = (q - f > ({t})(0.5)) ? f + {one} : f; "
            f"return (b == {zero}) ? a / b : f;"
        )
    if not signed:
        answer = "a / c" if fn == "floordiv" else "a % c"
        return f"{t} c = (b == {zero}) ? {one} : b; return (b == {zero}) ? {zero} : ({answer});"
    guard = f"{t} c = ((b == {zero}) | (b == -{one})) ? {one} : b; {t} q = a / c; {t} r = a - q * c; "
    fix = f"(r != {zero}) & ((r < {zero}) != (c < {zero}))"
    answer = f"({fix}) ? q - {one} : q" if fn == "floordiv" else f"({fix}) ? r + c : r"
    special = "-a" if fn == "floordiv" else zero
    return f"{guard}{t} v = {answer}; v = (b == -{one}) ? {special} : v; return (b == {zero}) ? {zero} : v;"
