"""The CPU convolution generators against NumPy in float64, on every OpenCL CPU runtime that is installed.

Each runtime runs in a process of its own (``python test_conv_code.py RUNTIME SET``): a compiler that crashes or hangs
then fails a test instead of ending the session, and runtimes do not meet in one process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support.runtimes import open_runtime, result_of

from backends.codegen.cpu_conv import forward_code as forward
from backends.codegen.cpu_conv import schedule as schedule
from backends.codegen.cpu_conv import weight_code as weight
from backends.codegen.cpu_conv.code import (
    ConvShape,
    Load,
    Names,
    forward_problem,
    input_gradient_problem,
    load,
    row_pieces,
    store,
)
from backends.codegen.opencl_c import OpenCL
from backends.codegen.prelude import prelude_for
from backends.codegen.transposition import FROM_GLOBAL, FROM_PRIVATE, PRIVATE

GUARD = 64
"""Elements before and after every buffer that must keep (outputs) or must not leak (inputs) their value."""

HEAD = """
#ifdef cl_intel_vec_len_hint
#define GC_HINT __attribute__((intel_vec_len_hint(1)))
#else
#define GC_HINT
#endif
#pragma OPENCL FP_CONTRACT OFF
#define GC_NOINLINE __attribute__((noinline))
"""


@dataclass(frozen=True)
class Case:
    """One convolution to check; ``choose_batch`` is what the schedule was made for."""

    batch: int
    shape: ConvShape
    fused: bool = False
    dtype: str = "float"
    width: int | None = None
    choose_batch: int | None = None
    cores: int = 2
    change: tuple[tuple[str, int], ...] = ()


QUICK = {
    "lenet1": Case(3, ConvShape(1, 28, 28, 32, (5, 5), padding=(2, 2))),
    "lenet2": Case(2, ConvShape(8, 14, 14, 20, (5, 5), padding=(2, 2)), fused=True),
    "strided": Case(3, ConvShape(5, 15, 13, 18, (3, 3), stride=(2, 2), padding=(1, 1)), choose_batch=9),
    "depthwise": Case(2, ConvShape(6, 9, 11, 6, (3, 3), padding=(1, 1), groups=6)),
    "pointwise": Case(2, ConvShape(20, 8, 10, 17, (1, 1))),
    "several-blocks": Case(12, ConvShape(4, 16, 16, 8, (3, 3), padding=(1, 1)), cores=1),
    "deep": Case(5, ConvShape(160, 7, 7, 24, (3, 3), padding=(1, 1)), choose_batch=64),
    "channels-in-parts": Case(3, ConvShape(6, 9, 11, 8, (3, 3), padding=(1, 1)), change=(("depth", 2),)),
    "dot": Case(5, ConvShape(7, 1, 1, 9, (1, 1))),
}

FULL = {
    "digits": Case(9, ConvShape(16, 8, 8, 32, (3, 3), padding=(1, 1)), choose_batch=64),
    "tiny-images": Case(37, ConvShape(32, 4, 4, 32, (3, 3), padding=(1, 1)), choose_batch=64),
    "odd-images": Case(21, ConvShape(6, 7, 7, 12, (3, 3), padding=(1, 1)), choose_batch=64),
    "flat-strided": Case(11, ConvShape(4, 7, 9, 6, (3, 3), stride=(2, 2), padding=(1, 1)), choose_batch=64),
    "uneven": Case(2, ConvShape(3, 23, 9, 5, (7, 2), stride=(3, 1), padding=(2, 1), dilation=(1, 3))),
    "dilated": Case(2, ConvShape(4, 17, 18, 6, (3, 3), padding=(4, 4), dilation=(4, 4), groups=2)),
    "dilated-strided": Case(2, ConvShape(4, 19, 18, 6, (3, 4), stride=(2, 4), padding=(3, 1), dilation=(3, 2))),
    "kernel-below-stride": Case(3, ConvShape(6, 12, 13, 8, (1, 1), stride=(2, 2))),
    "stride-three": Case(2, ConvShape(3, 20, 22, 4, (5, 2), stride=(3, 3), padding=(1, 0))),
    "padding-beyond-kernel": Case(2, ConvShape(3, 5, 6, 4, (2, 3), padding=(3, 4))),
    "kernel-is-image": Case(5, ConvShape(3, 6, 5, 20, (6, 5)), choose_batch=32),
    "one-sided-padding": Case(2, ConvShape(4, 9, 9, 6, (3, 3), stride=(2, 2), padding_end=(1, 1))),
    "cropped-end": Case(2, ConvShape(4, 10, 10, 6, (3, 3), stride=(3, 3))),
    "grouped": Case(4, ConvShape(12, 10, 10, 18, (3, 3), padding=(1, 1), groups=3), fused=True),
    "depth-multiplier": Case(2, ConvShape(5, 12, 12, 10, (3, 3), stride=(2, 2), padding=(1, 1), groups=5)),
    "stem": Case(1, ConvShape(3, 45, 47, 10, (7, 7), stride=(2, 2), padding=(3, 3))),
    "wide-kernel": Case(1, ConvShape(2, 31, 90, 3, (11, 11), stride=(4, 4), padding=(2, 2))),
    "wide-rows": Case(1, ConvShape(2, 3, 130, 3, (3, 3), padding=(1, 1))),
    "one-row": Case(3, ConvShape(4, 1, 40, 5, (1, 5), padding=(0, 2))),
    "one-column": Case(3, ConvShape(4, 40, 1, 5, (5, 1), padding=(2, 0))),
    "banded": Case(2, ConvShape(160, 30, 30, 17, (3, 3), padding=(1, 1))),
    "banded-gradient": Case(1, ConvShape(24, 41, 40, 150, (3, 3), stride=(2, 2), padding=(1, 1))),
    "bands-of-five": Case(2, ConvShape(4, 13, 12, 7, (3, 3), padding=(1, 1)), change=(("rows", 5),)),
    "bands-strided": Case(2, ConvShape(4, 13, 12, 7, (3, 3), stride=(2, 2), padding=(1, 1)), change=(("rows", 2),)),
    "deep-whole-image": Case(2, ConvShape(264, 14, 14, 18, (3, 3), padding=(1, 1)), fused=True, choose_batch=8),
    "deep-gradient": Case(3, ConvShape(18, 14, 14, 264, (3, 3), stride=(2, 2), padding=(1, 1)), choose_batch=64),
    "parts-strided": Case(2, ConvShape(4, 13, 12, 8, (3, 3), stride=(2, 2), padding=(1, 1)), change=(("depth", 2),)),
    "parts-grouped": Case(2, ConvShape(12, 9, 8, 12, (3, 3), padding=(1, 1), groups=2), change=(("depth", 3),)),
    "pointwise-odd": Case(1, ConvShape(33, 9, 9, 21, (1, 1)), choose_batch=1),
    "pointwise-fused": Case(3, ConvShape(9, 6, 6, 11, (1, 1)), fused=True, choose_batch=64),
    "no-images": Case(0, ConvShape(3, 6, 6, 5, (3, 3), padding=(1, 1)), choose_batch=16),
    "many-cores": Case(2, ConvShape(40, 9, 9, 50, (3, 3), padding=(1, 1)), cores=16),
    "double": Case(2, ConvShape(5, 9, 10, 9, (3, 3), padding=(1, 1)), dtype="double"),
    "width-eight": Case(3, ConvShape(8, 14, 14, 20, (5, 5), padding=(2, 2)), width=8),
    "width-four": Case(2, ConvShape(6, 9, 11, 10, (3, 3), stride=(2, 1), padding=(1, 1)), width=4),
}
SETS = {"quick": QUICK, "full": FULL}
RUNTIMES = {"intel": 64, "pocl": 32}
"""Bytes of a vector. PoCL's compiler may hang on 64 where it takes the processor for an older one."""
TIMEOUT = 900.0  # seconds for all cases of a set


