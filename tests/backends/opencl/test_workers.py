"""Programs that processes of their own compile: the same programs, the same errors, and nothing is left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyopencl")

from backends.opencl.compiler import build, workers
from backends.opencl.device.device import Device, icd, list_devices, open_device
from graphcore.base.errors import CompileError

ROOT = Path(__file__).resolve().parents[3]
VENDORS = [v for v in ("intel",) if any(d.vendor == v for d in list_devices())]
pytestmark = pytest.mark.skipif(not VENDORS, reason="no runtime whose binaries other processes can make")

SOURCES = tuple(
    f"__kernel void scale(__global float *x) {{ int i = get_group_id(0); x[i] = x[i] * {n}.0f; }}" for n in (2, 3, 5)
)
BROKEN = "// a comment\n__kernel void scale(__global float *x) { x[0] = mistake; }"
# More than a minute of work for the vendor's compiler: what has ended before then was ended.
_FUNCTIONS = 2400
SLOW = "".join(
    f"float f{n}(float16 a, float16 b) {{ {'a = fma(a, b, sin(a)); b = exp(a) * log(b + a); ' * 40} return a.s0; }}\n"
    for n in range(_FUNCTIONS)
)
SLOW += "__kernel void scale(__global float *x) { float16 a = x[0], b = x[1]; x[0] = "
SLOW += " + ".join(f"f{n}(a, b)" for n in range(_FUNCTIONS)) + "; }"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a process that seems to have built nothing yet."""
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_state", build._Programs())
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started to compile."""
    found: list[subprocess.Popen[bytes]] = []
    begin = workers.Worker.__init__

    def spy(self: workers.Worker, *arguments: Any) -> None:
        begin(self, *arguments)
        found.append(self.process)

    monkeypatch.setattr(workers.Worker, "__init__", spy)
    return found


@pytest.fixture
def device() -> Device:
    return open_device(f"opencl:{VENDORS[0]}")


def factors(device: Device, programs: list[Any]) -> list[float]:
    """What each program multiplies with."""
    cl, found = icd.load(), []
    for program in programs:
        data = np.ones(16, np.float32)
        buffer = cl.Buffer(device.context, cl.mem_flags.COPY_HOST_PTR, hostbuf=data)
        kernel = cl.Kernel(program, "scale")
        kernel.set_args(buffer)
        cl.enqueue_nd_range_kernel(device.queue, kernel, data.shape, (1,))
        cl.enqueue_copy(device.queue, data, buffer)
        assert (data == data[0]).all()
        found.append(float(data[0]))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ended(pid: int) -> bool:
    """Wait for a process to end, but not for as long as it would compile."""
    for _ in range(400):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_all_but_the_first_are_compiled_apart_and_the_next_time_none(
    cache: Path, device: Device, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert factors(device, build.build_programs(device, SOURCES)) == [2, 3, 5]
    stats = build.build_stats()
    assert (stats.compiled, stats.apart, len(started)) == (3, 2, 2)
    assert all(p.returncode is not None and not alive(p.pid) for p in started)
    assert len(list((cache / "kernels").iterdir())) == 3 and not list(cache.glob("pocl/run-*"))
    build.build_programs(device, SOURCES)
    assert (build.build_stats().from_memory, len(started)) == (3, 2)
    monkeypatch.setattr(build, "_state", build._Programs())
    assert factors(device, build.build_programs(device, SOURCES)) == [2, 3, 5]
    assert (build.build_stats().from_disk, build.build_stats().compiled, len(started)) == (3, 0, 2)


def test_only_what_is_missing_is_compiled(cache: Path, device: Device, started: list[Any]) -> None:
    build.build_program(device, SOURCES[1])
    assert factors(device, build.build_programs(device, (*SOURCES, SOURCES[0]))) == [2, 3, 5, 2]
    assert (build.build_stats().compiled, build.build_stats().apart, len(started)) == (3, 1, 1)


def test_a_cache_folder_that_cannot_be_written_is_no_hindrance(
    tmp_path: Path, device: Device, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(build, "_state", build._Programs())
    with pytest.warns(RuntimeWarning, match="cannot write its cache folder"):
        assert factors(device, build.build_programs(device, SOURCES)) == [2, 3, 5]
    assert build.build_stats().apart == 2 and all(not alive(p.pid) for p in started)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_is_the_same_wherever_it_is_met_and_ends_all(
    cache: Path, device: Device, started: list[Any], place: int
) -> None:
    with pytest.raises(CompileError) as alone:
        build.build_program(device, BROKEN, ("-DA=1",), "softmax_3, at train.py:12")
    sources = [SLOW, SLOW + "\n", SLOW + "\n\n"]
    if place:
        sources[0] = SOURCES[0]
    sources[place] = BROKEN
    if place == 2:
        sources[1] = SOURCES[1]
    with pytest.raises(CompileError) as caught:
        build.build_programs(device, sources, ("-DA=1",), "softmax_3, at train.py:12")
    texts = [re.sub(r"^\d+:", "", str(e.value), flags=re.MULTILINE) for e in (caught, alone)]  # Intel counts programs
    assert texts[0] == texts[1] and ">    2 | __kernel void scale" in texts[0]
    assert len(started) == 2 and all(not alive(p.pid) for p in started)


@pytest.mark.parametrize("how", ["killed", "wrong"])
def test_a_process_that_fails_costs_time_and_a_warning(
    cache: Path, device: Device, started: list[Any], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    start = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)" if how == "killed" else "print('not a program')"
    monkeypatch.setattr(workers, "_START", start)
    with pytest.warns(RuntimeWarning, match="its part was compiled here"):
        assert factors(device, build.build_programs(device, SOURCES)) == [2, 3, 5]
    assert build.build_stats().apart == 0 and len(started) == 2


def test_without_another_process_all_is_compiled_here(
    cache: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(cache / "no-python"))
    with pytest.warns(RuntimeWarning, match="no process to compile in could be started"):
        assert factors(device, build.build_programs(device, SOURCES)) == [2, 3, 5]
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(build, "_state", build._Programs())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build.build_programs(device, [s + "\n" for s in SOURCES])
    assert build.build_stats().compiled == 3


CHILD = """
import sys
from backends.opencl.compiler import build, workers
from backends.opencl.device.device import open_device
begin = workers.Worker.__init__
def spy(self, *arguments):
    begin(self, *arguments)
    print(self.process.pid, flush=True)
