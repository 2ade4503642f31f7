"""A kernel as several that run one after the other and hand results on through workspaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from graphcore.base.dtypes import DType
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Shape
from graphcore.kernel.forms import Contraction, renumbered
from graphcore.kernel.ir import Kernel, Param, Store, print_kernel, verify_kernel
from graphcore.kernel.whole_forms import WholeForm

__all__ = ["Part", "Parts", "Workspace", "print_parts", "refined", "uncut", "verify_parts", "without_unused"]


@dataclass(frozen=True)
class Workspace:
    """Memory that parts of a kernel hand results on in: extents (contiguous, row-major) and element type."""

    shape: Shape
    dtype: DType


@dataclass(frozen=True)
class Part:
    """One of the kernels that a kernel was cut into.

    Attributes:
        kernel: its IR.
        params: what is behind its parameters: positions in the whole kernel's parameters, workspaces counted after
            them.
        helper: whether it makes partial results only, counted apart from the plan's kernels.
        counted: the kernel whose arithmetic and traffic reports count for it; None where another part's stands for it.
    """

    kernel: Kernel
    params: tuple[int, ...]
    helper: bool = False
    counted: Kernel | None = None


@dataclass(frozen=True)
class Parts:
    """What a kernel was cut into.

    Attributes:
        whole: the kernel.
        parts: in an order in which they can run.
        workspaces: behind the parameters after the whole kernel's own.
        reasons: what was cut, and why; a line each.
    """

    whole: Kernel
    parts: tuple[Part, ...]
    workspaces: tuple[Workspace, ...]
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return print_parts(self)

    def behind(self, position: int) -> Param | Workspace:
        """The parameter of the whole kernel, or the workspace, at a position of ``Part.params``."""
        count = len(self.whole.params)
        return self.whole.params[position] if position < count else self.workspaces[position - count]


def print_parts(parts: Parts) -> str:
    """Every part as text, after what is behind its parameters."""
    count = len(parts.whole.params)
    names = [f"p{p}" if p < count else f"w{p - count}" for p in range(count + len(parts.workspaces))]
    return "\n\n".join(
        f"part {number} of {parts.whole.name} over {', '.join(names[p] for p in part.params)}\n"
        + print_kernel(part.kernel)
        for number, part in enumerate(parts.parts)
    )


def verify_parts(parts: Parts) -> None:
    """Check every part by itself, and that together they can stand for the whole kernel.

    Raises:
        VerifyError: a broken rule of a part; a parameter that is behind nothing or of another type; a result that no
            part writes, or one that is written and was only read; a workspace or a result that is read before a part
            has written it.
    """
    whole, ready = parts.whole, set(parts.whole.read())
    for part in parts.parts:
        kernel = part.kernel
        verify_kernel(kernel)
        if len(part.params) != len(kernel.params):
            raise VerifyError(f"{len(part.params)} parameters are behind the {len(kernel.params)} of {kernel.name}")
        for param, position in zip(kernel.params, part.params, strict=True):
            if not 0 <= position < len(whole.params) + len(parts.workspaces):
                raise VerifyError(f"nothing is behind {param.name} of {kernel.name}, a part of {whole.name}")
            if parts.behind(position).dtype != param.dtype:
                raise VerifyError(f"{param.name} of {kernel.name} is of another type than what is behind it")
        early = [p for p in kernel.read() - kernel.written() if part.params[p] not in ready]
        if early:
            raise VerifyError(f"{kernel.name} reads {kernel.params[early[0]].name}, which no part has written")
        written = {part.params[p] for p in kernel.written()}
        wrong = {p for p in written if p < len(whole.params)} - whole.written()
        if wrong:
            raise VerifyError(f"{kernel.name} writes parameter {min(wrong)} of {whole.name}, which does not")
        ready |= written
    missing = whole.written() - ready
    if missing:
        raise VerifyError(f"no part of {whole.name} writes its parameter {min(missing)}")


def refined(parts: Parts, rewrite: Callable[[Kernel], Parts | None]) -> Parts:
    """The parts with each part that is rewritten replaced by what it was cut into."""
    made: list[Part] = []
    spaces, reasons, count = list(parts.workspaces), list(parts.reasons), len(parts.whole.params)
    for part in parts.parts:
        inner = rewrite(part.kernel)
        if inner is None:
            made.append(part)
            continue
        behind = (*part.params, *(count + len(spaces) + n for n in range(len(inner.workspaces))))
        made += [
            replace(
                p,
                params=tuple(behind[n] for n in p.params),
                helper=part.helper or p.helper,
                counted=p.counted if part.counted is not None else None,
            )
            for p in inner.parts
        ]
        spaces += inner.workspaces
        reasons += inner.reasons
    return replace(parts, parts=tuple(made), workspaces=tuple(spaces), reasons=tuple(reasons))


def uncut(kernel: Kernel) -> Parts:
    """A kernel that is its own and only part."""
    return Parts(kernel, (Part(kernel, tuple(range(len(kernel.params))), counted=kernel),), ())


def without_unused(kernel: Kernel) -> tuple[tuple[int, ...], Kernel]:
    """The kernel with only the parameters that it touches, and their old positions."""
    used = tuple(sorted(kernel.read() | kernel.written()))
    position = {old: new for new, old in enumerate(used)}
    stores = tuple(Store(position[s.param], s.index, renumbered(s.value, position), s.mode) for s in kernel.stores)
    params = tuple(replace(kernel.params[old], name=f"p{new}") for new, old in enumerate(used))
    return used, replace(kernel, params=params, stores=stores, form=_kept_form(kernel, position))


def _kept_form(kernel: Kernel, position: Mapping[int, int]) -> Contraction | WholeForm | None:
    """A kernel's form over parameters at other positions; a contraction only if the kernel still makes it."""
    form = kernel.form
    if isinstance(form, Contraction):
        kept = form.loaded() <= position.keys() and form.result in kernel.values()
        return form.renumbered(position) if kept else None
    return form.renumbered(position) if form is not None else None
