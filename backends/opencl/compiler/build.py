"""Builds OpenCL programs, with a kernel cache in memory and on disk.

One file per entry: a magic number, the key, a checksum of the payload and the payload, which is the driver's binary
(for PoCL see pocl_cache.py). Entries appear by an atomic rename and are verified when read, so that any number of
processes may share the folder, and a damaged, stale or unreadable entry costs a build and one warning, never more.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import tempfile
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.opencl.compiler import pocl_cache
from backends.opencl.compiler.failure import explain_failure
from backends.opencl.compiler.folders import cache_folder, configured_cache_folder
from backends.opencl.compiler.workers import Worker, builds_apart, workers
from backends.opencl.device import icd
from backends.opencl.device.device import Device, cpu_flags
from graphcore.base.errors import CompileError, OutOfMemoryError
from graphcore.base.terminal import Waiting

__all__ = [
    "BuildStats",
    "CacheInfo",
    "build_count",
    "build_program",
    "build_programs",
    "build_stats",
    "cache_info",
    "clear_cache",
    "flush_cache",
    "prune_cache",
]

# Raise it when the meaning of a cached binary changes though its source text does not.
CODEGEN_VERSION = 2
DISK_LIMIT = 512 << 20
_MEMORY_LIMIT = 8  # programs that nobody uses
_MAGIC = b"GCKERN01"
_HEADER = len(_MAGIC) + 2 * hashlib.sha256().digest_size
_SUFFIX = ".gck"
_UNUSABLE = b"PoCL cannot read what it made of this source"
_STALE_TEMPORARY = 3600.0  # seconds: older temporary files were left by killed processes


# --- statistics ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildStats:
    """What `build_program` has done in this process.

    Attributes:
        compiled: Programs compiled from source.
        from_disk: Programs made from a cached binary.
        from_memory: Programs that were there already.
        rejected: Disk entries found damaged, stale or refused by the driver.
        seconds: Time spent compiling from source.
        apart: How many of the compiled programs a process of their own has compiled.
    """

    compiled: int = 0
    from_disk: int = 0
    from_memory: int = 0
    rejected: int = 0
    seconds: float = 0.0
    apart: int = 0


class _Programs:
    """The programs of this process and the counters; one lock guards both.

    All that somebody uses are known, and of all the last ones, least recently used first, are kept.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.programs: OrderedDict[tuple[int, bytes], Any] = OrderedDict()
        self.used: weakref.WeakValueDictionary[tuple[int, bytes], Any] = weakref.WeakValueDictionary()
        self.building: dict[tuple[int, bytes], threading.Lock] = {}
        self.stats = BuildStats()
        self.warned = False
        self.pruned = False

    def count(self, **changes: float) -> None:
        with self.lock:
            values = {name: getattr(self.stats, name) + change for name, change in changes.items()}
            self.stats = BuildStats(**{**self.stats.__dict__, **values})

    def find(self, key: tuple[int, bytes]) -> Any:
        with self.lock:
            program = self.used.get(key)
            if program is not None:
                self._keep(key, program)
            return program

    def keep(self, key: tuple[int, bytes], program: Any) -> None:
        with self.lock:
            self.used[key] = program
            self._keep(key, program)

    def _keep(self, key: tuple[int, bytes], program: Any) -> None:
        self.programs[key] = program
        self.programs.move_to_end(key)
        while len(self.programs) > _MEMORY_LIMIT:
            self.programs.popitem(last=False)

    def first(self, flag: str) -> bool:
        """Return whether this is the first call for a flag, "warned" or "pruned"."""
        with self.lock:
            seen: bool = getattr(self, flag)
            setattr(self, flag, True)
            return not seen


_state = _Programs()


def build_stats() -> BuildStats:
    """Return the counters of this process."""
    return _state.stats


def build_count() -> int:
    """Return how many programs this process has compiled from source."""
    return _state.stats.compiled


# --- building --------------------------------------------------------------------------------------------------------


