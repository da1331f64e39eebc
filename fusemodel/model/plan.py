"""What a group of Einsums does, symbolically: loop nests, tiles and movements, before any number is known.

A plan depends on the cascade, the architecture and the mapping's structure, not on extents or tile sizes, so that one
plan is evaluated for any number of them (:mod:`fusemodel.model.cost`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from fusemodel.arch import Architecture
from fusemodel.arch.spec import Op, find_op
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    RankValue,
    accesses,
    rank_values,
    reads,
    reduced_ranks,
    target_ranks,
)
from fusemodel.cascade.plan import equations, plan
from fusemodel.cascade.printer import format_expr
from fusemodel.cascade.work import work_of
from fusemodel.errors import InputError
from fusemodel.mapping.check import Nest, holds, innermost, leaves_of, main_einsums, nest_of
from fusemodel.mapping.spec import ALL, Group, Keep
from fusemodel.model.apart import Parting, Replaced, around_one
from fusemodel.model.domain import Conditions, conditions_of
from fusemodel.model.recurrence import Drain, Recurrence, recurrences_of
from fusemodel.model.registers import Passed, passed_on


@dataclass(frozen=True, slots=True)
class Dim:
    """One index of an access, over ranks; ``leaves`` has the leaves of each rank in it. ``split`` names the rank that
    the index joins the parts of. ``data``: it depends on another tensor."""

    rank: str
    index: Expr
    leaves: Mapping[str, tuple[str, ...]]
    iterative: bool
    split: str | None
    data: bool
    all_leaves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of a tensor that an access of an Einsum touches while its loops ``outside``, outermost first, stand
    still. ``guards`` are what must hold for the access to name an element that is present."""

    einsum: str
    dims: tuple[Dim, ...]
    outside: tuple[str, ...]
    guards: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """Words of a tensor read at one level and written at another (None: the array's registers).

    Their number is (steps of the loops down to the innermost that changes the tile) x (words of the tile), less the
    tensor's elements where ``after_first`` (a partial sum is not read before it was first written). Moves with one
    ``key`` bring one tile, unless they happen at different times: in different ``nest``s, or in one with a completed
    reduction over a loop outside the tile between them (``depths``). A move with ``separators`` happens only where one
    of these keeps its ends apart.
    """

    key: tuple[object, ...]
    tensor: str
    source: str | None
    sink: str | None
    tile: Tile
    after_first: bool = False
    spills: tuple[Keep, ...] = ()  # of the tiles at either end, those that may spill
    forwarded: bool = False  # the spilled part is taken from registers as it is made
    nest: str | None = None
    separators: tuple[Parting, ...] = ()


