"""A part of a simulation, task by task: for pictures, traces and the critical path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusemodel.errors import InputError
from fusemodel.simulate.machine import Machine
from fusemodel.simulate.stepwise import UNDER_WAY, Stepwise, Task
from fusemodel.simulate.tasks import REASONS, steps_of

#: Tasks recorded one by one where nothing else is said.
TASKS = 2000


@dataclass(frozen=True)
class Span:
    """What a lane does from one cycle to another: an Einsum's task, a load, a store, or a wait (``name``: for what)
    before one. ``task`` is its number and ``steps`` are those of its loops; a transfer ``queued_cycles`` before."""

    lane: str
    kind: str  # "einsum", "load", "store" or "wait"
    name: str
    begin_cycles: float
    end_cycles: float
    einsum: str
    task: int
    steps: Mapping[str, int]
    queued_cycles: float = 0.0


@dataclass(frozen=True)
class Window:
    """Tasks of a group from the ``first`` (0: the first) on, ``tasks`` of ``every``, and the cycles they take up.
    ``lanes`` are units and levels."""

    group: str
    lanes: tuple[str, ...]
    first: int
    tasks: int
    every: int
    begin_cycles: float
    end_cycles: float
    spans: tuple[Span, ...]

    @property
    def what(self) -> str:
        """Which part this is, in words."""
        if not self.tasks:
            return f"none of {self.every:,} tasks"
        return (
            f"tasks {self.first + 1:,} to {self.first + self.tasks:,} of {self.every:,}, "
            f"cycles {self.begin_cycles:,.0f} to {self.end_cycles:,.0f}"
        )


def record(machine: Machine, limit: int = TASKS, first: int = 0) -> list[Task]:
    """So many tasks of a machine, in the order in which they start, once ``first`` others have started: at any place of
    a run of any length. Those then under way come first."""
    records: list[Task] = []
    run = Stepwise(machine, records.append, limit=limit, peaks=False)
    if first:
        from fusemodel.simulate.engine import after  # loads the compiler

        if first >= machine.tasks.firings:
            return []
        run.go_on(after(machine, first))
    run.run()
    return records


def window_of(machine: Machine, records: Sequence[Task], first: int = 0) -> Window:
    """Recorded tasks as a window, with times in cycles."""
    tasks = machine.tasks
    spans: list[Span] = []
    for t in records:
        actor = tasks.actors[t.actor]
        begin, end, issued = machine.cycles(t.begin), machine.cycles(t.end), machine.cycles(t.issued)
        of = actor.einsum, t.firing, dict(zip(actor.loops, steps_of(t.firing, actor.sizes), strict=True))
        if t.waited:
            before = issued - machine.cycles(t.waited)
            spans.append(Span(tasks.units[actor.unit], "wait", REASONS[t.reason], before, issued, *of))
        lanes = [tasks.units[actor.unit]] if actor.unit >= 0 else actor.shares
        spans += [Span(x, actor.kind, actor.name, begin, end, *of, begin - issued) for x in lanes if end > begin]
    begin = min((machine.cycles(t.issued - t.waited) for t in records), default=0.0)
    end = max((machine.cycles(t.end) for t in records), default=0.0)
    lanes = (*tasks.units, *tasks.levels)
    many = sum(t.reason != UNDER_WAY for t in records)
    return Window(tasks.name, lanes, first, many, tasks.firings, begin, end, tuple(spans))


def check_window(machines: Sequence[Machine], first: int) -> None:
    """InputError where no group has so many tasks."""
    most = max(m.tasks.firings for m in machines)
    if first >= most:
        raise InputError(f"there is no task {first + 1:,}", expected=f"a number of tasks left out below {most:,}")


__all__ = ["TASKS", "Span", "Window", "check_window", "record", "window_of"]
