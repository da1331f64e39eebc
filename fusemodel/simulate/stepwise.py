"""The event engine in plain Python, task by task: slow, and the oracle of the compiled one. It also records tasks.

At each time, first what ends then is noted; then transfers, in their order, and idle units, in theirs, start what they
can, over and over until nothing more can. A level serves transfers in the order in which they were issued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusemodel.simulate.machine import Blocked, Counts, Deadlock, Machine
from fusemodel.simulate.program import (
    BEGIN,
    D_ACTOR,
    DRAINS,
    END,
    ENTITY,
    FREE,
    HEAD,
    LENGTH,
    NEVER,
    NOW,
    RUNNING,
    WORKED,
    Program,
)
from fusemodel.simulate.tasks import (
    BANDWIDTH,
    BUFFER,
    DEPENDENCE,
    DRAIN,
    ENDED,
    FINISHED,
    INPUT,
    ISSUED,
    REASONS,
    STAGE,
    UNIT,
    VALID,
    Edge,
    steps_of,
)

#: The reason of a task that was under way when recording began.
UNDER_WAY = -1


@dataclass(frozen=True, slots=True)
class Task:
    """One firing, in ticks: when it was issued, when it began (a transfer may queue) and ended; of this it worked for
    ``busy`` (the rest of an Einsum's it waited for a stream). ``reason`` is why its unit stood idle for ``waited``
    before."""

    actor: int
    firing: int
    issued: int
    begin: int
    end: int
    busy: int
    reason: int
    waited: int


class Stepwise:
    """A run of a machine. ``record`` is called with each task that starts; ``valid`` with each (actor, firing) whose
    result is there; ``limit`` stops after so many tasks; without ``peaks`` what buffers hold is not counted."""

    def __init__(
        self,
        machine: Machine,
        record: Callable[[Task], None] | None = None,
        valid: Callable[[int, int], None] | None = None,
        limit: int | None = None,
        peaks: bool = True,
    ) -> None:
        self.machine, self.tasks = machine, machine.tasks
        self.record, self.on_valid, self.limit = record, valid, limit
        self.buffers = list(enumerate(self.tasks.buffers)) if peaks else []
        actors = self.tasks.actors
        self.actors = actors
        self.transfers = [i for i, a in enumerate(actors) if a.unit < 0]
        self.of_unit = [[i for i, a in enumerate(actors) if a.unit == u] for u in range(len(self.tasks.units))]
        self.count = [[0, 0, 0] for _ in actors]
        self.end: list[int | None] = [None] * len(actors)
        self.begin = [0] * len(actors)
        self.drains: list[deque[int]] = [deque() for _ in actors]
        self.running: list[int | None] = [None] * len(self.tasks.units)
        self.free = [0] * len(self.tasks.levels)
        self.now = 0
        self.started = 0
        self.fired = [np.zeros(a.amount.values.size, dtype=np.int64) for a in actors]
        self.busy = np.zeros(len(self.tasks.units), dtype=np.int64)
        self.stalls = np.zeros((len(actors), len(REASONS)), dtype=np.int64)
        self.after = np.zeros(len(self.tasks.units), dtype=np.int64)
        self.peak = np.zeros(len(self.tasks.buffers), dtype=np.int64)
        self.idle_since = [0] * len(self.tasks.units)
        self.worked = [False] * len(self.tasks.units)
        self.last_reason = [FINISHED] * len(self.tasks.units)

    def go_on(self, p: Program) -> None:
        """Start from a state of the compiled engine. What is under way is recorded as if it started now."""
        self.now = int(p.G[NOW])
        self.free = [int(t) for t in p.G[FREE : FREE + len(self.free)]]
        self.idle_since = [self.now] * len(self.running)
        for a, row in enumerate(p.A):
            self.count[a] = [int(row[e]) for e in (ISSUED, ENDED, VALID)]
            entity = p.U[row[ENTITY]]
            unit = self.actors[a].unit
            if entity[END] < NEVER and (unit < 0 or entity[RUNNING] == a):
                self.begin[a], end = max(int(row[BEGIN]), self.now) if unit < 0 else self.now, int(entity[END])
                self.end[a] = end
                if unit >= 0:
                    self.running[unit], self.worked[unit] = a, bool(entity[WORKED])
                if self.record:
                    begin = self.begin[a]
                    self.record(Task(a, self.count[a][ISSUED] - 1, self.now, begin, end, end - begin, UNDER_WAY, 0))
        for d, row in enumerate(p.D[: p.G[DRAINS]]):
            at = [(row[HEAD] + j) % p.DT.shape[1] for j in range(row[LENGTH])]
            self.drains[row[D_ACTOR]].extend(int(p.DT[d, j]) for j in at for _ in range(p.DM[d, j]))

    # What may start

    def needed(self, a: int, edge: Edge, firing: int | None = None) -> int:
        """The firing of the other actor that must have passed."""
        k = (self.count[a][ISSUED] if firing is None else firing) - edge.slack
        steps = steps_of(k, self.actors[a].sizes)
        return edge.constant + sum(c * s for c, s in zip(edge.coefficients, steps, strict=True))

    def met(self, a: int, edge: Edge) -> bool:
        if self.count[a][ISSUED] < edge.slack:
            return True
        return self.count[edge.other][edge.event] > self.needed(a, edge)

    def waits_for(self, a: int) -> int | None:
        """The first edge that holds up an actor's next firing."""
        return next((i for i, e in enumerate(self.actors[a].edges) if not self.met(a, e)), None)

    def left(self, a: int) -> bool:
        return self.count[a][ISSUED] < self.actors[a].firings

    def key(self, a: int, firing: int | None = None) -> int:
        """The place of an Einsum's next firing in the order of its unit."""
        actor = self.actors[a]
        steps = steps_of(self.count[a][ISSUED] if firing is None else firing, actor.sizes)
        turn = actor.turn[0] + sum(t * s for t, s in zip(actor.turn[1], steps, strict=True))
        if not self.tasks.ordered:
            return turn * len(self.actors) + actor.place
        return ((turn + actor.lag) * self.tasks.stages + actor.stage) * len(self.actors) + actor.place

    def candidate(self, u: int) -> int | None:
        """What an idle unit would start next."""
        some = [a for a in self.of_unit[u] if self.left(a)]
        if not self.tasks.ordered:
            some = [a for a in some if self.waits_for(a) is None] or some
        return min(some, key=self.key, default=None)

    def slot(self, u: int) -> int | None:
        """The stage and round that a unit is in; None when it has finished."""
        a = self.running[u]
        if a is not None:
            return self.key(a, self.count[a][ISSUED] - 1) // len(self.actors)
        a = self.candidate(u)
        return None if a is None else self.key(a) // len(self.actors)

    def held_back(self, u: int, a: int) -> bool:
        """Whether another unit is still in a stage before."""
        if not self.tasks.ordered or self.tasks.stages < 2:
            return False
        mine = self.key(a) // len(self.actors)
        slots = [self.slot(v) for v in range(len(self.running)) if v != u]
        return any(s is not None and s < mine for s in slots)

    # Running

    def run(self) -> Counts:
        while True:
            while self.start_all():
                pass
            times = [e for e in self.end if e is not None] + [d[0] for d in self.drains if d]
            if not times or (self.limit is not None and self.started >= self.limit):
                break
            then = min(times)
            self.wait_until(then)
            self.now = then
            self.end_all()
        if not times and any(self.left(a) for a in range(len(self.actors))):
            raise Deadlock(self.now, self.deadlock())
        nothing = np.zeros((0, 1 + len(self.running)), dtype=np.int64)
        return Counts(
            self.now, tuple(self.fired), self.busy, self.stalls, self.after, self.peak, nothing, self.started, 0
        )

    def start_all(self) -> bool:
        changed = False
        for a in self.transfers:
            if self.end[a] is None and self.left(a) and self.waits_for(a) is None:
                self.issue(a)
                changed = True
        for u in range(len(self.running)):
            if self.running[u] is None:
                a = self.candidate(u)
                if a is not None and self.waits_for(a) is None and not self.held_back(u, a):
                    self.start(u, a)
                    changed = True
        return changed

    def counted(self, a: int) -> tuple[int, int]:
        """The firing and its class; notes what buffers hold."""
        k = self.count[a][ISSUED]
        place = self.actors[a].amount.at(steps_of(k, self.actors[a].sizes))
        self.fired[a][place] += 1
        self.count[a][ISSUED] += 1
        self.started += 1
        for b, buffer in self.buffers:
            if buffer.writer == a:
                self.peak[b] = max(self.peak[b], min(self.held(a, buffer.tile, k), buffer.pieces))
        return k, place

    def held(self, a: int, tile: str, k: int) -> int:
        """Pieces of a tile that are taken once firing ``k`` has started."""
        edges = [e for e in self.actors[a].edges if e.tile == tile and e.slack]
        if not edges:
            return k + 1
        freed = k
        for e in edges:
            q = max(0, k + 1 - e.slack)
            while q < k and self.count[e.other][e.event] > self.needed(a, e, q + e.slack):
                q += 1
            freed = min(freed, q)
        return k + 1 - freed

    def issue(self, a: int) -> None:
        k, place = self.counted(a)
        begin, end = self.now, self.now
        for level, ticks in enumerate(self.machine.level_ticks[a]):
            if ticks is not None and ticks[place]:
                first = max(self.now, self.free[level])
                self.free[level] = first + int(ticks[place])
                begin, end = max(begin, first), max(end, self.free[level])
        self.begin[a], self.end[a] = begin, end
        if self.record:
            self.record(Task(a, k, self.now, begin, end, end - begin, FINISHED, 0))

    def start(self, u: int, a: int) -> None:
        k, place = self.counted(a)
        busy = int(self.machine.unit_ticks[a][place])
        end = self.now + busy
        for e in self.actors[a].edges:
            if e.other in self.actors[a].streams and e.event == ISSUED:
                there = self.end[e.other]
                if there is not None and self.count[e.other][ISSUED] == self.needed(a, e, k) + 1:
                    end = max(end, there)
        self.busy[u] += busy
        self.stalls[a, BANDWIDTH] += end - self.now - busy
        self.end[a] = end
        self.running[u] = a
        self.worked[u] = busy > 0
        if self.record:
            waited = self.now - self.idle_since[u]
            self.record(Task(a, k, self.now, self.now, end, busy, self.last_reason[u], waited))
        self.last_reason[u] = FINISHED

    def wait_until(self, then: int) -> None:
        """Time passes; idle units wait for something."""
        for u, running in enumerate(self.running):
            if running is not None:
                continue
            a = self.candidate(u)
            if a is None:
                self.after[u] += then - self.now
                continue
            reason = self.reason(u, a)
            self.stalls[a, reason] += then - self.now
            self.last_reason[u] = reason

    def reason(self, u: int, a: int) -> int:
        """Why an idle unit waits."""
        at = self.waits_for(a)
        if at is None:
            return STAGE
        for _ in range(len(self.actors)):  # to what is at the bottom of it
            edge = self.actors[a].edges[at]
            y = edge.other
            if edge.reason == BUFFER:
                return BUFFER
            if self.actors[y].unit < 0:
                if self.end[y] is not None:
                    return BANDWIDTH if self.begin[y] > self.now else INPUT
            else:
                if edge.event == VALID and self.count[y][ENDED] > self.needed(a, edge):
                    return DRAIN
                doing = self.running[self.actors[y].unit]
                if doing is not None:
                    return edge.reason if doing == y or edge.reason != DEPENDENCE else UNIT
            up = self.waits_for(y) if self.left(y) else None
            if up is None:
                return edge.reason
            a, at = y, up
        return self.actors[a].edges[at].reason

    def end_all(self) -> None:
        for a in range(len(self.actors)):
            if self.end[a] == self.now:
                self.end[a] = None
                self.count[a][ENDED] += 1
                u = self.actors[a].unit
                if u >= 0:
                    self.running[u] = None
                    self.idle_since[u] = self.now
                if u >= 0 and self.machine.drain_ticks[a]:
                    # what did nothing has nothing to drain, but what came before may still
                    last = self.drains[a][-1] if self.drains[a] else self.now
                    self.drains[a].append(self.now + self.machine.drain_ticks[a] if self.worked[u] else last)
                else:
                    self.valid(a)
            while self.drains[a] and self.drains[a][0] == self.now:
                self.drains[a].popleft()
                self.valid(a)

    def valid(self, a: int) -> None:
        """The result of an actor's next firing is at hand."""
        self.count[a][VALID] += 1
        if self.on_valid:
            self.on_valid(a, self.count[a][VALID] - 1)

    def deadlock(self) -> tuple[Blocked, ...]:
        """Each actor with something left, and the edge that holds it up (-1: the order of its unit)."""
        found = []
        for a in range(len(self.actors)):
            if self.left(a):
                edge = self.waits_for(a)
                found.append(Blocked(a, self.count[a][ISSUED], -1 if edge is None else edge))
        return tuple(found)


__all__ = ["FINISHED", "UNDER_WAY", "Stepwise", "Task"]
