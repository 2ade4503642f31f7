"""What all optimizers share: finding variables, slots, the step count, the learning rate, and training steps."""

from __future__ import annotations

from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphcore.api import elementwise
from graphcore.api.agreement import taken
from graphcore.api.gradients import gradients
from graphcore.api.initializers import zeros
from graphcore.api.operands import scalar
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Update, Variable, read_variables
from graphcore.base import source
from graphcore.base.dtypes import DType, float32
from graphcore.base.errors import DTypeError, GradientError, ShapeError, UsageError
from graphcore.base.garbage import collector_paused
from graphcore.base.notices import warn_of_building
from graphcore.base.shapes import agree
from graphcore.ir.graph import toposort
from graphcore.ir.node import describe
from graphcore.optim.groups import Parameters, ParamGroup, checked_value, is_rate, label, parameter_groups
from graphcore.optim.state import load_values, numbered_state, read_values

__all__ = ["Optimizer", "TrainStep"]


@dataclass(frozen=True)
class TrainStep:
    """Updates that land together: fetching it performs one step of an optimizer and gives None.

    Attributes:
        updates: the updates of parameters, slots and the step count.
    """

    updates: tuple[Update, ...]

    def __len__(self) -> int:
        return len(self.updates)

    def __iter__(self) -> Iterator[Update]:
        return iter(self.updates)

    def __repr__(self) -> str:
        return f"TrainStep({len(self.updates)} updates)"


