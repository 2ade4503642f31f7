"""Forms that loops over expressions cannot say: scans, sorts, transforms, factorisations.

Their operands are prologues like a contraction's, their results leaves of the stores: what a leaf is, only the form
says. Axes of operands and results are the kernel's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Self

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Extent
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import Axis

__all__ = ["Factor", "Factorisation", "Scan", "Sort", "Transform", "TransformKind", "WholeForm"]

_PRECISE = (dtypes.float32, dtypes.float64)
_SCANNED = frozenset("add mul max min".split())


@dataclass(frozen=True)
class WholeForm:
    """What they share: one result over the first operand's axes, of its type, where they say nothing else.

    Attributes:
        operands: what it is made of.
        results: the leaves that stores use.
    """

    operands: tuple[Computed, ...]
    results: tuple[Expr, ...]

    def result_axes(self) -> tuple[tuple[Axis, ...], ...]:
        """For every result the axes that it is over, outermost first."""
        return (self.operands[0].axes,)

    def types(self) -> tuple[DType, ...]:
        """The element type of every result."""
        return (self.operands[0].value.dtype,)

    def renumbered(self, position: Mapping[int, int]) -> Self:
        """The same over parameters at other positions."""
        return replace(self, operands=tuple(o.renumbered(position) for o in self.operands))

    def fault(self) -> str | None:
        """What is wrong with it, apart from what all forms must keep."""
        return None

    def verify(self, kernel: str, axes: Sequence[Axis], values: Sequence[Expr]) -> None:
        """Check the rules of the form against its kernel's name, axes and values.

        Raises:
            VerifyError: naming the kernel and the rule.
        """
        what = f"kernel {kernel}: its {type(self).__name__}"
        if not self.operands:
            raise VerifyError(f"{what} has no operands")
        for operand in self.operands:
            if not operand.value.axes <= set(operand.axes) or not set(operand.axes) <= set(axes):
                raise VerifyError(f"{what} has an operand over axes that are not the kernel's: {operand}")
            if tuple(a.extent for a in operand.axes) != operand.shape:
                raise VerifyError(f"{what} has an operand of {operand.shape} over the axes {operand.axes}")
        fault = self.fault()
        if fault is not None:
            raise VerifyError(f"{what} {fault}")
        if len(self.result_axes()) != len(self.results):
            raise VerifyError(f"{what} has {len(self.result_axes())} results, not {len(self.results)}")
        if self.result_types_differ():
            raise VerifyError(f"{what} has results of {[r.dtype.name for r in self.results]}")
        for result, own in zip(self.results, self.result_axes(), strict=True):
            if result.fn != "let" or result.axes != frozenset(own) or not set(own) <= set(axes):
                raise VerifyError(f"{what} has a result that is no leaf over {own}: {result!r}")
        if stray := [v for v in values if v.fn == "let" and v not in self.results]:
            raise VerifyError(f"{what} does not make {stray}")

    def result_types_differ(self) -> bool:
        """Whether some result has another type than the form makes."""
        return tuple(r.dtype for r in self.results) != self.types()

    def __str__(self) -> str:
        pairs = zip(self.results, self.result_axes(), strict=True)
        made = ", ".join(f"{r.dtype}[{','.join(map(str, own))}]" for r, own in pairs)
        own = ", ".join(f"{f.name} {_told(getattr(self, f.name))}" for f in fields(self)[len(fields(WholeForm)) :])
        return f"{type(self).__name__.lower()} {own}: {', '.join(map(str, self.operands))} -> {made}"


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "-"
    return str(value.value) if isinstance(value, Enum) else str(value)


@dataclass(frozen=True)
class Scan(WholeForm):
    """``result[i] = combine of operand[0..i]`` along one axis.

    Attributes:
        axis: along which.
        combine: ``add mul max min``.
        reverse: from the last element on.
        exclusive: without the element itself; the first result is the combination's identity. Sums and products only.
    """

    axis: Axis
    combine: str = "add"
    reverse: bool = False
    exclusive: bool = False

    def fault(self) -> str | None:
        if self.combine not in _SCANNED or (self.exclusive and self.combine not in ("add", "mul")):
            return f"cannot combine by {'exclusive ' if self.exclusive else ''}{self.combine}"
        return None if self.axis in self.operands[0].axes else f"is along {self.axis}, which its operand lacks"


@dataclass(frozen=True)
class Sort(WholeForm):
    """Keys in order along one axis, and where each was: results are the keys and their int64 positions. Stable; NaN
    comes last."""

    axis: Axis
    descending: bool = False

    def types(self) -> tuple[DType, ...]:
        return self.operands[0].value.dtype, dtypes.int64

    def result_axes(self) -> tuple[tuple[Axis, ...], ...]:
        return (self.operands[0].axes,) * 2

    def fault(self) -> str | None:
        return None if self.axis in self.operands[0].axes else f"is along {self.axis}, which its keys lack"


class TransformKind(Enum):
    """Which of a transform's operand and result are complex."""

    COMPLEX = "complex to complex"
    FROM_REAL = "real to complex"  # the result's other half is the conjugate of what is kept
    TO_REAL = "complex to real"  # the operand's other half is the conjugate of what is given

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Transform(WholeForm):
    """The discrete Fourier transform over some axes: ``result[k] = sum over n of operand[n] exp(-2 pi i k n / N)``.

    Complex numbers are interleaved: the last axis of a complex operand or result is a pair, the real part and then the
    imaginary one, so that memory holds what NumPy's complex arrays do. A real operand or result has no such axis.
    Along the last transformed axis, a real operand of N elements has a result of N // 2 + 1, and a real result of N
    elements an operand of N // 2 + 1; the imaginary parts that have to be zero there are not looked at.

    Attributes:
        along: the operand's axes that are transformed; the order matters for the last one only.
        pair: the axis of two.
        kind: what is complex.
        half: the result's axis in place of the last transformed one, where the operand or the result is real.
        inverse: with ``+2 pi i``.
        normalised: divide by the number of elements that are transformed, as NumPy's inverses do.
    """

    along: tuple[Axis, ...]
    pair: Axis
    kind: TransformKind = TransformKind.COMPLEX
    half: Axis | None = None
    inverse: bool = False
    normalised: bool = False

    def result_axes(self) -> tuple[tuple[Axis, ...], ...]:
        own = tuple(a for a in self.operands[0].axes if a != self.pair)
        if self.half is not None:
            own = tuple(self.half if a == self.along[-1] else a for a in own)
        return ((*own, self.pair) if self.kind is not TransformKind.TO_REAL else own,)

    def fault(self) -> str | None:
        axes = self.operands[0].axes
        if len(self.operands) != 1 or self.operands[0].value.dtype not in _PRECISE:
            return f"takes one operand of float32 or float64, not {', '.join(map(str, self.operands))}"
        if self.pair.extent != 2:
            return f"has pairs of {self.pair.extent} parts"
        is_complex = self.kind is not TransformKind.FROM_REAL
        if (self.pair in axes[-1:]) != is_complex or self.pair in axes[:-1]:
            where = f"whose last axis is the pair {self.pair}" if is_complex else f"without the pair {self.pair}"
            return f"of the kind {self.kind} takes an operand {where}, not over {axes}"
        if not self.along or len(set(self.along)) < len(self.along) or not set(self.along) <= {*axes} - {self.pair}:
            return f"is along {self.along}, its operand is over {axes}"
        return self._half_fault(self.along[-1].extent)

    def _half_fault(self, given: Extent) -> str | None:
        if self.half is None or self.kind is TransformKind.COMPLEX:
            fits = self.half is None and self.kind is TransformKind.COMPLEX
            return None if fits else f"of the kind {self.kind} has the half axis {self.half}"
        made = self.half.extent
        real, kept = (given, made) if self.kind is TransformKind.FROM_REAL else (made, given)
        fits = self.half not in self.operands[0].axes and isinstance(real, int) and real > 0 and kept == real // 2 + 1
        return (
            None
            if fits
            else f"of the kind {self.kind} makes {made} elements of {given} along the half axis {self.half}"
        )


