"""Finding runtimes, listing and opening OpenCL devices, and the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.opencl.compiler import folders
from backends.opencl.device import device as device_module
from backends.opencl.device.device import DeviceInfo, icd
from graphcore.base.errors import DeviceError

ROOT = Path(__file__).resolve().parents[3]


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process, without what an earlier `icd.load` has set here."""
    ours = ("OCL_ICD_VENDORS", "POCL_CACHE_DIR")
    environment = {k: v for k, v in os.environ.items() if not k.endswith(ours)} | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def info(index: int, vendor: str, kind: str, **changes: Any) -> DeviceInfo:
    values: dict[str, Any] = {
        "platform": f"{vendor} platform",
        "name": f"{vendor} {kind}",
        "version": "3.0",
        "driver": "1",
    }
    values |= {
        "compute_units": 2,
        "local_mem": 1 << 15,
        "global_mem": 1 << 30,
        "max_alloc": 1 << 28,
        "max_work_group": 1024,
    }
    values |= {"extensions": frozenset(), "fp64": True, "fp16": False, "vector_width": 8} | changes
    return DeviceInfo(index=index, vendor=vendor, kind=kind, **values)


# --- choosing --------------------------------------------------------------------------------------------------------

MIXED = [
    (info(0, "oclgrind", "cpu"), "grind"),
    (info(1, "pocl", "cpu"), "pocl"),
    (info(2, "intel", "other"), "emulator"),
    (info(3, "intel", "cpu"), "intel"),
    (info(4, "nvidia", "gpu"), "nvidia"),
]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("auto", "nvidia"),
        ("opencl", "nvidia"),
        (" OpenCL ", "nvidia"),
        ("opencl:gpu", "nvidia"),
        ("opencl:cpu", "intel"),
        ("opencl:intel", "intel"),
        ("opencl:pocl", "pocl"),
        ("opencl:oclgrind", "grind"),
        ("opencl:2", "emulator"),
        ("opencl:nvidia:gpu", "nvidia"),
    ],
)
def test_device_strings(spec: str, expected: str) -> None:
    assert device_module._choose(spec, MIXED)[1] == expected


@pytest.mark.parametrize("count", range(len(MIXED)))
def test_preference_without_the_better_ones(count: int) -> None:
    order = ["nvidia", "intel", "pocl", "emulator", "grind"]
    left = [d for d in MIXED if d[1] not in order[:count]]
    assert device_module._choose("opencl", left)[1] == order[count]


@pytest.mark.parametrize("spec", ["opencl:amd", "opencl:7", "opencl:nvidia:cpu"])
def test_unknown_device_lists_what_there_is(spec: str) -> None:
    with pytest.raises(DeviceError, match=spec) as caught:
        device_module._choose(spec, MIXED)
    assert all(i.name in str(caught.value) and i.spec in str(caught.value) for i, _ in MIXED)


@pytest.mark.parametrize("spec", ["cuda", "", "opencl:", "opencl::0", "auto:0", "opencl 0"])
def test_malformed_device_string(spec: str) -> None:
    with pytest.raises(DeviceError, match="no OpenCL device string"):
        device_module._choose(spec, MIXED)


def test_no_device_at_all_says_what_to_install() -> None:
    with pytest.raises(DeviceError, match=r"pip install graphcore\[cpu\]"):
        device_module._choose("auto", [])


# --- what devices are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "vendor", "key"),
    [
        ("Intel(R) OpenCL", "Intel(R) Corporation", "intel"),
        ("Portable Computing Language", "The pocl project", "pocl"),
        ("NVIDIA CUDA", "NVIDIA Corporation", "nvidia"),
        ("AMD Accelerated Parallel Processing", "Advanced Micro Devices, Inc.", "amd"),
        ("Oclgrind", "University of Bristol", "oclgrind"),
        ("ARM Platform", "ARM", "arm"),
        ("Clover", "Mesa", "other"),
        ("Charm", "Swarm Ltd.", "other"),
    ],
)
def test_vendor_keys(platform: str, vendor: str, key: str) -> None:
    assert device_module._vendor_key(platform, vendor) == key


