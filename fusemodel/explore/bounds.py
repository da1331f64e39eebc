"""What no mapping of some Einsums as one group goes below: work, compulsory traffic, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod

import numpy as np

from fusemodel.analysis.graph import Dependence
from fusemodel.arch.spec import find_op
from fusemodel.cascade.ir import RankValue, reads
from fusemodel.cascade.work import work_of
from fusemodel.explore.frame import Frame, Scene, least_cycles
from fusemodel.explore.front import front

_MOST = 5000  # partial assignments; beyond them work is taken to be shared out evenly


@dataclass(frozen=True)
class Bounds:
    """Lower bounds for groups of a cascade."""

    scene: Scene

    @cached_property
    def found(self) -> Dependence:
        return Dependence(self.scene.cascade, dict(self.scene.extents))

    @cached_property
    def points(self) -> dict[str, int]:
        """Points of each Einsum that are present."""
        found = self.found
        return {n: found.count(n)[0] if n in found.points else 0 for n in self.scene.einsums}

    def full(self, name: str) -> bool:
        """Whether every point of an Einsum is present."""
        return self.points[name] == prod(self.scene.extents[x] for x in self.scene.leaves[name])

    def whole(self, name: str) -> bool:
        """Whether every point of an Einsum is present but what is past the end of a rank that the cascade splits."""
        extents, leaves = self.scene.extents, self.scene.leaves[name]
        there = prod(extents[x] for x in leaves)
        for rank, (outer, inner) in self.scene.cascade.split.items():
            if outer in leaves and inner in leaves:
                there = there // (extents[outer] * extents[inner]) * extents[rank]
        return self.points[name] == there

    @cached_property
    def slots(self) -> dict[str, dict[str, float]]:
        """Cycles of each Einsum on each unit that can compute it, all of the unit being filled."""
        found: dict[str, dict[str, float]] = {}
        for name, einsum in self.scene.einsums.items():
            found[name] = {}
            for u, unit in self.scene.arch.units.items():
                cycles = least_cycles(unit, einsum)
                if cycles is not None:
                    found[name][u] = self.points[name] * cycles / unit.size
        return found

    @cached_property
    def energy(self) -> dict[str, float]:
        """Least pJ of the operations of each Einsum."""
        found = {}
        for name, einsum in self.scene.einsums.items():
            work = work_of(einsum)
            each = []
            for unit in self.scene.arch.units.values():
                ops = [find_op(unit, o) for o in work.per_point]
                if all(ops):
                    each.append(sum(o.energy_pj for o in ops if o))
            found[name] = 0.0 if work.per_point == ("copy",) else self.points[name] * min(each, default=0.0)
        return found

    @cached_property
    def words(self) -> dict[str, int]:
        """Words of each tensor that whoever needs it from the outermost level reads or writes at least."""
        scene, found = self.scene, {}
        for t in (*scene.cascade.inputs, *scene.einsums):
            readers = [(n, a) for n, e in scene.einsums.items() for a in reads(e) if a.tensor == t and n != t]
            ranks, iterative = scene.cascade.full_ranks(t), scene.cascade.tensors[t].iterative
            plain = all(
                isinstance(i, RankValue) or r in iterative
                for _, a in readers for r, i in zip(ranks, a.indices, strict=True)
            )  # fmt: skip
            if plain and all(self.full(n) for n, _ in readers) and (t not in scene.einsums or self.full(t)):
                found[t] = prod(scene.extents[r] for r in ranks if r not in iterative)
            elif t in self.found.live and (
                (t in scene.cascade.inputs and len(readers) == 1) or (t in scene.cascade.outputs and not readers)
            ):
                found[t] = self.found.touched(t)[0]
            else:
                found[t] = 0
        return found

    @cached_property
    def busy(self) -> dict[tuple[str, ...], float]:
        return {}

    def busiest(self, members: tuple[str, ...]) -> float:
        """When the busiest unit is done at least."""
        if members not in self.busy:
            self.busy[members] = assigned([self.slots[n] for n in members], list(self.scene.arch.units))
        return self.busy[members]

    def learn(self, other: Bounds | None) -> None:
        """Take what memories do not change from the bounds on another machine."""
        if other is not None:
            self.__dict__.update({n: v for n, v in vars(other).items() if n != "scene"})

    def traffic(self, members: Sequence[str]) -> tuple[int, int]:
        """Words that a group reads and writes at the outermost level at least."""
        inside = set(members)
        einsums = self.scene.einsums
        read = {a.tensor for n in members for a in reads(einsums[n])} - inside
        outside = {a.tensor for n, e in einsums.items() if n not in inside for a in reads(e)}
        written = inside & (outside | set(self.scene.cascade.outputs))
        return sum(self.words[t] for t in read), sum(self.words[t] for t in written)

    @cached_property
    def largest(self) -> float:
        """Words that the largest level on chip has room for, or the registers of all units."""
        arch = self.scene.arch
        levels = [lv.size_bytes for n, lv in arch.levels.items() if n != arch.outermost]
        held = [u.size * u.registers.words if u.registers else inf for u in arch.units.values()]
        return max(sum(held), *(inf if size is None else size / arch.word_bytes for size in levels), 0.0)

    def passing(self, frame: Frame, later: frozenset[str]) -> tuple[float, float]:
        """Words read and written at the outermost level, beside those that a group has to, since what passes from one
        nest to another, or is read by several, has tiles that no other level has room for. A part of a tile that is
        made here may stay (spill)."""
        scene, read, written = self.scene, 0.0, 0.0
        users: dict[str, set[int]] = {}
        for i, nest in enumerate(frame.nests):
            for t in {t for n in nest for t in scene.used(n)}:
                users.setdefault(t, set()).add(i)
        for t, nests in users.items():
            leaves = scene.tensor_leaves(t)
            tile = prod(frame.least(x, scene.extents[x]) for x in leaves)
            for rank, (outer, inner) in scene.cascade.split.items():
                if outer in leaves and inner in leaves:  # the last tile may be smaller
                    tile = min(tile, tile * scene.extents[rank] / (scene.extents[outer] * scene.extents[inner]))
            if len(nests) < 2 or tile <= self.largest or scene.cascade.tensors[t].iterative:
                continue
            if t not in frame.members:
                read += (len(nests) - 1) * self.words[t]
                continue
            out = (1 - self.largest / tile) * self.words[t]
            read += (len(nests) - 1) * out
            written += out if t not in later and t not in scene.cascade.outputs else 0.0
        return read, written

    def metrics(
        self, members: Sequence[str], cycles: float | None = None, more: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[float, ...]:
        """A lower bound of a group's metrics (:data:`fusemodel.explore.goal.METRICS`); ``cycles`` that its busiest unit
        takes at least, where more is known, and ``more`` words read and written."""
        arch = self.scene.arch
        level = arch.levels[arch.outermost]
        read, write = (x + y for x, y in zip(self.traffic(members), more, strict=True))
        cycles = self.busiest(tuple(members)) if cycles is None else cycles
        if level.bandwidth_bytes_per_s:
            cycles = max(cycles, (read + write) * arch.word_bytes / level.bandwidth_bytes_per_s * arch.clock_hz)
        energy = sum(self.energy[n] for n in members)
        energy += (read * level.read_pj + write * level.write_pj) * arch.word_bytes / level.access_bytes
        return 0.0, cycles, float(read + write), energy, 0.0


def assigned(times: Sequence[Mapping[str, float]], units: Sequence[str]) -> float:
    """When the busiest unit is done if every task runs on one unit, at best: exact, or with the work shared out evenly
    where there are too many ways. Infinite if a task runs on none."""
    if any(not t for t in times):
        return float("inf")
    even = max(
        sum(min(t.values()) for t in times if set(t) <= set(some)) / len(some)
        for some in [units, *({u} for u in units)]
    )  # fmt: skip
    order = sorted(times, key=lambda t: -min(t.values()))
    loads = dict.fromkeys(units, 0.0)
    for t in order:
        unit = min(t, key=lambda u: max(loads[u] + t[u], *loads.values()))
        loads[unit] += t[unit]
    latest = max(loads.values())
    states = np.zeros((1, len(units)))
    for t in order:
        grown = []
        for u, cycles in t.items():
            after = states.copy()
            after[:, units.index(u)] += cycles
            grown.append(after)
        states = np.concatenate(grown)
        states = states[states.max(axis=1) <= latest * (1 + 1e-12)]
        states = states[front(states)]
        if len(states) > _MOST:
            return even
    return float(states.max(axis=1).min())
