"""The programs of a plan: the distinct step functions, and the kernels that call them by rows of a table.

A row of the table is ``[function, first task, tasks, (pointer, offset) per parameter, sizes...]``. Kernels take a
pointer for each of the arena, the variables and the constants, and more only where a space has several blocks.

On CPUs one dispatch kernel switches over the functions, and the same compiled program can run a launch per step, a
launch per level or the whole plan in one work item: these are arguments. On GPUs a task is a work-group; functions
differ in local memory and registers, so each has a kernel of its own, which runs all its rows of a level at once, and
one launch is a second program: a single work-group with a barrier after every row.

A plan whose text would keep one compiler busy for seconds is several programs on CPUs (splitting.py), each with a
dispatch kernel over its own functions, which are compiled at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.codegen.device_model import DeviceModel
from backends.codegen.functions import Function, functions_of
from backends.codegen.language import Quirks
from backends.codegen.opencl_c import OpenCL
from backends.codegen.prelude import prelude_for
from backends.opencl.compiler.build import build_program, build_programs
from backends.opencl.splitting import Splitting, split_functions
from graphcore.plan.plan import Plan

__all__ = ["POINTERS", "Source", "compile_source", "compile_whole", "generate"]

_ROW_HEAD = 3
_SPACES = ("arena", "variables", "constants")
POINTERS = len(_SPACES)
_LANGUAGE = OpenCL(Quirks())
_NOINLINE = "__attribute__((noinline))"  # on GPUs calls cost more than text


@dataclass(frozen=True)
class Source:
    """The texts of a plan's programs.

    Attributes:
        texts: of every program.
        functions: of all programs, each once.
        of_step: which function every step calls.
        program_of_step: in which program.
        whole: a GPU's program for one launch.
    """

    texts: tuple[str, ...]
    functions: tuple[Function, ...]
    of_step: tuple[int, ...]
    program_of_step: tuple[int, ...]
    whole: str = ""

    @property
    def text(self) -> str:
        """All programs, one after another."""
        return "\n".join(self.texts)

    @property
    def calls(self) -> list[tuple[int, int]]:
        """The function and the program of every step."""
        return list(zip(self.of_step, self.program_of_step, strict=True))

    def without_text(self) -> Source:
        """What binding takes; ``generate`` gives the texts of the plan again."""
        return replace(self, texts=(), functions=tuple(replace(f, text="") for f in self.functions), whole="")


def generate(plan: Plan, model: DeviceModel, splitting: Splitting | None = None, pointers: int = POINTERS) -> Source:
    """The programs of a plan.

    Args:
        plan: with a schedule for every step.
        model: of the device.
        splitting: how a CPU's plan may be divided into several programs; not at all without.
        pointers: blocks of memory that the kernels take.
    """
    functions, of_step = functions_of(plan, model)
    first = (0,) * len(of_step)
    if model.is_gpu:
        body = "\n".join(f.text for f in functions)
        shared = model.language.header.replace(_NOINLINE, "") + prelude_for(body, model.language) + body + "\n"
        whole = shared + _whole_kernel(functions, model.group, pointers)
        return Source((shared + _step_kernels(functions, model.group, pointers),), functions, of_step, first, whole)
    if splitting is None:
        return Source((_cpu_text(functions, model, pointers),), functions, of_step, first)
    numbers = iter(of_step)
    levels = [[next(numbers) for _ in steps] for steps in plan.levels]
    split = split_functions([round(len(f.text) * f.weight) for f in functions], levels, splitting)
    texts = tuple(_cpu_text([functions[n] for n in members], model, pointers) for members in split.members)
    return Source(texts, functions, of_step, split.of_step)


def _cpu_text(functions: Sequence[Function], model: DeviceModel, pointers: int) -> str:
    """The text of one program: some functions and the kernel that calls them."""
    body = "\n".join(f.text for f in functions)
    start = model.language.header + model.language.all_rolled
    return start + prelude_for(body, model.language) + body + "\n" + _dispatch(functions, pointers)


def _call(f: Function, *more: str) -> str:
    """A call of a function with the parameters of the row ``r``."""
    count = len(f.kernel.params)
    places = range(_ROW_HEAD, _ROW_HEAD + 2 * count, 2)
    addresses = [f"space[r[{at}]] + r[{at + 1}]" for at in places]
    sizes = [f"r[{_ROW_HEAD + 2 * count + n}]" for n in range(f.arguments)]
    return f.call(_LANGUAGE, addresses, sizes, *more)


def _names(pointers: int) -> list[str]:
    return [*_SPACES, *(f"block_{i}" for i in range(POINTERS, pointers))]


def _declared(pointers: int) -> str:
    return ", ".join(f"__global char* {name}" for name in _names(pointers))


def _spaces(pointers: int) -> str:
    assigned = " ".join(f"space[{i}] = {name};" for i, name in enumerate(_names(pointers)))
    return f"  __global char* space[{pointers}];\n  {assigned}\n"


_GPU_HEAD = """
#ifdef cl_intel_vec_len_hint
__attribute__((intel_vec_len_hint(1)))
#endif
__kernel __attribute__((reqd_work_group_size({group}, 1, 1))) void {name}(
    {pointers}, __global const long* table,
    const int first, const int last) {{
"""


def _step_kernels(functions: tuple[Function, ...], group: int, pointers: int) -> str:
    """A kernel for every function: the rows ``first`` to ``last`` of the table, every group a task of one of them."""
    parts = []
    for f in functions:
        pool, call = "", _call(f, f"task * {group} + (int)get_local_id(0)", f"(int)r[2] * {group}")
        if f.local_bytes is not None:
            pool, call = (
                f"  __local long __attribute__((aligned(16))) pool[{-(-max(f.local_bytes, 8) // 8)}];\n",
                _call(f, "task", "(int)r[2]", "(__local char*)pool"),
            )
        parts.append(
            _GPU_HEAD.format(group=group, name=f"step_{f.number}", pointers=_declared(pointers))
            + f"""\
{pool}{_spaces(pointers)}  const int g = (int)get_group_id(0);
  int i = first;
  while (i + 1 < last && g >= (int)table[table[i + 1] + 1]) ++i;  // rows are in the order of their first tasks
  __global const long* r = table + table[i];
  const int task = g - (int)r[1];
  {call}
}}
"""
        )
    return "".join(parts)


def _whole_kernel(functions: tuple[Function, ...], group: int, pointers: int) -> str:
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
        _GPU_HEAD.format(group=group, name="run_whole", pointers=_declared(pointers))
        + f"""\
  __local long __attribute__((aligned(16))) pool[{-(-size // 8)}];
{_spaces(pointers)}  for (int i = first; i < last; ++i) {{
    __global const long* r = table + table[i];
    switch ((int)r[0]) {{
{cases}
    }}
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  }}
}}
"""
    )


def _dispatch(functions: Sequence[Function], pointers: int) -> str:
    declared, names = _declared(pointers), ", ".join(_names(pointers))
    switch = "\n".join(f"    case {f.number}: {_call(f, 'task', 'tasks')} break;" for f in functions)
    return f"""\
GC_NOINLINE static void run_row({declared},
                                __global const long* r, const int task, const int tasks) {{
{_spaces(pointers)}  switch ((int)r[0]) {{
{switch}
  }}
}}

#ifdef cl_intel_vec_len_hint
__attribute__((intel_vec_len_hint(1)))
#endif
__kernel void run_plan({declared},
                       __global const long* table, const int first, const int last, const int whole) {{
  if (whole) {{  // one work item runs everything
    for (int i = first; i < last; ++i) {{
      __global const long* r = table + table[i];
      for (int t = 0; t < (int)r[2]; ++t) run_row({names}, r, t, (int)r[2]);
    }}
    return;
  }}
  const int g = (int)get_group_id(0);
  for (int i = first; i < last; ++i) {{
    __global const long* r = table + table[i];
    const int t = g - (int)r[1];
    if (t >= 0 && t < (int)r[2]) {{
      run_row({names}, r, t, (int)r[2]);
      return;
    }}
  }}
}}
"""


def compile_source(device: Any, source: Source, plan: Plan) -> list[Any]:
    """The built programs; those that are not in the cache are compiled at once."""
    called = [{f for f, p in source.calls if p == number} for number in range(len(source.texts))]
    return build_programs(device, source.texts, device.info.build_options, _origins(plan), [len(f) for f in called])


def compile_whole(device: Any, source: Source, plan: Plan) -> Any:
    """The built program that runs a plan in one launch on a GPU."""
    return build_program(device, source.whole, device.info.build_options, _origins(plan), len(source.functions))


def _origins(plan: Plan) -> str:
    return "\n".join(f"{s.kernel.name}: " + "; ".join(s.kernel.origins) for s in plan.launches)
