"""Steps of loops in which some point is present, and what a unit does in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusemodel.model import banded
from fusemodel.model.amounts import Amount, Columns, Sizes, product
from fusemodel.model.decided import Count, Found, Frames, runs_of
from fusemodel.model.domain import count_union
from fusemodel.model.frame import Frame
from fusemodel.model.plan import Plan
from fusemodel.model.ragged import classes_of


class Steps:
    """Counts of one Einsum; ``exact`` says whether those asked for so far are, or else upper bounds. ``taken``: how
    many steps of some loops are taken, where a group skips some."""

    def __init__(self, frame: Frame, sizes: Sizes, taken: Callable[[Sequence[str]], Amount] | None) -> None:
        self.frame, self.sizes, self.taken = frame, sizes, taken
        self.exact = True
        self.plain = taken is None and not frame.roots and not frame.conditional

    def points(self, leaves: Sequence[str]) -> Amount:
        """Combinations of some leaves at which a point is present."""
        if self.plain:
            return product(leaves, self.sizes)
        if not self.frame.conditional:
            return self.frame.steps(leaves, self.sizes)
        if self.frame.counter is not None:
            return self._decided(leaves)
        found, exact = self.frame.count(leaves, self.sizes)
        self.exact = self.exact and exact
        return found

    def busy(self, loops: Sequence[str], spaces: Sequence[Sequence[str]], of: Callable[..., Amount]) -> Amount:
        """The sum over the steps of some loops in which a point is present of what they take: a function of the lanes
        in each of some spaces, of the last tile of a rank those that exist. Blocks run one program for every tile."""
        frame, sizes = self.frame, self.sizes
        if self.plain:
            return product(loops, sizes) * of(*(product(space, sizes) for space in spaces))
        whole = of(*(product(space, sizes) for space in spaces))
        if self.taken is not None:
            return self.taken(loops) * whole
        if not frame.conditional:
            return frame.summed(loops, spaces, of, sizes)
        if frame.fixed or not frame.roots:
            return self.points(loops) * whole
        if frame.counter is not None:
            classes = classes_of(frame.roots, frame.limits, sizes, loops, spaces)
            return sum(of(*c.lanes) * self._decided(loops, spaces, c.where) for c in classes)
        classes = [(of(*c.lanes), c.forms) for c in classes_of(frame.roots, frame.limits, sizes, loops, spaces)]
        if len({n for n, _ in classes}) <= 1:
            return self.points(loops) * (classes[0][0] if classes else 0)
        total: Amount = 0
        for value, forms in classes:
            pieces = [[*frame.on_leaves(p, sizes), *forms] for p in frame.pieces]
            found, exact = count_union(pieces, loops, frame.with_quotients(sizes), apart=True)
            self.exact = self.exact and exact
            total = total + found * value
        return total

    def _decided(
        self, loops: Sequence[str], spaces: Sequence[Sequence[str]] = (), where: banded.Where | None = None
    ) -> Amount:
        """:meth:`points` (of those steps that differ from the last coordinates in one way: ``where``), as a count of
        the sizes that it depends on."""
        frame = self.frame
        name, coupled = frame.einsum.name, frame.coupled()
        seen = frozenset(x for x in loops if x in coupled)

        def find(_: Plan, frames: Frames, sizes: Mapping[str, int]) -> Found:
            here, order = frames[name], [x for x in loops if x in coupled]
            if where is None:
                return Found(*here.count(order, sizes))
            classes = classes_of(here.roots, here.limits, sizes, order, spaces)
            forms = next((c.forms for c in classes if c.where == tuple(where)), None)
            if forms is None:
                return Found(0)
            pieces = [[*here.on_leaves(p, sizes), *forms] for p in here.pieces]
            return Found(*count_union(pieces, order, here.with_quotients(sizes), apart=True))

        def fast(_: Plan, frames: Frames, sizes: Columns) -> Any:
            here = frames[name]
            return banded.steps(here, here.pieces, seen, sizes, where)

        ranks = [leaves for r, leaves in frame.einsum.ranks.items() if r not in frame.wholes and coupled & {*leaves}]
        alike = (lambda x: x in seen) if where is None else (lambda x: x if x in seen else "")
        roots = tuple(r.rank for r in frame.roots)
        key = ("points", frame.einsum.conditions, roots, seen, tuple(ranks), where and (*where, frame.loose))
        note = f"{name}: its cycles are an upper bound: its conditions leave too much to count"
        classed = where is not None
        count = Count(key, runs_of(ranks, alike), (), find, note, classed, fast, frame.loose if classed else None)
        assert frame.counter is not None
        return product([x for x in loops if x not in coupled], self.sizes) * frame.counter.amount(count)
