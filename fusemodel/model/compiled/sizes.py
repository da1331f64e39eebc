"""Sizes of all parts for columns of some of them: what a mapping gives, what is left, and the largest that fits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from fusemodel.cascade.ir import Expr, Extent, Number, walk
from fusemodel.errors import InputError, Where, listed
from fusemodel.mapping.spec import Auto, Group
from fusemodel.model.space import amount_of
from fusemodel.model.tiles import chains, divisors, may_be_ragged

_EXPANDED = 2**20  # trial sizes looked at at a time

#: Whether each row of columns of sizes fits.
Fits = Callable[[Mapping[str, np.ndarray], int], np.ndarray]


def columns_of(given: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], int]:
    """Columns of one length, and the length: 1 where all are numbers."""
    columns = {n: np.asarray(c, dtype=float) for n, c in given.items()}
    for name, column in columns.items():
        if column.ndim > 1:
            raise InputError(f"{name!r} has {column.ndim} dimensions", expected="a number or a column of numbers")
        if not (np.isfinite(column) & (column >= 1) & (column == np.floor(column))).all():
            raise InputError(f"{name!r} has sizes that are no whole numbers of at least 1")
    lengths = {n: len(c) for n, c in columns.items() if c.ndim}
    if len(set(lengths.values())) > 1:
        raise InputError(f"columns differ in length: {listed([f'{n} has {k}' for n, k in lengths.items()])}")
    length = next(iter(lengths.values()), 1)
    return {n: np.broadcast_to(c, (length,)) for n, c in columns.items()}, length


def alike(
    rows: Mapping[str, np.ndarray], ranks: Collection[str], length: int
) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
    """Rows with the same extents together: their indices, and those of the sizes that are extents."""
    names = [n for n in rows if n in ranks]
    if not names or not length:
        yield np.arange(length), {}
        return
    table = np.stack([rows[n] for n in names], axis=1)
    unique, of = np.unique(table, axis=0, return_inverse=True)
    for i, values in enumerate(unique.astype(int).tolist()):
        yield np.flatnonzero(of.reshape(-1) == i), dict(zip(names, values, strict=True))


def check_chosen(group: Group, given: Mapping[str, Any]) -> None:
    """Raise InputError unless each tile that a mapping leaves to a search is given."""
    for name, size in group.sizes.items():
        if name not in given and (isinstance(size, tuple) or size == Auto("any")):
            raise InputError(
                f"tile {name!r} is to be chosen", group.places.get(f"tile.{name}", Where()),
                expected=f"its sizes, such as `sets={{{name!r}: [...]}}`",
            )  # fmt: skip


def completed(
    group: Group, extents: Mapping[str, int], rows: Mapping[str, Any], length: int, fits: Fits
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The size of every part of a group in every row, and whether the parts make up each rank there (the last tile may
    be smaller than the others)."""
    own = [p for ps in group.parts.values() for p in ps]
    requested: dict[str, Any] = {p: s for p, s in group.sizes.items() if p in own and p not in rows}
    requested |= {p: rows[p] for p in own if p in rows}
    known: dict[str, np.ndarray] = {
        p: np.broadcast_to(np.asarray(c, dtype=float), (length,))
        for p, c in requested.items() if isinstance(c, (int, float, np.ndarray))
    }  # fmt: skip

    valid = np.ones(length, dtype=bool)
    pending = {n: s for n, s in requested.items() if n not in known and not isinstance(s, Auto)}
    while pending:
        ready = [n for n, s in pending.items() if _needs(s) <= {*extents, *known}]
        if not ready:
            name = next(iter(pending))
            raise InputError(f"the size of tile {name!r} is not known", group.places.get(f"tile.{name}", Where()))
        for name in ready:
            with np.errstate(all="ignore"):
                value = np.asarray(amount_of(pending.pop(name), {**extents, **known}), dtype=float)
            value = np.broadcast_to(value, (length,))
            whole = np.isfinite(value) & (value >= 1) & (value == np.floor(value))
            valid &= whole
            known[name] = np.where(whole, value, 1.0)
    automatic = [n for n, s in requested.items() if n not in known]
    trial = {**known, **{n: np.ones(length) for n in automatic}}
    for name in automatic:
        trial[name] = _largest(group, extents, trial, name, length, fits)
    found, divides = _filled(group, extents, trial, length)
    return found, divides & valid


