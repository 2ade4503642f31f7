"""One program per plan: the distinct step functions, and one dispatch kernel that calls them by rows of a table.

A row of the table is ``[function, first task, tasks, (space, offset) per parameter, sizes...]``. The same compiled program can run
a launch per step, a launch per stage or the whole plan in one work item: these are arguments. Functions are merged by their text,
so the optimizer's update of every parameter is one function and many rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from backends.opencl.build import build_program
from backends.opencl.cnames import memory_type
from backends.opencl.emit import Dialect
from backends.opencl.prelude import PRAGMAS, prelude_for
from backends.opencl.templates import BY_NAME
from backends.opencl.templates.base import NAME
from graphcore.kernel.ir import Kernel
from graphcore.plan import Plan, Step

__all__ = ["Function", "Source", "generate", "compile_source"]

_ROW_HEAD = 3


@dataclass(frozen=True)
class Function:
    """A distinct step function."""

    number: int
    name: str
    text: str
    kernel: Kernel
    arguments: int


@dataclass(frozen=True)
class Source:
    """A plan's program text, and which function every step calls."""

    text: str
    functions: tuple[Function, ...]
    of_step: tuple[int, ...]


def generate(plan: Plan, dialect: Dialect) -> Source:
    """The program of a plan."""
    found: dict[str, Function] = {}
    of_step: list[int] = []
    taken: dict[str, int] = {}
    for step in plan.steps:
        text = BY_NAME[step.template].emit(step.kernel, step.config, dialect)
        key = text
        function = found.get(key)
        if function is None:
            base = re.sub(r"\W", "", step.kernel.name)[:40]
            taken[base] = taken.get(base, 0) + 1
            name = f"{base}_{taken[base]}"
            function = found[key] = Function(len(found), name, _commented(step, text.replace(NAME, name)), step.kernel,
                                                   len(BY_NAME[step.template].arguments(step.kernel, step.config)))
        of_step.append(function.number)
    functions = tuple(found.values())
    body = "\n".join(f.text for f in functions)
    dispatch = _dispatch(functions)
    return Source(PRAGMAS + prelude_for(body, dialect.vendor) + body + "\n" + dispatch, functions, tuple(of_step))


def _commented(step: Step, text: str) -> str:
    """The function under the ops that it computes. Lines and extents are not part of it: equal kernels must have equal text."""
    ops = dict.fromkeys(re.sub(r"\W", "", line.split(" ")[0]) for line in step.kernel.origins)
    return f"// {' '.join(ops)}\n{text}"


def _dispatch(functions: tuple[Function, ...]) -> str:
    cases = []
    for f in functions:
        args = []
        at = _ROW_HEAD
        written = f.kernel.written()
        for i, p in enumerate(f.kernel.params):
            const = "" if i in written else "const "
            args.append(f"(__global {const}{memory_type(p.dtype)}*)(space[r[{at}]] + r[{at + 1}])")
            at += 2
        for _ in range(f.arguments):
            args.append(f"(int)r[{at}]")
            at += 1
        cases.append(f"    case {f.number}: {f.name}({', '.join([*args, 'task', 'tasks'])}); break;")
    switch = "\n".join(cases)
    return f"""\
GC_NOINLINE static void run_row(__global char* arena, __global char* variables, __global char* constants, __global const long* r, const int task, const int tasks) {{
  __global char* space[3];
  space[0] = arena; space[1] = variables; space[2] = constants;
  switch ((int)r[0]) {{
{switch}
  }}
}}

#ifdef cl_intel_vec_len_hint
__attribute__((intel_vec_len_hint(1)))
#endif
__kernel void run_plan(__global char* arena, __global char* variables, __global char* constants, __global const long* table,
                       const int first, const int last, const int whole) {{
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
    origins = "\n".join(f"{s.kernel.name}: " + "; ".join(s.kernel.origins) for s in plan.steps)
    options = () if device.info.vendor == "pocl" else ("-cl-std=CL2.0",)
    return build_program(device, source.text, options, origins)
