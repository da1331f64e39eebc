"""init, doctor: what a new user types first."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from fusemodel.cli.options import Json, app, print_json


@app.command("init", epilog="Example: fusemodel init mine && fusemodel eval mine/mapping.yaml")
def start(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to write; it is made if needed.")] = ".",
    as_json: Json = False,
) -> None:
    """Write a starter cascade, architecture and mapping, commented, that run as they are."""
    from fusemodel.library import copy_starter

    files = copy_starter(folder)
    if as_json:
        print_json({"files": files})
        return
    sys.stdout.write("".join(f"wrote {f}\n" for f in files))
    here = next(f for f in files if f.endswith("mapping.yaml"))
    sys.stdout.write(f"next: fusemodel eval {here}\n")


@app.command("doctor", epilog="Example: fusemodel doctor")
def check_installation(as_json: Json = False) -> None:
    """Check this installation: versions, the library, places to write to, a GPU, optional parts.

    Exit code 1 if something that is needed does not work."""
    from fusemodel.doctor import diagnose

    findings = list(diagnose())
    if as_json:
        print_json({"findings": [asdict(f) for f in findings]})
    else:
        from fusemodel.report.library import findings_table
        from fusemodel.report.tables import show

        show(findings_table(findings))
    if any(f.ok is False for f in findings):
        raise typer.Exit(1)
