"""Helper functions that generated code calls: written once per type and width, only those that a source mentions."""

from __future__ import annotations

import re

from backends.codegen.bodies import body_text, has_body
from backends.codegen.cnames import KIND_BYTES
from backends.codegen.language import Language
from backends.codegen.transposition import is_transposition, transposition

__all__ = ["prelude_for"]

_KINDS = "|".join(KIND_BYTES)
_ROUND = re.compile(r"\bgc_round_(float16|bfloat16)(2|4|8|16)?\b")
_NAME = re.compile(rf"\bgc_([a-z0-9_]+?)_({_KINDS})(2|4|8|16)?\b")
_MENTIONED = re.compile(r"gcu?_\w+")  # starts with letters, which a search for them finds fast
_LOOSE = re.compile(rf"\bgcu_({_KINDS})(2|4|8|16)\b")  # vectors with an element's alignment


def prelude_for(source: str, language: Language) -> str:
    """Definitions of every helper that ``source`` calls, and of those that they call, callees first."""
    words = _mentioned(source)
    rounds = sorted({(m[1], m[2] or "") for m in _ROUND.finditer(words)})
    loose = sorted({(m[1], m[2]) for m in _LOOSE.finditer(words)})
    types = "".join(f"{language.loose_type(kind, int(n), f'gcu_{kind}{n}')}\n" for kind, n in loose)
    found: dict[tuple[str, str, str], str] = {}
    for name in _names(words):
        _collect(name, language, found)
    return (
        types + "\n".join([*(language.rounding(kind, n) for kind, n in rounds), *filter(None, found.values())]) + "\n"
    )


def _mentioned(source: str) -> str:
    """The distinct words of ours in a source, which is long; their list is not."""
    return " ".join(sorted(set(_MENTIONED.findall(source))))


def _names(text: str) -> list[tuple[str, str, str]]:
    """The helpers that a text mentions: function, type, width."""
    return sorted({(m[1], m[2], m[3] or "") for m in _NAME.finditer(text)})


def _collect(name: tuple[str, str, str], language: Language, found: dict[tuple[str, str, str], str]) -> None:
    """Add a helper after those that it calls. They are few and call no circles, so recursion is not deep."""
    if name in found:
        return
    text = _definition(*name, language) or ""
    for other in _names(text):
        if other != name:
            _collect(other, language, found)
    found.setdefault(name, text)


def _definition(fn: str, kind: str, n: str, language: Language) -> str | None:
    if is_transposition(fn):
        return transposition(fn, kind, int(n), language)
    return body_text(fn, kind, int(n or 1), language) if has_body(fn) else language.definition(fn, kind, n)
