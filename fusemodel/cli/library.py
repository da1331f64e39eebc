"""list, show, run: what the library holds, and cascades on numbers."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from fusemodel.cli.options import Json, SetOption, app, print_json, sizes_set, to_write
from fusemodel.errors import InputError, unknown


@app.command("list", epilog="Example: fusemodel list mappings")
def list_library(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="One of cascades, archs, mappings, workloads, comparisons, spaces."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every entry (the default).")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            callback=to_write,
            help="Write the cascades as a Markdown table, with passes, operations and source.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what the library holds."""
    del every
    from fusemodel.library import KINDS, names
    from fusemodel.report.library import library_table, summary

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if out is not None:
        if kind != "cascades":
            raise InputError("--out writes the table of cascades", expected="`fusemodel list cascades --out FILE`")
        _write_catalogue(out)
        return
    kinds = [kind] if kind else list(KINDS)
    rows = {k: [summary(k, n, p) for n, p in names(k).items()] for k in kinds}
    if as_json:
        print_json(rows if kind is None else rows[kind])
        return
    from fusemodel.report.tables import show

    for k in kinds:
        show(library_table(k, rows[k]))


def _write_catalogue(path: str) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.library import names, write_text
    from fusemodel.report.catalogue import catalogue

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("counting", total=len(names("cascades")))
        text = catalogue(progress=lambda name: progress.update(task, advance=1, description=name))
    write_text(path, text)


@app.command("show", epilog="Example: fusemodel show attention-1pass")
def show_item(name: Annotated[str, typer.Argument(metavar="NAME-OR-FILE")], as_json: Json = False) -> None:
    """Show a cascade, an architecture, a mapping, a workload, a comparison or a space, after checking it."""
    from fusemodel.report.library import describe, kind_of

    kind, path = kind_of(name)
    data, text = describe(kind, path)
    if as_json:
        print_json(data)
    else:
        from fusemodel.report.tables import show

        show(text)


@app.command("run", epilog="Example: fusemodel run attention-1pass --set m=100")
def run_cascade(
    cascade: Annotated[str | None, typer.Argument(metavar="CASCADE", help="A library name or a file.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every cascade of the library.")] = False,
    sets: SetOption = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs.")] = 0,
    as_json: Json = False,
) -> None:
    """Execute a cascade on random arrays and compare it with its reference."""
    from fusemodel.cascade import load_cascade
    from fusemodel.library import names
    from fusemodel.numerics import compare

    if dtype not in ("float64", "float32"):
        raise unknown("dtype", dtype, ["float64", "float32"])
    if every == (cascade is not None):
        raise InputError("give one cascade, or --all", expected="`fusemodel run CASCADE`")
    chosen = list(names("cascades")) if every else [str(cascade)]
    sizes = sizes_set(sets)
    rows = []
    for name in chosen:
        found = compare(load_cascade(name), sizes or None, dtype=dtype, seed=seed)
        rows.append(asdict(found))
    if as_json:
        print_json({"rows": rows} if every else rows[0])
    else:
        from fusemodel.report.library import run_table
        from fusemodel.report.tables import show

        show(run_table(rows))
    bad = [r["cascade"] for r in rows if not _agrees(r, dtype)]
    if bad:
        sys.stderr.write(f"differs from its reference: {', '.join(bad)}\n")
        raise typer.Exit(1)


def _agrees(row: dict[str, Any], dtype: str) -> bool:
    """Whether the error is what rounding explains."""
    limit = 1e-9 if dtype == "float64" else 1e-3
    return row["max_rel_error"] is None or row["max_rel_error"] <= limit
