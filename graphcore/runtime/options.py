"""Options of sessions and runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.base.errors import SessionError, UsageError
from graphcore.ir.node import Value, describe

__all__ = ["RunMetadata", "RunOptions", "checked_seed", "parse_bytes", "refuse_nonfinite"]


@dataclass(frozen=True)
class RunOptions:
    """Options of one run.

    Attributes:
        check_numerics: raise where a fetched value is NaN or infinite; None takes the session's setting.
    """

    check_numerics: bool | None = None


@dataclass
class RunMetadata:
    """What a run tells: pass one as ``run_metadata``.

    Attributes:
        launches: kernel launches of the run.
        mode: how the plan was launched.
    """

    launches: int = 0
    mode: str = ""


def checked_seed(seed: Any) -> int | None:
    """The low 64 bits of an integer, or None.

    Raises:
        UsageError: no integer.
    """
    if seed is None:
        return None
    try:
        return int(seed.__index__()) & 0xFFFFFFFFFFFFFFFF
    except (AttributeError, TypeError):
        raise UsageError(f"Session: seed {seed!r} is no integer") from None


def parse_bytes(value: int | str | None, option: str = "memory_limit") -> int | None:
    """Bytes from a number or text like ``"2GB"``.

    Raises:
        UsageError: no size.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1}
    text = value.strip().upper() if isinstance(value, str) else ""
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            try:
                return int(float(text[: -len(unit)]) * units[unit])
            except (ValueError, OverflowError):
                break
    raise UsageError(f"{option}: {value!r} is no size; write bytes or text like '2GB'")


def refuse_nonfinite(tensors: Sequence[Value], values: Sequence[Any], explain: Callable[[], str | None]) -> None:
    """Raise SessionError where a value of a floating type is NaN or infinite.

    Args:
        tensors, values: what was fetched.
        explain: says more of the run, if it can.
    """
    for t, value in zip(tensors, values, strict=True):
        if t.dtype.is_float and not np.isfinite(np.asarray(value, np.float64)).all():
            kind = "NaN" if np.isnan(np.asarray(value, np.float64)).any() else "infinity"
            why = explain()
            raise SessionError(
                f"check_numerics: {t.name!r} holds {kind}\n  {describe(t)}"
                + (f"\n  {why}" if why else "")
                + ("\n  gc.detect_anomaly() around the run names the op that makes a NaN" if kind == "NaN" else "")
            )
