"""Values that a step of an iterative rank needs from the step before: how soon tiles can follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import networkx as nx

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
    graph: Any = nx.DiGraph()
    for name, einsum in einsums.items():
        for access in reads(einsum):
            if access.tensor in einsums:
                stepped = _stepped(access, cascade)
                held = graph.get_edge_data(access.tensor, name, {"ranks": None})["ranks"]
                # what this step makes is needed sooner than what the step before made
                graph.add_edge(access.tensor, name, ranks=stepped if held is None else min(stepped, held, key=len))
    found = []
    for cycle in islice(nx.simple_cycles(graph), _MOST):
        edges = zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        ranks = [r for a, b in edges for r in graph.edges[a, b]["ranks"]]
        if len(ranks) == 1:
            on_the_way = tuple(drains[n] for n in cycle if n in drains)
            found.append(Recurrence(tuple(cycle), _between(ranks[0], cycle, group, cascade, nests), on_the_way))
    return tuple(found)


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
