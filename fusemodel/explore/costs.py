"""What the choices of a frame cost, for every combination of middle tiles at once.

Layouts decide what each Einsum takes of its unit and how many words pass between it and whatever level serves it; the
place of a tensor decides which level that is, what is moved between levels and the space taken. So plans in which every
nest takes its i-th layout, and plans in which every tensor takes its i-th place, give the cost of all choices, and the
cost of any mix is a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fusemodel.errors import InputError
from fusemodel.explore.columns import Costs, Counts, OptionCost, Place, TensorCost
from fusemodel.explore.frame import Frame, Option, Scene
from fusemodel.explore.front import Floats
from fusemodel.explore.ragged import steps as steps_of
from fusemodel.mapping.load import group_of
from fusemodel.mapping.spec import ALL
from fusemodel.model.amounts import Columns
from fusemodel.model.apart import Replaced, kept_apart
from fusemodel.model.cost import GroupCost, cost_of, recurrence_cycles
from fusemodel.model.decided import Inexact
from fusemodel.model.frame import loose_ranks, ragged_frames
from fusemodel.model.movement import in_blocks
from fusemodel.model.plan import Move, Plan, plan_group
from fusemodel.model.recurrence import Recurrence
from fusemodel.model.registers import capacity, held_in_registers

_MANY_PLANS = 2000  # kept at once


class Costing:
    """The costs of one frame with its shared loops in one order."""

    def __init__(
        self, scene: Scene, frame: Frame, order: Sequence[str], later: frozenset[str],
        choices: Sequence[Sequence[Option]], sizes: dict[str, Any], length: int,
        check: Callable[[], None] = lambda: None, plans: dict[Any, Plan | InputError] | None = None,
    ) -> None:  # fmt: skip
        self.check = check
        self.plans = {} if plans is None else plans  # those of other frames too
        self.scene, self.frame, self.order, self.later = scene, frame, order, later
        self.choices, self.sizes, self.length = choices, Columns(sizes), length
        self.loops = frame.loops(order)
        self.nest_of = {n: i for i, nest in enumerate(frame.nests) for n in nest}
        self.users: dict[str, list[str]] = {}
        for n in frame.members:
            for t in scene.used(n):
                self.users.setdefault(t, []).append(n)
        self.evaluated = 0
        self.held: Any = None
        self.problem: InputError | None = None
        units = scene.arch.units
        self.registers = capacity(scene.arch, units) if all(u.registers for u in units.values()) else np.inf

    def run(self) -> Costs | None:
        """Costs of everything; None if nothing is legal whatever is kept."""
        made = {self.scene.arch.outermost: dict.fromkeys(self.frame.members, ALL)}
        first = self.plan([0] * len(self.choices), made)
        if first is None:
            return None
        columns = Counts(self.scene.arch, len(first.recurrences), 1 + max(map(self.frame.line, self.frame.members)))
        options = self.nests(columns, made)
        if not all(options):
            return None
        tensors = self.places(columns)
        for tensor, cost in tensors.items():
            if self.frame.own:
                self.add_own(tensor, cost, options, columns)
            wanted = [i for i, p in enumerate(cost.places) if self.frame.allows(tensor, p.shared, p.own and p.own[:2])]
            if not wanted:
                return None
            cost.places, cost.columns = [cost.places[i] for i in wanted], cost.columns[wanted]
        parts = {r: ps for r in self.scene.extents if len(ps := self.frame.leaves(r)) > 1}
        steps = np.ones(self.length) * steps_of(parts, self.loops, self.scene.extents, self.sizes)
        return Costs(columns, options, tensors, dict(self.sizes), self.length, self.evaluated, steps)

    def plan(self, picks: Sequence[int], keep: Mapping[str, Mapping[str, str]]) -> Plan | None:
        self.check()
        chosen = [options[min(i, len(options) - 1)] for i, options in zip(picks, self.choices, strict=True)]
        fields = fields_of(self.frame, self.order, chosen, keep, {})
        tile = {x: n if isinstance(n, (list, str)) else "any" for x, n in fields.get("tile", {}).items()}
        key = (self.later, repr({**fields, "tile": tile}))  # a plan is the same for all sizes
        found = self.plans.get(key)
        if found is None:
            if len(self.plans) >= _MANY_PLANS:
                self.plans.clear()
            try:
                group = group_of(fields, self.scene.cascade, self.scene.arch)
                found = plan_group(group, self.scene.cascade, self.scene.arch, self.later)
            except InputError as error:
                found = error
            self.plans[key] = found
        if isinstance(found, InputError):
            self.problem = self.problem or found
            return None
        return found

    def measured(self, plan: Plan) -> Iterator[tuple[Any, Any, list[tuple[Move, Any]]]]:
        """Costs and words of every move for all combinations at once, or one by one where counts need that."""
        extents = self.scene.extents
        if not in_blocks(plan):
            try:
                cost = cost_of(plan, self.sizes, extents)
            except Inexact:
                cost = None
            if cost is not None:
                self.evaluated += 1
                yield slice(None), cost, cost.moved
                return
        for n in range(self.length):
            self.check()
            self.evaluated += 1
            one = {x: int(v[n]) if isinstance(v, np.ndarray) else v for x, v in self.sizes.items()}
            cost = cost_of(plan, one, extents)
            yield n, cost, cost.moved

    # Nests

    def nests(self, columns: Counts, made: Mapping[str, Mapping[str, str]]) -> list[list[OptionCost]]:
        """The options of every nest: those that a plan can have, all nests taking their i-th one together."""
        found: list[list[OptionCost]] = [[] for _ in self.choices]
        for i in range(max(map(len, self.choices))):
            wanted = [b for b, mine in enumerate(self.choices) if i < len(mine)]
            together = self.plan([i] * len(self.choices), made)
            for b in wanted:
                plan = together
                if plan is None:
                    plan = self.plan([i if other == b else 0 for other in range(len(self.choices))], made)
                if plan is not None:
                    measured = self.cached(plan) if together else list(self.measured(plan))
                    found[b].append(self.option(b, self.choices[b][i], plan, measured, columns))
        return found

    def cached(self, plan: Plan) -> list[tuple[Any, Any, list[tuple[Move, Any]]]]:
        if self.held is None or self.held[0] is not plan:
            self.held = plan, list(self.measured(plan))
        return self.held[1]

    def option(
        self, b: int, option: Option, plan: Plan, measured: Sequence[tuple[Any, Any, list[tuple[Move, Any]]]],
        columns: Counts,
    ) -> OptionCost:  # fmt: skip
        nest = self.frame.nests[b]
        base = columns.nothing(self.length)
        words: dict[tuple[str, str, bool], list[Floats]] = {}
        for at, cost, moves in measured:
            for n in nest:
                busy = columns.busy.start + columns.units.index((self.frame.line(n), option.unit))
                base[busy, at] += cost.einsums[n].cycles
                base[columns.energy, at] += cost.einsums[n].energy_pj
            for k, recurrence in enumerate(plan.recurrences):
                base[columns.waits.start + k, at] += self.waiting(plan, recurrence, nest, cost, at)
            for move, amount in moves:
                if move.tile.einsum in nest and (move.source is None or move.sink is None):
                    write = move.source is None or move.after_first
                    key = (move.tensor, move.tile.einsum, write)
                    held = words.setdefault(key, [np.zeros(self.length), np.zeros(self.length)])
                    held[int(move.source is None)][at] += amount
        for held in held_in_registers(plan, self.sizes):
            if held.einsum in nest:
                base[0] += np.asarray(held.words) > held.room
        return OptionCost(option, base, [(t, write, read, wrote) for (t, _, write), (read, wrote) in words.items()])

    def waiting(self, plan: Plan, recurrence: Recurrence, nest: Sequence[str], cost: GroupCost, at: Any) -> Any:
        """The part that a nest has in how long the steps of a recurrence wait."""
        sizes = {x: v[at] if isinstance(v, np.ndarray) else v for x, v in self.sizes.items()}
        extents, mine = self.scene.extents, {n: cost.einsums[n] for n in nest}
        frames = ragged_frames(plan, extents, loose_ranks(plan, sizes, extents))
        return recurrence_cycles(plan, frames, recurrence, mine, sizes)

    # Places

    def places(self, columns: Counts) -> dict[str, TensorCost]:
        """Every place of every tensor under shared loops."""
        options = {t: self.shared_places(t) for t in self.users}
        found = {t: TensorCost(p, np.full((len(p), columns.count, self.length), np.inf)) for t, p in options.items()}
        for i in range(max(map(len, options.values()))):
            wanted = {t: i for t, p in options.items() if i < len(p)}
            for plan, take in self.legal(options, wanted):
                for t in take:
                    found[t].columns[i] = 0.0
                for at, cost, moves in self.measured(plan):
                    for move, amount in moves:
                        if move.tensor in take and move.source is not None and move.sink is not None:
                            into = found[move.tensor].columns[i]
                            part = into[:, at].reshape(columns.count, -1) * 0.0
                            columns.move(part, move.source, amount, 0.0)
                            columns.move(part, move.sink, 0.0, amount)
                            into[:, at] += part if isinstance(at, slice) else part[:, 0]
                    for k, level in enumerate(columns.levels):
                        for t, size in cost.footprint_words.get(level, {}).items():
                            if t in take:
                                found[t].columns[i][columns.space.start + k, at] += size
                for replaced in plan.replaced:
                    if replaced.tensor in take:
                        found[replaced.tensor].columns[i][0] += self.barred(replaced)
                for t, passed in plan.passed_on.items():
                    if t in take:
                        words = np.ones(self.length) * passed.words(self.sizes)
                        found[t].columns[i][0] += words > self.registers
                        found[t].columns[i][columns.held] += words
        return found

    def barred(self, replaced: Replaced) -> Floats:
        """Infinite for the combinations in which a tile would be read after it was replaced."""
        return np.where(np.ones(self.length, dtype=bool) & kept_apart(replaced.partings, self.sizes), np.inf, 0.0)

    def legal(
        self, options: Mapping[str, Sequence[Place]], wanted: Mapping[str, int]
    ) -> Iterator[tuple[Plan, dict[str, int]]]:
        """Plans for ``wanted`` places in parts that are legal; a place that is not legal by itself is left out."""
        plan = self.plan([0] * len(self.choices), keeps({t: options[t][i] for t, i in wanted.items()}))
        if plan is not None:
            yield plan, dict(wanted)
        elif len(wanted) > 1:
            names = list(wanted)
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                yield from self.legal(options, {t: wanted[t] for t in half})

    def shared_places(self, tensor: str) -> list[Place]:
        """Every set of tiles, at most one a level: under a loop that steps along it, inner levels under the same loop
        or further in, or whole; nowhere; and, for what passes between Einsums, in the outermost level."""
        along = self.parts(tensor) | self.frame.forced(tensor)
        under = self.frame.nearest([ALL, *(x for x in self.loops if x in along)])
        found: list[tuple[tuple[str, str], ...]] = [()]
        levels = list(self.scene.arch.levels)
        for level in levels[1:]:
            found += [
                (*place, (level, x)) for place in found for i, x in enumerate(under)
                if not place or i >= under.index(place[-1][1])
            ]  # fmt: skip
        if tensor in self.frame.members and len(self.users[tensor]) > 1:
            found.append(((levels[0], ALL),))
        return [Place(p) for p in found]

    def parts(self, tensor: str) -> set[str]:
        return {p for x in self.scene.tensor_leaves(tensor) for p in self.frame.leaves(x)}

    # Tiles under the loops of a nest

    def add_own(self, tensor: str, cost: TensorCost, options: Sequence[Sequence[OptionCost]], columns: Counts) -> None:
        """Places under loops of a nest, beside those under shared loops that they may stand inside."""
        levels = list(self.scene.arch.levels)
        made = tensor in self.frame.members
        added: list[Place] = []
        for b in sorted({self.nest_of[n] for n in self.users[tensor]}):
            within = all(self.nest_of[n] == b for n in self.users[tensor])
            outside = [p for p in cost.places if p.shared and p.shared[-1][0] != levels[-1]]
            if within and made:  # nobody reads it further out, where writing it would only cost more
                outside = [Place()]
            elif not made:
                outside.append(Place())
            for level, loop in self.own_loops(tensor, b):
                before = len(added)
                if self.tile(tensor, b, level, loop, options, columns, within and made):
                    added += [
                        Place(p.shared, (level, loop, b)) for p in outside
                        if not p.shared or levels.index(p.shared[-1][0]) < levels.index(level)
                    ]  # fmt: skip
                assert len(added) >= before
        if added:
            alone = np.zeros_like(cost.columns[0])  # made, read and forgotten inside a nest: there is its tile, no more
            rows = [cost.columns[cost.places.index(Place(p.shared))] if p.shared or not made else alone for p in added]
            cost.columns = np.concatenate([cost.columns, np.stack(rows)])
            cost.places = [*cost.places, *added]

    def own_loops(self, tensor: str, b: int) -> list[tuple[str, str]]:
        """Levels and loops of a nest under which a tile is used again: some loop inside does not step along the tensor,
        or several Einsums of the nest use it."""
        again = sum(n in self.frame.nests[b] for n in self.users[tensor]) > 1
        parts = self.parts(tensor)
        found: dict[str, None] = {}
        for option in self.choices[b]:
            loops = option.layout.loops
            for i, x in enumerate(loops):
                inside = [y for y in loops[i + 1 :] if y not in parts and np.max(self.sizes[y]) > 1]
                if x in parts and (again or inside):
                    found[x] = None
        return [(level, x) for x in found for level in list(self.scene.arch.levels)[1:]]

    def tile(
        self, tensor: str, b: int, level: str, loop: str, options: Sequence[Sequence[OptionCost]], columns: Counts,
        inside: bool,
    ) -> bool:  # fmt: skip
        """Add the columns of a tile under a loop to each option of the nest that has it; whether some has."""
        picks = [0] * len(self.choices)
        for other, mine in enumerate(self.choices):
            users = {self.nest_of[n] for n in self.users[tensor]}
            if other != b and other in users:
                free = [i for i, o in enumerate(mine) if loop not in o.layout.loops]
                if not free:
                    return False
                picks[other] = free[0]
        keep: dict[str, dict[str, str]] = {level: {tensor: loop}}
        if tensor in self.frame.members and not inside:
            keep[self.scene.arch.outermost] = {tensor: ALL}
        known: dict[tuple[str, ...], Floats] = {}
        outer = list(self.scene.arch.levels)[: list(self.scene.arch.levels).index(level)]
        for cost in options[b]:
            loops = cost.option.layout.loops
            if loop not in loops:
                continue
            outside = loops[: loops.index(loop) + 1]  # what is inside of them, and how, does not matter to a tile
            if outside not in known:
                picks[b] = list(self.choices[b]).index(cost.option)
                plan = self.plan(picks, keep)
                if plan is None:
                    continue
                known[outside] = self.tile_of(plan, tensor, level, columns)
            for source in outer:
                cost.tiles[tensor, level, loop, source] = columns.from_level(known[outside], source)
        return bool(known)

    def tile_of(self, plan: Plan, tensor: str, level: str, columns: Counts) -> Floats:
        """The columns of a tile of a tensor at a level."""
        into = columns.nothing(self.length)
        for at, found, moves in self.measured(plan):
            for move, amount in moves:
                if move.tensor == tensor and move.source is not None and move.sink is not None:
                    part = into[:, at].reshape(columns.count, -1) * 0.0
                    columns.move(part, move.source, amount, 0.0)
                    columns.move(part, move.sink, 0.0, amount)
                    into[:, at] += part if isinstance(at, slice) else part[:, 0]
            size = found.footprint_words.get(level, {}).get(tensor, 0.0)
            into[columns.space.start + columns.levels.index(level), at] += size
        for replaced in plan.replaced:
            into[0] += self.barred(replaced) if replaced.tensor == tensor else 0.0
        return into


def keeps(places: Mapping[str, Place]) -> dict[str, dict[str, Any]]:
    """The ``keep`` field for some places."""
    found: dict[str, dict[str, Any]] = {}
    for tensor, place in places.items():
        for level, loop in (*place.shared, *((place.own[:2],) if place.own else ())):
            found.setdefault(level, {})[tensor] = loop
    return found


def fields_of(
    frame: Frame, order: Sequence[str], chosen: Sequence[Option], keep: Mapping[str, Mapping[str, Any]],
    sizes: Mapping[str, int],
) -> dict[str, Any]:  # fmt: skip
    """The fields of a mapping file; middle tiles that have no size are left to be found."""
    bind = {}
    for nest, option in zip(frame.nests, chosen, strict=True):
        spatial = {d: list(xs) for d, xs in option.layout.spatial}
        entry = {"unit": option.unit, "spatial": spatial, "loops": list(option.layout.loops)}
        bind[", ".join(nest)] = {**entry, "pipelined": True} if option.pipelined else entry
    fields = {**frame.fields(sizes), "loops": frame.loops(order), "keep": dict(keep), "bind": bind}
    return {k: v for k, v in fields.items() if v or v is False}
