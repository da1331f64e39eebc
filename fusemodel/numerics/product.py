"""Sums of products, by matrix multiplication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import opt_einsum

from fusemodel.cascade.ir import Access, Apply, Expr, RankValue, walk
from fusemodel.numerics.evaluate import evaluate
from fusemodel.numerics.operators import apply, as_float
from fusemodel.numerics.values import Array, Factor, Space, Stored, Value, all_hold, merged


@dataclass(frozen=True)
class Product:
    """``accesses`` multiplied, then each of ``scales`` applied: ``*``, ``/`` or ``neg`` and a constant."""

    accesses: tuple[Access, ...]
    scales: tuple[tuple[str, Expr | None], ...] = ()


def as_product(body: Expr) -> Product | None:
    """The body as a product of at least two accesses and constants; None if it is anything else."""
    found = _factored(body)
    return found if found and len(found.accesses) > 1 else None


def _factored(expr: Expr) -> Product | None:
    match expr:
        case Access():
            return Product((expr,))
        case Apply("neg", (a,)):
            inner = _factored(a)
            return inner and Product(inner.accesses, (*inner.scales, ("neg", None)))
        case Apply("*", (a, b)):
            left, right = _factored(a), _factored(b)
            return left and right and Product(left.accesses + right.accesses, left.scales + right.scales)
        case Apply("/", (a, b)):
            left = _factored(a)
            return Product(left.accesses, (*left.scales, ("/", b))) if left and _constant(b) else None
    return Product((), (("*", expr),)) if _constant(expr) else None


def _constant(expr: Expr) -> bool:
    return not any(isinstance(e, Access | RankValue) for e in walk(expr))


def contract(
    product: Product,
    where: Sequence[Factor],
    reduced: frozenset[str],
    space: Space,
    tensors: Mapping[str, Stored],
) -> Value | None:
    """The product summed over ``reduced``, with length 1 along them; None where zeros cannot stand for absent points
    (0 times infinity) or nothing is floating."""
    values = [evaluate(a, space, tensors) for a in product.accesses]
    if all(v.data.dtype.kind != "f" for v in values):
        return None
    operands: list[Array] = []
    ignored: list[Factor] = [f for f in where if f.deps & reduced]
    for value in values:
        mask = all_hold(f for f in value.factors if f.deps & reduced)
        data = as_float(value.data, space.dtype)
        operands.append(data if mask is None else np.where(mask, data, np.zeros((), data.dtype)))
    masked = bool(ignored) or any(f.deps & reduced for v in values for f in v.factors)
    if masked and not all(np.isfinite(x).all() for x in operands):
        return None
    operands += [f.mask.astype(space.dtype) for f in merged(ignored)]
    axes = [i for i, r in enumerate(space.ranks) if r in reduced]
    data = _sum_of_products(operands, axes)
    if masked and not np.isfinite(data).all():
        return None
    if (times := _repeats(operands, axes, space.shape)) > 1:
        data = data * np.asarray(times, data.dtype)
    for op, constant in product.scales:
        data = apply(op, [data] if constant is None else [data, evaluate(constant, space, tensors).data], space.dtype)
    kept = merged(f for f in (*where, *(f for v in values for f in v.factors)) if not f.deps & reduced)
    return Value(data, kept)


def _repeats(operands: Sequence[Array], axes: Sequence[int], shape: Sequence[int]) -> int:
    """How often each product is counted: the points along ranks that no operand varies with."""
    return int(np.prod([shape[a] for a in axes if all(x.shape[a] == 1 for x in operands)], dtype=np.int64))


def _sum_of_products(operands: list[Array], axes: Sequence[int]) -> Array:
    """Contract pairs in the order opt_einsum finds; an axis is summed once no other operand varies along it."""
    steps = _order(operands, axes) if len(operands) > 2 else [(0, 1)]
    left = list(operands)
    for step in steps:
        chosen = [left.pop(i) for i in sorted(step, reverse=True)]
        ready = [a for a in axes if all(x.shape[a] == 1 for x in left)]
        left.append(_pair(chosen[0], chosen[1], ready))
    return left[0]


def _order(operands: Sequence[Array], axes: Sequence[int]) -> list[tuple[int, ...]]:
    varies = [[d for d in range(x.ndim) if x.shape[d] > 1] for x in operands]
    squeezed = [x.squeeze() for x in operands]
    result = sorted({d for v in varies for d in v} - set(axes))
    interleaved = [part for pair in zip(squeezed, varies, strict=True) for part in pair]
    path, _ = opt_einsum.contract_path(*interleaved, result, optimize="greedy")
    return [tuple(step) for step in path]


def _pair(a: Array, b: Array, axes: Sequence[int]) -> Array:
    """The sum over ``axes`` of ``a * b``, as one batched matrix product."""
    only_a = tuple(d for d in axes if b.shape[d] == 1 and a.shape[d] > 1)
    only_b = tuple(d for d in axes if a.shape[d] == 1 and b.shape[d] > 1)
    a = a.sum(axis=only_a, keepdims=True) if only_a else a
    b = b.sum(axis=only_b, keepdims=True) if only_b else b
    dims = range(a.ndim)
    summed = [d for d in axes if a.shape[d] > 1 and b.shape[d] > 1]
    if not summed:
        return a * b
    both = [d for d in dims if d not in summed and a.shape[d] > 1 and b.shape[d] > 1]
    rows = [d for d in dims if d not in summed and d not in both and a.shape[d] > 1]
    columns = [d for d in dims if d not in summed and d not in both and d not in rows]
    order = [*both, *rows, *columns, *summed]

    def size(x: Array, along: Sequence[int]) -> int:
        return int(np.prod([x.shape[d] for d in along], dtype=np.int64))

    left = a.transpose(order).reshape(size(a, both), size(a, rows), size(a, summed))
    right = b.transpose(order).reshape(size(b, both), size(b, columns), size(b, summed))
    out = left @ right.transpose(0, 2, 1)
    shape = [*(a.shape[d] for d in both), *(a.shape[d] for d in rows), *(b.shape[d] for d in columns)]
    return out.reshape(shape + [1] * len(summed)).transpose(np.argsort(order))