class _RateFirst(ABCMeta):
    """Lets a learning rate stand where the parameters stand: ``Adam(0.001)`` is ``Adam(lr=0.001)``."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if args and is_rate(args[0]) and "lr" not in options:
            args = (None, *args)
        return super().__call__(*args, **options)


class Optimizer(ABC, metaclass=_RateFirst):
    """Base of optimizers: they build training steps for a session to fetch.

    ``Opt(params, lr)`` trains these parameters, by ``minimize(loss)``, or by ``loss.backward()`` and ``step()``;
    ``Opt(lr=...).minimize(loss)`` trains every trainable variable that the loss depends on.

    Args:
        params: what to train: parameters or a module, or groups, dictionaries with ``"params"`` and options that differ
            from the others; None for what ``minimize`` finds.
        defaults: the options by name, ``"lr"`` first: a positive number or 0; a scalar tensor or variable, to set it
            between runs; or a function of the number of steps taken so far (a float32 scalar tensor) that gives a
            scalar tensor, to compute a schedule within the step.
        name: needed where two optimizers train one variable; a part of the checkpoint keys then.

    The state of a variable is made once per optimizer, as variables named ``<variable>/<slot>`` with the checkpoint key
    ``optim/<slot>/<key of the variable>`` (``optim/<name>/<slot>/<key>`` with a name).

    Attributes:
        param_groups: dictionaries of parameters and options; none without ``params``.
        slot_names: what its state of a parameter is called.
        defaults: the options; each is an attribute, too, which assigns the option of every group.
    """

    slot_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Parameters, defaults: Mapping[str, Any], name: str | None = None) -> None:
        self._op = type(self).__name__
        self._name = None if name is None else str(name)
        self.defaults = ParamGroup(self._op, self._checked, defaults)
        self.param_groups: list[ParamGroup] = (
            [] if params is None else parameter_groups(self._op, params, self.defaults, self._checked)
        )
        self._slots: dict[tuple[int, str], Variable] = {}
        self._steps: Variable | None = None
        self._uncounted = False  # whether a step was built that does not count

    def __getattr__(self, name: str) -> Any:
        defaults = self.__dict__.get("defaults", {})
        if name in defaults:
            return defaults[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("defaults", {}):
            # Those that steps were built with come first, for they refuse.
            for group in sorted((*self.param_groups, self.defaults), key=lambda group: not group.built):
                group[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def iterations(self) -> Variable:
        """The number of steps taken, an int64 variable.

        Raises:
            UsageError: a step was built that does not count; ask before building it.
        """
        if self._steps is None and self._uncounted:
            raise UsageError(
                f"{self._op}: its steps do not count, since nothing needs their number; ask for .iterations before "
                f"building the step"
            )
        return self._counter()

    def slots(self, variable: Variable) -> dict[str, Variable]:
        """The state that belongs to a variable, by slot name."""
        return {slot: value for (owner, slot), value in self._slots.items() if owner == variable.uid}

    def variables(self) -> list[Variable]:
        """All state of the optimizer, the step count last."""
        return [*self._slots.values(), *([self._steps] if self._steps is not None else [])]

    def state_dict(self, *, session: Any = None) -> dict[str, Any]:
        """The state in PyTorch's layout: ``{"state": {number: {slot: array, "step": n}}, "param_groups": [...]}``, by
        the order of the parameters.

        Args:
            session: whose values; by default those of the open session that changed them last, else the initial ones.

        Raises:
            SessionError: the state was changed in a session that is closed, and was not committed.
            UsageError: the optimizer was given no parameters.
        """
        params = self._own("state_dict")
        state: dict[int, dict[str, Any]] = {}
        values = iter(read_values(f"{self._op}.state_dict", self.variables(), session))
        named = {(uid, slot): next(values) for uid, slot in self._slots}
        step = {"step": next(values)} if self._steps is not None else {}
        for number, variable in enumerate(params):
            held = {slot: value for (uid, slot), value in named.items() if uid == variable.uid}
            state[number] = {**held, **step}
        numbers = {v.uid: number for number, v in enumerate(params)}
        groups = [{**group, "params": [numbers[v.uid] for v in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the state's initial values from ``state_dict``'s arrays or PyTorch's, by the order of the parameters,
        before a session uses them. Options of groups stay as they are. Nothing changes if it raises.

        Raises:
            FormatError: another layout, another number of parameters, or a slot that the optimizer does not have.
            SessionError: an open session uses the state already, so that an initial value would come too late.
            ShapeError, DTypeError: an array does not fit.
            UsageError: the optimizer was given no parameters.
        """
        params = self._own("load_state_dict")
        found = numbered_state(self._op, state_dict, len(params), (*self.slot_names, "step"))
        values: list[tuple[Variable, Any]] = []
        steps = [int(held.pop("step")) for held in found.values() if "step" in held]
        for number, held in found.items():
            values += [(self._slot(params[number], slot), value) for slot, value in held.items()]
        if steps and not (self._steps is None and self._uncounted):
            values.append((self._counter(), np.int64(max(steps))))
        load_values(f"{self._op}.load_state_dict", values)

    # -- building -----------------------------------------------------------------------------------------------------

    def minimize(self, loss: Tensor, variables: Any = None) -> TrainStep:
        """A training step that moves variables down the gradient of a loss.

        Args:
            loss: a scalar tensor of a floating type.
            variables: what to move: variables, or a module for its trainable parameters; by default the parameters
                that the optimizer was given, or every trainable variable that the loss depends on.

        Returns:
            The step, to be fetched by a session: ``sess.run([loss, step], ...)``.

        Raises:
            GradientError: the loss is not a scalar or does not depend on a given variable, or there is nothing to
                train.

        >>> from graphcore import optim
        >>> x = Variable(3.0)
        >>> optim.SGD(lr=0.1).minimize(x * x)
        TrainStep(1 updates)
        """
        return self.apply_gradients(self.compute_gradients(loss, variables))

    def compute_gradients(self, loss: Tensor, variables: Any = None) -> list[tuple[Tensor, Variable]]:
        """Pairs of gradient and variable, for ``apply_gradients``; arguments and errors as for ``minimize``."""
        loss = _checked_loss(loss)
        chosen = _chosen(loss, variables, [v for group in self.param_groups for v in group["params"]])
        found = gradients(loss, chosen)
        pairs: list[tuple[Tensor, Variable]] = []
        for variable, gradient in zip(chosen, found, strict=True):
            if gradient is not None:
                pairs.append((gradient, variable))
            elif variables is not None:
                raise GradientError(
                    f"minimize: the loss does not depend on the variable {label(variable)!r}, made at "
                    f"{variable.place}\n"
                    f"  the loss is {describe(loss)}\n  leave the variable out, or check for stop_gradient "
                    "and no_grad on the way"
                )
        if not pairs:
            raise GradientError(
                f"minimize: no gradient reaches a trainable variable; all paths are stopped "
                "(stop_gradient, detach, no_grad)\n"
                f"  the loss is {describe(loss)}"
            )
        return pairs

    def apply_gradients(self, pairs: Iterable[tuple[Tensor | None, Variable]]) -> TrainStep:
        """A training step from gradients.

        Args:
            pairs: gradient and variable; pairs without a gradient are left out.

        Raises:
            UsageError: a variable comes twice, or there is no pair.
            ShapeError, DTypeError: a gradient does not fit its variable.
        """
        given = _checked_pairs(pairs)
        place = source.capture().place
        warn_of_building(f"{self._op}'s step", given[0][1].uid)
        groups = {v.uid: group for group in self.param_groups for v in group["params"]}
        with source.reset_scopes((self._op,)), collector_paused():
            scalars: dict[int, _Scalars] = {}
            updates = []
            for gradient, variable in given:
                group = groups.get(variable.uid, self.defaults)
                group.built = True
                if id(group) not in scalars:
                    scalars[id(group)] = _Scalars(self, group)
                shared = scalars[id(group)](variable.dtype)
                changes = self._update(gradient, variable, shared, group)
                updates += [Update(target.slot, new.value, place) for target, new in changes]
            if self._steps is not None:
                self._name_count([variable for _, variable in given])
                updates.append(Update(self._steps.slot, elementwise.add(self._steps, 1).value, place))
            else:
                self._uncounted = True
        return TrainStep(tuple(updates))

    def step(self, closure: Callable[[], Any] | None = None) -> TrainStep:
        """A training step from the ``.grad`` that ``backward`` left in each parameter, as it is now.

        It is built here and performed by every run that fetches it. Parameters without a ``.grad``, and those that are
        not trainable now, are left out. ``zero_grad()`` afterwards changes nothing that was built.

        Args:
            closure: called once, now: it may call ``zero_grad`` and ``backward``.

        Raises:
            UsageError: the optimizer was given no parameters.
            GradientError: no parameter has a gradient.

        >>> from graphcore import optim
        >>> w = Variable(3.0)
        >>> opt = optim.SGD([w], lr=0.1)
        >>> (w * w).backward()
        >>> opt.step()
        TrainStep(1 updates)
        """
        params = self._own("step")
        if closure is not None:
            closure()
        pairs = [(v.grad, v) for v in params if v.trainable and v.grad is not None]
        if not pairs:
            raise GradientError(
                f"{self._op}.step: no trainable parameter has a gradient; call loss.backward() before, and zero_grad() "
                f"before that or afterwards"
            )
        return self.apply_gradients(pairs)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the ``.grad`` of the parameters, while building; steps that were built keep theirs."""
        for variable in self._own("zero_grad"):
            variable.grad = None

    def _own(self, function: str) -> list[Variable]:
        """The parameters that the optimizer was given."""
        if not self.param_groups:
            raise UsageError(
                f"{self._op}.{function}: the optimizer was given no parameters; write {self._op}(model.parameters(), "
                f"lr=0.001), or minimize(loss) in place of backward() and step()"
            )
        return [v for group in self.param_groups for v in group["params"]]

    # -- for subclasses -----------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def _checked(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, once they are sure to be in their ranges."""

    @abstractmethod
    def _scalars(self, lr: Tensor, count: Callable[[], Tensor], options: Mapping[str, Any]) -> dict[str, Tensor]:
        """Scalars that all variables of a group and type share, from the learning rate and the number of this step (1,
        2, ...)."""

    @abstractmethod
    def _update(
        self, gradient: Tensor, variable: Variable, scalars: dict[str, Tensor], options: Mapping[str, Any]
    ) -> list[tuple[Variable, Tensor]]:
        """New values: the variable's first, then its slots'.

        They are the same expressions for every variable, since equal expressions share a kernel.
        """

    def _slot(self, variable: Variable, slot: str) -> Variable:
        """A variable's state of its shape and type, zero at first."""
        key = (variable.uid, slot)
        if key not in self._slots:
            with source.reset_scopes(()):
                state = Variable(zeros(variable.shape, variable.dtype), trainable=False, name=f"{variable.name}/{slot}")
            name = self._name
            state.key_hint = _state_key(name, slot, label(variable))
            state.key_from = lambda key_of: _state_key(name, slot, key_of(variable))
            self._slots[key] = state
        return self._slots[key]

    def _counter(self) -> Variable:
        if self._steps is None:
            with source.reset_scopes(()):
                self._steps = Variable(np.int64(0), trainable=False, name=f"{self._op}/step")
        return self._steps

    def _name_count(self, trained: Sequence[Variable]) -> None:
        """Two optimizers of one program train different variables."""
        if self._steps is not None and self._steps.key_from is None:
            name = self._name
            self._steps.key_hint = _state_key(name, "step", min(map(label, trained)))
            self._steps.key_from = lambda key_of: _state_key(name, "step", min(map(key_of, trained)))


