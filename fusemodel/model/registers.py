"""Values that stay in registers, between Einsums or from step to step: a note where they are more than those hold."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from fusemodel.arch import Architecture
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


def register_notes(
    passed: Mapping[str, tuple[str, ...]], group: Group, arch: Architecture, sizes: Mapping[str, int]
) -> list[str]:
    """One sentence for each tensor that the registers of the group's units cannot hold."""
    files = [(arch.units[u].size, arch.units[u].registers) for u in {b.unit for b in group.bindings.values()}]
    held = sum(n * r.words for n, r in files if r)
    notes = []
    for name, leaves in passed.items():
        live = prod(sizes[x] for x in leaves)
        if live > held and all(r for _, r in files):
            needed, there = size(live * arch.word_bytes), size(held * arch.word_bytes)
            notes.append(f"{name} is kept nowhere: {needed} of it would have to stay in registers of {there}")
    return notes


def stationary_notes(plan: Plan, sizes: Mapping[str, int]) -> list[str]:
    """One sentence for each operand that stays in a unit while other loops step, though what is spread over the unit
    folds and the registers cannot hold all of it."""
    notes = []
    for move in plan.moves:
        tile, einsum = move.tile, plan.einsums[move.tile.einsum]
        unit = plan.arch.units[einsum.unit]
        if unit.registers is None or (move.source is not None and move.sink is not None):
            continue
        used = {x for d in tile.dims for x in d.all_leaves}
        steps = [x for x in tile.outside if sizes[x] > 1]
        still = steps[max((i + 1 for i, x in enumerate(steps) if x in used), default=0) :]
        live, there = prod(sizes[x] for x in used - set(tile.outside)), unit.size * unit.registers.words
        if still and live > there:
            needed, held = size(live * plan.arch.word_bytes), size(there * plan.arch.word_bytes)
            notes.append(
                f"{move.tensor} stays in {einsum.unit} while {still[-1]} steps: {needed} of it in registers of {held}"
            )
    return notes
