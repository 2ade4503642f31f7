"""Running plans on an OpenCL device."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import Any

import numpy as np

from backends.opencl import icd
from backends.opencl.device import Device, open_device
from backends.opencl.memory import Memory
from backends.opencl.program import Source, compile_source, generate
from backends.opencl.target import dialect_of, make_target
from backends.opencl.templates import BY_NAME
from graphcore.errors import DeviceError, FeedError, OutOfMemoryError
from graphcore.plan import ARENA, CONSTANT, VARIABLE, Placed, Plan
from graphcore.shapes import bind

__all__ = ["OpenCLBackend", "Program", "BoundPlan", "open_opencl"]

_ALIGN = 128
_SPACES = {ARENA: 0, VARIABLE: 1, CONSTANT: 2}
PRODUCT_RATE = 5e10  # flops a second of one core in register tiles
SCALAR_RATE = 8e9  # operations a second of one core in loop nests
STAGE_SECONDS = {"intel": 8e-6, "pocl": 25e-6}  # what starting and finishing one more launch costs


@dataclass
class Program:
    """A compiled plan: its text and its built kernel's source."""

    plan: Plan
    source: Source
    built: Any


class OpenCLBackend:
    """One device: its memory, and the programs compiled for it."""

    interprets = False

    def __init__(self, device: Device) -> None:
        self.device = device
        self.name = f"opencl:{device.info.vendor}"
        self.target = make_target(device.info)
        self.dialect = dialect_of(device.info)
        self.cl = icd.load()
        self.arena, self.variables, self.constants = Memory(device), Memory(device), Memory(device)
        self._slots: dict[int, tuple[int, Any]] = {}
        self._written: set[int] = set()  # a slot may be made and its first value not yet be there
        self._constant_slots: dict[str, int] = {}
        self._variable_end = self._constant_end = 0

    # Variables

    def has(self, variable: Any) -> bool:
        return id(variable) in self._written

    def slot(self, variable: Any) -> int:
        """The variable's offset in the pool; made on first use."""
        found = self._slots.get(id(variable))
        if found is None:
            offset = self._variable_end
            nbytes = int(np.prod(variable.shape, dtype=np.int64)) * variable.dtype.itemsize
            end = offset + -(-max(nbytes, 1) // _ALIGN) * _ALIGN
            self.variables.grow(end)
            self._variable_end = end
            self._slots[id(variable)] = found = (offset, variable)
        return found[0]

    def read(self, variable: Any) -> Any:
        self.device.queue.finish()
        return self.variables.read(self.slot(variable), tuple(variable.shape), variable.dtype.storage)

    def write(self, variable: Any, value: Any) -> None:
        self.device.check_process()
        self.device.queue.finish()
        array = np.asarray(value, variable.dtype.storage)
        self.variables.write(self.slot(variable), array)
        self._written.add(id(variable))

    def constant(self, key: str, array: Any) -> int:
        """The offset of a constant's array; equal constants share it."""
        found = self._constant_slots.get(key)
        if found is None:
            found = self._constant_end
            end = found + -(-max(array.nbytes, 1) // _ALIGN) * _ALIGN
            self.constants.grow(end)
            self.constants.write(found, array)
            self._constant_end = end
            self._constant_slots[key] = found
        return found

    # Plans

    def compile(self, plan: Plan) -> Program:
        self.device.check_process()
        source = generate(plan, self.dialect)
        built = compile_source(self.device, source, plan) if plan.steps else None
        return Program(plan, source, built)

    def bind(self, program: Program, placed: Placed, graph: Any = None) -> BoundPlan:
        return BoundPlan(self, program, placed)

    def functions(self, program: Program) -> tuple[int, ...]:
        """Which function every step calls."""
        return program.source.of_step

    def source(self, program: Program) -> str:
        """The OpenCL C of a program."""
        return program.source.text


def open_opencl(spec: str) -> OpenCLBackend:
    """The backend of a device string."""
    return OpenCLBackend(open_device("auto" if spec == "auto" else spec))


def _failure(backend: OpenCLBackend, error: Exception) -> Exception:
    """What a failed launch means: the runtime allocates some things only then."""
    if isinstance(error, backend.cl.MemoryError) or "OUT_OF" in str(error):
        return OutOfMemoryError(f"{backend.name} ran out of memory while it ran: {error}")
    return DeviceError(f"{backend.name} failed while it ran: {error}")


class BoundPlan:
    """A program with offsets and sizes: its table is on the device, its kernel's arguments are set."""

    def __init__(self, backend: OpenCLBackend, program: Program, placed: Placed) -> None:
        self.backend, self.program, self.placed = backend, program, placed
        self.plan = program.plan
        self.generations: tuple[int, ...] = ()
        self.compiled: Any = None
        backend.arena.grow(placed.arena_bytes)
        self.rows, self.stages, self.tasks = self._rows()
        self.mode = self._choose_mode()
        self._kernels: list[tuple[Any, tuple[int, ...]]] = []
        self._table: Any = None
        self._feeders: list[Callable[[Any], None]] = []
        self._fetchers: list[Callable[[], Any]] = []
        self._work: list[Callable[[], Any]] = []  # launches, and waiting for them
        if program.built is not None:
            self._upload()
        self._prepare()

    # The table

    def _place(self, number: int) -> tuple[int, int]:
        buffer = self.plan.buffers[number]
        if buffer.space == VARIABLE:
            return 1, self.backend.slot(buffer.owner)
        if buffer.space == CONSTANT:
            key = hashlib.blake2b(buffer.owner.tobytes(), digest_size=16).hexdigest() + buffer.dtype.name
            return 2, self.backend.constant(key, buffer.owner)
        return 0, self.placed.offsets[number]

    def _rows(self) -> tuple[list[list[int]], list[tuple[int, int, int]], list[int]]:
        """Table rows, and ``(first row, last row, tasks)`` of every stage."""
        rows: list[list[int]] = []
        stages: list[tuple[int, int, int]] = []
        counts: list[int] = []
        index = 0
        for steps in self.plan.stages:
            first, started = len(rows), 0
            for step in steps:
                function = self.program.source.functions[self.program.source.of_step[index]]
                index += 1
                tasks = BY_NAME[step.template].tasks(step.kernel, step.config, self.backend.dialect, self.placed.sizes)
                stores = step.kernel.stores
                if stores and all(any(bind(a.extent, self.placed.sizes) == 0 for a in s.index.axes()) for s in stores):
                    tasks = 0
                row = [function.number, started, tasks]
                for number in step.buffers:
                    row += self._place(number)
                row += [int(bind(e, self.placed.sizes)) for e in BY_NAME[step.template].arguments(step.kernel, step.config)]  # type: ignore[arg-type]
                rows.append(row)
                counts.append(tasks)
                started += tasks
            stages.append((first, len(rows), started))
        return rows, stages, counts

    def _choose_mode(self) -> str:
        """One work item for the whole plan where starting its stages would cost more than a second core saves."""
        info = self.backend.device.info
        if info.kind != "cpu":
            return "launch a stage"
        alone = 0.0
        for step in self.plan.steps:
            rate = PRODUCT_RATE if step.template in ("matmul", "conv", "conv-sums") else SCALAR_RATE
            alone += max(step.flops / rate, step.nbytes / self.backend.target.bytes_per_second)
        starting = STAGE_SECONDS.get(info.vendor, 8e-6) * len(self.stages)
        return "one launch" if alone * (1 - 1 / max(info.compute_units, 2)) < starting else "launch a stage"

    def _upload(self) -> None:
        cl = self.backend.cl
        starts, flat = [], []
        offset = len(self.rows)
        for row in self.rows:
            starts.append(offset + len(flat))
            flat += row
        self._table_host = np.array(starts + flat, np.int64)
        flags = cl.mem_flags
        try:
            self._table = cl.Buffer(self.backend.device.context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=self._table_host)
        except (MemoryError, cl.MemoryError, cl.RuntimeError, cl.LogicError) as error:
            nbytes = self._table_host.nbytes
            raise OutOfMemoryError(f"{self.backend.device.info.name} cannot allocate {nbytes:,} bytes for the table of the plan's {len(self.rows)} steps: {error}") from None
        if self.mode == "one launch":
            self._kernels.append((cl.Kernel(self.program.built, "run_plan"), (1,)))
            self._ranges = [(0, len(self.rows), 1)]
        else:
            self._ranges = []
            for first, last, tasks in self.stages:
                if tasks:
                    self._kernels.append((cl.Kernel(self.program.built, "run_plan"), (tasks,)))
                    self._ranges.append((first, last, 0))

    def _prepare(self) -> None:
        """Set arguments and make views, again whenever memory has moved."""
        b = self.backend
        now = (b.arena.generation, b.variables.generation, b.constants.generation)
        if now == self.generations:
            return
        for (kernel, _), (first, last, whole) in zip(self._kernels, self._ranges if self._kernels else (), strict=True):
            kernel.set_args(b.arena.buffer, b.variables.buffer, b.constants.buffer, self._table, np.int32(first), np.int32(last), np.int32(whole))
        self._feeders = [self._feeder(number) for _, number in self.plan.feeds]
        self._fetchers = [self._fetcher(f) for f in self.plan.fetches]
        queue, enqueue = b.device.queue, b.cl.enqueue_nd_range_kernel
        self._work = [*(partial(enqueue, queue, kernel, size, (1,)) for kernel, size in self._kernels), queue.finish]
        self.generations = now  # last: if this is interrupted, the next run does it again

    def _shape(self, shape: Sequence[Any]) -> tuple[int, ...]:
        return tuple(int(bind(e, self.placed.sizes)) for e in shape)  # type: ignore[arg-type]

    def _feeder(self, number: int) -> Callable[[Any], None]:
        buffer = self.plan.buffers[number]
        shape, dtype = self._shape(buffer.shape), buffer.dtype.storage
        arena, offset = self.backend.arena, self.placed.offsets[number]
        if arena.on_host:
            view = arena.view(offset, shape, dtype)

            def copy(array: Any) -> None:
                np.copyto(view, array, casting="same_kind")

            return copy
        return lambda array: arena.write(offset, np.asarray(array, dtype))

    def _fetcher(self, fetch: Any) -> Callable[[], Any]:
        shape, dtype = self._shape(fetch.shape), fetch.dtype.storage
        if fetch.buffer is None:
            return lambda: np.array(fetch.array).reshape(shape)

        space, offset = self._place(fetch.buffer)
        memory = (self.backend.arena, self.backend.variables, self.backend.constants)[space]
        if memory.on_host:
            view = memory.view(offset, shape, dtype)
            return lambda: view.copy()
        return lambda: memory.read(offset, shape, dtype)

    # Running

    @property
    def launches(self) -> int:
        """Kernel launches of one run."""
        return len(self._kernels)

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Feed, launch, fetch."""
        self.backend.device.check_process()
        self._prepare()
        for feeder, array in zip(self._feeders, feeds, strict=True):
            try:
                feeder(array)
            except (TypeError, ValueError) as error:
                raise FeedError(str(error)) from None
        try:
            # One call into C from the first launch to the end of the last: Ctrl-C waits, so updates never tear.
            deque(map(call, self._work), maxlen=0)
        except self.backend.cl.Error as error:
            raise _failure(self.backend, error) from error
        return [fetch() for fetch in self._fetchers]
