"""A slow oracle for the counts of the closed-form model: every loop nest is walked, step by step, in plain Python.

Written from the meaning of the mapping language (DESIGN section 7), not from ``fusemodel.model``, of which nothing is
used. The rules walked here:

* The last tile of a rank may be smaller: what is past the end of the rank is not there. At a step a unit is filled as
  often as the lanes that are there fill it.
* Temporal loops of an Einsum, outermost first: the group's shared loops that it has, the loops of its binding, and the
  leaves that the mapping does not place. Leaves in ``spatial`` run all at once.
* A point is present where the condition holds and every operand it needs is present: inside its tensor, and computed.
* A tile at a level lives under a loop. It is brought again at each step of the innermost loop at or outside that one
  which changes it, and of every loop outside that one. Brought are the distinct elements touched while it stays.
  Accesses of one tensor that move alike (such as ``X[p]`` and ``X[p + 1]``) are one tile, others are a tile each.
* An array's registers are such a tile under the innermost loop, separate for each Einsum.
* Einsums inside the same shared loops use one tile; so do Einsums bound together, unless a reduction that must complete
  before the second one runs over a loop outside the tile. What its producer put into the tile is not brought, unless
  a loop is around one of the two only and those inside it put other tiles in its place: then one runs when the other's
  steps of that loop are over (or before them), and only the last tile is still there.
* An output's tile is written one level further out when it leaves. When it comes back before its reduction is complete,
  the elements that were there before are read again.
* A fraction ``f`` that spills is read and written one level further out (and part of that further still), and does not
  move between that level and this.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from math import ceil, prod
from typing import Any

from fusemodel.arch.spec import find_op
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    is_start,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
)
from fusemodel.cascade.work import work_of
from fusemodel.mapping.spec import Design, Group, Keep

Env = dict[str, int]
Element = tuple[int, ...]
#: Loops that bring a tile again, and how each of them moves an access.
Motion = tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]
#: The elements touched at each combination of steps.
Visits = dict[tuple[int, ...], set[Element]]
#: A level and the tile kept there; None and None for registers.
End = tuple[str | None, Keep | None]
Fills = dict[Any, list[tuple[str, Sequence[End], Visits]]]


class Gone(Exception):
    """What an Einsum reads is no more where it was put."""


@dataclass
class Walk:
    """What was counted. ``traffic[level, tensor]`` has words read and written."""

    traffic: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    points: dict[str, int] = field(default_factory=dict)
    cycles: dict[str, float] = field(default_factory=dict)
    footprint: list[dict[tuple[str, str], int]] = field(default_factory=list)
    schedule: list[float] = field(default_factory=list)
    absent: bool = False  # some point was absent


OPERATORS: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "neg": operator.neg, "abs": abs, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne, "and": lambda *a: all(a), "or": lambda *a: any(a), "not": operator.not_,
}  # fmt: skip


def value(expr: Expr, env: Mapping[str, int], extents: Mapping[str, int]) -> Any:
    """An index or a condition at one point."""
    match expr:
        case Number(n):
            return n
        case Extent(rank):
            return extents[rank]
        case RankValue(rank):
            return env[rank]
        case Apply(op, args):
            return OPERATORS[op](*(value(x, env, extents) for x in args))
    raise NotImplementedError(f"{expr}")


Reasons = list[tuple[frozenset[Any], bool]]


class Presence:
    """Which points and elements exist, with the reasons: what each depends on, and whether it speaks for presence.

    A point of a reduction that is absent is ignored; where the reason involves no reduced rank, the whole fiber is
    absent and so is the result.
    """

    def __init__(self, cascade: Cascade, extents: Mapping[str, int]) -> None:
        self.cascade, self.extents = cascade, extents
        self.main = {e.name: e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])}
        self.of_element = cache(self._of_element)

    def where(self, access: Access, env: Env) -> Element | None:
        """The element an access touches; None if it is absent."""
        at = tuple(int(value(i, env, self.extents)) for i in access.indices)
        return at if all(holds for _, holds in self.of_element(access.tensor, at)) else None

    def point(self, einsum: Einsum, env: Env) -> bool:
        inside = all(env[r] < self.extents[r] for r in iteration_ranks(einsum))  # not the padding of a ragged split
        return inside and all(holds for _, holds in self.of_point(einsum, env))

    def of_point(self, einsum: Einsum, env: Env) -> Reasons:
        """Reasons over the Einsum's ranks."""
        found: Reasons = []
        if einsum.where:
            parts = (
                einsum.where.args if isinstance(einsum.where, Apply) and einsum.where.op == "and" else [einsum.where]
            )
            found += [(frozenset(rank_values(c)), bool(value(c, env, self.extents))) for c in parts]
        return found + self.of_value(einsum.body, env)

    def of_value(self, expr: Expr, env: Env) -> Reasons:
        if isinstance(expr, Access):
            at = tuple(int(value(i, env, self.extents)) for i in expr.indices)
            used = [frozenset(rank_values(i)) for i in expr.indices]
            return [
                (frozenset().union(*(used[d] for d in along)), holds)
                for along, holds in self.of_element(expr.tensor, at)
            ]
        if isinstance(expr, Apply) and expr.op == "coalesce":
            each = [self.of_value(a, env) for a in expr.args]
            if not all(each):
                return []  # one is always there
            every = frozenset().union(*(along for reasons in each for along, _ in reasons))
            return [(every, any(all(holds for _, holds in reasons) for reasons in each))]
        if isinstance(expr, Apply):
            return [r for a in expr.args for r in self.of_value(a, env)]
        return []

    def _of_element(self, tensor: str, at: Element) -> Reasons:
        """Reasons over the positions of the tensor's indices."""
        ranks = self.cascade.full_ranks(tensor)
        iterative = self.cascade.tensors[tensor].iterative
        found: Reasons = [
            (frozenset({d}), 0 <= i < self.extents[r] + (r in iterative))
            for d, (r, i) in enumerate(zip(ranks, at, strict=True))
        ]
        einsum = self.main.get(tensor)
        if einsum is None or iterative or not all(holds for _, holds in found):
            return found
        position = {i.rank: d for d, i in enumerate(einsum.target.indices) if isinstance(i, RankValue)}
        env = dict.fromkeys(iteration_ranks(einsum), 0) | {r: at[d] for r, d in position.items()}
        for along, holds in self.of_point(einsum, env):
            if not along & set(reduced_ranks(einsum)):
                found.append((frozenset(position[r] for r in along), holds))
        return found


