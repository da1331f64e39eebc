"""A mapping of a cascade onto an architecture: the best of a stated space.

The space: Einsums are cut into groups of consecutive blocks (a block is a contraction, a recurrence, or the Einsums
between two of them); each group has every frame of :mod:`fusemodel.explore.frame`, every order of its shared loops,
every size of its tiles, every unit and layout of :mod:`fusemodel.explore.layout`, and every place of every tensor
(:mod:`fusemodel.explore.costs`), in place of another and spilling where that is legal (:mod:`fusemodel.explore.mix`).

Groups run one after another, so the best cut is a shortest path. Its edges have lower bounds; only groups that lie on
the best path so far are searched, until the best path has none that is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import inf
from time import monotonic

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.arch.spec import find_op
from fusemodel.cascade.graph import components
from fusemodel.cascade.ir import Cascade, reads, reduced_ranks
from fusemodel.cascade.work import work_of
from fusemodel.errors import InputError, Where
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.found import OBJECTIVES, Found, Point, Progress
from fusemodel.explore.frame import Scene
from fusemodel.explore.front import front as undominated
from fusemodel.explore.goal import Best, Goal, added
from fusemodel.explore.group import GroupPoint, GroupSearch, Stopped, Tally, mapping_of
from fusemodel.explore.known import Known, bare
from fusemodel.explore.stages import Pipeline, overflows, pipeline
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.spec import Candidates, Design
from fusemodel.model.evaluate import plans_of
from fusemodel.model.identity import Identity
from fusemodel.model.tiles import Chosen, choose

DEFAULT = ("latency", "dram", "energy")
_ROUNDS = 8  # of searches with less and less room for what one tile keeps in registers
_MANY_BLOCKS = 6  # more than these are searched one by one first
_EVERY_S = 0.1  # between two reports of progress


def best_mapping(
    cascade: Cascade, arch: Architecture, extents: Mapping[str, int], objectives: Sequence[str] = DEFAULT,
    *, front: Sequence[str] = (), seconds: float | None = None, progress: Progress | None = None,
    known: Known | None = None,
) -> Found:  # fmt: skip
    """The best mapping of a cascade at some extents by ``objectives`` in order, and the ``front`` of several together.
    A second search on machines that differ in their memories only takes frames and counts from the one before.

    After ``seconds``, or at Ctrl-C, the best found so far is handed back with its bound. InputError if no unit has an
    operation that the cascade needs, or nothing fits.
    """
    for name in (*objectives, *front):
        if name not in OBJECTIVES:
            raise InputError(f"unknown objective {name!r}", expected=f"one of {', '.join(OBJECTIVES)}")
    scene = Scene(cascade, arch, main_einsums(cascade), dict(extents))
    _check_units(scene)
    if known is None:
        known = _known(Identity(cascade), repr(bare(arch)), tuple(extents.items()))
    return _Search(scene, Goal(tuple(objectives), tuple(front)), seconds, progress, known).run()


@lru_cache(maxsize=1)
def _known(*_scene: object) -> Known:
    """What was counted for the cascade, units and extents of the last search."""
    return Known()


def _check_units(scene: Scene) -> None:
    units = scene.arch.units.values()
    for name, einsum in scene.einsums.items():
        work = work_of(einsum)
        ops = (*work.per_point, *work.per_output)
        if not any(all(find_op(u, o) for o in ops) for u in units):
            missing = [o for o in ops if not any(find_op(u, o) for u in units)]
            raise InputError(
                f"no unit of {scene.arch.name!r} can compute {name!r}", einsum.at or Where(scene.cascade.file),
                expected=f"a unit with {', '.join(missing or ['all of its operations'])}",
            )  # fmt: skip


@dataclass(frozen=True)
class _Path:
    """Groups one after another: their metrics, the cuts, and the mapping taken for each (None: not searched yet)."""

    metrics: tuple[float, ...]
    groups: tuple[tuple[int, int], ...]
    points: tuple[GroupPoint | None, ...]


@dataclass
class _Search:
    scene: Scene
    goal: Goal
    seconds: float | None
    progress: Progress | None
    known: Known = field(default_factory=Known)
    started: float = field(default_factory=monotonic)
    tally: Tally = field(default_factory=Tally)
    solved: dict[tuple[int, int], list[GroupPoint]] = field(default_factory=dict)
    partial: dict[tuple[int, int], list[GroupPoint]] = field(default_factory=dict)
    closer: set[tuple[int, int]] = field(default_factory=set)  # groups whose lower bound is that of their frames
    stopped: bool = False
    said: float = 0.0
    room: float = inf
    in_turn: bool = False  # Einsums one after another
    caps: dict[str, float] = field(default_factory=dict)  # words of tensors that units have no room for
    bound: tuple[float, ...] = (0.0,) * 5

    @cached_property
    def blocks(self) -> list[list[str]]:
        """Einsums in order, cut around those that contract several tensors; recurrences stay whole."""
        einsums = self.scene.einsums
        needs = {n: {a.tensor for a in reads(e)} & einsums.keys() - {n} for n, e in einsums.items()}
        blocks: list[list[str]] = []
        alone = True
        for part in components(list(einsums), needs):
            einsum = einsums[part[0]]
            contracts = len(part) == 1 and len(reads(einsum)) > 1 and bool(reduced_ranks(einsum))
            if contracts or alone:
                blocks.append([])
            blocks[-1] += part
            alone = contracts
        return blocks

    @cached_property
    def lower(self) -> dict[tuple[int, int], tuple[float, ...]]:
        """A lower bound for every group."""
        bounds, n = self.bounds, len(self.blocks)
        return {(i, j): bounds.metrics(self.members((i, j))) for i in range(n) for j in range(i + 1, n + 1)}

    @cached_property
    def bounds(self) -> Bounds:
        return self.known.bounds_of(self.scene)

    def members(self, group: tuple[int, int]) -> list[str]:
        return [x for block in self.blocks[slice(*group)] for x in block]

    def run(self) -> Found:
        """The best mapping whose values fit into registers, those of all tiles in flight together: how many these are
        is known when a mapping is, so the room for one of them is made smaller until they fit. What does not fit by
        itself into the units that it was given to stays there no longer. Where that leads to nothing, Einsums run one
        after another."""
        units = self.scene.arch.units.values()
        if all(u.registers for u in units):
            self.room = float(sum(u.size * u.registers.words for u in units if u.registers))
        room = self.room
        found = self.once()
        rounds = [found.best]
        while not self.stopped and (room_of_one := self.too_many(found, self.room)):
            self.solved = {}
            try:
                if len(rounds) % _ROUNDS == 0:
                    raise InputError("too many words in registers")
                self.room = room_of_one
                found = self.once()
            except InputError:
                self.room, self.in_turn, self.solved = 0.0 if self.in_turn else room, True, {}
                found = self.once()
            rounds.append(found.best)
        return replace(found, rounds=tuple(rounds))

    def too_many(self, found: Found, room: float) -> float:
        """Where values do not fit into registers, those of all tiles in flight or those of one in some units alone:
        words of one tile of which as many would."""
        each, alone = overflows(self.chosen(found.best.design), found.pipelines)
        if alone:
            self.caps = {**self.caps, **alone}
            return room
        return min(room * (1 - 1e-9), *each) if each else 0.0

    def chosen(self, design: Design) -> list[Chosen]:
        extents = dict(self.scene.extents)
        return [choose(plans, c, extents, {}) for plans, c in zip(plans_of(design), design.groups, strict=True)]

    def once(self) -> Found:
        bound: tuple[float, ...] = min((p.metrics for p in self.paths(self.lower)), key=self.goal.score, default=())
        try:
            for i in range(len(self.blocks)) if len(self.blocks) > _MANY_BLOCKS and self.goal.lexical else ():
                if (i, i + 1) not in self.solved:
                    self.solve((i, i + 1))
            while True:
                paths = self.paths(self.lower)
                bound = min(paths, key=lambda p: self.goal.score(p.metrics)).metrics if paths else bound
                open_ = [g for p in paths for g, point in zip(p.groups, p.points, strict=True) if point is None]
                if not open_:
                    return self.found(paths, bound)
                self.bound = bound
                rough = [g for g in open_ if g not in self.closer]
                if rough:
                    self.closer.add(rough[0])
                    self.lower[rough[0]] = self.group(rough[0]).least(self.lower[rough[0]])
                    continue
                self.solve(open_[0])
        except (Stopped, KeyboardInterrupt):
            self.stopped = True
            return self.found(self.complete(), bound)

    def check(self, search: GroupSearch) -> None:
        """Stop when the time is over; say now and then how far the search is."""
        now = monotonic()
        if self.seconds is not None and now - self.started > self.seconds and not self.stopped:
            raise Stopped
        if self.progress and now - self.said > _EVERY_S:
            self.said = now
            done = [self.goal.score(p.metrics)[1] for p in self.paths({})]
            mine = search.best.points[0] if search.best and search.best.points else (None, None)
            if len(search.members) == len(self.scene.einsums) and mine[0] and mine[1]:
                done.append(self.goal.score(mine[0])[1])
            self.progress(search.part, min(done, default=None), self.goal.score(self.bound)[1])

    def group(self, group: tuple[int, int]) -> GroupSearch:
        members = self.members(group)
        return GroupSearch(self.scene, self.bounds, self.goal, members, self.tally, self.check, room=self.room,
                           known=self.known, in_turn=self.in_turn, caps=self.caps)  # fmt: skip

    def beaten(self, group: tuple[int, int]) -> list[tuple[tuple[float, ...], object]]:
        """Metrics that a group has to better if it is to lead to something better than the best way known, however good
        the groups around it may be."""
        done = self.paths({})
        if not done or not self.goal.lexical:
            return []
        known = min(done, key=lambda p: self.goal.score(p.metrics)).metrics
        before, after = self.paths(self.lower, 0, group[0]), self.paths(self.lower, group[1])
        if not before or not after:
            return []
        rest = added(before[0].metrics, after[0].metrics)
        return [((*(k - r for k, r in zip(known[:-1], rest[:-1], strict=True)), float("inf")), None)]

    def solve(self, group: tuple[int, int]) -> None:
        best, search = Best(self.goal, self.beaten(group)), self.group(group)
        try:
            self.solved[group] = search.run(best)
        except (Stopped, KeyboardInterrupt):
            self.partial[group] = search.points(best)
            raise

    def paths(
        self, lower: Mapping[tuple[int, int], tuple[float, ...]], first: int = 0, last: int | None = None
    ) -> list[_Path]:
        """The best ways to cut the blocks from ``first`` to ``last``, groups that were not searched being as good as
        their bound (left out without one)."""
        last = len(self.blocks) if last is None else last
        best: dict[int, list[_Path]] = {first: [_Path((0.0,) * 5, (), ())]}
        for end in range(first + 1, last + 1):
            found: list[_Path] = []
            for start in range(first, end):
                group = start, end
                points: list[GroupPoint | None]
                if group in self.solved:
                    points = [*self.solved[group]]
                elif group in lower:
                    points = [None]
                else:
                    points = [*self.partial.get(group, [])] if not lower else []
                found += [
                    _Path(added(p.metrics, x.metrics if x else lower[group]), (*p.groups, group), (*p.points, x))
                    for p in best[start] for x in points
                ]  # fmt: skip
            best[end] = self.kept(found)
        return best[last]

    def kept(self, paths: list[_Path]) -> list[_Path]:
        paths = [p for p in paths if np.isfinite(p.metrics).all()]
        if not paths:
            return []
        if self.goal.lexical:
            return [min(paths, key=lambda p: self.goal.score(p.metrics))]
        rows = np.array([p.metrics for p in paths])[:, self.goal.keys]
        return [paths[i] for i in undominated(rows)]

    def complete(self) -> list[_Path]:
        """The best of the groups searched so far, with a quick look at single blocks where none lead to the end."""
        found = self.paths({})
        for i in range(len(self.blocks)) if not found else ():
            group = i, i + 1
            if group not in self.solved and group not in self.partial:
                self.partial[group] = self.group(group).quick(Best(self.goal))
        return found or self.paths({})

    def found(self, paths: list[_Path], bound: tuple[float, ...]) -> Found:
        if not paths:
            names = ", ".join(self.scene.einsums)
            raise InputError(f"no mapping of {names} fits on {self.scene.arch.name!r}")
        goal = self.goal
        ordered = sorted(paths, key=lambda p: goal.score(p.metrics))
        points = [self.point(p) for p in ordered]
        best = points[0]
        score = goal.score(ordered[0].metrics)[1:]
        for group, metrics in self.lower.items():
            if group not in self.solved and group not in self.partial:
                self.tally.pruned["bound of the group"] += bool(metrics)
        front = ()
        if goal.front:
            rows = np.array([[p.values[o] for o in goal.front] for p in points])
            front = tuple(points[i] for i in sorted(undominated(rows)))
        proven = not self.stopped and not self.tally.cut
        if self.tally.cut:  # groups that were searched may have something better
            solved, self.solved = self.solved, {}
            bound = min(self.paths(self.lower), key=lambda p: goal.score(p.metrics)).metrics
            self.solved = solved
        least = goal.score(bound)[1] if bound else 0.0
        return Found(
            best, goal.objectives, score, score[0] if proven else min(least, score[0]), proven,
            self.tally.space, self.tally.evaluated, dict(self.tally.pruned), monotonic() - self.started, front,
            self.pipelines(best.design),
        )  # fmt: skip

    def pipelines(self, design: Design) -> tuple[Pipeline | None, ...]:
        """How the Einsums of each group work side by side; None where they run one after another."""
        found: list[Pipeline | None] = []
        extents = dict(self.scene.extents)
        for chosen in self.chosen(design):
            side_by_side = len(chosen.plan.group.stages) == 1
            found.append(pipeline(chosen.plan, chosen.sizes, extents) if side_by_side else None)
        return tuple(found)

    def point(self, path: _Path) -> Point:
        cascade, arch, extents = self.scene.cascade, self.scene.arch, self.scene.extents
        about = (
            f"Best found by {', '.join(self.goal.objectives)} at {', '.join(f'{r}={n}' for r, n in extents.items())}"
        )
        fields = [p.fields for p in path.points if p]
        groups = [Candidates((group_of(f, cascade, arch),), ()) for f in fields]
        design = design_of(f"{cascade.name} (auto)", cascade, arch, groups, about)
        values = {o: float(self.goal.value(np.array(path.metrics), o)) for o in OBJECTIVES}
        return Point(design, mapping_of(fields), values)


__all__ = ["DEFAULT", "best_mapping"]
