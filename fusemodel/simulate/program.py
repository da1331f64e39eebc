"""A machine and its state as a few tables of whole numbers, for the compiled engine.

A row of ``A`` is an actor, of ``E`` an edge, of ``U`` an entity: what has one thing to do at a time, the transfers
first and then the units. The names of columns stand below; those that change come first, so that a state can be
compared and kept as a block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusemodel.errors import InputError
from fusemodel.simulate.machine import Ints, Machine
from fusemodel.simulate.tasks import ISSUED, REASONS, Actor

DEPTH, FORMS = 10, 6  # loops and forms that rows have columns for
NEVER = 2**62

# Columns of A: counts of firings issued, ended and valid (as in tasks), the place in the order, the first edge not met,
# when a transfer begins, steps of the loops and values of the forms, all for the next firing.
KEY, AT_EDGE, BEGIN, STEPS, FORM = 3, 4, 5, 6, 6 + DEPTH
A_STATE = FORM + FORMS
FIRINGS, A_UNIT, ENTITY, LOOPS, EDGE_FROM, EDGE_TO, N_FORMS = range(A_STATE, A_STATE + 7)
TABLE, DRAIN_ROW, DRAIN_TICKS, WAKE_FROM, WAKE_TO, BUFFER_FROM, BUFFER_TO = range(A_STATE + 7, A_STATE + 14)
SIZES = BUFFER_TO + 1
AXIS = SIZES + DEPTH  # for each loop of all, which of the actor's it is, or -1
KEY_BY = AXIS + DEPTH  # by how much the key changes when a loop steps
FORM_BY = KEY_BY + DEPTH
FORM_OF = FORM_BY + FORMS * DEPTH
LEAST = FORM_OF + FORMS * DEPTH
CLASSES = LEAST + FORMS
A_COLUMNS = CLASSES + FORMS

# Columns of E: firings let start (less the slack), what the next one needs, how often something was held up, what the
# last one needed, and steps.
POINTER, NEEDED, HELD_UP, PASSED, E_STEPS = 0, 1, 2, 3, 4
E_STATE = E_STEPS + DEPTH
OWNER, OTHER, EVENT, SLACK, REASON, STREAM, E_BUFFER = range(E_STATE, E_STATE + 7)
NEEDED_BY = E_BUFFER + 1
E_COLUMNS = NEEDED_BY + DEPTH

# Columns of U
END, RUNNING, NEXT, SLOT, NEXT_SLOT, AWAKE, WORKED, BUSY, AFTER, ACTOR, FROM, TO = range(12)
U_COLUMNS = 12

# Places in G (PENDING: whether some entity is awake; WANTED: stop at so many firings, SKIPPED ones included)
NOW, TASKS, CROSSED, MARKS, MARK_STEP, MARK_NEXT = range(6)
TRANSFERS, UNITS, LEVELS, DRAINS, STAGES, ORDERED, ANCHOR, ACTORS, PENDING, WANTED, SKIPPED = range(6, 17)
FREE = 17
MAX_LEVELS = 8

# Columns of T (amounts by class), D (results that drain) and B (buffers)
FIRED, TICKS, LEVEL_TICKS = 0, 1, 2
HEAD, LENGTH, D_ACTOR = 0, 1, 2
PEAK, PIECES = 0, 1
_MARKS, _MOST_DRAINING = 512, 2**22


class Program(NamedTuple):
    """``L`` has the actors of units and the entities that actors wake; ``DT`` and ``DM`` when results are there and how
    many; ``R`` the ticks waited by actor and reason; ``M`` the timeline."""

    G: Ints
    A: Ints
    E: Ints
    U: Ints
    L: Ints
    T: Ints
    D: Ints
    DT: Ints
    DM: Ints
    R: Ints
    B: Ints
    M: Ints


class Seen(NamedTuple):
    """For each loop of all, a state that was seen, and (whether there is one, crossings since, crossings until it is
    replaced)."""

    info: Ints
    G: Ints
    A: Ints
    E: Ints
    U: Ints
    T: Ints
    D: Ints
    DT: Ints
    DM: Ints
    R: Ints


def program_of(machine: Machine) -> Program:
    """The tables of a machine at the start."""
    tasks = machine.tasks
    actors, n = tasks.actors, len(tasks.actors)
    if len(tasks.loops) > DEPTH or len(tasks.levels) > MAX_LEVELS:
        raise InputError(
            f"{tasks.name!r} has {len(tasks.loops)} loops and {len(tasks.levels)} levels with a bandwidth",
            expected=f"at most {DEPTH} and {MAX_LEVELS}",
        )
    transfers = [i for i, a in enumerate(actors) if a.unit < 0]
    by_unit = [[i for i, a in enumerate(actors) if a.unit == u] for u in range(len(tasks.units))]
    drained = [i for i in range(n) if machine.drain_ticks[i]]
    table = np.cumsum([0, *(a.amount.values.size for a in actors)])
    A = np.zeros((n, A_COLUMNS), dtype=np.int64)
    A[:, AXIS : AXIS + DEPTH] = -1
    A[:, SIZES : SIZES + DEPTH] = 1
    A[:, CLASSES : CLASSES + FORMS] = 1
    L: list[int] = []
    U = np.zeros((len(transfers) + len(by_unit), U_COLUMNS), dtype=np.int64)
    U[:, END], U[:, RUNNING], U[:, NEXT], U[:, AWAKE] = NEVER, -1, -1, 1
    for j, i in enumerate(transfers):
        U[j, ACTOR] = i
    for u, some in enumerate(by_unit):
        U[len(transfers) + u, [FROM, TO]] = len(L), len(L) + len(some)
        L += some
    order = sorted(range(len(tasks.buffers)), key=lambda b: tasks.buffers[b].writer)
    edge = 0
    for i, a in enumerate(actors):
        _actor(A[i], a, machine, n)
        A[i, ENTITY] = transfers.index(i) if a.unit < 0 else len(transfers) + a.unit
        A[i, [TABLE, DRAIN_ROW, DRAIN_TICKS]] = (
            table[i],
            drained.index(i) if i in drained else -1,
            machine.drain_ticks[i],
        )
        A[i, [AT_EDGE, EDGE_FROM, EDGE_TO]] = edge, edge, edge + len(a.edges)
        edge += len(a.edges)
        of_mine = [j for j, b in enumerate(order) if tasks.buffers[b].writer == i]
        A[i, [BUFFER_FROM, BUFFER_TO]] = (of_mine[0], of_mine[-1] + 1) if of_mine else (0, 0)
    for i in range(n):
        waiting = dict.fromkeys(int(A[j, ENTITY]) for j, a in enumerate(actors) for e in a.edges if e.other == i)
        A[i, [WAKE_FROM, WAKE_TO]] = len(L), len(L) + len(waiting)
        L += waiting
    G = np.zeros(FREE + MAX_LEVELS, dtype=np.int64)
    G[[CROSSED, PENDING, WANTED]] = -1, 1, NEVER
    G[[MARK_STEP, MARK_NEXT]] = machine.ticks_per_cycle
    G[[TRANSFERS, UNITS, LEVELS, DRAINS]] = len(transfers), len(by_unit), len(tasks.levels), len(drained)
    G[[STAGES, ORDERED, ANCHOR, ACTORS]] = tasks.stages, tasks.ordered, _anchor(actors), n
    T = np.zeros((int(table[-1]), LEVEL_TICKS + len(tasks.levels)), dtype=np.int64)
    T[:, TICKS] = np.concatenate(machine.unit_ticks)
    for i, of_levels in enumerate(machine.level_ticks):
        for level, ticks in enumerate(of_levels):
            if ticks is not None:
                T[table[i] : table[i + 1], LEVEL_TICKS + level] = ticks
    D = np.zeros((max(1, len(drained)), 3), dtype=np.int64)
    D[: len(drained), D_ACTOR] = drained
    many = max(1, len(drained)), max([1, *(_draining(machine, i) for i in drained)])
    B = np.zeros((len(order), 2), dtype=np.int64)
    B[:, PIECES] = [tasks.buffers[b].pieces for b in order]
    return Program(
        G, A, _edges(machine, order), U, np.array(L, dtype=np.int64), T, D, np.zeros(many, dtype=np.int64),
        np.zeros(many, dtype=np.int64), np.zeros((n, len(REASONS)), dtype=np.int64), B,
        np.zeros((_MARKS, 1 + len(by_unit)), dtype=np.int64),
    )  # fmt: skip


def _actor(row: Ints, a: Actor, machine: Machine, n: int) -> None:
    tasks, depth = machine.tasks, len(a.loops)
    if len(a.amount.coefficients) > FORMS:
        raise InputError(f"tasks of {a.name!r} differ along {len(a.amount.coefficients)} conditions",
                         expected=f"at most {FORMS}")  # fmt: skip
    row[[FIRINGS, A_UNIT, LOOPS, N_FORMS]] = a.firings, a.unit, depth, len(a.amount.coefficients)
    row[SIZES : SIZES + depth] = a.sizes
    row[AXIS : AXIS + len(tasks.loops)] = [a.loops.index(x) if x in a.loops else -1 for x in tasks.loops]
    stages, stage, lag = (tasks.stages, a.stage, a.lag) if tasks.ordered else (1, 0, 0)
    row[KEY] = ((a.turn[0] + lag) * stages + stage) * n + a.place
    row[KEY_BY : KEY_BY + depth] = _by_step([n * stages * t for t in a.turn[1]], a.sizes)
    for f, c in enumerate(a.amount.coefficients):
        row[FORM + f], row[LEAST + f], row[CLASSES + f] = (
            a.amount.constants[f], a.amount.least[f], a.amount.values.shape[f],
        )  # fmt: skip
        row[FORM_BY + f * DEPTH : FORM_BY + f * DEPTH + depth] = _by_step(c, a.sizes)
        row[FORM_OF + f * DEPTH : FORM_OF + f * DEPTH + depth] = c


def _draining(machine: Machine, i: int) -> int:
    """Results of an Einsum that drain at once, at most."""
    actor, works = machine.tasks.actors[i], machine.unit_ticks[i][machine.unit_ticks[i] > 0]
    many = min(actor.firings, machine.drain_ticks[i] // int(works.min()) + 2) if works.size else 1
    if many > _MOST_DRAINING:
        raise InputError(f"{many:,} results of {actor.name!r} drain at once", expected=f"at most {_MOST_DRAINING:,}")
    return many


def _edges(machine: Machine, order: list[int]) -> Ints:
    tasks = machine.tasks
    place = {(tasks.buffers[b].writer, tasks.buffers[b].tile): j for j, b in enumerate(order)}
    rows = []
    for i, a in enumerate(tasks.actors):
        for e in a.edges:
            row = np.zeros(E_COLUMNS, dtype=np.int64)
            row[NEEDED] = e.constant
            row[[OWNER, OTHER, EVENT, SLACK, REASON]] = i, e.other, e.event, e.slack, e.reason
            row[STREAM] = e.event == ISSUED and e.other in a.streams
            row[E_BUFFER] = place.get((i, e.tile), -1) if e.slack else -1
            row[NEEDED_BY : NEEDED_BY + len(a.loops)] = _by_step(e.coefficients, a.sizes)
            rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), E_COLUMNS)


def seen_of(p: Program, depth: int) -> Seen:
    """Room for one state for each loop."""

    def like(x: Ints, columns: int | None = None) -> Ints:
        return np.zeros((depth, *(x if columns is None else x[:, :columns]).shape), dtype=np.int64)

    info = np.zeros((depth, 3), dtype=np.int64)
    info[:, 2] = 1
    return Seen(info, like(p.G), like(p.A, A_STATE), like(p.E, E_STATE), like(p.U, AFTER + 1), like(p.T, 1), like(p.D),
                like(p.DT), like(p.DM), like(p.R))  # fmt: skip


def buffers_in_order(machine: Machine) -> list[int]:
    """The buffers as rows of ``B``."""
    return sorted(range(len(machine.tasks.buffers)), key=lambda b: machine.tasks.buffers[b].writer)


def _anchor(actors: tuple[Actor, ...]) -> int:
    """The actor whose steps say where periods may end: an Einsum with as many loops as any, the last of a pipeline."""
    return max((i for i, a in enumerate(actors) if a.unit >= 0), key=lambda i: (actors[i].firings, actors[i].lag))


def _by_step(coefficients, sizes) -> list[int]:
    """By how much a sum changes when a loop steps and those inside it begin anew."""
    return [
        c - sum(b * (n - 1) for b, n in zip(coefficients[level + 1 :], sizes[level + 1 :], strict=True))
        for level, c in enumerate(coefficients)
    ]
