"""Numbers for a plan: time, traffic, energy and space of one group, for given extents and tile sizes.

Every function takes sizes that are plain numbers or NumPy arrays of them (one element a candidate mapping), so that the
same expressions serve one evaluation and a search over many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import Apply, Expr, Extent, Number, RankValue
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import InputError
from fusemodel.model.domain import Linear, constraints, count, on_leaves
from fusemodel.model.plan import Dim, Drain, EinsumPlan, Footprint, Move, Plan, Tile

#: A number, or an array with one element for each candidate.
Amount: TypeAlias = Any
Sizes: TypeAlias = Mapping[str, Amount]


@dataclass
class Traffic:
    """Words read and written at one level for one tensor."""

    read: Amount = 0
    write: Amount = 0


@dataclass
class EinsumCost:
    """One Einsum: ``cycles`` it holds its unit, and the part of the unit's slots it fills."""

    cycles: Amount
    points: Amount
    outputs: Amount
    work_slots: Amount
    energy_pj: Amount
    register_pj: Amount


@dataclass
class GroupCost:
    """One group. Traffic is in words; ``need_words`` is the space wanted at each level, ``excess_words`` what is over."""

    cycles: Amount
    schedule_cycles: Amount
    drain_cycles: Amount
    memory_cycles: dict[str, Amount]
    critical_cycles: dict[str, Amount]
    einsums: dict[str, EinsumCost]
    traffic: dict[str, dict[str, Traffic]]
    by_einsum: dict[tuple[str, str], Amount]
    need_words: dict[str, Amount]
    excess_words: dict[str, Amount]
    spill: dict[str, Amount]
    footprint_words: dict[str, dict[str, Amount]]
    notes: list[str] = field(default_factory=list)