def _needs(expr: Expr) -> set[str]:
    return {e.rank for e in walk(expr) if isinstance(e, Extent)}


def _filled(
    group: Group, extents: Mapping[str, int], given: Mapping[str, np.ndarray], length: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All parts, the outermost of each rank being what is left, and whether they can be."""
    result = dict(given)
    order = chains(group)
    inner = {p for ps in group.parts.values() for p in ps[1:]}
    for rank, parts in reversed(order):
        if rank in inner and rank not in result:
            if missing := [p for p in parts if p not in result]:
                raise InputError(f"part {rank!r} has no size", group.places.get(f"tile.{rank}", Where()),
                                 expected=f"a size for {missing[0]!r} too")  # fmt: skip
            result[rank] = prod((result[p] for p in parts), start=np.ones(length))
    valid = np.ones(length, dtype=bool)
    for rank, parts in order:
        whole = result[rank] if rank in result else np.full(length, float(extents[rank]))
        rest = np.ones(length)
        for part in parts[1:]:
            rest = rest * result[part]
        left = np.ceil(whole / rest)
        divides = np.full(length, True) if may_be_ragged(group, rank) else left * rest == whole
        if parts[0] in result:
            divides &= result[parts[0]] == left
        valid &= divides
        result[parts[0]] = np.where(divides, left, 1.0)
    return result, valid


def _largest(
    group: Group, extents: Mapping[str, int], trial: Mapping[str, np.ndarray], name: str, length: int, fits: Fits
) -> np.ndarray:
    """For each row the largest size of a part for which all divides and fits; 1 where there is none."""
    rank, parts = next((r, ps) for r, ps in group.parts.items() if name in ps)
    whole = _whole(group, rank, extents, trial, length)
    others = prod((trial[p] for p in parts[1:] if p != name), start=np.ones(length))
    left = np.ceil(whole / others)
    unique, of = np.unique(left, return_inverse=True)
    options = [np.array(divisors(int(n)), dtype=float) for n in unique]
    result = np.ones(length)
    step = max(1, _EXPANDED // max(len(o) for o in options)) if options else 1
    for start in range(0, length, step):
        rows = np.arange(start, min(start + step, length))
        counts = np.array([len(options[i]) for i in of.reshape(-1)[rows]])
        at = np.repeat(rows, counts)
        size = np.concatenate([options[i] for i in of.reshape(-1)[rows]])
        tiles, divides = _filled(group, extents, {**{n: c[at] for n, c in trial.items()}, name: size}, len(at))
        exact = _exact(group, extents, tiles, len(at)) & divides
        some = np.zeros(length, dtype=bool)
        some[at[exact]] = True  # rows that some size divides into whole tiles
        good = np.flatnonzero(fits(tiles, len(at)) & np.where(some[at], exact, divides))
        first, place = np.unique(at[good], return_index=True)  # options are in falling order
        result[first] = size[good[place]]
    return result


def _exact(group: Group, extents: Mapping[str, int], tiles: Mapping[str, np.ndarray], length: int) -> np.ndarray:
    """Whether every rank is whole tiles."""
    found = np.full(length, True)
    for rank, parts in group.parts.items():
        held = tiles[rank] if rank in tiles else extents[rank]
        found &= held == prod((tiles[p] for p in parts), start=np.ones(length))
    return found


def _whole(
    group: Group, rank: str, extents: Mapping[str, int], sizes: Mapping[str, np.ndarray], length: int
) -> np.ndarray:
    if rank in sizes:
        return sizes[rank]
    if rank in extents:
        return np.full(length, float(extents[rank]))
    parent, parts = next((r, ps) for r, ps in group.parts.items() if rank in ps)
    rest: Sequence[np.ndarray] = [sizes[p] for p in parts if p != rank and p in sizes]
    return np.ceil(_whole(group, parent, extents, sizes, length) / prod(rest, start=np.ones(length)))


__all__ = ["Fits", "Number", "alike", "columns_of", "completed"]