@pytest.mark.parametrize(
    ("vendor", "kind", "version", "flags", "width"),
    [
        ("intel", "cpu", "OpenCL 3.1", {"avx2", "avx512f"}, 16),
        ("intel", "cpu", "OpenCL 3.1", {"avx2"}, 8),
        ("pocl", "cpu", "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-znver3", {"avx512f"}, 8),
        ("pocl", "cpu", "OpenCL 3.0 PoCL HSTR: cpu-x86_64-pc-linux-gnu-znver4", {"avx512f"}, 16),
        ("pocl", "cpu", "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-skylake-avx512", {"avx512f"}, 16),
        ("pocl", "cpu", "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-skylake", {"avx2"}, 8),
        ("pocl", "cpu", "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-nehalem", set(), 4),
        ("pocl", "cpu", "OpenCL 3.0 PoCL HSTR: pthread-aarch64-unknown-linux-gnu-neoverse-n1", set(), 4),
        ("nvidia", "gpu", "OpenCL 3.0 CUDA", {"avx512f"}, 4),
        ("other", "cpu", "OpenCL 1.2", {"avx512f"}, 4),
    ],
)
def test_vector_width(
    vendor: str, kind: str, version: str, flags: set[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHCORE_VECTOR_WIDTH", raising=False)  # under which the suite may run
    assert device_module._vector_width(vendor, kind, version, frozenset(flags)) == width


def test_lanes_keep_vectors_within_the_registers() -> None:
    wide, narrow = info(0, "intel", "cpu", vector_width=16), info(1, "pocl", "cpu", vector_width=8)
    assert [wide.lanes(size) for size in (1, 2, 4, 8)] == [16, 16, 16, 8]
    assert [narrow.lanes(size) for size in (1, 2, 4, 8)] == [8, 8, 8, 4]


def test_listed_devices_open_and_add() -> None:
    cl: Any = pytest.importorskip("pyopencl")
    devices = device_module.list_devices()
    if not devices:
        pytest.skip("no OpenCL device")
    assert [d.index for d in devices] == list(range(len(devices)))
    for listed in devices:
        opened = device_module.open_device(listed.spec)
        assert (opened.info.name, opened.info.platform) == (listed.name, listed.platform)
        assert listed.compute_units > 0 and 0 < listed.max_alloc <= listed.global_mem
        assert listed.vector_width in (4, 8, 16)
        again = device_module.open_device(listed.spec)
        assert again.context is opened.context and again.queue is not opened.queue
        assert opened.queue.properties & cl.command_queue_properties.OUT_OF_ORDER_EXEC_MODE_ENABLE == 0
        profiled = device_module.open_device(listed.spec, profiling=True)
        assert profiled.queue.properties & cl.command_queue_properties.PROFILING_ENABLE


def test_half_arithmetic_is_probed_by_compiling() -> None:
    pytest.importorskip("pyopencl")
    for listed in device_module.list_devices():
        if listed.vendor in ("intel", "pocl"):  # they announce what they have
            opened = device_module.open_device(listed.spec)
            assert device_module._compiles_half(icd.load(), opened.context) == listed.fp16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_child_gets_an_error_instead_of_a_hang() -> None:
    pytest.importorskip("pyopencl")
    code = """
import os, signal
from backends.opencl.device.device import list_devices, open_device
from graphcore.base.errors import DeviceError
opened = open_device("auto")
def refused(call):
    try:
        call()
    except DeviceError as error:
        return "spawn" in str(error)
    return False
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if all(refused(c) for c in (list_devices, lambda: open_device("auto"), opened.check_process)) else 7)
print(os.waitpid(child, 0)[1], len(list_devices()) > 0)
"""
    done = run(code)
    if "no OpenCL device was found" in done.stderr:
        pytest.skip("no OpenCL device")
    assert done.stdout.split() == ["0", "True"], done.stderr


# --- the runtimes ----------------------------------------------------------------------------------------------------

LIST = """
from backends.opencl.device.device import list_devices
print(sorted({d.vendor for d in list_devices()}))
"""


def test_installed_runtimes_are_found_without_any_setting() -> None:
    pytest.importorskip("pyopencl")
    done = run(LIST)
    assert done.returncode == 0, done.stderr
    if icd._find_intel() is not None:
        assert "intel" in done.stdout


def test_vendor_folder_of_the_user_is_respected(tmp_path: Path) -> None:
    pytest.importorskip("pyopencl")
    done = run(LIST, OCL_ICD_VENDORS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "intel" not in done.stdout


def test_child_process_makes_its_own_choice(tmp_path: Path) -> None:
    pytest.importorskip("pyopencl")
    code = f"""
import os, subprocess, sys
from backends.opencl.device import icd
icd.load()
mine = os.environ["POCL_CACHE_DIR"]
child = "import os; from backends.opencl.device import icd; icd.load(); print(os.environ['POCL_CACHE_DIR'])"
theirs = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout.strip()
print(mine != theirs and mine.startswith({str(tmp_path)!r}) and theirs.startswith({str(tmp_path)!r}))
print(sorted(p for p in os.listdir({str(tmp_path / "pocl")!r})) == [os.path.basename(mine)])
"""
    done = run(code, GRAPHCORE_CACHE=str(tmp_path))
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_cache_folder_of_pocl_is_the_users_if_set(tmp_path: Path) -> None:
    pytest.importorskip("pyopencl")
    imports = "import os\nfrom backends.opencl.compiler import pocl_cache\nfrom backends.opencl.device import icd\n"
    code = imports + "icd.load()\n"
    done = run(code + "print(os.environ['POCL_CACHE_DIR'], pocl_cache.is_active())", POCL_CACHE_DIR=str(tmp_path))
    assert done.stdout.split() == [str(tmp_path), "False"], done.stderr


def test_users_own_import_of_pyopencl_does_no_harm() -> None:
    pytest.importorskip("pyopencl")
    plain, early = run(LIST), run("import pyopencl\n" + LIST)
    assert early.returncode == 0, early.stderr
    assert early.stdout == plain.stdout


def test_missing_pyopencl_says_what_to_install() -> None:
    code = """
import sys
sys.modules["pyopencl"] = None
from backends.opencl.device.device import list_devices
from graphcore.base.errors import DeviceError
try:
    list_devices()
except DeviceError as error:
    print(error)
"""
    assert "pip install graphcore[cpu]" in run(code).stdout


def test_broken_vendor_files_are_left_out(tmp_path: Path) -> None:
    library = tmp_path / "libworks.so"
    library.write_bytes(b"")
    for name, text in {
        "a.icd": f"{library}\n",
        "b.icd": "/nowhere/lib.so\n",
        "c.icd": "",
        "d.icd": "libbare.so.1",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "e.icd").mkdir()
    assert icd._registered(tmp_path) == {"a.icd": str(library), "d.icd": "libbare.so.1"}


def test_vendor_folder_is_shared_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path))
    files = {"one.icd": "/lib/one.so"}
    folder = icd._vendor_folder(files)
    assert icd._vendor_folder(files) == folder and icd._vendor_folder({"two.icd": "/lib/two.so"}) != folder
    (folder / "one.icd").write_text("damaged")
    fresh = icd._vendor_folder(files)
    assert fresh != folder and (fresh / "one.icd").read_text() == "/lib/one.so\n"


def test_many_processes_start_at_once(tmp_path: Path) -> None:
    pytest.importorskip("pyopencl")
    environment = {k: v for k, v in os.environ.items() if not k.endswith(("OCL_ICD_VENDORS", "POCL_CACHE_DIR"))}
    environment |= {"PYTHONPATH": str(ROOT), "GRAPHCORE_CACHE": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", LIST]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)
    ]
    results = [(*p.communicate(timeout=120), p.returncode) for p in processes]
    assert {status for _, _, status in results} == {0}, results
    assert len({out for out, _, _ in results}) == 1


# --- the cache folder ------------------------------------------------------------------------------------------------


def test_cache_folder_is_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path / "deep" / "er"))
    assert folders.cache_folder() == tmp_path / "deep" / "er"
    assert folders.cache_folder().is_dir()


def test_cache_folder_that_cannot_be_written_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="GRAPHCORE_CACHE") as caught:
        first, second = folders.cache_folder(), folders.cache_folder()
    assert len(caught) == 1
    assert first == second and first.is_dir()
    assert first.stat().st_mode & 0o077 == 0, "others could plant kernels there"
