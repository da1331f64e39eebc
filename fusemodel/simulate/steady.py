"""Whole periods left out: when the machine's state is that of some steps of a loop ago, what follows repeats.

States are compared where an anchor Einsum takes a step of a loop. Two states are alike if every actor has either not
moved at all, or moved on by the same number of steps of that loop and nothing else, while all that is under way takes
as long as it did. What follows then is what followed before, moved on, until something that depends on the step itself
comes into play: the end of the loop for any actor or edge; an actor that stands still and may come to its turn, or get
what it waits for; a condition that changes. The number of periods left out stays clear of all of these. Loops are
nested, and so are the periods. The state compared with is replaced after 1, 2, 4, ... steps (Brent, "An improved Monte
Carlo factorization algorithm", BIT 1980), so that periods of any number of steps are found.
"""

from __future__ import annotations

from fusemodel.simulate.kernel import entry, kernel
from fusemodel.simulate.program import (
    A_UNIT,
    ACTORS,
    AFTER,
    ANCHOR,
    AT_EDGE,
    AXIS,
    BEGIN,
    BUSY,
    CLASSES,
    DEPTH,
    DRAINS,
    E_STEPS,
    EDGE_TO,
    END,
    EVENT,
    FIRED,
    FIRINGS,
    FORM,
    FORM_OF,
    FREE,
    HEAD,
    HELD_UP,
    KEY,
    LEAST,
    LENGTH,
    LEVELS,
    LOOPS,
    N_FORMS,
    NEEDED,
    NEVER,
    NEXT,
    NEXT_SLOT,
    NOW,
    ORDERED,
    OTHER,
    OWNER,
    PASSED,
    POINTER,
    RUNNING,
    SIZES,
    SKIPPED,
    SLACK,
    SLOT,
    STEPS,
    TASKS,
    TRANSFERS,
    UNITS,
    WANTED,
    WORKED,
)
from fusemodel.simulate.tasks import ENDED, ISSUED, VALID

_FAR = 2**60


@kernel
def forget(info, level: int) -> None:
    """States seen at a loop and those inside it are of no use any more."""
    for i in range(level, info.shape[0]):
        info[i, 0] = 0
        info[i, 1] = 0
        info[i, 2] = 1


