"""The door to running: sessions, callables and the compile cache."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphcore import dtypes
from graphcore.compiled import Compiled
from graphcore.errors import DeviceError, FeedError, SessionError, ShapeError, UsageError
from graphcore.graph import Graph, Update, collect, rebuild, toposort
from graphcore.node import Tensor, describe, make_node
from graphcore.io.checkpoint import load_arrays, save_arrays
from graphcore.ops.leaf import Placeholder
from graphcore.random import default_seed
from graphcore.shapes import Dim, bind, format_shape, symbols_of
from graphcore.state import keyed_variables, match_state
from graphcore.structure import flatten_fetches
from graphcore.variable import Variable

__all__ = ["Session", "default_session", "function"]

_CACHE_SIZE = 64
_local = threading.local()


@dataclass
class _Entry:
    """A run's graph and what was compiled for it."""

    graph: Graph
    feeds: tuple[Tensor, ...]
    update_values: tuple[Any, ...]
    compiled: list[Compiled] = field(default_factory=list)
    bound: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Session:
    """Owns variable values on a device and runs graphs there.

    Args:
        device: ``"auto"``, ``"opencl"``, ``"opencl:0"``, ``"opencl:intel"``, ``"opencl:pocl"`` or ``"numpy"``.
        seed: of initial values and random tensors; None takes the one that ``gc.random.seed`` set.
        memory_limit: bytes, or text like ``"2GB"``: refuse plans that need more, before anything is allocated.
        deterministic: only a promise to check: every kernel of this backend is deterministic.
        check_numerics: raise where a fetched value is NaN or infinite.
        passes: graph passes instead of the default ones.
        verify: check the graph around every pass.

    Runs from several threads are serialised, first come first served. A child process after ``os.fork`` raises.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", (None,))
    >>> with gc.Session("numpy") as sess:
    ...     sess.run(x * 2, {x: [1.0, 2.0]})
    array([2., 4.], dtype=float32)
    """

    def __init__(self, device: str = "auto", *, seed: int | None = None, memory_limit: int | str | None = None, deterministic: bool = True,
                 check_numerics: bool = False, passes: Sequence[Any] | None = None, verify: bool = False) -> None:
        if not isinstance(device, str):
            raise DeviceError(f"Session: device must be a string such as 'auto' or 'opencl:intel', got {type(device).__name__}")
        self.device = device
        self.memory_limit = parse_bytes(memory_limit)
        self.check_numerics = check_numerics
        self.deterministic = deterministic
        self._passes = passes
        self._verify = verify
        self._seed = seed
        self._rng: np.random.Generator | None = None
        self._backend = open_backend(device)
        self._pid = os.getpid()
        self._closed = False
        self._entries: OrderedDict[tuple[Any, ...], _Entry] = OrderedDict()
        self._run_lock = _FairLock()
        self._compile_lock = threading.RLock()
        self._known: dict[int, Variable] = {}

    # Life

    def __enter__(self) -> Session:
        stack = _sessions()
        stack.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        stack = _sessions()
        if self in stack:
            stack.remove(self)
        self.close()

    def close(self) -> None:
        """Release compiled programs; later runs raise."""
        self._closed = True
        self._entries.clear()

    def _check_alive(self) -> None:
        if self._closed:
            raise SessionError("the session is closed; make a new gc.Session()")
        if os.getpid() != self._pid:
            raise DeviceError("this session was opened before a fork, and device runtimes do not survive one: "
                              "open the session in the child, or start workers with multiprocessing's 'spawn' method")

    # Running

    def run(self, fetches: Any, feed_dict: Mapping[Any, Any] | None = None, *, options: Any = None, run_metadata: Any = None) -> Any:
        """Compute fetches.

        Args:
            fetches: a tensor, update or train step, or any nesting of lists, tuples and dicts of them.
            feed_dict: values for placeholders (or any other tensor): arrays, numbers, lists.
            options, run_metadata: accepted for compatibility; ``run_metadata`` may be a dict and receives the launches.

        Returns:
            The same nesting with fresh NumPy arrays, None for updates.

        Raises:
            FeedError: a missing, unknown or unfitting feed.
        """
        self._check_alive()
        feeds = dict(feed_dict or {})
        for key in feeds:
            if not isinstance(key, Tensor):
                raise FeedError(f"feed_dict: keys must be tensors, got {type(key).__name__}; names work for loaded graphs only")
        keys = tuple(feeds)
        tensors, updates, nest = flatten_fetches(fetches)
        entry = self._entry(tensors, updates, keys)
        values = self._execute(entry, [feeds[k] for k in keys])
        if isinstance(run_metadata, dict):
            run_metadata["launches"] = entry.compiled[-1].launches if entry.compiled else 0
        return nest(values)

    def make_callable(self, fetches: Any, inputs: Sequence[Tensor] = ()) -> Callable[..., Any]:
        """A function of arrays, in the order of ``inputs``: the fast way to run the same thing often.

        Raises:
            FeedError: at the call, for arrays that do not fit.
        """
        self._check_alive()
        tensors, updates, nest = flatten_fetches(fetches)
        listed = tuple([inputs] if isinstance(inputs, Tensor) else inputs)
        for t in listed:
            if not isinstance(t, Tensor):
                raise UsageError(f"make_callable: inputs must be tensors, got {type(t).__name__}")
        entry = self._entry(tensors, updates, listed)

        def call(*arrays: Any) -> Any:
            self._check_alive()
            if len(arrays) != len(listed):
                raise FeedError(f"this callable takes {len(listed)} arrays ({', '.join(t.name for t in listed)}), got {len(arrays)}")
            return nest(self._execute(entry, arrays))

        return call

    def compile(self, fetches: Any, feeds: Mapping[Tensor, Any] | None = None) -> Compiled:
        """Compile without running.

        Args:
            fetches: as in ``run``.
            feeds: tensor to array or shape.
        """
        self._check_alive()
        given = dict(feeds or {})
        tensors, updates, _ = flatten_fetches(fetches)
        entry = self._entry(tensors, updates, tuple(given))
        shapes = [tuple(v) if isinstance(v, (tuple, list)) and all(isinstance(e, (int, np.integer)) for e in v) and len(v) == t.ndim
                  else np.shape(v) for t, v in given.items()]
        sizes = self._sizes(entry, shapes)
        bound = self._bind(entry, sizes)
        return bound.compiled.at(bound)  # type: ignore[no-any-return]

    def _entry(self, tensors: Sequence[Tensor], updates: Sequence[Update], fed: tuple[Tensor, ...]) -> _Entry:
        key = (tuple(t.key for t in tensors), tuple((id(u.variable), u.value.key) for u in updates), tuple(t.key for t in fed))
        with self._compile_lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._build(tensors, updates, fed)
                self._entries[key] = entry
                while len(self._entries) > _CACHE_SIZE:
                    self._entries.popitem(last=False)
            self._entries.move_to_end(key)
            return entry

    def _build(self, tensors: Sequence[Tensor], updates: Sequence[Update], fed: tuple[Tensor, ...]) -> _Entry:
        for t in fed:
            if isinstance(t, Variable) or t.node.op.name == "variable":
                raise FeedError(f"feed_dict: {t.name!r} is a variable; use sess.set_value(variable, array)")
        graph = collect(tensors, updates, fed)
        graph, feeds = feed_points(graph, fed)
        fed_serials = {t.node.serial for t in graph.inputs}
        for node in graph.nodes():
            if node.op.name == "placeholder" and node.serial not in fed_serials:
                raise FeedError(f"placeholder {node.output().name!r} is not fed: {describe(node.output())}\n  pass it in feed_dict, e.g. {{x: array}}")
            if node.op.name == "parameter":
                raise UsageError(f"{node} belongs to the body of a checkpoint, custom gradient or loop and cannot be fetched outside")
        return _Entry(graph, feeds, ())

    def _execute(self, entry: _Entry, arrays: Sequence[Any]) -> list[Any]:
        prepared = [a if type(a) is np.ndarray else as_feed(a, t) for a, t in zip(arrays, entry.feeds, strict=True)]
        shapes = tuple(a.shape for a in prepared)
        bound = entry.bound.get(shapes)
        if bound is None:
            bound = self._bind(entry, self._sizes(entry, shapes), shapes)
        for t, array in zip(entry.feeds, prepared, strict=True):
            if array.dtype != t.dtype.storage:
                check_cast(t, array)
        with self._run_lock:
            values: list[Any] = bound.run(prepared)
        if self.check_numerics:
            self._refuse_nonfinite(entry, values)
        return values

    def _sizes(self, entry: _Entry, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        """The values of the symbols, from the fed shapes."""
        sizes: dict[str, int] = {}
        came_from: dict[str, Tensor] = {}
        for t, shape in zip(entry.feeds, shapes, strict=True):
            if len(shape) != t.ndim:
                raise FeedError(f"feed for {t.name!r} has shape {shape}, rank {len(shape)}; it must have rank {t.ndim}: {format_shape(t.shape)}\n  {describe(t)}")
            for axis, (want, have) in enumerate(zip(t.shape, shape, strict=True)):
                if isinstance(want, Dim) and want.is_symbol:
                    (symbol,) = want.symbols()
                    known = sizes.setdefault(symbol, int(have))
                    if known != have:
                        other = came_from[symbol]
                        raise FeedError(f"{want} is {known} in the feed of {other.name!r} but {have} at axis {axis} of {t.name!r}\n  {describe(other)}\n  {describe(t)}")
                    came_from.setdefault(symbol, t)
        for t, shape in zip(entry.feeds, shapes, strict=True):
            for axis, (want, have) in enumerate(zip(t.shape, shape, strict=True)):
                if bind(want, sizes) != have:
                    raise FeedError(f"feed for {t.name!r} has shape {shape}; axis {axis} is {have} and must be {bind(want, sizes)}\n  {describe(t)}")
        missing = symbols_of(e for n in entry.graph.nodes() for kind in n.types for e in kind.shape) - sizes.keys()
        if missing:
            raise FeedError(f"the extents {', '.join(sorted(missing))} are not known from the feeds; feed a tensor that has them")
        return sizes

    def _bind(self, entry: _Entry, sizes: dict[str, int], shapes: tuple[Any, ...] | None = None) -> Any:
        with entry.lock:
            compiled = next((c for c in entry.compiled if c.fits(sizes)), None)
            if compiled is None:
                compiled = Compiled(entry.graph, self._backend, sizes, self._passes, self._verify)
                entry.compiled.append(compiled)
            compiled.check_limit(sizes, self.memory_limit)
            self._initialise(compiled.variables)
            with self._run_lock:  # growing memory must not meet a run
                bound = compiled.bind(sizes)
            if shapes is not None:
                entry.bound[shapes] = bound
                while len(entry.bound) > _CACHE_SIZE:
                    entry.bound.popitem(last=False)
            return bound

    def _refuse_nonfinite(self, entry: _Entry, values: Sequence[Any]) -> None:
        for t, value in zip(entry.graph.outputs, values, strict=True):
            if t.dtype.is_float and not np.isfinite(np.asarray(value, np.float64)).all():
                raise SessionError(f"check_numerics: {t.name!r} holds NaN or infinity\n  {describe(t)}")

    # Variables

    def _initialise(self, variables: Sequence[Variable]) -> None:
        for variable in variables:
            if not self._backend.has(variable):
                self._backend.write(variable, self._initial_value(variable))
                self._known[id(variable)] = variable

    def _initial_value(self, variable: Variable) -> Any:
        initial = variable.initial
        if isinstance(initial, Tensor):
            return self.run(initial)
        if hasattr(initial, "sample"):
            return np.asarray(initial.sample(self.generator_for(variable)))
        special = _seeded(variable, self.seed)
        return initial if special is None else special

    @property
    def seed(self) -> int:
        """The session's seed."""
        if self._seed is None:
            self._seed = default_seed()
        return self._seed

    def generator_for(self, variable: Variable) -> np.random.Generator:
        """The generator of a variable's initial value: by seed and order of first use, so the same script gives the same values."""
        return np.random.default_rng([self.seed, len(self._known)])

    def get_value(self, variable: Variable) -> Any:
        """The variable's value as an array."""
        self._check_variable(variable)
        with self._run_lock:
            return self._backend.read(variable)

    def set_value(self, variable: Variable, value: Any) -> None:
        """Overwrite a variable.

        Raises:
            ShapeError: another shape.
        """
        if not isinstance(variable, Variable):
            raise UsageError(f"set_value: expected a Variable, got {type(variable).__name__}")
        array = np.asarray(value)
        if array.shape != tuple(variable.shape):
            raise ShapeError(f"set_value: variable {variable.name!r} has shape {format_shape(variable.shape)}, the value {array.shape}\n  the variable was made at {variable.place}")
        self._check_variable(variable)
        with self._run_lock:
            self._backend.write(variable, array.astype(variable.dtype.storage))

    def _check_variable(self, variable: Any) -> None:
        self._check_alive()
        if not isinstance(variable, Variable):
            raise UsageError(f"expected a Variable, got {type(variable).__name__}")
        if not self._backend.has(variable):
            self._initialise([variable])

    def state_dict(self, module: Any = None) -> dict[str, Any]:
        """Arrays by checkpoint key: of a module, or of every variable that this session has used."""
        return {key: self.get_value(v) for key, v in keyed_variables(module, list(self._known.values())).items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, module: Any = None) -> None:
        """Set variables from ``state_dict``'s arrays.

        Raises:
            SessionError: with ``strict``, missing or unexpected keys.
        """
        for variable, value in match_state(keyed_variables(module, list(self._known.values())), state, strict):
            self.set_value(variable, value)

    def save(self, path: Any, module: Any = None) -> None:
        """Write all values to a safetensors file, atomically: the old file or the new one, never neither."""
        save_arrays(path, self.state_dict(module), {"format": "graphcore"})

    def restore(self, path: Any, module: Any = None, strict: bool = True) -> None:
        """Read what ``save`` wrote.

        Raises:
            FormatError: no such file, or no checkpoint.
        """
        self.load_state_dict(load_arrays(path)[0], strict, module)


class _FairLock:
    """A lock that is granted in the order of asking; reentrant for its owner."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: list[threading.Lock] = []
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._guard:
            if self._owner is None or self._owner == me:
                self._owner, self._depth = me, self._depth + 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # released by the owner, who hands the lock over
        with self._guard:
            self._owner, self._depth = me, 1

    def __exit__(self, *exc: object) -> None:
        with self._guard:
            self._depth -= 1
            if self._depth:
                return
            if self._waiting:
                self._owner = -1  # handed over, not free
                self._waiting.pop(0).release()
            else:
                self._owner = None


def feed_points(graph: Graph, fed: tuple[Tensor, ...]) -> tuple[Graph, tuple[Tensor, ...]]:
    """The graph with every fed tensor replaced by a placeholder; ``inputs`` are those placeholders."""
    mapping = {}
    points = []
    for t in fed:
        if t.node.op.name == "placeholder":
            points.append(t)
            continue
        point = make_node(Placeholder(t.shape, t.dtype, t.name), (), t.node.origin).output()
        mapping[t.key] = point
        points.append(point)
    if mapping:
        graph = graph.with_roots(rebuild(graph, mapping))
    return Graph(graph.outputs, graph.updates, tuple(points)), tuple(fed)


def as_feed(value: Any, t: Tensor) -> Any:
    """A fed value as an array.

    Raises:
        FeedError: a tensor, a ragged list, or something that is no array.
    """
    if isinstance(value, Tensor):
        raise FeedError(f"feed for {t.name!r} is itself a symbolic tensor ({describe(value)}); feed an array, or build the graph on that tensor")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise FeedError(f"feed for {t.name!r} is no array: {error}\n  {describe(t)}") from None
    if array.dtype == object or array.dtype.kind in "USV" and array.dtype != dtypes.bfloat16.storage:
        raise FeedError(f"feed for {t.name!r} has dtype {array.dtype}, which holds no numbers\n  {describe(t)}")
    if not hasattr(value, "dtype") and array.dtype.kind in "fi" and _weak_fits(array, t):
        return array.astype(t.dtype.storage)
    return array


def _weak_fits(array: Any, t: Tensor) -> bool:
    """Python numbers take the tensor's type where the kind fits."""
    return array.dtype.kind == "f" and t.dtype.is_float or array.dtype.kind == "i" and (t.dtype.is_float or t.dtype.is_integer)


def check_cast(t: Tensor, array: Any) -> None:
    """Raise FeedError unless the array's type converts to the tensor's within its kind."""
    storage = t.dtype.storage
    fits = np.can_cast(array.dtype, storage, "same_kind") or (t.dtype.is_float and array.dtype.kind in "fiub") and t.dtype.name == "bfloat16"
    if not fits:
        raise FeedError(f"feed for {t.name!r} has dtype {array.dtype}, which does not convert to {t.dtype} without losing what it means; "
                        f"convert it with array.astype({t.dtype.name!r})\n  {describe(t)}")


def parse_bytes(value: int | str | None) -> int | None:
    """Bytes from a number or text like ``"2GB"``."""
    if value is None or isinstance(value, int):
        return value
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1}
    text = value.strip().upper()
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            try:
                return int(float(text[: -len(unit)]) * units[unit])
            except ValueError:
                break
    raise UsageError(f"memory_limit: {value!r} is no size; write bytes or text like '2GB'")


