"""The best mappings of some Einsums as one group: frames in order of what they can reach, while one may be better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import reads, reduced_ranks
from fusemodel.errors import InputError
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.columns import Costs, priced
from fusemodel.explore.costs import fields_of, keeps
from fusemodel.explore.frame import Frame, Scene, options
from fusemodel.explore.goal import Best, Goal
from fusemodel.explore.known import Known, Look, Order
from fusemodel.explore.mix import Mix
from fusemodel.explore.states import Mixed, Spill
from fusemodel.explore.tight import Tight

_BEAM = 30  # partial mappings of a first look, which bounds what is looked at after it
_TOGETHER = 4  # frames of which the most promising, as their costs say, is looked at first; then four times as many
_SIDE = 256  # combinations of sizes of a frame that go side by side at most
_STEP = 16  # so many times as many as before
_LOOKS = 2  # combinations of sizes of a frame that are looked at in this way


class Stopped(Exception):
    """The time allowed is over."""


@dataclass
class Tally:
    """What a search looked at: ``space`` mappings, of which ``pruned`` were left out by reason, and ``evaluated`` times
    the model was asked; ``cut``: partial mappings were left out unproven."""

    space: int = 0
    evaluated: int = 0
    pruned: Counter[str] = field(default_factory=Counter)
    cut: bool = False


@dataclass(frozen=True)
class GroupPoint:
    """A mapping of a group: the fields of its file and its metrics."""

    fields: dict[str, Any]
    metrics: tuple[float, ...]


@dataclass
class GroupSearch:
    """Frames of one group, the most promising first. ``check`` is called between steps with the
    search, and may raise :class:`Stopped`."""

    scene: Scene
    bounds: Bounds
    goal: Goal
    members: Sequence[str]
    tally: Tally
    check: Any
    hasty: bool = False
    said: bool = False  # the schedule is given
    in_turn: bool = False  # Einsums run one after another
    room: float = inf  # words that registers may hold between Einsums
    caps: Mapping[str, float] = field(default_factory=dict)  # of which so many at most of some tensors
    problem: InputError | None = None
    part: float = 0.0  # of the frames that were looked at
    best: Best | None = None
    given: Sequence[Any] = ()  # frames, where they are not all that there are
    known: Known = field(default_factory=Known)
    spilling: list[_Spilling] = field(default_factory=list)

    @cached_property
    def later(self) -> frozenset[str]:
        """What the Einsums of other groups read."""
        outside = {a.tensor for n, e in self.scene.einsums.items() if n not in self.members for a in reads(e)}
        return frozenset(outside & set(self.members))

    @cached_property
    def exact(self) -> bool:
        return all(self.bounds.whole(n) for n in self.members)

    @cached_property
    def looks(self) -> list[Look]:
        """The frames that some unit can run."""
        if not self.given:
            return self.known.frames_of(self.scene, self.members, self.later)
        looks = [
            Look(self.scene, f, [options(self.scene, f, nest) for nest in f.nests], self.later) for f in self.given
        ]
        return [look for look in looks if all(look.choices)]

    def least(self, bound: tuple[float, ...]) -> tuple[float, ...]:
        """The lower bound of the metrics of a group, from that of its frames."""
        each = np.array([self.bound(look) for look in self.looks])
        return tuple(map(float, np.maximum(each.min(axis=0), bound))) if len(each) else (*bound[:1], inf, *bound[2:])

    def run(self, best: Best | None = None) -> list[GroupPoint]:
        best = best or Best(self.goal)
        self.chains, self.depth = chains(self.scene, self.members, self.later), depth(self.scene, self.members)
        if self.said:
            self.depth = 1
        if self.in_turn:
            self.depth = inf
        looks = self.looks
        waiting = [(self.bound(look), look) for look in looks]
        keys = [self.goal.score(b) for b, *_ in waiting]
        order = sorted(range(len(waiting)), key=keys.__getitem__)
        kinds = {getattr(waiting[i][1].frame, "deep", True): i for i in reversed(order)}
        first = sorted(kinds.values(), key=order.index)  # of each kind
        rest = [i for i in order if i not in first]
        self.best, done = best, 0
        for some in (*([i] for i in first), *(rest[part] for part in growing(len(rest), _TOGETHER, _TOGETHER))):
            ways: list[_Way] = []
            for i in some:
                self.part = (done := done + 1) / (len(waiting) + 1)
                if self.hasty and best.points:
                    break
                bound, look = waiting[i]
                ways += self.ways(look, np.array([bound]), best)
            ways.sort(key=lambda w: w.least)
            glanced = len(some) > 1
            for way in ways if glanced else ():
                self.glance(way, best)
            for way in ways:
                if not (self.hasty and best.points):
                    self.frame(way, best, glanced)
        for spilling in sorted(self.spilling, key=lambda x: x.least):
            if not (self.hasty and best.points):
                self.spilt(spilling, best)
        return self.points(best)

    def points(self, best: Best) -> list[GroupPoint]:
        return [GroupPoint(owner.fields(), metrics) for metrics, owner in best.points if isinstance(owner, _Owner)]

    def quick(self, best: Best) -> list[GroupPoint]:
        """The best of the first frames that have any."""
        self.hasty = True
        return self.run(best)

    def bound(self, look: Look) -> tuple[float, ...]:
        """A lower bound of the metrics of a frame."""
        if not self.exact or not isinstance(look.frame, Frame):
            return self.bounds.metrics(self.members)
        return self.bounds.metrics(self.members, look.cycles, self.bounds.passing(look.frame, self.later))

    def ways(self, look: Look, bound: Any, best: Best) -> list[_Way]:
        """The orders of the loops of a frame that are legal and may have something better."""
        found = []
        for order in look.orders:
            self.check(self)
            self.tally.space += order.space
            if not best.open(bound)[0]:
                self.tally.pruned["bound of the frame"] += order.space
                continue
            costs, made = self.known.costs(look, order, lambda: self.check(self))
            self.tally.evaluated += made
            if costs is None:
                self.problem = self.problem or order.problem
                self.tally.pruned["not legal"] += order.space
                continue
            mix = self.mix(look, costs, bound)
            capped = mix.loose(capped=True)
            least = min(map(tuple, self.goal.scores(capped).tolist()))
            found.append(_Way(look, order, bound, mix, capped, least))
        return found

    def glance(self, way: _Way, best: Best) -> None:
        """Offer the first that a few partial mappings lead to: the better that is, the fewer are left to look at."""
        at = int(np.lexsort(self.goal.scores(way.capped).T[::-1])[0])
        if best.open(way.capped[[at]])[0]:
            self.check(self)
            self.offer(Tight(way.mix, [at], way.capped[[at], 1]), way.order.loops, best, beam=_BEAM)

    def frame(self, way: _Way, best: Best, glanced: bool) -> None:
        """Offer the best of an order of the loops of a frame, and note what may spill."""
        look, order, mix = way.look, way.order, way.mix
        self.check(self)
        spills = self.mixed(mix, way.capped, order.loops, order.space // mix.costs.length, best, glanced)
        spills.sort(key=lambda x: self.goal.score(x[2]))
        for at, spill, _ in spills[:_LOOKS]:
            self.offer(Tight(mix, [at], [0.0]), order.loops, best, spill, beam=_BEAM)
        if spills:
            least = self.goal.score(spills[0][2])
            self.spilling.append(_Spilling(look, order, way.bound, [(at, spill) for at, spill, _ in spills], least))

    def mix(self, look: Look, costs: Costs, bound: Any) -> Mix:
        return Mix(
            self.scene, look.frame, priced(costs, self.scene.arch, self.caps), self.later, self.chains, self.depth,
            float(bound[0][1]) * (1 - 1e-12), self.room, lambda: self.check(self),
        )  # fmt: skip

    def mixed(
        self, mix: Mix, capped: Any, order: tuple[str, ...], each: int, best: Best, glanced: bool
    ) -> list[tuple[int, Spill, tuple[float, ...]]]:
        """Offer the best without spills; hands back what may spill, for each combination of sizes, with its bound."""
        loose = mix.loose(capped=False)
        ranked = np.lexsort(self.goal.scores(capped).T[::-1])
        alone = [ranked[i : i + 1] for i in range(_LOOKS)]
        later = ranked[_LOOKS:]
        for some in (*alone, *(later[part] for part in growing(len(later), _TOGETHER, _TOGETHER, _SIDE))):
            open_ = some[best.open(loose[some])]
            if len(open_) < len(some):
                self.tally.pruned["bound of the tile sizes"] += each * (len(some) - len(open_))
            open_ = open_[best.open(capped[open_])]
            if len(open_):
                self.check(self)
                tight = Tight(mix, open_, capped[open_, 1])
                if (len(some) == 1 and not glanced) or not best.points:
                    self.offer(tight, order, best, beam=_BEAM)
                self.offer(tight, order, best)
        spills: list[tuple[int, Spill, tuple[float, ...]]] = []
        for spill, able in mix.spills():
            some = np.flatnonzero(able & best.open(loose))
            least = mix.spilt(some, spill) if len(some) else np.zeros((0, 5))
            for i in np.flatnonzero(best.open(least)):
                spills.append((int(some[i]), spill, tuple(map(float, least[i]))))
        return spills

    def spilt(self, spilling: _Spilling, best: Best) -> None:
        """Offer the best of what spills, where that may still be better."""
        look, order = spilling.look, spilling.order
        if not best.open(spilling.bound)[0]:
            return
        costs, made = self.known.costs(look, order, lambda: self.check(self))
        self.tally.evaluated += made
        if costs is None:
            return
        mix = self.mix(look, costs, spilling.bound)
        for spill, ats in spilling.places().items():
            self.check(self)
            open_ = ats[best.open(mix.spilt(ats, spill))]
            for some in (open_[part] for part in growing(len(open_), 1, _STEP, _SIDE)):
                left = some[best.open(mix.spilt(some, spill))]
                if len(left):
                    self.offer(Tight(mix, left, np.zeros(len(left))), order.loops, best, spill)

    def offer(
        self, tight: Tight, order: tuple[str, ...], best: Best, spill: Spill | None = None, beam: int | None = None
    ) -> None:
        """Offer what a search finds, and note whose it is."""
        try:
            tight.run(best, spill, beam)
        finally:
            mix = tight.mix
            self.tally.cut |= tight.cut
            best.points = [
                (m, _Owner(mix, mix.frame, order, mix.decoded(o[3], o[1], o[2])) if isinstance(o, tuple) else o)
                for m, o in best.points
            ]


@dataclass(frozen=True)
class _Way:
    """A frame with its loops in an order: the ``bound`` of the frame, the metrics that each combination of sizes has at
    least (``capped``), and the ``least`` score of these."""

    look: Look
    order: Order
    bound: Any
    mix: Mix
    capped: Any
    least: tuple[float, ...]


@dataclass(frozen=True)
class _Spilling:
    """A frame and an order of its loops in which tiles may spill: which, for each combination of sizes; the ``bound``
    of the frame, and the ``least`` score of them."""

    look: Look
    order: Order
    bound: Any
    spills: list[tuple[int, Spill]]
    least: tuple[float, ...]

    def places(self) -> dict[Spill, NDArray[np.int64]]:
        """The combinations of sizes at which each may spill, the most promising first."""
        found: dict[Spill, list[int]] = {}
        for at, spill in self.spills:
            found.setdefault(spill, []).append(at)
        return {spill: np.array(ats) for spill, ats in found.items()}


@dataclass(frozen=True)
class _Owner:
    """A mixed choice of a frame, from which the fields of a file follow."""

    mix: Mix
    frame: Frame
    order: tuple[str, ...]
    mixed: Mixed

    def fields(self) -> dict[str, Any]:
        mix, mixed = self.mix, self.mixed
        costs = mix.costs
        chosen = [mine[i].option for mine, i in zip(costs.options, mixed.options, strict=True)]
        places = {t: costs.tensors[t].places[i] for t, i in mixed.places.items()}
        keep: dict[str, dict[str, Any]] = keeps(places)
        block: dict[str, str] = {}
        spilt = {mixed.spill.tensor} if mixed.spill else set()
        for tensor in mixed.places:
            before = mix.chains.get(tensor)
            if (
                before in places
                and places[tensor] == places[before]
                and places[tensor].shared
                and not places[tensor].own
            ):
                block[tensor] = block.setdefault(before, before)
                spilt |= {tensor} if before in spilt else set()
        for held in keep.values():
            for tensor, loop in held.items():
                more: dict[str, Any] = {"spill": True} if tensor in spilt else {}
                if tensor in block:
                    more["share"] = f"block_{block[tensor]}"
                held[tensor] = {"under": loop, **more} if more else loop
        picked = {x: int(v[mixed.at]) for x, v in costs.sizes.items() if isinstance(v, np.ndarray)}
        found = fields_of(self.frame, self.order, chosen, keep, picked)
        if not mixed.piped and len(self.frame.members) > 1 and "schedule" not in found:
            found["schedule"] = [[n] for n in self.frame.members]
        return found


def growing(count: int, first: int, factor: int, most: float = inf) -> Iterator[slice]:
    """Runs of so many items, each longer than the one before by a factor: most searches are done after a few."""
    start, size = 0, first
    while start < count:
        yield slice(start, start + size)
        start, size = start + size, int(min(factor * size, most))


def chains(scene: Scene, members: Sequence[str], later: frozenset[str]) -> dict[str, str]:
    """Tensors that may take the place of another, element by element: made from the same element of it, by the last
    Einsum that reads it."""
    found: dict[str, str] = {}
    after: dict[str, set[str]] = {}
    for name in members:
        read = {a.tensor for a in reads(scene.einsums[name])} & set(members) - {name}
        after[name] = read | {x for t in read for x in after.get(t, set())}
    taken: set[str] = set()
    for name in members:
        einsum = scene.einsums[name]
        if reduced_ranks(einsum) or scene.cascade.tensors[name].iterative:
            continue
        for access in reads(einsum):
            t = access.tensor
            same = access.indices == einsum.target.indices and scene.tensor_leaves(t) == scene.tensor_leaves(name)
            if t not in members or t in later or t in taken or not same or t in scene.cascade.outputs:
                continue
            others = {n for n in members if n != name and any(a.tensor == t for a in reads(scene.einsums[n]))}
            if others <= after[name] and not scene.cascade.tensors[t].iterative:
                found[name] = t
                taken.add(t)
                break
    return found


def depth(scene: Scene, members: Sequence[str]) -> float:
    """Tiles that are in flight when every Einsum works on another: the longest chain of Einsums."""
    longest: dict[str, int] = {}
    for name in members:
        made = [a.tensor for a in reads(scene.einsums[name]) if a.tensor in longest and a.tensor != name]
        longest[name] = 1 + max((longest[t] for t in made), default=0)
    return max(longest.values(), default=1)


def mapping_of(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a file of one group or several."""
    return dict(points[0]) if len(points) == 1 else {"groups": list(points)}