def build_program(
    device: Device, source: str, options: tuple[str, ...] = (), origins: str = "", functions: int = 1
) -> Any:
    """Return the built program of a source text: from memory, else from the cache on disk, else compiled.

    Make `cl.Kernel` objects of your own from it: the program is shared by all who ask for the same source.

    Args:
        device: Where it shall run.
        source: OpenCL C.
        options: Compiler options.
        origins: What the source was made from (graph nodes and user lines), for the error message.
        functions: How many functions it has, to tell the user what takes long.

    Returns:
        The `pyopencl.Program`.

    Raises:
        CompileError: The source does not compile; the message has the numbered source near the errors, the log and the
            origins.
        OutOfMemoryError: The compiler ran out of memory.
        DeviceError: The process was forked after the device was opened.
    """
    return build_programs(device, (source,), options, origins, (functions,))[0]


def build_programs(
    device: Device,
    sources: Sequence[str],
    options: tuple[str, ...] = (),
    origins: str = "",
    functions: Sequence[int] = (),
) -> list[Any]:
    """Return the built programs of several source texts: as `build_program`, but those that have to be compiled are
    compiled at once where that needs processes and the device's compiler allows it, the first of them in this one.
    """
    device.check_process()
    counts = dict.fromkeys(sources, 1) | dict(zip(sources, functions, strict=False))
    apart = len(sources) > 1 and builds_apart(device)
    missing = [s for s in counts if not apart or _program(device, s, options) is None]
    with (
        Waiting(_what([counts[s] for s in missing], apart)) as waiting,
        workers(device, options, missing[1:] if apart else ()) as elsewhere,
    ):

        def compiled(source: str, digest: bytes) -> Any:
            waiting.start()
            worker = elsewhere.get(source)
            program = _from_worker(device, worker, options, digest) if worker is not None else None
            if program is None:
                program = _from_source(device, source, options, origins, digest)
                if worker is not None:  # no fault of the source's
                    worker.warn()
            return program

        return [_program(device, source, options, compiled) for source in sources]


def _what(functions: Sequence[int], apart: bool) -> str:
    """What is being compiled, for the user."""
    what = f"compiling {sum(functions)} functions"
    return f"{what} in {len(functions)} processes" if apart and len(functions) > 1 else what


def _program(
    device: Device, source: str, options: tuple[str, ...], compiled: Callable[[str, bytes], Any] | None = None
) -> Any:
    """Return a program from memory, from disk, or from what compiles it; None where nothing does."""
    digest = _digest(device, source, options)
    key = (int(device.context.int_ptr), digest)
    program = _state.find(key)
    if program is None:
        with _state.lock:
            building = _state.building.setdefault(key, threading.Lock())
        with building:  # two threads that want the same program build it once
            program = _state.find(key)
            if program is None:
                program = _from_disk(device, source, options, digest)
                if program is None and compiled is not None:
                    program = compiled(source, digest)
                if program is not None:
                    _state.keep(key, program)
                    with _state.lock:
                        _state.building.pop(key, None)
                return program
    if compiled is not None:
        _state.count(from_memory=1)
    return program


def _digest(device: Device, source: str, options: tuple[str, ...]) -> bytes:
    info = device.info
    # A CPU's runtime that loads code for an older one goes on to compile for that, and refuses what is newer. The kind
    # does not say whose runtime it is: a CPU may stand in for a GPU.
    cpu = [os.environ.get("CL_CONFIG_CPU_TARGET_ARCH", ""), *sorted(cpu_flags())]
    parts = (str(CODEGEN_VERSION), source, *options, info.platform, info.name, info.version, info.driver, *cpu)
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little") + data)  # lengths keep ("ab", "c") and ("a", "bc") apart
    return hasher.digest()


def _build(raw: Any, options: tuple[str, ...], cl: Any) -> Any:
    """Build a `pyopencl._cl._Program` and return it as a `pyopencl.Program`.

    Not through `Program.build`: that keeps a cache of its own, which fails on damaged entries, and warns whenever a
    compiler says anything.
    """
    raw._build(options=" ".join(options).encode(), devices=None)
    return cl.Program(raw)


