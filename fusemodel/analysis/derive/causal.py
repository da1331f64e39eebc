"""Products under a causal condition, in chunks: what is inside a chunk directly, what is before it through a state.

For O[p] = sum over m <= p of G(p) * K(m), with p = p1 * C + p0 and m in chunks of the same size C: the part with m in
the chunk of p is summed as it is, and the rest is G(p) * R[p1], where R[i+1] = R[i] + the sum over chunk i of K(m).
Side condition: every factor depends on p or on m, not on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from fusemodel.analysis.derive.emit import Names, access
from fusemodel.analysis.derive.fiber import Fiber, StuckError
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.terms import Mono, mono, term_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    Reduction,
    join_split,
    rank_values,
    reads,
    reduced_ranks,
    reduction_op,
    substitute,
    target_ranks,
)

Powers = list[tuple[Expr, Fraction]]


@dataclass
class Chunking:
    """Takes one causal product out of the cascade, and computes what reads it chunk by chunk."""

    cascade: Cascade
    tensor: str
    names: Names
    late: str = ""  # the rank of the query
    early: str = ""  # the rank that is at most it
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)
    pairs: dict[Expr, Access] = field(default_factory=dict)  # products inside a chunk, each made once
    out: list[Einsum] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def run(self) -> None:
        (maker,) = self.cascade.definitions(self.tensor)
        self.early, self.late = _causal(maker)
        if {self.early, self.late} & (self.cascade.split.keys() | self.cascade.parents.keys()):
            raise StuckError("a rank is split already")
        readers = [e for e in self.cascade.einsums if any(a.tensor == self.tensor for a in reads(e))]
        inside, c = self.product_of(replace(maker, where=None))
        for rank in (self.late, self.early):
            self.parts[rank] = self.names.rank(f"{rank}1"), self.names.rank(f"{rank}0")
        for e in self.cascade.einsums:
            if e in readers:
                self.reader(e, inside, c)
            elif e.name != self.tensor:
                self.out.append(e)
        self.steps.append(
            f"{self.tensor}: its factors depend on {self.late} or on {self.early}, so chunks of {self.early} before "
            f"that of {self.late} are summed into a running state, and only one chunk is compared element by element."
        )

    def product_of(self, e: Einsum) -> tuple[Mono, Fraction]:
        fiber = Fiber(self.cascade, self.early)
        sums = not reduced_ranks(e) or reduction_op(e) == "sum"
        if fiber.definition(e.name) is None or e.selection or not sums or e.where is not None:
            raise StuckError("it is no plain sum")
        poly = Normal(keep=lambda _: True)(e.body)
        if len(poly.terms) != 1 or poly.terms[0][0].exponent:
            raise StuckError("it is no product")
        return poly.terms[0]

    def reader(self, e: Einsum, inside: Mono, c: Fraction) -> None:
        outer, d = self.product_of(e)
        own = access(self.tensor, self.cascade.tensors[self.tensor].ranks)
        if dict(outer.powers).get(own) != 1 or self.early not in reduced_ranks(e) or self.late not in target_ranks(e):
            raise StuckError("it is not summed over its earlier rank")
        powers = [*inside.powers, *((a, p) for a, p in outer.powers if a != own)]
        sides: tuple[Powers, Powers] = [], []
        for a, p in powers:
            held = {self.late, self.early} & set(rank_values(a))
            if len(held) == 2:
                raise StuckError("a factor depends on both ranks")
            sides[self.early in held].append((a, p))
        query, key = mono(sides[0]), mono(sides[1])
        (late1, late0), (early1, early0) = self.parts[self.late], self.parts[self.early]
        chunk = join_split(RankValue(late1), early0, RankValue(early0))
        at_query = self.cut(query, self.late)
        kept = [r for r in target_ranks(e) if r != self.late]
        within = access(self.names.fresh(f"L{e.name}"), (late1, late0, *kept))
        causal = Apply("<=", (RankValue(early0), RankValue(late0)))
        ahead = [r for r in self.shared(query, key) if r not in kept]
        also = [r for r in self.cascade.tensors[self.tensor].ranks if r not in (self.late, self.early)]
        single = mono([(a, p) for a, p in key.powers if set(rank_values(a)) & set(ahead)])
        rest = mono([(a, p) for a, p in key.powers if (a, p) not in single.powers])
        together = _times(at_query, self.at(single, chunk))
        if together not in self.pairs:
            self.pairs[together] = access(self.names.fresh(f"L{self.tensor}"), (late1, late0, *also, early0))
            self.out.append(Einsum(self.pairs[together], together, where=causal))
        pairs = self.pairs[together]
        self.out.append(Einsum(within, _times(pairs, self.at(rest, chunk)) if rest.powers else pairs))
        state = [r for r in self.cascade.ranks if r in (set(ahead) | set(kept)) & set(_ranks(key))]
        local = access(self.names.fresh(f"L{e.name}S"), (early1, *state))
        self.out.append(Einsum(local, self.cut(key, self.early), Reduction("sum", (early0,))))
        name, own_ranks = self.names.fresh(f"R{e.name}S"), tuple(RankValue(r) for r in state)
        step = RankValue(early1)
        now = Access(name, (step, *own_ranks))
        self.out.append(Einsum(Access(name, (Number(0), *own_ranks)), Number(0)))
        self.out.append(Einsum(Access(name, (Apply("+", (step, Number(1))), *own_ranks)), Apply("+", (now, local))))
        before = access(self.names.fresh(f"P{e.name}"), (late1, late0, *kept))
        reached = Apply("min", (RankValue(late1), Extent(early1)))
        self.out.append(Einsum(before, _times(at_query, Access(name, (reached, *own_ranks)))))
        whole = [Access(a.tensor, (RankValue(self.late), *a.indices[2:])) for a in (within, before)]
        body: Expr = Apply("+", (whole[0], whole[1]))
        if (k := c * d) != 1:
            body = Apply("*", (term_expr(Mono(), k), body))
        self.out.append(replace(e, body=body, reduction=None))

    def shared(self, query: Mono, key: Mono) -> list[str]:
        return [r for r in self.cascade.ranks if r in _ranks(query) and r in _ranks(key)]

    def at(self, m: Mono, coordinate: Expr) -> Expr:
        return substitute(term_expr(m), {self.early: coordinate})

    def cut(self, m: Mono, rank: str) -> Expr:
        """A product over the two parts of a rank."""
        outer, inner = (RankValue(r) for r in self.parts[rank])

        def go(e: Expr) -> Expr:
            match e:
                case Access(tensor, indices):
                    found: list[Expr] = []
                    for i in indices:
                        found += [outer, inner] if i == RankValue(rank) else [go(i)]
                    return Access(tensor, tuple(found))
                case Apply(op, args):
                    return Apply(op, tuple(go(a) for a in args))
                case RankValue(r) if r == rank:
                    return join_split(outer, self.parts[rank][1], inner)
            return e

        return go(term_expr(m))

    def ranks(self, size: int) -> Mapping[str, Expr]:
        """The extents of the new ranks: both chunk sizes are one."""
        (late1, late0), (early1, early0) = self.parts[self.late], self.parts[self.early]
        return {
            early0: Number(size), late0: Extent(early0),
            early1: _count(self.early, early0), late1: _count(self.late, late0),
        }  # fmt: skip


def _ranks(m: Mono) -> list[str]:
    return [r for a, _ in m.powers for r in rank_values(a)]


def _times(a: Expr, b: Expr) -> Expr:
    return Apply("*", (a, b))


def _count(rank: str, inner: str) -> Expr:
    return Apply("neg", (Apply("//", (Apply("neg", (Extent(rank),)), Extent(inner))),))


def _causal(e: Einsum) -> tuple[str, str]:
    """The earlier and the later rank of a condition ``m <= p``."""
    match e.where:
        case Apply("<=", (RankValue(early), RankValue(late))) | Apply(">=", (RankValue(late), RankValue(early))):
            return early, late
    raise StuckError("it is not under a causal condition")


def chunked(cascade: Cascade, tensor: str) -> Chunking:
    """The cascade without a causal product, in chunks; StuckError where the identity does not apply."""
    if tensor in cascade.outputs or len(cascade.definitions(tensor)) != 1 or cascade.tensors[tensor].iterative:
        raise StuckError(f"{tensor} is an output, or iterative")
    work = Chunking(cascade, tensor, Names.of(cascade))
    work.run()
    return work
