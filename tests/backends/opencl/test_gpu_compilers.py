"""What the compilers of three vendors make of training steps' kernels: no spilled registers, and room for several
work-groups on a core. No GPU is needed; the compilers are unpacked on the first run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from support.gpu_compilers import Amd, Compiler, Intel, Missing, Nvidia, Refused, Resources, faults

from backends.opencl.program import Source, generate
from backends.opencl.target import device_model, make_target
from benchmarks.golden import DEVICES, Program, steps
from passes.pipeline import compile_graph

# Compilers, and for which of the described devices they compile.
COMPILERS = {
    "sm_80": (Nvidia("sm_80"), "h100"),
    "sm_86": (Nvidia("sm_86"), "rtx"),
    "sm_90": (Nvidia("sm_90"), "h100"),
    "gfx90a": (Amd("gfx90a"), "mi300"),
    "gfx942": (Amd("gfx942"), "mi300"),
    "gfx1100": (Amd("gfx1100"), "radeon"),
    "dg2": (Intel("dg2-g10"), "arc"),
}
MODELS = ("mlp", "lenet", "gpt", "embedding")
# A row's three spaces are an array that is indexed by numbers of the row, so it lies in memory where a device has no
# registers that can be indexed.
SPACES = 3 * 8
HUNGRY = """
__kernel __attribute__((reqd_work_group_size(1024, 1, 1))) void hungry(__global float* x, const int rounds) {
  float v[320];
  const int i = (int)get_group_id(0) * 1024 + (int)get_local_id(0);
  _Pragma("unroll") for (int k = 0; k < 320; ++k) v[k] = x[i + 1024 * k];
  for (int n = 0; n < rounds; ++n) {
    barrier(CLK_LOCAL_MEM_FENCE);
    _Pragma("unroll") for (int k = 0; k < 320; ++k) v[k] = fma(v[k], v[(k + 7) % 320], v[(k + 100) % 320]);
  }
  _Pragma("unroll") for (int k = 0; k < 320; ++k) x[i + 1024 * k] = v[k];
}
"""
ENOUGH = Resources("step_0", registers=64, spilled=0, stack=0, local=8 * 1024)


@pytest.fixture(scope="module", params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> Iterator[tuple[Compiler, str]]:
    """A compiler and the name of the device it compiles for."""
    found, device = COMPILERS[request.param]
    try:
        found.unpack()
    except Missing as error:
        pytest.skip(str(error))
    yield found, device


@cache
def programs() -> dict[str, Program]:
    return {p.name: p for p in steps() if p.name in MODELS}


@cache
def source(model: str, device: str) -> Source:
    program, info = programs()[model], DEVICES[device]
    return generate(compile_graph(program.graph, make_target(info), program.sizes).plan, device_model(info))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_steps_fit_registers_and_local_memory(compiler: tuple[Compiler, str], model: str, tmp_path: Path) -> None:
    made, device = compiler
    given = source(model, device)
    found = made.compile(given.text, tmp_path)
    assert len(found) == len(given.functions)
    assert not (wrong := faults(made, found, stack=SPACES)), "\n".join(wrong)


@pytest.mark.slow
def test_a_plan_in_one_launch_is_taken(compiler: tuple[Compiler, str], tmp_path: Path) -> None:
    """Where the addresses of all functions are alive at once, some may go to the stack or to lanes. No other group has
    to find room beside the one that runs a plan, so it may have all registers that instructions can name."""
    made, device = compiler
    found = made.compile(source("mlp", device).whole, tmp_path)
    assert len(found) == 1
    assert not (wrong := faults(replace(made, most=255), found, stack=SPACES + 32, lanes=16)), "\n".join(wrong)


@pytest.mark.slow
def test_a_kernel_that_wants_too_much_is_reported(compiler: tuple[Compiler, str], tmp_path: Path) -> None:
    """What the other tests would show if something were wrong."""
    wrong = faults(compiler[0], compiler[0].compile(HUNGRY, tmp_path))
    assert any("hungry spills" in line for line in wrong), wrong


@pytest.mark.slow
def test_a_broken_source_is_refused_with_the_compilers_words(compiler: tuple[Compiler, str], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no_such_function"):
        compiler[0].compile("__kernel void broken(__global float* x) { x[0] = no_such_function(1); }", tmp_path)


def test_every_limit_is_held() -> None:
    made = Nvidia("sm_90")
    assert faults(made, [ENOUGH]) == []
    assert "no kernel" in faults(made, [])[0]
    for change, words in (
        ({"registers": 129}, "129 registers of 128"),
        ({"spilled": 4}, "spills"),
        ({"stack": 8}, "8 bytes of stack, of 0"),
        ({"lanes": 3}, "keeps 3 scalars in lanes, of 0"),
        ({"local": 48 * 1024 + 1}, "49153 bytes of local memory, of 49152"),
    ):
        (line,) = faults(made, [replace(ENOUGH, **change)])
        assert line.startswith("sm_90: step_0") and words in line
