"""Taking what waits out of the reductions over one rank, so that they need fewer traversals of its fibers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from fusemodel.analysis.derive.emit import Names, access, name_of_product
from fusemodel.analysis.derive.fiber import START, Fiber, StuckError, conjunction, conjuncts
from fusemodel.analysis.derive.identities import (
    Split,
    differs,
    expanded_form,
    kept_form,
    monotone_part,
    piloted_form,
    pull_from_extreme,
    ranks_of_mono,
    signs_of_nothing,
    split_product,
)
from fusemodel.analysis.derive.interchange import inlined, interchanged
from fusemodel.analysis.derive.known import Named, recognised
from fusemodel.analysis.derive.normal import Normal, bare
from fusemodel.analysis.derive.presence import Condition, conditions_of, surely_some
from fusemodel.analysis.derive.terms import (
    ONE,
    Mono,
    Poly,
    add,
    atom,
    inverse_mono,
    mono,
    multiply,
    parts,
    term_expr,
    times_mono,
    to_expr,
    total,
)
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    Extent,
    Number,
    Reduction,
    accesses,
    rank_values,
    reads,
    reduction_op,
    target_ranks,
)
from fusemodel.cascade.printer import format_einsum, format_expr

_Key = tuple[str, frozenset[str], Mono, str]


@dataclass
class Factoring:
    """Rewrites the equations of a cascade one by one along one rank, and remembers what it made."""

    fiber: Fiber
    names: Names
    spread: bool = False  # multiply powers of differences out, relative to a first element
    shifts: bool = False  # whether a power of a difference stayed whole
    out: list[Einsum] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    bases: dict[_Key, tuple[Access, Fraction]] = field(default_factory=dict)
    named: list[Named] = field(default_factory=list)

    @classmethod
    def of(cls, fiber: Fiber, *, spread: bool) -> Factoring:
        work = cls(fiber, Names.of(fiber.cascade), spread)
        work.remember()
        for e in fiber.cascade.einsums:
            work.visit(e)
        return work

    def remember(self) -> None:
        """The reductions and elementwise tensors that are there to be used again."""
        fiber = self.fiber
        for e in fiber.cascade.einsums:
            try:
                if fiber.reduces(e) and not e.selection and not fiber.is_late(e) and fiber.definition(e.name):
                    poly = expanded_form(fiber, e.body)
                    if len(poly.terms) == 1:
                        m, c = poly.terms[0]
                        self.bases.setdefault(self.key(e, frozenset(self.fiber.reduced(e)), m, e.where), (e.target, c))
                elif fiber.pointwise(e.name) and e.name in fiber.late:
                    body, conditions = inlined(self.fiber, e)
                    poly = expanded_form(fiber, body)
                    texts = frozenset(map(format_expr, conditions))
                    if len(poly.terms) == 1 and poly.terms[0][1] == 1:
                        self.named.append(Named(poly.terms[0][0], e.target, texts))
                    elif differs(fiber, whole := to_expr(poly)):
                        self.named.append(Named(mono([(whole, Fraction(1))]), e.target, texts))
            except StuckError:
                continue
        self.named.sort(key=lambda n: -len(list(parts(n.value))))

    def key(self, e: Einsum, inner: frozenset[str], m: Mono, where: Expr | None) -> _Key:
        return reduction_op(e), inner, m, format_expr(where) if where is not None else ""

    def visit(self, e: Einsum) -> None:
        fiber = self.fiber
        try:
            if fiber.reduces(e) and fiber.is_late(e):
                self.reduction(e)
                return
            if self.cancelled(e):
                return
            if fiber.rank not in target_ranks(e) and any(a.tensor in fiber.late for a in reads(e)):
                body, conditions = inlined(self.fiber, e)
                self.out.append(replace(e, body=body, where=conjunction(conditions)))
                self.steps.append(f"{e.name}: the elements it picks are computed from what they are made of.")
                return
        except StuckError as reason:
            self.stuck.append(f"{e.name} reduces {fiber.rank} after {fiber.waiting_for(e)}: {reason}.")
        self.out.append(e)

    def cancelled(self, e: Einsum) -> bool:
        """Write an elementwise tensor without what it waits for, where that cancels."""
        if e.name not in self.fiber.late or self.fiber.pointwise(e.name) is None:
            return False
        body, conditions = inlined(self.fiber, e)
        poly = Normal()(body) if len(conditions) == 0 else Poly()
        if len(poly.terms) != 1 or self.fiber.waits(to_expr(poly)) or self.fiber.waits(e.where):
            return False
        self.out.append(replace(e, body=to_expr(poly)))
        self.steps.append(f"{e.name}: {self.fiber.waiting_for(e)} cancels in it, so it waits for nothing.")
        return True

    def reduction(self, e: Einsum) -> None:
        if self.fiber.definition(e.name) is None and not e.selection:
            raise StuckError("it is not defined by one plain equation")
        e, body, conditions = interchanged(self.fiber, e, self.steps)
        if any(self.fiber.waits(c) for c in conditions):
            raise StuckError("its condition depends on what is complete only after a traversal")
        where = conjunction(conditions)
        summed = reduction_op(e) in ("sum", "mean") and not e.selection
        poly = self.form(e, body) if summed else expanded_form(self.fiber, body)
        if e.selection:
            self.selection(e, poly, where)
        elif (op := reduction_op(e)) in ("max", "min"):
            self.extreme(e, op, poly, where)
        elif op in ("sum", "mean"):
            self.linear(e, body, poly, conditions)
        else:
            raise StuckError(f"nothing distributes over {op}")

    def form(self, e: Einsum, body: Expr) -> Poly:
        """The normal form of a sum."""
        poly = kept_form(self.fiber, body)
        if not any(differs(self.fiber, a) for m, _ in poly.terms for a, _ in m.powers):
            return poly
        if not self.spread:
            self.shifts = True
            return poly
        self.steps.append(
            f"{e.name}: x - d = (x - x[0]) + (x[0] - d), so that powers are multiplied out relative to the first "
            "element (digits are lost where that is far from the others beside their spread)."
        )
        return piloted_form(self.fiber, body, self.fiber.reduced(e))

    def selection(self, e: Einsum, poly: Poly, where: Expr | None) -> None:
        body = to_expr(monotone_part(self.fiber, poly))
        self.out.append(replace(e, body=body, where=where))
        self.steps.append(
            f"{e.name}: an increasing function keeps the order of elements, so it selects on {format_expr(body)}."
        )

    def extreme(self, e: Einsum, op: str, poly: Poly, where: Expr | None) -> None:
        pulled = pull_from_extreme(self.fiber, op, poly)
        reduced = frozenset(self.fiber.reduced(e))
        outer = [r for p in (pulled.outside, pulled.added) for m, _ in p.terms for r in ranks_of_mono(m)]
        if reduced & (pulled.held | set(outer)):
            raise StuckError("what waits changes along another reduced rank")
        inner = to_expr(pulled.inside)
        held = {*rank_values(inner), *rank_values(where)}
        ranks = tuple(r for r in self.fiber.reduced(e) if r in held)
        made = self.known(pulled.op, frozenset(ranks), pulled.inside, where)
        if made is None:
            name = self.names.fresh(f"{op[:1].upper()}{e.name}")
            made = access(name, [r for r in target_ranks(e) if r in held])
            if len(pulled.inside.terms) == 1:
                m, c = pulled.inside.terms[0]
                reading, left = recognised(self.named, m, conjuncts([where]))
                inner, where = term_expr(reading, c), conjunction(left)
            self.out.append(Einsum(made, inner, Reduction(pulled.op, ranks), where=where))
        value = Poly(((Mono((), atom(made)), Fraction(1)),)) if pulled.exponential else atom(made)
        changed = to_expr(add(multiply(pulled.outside, value), pulled.added))
        present = (*conditions_of(self.fiber, inner), *map(Condition, conjuncts([where])))
        if changed != made and not surely_some(self.fiber, present):
            changed = Apply("select", (Apply("==", (made, START[pulled.op])), START[op], changed))
        self.out.append(replace(e, body=changed, reduction=None, where=None))
        self.steps.append(f"{e.name}: what lacks {self.fiber.rank} leaves the {op}: {format_einsum(self.out[-1])}.")

    def known(self, op: str, ranks: frozenset[str], poly: Poly, where: Expr | None) -> Access | None:
        """A maximum that is there already."""
        key = (op, ranks, poly.terms[0][0], format_expr(where) if where is not None else "")
        found = self.bases.get(key) if len(poly.terms) == 1 else None
        return found[0] if found and found[1] == poly.terms[0][1] else None

    # Sums and means

    def linear(self, e: Einsum, body: Expr, poly: Poly, conditions: Sequence[Expr]) -> None:
        fiber = self.fiber
        reduced = frozenset(self.fiber.reduced(e))
        splits = [split_product(fiber, m, c) for m, c in poly.terms]
        wheres = [self.where_present(body, s, conditions) for s in splits]
        whole = [Condition(c) for c in conditions]
        filled = surely_some(fiber, (*conditions_of(fiber, body), *whole))
        if reduction_op(e) == "mean" and any(s.held for s in splits):
            self.mean_as_sum(e, body, poly, conditions)
            return
        groups: dict[frozenset[str], list[tuple[Mono, Fraction]]] = {}
        made: list[Einsum] = []
        for s, where in zip(splits, wheres, strict=True):
            outer = reduced & (ranks_of_mono(s.outside) | s.held)
            if fiber.rank in outer:
                raise StuckError("what waits changes along the rank")
            if outer and where and reduction_op(e) == "mean":
                raise StuckError("a mean of the present points is no mean of means")
            term, c, new = self.base(e, s, reduced - outer, where)
            made += new
            groups.setdefault(outer, []).append((term, c))
        if len(splits) == 1 and len(made) == 1 and not next(iter(groups)) and self.is_alone(groups, made[0]):
            (base,) = made
            self.out.append(replace(base, target=e.target))
            if not any(map(fiber.waits, parts(splits[0].inside))):
                self.steps.append(f"{e.name}: {fiber.waiting_for(e)} cancels in it, so it waits for nothing.")
            key = self.key(e, frozenset(self.fiber.reduced(base)), splits[0].inside, conjunction(wheres[0]))
            self.bases[key] = (e.target, Fraction(1))
            return
        self.out += made
        self.combine(e, groups, filled)
        self.explain(e, splits)

    def mean_as_sum(self, e: Einsum, body: Expr, poly: Poly, conditions: Sequence[Expr]) -> None:
        """mean(x) = sum(x) / count, where no point is absent."""
        fiber = self.fiber
        if conditions or any(fiber.may_be_absent(a, fiber.partial) for a in accesses(body)):
            raise StuckError("a mean of the present points has no count that is known")
        ranks = self.fiber.reduced(e)
        count = mono((Extent(r), Fraction(-1)) for r in ranks)
        scaled = multiply(poly, Poly(((count, Fraction(1)),)))
        self.linear(replace(e, reduction=Reduction("sum", ranks)), body, scaled, conditions)

    def is_alone(self, groups: dict[frozenset[str], list[tuple[Mono, Fraction]]], base: Einsum) -> bool:
        ((term, c),) = next(iter(groups.values()))
        return c == 1 and term == mono([(base.target, Fraction(1))])

    def where_present(self, body: Expr, s: Split, conditions: Sequence[Expr]) -> Sequence[Expr]:
        """The conditions of one product: it must be absent where the whole is, along the rank."""
        fiber = self.fiber
        own = {c for a in parts(s.inside) for c in conditions_of(fiber, a)} | {Condition(bare(c)) for c in conditions}
        lost = [c for c in conditions_of(fiber, body) if fiber.rank in c.ranks and c not in own]
        if not all(c.known for c in lost):
            raise StuckError("a product would lose an operand that may be absent")
        return (*conditions, *(c.test for c in lost))

    def base(
        self, e: Einsum, s: Split, inner: frozenset[str], conditions: Sequence[Expr]
    ) -> tuple[Mono, Fraction, list[Einsum]]:
        """The reduction of what stays inside, new or there already, as a factor of what comes out."""
        op, where = reduction_op(e), conjunction(conditions)
        present = ranks_of_mono(s.inside) | set(rank_values(where))
        c, outside = s.coefficient, s.outside
        if op == "sum":
            for r in sorted(inner - present):
                outside = times_mono(outside, mono([(Extent(r), Fraction(1))]))
        elif s.inside == ONE:
            return outside, c, []
        inner &= present
        if not inner:
            return times_mono(outside, s.inside), c, []
        key = self.key(e, inner, s.inside, where)
        if key in self.bases:
            known, scaled = self.bases[key]
            return times_mono(outside, mono([(known, Fraction(1))])), c / scaled, []
        reading, left = recognised(self.named, s.inside, conditions)
        ranks = [r for r in dict.fromkeys((*target_ranks(e), *sorted(present))) if r in present and r not in inner]
        made = access(self.names.fresh(name_of_product(reading)), ranks)
        order = tuple(r for r in self.fiber.reduced(e) if r in inner)
        reduction = None if op == "sum" and e.reduction is None else Reduction(op, order)
        self.bases[key] = (made, Fraction(1))
        new = Einsum(made, term_expr(reading), reduction, where=conjunction(left))
        return times_mono(outside, mono([(made, Fraction(1))])), c, [new]

    def combine(self, e: Einsum, groups: dict[frozenset[str], list[tuple[Mono, Fraction]]], filled: bool) -> None:
        """The tensor made of its reductions, element by element or summed over ranks along which what waits changes;
        0 where nothing was summed, unless ``filled``: something always is."""
        shared = {outer: shared_factor(terms, outer) for outer, terms in groups.items()}
        if len(groups) == 1 and set(shared.values()) == {ONE}:
            outer, terms = next(iter(groups.items()))
            self.out.append(self.summed(e, e.target, outer, terms, filled))
            return
        whole: list[tuple[Mono, Fraction]] = []
        for outer, terms in groups.items():
            if not outer:
                whole += terms
                continue
            part = replace(e.target, tensor=self.names.fresh(f"{e.name}P"))
            inverse = inverse_mono(shared[outer])
            self.out.append(self.summed(e, part, outer, [(times_mono(m, inverse), c) for m, c in terms], filled))
            whole.append((times_mono(shared[outer], mono([(part, Fraction(1))])), Fraction(1)))
        self.out.append(self.summed(e, e.target, frozenset(), whole, filled))

    def summed(
        self, e: Einsum, target: Access, outer: frozenset[str], terms: list[tuple[Mono, Fraction]], filled: bool
    ) -> Einsum:
        order, op = tuple(r for r in self.fiber.reduced(e) if r in outer), reduction_op(e)
        reduction = Reduction(op, order) if order and (op != "sum" or e.reduction) else None
        body = to_expr(total(terms))
        empty = [] if filled else signs_of_nothing(self.fiber, (m for m, _ in terms))
        if empty:
            test = empty[0] if len(empty) == 1 else Apply("or", tuple(empty))
            body = Apply("select", (test, Number(0), body))
            self.steps.append(
                f"{target.tensor}: where no point of {self.fiber.rank} is present ({format_expr(test)}), it is 0, as a "
                f"{op} over nothing is."
            )
        return replace(e, target=target, body=body, reduction=reduction, where=None)

    def explain(self, e: Einsum, splits: Sequence[Split]) -> None:
        rank, op = self.fiber.rank, reduction_op(e)
        if len(splits) > 1:
            self.steps.append(
                f"{e.name}: the {op} of a sum is the sum of {op}s (multiplied out into {len(splits)} products)."
            )
        for s in splits:
            if s.outside != ONE:
                factor = format_expr(term_expr(s.outside))
                below = [format_expr(a) for a, p in s.outside.powers if p < 0]
                nonzero = f" ({', '.join(below)} must not be 0)" if below else ""
                self.steps.append(
                    f"{e.name}: the factor {factor} lacks {rank}, so it is applied after the {op} over {rank}{nonzero}."
                )


def shared_factor(terms: Sequence[tuple[Mono, Fraction]], summed: frozenset[str]) -> Mono:
    """What all terms share and lacks the ranks over which they are summed."""
    if not summed:
        return ONE
    powers = [{a: p for a, p in m.powers if not summed & set(rank_values(a))} for m, _ in terms]
    return mono((a, p) for a, p in powers[0].items() if all(other.get(a) == p for other in powers[1:]))


def factored(fiber: Fiber, *, spread: bool = False) -> Factoring:
    """Every reduction over the rank with what waits taken out of it, as far as the identities reach; powers of
    differences from what waits are multiplied out only where ``spread``."""
    return Factoring.of(fiber, spread=spread)
