"""Tiles that need not divide their rank: which sizes can be best, and how many steps there are.

Of all sizes that make a number of tiles, the smallest takes no more room, brings as much, and fills a unit as often
where it fits into it at once. A unit that is filled several times by one tile takes longest what does not fill it the
last time, so whole multiples of its lengths are candidates too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from fusemodel.model.amounts import ceil_div
from fusemodel.model.ragged import Root
from fusemodel.model.tiles import divisors

_APART = 2  # divisors that are further apart than this have ragged sizes between them


def tile_sizes(whole: int, most: int, lengths: Sequence[int] = (), *, few: bool = False) -> list[int]:
    """Sizes of tiles, at most ``most``, largest first: the divisors and the size that makes fewest tiles; where
    divisors are more than a factor of two apart, for every number of tiles the smallest size that makes it, and
    multiples of ``lengths`` (``few``: numbers of tiles twice as large each time)."""
    most = min(most, whole)
    fewest = ceil_div(whole, most)
    found = {ceil_div(whole, fewest), *(d for d in divisors(whole) if d <= most)}
    if any(b > _APART * a for a, b in pairwise(sorted({*found, most}))):
        if few:
            found |= {ceil_div(whole, fewest << k) for k in range(most.bit_length())}
        else:
            found |= smallest(whole, most) | {n for length in lengths for n in range(length, most + 1, length)}
    return sorted(found, reverse=True)


def smallest(whole: int, most: int) -> set[int]:
    """For every number of tiles of at most ``most`` the smallest size that makes it: about two roots of the whole."""
    found, size = set(), min(most, whole)
    while size >= 1:
        size = ceil_div(whole, ceil_div(whole, size))
        found.add(size)
        size -= 1
    return found


def steps(
    parts: Mapping[str, Sequence[str]], loops: Sequence[str], extents: Mapping[str, int], sizes: Mapping[str, Any]
) -> Any:
    """Steps of some loops that exist: numbers, or arrays as in ``sizes``. ``parts`` has the leaves of tiled ranks."""
    taken, total = dict.fromkeys(loops, True), 1.0
    for x in set(loops) - {x for leaves in parts.values() for x in leaves}:
        total = total * sizes[x]
    for rank, leaves in parts.items():
        if taken.keys() & set(leaves):
            total = total * Root(rank, tuple(leaves)).combinations(extents[rank], taken, sizes)
    return total


__all__ = ["smallest", "steps", "tile_sizes"]