def _seeded(variable: Variable, seed: int) -> Any:
    """The session's own seed for the hidden variable that random tensors read; None for any other variable."""
    if variable.shape != (2,) or variable.name != "random/seed":
        return None
    return np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32)


def open_backend(device: str) -> Any:
    """The backend of a device string, once it is sure that ``backends`` and ``passes`` are ours."""
    import backends
    import passes
    from graphcore import __path__ as here

    ours = os.path.dirname(os.path.abspath(next(iter(here))))
    for package in (backends, passes):
        found = os.path.dirname(os.path.dirname(os.path.abspath(package.__file__ or "")))
        if found != ours:
            raise DeviceError(f"another package named {package.__name__!r} at {package.__file__} hides graphcore's own; rename it or take it off sys.path")
    from backends.base import open_backend as opened

    return opened(device)


def _sessions() -> list[Session]:
    if not hasattr(_local, "sessions"):
        _local.sessions = []
    return _local.sessions  # type: ignore[no-any-return]


_default: dict[str, Session] = {}
_default_lock = threading.Lock()


def default_session() -> Session:
    """The innermost open ``with Session()`` of this thread, or one made on first use and kept."""
    stack = _sessions()
    if stack:
        return stack[-1]
    with _default_lock:
        if "session" not in _default or _default["session"]._pid != os.getpid():
            _default["session"] = Session()
        return _default["session"]


def function(inputs: Any, outputs: Any, updates: Any = None) -> Callable[..., Any]:
    """A function of arrays, compiled at its first call and run in the default session.

    Args:
        inputs: placeholders, in the order of the arguments.
        outputs: what to return, any nesting.
        updates: updates to perform with every call.
    """
    listed = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    made: dict[int, tuple[Session, Callable[..., Any]]] = {}

    def call(*arrays: Any) -> Any:
        session = default_session()
        found = made.get(id(session))
        if found is None or found[0] is not session or session._closed:
            fetches = outputs if updates is None else (outputs, updates)
            found = made[id(session)] = (session, session.make_callable(fetches, listed))
        result = found[1](*arrays)
        return result if updates is None else result[0]

    return call


def reachable_variables(tensors: Sequence[Tensor]) -> list[Variable]:
    """The variables that tensors depend on."""
    return [n.op.variable for n in toposort(tensors) if n.op.name == "variable"]  # type: ignore[attr-defined]
