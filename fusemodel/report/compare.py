"""Comparing designs over workloads and lengths: evaluations, and means of their ratios."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusemodel.api import evaluate
from fusemodel.cascade.load import parse_size
from fusemodel.errors import InputError, Where
from fusemodel.library import find, published_dir, root
from fusemodel.model import Evaluation
from fusemodel.yamlfile import Document, check_fields, read_yaml


@dataclass(frozen=True)
class Section:
    """A design to judge against baselines. ``labels`` says in words what a baseline is."""

    title: str
    subject: str
    baselines: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def mappings(self) -> tuple[str, ...]:
        return (*self.baselines, self.subject)


@dataclass(frozen=True)
class Request:
    """What to compare: mappings, or cascades that are mapped onto ``arch`` at every point. Without workloads or
    lengths, each cascade's own extents are used."""

    sections: tuple[Section, ...]
    workloads: tuple[str, ...] = ()
    seqs: tuple[int, ...] = ()
    published: str = ""  # a table of means over all points
    points: str = ""  # a table of single points
    arch: str | None = None
    about: str = ""
    source: str = ""


@dataclass(frozen=True)
class Ratio:
    """One design against another over all points: ``speedup`` is baseline over ours, the rest ours over baseline."""

    speedup: float
    speedup_geomean: float
    speedup_min: float
    speedup_max: float
    energy: float
    energy_with_registers: float
    dram_bytes: float
    points: int


@dataclass(frozen=True)
class PublishedPoint:
    """A published figure of one design at one point. ``quantity`` is a field of an evaluation, or one of its parts
    (``utilization.UNIT``)."""

    mapping: str
    workload: str
    seq: int
    quantity: str
    value: float

    def of(self, found: Evaluation) -> float:
        """Our figure of the same quantity."""
        field_name, _, unit = self.quantity.partition(".")
        value = getattr(found, field_name)
        return value[unit] if unit else value


@dataclass(frozen=True)
class Comparison:
    """Evaluations of every design at every point, and the ratios of every pair of a section. ``given`` has what each
    design was asked for by: a name or path of a mapping, or of a cascade."""

    request: Request
    rows: tuple[Evaluation, ...] = field(repr=False)
    mean: dict[str, dict[str, Ratio]]
    published: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    points: tuple[PublishedPoint, ...] = field(default=(), repr=False)
    given: Mapping[str, str] = field(default_factory=dict)

    def at(self, mapping: str) -> list[Evaluation]:
        """The evaluations of one design, in the order of the points."""
        return [r for r in self.rows if r.mapping == mapping]

    def _repr_html_(self) -> str:
        from fusemodel.report.draw import comparison_html

        return comparison_html(self)


_FIELDS = ("name", "about", "source", "workloads", "seq", "sections", "published", "points")


def load_request(name: str = "default") -> Request:
    """A comparison kept in the library."""
    doc = read_yaml(root() / "comparisons" / f"{name}.yaml")
    data = check_fields(doc, (), doc.data, _FIELDS)
    sections = tuple(_section(doc, i, s) for i, s in enumerate(data.get("sections") or []))
    seqs = tuple(parse_size(s, "a length", doc.where("seq", i)) for i, s in enumerate(data.get("seq") or []))
    about, source = (" ".join(str(data.get(k) or "").split()) for k in ("about", "source"))
    return Request(
        sections, tuple(data.get("workloads") or ()), seqs, data.get("published") or "", data.get("points") or "",
        about=about, source=source,
    )  # fmt: skip


def _section(doc: Document, i: int, raw: Any) -> Section:
    data = check_fields(doc, ("sections", i), raw, ("title", "subject", "baselines"))
    labels = check_fields(doc, ("sections", i, "baselines"), data["baselines"], data["baselines"])
    return Section(str(data["title"]), str(data["subject"]), tuple(labels), labels)


def compare(request: Request, progress: Callable[[str], None] | None = None) -> Comparison:
    """Evaluate every design of a request at every point. ``progress`` is told of each evaluation as it ends."""
    rows: dict[str, list[Evaluation]] = {}
    points = [(w, s) for w in (request.workloads or (None,)) for s in (request.seqs or (None,))]
    names: dict[str, str] = {}
    for section in request.sections:
        for name in section.mappings:
            if name in names:
                continue
            rows[name] = []
            for workload, seq in points:
                rows[name].append(evaluate(name, workload, seq, arch=request.arch))
                if progress:
                    progress(rows[name][-1].mapping)
            title = rows[name][0].mapping
            if title in names.values():
                raise InputError(f"two designs have the name {title!r}", Where(str(find("mappings", name)), 1, 1),
                                 expected="names that differ")  # fmt: skip
            names[name] = title
    sections = tuple(
        Section(
            s.title,
            names[s.subject],
            tuple(names[b] for b in s.baselines),
            {names[b]: t for b, t in s.labels.items() if b in names},
        )
        for s in request.sections
    )
    by_name = {names[n]: r for n, r in rows.items()}
    mean = {a: {b: ratio(by_name[a], by_name[b]) for b in s.mappings if b != a} for s in sections for a in s.mappings}
    every = tuple(r for found in rows.values() for r in found)
    shown = replace(request, sections=sections)
    return Comparison(
        shown, every, mean, tuple(published(request.published)) if request.published else (),
        tuple(published_points(request.points)) if request.points else (), {t: n for n, t in names.items()},
    )  # fmt: skip


def ratio(ours: Sequence[Evaluation], baseline: Sequence[Evaluation]) -> Ratio:
    """Means of the ratios at each point."""
    speedups = [b.latency_s / a.latency_s for a, b in zip(ours, baseline, strict=True)]
    n = len(speedups)

    def mean(values: list[float]) -> float:
        return math.fsum(values) / n

    pairs = list(zip(ours, baseline, strict=True))
    return Ratio(
        speedup=mean(speedups),
        speedup_geomean=math.exp(mean([math.log(s) for s in speedups])),
        speedup_min=min(speedups),
        speedup_max=max(speedups),
        energy=mean([_quotient(a.energy_j, b.energy_j) for a, b in pairs]),
        energy_with_registers=mean([_quotient(a.energy_with_registers_j, b.energy_with_registers_j) for a, b in pairs]),
        dram_bytes=mean([_quotient(a.dram_bytes, b.dram_bytes) for a, b in pairs]),
        points=n,
    )


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.nan


def published(name: str) -> list[dict[str, Any]]:
    """A table of published figures; lines that start with ``#`` cite their source."""
    return [{**row, "value": float(row["value"])} for row in _rows(name)]


def published_points(name: str) -> list[PublishedPoint]:
    """A table of published figures with a column for each quantity; empty cells are no figures."""
    keys = ("mapping", "workload", "seq")
    return [
        PublishedPoint(row["mapping"], row["workload"], parse_size(row["seq"], "a length", Where()), q, float(value))
        for row in _rows(name)
        for q, value in row.items()
        if q not in keys and value
    ]


def _rows(name: str) -> list[dict[str, str]]:
    path: Path = published_dir() / f"{name}.csv"
    lines = [x for x in path.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    return list(csv.DictReader(lines))
