"""Steps of loops in which some point is present, and what a unit does in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusemodel.model.amounts import Amount, Sizes, product
from fusemodel.model.domain import count_union
from fusemodel.model.frame import Frame
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
