"""Colours, text sizes and escaping that the SVG and the page share."""

from __future__ import annotations

import re
import unicodedata
from html import escape

LABEL_SIZE, LINE_SIZE = 12, 10
LABEL_CHARS, LINE_CHARS, PIN_CHARS = 30, 34, 24

# style: (meaning, light fill, light stroke, dark fill, dark stroke)
PALETTE: dict[str, tuple[str, str, str, str, str]] = {
    "placeholder": ("fed input", "#d3f5e0", "#1b8a4b", "#123d27", "#4cc484"),
    "variable": ("variable", "#ffe9c2", "#b87503", "#453008", "#e0a43a"),
    "constant": ("constant", "#ececec", "#8a8a8a", "#333333", "#8f8f8f"),
    "map": ("elementwise", "#dceafd", "#3a76c4", "#16304f", "#6ba3ea"),
    "view": ("view (no copy)", "#ffffff", "#8c9bb0", "#1b2028", "#76869c"),
    "reduce": ("reduction", "#eadcfb", "#7d4bc0", "#35204f", "#b68bf0"),
    "contract": ("matmul, convolution", "#ffd9d2", "#c8432c", "#4d1e16", "#f0806c"),
    "opaque": ("other op", "#f6e3ee", "#a24e7c", "#42203a", "#d686b4"),
    "region": ("loop or branch", "#d5f1f3", "#15838c", "#103a3e", "#4fbcc5"),
    "update": ("update", "#fff3a8", "#958000", "#3f3908", "#d3bf3c"),
    "output": ("fetched output", "#cfe3d6", "#24593a", "#1e4730", "#86cfa4"),
    "kernel": ("kernel", "#e3e6ff", "#4b55c8", "#24285a", "#8f98f5"),
    "buffer": ("buffer", "#f3ead9", "#80683c", "#382f1f", "#bfa471"),
    "folded": ("folded group", "#eef1f5", "#5b6b80", "#252c36", "#8595ab"),
}
MONO = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace"

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Return the text with characters that XML cannot hold replaced, so that any name can be written."""
    return _FORBIDDEN.sub("\ufffd", text)


def xml(text: str) -> str:
    """Return the text escaped for XML and HTML, in elements and in quoted attributes."""
    return escape(clean(text), quote=True)


def one_line(text: str) -> str:
    """Return the text with every run of white space and control characters as one space."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", clean(text)).strip()


def clip(text: str, columns: int) -> str:
    """Return one line of at most so many columns, the middle cut out: names differ most at their ends."""
    text = one_line(text)
    if columns_of(text) <= columns:
        return text
    tail = columns // 3
    head = columns - tail - 1
    return _take(text, head) + "…" + _take(text[::-1], tail)[::-1]


def wrap(text: str, columns: int, rows: int) -> list[str]:
    """Return lines of at most so many columns, broken between words; the last one is clipped if there are too many."""
    lines: list[str] = []
    for word in one_line(text).split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and (columns_of(joined) <= columns or len(lines) == rows):
            lines[-1] = joined
        else:
            lines.append(word)
    return [clip(line, columns) for line in lines]


def columns_of(text: str) -> int:
    """Return the text's width in columns of a monospaced font."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _take(text: str, columns: int) -> str:
    used = 0
    for end, character in enumerate(text):
        used += columns_of(character)
        if used > columns:
            return text[:end]
    return text


def text_width(text: str, size: int) -> float:
    """Return the text's width in pixels at a font size in pixels."""
    return round(columns_of(text) * size * 0.6025, 1)


def format_bytes(count: float) -> str:
    """Return a byte count with a binary unit: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    return ""


def drawing_css(scope: str = "svg.gc") -> str:
    """Return the rules for everything inside a drawing, light and dark."""
    s = scope
    lines = [
        f"{s} text{{font-family:{MONO};font-size:{LINE_SIZE}px;fill:#1d232b}}",
        f"{s} text.label{{font-size:{LABEL_SIZE}px;font-weight:600}}",
        f"{s} text.title{{font-size:17px;font-weight:700}}",
        f"{s} text.dim{{fill:#5d6875}}",
        f"{s} .paper{{fill:#ffffff}}",
        f"{s} .frame>rect{{fill:#8494a8;fill-opacity:.08;stroke:#8494a8;stroke-width:1}}",
        f"{s} .frame.kernel>rect{{fill:#4b55c8;fill-opacity:.06;stroke:#4b55c8;stroke-opacity:.75}}",
        f"{s} .edge path{{fill:none;stroke:#76828f;stroke-width:1.15}}",
        f"{s} .edge.control path,{s} .edge.update path,{s} .edge.back path{{stroke-dasharray:5 3}}",
        f"{s} .edge.update path,{s} .edge.back path{{stroke:#b8860b}}",
        f"{s} .edge.bundle path{{stroke-width:2}}",
        f"{s} .tie{{stroke:#9aa5b1;stroke-width:1;fill:none}}",
        f"{s} .arrow{{fill:#76828f}}",
        f"{s} .edge text{{fill:#5d6875}}",
        f"{s} .edge rect{{fill:#ffffff;fill-opacity:.9}}",
        f"{s} .box>rect.body,{s} .pin>rect.body{{stroke-width:1.2}}",
        f"{s} .box.view>rect.body{{stroke-dasharray:4 2.5}}",
        f"{s} .box.output>rect.body{{stroke-width:2.4}}",
        f"{s} .pin.far>rect{{stroke-dasharray:2.5 2}}",
        f"{s} .axis{{stroke:#9aa5b1;stroke-width:1;fill:none}}",
        f"{s} .grid{{stroke:#9aa5b1;stroke-opacity:.28;stroke-width:1}}",
        f"{s} .live{{fill:#3a76c4;fill-opacity:.25;stroke:#3a76c4;stroke-width:1.2}}",
        f"{s} .slab rect{{stroke:#ffffff;stroke-width:1}}",
    ]
    dark = [
        f"{s} text{{fill:#dfe6ee}}",
        f"{s} text.dim,{s} .edge text{{fill:#98a5b3}}",
        f"{s} .paper,{s} .edge rect{{fill:#12161c}}",
        f"{s} .frame.kernel>rect{{fill:#8f98f5;stroke:#8f98f5}}",
        f"{s} .edge path{{stroke:#8592a0}}",
        f"{s} .edge.update path,{s} .edge.back path{{stroke:#d3a83c}}",
        f"{s} .arrow{{fill:#8592a0}}",
        f"{s} .slab rect{{stroke:#12161c}}",
    ]
    for style, (_, fill, stroke, dark_fill, dark_stroke) in PALETTE.items():
        body, bar = f"{s} .{style}>rect.body", f"{s} .{style}>rect.bar"
        lines.append(f"{body}{{fill:{fill};stroke:{stroke}}}{bar}{{fill:{stroke}}}")
        dark.append(f"{body}{{fill:{dark_fill};stroke:{dark_stroke}}}{bar}{{fill:{dark_stroke}}}")
    return "\n".join(lines) + "\n@media (prefers-color-scheme:dark){\n" + "\n".join(dark) + "\n}\n"