@dataclass(frozen=True, slots=True)
class EinsumPlan:
    """One Einsum on its unit. ``folds`` lists, for each dimension used, its length and the leaves spread over it;
    ``beside`` other units that do some of its operations, with their size and cycles of a point and of an output."""

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
    iterative: bool
    beside: tuple[tuple[str, int, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Space that a kept tile takes: of its accesses, and of every nest (None: the shared one) that holds one."""

    keep: Keep
    tiles: tuple[tuple[str | None, Tile], ...]


@dataclass(frozen=True)
class Plan:
    """Everything about a group that does not depend on numbers. ``reductions`` has, for each Einsum, those of the group
    it reads and the leaves over which each of them is reduced; ``passed_on`` the values alive in registers;
    ``replaced`` what would have to be read after its tile was replaced."""

    group: Group
    cascade: Cascade
    arch: Architecture
    einsums: dict[str, EinsumPlan]
    moves: tuple[Move, ...]
    footprints: tuple[Footprint, ...]
    drains: tuple[tuple[Drain, ...], ...]
    recurrences: tuple[Recurrence, ...]
    reductions: Mapping[str, Mapping[str, frozenset[str]]]
    passed_on: Mapping[str, Passed]
    replaced: tuple[Replaced, ...]
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # for the extents last evaluated


def plan_group(group: Group, cascade: Cascade, arch: Architecture, needed_later: frozenset[str]) -> Plan:
    """The plan of a checked group. ``needed_later`` names tensors made here that other groups read."""
    einsums = main_einsums(cascade)
    inside = {n: einsums[n] for n in einsums if n in group.bindings}
    nests = {n: nest_of(e, group, cascade) for n, e in inside.items()}
    conditions = conditions_of(cascade)
    builder = _Builder(group, cascade, arch, inside, nests, needed_later, conditions)
    moves = tuple(builder.moves())
    return Plan(
        group, cascade, arch,
        {n: einsum_plan(e, nests[n], group, cascade, arch, conditions.of[n]) for n, e in inside.items()},
        moves,
        tuple(builder.footprints()),
        tuple(tuple(d) for d in drains_of(group, inside, nests, cascade, arch)),
        recurrences_of(group, cascade, inside, nests, spatial_reductions(group, cascade, arch)),
        builder.reductions,
        passed_on(group, cascade, inside, nests),
        tuple(builder.replaced),
    )  # fmt: skip


def einsum_plan(
    einsum: Einsum, nest: Nest, group: Group, cascade: Cascade, arch: Architecture, conditions: tuple[Expr, ...]
) -> EinsumPlan:
    """One Einsum of a group, with the numbers of the unit that it is bound to."""
    binding = group.bindings[einsum.name]
    unit = arch.units[binding.unit]
    work = work_of(einsum)
    point = [op for o in work.per_point if (op := find_op(unit, o))]
    output = [op for o in work.per_output if (op := find_op(unit, o))]
    cycles = [op.cycles for op in point]
    registers = unit.registers
    register_pj = 0.0
    if registers:
        register_pj = sum(
            op.register_reads * registers.read_pj + op.register_writes * registers.write_pj for op in point
        )
    ranks = dict.fromkeys([*target_ranks(einsum), *rank_values(einsum.body), *rank_values(einsum.where)])
    ranks |= dict.fromkeys(reduced_ranks(einsum))
    ranks |= dict.fromkeys(part for r in ranks for part in cascade.split.get(r, ()))
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
        ranks={r: group.leaves(r, cascade) for r in ranks},
        conditions=conditions,
        operations=(*work.per_point, *work.per_output),
        iterative=bool(cascade.tensors[einsum.name].iterative),
        beside=_beside(point, output, arch),
    )


def _beside(point: list[Op], output: list[Op], arch: Architecture) -> tuple[tuple[str, int, float, float], ...]:
    names = dict.fromkeys(unit for op in (*point, *output) for unit in op.beside)
    return tuple(
        (u, arch.units[u].size, sum(op.beside.get(u, 0.0) for op in point), sum(op.beside.get(u, 0.0) for op in output))
        for u in names
    )


def _in_order(cascade: Cascade) -> list[str]:
    """Every computed tensor, each after those it is computed from."""
    return list(dict.fromkeys(cascade.einsums[i].name for item in plan(cascade) for i in equations(item)))


def dims_of(access: Access, group: Group, cascade: Cascade) -> tuple[Dim, ...]:
    """The indices of an access over leaf ranks."""
    tensor = cascade.tensors[access.tensor]
    ranks = cascade.full_ranks(access.tensor)
    return tuple(
        _dim(rank, index, rank in tensor.iterative, group, cascade)
        for rank, index in zip(ranks, access.indices, strict=True)
    )


def _dim(rank: str, index: Expr, iterative: bool, group: Group, cascade: Cascade) -> Dim:
    split = None
    match index:
        case RankValue(r):
            split = r if r in cascade.split else None
        case Apply("+", (Apply("*", (RankValue(a), Extent(size))), RankValue(b))) if size == b and (
            cascade.parents.get(b) is not None and cascade.split[cascade.parents[b]] == (a, b)
        ):
            split = cascade.parents[b]
        case Apply("//", (RankValue(r), Extent(size))) if (cascade.split.get(r) or (0, 0))[1] == size:
            index = RankValue(cascade.split[r][0])
        case Apply("%", (RankValue(r), Extent(size))) if (cascade.split.get(r) or (0, 0))[1] == size:
            index = RankValue(cascade.split[r][1])
    leaves = {r: group.leaves(r, cascade) for r in rank_values(index)}
    every = tuple(x for parts in leaves.values() for x in parts)
    return Dim(rank, index, leaves, iterative, split, bool(accesses(index)), every)


def _joins(dim: Dim) -> tuple[object, ...]:
    """The same for a split rank and for its parts joined."""
    return (dim.split, dim.all_leaves) if dim.split else (dim.index,)


def depth_of(name: str, reductions: Mapping[str, Mapping[str, frozenset[str]]], over: frozenset[str]) -> int:
    """How many completed reductions over some of the leaves ``over`` lie before an Einsum within its group."""
    depths: dict[str, int] = {}
    for einsum, read in reductions.items():  # in order
        depths[einsum] = max((depths[r] + bool(leaves & over) for r, leaves in read.items() if r in depths), default=0)
    return depths[name]


class _Builder:
    """Finds the movements and the resident tiles of a group."""

    def __init__(self, group, cascade, arch, inside, nests, needed_later, conditions) -> None:
        self.group: Group = group
        self.cascade: Cascade = cascade
        self.arch: Architecture = arch
        self.inside: dict[str, Einsum] = inside
        self.nests: dict[str, Nest] = nests
        self.needed_later: frozenset[str] = needed_later
        self.conditions: Conditions = conditions
        self.order = list(arch.levels)
        reduced = {
            n: frozenset(x for r in reduced_ranks(e) for x in group.leaves(r, cascade)) for n, e in inside.items()
        }
        self.reductions = {
            n: {a.tensor: reduced[a.tensor] for a in reads(inside[n]) if a.tensor in inside and a.tensor != n}
            for n in _in_order(cascade)
            if n in inside
        }
        self.every_leaf = frozenset(x for leaves in reduced.values() for x in leaves)
        self.replaced: list[Replaced] = []

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
        guards = tuple(self.conditions.inside(access))
        return Tile(einsum, dims_of(access, self.group, self.cascade), outside, guards)

    def nest(self, einsum: str, keep: Keep) -> str | None:
        """The inner loop nest that a tile lives in; None for one under a shared loop, found by every Einsum."""
        if keep.under == ALL or innermost(keep.under, self.group, self.cascade) in self.group.loops:
            return None
        return self.group.bindings[einsum].key

    def moves(self) -> list[Move]:
        found: list[Move] = []
        for name, einsum in self.inside.items():
            for access in dict.fromkeys(reads(einsum)):
                self.check_made(name, access)
                found += self.read(name, access)
            found += self.write(name, einsum.target)
        return found

    def check_made(self, name: str, access: Access) -> None:
        """Raise InputError where an Einsum reads, in a step of a shared loop, what another step makes: a shifted, fixed
        or differently named coordinate. Earlier steps are there if a tile under a loop outside holds them."""
        if access.tensor not in self.inside:
            return
        made = self.inside[access.tensor].target
        ranks = self.cascade.full_ranks(access.tensor)
        for rank, index, written in zip(ranks, access.indices, made.indices, strict=True):
            steps = [x for x in self.nests[access.tensor].shared if x in self.group.leaves(rank, self.cascade)]
            here, there = (_dim(rank, i, False, self.group, self.cascade) for i in (index, written))
            same = here.index == there.index or _joins(here) == _joins(there)
            if not steps or same or rank in self.cascade.tensors[access.tensor].iterative:
                continue  # of a state one element lives at a time, and the schedule of steps is the cascade's
            held = [k for _, k in self.chain(name, access.tensor, writes=False) if k]
            before = isinstance(index, Apply) and index.op == "-" and index.args[0] == written
            if before and any(not set(steps) & set(self.prefix(name, k)) for k in held):
                continue
            raise InputError(
                f"{name!r} reads {format_expr(access)} inside the shared loop {steps[-1]!r}, one step of which does "
                "not make it", self.group.bindings[name].at,
                expected=f"{steps[-1]!r} inside the bindings, or groups that run one after another",
            )  # fmt: skip

    def read(self, name: str, access: Access) -> list[Move]:
        tensor = access.tensor
        chain = self.chain(name, tensor, writes=False)
        if not chain:
            return []
        put = {level for level, _ in self.chain(tensor, tensor, True)} if tensor in self.inside else set()
        found: list[Move] = []
        for i, (inner, keep) in enumerate(chain):
            separators: tuple[Parting, ...] = ()
            if keep and inner in put:
                apart = self._apart(tensor, name, keep)
                if apart is not None and not apart:
                    continue  # its producer left it there
                if i == 0 and (apart is None or not all(p.inside for p in apart)):
                    raise InputError(
                        f"{name!r} takes {tensor!r} from {inner!r}, where the tile under {keep.under!r} has been "
                        f"replaced since {tensor!r} was computed", keep.at,
                        expected="a tile under a loop that both share, outside every reduction between them, or "
                        f"`{self.order[0]}: {{{tensor}: all}}` as well",
                    )  # fmt: skip
                separators = apart or ()
                if i == 0:
                    self.replaced.append(Replaced(tensor, keep, name, separators))
            if i > 0:
                tile = self.tile(name, access, self.prefix(name, keep))
                key = (tensor, chain[i - 1][0], inner, "fill")
                nest = self.nest(name, keep) if keep else None
                spills = _spilling(chain[i - 1][1], keep)
                found.append(
                    Move(key, tensor, chain[i - 1][0], inner, tile, spills=spills, nest=nest, separators=separators)
                )
        level, keep = chain[-1]
        spills = _spilling(keep)
        forwarded = bool(spills) and self._in_registers(tensor, name)
        tile = self.tile(name, access, self.prefix(name, None))
        key = (tensor, level, None, "read", name)
        return [*found, Move(key, tensor, level, None, tile, spills=spills, forwarded=forwarded)]

    def _apart(self, producer: str, reader: str, keep: Keep) -> tuple[Parting, ...] | None:
        """What replaces the tile that a producer wrote before the reader comes to it: nothing if both run inside the
        tile's loop together. None itself: they run one after another whatever the loops."""
        before, after = self.prefix(producer, keep), self.prefix(reader, keep)
        nest = self.nest(reader, keep)
        if nest != self.nest(producer, keep):
            return None
        found: tuple[Parting, ...] = ()
        if not self.cascade.tensors[producer].iterative:  # of a state, every step inside stays
            ranks = self.cascade.full_ranks(producer)
            found = around_one(before, after, {x for r in ranks for x in self.group.leaves(r, self.cascade)})
        if nest is None:
            return found
        return found + tuple(
            Parting(x) for x in sorted(set(after))
            if depth_of(producer, self.reductions, frozenset({x})) != depth_of(reader, self.reductions, frozenset({x}))
        )  # fmt: skip

    def _in_registers(self, producer: str, reader: str) -> bool:
        """Whether a reader takes a value as it is made: bound together, with no completed reduction between."""
        if producer not in self.inside:
            return False
        a, b = self.group.bindings[producer], self.group.bindings[reader]
        depths = [depth_of(n, self.reductions, self.every_leaf) for n in (producer, reader)]
        return a.key == b.key and depths[0] == depths[1]

    def write(self, name: str, access: Access) -> list[Move]:
        chain = self.chain(name, access.tensor, writes=True)
        if not chain:
            return []
        accumulates = bool(reduced_ranks(self.inside[name]))
        found: list[Move] = []
        ends: list[tuple[str | None, Keep | None]] = [*chain, (None, None)]
        for (outer, held), (inner, keep) in pairwise(ends):
            tile = self.tile(name, access, self.prefix(name, keep))
            spills = _spilling(held, keep)
            found.append(Move((name, inner, outer, "write"), name, inner, outer, tile, spills=spills))
            if accumulates:
                found.append(
                    Move((name, outer, inner, "partial"), name, outer, inner, tile, after_first=True, spills=spills)
                )
        return found

    def footprints(self) -> list[Footprint]:
        found = []
        for keep in self.group.keeps:
            tiles = []
            for name, einsum in self.inside.items():
                if not holds(keep.under, self.nests[name], self.group, self.cascade):
                    continue
                outside = self._generation(keep.tensor, self.prefix(name, keep))
                for access in (*reads(einsum), einsum.target):
                    if access.tensor == keep.tensor:
                        dims = tuple(d for d in dims_of(access, self.group, self.cascade) if not d.iterative)
                        tiles.append((self.nest(name, keep), Tile(name, dims, outside)))
            found.append(Footprint(keep, tuple(tiles)))
        return found

    def _generation(self, tensor: str, outside: tuple[str, ...]) -> tuple[str, ...]:
        """The loops whose steps put another tile in the place of one. A state is read again a step later, after all
        that the loops inside the stepped one have made: it is held for each of their steps."""
        stepped = {x for r in self.cascade.tensors[tensor].iterative for x in self.group.leaves(r, self.cascade)}
        inside = next((self.group.loops[i:] for i, x in enumerate(self.group.loops) if x in stepped), ())
        first = next((i for i, x in enumerate(outside) if x in stepped or x in inside), len(outside))
        return outside[:first]


def _spilling(*keeps: Keep | None) -> tuple[Keep, ...]:
    return tuple(k for k in keeps if k and k.spill is not False)


def drains_of(
    group: Group, inside: Mapping[str, Einsum], nests: Mapping[str, Nest], cascade: Cascade, arch: Architecture
) -> list[list[Drain]]:
    """For each stage, the spatial reductions of the stage before that it waits for, when tiles do not interleave."""
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


def spatial_reductions(group: Group, cascade: Cascade, arch: Architecture) -> dict[str, Drain]:
    """The spatial reduction of each Einsum of a group that has one."""
    einsums = {n: e for n, e in main_einsums(cascade).items() if n in group.bindings}
    found: dict[str, Drain] = {}
    for n, e in einsums.items():
        found |= _reduction_drain(n, e, nest_of(e, group, cascade), group, cascade, arch)
    return found


def _reduction_drain(made: str, einsum: Einsum, nest: Nest, group: Group, cascade: Cascade, arch: Architecture):
    reduced = {x for r in reduced_ranks(einsum) for x in group.leaves(r, cascade)}
    binding = group.bindings[made]
    unit = arch.units[binding.unit]
    for dimension, leaves in binding.spatial.items():
        over = tuple(x for x in leaves if x in reduced)
        if over:
            return {made: Drain(made, unit.shape[dimension], over, nest.shared)}
    return {}