def _from_source(device: Device, source: str, options: tuple[str, ...], origins: str, digest: bytes) -> Any:
    cl = icd.load()
    begin = time.perf_counter()
    pocl = device.info.compiles_late and pocl_cache.is_active()
    before = pocl_cache.program_folders() if pocl else set()
    raw = cl._cl._Program(device.context, source)
    try:
        program = _build(raw, options, cl)
    except cl.MemoryError as error:
        raise OutOfMemoryError(f"the OpenCL compiler ran out of memory on {device.info.name}: {error}") from error
    except cl.Error as error:
        message = explain_failure(source, _build_log(raw, device, error, cl), origins, device, options)
        raise CompileError(message) from error
    _state.count(compiled=1, seconds=time.perf_counter() - begin)
    if pocl:
        _pocl.found(digest, pocl_cache.program_folders() - before)
    elif not device.info.compiles_late:
        _store_binary(program, digest, cl)
    return program


def _from_worker(device: Device, worker: Worker, options: tuple[str, ...], digest: bytes) -> Any:
    """Return the program that a process of its own compiled; None if it failed: then this process says why."""
    begin = time.perf_counter()
    binary = worker.binary()
    cl = icd.load()
    if binary is None:
        return None
    try:
        program = _build(cl._cl._Program(device.context, [device.handle], [binary]), options, cl)
    except cl.Error:
        return None
    _state.count(compiled=1, apart=1, seconds=time.perf_counter() - begin)
    _store(binary, digest)
    return program


def _build_log(program: Any, device: Device, error: Exception, cl: Any) -> str:
    try:
        log: str = program.get_build_info(device.handle, cl.program_build_info.LOG).strip()
    except cl.Error:
        log = ""
    return log or str(error)


# --- the cache on disk -----------------------------------------------------------------------------------------------


def _folder() -> Path:
    return cache_folder() / "kernels"


def _from_disk(device: Device, source: str, options: tuple[str, ...], digest: bytes) -> Any:
    """Return the program from its entry on disk, or None."""
    cl = icd.load()
    # A folder that came with an image may be read-only: its entries serve although new ones go elsewhere.
    for folder in dict.fromkeys((_folder(), configured_cache_folder() / "kernels")):
        path = folder / f"{digest.hex()}{_SUFFIX}"
        try:
            payload = _unpack(path.read_bytes(), digest)
            program = _from_payload(device, source, options, payload, digest)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, cl.Error) as error:
            _reject(path, error)
            continue
        with contextlib.suppress(OSError):
            os.utime(path)  # pruning removes what was used longest ago
        _state.count(from_disk=1)
        return program
    return None


def _from_payload(device: Device, source: str, options: tuple[str, ...], payload: bytes, digest: bytes) -> Any:
    cl = icd.load()
    if not device.info.compiles_late:
        return _build(cl._cl._Program(device.context, [device.handle], [payload]), options, cl)
    if not pocl_cache.is_active():
        raise FileNotFoundError  # PoCL looks elsewhere, and keeps what it compiles there
    if payload == _UNUSABLE:
        _pocl.unusable.add(digest)
        raise FileNotFoundError  # to be compiled in every process
    folder = pocl_cache.unpack(payload)
    program = _build(cl._cl._Program(device.context, source), options, cl)
    if not program.get_info(cl.program_info.NUM_KERNELS):  # seen with PoCL 3.0: it does not find what it wrote itself
        pocl_cache.discard(folder)
        _pocl.unusable.add(digest)
        _store(_UNUSABLE, digest)
        raise ValueError("PoCL finds no kernels in it")
    _pocl.remember(digest, folder, len(payload))
    return program


def _unpack(data: bytes, digest: bytes) -> bytes:
    """Return the payload of an entry; ValueError says what is wrong with it."""
    if len(data) <= _HEADER or not data.startswith(_MAGIC):
        raise ValueError("no kernel cache entry, or a truncated one")
    key, checksum = data[len(_MAGIC) : len(_MAGIC) + len(digest)], data[_HEADER - len(digest) : _HEADER]
    payload = data[_HEADER:]
    if key != digest:
        raise ValueError("it belongs to another kernel")
    if hashlib.sha256(payload).digest() != checksum:
        raise ValueError("its checksum does not match")
    return payload