def _state_key(name: str | None, slot: str, key: str) -> str:
    """A checkpoint key of what an optimizer keeps. No method, since variables that an optimizer holds ask for it."""
    return "/".join(("optim", *([] if name is None else [name]), slot, key))


class _Scalars:
    """The shared scalars of one step and group, built once for each element type."""

    def __init__(self, optimizer: Optimizer, group: ParamGroup) -> None:
        self._optimizer = optimizer
        self._group = group
        rate = group["lr"]
        if not isinstance(rate, (float, Tensor)):
            rate = checked_value(rate(elementwise.subtract(self._count(float32), 1.0)))
        self._rate: Any = rate
        self._made: dict[DType, dict[str, Tensor]] = {}

    def __call__(self, dtype: DType) -> dict[str, Tensor]:
        if dtype not in self._made:
            rate = self._rate if isinstance(self._rate, Tensor) else scalar("lr", self._rate, dtype)
            rate = elementwise.astype(rate, dtype)
            self._made[dtype] = self._optimizer._scalars(rate, lambda: self._count(dtype), self._group)
        return self._made[dtype]

    def _count(self, dtype: DType) -> Tensor:
        # From the counter's new value only: a kernel that still needed the old one would keep it from being updated in
        # place.
        return elementwise.astype(elementwise.add(self._optimizer._counter(), 1), dtype)


