"""Helper functions that generated code calls: written once per type and width, only those that a source mentions."""

from __future__ import annotations

import re

from backends.codegen import arithmetic, mathlib
from backends.codegen.arithmetic import BITS
from backends.codegen.bodies import body_text, has_body

__all__ = ["PRAGMAS", "prelude_for"]

PRAGMAS = """\
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma OPENCL FP_CONTRACT OFF
#define GC_NOINLINE __attribute__((noinline))
"""

_KINDS = "|".join(BITS)
_ROUND = re.compile(r"\bgc_round_(float16|bfloat16)(2|4|8|16)?\b")
_NAME = re.compile(rf"\bgc_([a-z0-9_]+?)_({_KINDS})(2|4|8|16)?\b")
_LOOSE = re.compile(rf"\bgcu_({_KINDS})(2|4|8|16)\b")  # vectors with an element's alignment


def prelude_for(source: str, vendor: str) -> str:
    """Definitions of every helper that ``source`` calls, and of those that they call, callees first."""
    rounds = sorted({(m[1], m[2] or "") for m in _ROUND.finditer(source)})
    loose = sorted({(m[1], m[2]) for m in _LOOSE.finditer(source)})
    types = "".join(
        f"typedef {kind}{n} gcu_{kind}{n} __attribute__((aligned({BITS[kind] // 8})));\n" for kind, n in loose
    )
    found: dict[tuple[str, str, str], str] = {}
    for name in _names(source):
        _collect(name, vendor, found)
    return types + "\n".join([*(_rounding(kind, n) for kind, n in rounds), *filter(None, found.values())]) + "\n"


def _names(text: str) -> list[tuple[str, str, str]]:
    """The helpers that a text mentions: function, type, width."""
    return sorted({(m[1], m[2], m[3] or "") for m in _NAME.finditer(text)})


def _collect(name: tuple[str, str, str], vendor: str, found: dict[tuple[str, str, str], str]) -> None:
    """Add a helper after those that it calls. They are few and call no circles, so recursion is not deep."""
    if name in found:
        return
    text = _definition(*name, vendor) or ""
    for other in _names(text):
        if other != name:
            _collect(other, vendor, found)
    found.setdefault(name, text)


def _definition(fn: str, kind: str, n: str, vendor: str) -> str | None:
    if has_body(fn):
        return body_text(fn, kind, int(n or 1), vendor)
    if kind in ("float", "double") and (fn in mathlib.FUNCTIONS or fn == "fmod"):
        return mathlib.definition(fn, kind, int(n or 1), vendor)
    return arithmetic.definition(fn, kind, n, vendor)


def _rounding(kind: str, n: str) -> str:
    """Round a float to half precision or bfloat16, to nearest even, and back to float."""
    if kind == "bfloat16":
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
