"""Tile sizes: fixed ones checked, ``max`` filled in, and the best taken where a mapping leaves a choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from math import isqrt, prod

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.cascade.extents import evaluate, integer
from fusemodel.cascade.ir import Expr, Number
from fusemodel.errors import InputError, Where
from fusemodel.mapping.spec import Auto, Candidates, Group, TileSize
from fusemodel.model.amounts import Amount, Sizes, ceil_div
from fusemodel.model.apart import kept_apart
from fusemodel.model.cost import GroupCost, cost_of, excess_of
from fusemodel.model.decided import Inexact
from fusemodel.model.movement import in_blocks
from fusemodel.model.plan import Plan
from fusemodel.quantities import size

_BLOCK = 2**16  # candidates evaluated in one call, so that memory stays bounded
_MAX_CANDIDATES = 2**22
_TOLERANCE = 1e-9  # objectives closer than this are a tie, which the order of the file decides


@dataclass(frozen=True)
class Chosen:
    """The plan and sizes taken for one group, and among how many candidates."""

    plan: Plan
    sizes: Mapping[str, Amount]
    cost: GroupCost
    evaluated: int


@lru_cache(maxsize=4096)
def divisors(n: int) -> tuple[int, ...]:
    """Every divisor, largest first."""
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}, reverse=True))


def choose(
    plans: Sequence[Plan], candidates: Candidates, extents: Mapping[str, int], sets: Mapping[str, int]
) -> Chosen:
    """The best candidate by the group's objectives in order, the first in the file's order among equals."""
    if not candidates.minimise:
        sizes = sizes_of(plans[0], extents, sets)
        cost = cost_of(plans[0], sizes, extents)
        _check_fits(plans[0], sizes, cost)
        return Chosen(plans[0], sizes, cost, 1)
    best: Chosen | None = None
    best_score: list[float] = []
    evaluated, problem = 0, None
    for plan in plans:
        try:
            blocks = _blocks(plan, extents, sets)
        except InputError as error:
            problem = problem or error
            continue
        for sizes, total in blocks:
            evaluated += total
            found = _best_of(plan, sizes, extents, candidates.minimise)
            if found is None:
                continue
            index, score = found
            if best is None or _better(score, best_score):
                picked = {x: int(n[index]) if isinstance(n, np.ndarray) else n for x, n in sizes.items()}
                best, best_score = Chosen(plan, picked, cost_of(plan, picked, extents), 0), score
    if best is None:
        if problem and not evaluated:
            raise problem
        group = plans[0].group
        raise InputError(
            f"none of {evaluated} candidates for {group.name!r} fits: {_nearest_miss(plans, extents, sets)}",
            group.places.get("keep", Where()), expected="smaller tiles, fewer tensors kept, or `spill: true`",
        )  # fmt: skip
    return Chosen(best.plan, best.sizes, best.cost, evaluated)


def _nearest_miss(plans: Sequence[Plan], extents: Mapping[str, int], sets: Mapping[str, int]) -> str:
    """What is over-full, and by how much, in the candidate that comes closest to fitting (of those looked at first)."""
    least, text = float("inf"), "none divides"
    for plan in plans:
        try:
            sizes, length = next(_blocks(plan, extents, sets))
        except InputError:
            continue
        index = length - 1
        if not in_blocks(plan):
            excess = [np.maximum(x, 0.0) for x in excess_of(plan, sizes, extents).values()]
            index = int(np.argmin(np.broadcast_to(sum(excess), (length,))))
        picked = {x: int(n[index]) if isinstance(n, np.ndarray) else n for x, n in sizes.items()}
        if problem := next((x for x in plan.replaced if kept_apart(x.partings, picked)), None):
            text = problem.problem(picked, plan.arch.outermost).message if text == "none divides" else text
            continue
        cost = cost_of(plan, picked, extents)
        level, words = max(cost.excess_words.items(), key=lambda x: x[1])
        if words < least:
            least, text = words, over_full(plan, cost, level)
    return text


def _better(a: list[float], b: list[float]) -> bool:
    for x, y in zip(a, b, strict=True):
        if x < y * (1 - _TOLERANCE):
            return True
        if x > y * (1 + _TOLERANCE):
            return False
    return False


def _best_of(plan: Plan, sizes: Mapping[str, Amount], extents: Mapping[str, int], minimise: Sequence[str]):
    """The best candidate of a block that fits: its index and objectives."""
    if in_blocks(plan):
        return _best_one_by_one(plan, sizes, extents, minimise)
    try:
        cost = cost_of(plan, sizes, extents)
    except Inexact:
        return _best_one_by_one(plan, sizes, extents, minimise)
    length = next((len(n) for n in sizes.values() if isinstance(n, np.ndarray)), 1)
    fits = np.ones(length, dtype=bool)
    for excess in cost.excess_words.values():
        fits &= np.broadcast_to(np.asarray(excess) <= 0, (length,))
    if not fits.any():
        return None
    alive = np.flatnonzero(fits)
    score = []
    for objective in minimise:
        values = np.broadcast_to(np.asarray(objective_of(plan.arch, cost, objective), dtype=float), (length,))[alive]
        least = values.min()
        score.append(float(least))
        alive = alive[values <= least * (1 + _TOLERANCE)]
    return int(alive[0]), score


def _best_one_by_one(plan: Plan, sizes: Mapping[str, Amount], extents: Mapping[str, int], minimise: Sequence[str]):
    length = next((len(n) for n in sizes.values() if isinstance(n, np.ndarray)), 1)
    best: tuple[int, list[float]] | None = None
    for i in range(length):
        one = {x: int(n[i]) if isinstance(n, np.ndarray) else n for x, n in sizes.items()}
        cost = cost_of(plan, one, extents)
        if any(excess > 0 for excess in cost.excess_words.values()):
            continue
        score = [float(objective_of(plan.arch, cost, o)) for o in minimise]
        if best is None or _better(score, best[1]):
            best = i, score
    return best


def objective_of(arch: Architecture, cost: GroupCost, objective: str) -> Amount:
    match objective:
        case "latency":
            return cost.cycles
        case "dram":
            return sum(t.read + t.write for t in cost.traffic[arch.outermost].values())
        case "energy":
            return group_energy_pj(arch, cost)
        case _:
            return cost.cycles * group_energy_pj(arch, cost)


def group_energy_pj(arch: Architecture, cost: GroupCost) -> Amount:
    """Operations, and accesses of every level."""
    total: Amount = sum(e.energy_pj for e in cost.einsums.values())
    for name, tensors in cost.traffic.items():
        level = arch.levels[name]
        per_word = arch.word_bytes / level.access_bytes
        total = total + sum(t.read * level.read_pj + t.write * level.write_pj for t in tensors.values()) * per_word
    return total


def _check_fits(plan: Plan, sizes: Sizes, cost: GroupCost) -> None:
    for one in plan.replaced:
        if kept_apart(one.partings, sizes):
            raise one.problem(sizes, plan.arch.outermost)
    for name, excess in cost.excess_words.items():
        if excess > 0:
            raise InputError(
                over_full(plan, cost, name), plan.group.places.get("keep", Where()),
                expected="smaller tiles, fewer tensors kept, or `spill: true` on a tensor",
            )  # fmt: skip


def over_full(plan: Plan, cost: GroupCost, level: str) -> str:
    """What does not fit: by how much, and which tiles take how much."""
    word = plan.arch.word_bytes
    limit = min(plan.arch.levels[level].size_bytes or float("inf"), plan.group.budget_bytes.get(level, float("inf")))
    held = sorted(cost.footprint_words.get(level, {}).items(), key=lambda x: -x[1])
    tiles = ", ".join(f"{t} {size(w * word)}" for t, w in held)
    return f"{level!r} is over-full by {size(cost.excess_words[level] * word)} of {size(limit)}: {tiles}"


def _requested(group: Group, sets: Mapping[str, int]) -> dict[str, TileSize]:
    own = {p for ps in group.parts.values() for p in ps}
    return {**group.sizes, **{p: Number(n) for p, n in sets.items() if p in own}}


def _fixed(group: Group, extents: Mapping[str, int], requested: Mapping[str, TileSize]) -> dict[str, int]:
    """Sizes given as numbers or expressions, evaluated in the order they need each other."""
    pending: dict[str, Expr] = {
        n: s for n, s in requested.items() if not isinstance(s, (Auto, tuple)) and n not in extents
    }
    known: dict[str, int] = {}
    while pending:
        progress = False
        for name, expr in list(pending.items()):
            where = group.places.get(f"tile.{name}", Where())
            try:
                evaluate(expr, {**extents, **known}, where)
            except InputError as error:
                if "no extent here" in error.message and len(pending) > 1 and name != next(reversed(pending)):
                    continue
                if "no extent here" in error.message and progress:
                    continue
                raise
            known[name] = integer(expr, {**extents, **known}, f"tile {name!r}", where)
            del pending[name]
            progress = True
    return _joined(group, known)


def _joined(group: Group, known: Mapping[str, int]) -> dict[str, int]:
    """Sizes with those of inner parts that are divided further: the product of their own parts."""
    result = dict(known)
    inner = {p for ps in group.parts.values() for p in ps[1:]}
    for rank, parts in reversed(chains(group)):
        if rank in inner and rank not in result:
            if missing := [p for p in parts if p not in result]:
                raise InputError(
                    f"part {rank!r} has no size", group.places.get(f"tile.{rank}", Where()),
                    expected=f"a size for {missing[0]!r} too, since only the outermost part of a rank is what is left",
                )  # fmt: skip
            result[rank] = prod(result[p] for p in parts)
    return result


def chains(group: Group) -> list[tuple[str, tuple[str, ...]]]:
    """Tiled ranks with their parts, a rank before its parts' own parts."""
    order, pending = [], dict(group.parts)
    while pending:
        inner = {p for ps in pending.values() for p in ps}
        rank = next(r for r in pending if r not in inner)
        order.append((rank, pending.pop(rank)))
    return order


