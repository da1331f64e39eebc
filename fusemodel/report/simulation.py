"""A simulation as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fusemodel.quantities import count, percent, seconds, size, tokens
from fusemodel.report.plain import PlainTable
from fusemodel.simulate import Simulation

if TYPE_CHECKING:
    from fusemodel.report.simulating import Difference


def simulation(result: Simulation) -> RenderableType:
    """Cycles against the closed form, where each unit's time goes, waits by Einsum, buffers and the critical path."""
    parts: list[RenderableType] = [_totals(result), _units(result), _einsums(result), _buffers(result), _path(result)]
    parts += [Text(f"note: {note}", style="yellow") for note in result.notes]
    return Group(*[x for p in parts for x in (p, Text(""))][:-1])


def ratio(result: Simulation) -> float:
    """By which part the simulation takes longer than the closed form."""
    return result.cycles / result.closed_form_cycles - 1 if result.closed_form_cycles else 0.0


def main_stall(result: Simulation) -> tuple[str, str, float]:
    """The stall that explains a difference: in the group that loses most against the closed form, the unit that is
    busiest, the reason for which it waits most, and the part of the whole time that takes; if it waits for room, which
    others are to make, what the one that waits most waits for."""
    group = max(result.groups, key=lambda g: g.cycles - g.closed_form_cycles)
    busiest = max(group.busy_cycles, key=lambda u: group.busy_cycles[u])
    waits = {u: {r: v for r, v in by.items() if r != "finished"} for u, by in group.stalls.items()}
    reason = max(waits[busiest], key=lambda r: waits[busiest][r], default="-")
    if reason in ("buffer", "-"):
        others = [(v, u, r) for u, by in waits.items() for r, v in by.items() if r != "buffer"]
        value, unit, reason = max(others, default=(0.0, busiest, reason))
    else:
        unit, value = busiest, waits[busiest][reason]
    return unit, reason, value / result.cycles if result.cycles else 0.0


def differences(rows: Sequence[Difference]) -> RenderableType:
    """Simulations against the closed form."""
    table = PlainTable(*_HEAD, title="Simulated against the closed form")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def markdown(rows: Sequence[Difference]) -> str:
    """The same as a Markdown table."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    return "\n".join([*lines, *("| " + " | ".join(_cells(r)) + " |" for r in rows)]) + "\n"


_HEAD = ("mapping", "workload", "tokens", "closed form, cycles", "simulated", "double-buffered", "waits most for",
         "utilisation")  # fmt: skip


def _cells(row: Difference) -> list[str]:
    stall = f"{row.stall} ({row.stall_unit}, {row.stall_share:.1%})" if row.difference > 0.01 else "-"
    used = ", ".join(f"{v:.1%}" for v in row.utilization.values())
    return [row.mapping, row.workload, tokens(row.seq), f"{row.closed_form_cycles:.4g}", f"{row.difference:+.2%}",
            f"{row.double_buffered:+.2%}", stall, used]  # fmt: skip


def _totals(result: Simulation) -> RenderableType:
    head = f"{result.mapping}: {result.cascade} on {result.arch}"
    head += f", {result.workload}" if result.workload else ""
    head += f", {tokens(result.seq)} tokens" if result.seq else ""
    table = PlainTable("", "value", title=head)
    table.show_header = False
    table.add_row("simulated", f"{result.cycles:,.0f} cycles, {seconds(result.latency_s)}")
    table.add_row("closed form", f"{result.closed_form_cycles:,.0f} cycles ({ratio(result):+.2%} in the simulation)")
    table.add_row("schedule", result.schedule)
    if result.instances > 1:
        table.add_row("instances", str(result.instances))
    table.add_row("tasks", f"{count(result.tasks)}, of which {count(result.simulated)} were run one by one")
    return table


def _units(result: Simulation) -> RenderableType:
    reasons = list(dict.fromkeys(r for by in result.stalls.values() for r in by))
    table = PlainTable("unit", "utilisation", "busy", *[f"waits: {r}" for r in reasons], title="Where the time goes")
    for unit, busy in result.busy.items():
        cells = [percent(result.stalls[unit].get(r, 0.0) / result.cycles if result.cycles else 0.0) for r in reasons]
        table.add_row(unit, percent(result.utilization[unit]), percent(busy), *cells)
    return table


def _einsums(result: Simulation) -> RenderableType:
    table = PlainTable("Einsum", "unit", "tasks", "cycles", "share", "its unit waited for it", title="Einsums")
    for e in result.einsums:
        waits = ", ".join(f"{r} {c:,.0f}" for r, c in sorted(e.stalls.items(), key=lambda x: -x[1])) or "-"
        share = percent(e.cycles / result.cycles if result.cycles else 0.0)
        table.add_row(e.name, e.unit, count(e.tasks), count(e.cycles), share, waits)
    return table


def _buffers(result: Simulation) -> RenderableType:
    table = PlainTable("level", "tile", "most held", "room", title="Buffers")
    for b in result.buffers:
        table.add_row(b.level or "registers", b.tensor, size(b.peak_bytes), size(b.room_bytes))
    return table


def _path(result: Simulation) -> RenderableType:
    table = PlainTable("group", "on the path", "what", "cycles", "share", title=_path_title(result))
    for group in result.groups:
        for i, step in enumerate(group.critical_path[:8]):
            table.add_row(
                group.name[:32] if i == 0 else "", step.name, step.kind, count(step.cycles), percent(step.share)
            )
    return table


def _path_title(result: Simulation) -> str:
    if len(result.windows) == 1:
        return f"Critical path of {result.windows[0].what}"
    most, first = max(w.tasks for w in result.windows), max(w.first for w in result.windows)
    return f"Critical path of {most:,} tasks of each group" + (f" from task {first + 1:,} on" if first else "")
