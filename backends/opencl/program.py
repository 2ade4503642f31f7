"""One program per plan: the distinct step functions, and the kernels that call them by rows of a table.

A row of the table is ``[function, first task, tasks, (space, offset) per parameter, sizes...]``. Functions are merged
by their text, so the optimizer's update of every parameter is one function and many rows.

On CPUs one dispatch kernel switches over the functions, and the same compiled program can run a launch per step, a
launch per level or the whole plan in one work item: these are arguments. On GPUs a task is a work-group; functions
differ in local memory and registers, so each has a kernel of its own, which runs all its rows of a level at once, and
one launch is a second program: a single work-group with a barrier after every row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from backends.codegen.cnames import counter_type, memory_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.prelude import prelude_for
from backends.codegen.registry import BY_NAME, GROUP_TEMPLATES
from backends.codegen.template import NAME
from backends.opencl.compiler.build import build_program
from graphcore.kernel.ir import Kernel
from graphcore.plan.plan import Plan, Step

__all__ = ["Function", "Source", "compile_source", "compile_whole", "generate"]

_ROW_HEAD = 3
_NOINLINE = "__attribute__((noinline))"  # on GPUs calls cost more than text


@dataclass(frozen=True)
class Function:
    """A distinct step function; ``local_bytes`` is None where work items do not work together."""

    number: int
    name: str
    text: str
    kernel: Kernel
    arguments: int
    local_bytes: int | None = None


@dataclass(frozen=True)
class Source:
    """A plan's program text, and which function every step calls; ``whole`` is a GPU's program for one launch."""

    text: str
    functions: tuple[Function, ...]
    of_step: tuple[int, ...]
    whole: str = ""

    def without_text(self) -> Source:
        """What binding takes; ``generate`` gives the texts of the plan again."""
        return replace(self, text="", functions=tuple(replace(f, text="") for f in self.functions), whole="")


def generate(plan: Plan, model: DeviceModel) -> Source:
    """The program of a plan."""
    found: dict[str, Function] = {}
    of_step: list[int] = []
    taken: dict[str, int] = {}
    for step in plan.steps:
        text = BY_NAME[step.template].emit(step.kernel, step.config, model)
        key = text
        function = found.get(key)
        if function is None:
            base = re.sub(r"\W", "", step.kernel.name)[:40]
            taken[base] = taken.get(base, 0) + 1
            name = f"{base}_{taken[base]}"
            groups = GROUP_TEMPLATES.get(step.template)
            local = groups.local_bytes(step.kernel, step.config, model) if groups is not None else None
            function = found[key] = Function(
                len(found),
                name,
                _commented(step, text.replace(NAME, name)),
                step.kernel,
                len(BY_NAME[step.template].arguments(step.kernel, step.config)),
                local,
            )
        of_step.append(function.number)
    functions = tuple(found.values())
    body = "\n".join(f.text for f in functions)
    if model.is_gpu:
        shared = model.language.header.replace(_NOINLINE, "") + prelude_for(body, model.language) + body + "\n"
        return Source(
            shared + _step_kernels(functions, model.group),
            functions,
            tuple(of_step),
            shared + _whole_kernel(functions, model.group),
        )
    dispatch = _dispatch(functions)
    return Source(
        model.language.header + prelude_for(body, model.language) + body + "\n" + dispatch,
        functions,
        tuple(of_step),
    )


def _commented(step: Step, text: str) -> str:
    """The function under the ops that it computes. Lines and extents are not part of it: equal kernels must have equal
    text."""
    ops = dict.fromkeys(re.sub(r"\W", "", line.split(" ")[0]) for line in step.kernel.origins)
    return f"// {' '.join(ops)}\n{text}"


def _call(f: Function, *more: str) -> str:
    """A call of a function with the parameters of the row ``r``."""
    args = []
    at = _ROW_HEAD
    written = f.kernel.written()
    for i, p in enumerate(f.kernel.params):
        const = "" if i in written else "const "
        args.append(f"(__global {const}{memory_type(p.dtype)}*)(space[r[{at}]] + r[{at + 1}])")
        at += 2
    for _ in range(f.arguments):
        args.append(f"({counter_type(f.kernel)})r[{at}]")
        at += 1
    return f"{f.name}({', '.join([*args, *more])});"


_SPACES = """\
  __global char* space[3];
  space[0] = arena; space[1] = variables; space[2] = constants;
