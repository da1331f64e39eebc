"""What every command shares: the application, options, and how arguments are read and JSON is printed."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from fusemodel.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention algorithms as cascades of Einsums, mapped onto accelerators and evaluated in closed form.",
)


Json = Annotated[bool, typer.Option("--json", help="Print only JSON.")]


WorkloadOption = Annotated[str | None, typer.Option("--workload", "-w", help="Extents: a library name or a file.")]


SeqOption = Annotated[str | None, typer.Option("--seq", "-s", help="Sequence length, such as 1000 or 16K.")]


ArchOption = Annotated[
    str | None, typer.Option("--arch", help="Run mappings on another architecture, and map cascades onto it.")
]


SetOption = Annotated[list[str] | None, typer.Option("--set", help="RANK=SIZE, for a rank or a tile; repeatable.")]


def to_write(path: str | None) -> str | None:
    """For options that name a file to write: what is wrong with it is said before the work, not after."""
    from fusemodel.library import check_writable

    if path is not None:
        check_writable(path)
    return path


def print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(_plain(data), indent=2, allow_nan=False) + "\n")


def _plain(data: Any) -> Any:
    """JSON has no infinity or NaN: those become null."""
    if isinstance(data, dict):
        return {str(k): _plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(v) for v in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data


def sizes_set(values: list[str] | None) -> dict[str, int]:
    from fusemodel.cascade.load import parse_size
    from fusemodel.errors import Where

    result = {}
    for value in (v for given in values or [] for v in given.split(",")):
        name, equals, size = value.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {value!r} is not RANK=SIZE", expected="such as `--set p0=128`")
        result[name.strip()] = parse_size(size.strip(), f"--set {name.strip()}", Where())
    return result


def sequence_length(text: str) -> int:
    from fusemodel.cascade.load import parse_size
    from fusemodel.errors import Where

    return parse_size(text.strip(), "--seq", Where())


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a list separated by commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text is not None else ()
