"""Passes: how often every implementation of a cascade, as written, must traverse the fibers of each rank.

The rule (after Nayak et al., FuseMax, MICRO 2024, section III), for a rank R. An input that holds R is there in pass 1.
An Einsum that traverses R runs in the pass of its operands that hold R, or one later than the pass that completed any
operand without R that came from a reduction over R, whichever is later. A prefix of an iterative rank adds nothing, its
end does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fusemodel.cascade.graph import offset_from
from fusemodel.cascade.ir import (
    Access,
    Cascade,
    Einsum,
    Extent,
    Number,
    is_start,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
    reduction_op,
)
from fusemodel.cascade.plan import Compute, Plan, plan

_TRIED_STEPS = 6  # of a loop that makes passes in every step, before its growth is taken as steady


@dataclass(frozen=True, slots=True)
class Status:
    """Where a tensor stands with respect to one rank.

    ``at`` is the pass in which its elements are there, for a tensor that holds the rank; ``made`` the pass in which a
    summary of parts of the fiber is made; ``done`` the last pass whose end it waits for. Zero: none.
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
    split, or ranks that hold elements selected along it."""

    rank: str
    ways: tuple[frozenset[str], ...]

    def covered(self, ranks: Iterable[str]) -> bool:
        """Whether these ranks run over every element of the fiber (or of a selection of it)."""
        used = set(ranks)
        return any(way <= used for way in self.ways)

    def partly(self, ranks: Iterable[str]) -> set[str]:
        """Those of the ranks that run along the fiber or a part of it."""
        every = frozenset().union(*self.ways)
        return {r for r in ranks if r in every}


def passes(cascade: Cascade, extents: Mapping[str, int]) -> Passes:
    """Count the passes of a checked cascade over every rank. ``extents`` matters where a loop makes passes in each
    step."""
    counts: dict[str, int] = {}
    tensors: dict[str, dict[str, int]] = {}
    why: dict[str, list[str]] = {}
    outer = {parts[0]: whole for whole, parts in cascade.split.items()}
    for rank in cascade.ranks:
        if rank in outer:
            continue
        fiber = _fiber(cascade, rank)
        walk = _Walk(cascade, extents, fiber)
        walk.run(plan(cascade))
        names = [rank, *(o for o, whole in outer.items() if whole == rank)]
        for name in names:
            counts[name] = walk.last
            why[name] = list(walk.chain)
            for tensor, value in walk.by_tensor.items():
                tensors.setdefault(tensor, {})[name] = value
    order = list(cascade.ranks)
    return Passes(
        {r: counts[r] for r in order},
        {t: {r: v[r] for r in order if r in v} for t, v in tensors.items()},
        {r: why[r] for r in order},
    )  # fmt: skip


def _fiber(cascade: Cascade, rank: str) -> Fiber:
    return Fiber(rank, tuple(dict.fromkeys(_ways(cascade, rank, frozenset()))))


def _ways(cascade: Cascade, rank: str, seen: frozenset[str]) -> list[frozenset[str]]:
    """Sets of ranks that run over a rank together; ``seen`` are those this is asked for already."""
    if rank in seen:
        return []
    seen |= {rank}
    found = [frozenset({rank})]
    if parts := cascade.split.get(rank):
        outer, inner = (_ways(cascade, p, seen) for p in parts)
        found += [a | b for a in outer for b in inner]
    for einsum in cascade.einsums:
        s = einsum.selection
        if s and s.into and s.rank == rank:
            found += _ways(cascade, s.into, seen)
    return found


@dataclass
class _Walk:
    """Goes through the equations in an order in which they can be computed, loops unrolled as far as they differ."""

    cascade: Cascade
    extents: Mapping[str, int]
    fiber: Fiber
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
        return any(self._holds(a) for a in reads(einsum) if not self._is_plain(a))

    def _is_plain(self, access: Access) -> bool:
        return all(not isinstance(i, Access) for i in access.indices)

    def _holds(self, access: Access) -> bool:
        return self.fiber.covered(rank_values_of(access))

    def operand(self, einsum: Einsum, access: Access) -> tuple[Access, Status]:
        """What an access waits for, seen from the Einsum that reads it."""
        status = self.now.get(access.tensor, Status())
        tensor = self.cascade.tensors[access.tensor]
        whole = False
        for rank, index in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True):
            along = bool(self.fiber.partly([rank]))
            if rank in tensor.iterative:
                shift = offset_from(index, rank)
                if shift is not None and shift <= 0:
                    status = self.before.get(access.tensor, status) if not along else status
                elif along and isinstance(index, Extent):
                    whole = True
            elif along and not isinstance(index, Number) and not self.fiber.partly(rank_values(index)):
                whole = True  # read along another rank, in whatever order
        if self._holds(access) and status.at:
            return access, Status(at=status.at, chain=status.chain)
        if whole:
            end = max(status.at, status.made)
            return access, Status(made=end, done=max(end, status.done), chain=status.chain)
        return access, Status(made=status.made, done=status.done, chain=status.chain)

    def traversal(self, einsum: Einsum, found: list[tuple[Access, Status]]) -> tuple[int, tuple[str, ...]]:
        """The pass in which an Einsum traverses the fiber, and why it is no earlier."""
        at, chain = 1, ()
        for _, status in found:
            if status.at > at:
                at, chain = status.at, status.chain
        for access, status in found:
            if status.done and status.done + 1 > at:
                at = status.done + 1
                chain = (
                    *status.chain,
                    f"{einsum.name} traverses {self.fiber.rank} in pass {at}: it needs {access.tensor}, "
                    f"complete after pass {status.done}",
                )
        return at, chain

    def status(self, einsum: Einsum, traverses: bool, at: int, made: int, done: int, chain: tuple[str, ...]) -> Status:
        kept = set(self.cascade.full_ranks(einsum.name))
        along = self.fiber.partly(kept)
        if einsum.selection and self.fiber.partly([einsum.selection.rank]):
            return Status(done=max(at, made, done), chain=self._completed(einsum, max(at, made, done), chain))
        if traverses and self.fiber.covered(kept):
            return Status(at=at, chain=chain)
        if along:
            # a summary of parts of the fiber, one for each coordinate kept
            return Status(made=max(at, made), done=done, chain=chain)
        reduced = bool(self.fiber.partly(reduced_ranks(einsum)))
        if reduced:
            value = max(at, made, done)
            return Status(done=value, chain=self._completed(einsum, value, chain))
        return Status(done=done, chain=chain)

    def _completed(self, einsum: Einsum, value: int, chain: tuple[str, ...]) -> tuple[str, ...]:
        s = einsum.selection
        kind = s.op if s else reduction_op(einsum)
        return (*chain, f"{einsum.name} is complete after pass {value}: {kind} over {self.fiber.rank}")


def rank_values_of(access: Access) -> tuple[str, ...]:
    """Ranks whose coordinates stand in the indices of an access, those inside gathers included."""
    return tuple(dict.fromkeys(r for i in access.indices for r in rank_values(i)))


__all__ = ["Passes", "passes"]
