"""Indices and conditions of an Einsum as linear forms, and the words of the tiles it touches, for given extents.

Sizes are plain numbers or NumPy arrays of them (one element a candidate mapping).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fusemodel.cascade.ir import Expr, accesses, rank_values
from fusemodel.mapping.check import main_einsums
from fusemodel.model.amounts import Amount, Sizes, minimum, product, where
from fusemodel.model.domain import MAX_WITNESSES, Conditions, Linear, Quotients, count_union, linear, on_leaves, regions
from fusemodel.model.elements import Touch, values
from fusemodel.model.expression import Node
from fusemodel.model.forms import Form, Piece, linear_on_leaves, narrowed, with_numbers
from fusemodel.model.grid import value_on
from fusemodel.model.pieces import MAX_PIECES, Case, IndexCase, computed_index, index_cases, indexed
from fusemodel.model.plan import Dim, EinsumPlan, Plan, Tile
from fusemodel.model.ragged import Root, Taken, summed

if TYPE_CHECKING:
    from fusemodel.model.decided import Count

_ASIDE = 16  # extents for which the frames of a plan are kept


class Counter(Protocol):
    """Puts a count in the place of its value: an expression, or the values of all candidates."""

    def amount(self, count: Count) -> Amount: ...


class Frame:
    """An Einsum's indices and conditions as linear forms over its ranks, for given extents. ``pieces`` are where it has
    points, no two with one in common; ``other`` its conditions that depend on data; ``limits`` the extents that amounts
    are computed with; ``roots`` the ranks whose last tile is smaller, which the pieces do not say."""

    def __init__(self, plan: Plan, conditions: Conditions, einsum: EinsumPlan, extents: Mapping[str, int]) -> None:
        self.einsum, self.extents = einsum, extents
        #: Loops whose steps share nothing: each block brings its tiles itself.
        self.blocks = frozenset(plan.group.grid)
        self.limits: Sizes = extents
        #: What stands for counts that conditions decide, where sizes are no plain numbers.
        self.counter: Counter | None = None
        self.ranges = dict(extents)
        #: Ranks that the cascade splits, and their parts.
        self.wholes = dict(plan.cascade.split)
        for whole, (outer, inner) in plan.cascade.split.items():
            self.ranges[whole] = extents[outer] * extents[inner]
        self.ragged = frozenset(r for r in plan.cascade.split if self.ranges[r] != extents[r])
        self.quotients = Quotients(self.ranges, einsum.name)
        self._pieces: dict[tuple[Expr, ...], list[Piece]] = {}
        self._index: dict[int, Linear | None] = {}
        self._cases: dict[int, list[Case] | None] = {}
        self._distinct: dict[tuple[int, frozenset[str]], int] = {}
        self.other: list[Expr] = []
        #: Whether every tile takes what a whole one does: blocks run a program of their own.
        self.fixed = bool(plan.group.grid) or plan.group.skip is not None or plan.arch.instances > 1
        self.splits = () if self.fixed else self._splits(plan)
        self.roots = tuple(root for root, _ in self.splits)
        #: Ranks that the tiles of the mapping do not divide (:meth:`with_ragged`).
        self.loose: frozenset[str] = frozenset()
        self.pieces = self.where(einsum.conditions)
        doubts = conditions.doubts.get(einsum.name, ())
        #: Whether more points may be absent than the conditions say.
        self.doubtful = regions(doubts, extents, self.quotients) != ([()], [])

    def with_counter(self, counter: Counter, limits: Sizes | None = None) -> Frame:
        """The same frame for sizes that are no plain numbers, perhaps with symbols for extents in amounts."""
        other = copy(self)
        other.counter = counter
        other.limits = self.limits if limits is None else limits
        return other

    def coupled(self, more: Iterable[Expr] = ()) -> frozenset[str]:
        """The leaves that decide which points are present, and where ``more`` conditions hold."""
        named = {r for c in (*self.einsum.conditions, *more) for r in rank_values(c)}
        inside = (x for r in named for x in self.einsum.ranks.get(r, (r,)))
        return frozenset((*inside, *(x for root in self.roots for x in root.leaves)))

    def _splits(self, plan: Plan) -> tuple[tuple[Root, frozenset[object]], ...]:
        """The ragged splits of the cascade whose padding the Einsum does not have, with the forms that say so."""
        pieces, _ = regions(self.einsum.conditions, self.extents, self.quotients)
        found = []
        for whole, (outer, inner) in plan.cascade.split.items():
            last = 1 - self.extents[whole]
            ways = Linear({whole: 1}, last), Linear({outer: self.extents[inner], inner: 1}, last)
            said = {f.key() for way in ways for f in narrowed([way], self.ranges) or ()}
            forms = {f.key() for piece in pieces for f in piece} & said
            parts = [plan.group.leaves(x, plan.cascade) for x in (outer, inner)]
            if whole in self.ragged and forms and len(pieces) == 1 and {*parts[0], *parts[1]} <= {*self.einsum.leaves}:
                found.append((Root(whole, (*parts[0], *parts[1]), len(parts[0])), frozenset(said)))
        return tuple(found)

    def with_ragged(self, ranks: frozenset[str]) -> Frame:
        """The same frame, where the tiles of some ranks of the mapping do not divide them."""
        own = {r: self.einsum.ranks[r] for r in ranks if r in self.einsum.ranks}
        other = copy(self)
        leaves = {x for r in own.values() for x in r}
        roots = [replace(r, exact=0) if leaves & {*r.leaves[: r.exact]} else r for r in self.roots]
        inside = {x for r in roots for x in r.leaves}
        other.roots = (*roots, *(Root(r, own[r]) for r in own if not inside & {*own[r]}))
        other.loose = ranks
        return other

    @property
    def conditional(self) -> bool:
        """Whether some point is absent otherwise than for being past the end of a rank."""
        return self.pieces != [()] or (self.fixed and bool(self.roots))

    def steps(self, loops: Sequence[str], sizes: Sizes) -> Amount:
        """Steps of some leaves that exist, where no other point is absent."""
        if not self.roots:
            return product(loops, sizes)
        return self.combinations(dict.fromkeys(loops, True), sizes)

    def combinations(self, taken: Taken, sizes: Sizes) -> Amount:
        """Combinations that exist of the leaves ``taken``, each surely, not at all, or on a condition."""
        total: Amount = 1
        rooted = {x for r in self.roots for x in r.leaves}
        for leaf, held in taken.items():
            if leaf not in rooted and held is not False:
                total = total * (sizes[leaf] if held is True else where(held, sizes[leaf], 1))
        for root in self.roots:
            if any(taken.get(x, False) is not False for x in root.leaves):
                total = total * root.combinations(self.limits[root.rank], taken, sizes)
        return total

    def summed(
        self, loops: Sequence[str], spaces: Sequence[Sequence[str]], of: Callable[..., Amount], sizes: Sizes
    ) -> Amount:
        """The sum over the steps of some loops that exist of a function of the lanes in each of some spaces."""
        return summed(self.roots, self.limits, sizes, loops, spaces, of)

    def with_quotients(self, sizes: Sizes) -> Sizes:
        """Sizes of leaves, and of the coordinates that forms define."""
        return {**sizes, **self.quotients.sizes} if self.quotients.sizes else sizes

    def where(self, conditions: tuple[Expr, ...]) -> list[Piece]:
        """Where conditions hold, as forms over ranks in pieces that have no point in common."""
        if conditions not in self._pieces:
            pieces, other = regions(conditions, self.extents, self.quotients)
            if self.splits:
                said = {key for _, keys in self.splits for key in keys}
                pieces = [tuple(f for f in piece if f.key() not in said) for piece in pieces]
            self._pieces[conditions] = pieces
            self.other += [c for c in other if c not in self.other]
        return self._pieces[conditions]

    def count(self, loops: Sequence[str], sizes: Sizes) -> tuple[int, bool]:
        """Steps of some leaves during which a point is present, and whether that is exact; else an upper bound."""
        pieces = [self.on_leaves(p, sizes) for p in self.pieces]
        return count_union(pieces, loops, self.with_quotients(sizes), apart=True)

    def on_leaves(self, forms: Sequence[Form], sizes: Sizes) -> list[Form]:
        """Forms over ranks as forms over leaves, with those that leave out what is past the end of a rank."""
        ends = [r.form(self.extents[r.rank], sizes) for r in self.roots]
        return [*on_leaves(forms, self.einsum.ranks, self.with_quotients(sizes)), *ends]

    def index(self, dim: Dim) -> Linear | None:
        """The index as a form over ranks (and quotients); None if it depends on data or is not linear."""
        if id(dim) not in self._index:
            self._index[id(dim)] = None if dim.data else linear(dim.index, self.extents, self.quotients)
        return self._index[id(dim)]

    def cases(self, dim: Dim) -> list[Case] | None:
        """The index in each of the pieces in which it is a form; None if it depends on data."""
        if id(dim) not in self._cases:
            form, limit = self.index(dim), self.extents[dim.rank] + dim.iterative
            found = index_cases(dim.index, self.extents, self.quotients, limit) if form is None else [((), form)]
            self._cases[id(dim)] = found
        return self._cases[id(dim)]

    def computed(self, dim: Dim) -> list[Case]:
        """The index as one coordinate that is computed."""
        return computed_index(dim.index, self.extents, self.quotients, self.extents[dim.rank] + dim.iterative)

    def shape(self, tile: Tile) -> tuple[object, ...]:
        """The same for tiles that are the same and change alike, constants in their indices and conditions aside."""
        used = {x for d in tile.dims for x in d.all_leaves}
        last = max((i for i, x in enumerate(tile.outside) if x in used or x in self.blocks), default=-1)
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
        """Whether the index divides, or is computed from coordinates otherwise than as one form."""
        form = self.index(dim)
        if form is None:
            return not dim.data
        return any(x in self.quotients.sizes for x in form.coefficients)

    def touches(self, tile: Tile, sizes: Sizes) -> list[Touch]:
        """The elements that an access touches at the points present, piece by piece."""
        pieces = self.where(self.conditions_of(tile))
        every: list[Sequence[IndexCase]] = [self.cases(d) or [((), None)] for d in tile.dims]
        if prod(len(c) for c in every) > MAX_PIECES:
            every = [self.computed(d) if len(c) > 1 else c for c, d in zip(every, tile.dims, strict=True)]
        found = indexed(pieces, every, self.quotients)
        return [self._touch(tile, index, piece, sizes) for piece, index in found]

    def touch(self, tile: Tile, sizes: Sizes, *, conditions: bool) -> Touch:
        """The elements that an access touches whose indices are forms, at the points present where ``conditions`` are
        one piece, or at every point."""
        piece = self.where(self.conditions_of(tile))[0] if conditions else ()
        index = tuple(self.index(d) for d in tile.dims)
        forms = self.quotients.closure([*piece, *(i for i in index if i is not None)])
        return self._touch(tile, index, (*piece, *forms), sizes)

    def conditions_of(self, tile: Tile) -> tuple[Expr, ...]:
        """What must hold at a point for the element that an access names to be present."""
        return tuple(dict.fromkeys((*self.einsum.conditions, *tile.guards)))

    def _touch(self, tile: Tile, index: Sequence[Linear | None], piece: Piece, sizes: Sizes) -> Touch:
        leaves = self.with_quotients(sizes)
        return Touch(
            tuple(linear_on_leaves(i, self.einsum.ranks, leaves) if i is not None else None for i in index),
            tuple(d.all_leaves for d in tile.dims),
            tuple(self.extents[d.rank] + d.iterative for d in tile.dims),
            tuple({f.key(): f for f in self.on_leaves(piece, sizes)}.values()),
        )

    def motion(self, tile: Tile, sizes: Sizes) -> tuple[tuple[str, ...], tuple[object, ...]]:
        """The loops whose steps bring a tile again, outermost first, and how its indices change with each of them."""
        loops = [x for x in tile.outside if sizes[x] > 1]
        change: list[tuple[object, ...]] = []
        for x in loops:
            change.append(tuple(self._change(d, x, sizes) for d in tile.dims))
        last = max((i for i, c in enumerate(change) if any(c) or loops[i] in self.blocks), default=-1)
        return tuple(loops[: last + 1]), tuple(change[: last + 1])

    def _change(self, dim: Dim, leaf: str, sizes: Sizes) -> object:
        if leaf not in dim.all_leaves:
            return 0
        form = self.index(dim)
        if dim.data:
            return dim.index
        if form is None or self.quotient(dim):
            return dim.index if _varies(self.grid(dim, sizes), dim.all_leaves.index(leaf)) else 0
        return linear_on_leaves(form, self.einsum.ranks, sizes).coefficients.get(leaf, 0)

    def distinct(self, dim: Dim, inner: frozenset[str]) -> int:
        """The most distinct values of an index over whole ranks while some of them run: a number whatever the tiles."""
        inner = inner & frozenset(dim.all_leaves)
        if (id(dim), inner) not in self._distinct:
            most = prod(self.extents[x] for x in inner)
            limit = self.extents[dim.rank] + dim.iterative
            found = _widest(self.grid(dim, self.extents), dim.all_leaves, inner)
            self._distinct[id(dim), inner] = int(min(most, limit, found))
        return self._distinct[id(dim), inner]

    def changes(self, dim: Dim) -> tuple[str, ...]:
        """The leaves whose steps change an index."""
        if not (self.quotient(dim) and untiled(dim)):
            return dim.all_leaves
        grid = self.grid(dim, self.extents)
        return tuple(x for i, x in enumerate(dim.all_leaves) if _varies(grid, i))

    def grid(self, dim: Dim, sizes: Sizes) -> np.ndarray | None:
        """The values of an index over its leaves; None if they are too many."""
        shape = [int(sizes[x]) for x in dim.all_leaves]
        if prod(shape) > MAX_WITNESSES:
            return None
        axes = dict(zip(dim.all_leaves, np.ogrid[tuple(slice(0, n) for n in shape)], strict=True))
        ranks: dict[str, Any] = {}
        for rank, leaves in dim.leaves.items():
            ranks[rank] = sum(axes[x] * prod(int(sizes[y]) for y in leaves[i + 1 :]) for i, x in enumerate(leaves))
        return np.broadcast_to(value_on(with_numbers(dim.index, self.extents), ranks), shape)


def untiled(dim: Dim) -> bool:
    """Whether an index is of whole ranks."""
    return all(leaves == (rank,) for rank, leaves in dim.leaves.items())


def _varies(grid: np.ndarray | None, axis: int) -> bool:
    return grid is None or bool(np.diff(grid, axis=axis).any())


def span(frame: Frame, dim: Dim, inner: frozenset[str], sizes: Sizes, offsets: tuple[int, ...] = (0,)) -> Amount:
    """Distinct values of one index, plus any of some ``offsets``, while ``inner`` leaves run."""
    product: Amount = 1
    for leaf in dim.all_leaves:
        if leaf in inner:
            product = product * sizes[leaf]
    limit = frame.limits[dim.rank] + dim.iterative
    if dim.data:
        return minimum(product, limit)
    form = frame.index(dim)
    if form is None or frame.quotient(dim):
        if untiled(dim):
            return frame.distinct(dim, inner)
        return min(product, limit, _widest(frame.grid(dim, sizes), dim.all_leaves, inner))
    if len(offsets) == 1 and (len(dim.leaves) <= 1 or dim.split == dim.rank):  # parts of one coordinate
        return minimum(product, frame.limits[dim.split]) if dim.split in frame.ragged else product
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
    if graph := next((x.graph for x in (*strides, *counts) if isinstance(x, Node)), None):
        return graph.distinct(strides, counts, offsets)
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


def brought(loops: Iterable[tuple[str, bool]], sizes: Sizes) -> Amount:
    """Steps of every loop from the outermost to the innermost one that changes a tile; ``loops`` innermost first, with
    whether each changes it."""
    total: Amount = 1
    active: Amount = False
    for leaf, changes in loops:
        size = sizes[leaf]
        if not isinstance(size, int) or not isinstance(active, bool):
            active = active | ((size > 1) if changes else False)
            total = total * where(active, size, 1)
        else:
            active = active or (changes and size > 1)
            total = total * (size if active else 1)
    return total


def bringing(loops: Iterable[tuple[str, bool]], sizes: Sizes) -> dict[str, Amount]:
    """Whether each loop is one of those of :func:`brought`: True, False or a condition."""
    found: dict[str, Amount] = {}
    active: Amount = False
    for leaf, changes in loops:
        if changes and active is not True:
            steps = sizes[leaf] > 1
            active = active | steps if active is not False else steps
            active = bool(active) if isinstance(active, (bool, np.bool_)) else active
        found[leaf] = active
    return found


def frames_of(plan: Plan, extents: Mapping[str, int]) -> dict[str, Frame]:
    """The forms of every Einsum. What a plan keeps (``memo``) is for the extents asked for last; that of a few others
    is laid aside."""
    key = tuple(extents.items())
    memo = plan.memo
    if memo.get("extents") != key:
        conditions, same, aside = conditions_of(plan), memo.get("settled", plan), memo.get("aside", {})
        if "extents" in memo:
            aside[memo["extents"]] = {k: v for k, v in memo.items() if k != "aside"}
        while len(aside) > _ASIDE:
            del aside[next(iter(aside))]
        known = aside.pop(key, None)
        if known is None:
            frames = {n: Frame(plan, conditions, e, extents) for n, e in plan.einsums.items()}
            known = {"frames": frames, "extents": key, "conditions": conditions, "settled": same}
        memo.clear()
        memo.update(known, aside=aside)
    return memo["frames"]


def loose_ranks(plan: Plan, sizes: Sizes, extents: Mapping[str, int]) -> frozenset[str]:
    """The ranks that the tiles of a mapping do not divide (some of them, for arrays)."""
    if "tiled" not in plan.memo:
        group = plan.group
        plan.memo["tiled"] = [(r, group.leaves(r, plan.cascade)) for r in group.parts if r in plan.cascade.ranks]
    found = []
    for rank, leaves in plan.memo["tiled"]:
        total: Amount = 1
        for leaf in leaves:
            total = total * sizes[leaf]
        ragged = total != extents[rank]
        if ragged is True or (ragged is not False and np.any(ragged)):
            found.append(rank)
    return frozenset(found)


def ragged_frames(plan: Plan, extents: Mapping[str, int], loose: frozenset[str]) -> dict[str, Frame]:
    """:func:`frames_of`, where the tiles of some ranks do not divide them."""
    frames = frames_of(plan, extents)
    if not loose:
        return frames
    if ("frames", loose) not in plan.memo:
        plan.memo["frames", loose] = {n: f.with_ragged(loose) for n, f in frames.items()}
    return plan.memo["frames", loose]


def settled(plan: Plan) -> Plan:
    """The plan with indices that are read from tensors computed from coordinates alone written out."""
    if "settled" not in plan.memo:
        tiles = [m.tile for m in plan.moves] + [t for f in plan.footprints for _, t in f.tiles]
        other = plan
        if any(d.data for t in tiles for d in t.dims):
            resolved = conditions_of(plan).resolved
            moves = tuple(replace(m, tile=_written_out(m.tile, resolved)) for m in plan.moves)
            footprints = tuple(
                replace(f, tiles=tuple((nest, _written_out(t, resolved)) for nest, t in f.tiles))
                for f in plan.footprints
            )
            other = replace(plan, moves=moves, footprints=footprints, memo={})
            other.memo["settled"] = other
        plan.memo["settled"] = other
    return plan.memo["settled"]


def _written_out(tile: Tile, resolved: Callable[[Expr], Expr]) -> Tile:
    return replace(tile, dims=tuple(_computed(d, resolved(d.index)) if d.data else d for d in tile.dims))


def _computed(dim: Dim, index: Expr) -> Dim:
    leaves = {r: dim.leaves[r] for r in rank_values(index)}
    every = tuple(x for parts in leaves.values() for x in parts)
    return replace(dim, index=index, leaves=leaves, data=bool(accesses(index)), all_leaves=every)


def conditions_of(plan: Plan) -> Conditions:
    """What must hold for points of a plan's cascade to be present."""
    if "conditions" not in plan.memo:
        plan.memo["conditions"] = Conditions(plan.cascade, list(main_einsums(plan.cascade).values()))
    return plan.memo["conditions"]
