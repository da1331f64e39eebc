"""The functional mode: tasks move and compute real numbers, through buffers of the declared size.

Tasks run in the order of the plain event engine. A tile is at a level from the end of the transfer (or of the task)
that puts it there until another takes its place. A task that reads what is not there yet, or not any more, ends the run
with a message; so does a buffer that holds more than it has room for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from fusemodel.cascade.ir import Access, Cascade, Einsum, accesses, iteration_ranks, reduced_ranks, reduction_op
from fusemodel.cascade.plan import Compute, Plan
from fusemodel.cascade.workload import Workload
from fusemodel.errors import InputError
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.spec import Design
from fusemodel.model.evaluate import choices
from fusemodel.model.frame import settled
from fusemodel.model.plan import Tile, dims_of
from fusemodel.model.tiles import Chosen
from fusemodel.numerics import random_inputs
from fusemodel.numerics import run as interpret
from fusemodel.numerics.regroup import regrouped
from fusemodel.simulate.beside import is_beside
from fusemodel.simulate.held import Held
from fusemodel.simulate.inside import Inside, main, stepped_inside
from fusemodel.simulate.lower import lower
from fusemodel.simulate.machine import Deadlock, machine_of
from fusemodel.simulate.points import Array, Grid, Reader, Tensors, Where
from fusemodel.simulate.run import deadlock_error
from fusemodel.simulate.stepwise import Stepwise, Task
from fusemodel.simulate.tasks import Actor, Buffer, Tasks, steps_of

#: How points are combined, and what there is without any.
_FOLDS: dict[str, tuple[Any, float]] = {
    "sum": (np.add, 0.0), "max": (np.maximum, -np.inf), "min": (np.minimum, np.inf), "prod": (np.multiply, 1.0),
    "mean": (np.add, 0.0), "any": (np.maximum, 0.0), "all": (np.minimum, 1.0),
}  # fmt: skip


def execute(
    design: Design,
    workload: Workload | None = None,
    seq: int | None = None,
    sets: Mapping[str, int] | None = None,
    *,
    schedule: str = "given",
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """The outputs of a design's cascade, computed task by task; absent elements are NaN. Meant for small sizes.

    ``inputs`` are random (from ``seed``) where not given. Blocks of a ``grid`` run one after another. InputError says
    which task reads what is not there, and what of a cascade this mode does not run (selections and scatters).
    """
    extents, chosen = choices(design, workload, seq, sets)
    given = random_inputs(design.cascade, extents, seed=seed) if inputs is None else dict(inputs)
    world = _World(design.cascade, extents, given)
    for c in chosen:
        group = _Group(world, c, asap=schedule == "asap")
        try:
            group.run()
        except Deadlock as stuck:
            raise deadlock_error(design, c, group.machine, stuck) from None
    return {n: world.output(n) for n in design.cascade.outputs}


class _World:
    """Values of every tensor, which elements a run of the cascade makes, and which are made. Starts of recurrences are
    there at once."""

    def __init__(self, cascade: Cascade, extents: Mapping[str, int], inputs: Mapping[str, Any]) -> None:
        self.cascade, self.extents = cascade, extents
        self.main = main_einsums(cascade)
        for einsum in self.main.values():
            if einsum.selection or any(accesses(i) for i in einsum.target.indices):
                what = f"selects with `{einsum.selection.op}`" if einsum.selection else "scatters"
                raise InputError(
                    f"the functional mode does not run {einsum.name!r}, which {what}", einsum.at,
                    expected="elementwise operators and reductions",
                )  # fmt: skip
        truth = interpret(cascade, inputs, extents)
        self.tensors = Tensors(extents, {}, {})
        self.made: dict[str, Array] = {}
        for name in truth.tensors:
            there = np.broadcast_to(truth.present.get(name, np.True_), truth.tensors[name].shape)
            values = self._held(name, truth.tensors[name], np.nan)
            self.tensors.present[name] = self._held(name, there, 0)
            if name in cascade.inputs:
                self.tensors.values[name], self.made[name] = values, np.ones(values.shape, bool)
                continue
            started = np.zeros(values.shape, bool)
            for d, rank in enumerate(cascade.full_ranks(name)):
                if rank in cascade.tensors[name].iterative:
                    started[(slice(None),) * d + (0,)] = True
            self.tensors.values[name] = np.where(started, values, np.nan).astype(np.float64)
            self.made[name] = started

    def _held(self, name: str, array: Array, fill: float) -> Array:
        """An array by the ranks that a tensor is computed by."""
        ranks, held = self.cascade.full_ranks(name), self.cascade.declared_ranks(name)
        return array if ranks == held else regrouped(array, held, ranks, self.cascade.split, self.extents, fill)

    def output(self, name: str) -> Array:
        held, ranks = self.cascade.full_ranks(name), self.cascade.declared_ranks(name)
        values = np.where(self.tensors.present[name], self.tensors.values[name], np.nan)
        return values if ranks == held else regrouped(values, held, ranks, self.cascade.split, self.extents, np.nan)


class _Group:
    def __init__(self, world: _World, chosen: Chosen, *, asap: bool) -> None:
        self.world, self.cascade, self.tensors = world, world.cascade, world.tensors
        self.plan, self.sizes = settled(chosen.plan), chosen.sizes
        self.machine = machine_of(lower(chosen, world.extents, asap=asap))
        self.tasks: Tasks = self.machine.tasks
        self.levels = list(self.plan.arch.levels)
        self.grid = Grid(self.sizes)
        inside = stepped_inside(self.cascade, self.plan.group, self.plan.einsums, self.tasks.loops, self.sizes)
        self.inside = {n: i for i in inside for n in i.members}
        self.ended_inside: dict[tuple[Inside, tuple[int, ...]], list[tuple[int, dict[str, int]]]] = {}
        self.held: dict[tuple[str, str], list[Held]] = {}
        self.by_writer: dict[int, list[Held]] = {}
        for b in self.tasks.buffers:
            held = self._empty(b, chosen)
            self.held.setdefault((b.tensor, b.level), []).append(held)
            self.by_writer.setdefault(b.writer, []).append(held)
        out = {a.tensor for a in self.tasks.actors if a.kind == "store" and _sink(a) == self.levels[0]}
        self.stored_later = out & set(self.plan.einsums)
        #: What is at home, or on its way there: in the outermost level.
        self.home = {n: m if n not in self.plan.einsums else m.copy() for n, m in world.made.items()}
        shapes = {n: self.tensors.values[n].shape for n in self.plan.einsums}
        self.counted = {n: np.zeros(shape, np.int64) for n, shape in shapes.items()}  # points, for means
        self.touched = {n: np.zeros(shape, bool) for n, shape in shapes.items()}

    def _empty(self, buffer: Buffer, chosen: Chosen) -> Held:
        shape = self.tensors.values[buffer.tensor].shape
        writer = self.tasks.actors[buffer.writer]
        iterative = self.cascade.tensors[buffer.tensor].iterative
        steps = {x for r in iterative for x in self.plan.group.leaves(r, self.cascade)}
        stepped = tuple(x for x in writer.loops if x in steps) if iterative else ()
        spilled = float(chosen.cost.spill.get(buffer.level, 0)) > 0
        versions = buffer.versions / buffer.copies if iterative else 1
        words = None if spilled else buffer.room_words * versions
        sizes = dict(zip(writer.loops, writer.sizes, strict=True))
        return Held(buffer, sizes, stepped, words, np.zeros(shape, np.int64), np.zeros(shape, bool))

    def run(self) -> None:
        with np.errstate(all="ignore"):
            Stepwise(self.machine, self.started, self.ended, peaks=False).run()
        for name in self.plan.einsums:
            self.world.made[name] = self.world.made[name] | self.touched[name]

    # What is where

    def there(self, tensor: str, level: str) -> Array:
        """Which elements are at a level (see :meth:`level`), or where it has them from."""
        if level == "-" or (level == "" and (tensor, "") not in self.held):
            return self.touched[tensor] | self.world.made[tensor]
        for at in [level] if level == "" else reversed(self.levels[: self.levels.index(level) + 1]):
            if tiles := self.held.get((tensor, at)):
                found = np.any([t.there for t in tiles], axis=0)
                return found | self.world.made[tensor] if self.cascade.tensors[tensor].iterative else found
        return self.home[tensor]

    def check(self, who: str, tensor: str, level: str, where: Where) -> None:
        missing = ~np.broadcast_to(self.there(tensor, level), self.tensors.values[tensor].shape)[where]
        if not np.any(missing):
            return
        at = tuple(int(np.atleast_1d(w)[np.atleast_1d(missing)][0]) for w in where)
        made = tensor in self.cascade.inputs or bool(self.touched.get(tensor, self.world.made[tensor])[at])
        raise InputError(
            f"{who} reads {tensor}[{', '.join(map(str, at))}] from {level.strip('-') or 'registers'}, where it has "
            f"{'been replaced' if made else 'not been written'}"
        )

    def level(self, name: str, access: Access) -> str:
        """Where an Einsum reads an access from; registers (``""``) if it is kept nowhere; ``-`` if it is made in the
        same task."""
        if access.tensor in self.inside and name in self.inside[access.tensor].members:
            return "-"
        dims = tuple(d.index for d in dims_of(access, self.plan.group, self.cascade))
        found = [m for m in self.plan.moves if m.key[0] == access.tensor and m.key[3:] == ("read", name)]
        exact = [m for m in found if tuple(d.index for d in m.tile.dims) == dims] or found
        return str(exact[0].source) if exact else ""

    # Tasks

    def steps(self, actor: Actor, firing: int) -> dict[str, int]:
        return dict(zip(actor.loops, steps_of(firing, actor.sizes), strict=True))

    def started(self, task: Task) -> None:
        actor = self.tasks.actors[task.actor]
        steps = self.steps(actor, task.firing)
        if actor.unit >= 0 and not is_beside(actor):
            inside = self.inside.get(actor.name)
            self.value(self.world.main[actor.name], steps, lambda x: not inside or x not in inside.members)
        for held in self.by_writer.get(task.actor, ()):
            held.start(steps)

    def ended(self, a: int, firing: int) -> None:
        actor = self.tasks.actors[a]
        steps = self.steps(actor, firing)
        if is_beside(actor):
            return
        if actor.unit < 0:
            self.put(a, steps, self.moved(actor, steps))
        elif inside := self.inside.get(actor.name):
            self.ended_together(inside, a, steps)
        else:
            self.put(a, steps, self.compute(actor.name, steps))

    def moved(self, actor: Actor, steps: Mapping[str, int]) -> Where:
        """The elements that a transfer moves: those that an access touches, or the part of them whose turn it is."""
        parts = [self.touches(actor.tensor, t, steps) for t in actor.tiles]
        where = tuple(np.concatenate(axis) for axis in zip(*parts, strict=True))
        if actor.loops and actor.loops[-1] not in self.sizes:
            part, many = steps[actor.loops[-1]], actor.sizes[-1]
            where = tuple(w[len(w) * part // many : len(w) * (part + 1) // many] for w in where)
        if actor.kind == "store" and _sink(actor) == self.levels[0]:
            self.home[actor.tensor][where] = True
        return where

    def touches(self, tensor: str, tile: Tile, steps: Mapping[str, int]) -> Where:
        many, at = self.grid.points(tuple(dict.fromkeys(x for d in tile.dims for x in d.all_leaves)), steps)
        index = []
        for dim in tile.dims:
            ranks = {r: self.grid.coordinate(parts, many, at) for r, parts in dim.leaves.items()}
            index += self.tensors.index([dim.index], ranks, many)
        return self.tensors.elements(tensor, index)

    def put(self, a: int, steps: Mapping[str, int], where: Where) -> None:
        for held in self.by_writer.get(a, ()):
            held.put(steps, where)
            share = held.buffer.share
            for other in (t for tiles in self.held.values() for t in tiles if share and t.buffer.share == share):
                alike = self.cascade.full_ranks(other.buffer.tensor) == self.cascade.full_ranks(held.buffer.tensor)
                if alike and other.buffer.level == held.buffer.level and other.buffer.tensor != held.buffer.tensor:
                    other.replaced(where)

    def ended_together(self, inside: Inside, a: int, steps: dict[str, int]) -> None:
        """Einsums that need each other step by step in their tasks: computed when the last of these tasks is done."""
        actors = [x for x in self.tasks.actors if x.unit >= 0 and x.name in inside.members]
        common = [x for x in actors[0].loops if all(x in y.loops for y in actors)]
        key = inside, tuple(steps[x] for x in common)
        done = self.ended_inside.setdefault(key, [])
        done.append((a, steps))
        if len(done) < sum(x.firings for x in actors) // int(np.prod([self.sizes[x] for x in common])):
            return
        made: dict[str, list[Where]] = {n: [] for n in inside.members}
        self.step((inside.loop,), {x: steps[x] for x in common}, made)
        for b, of_task in self.ended_inside.pop(key):
            parts = made[self.tasks.actors[b].name]
            self.put(b, of_task, tuple(np.concatenate(axis) for axis in zip(*parts, strict=True)))

    def step(self, items: Sequence[Plan], steps: dict[str, int], made: dict[str, list[Where]]) -> None:
        for item in items:
            if isinstance(item, Compute):
                name = main(self.cascade, item.equation)
                if name in made:
                    self.value(self.world.main[name], steps, lambda x: x in made)
                    made[name].append(self.compute(name, steps))
                continue
            leaves = [x for x in self.plan.group.leaves(item.rank, self.cascade) if x not in steps]
            for at in product(*(range(self.sizes[x]) for x in leaves)):
                self.step(item.body, {**steps, **dict(zip(leaves, at, strict=True))}, made)

    # Values

    def compute(self, name: str, steps: Mapping[str, int]) -> Where:
        """Run a task's points; the elements that it writes."""
        einsum = self.world.main[name]
        ranks, data, there = self.value(einsum, steps)
        index = self.tensors.index(einsum.target.indices, ranks, len(data))
        where, exist = self.tensors.inside(name, index)
        exist = np.broadcast_to(exist, data.shape)
        live = exist & there
        values, touched, counted = self.tensors.values[name], self.touched[name], self.counted[name]
        places = tuple(i[live] for i in where)
        if reduced_ranks(einsum):
            op = reduction_op(einsum)
            fold, identity = _FOLDS[op]
            new = exist & ~np.broadcast_to(touched[where], exist.shape)
            values[tuple(i[new] for i in where)] = identity
            if op == "mean":  # of the points so far
                values *= np.maximum(counted, 1)
                np.add.at(counted, places, 1)
            fold.at(values, places, data[live] != 0 if op in ("any", "all") else data[live])
            if op == "mean":
                values /= np.maximum(counted, 1)
        else:
            values[places] = data[live]
        written = tuple(i[exist] for i in where)
        touched[written] = True
        if name not in self.stored_later:
            self.home[name][written] = True
        return self.tensors.elements(name, index)

    def value(self, einsum: Einsum, steps: Mapping[str, int], checked: Callable[[str], bool] | None = None):
        """Ranks at the points of a task, the value of the body at each, and at which there is one. Reads of tensors
        that are ``checked`` must find what they read."""
        group, cascade = self.plan.group, self.cascade
        many, at = self.grid.points(self.plan.einsums[einsum.name].leaves, steps)
        every = [*iteration_ranks(einsum), *(r for r in cascade.split if set(cascade.split[r]) <= set(at))]
        ranks = {r: self.grid.coordinate(group.leaves(r, cascade), many, at) for r in every}
        there = np.ones(many, bool)
        for rank in iteration_ranks(einsum):
            there = there & (ranks[rank] < self.world.extents[rank])
        name = einsum.name

        def check(access: Access, where: Where) -> None:
            if checked and checked(access.tensor):
                who = f"{name} at {', '.join(f'{x} = {n}' for x, n in steps.items()) or 'its only task'}"
                self.check(who, access.tensor, self.level(name, access), where)

        reader = Reader(self.tensors, ranks, many, check if checked else None, there)
        if einsum.where is not None:
            held, known = reader.eval(einsum.where)
            there = there & known & held.astype(bool)
        reader.needed = there
        data, known = reader.eval(einsum.body)
        return ranks, np.broadcast_to(data, there.shape).astype(np.float64), there & known


def _sink(actor: Actor) -> str:
    return next((level for level, write, _ in actor.flows if write), "")


__all__ = ["execute"]
