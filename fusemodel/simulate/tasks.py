"""What a group does as tasks: actors that fire in order over their loops, and what each firing waits for.

The description is periodic and small: nothing in it grows with the number of tasks. An *actor* is an Einsum on its
unit, or a transfer between levels. It fires once for each step of its loops, in their order. An *edge* says what a
firing needs of another actor: at the steps ``d`` of the loops of the actor that waits, firing number ``constant +
sum(coefficients * d)`` of the other one must have been issued, have ended or be valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from fusemodel.model.plan import Tile

#: What an edge waits for: that the other firing was issued, has ended, or has its result at hand (after a drain).
ISSUED, ENDED, VALID = 0, 1, 2

#: Why a unit is idle, in the order of the engines' tables.
REASONS: tuple[str, ...] = ("input", "dependence", "drain", "unit", "buffer", "bandwidth", "stage", "finished")
INPUT, DEPENDENCE, DRAIN, UNIT, BUFFER, BANDWIDTH, STAGE, FINISHED = range(8)


@dataclass(frozen=True, slots=True)
class Edge:
    """Firing ``k`` of an actor waits until ``other`` has passed firing ``g(k - slack)``, ``g`` affine in the steps
    of the actor's loops. With ``slack`` (of a buffer: the pieces it has room for) the first ``slack`` firings do not
    wait. ``tile`` says which buffer."""

    other: int
    event: int
    constant: int
    coefficients: tuple[int, ...]
    slack: int
    reason: int
    tile: str = ""


@dataclass(frozen=True)
class Table:
    """Amounts that differ from firing to firing: ``values`` has an axis for each form, whose value
    ``constant + sum(coefficients * steps)`` is cut off to ``least`` and ``most``. Without forms, one amount."""

    values: NDArray[np.float64]
    coefficients: tuple[tuple[int, ...], ...] = ()
    constants: tuple[int, ...] = ()
    least: tuple[int, ...] = ()
    totals: dict[tuple[int, ...], float] = field(default_factory=dict, compare=False, repr=False)  # by sizes of loops

    @property
    def most(self) -> tuple[int, ...]:
        return tuple(low + n - 1 for low, n in zip(self.least, self.values.shape, strict=True))

    def at(self, steps: Sequence[int]) -> int:
        """The place in the flat table for some steps of the loops."""
        place = 0
        for c, constant, low, n in zip(self.coefficients, self.constants, self.least, self.values.shape, strict=True):
            value = constant + sum(a * s for a, s in zip(c, steps, strict=True))
            place = place * n + min(max(value - low, 0), n - 1)
        return place

    def scaled(self, factor: float) -> Table:
        return Table(self.values * factor, self.coefficients, self.constants, self.least)


def uniform(value: float) -> Table:
    """The same amount for every firing."""
    return Table(np.array(value, dtype=np.float64))


@dataclass(frozen=True)
class Actor:
    """An Einsum on a ``unit``, or a transfer (``unit`` -1) that occupies ``levels``.

    ``amount`` has cycles of a firing for an Einsum, words for a transfer, of which ``shares[level]`` go through each
    level (and ``flows`` says how they count as traffic: level, written, share). ``drain`` is how long after its end a
    result appears. ``streams`` are transfers that an Einsum's firing needs to have been issued, and whose end its own
    end waits for. ``stage`` and ``place`` are those of the schedule; ``lag`` says how many steps of all loops together
    the Einsum runs behind (a software pipeline); ``turn`` is the step at which firing ``k`` falls, affine in its steps.
    """

    name: str
    kind: str  # "einsum", "load", "store"
    einsum: str
    tensor: str
    loops: tuple[str, ...]
    sizes: tuple[int, ...]
    amount: Table
    unit: int = -1
    shares: Mapping[str, float] = field(default_factory=dict)
    flows: tuple[tuple[str, bool, float], ...] = ()
    drain: float = 0.0
    stage: int = 0
    place: int = 0
    lag: int = 0
    turn: tuple[int, tuple[int, ...]] = (0, ())
    edges: tuple[Edge, ...] = ()
    streams: tuple[int, ...] = ()
    tiles: tuple[Tile, ...] = ()

    @property
    def firings(self) -> int:
        return prod(self.sizes)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A kept tile, or values in registers: so many firings of ``writer`` fit in (``pieces``), in ``places`` of
    ``words`` each (firings that add to what others wrote have no place of their own). Of the writer's loops, each step
    of ``generation`` begins a new tile, in the place of that ``copies`` ago, and each step of ``own`` has a place of
    its own in a tile. Tensors with one ``share`` take each other's place. Of a state there are so many ``versions``."""

    tile: str
    level: str
    tensor: str
    writer: int
    pieces: int
    places: int
    words: float
    copies: int = 1
    generation: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    share: str | None = None
    versions: int = 1

    @property
    def room_words(self) -> float:
        return self.places * self.words

    def held_words(self, pieces: int) -> float:
        """Words in it when so many firings are."""
        return min(pieces, self.places) * self.words


@dataclass(frozen=True)
class Tasks:
    """All that one group does. ``loops`` are the lowered loops, outermost first; ``cycles_per_word`` of a level is its
    bandwidth; ``untimed`` are words that take no time (level, tensor, written, words)."""

    name: str
    loops: tuple[str, ...]
    sizes: tuple[int, ...]
    units: tuple[str, ...]
    levels: tuple[str, ...]
    cycles_per_word: tuple[float, ...]
    actors: tuple[Actor, ...]
    buffers: tuple[Buffer, ...]
    stages: int
    ordered: bool  # the units follow the schedule's order (else whatever is ready, oldest tile first)
    untimed: tuple[tuple[str, str, bool, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def firings(self) -> int:
        """Tasks, one for each firing of an actor."""
        return sum(a.firings for a in self.actors)


def strides(sizes: Sequence[int]) -> tuple[int, ...]:
    """The weight of each step in the number of a firing."""
    found = [1] * len(sizes)
    for i in range(len(sizes) - 2, -1, -1):
        found[i] = found[i + 1] * sizes[i + 1]
    return tuple(found)


def steps_of(number: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The steps of the loops at a firing."""
    found = []
    for n in reversed(sizes):
        found.append(number % n)
        number //= n
    return tuple(reversed(found))
