"""The CPU matrix-product generator against NumPy in float64, on every OpenCL CPU runtime that is installed.

Each runtime runs in a process of its own (``python test_gemm_code.py RUNTIME SET``): a compiler that crashes or hangs
then fails a test instead of ending the session, and runtimes do not meet in one process.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support.runtimes import open_runtime, result_of, results

from backends.codegen.cpu_product.code import GemmConfig, Operand, choose, emit_gemm, tasks
from backends.codegen.opencl_c import OpenCL

GUARD = 64
"""Elements before and after every buffer: NaN, so that loads beyond the data show and stores there are seen."""

HEAD = """
#pragma OPENCL FP_CONTRACT OFF
#ifdef cl_intel_vec_len_hint
#define GC_HINT __attribute__((intel_vec_len_hint(1)))
#else
#define GC_HINT
#endif
#define GC_NOINLINE __attribute__((noinline))
"""


@dataclass(frozen=True)
class Case:
    """One product: which operands are transposed in memory, the sizes the text is built for and those it runs with."""

    layout: str
    m: int
    n: int
    k: int
    config: GemmConfig | None = None
    runtime: str = ""
    also: tuple[tuple[int, int, int], ...] = ()
    pad: int = 3
    relu: bool = False
    dtype: str = "float"
    vendor: str = "amd"
    cores: int = 2
    splits: int = 1


def _quick() -> dict[str, Case]:
    """Each path of the generator once, with sizes that leave tails. Configurations are for vectors of 8."""
    c = GemmConfig
    return {
        "plain": Case("NN", 13, 37, 7, c(4, 16, 8, m_block=2), "m", ((1, 37, 7), (3, 37, 7), (40, 37, 7))),
        "plain-exact": Case("NN", 16, 32, 8, c(4, 16, 8, m_block=2)),
        "packed": Case("NN", 13, 37, 29, c(6, 16, 8, m_block=2, pack_b=True), "m", ((5, 37, 29),)),
        "narrow": Case("NN", 33, 10, 21, c(8, 16, 8, m_block=2, pack_b=True), "m"),
        "one-column": Case("NN", 9, 1, 5, c(4, 8, 8, pack_b=True)),
        "one-row": Case("NN", 1, 70, 40, c(1, 32, 8), "m", ((3, 70, 40),)),
        "turned": Case("NT", 13, 37, 29, c(4, 24, 8, pack_b=True), "m", ((1, 37, 29),)),
        "turned-narrow": Case("NT", 9, 5, 21, c(4, 8, 8, pack_b=True), "m"),
        "turned-short": Case("NT", 12, 50, 3, c(4, 16, 8, pack_b=True), "m"),
        "weights": Case("TN", 21, 37, 19, c(8, 16, 8, m_block=2), "k", ((21, 37, 1), (21, 37, 64))),
        "strips": Case("TN", 21, 40, 50, c(6, 16, 8, 16, 2, 2, 2, True, True), "k", ((21, 40, 1), (21, 40, 33))),
        "strip-each": Case("TN", 21, 40, 50, c(6, 16, 8, 64, 2, 0, 0, True, False)),
        "blocked": Case("NN", 13, 37, 50, c(4, 16, 8, 16, 2, 3, 2, False, True), "mk", ((2, 37, 16), (14, 37, 33))),
        "both-turned": Case("TT", 11, 19, 23, c(4, 8, 8, 8, 3, 3, 1, True, True), "m", ((2, 19, 23),)),
        "runtime-n": Case("NN", 11, 19, 23, c(4, 16, 8, pack_b=True), "mn", ((4, 3, 23), (4, 40, 23))),
        "runtime-n-turned": Case("NT", 11, 19, 23, c(4, 16, 8, 16, 2, 2, 1, False, True), "mnk", ((4, 3, 5),)),
        "dot": Case("NT", 5, 13, 37, c(2, 4, 8, dot=True, n_block=2), "mk", ((1, 13, 7), (6, 13, 40))),
        "dot-single": Case("NT", 1, 9, 16, c(1, 8, 8, dot=True, k_unroll=1)),
        "split": Case("TN", 9, 21, 50, c(4, 16, 8, split_k=3, m_block=2), "k", ((9, 21, 2), (9, 21, 100))),
        "split-packed": Case("NN", 9, 21, 50, c(4, 16, 8, 8, 2, 2, 1, False, True, split_k=4), "k", ((9, 21, 1),)),
        "split-dot": Case("NT", 3, 21, 50, c(1, 4, 8, dot=True, split_k=2), "k"),
        "loads": Case("NN", 13, 37, 29, c(6, 16, 8, 16, 2, 2, 3, True, True), "m", relu=True),
        "loads-plain": Case("TN", 13, 37, 29, c(4, 16, 8), "k", relu=True),
        "double": Case("NT", 9, 21, 30, c(4, 8, 4, pack_b=True, dtype="double"), "m", dtype="double"),
        "width-four": Case("NN", 9, 22, 30, c(4, 12, 4, pack_b=True), "m"),
        "mlp": Case("NN", 32, 64, 64, None, "m", ((1, 64, 64), (7, 64, 64))),
        "mlp-loss": Case("NN", 32, 10, 64, None, "m", ((1, 10, 64),)),
        "mlp-hidden-gradient": Case("NT", 32, 64, 10, None, "m", ((5, 64, 10),)),
        "mlp-weight-gradient": Case("TN", 64, 10, 32, None, "k", ((64, 10, 1), (64, 10, 300))),
    }


def _full() -> dict[str, Case]:
    """Chosen schedules over random sizes; the same text also runs with another batch."""
    draw = random.Random(5)
    sizes = (1, 2, 3, 5, 8, 10, 16, 17, 31, 48, 64, 100, 130, 257)
    cases = {}
    for number in range(60):
        layout = draw.choice(("NN", "NT", "TN", "TT"))
        m, n, k = (draw.choice(sizes) for _ in range(3))
        runtime = draw.choice({"NN": ("m", "", "mn"), "NT": ("m", "mnk"), "TN": ("k", "")}.get(layout, ("", "mk")))
        other = tuple(
            draw.choice(sizes) if axis in runtime else size for axis, size in zip("mnk", (m, n, k), strict=True)
        )
        cases[f"random-{number}"] = Case(
            layout, m, n, k, None, runtime, ((other[0], other[1], other[2]),), draw.choice((0, 3)), number % 7 == 0,
            "double" if number % 5 == 0 else "float", draw.choice(("amd", "intel")), draw.choice((1, 2, 16)),
            draw.choice((1, 8)))  # fmt: skip
    cases["long-thin"] = Case("TN", 20, 10, 9001, None, "k", ((20, 10, 50),), splits=8)
    cases["deep-packed"] = Case("NN", 300, 70, 2500, None, "m", ((9, 70, 2500),), vendor="intel")
    cases["deep-strips"] = Case("TN", 300, 520, 700, None, "k", ((300, 520, 20),))
    cases["deep-turned"] = Case("NT", 65, 100, 3001, None, "m", ((33, 100, 3001),))
    return cases


SETS = {"quick": _quick(), "full": _full()}
RUNTIMES = {"intel": 16, "pocl": 8}
TIMEOUT = 600.0  # seconds for all cases of a set


def vector(width: int, value: str) -> str:
    """An unaligned vector (or a scalar) at a C pointer expression."""
    return f"*({value})" if width == 1 else f"*(__global gm_v{width}*)({value})"


def relu_load(x: Operand) -> Callable[[str, str, int], str]:
    """A fused load: max(value, 0)."""
    return lambda i, j, width: f"fmax({vector(width, f'{x.pointer} + ({i}) * {x.row} + ({j}) * {x.col}')}, 0)"


def configured(case: Case, width: int) -> tuple[GemmConfig, Operand, Operand, tuple[int, int, int]]:
    """(schedule, A, B, row lengths of A, B and C in memory) of a case."""
    # A row length that is known only at run time cannot be a constant stride: leave room for the largest one.
    sizes = [(case.m, case.n, case.k), *case.also]
    axes = ["m" if case.layout[0] == "T" else "k", "k" if case.layout[1] == "T" else "n"]
    lengths = [max(size["mnk".index(axis)] for size in sizes) + case.pad for axis in axes]
    a = Operand("A", 1, lengths[0]) if case.layout[0] == "T" else Operand("A", lengths[0], 1)
    b = Operand("B", 1, lengths[1]) if case.layout[1] == "T" else Operand("B", lengths[1], 1)
    if case.relu:
        a, b = (replace(x, load=relu_load(x)) for x in (a, b))
    width = width // 2 if case.dtype == "double" else width
    config = case.config or choose(
        case.m, case.n, case.k, a, b, width, case.cores, case.vendor, case.dtype, "n" not in case.runtime, case.splits
    )
    return config, a, b, (lengths[0], lengths[1], max(size[1] for size in sizes) + case.pad)


def source_of(name: str, case: Case, width: int) -> str:
    """The generated function and a kernel that runs it; the epilogue works in place, so a second store shows."""
    config, a, b, (_, _, length) = configured(case, width)
    dims = [
        axis if axis in case.runtime else str(size) for axis, size in zip("mnk", (case.m, case.n, case.k), strict=True)
    ]
    kind = case.dtype
    params = f"__global const {kind}* A, __global const {kind}* B, __global {kind}* C, int m, int n, int k, int part"

    def epilogue(row: str, col: str, acc: str, lanes: int) -> list[str]:
        part = "gm_split * part + " if config.split_k > 1 else ""
        place = vector(lanes, f"C + {part}{row} * {length} + {col}")
        return [f"{place} = {place} * 2 + {acc};"]

    text = emit_gemm(OpenCL(), f"gemm_{name}", params, config, (dims[0], dims[1], dims[2]), a, b, epilogue)
    shifted = params.replace("A,", "A0,").replace("B,", "B0,").replace("C,", "C0,")
    return text + (
        f"__kernel GC_HINT void k_{name}({shifted}) "
        f"{{ gemm_{name}(A0 + {GUARD}, B0 + {GUARD}, C0 + {GUARD}, m, n, k, part, (int)get_group_id(0)); }}\n"
    )


def check(
    opened: tuple[Any, Any, Any], program: Any, name: str, case: Case, width: int, exact: bool = False
) -> dict[str, float]:
    """Run one case with all its sizes: error relative to the largest value, guards, repeatability."""
    cl, context, queue = opened
    config, _, _, lengths = configured(case, width)
    real = np.dtype(case.dtype.replace("float", "float32").replace("double", "float64"))
    kernel, rng = cl.Kernel(program, f"k_{name}"), np.random.default_rng(7)
    found = {"error": 0.0, "guards": 1.0, "same": 1.0}
    for m, n, k in ((case.m, case.n, case.k), *case.also):
        rows = [k if case.layout[0] == "T" else m, n if case.layout[1] == "T" else k, m * config.split_k]
        cols = [m if case.layout[0] == "T" else k, k if case.layout[1] == "T" else n, n]
        host = [np.full(GUARD * 2 + count * length, np.nan, real) for count, length in zip(rows, lengths, strict=True)]
        views = [
            buffer[GUARD:-GUARD].reshape(-1, length)[:, :count]
            for buffer, length, count in zip(host, lengths, cols, strict=True)
        ]
        for view in views:
            view[...] = rng.standard_normal(view.shape)
        left, right = (np.maximum(view, 0) if case.relu else view for view in views[:2])
        left, right = (x.T if turned == "T" else x for x, turned in zip((left, right), case.layout, strict=True))
        expected = left.astype(np.float64) @ right.astype(np.float64)
        results = []
        for _ in range(2):
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
            # The simulator sees loads beyond a buffer: there, buffers end with the last element.
            ends = [-GUARD - length + count if exact else None for length, count in zip(lengths, cols, strict=True)]
            buffers = [cl.Buffer(context, flags, hostbuf=buffer[:end]) for buffer, end in zip(host, ends, strict=True)]
            kernel(queue, (tasks(config, m, n),), (1,), *buffers, *(np.int32(x) for x in (m, n, k, m * lengths[2])))
            results.append(np.full_like(host[2], np.nan))
            cl.enqueue_copy(queue, results[-1][: ends[2]], buffers[2])
        got = results[0][GUARD:-GUARD].reshape(-1, lengths[2])
        outside = np.concatenate([results[0][:GUARD], results[0][-GUARD:], got[:, n:].ravel()])
        sums = (got[:, :n].astype(np.float64) - 2 * views[2].astype(np.float64)).reshape(-1, m, n).sum(0)
        error = np.nan_to_num(np.abs(sums - expected), nan=1e30).max() / max(1.0, np.abs(expected).max())
        found["error"] = max(found["error"], float(error))
        found["guards"] *= float(np.isnan(outside).all())
        found["same"] *= float(results[0].tobytes() == results[1].tobytes())
    return found


def expect(runtime: str, group: str, name: str) -> None:
    """Assert one case, or skip where the runtime is missing."""
    found = result_of(__file__, runtime, group, name, TIMEOUT)
    limit = 1e-13 if SETS[group][name].dtype == "double" else 1e-5
    assert found["error"] < limit, found
    assert found["guards"] == 1, "stored out of bounds"
    assert found["same"] == 1, "not deterministic"


@pytest.mark.parametrize("name", SETS["quick"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_path_matches_numpy(runtime: str, name: str) -> None:
    """Each path of the generator, with tails and other batches than the text was built for."""
    expect(runtime, "quick", name)


def test_no_load_or_store_leaves_its_buffer() -> None:
    """Each path in Oclgrind, a simulator that reports accesses out of bounds and data races."""
    found = results(__file__, "oclgrind", "quick", TIMEOUT)
    if found.get("missing"):
        pytest.skip("Oclgrind is not installed")
    assert not found["reports"]
    for name in SETS["quick"]:
        expect("oclgrind", "quick", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS["full"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_chosen_schedules_match_numpy(runtime: str, name: str) -> None:
    """What ``choose`` says, over random layouts and sizes."""
    expect(runtime, "full", name)


def test_another_batch_keeps_the_text() -> None:
    """The text depends on the literals, not on the sizes of a run."""
    case = SETS["quick"]["mlp"]
    assert source_of("x", case, 16) == source_of("x", case, 16)
    assert "32" not in source_of("x", replace(case, config=GemmConfig(1, 16, 16)), 16).split("__kernel")[0]


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("NN", (128, 512, 784)),
        ("NT", (128, 512, 512)),
        ("TN", (512, 512, 128)),
        ("NN", (1536, 1536, 1536)),
        ("TN", (1024, 1024, 1024)),
    ],
)
@pytest.mark.parametrize("cores", [2, 8])
def test_large_products_keep_every_core_busy(layout: str, shape: tuple[int, int, int], cores: int) -> None:
    """At least two tasks a core, and private arrays within what a stack holds."""
    m, n, k = shape
    a = Operand("A", 1, m) if layout[0] == "T" else Operand("A", k, 1)
    b = Operand("B", 1, k) if layout[1] == "T" else Operand("B", n, 1)
    for vendor in ("amd", "intel"):
        config = choose(m, n, k, a, b, 16, cores, vendor)
        assert tasks(config, m, n) >= 2 * cores
        panels = config.k_block * (config.nr * config.pack_b + config.mr * config.m_block * config.pack_a)
        assert 4 * (panels + config.mr * config.nr * config.m_block * config.n_block) <= 512 * 1024


@pytest.mark.parametrize(("config", "dims", "problem"), [
    (GemmConfig(4, 16, 8), ("m", "10", "5"), "N must be a literal"),
    (GemmConfig(4, 16, 8), ("m", "n", "5"), "N must be a literal"),
    (GemmConfig(4, 16, 8, pack_b=True), ("m", "64", "k"), "k_block"),
    (GemmConfig(4, 16, 8, 16, pack_b=True), ("m", "64", "64"), "m_block"),
    (GemmConfig(4, 4, 8, dot=True), ("4", "64", "64"), "contiguous along K"),
])  # fmt: skip
def test_schedules_that_do_not_fit_are_refused(config: GemmConfig, dims: tuple[str, str, str], problem: str) -> None:
    """A wrong schedule raises instead of reading out of bounds."""
    with pytest.raises(ValueError, match=problem):
        emit_gemm(OpenCL(), "f", "", config, dims, Operand("A", 64, 1), Operand("B", 64, 1), lambda i, j, v, w: [])


def test_impossible_configurations_are_refused() -> None:
    """Sizes must be positive and tiles whole vectors."""
    with pytest.raises(ValueError, match="positive"):
        GemmConfig(0, 16, 16)
    with pytest.raises(ValueError, match="multiple"):
        GemmConfig(4, 12, 8)


def main(runtime: str, group: str, *only: str) -> None:
    """Entry of the child process: one JSON line per case."""
    opened = open_runtime(runtime)
    if opened is None:
        print(json.dumps({"missing": True}))
        return
    cl, context, _ = opened
    width = RUNTIMES.get(runtime, 8)
    cases = {name: case for name, case in SETS[group].items() if not only or name in only}
    names = {name: name.replace("-", "_") for name in cases}
    text = HEAD + "".join(source_of(names[name], case, width) for name, case in cases.items())
    program = cl.Program(context, text).build()
    for name, case in cases.items():
        print(json.dumps({name: check(opened, program, names[name], case, width, runtime == "oclgrind")}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
