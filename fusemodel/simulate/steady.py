"""Whole periods left out: when the machine's state is that of some steps of a loop ago, what follows repeats.

States are compared where an anchor Einsum takes a step of a loop. Two states are alike if every actor has either not
moved at all, or moved on by the same number of steps of that loop and nothing else, while all that is under way takes as
long as it did. What follows then is what followed before, moved on, until something that depends on the step itself comes
into play: the end of the loop for any actor or edge; an actor that stands still and may come to its turn, or get what
it waits for; a condition that changes. The number of periods left out stays clear of all of these. Loops are nested,
and so are the periods. The state compared with is replaced after 1, 2, 4, ... steps (Brent, "An improved Monte Carlo
factorization algorithm", BIT 1980), so that periods of any number of steps are found.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fusemodel.simulate.program import Program, State
from fusemodel.simulate.tasks import ISSUED

_NEVER = np.int64(2**62)
_FAR = np.int64(2**60)


@njit(cache=True)
def forget(s: State, level: int) -> None:
    """States seen at a loop and those inside it are of no use any more."""
    for i in range(level, s.seen_for.shape[0]):
        s.seen_for[i, 0] = 0
        s.seen_for[i, 1] = 0
        s.seen_for[i, 2] = 1


@njit(cache=True)
def skip_periods(p: Program, s: State, level: int) -> None:
    """Look for a period at a loop of the anchor, and leave out as many as repeat."""
    loop = -1
    for x in range(p.axis.shape[1]):
        if p.axis[p.anchor, x] == level:
            loop = x
    forget(s, loop + 1)
    snapshot(p, s, s.live)
    info = s.seen_for[loop]
    if info[0]:
        old = s.seen[loop]
        steps = alike(p, s, old, s.live, loop)
        if steps > 0:
            many = repeats(p, s, old, s.live, loop, steps)
            if many > 0:
                move_on(p, s, old, s.live, loop, steps, many)
                forget(s, loop)
                return
    info[1] += 1
    if not info[0] or info[1] >= info[2]:
        s.seen[loop, :] = s.live
        if info[0]:
            info[2] *= 2
        info[0] = 1
        info[1] = 0


@njit(cache=True)
def snapshot(p: Program, s: State, to) -> None:
    """All that the future depends on, in a fixed order; times are since now."""
    now = s.now[0]
    i = 0
    to[i] = now
    i += 1
    for a in range(p.actors):
        to[i] = s.count[a, 0]
        to[i + 1] = s.count[a, 1] - s.count[a, 0]
        to[i + 2] = s.count[a, 2] - s.count[a, 0]
        to[i + 3] = s.at_edge[a]
        to[i + 4] = s.key[a]
        to[i + 5] = max(s.begin[a] - now, 0)
        i += 6
        for x in range(p.sizes.shape[1]):
            to[i] = s.steps[a, x]
            i += 1
        for f in range(p.least.shape[1]):
            to[i] = s.form[a, f]
            i += 1
    for e in range(len(p.owner)):
        to[i] = s.pointer[e]
        to[i + 1] = s.needed[e]
        to[i + 2] = s.held_up[e]
        to[i + 3] = s.passed[e]
        i += 4
        for x in range(p.sizes.shape[1]):
            to[i] = s.edge_steps[e, x]
            i += 1
    for j in range(p.transfers + p.units):
        to[i] = -1 if s.end[j] == _NEVER else s.end[j] - now
        i += 1
    for u in range(p.units):
        to[i] = s.running[u]
        to[i + 1] = s.next[u]
        to[i + 2] = s.slot[u]
        to[i + 3] = s.next_slot[u]
        i += 4
    for v in range(p.levels):
        to[i] = max(s.free[v] - now, 0)
        i += 1
    for d in range(p.drains):
        to[i] = s.drain_length[d]
        i += 1
        room = s.drain_time.shape[1]
        for j in range(s.drain_length[d]):
            at = (s.drain_head[d] + j) % room
            to[i + 2 * j] = s.drain_time[d, at] - now
            to[i + 2 * j + 1] = s.drain_many[d, at]
        i += 2 * room
    for j in range(len(s.fired)):
        to[i] = s.fired[j]
        i += 1
    for u in range(p.units):
        to[i] = s.busy[u]
        to[i + 1] = s.after[u]
        i += 2
    for a in range(p.actors):
        for r in range(s.stalls.shape[1]):
            to[i] = s.stalls[a, r]
            i += 1


@njit(cache=True)
def actor_at(p: Program, a: int) -> int:
    """Where an actor's part of a snapshot is."""
    return 1 + a * (6 + p.sizes.shape[1] + p.least.shape[1])


