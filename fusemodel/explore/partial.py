"""Mapping files of which parts are left open (``auto``): the rest is found, exactly, in the frame that is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf
from time import monotonic
from typing import Any, cast

import numpy as np

from fusemodel.arch import Architecture, load_architecture
from fusemodel.cascade import Cascade, load_cascade
from fusemodel.cascade.ir import reads
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.cascade.workload import Workload, check_set
from fusemodel.errors import InputError
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.exhaustive import Exhaustive, metrics_of
from fusemodel.explore.found import Found, Point, Progress
from fusemodel.explore.frame import Scene
from fusemodel.explore.given import Frames, members_of
from fusemodel.explore.goal import Best, Goal, added
from fusemodel.explore.group import GroupPoint, GroupSearch, Stopped, Tally
from fusemodel.explore.mapper import DEFAULT, best_mapping
from fusemodel.explore.said import Said, SaidGroup, checked_head, said_groups
from fusemodel.explore.stages import overflows, pipeline
from fusemodel.mapping.blocks import with_splits
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.partial import AUTO, SECTIONS
from fusemodel.mapping.spec import Candidates, Design
from fusemodel.model.evaluate import extents_in
from fusemodel.model.plan import plan_group
from fusemodel.model.tiles import choose, divisors
from fusemodel.yamlfile import Document

_ROUNDS = 8  # of searches with less and less room for what one tile keeps in registers
_EVERY_S = 0.1  # between two reports of progress


def complete(
    doc: Document, workload: Workload | None = None, seq: int | None = None, sets: Mapping[str, int] | None = None,
    arch: Architecture | None = None, *, objectives: Sequence[str] = (), seconds: float | None = None,
    progress: Progress | None = None,
) -> Found:  # fmt: skip
    """The best mapping that has everything a partial mapping file says, by ``objectives`` in order, else its
    ``minimise`` (latency, then traffic, then energy where it has none).

    After ``seconds``, or at Ctrl-C, the best so far. InputError, with a place, where nothing can be completed so.
    """
    head = checked_head(doc)
    cascade = load_cascade(head.cascade, beside=doc.file, where=doc.where("cascade"))
    cascade = with_splits(cascade, doc, head.split)
    arch = arch or load_architecture(head.arch, beside=doc.file, where=doc.where("arch"))
    wanted = tuple(objectives or head.minimise or DEFAULT)
    goal = Goal((*wanted, *(x for x in DEFAULT if x not in wanted)) if objectives else wanted)
    groups = said_groups(doc, cascade, arch)
    parts = {p: 1 for g in groups for way in g.ways for ps in way.parts.values() for p in ps}
    for name in sets or {}:
        check_set(cascade, name, parts)
    bare = not any(doc.data.get(x, AUTO) != AUTO for x in ("groups", "variants", *SECTIONS))
    search = _Completion(
        cascade, arch, goal, doc, head.name or doc.file, groups, dict(sets or {}), seconds, progress, bool(objectives)
    )
    if bare and not groups[0].ways[0].beyond and "budget" not in doc.data:
        extents = search.extents(workload, seq, {})
        return best_mapping(cascade, arch, extents, goal.objectives, seconds=seconds, progress=progress)
    return search.run(workload, seq, {"split": doc.data["split"]} if "split" in doc.data else {})


@dataclass
class _Completion:
    """A file's groups, one after another, for every size of what ranks of the cascade are open."""

    cascade: Cascade
    arch: Architecture
    goal: Goal
    doc: Document
    name: str
    groups: Sequence[SaidGroup]
    sets: dict[str, int]
    seconds: float | None
    progress: Progress | None
    asked: bool  # whether the objectives are not those of the file
    started: float = field(default_factory=monotonic)
    told: float = 0.0
    tally: Tally = field(default_factory=Tally)
    cut: bool = False

    def run(self, workload: Workload | None, seq: int | None, more: Mapping[str, Any]) -> Found:
        best: tuple[tuple[float, ...], list[GroupPoint], tuple[float, ...]] | None = None
        problem: InputError | None = None
        for ranks in self.open_ranks(workload, seq):
            scene = Scene(self.cascade, self.arch, main_einsums(self.cascade), self.extents(workload, seq, ranks))
            try:
                points, bound = self.points(scene, ranks)
            except InputError as error:
                problem = problem or error
                continue
            except (Stopped, KeyboardInterrupt):
                self.cut = True
                if best is None:
                    raise InputError("stopped before there was any mapping", self.doc.where(),
                                     expected="more time, or more parts given") from None  # fmt: skip
                break
            metrics = points[0].metrics
            for p in points[1:]:
                metrics = added(metrics, p.metrics)
            score = self.goal.score(metrics)
            least = min(bound, best[2], key=self.goal.score) if best else bound
            best = (score, points, least) if best is None or score < best[0] else (*best[:2], least)
            if self.cut:
                break
        if best is None:
            raise problem or InputError("nothing completes this mapping", self.doc.where())
        return self.found(best, more)

    def found(
        self, best: tuple[tuple[float, ...], list[GroupPoint], tuple[float, ...]], more: Mapping[str, Any]
    ) -> Found:
        score, points, bound = best
        fields = [p.fields for p in points]
        made = []
        for group, f in zip(self.groups, fields, strict=True):
            mine = group.fixed if group.use and group.fixed else None
            made.append(mine or Candidates((group_of(f, self.cascade, self.arch),), ()))
        about = f"{self.name}, completed by {', '.join(self.goal.objectives)}"
        design = design_of(self.name, self.cascade, self.arch, made, about)
        values = dict(zip(self.goal.objectives, score[1:], strict=True))
        written = {**more, **({"groups": fields} if len(fields) > 1 else fields[0])}
        proven = not self.cut and not self.tally.cut
        least = score[1] if proven else min(score[1], self.goal.score(bound)[1])
        return Found(
            Point(design, written, values), self.goal.objectives, score[1:], least, proven, self.tally.space,
            self.tally.evaluated, dict(self.tally.pruned), monotonic() - self.started,
        )  # fmt: skip

    def extents(self, workload: Workload | None, seq: int | None, ranks: Mapping[str, int]) -> dict[str, int]:
        """Extents with those that the file replaces, and sizes of open ranks."""
        replaced: dict[str, Any] = {}
        for way in (way for g in self.groups for way in g.ways):
            for rank, size in way.tile.items():
                if rank in self.cascade.ranks and rank not in way.parts and not isinstance(size, list) and size != AUTO:
                    at = way.where("tile", rank)
                    names = Names(dict.fromkeys(self.cascade.ranks), extents_only=True)
                    replaced[rank] = parse_expression(str(size), names, at)
        shell = Design(self.name, self.cascade, self.arch, (), replaced, file=self.doc.file)
        mine = {r: n for r, n in self.sets.items() if r in self.cascade.ranks}
        return extents_in(shell, workload, seq, {**ranks, **mine})

    def open_ranks(self, workload: Workload | None, seq: int | None) -> Iterator[dict[str, int]]:
        """Every size of the inner parts that the cascade makes of ranks, where the file leaves it open."""
        open_: dict[str, Sequence[int]] = {}
        wholes = {inner: whole for whole, (_, inner) in self.cascade.split.items()}
        extents: dict[str, int] | None = None
        for way in (way for g in self.groups for way in g.ways):
            for rank, size in way.tile.items():
                if rank not in self.cascade.ranks or rank in way.parts or rank in self.sets:
                    continue
                if size in (AUTO, "any") and rank in wholes:
                    extents = extents or self.extents(workload, seq, {})
                    open_[rank] = divisors(extents[wholes[rank]])
                elif isinstance(size, list) and rank in wholes:
                    open_[rank] = size
                elif size in (AUTO, "any", "max") or isinstance(size, list):
                    raise InputError(
                        f"rank {rank!r} belongs to the cascade", way.where("tile", rank), expected="a number"
                    )
        for sizes in product(*open_.values()):
            yield dict(zip(open_, sizes, strict=True))

    def points(self, scene: Scene, ranks: Mapping[str, int]) -> tuple[list[GroupPoint], tuple[float, ...]]:
        """The best of each group, and a lower bound of all."""
        fixed = [g.fixed for g in self.groups]
        inside = [
            tuple(f.groups[0].bindings) if f else members_of(g.ways[0], scene)
            for f, g in zip(fixed, self.groups, strict=True)
        ]
        taken = [n for names in inside for n in names]
        if missing := [n for n in scene.einsums if n not in taken]:
            raise InputError(f"no group has {missing[0]!r}", self.doc.where("groups"), expected="it in `bind` of one")
        points, bounds = [], Bounds(scene)
        least = (0.0,) * 5
        for i, group in enumerate(self.groups):
            outside = {a.tensor for n, e in scene.einsums.items() if n not in inside[i] for a in reads(e)}
            later = frozenset(outside & set(inside[i]))
            if group.fixed:
                points.append(self.given(group, scene, later))
                least = added(least, points[-1].metrics)
                continue
            best = Best(self.goal)
            problem: InputError | None = None
            for way in group.ways:
                try:
                    problem = self.way(way.with_ranks({**ranks, **self.sets}), scene, later, best) or problem
                except (Stopped, KeyboardInterrupt):
                    self.cut = True
                    if not best.points:
                        raise
                    break
            if not best.points:
                text = f" ({problem.message})" if problem else ""
                raise InputError(
                    f"nothing completes this group: no unit, layout or place that is left open is legal and fits{text}",
                    group.ways[0].where(), expected="more parts `auto`, or other fixed ones",
                )  # fmt: skip
            points.append(cast(GroupPoint, best.points[0][1]))
            cut = self.cut or self.tally.cut
            least = added(least, bounds.metrics(inside[i]) if cut else points[-1].metrics)
        return points, least

    def given(self, group: SaidGroup, scene: Scene, later: frozenset[str]) -> GroupPoint:
        """A group of which nothing is open."""
        assert group.fixed
        plans = [plan_group(g, self.cascade, self.arch, later) for g in group.fixed.groups]
        chosen = choose(plans, group.fixed, scene.extents, self.sets)
        if group.use:
            return GroupPoint(dict(group.use), metrics_of(chosen))
        way = group.ways[[g is chosen.plan.group for g in group.fixed.groups].index(True)]
        inner = {p for ps in way.parts.values() for p in ps[1:]} - way.parts.keys()
        tile = {**way.tile, **{p: int(chosen.sizes[p]) for p in inner}}
        raw = {k: v for k, v in way.joined.items() if k != "minimise"}
        return GroupPoint({**raw, **({"tile": tile} if tile else {})}, metrics_of(chosen))

    def way(self, said: Said, scene: Scene, later: frozenset[str], best: Best) -> InputError | None:
        """Offer the best of one way to give a group; hands back what was in the way, if something was."""
        frames = list(Frames(scene, said, self.sets).every())
        goal = Goal(mine) if (mine := said.minimise) and not (said.alone or self.asked) else self.goal
        if said.beyond:
            mine = Best(goal)
            each = Exhaustive(
                scene, goal, frames, later, said.beyond, said.details, said.where(), self.tally, self.check
            )  # fmt: skip
            try:
                each.run(mine)
            finally:
                for metrics, owner in mine.points:
                    best.offer(np.array([metrics]), [owner])
            return each.problem
        room, caps, problem = self.room, {}, None
        for _ in range(_ROUNDS):
            mine = Best(goal)

            def check(looking: GroupSearch, mine: Best = mine) -> None:
                self.check(looking.part, mine)

            search = GroupSearch(
                scene, Bounds(scene), goal, frames[0].members, self.tally, check, given=frames,
                said=frames[0].schedule is not None, room=room, caps=caps,
            )  # fmt: skip
            try:
                found = search.run(mine)
            except (Stopped, KeyboardInterrupt):
                self.offer(search.points(mine), scene, later, best)
                raise
            problem = problem or search.problem
            if not found:
                break
            over, alone = self.offer(found, scene, later, best)
            if not over:
                break
            if alone.keys() - caps.keys():
                caps = {**caps, **alone}
            else:
                room = min(room * (1 - 1e-9), *over)
        return problem

    @property
    def room(self) -> float:
        """Words that all registers hold."""
        units = self.arch.units.values()
        every = all(u.registers for u in units)
        return float(sum(u.size * u.registers.words for u in units if u.registers)) if every else inf

    def offer(
        self, points: Sequence[GroupPoint], scene: Scene, later: frozenset[str], best: Best
    ) -> tuple[list[float], dict[str, float]]:
        """Offer what a search found, with what of it registers cannot hold (:func:`overflows`)."""
        each: list[float] = []
        alone: dict[str, float] = {}
        for p in points:
            group = group_of(p.fields, self.cascade, self.arch)
            plan = plan_group(group, self.cascade, self.arch, later)
            chosen = choose([plan], Candidates((group,), ()), scene.extents, {})
            beside = pipeline(plan, chosen.sizes, scene.extents) if len(group.stages) == 1 else None
            each, alone = overflows([chosen], [beside])
            metrics = (max(p.metrics[0], float(len(each))), *p.metrics[1:])
            best.offer(np.array([metrics]), [GroupPoint(p.fields, metrics)])
        return each, alone

    def check(self, part: float, best: Best) -> None:
        """Stop when the time is over; say now and then how far the search is."""
        now = monotonic()
        over = self.seconds is not None and now - self.started > self.seconds
        if (over or self.cut) and best.points:
            raise Stopped
        if self.progress and now - self.told > _EVERY_S:
            self.told = now
            least = self.goal.score(best.points[0][0])[1] if best.points else None
            self.progress(part, least, 0.0)


__all__ = ["complete"]
