"""What is written for one runtime's compiler: that it is heeded, and that the numbers are what they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, INTEL
from support.sessions import opened

import graphcore as gc
from backends.opencl.compiler.build import build_program
from backends.opencl.device import icd
from backends.opencl.device.device import open_device
from backends.opencl.language import language_of
from graphcore import functional as F

# Where a loop may stand: after a condition, inside and after another one, after else.
LOOPS = """\
__kernel void k(__global float *x, const int n) {
  if (n > 0) for (int i = 0; i < 16; ++i) x[i] = native_exp(x[i] * x[n + i]) + x[2 * i];
  else for (int i = 0; i < 16; ++i) for (int j = 0; j < 4; ++j) x[i] += native_sin(x[j] * x[n + i]);
  for (int i = 0; i < 12; ++i) x[i + 4] = native_log(x[i] + x[n]);
}
"""


@pytest.mark.skipif(INTEL not in CPUS, reason="another device was chosen")
def test_loops_of_intels_cpu_programs_are_not_unrolled() -> None:
    cl, device = icd.load(), open_device(INTEL)
    line = language_of(device.info.vendor).all_rolled
    sizes = [
        len(build_program(device, text, device.info.build_options).get_info(cl.program_info.BINARIES)[0])
        for text in (LOOPS, line + LOOPS)
    ]
    assert sizes[1] < sizes[0]


# Two terms whose sum is 2**-24 if the second is added as it is, and 0 if it is rounded first; then zeros.
LEFT, RIGHT = (np.array(v, np.float32) for v in ((1.0, 1.0 + 2.0**-12), (-(1.0 + 2.0**-11), 1.0 + 2.0**-12)))
FUSED = np.float32(2.0**-24)


def terms(shape: tuple[int, ...], axis: int, values: np.ndarray) -> np.ndarray:
    """The values at the first two places of an axis, for all others; zeros behind."""
    result = np.zeros(shape, np.float32)
    np.moveaxis(result, axis, -1)[..., :2] = values
    return result


def product() -> tuple[Any, Mapping[Any, np.ndarray], str]:
    a, b = gc.placeholder("float32", (96, 64), name="a"), gc.placeholder("float32", (64, 96), name="b")
    return a @ b, {a: terms((96, 64), 1, LEFT), b: terms((64, 96), 0, RIGHT)}, "matmul"


def convolution() -> tuple[Any, Mapping[Any, np.ndarray], str]:
    x, w = gc.placeholder("float32", (4, 16, 8, 8), name="x"), gc.placeholder("float32", (32, 16, 1, 1), name="w")
    return F.conv2d(x, w), {x: terms((4, 16, 8, 8), 1, LEFT), w: terms((32, 16, 1, 1), 1, RIGHT)}, "conv"


def weight_gradient() -> tuple[Any, Mapping[Any, np.ndarray], str]:
    """A sum over the pixels of one image."""
    x, m = gc.placeholder("float32", (1, 16, 8, 8), name="x"), gc.placeholder("float32", (1, 32, 8, 8), name="m")
    w = gc.Variable(np.zeros((32, 16, 1, 1), np.float32), name="w")
    (result,) = gc.gradients((F.conv2d(x, w) * m).sum(), [w])
    pixels = [terms((1, c, 64), 2, v).reshape(1, c, 8, 8) for c, v in ((16, LEFT), (32, RIGHT))]
    return result, {x: pixels[0], m: pixels[1]}, "conv"


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize("build", [product, convolution, weight_gradient])
def test_terms_of_products_are_added_unrounded(
    device: str, build: Callable[[], tuple[Any, Mapping[Any, np.ndarray], str]]
) -> None:
    with opened(device) as session:
        result, feeds, family = build()
        assert f"family {family} (" in session.compile(result, feeds).explain()
        found = session.run(result, feeds)
        np.testing.assert_array_equal(found, np.full_like(found, FUSED))
