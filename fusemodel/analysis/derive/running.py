"""One traversal for reductions that depend on a running value: tiles, and accumulators rescaled as it moves on.

For S = sum over x of G(x) * H(d), with d the maximum over the same fiber and H(d) = exp(E(d)), the fiber is cut into
tiles. After tile i the running value is d[i+1], and S[i+1] = S[i] * H(d[i])^-1 * H(d[i+1]) + the sum over tile i of
G(x) * H(d[i+1]). Chunks that know nothing of each other merge in the same way, each with its own maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from fusemodel.analysis.derive.emit import Names, access
from fusemodel.analysis.derive.fiber import START, Fiber, StuckError, conjunction, replaced
from fusemodel.analysis.derive.identities import correction
from fusemodel.analysis.derive.normal import Normal, bare
from fusemodel.analysis.derive.roles import Roles
from fusemodel.analysis.derive.shifting import centre, remember, running_source, shifted
from fusemodel.analysis.derive.signs import nonnegative_product
from fusemodel.analysis.derive.terms import Mono, Poly, to_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    Reduction,
    accesses,
    join_split,
    match_indices,
    rank_values,
    reads,
    reduction_op,
    target_ranks,
)
from fusemodel.cascade.printer import format_expr

TILE = 256


@dataclass
class Tiling(Roles):
    """The rewriting of a cascade along one rank into tiles, with running values or with chunks that merge."""

    names: Names = field(default_factory=Names)
    chunks: bool = False
    out: list[Einsum] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    outer: str = ""
    inner: str = ""
    moving: dict[str, Access] = field(default_factory=dict)  # a maximum -> its value after a tile (or of a chunk)
    before: dict[str, Access] = field(default_factory=dict)  # a maximum -> its value before a tile
    final: dict[str, Expr] = field(default_factory=dict)  # what is replaced -> its value at the end
    corrections: dict[str, Access] = field(default_factory=dict)
    merges: dict[tuple[str, str], Access] = field(default_factory=dict)
    so_far: dict[str, Expr] = field(default_factory=dict)  # a sum or mean -> over the tiles so far (or of a chunk)
    shift: dict[str, Access] = field(default_factory=dict)  # a running value -> how far it moves
    series: dict[str, tuple[Expr, Fraction]] = field(default_factory=dict)  # what is summed -> its sum before a tile

    @classmethod
    def of(cls, fiber: Fiber, parts: tuple[str, str] | None, *, chunks: bool) -> Tiling:
        cascade, rank = fiber.cascade, fiber.rank
        outer = [parts[0] for parts in cascade.split.values()]
        if (rank in cascade.split and not parts) or rank in outer or rank in cascade.batch:
            raise StuckError(f"rank {rank} is split already, or is a batch rank")
        work = cls(fiber, names=Names.of(cascade), chunks=chunks)
        work.outer, work.inner = parts or (work.names.rank(f"{rank}1"), work.names.rank(f"{rank}0"))
        for e in cascade.einsums:
            work.visit(e)
        return work

    def visit(self, e: Einsum) -> None:
        fiber = self.fiber
        if e.name in fiber.settled:
            self.out.append(e)
        elif e.name in self.sources and e.name not in self.rescaled:
            running_source(self, e)
            if e.name in self.tracked:
                centre(self, e)
        elif e.name in self.tracked - self.maxima and not fiber.is_late(e):
            self.outside(e)
            centre(self, e)
        elif fiber.is_late(e):
            if e.name in self.rescaled:
                self.accumulator(e)
            elif e.name in self.in_tiles:
                self.weight(e)
            elif e.name not in self.only_in_tiles:
                self.later(e)
        elif self.rank in target_ranks(e):
            self.elementwise(e)
        elif not fiber.reduces(e):
            self.outside(e)
        elif e.name in self.maxima:
            self.maximum(e)
        else:
            self.plain(e)

    # Indices

    def cut(self, expr: Expr) -> Expr:
        """The expression over tiles: the rank's coordinate as its two parts, and one as two indices where it can be."""
        whole = join_split(RankValue(self.outer), self.inner, RankValue(self.inner))

        def go(e: Expr) -> Expr:
            match e:
                case Access(tensor, indices):
                    return Access(tensor, tuple(j for i in indices for j in index(tensor, i)))
                case Apply(op, args):
                    return Apply(op, tuple(go(a) for a in args))
                case RankValue(r) if r == self.rank:
                    return whole
            return e

        def index(tensor: str, i: Expr) -> tuple[Expr, ...]:
            known = self.fiber.cascade.tensors
            family = {self.rank, self.fiber.cascade.parents.get(self.rank)}
            own = tensor in known and not family.isdisjoint(known[tensor].ranks)
            if i == RankValue(self.rank) and own:
                return RankValue(self.outer), RankValue(self.inner)
            return (go(i),)

        return go(expr)

    def guarded(self, body: Expr, where: Expr | None) -> Expr | None:
        """The condition over tiles: a last one that is not full needs one where no operand is absent beyond its end."""
        held = self.ends_with_rank(body)
        inside = Apply("<", (RankValue(self.rank), Extent(self.rank)))
        joined = conjunction([where, None if held else inside])
        return None if joined is None else self.cut(joined)

    def ends_with_rank(self, expr: Expr) -> bool:
        """Whether an expression is absent beyond the end of the rank: an operand holds the rank itself."""
        match expr:
            case Apply("coalesce", args):
                return all(self.ends_with_rank(a) for a in args)
            case Apply(_, args):
                return any(self.ends_with_rank(a) for a in args)
            case Access(name, indices) if name in self.fiber.cascade.tensors:
                tensor = self.fiber.cascade.tensors[name]
                matched = match_indices(self.fiber.cascade, tensor, indices) or ()
                return any(r == self.rank and i == RankValue(r) for r, i in zip(tensor.ranks, matched, strict=False))
        return False

    def keep_whole(self, e: Einsum) -> bool:
        """Whether a tensor keeps the rank itself: it, or one who reads it, uses other coordinates than its own."""
        used = [a for x in self.fiber.cascade.einsums for a in reads(x) if a.tensor == e.name]
        odd = any(i != RankValue(self.rank) and self.rank in rank_values(i) for a in used for i in a.indices)
        place = self.fiber.cascade.tensors[e.name].ranks.index(self.rank)
        elsewhere = any(a.indices[place] != RankValue(self.rank) for a in used if len(a.indices) > place)
        return (
            e.selection is not None
            or e.name in self.read_later
            or odd
            or elsewhere
            or e.name in self.fiber.cascade.outputs
            or self.fiber.definition(e.name) is None
        )

    # Einsums

    def elementwise(self, e: Einsum) -> None:
        """A tensor that holds the rank and waits for nothing."""
        self.out.append(e if self.keep_whole(e) else self.over_tiles(e, e.body))

    def weight(self, e: Einsum) -> None:
        """A tensor that holds the rank, relative to the running value at its tile."""
        self.out.append(self.over_tiles(e, self.at_step(e.body)))

    def later(self, e: Einsum) -> None:
        """What needs the end of the traversal runs over the rank once more, with all final values."""
        names = self.only_in_tiles | self.steadied
        body, found = self.fiber.inline(e.body, names)
        where = None if e.where is None else self.fiber.inline(e.where, names)[0]
        body = self.at_end(body)
        self.out.append(replace(e, body=body, where=conjunction([where, *(self.at_end(c) for c in found)])))

    def over_tiles(self, e: Einsum, body: Expr) -> Einsum:
        made = self.cut(Access(e.target.tensor, e.target.indices))
        assert isinstance(made, Access)
        return replace(e, target=made, body=self.cut(bare(body)), where=self.guarded(body, e.where))

    def at_step(self, expr: Expr) -> Expr:
        """Maxima as they are after a tile, in whatever is made of them; late tensors that are none of their own written
        out."""
        return self.with_values(expr, self.moving)

    def conditions(self, e: Einsum) -> Expr | None:
        """The condition of a sum, and those of late tensors that are written out in it."""
        _, found = self.fiber.inline(e.body, self.fiber.late - self.in_tiles)
        return conjunction([e.where, *found])

    def with_values(self, expr: Expr, values: Mapping[str, Access]) -> Expr:
        late = self.fiber.late - self.in_tiles
        body, _ = self.fiber.inline(expr, late | self.steadied)
        return replaced(self.fiber.cascade, self.by_own(body), values)

    def plain(self, e: Einsum) -> None:
        """op over x = op over tiles of op over a tile, for an associative operator; a mean counts what is present."""
        ranks = tuple(x for r in self.fiber.reduced(e) for x in ((self.outer, self.inner) if r == self.rank else (r,)))
        if e.selection:
            self.out.append(e)
            return
        reduction = Reduction(reduction_op(e), ranks) if e.reduction else None
        self.out.append(
            replace(e, body=self.cut(bare(e.body)), reduction=reduction, where=self.guarded(e.body, e.where))
        )

    def in_tile(self, e: Einsum) -> Reduction:
        return Reduction(reduction_op(e), tuple(self.inner if r == self.rank else r for r in self.fiber.reduced(e)))

    def maximum(self, e: Einsum) -> None:
        """A running maximum: the larger of what it was and the maximum of a tile."""
        op = reduction_op(e)
        kept = target_ranks(e)
        local = access(self.names.fresh(f"L{e.name}"), (self.outer, *kept))
        tile = replace(
            e, target=local, body=self.cut(bare(e.body)), reduction=self.in_tile(e), where=self.guarded(e.body, e.where)
        )
        self.out.append(tile)
        if self.chunks:
            self.moving[e.name] = local
            self.out.append(Einsum(e.target, local, Reduction(op, (self.outer,))))
            self.steps.append(f"{e.name}: the {op} over {self.rank} is the {op} over chunks of {local.tensor}.")
            return
        name = self.names.fresh(f"R{e.name}")
        start, now, then, end = self.stages(name, kept)
        self.moving[e.name], self.before[e.name], self.final[e.name] = then, now, end
        self.out.append(Einsum(start, START[op]))
        self.out.append(Einsum(then, Apply(op, (now, local))))
        self.steps.append(
            f"{e.name}: {op} is associative, so {self.rank} is split into tiles ({self.outer}, {self.inner}) and "
            f"{name} runs over them."
        )
        self.rest(e, end)

    def stages(self, name: str, ranks: tuple[str, ...]) -> tuple[Access, Access, Access, Access]:
        """A running tensor at its start, before a tile, after it, and at the end."""
        own, step = tuple(RankValue(r) for r in ranks), RankValue(self.outer)
        indices = (Number(0), step, Apply("+", (step, Number(1))), Extent(self.outer))
        first, now, then, end = (Access(name, (i, *own)) for i in indices)
        return first, now, then, end

    def rest(self, e: Einsum, end: Expr) -> None:
        """The tensor itself, where it is an output."""
        if e.name in self.fiber.cascade.outputs:
            self.out.append(Einsum(e.target, end))

    def accumulator(self, e: Einsum) -> None:
        """A running sum, rescaled when the running maximum it is relative to moves on; or a running extreme, as a
        factor that is not negative distributes over it."""
        kept, op = target_ranks(e), reduction_op(e)
        exponent = self.common_exponent(e)
        body, conditions = self.at_step(e.body), self.conditions(e)
        tile = access(self.names.fresh(f"L{e.name}"), (self.outer, *kept))
        reduction = self.in_tile(e) if e.reduction else None
        self.out.append(
            replace(
                e, target=tile, body=self.cut(bare(body)), reduction=reduction, where=self.guarded(body, conditions)
            )
        )
        centres = sorted(self.shifting.get(e.name, ()), key=lambda a: a.tensor)
        if self.chunks:
            whole = shifted(self, e, tile, centres) if centres else tile
            if exponent.terms:
                whole = scaled(op, whole, self.scaling(exponent, kept, self.whole_exponent(e)))
            self.out.append(Einsum(e.target, whole, Reduction(op, (self.outer,))))
            self.steps.append(f"{e.name}: chunks are made relative to their own values, and merge.")
            return
        name = self.names.fresh(f"R{e.name}")
        start, now, then, end = self.stages(name, kept)
        self.so_far[e.name] = then
        remember(self, e, now)
        moved = shifted(self, e, now, centres) if centres else now
        if exponent.terms:
            factor = self.scaling(exponent, kept)
            moved = scaled(op, moved, factor)
            self.steps.append(
                f"{e.name}: exp(x - new) = exp(x - old) * exp(old - new), so {name} is kept relative to the running "
                f"value and multiplied by {factor.tensor} when that moves on."
            )
        self.out.append(Einsum(start, START.get(op, Number(0))))
        both = (moved, tile) if centres else (tile, moved)
        self.out.append(Einsum(then, Apply(op if op in START else "+", both)))
        if exponent == self.whole_exponent(e):
            self.final[e.name] = end
            self.rest(e, end)
        else:
            self.out.append(Einsum(e.target, scaled(op, end, self.merged(e, exponent, kept))))

    def merged(self, e: Einsum, exponent: Poly, kept: tuple[str, ...]) -> Access:
        """The tensor by which a sum relative to a maximum over this rank becomes relative to one shared with others."""
        whole = self.whole_exponent(e)
        key = format_expr(to_expr(whole)), format_expr(to_expr(exponent))
        if key not in self.merges:
            body = self.at_end(correction(exponent, whole))
            for name in (a.tensor for a in accesses(to_expr(exponent)) if a.tensor in self.maxima):
                if self.empty_tiles():
                    op = reduction_op(self.fiber.cascade.definitions(name)[0])
                    body = Apply("select", (Apply("==", (self.final[name], START[op])), Number(1), body))
            made = access(self.names.fresh(f"C{e.name}"), [r for r in kept if r in rank_values(body)])
            self.merges[key] = made
            self.out.append(Einsum(made, body))
            self.steps.append(
                f"{made.tensor}: exp(x - d) = exp(x - a) * exp(a - d), with a the maximum over {self.rank} alone, so "
                f"that the sums over {self.rank} wait for nothing made along other ranks."
            )
        return self.merges[key]

    def scaling(self, exponent: Poly, kept: tuple[str, ...], whole: Poly | None = None) -> Access:
        """The tensor that rescales a sum when the running value moves on; that of a chunk, to be relative to the
        ``whole``."""
        form = Normal()
        old = form(self.with_values(to_expr(exponent), self.moving if whole else self.before))
        new = form(to_expr(whole) if whole else self.with_values(to_expr(exponent), self.moving))
        return self.correct(correction(old, new), exponent, kept)

    def correct(self, body: Expr, exponent: Poly, kept: tuple[str, ...]) -> Access:
        """The tensor by which accumulators with this exponent are rescaled, made once."""
        key = format_expr(to_expr(exponent))
        if key not in self.corrections:
            ranks = [r for r in kept if r in rank_values(body)]
            made = access(self.names.fresh(f"C{self.short(exponent)}"), (self.outer, *ranks))
            self.corrections[key] = made
            self.out.append(Einsum(made, self.guard(body, exponent)))
        return self.corrections[key]

    def guard(self, body: Expr, exponent: Poly) -> Expr:
        """Where a tile may be empty, or the exponent may grow, nothing is rescaled before there is a first maximum."""
        names = dict.fromkeys(a.tensor for a in accesses(to_expr(exponent)) if a.tensor in self.maxima)
        if all(c < 0 and self.shrinks(m) for m, c in exponent.terms) and not self.empty_tiles():
            return body
        for name in names:
            e = self.fiber.cascade.definitions(name)[0]
            first = self.moving[name] if self.chunks else self.before[name]
            body = Apply("select", (Apply("==", (first, START[reduction_op(e)])), Number(1), body))
        return body

    def shrinks(self, m: Mono) -> bool:
        """Whether a product is a running value times what is not negative."""
        rest = Mono(tuple((a, p) for a, p in m.powers if not self.fiber.waits(a)))
        return not m.exponent and nonnegative_product(self.fiber.cascade, rest)

    def empty_tiles(self) -> bool:
        fiber = self.fiber
        for name in self.maxima:
            for e in fiber.cascade.definitions(name):
                if e.where is not None or any(fiber.may_be_absent(a, fiber.partial) for a in accesses(e.body)):
                    return True
        return False

    def short(self, exponent: Poly) -> str:
        names = [a.tensor for a in accesses(to_expr(exponent)) if a.tensor in self.maxima]
        return names[0] if names else "R"

    def outside(self, e: Einsum) -> None:
        """What does not traverse the fiber reads running tensors at their end."""
        where = None if e.where is None else self.at_end(e.where)
        self.out.append(replace(e, body=self.at_end(e.body), where=where))

    def at_end(self, expr: Expr) -> Expr:
        return replaced(self.fiber.cascade, expr, self.final)


def scaled(op: str, value: Expr, factor: Expr) -> Expr:
    """A sum or an extreme times a factor that is not negative; an extreme of nothing stays what it is."""
    product = Apply("*", (value, factor))
    return Apply("select", (Apply("==", (value, START[op])), START[op], product)) if op in START else product


def tiled(fiber: Fiber, parts: tuple[str, str] | None = None, *, chunks: bool = False) -> Tiling:
    """The cascade with running values along a rank (or chunks that merge), in new tiles or in ``parts`` that it has;
    StuckError where that is impossible."""
    return Tiling.of(fiber, parts, chunks=chunks)
