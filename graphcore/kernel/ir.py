"""Kernels: parallel axes, parameters and stores of scalar expressions.

There are no explicit let-bindings: expressions are interned, so a shared value is one object, and the loop level at
which it is computed follows from its free axes. A per-row maximum depends on the row axis only and is therefore
computed once a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Literal

from graphcore.base.dtypes import DType
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Dim, Extent, Shape, product
from graphcore.kernel.contraction_rules import verify_contraction
from graphcore.kernel.expr import REDUCERS, Expr, walk
from graphcore.kernel.forms import Contraction, find_product
from graphcore.kernel.index import Axis, Index
from graphcore.kernel.whole_forms import WholeForm

__all__ = [
    "Kernel",
    "KernelKind",
    "Param",
    "Store",
    "print_kernel",
    "symbolic_sizes",
    "verify_kernel",
]


class KernelKind(Enum):
    """The loops that grouping had in mind."""

    MAP = "map"  # elementwise work
    ROWS = "rows"  # reductions bind axes of the domain
    WINDOW = "window"  # reductions bind axes of their own
    CONTRACT = "contract"  # sums of products, with an epilogue
    SCATTER = "scatter"  # a helper that puts indices in order

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Param:
    """A buffer that a kernel reads or writes: element type and extents (contiguous, row-major)."""

    name: str
    dtype: DType
    shape: Shape

    @property
    def size(self) -> Extent:
        return product(self.shape)


@dataclass(frozen=True)
class Store:
    """``param[index] = value`` (mode ``set``) or ``param[index] += value`` (mode ``add``), for every point of the axes
    it names."""

    param: int
    index: Index
    value: Expr
    mode: Literal["set", "add"] = "set"


@dataclass(frozen=True)
class Kernel:
    """A loop nest: for every point of ``axes`` evaluate the stores' values and store them.

    A store whose index does not depend on some parallel axis runs once for all values of that axis. Reductions inside
    values bind their own axes, which may be parallel axes of the kernel: that is how a row's maximum and the row's
    elements share a loop.

    Attributes:
        name: from the ops inside, valid in C.
        params: buffers; loads and stores name them by position.
        axes: the parallel axes, outermost first; the sequential axes of a scatter follow.
        stores: what is written.
        kind: the loops that grouping had in mind.
        origins: lines for the comment above the source: graph nodes and the user's lines.
        form: what it is as a whole, for families that know better than to walk its loops; None if nothing is known.
        scratch: how a family uses parameters beside loads and stores: ``(param, "r" | "w" | "rw")``.
        wide: whether its loops count in 64 bits, as a target decides for sizes that 32 may not hold.
    """

    name: str
    params: tuple[Param, ...]
    axes: tuple[Axis, ...]
    stores: tuple[Store, ...]
    kind: KernelKind = KernelKind.MAP
    origins: tuple[str, ...] = ()
    form: Contraction | WholeForm | None = None
    scratch: tuple[tuple[int, str], ...] = ()
    wide: bool = False

    def __str__(self) -> str:
        return print_kernel(self)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.params, self.axes, self.stores))

    def product(self) -> Contraction | None:
        """Its contraction as a product; of a convolution, the one that its loops are. None where it has none."""
        if not isinstance(self.form, Contraction):
            return None
        if self.form.window is None:
            return self.form
        return find_product(self.axes, self.values())

    def values(self) -> Sequence[Expr]:
        """Every expression once, operands first."""
        return self._values

    @cached_property
    def _values(self) -> tuple[Expr, ...]:
        """Walked once: a kernel is asked for its values a hundred times on the way to its text."""
        return tuple(walk(*(s.value for s in self.stores)))

    def reductions(self) -> Sequence[Expr]:
        """Its reductions, operands first."""
        return self._reductions

    @cached_property
    def _reductions(self) -> tuple[Expr, ...]:
        return tuple(v for v in self._values if v.fn == "reduce")

    def written(self) -> frozenset[int]:
        """Parameters that are written."""
        return frozenset((*(s.param for s in self.stores), *(p for p, use in self.scratch if "w" in use)))

    def read(self) -> frozenset[int]:
        """Parameters that are read."""
        whole = self.form.operands if isinstance(self.form, WholeForm) else ()
        values = walk(*(s.value for s in self.stores), *(o.value for o in whole))
        return frozenset((*(v.param for v in values if v.fn == "load"), *(p for p, use in self.scratch if "r" in use)))


def verify_kernel(kernel: Kernel) -> None:
    """Check the rules of the IR.

    Raises:
        VerifyError: a parameter out of range, an unbound axis, a type that does not fit, an unknown reducer.
    """
    known = set(kernel.axes)
    if not (kernel.name.isidentifier() and kernel.name.isascii()):
        raise VerifyError(f"kernel {kernel.name!r}: its name is no identifier")
    for position, use in kernel.scratch:
        if not 0 <= position < len(kernel.params) or use not in ("r", "w", "rw"):
            raise VerifyError(f"kernel {kernel.name}: scratch use {use!r} of parameter {position}")
    if kernel.form is not None:
        _verify_form(kernel, kernel.form)
    for store in kernel.stores:
        if not 0 <= store.param < len(kernel.params):
            raise VerifyError(f"kernel {kernel.name}: store to unknown parameter {store.param}")
        if store.value.dtype != kernel.params[store.param].dtype:
            raise VerifyError(
                f"kernel {kernel.name}: a {store.value.dtype} value is stored to a "
                f"{kernel.params[store.param].dtype} buffer"
            )
        free = (store.value.axes | store.index.axes()) - known
        if free:
            raise VerifyError(f"kernel {kernel.name}: axes {sorted(map(str, free))} are not bound")
    for value in kernel.values():
        if value.fn == "load" and not (isinstance(value.param, int) and 0 <= value.param < len(kernel.params)):
            raise VerifyError(f"kernel {kernel.name}: load from unknown parameter {value.param}")
        if value.fn == "load" and kernel.params[value.param].dtype != value.dtype:
            raise VerifyError(
                f"kernel {kernel.name}: load of {value.dtype} from a {kernel.params[value.param].dtype} buffer"
            )
        if value.fn == "let" and not isinstance(kernel.form, WholeForm):
            raise VerifyError(f"kernel {kernel.name}: no form makes {value!r}")
        if value.fn == "reduce" and value.combine not in REDUCERS:
            raise VerifyError(f"kernel {kernel.name}: unknown reducer {value.combine}")
    for axis in kernel.axes:
        if not isinstance(axis.extent, (int, Dim)):
            raise VerifyError(f"kernel {kernel.name}: axis {axis} has extent {axis.extent!r}")


def _verify_form(kernel: Kernel, form: Contraction | WholeForm) -> None:
    if isinstance(form, Contraction):
        verify_contraction(form, kernel.name, kernel.axes, kernel.values())
        for store in kernel.stores:
            lost = sorted(map(str, (store.value.axes & set(form.result_axes)) - store.index.axes()))
            if lost and store.mode == "set":
                raise VerifyError(
                    f"kernel {kernel.name}: the index of a store to p{store.param} lacks {', '.join(lost)}, rows, "
                    "columns or batch of its contraction, on which its value depends"
                )
    else:
        form.verify(kernel.name, kernel.axes, kernel.values())
    for operand in form.operands:
        for value in walk(operand.value):
            if value.fn == "load" and (
                not 0 <= value.param < len(kernel.params) or kernel.params[value.param].dtype != value.dtype
            ):
                raise VerifyError(
                    f"kernel {kernel.name}: an operand of its form loads {value!r}, which no parameter is"
                )


def print_kernel(kernel: Kernel) -> str:
    """The kernel as text: parameters, axes, then one line for every shared or reduced value, then the stores."""
    uses: dict[Expr, int] = {}
    order = kernel.values()
    for value in order:
        for arg in value.args:
            uses[arg] = uses.get(arg, 0) + 1
    names: dict[Expr, str] = {}
    lines = [f"kernel {kernel.name} ({kernel.kind})"]
    lines += [f"  p{i}: {p.name} {p.dtype}{list(p.shape)}" for i, p in enumerate(kernel.params)]
    if kernel.form is not None:
        lines.append(f"  {kernel.form}")
    lines.append("  for " + ", ".join(f"{a}<{a.extent}" for a in kernel.axes) if kernel.axes else "  once")
    for value in order:
        named = value.fn == "reduce" or (uses.get(value, 0) > 1 and value.args and value.fn != "load")
        if named:
            text = _text(value, names)
            names[value] = f"v{len(names)}"
            scope = ",".join(sorted(a.name for a in value.axes))
            lines.append(f"    {names[value]}[{scope}]: {value.dtype} = {text}")
    for store in kernel.stores:
        sign = "=" if store.mode == "set" else "+="
        lines.append(f"    p{store.param}[{store.index}] {sign} {_text(store.value, names)}")
    return "\n".join(lines)


def _text(value: Expr, names: dict[Expr, str]) -> str:
    if value in names:
        return names[value]
    if value.fn == "const":
        return f"{value.value}"
    if value.fn == "load":
        guard = f" if {_text(value.guard, names)}" if value.guard else ""
        return f"p{value.param}[{value.index}]{guard}"
    if value.fn == "in_range":
        return f"{value.low}<={value.index}<{value.high}"
    if value.fn == "index":
        return str(value.index)
    if value.fn == "size":
        return str(value.extent)
    if value.fn == "let":
        return repr(value)
    inner = ", ".join(_text(a, names) for a in value.args)
    if value.fn == "reduce":
        return f"{value.combine} over {','.join(map(str, value.reduce_axes))} of {inner}"
    return f"{value.fn}{'_' + value.dtype.name if value.fn == 'cast' else ''}({inner})"


def symbolic_sizes(kernel: Kernel) -> list[Dim]:
    """The symbolic extents that a kernel's text needs as arguments, in order."""
    found: dict[Dim, None] = {}
    for value in kernel.values():
        if value.fn == "size":
            found[value.extent] = None
        elif value.fn == "reduce":
            found.update(dict.fromkeys(a.extent for a in value.reduce_axes if isinstance(a.extent, Dim)))
        elif value.fn == "in_range" and isinstance(value.high, Dim):
            found[value.high] = None
    found.update(dict.fromkeys(a.extent for a in kernel.axes if isinstance(a.extent, Dim)))
    return list(found)
