"""The compiled event engine. It does what :mod:`fusemodel.simulate.stepwise` does, to the tick, and skips whole
periods.

Steps of loops, needed firings and places in tables are carried along as sums that change by a fixed amount at each step
of a loop, so that nothing is divided or looked up. The tables are those of :mod:`fusemodel.simulate.program`; how
periods are found is said in :mod:`fusemodel.simulate.steady`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusemodel.simulate.kernel import entry, kernel
from fusemodel.simulate.machine import Blocked, Counts, Deadlock, Machine
from fusemodel.simulate.program import (
    A_UNIT,
    ACTOR,
    ACTORS,
    AFTER,
    ANCHOR,
    AT_EDGE,
    AWAKE,
    BEGIN,
    BUFFER_FROM,
    BUFFER_TO,
    BUSY,
    CLASSES,
    CROSSED,
    D_ACTOR,
    DEPTH,
    DRAIN_ROW,
    DRAIN_TICKS,
    DRAINS,
    E_BUFFER,
    E_STEPS,
    EDGE_FROM,
    EDGE_TO,
    END,
    ENTITY,
    EVENT,
    FIRED,
    FIRINGS,
    FORM,
    FORM_BY,
    FREE,
    FROM,
    HEAD,
    HELD_UP,
    KEY,
    KEY_BY,
    LEAST,
    LENGTH,
    LEVEL_TICKS,
    LEVELS,
    LOOPS,
    MARK_NEXT,
    MARK_STEP,
    MARKS,
    N_FORMS,
    NEEDED,
    NEEDED_BY,
    NEVER,
    NEXT,
    NEXT_SLOT,
    NOW,
    ORDERED,
    OTHER,
    PASSED,
    PEAK,
    PENDING,
    PIECES,
    POINTER,
    REASON,
    RUNNING,
    SIZES,
    SKIPPED,
    SLACK,
    SLOT,
    STAGES,
    STEPS,
    STREAM,
    TABLE,
    TASKS,
    TICKS,
    TO,
    TRANSFERS,
    UNITS,
    WAKE_FROM,
    WAKE_TO,
    WANTED,
    WORKED,
    Program,
    buffers_in_order,
    program_of,
    seen_of,
)
from fusemodel.simulate.steady import skip_periods
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

#: What a call of the kernel came back for.
DONE, STUCK, PAUSED = 0, 1, 2


@kernel
def let_on(A, E, a: int, e: int) -> None:
    """An edge goes on to the next firing of its actor."""
    E[e, PASSED] = E[e, NEEDED]
    E[e, POINTER] += 1
    level = A[a, LOOPS] - 1
    while level >= 0:
        E[e, E_STEPS + level] += 1
        if E[e, E_STEPS + level] < A[a, SIZES + level]:
            E[e, NEEDED] += E[e, NEEDED_BY + level]
            return
        E[e, E_STEPS + level] = 0
        level -= 1


@kernel
def ready(A, E, a: int) -> bool:
    """Whether nothing holds up an actor; ``AT_EDGE`` is the first edge that does."""
    k, e = A[a, ISSUED], A[a, AT_EDGE]
    while e < A[a, EDGE_TO]:
        if E[e, POINTER] + E[e, SLACK] <= k:
            there = A[E[e, OTHER], E[e, EVENT]]
            while E[e, POINTER] + E[e, SLACK] <= k:
                if there <= E[e, NEEDED]:
                    E[e, HELD_UP] += 1
                    A[a, AT_EDGE] = e
                    return False
                let_on(A, E, a, e)
        e += 1
    A[a, AT_EDGE] = e
    return True


@kernel
def choose(G, A, E, U, L, u: int) -> None:
    """What a unit would start next; -1 when it has finished."""
    best, best_ready, key = -1, False, 0
    for i in range(U[u, FROM], U[u, TO]):
        a = L[i]
        if A[a, ISSUED] >= A[a, FIRINGS]:
            continue
        free = False if G[ORDERED] else ready(A, E, a)
        if best < 0 or (free and not best_ready) or (free == best_ready and A[a, KEY] < key):
            best, best_ready, key = a, free, A[a, KEY]
    U[u, NEXT] = best
    U[u, NEXT_SLOT] = NEVER if best < 0 else key // G[ACTORS]


@kernel
def held_back(G, U, u: int) -> bool:
    """Whether another unit is still in a stage before that of the candidate."""
    if not G[ORDERED] or G[STAGES] < 2:
        return False
    for v in range(G[TRANSFERS], G[TRANSFERS] + G[UNITS]):
        if v != u:
            slot = U[v, SLOT] if U[v, RUNNING] >= 0 else U[v, NEXT_SLOT]
            if slot < U[u, NEXT_SLOT]:
                return True
    return False


@kernel
def wake(G, A, U, L, a: int) -> None:
    """Whoever waits for an actor looks again."""
    G[PENDING] = 1
    for i in range(A[a, WAKE_FROM], A[a, WAKE_TO]):
        U[L[i], AWAKE] = 1


@kernel
def wake_units(G, U) -> None:
    """Where stages follow each other, every unit looks again."""
    G[PENDING] = 1
    if G[ORDERED] and G[STAGES] > 1:
        for v in range(G[TRANSFERS], G[TRANSFERS] + G[UNITS]):
            U[v, AWAKE] = 1


@kernel
def fire(G, A, E, T, B, a: int) -> int:
    """Count a firing, note what buffers hold and go to the next; the place of its amount in the tables."""
    k, place = A[a, ISSUED], 0
    for f in range(A[a, N_FORMS]):
        n = A[a, CLASSES + f]
        place = place * n + min(max(A[a, FORM + f] - A[a, LEAST + f], 0), n - 1)
    place += A[a, TABLE]
    T[place, FIRED] += 1
    A[a, ISSUED] = k + 1
    G[TASKS] += 1
    for b in range(A[a, BUFFER_FROM], A[a, BUFFER_TO]):
        if B[b, PEAK] < B[b, PIECES]:
            fill(A, E, B, a, b, k)
    level = A[a, LOOPS] - 1
    while level >= 0:
        A[a, STEPS + level] += 1
        if A[a, STEPS + level] < A[a, SIZES + level]:
            break
        A[a, STEPS + level] = 0
        level -= 1
    if level >= 0:
        A[a, KEY] += A[a, KEY_BY + level]
        for f in range(A[a, N_FORMS]):
            A[a, FORM + f] += A[a, FORM_BY + f * DEPTH + level]
    A[a, AT_EDGE] = A[a, EDGE_FROM]
    if a == G[ANCHOR]:
        G[CROSSED] = level
    return place


@kernel
def fill(A, E, B, a: int, b: int, k: int) -> None:
    """Pieces that a buffer holds once firing ``k`` of its writer has started."""
    freed, waits = k, False
    for e in range(A[a, EDGE_FROM], A[a, EDGE_TO]):
        if E[e, E_BUFFER] == b:
            waits = True
            there = A[E[e, OTHER], E[e, EVENT]]
            while E[e, POINTER] < k and there > E[e, NEEDED]:
                let_on(A, E, a, e)
            freed = min(freed, E[e, POINTER])
    B[b, PEAK] = max(B[b, PEAK], k + 1 - freed if waits else k + 1)


@kernel
def issue(G, A, E, U, L, T, B, a: int) -> None:
    """A transfer queues at its levels."""
    now = G[NOW]
    place = fire(G, A, E, T, B, a)
    begin, end = now, now
    for level in range(G[LEVELS]):
        ticks = T[place, LEVEL_TICKS + level]
        if ticks > 0:
            first = max(now, G[FREE + level])
            G[FREE + level] = first + ticks
            begin, end = max(begin, first), max(end, first + ticks)
    A[a, BEGIN] = begin
    U[A[a, ENTITY], END] = end
    wake(G, A, U, L, a)


@kernel
def start(G, A, E, U, L, T, R, B, u: int, a: int) -> None:
    """An Einsum's firing starts on its unit."""
    now = G[NOW]
    end = now
    for e in range(A[a, EDGE_FROM], A[a, EDGE_TO]):
        if E[e, STREAM]:
            y = E[e, OTHER]
            there = U[A[y, ENTITY], END]
            if there < NEVER and A[y, ISSUED] == E[e, PASSED] + 1:
                end = max(end, there)
    busy = T[fire(G, A, E, T, B, a), TICKS]
    end = max(end, now + busy)
    U[u, BUSY] += busy
    R[a, BANDWIDTH] += end - now - busy
    U[u, END] = end
    U[u, RUNNING] = a
    U[u, SLOT] = U[u, NEXT_SLOT]
    U[u, WORKED] = busy
    choose(G, A, E, U, L, u)
    wake(G, A, U, L, a)
    wake_units(G, U)


