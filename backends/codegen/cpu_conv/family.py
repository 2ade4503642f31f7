"""The convolution template: forward, input gradient and weight gradient on CPUs, each with an elementwise epilogue.

Stores of mode "add" come last, not for weight gradients: every unit of work adds up its own channels.
An operand that is more than a parameter as it is (a cast, a scale, a normalisation, a view) is a prologue: images are
computed while they are packed, weights once, by a helper before.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from backends.codegen.cnames import register_type
from backends.codegen.cpu_conv.code import (
    ConvProblem,
    ConvShape,
    Names,
    accessed,
    forward_problem,
    input_gradient_problem,
)
from backends.codegen.cpu_conv.forward_code import conv_code
from backends.codegen.cpu_conv.prologue import (
    Operand,
    Prologues,
    loads_of,
    moved,
    operand_of,
    packed_weights,
    sizes_with,
)
from backends.codegen.cpu_conv.schedule import (
    ConvConfig,
    menu,
    part_channels,
    task_count,
    text_length,
    workspace_elements,
)
from backends.codegen.cpu_conv.weight_code import (
    REDUCE_ARGUMENTS,
    WeightConfig,
    choose_weight,
    reduce_arguments,
    reduce_code,
    reduce_task_count,
    weight_code,
    weight_task_count,
    weight_workspace_elements,
)
from backends.codegen.cpu_conv.work import image_work, weight_result_work, weight_sums_work
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.language import Language
from backends.codegen.recognition import recognised
from backends.codegen.template import NAME, signature, sizes_of
from graphcore.base.dtypes import DType, float32, float64
from graphcore.base.shapes import Dim, Extent, bind
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import INDEXED, Expr
from graphcore.kernel.forms import Computed, Contraction
from graphcore.kernel.index import Axis, Index
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["Convolution", "ConvolutionWeightSums"]

_MOST_PRIVATE = 16 * 1024  # elements of the sums that a task may hold in its private memory
_OWN = ("nb",)  # argument: the batch
_FIRST = "(group * {channels} + first_o)"  # the first channel that a unit makes


@dataclass(frozen=True)
class _Config:
    """The geometry, the generator's schedule, the operands (the images that are packed and their partner), and what the
    result holds."""

    shape: ConvShape
    schedule: ConvConfig | WeightConfig
    operands: tuple[Operand, Operand]
    batch: Extent
    result: WindowResult

    @property
    def gathers(self) -> bool:
        """Whether it makes weights, whose sums tasks make apart and a second step adds up."""
        return self.result is WindowResult.TAP

    def describe(self) -> str:
        s = self.schedule
        computed = sum(not isinstance(o, int) for o in self.operands)
        tiles = "" if isinstance(s, WeightConfig) else f"tiles {_sum(s.channel_tiles)}x{_sum(s.vector_tiles)}, "
        return f"{self.result}, {s.width} lanes, {tiles}{s.parts}x{s.chunks} tasks" + (
            f", computes {computed} operands" if computed else ""
        )


def _sum(tiles: Sequence[int]) -> str:
    return "+".join(map(str, tiles))


def _shape_of(form: Contraction, window: Window) -> ConvShape:
    """The convolution behind the kernel's contraction, always as the forward one."""
    images, weights, _ = form.parts()
    channels, height, width = (int(extent) for extent in images[1:])
    outputs = int(weights[0])
    (kh, kw), (sy, sx), (dy, dx), (top, bottom, left, right) = (
        window.taps,
        window.stride,
        window.dilation,
        window.padding,
    )
    return ConvShape(
        channels, height, width, outputs, (kh, kw), (sy, sx), (top, left), (dy, dx), window.groups, (bottom, right)
    )


def _private_sums(config: _Config) -> int:
    """Elements of one sum's private array: a vector for every channel of a unit."""
    return part_channels(_problem(config), config.schedule) * config.schedule.width  # type: ignore[arg-type]


def _problem(config: _Config) -> ConvProblem:
    forward = config.result is WindowResult.POSITION
    return forward_problem(config.shape) if forward else input_gradient_problem(config.shape)


