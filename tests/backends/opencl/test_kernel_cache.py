"""The kernel cache: fast when whole, harmless when damaged, safe with many processes; and compile errors."""

from __future__ import annotations

import dataclasses
import errno
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyopencl")

from backends.opencl.compiler import build, failure, folders, pocl_cache
from backends.opencl.device.device import Device, DeviceInfo, icd, list_devices, open_device
from graphcore.base.errors import CompileError

ROOT = Path(__file__).resolve().parents[3]
DEVICES = list_devices()
VENDORS = [v for v in ("intel", "pocl") if any(d.vendor == v for d in DEVICES)]
# Vendors whose cached entry is the driver's own binary: their cache can be tried within this process.
BINARY_VENDORS = [v for v in VENDORS if v != "pocl"]

SOURCE = "__kernel void triple(__global float *x) { int i = get_group_id(0); x[i] = x[i] * 3.0f; }"
# Builds and runs a kernel in a process of its own and reports what the cache did.
CHILD = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    from backends.opencl.compiler import build
    from backends.opencl.device import icd
    from backends.opencl.device.device import open_device
    cl = icd.load()
    device = open_device(sys.argv[1])
    kernel = cl.Kernel(build.build_program(device, sys.argv[2]), "triple")
    data = np.arange(64, dtype=np.float32)
    buffer = cl.Buffer(device.context, cl.mem_flags.COPY_HOST_PTR, hostbuf=data)
    kernel.set_args(buffer)
    cl.enqueue_nd_range_kernel(device.queue, kernel, data.shape, (1,))
    result = np.empty_like(data)
    cl.enqueue_copy(device.queue, result, buffer)
    stats = build.build_stats()
print(json.dumps({"right": bool((result == data * 3).all()), "compiled": stats.compiled, "from_disk": stats.from_disk,
                  "rejected": stats.rejected,
                  "warnings": [str(w.message) for w in caught if w.category is RuntimeWarning]}))
