"""The oracles as backends: ``"numpy"`` interprets the graph, ``"numpy:kernels"`` the plan's kernels.

What they share with any backend whose memory is the host's is ``ArrayBackend``, for other packages to extend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.codegen.device_costs import costs_of
from backends.codegen.loads import loads_on
from backends.numpy.steps import run_step
from graphcore.base.errors import DeviceError, FeedError
from graphcore.base.shapes import bind
from graphcore.ir.graph import Graph, slots_of
from graphcore.ir.interpret import interpret
from graphcore.ir.leaves import StateRead
from graphcore.ir.state import StateSlot
from graphcore.kernel.ir import Kernel
from graphcore.plan.backend import MemoryInfo, Piece
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Buffer, Placed, Plan, Unchosen
from graphcore.plan.target import Target

__all__ = ["ArrayBackend", "NumpyBackend", "open_numpy"]

_SLACK = 256  # bytes after every value: explicit vectors may be loaded from an aligned start near the end


def _schedule(kernel: Kernel, target: Target, hints: Mapping[str, int]) -> Sequence[Piece]:
    return [Piece(kernel, "nest", Unchosen(), tuple(range(len(kernel.params))), elementwise_order=True)]


def open_numpy(spec: str) -> NumpyBackend:
    """The backend of ``"numpy"`` or ``"numpy:kernels"``."""
    if spec not in ("numpy", "numpy:graph", "numpy:kernels"):
        raise DeviceError(f"no device {spec!r}; use 'numpy' (graph oracle) or 'numpy:kernels' (kernel oracle)")
    return NumpyBackend(spec)


class ArrayBackend:
    """A backend whose memory is the host's: variables are arrays, and a run has an arena of its own.

    A subclass says what a compiled program is, how one step of it runs, and what its source is.

    Args:
        name: of the device, for messages.
        target: what the passes know of it.
    """

    interprets = False

    def __init__(self, name: str, target: Target) -> None:
        self.name, self.target = name, target
        self.launch = "auto"  # nothing is launched
        self.values: dict[int, tuple[Any, Any]] = {}

    def reserve(self, variables: Sequence[Any]) -> None:
        pass  # every variable is an array of its own

    def memory(self) -> MemoryInfo:
        return MemoryInfo(sum(a.nbytes for _, a in self.values.values()), 0, 0)

    def close(self) -> None:
        self.values.clear()

    def nbytes(self, program: Any) -> int:
        return 0  # the plan is all there is

    def has(self, variable: Any) -> bool:
        return id(variable) in self.values

    def read(self, variable: Any) -> Any:
        return self.values[id(variable)][1].copy()

    def write(self, variable: Any, value: Any) -> None:
        self.values[id(variable)] = (variable, np.array(value, variable.dtype.storage).reshape(variable.shape))

    def serves(self, spec: str) -> bool:
        """Whether a device string names this backend's device."""
        return spec == self.name

    def compile(self, plan: Plan) -> Any:
        """A program for a plan, which it has as ``plan``."""
        raise NotImplementedError

    def run_step(self, program: Any, number: int, arrays: Sequence[Any], sizes: Mapping[str, int]) -> None:
        """Run one step of a program's plan.

        Args:
            program: what ``compile`` made.
            number: of the step.
            arrays: flat arrays of the storage types behind its kernel's parameters, in order.
            sizes: values of the symbolic extents.
        """
        raise NotImplementedError

    def source(self, program: Any) -> str:
        """The generated source."""
        raise NotImplementedError

    def holds(self, program: Any, sizes: Mapping[str, int]) -> bool:
        """Whether every step counts right for sizes beyond those that it was compiled for."""
        raise NotImplementedError

    def functions(self, program: Any) -> tuple[int, ...]:
        return tuple(range(len(program.plan.steps)))

    def texts(self, program: Any) -> tuple[tuple[str, int], ...]:
        return ()

    def bind(self, program: Any, placed: Placed, slots: Sequence[Any] = ()) -> Any:
        return _Steps(self, program, program.plan, placed, slots)


@dataclass(frozen=True)
class _Program:
    """The plan is all there is."""

    plan: Plan


