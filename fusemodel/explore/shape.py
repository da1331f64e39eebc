"""The frame of a mapping: which loops Einsums share, how ranks are tiled, and where each Einsum runs.

What is kept where, and how large the middle tiles are, is left open for a search (:mod:`fusemodel.explore.auto`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod

from fusemodel.arch import Architecture
from fusemodel.arch.spec import Unit, find_op
from fusemodel.cascade.ir import Cascade, Einsum, RankValue, iteration_ranks, rank_values, reads, reduced_ranks
from fusemodel.cascade.work import work_of
from fusemodel.errors import InputError, Where
from fusemodel.model.tiles import divisors

_HEAVY = 0.05  # of the points of a group: Einsums with fewer do not say which loops are worth sharing
_SPREAD_LEAVES = 6  # the longest leaves of an Einsum are those considered for its unit's dimensions


@dataclass(frozen=True)
class Spread:
    """An Einsum on a unit: the leaves along each dimension, and the cycles of one step of the shared loops."""

    unit: str
    spatial: Mapping[str, tuple[str, ...]]
    cycles: float


@dataclass(frozen=True)
class Shape:
    """Einsums in order with the loops they share: ``outer`` outermost first, then ``ranks`` in an order to be found.
    ``tiles`` has the size of the inner part of those ranks that are tiled in three, ``halves`` of those that are not
    shared and tiled in two."""

    members: tuple[str, ...]
    outer: tuple[str, ...]
    ranks: tuple[str, ...]
    tiles: Mapping[str, int]
    halves: Mapping[str, int]
    spreads: Mapping[str, Spread]

    def parts(self, rank: str) -> tuple[str, str, str]:
        return f"{rank}_2", f"{rank}_1", f"{rank}_0"

    def loops(self, order: Sequence[str]) -> list[str]:
        """Shared loops for an order of ``ranks``: outer parts first, the middle parts inside them all."""
        middle = [self.parts(r)[1] for r in order if r in self.tiles]
        return [*self.outer, *(self.parts(r)[0] if r in self.tiles else r for r in order), *middle]


def leaves_of(einsum: Einsum, cascade: Cascade) -> tuple[str, ...]:
    """The ranks an Einsum iterates, parts for a rank that the cascade splits."""
    return tuple(dict.fromkeys(x for r in iteration_ranks(einsum) for x in cascade.split.get(r, (r,))))


def shape_of(
    cascade: Cascade, arch: Architecture, einsums: Mapping[str, Einsum], members: Sequence[str],
    extents: Mapping[str, int], widest: int,
) -> Shape:  # fmt: skip
    """The frame for some Einsums of a cascade, given in an order in which each comes after those it reads; inner tiles
    are at most ``widest``."""
    leaves = {n: leaves_of(einsums[n], cascade) for n in members}
    shared = _shareable(cascade, einsums, members, leaves)
    points = {n: prod(extents[x] for x in leaves[n]) for n in members}
    heavy = [n for n in members if points[n] >= _HEAVY * max(points.values())]
    if len(members) == 1:
        shared -= {x for r in reduced_ranks(einsums[members[0]]) for x in cascade.split.get(r, (r,))}
    shared = {x for x in shared if extents[x] > 1 and all(x in leaves[n] for n in heavy)}
    iterative = {x for n in members for r in cascade.tensors[n].iterative for x in cascade.split.get(r, (r,))}
    tiles, ranks = {}, []
    for rank in sorted(shared - set(cascade.batch), key=lambda r: (r in iterative, -extents[r], r)):
        if rank in iterative or not _tileable(cascade, rank):
            ranks.append(rank)
        elif extents[rank] > widest and (size := _inner(extents[rank], widest)):
            tiles[rank] = size
            ranks.append(rank)
    outer = tuple(r for r in cascade.batch if r in shared)
    halves = {
        r: size
        for r in sorted({x for n in members for x in leaves[n]} - shared)
        if extents[r] > widest and _tileable(cascade, r) and (size := _inner(extents[r], widest))
    }
    shape = Shape(tuple(members), outer, tuple(ranks), tiles, halves, {})
    inner = {**tiles, **halves}
    fixed = {*outer, *(r for r in ranks if r not in tiles)}
    free = {
        n: {shape.parts(x)[2] if x in inner else x: inner.get(x, extents[x]) for x in leaves[n] if x not in fixed}
        for n in members
    }
    turns = {
        n: prod(extents[x] if x in fixed else extents[x] // inner.get(x, extents[x]) for x in leaves[n])
        for n in members
    }
    return replace(shape, spreads=_assigned(arch, cascade, einsums, free, turns, inner))


def _tileable(cascade: Cascade, rank: str) -> bool:
    """A part of a split rank is used with the other part; dividing it again would lose that."""
    return rank not in cascade.parents


def _inner(extent: int, widest: int) -> int | None:
    """The longest tile that divides an extent and does not exceed the widest unit; None where it would be short."""
    size = next(d for d in divisors(extent) if d <= widest)
    return size if 4 * size >= widest else None


def _shareable(
    cascade: Cascade, einsums: Mapping[str, Einsum], members: Sequence[str], leaves: Mapping[str, tuple[str, ...]]
) -> set[str]:
    """The leaves that may be loops around all members: nothing in a step needs what other steps make."""
    after: dict[str, set[str]] = {}
    barred: set[str] = set()
    for name in members:
        waits: set[str] = set()
        for access in reads(einsums[name]):
            made = access.tensor
            if made not in leaves or made == name:
                continue
            waits |= after.get(made, set())
            waits |= {x for r in reduced_ranks(einsums[made]) for x in cascade.split.get(r, (r,))}
            tensor, ranks = cascade.tensors[made], cascade.full_ranks(made)
            for rank, index, written in zip(ranks, access.indices, einsums[made].target.indices, strict=True):
                parts = set(cascade.split.get(rank, (rank,)))
                if rank not in tensor.iterative:
                    barred |= set() if index == written else parts
                elif rank not in rank_values(index):
                    waits |= parts
        barred |= waits & set(leaves[name])
        after[name] = waits
        target = einsums[name].target
        for rank, index in zip(cascade.full_ranks(name), target.indices, strict=True):
            if not isinstance(index, RankValue) and rank not in cascade.tensors[name].iterative:
                barred |= set(cascade.split.get(rank, (rank,)))
    return {x for n in members for x in leaves[n]} - barred


def _assigned(
    arch: Architecture, cascade: Cascade, einsums: Mapping[str, Einsum], free: Mapping[str, Mapping[str, int]],
    turns: Mapping[str, int], inner: Mapping[str, int],
) -> dict[str, Spread]:  # fmt: skip
    """A unit for each Einsum such that the busiest unit is done soonest: longest first, then single moves. ``free`` has
    the leaves that may be spread, ``turns`` how often all of them run."""
    options: dict[str, dict[str, Spread]] = {}
    for n in free:
        reduced = {x for r in reduced_ranks(einsums[n]) for x in cascade.split.get(r, (r,))}
        reduced = {f"{x}_0" if x in inner else x for x in reduced}
        found = {u: s for u, unit in arch.units.items() if (s := _spread(u, unit, einsums[n], free[n], reduced))}
        if not found:
            work = work_of(einsums[n])
            missing = [o for o in (*work.per_point, *work.per_output)
                       if all(find_op(u, o) is None for u in arch.units.values())]  # fmt: skip
            raise InputError(
                f"no unit of {arch.name!r} can compute {n!r}", einsums[n].at or Where(cascade.file),
                expected=f"a unit with {', '.join(missing or ['all of its operations'])}",
            )  # fmt: skip
        options[n] = found
    busy = dict.fromkeys(arch.units, 0.0)
    chosen: dict[str, Spread] = {}

    def time(n: str, unit: str) -> float:
        return options[n][unit].cycles * turns[n]

    for n in sorted(free, key=lambda n: -min(time(n, u) for u in options[n])):
        unit = min(options[n], key=lambda u: (max(busy[u] + time(n, u), *busy.values()), time(n, u)))
        busy[unit] += time(n, unit)
        chosen[n] = options[n][unit]
    improved = True
    while improved:
        improved = False
        for n in free:
            here = chosen[n].unit
            for there in options[n]:
                after = {**busy, here: busy[here] - time(n, here)}
                after[there] += time(n, there)
                if there != here and max(after.values()) < max(busy.values()) * (1 - 1e-9):
                    busy, chosen[n], improved = after, options[n][there], True
                    break
    return chosen


def _spread(name: str, unit: Unit, einsum: Einsum, free: Mapping[str, int], reduced: set[str]) -> Spread | None:
    """The way to lay an Einsum's leaves over a unit that takes the fewest cycles; None if the unit lacks an
    operation."""
    work = work_of(einsum)
    point = [find_op(unit, o) for o in work.per_point]
    if any(o is None for o in (*point, *(find_op(unit, o) for o in work.per_output))):
        return None
    places = _laid(tuple(sorted(free.items(), key=lambda x: (-x[1], x[0]))[:_SPREAD_LEAVES]),
                   tuple(unit.shape.items()), unit.reduce, frozenset(reduced))  # fmt: skip
    cycles = sum(o.cycles for o in point if o)
    rest = prod(n for x, n in free.items() if not any(x in xs for xs in places.values()))
    folds = prod(-(-prod(free[x] for x in xs) // unit.shape[d]) for d, xs in places.items())
    return Spread(name, {d: xs for d, xs in places.items() if xs}, cycles * rest * folds)


@cache
def _laid(
    leaves: tuple[tuple[str, int], ...], shape: tuple[tuple[str, int], ...], reduce: frozenset[str],
    reduced: frozenset[str],
) -> dict[str, tuple[str, ...]]:  # fmt: skip
    """Leaves by dimension: the fewest cycles, then the fewest leaves spread."""
    best: dict[str, tuple[str, ...]] = {}
    least: tuple[float, int] = (float("inf"), 0)
    dims = [d for d, _ in shape]
    choices = [[None, *(d for d in dims if x not in reduced or d in reduce)] for x, _ in leaves]
    for choice in product(*choices):
        placed = {d: tuple(x for (x, _), c in zip(leaves, choice, strict=True) if c == d) for d in dims}
        cycles = prod(n for (_, n), c in zip(leaves, choice, strict=True) if c is None)
        for d, length in shape:
            cycles *= -(-prod(n for (_, n), c in zip(leaves, choice, strict=True) if c == d) // length)
        score = (cycles, sum(map(len, placed.values())))
        if score < least:
            best, least = placed, score
    return best
