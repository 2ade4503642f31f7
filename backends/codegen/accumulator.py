"""The running values of reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.codegen.cnames import register_type
from graphcore.kernel.expr import Expr
from graphcore.kernel.monoids import identity

if TYPE_CHECKING:
    from backends.codegen.emitter import Emitter, Scope

__all__ = ["Accumulator"]


class Accumulator:
    """A reduction's running value (and position, for arg-reductions) in registers."""

    def __init__(self, emitter: Emitter, e: Expr, width: int) -> None:
        self.emitter, self.e, self.width, self.language = emitter, e, width, emitter.language
        self.combine: str = e.combine
        self.dtype = e.args[0].dtype
        self.name = emitter.fresh("a")
        self.position = emitter.fresh("at") if self.combine.startswith("arg") else None

    def declare(self, scope: Scope) -> None:
        language, kind = self.language, register_type(self.dtype)
        start = language.literal(identity(self.combine, self.dtype), self.dtype)
        if self.dtype.is_bool and self.width > 1 and start == "1":
            start = "-1"
        if self.width > 1:
            start = language.splat(start, kind, self.width)
        scope.line(f"{language.vector(kind, self.width)} {self.name} = {start};")
        if self.position:
            start = language.splat("-1", self.emitter.counter, self.width)
            scope.line(f"{language.vector(self.emitter.counter, self.width)} {self.position} = {start};")

    def add(self, body: Expr, position: str) -> None:
        """Combine one element (or the lanes) in the current scope."""
        em, language, kind = self.emitter, self.language, register_type(self.dtype)
        if self.combine == "add" and body.fn == "mul" and body.dtype.is_float and not body.dtype.rounds:
            a, b = (em.vector(x, self.width) for x in body.args)
            em.line(language.multiply_add(self.name, a, b, kind, self.width))
            return
        value = em.vector(body, self.width)
        if self.position:
            if not value.isidentifier():
                held = em.fresh()
                em.line(f"const {language.vector(kind, self.width)} {held} = {value};")
                value = held
            where = position if self.width == 1 else language.splat(position, em.counter, self.width)
            if em.lane in self.e.reduce_axes and self.width > 1:
                where = f"({where} + {em.iota(self.width)})"
            better = self.better(value, self.name, self.width)
            first = language.mask_of(f"{self.position} < 0", em.counts, self.width)
            taken = em.fresh("t")
            em.line(f"const {language.vector('int', self.width)} {taken} = {better} | {first};")
            mask = language.mask_for(taken, em.counts, self.width)
            em.line(f"{self.position} = {language.select(mask, where, self.position, em.counter, self.width)};")
            mask = language.mask_for(taken, self.dtype, self.width)
            em.line(f"{self.name} = {language.select(mask, value, self.name, kind, self.width)};")
            return
        em.line(f"{self.name} = {self.merged(self.name, value, self.width)};")

    def better(self, new: str, old: str, width: int) -> str:
        sign = ">" if self.combine in ("max", "argmax") else "<"
        test = f"({new} {sign} {old})"
        if self.dtype.is_float:
            test = f"({test} | (({new} != {new}) & ({old} == {old})))"
        return self.language.mask_of(test, self.dtype, width)

    def merged(self, old: str, new: str, width: int) -> str:
        return self.language.apply(self.combine, [new, old], self.dtype, width)

    def finish(self, scope: Scope, lanes_reduced: bool = False) -> str:
        """The final name; with ``lanes_reduced`` the lanes are combined, in a fixed order, to a scalar."""
        em, language = self.emitter, self.language
        if lanes_reduced and self.width > 1:
            self.fold_lanes(scope)
        if self.position and self.e in em.narrow:
            return self.position
        if self.position:
            width = 1 if lanes_reduced else self.width
            result = em.fresh()
            scope.line(
                f"const {language.vector('long', width)} {result} = "
                f"{language.to_kind(self.position, em.counter, 'long', width)};"
            )
            return result
        if self.e.dtype.rounds:
            width = 1 if lanes_reduced else self.width
            result = em.fresh()
            rounded = em.rounded(self.name, self.e.dtype, width)
            scope.line(f"const {language.vector_type(self.e.dtype, width)} {result} = {rounded};")
            return result
        return self.name

    def fold_lanes(self, scope: Scope) -> None:
        em, width, current, kind = self.emitter, self.width, self.name, register_type(self.dtype)
        if self.position:
            self.fold_positions(scope)
            return
        while width > 1:
            half = width // 2
            folded = em.fresh("a")
            merged = self.merged(*self.language.halves(current, kind, width), half)
            scope.line(f"const {self.language.vector(kind, half)} {folded} = {merged};")
            current, width = folded, half
        if self.dtype.is_bool:
            scope.line(f"const int {current}b = {current} & 1;")
            current += "b"
        self.name, self.width = current, 1

    def fold_positions(self, scope: Scope) -> None:
        em, lane = self.emitter, self.language.lane
        best, at, positions = em.fresh("a"), em.fresh("at"), self.position
        assert positions is not None
        scope.line(
            f"{register_type(self.dtype)} {best} = {lane(self.name, 0)}; {em.counter} {at} = {lane(positions, 0)};"
        )
        for i in range(1, self.width):
            new, where = lane(self.name, i), lane(positions, i)
            equal = (
                f"(({new} == {best}) | (({new} != {new}) & ({best} != {best})))"
                if self.dtype.is_float
                else f"({new} == {best})"
            )
            scope.line(
                f"if ({where} >= 0 && ({at} < 0 || {self.better(new, best, 1)} || ({equal} && {where} < {at}))) {{ "
                f"{best} = {new}; {at} = {where}; }}"
            )
        self.name, self.position, self.width = best, at, 1

    def joined(self, extra: Accumulator) -> str:
        """The final name of this reduction together with a tail's, which has come to its end too; both are scalars
        then."""
        scope = self.emitter.scope
        if extra.width > 1:
            extra.fold_lanes(scope)
        name, kind = self.emitter.fresh("a"), register_type(self.dtype)
        if not extra.position:
            scope.line(f"const {kind} {name} = {self.merged(self.name, extra.name, 1)};")
            self.name = name
            return self.finish(scope)
        value, at = self.name, self.position
        scope.line(f"const int {at}x = {at} < 0 || ({extra.position} >= 0 && {self.better(extra.name, value, 1)});")
        where = self.emitter.fresh("at")
        scope.line(
            f"const {kind} {name} = {at}x ? {extra.name} : {value}; "
            f"const {self.emitter.counter} {where} = {at}x ? {extra.position} : {at};"
        )
        self.name, self.position = name, where
        return self.finish(scope)
