"""Which equation needs which: order of evaluation, and loops of equations along iterative ranks."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    match_indices,
    reads,
)

_Node = TypeVar("_Node", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Edge:
    """``reader`` needs ``tensor``. ``delay`` counts steps of each iterative rank by which it reads what was made
    earlier (0: in the same step); ``whole`` says that it needs the tensor complete along its iterative ranks."""

    reader: str
    tensor: str
    delay: Mapping[str, int]
    whole: bool


def offset_from(index: Expr, rank: str) -> int | None:
    """``c`` for an index ``rank + c``; None for any other."""
    match index:
        case RankValue(r) if r == rank:
            return 0
        case Apply("+", (RankValue(r), Number(int(c)))) if r == rank:
            return c
        case Apply("+", (Number(int(c)), RankValue(r))) if r == rank:
            return c
        case Apply("-", (RankValue(r), Number(int(c)))) if r == rank:
            return -c
    return None


def step_rank(index: Expr) -> str | None:
    """``i`` for a left-side index ``i + 1``."""
    match index:
        case Apply("+", (RankValue(rank), Number(1))) | Apply("+", (Number(1), RankValue(rank))):
            return rank
    return None


def edges(cascade: Cascade) -> list[Edge]:
    """Every dependence between tensors that Einsums define."""
    made = {e.name for e in cascade.einsums}
    return [_edge(cascade, e, a) for e in cascade.einsums for a in reads(e) if a.tensor in made]


def _edge(cascade: Cascade, einsum: Einsum, access: Access) -> Edge:
    tensor = cascade.tensors[access.tensor]
    delay: dict[str, int] = {}
    whole = False
    indices = match_indices(cascade, tensor, access.indices) or access.indices
    for rank, index in zip(tensor.ranks, indices, strict=False):
        shift = offset_from(index, rank)
        if rank in tensor.iterative:
            if shift is None:
                whole = whole or not (isinstance(index, Number) and index.value == 0)
            else:
                delay[rank] = 1 - shift
        elif shift is not None and shift < 0:
            delay[rank] = -shift
        elif shift is None or shift > 0:
            # a rank read in another order than it is made needs all of it, unless it is another rank's coordinate
            whole = whole or not isinstance(index, (Number, Extent))
    return Edge(einsum.name, access.tensor, delay, whole)


def components(nodes: Sequence[_Node], needs: Mapping[_Node, Collection[_Node]]) -> list[list[_Node]]:
    """Strongly connected components, each after those it needs (Tarjan 1972), in the order of ``nodes`` where free."""
    place = {n: i for i, n in enumerate(nodes)}
    index: dict[_Node, int] = {}
    low: dict[_Node, int] = {}
    stack: list[_Node] = []
    result: list[list[_Node]] = []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(sorted(needs.get(root, ()), key=place.__getitem__)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, children = work[-1]
            child = next(children, None)
            if child is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    result.append(sorted(stack[cut:], key=place.__getitem__))
                    del stack[cut:]
            elif child not in index:
                index[child] = low[child] = len(index)
                stack.append(child)
                work.append((child, iter(sorted(needs.get(child, ()), key=place.__getitem__))))
            elif child in stack:
                low[node] = min(low[node], index[child])
    return result


def evaluation_order(cascade: Cascade) -> list[list[str]]:
    """Groups of tensors in an order in which they can be computed. A group of several, or one that reads itself, is
    computed step by step along its iterative ranks, its members in the order given. :mod:`~fusemodel.cascade.plan`
    says the same of single equations, with the loops."""
    from fusemodel.cascade.plan import equations, plan  # it needs this module

    makers = {e.name: number for number, e in enumerate(cascade.einsums)}  # the step, where there is a start too
    for number, einsum in enumerate(cascade.einsums):
        if any(step_rank(i) for i in einsum.target.indices):
            makers[einsum.name] = number
    last = set(makers.values())
    groups = [[cascade.einsums[n].name for n in equations(item) if n in last] for item in plan(cascade)]
    return [g for g in groups if g]


def is_recursive(cascade: Cascade, group: list[str]) -> bool:
    """Whether a group of :func:`evaluation_order` needs stepping."""
    return len(group) > 1 or any(e.reader == e.tensor == group[0] for e in edges(cascade))
