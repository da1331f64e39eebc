"""The search: identities tried rank by rank, each result checked, kept where it traverses some fiber less often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from fusemodel.analysis.derive.causal import chunked
from fusemodel.analysis.derive.chain import regrouped
from fusemodel.analysis.derive.check import Check
from fusemodel.analysis.derive.emit import assemble
from fusemodel.analysis.derive.factor import factored
from fusemodel.analysis.derive.fiber import Fiber, StuckError, closure, reduced
from fusemodel.analysis.derive.regular import apart, joined
from fusemodel.analysis.derive.running import TILE, tiled
from fusemodel.analysis.derive.stable import stabilised
from fusemodel.analysis.passes import Passes, passes
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import Apply, Cascade, Expr, Extent, Number, reads
from fusemodel.errors import InputError, unknown
from fusemodel.numerics.interpret import count_points

CANCELS = (
    "side condition: where a mean is far from 0 beside the spread, the powers multiplied out nearly cancel, and digits "
    "are lost in proportion to (mean / spread)^2."
)
Merge = Literal["running", "chunks"]
Candidate = tuple[Cascade, list[str], tuple[str, ...]]  # a cascade, the steps to it, and ranks that are sizes of tiles
Make = Callable[[], Candidate]


@dataclass(frozen=True)
class Derivation:
    """``cascade`` is the best found (the original where none is better), ``stages`` all that were found on the way,
    each better than the one before. ``steps`` are the identities applied; ``obstacles`` say, for a rank that is still
    traversed more than once, what stands in the way. ``points`` are those of all iteration spaces, at default extents.
    """

    cascade: Cascade
    stages: tuple[Cascade, ...]
    steps: tuple[str, ...]
    passes_before: Mapping[str, int]
    passes_after: Mapping[str, int]
    obstacles: tuple[str, ...]
    points_before: int
    points_after: int


@dataclass
class Search:
    check: Check
    merge: Merge
    stable: bool
    current: Cascade
    found: Passes
    stages: list[Cascade] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    spread: bool = False  # multiply powers of differences out at once
    shifts: bool = False  # whether a sum of such powers was left whole
    stuck: dict[str, list[str]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)  # ranks that were given split, and are so no more
    cancels: bool = False  # whether the current cascade loses digits where inputs are far from zero
    waiting: list[str] = field(default_factory=list)  # steps that make nothing better by themselves

    @property
    def counts(self) -> dict[str, int]:
        return self.found.passes

    def offer(self, make: Make, rank: str | None, *, fewer: bool = True, cancelling: bool = False) -> bool:
        """Take a candidate if it is legal, traverses the rank less often (unless not ``fewer``: no more often) and no
        other more, and computes the same; one that loses digits far from zero only if it may be ``cancelling``."""
        try:
            cascade, steps, new = make()
        except StuckError as reason:
            return self.refuse(rank if fewer else None, str(reason).removesuffix("."))
        except InputError as error:
            return self.refuse(rank, f"a candidate is not legal: {error}")
        found = passes(cascade, extents_of(cascade))
        counts = found.passes
        parts = set(self.current.parents)
        more = any(counts[r] > n for r, n in self.counts.items() if r in counts and r not in parts)
        if more or (rank and fewer and counts[rank] >= self.counts[rank]):
            return False
        if (wrong := self.check.same_numbers(cascade, new)) is not None:
            return self.refuse(rank, f"a candidate fails the numerical check: {wrong}")
        if self.check.cancels(cascade, new) and not self.cancels:
            if not cancelling:
                return self.refuse(rank, "what is multiplied out nearly cancels where the mean is far from zero")
            self.cancels, steps = True, [*steps, CANCELS]
        self.current, self.found = cascade, found
        self.stages.append(cascade)
        self.steps += self.waiting + steps
        self.waiting = []
        return True

    def refuse(self, rank: str | None, reason: str) -> bool:
        if rank and reason:
            self.stuck.setdefault(rank, []).append(f"{reason}.")
        return False

    def regroup(self) -> None:
        """Products of several tensors in an order that takes less work."""
        found = True
        while found:
            names = dict.fromkeys(e.name for e in self.current.einsums)
            found = any(self.offer(lambda n=n: self.without(n), None, fewer=False) for n in names)
            found = found or any(self.offer(lambda n=n: self.chunk(n), None, fewer=False) for n in names)

    def without(self, tensor: str) -> Candidate:
        work = regrouped(self.current, tensor)
        return assemble(self.current, work.out), work.steps, ()

    def chunk(self, tensor: str) -> Candidate:
        work = chunked(self.current, tensor)
        sizes = extents_of(self.current)
        (_, inner), early = work.parts[work.early], sizes[work.early]
        size = max(1, min(TILE // 4, early // 4))
        test = (
            {inner: max(1, extents_of(self.current, self.current.test)[work.early] // 3)} if self.current.test else {}
        )
        cascade = assemble(self.current, work.out, ranks=work.ranks(size), split=work.parts, test=test)
        points = [count_points(c, extents_of(c)) for c in (self.current, cascade)]
        if 2 * points[1] > points[0]:
            raise StuckError("chunks do not halve the work")
        return cascade, work.steps, (inner,)

    def settled(self, rank: str, after: int) -> frozenset[str]:
        """The summaries of the first few traversals."""
        done = self.found.tensors
        early = (n for n, t in self.current.tensors.items() if rank not in t.ranks and done.get(n, {}).get(rank))
        return frozenset(n for n in early if done[n][rank] <= after)

    def fiber(self, rank: str, after: int) -> Fiber:
        """A rank seen from the traversal after the first few."""
        return Fiber(self.current, rank, self.settled(rank, after))

    def factor(self, rank: str, after: int, *, spread: bool = False) -> Candidate:
        """Along a rank, or the inner part of one that was given split."""
        given = self.current.split.get(rank) if self.apart(rank) else None
        along = given[1] if given else rank
        cascade, steps = self.current, []
        with suppress(StuckError):
            cascade, steps = apart(cascade, along)
        work = factored(Fiber(cascade, along, self.settled(along, after)), spread=spread or self.spread)
        self.shifts |= work.shifts
        self.stuck[rank] = list(work.stuck)
        if not work.steps:
            raise StuckError("")
        return assemble(cascade, work.out), steps + work.steps, ()

    def apart(self, rank: str) -> bool:
        """Whether a rank was given split, and its parts are still used one without the other."""
        return rank in self.check.original.split and rank not in self.whole

    def both(self, rank: str, after: int, *, spread: bool = False) -> Candidate:
        """What waits taken out of reductions, and the rest with running values."""
        cascade, steps, _ = self.factor(rank, after, spread=spread)
        tiles, more, new = self.tile(Fiber(cascade, rank, self.settled(rank, after)))
        return tiles, steps + more, new

    def join(self) -> None:
        """Ranks that were given split, and whose parts are used together everywhere, as if they were whole."""
        for rank in self.check.original.split:
            if self.counts[rank] < 2:
                continue
            try:
                cascade, steps = joined(self.current, rank)
            except StuckError:
                continue
            found = passes(cascade, extents_of(cascade))
            if found.passes[rank] <= self.counts[rank]:
                self.current, self.found, self.waiting = cascade, found, [*self.waiting, *steps]
                self.whole.add(rank)

    def stabilise(self, rank: str) -> Candidate:
        """A maximum subtracted in every sum of exponentials, and tiles over which it runs."""
        work = stabilised(self.current, rank)
        cascade, steps, new = self.tile(Fiber(assemble(self.current, work.out), rank))
        return cascade, work.steps + steps, new

    def tile(self, fiber: Fiber) -> Candidate:
        rank, current = fiber.rank, fiber.cascade
        parts = None if self.apart(rank) else current.split.get(rank)
        work = tiled(fiber, parts, chunks=self.merge == "chunks")
        outer, inner = work.outer, work.inner
        if parts:
            new = () if rank in self.whole else (inner,)
            return assemble(current, work.out), work.steps, new
        sizes = extents_of(current)
        count: Expr = Apply("neg", (Apply("//", (Apply("neg", (Extent(rank),)), Extent(inner))),))
        ranks = {inner: Number(max(1, min(TILE, sizes[rank]))), outer: count}
        test = {}
        if current.test:
            test = {inner: max(1, extents_of(current, current.test)[rank] // 3)}
        cascade = assemble(current, work.out, ranks=ranks, split={rank: (outer, inner)}, test=test)
        return cascade, work.steps, (inner,)

    def tiles(self, only: str | None) -> list[str]:
        """Inner parts of ranks that were given split, whose tiles are independent of one another."""
        stepped = {r for t in self.current.tensors.values() for r in t.iterative}
        parts = (p for whole, p in self.check.original.split.items() if whole not in self.whole | stepped)
        return [inner for outer, inner in parts if outer not in stepped and only in (None, inner)]

    def reduce(self, rank: str) -> None:
        """Fewer passes over one rank: what waits for the first traversal, then what waits for later ones."""
        after: int | None = 0
        while after is not None:
            known = self.stuck.get(rank) if after else None
            found = self.counts[rank] > 1 and self.offer(lambda n=after: self.factor(rank, n), rank)
            if self.counts[rank] > 1:
                found |= self.offer(lambda n=after: self.tile(self.fiber(rank, n)), rank)
            if self.counts[rank] > 1 and not found:
                found = self.offer(lambda n=after: self.both(rank, n), rank)
            if self.counts[rank] > 1 and not found:
                found = self.offer(lambda n=after: self.factor(rank, n, spread=True), rank, cancelling=True)
            if self.counts[rank] > 1 and not found:
                found = self.offer(lambda n=after: self.both(rank, n, spread=True), rank, cancelling=True)
            self.stuck[rank] = known or self.stuck.get(rank, [])
            after = 0 if found else self.next_traversal(rank, after)
        if self.stable and rank not in self.current.split:
            self.offer(lambda: self.stabilise(rank), rank, fewer=False)

    def next_traversal(self, rank: str, after: int) -> int | None:
        """The next pass that completes something which a later one waits for."""
        done = self.found.tensors.values()
        return min((n for t in done if after < (n := t.get(rank, 0)) < self.counts[rank]), default=None)

    def obstacles(self) -> tuple[str, ...]:
        """For each rank still traversed more than once: outputs that hold it, else what no identity could take out."""
        result: list[str] = []
        why = self.found.why
        inner = [parts[1] for parts in self.check.original.split.values()]
        for rank, count in self.counts.items():
            if count < 2 or (rank in self.current.parents and rank not in inner):
                continue
            if rank in inner and rank not in self.stuck:
                result.append(
                    f"{rank}: it is traversed {count} times on chip, a tile at a time: {'; '.join(why[rank])}."
                )
                continue
            found = self.unreduced(rank)
            found = found or [f"{rank}: {reason}" for reason in self.stuck.get(rank, ())]
            result += found or [f"{rank}: no identity applies: {'; '.join(why[rank])}."]
        return tuple(dict.fromkeys(result))

    def unreduced(self, rank: str) -> list[str]:
        """Outputs that still hold the rank, and what they need the end of a traversal for."""
        family = {rank, *self.current.split.get(rank, ())}
        ended = _ended(self.current, rank)
        found = []
        for name in self.current.outputs:
            needs = _needs(self.current, name, family, ended)
            if needs and set(self.current.tensors[name].ranks) & family:
                found.append(
                    f"{name} is an output that still holds {rank} and needs {', '.join(needs)}, complete over {rank}: "
                    "consumed unreduced."
                )
        return found


def _ended(cascade: Cascade, rank: str) -> set[str]:
    """Tensors that descend from a reduction over a rank, or a part of it, and do not hold all of its elements."""
    family = {rank, *cascade.split.get(rank, ())}
    over = {e.name for e in cascade.einsums if set(reduced(cascade, e)) & family}
    read = [(e.name, {a.tensor for a in reads(e)}) for e in cascade.einsums]
    made = closure(lambda found: over | {name for name, tensors in read if tensors & found})
    parts = set(cascade.split.get(rank, ()))
    whole = {n for n, t in cascade.tensors.items() if rank in t.ranks or (parts and parts <= set(t.ranks))}
    return set(made - whole)


def _needs(cascade: Cascade, name: str, family: set[str], ended: set[str]) -> list[str]:
    """The tensors of ``ended`` that a tensor needs, through others that hold the rank."""
    found: dict[str, None] = {}
    seen, todo = {name}, [name]
    while todo:
        for e in cascade.definitions(todo.pop()):
            for a in reads(e):
                if a.tensor in ended:
                    found[a.tensor] = None
                elif a.tensor not in seen and set(cascade.tensors[a.tensor].ranks) & family:
                    seen.add(a.tensor)
                    todo.append(a.tensor)
    return list(found)


def _searched(cascade: Cascade, stable: bool, rank: str | None, merge: Merge, found: Passes, spread: bool) -> Search:
    search = Search(Check(cascade), merge, stable, cascade, found, spread=spread)
    search.join()
    ranks = [r for r in cascade.ranks if r not in cascade.parents and rank in (None, r)]
    stages = -1
    while stages != len(search.stages):  # what one rank waits for may cancel after another is done
        first, stages = stages < 0, len(search.stages)
        for r in (*ranks, *search.tiles(rank)):
            if search.counts[r] > 1 or (first and stable and search.counts[r] == 1):
                search.reduce(r)
    search.regroup()
    return search


def derive(cascade: Cascade, *, stable: bool = False, rank: str | None = None, merge: Merge = "running") -> Derivation:
    """An algebraically equal cascade that traverses fewer fibers more than once, if the identities reach one.

    ``stable`` also subtracts a running maximum in exponentials that have none; ``rank`` restricts the search to one
    rank; ``merge`` says how tiles come together: a running value, or ``chunks`` that know nothing of each other.
    """
    if rank is not None and rank not in cascade.ranks:
        raise unknown("rank", rank, cascade.ranks)
    if merge not in ("running", "chunks"):
        raise unknown("merge", str(merge), ("running", "chunks"))
    found = passes(cascade, extents_of(cascade))
    before = found.passes
    search = _searched(cascade, stable, rank, merge, found, False)
    if search.shifts:
        # running values along one rank can keep another from having them; powers multiplied out cannot
        other = _searched(cascade, stable, rank, merge, found, True)
        if sum(other.counts[r] for r in before) < sum(search.counts[r] for r in before):
            search = other
    named = [replace(c, name=f"{cascade.name}-derived") for c in search.stages]
    after = {r: search.counts[r] for r in before if r in search.counts}
    best = named[-1] if named else cascade
    points = [count_points(c, extents_of(c)) for c in (cascade, best)]
    return Derivation(best, tuple(named), tuple(search.steps), before, after, search.obstacles(), *points)
