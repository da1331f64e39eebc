"""What a search or a sweep found: for people, as data, as a picture; and how far it is."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from fusemodel.explore.front import FIELDS, Design, best, designs, front
from fusemodel.explore.sweep import Progress as Far
from fusemodel.explore.sweep import Row, Sweep
from fusemodel.quantities import count, joules, seconds, size, tokens
from fusemodel.report.plain import PlainTable

_SHOWN = 40  # designs of a front in a table
_WRITTEN = {
    "latency_s": seconds, "energy_j": joules, "edp_js": lambda v: f"{v:.4g} J s", "dram_bytes": size,
    "buffer_bytes": size,
}  # fmt: skip
_TITLES = {"latency_s": "latency", "energy_j": "energy", "edp_js": "EDP", "dram_bytes": "DRAM", "buffer_bytes": "kept"}


def sweep_data(found: Sweep) -> dict[str, Any]:
    """A sweep as plain data: ``designs`` with their rows, those on the ``front`` of area and the objectives, the
    ``best`` by the first objective, and what was searched for it."""
    every = designs(found)
    chosen = best(every, found.space.objectives[0])
    results = [r.result for r in found.rows if r.result is not None]
    fresh = [r.result for r in found.rows if r.result is not None and not r.kept]
    return {
        "best": _design(chosen) if chosen else None,
        "front": [_design(d) for d in front(every, found.space.objectives)],
        "evaluated": sum(r.get("evaluated", 0) for r in fresh), "space": sum(r.get("space", 0) for r in results),
        "seconds": found.seconds, "name": found.space.name, "objectives": list(found.space.objectives),
        "points": len(found.space.points), "left_out": found.space.left_out, "rows": len(found.rows),
        "done": len(results), "kept": sum(r.kept for r in found.rows), "ended": found.ended,
        "proven": bool(results) and all(r.get("complete") for r in results), "designs": [_design(d) for d in every],
        "failed": [
            {**_row(r), "values": dict(r.point.values), "cascade": r.cascade}
            for r in found.rows if r.result is not None and "error" in r.result
        ],
    }  # fmt: skip


def _design(d: Design) -> dict[str, Any]:
    mapping = (d.rows[0].result or {}).get("mapping")
    return {
        "values": dict(d.point.values), "cascade": d.cascade, "area_mm2": d.area_mm2, **d.numbers, "mapping": mapping,
        "rows": [_row(r) for r in d.rows],
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {"workload": row.workload, "seq": row.seq, "kept": row.kept, **(row.result or {})}


def sweep_table(found: Sweep) -> str:
    """Every finished row as CSV: the values of the point, what it was mapped for, area and totals."""
    out = StringIO()
    columns = [*found.space.variables, "cascade", "workload", "seq", "area_mm2", *FIELDS.values(), "bound", "error"]
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in found.rows:
        if row.result is not None:
            about = {"cascade": row.cascade, "area_mm2": row.point.area_mm2}
            writer.writerow({**row.point.values, **about, **_row(row)})
    return out.getvalue()


def sweep_report(found: Sweep) -> RenderableType:
    """The front as a table, and what was done for it."""
    space, every = found.space, designs(found)
    chosen = front(every, space.objectives)
    wanted = list(dict.fromkeys([*(FIELDS[o] for o in space.objectives), "latency_s", "energy_j", "dram_bytes"]))
    several = len(space.cascades) > 1
    table = PlainTable(
        *space.variables, *(["cascade"] if several else []), "area", *(_TITLES[n] for n in wanted), "bound",
        title=f"{space.name}: the best of area and {', '.join(space.objectives)}",
    )  # fmt: skip
    for column in table.columns[: len(space.variables)]:
        column.overflow = "fold"
    for d in chosen[:_SHOWN]:
        values = [f"{v:g}" if isinstance(v, float) else str(v) for v in d.point.values.values()]
        bounds = ", ".join(dict.fromkeys(str((r.result or {})["bound"]) for r in d.rows))
        table.add_row(
            *values, *([d.cascade] if several else []), f"{d.area_mm2:.4g} mm^2",
            *(_WRITTEN[n](d.numbers[n]) for n in wanted), bounds,
        )  # fmt: skip
    parts: list[RenderableType] = [table, Text("")]
    if len(chosen) > _SHOWN:
        parts.insert(1, Text(f"... and {len(chosen) - _SHOWN} more (--out FILE.csv has all)", style="dim"))
    parts.append(_for_what(found))
    return Group(*parts, *_done(found, every))


def _for_what(found: Sweep) -> Text:
    space = found.space
    loads = [" ".join(filter(None, [w, s])) for w in space.workloads or ("",)
             for s in ([f"{tokens(n)} tokens" for n in space.seqs] or [""])]  # fmt: skip
    text = ", ".join(x for x in loads if x) or "the cascade's own extents"
    return Text(f"For {text}" + (" (geometric means)." if len(loads) > 1 else "."), style="dim")


def _done(found: Sweep, every: Sequence[Design]) -> list[Text]:
    failed = [r for r in found.rows if r.result is not None and "error" in r.result]
    kept, done = sum(r.kept for r in found.rows), sum(r.result is not None for r in found.rows)
    text = f"{done} of {len(found.rows)} mapped"
    text += f" ({kept} of them before)" if kept else ""
    text += f" in {found.seconds:.1f} s; {len(every)} designs"
    text += f", {found.space.left_out} points left out by the file's conditions" if found.space.left_out else ""
    lines = [Text(text + ".", style="dim")]
    if failed:
        lines.append(Text(f"No mapping at {len(failed)}; the first: {(failed[0].result or {})['error']}", "yellow"))
    if any(not r.result.get("complete") for r in found.done if r.result):
        lines.append(Text("Some searches were ended by a limit; their bounds are in --json.", style="yellow"))
    if found.ended and not found.error:
        lines.append(Text("Interrupted; the same command goes on from here.", style="yellow"))
    return lines


@contextmanager
def sweep_progress(objective: str, *, show: bool) -> Iterator[Callable[[Far, Sequence[Row]], None]]:
    """A bar with the rate, the best so far and the time left, on standard error."""
    number = FIELDS[objective]
    with Progress(
        TextColumn("mapping"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[best]}"),
        console=Console(stderr=True), transient=True, disable=not show,
    ) as bar:  # fmt: skip
        task = bar.add_task("mapping", total=None, rate="", best="")
        least: list[float] = []

        def tell(far: Far, rows: Sequence[Row]) -> None:
            least[:] = [min([*least, *(r.result[number] for r in rows if r.result and "error" not in r.result)])][:1]
            spent = bar.tasks[0].elapsed or 0.0
            rate = f"{far.new / spent:.1f}/s" if far.new and spent else ""
            shown = f"best {_WRITTEN[number](least[0])}" if least else ""
            bar.update(task, total=far.total, completed=far.done, rate=rate, best=shown)

        yield tell


def area_figure(found: Sweep, *, title: str = "") -> Figure:
    """Area against latency and against energy: every design, and in each the line of those that none is better than."""
    every = designs(found)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, objective in zip(figure.subplots(1, 2), ("latency", "energy"), strict=True):
        number = FIELDS[objective]
        for i, cascade in enumerate(found.space.cascades):
            own = [d for d in every if d.cascade == cascade]
            line = front(own, [objective])
            axes.plot([d.area_mm2 for d in own], [d.numbers[number] for d in own], "o", ms=3, alpha=0.35, color=f"C{i}")
            axes.plot(
                [d.area_mm2 for d in line], [d.numbers[number] for d in line], "o-", ms=5, color=f"C{i}", label=cascade
            )
        axes.set(
            xscale="log", yscale="log", xlabel="area (mm$^2$)",
            ylabel="latency (s)" if objective == "latency" else "energy (J)",
        )  # fmt: skip
        axes.grid(which="both", alpha=0.2)
        if every:
            axes.legend(fontsize=8, frameon=False, title="not dominated")
    figure.suptitle(title or found.space.name)
    return figure




__all__ = ["area_figure", "sweep_data", "sweep_progress", "sweep_report", "sweep_table"]
