"""Which points of an iteration space are present: conditions as linear constraints, and exact counts of them.

A point is absent where the Einsum's condition fails, where an affine index leaves its tensor, and where an operand is
absent for one of these reasons. Absent points are not computed and not charged (DESIGN section 4, rules 3, 4 and 6b).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    rank_values,
    reduced_ranks,
    substitute,
)
from fusemodel.errors import InputError

#: Points enumerated at most for one exact count.
MAX_ENUMERATED = 2**26
_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum(coefficient * coordinate) + constant``."""

    coefficients: Mapping[str, int]
    constant: int


def linear(expr: Expr, extents: Mapping[str, int]) -> Linear | None:
    """The expression as a linear form with whole coefficients; None if it is none."""
    match expr:
        case RankValue(rank):
            return Linear({rank: 1}, 0)
        case Access():
            return None
        case Apply(op, args) if rank_values(expr):
            parts = [linear(a, extents) for a in args]
            if any(p is None for p in parts):
                return None
            return _combine(op, [p for p in parts if p is not None])
    if any(isinstance(e, Access) for e in _flat(expr)):
        return None
    value = evaluate(expr, extents)
    return Linear({}, int(value)) if value == int(value) else None


def _flat(expr: Expr) -> list[Expr]:
    return [expr, *(x for a in getattr(expr, "args", ()) for x in _flat(a))]


def _combine(op: str, parts: list[Linear]) -> Linear | None:
    a = parts[0]
    if op == "neg":
        return _scaled(a, -1)
    if len(parts) != 2:
        return None
    b = parts[1]
    match op:
        case "+":
            return _sum(a, b)
        case "-":
            return _sum(a, _scaled(b, -1))
        case "*" if not b.coefficients:
            return _scaled(a, b.constant)
        case "*" if not a.coefficients:
            return _scaled(b, a.constant)
    return None


def _scaled(a: Linear, k: int) -> Linear:
    return Linear({r: k * c for r, c in a.coefficients.items()}, k * a.constant)


def _sum(a: Linear, b: Linear) -> Linear:
    ranks = dict.fromkeys([*a.coefficients, *b.coefficients])
    coefficients = {r: a.coefficients.get(r, 0) + b.coefficients.get(r, 0) for r in ranks}
    return Linear({r: c for r, c in coefficients.items() if c}, a.constant + b.constant)


def conditions_of(cascade: Cascade, einsums: Sequence[Einsum]) -> dict[str, tuple[Expr, ...]]:
    """For each Einsum, in order, the conditions its points must meet to be present (over its own ranks)."""
    result: dict[str, tuple[Expr, ...]] = {}
    on_tensor: dict[str, tuple[tuple[str, ...], tuple[Expr, ...]]] = {}
    for einsum in einsums:
        found = list(_conjuncts(einsum.where)) if einsum.where else []
        for access in _needed(einsum.body):
            found += _inside(cascade, access)
            ranks, conditions = on_tensor.get(access.tensor, ((), ()))
            change = dict(zip(ranks, access.indices, strict=False))
            found += [substitute(c, change) for c in conditions]
        result[einsum.name] = tuple(dict.fromkeys(found))
        simple = all(isinstance(i, RankValue) for i in einsum.target.indices)
        if simple and not reduced_ranks(einsum):
            on_tensor[einsum.name] = (cascade.full_ranks(einsum.name), result[einsum.name])
    return result


def _needed(expr: Expr) -> list[Access]:
    """Accesses whose absence makes the value absent."""
    match expr:
        case Access():
            return [expr]
        case Apply("coalesce", _):
            return []
        case Apply(_, args):
            return [a for arg in args for a in _needed(arg)]
    return []


def _conjuncts(expr: Expr) -> list[Expr]:
    if isinstance(expr, Apply) and expr.op == "and":
        return [c for a in expr.args for c in _conjuncts(a)]
    return [expr]


def _inside(cascade: Cascade, access: Access) -> list[Expr]:
    """Conditions for computed indices to stay inside the tensor."""
    tensor = cascade.tensors[access.tensor]
    found: list[Expr] = []
    for rank, index in zip(cascade.full_ranks(access.tensor), access.indices, strict=True):
        if isinstance(index, Apply) and rank_values(index) and rank not in tensor.iterative:
            found += [Apply(">=", (index, Number(0))), Apply("<", (index, Extent(rank)))]
    return found


def constraints(conditions: Sequence[Expr], extents: Mapping[str, int]) -> tuple[list[Linear], list[Expr]]:
    """The conditions as forms that must be <= 0, and those that are not linear (taken as always met)."""
    forms: list[Linear] = []
    other: list[Expr] = []
    for condition in conditions:
        found = _as_linear(condition, extents)
        if found is None:
            other.append(condition)
        else:
            forms += found
    return forms, other


