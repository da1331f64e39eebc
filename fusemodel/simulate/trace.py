"""Windows of a simulation as a trace for Perfetto and chrome://tracing (the Trace Event Format, JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusemodel.simulate.window import Span, Window


def trace_events(windows: Sequence[Window], clock_hz: float) -> dict[str, Any]:
    """One process for each group, one thread for each unit and for each level; a task is a complete event ("X") with
    its steps, a wait of a unit one of category ``stall``. Times are microseconds from the start of the first group; a
    group with something before its window comes right after the window before."""
    events: list[dict[str, Any]] = []
    scale, before = 1e6 / clock_hz, 0.0
    for group, window in enumerate(windows):
        what = {"name": f"{window.group}: {window.what}"}
        events.append({"ph": "M", "pid": group, "name": "process_name", "args": what})
        events += [
            {"ph": "M", "pid": group, "tid": i, "name": "thread_name", "args": {"name": lane}}
            for i, lane in enumerate(window.lanes)
        ]
        shift = before - window.begin_cycles if group else 0.0
        events += [_event(s, group, window.lanes.index(s.lane), shift, scale) for s in window.spans]
        before = window.end_cycles + shift
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _event(span: Span, pid: int, tid: int, shift: float, scale: float) -> dict[str, Any]:
    name, category = span.name, span.kind
    args: dict[str, Any] = {"task": span.task, **span.steps}
    if span.kind == "wait":
        name, category, args = f"wait: {span.name}", "stall", {"before": span.einsum, "reason": span.name}
    elif span.kind != "einsum":
        args["queued_us"] = span.queued_cycles * scale
    begin, length = (span.begin_cycles + shift) * scale, (span.end_cycles - span.begin_cycles) * scale
    return {"name": name, "cat": category, "ph": "X", "pid": pid, "tid": tid, "ts": begin, "dur": length, "args": args}


__all__ = ["trace_events"]