@dataclass
class Nest:
    """One Einsum's loops, and its present points by step: (counters, coordinates of ranks); ``lanes`` are the places of
    its spatial leaves, step by step, that are not past the end of a rank, whatever else holds there."""

    einsum: Einsum
    shared: tuple[str, ...]
    own: tuple[str, ...]
    spatial: tuple[str, ...]
    reduced: frozenset[str]
    leaves: dict[str, tuple[str, ...]]
    steps: list[tuple[Env, list[Env]]] = field(default_factory=list)
    lanes: list[list[Env]] = field(default_factory=list)

    def filled(self, leaves: Mapping[str, Sequence[str]], loops: Sequence[str]) -> dict[tuple[int, ...], list[int]]:
        """At each step of some loops, the different places in each dimension that has the given leaves spread."""
        seen: dict[tuple[int, ...], list[set[tuple[int, ...]]]] = {}
        for (counters, _), lanes in zip(self.steps, self.lanes, strict=True):
            found = seen.setdefault(tuple(counters[x] for x in loops), [set() for _ in leaves])
            for place in lanes:
                for d, over in enumerate(leaves.values()):
                    found[d].add(tuple(place[x] for x in over))
        return {key: [len(places) for places in found] for key, found in seen.items()}


def coordinates(leaves: Mapping[str, tuple[str, ...]], counters: Env, sizes: Mapping[str, int]) -> Env:
    env = {}
    for rank, parts in leaves.items():
        at = 0
        for leaf in parts:
            at = at * sizes[leaf] + counters[leaf]
        env[rank] = at
    return env


