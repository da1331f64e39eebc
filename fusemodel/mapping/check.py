"""Checks of a mapping against its cascade and architecture, before any number is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusemodel.arch import Architecture
from fusemodel.arch.spec import find_op
from fusemodel.cascade.ir import (
    Access,
    Cascade,
    Einsum,
    Expr,
    accesses,
    is_start,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
)
from fusemodel.cascade.work import work_of
from fusemodel.errors import InputError, Where, listed, unknown
from fusemodel.mapping.spec import ALL, Design, Group


def main_einsums(cascade: Cascade) -> dict[str, Einsum]:
    """The equation that computes each tensor, explicit form; starts of iterative tensors cost nothing."""
    return {e.name: e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])}


def leaves_of(einsum: Einsum, group: Group, cascade: Cascade) -> tuple[str, ...]:
    """The leaf ranks of an Einsum's iteration space in this group."""
    return tuple(dict.fromkeys(x for r in iteration_ranks(einsum) for x in group.leaves(r, cascade)))


@dataclass(frozen=True, slots=True)
class Nest:
    """Loops around one Einsum: shared ones it takes part in and its own, outermost first; then the spatial leaves."""

    shared: tuple[str, ...]
    own: tuple[str, ...]
    spatial: tuple[str, ...]


def nest_of(einsum: Einsum, group: Group, cascade: Cascade) -> Nest:
    """The loop nest of an Einsum. Leaves the mapping does not place are innermost loops."""
    leaves = leaves_of(einsum, group, cascade)
    binding = group.bindings[einsum.name]
    spatial = tuple(x for ranks in binding.spatial.values() for x in ranks)
    shared = tuple(x for x in group.loops if x in leaves and x not in spatial)
    own = [x for x in binding.loops if x not in shared and x not in spatial]
    own += [x for x in leaves if x not in shared and x not in spatial and x not in own]
    return Nest(shared, tuple(own), spatial)


def check_group(group: Group, cascade: Cascade, arch: Architecture) -> None:
    """Raise InputError for the first thing in a group that cannot be."""
    einsums = main_einsums(cascade)
    for name in group.bindings:
        _check_binding(group, einsums[name], cascade, arch)
    every = {x for name in group.bindings for x in leaves_of(einsums[name], group, cascade)}
    for leaf in group.loops:
        if leaf not in every:
            raise InputError(f"no Einsum of the group iterates loop {leaf!r}", group.places["loops"],
                             expected=f"loops over {listed(every)}")  # fmt: skip
    for rank, parts in group.parts.items():
        if not every & set(parts) and not any(p in group.parts for p in parts):
            raise InputError(f"no Einsum of the group iterates {rank!r}", group.places.get(f"tile.{rank}", Where()))
    _check_schedule(group, einsums)
    _check_keeps(group, einsums, cascade, arch)
    _check_fusion(group, einsums, cascade)


def _check_binding(group: Group, einsum: Einsum, cascade: Cascade, arch: Architecture) -> None:
    binding = group.bindings[einsum.name]
    unit = arch.units[binding.unit]
    leaves = leaves_of(einsum, group, cascade)
    reduced = {x for r in reduced_ranks(einsum) for x in group.leaves(r, cascade)}
    seen: set[str] = set()
    for dimension, ranks in binding.spatial.items():
        for leaf in ranks:
            if leaf not in leaves:
                raise InputError(f"{einsum.name!r} has no rank {leaf!r} to spread over {dimension}", binding.at,
                                 expected=f"one of {listed(leaves)}")  # fmt: skip
            if leaf in seen or leaf in group.loops:
                raise InputError(f"rank {leaf!r} of {einsum.name!r} stands twice: in spatial and among the loops",
                                 binding.at)  # fmt: skip
            seen.add(leaf)
            if leaf in reduced and dimension not in unit.reduce:
                raise InputError(
                    f"{einsum.name!r} is reduced over {leaf!r} along {dimension}, which {unit.name!r} cannot do",
                    binding.at, expected=f"a dimension in `reduce: [{', '.join(sorted(unit.reduce))}]`",
                )  # fmt: skip
    for leaf in binding.loops:
        if leaf not in leaves:
            raise InputError(f"{einsum.name!r} has no rank {leaf!r} to loop over", binding.at,
                             expected=f"one of {listed(leaves)}")  # fmt: skip
    work = work_of(einsum)
    for op in (*work.per_point, *work.per_output):
        if find_op(unit, op) is None:
            raise unknown(f"operation for {einsum.name!r} on unit {unit.name!r}:", op, unit.ops, binding.at)


def _check_schedule(group: Group, einsums: Mapping[str, Einsum]) -> None:
    seen: set[str] = set()
    for i, stage in enumerate(group.stages):
        where = group.places.get(f"schedule.{i}", group.places["schedule"])
        for name in stage:
            if name in einsums and name not in group.bindings:
                raise InputError(f"{name!r} is scheduled but not bound to a unit", where,
                                 expected=f"`{name}: {{unit: ...}}` in `bind`")  # fmt: skip
            if name not in group.bindings:
                raise unknown("Einsum in the schedule", name, group.bindings, where)
            if name in seen:
                raise InputError(f"{name!r} is scheduled twice", where)
            seen.add(name)
    if missing := [n for n in group.bindings if n not in seen]:
        raise InputError(f"{listed(missing)} is not in the schedule", group.places["schedule"])