class NumpyBackend(ArrayBackend):
    """The oracles: plans or graphs interpreted."""

    def __init__(self, spec: str) -> None:
        # Fused as for a device of one core, so that the kernels that devices run are the ones that are interpreted.
        target = Target(spec, costs_of("oracle", "oracle", 1, 16), "oracle", schedule=_schedule, loads=loads_on(1))
        super().__init__(spec, target)
        self.interprets = spec != "numpy:kernels"
        self.host: dict[str, Callable[..., Sequence[Any]]] = {}  # functions that plans call by name

    def compile(self, plan: Plan) -> _Program:
        return _Program(plan)

    def run_step(self, program: _Program, number: int, arrays: Sequence[Any], sizes: Mapping[str, int]) -> None:
        step = program.plan.steps[number]
        run_step(step, dict(zip(step.buffers, arrays, strict=True)), sizes, self.host)

    def holds(self, program: _Program, sizes: Mapping[str, int]) -> bool:
        return True  # NumPy and Python count as far as is needed

    def source(self, program: _Program) -> str:
        return "the NumPy oracle interprets; it generates no source\n"

    def serves(self, spec: str) -> bool:
        return spec.startswith("numpy") and open_numpy(spec).interprets == self.interprets

    def interpret(self, graph: Graph, slots: Sequence[StateSlot]) -> _Interpreted:
        return _Interpreted(self, graph, slots)


@dataclass
class _Interpreted:
    backend: NumpyBackend
    graph: Graph
    slots: Sequence[StateSlot]
    compiled: Any = None
    mode: str = "interpreted"
    launches: int = 0

    def __post_init__(self) -> None:
        self.meant = dict(zip(slots_of(self.graph), self.slots, strict=True))

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        known = {t: _fed(a, t.dtype.storage) for t, a in zip(self.graph.inputs, feeds, strict=True)}
        for node in self.graph.nodes():
            if isinstance(node.op, StateRead):
                known[node.output()] = self.backend.values[id(self.meant[node.op.slot])][1]
        results = interpret(self.graph, known)
        count = len(self.graph.outputs)
        outputs = [np.array(r) for r in results[:count]]
        updated = [self.meant[slot] for slot, _ in self.graph.updates]
        # One call into C: Ctrl-C comes before all updates or after.
        self.backend.values.update(
            {
                id(v): (v, np.array(value, v.dtype.storage).reshape(v.shape))
                for v, value in zip(updated, results[count:], strict=True)
            }
        )
        return outputs


@dataclass
class _Steps:
    backend: ArrayBackend
    program: Any
    plan: Plan
    placed: Placed
    slots: Sequence[StateSlot]
    compiled: Any = None
    mode: str = "interpreted"
    launches: int = 0

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Run the steps over a real arena, so that a wrong offset or lifetime shows in the results."""
        arena = np.full(self.placed.arena_bytes + _SLACK, 0xFF, np.uint8)  # NaN in every floating type
        buffers: list[Any] = [self._view(arena, b) for b in self.plan.buffers]
        for number, array in zip(self.plan.feeds, feeds, strict=True):
            np.copyto(buffers[number], _fed(array, buffers[number].dtype).reshape(-1))
        fresh = [(self.slots[self.plan.slot(number)], buffers[number]) for number in self.plan.variables]
        for number, step in enumerate(self.plan.steps):
            self.backend.run_step(self.program, number, [buffers[n] for n in step.buffers], self.placed.sizes)
        out = []
        for fetch in self.plan.fetches:
            shape = tuple(int(bind(e, self.placed.sizes)) for e in fetch.shape)
            out.append(np.array(self.plan.fetched(fetch, buffers)).reshape(shape))
        # All updates at once.
        self.backend.values.update({id(v): (v, a.reshape(tuple(v.shape))) for v, a in fresh})
        return out

    def _view(self, arena: Any, buffer: Buffer) -> Any:
        if buffer.space == VARIABLE:
            return _roomy(self.backend.values[id(self.slots[self.plan.slot(buffer.number)])][1])
        if buffer.space == CONSTANT:
            return _roomy(self.plan.constant(buffer))
        if buffer.number not in self.placed.offsets:
            return np.empty(0, buffer.dtype.storage)  # replaced by a variable's own memory
        start = self.placed.offsets[buffer.number]
        assert buffer.space == ARENA
        return arena[start : start + int(bind(buffer.nbytes, self.placed.sizes))].view(buffer.dtype.storage)


def _roomy(array: Any) -> Any:
    """A flat copy with slack behind it."""
    held = np.empty(array.nbytes + _SLACK, np.uint8)[: array.nbytes].view(array.dtype)
    held[...] = array.reshape(-1)
    return held


def _fed(array: Any, storage: Any) -> Any:
    try:
        return np.asarray(array).astype(storage, casting="same_kind")
    except TypeError as error:
        raise FeedError(str(error)) from None
