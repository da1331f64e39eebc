"""Numbers for a plan: time, traffic, energy and space of one group, for given extents and tile sizes.

Every function takes sizes that are plain numbers or NumPy arrays of them (one element a candidate mapping), so that the
same expressions serve one evaluation and a search over many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fusemodel.cascade.printer import format_expr
from fusemodel.model.amounts import Amount, Sizes, are_numbers, ceil_div, maximum, minimum, present, product
from fusemodel.model.blocks import BlockTime, block_time
from fusemodel.model.blockwork import block_work, steps_taken, through_caches
from fusemodel.model.decided import Rows
from fusemodel.model.frame import Frame, loose_ranks, ragged_frames, settled
from fusemodel.model.movement import by_products, ends_of, in_blocks, is_product, one_by_one
from fusemodel.model.plan import EinsumPlan, Move, Plan
from fusemodel.model.recurrence import Drain, Recurrence
from fusemodel.model.space import Space, space_of
from fusemodel.model.steps import Steps


@dataclass
class Traffic:
    """Words read and written at one level for one tensor."""

    read: Amount = 0
    write: Amount = 0


@dataclass
class EinsumCost:
    """One Einsum: ``cycles`` it holds its unit, and others ``beside`` it; and the part of the unit's slots it fills."""

    cycles: Amount
    points: Amount
    outputs: Amount
    work_slots: Amount
    energy_pj: Amount
    register_pj: Amount
    beside: dict[str, Amount] = field(default_factory=dict)


@dataclass
class GroupCost:
    """One group. Traffic is in words, as is what is ``moved`` (one move for all that share a key).

    ``need_words`` is the space wanted at each level, ``excess_words`` what there is too much of.
    """

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
    blocks: BlockTime | None = None
    moved: list[tuple[Move, Amount]] = field(default_factory=list)