"""
_GPU_HEAD = """
#ifdef cl_intel_vec_len_hint
__attribute__((intel_vec_len_hint(1)))
#endif
__kernel __attribute__((reqd_work_group_size({group}, 1, 1))) void {name}(
    __global char* arena, __global char* variables, __global char* constants, __global const long* table,
    const int first, const int last) {{
"""


def _step_kernels(functions: tuple[Function, ...], group: int) -> str:
    """A kernel for every function: the rows ``first`` to ``last`` of the table, every group a task of one of them."""
    parts = []
    for f in functions:
        pool, call = "", _call(f, f"task * {group} + (int)get_local_id(0)", f"(int)r[2] * {group}")
        if f.local_bytes is not None:
            pool, call = (
                f"  __local long pool[{-(-max(f.local_bytes, 8) // 8)}];\n",
                _call(f, "task", "(int)r[2]", "(__local char*)pool"),
            )
        parts.append(
            _GPU_HEAD.format(group=group, name=f"step_{f.number}")
            + f"""\
{pool}{_SPACES}  const int g = (int)get_group_id(0);
  int i = first;
  while (i + 1 < last && g >= (int)table[table[i + 1] + 1]) ++i;  // rows are in the order of their first tasks
  __global const long* r = table + table[i];
  const int task = g - (int)r[1];
  {call}
}}
"""
        )
    return "".join(parts)


def _whole_kernel(functions: tuple[Function, ...], group: int) -> str:
    """One work-group runs the rows ``first`` to ``last`` one after another."""
    size = max((f.local_bytes or 8 for f in functions), default=8)
    calls = [
        _call(f, "0", "1", "(__local char*)pool")
        if f.local_bytes is not None
        else _call(f, "(int)get_local_id(0)", str(group))
        for f in functions
    ]
    cases = "\n".join(f"      case {f.number}: {call} break;" for f, call in zip(functions, calls, strict=True))
    return (
        _GPU_HEAD.format(group=group, name="run_whole")
        + f"""\
  __local long pool[{-(-size // 8)}];
{_SPACES}  for (int i = first; i < last; ++i) {{
    __global const long* r = table + table[i];
    switch ((int)r[0]) {{
{cases}
    }}
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  }}
}}
"""
    )


def _dispatch(functions: tuple[Function, ...]) -> str:
    switch = "\n".join(f"    case {f.number}: {_call(f, 'task', 'tasks')} break;" for f in functions)
    return f"""\
GC_NOINLINE static void run_row(__global char* arena, __global char* variables, __global char* constants,
                                __global const long* r, const int task, const int tasks) {{
  __global char* space[3];
  space[0] = arena; space[1] = variables; space[2] = constants;
  switch ((int)r[0]) {{
{switch}
  }}
}}

#ifdef cl_intel_vec_len_hint
__attribute__((intel_vec_len_hint(1)))
#endif
__kernel void run_plan(__global char* arena, __global char* variables, __global char* constants,
                       __global const long* table, const int first, const int last, const int whole) {{
  if (whole) {{  // one work item runs everything
    for (int i = first; i < last; ++i) {{
      __global const long* r = table + table[i];
      for (int t = 0; t < (int)r[2]; ++t) run_row(arena, variables, constants, r, t, (int)r[2]);
    }}
    return;
  }}
  const int g = (int)get_group_id(0);
  for (int i = first; i < last; ++i) {{
    __global const long* r = table + table[i];
    const int t = g - (int)r[1];
    if (t >= 0 && t < (int)r[2]) {{
      run_row(arena, variables, constants, r, t, (int)r[2]);
      return;
    }}
  }}
}}
"""


def compile_source(device: Any, source: Source, plan: Plan) -> Any:
    """The built program."""
    return _build(device, source.text, plan)


def compile_whole(device: Any, source: Source, plan: Plan) -> Any:
    """The built program that runs a plan in one launch on a GPU."""
    return _build(device, source.whole, plan)


def _build(device: Any, text: str, plan: Plan) -> Any:
    origins = "\n".join(f"{s.kernel.name}: " + "; ".join(s.kernel.origins) for s in plan.steps)
    options: tuple[str, ...] = () if device.info.vendor == "pocl" else ("-cl-std=CL2.0",)
    if device.info.is_gpu:  # the one version that all GPUs' compilers know
        options = ("-cl-std=CL1.2",)
    if (
        device.info.vendor == "oclgrind"
    ):  # knows no generic pointers, and extends the optimiser's vectors of single bits wrongly
        options = ("-cl-std=CL1.2", "-cl-opt-disable")
    return build_program(device, text, options, origins)