def _as_linear(expr: Expr, extents: Mapping[str, int]) -> list[Linear] | None:
    if not isinstance(expr, Apply) or expr.op not in ("<", "<=", ">", ">=", "=="):
        return None
    op, (left, right) = expr.op, expr.args
    if op in (">", ">="):
        op, left, right = op.replace(">", "<"), right, left
    if op in ("<", "<=") and isinstance(left, Apply) and left.op == "abs":
        inside = left.args[0]
        parts = [_as_linear(Apply(op, (x, right)), extents) for x in (inside, Apply("neg", (inside,)))]
        return None if None in parts else [f for p in parts if p for f in p]
    form = linear(Apply("-", (left, right)), extents)
    if form is None:
        return None
    match op:
        case "<":
            return [Linear(form.coefficients, form.constant + 1)]
        case "<=":
            return [form]
    return [form, _scaled(form, -1)]


def on_leaves(
    forms: Sequence[Linear], leaves: Mapping[str, Sequence[str]], sizes: Mapping[str, int]
) -> list[Linear]:
    """The same forms over the leaves of each rank (``p = p1 * P0 + p0``)."""
    result = []
    for form in forms:
        coefficients: dict[str, int] = {}
        for rank, c in form.coefficients.items():
            stride = 1
            for leaf in reversed(leaves[rank]):
                coefficients[leaf] = coefficients.get(leaf, 0) + c * stride
                stride *= sizes[leaf]
        result.append(Linear(coefficients, form.constant))
    return result


def count(forms: Sequence[Linear], loops: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Steps of ``loops`` during which some point is present, the other leaves running over all their values.

    Exact when the loops are all leaves (then it counts points), and for boxes of tiles whenever the forms are bounds on
    one linear form (causal order, windows, range guards); else an upper bound.
    """
    inside = set(loops)
    relaxed = []
    for form in forms:
        low = form.constant
        for leaf, c in form.coefficients.items():
            if leaf not in inside:
                low += min(0, c * (sizes[leaf] - 1))
        kept = {x: c for x, c in form.coefficients.items() if x in inside and sizes[x] > 1}
        if low + sum(max(0, c * (sizes[x] - 1)) for x, c in kept.items()) <= 0:
            continue  # always met
        relaxed.append(Linear(kept, low))
    coupled = list(dict.fromkeys(x for f in relaxed for x in f.coefficients))
    free = prod(sizes[x] for x in loops if x not in coupled)
    if any(not f.coefficients for f in relaxed):
        return 0  # a constant form above zero
    if not coupled:
        return free
    merged_sizes, merged = _merge({x: sizes[x] for x in coupled}, relaxed)
    return free * _enumerate(merged, merged_sizes)


def _merge(sizes: dict[str, int], forms: list[Linear]) -> tuple[dict[str, int], list[Linear]]:
    """Join an outer and an inner coordinate that only occur as ``outer * size(inner) + inner``."""
    changed = True
    while changed:
        changed = False
        for outer in list(sizes):
            for inner in list(sizes):
                if outer == inner or not all(
                    f.coefficients.get(outer, 0) == f.coefficients.get(inner, 0) * sizes[inner] for f in forms
                ):
                    continue
                sizes = {x: n * (sizes[outer] if x == inner else 1) for x, n in sizes.items() if x != outer}
                forms = [Linear({x: c for x, c in f.coefficients.items() if x != outer}, f.constant) for f in forms]
                changed = True
                break
            if changed:
                break
    return sizes, forms


def _enumerate(forms: list[Linear], sizes: dict[str, int]) -> int:
    """Points of a box that meet every form: all coordinates but the longest are enumerated, that one solved for."""
    solved = max(sizes, key=lambda x: sizes[x])
    others = [x for x in sizes if x != solved]
    total = prod(sizes[x] for x in others)
    if total > MAX_ENUMERATED:
        raise InputError(
            f"conditions over {', '.join(sizes)} leave {total} combinations to count", expected=f"at most {MAX_ENUMERATED}"
        )
    result = 0
    for start in range(0, total, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, total), dtype=np.int64)
        coordinates = dict(zip(others, np.unravel_index(index, [sizes[x] for x in others]), strict=True)) if others else {}
        low = np.zeros(len(index), dtype=np.int64)
        high = np.full(len(index), sizes[solved] - 1, dtype=np.int64)
        for form in forms:
            rest = np.full(len(index), form.constant, dtype=np.int64)
            for x in others:
                if c := form.coefficients.get(x, 0):
                    rest += c * coordinates[x]
            c = form.coefficients.get(solved, 0)
            if c > 0:
                high = np.minimum(high, -rest // c)
            elif c < 0:
                low = np.maximum(low, -(-rest // -c))
            else:
                high = np.where(rest <= 0, high, -1)
        result += int(np.maximum(high - low + 1, 0).sum())
    return result
