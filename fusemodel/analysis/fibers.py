"""Fibers that every implementation traverses more than once: what must stay on chip between, or be read again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusemodel.analysis.graph import Dependence, volume
from fusemodel.model.domain import Linear, count_exactly

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Wait:
    """One wait for the end of a fiber: ``reader`` reads ``tensor``, all of which ``complete`` needed before, after it.

    For each of ``instances`` that share nothing, ``words`` elements are needed on both sides of the wait.
    """

    complete: str
    tensor: str
    reader: str
    words: Any
    instances: Any
    words_at: int
    instances_at: int


@dataclass(frozen=True)
class Fiber:
    """A rank traversed more than once, and the two ways out (words): ``buffer`` on chip, or ``reread`` off chip.

    They are sound as bounds: with S words on chip at least ``sum(instances * max(0, words - S))`` over ``waits`` is
    read again. Let a wait end when its completed element is first there. The elements before it each need a path of
    tensors from an input; for each path one element is on chip then or is loaded later (else nothing on the path could
    be there later). Those of different paths differ, at most S are on chip, and an input on a path was loaded before:
    the loads are beyond the compulsory ones. Waits of a fiber follow one another, and instances share no elements.
    """

    rank: str
    passes: int
    waits: tuple[Wait, ...]
    buffer: Any
    reread: Any
    buffer_at: int
    reread_at: int

    def extra(self, buffer_words: float) -> float:
        """Words that must be read again with this many on chip."""
        return sum(w.instances_at * max(0.0, w.words_at - buffer_words) for w in self.waits)


def fiber(found: Dependence, rank: str, n: int) -> Fiber | None:
    """The longest chain of waits along a rank."""
    import sympy

    axes = frozenset(found.leaves(rank))
    steps = _longest(found, axes)
    if not steps:
        return None
    every = [_measure(found, steps[i:j]) for i in range(len(steps)) for j in (len(steps), i + 1)]
    best = max(every, key=lambda ws: (sum(w.instances_at * w.words_at for w in ws), len(ws)))
    return Fiber(
        rank, n, best, sympy.Max(*(w.words for w in best)), sum(w.words * w.instances for w in best),
        max(w.words_at for w in best), sum(w.words_at * w.instances_at for w in best),
    )  # fmt: skip


@dataclass(frozen=True)
class _Step:
    complete: str
    tensor: str
    reader: str
    kept: frozenset[str]  # ranks of every tensor on the path that leads to ``tensor``
    on: frozenset[str]  # Einsums that must compute


def _longest(found: Dependence, axes: frozenset[str]) -> tuple[_Step, ...]:
    import networkx as nx

    graph = found.graph
    order = [t for t in nx.topological_sort(graph) if t in found.points and not axes & found.axes(t)]
    best: dict[str, tuple[_Step, ...]] = {}
    for done in reversed(order):
        chains = []
        before, after = nx.ancestors(graph, done), nx.descendants(graph, done)
        for later in (None, *(t for t in order if t in after)):
            step = _step(found, graph, axes, done, before, after, later)
            chains += [(step, *(best.get(later, ()) if later else ()))] if step else []
        best[done] = max(chains, key=lambda c: (len(c), found.size(c[0].kept)), default=())
    return max(best.values(), key=len, default=())


def _step(
    found: Dependence, graph: nx.DiGraph, axes: frozenset[str], done: str, before: set[str], after: set[str],
    later: str | None,
) -> _Step | None:  # fmt: skip
    """What is needed again after ``done``, by an Einsum that ``later`` needs, where most is."""
    import networkx as nx

    options = []
    ends = after if later is None else (nx.ancestors(graph, later) | {later}) & after
    for tensor in before:
        for kept, path in found.paths[tensor].items():
            readers = [r for r in graph.successors(tensor) if r in ends]
            if axes <= kept and readers:
                size = found.size(kept - found.axes(done))
                options.append((size, sorted(kept), tensor, min(readers), kept, path))
    if not options:
        return None
    _, _, tensor, reader, kept, path = max(options, key=lambda o: o[:4])
    on = {*path, *nx.shortest_path(graph, tensor, done), *nx.shortest_path(graph, done, reader)}
    on |= set(nx.shortest_path(graph, reader, later)) if later else set()
    return _Step(done, tensor, reader, kept, frozenset(on & found.points.keys()))


def _measure(found: Dependence, steps: Sequence[_Step]) -> tuple[Wait, ...]:
    """Words and instances of each wait of a chain. Ranks of the completed elements that all tensors have make
    instances; the others stay at the coordinate (the first or the last) where most is needed."""
    held = frozenset(x for s in steps for x in found.axes(s.complete))
    apart = held.intersection(*(found.axes(s.complete) & s.kept for s in steps))
    names = frozenset(n for s in steps for n in s.on)
    sizes = dict(found.extents)
    forms: list[Linear] = []
    for name in sorted(names):
        sizes |= found.points[name].quotients.sizes
        forms += found.forms(name)
    apart -= _coupled(forms, found)
    best: tuple[Wait, ...] = ()
    for last in (False, True):
        still = {x: (sizes[x] - 1) * last for x in held - apart}
        fixed = [
            Linear(
                {x: c for x, c in f.coefficients.items() if x not in still},
                f.constant + sum(c * still[x] for x, c in f.coefficients.items() if x in still),
            )
            for f in forms
        ]
        here = []
        for s in steps:
            over = tuple(sorted(s.kept - held))
            n, exact = count_exactly(fixed, over, sizes)
            here.append(
                Wait(s.complete, s.tensor, s.reader, volume(over), volume(apart), n * exact, found.size(apart))
            )  # fmt: skip
        if not best or sum(w.words_at for w in here) > sum(w.words_at for w in best):
            best = tuple(here)
    return best


def _coupled(forms: Iterable[Linear], found: Dependence) -> set[str]:
    return {x for f in forms for x in f.coefficients if found.extents.get(x, 1) > 1}


__all__ = ["Fiber", "Wait", "fiber"]
