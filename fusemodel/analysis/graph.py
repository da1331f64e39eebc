"""The dependence graph of a cascade at equal coordinates, and what can be said exactly of its points.

An edge T -> Z says that each point of Z's Einsum reads the element of T that has the point's own coordinates. So an
element of Z needs every element of T that agrees with it on the ranks they share (its conditions permitting), and the
same holds along paths. Reads at other coordinates (shifts, gathers, earlier steps) are left out: bounds only weaken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
    is_start,
    iteration_ranks,
    join_split,
    rank_values,
    reads,
)
from fusemodel.model.domain import Conditions, Linear, Quotients, constraints, count_exactly, linear, on_leaves
from fusemodel.model.elements import Touch, touched

if TYPE_CHECKING:
    import networkx as nx

_MOST_PATHS = 16  # kept for one tensor


@dataclass(frozen=True)
class Points:
    """The points of one Einsum: conditions as forms that are <= 0; ``certain`` if these say exactly which are there."""

    einsum: Einsum
    forms: tuple[Linear, ...]
    quotients: Quotients
    certain: bool


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
        self.points = {}
        conditions = Conditions(cascade, list(main.values()))
        for name, einsum in main.items():
            if name in live:
                self.points[name] = self._points(einsum, conditions)
        self._spread()

    def _points(self, einsum: Einsum, conditions: Conditions) -> Points:
        ranges = {r: self.extents[r] for r in self.cascade.ranks}
        quotients = Quotients(ranges, einsum.name)
        forms, other = constraints(conditions.of[einsum.name], self.extents, quotients)
        forms += quotients.closure(forms)
        iterative = bool(self.cascade.tensors[einsum.name].iterative)
        # what follows an absent step is absent too, which the conditions do not say
        return Points(
            einsum, tuple(forms), quotients, not other and not (iterative and self._binding(forms, quotients))
        )

    def _spread(self) -> None:
        """What needs a tensor that is not known exactly is not known either."""
        changed = True
        while changed:
            changed = False
            for name, p in self.points.items():
                made = (self.points[a.tensor] for a in reads(p.einsum) if a.tensor in self.points)
                if p.certain and not all(m.certain for m in made):
                    self.points[name] = replace(p, certain=False)
                    changed = True

    def _binding(self, forms: list[Linear], quotients: Quotients) -> bool:
        sizes = {**self.extents, **quotients.sizes}
        return any(
            f.constant + sum(max(0, c * (sizes[x] - 1)) for x, c in f.coefficients.items()) > 0 for f in forms
        )  # fmt: skip

    def bound(self, points: Points) -> bool:
        """Whether conditions leave out some point."""
        return self._binding(list(points.forms), points.quotients)

    def count(self, name: str, ranks: tuple[str, ...] | None = None) -> tuple[int, bool]:
        """Points present of an Einsum, projected on some ranks, and whether that is exact (else it is an upper
        bound)."""
        p = self.points[name]
        loops = iteration_ranks(p.einsum) if ranks is None else ranks
        found, exact = count_exactly(p.forms, loops, {**self.extents, **p.quotients.sizes})
        return found, exact and p.certain

    def touched(self, tensor: str) -> tuple[int, bool]:
        """Distinct elements of an input that the Einsums read, or of a made tensor that is written: at least as many,
        and whether that is exact."""
        parts: list[tuple[Touch, Mapping[str, int]]] = []
        exact = True
        for name, p in self.points.items():
            found = [p.einsum.target] if name == tensor else []
            if tensor in self.cascade.inputs:
                found = [a for a in reads(p.einsum) if a.tensor == tensor]
            sure = set(needed(p.einsum.body)) | set(needed(p.einsum.where)) | {p.einsum.target}
            for access in dict.fromkeys(found):
                touch = self._touch(p, access)
                if touch is None or not p.certain or access not in sure:
                    exact = False
                else:
                    parts.append((touch, p.quotients.sizes))
        if not parts:
            return 0, exact
        sizes = {**self.extents, **{x: n for _, more in parts for x, n in more.items()}}
        found, known = touched([t for t, _ in parts], (), sizes)
        if known:
            return found, exact
        singles = [touched([t], (), sizes) for t, _ in parts]
        return max((n for n, known in singles if known), default=0), False

    def _touch(self, p: Points, access: Access) -> Touch | None:
        index = [linear(i, self.extents, p.quotients) for i in access.indices]
        if any(i is None for i in index):
            return None
        forms = [*p.forms, *p.quotients.closure(i for i in index if i is not None)]
        unique = {f.key(): f for f in forms}
        tensor = self.cascade.tensors[access.tensor]
        ranks = self.cascade.full_ranks(access.tensor)
        limits = tuple(self.extents[r] + (r in tensor.iterative) for r in ranks)
        return Touch(tuple(index), tuple(() for _ in index), limits, tuple(unique.values()))

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
            sure = {*needed(p.einsum.body), *needed(p.einsum.where)}
            for access in sure:
                if access.tensor != name and self.plain(access) and access.tensor in graph:
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
        p = self.points[name]
        forms = [f for f in p.forms if self._binding([f], p.quotients)]
        return on_leaves(forms, self.cascade.split, self.extents)

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


def needed(expr: Expr | None) -> list[Access]:
    """Accesses whose element is needed at every point: all but those of ``coalesce``, and those in their indices."""
    match expr:
        case Access():
            return [expr, *(a for i in expr.indices if rank_values(i) for a in needed(i))]
        case Apply("coalesce", _):
            return []
        case Apply(_, args):
            return [a for x in args for a in needed(x)]
    return []


def volume(ranks: Iterable[str]) -> Any:
    """The product of the extents of some ranks, as symbols."""
    import sympy

    return sympy.Mul(*(sympy.Symbol(r.upper(), positive=True, integer=True) for r in ranks))