@entry
def skip_periods(p, seen, level: int) -> None:
    """Look for a period at a loop of the anchor, and leave out as many as repeat."""
    G, A, E, _, _, _, _, _, _, _, _, _ = p
    info, _, old_A, old_E, _, _, _, _, _, _ = seen
    loop = 0
    for x in range(DEPTH):
        if A[G[ANCHOR], AXIS + x] == level:
            loop = x
    forget(info, loop + 1)
    if info[loop, 0]:
        steps = alike(p, seen, loop)
        if steps > 0:
            many = repeats(G, A, E, old_A[loop], old_E[loop], loop, steps)
            if G[WANTED] < NEVER:
                many = min(many, (G[WANTED] - G[TASKS] - G[SKIPPED]) // moved_in(G, A, old_A[loop]))
            if many > 0:
                G[SKIPPED] += many * moved_in(G, A, old_A[loop])
                move_on(p, seen, loop, steps, many)
                forget(info, loop)
                return
    info[loop, 1] += 1
    if not info[loop, 0] or info[loop, 1] >= info[loop, 2]:
        remember(p, seen, loop)
        if info[loop, 0]:
            info[loop, 2] *= 2
        info[loop, 0] = 1
        info[loop, 1] = 0


@kernel
def moved_in(G, A, old) -> int:
    """Firings since a state was seen."""
    found = 0
    for a in range(G[ACTORS]):
        found += A[a, ISSUED] - old[a, ISSUED]
    return found


@kernel
def keep(table, to) -> None:
    """Copy the first columns."""
    for i in range(to.shape[0]):
        for j in range(to.shape[1]):
            to[i, j] = table[i, j]


@kernel
def remember(p, seen, loop: int) -> None:
    G, A, E, U, _, T, D, DT, DM, R, _, _ = p
    _, old_G, old_A, old_E, old_U, old_T, old_D, old_DT, old_DM, old_R = seen
    for i in range(G.shape[0]):
        old_G[loop, i] = G[i]
    keep(A, old_A[loop])
    keep(E, old_E[loop])
    keep(U, old_U[loop])
    keep(T, old_T[loop])
    keep(R, old_R[loop])
    keep(D, old_D[loop])
    room = DT.shape[1]
    for d in range(G[DRAINS]):
        for j in range(D[d, LENGTH]):
            at = (D[d, HEAD] + j) % room
            old_DT[loop, d, j] = DT[d, at]
            old_DM[loop, d, j] = DM[d, at]


@kernel
def alike(p, seen, loop: int) -> int:
    """By how many steps of a loop a state has moved on, all else being the same; 0 if it has not."""
    G, A, E, U, _, _, _, _, _, _, _, _ = p
    _, old_G, old_A, old_E, old_U, _, _, _, _, _ = seen
    passed = G[NOW] - old_G[loop, NOW]
    old_u = old_U[loop]
    for j in range(G[TRANSFERS] + G[UNITS]):
        if U[j, RUNNING] != old_u[j, RUNNING] or U[j, NEXT] != old_u[j, NEXT] or U[j, WORKED] != old_u[j, WORKED]:
            return 0
        if U[j, END] != (old_u[j, END] if old_u[j, END] == NEVER else old_u[j, END] + passed):
            return 0
    old = old_A[loop]
    x = A[G[ANCHOR], AXIS + loop]
    steps = A[G[ANCHOR], STEPS + x] - old[G[ANCHOR], STEPS + x]
    if steps <= 0:
        return 0
    for a in range(G[ACTORS]):
        if not actor_alike(A, old, a, A[a, AXIS + loop], steps, passed, G[NOW]):
            return 0
    old_e = old_E[loop]
    for e in range(E.shape[0]):
        owner = E[e, OWNER]
        by = E[e, POINTER] - old_e[e, POINTER]
        went = A[owner, ISSUED] - old[owner, ISSUED]
        if by == 0:
            if went != 0 and E[e, SLACK] == 0:
                return 0
        elif by != went or not moved(E[e], old_e[e], E_STEPS, A[owner, AXIS + loop], steps):
            return 0
    for v in range(G[LEVELS]):
        if max(G[FREE + v] - G[NOW], 0) != max(old_G[loop, FREE + v] - old_G[loop, NOW], 0):
            return 0
    if not drains_alike(p, seen, loop, passed):
        return 0
    return steps


@kernel
def actor_alike(A, old, a: int, axis: int, steps: int, passed: int, now: int) -> bool:
    went = A[a, ISSUED] - old[a, ISSUED]
    if A[a, ENDED] - old[a, ENDED] != went or A[a, VALID] - old[a, VALID] != went:
        return False
    if A[a, AT_EDGE] != old[a, AT_EDGE]:
        return False
    if max(A[a, BEGIN] - now, 0) != max(old[a, BEGIN] + passed - now, 0):
        return False
    return went == 0 or (axis >= 0 and moved(A[a], old[a], STEPS, axis, steps))


@kernel
def moved(new, old, at: int, axis: int, steps: int) -> bool:
    """Whether steps of loops have moved on by so many of one loop."""
    found = True
    for x in range(DEPTH):
        found = found and new[at + x] - old[at + x] == (steps if x == axis else 0)
    return found


@kernel
def drains_alike(p, seen, loop: int, passed: int) -> bool:
    G, _, _, _, _, _, D, DT, DM, _, _, _ = p
    _, _, _, _, _, _, old_D, old_DT, old_DM, _ = seen
    room = DT.shape[1]
    for d in range(G[DRAINS]):
        n = D[d, LENGTH]
        if n != old_D[loop, d, LENGTH]:
            return False
        for j in range(n):
            at = (D[d, HEAD] + j) % room
            if DT[d, at] != old_DT[loop, d, j] + passed or DM[d, at] != old_DM[loop, d, j]:
                return False
    return True


@kernel
def repeats(G, A, E, old, old_e, loop: int, steps: int) -> int:
    """How often a period repeats before anything in it may change."""
    many, highest, by_key = _FAR, -_FAR, 1
    for a in range(G[ACTORS]):
        if A[a, ISSUED] == old[a, ISSUED]:
            continue
        x = A[a, AXIS + loop]
        many = min(many, (A[a, SIZES + x] - 1 - A[a, STEPS + x]) // steps)
        if A[a, A_UNIT] >= 0:
            highest = max(highest, A[a, KEY])
            by_key = max(by_key, A[a, KEY] - old[a, KEY])
        for f in range(A[a, N_FORMS]):
            many = min(many, form_repeats(A[a], old[a], f, x, steps))
        if many <= 0:
            return 0
    for a in range(G[ACTORS]):
        if A[a, ISSUED] != old[a, ISSUED] or A[a, ISSUED] >= A[a, FIRINGS]:
            continue
        e = A[a, AT_EDGE]
        blocked = e < A[a, EDGE_TO]
        if A[a, A_UNIT] >= 0 and (G[ORDERED] or not blocked):
            many = min(many, (A[a, KEY] - 1 - highest) // by_key)
        if blocked:  # it must stay blocked
            y = E[e, OTHER]
            gain = A[y, ISSUED] - old[y, ISSUED]
            if gain > 0:
                many = min(many, (E[e, NEEDED] - A[y, E[e, EVENT]]) // gain)
    for e in range(E.shape[0]):
        if many <= 0:
            return 0
        many = min(many, edge_repeats(A, E[e], old, old_e[e], loop, steps))
    return max(many, 0)


@kernel
def form_repeats(row, old, f: int, x: int, steps: int) -> int:
    """How often, until the class of an actor's firings may change along a condition."""
    c = row[FORM_OF + f * DEPTH + x]
    if c == 0:
        return _FAR
    low, high = 0, 0
    first, last = old[FORM + f], row[FORM + f]
    for y in range(x + 1, row[LOOPS]):
        b = row[FORM_OF + f * DEPTH + y]
        low += min(0, b * (row[SIZES + y] - 1))
        high += max(0, b * (row[SIZES + y] - 1))
        first -= b * old[STEPS + y]
        last -= b * row[STEPS + y]
    least, most = row[LEAST + f], row[LEAST + f] + row[CLASSES + f] - 1
    by = abs(c) * steps
    if c > 0:
        return _FAR if first + low >= most else (least - high - last) // by
    return _FAR if first + high <= least else (last + low - most) // by


@kernel
def edge_repeats(A, row, old, old_row, loop: int, steps: int) -> int:
    """How often, until an edge may hold up what it did not, or let go what it held up."""
    owner, y = row[OWNER], row[OTHER]
    went, gain = A[owner, ISSUED] - old[owner, ISSUED], A[y, ISSUED] - old[y, ISSUED]
    if went == 0:
        return _FAR
    there = A[y, row[EVENT]]
    if row[POINTER] == old_row[POINTER]:  # it stands still while its slack lasts, and must not go on
        many = (row[POINTER] + row[SLACK] - A[owner, ISSUED]) // went - 1
        if gain > 0:
            return min(many, (row[NEEDED] - there) // gain - 1)
        return 0 if there > row[NEEDED] else many
    x = A[owner, AXIS + loop]
    many = (A[owner, SIZES + x] - 1 - row[E_STEPS + x]) // steps
    asked = row[NEEDED] - old_row[NEEDED]
    if asked > gain:  # what is there in advance is used up
        return min(many, (there - 1 - row[NEEDED]) // (asked - gain) - 1)
    if asked < gain and row[HELD_UP] != old_row[HELD_UP]:
        return 0  # it held something up and may not do so again
    return many


@kernel
def move_on(p, seen, loop: int, steps: int, many: int) -> None:
    """Leave out ``many`` periods: what moved moves on, what was counted is counted again."""
    G, A, E, U, _, T, D, DT, _, R, _, _ = p
    _, old_G, old_A, old_E, old_U, old_T, _, _, _, old_R = seen
    now = G[NOW]
    passed = many * (now - old_G[loop, NOW])
    move_actors(G, A, old_A[loop], loop, steps, many, passed)
    move_edges(A, E, old_E[loop], loop, steps, many)
    old_u = old_U[loop]
    for j in range(G[TRANSFERS] + G[UNITS]):
        if U[j, END] < NEVER:
            U[j, END] += passed
        for column in (SLOT, BUSY, AFTER):
            U[j, column] += many * (U[j, column] - old_u[j, column])
        if U[j, NEXT_SLOT] < NEVER:
            U[j, NEXT_SLOT] += many * (U[j, NEXT_SLOT] - old_u[j, NEXT_SLOT])
    for v in range(G[LEVELS]):
        G[FREE + v] = max(G[FREE + v], now) + passed
    room = DT.shape[1]
    for d in range(G[DRAINS]):
        for j in range(D[d, LENGTH]):
            DT[d, (D[d, HEAD] + j) % room] += passed
    for i in range(T.shape[0]):
        T[i, FIRED] += many * (T[i, FIRED] - old_T[loop, i, 0])
    for a in range(G[ACTORS]):
        for r in range(R.shape[1]):
            R[a, r] += many * (R[a, r] - old_R[loop, a, r])
    G[NOW] = now + passed


@kernel
def move_actors(G, A, old, loop: int, steps: int, many: int, passed: int) -> None:
    for a in range(G[ACTORS]):
        if A[a, BEGIN] > G[NOW]:
            A[a, BEGIN] += passed
        if A[a, ISSUED] == old[a, ISSUED]:
            continue
        for column in (ISSUED, ENDED, VALID, KEY):
            A[a, column] += many * (A[a, column] - old[a, column])
        A[a, STEPS + A[a, AXIS + loop]] += many * steps
        for f in range(A[a, N_FORMS]):
            A[a, FORM + f] += many * (A[a, FORM + f] - old[a, FORM + f])


@kernel
def move_edges(A, E, old, loop: int, steps: int, many: int) -> None:
    for e in range(E.shape[0]):
        E[e, HELD_UP] += many * (E[e, HELD_UP] - old[e, HELD_UP])
        if E[e, POINTER] == old[e, POINTER]:
            continue
        for column in (POINTER, NEEDED, PASSED):
            E[e, column] += many * (E[e, column] - old[e, column])
        E[e, E_STEPS + A[E[e, OWNER], AXIS + loop]] += many * steps
