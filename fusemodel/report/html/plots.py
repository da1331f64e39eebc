"""The numbers that the plots are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusemodel.arch import Architecture
from fusemodel.cascade import Cascade
from fusemodel.cascade.printer import format_einsum
from fusemodel.model import Evaluation
from fusemodel.quantities import tokens
from fusemodel.report.compare import Comparison
from fusemodel.report.html.parts import Known


def plot_data(found: Comparison, known: Mapping[str, Known]) -> dict[str, Any]:
    """By design, a list over the points; and what the names of Einsums stand for."""
    points = found.at(found.judged[0].subject)
    return {
        "points": [{"workload": p.workload or "", "seq": p.seq, "length": tokens(p.seq)} for p in points],
        "sections": [{"title": s.title, "subject": s.subject, "baselines": list(s.baselines)} for s in found.judged],
        "designs": {n: _columns(found.at(n), k.arch) | {"cascade": k.cascade.name} for n, k in known.items()},
        "equations": {k.cascade.name: _equations(k.cascade) for k in known.values()},
        "roofs": {
            k.arch.name: {
                "peak": sum(u.size for u in k.arch.units.values()) * k.arch.instances * k.arch.clock_hz,
                "bandwidth": k.arch.levels[k.arch.outermost].bandwidth_bytes_per_s,
            }
            for k in known.values()
        },
        "published": [
            {"design": p.mapping, "workload": p.workload, "seq": p.seq, "quantity": p.quantity, "value": p.value}
            for p in found.points
        ],
    }


def _equations(cascade: Cascade) -> dict[str, str]:
    """What each Einsum computes; of an iterative one its step, which comes after its start."""
    return {e.name: format_einsum(e) for e in cascade.einsums}


def _columns(rows: Sequence[Evaluation], arch: Architecture) -> dict[str, Any]:
    units = {u: n for u, n in arch.units.items() if any(r.busy[u] for r in rows)}
    names = {u: list(dict.fromkeys(e.name for r in rows for e in r.einsums if e.unit == u)) for u in units}
    active = [{u: r.active(u) for u in units} for r in rows]
    components = dict.fromkeys(c for r in rows for c in r.energy_breakdown_j)
    slots = [sum(r.utilization[u] * arch.units[u].size for u in units) * arch.instances * r.cycles for r in rows]
    return {
        "arch": arch.name,
        "latency_s": [r.latency_s for r in rows],
        "energy_j": [r.energy_j for r in rows],
        "dram_bytes": [r.dram_bytes for r in rows],
        "utilization": {u: [r.utilization[u] for r in rows] for u in units},
        "active": {
            u: {n: [a[u].get(n, 0.0) for a in active] for n in names[u]} for u in units
        },
        "energy": {c: [r.energy_breakdown_j.get(c, 0.0) for r in rows] for c in components},
        "intensity": [n / r.dram_bytes if r.dram_bytes else None for n, r in zip(slots, rows, strict=True)],
        "rate": [n / r.latency_s if r.latency_s else None for n, r in zip(slots, rows, strict=True)],
    }  # fmt: skip
