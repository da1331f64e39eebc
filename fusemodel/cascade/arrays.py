"""Expressions of sizes over arrays: one element for each of many sets of extents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from fusemodel.cascade.ir import Apply, Cascade, Expr, Extent, Number, RankValue
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import NOWHERE, InputError, Where, unknown

Array: TypeAlias = Any

_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "//": np.floor_divide, "%": np.mod,
    "neg": np.negative, "abs": np.abs, "min": lambda *a: _fold(np.minimum, a), "max": lambda *a: _fold(np.maximum, a),
    "floor": np.floor, "sqrt": np.sqrt, "log": np.log, "exp": np.exp, "exp2": np.exp2, "pow": np.power,
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
    "select": np.where, "and": lambda *a: _fold(np.logical_and, a), "or": lambda *a: _fold(np.logical_or, a),
    "not": np.logical_not,
}  # fmt: skip


def _fold(op: Callable[[Array, Array], Array], values: tuple[Array, ...]) -> Array:
    total = values[0]
    for value in values[1:]:
        total = op(total, value)
    return total


def evaluate_arrays(expr: Expr, sizes: Mapping[str, Array], where: Where = NOWHERE) -> Array:
    """An expression of extents, as float64; what divides by zero is not finite."""
    match expr:
        case Number(value):
            return np.float64(value)
        case Extent(name) | RankValue(name):
            if name not in sizes:
                raise unknown("name", name, sizes, where)
            return sizes[name]
        case Apply(op, args):
            if op not in _FUNCTIONS:
                raise unknown("operator in a size", op, _FUNCTIONS, where)
            with np.errstate(all="ignore"):
                return _FUNCTIONS[op](*(evaluate_arrays(a, sizes, where) for a in args))
    raise InputError(f"`{format_expr(expr)}` is not a size", where, expected="numbers and extents of ranks")


def extents_arrays(
    cascade: Cascade, overrides: Mapping[str, Array], replaced: Mapping[str, Expr]
) -> tuple[dict[str, Array], Array]:
    """The extent of every rank for arrays of some, and which elements have whole, positive extents throughout.

    ``replaced`` are extents that a mapping gives as expressions.
    """
    found: dict[str, Array] = {r: np.asarray(n, dtype=np.float64) for r, n in overrides.items()}
    active: list[str] = []

    def resolve(rank: str) -> None:
        if rank in found:
            return
        if rank in active:
            chain = " -> ".join([*active, rank])
            raise InputError(f"the extents of {chain} depend on each other", Where(cascade.file))
        active.append(rank)
        expr = replaced.get(rank, cascade.ranks[rank])
        for name in _names(expr):
            resolve(name)
        found[rank] = np.asarray(evaluate_arrays(expr, found), dtype=np.float64)
        active.pop()

    for rank in cascade.ranks:
        resolve(rank)
    usable: Array = np.True_
    for values in found.values():
        usable = usable & np.isfinite(values) & (values >= 1) & (values == np.floor(values)) & (values <= 2**40)
    return found, usable


def _names(expr: Expr) -> list[str]:
    match expr:
        case Extent(name) | RankValue(name):
            return [name]
        case Apply(_, args):
            return [n for a in args for n in _names(a)]
    return []
