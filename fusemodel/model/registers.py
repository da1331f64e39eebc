"""Values that stay in registers, between Einsums or from step to step: a note where they are more than those hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemodel.cascade.ir import Cascade, Einsum, reads, reduced_ranks
from fusemodel.mapping.check import Nest
from fusemodel.mapping.spec import Group
from fusemodel.quantities import size

if TYPE_CHECKING:
    from fusemodel.model.plan import Plan


def passed_on(
    group: Group, cascade: Cascade, einsums: Mapping[str, Einsum], nests: Mapping[str, Nest]
) -> dict[str, tuple[str, ...]]:
    """For each tensor that no level keeps between Einsums of the group, the leaves whose values are alive together."""
    kept = {k.tensor for k in group.keeps}
    found = {}
    for name in group.bindings:
        readers = [n for n in group.bindings if n != name and any(a.tensor == name for a in reads(einsums[n]))]
        if name in kept or not readers:
            continue
        together = [n for n in group.bindings if group.bindings[n].key == group.bindings[name].key]
        outside = set(group.loops)
        if steps := {x for r in cascade.tensors[name].iterative for x in group.leaves(r, cascade)} & outside:
            # a state lives from step to step: for every tile that the loops inside the stepped one make
            first = min(group.loops.index(x) for x in steps)
            outside -= set(group.loops[first + 1 :])
        if set(readers) <= set(together):
            outside |= _common_loops(group, cascade, [einsums[n] for n in together], [nests[n] for n in together])
        leaves = (x for r in cascade.full_ranks(name) for x in group.leaves(r, cascade))
        found[name] = tuple(x for x in leaves if x not in outside)
    return found


def _common_loops(group: Group, cascade: Cascade, einsums: list[Einsum], nests: list[Nest]) -> set[str]:
    """The own loops of Einsums bound together outside every loop that one of them reduces."""
    reduced = {x for e in einsums for r in reduced_ranks(e) for x in group.leaves(r, cascade)}
    common: set[str] = set()
    for leaf in nests[0].own:
        if leaf in reduced or any(leaf not in nest.own for nest in nests):
            break
        common.add(leaf)
    return common


@dataclass(frozen=True)
class Held:
    """``words`` of a tensor that have to stay in registers of ``room`` words, and why; ``einsum`` uses it there while
    other loops step, none where it passes between Einsums."""

    tensor: str
    einsum: str | None
    words: Any
    room: int
    why: str


def held_in_registers(plan: Plan, sizes: Mapping[str, Any]) -> list[Held]:
    """What stays in registers: values that pass between Einsums and are kept nowhere, and operands that stay in a unit
    while other loops step, more than one of a processing element where what is spread over the unit folds. Sizes are
    numbers, or arrays of them."""
    units = [plan.arch.units[u] for u in {b.unit for b in plan.group.bindings.values()}]
    found = []
    if all(u.registers for u in units):
        room = sum(u.size * u.registers.words for u in units if u.registers)
        for name, leaves in plan.passed_on.items():
            found.append(Held(name, None, prod(sizes[x] for x in leaves), room, f"{name} is kept nowhere"))
    for move in plan.moves:
        tile, einsum = move.tile, plan.einsums[move.tile.einsum]
        unit = plan.arch.units[einsum.unit]
        if unit.registers is None or (move.source is not None and move.sink is not None):
            continue
        used = {x for d in tile.dims for x in d.all_leaves}
        inner = prod(sizes[x] for x in used - set(tile.outside))
        loop, stays = _still(tile.outside, used, sizes)
        if loop:
            room = unit.size * unit.registers.words
            found.append(
                Held(
                    move.tensor,
                    einsum.name,
                    inner * stays,
                    room,
                    f"{move.tensor} stays in {einsum.unit} while {loop} steps",
                )
            )
    return found


def _still(loops: Sequence[str], used: Collection[str], sizes: Mapping[str, Any]) -> tuple[str, Any]:
    """The innermost loop that may step while a tile stands still, and whether it does for these sizes."""
    loop, stays, moved = "", False, False
    for x in reversed(loops):
        steps = sizes[x] > 1
        if x in used:
            moved = np.logical_or(moved, steps)
        else:
            loop, stays = loop or x, np.logical_or(stays, np.logical_and(steps, np.logical_not(moved)))
    return loop, stays


def register_notes(plan: Plan, sizes: Mapping[str, int]) -> list[str]:
    """One sentence for each tensor that the registers cannot hold."""
    word = plan.arch.word_bytes
    return [
        f"{h.why}: {size(h.words * word)} of it would have to stay in registers of {size(h.room * word)}"
        for h in held_in_registers(plan, sizes)
        if h.words > h.room
    ]
