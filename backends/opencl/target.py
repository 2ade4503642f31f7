"""The OpenCL target: which family runs a kernel, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from backends.codegen.device_model import DeviceModel
from backends.codegen.loads import loads_on
from backends.codegen.registry import BY_NAME, identity, schedulers
from backends.opencl.device.device import DeviceInfo
from backends.opencl.language import language_of
from backends.opencl.memory import section_bytes
from graphcore.base.shapes import Extent, dim_min, product
from graphcore.kernel.estimate import estimate
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.kernel.whole_forms import WholeForm
from graphcore.kernel.widths import is_narrow, within
from graphcore.plan.backend import Piece
from graphcore.plan.plan import Launch
from graphcore.plan.target import Reject, Sharing, Target

__all__ = ["counts_fit", "device_model", "make_target"]

_GROUP = 256  # work items of every work-group on GPUs, where the device allows as many
# GPUs where a work item should load vectors. Elsewhere four scalar loads of neighbouring work items coalesce at least
# as well as vectors whose alignment the compiler does not know.
_VECTOR_GPUS = ("intel", "arm", "qualcomm")


def device_model(info: DeviceInfo) -> DeviceModel:
    """Code generation's view of a device."""
    language = language_of(info.vendor)
    if info.is_gpu:
        width = info.vector_width if info.vendor in _VECTOR_GPUS else 1
        group = 1 << (min(info.max_work_group, _GROUP).bit_length() - 1)
        return DeviceModel(
            language,
            info.vendor,
            width,
            "cl_khr_fp16" in info.extensions,
            info.compute_units,
            info.name,
            info.kind,
            group,
            info.local_mem,
        )
    return DeviceModel(
        language,
        info.vendor,
        info.vector_width,
        "cl_khr_fp16" in info.extensions,
        info.compute_units,
        info.name,
        info.kind,
    )


def make_target(info: DeviceInfo) -> Target:
    """The passes' view of a device, with the families of schedules that are registered now."""
    model = device_model(info)
    families = schedulers(model)
    others = identity()

    def scheduled(kernel: Kernel, hints: Mapping[str, int]) -> list[Piece] | Reject:
        """The pieces of the first family that takes a kernel."""
        whole = kernel.form if isinstance(kernel.form, WholeForm) else None
        reasons, seen = [], {}
        for family in families:
            if whole is not None and not isinstance(whole, family.takes):
                continue
            flat = family.flattens
            if flat not in seen:
                seen[flat] = kernel if is_narrow(kernel, hints, flat) else replace(kernel, wide=True)
            if seen[flat].wide and not family.wide:
                continue
            answer = family.schedule(seen[flat], model, hints)
            if isinstance(answer, Reject):
                reasons.append(f"{family.name}: {answer.reason}")
                continue
            outgrown = next((p for p in answer if _outgrown(p, hints)), None)
            if outgrown is None:
                return list(answer)
            reasons.append(f"{family.name}: {outgrown.kernel.name} would count further than 32 bits")
        return Reject("; ".join(reasons) or f"no family takes a {type(whole).__name__} kernel")

    def schedule(kernel: Kernel, target: Target, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        pieces = scheduled(kernel, hints)
        return pieces if isinstance(pieces, Reject) else [_counted(p, kernel, model, hints) for p in pieces]

    def blocks(kernel: Kernel, hints: Mapping[str, int]) -> Mapping[Axis, int | None] | None:
        pieces = scheduled(kernel, hints)
        if isinstance(pieces, Reject):
            return None
        return BY_NAME[pieces[-1].family].blocks(pieces[-1].kernel, pieces[-1].choices)

    def shares(kernel: Kernel, hints: Mapping[str, int]) -> Sharing | None:
        pieces = scheduled(kernel, hints)
        if isinstance(pieces, Reject):
            return None
        return BY_NAME[pieces[-1].family].sharing(pieces[-1].kernel, pieces[-1].choices, model, hints)

    def orders(kernel: Kernel, results: int, hints: Mapping[str, int]) -> bool:
        pieces = scheduled(kernel, hints)
        if isinstance(pieces, Reject):
            return False
        return BY_NAME[pieces[-1].family].orders(pieces[-1].kernel, pieces[-1].choices, model, results, hints)

    gpu = info.is_gpu
    marks = f"{':gpu' if gpu else ''}{f' with {others}' if others else ''}"
    return Target(
        name=f"opencl:{info.vendor}:{info.name}:{info.driver}:{info.vector_width}{marks}",
        costs=model.costs,
        kind="gpu" if gpu else "cpu",
        cores=info.compute_units,
        vector_width=info.vector_width,
        local_memory=info.local_mem,
        max_alloc=section_bytes(info),
        memory=info.global_mem,
        fp64=info.fp64,
        schedule=schedule,
        loads=loads_on(info.compute_units),
        blocks=blocks,
        orders=orders,
        shares=shares,
    )


def counts_fit(step: Launch, sizes: Mapping[str, int]) -> bool:
    """Whether the integers of a step's function hold everything that it counts, for these sizes."""
    return step.kernel.wide or (within(step.arguments, sizes) and is_narrow(step.kernel, sizes, step.flattens))


def _outgrown(piece: Piece, sizes: Mapping[str, int]) -> bool:
    """Whether a piece that is not counted yet would count further than its function's integers hold."""
    family = BY_NAME[piece.family]
    arguments = family.arguments(piece.kernel, piece.choices)
    return not (piece.kernel.wide or (within(arguments, sizes) and is_narrow(piece.kernel, sizes, family.flattens)))


def _counted(piece: Piece, whole: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Piece:
    """The piece with what is counted of it for any sizes; what reports count is that of the kernel that all pieces
    make."""
    family, kernel, choices = BY_NAME[piece.family], piece.kernel, piece.choices
    flops, nbytes = (0.0, 0.0) if piece.helper else estimate(whole, hints)
    return replace(
        piece,
        tasks=_unless_empty(kernel, family.tasks(kernel, choices, model)),
        arguments=tuple(family.arguments(kernel, choices)),
        work=family.work(kernel, choices),
        flattens=family.flattens,
        flops=piece.flops or flops,
        nbytes=piece.nbytes or nbytes,
    )


def _unless_empty(kernel: Kernel, tasks: Extent) -> Extent:
    """As many tasks, but none where all that is stored has no elements."""
    stored = {product(a.extent for a in store.index.axes()) for store in kernel.stores}
    if not stored or any(isinstance(elements, int) and elements for elements in stored):
        return tasks
    total: Extent = 0
    for elements in stored:
        total = total + elements
    return dim_min(total, 1) * tasks
