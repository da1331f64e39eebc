"""Accesses that share tiles, where the words they move and hold are products of sizes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from fusemodel.model.amounts import Amount, Sizes, product, where
from fusemodel.model.frame import Frame, bringing, brought, span, untiled, words
from fusemodel.model.plan import Dim, Tile
from fusemodel.model.ragged import Taken


@dataclass(frozen=True, slots=True)
class Shared:
    """Accesses that share a tile whatever the sizes. ``loops``, innermost first, are outside it, with whether each
    brings another; ``leaves`` those whose sizes multiply to its words, or None where words are no such product;
    ``ragged``: not all combinations of loops and leaves exist."""

    tiles: tuple[Tile, ...]
    loops: tuple[tuple[str, bool], ...]
    leaves: tuple[str, ...] | None
    ragged: bool

    def words(self, frames: Mapping[str, Frame], sizes: Sizes) -> Amount:
        if self.ragged:
            return self._existing(frames, {}, sizes)
        return plain_words(frames, self.tiles, sizes) if self.leaves is None else product(self.leaves, sizes)

    def moved(self, frames: Mapping[str, Frame], sizes: Sizes) -> Amount:
        if self.ragged:
            return self._existing(frames, bringing(self.loops, sizes), sizes)
        return brought(self.loops, sizes) * self.words(frames, sizes)

    def _existing(self, frames: Mapping[str, Frame], loops: Taken, sizes: Sizes) -> Amount:
        """Pairs of a step of loops and an element."""
        tile = self.tiles[0]
        frame = frames[tile.einsum]
        taken = dict(loops)
        others: Amount = 1
        for i, dim in enumerate(tile.dims):
            inside = [x for x in dim.all_leaves if x not in tile.outside]
            if self.leaves is not None or ends(frame, dim, (*inside, *loops)):
                taken |= dict.fromkeys(inside, True)
            else:
                apart = tuple(sorted({frames[t.einsum].offsets(t)[i] for t in self.tiles}))
                others = others * span(frame, dim, frozenset(inside), sizes, apart)
        return others * frame.combinations(taken, sizes)


def shared_tiles(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> tuple[Shared, ...] | None:
    """Accesses of a tensor as tiles that may be one or several, depending on which loops step (:func:`in_all`); None
    where that is not all there is to it."""
    classes: dict[object, list[Tile]] = {}
    for tile in tiles:
        classes.setdefault(frames[tile.einsum].shape(tile), []).append(tile)
    found = tuple(classes.values())
    if not all(plain(frames, alike) for alike in found):
        return None
    if len(found) > 1:
        dims = {frames[t.einsum].shape(t)[0] for t in tiles}
        offsets = {frozenset(frames[t.einsum].offsets(t) for t in alike) for alike in found}
        if len(dims) > 1 or len(offsets) > 1 or not _ordered([alike[0].outside for alike in found]):
            return None
    return tuple(shared_tile(frames, alike) for alike in found)


def shared_tile(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> Shared:
    """Accesses that share a tile whatever the sizes."""
    tile = tiles[0]
    frame = frames[tile.einsum]
    used = {x for d in tile.dims for x in frame.changes(d)}
    loops = tuple((x, x in used) for x in reversed(tile.outside))
    concerned = {*tile.outside, *(x for d in tile.dims for x in d.all_leaves)}
    ragged = not frame.fixed and any(r.concerns(concerned) for r in frame.roots)
    return Shared(tuple(tiles), loops, simple_leaves(frames, tiles), ragged)


def ends(frame: Frame, dim: Dim, beside: Collection[str]) -> bool:
    """Whether the last tile has fewer values of an index, as far as it and the leaves ``beside`` go."""
    roots = [r for r in frame.roots if r.concerns({*dim.all_leaves, *beside})]
    return any(x in r.leaves for r in roots for x in dim.all_leaves)


def simple(frame: Frame, dim: Dim) -> bool:
    """Whether an index tells the coordinates in it apart."""
    if frame.fixed and dim.split in frame.ragged:
        return False
    return (len(dim.leaves) <= 1 or dim.split == dim.rank) and frame.index(dim) is not None and not frame.quotient(dim)


def counts_apart(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> bool:
    """Whether accesses of a tile in the last, smaller tile of a rank have to be counted one by one."""
    for i, dim in enumerate(tiles[0].dims):
        frame = frames[tiles[0].einsum]
        some = {x for t in tiles for x in (*t.outside, *(y for d in t.dims for y in d.all_leaves))}
        if any(ends(frames[t.einsum], t.dims[i], some) for t in tiles):
            offsets = {frames[t.einsum].offsets(t)[i] for t in tiles}
            if len(offsets) > 1 or not simple(frame, dim):
                return True
    return False


def _ordered(nests: Sequence[Sequence[str]]) -> bool:
    """Whether loops that two nests have in common stand in the same order in both."""
    return all([x for x in a if x in b] == [x for x in b if x in a] for a in nests for b in nests)


def in_all(classes: Sequence[Shared], amount: Callable[[Shared], Amount], sizes: Sizes) -> Amount:
    """The sum of an amount over tiles, those counted once that move alike for these sizes."""
    total: Amount = 0
    for i, one in enumerate(classes):
        part = amount(one)
        for other in classes[:i]:
            part = where(_apart(one, other, sizes), part, 0)
        total = total + part
    return total


def _apart(a: Shared, b: Shared, sizes: Sizes) -> Amount:
    """Whether two tiles are brought at different times: a loop around one of them only steps, and it or one inside it
    brings another tile."""
    found: Amount = False
    for one, other in ((a, b), (b, a)):
        around = {x for x, _ in other.loops}
        moved: Amount = False
        for leaf, brings in one.loops:
            steps = sizes[leaf] > 1
            if leaf not in around:
                found = found | (steps & (moved | brings))
            if brings:
                moved = moved | steps
    return found


def plain(frames: Mapping[str, Frame], tiles: Sequence[Tile]) -> bool:
    """Whether the words of accesses that share a tile are a product over its indices, of numbers or arrays."""
    frame, tile = frames[tiles[0].einsum], tiles[0]
    leaves = [x for d in tile.dims for x in d.all_leaves]
    if len(leaves) != len(set(leaves)) or any(frame.quotient(d) and not untiled(d) for d in tile.dims):
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
        if not simple(frame, dim):
            return None
        leaves += [x for x in dim.all_leaves if x not in outside]
    return tuple(leaves)


def plain_words(frames: Mapping[str, Frame], tiles: Sequence[Tile], sizes: Sizes) -> Amount:
    return words(frames[tiles[0].einsum], tiles[0], sizes, {frames[t.einsum].offsets(t) for t in tiles})
