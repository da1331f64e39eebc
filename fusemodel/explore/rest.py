"""What is still to come of a mix, at least, for some combinations of sizes: bounds that say more than the least of each
column by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusemodel.explore.front import Floats, front

_POINTS = 512  # of a front of what units are still to do
_PRICES = np.geomspace(1e-4, 1e9, 40)
_BLOCK = 4096


@dataclass(frozen=True)
class Trade:
    """For one column and one kind of space, at each price of a word: the least that is still to come, by decision, of
    the column and of the price of the space taken (Lagrange)."""

    column: int
    space: int
    prices: Floats  # (combination, price)
    least: Floats  # (decision, combination, price)

    def bound(self, rows: Floats, at: NDArray[np.int64], decision: int, capacity: float) -> Floats:
        """What the column of each row, of a combination each, comes to at least."""
        free = capacity - rows[:, self.space]
        best = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            each = self.least[decision][at[part]] - self.prices[at[part]] * free[part, None]
            best[part] = each.max(axis=1)
        return rows[:, self.column] + best


def busy_fronts(choices: Sequence[Floats]) -> list[Floats]:
    """For each nest and the end: what it and those after it may take of the units (way, unit), of which none is better
    in all units; where there are too many, a few that are at least as good as all."""
    units = choices[0].shape[1]
    fronts = [np.zeros((1, units))]
    for mine in reversed(choices):
        mine = mine[front(mine)]
        every = (fronts[-1][:, None, :] + mine[None, :, :]).reshape(-1, units)
        fronts.append(_thinned(every[front(every)]))
    return fronts[::-1]


def _thinned(rows: Floats) -> Floats:
    rows = rows[np.lexsort(rows.T[::-1])]
    if len(rows) <= _POINTS:
        return rows
    cuts = np.linspace(0, len(rows), _POINTS + 1).astype(int)[:-1]
    return np.minimum.reduceat(rows, cuts, axis=0)


def busiest(rows: Floats, rest: Floats) -> Floats:
    """When the busiest unit is done at best, for each row of what units have done (row, unit), with one way of
    ``rest`` (way, unit; in rising order of the first unit)."""
    if rows.shape[1] == 1:
        return rows[:, 0] + rest[:, 0].min()
    if rows.shape[1] == 2:  # the ways cross where both units are done at once
        first, second = rest[:, 0], np.minimum.accumulate(rest[:, 1])
        at = np.searchsorted(first - second, rows[:, 1] - rows[:, 0])
        before = np.where(at > 0, rows[:, 1] + second[np.maximum(at - 1, 0)], np.inf)
        after = np.where(at < len(rest), rows[:, 0] + first[np.minimum(at, len(rest) - 1)], np.inf)
        return np.minimum(before, after)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        least = np.full(len(part), np.inf)
        for way in rest:
            np.minimum(least, (part + way).max(axis=1), out=least)
        found[start : start + _BLOCK] = least
    return found


def trade(
    column: int, space: int, capacity: float, scale: Floats, choices: Sequence[tuple[Floats, Floats]]
) -> Trade | None:
    """``choices`` has, for each decision, what each way adds to the column and takes of the space (way, combination);
    ``scale``: what the column comes to at least. None where there is nothing to trade."""
    if not np.isfinite(capacity) or capacity <= 0:
        return None
    prices = np.maximum(scale, 1.0)[:, None] * _PRICES / capacity
    least = np.zeros((len(choices) + 1, *prices.shape))
    for d in range(len(choices) - 1, -1, -1):
        values, sizes = choices[d]
        usable = np.isfinite(values) & np.isfinite(sizes)
        each = np.where(usable, values, np.inf)[:, :, None] + np.where(usable, sizes, 0.0)[:, :, None] * prices
        least[d] = least[d + 1] + each.min(axis=0)
    return Trade(column, space, prices, least)


__all__ = ["Trade", "busiest", "busy_fronts", "trade"]
