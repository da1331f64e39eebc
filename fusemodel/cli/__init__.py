"""The command line: parse, call, print. Heavy imports stay inside the commands, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

# In the order of the help.
# isort: off
from fusemodel.cli import library
from fusemodel.cli import analysis
from fusemodel.cli import designs
from fusemodel.cli import exploring
from fusemodel.cli import kernels
from fusemodel.cli import start

# isort: on
from fusemodel.cli.options import app
from fusemodel.errors import InputError

__all__ = ["analysis", "app", "designs", "exploring", "kernels", "library", "main", "start"]


def _version(value: bool) -> None:
    if value:
        from fusemodel import __version__

        typer.echo(f"fusemodel {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


#: What typer raises for arguments it cannot use; it has no public name.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line. Input that cannot be used ends with one message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="fusemodel", standalone_mode=False)
        if code == 130:  # typer's code for an interruption
            sys.stderr.write("interrupted\n")
        sys.exit(code)
    except _UsageError as error:
        if message := " ".join(error.format_message().split()):  # there is none after the help of `fusemodel` alone
            sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (MemoryError, RecursionError) as error:
        sys.stderr.write(f"error: too large: {type(error).__name__}\n")
        sys.exit(2)