def sizes_of(plan: Plan, extents: Mapping[str, int], sets: Mapping[str, int]) -> dict[str, int]:
    """Sizes of a group without choices: ``max`` parts take, one after another, the largest divisor (of the tiles that
    the other parts leave) that fits."""
    group = plan.group
    requested = _requested(group, sets)
    known = {**extents, **_fixed(group, extents, requested)}
    automatic = [n for n, s in requested.items() if isinstance(s, Auto) and n not in extents]
    trial = {**known, **dict.fromkeys(automatic, 1)}
    for name in automatic:
        rank, parts = next((r, ps) for r, ps in group.parts.items() if name in ps)
        whole = _whole(group, rank, trial)
        others = prod(trial[p] for p in parts[1:] if p != name)
        _tiles_in(group, rank, parts, whole, {**trial, name: 1})
        options, completed = _dividing(group, trial, name, divisors(ceil_div(whole, others)))
        fits = np.ones(len(options), dtype=bool)
        if not in_blocks(plan):
            varying = {n for sizes in completed for n in sizes if sizes[n] != completed[0][n]}
            columns = {n: np.array([float(sizes[n]) for sizes in completed]) for n in varying}
            for excess in excess_of(plan, {**completed[0], **columns}, extents).values():
                fits &= np.broadcast_to(np.asarray(excess) <= 0, fits.shape)
        else:
            for i, one in enumerate(completed):
                fits[i] = all(e <= 0 for e in excess_of(plan, one, extents).values())
        trial[name] = int(options[np.argmax(fits)]) if fits.any() else 1
    return _completed(group, trial)


