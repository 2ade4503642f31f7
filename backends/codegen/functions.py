"""The distinct functions of a plan's steps, and how they are called.

Functions are merged by their text, so the optimizer's update of every parameter is one function and many steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from backends.codegen.cnames import counter_type, memory_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.language import Language
from backends.codegen.registry import BY_NAME
from backends.codegen.template import NAME
from graphcore.kernel.ir import Kernel
from graphcore.plan.plan import Launch, Plan

__all__ = ["Function", "functions_of"]


@dataclass(frozen=True)
class Function:
    """A distinct step function; ``local_bytes`` is None where work items do not work together.

    ``weight`` says how long a byte of its text takes compilers, against others'; ``nbytes`` outlives the text.
    """

    number: int
    name: str
    text: str
    kernel: Kernel
    arguments: int
    local_bytes: int | None = None
    weight: float = 1.0
    nbytes: int = 0

    def call(self, language: Language, addresses: Sequence[str], sizes: Sequence[str], *more: str) -> str:
        """The statement that calls it.

        Args:
            language: what it is written in.
            addresses: of the buffers behind its parameters, as pointers to anything.
            sizes: its arguments, of any integer type.
            more: the task's number and the number of tasks; then local memory, where it takes some.
        """
        written = self.kernel.written()
        args = [
            f"({language.pointer(memory_type(p.dtype), const=i not in written)})({address})"
            for i, (p, address) in enumerate(zip(self.kernel.params, addresses, strict=True))
        ]
        args += [f"({counter_type(self.kernel)}){size}" for size in sizes]
        return f"{self.name}({', '.join([*args, *more])});"


def functions_of(plan: Plan, model: DeviceModel) -> tuple[tuple[Function, ...], tuple[int, ...]]:
    """The functions of a plan, and which one every step calls.

    Args:
        plan: with a schedule for every step.
        model: of the device.
    """
    found: dict[str, Function] = {}
    of_step: list[int] = []
    taken: dict[str, int] = {}
    for step in plan.launches:
        family = BY_NAME[step.family]
        text = family.text(step.kernel, step.choices, model)
        function = found.get(text)
        if function is None:
            base = re.sub(r"\W", "", step.kernel.name)[:40]
            taken[base] = taken.get(base, 0) + 1
            name = f"{base}_{taken[base]}"
            local = family.local_bytes(step.kernel, step.choices, model)
            named = _commented(step, text.replace(NAME, name))
            function = found[text] = Function(
                len(found),
                name,
                named,
                step.kernel,
                len(step.arguments),
                local,
                family.build_weight,
                len(named),
            )
        of_step.append(function.number)
    model.texts.forget()
    return tuple(found.values()), tuple(of_step)


def _commented(step: Launch, text: str) -> str:
    """The function under the ops that it computes. Lines and extents are not part of it: equal kernels must have equal
    text."""
    ops = dict.fromkeys(re.sub(r"\W", "", line.split(" ")[0]) for line in step.kernel.origins)
    return f"// {' '.join(ops)}\n{text}"
