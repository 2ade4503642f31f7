"""Plans as lossless JSON: buffers by position, kernels, what was chosen for them, arrays by digest."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from numpy.typing import NDArray

from graphcore.base.errors import UsageError
from graphcore.io.fields import At, Codec, parse, render
from graphcore.io.kernel_json import decode_kernel, decode_tabled, encode_kernel, encode_tabled
from graphcore.kernel.ir import Kernel
from graphcore.plan.backend import backend_module
from graphcore.plan.plan import Choices, Launch, Plan, Step, Unchosen
from graphcore.plan.steps import STEPS
from graphcore.plan.verify import verify_plan

__all__ = ["plan_from_json", "plan_to_json"]

_FORMAT, _VERSION = "graphcore.plan", 1
_GROUP = "graphcore.families"  # entry points that bring families of schedules

Store = MutableMapping[str, NDArray[Any]]


def plan_to_json(plan: Plan, store: Store | None = None) -> str:
    """The canonical text of a plan: equal plans have equal texts.

    Args:
        plan: a plan with its steps in levels.
        store: is given the plan's constants, by digest; ``io.checkpoint.save_arrays`` writes it to a file. A plan
            without constants needs none.

    Raises:
        UsageError: there is no store for constants, or a family of schedules does not say what its choices are.

    >>> from graphcore.plan.plan import Plan
    >>> plan_from_json(plan_to_json(Plan())) == Plan()
    True
    """
    encoded = _PlanCodec(store).encode_fields(plan, tagged=False)
    return render({"format": _FORMAT, "version": _VERSION, "plan": encoded})


def plan_from_json(text: str, store: Store | None = None) -> Plan:
    """The plan that a text of ``plan_to_json`` stands for, verified.

    Args:
        text: the text.
        store: the arrays that it names by their digests.

    Raises:
        FormatError: the text is damaged, of another version, or names an array or a family of schedules that is not
            there; the message names the field.
    """
    at = parse(text, _FORMAT, _VERSION).fields("format", "version", "plan")["plan"]
    plan: Plan = _PlanCodec(store).decode_fields(at, Plan)
    at.guarded(verify_plan, plan)
    return plan


class _PlanCodec(Codec):
    """Beside plain data: kernels, and choices of the class that the step's family declares."""

    def __init__(self, store: Store | None) -> None:
        super().__init__(store, {Step: STEPS})
        self.choices: dict[str, type] = {}
        self.classes: dict[type, tuple[type, ...]] = {}  # of the choices of the step at hand
        for name, family in backend_module("codegen.registry").BY_NAME.items():
            if family.choices is not None:
                self.choices[name] = family.choices

    def encode(self, value: Any, hint: Any) -> Any:
        if hint is Choices:
            return encode_tabled(value, hint, self.classes)
        return encode_kernel(value) if hint is Kernel else super().encode(value, hint)

    def decode(self, at: At, hint: Any) -> Any:
        if hint is Choices:
            return decode_tabled(at, hint, self.classes)
        return decode_kernel(at) if hint is Kernel else super().decode(at, hint)

    def encode_fields(self, value: Any, tagged: bool) -> dict[str, Any]:
        if not isinstance(value, Launch):
            return super().encode_fields(value, tagged)
        self.classes = {Choices: self.known(value.family)}
        if type(value.choices) not in self.classes[Choices]:
            raise UsageError(
                f"the step {value.kernel.name} of the family {value.family} has choices of the class "
                f"{type(value.choices).__name__}, which the family does not declare: give it `choices = ...`"
            )
        return super().encode_fields(value, tagged)

    def decode_fields(self, at: At, hint: type) -> Any:
        if hint is Launch:
            name = at.at("family").expect(str) if "family" in at.expect(dict) else ""
            if name not in self.choices:
                raise at.fault(
                    f"no family of schedules is named {name!r}; a package that has it brings it by an entry point of "
                    f"the group {_GROUP}"
                )
            self.classes = {Choices: self.known(name)}
        return super().decode_fields(at, hint)

    def known(self, family: str) -> tuple[type, ...]:
        """The classes that choices of a family may be of."""
        return (Unchosen, self.choices[family]) if family in self.choices else (Unchosen,)
