"""What work costs on a device: the one model that fusion, recomputation, schedules, splits and launches ask.

A kernel that has been scheduled says how much it does (``Work``): operations in register tiles, instructions of loops,
memory that it touches. A ``CostModel`` says how long a class of devices takes for that. Its numbers were fitted to
measured kernels (``python -m benchmarks.costs``) and are fixed data: what they decide is the same on every machine of
a class, whatever its load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphcore.base.shapes import Dim, Extent, bind, dim_max, dim_min

__all__ = ["NO_WORK", "CostModel", "Work"]

_ROUNDS = 4  # tasks of a kernel that a core takes


@dataclass(frozen=True)
class Work:
    """What a scheduled kernel does. Amounts are extents, so that one piece of work tells the cost of every batch size.

    Attributes:
        products: floating-point operations in register tiles, those on their padding included.
        rate: which of the device's rates they run at.
        instructions: of loops, on whole vectors where lanes allow; each counts as its function costs additions.
        scattered: elements that are loaded or stored one by one.
        far: vectors that are a page or more away from the one before in their loop.
        turns: turns of loops in which sums wait for the turn before.
        traffic: bytes of all elements that are loaded or stored, each once.
    """

    products: Extent = 0
    rate: str = "float32"
    instructions: Extent = 0
    scattered: Extent = 0
    far: Extent = 0
    turns: Extent = 0
    traffic: Extent = 0

    @property
    def symbolic(self) -> bool:
        """Whether an amount depends on sizes."""
        amounts = (self.products, self.instructions, self.scattered, self.far, self.turns, self.traffic)
        return any(isinstance(amount, Dim) for amount in amounts)

    def bound(self, sizes: Mapping[str, int]) -> Work:
        """The same with numbers for the symbolic extents."""
        return Work(
            bind(self.products, sizes),
            self.rate,
            bind(self.instructions, sizes),
            bind(self.scattered, sizes),
            bind(self.far, sizes),
            bind(self.turns, sizes),
            bind(self.traffic, sizes),
        )


NO_WORK = Work()


def _femto(seconds: float) -> int:
    return round(seconds * 1e15)


@dataclass(frozen=True)
class CostModel:
    """What a class of devices takes for work. Seconds and rates are those of one core, a GPU's multiprocessor.

    Attributes:
        name: the class.
        cores: cores that share out tasks.
        lanes: elements that one instruction computes.
        launch_seconds: starting a launch.
        level_seconds: what it costs beside that to wait for all of a launch's tasks.
        row_seconds: finding and calling one row of a plan's table.
        task_seconds: starting one task of a row.
        least_task_seconds: work that is worth a task, which another core has to find.
        kernel_launches: how many launches one more kernel is; few where the kernels of a level share one.
        instruction_seconds: one instruction of a loop.
        scattered_seconds: an element that is loaded or stored alone.
        far_seconds: what a vector costs more that is far from the one before, by where it comes from.
        turn_seconds: what a sum waits for the turn before.
        overlap: how much of the shorter of computing and moving bytes is not hidden behind the longer.
        product_rates: operations a second of full register tiles, by type.
        cache_bytes: of a core's own cache, and of the one that cores share. The three numbers of ``far_seconds`` and
            ``bytes_per_second`` are for these two and for memory.
        bytes_per_second: that pass by.
        memory_cores: how many cores use up the bandwidth of the memory.
        alone_share: of a core's rates, what one task gets when it is alone on it.
        compile_seconds: of any program, and of every kilobyte of its source.
    """

    name: str
    cores: int
    lanes: int
    launch_seconds: float
    level_seconds: float
    row_seconds: float
    task_seconds: float
    least_task_seconds: float
    kernel_launches: float
    instruction_seconds: float
    scattered_seconds: float
    far_seconds: tuple[float, float, float]
    turn_seconds: float
    overlap: float
    product_rates: tuple[tuple[str, float], ...]
    cache_bytes: tuple[int, int]
    bytes_per_second: tuple[float, float, float]
    memory_cores: float
    alone_share: float
    compile_seconds: tuple[float, float]

    # Scheduled work

    def product_seconds(self, operations: float, rate: str = "float32") -> float:
        """One core's seconds for operations in register tiles."""
        return operations / dict(self.product_rates)[rate]

    def product_operations(self, seconds: float, rate: str = "float32") -> float:
        """How many operations in register tiles one core does in some seconds."""
        return seconds * dict(self.product_rates)[rate]

    def places(self, footprint: float) -> tuple[float, float, float]:
        """Which parts of what a program touches again come from the own cache, the shared one, and memory.

        Args:
            footprint: bytes that the program touches in turn.
        """
        own, shared = (1.0 if footprint <= size else size / footprint for size in self.cache_bytes)
        return own, max(shared - own, 0.0), 1.0 - max(own, shared)

    def byte_seconds(self, footprint: float, cores: float = 1.0) -> float:
        """Seconds for every byte that some cores touch together."""
        own, shared, memory = self.places(footprint)
        near, middle, far = self.bytes_per_second
        return (own / near + shared / middle) / cores + memory / far / min(cores, self.memory_cores)

    def seconds(self, work: Work, tasks: int, footprint: float, alone: bool = False) -> float:
        """Seconds of one row of a plan's table, without the launch.

        Args:
            work: with numbers for all extents.
            tasks: how many tasks share it.
            footprint: bytes that the program touches in turn: what it touches again comes from a cache of that size.
            alone: whether one core does it all.
        """
        if not tasks:
            return self.row_seconds
        cores = 1 if alone else min(self.cores, tasks)
        counted = float(work.instructions) * self.instruction_seconds + float(work.scattered) * self.scattered_seconds
        # What is walked across comes again soon, so that it is the kernel's own traffic that decides where from.
        places = self.places(float(work.traffic))
        far = sum(part * each for part, each in zip(places, self.far_seconds, strict=True))
        busy = max(counted, float(work.turns) * self.turn_seconds) + float(work.far) * far
        products = self.product_seconds(float(work.products), work.rate) if work.products else 0.0
        rounds = -(-tasks // cores)  # tasks that the busiest core takes
        busy, moving = busy * rounds / tasks, float(work.traffic) * self.byte_seconds(footprint, cores)
        return (
            self.row_seconds
            + rounds * self.task_seconds
            + products * rounds / tasks  # tiles work on panels that are in the cache: nothing is moved meanwhile
            + max(busy, moving)
            + self.overlap * min(busy, moving)
        )

    def tasks_worth(self, seconds: float) -> int:
        """Into how many tasks work of so many seconds may be cut."""
        return max(1, int(seconds / self.least_task_seconds))

    def tasks_worth_starting(self, work: Work) -> Extent:
        """Into how many tasks one core's work may be cut, for any sizes: what ``tasks_worth`` says of its seconds.

        Where sizes are symbolic it is reckoned in whole femtoseconds, and what is far counts as in the own cache: work
        that is too little for all cores' tasks does not leave it.
        """
        if not work.symbolic:
            return self.tasks_worth(self.seconds(work, 1, 0.0))
        busy = dim_max(
            work.instructions * _femto(self.instruction_seconds) + work.scattered * _femto(self.scattered_seconds),
            work.turns * _femto(self.turn_seconds),
        )
        busy = busy + work.far * _femto(self.far_seconds[0])
        moving = work.traffic * _femto(self.byte_seconds(0.0))
        hidden = dim_min(busy, moving) * round((1 - self.overlap) * 1000) // 1000
        total = busy + moving - hidden + _femto(self.row_seconds + self.task_seconds)
        if work.products != 0:
            total = total + work.products * _femto(self.product_seconds(1.0, work.rate))
        return dim_max(total // _femto(self.least_task_seconds), 1)

    def build_seconds(self, source_bytes: int) -> float:
        """What the runtime's compiler takes for a program."""
        start, kilobyte = self.compile_seconds
        return start + kilobyte * source_bytes / 1024

    # What is not scheduled yet

    @property
    def kernel_seconds(self) -> float:
        """What one more kernel costs: a row of the table, tasks, and sometimes or always a launch."""
        return self.row_seconds + _ROUNDS * self.task_seconds + self.kernel_launches * self.launch_seconds

    def elementwise_seconds(self, operations: float) -> float:
        """Seconds for simple operations on elements, all cores together."""
        return operations / self.lanes * self.instruction_seconds / self.cores

    def traffic_seconds(self, nbytes: float) -> float:
        """Seconds for bytes that all cores store or load.

        They count as memory's: what reads a stored value runs later, and what is kept takes memory as well as time.
        """
        return nbytes / (self.bytes_per_second[2] * min(self.cores, self.memory_cores))
