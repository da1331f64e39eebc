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
from fusemodel.model.elements import touched
from fusemodel.model.frame import Frame, frames_of, settled, words
from fusemodel.model.plan import EinsumPlan, Move, Plan, Tile, depth_of
from fusemodel.model.products import Shared, in_all, plain, plain_words, shared_tiles
from fusemodel.model.recurrence import Drain, Recurrence
from fusemodel.model.space import Space, space_of


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
    """One group. Traffic is in words; ``need_words`` is the space wanted at each level, and
    ``excess_words`` what there is too much of."""

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


def cost_of(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> GroupCost:
    """Evaluate a plan. With arrays in ``sizes`` every result is an array; :func:`needs_numbers` says when it cannot."""
    plan = settled(plan)
    batch = not are_numbers(sizes)
    if batch and needs_numbers(plan, extents):
        raise ValueError("counts of this plan need plain numbers")
    frames = frames_of(plan, extents)
    return cost_in(plan, frames, sizes, extents, products=batch or is_product(plan, extents))


def excess_of(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> dict[str, Amount]:
    """Words that there are too many of at each level, without the rest of the cost."""
    plan = settled(plan)
    return space_of(plan, frames_of(plan, extents), sizes, extents, []).excess


def cost_in(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, extents: Sizes, *, products: bool) -> GroupCost:
    """Evaluate a settled plan in the frames of its Einsums; ``products``: every count is a product of sizes."""
    notes: list[str] = []
    for name, frame in frames.items():
        notes += [f"{name}: `{format_expr(c)}` depends on data; every point is charged" for c in frame.other]
        if frame.doubtful:
            notes.append(f"{name}: what follows an absent step or choice is charged, an upper bound")
    steps_of = steps_taken(plan, frames, sizes)
    einsums = {n: _einsum_cost(e, frames[n], sizes, notes, steps_of) for n, e in plan.einsums.items()}
    space = space_of(plan, frames, sizes, extents, notes)
    moved = _products(plan, frames, sizes) if products else _exactly(plan, frames, sizes, notes)
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
        space.need, space.excess, space.spill, space.footprint, list(dict.fromkeys(notes)), blocks,
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


def moved_words(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> list[tuple[Move, Amount]]:
    """Words of every move of a plan (one move for all that share a key)."""
    plan = settled(plan)
    frames = frames_of(plan, extents)
    if not are_numbers(sizes) or is_product(plan, extents):
        return _products(plan, frames, sizes)
    return _exactly(plan, frames, sizes, [])


def needs_numbers(plan: Plan, extents: Mapping[str, int]) -> bool:
    """Whether counts need plain numbers: some point may be absent, or a tile is not a product over its indices."""
    plan = settled(plan)
    frames = frames_of(plan, extents)
    if "needs_numbers" not in plan.memo:
        plan.memo["needs_numbers"] = _needs_numbers(plan, frames)
    return plan.memo["needs_numbers"]


def is_product(plan: Plan, extents: Mapping[str, int]) -> bool:
    """Whether every count is a product of sizes, exactly."""
    if needs_numbers(plan, extents):
        return False
    plan = settled(plan)
    if "product" not in plan.memo:
        frames = frames_of(plan, extents)
        plan.memo["product"] = all(frames[m.tile.einsum].index(d) is not None for m in plan.moves for d in m.tile.dims)
    return plan.memo["product"]


def _needs_numbers(plan: Plan, frames: Mapping[str, Frame]) -> bool:
    if plan.group.grid or plan.arch.instances > 1:  # :mod:`fusemodel.model.batch` counts those for arrays
        return True
    if any(f.conditional for f in frames.values()) or any(m.separators for m in plan.moves):
        return True
    together: dict[object, list[tuple[str | None, Tile]]] = {}
    for move in plan.moves:
        if move.tile.guards and frames[move.tile.einsum].where(move.tile.guards) != [()]:
            return True
        together.setdefault(move.key, []).append((move.nest, move.tile))
    for held in (*together.values(), *(f.tiles for f in plan.footprints)):
        if held and (len({nest for nest, _ in held}) > 1 or shared_tiles(frames, [t for _, t in held]) is None):
            return True
    # in one nest, with a reduction between them over a loop outside the tile
    reduced = {x for read in plan.reductions.values() for leaves in read.values() for x in leaves}
    nested = [m for m in plan.moves if m.nest and reduced & set(m.tile.outside)]
    return len({m.key for m in nested}) < len(nested)


def _einsum_cost(
    einsum: EinsumPlan, frame: Frame, sizes: Sizes, notes: list[str],
    taken: Callable[[Sequence[str]], Amount] | None,
) -> EinsumCost:  # fmt: skip
    kept = tuple(x for x in einsum.leaves if x not in einsum.reduced)
    temporal = tuple(x for x in einsum.temporal if x not in einsum.reduced)
    points, outputs, turns, output_turns = (product(x, sizes) for x in (einsum.leaves, kept, einsum.temporal, temporal))
    folds: Amount = 1
    output_folds: Amount = 1
    for length, leaves in einsum.folds:
        folds = folds * ceil_div(product(leaves, sizes), length)
        output_folds = output_folds * ceil_div(product([x for x in leaves if x not in einsum.reduced], sizes), length)
    if frame.conditional:
        found = [frame.count(x, sizes) for x in (einsum.leaves, kept, einsum.temporal, temporal)]
        (points, outputs, turns, output_turns), exact = zip(*found, strict=True)
        if not all(exact):
            notes.append(f"{einsum.name}: its cycles are an upper bound: its conditions leave too much to count")
    if taken is not None:
        every, turns, output_turns = turns, taken(einsum.temporal), taken(temporal)
        points = points * min(turns / every, 1) if every else points
    cycles = turns * folds * einsum.cycles_per_point
    slots = points * einsum.cycles_per_point
    energy = points * einsum.energy_pj_per_point
    if present(einsum.cycles_per_output):
        cycles = cycles + output_turns * output_folds * einsum.cycles_per_output
        slots = slots + outputs * einsum.cycles_per_output
        energy = energy + outputs * einsum.energy_pj_per_output
    beside = {}
    for unit, size, per_point, per_output in einsum.beside:
        spatial = [x for _, leaves in einsum.folds for x in leaves]
        beside[unit] = turns * ceil_div(product(spatial, sizes), size) * per_point
        if per_output:
            kept_apart = [x for x in spatial if x not in einsum.reduced]
            beside[unit] = beside[unit] + output_turns * ceil_div(product(kept_apart, sizes), size) * per_output
    return EinsumCost(cycles, points, outputs, slots, energy, points * einsum.register_pj_per_point, beside)


def _moved(plan: Plan, moves: list[Move], frames: Mapping[str, Frame], sizes: Sizes, notes: list[str]) -> Amount:
    """Words of all moves with one key, plain numbers."""
    pools: list[list[Move]] = []
    for move in moves:
        pool = next((p for p in pools if _together(plan, p[0], move, sizes)), None)
        if pool is None:
            pools.append([move])
        else:
            pool.append(move)
    total: Amount = 0
    for pool in pools:
        classes: dict[object, list[Move]] = {}
        for move in pool:
            classes.setdefault(frames[move.tile.einsum].motion(move.tile, sizes), []).append(move)
        for (loops, _), alike in classes.items():  # type: ignore[misc]
            total += _brought(alike, loops, frames, sizes, notes)
    return total


def _together(plan: Plan, a: Move, b: Move, sizes: Sizes) -> bool:
    """Whether two Einsums find one tile: under a shared loop, or bound together with no reduction over a loop outside
    the tile completed between them."""
    if a.nest != b.nest:
        return False
    if a.nest is None:
        return True
    over = frozenset(x for x in a.tile.outside if sizes[x] > 1)
    return depth_of(a.tile.einsum, plan.reductions, over) == depth_of(b.tile.einsum, plan.reductions, over)


def _brought(
    moves: list[Move], loops: tuple[str, ...], frames: Mapping[str, Frame], sizes: Sizes, notes: list[str]
) -> Amount:
    """Words of accesses that share a tile, brought at each step of ``loops``."""
    every_part = (p for m in moves for p in frames[m.tile.einsum].touches(m.tile, sizes))
    parts = list({p.key(): p for p in every_part}.values())
    move = moves[0]
    frame = frames[move.tile.einsum]
    tiles = [m.tile for m in moves]
    if not parts:
        return 0
    if not any(p.forms for p in parts) and plain(frames, tiles):
        moved = product(loops, sizes) * plain_words(frames, tiles, sizes)
        exact = None not in parts[0].index
    else:
        every = {x: n for m in moves for x, n in frames[m.tile.einsum].with_quotients(sizes).items()}
        moved, exact = touched(parts, loops, every)
    if move.after_first:
        first, known = touched(parts, (), frame.with_quotients(sizes))
        moved = max(moved - first, 0) if known else moved
        exact = exact and known
    if not exact:
        notes.append(f"{move.tile.einsum}: the traffic of {move.tensor} is an upper bound")
    return moved


@dataclass(frozen=True, slots=True)
class _Product:
    """Moves with one key, by the tiles they share; ``whole`` has the leaves of the first one's tensor."""

    moves: tuple[Move, ...]
    classes: tuple[Shared, ...]
    whole: tuple[str, ...]


def _compiled(plan: Plan, frames: Mapping[str, Frame]) -> list[_Product]:
    """The moves of a plan whose counts are products, kept for the extents asked for last."""
    if "moves" not in plan.memo:
        groups: dict[tuple[object, ...], list[Move]] = {}
        for move in plan.moves:
            groups.setdefault(move.key, []).append(move)
        found = []
        for moves in groups.values():
            classes = shared_tiles(frames, [m.tile for m in moves])
            assert classes is not None  # else the plan needs plain numbers
            whole = tuple(x for d in moves[0].tile.dims for x in d.all_leaves)
            found.append(_Product(tuple(moves), classes, whole))
        plan.memo["moves"] = found
    return plan.memo["moves"]


def _products(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes) -> list[tuple[Move, Amount]]:
    """Words of every move, each a product of sizes (numbers or arrays)."""
    found: list[tuple[Move, Amount]] = []
    for item in _compiled(plan, frames):
        move, classes = item.moves[0], item.classes
        amount = in_all(classes, lambda shared: shared.moved(frames, sizes), sizes)
        if move.after_first:  # the move of one Einsum, that of its output
            if classes[0].leaves is not None:
                first = product(item.whole, sizes)
            else:
                first = words(frames[move.tile.einsum], Tile(move.tile.einsum, move.tile.dims, ()), sizes)
            amount = maximum(amount - first, 0)
        found.append((move, amount))
    return found


def _exactly(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, notes: list[str]) -> list[tuple[Move, Amount]]:
    """Words of every move counted from the points present (plain numbers)."""
    groups: dict[tuple[object, ...], list[Move]] = {}
    for move in plan.moves:
        if not move.separators or product(move.separators, sizes) > 1:
            groups.setdefault(move.key, []).append(move)
    return [(moves[0], _moved(plan, moves, frames, sizes, notes)) for moves in groups.values()]


def _traffic(plan: Plan, space: Space, moved: list[tuple[Move, Amount]]):
    """Words by level and tensor, and by level and Einsum."""
    traffic: dict[str, dict[str, Traffic]] = {level: {} for level in plan.arch.levels}
    by_einsum: dict[tuple[str, str], Amount] = {}
    for move, amount in moved:
        for level, part, write in _ends(plan, move, amount, space):
            entry = traffic[level].get(move.tensor)
            if entry is None:
                entry = traffic[level][move.tensor] = Traffic()
            if write:
                entry.write = entry.write + part
            else:
                entry.read = entry.read + part
            by_einsum[level, move.tile.einsum] = by_einsum.get((level, move.tile.einsum), 0) + part
    return traffic, by_einsum


def _ends(plan: Plan, move: Move, amount: Amount, space: Space) -> list[tuple[str, Amount, bool]]:
    """Where a move reads and writes (level, words, whether written). What spills is one level further out (and part of
    that further still, if it spills there too), and does not move if it is brought from there or taken there."""
    if not move.spills:
        ends = ((move.source, False), (move.sink, True))
        return [(level, amount, write) for level, write in ends if level is not None]
    order = list(plan.arch.levels)
    fractions = {k.level: space.fraction[k.level, move.tensor] for k in move.spills}
    further = {level: order[order.index(level) - 1] for level in fractions}
    for level, other in ((move.source, move.sink), (move.sink, move.source)):
        if level in fractions and other == further[level]:
            amount = amount * (1 - fractions.pop(level))
    found: list[tuple[str, Amount, bool]] = []
    for level, write in ((move.source, False), (move.sink, True)):
        if level is None:
            continue
        spilled = fractions.get(level, 0)
        found.append((level, amount * (1 - spilled), write))
        if level in fractions and not move.forwarded:
            found += [
                (outer, part, write) for outer, part in _beyond(space, order, move.tensor, level, amount * spilled)
            ]
    return found


def _beyond(space: Space, order: list[str], tensor: str, level: str, amount: Amount) -> list[tuple[str, Amount]]:
    """Where the part of a tensor that spills from a level is."""
    outer = order[order.index(level) - 1]
    spilled = space.fraction.get((outer, tensor))
    if spilled is None:
        return [(outer, amount)]
    return [(outer, amount * (1 - spilled)), *_beyond(space, order, tensor, outer, amount * spilled)]


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
            waits = maximum(waits, recurrence_cycles(recurrence, einsums, sizes))
        critical["recurrence"] = (waits > total) * waits
        total = maximum(total, waits)
    return total, drains, critical


def recurrence_cycles(recurrence: Recurrence, einsums: Mapping[str, EinsumCost], sizes: Sizes) -> Amount:
    """Cycles below which the steps of a recurrence cannot follow each other: each waits for the one before, and so many
    are in flight as tiles are independent."""
    total: Amount = 0
    for name in recurrence.einsums:
        total = total + einsums[name].cycles
    for drain in recurrence.drains:
        total = total + product(drain.loops, sizes) * minimum(product(drain.leaves, sizes), drain.length)
    return total / product(recurrence.between, sizes)


def _drain_cycles(drain: Drain, frame: Frame, sizes: Sizes) -> Amount:
    tiles = product(drain.loops, sizes)
    if frame.conditional:
        tiles, _ = frame.count(drain.loops, sizes)
    return tiles * minimum(product(drain.leaves, sizes), drain.length)
