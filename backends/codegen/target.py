"""What the passes know of a device whose kernels the registered families schedule."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from backends.codegen.device_model import DeviceModel
from backends.codegen.loads import loads_on
from backends.codegen.registry import BY_NAME, identity, schedulers
from graphcore.base.shapes import Extent, dim_min, product
from graphcore.kernel.estimate import estimate
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.kernel.whole_forms import WholeForm
from graphcore.kernel.widths import is_narrow, within
from graphcore.plan.backend import Piece
from graphcore.plan.plan import Launch
from graphcore.plan.target import Reject, Sharing, Target

__all__ = ["counts_fit", "target_of"]


def target_of(model: DeviceModel, name: str) -> Target:
    """The passes' view of a device, with the families of schedules that are registered now.

    Args:
        model: the device.
        name: tells its programs from those of other devices; families of other packages are added.

    Returns:
        A target that knows no limits of memory: ``dataclasses.replace`` gives it those.
    """
    families, others = schedulers(model), identity()

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

    def alternatives(kernel: Kernel, hints: Mapping[str, int]) -> list[tuple[Sequence[Piece], float]]:
        first = scheduled(kernel, hints)
        if isinstance(first, Reject):
            return []
        found = _others(first[-1], kernel, model, hints)
        return [([_counted(p, kernel, model, hints) for p in pieces], part) for pieces, part in found]

    def function(piece: Piece) -> tuple[Hashable, float]:
        family = BY_NAME[piece.family]
        text = family.text(piece.kernel, piece.choices, model)
        seconds = model.costs.build_seconds(round(len(text) * family.build_weight)) - model.costs.build_seconds(0)
        return text, seconds

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

    return Target(
        name=f"{name} with {others}" if others else name,
        costs=model.costs,
        kind="gpu" if model.is_gpu else "cpu",
        cores=model.cores,
        vector_width=model.width,
        schedule=schedule,
        loads=loads_on(model.cores),
        blocks=blocks,
        orders=orders,
        shares=shares,
        alternatives=alternatives,
        function=function,
    )


def counts_fit(step: Launch, sizes: Mapping[str, int]) -> bool:
    """Whether the integers of a step's function hold everything that it counts, for these sizes."""
    return step.kernel.wide or (within(step.arguments, sizes) and is_narrow(step.kernel, sizes, step.flattens))


def _others(
    first: Piece, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]
) -> list[tuple[Sequence[Piece], float]]:
    """What else the family of a kernel's last piece offers for it, with the same bits and shorter bodies: pieces, and
    the bodies' length as a part of the first guess's."""
    family = BY_NAME[first.family]
    whole = replace(kernel, wide=True) if first.kernel.wide else kernel
    menu = family.candidates(whole, model, hints)
    if isinstance(menu, Reject):  # it is the helper of another family
        return []
    best, *others = menu
    order, bodies = family.order_of_sums(whole, best), family.bodies(whole, best)
    lengths = {c: family.bodies(whole, c) for c in others if family.order_of_sums(whole, c) == order}
    parts = {c: length / bodies for c, length in lengths.items() if length < bodies}
    found = [(family.pieces(whole, c, model, hints), part) for c, part in parts.items()]
    return [(pieces, part) for pieces, part in found if not any(_outgrown(p, hints) for p in pieces)]


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
