"""The waterfall of a simulation: one lane for each unit and level, coloured by Einsum, stalls hatched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusemodel.simulate.window import Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def waterfall(window: Window, *, title: str = "") -> Figure:
    """What units and levels do over cycles. In a notebook the figure shows itself."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import StrMethodFormatter

    rows = {lane: i for i, lane in enumerate(window.lanes)}
    names = list(dict.fromkeys(s.name for s in window.spans if s.kind == "einsum"))
    colours = {n: colormaps["tab20"](i % 20) for i, n in enumerate(names)}
    greys = {"load": "0.55", "store": "0.8"}
    figure = Figure(figsize=(12, 1.2 + 0.7 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for s in window.spans:
        y, length = rows[s.lane], s.end_cycles - s.begin_cycles
        at = [(s.begin_cycles, length)]
        if s.kind == "wait":
            axes.broken_barh(at, (y - 0.4, 0.8), facecolors="white", edgecolors="0.6", hatch="////", linewidth=0)
            if length > 0.03 * (window.end_cycles - window.begin_cycles):
                axes.text(s.begin_cycles + length / 2, y, s.name, ha="center", va="center", fontsize=7)
        elif s.kind == "einsum":
            axes.broken_barh(at, (y - 0.4, 0.8), facecolors=colours[s.name])
        else:
            axes.broken_barh(at, (y - 0.3, 0.6), facecolors=greys[s.kind])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel("cycles")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    group = title or (window.group if len(window.group) < 60 else window.group[:56].rsplit("+", 1)[0] + "+...")
    axes.set_title(f"{group}: {window.what}", loc="left", fontsize=10)
    handles = [Patch(color=c, label=n) for n, c in (*colours.items(), *greys.items())]
    handles.append(Patch(facecolor="white", edgecolor="0.6", hatch="////", label="wait"))
    figure.legend(handles=handles, loc="outside right upper", fontsize=7, frameon=False,
                  ncols=1 + (len(handles) - 1) // (6 + 4 * len(rows)), columnspacing=0.8, handlelength=1.4)  # fmt: skip
    return figure
