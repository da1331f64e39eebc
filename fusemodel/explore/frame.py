"""The frame of a group: which loops its Einsums share, how ranks are tiled, which Einsums are bound together.

A frame leaves open the order of the shared loops, the sizes of middle tiles, the unit and the layout of every nest, and
what is kept where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from math import inf, prod
from typing import Any

from fusemodel.arch import Architecture
from fusemodel.arch.spec import Unit, find_op
from fusemodel.cascade.ir import Cascade, Einsum, RankValue, iteration_ranks, rank_values, reads, reduced_ranks
from fusemodel.cascade.work import work_of
from fusemodel.explore.layout import Layout, Member, Problem, Ragged, layouts
from fusemodel.explore.ragged import tile_sizes
from fusemodel.model.amounts import ceil_div

_MANY = 3  # so many tiled ranks, and more, have only their longest inner tiles looked at
_LONGEST = 3
_HEAVY = 0.05  # of the points of a group: Einsums with fewer do not say which loops are worth sharing


@dataclass(frozen=True)
class Option:
    """A nest on a unit; ``pipelined``: the operations of a point are chained."""

    unit: str
    layout: Layout
    pipelined: bool


@dataclass(frozen=True)
class Frame:
    """Einsums in order under shared loops: ``outer`` outermost first, then ``ranks`` in an order to be found.

    ``tiles`` has the inner sizes of the shared ranks that are tiled in three; where ``deep``, the middle parts are
    shared loops inside all others, else loops of each nest. ``halves``: the inner sizes of ranks that are not shared
    and tiled in two. Einsums of one of ``nests`` are bound together.
    """

    members: tuple[str, ...]
    outer: tuple[str, ...]
    ranks: tuple[str, ...]
    tiles: Mapping[str, int]
    halves: Mapping[str, int]
    deep: bool
    nests: tuple[tuple[str, ...], ...]

    def parts(self, rank: str) -> tuple[str, str, str]:
        return f"{rank}_2", f"{rank}_1", f"{rank}_0"

    def loops(self, order: Sequence[str]) -> list[str]:
        """Shared loops for an order of ``ranks``."""
        middle = [self.parts(r)[1] for r in order if r in self.tiles and self.deep]
        return [*self.outer, *(self.parts(r)[0] if r in self.tiles else r for r in order), *middle]

    def leaves(self, rank: str) -> tuple[str, ...]:
        """The parts of a leaf of the cascade in this frame."""
        if rank in self.tiles:
            return self.parts(rank)
        return self.parts(rank)[1:] if rank in self.halves else (rank,)

    def least(self, rank: str, extent: int) -> int:
        """Of a leaf, the least that a tile under shared loops has."""
        if rank in self.outer or (rank in self.ranks and rank not in self.tiles):
            return 1
        return self.tiles.get(rank, extent)

    @property
    def own(self) -> bool:
        """Whether tiles under loops of a nest are looked for."""
        return not self.deep

    def inside(self, rank: str, extent: int) -> list[tuple[str, int, int, bool]]:
        """The parts of a leaf that are no shared loops: least and largest size, and whether they may be spread."""
        if rank in self.outer or (rank in self.ranks and rank not in self.tiles):
            return []
        inner = self.tiles.get(rank) or self.halves.get(rank)
        if inner is None:
            return [(rank, extent, extent, True)]
        _, middle, last = self.parts(rank)
        rest = ceil_div(extent, inner)
        found = [(last, inner, inner, True)]
        if rank in self.halves:
            found.append((middle, rest, rest, False))
        elif not self.deep and rest > 1:
            found.append((middle, 1, rest, False))
        return found

    def fields(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The fields of a mapping file that the frame decides; middle tiles without a size are left to be found."""
        tile: dict[str, Any] = {}
        for rank, inner in self.tiles.items():
            outer, middle, innermost = self.parts(rank)
            tile |= {rank: [outer, middle, innermost], innermost: inner, middle: sizes.get(middle, "any")}
        for rank, inner in self.halves.items():
            _, middle, innermost = self.parts(rank)
            tile |= {rank: [middle, innermost], innermost: inner}
        return {"tile": tile}

    def forced(self, tensor: str) -> frozenset[str]:
        """Loops under which a tensor may be kept though it does not step along them."""
        return frozenset()

    def nearest(self, under: list[str]) -> list[str]:
        """Loops under which a tile may live: of batch loops that it steps along, one after another from the outermost
        one, the innermost, where it is brought as often and takes the least space."""
        known = 0
        while known < len(self.outer) and under[known + 1 : known + 2] == [self.outer[known]]:
            known += 1
        return under[known:]

    def allows(self, tensor: str, shared: Sequence[tuple[str, str]], own: tuple[str, str] | None) -> bool:
        """Whether a tensor may be kept so; a frame that was not given allows everything."""
        return True

    def among(self, nest: Sequence[str], unit: str, pipelined: bool, problem: Problem) -> list[Option]:
        """The options of a nest on a unit."""
        return [Option(unit, layout, pipelined) for layout in layouts(problem)]

    def line(self, name: str) -> int:
        """The line of the schedule that an Einsum is in."""
        return 0

    def room(self, level: str) -> float:
        """Bytes of a level that may be used, besides its size."""
        return inf


