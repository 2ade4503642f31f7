"""Checkpoints: named arrays and text metadata in one safetensors file, written so that a crash cannot lose the old one.

A save goes to a temporary file beside the target, is flushed to the disk, and then takes the target's name in one step.
Whoever looks at the target, at any moment and after any failure, sees the complete old file or the complete new one.

The reader is that of the safetensors library. The writer is not: the library's goes through a temporary file of its
own, which stays behind after a kill (its name says nothing of its owner), is private to the user, and is not flushed to
the disk. The library's reader checks each file that is written here, before it takes its name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from graphcore.base.errors import DTypeError, FormatError, UsageError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be unlinked and so needs no lock
    fcntl = None  # type: ignore[assignment]

__all__ = ["load_arrays", "save_arrays"]

_CODES: dict[np.dtype, str] = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.int8): "I8",
    np.dtype(np.int16): "I16",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
    np.dtype(np.uint8): "U8",
    np.dtype(np.uint16): "U16",
    np.dtype(np.uint32): "U32",
    np.dtype(np.uint64): "U64",
    np.dtype(np.float16): "F16",
    np.dtype(np.float32): "F32",
    np.dtype(np.float64): "F64",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.complex64): "C64",
}
_READABLE = frozenset(_CODES.values())

# Parsing a header takes some 20 times its size. 16 MiB describe more than 150,000 arrays and parse in about a second.
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_NDIM = 64
_WRITE_BYTES = 64 * 2**20
_METADATA_KEY = "__metadata__"


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to one safetensors file, atomically and durably.

    The arrays are written from where they lie (copied one at a time if not contiguous): do not change them meanwhile.
    A symbolic link is followed. Leftovers of saves to the same target that were killed are removed.

    Args:
        path: The target; its folder must exist.
        arrays: Name to array of any shape; bool, (u)int8 to (u)int64, float16, bfloat16, float32, float64 or complex64.
        metadata: Text to keep beside the arrays, str to str.

    Raises:
        DTypeError: An array has a dtype that the format or NumPy cannot hold.
        UsageError: A name or a metadata entry is not text, or is reserved.
        OSError: The file could not be written. The target then holds the old file, or, only if the very last step
            (flushing the folder) failed, the complete new one.

    Example:
        >>> save_arrays("model.safetensors", {"w": np.zeros((3, 4), np.float32)}, {"step": "100"})
        >>> arrays, metadata = load_arrays("model.safetensors")
    """
    values = {name: _checked_array(name, value) for name, value in arrays.items()}
    # Large items first, as the library does it: every array then starts at a multiple of its item size.
    names = sorted(values, key=lambda name: (-values[name].dtype.itemsize, name))
    header = _encode_header(values, names, metadata or {})
    target = Path(os.path.realpath(path))
    old_mode = _replaceable_mode(target)
    try:
        _remove_stale(target)
        with _temporary(target, old_mode) as (file, temporary):
            _write_all(file.fileno(), memoryview(header))
            for name in names:
                _write_all(file.fileno(), _raw_bytes(values[name]))
            os.fsync(file.fileno())
            _check_readable(temporary)
            if fcntl is None:
                file.close()  # Windows does not rename an open file
            os.replace(temporary, target)
        _fsync_folder(target.parent)
    except OSError as error:
        error.add_note(f"while saving {len(names)} arrays to {target}; no partial file was left there")
        raise


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file.

    Nothing in the file is ever executed. A damaged or hostile file is refused within seconds, in memory bounded by its
    size and a few hundred megabytes. The format has no checksum: changed bits inside an array's data go unnoticed.

    Args:
        path: The file.

    Returns:
        The arrays (fresh, writable, C-contiguous) by name, and the metadata (empty if the file has none).

    Raises:
        FormatError: The file is truncated, malformed, not a regular file, or has a dtype that NumPy lacks.
        OSError: The file is missing or cannot be read.

    Example:
        >>> arrays, metadata = load_arrays("model.safetensors")
        >>> arrays["w"].shape
    """
    name = os.fspath(path)
    _check_size(name)
    try:
        # Reading, not mapping: if someone cuts the file short meanwhile, a mapping would end the process with SIGBUS.
        with safe_open(name, framework="np", backend="pread") as file:
            arrays = {key: _read_array(file, name, key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            return arrays, dict(file.metadata() or {})
    except (SafetensorError, UnicodeError) as error:
        raise FormatError(f"{name}: not a valid safetensors file: {_reason(error)}") from error


# --- writing ----------------------------------------------------------------------------------------------------------


def _checked_array(name: str, value: np.ndarray) -> np.ndarray:
    if not isinstance(name, str) or name == _METADATA_KEY:
        raise UsageError(f"the name of an array must be a string other than {_METADATA_KEY!r}, got {name!r}")
    array = np.asarray(value)
    if array.dtype.newbyteorder("=") not in _CODES:
        known = ", ".join(str(dtype) for dtype in _CODES)
        raise DTypeError(f"array {name!r} has dtype {array.dtype}, which a checkpoint cannot hold; use one of {known}")
    return array


def _encode_header(values: Mapping[str, np.ndarray], names: list[str], metadata: Mapping[str, str]) -> bytes:
    """The length, the JSON description of all arrays, and spaces up to a multiple of 8."""
    header: dict[str, object] = {}
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise UsageError(f"metadata must map strings to strings, got {key!r}: {text!r}")
    if metadata:
        header[_METADATA_KEY] = dict(metadata)
    start = 0
    for name in names:
        array = values[name]
        code = _CODES[array.dtype.newbyteorder("=")]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    try:
        text_bytes = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"names and metadata of a checkpoint must be valid Unicode: {error}") from error
    text_bytes += b" " * (-len(text_bytes) % 8)
    if len(text_bytes) > _MAX_HEADER_BYTES:
        raise UsageError(
            f"names and metadata of a checkpoint take {len(text_bytes)} bytes, over the limit of {_MAX_HEADER_BYTES}"
        )
    return struct.pack("<Q", len(text_bytes)) + text_bytes


def _raw_bytes(array: np.ndarray) -> memoryview:
    """The array's data, row-major and little-endian; a view where the array is so already."""
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _write_all(descriptor: int, data: memoryview) -> None:
    # One write may take less than it was given (at most 2 GiB on Linux); bounded pieces let Ctrl-C through.
    offset = 0
    while offset < len(data):
        offset += os.write(descriptor, data[offset : offset + _WRITE_BYTES])


