"""Values that are zero unless a condition holds: what the condition is made of, and what is left where it is known."""

from __future__ import annotations

from collections.abc import Mapping

from graphcore.kernel.expr import Expr, both, const, transform

__all__ = ["assuming", "conditions", "guard_of"]


def guard_of(value: Expr) -> Expr | None:
    """The condition without which a value is zero, None where it has none: a guarded load's, or a selection's."""
    if value.fn == "load":
        return value.guard
    return value.args[0] if value.fn == "select" and value.args[2] is const(0, value.dtype) else None


def conditions(guard: Expr) -> list[Expr]:
    """What must all hold for a guard to hold."""
    return [c for a in guard.args for c in conditions(a)] if guard.fn == "and" else [guard]


def assuming(value: Expr, known: Mapping[Expr, Expr]) -> Expr:
    """A guarded value with other conditions in place of some; one that is always true is left out."""

    def change(node: Expr, args: tuple[Expr, ...]) -> Expr | None:
        return known.get(node) or (both(*args) if node.fn == "and" else None)

    return transform(value, change)
