"""Selections: coordinates chosen by value."""

from __future__ import annotations

import numpy as np

from fusemodel.numerics.values import Array, Factor, Mask, Space, Value, all_hold, merged


def choose(op: str, value: Value, rank: str, into: str | None, space: Space) -> Value:
    """Coordinates along ``rank`` as integers, on the axis of ``rank``.

    ``argmax`` and ``argmin`` leave one, the lowest of equals, and are absent over no present point. ``topk`` and
    ``sort`` leave as many as the extent of ``into``, largest first, equals in order of coordinate; where fewer points
    are present than asked for, the last ones are absent.
    """
    axis = space.ranks.index(rank)
    outer = [f for f in value.factors if rank not in f.deps]
    inner = [f for f in value.factors if rank in f.deps]
    mask = all_hold(inner)
    shape = np.broadcast_shapes(value.data.shape, () if mask is None else mask.shape)
    shape = tuple(space.shape[axis] if d == axis else n for d, n in enumerate(shape))
    data = np.broadcast_to(value.data, shape)
    if data.dtype.kind == "b":
        data = data.astype(np.int64)
    if into is None:
        size = 1
        result = np.expand_dims(_extreme(data if op == "argmax" else -data, mask, axis), axis)
    else:
        size = space.extents[into]
        result = _order(data, mask, axis).take(range(size), axis=axis)
    if mask is not None:
        deps = frozenset(r for f in inner for r in f.deps) - {rank} | ({into} if into else set())
        along = np.broadcast_to(mask, [space.shape[d] if d == axis else n for d, n in enumerate(mask.shape)])
        steps = np.arange(size).reshape([size if d == axis else 1 for d in range(data.ndim)])
        outer.append(Factor(deps, np.asarray(steps < along.sum(axis=axis, keepdims=True))))
    return Value(result.astype(np.int64), merged(outer))


def _extreme(data: Array, mask: Mask | None, axis: int) -> Array:
    """The lowest coordinate of the largest present value."""
    if mask is None:
        return data.argmax(axis=axis)
    if data.dtype.kind == "f":
        low: float = -np.inf
    else:
        low = np.iinfo(data.dtype).min
    found = np.where(mask, data, low).argmax(axis=axis)
    present = np.broadcast_to(mask, data.shape)
    hit = np.take_along_axis(present, np.expand_dims(found, axis), axis).squeeze(axis)
    return np.where(hit, found, present.argmax(axis=axis))


def _order(data: Array, mask: Mask | None, axis: int) -> Array:
    """Coordinates by descending value, equals in order, absent ones last."""
    order = np.argsort(-data, axis=axis, kind="stable")
    if mask is None:
        return order
    absent = np.take_along_axis(~np.broadcast_to(mask, data.shape), order, axis)
    return np.take_along_axis(order, np.argsort(absent, axis=axis, kind="stable"), axis)
