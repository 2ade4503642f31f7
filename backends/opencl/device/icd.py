"""Finds the installed OpenCL runtimes and hands out a pyopencl that sees all of them.

Runtimes that pip installs are not registered with the system: Intel's package names its library by a path of the
machine that packed it, PoCL wants a cache folder that it may write, and a container often has NVIDIA's library
without the file that announces it. `load` repairs that through environment variables, before the OpenCL loader first
looks at them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import site
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.opencl.compiler import pocl_cache
from backends.opencl.compiler.folders import cache_folder
from graphcore.base.errors import DeviceError
from graphcore.base.lazy import load_module

__all__ = ["INSTALL_HINT", "cache_folder", "environment_of_children", "load"]

INSTALL_HINT = (
    "install an OpenCL runtime for the CPU with `pip install graphcore[cpu]`; "
    "a GPU needs the OpenCL part of its vendor's driver; `graphcore doctor` shows what is missing"
)

# Prefix of a copy of each variable that we set: a child process can tell our choice, which it revises, from the user's.
_OURS = "GRAPHCORE_"
_INTEL_LIBRARY = "libintelocl.so"
# Intel's runtime opens these by bare name; the loader finds them only if they are already in the process.
_INTEL_HELPERS = ("libintlc.so.5", "libimf.so", "libsvml.so", "libirng.so")
_NVIDIA_LIBRARY = "libnvidia-opencl.so.1"
_SYSTEM_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/lib64",
)
_load_lock = threading.Lock()


# --- finding libraries -----------------------------------------------------------------------------------------------


def _library_folders() -> Iterator[Path]:
    """Yield the folders where pip puts the shared libraries of a wheel: next to each place where packages live."""
    seen: set[Path] = set()
    candidates = [Path(sys.prefix, "lib"), Path(site.getuserbase(), "lib")]
    for entry in sys.path:
        path = Path(entry)
        if path.name in ("site-packages", "dist-packages"):
            candidates.append(path.parent.parent)  # <prefix>/lib/pythonX.Y/site-packages
        candidates.append(path / "lib")  # pip install --target
    candidates.append(Path(sys.base_prefix, "lib"))
    for folder in candidates:
        if folder not in seen and folder.is_dir():
            seen.add(folder)
            yield folder


def _find_intel() -> Path | None:
    """Return the path of the Intel CPU runtime that pip installed, or None."""
    return next((f / _INTEL_LIBRARY for f in _library_folders() if (f / _INTEL_LIBRARY).is_file()), None)


def _find_nvidia() -> Path | None:
    """Return the path of NVIDIA's OpenCL driver if it lies in a usual library folder, or None."""
    folders = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f] + list(_SYSTEM_LIBRARY_FOLDERS)
    return next((Path(f, _NVIDIA_LIBRARY) for f in folders if Path(f, _NVIDIA_LIBRARY).is_file()), None)


def _preload(intel: Path) -> None:
    for name in _INTEL_HELPERS:
        helper = intel.with_name(name)
        if helper.is_file():
            # A helper that does not load leaves the runtime out of the device list; PoCL or a GPU may still do.
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(helper), mode=ctypes.RTLD_GLOBAL)


def _registered(folder: Path) -> dict[str, str]:
    """Return the usable .icd files of a folder: file name -> the library it names."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.icd")):
        try:
            library = path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if library and (not library.startswith("/") or Path(library).is_file()):
            found[path.name] = library
    return found


def _vendor_files() -> dict[str, str]:
    """Return what our .icd folder shall hold: file name -> library."""
    files: dict[str, str] = {}
    for folder in (Path("/etc/OpenCL/vendors"), Path(sys.prefix, "etc/OpenCL/vendors")):
        for name, library in _registered(folder).items():
            files.setdefault(name, library)
    intel = _find_intel()
    if intel is not None:
        # Two copies of one runtime in a process disturb each other; the one that pip installed beside us wins.
        files = {name: library for name, library in files.items() if Path(library).name != _INTEL_LIBRARY}
        files["graphcore-intel.icd"] = str(intel)
    if not any("nvidia" in library for library in files.values()):
        nvidia = _find_nvidia()
        if nvidia is not None:
            files["graphcore-nvidia.icd"] = str(nvidia)
    return files


# --- the private folder of .icd files --------------------------------------------------------------------------------


def _vendor_folder(files: dict[str, str]) -> Path:
    """Return a folder that holds exactly these .icd files; processes that want the same ones share it."""
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    parent = cache_folder() / "icd"
    folder = parent / digest
    if _holds(folder, files):
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=parent))
    for name, library in files.items():
        (fresh / name).write_text(library + "\n", encoding="utf-8")
    try:
        fresh.rename(folder)  # atomic; fails if another process was first, or if something damaged lies there
    except OSError:
        if not _holds(folder, files):
            return fresh
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _holds(folder: Path, files: dict[str, str]) -> bool:
    try:
        if {p.name for p in folder.iterdir()} != set(files):
            return False
        return all((folder / n).read_text(encoding="utf-8") == library + "\n" for n, library in files.items())
    except (OSError, UnicodeDecodeError):
        return False


def _prepare_environment() -> None:
    """Point the OpenCL loader, PoCL and pyopencl at what is installed; what the user has set stays."""
    # pyopencl's own compiler cache unpickles what it finds and fails on damaged entries; build.py keeps a safe one.
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
    if not _chosen_by_user("POCL_CACHE_DIR"):
        _choose("POCL_CACHE_DIR", str(pocl_cache.private_folder()))
    if not sys.platform.startswith("linux"):
        return
    intel = _find_intel()
    if intel is not None:
        _preload(intel)
    if not _chosen_by_user("OCL_ICD_VENDORS"):
        files = _vendor_files()
        _choose("OCL_ICD_VENDORS", str(_vendor_folder(files)) if files else None)


def _chosen_by_user(variable: str) -> bool:
    value = os.environ.get(variable)
    return bool(value) and value != os.environ.get(_OURS + variable)


def environment_of_children() -> dict[str, str]:
    """Return an environment in which a process sees the runtimes that this one sees, and makes no folders of its own.

    Without our marks it takes our choices for the user's.
    """
    marks = {_OURS + name for name in ("POCL_CACHE_DIR", "OCL_ICD_VENDORS")}
    return {name: value for name, value in os.environ.items() if name not in marks}


def _choose(variable: str, value: str | None) -> None:
    for name in (variable, _OURS + variable):
        if value is None:
            os.environ.pop(name, None)  # inherited from a parent process that had other packages
        else:
            os.environ[name] = value


@functools.lru_cache(maxsize=1)
def _load_once(pid: int) -> Any:  # a forked child needs a folder of its own for PoCL
    try:
        _prepare_environment()
    except OSError as error:
        message = f"cannot prepare the OpenCL runtimes: {error}; set GRAPHCORE_CACHE to a folder that can be written"
        raise DeviceError(message) from error
    try:
        # The reason for this module: nothing may import pyopencl before the environment is ready.
        return load_module("pyopencl")
    except ImportError as error:
        raise DeviceError(f"pyopencl cannot be imported ({error}): {INSTALL_HINT}") from error


def load() -> Any:
    """Return the pyopencl module, with every installed OpenCL runtime made visible to it.

    Safe to call from several threads and processes, and after the user has imported pyopencl: the loader reads its
    environment when it is first asked for platforms, so what is not too late still takes effect.

    Returns:
        The module.

    Raises:
        DeviceError: pyopencl is not installed or does not load.
    """
    with _load_lock:
        return _load_once(os.getpid())