def _check_keeps(group: Group, einsums: dict[str, Einsum], cascade: Cascade, arch: Architecture) -> None:
    used = {a.tensor for n in group.bindings for a in reads(einsums[n])} | set(group.bindings)
    nests = {n: nest_of(einsums[n], group, cascade) for n in group.bindings}
    for keep in group.keeps:
        if keep.tensor not in cascade.tensors:
            raise unknown("tensor", keep.tensor, cascade.tensors, keep.at)
        if keep.tensor not in used:
            raise InputError(f"tensor {keep.tensor!r} is not used in this group", keep.at, expected=listed(used))
        own = {x for n in nests.values() for x in n.own}
        if keep.under != ALL and innermost(keep.under, group, cascade) not in {*group.loops, *own}:
            raise unknown("loop", keep.under, [*group.loops, *own, ALL], keep.at)
        if keep.spill is not False and keep.level == arch.outermost:
            raise InputError(f"{keep.tensor!r} cannot spill from the outermost level", keep.at)
    for name in group.bindings:
        _check_reachable(group, name, einsums, nests, cascade, arch)


def innermost(loop: str, group: Group, cascade: Cascade) -> str:
    """The leaf loop that a loop named by its rank ends with."""
    return group.leaves(loop, cascade)[-1]


def holds(keep_under: str, nest: Nest, group: Group, cascade: Cascade) -> bool:
    """Whether an Einsum runs inside the loop a tile lives under, and so uses that tile."""
    loop = innermost(keep_under, group, cascade) if keep_under != ALL else ALL
    return loop == ALL or loop in group.loops or loop in nest.own


def _check_reachable(group: Group, reader: str, einsums, nests, cascade: Cascade, arch: Architecture) -> None:
    """An intermediate a reader takes from a level must have been put there, or further out, by its producer."""
    for access in reads(einsums[reader]):
        made = access.tensor
        if made not in group.bindings:
            continue
        keeps = [k for k in group.keeps if k.tensor == made]
        if not keeps:
            continue
        put = [k.level for k in keeps if holds(k.under, nests[made], group, cascade)]
        got = [k.level for k in keeps if holds(k.under, nests[reader], group, cascade)]
        order = list(arch.levels)
        if not put or not got or min(map(order.index, got)) not in map(order.index, put):
            raise InputError(
                f"{reader!r} takes {made!r} from {listed(got) if got else 'registers'}, but {made!r} is put in "
                f"{listed(put) if put else 'registers'}", keeps[0].at,
                expected=f"a level that both reach, such as `{arch.outermost}: {{{made}: all}}`",
            )  # fmt: skip


def _check_fusion(group: Group, einsums: dict[str, Einsum], cascade: Cascade) -> None:
    """No Einsum may need, inside a shared loop, what is complete only after that loop."""
    after: dict[str, dict[str, str]] = {}
    shared = set(group.loops)
    for name in _in_order(group, einsums):
        einsum = einsums[name]
        waits: dict[str, str] = {}
        for access in reads(einsum):
            made = access.tensor
            if made not in group.bindings or made == name:
                continue
            waits |= after.get(made, {})
            for rank in reduced_ranks(einsums[made]):
                waits |= {x: made for x in group.leaves(rank, cascade) if x in shared}
            waits |= {x: made for x in _whole_iterative(access, cascade, group) if x in shared}
        for leaf in leaves_of(einsum, group, cascade):
            if leaf in waits:
                raise InputError(
                    f"{name!r} needs {waits[leaf]!r} complete over {leaf!r}, but both run inside the shared loop "
                    f"{leaf!r}", group.bindings[name].at,
                    expected=f"{leaf!r} inside the bindings, or groups that run one after another",
                )  # fmt: skip
        after[name] = waits


def _in_order(group: Group, einsums: dict[str, Einsum]) -> list[str]:
    """The Einsums of a group, each after those it reads (steps of an iterative rank aside)."""
    result: list[str] = []
    pending = [n for n in einsums if n in group.bindings]
    while pending:
        ready = [
            n for n in pending
            if not any(a.tensor in pending and a.tensor != n for a in reads(einsums[n]))
        ]  # fmt: skip
        result += ready or pending[:1]
        pending = [n for n in pending if n not in result]
    return result


def _whole_iterative(access: Access, cascade: Cascade, group: Group) -> list[str]:
    """Leaves of iterative ranks that an access needs the end of."""
    tensor = cascade.tensors[access.tensor]
    ranks = cascade.full_ranks(access.tensor)
    result: list[str] = []
    for rank, index in zip(ranks, access.indices, strict=True):
        if rank in tensor.iterative and not _uses(index, rank):
            result += group.leaves(rank, cascade)
    return result


def _uses(index: Expr, rank: str) -> bool:
    return rank in rank_values(index) and not accesses(index)


def check_design(design: Design) -> None:
    """Every Einsum in exactly one group, each after those it reads."""
    einsums = main_einsums(design.cascade)
    position: dict[str, int] = {}
    for i, candidates in enumerate(design.groups):
        names = set(candidates.groups[0].bindings)
        for group in candidates.groups[1:]:
            if set(group.bindings) != names:
                raise InputError("variants bind different Einsums", group.places[""])
        for name in names:
            if name in position:
                raise InputError(f"{name!r} is bound in two groups", candidates.groups[0].bindings[name].at)
            position[name] = i
    if missing := [n for n in einsums if n not in position]:
        where = design.groups[-1].groups[0].places["bind"]
        raise InputError(f"{listed(missing)} is not bound to a unit", where,
                         expected="an entry in `bind` for every Einsum")  # fmt: skip
    for name, einsum in einsums.items():
        for access in reads(einsum):
            if access.tensor in position and position[access.tensor] > position[name]:
                raise InputError(
                    f"{name!r} runs in a group before {access.tensor!r}, which it reads",
                    design.groups[position[name]].groups[0].bindings[name].at,
                )
