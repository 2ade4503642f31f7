"""OpenCL C, and what is known of its runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.codegen import arithmetic, mathlib
from backends.codegen.language import Language, Quirks, Space

__all__ = ["OpenCL"]

_SPACES = {Space.GLOBAL: "__global", Space.LOCAL: "__local", Space.PRIVATE: "__private"}
_NONE = Quirks()
_HEX = "0123456789abcdef"
_HEADER = """\
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma OPENCL FP_CONTRACT OFF
#define GC_NOINLINE __attribute__((noinline))
"""


@dataclass(frozen=True)
class OpenCL(Language):
    """OpenCL C 1.2.

    Args:
        quirks: of the runtime that compiles it.
    """

    quirks: Quirks = _NONE
    header: str = _HEADER
    contract: str = "#pragma OPENCL FP_CONTRACT ON"

    def pointer(self, kind: str, space: Space = Space.GLOBAL, const: bool = False) -> str:
        return f"{_SPACES[space]} {'const ' if const else ''}{kind}*"

    def private(self, declaration: str) -> str:
        return f"__private {declaration}"

    def deref(self, loose: str, place: str, space: Space = Space.GLOBAL, const: bool = False) -> str:
        return f"*({self.pointer(loose, space, const)})({place})"

    def splat(self, text: str, kind: str, width: int) -> str:
        return f"({self.vector(kind, width)})({text})"

    def lanes(self, texts: Sequence[str], kind: str) -> str:
        return f"({self.vector(kind, len(texts))})({', '.join(texts)})"

    def lane(self, text: str, number: int) -> str:
        return f"{text}.s{_HEX[number]}"

    def halves(self, text: str, kind: str, width: int) -> tuple[str, str]:
        return f"{text}.lo", f"{text}.hi"

    def reversed(self, text: str, kind: str, width: int) -> str:
        return f"({text}).s{''.join(reversed(_HEX[:width]))}"

    def interlaced(self, even: str, odd: str, kind: str, width: int, last: bool = False) -> str:
        return f"({self.vector(kind, width)})(({even}).even, ({odd}).{'odd' if last else 'even'})"

    def interleave(self, name: str, first: str, second: str, high: bool, kind: str, width: int) -> str:
        half = "hi" if high else "lo"
        return f"{self.vector(kind, width)} {name}; {name}.even = {first}.{half}; {name}.odd = {second}.{half};"

    def zero(self, kind: str, width: int) -> str:
        return "0"

    def select(self, mask: str, yes: str, no: str, kind: str, width: int) -> str:
        return f"{mask} ? {yes} : {no}"

    def as_kind(self, text: str, source: str, kind: str, width: int) -> str:
        return f"as_{self.vector(kind, width)}({text})"

    def to_kind(self, text: str, source: str, kind: str, width: int) -> str:
        return f"convert_{self.vector(kind, width)}({text})"

    def to_integer(self, text: str, source: str, zero: str, kind: str, width: int) -> str:
        # PoCL's conversions of NaN give the lowest value.
        return f"convert_{self.vector(kind, width)}_sat(({text} == {text}) ? {text} : {zero})"

    def folded(self, mask: str, every: bool, kind: str, width: int) -> str:
        return f"{'all' if every else 'any'}({mask})"

    def has_function(self, fn: str) -> bool:
        return fn in mathlib.FUNCTIONS

    def function(self, fn: str, kind: str, width: int) -> str:
        return mathlib.call(fn, self.quirks, kind, width)

    def definition(self, fn: str, kind: str, suffix: str) -> str | None:
        if kind in ("float", "double") and (fn in mathlib.FUNCTIONS or fn == "fmod"):
            return mathlib.definition(fn, self.quirks, kind, int(suffix or 1))
        return arithmetic.definition(fn, kind, suffix, self)

    def rounding(self, dtype: str, suffix: str) -> str:
        n = suffix
        if dtype == "bfloat16":
            return (
                f"static inline float{n} gc_round_bfloat16{n}(float{n} x) {{ uint{n} b = as_uint{n}(x); "
                f"uint{n} r = (b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u; return "
                f"((x != x) ? (x) : (as_float{n}(r))); }}"
            )
        # vstore_half rounds to nearest even on every device, with or without half arithmetic.
        return (
            f"static inline float{n} gc_round_float16{n}(float{n} x) {{ ushort s[{n or 1}]; vstore_half{n}_rte(x, 0, "
            f"(half*)s); "
            f"return vload_half{n}(0, (const half*)s); }}"
        )

    def multiply_add(self, total: str, a: str, b: str, kind: str, width: int) -> str:
        return f"{total} += {a} * {b};" if self.quirks.calls_fma else f"{total} = fma({a}, {b}, {total});"

    def load_half(self, place: str, width: int) -> str:
        return f"{self.vector('vload_half', width)}(0, {place})"

    def store_half(self, value: str, place: str, width: int) -> str:
        return f"{self.vector('vstore_half', width)}({value}, 0, {place});"

    def take(self, place: str, kind: str, width: int) -> str:
        return f"vload{width}(0, {place})"

    def put(self, value: str, place: str, kind: str, width: int) -> str:
        return f"vstore{width}({value}, 0, {place});"

    def local_id(self) -> str:
        return "(int)get_local_id(0)"

    def barrier(self) -> str:
        return "barrier(CLK_LOCAL_MEM_FENCE);"

    @property
    def in_order(self) -> str:
        return "#pragma clang loop vectorize(disable) interleave(disable)\n" if self.quirks.vectorizes_sums else ""

    def unrolled(self, loop: str, times: int | None = None) -> str:
        return f'_Pragma("unroll{"" if times is None else f" {times}"}") {loop}'

    def rolled(self, loop: str) -> str:
        return f'_Pragma("unroll 1") {loop}'

    @property
    def all_rolled(self) -> str:
        return '#define for _Pragma("clang loop unroll(disable)") for\n' if self.quirks.unrolls_at_length else ""
