"""Lower bounds that hold for any mapping of a cascade as written, symbolic in its extents and as numbers.

A mapping computes every present point of every Einsum that an output needs, in any order, more than once if it likes. A
point is computed with all its operands on chip. Inputs are off chip at first, and outputs at the end; a word that is
read or written off chip is one word of traffic. All storage on chip together, registers included, holds S words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from fusemodel.analysis.critical import critical_path
from fusemodel.analysis.fibers import Fiber, Wait, fiber
from fusemodel.analysis.graph import Dependence, volume
from fusemodel.analysis.passes import passes
from fusemodel.analysis.products import Product, products
from fusemodel.cascade.ir import Cascade, Einsum, iteration_ranks, reads, reduced_ranks
from fusemodel.cascade.work import work_of


@dataclass(frozen=True)
class Footprint:
    """Words live on chip when everything is fused: every tensor with a place of its own, ranks that Einsums share
    stepped one coordinate at a time, other ranks whole, and fibers that a later pass needs whole. ``grows`` says for
    each rank whether it does with the rank (with a split rank: with the number of its parts)."""

    words: Any
    words_at: int
    tensors: dict[str, Any]
    grows: dict[str, bool]


@dataclass(frozen=True)
class Bounds:
    """Bounds of a cascade; ``*_at`` at the extents given, other values in SymPy symbols (the ranks in capitals).

    ``operations`` by kind, ``compulsory_words`` by tensor and "read" or "write" (words), ``intensity`` (operations per
    compulsory word), ``critical_path`` (operations one after another; reductions as binary trees, iterative ranks step
    by step). Symbolic values are dense: ``notes`` says which are above the exact numbers because of conditions.
    """

    operations: dict[str, Any]
    operations_at: dict[str, int]
    compulsory: dict[str, dict[str, Any]]
    compulsory_at: dict[str, dict[str, int]]
    compulsory_words: Any
    compulsory_words_at: int
    fibers: tuple[Fiber, ...]
    products: tuple[Product, ...]
    footprint: Footprint
    intensity: Any
    intensity_at: float
    critical_path: Any
    critical_path_at: int
    notes: tuple[str, ...] = ()

    def traffic_bound(self, buffer_words: float) -> float:
        """Words between chip and outermost level that any mapping moves at least, with this many words on chip.

        The largest of: compulsory words, plus those that the waits along one rank make it read again (:class:`Fiber`);
        and what one product of two inputs moves (:mod:`fusemodel.analysis.products`).
        """
        bound = self.compulsory_words_at + max((f.extra(buffer_words) for f in self.fibers), default=0.0)
        if buffer_words >= 1:
            bound = max(bound, *(p.traffic(buffer_words) for p in self.products), 0.0)
        return float(bound)


def bounds(cascade: Cascade, extents: Mapping[str, int]) -> Bounds:
    """The lower bounds of a checked cascade at some extents."""
    found = Dependence(cascade, extents)
    notes: list[str] = []
    operations, operations_at = _operations(found, notes)
    dense, exact = _compulsory(found, notes)
    counts = passes(cascade, extents)
    fibers = []
    for rank, n in counts.passes.items():
        outer = any(rank == parts[0] for parts in cascade.split.values())
        one = fiber(found, rank, n) if n > 1 and not outer else None
        fibers += [one] if one else []
    words = sum((sum(v.values()) for v in dense.values()), start=volume([]) * 0)
    words_at = sum(sum(v.values()) for v in exact.values())
    path, path_at = critical_path(cascade, extents)
    total, total_at = sum(operations.values()), sum(operations_at.values())
    return Bounds(
        operations, operations_at, dense, exact, words, words_at, tuple(fibers), products(found),
        _footprint(found, counts.tensors), total / words if words else 0,
        total_at / words_at if words_at else 0.0, path, path_at, tuple(notes),
    )  # fmt: skip


def _operations(found: Dependence, notes: list[str]) -> tuple[dict[str, Any], dict[str, int]]:
    symbolic: dict[str, Any] = {}
    numbers: dict[str, int] = {}
    for name, p in found.points.items():
        work = work_of(p.einsum)
        ranks = iteration_ranks(p.einsum)
        kept = tuple(r for r in ranks if r not in reduced_ranks(p.einsum))
        for kinds, over in ((work.per_point, ranks), (work.per_output, kept)):
            n, exact = found.count(name, over) if kinds else (0, True)
            for kind in kinds:
                symbolic[kind] = symbolic.get(kind, 0) + volume(over)
                numbers[kind] = numbers.get(kind, 0) + n
            if not exact:
                why = (
                    "its conditions leave too much to count" if p.exact else "which points are present depends on data"
                )
                notes.append(f"{name}: operations are an upper value, {why}")
        if found.count(name)[0] < found.size(frozenset(ranks)):
            notes.append(f"{name}: symbolic operations count points that its conditions leave out")
    return symbolic, numbers


def _compulsory(found: Dependence, notes: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, int]]]:
    """Every input read once where some point needs it, every output written once."""
    dense: dict[str, dict[str, Any]] = {}
    numbers: dict[str, dict[str, int]] = {}
    cascade = found.cascade
    sides = [(t, "read") for t in cascade.inputs if t in found.live]
    for tensor, side in sides + [(t, "write") for t in cascade.outputs]:
        n, exact = found.touched(tensor)
        dense[tensor] = {side: volume(cascade.full_ranks(tensor))}
        numbers[tensor] = {side: n}
        if not exact:
            why = "which ones depends on data" if found.data_decides(tensor) else "more is too much to count"
            notes.append(f"{tensor}: at least {n} words are {side}; {why}")
        elif n != prod(found.extents[r] for r in cascade.full_ranks(tensor)):
            notes.append(f"{tensor}: the symbolic value counts words that no point touches")
    return dense, numbers


def _footprint(found: Dependence, at: Mapping[str, Mapping[str, int]]) -> Footprint:
    """See :class:`Footprint`."""
    cascade = found.cascade
    einsums = {n: p.einsum for n, p in found.points.items()}
    leaves = {n: {x for r in iteration_ranks(e) for x in found.leaves(r)} for n, e in einsums.items()}
    used = Counter(x for some in leaves.values() for x in some)
    stepped = Counter(x for n, some in leaves.items() if found.varies(n) for x in some)  # those of most Einsums outside
    parents = {x: whole for whole, parts in cascade.split.items() for x in parts}
    tensors: dict[str, Any] = {}
    held: dict[str, set[str]] = {}
    numbers = 0
    for tensor in dict.fromkeys([*(t for t in cascade.inputs if t in found.live), *einsums]):
        readers = [n for n, e in einsums.items() if any(a.tensor == tensor for a in reads(e))]
        whole = set()
        state = set() if tensor not in einsums else _state(found, einsums[tensor])
        for x in found.axes(tensor):
            when = {at.get(n, {}).get(r, 0) for n in readers for r in (x, parents.get(x, x))} - {0}
            when |= set() if tensor in cascade.inputs else {at.get(tensor, {}).get(x, 0)} - {0}
            inner = any(stepped[x] < stepped[y] for y in state)
            if used[x] < 2 or len(when) > 1 or inner:
                whole.add(x)
        tensors[tensor] = volume(sorted(whole))
        held[tensor] = whole
        numbers += found.size(frozenset(whole))
    total = sum(tensors.values(), start=volume([]) * 0)
    free = {x.upper() for w in tensors for x in held[w]}
    grows = {r: found.leaves(r)[0].upper() in free for r in cascade.ranks}
    return Footprint(total, numbers, tensors, grows)


def _state(found: Dependence, einsum: Einsum) -> set[str]:
    """Ranks over whose steps the values of a tensor stay."""
    iterative = found.cascade.tensors[einsum.name].iterative
    return {x for r in (*reduced_ranks(einsum), *iterative) for x in found.leaves(r)}


__all__ = ["Bounds", "Fiber", "Footprint", "Wait", "bounds"]
