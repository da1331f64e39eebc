"""What a search or a sweep found: for people, as data, as a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.text import Text

from fusemodel.errors import unknown
from fusemodel.explore import Found, Point
from fusemodel.explore.designs import FIELDS, Design, best, designs, front
from fusemodel.explore.problem import member, totals
from fusemodel.explore.sweep import Row, Sweep
from fusemodel.model import Evaluation, evaluate
from fusemodel.quantities import count, joules, seconds, size, tokens
from fusemodel.report.plain import PlainTable
from fusemodel.report.tables import evaluation
from fusemodel.yamlfile import parse_yaml

_SHOWN = 40  # designs of a front in a table
WRITTEN = {
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
        "points": len(found.space.machines), "left_out": found.space.left_out, "rows": len(found.rows),
        "done": len(results), "kept": sum(r.kept for r in found.rows), "ended": found.ended,
        "proven": bool(results) and all(r.get("proven") for r in results), "designs": [_design(d) for d in every],
        "failed": [
            {**_row(r), "values": dict(r.machine.values), "cascade": r.cascade}
            for r in found.rows if r.result is not None and "error" in r.result
        ],
    }  # fmt: skip


def _design(d: Design) -> dict[str, Any]:
    rows = [_row(r) | taken for r, taken in zip(d.rows, d.results, strict=True)]
    return {
        "values": dict(d.machine.values), "cascade": d.cascade, "area_mm2": d.area_mm2, **d.numbers,
        "mapping": rows[0]["mapping"], "architecture": dict(d.machine.data), "rows": rows,
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {"workload": row.workload, "seq": row.seq, "kept": row.kept, **(row.result or {})}


def sweep_table(found: Sweep) -> str:
    """Every finished row as CSV: the values of the point, what it was mapped for, area and totals."""
    out = StringIO()
    columns = [*found.space.variables, "cascade", "workload", "seq", "area_mm2", *FIELDS.values(), "bound_by", "error"]
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in found.rows:
        if row.result is not None:
            about = {"cascade": row.cascade, "area_mm2": row.machine.area_mm2}
            writer.writerow({**row.machine.values, **about, **_row(row)})
    return out.getvalue()


def written(found: Sweep, path: str) -> str:
    """The text of a file of results, by its suffix."""
    kinds = {".csv": sweep_table, ".json": lambda x: json.dumps(sweep_data(x), indent=1) + "\n"}
    suffix = Path(path).suffix.lower()
    if suffix not in kinds:
        raise unknown("format of a table", suffix or path, kinds)
    return kinds[suffix](found)


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
        values = [f"{v:g}" if isinstance(v, float) else str(v) for v in (d.machine.values[n] for n in space.variables)]
        bounds = ", ".join(dict.fromkeys(str(r["bound_by"]) for r in d.results))
        table.add_row(
            *values, *([d.cascade] if several else []), f"{d.area_mm2:.4g} mm^2",
            *(WRITTEN[n](d.numbers[n]) for n in wanted), bounds,
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


def search_data(found: Found, full: Evaluation, extents: Mapping[str, int], names: tuple[str, str]) -> dict[str, Any]:
    """A search as plain data. A ``mapping`` is the content of a file; ``names`` are of the cascade and architecture."""

    def content(mapped: Point) -> dict[str, Any]:
        return parse_yaml(mapped.text(*names)).data

    best_one = {**full.to_dict(), **totals(full), "mapping": content(found.best)}
    front = [member(x, extents) | {"mapping": content(x)} for x in found.front]
    return {
        "best": best_one, "front": front or [best_one], "evaluated": found.evaluated, "space": found.space,
        "seconds": found.seconds, "cascade": full.cascade, "arch": full.arch, "workload": full.workload,
        "seq": full.seq, "extents": dict(extents), "objectives": list(found.objectives), "proven": found.proven,
        "gap": found.gap, "bound": found.bound, "pruned": dict(found.pruned),
    }  # fmt: skip


def search_report(found: Found, full: Evaluation, objectives: Sequence[str]) -> RenderableType:
    """The best mapping evaluated, the front of several objectives, and what is known about both."""
    parts: list[RenderableType] = [evaluation(full), Text("")]
    if found.front:
        table = PlainTable(*[_TITLES[FIELDS[o]] for o in objectives], "kept where", title="Not dominated")
        for mapped in found.front:
            numbers = totals(evaluate(mapped.design, sets=full.extents))
            table.add_row(*[WRITTEN[FIELDS[o]](numbers[FIELDS[o]]) for o in objectives], _kept(mapped.fields))
        parts += [table, Text("")]
    known = "proven optimal" if found.proven else f"within {found.gap:.2%} of what any mapping needs"
    parts.append(Text(
        f"Best by {', '.join(found.objectives)}: {known}. {count(found.evaluated)} of {count(found.space)} mappings "
        f"costed in {found.seconds:.2f} s.", style="dim",
    ))  # fmt: skip
    if found.pruned:
        parts.append(Text("Never costed: " + ", ".join(f"{count(n)} {why}" for why, n in found.pruned.items()), "dim"))
    return Group(*parts)


def _kept(fields: Mapping[str, Any]) -> str:
    groups = fields.get("groups", [fields])
    return "; ".join(
        ", ".join(f"{t} under {x}" for kept in g.get("keep", {}).values() for t, x in kept.items()) for g in groups
    )


def _scale(values: Sequence[float]) -> str:
    """Logarithmic, unless no power of ten would be among the labels."""
    return "log" if values and min(values) > 0 and max(values) >= 10 * min(values) else "linear"


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
            xscale=_scale([d.area_mm2 for d in every]), yscale=_scale([d.numbers[number] for d in every]),
            xlabel="area (mm$^2$)",
            ylabel="latency (s)" if objective == "latency" else "energy (J)",
        )  # fmt: skip
        axes.grid(which="both", alpha=0.2)
        if every:
            axes.legend(fontsize=8, frameon=False, title="not dominated: none is better in both", title_fontsize=8)
    figure.suptitle(title or found.space.name)
    return figure


__all__ = [
    "WRITTEN", "area_figure", "search_data", "search_report", "sweep_data", "sweep_report", "sweep_table",
    "written",
]  # fmt: skip
