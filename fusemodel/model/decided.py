"""Counts that conditions decide: numbers of a few tile sizes each, looked up by every candidate that has these.

Where some point may be absent, a count is no product of sizes. It is found by the plain model, once for each
combination of the sizes it depends on (or for all at once, :mod:`fusemodel.model.banded`), and stands as one value in
everything that is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusemodel.model.amounts import Amount, Columns, Sizes
from fusemodel.model.expression import Untraceable
from fusemodel.model.frame import Frame, frames_of, loose_ranks, ragged_frames
from fusemodel.model.plan import Plan

#: Values of counts kept for a plan; beyond it all are found again.
_KEPT = 2**18

#: The frames of a plan's Einsums for plain sizes.
Frames = Mapping[str, Frame]


class Inexact(Untraceable):
    """An upper bound that depends on more than the sizes a count is looked up by."""


@dataclass(frozen=True, slots=True)
class Found:
    """A count at plain sizes; ``exact``, or an upper bound, of which ``notes`` tell."""

    value: float
    exact: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Count:
    """A count of one group. ``key`` is the same for equal counts, whatever Einsum asks.

    It depends on the product of the sizes of each of ``runs`` (digits of a rank that are all looked at or all not) and
    on which of ``steps`` have several steps; where it is no more than an upper bound, on the sizes of all ``leaves``,
    and if ``strict`` on how it was bounded. ``note`` is said of a bound. ``fast`` finds it for columns of sizes, where
    it can (else None). ``loose``: the ranks that tiles may not divide, else as the sizes have it.
    """

    key: Hashable
    runs: tuple[tuple[str, ...], ...]
    steps: tuple[str, ...]
    find: Callable[[Plan, Frames, Mapping[str, int]], Found]
    note: str = ""
    strict: bool = False
    fast: Callable[[Plan, Frames, Columns], np.ndarray | None] | None = None
    loose: frozenset[str] | None = None

    @property
    def leaves(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(x for run in self.runs for x in run), *self.steps)))


def runs_of(ranks: Iterable[Sequence[str]], alike: Callable[[str], Hashable]) -> tuple[tuple[str, ...], ...]:
    """The leaves of some ranks, neighbours that are ``alike`` together."""
    found: dict[tuple[str, ...], None] = {}
    for leaves in ranks:
        run: list[str] = []
        for leaf in leaves:
            if run and alike(run[-1]) != alike(leaf):
                found[tuple(run)] = None
                run = []
            run.append(leaf)
        found[tuple(run)] = None
    return tuple(found)


class Rows:
    """Values of counts for arrays of sizes; ``notes`` are those of every value found."""

    def __init__(self, plan: Plan, sizes: Sizes, extents: Mapping[str, int], notes: list[str]) -> None:
        self.plan, self.extents, self.notes = plan, extents, notes
        self.sizes = sizes if isinstance(sizes, Columns) else Columns(sizes)
        self.length = self.sizes.length
        frames_of(plan, extents)  # so that what the plan keeps is for these extents

    def amount(self, count: Count) -> Amount:
        """A value for each row; Inexact where a bound cannot be looked up."""
        if (together := self._together(count)) is not None:
            return together
        table: dict[tuple[float, ...], Found] = self._kept().setdefault(count.key, {})
        columns = [self._product(run) for run in count.runs] + [self._product((x,)) > 1 for x in count.steps]
        found, at = self._looked_up(count, table, columns)
        if not all(f.exact for f in found):
            if count.strict:
                raise Inexact(count.note)
            table = self._kept().setdefault((count.key, "bounds"), {})
            found, at = self._looked_up(count, table, [self._product((x,)) for x in count.leaves])
        for f in found:
            said = f.notes or ((count.note,) if count.note and not f.exact else ())
            self.notes += [n for n in said if n not in self.notes]
        values = np.array([f.value for f in found], dtype=float)
        return values[at] if len(values) > 1 else np.full(self.length, values[0])

    def _together(self, count: Count) -> np.ndarray | None:
        if count.fast is None:
            return None
        loose = loose_ranks(self.plan, self.sizes, self.extents) if count.loose is None else count.loose
        return count.fast(self.plan, ragged_frames(self.plan, self.extents, loose), self.sizes)

    def _kept(self) -> dict[Hashable, dict[tuple[float, ...], Found]]:
        kept = self.plan.memo.setdefault("decided", {})
        if sum(map(len, kept.values())) > _KEPT:
            kept.clear()
        return kept

    def _product(self, leaves: Sequence[str]) -> np.ndarray:
        total = np.ones(self.length)
        for x in leaves:
            total = total * self.sizes.column(x)
        return total

    def _looked_up(
        self, count: Count, table: dict[tuple[float, ...], Found], columns: Sequence[np.ndarray]
    ) -> tuple[list[Found], np.ndarray]:
        """What there is for every combination of values, and which each row has."""
        rows = np.stack(columns, axis=1).astype(float) if columns else np.zeros((self.length, 1))
        unique, first, at = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        found: list[Found] = []
        for key, i in zip(map(tuple, unique.tolist()), first.tolist(), strict=True):
            if key not in table:
                table[key] = self._find(count, i)
            found.append(table[key])
        return found, at.reshape(-1)

    def _find(self, count: Count, row: int) -> Found:
        one = self.sizes.row(row)
        loose = loose_ranks(self.plan, one, self.extents) if count.loose is None else count.loose
        return count.find(self.plan, ragged_frames(self.plan, self.extents, loose), one)