@dataclass(frozen=True)
class Scene:
    """A cascade on an architecture at some extents: what every frame refers to."""

    cascade: Cascade
    arch: Architecture
    einsums: Mapping[str, Einsum]
    extents: Mapping[str, int]

    @cached_property
    def widest(self) -> int:
        return max(self.lengths)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Those of the dimensions of all units."""
        return tuple(sorted({n for u in self.arch.units.values() for n in u.shape.values()}))

    @cached_property
    def leaves(self) -> dict[str, tuple[str, ...]]:
        """The ranks that each Einsum iterates, parts for a rank that the cascade splits."""
        return {n: self.split(iteration_ranks(e)) for n, e in self.einsums.items()}

    def split(self, ranks: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(x for r in ranks for x in self._leaves(r)))

    def _leaves(self, rank: str) -> Iterator[str]:
        for x in self.cascade.split.get(rank, ()):
            yield from self._leaves(x)
        if rank not in self.cascade.split:
            yield rank

    def tensor_leaves(self, tensor: str) -> tuple[str, ...]:
        return self.split(self.cascade.full_ranks(tensor))

    def used(self, name: str) -> list[str]:
        """The tensors that an Einsum reads, and last the one it makes."""
        return list(dict.fromkeys([*(a.tensor for a in reads(self.einsums[name])), name]))


def frames(scene: Scene, members: Sequence[str]) -> Iterator[Frame]:
    """Every frame of a group, given in an order in which each Einsum comes after those it reads: coarse tiles first."""
    shared = _shared(scene, members)
    cascade, extents = scene.cascade, scene.extents
    outer = tuple(r for r in cascade.batch if r in shared)
    iterative = {x for n in members for r in cascade.tensors[n].iterative for x in scene.split([r])}
    inside = sorted(shared - set(outer), key=lambda r: (r in iterative, -extents[r], r))
    fixed = [r for r in inside if r in iterative or not _tileable(cascade, r)]
    tiled = [r for r in inside if r not in fixed]
    halves = {
        r: tile_sizes(extents[r], scene.widest)[0]
        for r in sorted({x for n in members for x in scene.leaves[n]} - shared)
        if extents[r] > scene.widest and _tileable(cascade, r)
    }
    halves = {r: n for r, n in halves.items() if n > 1}
    alone = tuple((n,) for n in members)
    few = few_sizes(scene, members, tiled)
    options = [tile_sizes(extents[r], scene.widest, scene.lengths, few=few) for r in tiled]
    if len(tiled) >= _MANY:
        options = [sizes[:_LONGEST] for sizes in options]
    for inner in sorted(product(*options), key=lambda x: -prod(x)):
        tiles = dict(zip(tiled, inner, strict=True))
        frame = Frame(tuple(members), outer, tuple(inside), tiles, halves, True, alone)
        yield frame
        if tiled and halves and len(members) > 1:  # else there is no loop for the middle ones to be inside of
            yield Frame(frame.members, outer, frame.ranks, tiles, halves, False, _bundled(scene, members))


def ragged_splits(scene: Scene) -> dict[tuple[str, str], int]:
    """The ragged splits of a cascade, with the size of the last tile."""
    extents, found = scene.extents, {}
    for rank, (outer, inner) in scene.cascade.split.items():
        if extents[outer] * extents[inner] != extents[rank]:
            found[outer, inner] = extents[rank] - (extents[outer] - 1) * extents[inner]
    return found


def few_sizes(scene: Scene, members: Sequence[str], tiled: Sequence[str]) -> bool:
    """Whether only some of the sizes that do not divide are looked at: there are several tiled ranks, or points are
    counted one by one."""
    return len(tiled) > 1 or any(scene.einsums[n].where for n in members)


def orders(scene: Scene, frame: Frame) -> list[tuple[str, ...]]:
    """Orders of the shared ranks, one for each set that cost the same: two neighbours may change places where every
    tensor has both or neither."""
    tensors = {t for n in frame.members for t in scene.used(n)}
    held = {r: frozenset(t for t in tensors if r in scene.tensor_leaves(t)) for r in frame.ranks}
    found: dict[tuple[frozenset[str], ...], tuple[str, ...]] = {}
    for order in permutations(frame.ranks):
        found.setdefault(tuple(held[r] for r in order), order)
    return list(found.values())


def _bundled(scene: Scene, members: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Nests in which the Einsums between two contractions are bound together."""
    nests: list[list[str]] = []
    joining = False
    for name in members:
        contracts = len(set(reads(scene.einsums[name]))) > 1 and bool(reduced_ranks(scene.einsums[name]))
        if contracts or not joining:
            nests.append([])
        nests[-1].append(name)
        joining = not contracts
    return tuple(map(tuple, nests))


