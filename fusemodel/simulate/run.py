"""Simulating a design: its groups one after another, totals, and a deadlock as a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fusemodel.cascade.workload import Workload
from fusemodel.errors import InputError, Where, unknown
from fusemodel.mapping.spec import Design
from fusemodel.model.evaluate import choices
from fusemodel.model.tiles import Chosen
from fusemodel.quantities import size
from fusemodel.simulate.instances import instances_of, share_of
from fusemodel.simulate.lower import orders
from fusemodel.simulate.machine import Blocked, Counts, Deadlock, Machine, machine_of
from fusemodel.simulate.path import critical_path
from fusemodel.simulate.result import BufferResult, EinsumSimulation, GroupSimulation, PathStep, Simulation
from fusemodel.simulate.stepwise import Task
from fusemodel.simulate.tasks import BUFFER, REASONS, Edge, Tasks, steps_of
from fusemodel.simulate.window import TASKS, Window, check_window, record, window_of

_INTERVALS = 64
SCHEDULES = ("given", "asap")

Progress = Callable[[str, int, int], None]


def simulate(
    design: Design,
    workload: Workload | None = None,
    seq: int | None = None,
    sets: Mapping[str, int] | None = None,
    *,
    schedule: str = "given",
    copies: int = 1,
    instances: int | None = None,
    skip: bool = True,
    window: int = TASKS,
    window_from: int = 0,
    progress: Progress | None = None,
) -> Simulation:
    """Simulate a design tile by tile.

    ``schedule`` is ``given`` (the stages of the mapping) or ``asap`` (whatever is ready, oldest tile first). ``copies``
    gives every kept tile room for at least so many, whether they fit or not (2: double buffering). Batches and heads
    are divided among ``instances`` (those of the architecture where not given): what is said is that of the one with
    most to do, traffic that of all. Of each group ``window`` tasks are recorded one by one, for the critical path and
    the picture, once ``window_from`` others have started. ``skip`` leaves out periods that repeat; the result is the
    same. ``progress`` is told the group, the tasks done and how many there are.
    Raises InputError for what the closed form refuses, for mappings with a ``grid``, and for a deadlock.
    """
    from fusemodel.simulate.engine import run  # loads the compiler

    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    for name, value, least in [("copies", copies, 1), ("instances", instances, 1), ("window", window, 0),
                               ("window_from", window_from, 0)]:  # fmt: skip
        if value is not None and value < least:
            raise InputError(f"{name} is {value}", expected=f"a whole number from {least}")
    _without_blocks(design)
    many = instances_of(design.arch) if instances is None else instances
    whole = choices(design, workload, seq, sets)[0] if many > 1 else {}
    share = share_of(design, whole, sets or {}, many)
    design = share.design
    extents, chosen = choices(design, workload, seq, share.sets)
    found = [_machine(design, c, extents, asap=schedule == "asap", copies=copies) for c in chosen]
    check_window(found, window_from)
    runs: list[tuple[Chosen, Machine, Counts]] = []
    for c, machine in zip(chosen, found, strict=True):
        name = machine.tasks.name
        tell = (lambda done, every, name=name: progress(name, done, every)) if progress else None
        try:
            runs.append((c, machine, run(machine, skip=skip, progress=tell)))
        except Deadlock as stuck:
            raise deadlock_error(design, c, machine, stuck) from None
        except InputError as error:  # more than the engine has tables for
            raise error.at(_loops(design, c)) from None
    records = [record(m, window, window_from) if window else [] for _, m, _ in runs]
    return _total(design, runs, records, whole or extents, workload, seq, schedule, share.times, many, window_from)


def machines(
    design: Design, workload: Workload | None = None, seq: int | None = None, sets: Mapping[str, int] | None = None,
    *, schedule: str = "given", copies: int = 1,
) -> list[Machine]:  # fmt: skip
    """The machine of each group of a design, for engines and pictures."""
    _without_blocks(design)
    extents, chosen = choices(design, workload, seq, sets)
    return [_machine(design, c, extents, asap=schedule == "asap", copies=copies) for c in chosen]


def _without_blocks(design: Design) -> None:
    """Blocks that share an instance are no tasks of one array."""
    for group in (g for c in design.groups for g in c.groups):
        if group.grid or group.launch:
            field, what = ("grid", "runs") if group.grid else ("launch", "is launched")
            raise InputError(
                f"{design.name!r} {what} as blocks on the instances of {design.arch.name!r}, which is not simulated",
                group.places.get(field, Where(design.file)),
                expected=f"a mapping without `{field}`, or `fusemodel eval`",
            )  # fmt: skip


def _loops(design: Design, chosen: Chosen) -> Where:
    return chosen.plan.group.places.get("loops", Where(design.file))


def _machine(design: Design, chosen: Chosen, extents: Mapping[str, int], *, asap: bool, copies: int) -> Machine:
    """The machine of a group. Where its schedule leaves the order of tiles open (one stage), the best of several."""
    from fusemodel.simulate.engine import pace  # loads the compiler

    found = [machine_of(t) for t in orders(chosen, extents, asap=asap, copies=copies)]
    try:
        return found[0] if len(found) == 1 else min(found, key=pace)
    except InputError as error:  # more than the engine has tables for
        raise error.at(_loops(design, chosen)) from None


def _total(
    design: Design, runs: Sequence[tuple[Chosen, Machine, Counts]], records: Sequence[list[Task]],
    extents: dict[str, int], workload: Workload | None, seq: int | None, schedule: str, times: float, instances: int,
    first: int,
) -> Simulation:  # fmt: skip
    arch = design.arch
    cycles = sum(m.cycles(n.ticks) for _, m, n in runs)
    windows = [window_of(m, r, first) for (_, m, _), r in zip(runs, records, strict=True)]
    groups = [_group(c, m, n, r, w) for (c, m, n), r, w in zip(runs, records, windows, strict=True)]
    slots = dict.fromkeys(arch.units, 0.0)
    busy = dict.fromkeys(arch.units, 0.0)
    stalls = {u: dict.fromkeys(REASONS, 0.0) for u in arch.units}
    for (c, _, _), g in zip(runs, groups, strict=True):
        for name, e in c.cost.einsums.items():
            slots[c.plan.einsums[name].unit] += float(e.work_slots)
            for unit, held in e.beside.items():
                slots[unit] += float(held) * arch.units[unit].size
        for unit in arch.units:
            busy[unit] += g.busy_cycles.get(unit, 0.0)
            for reason, value in g.stalls.get(unit, {"finished": g.cycles}).items():
                stalls[unit][reason] += value
    intervals, timeline = _timeline(runs, arch.units)
    return Simulation(
        mapping=design.name, cascade=design.cascade.name, arch=arch.name, workload=workload.name if workload else None,
        seq=seq, schedule=schedule, cycles=cycles,
        closed_form_cycles=float(sum(c.cost.cycles for c, _, _ in runs)),
        latency_s=cycles / arch.clock_hz,
        utilization={u: slots[u] / (cycles * arch.units[u].size) if cycles else 0.0 for u in arch.units},
        busy={u: busy[u] / cycles if cycles else 0.0 for u in arch.units},
        stalls={u: {r: v for r, v in by.items() if v} for u, by in stalls.items()},
        traffic_bytes=_traffic(design, runs, times),
        buffers=[b for c, m, n in runs for b in _buffers(design, m, n)],
        einsums=[e for _, m, n in runs for e in _einsums(m, n)],
        groups=groups, intervals=intervals, timeline=timeline,
        tasks=sum(g.tasks for g in groups), simulated=sum(g.simulated for g in groups), extents=extents,
        instances=instances, windows=windows,
        notes=list(dict.fromkeys(x for c, m, _ in runs for x in (*c.cost.notes, *m.tasks.notes))),
    )  # fmt: skip


def _group(
    chosen: Chosen, machine: Machine, counts: Counts, records: Sequence[Task], window: Window
) -> GroupSimulation:
    tasks = machine.tasks
    stalls = {u: dict.fromkeys(REASONS, 0.0) for u in tasks.units}
    for a, actor in enumerate(tasks.actors):
        if actor.unit >= 0:
            for r, reason in enumerate(REASONS):
                stalls[tasks.units[actor.unit]][reason] += machine.cycles(int(counts.stalls[a, r]))
    for u, unit in enumerate(tasks.units):
        stalls[unit]["finished"] += machine.cycles(int(counts.after[u]))
    busy = {unit: machine.cycles(int(counts.busy[u])) for u, unit in enumerate(tasks.units)}
    levels = _level_cycles(tasks, counts)
    return GroupSimulation(
        tasks.name, machine.cycles(counts.ticks), float(chosen.cost.cycles),
        max([0.0, *busy.values(), *levels.values()]),
        {u: {r: v for r, v in by.items() if v} for u, by in stalls.items()}, busy, levels, tasks.firings,
        counts.simulated, _path(machine, records), tasks.ordered,
        {"first": window.first, "tasks": window.tasks, "begin_cycles": window.begin_cycles,
         "end_cycles": window.end_cycles},
    )  # fmt: skip


def _level_cycles(tasks: Tasks, counts: Counts) -> dict[str, float]:
    """Cycles for which the words of each level take it."""
    found = dict.fromkeys(tasks.levels, 0.0)
    for a, actor in enumerate(tasks.actors):
        words = _amount(tasks, counts, a)
        for level, share in actor.shares.items():
            if actor.unit < 0:
                found[level] += share * words * tasks.cycles_per_word[tasks.levels.index(level)]
    return found


def _amount(tasks: Tasks, counts: Counts, a: int) -> float:
    """Cycles of an Einsum, or words of a transfer, over all its firings."""
    return float((counts.fired[a] * tasks.actors[a].amount.values.reshape(-1)).sum())


def _traffic(
    design: Design, runs: Sequence[tuple[Chosen, Machine, Counts]], times: float
) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {level: {} for level in design.arch.levels}

    def add(level: str, tensor: str, write: bool, words: float) -> None:
        if words:
            entry = found[level].setdefault(tensor, {"read": 0.0, "write": 0.0})
            entry["write" if write else "read"] += words * times * design.arch.word_bytes

    for _, machine, counts in runs:
        for a, actor in enumerate(machine.tasks.actors):
            for level, write, share in actor.flows:
                add(level, actor.tensor, write, share * _amount(machine.tasks, counts, a))
        for level, tensor, write, words in machine.tasks.untimed:
            add(level, tensor, write, words)
    return found


def _buffers(design: Design, machine: Machine, counts: Counts) -> list[BufferResult]:
    word = design.arch.word_bytes
    return [
        BufferResult(machine.tasks.name, b.level, b.tensor, b.held_words(int(peak)) * word, b.room_words * word)
        for b, peak in zip(machine.tasks.buffers, counts.peak, strict=True)
    ]


def _einsums(machine: Machine, counts: Counts) -> list[EinsumSimulation]:
    tasks = machine.tasks
    return [
        EinsumSimulation(
            actor.name, tasks.units[actor.unit], tasks.name, actor.firings, _amount(tasks, counts, a),
            {r: machine.cycles(int(v)) for r, v in zip(REASONS, counts.stalls[a], strict=True) if v},
        )
        for a, actor in enumerate(tasks.actors)
        if actor.unit >= 0
    ]  # fmt: skip


def _path(machine: Machine, records: Sequence[Task]) -> list[PathStep]:
    """The critical path of some tasks, by what is on it."""
    links = critical_path(machine, records)
    total = sum(x.ticks for x in links)
    parts: dict[tuple[str, str], int] = {}
    for x in links:
        key = machine.tasks.actors[x.actor].name, x.kind
        parts[key] = parts.get(key, 0) + x.ticks
    return [
        PathStep(name, kind, machine.cycles(ticks), ticks / total)
        for (name, kind), ticks in sorted(parts.items(), key=lambda p: -p[1])
        if ticks
    ]


def _timeline(runs: Sequence[tuple[Chosen, Machine, Counts]], units) -> tuple[list[float], dict[str, list[float]]]:
    """How busy each unit is over time: at most so many intervals of equal length, from what the engine noted."""
    import numpy as np

    total = sum(m.cycles(n.ticks) for _, m, n in runs)
    if not total:
        return [], {u: [] for u in units}
    ends = np.linspace(0.0, total, _INTERVALS + 1)
    curves = {u: np.zeros(len(ends)) for u in units}
    begin = 0.0
    for _, machine, counts in runs:
        length = machine.cycles(counts.ticks)
        times = np.array([0.0, *(counts.timeline[:, 0] / machine.ticks_per_cycle), length]) + begin
        for u, unit in enumerate(machine.tasks.units):
            busy = np.array([0, *counts.timeline[:, 1 + u], counts.busy[u]]) / machine.ticks_per_cycle
            curves[unit] += np.interp(ends, times, busy)
        begin += length
    return [float(x) for x in ends[1:]], {u: [float(x) for x in np.diff(c) / np.diff(ends)] for u, c in curves.items()}


def deadlock_error(design: Design, chosen: Chosen, machine: Machine, stuck: Deadlock) -> InputError:
    """The cycle of waits, with the sizes of the buffers in it."""
    tasks = machine.tasks
    edges = {b.actor: tasks.actors[b.actor].edges[b.edge] for b in stuck.blocked if b.edge >= 0}
    firing = {b.actor: b.firing for b in stuck.blocked}
    after = {a: e.other for a, e in edges.items()} | _turns(tasks, stuck)
    chain = [next(iter(edges), stuck.blocked[0].actor)]
    while (other := after.get(chain[-1], chain[-1])) not in chain:
        chain.append(other)
    chain = chain[chain.index(other) :]
    parts = [_waits(design, tasks, a, firing.get(a, 0), edges.get(a), after.get(a)) for a in chain]
    group = chosen.plan.group
    return InputError(
        f"deadlock in {tasks.name!r} after {machine.cycles(stuck.ticks):,.0f} cycles: {'; '.join(parts)}",
        group.places.get("keep", Where(design.file)),
        expected="more `copies` of what is waited for, a tile under an inner loop, or another order of stages",
    )


def _turns(tasks: Tasks, stuck: Deadlock) -> dict[int, int]:
    """What comes first on the unit of those that only wait for their turn."""
    if not tasks.ordered:
        return {}

    def turn(b: Blocked) -> tuple[int, int, int]:
        a = tasks.actors[b.actor]
        steps = steps_of(b.firing, a.sizes)
        return a.lag + a.turn[0] + sum(c * s for c, s in zip(a.turn[1], steps, strict=True)), a.stage, a.place

    first: dict[int, Blocked] = {}
    for b in stuck.blocked:
        unit = tasks.actors[b.actor].unit
        if unit >= 0 and (unit not in first or turn(b) < turn(first[unit])):
            first[unit] = b
    units = {b.actor: tasks.actors[b.actor].unit for b in stuck.blocked}
    found = {a: first[u].actor for a, u in units.items() if u >= 0 and first[u].actor != a}
    return {b.actor: found[b.actor] for b in stuck.blocked if b.edge < 0 and b.actor in found}


def _waits(design: Design, tasks: Tasks, a: int, firing: int, edge: Edge | None, after: int | None) -> str:
    name = f"{tasks.actors[a].name} (task {firing + 1} of {tasks.actors[a].firings})"
    if edge is None:
        return f"{name} waits for its turn" + (f" after {tasks.actors[after].name}" if after is not None else "")
    other = tasks.actors[edge.other].name
    if edge.reason == BUFFER:
        tile = next((b for b in tasks.buffers if b.tile == edge.tile and b.writer == a), None)
        room = f", which holds {size(tile.room_words * design.arch.word_bytes)}," if tile else ""
        return f"{name} waits for room in {edge.tile or 'what ' + other + ' empties'}{room} until {other} has read it"
    return f"{name} waits for {other}"


__all__ = ["deadlock_error", "machines", "simulate"]
