"""What a product of two inputs costs in traffic when the chip is small (after Hong and Kung 1981; Irony, Toledo and
Tiskin 2004; Saha and Ye, The I/O Complexity of Attention, 2024).

Cut any execution into phases of T words moved; S words are on chip at the start of each. Elements of the inputs A and B
that a phase can use were on chip or were loaded: S + T together.

Points. An element of the product that a phase leaves or finds incomplete is on chip at its start or end or is moved, so
there are at most 2 S + T of them, with at most sqrt(|A| |B| |Z|) points (Loomis and Whitney). The others get all their
E points in the phase: all E elements of a fiber of A and of one of B, of which it can use (S + T) / E together, so they
are at most ((S + T) / 2 E)^2. An output is moved or stays, so all of its elements are among the former.

Elements. Where something needs all of a fiber of the product, and the fiber is needed again after it, and so on n
times, each element, or something made of it alone, must be at hand in each of n + 1 periods. A phase has at hand at
most the elements completed in it, ((S + T) / 2 E)^2, and the S + T that were there or loaded. One phase serves two
periods of an element only where the wait between them ends in that phase, and then for those elements of the fiber that
were there or loaded, or whose fibers of A and B can be used in it.

So P points take P / p(T) phases, and Z elements ((n + 1) Z - saved) / z(T) phases, each but the last of T words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from fusemodel.analysis.graph import Dependence
from fusemodel.cascade.ir import Access, Apply, iteration_ranks, reduced_ranks, reduction_op
from fusemodel.cascade.work import is_constant

_PHASES = (0.25, 0.5, 1, 2, 4, 8)  # words moved in a phase, in units of the words on chip


@dataclass(frozen=True)
class Product:
    """A sum of products of two inputs: its ``points`` and ``elements``, the length ``summed`` of its sum, whether it is
    an ``output``; and how often its fibers are complete before they are needed again: ``waits`` for each of the tensors
    ``complete``, of ``rows`` elements. ``along_one``: along a fiber only one of the two factors changes."""

    name: str
    points: int
    elements: int
    summed: int
    output: bool
    complete: tuple[str, ...] = ()
    rows: int = 0
    along_one: bool = False

    def traffic(self, on_chip_words: float) -> float:
        """Words that any mapping moves for it at least."""
        return max(self._moved(on_chip_words, c * on_chip_words) for c in _PHASES)

    def _moved(self, on_chip: float, moved: float) -> float:
        usable = on_chip + moved
        completed = (usable / (2 * self.summed)) ** 2
        points = usable / 2 * sqrt(2 * on_chip + moved) + (0 if self.output else completed * self.summed)
        reach = usable / self.summed if self.along_one else completed
        saved = min(self.elements, self.rows * reach)
        phases = [self.points / points]
        for n in range(len(self.complete) + 1):
            phases.append(((n + 1) * self.elements - n * saved) / (completed + (n + 1) * usable))
        return moved * (max(phases) - 1)


def products(found: Dependence) -> tuple[Product, ...]:
    """Every product of two inputs whose points are known exactly."""
    return tuple(p for name in found.points if (p := _product(found, name)))


def _product(found: Dependence, name: str) -> Product | None:
    cascade, einsum = found.cascade, found.points[name].einsum
    body = einsum.body
    while isinstance(body, Apply) and body.op in ("*", "/") and any(is_constant(a) for a in body.args):
        body = body.args[is_constant(body.args[0])]
    if not isinstance(body, Apply) or body.op != "*" or reduction_op(einsum) != "sum" or einsum.selection:
        return None
    three = [*body.args, einsum.target]
    if not all(isinstance(a, Access) and found.plain(a) for a in three) or cascade.tensors[name].iterative:
        return None
    a, b = (x.tensor for x in body.args if isinstance(x, Access))
    if a == b or not {a, b} <= set(cascade.inputs):
        return None
    axes = [found.axes(x) for x in (a, b, name)]
    every = frozenset().union(*axes)
    reduced = frozenset(x for r in reduced_ranks(einsum) for x in found.leaves(r))
    iterated = frozenset(x for r in iteration_ranks(einsum) for x in found.leaves(r))
    if every != iterated or not reduced <= axes[0] & axes[1] or any(sum(x in o for o in axes) < 2 for x in every):
        return None
    points, exact = found.count(name)
    elements, summed = _elements(found, name), found.size(reduced)
    if not exact or elements is None or points != elements * summed:
        return None
    chain = max(_waits(found, name, elements), key=len, default=())
    if not chain:
        return Product(name, points, elements, summed, name in cascade.outputs)
    along = axes[2] - found.axes(chain[0])
    return Product(
        name, points, elements, summed, name in cascade.outputs, chain, _elements(found, chain[0]) or elements,
        any(along <= o - reduced for o in axes[:2]),
    )  # fmt: skip


def _elements(found: Dependence, name: str) -> int | None:
    """Elements of a tensor that are computed; None where that is not known exactly."""
    einsum = found.points[name].einsum
    n, exact = found.count(name, tuple(r for r in iteration_ranks(einsum) if r not in reduced_ranks(einsum)))
    return n if exact else None


def _waits(found: Dependence, name: str, elements: int) -> list[tuple[str, ...]]:
    """Chains of tensors, each complete only when all of a fiber of the product was at hand, and each before that fiber
    is needed again: by an Einsum that reads it, or what was made of it element by element, and needs the tensor."""
    import networkx as nx

    graph = found.graph
    if name not in graph:
        return []
    same = [t for t in graph if found.axes(t) == found.axes(name) and (t == name or nx.has_path(graph, name, t))]
    chains: dict[str, list[tuple[str, ...]]] = {}
    order = [t for t in nx.topological_sort(graph) if t in found.points and found.axes(t) < found.axes(name)]
    for done in reversed([t for t in order if nx.has_path(graph, name, t) and _elements(found, t)]):
        before, after = nx.ancestors(graph, done), nx.descendants(graph, done)
        readers = {
            r for t in same if t in before for r in graph.successors(t)
            if r in after and _reads_all(found, r, name, elements)
        }  # fmt: skip
        if not readers:
            continue
        ends = [
            c for later, found_chains in chains.items() for c in found_chains
            if found.axes(later) == found.axes(done)
            and any(r == later or nx.has_path(graph, r, later) for r in readers)
        ]  # fmt: skip
        chains[done] = [(done, *max(ends, key=len, default=()))]
    return [c for found_chains in chains.values() for c in found_chains]


def _reads_all(found: Dependence, reader: str, name: str, elements: int) -> bool:
    """Whether the points of an Einsum read something of every element that is computed."""
    ranks = iteration_ranks(found.points[reader].einsum)
    over = tuple(r for r in ranks if set(found.leaves(r)) <= found.axes(name))
    held = {x for r in over for x in found.leaves(r)}
    n, exact = found.count(reader, over)
    return held == found.axes(name) and exact and n == elements


__all__ = ["Product", "products"]
