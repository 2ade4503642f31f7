"""Running plans on an OpenCL device."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import call
from typing import Any

import numpy as np

from backends.codegen.target import counts_fit
from backends.opencl.compiler.workers import builds_apart
from backends.opencl.device import icd
from backends.opencl.device.device import Device, is_meant, open_device
from backends.opencl.launch_modes import LAUNCHES, Grid, Row, choose_mode, mode_seconds, plan_launches
from backends.opencl.memory import Blocks, Memory, Pool, Slot, Space
from backends.opencl.program import POINTERS, Source, compile_source, compile_whole, generate
from backends.opencl.splitting import Splitting
from backends.opencl.target import device_model, make_target
from graphcore.base.errors import DeviceError, FeedError, OutOfMemoryError, UsageError
from graphcore.base.shapes import bind, format_shape
from graphcore.plan.backend import MemoryInfo
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Placed, Plan

__all__ = ["BoundPlan", "OpenCLBackend", "Program", "open_opencl"]

_AS_GPU = ":as-gpu"
_BUILT_BYTES, _BYTES_OF_TEXT = 2 << 20, 80  # what runtimes keep of a program, and of each byte of its text


@dataclass
class Program:
    """A compiled plan: its text and its built programs: a CPU has one or several, a GPU one for single launches and one
    for all others.

    Attributes:
        length: of the text, which is not kept, but made again with the same ``splitting``.
        pointers: blocks of memory that its kernels take.
        wider: the same plan's programs with more pointers, for sizes or variables that need more blocks.
    """

    plan: Plan
    source: Source
    built: list[Any] | None = None
    whole: Any = None
    length: int = 0
    splitting: Splitting | None = None
    pointers: int = POINTERS
    wider: dict[int, Program] = field(default_factory=dict)


class OpenCLBackend:
    """One device: its memory, and the programs compiled for it.

    Args:
        device: an open device.
        kind: ``"gpu"`` runs a GPU's schedules and memory transfers on any device, for tests.
    """

    interprets = False

    def __init__(self, device: Device, kind: str | None = None) -> None:
        if kind is not None and kind != device.info.kind:
            device = replace(device, info=replace(device.info, kind=kind, vector_width=4))
        self.device = device
        self._launch = "auto"
        self.splitting: Splitting | None = None
        self.name = f"opencl:{device.info.vendor}"
        self.model = device_model(device.info)
        self.target = make_target(device.info, self.model)
        if builds_apart(device):
            self.splitting = Splitting(self.target.costs, most=device.info.compute_units)
        self.cl = icd.load()
        self.blocks = Blocks()
        self.arena, self.variables, self.constants = (Space(device, self.blocks) for _ in range(3))
        self.variable_pool, self.constant_pool = Pool(self.variables), Pool(self.constants)
        self._slots: dict[int, tuple[Slot, Any]] = {}

    @property
    def launch(self) -> str:
        """How plans bound from now on are launched: ``"step"``, ``"level"``, ``"one"``, or ``"auto"`` by cost."""
        return self._launch

    @launch.setter
    def launch(self, value: str) -> None:
        if value != "auto" and value not in LAUNCHES:
            raise UsageError(f"launch: {value!r} is no way to launch a plan; use one of auto, {', '.join(LAUNCHES)}")
        self._launch = value

    def serves(self, spec: str) -> bool:
        family = spec.partition(":")[0]
        return family == "opencl" and is_meant(spec.removesuffix(_AS_GPU), self.device.info)

    # Variables

    def has(self, variable: Any) -> bool:
        found = self._slots.get(id(variable))
        return found is not None and found[0].written  # a slot may be made and its first value not yet be there

    def reserve(self, variables: Sequence[Any]) -> None:
        """Give all variables that have none a slot in the pool, with one allocation at most."""
        missing = {id(v): v for v in variables if id(v) not in self._slots}
        sizes = {key: int(np.prod(v.shape, dtype=np.int64)) * v.dtype.itemsize for key, v in missing.items()}
        most = self.variables.section
        for v in missing.values():
            if sizes[id(v)] > most:
                raise OutOfMemoryError(
                    f"variable {v.name} is {v.dtype}{format_shape(v.shape)} of {sizes[id(v)]:,} bytes, and "
                    f"{self.device.info.name} allocates at most {most:,} at once: divide it, or use a narrower dtype"
                )
        slots = self.variable_pool.place(sizes)
        self._slots.update({key: (slots[key], v) for key, v in missing.items()})

    def slot(self, variable: Any) -> int:
        """The variable's offset in the pool; made on first use."""
        if id(variable) not in self._slots:
            self.reserve([variable])
        return self._slots[id(variable)][0].offset

    def read(self, variable: Any) -> Any:
        self.device.queue.finish()
        return self.variables.read(self.slot(variable), tuple(variable.shape), variable.dtype.storage)

    def write(self, variable: Any, value: Any) -> None:
        self.device.check_process()
        self.device.queue.finish()
        array = np.asarray(value, variable.dtype.storage)
        self.variables.write(self.slot(variable), array)
        self._slots[id(variable)][0].written = True

    def memory(self) -> MemoryInfo:
        spaces = self.variables, self.constants, self.arena
        return MemoryInfo(
            self.variables.size,
            self.constants.size,
            self.arena.size,
            sum(s.growths for s in spaces),
            sum(s.copied for s in spaces),
            tuple(b.size for s in spaces for b in s.blocks),
        )

    def close(self) -> None:
        self._slots.clear()
        for space in (self.variables, self.constants, self.arena):
            space.release()

    def nbytes(self, program: Program) -> int:
        built = sum(1 for p in (program, *program.wider.values()) for b in (p.built, p.whole) if b)
        return built * (_BUILT_BYTES + _BYTES_OF_TEXT * program.length)

    def place_constants(self, plan: Plan) -> dict[int, Slot]:
        """Slots of the plan's constants, by buffer: equal ones share one, for as long as it is held."""
        arrays = {b.number: plan.constant(b) for b in plan.buffers if b.space == CONSTANT}
        keys = {n: hashlib.blake2b(a.tobytes(), digest_size=16).digest() for n, a in arrays.items()}
        slots = self.constant_pool.place({keys[n]: a.nbytes for n, a in arrays.items()})
        for number, array in arrays.items():
            slot = slots[keys[number]]
            if not slot.written:
                self.constants.write(slot.offset, array)
                slot.written = True
        return {number: slots[key] for number, key in keys.items()}

    # Plans

    def compile(self, plan: Plan) -> Program:
        self.device.check_process()
        splitting = None if self._launch == "one" else self.splitting
        source = generate(plan, self.model, splitting)
        program = Program(plan, source, length=len(source.text), splitting=splitting)
        # The way to launch decides on a GPU, and the number of blocks where there may be several: binding knows.
        if plan.launches and not self.device.info.is_gpu and self._fits_one_block(plan):
            self.built(program)
        return program

    def _fits_one_block(self, plan: Plan) -> bool:
        """Whether one block of every space holds the plan for the hinted sizes, whatever its placement."""
        spaces = {ARENA: self.arena, VARIABLE: self.variables, CONSTANT: self.constants}
        room = {name: space.section - space.size for name, space in spaces.items()}
        room[ARENA] = self.arena.section
        for buffer in plan.buffers:
            room[buffer.space] -= int(bind(buffer.nbytes, plan.hints))
        return min(room.values()) >= 0

    def widened(self, program: Program, pointers: int) -> Program:
        """A program of the same plan whose kernels take so many blocks of memory, or more."""
        found = min((n for n in (program.pointers, *program.wider) if n >= pointers), default=None)
        if found is None:
            source = generate(program.plan, self.model, program.splitting, pointers)
            program.wider[pointers] = replace(
                program, source=source, built=None, whole=None, pointers=pointers, wider={}
            )
            return program.wider[pointers]
        return program if found == program.pointers else program.wider[found]

    def built(self, program: Program, number: int = 0, whole: bool = False) -> Any:
        """A plan's programs, built on first use: the one of this number, or the one that runs it as one work-group
        (GPUs)."""
        if whole:
            program.whole = program.whole or compile_whole(self.device, self._texts(program), program.plan)
        else:
            program.built = program.built or compile_source(self.device, self._texts(program), program.plan)
        if program.source.texts:
            program.source = program.source.without_text()
        return program.whole if program.built is None or whole else program.built[number]

    def _texts(self, program: Program) -> Source:
        """The source with its texts, which are not kept once they are built."""
        return program.source if program.source.texts else self._generated(program)

    def _generated(self, program: Program) -> Source:
        return generate(program.plan, self.model, program.splitting, program.pointers)

    def bind(self, program: Program, placed: Placed, slots: Sequence[Any] = (), graph: Any = None) -> BoundPlan:
        return BoundPlan(self, program, placed, slots)

    def holds(self, program: Program, sizes: Mapping[str, int]) -> bool:
        """Whether its functions' integers hold what they count, for these sizes."""
        return all(counts_fit(step, sizes) for step in program.plan.launches)

    def functions(self, program: Program) -> tuple[int, ...]:
        """Which function every step calls."""
        return program.source.of_step

    def texts(self, program: Program) -> tuple[tuple[str, int], ...]:
        """The name of every function, and the bytes of its text."""
        return tuple((f.name, f.nbytes) for f in program.source.functions)

    def source(self, program: Program) -> str:
        """The OpenCL C of a program."""
        return self._texts(program).text


