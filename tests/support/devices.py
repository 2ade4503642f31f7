"""Run graphs on devices for tests, straight through the pipeline, and judge results against float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphcore.ops
from backends.codegen.scatter.rows import ScatterRows
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import DeviceError
from graphcore.ir.graph import Graph
from graphcore.ir.op import Kind, Op, registered
from graphcore.plan.backend import open_backend
from graphcore.plan.target import Reject
from passes.fusion.fuse import Fuse
from passes.graph.base import Pass
from passes.kernels.bucket_sums import bucket_sums
from passes.kernels.rewrite import REWRITES, RewriteKernels
from passes.pipeline import DEFAULT, Pipeline, choose_pipeline, compile_graph
from passes.planning.placement import place
from support.device_names import RUNTIMES

__all__ = [
    "DEVICES",
    "FAMILIES",
    "KERNELS",
    "RUNTIMES",
    "ULPS",
    "Bound",
    "backend",
    "computed_ops",
    "differing",
    "examples_of",
    "judge",
    "run_nested",
    "run_on",
    "run_plan",
]

KERNELS = "numpy:kernels"
DEVICES = (KERNELS, *RUNTIMES)


@functools.lru_cache(maxsize=8)
def _opened(spec: str) -> Any:
    return open_backend(spec)


def backend(spec: str) -> Any:
    """The backend of a device string, opened once; skips the test where the runtime is not installed."""
    try:
        return _opened(spec)
    except DeviceError as error:
        pytest.skip(f"no {spec}: {error}")


@dataclass
class Bound:
    """A bound plan that can be run again with other feeds of the same shapes."""

    executable: Any
    placeholders: Sequence[Tensor]
    plan: Any
    program: Any
    device: Any

    def at(self, feeds: Mapping[Tensor, Any]) -> Bound:
        """The same program bound to other sizes of the symbolic extents."""
        return Bound(
            self.device.bind(self.program, place(self.plan, _sizes(feeds))),
            self.placeholders,
            self.plan,
            self.program,
            self.device,
        )

    def run(self, feeds: Mapping[Tensor, Any]) -> list[Any]:
        """The outputs as arrays."""
        return list(self.executable.run([feeds[p] for p in self.placeholders]))


def run_plan(
    spec: str,
    outputs: Sequence[Tensor],
    feeds: Mapping[Tensor, Any],
    *,
    passes: Sequence[Pass] | Pipeline = (),
    allow: Callable[..., bool] | None = None,
) -> Bound:
    """Compile outputs for a device as one plan and bind it.

    Args:
        spec: the device string.
        outputs: what to fetch.
        feeds: arrays by placeholder; they give the sizes of symbolic extents.
        passes: graph passes to run before fusion, or a pipeline.
        allow: an extra condition on every fusion.
    """
    device = backend(spec)
    sizes = _sizes(feeds)
    pipeline = choose_pipeline(passes).replace(Fuse.name, Fuse(allow))
    made = compile_graph(Graph(tuple(outputs), (), tuple(feeds)), device.target, sizes, pipeline=pipeline, verify=True)
    program = device.compile(made.plan)
    return Bound(device.bind(program, made.placed), list(feeds), made.plan, program, device)


def run_on(spec: str, outputs: Sequence[Tensor], feeds: Mapping[Tensor, Any], **options: Any) -> list[Any]:
    """The outputs on a device; options as for ``run_plan``."""
    return run_plan(spec, outputs, feeds, **options).run(feeds)


def run_nested(
    patch: pytest.MonkeyPatch, spec: str, outputs: Sequence[Tensor], feeds: Mapping[Tensor, Any]
) -> list[Any]:
    """The outputs with the guarded sums of scatters, as the loop nest writes them."""
    others = RewriteKernels(tuple(r for r in REWRITES if r[1] is not bucket_sums))
    with patch.context() as context:
        context.setattr(ScatterRows, "schedule", lambda *_: Reject("not now"))
        bound = run_plan(spec, outputs, feeds, passes=DEFAULT.replace(RewriteKernels.name, others))
        assert not any(s.family.startswith("scatter") for s in bound.plan.steps)
        return bound.run(feeds)


def _sizes(feeds: Mapping[Tensor, Any]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for t, array in feeds.items():
        for extent, size in zip(t.shape, np.shape(array), strict=True):
            if not isinstance(extent, int):
                (name,) = extent.symbols()
                sizes[name] = size
    return sizes


# Tolerances: units in the last place of the result's type, measured against the reference in float64. Sums, products of
# matrices and the like are judged against the sum of the terms' magnitudes, everything else against the result. Moves,
# comparisons, + - * and casts are exact: IEEE arithmetic rounded once, whatever the type.
ULPS = {"exact": 0.0, "narrowed": 1.0, "function": 4.0, "hard": 16.0, "sum": 8.0}
_FUNCTIONS = frozenset(
    """
        exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh
        atanh erf erfc erfinv sigmoid atan2 div reciprocal softplus silu mish log_add_exp hypot one_minus_square
    """.split()
)
_HARD = frozenset(["pow", "lgamma", "digamma", "polygamma", "floor_divide", "remainder", "prod", "gaussian"])
_SUMS = frozenset(
    """
        sum add_n matmul conv2d conv2d_input_grad conv2d_weight_grad avg_pool avg_pool_grad max_pool_grad
        max_pool_gather scatter_add scatter_along gelu
    """.split()
)


# Modules of the package's own ops; tests register others.
FAMILIES = frozenset({"graphcore.ir.leaves", *(f"graphcore.ops.{module}" for module in graphcore.ops.__all__)})


def computed_ops() -> dict[str, type[Op]]:
    """The registered ops of the package that compute something; tests may register others."""
    return {
        n: c
        for n, c in sorted(registered().items())
        if c.__module__ in FAMILIES and c.kind not in (Kind.LEAF, Kind.REGION)
    }


def examples_of(cls: type[Op]) -> list[tuple[Any, ...]]:
    """An op's examples; they are yielded by an instance but depend on no attribute."""
    return list(cls.examples(object.__new__(cls)))