@recognised
def _reason(kernel: Kernel) -> str | None:
    """Why this family does not take the kernel."""
    form = kernel.form
    if not isinstance(form, Contraction) or form.window is None:
        return "it is no convolution all of whose elements can be told from what it loads"
    if len(form.window.taps) != 2:
        return "its window walks another number of axes than two"
    sums = kernel.reductions()
    if len(sums) != 1 or sums[0].dtype not in (float32, float64):
        return "it is not one sum of float32 or float64 products"
    if any(s.mode == "set" and s.index.axes() != frozenset(kernel.axes) for s in kernel.stores):
        return "it stores values smaller than the result"
    return None


@recognised
def _positions(kernel: Kernel) -> Mapping[Axis, int]:
    """Which axis of the contraction's result every axis of the kernel is."""
    assert isinstance(kernel.form, Contraction)
    return {a: place for place, a in enumerate(kernel.form.result_axes)}


@recognised
def _flat_axes(kernel: Kernel, positions: tuple[int, ...]) -> tuple[tuple[Axis, ...], str | None]:
    """The kernel's axes at result positions that the generator walks as one flat axis, and whether all accesses do
    too."""
    places = _positions(kernel)
    axes = tuple(sorted((a for a in kernel.axes if places[a] in positions), key=places.__getitem__))
    inside = _epilogue_indices(kernel)
    for index in inside:
        steps = [index.stride(a) for a in axes]
        if any(s is None for s in steps):
            return axes, "its epilogue's addresses are not linear in the pixel"
        for inner, step, finer in zip(axes[1:], steps, steps[1:], strict=False):
            if step != finer * inner.extent:
                return axes, "its epilogue does not walk the pixels in order"
    return axes, None


def _flattened(kernel: Kernel, axes: Sequence[Axis]) -> Kernel:
    """The kernel with the last of the axes that it walks in order for the position on all of them."""
    others = {a: Index(0) for a in axes[:-1]}
    stores = (replace(s, index=s.index.substitute(others), value=s.value.substitute(others)) for s in kernel.stores)
    return replace(kernel, stores=tuple(stores))


def _epilogue_indices(kernel: Kernel) -> list[Any]:
    """Indices of everything outside the contraction itself."""
    found = [s.index for s in kernel.stores if s.mode == "set"]
    seen: set[Expr] = set()
    stack = [s.value for s in kernel.stores]
    while stack:
        value = stack.pop()
        if value in seen or value.fn == "reduce":
            continue
        seen.add(value)
        if value.fn in INDEXED:
            found.append(value.index)
        stack.extend(value.args)
    return found