def maximum(a: Amount, b: Amount) -> Amount:
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def minimum(a: Amount, b: Amount) -> Amount:
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def ceil_div(a: Amount, b: int) -> Amount:
    return -(-a // b)


def steps(loops: tuple[tuple[str, bool], ...], sizes: Sizes) -> Amount:
    """Times a tile is brought: steps of every loop from the outermost to the innermost that changes it."""
    total: Amount = 1
    active: Amount = False
    for leaf, changes in loops:
        size = sizes[leaf]
        if isinstance(size, np.ndarray) or isinstance(active, np.ndarray):
            active = active | ((size > 1) if changes else False)
            total = total * np.where(active, size, 1)
        else:
            if changes and size > 1:
                active = True
            if active:
                total *= size
    return total


def active_loops(loops: tuple[tuple[str, bool], ...], sizes: Sizes) -> list[str]:
    """The loops that :func:`steps` multiplies (plain numbers only)."""
    for i, (leaf, changes) in enumerate(loops):
        if changes and sizes[leaf] > 1:
            return [x for x, _ in loops[i:]]
    return []


def span(dim: Dim, inner: frozenset[str], sizes: Sizes, extents: Mapping[str, int], *, live: bool = False) -> Amount:
    """Distinct values of one index while ``inner`` leaves run; of an iterative rank one is ``live`` at a time."""
    if live and dim.iterative:
        return 1
    product: Amount = 1
    for leaf in dim.leaves:
        if leaf in inner:
            product = product * sizes[leaf]
    if dim.pure:
        if live and dim.split:
            return minimum(product, extents[dim.split])
        return product
    limit = extents[dim.rank] + dim.iterative
    if not dim.affine:
        return minimum(product, limit)
    reach: Amount = 1
    for leaves, coefficient in dim.terms:
        factor = coefficient if isinstance(coefficient, int) else abs(int(evaluate(coefficient, extents)))
        stride: Amount = 1
        for leaf in reversed(leaves):
            if leaf in inner:
                reach = reach + factor * stride * (sizes[leaf] - 1)
            stride = stride * sizes[leaf]
    return minimum(minimum(product, reach), limit)


def words(tile: Tile, sizes: Sizes, extents: Mapping[str, int], *, live: bool = False) -> Amount:
    """Words of a tile."""
    total: Amount = 1
    for dim in tile.dims:
        total = total * span(dim, tile.inner, sizes, extents, live=live)
    return total


def ragged_share(tile: Tile, extents: Mapping[str, int], splits: Mapping[str, tuple[str, str]]) -> float:
    """The part of padded tiles that exists, where a split does not divide its rank."""
    share = 1.0
    for dim in tile.dims:
        if dim.split:
            outer, inner = splits[dim.split]
            padded = extents[outer] * extents[inner]
            if padded != extents[dim.split]:
                share *= extents[dim.split] / padded
    return share


def cost_of(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> GroupCost:
    """Evaluate a plan. With arrays in ``sizes`` every result is an array, and conditions must be trivial."""
    batch = any(isinstance(n, np.ndarray) for n in sizes.values())
    notes: list[str] = []
    forms = {n: _forms(e, sizes, extents, batch, notes) for n, e in plan.einsums.items()}
    einsums = {n: _einsum_cost(plan, e, forms[n], sizes) for n, e in plan.einsums.items()}
    space = _space(plan, sizes, extents)
    traffic, by_einsum = _traffic(plan, sizes, extents, forms, space)
    schedule, drain, critical = _schedule(plan, einsums, sizes)
    memory: dict[str, Amount] = {}
    for name, level in plan.arch.levels.items():
        if level.bandwidth_bytes_per_s:
            total = sum(t.read + t.write for t in traffic.get(name, {}).values())
            seconds = total * plan.arch.word_bytes / level.bandwidth_bytes_per_s
            memory[name] = seconds * plan.arch.clock_hz
    cycles = schedule
    for value in memory.values():
        cycles = maximum(cycles, value)
    return GroupCost(
        cycles, schedule, drain, memory, critical, einsums, traffic, by_einsum,
        space.need, space.excess, space.spill, space.footprint, notes,
    )  # fmt: skip


def has_conditions(plan: Plan, extents: Mapping[str, int]) -> bool:
    """Whether some point may be absent for these extents, so that counts need plain numbers."""
    return any(_binding_forms(e, extents) for e in plan.einsums.values())


def _binding_forms(einsum: EinsumPlan, extents: Mapping[str, int]) -> list[Linear]:
    """The linear conditions that some point fails."""
    forms, _ = constraints(einsum.conditions, extents)
    return [
        f for f in forms if f.constant + sum(max(0, c * (extents[r] - 1)) for r, c in f.coefficients.items()) > 0
    ]  # fmt: skip


def _forms(einsum: EinsumPlan, sizes: Sizes, extents: Mapping[str, int], batch: bool, notes: list[str]) -> list[Linear]:
    if not einsum.conditions:
        return []
    _, other = constraints(einsum.conditions, extents)
    for condition in other:
        notes.append(f"{einsum.name}: `{format_expr(condition)}` depends on data; every point is charged")
    forms = _binding_forms(einsum, extents)
    if forms and batch:
        raise ValueError("conditions need plain numbers")
    return on_leaves(forms, einsum.ranks, sizes) if forms else []


def _einsum_cost(plan: Plan, einsum: EinsumPlan, forms: list[Linear], sizes: Sizes) -> EinsumCost:
    points: Amount = 1
    outputs: Amount = 1
    for leaf in einsum.leaves:
        points = points * sizes[leaf]
        if leaf not in einsum.reduced:
            outputs = outputs * sizes[leaf]
    turns: Amount = 1
    output_turns: Amount = 1
    for leaf in einsum.temporal:
        turns = turns * sizes[leaf]
        if leaf not in einsum.reduced:
            output_turns = output_turns * sizes[leaf]
    folds: Amount = 1
    for length, leaves in einsum.folds:
        over: Amount = 1
        for leaf in leaves:
            over = over * sizes[leaf]
        folds = folds * ceil_div(over, length)
    if forms:
        points = count(forms, einsum.leaves, sizes)
        turns = count(forms, einsum.temporal, sizes)
    cycles = turns * folds * einsum.cycles_per_point
    slots = points * einsum.cycles_per_point
    energy = points * einsum.energy_pj_per_point
    if einsum.cycles_per_output:
        cycles = cycles + output_turns * folds * einsum.cycles_per_output
        slots = slots + outputs * einsum.cycles_per_output
        energy = energy + outputs * einsum.energy_pj_per_output
    return EinsumCost(cycles, points, outputs, slots, energy, points * einsum.register_pj_per_point)


@dataclass
class _Space:
    need: dict[str, Amount]
    excess: dict[str, Amount]
    spill: dict[str, Amount]
    footprint: dict[str, dict[str, Amount]]
    fraction: dict[tuple[str, str], Amount]


def _space(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> _Space:
    """Space at each level, what is over, and the fraction of the tensors that may spill which does."""
    space = _Space({}, {}, {}, {}, {})
    named = {**extents, **sizes}
    for name, level in plan.arch.levels.items():
        fixed: Amount = 0
        spilling: Amount = 0
        shared: dict[str, Amount] = {}
        can_spill: dict[str, bool] = {}
        may_spill = []
        held: dict[str, Amount] = {}
        for footprint in plan.footprints:
            keep = footprint.keep
            if keep.level != name:
                continue
            size = _footprint(footprint, sizes, extents) * keep.copies
            held[keep.tensor] = size
            if keep.share:
                shared[keep.share] = maximum(shared.get(keep.share, 0), size)
                can_spill[keep.share] = can_spill.get(keep.share, True) and keep.spill is True
            elif keep.spill is True:
                spilling = spilling + size
            elif keep.spill is False:
                fixed = fixed + size
            else:
                fixed = fixed + size * (1 - keep.spill)
            if keep.spill is not False:
                may_spill.append(keep)
        for block, size in shared.items():
            if can_spill[block]:
                spilling = spilling + size
            else:
                fixed = fixed + size
        if name in plan.group.reserve:
            reserved = _amount(plan.group.reserve[name], named)
            fixed = fixed + reserved
            held["(reserved)"] = reserved
        if level.size_bytes is None and name not in plan.group.budget_bytes:
            space.need[name], space.excess[name], space.spill[name] = fixed + spilling, 0, 0
            continue
        limit = min(level.size_bytes or float("inf"), plan.group.budget_bytes.get(name, float("inf")))
        capacity = limit / plan.arch.word_bytes
        over = maximum(fixed + spilling - capacity, 0)
        fraction = _divide(minimum(over, spilling), spilling)
        space.need[name] = fixed + spilling
        space.excess[name] = maximum(fixed - capacity, 0)
        space.spill[name] = fraction
        space.footprint[name] = held
        for keep in may_spill:
            space.fraction[name, keep.tensor] = fraction if keep.spill is True else keep.spill
    return space


def _divide(a: Amount, b: Amount) -> Amount:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.where(np.asarray(b) > 0, a / np.maximum(b, 1), 0.0)
    return a / b if b else 0.0


def _amount(expr: Expr, sizes: Sizes) -> Amount:
    """A size expression over numbers or arrays."""
    match expr:
        case Number(value):
            return value
        case Extent(name) | RankValue(name):
            return sizes[name]
        case Apply("+", (a, b)):
            return _amount(a, sizes) + _amount(b, sizes)
        case Apply("-", (a, b)):
            return _amount(a, sizes) - _amount(b, sizes)
        case Apply("*", (a, b)):
            return _amount(a, sizes) * _amount(b, sizes)
        case Apply("/", (a, b)):
            return _amount(a, sizes) / _amount(b, sizes)
        case Apply("//", (a, b)):
            return _amount(a, sizes) // _amount(b, sizes)
        case Apply("min", (a, b)):
            return minimum(_amount(a, sizes), _amount(b, sizes))
        case Apply("max", (a, b)):
            return maximum(_amount(a, sizes), _amount(b, sizes))
        case Apply("neg", (a,)):
            return -_amount(a, sizes)
    raise InputError(f"`{format_expr(expr)}` cannot be a size")


def _footprint(footprint: Footprint, sizes: Sizes, extents: Mapping[str, int]) -> Amount:
    largest: Amount = 0
    for tile in footprint.tiles:
        largest = maximum(largest, words(tile, sizes, extents, live=True))
    return largest


def _move_words(plan: Plan, move: Move, sizes: Sizes, extents: Mapping[str, int], forms: list[Linear]) -> Amount:
    brought = count(forms, active_loops(move.loops, sizes), sizes) if forms else steps(move.loops, sizes)
    moved = brought * words(move.tile, sizes, extents)
    share = ragged_share(move.tile, extents, plan.cascade.split)
    if share != 1.0:
        moved = moved * share
    if move.after_first:
        whole = Tile(move.tile.dims, frozenset(x for d in move.tile.dims for x in d.leaves))
        moved = maximum(moved - words(whole, sizes, extents) * share, 0)
    return moved


def _traffic(plan: Plan, sizes: Sizes, extents, forms, space: _Space):
    traffic: dict[str, dict[str, Traffic]] = {level: {} for level in plan.arch.levels}
    by_einsum: dict[tuple[str, str], Amount] = {}
    order = list(plan.arch.levels)
    largest: dict[tuple[object, ...], tuple[Move, Amount]] = {}
    for move in plan.moves:
        amount = _move_words(plan, move, sizes, extents, forms[move.einsum])
        known = largest.get(move.key)
        largest[move.key] = (move, maximum(amount, known[1]) if known else amount)

    def charge(level: str | None, move: Move, amount: Amount, write: bool) -> None:
        if level is None:
            return
        entry = traffic[level].setdefault(move.tensor, Traffic())
        if write:
            entry.write = entry.write + amount
        else:
            entry.read = entry.read + amount
        by_einsum[level, move.einsum] = by_einsum.get((level, move.einsum), 0) + amount

    for move, amount in largest.values():
        for level, write in ((move.source, False), (move.sink, True)):
            part = amount
            if move.spills and level == move.spills.level:
                fraction = space.fraction[level, move.tensor]
                if not move.forwarded:
                    charge(order[order.index(level) - 1], move, amount * fraction, write)
                part = amount * (1 - fraction)
            charge(level, move, part, write)
    return traffic, by_einsum


def _schedule(plan: Plan, einsums: dict[str, EinsumCost], sizes: Sizes) -> tuple[Amount, Amount, dict[str, Amount]]:
    """Cycles of the stages one after another, those of drains among them, and what each unit is critical for."""
    total: Amount = 0
    drains: Amount = 0
    critical: dict[str, Amount] = {}
    for stage, waits in zip(plan.group.stages, plan.drains, strict=True):
        busy: dict[str, Amount] = {}
        for name in stage:
            unit = plan.einsums[name].unit
            busy[unit] = busy.get(unit, 0) + einsums[name].cycles
        longest: Amount = 0
        for value in busy.values():
            longest = maximum(longest, value)
        for unit, value in busy.items():
            critical[unit] = critical.get(unit, 0) + (value >= longest) * value
        drained: Amount = 0
        for drain in waits:
            drained = maximum(drained, _drain_cycles(drain, sizes))
        total = total + longest + drained
        drains = drains + drained
    return total, drains, critical


def _drain_cycles(drain: Drain, sizes: Sizes) -> Amount:
    over: Amount = 1
    for leaf in drain.leaves:
        over = over * sizes[leaf]
    tiles: Amount = 1
    for leaf in drain.loops:
        tiles = tiles * sizes[leaf]
    return tiles * minimum(over, drain.length)
