"""A mapped group as tasks: which actors there are, how long each firing takes, and what it waits for.

The meaning is that of the closed form (:mod:`fusemodel.model`): the same plan, the same movements, the same counts.
What the closed form takes for granted is spelled out here: that a value is made before it is used, that a tile's place
is free before it is written again, that a transfer has the level to itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from fusemodel.cascade.ir import Apply, Einsum, Expr, Extent, Number, RankValue, reads
from fusemodel.cascade.plan import equations, plan
from fusemodel.mapping.check import main_einsums
from fusemodel.model.amounts import ceil_div, product
from fusemodel.model.cost import EinsumCost
from fusemodel.model.domain import count_union
from fusemodel.model.frame import Frame, loose_ranks, ragged_frames, settled
from fusemodel.model.plan import Move, Plan
from fusemodel.model.ragged import classes_of
from fusemodel.model.space import Space, space_of
from fusemodel.model.tiles import Chosen
from fusemodel.simulate.beside import hand_over, units_of
from fusemodel.simulate.bring import brings
from fusemodel.simulate.inside import main, stepped_inside
from fusemodel.simulate.lags import with_lags
from fusemodel.simulate.room import wait_for_room
from fusemodel.simulate.tables import table_of
from fusemodel.simulate.tasks import (
    BUFFER,
    DEPENDENCE,
    INPUT,
    VALID,
    Actor,
    Buffer,
    Edge,
    Table,
    Tasks,
    strides,
    uniform,
)
from fusemodel.simulate.transfers import access_of, link, transfer


def lower(chosen: Chosen, extents: Mapping[str, int], *, asap: bool = False, copies: int = 1) -> Tasks:
    """The tasks of a group with its sizes. ``asap``: units take whatever is ready, not what the schedule says;
    ``copies``: at least so many of every kept tile, whether they fit or not."""
    return orders(chosen, extents, asap=asap, copies=copies)[0]


def orders(chosen: Chosen, extents: Mapping[str, int], *, asap: bool = False, copies: int = 1) -> list[Tasks]:
    """The tasks of a group, in each order that its schedule leaves open: where all is one stage, units take what is in
    flight as a modulo schedule has it, in the order in which it is computed, or whatever is ready."""
    low = Lowering(chosen, extents, asap, copies)
    tasks, registers, interleave = low.tasks(), low.registers(), low.group.interleave
    found = [with_lags(tasks, registers, interleave=interleave, packed=packed) for packed in (True, False)]
    if tasks.ordered and tasks.stages == 1 and interleave:
        found.append(with_lags(replace(tasks, ordered=False), registers, interleave=interleave, packed=False))
    alike: dict[object, Tasks] = {}
    for t in found:
        alike.setdefault((t.ordered, *((a.lag, a.place) for a in t.actors if t.ordered)), t)
    return list(alike.values())


@dataclass
class Lowering:
    chosen: Chosen
    extents: Mapping[str, int]
    asap: bool
    copies: int
    actors: list[Actor] = field(default_factory=list)
    edges: dict[int, list[Edge]] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan: Plan = settled(self.chosen.plan)
        self.sizes = self.chosen.sizes
        self.group, self.cascade, self.arch = self.plan.group, self.plan.cascade, self.plan.arch
        loose = loose_ranks(self.plan, self.sizes, self.extents)
        self.frames: dict[str, Frame] = ragged_frames(self.plan, self.extents, loose)
        self.inside: dict[str, Einsum] = {n: e for n, e in main_einsums(self.cascade).items() if n in self.plan.einsums}
        self.shared = tuple(x for x in self.group.loops if self.sizes[x] > 1)
        every = (main(self.cascade, e) for item in plan(self.cascade) for e in equations(item))
        self.computed = [n for n in every if n in self.inside]  # each after those it is computed from in a step
        self.loops = (*self.shared, *self._common_own())
        self.space: Space = space_of(self.plan, self.frames, self.sizes, self.extents, [])
        self.timed = {n for n, level in self.arch.levels.items() if level.bandwidth_bytes_per_s}
        self.of: dict[str, int] = {}  # the actor of each Einsum
        self.at_level: dict[tuple[str, str], list[int]] = {}  # transfers that put a tensor into a level
        self.leaving: dict[tuple[str, str], list[int]] = {}  # transfers that take it out of one
        self.untimed: list[tuple[str, str, bool, float]] = []
        self.serves: dict[int, frozenset[object]] = {}  # the accesses that a load is for
        inside = stepped_inside(self.cascade, self.group, self.inside, self.loops, self.sizes)
        self.together = {n: i.members for i in inside for n in i.members}  # there when the last of them is done

    # Loops

    def _own(self, name: str) -> tuple[str, ...]:
        return tuple(x for x in self.plan.einsums[name].temporal if self.sizes[x] > 1 and x not in self.group.loops)

    def _common_own(self) -> tuple[str, ...]:
        """Inner loops that every Einsum runs outermost, in the same order, with nothing completed over them: the group
        is as good as fused in them."""
        found: list[str] = []
        each = [self._own(n) for n in self.inside]
        reduced = {x for e in self.plan.einsums.values() for x in e.reduced}
        for column in zip(*each, strict=False):
            leaf = column[0]
            if any(x != leaf for x in column) or leaf in reduced or not self._same_step(leaf):
                break
            found.append(leaf)
        return tuple(found) if len(self.inside) > 1 else ()

    def _same_step(self, leaf: str) -> bool:
        """Whether whatever the group makes in a step of a loop is read in that step, or as the state it leaves."""
        for einsum in self.inside.values():
            for access in reads(einsum):
                if access.tensor not in self.inside:
                    continue
                written = self.inside[access.tensor].target
                ranks = self.cascade.full_ranks(access.tensor)
                for rank, index, made in zip(ranks, access.indices, written.indices, strict=True):
                    stepped = rank in self.cascade.tensors[access.tensor].iterative
                    if leaf in self.group.leaves(rank, self.cascade) and index != made and not stepped:
                        return False
        return True

    def lowered(self, name: str) -> tuple[str, ...]:
        """The lowered loops of an Einsum."""
        temporal = set(self.plan.einsums[name].temporal)
        return tuple(x for x in self.loops if x in temporal)

    # Actors

    def tasks(self) -> Tasks:
        units = units_of(self.plan.einsums.values())
        stage = {n: i for i, names in enumerate(self.group.stages) for n in names}
        place = {n: i for i, n in enumerate(sorted(stage, key=lambda n: (stage[n], self.computed.index(n))))}
        for name in self.inside:
            self._einsum(name, units.index(self.plan.einsums[name].unit), stage[name], place[name])
        moved = [m for b in brings(self.plan, self.frames, self.sizes, self.space, []) if (m := transfer(self, b))]
        for me, bring, stream in moved:
            link(self, me, bring, stream)
        for name, einsum in self.inside.items():
            self._reads(name, einsum)
        wait_for_room(self)
        hand_over(self, units)
        actors = [replace(a, edges=tuple(sorted(self.edges.get(i, ()), key=lambda e: (e.reason == BUFFER, e.reason))))
                  for i, a in enumerate(self.actors)]  # fmt: skip
        levels = tuple(x for x in self.arch.levels if x in self.timed)
        word = self.arch.word_bytes * self.arch.clock_hz
        per_word = tuple(word / (self.arch.levels[x].bandwidth_bytes_per_s or 1) for x in levels)
        return Tasks(
            self.group.name, self.loops, tuple(self.sizes[x] for x in self.loops), units, levels, per_word,
            tuple(actors), tuple(self.buffers), len(self.group.stages), not self.asap, tuple(self.untimed),
            tuple(dict.fromkeys(self.notes)),
        )  # fmt: skip

    def add(self, actor: Actor) -> int:
        self.actors.append(actor)
        return len(self.actors) - 1

    def _einsum(self, name: str, unit: int, stage: int, place: int) -> None:
        plan, cost = self.plan.einsums[name], self.chosen.cost.einsums[name]
        loops = self.lowered(name)
        sizes = tuple(self.sizes[x] for x in loops)
        length = 0.0
        dimensions = self.arch.units[plan.unit].shape
        for dimension, leaves in self.group.bindings[name].spatial.items():
            over = [x for x in leaves if x in plan.reduced]
            if over:
                length = max(length, float(min(product(over, self.sizes), dimensions[dimension])))
        self.of[name] = self.add(
            Actor(name, "einsum", name, name, loops, sizes, self._cycles(name, cost, loops), unit, drain=length,
                  stage=stage, place=place, turn=self._turn(name, loops))
        )  # fmt: skip

    def _turn(self, name: str, loops: Sequence[str]) -> tuple[int, tuple[int, ...]]:
        """The step of all loops together at which an Einsum fires: at the last of those it lacks, if something it
        uses runs in them, else at the first."""
        every = dict(zip(self.loops, strides([self.sizes[x] for x in self.loops]), strict=True))
        above = self._above(name, set())
        late = {x for n in above for x in self.lowered(n)} - set(loops)
        constant = sum(every[x] * (self.sizes[x] - 1) for x in late)
        return constant, tuple(every[x] for x in loops)

    def _above(self, name: str, seen: set[str]) -> set[str]:
        for access in reads(self.inside[name]):
            if access.tensor in self.inside and access.tensor not in seen and access.tensor != name:
                seen.add(access.tensor)
                self._above(access.tensor, seen)
        return seen

    def _cycles(self, name: str, cost: EinsumCost, loops: tuple[str, ...]) -> Table:
        plan, frame = self.plan.einsums[name], self.frames[name]
        firings = product(loops, self.sizes)
        mean = uniform(float(cost.cycles) / firings)
        last = tuple(x for x in loops if x in plan.reduced)
        folds = self._folds(frame, plan.temporal, plan.folds)
        kept = [(n, [x for x in leaves if x not in plan.reduced]) for n, leaves in plan.folds]
        folds_out = self._folds(frame, [x for x in plan.temporal if x not in plan.reduced], kept)
        if folds is None or folds_out is None:
            self.notes.append(f"{name}: every task takes the mean of its cycles")
            return mean
        inner = [x for x in plan.temporal if x not in loops]
        inner_out = [x for x in inner if x not in plan.reduced]
        per, per_out = folds * plan.cycles_per_point, folds_out * plan.cycles_per_output
        if not frame.conditional and not frame.roots:
            if not per_out or not last:
                return mean
            steps = product(inner, self.sizes) * per
            once = product(inner_out, self.sizes) * per_out
            return _at_last(loops, last, self.sizes, float(steps), float(once))
        every = frame.with_quotients(self.sizes)
        if per_out and last:
            self.notes.append(f"{name}: every task takes the mean of its cycles")
            return mean

        def counted(pieces) -> float | None:
            turns, exact = count_union(pieces, inner, every, apart=True)
            cycles = turns * per
            if per_out:
                outputs, known = count_union(pieces, inner_out, every, apart=True)
                cycles, exact = cycles + outputs * per_out, exact and known
            return float(cycles) if exact else None

        pieces = [frame.on_leaves(p, self.sizes) for p in frame.pieces]
        table = table_of(pieces, loops, every, counted)
        if table is None:
            self.notes.append(f"{name}: every task takes the mean of its cycles")
        return table or mean

    def _folds(self, frame: Frame, loops: Sequence[str], spread: Sequence[tuple[int, Sequence[str]]]) -> int | None:
        """How often a unit is filled at every step of some loops; None where the last tile fills it less often."""
        spaces = [leaves for _, leaves in spread]
        if frame.fixed or not frame.roots:
            return prod(ceil_div(product(x, self.sizes), n) for n, x in spread)
        found = {
            prod(ceil_div(lanes, n) for lanes, (n, _) in zip(c.lanes, spread, strict=True))
            for c in classes_of(frame.roots, self.extents, self.sizes, loops, spaces)
        }
        return found.pop() if len(found) == 1 else None

    # Dependences between Einsums

    def _reads(self, name: str, einsum: Einsum) -> None:
        me = self.of[name]
        streamed = {s for stream in self.actors[me].streams for s in self.serves[stream]}
        for move in self.plan.moves:
            if move.key[3:] == ("read", name) and access_of(move) not in streamed:
                self._from_kept(me, move)
        for access in dict.fromkeys(reads(einsum)):
            if access.tensor not in self.of:
                continue
            back, there = self.step_of(access.tensor, access.indices)
            # what is computed later is there from a step before, if of no lowered loop, then from inside the task
            later = self.computed.index(access.tensor) >= self.computed.index(name)
            if not there or (later and not back):
                continue
            fellows = self.together.get(access.tensor, ())
            for made in (access.tensor, *(() if name in fellows else fellows)):
                self.wait(me, self.of[made], VALID, DEPENDENCE, back=back)

    def _from_kept(self, me: int, move: Move) -> None:
        order = list(self.arch.levels)
        for at in reversed(order[: order.index(str(move.source)) + 1]):
            put = [
                a for a in self.at_level.get((move.tensor, at), [])
                if self.actors[a].kind == "load" and access_of(move) in self.serves[a]
            ]  # fmt: skip
            for other in put:
                self.wait(me, other, VALID, INPUT)
            if put:
                return

    def step_of(self, tensor: str, indices: Sequence[Expr]) -> tuple[dict[str, int], bool]:
        """By how many steps an access looks back along an iterative rank, and whether the group makes anything for
        it."""
        if tensor not in self.inside:
            return {}, True
        for rank, index in zip(self.cascade.full_ranks(tensor), indices, strict=True):
            if rank not in self.cascade.tensors[tensor].iterative:
                continue
            leaves = [x for x in self.group.leaves(rank, self.cascade) if x in self.lowered(tensor)]
            match index:
                case Number(0):
                    return {}, False
                case RankValue():
                    return ({leaves[-1]: 1}, True) if leaves else ({}, False)
                case Extent():
                    return {}, True
                case Apply("+", (RankValue(), Number(1))):
                    return {}, True
        return {}, True

    def wait(
        self, me: int, other: int, event: int, reason: int, *, lacking: str = "last", slack: int = 0,
        back: Mapping[str, int] | None = None, before: int = 0, last: frozenset[str] = frozenset(), tile: str = "",
    ) -> None:  # fmt: skip
        """An edge: steps of loops that both have are the same (``back``: less), those that only the other has are at
        their last (or first), as are those in ``last``; ``before`` counts firings of the other back."""
        x, y = self.actors[me], self.actors[other]
        weight = dict(zip(y.loops, strides(y.sizes), strict=True))
        parts = y.sizes[-1] if y.loops and y.loops[-1] not in self.sizes else 1
        constant = -before * parts
        for loop, n in zip(y.loops, y.sizes, strict=True):
            if loop not in x.loops or loop in last:
                constant += weight[loop] * (n - 1) if lacking == "last" else 0
        for loop, steps in (back or {}).items():
            constant -= weight.get(loop, 0) * steps
        coefficients = tuple(0 if loop in last else weight.get(loop, 0) for loop in x.loops)
        edge = Edge(other, event, constant, coefficients, slack, reason, tile)
        if edge not in self.edges.setdefault(me, []):
            self.edges[me].append(edge)

    def registers(self) -> float | None:
        """Words that the registers of the group's units hold; None where the architecture does not say."""
        units = [self.arch.units[u] for u in {e.unit for e in self.plan.einsums.values()}]
        if not all(u.registers for u in units):
            return None
        return float(sum(u.size * u.registers.words for u in units if u.registers))


def _at_last(
    loops: tuple[str, ...], last: tuple[str, ...], sizes: Mapping[str, int], steps: float, once: float
) -> Table:
    """``steps`` at every step, and ``once`` more where all of ``last`` are at their last."""
    import numpy as np

    form = tuple(int(x in last) for x in loops)
    most = sum(sizes[x] - 1 for x in last)
    return Table(np.array([steps, steps + once]), (form,), (-(most - 1),), (0,))
