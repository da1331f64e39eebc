"""How Einsums are laid over a unit: what is spread along each dimension, and the order of their own loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from fusemodel.explore.front import Floats, front

_SPREAD = 5  # leaves that may be spread: the longest
_ORDERED = 4  # own loops whose order is looked for: the longest; the others are outside them


@dataclass(frozen=True)
class Member:
    """An Einsum of a nest: its ``leaves`` inside the shared loops, those it reduces, the leaves of every operand and
    last of its result, and the cycles of a point."""

    leaves: frozenset[str]
    reduced: frozenset[str]
    operands: tuple[frozenset[str], ...]
    cycles: float


@dataclass(frozen=True)
class Ragged:
    """Of ``tiles``, the last one has ``last`` elements of a leaf."""

    leaf: str
    last: int
    tiles: int


@dataclass(frozen=True)
class Problem:
    """A nest on a unit. ``free`` leaves may be spread or loop, ``own`` leaves only loop: name and size each, or the
    smallest and the largest size; ``shape`` has the lengths of the unit's dimensions, along those of ``reduce`` of
    which reduced leaves may be spread; ``room`` the words its registers hold. ``tiled``: tiles of operands may be
    kept under own loops. ``spatial`` and ``order`` are given, or to be found. ``ragged`` leaves have fewer elements in
    a last tile."""

    free: tuple[tuple[str, int], ...]
    own: tuple[tuple[str, int, int], ...]
    members: tuple[Member, ...]
    shape: tuple[tuple[str, int], ...]
    reduce: frozenset[str]
    room: float
    tiled: bool
    spatial: tuple[tuple[str, tuple[str, ...]], ...] | None = None
    order: tuple[str, ...] | None = None
    ragged: tuple[Ragged, ...] = ()


@dataclass(frozen=True)
class Layout:
    """``cycles`` that one step of the shared loops takes at least, on average."""

    spatial: tuple[tuple[str, tuple[str, ...]], ...]
    loops: tuple[str, ...]
    cycles: float


@lru_cache(maxsize=1 << 16)
def layouts(problem: Problem) -> tuple[Layout, ...]:
    """Layouts of which none is worse than another in cycles, in words that pass the edge of the array for any operand,
    and in what the registers hold; fewest cycles first.

    Words are products of sizes, so one that is no worse for the smallest and for the largest size of a loop is no worse
    between them. It has to be no worse in a last tile that is smaller either.
    """
    corners = [
        dict(problem.free) | dict(zip((x for x, *_ in problem.own), at, strict=True)) for at in _corners(problem)
    ]
    spreads = list(_placements(problem))
    if problem.spatial is not None:
        spreads = [{**{d: () for d, _ in problem.shape}, **dict(problem.spatial)}]
    elif problem.tiled:  # the unit filled as well as it can be, and without folds where that is as good
        least = _Table(problem, corners[:1], [(s, ()) for s in spreads]).on_average()
        spreads = [s for s, n in zip(spreads, least, strict=True) if n <= least.min()]
        sizes, lengths = dict(problem.free), dict(problem.shape)
        flat = [s for s in spreads if all(prod(sizes[x] for x in xs) <= lengths[d] for d, xs in s.items())]
        spreads = flat or spreads
    pairs = [(s, order) for s in spreads for order in _orders(problem, frozenset(x for xs in s.values() for x in xs))]
    table = _Table(problem, corners, pairs)
    least = table.on_average()
    kept = (
        Layout(tuple((d, xs) for d, xs in pairs[i][0].items() if xs), pairs[i][1], float(least[i]))
        for i in front(table.columns())
    )
    return tuple(sorted(kept, key=lambda x: (x.cycles, len(x.spatial), x.loops)))


def _corners(problem: Problem) -> list[tuple[int, ...]]:
    options = [sorted({low, max(low, min(2, high)), high}) for _, low, high in problem.own]
    return list(product(*options))


def _placements(problem: Problem) -> Iterator[dict[str, tuple[str, ...]]]:
    """Every way to give the longest free leaves to the dimensions, or to none."""
    leaves = [x for x, n in sorted(problem.free, key=lambda x: (-x[1], x[0]))[:_SPREAD] if n > 1]
    reduced = frozenset().union(*(m.reduced for m in problem.members))
    dims = [d for d, _ in problem.shape]
    options = [[None, *(d for d in dims if x not in reduced or d in problem.reduce)] for x in leaves]
    for choice in product(*options):
        yield {d: tuple(x for x, c in zip(leaves, choice, strict=True) if c == d) for d in dims}


def _orders(problem: Problem, placed: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Orders of the own loops, outermost first."""
    sizes = dict(problem.free) | {x: high for x, _, high in problem.own}
    loops = [x for x in sizes if x not in placed]
    if problem.order is not None:
        yield (*(x for x in problem.order if x in loops), *(x for x in loops if x not in problem.order))
        return
    inner = [x for x in sorted(loops, key=lambda x: (-sizes[x], x)) if sizes[x] > 1][:_ORDERED]
    outer = [x for x in loops if x not in inner]
    for order in permutations(sorted(inner)):
        yield (*outer, *order)


