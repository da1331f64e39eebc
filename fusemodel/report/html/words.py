"""The headline numbers in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fusemodel.model import Evaluation
from fusemodel.quantities import percent, tokens
from fusemodel.report.compare import Comparison, Section
from fusemodel.report.html.parts import Headline

_NAMES = {"speedup": "speed-up", "energy": "energy"}


def lead(found: Comparison) -> str:
    """What was evaluated, and where."""
    points = found.at(found.judged[0].subject)
    workloads = list(dict.fromkeys(p.workload for p in points if p.workload))
    seqs = list(dict.fromkeys(p.seq for p in points if p.seq))
    where = f"{len(points)} points" if len(points) > 1 else "one point"
    if workloads:
        where += f": {', '.join(workloads)}"
    if seqs:
        lengths = tokens(seqs[0]) if len(seqs) == 1 else f"{tokens(min(seqs))} to {tokens(max(seqs))}"
        where += f" at {lengths} tokens"
    return f"Every design is evaluated in closed form at {where}."


def headline(found: Comparison, section: Section, baseline: str) -> Headline:
    """One design against one baseline."""
    r = found.against(section.subject, baseline)
    label = section.labels.get(baseline)
    other = f"{baseline} ({label})" if label else baseline
    faster = f"{r.speedup:.2f} times as fast as {other}"
    spread = f", {r.speedup_min:.2f} to {r.speedup_max:.2f}" if r.points > 1 else ""
    energy = f" and takes {r.energy:.3f} of its energy" if r.energy == r.energy else ""
    mean = f"mean of {r.points} points{spread}" if r.points > 1 else "one point"
    said = [
        f"{_NAMES[p['quantity']]} {p['value']:.4g} ({(getattr(r, p['quantity']) / p['value'] - 1):+.1%} here)"
        for p in found.published
        if (p["subject"], p["baseline"], p["statistic"]) == (section.subject, baseline, "mean")
    ]
    return Headline(
        figure=f"{r.speedup:.2f}",
        unit="times as fast",
        words=f"{section.subject} is {faster}{energy} ({mean}).",
        published=f"Published: {', '.join(said)}" if said else "",
    )


def why(found: Comparison, section: Section) -> str:
    """What the design judged does better than the first baseline, in numbers."""
    first = section.baselines[0]

    def used(name: str) -> str:
        rows = found.at(name)
        units = [u for u in rows[0].utilization if any(r.utilization[u] for r in rows)]
        return ", ".join(f"{u} {percent(sum(r.utilization[u] for r in rows) / len(rows))}" for u in units)

    moved = found.against(section.subject, first).dram_bytes
    traffic = f" It moves {percent(moved)} of the DRAM bytes that {first} moves." if moved == moved else ""
    return (
        f"Why: on average {section.subject} keeps its units this busy: {used(section.subject)}; {first} its own: "
        f"{used(first)}.{traffic} What limits {section.subject} is {waits(found.at(section.subject))}; what limits "
        f"{first} is {waits(found.at(first))}."
    )


def waits(rows: Sequence[Evaluation]) -> str:
    """What bounds a design, and at how many points."""
    bound = Counter(r.bound for r in rows).most_common()
    if len(bound) == 1:
        return f"{bound[0][0]} everywhere" if len(rows) > 1 else bound[0][0]
    return ", ".join(f"{b} at {n} of {len(rows)} points" for b, n in bound)
