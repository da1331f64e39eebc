"""Area against latency: the mappings of a comparison on every architecture of a space, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusemodel.api import is_cascade
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError
from fusemodel.explore.designs import nondominated
from fusemodel.explore.space import Machine, Space, load_space
from fusemodel.mapping import Design, load_design
from fusemodel.mapping.load import build_design
from fusemodel.model import Evaluation, evaluate
from fusemodel.quantities import tokens
from fusemodel.report.compare import Comparison, table_rows
from fusemodel.yamlfile import read_yaml

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#999999")
_MARKS = "os^Dv<>P"


@dataclass(frozen=True)
class Sized:
    """A mapping on one architecture of a space, for one workload and length."""

    mapping: str
    machine: Machine
    found: Evaluation


@dataclass(frozen=True)
class Curve:
    """A mapping for one workload and length over the architectures of a space, smallest first: those on which it can
    run, and of them those that no smaller one is as fast as."""

    name: str
    every: tuple[Sized, ...]

    @property
    def front(self) -> list[Sized]:
        rows = [(s.machine.area_mm2, s.found.latency_s) for s in self.every]
        return [self.every[i] for i in nondominated(rows)]


def curves(found: Comparison, space: Space) -> list[Curve]:
    """The mappings of the first section on the architectures of a space, for its workloads and lengths: those made for
    the architecture that is varied, or all if none is. InputError if not one runs on any."""
    names = [found.given[m] for m in reversed(found.judged[0].mappings)]
    given = [load_design(n) for n in names if not is_cascade(n)]
    base = space.machines[0].arch.name
    chosen = [d for d in given if d.arch.name == base] or given
    workloads = [load_workload(w) for w in space.workloads] or [None]
    made: dict[str, list[Sized]] = {}
    reasons: list[str] = []
    for design in chosen:
        for sized in _sized(design, space.machines, reasons):
            for workload in workloads:
                for seq in space.seqs or (None,):
                    try:
                        at = evaluate(sized[0], workload, seq, sized[2])
                    except InputError as error:
                        reasons.append(str(error))
                        continue
                    where = ", ".join(filter(None, [at.workload, f"{tokens(seq)} tokens" if seq else ""]))
                    name = f"{design.name} ({where})" if where else design.name
                    made.setdefault(name, []).append(Sized(design.name, sized[1], at))
    if not made:
        why = reasons[0] if reasons else "there are only cascades, which `explore --arch-space` maps"
        raise InputError(f"no mapping runs on any architecture of {space.name!r}: {why}")
    return [Curve(name, tuple(rows)) for name, rows in made.items()]


def _sized(
    design: Design, machines: Sequence[Machine], reasons: list[str]
) -> Iterator[tuple[Design, Machine, dict[str, Any]]]:
    """A design on each architecture, with the sizes of ranks and tiles that follow the architecture."""
    doc = read_yaml(design.file)
    for machine in machines:
        try:
            moved = build_design(doc, machine.arch)
        except InputError as error:
            reasons.append(str(error))
            continue
        tiles = {p for c in moved.groups for g in c.groups for ps in g.parts.values() for p in ps}
        yield moved, machine, {r: n for r, n in machine.extents.items() if r in moved.cascade.ranks or r in tiles}


def area_latency_figure(found: Comparison, space: str, published: str = "") -> Figure:
    """Latency against area, both logarithmic: each architecture a dot, the best of each area a line, and published
    figures as crosses."""
    drawn = load_space(space)
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    made = curves(found, drawn)
    for k, curve in enumerate(made):
        colour, mark = _COLOURS[k % len(_COLOURS)], _MARKS[k % len(_MARKS)]
        every, best = _drawn(curve.every), _drawn(curve.front)
        axes.plot(*every, color=colour, marker=mark, ls="", ms=3, alpha=0.3)
        axes.plot(*best, color=colour, marker=mark, ms=5, label=curve.name)
    _published(axes, made, published)
    axes.set(xscale="log", yscale="log", xlabel="area (mm$^2$)", ylabel="latency (s)")
    axes.grid(which="major", alpha=0.25, lw=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    figure.suptitle(f"Area against latency: {drawn.name}", fontsize=10)
    return figure


def _drawn(rows: Sequence[Sized]) -> tuple[list[float], list[float]]:
    """Areas and latencies."""
    return [s.machine.area_mm2 for s in rows], [s.found.latency_s for s in rows]


def _published(axes: Axes, made: Sequence[Curve], table: str) -> None:
    """Published figures of what is drawn, as crosses."""
    shown = {(s.mapping, s.found.workload or "", tokens(s.found.seq)) for c in made for s in c.every}
    rows = [r for r in known_areas(table) if (r["mapping"], r["workload"], r["seq"]) in shown]
    if rows:
        axes.plot([float(r["area_mm2"]) for r in rows], [float(r["latency_s"]) for r in rows], "kx", ms=6, mew=1.5,
                  label="published")  # fmt: skip


def known_areas(table: str) -> Sequence[Mapping[str, str]]:
    """A table of published areas and latencies of mappings; none without a name."""
    return table_rows(table) if table else []
