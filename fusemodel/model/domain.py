"""Exact counts of the points, steps and elements that meet conditions on coordinates.

A set of points is given by forms that must be at most 0 (:mod:`fusemodel.model.forms`); several sets are united. The
coordinates looked at are ``seen``; the others only need to have some value that meets the forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import prod

import numpy as np

from fusemodel.model.forms import (
    Defined,
    Form,
    Linear,
    Quotients,
    added,
    bounds_of,
    linear,
    narrowed,
    on_leaves,
    scaled,
)
from fusemodel.model.grid import Grid, definitions
from fusemodel.model.pieces import constraints, regions
from fusemodel.model.presence import Conditions, conditions_of

#: Combinations enumerated at most for one exact count, the longest coordinates being solved for.
MAX_ENUMERATED = 2**26
#: Points looked at most for one exact count, where elimination cannot tell.
MAX_WITNESSES = 2**24
#: Sets whose union is counted by inclusion and exclusion.
MAX_UNION = 4
_BLOCK = 2**20
#: Combinations enumerated without asking whether looking at points is cheaper, or other coordinates.
_FEW = 2**14
_MANY = 2**18
#: Forms of which coordinates are eliminated without asking what else could be done.
_SIMPLE = 6
#: Points looked at rather than eliminated, for each pair of forms.
_CHEAP = 2**8
#: Pairs of forms made at most by eliminating one coordinate.
_MOST_PAIRS = 2**7
#: Products of lengths that are solved for stay below this.
_MAX_SOLVED = 2**42


def count(forms: Sequence[Form], loops: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Steps of ``loops`` during which some point is present, the other coordinates running over all their values."""
    return count_exactly(forms, loops, sizes)[0]


