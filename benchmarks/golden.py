"""Digests of everything that compiling makes of known programs: ``python -m benchmarks.golden [--write] [--only gpt]``.

Tests of behaviour do not see a lost fusion, a schedule that changed or a function that is compiled twice. For the
training steps of ``benchmarks.models`` and the graphs of all examples, compiled for two CPU runtimes, the oracle and
six kinds of GPU, this keeps digests of the simplified graph, the partition, the plan and every function's text, and the
counts that users pay for: launches, arena bytes, flops, bytes. No device is needed: schedules and texts follow from a
device's description.

A change that only moves code keeps every digest. One that changes some says which and why, and times those steps again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from backends.numpy.runtime import open_numpy
from backends.opencl.device.device import DeviceInfo
from backends.opencl.program import generate
from backends.opencl.target import device_model, make_target
from benchmarks.models import STEPS
from graphcore.ir.graph import Graph, collect
from graphcore.ir.printer import print_graph
from graphcore.kernel.ir import print_kernel
from graphcore.plan.plan import print_plan
from graphcore.runtime import compiled
from graphcore.runtime.feeds import sizes_of
from graphcore.runtime.fetches import flatten_fetches
from graphcore.tools import pictures
from graphcore.train.progress import Progress
from passes.pipeline import compile_graph

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "results" / "golden.json"
_FP64 = frozenset({"cl_khr_fp64", "cl_khr_fp16"})


def _device(
    vendor: str, name: str, kind: str, units: int, local: int, memory: int, width: int, **more: Any
) -> DeviceInfo:
    """A device's description; sizes in kilobytes and gigabytes."""
    given = {"group": 1024, "fp64": True, "fp16": True, **more}
    return DeviceInfo(
        index=0,
        platform=vendor,
        vendor=vendor,
        name=name,
        version="OpenCL 3.0",
        driver="1",
        kind=kind,
        compute_units=units,
        local_mem=local * 1024,
        global_mem=memory * 2**30,
        max_alloc=memory * 2**28,
        max_work_group=given["group"],
        extensions=_FP64 if given["fp16"] else frozenset({"cl_khr_fp64"}),
        fp64=given["fp64"],
        fp16=given["fp16"],
        vector_width=width,
    )


DEVICES = {
    "intel": _device("intel", "two AVX-512 cores", "cpu", 2, 256, 24, 16, group=8192),
    "pocl": _device("pocl", "two AVX-512 cores", "cpu", 2, 512, 24, 16, group=4096, fp16=False),
    "h100": _device("nvidia", "H100", "gpu", 132, 48, 80, 1, fp16=False),
    "rtx": _device("nvidia", "RTX 3060", "gpu", 28, 48, 12, 1, fp16=False),
    "mi300": _device("amd", "gfx942", "gpu", 304, 64, 192, 1),
    "radeon": _device("amd", "gfx1100", "gpu", 48, 64, 24, 1),
    "arc": _device("intel", "Arc A770", "gpu", 512, 64, 16, 8, fp64=False),
    "mali": _device("arm", "Mali-G78", "gpu", 14, 32, 8, 4, group=512, fp64=False),
}