def cost_of(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> GroupCost:
    """Evaluate a plan. With arrays in ``sizes`` every result is an array; blocks (:func:`in_blocks`) take plain
    numbers, and some bounds do (:class:`Inexact`)."""
    plan = settled(plan)
    loose = loose_ranks(plan, sizes, extents)
    frames = ragged_frames(plan, extents, loose)
    if are_numbers(sizes):
        return cost_in(plan, frames, sizes, extents, products=is_product(plan, extents, loose))
    if in_blocks(plan):
        raise ValueError("counts of this plan need plain numbers")
    bounds: list[str] = []
    counter = Rows(plan, sizes, extents, bounds)
    cost = cost_in(plan, {n: f.with_counter(counter) for n, f in frames.items()}, sizes, extents, products=True)
    cost.notes += [n for n in bounds if n not in cost.notes]
    return cost


def excess_of(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> dict[str, Amount]:
    """Words that there are too many of at each level, without the rest of the cost."""
    plan = settled(plan)
    frames = ragged_frames(plan, extents, loose_ranks(plan, sizes, extents))
    if not are_numbers(sizes):
        counter = Rows(plan, sizes, extents, [])
        frames = {n: f.with_counter(counter) for n, f in frames.items()}
    return space_of(plan, frames, sizes, extents, []).excess


def cost_in(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, extents: Sizes, *, products: bool) -> GroupCost:
    """Evaluate a settled plan in the frames of its Einsums; ``products``: every count is a product of sizes, or one
    that a counter stands for."""
    notes: list[str] = []
    for name, frame in frames.items():
        notes += [f"{name}: `{format_expr(c)}` depends on data; every point is charged" for c in frame.other]
        if frame.doubtful:
            notes.append(f"{name}: what follows an absent step or choice is charged, an upper bound")
    steps_of = steps_taken(plan, frames, sizes)
    einsums = {n: _einsum_cost(e, frames[n], sizes, notes, steps_of) for n, e in plan.einsums.items()}
    space = space_of(plan, frames, sizes, extents, notes)
    moved = by_products(plan, frames, sizes) if products else one_by_one(plan, frames, sizes, notes)
    traffic, by_einsum = _traffic(plan, space, moved)
    if any(level.kind == "cache" for level in plan.arch.levels.values()):
        asked = {n: {t: (v.read, v.write) for t, v in found.items()} for n, found in traffic.items()}
        passed = through_caches(plan, asked, extents)
        traffic = {n: {t: Traffic(*words) for t, words in found.items()} for n, found in passed.items()}
    schedule, drain, critical = _schedule(plan, frames, einsums, sizes)
    memory: dict[str, Amount] = {}
    for name, level in plan.arch.levels.items():
        if level.bandwidth_bytes_per_s is not None:
            total = sum(t.read + t.write for t in traffic.get(name, {}).values())
            seconds = total * plan.arch.word_bytes / level.bandwidth_bytes_per_s
            memory[name] = seconds * plan.arch.clock_hz
    cycles = schedule
    for value in memory.values():
        cycles = maximum(cycles, value)
    blocks = None
    if plan.group.grid or plan.group.launch or plan.arch.instances > 1:
        by_level = {n: sum(t.read + t.write for t in found.values()) for n, found in traffic.items() if found}
        work = block_work(plan, frames, stage_cycles(plan, einsums), by_level, by_einsum, sizes)
        blocks = block_time(work, plan.group, plan.arch)
        cycles = blocks.total_s * plan.arch.clock_hz
        memory = {n: v * plan.arch.clock_hz for n, v in blocks.level_s.items()}
    return GroupCost(
        cycles, schedule, drain, memory, critical, einsums, traffic, by_einsum,
        space.need, space.excess, space.spill, space.footprint, list(dict.fromkeys(notes)), blocks, moved,
    )  # fmt: skip


def stage_cycles(plan: Plan, einsums: Mapping[str, EinsumCost]) -> list[dict[str, Amount]]:
    """Cycles that each stage of the schedule holds each unit."""
    stages: list[dict[str, Amount]] = []
    for stage in plan.group.stages:
        busy: dict[str, Amount] = {}
        for name in stage:
            cost = einsums[name]
            for unit, value in ((plan.einsums[name].unit, cost.cycles), *cost.beside.items()):
                busy[unit] = busy.get(unit, 0) + value
        stages.append(busy)
    return stages


def _einsum_cost(
    einsum: EinsumPlan, frame: Frame, sizes: Sizes, notes: list[str],
    taken: Callable[[Sequence[str]], Amount] | None,
) -> EinsumCost:  # fmt: skip
    kept = tuple(x for x in einsum.leaves if x not in einsum.reduced)
    temporal = tuple(x for x in einsum.temporal if x not in einsum.reduced)
    spaces = [leaves for _, leaves in einsum.folds]
    kept_spaces = [[x for x in leaves if x not in einsum.reduced] for leaves in spaces]
    lengths = [length for length, _ in einsum.folds]
    count = Steps(frame, sizes, taken)
    points, outputs = count.points(einsum.leaves), count.points(kept)
    if taken is not None:
        every = count.points(einsum.temporal)
        points = points * min(taken(einsum.temporal) / every, 1) if every else points
    cycles = count.busy(einsum.temporal, spaces, lambda *n: _folds(n, lengths)) * einsum.cycles_per_point
    slots = points * einsum.cycles_per_point
    energy = points * einsum.energy_pj_per_point
    if present(einsum.cycles_per_output):
        turns = count.busy(temporal, kept_spaces, lambda *n: _folds(n, lengths))
        cycles = cycles + turns * einsum.cycles_per_output
        slots = slots + outputs * einsum.cycles_per_output
        energy = energy + outputs * einsum.energy_pj_per_output
    beside = {}
    for unit, size, per_point, per_output in einsum.beside:
        spatial = [x for leaves in spaces for x in leaves]
        beside[unit] = count.busy(einsum.temporal, [spatial], lambda n, size=size: ceil_div(n, size)) * per_point
        if per_output:
            apart = [x for x in spatial if x not in einsum.reduced]
            turns = count.busy(temporal, [apart], lambda n, size=size: ceil_div(n, size))
            beside[unit] = beside[unit] + turns * per_output
    if not count.exact:
        notes.append(f"{einsum.name}: its cycles are an upper bound: its conditions leave too much to count")
    return EinsumCost(cycles, points, outputs, slots, energy, points * einsum.register_pj_per_point, beside)


def _folds(lanes: Sequence[Amount], lengths: Sequence[int]) -> Amount:
    """How often a unit is filled with what is spread over each of its dimensions."""
    total: Amount = 1
    for n, length in zip(lanes, lengths, strict=True):
        total = total * ceil_div(n, length)
    return total


def _traffic(plan: Plan, space: Space, moved: list[tuple[Move, Amount]]):
    """Words by level and tensor, and by level and Einsum."""
    traffic: dict[str, dict[str, Traffic]] = {level: {} for level in plan.arch.levels}
    by_einsum: dict[tuple[str, str], Amount] = {}
    for move, amount in moved:
        for level, part, write in ends_of(plan, move, amount, space):
            entry = traffic[level].get(move.tensor)
            if entry is None:
                entry = traffic[level][move.tensor] = Traffic()
            if write:
                entry.write = entry.write + part
            else:
                entry.read = entry.read + part
            by_einsum[level, move.tile.einsum] = by_einsum.get((level, move.tile.einsum), 0) + part
    return traffic, by_einsum


def _schedule(
    plan: Plan, frames: Mapping[str, Frame], einsums: dict[str, EinsumCost], sizes: Sizes
) -> tuple[Amount, Amount, dict[str, Amount]]:
    """Cycles of the stages one after another, those of drains among them, and what each unit is critical for."""
    total: Amount = 0
    drains: Amount = 0
    critical: dict[str, Amount] = {}
    for busy, waited in zip(stage_cycles(plan, einsums), plan.drains, strict=True):
        longest: Amount = 0
        for value in busy.values():
            longest = maximum(longest, value)
        for unit, value in busy.items():
            critical[unit] = critical.get(unit, 0) + (value >= longest) * value
        drained: Amount = 0
        for drain in waited:
            drained = maximum(drained, _drain_cycles(drain, frames[drain.producer], sizes))
        total = total + longest + drained
        drains = drains + drained
    if plan.recurrences:
        waits: Amount = 0
        for recurrence in plan.recurrences:
            waits = maximum(waits, recurrence_cycles(plan, frames, recurrence, einsums, sizes))
        critical["recurrence"] = (waits > total) * waits
        total = maximum(total, waits)
    return total, drains, critical


def recurrence_cycles(
    plan: Plan, frames: Mapping[str, Frame], recurrence: Recurrence, einsums: Mapping[str, EinsumCost], sizes: Sizes,
) -> Amount:  # fmt: skip
    """Cycles below which the steps of a recurrence cannot follow each other: each waits for the one before, and so many
    are in flight as tiles are independent. ``einsums`` may be some of its Einsums, for their part of it."""
    total: Amount = 0
    for name in recurrence.einsums:
        if name in einsums:
            total = total + einsums[name].cycles
    for drain in recurrence.drains:
        if drain.producer in einsums:
            total = total + _drain_cycles(drain, frames[drain.producer], sizes)
    return total / _between(plan, frames, recurrence, sizes)


def _between(plan: Plan, frames: Mapping[str, Frame], recurrence: Recurrence, sizes: Sizes) -> Amount:
    """Tiles between two steps of a recurrence: where some steps have fewer than others, as many as on average."""
    name = recurrence.einsums[0]
    if not frames[name].roots:
        return product(recurrence.between, sizes)
    loops = [x for x in plan.group.loops if x in plan.einsums[name].leaves]
    steps = [x for x in loops if x not in recurrence.between]
    return frames[name].steps(loops, sizes) / frames[name].steps(steps, sizes)


def _drain_cycles(drain: Drain, frame: Frame, sizes: Sizes) -> Amount:
    lanes = [drain.leaves]
    return Steps(frame, sizes, None).busy(drain.loops, lanes, lambda n: minimum(n, drain.length))
