"""What compiled programs of a session take: ``python -m benchmarks.session_memory DEVICE [--graphs 500] [--write]``.

Small graphs that all differ are run one after another in one session. Printed are, for a program that the session
keeps, our share (what Python allocates: plans, kernels, graphs, views; by ``tracemalloc``) and the vendor's (all that
the process grew by, less ours: its program objects), and how the process grows on beyond what the cache may hold.

Every measurement has a process of its own, because memory that was freed once is used again. ``--cold`` compiles
everything: runtimes keep much more of a program that they compiled than of one that they loaded.
"""

from __future__ import annotations

import argparse
import gc as garbage
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

import graphcore as gc

RESULTS = Path(__file__).parent / "results" / "session_memory.json"
_WARM_UP = 5  # graphs after which everything is imported and set up


def resident() -> int:
    """Bytes of the process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_graph(session: gc.Session, number: int) -> None:
    """A softmax, a product and a few elementwise ops, as no other number has them."""
    columns = 3 + number
    x = gc.placeholder("float32", (4, columns), name="x")
    h = gc.tanh(x * float(number)) + number
    session.run(gc.softmax(h, axis=1) @ gc.exp(h).T, {x: np.ones((4, columns), np.float32)})


def measure(device: str, graphs: int, trace: bool) -> dict[str, Any]:
    """Bytes by which Python's allocations, if ``trace``, or else the process grew."""
    with gc.Session(device) as session:
        for number in range(_WARM_UP):
            run_graph(session, number)
        garbage.collect()
        before, kept = resident(), session.cache_info().compilations
        if trace:
            tracemalloc.start()
        growth = []
        for number in range(_WARM_UP, _WARM_UP + graphs):
            run_graph(session, number)
            if (number - _WARM_UP + 1) % max(graphs // 10, 1) == 0:
                garbage.collect()
                growth.append(resident() - before)
        ours = tracemalloc.get_traced_memory()[0] if trace else 0
        info = session.cache_info()
        return {
            "kept": info.compilations - kept,
            "ours": ours,
            "estimate": info.bytes,
            "evicted": info.evicted,
            "growth": growth,
        }


def alone(device: str, graphs: int, trace: bool, cold: bool) -> dict[str, Any]:
    """``measure`` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.session_memory", device, "--graphs", str(graphs), "--inner"]
        done = subprocess.run(
            command + ["--trace"] * trace,
            env=os.environ | ({"GRAPHCORE_CACHE": folder} if cold else {}),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(device: str, graphs: int, cold: bool) -> dict[str, Any]:
    """Our share and the vendor's of a kept program, in KB, and the growth of a session over many graphs, in MB."""
    few = 40
    traced, plain = (alone(device, few, trace, cold) for trace in (True, False))
    ours, total = traced["ours"] / few / 1e3, plain["growth"][-1] / few / 1e3
    many = alone(device, graphs, trace=False, cold=cold)
    return {
        "ours_kb": round(ours, 1),
        "vendor_kb": round(total - ours, 1),
        "estimate_kb": round(plain["estimate"] / (few + _WARM_UP) / 1e3, 1),
        "graphs": graphs,
        "kept": many["kept"],
        "evicted": many["evicted"],
        "growth_mb": [round(g / 1e6, 1) for g in many["growth"]],
    }


def main() -> None:
    """Measure, print, and with ``--write`` keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("device")
    parser.add_argument("--graphs", type=int, default=500)
    parser.add_argument("--cold", action="store_true", help="with an empty kernel cache")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULTS.name}")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--trace", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inner:
        print(json.dumps(measure(asked.device, asked.graphs, asked.trace)))
        return
    found = report(asked.device, asked.graphs, asked.cold)
    print(json.dumps(found, indent=1))
    if asked.write:
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[f"{asked.device}{', cold' if asked.cold else ''}"] = found
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