def nest_of(einsum: Einsum, group: Group, cascade: Cascade, sizes: Mapping[str, int], presence: Presence) -> Nest:
    ranks = {r: group.leaves(r, cascade) for r in iteration_ranks(einsum)}
    leaves = list(dict.fromkeys(x for parts in ranks.values() for x in parts))
    binding = group.bindings[einsum.name]
    spatial = tuple(x for over in binding.spatial.values() for x in over)
    shared = tuple(x for x in group.loops if x in leaves)
    own = [x for x in binding.loops if x not in shared and x not in spatial]
    own += [x for x in leaves if x not in shared and x not in own and x not in spatial]
    reduced = frozenset(x for r in reduced_ranks(einsum) for x in ranks[r])
    nest = Nest(einsum, shared, tuple(own), spatial, reduced, ranks)
    temporal = nest.shared + nest.own
    places = [dict(zip(spatial, p, strict=True)) for p in product(*(range(sizes[x]) for x in spatial))]
    for step in product(*(range(sizes[x]) for x in temporal)):
        counters = dict(zip(temporal, step, strict=True))
        every = [coordinates(ranks, counters | place, sizes) for place in places]
        nest.steps.append((counters, [env for env in every if presence.point(einsum, env)]))
    padding = {whole for whole, pair in cascade.split.items() if set(pair) <= set(ranks)}
    for _, points in nest.steps:  # where a ragged split is padded with points, they are there
        padding -= {w for w in padding for env in points if joined(cascade, w, env, presence) >= presence.extents[w]}
    for counters, _ in nest.steps:
        every = [(place, coordinates(ranks, counters | place, sizes)) for place in places]
        inside = [
            place for place, env in every
            if all(env[r] < presence.extents[r] for r in ranks)
            and all(joined(cascade, w, env, presence) < presence.extents[w] for w in padding)
        ]  # fmt: skip
        nest.lanes.append(inside)
    return nest


def joined(cascade: Cascade, whole: str, env: Env, presence: Presence) -> int:
    """The coordinate of a rank that is split, from those of its parts."""
    outer, inner = cascade.split[whole]
    return env[outer] * presence.extents[inner] + env[inner]