@kernel
def start_all(G, A, E, U, L, T, R, B) -> None:
    """Start what can start."""
    G[PENDING] = 0
    for t in range(G[TRANSFERS]):
        if U[t, AWAKE]:
            U[t, AWAKE] = 0
            a = U[t, ACTOR]
            if U[t, END] == NEVER and A[a, ISSUED] < A[a, FIRINGS] and ready(A, E, a):
                issue(G, A, E, U, L, T, B, a)
    for u in range(G[TRANSFERS], G[TRANSFERS] + G[UNITS]):
        if U[u, AWAKE]:
            U[u, AWAKE] = 0
            if U[u, RUNNING] >= 0:
                continue
            if not G[ORDERED]:
                choose(G, A, E, U, L, u)
            a = U[u, NEXT]
            if a >= 0 and ready(A, E, a) and not held_back(G, U, u):
                start(G, A, E, U, L, T, R, B, u, a)


@kernel
def next_event(G, U, D, DT) -> int:
    then = NEVER
    for i in range(G[TRANSFERS] + G[UNITS]):
        then = min(then, U[i, END])
    for d in range(G[DRAINS]):
        if D[d, LENGTH] > 0:
            then = min(then, DT[d, D[d, HEAD]])
    return then


@kernel
def reason_of(G, A, E, U, a: int) -> int:
    """Why an idle unit waits with a candidate."""
    e = A[a, AT_EDGE]
    if e >= A[a, EDGE_TO]:
        return STAGE
    for _ in range(G[ACTORS]):  # to what is at the bottom of it
        y, reason = E[e, OTHER], E[e, REASON]
        if reason == BUFFER:
            return BUFFER
        if A[y, A_UNIT] < 0:
            if U[A[y, ENTITY], END] < NEVER:
                return BANDWIDTH if A[y, BEGIN] > G[NOW] else INPUT
        else:
            if E[e, EVENT] == VALID and A[y, ENDED] > E[e, NEEDED]:
                return DRAIN
            doing = U[A[y, ENTITY], RUNNING]
            if doing >= 0:
                return reason if doing == y or reason != DEPENDENCE else UNIT
        up = first_unmet(A, E, y)
        if up < 0:
            return reason
        e = up
    return E[e, REASON]


