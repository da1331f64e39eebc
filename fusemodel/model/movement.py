"""Words that the moves of a group bring: each a product of sizes where it can be, else counted from the points
present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fusemodel.model import banded
from fusemodel.model.amounts import Amount, Columns, Sizes, maximum, product, where
from fusemodel.model.apart import kept_apart
from fusemodel.model.decided import Count, Found, Frames, runs_of
from fusemodel.model.elements import touched
from fusemodel.model.frame import Frame, ragged_frames, settled
from fusemodel.model.plan import Dim, Move, Plan, Tile, depth_of
from fusemodel.model.products import Shared, counts_apart, in_all, plain, plain_words, shared_tile, shared_tiles, simple
from fusemodel.model.space import Space, held_alike


def needs_numbers(plan: Plan, extents: Mapping[str, int], loose: frozenset[str] = frozenset()) -> bool:
    """Whether counts need plain numbers: some point may be absent, or a tile is not a product over its indices.
    ``loose``: ranks that tiles do not divide."""
    plan = settled(plan)
    frames = ragged_frames(plan, extents, loose)
    key = ("needs_numbers", loose)
    if key not in plan.memo:
        plan.memo[key] = _needs_numbers(plan, frames)
    return plan.memo[key]


def is_product(plan: Plan, extents: Mapping[str, int], loose: frozenset[str] = frozenset()) -> bool:
    """Whether every count is a product of sizes, exactly."""
    if needs_numbers(plan, extents, loose):
        return False
    plan = settled(plan)
    key = ("product", loose)
    if key not in plan.memo:
        frames = ragged_frames(plan, extents, loose)
        plan.memo[key] = all(frames[m.tile.einsum].index(d) is not None for m in plan.moves for d in m.tile.dims)
    return plan.memo[key]


def in_blocks(plan: Plan) -> bool:
    """Whether a group runs as blocks: :mod:`fusemodel.model.batch` counts those for arrays."""
    return bool(plan.group.grid) or plan.group.skip is not None or plan.arch.instances > 1


def kinds_of(plan: Plan, extents: Mapping[str, int], loose: frozenset[str] = frozenset()) -> tuple[bool, ...]:
    """For the moves of each key and each kept tile whether its words are a product of sizes."""
    plan = settled(plan)
    frames = ragged_frames(plan, extents, loose)
    key = ("kinds", loose)
    if key not in plan.memo:
        moves = [_is_product(plan, frames, moves) for moves in _by_key(plan.moves).values()]
        plan.memo[key] = *moves, *(held_alike(frames, f) is not None for f in plan.footprints)
    return plan.memo[key]


def _needs_numbers(plan: Plan, frames: Mapping[str, Frame]) -> bool:
    frame = next(iter(frames.values()))
    if in_blocks(plan) or any(f.conditional for f in frames.values()):
        return True
    return not all(kinds_of(plan, frame.extents, frame.loose))


def _by_key(moves: Sequence[Move]) -> dict[tuple[object, ...], list[Move]]:
    groups: dict[tuple[object, ...], list[Move]] = {}
    for move in moves:
        groups.setdefault(move.key, []).append(move)
    return groups


def _is_product(plan: Plan, frames: Mapping[str, Frame], moves: Sequence[Move]) -> bool:
    """Whether the words that moves with one key bring are a product of sizes."""
    tiles = [m.tile for m in moves]
    absent = any(frames[t.einsum].conditional or frames[t.einsum].where(t.guards) != [()] for t in tiles)
    if absent or (len(moves) > 1 and any(m.separators for m in moves)) or len({m.nest for m in moves}) > 1:
        return False
    # in one nest, with a reduction between them over a loop outside the tile
    reduced = {x for read in plan.reductions.values() for leaves in read.values() for x in leaves}
    if sum(bool(m.nest and reduced & set(m.tile.outside)) for m in moves) > 1:
        return False
    return shared_tiles(frames, tiles) is not None and not counts_apart(frames, tiles)


def brought_tiles(
    plan: Plan, moves: Sequence[Move], frames: Mapping[str, Frame], sizes: Sizes
) -> list[tuple[list[Move], tuple[str, ...]]]:
    """Moves with one key, those that bring one tile together, each with the loops whose steps bring it."""
    pools: list[list[Move]] = []
    for move in moves:
        pool = next((p for p in pools if _together(plan, p[0], move, sizes)), None)
        if pool is None:
            pools.append([move])
        else:
            pool.append(move)
    found: list[tuple[list[Move], tuple[str, ...]]] = []
    for pool in pools:
        classes: dict[tuple[tuple[str, ...], object], list[Move]] = {}
        for move in pool:
            classes.setdefault(frames[move.tile.einsum].motion(move.tile, sizes), []).append(move)
        found += [(alike, loops) for (loops, _), alike in classes.items()]
    return found


def _together(plan: Plan, a: Move, b: Move, sizes: Sizes) -> bool:
    """Whether two Einsums find one tile: under a shared loop, or bound together with no reduction over a loop outside
    the tile completed between them."""
    if a.nest != b.nest:
        return False
    if a.nest is None:
        return True
    over = frozenset(x for x in a.tile.outside if sizes[x] > 1)
    return depth_of(a.tile.einsum, plan.reductions, over) == depth_of(b.tile.einsum, plan.reductions, over)


def brought_words(
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
    """Moves with one key, by the tiles they share; ``whole`` is the whole tensor of the first one. Where their words
    are no product, ``count`` has them."""

    moves: tuple[Move, ...]
    classes: tuple[Shared, ...]
    whole: Shared | None
    count: Count | None = None


def _compiled(plan: Plan, frames: Mapping[str, Frame]) -> list[_Product]:
    """The moves of a plan by their keys, kept for the extents asked for last."""
    key = ("moves", next(iter(frames.values())).loose)
    if key not in plan.memo:
        found = []
        for moves in _by_key(plan.moves).values():
            if not _is_product(plan, frames, moves):
                found.append(_Product(tuple(moves), (), None, _count(frames, moves)))
                continue
            classes = shared_tiles(frames, [m.tile for m in moves])
            assert classes is not None
            whole = shared_tile(frames, [replace(moves[0].tile, outside=())])
            found.append(_Product(tuple(moves), classes, whole))
        plan.memo[key] = found
    return plan.memo[key]


def by_products(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes) -> list[tuple[Move, Amount]]:
    """Words of every move, each a product of sizes (numbers or arrays) or a count that conditions decide."""
    found: list[tuple[Move, Amount]] = []
    for item in _compiled(plan, frames):
        move, classes = item.moves[0], item.classes
        if item.count is not None or item.whole is None:
            found += _counted(item, frames, sizes)
            continue
        amount = in_all(classes, lambda shared: shared.moved(frames, sizes), sizes)
        if move.after_first:  # the move of one Einsum, that of its output
            amount = maximum(amount - item.whole.words(frames, sizes), 0)
        if move.separators:
            amount = where(kept_apart(move.separators, sizes), amount, 0)
        found.append((move, amount))
    return found


def _count(frames: Mapping[str, Frame], moves: Sequence[Move]) -> Count:
    """The words that moves with one key bring."""

    def find(plan: Plan, frames: Frames, sizes: Mapping[str, int]) -> Found:
        notes: list[str] = []
        some = happening(moves, sizes)
        tiles = brought_tiles(plan, some, frames, sizes) if some else []
        words = sum(brought_words(alike, loops, frames, sizes, notes) for alike, loops in tiles)
        return Found(words, not notes, tuple(notes))

    own = [frames[m.tile.einsum] for m in moves]
    parting = {x for m in moves for p in m.separators for x in (p.loop, *p.inside)}
    steps = parting | {x for m in moves for x in m.tile.outside}
    ranks: dict[tuple[str, ...], None] = {}
    for frame, move in zip(own, moves, strict=True):
        used = {
            *frame.coupled(move.tile.guards),
            *move.tile.outside,
            *(x for d in move.tile.dims for x in d.all_leaves),
        }
        ranks |= {
            leaves: None for r, leaves in frame.einsum.ranks.items() if r not in frame.wholes and used & {*leaves}
        }
    # how an index that is no form changes depends on every size in it, and so does what moves alike
    linear = all(d.data or _with_all(f, d) for f, m in zip(own, moves, strict=True) for d in m.tile.dims)
    apart = not linear or len({f.shape(m.tile)[0] for f, m in zip(own, moves, strict=True)}) > 1

    def alike(leaf: str) -> object:
        return leaf if apart else tuple(_standing(m.tile, leaf) for m in moves)

    def fast(plan: Plan, frames: Frames, sizes: Columns) -> Any:
        return None if apart else _together_words(plan, frames, moves, tuple(sorted(steps)), sizes)

    return Count(("words", moves[0].key), runs_of(ranks, alike), tuple(sorted(steps)), find, fast=fast)


def _together_words(
    plan: Plan, frames: Frames, moves: Sequence[Move], steps: Sequence[str], sizes: Columns
) -> np.ndarray | None:
    """The words that moves with one key bring, for columns of sizes: those in which the same loops have several steps
    together. None where some are no band of one access."""
    kinds = np.zeros(sizes.length, dtype=np.int64)
    for i, x in enumerate(steps):
        kinds |= (sizes.column(x) > 1).astype(np.int64) << i
    total = np.zeros(sizes.length)
    for kind in np.unique(kinds).tolist():
        rows = kinds == kind
        one, mine = sizes.row(int(np.argmax(rows))), sizes.some(rows)
        some = happening(moves, one)
        for alike, loops in brought_tiles(plan, some, frames, one) if some else []:
            move, frame = alike[0], frames[alike[0].tile.einsum]
            same = {(f.conditions_of(m.tile), f.roots, f.shape(m.tile)[0], f.offsets(m.tile))
                    for m in alike for f in [frames[m.tile.einsum]]}  # fmt: skip
            if len(same) > 1 or not all(simple(frame, d) for d in move.tile.dims):
                return None
            pieces = frame.where(frame.conditions_of(move.tile))
            inside = frozenset(x for d in move.tile.dims for x in d.all_leaves)
            words = banded.steps(frame, pieces, inside | {*loops}, mine)
            if words is None:
                return None
            if move.after_first:
                whole = banded.steps(frame, pieces, inside, mine)
                if whole is None:
                    return None
                words = np.maximum(words - whole, 0)
            total[rows] += words
    return total


def _with_all(frame: Frame, dim: Dim) -> bool:
    """Whether an index is a form of every coordinate in it."""
    form = frame.index(dim)
    return form is not None and not frame.quotient(dim) and all(form.coefficients.get(r) for r in dim.leaves)


def _standing(tile: Tile, leaf: str) -> object:
    """What decides whether the steps of a leaf bring a tile again, where it is known which loops have several."""
    used = {x for d in tile.dims for x in d.all_leaves}
    if leaf not in tile.outside or leaf in used:
        return leaf in tile.outside
    return frozenset(x for x in tile.outside[tile.outside.index(leaf) :] if x in used)


def _counted(item: _Product, frames: Mapping[str, Frame], sizes: Sizes) -> list[tuple[Move, Amount]]:
    """Words that are a count, for the first of the moves that happens."""
    counter = frames[item.moves[0].tile.einsum].counter
    assert item.count is not None
    assert counter is not None  # else the plan needs plain numbers
    words = counter.amount(item.count)
    if not any(m.separators for m in item.moves):
        return [(item.moves[0], words)]
    found: list[tuple[Move, Amount]] = []
    before: Amount = False
    for move in item.moves:
        happens = kept_apart(move.separators, sizes) if move.separators else True
        found.append((move, where(before, 0, where(happens, words, 0))))
        before = True if happens is True else before | happens
        if before is True:
            break
    return found


def happening(moves: Sequence[Move], sizes: Sizes) -> list[Move]:
    """The moves that happen at these sizes."""
    return [m for m in moves if not m.separators or kept_apart(m.separators, sizes)]


def one_by_one(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes, notes: list[str]) -> list[tuple[Move, Amount]]:
    """Words of every move counted from the points present (plain numbers)."""
    found: list[tuple[Move, Amount]] = []
    for moves in keyed(plan, sizes):
        tiles = brought_tiles(plan, moves, frames, sizes)
        found.append((moves[0], sum(brought_words(alike, loops, frames, sizes, notes) for alike, loops in tiles)))
    return found


def keyed(plan: Plan, sizes: Sizes) -> list[list[Move]]:
    """The moves that happen at these sizes, by their keys."""
    return list(_by_key(happening(plan.moves, sizes)).values())


def ends_of(plan: Plan, move: Move, amount: Amount, space: Space) -> list[tuple[str, Amount, bool]]:
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
