"""The critical path: from the last task back, each time to what let it start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusemodel.simulate.machine import Machine
from fusemodel.simulate.stepwise import Task
from fusemodel.simulate.tasks import ISSUED, VALID, Actor, Edge, steps_of


@dataclass(frozen=True)
class Link:
    """A task on the path, or a drain before it, for some ticks; or ``wait`` where nothing recorded explains a gap."""

    actor: int
    firing: int
    kind: str  # "work", "transfer", "queue", "drain" or "wait"
    ticks: int


def critical_path(machine: Machine, records: Sequence[Task]) -> list[Link]:
    """The path that ends with the last of some recorded tasks (an Einsum's, if there is one), latest first."""
    if not records:
        return []
    actors = machine.tasks.actors
    known = {(t.actor, t.firing): t for t in records}
    ends: dict[int, Task] = {}
    for t in records:
        best = ends.get(t.end)
        if best is None or (actors[best.actor].unit < 0 <= actors[t.actor].unit):
            ends[t.end] = t
    task: Task | None = max(records, key=lambda t: (actors[t.actor].unit >= 0, t.end))
    found: list[Link] = []
    seen: set[tuple[int, int]] = set()
    begin = min(t.issued for t in records)
    while task is not None and (task.actor, task.firing) not in seen:
        seen.add((task.actor, task.firing))
        kind = "work" if actors[task.actor].unit >= 0 else "transfer"
        found.append(Link(task.actor, task.firing, kind, task.end - task.begin))
        if task.begin > task.issued:
            found.append(Link(task.actor, task.firing, "queue", task.begin - task.issued))
        task = _before(machine, known, ends, task, found, begin)
    return found


def _before(machine: Machine, known, ends: dict[int, Task], task: Task, found: list[Link], begin: int) -> Task | None:
    """What let a task start, and what passed between its end and that start."""
    actors = machine.tasks.actors
    best: tuple[int, Task, Edge | None] | None = None
    for edge in actors[task.actor].edges:
        other = known.get((edge.other, _needed(actors[task.actor], edge, task.firing)))
        if other is None or task.firing < edge.slack:
            continue
        time = other.issued if edge.event == ISSUED else other.end
        if edge.event == VALID:
            time += machine.drain_ticks[edge.other]
        if time <= task.issued and (best is None or time > best[0]):
            best = time, other, edge
    if best is None or best[0] < task.issued:  # the unit, or a stage before
        other = ends.get(task.issued)
        if other is not None and other is not task:
            return other
    if best is None:
        if task.issued > begin:
            found.append(Link(task.actor, task.firing, "wait", task.issued - begin))
        return None
    time, other, edge = best
    if edge is not None and edge.event == VALID and machine.drain_ticks[edge.other]:
        found.append(Link(edge.other, other.firing, "drain", machine.drain_ticks[edge.other]))
    if time < task.issued:
        found.append(Link(task.actor, task.firing, "wait", task.issued - time))
    return other


def _needed(actor: Actor, edge: Edge, firing: int) -> int:
    steps = steps_of(firing - edge.slack, actor.sizes)
    return edge.constant + sum(c * s for c, s in zip(edge.coefficients, steps, strict=True))
