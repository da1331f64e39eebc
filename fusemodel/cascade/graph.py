"""Indices that step along a rank, and equations that need each other."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from fusemodel.cascade.ir import (
    Apply,
    Expr,
    Number,
    RankValue,
)

_Node = TypeVar("_Node", bound=Hashable)


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
