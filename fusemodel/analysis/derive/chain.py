"""Associativity: (A B) C = A (B C). Products of several tensors, summed, in the order that takes the least work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from math import prod

from fusemodel.analysis.derive.emit import Names, access, name_of_product
from fusemodel.analysis.derive.fiber import Fiber, StuckError, by_rank, reduced
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.terms import Mono, TooLargeError, mono, term_expr
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import (
    Access,
    Cascade,
    Einsum,
    Expr,
    RankValue,
    accesses,
    iteration_ranks,
    rank_values,
    reads,
    reduction_op,
    substitute,
    target_ranks,
)

MAX_FACTORS = 6
Factor = tuple[Expr, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Order:
    """A way to multiply factors two at a time: its points, the pairs (by number), and what each step keeps."""

    cost: int
    steps: tuple[tuple[int, int], ...]


def best_order(factors: Sequence[frozenset[str]], kept: frozenset[str], extents: Mapping[str, int]) -> Order:
    """The cheapest order of pairwise products, a rank being summed as soon as nothing else holds it. Factors made by a
    step are numbered after those given."""

    def search(left: dict[int, frozenset[str]], number: int) -> Order:
        if len(left) == 1:
            return Order(0, ())
        best: Order | None = None
        for i, j in combinations(sorted(left), 2):
            space = left[i] | left[j]
            others = frozenset().union(kept, *(r for k, r in left.items() if k not in (i, j)))
            after = {k: r for k, r in left.items() if k not in (i, j)} | {number: space & others}
            rest = search(after, number + 1)
            cost = prod(extents[r] for r in space) + rest.cost
            if best is None or cost < best.cost:
                best = Order(cost, ((i, j), *rest.steps))
        assert best is not None
        return best

    return search(dict(enumerate(factors)), len(factors))


@dataclass
class Regrouping:
    """Takes one tensor, a sum of products, out of the cascade, and regroups the products that read it."""

    cascade: Cascade
    tensor: str
    names: Names
    out: list[Einsum] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    made: dict[tuple[Mono, frozenset[str]], Access] = field(default_factory=dict)

    @cached_property
    def extents(self) -> dict[str, int]:
        return extents_of(self.cascade)

    def product_of(self, e: Einsum) -> tuple[Mono, Fraction]:
        """The factors of an Einsum that sums one product. Side condition: no point of it is absent."""
        fiber = Fiber(self.cascade, "")
        plain = fiber.definition(e.name) is not None and not e.selection and e.where is None
        if not plain or (reduced(self.cascade, e) and reduction_op(e) != "sum"):
            raise StuckError("it is no plain sum")
        if any(fiber.may_be_absent(a, fiber.partial) for a in accesses(e.body)):
            raise StuckError("elements of an operand may be absent")
        poly = Normal(keep=lambda _: True)(e.body)
        if len(poly.terms) != 1 or poly.terms[0][0].exponent:
            raise StuckError("it is no product")
        return poly.terms[0]

    def run(self) -> None:
        maker = self.cascade.definitions(self.tensor)[0]
        inside, c = self.product_of(maker)
        readers = [e for e in self.cascade.einsums if any(a.tensor == self.tensor for a in reads(e))]
        before = self.points(maker) + sum(map(self.points, readers))
        after = 0
        for e in self.cascade.einsums:
            if e.name == self.tensor:
                continue
            after += self.regroup(e, inside, c) if e in readers else self.keep(e)
        if 2 * after > before:
            raise StuckError("no other order halves the work")
        self.steps.append(
            f"{self.tensor}: products are associative, so it is not made; {', '.join(e.name for e in readers)} "
            f"regrouped, {before:.3g} points become {after:.3g}."
        )

    def keep(self, e: Einsum) -> int:
        self.out.append(e)
        return 0

    def points(self, e: Einsum) -> int:
        return prod(self.extents[r] for r in iteration_ranks(e))

    def regroup(self, e: Einsum, inside: Mono, c: Fraction) -> int:
        """One reader as a product of all factors, in the best order. Returns its points."""
        outer, d = self.product_of(e)
        own = [(a, p) for a, p in outer.powers if isinstance(a, Access) and a.tensor == self.tensor]
        if len(own) != 1 or own[0][1] != 1:
            raise StuckError("it is not one factor of what reads it")
        read = own[0][0]
        assert isinstance(read, Access)
        if not all(isinstance(i, RankValue) for i in read.indices):
            raise StuckError("it is read by computed coordinates")
        change = by_rank(self.cascade, read)
        bound = set(reduced(self.cascade, self.cascade.definitions(self.tensor)[0]))
        if bound & (set(iteration_ranks(e)) | set(change)):
            raise StuckError("a rank is summed in both")
        powers = [(substitute(a, change), p) for a, p in inside.powers]
        joined = mono([*powers, *((a, p) for a, p in outer.powers if a != read)])
        factors = [(term_expr(Mono(((a, p),))), frozenset(rank_values(a))) for a, p in joined.powers]
        fixed = [f for f in factors if not f[1]]
        factors = [f for f in factors if f[1]]
        if not 2 <= len(factors) <= MAX_FACTORS:
            raise StuckError("there are too few or too many factors")
        first = 0
        for i, (x, ranks) in enumerate(factors):
            others = frozenset(target_ranks(e)).union(*(r for j, (_, r) in enumerate(factors) if j != i))
            if not ranks <= others:  # linearity: a rank that nothing else holds is summed first
                factors[i] = self.partial([(x, ranks)], ranks & others), ranks & others
                first += prod(self.extents[r] for r in ranks)
        return first + self.emit(e, factors, fixed, c * d)

    def emit(self, e: Einsum, factors: list[Factor], fixed: list[Factor], c: Fraction) -> int:
        kept = frozenset(target_ranks(e))
        order = best_order([r for _, r in factors], kept, self.extents)
        left = dict(enumerate(factors))
        for number, (i, j) in enumerate(order.steps, start=len(factors)):
            pair = [left.pop(i), left.pop(j)]
            space = pair[0][1] | pair[1][1]
            if not left:
                last = mono([(x, Fraction(1)) for x, _ in (*pair, *fixed)])
                self.out.append(replace(e, body=term_expr(last, c), reduction=None))
                break
            stay = space & frozenset().union(kept, *(r for _, r in left.values()))
            left[number] = (self.partial(pair, stay), stay)
        return order.cost

    def partial(self, pair: list[Factor], stay: frozenset[str]) -> Access:
        body = mono([(x, Fraction(1)) for x, _ in pair])
        key = (body, stay)
        if key not in self.made:
            ranks = [r for r in self.cascade.ranks if r in stay]
            self.made[key] = access(self.names.fresh(name_of_product(body)), ranks)
            self.out.append(Einsum(self.made[key], term_expr(body)))
        return self.made[key]


def regrouped(cascade: Cascade, tensor: str) -> Regrouping:
    """The cascade without ``tensor``, a sum of products that only sums of products read; StuckError if that takes no
    less work."""
    if tensor in cascade.outputs or len(cascade.definitions(tensor)) != 1 or cascade.tensors[tensor].iterative:
        raise StuckError(f"{tensor} is an output, or iterative")
    work = Regrouping(cascade, tensor, Names.of(cascade))
    try:
        work.run()
    except TooLargeError:
        raise StuckError("its normal form has too many terms") from None
    return work
