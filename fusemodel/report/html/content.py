"""What the page says, gathered from a comparison: words, tables, and the numbers the plots are drawn from."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fusemodel import __version__
from fusemodel.analysis import passes
from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.derive import derive
from fusemodel.api import is_cascade
from fusemodel.arch import Architecture, load_architecture
from fusemodel.cascade import Cascade, extents_of, format_einsums, load_cascade
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.library import find, root
from fusemodel.mapping import load_design
from fusemodel.model import Evaluation
from fusemodel.quantities import count, joules, percent, seconds, size, tokens
from fusemodel.report.compare import Comparison, Ratio, Section
from fusemodel.report.figures import svg_text
from fusemodel.report.waterfall import waterfall
from fusemodel.simulate.run import machines, record

_TASKS = 150  # of a waterfall


@dataclass(frozen=True)
class Table:
    """Rows of text; the first ``left`` columns are words, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True)
class Headline:
    """One design against one baseline: a number, the same in words, and what was published."""

    figure: str
    unit: str
    words: str
    published: str


@dataclass(frozen=True)
class DesignNote:
    """A design in words."""

    name: str
    about: str
    source: str
    cascade: str
    arch: str
    waits: str


@dataclass(frozen=True)
class CascadeNote:
    """A cascade: its equations, passes and bounds."""

    name: str
    about: str
    equations: str
    summary: str
    chains: tuple[str, ...]


@dataclass(frozen=True)
class InputFile:
    name: str
    digest: str
    text: str


@dataclass(frozen=True)
class Waterfall:
    """The first tasks of a design, simulated: a drawing, and what it is of."""

    caption: str
    svg: str


@dataclass(frozen=True)
class SectionContent:
    """A section of the comparison."""

    title: str
    id: str
    subject: str
    headlines: tuple[Headline, ...]
    why: str
    means: Table
    pairs: tuple[Table, ...]
    every: Table


@dataclass(frozen=True)
class Page:
    """Everything on the page. ``data`` is what the plots are drawn from."""

    title: str
    about: str
    source: str
    lead: str
    sections: tuple[SectionContent, ...]
    designs: tuple[DesignNote, ...]
    cascades: tuple[CascadeNote, ...]
    published: Table | None
    notes: tuple[str, ...]
    command: str
    versions: tuple[str, ...]
    files: tuple[InputFile, ...]
    data: dict[str, Any] = field(default_factory=dict)
    waterfalls: tuple[Waterfall, ...] = ()


@dataclass(frozen=True)
class _Known:
    """A design of the comparison, loaded: where it came from."""

    name: str
    about: str
    source: str
    cascade: Cascade
    arch: Architecture
    files: tuple[str, ...]


def content(found: Comparison, command: str) -> Page:
    """Gather the page of a comparison that ``command`` made."""
    known = {name: _known(name, given, found.request.arch) for name, given in found.given.items()}
    sections = tuple(_section(found, i, s) for i, s in enumerate(found.judged))
    first = found.judged[0]
    others = first.baselines if len(first.baselines) < 3 else (first.baselines[0], "others")
    return Page(
        title=f"{first.subject} against {' and '.join(others)}",
        about=found.request.about,
        source=found.request.source,
        lead=_lead(found),
        sections=sections,
        designs=tuple(_design(k, found.at(n)) for n, k in known.items()),
        cascades=tuple(_cascades(known, found)),
        published=_published(found),
        notes=tuple(dict.fromkeys(f"{r.mapping}: {n}" for r in found.rows for n in r.notes)),
        command=command,
        versions=(
            f"fusemodel {__version__}", f"Python {platform.python_version()}", f"NumPy {version('numpy')}",
        ),
        files=tuple(_files(known, found)),
        data=_data(found, known),
        waterfalls=tuple(_waterfalls(found)),
    )  # fmt: skip


def _known(name: str, given: str, arch: str | None) -> _Known:
    if is_cascade(given):
        cascade, machine = load_cascade(given), load_architecture(arch or "")
        about = f"{cascade.about}; mapped by fusemodel at every point"
        return _Known(name, about, cascade.source, cascade, machine, (cascade.file, machine.file))
    design = load_design(given, arch=arch)
    about, source = (" ".join(t.split()) for t in (design.about, design.source))
    files = dict.fromkeys([*design.files, design.cascade.file, design.arch.file])
    return _Known(name, about, source, design.cascade, design.arch, tuple(f for f in files if f))


def _lead(found: Comparison) -> str:
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


