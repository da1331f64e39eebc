"""What a page is made of: words, tables, drawings and the numbers of its plots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fusemodel.arch import Architecture
from fusemodel.cascade import Cascade


@dataclass(frozen=True)
class Known:
    """A design of the comparison, loaded: where it came from."""

    name: str
    about: str
    source: str
    cascade: Cascade
    arch: Architecture
    files: tuple[str, ...]


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
class MachineNote:
    """An architecture in words: what computes and what stores."""

    name: str
    about: str
    parts: str


@dataclass(frozen=True)
class CascadeNote:
    """A cascade: its equations, passes and bounds."""

    name: str
    about: str
    equations: str
    ranks: str
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
    """A section of the comparison. ``behind`` are the tables of the plots of time and energy."""

    title: str
    id: str
    subject: str
    headlines: tuple[Headline, ...]
    why: str
    means: Table
    ratios: Table
    every: Table
    behind: tuple[Table, ...]


@dataclass(frozen=True)
class Page:
    """Everything on the page. ``data`` is what the plots are drawn from."""

    title: str
    about: str
    source: str
    lead: str
    sections: tuple[SectionContent, ...]
    designs: tuple[DesignNote, ...]
    machines: tuple[MachineNote, ...]
    passes: Table
    cascades: tuple[CascadeNote, ...]
    published: Table | None
    agreement: str
    notes: tuple[str, ...]
    command: str
    versions: tuple[str, ...]
    files: tuple[InputFile, ...]
    data: dict[str, Any] = field(default_factory=dict)
    waterfalls: tuple[Waterfall, ...] = ()
