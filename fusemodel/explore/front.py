"""Rows that no other row is as good as in every column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BLOCK = 256
_SMALL = 48


def front(rows: Floats) -> NDArray[np.int64]:
    """Indices of the rows (smaller is better) that none is as good as in all columns; the first of equals."""
    if len(rows) <= 1:
        return np.arange(len(rows))
    if rows.shape[1] == 2:
        order = np.lexsort(rows.T[::-1])
        second = rows[order, 1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        return order[second < before]
    if len(rows) <= _SMALL:
        good = (rows[:, None, :] <= rows[None, :, :]).all(axis=2)  # [i, j]: i is as good as j
        beats = good & (~good.T | np.tri(len(rows), k=-1, dtype=bool).T)
        return np.flatnonzero(~beats.any(axis=0))
    order = np.lexsort(rows.T[::-1])
    kept = np.empty((0, rows.shape[1]))
    indices: list[NDArray[np.int64]] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        if len(kept):
            good = np.asarray((kept[None, :, :] <= rows[block][:, None, :]).all(axis=2))
            worse = np.logical_or.reduce(good, axis=1)
            block = block[~worse]
        here = rows[block]
        better = (here[None, :, :] <= here[:, None, :]).all(axis=2)  # [i, j]: j is as good as i
        better &= np.tri(len(here), k=-1, dtype=bool)  # of equals the first stays; none is better than an earlier one
        block = block[~np.logical_or.reduce(better, axis=1)]
        indices.append(block)
        kept = np.concatenate([kept, rows[block]])
    return np.concatenate(indices)
