"""Numbers for ranks: extents given as expressions, evaluated in exact integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from fusemodel.cascade.ir import Apply, Cascade, Expr, Extent, Number
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import NOWHERE, InputError, Where, unknown

MAX_EXTENT = 2**40

Value = Fraction | float


def evaluate(expr: Expr, extents: Mapping[str, int], where: Where = NOWHERE) -> Value:
    """A scalar expression of extents; exact where it can be, ``sqrt`` and the like in floating point."""
    match expr:
        case Number(value):
            return Fraction(value) if math.isfinite(value) else value
        case Extent(rank):
            if rank not in extents:
                raise InputError(f"rank {rank!r} has no extent here", where)
            return Fraction(extents[rank])
        case Apply(op, args):
            values = [evaluate(a, extents, where) for a in args]
            try:
                return _apply(op, values)
            except ZeroDivisionError:
                raise InputError(f"division by zero in `{format_expr(expr)}`", where) from None
            except (OverflowError, ValueError):
                raise InputError(f"`{format_expr(expr)}` has no finite value", where) from None
            except KeyError:
                raise unknown("operator in a size", op, [*_FUNCTIONS, "+", "-", "*", "/", "//", "%"], where) from None
    raise InputError(f"`{format_expr(expr)}` is not a size", where, expected="numbers and extents of ranks")


_FUNCTIONS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "//": lambda a, b: Fraction(a // b), "%": lambda a, b: a % b, "neg": lambda a: -a, "abs": abs,
    "min": min, "max": max, "floor": lambda a: Fraction(math.floor(a)), "round": lambda a: Fraction(round(a)),
    "sqrt": lambda a: _root(a),
    "log": lambda a: math.log(a), "exp": lambda a: math.exp(a), "exp2": lambda a: 2.0 ** float(a),
    "pow": lambda a, b: _power(a, b),
    "<": lambda a, b: Fraction(a < b), "<=": lambda a, b: Fraction(a <= b), ">": lambda a, b: Fraction(a > b),
    ">=": lambda a, b: Fraction(a >= b), "==": lambda a, b: Fraction(a == b), "!=": lambda a, b: Fraction(a != b),
    "and": lambda *a: Fraction(all(a)), "or": lambda *a: Fraction(any(a)), "not": lambda a: Fraction(not a),
    "select": lambda c, a, b: a if c else b,
}  # fmt: skip


def _apply(op: str, values: list[Value]) -> Value:
    return _FUNCTIONS[op](*values)


def _root(a: Value) -> Value:
    exact = isinstance(a, Fraction) and a.denominator == 1 and a >= 0 and math.isqrt(a.numerator) ** 2 == a
    return Fraction(math.isqrt(int(a))) if exact else math.sqrt(a)


def _power(a: Value, b: Value) -> Value:
    if abs(b) > 64 or (isinstance(a, Fraction) and abs(a) > 2**64):
        raise OverflowError
    if a < 0 and Fraction(b).denominator != 1:
        raise ValueError
    return a**b


def integer(expr: Expr, extents: Mapping[str, int], what: str, where: Where = NOWHERE) -> int:
    """A whole number of at least 1 and at most ``MAX_EXTENT``."""
    if isinstance(expr, Number) and expr.value.__class__ is int and 1 <= expr.value <= MAX_EXTENT:
        return int(expr.value)
    value = evaluate(expr, extents, where)
    if value != value or value in (float("inf"), float("-inf")):
        raise InputError(f"{what} is {value}", where, expected="a whole number")
    if Fraction(value).denominator != 1:
        text = format_expr(expr).lower()
        value = float(value) if abs(value) < 2**128 else math.copysign(math.inf, value)
        raise InputError(
            f"{what} = {text} is {float(value):g}, not a whole number", where,
            expected=f"sizes that divide, or `ceil({text})` for a ragged last part"
            if "/" in text else "a whole number",
        )  # fmt: skip
    if value < 1:
        size = str(int(value)) if value > -(2**128) else "less than -2^128"
        given = "" if isinstance(expr, Number) else f" = {format_expr(expr).lower()}"
        raise InputError(f"{what}{given} is {size}", where, expected="at least 1")
    if value > MAX_EXTENT:
        size = str(int(value)) if value < 2**128 else "more than 2^128"
        raise InputError(f"{what} is {size}", where, expected=f"at most 2^40 = {MAX_EXTENT}")
    return int(value)


def extents_of(cascade: Cascade, overrides: Mapping[str, int] | None = None) -> dict[str, int]:
    """The extent of every rank, with some replaced; InputError for what is not a positive whole number.

    A part of a split rank that is given follows the whole, unless it is overridden itself.
    """
    overrides = dict(overrides or {})
    for rank in overrides:
        if rank not in cascade.ranks:
            raise unknown("rank", rank, cascade.ranks)
    result: dict[str, int] = {}
    active: list[str] = []

    def resolve(rank: str) -> int:
        if rank in result:
            return result[rank]
        where = cascade.places.get(rank, Where(cascade.file))
        if rank in active:
            chain = " -> ".join([*active[active.index(rank) :], rank])
            raise InputError(f"the extents of {chain} depend on each other", where)
        active.append(rank)
        expr: Expr = Number(overrides[rank]) if rank in overrides else cascade.ranks[rank]
        for used in _extents_used(expr):
            resolve(used)
        result[rank] = integer(expr, result, f"the extent of rank {rank!r}", where)
        active.pop()
        return result[rank]

    for rank in cascade.ranks:
        resolve(rank)
    for whole, (outer, inner) in cascade.split.items():
        size, parts = result[whole], result[outer] * result[inner]
        if not parts - result[inner] < size <= parts:
            raise InputError(
                f"rank {whole!r} has {size} elements, but {outer} x {inner} = "
                f"{result[outer]} x {result[inner]} = {parts}",
                cascade.places.get(whole, Where(cascade.file)),
                expected=f"`{outer}: {whole} / {inner}`, or `ceil({whole} / {inner})` for a ragged last part",
            )
    return {r: result[r] for r in cascade.ranks}


def _extents_used(expr: Expr) -> list[str]:
    match expr:
        case Extent(rank):
            return [rank]
        case Apply(_, args):
            return [r for a in args for r in _extents_used(a)]
    return []
