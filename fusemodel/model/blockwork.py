"""The work of the blocks of a group at plain sizes; :mod:`fusemodel.model.batch` counts it for arrays of extents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product as combinations_of
from math import prod
from typing import TypeAlias

from fusemodel.model.amounts import Amount, Sizes, product
from fusemodel.model.blocks import BlockWork, cached, tile_bytes
from fusemodel.model.domain import count_union
from fusemodel.model.forms import Linear
from fusemodel.model.frame import Frame
from fusemodel.model.plan import Plan

#: Words read and written, by level and tensor.
Words: TypeAlias = Mapping[str, Mapping[str, tuple[Amount, Amount]]]
#: Blocks of which the longest is looked for.
MAX_BLOCKS = 512


def steps_taken(plan: Plan, frames: Mapping[str, Frame], sizes: Sizes) -> Callable[[Sequence[str]], Amount] | None:
    """How many steps of some shared loops are taken, where a group skips those in which an Einsum has no point."""
    if plan.group.skip is None or not frames[plan.group.skip].conditional:
        return None
    frame, own = frames[plan.group.skip], set(plan.einsums[plan.group.skip].leaves)
    counted: dict[tuple[str, ...], Amount] = {}

    def taken(loops: Sequence[str]) -> Amount:
        shared = tuple(x for x in loops if x in plan.group.loops and x in own)
        if shared not in counted:
            counted[shared] = frame.count(shared, sizes)[0]
        return counted[shared] * product([x for x in loops if x not in shared], sizes)

    return taken


def block_work(
    plan: Plan, frames: Mapping[str, Frame], stages: Sequence[Mapping[str, Amount]], moved: Mapping[str, Amount],
    by_einsum: Mapping[tuple[str, str], Amount], sizes: Sizes,
) -> BlockWork:  # fmt: skip
    """What the blocks of a group ask, from the cycles of its stages and the words moved by level, and by level and
    Einsum."""
    group, word = plan.group, plan.arch.word_bytes
    blocks, steps = (_steps(plan, frames, loops, sizes) for loops in (group.grid, group.loops))
    longest: Amount = 1 / blocks
    if (taken := steps_taken(plan, frames, sizes)) is not None:
        blocks, steps = taken(group.grid), taken(group.loops)
        longest = _longest(plan, frames[group.skip or ""], sizes) / steps
    exposed = [
        {level: sum(by_einsum.get((level, n), 0) for n in stage) * word for level in group.exposed}
        for stage in group.stages
    ]
    level_bytes = {level: words * word for level, words in moved.items()}
    return BlockWork(blocks, stages, longest, steps, level_bytes, tile_bytes(plan, sizes), exposed)


def _steps(plan: Plan, frames: Mapping[str, Frame], loops: Sequence[str], sizes: Sizes) -> Amount:
    """Steps of some shared loops in which an Einsum that has them all has a point."""
    inside = (f for f in frames.values() if set(loops) <= set(f.einsum.leaves))
    found = next((f for f in inside if f.conditional), None)
    return product(loops, sizes) if found is None else found.count(loops, sizes)[0]


def _longest(plan: Plan, frame: Frame, sizes: Sizes) -> int:
    """Steps of the longest block, of those looked at: every one, or many evenly spaced."""
    inner = [x for x in plan.group.loops if x not in plan.group.grid and x in frame.einsum.leaves]
    pieces = [frame.on_leaves(p, sizes) for p in frame.pieces]
    used = {x for piece in pieces for f in piece for x in f.coefficients}
    varied = [x for x in plan.group.grid if x in used and sizes[x] > 1]
    each = max(2, int(MAX_BLOCKS ** (1 / max(len(varied), 1))))
    positions = [sorted({round(i * (sizes[x] - 1) / (each - 1)) for i in range(each)}) for x in varied]
    most = 0
    for at in combinations_of(*positions):
        fixed = dict(zip(varied, at, strict=True))
        here = [[f.at(fixed) if isinstance(f, Linear) else f for f in piece] for piece in pieces]
        one = {**frame.with_quotients(sizes), **dict.fromkeys(varied, 1)}
        most = max(most, count_union(here, inner, one, apart=True)[0])
    return most * product([x for x in plan.group.loops if x not in inner and x not in plan.group.grid], sizes)


def through_caches(plan: Plan, moved: Words, extents: Mapping[str, int]) -> Words:
    """Words by level and tensor, where caches stand between levels."""
    names = {t for found in moved.values() for t in found}
    elements = {t: prod(extents[r] for r in plan.cascade.full_ranks(t)) for t in names}
    return cached(plan.arch, moved, elements, plan.group, plan.group.warm, plan.arch.word_bytes)
