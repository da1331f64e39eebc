"""The frame of a mapping: which loops Einsums share, how ranks are tiled, and where each Einsum runs.

What is kept where, and how large the middle tiles are, is left open for a search (:mod:`fusemodel.explore.mapper`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod

from fusemodel.arch import Architecture
from fusemodel.arch.spec import Unit, find_op
from fusemodel.cascade.ir import Cascade, Einsum, RankValue, iteration_ranks, rank_values, reads, reduced_ranks
from fusemodel.cascade.work import work_of
from fusemodel.errors import InputError, Where
from fusemodel.explore.layout import Problem, lay_out
from fusemodel.model.tiles import divisors

_COMPARED = 256  # partial assignments that one is compared with
_HEAVY = 0.05  # of the points of a group: Einsums with fewer do not say which loops are worth sharing


@dataclass(frozen=True)
class Spread:
    """An Einsum on a unit: the leaves along each dimension, its own loops, and the cycles of one step of the shared
    loops."""

    unit: str
    spatial: Mapping[str, tuple[str, ...]]
    loops: tuple[str, ...]
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
    cycles: float  # of the busiest unit, every point being present

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
    extents: Mapping[str, int], widest: int, *, roomy: bool = False,
) -> Shape:  # fmt: skip
    """The frame for some Einsums of a cascade, given in an order in which each comes after those it reads; inner tiles
    of shared ranks are at most ``widest``. ``roomy``: lay Einsums out as if registers held whatever is spread."""
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
    longest = max(n for u in arch.units.values() for n in u.shape.values())
    halves = {
        r: size
        for r in sorted({x for n in members for x in leaves[n]} - shared)
        if extents[r] > longest and _tileable(cascade, r) and (size := _inner(extents[r], longest))
    }
    shape = Shape(tuple(members), outer, tuple(ranks), tiles, halves, {}, 0.0)
    inner = {**tiles, **halves}
    fixed = {*outer, *(r for r in ranks if r not in tiles)}
    turns = {n: prod(extents[x] for x in leaves[n] if x in fixed) for n in members}
    turns = {n: t * prod(extents[x] // tiles[x] for x in leaves[n] if x in tiles) for n, t in turns.items()}
    local = {n: _Local.of(shape, leaves[n], fixed, inner, extents) for n in members}
    options: dict[str, dict[str, Spread]] = {}
    for n in members:
        found = {
            u: s for u, unit in arch.units.items() if (s := _spread(unit, u, einsums[n], cascade, local[n], roomy))
        }
        if not found:
            work = work_of(einsums[n])
            missing = [o for o in (*work.per_point, *work.per_output)
                       if all(find_op(u, o) is None for u in arch.units.values())]  # fmt: skip
            raise InputError(
                f"no unit of {arch.name!r} can compute {n!r}", einsums[n].at or Where(cascade.file),
                expected=f"a unit with {', '.join(missing or ['all of its operations'])}",
            )  # fmt: skip
        options[n] = found
    spreads, cycles = _assigned(options, turns)
    return replace(shape, spreads=spreads, cycles=cycles)


@dataclass(frozen=True)
class _Local:
    """The leaves of one Einsum inside the shared loops: ``free`` ones, those that only loop (``own``), with sizes, and
    the names of both by leaf of the cascade."""

    free: dict[str, int]
    own: dict[str, int]
    names: dict[str, tuple[str, ...]]

    @staticmethod
    def of(
        shape: Shape, leaves: Sequence[str], fixed: set[str], inner: Mapping[str, int], extents: Mapping[str, int]
    ) -> _Local:
        free, own, names = {}, {}, {}
        for x in leaves:
            if x in fixed:
                continue
            _, middle, innermost = shape.parts(x)
            names[x] = (innermost,) if x in shape.tiles else (middle, innermost) if x in shape.halves else (x,)
            free[names[x][-1]] = inner.get(x, extents[x])
            if x in shape.halves:
                own[middle] = extents[x] // inner[x]
        return _Local(free, own, names)

    def within(self, ranks: Iterable[str], cascade: Cascade) -> frozenset[str]:
        """The names of the leaves of some ranks."""
        return frozenset(p for r in ranks for x in cascade.split.get(r, (r,)) for p in self.names.get(x, ()))


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


def _assigned(options: Mapping[str, Mapping[str, Spread]], turns: Mapping[str, int]) -> tuple[dict[str, Spread], float]:
    """A unit for each Einsum such that the busiest unit is done soonest, and when that is. ``turns`` is how often the
    shared loops step for each.

    Exact: Einsums are placed one after another, longest first; of partial assignments those are dropped that are no
    better in any unit than another, or already later than an assignment known (each Einsum where it ends first).
    """
    units = sorted({u for found in options.values() for u in found})
    times = {n: {u: s.cycles * turns[n] for u, s in found.items()} for n, found in options.items()}
    order = sorted(times, key=lambda n: (-min(times[n].values()), n))
    known = dict.fromkeys(units, 0.0)
    for n in order:
        unit = min(times[n], key=lambda u: (max(known[u] + times[n][u], *known.values()), times[n][u]))
        known[unit] += times[n][unit]
    latest = max(known.values()) * (1 + 1e-12)
    states: dict[tuple[float, ...], tuple[str, ...]] = {(0.0,) * len(units): ()}
    for n in order:
        grown: dict[tuple[float, ...], tuple[str, ...]] = {}
        for busy, chosen in states.items():
            for k, unit in enumerate(units):
                if unit in times[n] and busy[k] + times[n][unit] <= latest:
                    after = (*busy[:k], busy[k] + times[n][unit], *busy[k + 1 :])
                    grown.setdefault(after, (*chosen, unit))
        states = _undominated(grown)
    busy = min(states, key=lambda b: (max(b), sum(b), b))
    return {n: options[n][u] for n, u in zip(order, states[busy], strict=True)}, max(busy)


def _undominated(states: dict[tuple[float, ...], tuple[str, ...]]) -> dict[tuple[float, ...], tuple[str, ...]]:
    kept: list[tuple[float, ...]] = []
    for busy in sorted(states):
        if not any(all(x <= y for x, y in zip(k, busy, strict=True)) for k in kept[-_COMPARED:]):
            kept.append(busy)
    return {busy: states[busy] for busy in kept}


def _spread(unit: Unit, name: str, einsum: Einsum, cascade: Cascade, local: _Local, roomy: bool) -> Spread | None:
    """The best way to lay an Einsum over a unit; None if the unit lacks an operation."""
    work = work_of(einsum)
    point = [find_op(unit, o) for o in work.per_point]
    if any(o is None for o in (*point, *(find_op(unit, o) for o in work.per_output))):
        return None
    accesses = (*dict.fromkeys(reads(einsum)), einsum.target)
    layout = lay_out(
        Problem(
            free=tuple(local.free.items()),
            own=tuple(local.own.items()),
            reduced=local.within(reduced_ranks(einsum), cascade),
            operands=tuple(local.within((r for i in a.indices for r in rank_values(i)), cascade) for a in accesses),
            shape=tuple(unit.shape.items()),
            reduce=unit.reduce,
            room=unit.size * unit.registers.words if unit.registers and not roomy else inf,
        )
    )
    return Spread(name, layout.spatial, layout.loops, layout.steps * sum(o.cycles for o in point if o))
