"""passes, derive: what the equations alone say."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fusemodel.cli.options import (
    Json,
    SeqOption,
    SetOption,
    WorkloadOption,
    app,
    print_json,
    sequence_length,
    sizes_set,
    to_write,
)
from fusemodel.errors import InputError, unknown

if TYPE_CHECKING:
    from fusemodel.analysis.bounds import Bounds


@app.command("passes", epilog="Example: fusemodel passes attention-3pass")
def count_passes(
    cascades: Annotated[
        list[str] | None, typer.Argument(metavar="CASCADE...", help="Library names or files; one in full.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every cascade of the library.")] = False,
    workload: WorkloadOption = None,
    seq: SeqOption = None,
    sets: SetOption = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            callback=to_write,
            help="Draw the bound on traffic against storage on chip, and library mappings above it.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the passes over each rank, as written and as derived, with the chain of Einsums that forces each.

    For one cascade also the least that any mapping must move and hold."""
    from fusemodel.analysis import edges, passes
    from fusemodel.analysis.bounds import bounds
    from fusemodel.analysis.derive import derive
    from fusemodel.cascade import extents_of, load_cascade
    from fusemodel.cascade.workload import extents_for, load_workload
    from fusemodel.library import names

    if every == bool(cascades):
        raise InputError("give cascades, or --all", expected="a name or file, or `--all`")
    chosen = list(names("cascades")) if every else list(dict.fromkeys(cascades or []))
    loaded = [load_cascade(n) for n in chosen]
    machine = None if workload is None else load_workload(workload)
    length, over = None if seq is None else sequence_length(seq), sizes_set(sets)
    extents = {c.name: extents_of(c, extents_for(c, machine, length) | over) for c in loaded}
    if plot:
        _plot_bounds(plot, {c.name: bounds(c, extents[c.name]) for c in loaded}, chosen, workload, length, over)
    found = {c.name: passes(c, extents[c.name]) for c in loaded}
    least = {}
    for c in loaded:
        best = derive(c).cascade
        sizes = extents_of(best, extents_for(best, machine, length) | over)
        after = passes(best, sizes).passes
        least[c.name] = {r: min(n, after.get(r, n)) for r, n in found[c.name].passes.items()}
    if as_json:
        from fusemodel.report.passes import bounds_data

        rows = [
            {**asdict(found[c.name]), "cascade": c.name, "derived": least[c.name], "edges": edges(c),
             "bounds": bounds_data(bounds(c, extents[c.name]))}
            for c in loaded
        ]  # fmt: skip
        print_json(rows[0] if len(rows) == 1 and not every else {"rows": rows})
        return
    from fusemodel.report.passes import passes_overview, passes_table
    from fusemodel.report.tables import show

    if len(loaded) > 1:
        show(passes_overview(found, least))
    else:
        name = loaded[0].name
        show(passes_table(name, found[name], least[name], bounds(loaded[0], extents[name])))


def _plot_bounds(
    path: str, least: dict[str, Bounds], chosen: list[str], workload: str | None, seq: int | None, sets: dict[str, int]
) -> None:
    """Bounds of some cascades, and every library mapping of one of them that fits."""
    from fusemodel.api import evaluate
    from fusemodel.library import find, names
    from fusemodel.mapping import load_design
    from fusemodel.report.figures import dot, save, traffic_figure

    files = {str(find("cascades", n)) for n in chosen}
    dots = []
    for name in names("mappings"):
        design = load_design(name)
        if design.cascade.file in files:
            try:
                dots.append(dot(evaluate(name, workload, seq, sets), design.arch))
            except InputError as error:
                sys.stderr.write(f"{name} is left out: {error}\n")
    title = ", ".join(filter(None, [workload or "", f"{seq:,} tokens" if seq else ""]))
    save(traffic_figure(least, dots, title=title), path)


@app.command("derive", epilog="Example: fusemodel derive attention-3pass --out one-pass.yaml")
def derive_cascade(
    cascade: Annotated[str, typer.Argument(metavar="CASCADE", help="A library name or a file.")],
    stable: Annotated[bool, typer.Option("--stable", help="Also subtract a maximum in sums of exponentials.")] = False,
    rank: Annotated[str | None, typer.Option("--rank", help="Only fewer passes over this rank.")] = None,
    merge: Annotated[
        str, typer.Option("--merge", help="running: tiles one after another; chunks: independent, merged at the end.")
    ] = "running",
    out: Annotated[
        str | None, typer.Option("--out", "-o", callback=to_write, help="Write the cascade found to this file.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Also map every stage onto this architecture, and compare them.")
    ] = None,
    workload: WorkloadOption = None,
    seq: SeqOption = None,
    sets: SetOption = None,
    as_json: Json = False,
) -> None:
    """Find an algebraically equal cascade with fewer passes, checked on numbers; print it with the steps.

    With --arch, map and evaluate the original and what was derived."""
    from fusemodel.analysis.derive import derive
    from fusemodel.api import evaluate
    from fusemodel.cascade import at_extents, format_cascade, load_cascade
    from fusemodel.library import write_text

    if merge not in ("running", "chunks"):
        raise unknown("way to merge", merge, ["running", "chunks"])
    if arch is None and (workload is not None or seq is not None):
        raise InputError("extents are for an evaluation", expected="`--arch NAME` beside --workload and --seq")
    over = sizes_set(sets)
    original = at_extents(load_cascade(cascade), over)
    found = derive(original, stable=stable, rank=rank, merge="chunks" if merge == "chunks" else "running")
    text = format_cascade(found.cascade)
    if out:
        write_text(out, text)
    length = None if seq is None else sequence_length(seq)
    stages = [evaluate(s, workload, length, over, arch=arch) for s in (original, *found.stages)] if arch else []
    if as_json:
        data = {f: getattr(found, f) for f in ("passes_before", "passes_after", "points_before", "points_after")}
        data |= {"steps": found.steps, "obstacles": found.obstacles, "cascade": found.cascade.name, "text": text}
        evaluated = [e.to_dict() for e in stages]
        print_json({**data, "stages": [format_cascade(s) for s in found.stages], "evaluations": evaluated})
        return
    from fusemodel.report.passes import derivation
    from fusemodel.report.tables import evaluations, show

    show(derivation(found, text))
    if stages:
        labels = ["as written", *(f"after step {i}" for i in range(1, len(found.stages))), "derived"]
        show(evaluations(stages, labels[: len(stages)]))
