"""Designs of a sweep, and those that no other is better than."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusemodel.explore.problem import Result
from fusemodel.explore.space import Machine
from fusemodel.explore.sweep import Row, Sweep

#: What a result calls each objective.
FIELDS = {"latency": "latency_s", "energy": "energy_j", "edp": "edp_js", "dram": "dram_bytes", "buffer": "buffer_bytes"}


@dataclass(frozen=True)
class Design:
    """An architecture with one cascade, mapped. ``numbers`` has each of :data:`FIELDS`, the geometric mean over
    ``rows``, which are its workloads and lengths; ``results`` has the mapping taken for each."""

    machine: Machine
    cascade: str
    area_mm2: float
    numbers: Mapping[str, float]
    rows: tuple[Row, ...]
    results: tuple[Result, ...]


def designs(found: Sweep) -> list[Design]:
    """The designs of a sweep for which everything was found. With several objectives, an architecture is a design with
    each mapping of its front; and where it has several workloads, with the best of each front by each objective."""
    gathered: dict[tuple[int, str], list[Row]] = {}
    for row in found.rows:
        gathered.setdefault((id(row.machine), row.cascade), []).append(row)
    made = []
    for rows in gathered.values():
        results = [r.result for r in rows if r.result is not None and "error" not in r.result]
        if len(results) < len(rows):
            continue
        for taken in _taken(results, found.space.objectives):
            numbers = {n: mean([r[n] for r in taken]) for n in FIELDS.values()}
            made.append(Design(rows[0].machine, rows[0].cascade, rows[0].machine.area_mm2, numbers, tuple(rows), taken))
    return made


def _taken(results: Sequence[Result], objectives: Sequence[str]) -> list[tuple[Result, ...]]:
    fronts = [r["front"] or [r] for r in results]
    if len(fronts) == 1:
        return [(x,) for x in fronts[0]]
    every = [tuple(min(f, key=lambda x: x[FIELDS[o]]) for f in fronts) for o in objectives]
    return [t for i, t in enumerate(every) if t not in every[:i]]


def mean(values: Sequence[float]) -> float:
    """The geometric mean; 0 where one is 0, and the value itself where all are equal."""
    if min(values) <= 0:
        return 0.0
    return values[0] if len(set(values)) == 1 else math.exp(math.fsum(map(math.log, values)) / len(values))


def front(found: Sequence[Design], objectives: Sequence[str]) -> list[Design]:
    """The designs that no other beats in area and every objective, smallest first; of equals, the first."""
    rows = [(d.area_mm2, *(d.numbers[FIELDS[o]] for o in objectives)) for d in found]
    return [found[i] for i in nondominated(rows)]


def nondominated(rows: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the rows that no other is as good as everywhere, in order; of equal rows, the first."""
    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (*rows[i], i)):
        if not any(all(x <= y for x, y in zip(rows[k], rows[i], strict=True)) for k in kept):
            kept.append(i)
    return kept


def best(found: Sequence[Design], objective: str) -> Design | None:
    """The best design by one objective; of equals, the smallest."""
    return min(found, key=lambda d: (d.numbers[FIELDS[objective]], d.area_mm2), default=None)


__all__ = ["FIELDS", "Design", "best", "designs", "front", "nondominated"]
