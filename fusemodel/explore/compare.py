"""In which columns one partial mix may be better than another that has the same levels still to serve.

What enters latency matters only above what the mix takes at least; and where a mapping is known that takes no longer
than that, it is a limit, as space is. Of what has a limit it matters which of the sums still to come fit beside it,
and nothing else. Of equal latency, fewer words are better whatever the energy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fusemodel.explore.front import Floats
from fusemodel.explore.goal import Best

if TYPE_CHECKING:
    from fusemodel.explore.mix import Mix

_ROUNDING = 1e-12
_SUMS = 4096  # of what is still to come; beyond them only the largest is used
_EQUAL = 1e-9


class Compare:
    """The comparison for one combination ``at`` of the sizes of a mix that takes ``floor`` cycles at least."""

    def __init__(self, mix: Mix, at: int, floor: float) -> None:
        self.mix, self.at, self.floor = mix, at, floor
        self.columns = mix.columns
        self.tiled = any(o.tiles for mine in mix.costs.options for o in mine)
        self.sums: dict[tuple[int, ...], list[Floats | None]] = {}

    def matter(self, rows: Floats, decided: int, best: Best) -> Floats:
        """What matters of partial mixes after so many decisions: columns of which less is better."""
        c, goal = self.columns, best.goal
        limit = self.limit(best)
        found = [rows[:, 0], *self.timed(rows, decided, limit)]
        words = range(c.words.start, c.words.stop)
        outer = c.timed.index(self.mix.scene.arch.outermost) if self.mix.scene.arch.outermost in c.timed else None
        found += [rows[:, k] for k in words if k - c.words.start != outer]
        if limit is not None and goal.objectives[1:2] == ("dram",):
            found.append(ranked(rows[:, c.out], rows[:, c.energy] if "energy" in goal.objectives else None))
        else:
            found += [rows[:, c.out], rows[:, c.energy]]
        for k, room in enumerate(self.mix.capacity):
            column = c.space.start + k
            if not goal.lexical and column != c.held:
                found.append(rows[:, column])
            elif np.isfinite(room):
                exact = column == c.held or not self.tiled
                full = room * (1 + 1e-12) + 1e-9
                found.append(self.beside(rows[:, column], (column,), decided, full) if exact else rows[:, column])
        return np.stack([x for x in found if x.min() < x.max()] or [np.zeros(len(rows))], axis=1)

    def limit(self, best: Best) -> float | None:
        """Cycles of a mapping that is known and takes no longer than any, where latency comes first."""
        if not best.points or not best.goal.lexical or best.goal.objectives[0] != "latency":
            return None
        unheld, latency = best.points[0][0][:2]
        return latency if unheld == 0 and latency <= self.floor * (1 + _EQUAL) else None

    def timed(self, rows: Floats, decided: int, limit: float | None) -> list[Floats]:
        """Cycles of units and of recurrences."""
        c = self.columns
        groups: list[tuple[int, ...]] = [(k,) for k in range(c.waits.start, c.waits.stop)]
        busy = range(c.busy.start, c.busy.stop)
        if not self.mix.piped[self.at]:
            groups.append(tuple(busy))
        elif c.lines == 1:
            groups += [(k,) for k in busy]
        found = [] if not self.mix.piped[self.at] or c.lines == 1 else [rows[:, k] for k in busy]
        for some in groups:
            column = rows[:, some].sum(axis=1)
            if limit is not None:
                found.append(self.beside(column, some, decided, limit * (1 + _ROUNDING)))
                continue
            rest = self.rest(some, decided)
            found.append(column if rest is None else np.maximum(column, self.floor - rest[-1]))
        return found

    def beside(self, column: Floats, columns: tuple[int, ...], decided: int, limit: float) -> Floats:
        """The most that leaves room for as much of what is still to come, within a limit."""
        rest = self.rest(columns, decided)
        if rest is None:
            return column
        at = np.searchsorted(rest, (limit - column) + limit * _ROUNDING, side="right")
        return np.where(at > 0, limit - rest[np.maximum(at - 1, 0)], np.inf)

    def rest(self, columns: tuple[int, ...], decided: int) -> Floats | None:
        """The sums that may still come of some columns together, rising; None where they are too many."""
        if columns not in self.sums:
            self.sums[columns] = self.counted(columns)
        return self.sums[columns][decided]

    def counted(self, columns: tuple[int, ...]) -> list[Floats | None]:
        found: list[Floats | None] = [np.zeros(1)]
        for d in reversed(self.mix.decisions):
            before = found[-1]
            if before is None:
                found.append(None)
                continue
            if isinstance(d, str):
                each = self.mix.costs.tensors[d].columns[:, list(columns), self.at].sum(axis=1)
                each = np.concatenate([each, self.taken(d, columns)]) if d in self.mix.chains else each
            else:
                each = np.array([o.base[list(columns), self.at].sum() for o in self.mix.costs.options[d]])
            each = np.unique(each[np.isfinite(each)])
            sums = np.unique(before[:, None] + each)
            found.append(sums if len(sums) <= _SUMS else None)
        return found[::-1]

    def taken(self, tensor: str, columns: tuple[int, ...]) -> Floats:
        """What a tensor may add where it takes the place of another."""
        before = self.mix.costs.tensors[self.mix.chains[tensor]].columns[:, list(columns), self.at].sum(axis=1)
        mine = self.mix.costs.tensors[tensor].columns[:, list(columns), self.at].sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.concatenate([[0.0], np.maximum(mine[:, None] - before, 0.0).ravel()])


def ranked(first: Floats, second: Floats | None) -> Floats:
    """The rank of pairs, the first number of which comes first."""
    if second is None:
        return first
    order = np.lexsort((second, first))
    a, b = first[order], second[order]
    steps = np.concatenate([[False], (np.diff(a) > 0) | (np.diff(b) > 0)])
    found = np.empty(len(first))
    found[order] = np.cumsum(steps)
    return found


__all__ = ["Compare"]
