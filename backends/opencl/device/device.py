"""OpenCL devices: what they can do, how to choose one, and the open device with its context and queue."""

from __future__ import annotations

import functools
import os
import re
import threading
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.opencl.device import icd
from graphcore.base.errors import DeviceError
from graphcore.base.process import PROCESS

__all__ = ["Device", "DeviceInfo", "cpu_flags", "is_meant", "list_devices", "open_device"]


@dataclass(frozen=True)
class DeviceInfo:
    """What an OpenCL device is and can do. Sizes are in bytes.

    Attributes:
        index: Position in `list_devices()`; it changes with what is installed, so prefer the vendor in device strings.
        platform: Name of the OpenCL platform.
        vendor: Short key: "intel", "pocl", "nvidia", "amd", "oclgrind", "apple", "arm", "qualcomm" or "other".
        name: Name of the device.
        version: The device's OpenCL version string.
        driver: The driver's version string.
        kind: "cpu", "gpu" or "other" (accelerators, emulators); the simulator Oclgrind counts as "cpu".
        compute_units: Cores or multiprocessors; for Oclgrind a number of our own.
        local_mem: Local memory of a work-group.
        global_mem: Device memory.
        max_alloc: Largest single buffer.
        max_work_group: Most work items in a group.
        extensions: Names of the OpenCL extensions.
        fp64: Whether doubles work.
        fp16: Whether arithmetic on halves works (halves can be stored on any device).
        vector_width: Floats in the explicit vectors that kernels for this device should use; the environment variable
            GRAPHCORE_VECTOR_WIDTH (4, 8 or 16) overrides it for all devices.
    """

    index: int
    platform: str
    vendor: str
    name: str
    version: str
    driver: str
    kind: str
    compute_units: int
    local_mem: int
    global_mem: int
    max_alloc: int
    max_work_group: int
    extensions: frozenset[str]
    fp64: bool
    fp16: bool
    vector_width: int

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    @property
    def is_gpu(self) -> bool:
        return self.kind == "gpu"

    @property
    def is_simulated(self) -> bool:
        """Whether it interprets kernels to find faults in them: Oclgrind does, which copies what it should use in place
        and tells what was never written only of memory that it owns.
        """
        return self.vendor == "oclgrind"

    @property
    def compiles_late(self) -> bool:
        """Whether kernels are compiled when they are first launched, so that a program's binary holds little: PoCL's
        own folder holds the code then.
        """
        return self.vendor == "pocl"

    @property
    def build_options(self) -> tuple[str, ...]:
        """What programs are built with: the language version that the compiler knows and the code needs."""
        if self.is_simulated:  # knows no generic pointers, and extends the optimiser's vectors of single bits wrongly
            return ("-cl-std=CL1.2", "-cl-opt-disable")
        if self.is_gpu:  # the one version that all GPUs' compilers know
            return ("-cl-std=CL1.2",)
        return () if self.compiles_late else ("-cl-std=CL2.0",)

    @property
    def spec(self) -> str:
        """The device string that opens this device."""
        return f"opencl:{self.index}"

    def lanes(self, itemsize: int) -> int:
        """Return the width of vectors whose widest elements have `itemsize` bytes.

        No vector may have more bytes than `vector_width` floats: PoCL hangs or aborts on wider ones where its LLVM does
        not know the CPU, with doubles and longs as with floats.
        """
        return max(1, min(self.vector_width, self.vector_width * 4 // itemsize))


@dataclass(eq=False)
class Device:
    """An open device: one context, shared by all who open the same device, and an in-order queue of its own.

    Attributes:
        info: What the device is.
        handle: The `pyopencl.Device`.
        context: The `pyopencl.Context`.
        queue: The in-order `pyopencl.CommandQueue`.
        forks: How many forks made the process that opened it; OpenCL objects do not survive one.
    """

    info: DeviceInfo
    handle: Any
    context: Any
    queue: Any
    forks: int

    def check_process(self) -> None:
        """Raise DeviceError in a forked child, where touching OpenCL would hang."""
        if PROCESS.forks != self.forks:
            raise DeviceError(_FORKED)


_FORKED = (
    "OpenCL was used before this process was forked, and its runtimes hang in a forked child: start workers with "
    'multiprocessing.get_context("spawn"), or use OpenCL only after the fork'
)
_VENDORS = (
    # (key, what platform name and vendor contain); the first hit counts.
    ("pocl", ("portable computing language", "pocl")),
    ("oclgrind", ("oclgrind",)),
    ("nvidia", ("nvidia",)),
    ("intel", ("intel",)),
    ("amd", ("amd", "advanced micro devices")),
    ("apple", ("apple",)),
    ("arm", ("arm",)),
    ("qualcomm", ("qualcomm",)),
)

# LLVM's names of CPUs with AVX-512. PoCL takes the CPU's name from LLVM but its library by the CPU's flags.
# An LLVM older than the CPU calls it by an AVX2 name, and then aborts or hangs on float16, which does not fit the
# registers that it believes in. So the name decides, not the flags.
_AVX512_NAMES = (
    (
        "skylake-avx512",
        "skx",
        "cascadelake",
        "cooperlake",
        "cannonlake",
        "icelake-client",
        "icelake-server",
        "tigerlake",
    )
    + ("rocketlake", "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d", "diamondrapids")
    + ("znver4", "znver5", "x86-64-v4")
)
_AVX2_NAMES = (
    (
        "haswell",
        "broadwell",
        "skylake",
        "core-avx2",
        "alderlake",
        "raptorlake",
        "meteorlake",
        "arrowlake",
        "arrowlake-s",
    )
    + ("lunarlake", "pantherlake", "sierraforest", "grandridge", "gracemont", "clearwaterforest")
    + ("bdver4", "znver1", "znver2", "znver3", "x86-64-v3")
)

# Sets the floats of explicit vectors (4, 8 or 16), whatever the device prefers: for tests of generated code in
# Oclgrind.
_WIDTH_VARIABLE = "GRAPHCORE_VECTOR_WIDTH"
_WIDTHS = (4, 8, 16)
# Oclgrind says that it has one compute unit; plans are divided for more, or there would be no races to find.
_SIMULATED_UNITS = 4

_lock = threading.Lock()
_contexts: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


# --- listing ---------------------------------------------------------------------------------------------------------


def list_devices() -> list[DeviceInfo]:
    """List the OpenCL devices of this machine.

    Returns:
        One entry per device, in the order of the platforms; empty if no runtime is installed.

    Raises:
        DeviceError: pyopencl is missing, or the process was forked after it used OpenCL.
    """
    return [info for info, _ in _enumerate()]


def _enumerate() -> list[tuple[DeviceInfo, Any]]:
    _refuse_fork()
    cl = icd.load()
    try:
        platforms = cl.get_platforms()
    except cl.Error:  # the loader's way to say that there is none
        return []
    handles = []
    for platform in platforms:
        try:
            handles += [(platform, handle) for handle in platform.get_devices()]
        except cl.Error:  # a platform without devices, or one whose driver does not work here
            continue
    found: list[tuple[DeviceInfo, Any]] = []
    for platform, handle in handles:
        try:
            found.append((_describe(len(found), platform, handle, cl), handle))
        except cl.Error:  # a device that cannot even describe itself is of no use
            continue
    return found


@functools.lru_cache(maxsize=1)
def _first_user() -> int:
    return PROCESS.forks


def _refuse_fork() -> None:
    if _first_user() != PROCESS.forks:
        raise DeviceError(_FORKED)


def _describe(index: int, platform: Any, handle: Any, cl: Any) -> DeviceInfo:
    vendor = _vendor_key(platform.name, platform.vendor)
    extensions = frozenset(handle.extensions.split())
    kind = "cpu" if vendor == "oclgrind" else _kind(handle, cl)  # it claims to be every type at once
    return DeviceInfo(
        index=index,
        platform=platform.name.strip(),
        vendor=vendor,
        name=handle.name.strip(),
        version=handle.version.strip(),
        driver=handle.driver_version.strip(),
        kind=kind,
        compute_units=_SIMULATED_UNITS if vendor == "oclgrind" else handle.max_compute_units,
        local_mem=handle.local_mem_size,
        global_mem=handle.global_mem_size,
        max_alloc=handle.max_mem_alloc_size,
        max_work_group=handle.max_work_group_size,
        extensions=extensions,
        fp64="cl_khr_fp64" in extensions,
        fp16="cl_khr_fp16" in extensions,
        vector_width=_vector_width(vendor, kind, handle.version, cpu_flags()),
    )


def _kind(handle: Any, cl: Any) -> str:
    if handle.type & cl.device_type.GPU:
        return "gpu"
    if handle.type & cl.device_type.CPU:
        return "cpu"
    return "other"


def _vendor_key(platform: str, vendor: str) -> str:
    text = f"{platform} {vendor}".lower()
    return next((key for key, words in _VENDORS if any(re.search(rf"\b{word}\b", text) for word in words)), "other")


@functools.lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Return the feature flags of this machine's CPU, in Linux' spelling; empty where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line.group(1).split()) if line else frozenset()


def _vector_width(vendor: str, kind: str, version: str, flags: frozenset[str]) -> int:
    """Return the width of explicit float vectors.

    Args:
        vendor: The key in `DeviceInfo.vendor`.
        kind: "cpu", "gpu" or "other".
        version: The device's version string; PoCL names its code generator's CPU at the end of it.
        flags: The CPU's feature flags.

    Returns:
        4, 8 or 16; what the environment variable GRAPHCORE_VECTOR_WIDTH says, if it is set.

    Raises:
        DeviceError: The variable is set to anything else.
    """
    wanted = os.environ.get(_WIDTH_VARIABLE)
    if wanted:
        if wanted not in map(str, _WIDTHS):
            raise DeviceError(f"{_WIDTH_VARIABLE} is {wanted!r}; it must be 4, 8 or 16, or not set")
        return int(wanted)
    if kind != "cpu":
        return 4
    if vendor == "intel":
        return 16 if "avx512f" in flags else 8
    if vendor == "pocl":
        triple = re.search(r"HSTR:\s*(\S+)", version)
        target = triple.group(1) if triple else ""
        if any(target.endswith(f"-{name}") for name in _AVX512_NAMES):
            return 16
        return 8 if any(target.endswith(f"-{name}") for name in _AVX2_NAMES) else 4
    return 4


# --- choosing and opening --------------------------------------------------------------------------------------------


def open_device(spec: str = "auto", *, profiling: bool = False) -> Device:
    """Open a device.

    Args:
        spec: "auto" or "opencl" (GPUs first, then Intel's CPU runtime, then PoCL), "opencl:<index>", "opencl:<vendor>"
            ("intel", "pocl", "nvidia", ...), "opencl:cpu" or "opencl:gpu"; more words narrow down: "opencl:intel:gpu".
        profiling: Whether the queue records the times of its commands.

    Returns:
        The device, with a new queue; opening a device twice gives the same context, so programs are shared.

    Raises:
        DeviceError: There is no such device (the message lists what there is), or it does not open.
    """
    info, handle = _choose(spec, _enumerate())
    cl = icd.load()
    properties = cl.command_queue_properties.PROFILING_ENABLE if profiling else 0
    try:
        with _lock:
            context = _contexts.get(handle.int_ptr)
            if context is None:
                context = _contexts[handle.int_ptr] = cl.Context([handle])
        queue = cl.CommandQueue(context, handle, properties=properties)
    except cl.Error as error:
        raise DeviceError(f"device {info.spec} ({info.name}, {info.platform}) does not open: {error}") from error
    if info.vendor == "nvidia" and not info.fp16:  # often not announced, yet there
        info = replace(info, fp16=_compiles_half(cl, context))
    return Device(info, handle, context, queue, PROCESS.forks)


def is_meant(spec: str, info: DeviceInfo) -> bool:
    """Return whether a device string may mean a device.

    Raises:
        DeviceError: It means none that is there (the message lists what there is).
    """
    if all(_matches(info, word) for word in spec.strip().lower().split(":")[1:]):
        return True
    _choose(spec, _enumerate())
    return False


def _choose(spec: str, devices: list[tuple[DeviceInfo, Any]]) -> tuple[DeviceInfo, Any]:
    backend, *words = spec.strip().lower().split(":")
    if backend not in ("opencl", "auto") or (backend == "auto" and words) or "" in words:
        raise DeviceError(
            f'"{spec}" is no OpenCL device string: write "opencl" or "opencl:<index, vendor, cpu or gpu>"'
        )
    if not devices:
        raise DeviceError(f'device "{spec}": no OpenCL device was found; {icd.INSTALL_HINT}')
    chosen = [device for device in devices if all(_matches(device[0], word) for word in words)]
    if not chosen:
        known = "\n".join(f"  opencl:{i.index}  {i.vendor} {i.kind}: {i.name} ({i.platform})" for i, _ in devices)
        raise DeviceError(f'there is no OpenCL device "{spec}"; there are:\n{known}')
    return min(chosen, key=lambda device: _preference(device[0]))


def _matches(info: DeviceInfo, word: str) -> bool:
    if word.isdecimal():
        return info.index == int(word)
    return word in (info.vendor, info.kind)


def _preference(info: DeviceInfo) -> tuple[int, int]:
    """Order devices: real GPUs, Intel's CPU runtime, PoCL, any other CPU, then emulators and simulators."""
    if info.vendor == "oclgrind":
        rank = 5
    elif info.is_gpu:
        rank = 0
    elif info.is_cpu:
        rank = {"intel": 1, "pocl": 2}.get(info.vendor, 3)
    else:
        rank = 4
    return rank, info.index


def _compiles_half(cl: Any, context: Any) -> bool:
    source = (
        "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
        "__kernel void probe(__global half *x) { x[0] = x[0] * x[1] + (half)1.0f; }\n"
    )
    try:
        cl._cl._Program(context, source)._build(options=b"", devices=None)
    except cl.Error:
        return False
    return True