class Convolution(Family):
    """Forward and input gradient in one step; the weight gradient's last step, after ``ConvolutionWeightSums``."""

    name = "conv"
    choices = _Config

    def serves(self, model: DeviceModel) -> bool:
        return model.is_cpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[_Config] | Reject:
        reason = _reason(kernel)
        if reason is not None:
            return Reject(reason)
        form = kernel.form
        assert isinstance(form, Contraction) and form.window is not None
        shape, result = _shape_of(form, form.window), form.window.result
        dtype = kernel.reductions()[0].dtype
        width = model.width * 4 // dtype.itemsize
        if width not in (4, 8, 16):
            return Reject(f"vectors of {width} elements are not supported")
        batch = form.left.shape[0]
        count = max(int(bind(batch, hints)), 1)
        gathers = result is WindowResult.TAP
        _, problem = _flat_axes(kernel, (1, 2, 3) if gathers else (2, 3))
        if problem is not None:
            return Reject(problem)
        operands = [operand_of(kernel, o, dtype) for o in form.operands]
        fused = isinstance(operands[0], Computed)
        if gathers:
            schedule = choose_weight(
                shape, width=width, batch=count, cores=model.cores, fused_load=fused, itemsize=dtype.itemsize
            )
            return [_Config(shape, schedule, (operands[1], operands[0]), batch, result)]
        config = _Config(shape, None, (operands[0], operands[1]), batch, result)  # type: ignore[arg-type]
        found = menu(
            _problem(config), width=width, batch=count, cores=model.cores, fused_load=fused, itemsize=dtype.itemsize
        )
        return [replace(config, schedule=chosen) for chosen in found]

    def order_of_sums(self, kernel: Kernel, config: _Config) -> Hashable:
        """Tiles add up channels and taps in their order; what the epilogue gathers goes by units of work."""
        s = config.schedule
        if config.gathers:
            return s
        return (s.rows, s.images) if any(store.mode == "add" for store in kernel.stores) else "terms in order"

    def bodies(self, kernel: Kernel, config: _Config) -> float:
        """The vectors that its register tiles write out."""
        return 1.0 if config.gathers else text_length(_problem(config), config.schedule)  # type: ignore[arg-type]

    def pieces(self, kernel: Kernel, config: _Config, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece]:
        dtype = kernel.reductions()[0].dtype
        if config.gathers:
            return self._weight_pieces(kernel, config, dtype)
        size = max(workspace_elements(_problem(config), config.schedule), 1)  # type: ignore[arg-type]
        return self._image_pieces(kernel, config, (0, (size,), dtype), model, hints)

    def blocks(self, kernel: Kernel, config: _Config) -> Mapping[Axis, int | None] | None:
        """The images and rows of a unit, as they are cut for every pixel of a channel."""
        if config.gathers or _private_sums(config) > _MOST_PRIVATE:
            return None
        rows = config.schedule.rows * _problem(config).phase_step[0]
        extents, places = {0: config.schedule.images, 2: rows, 3: None}, _positions(kernel)
        return {a: extents[places[a]] for a in kernel.axes if places[a] in extents}

    def _image_pieces(
        self, kernel: Kernel, config: _Config, work: tuple[Any, ...], model: DeviceModel, hints: Mapping[str, int]
    ) -> list[Piece]:
        """The convolution, after a helper where its weights have to be computed."""
        everything, weights = tuple(range(len(kernel.params) + 1)), config.operands[1]
        made = _with_workspace(kernel, work[1][0], work[2], "w")
        if isinstance(weights, int):
            return [Piece(made, self.name, config, everything, (work,))]
        helpers = packed_weights(kernel, weights, 1, model, hints)
        packed = len(everything)
        made = replace(
            made,
            params=(*made.params, Param(f"p{packed}", work[2], helpers[0].workspace[0][1])),
            scratch=(*made.scratch, (packed, "r")),
        )
        config = replace(config, operands=(config.operands[0], packed))
        return [*helpers, Piece(made, self.name, config, (*everything, packed), (work, helpers[0].workspace[0]))]

    def _weight_pieces(self, kernel: Kernel, config: _Config, dtype: DType) -> list[Piece]:
        size = max(weight_workspace_elements(config.shape, config.schedule), 1)  # type: ignore[arg-type]
        work = (0, (size,), dtype)
        dy, x = config.operands
        used = list(dict.fromkeys([*sorted(loads_of(dy)), *sorted(loads_of(x))]))
        position, end = {old: new for new, old in enumerate(used)}, len(used)
        params = (
            *(replace(kernel.params[old], name=f"p{new}") for new, old in enumerate(used)),
            Param(f"p{end}", dtype, (size,)),
        )
        scratch = (*((i, "r") for i in range(end)), (end, "w"))
        sums = Kernel(f"{kernel.name}_sums", params, (), (), KernelKind.CONTRACT, kernel.origins, None, scratch)
        inner = replace(config, operands=(moved(dy, position), moved(x, position)))
        first = Piece(sums, ConvolutionWeightSums.name, inner, (*used, len(kernel.params)), (work,), True)
        last = Piece(
            _with_workspace(kernel, size, dtype, "rw"), self.name, config, tuple(range(len(kernel.params) + 1)), (work,)
        )
        return [first, last]

    def arguments(self, kernel: Kernel, config: _Config) -> list[Extent]:
        own = [config.batch]
        if config.gathers:
            own = reduce_arguments(config.shape, config.schedule, config.batch)  # type: ignore[arg-type]
        return [*_sizes(kernel, config), *own]

    def emit(self, kernel: Kernel, config: _Config, model: DeviceModel) -> str:
        weights, language = config.gathers, model.language
        names, prologues = _names(kernel, config), Prologues(kernel, model, _sizes(kernel, config))
        own = REDUCE_ARGUMENTS if weights else _OWN
        inner, params = f"{NAME}_block", _parameters(model.language, kernel, config, own)
        axes, _ = _flat_axes(kernel, (1, 2, 3) if weights else (2, 3))
        everything, problem = _flat_axes(kernel, (0, 1, 2, 3)) if weights else ((), None)
        whole = bool(everything) and problem is None
        if whole:  # of the result's sizes, nothing is left in the text
            kernel, axes = _flattened(kernel, everything), everything
        total = kernel.reductions()[0]
        dtype = register_type(total.dtype)
        elements, sums = ([s for s in kernel.stores if s.mode == mode] for mode in ("set", "add"))

        places = _positions(kernel)

        def finish(fixed: Sequence[str], flat: str, acc: str, width: int) -> list[str]:
            lanes = width if axes else 1
            emitter = Emitter(
                kernel,
                model,
                within=(*kernel.axes, *total.reduce_axes),
                axes={a: fixed[places[a]] if places[a] < len(fixed) else "0" for a in kernel.axes},
                # With no axes the result is one element: lane 0.
                values={total: acc if lanes == width else language.lane(acc, 0)},
            )
            with emitter.lanes(axes[-1], f"({flat})", width) if axes else nullcontext():
                emitter.store_all(elements)
                for i, store in enumerate(sums):
                    place = (
                        f"gs{i} + ({fixed[1]} - {_FIRST.format(channels=_problem(config).out_channels)}) * "
                        f"{config.schedule.width}"
                    )
                    emitter.line(f"{accessed(language, place, lanes, dtype)} += {emitter.vector(store.value, lanes)};")
            return emitter.lines

        if weights:
            text = reduce_code(
                language,
                inner,
                params,
                config.schedule,  # type: ignore[arg-type]
                lambda o, k, acc, width: (
                    finish([], f"{o} * depth + {k}", acc, width) if whole else finish([f"({o})"], k, acc, width)
                ),
                dtype=dtype,
                workspace=names.workspace,
            )
        else:
            before, after = self._sums(kernel, config, sums, model, dtype)
            text = conv_code(
                language,
                inner,
                params,
                _problem(config),
                config.schedule,  # type: ignore[arg-type]
                lambda n, o, pixel, acc, width: finish([f"({n})", f"({o})"], pixel, acc, width),
                dtype=dtype,
                names=names,
                load_x=prologues.load(config.operands[0]),
                before=before,
                after=after,
                private=[f"gs{i}" for i in range(len(sums))],
            )
        return prologues.functions() + text + _wrapper(model.language, inner, kernel, config, own)

    def _sums(
        self, kernel: Kernel, config: _Config, sums: Sequence[Store], model: DeviceModel, dtype: str
    ) -> tuple[list[str], list[str]]:
        """A unit's own sums of its channels, a vector each: cleared before it, folded and stored after it."""
        before: list[str] = []
        after: list[str] = []
        language = model.language
        width, problem, size = config.schedule.width, _problem(config), _private_sums(config)
        first = _FIRST.format(channels=problem.out_channels)
        codes, places = ("image0", f"({first} + gm)", f"(row0 * {problem.phase_step[0]})", "0"), _positions(kernel)
        for i, store in enumerate(sums):
            emitter = Emitter(kernel, model, axes={a: codes[places[a]] for a in kernel.axes})
            before.append(language.private(f"{dtype} gs{i}[{size}];"))
            before.append(f"for (int gm = 0; gm < {size}; ++gm) gs{i}[gm] = 0;")
            place = accessed(language, f"gs{i} + gm * {width}", width, dtype)
            folded, lines = "lanes", [f"const {language.vector(dtype, width)} lanes = {place};"]
            for half in (
                w for w in (8, 4, 2) if w < width
            ):  # by vectors: Intel's compiler gets a loop over one array's lanes wrong
                total = " + ".join(language.halves(folded, dtype, 2 * half))
                lines.append(f"const {language.vector(dtype, half)} lanes{half} = {total};")
                folded = f"lanes{half}"
            total = " + ".join(language.halves(folded, dtype, 2))
            lines.append(f"p{store.param}[{emitter.index(store.index)}] = {total};")
            after += ["for (int gm = 0; gm < last_o - first_o; ++gm) {", *(f"  {line}" for line in lines), "}"]
        return before, after

    def tasks(self, kernel: Kernel, config: _Config, model: DeviceModel) -> Extent:
        if config.gathers:
            return reduce_task_count(config.shape, config.schedule)  # type: ignore[arg-type]
        return task_count(_problem(config), config.schedule, config.batch)  # type: ignore[arg-type]

    def work(self, kernel: Kernel, config: _Config) -> Work:
        axes, _ = _flat_axes(kernel, (1, 2, 3) if config.gathers else (2, 3))
        lane = axes[-1] if axes else None
        if config.gathers:
            return weight_result_work(kernel, config.shape, config.schedule, config.batch, lane)  # type: ignore[arg-type]
        return image_work(kernel, _problem(config), config.schedule, config.operands[0], config.batch, lane)  # type: ignore[arg-type]