@kernel
def first_unmet(A, E, a: int) -> int:
    """The first edge that holds up an actor's next firing; -1 if none does or there is none left."""
    k = A[a, ISSUED]
    if k >= A[a, FIRINGS]:
        return -1
    for e in range(A[a, EDGE_FROM], A[a, EDGE_TO]):
        if E[e, POINTER] + E[e, SLACK] <= k and A[E[e, OTHER], E[e, EVENT]] <= E[e, NEEDED]:
            return e
    return -1


@kernel
def wait_until(G, A, E, U, R, then: int) -> None:
    """Time passes; idle units wait for something."""
    passed = then - G[NOW]
    if passed > 0:
        for u in range(G[TRANSFERS], G[TRANSFERS] + G[UNITS]):
            if U[u, RUNNING] < 0:
                a = U[u, NEXT]
                if a < 0:
                    U[u, AFTER] += passed
                else:
                    R[a, reason_of(G, A, E, U, a)] += passed
    G[NOW] = then


@kernel
def end_all(G, A, U, L, D, DT, DM) -> None:
    """What ends now."""
    now, transfers = G[NOW], G[TRANSFERS]
    for i in range(transfers + G[UNITS]):
        if U[i, END] != now:
            continue
        U[i, END] = NEVER
        U[i, AWAKE] = 1
        G[PENDING] = 1
        a = U[i, ACTOR] if i < transfers else U[i, RUNNING]
        A[a, ENDED] += 1
        if i >= transfers:
            U[i, RUNNING] = -1
            wake_units(G, U)
        d = A[a, DRAIN_ROW]
        if d >= 0:
            put_drain(D, DT, DM, d, now + A[a, DRAIN_TICKS] if U[i, WORKED] > 0 else now)
        else:
            A[a, VALID] += 1
        wake(G, A, U, L, a)
    for d in range(G[DRAINS]):
        while D[d, LENGTH] > 0 and DT[d, D[d, HEAD]] == now:
            a = D[d, D_ACTOR]
            A[a, VALID] += DM[d, D[d, HEAD]]
            D[d, HEAD] = (D[d, HEAD] + 1) % DT.shape[1]
            D[d, LENGTH] -= 1
            wake(G, A, U, L, a)


@kernel
def put_drain(D, DT, DM, d: int, time: int) -> None:
    """A result will be there at ``time``; those of one time are put together."""
    room = DT.shape[1]
    last = (D[d, HEAD] + D[d, LENGTH] - 1) % room
    if (
        D[d, LENGTH] > 0 and DT[d, last] >= time
    ):  # what did nothing has nothing to drain, but what came before may still
        DM[d, last] += 1
        return
    last = (last + 1) % room
    DT[d, last] = time
    DM[d, last] = 1
    D[d, LENGTH] += 1


