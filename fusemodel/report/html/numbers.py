"""The tables: every number that a plot shows, and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusemodel.model import Evaluation
from fusemodel.quantities import joules, percent, seconds, size, tokens
from fusemodel.report.compare import Comparison, Ratio, Section
from fusemodel.report.html.parts import Table


def means(found: Comparison, section: Section) -> Table:
    """The design judged against each baseline."""
    rows = []
    for baseline in section.baselines:
        r: Ratio = found.against(section.subject, baseline)
        rows.append((
            baseline, f"{r.speedup:.3f}", f"{r.speedup_geomean:.3f}", f"{r.speedup_min:.3f}", f"{r.speedup_max:.3f}",
            f"{r.energy:.3f}", f"{r.energy_with_registers:.3f}", f"{r.dram_bytes:.3g}",
        ))  # fmt: skip
    head = (
        "baseline", "speed-up", "geometric mean", "least", "most", "energy", "energy with registers", "DRAM traffic",
    )  # fmt: skip
    return Table(f"{section.title}: {section.subject} against each baseline, means of ratios over all points",
                 head, tuple(rows))  # fmt: skip


def pair(found: Comparison, section: Section, baseline: str) -> Table:
    """The design judged against one baseline at every point."""
    ours, theirs = found.at(section.subject), found.at(baseline)
    seqs = list(dict.fromkeys(r.seq for r in ours))
    rows = []
    for workload in dict.fromkeys(r.workload for r in ours):
        cells = [
            f"{b.latency_s / a.latency_s:.2f}x" + (f" ({a.energy_j / b.energy_j:.3f})" if b.energy_j else "")
            for a, b in zip(ours, theirs, strict=True)
            if a.workload == workload
        ]
        rows.append((workload or "own extents", *cells))
    return Table(
        f"Speed-up over {baseline}, and energy as a part of its", ("workload", *map(tokens, seqs)), tuple(rows)
    )


def every(found: Comparison, section: Section) -> Table:
    """Every design at every point."""
    rows = [
        (
            r.mapping, r.workload or "-", tokens(r.seq), seconds(r.latency_s), joules(r.energy_j), size(r.dram_bytes),
            ", ".join(f"{u} {percent(v)}" for u, v in r.utilization.items()), r.bound,
        )
        for m in section.mappings
        for r in found.at(m)
    ]  # fmt: skip
    head = ("design", "workload", "tokens", "latency", "energy", "DRAM traffic", "utilisation", "bound by")
    return Table(f"{section.title}: every design at every point", head, tuple(rows), left=2)


def behind(found: Comparison, section: Section) -> tuple[Table, Table]:
    """Where the time and the energy of every design go, at every point."""
    points = found.at(section.subject)
    at = tuple(" ".join(filter(None, [p.workload or "", tokens(p.seq) if p.seq else ""])) or "-" for p in points)
    time = _spread(found, section, lambda r: {
        (e.unit, e.name): sum(x.cycles for x in r.einsums if (x.unit, x.name) == (e.unit, e.name)) / r.cycles
        for e in r.einsums if r.cycles
    }, percent)  # fmt: skip
    energy = _spread(found, section, lambda r: {(c,): j for c, j in r.energy_breakdown_j.items()}, joules)
    return (
        Table(f"{section.title}: part of the latency in which each unit works on each Einsum",
              ("design", "unit", "Einsum", *at), time, left=3),
        Table(f"{section.title}: energy by component", ("design", "component", *at), energy, left=2),
    )  # fmt: skip


def _spread(
    found: Comparison, section: Section, parts: Callable[[Evaluation], dict[tuple[str, ...], float]],
    written: Callable[[float], str],
) -> tuple[tuple[str, ...], ...]:  # fmt: skip
    """A row for each part of each design, a column for each point."""
    rows = []
    for design in section.mappings:
        columns: Sequence[dict[tuple[str, ...], float]] = [parts(r) for r in found.at(design)]
        for name in dict.fromkeys(n for c in columns for n in c):
            rows.append((design, *name, *(written(c[name]) if name in c else "-" for c in columns)))
    return tuple(rows)


def published(found: Comparison) -> Table | None:
    """Figures of single points, ours beside those published."""
    rows = []
    by_point = {(r.mapping, r.workload, r.seq): r for r in found.rows}
    for p in found.points:
        ours = by_point.get((p.mapping, p.workload, p.seq))
        if ours is None:
            continue
        value = p.of(ours)
        rows.append((
            p.mapping, p.workload, tokens(p.seq), _quantity(p.quantity), *_written(p.quantity, value, p.value),
            f"{value / p.value - 1:+.2%}" if p.value else "-",
        ))  # fmt: skip
    head = ("design", "workload", "tokens", "quantity", "ours", "published", "difference")
    return Table("Figures of single points, ours beside those published", head, tuple(rows), left=4) if rows else None


_WRITTEN = {"latency_s": ("latency", "s"), "energy_j": ("energy", "J"), "dram_bytes": ("DRAM traffic", "bytes")}


def _quantity(name: str) -> str:
    field, _, unit = name.partition(".")
    return f"utilisation of {unit}" if unit else _WRITTEN.get(field, (field, ""))[0]


def _written(name: str, *values: float) -> tuple[str, ...]:
    if "." in name:
        return tuple(f"{v:.3%}" for v in values)
    return tuple(f"{v:.5g} {_WRITTEN.get(name, ('', ''))[1]}".strip() for v in values)