def reference(x: np.ndarray, w: np.ndarray, dy: np.ndarray, shape: ConvShape) -> tuple[np.ndarray, ...]:
    """y, dx and dw in float64, one kernel position at a time."""
    x, w, dy = x.astype(np.float64), w.astype(np.float64), dy.astype(np.float64)
    (kh, kw), (sy, sx), (py, px), (ey, ex) = shape.kernel, shape.stride, shape.padding, shape.dilation
    n, g = x.shape[0], shape.groups
    rows, columns = shape.out_height, shape.out_width
    high = max(py + shape.height, (rows - 1) * sy + (kh - 1) * ey + 1)
    wide = max(px + shape.width, (columns - 1) * sx + (kw - 1) * ex + 1)
    padded = np.zeros((n, shape.channels, high, wide))
    padded[:, :, py : py + shape.height, px : px + shape.width] = x
    y, dw, dpadded = np.zeros(dy.shape), np.zeros(w.shape), np.zeros(padded.shape)
    wg, dyg = w.reshape(g, -1, *w.shape[1:]), dy.reshape(n, g, shape.filters // g, rows, columns)
    for i in range(kh):
        for j in range(kw):
            at = (
                ...,
                slice(i * ey, i * ey + (rows - 1) * sy + 1, sy),
                slice(j * ex, j * ex + (columns - 1) * sx + 1, sx),
            )
            xs = padded[at].reshape(n, g, shape.channels // g, rows, columns)
            y += np.einsum("ngchw,goc->ngohw", xs, wg[..., i, j]).reshape(y.shape)
            dw[:, :, i, j] = np.einsum("ngchw,ngohw->goc", xs, dyg).reshape(w.shape[:2])
            dpadded[at] += np.einsum("ngohw,goc->ngchw", dyg, wg[..., i, j]).reshape(padded[at].shape)
    return y, dpadded[:, :, py : py + shape.height, px : px + shape.width], dw


class Runner:
    """Buffers between guards, and kernels around the generated functions."""

    def __init__(self, opened: tuple[Any, Any, Any], dtype: str) -> None:
        """Use one runtime and one element type."""
        self.cl, self.context, self.queue = opened
        self.dtype, self.real = dtype, np.dtype({"float": "f4", "double": "f8"}[dtype])

    def buffer(self, data: np.ndarray) -> Any:
        """Device buffer: NaN guards around ``data``."""
        guard = np.full(GUARD, np.nan, self.real)
        host = np.concatenate([guard, data.astype(self.real).ravel(), guard])
        flags = self.cl.mem_flags
        return self.cl.Buffer(self.context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=host)

    def read(self, buffer: Any) -> tuple[np.ndarray, bool]:
        """(data, whether the guards are untouched)."""
        host = np.empty(buffer.size // self.real.itemsize, self.real)
        self.cl.enqueue_copy(self.queue, host, buffer)
        edges = np.concatenate([host[:GUARD], host[-GUARD:]])
        return host[GUARD:-GUARD], bool(np.isnan(edges).all())

    def build(self, source: str, launches: list[tuple[str, int]], names: list[str]) -> list[tuple[Any, int]]:
        """Kernels around ``launches`` (function, tasks); every pointer is passed behind its guard."""
        pointers = ", ".join(f"__global {self.dtype}* {name}0" for name in names)
        shifted = " ".join(f"__global {self.dtype}* {name} = {name}0 + {GUARD};" for name in names)
        for function, _ in launches:
            source += (
                f"__kernel GC_HINT void k_{function}({pointers}, int N) "
                f"{{ {shifted} {function}({', '.join(names)}, N, (int)get_group_id(0)); }}\n"
            )
        program = self.cl.Program(self.context, HEAD + prelude_for(source, OpenCL()) + source).build()
        return [(self.cl.Kernel(program, f"k_{function}"), tasks) for function, tasks in launches]

    def run(self, kernels: list[tuple[Any, int]], buffers: list[Any], n: int) -> None:
        """Start the kernels one after the other."""
        for kernel, tasks in kernels:
            if tasks:
                kernel(self.queue, (tasks,), (1,), *buffers, np.int32(n))
        self.queue.finish()


def relu_load(pointer: str, dtype: str = "float") -> Load:
    """A fused load: max(value, 0)."""
    return lambda index, width: f"fmax({load(OpenCL(), f'{pointer} + {index}', width, dtype)}, 0)"


def params(dtype: str) -> str:
    """The parameters of every generated function of this test."""
    pointers = ", ".join(f"__global {dtype}* {name}" for name in ("ws", "a", "b", "out"))
    return f"{pointers}, int N"


def check(opened: tuple[Any, Any, Any], case: Case, vector_bytes: int) -> dict[str, dict[str, float]]:
    """Run the three functions of one case; errors relative to the largest reference value, guards, repeatability."""
    shape, runner = case.shape, Runner(opened, case.dtype)
    lanes = vector_bytes // runner.real.itemsize
    width = min(lanes, case.width or lanes)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((case.batch, shape.channels, shape.height, shape.width)).astype(runner.real)
    w = rng.standard_normal((shape.filters, shape.channels // shape.groups, *shape.kernel)).astype(runner.real)
    dy = rng.standard_normal((case.batch, shape.filters, shape.out_height, shape.out_width)).astype(runner.real)
    cut: Callable[[np.ndarray], np.ndarray] = (lambda a: np.maximum(a, 0)) if case.fused else (lambda a: a)
    y = reference(cut(x), w, dy, shape)[0]
    _, dx, dw = reference(cut(x), w, cut(dy), shape)
    options = {
        "width": width,
        "batch": case.choose_batch or max(case.batch, 1),
        "cores": case.cores,
        "itemsize": runner.real.itemsize,
    }
    result = {}
    for kind, problem, source, expected in (
        ("forward", forward_problem(shape), x, y),
        ("input", input_gradient_problem(shape), dy, dx),
    ):
        config = schedule.choose(problem, fused_load=case.fused, **options)
        rows = dict(case.change).get("rows")
        if rows is not None:
            config = replace(config, rows=min(rows, problem.grid[0]), images=1, share=True)
        config = replace(config, depth=dict(case.change).get("depth", config.depth))
        outputs, pixels = problem.groups * problem.out_channels, problem.out_size[0] * problem.out_size[1]

        def epilogue(
            n: str, o: str, pixel: str, acc: str, lanes: int, o_all: int = outputs, p_all: int = pixels
        ) -> list[str]:
            return [store(OpenCL(), acc, f"out + (({n}) * {o_all} + {o}) * {p_all} + {pixel}", lanes, case.dtype)]

        text = forward.conv_code(
            OpenCL(), "conv", params(case.dtype), problem, config, epilogue, dtype=case.dtype, names=Names("a", "b"),
            load_x=relu_load("a") if case.fused else None,
        )  # fmt: skip
        space = schedule.workspace_elements(problem, config)
        launches = [("conv", schedule.task_count(problem, config, case.batch))]
        result[kind] = compare(runner, text, launches, (source, w), expected, space, case.batch)
    config_w = weight.choose_weight(shape, fused_load=case.fused, **options)
    if "rows" in dict(case.change):
        config_w = replace(config_w, rows=min(shape.out_height, dict(case.change)["rows"]), images=1, chunks=3)
    depth = w[0].size

    def store_weight(o: str, k: str, acc: str, lanes: int) -> list[str]:
        return [store(OpenCL(), acc, f"out + ({o}) * {depth} + {k}", lanes, case.dtype)]

    load_dy, load_x = (relu_load("a"), relu_load("b")) if case.fused else (None, None)
    names = Names("a", "b")
    text = weight.weight_code(
        OpenCL(), "sums", params(case.dtype), shape, config_w, dtype=case.dtype, names=names, load_dy=load_dy,
        load_x=load_x,
    )  # fmt: skip
    sizes = zip(weight.REDUCE_ARGUMENTS, weight.reduce_arguments(shape, config_w, case.batch), strict=True)
    text += f"enum {{ {', '.join(f'{name} = {value}' for name, value in sizes)} }};\n" + weight.reduce_code(
        OpenCL(), "total", params(case.dtype), config_w, store_weight, dtype=case.dtype, workspace=names.workspace
    )
    launches = [
        ("sums", weight.weight_task_count(shape, config_w, case.batch)),
        ("total", weight.reduce_task_count(shape, config_w)),
    ]
    space = weight.weight_workspace_elements(shape, config_w)
    result["weight"] = compare(runner, text, launches, (dy, x), dw, space, case.batch)
    return result


def compare(
    runner: Runner, text: str, launches: list[tuple[str, int]], inputs: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray, space: int, batch: int,
) -> dict[str, float]:  # fmt: skip
    """Run twice on a NaN workspace: error, guards and whether both runs gave the same bits."""
    got, guards = [], True
    kernels = runner.build(text, launches, ["ws", "a", "b", "out"])
    for _ in range(2):
        workspace = runner.buffer(np.full(space, np.nan))
        out = runner.buffer(np.full(expected.size, np.nan))
        buffers = [workspace, *(runner.buffer(a) for a in inputs), out]
        runner.run(kernels, buffers, batch)
        data, kept = runner.read(out)
        got.append(data)
        guards = guards and kept and runner.read(workspace)[1]
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    error = np.abs(got[0].astype(np.float64) - expected.ravel())
    worst = float(np.nan_to_num(error, nan=1e30).max(initial=0)) / scale
    return {"error": worst, "guards": float(guards), "same": float(got[0].tobytes() == got[1].tobytes())}


def expect(runtime: str, group: str, name: str) -> None:
    """Assert one case, or skip where the runtime is missing."""
    found = result_of(__file__, runtime, group, name, TIMEOUT)
    limit = 1e-12 if SETS[group][name].dtype == "double" else 3e-5
    for kind, numbers in found.items():
        assert numbers["error"] < limit, (kind, numbers)
        assert numbers["guards"] == 1, f"{kind} wrote out of bounds"
        assert numbers["same"] == 1, f"{kind} is not deterministic"


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_quick_cases_match_numpy(runtime: str, name: str) -> None:
    """Common shapes, both runtimes."""
    expect(runtime, "quick", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_all_parameters_match_numpy(runtime: str, name: str) -> None:
    """Every combination of stride, padding, dilation and groups that takes its own path."""
    expect(runtime, "full", name)


def test_text_is_reproducible_and_depends_on_sizes_only() -> None:
    """The same shape and schedule give the same text."""
    problem = forward_problem(QUICK["lenet2"].shape)
    config = schedule.choose(problem, width=16, batch=64, cores=2)

    def text() -> str:
        return forward.conv_code(
            OpenCL(), "conv", params("float"), problem, config, lambda n, o, p, a, w: [f"sink({a});"]
        )

    assert text() == text()


@pytest.mark.parametrize(
    ("size", "tiles", "tails"),
    [
        (16, 1, []),  # whole tiles of whole vectors
        (28, 2, []),  # and a smaller one for what they leave
        (15, 2, [1]),
        (14, 2, [4]),
    ],
)
def test_text_has_no_tiles_and_tails_that_no_image_meets(size: int, tiles: int, tails: list[int]) -> None:
    """Where every unit has the same pixels, what they leave is known."""
    problem = forward_problem(ConvShape(16, size, size, 16, (3, 3), padding=(1, 1)))
    config = schedule.choose(problem, width=16, batch=64, cores=2)
    assert config.images == 1 and problem.grid[0] % config.rows == 0
    text = forward.conv_code(
        OpenCL(), "conv", params("float"), problem, config, lambda n, o, p, a, w: [f"sink{w}({a});"]
    )
    assert text.count("; at += ") + text.count("if (at < pixels)") == tiles
    assert [w for w in (8, 4, 1) if f"sink{w}(" in text] == tails
    assert text.count("sink16(") == 1


@pytest.mark.parametrize(("limits", "pieces"), [([48, 16], [16]), ([], []), ([196], [16, 4]), ([9, 2], [8, 1])])
def test_a_row_is_walked_in_the_widths_that_its_lengths_take(limits: list[int], pieces: list[int]) -> None:
    assert row_pieces(limits, 16) == pieces


def test_a_program_has_every_transposition_once() -> None:
    """Functions call them, whatever their sizes are."""
    text = ""
    for size, filters in ((16, 32), (8, 64), (8, 24)):
        shape = ConvShape(16, size, size, filters, (3, 3), padding=(1, 1))
        config = weight.choose_weight(shape, width=16, batch=8, cores=2)
        text += weight.weight_code(OpenCL(), f"sums{filters}", params("float"), shape, config)
        text += weight.reduce_code(
            OpenCL(), f"total{filters}", params("float"), config, lambda o, k, a, w: [f"sink({a});"]
        )
    helpers = prelude_for(text, OpenCL())
    for fn in (FROM_GLOBAL, FROM_PRIVATE, PRIVATE):
        assert text.count(f"gc_{fn}_float16(") > 0
        assert helpers.count(f"gc_{fn}_float16(") == 1
    assert ".even" in helpers and ".even" not in text


def test_direct_schedules_refuse_fused_loads() -> None:
    """A schedule that reads in place cannot fuse a load."""
    shape = ConvShape(16, 16, 16, 16, (1, 1))
    problem = forward_problem(shape)
    config = schedule.choose(problem, width=16, batch=4, cores=2)
    assert config.direct
    with pytest.raises(ValueError, match="fused_load"):
        forward.conv_code(OpenCL(), "conv", "", problem, config, lambda n, o, p, a, w: [], load_x=relu_load("x"))
    config_w = weight.choose_weight(shape, width=16, batch=4, cores=2)
    assert config_w.direct
    with pytest.raises(ValueError, match="fused_load"):
        weight.weight_code(OpenCL(), "sums", "", shape, config_w, load_x=relu_load("x"))


@pytest.mark.parametrize("batch", [0, 1, 5, 64])
def test_task_counts_are_bounded_by_the_workspace(batch: int) -> None:
    """No batch starts more tasks than the workspace has slices; no image means nothing to do."""
    for case in (*QUICK.values(), *FULL.values()):
        problem = forward_problem(case.shape)
        config = schedule.choose(problem, width=16, batch=8, cores=2)
        tasks = schedule.task_count(problem, config, batch)
        assert tasks <= config.parts * config.chunks
        assert (tasks == 0) == (batch == 0)


def test_impossible_shapes_are_rejected() -> None:
    """Sizes that describe no convolution raise."""
    with pytest.raises(ValueError, match="larger"):
        ConvShape(1, 3, 3, 1, (5, 5))
    with pytest.raises(ValueError, match="groups"):
        ConvShape(3, 3, 3, 4, (1, 1), groups=2)


def main(runtime: str, group: str, *only: str) -> None:
    """Entry of the child process: one JSON line per case."""
    opened = open_runtime(runtime)
    if opened is None:
        print(json.dumps({"missing": True}))
        return
    for name, case in SETS[group].items():
        if not only or name in only:
            print(json.dumps({name: check(opened, case, RUNTIMES[runtime])}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
