"""The dependence graph of a cascade: what each Einsum reads, and how far along each rank."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    accesses,
    is_start,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
)
from fusemodel.cascade.printer import format_expr
from fusemodel.model.domain import Conditions

if TYPE_CHECKING:
    import networkx as nx

#: Which elements one element needs of what it reads, along a rank of that: ``pointwise`` one, each its own; ``window``
#: some at a place that moves with its own; ``prefix`` those up to such a place, or from it on; ``selection`` those that
#: data or a constant chooses, or all to choose from; ``reduction`` all. ``broadcast``: what is read lacks the rank.
Reach: TypeAlias = Literal["pointwise", "window", "prefix", "selection", "reduction", "broadcast"]


def dependence_graph(cascade: Cascade) -> nx.MultiDiGraph:
    """Tensors, and an edge from each tensor to each that is made of it, one for each access.

    Nodes have ``kind``: ``input``, ``einsum`` or ``output``. Edges have ``access``, its text with all ranks it carries;
    ``equation``, the number of the equation that reads; and ``ranks``, a :data:`Reach` for each rank of the tensor read
    and for each other rank of the reader's points that says nothing of the place. Conditions count, those too that come
    with an operand which they leave absent.
    """
    import networkx as nx

    graph = nx.MultiDiGraph(name=cascade.name)
    for name in cascade.tensors:
        kind = "input" if name in cascade.inputs else "output" if name in cascade.outputs else "einsum"
        graph.add_node(name, kind=kind)
    conditions = Conditions(cascade, [e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])]).of
    for number, e in enumerate(cascade.explicit):
        where = () if is_start(e, cascade.tensors[e.name]) else conditions[e.name]
        for access in dict.fromkeys(reads(e)):
            ranks = _reaches(cascade, e, access, where)
            graph.add_edge(access.tensor, e.name, access=format_expr(access), equation=number, ranks=ranks)
    return graph


def edges(cascade: Cascade) -> list[dict[str, Any]]:
    """The edges of :func:`dependence_graph` as plain data, in the order of the equations."""
    found = dependence_graph(cascade).edges(data=True)
    return sorted(({"from": a, "to": b, **data} for a, b, data in found), key=lambda row: row["equation"])


def _reaches(cascade: Cascade, e: Einsum, access: Access, where: Sequence[Expr]) -> dict[str, Reach]:
    held = cascade.full_ranks(access.tensor)
    iterative = cascade.tensors[access.tensor].iterative
    found: dict[str, Reach] = {}
    for rank, index in zip(held, access.indices, strict=True):
        found[rank] = _steps(index) if rank in iterative else _elements(cascade, e, index, where)
    placed = {*held, *(r for i in access.indices for r in rank_values(i))}
    return {**found, **dict.fromkeys((r for r in iteration_ranks(e) if r not in placed), "broadcast")}


def _steps(index: Expr) -> Reach:
    """Of an iterative rank: an element is made of all before it."""
    if accesses(index) or isinstance(index, Number):
        return "selection"
    return "prefix" if rank_values(index) else "reduction"


def _elements(cascade: Cascade, e: Einsum, index: Expr, where: Sequence[Expr]) -> Reach:
    ranks = set(rank_values(index))
    reduced = set(reduced_ranks(e))
    if accesses(index) or not ranks or (e.selection and e.selection.rank in ranks):
        return "selection"
    if not ranks & reduced:
        return "pointwise" if _plain(cascade, index) else "window"
    if ranks - reduced:
        return "window"
    kept = set(iteration_ranks(e)) - reduced
    sides = {side for c in where for rank in ranks for side in _sides(c, rank, kept)}
    return "window" if len(sides) == 2 else "prefix" if sides else "reduction"


def _plain(cascade: Cascade, index: Expr) -> bool:
    """Whether an index is a coordinate, of a rank or of a part of one."""
    match index:
        case RankValue():
            return True
        case Apply("//" | "%", (part, Extent(inner))):
            return any(parts[1] == inner for parts in cascade.split.values()) and _plain(cascade, part)
        case Apply("+", (Apply("*", (outer, Extent(inner))), part)):
            whole = any(parts[1] == inner for parts in cascade.split.values())
            return whole and part == RankValue(inner) and _plain(cascade, outer)
    return False


def _sides(condition: Expr, rank: str, kept: Collection[str]) -> set[int]:
    """The sides on which a condition bounds a rank by another that an element has: 1 above, -1 below."""
    match condition:
        case Apply("and", parts):
            return {side for c in parts for side in _sides(c, rank, kept)}
        case Apply("<" | "<=", (Apply("abs", (inside,)), _)) | Apply(">" | ">=", (_, Apply("abs", (inside,)))):
            slope, both = inside, True
        case Apply("<" | "<=" | "==" as op, (a, b)) | Apply(">" | ">=" as op, (b, a)):
            slope, both = Apply("-", (a, b)), op == "=="
        case _:
            return set()
    own = _slope(slope, rank)
    if not own or not any(_slope(slope, r) == -own for r in kept):
        return set()
    return {1, -1} if both else {own}


def _slope(expr: Expr, rank: str) -> int | None:
    """1 if an expression grows with a rank, -1 if it falls, 0 if it is the same; None if that is not plain to see."""
    if rank not in rank_values(expr):
        return 0
    match expr:
        case RankValue():
            return 1
        case Apply("+" | "-" as op, (a, b)):
            one, other = _slope(a, rank), _slope(b, rank)
            other = -other if other is not None and op == "-" else other
            return one if one == other or other == 0 else other if one == 0 else None
        case Apply("neg", (a,)):
            slope = _slope(a, rank)
            return None if slope is None else -slope
        case Apply("*", (Number() | Extent() as by, a)) | Apply("*" | "//" | "/", (a, (Number() | Extent()) as by)):
            slope = _slope(a, rank)
            return None if slope is None else -slope if isinstance(by, Number) and by.value < 0 else slope
        case Apply("floor" | "round", (a,)):
            return _slope(a, rank)
    return None


__all__ = ["Reach", "dependence_graph", "edges"]
