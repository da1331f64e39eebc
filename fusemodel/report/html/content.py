"""What the page says, gathered from a comparison: words, tables, drawings, and the numbers the plots are drawn from."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from fusemodel import __version__
from fusemodel.api import is_cascade
from fusemodel.arch import load_architecture
from fusemodel.cascade import load_cascade
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError
from fusemodel.library import find, root
from fusemodel.mapping import load_design
from fusemodel.quantities import tokens
from fusemodel.report.compare import Comparison, Section
from fusemodel.report.figures import svg_text
from fusemodel.report.html import numbers, words
from fusemodel.report.html.algorithms import algorithms
from fusemodel.report.html.parts import DesignNote, InputFile, Known, Page, SectionContent, Waterfall
from fusemodel.report.html.plots import plot_data
from fusemodel.report.waterfall import waterfall
from fusemodel.simulate.run import machines
from fusemodel.simulate.window import record, window_of

_TASKS = 150  # of a waterfall


def content(found: Comparison, command: str) -> Page:
    """Gather the page of a comparison that ``command`` made."""
    known = {name: _known(name, given, found.request.arch) for name, given in found.given.items()}
    first = found.judged[0]
    others = first.baselines if len(first.baselines) < 3 else (first.baselines[0], "others")
    passes, notes = algorithms(known, found)
    return Page(
        title=f"{first.subject} against {' and '.join(others)}",
        about=found.request.about,
        source=found.request.source,
        lead=words.lead(found),
        sections=tuple(_section(found, i, s) for i, s in enumerate(found.judged)),
        designs=tuple(
            DesignNote(k.name, k.about, k.source, k.cascade.name, k.arch.name, words.waits(found.at(n)))
            for n, k in known.items()
        ),
        machines=tuple({k.arch.name: words.machine(k.arch) for k in known.values()}.values()),
        passes=passes,
        cascades=notes,
        published=numbers.published(found),
        agreement=numbers.agreement(found),
        notes=tuple(dict.fromkeys(f"{r.mapping}: {n}" for r in found.rows for n in r.notes)),
        command=command,
        versions=(
            f"fusemodel {__version__}", f"Python {platform.python_version()}", f"NumPy {version('numpy')}",
        ),
        files=tuple(_files(known, found)),
        data=plot_data(found, known),
        waterfalls=tuple(_waterfalls(found)),
    )  # fmt: skip


def _known(name: str, given: str, arch: str | None) -> Known:
    if is_cascade(given):
        cascade, machine = load_cascade(given), load_architecture(arch or "")
        about = f"{cascade.about}; mapped by fusemodel at every point"
        return Known(name, about, cascade.source, cascade, machine, (cascade.file, machine.file))
    design = load_design(given, arch=arch)
    about, source = (" ".join(t.split()) for t in (design.about, design.source))
    files = dict.fromkeys([*design.files, design.cascade.file, design.arch.file])
    return Known(name, about, source, design.cascade, design.arch, tuple(f for f in files if f))


def _section(found: Comparison, i: int, section: Section) -> SectionContent:
    return SectionContent(
        title=section.title,
        id=f"section-{i}",
        subject=section.subject,
        headlines=tuple(words.headline(found, section, b) for b in section.baselines),
        why=words.why(found, section),
        means=numbers.means(found, section),
        ratios=numbers.ratios(found, section),
        every=numbers.every(found, section),
        behind=numbers.behind(found, section),
    )


def _files(known: Mapping[str, Known], found: Comparison) -> list[InputFile]:
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
            drawn = waterfall(window_of(machine, record(machine, _TASKS)))
        except InputError:
            continue
        where = f"{at.workload or 'its own extents'}" + (f", {tokens(at.seq)} tokens" if at.seq else "")
        yield Waterfall(f"The first {_TASKS} tasks of {name} ({where})", svg_text(drawn, name))
