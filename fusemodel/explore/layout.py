"""How an Einsum is laid over a unit: what is spread along each dimension, and the order of its own loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from math import inf, prod

_SPREAD = 6  # leaves of an Einsum that may be spread: the longest
_LAYOUTS = 32  # with the fewest steps whose traffic is looked at, those that spread the fewest leaves first
_ORDERED = 4  # own loops whose order is looked for: the longest; the others are outside them


@dataclass(frozen=True)
class Problem:
    """``free`` leaves may be spread or loop, ``own`` leaves only loop (name and size each); ``operands`` are the leaves
    of every tensor read, and last of the one made; ``shape`` the lengths of the unit's dimensions, along those of
    ``reduce`` of which ``reduced`` leaves may be spread; ``room`` the words its registers hold."""

    free: tuple[tuple[str, int], ...]
    own: tuple[tuple[str, int], ...]
    reduced: frozenset[str]
    operands: tuple[frozenset[str], ...]
    shape: tuple[tuple[str, int], ...]
    reduce: frozenset[str]
    room: float


@dataclass(frozen=True)
class Layout:
    """``steps``: how often the unit is filled for one step of the shared loops."""

    spatial: Mapping[str, tuple[str, ...]]
    loops: tuple[str, ...]
    steps: int


@lru_cache(maxsize=4096)
def lay_out(problem: Problem) -> Layout:
    """The layout with the fewest steps, among those the one that moves the fewest words into the array and out of it,
    then the one that spreads the fewest leaves."""
    sizes = dict(problem.free + problem.own)
    scored = []
    for spatial in _placements(problem):
        placed = {x for xs in spatial.values() for x in xs}
        folds = prod(-(-prod(sizes[x] for x in spatial[d]) // n) for d, n in problem.shape)
        steps = folds * prod(n for x, n in sizes.items() if x not in placed)
        held = sum(prod(sizes[x] for x in leaves & placed) for leaves in problem.operands)
        scored.append((held > problem.room, steps, len(placed), spatial))
    crowded, steps, *_ = min(scored, key=lambda s: s[:3])
    best: Layout | None = None
    least: tuple[float, ...] = (inf,)
    alike = sorted((s for s in scored if s[:2] == (crowded, steps)), key=lambda s: s[2])
    for _, _, count, spatial in alike[:_LAYOUTS]:
        placed = {x for xs in spatial.values() for x in xs}
        for order in _orders([x for x in sizes if x not in placed], sizes):
            score = (_words(problem, order, placed, sizes), count)
            if score < least:
                best, least = Layout({d: xs for d, xs in spatial.items() if xs}, order, steps), score
    assert best is not None
    return best


def _placements(problem: Problem) -> Iterator[dict[str, tuple[str, ...]]]:
    """Every way to give the longest free leaves to the dimensions, or to none."""
    leaves = [x for x, n in sorted(problem.free, key=lambda x: (-x[1], x[0]))[:_SPREAD] if n > 1]
    dims = [d for d, _ in problem.shape]
    options = [[None, *(d for d in dims if x not in problem.reduced or d in problem.reduce)] for x in leaves]
    for choice in product(*options):
        yield {d: tuple(x for x, c in zip(leaves, choice, strict=True) if c == d) for d in dims}


def _orders(loops: list[str], sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Orders of the own loops, outermost first."""
    inner = [x for x in sorted(loops, key=lambda x: (-sizes[x], x)) if sizes[x] > 1][:_ORDERED]
    outer = [x for x in loops if x not in inner]
    for order in permutations(sorted(inner)):
        yield (*outer, *order)


def _words(problem: Problem, order: tuple[str, ...], placed: set[str], sizes: Mapping[str, int]) -> float:
    """Words that pass the edge of the array in one step of the shared loops; partial results come back."""
    total = 0
    for i, leaves in enumerate(problem.operands):
        last = max((k for k, x in enumerate(order) if x in leaves and sizes[x] > 1), default=-1)
        moved = prod(sizes[x] for x in order[: last + 1]) * prod(sizes[x] for x in leaves & placed)
        total += moved
        if i == len(problem.operands) - 1:
            total += moved - prod(sizes[x] for x in leaves & (placed | set(order)))
    return total
