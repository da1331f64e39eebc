"""Numbers for a plan: time, traffic, energy and space of one group, for given extents and tile sizes.

Every function takes sizes that are plain numbers or NumPy arrays of them (one element a candidate mapping), so that the
same expressions serve one evaluation and a search over many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import Apply, Expr, Extent, Number, RankValue, rank_values
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import NOWHERE, InputError
from fusemodel.model.domain import (
    MAX_WITNESSES,
    Linear,
    Quotients,
    constraints,
    count,
    count_exactly,
    linear,
    on_leaves,
)
from fusemodel.model.elements import Touch, touched, values
from fusemodel.model.plan import Dim, Drain, EinsumPlan, Footprint, Move, Plan, Tile, depth_of

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


def maximum(a: Amount, b: Amount) -> Amount:
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def minimum(a: Amount, b: Amount) -> Amount:
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def ceil_div(a: Amount, b: int) -> Amount:
    return -(-a // b)


class Frame:
    """An Einsum's indices and conditions as linear forms over its ranks, for given extents."""

    def __init__(self, plan: Plan, einsum: EinsumPlan, extents: Mapping[str, int]) -> None:
        self.einsum, self.extents = einsum, extents
        self.ranges = dict(extents)
        for whole, (outer, inner) in plan.cascade.split.items():
            self.ranges[whole] = extents[outer] * extents[inner]
        self.quotients = Quotients(self.ranges, einsum.name)
        self._forms: dict[tuple[Expr, ...], list[Linear]] = {}
        self._index: dict[int, Linear | None] = {}
        self.other: list[Expr] = []
        self.forms = self.binding(einsum.conditions)

    def with_quotients(self, sizes: Sizes) -> Sizes:
        """Sizes of leaves, and of the coordinates that stand for quotients."""
        return {**sizes, **self.quotients.sizes} if self.quotients.sizes else sizes

    def binding(self, conditions: tuple[Expr, ...]) -> list[Linear]:
        """The conditions that some point fails, as forms over ranks, with the quotients in them defined."""
        if conditions not in self._forms:
            forms, other = constraints(conditions, self.extents, self.quotients)
            forms = self._failing(forms)
            self._forms[conditions] = forms + self.quotients.closure(forms)
            self.other += [c for c in other if not self._always(c)]
        return self._forms[conditions]

    def _failing(self, forms: list[Linear]) -> list[Linear]:
        reach = {**self.ranges, **self.quotients.sizes}
        return [f for f in forms if f.constant + sum(max(0, c * (reach[r] - 1)) for r, c in f.coefficients.items()) > 0]

    def _always(self, condition: Expr) -> bool:
        """Whether one of several conditions joined by ``or`` holds everywhere."""
        match condition:
            case Apply("or", args):
                return any(self._always(a) for a in args)
            case Apply("and", args):
                return all(self._always(a) for a in args)
        forms, other = constraints([condition], self.extents, self.quotients)
        return not other and not self._failing(forms)

    def on_leaves(self, forms: Sequence[Linear], sizes: Sizes) -> list[Linear]:
        return on_leaves(forms, self.einsum.ranks, self.with_quotients(sizes))

    def index(self, dim: Dim) -> Linear | None:
        """The index as a form over ranks (and quotients); None if it depends on data or is not linear."""
        if id(dim) not in self._index:
            self._index[id(dim)] = None if dim.data else linear(dim.index, self.extents, self.quotients)
        return self._index[id(dim)]

    def shape(self, tile: Tile) -> tuple[object, ...]:
        """The same for tiles that are the same and change alike, constants in their indices and conditions aside."""
        used = {x for d in tile.dims for x in d.all_leaves}
        last = max((i for i, x in enumerate(tile.outside) if x in used), default=-1)
        return tuple(self._dim_shape(d) for d in tile.dims), tile.outside[: last + 1]

    def _dim_shape(self, dim: Dim) -> tuple[object, ...]:
        form = self.index(dim)
        if form is None or self.quotient(dim):
            return dim.rank, dim.index, dim.all_leaves
        terms = ((c, dim.leaves.get(r, (r,))) for r, c in form.coefficients.items())
        return dim.rank, tuple(sorted(terms, key=lambda t: t[1]))

    def offsets(self, tile: Tile) -> tuple[int, ...]:
        """The constants in the indices."""
        return tuple(form.constant if (form := self.index(d)) else 0 for d in tile.dims)

    def quotient(self, dim: Dim) -> bool:
        """Whether the index divides."""
        form = self.index(dim)
        return form is not None and any(x in self.quotients.sizes for x in form.coefficients)

    def touch(self, tile: Tile, sizes: Sizes, *, conditions: bool = True) -> Touch:
        """The elements that an access touches at the points present."""
        index = [self.index(d) for d in tile.dims]
        forms: list[Linear] = []
        if conditions:
            forms += [*self.forms, *self.binding(tile.guards)]
        forms += self.quotients.closure(i for i in index if i is not None)
        unique = {f.key(): f for f in self.on_leaves(forms, sizes)}
        return Touch(
            tuple(self.on_leaves([i], sizes)[0] if i is not None else None for i in index),
            tuple(d.all_leaves for d in tile.dims),
            tuple(self.extents[d.rank] + d.iterative for d in tile.dims),
            tuple(unique.values()),
        )

    def motion(self, tile: Tile, sizes: Sizes) -> tuple[tuple[str, ...], tuple[object, ...]]:
        """The loops whose steps bring a tile again, outermost first, and how its indices change with each of them."""
        loops = [x for x in tile.outside if sizes[x] > 1]
        change: list[tuple[object, ...]] = []
        for x in loops:
            change.append(tuple(self._change(d, x, sizes) for d in tile.dims))
        last = max((i for i, c in enumerate(change) if any(c)), default=-1)
        return tuple(loops[: last + 1]), tuple(change[: last + 1])

    def _change(self, dim: Dim, leaf: str, sizes: Sizes) -> object:
        if leaf not in dim.all_leaves:
            return 0
        form = self.index(dim)
        if form is None:
            return dim.index
        if self.quotient(dim):
            return dim.index if _varies(self.grid(dim, sizes), dim.all_leaves.index(leaf)) else 0
        return self.on_leaves([form], sizes)[0].coefficients.get(leaf, 0)

    def grid(self, dim: Dim, sizes: Sizes) -> np.ndarray | None:
        """The values of an index over its leaves; None if they are too many."""
        shape = [int(sizes[x]) for x in dim.all_leaves]
        if prod(shape) > MAX_WITNESSES:
            return None
        axes = dict(zip(dim.all_leaves, np.ogrid[tuple(slice(0, n) for n in shape)], strict=True))
        ranks: dict[str, Any] = {}
        for rank, leaves in dim.leaves.items():
            ranks[rank] = sum(axes[x] * prod(int(sizes[y]) for y in leaves[i + 1 :]) for i, x in enumerate(leaves))
        return np.broadcast_to(_value(dim.index, ranks, self.extents), shape)


