"""The figures of a comparison, ready for a paper: ours as bars, published figures as marks on them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusemodel.model import Evaluation
from fusemodel.quantities import tokens
from fusemodel.report.areas import area_latency_figure
from fusemodel.report.compare import Comparison, Section

#: Colours that are told apart by eyes of every kind (Okabe and Ito), and in print by their lightness.
_COLOURS = (
    "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999", "#44AA99", "#882255",
    "#DDCC77", "#332288",
)  # fmt: skip
_HATCHES = ("", "//", "..", "xx")
_PANEL = (2.6, 2.0)  # inches


@dataclass(frozen=True)
class Bars:
    """A quantity of some designs at the points of one workload: ours, and published where known (else NaN)."""

    name: str
    ours: Sequence[float]
    published: Sequence[float]


def figures(found: Comparison) -> Iterator[tuple[str, Figure]]:
    """Every figure of a comparison with its name: for each section, utilisation of every unit, the share of each Einsum
    in the time of its unit for the design judged, and speed-up and energy against each baseline; and where there is a
    space of architectures, area against latency."""
    for i, section in enumerate(found.judged):
        suffix = "" if i == 0 else "-" + (re.sub(r"\W+", "-", section.title.lower()).strip("-") or str(i))
        yield f"utilization{suffix}", _utilization(found, section)
        yield f"active{suffix}", _active(found, section)
        yield f"speedup{suffix}", _ratios(found, section, "latency_s", "speed-up", lambda ours, theirs: theirs / ours)
        if all(r.energy_j for m in section.mappings for r in found.at(m)):
            yield f"energy{suffix}", _ratios(found, section, "energy_j", "energy", lambda ours, theirs: ours / theirs)
    if found.request.space:
        yield "area", area_latency_figure(found, found.request.space, found.request.areas)


def _by_workload(rows: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    grouped: dict[str, list[Evaluation]] = {}
    for r in rows:
        grouped.setdefault(r.workload or "", []).append(r)
    return grouped


def _known(found: Comparison, quantity: str) -> dict[tuple[str, str, int | None], float]:
    return {(p.mapping, p.workload, p.seq): p.value for p in found.points if p.quantity == quantity}


def _ratios(
    found: Comparison, section: Section, quantity: str, title: str, quotient: Callable[[float, float], float]
) -> Figure:
    """One panel a workload, one bar a baseline and length."""
    known = _known(found, quantity)
    ours = _by_workload(found.at(section.subject))
    figure, axes = _panels(1, len(ours))
    for ax, (workload, rows) in zip(axes[0], ours.items(), strict=True):
        bars = []
        for baseline in section.baselines:
            theirs = _by_workload(found.at(baseline))[workload]
            values = [quotient(getattr(a, quantity), getattr(b, quantity)) for a, b in zip(rows, theirs, strict=True)]
            pairs = [[known.get((r.mapping, workload, r.seq), np.nan) for r in pair]
                     for pair in zip(rows, theirs, strict=True)]  # fmt: skip
            bars.append(Bars(baseline, values, [quotient(a, b) for a, b in pairs]))
        _grouped(ax, [tokens(r.seq) for r in rows], bars)
        ax.axhline(1, color="black", lw=0.6)
        ax.set_title(workload, fontsize=9)
    what = f"{title} of {section.subject}" + (" over" if title == "speed-up" else " as a part of")
    axes[0, 0].set_ylabel(title, fontsize=8)
    return _finished(figure, axes, f"{section.title}: {what} each baseline")


def _utilization(found: Comparison, section: Section) -> Figure:
    """One row a unit, one panel a workload, one bar a design and length."""
    every = [r for m in (section.subject, *section.baselines) for r in found.at(m)]
    units = list(dict.fromkeys(u for r in every for u in r.utilization if any(x.utilization.get(u) for x in every)))
    workloads = list(_by_workload(found.at(section.subject)))
    figure, axes = _panels(len(units), len(workloads))
    for row, unit in zip(axes, units, strict=True):
        known = _known(found, f"utilization.{unit}")
        for ax, workload in zip(row, workloads, strict=True):
            lengths: list[str] = []
            bars = []
            for design in section.mappings:
                rows = _by_workload(found.at(design))[workload]
                lengths = [tokens(r.seq) for r in rows]
                bars.append(Bars(design, [r.utilization.get(unit, np.nan) for r in rows],
                                 [known.get((design, workload, r.seq), np.nan) for r in rows]))  # fmt: skip
            _grouped(ax, lengths, bars)
            ax.set_ylim(0, 1.05)
            ax.set_title(workload, fontsize=9)
        row[0].set_ylabel(f"utilisation of\n{unit}", fontsize=8)
    return _finished(figure, axes, f"{section.title}: utilisation")


def _active(found: Comparison, section: Section) -> Figure:
    """One row a unit, one panel a workload: the part of the latency in which the unit works on each Einsum."""
    grouped = _by_workload(found.at(section.subject))
    units = [u for u in found.at(section.subject)[0].busy if any(r.busy[u] for rows in grouped.values() for r in rows)]
    figure, axes = _panels(len(units), len(grouped))
    for row, unit in zip(axes, units, strict=True):
        for ax, (workload, rows) in zip(row, grouped.items(), strict=True):
            names = list(dict.fromkeys(e.name for r in rows for e in r.einsums if e.unit == unit))
            base = np.zeros(len(rows))
            for k, name in enumerate(names):
                spent = [r.active(unit).get(name, 0.0) for r in rows]
                ax.bar(range(len(rows)), spent, bottom=base, label=name, **_look(k))
                base += spent
            _ticks(ax, [tokens(r.seq) for r in rows])
            ax.set_title(workload, fontsize=9)
        row[0].set_ylabel(f"active share of\n{unit}", fontsize=8)
        row[-1].legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _named(axes)
    figure.suptitle(f"{section.title}: {section.subject} by Einsum", fontsize=10)
    return figure


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(_PANEL[0] * max(columns, 2), _PANEL[1] * rows + 0.8), layout="constrained")
    return figure, figure.subplots(rows, columns, sharey="row", squeeze=False)


def _grouped(ax: Axes, lengths: Sequence[str], bars: Sequence[Bars]) -> None:
    width = 0.8 / len(bars)
    at = np.arange(len(lengths))
    for k, b in enumerate(bars):
        where = at + (k - (len(bars) - 1) / 2) * width
        ax.bar(where, b.ours, width, label=b.name, **_look(k))
        ax.plot(where, b.published, "kx", ms=4, mew=1.2, label="published" if not np.isnan(b.published).all() else None)
    _ticks(ax, lengths)


def _look(k: int) -> dict[str, Any]:
    hatch = _HATCHES[k // len(_COLOURS) % len(_HATCHES)]
    return {"color": _COLOURS[k % len(_COLOURS)], "hatch": hatch, "edgecolor": "white", "linewidth": 0.3}


def _ticks(ax: Axes, lengths: Sequence[str]) -> None:
    ax.set_xticks(range(len(lengths)), lengths, fontsize=7)
    ax.set_xlim(-0.5, len(lengths) - 0.5)  # also where some designs have no bar
    ax.tick_params(axis="y", labelsize=7)
    ax.grid(axis="y", alpha=0.25, lw=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _named(axes: np.ndarray) -> None:
    """What is along the panels of the last row, where it is lengths."""
    for ax in axes[-1]:
        if any(t.get_text() != "-" for t in ax.get_xticklabels()):
            ax.set_xlabel("tokens", fontsize=7)


def _finished(figure: Figure, axes: np.ndarray, title: str) -> Figure:
    """A title, and one legend for all panels."""
    _named(axes)
    entries: dict[str, Any] = {}
    for ax in axes.flat:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    entries = {n: h for n, h in entries.items() if n != "published"} | (
        {"published": entries["published"]} if "published" in entries else {}
    )
    across = max(2, int(figure.get_figwidth() / 1.4))
    rows = math.ceil(len(entries) / across)
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", fontsize=7, frameon=False,
                  ncols=math.ceil(len(entries) / rows))  # fmt: skip
    figure.suptitle(title, fontsize=10)
    return figure
