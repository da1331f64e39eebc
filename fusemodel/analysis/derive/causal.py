"""Products under a causal condition, in chunks: what is inside a chunk directly, what is before it through a state.

For O[p] = sum over m <= p of G(p) * K(m) * exp(d(p) - d(m)), with p = p1 * C + p0 and m in chunks of the same size C
that start at s[i] = i * C: the part with m in the chunk of p is summed as it is. The rest is G(p) * R[p1] * exp(d(p) -
d(s[p1])), where R[i+1] = exp(d(s[i+1]) - d(s[i])) * R[i] + the sum over chunk i of K(m) * exp(d(s[i+1]) - d(m)). Powers
g^(p - m) decay in the same way. Side condition: every other factor depends on p or on m, not on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from fusemodel.analysis.derive.emit import Names, access
from fusemodel.analysis.derive.fiber import Fiber, StuckError, conjuncts, reduced
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.presence import same_extent
from fusemodel.analysis.derive.terms import ONE, Mono, Poly, TooLargeError, add, mono, scale, term_expr, to_expr, total
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
    accesses,
    join_split,
    rank_values,
    reads,
    reduction_op,
    substitute,
    target_ranks,
    walk,
)


@dataclass(frozen=True)
class Decay:
    """exp(d(p) - d(m)), or base^(d(p) - d(m)): what depends on both ranks but factors at any coordinate between."""

    base: Expr | None
    slope: Expr  # d, written over the later rank
    late: str

    def between(self, later: Expr, earlier: Expr) -> Expr:
        a, b = (Normal()(_collected(substitute(self.slope, {self.late: x}))) for x in (later, earlier))
        gap = to_expr(add(a, scale(b, -1)))
        return Apply("exp", (gap,)) if self.base is None else Apply("pow", (self.base, gap))


@dataclass(frozen=True)
class Term:
    """One product: what depends on the later rank, on the earlier one, and how it decays between them. ``after`` is
    what is applied to the result."""

    query: Mono
    key: Mono
    decays: tuple[Decay, ...]
    after: Mono
    coefficient: Fraction


@dataclass
class Chunking:
    """Takes a causal product out of the cascade, and computes what reads it chunk by chunk."""

    cascade: Cascade
    tensor: str
    names: Names
    early: str = ""  # the rank that is at most, or below ...
    late: str = ""  # ... the rank of the query
    order: str = "<="
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)
    made: dict[tuple[Expr, Expr | None], Access] = field(default_factory=dict)  # each thing is made once
    out: list[Einsum] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    @cached_property
    def fiber(self) -> Fiber:
        return Fiber(self.cascade, self.early)

    @cached_property
    def both(self) -> frozenset[str]:
        """Tensors that hold both ranks."""
        return frozenset(n for n, t in self.cascade.tensors.items() if {self.early, self.late} <= set(t.ranks))

    @cached_property
    def elementwise(self) -> frozenset[str]:
        """Those of them that are made element by element."""
        return frozenset(n for n in self.both if self.fiber.pointwise(n))

    def run(self) -> None:
        (maker,) = self.cascade.definitions(self.tensor)
        self.early, self.order, self.late = _causal(maker.where)
        if {self.early, self.late} & (self.cascade.split.keys() | self.cascade.parents.keys()):
            raise StuckError("a rank is split already")
        for rank in (self.late, self.early):
            self.parts[rank] = self.names.rank(f"{rank}1"), self.names.rank(f"{rank}0")
        family = {self.tensor}
        for e in self.cascade.einsums:
            if not any(a.tensor in family for a in reads(e)):
                self.out.append(e)
            elif e.name in self.elementwise:
                family.add(e.name)
            else:
                self.reader(e)
        if family & set(self.cascade.outputs):
            raise StuckError("an output holds both ranks")
        self.steps.append(
            f"{self.tensor}: its factors depend on {self.late} or on {self.early}, so chunks of {self.early} before "
            f"that of {self.late} are summed into a running state, and only one chunk is compared element by element."
        )

    # What is read

    def reader(self, e: Einsum) -> None:
        """A sum over the earlier rank, in chunks."""
        sums = not e.selection and reduction_op(e) == "sum" and self.fiber.definition(e.name) is not None
        if not sums or self.early not in reduced(self.cascade, e) or self.late not in target_ranks(e):
            raise StuckError("it is not summed over its earlier rank")
        body, conditions = self.fiber.inline(e.body, self.elementwise)
        for c in conjuncts([*conditions, e.where]):
            if _causal(c) != (self.early, self.order, self.late):
                raise StuckError("it is under another condition too")
        poly = Normal(keep=lambda x: not {self.early, self.late} <= set(rank_values(x)))(body)
        terms = [self.term(m, c, e) for m, c in poly.terms]
        if any(t.decays for t in terms):
            self.steps.append(
                f"{e.name}: exp(d[{self.late}] - d[{self.early}]) = exp(d[{self.late}] - d[s]) * exp(d[s] - "
                f"d[{self.early}]) for any s, so the state decays from the start of a chunk to that of the next."
            )
        result: Expr | None = None
        for t in terms:
            value = _times(term_expr(t.after, t.coefficient), self.chunks(e, t))
            result = value if result is None else Apply("+", (result, value))
        assert result is not None
        self.out.append(replace(e, body=result, reduction=None, where=None))

    def product_of(self, tensor: str) -> tuple[Mono, Fraction]:
        (e,) = self.cascade.definitions(tensor)
        sums = not e.selection and (not reduced(self.cascade, e) or reduction_op(e) == "sum")
        if not sums or self.fiber.definition(tensor) is None or _causal(e.where) != (self.early, self.order, self.late):
            raise StuckError(f"{tensor} is no plain causal sum")
        poly = Normal(keep=lambda _: True)(e.body)
        if len(poly.terms) != 1 or poly.terms[0][0].exponent:
            raise StuckError(f"{tensor} is no product")
        return poly.terms[0]

    def term(self, m: Mono, c: Fraction, e: Einsum) -> Term:
        pairs = [(a, p) for a, p in m.powers if isinstance(a, Access) and a.tensor in self.both]
        inside: list[tuple[Expr, Fraction]] = []
        for a, p in pairs:
            if len(pairs) > 1 or p != 1 or a != access(a.tensor, self.cascade.tensors[a.tensor].ranks):
                raise StuckError("it is not one factor of what reads it")
            product, k = self.product_of(a.tensor)
            inside, c = list(product.powers), c * k
        decays = [Decay(None, self.slope(m.exponent), self.late)] if m.exponent else []
        sides: tuple[list[tuple[Expr, Fraction]], list[tuple[Expr, Fraction]]] = [], []
        for a, p in (*inside, *(x for x in m.powers if x not in pairs)):
            held = {self.late, self.early} & set(rank_values(a))
            match a:
                case Apply("pow", (base, x)) if len(held) == 2 and not held & set(rank_values(base)):
                    decays.append(Decay(base, self.slope(scale(Normal()(x), p)), self.late))
                case _ if len(held) == 2:
                    raise StuckError("a factor depends on both ranks")
                case _:
                    sides[self.early in held].append((a, p))
        summed = {r for a, _ in inside for r in rank_values(a)} - set(target_ranks(e))
        query = [(a, p) for a, p in sides[0] if summed & set(rank_values(a))]
        after = [x for x in sides[0] if x not in query]
        return Term(mono(query), mono(sides[1]), tuple(decays), mono(after), c)

    def slope(self, exponent: Poly) -> Expr:
        """d in an exponent d(p) - d(m)."""
        of = {rank: total(t for t in exponent.terms if rank in _ranks(t[0])) for rank in (self.early, self.late)}
        late = to_expr(of[self.late])
        mirrored = Normal()(substitute(late, {self.late: RankValue(self.early)}))
        if exponent != add(*of.values()) or mirrored != scale(of[self.early], -1) or self.early in rank_values(late):
            raise StuckError("an exponent is no difference of one thing at both ranks")
        return late

    # What is made

    def chunks(self, e: Einsum, t: Term) -> Expr:
        """The sum of one product: its part in the chunk, and what the state brings."""
        (late1, late0), (early1, early0) = self.parts[self.late], self.parts[self.early]
        kept = [r for r in target_ranks(e) if r != self.late]
        shared = {r for r in _ranks(t.query) if r not in kept} & set(_ranks(t.key))
        single = mono([(a, p) for a, p in t.key.powers if set(rank_values(a)) & shared])
        rest = mono([(a, p) for a, p in t.key.powers if (a, p) not in single.powers])
        inner = join_split(RankValue(late1), early0, RankValue(early0))  # an earlier one, in the chunk of the later
        here = join_split(RankValue(late1), early0, RankValue(late0))
        causal = Apply(self.order, (RankValue(early0), RankValue(late0)))
        used = [r for r in kept if r in {*_ranks(t.query), *_ranks(t.key), *self.decay_ranks(t)}]

        at_query = self.cut(t.query, self.late)
        pairs = _times(at_query, substitute(term_expr(single), {self.early: inner}))
        pairs = self.tensor_of(f"L{self.tensor}", pairs, shared, (late1, late0, early0), causal)
        weights = self.product("L", self.decayed("L", t, pairs, here, inner, causal))
        within = access(self.names.fresh(f"L{e.name}"), (late1, late0, *used))
        values = substitute(term_expr(rest), {self.early: inner})
        self.out.append(Einsum(within, _times(weights, values)))

        step = RankValue(early1)
        start, following = self.starts(t, step)
        there = join_split(step, early0, RankValue(early0))
        keys = self.product("K", self.decayed("K", t, self.cut(single, self.early), following, there))
        every = {*_ranks(t.key), *self.decay_ranks(t)}
        state = [r for r in self.cascade.ranks if r in shared | set(kept) and r in every]
        local = access(self.names.fresh(f"L{e.name}S"), (early1, *state))
        self.out.append(Einsum(local, _times(keys, self.cut(rest, self.early)), Reduction("sum", (early0,))))
        name, own = self.names.fresh(f"R{e.name}S"), tuple(RankValue(r) for r in state)
        now = Access(name, (step, *own))
        kept_on = self.decayed("C", t, now, following, start)
        self.out.append(Einsum(Access(name, (Number(0), *own)), Number(0)))
        self.out.append(Einsum(Access(name, (Apply("+", (step, Number(1))), *own)), Apply("+", (kept_on, local))))

        reached: Expr = RankValue(late1)
        if same_extent(self.fiber, self.late) != same_extent(self.fiber, self.early):
            reached = Apply("min", (reached, Extent(early1)))
        before = access(self.names.fresh(f"P{e.name}"), (late1, late0, *used))
        self.out.append(Einsum(before, _times(at_query, Access(name, (reached, *own)))))
        brought = self.decayed("Q", t, before, here, self.starts(t, reached)[0])
        return Apply("+", (self.whole(within), self.whole_of(brought)))

    def starts(self, t: Term, chunk: Expr) -> tuple[Expr, Expr]:
        """The coordinates from which the state of a chunk decays, and that of the next: the first ones of the chunks.

        Of a decay that is known up to the end of a step, the last ones of the chunks before, so that no step waits for
        one of the next chunk. The last chunk may not be full, and its end is that of the rank.
        """
        size = Extent(self.parts[self.early][1])
        read = [i for d in t.decays for a in accesses(d.slope) for i in a.indices if self.late in rank_values(i)]
        start: Expr = Apply("*", (chunk, size))
        following: Expr = Apply("*", (Apply("+", (chunk, Number(1))), size))
        one = Number(1)
        if read and all(i == Apply("+", (RankValue(self.late), one)) for i in read):
            following = Apply("min", (following, Extent(self.early)))
            return Apply("-", (start, one)), Apply("-", (following, one))
        if read:
            following = Apply("min", (following, Apply("-", (Extent(self.early), one))))
        return start, following

    def decay_ranks(self, t: Term) -> set[str]:
        found = {r for d in t.decays for x in (d.slope, d.base) for r in rank_values(x)}
        return found - {self.late, self.early}

    def decayed(self, letter: str, t: Term, value: Expr, later: Expr, earlier: Expr, where: Expr | None = None) -> Expr:
        """A value times what it decays by between two coordinates, which is a tensor of its own."""
        for d in t.decays:
            factor = self.tensor_of(f"D{letter}", d.between(later, earlier), (), (), where)
            value = _times(value, factor)
        return value

    def product(self, letter: str, value: Expr) -> Expr:
        """A tensor times its decays, as a tensor of its own."""
        if isinstance(value, Access) or not accesses(value):
            return value
        (early1, early0), late = self.parts[self.early], self.parts[self.late]
        first = [r for r in (*late, early1) if r in rank_values(value)]
        return self.tensor_of(f"{letter}D", value, (), (*first, early0), None)

    def tensor_of(
        self, name: str, body: Expr, summed: Iterable[str], first: tuple[str, ...], where: Expr | None
    ) -> Access:
        """A tensor with this body, made once."""
        key = body, where
        if key not in self.made:
            found = [r for r in rank_values(body) if r not in set(summed) | set(first)]
            new = [r for r in found if r not in self.cascade.ranks]
            ranks = (*first[:-1], *new, *(r for r in self.cascade.ranks if r in found), *first[-1:])
            self.made[key] = access(self.names.fresh(name), ranks)
            self.out.append(Einsum(self.made[key], body, where=where))
        return self.made[key]

    def whole(self, a: Access) -> Expr:
        """A tensor over the parts of the later rank, read at the rank itself."""
        return Access(a.tensor, (RankValue(self.late), *a.indices[2:]))

    def whole_of(self, expr: Expr) -> Expr:
        """As :meth:`whole`, for a tensor times its decays."""
        late1, late0 = self.parts[self.late]
        match expr:
            case Access(tensor, (RankValue(x), RankValue(y), *more)) if (x, y) == (late1, late0):
                return Access(tensor, (RankValue(self.late), *more))
            case Access(tensor, indices):
                inner = Apply("%", (RankValue(self.late), Extent(late0)))
                outer = Apply("//", (RankValue(self.late), Extent(late0)))
                return Access(tensor, tuple(substitute(i, {late0: inner, late1: outer}) for i in indices))
            case Apply(op, args):
                return Apply(op, tuple(self.whole_of(a) for a in args))
        return expr

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
    return [r for a, _ in m.powers for r in rank_values(a)] + [
        r for inner, _ in (m.exponent.terms if m.exponent else ()) for r in _ranks(inner)
    ]


def _times(a: Expr, b: Expr) -> Expr:
    one = term_expr(ONE)
    return b if a == one else a if b == one else Apply("*", (a, b))


def _count(rank: str, inner: str) -> Expr:
    return Apply("neg", (Apply("//", (Apply("neg", (Extent(rank),)), Extent(inner))),))


def _collected(expr: Expr) -> Expr:
    """The expression with what cancels in an index left out."""
    match expr:
        case Access(tensor, indices):
            return Access(tensor, tuple(i if _is_short(i) else to_expr(Normal()(i)) for i in indices))
        case Apply(op, args):
            return Apply(op, tuple(_collected(a) for a in args))
    return expr


def _is_short(index: Expr) -> bool:
    numbers = [x for x in walk(index) if isinstance(x, Number)]
    return len(numbers) < 2


def _causal(where: Expr | None) -> tuple[str, str, str]:
    """The earlier rank, the order and the later rank of a condition ``m <= p`` or ``m < p``."""
    match where:
        case Apply("<=" | "<" as order, (RankValue(early), RankValue(late))):
            return early, order, late
        case Apply(">=" | ">" as order, (RankValue(late), RankValue(early))):
            return early, "<=" if order == ">=" else "<", late
        case Apply("<=", (RankValue(early), Apply("-", (RankValue(late), Number(value=1))))):
            return early, "<", late
        case Apply("<=", (Apply("+", (RankValue(early), Number(value=1))), RankValue(late))):
            return early, "<", late
    raise StuckError("it is not under a causal condition alone")


def chunked(cascade: Cascade, tensor: str) -> Chunking:
    """The cascade without a causal product, in chunks; StuckError where the identity does not apply."""
    if tensor in cascade.outputs or len(cascade.definitions(tensor)) != 1 or cascade.tensors[tensor].iterative:
        raise StuckError(f"{tensor} is an output, or iterative")
    work = Chunking(cascade, tensor, Names.of(cascade))
    try:
        work.run()
    except TooLargeError:
        raise StuckError("its normal form has too many terms") from None
    return work
