"""Tables put one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusemodel.validate.table import TEXT, Table


def joined(tables: Sequence[Table]) -> Table:
    """One table of the rows of several; numbers that a table lacks are NaN."""
    if len(tables) == 1:
        return tables[0]
    columns = dict.fromkeys(c for t in tables for c in t.numbers)
    numbers = {c: np.concatenate([t.numbers.get(c, np.full(len(t), np.nan)) for t in tables]) for c in columns}
    text = {c: np.concatenate([t.text[c] for t in tables]) for c in TEXT}
    lines = np.concatenate([t.lines for t in tables])
    skipped = tuple(s for t in tables for s in t.skipped)
    return Table(", ".join(t.file for t in tables), text, numbers, lines, skipped)
