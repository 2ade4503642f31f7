"""Operands of convolutions that are computed while they are packed: casts, scales, normalisation, views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from backends.codegen.cpu_conv.code import Load
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.nest.family import Nest
from backends.codegen.template import NAME, signature, sizes_of
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Dim, product
from graphcore.kernel.expr import cast, load
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import PARALLEL, Axis, Index, as_index, flatten
from graphcore.kernel.ir import Kernel, Param, Store, symbolic_sizes
from graphcore.plan.backend import Piece

__all__ = ["Operand", "Prologues", "loads_of", "moved", "operand_of", "packed_weights", "sizes_with"]

Operand = int | Computed
"""The parameter that holds an operand as it is, or what an element of it is."""


def operand_of(kernel: Kernel, found: Computed, dtype: DType) -> Operand:
    """An operand in the type that the convolution adds up in: a parameter of another type is cast."""
    param = found.param
    if param is None:
        return replace(found, value=cast(found.value, dtype))
    if kernel.params[param].dtype == dtype:
        return param
    axis = Axis("e", product(found.shape), PARALLEL)
    return Computed(cast(load(param, as_index(axis), kernel.params[param].dtype), dtype), (axis,), found.shape)


def loads_of(*operands: Operand) -> set[int]:
    """The parameters that operands are read from."""
    return {p for o in operands for p in (o.loaded() if isinstance(o, Computed) else (o,))}


def moved(operand: Operand, position: Mapping[int, int]) -> Operand:
    """An operand over parameters that are at other positions."""
    return position[operand] if isinstance(operand, int) else operand.renumbered(position)


def sizes_with(kernel: Kernel, operands: Sequence[Operand]) -> dict[Dim, str]:
    """C names of the symbolic extents of a kernel, then of those that only its operands name."""
    names = sizes_of(kernel)
    for operand in operands:
        if isinstance(operand, Computed):
            for size in symbolic_sizes(replace(kernel, axes=(), stores=(Store(0, Index(0), operand.value),))):
                names.setdefault(size, f"n{len(names)}")
    return names


class _Elements(Emitter):
    """Writes values of an operand's element ``e``; where an address is the element's own number nothing has to wait for
    divisions."""

    def __init__(self, kernel: Kernel, model: DeviceModel, sizes: Mapping[Dim, str], operand: Computed) -> None:
        codes = {axis: f"a{i}" for i, axis in enumerate(operand.axes)}
        super().__init__(kernel, model, sizes=sizes, within=operand.axes, axes=codes, aligned=False)
        self.own = _place(operand)

    def index(self, index: Index, width: int = 1) -> str:
        if width > 1 or index + -index.constant != self.own:
            return super().index(index, width)
        return f"(e + {index.constant})" if index.constant else "e"


@dataclass
class Prologues:
    """The C functions of a kernel's computed operands, by the number of an element: one a width that was asked for.

    The generators never ask for a vector that crosses a channel of an image, so its lanes are neighbours on an
    operand's last axis.
    """

    kernel: Kernel
    model: DeviceModel
    sizes: dict[Dim, str]
    wanted: dict[tuple[Computed, int], str] = field(default_factory=dict)

    def load(self, operand: Operand) -> Load | None:
        """The generator's hook for an operand; None for one that is read as it is."""
        if isinstance(operand, int):
            return None
        names = ", ".join([*(f"p{i}" for i in range(len(self.kernel.params))), *self.sizes.values()])

        def call(index: str, width: int) -> str:
            name = self.wanted.setdefault((operand, width), f"{NAME}_load{len(self.wanted)}")
            return f"{name}({names}, {index})"

        return call

    def functions(self) -> str:
        """The functions that were called."""
        return "".join(self._function(operand, width, name) for (operand, width), name in self.wanted.items())

    def _function(self, operand: Computed, width: int, name: str) -> str:
        emitter = _Elements(self.kernel, self.model, self.sizes, operand)
        lines, rest = [], "e"
        for i, axis in reversed(list(enumerate(operand.axes))):
            lines.append(f"const int a{i} = {rest if i == 0 else f'{rest} % {axis.extent}'};")
            rest = f"({rest} / {axis.extent})"
        lane = operand.axes[-1]
        with emitter.lanes(lane, emitter.axis_code[lane], width):
            result = emitter.vector(operand.value, width)
        body = "".join(f"  {line}\n" for line in [*lines, *emitter.lines, f"return {result};"])
        extra = [f"const int {n}" for d, n in self.sizes.items() if d not in sizes_of(self.kernel)]
        language = self.model.language
        parameters = signature(language, self.kernel, [*extra, "const int e"])
        return (
            f"static inline {language.always_inline} {language.vector_type(operand.value.dtype, width)} "
            f"{name}({parameters}) {{\n{body}}}\n"
        )


def _place(operand: Computed) -> Index:
    """The number of an element."""
    return flatten(tuple(as_index(a) for a in operand.axes), tuple(a.extent for a in operand.axes))


def packed_weights(
    kernel: Kernel, operand: Computed, number: int, model: DeviceModel, hints: Mapping[str, int]
) -> list[Piece]:
    """A helper that computes the weights once, into the workspace ``number``: tiles read every one of them many
    times."""
    dtype = operand.value.dtype
    if len(operand.axes) == 3:  # a filter's elements as one axis: long vectors, and most addresses are linear in it
        lead, channel, tap = operand.axes
        flat = Axis("i1", channel.extent * tap.extent, PARALLEL)
        across = {channel: as_index(flat) // int(tap.extent), tap: as_index(flat) % int(tap.extent)}
        operand = Computed(operand.value.substitute(across), (lead, flat), operand.shape)
    size = product(operand.shape)
    at = _place(operand)
    used = sorted(loads_of(operand))
    inner = operand.renumbered({old: new for new, old in enumerate(used)})
    params = (
        *(replace(kernel.params[old], name=f"p{new}") for new, old in enumerate(used)),
        Param(f"p{len(used)}", dtype, (size,)),
    )
    axes = tuple(a for a in operand.axes if a.extent != 1)
    made = Kernel(f"{kernel.name}_weights", params, axes, (Store(len(used), at, inner.value),), origins=kernel.origins)
    answer = Nest().schedule(made, model, hints)
    behind = (*used, len(kernel.params) + number)
    return [
        replace(p, params=tuple(behind[i] for i in p.params), workspace=((number, (size,), dtype),), helper=True)
        for p in answer
    ]
