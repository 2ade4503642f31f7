"""Kernel templates: each turns a kernel of the IR into the text of a C function.

``CPU_SCHEDULERS`` and ``GPU_SCHEDULERS`` are the orders in which they are asked on the two kinds of device; the loop
nest takes whatever the others refuse. The templates of ``GROUP_TEMPLATES`` give a task to a whole work-group.
"""

from backends.codegen.cpu_conv.family import Convolution, ConvolutionWeightSums
from backends.codegen.cpu_product.family import Matmul
from backends.codegen.gpu_product.family import GpuMatmul
from backends.codegen.gpu_rows.family import GpuRows
from backends.codegen.nest.family import Nest
from backends.codegen.scatter.family import Scatter, ScatterSort
from backends.codegen.scatter.rows import ScatterRows
from backends.codegen.sums.split import Split
from backends.codegen.sums.statistics import Statistics
from backends.codegen.template import GroupTemplate, Scheduler, Template

_NEST = Nest()
_MATMUL = Matmul()
_CONV = Convolution()
_SCATTER = Scatter()
_GROUPS: tuple[GroupTemplate, ...] = (GpuMatmul(), GpuRows())
TEMPLATES: tuple[Template, ...] = (
    _CONV,
    ConvolutionWeightSums(),
    _MATMUL,
    _SCATTER,
    ScatterSort(),
    ScatterRows(),
    _NEST,
)
_GPU: tuple[Scheduler, ...] = (_SCATTER, Split((*_GROUPS, _NEST)), *_GROUPS, _NEST)
_CPU: tuple[Scheduler, ...] = (*TEMPLATES[:-1], Split((_SCATTER, _NEST)), _NEST)
CPU_SCHEDULERS: tuple[Scheduler, ...] = (Statistics((_MATMUL, _CONV), _CPU), *_CPU)
GPU_SCHEDULERS: tuple[Scheduler, ...] = (Statistics((), _GPU), *_GPU)
# What schedules kernels whose loops must count in 64 bits; the other templates count in 32.
WIDE_SCHEDULERS: tuple[Scheduler, ...] = (Split((_NEST,)), _NEST)
BY_NAME: dict[str, Template] = {t.name: t for t in (*TEMPLATES, *_GROUPS)}
GROUP_TEMPLATES: dict[str, GroupTemplate] = {t.name: t for t in _GROUPS}
# How many times longer than others' a byte of a template's text keeps the runtime's compiler busy; 1 where not given.
BUILD_WEIGHTS: dict[str, float] = {ConvolutionWeightSums.name: 2.0}

__all__ = [
    "BUILD_WEIGHTS",
    "BY_NAME",
    "CPU_SCHEDULERS",
    "GPU_SCHEDULERS",
    "GROUP_TEMPLATES",
    "WIDE_SCHEDULERS",
    "GroupTemplate",
    "Scheduler",
    "Template",
]
