"""Ranks whose last tile is smaller: how many steps, lanes and elements of them there are.

The coordinate of a rank that is tiled is a number written with one digit for each leaf, outermost first. Those present
are the ones up to the last coordinate, so that every count is a sum over where a number falls short of it for the first
time. Amounts are numbers, arrays of them or expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as combinations
from typing import Any

from fusemodel.model.amounts import Amount, Sizes, floor_div, product, where
from fusemodel.model.forms import Linear

#: Which leaves are told apart: surely, surely not, or on a condition.
Taken = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Root:
    """A rank whose ``leaves``, outermost first, have more combinations than it has coordinates. By themselves, the
    first ``exact`` of them have every combination."""

    rank: str
    leaves: tuple[str, ...]
    exact: int = 0

    def concerns(self, leaves: Collection[str]) -> bool:
        """Whether some of these leaves have fewer combinations than the product of their sizes."""
        return any(x in leaves for x in self.leaves[self.exact :])

    def form(self, extent: int, sizes: Sizes) -> Linear:
        """That a coordinate is present."""
        coefficients: dict[str, int] = {}
        stride = 1
        for leaf in reversed(self.leaves):
            coefficients[leaf] = stride
            stride *= int(sizes[leaf])
        return Linear(coefficients, 1 - extent)

    def digits(self, extent: Amount, sizes: Sizes) -> list[Amount]:
        """Those of the last coordinate, outermost first."""
        found: list[Amount] = []
        left = extent - 1
        for leaf in reversed(self.leaves[1:]):
            outer = floor_div(left, sizes[leaf])
            found.append(left - outer * sizes[leaf])
            left = outer
        return [left, *reversed(found)]

    def combinations(self, extent: Amount, taken: Taken, sizes: Sizes) -> Amount:
        """Combinations of the leaves ``taken`` that some coordinate has."""
        if all(taken.get(x) is True for x in self.leaves):
            return extent
        full: Amount = 1
        some: Amount = 1
        for leaf, digit in zip(reversed(self.leaves), reversed(self.digits(extent, sizes)), strict=True):
            held = taken.get(leaf, False)
            inside = digit * full + some
            outside = where(digit > 0, full, some)
            some = inside if held is True else outside if held is False else where(held, inside, outside)
            full = full * (sizes[leaf] if held is True else 1 if held is False else where(held, sizes[leaf], 1))
        return some


@dataclass(frozen=True, slots=True)
class Class:
    """``count`` steps of some loops at which as many ``lanes`` of each of several spaces exist; they are those that
    meet ``forms`` (plain numbers only). ``where`` says, for each rank, at which loop they differ from the last
    coordinate, and how."""

    count: Amount
    lanes: tuple[Amount, ...]
    forms: tuple[Linear, ...]
    where: tuple[tuple[str, bool] | None, ...]


def classes_of(
    roots: Sequence[Root], extents: Sizes, sizes: Sizes, loops: Sequence[str], spaces: Sequence[Sequence[str]]
) -> list[Class]:
    """The steps of ``loops`` by how many combinations of the leaves of each of ``spaces`` exist there."""
    rooted = {x for r in roots for x in r.leaves}
    count = product([x for x in loops if x not in rooted], sizes)
    lanes = tuple(product([x for x in space if x not in rooted], sizes) for space in spaces)
    found: list[Class] = []
    each = [_classes(r, r.digits(extents[r.rank], sizes), sizes, loops, spaces) for r in roots]
    for some in combinations(*each):
        total, beside = count, lanes
        for c in some:
            total = total * c.count
            beside = tuple(a * b for a, b in zip(beside, c.lanes, strict=True))
        if total.__class__ not in (int, float) or total:
            forms = tuple(f for c in some for f in c.forms)
            found.append(Class(total, beside, forms, tuple(w for c in some for w in c.where)))
    return found


def _classes(
    root: Root, digits: Sequence[Amount], sizes: Sizes, loops: Sequence[str], spaces: Sequence[Sequence[str]]
) -> list[Class]:
    """By where the loops, read as digits, differ from the last coordinate for the first time: there below it, above
    it (possible where a digit further out is no loop's), or nowhere."""
    digit = dict(zip(root.leaves, digits, strict=True))
    steps = [x for x in root.leaves if x in loops]
    outside = root.leaves[0] not in steps  # whether a digit further out is no loop's
    found: list[Class] = []
    for i, leaf in enumerate(steps):
        outside = outside or root.leaves.index(leaf) > i
        equal, free = steps[:i], product(steps[i + 1 :], sizes)
        found.append(_class(root, digit, sizes, spaces, equal, (leaf, True), digit[leaf] * free))
        if outside:
            more = (sizes[leaf] - 1 - digit[leaf]) * free
            found.append(_class(root, digit, sizes, spaces, equal, (leaf, False), more))
    found.append(_class(root, digit, sizes, spaces, steps, None, 1))
    return found


def _class(
    root: Root, digit: Mapping[str, Amount], sizes: Sizes, spaces: Sequence[Sequence[str]], equal: Sequence[str],
    differs: tuple[str, bool] | None, count: Amount,
) -> Class:  # fmt: skip
    below = {differs[0]: differs[1]} if differs else {}
    exists, *lanes = (_lanes(root, digit, sizes, space, equal, below) for space in ((), *spaces))
    forms: list[Linear] = []
    if all(n.__class__ in (int, float) for n in digit.values()):
        for x in equal:
            forms += [Linear({x: 1}, -int(digit[x])), Linear({x: -1}, int(digit[x]))]
        for x, less in below.items():
            forms.append(Linear({x: 1}, 1 - int(digit[x])) if less else Linear({x: -1}, int(digit[x]) + 1))
    return Class(count * exists, tuple(lanes), tuple(forms), (differs,))


def _lanes(
    root: Root, digit: Mapping[str, Amount], sizes: Sizes, space: Sequence[str], equal: Sequence[str],
    below: Mapping[str, bool],
) -> Amount:  # fmt: skip
    """Combinations of the leaves of a space that exist while some loops stand as the last coordinate has them
    (``equal``), one is below or above it, and those further in are anywhere."""
    full: Amount = 1
    some: Amount = 1
    for leaf in reversed(root.leaves):
        if leaf in equal:
            continue
        if leaf in below:
            some = full if below[leaf] else 0
        elif leaf in space:
            some, full = digit[leaf] * full + some, full * sizes[leaf]
        else:
            some = where(digit[leaf] > 0, full, some)
    return some


def summed(
    roots: Sequence[Root], extents: Sizes, sizes: Sizes, loops: Sequence[str], spaces: Sequence[Sequence[str]],
    of: Callable[..., Amount],
) -> Amount:  # fmt: skip
    """The sum, over the steps of some loops that exist, of a function of the lanes in each of some spaces."""
    if not roots:
        return product(loops, sizes) * of(*(product(space, sizes) for space in spaces))
    total: Amount = 0
    for c in classes_of(roots, extents, sizes, loops, spaces):
        total = total + c.count * of(*c.lanes)
    return total
