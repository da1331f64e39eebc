"""Arrays by other ranks than they are computed by: a split rank for its parts, or parts for their whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusemodel.cascade.splits import Splits, tiling
from fusemodel.numerics.values import Array


def regrouped(
    array: Array, held: Sequence[str], wanted: Sequence[str], splits: Splits, extents: Mapping[str, int], fill: float
) -> Array:
    """An array with an axis for each of ``held`` as one with an axis for each of ``wanted``. Where the parts of a rank
    have more elements than the rank, the last ones are cut off, or are ``fill``."""
    ranks = list(held)
    for axis, rank in enumerate(wanted):
        if tiling(splits, rank, ranks, axis):
            array = _join(array, ranks, axis, rank, splits, extents)
        else:
            array = _split(array, ranks, axis, wanted, splits, extents, fill)
    return array


def _join(array: Array, ranks: list[str], axis: int, whole: str, splits: Splits, extents: Mapping[str, int]) -> Array:
    """The axes from ``axis`` on that make up ``whole`` as one."""
    if ranks[axis] == whole:
        return array
    outer, inner = splits[whole]
    array = _join(array, ranks, axis, outer, splits, extents)
    array = _join(array, ranks, axis + 1, inner, splits, extents)
    ranks[axis : axis + 2] = [whole]
    shape = array.shape
    joined = array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return joined[(*[slice(None)] * axis, slice(extents[whole]))]


def _split(
    array: Array, ranks: list[str], axis: int, wanted: Sequence[str], splits: Splits, extents: Mapping[str, int],
    fill: float,
) -> Array:  # fmt: skip
    """The axis at ``axis`` as its parts, until the first of them is what is wanted there."""
    while not tiling(splits, wanted[axis], ranks, axis):
        outer, inner = splits[ranks[axis]]
        size = extents[outer] * extents[inner]
        missing = [(0, size - n if d == axis else 0) for d, n in enumerate(array.shape)]
        array = np.pad(array, missing, constant_values=fill)
        shape = array.shape
        array = array.reshape(*shape[:axis], extents[outer], extents[inner], *shape[axis + 1 :])
        ranks[axis : axis + 1] = [outer, inner]
    return array
