"""Rows of the tables, from what a worker answers and what the telemetry read meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fusemodel.validate.measure.case import Case, work
from fusemodel.validate.measure.stats import Drift, drift, summarise
from fusemodel.validate.measure.store import POINT, point_of
from fusemodel.validate.measure.telemetry import Reading, condition, energy_between_j


def now() -> str:
    """The date and time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def measured(case: Case, reply: Mapping[str, Any], readings: Sequence[Reading], idle_w: float | None) -> dict[str, Any]:
    """A row but for its provenance. Energy is that of one launch; above idle, what rest would have taken is off."""
    begin_s, end_s = reply["begin_s"], reply["end_s"]
    row = {**point_of(case), **condition(readings, begin_s, end_s), "date": now()}
    row |= {c: reply.get(c) for c in ("l2", "config", "rel_error", "launches", "how")}
    if "us" in reply:
        found = summarise(reply["us"])
        row |= {"latency_us": found.median_us, "p10_us": found.p10_us, "p90_us": found.p90_us, "n": found.n}
    else:
        row |= _under_load(case, reply, readings, idle_w)
    need = work(case)
    row |= {"flop": need.flop, "exps": need.exps, "bytes": need.bytes}
    row["tflops"] = need.flop / row["latency_us"] / 1e6 if need.flop else None
    row["gbs"] = need.bytes / row["latency_us"] / 1e3 if need.bytes else None
    return row


def _under_load(
    case: Case, reply: Mapping[str, Any], readings: Sequence[Reading], idle_w: float | None
) -> dict[str, Any]:
    seconds, calls = reply["end_s"] - reply["begin_s"], reply["calls"]
    row: dict[str, Any] = {"latency_us": 1e6 * seconds / calls, "n": calls}
    found = energy_between_j(readings, reply["begin_s"], reply["end_s"])
    if found is None:
        return row
    joules, row["how"] = found
    power_w = joules / seconds
    row |= {"power_w": power_w, "energy_j": joules / calls, "idle_w": power_w if case.op == "idle" else idle_w}
    if row["idle_w"] is not None:
        row["energy_above_idle_j"] = (power_w - row["idle_w"]) * seconds / calls
    return row


def failed(case: Case, reply: Mapping[str, Any], modes: Sequence[str]) -> dict[str, Any]:
    """A row of the table of failures but for its provenance."""
    said = {"stage": reply["failed"], "error": reply["error"], "message": reply["message"]}
    return {**point_of(case), "l2": "+".join(modes), **said, "date": now()}


def idle_of(rows: Sequence[Mapping[str, Any]], gpu: str) -> float | None:
    """The power at rest that was last measured on a GPU, in watts."""
    found = [r["idle_w"] for r in rows if r["gpu"] == gpu and r["op"] == "idle" and r["idle_w"] not in ("", None)]
    return float(found[-1]) if found else None


def drift_of(rows: Sequence[Mapping[str, Any]], gpu: str) -> Drift | None:
    """How far the points that were measured twice moved, one GPU."""
    first = {_place(r): float(r["latency_us"]) for r in rows if r["gpu"] == gpu and str(r["repeat"]) == "0"}
    again = {_place(r): float(r["latency_us"]) for r in rows if r["gpu"] == gpu and str(r["repeat"]) == "1"}
    both = [k for k in again if k in first]
    return drift([first[k] for k in both], [again[k] for k in both])


def _place(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[c]) for c in (*POINT, "l2"))
