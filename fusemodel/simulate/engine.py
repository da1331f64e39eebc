"""The compiled event engine. It does what :mod:`fusemodel.simulate.stepwise` does, to the tick, and skips whole periods.

Steps of loops, needed firings and places in tables are carried along as sums that change by a fixed amount at each step
of a loop, so that nothing is divided or looked up. How periods are found is said in :mod:`fusemodel.simulate.steady`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fusemodel.simulate.machine import Blocked, Counts, Deadlock, Machine
from fusemodel.simulate.program import Program, State, program_of, state_of
from fusemodel.simulate.steady import forget, skip_periods
from fusemodel.simulate.tasks import (
    BANDWIDTH,
    BUFFER,
    DEPENDENCE,
    DRAIN,
    ENDED,
    INPUT,
    ISSUED,
    STAGE,
    UNIT,
    VALID,
)

NEVER = np.int64(2**62)
#: What a call of the kernel came back for.
DONE, STUCK, PAUSED = 0, 1, 2


class Limits(NamedTuple):
    """How far one call goes: tasks started; and whether periods are skipped."""

    tasks: int
    skip: bool


@njit(cache=True)
def met(p: Program, s: State, a: int, e: int) -> bool:
    """Whether an edge lets the next firing of its actor start."""
    k = s.count[a, ISSUED]
    there = s.count[p.other[e], p.event[e]]
    while s.pointer[e] + p.slack[e] <= k:
        if there <= s.needed[e]:
            s.held_up[e] += 1
            return False
        s.passed[e] = s.needed[e]
        step(p.loops[a], p.sizes[a], s.edge_steps[e], p.needed_by[e], s.needed, e)
        s.pointer[e] += 1
    return True


@njit(cache=True)
def step(loops: int, sizes, steps, by, value, at) -> int:
    """The next steps of some loops, and a sum that goes with them; the outermost loop that stepped."""
    level = loops - 1
    while level >= 0:
        steps[level] += 1
        if steps[level] < sizes[level]:
            value[at] += by[level]
            return level
        steps[level] = 0
        level -= 1
    return -1


@njit(cache=True)
def ready(p: Program, s: State, a: int) -> bool:
    """Whether nothing holds up an actor; ``at_edge`` is the first edge that does."""
    while s.at_edge[a] < p.edges_to[a]:
        if not met(p, s, a, s.at_edge[a]):
            return False
        s.at_edge[a] += 1
    return True


@njit(cache=True)
def candidate(p: Program, s: State, u: int) -> int:
    """What an idle unit would start next; -1 when it has finished."""
    best, best_ready = -1, False
    for i in range(p.unit_from[u], p.unit_from[u + 1]):
        a = p.unit_actors[i]
        if s.count[a, ISSUED] >= p.firings[a]:
            continue
        if p.ordered:
            if best < 0 or s.key[a] < s.key[best]:
                best = a
            continue
        free = ready(p, s, a)
        if best < 0 or (free and not best_ready) or (free == best_ready and s.key[a] < s.key[best]):
            best, best_ready = a, free
    return best


@njit(cache=True)
def held_back(p: Program, s: State, u: int) -> bool:
    """Whether another unit is in a stage before that of the candidate."""
    for v in range(p.units):
        if v != u:
            slot = s.slot[v] if s.running[v] >= 0 else s.next_slot[v]
            if slot < s.next_slot[u]:
                return True
    return False


@njit(cache=True)
def choose(p: Program, s: State, u: int) -> None:
    a = candidate(p, s, u)
    s.next[u] = a
    s.next_slot[u] = NEVER if a < 0 else s.key[a] // p.actors


@njit(cache=True)
def wake(p: Program, s: State, a: int) -> None:
    """Whoever waits for an actor looks again."""
    for i in range(p.wakes_from[a], p.wakes_from[a + 1]):
        s.awake[p.wakes[i]] = True


@njit(cache=True)
def fire(p: Program, s: State, a: int) -> int:
    """Count a firing, note what buffers hold and go to the next; the place of its amount in the tables."""
    k = s.count[a, ISSUED]
    place = 0
    for f in range(p.forms[a]):
        value = min(max(s.form[a, f] - p.least[a, f], 0), p.classes[a, f] - 1)
        place = place * p.classes[a, f] + value
    place += p.table[a]
    s.fired[place] += 1
    s.count[a, ISSUED] = k + 1
    s.tasks[0] += 1
    if p.buffers_from[a] < p.buffers_from[a + 1]:
        fill(p, s, a, k)
    level = step(p.loops[a], p.sizes[a], s.steps[a], p.key_by[a], s.key, a)
    if level >= 0:
        for f in range(p.forms[a]):
            s.form[a, f] += p.form_by[a, f, level]
    s.at_edge[a] = p.edges_from[a]
    if a == p.anchor:
        s.crossed[0] = level
    return place


@njit(cache=True)
def fill(p: Program, s: State, a: int, k: int) -> None:
    """Pieces that buffers hold once firing ``k`` of their writer has started."""
    for b in range(p.buffers_from[a], p.buffers_from[a + 1]):
        if s.peak[b] >= p.pieces[b]:
            continue
        freed, any_edge = k, False
        for e in range(p.edges_from[a], p.edges_to[a]):
            if p.buffer[e] == b:
                any_edge = True
                there = s.count[p.other[e], p.event[e]]
                while s.pointer[e] < k and there > s.needed[e]:
                    step(p.loops[a], p.sizes[a], s.edge_steps[e], p.needed_by[e], s.needed, e)
                    s.pointer[e] += 1
                freed = min(freed, s.pointer[e])
        if not any_edge:
            freed = 0
        s.peak[b] = max(s.peak[b], k + 1 - freed)


@njit(cache=True)
def issue(p: Program, s: State, a: int) -> None:
    """A transfer queues at its levels."""
    now = s.now[0]
    place = fire(p, s, a)
    begin, end = now, now
    for level in range(p.levels):
        ticks = p.level_ticks[level, place]
        if ticks > 0:
            first = max(now, s.free[level])
            s.free[level] = first + ticks
            begin, end = max(begin, first), max(end, first + ticks)
    s.begin[a] = begin
    s.end[p.entity[a]] = end
    wake(p, s, a)


@njit(cache=True)
def start(p: Program, s: State, u: int, a: int) -> None:
    """An Einsum's firing starts on its unit."""
    now = s.now[0]
    end = now
    for e in range(p.edges_from[a], p.edges_to[a]):
        if p.stream[e]:
            y = p.other[e]
            if s.end[p.entity[y]] < NEVER and s.count[y, ISSUED] == s.passed[e] + 1:
                end = max(end, s.end[p.entity[y]])
    busy = p.unit_ticks[fire(p, s, a)]
    end = max(end, now + busy)
    s.busy[u] += busy
    s.stalls[a, BANDWIDTH] += end - now - busy
    s.end[p.entity[a]] = end
    s.running[u] = a
    s.slot[u] = s.next_slot[u]
    choose(p, s, u)
    wake(p, s, a)
    if p.ordered and p.stages > 1:
        for v in range(p.units):
            s.awake[p.transfers + v] = True


