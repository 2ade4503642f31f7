"""The oracles as backends: ``"numpy"`` interprets the graph, ``"numpy:kernels"`` the plan's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.codegen.device_costs import costs_of
from backends.codegen.loads import loads_on
from graphcore.base.errors import DeviceError, FeedError
from graphcore.base.shapes import bind
from graphcore.ir.interpret import interpret
from graphcore.ir.leaves import VariableRead
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel
from graphcore.plan.backend import MemoryInfo, Piece
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Buffer, Placed, Plan
from graphcore.plan.target import Target

__all__ = ["NumpyBackend", "open_numpy"]


class _Interpretation:
    """Nothing is chosen."""

    def describe(self) -> str:
        return "oracle"


def _schedule(kernel: Kernel, target: Target, hints: Mapping[str, int]) -> Sequence[Piece]:
    return [Piece(kernel, "nest", _Interpretation(), tuple(range(len(kernel.params))), elementwise_order=True)]


def open_numpy(spec: str) -> NumpyBackend:
    """The backend of ``"numpy"`` or ``"numpy:kernels"``."""
    if spec not in ("numpy", "numpy:graph", "numpy:kernels"):
        raise DeviceError(f"no device {spec!r}; use 'numpy' (graph oracle) or 'numpy:kernels' (kernel oracle)")
    return NumpyBackend(spec)


class NumpyBackend:
    """Variables as arrays; plans or graphs interpreted."""

    def __init__(self, spec: str) -> None:
        self.name = spec
        self.interprets = spec != "numpy:kernels"
        # Fused as for a device of one core, so that the kernels that devices run are the ones that are interpreted.
        self.target = Target(spec, costs_of("oracle", "oracle", 1, 16), "oracle", schedule=_schedule, loads=loads_on(1))
        self.launch = "auto"  # nothing is launched
        self.values: dict[int, tuple[Any, Any]] = {}

    def reserve(self, variables: Sequence[Any]) -> None:
        pass  # every variable is an array of its own

    def memory(self) -> MemoryInfo:
        return MemoryInfo(sum(a.nbytes for _, a in self.values.values()), 0, 0)

    def close(self) -> None:
        self.values.clear()

    def nbytes(self, program: Plan) -> int:
        return 0  # the plan is all there is

    def has(self, variable: Any) -> bool:
        return id(variable) in self.values

    def read(self, variable: Any) -> Any:
        return self.values[id(variable)][1].copy()

    def write(self, variable: Any, value: Any) -> None:
        self.values[id(variable)] = (variable, np.array(value, variable.dtype.storage).reshape(variable.shape))

    def compile(self, plan: Plan) -> Plan:
        return plan

    def holds(self, program: Plan, sizes: Mapping[str, int]) -> bool:
        return True  # NumPy and Python count as far as is needed

    def functions(self, program: Plan) -> tuple[int, ...]:
        return tuple(range(len(program.steps)))

    def texts(self, program: Plan) -> tuple[tuple[str, int], ...]:
        return ()

    def source(self, program: Plan) -> str:
        return "the NumPy oracle interprets; it generates no source\n"

    def bind(self, program: Plan, placed: Placed, slots: Sequence[Any] = (), graph: Any = None) -> Any:
        return _Interpreted(self, program, placed, graph) if self.interprets else _Kernels(self, program, placed, slots)


@dataclass
class _Interpreted:
    backend: NumpyBackend
    plan: Plan
    placed: Placed
    graph: Any
    compiled: Any = None
    mode: str = "interpreted"
    launches: int = 0

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        known = {t.key: _fed(a, t.dtype.storage) for t, a in zip(self.graph.inputs, feeds, strict=True)}
        for node in self.graph.nodes():
            if isinstance(node.op, VariableRead):
                known[node.serial, 0] = self.backend.values[id(node.op.variable)][1]
        results = interpret(self.graph, known)
        count = len(self.graph.outputs)
        outputs = [np.array(r) for r in results[:count]]
        # One call into C: Ctrl-C comes before all updates or after.
        self.backend.values.update(
            {
                id(v): (v, np.array(value, v.dtype.storage).reshape(v.shape))
                for (v, _), value in zip(self.graph.updates, results[count:], strict=True)
            }
        )
        return outputs


@dataclass
class _Kernels:
    backend: NumpyBackend
    plan: Plan
    placed: Placed
    slots: Sequence[Any]
    compiled: Any = None
    mode: str = "interpreted"
    launches: int = 0

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Run the kernels over a real arena, so that a wrong offset or lifetime shows in the results."""
        arena = np.full(self.placed.arena_bytes + 64, 0xFF, np.uint8)  # NaN in every floating type
        buffers: list[Any] = [self._view(arena, b) for b in self.plan.buffers]
        for number, array in zip(self.plan.feeds, feeds, strict=True):
            np.copyto(buffers[number], _fed(array, buffers[number].dtype).reshape(-1))
        fresh = [(self.slots[self.plan.slot(number)], buffers[number]) for number in self.plan.variables]
        for step in self.plan.steps:
            run_kernel(step.kernel, [buffers[n] for n in step.buffers], self.placed.sizes)
        out = []
        for fetch in self.plan.fetches:
            shape = tuple(int(bind(e, self.placed.sizes)) for e in fetch.shape)
            out.append(np.array(self.plan.fetched(fetch, buffers)).reshape(shape))
        # All updates at once.
        self.backend.values.update({id(v): (v, a.reshape(tuple(v.shape))) for v, a in fresh})
        return out

    def _view(self, arena: Any, buffer: Buffer) -> Any:
        if buffer.space == VARIABLE:
            return self.backend.values[id(self.slots[self.plan.slot(buffer.number)])][1].reshape(-1).copy()
        if buffer.space == CONSTANT:
            return np.ascontiguousarray(self.plan.constant(buffer)).reshape(-1)
        if buffer.number not in self.placed.offsets:
            return np.empty(0, buffer.dtype.storage)  # replaced by a variable's own memory
        start = self.placed.offsets[buffer.number]
        assert buffer.space == ARENA
        return arena[start : start + int(bind(buffer.nbytes, self.placed.sizes))].view(buffer.dtype.storage)


def _fed(array: Any, storage: Any) -> Any:
    try:
        return np.asarray(array).astype(storage, casting="same_kind")
    except TypeError as error:
        raise FeedError(str(error)) from None
