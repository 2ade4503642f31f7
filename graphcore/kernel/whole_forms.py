"""Forms that loops over expressions cannot say: scans, sorts, transforms, factorisations.

Their operands are prologues like a contraction's, their results leaves of the stores: what a leaf is, only the form
says. Axes of operands and results are the kernel's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import VerifyError
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import Axis

__all__ = ["Factor", "Factorisation", "Scan", "Sort", "Transform", "WholeForm"]

_PRECISE = (dtypes.float32, dtypes.float64)
_SCANNED = frozenset("add mul max min".split())


@dataclass(frozen=True)
class WholeForm:
    """What they share.

    Attributes:
        operands: what it is made of.
        results: the leaves that stores use.
    """

    operands: tuple[Computed, ...]
    results: tuple[Expr, ...]

    def result_axes(self) -> tuple[tuple[Axis, ...], ...]:
        """For every result the axes that it is over, outermost first."""
        return (self.operands[0].axes,) * len(self.results)

    def types(self) -> tuple[DType, ...]:
        """The element type of every result."""
        return (self.operands[0].value.dtype,) * len(self.results)

    def fault(self) -> str | None:
        """What is wrong with it, apart from what all forms must keep."""
        return None

    def verify(self, kernel: str, axes: Sequence[Axis], values: Sequence[Expr]) -> None:
        """Check the rules of the form against its kernel's name, axes and values.

        Raises:
            VerifyError: naming the kernel and the rule.
        """
        what = f"kernel {kernel}: its {type(self).__name__}"
        if not self.operands or len(self.result_axes()) != len(self.results):
            raise VerifyError(f"{what} has {len(self.operands)} operands and {len(self.results)} results")
        for operand in self.operands:
            if not operand.value.axes <= set(operand.axes) or not set(operand.axes) <= set(axes):
                raise VerifyError(f"{what} has an operand over axes that are not the kernel's: {operand}")
            if tuple(a.extent for a in operand.axes) != operand.shape:
                raise VerifyError(f"{what} has an operand of {operand.shape} over the axes {operand.axes}")
        fault = self.fault()
        if fault is not None:
            raise VerifyError(f"{what} {fault}")
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
        return f"{type(self).__name__.lower()} of {', '.join(str(o.value.dtype) for o in self.operands)} -> {made}"


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


@dataclass(frozen=True)
class Transform(WholeForm):
    """The discrete Fourier transform over some axes of a pair of operands, real and imaginary parts; a pair of results.
    The inverse divides by the number of elements."""

    along: tuple[Axis, ...]
    inverse: bool = False

    def result_axes(self) -> tuple[tuple[Axis, ...], ...]:
        return (self.operands[0].axes,) * 2

    def types(self) -> tuple[DType, ...]:
        return (self.operands[0].value.dtype,) * 2

    def fault(self) -> str | None:
        kinds = {(o.axes, o.value.dtype) for o in self.operands}
        if len(self.operands) != 2 or len(kinds) != 1 or self.operands[0].value.dtype not in _PRECISE:
            return "takes a pair of float32 or float64 operands over the same axes"
        inside = self.along and set(self.along) <= set(self.operands[0].axes)
        return None if inside else f"is along {self.along}, its operands are over {self.operands[0].axes}"


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
