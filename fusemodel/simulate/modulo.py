"""Modulo scheduling: when in a round each operation starts, so that units do one thing at a time and whatever is needed
is there (Rau, "Iterative modulo scheduling", MICRO 1994)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Operations are placed so often at most, each, before a period is given up.
_BUDGET = 12
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Operation:
    """Occupies ``unit`` for ``busy`` cycles of every period."""

    unit: int
    busy: float


@dataclass(frozen=True, slots=True)
class Precedence:
    """``later`` starts ``delay`` cycles after ``earlier`` does, of ``distance`` periods before."""

    earlier: int
    later: int
    distance: int
    delay: float


def schedule(operations: Sequence[Operation], needs: Sequence[Precedence], period: float) -> list[float] | None:
    """When each operation starts, from 0; None if none was found for this period."""
    heights = _heights(len(operations), needs, period)
    if heights is None:
        return None
    start: dict[int, float] = {}
    tried: dict[int, float] = {}
    left = set(range(len(operations)))
    for _ in range(_BUDGET * len(operations)):
        if not left:
            first = min(start.values(), default=0.0)
            return [start[i] - first for i in range(len(operations))]
        op = max(left, key=lambda i: (heights[i], -i))
        earliest = max(
            [0.0, *(start[n.earlier] + n.delay - n.distance * period for n in needs
                    if n.later == op and n.earlier in start and n.earlier != op)]
        )  # fmt: skip
        time = _free(operations, start, op, earliest, period)
        if time is None:
            time = earliest if op not in tried or earliest > tried[op] + _CLOSE else tried[op] + period / 16
        clash = {i for i in start if _overlap(operations, start[i], i, time, op, period)}
        clash |= {
            n.later for n in needs
            if n.earlier == op and n.later in start and start[n.later] < time + n.delay - n.distance * period - _CLOSE
        }  # fmt: skip
        for i in clash - {op}:
            del start[i]
            left.add(i)
        start[op] = tried[op] = time
        left.discard(op)
    return None


def _heights(n: int, needs: Sequence[Precedence], period: float) -> list[float] | None:
    """How much has to follow each operation; None if it never ends: the period is too short for a recurrence."""
    heights = [0.0] * n
    for _ in range(n + 1):
        changed = False
        for need in needs:
            found = heights[need.later] + need.delay - need.distance * period
            if found > heights[need.earlier] + _CLOSE:
                heights[need.earlier] = found
                changed = True
        if not changed:
            return heights
    return None


def _free(
    operations: Sequence[Operation], start: dict[int, float], op: int, earliest: float, period: float
) -> float | None:
    """The first time within a period at which the unit is free for long enough."""
    ends = [start[i] + operations[i].busy for i in start if operations[i].unit == operations[op].unit]
    after = sorted({earliest, *(earliest + (end - earliest) % period for end in ends)})
    return next((t for t in after if not any(_overlap(operations, start[i], i, t, op, period) for i in start)), None)


def _overlap(operations: Sequence[Operation], at: float, i: int, time: float, op: int, period: float) -> bool:
    """Whether two operations want one unit at once."""
    a, b = operations[i], operations[op]
    if a.unit != b.unit or i == op or not a.busy or not b.busy:
        return False
    ahead = (time - at) % period  # op begins so long after i
    if period - ahead < _CLOSE:
        ahead = 0.0
    return ahead < a.busy - _CLOSE or period - ahead < b.busy - _CLOSE
