"""When the best mapping on one machine is the best on another that differs in its memories only.

With no level larger and none faster, a mapping that fits on the other machine fits on the first and takes no longer
there; its words are the same. So if the best mapping of the first fits on the other and takes as long and moves as
many words, it is the best there by these. Of those equal by them, its energy is the least: let ``t`` be the least
ratio of a price on the other machine to that on the first, at most 1. Energy on the other is t times energy on the
first, and what is left: (1 - t) times that of operations, and words times prices that are not negative. If both parts
are least, so is their sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, isclose

from fusemodel.arch import Architecture
from fusemodel.errors import InputError
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.found import Found, Point
from fusemodel.model import Evaluation, evaluate

_CLOSE = 1e-9


@dataclass(frozen=True)
class Solved:
    """What was found on a machine at some extents, with the bounds there."""

    arch: Architecture
    extents: tuple[tuple[str, int], ...]
    found: Found
    bounds: Bounds | None


def amounts(arch: Architecture) -> tuple[float, ...]:
    """Sizes of all levels, then their bandwidths; what has no limit has all."""
    levels = arch.levels.values()
    every = [x.size_bytes for x in levels] + [x.bandwidth_bytes_per_s for x in levels]
    return tuple(inf if a is None else a for a in every)


def on(found: Found, arch: Architecture) -> Found:
    """What was found, on another machine with the same units and levels."""

    def moved(point: Point) -> Point:
        return replace(point, design=replace(point.design, arch=arch))

    return replace(
        found, best=moved(found.best), front=tuple(map(moved, found.front)), rounds=tuple(map(moved, found.rounds))
    )


def values(e: Evaluation, arch: Architecture) -> dict[str, float]:
    """The objectives of an evaluation, as :data:`fusemodel.explore.found.OBJECTIVES` has them, but for space."""
    registers = sum(v for k, v in e.energy_breakdown_j.items() if k.endswith(".registers"))
    return {"latency": e.cycles, "dram": e.dram_bytes / arch.word_bytes, "energy": (e.energy_j - registers) * 1e12}


def is_best(solved: Solved, arch: Architecture, extents: Mapping[str, int], ratio: float) -> bool:
    """Whether what was found is the best on another machine, at extents whose batch is ``ratio`` times as large."""
    before, found = solved.arch, solved.found
    if any(a < b for a, b in zip(amounts(before), amounts(arch), strict=True)):
        return False
    alike = _prices(before) == _prices(arch)
    if not alike and not (found.proven and _ordered(found)):
        return False
    least = None
    for point in (*found.rounds, *found.front):
        try:
            here = values(evaluate(replace(point.design, arch=arch), sets=extents), arch)
        except InputError:  # it does not fit
            return False
        for name in ("latency", "dram", *(("energy",) if alike else ())):
            if not isclose(here[name], point.values[name] * ratio, rel_tol=_CLOSE):
                return False
        if not alike:
            least = _rest(solved, arch, here["dram"] / ratio) * ratio if least is None else least
            t = _share(before, arch)
            if here["energy"] - t * point.values["energy"] * ratio > least + _CLOSE * here["energy"]:
                return False
    return True


def _prices(arch: Architecture) -> list[float]:
    """pJ of a word read, and of one written, at each level."""
    return [x * arch.word_bytes / n.access_bytes for n in arch.levels.values() for x in (n.read_pj, n.write_pj)]


def _ordered(found: Found) -> bool:
    """Whether objectives are compared one by one, traffic before energy."""
    names = found.objectives
    known = {"latency", "dram", "energy"} >= set(names)
    return known and not found.front and ("energy" not in names or "dram" in names[: names.index("energy")])


def _share(before: Architecture, arch: Architecture) -> float:
    pairs = [(b, a) for b, a in zip(_prices(before), _prices(arch), strict=True) if b > 0]
    return min((1.0, *(a / b for b, a in pairs)))


def _rest(solved: Solved, arch: Architecture, dram: float) -> float:
    """What is left of energy at least, in pJ, where so many words pass the outermost level."""
    if solved.bounds is None:
        return -inf
    t = _share(solved.arch, arch)
    outer = min(a - t * b for a, b in list(zip(_prices(arch), _prices(solved.arch), strict=True))[:2])
    return (1 - t) * sum(solved.bounds.energy.values()) + outer * dram


__all__ = ["Solved", "amounts", "is_best", "on", "values"]