def _checked_loss(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise UsageError(f"minimize: the loss must be a tensor, got {type(loss).__name__}")
    if loss.shape != ():
        raise GradientError(
            f"minimize: the loss must be a scalar; reduce it with .mean() or .sum()\n  the loss is {describe(loss)}"
        )
    if not loss.dtype.is_float:
        raise GradientError(f"minimize: the loss must be of a floating type\n  the loss is {describe(loss)}")
    return loss


def _chosen(loss: Tensor, variables: Any, params: Sequence[Variable]) -> list[Variable]:
    """The variables to train, in the order of their making unless the user gave one; of the optimizer's parameters,
    if it has any, those that the loss depends on."""
    if variables is None:
        read = read_variables(toposort([loss.value]))
        chosen = sorted((v for v in read if v.trainable), key=lambda v: v.uid)
        if params:
            reached = {v.uid for v in chosen}
            chosen = [v for v in params if v.uid in reached]
        if not chosen:
            frozen = ", ".join(repr(label(v)) for v in read[:5])
            raise GradientError(
                f"minimize: the loss depends on no trainable {'parameter of the optimizer' if params else 'variable'}"
                f"{f' (only on {frozen}, which are not trainable)' if frozen else ''}\n  the loss is {describe(loss)}"
            )
        return chosen
    if hasattr(variables, "parameters"):
        chosen = [v for v in variables.parameters() if v.trainable]
    else:
        chosen = [variables] if isinstance(variables, Variable) else list(variables)
    for v in chosen:
        if not isinstance(v, Variable):
            raise UsageError(f"minimize: variables must be Variables, got {type(v).__name__}")
        if not v.dtype.is_float:
            raise GradientError(f"minimize: the variable {label(v)!r} is {v.dtype}; only floating types can be trained")
    if not chosen:
        raise GradientError("minimize: no trainable variables were given")
    return chosen


def _checked_pairs(pairs: Iterable[tuple[Tensor | None, Variable]]) -> list[tuple[Tensor, Variable]]:
    given: list[tuple[Tensor, Variable]] = []
    seen: set[int] = set()
    for gradient, variable in pairs:
        if not isinstance(variable, Variable):
            raise UsageError(
                f"apply_gradients: pairs are (gradient, variable), got {type(variable).__name__} as the variable"
            )
        if gradient is None:
            continue
        if id(variable) in seen:
            raise UsageError(
                f"apply_gradients: the variable {label(variable)!r}, made at {variable.place}, comes "
                "twice; add its gradients"
            )
        seen.add(id(variable))
        if not agree(gradient.shape, variable.shape):
            raise ShapeError(
                f"apply_gradients: the variable {label(variable)!r} has shape {variable.shape}, its "
                f"gradient {gradient.shape}\n"
                f"  the gradient is {describe(gradient)}"
            )
        if gradient.dtype != variable.dtype:
            raise DTypeError(
                f"apply_gradients: the variable {label(variable)!r} is {variable.dtype}, its gradient "
                f"{gradient.dtype}\n"
                f"  the gradient is {describe(gradient)}"
            )
        given.append((taken(gradient, variable.shape, "apply_gradients", variable), variable))
    if not given:
        raise UsageError("apply_gradients: no gradients were given")
    return given