def _tileable(cascade: Cascade, rank: str) -> bool:
    """A part of a split rank is used with the other part; dividing it again would lose that."""
    return rank not in cascade.parents


def _shared(scene: Scene, members: Sequence[str]) -> set[str]:
    leaves, extents = scene.leaves, scene.extents
    shared = shareable(scene, members)
    points = {n: prod(extents[x] for x in leaves[n]) for n in members}
    heavy = [n for n in members if points[n] >= _HEAVY * max(points.values())]
    if len(members) == 1:
        shared -= set(scene.split(reduced_ranks(scene.einsums[members[0]])))
    return {x for x in shared if extents[x] > 1 and all(x in leaves[n] for n in heavy)}


def shareable(scene: Scene, members: Sequence[str]) -> set[str]:
    """The leaves that may be loops around all members: nothing in a step needs what other steps make."""
    cascade, einsums = scene.cascade, scene.einsums
    after: dict[str, set[str]] = {}
    barred: set[str] = set()
    for name in members:
        waits: set[str] = set()
        for access in reads(einsums[name]):
            made = access.tensor
            if made not in members or made == name:
                continue
            waits |= after.get(made, set())
            waits |= set(scene.split(reduced_ranks(einsums[made])))
            tensor, ranks = cascade.tensors[made], cascade.full_ranks(made)
            for rank, index, written in zip(ranks, access.indices, einsums[made].target.indices, strict=True):
                parts = set(scene.split([rank]))
                if rank not in tensor.iterative:
                    barred |= set() if index == written else parts
                elif rank not in rank_values(index):
                    waits |= parts
        barred |= waits & set(scene.leaves[name])
        after[name] = waits
        target = einsums[name].target
        for rank, index in zip(cascade.full_ranks(name), target.indices, strict=True):
            if not isinstance(index, RankValue) and rank not in cascade.tensors[name].iterative:
                barred |= set(scene.split([rank]))
    return {x for n in members for x in scene.leaves[n]} - barred


