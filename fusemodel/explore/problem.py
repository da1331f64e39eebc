"""What is to be mapped, as data that a worker on any machine can take: problems by a key of their content, and solving.

Problems that differ only in the extents of batch ranks have the same best mapping, and are solved together. Batch ranks
are carried by every tensor and every Einsum, and the mapper loops over them outside all else, so that every cost is
proportional to their extents and no footprint depends on them. Machines that differ in their memories only are a
family: what the choices of a mapping add up to is counted once for all of them, and what is best on one may be seen to
be best on another (:mod:`fusemodel.explore.share`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import fusemodel
from fusemodel.arch import Architecture
from fusemodel.cascade import Cascade, format_cascade, parse_cascade
from fusemodel.cascade.ir import Extent, RankValue, walk
from fusemodel.errors import InputError
from fusemodel.explore.found import Found, Progress
from fusemodel.explore.found import Point as Mapped
from fusemodel.explore.known import Known, bare
from fusemodel.explore.mapper import DEFAULT, best_mapping
from fusemodel.explore.share import Solved, amounts, is_best, on
from fusemodel.model import Evaluation, evaluate

#: The folders of this package that a result depends on.
_DECIDING = ("cascade", "analysis", "arch", "mapping", "model", "explore")
Result = dict[str, Any]


@cache
def version() -> str:
    """The tool's version and a hash of the code that results depend on: results of other code are not taken."""
    home = Path(fusemodel.__file__).parent
    digest = sha256()
    for path in sorted(p for folder in _DECIDING for p in (home / folder).rglob("*") if p.suffix in (".py", ".lark")):
        digest.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    return f"{fusemodel.__version__}+{digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class Problem:
    """One best mapping to be found: ``cascade`` is its text, ``seconds`` a limit to the search."""

    cascade: str
    arch: Architecture
    extents: tuple[tuple[str, int], ...]
    objectives: tuple[str, ...]
    seconds: float | None
    key: str


@dataclass(frozen=True)
class Task:
    """Problems that one search may answer, and the version of the code that is to do it. Tasks of a ``family`` are done
    faster by a worker that has done some of them."""

    problems: tuple[Problem, ...]
    version: str
    family: str = ""


def text_of(cascade: Cascade) -> str:
    """A cascade as text without what does not matter to a mapping."""
    return format_cascade(replace(cascade, name="cascade", about="", source="", provenance="", reference=None, test={}))


def canonical(arch: Architecture) -> str:
    """The numbers of an architecture that a mapping's costs depend on: not its area, and not what it is called."""
    levels = [{k: v for k, v in asdict(x).items() if k != "area_um2"} for x in arch.levels.values()]
    units = []
    for u in arch.units.values():
        registers = {k: v for k, v in asdict(u.registers).items() if k != "area_um2"} if u.registers else None
        ops = {n: {k: v for k, v in asdict(o).items() if k != "area_um2"} for n, o in sorted(u.ops.items())}
        units.append([u.name, dict(u.shape), registers, ops, sorted(u.reduce)])
    return json.dumps([arch.clock_hz, arch.word_bytes, levels, units])


def problem(
    cascade: str, arch: Architecture, numbers: str, extents: Mapping[str, int], objectives: Sequence[str],
    seconds: float | None = None,
) -> Problem:  # fmt: skip
    """A problem with its key; ``cascade`` is :func:`text_of` and ``numbers`` is :func:`canonical` of the two."""
    sizes = tuple(sorted(extents.items()))
    said = json.dumps([version(), cascade, numbers, sizes, list(objectives)])
    key = sha256(said.encode()).hexdigest()
    return Problem(cascade, arch, sizes, tuple(objectives), seconds, key)


def tasks_of(problems: Sequence[Problem]) -> list[Task]:
    """Problems gathered so that those which may have the same best mapping are solved together, better machines first:
    the same cascade, objectives and extents but for batch ranks, and machines that differ in sizes and bandwidths."""
    together: dict[Any, dict[str, list[Problem]]] = {}
    memories: dict[int, tuple[str, str]] = {}
    for p in problems:
        if id(p.arch) not in memories:
            levels = {n: replace(x, size_bytes=None, bandwidth_bytes_per_s=None) for n, x in p.arch.levels.items()}
            memories[id(p.arch)] = canonical(bare(p.arch)), canonical(replace(p.arch, levels=levels))
        batch = _loose_batch(p.cascade)
        sizes = tuple((r, min(n, 2) if r in batch else n) for r, n in p.extents)
        units, prices = memories[id(p.arch)]
        family = together.setdefault((p.cascade, units, sizes, p.objectives, p.seconds), {})
        family.setdefault(prices, []).append(p)
    tasks = []
    for key, family in together.items():
        name = sha256(repr(key).encode()).hexdigest()
        alike = []
        for found in family.values():
            machines: dict[tuple[float, ...], list[Problem]] = {}
            for p in found:
                machines.setdefault(amounts(p.arch), []).append(p)
            alike.append([machines[a] for a in sorted(machines, reverse=True)])
        for best_first in sorted(alike, key=lambda ps: amounts(ps[0][0].arch), reverse=True):
            for k in range(0, len(best_first), _TOGETHER):
                some = tuple(p for ps in best_first[k : k + _TOGETHER] for p in ps)
                tasks.append(Task(some, version(), name))
    return tasks


