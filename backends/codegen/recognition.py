"""Recognising a kernel once, however often its family asks what it is."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from graphcore.kernel.ir import Kernel

__all__ = ["recognised"]

P = ParamSpec("P")
Found = TypeVar("Found")


def recognised(find: Callable[Concatenate[Kernel, P], Found]) -> Callable[Concatenate[Kernel, P], Found]:
    """A function of a kernel that remembers its answers as long as the kernel lives.

    Kernels are frozen, so an answer stays right. It goes by the object, not by what it is equal to: comparing kernels
    costs as much as recognising them. The answer must not hold the kernel, which would then live forever.
    """
    answers: dict[tuple[Any, ...], tuple[weakref.ref[Kernel], Found]] = {}

    @functools.wraps(find)
    def look_up(kernel: Kernel, /, *args: P.args, **kwargs: P.kwargs) -> Found:
        key = (id(kernel), args, tuple(sorted(kwargs.items())))
        known = answers.get(key)
        if known is not None and known[0]() is kernel:
            return known[1]
        found = find(kernel, *args, **kwargs)
        answers[key] = weakref.ref(kernel, lambda gone: _forget(answers, key, gone)), found
        return found

    return look_up


def _forget(
    answers: dict[tuple[Any, ...], tuple[weakref.ref[Kernel], Any]], key: tuple[Any, ...], gone: weakref.ref[Kernel]
) -> None:
    """Drop the answer about a kernel that died, unless another one lies at its address by now."""
    known = answers.get(key)
    if known is not None and known[0] is gone:
        del answers[key]
