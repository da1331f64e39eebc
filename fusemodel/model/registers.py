"""Values that stay in registers, between Einsums or from step to step: a note where they are more than those hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusemodel.cascade.ir import Cascade, Einsum, reads, reduced_ranks
from fusemodel.mapping.check import Nest
from fusemodel.mapping.spec import Group
from fusemodel.model.amounts import Amount, Sizes, product, where
from fusemodel.quantities import size

if TYPE_CHECKING:
    from fusemodel.arch import Architecture
    from fusemodel.model.plan import Plan


@dataclass(frozen=True, slots=True)
class Passed:
    """Values of a tensor that are alive together: those of ``leaves``, and of each leaf of ``later`` too where one of
    the loops beside it has several steps, which are outside it and around some of the Einsums only."""

    leaves: tuple[str, ...]
    later: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def words(self, sizes: Sizes) -> Amount:
        total = product(self.leaves, sizes)
        for leaf, loops in self.later:
            total = total * where(product(loops, sizes) > 1, sizes[leaf], 1)
        return total


def passed_on(
    group: Group, cascade: Cascade, einsums: Mapping[str, Einsum], nests: Mapping[str, Nest]
) -> dict[str, Passed]:
    """What is alive together of each tensor that no level keeps between Einsums of the group."""
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
        leaves = [x for r in cascade.full_ranks(name) for x in group.leaves(r, cascade)]
        around = [set(nests[n].shared) for n in (name, *readers)]
        some = [x for x in group.loops if x in set.union(*around) - set.intersection(*around)]
        later = {
            y: tuple(x for x in some if x not in leaves and group.loops.index(x) < group.loops.index(y))
            for y in leaves if y in outside and y in group.loops
        }  # fmt: skip
        found[name] = Passed(
            tuple(x for x in leaves if x not in outside), tuple((y, loops) for y, loops in later.items() if loops)
        )
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
    """``words`` of tensors that have to stay in registers of ``room`` words, and why; ``einsum`` uses it there while
    other loops step, none where they pass between Einsums."""

    tensors: tuple[str, ...]
    einsum: str | None
    words: Amount
    room: Amount
    why: str


def held_in_registers(plan: Plan, sizes: Sizes) -> list[Held]:
    """What stays in registers: values that pass between Einsums and are kept nowhere, those of every set of units being
    alive at once, and operands that stay in a unit while other loops step, more than one of a processing element where
    what is spread over the unit folds. Sizes are numbers, arrays of them or expressions."""
    found = []
    for names, units in _passing(plan):
        words: Amount = 0
        for name in names:
            words = words + plan.passed_on[name].words(sizes)
        kept = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} kept nowhere"
        found.append(Held(names, None, words, capacity(plan.arch, units), f"{kept} but in {' and '.join(units)}"))
    for still in _standing(plan):
        unit = plan.arch.units[still.unit]
        assert unit.registers
        words = product(still.inner, sizes) * _stands_still(still.loops, sizes)
        found.append(Held((still.tensor,), still.einsum, words, unit.size * unit.registers.words, still.why))
    return found


def capacity(arch: Architecture, units: Iterable[str]) -> Amount:
    """Words in the registers of some units."""
    return sum(arch.units[u].size * r.words for u in units if (r := arch.units[u].registers))


def units_of(plan: Plan) -> dict[str, frozenset[str]]:
    """For each tensor that passes between Einsums in registers, the units that make and read it."""
    readers = _readers(plan)
    return {t: frozenset(plan.einsums[n].unit for n in (t, *readers[t])) for t in plan.passed_on}


def _readers(plan: Plan) -> dict[str, list[str]]:
    """The Einsums of a group that read each tensor that passes between them."""
    einsums = {e.name: e for e in plan.cascade.einsums if e.name in plan.einsums}
    read = {n: {a.tensor for a in reads(e)} for n, e in einsums.items()}
    return {t: [n for n in plan.einsums if n != t and t in read[n]] for t in plan.passed_on}


def unions(sets: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Every union of some sets: where values fit into the units of each of these, they fit (Hall's condition)."""
    found: set[frozenset[str]] = set()
    for one in set(sets):
        found |= {one, *(one | other for other in found)}
    return sorted(found, key=lambda s: (len(s), sorted(s)))


def _passing(plan: Plan) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Tensors that are alive at once in the registers of some units alone, for every set of units and every stage, a
    value from the stage that makes it to the last that reads it. Units without registers are not looked at."""
    if "passing" not in plan.memo:
        units = {t: us for t, us in units_of(plan).items() if all(plan.arch.units[u].registers for u in us)}
        stage = {n: i for i, names in enumerate(plan.group.stages) for n in names}
        last = {t: max(stage[n] for n in names) for t, names in _readers(plan).items()}
        found: dict[tuple[tuple[str, ...], tuple[str, ...]], None] = {}
        for some in unions(units.values()):
            for i in range(len(plan.group.stages)):
                alive = (t for t, us in units.items() if us <= some and (stage[t] <= i <= last[t] or _stepped(plan, t)))
                if names := tuple(alive):
                    found[names, tuple(sorted(some))] = None
        plan.memo["passing"] = list(found)
    return plan.memo["passing"]


def _stepped(plan: Plan, tensor: str) -> bool:
    """Whether a value lives from one step to the next, through all stages."""
    return bool(plan.cascade.tensors[tensor].iterative)


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
