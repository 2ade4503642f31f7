"""The door to running: sessions, callables and the compile cache."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np

from graphcore.api import random
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable, read_variables, variable_of
from graphcore.base.errors import DeviceError, FeedError, SessionError, UsageError
from graphcore.base.process import PROCESS
from graphcore.io.checkpoint import load_arrays, save_arrays
from graphcore.ir.graph import Update
from graphcore.ir.node import Value
from graphcore.ir.state import StateSlot
from graphcore.plan.backend import MemoryInfo, open_backend
from graphcore.runtime.anomaly import anomaly_error, holds_nan, positions_out_of_range, watching
from graphcore.runtime.compiled import Compiled
from graphcore.runtime.feeds import as_feed, cast_feed, feed_points, listed_inputs, shape_of, sizes_of, split_feeds
from graphcore.runtime.fetches import flatten_fetches
from graphcore.runtime.locks import Line, Turn
from graphcore.runtime.names import resolve
from graphcore.runtime.options import RunMetadata, RunOptions, checked_seed, parse_bytes, refuse_nonfinite
from graphcore.runtime.program_cache import (
    CACHE_LIMIT,
    CacheInfo,
    Entry,
    Program,
    ProgramCache,
    run_graph,
    shrink,
)
from graphcore.runtime.variable_store import (
    VariableStore,
    checked_variable,
    fitting_value,
    owned_variables,
    renamed,
)
from passes.pipeline import Pipeline, choose_pipeline

__all__ = ["RunMetadata", "RunOptions", "Session", "default_session", "feed_points", "function"]


class Session:
    """Owns variable values on a device and runs graphs there.

    Args:
        device: ``"auto"``, ``"opencl"``, ``"opencl:0"``, ``"opencl:intel"``, ``"opencl:pocl"`` or ``"numpy"``.
        seed: of initial values and random tensors; None takes the one that ``gc.random.seed`` set.
        memory_limit: bytes, or text like ``"2GB"``: refuse plans that need more, before anything is allocated.
        deterministic: only a promise to check: every kernel of this backend is deterministic.
        check_numerics: raise where a fetched value is NaN or infinite.
        passes: graph passes instead of the default ones, or a whole ``passes.pipeline.Pipeline``.
        verify: check what every stage of compilation is given and makes.
        cache_limit: bytes, or text like ``"1GB"``, that compiled programs may take together, by an estimate; those that
            were used longest ago are forgotten, and compiled again when they are run again.
        launch: how plans are started: ``"step"``, ``"level"``, ``"one"`` launch in all, or ``"auto"``, by estimated
            cost.

    Runs from several threads are serialised, first come first served; compilation is not. Ctrl-C never leaves a run's
    updates half done. A child process after ``os.fork`` raises.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", (None,))
    >>> with gc.Session("numpy") as sess:
    ...     sess.run(x * 2, {x: [1.0, 2.0]})
    array([2., 4.], dtype=float32)
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        seed: int | None = None,
        memory_limit: int | str | None = None,
        deterministic: bool = True,
        check_numerics: bool = False,
        passes: Sequence[Any] | Pipeline | None = None,
        verify: bool = False,
        cache_limit: int | str = CACHE_LIMIT,
        launch: str = "auto",
    ) -> None:
        if not isinstance(device, str):
            raise DeviceError(
                f"Session: device must be a string such as 'auto' or 'opencl:intel', got {type(device).__name__}"
            )
        self.device = device
        self.memory_limit = parse_bytes(memory_limit)
        self.check_numerics = check_numerics
        self.deterministic = deterministic
        self._pipeline = choose_pipeline(passes)
        self._verify = verify
        self._backend = open_backend(device)
        self._backend.launch = launch
        self._forks = PROCESS.forks
        self._closed = False
        self._cache = ProgramCache(parse_bytes(cache_limit, "cache_limit") or 0)
        self._line = Line()
        mine = weakref.ref(self)  # a closure over the session itself would keep it from dying
        self._variables = VariableStore(
            self._backend, self._line, checked_seed(seed), lambda t, fed: cast(Session, mine()).run(t, fed), mine
        )

    # Life

    def __enter__(self) -> Self:
        self._check_alive()
        _sessions().append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        stack = _sessions()
        if self in stack:
            stack.remove(self)
        self.close()

    def close(self) -> None:
        """Release compiled programs, and all memory on the device; later runs raise."""
        already, self._closed = self._closed, True
        self._cache.clear()
        if already or PROCESS.forks != self._forks:
            return
        turn = Turn()
        with turn.lock:  # a run of another thread goes to its end
            self._line.wait(turn)
            self._variables.clear()
            self._backend.close()

    def cache_info(self) -> CacheInfo:
        """How many compiled programs the session keeps, and how many bytes they take by estimate."""
        return self._cache.info()

    def memory_info(self) -> MemoryInfo:
        """What the session holds on its device, in bytes."""
        self._check_alive()
        found: MemoryInfo = self._backend.memory()
        return found

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._closed

    def _check_alive(self) -> None:
        if self._closed:
            raise SessionError("the session is closed; make a new gc.Session()")
        if PROCESS.forks != self._forks:
            raise DeviceError(
                "this session was opened before a fork, and device runtimes do not survive one: "
                "open the session in the child, or start workers with multiprocessing's 'spawn' method"
            )

    # Running

    def run(
        self,
        fetches: Any,
        feed_dict: Mapping[Any, Any] | None = None,
        *,
        options: RunOptions | None = None,
        run_metadata: Any = None,
    ) -> Any:
        """Compute fetches.

        Args:
            fetches: a tensor, update or train step, or any nesting of lists, tuples and dicts of them. A name stands
                for the tensor of that name that the other fetches reach, else for one in what this session compiled.
            feed_dict: values for placeholders (or any other tensor), by tensor or name: arrays, numbers, lists.
            options: a ``RunOptions``.
            run_metadata: a ``RunMetadata`` or a dict; receives the launches.

        Returns:
            The same nesting with fresh NumPy arrays, None for updates.

        Raises:
            FeedError: a missing, unknown or unfitting feed.
            OutOfMemoryError: the plan does not fit the device or the session's limit.
        """
        self._check_alive()
        keys, arrays = split_feeds(feed_dict)
        tensors, updates, nest = flatten_fetches(fetches)
        tensors, keys = self._found(tensors, updates, keys)
        if watching():
            bound, values = self._watched(tensors, updates, keys, arrays)
        else:
            bound, values = self._execute(self._cache.entry(tensors, updates, keys), keys, arrays)
        checked = self.check_numerics if options is None or options.check_numerics is None else options.check_numerics
        if checked:
            refuse_nonfinite(tensors, values, lambda: self._explained(tensors, updates, keys, arrays))
        if isinstance(run_metadata, dict):
            run_metadata["launches"] = bound.launches
        elif run_metadata is not None:
            run_metadata.launches, run_metadata.mode = bound.launches, bound.mode
        return nest(values)

    def make_callable(self, fetches: Any, inputs: Sequence[Tensor | str] = ()) -> Callable[..., Any]:
        """A function of arrays, in the order of ``inputs``: the fast way to run the same thing often.

        Raises:
            FeedError: at the call, for arrays that do not fit.
        """
        self._check_alive()
        tensors, updates, nest = flatten_fetches(fetches)
        tensors, listed = self._found(tensors, updates, listed_inputs(inputs))
        entry = self._cache.entry(tensors, updates, listed)

        def call(*arrays: Any) -> Any:
            self._check_alive()
            if len(arrays) != len(listed):
                raise FeedError(
                    f"this callable takes {len(listed)} arrays ({', '.join(t.name for t in listed)}), got {len(arrays)}"
                )
            _, values = (
                self._watched(tensors, updates, listed, arrays) if watching() else self._execute(entry, listed, arrays)
            )
            if self.check_numerics:
                refuse_nonfinite(tensors, values, lambda: self._explained(tensors, updates, listed, arrays))
            return nest(values)

        return call

    def compile(self, fetches: Any, feeds: Mapping[Tensor | str, Any] | None = None) -> Compiled:
        """Compile without running; a run with feeds of these shapes then has nothing left to prepare.

        Args:
            fetches: as in ``run``.
            feeds: tensor to array or shape.
        """
        self._check_alive()
        keys, given = split_feeds(feeds)
        tensors, updates, _ = flatten_fetches(fetches)
        tensors, keys = self._found(tensors, updates, keys)
        entry = self._cache.entry(tensors, updates, keys)
        shapes = [shape_of(t, v) for t, v in zip(keys, given, strict=True)]
        sizes = sizes_of(keys, shapes, entry.needed, entry.constraints)
        program = entry.program
        if entry.lines == program.lines:
            sizes = {entry.rename[k]: v for k, v in sizes.items() if k in entry.rename}
        else:  # shared with a graph of other lines and names, which would show
            graph = run_graph(tensors, updates, keys)
            program = Program(graph, tuple(entry.rename), entry.lines, ())
        bound = self._bind(program, entry.slots, sizes, (entry.state, tuple(shapes)))
        compiled: Compiled = bound.compiled
        seen = compiled.at(bound, sizes)
        compiled.release()  # what the stages made is the caller's alone
        return seen

    def _found(
        self, tensors: list[Any], updates: Sequence[Update], fed: tuple[Any, ...]
    ) -> tuple[list[Value], tuple[Value, ...]]:
        """Fetches and feeds, with values in the places of names."""
        if any(isinstance(t, str) for t in tensors) or any(isinstance(t, str) for t in fed):
            return resolve(tensors, updates, fed, self._cache.graphs)
        return tensors, fed

    def _execute(self, entry: Entry, fed: Sequence[Value], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
        prepared = []
        for array, t, storage in zip(arrays, fed, entry.storages, strict=True):
            fitting = array if type(array) is np.ndarray else as_feed(array, t)
            prepared.append(fitting if fitting.dtype == storage else cast_feed(t, fitting))
        shapes = tuple([a.shape for a in prepared])

        def sizes() -> dict[str, int]:
            return sizes_of(fed, shapes, entry.needed, entry.constraints)

        if entry.ranges is not None:
            entry.ranges.check(prepared, shapes, sizes)
        bound = entry.program.bound.get((entry.state, shapes))
        if bound is None:
            known = {entry.rename[k]: v for k, v in sizes().items() if k in entry.rename}
            bound = self._bind(entry.program, entry.slots, known, (entry.state, shapes))
            bound.compiled.release()
        bound.compiled.used = next(self._cache.clock)
        turn = Turn()
        with turn.lock:
            self._line.wait(turn)
            values: list[Any] = bound.run(prepared)
        self._variables.mark([entry.slots[position] for position in bound.compiled.updated])
        return bound, values

    def _watched(
        self, tensors: Sequence[Value], updates: Sequence[Update], fed: tuple[Value, ...], arrays: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        """A run under ``detect_anomaly``."""
        entry = self._cache.entry(tensors, updates, fed)
        graph = run_graph(tensors, updates, fed)
        variables = read_variables(graph.nodes())
        before = dict(zip((v.slot for v in variables), self._variables.read(variables), strict=True))
        bound, values = self._execute(entry, fed, arrays)
        updated = [variable_of(slot) for slot, _ in graph.updates]
        if any(map(holds_nan, values)) or any(map(holds_nan, self._variables.read(updated))):
            raise anomaly_error(graph, *_fed_again(entry, fed, arrays), before)
        return bound, values

    def _explained(
        self, tensors: Sequence[Value], updates: Sequence[Update], fed: tuple[Value, ...], arrays: Sequence[Any]
    ) -> str | None:
        """What ``check_numerics`` can say of a run that is over."""
        entry = self._cache.entry(tensors, updates, fed)
        return positions_out_of_range(run_graph(tensors, updates, fed), *_fed_again(entry, fed, arrays))

    def _bind(self, program: Program, slots: Sequence[StateSlot], sizes: dict[str, int], key: tuple[Any, ...]) -> Any:
        """An executable over these slots for these sizes, kept under a key; compiles where no compilation fits."""
        with program.lock:
            compiled = next((c for c in program.compiled if c.fits(sizes)), None)
            if compiled is None:
                compiled = Compiled(program.graph, self._backend, sizes, self._pipeline, self._verify)
                program.add(compiled)
        compiled.check_limit(sizes, self.memory_limit)
        self._variables.initialise(variable_of(slots[position]) for position in compiled.state)
        turn = Turn()
        with turn.lock:  # growing memory must not meet a run
            self._line.wait(turn)
            bound = compiled.bind(sizes, slots)
        with program.lock:
            program.bound[key] = bound
            shrink(program.bound)
            if compiled not in program.compiled:  # forgotten meanwhile
                program.compiled.append(compiled)
        self._cache.note(program, compiled)
        return bound

    # Variables

    @property
    def seed(self) -> int:
        """The session's seed."""
        return self._variables.seed

    def generator_for(self, variable: Variable) -> np.random.Generator:
        """The generator of a variable's initial value: by the seed, the checkpoint key and, among variables with equal
        keys, the order of first use."""
        return self._variables.generator_for(variable)

    def get_value(self, variable: Variable) -> Any:
        """The variable's value as a fresh array."""
        self._check_alive()
        return self._variables.read([checked_variable("get_value", variable)])[0]

    def set_value(self, variable: Variable, value: Any) -> None:
        """Overwrite a variable.

        Raises:
            ShapeError, DTypeError: a value of another shape, or of a type that does not convert within its kind.
        """
        self._check_alive()
        fitting = fitting_value(checked_variable("set_value", variable), value, "set_value")
        self._variables.set([("", variable, fitting)])

    def state_dict(self, module: Any = None) -> dict[str, Any]:
        """Arrays: of a module by its paths, or of every variable that this session has used by checkpoint key. All are
        of one moment.

        What was restored and not used yet is there, too.
        """
        self._check_alive()
        keyed = self._variables.keyed() if module is None else owned_variables(module)
        found = dict(zip(keyed, self._variables.read(list(keyed.values())), strict=True))
        return found if module is not None else {**found, **self._variables.pending}

    def commit(self, module: Any = None) -> None:
        """Make the values that variables have here the initial ones of later sessions.

        Args:
            module: a module or an optimizer, whose variables; by default all that this session has used.
        """
        self._check_alive()
        owned = None if module is None else owned_variables(module).values()
        self._variables.commit(
            [v for v in self._variables.used if not random.is_state(v)] if owned is None else [*owned]
        )

    def load_state_dict(self, state: Mapping[str, Any], strict: bool | str = True, module: Any = None) -> None:
        """Set variables from ``state_dict``'s arrays: all of them, or none if one does not fit.

        A session that has used no variable yet keeps the arrays until their variables are used.

        Args:
            state: arrays by checkpoint key.
            strict: whether the keys must be exactly those of the variables; ``"model"``: but for optimizers' state.
            module: whose variables; by default those that this session has used.

        Raises:
            SessionError: with ``strict``, missing or unexpected keys.
            ShapeError, DTypeError: a value that does not fit.
        """
        self._check_alive()
        self._variables.load(state, strict, module)

    def save(self, path: Any, module: Any = None) -> None:
        """Write all values to a safetensors file by checkpoint key, or those of a module: atomically, the old file or
        the new one, never neither."""
        self._check_alive()
        if module is None:
            state = self.state_dict()
        else:
            keyed = self._variables.keyed(module)
            state = dict(zip(keyed, self._variables.read(list(keyed.values())), strict=True))
        save_arrays(path, state, {"format": "graphcore"})

    def restore(
        self,
        path: Any,
        module: Any = None,
        strict: bool | str = True,
        names: Mapping[str, str] | Callable[[str], str] | None = None,
    ) -> None:
        """Read what ``save`` wrote.

        Args:
            path: the file.
            module: whose variables: by their checkpoint keys, where the file may hold others besides, else by the
                paths in the module. By default all variables that this session has used.
            strict: as for ``load_state_dict``.
            names: keys of the file to those that are meant, as a table or a function; others stay as they are.

        Raises:
            SessionError: with ``strict``, missing or unexpected keys.
            FormatError: no checkpoint.
            OSError: no such file.
        """
        self._check_alive()
        state = load_arrays(path)[0]
        if names is not None:
            state = renamed(state, names)
        self._variables.restore(state, strict, module)


def _fed_again(entry: Entry, fed: Sequence[Value], arrays: Sequence[Any]) -> tuple[dict[str, int], list[Any]]:
    """The extents and the feeds of a run."""
    feeds = [as_feed(a, t) for a, t in zip(arrays, fed, strict=True)]
    return sizes_of(fed, [a.shape for a in feeds], entry.needed, entry.constraints), feeds


_local = threading.local()
_default: dict[str, Session] = {}
_default_lock = threading.Lock()


def _sessions() -> list[Session]:
    if not hasattr(_local, "sessions"):
        _local.sessions = []
    return _local.sessions  # type: ignore[no-any-return]


def default_session() -> Session:
    """The innermost open ``with Session()`` of this thread, or one made on first use and kept."""
    stack = _sessions()
    if stack:
        return stack[-1]
    with _default_lock:
        found = _default.get("session")
        if found is None or found._forks != PROCESS.forks or found.closed:
            found = _default["session"] = Session()
        return found


def function(inputs: Any, outputs: Any, updates: Any = None) -> Callable[..., Any]:
    """A function of arrays, compiled at its first call and run in the default session.

    Args:
        inputs: placeholders, in the order of the arguments.
        outputs: what to return, any nesting.
        updates: updates to perform with every call.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", ())
    >>> f = gc.function([x], x * 2)
    """
    listed = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for t in listed:
        if not isinstance(t, Tensor):
            raise UsageError(f"function: inputs must be placeholders, got {type(t).__name__}")
    fetches = outputs if updates is None else (outputs, updates)
    tensors, changed, _ = flatten_fetches(fetches)  # wrong ones fail here and not at the first call
    resolve(tensors, changed, (), tuple)
    latest: list[tuple[Session, Callable[..., Any]]] = []

    def call(*arrays: Any) -> Any:
        session = default_session()
        made = next((c for s, c in latest if s is session), None)
        if made is None:
            made = session.make_callable(fetches, listed)
            latest[:] = [(session, made)]
        result = made(*arrays)
        return result if updates is None else result[0]

    return call
