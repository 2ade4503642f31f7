"""The command line: `graphcore doctor`, `devices`, `cache` and `dump`."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from graphcore.base.errors import GraphcoreError, UsageError
from graphcore.plan.backend import backend_module
from graphcore.version import __version__

__all__ = ["main"]

_PACKAGES = (
    # (name, whether graphcore needs it, what it is for)
    ("numpy", True, "arrays"),
    ("platformdirs", True, "where caches go"),
    ("pyopencl", False, "OpenCL from Python"),
    ("intel-opencl-rt", False, "OpenCL on x86 CPUs, the faster runtime"),
    ("intel-cmplr-lib-rt", False, "libraries that Intel's runtime needs"),
    ("pocl-binary-distribution", False, "OpenCL on CPUs, the smaller runtime"),
)
_STAGES = ("built", "simplified", "fused", "plan")
# Runs in a process of its own: a broken driver hangs or takes its process along.
_LIST = """
import dataclasses, json
from backends.opencl.device.device import list_devices
print(json.dumps([dataclasses.asdict(d) | {"extensions": sorted(d.extensions)} for d in list_devices()]))
"""
_TRY = """
import json, sys, time
import numpy as np
from backends.opencl.device import icd
from backends.opencl.compiler.build import build_program, build_stats
from backends.opencl.device.device import open_device
cl = icd.load()
device = open_device(sys.argv[1])
source = "__kernel void add_one(__global float *x) { int i = get_global_id(0); x[i] = x[i] + 1.0f; }"
begin = time.perf_counter()
kernel = cl.Kernel(build_program(device, source), "add_one")
data = np.arange(4096, dtype=np.float32)
buffer = cl.Buffer(device.context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=data)
kernel.set_args(buffer)
def launch():
    cl.enqueue_nd_range_kernel(device.queue, kernel, data.shape, None)
    device.queue.finish()
launch()
built = time.perf_counter() - begin
result = np.empty_like(data)
cl.enqueue_copy(device.queue, result, buffer)
times = []
for _ in range(50):
    begin = time.perf_counter()
    launch()
    times.append(time.perf_counter() - begin)
