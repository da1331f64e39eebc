"""Counting by looking at every point: coordinates that others determine are computed, the rest are enumerated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import Apply, Expr, Extent, Number, RankValue, walk
from fusemodel.model.forms import Defined, Form, Linear
from fusemodel.model.presence import THROUGHOUT

Array = NDArray[Any]
_BLOCK = 2**20


def definitions(forms: Sequence[Form]) -> list[tuple[str, Form]]:
    """Coordinates that are known where the others in a form are: they are computed, or the form bounds them from above
    and its counterpart from below so closely that one value is left at most."""
    found: list[tuple[str, Form]] = []
    bounds = {tuple(sorted(f.coefficients.items())): f.constant for f in forms if isinstance(f, Linear)}
    for f in forms:
        if isinstance(f, Defined):
            found.append((f.name, f))
            continue
        against = bounds.get(tuple(sorted((x, -c) for x, c in f.coefficients.items())))
        if against is not None:
            found += [(x, f) for x, c in f.coefficients.items() if c > max(0, -(f.constant + against))]
    return found


class Grid:
    """The points of a box that meet some forms, as seen on some of the coordinates. ``points`` is how many must be
    looked at, ``tells_apart`` whether no two of them look the same."""

    def __init__(self, forms: Sequence[Form], seen: Sequence[str], sizes: Mapping[str, int]) -> None:
        self.forms, self.seen, self.sizes = forms, seen, sizes
        names = dict.fromkeys((*seen, *(x for f in forms for x in f.coefficients)))
        options = sorted(definitions(forms), key=lambda d: (isinstance(d[1], Linear), -sizes[d[0]], d[0] in seen, d[0]))

        def left(kept: frozenset[str]) -> int:
            gone = {x for x, _ in _order(options, kept)}
            return prod(sizes[x] for x in names if x not in gone)

        kept: frozenset[str] = frozenset()
        must = {f.name for f in forms if isinstance(f, Defined)}
        while better := [k for x in names if x not in must and left(k := kept | {x}) < left(kept)]:
            kept = min(better, key=left)
        self.computed = _order(options, kept)
        gone = {x for x, _ in self.computed}
        self.axes = sorted((x for x in names if x not in gone), key=lambda x: -sizes[x])
        steps = [_steps(f.value) for f in forms if isinstance(f, Defined)]
        self.points = prod(sizes[x] for x in self.axes) * max(steps, default=1)
        self.tells_apart = set(self.axes) <= set(seen)

    def count(self) -> int:
        """Points as seen."""
        if self.tells_apart:
            return sum(int(np.broadcast_to(met, shape).sum()) for _, met, shape in self._blocks())
        table = np.zeros([self.sizes[x] for x in self.seen], dtype=bool)
        self.mark(table)
        return int(table.sum())

    def mark(self, table: NDArray[np.bool_]) -> None:
        """Set the elements of a table, with an axis for each coordinate seen, at which there is a point."""
        flat = table.reshape(-1)
        for at, met, shape in self._blocks():
            place: Array = np.zeros((1,) * len(shape), dtype=np.int64)
            for x in self.seen:
                place = place * self.sizes[x] + at[x]
            shape = np.broadcast_shapes(place.shape, met.shape)
            flat[np.broadcast_to(place, shape)[np.broadcast_to(met, shape)]] = True

    def _blocks(self) -> Iterator[tuple[dict[str, Array], Array, tuple[int, ...]]]:
        """Coordinates, and where all forms are met, in blocks of points."""
        first = next((i for i in range(len(self.axes)) if prod(self.sizes[x] for x in self.axes[i + 1 :]) <= _BLOCK), 0)
        spans: list[list[range]] = []
        for i, x in enumerate(self.axes):
            n = self.sizes[x]
            rest = prod(self.sizes[y] for y in self.axes[i + 1 :])
            step = 1 if i < first else max(1, _BLOCK // rest) if i == first else n
            spans.append([range(a, min(a + step, n)) for a in range(0, n, step)])
        for some in product(*spans):
            shape = tuple(len(s) for s in some)
            at: dict[str, Array] = {}
            for i, (x, span) in enumerate(zip(self.axes, some, strict=True)):
                values = np.arange(span.start, span.stop, dtype=np.int64)
                at[x] = values.reshape([len(span) if j == i else 1 for j in range(len(some))])
            yield at, self._met(at, len(shape)), shape

    def _met(self, at: dict[str, Array], rank: int) -> Array:
        met: Array = np.ones((1,) * rank, dtype=bool)
        for x, form in self.computed:
            if isinstance(form, Defined):
                value = np.asarray(value_on(form.value, at)).astype(np.int64) - form.least
            else:
                value = -_total(form, at, x) // form.coefficients[x]
            at[x] = np.clip(value, 0, self.sizes[x] - 1)
            met = met & (at[x] == value)
        for form in self.forms:
            if isinstance(form, Linear):
                met = met & (_total(form, at) <= 0)
        return met


def _order(options: Sequence[tuple[str, Form]], kept: frozenset[str]) -> list[tuple[str, Form]]:
    """Coordinates to compute, all but those ``kept``, each from others that are enumerated or computed before it."""
    found: list[tuple[str, Form]] = []
    gone: set[str] = set()
    while True:
        free = (o for o in options if o[0] not in gone and o[0] not in kept and not gone & o[1].coefficients.keys())
        if (chosen := next(free, None)) is None:
            return found
        gone.add(chosen[0])
        found.insert(0, chosen)


def _total(form: Linear, at: Mapping[str, Array], but: str = "") -> Array:
    total: Array = np.asarray(form.constant, dtype=np.int64)
    for x, c in form.coefficients.items():
        if x != but:
            total = total + c * at[x]
    return total


def _steps(expr: Expr) -> int:
    """How often conditions inside are looked at for each point."""
    sizes = [e.args[2] for e in walk(expr) if isinstance(e, Apply) and e.op == THROUGHOUT]
    return prod(int(n.value) for n in sizes if isinstance(n, Number))


def value_on(expr: Expr, at: Mapping[str, Array]) -> Array:
    """An expression on arrays of coordinates, with the meaning it has where a cascade is run."""
    from fusemodel.numerics.operators import apply

    match expr:
        case Number(value):
            return np.asarray(value, dtype=np.int64 if isinstance(value, int) else np.float64)
        case RankValue(name) | Extent(name):
            return np.asarray(at[name])
        case Apply(op, (after, Extent(step), Number(size), condition)) if op == THROUGHOUT:
            before = value_on(after, at)
            held: Array = np.ones((1,) * before.ndim, dtype=bool)
            for i in range(min(int(size), int(before.max()))):
                held = held & (value_on(condition, {**at, step: np.asarray(i)}).astype(bool) | (before <= i))
            return held
        case Apply(op, args):
            with np.errstate(all="ignore"):
                return np.asarray(apply(op, [value_on(a, at) for a in args], np.float64))
    raise TypeError(expr)
