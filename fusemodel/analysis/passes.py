"""Passes: how often every implementation of a cascade, as written, must traverse the fibers of each rank.

The rule (after Nayak et al., FuseMax, MICRO 2024, section III), for a rank R. An input that holds R is there in pass 1.
An Einsum that traverses R runs in the pass of its operands that hold R, or one later than the pass that completed any
operand without R that came from a reduction over R, whichever is later. A prefix of an iterative rank used at its own
step or later adds nothing; its end does, and so does a prefix used before its step. What is read of no more than the
reader's own tile is no wait for the fiber, but one for the inner part of the rank, whose fiber the tile is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fusemodel.cascade.graph import offset_from
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    accesses,
    is_start,
    iteration_ranks,
    join_split,
    rank_values,
    reads,
    reduced_ranks,
    reduction_op,
)
from fusemodel.cascade.plan import Compute, Plan, plan
from fusemodel.model.domain import Conditions, Quotients, count, linear, regions

_TRIED_STEPS = 6  # of a loop that makes passes in every step, before its growth is taken as steady


@dataclass(frozen=True, slots=True)
class Status:
    """Where a tensor stands with respect to one rank.

    ``at`` is the pass in which its elements are there, for a tensor that holds the rank; ``made`` the pass in which
    summaries of parts of the fiber, or single elements of it, are made; ``done`` the last pass whose end it waits for.
    Zero: none.
    """

    at: int = 0
    made: int = 0
    done: int = 0
    chain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passes:
    """Passes by rank and by (tensor, rank), and for each rank the chain of Einsums that forces the last one."""

    passes: dict[str, int]
    tensors: dict[str, dict[str, int]]
    why: dict[str, list[str]]


@dataclass(frozen=True)
class Fiber:
    """A rank as a fiber. ``ways`` are the sets of ranks that run over it together: the rank itself, both parts of a
    split, a rank whose inner part it is, or ranks that hold elements selected along it. ``tiles`` are ranks that tell
    tiles of the fiber apart; if it is itself a tile of a longer one, ``others`` tell it from the other tiles."""

    rank: str
    ways: tuple[frozenset[str], ...]
    tiles: frozenset[str]
    others: frozenset[str]

    def covered(self, ranks: Iterable[str]) -> bool:
        """Whether these ranks run over every element of the fiber (or of a selection of it)."""
        used = set(ranks)
        return any(way <= used for way in self.ways)

    def partly(self, ranks: Iterable[str]) -> set[str]:
        """Those of the ranks that run along the fiber or a part of it."""
        every = frozenset().union(*self.ways)
        return {r for r in ranks if r in every}

    def in_tile(self, ranks: Iterable[str]) -> bool:
        """Whether what these ranks say of a place on the fiber leaves no more than a tile of it."""
        return self.covered(ranks) or not self.tiles.isdisjoint(ranks)


def passes(cascade: Cascade, extents: Mapping[str, int]) -> Passes:
    """Count the passes of a checked cascade over every rank. ``extents`` matters where a loop makes passes in each
    step."""
    counts: dict[str, int] = {}
    tensors: dict[str, dict[str, int]] = {}
    why: dict[str, list[str]] = {}
    outer = {parts[0]: whole for whole, parts in cascade.split.items()}
    order, steps = plan(cascade), Steps.of(cascade, extents)
    for rank in cascade.ranks:
        if rank in outer:
            continue
        walk = _Walk(cascade, extents, _fiber(cascade, rank), steps)
        walk.run(order)
        names = [rank, *(o for o, whole in outer.items() if whole == rank)]
        for name in names:
            counts[name] = walk.last
            why[name] = list(walk.chain)
            for tensor, value in walk.by_tensor.items():
                tensors.setdefault(tensor, {})[name] = value
    ranks = list(cascade.ranks)
    return Passes(
        {r: counts[r] for r in ranks},
        {t: {r: v[r] for r in ranks if r in v} for t, v in tensors.items()},
        {r: why[r] for r in ranks},
    )  # fmt: skip


def _fiber(cascade: Cascade, rank: str) -> Fiber:
    tile_of = {inner: (whole, outer) for whole, (outer, inner) in cascade.split.items()}
    longer, others = rank, set()
    while longer in tile_of:
        longer, other = tile_of[longer]
        others.add(other)
    ways = dict.fromkeys(_ways(cascade, rank, frozenset()))
    return Fiber(rank, tuple(ways), frozenset(_tiles(cascade, rank, frozenset())), frozenset(others))


def _ways(cascade: Cascade, rank: str, seen: frozenset[str]) -> list[frozenset[str]]:
    """Sets of ranks that run over a rank together; ``seen`` are those this is asked for already."""
    if rank in seen:
        return []
    seen |= {rank}
    found = [frozenset({rank})]
    if parts := cascade.split.get(rank):
        outer, inner = (_ways(cascade, p, seen) for p in parts)
        found += [a | b for a in outer for b in inner]
    longer = [whole for whole, parts in cascade.split.items() if rank == parts[1]]
    for other in (*_selected(cascade, rank), *longer):
        found += _ways(cascade, other, seen)
    return found


def _tiles(cascade: Cascade, rank: str, seen: frozenset[str]) -> set[str]:
    """Ranks whose coordinate leaves a tile of a rank, or of what is selected along it."""
    if rank in seen:
        return set()
    outer = cascade.split[rank][:1] if rank in cascade.split else ()
    inside = (_tiles(cascade, other, seen | {rank}) for other in (*outer, *_selected(cascade, rank)))
    return set(outer).union(*inside)


def _selected(cascade: Cascade, rank: str) -> list[str]:
    """Ranks of elements selected along a rank."""
    chosen = (e.selection for e in cascade.einsums)
    return [s.into for s in chosen if s and s.into and s.rank == rank]


@dataclass(frozen=True)
class Steps:
    """Where the points of Einsums stand on iterative ranks."""

    cascade: Cascade
    extents: Mapping[str, int]
    conditions: Mapping[str, tuple[Expr, ...]]

    @classmethod
    def of(cls, cascade: Cascade, extents: Mapping[str, int]) -> Steps:
        main = [e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])]
        return cls(cascade, extents, Conditions(cascade, main).of)

    def reached(self, einsum: Einsum, rank: str, index: Expr) -> set[str]:
        """The ranks that say where a point stands along an iterative rank, of its tile at least, if the prefix
        ``index`` that it reads is there by then; else none. A prefix that is ahead by what does not depend on the step
        is a window, and there; the smaller of several is there if any one is."""
        if isinstance(index, Apply) and index.op == "min":
            return next((found for i in index.args if (found := self.reached(einsum, rank, i))), set())
        ranks = iteration_ranks(einsum)
        exact = self.own(rank, ranks)
        for own in (*([exact] if exact else ()), *self.tile_ends(rank, ranks)):
            quotients = Quotients(self.extents, einsum.name)
            ahead = linear(Apply("-", (index, own)), self.extents, quotients)
            if ahead is None:
                continue
            if ahead.coefficients.keys() <= set(ranks) - set(rank_values(own)):
                return self.places(own)
            beyond = Apply("<=", (Apply("+", (own, Number(2))), index))
            pieces, _ = regions((*self.conditions.get(einsum.name, ()), beyond), self.extents, quotients)
            if not any(count(piece, (), quotients.every) for piece in pieces):
                return self.places(own)
        return set()

    def own(self, rank: str, ranks: Sequence[str]) -> Expr | None:
        """The coordinate of a point along a rank."""
        if rank in ranks:
            return RankValue(rank)
        if parts := self.cascade.split.get(rank):
            outer, inner = (self.own(p, ranks) for p in parts)
            return None if outer is None or inner is None else join_split(outer, parts[1], inner)
        whole = self.cascade.parents.get(rank)
        if whole is None or whole not in ranks:
            return None
        outer, inner = self.cascade.split[whole]
        return Apply("//" if rank == outer else "%", (RankValue(whole), Extent(inner)))

    def tile_ends(self, rank: str, ranks: Sequence[str]) -> list[Expr]:
        """The coordinate of the last point of its tile, of the tile of that, and so on."""
        if rank not in self.cascade.split:
            return []
        outer, inner = self.cascade.split[rank]
        tile = self.own(outer, ranks)
        tiles = [*([tile] if tile else ()), *self.tile_ends(outer, ranks)]
        return [join_split(t, inner, Apply("-", (Extent(inner), Number(1)))) for t in tiles]

    def places(self, index: Expr) -> set[str]:
        """The ranks in an index; ``m // M0`` and ``m % M0`` are coordinates of the parts of a split rank."""
        match index:
            case RankValue(rank):
                return {rank}
            case Apply("//" | "%" as op, (whole, Extent(size))):
                parts = ((r, self.cascade.split.get(r, ("", ""))) for r in self.places(whole))
                return {(outer if op == "//" else size) if inner == size else r for r, (outer, inner) in parts}
            case Apply(_, inside) | Access(_, inside):
                return {r for x in inside for r in self.places(x)}
        return set()


