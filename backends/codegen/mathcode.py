"""The text of math functions that no built-in serves, or none well enough.

In a template $T is the type, $S its scalar type, $I and $L the int and long vectors of its width, $D the double one,
$n the width; $exp and $log are what computes those functions; the rest is in ``mathlib.definition``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "BY_LANE",
    "BY_LANE_TWO",
    "CONTRACT",
    "ERF",
    "ERFINV_DOUBLE",
    "ERFINV_FLOAT",
    "EVEN",
    "POW",
    "POW_BY_HALVES",
    "TANH",
    "WIDER",
    "WIDER_TWO",
    "digamma",
    "fmod",
    "polygamma",
    "trigonometric",
]

CONTRACT = "#pragma OPENCL FP_CONTRACT ON"


def _horner(variable: str, coefficients: Sequence[float], target: str = "p", suffix: str = "") -> str:
    """Return C statements that evaluate a polynomial, the highest coefficient first, into an existing variable.

    They may be contracted ($CONTRACT), but do not call `fma`: PoCL 3.0 calls it as a function, four times as slow.
    """
    first, *rest = (f"{value!r}{suffix}" for value in coefficients)
    return f"{target} = {first};" + "".join(f" {target} = {target} * {variable} + {value};" for value in rest)


EVEN = """\
static $T gc_$fn_$T($T x) {
    return $fn(fabs(x));
}
"""

BY_LANE = """\
static $T gc_$fn_$T($T x) {
    $S lane[$n];
    vstore$n(x, 0, lane);
    for (int i = 0; i < $n; ++i) lane[i] = $one(lane[i]);
    return vload$n(0, lane);
}
"""

BY_LANE_TWO = """\
static $T gc_$fn_$T($T x, $T y) {
    $S lane[$n], other[$n];
    vstore$n(x, 0, lane);
    vstore$n(y, 0, other);
    for (int i = 0; i < $n; ++i) lane[i] = $one(lane[i], other[i]);
    return vload$n(0, lane);
}
"""

WIDER = """\
static inline $T gc_$fn_$T($T x) {
    return $wide(($W)($x)).$part;
}
"""

WIDER_TWO = """\
static inline $T gc_$fn_$T($T x, $T y) {
    return $wide(($W)($x), ($W)($y)).$part;
}
"""


def fmod(dtype: str) -> str:
    """Return the remainder of a / b with the sign of a, exact for any numbers, where division is correctly rounded.

    The leading bits of the quotient are taken at a time, so few that their products with either half of b are exact.
    What is left is then a multiple of the product's unit, and less than b times the last of these bits: a number holds
    it, and every step is exact. Where a / b would overflow, b times a power of two comes first.
    """
    single = dtype == "float"
    digits, taken, half, far, f = (23, 11, 12, 75, "f") if single else (52, 25, 27, 550, "")
    whole, u = (32, "u") if single else (64, "ul")
    leading, upper = 2**whole - 2 ** (digits - taken), 2**whole - 2**half
    power = 2 ** (whole - 1) - 2**digits  # the bits of a positive number's exponent
    loops = "".join(
        f"""
    w = v{f" * 0x1p{far}{f}" * times};
    while ($any(u >= w * 0x1p{taken}{f})) {{
        q = as_$T(as_$U(u / w) & ($U)({leading:#x}{u}));
        h = as_$T(as_$U(w) & ($U)({upper:#x}{u}));
        r = (u - q * h) - q * (w - h);
        r = (r < ($T)(0)) ? r + as_$T(as_$U(q) & ($U)({power:#x}{u})) * 0x1p-{taken}{f} * w : r;
        u = (u >= w * 0x1p{taken}{f}) ? r : u;
    }}"""
        for times in (2, 1, 0)
    )
    return f"""\
static $T gc_fmod_$T($T a, $T b) {{
    $T x = fabs(a), y = fabs(b), w, q, h, r;
    $M none = (x == ($T)(INFINITY)) | (y == ($T)(0)) | (a != a) | (b != b), small = x < y;
    $T u = (none | small) ? ($T)(0) : x, v = (none | small) ? ($T)(1) : y;{loops}
    q = trunc(u / v);
    h = as_$T(as_$U(v) & ($U)({upper:#x}{u}));
    r = (u - q * h) - q * (v - h);
    r = (r < ($T)(0)) ? r + v : r;
    return none ? ($T)(NAN) : copysign(small ? x : r, a);
}}
"""


# It stays below 1. Beyond 9.02, 1 is the nearest float.
TANH = """\
static inline $T gc_tanh_$T($T x) {
    return (fabs(x) > 9.02f) ? copysign(($T)(1.0f), x) : tanh(x);
}
"""

# Minimax polynomials for erf and erfinv by N. Juffa (published on Stack Overflow, questions 35148198 and 27229371).
ERF = (
    """\
static inline $T gc_erf_$T($T x) {
    $CONTRACT
    $T t = (x < 0.0f) ? -x : x, s = x * x, p, q;
    """
    + _horner(
        "t",
        (-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1),
        suffix="f",
    )
    + """
    p = 1.0f - $exp(p * t - t);
    p = (x < 0.0f) ? -p : p;
    """
    + _horner(
        "s",
        (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1),
        target="q",
        suffix="f",
    )
    + """
    q = q * x + x;
    return (t > 0.927734375f) ? p : q;
}
"""
)

# 2 ** (y log2 |x|) in double: its logarithm by the series of atanh, its power by Taylor's. PoCL's own takes ten times
# as long.
POW = (
    """\
static inline $T gc_pow_$T($T x, $T y) {
    $CONTRACT
    $T size = (x < 0.0f) ? -x : x, far = (y < 0.0f) ? -y : y;
    $D a = convert_$D(size), m, e, s, q, p, r;
    $L bits = as_$L(a);
    e = convert_$D(convert_$I(bits >> 52) - 1023);
    m = as_$D((bits & 0x000fffffffffffffL) | 0x3ff0000000000000L);
    $L high = m > 1.4142135623730951;
    e = high ? e + 1.0 : e;
    m = high ? m * 0.5 : m;
    s = (m - 1.0) / (m + 1.0);
    q = s * s;
    """
    + _horner("q", [1 / n for n in (13, 11, 9, 7, 5, 3, 1)])
    + """
    p = (p * s * 2.8853900817779268 + e) * convert_$D(y);
    p = (p > 1000.0) ? ($D)(1000.0) : p;
    p = (p < -1000.0) ? ($D)(-1000.0) : p;
    $D n = p + 6755399441055744.0;  // adding 1.5 * 2**52 rounds, and leaves the whole number in the low bits
    m = (p - (n - 6755399441055744.0)) * 0.6931471805599453;
    """
    + _horner("m", [1 / math.factorial(n) for n in range(9, -1, -1)], target="r")
    + """
    $T z = convert_$T(r * as_$D((as_$L(n) + 1023) << 52));
    $I near = convert_$I((far < 16777216.0f) ? y : ($T)(0.0f));
    $I whole = (far >= 16777216.0f) | (convert_$T(near) == y);  // and even from there on
    $I minus = as_$I(x) < 0, odd = (far < 16777216.0f) & (convert_$T(near) == y) & ((near & 1) != 0);
    z = (size == 0.0f) ? ((y > 0.0f) ? ($T)(0.0f) : ($T)(INFINITY)) : z;
    z = (size == INFINITY) ? ((y > 0.0f) ? ($T)(INFINITY) : ($T)(0.0f)) : z;
    z = (minus & odd) ? -z : z;
    z = (minus & (whole == 0) & (size != 0.0f) & (size != INFINITY)) ? ($T)(NAN) : z;
    z = ((x != x) | (y != y)) ? ($T)(NAN) : z;
    return ((y == 0.0f) | (x == 1.0f) | ((x == -1.0f) & (far == INFINITY))) ? ($T)(1.0f) : z;
}
"""
)

POW_BY_HALVES = """\
static inline $T gc_pow_$T($T x, $T y) {
    return ($T)(gc_pow_$H(x.lo, y.lo), gc_pow_$H(x.hi, y.hi));
}
"""

ERFINV_FLOAT = (
    """\
static inline $T gc_erfinv_$T($T x) {
    $CONTRACT
    $T t = $log(fma(x, -x, ($T)(1.0f))), p, q;
    """
    + _horner(
        "t",
        (3.03697567e-10, 2.93243101e-8, 1.22150334e-6, 2.84108955e-5, 3.93552968e-4, 3.02698812e-3)
        + (4.83185798e-3, -2.64646143e-1, 8.40016484e-1),
        suffix="f",
    )
    + "\n    "
    + _horner(
        "t",
        (5.43877832e-9, 1.43285448e-7, 1.22774793e-6, 1.12963626e-7, -5.61530760e-5, -1.47697632e-4)
        + (2.31468678e-3, 1.15392581e-2, -2.32015476e-1, 8.86226892e-1),
        target="q",
        suffix="f",
    )
    + """
    return x * ((t < -6.125f) ? p : q);
}
"""
)

# M. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988); the
# quantile at (1 + x) / 2 is sqrt(2) erfinv(x), and both x / 2 and the tail (1 - |x|) / 2 are exact.
_AS241 = (
    (
        (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457)
        + (13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.3871328727963666080),
        (5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867)
        + (5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0),
    ),
    (
        (7.74545014278341407640e-4, 0.0227238449892691845833, 0.241780725177450611770, 1.27045825245236838258)
        + (3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
        (1.05075007164441684324e-9, 5.47593808499534494600e-4, 0.0151986665636164571966, 0.148103976427480074590)
        + (0.689767334985100004550, 1.67638483018380384940, 2.05319162663775882187, 1.0),
    ),
    (
        (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.00124266094738807843860, 0.0265321895265761230930)
        + (0.296560571828504891230, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
        (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4)
        + (0.0148753612908506148525, 0.136929880922735805310, 0.599832206555887937690, 1.0),
    ),
)
_RATIOS = [f"{_horner('r', up)} {_horner('r', down, target='q')}" for up, down in _AS241]
ERFINV_DOUBLE = f"""\
static $T gc_erfinv_$T($T x) {{
    $CONTRACT
    $T p, q, r;
    if (fabs(x) <= 0.85) {{
        r = 0.180625 - 0.25 * x * x;
        {_RATIOS[0]}
        return 0.5 * x * p / q * M_SQRT1_2;
    }}
    r = sqrt(-log(0.5 * (1.0 - fabs(x))));
    if (r == ($T)(INFINITY)) return copysign(r, x);
    if (r <= 5.0) {{
        r -= 1.6;
        {_RATIOS[1]}
    }} else {{
        r -= 5.0;
        {_RATIOS[2]}
    }}
    return copysign(p / q * M_SQRT1_2, x);
}}
"""


def digamma(dtype: str) -> str:
    """Return psi(x) after Boost.Math's digamma: reflection, recurrence to [1, 2], a rational function there."""
    f = "f" if dtype == "float" else ""
    up: tuple[float, ...] = (-0.0020713321167745952, -0.045251321448739056, -0.28919126444774784)
    up += (-0.65031853770896507, -0.32555031186804491, 0.25479851061131551)
    down: tuple[float, ...] = (-0.55789841321675513e-6, 0.0021284987017821144, 0.054151797245674225)
    down += (0.43593529692665969, 1.4606242909763515, 2.0767117023730469, 1.0)
    tail: tuple[float, ...] = (
        -0.44325980392156862745,
        0.083333333333333333,
        -0.021092796092796092,
        0.0075757575757575757,
    )
    tail += (-0.0041666666666666667, 0.0039682539682539683, -0.0083333333333333333, 0.083333333333333333)
    # The root in pieces, so that x - root is exact where it nearly cancels.
    if dtype == "float":
        root = "((x - 1532632.0f / 1048576.0f) - 0.3700660185912626595423257e-6f)"
    else:
        root = "(((x - 1569415565.0 / 0x1p30) - 381566830.0 / 0x1p60) - 0.901631209325869592e-19)"
    return f"""\
static $T gc_digamma_$T($T x) {{
    $CONTRACT
    $T result = 0, p, q;
    if (x == 0) return copysign(($T)(INFINITY), -x);
    if (x <= -1) {{
        $T part = x - rint(x);
        if (part == 0 || isinf(x)) return ($T)(NAN);  // a pole, or no limit
        result = ($T)(-3.14159265358979323846{f}) / tan(($T)(3.14159265358979323846{f}) * part);
        x = 1 - x;
    }}
    if (x >= 10) {{
        if (x == ($T)(INFINITY)) return x;
        x -= 1;
        $T z = 1 / x;
        result += log(x) + 0.5{f} * z;
        z = z * z;
        {_horner("z", tail, suffix=f)}
        return result - z * p;
    }}
    while (x > 2) {{
        x -= 1;
        result += 1 / x;
    }}
    while (x < 1) {{
        result -= 1 / x;
        x += 1;
    }}
    $T g = {root};
    x -= 1;
    {_horner("x", up, suffix=f)}
    {_horner("x", down, target="q", suffix=f)}
    return result + (g * 0.99558162689208984{f} + g * (p / q));
}}
"""


# B(2 j) / (2 j)! for j = 1, 2, ... with Bernoulli's numbers B: the coefficients of the Euler-Maclaurin formula.
_BERNOULLI: tuple[float, ...] = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)
_BERNOULLI += (1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000)
_BERNOULLI += (-174611 / 802857662698291200000,)


def polygamma(dtype: str) -> str:
    """Return the n-th derivative of digamma, (-1)^(n + 1) n! zeta(n + 1, x) with Hurwitz's zeta; below 0 reflected.

    Terms are relative to the first, x^-(n + 1), which is multiplied in last and a factor at a time: so the result
    overflows only if it is too large itself.
    """
    f, start, count = ("f", 6, 4) if dtype == "float" else ("", 8, 10)
    rest = "".join(
        f"\n    rest += {value!r}{f} * term; term *= (s + {2 * j + 1}) * (s + {2 * j + 2}) * z;"
        for j, value in enumerate(_BERNOULLI[:count])
    )
    return f"""\
static $T gc_polygamma_sum_$T($T x, $T n) {{  // n! zeta(n + 1, x) for x > 0
    $CONTRACT
    $T total = 0, y = x, s = n + 1;
    for ($T k = 1; y < n + {start}; k += 1) {{
        total += pow(x / y, s);
        y = x + k;
    }}
    $T z = (1 / y) / y, term = s / y, rest = y / n + 0.5{f};{rest}
    total = (total + pow(x / y, s) * rest) / x;
    for ($T low = 1, high = n; low <= high;) total *= ((total < 1) ? high-- : low++) / x;
    return total;
}}
static $T gc_polygamma_$T($T x, $T n) {{
    $T sign = (2 * floor(n / 2) == n) ? -1 : 1;
    if (x == 0) return (sign > 0) ? ($T)(INFINITY) : copysign(($T)(INFINITY), -x);
    if (x > 0) return isinf(x) ? 0 : sign * gc_polygamma_sum_$T(x, n);
    if (!isfinite(x)) return ($T)(NAN);
    $T part = x - rint(x), size = fabs(part);
    if (part == 0) return (sign > 0) ? ($T)(INFINITY) : ($T)(NAN);  // a pole
    $T near = gc_polygamma_sum_$T(size, n), far = gc_polygamma_sum_$T(1 - size, n);
    return ((part > 0) ? sign * near + far : near + sign * far) - gc_polygamma_sum_$T(1 - x, n);
}}
"""


def trigonometric(fn: str) -> str:
    """Return sin, cos or tan of floats: Cody-Waite reduction in three steps, beyond its range lane by lane.

    Polynomials and constants are N. Juffa's (published on Stack Overflow, question 30463616).
    """
    result = {
        "sin": "y = ((q & 1) != 0) ? c : s;\n    y = ((q & 2) != 0) ? -y : y;\n    y = (x == 0.0f) ? x : y;",
        "cos": "y = ((q & 1) != 0) ? s : c;\n    y = (((q + 1) & 2) != 0) ? -y : y;",
        "tan": "y = ((q & 1) != 0) ? -c / s : s / c;\n    y = (x == 0.0f) ? x : y;",
    }[fn]
    return (
        """\
static $T gc_$fn_$T($T x) {
    $CONTRACT
    $T n = x * 0.636619747f + 12582912.0f, y;  // adding 1.5 * 2**23 rounds, and leaves the whole number in the low bits
    $I q = as_$I(n);
    n = n - 12582912.0f;
    $T r = fma(-n, ($T)(1.57079601e+0f), x);
    r = fma(-n, ($T)(3.13916473e-7f), r);
    r = fma(-n, ($T)(5.39030253e-15f), r);
    $T z = r * r, s, c;
    """
        + _horner("z", (2.86567956e-6, -1.98559923e-4, 8.33338592e-3, -1.66666672e-1), target="s", suffix="f")
        + "\n    s = s * (r * z) + r;\n    "
        + _horner("z", (2.44677067e-5, -1.38877297e-3, 4.16666567e-2, -0.5, 1.0), target="c", suffix="f")
        + f"\n    {result}"
        + """
    $I far = fabs(x) > 105615.0f;
    if ($any(far)) {
        float from[$n], to[$n];
        vstore$n(x, 0, from);
        vstore$n(y, 0, to);
        for (int i = 0; i < $n; ++i) to[i] = (fabs(from[i]) > 105615.0f) ? $fn(from[i]) : to[i];
        y = vload$n(0, to);
    }
    return y;
}
"""
    )