def _check_readable(temporary: Path) -> None:
    try:
        with safe_open(temporary, framework="np"):
            pass  # opening parses the header and compares it with the file's length
    except SafetensorError as error:
        raise OSError(errno.EIO, f"the file cannot be read back: {error}", str(temporary)) from error


def _replaceable_mode(target: Path) -> int | None:
    """The permission bits of the file to be replaced, None if there is none; refuses devices, pipes and folders."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a checkpoint can replace only a regular file", str(target))
    return stat.S_IMODE(status.st_mode)


@contextlib.contextmanager
def _temporary(target: Path, mode: int | None) -> Iterator[tuple[BinaryIO, Path]]:
    """A new locked file beside the target, open for writing; gone at the end unless it was renamed."""
    descriptor, temporary = _create_locked(target)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        try:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            yield file, temporary
        except BaseException:
            if fcntl is None:
                file.close()  # nor does Windows unlink one
            _unlink_quietly(temporary)
            raise


def _create_locked(target: Path) -> tuple[int, Path]:
    """The lock marks the file as in use; the kernel drops it when the process dies, however it dies."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if fcntl is None:
                return descriptor, temporary
            with contextlib.suppress(OSError):  # a file system without locks: only the clean-up is lost
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor, temporary
        except BaseException:
            os.close(descriptor)
            _unlink_quietly(temporary)
            raise
        os.close(descriptor)  # another save took it for a leftover, between its creation and its lock: try anew


def _remove_stale(target: Path) -> None:
    """Remove the temporary files of saves to this target whose process is gone."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.tmp")
    with os.scandir(target.parent) as entries:
        leftovers = [entry.path for entry in entries if pattern.fullmatch(entry.name)]
    for leftover in leftovers:
        # Any failure means that someone still writes it, has just removed or renamed it, or that it is not ours.
        with contextlib.suppress(OSError):
            if fcntl is None:
                os.unlink(leftover)
            else:
                _unlink_if_unlocked(leftover)


def _unlink_if_unlocked(leftover: str) -> None:
    descriptor = os.open(leftover, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # If it was renamed to the target between opening and locking, the name is gone and unlink fails, as it should.
        os.unlink(leftover)
    finally:
        os.close(descriptor)


def _unlink_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _fsync_folder(folder: Path) -> None:
    """Make the rename durable."""
    if os.name == "nt":
        return  # a folder cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, and need not
            raise
    finally:
        os.close(descriptor)


# --- reading ----------------------------------------------------------------------------------------------------------


def _check_size(name: str) -> None:
    """Refuse what the library would choke on: pipes, and headers that are longer than the file or absurdly long."""
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{name}: not a regular file")
    with open(name, "rb") as file:
        prefix = file.read(8)
    if len(prefix) < 8:
        raise FormatError(f"{name}: truncated: {len(prefix)} bytes, and the length of the header alone takes 8")
    (length,) = struct.unpack("<Q", prefix)
    if length > status.st_size - 8:
        raise FormatError(
            f"{name}: truncated or not a safetensors file: the header should have {length} bytes, "
            f"the file has {status.st_size - 8} after the first 8"
        )
    if length > _MAX_HEADER_BYTES:
        raise FormatError(f"{name}: the header has {length} bytes, over the limit of {_MAX_HEADER_BYTES}")


def _read_array(file: safe_open, name: str, key: str) -> np.ndarray:
    description = file.get_slice(key)  # type: ignore[no-untyped-call]
    shape, code = description.get_shape(), description.get_dtype()
    if len(shape) > _MAX_NDIM:
        raise FormatError(f"{name}: array {key!r} has {len(shape)} dimensions, NumPy has at most {_MAX_NDIM}")
    if code not in _READABLE:
        raise FormatError(f"{name}: array {key!r} has dtype {code}, readable are {', '.join(sorted(_READABLE))}")
    try:
        array: np.ndarray = file.get_tensor(key)  # type: ignore[no-untyped-call]
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{name}: array {key!r} of shape {shape} cannot be an array: {error}") from error
    if code == "BOOL" and array.size and array.view(np.uint8).max() > 1:
        raise FormatError(f"{name}: boolean array {key!r} holds bytes other than 0 and 1")
    return array


def _reason(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 500 else text[:500] + "..."  # the library quotes names from the file at any length
