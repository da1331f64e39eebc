"""The software pipeline behind a line of a schedule: when each Einsum works on which tile, and whether that is legal.

A line of a schedule says that its Einsums run side by side, each on another tile, as fast as its busiest unit allows.
That needs a modulo schedule: a start for every Einsum such that one tile after another can be begun every ``interval``
cycles, no unit does two things at once, everything an Einsum reads has been made (reductions across an array drained),
and a step of a recurrence begins only when the step before is done. The search is over the order of the Einsums of each
unit; the tile that each of them works on follows as a longest path (Rau, Iterative modulo scheduling, MICRO 1994).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from math import ceil, inf, prod

from fusemodel.cascade.ir import rank_values, reads
from fusemodel.explore.ragged import steps
from fusemodel.mapping.check import main_einsums
from fusemodel.model.cost import cost_of
from fusemodel.model.plan import Plan, spatial_reductions
from fusemodel.model.registers import capacity, held_in_registers, unions, units_of
from fusemodel.model.tiles import Chosen

_TRIED = 5000  # orders of the Einsums of all units
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Task:
    """What an Einsum does for a tile: it holds ``unit`` for ``cycles``, and ``drain`` cycles later its result is there.
    ``words`` of it are alive in registers for each tile in flight."""

    unit: str
    cycles: float
    drain: float
    words: float


@dataclass(frozen=True)
class Need:
    """``reader`` needs what ``maker`` made ``distance`` tiles before."""

    maker: str
    reader: str
    distance: float


@dataclass(frozen=True)
class Pipeline:
    """A modulo schedule of a group: every Einsum starts ``starts`` cycles after its tile was begun, one tile being
    begun every ``interval`` cycles. ``in_flight`` tiles are, of ``tiles`` in all; values take ``words`` of
    ``room`` then in the registers of those units that are fullest."""

    tasks: Mapping[str, Task]
    needs: tuple[Need, ...]
    interval: float
    starts: Mapping[str, float]
    tiles: float
    words: float
    room: float

    @property
    def lag(self) -> dict[str, int]:
        """How many tiles were begun before an Einsum comes to its own."""
        return {n: int((t + _ROUNDING * self.interval) // self.interval) for n, t in self.starts.items()}

    @property
    def in_flight(self) -> int:
        return 1 + max(self.lag.values())

    @property
    def legal(self) -> bool:
        """Whether as many tiles are independent as are in flight, and registers hold what is alive."""
        return self.in_flight <= self.tiles and self.words <= self.room


def pipeline(plan: Plan, sizes: Mapping[str, int], extents: Mapping[str, int]) -> Pipeline | None:
    """A modulo schedule of a group whose schedule is one line, as fast as the closed form says; None if none is
    found."""
    cost = cost_of(plan, sizes, extents)
    parts = {r: plan.group.leaves(r, plan.cascade) for r in plan.group.parts if r in plan.cascade.ranks}
    tiles = int(steps(parts, plan.group.loops, extents, sizes))
    drains = spatial_reductions(plan.group, plan.cascade, plan.arch)
    tasks = {
        n: Task(
            e.unit, float(cost.einsums[n].cycles) / tiles,
            float(min(prod(sizes[x] for x in drains[n].leaves), drains[n].length)) if n in drains else 0.0,
            float(plan.passed_on[n].words(sizes)) if n in plan.passed_on else 0.0,
        )
        for n, e in plan.einsums.items()
    }  # fmt: skip
    interval = float(cost.schedule_cycles) / tiles
    needs = tuple(_needs(plan, sizes))
    for order in _orders(tasks):
        starts = _starts(tasks, needs, order, interval)
        if starts is not None:
            held, room = _tightest(plan, _alive(tasks, needs, starts, interval))
            return Pipeline(tasks, needs, interval, starts, tiles, held, room)
    return None


def _needs(plan: Plan, sizes: Mapping[str, int]) -> Iterator[Need]:
    """Every dependence between the Einsums of a group, with the tiles between maker and reader."""
    einsums = main_einsums(plan.cascade)
    for name in plan.einsums:
        for access in dict.fromkeys(reads(einsums[name])):
            if access.tensor not in plan.einsums:
                continue
            tensor = plan.cascade.tensors[access.tensor]
            stepped = [
                r for r, i in zip(plan.cascade.full_ranks(access.tensor), access.indices, strict=True)
                if r in tensor.iterative and rank_values(i) and getattr(i, "op", None) != "+"
            ]  # fmt: skip
            if not stepped:
                if access.tensor != name:
                    yield Need(access.tensor, name, 0)
                continue
            leaves = [x for r in stepped for x in plan.group.leaves(r, plan.cascade) if x in plan.group.loops]
            last = max((plan.group.loops.index(x) for x in leaves), default=len(plan.group.loops))
            yield Need(access.tensor, name, prod(sizes[x] for x in plan.group.loops[last + 1 :]))


def _orders(tasks: Mapping[str, Task]) -> Iterator[dict[str, tuple[str, ...]]]:
    """Orders of the Einsums of every unit, as they are written first."""
    units: dict[str, list[str]] = {}
    for n, t in tasks.items():
        units.setdefault(t.unit, []).append(n)
    # `product` holds what it is given: of eleven Einsums on one unit there are 40 million orders
    every = product(*(tuple(islice(permutations(names), _TRIED)) for names in units.values()))
    for order in islice(every, _TRIED):
        yield dict(zip(units, order, strict=True))


def _starts(
    tasks: Mapping[str, Task], needs: tuple[Need, ...], order: Mapping[str, tuple[str, ...]], interval: float
) -> dict[str, float] | None:
    """The earliest starts, the Einsums of a unit filling the interval one after another in an order; None where a
    recurrence is not done in time."""
    place: dict[str, float] = {}
    for names in order.values():
        at = 0.0
        for n in names:
            place[n], at = at, at + tasks[n].cycles
    lag = dict.fromkeys(tasks, 0)
    for _ in range(len(tasks) + 1):
        changed = False
        for need in needs:
            maker = tasks[need.maker]
            done = place[need.maker] + maker.cycles + maker.drain - place[need.reader]
            least = lag[need.maker] + ceil(done / interval - need.distance - _ROUNDING)
            if least > lag[need.reader]:
                lag[need.reader], changed = least, True
        if not changed:
            return {n: place[n] + lag[n] * interval for n in tasks}
    return None


def _tightest(plan: Plan, alive: Mapping[str, float]) -> tuple[float, float]:
    """The words alive in the registers of some units alone, and those that they hold: of the units that are fullest."""
    units = {t: us for t, us in units_of(plan).items() if t in alive and all(plan.arch.units[u].registers for u in us)}
    each = [
        (sum(alive[t] for t, us in units.items() if us <= some), float(capacity(plan.arch, some)))
        for some in unions(units.values())
    ]
    return max(each, key=lambda x: x[0] / x[1], default=(0.0, float("inf")))


def _alive(
    tasks: Mapping[str, Task], needs: tuple[Need, ...], starts: Mapping[str, float], interval: float
) -> dict[str, float]:
    """Words of each tensor in registers: of every tile that was made and is still to be read."""
    found: dict[str, float] = {}
    for n, task in tasks.items():
        ends = [starts[x.reader] + tasks[x.reader].cycles for x in needs if x.maker == n and not x.distance]
        if task.words and ends:
            found[n] = task.words * max(1, ceil((max(ends) - starts[n]) / interval - _ROUNDING))
    return found


def overflows(chosen: Sequence[Chosen], pipelines: Sequence[Pipeline | None]) -> tuple[list[float], dict[str, float]]:
    """Where values do not fit into registers, those of all tiles in flight or those of one in some units alone: words
    of one tile of which as many would; and of what does not fit by itself, the words that would."""
    over = [p for p in pipelines if p and p.words > p.room]
    each = [sum(t.words for t in p.tasks.values()) * p.room / p.words for p in over]
    alone: dict[str, float] = {}
    for one in chosen:
        words = {t: float(passed.words(one.sizes)) for t, passed in one.plan.passed_on.items()}
        held = [h for h in held_in_registers(one.plan, one.sizes) if h.einsum is None and h.words > h.room]
        each += [sum(words.values()) * h.room / h.words for h in held]
        for h in held:  # what does not fit by itself, whatever else is there
            alone |= {t: min(alone.get(t, inf), h.room) for t in h.tensors if words[t] > h.room}
    return each, alone
