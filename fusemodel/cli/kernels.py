"""validate, measure: kernels on GPUs."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from fusemodel.cli.options import Json, app, listed, print_json, to_write
from fusemodel.errors import InputError, unknown


@app.command("validate", epilog="Example: fusemodel validate --plot errors.svg")
def validate_model(
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Measured times, a CSV (or .gz); several may be given.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", callback=to_write, help="Draw predicted against measured time.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Only groups by gpu, op, kernel, head_dim, ...")] = None,
    fit: Annotated[
        str | None,
        typer.Option("--fit", help="Fit the efficiencies on half of the shapes, and write them to this file."),
    ] = None,
    machine: Annotated[str | None, typer.Option("--machine", help="Fit on the rows of this architecture.")] = None,
    calibration: Annotated[str | None, typer.Option("--calibration", help="A file that --fit wrote.")] = None,
    rules: Annotated[str | None, typer.Option("--rules", help="A file of rules instead of the library's.")] = None,
    as_json: Json = False,
) -> None:
    """Compare predictions with measured kernel times; without --data, with the figures that the library comes with."""
    from fusemodel.validate import validate

    files = data or []
    if fit:
        _fit(fit, files, rules, machine)
        calibration = fit
    result = validate(files, rules=rules, calibration=calibration)
    kinds = list(dict.fromkeys(k for k, _, _ in result.groups))
    if by is not None and by not in kinds:
        raise unknown("group", by, kinds)
    if plot:
        from fusemodel.report.figures import save
        from fusemodel.report.validation import errors_figure

        save(errors_figure(result), plot)
    if as_json:
        print_json(result.to_dict())
        return
    from fusemodel.report.tables import show
    from fusemodel.report.validation import validation_table

    show(validation_table(result, by))


def _fit(path: str, files: list[str], rules: str | None, machine: str | None) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.library import write_text
    from fusemodel.validate.run import fit_to

    if not files:
        raise InputError("there is nothing to fit on", expected="`--data FILE` beside --fit")
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("fitting", total=None)
        found = fit_to(files, lambda text: progress.update(task, description=text), rules=rules, machine=machine)
    write_text(path, found.text)


@app.command("measure", epilog="Example: fusemodel measure --minutes 8 --out measured.csv")
def measure_kernels(
    out: Annotated[str, typer.Option("--out", "-o", help="Table to append to; what is there is not measured again.")]
    = "measured.csv",
    minutes: Annotated[float, typer.Option(help="Time for the whole run.")] = 8.0,
    groups: Annotated[str | None, typer.Option(help="Groups of points, separated by commas; see --plan.")] = None,
    dtype: Annotated[str, typer.Option(help="bf16 or fp16.")] = "bf16",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order.")] = 0,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed in an earlier run.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Time few launches after a pause: clocks stay up.")] = False,
    plan: Annotated[bool, typer.Option("--plan", "--dry-run", help="Only list the points and their time.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Time kernels on this machine's GPU, each checked against float64 first, into a table with full provenance."""
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.validate.measure import Settings, measure
    from fusemodel.validate.measure.text import plan_data, plan_text, planned, report_data, report_text

    settings = Settings(Path(out), minutes, listed(groups), dtype, seed, retry, brief)
    if plan:
        found = planned(settings)
        print_json(plan_data(found)) if as_json else sys.stdout.write(plan_text(found) + "\n")
        return
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def show(group: str, done: int, total: int, text: str) -> None:
            if group not in tasks:
                tasks[group] = bar.add_task(group, total=total)
            bar.update(tasks[group], completed=done, description=f"{group} {text}")

        report = measure(settings, progress=show)
    print_json(report_data(report)) if as_json else sys.stdout.write(report_text(report) + "\n")
