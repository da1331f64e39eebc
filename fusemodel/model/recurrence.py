"""Values that a step of an iterative rank needs from the step before: how soon tiles can follow each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fusemodel.cascade.graph import components
from fusemodel.cascade.ir import Cascade, Einsum, rank_values, reads
from fusemodel.mapping.check import Nest
from fusemodel.mapping.spec import Group

_MOST = 512  # cycles of dependences looked at


@dataclass(frozen=True, slots=True)
class Drain:
    """A spatial reduction that is waited for: ``leaves`` over a dimension of ``length``, once for each tile of
    ``loops``."""

    producer: str
    length: int
    leaves: tuple[str, ...]
    loops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Einsums each of which needs the one before it, the first the last of the step before. The steps of ``between``
    lie between two steps: as many tiles are independent of each other. ``drains``: spatial reductions on the way."""

    einsums: tuple[str, ...]
    between: tuple[str, ...]
    drains: tuple[Drain, ...]


def recurrences_of(
    group: Group,
    cascade: Cascade,
    einsums: Mapping[str, Einsum],
    nests: Mapping[str, Nest],
    drains: Mapping[str, Drain],
) -> tuple[Recurrence, ...]:
    """Every cycle of dependences among the Einsums of a group, with the steps that it crosses. ``drains``: that of each
    Einsum."""
    stepped: dict[tuple[str, str], tuple[str, ...]] = {}
    for name, einsum in einsums.items():
        for access in reads(einsum):
            if access.tensor in einsums:
                edge, ranks = (access.tensor, name), _stepped(access, cascade)
                # what this step makes is needed sooner than what the step before made
                stepped[edge] = min(ranks, stepped.get(edge, ranks), key=len)
    found = []
    for cycle in islice(cycles(list(einsums), stepped), _MOST):
        edges = zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        ranks = [r for edge in edges for r in stepped[edge]]
        if len(ranks) == 1:
            on_the_way = tuple(drains[n] for n in cycle if n in drains)
            found.append(Recurrence(tuple(cycle), _between(ranks[0], cycle, group, cascade, nests), on_the_way))
    return tuple(found)


def cycles(nodes: list[str], edges: Collection[tuple[str, str]]) -> Iterator[list[str]]:
    """The elementary cycles of a small graph, each from its first node on. (NetworkX has them too, and takes as long to
    import as an evaluation may.)"""
    after: dict[str, list[str]] = {n: [b for a, b in edges if a == n] for n in nodes}
    place = {n: i for i, n in enumerate(nodes)}
    for part in components(nodes, after):
        inside = set(part)
        for first in part:
            paths = [[first]]
            while paths:
                path = paths.pop()
                for node in after[path[-1]]:
                    if node == first:
                        yield path
                    elif node in inside and place[node] > place[first] and node not in path:
                        paths.append([*path, node])


def _stepped(access: Any, cascade: Cascade) -> tuple[str, ...]:
    """The iterative ranks along which an access reads what an earlier step made."""
    tensor = cascade.tensors[access.tensor]
    ranks = zip(cascade.full_ranks(access.tensor), access.indices, strict=True)
    return tuple(r for r, i in ranks if r in tensor.iterative and rank_values(i) and not _next(i))


def _next(index: Any) -> bool:
    """Whether an index is the element that this step makes, ``i + 1``."""
    return getattr(index, "op", None) == "+"


def _between(rank: str, cycle: list[str], group: Group, cascade: Cascade, nests: Mapping[str, Nest]) -> tuple[str, ...]:
    """The shared loops inside the stepped one that every Einsum of a cycle has."""
    leaves = [x for x in group.leaves(rank, cascade) if x in group.loops]
    if not leaves:
        return ()
    inside = group.loops[max(map(group.loops.index, leaves)) + 1 :]
    return tuple(x for x in inside if all(x in nests[n].shared for n in cycle))
