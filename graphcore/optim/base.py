"""What all optimizers share: finding variables, slots, the step count, the learning rate, and training steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from graphcore.api import elementwise
from graphcore.api.gradients import gradients
from graphcore.api.operands import scalar
from graphcore.api.variable import Variable
from graphcore.base import source
from graphcore.base.dtypes import DType, float32
from graphcore.base.errors import DTypeError, GradientError, ShapeError, UsageError
from graphcore.ir.graph import Update, read_variables, toposort
from graphcore.ir.node import Tensor, describe
from graphcore.nn.norm import with_updates

__all__ = ["LearningRate", "Optimizer", "TrainStep"]

LearningRate = float | Tensor | Callable[[Tensor], Any]


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


class Optimizer(ABC):
    """Base of optimizers: ``minimize`` builds a training step for a session to fetch.

    Args:
        lr: learning rate: a positive number or 0; a scalar tensor or variable, to set it between runs; or a function of
            the number of steps taken so far (a float32 scalar tensor) that gives a scalar tensor, to compute a schedule
            within the step.

    The state of a variable is made once per optimizer, as variables named ``<variable>/<slot>`` with the checkpoint key
    ``optim/<slot>/<key of the variable>``.
    """

    def __new__(cls, *given: Any, **options: Any) -> Self:
        """Refuse parameters as the first argument before Python complains of a second learning rate."""
        if given:
            _refuse_parameters(cls.__name__, given[0])
        return super().__new__(cls)

    def __init__(self, lr: LearningRate) -> None:
        self.lr: LearningRate = checked_rate(type(self).__name__, lr)
        self._slots: dict[tuple[int, str], Variable] = {}
        self._step: Variable | None = None

    @property
    def step(self) -> Variable | None:
        """The number of steps taken, int64; None before the first build and for optimizers that do not count."""
        return self._step

    def slots(self, variable: Variable) -> dict[str, Variable]:
        """The state that belongs to a variable, by slot name."""
        return {slot: value for (owner, slot), value in self._slots.items() if owner == variable.uid}

    def variables(self) -> list[Variable]:
        """All state of the optimizer, the step count last."""
        return [*self._slots.values(), *([self._step] if self._step is not None else [])]

    # -- building -----------------------------------------------------------------------------------------------------

    def minimize(self, loss: Tensor, variables: Any = None) -> TrainStep:
        """A training step that moves variables down the gradient of a loss.

        Args:
            loss: a scalar tensor of a floating type.
            variables: what to move: variables, or a module for its trainable parameters; by default every trainable
                variable that the loss depends on.

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
        step = self.apply_gradients(self.compute_gradients(loss, variables))
        # A batch normalisation moves its statistics with its output; fetching the step alone must do that too.
        side = tuple(update for node in toposort([loss]) for update in node.updates)
        if not side:
            return step
        first, *rest = step.updates
        return TrainStep((Update(first.variable, with_updates(first.value, side), first.place), *rest))

    def compute_gradients(self, loss: Tensor, variables: Any = None) -> list[tuple[Tensor, Variable]]:
        """Pairs of gradient and variable, for ``apply_gradients``; arguments and errors as for ``minimize``."""
        loss = _checked_loss(loss)
        chosen = _chosen(loss, variables)
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
        with source.reset_scopes((type(self).__name__,)):
            scalars = _Scalars(self, given[0][1])
            updates = [
                Update(target, value, place)
                for gradient, variable in given
                for target, value in self._update(gradient, variable, scalars(variable.dtype))
            ]
            if self._step is not None:
                updates.append(Update(self._step, elementwise.add(self._step, 1), place))
        return TrainStep(tuple(updates))

    # -- for subclasses -----------------------------------------------------------------------------------------------

    @abstractmethod
    def _scalars(self, lr: Tensor, count: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Scalars that all variables of a type share, from the learning rate and the number of this step (1, 2,
        ...)."""

    @abstractmethod
    def _update(
        self, gradient: Tensor, variable: Variable, scalars: dict[str, Tensor]
    ) -> list[tuple[Variable, Tensor]]:
        """New values: the variable's first, then its slots'.

        They are the same expressions for every variable, since equal expressions share a kernel.
        """

    def _slot(self, variable: Variable, slot: str) -> Variable:
        """A variable's state of its shape and type, zero at first."""
        key = (variable.uid, slot)
        if key not in self._slots:
            with source.reset_scopes(()):
                state = Variable(
                    np.zeros(variable.shape, variable.dtype.storage), trainable=False, name=f"{variable.name}/{slot}"
                )
            state.key_hint = f"optim/{slot}/{label(variable)}"
            self._slots[key] = state
        return self._slots[key]

    def _count(self, first: Variable) -> Variable:
        if self._step is None:
            with source.reset_scopes(()):
                self._step = Variable(np.int64(0), trainable=False, name=f"{type(self).__name__}/step")
            self._step.key_hint = (
                f"optim/step/{label(first)}"  # two optimizers of one program train different variables
            )
        return self._step


class _Scalars:
    """The shared scalars of one step, built once for each element type."""

    def __init__(self, optimizer: Optimizer, first: Variable) -> None:
        self._optimizer = optimizer
        self._first = first
        rate = optimizer.lr
        if not isinstance(rate, (float, Tensor)):
            rate = _scheduled(rate(elementwise.subtract(self._count(float32), 1.0)))
        self._rate: Any = rate
        self._made: dict[DType, dict[str, Tensor]] = {}

    def __call__(self, dtype: DType) -> dict[str, Tensor]:
        if dtype not in self._made:
            rate = self._rate if isinstance(self._rate, Tensor) else scalar("lr", self._rate, dtype)
            rate = elementwise.astype(rate, dtype)
            self._made[dtype] = self._optimizer._scalars(rate, lambda: self._count(dtype))
        return self._made[dtype]

    def _count(self, dtype: DType) -> Tensor:
        # From the counter's new value only: a kernel that still needed the old one would keep it from being updated in
        # place.
        return elementwise.astype(elementwise.add(self._optimizer._count(self._first), 1), dtype)


def label(variable: Variable) -> str:
    """What to call a variable: its path in its module, or its name."""
    return variable.key_hint or variable.name


def checked_rate(op: str, lr: Any) -> LearningRate:
    """A learning rate as an optimizer takes it.

    Raises:
        UsageError: negative, not finite, or variables where the rate should be.
        ShapeError, DTypeError: a tensor that is no floating scalar.
    """
    _refuse_parameters(op, lr)
    if isinstance(lr, Tensor):
        return _scheduled(lr)  # type: ignore[no-any-return]
    if callable(lr):
        return lr  # type: ignore[no-any-return]
    return non_negative(op, "lr", lr)


def _refuse_parameters(op: str, lr: Any) -> None:
    if isinstance(lr, (list, tuple, Mapping, Iterator)) or hasattr(lr, "parameters"):
        raise UsageError(
            f"{op}: the first argument is the learning rate, not what to train\n"
            f"  write optim.{op}(lr=0.001).minimize(loss), or .minimize(loss, variables) to train some only"
        )


def non_negative(op: str, name: str, value: Any, below: float = math.inf) -> float:
    """A finite number of at least 0 (and less than ``below``).

    Raises:
        UsageError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < below:
        limit = f" and less than {below:g}" if below < math.inf else ""
        raise UsageError(f"{op}: {name} must be a finite number of at least 0{limit}, got {value!r}")
    return float(value)


def _scheduled(lr: Any) -> Any:
    if isinstance(lr, Tensor):
        if lr.shape != ():
            raise ShapeError(f"the learning rate must be a scalar, it is {describe(lr)}")
        if not lr.dtype.is_float:
            raise DTypeError(f"the learning rate must be of a floating type, it is {describe(lr)}")
        return lr
    return non_negative("the learning rate's schedule", "its value", lr)


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


def _chosen(loss: Tensor, variables: Any) -> list[Variable]:
    """The variables to train, in the order of their making unless the user gave one."""
    if variables is None:
        read = read_variables(toposort([loss]))
        chosen = sorted((v for v in read if v.trainable), key=lambda v: v.uid)
        if not chosen:
            frozen = ", ".join(repr(label(v)) for v in read[:5])
            raise GradientError(
                f"minimize: the loss depends on no trainable variable"
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
        if gradient.shape != variable.shape:
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
        given.append((gradient, variable))
    if not given:
        raise UsageError("apply_gradients: no gradients were given")
    return given
