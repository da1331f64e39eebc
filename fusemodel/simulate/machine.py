"""Tasks as whole numbers: times in ticks, a small fraction of a cycle, so that equal states are equal to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from fusemodel.simulate.tasks import Actor, Tasks

Ints = NDArray[np.int64]

#: Ticks of a cycle, a power of two: as many as a run may take without leaving 63 bits, up to this many.
MAX_SHIFT = 16


@dataclass(frozen=True)
class Machine:
    """``unit_ticks[a]`` has the ticks of an Einsum's firing by class, ``level_ticks[a][l]`` those of a transfer at a
    level (None where it does not pass); ``drain_ticks`` of each actor."""

    tasks: Tasks
    ticks_per_cycle: int
    unit_ticks: tuple[Ints, ...]
    level_ticks: tuple[tuple[Ints | None, ...], ...]
    drain_ticks: tuple[int, ...]

    def cycles(self, ticks: float) -> float:
        return ticks / self.ticks_per_cycle


def machine_of(tasks: Tasks) -> Machine:
    """Times rounded up to ticks, so that nothing is faster than it is."""
    most = sum(_longest(tasks, a) * a.firings for a in tasks.actors) + 1.0
    scale = 2 ** max(0, min(MAX_SHIFT, int(58 - log2(most))))

    def ticks(values: NDArray[np.float64]) -> Ints:
        return np.ceil(values.reshape(-1) * scale - 1e-6).astype(np.int64)

    unit_ticks, level_ticks, drains = [], [], []
    for a in tasks.actors:
        unit_ticks.append(ticks(a.amount.values) if a.unit >= 0 else np.zeros(a.amount.values.size, dtype=np.int64))
        level_ticks.append(
            tuple(
                ticks(a.amount.values * a.shares[level] * per) if level in a.shares and a.unit < 0 else None
                for level, per in zip(tasks.levels, tasks.cycles_per_word, strict=True)
            )
        )
        drains.append(ceil(a.drain * scale))
    return Machine(tasks, scale, tuple(unit_ticks), tuple(level_ticks), tuple(drains))


def _longest(tasks: Tasks, actor: Actor) -> float:
    most = float(actor.amount.values.max())
    if actor.unit >= 0:
        return most + actor.drain
    return most * sum(
        actor.shares.get(x, 0.0) * per for x, per in zip(tasks.levels, tasks.cycles_per_word, strict=True)
    )


@dataclass
class Counts:
    """What a run has counted, in ticks. ``fired[a]`` has the firings of an actor by class, ``busy`` the ticks of
    each unit, ``stalls[a, r]`` the ticks that the unit of an Einsum ``a`` waited before (or, for bandwidth, in) its
    tasks for reason ``r``; the last row is what is left of each unit when it has finished: see ``after``.
    ``peak[b]`` is the most pieces that buffer ``b`` held. ``timeline`` has times and the busy ticks of each unit
    until then."""

    ticks: int
    fired: tuple[Ints, ...]
    busy: Ints
    stalls: Ints
    after: Ints
    peak: Ints
    timeline: Ints
    simulated: int
    skipped: int


@dataclass(frozen=True)
class Blocked:
    """An actor that cannot go on: which firing, and what it waits for."""

    actor: int
    firing: int
    edge: int


class Deadlock(Exception):
    """Nothing can go on: ``blocked`` says what waits for what at ``ticks``."""

    def __init__(self, ticks: int, blocked: tuple[Blocked, ...]) -> None:
        super().__init__("deadlock")
        self.ticks, self.blocked = ticks, blocked
