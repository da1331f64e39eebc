"""What a group of Einsums does, symbolically: loop nests, tiles and movements, before any number is known.

A plan depends on the cascade, the architecture and the mapping's structure, not on extents or tile sizes, so that one
plan is evaluated for any number of them (:mod:`fusemodel.model.cost`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fusemodel.arch import Architecture
from fusemodel.arch.spec import find_op
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    RankValue,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
    target_ranks,
)
from fusemodel.cascade.work import work_of
from fusemodel.mapping.check import Nest, holds, innermost, leaves_of, main_einsums, nest_of
from fusemodel.mapping.spec import ALL, Group, Keep
from fusemodel.model.domain import conditions_of


@dataclass(frozen=True, slots=True)
class Dim:
    """One index of an access. ``terms`` gives the leaves of each rank in it with the rank's coefficient; ``pure`` when
    it is one rank (or a split pair) with coefficient 1, so that a tile's span is the product of its leaves."""

    rank: str
    terms: tuple[tuple[tuple[str, ...], Expr | int], ...]
    pure: bool
    affine: bool
    iterative: bool
    split: str | None

    @property
    def leaves(self) -> tuple[str, ...]:
        return tuple(x for leaves, _ in self.terms for x in leaves)


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of a tensor that an access touches while ``inner`` leaves run and the others stand still."""

    dims: tuple[Dim, ...]
    inner: frozenset[str]


@dataclass(frozen=True, slots=True)
class Move:
    """Words of a tensor read at one level and written at another (None: the array's registers).

    Their number is (steps of the loops down to the innermost that changes the tile) x (words of the tile), less the
    tensor's elements where ``after_first`` (a partial sum is not read before it was first written). ``loops`` has every
    temporal loop outside the tile, innermost first, with whether it changes the tile. Moves with one ``key`` are one.
    """

    key: tuple[object, ...]
    einsum: str
    tensor: str
    source: str | None
    sink: str | None
    loops: tuple[tuple[str, bool], ...]
    tile: Tile
    after_first: bool = False
    spills: Keep | None = None
    forwarded: bool = False  # the spilled part is taken from registers as it is made


@dataclass(frozen=True, slots=True)
class EinsumPlan:
    """One Einsum on its unit. ``folds`` lists, for each dimension used, its length and the leaves spread over it."""

    name: str
    unit: str
    leaves: tuple[str, ...]
    temporal: tuple[str, ...]
    reduced: frozenset[str]
    folds: tuple[tuple[int, tuple[str, ...]], ...]
    cycles_per_point: float
    cycles_per_output: float
    energy_pj_per_point: float
    energy_pj_per_output: float
    register_pj_per_point: float
    ranks: dict[str, tuple[str, ...]]
    conditions: tuple[Expr, ...]
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Space that a kept tile takes; the largest of its accesses."""

    keep: Keep
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """A spatial reduction that a stage waits for: ``leaves`` over a dimension of ``length``, once a tile of ``loops``."""

    producer: str
    length: int
    leaves: tuple[str, ...]
    loops: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything about a group that does not depend on numbers."""

    group: Group
    cascade: Cascade
    arch: Architecture
    einsums: dict[str, EinsumPlan]
    moves: tuple[Move, ...]
    footprints: tuple[Footprint, ...]
    drains: tuple[tuple[Drain, ...], ...]


def plan_group(group: Group, cascade: Cascade, arch: Architecture, needed_later: frozenset[str]) -> Plan:
    """The plan of a checked group. ``needed_later`` names tensors made here that other groups read."""
    einsums = main_einsums(cascade)
    inside = {n: einsums[n] for n in einsums if n in group.bindings}
    nests = {n: nest_of(e, group, cascade) for n, e in inside.items()}
    conditions = conditions_of(cascade, list(einsums.values()))
    builder = _Builder(group, cascade, arch, inside, nests, needed_later)
    return Plan(
        group, cascade, arch,
        {n: _einsum_plan(e, nests[n], group, cascade, arch, conditions[n]) for n, e in inside.items()},
        tuple(builder.moves()),
        tuple(builder.footprints()),
        tuple(tuple(d) for d in _drains(group, inside, nests, cascade, arch)),
    )  # fmt: skip


def _einsum_plan(einsum: Einsum, nest: Nest, group: Group, cascade: Cascade, arch: Architecture, conditions) -> EinsumPlan:
    binding = group.bindings[einsum.name]
    unit = arch.units[binding.unit]
    work = work_of(einsum)
    point = [op for o in work.per_point if (op := find_op(unit, o))]
    output = [op for o in work.per_output if (op := find_op(unit, o))]
    cycles = [op.cycles for op in point]
    registers = unit.registers
    register_pj = 0.0
    if registers:
        register_pj = sum(op.register_reads * registers.read_pj + op.register_writes * registers.write_pj for op in point)
    ranks = dict.fromkeys([*target_ranks(einsum), *rank_values(einsum.body), *rank_values(einsum.where)])
    return EinsumPlan(
        name=einsum.name,
        unit=binding.unit,
        leaves=leaves_of(einsum, group, cascade),
        temporal=nest.shared + nest.own,
        reduced=frozenset(x for r in reduced_ranks(einsum) for x in group.leaves(r, cascade)),
        folds=tuple((unit.shape[d], leaves) for d, leaves in binding.spatial.items()),
        cycles_per_point=(max(cycles) if binding.pipelined else sum(cycles)) if cycles else 0,
        cycles_per_output=sum(op.cycles for op in output),
        energy_pj_per_point=0 if work.per_point == ("copy",) else sum(op.energy_pj for op in point),
        energy_pj_per_output=sum(op.energy_pj for op in output),
        register_pj_per_point=register_pj,
        ranks={r: group.leaves(r, cascade) for r in (*ranks, *reduced_ranks(einsum))},
        conditions=conditions,
        operations=(*work.per_point, *work.per_output),
    )


def dims_of(access: Access, group: Group, cascade: Cascade) -> tuple[Dim, ...]:
    """The indices of an access over leaf ranks."""
    tensor = cascade.tensors[access.tensor]
    ranks = cascade.full_ranks(access.tensor)
    return tuple(
        _dim(rank, index, rank in tensor.iterative, group, cascade)
        for rank, index in zip(ranks, access.indices, strict=True)
    )


def _dim(rank: str, index: Expr, iterative: bool, group: Group, cascade: Cascade) -> Dim:
    def leaves(r: str) -> tuple[str, ...]:
        return group.leaves(r, cascade)

    match index:
        case RankValue(r):
            return Dim(rank, ((leaves(r), 1),), True, True, iterative, r if r in cascade.split else None)
        case Apply("+", (Apply("*", (RankValue(a), Extent(size))), RankValue(b))) if size == b and (
            cascade.parents.get(b) is not None and cascade.split[cascade.parents[b]] == (a, b)
        ):
            return Dim(rank, ((leaves(a) + leaves(b), 1),), True, True, iterative, cascade.parents[b])
        case Apply("//", (RankValue(r), Extent(size))) if (cascade.split.get(r) or (0, 0))[1] == size:
            return Dim(rank, ((leaves(cascade.split[r][0]), 1),), True, True, iterative, None)
        case Apply("%", (RankValue(r), Extent(size))) if (cascade.split.get(r) or (0, 0))[1] == size:
            return Dim(rank, ((leaves(cascade.split[r][1]), 1),), True, True, iterative, None)
    coefficients = _coefficients(index)
    if coefficients is None:
        terms = tuple((leaves(r), 1) for r in rank_values(index))
        return Dim(rank, terms, False, False, iterative, None)
    terms = tuple((leaves(r), c) for r, c in coefficients.items())
    pure = len(terms) == 1 and terms[0][1] == 1
    return Dim(rank, terms, pure or not terms, True, iterative, None)


def _coefficients(index: Expr) -> dict[str, Expr | int] | None:
    """Coefficient of each rank of an affine index; None if it is not affine."""
    match index:
        case RankValue(r):
            return {r: 1}
        case Apply("+" | "-", (a, b)):
            left, right = _coefficients(a), _coefficients(b)
            if left is None or right is None or left.keys() & right.keys():
                return None
            return left | right  # only the size of a coefficient matters for a span
        case Apply("neg", (a,)):
            return _coefficients(a)
        case Apply("*", (a, b)):
            for scaled, factor in ((a, b), (b, a)):
                found = _coefficients(scaled)
                if found is not None and not rank_values(factor) and not isinstance(factor, Access):
                    if all(c == 1 for c in found.values()):
                        return dict.fromkeys(found, factor)
            return None
    return None if rank_values(index) or isinstance(index, Access) else {}


class _Builder:
    """Finds the movements and the resident tiles of a group."""

    def __init__(self, group, cascade, arch, inside, nests, needed_later) -> None:
        self.group: Group = group
        self.cascade: Cascade = cascade
        self.arch: Architecture = arch
        self.inside: dict[str, Einsum] = inside
        self.nests: dict[str, Nest] = nests
        self.needed_later: frozenset[str] = needed_later
        self.order = list(arch.levels)
        self.phases = _phases(group, cascade, inside)

    def chain(self, einsum: str, tensor: str, writes: bool) -> list[tuple[str, Keep | None]]:
        """The levels an access passes, outermost first, with the resident tile at each."""
        nest = self.nests[einsum]
        held = [k for k in self.group.keeps if k.tensor == tensor and holds(k.under, nest, self.group, self.cascade)]
        levels: list[tuple[str, Keep | None]] = [(k.level, k) for k in held]
        made_here = tensor in self.inside
        at_home = tensor in self.needed_later or tensor in self.cascade.outputs if writes else not made_here
        if at_home and all(level != self.order[0] for level, _ in levels):
            levels.append((self.order[0], None))
        return sorted(levels, key=lambda x: self.order.index(x[0]))

    def prefix(self, einsum: str, keep: Keep | None) -> tuple[str, ...]:
        """The loops outside a resident tile, outermost first (``all``: none; no tile: every loop)."""
        nest = self.nests[einsum]
        if keep is None:
            return nest.shared + nest.own
        if keep.under == ALL:
            return ()
        loop = innermost(keep.under, self.group, self.cascade)
        if loop in self.group.loops:
            outside = self.group.loops[: self.group.loops.index(loop) + 1]
            return tuple(x for x in nest.shared if x in outside)
        return nest.shared + nest.own[: nest.own.index(loop) + 1]

    def tile(self, einsum: str, access: Access, outside: tuple[str, ...]) -> Tile:
        leaves = set(leaves_of(self.inside[einsum], self.group, self.cascade))
        return Tile(dims_of(access, self.group, self.cascade), frozenset(leaves - set(outside)))

    def move(self, einsum, access, outside, source, sink, kind, **more) -> Move:
        tile = self.tile(einsum, access, outside)
        changes = {x for dim in tile.dims for x in dim.leaves}
        loops = tuple((x, x in changes) for x in reversed(outside))
        key = (access.tensor, source, sink, kind, outside)
        return Move(key, einsum, access.tensor, source, sink, loops, tile, **more)

    def moves(self) -> list[Move]:
        found: list[Move] = []
        for name, einsum in self.inside.items():
            for i, access in enumerate(reads(einsum)):
                found += self.read(name, access, i)
            found += self.write(name, einsum.target)
        return found

    def read(self, name: str, access: Access, position: int) -> list[Move]:
        chain = self.chain(name, access.tensor, writes=False)
        if not chain:
            return []
        made_here = access.tensor in self.inside
        put = {}
        if made_here:
            put = {level: self.prefix(access.tensor, k) for level, k in self.chain(access.tensor, access.tensor, True)}
        found: list[Move] = []
        for (outer, _), (inner, keep) in zip(chain, chain[1:], strict=False):
            outside = self.prefix(name, keep)
            if made_here and inner in put and self._same_step(access.tensor, name, keep):
                continue  # its producer left it there
            found.append(self.move(name, access, outside, outer, inner, "fill"))
        level, keep = chain[-1]
        spills = keep if keep and keep.spill is not False else None
        forwarded = spills is not None and self._in_registers(access.tensor, name)
        outside = self.prefix(name, None)
        kind = ("read", name, position)
        return [*found, self.move(name, access, outside, level, None, kind, spills=spills, forwarded=forwarded)]

    def _same_step(self, producer: str, reader: str, keep: Keep | None) -> bool:
        """Whether a reader finds in the tile what its producer wrote there (both run inside the tile's loop)."""
        if keep is None or keep.under == ALL or innermost(keep.under, self.group, self.cascade) in self.group.loops:
            return True
        a, b = self.group.bindings[producer], self.group.bindings[reader]
        return a.key == b.key

    def _in_registers(self, producer: str, reader: str) -> bool:
        """Whether a reader takes a value as it is made: bound together, with no completed reduction between."""
        if producer not in self.inside:
            return False
        a, b = self.group.bindings[producer], self.group.bindings[reader]
        return a.key == b.key and self.phases[producer] == self.phases[reader]

    def write(self, name: str, access: Access) -> list[Move]:
        chain = self.chain(name, access.tensor, writes=True)
        if not chain:
            return []
        level, keep = chain[-1]
        every = self.prefix(name, None)
        spills = keep if keep and keep.spill is not False else None
        found = [self.move(name, access, every, None, level, "write", spills=spills)]
        accumulates = bool(reduced_ranks(self.inside[name]))
        if accumulates:
            found.append(self.move(name, access, every, level, None, "partial", after_first=True, spills=spills))
        for (outer, _), (inner, held) in zip(chain, chain[1:], strict=False):
            outside = self.prefix(name, held)
            found.append(self.move(name, access, outside, inner, outer, "write back"))
            if accumulates:
                found.append(self.move(name, access, outside, outer, inner, "refill", after_first=True))
        return found

    def footprints(self) -> list[Footprint]:
        found = []
        for keep in self.group.keeps:
            tiles = []
            for name, einsum in self.inside.items():
                if not holds(keep.under, self.nests[name], self.group, self.cascade):
                    continue
                outside = self.prefix(name, keep)
                for access in (*reads(einsum), einsum.target):
                    if access.tensor == keep.tensor:
                        tiles.append(self.tile(name, access, outside))
            found.append(Footprint(keep, tuple(dict.fromkeys(tiles))))
        return found


def _phases(group: Group, cascade: Cascade, inside: dict[str, Einsum]) -> dict[str, int]:
    """How many completed reductions lie before each Einsum within the group: a value made in one phase and used in a
    later one cannot stay in registers."""
    phases: dict[str, int] = {}
    for name, einsum in inside.items():
        ranks = set(iteration_ranks(einsum))
        phase = 0
        for access in reads(einsum):
            if access.tensor in phases:
                waits = any(r in ranks for r in reduced_ranks(inside[access.tensor]))
                phase = max(phase, phases[access.tensor] + waits)
        phases[name] = phase
    return phases


def _drains(group: Group, inside, nests, cascade: Cascade, arch: Architecture) -> list[list[Drain]]:
    """For each stage, the spatial reductions of the stage just before that it waits for, when tiles do not interleave."""
    if group.interleave:
        return [[] for _ in group.stages]
    result: list[list[Drain]] = [[]]
    for before, stage in zip(group.stages, group.stages[1:], strict=False):
        found: dict[str, Drain] = {}
        for name in stage:
            for access in reads(inside[name]):
                made = access.tensor
                if made in before and made not in found:
                    found |= _reduction_drain(made, inside[made], nests[made], group, cascade, arch)
        result.append(list(found.values()))
    return result


def _reduction_drain(made: str, einsum: Einsum, nest: Nest, group: Group, cascade: Cascade, arch: Architecture):
    reduced = {x for r in reduced_ranks(einsum) for x in group.leaves(r, cascade)}
    binding = group.bindings[made]
    unit = arch.units[binding.unit]
    for dimension, leaves in binding.spatial.items():
        over = tuple(x for x in leaves if x in reduced)
        if over:
            return {made: Drain(made, unit.shape[dimension], over, nest.shared)}
    return {}
