"""The families of schedules: each turns kernels of the IR into the text of C functions.

``CPU_SCHEDULERS`` and ``GPU_SCHEDULERS`` are the orders in which they are asked on the two kinds of device; the loop
nest takes whatever the others refuse.
"""

from backends.codegen.cpu_conv.family import Convolution, ConvolutionWeightSums
from backends.codegen.cpu_product.family import Matmul
from backends.codegen.family import Family
from backends.codegen.gpu_product.family import GpuMatmul
from backends.codegen.gpu_rows.family import GpuRows
from backends.codegen.nest.family import Nest
from backends.codegen.scatter.family import Scatter, ScatterSort
from backends.codegen.scatter.rows import ScatterRows
from backends.codegen.sums.split import Split
from backends.codegen.sums.statistics import Statistics
from backends.codegen.template import Scheduler

_NEST = Nest()
_MATMUL = Matmul()
_CONV = Convolution()
_SCATTER = Scatter()
_GROUPS: tuple[Family, ...] = (GpuMatmul(), GpuRows())
FAMILIES: tuple[Family, ...] = (
    _CONV,
    ConvolutionWeightSums(),
    _MATMUL,
    _SCATTER,
    ScatterSort(),
    ScatterRows(),
    _NEST,
)
_GPU: tuple[Scheduler, ...] = (_SCATTER, Split((*_GROUPS, _NEST)), *_GROUPS, _NEST)
_CPU: tuple[Scheduler, ...] = (*FAMILIES[:-1], Split((_SCATTER, _NEST)), _NEST)
CPU_SCHEDULERS: tuple[Scheduler, ...] = (Statistics((_MATMUL, _CONV), _CPU), *_CPU)
GPU_SCHEDULERS: tuple[Scheduler, ...] = (Statistics((), _GPU), *_GPU)
# What schedules kernels whose loops must count in 64 bits; the other families count in 32.
WIDE_SCHEDULERS: tuple[Scheduler, ...] = (Split((_NEST,)), _NEST)
BY_NAME: dict[str, Family] = {f.name: f for f in (*FAMILIES, *_GROUPS)}

__all__ = [
    "BY_NAME",
    "CPU_SCHEDULERS",
    "GPU_SCHEDULERS",
    "WIDE_SCHEDULERS",
]
