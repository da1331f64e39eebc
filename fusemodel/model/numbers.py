"""The numbers of a machine in a plan, by name: to put another machine's there, or symbols for any machine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from fusemodel.arch import Architecture
from fusemodel.arch.spec import Level, Unit
from fusemodel.mapping.check import check_group, main_einsums, nest_of
from fusemodel.model.amounts import Amount
from fusemodel.model.frame import conditions_of, settled
from fusemodel.model.plan import Drain, EinsumPlan, Plan, drains_of, einsum_plan

#: What a number is replaced by, from its name and value.
Take = Callable[[str, float], Amount]


def on_machine(plan: Plan, arch: Architecture) -> Plan:
    """A plan on another machine with the same levels and units. InputError if it cannot run the Einsums; ValueError if
    its levels are others."""
    plan = settled(plan)
    if list(arch.levels) != list(plan.arch.levels):
        raise ValueError(f"{arch.name!r} has other levels than {plan.arch.name!r}")
    group, cascade = plan.group, plan.cascade
    check_group(group, cascade, arch)
    inside = {n: e for n, e in main_einsums(cascade).items() if n in plan.einsums}
    nests = {n: nest_of(e, group, cascade) for n, e in inside.items()}
    einsums = {n: einsum_plan(e, nests[n], group, cascade, arch, plan.einsums[n].conditions) for n, e in inside.items()}
    drains = tuple(tuple(d) for d in drains_of(group, inside, nests, cascade, arch))
    kept = {k: v for k, v in plan.memo.items() if k not in ("settled", "standing", "passing", "aside")}  # no machine's
    other = replace(plan, arch=arch, einsums=einsums, drains=drains, memo={**kept, "conditions": conditions_of(plan)})
    other.memo["settled"] = other
    return other


def with_numbers(plan: Plan, take: Take) -> Plan:
    """A plan with every number of its machine replaced. Names are ``arch.clock_hz``, ``LEVEL.size_bytes``, ``UNIT.x``
    (a length), ``EINSUM.cycles_per_point`` and so on, after the fields that hold them."""
    arch = _machine(plan.arch, take)
    einsums = {n: _einsum(plan, e, arch, take) for n, e in plan.einsums.items()}
    drains = tuple(tuple(_drain(plan, d, arch) for d in stage) for stage in plan.drains)
    return replace(plan, arch=arch, einsums=einsums, drains=drains, memo=dict(plan.memo))


def numbers_of(plan: Plan) -> dict[str, float]:
    """Every number of its machine in a plan, by name."""
    found: dict[str, float] = {}

    def take(name: str, value: float) -> float:
        found[name] = float(value)
        return value

    with_numbers(plan, take)
    return found


def _machine(arch: Architecture, take: Take) -> Architecture:
    return replace(
        arch,
        clock_hz=take("arch.clock_hz", arch.clock_hz),
        word_bytes=take("arch.word_bytes", arch.word_bytes),
        levels={n: _level(level, take) for n, level in arch.levels.items()},
        units={n: _unit(unit, take) for n, unit in arch.units.items()},
    )


def _level(level: Level, take: Take) -> Level:
    given = {f.name: value for f in fields(level) if isinstance(value := getattr(level, f.name), (int, float))}
    return replace(level, **{name: take(f"{level.name}.{name}", value) for name, value in given.items()})


def _unit(unit: Unit, take: Take) -> Unit:
    registers = unit.registers
    if registers:
        registers = replace(
            registers,
            words=take(f"{unit.name}.registers.words", registers.words),
            area_um2=take(f"{unit.name}.registers.area_um2", registers.area_um2),
        )
    ops = {n: replace(op, area_um2=take(f"{unit.name}.{n}.area_um2", op.area_um2)) for n, op in unit.ops.items()}
    shape = {d: take(f"{unit.name}.{d}", n) for d, n in unit.shape.items()}
    return replace(unit, shape=shape, registers=registers, ops=ops)


def _einsum(plan: Plan, einsum: EinsumPlan, arch: Architecture, take: Take) -> EinsumPlan:
    spatial = plan.group.bindings[einsum.name].spatial
    shape = arch.units[einsum.unit].shape
    names = [f.name for f in fields(einsum) if f.name.endswith(("_per_point", "_per_output"))]
    return replace(
        einsum,
        folds=tuple((shape[d], leaves) for d, leaves in spatial.items()),
        **{name: take(f"{einsum.name}.{name}", getattr(einsum, name)) for name in names},
    )


def _drain(plan: Plan, drain: Drain, arch: Architecture) -> Drain:
    binding = plan.group.bindings[drain.producer]
    dimension = next(d for d, leaves in binding.spatial.items() if set(drain.leaves) <= set(leaves))
    return replace(drain, length=arch.units[binding.unit].shape[dimension])
