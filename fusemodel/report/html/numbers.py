"""The tables: every number that a plot shows, and more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fusemodel.model import Evaluation
from fusemodel.quantities import joules, part, percent, seconds, size, times, tokens
from fusemodel.report.compare import Comparison, PublishedPoint, Ratio, Section
from fusemodel.report.html.parts import Table


def means(found: Comparison, section: Section) -> Table:
    """The design judged against each baseline."""
    rows = []
    for baseline in section.baselines:
        r: Ratio = found.against(section.subject, baseline)
        rows.append((
            baseline, *map(times, (r.speedup, r.speedup_geomean, r.speedup_min, r.speedup_max)),
            part(r.energy), part(r.energy_with_registers), f"{r.dram_bytes:.3g}",
        ))  # fmt: skip
    head = (
        "baseline", "speed-up", "geometric mean", "least", "most", "energy", "energy with registers", "DRAM traffic",
    )  # fmt: skip
    return Table(f"{section.title}: {section.subject} against each baseline, means of ratios over all points",
                 head, tuple(rows))  # fmt: skip


def ratios(found: Comparison, section: Section) -> Table:
    """The design judged against each baseline at every point."""
    ours = found.at(section.subject)
    seqs = list(dict.fromkeys(r.seq for r in ours))
    rows = []
    for baseline in section.baselines:
        theirs = found.at(baseline)
        for workload in dict.fromkeys(r.workload for r in ours):
            pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.workload == workload]
            rows.append((baseline, workload or "-", *(_against(a, b) for a, b in pairs)))
    title = f"{section.title}: speed-up of {section.subject} over each baseline, and its energy as a part of theirs"
    return Table(title, ("baseline", "workload", *map(tokens, seqs)), tuple(rows), left=2)  # fmt: skip


def _against(a: Evaluation, b: Evaluation) -> str:
    energy = f" ({part(a.energy_j / b.energy_j)})" if a.energy_j and b.energy_j else ""
    return f"{times(b.latency_s / a.latency_s)}x{energy}"


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
    time = _spread(found, section, lambda r: {(u, n): v for u in r.busy for n, v in r.active(u).items()}, percent)
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
    rows = [
        (
            p.mapping, p.workload, tokens(p.seq), _quantity(p.quantity), _written(p.quantity, ours),
            _written(p.quantity, p.value), _difference(ours / p.value - 1) if p.value else "-",
        )
        for p, ours in _beside(found)
    ]  # fmt: skip
    head = ("design", "workload", "tokens", "quantity", "ours", "published", "difference")
    return Table("Figures of single points, ours beside those published", head, tuple(rows), left=4) if rows else None


def agreement(found: Comparison) -> str:
    """How far our figures of single points are from those published, in a sentence."""
    differences = [(abs(ours / p.value - 1), p) for p, ours in _beside(found) if p.value]
    if not differences:
        return ""
    near = sum(d <= 0.001 for d, _ in differences)
    largest, p = max(differences, key=lambda d: d[0])
    return (
        f"Of {len(differences)} published figures of single points {near} are met within 0.1%; the largest difference "
        f"is {largest:.1%} ({_quantity(p.quantity)} of {p.mapping}, {p.workload}, {tokens(p.seq)} tokens)."
    )


def _beside(found: Comparison) -> Iterator[tuple[PublishedPoint, float]]:
    """Published figures of single points, each with ours."""
    by_point = {(r.mapping, r.workload, r.seq): r for r in found.rows}
    for p in found.points:
        if (p.mapping, p.workload, p.seq) in by_point:
            yield p, p.of(by_point[p.mapping, p.workload, p.seq])


def _quantity(name: str) -> str:
    field, _, unit = name.partition(".")
    return f"utilisation of {unit}" if unit else _NAMES.get(field, field)


_NAMES = {"latency_s": "latency", "energy_j": "energy", "dram_bytes": "DRAM traffic"}
_UNITS = {"latency_s": seconds, "energy_j": joules, "dram_bytes": size}


def _written(name: str, value: float) -> str:
    return f"{value:.2%}" if "." in name else _UNITS.get(name, "{:.5g}".format)(value)


def _difference(value: float) -> str:
    return f"{value:+.2%}" if abs(value) >= 0.00005 else "0.00%"