def op_class(op: Op, *arrays: Any) -> str:
    """The class of an op on operands in ``ULPS``; what only moves, compares, selects or rounds once is exact."""
    for name, members in (("function", _FUNCTIONS), ("hard", _HARD), ("sum", _SUMS)):
        if op.name in members:
            return name
    assert op.kind is not Kind.CONTRACT, f"{op.name} has no class of tolerance"
    if op.name == "cast" and op.dtype.rounds and np.asarray(arrays[0]).dtype.itemsize > 2:  # type: ignore[attr-defined]
        return "exact" if np.asarray(arrays[0]).dtype == np.float32 else "narrowed"  # through float32: rounded twice
    return "exact"


def _spacing(magnitude: Any, dtype: dtypes.DType) -> Any:
    """The distance between neighbouring numbers of a type at a magnitude."""
    bits, lowest = {"float16": (10, -14), "bfloat16": (7, -126), "float32": (23, -126), "float64": (52, -1022)}[
        dtype.name
    ]
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.where(np.isfinite(magnitude), magnitude, 1.0)))  # -inf of 0
    return np.exp2(np.maximum(exponent, lowest) - bits)


def judge(op: Op, arrays: Sequence[Any], found: Sequence[Any]) -> str | None:
    """What is wrong with an op's results, or None.

    Integers and bools must equal the reference. Floats are compared with the reference in float64 by the op's class,
    with one unit more for rounding to the result's type; NaN and infinity must be where they are there.
    """
    kind = op_class(op, *arrays)
    with np.errstate(all="ignore"):
        narrow = _tuple(op.reference(*arrays))
        wide = _tuple(op.reference(*(_widened(a) for a in arrays)))
        terms = (
            _tuple(op.reference(*(np.abs(_widened(a)) if _is_float(a) else a for a in arrays)))
            if kind == "sum"
            else wide
        )
    if op.name in ("digamma", "log_add_exp"):  # near its root the reference itself cancels
        terms = tuple(np.maximum(np.abs(t), 1.0) for t in terms)
    if op.name == "polygamma":  # likewise below 0, where an even order has roots between poles
        x = _widened(arrays[0])
        with np.errstate(all="ignore"):
            pole = np.abs(op.reference(np.where((x < 0) & (x != np.rint(x)), np.abs(x - np.rint(x)), x)))
        terms = tuple(np.maximum(np.abs(t), np.where(np.isfinite(pole), pole, 0.0)) for t in terms)
    for i, (stored, exact, scale, got) in enumerate(zip(narrow, wide, terms, found, strict=True)):
        got = np.asarray(got)
        if got.shape != stored.shape or got.dtype != stored.dtype:
            return f"result {i} is {got.dtype}{got.shape}, not {stored.dtype}{stored.shape}"
        if not _is_float(stored):
            if not np.array_equal(got, stored):
                return f"result {i}:\n{got}\nis not\n{stored}"
            continue
        wrong = differing(got, exact, scale, ULPS[kind])
        if wrong is not None:
            return f"result {i}: {wrong}"
    return None


def differing(got: Any, exact: Any, scale: Any, ulps: float) -> str | None:
    """Where floats are further than ``ulps`` (and one unit of rounding) from exact values, in units at ``scale``."""
    dtype = dtypes.as_dtype(got.dtype)
    with np.errstate(all="ignore"):
        rounded = np.asarray(exact).astype(got.dtype).astype(np.float64)
        wide = got.astype(np.float64)
        unit = _spacing(np.maximum(np.abs(np.asarray(scale, np.float64)), np.abs(rounded)), dtype)
        limit = float(np.asarray(np.finfo(np.float32).max if dtype.name != "float64" else np.finfo(np.float64).max))
        largest = {"float16": 65504.0}.get(dtype.name, limit)
        error = np.abs(wide - rounded)
        same = (wide == rounded) | (np.isnan(wide) & np.isnan(rounded))
        # Within rounding of the largest number, infinity is as good as it.
        brink = np.isinf(wide) != np.isinf(rounded)
        near = brink & (np.abs(np.where(np.isinf(wide), rounded, wide)) >= largest * (1 - 2.0**-6))
        good = same | near | (np.isfinite(error) & (error <= (ulps + (0.0 if ulps == 0 else 1.0)) * unit))
    if good.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~good)[0]) if good.ndim else ()
    shown = f"{got[where]!r} instead of {np.asarray(exact)[where]!r} ({error[where] / unit[where]:.1f} units)"
    return f"{int((~good).sum())} of {good.size} differ, first at {where}: {shown}"


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(np.asarray(v) for v in (value if isinstance(value, tuple) else (value,)))


def _is_float(array: Any) -> bool:
    return dtypes.as_dtype(np.asarray(array).dtype).is_float


def _widened(array: Any) -> Any:
    return np.asarray(array).astype(np.float64) if _is_float(array) else np.asarray(array)
