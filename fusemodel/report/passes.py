"""Pass counts for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fusemodel.analysis import Passes
from fusemodel.analysis.bounds import Bounds
from fusemodel.analysis.derive import Derivation
from fusemodel.report.plain import PlainTable


def passes_table(name: str, found: Passes, derived: Mapping[str, int], least: Bounds) -> RenderableType:
    """Passes by rank as written and as derived, with the chain of Einsums that forces each, the pass of every tensor,
    and bounds for any mapping."""
    parts: list[RenderableType] = [Text(name, style="bold")]
    for rank, count in found.passes.items():
        if count:
            parts.append(
                Text.assemble(
                    (rank, "bold cyan"), f"  {count} pass{'es' if count > 1 else ''}{_less(count, derived.get(rank))}"
                )
            )
            parts += [Text(f"    {step}", style="dim") for step in found.why[rank]]
    ranks = [r for r, n in found.passes.items() if n > 1] or [r for r, n in found.passes.items() if n]
    table = PlainTable("tensor", *ranks, title="Pass of each tensor")
    for tensor, by_rank in found.tensors.items():
        if any(r in by_rank for r in ranks):
            table.add_row(tensor, *[str(by_rank[r]) if r in by_rank else "-" for r in ranks])
    return Group(*parts, Text(""), table, Text(""), _bounds_table(least))


def bounds_data(found: Bounds) -> dict[str, Any]:
    """Bounds as plain data: numbers at the extents, and the symbolic forms as text."""
    return {
        "operations": found.operations_at,
        "compulsory_words": found.compulsory_words_at,
        "fused_footprint_words": found.footprint.words_at,
        "footprint_grows": found.footprint.grows,
        "intensity_ops_per_word": found.intensity_at,
        "critical_path_ops": found.critical_path_at,
        "symbolic": {
            "operations": {kind: str(n) for kind, n in found.operations.items()},
            "compulsory_words": str(found.compulsory_words),
            "fused_footprint_words": str(found.footprint.words),
        },
        "notes": list(found.notes),
    }


def _bounds_table(found: Bounds) -> RenderableType:
    table = PlainTable("whatever the mapping", "", "at these extents", title="Bounds")
    for kind, n in found.operations_at.items():
        table.add_row(f"{kind} operations", str(found.operations[kind]), f"{n:,}")
    table.add_row("compulsory words", str(found.compulsory_words), f"{found.compulsory_words_at:,}")
    growing = ", ".join(r for r, grows in found.footprint.grows.items() if grows)
    alive = f"{found.footprint.words_at:,}"
    table.add_row(
        f"words alive, fused in one loop order (grows with {growing}; an estimate, no bound)",
        str(found.footprint.words),
        alive,
    )
    table.add_row("operations a word", "", f"{found.intensity_at:,.4g}")
    table.add_row("longest chain of operations", "", f"{found.critical_path_at:,}")
    return Group(table, *[Text(f"note: {note}", style="yellow") for note in found.notes])


def _less(count: int, derived: int | None) -> str:
    return f", {derived} as derived" if derived is not None and derived != count else ""


def passes_overview(rows: Mapping[str, Passes], derived: Mapping[str, Mapping[str, int]]) -> RenderableType:
    """One line for each of several cascades: ranks with more than one pass, as written and as derived."""
    table = PlainTable("cascade", "passes (as derived)", "once")
    for name, found in rows.items():
        several = {r: n for r, n in found.passes.items() if n > 1}
        shown = ", ".join(f"{r} {n} ({derived[name].get(r, n)})" for r, n in several.items())
        table.add_row(name, shown or "-", ", ".join(r for r, n in found.passes.items() if n == 1))
    return table


def derivation(found: Derivation, text: str) -> RenderableType:
    """The steps taken, the passes before and after, what stands in the way of fewer, and the cascade found."""
    parts: list[RenderableType] = []
    table = PlainTable("rank", "passes", "as derived", title=found.cascade.name)
    after = {rank: found.passes_after.get(rank, count) for rank, count in found.passes_before.items()}
    several = [rank for rank, count in found.passes_before.items() if count > 1 or after[rank] != count]
    for rank in several or [rank for rank, count in found.passes_before.items() if count]:
        table.add_row(rank, str(found.passes_before[rank]), str(after[rank]))
    parts += [table, Text("")]
    if found.points_after < found.points_before:
        parts += [Text(f"points of all iteration spaces: {found.points_before:,} -> {found.points_after:,}"), Text("")]
    parts += [Text(f"{i}. {step}") for i, step in enumerate(found.steps, 1)] or [Text("nothing better was found")]
    parts += [Text(f"in the way: {reason}", style="yellow") for reason in found.obstacles]
    return Group(*parts, Text(""), Text(text, style="cyan"))