def options(scene: Scene, frame: Frame, nest: Sequence[str]) -> list[Option]:
    """Every unit that can compute a nest, with the layouts of which none is worse than another."""
    found: list[Option] = []
    leaves = dict.fromkeys(x for n in nest for x in scene.leaves[n])
    parts = [p for x in leaves for p in frame.inside(x, scene.extents[x])]
    free = {x: low for x, low, _, spread in parts if spread}
    own = [(x, low, high) for x, low, high, spread in parts if not spread]
    here = {*free, *(x for x, *_ in own)}
    ragged = tuple(
        Ragged(inner, last, scene.extents[outer]) for (outer, inner), last in ragged_splits(scene).items()
        if outer in leaves and outer not in here and inner in free
    )  # fmt: skip
    ragged += tuple(
        Ragged(frame.leaves(x)[-1], extent - (tiles - 1) * free[leaf], tiles)
        for x in leaves
        if (leaf := frame.leaves(x)[-1]) in free and len(frame.leaves(x)) > 1
        and (extent := scene.extents[x]) % free[leaf] and (tiles := ceil_div(extent, free[leaf]))
    )  # fmt: skip

    def names(ranks: Iterable[str]) -> frozenset[str]:
        return frozenset(p for x in scene.split(ranks) for p in frame.leaves(x) if p in here)

    for unit_name, unit in scene.arch.units.items():
        for pipelined in (False, True):
            cycles = [point_cycles(unit, scene.einsums[n], pipelined) for n in nest]
            if None in cycles or (pipelined and not _chains(unit, [scene.einsums[n] for n in nest])):
                continue
            members = tuple(
                Member(
                    names(scene.leaves[n]), names(reduced_ranks(scene.einsums[n])),
                    tuple(
                        names(r for i in a.indices for r in rank_values(i))
                        for a in (*dict.fromkeys(reads(scene.einsums[n])), scene.einsums[n].target)
                    ),
                    c or 0.0,
                )
                for n, c in zip(nest, cycles, strict=True)
            )  # fmt: skip
            room = unit.size * unit.registers.words if unit.registers else inf
            problem = Problem(
                tuple(free.items()), tuple(own), members, tuple(unit.shape.items()), unit.reduce, room, frame.own,
                ragged=ragged,
            )  # fmt: skip
            found += frame.among(nest, unit_name, pipelined, problem)
    best = {o.unit for o in found if o.pipelined}
    return [o for o in found if o.pipelined or o.unit not in best]


def point_cycles(unit: Unit, einsum: Einsum, pipelined: bool) -> float | None:
    """Cycles of a point; None if the unit lacks an operation."""
    work = work_of(einsum)
    ops = [find_op(unit, o) for o in work.per_point]
    if not all(ops) or not all(find_op(unit, o) for o in work.per_output):
        return None
    cycles = [o.cycles for o in ops if o]
    return (max(cycles) if pipelined else sum(cycles)) if cycles else 0.0


def least_cycles(unit: Unit, einsum: Einsum) -> float | None:
    """Cycles of a point, its operations chained where they can be."""
    return point_cycles(unit, einsum, _chains(unit, [einsum]))


def _chains(unit: Unit, einsums: Sequence[Einsum]) -> bool:
    """Whether the operations of a point are done side by side: some Einsum has several, and all of each are different
    operations of the unit, none of them made of others in sequence."""
    several = False
    for einsum in einsums:
        ops = [op for o in work_of(einsum).per_point if (op := find_op(unit, o))]
        several |= len(ops) > 1
        if len({op.base for op in ops}) < len(ops) or any(op.base != op.name for op in ops if len(ops) > 1):
            return False
    return several
