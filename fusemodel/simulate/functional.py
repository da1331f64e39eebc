"""The functional mode: tasks move and compute real numbers, through buffers of the declared size.

Tasks run in the order of the plain event engine. A tile is at a level from the end of the transfer (or of the task)
that puts it there until as many others have taken its place as there is room for. A task that reads what is not there
yet, or not any more, ends the run with a message; so does a buffer that holds more than it has room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    iteration_ranks,
    reduced_ranks,
    reduction_op,
)
from fusemodel.cascade.workload import Workload
from fusemodel.errors import InputError
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.spec import Design
from fusemodel.model.evaluate import choices
from fusemodel.model.frame import settled
from fusemodel.model.plan import Plan, Tile, dims_of
from fusemodel.model.tiles import Chosen
from fusemodel.numerics import random_inputs
from fusemodel.numerics import run as interpret
from fusemodel.numerics.operators import apply
from fusemodel.simulate.lower import lower
from fusemodel.simulate.machine import machine_of
from fusemodel.simulate.stepwise import Stepwise, Task
from fusemodel.simulate.tasks import Buffer, Tasks, steps_of

Array = NDArray[Any]
Where = tuple[Array, ...]

_FOLDS: dict[str, tuple[Any, float]] = {
    "sum": (np.add, 0.0), "max": (np.maximum, -np.inf), "min": (np.minimum, np.inf), "prod": (np.multiply, 1.0),
    "mean": (np.add, 0.0),
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

    ``inputs`` are random (from ``seed``) where not given. InputError says which task reads what is not there, and what
    of a cascade this mode does not run (selections, scatters and reductions but sum, mean, max, min and prod).
    """
    extents, chosen = choices(design, workload, seq, sets)
    given = random_inputs(design.cascade, extents, seed=seed) if inputs is None else dict(inputs)
    world = _World(design.cascade, extents, given)
    for c in chosen:
        _Group(world, c, asap=schedule == "asap").run()
    return {n: np.where(world.present[n], world.values[n], np.nan) for n in design.cascade.outputs}


class _World:
    """Values of every tensor, and which elements a run of the cascade makes. Starts of recurrences are there at
    once."""

    def __init__(self, cascade: Cascade, extents: Mapping[str, int], inputs: Mapping[str, Any]) -> None:
        self.cascade, self.extents = cascade, extents
        self.main = main_einsums(cascade)
        for einsum in self.main.values():
            simple = all(isinstance(i, RankValue | Apply) for i in einsum.target.indices)
            if einsum.selection or not simple or (reduced_ranks(einsum) and reduction_op(einsum) not in _FOLDS):
                raise InputError(
                    f"the functional mode does not run {einsum.name!r}", einsum.at,
                    expected="elementwise operators, and sums, means, maxima, minima and products",
                )  # fmt: skip
        truth = interpret(cascade, inputs, extents)
        self.values: dict[str, Array] = {}
        self.present: dict[str, Array] = {}
        self.made: dict[str, Array] = {}
        for name, values in truth.tensors.items():
            if name in cascade.shapes and cascade.full_ranks(name) != cascade.declared_ranks(name):
                raise InputError(f"the functional mode does not run cascades that declare {name!r} in other ranks")
            there = np.broadcast_to(truth.present.get(name, np.True_), values.shape)
            self.present[name] = there
            if name in cascade.inputs:
                self.values[name], self.made[name] = values, np.ones(values.shape, bool)
                continue
            started = np.zeros(values.shape, bool)
            for d, rank in enumerate(cascade.full_ranks(name)):
                if rank in cascade.tensors[name].iterative:
                    started[(slice(None),) * d + (0,)] = True
            self.values[name] = np.where(started, values, np.nan).astype(np.float64)
            self.made[name] = started


@dataclass
class _Tile:
    """Elements at a level: those that the last so many firings of its writer put there. Of a state, the value before a
    step and the one after it, in every place."""

    buffer: Buffer
    count: NDArray[np.int64]
    versions: int = 0
    pieces: deque[Where] = field(default_factory=deque)

    @property
    def room(self) -> int:
        return self.versions * self.buffer.places if self.versions else self.buffer.pieces

    def put(self, where: Where) -> None:
        if len(self.pieces) >= self.room:
            self.drop()
        self.pieces.append(where)
        np.add.at(self.count, where, 1)
        held = int((self.count > 0).sum())
        if held > self.buffer.room_words * max(1, self.versions) * (1 + 1e-9) + 1e-9:
            raise InputError(f"{self.buffer.tile} holds {held} words in room for {self.buffer.room_words:.0f}")

    def drop(self) -> None:
        np.subtract.at(self.count, self.pieces.popleft(), 1)


