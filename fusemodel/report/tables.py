"""Evaluations and comparisons as terminal tables."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fusemodel.model import Evaluation
from fusemodel.quantities import count, joules, part, percent, seconds, size, times, tokens
from fusemodel.report.compare import MEASURES, Comparison, Ranking, Ratio, Section
from fusemodel.report.plain import PlainTable


def _table(title: str, *columns: str, left: int = 1, wrap: tuple[str, ...] = ()) -> PlainTable:
    """A table whose first ``left`` columns are text; in a narrow terminal only those of ``wrap`` break."""
    table = PlainTable(title=title)
    for i, column in enumerate(columns):
        header = _broken(column) if i >= left else column
        table.add_column(header, justify="left" if i < left else "right", no_wrap=column not in wrap, overflow="fold")
    return table


def _broken(header: str) -> str:
    """A heading of a column of numbers on several lines; those of levels are much wider than the numbers."""
    lines = header.rsplit(" ", 1)
    return "\n".join(line.replace("_", "_\n") if len(line) > 10 else line for line in lines)


def evaluation(result: Evaluation) -> RenderableType:
    """Totals, a table by Einsum, energy by component, traffic, and what bounds the design."""
    energy = [_energy(result)] if result.energy_j else []
    parts: list[RenderableType] = [_totals(result), _einsums(result), *energy, _traffic(result)]
    if len(result.groups) > 1:
        parts.append(_groups(result))
    parts.append(Text.assemble(("Bound by ", "bold"), _bound(result)))
    parts += [Text(f"note: {note}", style="yellow") for note in result.notes]
    return Group(*[x for p in parts for x in (p, Text(""))][:-1])


def _bound(result: Evaluation) -> str:
    longest = max(result.groups, key=lambda g: g.cycles)
    text = result.bound
    if len(result.groups) > 1:
        text += f" (in group {longest.name}, {longest.cycles / result.cycles:.0%} of the time)"
    return text


def _totals(result: Evaluation) -> RenderableType:
    head = f"{result.mapping}: {result.cascade} on {result.arch}"
    if result.workload:
        head += f", {result.workload}"
    if result.seq:
        head += f", {tokens(result.seq)} tokens"
    table = _table(head, "", "value", left=2, wrap=("value",))
    table.show_header = False
    table.add_row("latency", f"{seconds(result.latency_s)}  ({count(result.cycles)} cycles)")
    counted = joules(result.energy_j)
    if result.energy_with_registers_j != result.energy_j:
        counted += f"  ({joules(result.energy_with_registers_j)} with register files)"
    table.add_row("energy", counted if result.energy_j else "-  (the architecture's file has none)")
    table.add_row("DRAM traffic", size(result.dram_bytes))
    for unit, value in result.utilization.items():
        table.add_row(f"utilisation {unit}", f"{percent(value)}  {bar(value)}")
    for group in result.groups:
        tiles = ", ".join(f"{n} = {v}" for n, v in group.tiles.items())
        if tiles and len(result.groups) == 1:
            table.add_row("tiles", tiles)
        if group.variant and len(result.groups) == 1:
            table.add_row("variant", f"{group.variant}  (best of {group.candidates})")
        for level, held in group.footprint_bytes.items():
            if len(result.groups) == 1:
                table.add_row(f"kept in {level}", ", ".join(f"{t} {size(n)}" for t, n in held.items()))
        for level, fraction in group.spilled.items():
            table.add_row(f"spilled from {level}", percent(fraction))
    return table


def bar(value: float, width: int = 20) -> str:
    """A small bar for a fraction."""
    filled = round(min(max(value, 0.0), 1.0) * width)
    return "█" * filled + "░" * (width - filled)


def _einsums(result: Evaluation) -> RenderableType:
    levels = list(result.traffic_bytes)
    table = _table(
        "By Einsum", "Einsum", "unit", "ops", "points", "cycles", "share of unit", "used",
        *[f"{level} traffic" for level in levels], left=3, wrap=("ops",),
    )  # fmt: skip
    for e in result.einsums:
        table.add_row(
            e.name, e.unit, " ".join(e.operations), count(e.points), count(e.cycles), percent(e.share),
            percent(e.utilization), *[size(e.traffic_bytes[lv]) if lv in e.traffic_bytes else "-" for lv in levels],
        )  # fmt: skip
    return table


def _energy(result: Evaluation) -> RenderableType:
    table = _table("Energy by component", "component", "energy", "share")
    for name, value in result.energy_breakdown_j.items():
        table.add_row(name, joules(value), percent(value / result.energy_j if result.energy_j else 0))
    for unit, value in result.register_energy_j.items():
        if f"{unit}.registers" not in result.energy_breakdown_j:
            table.add_row(f"{unit} register files", joules(value), "not counted", style="dim")
    return table


def _traffic(result: Evaluation) -> RenderableType:
    table = _table("Traffic by tensor", "level", "tensor", "read", "written", left=2)
    for level, tensors in result.traffic_bytes.items():
        for tensor, moved in tensors.items():
            table.add_row(level, tensor, size(moved["read"]), size(moved["write"]))
    return table


def _groups(result: Evaluation) -> RenderableType:
    table = _table(
        "By group, one after another", "group", "variant", "tiles", "latency", "share", "DRAM", "bound", left=3,
        wrap=("variant", "tiles"),
    )  # fmt: skip
    for g in result.groups:
        tiles = ", ".join(f"{n} {v}" for n, v in g.tiles.items())
        share = percent(g.cycles / result.cycles)
        table.add_row(g.name, g.variant, tiles, seconds(g.latency_s), share, size(g.dram_bytes), g.bound)
    return table


def evaluations(results: Sequence[Evaluation], labels: Sequence[str]) -> RenderableType:
    """Evaluations under one another, each against the first."""
    first = results[0]
    title = f"Mapped onto {first.arch}" + (f", {first.workload}" if first.workload else "")
    table = _table(
        title + (f", {tokens(first.seq)} tokens" if first.seq else ""), "cascade", "latency", "speed-up", "energy",
        "DRAM", "utilisation", "bound", wrap=("utilisation",),
    )  # fmt: skip
    for label, r in zip(labels, results, strict=True):
        used = ", ".join(f"{u} {v:.0%}" for u, v in r.utilization.items())
        speed = f"{times(first.latency_s / r.latency_s)}x"
        table.add_row(label, seconds(r.latency_s), speed, joules(r.energy_j), size(r.dram_bytes), used, r.bound)
    notes = [Text(f"note: {n}", style="yellow") for n in dict.fromkeys(n for r in results for n in r.notes)]
    return Group(table, *notes)


def comparison(result: Comparison, *, details: bool = False) -> RenderableType:
    """The rankings; for each section: speed-ups and energy by workload and length, then the means, with published
    figures beside them, and in words. ``details`` adds every evaluation; few are shown anyway."""
    parts: list[RenderableType] = []
    for ranking in result.request.rankings:
        parts += [x for measure in MEASURES for x in (_ranked(result, ranking, measure), Text(""))]
    for section in result.request.sections:
        if details or len(result.rows) <= 24:
            parts += [_absolute(result, section), Text("")]
        for baseline in section.baselines:
            parts += [_pair(result, section, baseline), Text("")]
    for section in result.request.sections:
        parts += [_means(result, section), Text("")]
    parts += [_sentence(result, s, b) for s in result.request.sections for b in s.baselines]
    return Group(*parts)


_SHOWN = {"latency_s": ("latency", seconds), "energy_j": ("energy", joules), "dram_bytes": ("DRAM traffic", size)}


def _ranked(result: Comparison, ranking: Ranking, measure: str) -> RenderableType:
    """One measure of every design at every point, with its place; the designs in the order of the last point."""
    name, text = _SHOWN[measure]
    points = result.ranked(ranking)
    several = len({p["workload"] for p in points}) > 1
    heads = [f"{p['workload']} {tokens(p['seq'])}" if several else tokens(p["seq"]) for p in points]
    table = _table(f"{ranking.title}: {name} (place)", "design", "", *heads, left=2, wrap=("", *heads))
    for design in points[-1][measure]:
        cells = [
            f"{text(getattr(row, measure))} ({point[measure].index(design) + 1})"
            for row, point in zip(result.at(design), points, strict=True)
        ]
        table.add_row(design, ranking.designs[design], *cells)
    return table


def _sentence(result: Comparison, section: Section, baseline: str) -> Text:
    r = result.mean[section.subject][baseline]
    text = Text()
    text.append(f"{section.subject} against {_labelled(section, baseline)}: ", style="dim")
    text.append(f"{times(r.speedup)}x as fast", style="bold")
    if r.energy == r.energy:
        text.append(f", {part(r.energy)} of the energy")
    found = _published(result, section.subject, baseline)
    if found:
        words = [f"{times(v)}x" if q == "speedup" else part(v) for (q, s), v in found.items() if s == "mean"]
        text.append(f"  (published: {', '.join(words)})", style="dim")
    return text


def _labelled(section: Section, baseline: str) -> str:
    label = section.labels.get(baseline)
    return f"{baseline} ({label})" if label else baseline


def _published(result: Comparison, subject: str, baseline: str) -> dict[tuple[str, str], float]:
    return {
        (p["quantity"], p["statistic"]): p["value"]
        for p in result.published
        if (p["subject"], p["baseline"]) == (subject, baseline)
    }


def _absolute(result: Comparison, section: Section) -> RenderableType:
    table = _table(
        f"{section.title}: every design", "workload", "tokens", "design", "latency", "energy", "DRAM", "utilisation",
        "bound", left=3, wrap=("utilisation",),
    )  # fmt: skip
    columns = {m: result.at(m) for m in section.mappings}
    for i in range(len(columns[section.subject])):
        for name, rows in columns.items():
            r = rows[i]
            used = ", ".join(f"{u} {v:.0%}" for u, v in r.utilization.items())
            style = "bold" if name == section.subject else ""
            table.add_row(
                r.workload or "-", tokens(r.seq), name, seconds(r.latency_s), joules(r.energy_j), size(r.dram_bytes),
                used, r.bound, style=style,
            )  # fmt: skip
    return table


def _pair(result: Comparison, section: Section, baseline: str) -> RenderableType:
    ours, theirs = result.at(section.subject), result.at(baseline)
    seqs = list(dict.fromkeys(r.seq for r in ours))
    title = f"{section.title}: {section.subject} against {_labelled(section, baseline)}"
    lengths = [tokens(s) for s in seqs]
    table = _table(title, "speed-up (energy)", *lengths, wrap=("speed-up (energy)", *lengths))
    for workload in dict.fromkeys(r.workload for r in ours):
        cells = [
            f"{times(b.latency_s / a.latency_s)}x ({part(a.energy_j / b.energy_j)})" if a.energy_j and b.energy_j else
            f"{times(b.latency_s / a.latency_s)}x"
            for a, b in zip(ours, theirs, strict=True)
            if a.workload == workload
        ]  # fmt: skip
        table.add_row(workload or "-", *cells)
    return table


_STATISTICS = {"mean": "speedup", "geomean": "speedup_geomean", "min": "speedup_min", "max": "speedup_max"}


def _means(result: Comparison, section: Section) -> RenderableType:
    below = any(_published(result, section.subject, b) for b in section.baselines)
    table = _table(
        f"{section.title}: means over all points" + (", published figures below ours" if below else ""),
        "against", "speed-up", "geomean", "min", "max", "energy", "energy with registers", "DRAM",
    )  # fmt: skip
    for baseline in section.baselines:
        r: Ratio = result.mean[section.subject][baseline]
        table.add_row(
            baseline, f"{times(r.speedup)}x", f"{times(r.speedup_geomean)}x", f"{times(r.speedup_min)}x",
            f"{times(r.speedup_max)}x", part(r.energy), part(r.energy_with_registers), f"{r.dram_bytes:.3g}",
            style="bold",
        )  # fmt: skip
        found = _published(result, section.subject, baseline)
        if found:
            speed = [f"{times(found['speedup', s])}x" if ("speedup", s) in found else "" for s in _STATISTICS]
            energy = part(found["energy", "mean"]) if ("energy", "mean") in found else ""
            table.add_row("published", *speed, energy, "", "", style="dim")
    return table


def show(renderable: RenderableType) -> None:
    """Print to the terminal; wide enough for every column when piped. No number is ever cut: where a table does not
    fit, its columns move together, and if that is not enough the terminal breaks the lines."""
    console, piped = Console(), io.StringIO()
    terminal = console.is_terminal
    if not terminal:
        console = Console(file=piped, width=200, no_color=True, highlight=False)
    width = console.width
    for piece in _parts(renderable):
        console.width = width
        if isinstance(piece, Table) and _least_width(piece, console) > width:
            piece.collapse_padding, piece.pad_edge = True, False
            console.width = max(width, _least_width(piece, console))
        console.print(piece)
    if not terminal:  # without the blanks that fill lines up
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in piped.getvalue().splitlines()))


def _parts(renderable: RenderableType) -> list[RenderableType]:
    return [p for r in renderable.renderables for p in _parts(r)] if isinstance(renderable, Group) else [renderable]


def _least_width(table: Table, console: Console) -> int:
    for column in table.columns:
        if column.no_wrap:
            texts = (line for cell in (column.header, *column.cells) for line in str(cell).splitlines())
            column.min_width = max((cell_len(t) for t in texts), default=1)
    return Measurement.get(console, console.options.update(max_width=10_000), table).minimum
