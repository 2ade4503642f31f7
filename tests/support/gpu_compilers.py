"""Real GPU compilers on machines without GPUs: what registers, stack and local memory they give a source's kernels.

Clang makes PTX, which NVIDIA's assembler takes, and AMD's instructions; Intel's offline compiler makes its own. They
are unpacked into a cache folder and not installed: an OpenCL driver would register itself for everybody. The folder
is the environment variable GRAPHCORE_GPU_COMPILERS, or one in the cache folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backends.opencl.compiler.folders import configured_cache_folder

__all__ = ["Amd", "Compiler", "Intel", "Missing", "Nvidia", "Refused", "Resources", "faults"]

_CLANG = ("clang-19", "libclang-cpp19", "libllvm19", "libclang-common-19-dev", "libclc-19", "libclc-19-dev")
_OCLOC = ("intel-opencl-icd", "libigc1", "libigdfcl1", "libigdgmm12", "libopencl-clang14", "libllvmspirvlib14")
_NVCC = "nvidia-cuda-nvcc==13.*"
_LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
# What the drivers' own compilers know anyway: libclc's modules name other triples than the kernels.
_FLAGS = ("-x", "cl", "-cl-std=CL1.2", "-O3", "-cl-mad-enable", "-Wno-linker-warnings", "-S")


class Missing(Exception):
    """A compiler that cannot be had here, and why."""


class Refused(Exception):
    """What a compiler says about a source that it does not take."""


@dataclass(frozen=True)
class Resources:
    """What a compiler gives one kernel.

    Attributes:
        kernel: its name.
        registers: of a work item; on Intel of a hardware thread.
        spilled: registers or bytes of them that are kept in memory for want of registers.
        stack: bytes of a work item's own memory: arrays that no registers hold, and what is spilled.
        local: bytes of a work-group's memory.
        lanes: scalar registers, which all work items share, that are kept in lanes of others for want of registers.
    """

    kernel: str
    registers: int
    spilled: int
    stack: int
    local: int
    lanes: int = 0


@dataclass(frozen=True)
class Compiler(ABC):
    """A compiler for one kind of device.

    Attributes:
        device: what the compiler calls it.
        most: registers that a work item may have, so that one work-group of 256 can load while another one computes.
        local: bytes of local memory that a work-group may have.
    """

    device: str
    most: int
    local: int

    @abstractmethod
    def unpack(self) -> None:
        """Make it ready.

        Raises:
            Missing: it cannot be had.
        """

    @abstractmethod
    def compile(self, source: str, folder: Path) -> list[Resources]:
        """Compile a source, and read what its kernels get.

        Raises:
            Refused: an error; the message is the compiler's.
        """


@dataclass(frozen=True)
class Nvidia(Compiler):
    """Clang to PTX, then NVIDIA's assembler. 65,536 registers are shared by the work-groups of a core."""

    most: int = 128
    local: int = 48 * 1024

    def unpack(self) -> None:
        _clang()
        _ptxas()

    def compile(self, source: str, folder: Path) -> list[Resources]:
        made = folder / "kernels.ptx"
        library = _clang() / "usr/lib/clc/nvptx64--nvidiacl.bc"
        arguments = ["-target", "nvptx64-nvidia-nvcl"]
        arguments += [x for own in ("-target-cpu", self.device, "-target-feature", "+ptx78") for x in ("-Xclang", own)]
        _compiled(source, folder, made, library, arguments)
        text = _told([str(_ptxas()), "-v", f"-arch={self.device}", str(made), "-o", str(folder / "kernels.cubin")])
        parts = re.split(r"Compiling entry function '(\w+)' for '\w+'", text)[1:]
        return [self._read(name, said) for name, said in zip(parts[::2], parts[1::2], strict=True)]

    @staticmethod
    def _read(name: str, said: str) -> Resources:
        return Resources(
            name,
            _number(r"Used (\d+) registers", said),
            sum(_number(rf"(\d+) bytes spill {way}", said) for way in ("stores", "loads")),
            _number(r"(\d+) bytes stack frame", said),
            _number(r"(\d+) bytes smem", said, 0),
        )