class _Group:
    def __init__(self, world: _World, chosen: Chosen, *, asap: bool) -> None:
        self.world, self.plan = world, settled(chosen.plan)
        self.sizes = chosen.sizes
        self.machine = machine_of(lower(chosen, world.extents, asap=asap))
        self.tasks: Tasks = self.machine.tasks
        self.levels = list(self.plan.arch.levels)
        self.tiles: dict[tuple[str, str], list[_Tile]] = {}
        self.by_writer: dict[int, list[_Tile]] = {}
        for b in self.tasks.buffers:
            state = 2 if world.cascade.tensors[b.tensor].iterative else 0
            tile = _Tile(b, np.zeros(world.values[b.tensor].shape, np.int64), state)
            self.tiles.setdefault((b.tensor, b.level), []).append(tile)
            self.by_writer.setdefault(b.writer, []).append(tile)
        out = {a.tensor for a in self.tasks.actors if a.kind == "store" and self._sink(a.flows) == self.levels[0]}
        self.stored_later = out & set(self.plan.einsums)
        #: What is at home, or on its way there: in the outermost level.
        self.home = {n: m if n not in self.plan.einsums else m.copy() for n, m in world.made.items()}
        self.points = {n: np.zeros(world.values[n].shape, np.int64) for n in self.plan.einsums}  # for means
        self.touched = {n: np.zeros(world.values[n].shape, bool) for n in self.plan.einsums}

    @staticmethod
    def _sink(flows: Sequence[tuple[str, bool, float]]) -> str:
        return next((level for level, write, _ in flows if write), "")

    def run(self) -> None:
        with np.errstate(all="ignore"):
            Stepwise(self.machine, self.started, self.ended, peaks=False).run()
        for name in self.plan.einsums:
            self.world.made[name] = self.world.made[name] | self.touched[name]

    # Elements

    def counters(self, actor: int, firing: int) -> dict[str, int]:
        a = self.tasks.actors[actor]
        return dict(zip(a.loops, steps_of(firing, a.sizes), strict=True))

    def elements(self, tensor: str, tile: Tile, counters: Mapping[str, int]) -> Where:
        """The present elements of a tensor that an access touches at some steps."""
        leaves = dict.fromkeys(x for d in tile.dims for x in d.all_leaves)
        at = self.grid(tuple(leaves), counters)
        index = []
        for dim in tile.dims:
            ranks = {r: self.coordinate(parts, at) for r, parts in dim.leaves.items()}
            index.append(np.broadcast_to(np.asarray(self.plain(dim.index, ranks)), at["#"].shape))
        return self.present_at(tensor, index)

    def grid(self, leaves: Sequence[str], counters: Mapping[str, int]) -> dict[str, Array]:
        """Coordinates of leaves at every point of some steps, in one long axis (its length is that of ``#``)."""
        shape = [1 if x in counters else self.sizes[x] for x in leaves]
        axes = np.indices(shape).reshape(len(shape), -1)
        at = {x: axes[i] + counters.get(x, 0) for i, x in enumerate(leaves)}
        return {**at, "#": np.zeros(int(np.prod(shape)), np.int64)}

    def coordinate(self, parts: Sequence[str], at: Mapping[str, Array]) -> Array:
        value: Array = np.zeros_like(at["#"])
        for leaf in parts:
            value = value * self.sizes[leaf] + at[leaf]
        return value

    def plain(self, expr: Expr, ranks: Mapping[str, Array]) -> Array:
        """An index that reads no tensor."""
        match expr:
            case Number(value):
                return np.asarray(value)
            case Extent(rank):
                return np.asarray(self.world.extents[rank])
            case RankValue(rank):
                return ranks[rank]
            case Apply(op, args):
                return np.asarray(apply(op, [self.plain(a, ranks) for a in args], np.float64))
        raise InputError("the functional mode does not run indices that are read from tensors")

    def present_at(self, tensor: str, index: Sequence[Array]) -> Where:
        shape = self.world.values[tensor].shape
        inside = np.ones(index[0].shape if index else (1,), bool)
        for i, n in zip(index, shape, strict=True):
            inside &= (i >= 0) & (i < n)
        where = tuple(np.asarray(i)[inside].astype(np.int64) for i in index)
        there = self.world.present[tensor][where] if where else np.ones(1, bool)
        flat = (
            np.unique(np.ravel_multi_index(tuple(w[there] for w in where), shape)) if where else np.zeros(1, np.int64)
        )
        return tuple(np.unravel_index(flat, shape)) if shape else ()

    # What is where

    def there(self, tensor: str, level: str) -> Array:
        """Which elements are at a level (``""``: in registers), or where it has them from."""
        if tensor in self.plan.einsums and level == "" and not self.tiles.get((tensor, "")):
            return self.touched[tensor] | self.world.made[tensor]
        for at in [level] if level == "" else reversed(self.levels[: self.levels.index(level) + 1]):
            if tiles := self.tiles.get((tensor, at)):
                found = np.any([t.count > 0 for t in tiles], axis=0)
                return found | self.started_state(tensor)
        return self.home[tensor]

    def started_state(self, tensor: str) -> Array:
        iterative = self.world.cascade.tensors[tensor].iterative
        return self.world.made[tensor] if iterative else np.zeros(1, bool)

    def check(self, who: str, tensor: str, level: str, where: Where) -> None:
        there = np.broadcast_to(self.there(tensor, level), self.world.values[tensor].shape)
        missing = ~there[where]
        if np.any(missing):
            at = [int(np.atleast_1d(w)[np.atleast_1d(missing)][0]) for w in where]
            place = level or "registers"
            made = tensor in self.world.cascade.inputs or bool(
                np.atleast_1d(self.touched.get(tensor, self.world.made[tensor])[tuple(at)])[0]
            )
            why = "it has been replaced" if made else "it has not been written"
            raise InputError(f"{who} reads {tensor}[{', '.join(map(str, at))}] from {place}, where {why}")

    # Tasks

    def started(self, task: Task) -> None:
        actor = self.tasks.actors[task.actor]
        if actor.unit >= 0:
            self.operands(actor.name, self.counters(task.actor, task.firing))
        for tile in self.by_writer.get(task.actor, ()):
            if actor.kind == "load" and len(tile.pieces) >= tile.room:
                tile.drop()  # it is overwritten from now on

    def ended(self, a: int, firing: int) -> None:
        actor = self.tasks.actors[a]
        counters = self.counters(a, firing)
        if actor.unit >= 0:
            where = self.compute(actor.name, counters)
        else:
            parts = [self.elements(actor.tensor, t, counters) for t in actor.tiles]
            where = tuple(np.concatenate(axis) for axis in zip(*parts, strict=True)) if parts else ()
            if actor.kind == "store" and self._sink(actor.flows) == self.levels[0]:
                self.home[actor.tensor][where] = True
        for tile in self.by_writer.get(a, ()):
            tile.put(where)

    def operands(self, name: str, counters: Mapping[str, int]) -> None:
        """Everything a task reads is where it reads it from."""
        self.value(self.world.main[name], counters, check=True)

    def compute(self, name: str, counters: Mapping[str, int]) -> Where:
        """Run a task's points; the elements that it writes."""
        einsum = self.world.main[name]
        at, data, there = self.value(einsum, counters, check=False)
        ranks = self.ranks(einsum, at)
        index = tuple(
            np.broadcast_to(np.asarray(self.plain(i, ranks)), at["#"].shape).astype(np.int64)
            for i in einsum.target.indices
        )
        values, touched = self.world.values[name], self.touched[name]
        exist = np.broadcast_to(self.world.present[name][index], at["#"].shape)
        op = reduction_op(einsum) if reduced_ranks(einsum) else ""
        if op:
            fold, identity = _FOLDS[op]
            new = exist & ~np.broadcast_to(touched[index], exist.shape)
            values[tuple(i[new] for i in index)] = identity
            live = exist & there
            places = tuple(i[live] for i in index)
            points = self.points[name]
            if op == "mean":  # of the points so far
                values *= np.maximum(points, 1)
                np.add.at(points, places, 1)
            fold.at(values, places, data[live])
            if op == "mean":
                values /= np.maximum(points, 1)
        else:
            live = exist & there
            values[tuple(i[live] for i in index)] = data[live]
        written = tuple(i[exist] for i in index)
        touched[written] = True
        if name not in self.stored_later:
            self.home[name][written] = True
        return self.present_at(name, index)

    def ranks(self, einsum: Einsum, at: Mapping[str, Array]) -> dict[str, Array]:
        group, cascade = self.plan.group, self.world.cascade
        every = [*iteration_ranks(einsum), *(r for r in cascade.split if set(cascade.split[r]) <= set(at))]
        return {r: self.coordinate(group.leaves(r, cascade), at) for r in every}

    def value(self, einsum: Einsum, counters: Mapping[str, int], *, check: bool):
        """Points of a task, the value of the body at each, and at which there is one."""
        plan = self.plan.einsums[einsum.name]
        at = self.grid(plan.leaves, counters)
        ranks = self.ranks(einsum, at)
        there = np.ones(at["#"].shape, bool)
        for rank in iteration_ranks(einsum):
            there = there & (ranks[rank] < self.world.extents[rank])
        who = f"{einsum.name} at {', '.join(f'{x} = {n}' for x, n in counters.items()) or 'its only task'}"
        reader = _Reader(self, einsum.name, ranks, at["#"].shape, who, check)
        if einsum.where is not None:
            held, known = reader.eval(einsum.where)
            there = there & known & held.astype(bool)
        reader.needed = there
        data, known = reader.eval(einsum.body)
        return at, np.broadcast_to(data, there.shape).astype(np.float64), there & known


