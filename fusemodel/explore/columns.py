"""What the choices of a frame add up to, as columns of numbers: counts, which no price or size of a memory changes, and
from them costs on one machine.

Machines that differ in nothing but the sizes, bandwidths and energies of their memories share the counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.explore.frame import Option
from fusemodel.explore.front import Floats


@dataclass(frozen=True)
class Place:
    """Where a tensor is kept: levels with the shared loop a tile lives under, and a level with a loop of one nest."""

    shared: tuple[tuple[str, str], ...] = ()
    own: tuple[str, str, int] | None = None


@dataclass
class OptionCost:
    """An option of a nest. ``base``: columns that depend on nothing else; ``words``: what is read and written for each
    tensor at the level that serves it, as (tensor, whether made here, read, written); ``tiles``: columns of a tile
    at a level under an own loop, by the level that it is brought from and written back to."""

    option: Option
    base: Floats
    words: list[tuple[str, bool, Floats, Floats]]
    tiles: dict[tuple[str, str, str, str], Floats] = field(default_factory=dict)


@dataclass
class TensorCost:
    """The places of a tensor and their columns (place, column, combination); infinite where not legal."""

    places: list[Place]
    columns: Floats


@dataclass(frozen=True)
class Counts:
    """The columns that depend on units alone: what registers cannot hold, cycles of each unit in each of ``lines`` of
    the schedule and of each recurrence, words read and then written at each level, energy of operations, space at each
    level, and words that registers hold of what is kept nowhere."""

    arch: Architecture
    recurrences: int
    lines: int = 1

    @cached_property
    def units(self) -> list[tuple[int, str]]:
        return [(line, u) for line in range(self.lines) for u in self.arch.units]

    @cached_property
    def levels(self) -> list[str]:
        return list(self.arch.levels)

    @cached_property
    def busy(self) -> slice:
        return slice(1, 1 + len(self.units))

    @cached_property
    def waits(self) -> slice:
        return slice(self.busy.stop, self.busy.stop + self.recurrences)

    @cached_property
    def read(self) -> slice:
        return slice(self.waits.stop, self.waits.stop + len(self.levels))

    @cached_property
    def written(self) -> slice:
        return slice(self.read.stop, self.read.stop + len(self.levels))

    @cached_property
    def energy(self) -> int:
        return self.written.stop

    @cached_property
    def space(self) -> slice:
        return slice(self.energy + 1, self.energy + 1 + len(self.levels))

    @property
    def held(self) -> int:
        return self.space.stop

    @property
    def count(self) -> int:
        return self.held + 1

    def nothing(self, length: int) -> Floats:
        return np.zeros((self.count, length))

    def from_level(self, counts: Floats, level: str) -> Floats:
        """Counts in which a level takes the place of the outermost one."""
        k = self.levels.index(level)
        if not k:
            return counts
        found = counts.copy()
        for part in (self.read, self.written):
            found[part.start + k] += found[part.start]
            found[part.start] = 0.0
        return found

    def move(self, into: Floats, level: str, read: Any, write: Any) -> None:
        """Add words read and written at a level."""
        k = self.levels.index(level)
        into[self.read.start + k] += read
        into[self.written.start + k] += write


@dataclass(frozen=True)
class Columns:
    """The columns of one machine: what registers cannot hold, cycles of units and of recurrences, words at each level
    with a bandwidth and at the outermost one, energy, space at each level with a size, and words in registers."""

    arch: Architecture
    counts: Counts

    @cached_property
    def timed(self) -> list[str]:
        return [n for n, lv in self.arch.levels.items() if lv.bandwidth_bytes_per_s]

    @cached_property
    def sized(self) -> list[str]:
        return [n for n, lv in self.arch.levels.items() if lv.size_bytes is not None]

    @property
    def lines(self) -> int:
        return self.counts.lines

    @cached_property
    def busy(self) -> slice:
        return self.counts.busy

    @cached_property
    def waits(self) -> slice:
        return self.counts.waits

    @cached_property
    def words(self) -> slice:
        return slice(self.waits.stop, self.waits.stop + len(self.timed))

    @cached_property
    def out(self) -> int:
        return self.words.stop

    @cached_property
    def energy(self) -> int:
        return self.out + 1

    @cached_property
    def space(self) -> slice:
        """The levels with a size, and last what registers hold."""
        return slice(self.energy + 1, self.energy + 2 + len(self.sized))

    @property
    def held(self) -> int:
        return self.space.stop - 1

    @property
    def count(self) -> int:
        return self.space.stop

    @cached_property
    def prices(self) -> tuple[Floats, Floats]:
        """pJ of a word read and of one written, at each level."""
        arch = self.arch
        each = [(lv.read_pj, lv.write_pj, arch.word_bytes / lv.access_bytes) for lv in arch.levels.values()]
        return np.array([r * n for r, _, n in each]), np.array([w * n for _, w, n in each])

    @cached_property
    def of_level(self) -> dict[str, tuple[int | None, bool, float, float]]:
        reads, writes = self.prices
        return {
            n: (self.words.start + self.timed.index(n) if n in self.timed else None, n == self.arch.outermost, r, w)
            for n, r, w in zip(self.arch.levels, map(float, reads), map(float, writes), strict=True)
        }

    def nothing(self, length: int) -> Floats:
        return np.zeros((self.count, length))

    def move(self, into: Floats, level: str, read: Any, write: Any) -> None:
        """Add words read and written at a level."""
        timed, out, per_read, per_write = self.of_level[level]
        if timed is not None:
            into[timed] += read + write
        if out:
            into[self.out] += read + write
        into[self.energy] += read * per_read + write * per_write

    def of(self, counted: Floats) -> Floats:
        """Costs here of counts (..., column, combination)."""
        c = self.counts
        found = np.empty((*counted.shape[:-2], self.count, counted.shape[-1]))
        found[..., : self.words.start, :] = counted[..., : c.read.start, :]
        read, written = counted[..., c.read, :], counted[..., c.written, :]
        moved = read + written
        for k, level in enumerate(self.timed):
            found[..., self.words.start + k, :] = moved[..., c.levels.index(level), :]
        found[..., self.out, :] = moved[..., c.levels.index(self.arch.outermost), :]
        reads, writes = self.prices
        barred = np.isinf(moved)
        energy = np.where(barred, 0.0, read) * reads[:, None] + np.where(barred, 0.0, written) * writes[:, None]
        found[..., self.energy, :] = counted[..., c.energy, :] + energy.sum(axis=-2)
        found[..., self.energy, :][barred.any(axis=-2)] = np.inf
        for k, level in enumerate(self.sized):
            found[..., self.space.start + k, :] = counted[..., c.space.start + c.levels.index(level), :]
        found[..., self.held, :] = counted[..., c.held, :]
        return found


@dataclass(frozen=True)
class Costs:
    """All choices of a frame with its shared loops in one order, every combination of middle tiles at once.
    ``evaluated`` plans they come from; ``steps`` of the shared loops."""

    columns: Counts
    options: list[list[OptionCost]]
    tensors: dict[str, TensorCost]
    sizes: dict[str, Any]
    length: int
    evaluated: int
    steps: Floats

    def arrays(self) -> Iterator[Floats]:
        for mine in self.options:
            for o in mine:
                yield from (o.base, *o.tiles.values(), *(x for _, _, *pair in o.words for x in pair))
        yield from (cost.columns for cost in self.tensors.values())

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for x in self.arrays())


@dataclass(frozen=True)
class Priced:
    """:class:`Costs` on one machine."""

    columns: Columns
    options: list[list[OptionCost]]
    tensors: dict[str, TensorCost]
    sizes: dict[str, Any]
    length: int
    steps: Floats


def priced(costs: Costs, arch: Architecture, caps: Mapping[str, float] = MappingProxyType({})) -> Priced:
    """Counts as costs on one machine. More than ``caps`` words of a tensor do not fit into registers."""
    columns = Columns(arch, costs.columns)
    options = [
        [
            replace(o, base=columns.of(o.base), tiles={k: columns.of(v) for k, v in o.tiles.items()})
            for o in mine
        ]
        for mine in costs.options
    ]  # fmt: skip
    tensors = {t: TensorCost(c.places, columns.of(c.columns)) for t, c in costs.tensors.items()}
    for t in caps.keys() & tensors.keys():
        tensors[t].columns[:, 0] += tensors[t].columns[:, columns.held] > caps[t]
    return Priced(columns, options, tensors, costs.sizes, costs.length, costs.steps)


__all__ = ["Columns", "Costs", "Counts", "OptionCost", "Place", "Priced", "TensorCost", "priced"]