workers.Worker.__init__ = spy
build.build_programs(open_device(sys.argv[1]), (sys.argv[2], sys.stdin.read()))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(
    tmp_path: Path, sign: signal.Signals, device: Device, wait_until_busy: Callable[[int], None]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, device.info.spec, SOURCES[0]],
        env={**icd.environment_of_children(), "GRAPHCORE_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(SLOW)
    process.stdin.close()
    process.stdin = None
    worker = int(process.stdout.readline())
    wait_until_busy(worker)
    assert alive(worker) and process.poll() is None
    os.killpg(process.pid, sign)  # as a terminal's Ctrl-C does
    _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and said.count("KeyboardInterrupt") == (sign == signal.SIGINT)
    assert ended(worker)
    assert [p.suffix for p in (tmp_path / "kernels").glob("*")] == [".gck"]  # the first program; nothing half written


@pytest.fixture
def wait_until_busy() -> Callable[[int], None]:
    """Waits until a process is in the compiler: it has computed for longer than starting takes."""

    def wait(pid: int) -> None:
        while alive(pid):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 2.0:
                return
            time.sleep(0.05)

    return wait


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is told of while it takes long."""
    found: list[str] = []

    class Recorded(build.Waiting):
        def start(self) -> None:
            found.append(self.what)

    monkeypatch.setattr(build, "Waiting", Recorded)
    return found


def test_who_waits_is_told_what_for(device: Device, cache: Path, told: list[str]) -> None:
    build.build_programs(device, SOURCES[:2], (), "", (7, 5))
    assert set(told) == {"compiling 12 functions in 2 processes"}
    told.clear()
    build.build_programs(device, SOURCES, (), "", (7, 5, 3))  # two of them are there
    assert set(told) == {"compiling 3 functions"}
    told.clear()
    build.build_programs(device, SOURCES, (), "", (7, 5, 3))
    assert not told
