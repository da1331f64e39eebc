"""Values that stay in registers, between Einsums or from step to step: a note where they are more than those hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusemodel.cascade.ir import Cascade, Einsum, reads, reduced_ranks
from fusemodel.mapping.check import Nest
from fusemodel.mapping.spec import Group
from fusemodel.model.amounts import Amount, Sizes, product, where
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
    words: Amount
    room: Amount
    why: str


def held_in_registers(plan: Plan, sizes: Sizes) -> list[Held]:
    """What stays in registers: values that pass between Einsums and are kept nowhere, and operands that stay in a unit
    while other loops step, more than one of a processing element where what is spread over the unit folds. Sizes are
    numbers, arrays of them or expressions."""
    units = [plan.arch.units[u] for u in {b.unit for b in plan.group.bindings.values()}]
    found = []
    if all(u.registers for u in units):
        room = sum(u.size * u.registers.words for u in units if u.registers)
        for name, leaves in plan.passed_on.items():
            found.append(Held(name, None, product(leaves, sizes), room, f"{name} is kept nowhere"))
    for still in _standing(plan):
        unit = plan.arch.units[still.unit]
        assert unit.registers
        words = product(still.inner, sizes) * _stands_still(still.loops, sizes)
        found.append(Held(still.tensor, still.einsum, words, unit.size * unit.registers.words, still.why))
    return found


@dataclass(frozen=True, slots=True)
class _Standing:
    """An operand read into the registers of a unit: the leaves that its words are the product of, and the loops outside
    it, innermost first, with whether each brings other words."""

    tensor: str
    einsum: str
    unit: str
    inner: tuple[str, ...]
    loops: tuple[tuple[str, bool], ...]
    why: str


def _standing(plan: Plan) -> list[_Standing]:
    """The operands that may stand still while some loop steps."""
    if "standing" not in plan.memo:
        found = []
        for move in plan.moves:
            tile, unit = move.tile, plan.einsums[move.tile.einsum].unit
            used = {x for d in tile.dims for x in d.all_leaves}
            loop = next((x for x in reversed(tile.outside) if x not in used), None)
            inside = move.source is not None and move.sink is not None
            if loop is None or inside or plan.arch.units[unit].registers is None:
                continue
            inner = tuple(sorted(used - set(tile.outside)))
            loops = tuple((x, x in used) for x in reversed(tile.outside))
            found.append(
                _Standing(
                    move.tensor, tile.einsum, unit, inner, loops, f"{move.tensor} stays in {unit} while {loop} steps"
                )
            )
        plan.memo["standing"] = found
    return plan.memo["standing"]


def _stands_still(loops: Sequence[tuple[str, bool]], sizes: Sizes) -> Amount:
    """Whether some loop steps while a tile stands still: inside every loop that steps and brings another."""
    stays: Amount = False
    moved: Amount = False
    for leaf, brings in loops:
        steps = sizes[leaf] > 1
        if brings:
            moved = moved | steps
        elif moved is not True:
            stays = stays | where(moved, False, steps)
    return stays


def register_notes(plan: Plan, sizes: Mapping[str, int]) -> list[str]:
    """One sentence for each tensor that the registers cannot hold."""
    word = plan.arch.word_bytes
    return [
        f"{h.why}: {size(h.words * word)} of it would have to stay in registers of {size(h.room * word)}"
        for h in held_in_registers(plan, sizes)
        if h.words > h.room
    ]
