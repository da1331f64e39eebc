"""What can run in tiles of a rank: what has a running value, what is rescaled by it, what waits for the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fusemodel.analysis.derive.emit import access
from fusemodel.analysis.derive.fiber import START, Fiber, StuckError
from fusemodel.analysis.derive.identities import expanded_form, exponent_that_waits
from fusemodel.analysis.derive.moments import centres_in, sources
from fusemodel.analysis.derive.terms import Poly, to_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    RankValue,
    accesses,
    rank_values,
    reads,
    reduction_op,
    substitute,
)


@dataclass
class Roles:
    """What becomes of each Einsum of a cascade when one rank is cut into tiles."""

    fiber: Fiber
    stuck: list[str] = field(default_factory=list)

    @property
    def rank(self) -> str:
        return self.fiber.rank

    @cached_property
    def maxima(self) -> frozenset[str]:
        """Maxima and minima that late Einsums read, directly or through what is made of them element by element."""
        needed = self.needed
        return frozenset(
            e.name
            for e in self.fiber.cascade.einsums
            if e.name in needed and self.fiber.reduces(e) and not self.fiber.is_late(e) and not e.selection
            and reduction_op(e) in START and self.fiber.definition(e.name) is not None
        )  # fmt: skip

    @cached_property
    def rescaled(self) -> frozenset[str]:
        """Late sums and extremes that can be kept relative to a running value."""
        found = set()
        for e in self.fiber.cascade.einsums:
            if self.fiber.is_late(e) and self.fiber.reduces(e):
                try:
                    self.common_exponent(e)
                    found.add(e.name)
                except StuckError as reason:
                    self.stuck.append(f"{reason}.")
        if not found:
            raise StuckError(" ".join(self.stuck))
        return frozenset(found)

    @cached_property
    def only_in_tiles(self) -> frozenset[str]:
        """Late elementwise tensors that rescaled sums read, and that are written out where anything else does."""
        fiber = self.fiber
        todo = [a.tensor for e in fiber.cascade.einsums if e.name in self.rescaled for a in reads(e)]
        found: set[str] = set()
        while todo:
            name = todo.pop()
            if name in fiber.late and name not in found and fiber.pointwise(name) is not None:
                found.add(name)
                todo += [a.tensor for d in fiber.cascade.definitions(name) for a in reads(d)]
        return frozenset(found - set(fiber.cascade.outputs))

    @cached_property
    def in_tiles(self) -> frozenset[str]:
        """Those of them that are tensors of their own over tiles: all they read is there at a step."""
        fiber = self.fiber
        found = set()
        for name in self.only_in_tiles:
            body = self.at_step_names(fiber.definition(name))
            if not body & fiber.summaries - self.maxima - self.tracked and not body & fiber.late - self.only_in_tiles:
                found.add(name)
        return frozenset(found)

    def at_step_names(self, e: Einsum | None) -> frozenset[str]:
        assert e is not None
        body, conditions = self.fiber.inline(e.body, self.steadied)
        return frozenset(a.tensor for x in (self.by_own(body), *conditions) for a in accesses(x))

    @cached_property
    def needed(self) -> frozenset[str]:
        """The summaries that late Einsums read, directly or through what is made of them element by element."""
        fiber = self.fiber
        found: set[str] = set()
        todo = [a.tensor for e in fiber.cascade.einsums if fiber.is_late(e) for a in reads(e)]
        while todo:
            name = todo.pop()
            if name not in fiber.summaries or name in found:
                continue
            found.add(name)
            todo += [a.tensor for e in fiber.cascade.definitions(name) if not self.fiber.reduced(e) for a in reads(e)]
        return frozenset(found)

    # Maxima shared with other ranks

    @cached_property
    def shared(self) -> Mapping[str, Expr]:
        """Stabilisers that are the larger of maxima over this rank and of what is made along others, each with the
        part over this rank, written over the ranks of its equation (at the step it makes, where it runs)."""
        found: dict[str, Expr] = {}
        for name in self.fiber.stabilisers - self.maxima:
            own = self.own(self.step(name).target, frozenset()) if name in self.needed else None
            if own is not None and self.foreign(name, frozenset()):
                found[name] = own
        return found

    @cached_property
    def steadied(self) -> frozenset[str]:
        """Stabilisers that are written out: those made of running values element by element."""
        return self.fiber.stabilisers - self.maxima - self.shared.keys()

    def step(self, name: str) -> Einsum:
        """The equation of a tensor that is no start."""
        return self.fiber.cascade.definitions(name)[-1]

    def as_made(self, access: Access) -> dict[str, Expr] | None:
        """What the ranks of a tensor's equation are where it is read; None if at another step than the one it makes."""
        pairs = list(zip(self.step(access.tensor).target.indices, access.indices, strict=True))
        if any(made != read and not isinstance(made, RankValue) for made, read in pairs):
            return None
        return {made.rank: read for made, read in pairs if isinstance(made, RankValue)}

    def own(self, expr: Expr, seen: frozenset[str]) -> Expr | None:
        """The part over this rank of a maximum of several; None where there is none. Side condition: what is a maximum
        over this rank is at most the whole."""
        match expr:
            case Access(tensor) if tensor in self.maxima:
                return expr
            case Access(tensor) if tensor in self.fiber.stabilisers and tensor not in seen:
                e, change = self.step(tensor), self.as_made(expr)
                if change is not None and not self.fiber.reduced(e):
                    return self.own(substitute(e.body, change), seen | {tensor})
            case Apply(op, args) if op in START:
                parts = [x for a in args if (x := self.own(a, seen)) is not None]
                return None if not parts else parts[0] if len(parts) == 1 else Apply(op, tuple(parts))
        return None

    def foreign(self, name: str, seen: frozenset[str]) -> bool:
        """Whether a maximum of several has a part that is computed, and is no maximum over this rank."""
        for a in accesses(self.step(name).body):
            if a.tensor in self.maxima or a.tensor in self.fiber.cascade.inputs:
                continue
            if a.tensor in seen | {name} or a.tensor not in self.fiber.stabilisers:
                return True
            if self.foreign(a.tensor, seen | {name}):
                return True
        return False

    def by_own(self, expr: Expr) -> Expr:
        """The expression with the part over this rank in the place of maxima shared with other ranks."""
        match expr:
            case Access(tensor) if tensor in self.shared and (change := self.as_made(expr)) is not None:
                return substitute(self.shared[tensor], change)
            case Apply(op, args):
                return Apply(op, tuple(self.by_own(a) for a in args))
        return expr

    @cached_property
    def read_later(self) -> frozenset[str]:
        """What Einsums that run over the rank once more read, through tensors written out."""
        fiber = self.fiber
        made = self.rescaled | self.in_tiles | self.only_in_tiles
        todo = [e for e in fiber.cascade.einsums if fiber.is_late(e) and e.name not in made]
        found: set[str] = set()
        while todo:
            for a in reads(todo.pop()):
                if a.tensor not in found:
                    found.add(a.tensor)
                    todo += [d for d in fiber.cascade.definitions(a.tensor) if a.tensor in fiber.late]
        return frozenset(found)

    def common_exponent(self, e: Einsum) -> Poly:
        """E(d), one and the same in every product of the body."""
        fiber, moving = self.fiber, self.maxima
        if e.selection or reduction_op(e) not in ("sum", *START) or fiber.definition(e.name) is None:
            raise StuckError(f"{e.name} is no sum or extreme that could be rescaled")
        body, conditions = fiber.inline(e.body, fiber.late | self.steadied)
        if any(fiber.waits(c) for c in (*conditions, *((e.where,) if e.where else ()))):
            raise StuckError(f"{e.name} has a condition that waits for the end of {self.rank}")
        body = self.by_own(body)
        poly = expanded_form(fiber, body)
        found = {exponent_that_waits(fiber, m) for m, _ in poly.terms}
        waiting = {a.tensor for a in accesses(body) if a.tensor in fiber.summaries}
        centres = self.centres(e, poly)
        shifted = {a.tensor for a in centres}
        exponent = next(iter(found))
        if len(found) != 1 or not (exponent.terms or centres) or not waiting <= moving | shifted:
            raise StuckError(f"{e.name} depends on {fiber.waiting_for(e)} otherwise than by one factor exp(-max)")
        inside = {a.tensor for a in accesses(to_expr(exponent))} & fiber.summaries
        for m, _ in poly.terms:
            if any(fiber.waits(a) and a not in centres for a, _ in m.powers):
                raise StuckError(f"{e.name} has a factor that waits for the end of {self.rank}")
        changing = {*rank_values(to_expr(exponent)), *(r for a in centres for r in rank_values(a))}
        if not waiting <= inside | shifted or changing & set(self.fiber.reduced(e)):
            raise StuckError(f"{e.name} depends on a running value that changes along a rank it reduces")
        return exponent

    def centres(self, e: Einsum, poly: Poly) -> frozenset[Access]:
        """Summaries in which a sum is a polynomial, and that have a running value: maxima, or made of sums."""
        found = centres_in(self.fiber, poly)
        if not found:
            return frozenset()
        if reduction_op(e) != "sum":
            raise StuckError(f"{e.name} is no sum that could be shifted")
        for a in found:
            if a.tensor not in self.maxima:
                sources(self.fiber, a.tensor)
            if a != access(a.tensor, self.fiber.cascade.tensors[a.tensor].ranks):
                raise StuckError(f"{a.tensor} is read by other ranks than its own")
        return frozenset(found)

    @cached_property
    def shifting(self) -> Mapping[str, frozenset[Access]]:
        """The sums that are polynomials in running values, and in which."""
        found: dict[str, frozenset[Access]] = {}
        for name in self.rescaled:
            (e,) = self.fiber.cascade.definitions(name)
            body, _ = self.fiber.inline(e.body, self.fiber.late | self.steadied)
            if centres := self.centres(e, expanded_form(self.fiber, self.by_own(body))):
                found[name] = centres
        return found

    @cached_property
    def tracked(self) -> frozenset[str]:
        """The summaries in which sums are polynomials."""
        return frozenset(a.tensor for centres in self.shifting.values() for a in centres)

    @cached_property
    def sources(self) -> frozenset[str]:
        """The sums these are made of."""
        return frozenset(s for name in self.tracked - self.maxima for s in sources(self.fiber, name))

    def whole_exponent(self, e: Einsum) -> Poly:
        """E(d) with maxima shared with other ranks as they are."""
        body, _ = self.fiber.inline(e.body, self.fiber.late | self.steadied)
        found = {exponent_that_waits(self.fiber, m) for m, _ in expanded_form(self.fiber, body).terms}
        if len(found) != 1:
            raise StuckError(f"{e.name} adds exponentials relative to different maxima")
        return next(iter(found))
