"""Indices and conditions of an Einsum as linear forms, and the words of the tiles it touches, for given extents.

Sizes are plain numbers or NumPy arrays of them (one element a candidate mapping).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import Apply, Expr, RankValue, rank_values
from fusemodel.model.domain import MAX_WITNESSES, Linear, Quotients, constraints, linear, on_leaves
from fusemodel.model.elements import Touch, values
from fusemodel.model.plan import Dim, EinsumPlan, Plan, Tile

#: A number, or an array with one element for each candidate.
Amount: TypeAlias = Any
Sizes: TypeAlias = Mapping[str, Amount]


def maximum(a: Amount, b: Amount) -> Amount:
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def minimum(a: Amount, b: Amount) -> Amount:
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def ceil_div(a: Amount, b: int) -> Amount:
    return -(-a // b)


class Frame:
    """An Einsum's indices and conditions as linear forms over its ranks, for given extents."""

    def __init__(self, plan: Plan, einsum: EinsumPlan, extents: Mapping[str, int]) -> None:
        self.einsum, self.extents = einsum, extents
        self.ranges = dict(extents)
        for whole, (outer, inner) in plan.cascade.split.items():
            self.ranges[whole] = extents[outer] * extents[inner]
        self.quotients = Quotients(self.ranges, einsum.name)
        self._forms: dict[tuple[Expr, ...], list[Linear]] = {}
        self._index: dict[int, Linear | None] = {}
        self.other: list[Expr] = []
        self.forms = self.binding(einsum.conditions)

    def with_quotients(self, sizes: Sizes) -> Sizes:
        """Sizes of leaves, and of the coordinates that stand for quotients."""
        return {**sizes, **self.quotients.sizes} if self.quotients.sizes else sizes

    def binding(self, conditions: tuple[Expr, ...]) -> list[Linear]:
        """The conditions that some point fails, as forms over ranks, with the quotients in them defined."""
        if conditions not in self._forms:
            forms, other = constraints(conditions, self.extents, self.quotients)
            forms = self._failing(forms)
            self._forms[conditions] = forms + self.quotients.closure(forms)
            self.other += [c for c in other if not self._always(c)]
        return self._forms[conditions]

    def _failing(self, forms: list[Linear]) -> list[Linear]:
        reach = {**self.ranges, **self.quotients.sizes}
        return [f for f in forms if f.constant + sum(max(0, c * (reach[r] - 1)) for r, c in f.coefficients.items()) > 0]

    def _always(self, condition: Expr) -> bool:
        """Whether one of several conditions joined by ``or`` holds everywhere."""
        match condition:
            case Apply("or", args):
                return any(self._always(a) for a in args)
            case Apply("and", args):
                return all(self._always(a) for a in args)
        forms, other = constraints([condition], self.extents, self.quotients)
        return not other and not self._failing(forms)

    def on_leaves(self, forms: Sequence[Linear], sizes: Sizes) -> list[Linear]:
        return on_leaves(forms, self.einsum.ranks, self.with_quotients(sizes))

    def index(self, dim: Dim) -> Linear | None:
        """The index as a form over ranks (and quotients); None if it depends on data or is not linear."""
        if id(dim) not in self._index:
            self._index[id(dim)] = None if dim.data else linear(dim.index, self.extents, self.quotients)
        return self._index[id(dim)]

    def shape(self, tile: Tile) -> tuple[object, ...]:
        """The same for tiles that are the same and change alike, constants in their indices and conditions aside."""
        used = {x for d in tile.dims for x in d.all_leaves}
        last = max((i for i, x in enumerate(tile.outside) if x in used), default=-1)
        return tuple(self._dim_shape(d) for d in tile.dims), tile.outside[: last + 1]

    def _dim_shape(self, dim: Dim) -> tuple[object, ...]:
        form = self.index(dim)
        if form is None or self.quotient(dim):
            return dim.rank, dim.index, dim.all_leaves
        terms = ((c, dim.leaves.get(r, (r,))) for r, c in form.coefficients.items())
        return dim.rank, tuple(sorted(terms, key=lambda t: t[1]))

    def offsets(self, tile: Tile) -> tuple[int, ...]:
        """The constants in the indices."""
        return tuple(form.constant if (form := self.index(d)) else 0 for d in tile.dims)

    def quotient(self, dim: Dim) -> bool:
        """Whether the index divides."""
        form = self.index(dim)
        return form is not None and any(x in self.quotients.sizes for x in form.coefficients)

    def touch(self, tile: Tile, sizes: Sizes, *, conditions: bool = True) -> Touch:
        """The elements that an access touches at the points present."""
        index = [self.index(d) for d in tile.dims]
        forms: list[Linear] = []
        if conditions:
            forms += [*self.forms, *self.binding(tile.guards)]
        forms += self.quotients.closure(i for i in index if i is not None)
        unique = {f.key(): f for f in self.on_leaves(forms, sizes)}
        return Touch(
            tuple(self.on_leaves([i], sizes)[0] if i is not None else None for i in index),
            tuple(d.all_leaves for d in tile.dims),
            tuple(self.extents[d.rank] + d.iterative for d in tile.dims),
            tuple(unique.values()),
        )

    def motion(self, tile: Tile, sizes: Sizes) -> tuple[tuple[str, ...], tuple[object, ...]]:
        """The loops whose steps bring a tile again, outermost first, and how its indices change with each of them."""
        loops = [x for x in tile.outside if sizes[x] > 1]
        change: list[tuple[object, ...]] = []
        for x in loops:
            change.append(tuple(self._change(d, x, sizes) for d in tile.dims))
        last = max((i for i, c in enumerate(change) if any(c)), default=-1)
        return tuple(loops[: last + 1]), tuple(change[: last + 1])

    def _change(self, dim: Dim, leaf: str, sizes: Sizes) -> object:
        if leaf not in dim.all_leaves:
            return 0
        form = self.index(dim)
        if form is None:
            return dim.index
        if self.quotient(dim):
            return dim.index if _varies(self.grid(dim, sizes), dim.all_leaves.index(leaf)) else 0
        return self.on_leaves([form], sizes)[0].coefficients.get(leaf, 0)

    def grid(self, dim: Dim, sizes: Sizes) -> np.ndarray | None:
        """The values of an index over its leaves; None if they are too many."""
        shape = [int(sizes[x]) for x in dim.all_leaves]
        if prod(shape) > MAX_WITNESSES:
            return None
        axes = dict(zip(dim.all_leaves, np.ogrid[tuple(slice(0, n) for n in shape)], strict=True))
        ranks: dict[str, Any] = {}
        for rank, leaves in dim.leaves.items():
            ranks[rank] = sum(axes[x] * prod(int(sizes[y]) for y in leaves[i + 1 :]) for i, x in enumerate(leaves))
        return np.broadcast_to(_value(dim.index, ranks, self.extents), shape)


