"""Comparing designs over workloads and lengths: evaluations, and means of their ratios."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from fusemodel.api import evaluate
from fusemodel.cascade.load import parse_size
from fusemodel.errors import NOWHERE, InputError, Where, unknown
from fusemodel.library import find, published_dir
from fusemodel.model import Evaluation
from fusemodel.yamlfile import Document, check_fields, read_yaml

#: What designs are ranked by, least first.
MEASURES = ("latency_s", "energy_j", "dram_bytes")


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
class Ranking:
    """Designs to put in order at every point, each with what it is in words."""

    title: str
    designs: Mapping[str, str]


@dataclass(frozen=True)
class Request:
    """What to compare: mappings, or cascades that are mapped onto ``arch`` at every point. Without workloads or
    lengths, each cascade's own extents are used."""

    sections: tuple[Section, ...]
    workloads: tuple[str, ...] = ()
    seqs: tuple[int, ...] = ()
    published: str = ""  # a table of means over all points
    points: str = ""  # a table of single points
    space: str = ""  # architectures to draw area against latency on
    areas: str = ""  # a table of such points
    arch: str | None = None
    about: str = ""
    source: str = ""
    rankings: tuple[Ranking, ...] = ()

    @property
    def designs(self) -> tuple[str, ...]:
        """All that is to be evaluated, each once."""
        ranked = (d for r in self.rankings for d in r.designs)
        return tuple(dict.fromkeys((*(m for s in self.sections for m in s.mappings), *ranked)))


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

    def against(self, subject: str, baseline: str) -> Ratio:
        """Means of the ratios of two designs over all points."""
        return ratio(self.at(subject), self.at(baseline))

    @property
    def judged(self) -> tuple[Section, ...]:
        """The sections, and each ranking as one: the fastest of its designs (by geometric mean) against the others."""
        return (*self.request.sections, *map(self._judged, self.request.rankings))

    def _judged(self, ranking: Ranking) -> Section:
        fastest = min(ranking.designs, key=lambda d: math.fsum(math.log(r.latency_s) for r in self.at(d)))
        others = tuple(d for d in ranking.designs if d != fastest)
        return Section(ranking.title, fastest, others, ranking.designs)

    def ranked(self, ranking: Ranking) -> list[dict[str, Any]]:
        """For each point the designs of a ranking by latency, energy and traffic, the least first."""
        columns = [self.at(d) for d in ranking.designs]
        return [
            {
                "title": ranking.title, "workload": point[0].workload, "seq": point[0].seq,
                **{m: [r.mapping for r in sorted(point, key=attrgetter(m))] for m in MEASURES},
            }
            for point in zip(*columns, strict=True)
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        from fusemodel.report.draw import comparison_html

        return comparison_html(self)


_TABLES = ("published", "points", "areas")
_FIELDS = ("name", "about", "source", "workloads", "seq", "sections", "rankings", "space", *_TABLES)


def load_request(name: str = "default") -> Request:
    """A comparison, by library name or path; InputError with a place for anything wrong with it."""
    doc = read_yaml(find("comparisons", name))
    data = check_fields(doc, (), doc.data, _FIELDS)
    sections = tuple(_section(doc, i, s) for i, s in enumerate(_listed(doc, "sections")))
    rankings = tuple(_ranking(doc, i, r) for i, r in enumerate(_listed(doc, "rankings")))
    if not sections and not rankings:
        raise InputError("nothing is compared", Where(doc.file, 1, 1), expected="`sections` or `rankings`")
    seqs = tuple(parse_size(s, "a length", doc.where("seq", i)) for i, s in enumerate(_listed(doc, "seq")))
    workloads = tuple(str(w) for w in _listed(doc, "workloads"))
    for i, workload in enumerate(workloads):
        find("workloads", workload, beside=doc.file, where=doc.where("workloads", i))
    text = {k: " ".join(str(data.get(k) or "").split()) for k in (*_TABLES, "about", "source")}
    for name in filter(None, (text[t] for t in _TABLES)):
        _table(name, doc.where(next(t for t in _TABLES if text[t] == name)))
    if data.get("space"):
        text["space"] = str(find("spaces", str(data["space"]), beside=doc.file, where=doc.where("space")))
    return Request(sections, workloads, seqs, rankings=rankings, **text)


def _listed(doc: Document, field: str) -> list[Any]:
    value = doc.data.get(field) or []
    if not isinstance(value, list):
        raise InputError(f"{field!r} is not a list", doc.where(field), expected="a list")
    return value


def _required(doc: Document, path: tuple[str | int, ...], raw: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    data = check_fields(doc, path, raw, fields)
    for name in fields:
        if not data.get(name):
            raise InputError(f"field {name!r} is missing or empty", doc.where(*path), expected=f"`{name}: ...`")
    return data


def _section(doc: Document, i: int, raw: Any) -> Section:
    path = ("sections", i)
    data = _required(doc, path, raw, ("title", "subject", "baselines"))
    labels = _designs(doc, (*path, "baselines"), data["baselines"])
    find("mappings", str(data["subject"]), beside=doc.file, where=doc.where(*path, "subject"))
    return Section(str(data["title"]), str(data["subject"]), tuple(labels), labels)


def _ranking(doc: Document, i: int, raw: Any) -> Ranking:
    path = ("rankings", i)
    data = _required(doc, path, raw, ("title", "designs"))
    return Ranking(str(data["title"]), _designs(doc, (*path, "designs"), data["designs"]))


def _designs(doc: Document, path: tuple[str | int, ...], raw: Any) -> dict[str, str]:
    """Mappings, each with what it is in words."""
    if not isinstance(raw, dict):
        raise InputError(f"{path[-1]!r} is not a mapping", doc.where(*path), expected="`NAME: in words`")
    for name in raw:
        find("mappings", str(name), beside=doc.file, where=doc.where_key(*path, name))
    return {str(name): str(words or "") for name, words in raw.items()}


def compare(request: Request, progress: Callable[[str], None] | None = None) -> Comparison:
    """Evaluate every design of a request at every point. ``progress`` is told of each evaluation as it ends."""
    rows: dict[str, list[Evaluation]] = {}
    points = [(w, s) for w in (request.workloads or (None,)) for s in (request.seqs or (None,))]
    names: dict[str, str] = {}
    for name in request.designs:
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
    rankings = tuple(replace(r, designs={names[d]: t for d, t in r.designs.items()}) for r in request.rankings)
    shown = replace(request, sections=sections, rankings=rankings)
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
    """NaN where one is not known: a machine whose file has no energies uses none."""
    return a / b if a and b else math.nan


def published(name: str) -> list[dict[str, Any]]:
    """A table of published means."""
    return [{**row, "value": float(row["value"])} for row in table_rows(name)]


def published_points(name: str) -> list[PublishedPoint]:
    """A table of published figures with a column for each quantity; empty cells are no figures."""
    keys = ("mapping", "workload", "seq")
    return [
        PublishedPoint(row["mapping"], row["workload"], parse_size(row["seq"], "a length", Where()), q, float(value))
        for row in table_rows(name)
        for q, value in row.items()
        if q not in keys and value
    ]


def _table(name: str, where: Where = NOWHERE) -> Path:
    """The file of a table of published figures."""
    files = {p.stem: p for p in published_dir().glob("*.csv")}
    if name not in files:
        raise unknown("table of published figures", name, files, where)
    return files[name]


def table_rows(name: str) -> list[dict[str, str]]:
    """The rows of a table of published figures; lines that start with ``#`` cite their source."""
    lines = [x for x in _table(name).read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    return list(csv.DictReader(lines))
