"""The dependence graph of a cascade at equal coordinates, and what can be said exactly of its points.

An edge T -> Z says that each point of Z's Einsum reads the element of T that has the point's own coordinates. So an
element of Z needs every element of T that agrees with it on the ranks they share (its conditions permitting), and the
same holds along paths. Reads at other coordinates (shifts, gathers, earlier steps) are left out: bounds only weaken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from fusemodel.cascade.graph import offset_from
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    RankValue,
    accesses,
    is_start,
    iteration_ranks,
    join_split,
    reads,
)
from fusemodel.model.domain import Conditions, Linear, Quotients, count_union, on_leaves, regions
from fusemodel.model.elements import Touch, touched
from fusemodel.model.forms import Piece
from fusemodel.model.pieces import MAX_PIECES, computed_index, index_cases, indexed

if TYPE_CHECKING:
    import networkx as nx

_MOST_PATHS = 16  # kept for one tensor


@dataclass(frozen=True)
class Points:
    """The points of one Einsum, in pieces that have none in common: where the forms of a piece are <= 0. ``exact`` if
    these say exactly which are there, ``certain`` if moreover they are linear conditions, and one piece."""

    einsum: Einsum
    pieces: tuple[Piece, ...]
    quotients: Quotients
    exact: bool

    @property
    def certain(self) -> bool:
        """See above."""
        return self.exact and len(self.pieces) == 1 and all(isinstance(f, Linear) for f in self.pieces[0])


@dataclass
class Dependence:
    """A cascade at given extents. Only Einsums that an output needs are looked at."""

    cascade: Cascade
    extents: Mapping[str, int]
    points: dict[str, Points] = field(init=False)

    def __post_init__(self) -> None:
        cascade = self.cascade
        main = {e.name: e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])}
        starts = [e for e in cascade.explicit if is_start(e, cascade.tensors[e.name])]
        live, pending = set(), list(cascade.outputs)
        while pending:
            name = pending.pop()
            if name not in live:
                live.add(name)
                for e in (main.get(name), *(s for s in starts if s.name == name)):
                    pending += [a.tensor for a in reads(e)] if e else []
        self.live = live
        self.conditions = Conditions(cascade, list(main.values()))
        self.points = {n: self._points(e) for n, e in main.items() if n in live}

    def _points(self, einsum: Einsum) -> Points:
        quotients = Quotients({r: self.extents[r] for r in self.cascade.ranks}, einsum.name)
        pieces, other = regions(self.conditions.of[einsum.name], self.extents, quotients)
        doubts = self.conditions.doubts.get(einsum.name, ())
        exact = not other and regions(doubts, self.extents, quotients) == ([()], [])
        return Points(einsum, tuple(pieces), quotients, exact)

    def sizes(self, points: Points) -> dict[str, int]:
        """The number of values of every coordinate."""
        return {**self.extents, **points.quotients.sizes}

    def count(self, name: str, ranks: tuple[str, ...] | None = None) -> tuple[int, bool]:
        """Points present of an Einsum, projected on some ranks, and whether that is exact (else it is an upper
        bound)."""
        p = self.points[name]
        loops = iteration_ranks(p.einsum) if ranks is None else ranks
        found, exact = count_union(p.pieces, loops, self.sizes(p), apart=True)
        return found, exact and p.exact

    def touched(self, tensor: str) -> tuple[int, bool]:
        """Distinct elements of an input that the Einsums need, or of a made tensor that is written: at least as many,
        and whether that is exact."""
        parts: list[tuple[list[Touch], Mapping[str, int]]] = []
        exact = True
        for name, p in self.points.items():
            found = [(p.einsum.target, ())] if name == tensor else []
            if tensor in self.cascade.inputs:
                found = [(a, more) for a, more in self._needed(p.einsum) if a.tensor == tensor]
            for access, more in dict.fromkeys(found):
                touches = self._touches(p, access, more)
                if touches is None or not p.exact:
                    exact = False
                elif touches:
                    parts.append((touches, p.quotients.sizes))
        if not parts:
            return 0, exact
        sizes = {**self.extents, **{x: n for _, more in parts for x, n in more.items()}}
        found, known = touched([t for some, _ in parts for t in some], (), sizes)
        if known:
            return found, exact
        singles = [touched([t], (), sizes) for some, _ in parts for t in some]
        return max((n for n, known in singles if known), default=0), False

    def data_decides(self, tensor: str) -> bool:
        """Whether which elements of a tensor are touched depends on data."""
        for name, p in self.points.items():
            found = [a for a, _ in self._needed(p.einsum) if a.tensor == tensor] + [p.einsum.target] * (name == tensor)
            indices = [self.conditions.resolved(i) for a in found for i in a.indices]
            if found and (not p.exact or any(accesses(i) for i in indices)):
                return True
        return False

    def _needed(self, einsum: Einsum) -> list[tuple[Access, tuple[Expr, ...]]]:
        """Accesses of which a point needs the element, each with what must hold besides: of ``coalesce``, that those
        before it are absent."""
        found = [*self._operands(einsum.body, ()), *self._operands(einsum.where, ())]
        return found + [a for i in einsum.target.indices for a in self._operands(i, ())]

    def _operands(self, expr: Expr | None, more: tuple[Expr, ...]) -> list[tuple[Access, tuple[Expr, ...]]]:
        match expr:
            case Access():
                inner = [a for i in expr.indices for a in self._operands(i, more)]
                return [(expr, more), *inner]
            case Apply("coalesce", args):
                result: list[tuple[Access, tuple[Expr, ...]]] = []
                for arg in args:
                    result += self._operands(arg, (*more, *self.conditions.present(arg)))
                    missing = self.conditions.missing(arg)
                    if missing is None:
                        break
                    more = (*more, missing)
                return result
            case Apply(_, args):
                return [a for x in args for a in self._operands(x, more)]
        return []

    def _touches(self, p: Points, access: Access, more: tuple[Expr, ...]) -> list[Touch] | None:
        """The elements of an access, piece by piece; None where they depend on data."""
        tensor = self.cascade.tensors[access.tensor]
        ranks = self.cascade.full_ranks(access.tensor)
        limits = tuple(self.extents[r] + (r in tensor.iterative) for r in ranks)
        pieces = list(p.pieces)
        if more:
            pieces, other = regions((*self.conditions.of[p.einsum.name], *more), self.extents, p.quotients)
            if other:
                return None
        indices = [(self.conditions.resolved(i), n) for i, n in zip(access.indices, limits, strict=True)]
        every = [index_cases(i, self.extents, p.quotients, n) for i, n in indices]
        cases = [c for c in every if c is not None]
        if len(cases) < len(every):
            return None
        if prod(len(c) for c in cases) > MAX_PIECES:
            cases = [
                c if len(c) == 1 else computed_index(i, self.extents, p.quotients, n)
                for c, (i, n) in zip(cases, indices, strict=True)
            ]
        data = tuple(() for _ in indices)
        found = indexed(pieces, cases, p.quotients)
        return [Touch(tuple(index), data, limits, piece) for piece, index in found]

    def varies(self, tensor: str) -> bool:
        """Whether a tensor depends on an input."""
        return tensor in self._varying

    @cached_property
    def _varying(self) -> set[str]:
        found, waiting = set(self.cascade.inputs), [e for e in self.cascade.explicit if e.name in self.live]
        while some := [e for e in waiting if any(a.tensor in found for a in reads(e))]:
            found |= {e.name for e in some}
            waiting = [e for e in waiting if e not in some]
        return found

    # The graph at equal coordinates

    def leaves(self, rank: str) -> tuple[str, ...]:
        """The rank, or the parts it is split into."""
        return self.cascade.split.get(rank, (rank,))

    def axes(self, tensor: str) -> frozenset[str]:
        """The ranks of a tensor, those that are split as their parts."""
        return frozenset(x for r in self.cascade.full_ranks(tensor) for x in self.leaves(r))

    def size(self, axes: frozenset[str]) -> int:
        """Points of a box of ranks."""
        return prod(self.extents[x] for x in axes)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Tensors, and an edge for each read at equal coordinates between Einsums whose points are known exactly."""
        import networkx as nx

        graph = nx.DiGraph()
        graph.add_nodes_from(t for t in self.cascade.inputs if t in self.live)
        for name, p in self.points.items():
            if not p.certain or not self.plain(p.einsum.target):
                continue
            graph.add_node(name)
            for access, more in self._needed(p.einsum):
                if not more and access.tensor != name and self.plain(access) and access.tensor in graph:
                    graph.add_edge(access.tensor, name)
        return graph

    def plain(self, access: Access) -> bool:
        """Whether every index is the coordinate of its own rank (of an iterative rank, that of the same step)."""
        tensor = self.cascade.tensors[access.tensor]
        ranks = self.cascade.full_ranks(access.tensor)
        return all(self._plain(i, r, r in tensor.iterative) for r, i in zip(ranks, access.indices, strict=True))

    def _plain(self, index: Expr, rank: str, iterative: bool) -> bool:
        if iterative:
            return offset_from(index, rank) == 1
        if rank in self.cascade.split:
            outer, inner = self.cascade.split[rank]
            if index == join_split(RankValue(outer), inner, RankValue(inner)):
                return True
        parent = self.cascade.parents.get(rank)
        if parent:
            outer, inner = self.cascade.split[parent]
            op = "//" if rank == outer else "%"
            if index == Apply(op, (RankValue(parent), Extent(inner))):
                return True
        return index == RankValue(rank)

    def forms(self, name: str) -> list[Linear]:
        """The conditions of an Einsum over the parts of split ranks."""
        (piece,) = self.points[name].pieces
        return [f for f in on_leaves(piece, self.cascade.split, self.extents) if isinstance(f, Linear)]

    @cached_property
    def paths(self) -> dict[str, dict[frozenset[str], tuple[str, ...]]]:
        """For each tensor, paths from an input to it with the ranks that every tensor on the way has. Elements that
        differ in these lie on paths that have no element in common."""
        import networkx as nx

        found: dict[str, dict[frozenset[str], tuple[str, ...]]] = {}
        for name in nx.topological_sort(self.graph):
            own = self.axes(name)
            mine: dict[frozenset[str], tuple[str, ...]] = {own: (name,)} if name in self.cascade.inputs else {}
            for before in self.graph.predecessors(name):
                for kept, path in found[before].items():
                    mine.setdefault(kept & own, (*path, name))
            best = sorted((k for k in mine if not any(k < o for o in mine)), key=lambda k: (-self.size(k), sorted(k)))
            found[name] = {k: mine[k] for k in best[:_MOST_PATHS]}
        return found


def volume(ranks: Iterable[str]) -> Any:
    """The product of the extents of some ranks, as symbols."""
    import sympy

    return sympy.Mul(*(sympy.Symbol(r.upper(), positive=True, integer=True) for r in ranks))
