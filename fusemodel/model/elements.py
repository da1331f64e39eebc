"""How many distinct elements of a tensor are touched while some loops run: exact where it can be, else a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import gcd, prod

import numpy as np

from fusemodel.model.domain import MAX_UNION, Linear, count_exactly, count_union
from fusemodel.model.forms import Form

#: Values enumerated at most to count those of one index.
MAX_VALUES = 2**20


@dataclass(frozen=True)
class Touch:
    """One access of a tensor, in one piece of the space. ``index`` has a form over leaves for each dimension (None
    where it depends on data, and then ``data`` has the leaves it may depend on), ``limits`` the extents; ``forms``
    (<= 0) must hold at a point."""

    index: tuple[Linear | None, ...]
    data: tuple[tuple[str, ...], ...]
    limits: tuple[int, ...]
    forms: tuple[Form, ...]

    def key(self) -> tuple[object, ...]:
        """The same for accesses that touch the same elements."""
        index = tuple(i.key() if i else d for i, d in zip(self.index, self.data, strict=True))
        return (index, self.limits, tuple(sorted((f.key() for f in self.forms), key=repr)))


def touched(parts: Sequence[Touch], loops: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """Pairs of a step of ``loops`` and an element that some access touches during it, and whether that is exact; else
    it is an upper bound."""
    unique = list({p.key(): p for p in parts}.values())
    if len(unique) == 1:
        return _single(unique[0], loops, sizes)
    if len(unique) > MAX_UNION and (united := _united(unique, loops, sizes)) is not None:
        return united, True
    found = [_single(p, loops, sizes) for p in unique]
    total, known = sum(n for n, _ in found), all(exact for _, exact in found)
    if known and len(unique) <= MAX_UNION:
        for many in range(2, len(unique) + 1):
            for some in combinations(unique, many):
                n, exact = _common(some, loops, sizes)
                known = known and exact
                total += n if many % 2 else -n
        if known:
            return total, True
    if len(unique) <= MAX_UNION and (united := _united(unique, loops, sizes)) is not None:
        return united, True
    most = prod(sizes[x] for x in dict.fromkeys(loops)) * prod(unique[0].limits)
    return min(sum(n for n, _ in found), most), False


def _united(parts: Sequence[Touch], loops: Sequence[str], sizes: Mapping[str, int]) -> int | None:
    """Pairs of a step and an element that some access touches, elements being coordinates of their own; None where that
    is not known, or too much to count."""
    names = [f"[{d}]" for d in range(len(parts[0].limits))]
    pieces: list[list[Form]] = []
    for p in parts:
        if any(i is None for i in p.index):
            return None
        equal = [f for i, name in zip(p.index, names, strict=True) if i is not None for f in _equal(i, name)]
        pieces.append([*p.forms, *equal])
    n, exact = count_union(pieces, [*loops, *names], {**sizes, **dict(zip(names, parts[0].limits, strict=True))})
    return n if exact else None


def _single(part: Touch, loops: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """Where an index tells the coordinates in it apart they are counted, else the values of the index."""
    known = set(loops)
    waiting = [(i, limit) for i, limit in zip(part.index, part.limits, strict=True) if i is not None]
    progress = True
    while progress:
        progress = False
        for item in list(waiting):
            if _tells_apart(item[0], known, sizes):
                known |= {x for x in item[0].coefficients if sizes[x] > 1}
                waiting.remove(item)
                progress = True
    forms: list[Form] = list(part.forms)
    extended = dict(sizes)
    for d, (index, limit) in enumerate(waiting):
        name = f"[{d}]"
        extended[name] = limit
        known.add(name)
        forms += _equal(index, name)
    data = {x for i, leaves in zip(part.index, part.data, strict=True) if i is None for x in leaves} - known
    best, exact = count_exactly(forms, [*loops, *sorted(known - set(loops))], extended)
    if not any(i is None for i in part.index):
        return best, exact
    for i, limit in zip(part.index, part.limits, strict=True):
        best *= limit if i is None else 1
    every = count_exactly(forms, [*loops, *sorted((known | data) - set(loops))], extended)[0]
    return min(best, every), False


def _tells_apart(index: Linear, known: set[str], sizes: Mapping[str, int]) -> bool:
    """Whether the value of an index tells its coordinates, some of which are known."""
    reach = 0
    for c, n in sorted((abs(c), sizes[x]) for x, c in index.coefficients.items() if x not in known and sizes[x] > 1):
        if c <= reach:
            return False
        reach += c * (n - 1)
    return True


def _common(parts: Sequence[Touch], loops: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """Pairs of a step and an element that every access touches during it."""
    shared = set(loops)
    names: dict[int, str] = {}
    extended = dict(sizes)
    for d, limit in enumerate(parts[0].limits):
        index = parts[0].index[d]
        alike = index is not None and all(p.index[d] == index for p in parts)
        if index is not None and alike and _tells_apart(index, shared, sizes):
            shared |= set(index.coefficients)  # these coordinates are the same for all
        else:
            names[d] = f"[{d}]"
            extended[names[d]] = limit
    forms: list[Form] = []
    for i, part in enumerate(parts):
        mine: list[Form] = list(part.forms)
        for d, name in names.items():
            index = part.index[d]
            assert index is not None
            mine += _equal(index, name)
        for form in mine:
            change = {x: x if x in shared or x in names.values() else f"{x}@{i}" for x in form.coefficients}
            extended |= {new: sizes[x] for x, new in change.items() if new != x}
            forms.append(form.renamed(change))
    return count_exactly(forms, [*loops, *sorted(shared - set(loops)), *names.values()], extended)


def _equal(index: Linear, name: str) -> list[Linear]:
    up = Linear({**index.coefficients, name: -1}, index.constant)
    return [up, Linear({x: -c for x, c in up.coefficients.items()}, -up.constant)]


@lru_cache(maxsize=2**14)
def values(terms: tuple[tuple[int, int], ...], offsets: tuple[int, ...] = (0,)) -> int:
    """Distinct values of ``sum(stride * i) + offset`` with ``0 <= i < size``, for (stride, size) pairs and any of some
    offsets. An upper bound if they are more than 2^20 in an irregular pattern."""
    todo = sorted((s, n) for s, n in terms if n > 1 and s)
    divisor = gcd(*(s for s, _ in todo)) if todo else 1
    total, reach, solid, regular = 1, 1, True, True
    for stride, size in ((s // divisor, n) for s, n in todo):
        total, reach, solid, regular = widened(total, reach, solid, regular, stride, size)
    if solid:
        return _intervals(total, divisor, offsets)
    if regular and len(offsets) == 1:
        return total
    if total * len(offsets) > MAX_VALUES:
        return total * len(offsets)
    found = np.array(sorted(set(offsets)), dtype=np.int64)
    for stride, size in todo:
        found = np.unique(found[:, None] + stride * np.arange(size))
    return len(found)


def widened(total: int, reach: int, solid: bool, regular: bool, stride: int, size: int) -> tuple[int, int, bool, bool]:
    """Distinct values so far, and one more than the largest, with a term of a stride that is no smaller than those
    before. ``solid``: they have no gaps; ``regular``: the number is exact."""
    if stride >= reach:
        total, solid = total * size, solid and stride == reach
    elif solid:
        total = reach + stride * (size - 1)
    else:
        total, regular = min(total * size, reach + stride * (size - 1)), False
    return total, reach + stride * (size - 1), solid, regular


def _intervals(length: int, step: int, starts: tuple[int, ...]) -> int:
    """Values in a union of runs of ``length`` values, ``step`` apart."""
    total, ends = 0, {}
    for start in sorted(set(starts)):
        end = ends.get(start % step, start)
        total += length - max(0, end - start) // step
        ends[start % step] = start + length * step
    return total
