"""Counts that conditions decide, for columns of sizes: each found once, and where every row has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusemodel.model.compiled import machine
from fusemodel.model.compiled.tape import PLACES
from fusemodel.model.compiled.trace import Traced
from fusemodel.model.decided import Rows
from fusemodel.model.frame import settled
from fusemodel.model.plan import Plan


def tables(
    traced: Traced, names: Sequence[str], plans: Sequence[Plan], labels: Sequence[str], extents: Mapping[str, int],
    tiles: Mapping[str, np.ndarray], length: int, notes: list[str],
) -> dict[str, np.ndarray]:  # fmt: skip
    """A table of each of some counts, by name, and the place that each row has in all of them. ``notes`` are added of
    those that are bounds."""
    wanted = {n: traced.counts[n] for n in names}
    used = {labels[i] + x for i, count in wanted.values() for x in count.leaves} & tiles.keys()
    places, first = apart([tiles[n] for n in sorted(used)], length)
    found: dict[str, np.ndarray] = {PLACES: places}
    rows: dict[int, Rows] = {}
    for name, (i, count) in wanted.items():
        if i not in rows:
            own = [p for ps in plans[i].group.parts.values() for p in ps]
            some = {p: np.ascontiguousarray(tiles[labels[i] + p][first]) for p in own}
            rows[i] = Rows(settled(plans[i]), {**extents, **some}, extents, notes)
        found[name] = np.broadcast_to(rows[i].amount(count), (len(first),))
    return found


def apart(columns: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """The place of each row among those that differ, and a row at each place."""
    if not columns:
        return np.zeros(length), np.zeros(1, dtype=np.int64)
    keys = np.array(columns, dtype=np.int64)
    table = np.full(2 << max(length - 1, 1).bit_length(), -1, dtype=np.int64)
    places, first = np.empty(length), np.empty(length, dtype=np.int64)
    found = machine.entries()[2](keys, table, places, first)
    return places, first[:found]
