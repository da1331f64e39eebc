"""Pass counts for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fusemodel.analysis import Passes
from fusemodel.report.plain import PlainTable


def passes_table(name: str, found: Passes) -> RenderableType:
    """Passes by rank, with the chain of Einsums that forces each, and the pass of every tensor."""
    parts: list[RenderableType] = [Text(name, style="bold")]
    for rank, count in found.passes.items():
        if count:
            parts.append(Text.assemble((rank, "bold cyan"), f"  {count} pass{'es' if count > 1 else ''}"))
            parts += [Text(f"    {step}", style="dim") for step in found.why[rank]]
    ranks = [r for r, n in found.passes.items() if n > 1] or [r for r, n in found.passes.items() if n]
    table = PlainTable("tensor", *ranks, title="Pass of each tensor")
    for tensor, by_rank in found.tensors.items():
        if any(r in by_rank for r in ranks):
            table.add_row(tensor, *[str(by_rank[r]) if r in by_rank else "-" for r in ranks])
    return Group(*parts, Text(""), table)


def passes_overview(rows: dict[str, Passes]) -> RenderableType:
    """One line for each of several cascades."""
    table = PlainTable("cascade", "passes over each rank")
    for name, found in rows.items():
        table.add_row(name, ", ".join(f"{r} {n}" for r, n in found.passes.items() if n))
    return table
