"""The command line: parse, call, print. Heavy imports stay inside the commands, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

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


def _closed() -> NoReturn:
    """Whoever read the output has read enough: end quietly, with the code that a shell gives for it."""
    _discard()
    sys.exit(141)


def _discard() -> None:
    """What is still to be written goes nowhere, so that Python says nothing of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line. Input that cannot be used ends with one message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="fusemodel", standalone_mode=False)
        sys.stdout.flush()
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
        _closed()
    except SystemExit as left:  # typer and rich make their own end of a closed pipe
        if isinstance(left.__context__, BrokenPipeError):
            _closed()
        raise
    except OSError as error:
        sys.stderr.write(f"error: {error.filename or 'the output'}: {error.strerror or error}\n")
        _discard()
        sys.exit(2)
    except (MemoryError, RecursionError) as error:
        sys.stderr.write(f"error: too large: {type(error).__name__}\n")
        sys.exit(2)
