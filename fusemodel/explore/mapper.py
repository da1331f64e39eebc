"""A mapping of a cascade onto an architecture: the best found in a stated space, exact inside each group.

The space: Einsums are cut into groups of consecutive blocks (a block is a contraction, a recurrence, or the Einsums
between two of them); in a group, every order of the shared loops; every divisor for the middle tile of each shared rank
and the longest inner tiles that fit the units; every tensor at every level under every loop that steps along it, whole,
or passing by; every Einsum on the unit, and spread over it, so that the busiest unit is done soonest.

In a group the best places are found by dominance (:mod:`fusemodel.explore.knapsack`), exactly. Groups are found by
fusing neighbours as long as that helps, and the best cut into the groups looked at by dynamic programming, since groups
cost their sum. A cascade that is close to a bound as one group is not cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, permutations, product
from math import prod
from time import monotonic
from typing import Any

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.arch.spec import find_op
from fusemodel.cascade.graph import components
from fusemodel.cascade.ir import Cascade, Einsum, reads, reduced_ranks
from fusemodel.cascade.work import work_of
from fusemodel.errors import InputError
from fusemodel.explore.choices import Place, Structure, choices, fields_of
from fusemodel.explore.found import Found, Point, Progress
from fusemodel.explore.knapsack import Score, best_of, less
from fusemodel.explore.shape import Shape, shape_of
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.spec import ALL, Candidates
from fusemodel.model.tiles import divisors

DEFAULT = ("latency", "dram", "energy")
EFFORT = 1000
_ORDERS = 24  # of shared loops
_GAP = 0.02  # this close to a bound, a group is not cut
_FEW = 4  # sizes of a middle tile that are tried where some points are absent
_NARROWEST = 8  # inner tiles shorter than this are not tried


def best_mapping(
    cascade: Cascade, arch: Architecture, extents: Mapping[str, int], objectives: Sequence[str] = DEFAULT,
    *, front: Sequence[str] = (), seconds: float | None = None, progress: Progress | None = None,
) -> Found:  # fmt: skip
    """The best mapping of a cascade at some extents by ``objectives`` in order, and the ``front`` of several together.

    After ``seconds``, or at Ctrl-C, the best found so far is handed back with its bound. InputError if no unit has an
    operation that the cascade needs, or nothing fits.
    """
    started = monotonic()
    search = _Search(cascade, arch, main_einsums(cascade), dict(extents), tuple(objectives), EFFORT)
    parts = search.partition()
    about = f"Best found by {', '.join(objectives)} at {', '.join(f'{r}={n}' for r, n in extents.items())}"
    groups = [Candidates((group_of(g.fields, cascade, arch),), ()) for g in parts]
    design = design_of(f"{cascade.name} (auto)", cascade, arch, groups, about)
    fields = [g.fields for g in parts]
    score = tuple(sum(g.score[i] for g in parts) for i in range(1, len(objectives) + 1))
    end = len(search.blocks)
    point = Point(
        design, fields[0] if len(fields) == 1 else {"groups": fields}, dict(zip(objectives, score, strict=True))
    )
    return Found(
        point, tuple(objectives), score, max(search.bound(0, end), search.work(0, end)), False, search.space,
        search.costed, {}, monotonic() - started, (point,) if front else (),
    )  # fmt: skip


@dataclass(frozen=True)
class _Group:
    fields: dict[str, Any]
    score: Score


@dataclass
class _Search:
    """All groups of one cascade on one architecture at some extents."""

    cascade: Cascade
    arch: Architecture
    einsums: Mapping[str, Einsum]
    extents: dict[str, int]
    objectives: tuple[str, ...]
    effort: int
    space: int = 0
    costed: int = 0
    limit: int = 0
    problem: InputError | None = None
    shapes: dict[tuple[int, int, int, bool], Shape | None] = field(default_factory=dict)

    @cached_property
    def blocks(self) -> list[list[str]]:
        """Einsums in order, cut around those that contract several tensors; recurrences stay whole."""
        needs = {n: {a.tensor for a in reads(e)} & self.einsums.keys() - {n} for n, e in self.einsums.items()}
        blocks: list[list[str]] = []
        alone = True
        for part in components(list(self.einsums), needs):
            einsum = self.einsums[part[0]]
            contracts = len(part) == 1 and len(reads(einsum)) > 1 and bool(reduced_ranks(einsum))
            if contracts or alone:
                blocks.append([])
            blocks[-1] += part
            alone = contracts
        return blocks

    @cached_property
    def widest(self) -> int:
        return max(n for u in self.arch.units.values() for n in u.shape.values())

    def members(self, start: int, end: int) -> list[str]:
        return [x for block in self.blocks[start:end] for x in block]

    def shape(self, start: int, end: int, widest: int, roomy: bool = False) -> Shape | None:
        """The frame of a group; None where some Einsum cannot be computed."""
        key = (start, end, widest, roomy)
        if key not in self.shapes:
            try:
                self.shapes[key] = shape_of(
                    self.cascade, self.arch, self.einsums, self.members(start, end), self.extents, widest, roomy=roomy
                )
            except InputError as error:
                self.problem = self.problem or error
                self.shapes[key] = None
        return self.shapes[key]

    def bound(self, start: int, end: int) -> float:
        """Cycles in which a group moves the cascade's inputs that it reads and the outputs that it makes, once."""
        level = self.arch.levels[self.arch.outermost]
        inside = self.members(start, end)
        touched = {a.tensor for n in inside for a in reads(self.einsums[n])} & set(self.cascade.inputs)
        words = sum(self.compulsory.get(t, 0) for t in touched | (set(inside) & set(self.cascade.outputs)))
        rate = level.bandwidth_bytes_per_s
        return words * self.arch.word_bytes / rate * self.arch.clock_hz if rate else 0.0

    def work(self, start: int, end: int) -> float:
        """Cycles if every Einsum were shared out over all units that can compute it, all of them full: a lower bound.

        Units are taken in order of what they alone can do: the slots that only some of them can take need that long.
        """
        slots: dict[frozenset[str], float] = {}
        for n in self.members(start, end):
            per_unit = self.slots[n]
            key = frozenset(per_unit)
            slots[key] = slots.get(key, 0.0) + min(per_unit.values(), default=0.0)
        least = 0.0
        for units in list(slots):
            inside = sum(v for key, v in slots.items() if key <= units)
            least = max(least, inside / sum(self.arch.units[u].size for u in units) if units else 0.0)
        return least

    @cached_property
    def slots(self) -> dict[str, dict[str, float]]:
        """Cycles of one processing element for each Einsum, on each unit that can compute it."""
        from fusemodel.analysis.graph import Dependence

        found = Dependence(self.cascade, self.extents)
        result: dict[str, dict[str, float]] = {}
        for name, einsum in self.einsums.items():
            work = work_of(einsum)
            points = found.count(name)[0] if name in found.points else 0
            result[name] = {}
            for u, unit in self.arch.units.items():
                ops = [find_op(unit, o) for o in work.per_point]
                if all(ops) and all(find_op(unit, o) for o in work.per_output):
                    result[name][u] = points * sum(o.cycles for o in ops if o)
        return result

    @cached_property
    def compulsory(self) -> dict[str, int]:
        """Words of inputs that have to be read by some group and of outputs that have to be written."""
        from fusemodel.analysis.graph import Dependence

        found = Dependence(self.cascade, self.extents)
        return {t: found.touched(t)[0] for t in (*self.cascade.inputs, *self.cascade.outputs) if t in found.live}

    def partition(self) -> list[_Group]:
        """The best way to cut the blocks into groups."""
        n = len(self.blocks)
        self.limit = self.effort
        whole = self.group(0, n)
        if whole and self.met(whole, 0, n):
            return [whole]
        groups: dict[tuple[int, int], _Group | None] = {(0, n): whole}
        for start in range(n):
            groups[start, start + 1] = whole if n == 1 else self.group(start, start + 1)
        self.merge(groups)
        best: list[tuple[Score, list[_Group]] | None] = [None] * (n + 1)
        best[0] = (0.0,) * (len(self.objectives) + 1), []
        for (start, end), found in sorted(groups.items(), key=lambda g: (g[0][1], g[0][0])):
            before, held = best[start], best[end]
            if before and found:
                score = tuple(x + y for x, y in zip(before[0], found.score, strict=True))
                if held is None or less(score, held[0]):
                    best[end] = score, [*before[1], found]
        last = best[n]
        if last is None:
            names = ", ".join(self.einsums)
            raise self.problem or InputError(f"no mapping of {names} fits on {self.arch.name!r}")
        return last[1]

    def merge(self, groups: dict[tuple[int, int], _Group | None]) -> None:
        """Neighbours fused one pair after another, those first between which most words pass; a pair stays fused where
        that is better. What was looked at is left in ``groups``."""
        parts = [(start, start + 1) for start in range(len(self.blocks))]
        tried: set[tuple[int, int]] = set()
        self.limit = self.costed + self.effort
        while self.costed < self.limit:
            pairs = [(a, b) for a, b in pairwise(parts) if (a[0], b[1]) not in tried]
            if not pairs:
                return
            left, right = max(pairs, key=lambda p: (self.between(*p), -p[0][0]))
            key = left[0], right[1]
            tried.add(key)
            if key not in groups:
                groups[key] = self.group(*key)
            fused, one, two = groups[key], groups[left], groups[right]
            apart = tuple(x + y for x, y in zip(one.score, two.score, strict=True)) if one and two else None
            if fused and (apart is None or not less(apart, fused.score)):
                parts[parts.index(left) : parts.index(right) + 1] = [key]

    def between(self, left: tuple[int, int], right: tuple[int, int]) -> int:
        """Words, all points being present, that one group makes for the next."""
        made = set(self.members(*left))
        passed = {a.tensor for n in self.members(*right) for a in reads(self.einsums[n])} & made
        return sum(prod(self.extents[r] for r in self.cascade.full_ranks(t)) for t in passed)

    def met(self, found: _Group, start: int, end: int) -> bool:
        """Whether a group is within a small gap of what all units together could do, or of what must be moved."""
        least = max(self.work(start, end), self.bound(start, end))
        return not found.score[0] and self.objectives[0] == "latency" and found.score[1] <= least * (1 + _GAP)

    def group(self, start: int, end: int) -> _Group | None:
        """The best mapping of some blocks as one group: with the longest inner tiles first, and shorter ones as long as
        that helps."""
        best: _Group | None = None
        widest = self.widest
        while widest >= min(_NARROWEST, self.widest):
            shape = self.shape(start, end, widest)
            if shape is None:
                return best
            best = self.framed(shape, best.score if best else None) or best
            crowded = self.shape(start, end, widest, roomy=True)
            if crowded and crowded != shape:
                best = self.framed(crowded, best.score if best else None) or best
            over = self.costed >= self.limit
            if not shape.tiles or (best and (over or self.met(best, start, end))):
                break
            widest //= 2
        return best

    def framed(self, shape: Shape, beat: Score | None) -> _Group | None:
        """The best mapping in one frame: orders of loops, middle tiles and places."""
        outside = {a.tensor for n, e in self.einsums.items() if n not in shape.members for a in reads(e)}
        later = frozenset(outside & set(shape.members))
        sizes, length = self.sizes(shape)
        best: _Group | None = None
        for order in list(permutations(shape.ranks))[:_ORDERS]:
            structure = self.structure(shape, order, sizes)
            found = choices(structure, self.cascade, self.arch, later, self.extents, sizes, length)
            if found is None:
                continue
            self.costed += found.costed
            space = length
            for p in structure.places.values():
                space *= len(p)
            self.space += space
            taken, _ = best_of(found, self.arch, self.objectives, beat)
            if taken:
                picked = {x: int(v[taken.at]) for x, v in sizes.items() if isinstance(v, np.ndarray)}
                best, beat = _Group(fields_of(structure, taken.places, picked), taken.score), taken.score
        return best

    def sizes(self, shape: Shape) -> tuple[dict[str, Any], int]:
        """Every combination of middle tiles, as columns."""
        sizes: dict[str, Any] = dict(self.extents)
        options = [divisors(self.extents[r] // n) for r, n in shape.tiles.items()]
        if any(self.einsums[n].where for n in shape.members):  # counted one by one
            options = [d[:: max(1, -(-len(d) // _FEW))] for d in options]
        combinations = list(product(*options))
        rows = np.array(combinations, dtype=float).reshape(len(combinations), len(options))
        for i, (rank, inner) in enumerate(shape.tiles.items()):
            outer, middle, innermost = shape.parts(rank)
            sizes[middle], sizes[innermost] = rows[:, i], inner
            sizes[outer] = self.extents[rank] // inner / rows[:, i]
        for rank, inner in shape.halves.items():
            _, middle, innermost = shape.parts(rank)
            sizes[middle], sizes[innermost] = self.extents[rank] // inner, inner
        return sizes, len(rows)

    def structure(self, shape: Shape, order: Sequence[str], sizes: Mapping[str, Any]) -> Structure:
        loops = shape.loops(order)
        tile: dict[str, Any] = {}
        for rank, inner in shape.tiles.items():
            outer, middle, innermost = shape.parts(rank)
            every = sorted({int(n) for n in sizes[middle]}, reverse=True)
            tile |= {rank: [outer, middle, innermost], innermost: inner, middle: every}
        for rank, inner in shape.halves.items():
            _, middle, innermost = shape.parts(rank)
            tile |= {rank: [middle, innermost], innermost: inner}
        bind = {
            name: {"unit": s.unit, "spatial": {d: list(xs) for d, xs in s.spatial.items()}, "loops": list(s.loops)}
            for name, s in shape.spreads.items()
        }
        fields = {"tile": tile, "loops": loops, "keep": {}, "bind": bind}
        used = (a.tensor for n in shape.members for a in (*reads(self.einsums[n]), self.einsums[n].target))
        places = {t: self.places(t, shape, loops) for t in dict.fromkeys(used)}
        return Structure({k: v for k, v in fields.items() if v}, places)

    def places(self, tensor: str, shape: Shape, loops: Sequence[str]) -> list[Place]:
        """Every set of tiles of a tensor, at most one a level: under a loop that steps along it, inner levels under the
        same loop or further in, or whole."""
        leaves = {x for r in self.cascade.full_ranks(tensor) for x in self.cascade.split.get(r, (r,))}
        leaves |= {p for r in leaves & set(shape.tiles) for p in shape.parts(r)}
        under = [ALL, *(x for x in loops if x in leaves)]
        found: list[Place] = [()]
        for level in list(self.arch.levels)[1:]:
            found += [
                (*place, (level, x)) for place in found for i, x in enumerate(under)
                if not place or i >= under.index(place[-1][1])
            ]  # fmt: skip
        return found


__all__ = ["DEFAULT", "best_mapping"]