@kernel
def mark(G, U, M) -> None:
    """A point of the timeline; when it is full, every other one is dropped."""
    n = G[MARKS]
    if n == M.shape[0]:
        n //= 2
        for i in range(n):
            for j in range(M.shape[1]):
                M[i, j] = M[2 * i + 1, j]
        G[MARK_STEP] *= 2
    M[n, 0] = G[NOW]
    for u in range(G[UNITS]):
        M[n, 1 + u] = U[G[TRANSFERS] + u, BUSY]
    G[MARKS] = n + 1
    G[MARK_NEXT] = G[NOW] + G[MARK_STEP]


@entry
def advance(p, seen, tasks: int, skip: bool) -> int:
    """Run on until everything is done, nothing can go on or so many ``tasks`` have started."""
    G, A, E, U, L, T, D, DT, DM, R, B, M = p
    if G[TASKS] == 0:
        for u in range(G[TRANSFERS], G[TRANSFERS] + G[UNITS]):
            choose(G, A, E, U, L, u)
    until = G[TASKS] + tasks
    while True:
        while G[PENDING]:
            start_all(G, A, E, U, L, T, R, B)
        if G[CROSSED] >= 0:
            level = G[CROSSED]
            G[CROSSED] = -1
            if skip:
                skip_periods(p, seen, level)
        then = next_event(G, U, D, DT)
        if then == NEVER:
            break
        if G[TASKS] >= until or G[TASKS] + G[SKIPPED] >= G[WANTED]:
            return PAUSED
        wait_until(G, A, E, U, R, then)
        if then >= G[MARK_NEXT]:
            mark(G, U, M)
        end_all(G, A, U, L, D, DT, DM)
    for a in range(G[ACTORS]):
        if A[a, ISSUED] < A[a, FIRINGS]:
            return STUCK
    return DONE


def run(
    machine: Machine, *, skip: bool = True, progress: Callable[[int, int], None] | None = None, block: int = 2**22
) -> Counts:
    """Run a machine to its end. ``skip`` leaves out whole periods once the state repeats (the result is the same);
    ``progress`` is told, every ``block`` tasks, how many firings are done of how many. Raises Deadlock."""
    p = program_of(machine)
    seen = seen_of(p, max(1, len(machine.tasks.loops)))
    every = machine.tasks.firings
    while (found := advance(tuple(p), tuple(seen), block, skip)) != DONE:
        if found == STUCK:
            raise Deadlock(int(p.G[NOW]), _blocked(p))
        if progress:
            progress(int(p.A[:, ISSUED].sum()), every)
    return _counts(machine, p)


def after(machine: Machine, firings: int) -> Program:
    """The machine's state when so many tasks have started (or it has finished, or is stuck)."""
    p = program_of(machine)
    p.G[WANTED] = firings
    seen = seen_of(p, max(1, len(machine.tasks.loops)))
    while int(p.A[:, ISSUED].sum()) < firings and advance(tuple(p), tuple(seen), 2**22, True) == PAUSED:
        pass
    return p


def pace(machine: Machine, tasks: int = 2**18) -> float:
    """Ticks a firing: of a whole run, or of as much as so many tasks run one by one are worth. Infinite if stuck."""
    p = program_of(machine)
    seen = seen_of(p, max(1, len(machine.tasks.loops)))
    stuck = advance(tuple(p), tuple(seen), tasks, True) == STUCK
    return float("inf") if stuck else int(p.G[NOW]) / max(1, int(p.A[:, ISSUED].sum()))


def _blocked(p) -> tuple[Blocked, ...]:
    """Each actor with something left, and the first edge that holds it up (-1: the order of its unit)."""
    found = []
    for a in range(len(p.A)):
        if p.A[a, ISSUED] < p.A[a, FIRINGS]:
            free = ready(p.A, p.E, a)
            found.append(Blocked(a, int(p.A[a, ISSUED]), -1 if free else int(p.A[a, AT_EDGE] - p.A[a, EDGE_FROM])))
    return tuple(found)


def _counts(machine: Machine, p) -> Counts:
    actors, units = machine.tasks.actors, p.U[p.G[TRANSFERS] :]
    fired = tuple(p.T[p.A[a, TABLE] : p.A[a, TABLE] + x.amount.values.size, FIRED].copy() for a, x in enumerate(actors))
    peak = np.zeros(len(machine.tasks.buffers), dtype=np.int64)
    peak[buffers_in_order(machine)] = p.B[:, PEAK]
    simulated = int(p.G[TASKS])
    return Counts(
        int(p.G[NOW]), fired, units[:, BUSY].copy(), p.R.copy(), units[:, AFTER].copy(), peak,
        p.M[: p.G[MARKS]].copy(), simulated, int(p.A[:, ISSUED].sum()) - simulated,
    )  # fmt: skip
