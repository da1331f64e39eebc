"""The one kind of error a user sees: what is wrong, where, what was expected, and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

MAX_MESSAGE = 1000
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a text a user wrote; lines and columns count from 1, 0 where unknown."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file or '<input>'}:{self.line}:{self.column}" if self.line else self.file


NOWHERE = Where()


class InputError(ValueError):
    """Input that cannot be used. ``str()`` is the whole message for a user, on one line."""

    def __init__(self, message: str, where: Where = NOWHERE, *, expected: str = "", nearest: str = "") -> None:
        self.message, self.where, self.expected, self.nearest = message, where, expected, nearest
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.where}: " if str(self.where) else ""
        text += _clipped(self.message)
        if self.expected:
            text += f"; expected {_clipped(self.expected)}"
        if self.nearest:
            text += f"; did you mean {self.nearest!r}?"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

    def at(self, where: Where) -> InputError:
        """The same error at ``where``, if it had no place of its own."""
        if str(self.where):
            return self
        return InputError(self.message, where, expected=self.expected, nearest=self.nearest)


def _clipped(text: str) -> str:
    """Text without the middle of what is far too long."""
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 4 :]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name closest to ``name``, or an empty string when none is close."""
    if len(name) > MAX_NAME:
        return ""
    names = {str(v).lower(): str(v) for v in valid}
    found = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    return names[found[0]] if found else ""


def listed(names: Iterable[str], most: int = 12) -> str:
    """``a, b, c ...`` for a message."""
    every = sorted(str(n) for n in names)
    return ", ".join(every[:most]) + (" ..." if len(every) > most else "") if every else "none"


def unknown(kind: str, name: str, valid: Iterable[str], where: Where = NOWHERE) -> InputError:
    """The error for a name that is not one of ``valid``."""
    valid = list(valid)
    return InputError(
        f"unknown {kind} {name!r}", where, expected=f"one of {listed(valid)}", nearest=nearest(name, valid)
    )
