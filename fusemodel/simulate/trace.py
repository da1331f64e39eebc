"""Recorded tasks as a trace for Perfetto and chrome://tracing (the Trace Event Format, JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusemodel.simulate.machine import Machine
from fusemodel.simulate.stepwise import Task
from fusemodel.simulate.tasks import REASONS, steps_of


def trace_events(runs: Sequence[tuple[Machine, Sequence[Task]]], clock_hz: float) -> dict[str, Any]:
    """One process for each group, one thread for each unit and for each level; a task is a complete event ("X") with
    its steps, a wait of a unit one of category ``stall``. Times are microseconds."""
    events: list[dict[str, Any]] = []
    begin_us = 0.0
    for group, (machine, records) in enumerate(runs):
        tasks = machine.tasks
        scale = 1e6 / clock_hz / machine.ticks_per_cycle
        lanes = [*tasks.units, *tasks.levels]
        events.append({"ph": "M", "pid": group, "name": "process_name", "args": {"name": tasks.name}})
        events += [
            {"ph": "M", "pid": group, "tid": i, "name": "thread_name", "args": {"name": lane}}
            for i, lane in enumerate(lanes)
        ]
        for t in records:
            actor = tasks.actors[t.actor]
            steps = dict(zip(actor.loops, steps_of(t.firing, actor.sizes), strict=True))
            args: dict[str, Any] = {"task": t.firing, **steps}
            if actor.unit >= 0:
                lane = [actor.unit]
                if t.waited:
                    events.append(_event(f"wait: {REASONS[t.reason]}", "stall", group, actor.unit,
                                         begin_us + (t.issued - t.waited) * scale, t.waited * scale,
                                         {"before": actor.name, "reason": REASONS[t.reason]}))  # fmt: skip
            else:
                lane = [len(tasks.units) + tasks.levels.index(level) for level in actor.shares]
                args["queued_us"] = (t.begin - t.issued) * scale
            events += [
                _event(actor.name, actor.kind, group, i, begin_us + t.begin * scale, (t.end - t.begin) * scale, args)
                for i in lane
                if t.end > t.begin
            ]
        begin_us += max((t.end for t in records), default=0) * scale
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _event(name: str, category: str, pid: int, tid: int, ts: float, dur: float, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "cat": category, "ph": "X", "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}