def _dividing(
    group: Group, trial: Mapping[str, int], name: str, options: Sequence[int]
) -> tuple[list[int], list[dict[str, int]]]:
    """Those sizes of a part with which every rank is whole tiles (or, where no size does that, each), with the sizes of
    all parts."""
    found: list[tuple[int, dict[str, int]]] = []
    problem: InputError | None = None
    for option in options:
        try:
            found.append((option, _completed(group, {**trial, name: option})))
        except InputError as error:
            problem = error
    if not found and problem:
        raise problem
    whole = [x for x in found if all(x[1][r] == prod(x[1][p] for p in ps) for r, ps in group.parts.items())]
    return [n for n, _ in whole or found], [sizes for _, sizes in whole or found]


def _whole(group: Group, rank: str, sizes: Mapping[str, int]) -> int:
    """The extent of a tiled rank or part."""
    if rank in sizes:
        return sizes[rank]
    parent, parts = next((r, ps) for r, ps in group.parts.items() if rank in ps)
    return ceil_div(_whole(group, parent, sizes), prod(sizes[p] for p in parts if p != rank and p in sizes))


def _completed(group: Group, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes with every outermost part filled in as what is left, the last tile ragged; InputError where parts must
    divide and do not."""
    result = dict(sizes)
    for rank, parts in chains(group):
        whole = result[rank]
        outer, rest = _tiles_in(group, rank, parts, whole, result)
        if result.get(parts[0], outer) != outer:
            raise InputError(
                f"the parts of {rank!r} make {result[parts[0]] * rest}, not {whole}",
                group.places.get(f"tile.{parts[0]}", group.places.get(f"tile.{rank}", Where())),
                expected=f"{parts[0]} = {outer}, or none given",
            )
        result[parts[0]] = outer
    return result


def outer_parts(group: Group, rank: str) -> list[str]:
    """The outermost part of a rank, that part's own outermost part, and so on."""
    found = []
    while rank in group.parts:
        rank = group.parts[rank][0]
        found.append(rank)
    return found


def may_be_ragged(group: Group, rank: str) -> bool:
    """Whether the last tile of a rank may be smaller than the others: not where it is an inner part itself, of which
    there are many."""
    inner = {p for ps in group.parts.values() for p in ps[1:]}
    return rank not in inner and rank not in group.exact


def _tiles_in(group: Group, rank: str, parts: tuple[str, ...], whole: int, sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many tiles a rank has, and their size."""
    rest = 1
    for part in parts[1:]:
        size = sizes[part]
        rest *= size
        if whole % rest and not may_be_ragged(group, rank):
            fitting = [d for d in divisors(whole) if d <= size] or [1]
            raise InputError(
                f"tile {part} = {size} does not divide {rank} = {whole}"
                + (f" / {rest // size}" if rest != size else ""),
                group.places.get(f"tile.{part}", Where()), expected=f"a divisor, such as {fitting[0]}",
            )  # fmt: skip
    return ceil_div(whole, rest), rest


Block = tuple[dict[str, Amount], int]


def _blocks(plan: Plan, extents: Mapping[str, int], sets: Mapping[str, int]) -> Iterator[Block]:
    """Every combination of sizes of a group with choices, in blocks of arrays, in the file's order. InputError comes at
    once, not with a block."""
    group = plan.group
    requested = _requested(group, sets)
    known = {**extents, **_fixed(group, extents, requested)}
    order = chains(group)
    options = [_combinations(group, rank, parts, requested, known) for rank, parts in order]
    total = prod(len(o) for o in options)
    if total > _MAX_CANDIDATES:
        raise InputError(f"{total} combinations of tile sizes", group.places.get("", Where()),
                         expected=f"at most {_MAX_CANDIDATES}: lists instead of `any`")  # fmt: skip
    return _filled([p for _, parts in order for p in parts], options, known)


def _filled(names: list[str], options: list[list[tuple[int, ...]]], known: Mapping[str, int]) -> Iterator[Block]:
    combinations = product(*options)
    while rows := [[n for sizes in combination for n in sizes] for combination in islice(combinations, _BLOCK)]:
        columns = np.array(rows, dtype=float).reshape(len(rows), len(names)).T
        yield {**known, **{n: columns[i] for i, n in enumerate(names)}}, len(rows)


def _combinations(
    group: Group, rank: str, parts: tuple[str, ...], requested: Mapping[str, TileSize], known: Mapping[str, int]
) -> list[tuple[int, ...]]:
    """Sizes of the parts of one rank, outermost first, for each way to divide it."""
    if rank not in known:
        raise InputError(
            f"{rank!r} is divided further while its size is chosen", group.places.get(f"tile.{rank}", Where())
        )
    whole = known[rank]
    given = known.get(parts[0])
    for ragged in (False, True)[: 1 + may_be_ragged(group, rank)]:  # ragged tiles where no others are left
        result: list[tuple[int, ...]] = [()]
        for part in reversed(parts[1:]):
            size = requested.get(part)
            grown = []
            for inner in result:
                left = ceil_div(whole, prod(inner))
                listed = size if isinstance(size, tuple) else () if isinstance(size, Auto) else (known[part],)
                allowed = divisors(left) if isinstance(size, Auto) else listed
                grown += [(n, *inner) for n in allowed if left % n == 0 or (ragged and n <= max(left, min(allowed)))]
            result = grown
        found = [(ceil_div(whole, prod(inner)), *inner) for inner in result]
        if found := [sizes for sizes in found if given is None or sizes[0] == given]:
            return found
    raise InputError(f"no tile sizes listed for {rank!r} divide {whole}", group.places.get(f"tile.{rank}", Where()))