class Program:
    """A graph and the sizes to compile it for."""

    def __init__(self, name: str, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.name, self.graph, self.sizes = name, graph, dict(sizes)


def steps() -> Iterator[Program]:
    """The training steps of ``benchmarks.models``."""
    for name, build in STEPS.items():
        fetches, feeds = build()
        tensors, updates, _ = flatten_fetches(fetches)
        graph = collect(tensors, updates, tuple(t.value for t in feeds))
        graph = Graph(graph.outputs, graph.updates, tuple(feeds))
        sizes = sizes_of(tuple(feeds), [np.shape(a) for a in feeds.values()], frozenset(), ())
        yield Program(name, graph, sizes)


def examples() -> Iterator[Program]:
    """The graphs that the examples compile in their quick modes."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        seen: list[tuple[Graph, dict[str, int]]] = []

        def spy(graph: Graph, target: Any, sizes: Mapping[str, int], *, seen: Any = seen, **options: Any) -> Any:
            if options.get("upto") is None:
                seen.append((graph, dict(sizes)))
            return compile_graph(graph, target, sizes, **options)

        with (
            mock.patch.object(compiled, "compile_graph", spy),
            mock.patch.object(pictures, "compile_graph", spy),
            mock.patch.object(sys, "argv", [str(path), "--quick"]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
        ):
            runpy.run_path(str(path), run_name="__main__")
        for number, (graph, sizes) in enumerate(seen):
            yield Program(f"{path.stem}/{number}", graph, sizes)


def digest(text: str) -> str:
    """A short fingerprint of a text, in which unnamed extents are numbered anew."""
    numbers: dict[str, str] = {}
    plain = re.sub(r"\?\d+", lambda m: numbers.setdefault(m.group(), f"?{len(numbers)}"), text)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def partition_text(partition: Any) -> str:
    """Every group with its members and what it stores, by position in the graph."""
    number = {n.serial: i for i, n in enumerate(partition.graph.nodes())}
    lines = []
    for g in partition.groups:
        members = " ".join(f"{number[n.serial]}:{n.op.name}" for n in g.nodes)
        stored = " ".join(f"{number[t.node.serial]}.{t.index}" for t in g.stored)
        lines.append(f"{g.kind} level {g.level}: {members} -> {stored}")
    return "\n".join(lines)


def record(program: Program, device: str) -> dict[str, Any]:
    """What one program becomes on one device: digests and counts."""
    info = DEVICES.get(device)
    target = open_numpy("numpy:kernels").target if info is None else make_target(info)
    made = compile_graph(program.graph, target, program.sizes)
    placed = made.placed
    if info is None:
        functions = [print_kernel(s.kernel) for s in made.plan.launches]
    else:
        source = generate(made.plan, device_model(info))
        functions = [f.text for f in source.functions]
    return {
        "simplified": digest(print_graph(made.simplified)),
        "partition": digest(partition_text(made.partition)),
        "plan": digest(print_plan(made.plan, placed)),
        "functions": " ".join(digest(text) for text in functions),
        "text_bytes": sum(map(len, functions)),
        "launches": len(made.plan.launches),
        "levels": len(made.plan.levels),
        "arena_bytes": placed.arena_bytes,
        "flops": round(sum(s.flops for s in made.plan.launches)),
        "bytes": round(sum(s.nbytes for s in made.plan.launches)),
    }


def collect_all(only: Sequence[str]) -> dict[str, Any]:
    """Records by program and device."""
    chosen = [p for p in (*steps(), *(() if only else examples())) if not only or p.name in only]
    names = [*DEVICES, "oracle"]
    found: dict[str, Any] = {}
    with Progress(len(chosen) * len(names), "golden", "plans") as progress:
        for program in chosen:
            found[program.name] = {}
            for device in names:
                found[program.name][device] = record(program, device)
                progress.update(1)
    return found


def compare(old: Mapping[str, Any], new: Mapping[str, Any], complete: bool) -> list[str]:
    """A line for every program and device that changed: which digests and counts."""
    lines = [f"{name}: gone" for name in old if name not in new] if complete else []
    for name, devices in new.items():
        for device, now in devices.items():
            before = old.get(name, {}).get(device)
            if before is None:
                lines.append(f"{name} on {device}: new")
                continue
            changes = []
            for key, value in now.items():
                if before.get(key) == value:
                    continue
                if key == "functions":
                    a, b = set(before[key].split()), set(value.split())
                    changes.append(f"functions ({len(b - a)} new, {len(a - b)} gone)")
                elif isinstance(value, int):
                    changes.append(f"{key} {before.get(key)} -> {value}")
                else:
                    changes.append(key)
            if changes:
                lines.append(f"{name} on {device}: {', '.join(changes)}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare with the kept digests, or write them; 1 if something differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep what is found")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help=f"of {', '.join(STEPS)}")
    options = parser.parse_args(arguments)
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    new = collect_all(options.only)
    lines = compare(old, new, not options.only)
    print("\n".join(lines) or f"{sum(map(len, new.values()))} plans, none differs")
    if options.write:
        GOLDEN.write_text(json.dumps({**old, **new} if options.only else new, indent=1) + "\n")
        print("written to", GOLDEN.relative_to(ROOT))
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
