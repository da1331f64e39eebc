"""The best mappings of some Einsums as one group: frames in order of what they can reach, while one may be better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf, prod
from typing import Any

import numpy as np

from fusemodel.cascade.ir import reads, reduced_ranks
from fusemodel.errors import InputError
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.costs import Costing, fields_of, keeps
from fusemodel.explore.frame import Frame, Option, Scene, frames, options, orders
from fusemodel.explore.goal import Best, Goal
from fusemodel.explore.mix import Mix, Mixed
from fusemodel.model.tiles import divisors

_BEAM = 30  # partial mappings of a first look, which bounds what is looked at after it
_LOOKS = 2  # combinations of sizes of a frame that are looked at in this way
_FEW = 4  # sizes of a middle tile that are tried where some points are absent


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
    room: float = inf  # words that registers may hold between Einsums
    problem: InputError | None = None
    part: float = 0.0  # of the frames that were looked at
    best: Best | None = None
    given: Sequence[Any] = ()  # frames, where they are not all that there are

    def run(self, best: Best | None = None) -> list[GroupPoint]:
        best = best or Best(self.goal)
        outside = {a.tensor for n, e in self.scene.einsums.items() if n not in self.members for a in reads(e)}
        self.later = frozenset(outside & set(self.members))
        self.chains, self.depth = chains(self.scene, self.members, self.later), depth(self.scene, self.members)
        if self.said:
            self.depth = 1
        self.exact = all(self.bounds.full(n) for n in self.members)
        waiting = []
        for frame in self.given or frames(self.scene, self.members):
            choices = [options(self.scene, frame, nest) for nest in frame.nests]
            if all(choices):
                waiting.append((self.bound(frame, choices), frame, choices))
        keys = [self.goal.score(b) for b, *_ in waiting]
        for n, i in enumerate(sorted(range(len(waiting)), key=lambda i: keys[i])):
            self.part, self.best = n / len(waiting), best
            bound, frame, choices = waiting[i]
            if self.hasty and best.points:
                break
            self.frame(frame, choices, np.array([bound]), best)
        return self.points(best)

    def points(self, best: Best) -> list[GroupPoint]:
        return [GroupPoint(owner.fields(), metrics) for metrics, owner in best.points if isinstance(owner, _Owner)]

    def quick(self, best: Best) -> list[GroupPoint]:
        """The best of the first frames that have any."""
        self.hasty = True
        return self.run(best)

    def bound(self, frame: Frame, choices: Sequence[Sequence[Option]]) -> tuple[float, ...]:
        """A lower bound of the metrics of a frame."""
        if not self.exact or not isinstance(frame, Frame):
            return self.bounds.metrics(self.members)
        times = []
        for nest, mine in zip(frame.nests, choices, strict=True):
            here = {x for n in nest for x in self.scene.leaves[n]}
            turns = prod(self.scene.extents[x] for x in here if x in frame.outer or x in frame.ranks)
            turns //= prod(n for x, n in frame.tiles.items() if x in here)
            each: dict[str, float] = {}
            for o in mine:
                each[o.unit] = min(each.get(o.unit, np.inf), o.layout.cycles * turns)
            times.append(each)
        return self.bounds.metrics(self.members, times)

    def frame(self, frame: Frame, choices: list[list[Option]], bound: Any, best: Best) -> None:
        sizes, length = frame.sizes if not isinstance(frame, Frame) else middles(self.scene, frame)
        for order in frame.orders if not isinstance(frame, Frame) else orders(self.scene, frame):
            self.check(self)
            costing = Costing(self.scene, frame, order, self.later, choices, sizes, length)
            count = length * prod(map(len, choices)) * prod(len(costing.shared_places(t)) for t in costing.users)
            self.tally.space += count
            if not best.open(bound)[0]:
                self.tally.pruned["bound of the frame"] += count
                continue
            costs = costing.run()
            self.tally.evaluated += costing.evaluated
            if costs is None:
                self.problem = self.problem or costing.problem
                self.tally.pruned["not legal"] += count
                continue
            floor = float(bound[0][1]) * (1 - 1e-12)
            mix = Mix(
                self.scene,
                frame,
                costs,
                self.later,
                self.chains,
                self.depth,
                floor,
                self.room,
                lambda: self.check(self),
            )
            self.mixed(mix, order, frame, count // length, best)
            self.tally.cut |= mix.cut

    def mixed(self, mix: Mix, order: tuple[str, ...], frame: Frame, each: int, best: Best) -> None:
        loose, capped = mix.loose(capped=False), mix.loose(capped=True)
        looked = 0
        for at in map(int, np.lexsort(self.goal.scores(capped).T[::-1])):
            if not best.open(loose[[at]])[0]:
                self.tally.pruned["bound of the tile sizes"] += each
                continue
            self.check(self)
            if best.open(capped[[at]])[0]:
                if looked < _LOOKS or not best.points:
                    mix.tight(at, best, None, beam=_BEAM)
                looked += 1
                mix.tight(at, best, None)
            for spill in mix.spills(at):
                if best.open(mix.spilt(at, spill))[0]:
                    mix.tight(at, best, spill)
            best.points = [
                (m, _Owner(mix, frame, order, mix.decoded(o[3], o[1], o[2])) if isinstance(o, tuple) else o)
                for m, o in best.points
            ]


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


def middles(scene: Scene, frame: Frame) -> tuple[dict[str, Any], int]:
    """Every combination of middle tiles, as columns."""
    sizes: dict[str, Any] = dict(scene.extents)
    each = [divisors(scene.extents[r] // n) for r, n in frame.tiles.items()]
    if any(scene.einsums[n].where for n in frame.members):  # counted one by one
        each = [d[:: max(1, -(-len(d) // _FEW))] for d in each]
    combinations = list(product(*each))
    rows = np.array(combinations, dtype=float).reshape(len(combinations), len(each))
    for i, (rank, inner) in enumerate(frame.tiles.items()):
        outer, middle, innermost = frame.parts(rank)
        sizes[middle], sizes[innermost] = rows[:, i], inner
        sizes[outer] = scene.extents[rank] // inner / rows[:, i]
    for rank, inner in frame.halves.items():
        _, middle, innermost = frame.parts(rank)
        sizes[middle], sizes[innermost] = scene.extents[rank] // inner, inner
    return sizes, len(rows)


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


def depth(scene: Scene, members: Sequence[str]) -> int:
    """Tiles that are in flight when every Einsum works on another: the longest chain of Einsums."""
    longest: dict[str, int] = {}
    for name in members:
        made = [a.tensor for a in reads(scene.einsums[name]) if a.tensor in longest and a.tensor != name]
        longest[name] = 1 + max((longest[t] for t in made), default=0)
    return max(longest.values(), default=1)


def mapping_of(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a file of one group or several."""
    return dict(points[0]) if len(points) == 1 else {"groups": list(points)}
