"""The waterfall of a simulation as SVG: one lane for each unit and level, coloured by Einsum, waits hatched."""

from __future__ import annotations

from html import escape

from fusemodel.quantities import count, percent, seconds, tokens
from fusemodel.report.draw.results import bars, table
from fusemodel.report.draw.svg import PALE, SERIES, Canvas, width_of
from fusemodel.simulate.result import Simulation
from fusemodel.simulate.window import Span, Window

_LEFT, _WIDTH, _LANE, _TOP = 96, 860, 44, 34
_LOAD, _STORE = "#8a939d", "#cfd5db"
#: Spans drawn at most, so that a page stays small.
_MOST = 1200


def waterfall_svg(window: Window, title: str = "") -> str:
    """What units and levels do over cycles; what is too short to be seen is a line. It says which part of the run it
    is."""
    spans = window.spans[:_MOST]
    begin = window.begin_cycles
    end = max((s.end_cycles for s in spans), default=begin) or 1.0
    scale = _WIDTH / max(end - begin, 1e-9)
    names = list(dict.fromkeys(s.name for s in window.spans if s.kind == "einsum"))
    colours = {n: (*SERIES, *PALE)[i % 20] for i, n in enumerate(names)}
    canvas = Canvas()
    canvas.hatched()
    canvas.text(4, 16, title or window.group, 12, bold=True)
    canvas.text(_LEFT + _WIDTH, 16, window.what + ("" if len(spans) == len(window.spans) else ", cut off"), 11,
                anchor="end")  # fmt: skip
    rows = {lane: _TOP + i * _LANE for i, lane in enumerate(window.lanes)}
    for lane, y in rows.items():
        canvas.text(_LEFT - 8, y + _LANE / 2, lane, 11, anchor="end", mono=True)
    for span in sorted(spans, key=lambda s: s.kind != "wait"):
        x, width = _LEFT + (span.begin_cycles - begin) * scale, (span.end_cycles - span.begin_cycles) * scale
        _span(canvas, span, x, width, rows[span.lane], colours)
    bottom = _TOP + _LANE * len(rows)
    for i in range(6):
        canvas.text(_LEFT + _WIDTH * i / 5, bottom + 12, f"{begin + (end - begin) * i / 5:,.0f}", 10, anchor="middle")
    x, y = float(_LEFT), bottom + 26
    for name, fill in {**colours, "load": _LOAD, "store": _STORE, "wait": "url(#wait)"}.items():
        if x + width_of(name, 11) + 30 > _LEFT + _WIDTH:
            x, y = float(_LEFT), y + 18
        canvas.box(x, y, 12, 12, fill, radius=2)
        canvas.text(x + 17, y + 10, name, 11)
        x += width_of(name, 11) + 32
    return canvas.drawing(_LEFT + _WIDTH + 40, y + 22, f"{title or window.group}: {window.what}")


def _span(canvas: Canvas, span: Span, x: float, width: float, y: float, colours: dict[str, str]) -> None:
    fill = {"load": _LOAD, "store": _STORE, "wait": "url(#wait)"}.get(span.kind) or colours[span.name]
    tip = f"{'wait: ' * (span.kind == 'wait')}{span.name}, cycles {span.begin_cycles:,.1f} to {span.end_cycles:,.1f}"
    canvas.box(x, y + 4, max(width, 0.6), _LANE - 12, fill, "#ffffff" if width > 3 else "none", radius=1, tip=tip)
    if width > width_of(span.name, 9) + 2:
        canvas.text(x + width / 2, y + _LANE / 2, span.name, 9, anchor="middle")


def simulation_html(found: Simulation) -> str:
    """Cycles against the closed form, what each unit waits for, and the waterfall of the longest group."""
    head = f"{found.mapping}: {found.cascade} on {found.arch}"
    if found.workload or found.seq:
        head += f" ({', '.join(filter(None, [found.workload, tokens(found.seq) + ' tokens' if found.seq else '']))})"
    more = found.cycles / found.closed_form_cycles - 1 if found.closed_form_cycles else 0.0
    totals = [
        ("simulated", f"{found.cycles:,.0f} cycles, {seconds(found.latency_s)}"),
        ("closed form", f"{found.closed_form_cycles:,.0f} cycles ({more:+.2%} in the simulation)"),
        ("schedule", found.schedule),
        ("tasks", f"{count(found.tasks)}, of which {count(found.simulated)} were run one by one"),
        *((f"utilisation {u}", percent(v)) for u, v in found.utilization.items()),
        *(("note", n) for n in found.notes),
    ]  # fmt: skip
    time = {
        unit: {
            "busy": found.busy[unit],
            **{f"waits: {r}": v / found.cycles for r, v in waits.items() if v >= 1e-3 * found.cycles},
        }
        for unit, waits in found.stalls.items()
        if found.cycles
    }
    return (
        f"<h4>{escape(head)}</h4>"
        + table([], totals)
        + bars("part of the time in which each unit works, and what it waits for", time)
        + found._repr_svg_()
    )


__all__ = ["simulation_html", "waterfall_svg"]
