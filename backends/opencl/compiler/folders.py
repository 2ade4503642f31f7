"""The folder of graphcore's caches, and what to do where it cannot be written."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import platformdirs

__all__ = ["cache_folder", "configured_cache_folder"]


def configured_cache_folder() -> Path:
    """Return the folder that the user or the platform names for caches, whether it can be written or not."""
    chosen = os.environ.get("GRAPHCORE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("graphcore"))


def cache_folder() -> Path:
    """Return a folder that can be written for graphcore's caches.

    It is the environment variable GRAPHCORE_CACHE, or else the user's cache folder. Where that cannot be written, a
    private temporary folder takes its place until this process ends, with one warning.

    Returns:
        The existing folder.
    """
    return _writable(configured_cache_folder())


@functools.lru_cache(maxsize=16)
def _writable(wanted: Path) -> Path:
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        # Permission bits lie for root, on network mounts and on read-only file systems: only writing tells.
        with tempfile.TemporaryFile(dir=wanted):
            pass
    except OSError as error:
        # A guessable name in a shared folder would let others plant kernels there: mkdtemp is private to this user.
        folder = Path(tempfile.mkdtemp(prefix="graphcore-"))
        atexit.register(_remove_if_owner, folder, os.getpid())
        warnings.warn(
            f"graphcore cannot write its cache folder {wanted} ({error.strerror or error}); kernels are kept in "
            f"{folder} until this process ends. Set GRAPHCORE_CACHE to a folder that can be written.",
            RuntimeWarning,
            stacklevel=3,
        )
        return folder
    return wanted


def _remove_if_owner(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child inherits the exit handler, not the folder
        shutil.rmtree(folder, ignore_errors=True)