@dataclass
class _Walk:
    """Goes through the equations in an order in which they can be computed, loops unrolled as far as they differ."""

    cascade: Cascade
    extents: Mapping[str, int]
    fiber: Fiber
    steps: Steps
    now: dict[str, Status] = field(default_factory=dict)
    before: dict[str, Status] = field(default_factory=dict)  # iterative tensors, one step earlier
    by_tensor: dict[str, int] = field(default_factory=dict)
    last: int = 0
    chain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.cascade.inputs:
            held = self.fiber.covered(self.cascade.full_ranks(name))
            self.now[name] = Status(at=1 if held else 0)
            if held:
                self.by_tensor[name] = 1

    def run(self, items: Iterable[Plan]) -> None:
        for item in items:
            if isinstance(item, Compute):
                self.visit(self.cascade.explicit[item.equation])
            elif self.fiber.partly([item.rank]):
                self.run(item.body)  # steps along the fiber itself are one traversal
                self.run(item.body)  # again, for what the step before left
            else:
                self.loop(item.rank, item.body)

    def loop(self, rank: str, body: tuple[Plan, ...]) -> None:
        """Steps of a loop along another rank; passes made in every step are multiplied, not unrolled."""
        total = self.extents[rank]
        history: list[dict[str, Status]] = []
        for step in range(total):
            self.run(body)
            self.before = dict(self.now)
            history.append(dict(self.now))
            if step >= _TRIED_STEPS - 1:
                break
        left = total - len(history)
        if left <= 0:
            return
        last, previous = history[-1], history[-2]
        for name, status in last.items():
            old = previous.get(name, status)
            grown = [left * (b - a) for a, b in ((old.at, status.at), (old.made, status.made), (old.done, status.done))]
            if any(grown):
                chain = (*status.chain, f"and so on for {left} more steps of {rank}")
                self.now[name] = Status(
                    status.at + grown[0], status.made + grown[1], status.done + grown[2], chain
                )  # fmt: skip
                self.note(name, max(self.now[name].at, self.now[name].made, self.now[name].done), chain)

    def note(self, name: str, value: int, chain: tuple[str, ...]) -> None:
        if value:
            self.by_tensor[name] = max(value, self.by_tensor.get(name, 0))
        if value > self.last:
            self.last, self.chain = value, chain

    def visit(self, einsum: Einsum) -> None:
        tensor = self.cascade.tensors[einsum.name]
        if is_start(einsum, tensor):
            self.before[einsum.name] = self.status_of_start(einsum)
            self.now.setdefault(einsum.name, self.before[einsum.name])
            return
        ranks = iteration_ranks(einsum)
        traverses = self.fiber.covered(ranks) or self._gathers(einsum)
        found = [self.operand(einsum, a) for a in reads(einsum)]
        at, chain = self.traversal(einsum, found) if traverses else (0, ())
        needed = max(found, key=lambda f: f[1].done, default=None)
        done, why = (needed[1].done, needed[1].chain) if needed else (0, ())
        made = max((f[1].made for f in found), default=0)
        status = self.status(einsum, traverses, at, made, done, chain or why)
        if tensor.iterative:
            old = self.now.get(einsum.name)
            if old is not None and not self.fiber.partly(tensor.iterative):
                self.before[einsum.name] = old
        self.now[einsum.name] = status
        self.note(einsum.name, at if traverses else max(status.at, status.made, status.done), status.chain)
        if traverses and at > self.last:
            self.last, self.chain = at, chain

    def status_of_start(self, einsum: Einsum) -> Status:
        found = [self.operand(einsum, a)[1] for a in reads(einsum)]
        return Status(0, max((f.made for f in found), default=0), max((f.done for f in found), default=0))

    def _gathers(self, einsum: Einsum) -> bool:
        """Whether the Einsum reads selected elements of the fiber."""
        return any(self._holds(a) or self._picks(a) for a in reads(einsum) if not self._is_plain(a))

    def _picks(self, access: Access) -> bool:
        """Whether it reads an element of the fiber that is only known when all of the fiber was seen."""
        ranks = self.cascade.full_ranks(access.tensor)
        return any(
            bool(self.fiber.partly([rank])) and any(self.now.get(a.tensor, Status()).done for a in accesses(index))
            for rank, index in zip(ranks, access.indices, strict=True)
        )

    def _is_plain(self, access: Access) -> bool:
        return all(not isinstance(i, Access) for i in access.indices)

    def _holds(self, access: Access) -> bool:
        return self.fiber.covered(rank_values_of(access))

    def operand(self, einsum: Einsum, access: Access) -> tuple[Access, Status]:
        """What an access waits for, seen from the Einsum that reads it."""
        status = self.now.get(access.tensor, Status())
        tensor = self.cascade.tensors[access.tensor]
        place: set[str] = set()  # ranks of the fiber that say where the Einsum reads
        elsewhere = False  # somewhere that no rank of the fiber tells
        for rank, index in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True):
            along = bool(self.fiber.partly([rank]))
            fixed = not rank_values(index)
            if rank in tensor.iterative and not along:
                shift = offset_from(index, rank)
                if shift is not None and shift <= 0:
                    # what other tiles left is there before this one is traversed
                    status = Status() if rank in self.fiber.others else self.before.get(access.tensor, status)
            elif rank in tensor.iterative and not isinstance(index, Number):
                found = self.fiber.partly(self.steps.reached(einsum, rank, index)) if not fixed else set()
                place |= found
                elsewhere |= not found
            elif along and not fixed:
                found = self.steps.places(index)
                place |= self.fiber.partly(found)
                elsewhere |= self.fiber.partly(found) != found  # along another rank, in whatever order
        if status.at and self.fiber.covered(place):
            return access, Status(at=status.at, chain=status.chain)
        there = place or elsewhere or status.at > 1  # an element of what is there from the start is no traversal
        end = max(status.at if there else 0, status.made)
        if elsewhere and not self.fiber.in_tile(place):
            return access, Status(made=end, done=max(end, status.done), chain=status.chain)
        return access, Status(made=end, done=status.done, chain=status.chain)

    def traversal(self, einsum: Einsum, found: list[tuple[Access, Status]]) -> tuple[int, tuple[str, ...]]:
        """The pass in which an Einsum traverses the fiber, and why it is no earlier."""
        at, chain = 1, ()
        for _, status in found:
            if (there := max(status.at, status.made)) > at:
                at, chain = there, status.chain
        for access, status in sorted(found, key=lambda f: -len(f[1].chain)):  # of equals, the one that says why
            if status.done and status.done + 1 > at:
                at = status.done + 1
                chain = (
                    *status.chain,
                    f"{einsum.name} traverses {self.fiber.rank} in pass {at}: it needs {access.tensor}, "
                    f"complete after pass {status.done}",
                )
        return at, chain

    def status(self, einsum: Einsum, traverses: bool, at: int, made: int, done: int, chain: tuple[str, ...]) -> Status:
        s = einsum.selection
        kept = [r for r in self.cascade.full_ranks(einsum.name) if not (s and s.into == r)]
        if traverses and self.fiber.covered(kept):
            return Status(at=at, chain=chain)
        if self.fiber.in_tile(kept):
            # a summary of parts of the fiber, one for each coordinate kept
            return Status(made=max(at, made), done=done, chain=chain)
        if self.fiber.partly(reduced_ranks(einsum)):
            value = max(at, made, done)
            return Status(done=value, chain=self._completed(einsum, value, chain))
        return Status(made=made, done=done, chain=chain)

    def _completed(self, einsum: Einsum, value: int, chain: tuple[str, ...]) -> tuple[str, ...]:
        s = einsum.selection
        kind = s.op if s else reduction_op(einsum)
        return (*chain, f"{einsum.name} is complete after pass {value}: {kind} over {self.fiber.rank}")


def rank_values_of(access: Access) -> tuple[str, ...]:
    """Ranks whose coordinates stand in the indices of an access, those inside gathers included."""
    return tuple(dict.fromkeys(r for i in access.indices for r in rank_values(i)))


__all__ = ["Passes", "passes"]