class ConvolutionWeightSums(Family):
    """The weight gradient's first step: every task's own sums, into the workspace."""

    name = "conv-sums"
    choices = _Config
    build_weight = 2.0

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[_Config] | Reject:
        return Reject("it is a part of the family conv")

    def arguments(self, kernel: Kernel, config: _Config) -> list[Extent]:
        return [*_sizes(kernel, config), config.batch]

    def emit(self, kernel: Kernel, config: _Config, model: DeviceModel) -> str:
        dtype = register_type(kernel.params[-1].dtype)
        inner, prologues = f"{NAME}_block", Prologues(kernel, model, _sizes(kernel, config))
        load_dy, load_x = map(prologues.load, config.operands)
        text = weight_code(
            model.language,
            inner,
            _parameters(model.language, kernel, config),
            config.shape,
            config.schedule,  # type: ignore[arg-type]
            dtype=dtype,
            names=_names(kernel, config),
            load_dy=load_dy,
            load_x=load_x,
        )
        return prologues.functions() + text + _wrapper(model.language, inner, kernel, config)

    def tasks(self, kernel: Kernel, config: _Config, model: DeviceModel) -> Extent:
        return weight_task_count(config.shape, config.schedule, config.batch)  # type: ignore[arg-type]

    def work(self, kernel: Kernel, config: _Config) -> Work:
        return weight_sums_work(kernel, config.shape, config.schedule, config.operands, config.batch)  # type: ignore[arg-type]


