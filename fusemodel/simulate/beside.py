"""Operations that an Einsum's unit hands over to another one: tasks of their own on that unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from fusemodel.model.plan import EinsumPlan
from fusemodel.simulate.tables import total_of
from fusemodel.simulate.tasks import BUFFER, DEPENDENCE, ENDED, ISSUED, Actor, Table, uniform

if TYPE_CHECKING:
    from fusemodel.simulate.lower import Lowering


def units_of(einsums: Iterable[EinsumPlan]) -> tuple[str, ...]:
    """The units that some Einsums are bound to, and then those that these hand operations over to."""
    einsums = list(einsums)
    return tuple(dict.fromkeys([*(e.unit for e in einsums), *(b[0] for e in einsums for b in e.beside)]))


def hand_over(low: Lowering, units: tuple[str, ...]) -> None:
    """A task of the other unit begins with the Einsum's at the earliest, and whoever waits for the one waits for both.
    The Einsum runs two tasks ahead at most."""
    for name, me in low.of.items():
        own = low.actors[me]
        for unit, cycles in low.chosen.cost.einsums[name].beside.items():
            if not float(cycles):
                continue
            waiting = [(i, e) for i, some in low.edges.items() for e in some if e.other == me and e.event != ISSUED]
            table = _share_of(own, float(cycles))
            other = low.add(replace(own, name=f"{name} on {unit}", unit=units.index(unit), amount=table, streams=()))
            for i, e in waiting:
                low.edges[i].append(replace(e, other=other))
            low.wait(other, me, ISSUED, DEPENDENCE)
            low.wait(me, other, ENDED, BUFFER, before=2)


def _share_of(own: Actor, cycles: float) -> Table:
    """So many cycles over all tasks, as the Einsum's own are divided among them."""
    total = total_of(own.amount, own.sizes)
    return own.amount.scaled(cycles / total) if total else uniform(cycles / own.firings)


def is_beside(actor: Actor) -> bool:
    """Whether an actor is the part of an Einsum that another unit does."""
    return actor.unit >= 0 and actor.name != actor.einsum


__all__ = ["hand_over", "is_beside", "units_of"]