"""


def start(vendor: str, cache: Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.endswith(("OCL_ICD_VENDORS", "POCL_CACHE_DIR"))}
    environment |= {"GRAPHCORE_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, f"opencl:{vendor}", SOURCE]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return report


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "kernels").glob("*.gck"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a process that seems to have built nothing yet."""
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_state", build._Programs())
    return tmp_path


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Empties the cache in memory, and the counters."""
    return lambda: monkeypatch.setattr(build, "_state", build._Programs())


@pytest.fixture(params=VENDORS)
def device(request: pytest.FixtureRequest) -> Device:
    return open_device(f"opencl:{request.param}")


@pytest.fixture(params=BINARY_VENDORS)
def binary_device(request: pytest.FixtureRequest) -> Device:
    return open_device(f"opencl:{request.param}")


def run_triple(device: Device, program: Any) -> bool:
    cl = icd.load()
    data = np.arange(16, dtype=np.float32)
    buffer = cl.Buffer(device.context, cl.mem_flags.COPY_HOST_PTR, hostbuf=data)
    kernel = cl.Kernel(program, "triple")
    kernel.set_args(buffer)
    cl.enqueue_nd_range_kernel(device.queue, kernel, data.shape, (1,))
    result = np.empty_like(data)
    cl.enqueue_copy(device.queue, result, buffer)
    return bool((result == data * 3).all())


# --- in memory -------------------------------------------------------------------------------------------------------


def test_same_source_is_the_same_program(cache: Path, device: Device) -> None:
    program = build.build_program(device, SOURCE)
    assert build.build_program(open_device(device.info.spec), SOURCE) is program
    assert build.build_program(device, SOURCE, ("-DA=1",)) is not program
    assert build.build_count() == 2
    assert build.build_stats().from_memory == 1


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_binary_of_another_cpu_is_another_entry(
    cache: Path, binary_device: Device, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    binary_device = dataclasses.replace(
        binary_device, info=dataclasses.replace(binary_device.info, kind=kind)
    )  # a CPU may play a GPU
    for flags in ({"avx2"}, {"avx2", "avx512f"}):
        monkeypatch.setattr(build, "cpu_flags", lambda flags=flags: frozenset(flags))
        forget()
        build.build_program(binary_device, SOURCE)
    assert build.build_stats().rejected == 0 and len(entries(cache)) == 2


def test_threads_that_want_the_same_program_build_it_once(cache: Path, device: Device) -> None:
    programs: list[Any] = []
    threads = [threading.Thread(target=lambda: programs.append(build.build_program(device, SOURCE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(programs) == 8 and len({id(p) for p in programs}) == 1
    assert build.build_count() == 1


def test_memory_keeps_the_recently_used(cache: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_MEMORY_LIMIT", 2)
    first = build.build_program(device, SOURCE, ("-DN=1",))
    build.build_program(device, SOURCE, ("-DN=2",))
    assert build.build_program(device, SOURCE, ("-DN=1",)) is first
    build.build_program(device, SOURCE, ("-DN=3",))
    assert build.build_program(device, SOURCE, ("-DN=1",)) is first
    assert len(build._state.programs) == 2
    gc.collect()


# --- on disk, in this process ----------------------------------------------------------------------------------------


def test_disk_serves_a_new_process(cache: Path, binary_device: Device, forget: Callable[[], None]) -> None:
    build.build_program(binary_device, SOURCE)
    forget()
    assert run_triple(binary_device, build.build_program(binary_device, SOURCE))
    assert build.build_stats() == build.BuildStats(from_disk=1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_payload(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_checksum(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[build._HEADER - 1] ^= 1
    path.write_bytes(data)


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def refused_binary(path: Path) -> None:
    path.write_bytes(build._pack(b"not a binary of this driver", bytes.fromhex(path.stem)))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")


DAMAGES = [truncate, empty, flip_payload, flip_checksum, garbage, refused_binary, folder_instead]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damaged_entry_is_built_again_with_one_warning(
    cache: Path, binary_device: Device, forget: Callable[[], None], damage: Callable[[Path], None]
) -> None:
    for number in (1, 2):
        build.build_program(binary_device, SOURCE, (f"-DN={number}",))
    for path in entries(cache):
        damage(path)
    forget()
    with pytest.warns(RuntimeWarning, match="kernel cache entry") as caught:
        programs = [build.build_program(binary_device, SOURCE, (f"-DN={number}",)) for number in (1, 2)]
    assert len(caught) == 1
    assert all(run_triple(binary_device, program) for program in programs)
    assert (build.build_count(), build.build_stats().rejected) == (2, 2)
    if damage is not folder_instead:  # the rest was repaired
        forget()
        build.build_program(binary_device, SOURCE, ("-DN=1",))
        assert build.build_stats() == build.BuildStats(from_disk=1)


def test_entry_of_another_kernel_is_refused(cache: Path, binary_device: Device, forget: Callable[[], None]) -> None:
    build.build_program(binary_device, SOURCE)
    (path,) = entries(cache)
    build.build_program(binary_device, SOURCE.replace("3.0f", "4.0f"))
    (other,) = set(entries(cache)) - {path}
    path.write_bytes(other.read_bytes())
    forget()
    with pytest.warns(RuntimeWarning, match="belongs to another kernel"):
        assert run_triple(binary_device, build.build_program(binary_device, SOURCE))


def test_key_covers_all_that_matters(binary_device: Device) -> None:
    def digest(source: str = SOURCE, options: tuple[str, ...] = (), **info: Any) -> bytes:
        changed = dataclasses.replace(binary_device, info=dataclasses.replace(binary_device.info, **info))
        return build._digest(changed, source, options)

    keys = [digest(), digest(SOURCE + " "), digest(options=("-DA",)), digest(options=("-D", "A")), digest(driver="2")]
    keys += [digest(name="another"), digest(platform="another"), digest(version="another")]
    assert len(set(keys)) == len(keys)
    assert digest() == digest()


def test_full_disk_is_no_fault(
    cache: Path, binary_device: Device, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert run_triple(binary_device, build.build_program(binary_device, SOURCE))
    assert list((cache / "kernels").iterdir()) == []


def test_read_only_folder_serves_and_new_kernels_go_elsewhere(
    cache: Path, binary_device: Device, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    build.build_program(binary_device, SOURCE)
    forget()
    folders._writable.cache_clear()

    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    try:
        with pytest.warns(RuntimeWarning, match="cannot write its cache folder") as caught:
            assert run_triple(binary_device, build.build_program(binary_device, SOURCE))
            build.build_program(binary_device, SOURCE, ("-DN=1",))
        assert len(caught) == 1
        assert build.build_stats().from_disk == 1
        assert len(entries(cache)) == 1
        assert len(entries(folders.cache_folder())) == 1
    finally:
        folders._writable.cache_clear()


def test_size_limit_removes_what_was_not_used_for_longest(cache: Path) -> None:
    folder = cache / "kernels"
    folder.mkdir()
    for age, name in enumerate(("new.gck", "middle.gck", "old.gck")):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    for name, time in (("left.tmp", 1e9), ("fresh.tmp", None)):
        (folder / name).write_bytes(bytes(10))
        if time:
            os.utime(folder / name, (time, time))
    assert build.prune_cache(limit=250) == 110
    assert sorted(p.name for p in folder.iterdir()) == ["fresh.tmp", "middle.gck", "new.gck"]
    info = build.cache_info()
    assert (info.folder, info.entries, info.bytes) == (cache, 2, 200)
    assert build.clear_cache() == 200
    assert build.cache_info().entries == 0


# --- on disk, with processes of their own ----------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_second_process_compiles_nothing(vendor: str, tmp_path: Path) -> None:
    first, second = finish(start(vendor, tmp_path)), finish(start(vendor, tmp_path))
    assert (first["right"], first["compiled"], first["warnings"]) == (True, 1, [])
    assert (second["right"], second["compiled"], second["from_disk"], second["warnings"]) == (True, 0, 1, [])
    assert not list((tmp_path / "pocl").glob("run-*")), "the process left its folder behind"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("damage", [truncate, flip_payload, refused_binary], ids=lambda f: f.__name__)
def test_process_survives_a_damaged_entry(vendor: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    finish(start(vendor, tmp_path))
    (path,) = entries(tmp_path)
    damage(path)
    report = finish(start(vendor, tmp_path))
    assert (report["right"], report["compiled"], report["rejected"], len(report["warnings"])) == (True, 1, 1, 1)
    assert finish(start(vendor, tmp_path))["from_disk"] == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_folder_that_cannot_exist(vendor: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    report = finish(start(vendor, tmp_path / "file" / "cache"))
    assert (report["right"], report["compiled"], len(report["warnings"])) == (True, 1, 1)
    assert "GRAPHCORE_CACHE" in report["warnings"][0]


@pytest.mark.parametrize(
    ("vendor", "count"), [(v, 8) for v in VENDORS] + [pytest.param(v, 32, marks=pytest.mark.slow) for v in VENDORS]
)
def test_many_cold_processes_at_once(vendor: str, count: int, tmp_path: Path) -> None:
    reports = [finish(process) for process in [start(vendor, tmp_path) for _ in range(count)]]
    assert all(r["right"] and r["compiled"] + r["from_disk"] == 1 and not r["warnings"] for r in reports)
    assert len(list((tmp_path / "kernels").iterdir())) == 1
    assert finish(start(vendor, tmp_path))["from_disk"] == 1


@pytest.mark.skipif("pocl" not in VENDORS, reason="PoCL is not installed")
def test_killed_process_leaves_nothing_that_lasts(tmp_path: Path) -> None:
    process = start("pocl", tmp_path)
    while process.poll() is None and not list((tmp_path / "pocl").glob("run-*/graphcore.lock")):
        pass
    process.kill()
    process.communicate()
    finish(start("pocl", tmp_path))
    assert not list((tmp_path / "pocl").glob("run-*"))


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "payload",
    [
        archive("../AB/x.so"),
        archive("/AB/CD/x.so"),
        archive("AB/CD/../../../x"),
        archive("AB/CD/x", "AB/EF/x"),
        archive(),
        b"PK",
    ],
)
def test_archive_that_is_not_one_program_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        pocl_cache.unpack(payload)


# --- compile errors --------------------------------------------------------------------------------------------------


def test_compile_error_shows_source_log_and_origins(cache: Path, device: Device) -> None:
    lines = (
        ["// a comment"] * 30
        + ["__kernel void broken(__global float *x) {", "  x[0] = mistake;", "}"]
        + ["// more"] * 30
    )
    with pytest.raises(CompileError) as caught:
        build.build_program(device, "\n".join(lines), ("-DA=1",), origins="softmax_3, at train.py:12")
    text = str(caught.value)
    assert ">   32 |   x[0] = mistake;" in text
    assert "    31 | __kernel void broken" in text
    assert "    20 |" not in text and "    45 |" not in text
    assert "undeclared identifier 'mistake'" in text
    assert "softmax_3, at train.py:12" in text and "-DA=1" in text
    assert device.info.name in text
    assert build.build_count() == 0 and entries(cache) == []


def test_compile_error_without_lines_shows_the_beginning(cache: Path, device: Device) -> None:
    with pytest.raises(CompileError, match=r"    1 \| __kernel"):
        build.build_program(device, SOURCE, ("-there-is-no-such-option",))


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("Compilation started\n2:22:10: error: use of undeclared identifier\n2:23:8: error: expected ';'", [22, 23]),
        ("error: /tmp/pocl/tempfile_a1:b.cl:7:3: oh\nwarning: x.cl:9:1: unused", [7]),
        ("<kernel>:5:16: error: unknown\n<kernel>:5:20: error: again", [5]),
        ("nothing with a number", []),
    ],
)
def test_error_lines_of_several_compilers(log: str, expected: list[int]) -> None:
    assert failure.error_lines(log) == expected


def test_no_compiler_warning_escapes(cache: Path, device: Device) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = "__kernel void triple(__global float *x) { int unused = 1; x[get_group_id(0)] *= 3.0f; }"
        assert run_triple(device, build.build_program(device, source))


def test_devices_are_there() -> None:
    """The tests above would pass on a machine without devices; the project's own checks must have them."""
    if not DEVICES:
        pytest.skip("no OpenCL device")
    assert all(isinstance(d, DeviceInfo) for d in DEVICES)
