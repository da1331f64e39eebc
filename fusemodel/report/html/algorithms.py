"""Passes and bounds of every algorithm on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fusemodel.analysis import passes
from fusemodel.analysis.bounds import Bounds, bounds
from fusemodel.analysis.derive import derive
from fusemodel.cascade import Cascade, extents_of, format_einsums
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.model import Evaluation
from fusemodel.quantities import size, tokens
from fusemodel.report.compare import Comparison
from fusemodel.report.html.parts import CascadeNote, Known, Table


def algorithms(known: Mapping[str, Known], found: Comparison) -> tuple[Table, tuple[CascadeNote, ...]]:
    """The passes of every cascade as a table, and each in words, at the last point of the comparison."""
    notes: dict[str, CascadeNote] = {}
    rows: list[tuple[str, ...]] = []
    workloads = {w.name: w for w in map(load_workload, found.request.workloads)}
    for name, k in known.items():
        cascade = k.cascade
        if cascade.name in notes:
            continue
        at = found.at(name)[-1]
        extents = extents_of(cascade, extents_for(cascade, workloads.get(at.workload or ""), at.seq))
        counted, after = passes(cascade, extents), derive(cascade).passes_after
        inner = _inner(cascade)
        several = [r for r, n in counted.passes.items() if n > 1]
        outer = [r for r in several if r not in inner] or [r for r in counted.passes if r in cascade.split]
        for r in outer or list(counted.passes)[:1]:
            forced = "; ".join(counted.why[r]) or "nothing: each element is needed once"
            rows.append(
                (cascade.name, r, f"{counted.passes[r]:,}", f"{min(after.get(r, 1), counted.passes[r]):,}", forced)
            )
        notes[cascade.name] = CascadeNote(
            cascade.name,
            " ".join(cascade.about.split()),
            format_einsums(cascade),
            "Ranks at " + _where(at) + ": " + ", ".join(f"{r} {_extent(n)}" for r, n in extents.items()) + ".",
            _summary(counted.passes, after, inner, bounds(cascade, extents), at, k.arch.word_bytes),
            tuple(f"{r}: {step}" for r in several for step in counted.why[r]),
        )
    head = ("algorithm", "over", "passes as written", "least by algebra", "what forces them")
    return Table("Passes of each algorithm over its ranks", head, tuple(rows), left=5), tuple(notes.values())


def _where(at: Evaluation) -> str:
    return f"{at.workload or 'its own extents'}" + (f", {tokens(at.seq)} tokens" if at.seq else "")


def _extent(n: int) -> str:
    return tokens(n) if n >= 1024 else str(n)


def _inner(cascade: Cascade) -> set[str]:
    """Ranks that are a tile of bounded size: all parts of a split rank but the outermost."""
    return {part for parts in cascade.split.values() for part in tuple(parts)[1:]}


def _summary(
    counted: Mapping[str, int], after: Mapping[str, int], inner: Iterable[str], least: Bounds, at: Evaluation,
    word_bytes: float,
) -> str:  # fmt: skip
    several = [r for r, n in counted.items() if n > 1 and r not in inner]
    parts = [
        f"{counted[r]:,} passes over {r}"
        + (f" as written, {after[r]:,} by algebra" if after.get(r, counted[r]) < counted[r] else "")
        for r in several
    ] or ["One pass over every rank"]
    tiles = [f"{counted[r]} times" + f" over {r}" for r in inner if counted.get(r, 1) > 1]
    if tiles:
        parts.append(f"inside a tile of bounded size, which stays on chip, it goes {', '.join(tiles)}")
    moved = f"No mapping moves less than {size(least.compulsory_words_at * word_bytes)} off chip ({_where(at)})"
    grows = [r for r, g in least.footprint.grows.items() if g]
    held = f"grows with {', '.join(grows)}" if grows else "does not grow"
    return f"{'; '.join(parts)}. {moved}; what has to be on chip when all of it is fused {held}."


__all__ = ["algorithms"]