@njit(cache=True)
def edge_at(p: Program, e: int) -> int:
    return actor_at(p, p.actors) + e * (4 + p.sizes.shape[1])


@njit(cache=True)
def entity_at(p: Program) -> int:
    return edge_at(p, len(p.owner))


@njit(cache=True)
def moved(old, new, i: int, depth: int, axis: int) -> int:
    """By how many steps of one loop steps have moved on; -1 if they differ otherwise."""
    for x in range(depth):
        if x != axis and old[i + x] != new[i + x]:
            return -1
    return new[i + axis] - old[i + axis] if axis >= 0 else 0


@njit(cache=True)
def alike(p: Program, s: State, old, new, loop: int) -> int:
    """By how many steps of a loop a state has moved on, all else being the same; 0 if it has not."""
    at = entity_at(p)
    entities = p.transfers + p.units
    for j in range(entities):
        if old[at + j] != new[at + j]:
            return 0
    anchor = actor_at(p, p.anchor) + 6
    steps = new[anchor + p.axis[p.anchor, loop]] - old[anchor + p.axis[p.anchor, loop]]
    if steps <= 0:
        return 0
    depth = p.sizes.shape[1]
    for a in range(p.actors):
        i, x = actor_at(p, a), p.axis[a, loop]
        if old[i + 1] != new[i + 1] or old[i + 2] != new[i + 2] or old[i + 3] != new[i + 3] or old[i + 5] != new[i + 5]:
            return 0
        if old[i] != new[i] and (x < 0 or moved(old, new, i + 6, depth, x) != steps):
            return 0
    for e in range(len(p.owner)):
        i, owner = edge_at(p, e), p.owner[e]
        k = actor_at(p, owner)
        by = new[i] - old[i]
        if by == 0:
            if new[k] != old[k] and p.slack[e] == 0:
                return 0
        elif by != new[k] - old[k] or moved(old, new, i + 4, depth, p.axis[owner, loop]) != steps:
            return 0
    i = at + entities
    for u in range(p.units):
        if old[i] != new[i] or old[i + 1] != new[i + 1]:
            return 0
        i += 4
    for v in range(p.levels):
        if old[i] != new[i]:
            return 0
        i += 1
    for d in range(p.drains):
        if old[i] != new[i]:
            return 0
        for j in range(2 * new[i]):
            if old[i + 1 + j] != new[i + 1 + j]:
                return 0
        i += 1 + 2 * s.drain_time.shape[1]
    return steps


