"""Transfers of a group as tasks: loads, stores and what streams past a level, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fusemodel.model.amounts import product
from fusemodel.model.plan import Move
from fusemodel.simulate.bring import Bring, words_of
from fusemodel.simulate.tasks import BUFFER, DEPENDENCE, ENDED, INPUT, ISSUED, VALID, Actor, Table, strides

if TYPE_CHECKING:
    from fusemodel.simulate.lower import Lowering

#: Transfers are served in parts of at least so many cycles, and at most so many parts.
PART_CYCLES, MAX_PARTS = 64.0, 16


def transfer(low: Lowering, bring: Bring) -> tuple[int, Bring, bool] | None:
    """An actor for a movement that takes time, and whether it goes along with single tasks; the rest is only
    counted."""
    shares: dict[str, float] = {}
    for level, _, share in bring.flows:
        if level in low.timed and share:
            shares[level] = shares.get(level, 0.0) + share
    if not shares or not bring.words:
        low.untimed += [(level, bring.tensor, write, share * bring.words) for level, write, share in bring.flows]
        return None
    lowered = tuple(x for x in bring.loops if x in low.loops)
    whole = all(x in low.loops for x in bring.loops)
    stream = bring.source is None or bring.sink is None or bring.inside or not whole
    pieces = () if stream else _pieces(low, bring, lowered)
    table, _ = words_of(bring, low.frames, low.sizes, lowered, pieces)
    loops = (*lowered, *pieces)
    inward = bring.kind in ("fill", "read", "partial")
    verb = "load" if inward else "store"
    where = bring.sink or f"for {bring.einsums[0]}"
    label = f"{verb} {bring.tensor}" + (f" {where}" if bring.sink is None or len(low.arch.levels) > 2 else "")
    turn = _plain_turn(low, loops)
    sizes = tuple(low.sizes[x] for x in loops)
    if not (inward and stream) and (parts := _parts(low, table, shares)) > 1:
        table, turn = _divided(table, parts), (turn[0], (*turn[1], 0))
        loops, sizes = (*loops, f"part of {label}"), (*sizes, parts)
    me = low.add(
        Actor(label, verb, bring.einsums[0], bring.tensor, loops, sizes, table, shares=shares, flows=bring.flows,
              turn=turn, tiles=tuple(m.tile for m in bring.moves))
    )  # fmt: skip
    low.serves[me] = frozenset(access_of(m) for m in bring.moves) if inward else frozenset()
    if bring.sink and not (inward and stream):
        low.at_level.setdefault((bring.tensor, bring.sink), []).append(me)
    if bring.source:
        low.leaving.setdefault((bring.tensor, bring.source), []).append(me)
    return me, bring, stream


def link(low: Lowering, me: int, bring: Bring, stream: bool) -> None:
    if bring.kind == "write":
        _stored(low, me, bring, stream)
    elif stream:
        _streamed_in(low, me, bring)
    else:
        _loaded(low, me, bring)


def _parts(low: Lowering, table: Table, shares: Mapping[str, float]) -> int:
    """In how many parts a transfer is served, so that one that is long does not keep others from a level."""
    longest = 0.0
    for level, share in shares.items():
        bandwidth = low.arch.levels[level].bandwidth_bytes_per_s or 1.0
        words = share * float(table.values.max())
        longest = max(longest, words * low.arch.word_bytes * low.arch.clock_hz / bandwidth)
    return max(1, min(MAX_PARTS, int(longest // PART_CYCLES)))


def _plain_turn(low: Lowering, loops: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    every = dict(zip(low.loops, strides([low.sizes[x] for x in low.loops]), strict=True))
    return 0, tuple(every[x] for x in loops)


def _pieces(low: Lowering, bring: Bring, lowered: tuple[str, ...]) -> tuple[str, ...]:
    """Loops inside a tile whose steps each use a part of it of their own."""
    found: list[str] = []
    for x in low.loops:
        if x in lowered or any(x in m.tile.outside for m in bring.moves):
            continue
        parts = [d for m in bring.moves for d in m.tile.dims if x in d.all_leaves]
        each = all(any(x in d.all_leaves for d in m.tile.dims) for m in bring.moves)
        simple = all(len(d.leaves) == 1 and not d.data and not d.iterative for d in parts)
        if each and simple and all(x in low.lowered(e) for e in bring.einsums):
            found.append(x)
    order = [x for x in low.loops if x in found]
    first = min((low.loops.index(x) for x in order), default=0)
    return tuple(order) if all(low.loops.index(x) < first for x in lowered) else ()


def _streamed_in(low: Lowering, me: int, bring: Bring) -> None:
    """Operands that pass a level by flow in while the Einsum runs, at most one task ahead."""
    reader = low.of[bring.einsums[0]]
    low.wait(me, reader, ISSUED, INPUT, lacking="first", slack=1)
    for name in bring.einsums:
        low.wait(low.of[name], me, ISSUED, INPUT)
        actor = low.actors[low.of[name]]
        low.actors[low.of[name]] = replace(actor, streams=(*actor.streams, me))
    if bring.kind == "partial":
        _after_store(low, me, bring)
    elif bring.source:
        _from(low, me, bring, bring.source)


def _loaded(low: Lowering, me: int, bring: Bring) -> None:
    """A tile brought to where it is kept: as soon as there is room, which :meth:`_spaces` sees to."""
    if bring.kind == "partial":
        _after_store(low, me, bring)
        low.wait(low.of[bring.einsums[0]], me, VALID, INPUT)
    elif bring.source:
        _from(low, me, bring, bring.source)


def _after_store(low: Lowering, me: int, bring: Bring) -> None:
    """What comes back was stored when the tile was last here."""
    used = {x for d in bring.moves[0].tile.dims for x in d.all_leaves}
    again = [x for x in low.actors[me].loops if x not in used]
    for other in low.at_level.get((bring.tensor, bring.source or ""), []):
        if low.actors[other].kind == "store" and again:
            low.wait(me, other, ENDED, DEPENDENCE, back={again[-1]: 1})


def _stored(low: Lowering, me: int, bring: Bring, stream: bool) -> None:
    """A result on its way out: when it is complete; a task's own result has room for two, and what still drains is in
    the array."""
    made = low.of[bring.einsums[0]]
    low.wait(me, made, VALID, DEPENDENCE)
    order = list(low.arch.levels)
    for level in order[order.index(bring.source) :] if bring.source else ():
        put = [a for a in low.at_level.get((bring.tensor, level), []) if low.actors[a].kind == "store"]
        for other in put:
            low.wait(me, other, VALID, DEPENDENCE)
        if put:
            break
    if stream:
        low.wait(made, me, ENDED, BUFFER, before=2 + _draining(low, made, me))


def _draining(low: Lowering, made: int, store: int) -> int:
    """How many results for a store drain at once, at most."""
    actor = low.actors[made]
    works = actor.amount.values[actor.amount.values > 0]
    if not actor.drain or not works.size:
        return 0
    each = product([x for x in actor.loops if x not in low.actors[store].loops], low.sizes)
    return int(actor.drain // (float(works.min()) * each))


def _from(low: Lowering, me: int, bring: Bring, level: str) -> None:
    """Whoever takes a tensor from a level waits for those that put it there; of a state, a step before where that is
    what is used."""
    order, tensor = list(low.arch.levels), bring.tensor
    looks = [low.step_of(tensor, [d.index for d in m.tile.dims]) for m in bring.moves]
    if not any(there or back for back, there in looks):
        return
    back = min((back for back, _ in looks), key=len)
    while True:
        put = [a for a in low.at_level.get((tensor, level), []) if a != me and same_tile(low, a, me)]
        for other in put:
            low.wait(me, other, VALID, INPUT, back=back)
        if tensor in low.of:
            low.wait(me, low.of[tensor], VALID, DEPENDENCE, back=back)
        outer = order.index(level) - 1
        if put or outer < 0:
            return
        level = order[outer]


def same_tile(low: Lowering, a: int, b: int) -> bool:
    """Whether two transfers are for the same accesses; what an Einsum makes is for all."""
    return low.actors[a].kind == "store" or bool(low.serves[a] & low.serves[b])


def access_of(move: Move) -> tuple[object, ...]:
    """What identifies an access of an Einsum."""
    return move.tile.einsum, move.tensor, tuple(d.index for d in move.tile.dims)


def _divided(table: Table, parts: int) -> Table:
    """Amounts of the parts of a transfer."""
    part = table.scaled(1 / parts)
    return Table(part.values, tuple((*c, 0) for c in part.coefficients), part.constants, part.least)