_TOGETHER = 8  # machines in one task: its results are kept when all are there


@lru_cache(maxsize=64)
def _cascade(text: str) -> Cascade:
    return parse_cascade(text)


@lru_cache(maxsize=64)
def _loose_batch(text: str) -> frozenset[str]:
    """The batch ranks of a cascade that nothing in its equations or extents mentions."""
    cascade = _cascade(text)
    mentioned = {x for e in cascade.einsums for part in (e.target, e.body, e.where) if part for x in _ranks(part)}
    mentioned |= {x for r, expr in cascade.ranks.items() for x in _ranks(expr)}
    mentioned |= {x for whole, parts in cascade.split.items() for x in (whole, *parts)}
    return frozenset(cascade.batch) - mentioned


def _ranks(expr: Any) -> set[str]:
    return {x.rank for x in walk(expr) if isinstance(x, (Extent, RankValue))}


def solve(task: Task) -> list[tuple[str, Result]]:
    """The results of a task's problems by key; a problem for which there is no mapping has an ``error`` instead."""
    if task.version != version():
        raise InputError(f"a worker runs fusemodel {version()}, and this is {task.version}",
                         expected="the same code on every worker")  # fmt: skip
    home = _home(task.family)
    results: dict[str, Result] = {}
    for p in task.problems:
        cascade = _cascade(p.cascade)
        began = time.perf_counter()
        others = (_shared(s, p, cascade) for s in reversed(home.solved))
        if shared := next((r for r in others if r), None):
            results[p.key] = shared
            continue
        known = home.known.setdefault(p.extents, Known())
        try:
            found = search(cascade, p.arch, dict(p.extents), p.objectives, p.seconds, known=known)
        except InputError as error:
            said = str(InputError(error.message, expected=error.expected, nearest=error.nearest))  # its place is here
            spent = time.perf_counter() - began
            results[p.key] = {"error": said, "proven": True, "limit_s": None, "seconds": spent}
            continue
        results[p.key] = _result(found, p, 1.0)
        home.solved.append(Solved(p.arch, p.extents, found, known.bounds))
    return list(results.items())


def _shared(solved: Solved, p: Problem, cascade: Cascade) -> Result | None:
    """The result of another problem as that of ``p``, where that is certain."""
    sizes = dict(p.extents)
    ratio = prod(sizes[b] for b in cascade.batch) / prod(dict(solved.extents)[b] for b in cascade.batch)
    if not is_best(solved, p.arch, sizes, ratio):
        return None
    return _result(on(solved.found, p.arch), p, ratio) | {"evaluated": 0, "seconds": 0.0}


@dataclass
class _Home:
    """What a worker knows of a family of problems: costs by extents, and what it solved."""

    known: dict[tuple[tuple[str, int], ...], Known] = field(default_factory=dict)
    solved: list[Solved] = field(default_factory=list)


@lru_cache(maxsize=2)
def _home(_family: str) -> _Home:
    return _Home()


#: By which power of the batch an objective grows.
_POWERS = {"edp": 2, "buffer": 0}


def search(
    cascade: Cascade, arch: Architecture, extents: Mapping[str, int], objectives: Sequence[str] = ("latency",),
    seconds: float | None = None, progress: Progress | None = None, known: Known | None = None,
) -> Found:  # fmt: skip
    """The mapper, asked for the best by the first objective (of equals, by those that follow), and for the front of
    several."""
    order = (*objectives, *(o for o in DEFAULT if o not in objectives))
    front = tuple(objectives) if len(objectives) > 1 else ()
    return best_mapping(cascade, arch, extents, order, front=front, seconds=seconds, progress=progress, known=known)


def _result(found: Found, p: Problem, ratio: float) -> Result:
    """What is kept of a search, its mappings evaluated at the extents of a problem."""
    return {
        **member(found.best, dict(p.extents)), "front": [member(x, dict(p.extents)) for x in found.front],
        "bound": found.bound * ratio ** _POWERS.get(found.objectives[0], 1), "proven": found.proven, "gap": found.gap,
        "evaluated": found.evaluated, "space": found.space, "pruned": dict(found.pruned), "seconds": found.seconds,
        "limit_s": p.seconds,
    }  # fmt: skip


def member(mapped: Mapped, extents: Mapping[str, int]) -> Result:
    """A mapping and the totals of its evaluation."""
    return {"mapping": mapped.fields, **totals(evaluate(mapped.design, sets=extents))}


def totals(e: Evaluation) -> Result:
    """The numbers of an evaluation without those of its Einsums."""
    inner = list(e.traffic_bytes)[1:]
    held = [sum(sum(g.footprint_bytes.get(level, {}).values()) for level in inner) for g in e.groups]
    return {
        "latency_s": e.latency_s, "cycles": e.cycles, "energy_j": e.energy_j,
        "energy_with_registers_j": e.energy_with_registers_j, "edp_js": e.latency_s * e.energy_j,
        "dram_bytes": e.dram_bytes, "buffer_bytes": max(held, default=0.0), "utilization": e.utilization,
        "bound_by": e.bound, "energy_breakdown_j": e.energy_breakdown_j, "notes": e.notes,
    }  # fmt: skip


__all__ = [
    "Problem", "Result", "Task", "canonical", "member", "problem", "search", "solve", "tasks_of", "text_of", "totals",
    "version",
]  # fmt: skip
