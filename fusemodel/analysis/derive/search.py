"""The search: identities tried rank by rank, each result checked, kept where it traverses some fiber less often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fusemodel.analysis.derive.causal import chunked
from fusemodel.analysis.derive.chain import regrouped
from fusemodel.analysis.derive.check import same_numbers
from fusemodel.analysis.derive.emit import assemble
from fusemodel.analysis.derive.factor import factored
from fusemodel.analysis.derive.fiber import StuckError
from fusemodel.analysis.derive.running import TILE, tiled
from fusemodel.analysis.derive.stable import stabilised
from fusemodel.analysis.passes import passes
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import Apply, Cascade, Expr, Extent, Number, reads, reduced_ranks
from fusemodel.errors import InputError, unknown
from fusemodel.numerics.interpret import count_points

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
    original: Cascade
    merge: Merge
    stable: bool
    current: Cascade
    counts: dict[str, int]
    stages: list[Cascade] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    stuck: dict[str, list[str]] = field(default_factory=dict)

    def offer(self, make: Make, rank: str | None, *, fewer: bool = True) -> bool:
        """Take a candidate if it is legal, traverses the rank less often (unless not ``fewer``: no more often) and no
        other more, and computes the same."""
        try:
            cascade, steps, new = make()
        except StuckError as reason:
            return self.refuse(rank if fewer else None, str(reason).removesuffix("."))
        except InputError as error:
            return self.refuse(rank, f"a candidate is not legal: {error}")
        counts = passes(cascade, extents_of(cascade)).passes
        parts = set(self.current.parents)
        more = any(counts[r] > n for r, n in self.counts.items() if r in counts and r not in parts)
        if more or (rank and fewer and counts[rank] >= self.counts[rank]):
            return False
        if (wrong := same_numbers(self.original, cascade, new)) is not None:
            return self.refuse(rank, f"a candidate fails the numerical check: {wrong}")
        self.current, self.counts = cascade, counts
        self.stages.append(cascade)
        self.steps += steps
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

    def factor(self, rank: str, at: str) -> Candidate:
        """Along ``at``, which is ``rank`` or the inner part of it."""
        work = factored(self.current, at)
        self.stuck[rank] = list(work.stuck)
        return assemble(self.current, work.out), work.steps, ()

    def stabilise(self, rank: str) -> Candidate:
        """A maximum subtracted in every sum of exponentials, and tiles over which it runs."""
        work = stabilised(self.current, rank)
        cascade, steps, new = self.tile(rank, assemble(self.current, work.out))
        return cascade, work.steps + steps, new

    def tile(self, rank: str, start: Cascade | None = None) -> Candidate:
        current = start or self.current
        work = tiled(current, rank, chunks=self.merge == "chunks")
        sizes = extents_of(current)
        outer, inner = work.outer, work.inner
        count: Expr = Apply("neg", (Apply("//", (Apply("neg", (Extent(rank),)), Extent(inner))),))
        ranks = {inner: Number(max(1, min(TILE, sizes[rank]))), outer: count}
        test = {}
        if current.test:
            test = {inner: max(1, extents_of(current, current.test)[rank] // 3)}
        cascade = assemble(current, work.out, ranks=ranks, split={rank: (outer, inner)}, test=test)
        return cascade, work.steps, (inner,)

    def reduce(self, rank: str) -> None:
        """Fewer passes over one rank."""
        inner = self.current.split[rank][1] if rank in self.current.split else rank
        if self.counts[rank] > 1:
            self.offer(lambda: self.factor(rank, inner), rank)
        if self.counts[rank] > 1 and rank not in self.current.split:
            self.offer(lambda: self.tile(rank), rank)
        if self.stable and rank not in self.current.split:
            self.offer(lambda: self.stabilise(rank), rank, fewer=False)

    def obstacles(self) -> tuple[str, ...]:
        """For each rank still traversed more than once: outputs that hold it, else what no identity could take out."""
        result: list[str] = []
        why = passes(self.current, extents_of(self.current)).why
        for rank, count in self.counts.items():
            if count < 2 or rank in self.current.parents:
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
    made: set[str] = set()
    for _ in cascade.einsums:
        for e in cascade.einsums:
            if set(reduced_ranks(e)) & family or any(a.tensor in made for a in reads(e)):
                made.add(e.name)
    parts = set(cascade.split.get(rank, ()))
    whole = {n for n, t in cascade.tensors.items() if rank in t.ranks or (parts and parts <= set(t.ranks))}
    return made - whole


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


def derive(cascade: Cascade, *, stable: bool = False, rank: str | None = None, merge: Merge = "running") -> Derivation:
    """An algebraically equal cascade that traverses fewer fibers more than once, if the identities reach one.

    ``stable`` also subtracts a running maximum in exponentials that have none; ``rank`` restricts the search to one
    rank; ``merge`` says how tiles come together: a running value, or ``chunks`` that know nothing of each other.
    """
    if rank is not None and rank not in cascade.ranks:
        raise unknown("rank", rank, cascade.ranks)
    if merge not in ("running", "chunks"):
        raise unknown("merge", str(merge), ("running", "chunks"))
    before = passes(cascade, extents_of(cascade)).passes
    search = Search(cascade, merge, stable, cascade, dict(before))
    for r in [rank] if rank else [r for r in cascade.ranks if r not in cascade.parents]:
        if search.counts[r] > 1 or (stable and search.counts[r] == 1):
            search.reduce(r)
    search.regroup()
    named = [replace(c, name=f"{cascade.name}-derived") for c in search.stages]
    after = {r: search.counts[r] for r in before if r in search.counts}
    best = named[-1] if named else cascade
    points = [count_points(c, extents_of(c)) for c in (cascade, best)]
    return Derivation(best, tuple(named), tuple(search.steps), before, after, search.obstacles(), *points)
