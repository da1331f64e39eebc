"""explore: the best mapping, and sweeps over architectures."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fusemodel.cli.options import Json, SetOption, app, listed, print_json, sequence_length, sizes_set, to_write
from fusemodel.errors import InputError


@app.command(
    "explore", epilog="Example: fusemodel explore attention-1pass fusemax-cloud -w bert -s 256K --out best.yaml"
)
def explore_mappings(
    cascade: Annotated[
        str | None,
        typer.Argument(metavar="CASCADE", help="A library name or a file; or a mapping of which parts are `auto`."),
    ] = None,
    arch: Annotated[str | None, typer.Argument(metavar="ARCH", help="A library name or a file.")] = None,
    arch_space: Annotated[
        str | None, typer.Option("--arch-space", help="Map every architecture of this space: a library name or a file.")
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="A workload; several for a space.")] = None,
    seq: Annotated[str | None, typer.Option("--seq", "-s", help="A length; several for a space.")] = None,
    sets: SetOption = None,
    objective: Annotated[
        str | None, typer.Option(help="latency, energy, edp, dram or buffer; several, by commas: their Pareto front.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="A limit to each search; its gap is told.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", callback=to_write, help="Write the best mapping; of a space, all results (.csv, .json)."
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", callback=to_write, help="Draw area against latency and energy (.svg, .pdf, .png)."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Where a space's results are kept; else in the user's cache.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; all processors if not given.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Use the workers of a Dask cluster.")] = None,
    as_json: Json = False,
) -> None:
    """Find the best mapping of a cascade onto an architecture, complete a mapping, or map each architecture of a space.

    A sweep goes on where it was left, and Ctrl-C prints the best so far."""
    from fusemodel.library import write_text
    from fusemodel.report import explore as report
    from fusemodel.report.exploring import run_search, run_sweep
    from fusemodel.report.figures import save
    from fusemodel.report.tables import show

    lengths = tuple(dict.fromkeys(sequence_length(s) for s in listed(seq)))
    visible = sys.stderr.isatty() and not as_json
    if arch_space is None:
        for name, given in {"--plot": plot, "--store": store, "--jobs": jobs, "--scheduler": scheduler}.items():
            if given is not None:
                raise InputError(f"{name} is for a space", expected="`--arch-space FILE` beside it")
        result = run_search(
            cascade, arch, listed(workload), lengths, sizes_set(sets), listed(objective), seconds, visible
        )
        if out:
            write_text(out, result.found.text(*result.names))
        if as_json:
            print_json(report.search_data(result.found, result.full, result.extents, result.names))
        else:
            show(report.search_report(result.found, result.full, result.objectives))
        return
    if cascade or sets:
        raise InputError("a space says itself what is mapped onto what", expected="no CASCADE, ARCH or --set beside it")
    found = run_sweep(
        arch_space, listed(workload), lengths, listed(objective), seconds, store, jobs, scheduler, visible
    )
    if found.error and not found.done:
        raise found.error
    if out:
        write_text(out, report.written(found, out))
    if plot:
        save(report.area_figure(found), plot)
    if as_json:
        print_json(report.sweep_data(found))
    else:
        show(report.sweep_report(found))
    if found.error:
        raise found.error
    if found.ended:
        raise KeyboardInterrupt
