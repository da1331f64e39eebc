"""Blocks of one mapping counted in closed form for arrays of extents: the fast form of :mod:`fusemodel.model.cost`.

It covers groups that run as blocks, with any number of ranks, ragged parts, and one pair of ranks of which only a
band is present (causal, windows). What it does not cover is refused, never approximated; the single evaluation is its
oracle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.cascade.arrays import evaluate_arrays, extents_arrays
from fusemodel.cascade.ir import Apply, Cascade, Expr, Extent, Number, RankValue, accesses
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import InputError
from fusemodel.mapping.spec import Design
from fusemodel.model.band import Band
from fusemodel.model.blocks import BlockTime, BlockWork, block_time, cached, tile_bytes
from fusemodel.model.evaluate import plans_of
from fusemodel.model.plan import EinsumPlan, Move, Plan

Array: TypeAlias = Any
_PJ = 1e-12
Sizes: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class GroupCounts:
    """One group: what its blocks ask, and the bytes that the outermost level must move once."""

    plan: Plan
    work: BlockWork
    counter: _Counter
    once_bytes: Array
    moved: Mapping[str, Mapping[str, tuple[Array, Array]]]
    element_bytes: Mapping[str, Array]

    def levels(self, arch: Architecture, warm: bool | None) -> Mapping[str, Mapping[str, tuple[Array, Array]]]:
        """Bytes read and written by level and tensor, from caches that are warm (None: as the mapping says)."""
        keeps = self.plan.group.warm if warm is None else warm
        return cached(arch, self.moved, self.element_bytes, self.plan.group, keeps)


@dataclass(frozen=True)
class BatchCounts:
    """A design counted for arrays of extents. ``usable`` marks those for which every extent is whole and positive."""

    design: Design
    groups: tuple[GroupCounts, ...]
    usable: Array

    def seconds(self, arch: Architecture | None = None, *, warm: bool | None = None) -> Array:
        """Predicted time, perhaps with other efficiencies of the same machine, or other contents of its caches."""
        return sum(t.total_s for t in self.times(arch, warm=warm))

    def times(self, arch: Architecture | None = None, *, warm: bool | None = None) -> list[BlockTime]:
        """The time of each group, by parts."""
        arch = arch or self.design.arch
        found = []
        for g in self.groups:
            levels = g.levels(arch, warm)
            level_bytes = {n: sum(r + w for r, w in tensors.values()) for n, tensors in levels.items() if tensors}
            work = replace(g.work, level_bytes=level_bytes)
            found.append(block_time(work, g.plan.group, arch))
        return found

    def energy_j(self, arch: Architecture | None = None, *, warm: bool | None = None) -> Array:
        """Energy of the operations, of what is moved, and of rest meanwhile, in joules."""
        arch = arch or self.design.arch
        total: Array = arch.idle_w * self.seconds(arch, warm=warm)
        for g in self.groups:
            total = total + g.counter.operations_pj() * _PJ
            for name, tensors in g.levels(arch, warm).items():
                level = arch.levels[name]
                for read, written in tensors.values():
                    moved_pj = (read * level.read_pj + written * level.write_pj) / level.access_bytes
                    total = total + moved_pj * _PJ
        return total

    def roofline_seconds(self) -> Array:
        """The longest of each unit's operations and the outermost level's compulsory bytes, at data-sheet rates; summed
        over groups."""
        arch = self.design.arch
        level = arch.levels[arch.outermost]
        total: Array = 0.0
        for g in self.groups:
            bound: Array = g.once_bytes / (level.bandwidth_bytes_per_s or np.inf)
            for unit, cycles in g.counter.useful_cycles().items():
                bound = np.maximum(bound, cycles / (arch.units[unit].size * arch.instances * arch.clock_hz))
            total = total + bound
        return total


def count_batch(design: Design, extents: Mapping[str, Array]) -> BatchCounts:
    """Count a design for arrays of extents of its cascade; InputError for what has no closed form here."""
    sizes, usable = extents_arrays(design.cascade, extents, design.extents)
    length = np.broadcast_shapes(*(np.shape(v) for v in sizes.values()))
    safe = {r: np.where(usable, np.broadcast_to(v, length), 1.0) for r, v in sizes.items()}
    groups = []
    for plans, candidates in zip(plans_of(design), design.groups, strict=True):
        plan = plans[0]
        if candidates.minimise or plans[1:] or plan.group.parts:
            raise InputError(f"group {plan.group.name!r} leaves tiles to be chosen", plan.group.places[""],
                             expected="`split` and sizes in `tile`, to be counted for many at once")  # fmt: skip
        groups.append(_Counter(plan, safe).counts())
    return BatchCounts(design, tuple(groups), np.broadcast_to(usable, length))


class _Counter:
    """Counts one group at given sizes."""

    def __init__(self, plan: Plan, sizes: Sizes) -> None:
        self.plan, self.cascade, self.sizes = plan, plan.cascade, sizes
        self.parent = {part: whole for whole, parts in self.cascade.split.items() for part in parts}
        self.pair: tuple[str, str] | None = None
        self.by_einsum: dict[tuple[str, str], Array] = {}
        self.tiles: dict[tuple[str, ...], Array] = {}
        self.counted: dict[tuple[frozenset[str], int], Array] = {}
        found: dict[tuple[Expr, ...], Band | None] = {}
        for einsum in plan.einsums.values():
            if (key := self._relevant(einsum)) not in found:
                found[key] = self._band(key, einsum)
        self.bands = {n: found[self._relevant(e)] for n, e in plan.einsums.items()}

    def counts(self) -> GroupCounts:
        plan, group = self.plan, self.plan.group
        lead = self.bands[group.skip] if group.skip else None
        own = set(plan.einsums[group.skip].leaves) if group.skip else set()
        if lead is None and any(self.bands.values()):
            raise InputError("a group with absent points, all of whose steps are taken", group.places[""],
                             expected="`skip: EINSUM`, whose points say which are")  # fmt: skip

        def taken(loops: Iterable[str]) -> Array:
            if not group.skip:
                return self.elements(loops, None)
            inside = [x for x in loops if x in group.loops and x in own]
            outside = [x for x in loops if x not in inside]
            return self.elements(inside, lead) * self.product(outside)

        stages: list[dict[str, Array]] = []
        for stage in group.stages:
            busy: dict[str, Array] = {}
            for name in stage:
                for unit, cycles in self.unit_cycles(plan.einsums[name], taken):
                    busy[unit] = busy.get(unit, 0.0) + cycles
            stages.append(busy)
        blocks, steps = taken(group.grid), taken(group.loops)
        moved = self.moved()
        elements = {
            t: self.product(self.cascade.full_ranks(t)) * plan.arch.word_bytes
            for t in {t for tensors in moved.values() for t in tensors}
        }
        outer = moved[plan.arch.outermost]
        once = sum(np.minimum(r, elements[t]) + np.minimum(w, elements[t]) for t, (r, w) in outer.items())
        longest = self.longest(lead) / steps if group.skip else 1 / blocks
        exposed = [
            {level: sum(self.by_einsum.get((level, n), 0.0) for n in stage) for level in group.exposed}
            for stage in group.stages
        ]
        work = BlockWork(blocks, stages, longest, steps, {}, tile_bytes(plan, self.sizes), exposed)
        return GroupCounts(plan, work, self, once, moved, elements)

    def product(self, leaves: Iterable[str]) -> Array:
        total: Array = 1.0
        for leaf in leaves:
            total = total * self.sizes[leaf]
        return total

    def whole(self, leaf: str) -> str:
        """The rank that a part is a part of, however deep."""
        while leaf in self.parent:
            leaf = self.parent[leaf]
        return leaf

    def leaves(self, rank: str) -> tuple[str, ...]:
        """The parts of a rank, outermost first."""
        parts = self.cascade.split.get(rank)
        return tuple(x for part in parts for x in self.leaves(part)) if parts else (rank,)

    def unit_cycles(self, einsum: EinsumPlan, taken) -> list[tuple[str, Array]]:
        """Cycles that an Einsum holds each unit."""
        kept = [x for x in einsum.temporal if x not in einsum.reduced]
        spatial = [x for _, leaves in einsum.folds for x in leaves]
        unreduced = [x for x in spatial if x not in einsum.reduced]
        turns = taken(einsum.temporal)
        folds: Array = 1.0
        output_folds: Array = 1.0
        for length, leaves in einsum.folds:
            folds = folds * np.ceil(self.product(leaves) / length)
            output_folds = output_folds * np.ceil(self.product([x for x in leaves if x not in einsum.reduced]) / length)
        cycles = turns * folds * einsum.cycles_per_point
        output_turns = taken(kept) if einsum.cycles_per_output or any(b[3] for b in einsum.beside) else 0.0
        if einsum.cycles_per_output:
            cycles = cycles + output_turns * output_folds * einsum.cycles_per_output
        found = [(einsum.unit, cycles)]
        for unit, size, point, output in einsum.beside:
            held = turns * np.ceil(self.product(spatial) / size) * point
            if output:
                held = held + output_turns * np.ceil(self.product(unreduced) / size) * output
            found.append((unit, held))
        return found

    def useful_cycles(self) -> dict[str, Array]:
        """Cycles of the points alone, of one processing element of each unit."""
        total: dict[str, Array] = {}
        for einsum in self.plan.einsums.values():
            band = self.bands[einsum.name]
            points = self.elements(einsum.leaves, band)
            outputs = self.elements([x for x in einsum.leaves if x not in einsum.reduced], band)
            own = (einsum.unit, 1, einsum.cycles_per_point, einsum.cycles_per_output)
            for unit, _, of_point, of_output in (own, *einsum.beside):
                total[unit] = total.get(unit, 0.0) + points * of_point + outputs * of_output
        return total

    def operations_pj(self) -> Array:
        """Energy of the operations at the points that are present."""
        total: Array = 0.0
        for einsum in self.plan.einsums.values():
            band = self.bands[einsum.name]
            total = total + self.elements(einsum.leaves, band) * einsum.energy_pj_per_point
            if einsum.cycles_per_output:
                outputs = self.elements([x for x in einsum.leaves if x not in einsum.reduced], band)
                total = total + outputs * einsum.energy_pj_per_output
        return total

    def elements(self, leaves: Iterable[str], band: Band | None) -> Array:
        """Combinations of some leaves at which a point is present."""
        key = frozenset(leaves), id(band)
        if key not in self.counted:
            self.counted[key] = self._elements(key[0], band)
        return self.counted[key]

    def _elements(self, given: frozenset[str], band: Band | None) -> Array:
        total: Array = 1.0
        pair = self.pair if band is not None else None
        for rank in dict.fromkeys(self.whole(x) for x in given):
            if pair is None or rank not in pair:
                total = total * self.parts_of(rank, self.sizes[rank], given)
        if band is not None and pair is not None:
            within = [tuple(x for x in self.leaves(rank) if x in given)[-1:] for rank in pair]
            key = (*within[0], "|", *within[1], str(id(band)))
            if key not in self.tiles:
                self.tiles[key] = band.tiles(*(self.grain(rank, given) for rank in pair))
            total = total * self.tiles[key]
        return total

    def parts_of(self, rank: str, extent: Array, given: frozenset[str]) -> Array:
        """Combinations of the given leaves among ``extent`` coordinates of a rank."""
        leaves = self.leaves(rank)
        inner_leaves = [x for x in leaves if x in given]
        if not inner_leaves:
            return np.float64(1)
        if leaves[-1] in given:  # alone only where the outer parts have one step
            return extent
        outer, inner = self.cascade.split[rank]
        size = self.sizes[inner]
        if not set(self.leaves(inner)) & given:
            return self.parts_of(outer, np.ceil(extent / size), given)
        whole = np.floor(extent / size)
        rest = extent - whole * size
        last = np.where(rest > 0, self.parts_of(inner, np.maximum(rest, 1), given), 0)
        return whole * self.parts_of(inner, size, given) + last

    def grain(self, rank: str, given: Iterable[str]) -> Array:
        """How many coordinates of a rank one combination of the given leaves stands for."""
        leaves = self.leaves(rank)
        last = max((i for i, x in enumerate(leaves) if x in given), default=-1)
        grain = self.product(leaves[last + 1 :]) if last >= 0 else self.sizes[rank]
        for leaf in leaves[: last + 1]:
            part = self.parent.get(leaf)
            if part in self.parent and np.any(self.sizes[part] % grain):
                raise InputError(f"ragged parts of parts of {rank!r} have no closed form", self.plan.group.places[""])
        return grain

    def longest(self, band: Band | None) -> Array:
        """Steps of the shared loops in the longest block."""
        group = self.plan.group
        inner = [x for x in group.loops if x not in group.grid]
        if band is None or self.pair is None:
            return self.product(inner)
        within = {self.whole(x) for x in inner}
        rows, columns = self.pair
        if rows in within or columns not in within:
            raise InputError(f"blocks that divide {columns!r}, not {rows!r}, have no closed form",
                             group.places[""])  # fmt: skip
        rest = [x for x in inner if self.whole(x) != columns]
        return band.longest(self.grain(rows, group.grid), self.grain(columns, inner)) * self.product(rest)

    def moved(self) -> dict[str, dict[str, tuple[Array, Array]]]:
        """Bytes read and written, by level and tensor, at levels whose bandwidth matters."""
        arch = self.plan.arch
        timed = {arch.outermost} | {n for n, level in arch.levels.items() if level.bandwidth_bytes_per_s}
        found: dict[str, dict[str, tuple[Array, Array]]] = {level: {} for level in arch.levels}
        seen: set[object] = set()
        for move in self.plan.moves:
            if move.key in seen or not timed & {move.source, move.sink}:
                continue
            seen.add(move.key)
            if move.spills or any(d.data for d in move.tile.dims):
                raise InputError(f"the traffic of {move.tensor!r} has no closed form here", self.plan.group.places[""])
            words = self.words(move)
            if move.after_first:  # nothing is read before it was first written
                used = [x for d in move.tile.dims for x in d.all_leaves]
                words = np.maximum(words - self.elements(used, self.bands[move.tile.einsum]), 0)
            for level, write in ((move.source, False), (move.sink, True)):
                if level in timed:
                    amount = words * arch.word_bytes
                    read, written = found[level].get(move.tensor, (0.0, 0.0))
                    found[level][move.tensor] = (read, written + amount) if write else (read + amount, written)
                    key = level, move.tile.einsum
                    self.by_einsum[key] = self.by_einsum.get(key, 0.0) + amount
        return found

    def words(self, move: Move) -> Array:
        """Words of a move: elements of the tile, for each step of the loops down to the innermost that changes it."""
        tile, band = move.tile, self.bands[move.tile.einsum]
        used = {x for d in tile.dims for x in d.all_leaves}
        inside = [x for x in used if x not in tile.outside]
        loops = list(tile.outside)
        first = len([x for x in loops if x in self.plan.group.grid])  # blocks bring their tiles themselves
        result = self.elements([*loops[:first], *inside], band)
        for length in range(first + 1, len(loops) + 1):
            if loops[length - 1] in used:
                count = self.elements([*loops[:length], *inside], band)
                result = np.where(self.sizes[loops[length - 1]] > 1, count, result)
        return result

    @staticmethod
    def _relevant(einsum: EinsumPlan) -> tuple[Expr, ...]:
        """Conditions that no other one implies."""
        conditions = list(dict.fromkeys(c for e in einsum.conditions for c in _conjuncts(e)))
        implied = (isinstance(c, Apply) and c.op == "or" and any(a in conditions for a in c.args) for c in conditions)
        return tuple(c for c, follows in zip(conditions, implied, strict=True) if not follows)

    def _band(self, conditions: tuple[Expr, ...], einsum: EinsumPlan) -> Band | None:
        """The band of points that are present; None where all are, ragged parts aside."""
        above: Array | None = None
        below: Array | None = None
        scale: Array = 1.0
        for condition in conditions:
            for coefficients, constant in self._linear_conditions(condition):
                if not coefficients or self._in_range(coefficients, constant):
                    continue
                plus = [r for r, c in coefficients.items() if np.all(c > 0)]
                minus = [r for r, c in coefficients.items() if np.all(c < 0)]
                if len(plus) != 1 or len(minus) != 1 or len(coefficients) > 2:
                    raise self._refuse(condition, einsum)
                rows, columns = self.pair or self._oriented(minus[0], plus[0])
                if {rows, columns} != {plus[0], minus[0]} or np.any(np.abs(coefficients[rows]) != 1):
                    raise self._refuse(condition, einsum)
                self.pair = (rows, columns)
                new = np.abs(coefficients[columns])
                if np.any(scale != new) and not (above is None and below is None):
                    raise self._refuse(condition, einsum)
                scale = new
                if plus[0] == columns:  # scale * column - row + constant <= 0
                    above = -constant if above is None else np.minimum(above, -constant)
                else:
                    below = -constant if below is None else np.minimum(below, -constant)
        if above is None and below is None:
            return None
        assert self.pair is not None
        rows, columns = (self.sizes[r] for r in self.pair)
        return Band(
            rows, columns, columns * scale if above is None else above, rows + scale if below is None else below, scale
        )

    def _oriented(self, a: str, b: str) -> tuple[str, str]:
        """Two ranks of a band as rows and columns: rows are divided among blocks."""
        in_grid = {self.whole(x) for x in self.plan.group.grid}
        return (b, a) if b in in_grid and a not in in_grid else (a, b)

    def _refuse(self, condition: Expr, einsum: EinsumPlan) -> InputError:
        return InputError(f"{einsum.name!r} where `{format_expr(condition)}` has no closed form here",
                          self.plan.group.bindings[einsum.name].at)  # fmt: skip

    def _in_range(self, coefficients: Mapping[str, Array], constant: Array) -> bool:
        """Whether coordinates that exist meet a condition throughout."""
        worst: Array = constant
        for rank, c in coefficients.items():
            worst = worst + np.maximum(c, 0) * (self.sizes[rank] - 1)
        return bool(np.all(worst <= 0))

    def _linear_conditions(self, condition: Expr) -> list[tuple[dict[str, Array], Array]]:
        """Conditions as sums that are at most 0, over whole ranks."""
        if not isinstance(condition, Apply) or condition.op not in ("<", "<=", ">", ">=") or accesses(condition):
            raise InputError(f"`{format_expr(condition)}` has no closed form here", self.plan.group.places[""])
        left, right = (_linear(a, self.cascade, self.sizes) for a in condition.args)
        if condition.op in (">", ">="):
            left, right = right, left
        total = dict(left[0])
        for rank, c in right[0].items():
            total[rank] = total.get(rank, 0.0) - c
        constant = left[1] - right[1] + (1.0 if condition.op in ("<", ">") else 0.0)
        return [({r: c for r, c in total.items() if np.any(c != 0)}, constant)]


def _conjuncts(expr: Expr) -> list[Expr]:
    if isinstance(expr, Apply) and expr.op == "and":
        return [c for a in expr.args for c in _conjuncts(a)]
    return [expr]


def _linear(expr: Expr, cascade: Cascade, sizes: Sizes) -> tuple[dict[str, Array], Array]:
    """An expression as a sum over whole ranks, of those that are split too."""
    coefficients, constant = _terms(expr, sizes)
    for whole, (outer, inner) in reversed(_outer_first(cascade)):
        if inner in coefficients and outer in coefficients:
            if np.any(coefficients[outer] != coefficients[inner] * sizes[inner]):
                raise InputError(f"`{format_expr(expr)}` has no closed form here")
            coefficients[whole] = coefficients.get(whole, 0.0) + coefficients.pop(inner)
            del coefficients[outer]
    return coefficients, constant


def _outer_first(cascade: Cascade) -> list[tuple[str, tuple[str, str]]]:
    """The splits of a cascade, one of a rank before those of its parts."""
    found: list[tuple[str, tuple[str, str]]] = []
    pending = dict(cascade.split)
    while pending:
        parts = {x for pair in pending.values() for x in pair}
        whole = next(r for r in pending if r not in parts)
        found.append((whole, pending.pop(whole)))
    return found


def _terms(expr: Expr, sizes: Sizes) -> tuple[dict[str, Array], Array]:
    match expr:
        case RankValue(rank):
            return {rank: np.float64(1)}, np.float64(0)
        case Number() | Extent():
            return {}, evaluate_arrays(expr, sizes)
        case Apply("+" | "-", (a, b)):
            left, right = _terms(a, sizes), _terms(b, sizes)
            sign = 1.0 if expr.op == "+" else -1.0
            total = dict(left[0])
            for rank, c in right[0].items():
                total[rank] = total.get(rank, 0.0) + sign * c
            return total, left[1] + sign * right[1]
        case Apply("*", (a, b)):
            left, right = _terms(a, sizes), _terms(b, sizes)
            if left[0] and right[0]:
                raise InputError(f"`{format_expr(expr)}` has no closed form here")
            (of, const), scale = (left, right[1]) if left[0] else (right, left[1])
            return {r: c * scale for r, c in of.items()}, const * scale
        case Apply("neg", (a,)):
            of, const = _terms(a, sizes)
            return {r: -c for r, c in of.items()}, -const
    return {}, evaluate_arrays(expr, sizes)
