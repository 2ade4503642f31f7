"""Helpers that transpose square tiles of floats in registers.

A transposition of 16 vectors is 64 shuffles, which take a vendor's compiler a tenth of a second: a program has each
once, as a function of its own.
"""

from __future__ import annotations

from backends.codegen.language import Language, Space

__all__ = ["FROM_GLOBAL", "FROM_PRIVATE", "PRIVATE", "is_transposition", "transpose", "transposition"]

FROM_GLOBAL, FROM_PRIVATE, PRIVATE = "transpose", "transpose_made", "transpose_own"
_SPACES = {
    FROM_GLOBAL: (Space.GLOBAL, Space.GLOBAL),
    FROM_PRIVATE: (Space.PRIVATE, Space.GLOBAL),
    PRIVATE: (Space.PRIVATE, Space.PRIVATE),
}


def transpose(fn: str, kind: str, width: int, origin: str, pitch: str, target: str, target_pitch: str) -> str:
    """The statement that transposes ``width`` rows of ``width`` elements, ``pitch`` apart; its ends may be the same.

    Args:
        fn: by where both ends are: ``FROM_GLOBAL`` (to global memory, as the next), ``FROM_PRIVATE`` or ``PRIVATE``.
        kind: of the elements, float or double.
        width: 4, 8 or 16.
        origin, target: C pointers to elements.
        pitch, target_pitch: C expressions: elements from row to row.
    """
    return f"gc_{fn}_{kind}{width}({origin}, {pitch}, {target}, {target_pitch});"


def is_transposition(fn: str) -> bool:
    """Whether a helper of this name is one of these."""
    return fn in _SPACES


def transposition(fn: str, kind: str, width: int, language: Language) -> str:
    """The helper that ``transpose`` calls."""
    origin, target = _SPACES[fn]
    vector, loose = language.vector(kind, width), f"gc_{kind}{width}"
    lines = [language.loose_type(kind, width, loose)]
    rows = [f"r{i}" for i in range(width)]
    for i, row in enumerate(rows):
        lines.append(f"const {vector} {row} = {language.deref(loose, f'from + {i} * pitch', origin, const=True)};")
    level = 0
    while 1 << level < width:
        merged: list[str] = []
        for i in range(width // 2):
            for high in (False, True):
                name = f"t{level}_{len(merged)}"
                lines.append(language.interleave(name, rows[i], rows[i + width // 2], high, kind, width))
                merged.append(name)
        rows, level = merged, level + 1
    for i, row in enumerate(rows):
        lines.append(f"{language.deref(loose, f'to + {i} * to_pitch', target)} = {row};")
    parameters = (
        f"{language.pointer(kind, origin, const=True)} const from, const int pitch, "
        f"{language.pointer(kind, target)} const to, const int to_pitch"
    )
    body = "".join(f"  {line}\n" for line in lines)
    return f"GC_NOINLINE static void gc_{fn}_{kind}{width}({parameters}) {{\n{body}}}"
