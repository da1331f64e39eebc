"""Evaluations and comparisons as HTML for notebooks: numbers in tables, shares as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fusemodel.model import Evaluation
from fusemodel.quantities import count, joules, percent, seconds, size, tokens
from fusemodel.report.compare import Comparison
from fusemodel.report.draw.svg import SERIES, Canvas, width_of

_BAR, _LABEL, _ROW = 460, 120, 26


def evaluation_html(found: Evaluation) -> str:
    """Totals, the time of each unit by Einsum, the energy by component, and traffic by level."""
    head = f"{found.mapping}: {found.cascade} on {found.arch}"
    if found.workload or found.seq:
        head += f" ({', '.join(filter(None, [found.workload, tokens(found.seq) + ' tokens' if found.seq else '']))})"
    totals = [
        ("latency", f"{seconds(found.latency_s)} ({count(found.cycles)} cycles)"), ("energy", joules(found.energy_j)),
        ("off-chip traffic", size(found.dram_bytes)),
        *((f"utilisation {u}", percent(v)) for u, v in found.utilization.items()), ("bound by", found.bound),
        *(("note", n) for n in found.notes),
    ]  # fmt: skip
    time = {unit: found.active(unit) for unit in found.busy if found.cycles}
    energy = {"energy": {k: v / found.energy_j for k, v in found.energy_breakdown_j.items()}} if found.energy_j else {}
    moved = {
        level: size(sum(t["read"] + t["write"] for t in tensors.values()))
        for level, tensors in found.traffic_bytes.items()
    }
    return (
        f"<h4>{escape(head)}</h4>"
        + table([], [*totals, *((f"traffic of {level}", n) for level, n in moved.items())])
        + bars("part of the latency in which each unit works, by Einsum", time)
        + bars("energy by component", energy)
    )


def comparison_html(found: Comparison) -> str:
    """For each section, the means of the ratios over all points."""
    parts = []
    for section in found.judged:
        rows = []
        for baseline in section.baselines:
            r = found.against(section.subject, baseline)
            rows.append((
                baseline, f"{r.speedup:.2f}x", f"{r.speedup_min:.2f} to {r.speedup_max:.2f}", f"{r.energy:.3f}",
                f"{r.dram_bytes:.3g}",
            ))  # fmt: skip
        head = ("against", "speed-up", "least to most", "energy", "off-chip traffic")
        points = len(found.at(section.subject))
        title = f"{section.title}: {section.subject}, means of {points} points"
        parts.append(f"<h4>{escape(title)}</h4>" + table(head, rows))
    return "".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its numbers to the right."""
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:{"left" if i == 0 else "right"}">{escape(c)}</td>'
                         for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )  # fmt: skip
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def bars(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """One bar a row, of parts that add up to at most one, as SVG."""
    if not rows:
        return ""
    canvas = Canvas()
    names = list(dict.fromkeys(n for parts in rows.values() for n in parts))
    colour = {n: SERIES[i % len(SERIES)] for i, n in enumerate(names)}
    canvas.text(4, 16, title, 12, bold=True)
    y = 26.0
    for row, parts in rows.items():
        canvas.text(_LABEL - 6, y + 14, row, 11, anchor="end")
        canvas.box(_LABEL, y, _BAR, 18, "#f0f2f4", "#d5dae0", radius=0)
        x = float(_LABEL)
        for name, part in parts.items():
            canvas.box(x, y, part * _BAR, 18, colour[name], "#ffffff", radius=0, tip=f"{name}: {part:.1%}")
            x += part * _BAR
        canvas.text(_LABEL + _BAR + 6, y + 14, percent(sum(parts.values())), 11)
        y += _ROW
    x = float(_LABEL)
    for name in names:
        wide = 24 + width_of(name, 10)
        if x + wide > _LABEL + _BAR:
            x, y = float(_LABEL), y + 18
        canvas.box(x, y, 11, 11, colour[name], "#ffffff", radius=2)
        canvas.text(x + 15, y + 10, name, 10)
        x += wide
    return canvas.drawing(_LABEL + _BAR + 60, y + 22, title)
