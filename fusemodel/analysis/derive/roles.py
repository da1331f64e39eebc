"""What can run in tiles of a rank: what has a running value, what is rescaled by it, what waits for the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from fusemodel.analysis.derive.fiber import Fiber, StuckError
from fusemodel.analysis.derive.identities import exponent_that_waits, normal_form
from fusemodel.analysis.derive.terms import Poly, to_expr
from fusemodel.cascade.ir import (
    Einsum,
    Number,
    accesses,
    rank_values,
    reads,
    reduced_ranks,
    reduction_op,
)

START = {"max": Number(float("-inf")), "min": Number(float("inf"))}


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
        """Late sums that can be kept relative to a running value."""
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
            if not body & fiber.summaries - self.maxima and not body & fiber.late - self.only_in_tiles:
                found.add(name)
        return frozenset(found)

    def at_step_names(self, e: Einsum | None) -> frozenset[str]:
        assert e is not None
        body, conditions = self.fiber.inline(e.body, self.fiber.stabilisers - self.maxima)
        return frozenset(a.tensor for x in (body, *conditions) for a in accesses(x))

    @cached_property
    def needed(self) -> frozenset[str]:
        """The maxima that late Einsums read, directly or through what is made of them element by element."""
        fiber = self.fiber
        found: set[str] = set()
        todo = [a.tensor for e in fiber.cascade.einsums if fiber.is_late(e) for a in reads(e)]
        while todo:
            name = todo.pop()
            if name not in fiber.summaries or name in found:
                continue
            found.add(name)
            if (d := fiber.pointwise(name)) is not None:
                todo += [a.tensor for a in reads(d)]
        return frozenset(found)

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
        if e.selection or reduction_op(e) != "sum" or fiber.definition(e.name) is None:
            raise StuckError(f"{e.name} is no sum that could be rescaled")
        body, conditions = fiber.inline(e.body, fiber.late | (fiber.stabilisers - moving))
        if any(fiber.waits(c) for c in (*conditions, *((e.where,) if e.where else ()))):
            raise StuckError(f"{e.name} has a condition that waits for the end of {self.rank}")
        poly = normal_form(fiber, body)
        found = {exponent_that_waits(fiber, m) for m, _ in poly.terms}
        waiting = {a.tensor for a in accesses(body) if a.tensor in fiber.summaries}
        if len(found) != 1 or not (exponent := next(iter(found))).terms or not waiting <= moving:
            raise StuckError(f"{e.name} depends on {fiber.waiting_for(e)} otherwise than by one factor exp(-max)")
        inside = {a.tensor for a in accesses(to_expr(exponent))} & fiber.summaries
        for m, _ in poly.terms:
            if any(fiber.waits(a) for a, _ in m.powers):
                raise StuckError(f"{e.name} has a factor that waits for the end of {self.rank}")
        if not waiting <= inside or set(rank_values(to_expr(exponent))) & set(reduced_ranks(e)):
            raise StuckError(f"{e.name} depends on a running value that changes along a rank it reduces")
        return exponent