print(json.dumps({"right": bool((result == data + 1).all()), "build": built, "launch": sorted(times)[25],
                  "compiled": build_stats().compiled}))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments after the program's name; None takes the process'.

    Returns:
        The exit status: 0 if all went well, 1 if not (2, from argparse, for wrong arguments).
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except GraphcoreError as error:
        print(f"graphcore: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `graphcore devices | head`
        sys.stderr.close()
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphcore", description="Compile and run tensor graphs on OpenCL devices.")
    parser.add_argument("--version", action="version", version=f"graphcore {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    doctor = commands.add_parser("doctor", help="check the installation and say what is missing")
    doctor.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds that one device may take")
    doctor.set_defaults(run=_doctor)

    devices = commands.add_parser("devices", help="list the OpenCL devices")
    devices.add_argument("--json", action="store_true", help="all that is known of them, as JSON")
    devices.set_defaults(run=_devices)

    cache = commands.add_parser("cache", help="show or clear the kernel cache")
    cache.add_argument("--clear", action="store_true", help="delete all cached kernels")
    cache.set_defaults(run=_cache)

    dump = commands.add_parser("dump", help="write a graph that a script builds as a picture, page or text")
    dump.add_argument(
        "source", metavar="FILE.py[:NAME]", help="a script or module, and its fetch or a function giving it"
    )
    dump.add_argument("out", metavar="OUT", help="a .dot, .svg, .html or .json file")
    dump.add_argument(
        "--stage",
        default=None,
        choices=(*_STAGES, "all"),
        help="how far to compile first (default: all stages for a page, else built)",
    )
    dump.set_defaults(run=_dump)
    return parser


# --- doctor ----------------------------------------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    """Print what there is and whether it works; the last lines say what to do."""
    advice: list[str] = []
    system = f"{platform.python_implementation()}, {platform.machine()} {platform.system()}"
    print(f"python     {platform.python_version()} ({system})")
    print(
        f"graphcore  {_version('graphcore') or 'not installed as a package'}, in {Path(__file__).resolve().parents[1]}"
    )
    print("packages")
    for name, needed, purpose in _PACKAGES:
        version = _version(name)
        print(f"  {name:26} {version or 'missing':14} {purpose}")
        if version is None and needed:
            advice.append(f"pip install {name}")
    _doctor_cache(advice)
    if importlib.util.find_spec("pyopencl") is None:
        advice.append("pip install graphcore[cpu]   # pyopencl and an OpenCL runtime for the CPU")
    else:
        _doctor_devices(arguments.timeout, advice)
    if not advice:
        print("all is well")
        return 0
    print("what to do")
    for line in advice:
        print(f"  {line}")
    return 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _doctor_cache(advice: list[str]) -> None:
    folders = backend_module("opencl.compiler.folders")

    wanted, used = folders.configured_cache_folder(), folders.cache_folder()
    if wanted == used:
        print(f"cache      {used} (writable)")
    else:
        print(f"cache      {wanted} (NOT writable; a temporary folder is used)")
        advice.append(f"make {wanted} writable, or set GRAPHCORE_CACHE: each run compiles its kernels anew")


def _doctor_devices(timeout: float, advice: list[str]) -> None:
    print("devices")
    found, problem = _run_apart(_LIST, (), timeout)
    if problem:
        print(f"  listing failed: {problem}")
        advice.append("the OpenCL drivers do not answer: remove or reinstall what was installed last")
        return
    if not found:
        print("  none")
        advice.append("pip install graphcore[cpu]   # an OpenCL runtime for the CPU; a GPU needs its vendor's driver")
        return
    for device in found:
        spec = f"opencl:{device['index']}"
        where = f"{device['platform']}, {device['driver']}"
        print(f"  {spec:10} {device['vendor']:8} {device['kind']:4} {device['name']} ({where})")
        report, problem = _run_apart(_TRY, (spec,), timeout)
        if not problem and not report["right"]:
            problem = "a kernel gave wrong results"
        if problem:
            print(f"             FAILED: {problem}")
            advice.append(f"do not use {spec} ({device['name']}): its driver is broken; update or remove it")
        else:
            how = "compiled" if report["compiled"] else "from the cache"
            ready, launch = report["build"] * 1e3, report["launch"] * 1e6
            print(f"             works: kernel ready in {ready:.0f} ms ({how}), launch {launch:.0f} us")


def _run_apart(code: str, arguments: tuple[str, ...], timeout: float) -> tuple[Any, str]:
    """Run Python code that prints JSON in its own process; return what it printed, and what went wrong, if anything."""
    root = str(Path(__file__).resolve().parents[2])
    # The packages that this process uses, not whatever `backends` lies in the current folder.
    start = f"import sys; sys.path[:0] = [{root!r}]\n"
    try:
        done = subprocess.run(
            [sys.executable, "-c", start + code, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {timeout:g} s"
    if done.returncode < 0:
        return None, f"the process was killed by signal {-done.returncode}"
    if done.returncode > 0:
        return None, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    except (ValueError, IndexError):
        return None, "it printed no result"


# --- devices and cache -----------------------------------------------------------------------------------------------


def _devices(arguments: argparse.Namespace) -> int:
    devices = backend_module("opencl.device.device").list_devices()
    if arguments.json:
        plain = [{k: sorted(v) if isinstance(v, frozenset) else v for k, v in vars(d).items()} for d in devices]
        print(json.dumps(plain, indent=2))
        return 0
    if not devices:
        print("no OpenCL device; `graphcore doctor` says what to install", file=sys.stderr)
        return 1
    rows: list[tuple[str, ...]] = [("device", "vendor", "kind", "units", "memory", "floats", "fp64", "fp16", "name")]
    for d in devices:
        numbers = (
            str(d.compute_units),
            _size(d.global_mem),
            str(d.vector_width),
            *("yes" if f else "no" for f in (d.fp64, d.fp16)),
        )
        rows.append((f"opencl:{d.index}", d.vendor, d.kind, *numbers, d.name))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    build = backend_module("opencl.compiler.build")

    if arguments.clear:
        print(f"freed {_size(build.clear_cache())}")
    info = build.cache_info()
    print(f"{info.folder}: {info.entries} kernel programs, {_size(info.bytes)}")
    return 0


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


# --- dump ------------------------------------------------------------------------------------------------------------


def _dump(arguments: argparse.Namespace) -> int:
    source, name = _split_source(arguments.source)
    namespace = _namespace(source)
    fetches = namespace.get(name) if name else _only_candidate(namespace)
    if fetches is None:
        raise UsageError(f'{source} defines no "{name}"' if name else f"say which fetch to draw: {source}:NAME")
    graphcore: ModuleType = importlib.import_module("graphcore")
    if callable(fetches):
        fetches = fetches()
    graphcore.dump(fetches, arguments.out, stage=arguments.stage)
    print(f"wrote {arguments.out}")
    return 0


def _split_source(text: str) -> tuple[str, str]:
    """Split "FILE.py:NAME" at its last colon; a drive letter's colon is none."""
    head, colon, tail = text.rpartition(":")
    return (head, tail) if colon and tail.isidentifier() and len(head) > 1 else (text, "")


def _namespace(source: str) -> dict[str, Any]:
    if not source.endswith(".py"):
        sys.path.insert(0, "")
        try:
            return vars(importlib.import_module(source))
        except ModuleNotFoundError as error:
            raise UsageError(f'there is no module "{source}" ({error}); scripts end in .py') from error
    if not Path(source).is_file():
        raise UsageError(f"there is no file {source}")
    sys.path.insert(0, str(Path(source).resolve().parent))
    # Not "__main__": a script's training loop behind the usual guard is not meant.
    return runpy.run_path(source, run_name="__graphcore_dump__")


def _only_candidate(namespace: dict[str, Any]) -> Any:
    """Return what a script most likely means: its `loss`, `fetches`, `logits` or `output`."""
    return next((namespace[name] for name in ("loss", "fetches", "logits", "output") if name in namespace), None)


if __name__ == "__main__":
    sys.exit(main())
