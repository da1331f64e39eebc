"""Reductions of values over some ranks, and scatters, where points collide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from fusemodel.numerics.operators import as_float
from fusemodel.numerics.values import Array, Mask, Space, Value, all_hold, merged

_UFUNCS = {
    "sum": np.add, "mean": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
    "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip
IDENTITIES = {"sum": 0, "mean": 0, "prod": 1, "max": -np.inf, "min": np.inf, "any": False, "all": True}


def _operand(op: str, data: Array, dtype: DTypeLike) -> Array:
    if op in ("any", "all"):
        return data.astype(bool)
    if op == "mean":
        return as_float(data, dtype)
    return data.astype(np.int64) if data.dtype.kind == "b" else data


def fold(op: str, value: Value, reduced: frozenset[str], space: Space) -> Value:
    """``value`` reduced over ranks: length 1 along them, and absent only for reasons that involve none of them."""
    kept = merged(f for f in value.factors if not f.deps & reduced)
    if not reduced:
        return Value(_operand(op, value.data, space.dtype) if op in ("any", "all") else value.data, kept)
    axes = tuple(i for i, r in enumerate(space.ranks) if r in reduced)
    mask = all_hold(f for f in value.factors if f.deps & reduced)
    data = _operand(op, value.data, space.dtype)
    shape = np.broadcast_shapes(data.shape, () if mask is None else mask.shape)
    shape = tuple(space.shape[i] if i in axes else n for i, n in enumerate(shape))
    data = np.broadcast_to(data, shape)
    if mask is None:
        result = _UFUNCS[op].reduce(data, axis=axes, keepdims=True)
        count = np.full([1] * len(shape), np.prod([shape[i] for i in axes], dtype=np.int64))
    else:
        mask = np.broadcast_to(mask, shape)
        count = np.asarray(mask.sum(axis=axes, keepdims=True))
        data, identity = _with_identity(op, data, bool((count == 0).any()), space.dtype)
        result = _UFUNCS[op].reduce(np.where(mask, data, identity), axis=axes, keepdims=True)
    if op == "mean":
        result = result / np.maximum(count, 1).astype(data.dtype)
    return Value(np.asarray(result), kept)


def _with_identity(op: str, data: Array, needed: bool, dtype: DTypeLike) -> tuple[Array, Array]:
    """``data`` and the identity in one type: integers cannot hold an infinity, and need none unless it is left over."""
    identity = IDENTITIES[op]
    if data.dtype.kind == "i" and op in ("max", "min"):
        if needed:
            data = as_float(data, dtype)
        else:
            info = np.iinfo(data.dtype)
            identity = info.min if op == "max" else info.max
    return data, np.asarray(identity, data.dtype)


def scatter(
    op: str, value: Value, places: Sequence[Array], shape: Sequence[int], mask: Mask | None, space: Space
) -> Array:
    """All points of the space put at ``places`` (one array of indices for each axis of the result), collisions
    combined, the identity elsewhere. Points where ``mask`` is false, or whose place is out of range, are dropped."""
    inside = np.broadcast_to(np.True_ if mask is None else mask, space.shape)
    for place, size in zip(places, shape, strict=True):
        inside = inside & (place >= 0) & (place < size)
    data = _operand(op, value.data, space.dtype)
    points = tuple(np.broadcast_to(p, space.shape)[inside] for p in places)
    flat = np.ravel_multi_index(points, tuple(shape)) if points else np.zeros(int(inside.sum()), np.int64)
    total = int(np.prod(shape, dtype=np.int64))
    count = np.bincount(flat, minlength=total)
    data, identity = _with_identity(op, data, bool((count == 0).any()), space.dtype)
    result = np.full(total, identity, data.dtype)
    _UFUNCS[op].at(result, flat, np.broadcast_to(data, space.shape)[inside])
    if op == "mean":
        result = result / np.maximum(count, 1).astype(data.dtype)
    return result.reshape(tuple(shape))
