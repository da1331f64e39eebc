"""A machine and its state as flat arrays, for the compiled engine.

An *entity* is what has one thing to do at a time: a transfer, or a unit; transfers come first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusemodel.simulate.machine import Ints, Machine
from fusemodel.simulate.tasks import ISSUED, REASONS, Actor, steps_of, strides

Flags = NDArray[np.bool_]
_NEVER = 2**62
_MARKS = 512
_DRAINS = 4096


class Program(NamedTuple):
    """What does not change. ``*_from[x]`` to ``*_from[x + 1]`` is the part of a list that belongs to ``x``."""

    actors: int
    transfers: int
    units: int
    levels: int
    drains: int
    stages: int
    ordered: bool
    anchor: int
    firings: Ints
    unit: Ints  # of an actor, -1 for a transfer
    entity: Ints
    loops: Ints
    sizes: Ints  # [actor, loop]
    axis: Ints  # [actor, loop of all]: which of the actor's loops it is, or -1
    turn_by: Ints  # [loop of all] steps of all loops together
    key_by: Ints  # [actor, loop that steps]
    forms: Ints
    form_by: Ints  # [actor, form, loop that steps]
    form_of: Ints  # [actor, form, loop] coefficients
    least: Ints  # [actor, form]
    classes: Ints  # [actor, form]
    table: Ints
    unit_ticks: Ints
    level_ticks: Ints  # [level, place]
    drain_of: Ints
    drain_actors: Ints
    drain_ticks: Ints
    transfer_actors: Ints
    unit_from: Ints
    unit_actors: Ints
    edges_from: Ints
    edges_to: Ints
    owner: Ints
    other: Ints
    event: Ints
    slack: Ints
    reason: Ints
    stream: Flags
    buffer: Ints
    needed_by: Ints  # [edge, loop that steps]
    wakes_from: Ints
    wakes: Ints
    buffers_from: Ints
    buffer_order: Ints
    pieces: Ints


class State(NamedTuple):
    """What changes, in place. Single numbers are arrays of one."""

    now: Ints
    tasks: Ints
    crossed: Ints
    overflow: Ints
    count: Ints  # [actor, event]
    steps: Ints  # [actor, loop] of the next firing
    key: Ints
    form: Ints  # [actor, form]
    at_edge: Ints
    begin: Ints
    end: Ints  # of entities
    awake: Flags
    running: Ints
    slot: Ints
    next: Ints
    next_slot: Ints
    free: Ints
    pointer: Ints  # of an edge: the first firing that it does not let start, less its slack
    edge_steps: Ints  # [edge, loop]
    needed: Ints
    passed: Ints
    held_up: Ints
    drain_time: Ints
    drain_many: Ints
    drain_head: Ints
    drain_length: Ints
    fired: Ints
    busy: Ints
    stalls: Ints
    after: Ints
    peak: Ints
    timeline: Ints
    marks: Ints
    seen: Ints  # [loop of all, what a state is made of]: see :mod:`fusemodel.simulate.steady`
    seen_for: Ints  # [loop of all, (whether there is one, crossings since, crossings until it is replaced)]
    live: Ints


def program_of(machine: Machine) -> Program:
    """The arrays of a machine."""
    tasks = machine.tasks
    actors, depth = tasks.actors, max(1, len(tasks.loops))
    n = len(actors)
    transfers = [i for i, a in enumerate(actors) if a.unit < 0]
    by_unit = [[i for i, a in enumerate(actors) if a.unit == u] for u in range(len(tasks.units))]
    entity = np.array([transfers.index(i) if a.unit < 0 else len(transfers) + a.unit for i, a in enumerate(actors)])
    most_forms = max(1, *(len(a.amount.coefficients) for a in actors))
    form_by = np.zeros((n, most_forms, depth), dtype=np.int64)
    form_of = np.zeros((n, most_forms, depth), dtype=np.int64)
    least, classes = np.zeros((n, most_forms), dtype=np.int64), np.ones((n, most_forms), dtype=np.int64)
    key_by, axis = np.zeros((n, depth), dtype=np.int64), np.full((n, depth), -1, dtype=np.int64)
    sizes = np.ones((n, depth), dtype=np.int64)
    table = np.cumsum([0, *(a.amount.values.size for a in actors)])
    level_ticks = np.zeros((len(tasks.levels), int(table[-1])), dtype=np.int64)
    for i, a in enumerate(actors):
        sizes[i, : len(a.loops)] = a.sizes
        axis[i] = [a.loops.index(x) if x in a.loops else -1 for x in tasks.loops] or [-1]
        scale = n * (tasks.stages if tasks.ordered else 1)
        key_by[i] = _by_step([scale * t for t in a.turn[1]], a.sizes, depth)
        for f, c in enumerate(a.amount.coefficients):
            form_by[i, f], form_of[i, f, : len(c)] = _by_step(c, a.sizes, depth), c
            least[i, f], classes[i, f] = a.amount.least[f], a.amount.values.shape[f]
        for level, ticks in enumerate(machine.level_ticks[i]):
            if ticks is not None:
                level_ticks[level, table[i] : table[i + 1]] = ticks
    drained = [i for i in range(n) if machine.drain_ticks[i]]
    whole = dict(zip(tasks.loops, strides(tasks.sizes), strict=True))
    return Program(
        n, len(transfers), len(tasks.units), len(tasks.levels), len(drained), tasks.stages, tasks.ordered,
        _anchor(actors), _ints(a.firings for a in actors), _ints(a.unit for a in actors), entity.astype(np.int64),
        _ints(len(a.loops) for a in actors), sizes, axis, _ints(whole.values() or [1]), key_by,
        _ints(len(a.amount.coefficients) for a in actors), form_by, form_of, least, classes, table.astype(np.int64),
        np.concatenate(machine.unit_ticks), level_ticks,
        _ints(drained.index(i) if i in drained else -1 for i in range(n)), _ints(drained),
        _ints(machine.drain_ticks[i] for i in drained), _ints(transfers), _starts(by_unit), _ints(sum(by_unit, [])),
        *_edge_arrays(machine, entity, depth),
    )  # fmt: skip


def _edge_arrays(machine: Machine, entity: Ints, depth: int):
    """From ``edges_from`` on."""
    tasks = machine.tasks
    actors, n = tasks.actors, len(tasks.actors)
    edges = [(i, e) for i, a in enumerate(actors) for e in a.edges]
    first = np.cumsum([0, *(len(a.edges) for a in actors)]).astype(np.int64)
    order = sorted(range(len(tasks.buffers)), key=lambda b: tasks.buffers[b].writer)
    place = {(tasks.buffers[b].writer, tasks.buffers[b].tile): j for j, b in enumerate(order)}
    wakes: list[list[int]] = [[] for _ in actors]
    for i, e in edges:
        if entity[i] not in wakes[e.other]:
            wakes[e.other].append(int(entity[i]))
    of_writer = [[b for b in order if tasks.buffers[b].writer == i] for i in range(n)]
    needed_by = np.zeros((max(1, len(edges)), depth), dtype=np.int64)
    for j, (i, e) in enumerate(edges):
        needed_by[j] = _by_step(e.coefficients, actors[i].sizes, depth)
    return (
        first[:-1], first[1:], _ints(i for i, _ in edges), _ints(e.other for _, e in edges),
        _ints(e.event for _, e in edges), _ints(e.slack for _, e in edges), _ints(e.reason for _, e in edges),
        np.array([e.event == ISSUED and e.other in actors[i].streams for i, e in edges], dtype=np.bool_),
        _ints(place.get((i, e.tile), -1) if e.slack else -1 for i, e in edges), needed_by, _starts(wakes),
        _ints(sum(wakes, [])), _starts(of_writer), _ints(order), _ints(tasks.buffers[b].pieces for b in order),
    )  # fmt: skip


def state_of(p: Program, machine: Machine) -> State:
    """The state at the start."""
    tasks = machine.tasks
    n, edges, depth = p.actors, len(p.owner), p.sizes.shape[1]
    forms = np.zeros((n, p.least.shape[1]), dtype=np.int64)
    key = np.zeros(n, dtype=np.int64)
    for i, a in enumerate(tasks.actors):
        forms[i, : len(a.amount.constants)] = a.amount.constants
        scale = tasks.stages if tasks.ordered else 1
        key[i] = ((a.turn[0] + (a.lag if tasks.ordered else 0)) * scale + (a.stage if tasks.ordered else 0)) * n + a.place
    entities = p.transfers + p.units

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, dtype=np.int64)

    live = _live_size(p)
    cycles = max(1, int(machine.ticks_per_cycle))
    return State(
        zeros(1), zeros(1), np.full(1, -1, dtype=np.int64), zeros(1), zeros(n, 3), zeros(n, depth), key, forms,
        p.edges_from.copy(), zeros(n), np.full(entities, _NEVER, dtype=np.int64), np.ones(entities, dtype=np.bool_),
        np.full(p.units, -1, dtype=np.int64), zeros(p.units), np.full(p.units, -1, dtype=np.int64), zeros(p.units),
        zeros(p.levels), zeros(edges), zeros(max(1, edges), depth),
        _ints(e.constant for a in tasks.actors for e in a.edges), zeros(edges), zeros(edges),
        zeros(max(1, p.drains), _DRAINS), zeros(max(1, p.drains), _DRAINS), zeros(max(1, p.drains)),
        zeros(max(1, p.drains)), zeros(int(p.table[-1])), zeros(p.units), zeros(n, len(REASONS)), zeros(p.units),
        zeros(len(p.pieces)), zeros(_MARKS, 1 + p.units), _ints([0, cycles, cycles]), zeros(depth, live),
        zeros(depth, 3), zeros(live),
    )  # fmt: skip


def _live_size(p: Program) -> int:
    """Numbers that a snapshot holds (see :mod:`fusemodel.simulate.steady`)."""
    n, depth, edges = p.actors, p.sizes.shape[1], len(p.owner)
    entities = p.transfers + p.units
    actor = 3 + depth + 3 + p.least.shape[1]
    total = 1 + n * actor + edges * (4 + depth) + entities + 4 * p.units + p.levels
    total += p.drains * (1 + 2 * _DRAINS) + len(p.unit_ticks) + p.units * 2 + n * len(REASONS)
    return total


def _anchor(actors: tuple[Actor, ...]) -> int:
    """The actor whose steps say where periods may end: an Einsum with as many loops as any, the last of a pipeline."""
    return max((i for i, a in enumerate(actors) if a.unit >= 0), key=lambda i: (actors[i].firings, actors[i].lag))


def _by_step(coefficients, sizes, depth: int) -> list[int]:
    """By how much a sum changes when a loop steps and those inside it begin anew."""
    found = [0] * depth
    for level, c in enumerate(coefficients):
        found[level] = c - sum(b * (n - 1) for b, n in zip(coefficients[level + 1 :], sizes[level + 1 :], strict=True))
    return found


def _starts(lists) -> Ints:
    return np.cumsum([0, *(len(x) for x in lists)]).astype(np.int64)


def _ints(values) -> Ints:
    return np.array(list(values), dtype=np.int64)


__all__ = ["Program", "State", "program_of", "state_of", "steps_of"]
