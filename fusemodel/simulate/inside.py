"""Recurrences that step inside a task: the Einsums of one need each other step by step, so that their tasks go on
together and what they make is there when the last of them is done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from fusemodel.cascade.ir import Cascade, is_start
from fusemodel.cascade.plan import Compute, Loop, Plan, equations, plan
from fusemodel.mapping.spec import Group


@dataclass(frozen=True, slots=True)
class Inside:
    """``members`` are computed together, in the order of ``loop`` (equations of ``cascade.explicit``)."""

    loop: Loop
    members: tuple[str, ...]


def stepped_inside(
    cascade: Cascade, group: Group, einsums: Collection[str], loops: Collection[str], sizes: Mapping[str, int]
) -> tuple[Inside, ...]:
    """The recurrences among some Einsums of a group with a step that is none of the lowered ``loops``."""

    def find(item: Plan) -> Iterator[Inside]:
        if isinstance(item, Compute):
            return
        members = tuple(dict.fromkeys(n for e in equations(item) if (n := main(cascade, e)) in einsums))
        leaves = group.leaves(item.rank, cascade)
        if members and any(sizes.get(x, 1) > 1 and x not in loops for x in leaves):
            yield Inside(item, tuple(n for n in members if n))
            return
        for part in item.body:
            yield from find(part)

    return tuple(found for item in plan(cascade) for found in find(item))


def main(cascade: Cascade, equation: int) -> str | None:
    """What an equation makes; None for the start of a recurrence."""
    einsum = cascade.explicit[equation]
    return None if is_start(einsum, cascade.tensors[einsum.name]) else einsum.name


__all__ = ["Inside", "main", "stepped_inside"]