@dataclass(frozen=True)
class Amd(Compiler):
    """Clang to AMD's instructions. A work item has at most 256 registers; of others, which only keep values, two
    work-groups of a core leave none."""

    most: int = 256
    local: int = 64 * 1024

    def unpack(self) -> None:
        _clang()

    def compile(self, source: str, folder: Path) -> list[Resources]:
        library = _clang() / f"usr/lib/clc/{self.device}-amdgcn--.bc"
        arguments = ["-target", "amdgcn-amd-amdhsa", f"-mcpu={self.device}", "-nogpulib"]
        arguments.append("-Rpass-analysis=kernel-resource-usage")
        text = _compiled(source, folder, folder / "kernels.s", library, arguments)
        parts = re.split(r"remark: Function Name: (\w+)", text)[1:]
        return [self._read(name, said) for name, said in zip(parts[::2], parts[1::2], strict=True)]

    @staticmethod
    def _read(name: str, said: str) -> Resources:
        return Resources(
            name,
            _number(r" VGPRs: (\d+)", said) + _number(r"AGPRs: (\d+)", said, 0),
            _number(r"VGPRs Spill: (\d+)", said),
            _number(r"ScratchSize \[bytes/lane\]: (\d+)", said),
            _number(r"LDS Size \[bytes/block\]: (\d+)", said),
            _number(r"SGPRs Spill: (\d+)", said),
        )


@dataclass(frozen=True)
class Intel(Compiler):
    """Intel's offline compiler; what kernels get stands in a section of its binaries."""

    most: int = 256
    local: int = 64 * 1024

    def unpack(self) -> None:
        _ocloc()

    def compile(self, source: str, folder: Path) -> list[Resources]:
        given = folder / "kernels.cl"
        given.write_text(source, encoding="utf-8")
        _told(
            [
                *(str(_ocloc() / "usr/bin/ocloc"), "compile", "-file", str(given), "-device", self.device),
                *("-options", "-cl-std=CL1.2", "-out_dir", str(folder), "-output", "kernels"),
                *("-internal_options", "-cl-intel-allow-zebin -cl-intel-enable-zebin"),
            ],
            _ocloc(),
        )
        (binary,) = folder.glob("kernels*.bin")
        section = re.search(rb"version: +'[\d.]+'\nkernels:.*?\0", binary.read_bytes(), re.DOTALL)
        if section is None:
            raise Refused(f"{binary.name} does not say what its kernels get")
        kernels = section.group().decode().partition("\nkernels_misc_info:")[0]
        parts = re.split(r"\n  - name: +(\w+)\n", kernels)[1:]
        return [self._read(name, said) for name, said in zip(parts[::2], parts[1::2], strict=True)]

    @staticmethod
    def _read(name: str, said: str) -> Resources:
        memory = {use: int(size) for use, size in re.findall(r"usage: +(\w+)\n +size: +(\d+)", said)}
        return Resources(
            name,
            _number(r"grf_count: +(\d+)", said),
            memory.get("spill_fill_space", 0) + memory.get("single_space", 0),
            memory.get("private_space", 0),
            _number(r"slm_size: +(\d+)", said, 0),
        )


def faults(compiler: Compiler, found: Sequence[Resources], stack: int = 0, lanes: int = 0) -> list[str]:
    """What is wrong with kernels' resources: a line for each.

    Args:
        compiler: whose limits hold.
        found: what the kernels got.
        stack: bytes of a work item's own memory that a kernel may have.
        lanes: scalar registers that a kernel may keep in lanes of others.
    """
    lines = [] if found else [f"{compiler.device}: no kernel was compiled"]
    for r in found:
        what = f"{compiler.device}: {r.kernel}"
        lines += [f"{what} spills: {r}"] if r.spilled else []
        lines += [f"{what} keeps {r.lanes} scalars in lanes, of {lanes}"] if r.lanes > lanes else []
        lines += [f"{what} has {r.registers} registers of {compiler.most}"] if r.registers > compiler.most else []
        lines += (
            [f"{what} has {r.local} bytes of local memory, of {compiler.local}"] if r.local > compiler.local else []
        )
        lines += [f"{what} has {r.stack} bytes of stack, of {stack}"] if r.stack > stack and not r.spilled else []
    return lines