@dataclass
class _Reader:
    """Evaluates expressions at the points of a task, and checks that what they read is there."""

    group: _Group
    name: str
    ranks: Mapping[str, Array]
    shape: tuple[int, ...]
    who: str
    check: bool
    needed: Array | None = None

    def eval(self, expr: Expr) -> tuple[Array, Array]:
        match expr:
            case Number() | Extent() | RankValue():
                return np.broadcast_to(self.group.plain(expr, self.ranks), self.shape), np.ones(self.shape, bool)
            case Access():
                return self.read(expr)
            case Apply("coalesce", args):
                parts = [self.eval(a) for a in args]
                data, there = parts[-1]
                for value, known in reversed(parts[:-1]):
                    data, there = np.where(known, value, data), known | there
                return data, there
            case Apply(op, args):
                parts = [self.eval(a) for a in args]
                known = np.ones(self.shape, bool)
                for _, part in parts:
                    known = known & part
                return np.asarray(apply(op, [np.asarray(d) for d, _ in parts], np.float64)), known
        raise TypeError(expr)

    def read(self, access: Access) -> tuple[Array, Array]:
        group, tensor = self.group, access.tensor
        index = [np.broadcast_to(np.asarray(group.plain(i, self.ranks)), self.shape) for i in access.indices]
        shape = group.world.values[tensor].shape
        inside = np.ones(self.shape, bool)
        for i, n in zip(index, shape, strict=True):
            inside &= (i >= 0) & (i < n)
        where = tuple(np.clip(i, 0, n - 1).astype(np.int64) for i, n in zip(index, shape, strict=True))
        there = inside & np.broadcast_to(group.world.present[tensor][where], self.shape)
        if self.check:
            used = there if self.needed is None else there & self.needed
            group.check(self.who, tensor, self.level(access), tuple(w[used] for w in where))
        return np.broadcast_to(group.world.values[tensor][where], self.shape), there

    def level(self, access: Access) -> str:
        """Where an Einsum reads an access from; registers (``""``) if it is kept nowhere."""
        plan: Plan = self.group.plan
        dims = tuple(d.index for d in dims_of(access, plan.group, plan.cascade))
        found = [m for m in plan.moves if m.key[0] == access.tensor and m.key[3:] == ("read", self.name)]
        exact = [m for m in found if tuple(d.index for d in m.tile.dims) == dims] or found
        return str(exact[0].source) if exact else ""


__all__ = ["execute"]
