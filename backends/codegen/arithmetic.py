"""Helper functions for arithmetic that C leaves undefined, or defines in another way than NumPy.

Signed integers wrap around, by unsigned arithmetic: compilers use it that overflow is undefined. Division by zero gives
0, a shift by too much shifts everything out, and nothing traps.
"""

from __future__ import annotations

from backends.codegen.cnames import KIND_BYTES
from backends.codegen.language import Language

__all__ = ["BITS", "definition"]

BITS = {kind: 8 * size for kind, size in KIND_BYTES.items()}
_LANES = {8: "char", 16: "short", 32: "int", 64: "long"}


class _Texts:
    """The helpers for one type and width.

    Attributes:
        t: the type; ``u`` the unsigned type of the same size, ``i`` the signed one.
        real, signed: what kind of numbers it holds.
    """

    def __init__(self, kind: str, n: str, language: Language) -> None:
        self.kind, self.n, self.language, self.width = kind, n, language, int(n or 1)
        self.bits = BITS[kind]
        self.t, self.i, self.u = f"{kind}{n}", f"{_LANES[self.bits]}{n}", f"u{_LANES[self.bits]}{n}"
        self.real, self.signed = kind in ("float", "double"), not kind.startswith("u")
        self.one, self.zero = f"({self.t})(1)", f"({self.t})(0)"

    def minus(self, value: str) -> str:
        """The number with the other sign; that of the least integer is itself."""
        if self.real or not self.signed:
            return f"-{value}"
        return self.signs(f"({self.u})(({self.u})(0) - {self.bare(value)})")

    def bare(self, value: str) -> str:
        """An integer's bits as an unsigned one."""
        return self.language.as_kind(value, self.kind, f"u{_LANES[self.bits]}", self.width)

    def signs(self, value: str) -> str:
        """An unsigned integer's bits as one of this kind."""
        return self.language.as_kind(value, f"u{_LANES[self.bits]}", self.kind, self.width)

    def function(self, name: str, arguments: str, body: str, result: str = "") -> str:
        given = ", ".join(f"{self.t} {a}" for a in arguments)
        return f"static inline {result or self.t} gc_{name}_{self.t}({given}) {{ {body} }}"

    def test(self, name: str, condition: str) -> str:
        result = (
            condition
            if not self.n or self.bits == 32
            else self.language.to_kind(condition, _LANES[self.bits], "int", self.width)
        )
        return self.function(name, "a", f"return {result};", f"int{self.n}")

    def extreme(self, name: str) -> str:
        """NaN wins, and 0 is above -0: the bits of equal numbers differ only there."""
        sign = ">" if name == "max" else "<"
        if not self.real:
            return self.function(name, "ab", f"return (a {sign} b) ? a : b;")
        larger = f"((a {sign} b) | (a != a)) ? a : b"
        kind, own = _LANES[self.bits], self.language
        first, second = (own.as_kind(x, self.kind, kind, self.width) for x in "ab")
        equal = own.as_kind(f"{first} {'&' if name == 'max' else '|'} {second}", kind, self.kind, self.width)
        return self.function(name, "ab", f"return (a == b) ? {equal} : ({larger});")

    def bounded(self, name: str) -> str:
        """An extreme of a number and a constant: where they are equal, the constant."""
        sign = ">" if name == "atleast" else "<"
        nan = " | (a != a)" if self.real else ""
        return self.function(name, "ab", f"return ((a {sign} b){nan}) ? a : b;")

    def shift(self, name: str) -> str:
        inside = f"((b >= {self.zero}) & (b < ({self.t})({self.bits})))"
        if name == "shift_left":
            return self.function(name, "ab", f"return {inside} ? (a << b) : {self.zero};")
        rest = f"((a < {self.zero}) ? -{self.one} : {self.zero})" if self.signed else self.zero
        return self.function(name, "ab", f"return {inside} ? (a >> b) : {rest};")

    def power(self) -> str:
        """a ** b of integers by squaring; of negative powers, the whole part."""
        u, times, squared = self.u, self.product("r", "base"), self.product("base", "base")
        loop = (
            f"{u} r = ({u})(1); {u} base = {self.bare('a')}; {u} e = {self.bare('b')}; "
            f"for (int i = 0; i < {self.bits}; ++i) {{ "
            f"r = ((e & ({u})(1)) != ({u})(0)) ? {times} : r; base = {squared}; e = e >> ({u})(1); }} "
        )
        if not self.signed:
            return self.function("pow", "ab", f"{loop}return r;")
        odd = f"(((b & {self.one}) != {self.zero}) ? a : {self.one})"
        below = f"((a == {self.one}) | (a == -{self.one})) ? {odd} : {self.zero}"
        return self.function("pow", "ab", f"{loop}return (b < {self.zero}) ? ({below}) : {self.signs('r')};")

    def product(self, a: str, b: str) -> str:
        """Of unsigned numbers: shorter ones than int are promoted to int, which overflows."""
        return f"({self.u})((uint){a} * {b})" if self.bits < 32 and not self.n else f"{a} * {b}"

    def division(self, name: str) -> str:
        """Floor division and remainder, as in Python."""
        if self.real:
            return self.function(name, "ab", self._real_division(name))
        t, one, zero = self.t, self.one, self.zero
        if not self.signed:
            answer = "a / c" if name == "floordiv" else "a % c"
            text = f"{t} c = (b == {zero}) ? {one} : b; return (b == {zero}) ? {zero} : ({answer});"
            return self.function(name, "ab", text)
        guard = f"{t} c = ((b == {zero}) | (b == -{one})) ? {one} : b; {t} q = a / c; {t} r = a - q * c; "
        fix = f"(r != {zero}) & ((r < {zero}) != (c < {zero}))"
        answer = f"({fix}) ? q - {one} : q" if name == "floordiv" else f"({fix}) ? r + c : r"
        special = self.minus("a") if name == "floordiv" else zero
        text = f"{guard}{t} v = {answer}; v = (b == -{one}) ? {special} : v; return (b == {zero}) ? {zero} : v;"
        return self.function(name, "ab", text)

    def _real_division(self, name: str) -> str:
        """NumPy's own steps, which differ from a / b rounded down where that is nearly whole, and for infinities."""
        t, one, zero = self.t, self.one, self.zero
        fmod = self.language.function("fmod", self.kind, self.width)
        begin = f"{t} r = {fmod}(a, b); {self.i} low = (r != {zero}) & ((r < {zero}) != (b < {zero})); "
        if name == "mod":
            return f"{begin}r = low ? r + b : r; return (r == {zero}) ? copysign({zero}, b) : r;"
        return (
            f"{begin}{t} q = (a - r) / b; q = low ? q - {one} : q; {t} f = floor(q); "
            f"f = (q - f > ({t})(0.5)) ? f + {one} : f; f = (q == {zero}) ? copysign({zero}, a / b) : f; "
            f"return (b == {zero}) ? a / b : f;"
        )


def definition(fn: str, kind: str, n: str, language: Language) -> str | None:
    """The helper ``gc_<fn>_<kind><n>``, or None if there is no helper of that name."""
    texts = _Texts(kind, n, language)
    if fn in ("max", "min"):
        return texts.extreme(fn)
    if fn in ("atleast", "atmost"):
        return texts.bounded(fn)
    if fn == "abs":
        plain = "fabs(a)" if texts.real else f"(a < {texts.zero}) ? {texts.minus('a')} : a" if texts.signed else "a"
        return texts.function(fn, "a", f"return {plain};")
    if fn == "bit_not":
        return texts.function(fn, "a", "return ~a;")
    if fn in ("isnan", "isinf", "isfinite"):
        far = f"({texts.t})(INFINITY)"
        return texts.test(fn, {"isnan": "a != a", "isinf": f"fabs(a) == {far}", "isfinite": f"fabs(a) < {far}"}[fn])
    if fn in ("shift_left", "shift_right"):
        return texts.shift(fn)
    if fn == "mulhi":
        return texts.function(fn, "ab", "return mul_hi(a, b);")
    if fn in ("floordiv", "mod"):
        return texts.division(fn)
    return texts.power() if fn == "pow" and not texts.real else None
