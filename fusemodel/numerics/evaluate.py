"""Expressions on all points of a space at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fusemodel.cascade.ir import Access, Apply, Expr, Extent, Number, RankValue, rank_values
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import NOWHERE, InputError
from fusemodel.numerics.operators import apply, unify
from fusemodel.numerics.values import Array, Factor, Space, Stored, Value, all_hold, either, merged


def evaluate(expr: Expr, space: Space, tensors: Mapping[str, Stored]) -> Value:
    """The value of an expression at every point; every operator but ``coalesce`` is absent where an operand is."""
    match expr:
        case Number(value):
            return Value(space.constant(value))
        case Extent(rank):
            return Value(space.constant(space.extents[rank]))
        case RankValue(rank):
            return Value(space.coordinates(rank))
        case Access():
            return read(expr, space, tensors)
        case Apply("coalesce", args):
            return _coalesce([evaluate(a, space, tensors) for a in args], space)
        case Apply(op, args, at):
            values = [evaluate(a, space, tensors) for a in args]
            try:
                data = apply(op, [v.data for v in values], space.dtype)
            except InputError as error:
                raise error.at(at) from None
            return Value(data, merged(f for v in values for f in v.factors))
    raise TypeError(expr)


def condition(where: Expr | None, space: Space, tensors: Mapping[str, Stored]) -> tuple[Factor, ...]:
    """The factors a condition amounts to: one for each part joined by ``and``; absent counts as false."""
    if where is None:
        return ()
    if isinstance(where, Apply) and where.op == "and":
        return merged(f for part in where.args for f in condition(part, space, tensors))
    value = evaluate(where, space, tensors)
    return merged((*value.factors, Factor(frozenset(rank_values(where)), value.data.astype(bool))))


def _coalesce(values: Sequence[Value], space: Space) -> Value:
    result = values[-1]
    for value in reversed(values[:-1]):
        mask = all_hold(value.factors)
        if mask is None:
            result = value
            continue
        first, rest = unify([value.data, result.data], space.dtype)
        result = Value(np.where(mask, first, rest), either(value.factors, result.factors))
    return result


def read(access: Access, space: Space, tensors: Mapping[str, Stored]) -> Value:
    """Elements of a tensor: a view where the indices are coordinates in range, else gathered."""
    stored = tensors[access.tensor]
    shifts = [shift(index, space) for index in access.indices]
    ranks = _in_range(shifts, stored.values.shape, space)
    if ranks is None:
        return _gather(access, stored, space, tensors)
    picks = [c if rank is None else _window(space, rank, c) for rank, c in filter(None, shifts)]
    factors = []
    for along, mask in stored.gaps.items():
        whole = [slice(None) if isinstance(p, slice) else 0 for p in picks]  # for axes along which the mask is constant
        part = mask[tuple(p if d in along else w for d, (p, w) in enumerate(zip(picks, whole, strict=True)))]
        factors.append(Factor(_deps(access, along), _align(part, ranks, space)))
    return Value(_align(stored.values[tuple(picks)], ranks, space), merged(factors))


def _deps(access: Access, along: Iterable[int]) -> frozenset[str]:
    """The ranks in the indices of some axes."""
    return frozenset(r for d in along for r in rank_values(access.indices[d]))


def shift(index: Expr, space: Space) -> tuple[str | None, int] | None:
    """``(rank, c)`` for an index ``rank + c``, ``(None, c)`` for a constant; None for any other."""
    match index:
        case RankValue(rank):
            return (None, space.fixed[rank]) if rank in space.fixed else (rank, 0)
        case Extent(rank):
            return None, space.extents[rank]
        case Number(int(value)):
            return None, value
        case Apply("+" | "-" | "*" as op, (a, b)):
            left, right = shift(a, space), shift(b, space)
            if left is None or right is None or (right[0] is not None and (op != "+" or left[0] is not None)):
                return None
            if op == "*":
                return (None, left[1] * right[1]) if left[0] is None else None
            return left[0] or right[0], left[1] + (right[1] if op == "+" else -right[1])
    return None


def _in_range(
    shifts: Sequence[tuple[str | None, int] | None], shape: Sequence[int], space: Space
) -> tuple[str, ...] | None:
    """The ranks that stand in the indices, if each stands once and none leaves the tensor; else None."""
    ranks = []
    for found, size in zip(shifts, shape, strict=True):
        if found is None:
            return None
        rank, c = found
        span = range(1) if rank is None else space.axes[rank]
        if not 0 <= span.start + c <= span.stop - 1 + c < size:
            return None
        if rank is not None:
            ranks.append(rank)
    return tuple(ranks) if len(set(ranks)) == len(ranks) else None


def _window(space: Space, rank: str, c: int) -> slice:
    return slice(space.axes[rank].start + c, space.axes[rank].stop + c)


def _align(view: Array, ranks: Sequence[str], space: Space) -> Array:
    """``view``, with an axis for each of ``ranks``, with those of the space."""
    order = sorted(range(len(ranks)), key=lambda d: space.ranks.index(ranks[d]))
    held = set(ranks)
    return np.asarray(view).transpose(order)[tuple(slice(None) if r in held else None for r in space.ranks)]


def _gather(access: Access, stored: Stored, space: Space, tensors: Mapping[str, Stored]) -> Value:
    """Elements at computed indices; those out of range are absent."""
    places, factors = [], []
    for index, size in zip(access.indices, stored.values.shape, strict=True):
        place, inside = whole(index, space, tensors)
        factors += inside
        outside = (place < 0) | (place >= size)
        if outside.any():
            factors.append(Factor(frozenset(rank_values(index)), ~outside))
            place = np.clip(place, 0, size - 1)
        places.append(place)
    zero = np.zeros((1,) * len(space.axes), np.int64)
    for along, mask in stored.gaps.items():
        at = tuple(p if d in along else zero for d, p in enumerate(places))
        factors.append(Factor(_deps(access, along), mask[at]))
    return Value(stored.values[tuple(places)], merged(factors))


def whole(index: Expr, space: Space, tensors: Mapping[str, Stored]) -> tuple[Array, tuple[Factor, ...]]:
    """An index as integers, and where it is present."""
    value = evaluate(index, space, tensors)
    if value.data.dtype.kind != "f":
        return value.data.astype(np.int64, copy=False), value.factors
    mask = all_hold(value.factors)
    data = value.data if mask is None else np.where(mask, value.data, 0)
    rounded = np.floor(data)
    if not np.array_equal(rounded, data) or not np.isfinite(data).all():
        bad = data[(rounded != data) | ~np.isfinite(data)].flat[0]
        where = index.at if isinstance(index, Access | Apply) else NOWHERE
        raise InputError(f"the index `{format_expr(index)}` is {bad:g}", where, expected="a whole number")
    return np.clip(rounded, -(2.0**62), 2.0**62).astype(np.int64), value.factors
