"""The plain search for layouts: of the same candidates, what :mod:`fusemodel.explore.layout` counts for all at once is
counted one number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, prod

import numpy as np

from fusemodel.explore.front import front
from fusemodel.explore.layout import Layout, Problem, _corners, _last, _orders, _placements


def layouts(problem: Problem) -> tuple[Layout, ...]:
    """Layouts of which none is worse than another in cycles, in words that pass the edge of the array for any operand,
    and in what the registers hold; fewest cycles first.

    Words are products of sizes, so one that is no worse for the smallest and for the largest size of a loop is no worse
    between them. It has to be no worse in a last tile that is smaller either.
    """
    rows, found = [], []
    corners = [
        dict(problem.free) | dict(zip((x for x, *_ in problem.own), at, strict=True)) for at in _corners(problem)
    ]
    spreads = list(_placements(problem))
    if problem.spatial is not None:
        spreads = [{**{d: () for d, _ in problem.shape}, **dict(problem.spatial)}]
    elif problem.tiled:  # the unit filled as well as it can be, and without folds where that is as good
        least = [_on_average(problem, s, frozenset(x for xs in s.values() for x in xs), corners[0]) for s in spreads]
        spreads = [s for s, n in zip(spreads, least, strict=True) if n <= min(least)]
        sizes, lengths = dict(problem.free), dict(problem.shape)
        flat = [s for s in spreads if all(prod(sizes[x] for x in xs) <= lengths[d] for d, xs in s.items())]
        spreads = flat or spreads
    for spatial in spreads:
        placed = frozenset(x for xs in spatial.values() for x in xs)
        for order in _orders(problem, placed):
            every = (sizes | last for sizes in corners for last, _ in _last(problem))
            rows.append([y for sizes in every for y in _columns(problem, spatial, placed, order, sizes)])
            least = _on_average(problem, spatial, placed, corners[0])
            found.append(Layout(tuple((d, xs) for d, xs in spatial.items() if xs), order, least))
    kept = front(np.array(rows, dtype=float))
    return tuple(sorted((found[i] for i in kept), key=lambda x: (x.cycles, len(x.spatial), x.loops)))


def _cycles(
    problem: Problem, spatial: Mapping[str, tuple[str, ...]], placed: frozenset[str], sizes: Mapping[str, int]
) -> float:
    total = 0.0
    for member in problem.members:
        folds = prod(-(-prod(sizes[x] for x in spatial[d] if x in member.leaves) // n) for d, n in problem.shape)
        total += folds * prod(n for x, n in sizes.items() if x in member.leaves - placed) * member.cycles
    return total


def _on_average(
    problem: Problem, spatial: Mapping[str, tuple[str, ...]], placed: frozenset[str], sizes: Mapping[str, int]
) -> float:
    """Cycles of a tile, the last ones being smaller."""
    return sum(part * _cycles(problem, spatial, placed, {**sizes, **last}) for last, part in _last(problem))


def _columns(
    problem: Problem, spatial: Mapping[str, tuple[str, ...]], placed: frozenset[str], order: tuple[str, ...],
    sizes: Mapping[str, int],
) -> Iterator[float]:  # fmt: skip
    """Cycles; and for every operand the words that pass the edge of the array in one step of the shared loops, whether
    they change with the own loops, and whether the registers hold what is spread."""
    yield _cycles(problem, spatial, placed, sizes)
    for member in problem.members:
        for leaves in member.operands:
            last = max((k for k, x in enumerate(order) if x in leaves and sizes[x] > 1), default=-1)
            spread = prod(sizes[x] for x in leaves & placed)
            yield prod(sizes[x] for x in order[: last + 1] if x in member.leaves) * spread
            yield float(last >= 0)
            yield float(spread > problem.room)
            if problem.tiled:
                yield from _tiles(leaves, member.leaves, placed, order, sizes)


def _tiles(
    leaves: frozenset[str], around: frozenset[str], placed: frozenset[str], order: tuple[str, ...],
    sizes: Mapping[str, int],
) -> Iterator[float]:  # fmt: skip
    """Words brought and words held if a tile of an operand were kept under each of the loops in turn."""
    for x in sorted(sizes):
        if x not in leaves:
            continue
        if x in placed:
            yield from (inf, inf)
            continue
        outside = order[: order.index(x) + 1]
        held = prod(sizes[y] for y in leaves if y not in outside)
        last = max((k for k, y in enumerate(outside) if y in leaves and sizes[y] > 1), default=-1)
        yield prod(sizes[y] for y in outside[: last + 1] if y in around) * held
        yield held


__all__ = ["layouts"]