def _last(problem: Problem) -> list[tuple[dict[str, int], float]]:
    """Sizes that leaves have in last tiles instead, and in which part of all tiles."""
    sizes = dict(problem.free)
    each = [((r.leaf, sizes[r.leaf], 1 - 1 / r.tiles), (r.leaf, r.last, 1 / r.tiles)) for r in problem.ragged]
    return [({x: n for x, n, _ in some}, prod(p for *_, p in some)) for some in product(*each)]


class _Table:
    """Layouts (spatial, order of loops) as rows, for some ``corners`` (sizes of all leaves), each with every last tile:
    arrays are (layout, sizes, leaf or loop)."""

    def __init__(
        self, problem: Problem, corners: Sequence[Mapping[str, int]],
        layouts: Sequence[tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]],
    ) -> None:  # fmt: skip
        self.problem, last = problem, _last(problem)
        self.leaves = sorted(corners[0])
        number = {x: i for i, x in enumerate(self.leaves)}
        self.parts = np.array([part for _, part in last])
        self.sizes = np.array([[{**one, **some}[x] for x in self.leaves] for one in corners for some, _ in last], float)
        dims = {d: i for i, (d, _) in enumerate(problem.shape)}
        self.dim = np.full((len(layouts), len(self.leaves)), -1)
        self.order = np.full((len(layouts), max(len(order) for _, order in layouts)), -1)
        self.place = np.full(self.dim.shape, len(self.leaves))  # of each leaf among the loops: beyond them where spread
        for i, (spatial, order) in enumerate(layouts):
            for d, xs in spatial.items():
                self.dim[i, [number[x] for x in xs if x in number]] = dims[d]
            loops = [number[x] for x in order]
            self.order[i, : len(loops)] = loops
            self.place[i, loops] = range(len(loops))

    def among(self, leaves: frozenset[str]) -> NDArray[np.bool_]:
        return np.array([x in leaves for x in self.leaves])

    def product(self, mask: NDArray[np.bool_]) -> Floats:
        """Of the sizes of those leaves of each layout that a mask has."""
        return np.where(mask[:, None, :], self.sizes, 1.0).prod(axis=2)

    def cycles(self) -> Floats:
        total = np.zeros((len(self.dim), len(self.sizes)))
        for member in self.problem.members:
            mine = self.among(member.leaves)
            turns = self.product(mine & (self.dim < 0))
            for d, (_, length) in enumerate(self.problem.shape):
                turns *= np.ceil(self.product(mine & (self.dim == d)) / length)
            total += turns * member.cycles
        return total

    def on_average(self) -> Floats:
        """Cycles of a tile, for the first corner, the last ones being smaller."""
        return (self.cycles()[:, : len(self.parts)] * self.parts).sum(axis=1)

    def columns(self) -> Floats:
        """Cycles; and for every operand the words that pass the edge of the array in one step of the shared loops,
        whether they change with the own loops, and whether the registers hold what is spread."""
        found = [self.cycles()]
        loops = np.where(self.order[:, None, :] >= 0, self.sizes.T[self.order].swapaxes(1, 2), 1.0)
        for member in self.problem.members:
            around = self.among(member.leaves)
            steps = np.where(around[self.order][:, None, :], loops, 1.0).cumprod(axis=2)
            steps = np.concatenate([np.ones((*steps.shape[:2], 1)), steps], axis=2)
            for leaves in member.operands:
                mine = self.among(leaves)
                moves = (mine[self.order] & (self.order >= 0))[:, None, :] & (loops > 1)
                spread = self.product(mine & (self.dim >= 0))
                found += [self.steps_to(steps, moves) * spread, moves.any(axis=2), spread > self.problem.room]
                if self.problem.tiled:
                    found += self.tiles(mine, steps, moves)
        return np.concatenate(found, axis=1, dtype=float)

    @staticmethod
    def steps_to(steps: Floats, moves: NDArray[np.bool_]) -> Floats:
        """Steps of the loops down to the innermost that moves."""
        count = moves.shape[2]
        last = np.where(moves.any(axis=2), count - np.argmax(moves[:, :, ::-1], axis=2), 0) if count else 0
        return np.take_along_axis(steps, np.broadcast_to(last, steps.shape[:2])[:, :, None], axis=2)[:, :, 0]

    def tiles(self, mine: NDArray[np.bool_], steps: Floats, moves: NDArray[np.bool_]) -> Iterator[Floats]:
        """Words brought and words held if a tile of an operand were kept under each of the loops in turn."""
        for x in np.flatnonzero(mine):
            spread, at = self.dim[:, x] >= 0, self.place[:, x]
            held = self.product(mine & (self.place > at[:, None]))
            outside = moves & (np.arange(moves.shape[2]) <= at[:, None])[:, None, :]
            brought = self.steps_to(steps, outside) * held
            yield from (np.where(spread[:, None], inf, y) for y in (brought, held))


__all__ = ["Layout", "Member", "Problem", "layouts"]