def _section(found: Comparison, i: int, section: Section) -> SectionContent:
    return SectionContent(
        title=section.title,
        id=f"section-{i}",
        subject=section.subject,
        headlines=tuple(_headline(found, section, b) for b in section.baselines),
        why=_why(found, section),
        means=_means(found, section),
        pairs=tuple(_pair(found, section, b) for b in section.baselines),
        every=_every(found, section),
    )


def _headline(found: Comparison, section: Section, baseline: str) -> Headline:
    r = found.against(section.subject, baseline)
    label = section.labels.get(baseline)
    other = f"{baseline} ({label})" if label else baseline
    faster = f"{r.speedup:.2f} times as fast as {other}"
    spread = f", {r.speedup_min:.2f} to {r.speedup_max:.2f}" if r.points > 1 else ""
    energy = f" and takes {r.energy:.3f} of its energy" if r.energy == r.energy else ""
    mean = f"mean of {r.points} points{spread}" if r.points > 1 else "one point"
    said = [
        f"{_NAMES[p['quantity']]} {p['value']:.3g} ({(getattr(r, p['quantity']) / p['value'] - 1):+.1%})"
        for p in found.published
        if (p["subject"], p["baseline"], p["statistic"]) == (section.subject, baseline, "mean")
    ]
    return Headline(
        figure=f"{r.speedup:.2f}",
        unit="times as fast",
        words=f"{section.subject} is {faster}{energy} ({mean}).",
        published=f"Published: {', '.join(said)}" if said else "",
    )


def _why(found: Comparison, section: Section) -> str:
    """What the design judged does better than the first baseline, in numbers."""
    first = section.baselines[0]

    def used(name: str) -> str:
        rows = found.at(name)
        units = [u for u in rows[0].utilization if any(r.utilization[u] for r in rows)]
        return ", ".join(f"{u} {percent(sum(r.utilization[u] for r in rows) / len(rows))}" for u in units)

    moved = found.against(section.subject, first).dram_bytes
    traffic = f", and moves {moved:.3g} times its DRAM bytes" if moved == moved else ""
    return (
        f"On average {section.subject} keeps busy {used(section.subject)}; {first} keeps busy {used(first)}. "
        f"{section.subject} is bound by {_waits(found.at(section.subject))}{traffic}; {first} is bound by "
        f"{_waits(found.at(first))}."
    )


_NAMES = {"speedup": "speed-up", "energy": "energy"}


def _means(found: Comparison, section: Section) -> Table:
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


def _pair(found: Comparison, section: Section, baseline: str) -> Table:
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


def _every(found: Comparison, section: Section) -> Table:
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


def _design(known: _Known, rows: Sequence[Evaluation]) -> DesignNote:
    return DesignNote(known.name, known.about, known.source, known.cascade.name, known.arch.name, _waits(rows))


def _waits(rows: Sequence[Evaluation]) -> str:
    bound = Counter(r.bound for r in rows).most_common()
    if len(bound) == 1:
        return f"{bound[0][0]} everywhere"
    return ", ".join(f"{b} at {n} of {len(rows)} points" for b, n in bound)


def _cascades(known: dict[str, _Known], found: Comparison) -> list[CascadeNote]:
    notes: dict[str, CascadeNote] = {}
    workloads = {w.name: w for w in map(load_workload, found.request.workloads)}
    for name, k in known.items():
        if k.cascade.name in notes:
            continue
        at = found.at(name)[-1]
        extents = extents_of(k.cascade, extents_for(k.cascade, workloads.get(at.workload or ""), at.seq))
        counted, least = passes(k.cascade, extents), bounds(k.cascade, extents)
        after = derive(k.cascade).passes_after
        several = [r for r, n in counted.passes.items() if n > 1]
        parts = [
            f"{counted.passes[r]} passes over {r}"
            + (f" as written, {after[r]} by algebra" if after.get(r, counted.passes[r]) < counted.passes[r] else "")
            for r in several
        ] or ["one pass over every rank"]
        moved = f"At least {count(least.compulsory_words_at)} words move off chip whatever the mapping"
        grows = [r for r, g in least.footprint.grows.items() if g]
        held = f"what is alive when all is fused grows with {', '.join(grows)}" if grows else (
            "what is alive when all is fused does not grow"
        )  # fmt: skip
        where = f"{at.workload or 'its own extents'}" + (f", {tokens(at.seq)} tokens" if at.seq else "")
        notes[k.cascade.name] = CascadeNote(
            k.cascade.name,
            " ".join(k.cascade.about.split()),
            format_einsums(k.cascade),
            f"{'; '.join(parts)}. {moved} ({where}); {held}.",
            tuple(f"{r}: {step}" for r in several for step in counted.why[r]),
        )
    return list(notes.values())