def _varies(grid: np.ndarray | None, axis: int) -> bool:
    return grid is None or bool(np.diff(grid, axis=axis).any())


def _value(expr: Expr, ranks: Mapping[str, Any], extents: Mapping[str, int]) -> Any:
    """A linear index, or one that divides, over arrays of coordinates."""
    match expr:
        case RankValue(rank):
            return ranks[rank]
        case Apply(op, args) if rank_values(expr):
            a = [_value(x, ranks, extents) for x in args]
            return {"+": lambda: a[0] + a[1], "-": lambda: a[0] - a[1], "*": lambda: a[0] * a[1], "neg": lambda: -a[0],
                    "//": lambda: a[0] // a[1], "%": lambda: a[0] % a[1]}[op]()  # fmt: skip
    return int(evaluate(expr, extents))


def span(frame: Frame, dim: Dim, inner: frozenset[str], sizes: Sizes, offsets: tuple[int, ...] = (0,)) -> Amount:
    """Distinct values of one index, plus any of some ``offsets``, while ``inner`` leaves run."""
    product: Amount = 1
    for leaf in dim.all_leaves:
        if leaf in inner:
            product = product * sizes[leaf]
    form = frame.index(dim)
    limit = frame.extents[dim.rank] + dim.iterative
    if form is None:
        return minimum(product, limit)
    if frame.quotient(dim):
        return min(product, limit, _widest(frame.grid(dim, sizes), dim.all_leaves, inner))
    if len(dim.leaves) <= 1 and len(offsets) == 1:
        return minimum(product, frame.extents[dim.split]) if dim.split else product
    strides, counts = [], []
    for rank, leaves in dim.leaves.items():
        stride: Amount = abs(form.coefficients.get(rank, 0))
        for leaf in reversed(leaves):
            if leaf in inner:
                strides.append(stride)
                counts.append(sizes[leaf])
            stride = stride * sizes[leaf]
    return minimum(_values(strides, counts, offsets), limit)


def _values(strides: list[Amount], counts: list[Amount], offsets: tuple[int, ...]) -> Amount:
    if not any(isinstance(x, np.ndarray) for x in (*strides, *counts)):
        return values(tuple((int(s), int(n)) for s, n in zip(strides, counts, strict=True)), offsets)
    rows = np.stack(np.broadcast_arrays(*strides, *counts), axis=-1).astype(np.int64)
    unique, back = np.unique(rows, axis=0, return_inverse=True)
    half = len(strides)
    found = [values(tuple(zip(row[:half], row[half:], strict=True)), offsets) for row in unique.tolist()]
    return np.array(found, dtype=float)[back.reshape(-1)]


def _widest(grid: np.ndarray | None, leaves: tuple[str, ...], inner: frozenset[str]) -> Amount:
    """The most distinct values of an index in one position of its tile."""
    if grid is None:
        return float("inf")
    axes = [i for i, x in enumerate(leaves) if x in inner]
    rows = np.moveaxis(grid, axes, range(len(axes))).reshape(int(prod(grid.shape[i] for i in axes)), -1)
    ordered = np.sort(rows, axis=0)
    return int((np.diff(ordered, axis=0) != 0).sum(axis=0).max()) + 1


def words(frame: Frame, tile: Tile, sizes: Sizes, offsets: Collection[tuple[int, ...]] = ()) -> Amount:
    """Words of a tile, every point being present; of several accesses whose indices differ by ``offsets`` in one place,
    their union."""
    outside = frozenset(tile.outside)
    total: Amount = 1
    for i, dim in enumerate(tile.dims):
        apart = tuple(sorted({o[i] for o in offsets})) or (0,)
        total = total * span(frame, dim, frozenset(dim.all_leaves) - outside, sizes, apart)
    return total


def steps(tile: Tile, sizes: Sizes) -> Amount:
    """Times a tile is brought: steps of every loop from the outermost to the innermost that changes it."""
    used = {x for d in tile.dims for x in d.all_leaves}
    total: Amount = 1
    active: Amount = False
    for leaf in reversed(tile.outside):
        size = sizes[leaf]
        if isinstance(size, np.ndarray) or isinstance(active, np.ndarray):
            active = active | ((size > 1) if leaf in used else False)
            total = total * np.where(active, size, 1)
        else:
            active = active or (leaf in used and size > 1)
            total = total * (size if active else 1)
    return total


def _plain(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> bool:
    """Whether the words of accesses that share a tile are a product over its indices, of numbers or arrays."""
    frame, tile = frames[tiles[0].einsum], tiles[0]
    leaves = [x for d in tile.dims for x in d.all_leaves]
    if len(leaves) != len(set(leaves)) or any(frame.quotient(d) for d in tile.dims):
        return False
    if len(tiles) == 1:
        return True
    offsets = [frames[t.einsum].offsets(t) for t in tiles]
    differ = sum(len(set(values_of)) > 1 for values_of in zip(*offsets, strict=True))
    return differ <= 1 and len({frames[t.einsum].shape(t) for t in tiles}) == 1


def _plain_words(frames: Mapping[str, Frame], tiles: Sequence[Tile], sizes: Sizes) -> Amount:
    return words(frames[tiles[0].einsum], tiles[0], sizes, {frames[t.einsum].offsets(t) for t in tiles})


def cost_of(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> GroupCost:
    """Evaluate a plan. With arrays in ``sizes`` every result is an array; :func:`needs_numbers` says when it cannot."""
    batch = any(isinstance(n, np.ndarray) for n in sizes.values())
    if batch and needs_numbers(plan, extents):
        raise ValueError("counts of this plan need plain numbers")
    notes: list[str] = []
    frames = frames_of(plan, extents)
    for name, frame in frames.items():
        notes += [
            f"{name}: `{format_expr(c)}` is not linear in coordinates; every point is charged" for c in frame.other
        ]
        if plan.einsums[name].iterative and frame.forms:
            notes.append(f"{name}: what follows an absent step of an iterative tensor is charged, an upper bound")
    einsums = {n: _einsum_cost(e, frames[n], sizes, notes) for n, e in plan.einsums.items()}
    space = _space(plan, frames, sizes, extents, notes)
    traffic, by_einsum = _traffic(plan, frames, sizes, space, batch, notes)
    schedule, drain, critical = _schedule(plan, frames, einsums, sizes)
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
        space.need, space.excess, space.spill, space.footprint, list(dict.fromkeys(notes)),
    )  # fmt: skip


def needs_numbers(plan: Plan, extents: Mapping[str, int]) -> bool:
    """Whether counts need plain numbers: some point may be absent, or a tile is not a product over its indices."""
    frames = frames_of(plan, extents)
    if "needs_numbers" not in plan.memo:
        plan.memo["needs_numbers"] = _needs_numbers(plan, frames)
    return plan.memo["needs_numbers"]


def frames_of(plan: Plan, extents: Mapping[str, int]) -> dict[str, Frame]:
    """The forms of every Einsum, kept for the extents asked for last."""
    key = tuple(extents.items())
    if plan.memo.get("extents") != key:
        plan.memo.clear()
        plan.memo.update(frames={n: Frame(plan, e, extents) for n, e in plan.einsums.items()}, extents=key)
    return plan.memo["frames"]


def _needs_numbers(plan: Plan, frames: Mapping[str, Frame]) -> bool:
    if any(f.forms for f in frames.values()):
        return True
    together: dict[object, list[tuple[str | None, Tile]]] = {}
    for move in plan.moves:
        if frames[move.tile.einsum].binding(move.tile.guards):
            return True
        together.setdefault(move.key, []).append((move.nest, move.tile))
    for held in (*together.values(), *(f.tiles for f in plan.footprints)):
        if held and (len({nest for nest, _ in held}) > 1 or not _plain(frames, [t for _, t in held])):
            return True
    # in one nest, with a reduction between them over a loop outside the tile
    reduced = {x for read in plan.reductions.values() for leaves in read.values() for x in leaves}
    nested = [m for m in plan.moves if m.nest and reduced & set(m.tile.outside)]
    return len({m.key for m in nested}) < len(nested)


def _einsum_cost(einsum: EinsumPlan, frame: Frame, sizes: Sizes, notes: list[str]) -> EinsumCost:
    kept = tuple(x for x in einsum.leaves if x not in einsum.reduced)
    temporal = tuple(x for x in einsum.temporal if x not in einsum.reduced)
    points, outputs, turns, output_turns = (
        _product(x, sizes) for x in (einsum.leaves, kept, einsum.temporal, temporal)
    )
    folds: Amount = 1
    output_folds: Amount = 1
    for length, leaves in einsum.folds:
        folds = folds * ceil_div(_product(leaves, sizes), length)
        output_folds = output_folds * ceil_div(_product([x for x in leaves if x not in einsum.reduced], sizes), length)
    if frame.forms:
        forms = frame.on_leaves(frame.forms, sizes)
        found = [
            count_exactly(forms, x, frame.with_quotients(sizes))
            for x in (einsum.leaves, kept, einsum.temporal, temporal)
        ]
        (points, outputs, turns, output_turns), exact = zip(*found, strict=True)
        if not all(exact):
            notes.append(f"{einsum.name}: its cycles are an upper bound, since its conditions leave gaps between tiles")
    cycles = turns * folds * einsum.cycles_per_point
    slots = points * einsum.cycles_per_point
    energy = points * einsum.energy_pj_per_point
    if einsum.cycles_per_output:
        cycles = cycles + output_turns * output_folds * einsum.cycles_per_output
        slots = slots + outputs * einsum.cycles_per_output
        energy = energy + outputs * einsum.energy_pj_per_output
    return EinsumCost(cycles, points, outputs, slots, energy, points * einsum.register_pj_per_point)


def _product(leaves: Iterable[str], sizes: Sizes) -> Amount:
    total: Amount = 1
    for leaf in leaves:
        total = total * sizes[leaf]
    return total


@dataclass
class _Space:
    need: dict[str, Amount]
    excess: dict[str, Amount]
    spill: dict[str, Amount]
    footprint: dict[str, dict[str, Amount]]
    fraction: dict[tuple[str, str], Amount]


def _space(
    plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, extents: Mapping[str, int], notes: list[str]
) -> _Space:
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
            size = _footprint(footprint, frames, sizes, notes) * keep.copies
            held[keep.tensor] = size
            if keep.share:
                staying = size if isinstance(keep.spill, bool) else size * (1 - keep.spill)
                shared[keep.share] = maximum(shared.get(keep.share, 0), staying)
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
            reserved = _reserved(plan, name, named)
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


def _reserved(plan: Plan, level: str, sizes: Sizes) -> Amount:
    """Words of a level that are set aside; InputError unless that is a number of at least 0."""
    where, expr = plan.group.places.get(f"reserve.{level}", NOWHERE), plan.group.reserve[level]
    try:
        with np.errstate(all="ignore"):
            value = _amount(expr, sizes)
            usable = bool(np.all(np.isfinite(np.asarray(value, dtype=float)) & (np.asarray(value, dtype=float) >= 0)))
    except (ZeroDivisionError, OverflowError):
        usable = False
    except InputError as error:
        raise error.at(where) from None
    if not usable:
        raise InputError(
            f"`{format_expr(expr).lower()}` is negative or not finite", where, expected="a number of words"
        )
    return value


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


def _footprint(footprint: Footprint, frames: Mapping[str, Frame], sizes: Sizes, notes: list[str]) -> Amount:
    """Words that a kept tensor takes: accesses that move alike share a tile, others have one each."""
    tiles = [tile for _, tile in footprint.tiles]
    if tiles and len({nest for nest, _ in footprint.tiles}) == 1 and _plain(frames, tiles):
        return _plain_words(frames, tiles, sizes)
    classes: dict[object, list[Tile]] = {}
    for nest, tile in footprint.tiles:
        classes.setdefault((nest, frames[tile.einsum].motion(tile, sizes)), []).append(tile)
    total, exact = 0, True
    for alike in classes.values():
        size, known = _joint_words(alike, frames, sizes)
        total, exact = total + size, exact and known
    if not exact:
        notes.append(f"the space of {footprint.keep.tensor} in {footprint.keep.level} is an upper bound")
    return total


def _joint_words(tiles: list[Tile], frames: Mapping[str, Frame], sizes: Sizes) -> tuple[Amount, bool]:
    """Words of the tile that several accesses share, where it is largest (every point present, outer loops still), and
    whether that is exact."""
    if _plain(frames, tiles):
        return _plain_words(frames, tiles, sizes), True
    apart = {frames[t.einsum].shape(t): words(frames[t.einsum], t, sizes) for t in tiles}
    divided = any(frames[t.einsum].quotient(d) for t in tiles for d in t.dims)
    parts = [frames[t.einsum].touch(t, sizes, conditions=False) for t in tiles]
    if divided or any(i is None for p in parts for i in p.index):
        return sum(apart.values()), len(apart) == 1
    still = {**sizes, **{x: 1 for t in tiles for x in t.outside}}
    moved, limits = [], []
    for forms in zip(*(p.index for p in parts), strict=True):
        bounds = [_range(f, still) for f in forms]
        least = min(low for low, _ in bounds)
        moved.append([Linear(f.coefficients, f.constant - least) for f in forms])
        limits.append(max(high for _, high in bounds) - least + 1)
    shifted = [
        Touch(tuple(index), p.data, tuple(limits), ()) for index, p in zip(zip(*moved, strict=True), parts, strict=True)
    ]
    most = prod(parts[0].limits)
    found, exact = touched(shifted, (), still)
    return min(found, most), exact


def _range(form: Linear, sizes: Sizes) -> tuple[int, int]:
    reach = [c * (sizes[x] - 1) for x, c in form.coefficients.items()]
    return form.constant + sum(min(0, r) for r in reach), form.constant + sum(max(0, r) for r in reach)


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
    parts = list({p.key(): p for p in (frames[m.tile.einsum].touch(m.tile, sizes) for m in moves)}.values())
    move = moves[0]
    frame = frames[move.tile.einsum]
    tiles = [m.tile for m in moves]
    if not any(p.forms for p in parts) and _plain(frames, tiles):
        brought = _product(loops, sizes) * _plain_words(frames, tiles, sizes)
        exact = None not in parts[0].index
    else:
        every = {x: n for m in moves for x, n in frames[m.tile.einsum].with_quotients(sizes).items()}
        brought, exact = touched(parts, loops, every)
    if move.after_first:
        first, known = touched(parts, (), frame.with_quotients(sizes))
        brought = max(brought - first, 0) if known else brought
        exact = exact and known
    if not exact:
        notes.append(f"{move.tile.einsum}: the traffic of {move.tensor} is an upper bound")
    return brought


def _traffic(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, space: _Space, batch: bool, notes: list[str]):
    traffic: dict[str, dict[str, Traffic]] = {level: {} for level in plan.arch.levels}
    by_einsum: dict[tuple[str, str], Amount] = {}
    groups: dict[tuple[object, ...], list[Move]] = {}
    for move in plan.moves:
        happens = True
        if move.separators:
            happens = _product(move.separators, sizes) > 1
        if happens is True or (not isinstance(happens, np.ndarray) and happens):
            groups.setdefault(move.key, []).append(move)
    for moves in groups.values():
        move = moves[0]
        if batch:
            amount = steps(move.tile, sizes) * _plain_words(frames, [m.tile for m in moves], sizes)
            if move.after_first:
                frame = frames[move.tile.einsum]
                amount = maximum(amount - words(frame, Tile(move.tile.einsum, move.tile.dims, ()), sizes), 0)
        else:
            amount = _moved(plan, moves, frames, sizes, notes)
        for level, part, write in _ends(plan, move, amount, space):
            entry = traffic[level].setdefault(move.tensor, Traffic())
            if write:
                entry.write = entry.write + part
            else:
                entry.read = entry.read + part
            by_einsum[level, move.tile.einsum] = by_einsum.get((level, move.tile.einsum), 0) + part
    return traffic, by_einsum


def _ends(plan: Plan, move: Move, amount: Amount, space: _Space) -> list[tuple[str, Amount, bool]]:
    """Where a move reads and writes (level, words, whether written). What spills is one level further out, and does not
    move if it is brought from there or taken there."""
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
            found.append((further[level], amount * spilled, write))
    return found


def _schedule(
    plan: Plan, frames: Mapping[str, Frame], einsums: dict[str, EinsumCost], sizes: Sizes
) -> tuple[Amount, Amount, dict[str, Amount]]:
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
            drained = maximum(drained, _drain_cycles(drain, frames[drain.producer], sizes))
        total = total + longest + drained
        drains = drains + drained
    return total, drains, critical


def _drain_cycles(drain: Drain, frame: Frame, sizes: Sizes) -> Amount:
    tiles = _product(drain.loops, sizes)
    if frame.forms:
        tiles = count(frame.on_leaves(frame.forms, sizes), drain.loops, frame.with_quotients(sizes))
    return tiles * minimum(_product(drain.leaves, sizes), drain.length)
