"""The waterfall of a simulation: one lane for each unit and level, coloured by Einsum, stalls hatched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusemodel.simulate.machine import Machine
from fusemodel.simulate.stepwise import Task
from fusemodel.simulate.tasks import REASONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def waterfall(machine: Machine, records: Sequence[Task], *, title: str = "") -> Figure:
    """Recorded tasks over cycles. In a notebook the figure shows itself."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    tasks = machine.tasks
    lanes = [*tasks.units, *tasks.levels]
    names = [a.name for a in tasks.actors if a.unit >= 0]
    colours = {n: colormaps["tab20"](i % 20) for i, n in enumerate(names)}
    figure = Figure(figsize=(12, 1.2 + 0.7 * len(lanes)), layout="constrained")
    axes = figure.subplots()
    scale = machine.ticks_per_cycle
    for t in records:
        actor = tasks.actors[t.actor]
        begin, length = t.begin / scale, (t.end - t.begin) / scale
        if actor.unit >= 0:
            axes.broken_barh([(begin, length)], (actor.unit - 0.4, 0.8), facecolors=colours[actor.name])
            if t.waited:
                axes.broken_barh([((t.issued - t.waited) / scale, t.waited / scale)], (actor.unit - 0.4, 0.8),
                                 facecolors="white", edgecolors="0.6", hatch="////", linewidth=0)  # fmt: skip
                if t.waited > 0.03 * records[-1].end:
                    middle = (t.issued - t.waited / 2) / scale
                    axes.text(middle, actor.unit, REASONS[t.reason], ha="center", va="center", fontsize=7)
        else:
            for level in actor.shares:
                axes.broken_barh([(begin, length)], (len(tasks.units) + tasks.levels.index(level) - 0.3, 0.6),
                                 facecolors="0.55" if actor.kind == "load" else "0.8")  # fmt: skip
    axes.set_yticks(range(len(lanes)), lanes)
    axes.invert_yaxis()
    axes.set_xlabel("cycles")
    axes.set_title(title or tasks.name, loc="left", fontsize=10)
    present = {tasks.actors[t.actor].name for t in records}
    handles = [Patch(color=colours[n], label=n) for n in names if n in present]
    handles += [Patch(color="0.55", label="load"), Patch(color="0.8", label="store")]
    handles.append(Patch(facecolor="white", edgecolor="0.6", hatch="////", label="wait"))
    figure.legend(handles=handles, loc="outside right upper", fontsize=7, frameon=False)
    return figure
