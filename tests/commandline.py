"""The command line called in this process, and copies of library files with something changed."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from fusemodel import library
from fusemodel.cli import main

MARK = "¦"  # stands before the character at which an error is to be reported


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def fusemodel(*arguments: str | Path) -> Ran:
    """What ``fusemodel ARGUMENTS`` prints, and its exit code."""
    out, err, code = StringIO(), StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["fusemodel", *map(str, arguments)]):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Ran(code, out.getvalue(), err.getvalue())


def text_of(name: str) -> str:
    """The text of a library file of any kind."""
    return next(library.names(kind)[name] for kind in library.KINDS if name in library.names(kind)).read_text("utf-8")


def changed(name: str, *changes: tuple[str, str]) -> str:
    """The text of a library file, each first text of a pair replaced by the second, which must be there."""
    text = text_of(name)
    for old, new in changes:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new, 1)
    return text


def write(path: Path, text: str) -> str:
    """Write ``text`` without its mark; return the place of the mark as ``FILE:LINE:COLUMN``, else 1:1."""
    before = text.partition(MARK)[0] if MARK in text else ""
    path.write_text(text.replace(MARK, ""), encoding="utf-8")
    return f"{path}:{before.count(chr(10)) + 1}:{len(before.rpartition(chr(10))[2]) + 1}"


def refused(ran: Ran, place: str, *parts: str) -> None:
    """One message on stderr that begins with the place and has every part; exit code 2 and nothing on stdout."""
    assert (ran.code, ran.out) == (2, ""), ran
    assert ran.err.startswith(f"error: {place}: " if place else "error: "), ran.err
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1, ran.err
    assert "Traceback" not in ran.err
    missing = [p for p in parts if p not in ran.err]
    assert not missing, f"{missing} not in: {ran.err}"
