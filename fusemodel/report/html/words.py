"""The headline numbers in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fusemodel.arch import Architecture
from fusemodel.model import Evaluation
from fusemodel.quantities import part, percent, size, times, tokens
from fusemodel.report.compare import Comparison, Section
from fusemodel.report.html.parts import Headline, MachineNote

_NAMES = {"speedup": "speed-up", "energy": "energy"}


def lead(found: Comparison) -> str:
    """What was evaluated, and where."""
    points = found.at(found.judged[0].subject)
    workloads = list(dict.fromkeys(p.workload for p in points if p.workload))
    seqs = list(dict.fromkeys(p.seq for p in points if p.seq))
    where = f"{len(points)} points" if len(points) > 1 else "one point"
    lengths = tokens(seqs[0]) if len(seqs) == 1 else f"{tokens(min(seqs))} to {tokens(max(seqs))}" if seqs else ""
    of = " at ".join(filter(None, [", ".join(workloads), f"{lengths} tokens" if lengths else ""]))
    where += f": {of}" if of else ""
    return f"Every design is evaluated in closed form at {where}."


def headline(found: Comparison, section: Section, baseline: str) -> Headline:
    """One design against one baseline."""
    r = found.against(section.subject, baseline)
    label = section.labels.get(baseline)
    other = f"{baseline} ({label})" if label else baseline
    faster = f"{times(r.speedup)} times as fast as {other}"
    spread = f", {times(r.speedup_min)} to {times(r.speedup_max)}" if r.points > 1 else ""
    energy = f" and takes {part(r.energy)} of its energy" if r.energy == r.energy else ""
    mean = f"mean of {r.points} points{spread}" if r.points > 1 else "one point"
    said = [
        f"{_NAMES[p['quantity']]} {p['value']:.4g} ({(getattr(r, p['quantity']) / p['value'] - 1):+.1%} here)"
        for p in found.published
        if (p["subject"], p["baseline"], p["statistic"]) == (section.subject, baseline, "mean")
    ]
    return Headline(
        figure=times(r.speedup),
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


def machine(arch: Architecture) -> MachineNote:
    """What computes and what stores, with the names that the page uses."""
    each = f"{arch.instances} x " if arch.instances > 1 else ""
    parts = [f"{each}{u.name}, {' x '.join(map(str, u.shape.values()))}" for u in arch.units.values()]
    for level in arch.levels.values():
        sizes = [size(level.size_bytes)] if level.size_bytes else []
        sizes += [f"{size(level.bandwidth_bytes_per_s)}/s"] if level.bandwidth_bytes_per_s else []
        count = each if level.per_instance else ""
        parts.append(", ".join([f"{count}{level.name}", *sizes]))
    return MachineNote(arch.name, " ".join(arch.about.split()), f"{arch.clock_hz / 1e6:.4g} MHz; {'; '.join(parts)}")


def waits(rows: Sequence[Evaluation]) -> str:
    """What bounds a design, and at how many points."""
    bound = Counter(r.bound for r in rows).most_common()
    if len(bound) == 1:
        return f"{bound[0][0]} everywhere" if len(rows) > 1 else bound[0][0]
    return ", ".join(f"{b} at {n} of {len(rows)} points" for b, n in bound)