@njit(cache=True)
def start_all(p: Program, s: State) -> bool:
    changed = False
    for t in range(p.transfers):
        if s.awake[t]:
            s.awake[t] = False
            a = p.transfer_actors[t]
            if s.end[t] == NEVER and s.count[a, ISSUED] < p.firings[a] and ready(p, s, a):
                issue(p, s, a)
                changed = True
    for u in range(p.units):
        i = p.transfers + u
        if s.awake[i]:
            s.awake[i] = False
            if s.running[u] >= 0:
                continue
            if not p.ordered:
                choose(p, s, u)
            a = s.next[u]
            if a >= 0 and ready(p, s, a) and not (p.ordered and p.stages > 1 and held_back(p, s, u)):
                start(p, s, u, a)
                changed = True
    return changed


@njit(cache=True)
def next_event(p: Program, s: State) -> int:
    then = NEVER
    for i in range(p.transfers + p.units):
        then = min(then, s.end[i])
    for d in range(p.drains):
        if s.drain_length[d] > 0:
            then = min(then, s.drain_time[d, s.drain_head[d]])
    return then


@njit(cache=True)
def reason_of(p: Program, s: State, a: int) -> int:
    """Why an idle unit waits with a candidate."""
    e = s.at_edge[a]
    if e >= p.edges_to[a]:
        return STAGE
    y, reason = p.other[e], p.reason[e]
    if p.unit[y] < 0:
        if reason != INPUT:
            return reason
        if s.end[p.entity[y]] < NEVER:
            return BANDWIDTH if s.begin[y] > s.now[0] else INPUT
        if s.count[y, ISSUED] < p.firings[y]:
            up = s.at_edge[y]
            if up < p.edges_to[y] and p.reason[up] == BUFFER:
                return BUFFER
        return INPUT
    if reason == DEPENDENCE:
        if p.event[e] == VALID and s.count[y, ENDED] > s.needed[e]:
            return DRAIN
        doing = s.running[p.unit[y]]
        if doing >= 0 and doing != y:
            return UNIT
    return reason


@njit(cache=True)
def wait_until(p: Program, s: State, then: int) -> None:
    """Time passes; idle units wait for something."""
    passed = then - s.now[0]
    if passed > 0:
        for u in range(p.units):
            if s.running[u] < 0:
                a = s.next[u]
                if a < 0:
                    s.after[u] += passed
                else:
                    s.stalls[a, reason_of(p, s, a)] += passed
    s.now[0] = then


