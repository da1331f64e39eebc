"""A mapping for any cascade on any architecture, found by coordinate descent: no claim of an optimum.

Einsums are cut into groups that run one after another by dynamic programming over the cuts between contractions. In
each group the loops shared, the spread over units
and the inner tiles come from :mod:`fusemodel.explore.shape`; the order of loops, the middle tiles and what is kept
under which loop are improved one at a time until nothing helps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import yaml

from fusemodel.arch import Architecture
from fusemodel.cascade.graph import components
from fusemodel.cascade.ir import Cascade, Einsum, reads, reduced_ranks
from fusemodel.errors import InputError
from fusemodel.explore.shape import Shape, shape_of
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.spec import ALL, Candidates, Design
from fusemodel.model.plan import Plan, plan_group
from fusemodel.model.registers import register_notes, stationary_notes
from fusemodel.model.tiles import Chosen, choose, divisors, objective_of

_OBJECTIVES = ("latency", "dram", "energy")
_LONGEST = 4  # blocks of Einsums in a group that is not the whole cascade
_SIZES = 8  # of a middle tile that are tried
_ORDERS = 6  # of shared loops that are tried
_GAIN = 1e-6  # less than this is no improvement

Where_ = tuple[str, str] | None  # level and loop that a tile lives under; None: it passes by


@dataclass(frozen=True)
class Found:
    """A mapping that was found: the fields of its file, and what it was measured by."""

    design: Design
    fields: dict[str, Any]
    evaluated: int

    def text(self, cascade: str, arch: str) -> str:
        """The mapping file, naming a cascade and an architecture."""
        head = {"name": self.design.name, "about": self.design.about, "cascade": cascade, "arch": arch}
        return yaml.safe_dump({**head, **self.fields}, sort_keys=False, width=120, default_flow_style=None)


def auto_map(
    cascade: Cascade, arch: Architecture, extents: Mapping[str, int], objectives: Sequence[str] = _OBJECTIVES
) -> Found:
    """A legal mapping of a cascade at some extents, chosen by ``objectives`` in order (latency, dram, energy, edp).

    InputError if no unit has an operation that the cascade needs, or nothing fits.
    """
    einsums = main_einsums(cascade)
    search = _Search(cascade, arch, einsums, dict(extents), tuple(objectives))
    parts = search.partition(_blocks(einsums))
    if parts is None:
        raise search.problem or InputError(f"{cascade.name!r} computes nothing to map")
    about = f"Chosen by {', '.join(objectives)} at {', '.join(f'{r}={n}' for r, n in extents.items())}"
    groups = [Candidates((g.group,), ()) for g in parts]
    fields = [g.fields for g in parts]
    design = design_of(f"{cascade.name} (auto)", cascade, arch, groups, about)
    return Found(design, fields[0] if len(fields) == 1 else {"groups": fields}, search.evaluated)


def _blocks(einsums: Mapping[str, Einsum]) -> list[list[str]]:
    """Einsums in order, cut around those that contract several tensors; recurrences stay whole."""
    needs = {n: {a.tensor for a in reads(e)} & einsums.keys() - {n} for n, e in einsums.items()}
    blocks: list[list[str]] = []
    alone = True
    for part in components(list(einsums), needs):
        contracts = len(part) == 1 and len(reads(einsums[part[0]])) > 1 and bool(reduced_ranks(einsums[part[0]]))
        if contracts or alone:
            blocks.append([])
        blocks[-1] += part
        alone = contracts
    return blocks


@dataclass
class _Search:
    """Groups of consecutive blocks, each group searched once."""

    cascade: Cascade
    arch: Architecture
    einsums: Mapping[str, Einsum]
    extents: dict[str, int]
    objectives: tuple[str, ...]
    evaluated: int = 0
    problem: InputError | None = None

    def partition(self, blocks: list[list[str]]) -> list[_Best] | None:
        """The best way to cut the blocks into groups: their costs add up (dynamic programming over the cuts)."""
        n = len(blocks)
        whole = self.group([x for block in blocks for x in block])
        if whole and not whole.waits and not whole.score[0]:
            return [whole]  # the units are busy all the time: cuts could only add traffic
        best: list[tuple[tuple[float, ...], list[_Best]] | None] = [None] * (n + 1)
        best[0] = (0.0,) * (len(self.objectives) + 1), []
        for end in range(1, n + 1):
            for start in range(end):
                before = best[start]
                if before is None or (end - start > _LONGEST and end - start < n):
                    continue
                members = [x for block in blocks[start:end] for x in block]
                found = whole if end - start == n else self.group(members)
                if found is None:
                    continue
                score = tuple(x + y for x, y in zip(before[0], found.score, strict=True))
                held = best[end]
                if held is None or _less(score, held[0]):
                    best[end] = score, [*before[1], found]
        last = best[n]
        return last[1] if last else None

    def group(self, members: list[str]) -> _Best | None:
        """The best mapping found of some Einsums; smaller inner tiles are tried while traffic is what takes the
        time."""
        best: _Best | None = None
        widest = max(n for u in self.arch.units.values() for n in u.shape.values())
        while widest:
            try:
                descent = _Descent(
                    self.cascade, self.arch, self.einsums, members, self.extents, self.objectives, widest
                )
                found = descent.best()
            except InputError as error:
                self.problem = self.problem or error
                return best
            self.evaluated += descent.evaluated
            if best and not _less(found.score, best.score):
                break
            best = found
            if not found.waits or not descent.shape.tiles:
                break
            widest //= 2
        return best


@dataclass(frozen=True)
class _Best:
    group: Any
    fields: dict[str, Any]
    score: tuple[float, ...]
    waits: bool  # for a level


@dataclass
class _Descent:
    """The search for one group."""

    cascade: Cascade
    arch: Architecture
    einsums: Mapping[str, Einsum]
    members: Sequence[str]
    extents: Mapping[str, int]
    objectives: tuple[str, ...]
    widest: int
    shape: Shape = field(init=False)
    later: frozenset[str] = field(init=False)
    evaluated: int = 0

    def __post_init__(self) -> None:
        self.shape = shape_of(self.cascade, self.arch, self.einsums, self.members, self.extents, self.widest)
        inside = set(self.members)
        outside = {a.tensor for n, e in self.einsums.items() if n not in inside for a in reads(e)}
        self.later = frozenset(outside & inside)

    def best(self) -> _Best:
        results = [self.descend(order) for order in self.orders()]
        return min(results, key=lambda r: r.score)

    def orders(self) -> list[tuple[str, ...]]:
        found = list(permutations(self.shape.ranks))
        return found[:_ORDERS]

    def descend(self, order: tuple[str, ...]) -> _Best:
        """Where each tensor is kept, one at a time, until nothing helps."""
        loops = self.shape.loops(order)
        options = {t: self.places(t, loops) for t in self.tensors()}
        keeps: dict[str, Where_] = {
            t: found[-1] if t in self.members and t not in self.cascade.outputs and self.read_inside(t) else None
            for t, found in options.items()
        }
        best = self.measure(loops, keeps)
        improved = True
        while improved:
            improved = False
            for tensor, places in options.items():
                for place in places:
                    if place == keeps[tensor]:
                        continue
                    trial = {**keeps, tensor: place}
                    found = self.measure(loops, trial)
                    if found and (best is None or _less(found.score, best.score)):
                        best, keeps, improved = found, trial, True
        if best is None:
            raise InputError(f"no mapping of {', '.join(self.members)} fits on {self.arch.name!r}")
        return replace(best, group=group_of(best.fields, self.cascade, self.arch))

    def read_inside(self, tensor: str) -> bool:
        return any(a.tensor == tensor for n in self.members if n != tensor for a in reads(self.einsums[n]))

    def tensors(self) -> list[str]:
        used = (a.tensor for n in self.members for a in (*reads(self.einsums[n]), self.einsums[n].target))
        return list(dict.fromkeys(used))

    def places(self, tensor: str, loops: Sequence[str]) -> list[Where_]:
        """Nowhere, whole, or under a loop that steps along it; the innermost last."""
        leaves = {x for r in self.cascade.full_ranks(tensor) for x in self.cascade.split.get(r, (r,))}
        leaves |= {p for r in leaves & set(self.shape.tiles) for p in self.shape.parts(r)}
        inner = list(self.arch.levels)[1:]
        return [None, *((level, x) for level in inner for x in (ALL, *(x for x in loops if x in leaves)))]

    def fields(self, loops: Sequence[str], keeps: Mapping[str, Where_], sizes: Mapping[str, Any]) -> dict[str, Any]:
        tile: dict[str, Any] = {}
        for rank, inner in self.shape.tiles.items():
            parts = self.shape.parts(rank)
            tile |= {rank: list(parts), parts[2]: inner, parts[1]: sizes[parts[1]]}
        for rank, inner in self.shape.halves.items():
            parts = self.shape.parts(rank)
            tile |= {rank: [parts[1], parts[2]], parts[2]: inner}
        keep: dict[str, dict[str, Any]] = {}
        for tensor, place in keeps.items():
            if place:
                level, loop = place
                spills = tensor in self.members and self.read_inside(tensor)
                keep.setdefault(level, {})[tensor] = {"under": loop, "spill": True} if spills else loop
        bind = {}
        for name in self.members:
            spread = self.shape.spreads[name]
            bind[name] = {"unit": spread.unit, "spatial": {d: list(xs) for d, xs in spread.spatial.items()}}
        made = {"tile": tile, "loops": list(loops), "keep": keep, "bind": bind}
        return {k: v for k, v in made.items() if v}

    def measure(self, loops: Sequence[str], keeps: Mapping[str, Where_]) -> _Best | None:
        """The best sizes of the middle tiles for one structure; None if it is not legal or nothing fits."""
        self.evaluated += 1
        middle = {self.shape.parts(r)[1]: _thinned(self.extents[r] // n) for r, n in self.shape.tiles.items()}
        try:
            group = group_of(self.fields(loops, keeps, middle), self.cascade, self.arch)
            plan = plan_group(group, self.cascade, self.arch, self.later)
            chosen = choose([plan], Candidates((group,), self.objectives), self.extents, {})
        except InputError:
            return None
        fields = self.fields(loops, keeps, {p: int(chosen.sizes[p]) for p in middle})
        score = (float(self.notes(plan, chosen)), *(self.value(chosen, o) for o in self.objectives))
        waits = any(c > chosen.cost.schedule_cycles for c in chosen.cost.memory_cycles.values())
        return _Best(group, fields, score, waits)

    def notes(self, plan: Plan, chosen: Chosen) -> int:
        """Tensors that would have to stay in registers that cannot hold them."""
        passed = register_notes(plan.passed_on, plan.group, self.arch, chosen.sizes)
        return len(passed) + len(stationary_notes(plan, chosen.sizes))

    def value(self, chosen: Chosen, objective: str) -> float:
        return float(objective_of(self.arch, chosen.cost, objective))


def _thinned(extent: int) -> list[int]:
    """Some divisors, largest first."""
    every = divisors(extent)
    step = max(1, -(-len(every) // _SIZES))
    return sorted({*every[::step], 1}, reverse=True)


def _less(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    for x, y in zip(a, b, strict=True):
        if x < y * (1 - _GAIN):
            return True
        if x > y * (1 + _GAIN):
            return False
    return False
