"""Tiles in flight: how many steps each Einsum runs behind the first one, as a software pipeline in the schedule's
order.

What the stages of one round work on are tiles of different steps: an Einsum whose input is made in the same stage on
another unit, or in a later one, takes the tile of a round before. Where tiles are interleaved, it runs so many rounds
behind that drains are over when it comes (modulo scheduling: Rau, "Iterative modulo scheduling", MICRO 1994); where
they are not, a stage works on the tile that the stage before it has just left, and waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

from fusemodel.simulate.modulo import Operation, Precedence, schedule
from fusemodel.simulate.tables import total_of
from fusemodel.simulate.tasks import BUFFER, VALID, Actor, Buffer, Edge, Tasks, strides

_TRIES = 48
#: Periods tried, in those of the busiest unit.
_PERIODS = (1.0, 1.01, 1.03, 1.06, 1.1, 1.2, 1.35, 1.6, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class _Need:
    """``later`` uses, ``distance`` steps later or more, what ``earlier`` has done; ``delay`` cycles after its end."""

    earlier: int
    later: int
    distance: int
    delay: float
    tile: str


def with_lags(tasks: Tasks, register_words: float | None, *, interleave: bool, packed: bool) -> Tasks:
    """The tasks with the lag of every Einsum, and with room in registers for as many tiles as these lags keep there.
    ``packed``: in a group of one stage, units take what is in flight in the order of a modulo schedule, not in that in
    which it is computed."""
    needs = [n for i, a in enumerate(tasks.actors) if a.unit >= 0 for n in _needs(tasks, i)]
    lags = [0] * len(tasks.actors)
    if tasks.ordered:
        needs = [n for n in needs if not n.tile.endswith("in registers")]
        tasks = _in_order(tasks, needs)
        found = None
        if packed and interleave and tasks.stages == 1 and (starts := _starts(tasks, needs)):
            found, places = starts
            tasks = replace(tasks, actors=tuple(replace(a, place=places.get(i, a.place))
                                                for i, a in enumerate(tasks.actors)))  # fmt: skip
        if found is None:
            found = _lags(tasks, needs, interleave)
        if found is None:
            note = f"{tasks.name}: no order of tiles keeps the schedule's stages; tasks run as soon as they can"
            tasks = replace(tasks, ordered=False, notes=(*tasks.notes, note))
        else:
            lags = found
    room = _register_room(tasks, register_words, lags)
    buffers = tuple(_with_copies(b, room[b.tile]) if b.tile in room else b for b in tasks.buffers)
    pieces = {b.tile: b.pieces for b in buffers if b.tile in room}
    actors = tuple(
        replace(a, lag=lags[i], edges=tuple(replace(e, slack=pieces.get(e.tile, e.slack)) for e in a.edges))
        for i, a in enumerate(tasks.actors)
    )
    wanted = sum(b.room_words for b in buffers if not b.level)
    notes = tasks.notes
    if register_words is not None and wanted > register_words:
        notes += (f"{tasks.name}: the tiles in flight keep {wanted:,.0f} words in registers of {register_words:,.0f}",)
    return replace(tasks, actors=actors, buffers=buffers, notes=notes)


def _in_order(tasks: Tasks, needs: Sequence[_Need]) -> Tasks:
    """The tasks with places that follow what one step needs: values that it makes, and states that something still
    reads before they are overwritten. Places are free within a stage."""
    first: dict[int, set[int]] = {i: set() for i, a in enumerate(tasks.actors) if a.unit >= 0}
    for n in needs:
        if n.distance <= 0 and tasks.actors[n.earlier].stage == tasks.actors[n.later].stage:
            first[n.later].add(n.earlier)
    left = sorted(first, key=lambda i: tasks.actors[i].place)
    places: dict[int, int] = {}
    while left:
        free = next((i for i in left if not first[i] - places.keys()), left[0])
        places[free] = len(places)
        left.remove(free)
    return replace(tasks, actors=tuple(replace(a, place=places.get(i, a.place)) for i, a in enumerate(tasks.actors)))


def _with_copies(buffer: Buffer, copies: int) -> Buffer:
    pieces, places = (n // buffer.copies * copies for n in (buffer.pieces, buffer.places))
    return replace(buffer, pieces=pieces, places=places, copies=copies)


def _register_room(tasks: Tasks, words: float | None, lags: Sequence[int]) -> dict[str, int]:
    """How many tiles of each value passed on in registers may be there at once."""
    held = [b for b in tasks.buffers if not b.level and b.generation]
    each = {b.tile: b.pieces // b.copies for b in held}  # firings that make a tile
    once = sum(b.room_words / b.copies for b in held)
    fit = 2 if words is None or not once else max(2, min(8, int(words // once)))
    room = {b.tile: fit for b in held}
    if not tasks.ordered:
        return room
    for i, actor in enumerate(tasks.actors):
        for e in actor.edges:
            if e.tile in room and e.reason == BUFFER:
                room[e.tile] = max(room[e.tile], (lags[e.other] - lags[i]) // each[e.tile] + 2)
    return room


def _needs(tasks: Tasks, me: int) -> list[_Need]:
    """What an Einsum needs of others, directly or through transfers."""
    found: list[_Need] = []
    pending = [(e, 0, 0.0, me, frozenset({me})) for e in tasks.actors[me].edges]
    while pending:
        edge, distance, delay, by, seen = pending.pop()
        other = tasks.actors[edge.other]
        if edge.other == me or _never(tasks.actors[by], edge):
            continue
        distance += _distance(tasks, tasks.actors[by], edge)
        if other.unit >= 0:
            drain = other.drain if edge.event == VALID else 0.0
            found.append(_Need(edge.other, me, distance, delay + drain, edge.tile))
        elif edge.other not in seen:
            took = sum(share * per for level, per in zip(tasks.levels, tasks.cycles_per_word, strict=True)
                       if (share := other.shares.get(level, 0.0))) * _mean(other)  # fmt: skip
            pending += [(e, distance, delay + took, edge.other, seen | {edge.other}) for e in other.edges]
    return found


def _never(x: Actor, edge: Edge) -> bool:
    """Whether an edge never holds anything up."""
    most = edge.constant + sum(max(0, c * (n - 1)) for c, n in zip(edge.coefficients, x.sizes, strict=True))
    return most < 0 or edge.slack >= x.firings


def _mean(actor: Actor) -> float:
    return total_of(actor.amount, actor.sizes) / max(1, actor.firings)


def _distance(tasks: Tasks, x: Actor, edge: Edge) -> int:
    """At least how many steps of all loops lie between a firing and what it needs."""
    y = tasks.actors[edge.other]
    weight = strides(y.sizes)
    # the number needed, as steps of y's loops, where no loop wraps
    constant, least = x.turn[0] - y.turn[0], 0
    coefficients = dict(zip(x.loops, x.turn[1], strict=True))
    rest = edge.constant
    at_last = {}
    for w, n, loop in zip(weight, y.sizes, y.loops, strict=True):
        used = dict(zip(x.loops, edge.coefficients, strict=True)).get(loop, 0)
        at_last[loop] = 0 if used else n - 1
        rest -= 0 if used else w * (n - 1)
    if rest < 0 and rest + sum(w * at_last[loop] for w, loop in zip(weight, y.loops, strict=True)) == 0:
        at_last, rest = dict.fromkeys(at_last, 0), 0  # at the first, not at the last
    turn = dict(zip(y.loops, y.turn[1], strict=True))
    for loop in y.loops:
        constant -= turn[loop] * at_last[loop]
        if dict(zip(x.loops, edge.coefficients, strict=True)).get(loop, 0):
            coefficients[loop] = coefficients.get(loop, 0) - turn[loop]
    for w, loop in zip(weight, y.loops, strict=True):  # what is left is a shift back
        if rest < 0 and -rest >= w:
            steps = -rest // w
            constant += steps * turn[loop]
            rest += steps * w
    if edge.slack and x.loops:
        back, n = edge.slack, strides(x.sizes)
        for w, t in zip(n, x.turn[1], strict=True):
            constant += back // w * t
            back %= w
    for loop, n in zip(x.loops, x.sizes, strict=True):
        least += min(0, coefficients[loop] * (n - 1))
    return constant + least


def _starts(tasks: Tasks, needs: Sequence[_Need]) -> tuple[list[int], dict[int, int]] | None:
    """Lags, and places in a round, of a group that is one stage: in which order its units take what is in flight is
    for us to say."""
    every = max(1, prod(tasks.sizes))
    some = [i for i, a in enumerate(tasks.actors) if a.unit >= 0]
    number = {a: i for i, a in enumerate(some)}
    length = [_mean(tasks.actors[i]) for i in some]
    operations = [Operation(tasks.actors[i].unit, length[number[i]] * tasks.actors[i].firings / every) for i in some]
    after = [Precedence(number[n.earlier], number[n.later], n.distance, length[number[n.earlier]] + n.delay)
             for n in needs]  # fmt: skip
    busy = [sum(o.busy for o in operations if o.unit == u) for u in range(len(tasks.units))]
    for slower in _PERIODS:
        period = max(busy) * slower
        found = schedule(operations, after, period) if period else None
        if found is not None:
            lags = [0] * len(tasks.actors)
            for i, t in zip(some, found, strict=True):
                lags[i] = int((t + 1e-6) // period)
            order = sorted(some, key=lambda i: (found[number[i]] - lags[i] * period, tasks.actors[i].place))
            return lags, {i: place for place, i in enumerate(order)}
    return None


def _lags(tasks: Tasks, needs: Sequence[_Need], interleave: bool) -> list[int] | None:
    """The least lags that meet every need, in rounds as short as they allow; None if there are none."""
    rounds, offset, length = _round(tasks)
    for strict in (True, False):
        period = rounds
        for _ in range(_TRIES if interleave else 1):
            weights = [(n.earlier, n.later, _weight(tasks, n, offset, length, period, interleave, strict))
                       for n in needs]  # fmt: skip
            found = _longest(len(tasks.actors), weights)
            if found is not None:
                return found
            period = period * 1.5 + 1
        if interleave:
            weights = [(n.earlier, n.later, _weight(tasks, n, offset, length, period, False, strict)) for n in needs]
            if (found := _longest(len(tasks.actors), weights)) is not None:
                return found
    return None


def _round(tasks: Tasks) -> tuple[float, list[float], list[float]]:
    """Cycles of a round of all stages, and when in it each Einsum starts and how long it takes, at full steps."""
    length = [0.0] * len(tasks.actors)
    offset = [0.0] * len(tasks.actors)
    begin = 0.0
    every = max(1, prod(tasks.sizes))
    for stage in range(tasks.stages):
        busy: dict[int, float] = {}
        mean: dict[int, float] = {}
        members = [i for i, a in enumerate(tasks.actors) if a.unit >= 0 and a.stage == stage]
        for i in sorted(members, key=lambda i: tasks.actors[i].place):
            actor = tasks.actors[i]
            length[i] = _mean(actor)
            offset[i] = begin + busy.get(actor.unit, 0.0)
            # one that fires seldom does not hold up the others
            share = actor.firings / every
            busy[actor.unit] = busy.get(actor.unit, 0.0) + length[i] * share
            mean[actor.unit] = mean.get(actor.unit, 0.0) + length[i] * share
        begin += max(mean.values(), default=0.0)
    return begin, offset, length


def _weight(
    tasks: Tasks, need: _Need, offset: Sequence[float], length: Sequence[float], period: float, interleave: bool,
    strict: bool,
) -> int:  # fmt: skip
    """Rounds by which ``later`` must lag ``earlier``."""
    a, b = tasks.actors[need.earlier], tasks.actors[need.later]
    after = (b.stage, b.place) > (a.stage, a.place)
    beside = a.stage == b.stage and a.unit != b.unit
    rounds = 0 if (after and not (beside and strict)) or (beside and interleave and not strict) else 1
    if interleave and period > 0:
        late = offset[need.earlier] + length[need.earlier] + need.delay - offset[need.later]
        rounds = max(rounds, ceil(late / period - 1e-9))
    return rounds - need.distance


def _longest(n: int, weights: Sequence[tuple[int, int, int]]) -> list[int] | None:
    """Longest paths from anywhere; None where a cycle has a positive weight."""
    lags = [0] * n
    for _ in range(n + 1):
        changed = False
        for earlier, later, w in weights:
            if lags[earlier] + w > lags[later]:
                lags[later] = lags[earlier] + w
                changed = True
        if not changed:
            return lags
    return None
