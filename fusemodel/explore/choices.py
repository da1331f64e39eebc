"""What each way to keep each tensor costs, for every combination of tile sizes.

Where a tensor is kept changes what it moves and the space it takes, and nothing of other tensors. So one plan in which
every tensor takes its i-th choice gives the costs of all i-th choices, and the costs of any mix are sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.arch import Architecture
from fusemodel.cascade.ir import Cascade
from fusemodel.errors import InputError
from fusemodel.mapping.load import group_of
from fusemodel.model.cost import GroupCost, cost_of, needs_numbers
from fusemodel.model.plan import plan_group
from fusemodel.model.registers import held_in_registers

#: A level and the loop that a tile lives under there; several for tiles at several levels; none: it passes by.
Place = tuple[tuple[str, str], ...]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """A group but for what is kept: the fields of a mapping file, and the places that each tensor may have."""

    fields: Mapping[str, Any]
    places: Mapping[str, Sequence[Place]]


@dataclass(frozen=True)
class Costs:
    """Costs of one tensor's places (axis 0) at every combination of sizes (axis 1); infinite where not legal.

    ``unheld`` counts what registers would have to hold and cannot; ``words`` are moved and ``space`` is taken at each
    level; ``energy_pj`` is that of the words moved.
    """

    unheld: Floats
    words: dict[str, Floats]
    space: dict[str, Floats]
    energy_pj: Floats


@dataclass(frozen=True)
class Choices:
    """Everything about a structure: costs of each tensor's places, and what does not depend on them."""

    tensors: dict[str, Costs]
    cycles: Floats
    energy_pj: Floats
    costed: int  # evaluations of the model


def choices(
    structure: Structure, cascade: Cascade, arch: Architecture, later: frozenset[str],
    extents: Mapping[str, int], sizes: Mapping[str, Any], length: int,
) -> Choices | None:  # fmt: skip
    """The costs of every choice, for ``length`` combinations of sizes (arrays in ``sizes``); None if no plan is legal
    whatever is kept."""
    rounds = max(map(len, structure.places.values()))
    levels = list(arch.levels)
    tensors = {t: _nothing(levels, len(p), length) for t, p in structure.places.items()}
    cycles = energy = None
    costed = 0
    for i in range(rounds):
        wanted = {t: i for t, p in structure.places.items() if i < len(p)}
        for take in _legal(structure, wanted, cascade, arch):
            group = group_of(_with(structure, {t: structure.places[t][i] for t in take}), cascade, arch)
            try:
                plan = plan_group(group, cascade, arch, later)
            except InputError:
                continue
            for at, cost in _costs(plan, sizes, extents, length):
                costed += 1
                for t in take:
                    _fill(tensors[t], i, at, t, cost, arch)
                if cycles is None:
                    cycles, energy = np.zeros(length), np.zeros(length)
                if energy is not None:
                    cycles[at] = cost.schedule_cycles
                    energy[at] = sum(e.energy_pj for e in cost.einsums.values())
            for held in held_in_registers(plan, sizes):
                if held.tensor in take:
                    tensors[held.tensor].unheld[i] += np.asarray(held.words) > held.room
    return None if cycles is None or energy is None else Choices(tensors, cycles, energy, costed)


def _nothing(levels: Sequence[str], places: int, length: int) -> Costs:
    def column() -> Floats:
        return np.full((places, length), np.inf)

    return Costs(column(), {x: column() for x in levels}, {x: column() for x in levels}, column())


def fields_of(structure: Structure, taken: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, Any]:
    """The fields of a mapping file for one place of each tensor, with the sizes of tiles filled in."""
    fields = _with(structure, {t: structure.places[t][i] for t, i in taken.items()})
    tile = {k: sizes.get(k, v) if isinstance(v, list) and v and isinstance(v[0], int) else v
            for k, v in fields.get("tile", {}).items()}  # fmt: skip
    return {**fields, "tile": tile} if tile else fields


def _with(structure: Structure, places: Mapping[str, Place]) -> dict[str, Any]:
    keep: dict[str, dict[str, str]] = {}
    for tensor, place in places.items():
        for level, loop in place:
            keep.setdefault(level, {})[tensor] = loop
    return {k: v for k, v in {**structure.fields, "keep": keep}.items() if v}


def _legal(
    structure: Structure, wanted: Mapping[str, int], cascade: Cascade, arch: Architecture
) -> Iterator[dict[str, int]]:
    """``wanted`` in parts that are legal; a tensor whose place is not legal by itself is left out."""
    try:
        group = group_of(_with(structure, {t: structure.places[t][i] for t, i in wanted.items()}), cascade, arch)
        plan_group(group, cascade, arch, frozenset())
    except InputError:
        if len(wanted) > 1:
            names = list(wanted)
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                yield from _legal(structure, {t: wanted[t] for t in half}, cascade, arch)
        return
    yield dict(wanted)


def _costs(
    plan: Any, sizes: Mapping[str, Any], extents: Mapping[str, int], length: int
) -> Iterator[tuple[slice | int, GroupCost]]:
    """Costs of all combinations at once, or one by one where counts need plain numbers."""
    if not needs_numbers(plan, extents):
        yield slice(None), cost_of(plan, sizes, extents)
        return
    for n in range(length):
        one = {x: int(v[n]) if isinstance(v, np.ndarray) else v for x, v in sizes.items()}
        yield n, cost_of(plan, one, extents)


def _fill(costs: Costs, i: int, at: slice | int, tensor: str, cost: GroupCost, arch: Architecture) -> None:
    energy: Any = 0.0
    for name, level in arch.levels.items():
        moved = cost.traffic[name].get(tensor)
        read, write = (moved.read, moved.write) if moved else (0.0, 0.0)
        costs.words[name][i, at] = read + write
        costs.space[name][i, at] = cost.footprint_words.get(name, {}).get(tensor, 0.0)
        energy = energy + (read * level.read_pj + write * level.write_pj) * arch.word_bytes / level.access_bytes
    costs.energy_pj[i, at] = energy
    costs.unheld[i, at] = 0.0
