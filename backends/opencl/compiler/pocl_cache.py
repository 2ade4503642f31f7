"""Keeps what PoCL compiles, without trusting PoCL's cache folder between processes.

PoCL finishes compiling at the first launch of a kernel and keeps the result in its cache folder, unchecked: one
truncated file there aborts the process. So each process gives PoCL a private folder, and what PoCL left in it for a
program becomes the payload of a checksummed entry of our own cache, unpacked before the same program is built again.
(A program's official binary does not contain what the first launch compiles, and took six times as long to make as
the program, measured with PoCL 3.0.)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import IO

from backends.opencl.compiler.folders import cache_folder

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["discard", "is_active", "pack", "private_folder", "program_folders", "remove_abandoned", "unpack"]

_LOCK_FILE = "graphcore.lock"


def private_folder() -> Path:
    """Return this process' own folder for PoCL's compiler; it is removed when the process ends."""
    return _private_folder(os.getpid())


def is_active() -> bool:
    """Return whether PoCL was given the private folder; not if the user has chosen another."""
    return os.environ.get("POCL_CACHE_DIR") == str(private_folder())


@functools.lru_cache(maxsize=1)
def _private_folder(pid: int) -> Path:
    parent = cache_folder() / "pocl"  # not the temporary folder: PoCL loads code from here, and /tmp may forbid that
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    lock = (folder / _LOCK_FILE).open("wb")
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    atexit.register(_remove, folder, lock, pid)
    return folder


def _remove(folder: Path, lock: IO[bytes], pid: int) -> None:
    if os.getpid() == pid:  # a forked child inherits the exit handler, not the folder
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of processes that were killed: those whose lock can be taken."""
    if fcntl is None:
        return
    for folder in (cache_folder() / "pocl").glob("run-*"):
        # No lock file yet: its process is just starting.
        with contextlib.suppress(OSError), (folder / _LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def program_folders() -> set[str]:
    """Return the folders of the programs that PoCL has compiled in this process, relative to the private folder."""
    root = private_folder()
    return {path.relative_to(root).as_posix() for path in root.glob("??/*") if path.is_dir()}


def pack(program: str) -> bytes:
    """Return the finished files of a program's folder as one archive; empty if there are none.

    Args:
        program: The folder, relative to the private folder.
    """
    root = private_folder()
    buffer = io.BytesIO()
    count = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted((root / program).rglob("*")):
            if path.is_file() and not path.name.startswith("tempfile"):
                archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes())
                count += 1
    return buffer.getvalue() if count else b""


def unpack(payload: bytes) -> str:
    """Put an archive's files where PoCL will look for them.

    Returns:
        The program's folder, relative to the private folder.

    Raises:
        ValueError: It is no such archive, or it names files elsewhere.
        OSError: The files cannot be written.
    """
    root = private_folder()
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            names = archive.namelist()
            programs = {"/".join(name.split("/")[:2]) for name in names}
            if len(programs) != 1 or any(part in ("", ".", "..") for name in names for part in name.split("/")):
                raise ValueError("it is not one program of PoCL's")
            program = programs.pop()
            if not (root / program).exists():
                _extract(archive, root, program)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    return program


def discard(program: str) -> None:
    """Remove a program's folder, so that PoCL compiles it again."""
    shutil.rmtree(private_folder() / program, ignore_errors=True)


def _extract(archive: zipfile.ZipFile, root: Path, program: str) -> None:
    # Extracted aside and renamed: PoCL, running in another thread, must not see half of it.
    with tempfile.TemporaryDirectory(dir=root) as aside:
        archive.extractall(aside)
        (root / program).parent.mkdir(exist_ok=True)
        os.rename(Path(aside, program), root / program)