@njit(cache=True)
def repeats(p: Program, s: State, old, new, loop: int, steps: int) -> int:
    """How often a period repeats before anything in it may change."""
    many = _FAR
    depth = p.sizes.shape[1]
    highest, by_key = -_FAR, np.int64(0)
    for a in range(p.actors):
        i, x = actor_at(p, a), p.axis[a, loop]
        if old[i] == new[i]:
            continue
        many = min(many, (p.sizes[a, x] - 1 - new[i + 6 + x]) // steps)
        if p.unit[a] >= 0:
            highest = max(highest, new[i + 4])
            by_key = max(by_key, new[i + 4] - old[i + 4])
        for f in range(p.forms[a]):
            many = min(many, form_repeats(p, old, new, a, f, i, x, steps))
    if many <= 0:
        return 0
    for a in range(p.actors):
        i = actor_at(p, a)
        if old[i] != new[i] or s.count[a, ISSUED] >= p.firings[a]:
            continue
        e = s.at_edge[a]
        blocked = e < p.edges_to[a]
        if p.unit[a] >= 0 and (p.ordered or not blocked):
            many = min(many, (new[i + 4] - 1 - highest) // max(by_key, 1))
        if blocked:  # it must stay blocked
            j = actor_at(p, p.other[e])
            gain = new[j] - old[j]
            if gain > 0:
                many = min(many, (s.needed[e] - s.count[p.other[e], p.event[e]]) // gain)
    for e in range(len(p.owner)):
        many = min(many, edge_repeats(p, s, old, new, e, loop, steps, depth))
        if many <= 0:
            return 0
    return max(many, 0)


@njit(cache=True)
def form_repeats(p: Program, old, new, a: int, f: int, i: int, x: int, steps: int) -> int:
    """How often, until the class of an actor's firings may change along a condition."""
    c = p.form_of[a, f, x]
    if c == 0:
        return _FAR
    at = i + 6 + p.sizes.shape[1] + f
    low, high, base_old, base_new = np.int64(0), np.int64(0), old[at], new[at]
    for y in range(x + 1, p.loops[a]):
        b = p.form_of[a, f, y]
        low += min(0, b * (p.sizes[a, y] - 1))
        high += max(0, b * (p.sizes[a, y] - 1))
        base_old -= b * old[i + 6 + y]
        base_new -= b * new[i + 6 + y]
    least, most = p.least[a, f], p.least[a, f] + p.classes[a, f] - 1
    by = abs(c) * steps
    if c > 0:
        if base_old + low >= most:
            return _FAR
        return (least - high - base_new) // by
    if base_old + high <= least:
        return _FAR
    return (base_new + low - most) // by


@njit(cache=True)
def edge_repeats(p: Program, s: State, old, new, e: int, loop: int, steps: int, depth: int) -> int:
    """How often, until an edge may hold up what it did not, or let go what it held up."""
    i, owner = edge_at(p, e), p.owner[e]
    k, j = actor_at(p, owner), actor_at(p, p.other[e])
    went, gain = new[k] - old[k], new[j] - old[j]
    if went == 0:
        return _FAR
    there = s.count[p.other[e], p.event[e]]
    if new[i] == old[i]:  # it stands still while its slack lasts, and must not go on
        many = (new[i] + p.slack[e] - new[k]) // went - 1
        if gain > 0:
            many = min(many, (s.needed[e] - there) // gain - 1)
        elif there > s.needed[e]:
            return 0
        return many
    many = (p.sizes[owner, p.axis[owner, loop]] - 1 - new[i + 4 + p.axis[owner, loop]]) // steps
    asked = new[i + 1] - old[i + 1]
    if asked > gain:  # what is there in advance is used up
        return min(many, (there - 1 - new[i + 1]) // (asked - gain) - 1)
    if asked < gain and new[i + 2] != old[i + 2]:
        return 0  # it held something up and may not do so again
    return many


@njit(cache=True)
def move_on(p: Program, s: State, old, new, loop: int, steps: int, many: int) -> None:
    """Leave out ``many`` periods: what moved moves on, what was counted is counted again."""
    now, passed = s.now[0], many * (new[0] - old[0])
    depth = p.sizes.shape[1]
    for a in range(p.actors):
        i = actor_at(p, a)
        by = new[i] - old[i]
        if s.begin[a] > now:
            s.begin[a] += passed
        if by == 0:
            continue
        for event in range(3):
            s.count[a, event] += many * by
        s.key[a] += many * (new[i + 4] - old[i + 4])
        s.steps[a, p.axis[a, loop]] += many * steps
        for f in range(p.forms[a]):
            at = i + 6 + depth + f
            s.form[a, f] += many * (new[at] - old[at])
    for e in range(len(p.owner)):
        i = edge_at(p, e)
        s.held_up[e] += many * (new[i + 2] - old[i + 2])
        if new[i] == old[i]:
            continue
        s.pointer[e] += many * (new[i] - old[i])
        s.needed[e] += many * (new[i + 1] - old[i + 1])
        s.passed[e] += many * (new[i + 3] - old[i + 3])
        s.edge_steps[e, p.axis[p.owner[e], loop]] += many * steps
    i = entity_at(p)
    for j in range(p.transfers + p.units):
        if s.end[j] < _NEVER:
            s.end[j] += passed
    i += p.transfers + p.units
    for u in range(p.units):
        s.slot[u] += many * (new[i + 2] - old[i + 2])
        s.next_slot[u] += many * (new[i + 3] - old[i + 3])
        i += 4
    for v in range(p.levels):
        s.free[v] = max(s.free[v] - now, 0) + now + passed
        i += 1
    for d in range(p.drains):
        room = s.drain_time.shape[1]
        for j in range(s.drain_length[d]):
            s.drain_time[d, (s.drain_head[d] + j) % room] += passed
        i += 1 + 2 * room
    for j in range(len(s.fired)):
        s.fired[j] += many * (new[i] - old[i])
        i += 1
    for u in range(p.units):
        s.busy[u] += many * (new[i] - old[i])
        s.after[u] += many * (new[i + 1] - old[i + 1])
        i += 2
    for a in range(p.actors):
        for r in range(s.stalls.shape[1]):
            s.stalls[a, r] += many * (new[i] - old[i])
            i += 1
    s.now[0] = now + passed