def _with_workspace(kernel: Kernel, size: int, dtype: DType, use: str) -> Kernel:
    """The kernel with one more parameter, its workspace."""
    param = Param(f"p{len(kernel.params)}", dtype, (size,))
    return replace(kernel, params=(*kernel.params, param), scratch=((len(kernel.params), use),))


def _names(kernel: Kernel, config: _Config) -> Names:
    """What the generators call their parameters; a computed operand has no name."""
    source, partner = (f"p{o}" if isinstance(o, int) else "" for o in config.operands)
    work = next(p for p, use in kernel.scratch if "w" in use)
    return Names(source, partner, "nb", f"p{work}")


def _sizes(kernel: Kernel, config: _Config) -> dict[Dim, str]:
    return sizes_with(kernel, config.operands)


def _parameters(language: Language, kernel: Kernel, config: _Config, arguments: Sequence[str] = _OWN) -> str:
    """The parameter list: pointers, symbolic extents, a family's own arguments."""
    own = sizes_of(kernel)
    extra = (f"const int {name}" for d, name in _sizes(kernel, config).items() if d not in own)
    return signature(language, kernel, [*extra, *(f"const int {name}" for name in arguments)])


def _wrapper(language: Language, inner: str, kernel: Kernel, config: _Config, arguments: Sequence[str] = _OWN) -> str:
    """The function with the signature that all templates share."""
    names = [*(f"p{i}" for i in range(len(kernel.params))), *_sizes(kernel, config).values(), *arguments]
    parameters = _parameters(language, kernel, config, arguments)
    return (
        f"GC_NOINLINE static void {NAME}({parameters}, const int task, const int tasks) {{"
        f"\n  {inner}({', '.join(names)}, task);\n}}\n"
    )
