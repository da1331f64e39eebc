"""Steps at which a point of a band is present, in closed form for arrays of sizes: the fast form of
:func:`fusemodel.model.domain.count_union`, where conditions couple ranks by pairs and loops are the outer digits of
each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product as combinations
from operator import mul
from typing import Any, TypeAlias

import numpy as np

from fusemodel.model.amounts import Columns
from fusemodel.model.band import Band
from fusemodel.model.forms import Form, Linear
from fusemodel.model.frame import Frame

Array: TypeAlias = Any
#: Where steps differ from the last coordinates of each ragged rank (:class:`fusemodel.model.ragged.Class`).
Where: TypeAlias = Sequence[tuple[str, bool] | None]


@dataclass(frozen=True)
class _Axis:
    """A coordinate written as digits (``leaves``, outermost first), of so many values."""

    leaves: tuple[str, ...]
    length: int


@dataclass(frozen=True)
class _Pair:
    """``row - below <= scale * column <= row + above``, where each holds (None: always)."""

    row: _Axis
    column: _Axis
    scale: int
    above: int | None
    below: int | None

    def tiles(self, rows: Array, columns: Array, row_size: Array, column_size: Array) -> Array:
        some = (rows > 0) & (columns > 0)
        rows, columns = np.maximum(rows, 1), np.maximum(columns, 1)
        far = rows + columns * self.scale
        above = far if self.above is None else np.full_like(rows, self.above)
        below = far if self.below is None else np.full_like(rows, self.below)
        band = Band(rows, columns, above, below, self.scale)
        return np.where(some, band.tiles(row_size, column_size), 0)


def steps(
    frame: Frame, pieces: Sequence[Sequence[Form]], seen: frozenset[str], sizes: Columns, where: Where | None = None
) -> Array | None:
    """Combinations of the leaves ``seen`` at which a point is present (that differ from the last coordinates as
    ``where`` says), for columns of sizes; None where there is no closed form."""
    if len(pieces) != 1:
        return None if pieces else np.zeros(sizes.length)
    ranks = tuple((r, frame.einsum.ranks.get(r)) for f in pieces[0] for r in f.coefficients)
    key = (tuple(f.key() for f in pieces[0]), ranks, frame.roots, seen, where and tuple(where))
    if key not in sizes.known:
        sizes.known[key] = _steps(frame, pieces[0], seen, sizes, where)
    return sizes.known[key]


def _steps(
    frame: Frame, piece: Sequence[Form], seen: frozenset[str], sizes: Columns, where: Where | None
) -> Array | None:
    found = _parts(frame, piece)
    if found is None:
        return None
    pairs, lone = found
    axes_of = {a.leaves: a for a in (*lone, *(a for p in pairs for a in (p.row, p.column)))}
    if where is not None and any(axes_of[r.leaves].length != frame.extents[r.rank] for r in frame.roots):
        return None
    columns = {x: sizes.column(x) for x in dict.fromkeys((*(y for a in axes_of for y in a), *seen))}
    if not _whole(frame, axes_of, columns):
        return None
    if where is None:  # a loop of one step looks at nothing
        seen = seen | {x for a in axes_of for x in a if (columns[x] == 1).all()}
    differs = dict(zip((r.leaves for r in frame.roots), where, strict=True)) if where is not None else {}
    total = np.ones(sizes.length)
    spans: dict[tuple[str, ...], tuple[list[tuple[Array, int]], Array]] = {}
    for axis in axes_of.values():
        span = _span(axis, seen, columns, differs)
        if span is None:
            return None
        spans[axis.leaves] = span
    for pair in pairs:
        (rows, row_size), (others, column_size) = spans[pair.row.leaves], spans[pair.column.leaves]
        part = np.zeros(sizes.length)
        for (r, sign), (c, other) in combinations(rows, others):
            part = part + sign * other * pair.tiles(r, c, row_size, column_size)
        total = total * part
    for axis in lone:
        ends, size = spans[axis.leaves]
        total = total * sum(sign * -(-end // size) for end, sign in ends)
    for x in seen - {x for leaves in axes_of for x in leaves}:
        total = total * columns[x]
    return total


def _whole(frame: Frame, axes: Iterable[tuple[str, ...]], sizes: Mapping[str, Array]) -> bool:
    """Whether the inner parts of split ranks, where they are digits of one coordinate, are whole tiles."""
    for _, inner in frame.wholes.values():
        digits = frame.einsum.ranks.get(inner, ())
        if any({*digits} < {*leaves} for leaves in axes) and digits:
            total = reduce(mul, (sizes[x] for x in digits))
            if (total != frame.extents[inner]).any():
                return False
    return True


def _span(
    axis: _Axis, seen: frozenset[str], sizes: Mapping[str, Array],
    differs: Mapping[tuple[str, ...], tuple[str, bool] | None],
) -> tuple[list[tuple[Array, int]], Array] | None:  # fmt: skip
    """Coordinates up to which steps are counted, with 1 or -1, and how many one step has. None where the leaves seen
    are not the outer ones."""
    outer = [x for x in axis.leaves if x in seen]
    if tuple(outer) != axis.leaves[: len(outer)]:
        return None
    strides = [np.ones_like(sizes[axis.leaves[0]])]
    for x in reversed(axis.leaves):
        strides.append(strides[-1] * sizes[x])
    strides.reverse()  # of the whole, then of each leaf
    size = strides[len(outer)]
    every = np.full_like(size, axis.length)
    if axis.leaves not in differs or not outer:
        return [(every, 1)], size if outer else np.maximum(size, axis.length)
    differ = differs[axis.leaves]
    if differ is None:
        return [(every, 1), ((every - 1) // size * size, -1)], size
    leaf, below = differ
    if not below:
        return [], size
    at = outer.index(leaf)
    end, start = ((every - 1) // s * s for s in (strides[at + 1], strides[at]))
    return ([(end, 1), (start, -1)] if at else [(end, 1)]), size


def _parts(frame: Frame, piece: Sequence[Form]) -> tuple[list[_Pair], list[_Axis]] | None:
    """The pairs of coordinates that a piece couples, and those it does not; None where it does more than that."""
    forms: list[dict[tuple[str, ...], int]] = []
    constants: list[int] = []
    lengths: dict[tuple[str, ...], int] = {r.leaves: int(frame.extents[r.rank]) for r in frame.roots}
    for form in piece:
        if not isinstance(form, Linear):
            return None
        joined = _joined(frame, form)
        if joined is None:
            return None
        for leaves, n in joined[1].items():
            lengths[leaves] = min(n, lengths.get(leaves, n))
        if [*joined[0].values()] == [1]:
            (leaves,) = joined[0]
            lengths[leaves] = min(lengths[leaves], 1 - form.constant)
        elif len(joined[0]) == 2:
            forms.append(joined[0])
            constants.append(form.constant)
        else:
            return None
    leaves_of = [x for leaves in lengths for x in leaves]
    if len(leaves_of) != len(set(leaves_of)) or any(n < 1 for n in lengths.values()):
        return None
    axes = {leaves: _Axis(leaves, n) for leaves, n in lengths.items()}
    coupled: dict[frozenset[tuple[str, ...]], list[tuple[dict[tuple[str, ...], int], int]]] = {}
    for form, constant in zip(forms, constants, strict=True):
        coupled.setdefault(frozenset(form), []).append((form, constant))
    pairs = [_pair(axes, some) for some in coupled.values()]
    used = [x for both in coupled for x in both]
    if None in pairs or len(used) != len(set(used)):
        return None
    return [p for p in pairs if p], [a for leaves, a in axes.items() if leaves not in used]


def _joined(frame: Frame, form: Linear) -> tuple[dict[tuple[str, ...], int], dict[tuple[str, ...], int]] | None:
    """A form by the digits of its coordinates, outer and inner parts of one joined, and the lengths of these."""
    left = dict(form.coefficients)
    if any(r not in frame.einsum.ranks for r in left):
        return None
    found: dict[tuple[str, ...], int] = {}
    lengths: dict[tuple[str, ...], int] = {}
    for whole, (outer, inner) in frame.wholes.items():
        if outer in left and inner in left and left[outer] == left[inner] * frame.extents[inner]:
            leaves = (*frame.einsum.ranks[outer], *frame.einsum.ranks[inner])
            found[leaves], lengths[leaves] = left.pop(inner), frame.ranges[whole]
            left.pop(outer)
    for rank, c in left.items():
        leaves = frame.einsum.ranks[rank]
        found[leaves], lengths[leaves] = c, frame.ranges[rank]
    return found, lengths


def _pair(
    axes: Mapping[tuple[str, ...], _Axis], forms: Sequence[tuple[dict[tuple[str, ...], int], int]]
) -> _Pair | None:
    """Forms on two coordinates as a band."""
    one, other = sorted(forms[0][0])
    for row, column in ((one, other), (other, one)):
        scale = abs(forms[0][0][column])
        above: int | None = None
        below: int | None = None
        for form, constant in forms:
            if (form[row], form[column]) == (-1, scale):
                above = -constant if above is None else min(above, -constant)
            elif (form[row], form[column]) == (1, -scale):
                below = -constant if below is None else min(below, -constant)
            else:
                break
        else:
            return _Pair(axes[row], axes[column], scale, above, below)
    return None