def count_exactly(forms: Sequence[Form], loops: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """:func:`count`, and whether it is exact; if not it is an upper bound.

    Coordinates that are not ``loops`` are eliminated (Fourier and Motzkin), which is exact for whole numbers where a
    coefficient is 1 or tiles leave no gap. If there are gaps, or a coordinate is computed, up to ``MAX_WITNESSES``
    points are looked at, and more are bounded.
    """
    loops = tuple(dict.fromkeys(loops))
    tidy = _tidy(forms, sizes, loops)
    if tidy is None:
        return 0, True
    total, exact = 1, True
    used: set[str] = set()
    for some in _components(tidy):
        names = _names(some)
        used |= names
        found, known = _component(some, [x for x in loops if x in names], {x: sizes[x] for x in names})
        total, exact = total * found, exact and known
        if not total:
            return 0, True
    return total * prod(sizes[x] for x in loops if x not in used), exact


def count_union(
    pieces: Sequence[Sequence[Form]], loops: Sequence[str], sizes: Mapping[str, int], *, apart: bool = False
) -> tuple[int, bool]:
    """Steps of ``loops`` during which a point of some piece is present, and whether that is exact (else it is an upper
    bound). ``apart``: no two pieces have a point in common, whatever the coordinates that forms define are called."""
    told = apart and all(_told(p, loops, sizes) for p in pieces)
    if len(pieces) > MAX_UNION and not told and (united := _united(pieces, loops, sizes)) is not None:
        return united, True
    found = [count_exactly(p, loops, sizes) for p in pieces]
    pieces = [p for p, (n, _) in zip(pieces, found, strict=True) if n]
    counts = [(n, exact) for n, exact in found if n]
    total = sum(n for n, _ in counts)
    exact = all(exact for _, exact in counts)
    if len(pieces) < 2 or told:
        return total, exact
    most = min(total, prod(sizes[x] for x in dict.fromkeys(loops)))
    if exact and len(pieces) <= MAX_UNION:
        for many in range(2, len(pieces) + 1):
            for some in combinations(pieces, many):
                n, known = _in_all(some, loops, sizes)
                exact = exact and known
                total += n if many % 2 else -n
        if exact:
            return total, True
    united = _united(pieces, loops, sizes) if len(pieces) <= MAX_UNION else None
    return (most, False) if united is None else (united, True)


def _told(forms: Sequence[Form], seen: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Whether the coordinates seen tell every other one."""
    names = {x for f in forms for x in f.coefficients if sizes[x] > 1}
    return names <= {*seen, *_determined(forms, set(seen), sizes)}


def _in_all(pieces: Sequence[Sequence[Form]], loops: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """Steps during which a point of each piece is present."""
    joint: list[Form] = []
    more = dict(sizes)
    for i, piece in enumerate(pieces):
        change = {x: x if x in loops else f"{x}@{i}" for f in piece for x in f.coefficients}
        more |= {new: sizes[x] for x, new in change.items()}
        joint += [f.renamed(change) for f in piece]
    return count_exactly(joint, loops, more)


def _united(pieces: Sequence[Sequence[Form]], loops: Sequence[str], sizes: Mapping[str, int]) -> int | None:
    """The same by marking steps in a table; None where that is too large."""
    seen = [x for x in dict.fromkeys(loops) if sizes[x] > 1]
    parts: list[list[list[Form]]] = []
    for piece in pieces:
        tidy = _tidy(piece, sizes, seen)
        part = [] if tidy is None else _components(tidy)
        inner = [count_exactly(some, (), sizes) for some in part if not _names(some) & set(seen)]
        if not all(exact for _, exact in inner):
            return None
        if tidy is not None and all(n for n, _ in inner):
            parts.append([some for some in part if _names(some) & set(seen)])
    groups: list[set[str]] = []  # coordinates that some piece couples
    for part in parts:
        for some in part:
            joined = _names(some) & set(seen)
            for g in [g for g in groups if g & joined]:
                groups.remove(g)
                joined |= g
            groups.append(joined)
    total = prod(sizes[x] for x in seen if not any(x in g for g in groups)) if parts else 0
    together: set[str] = set()
    for g in groups:
        own = [_within(part, g) for part in parts]
        if all(o == own[0] for o in own):  # alike in every piece
            n, exact = count_exactly(own[0], sorted(g), sizes)
            if not exact:
                return None
            total *= n
        else:
            together |= g
    axes = [x for x in seen if x in together]
    if prod(sizes[x] for x in axes) > MAX_WITNESSES:
        return None
    table = np.zeros([sizes[x] for x in axes], dtype=bool)
    for part in parts:
        mine = np.ones((1,) * len(axes), dtype=bool)
        for some in part:
            if (names := _names(some)) & together:
                grid = Grid(some, [x for x in axes if x in names], sizes)
                if grid.points > MAX_WITNESSES:
                    return None
                marked = np.zeros([sizes[x] for x in grid.seen], dtype=bool)
                grid.mark(marked)
                mine = mine & marked.reshape([sizes[x] if x in names else 1 for x in axes])
        table |= mine
    return total * int(table.sum())


def _names(forms: Sequence[Form]) -> set[str]:
    return {x for f in forms for x in f.coefficients}


def _within(part: Sequence[Sequence[Form]], group: set[str]) -> list[Form]:
    """The forms on some coordinates, in an order of their own."""
    return sorted((f for some in part if group & _names(some) for f in some), key=lambda f: repr(f.key()))


def _components(forms: Sequence[Form]) -> list[list[Form]]:
    """The forms in groups that have no coordinate in common."""
    groups: list[tuple[set[str], list[Form]]] = []
    for form in forms:
        names, some = set(form.coefficients), [form]
        for group in [g for g in groups if g[0] & names]:
            groups.remove(group)
            names |= group[0]
            some = [*group[1], *some]
        groups.append((names, some))
    return [some for _, some in groups]


def _component(forms: Sequence[Form], seen: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """Steps of coordinates that forms couple."""
    names, key = _canonical(forms, seen, sizes)
    return _counted(key, tuple(names[x] for x in seen), tuple(sizes[x] for x in names), MAX_WITNESSES)


def _canonical(
    forms: Sequence[Form], seen: Sequence[str], sizes: Mapping[str, int]
) -> tuple[dict[str, str], tuple[Form, ...]]:
    """The forms with coordinates numbered, so that the same conditions of another Einsum look the same."""

    def look(form: Form) -> str:
        terms = sorted((sizes[x], x in seen, c) for x, c in form.coefficients.items())
        return f"{isinstance(form, Linear)}{terms}{form.constant if isinstance(form, Linear) else form.least}"

    ordered = sorted(forms, key=look)
    names: dict[str, str] = {}
    for form in ordered:
        terms = sorted(form.coefficients.items(), key=lambda t: (sizes[t[0]], t[0] in seen, t[1], t[0]))
        for x, _ in terms:
            names.setdefault(x, f"#{len(names)}")
    return names, tuple(f.renamed(names) for f in ordered)


@lru_cache(maxsize=2**12)
def _counted(
    forms: tuple[Form, ...], seen: tuple[str, ...], extents: tuple[int, ...], witnesses: int
) -> tuple[int, bool]:
    sizes = {f"#{i}": n for i, n in enumerate(extents)}
    known = [f for f in forms if isinstance(f, Linear)]
    found = _by_elimination(known, seen, sizes) if len(known) == len(forms) <= _SIMPLE else None
    if found is not None:
        return found, True
    grid = Grid(forms, seen, sizes)
    can_look = grid.points <= witnesses and (grid.tells_apart or prod(sizes[x] for x in seen) <= witnesses)
    if len(known) == len(forms) and not (can_look and grid.points <= _CHEAP * len(forms) ** 2):
        found = _by_elimination(known, seen, sizes) if len(forms) > _SIMPLE else None
        if found is None and (told := _determined(forms, set(seen), sizes)):
            found = _by_elimination(known, (*seen, *told), sizes)
    if found is None and can_look:
        found = grid.count()
    if found is not None:
        return found, True
    left: list[Linear] | None = known
    for x in sizes:
        if x not in seen and left is not None:
            few = _pairs(left, x) <= _MOST_PAIRS
            rest = _without(left, x, sizes)[0] if few else [f for f in left if x not in f.coefficients]
            left = _linear_only(_tidy(rest, sizes))
    bound = 0 if left is None else _visible(left, seen, sizes)
    return prod(sizes[x] for x in seen) if bound is None else bound, False


def _by_elimination(forms: list[Linear], seen: Sequence[str], sizes: Mapping[str, int]) -> int | None:
    """Steps of the coordinates seen; None where eliminating the others is not exact, or leaves too much to count."""
    tidy = _linear_only(_tidy(forms, sizes))
    if tidy is None:
        return 0
    hidden, tidy = _merge({x: sizes[x] for x in sizes if x not in seen}, tidy)
    sizes = {**sizes, **hidden}
    tidy, left = _eliminate(tidy, list(hidden), sizes)
    if tidy is None:
        return 0
    return None if left else _visible(tidy, seen, sizes)


def _determined(forms: Sequence[Form], known: set[str], sizes: Mapping[str, int]) -> list[str]:
    """Coordinates that have one value at most where the forms are met and some coordinates are known."""
    found: list[str] = []
    waiting = [(x, set(f.coefficients) - {x}) for x, f in definitions(forms) if x not in known]
    progress = True
    while progress:
        progress = False
        for x, needs in waiting:
            if x not in found and x not in known and all(y in found or y in known or sizes[y] == 1 for y in needs):
                found.append(x)
                progress = True
    return found


def _linear_only(forms: Sequence[Form] | None) -> list[Linear] | None:
    return None if forms is None else [f for f in forms if isinstance(f, Linear)]


def _tidy(forms: Sequence[Form], sizes: Mapping[str, int], seen: Sequence[str] = ()) -> list[Form] | None:
    """The forms that say something; None if they cannot be met. What computes a coordinate is left out where that is
    not ``seen`` and no condition needs it."""
    found = narrowed([f for f in forms if isinstance(f, Linear)], {x: sizes[x] for f in forms for x in f.coefficients})
    if found is None:
        return None
    used = {*seen, *(x for f in found for x in f.coefficients)}
    defined = [f for f in forms if isinstance(f, Defined) and f.name in used]
    return [*found, *defined]


def _eliminate(
    forms: list[Linear] | None, hidden: list[str], sizes: Mapping[str, int]
) -> tuple[list[Linear] | None, list[str]]:
    """Forms without those ``hidden`` coordinates whose elimination is exact, and the coordinates left."""
    while forms is not None:
        pairs = {x: n for x in hidden if (n := _pairs(forms, x))}
        best: list[Linear] | None = None
        gone = ""
        for x in sorted(pairs, key=lambda x: pairs[x]):
            if pairs[x] <= _MOST_PAIRS and best is None:
                found, exact = _without(forms, x, sizes)
                if exact:
                    best, gone = found, x
        if best is None:
            return forms, list(pairs)
        forms, hidden = _linear_only(_tidy(best, sizes)), [x for x in pairs if x != gone]
    return forms, hidden


def _pairs(forms: Sequence[Linear], x: str) -> int:
    """Pairs of forms that bound a coordinate from below and from above, its range among them; 0 if none does."""
    signs = [f.coefficients[x] > 0 for f in forms if x in f.coefficients]
    return (1 + sum(signs)) * (1 + len(signs) - sum(signs)) if signs else 0


def _without(forms: Sequence[Linear], x: str, sizes: Mapping[str, int]) -> tuple[list[Linear], bool]:
    """What the forms say of the other coordinates when some whole ``x`` in its range meets them; is that exact?"""
    result = [f for f in forms if x not in f.coefficients]
    bounds = [f for f in forms if x in f.coefficients] + [Linear({x: -1}, 0), Linear({x: 1}, 1 - sizes[x])]
    exact = True
    for low in bounds:
        for high in bounds:
            a, b = -low.coefficients[x], high.coefficients[x]
            if a <= 0 or b <= 0:
                continue
            both = added(scaled(low, b), scaled(high, a))
            if a > 1 and b > 1 and bounds_of(both, sizes)[1] + (a - 1) * (b - 1) > 0:
                exact = False
            result.append(both)
    return result, exact


def _visible(forms: list[Linear], loops: Sequence[str], sizes: Mapping[str, int]) -> int | None:
    """Points of the box of ``loops`` that meet every form; None where there are too many combinations."""
    coupled, merged = _merge({x: sizes[x] for x in loops if any(x in f.coefficients for f in forms)}, forms)
    total = prod(sizes[x] for x in loops if not any(x in f.coefficients for f in forms))
    for some in _components(merged):
        names = sorted(_names(some))
        found = _enumerate([f for f in some if isinstance(f, Linear)], {x: coupled[x] for x in names})
        if found is None:
            return None
        total *= found
    return total


def _merge(sizes: dict[str, int], forms: list[Linear]) -> tuple[dict[str, int], list[Linear]]:
    """Join an outer and an inner coordinate that only occur as ``outer * size(inner) + inner``."""
    changed = True
    while changed:
        changed = False
        for outer in list(sizes):
            for inner in list(sizes):
                if outer == inner or not all(
                    f.coefficients.get(outer, 0) == f.coefficients.get(inner, 0) * sizes[inner] for f in forms
                ):
                    continue
                sizes = {x: n * (sizes[outer] if x == inner else 1) for x, n in sizes.items() if x != outer}
                forms = [Linear({x: c for x, c in f.coefficients.items() if x != outer}, f.constant) for f in forms]
                changed = True
                break
            if changed:
                break
    return sizes, forms


def _shared_out(forms: Sequence[Linear], sizes: Mapping[str, int]) -> tuple[list[str], list[str], int]:
    """Coordinates to solve for, the others, and combinations of these."""
    solved: list[str] = []
    for x in sorted(sizes, key=lambda x: -sizes[x]):
        beside = {y for f in forms if x in f.coefficients for y in f.coefficients}
        if not beside & set(solved) and prod(sizes[y] for y in (x, *solved)) <= max(_MAX_SOLVED, sizes[x]):
            solved.append(x)
    others = [x for x in sizes if x not in solved]
    return solved, others, prod(sizes[x] for x in others)


def _turned(forms: Sequence[Linear], sizes: Mapping[str, int]) -> tuple[list[Linear], dict[str, int]] | None:
    """The same points in other coordinates, of which there are fewer combinations: where a sum lies in a narrow band (a
    remainder, the distance from a diagonal), its place in the band stands in for a coordinate in it."""
    bounds = {tuple(sorted(f.coefficients.items())): f for f in forms}
    _, _, least = _shared_out(forms, sizes)
    best: tuple[list[Linear], dict[str, int]] | None = None
    for f in forms:
        against = bounds.get(tuple(sorted((x, -c) for x, c in f.coefficients.items())))
        width = 0 if against is None else -(f.constant + against.constant)
        if against is None or width < 0:
            continue
        for x, c in f.coefficients.items():
            if abs(c) != 1 or width + 1 >= sizes[x]:
                continue
            rest = Linear({y: k for y, k in f.coefficients.items() if y != x}, f.constant)
            value = scaled(added(rest, Linear({f"{x}'": 1}, 0)), -c)
            limits = [Linear({x: -1}, 0), Linear({x: 1}, 1 - sizes[x])]
            changed = [
                added(Linear({y: k for y, k in g.coefficients.items() if y != x}, g.constant), scaled(value, k))
                if (k := g.coefficients.get(x, 0)) else g
                for g in (*forms, *limits) if g is not f and g is not against
            ]  # fmt: skip
            after = {**{y: n for y, n in sizes.items() if y != x}, f"{x}'": width + 1}
            tidy = _linear_only(_tidy(changed, after))
            if tidy is None:
                return [Linear({f"{x}'": 1}, 1)], after  # nowhere
            total = _shared_out(tidy, after)[2]
            if 2 * total <= least:
                best, least = (tidy, after), total
    return best


def _enumerate(forms: list[Linear], sizes: dict[str, int]) -> int | None:
    """Points of a box that meet every form; None where there are too many combinations.

    Coordinates that no form couples with one another are solved for, long ones first: each has as many values as the
    others leave it. The others are enumerated.
    """
    solved, others, total = _shared_out(forms, sizes)
    if total > _MANY and (turned := _turned(forms, sizes)):
        return _visible(turned[0], list(turned[1]), turned[1])
    if total > _FEW and (grid := Grid(forms, list(sizes), sizes)).points < total:
        return grid.count() if grid.points <= MAX_ENUMERATED else None
    if total > MAX_ENUMERATED:
        return None
    result = 0
    for start in range(0, total, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, total), dtype=np.int64)
        at = dict(zip(others, np.unravel_index(index, [sizes[x] for x in others]), strict=True)) if others else {}
        low = {x: np.zeros(len(index), dtype=np.int64) for x in solved}
        high = {x: np.full(len(index), sizes[x] - 1, dtype=np.int64) for x in solved}
        met = np.ones(len(index), dtype=bool)
        for form in forms:
            rest = np.full(len(index), form.constant, dtype=np.int64)
            mine = ""
            for x, c in form.coefficients.items():
                if x in at:
                    rest += c * at[x]
                else:
                    mine = x
            c = form.coefficients.get(mine, 0)
            if c > 0:
                high[mine] = np.minimum(high[mine], -rest // c)
            elif c < 0:
                low[mine] = np.maximum(low[mine], -(-rest // -c))
            else:
                met &= rest <= 0
        points = met.astype(np.int64)
        for x in solved:
            points *= np.maximum(high[x] - low[x] + 1, 0)
        result += int(points.sum())
    return result


__all__ = [
    "Conditions", "Linear", "Quotients", "conditions_of", "constraints", "count", "count_exactly", "count_union",
    "linear", "on_leaves",
    "regions",
]  # fmt: skip