@njit(cache=True)
def end_all(p: Program, s: State) -> None:
    """What ends now."""
    now = s.now[0]
    for i in range(p.transfers + p.units):
        if s.end[i] != now:
            continue
        s.end[i] = NEVER
        s.awake[i] = True
        a = p.transfer_actors[i] if i < p.transfers else s.running[i - p.transfers]
        s.count[a, ENDED] += 1
        if i >= p.transfers:
            s.running[i - p.transfers] = -1
            if p.ordered and p.stages > 1:
                for v in range(p.units):
                    s.awake[p.transfers + v] = True
        d = p.drain_of[a]
        if d >= 0:
            put_drain(p, s, d, now + p.drain_ticks[d])
        else:
            s.count[a, VALID] += 1
        wake(p, s, a)
    for d in range(p.drains):
        while s.drain_length[d] > 0 and s.drain_time[d, s.drain_head[d]] == now:
            a = p.drain_actors[d]
            s.count[a, VALID] += s.drain_many[d, s.drain_head[d]]
            s.drain_head[d] = (s.drain_head[d] + 1) % s.drain_time.shape[1]
            s.drain_length[d] -= 1
            wake(p, s, a)


@njit(cache=True)
def put_drain(p: Program, s: State, d: int, time: int) -> None:
    """A result will be there at ``time``; those of one time are put together."""
    room = s.drain_time.shape[1]
    last = (s.drain_head[d] + s.drain_length[d] - 1) % room
    if s.drain_length[d] > 0 and s.drain_time[d, last] == time:
        s.drain_many[d, last] += 1
        return
    if s.drain_length[d] >= room:
        s.overflow[0] = 1
        return
    last = (last + 1) % room
    s.drain_time[d, last] = time
    s.drain_many[d, last] = 1
    s.drain_length[d] += 1


@njit(cache=True)
def mark(p: Program, s: State) -> None:
    """A point of the timeline; when it is full, every other one is dropped."""
    n = s.marks[0]
    if n == s.timeline.shape[0]:
        n //= 2
        for i in range(n):
            s.timeline[i] = s.timeline[2 * i + 1]
        s.marks[1] = max(1, s.marks[1] * 2)
    s.timeline[n, 0] = s.now[0]
    s.timeline[n, 1:] = s.busy
    s.marks[0] = n + 1
    s.marks[2] = s.now[0] + s.marks[1]


@njit(cache=True)
def advance(p: Program, s: State, limits: Limits) -> int:
    """Run on until everything is done, nothing can go on or enough tasks have started."""
    until = s.tasks[0] + limits.tasks
    while True:
        while start_all(p, s):
            pass
        if s.crossed[0] >= 0:
            level = s.crossed[0]
            s.crossed[0] = -1
            if limits.skip:
                skip_periods(p, s, level)
        then = next_event(p, s)
        if then == NEVER:
            break
        if s.tasks[0] >= until or s.overflow[0]:
            return PAUSED
        wait_until(p, s, then)
        if s.now[0] >= s.marks[2]:
            mark(p, s)
        end_all(p, s)
    for a in range(p.actors):
        if s.count[a, ISSUED] < p.firings[a]:
            return STUCK
    return DONE


@njit(cache=True)
def begin(p: Program, s: State) -> None:
    for i in range(p.transfers + p.units):
        s.awake[i] = True
    for u in range(p.units):
        choose(p, s, u)
    forget(s, 0)


def run(
    machine: Machine, *, skip: bool = True, progress: Callable[[int, int], None] | None = None, block: int = 2**23
) -> Counts:
    """Run a machine to its end. ``skip`` leaves out whole periods once the state repeats (the result is the same);
    ``progress`` is told, every ``block`` tasks, how many firings are done of how many. Raises Deadlock."""
    program = program_of(machine)
    state = state_of(program, machine)
    begin(program, state)
    every = machine.tasks.firings
    while True:
        found = advance(program, state, Limits(block, skip))
        if state.overflow[0]:
            raise OverflowError("more results drain at once than the engine has room for")
        if found == DONE:
            break
        if found == STUCK:
            raise Deadlock(int(state.now[0]), _blocked(program, state))
        if progress:
            progress(int(state.count[:, ISSUED].sum()), every)
    return _counts(machine, program, state)


def _blocked(p: Program, s: State) -> tuple[Blocked, ...]:
    found = []
    for a in range(p.actors):
        if s.count[a, ISSUED] < p.firings[a]:
            edge = int(s.at_edge[a] - p.edges_from[a])
            found.append(Blocked(a, int(s.count[a, ISSUED]), -1 if s.at_edge[a] >= p.edges_to[a] else edge))
    return tuple(found)


def _counts(machine: Machine, p: Program, s: State) -> Counts:
    fired: list[NDArray[np.int64]] = []
    for a, actor in enumerate(machine.tasks.actors):
        fired.append(s.fired[p.table[a] : p.table[a] + actor.amount.values.size].copy())
    timeline = s.timeline[: s.marks[0]].copy()
    peak = np.zeros(len(machine.tasks.buffers), dtype=np.int64)
    peak[p.buffer_order] = s.peak
    simulated = int(s.tasks[0])
    return Counts(int(s.now[0]), tuple(fired), s.busy.copy(), s.stalls.copy(), s.after.copy(), peak, timeline, simulated,
                  int(s.count[:, ISSUED].sum()) - simulated)  # fmt: skip
