"""Completions of a partial mapping one by one: for what the search has no sums for (a reserve, copies, tensors that
share a place, blocks of a grid, ...). Each is evaluated by the model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import numpy as np

from fusemodel.errors import InputError, Where
from fusemodel.explore.costs import Costing, fields_of
from fusemodel.explore.frame import Option, Scene, options
from fusemodel.explore.goal import Best, Goal
from fusemodel.explore.group import GroupPoint, Tally, depth
from fusemodel.explore.ragged import steps as steps_of
from fusemodel.mapping.load import group_of
from fusemodel.mapping.partial import AUTO
from fusemodel.mapping.spec import Candidates
from fusemodel.model.cost import GroupCost
from fusemodel.model.plan import Plan, plan_group
from fusemodel.model.registers import register_notes
from fusemodel.model.tiles import Chosen, choose, objective_of

MOST = 20_000
Keeps = Mapping[str, Mapping[str, str]]


@dataclass
class Exhaustive:
    """Every completion of some frames. ``beyond`` are the fields because of which they are looked at one by one;
    ``details`` what is said of tiles besides their loop."""

    scene: Scene
    goal: Goal
    frames: Sequence[Any]
    later: frozenset[str]
    beyond: Sequence[str]
    details: Mapping[tuple[str, str], Mapping[str, Any]]
    at: Where
    tally: Tally
    check: Callable[[float, Best], None]
    problem: InputError | None = None
    plans: dict[str, Plan | None] = field(default_factory=dict)

    def run(self, best: Best) -> None:
        """Offer each. InputError if they are too many."""
        ways = [way for frame in self.frames if (way := self.ways(frame))]
        total = sum(way.count for way in ways)
        if total > MOST:
            names = ", ".join(f"`{x}`" for x in self.beyond)
            raise InputError(f"{total:,} completions beside {names}, with which each is evaluated by itself", self.at,
                             expected=f"at most {MOST:,}: more parts given")  # fmt: skip
        self.tally.space += total
        done = 0
        for way in ways:
            for chosen, keep in way.completions():
                for inner, every in way.sizes():
                    self.check(done / total, best)
                    self.offer(way, chosen, keep, inner, every, best)
                    done += 1

    def ways(self, frame: Any) -> _Ways | None:
        choices = [options(self.scene, frame, nest) for nest in frame.nests]
        costing = Costing(self.scene, frame, frame.orders[0], self.later, choices, *frame.sizes)
        return _Ways(frame, choices, {t: _places(costing, frame, t) for t in costing.users}) if all(choices) else None

    def offer(
        self, way: _Ways, chosen: Sequence[Option], keep: Keeps, sizes: Mapping[str, int], every: Mapping[str, int],
        best: Best,
    ) -> None:  # fmt: skip
        frame = way.frame
        held: dict[str, Any] = {
            level: {t: {"under": x, **more} if (more := self.details.get((level, t))) else x for t, x in tiles.items()}
            for level, tiles in keep.items()
        }
        fields = fields_of(frame, frame.orders[0], chosen, held, sizes)
        if frame.schedule is None and not self.side_by_side(frame, every):
            fields["schedule"] = [[n] for n in frame.members]
        plan = self.plan(fields, sizes)
        if plan is None:
            self.tally.pruned["not legal"] += 1
            return
        self.tally.evaluated += 1
        try:
            found = choose([plan], Candidates((plan.group,), ()), self.scene.extents, sizes)
        except InputError as error:
            self.problem = self.problem or error
            self.tally.pruned["does not fit or divide"] += 1
            return
        metrics = metrics_of(found)
        best.offer(np.array([metrics]), [GroupPoint(fields, metrics)])

    def side_by_side(self, frame: Any, every: Mapping[str, int]) -> bool:
        """Whether there are as many independent tiles as are in flight."""
        parts = {r: ps for r in self.scene.extents if len(ps := frame.leaves(r)) > 1}
        return steps_of(parts, frame.orders[0], self.scene.extents, every) >= depth(self.scene, frame.members)

    def plan(self, fields: Mapping[str, Any], sizes: Mapping[str, int]) -> Plan | None:
        """The plan of a structure, whatever its sizes."""
        tile = {k: "any" if k in sizes else v for k, v in fields.get("tile", {}).items()}
        key = repr({**fields, "tile": tile})
        if key not in self.plans:
            try:
                group = group_of(fields, self.scene.cascade, self.scene.arch)
                self.plans[key] = plan_group(group, self.scene.cascade, self.scene.arch, self.later)
            except InputError as error:
                self.problem = self.problem or error
                self.plans[key] = None
        return self.plans[key]


@dataclass(frozen=True)
class _Ways:
    """What is open in a frame: the options of each nest, the places of each tensor, and sizes."""

    frame: Any
    choices: Sequence[Sequence[Option]]
    places: Mapping[str, Sequence[Mapping[str, str]]]

    @property
    def count(self) -> int:
        return prod(map(len, self.choices)) * prod(map(len, self.places.values())) * self.frame.sizes[1]

    def completions(self) -> Iterator[tuple[tuple[Option, ...], Keeps]]:
        for chosen in product(*self.choices):
            for places in product(*self.places.values()):
                keep: dict[str, dict[str, str]] = {}
                for tensor, place in zip(self.places, places, strict=True):
                    for level, loop in place.items():
                        keep.setdefault(level, {})[tensor] = loop
                yield chosen, keep

    def sizes(self) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
        """Sizes of the parts that are not outermost ones, and all sizes."""
        columns, length = self.frame.sizes
        inner = {p for ps in self.frame.parts.values() for p in ps[1:]} - self.frame.parts.keys()
        for n in range(length):
            every = {x: int(v[n] if isinstance(v, np.ndarray) else v) for x, v in columns.items()}
            yield {p: every[p] for p in inner}, every


def _places(costing: Costing, frame: Any, tensor: str) -> list[dict[str, str]]:
    """The tiles of a tensor as they are given, with every place at the levels that are open."""
    levels = costing.scene.arch.levels
    kept = frame.kept
    said: dict[str, str | None] = {}  # by level; none: nothing is kept there
    for level in levels:
        held = AUTO if kept is None else kept.get(level, {})
        said[level] = AUTO if held == AUTO else held.get(tensor)
    given = {x: loop for x, loop in said.items() if loop not in (None, AUTO)}
    found: list[dict[str, str]] = []
    for place in costing.shared_places(tensor):
        one = {**given, **dict(place.shared)}
        if all(said[x] == AUTO for x, _ in place.shared) and one not in found:
            found.append(one)
    return found


def metrics_of(chosen: Chosen) -> tuple[float, ...]:
    """The metrics of a group (:data:`fusemodel.explore.goal.METRICS`) by the model."""
    plan, cost = chosen.plan, chosen.cost
    unheld = float(len(register_notes(plan, chosen.sizes)))
    values = (float(objective_of(plan.arch, cost, x)) for x in ("latency", "dram", "energy"))
    return (unheld, *values, _held(cost, plan))


def _held(cost: GroupCost, plan: Plan) -> float:
    inner = list(plan.arch.levels)[1:]
    return float(sum(sum(cost.footprint_words.get(x, {}).values()) for x in inner))


__all__ = ["MOST", "Exhaustive", "metrics_of"]
