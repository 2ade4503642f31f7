"""What a failed build says: the source near the errors, the compiler's log, and what the source was made from."""

from __future__ import annotations

import re

from backends.opencl.device.device import Device

__all__ = ["error_lines", "explain_failure"]

_CONTEXT_LINES = 4
_MOST_ERRORS = 5
_MOST_LOG = 8000  # characters


def explain_failure(source: str, log: str, origins: str, device: Device, options: tuple[str, ...]) -> str:
    """The message of a `CompileError`."""
    info = device.info
    shown = log if len(log) <= _MOST_LOG else f"{log[:_MOST_LOG]}\n... ({len(log) - _MOST_LOG} more characters)"
    parts = [
        f"an OpenCL kernel does not compile on {info.name} ({info.platform}, driver {info.driver})",
        f"source around the errors:\n{_excerpt(source, error_lines(log))}",
        f"build log:\n{shown}",
    ]
    if options:
        parts.append(f"options: {' '.join(options)}")
    if origins:
        parts.append(f"made from:\n{origins}")
    return "\n\n".join(parts)


def error_lines(log: str) -> list[int]:
    """Return the lines of a build log's errors: Intel writes `1:22:10: error: ...`, PoCL `error: x.cl:22:10: ...`."""
    numbers: list[int] = []
    for line in log.splitlines():
        if "error" in line.lower():
            found = re.search(r"(\d+):\d+:\s", line)
            if found and int(found.group(1)) not in numbers:
                numbers.append(int(found.group(1)))
    return numbers[:_MOST_ERRORS]


def _excerpt(source: str, errors: list[int]) -> str:
    """Return the numbered lines near the errors, marked; the beginning if the log names no line."""
    lines = source.splitlines()
    centres = [n for n in errors if 1 <= n <= len(lines)]
    wanted = sorted(
        {i for n in centres for i in range(n - _CONTEXT_LINES, n + _CONTEXT_LINES + 1)} & set(range(1, len(lines) + 1))
    )
    if not wanted:
        wanted = list(range(1, min(len(lines), 40) + 1))
    text: list[str] = []
    last = 0
    for number in wanted:
        if number > last + 1:
            text.append("      ...")
        text.append(f"{'>' if number in centres else ' '}{number:5d} | {lines[number - 1]}")
        last = number
    if last < len(lines):
        text.append("      ...")
    return "\n".join(text)
