"""A design evaluated once, with symbols for extents, tile sizes and the numbers of its machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from fusemodel.mapping.spec import Design, Group
from fusemodel.model.amounts import Amount, maximum
from fusemodel.model.cost import cost_in
from fusemodel.model.decided import Count
from fusemodel.model.evaluate import total
from fusemodel.model.expression import Choice, Graph, Node, Untraceable
from fusemodel.model.frame import Frame, frames_of, ragged_frames, settled
from fusemodel.model.movement import in_blocks, kinds_of
from fusemodel.model.numbers import with_numbers
from fusemodel.model.plan import Plan
from fusemodel.model.registers import held_in_registers
from fusemodel.model.result import EinsumResult
from fusemodel.model.tiles import Chosen, chains, outer_parts

#: Fields of an evaluation that are no results: names, and what was given.
_NAMES = {"mapping", "cascade", "arch", "workload", "seq", "name", "unit", "group", "operations", "variant",
          "candidates", "notes", "extents", "tiles"}  # fmt: skip


@dataclass(frozen=True)
class Traced:
    """``columns``: each result by name, an expression (of one of some names: :class:`Choice`). ``fits``: whether each
    group does; ``reserved``: words set aside at a level, which may not be negative. ``notes`` of the evaluation, as far
    as they hold for every size; ``counts`` by the names of their nodes, with the place of their group."""

    graph: Graph
    columns: Mapping[str, Node | Choice]
    fits: tuple[Node, ...]
    reserved: tuple[tuple[Plan, str, Node], ...]
    notes: tuple[str, ...]
    counts: Mapping[str, tuple[int, Count]]


class _Symbols:
    """Puts a node in the place of each count of a group."""

    def __init__(self, graph: Graph, group: int, sizes: Mapping[str, Node], counts: dict[str, tuple[int, Count]]):
        self.graph, self.group, self.sizes, self.counts = graph, group, sizes, counts
        self.known: dict[object, str] = {}

    def amount(self, count: Count) -> Node:
        key = count.key, count.note
        if key not in self.known:
            self.known[key] = f"count_{len(self.counts)}"
            self.counts[self.known[key]] = self.group, count
        return self.graph.count(self.known[key], [self.sizes[x] for x in count.leaves])


def labels_of(groups: Sequence[Group]) -> list[str]:
    """What the tile sizes of each group are prefixed by: nothing where there is one group."""
    if len(groups) == 1:
        return [""]
    given = [g.name for g in groups]
    return [f"{n}." if given.count(n) == 1 and "+" not in n else f"{i}." for i, n in enumerate(given)]


def signature_of(plans: Sequence[Plan], extents: Mapping[str, int]) -> tuple[object, ...]:
    """All that a trace takes from extents besides amounts: it holds wherever this is the same."""
    found: list[object] = []
    for plan in map(settled, plans):
        frames = frames_of(plan, extents)
        if "signature" not in plan.memo:
            facts = tuple(_facts(f, plan) for f in frames.values())
            plan.memo["signature"] = (kinds_of(plan, extents), facts)
        found.append(plan.memo["signature"])
    return tuple(found)


def _facts(frame: Frame, plan: Plan) -> tuple[object, ...]:
    """What the counts of an Einsum take from its extents, where they are no amounts."""
    name = frame.einsum.name
    tiles = [m.tile for m in plan.moves] + [t for f in plan.footprints for _, t in f.tiles]
    dims = {d.index: d for t in tiles if t.einsum == name for d in t.dims if not d.split}
    forms = tuple((repr(i), form.key() if (form := frame.index(d)) else None) for i, d in dims.items())
    counted = tuple(frame.extents.items()) if any(map(frame.quotient, dims.values())) else ()  # values of an index
    return frame.conditional, frame.doubtful, tuple(map(repr, frame.other)), frame.ragged, frame.roots, forms, counted


def trace(
    design: Design, plans: Sequence[Plan], extents: Mapping[str, int], loose: Sequence[frozenset[str]] = ()
) -> Traced:
    """The evaluation of a design, one plan for each group, in symbols. Untraceable names a group of blocks. ``extents``
    only say what a count is made of (:func:`signature_of`), not how much it is. ``loose``: for each group the ranks
    that tiles may not divide."""
    graph = Graph()
    known = {r: graph.symbol(r) for r in extents}
    labels = labels_of([p.group for p in plans])
    for whole, parts in design.cascade.split.items():
        if extents[whole] == extents[parts[0]] * extents[parts[1]]:
            graph.wholes.append((known[whole], tuple(known[p] for p in parts)))
    counts: dict[str, tuple[int, Count]] = {}
    each = zip(plans, labels, loose or [frozenset()] * len(plans), strict=True)
    chosen = [
        _group(i, settled(p), label, graph, known, extents, some, counts) for i, (p, label, some) in enumerate(each)
    ]
    found = total(design, chosen, known, None, None)
    columns = {n: v if isinstance(v, (Node, Choice)) else _constant(graph, v) for n, v in named(found)}
    fits = [graph.all(graph.node(x) <= 0 for x in c.cost.excess_words.values()) for c in chosen]
    held = (graph.node(h.words) <= h.room for c in chosen for h in held_in_registers(c.plan, c.sizes))
    for level in design.arch.levels:
        need: Amount = 0
        for c in chosen:
            need = maximum(need, c.cost.need_words[level] * c.plan.arch.word_bytes)
        columns[f"need_bytes.{level}"] = graph.node(need)
    columns |= {
        "edp_js": found.latency_s * graph.node(found.energy_j),
        "fits": graph.all(fits),
        "registers_hold": graph.all(held),
    }
    reserved = [
        (c.plan, level, graph.node(held["(reserved)"]))
        for c in chosen for level, held in c.cost.footprint_words.items() if "(reserved)" in held
    ]  # fmt: skip
    return Traced(graph, columns, tuple(fits), tuple(reserved), tuple(found.notes), counts)


def _group(
    at: int, plan: Plan, label: str, graph: Graph, known: Mapping[str, Node], extents: Mapping[str, int],
    loose: frozenset[str], counts: dict[str, tuple[int, Count]],
) -> Chosen:  # fmt: skip
    if in_blocks(plan):
        raise Untraceable(f"{plan.group.name or 'a group'} runs as blocks")
    parts = [p for ps in plan.group.parts.values() for p in ps]
    sizes = {**known, **{p: graph.symbol(label + p, varies=True) for p in parts}}
    counter = _Symbols(graph, at, sizes, counts)
    frames = {n: f.with_counter(counter, known) for n, f in ragged_frames(plan, extents, loose).items()}
    before = len(graph.wholes)
    ragged = {x for r in loose for x in (r, *outer_parts(plan.group, r))}
    for rank, inner in reversed(chains(plan.group)):
        if rank in ragged:
            continue
        graph.wholes.append((sizes[rank], tuple(sizes[p] for p in inner)))
    symbolic = with_numbers(plan, lambda name, value: graph.symbol(name) if value else 0)
    cost = cost_in(symbolic, frames, sizes, known, products=True)
    del graph.wholes[before:]
    return Chosen(symbolic, sizes, cost, 1)


def named(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every result in an evaluation, by the names of the fields on the way to it: ``traffic_bytes.dram.K.read``."""
    if isinstance(value, (Node, Choice, int, float, str)):
        return [(path, value)]
    if isinstance(value, dict):
        return [x for name, inner in value.items() for x in named(inner, f"{path}.{name}")]
    if isinstance(value, list):
        labels = _labels(value)
        return [x for label, inner in zip(labels, value, strict=True) for x in named(inner, f"{path}.{label}")]
    if is_dataclass(value):
        found = [(f.name, getattr(value, f.name)) for f in fields(value) if f.name not in _NAMES]
        return [x for name, inner in found for x in named(inner, f"{path}.{name}" if path else name)]
    return []


def _constant(graph: Graph, value: float | str) -> Node | Choice:
    return Choice((value,), graph.number(0)) if isinstance(value, str) else graph.number(value)


def _labels(values: Sequence[Any]) -> list[str]:
    """The names of Einsums; numbers of groups, whose names may be long."""
    return [v.name if isinstance(v, EinsumResult) else str(i) for i, v in enumerate(values)]