class GroupWalk:
    """One group: its loop nests and the tiles that live in them."""

    def __init__(self, design: Design, index: int, sizes: Mapping[str, int], presence: Presence, walk: Walk) -> None:
        self.design, self.cascade, self.arch = design, design.cascade, design.arch
        self.group = design.groups[index].groups[0]
        self.sizes, self.presence, self.walk = sizes, presence, walk
        self.levels = list(design.arch.levels)
        inside = [e for n, e in presence.main.items() if n in self.group.bindings]
        self.nests = {e.name: nest_of(e, self.group, self.cascade, sizes, presence) for e in inside}
        elsewhere = [e for n, e in presence.main.items() if n not in self.group.bindings]
        self.order = {e.name: i for i, e in enumerate(inside)}
        self.needed_later = {a.tensor for e in elsewhere for a in reads(e)} | set(self.cascade.outputs)

    def depth(self, name: str, over: Iterable[str], seen: tuple[str, ...] = ()) -> int:
        """How many reductions over some of the loops ``over`` must be complete, one after another, before an Einsum."""
        deepest = 0
        for access in reads(self.nests[name].einsum):
            made = access.tensor
            if made in self.nests and made not in (*seen, name) and self.order[made] < self.order[name]:
                waits = bool(self.nests[made].reduced & set(over))
                deepest = max(deepest, self.depth(made, over, (*seen, name)) + waits)
        return deepest

    # Loops, tiles and how they change

    def loop(self, keep: Keep) -> str:
        return "all" if keep.under == "all" else self.group.leaves(keep.under, self.cascade)[-1]

    def keeps(self, name: str, tensor: str) -> dict[str, Keep]:
        """The tiles of a tensor that an Einsum uses, by level: it runs inside their loop."""
        found = {}
        for keep in self.group.keeps:
            loop = self.loop(keep)
            if keep.tensor == tensor and (loop == "all" or loop in self.group.loops or loop in self.nests[name].own):
                found[keep.level] = keep
        return found

    def outside(self, name: str, keep: Keep | None) -> tuple[str, ...]:
        """The loops at or outside the one a tile lives under; for the registers (None) every loop."""
        nest = self.nests[name]
        temporal = nest.shared + nest.own
        if keep is None:
            return temporal
        loop = self.loop(keep)
        if loop == "all":
            return ()
        if loop in self.group.loops:
            before = self.group.loops[: self.group.loops.index(loop) + 1]
            return tuple(x for x in nest.shared if x in before)
        return temporal[: temporal.index(loop) + 1]

    def motion(self, name: str, access: Access, loops: Sequence[str], *, state: bool = True) -> Motion:
        """The loops whose steps bring a tile again, outermost first, and how each of them moves the access (``state``:
        along iterative ranks as well). A loop of one step is none."""
        nest = self.nests[name]
        iterative = self.cascade.tensors[access.tensor].iterative
        indices = [
            i for r, i in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True)
            if state or r not in iterative
        ]  # fmt: skip
        loops = [x for x in loops if self.sizes[x] > 1]
        moved = [tuple(self.shift(nest, i, x) for i in indices) for x in loops]
        last = max((i for i, m in enumerate(moved) if any(m)), default=-1)
        return tuple(loops[: last + 1]), tuple(moved[: last + 1])

    def shift(self, nest: Nest, index: Expr, loop: str) -> Any:
        """By how much an index changes when a loop steps; itself if that differs from step to step."""
        names = [x for x in dict.fromkeys((*nest.shared, *nest.own, *nest.spatial)) if x in self.leaves_in(nest, index)]
        if loop not in names:
            return 0
        found = set()
        for counts in product(*(range(self.sizes[x]) for x in names)):
            counters = dict.fromkeys((*nest.shared, *nest.own, *nest.spatial), 0) | dict(
                zip(names, counts, strict=True)
            )
            if counters[loop] + 1 < self.sizes[loop]:
                after = {**counters, loop: counters[loop] + 1}
                env = [coordinates(nest.leaves, c, self.sizes) for c in (counters, after)]
                found.add(value(index, env[1], self.presence.extents) - value(index, env[0], self.presence.extents))
        return index if len(found) > 1 else found.pop()

    def leaves_in(self, nest: Nest, index: Expr) -> set[str]:
        return {x for r in rank_values(index) for x in nest.leaves[r]}

    def visits(self, name: str, accesses: Iterable[Access], loops: Sequence[str], *, state: bool = True) -> Visits:
        """The distinct elements touched at each combination of steps of some loops."""
        found: Visits = {}
        for counters, points in self.nests[name].steps:
            key = tuple(counters[x] for x in loops)
            for access in accesses:
                iterative = [
                    r in self.cascade.tensors[access.tensor].iterative for r in self.cascade.full_ranks(access.tensor)
                ]
                for env in points:
                    element = self.presence.where(access, env)
                    if element is None:
                        continue
                    if not state:
                        element = tuple(i for i, skip in zip(element, iterative, strict=True) if not skip)
                    found.setdefault(key, set()).add(element)
        return found

    def together(self, a: str, b: str, keep: Keep) -> bool:
        """Whether two Einsums find one tile in their step of the loop it lives under."""
        loop = self.loop(keep)
        if loop == "all" or loop in self.group.loops:
            return True
        if self.group.bindings[a].key != self.group.bindings[b].key:
            return False
        outside = [x for x in self.outside(b, keep) if self.sizes[x] > 1]
        return self.depth(a, outside) == self.depth(b, outside)

    def replaced(self, made: str, name: str, access: Access, keep: Keep) -> bool:
        """Whether the tile that an Einsum made is another one when its reader comes to it."""
        target = self.nests[made].einsum.target
        if self.cascade.tensors[made].iterative:
            return False  # a state is held for each step of the loops inside the one it is stepped along
        ends = [(self.outside(made, keep), made, target), (self.outside(name, keep), name, access)]
        for (mine, einsum, used), (other, *_) in (ends, ends[::-1]):
            for i, x in enumerate(mine):
                moves = [y for y in mine[i + 1 :] if self.motion(einsum, used, [y])[0]]
                if x not in other and self.sizes[x] > 1 and moves:
                    return True
        return False

    # Movements

    def read_chain(self, name: str, tensor: str) -> list[End]:
        chain: dict[str, Keep | None] = dict(self.keeps(name, tensor))
        if tensor not in self.nests:
            chain.setdefault(self.levels[0], None)
        return [(x, chain[x]) for x in self.levels if x in chain]

    def write_chain(self, name: str) -> list[End]:
        chain: dict[str, Keep | None] = dict(self.keeps(name, name))
        if name in self.needed_later:
            chain.setdefault(self.levels[0], None)
        return [(x, chain[x]) for x in self.levels if x in chain]

    def move(self, tensor: str, ends: Sequence[End], words: float, *, forwarded: bool = False) -> None:
        """Words from a tile to another (a level and what is kept there; None: registers). What spills of a tile is one
        level further out, and stays there if that is the other end."""
        for (level, keep), (other, _) in (ends, ends[::-1]):
            if level and keep and keep.spill is not False and other == self.further(level):
                words *= 1 - float(keep.spill)
                ends = [(x, None if x == level else k) for x, k in ends]
        for side, (level, keep) in enumerate(ends):
            if level is None:
                continue
            fraction = float(keep.spill) if keep else 0.0
            self.walk.traffic[level, tensor][side] += words * (1 - fraction)
            left = words
            while fraction and not forwarded:
                left, level = left * fraction, self.further(level)
                spills = [k.spill for k in self.group.keeps if (k.level, k.tensor) == (level, tensor)]
                fraction = float(spills[0]) if spills else 0.0
                self.walk.traffic[level, tensor][side] += left * (1 - fraction)

    def further(self, level: str) -> str:
        return self.levels[self.levels.index(level) - 1]

    def run(self) -> None:
        fills: Fills = defaultdict(list)
        for name, nest in self.nests.items():
            self.compute(name)
            by_tensor: dict[str, list[Access]] = defaultdict(list)
            for access in reads(nest.einsum):
                by_tensor[access.tensor].append(access)
            for tensor, accesses in by_tensor.items():
                self.read(name, tensor, accesses, fills)
            self.write(name)
        for (tensor, *_), members in fills.items():
            pools: list[tuple[str, Visits]] = []
            for name, ends, visits in members:
                keep = ends[1][1]
                assert keep is not None
                pool = next((v for first, v in pools if self.together(first, name, keep)), None)
                if pool is None:
                    pools.append((name, pool := defaultdict(set)))
                for key, elements in visits.items():
                    pool[key] |= elements
            for _, visits in pools:
                self.move(tensor, members[0][1], sum(map(len, visits.values())))
        self.footprints()

    def read(self, name: str, tensor: str, accesses: list[Access], fills: Fills) -> None:
        chain = self.read_chain(name, tensor)
        if not chain:
            return  # from registers
        first, keep = chain[0]
        here = tensor in self.nests and first in self.keeps(tensor, tensor)
        if here and keep and self.replaced(tensor, name, accesses[0], keep):
            raise Gone(f"{name} finds no {tensor} in {first}")
        for ends in pairwise(chain):
            (outer, _), (inner, keep) = ends
            assert keep is not None
            here = tensor in self.nests and inner in self.keeps(tensor, tensor) and self.together(tensor, name, keep)
            if here and not self.replaced(tensor, name, accesses[0], keep):
                continue
            for motion, alike in self.classes(name, accesses, self.outside(name, keep)).items():
                fills[tensor, outer, inner, motion].append((name, ends, self.visits(name, alike, motion[0])))
        forwarded = (
            tensor in self.nests
            and self.group.bindings[tensor].key == self.group.bindings[name].key
            and self.depth(tensor, self.sizes) == self.depth(name, self.sizes)
        )
        for motion, alike in self.classes(name, accesses, self.outside(name, None)).items():
            visits = self.visits(name, alike, motion[0])
            self.move(tensor, [chain[-1], (None, None)], sum(map(len, visits.values())), forwarded=forwarded)

    def classes(self, name: str, accesses: Iterable[Access], loops: Sequence[str]) -> dict[Motion, list[Access]]:
        """Accesses that move alike."""
        found: dict[Motion, list[Access]] = defaultdict(list)
        for access in accesses:
            found[self.motion(name, access, loops)].append(access)
        return found

    def write(self, name: str) -> None:
        target = self.nests[name].einsum.target
        for outer, inner in pairwise([*self.write_chain(name), (None, None)]):
            loops, _ = self.motion(name, target, self.outside(name, inner[1]))
            written, again = 0, 0
            seen: set[Element] = set()
            for elements in self.visits(name, [target], loops).values():
                written += len(elements)
                again += len(elements & seen)
                seen |= elements
            self.move(name, [inner, outer], written)
            if self.nests[name].reduced:
                self.move(name, [outer, inner], again)

    # Time and space

    def compute(self, name: str) -> None:
        nest, binding = self.nests[name], self.group.bindings[name]
        unit = self.arch.units[binding.unit]
        work = work_of(nest.einsum)
        every = [op.cycles for o in work.per_point if (op := find_op(unit, o))]
        last = [op.cycles for o in work.per_output if (op := find_op(unit, o))]
        busy = [(counters, points) for counters, points in nest.steps if points]
        per_point = (max(every) if binding.pipelined else sum(every)) if every else 0
        self.walk.points[name] = sum(len(points) for _, points in busy)
        cycles = 0.0
        for per, out in ((per_point, False), (sum(last), True)):
            loops = [x for x in (*nest.shared, *nest.own) if not (out and x in nest.reduced)]
            spread = {d: [x for x in over if not (out and x in nest.reduced)] for d, over in binding.spatial.items()}
            filled = nest.filled(spread, loops)
            for step in {tuple(counters[x] for x in loops) for counters, _ in busy}:
                lengths = zip(filled[step], spread, strict=True)
                cycles += per * prod(ceil(n / unit.shape[d]) for n, d in lengths)
        self.walk.cycles[name] = cycles
        whole = prod(self.sizes[x] for x in (*nest.shared, *nest.own, *nest.spatial))
        self.walk.absent |= self.walk.points[name] < whole

    def footprints(self) -> None:
        held: dict[tuple[str, str], int] = {}
        for keep in self.group.keeps:
            tiles: dict[Any, dict[tuple[int, ...], set[Element]]] = defaultdict(lambda: defaultdict(set))
            for name, nest in self.nests.items():
                if keep.level not in self.keeps(name, keep.tensor):
                    continue
                outside = self.outside(name, keep)
                own = self.group.bindings[name].key if self.loop(keep) in nest.own else None
                for access in dict.fromkeys((*reads(nest.einsum), nest.einsum.target)):
                    if access.tensor == keep.tensor:
                        motion = self.motion(name, access, outside, state=False)
                        for key, elements in self.visits(name, [access], motion[0], state=False).items():
                            tiles[own, motion][key] |= elements
            words = sum(max((len(x) for x in tile.values()), default=0) for tile in tiles.values())
            held[keep.level, keep.tensor] = words * keep.copies
        self.walk.footprint.append(held)

    def schedule(self) -> float:
        """Stages one after another, the units of each side by side; drains of spatial reductions waited for."""
        total = 0.0
        before: tuple[str, ...] = ()
        for stage in self.group.stages:
            busy: dict[str, float] = defaultdict(float)
            for name in stage:
                busy[self.group.bindings[name].unit] += self.walk.cycles[name]
            drains = [0.0]
            for made in before if not self.group.interleave else ():
                if any(a.tensor == made for name in stage for a in reads(self.nests[name].einsum)):
                    drains.append(self.drain(made))
            total += max(busy.values()) + max(drains)
            before = stage
        return max([total, *self.recurrences()])

    def recurrences(self) -> list[float]:
        """How long the steps of each recurrence take, one after another, those of independent tiles together: found by
        walking from every Einsum along what needs it in the same step, back to itself in the next."""
        found: list[float] = []

        def walk(start: str, at: str, seen: tuple[str, ...], stepped: str | None) -> None:
            for reader, nest in self.nests.items():
                for access in reads(nest.einsum):
                    if access.tensor != at:
                        continue
                    rank = self.previous(access)
                    if (rank and stepped) or (reader in seen and reader != start):
                        continue
                    if reader != start:
                        walk(start, reader, (*seen, reader), stepped or rank)
                    elif stepped or rank:
                        found.append(self.latency(seen, str(stepped or rank)))

        for name in self.nests:
            walk(name, name, (name,), None)
        return found

    def previous(self, access: Access) -> str | None:
        """The rank along which an access reads what the step before made."""
        tensor = self.cascade.tensors[access.tensor]
        for rank, index in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True):
            if rank in tensor.iterative and isinstance(index, RankValue):
                return rank
        return None

    def latency(self, cycle: tuple[str, ...], rank: str) -> float:
        cycles = 0.0
        for name in cycle:
            cycles += self.walk.cycles[name] + self.drain(name)
        shared = [x for x in self.group.loops if all(x in self.nests[n].shared for n in cycle)]
        leaves = [x for x in self.group.leaves(rank, self.cascade) if x in self.group.loops]
        if not leaves:
            return cycles
        inside = self.group.loops[max(map(self.group.loops.index, leaves)) + 1 :]
        nest = self.nests[cycle[0]]
        there = [counters for (counters, _), lanes in zip(nest.steps, nest.lanes, strict=True) if lanes]
        tiles = {tuple(counters[x] for x in nest.shared) for counters in there}
        steps = {tuple(c[x] for x in nest.shared if x not in shared or x not in inside) for c in there}
        return cycles * len(steps) / len(tiles)

    def drain(self, made: str) -> float:
        nest, binding = self.nests[made], self.group.bindings[made]
        for dimension, leaves in binding.spatial.items():
            over = [x for x in leaves if x in nest.reduced]
            if over:
                tiles = {tuple(counters[x] for x in nest.shared) for counters, points in nest.steps if points}
                filled = nest.filled({dimension: over}, nest.shared)
                return sum(min(filled[tile][0], self.arch.units[binding.unit].shape[dimension]) for tile in tiles)
        return 0.0


def walk(design: Design, extents: Mapping[str, int], tiles: Sequence[Mapping[str, int]]) -> Walk:
    """Walk a design of groups without choices; ``tiles`` has the sizes of the parts in each group."""
    result = Walk()
    presence = Presence(design.cascade, extents)
    for index, sizes in enumerate(tiles):
        group = GroupWalk(design, index, {**extents, **sizes}, presence, result)
        group.run()
        result.schedule.append(group.schedule())
    return result