class Factorisation(Enum):
    """Into which factors."""

    CHOLESKY = "cholesky"  # a = l l^T, l lower triangular: one result
    QR = "qr"  # a = q r, reduced: two
    LU = "lu"  # a[permutation] = l u with l's unit diagonal left out: the packed factors, int64 permutation of the rows


@dataclass(frozen=True)
class Factor(WholeForm):
    """Factors of the matrices that an operand's last two axes are.

    Attributes:
        kind: which factors.
        inner: the axis between the factors of a QR; None for others.
    """

    kind: Factorisation
    inner: Axis | None = None

    def result_axes(self) -> tuple[tuple[Axis, ...], ...]:
        *batch, row, column = self.operands[0].axes
        if self.kind is Factorisation.CHOLESKY:
            return ((*batch, row, column),)
        if self.kind is Factorisation.LU:
            return (*batch, row, column), (*batch, row)
        assert self.inner is not None
        return (*batch, row, self.inner), (*batch, self.inner, column)

    def types(self) -> tuple[DType, ...]:
        own = self.operands[0].value.dtype
        return (own,) if self.kind is Factorisation.CHOLESKY else (own, dtypes.int64 if self._pivots else own)

    @property
    def _pivots(self) -> bool:
        return self.kind is Factorisation.LU

    def verify(self, kernel: str, axes: Sequence[Axis], values: Sequence[Expr]) -> None:
        if (self.inner is None) == (self.kind is Factorisation.QR):
            raise VerifyError(f"kernel {kernel}: its Factor needs an inner axis for qr, and none for others")
        if len(self.operands) != 1 or len(self.operands[0].axes) < 2:
            raise VerifyError(f"kernel {kernel}: its Factor takes one operand of at least two axes")
        super().verify(kernel, axes, values)

    def fault(self) -> str | None:
        rows, columns = self.operands[0].shape[-2:]
        if self.operands[0].value.dtype not in _PRECISE:
            return f"takes float32 or float64 matrices, not {self.operands[0].value.dtype}"
        if self.inner is None:
            return None if rows == columns else f"takes square matrices, not {rows} x {columns}"
        fits = isinstance(rows, int) and isinstance(columns, int) and self.inner.extent == min(rows, columns)
        return None if fits else f"has an inner axis of {self.inner.extent} for {rows} x {columns}"
