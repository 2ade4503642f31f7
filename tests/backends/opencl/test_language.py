"""What is written for one runtime's compiler: that it is heeded, and that the numbers are what they should be."""

from __future__ import annotations

import pytest
from support.device_names import CPUS, INTEL

from backends.opencl.compiler.build import build_program
from backends.opencl.device import icd
from backends.opencl.device.device import open_device
from backends.opencl.language import language_of

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