def _pack(payload: bytes, digest: bytes) -> bytes:
    return _MAGIC + digest + hashlib.sha256(payload).digest() + payload


def _reject(path: Path, error: Exception) -> None:
    _state.count(rejected=1)
    if _state.first("warned"):
        warnings.warn(
            f"a kernel cache entry could not be used and is built again ({path}: {error}); said once per process",
            RuntimeWarning,
            stacklevel=5,
        )


def _store_binary(program: Any, digest: bytes, cl: Any) -> None:
    try:
        binaries = program.get_info(cl.program_info.BINARIES)
    except cl.Error:  # a driver without binaries
        return
    if len(binaries) == 1 and binaries[0]:
        _store(binaries[0], digest)


def _store(payload: bytes, digest: bytes) -> None:
    """Write an entry; a folder that takes no files (full, read-only) is no fault."""
    folder = _folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_pack(payload, digest))
            os.replace(temporary, folder / f"{digest.hex()}{_SUFFIX}")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if _state.first("pruned"):  # once per process: the scan is not free, and one process adds little
            prune_cache()


class _PoclPrograms:
    """Which of PoCL's folders belongs to which entry, and the entry's size on disk; guarded by the lock of `_state`."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[str, int]] = {}
        self.unusable: set[bytes] = set()  # what PoCL cannot read again
        self.pid = 0

    def remember(self, digest: bytes, folder: str, size: int) -> None:
        with _state.lock:
            self.entries[digest] = (folder, size)
            if self.pid != os.getpid():
                self.pid = os.getpid()
                atexit.register(flush_cache)

    def found(self, digest: bytes, folders: set[str]) -> None:
        # Two new folders mean that other threads compiled meanwhile: which is whose is unknown, and neither is kept.
        if len(folders) == 1 and digest not in self.unusable:
            self.remember(digest, folders.pop(), 0)


_pocl = _PoclPrograms()


def flush_cache() -> None:
    """Keep on disk what PoCL has compiled. It does so at first launches: call this after them. Also done at exit."""
    with _state.lock:
        if _pocl.pid != os.getpid():
            return
        entries = dict(_pocl.entries)
    for digest, (folder, size) in entries.items():
        with contextlib.suppress(OSError):
            payload = pocl_cache.pack(folder)
            if len(payload) > size:
                _store(payload, digest)
                _pocl.remember(digest, folder, len(payload))


@dataclass(frozen=True)
class CacheInfo:
    """What lies in the cache folder: `entries` kernels, `bytes` bytes in all."""

    folder: Path
    entries: int
    bytes: int


def _scan() -> list[tuple[float, int, Path]]:
    """Return (time of last use in seconds, size in bytes, path) of the files in the kernel folder."""
    found: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError), os.scandir(_folder()) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # others may delete at the same time
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, status.st_size, Path(entry.path)))
    return found


def cache_info() -> CacheInfo:
    """Return the cache folder and what it holds."""
    entries = [size for _, size, path in _scan() if path.suffix == _SUFFIX]
    return CacheInfo(cache_folder(), len(entries), sum(entries))


def clear_cache() -> int:
    """Delete the cached kernels and what killed processes left behind; return how many bytes the kernels took."""
    pocl_cache.remove_abandoned()
    return prune_cache(limit=0)


def prune_cache(limit: int = DISK_LIMIT) -> int:
    """Delete the kernels that were not used for longest until at most `limit` bytes are left.

    Returns:
        How many bytes that freed.
    """
    freed = 0
    now = time.time()
    kept: list[tuple[float, int, Path]] = []
    doomed: list[tuple[float, int, Path]] = []
    for item in _scan():
        if item[2].suffix == _SUFFIX:
            kept.append(item)
        elif now - item[0] > _STALE_TEMPORARY:
            doomed.append(item)
    excess = sum(size for _, size, _ in kept) - limit
    for item in sorted(kept):
        if excess <= 0:
            break
        doomed.append(item)
        excess -= item[1]
    for _, size, path in doomed:
        with contextlib.suppress(OSError):
            path.unlink()
            freed += size
    return freed