def _published(found: Comparison) -> Table | None:
    rows = []
    by_point = {(r.mapping, r.workload, r.seq): r for r in found.rows}
    for p in found.points:
        ours = by_point.get((p.mapping, p.workload, p.seq))
        if ours is None:
            continue
        value = p.of(ours)
        rows.append((
            p.mapping, p.workload, tokens(p.seq), p.quantity, f"{value:.5g}", f"{p.value:.5g}",
            f"{value / p.value - 1:+.2%}" if p.value else "-",
        ))  # fmt: skip
    head = ("design", "workload", "tokens", "quantity", "ours", "published", "difference")
    return Table("Figures of single points, ours beside those published", head, tuple(rows), left=4) if rows else None


def _files(known: dict[str, _Known], found: Comparison) -> list[InputFile]:
    paths = dict.fromkeys(f for k in known.values() for f in k.files)
    paths |= dict.fromkeys(str(find("workloads", w)) for w in found.request.workloads)
    result = []
    for file in paths:
        path = Path(file)
        text = path.read_text(encoding="utf-8")
        shown = path.resolve()
        name = str(shown.relative_to(root().resolve())) if shown.is_relative_to(root().resolve()) else path.name
        result.append(InputFile(name, hashlib.sha256(text.encode()).hexdigest()[:16], text))
    return result


def _data(found: Comparison, known: dict[str, _Known]) -> dict[str, Any]:
    """Numbers for the plots: by design, a list over the points."""
    points = found.at(found.judged[0].subject)
    return {
        "points": [{"workload": p.workload or "", "seq": p.seq, "length": tokens(p.seq)} for p in points],
        "sections": [{"title": s.title, "subject": s.subject, "baselines": list(s.baselines)} for s in found.judged],
        "designs": {n: _columns(found.at(n), k.arch) for n, k in known.items()},
        "roofs": {
            k.arch.name: {
                "peak": sum(u.size for u in k.arch.units.values()) * k.arch.clock_hz,
                "bandwidth": k.arch.levels[k.arch.outermost].bandwidth_bytes_per_s,
            }
            for k in known.values()
        },
        "published": [
            {"design": p.mapping, "workload": p.workload, "seq": p.seq, "quantity": p.quantity, "value": p.value}
            for p in found.points
        ],
    }


def _columns(rows: Sequence[Evaluation], arch: Architecture) -> dict[str, Any]:
    units = {u: n for u, n in arch.units.items() if any(r.busy[u] for r in rows)}
    names = {u: list(dict.fromkeys(e.name for r in rows for e in r.einsums if e.unit == u)) for u in units}
    spent = {(i, e.unit, e.name): e.cycles / r.cycles for i, r in enumerate(rows) for e in r.einsums if r.cycles}
    components = dict.fromkeys(c for r in rows for c in r.energy_breakdown_j)
    slots = [sum(r.utilization[u] * arch.units[u].size for u in arch.units) * r.cycles for r in rows]
    return {
        "arch": arch.name,
        "latency_s": [r.latency_s for r in rows],
        "energy_j": [r.energy_j for r in rows],
        "dram_bytes": [r.dram_bytes for r in rows],
        "utilization": {u: [r.utilization[u] for r in rows] for u in units},
        "active": {
            u: {n: [spent.get((i, u, n), 0.0) for i in range(len(rows))] for n in names[u]} for u in units
        },
        "energy": {c: [r.energy_breakdown_j.get(c, 0.0) for r in rows] for c in components},
        "intensity": [n / r.dram_bytes if r.dram_bytes else None for n, r in zip(slots, rows, strict=True)],
        "rate": [n / r.latency_s if r.latency_s else None for n, r in zip(slots, rows, strict=True)],
    }  # fmt: skip


def _waterfalls(found: Comparison) -> Iterator[Waterfall]:
    """The first section's design and its first baseline at the first point; what cannot be simulated is left out."""
    section = found.judged[0]
    for name in (section.subject, *section.baselines[:1]):
        at, given = found.at(name)[0], found.given[name]
        workload = next((w for w in map(load_workload, found.request.workloads) if w.name == at.workload), None)
        if is_cascade(given):
            continue
        design = load_design(given, arch=found.request.arch)
        try:
            machine = max(machines(design, workload, at.seq), key=lambda m: len(m.tasks.actors))
            drawn = waterfall(machine, record(machine, _TASKS), title="")
        except InputError:
            continue
        where = f"{at.workload or 'its own extents'}" + (f", {tokens(at.seq)} tokens" if at.seq else "")
        yield Waterfall(f"The first {_TASKS} tasks of {name} ({where})", svg_text(drawn, name))