def _varies(grid: np.ndarray | None, axis: int) -> bool:
    return grid is None or bool(np.diff(grid, axis=axis).any())


def _value(expr: Expr, ranks: Mapping[str, Any], extents: Mapping[str, int]) -> Any:
    """A linear index, or one that divides, over arrays of coordinates."""
    match expr:
        case RankValue(rank):
            return ranks[rank]
        case Apply(op, args) if rank_values(expr):
            a = [_value(x, ranks, extents) for x in args]
            return {"+": lambda: a[0] + a[1], "-": lambda: a[0] - a[1], "*": lambda: a[0] * a[1], "neg": lambda: -a[0],
                    "//": lambda: a[0] // a[1], "%": lambda: a[0] % a[1]}[op]()  # fmt: skip
    return int(evaluate(expr, extents))


def span(frame: Frame, dim: Dim, inner: frozenset[str], sizes: Sizes, offsets: tuple[int, ...] = (0,)) -> Amount:
    """Distinct values of one index, plus any of some ``offsets``, while ``inner`` leaves run."""
    product: Amount = 1
    for leaf in dim.all_leaves:
        if leaf in inner:
            product = product * sizes[leaf]
    form = frame.index(dim)
    limit = frame.extents[dim.rank] + dim.iterative
    if form is None:
        return minimum(product, limit)
    if frame.quotient(dim):
        return min(product, limit, _widest(frame.grid(dim, sizes), dim.all_leaves, inner))
    if len(dim.leaves) <= 1 and len(offsets) == 1:
        return minimum(product, frame.extents[dim.split]) if dim.split else product
    strides, counts = [], []
    for rank, leaves in dim.leaves.items():
        stride: Amount = abs(form.coefficients.get(rank, 0))
        for leaf in reversed(leaves):
            if leaf in inner:
                strides.append(stride)
                counts.append(sizes[leaf])
            stride = stride * sizes[leaf]
    return minimum(_values(strides, counts, offsets), limit)


def _values(strides: list[Amount], counts: list[Amount], offsets: tuple[int, ...]) -> Amount:
    if not any(isinstance(x, np.ndarray) for x in (*strides, *counts)):
        return values(tuple((int(s), int(n)) for s, n in zip(strides, counts, strict=True)), offsets)
    rows = np.stack(np.broadcast_arrays(*strides, *counts), axis=-1).astype(np.int64)
    unique, back = np.unique(rows, axis=0, return_inverse=True)
    half = len(strides)
    found = [values(tuple(zip(row[:half], row[half:], strict=True)), offsets) for row in unique.tolist()]
    return np.array(found, dtype=float)[back.reshape(-1)]


def _widest(grid: np.ndarray | None, leaves: tuple[str, ...], inner: frozenset[str]) -> Amount:
    """The most distinct values of an index in one position of its tile."""
    if grid is None:
        return float("inf")
    axes = [i for i, x in enumerate(leaves) if x in inner]
    rows = np.moveaxis(grid, axes, range(len(axes))).reshape(int(prod(grid.shape[i] for i in axes)), -1)
    ordered = np.sort(rows, axis=0)
    return int((np.diff(ordered, axis=0) != 0).sum(axis=0).max()) + 1


def words(frame: Frame, tile: Tile, sizes: Sizes, offsets: Collection[tuple[int, ...]] = ()) -> Amount:
    """Words of a tile, every point being present; of several accesses whose indices differ by ``offsets`` in one place,
    their union."""
    outside = frozenset(tile.outside)
    total: Amount = 1
    for i, dim in enumerate(tile.dims):
        apart = tuple(sorted({o[i] for o in offsets})) or (0,)
        total = total * span(frame, dim, frozenset(dim.all_leaves) - outside, sizes, apart)
    return total


def steps(tile: Tile, sizes: Sizes) -> Amount:
    """Times a tile is brought."""
    used = {x for d in tile.dims for x in d.all_leaves}
    return brought([(x, x in used) for x in reversed(tile.outside)], sizes)


def brought(loops: Iterable[tuple[str, bool]], sizes: Sizes) -> Amount:
    """Steps of every loop from the outermost to the innermost one that changes a tile; ``loops`` innermost first, with
    whether each changes it."""
    total: Amount = 1
    active: Amount = False
    for leaf, changes in loops:
        size = sizes[leaf]
        if isinstance(size, np.ndarray) or isinstance(active, np.ndarray):
            active = active | ((size > 1) if changes else False)
            total = total * np.where(active, size, 1)
        else:
            active = active or (changes and size > 1)
            total = total * (size if active else 1)
    return total


def plain(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> bool:
    """Whether the words of accesses that share a tile are a product over its indices, of numbers or arrays."""
    frame, tile = frames[tiles[0].einsum], tiles[0]
    leaves = [x for d in tile.dims for x in d.all_leaves]
    if len(leaves) != len(set(leaves)) or any(frame.quotient(d) for d in tile.dims):
        return False
    if len(tiles) == 1:
        return True
    offsets = [frames[t.einsum].offsets(t) for t in tiles]
    differ = sum(len(set(values_of)) > 1 for values_of in zip(*offsets, strict=True))
    return differ <= 1 and len({frames[t.einsum].shape(t) for t in tiles}) == 1


def simple_leaves(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> tuple[str, ...] | None:
    """The leaves whose sizes multiply to the words of a plain tile, where nothing else matters; None where it does."""
    tile = tiles[0]
    frame = frames[tile.einsum]
    if len({frames[t.einsum].offsets(t) for t in tiles}) > 1:
        return None
    outside = set(tile.outside)
    leaves: list[str] = []
    for dim in tile.dims:
        ragged = dim.split is not None and frame.ranges[dim.split] != frame.extents[dim.split]
        if frame.index(dim) is None or frame.quotient(dim) or len(dim.leaves) > 1 or ragged:
            return None
        leaves += [x for x in dim.all_leaves if x not in outside]
    return tuple(leaves)


def plain_words(frames: Mapping[str, Frame], tiles: Sequence[Tile], sizes: Sizes) -> Amount:
    return words(frames[tiles[0].einsum], tiles[0], sizes, {frames[t.einsum].offsets(t) for t in tiles})


def product(leaves: Iterable[str], sizes: Sizes) -> Amount:
    total: Amount = 1
    for leaf in leaves:
        total = total * sizes[leaf]
    return total


def frames_of(plan: Plan, extents: Mapping[str, int]) -> dict[str, Frame]:
    """The forms of every Einsum, kept for the extents asked for last."""
    key = tuple(extents.items())
    if plan.memo.get("extents") != key:
        plan.memo.clear()
        plan.memo.update(frames={n: Frame(plan, e, extents) for n, e in plan.einsums.items()}, extents=key)
    return plan.memo["frames"]
