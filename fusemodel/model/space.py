"""Space that kept tiles take at each level, and the fraction of what may spill that does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np

from fusemodel.cascade.ir import Apply, Expr, Extent, Number, RankValue
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import NOWHERE, InputError
from fusemodel.model.amounts import Amount, Sizes, floor_div, maximum, minimum, ratio, where
from fusemodel.model.apart import kept_apart
from fusemodel.model.decided import Count, Found, Frames
from fusemodel.model.domain import Linear
from fusemodel.model.elements import Touch, touched
from fusemodel.model.expression import Node
from fusemodel.model.frame import Frame, words
from fusemodel.model.plan import Footprint, Plan, Tile
from fusemodel.model.products import Shared, counts_apart, in_all, plain, plain_words, shared_tiles


@dataclass
class Space:
    need: dict[str, Amount]
    excess: dict[str, Amount]
    spill: dict[str, Amount]
    footprint: dict[str, dict[str, Amount]]
    fraction: dict[tuple[str, str], Amount]


def space_of(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, extents: Sizes, notes: list[str]) -> Space:
    """Space at each level, what is over, and the fraction of the tensors that may spill which does."""
    space = Space({}, {}, {}, {}, {})
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
            size = _footprint(plan, footprint, frames, sizes, notes) * keep.copies
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
        # where a tile is replaced before it is read nothing fits: a word too many says so (`tiles.choose` names it)
        replaced: Amount = 0
        for one in plan.replaced:
            if one.keep.level == name:
                replaced = replaced + where(kept_apart(one.partings, sizes), 1, 0)
        if name in plan.group.reserve:
            reserved = _reserved(plan, name, named)
            fixed = fixed + reserved
            held["(reserved)"] = reserved
        if level.size_bytes is None and name not in plan.group.budget_bytes:
            space.need[name], space.excess[name], space.spill[name] = fixed + spilling, replaced, 0
            continue
        sizes_of = (level.size_bytes, plan.group.budget_bytes.get(name))
        limit = reduce(minimum, (n for n in sizes_of if n is not None))
        capacity = limit / plan.arch.word_bytes
        over = maximum(fixed + spilling - capacity, 0)
        fraction = ratio(minimum(over, spilling), spilling)
        space.need[name] = fixed + spilling
        space.excess[name] = maximum(fixed - capacity, 0) + replaced
        space.spill[name] = fraction
        space.footprint[name] = held
        for keep in may_spill:
            space.fraction[name, keep.tensor] = fraction if keep.spill is True else keep.spill
    return space


def _reserved(plan: Plan, level: str, sizes: Sizes) -> Amount:
    """Words of a level that are set aside; InputError unless that is a number of at least 0."""
    where, expr = plan.group.places.get(f"reserve.{level}", NOWHERE), plan.group.reserve[level]
    value: Amount = 0
    try:
        with np.errstate(all="ignore"):
            value = amount_of(expr, sizes)
            if isinstance(value, Node):
                return value  # checked where it has a value
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


def amount_of(expr: Expr, sizes: Sizes) -> Amount:
    """A size expression over numbers or arrays."""
    match expr:
        case Number(value):
            return value
        case Extent(name) | RankValue(name):
            return sizes[name]
        case Apply("+", (a, b)):
            return amount_of(a, sizes) + amount_of(b, sizes)
        case Apply("-", (a, b)):
            return amount_of(a, sizes) - amount_of(b, sizes)
        case Apply("*", (a, b)):
            return amount_of(a, sizes) * amount_of(b, sizes)
        case Apply("/", (a, b)):
            return amount_of(a, sizes) / amount_of(b, sizes)
        case Apply("//", (a, b)):
            return floor_div(amount_of(a, sizes), amount_of(b, sizes))
        case Apply("min", (a, b)):
            return minimum(amount_of(a, sizes), amount_of(b, sizes))
        case Apply("max", (a, b)):
            return maximum(amount_of(a, sizes), amount_of(b, sizes))
        case Apply("neg", (a,)):
            return -amount_of(a, sizes)
    raise InputError(f"`{format_expr(expr)}` cannot be a size")


def _simple(plan: Plan, frames: Mapping[str, Frame]) -> dict[tuple[str, str], tuple[Shared, ...] | None]:
    """For each kept tensor by level, the tiles that its accesses share, where they are products (for the extents asked
    for last)."""
    key = ("footprints", next(iter(frames.values())).loose)
    if key not in plan.memo:
        plan.memo[key] = {(f.keep.level, f.keep.tensor): held_alike(frames, f) for f in plan.footprints}
    return plan.memo[key]


def held_alike(frames: Mapping[str, Frame], footprint: Footprint) -> tuple[Shared, ...] | None:
    """The tiles that the accesses of a kept tensor share, where their words are products."""
    tiles = [t for _, t in footprint.tiles]
    if not tiles:
        return ()
    if len({nest for nest, _ in footprint.tiles}) > 1 or counts_apart(frames, tiles):
        return None
    return shared_tiles(frames, tiles)


def _footprint(plan: Plan, footprint: Footprint, frames: Mapping[str, Frame], sizes: Sizes, notes: list[str]) -> Amount:
    """Words that a kept tensor takes: accesses that move alike share a tile, others have one each."""
    shared = _simple(plan, frames)[footprint.keep.level, footprint.keep.tensor]
    if shared is not None:
        return in_all(shared, lambda one: one.words(frames, sizes), sizes)
    counter = next((frames[t.einsum].counter for _, t in footprint.tiles), None)
    if counter is not None:
        return counter.amount(_count(footprint, frames))
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


def _count(footprint: Footprint, frames: Mapping[str, Frame]) -> Count:
    """The words that a kept tensor takes, as a count of the sizes of all leaves."""

    def find(plan: Plan, frames: Frames, sizes: Mapping[str, int]) -> Found:
        notes: list[str] = []
        words = _footprint(plan, footprint, frames, sizes, notes)
        return Found(words, not notes, tuple(notes))

    tiles = [t for _, t in footprint.tiles]
    leaves = {x for t in tiles for x in (*t.outside, *frames[t.einsum].coupled(), *_leaves(t))}
    return Count(("space", footprint.keep.level, footprint.keep.tensor), tuple((x,) for x in sorted(leaves)), (), find)


def _leaves(tile: Tile) -> tuple[str, ...]:
    return tuple(x for d in tile.dims for x in d.all_leaves)


def _joint_words(tiles: list[Tile], frames: Mapping[str, Frame], sizes: Sizes) -> tuple[Amount, bool]:
    """Words of the tile that several accesses share, where it is largest (every point present, outer loops still), and
    whether that is exact."""
    if plain(frames, tiles) and not counts_apart(frames, tiles):
        return plain_words(frames, tiles, sizes), True
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
        Touch(tuple(index), p.data, tuple(limits), p.forms)
        for index, p in zip(zip(*moved, strict=True), parts, strict=True)
    ]
    most = prod(parts[0].limits)
    found, exact = touched(shifted, (), still)
    return min(found, most), exact


def _range(form: Linear, sizes: Sizes) -> tuple[int, int]:
    reach = [c * (sizes[x] - 1) for x, c in form.coefficients.items()]
    return form.constant + sum(min(0, r) for r in reach), form.constant + sum(max(0, r) for r in reach)