def _number(pattern: str, text: str, otherwise: int | None = None) -> int:
    found = re.search(pattern, text)
    if found is None and otherwise is None:
        raise Refused(f"the compiler does not say {pattern!r}:\n{text[:2000]}")
    return int(found.group(1)) if found is not None else int(otherwise or 0)


def _compiled(source: str, folder: Path, made: Path, library: Path, arguments: Sequence[str]) -> str:
    given = folder / "kernels.cl"
    given.write_text(source, encoding="utf-8")
    linked = [
        x for own in ("-finclude-default-header", "-mlink-builtin-bitcode", str(library)) for x in ("-Xclang", own)
    ]
    clang = str(_clang() / "usr/lib/llvm-19/bin/clang")
    return _told([clang, *_FLAGS, *arguments, *linked, "-o", str(made), str(given)], _clang())


def _told(command: Sequence[str], root: Path | None = None) -> str:
    """What a compiler says."""
    libraries = {} if root is None else {"LD_LIBRARY_PATH": str(root / _LIBRARIES)}
    done = subprocess.run(
        command, env={**os.environ, **libraries}, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise Refused(f"{Path(command[0]).name} gives {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
    return done.stdout + done.stderr


# --- unpacking --------------------------------------------------------------------------------------------------------


def _clang() -> Path:
    return _unpacked(_Kit("clang", _CLANG, ("usr/lib/llvm-19/bin/clang", "--version")))


def _ocloc() -> Path:
    return _unpacked(_Kit("ocloc", _OCLOC, ("usr/bin/ocloc", "ids", "dg2-g10")))


def _ptxas() -> Path:
    root = _unpacked(_Kit("ptxas", (), ("bin/ptxas", "--version"), _NVCC))
    return root / "bin/ptxas"


@dataclass(frozen=True)
class _Kit:
    """Packages that make a compiler, and a command that shows that it runs."""

    name: str
    debian: tuple[str, ...]
    shows: tuple[str, ...]
    wheel: str = ""


def _unpacked(kit: _Kit) -> Path:
    root = _tried(kit)
    if isinstance(root, Missing):
        raise root
    return root


@cache
def _tried(kit: _Kit) -> Path | Missing:
    """Where it lies, or why it does not: asked once, as there may be a network that never answers."""
    try:
        return _placed(kit)
    except Missing as error:
        return error


def _placed(kit: _Kit) -> Path:
    chosen = os.environ.get("GRAPHCORE_GPU_COMPILERS")
    base = Path(chosen).expanduser().absolute() if chosen else configured_cache_folder() / "gpu-compilers"
    root = base / kit.name
    if not root.exists():
        try:
            base.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=base) as name:  # the folder appears at once, however many make it
                fresh = Path(name) / kit.name
                _fill(kit, fresh, Path(name))
                if not root.exists():
                    fresh.rename(root)
        except OSError as error:
            raise Missing(f"{kit.name}: cannot write {base}: {error}") from error
    _got(kit, [str(root / kit.shows[0]), *kit.shows[1:]], {"LD_LIBRARY_PATH": str(root / _LIBRARIES)})
    return root


def _fill(kit: _Kit, root: Path, folder: Path) -> None:
    root.mkdir()
    if kit.wheel:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--quiet"]
        _got(kit, [*pip, "--retries", "1", "--timeout", "20", "--dest", str(folder), kit.wheel])
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (inside,) = (n for n in packed.namelist() if n.endswith("/bin/ptxas"))
            target = root / "bin/ptxas"
            target.parent.mkdir()
            with packed.open(inside) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        target.chmod(0o755)
        return
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise Missing(f"{kit.name}: this machine has no {tool}")
    _got(
        kit,
        ["apt-get", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "download", *kit.debian],
        at=folder,
    )
    for package in sorted(folder.glob("*.deb")):
        _got(kit, ["dpkg", "-x", str(package), str(root)])


def _got(kit: _Kit, command: Sequence[str], more: dict[str, str] | None = None, at: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(more or {})},
            cwd=at,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{kit.name}: {' '.join(command)}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Missing(f"{kit.name}: {' '.join(command)} gives {done.returncode}: {said[-1] if said else 'nothing'}")
