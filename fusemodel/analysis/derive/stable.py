"""Exponentials without a maximum subtracted: exp(x) = exp(x - c) * exp(c), with c the maximum of x over the fiber.

The factor exp(c) leaves the sums, and cancels where one sum is divided by another, or under a logarithm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from fusemodel.analysis.derive.emit import Names, access
from fusemodel.analysis.derive.fiber import Fiber, StuckError, closure, conjunction, replaced
from fusemodel.analysis.derive.identities import expanded_form
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.signs import nonnegative_product
from fusemodel.analysis.derive.terms import Mono, Poly, TooLargeError, add, mono, parts, scale, to_expr, total
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Reduction,
    accesses,
    rank_values,
    reduction_op,
    target_ranks,
    walk,
)
from fusemodel.cascade.printer import format_expr


@dataclass
class Stabilising:
    """Rewrites the sums over one rank of exponentials, and all that reads them."""

    fiber: Fiber
    names: Names
    out: list[Einsum] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    maxima: dict[tuple[Poly, str], tuple[Access, Access]] = field(default_factory=dict)
    scaled: dict[str, Expr] = field(default_factory=dict)  # a sum -> the new sum times exp(maximum)

    @classmethod
    def of(cls, cascade: Cascade, rank: str) -> Stabilising:
        work = cls(Fiber(cascade, rank), Names.of(cascade))
        for e in cascade.einsums:
            if not work.sum_of_exponentials(e):
                work.other(e)
        if not work.scaled:
            raise StuckError(f"no sum over {rank} has an exponential without a maximum")
        return work

    def exponential(self) -> frozenset[str]:
        """Elementwise tensors along the rank in which an exponential shows."""
        fiber = self.fiber
        along = [e for e in fiber.cascade.einsums if fiber.rank in target_ranks(e) and fiber.pointwise(e.name)]
        shows = {e.name for e in along if any(isinstance(x, Apply) and x.op in ("exp", "exp2") for x in walk(e.body))}
        return closure(lambda found: shows | {e.name for e in along if fiber.tensors_read(e) & found})

    def sum_of_exponentials(self, e: Einsum) -> bool:
        fiber = self.fiber
        if not fiber.reduces(e) or e.selection or reduction_op(e) != "sum" or fiber.definition(e.name) is None:
            return False
        body, conditions = fiber.inline(e.body, self.exponential() | fiber.late)
        conditions = (*conditions, *((e.where,) if e.where is not None else ()))
        poly = expanded_form(fiber, body)
        exponents = {self.growing(m) for m, _ in poly.terms}
        if exponents == {Poly()} or any(fiber.waits(a) for m, _ in poly.terms for a in parts(m)):
            return False
        if len(exponents) != 1:
            raise StuckError(f"{e.name} adds exponentials of different sizes")
        exponent = next(iter(exponents))
        where = conjunction(conditions)
        top, weight = self.maximum(e, exponent, where, conditions)
        if not set(target_ranks(e)) >= {r for i in top.indices for r in rank_values(i)}:
            raise StuckError(f"{e.name} reduces a rank along which the maximum changes")
        terms = [(self.without(m, exponent, weight), c) for m, c in poly.terms]
        made = replace(e.target, tensor=self.names.fresh(f"{e.name}S"))
        self.out.append(replace(e, target=made, body=to_expr(total(terms)), where=where))
        self.scaled[e.name] = Apply("*", (made, Apply("exp", (top,))))
        self.steps.append(
            f"{e.name}: exp(x) = exp(x - {top.tensor}) * exp({top.tensor}), and exp({top.tensor}) lacks {fiber.rank}."
        )
        if e.name in fiber.cascade.outputs:
            self.out.append(Einsum(e.target, self.scaled[e.name]))
        return True

    def growing(self, m: Mono) -> Poly:
        """The part of an exponent that changes along the rank and is not known to be below zero."""
        terms = m.exponent.terms if m.exponent else ()
        along = [(i, c) for i, c in terms if any(self.fiber.along(a) for a in parts(i))]
        bounded = all(c < 0 and nonnegative_product(self.fiber.cascade, i) for i, c in along)
        return Poly() if bounded else total(along)

    def without(self, m: Mono, exponent: Poly, weight: Access) -> Mono:
        left = add(m.exponent or Poly(), scale(exponent, -1))
        return mono([*m.powers, (weight, Fraction(1))], left)

    def maximum(
        self, e: Einsum, exponent: Poly, where: Expr | None, conditions: Iterable[Expr]
    ) -> tuple[Access, Access]:
        """The maximum of an exponent, and the exponential relative to it, made once."""
        body = to_expr(exponent)
        key = (exponent, format_expr(where) if where is not None else "")
        if key not in self.maxima:
            rank = self.fiber.rank
            every = {*rank_values(body), *rank_values(where)}
            order = [r for r in (*target_ranks(e), *sorted(every)) if r in every and r != rank]
            kept = tuple(dict.fromkeys(order))
            top = access(self.names.fresh("GM"), kept)
            weight = access(self.names.fresh("SNS"), (rank, *kept))
            self.out.append(Einsum(top, body, Reduction("max", (rank,)), where=where))
            self.out.append(
                Einsum(weight, Apply("exp", (Apply("-", (body, top)),)), where=conjunction(list(conditions)))
            )
            self.maxima[key] = top, weight
            self.steps.append(f"{top.tensor}: the maximum of {format_expr(body)} over {rank}.")
        return self.maxima[key]

    def other(self, e: Einsum) -> None:
        """What reads the sums, in a form in which exp(maximum) cancels as far as it can."""
        fiber = self.fiber
        names = self.between()
        if not any(a.tensor in self.scaled or a.tensor in names for a in accesses(e.body)):
            self.out.append(e)
            return
        along = self.exponential() if fiber.rank in target_ranks(e) else frozenset()
        body, conditions = fiber.inline(e.body, names | along)
        body = replaced(fiber.cascade, body, self.scaled)
        sums = {a.tensor for x in self.scaled.values() for a in accesses(x)}
        form = Normal(keep=lambda x: not any(a.tensor in sums for a in accesses(x)))
        try:
            body = to_expr(form(body))
        except TooLargeError:
            raise StuckError(f"the normal form of {e.name} is too large") from None
        self.out.append(replace(e, body=body, where=conjunction([e.where, *conditions])))

    def between(self) -> frozenset[str]:
        """Elementwise tensors made of these sums, written out where they are read."""
        fiber = self.fiber
        made = [e for e in fiber.cascade.einsums if fiber.pointwise(e.name)]
        return closure(lambda found: {e.name for e in made if fiber.tensors_read(e) & (self.scaled.keys() | found)})


def stabilised(cascade: Cascade, rank: str) -> Stabilising:
    """The cascade with a maximum subtracted in every exponential summed over ``rank``; StuckError if there is none."""
    return Stabilising.of(cascade, rank)
