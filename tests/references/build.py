"""Cascades from few words, and arrays for them."""

from __future__ import annotations

from textwrap import dedent

from fusemodel.cascade import Cascade, parse_cascade


def text_of(equations: str, *, ranks: str, inputs: str, outputs: str, extra: str = "") -> str:
    """The text of a cascade file; the equations start in line 6 (7 with one line of ``extra``), column 3."""
    lines = dedent(equations).strip("\n").splitlines()
    head = ["name: small", f"ranks: {{{ranks}}}", f"inputs: {{{inputs}}}", f"outputs: [{outputs}]"]
    return "\n".join([*head, *([extra] if extra else []), "einsums: |", *(f"  {line}" for line in lines)]) + "\n"


def cascade_of(equations: str, *, ranks: str, inputs: str, outputs: str, extra: str = "") -> Cascade:
    return parse_cascade(text_of(equations, ranks=ranks, inputs=inputs, outputs=outputs, extra=extra))
