"""C with the vector extensions of GCC and Clang: the proof that another language is one more class.

Vectors are ``vector_size`` types under the names that kinds and widths make. Functions that the extensions do not have
on vectors are helpers that go lane by lane, over ``tgmath.h``'s functions of scalars; the compiler makes vectors of
them where it can. Compile with ``FLAGS``. There are no work-groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.codegen import arithmetic, mathcode, mathlib
from backends.codegen.cnames import KIND_BYTES, SIGNED
from backends.codegen.language import Language, Quirks, Space

__all__ = ["FLAGS", "CLanguage"]

# One arena holds arrays of all types; rounding may not depend on what the compiler fuses; comparisons of chars are
# vectors of signed chars.
FLAGS = (
    "-std=gnu11",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fwrapv",
    "-flax-vector-conversions",
    "-fsigned-char",
)

_WIDTHS = (2, 4, 8, 16)
_UNSIGNED = "typedef unsigned char uchar;\ntypedef unsigned short ushort;\ntypedef unsigned int uint;\n"
_KINDS = tuple(kind for kind in KIND_BYTES if kind != "bool")
_VECTORS = "".join(
    f"typedef {kind} {kind}{n} __attribute__((vector_size({KIND_BYTES[kind] * n})));\n"
    for kind in _KINDS
    for n in _WIDTHS
)
_HALVES = "".join(
    f"typedef half half{n} __attribute__((vector_size({2 * n})));\n"
    f"typedef half{n} gcu_half{n} __attribute__((aligned(2)));\n"
    for n in _WIDTHS
)
_HEADER = f"""\
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <tgmath.h>
#define GC_NOINLINE __attribute__((noinline))
{_UNSIGNED}typedef unsigned long ulong;
_Static_assert(sizeof(int) == 4 && sizeof(long) == 8, "kinds have other sizes here");
{_VECTORS}#ifdef __FLT16_MAX__
typedef _Float16 half;
{_HALVES}#endif
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
"""
_NONE = Quirks(calls_fma=True)  # a product and a sum are two operations everywhere, as contraction is off
_TESTS = ("isnan", "isinf", "isfinite")
_ONE = ("abs", "bit_not", *_TESTS)  # helpers of arithmetic with one operand


@dataclass(frozen=True)
class CLanguage(Language):
    """C11 as GCC 12 and Clang 14 extend it, on machines with 64-bit longs."""

    quirks: Quirks = _NONE
    header: str = _HEADER
    contract: str = "#pragma STDC FP_CONTRACT ON"

    def pointer(self, kind: str, space: Space = Space.GLOBAL, const: bool = False) -> str:
        return f"{'const ' if const else ''}{kind}*"

    def private(self, declaration: str) -> str:
        return declaration

    def deref(self, loose: str, place: str, space: Space = Space.GLOBAL, const: bool = False) -> str:
        return f"*({self.pointer(loose, space, const)})({place})"

    # Vectors

    def splat(self, text: str, kind: str, width: int) -> str:
        return f"gc_splat_{kind}{width}({text})" if width > 1 else f"({kind})({text})"

    def lanes(self, texts: Sequence[str], kind: str) -> str:
        return f"(({self.vector(kind, len(texts))}){{{', '.join(texts)}}})"

    def lane(self, text: str, number: int) -> str:
        return f"{text}[{number}]"

    def halves(self, text: str, kind: str, width: int) -> tuple[str, str]:
        return f"gc_low_{kind}{width}({text})", f"gc_high_{kind}{width}({text})"

    def reversed(self, text: str, kind: str, width: int) -> str:
        return f"gc_reversed_{kind}{width}({text})"

    def interlaced(self, even: str, odd: str, kind: str, width: int, last: bool = False) -> str:
        return f"gc_{'ends' if last else 'evens'}_{kind}{width}({even}, {odd})"

    def interleave(self, name: str, first: str, second: str, high: bool, kind: str, width: int) -> str:
        helper = f"gc_turns_{'high' if high else 'low'}_{kind}{width}"
        return f"{self.vector(kind, width)} {name} = {helper}({first}, {second});"

    def zero(self, kind: str, width: int) -> str:
        return "{0}" if width > 1 else "0"

    # Values

    def select(self, mask: str, yes: str, no: str, kind: str, width: int) -> str:
        return f"gc_select_{kind}{width}({mask}, {yes}, {no})" if width > 1 else f"{mask} ? {yes} : {no}"

    def as_kind(self, text: str, source: str, kind: str, width: int) -> str:
        real = "float", "double"
        if width > 1 or (source in real) == (kind in real):
            return f"(({self.vector(kind, width)})({text}))"
        return f"gc_as_{kind}({text})"

    def to_kind(self, text: str, source: str, kind: str, width: int) -> str:
        return f"__builtin_convertvector({text}, {kind}{width})" if width > 1 else f"(({kind})({text}))"

    def to_integer(self, text: str, source: str, zero: str, kind: str, width: int) -> str:
        return f"gc_from_{source}_{self.vector(kind, width)}({text})"

    def folded(self, mask: str, every: bool, kind: str, width: int) -> str:
        return f"gc_{'all' if every else 'any'}_{kind}{width}({mask})"

    def has_function(self, fn: str) -> bool:
        return fn in mathlib.FUNCTIONS

    def function(self, fn: str, kind: str, width: int) -> str:
        own = width > 1 or fn in mathlib.NOWHERE
        return f"gc_{fn}_{self.vector(kind, width)}" if own else mathlib.call(fn, Quirks(), "double", 1)

    def multiply_add(self, total: str, a: str, b: str, kind: str, width: int) -> str:
        return f"{total} += {a} * {b};"

    # Helpers

    def definition(self, fn: str, kind: str, suffix: str) -> str | None:
        if suffix:
            return self._of_vectors(fn, kind, int(suffix)) or self._by_lane(fn, kind, int(suffix))
        if fn == "as":
            source = {"float": "int", "double": "long", "int": "float", "uint": "float"}.get(kind, "double")
            return _helper(kind, f"gc_as_{kind}", f"{source} x", f"{kind} r; memcpy(&r, &x, sizeof r); return r;")
        if fn.startswith("from_"):
            return _saturated(fn.removeprefix("from_"), kind)
        if fn == "mulhi":
            wide, bits = ("ulong", 32) if kind == "uint" else ("unsigned __int128", 64)
            return _helper(kind, f"gc_mulhi_{kind}", f"{kind} a, {kind} b", f"return ({wide})a * b >> {bits};")
        if fn in mathlib.NOWHERE:
            text = mathlib.definition(fn, Quirks(), kind, 1)
            return text and text.replace(mathcode.CONTRACT, self.contract)
        return arithmetic.definition(fn, kind, "", self)

    def _of_vectors(self, fn: str, kind: str, n: int) -> str | None:
        """A helper that only vectors have."""
        name, whole, half, h = f"gc_{fn}_{kind}{n}", f"{kind}{n}", self.vector(kind, n // 2), n // 2
        each = f"{whole} r; for (int i = 0; i < {n}; ++i) "
        if fn == "splat":
            return _helper(whole, name, f"{kind} x", f"return ({whole}){{{', '.join(['x'] * n)}}};")
        if fn in ("low", "high"):
            lanes = ", ".join(f"x[{i}]" for i in range(h if fn == "high" else 0, n if fn == "high" else h))
            return _helper(half, name, f"{whole} x", f"return {f'({half}){{{lanes}}}' if h > 1 else lanes};")
        if fn == "reversed":
            return _helper(whole, name, f"{whole} x", f"{each}r[i] = x[{n - 1} - i]; return r;")
        if fn in ("evens", "ends"):
            second = f"y[2 * (i - {h}){' + 1' if fn == 'ends' else ''}]"
            text = f"{each}r[i] = i < {h} ? x[2 * i] : {second}; return r;"
            return _helper(whole, name, f"{whole} x, {whole} y", text)
        if fn in ("turns_low", "turns_high"):
            at = f"i / 2{f' + {h}' if fn == 'turns_high' else ''}"
            return _helper(whole, name, f"{whole} x, {whole} y", f"{each}r[i] = i % 2 ? y[{at}] : x[{at}]; return r;")
        if fn == "select":
            mask = f"{SIGNED[KIND_BYTES[kind]]}{n}"
            text = f"return ({whole})((m & ({mask})x) | (~m & ({mask})y));"
            return _helper(whole, name, f"{mask} m, {whole} x, {whole} y", text)
        if fn in ("any", "all"):
            sign, start = ("&", -1) if fn == "all" else ("|", 0)
            text = f"int r = {start}; for (int i = 0; i < {n}; ++i) r {sign}= x[i]; return r != 0;"
            return _helper("int", name, f"{whole} x", text)
        return None

    def _by_lane(self, fn: str, kind: str, n: int) -> str:
        """A function of scalars for every lane of vectors."""
        real = kind in ("float", "double") and (fn in mathlib.FUNCTIONS or fn == "fmod")
        one = self.function(fn, kind, 1) if real else f"gc_{fn}_{kind}"
        count = 3 if fn == "fma" else 2 if fn in mathlib.TWO or not (real or fn in _ONE) else 1
        given, result, sign = f"{kind}{n}", f"{kind}{n}", ""
        if fn.startswith("from_"):
            given, count = f"{fn.removeprefix('from_')}{n}", 1
        if fn in _TESTS:
            result, sign = f"int{n}", "-"
        names = "xyz"[:count]
        call = f"{sign}{one}({', '.join(f'{a}[i]' for a in names)})"
        text = f"{result} r; for (int i = 0; i < {n}; ++i) r[i] = {call}; return r;"
        return _helper(result, f"gc_{fn}_{kind}{n}", ", ".join(f"{given} {a}" for a in names), text)

    def rounding(self, dtype: str, suffix: str) -> str:
        n, name = int(suffix or 1), f"gc_round_{dtype}{suffix}"
        if dtype == "bfloat16":
            one = (
                "uint b; memcpy(&b, &v, 4); b = (b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u; float w; "
                "memcpy(&w, &b, 4); w = v != v ? v : w;"
            )
        else:
            one = "float w = (float)(half)v;"
        if n == 1:
            return _helper("float", name, "float v", f"{one} return w;")
        text = f"float{n} r; for (int i = 0; i < {n}; ++i) {{ float v = x[i]; {one} r[i] = w; }} return r;"
        return _helper(f"float{n}", name, f"float{n} x", text)

    # Memory

    def load_half(self, place: str, width: int) -> str:
        if width == 1:
            return f"((float)*({place}))"
        return f"__builtin_convertvector({self.deref(f'gcu_half{width}', place, const=True)}, float{width})"

    def store_half(self, value: str, place: str, width: int) -> str:
        if width == 1:
            return f"*({place}) = (half)({value});"
        return f"{self.deref(f'gcu_half{width}', place)} = __builtin_convertvector({value}, half{width});"

    def take(self, place: str, kind: str, width: int) -> str:
        return self.deref(f"gcu_{kind}{width}", place, const=True)

    def put(self, value: str, place: str, kind: str, width: int) -> str:
        return f"{self.deref(f'gcu_{kind}{width}', place)} = {value};"

    # Work-groups

    def local_id(self) -> str:
        raise NotImplementedError("C has no work-groups: its functions are a CPU's")

    def barrier(self) -> str:
        raise NotImplementedError("C has no work-groups: its functions are a CPU's")

    @property
    def in_order(self) -> str:
        return ""

    def unrolled(self, loop: str, times: int | None = None) -> str:
        return loop

    def rolled(self, loop: str) -> str:
        return loop


def _helper(result: str, name: str, arguments: str, body: str) -> str:
    return f"static inline {result} {name}({arguments}) {{ {body} }}"


def _saturated(source: str, kind: str) -> str:
    """A float as an integer, as ``Language.to_integer`` says."""
    bits, signed = 8 * KIND_BYTES[kind], not kind.startswith("u")
    end, f = 2 ** (bits - signed), "f" if source == "float" else ""
    top = f"({kind})({end - 1}u{'l' * (bits == 64)})"
    least = f"({kind})(-{end - 1}l - 1)" if signed else "0"
    low = f"-{float(end)!r}{f}" if signed else f"0.0{f}"
    text = f"return x != x ? 0 : x >= {float(end)!r}{f} ? {top} : x <= {low} ? {least} : ({kind})x;"
    return _helper(kind, f"gc_from_{source}_{kind}", f"{source} x", text)
