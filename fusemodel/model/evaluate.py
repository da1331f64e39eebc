"""Evaluating a design: extents, tile sizes, cost of each group, totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from fusemodel.arch import Architecture
from fusemodel.cascade.check import check_ranges
from fusemodel.cascade.extents import extents_of, integer
from fusemodel.cascade.ir import Extent, reads, walk
from fusemodel.cascade.workload import Workload, check_set, extents_for
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.spec import Design
from fusemodel.model.amounts import Amount, Sizes, are_numbers, first, largest, present, ratio, real, whole
from fusemodel.model.identity import Identity
from fusemodel.model.plan import Plan, plan_group
from fusemodel.model.registers import register_notes
from fusemodel.model.result import EinsumResult, Evaluation, GroupResult
from fusemodel.model.tiles import Chosen, choose

_PJ = 1e-12


def evaluate(
    design: Design,
    workload: Workload | None = None,
    seq: int | None = None,
    sets: Mapping[str, int] | None = None,
) -> Evaluation:
    """The closed-form evaluation of a design.

    Extents are the cascade's own, then the workload's and ``seq``, then the mapping's, then ``sets`` (ranks or tiles by
    name). InputError says what does not fit or divide.
    """
    extents, chosen = choices(design, workload, seq, sets)
    return total(design, chosen, extents, workload, seq)


def choices(
    design: Design, workload: Workload | None = None, seq: int | None = None, sets: Mapping[str, int] | None = None
) -> tuple[dict[str, int], list[Chosen]]:
    """The extents of a design, and the plan and sizes of each of its groups."""
    sets = dict(sets or {})
    extents = extents_in(design, workload, seq, sets)
    return extents, [choose(plans, c, extents, sets) for plans, c in zip(plans_of(design), design.groups, strict=True)]


def extents_in(design: Design, workload: Workload | None, seq: int | None, sets: Mapping[str, int]) -> dict[str, int]:
    """The extent of every rank of a design's cascade; InputError for what ``sets`` names that is neither a rank nor a
    tile."""
    cascade = design.cascade
    parts = {p: 1 for c in design.groups for g in c.groups for ps in g.parts.values() for p in ps}
    for name in sets:
        check_set(cascade, name, parts)
    overrides = extents_for(cascade, workload, seq)
    given = {r: n for r, n in sets.items() if r in cascade.ranks}
    extents = _extents(design, overrides, given)
    check_ranges(cascade, extents)
    return extents


def _extents(design: Design, overrides: dict[str, int], given: Mapping[str, int]) -> dict[str, int]:
    """Extents with those that the mapping replaces, as expressions of the others, unless they are ``given``."""
    cascade = design.cascade
    replaced = {r: e for r, e in design.extents.items() if r not in given}
    for rank, expr in list(replaced.items()):
        if Extent(rank) in walk(expr):  # of what it would be otherwise
            overrides[rank] = integer(expr, extents_of(cascade, {**overrides, **given}), f"rank {rank!r}",
                                      design.place(rank))  # fmt: skip
            del replaced[rank]
    for rank in replaced:
        overrides.pop(rank, None)
    places = {**cascade.places, **{r: design.place(r) for r in replaced}}
    mapped = replace(cascade, ranks={**cascade.ranks, **replaced}, places=places)
    return extents_of(mapped, {**overrides, **given})


def plans_of(design: Design) -> tuple[tuple[Plan, ...], ...]:
    """The plans of every candidate of every group."""
    return _plans(Identity(design))


@lru_cache(maxsize=64)
def _plans(key: Identity) -> tuple[tuple[Plan, ...], ...]:
    design: Design = key.of
    einsums = main_einsums(design.cascade)
    group_of = {n: i for i, c in enumerate(design.groups) for n in c.groups[0].bindings}
    later = frozenset(
        a.tensor
        for n, e in einsums.items()
        for a in reads(e)
        if a.tensor in group_of and group_of[a.tensor] != group_of[n]
    )
    return tuple(tuple(plan_group(g, design.cascade, design.arch, later) for g in c.groups) for c in design.groups)


def total(
    design: Design, chosen: Sequence[Chosen], extents: Sizes, workload: Workload | None, seq: int | None
) -> Evaluation:
    """The evaluation of a design whose groups have been. Costs of expressions make an evaluation of expressions."""
    arch = chosen[0].plan.arch
    n = arch.instances
    cycles = sum(c.cost.cycles for c in chosen)
    traffic: dict[str, dict[str, dict[str, float]]] = {level: {} for level in arch.levels}
    energy = dict.fromkeys([*arch.levels, *arch.units], 0.0)
    registers = dict.fromkeys((u for u in arch.units if arch.units[u].registers), 0.0)
    busy = dict.fromkeys(arch.units, 0.0)
    slots = dict.fromkeys(arch.units, 0.0)
    for c in chosen:
        _add_traffic(arch, c, traffic, energy)
        for name, e in c.cost.einsums.items():
            unit = c.plan.einsums[name].unit
            busy[unit] += e.cycles
            slots[unit] += e.work_slots
            for other, held in e.beside.items():
                busy[other] += held
                slots[other] += held * arch.units[other].size
            energy[unit] += e.energy_pj * _PJ
            if unit in registers:
                registers[unit] += e.register_pj * _PJ
    for unit, value in registers.items():
        found = arch.units[unit].registers
        if found and found.counted:
            energy[f"{unit}.registers"] = value
    if arch.idle_w:
        energy["idle"] = arch.idle_w * cycles / arch.clock_hz
    total_j = sum(energy.values())
    uncounted = sum(v for u, v in registers.items() if f"{u}.registers" not in energy)
    groups = [_group_result(arch, c) for c in chosen]
    return Evaluation(
        mapping=design.name,
        cascade=design.cascade.name,
        arch=arch.name,
        workload=workload.name if workload else None,
        seq=seq,
        latency_s=cycles / arch.clock_hz,
        cycles=cycles,
        energy_j=total_j,
        dram_bytes=sum(t["read"] + t["write"] for t in traffic[arch.outermost].values()),
        utilization={u: ratio(slots[u], cycles * arch.units[u].size * n) for u in arch.units},
        busy={u: ratio(busy[u], cycles * n) for u in arch.units},
        energy_breakdown_j=energy,
        register_energy_j=registers,
        energy_with_registers_j=total_j + uncounted,
        traffic_bytes=traffic,
        bound=largest([g.bound for g in groups], [g.cycles for g in groups]),
        area_mm2=sum(arch.area_um2().values()) * 1e-6,
        extents=dict(extents),
        einsums=[r for c in chosen for r in _einsum_results(arch, c, busy)],
        groups=groups,
        notes=list(dict.fromkeys(n for c in chosen for n in _notes(c))),
    )


def _notes(c: Chosen) -> list[str]:
    return c.cost.notes + (register_notes(c.plan, c.sizes) if are_numbers(c.sizes) else [])


def _add_traffic(arch: Architecture, c: Chosen, traffic, energy) -> None:
    for level, tensors in c.cost.traffic.items():
        spec = arch.levels[level]
        for tensor, t in tensors.items():
            read, write = real(t.read) * arch.word_bytes, real(t.write) * arch.word_bytes
            if not present(read) and not present(write):
                continue
            entry = traffic[level].setdefault(tensor, {"read": 0.0, "write": 0.0})
            entry["read"] += read
            entry["write"] += write
            energy[level] += (read * spec.read_pj + write * spec.write_pj) / spec.access_bytes * _PJ


def _einsum_results(arch: Architecture, c: Chosen, busy: dict[str, float]) -> list[EinsumResult]:
    results = []
    for name, e in c.cost.einsums.items():
        plan = c.plan.einsums[name]
        traffic = {
            level: real(amount) * arch.word_bytes
            for level in arch.levels
            if present(amount := c.cost.by_einsum.get((level, name), 0))
        }
        results.append(
            EinsumResult(
                name, plan.unit, c.plan.group.name, whole(e.points), real(e.cycles), real(e.cycles / arch.clock_hz),
                ratio(e.cycles, busy[plan.unit]), ratio(e.work_slots, e.cycles * arch.units[plan.unit].size),
                real(e.energy_pj * _PJ), traffic, list(plan.operations),
            )
        )  # fmt: skip
    return results


def _group_result(arch: Architecture, c: Chosen) -> GroupResult:
    cost, word = c.cost, arch.word_bytes
    leaves = {p for ps in c.plan.group.parts.values() for p in ps}
    return GroupResult(
        name=c.plan.group.name,
        latency_s=cost.cycles / arch.clock_hz,
        cycles=real(cost.cycles),
        bound=_bound(c),
        schedule_cycles=real(cost.schedule_cycles),
        drain_cycles=real(cost.drain_cycles),
        memory_cycles={k: real(v) for k, v in cost.memory_cycles.items()},
        tiles={n: whole(c.sizes[n]) for n in c.sizes if n in leaves},
        variant=c.plan.group.variant,
        candidates=c.evaluated,
        footprint_bytes={
            level: {t: real(w * word) for t, w in held.items()} for level, held in cost.footprint_words.items() if held
        },
        spilled={level: real(f) for level, f in cost.spill.items() if present(f)},
        dram_bytes=real(sum(t.read + t.write for t in cost.traffic[arch.outermost].values()) * word),
        parts_s=cost.blocks.parts() if cost.blocks else {},
        waves=float(cost.blocks.waves) if cost.blocks else None,
    )


def _bound(c: Chosen) -> Amount:
    """The level whose traffic takes the time, or else the unit (or the drain) that the stages wait for most."""
    cost = c.cost
    if cost.blocks is not None:
        return cost.blocks.bound()
    waits = {**cost.critical_cycles, "drain": cost.drain_cycles}
    memory = cost.memory_cycles.items()
    levels = [(level, (value >= cost.cycles) & (value > cost.schedule_cycles)) for level, value in memory]
    return first(levels, largest(list(waits), list(waits.values())))
