"""Room for tiles: nothing is written where something is still wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusemodel.cascade.ir import reads
from fusemodel.mapping.check import innermost
from fusemodel.mapping.spec import ALL, Keep
from fusemodel.model.amounts import product
from fusemodel.model.movement import happening
from fusemodel.simulate.tasks import BUFFER, ENDED, Buffer
from fusemodel.simulate.transfers import access_of, same_tile

if TYPE_CHECKING:
    from fusemodel.simulate.lower import Lowering


def wait_for_room(low: Lowering) -> None:
    """Nothing is written where something is still wanted."""
    shared: dict[tuple[str, str], list[Keep]] = {}
    for keep in low.group.keeps:
        if keep.share:
            shared.setdefault((keep.level, keep.share), []).append(keep)
    for keep in low.group.keeps:
        together = shared.get((keep.level, keep.share or ""), [keep])
        if low.arch.levels[keep.level].size_bytes is None and keep.level not in low.group.budget_bytes:
            continue
        if keep.under == ALL or innermost(keep.under, low.group, low.cascade) in low.group.loops:
            _tile_space(low, keep, [k.tensor for k in together])
    kept = {k.tensor for k in low.group.keeps}
    for name in low.inside:
        if name not in kept:
            _register_space(low, name)
        if low.cascade.tensors[name].iterative:
            _in_place(low, name, [max(k.copies, low.copies) for k in low.group.keeps if k.tensor == name])


def _generation(low: Lowering, keep: Keep) -> tuple[str, ...]:
    """The loops whose steps put another tile in the place of one. A state stays from step to step, with all that
    the loops inside the stepped one make."""
    found = _outside(low, keep)
    used = {x for r in low.cascade.full_ranks(keep.tensor) for x in low.group.leaves(r, low.cascade)}
    used |= {x for m in low.plan.moves if m.tensor == keep.tensor for d in m.tile.dims for x in d.all_leaves}
    while found and found[-1] not in used:
        found.pop()
    stepped = [x for r in low.cascade.tensors[keep.tensor].iterative for x in low.group.leaves(r, low.cascade)]
    for i, x in enumerate(found):
        if x in stepped:
            return tuple(found[:i])
    return tuple(found)


def _outside(low: Lowering, keep: Keep) -> list[str]:
    """The loops that a kept tile is under."""
    if keep.under == ALL:
        return []
    loop = innermost(keep.under, low.group, low.cascade)
    return [x for x in low.shared if low.group.loops.index(x) <= low.group.loops.index(loop)]


def _tile_space(low: Lowering, keep: Keep, tensors: Sequence[str]) -> None:
    generation = _generation(low, keep)
    writers = [a for a in low.at_level.get((keep.tensor, keep.level), []) if low.actors[a].kind == "load"]
    if keep.tensor in low.of:
        writers.append(low.of[keep.tensor])
    words = float(low.space.footprint.get(keep.level, {}).get(keep.tensor, 0.0)) / keep.copies
    copies = max(keep.copies, low.copies)
    for me in writers:
        loops = low.actors[me].loops
        size = dict(zip(loops, low.actors[me].sizes, strict=True))
        inner = [x for x in loops if x not in generation]
        pieces = copies * product(inner, size)
        own = tuple(x for x in inner if _own_place(low, keep.tensor, x, me))
        places = copies * product(own, size)
        tile = f"{keep.tensor} in {keep.level}"
        # a state is there for every step of the loops inside the one that steps it
        each = words * product([x for x in own if x in _outside(low, keep)], size) * copies / places
        if low.actors[me].kind == "load":
            loaded = float(low.actors[me].amount.values.max())
            each = max(each, loaded) if len(writers) == 1 else loaded
        renewed = tuple(x for x in loops if x in generation)
        low.buffers.append(
            Buffer(
                tile,
                keep.level,
                keep.tensor,
                me,
                pieces,
                places,
                each,
                copies,
                renewed,
                own,
                keep.share,
                _versions(low, keep.tensor, [copies]),
            )
        )
        if not any(x in generation for x in loops):
            continue  # there is one, for good
        for other in _readers(low, tensors, keep.level, me):
            y = low.actors[other]
            last = frozenset(x for x in y.loops if x not in generation and not _own_place(low, keep.tensor, x, me))
            low.wait(me, other, ENDED, BUFFER, slack=pieces, last=last, tile=tile)


def _own_place(low: Lowering, tensor: str, loop: str, writer: int) -> bool:
    """Whether each step of a loop has a place of its own in a tile."""
    if loop not in low.actors[writer].loops:
        return False
    if loop not in low.sizes:
        return True  # a part of a transfer
    iterative = low.cascade.tensors[tensor].iterative
    return any(loop in low.group.leaves(r, low.cascade) for r in low.cascade.full_ranks(tensor) if r not in iterative)


def _readers(low: Lowering, tensors: Sequence[str], level: str, writer: int) -> list[int]:
    """Who takes some tensors from a level, or out of it; from a tile that was loaded, those that it is for."""
    found: dict[int, None] = {}
    loaded = low.actors[writer].kind == "load"
    again = {  # who has it brought back after it was replaced
        m.tile.einsum for m in happening(low.plan.moves, low.sizes)
        if m.tensor in tensors and m.tensor in low.inside and m.key[3] == "fill" and m.sink == level
    }  # fmt: skip
    for move in low.plan.moves:
        read = move.tensor in tensors and move.source == level and move.key[3] == "read"
        if read and (access_of(move) in low.serves[writer] if loaded else move.tile.einsum not in again):
            found[low.of[str(move.key[4])]] = None
    for name, einsum in low.inside.items():
        if name not in again and any(a.tensor in tensors and a.tensor in low.inside for a in reads(einsum)):
            found[low.of[name]] = None
    for tensor in tensors:
        for other in low.leaving.get((tensor, level), []):
            if not loaded or same_tile(low, other, writer):
                found[other] = None
    return [a for a in found if a != writer]


def _register_space(low: Lowering, name: str) -> None:
    """Values passed on in registers: so many tiles are in flight (see :func:`with_lags`). Inside a loop that is around
    some of the Einsums only, what every step makes stays."""
    readers = [n for n, e in low.inside.items() if n != name and any(a.tensor == name for a in reads(e))]
    mine = low.lowered(name)
    if not readers or low.cascade.tensors[name].iterative or not mine:
        return
    me = low.of[name]
    leaves = {x for r in low.cascade.full_ranks(name) for x in low.group.leaves(r, low.cascade)}
    words = float(product(leaves - set(mine), low.sizes))
    last = max((i for i, x in enumerate(low.loops) if x in leaves), default=-1)
    each = [set(low.lowered(n)) for n in (name, *readers)]
    around = set.union(*each) - set.intersection(*each)
    end = next((i for i, x in enumerate(low.loops[:last]) if x in around), last + 1)
    generation = tuple(x for x in mine if low.loops.index(x) < end)
    inner = [x for x in mine if x not in generation]
    own = tuple(x for x in inner if x in leaves)
    copies = 2 if generation else 1  # else there is one, for good
    pieces, places = (copies * int(product(some, low.sizes)) for some in (inner, own))
    tile = f"{name} in registers"
    low.buffers.append(Buffer(tile, "", name, me, pieces, places, words, copies, generation, own))
    for reader in readers if generation else ():
        done = frozenset(x for x in low.lowered(reader) if x not in generation)
        low.wait(me, low.of[reader], ENDED, BUFFER, slack=pieces, last=done, tile=tile)


def _versions(low: Lowering, name: str, copies: Sequence[int]) -> int:
    """How many values of a state there are in each place: what needs the old value and the new one finds both."""
    after, before = _made_from(low, name, set()), set()
    for reader, einsum in low.inside.items():
        if any(a.tensor == name and low.step_of(name, a.indices)[0] for a in reads(einsum)):
            before.add(reader)
    return max([*copies, 1]) + bool(after & before)


def _in_place(low: Lowering, name: str, copies: Sequence[int]) -> None:
    """A state is overwritten step by step: its readers of the step before come first."""
    me, versions = low.of[name], _versions(low, name, copies)
    leaves = [
        x for r in low.cascade.tensors[name].iterative for x in low.group.leaves(r, low.cascade)
        if x in low.lowered(name)
    ]  # fmt: skip
    if not leaves:
        return
    tile = f"{name}, step by step"
    first = low.loops.index(leaves[0])
    for reader, einsum in low.inside.items():
        for access in dict.fromkeys(reads(einsum)):
            if access.tensor != name or reader == name:
                continue
            back, there = low.step_of(access.tensor, access.indices)
            ends = leaves[0] not in low.lowered(reader)
            if not there and not back:
                continue
            if not ends:
                steps = {leaves[-1]: versions - 1 if back else versions}
                low.wait(me, low.of[reader], ENDED, BUFFER, back=steps, tile=tile)
            elif name not in {k.tensor for k in low.group.keeps}:
                outside = [x for x in low.lowered(name) if low.loops.index(x) < first]
                inner = [x for x in low.lowered(name) if x not in outside]
                if outside:
                    last = frozenset(
                        x for x in low.lowered(reader) if x not in outside and not _own_place(low, name, x, me)
                    )
                    slack = product(inner, low.sizes)
                    low.wait(me, low.of[reader], ENDED, BUFFER, slack=slack, last=last, tile=tile)


def _made_from(low: Lowering, name: str, found: set[str]) -> set[str]:
    """What is computed, in one step, from a value of that step."""
    for reader, einsum in low.inside.items():
        for access in reads(einsum):
            if access.tensor == name and reader not in found and not low.step_of(access.tensor, access.indices)[0]:
                found.add(reader)
                _made_from(low, reader, found)
    return found