def open_opencl(spec: str) -> OpenCLBackend:
    """The backend of a device string; ``as-gpu`` at its end makes a CPU run a GPU's schedules (for tests)."""
    return OpenCLBackend(open_device(spec.removesuffix(_AS_GPU)), "gpu" if spec.endswith(_AS_GPU) else None)


def _failure(backend: OpenCLBackend, error: Exception) -> Exception:
    """What a failed launch means: the runtime allocates some things only then."""
    if isinstance(error, backend.cl.MemoryError) or "OUT_OF" in str(error):
        return OutOfMemoryError(f"{backend.name} ran out of memory while it ran: {error}")
    return DeviceError(f"{backend.name} failed while it ran: {error}")


class BoundPlan:
    """A program with offsets and sizes: its table is on the device, its kernels' arguments are set.

    Attributes:
        slots: the variables at the plan's positions.
        launch: what was asked for: ``"auto"``, ``"step"``, ``"level"`` or ``"one"``.
        mode: what was chosen, in words.
        kernels: one for each launch, with the size of its grid; their arguments are set.
    """

    def __init__(
        self,
        backend: OpenCLBackend,
        program: Program,
        placed: Placed,
        slots: Sequence[Any] = (),
        mode: str | None = None,
    ) -> None:
        self.backend, self.placed, self.slots = backend, placed, slots
        self.plan = program.plan
        self.moves = 0  # of the backend's memory, when arguments and views were made; it moves on its first growth
        self.compiled: Any = None
        self.spaces = backend.arena, backend.variables, backend.constants
        tops = placed.tops or (placed.arena_bytes,)
        backend.arena.grow(*(number * backend.arena.section + top for number, top in enumerate(tops) if top))
        backend.reserve([self._variable(number) for number in self.plan.variables])
        self.constants = backend.place_constants(self.plan)
        self.blocks = self._touched()
        self.program = backend.widened(program, len(self.blocks))
        self.launch = backend.launch
        levels = self.levels
        self.mode = mode or LAUNCHES.get(self.launch) or self._choose_mode(levels)
        self._grids: list[Grid] = []
        self.kernels: list[tuple[Any, tuple[int, ...]]] = []
        self._table: Any = None
        self._feeders: list[Callable[[Any], None]] = []
        self._fetchers: list[Callable[[], Any]] = []
        self._work: list[Callable[[], Any]] = []  # launches, and waiting for them
        if self.plan.launches:
            self._upload(levels)
        self._prepare()

    # The table

    def _touched(self) -> dict[tuple[int, int], int]:
        """The blocks that the plan touches, by space and number, and which of the kernels' pointers each is: one of
        every space, then the others."""
        first = {0: 0, 1: 0, 2: 0}
        others = []
        if any(len(space.blocks) > 1 for space in self.spaces):
            numbers = {*self.placed.offsets, *self.constants, *self.plan.variables}
            touched = sorted({self._place(number)[:2] for number in numbers})
            first |= dict(reversed(touched))
            others = [block for block in touched if first[block[0]] != block[1]]
        return {block: i for i, block in enumerate([*first.items(), *others])}

    def _variable(self, number: int) -> Any:
        return self.slots[self.plan.slot(number)]

    def _place(self, number: int) -> tuple[int, int, int]:
        """The space of a value, the number of the block in it, and the offset in that."""
        buffer = self.plan.buffers[number]
        if buffer.space == VARIABLE:
            return 1, *self.backend.variables.locate(self.backend.slot(self._variable(number)))
        if buffer.space == CONSTANT:
            return 2, *self.backend.constants.locate(self.constants[number].offset)
        return 0, *self.backend.arena.locate(self.placed.offsets[number])

    def _memory(self, number: int) -> tuple[Memory, int]:
        """The block of a value, and its offset there."""
        space, block, offset = self._place(number)
        return self.spaces[space].blocks[block], offset

    def _words(self, number: int) -> tuple[int, int]:
        """What a row says of where a value is: which pointer, and the offset."""
        space, block, offset = self._place(number)
        return self.blocks[space, block], offset

    @property
    def levels(self) -> list[list[Row]]:
        """The table's rows, by level."""
        sizes, calls = self.placed.sizes, iter(self.program.source.calls)
        levels: list[list[Row]] = []
        for steps in self.plan.levels:
            levels.append([])
            for step in steps:
                words = [word for number in step.buffers for word in self._words(number)]
                words += [int(bind(e, sizes)) for e in step.arguments]
                function, program = next(calls)
                tasks = int(bind(step.tasks, sizes))
                levels[-1].append(Row(function, tasks, tuple(words), step.work.bound(sizes), program))
        return levels

    @property
    def footprint(self) -> int:
        """Bytes that a run touches."""
        outside = (b.nbytes for b in self.plan.buffers if b.space != ARENA)
        return self.placed.arena_bytes + sum(int(bind(n, self.placed.sizes)) for n in outside)

    def _choose_mode(self, levels: list[list[Row]]) -> str:
        info = self.backend.device.info
        if not (info.is_cpu or info.is_gpu):
            return LAUNCHES["level"]
        return choose_mode(mode_seconds(levels, self.backend.target.costs, self.footprint, info.is_gpu))

    def _upload(self, levels: list[list[Row]]) -> None:
        cl = self.backend.cl
        order, self._grids = plan_launches(levels, self.mode, self.backend.device.info.is_gpu)
        starts: list[int] = []
        flat: list[int] = []
        for row, first in order:
            starts.append(len(order) + len(flat))
            flat += (row.function, first, row.tasks, *row.words)
        table = np.array(starts + flat or [0], np.int64)  # buffers cannot be empty
        flags = cl.mem_flags
        try:
            self._table = cl.Buffer(self.backend.device.context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=table)
        except (MemoryError, cl.MemoryError, cl.RuntimeError, cl.LogicError) as error:
            nbytes = table.nbytes
            raise OutOfMemoryError(
                f"{self.backend.device.info.name} cannot allocate {nbytes:,} bytes for the table of the plan's "
                f"{len(order)} steps: {error}"
            ) from None
        for grid in self._grids:
            built = self.backend.built(self.program, grid.program, whole=grid.kernel == "run_whole")
            self.kernels.append((cl.Kernel(built, grid.kernel), (grid.groups * self.backend.model.group,)))

    def _prepare(self) -> None:
        """Set arguments and make views, again whenever memory has moved."""
        b = self.backend
        now = b.blocks.moves
        if now == self.moves:
            return
        buffers = [self.spaces[space].blocks[block].buffer for space, block in self.blocks]
        buffers += buffers[:1] * (self.program.pointers - len(buffers))  # none of the rows names them
        for (kernel, _), grid in zip(self.kernels, self._grids, strict=True):
            whole = (np.int32(self.mode == "one launch"),) if grid.kernel == "run_plan" else ()
            kernel.set_args(
                *buffers,
                self._table,
                np.int32(grid.first),
                np.int32(grid.last),
                *whole,
            )
        self._feeders = [self._feeder(number) for number in self.plan.feeds]
        self._fetchers = [self._fetcher(f) for f in self.plan.fetches]
        queue, enqueue = b.device.queue, b.cl.enqueue_nd_range_kernel
        self._work = [
            *(partial(enqueue, queue, kernel, size, (b.model.group,)) for kernel, size in self.kernels),
            queue.finish,
        ]
        self.moves = now  # last: if this is interrupted, the next run does it again

    def _shape(self, shape: Sequence[Any]) -> tuple[int, ...]:
        return tuple(int(bind(e, self.placed.sizes)) for e in shape)

    def _feeder(self, number: int) -> Callable[[Any], None]:
        buffer = self.plan.buffers[number]
        shape, dtype = self._shape(buffer.shape), buffer.dtype.storage
        arena, offset = self._memory(number)
        if arena.on_host:
            view = arena.view(offset, shape, dtype)

            def copy(array: Any) -> None:
                if array.dtype == dtype:
                    view[...] = array  # half the time of copyto
                else:
                    np.copyto(view, array, casting="same_kind")

            return copy
        return lambda array: arena.write(offset, np.asarray(array, dtype))

    def _fetcher(self, fetch: Any) -> Callable[[], Any]:
        shape, dtype = self._shape(fetch.shape), fetch.dtype.storage
        if fetch.constant is not None:
            constant = self.plan.constants[fetch.constant]
            return lambda: np.array(constant).reshape(shape)

        memory, offset = self._memory(fetch.buffer)
        if memory.on_host:
            view = memory.view(offset, shape, dtype)
            return lambda: view.copy()
        return lambda: memory.read(offset, shape, dtype)

    # Running

    @property
    def launches(self) -> int:
        """Kernel launches of one run."""
        return len(self.kernels)

    def feed(self, feeds: Sequence[Any]) -> None:
        """Write arrays, in the plan's order, where its steps read them."""
        self.backend.device.check_process()
        self._prepare()
        for feeder, array in zip(self._feeders, feeds, strict=True):
            try:
                feeder(array)
            except (TypeError, ValueError) as error:
                raise FeedError(str(error)) from None

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Feed, launch, fetch."""
        self.feed(feeds)
        try:
            # One call into C from the first launch to the end of the last: Ctrl-C waits, so updates never tear.
            deque(map(call, self._work), maxlen=0)
        except self.backend.cl.Error as error:
            raise _failure(self.backend, error) from error
        return [fetch() for fetch in self._fetchers]
