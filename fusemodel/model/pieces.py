"""Conditions and indices on coordinates as linear forms: one, or one for each of several pieces of the space.

``min``, ``max``, ``abs``, ``select``, ``or`` and ``!=`` cut the space into pieces that have no point in common, in each
of which everything is linear; ``//`` and ``%`` make coordinates of their own. What is none of this (``m * p < 4``)
becomes a coordinate that is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from fusemodel.cascade.ir import Apply, Expr, Number, accesses, rank_values
from fusemodel.cascade.operators import COMPARISONS
from fusemodel.model.forms import (
    Defined,
    Form,
    Linear,
    Piece,
    Quotients,
    added,
    bounds_of,
    combined,
    constant,
    linear,
    narrowed,
    scaled,
)

#: Pieces looked at for one set of conditions; what would take more is computed point by point.
MAX_PIECES = 16

#: Forms that all hold.
Linears: TypeAlias = tuple[Linear, ...]
#: A value in one piece of the space.
Case: TypeAlias = tuple[Linears, Linear]
#: An index in one piece of the space; None where it depends on data.
IndexCase: TypeAlias = tuple[Linears, Linear | None]


def regions(
    conditions: Sequence[Expr], extents: Mapping[str, int], quotients: Quotients
) -> tuple[list[Piece], list[Expr]]:
    """Where all conditions hold, as pieces that have no point in common (none: nowhere; one without forms: everywhere),
    and the conditions that depend on data (taken as always met)."""
    splitter = _Splitter(extents, quotients)
    pieces: list[Linears] = [()]
    other: list[Expr] = []
    for condition in conditions:
        if accesses(condition):
            if not splitter.always(condition):
                other.append(condition)
            continue
        found = splitter.holds(condition)
        joined = None if found is None else splitter.every(pieces, found)
        if joined is None:
            computed = quotients.defined(condition, extents, 2)
            joined = splitter.every(pieces, [(Linear(scaled(computed, -1).coefficients, 1),)])
        pieces = joined or []
    return [(*p, *quotients.closure(p)) for p in pieces], other


def constraints(
    conditions: Sequence[Expr], extents: Mapping[str, int], quotients: Quotients
) -> tuple[list[Form], list[Expr]]:
    """Conditions that are forms everywhere (without the definitions of coordinates), and those that are not."""
    splitter = _Splitter(extents, quotients)
    forms: list[Form] = []
    other: list[Expr] = []
    for condition in conditions:
        found = None if accesses(condition) else splitter.holds(condition)
        if found is None or len(found) > 1:
            other.append(condition)
        else:
            forms += found[0] if found else (Linear({}, 1),)
    return forms, other


def index_cases(expr: Expr, extents: Mapping[str, int], quotients: Quotients, limit: int) -> list[Case] | None:
    """An index that is from 0 to below ``limit`` where it matters, piece by piece; None if it depends on data."""
    if accesses(expr):
        return None
    found = _Splitter(extents, quotients).cases(expr)
    return computed_index(expr, extents, quotients, limit) if found is None else found


def indexed(
    pieces: Sequence[Piece], cases: Sequence[Sequence[IndexCase]], quotients: Quotients
) -> list[tuple[Piece, tuple[Linear | None, ...]]]:
    """Pieces of the space in each of which every one of several indices is a form (or None, as given), with the
    definitions of the coordinates in them."""
    found: list[tuple[Piece, tuple[Linear | None, ...]]] = []
    for piece, choice in product(pieces, product(*cases)):
        index = tuple(i for _, i in choice)
        within = _where(piece, [g for guards, _ in choice for g in guards], quotients)
        if within is not None:
            every = (*within, *quotients.closure([*within, *(i for i in index if i is not None)]))
            found.append((tuple({f.key(): f for f in every}.values()), index))
    return found


def _where(piece: Piece, guards: Sequence[Linear], quotients: Quotients) -> Piece | None:
    """A piece of the space where more holds; None if that is nowhere."""
    if not guards:
        return piece
    forms = [f for f in piece if isinstance(f, Linear)]
    found = narrowed([*forms, *guards], quotients.every)
    return None if found is None else (*found, *(f for f in piece if isinstance(f, Defined)))


def computed_index(expr: Expr, extents: Mapping[str, int], quotients: Quotients, limit: int) -> list[Case]:
    """Such an index as a coordinate that is computed."""
    return [((), quotients.defined(expr, extents, limit))]


class _Splitter:
    """Cuts the space into pieces where expressions are linear. A result of None: they are not, or pieces are too
    many."""

    def __init__(self, extents: Mapping[str, int], quotients: Quotients) -> None:
        self.extents, self.quotients = extents, quotients

    def always(self, condition: Expr) -> bool:
        """Whether a condition, parts of which may depend on data, holds everywhere."""
        match condition:
            case Apply("or", args):
                return any(self.always(a) for a in args)
            case Apply("and", args):
                return all(self.always(a) for a in args)
        return not accesses(condition) and self.holds(condition) == [()]

    def every(self, *parts: Sequence[Linears]) -> list[Linears] | None:
        """The pieces where one of each of several lists holds."""
        result: list[Linears] = [()]
        for part in parts:
            both = (narrowed((*a, *b), self.quotients.every) for a, b in product(result, part))
            result = [p for p in both if p is not None]
            if len(result) > MAX_PIECES:
                return None
        return result

    def holds(self, expr: Expr, truth: bool = True) -> list[Linears] | None:
        """Pieces where a condition is true, or false."""
        match expr:
            case Apply("not", (a,)):
                return self.holds(a, not truth)
            case Apply("and" | "or" as op, args):
                parts = [(self.holds(a, truth), self.holds(a, not truth)) for a in args]
                known = [(yes, no) for yes, no in parts if yes is not None and no is not None]
                if len(known) < len(parts):
                    return None
                return self._all([yes for yes, _ in known]) if (op == "and") == truth else self._any(known)
            case Apply(op, (a, b)) if op in COMPARISONS:
                return self._compared(op, a, b, truth)
        return self._compared("!=", expr, Number(0), truth)

    def _all(self, parts: Sequence[list[Linears]]) -> list[Linears] | None:
        return self.every(*parts)

    def _any(self, parts: Sequence[tuple[list[Linears], list[Linears]]]) -> list[Linears] | None:
        if any(yes == [()] for yes, _ in parts):
            return [()]
        result: list[Linears] = []
        before: list[list[Linears]] = []
        for yes, no in parts:
            found = self.every(*before, yes)
            if found is None or len(result) + len(found) > MAX_PIECES:
                return None
            result += found
            before.append(no)
        # where none of them holds: nowhere?
        return [()] if self.every(*before) == [] else result

    def _compared(self, op: str, a: Expr, b: Expr, truth: bool) -> list[Linears] | None:
        if not truth:
            op = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}[op]
        if not rank_values(a) and not rank_values(b):
            left, right = constant(a, self.extents), constant(b, self.extents)
            if left is None or right is None:
                return None
            return [()] if _COMPARE[op](left, right) else []
        up, down = Apply("-", (a, b)), Apply("-", (b, a))
        match op:
            case "<=" | ">=":
                return self.at_most(up if op == "<=" else down, 0)
            case "<" | ">":
                return self.at_most(up if op == "<" else down, -1)
            case "==":
                parts = [self.at_most(up, 0), self.at_most(down, 0)]
                known = [p for p in parts if p is not None]
                return self._all(known) if len(known) == 2 else None
        parts = [self.at_most(up, -1), self.at_most(down, -1)]
        known = [x for p in parts if p is not None for x in p]
        return None if None in parts else [()] if () in known else known

    def at_most(self, expr: Expr, limit: int) -> list[Linears] | None:
        """Pieces where a value of whole numbers is at most ``limit``."""
        span = self.span(expr)
        if span is not None and (span[1] <= limit or span[0] > limit):
            return [()] if span[1] <= limit else []
        bend = _bend(expr, 1)
        if bend is None:
            found = self.cases(expr)
            if found is None:
                return None
            return self._where([(g, added(v, Linear({}, -limit))) for g, v in found])
        op, rising, ways = bend
        least = [self.at_most(rebuilt, limit) for _, rebuilt in ways]
        known = [x for x in least if x is not None]
        if len(known) < len(least):
            return None
        if rising == (op != "min"):  # the largest must be below the limit, so all
            return self._all(known)
        if all(x == [()] for x in known):
            return [()]
        result: list[Linears] = []
        for i, (way, _) in enumerate(ways):
            chosen = [self._first(op, way, i, other, j) for j, (other, _) in enumerate(ways) if j != i]
            parts = [x for x in chosen if x is not None]
            found = self.every(*parts, known[i]) if len(parts) == len(chosen) else None
            if found is None or len(result) + len(found) > MAX_PIECES:
                return None
            result += found
        return result

    def _first(self, op: str, a: Expr, i: int, b: Expr, j: int) -> list[Linears] | None:
        """Where the ``i``-th of the operands of ``min``, ``max`` or ``abs`` is taken rather than the ``j``-th."""
        smaller, larger = (a, b) if op == "min" else (b, a)
        return self.at_most(Apply("-", (smaller, larger)), 0 if i < j else -1)

    def _where(self, cases: Sequence[Case]) -> list[Linears]:
        found = [(guards, narrowed((*guards, form), self.quotients.every)) for guards, form in cases]
        if all(piece == guards for guards, piece in found):
            return [()]  # in every piece of the space
        return [piece for _, piece in found if piece is not None]

    def cases(self, expr: Expr) -> list[Case] | None:
        """The value of an expression in each of the pieces that make up the space."""
        single = linear(expr, self.extents, self.quotients)
        if single is not None:
            return [((), single)]
        if not isinstance(expr, Apply) or not rank_values(expr):
            return None
        op, args = expr.op, expr.args
        if op in COMPARISONS or op in ("and", "or", "not"):
            return self._chosen(expr, [((), Linear({}, 1))], [((), Linear({}, 0))])
        if op == "select":
            return self._chosen(args[0], self.cases(args[1]), self.cases(args[2]))
        if op in ("min", "max", "abs", "relu"):
            ways = (args[0], Apply("neg", args)) if op == "abs" else (args[0], Number(0)) if op == "relu" else args
            return self._extreme("min" if op == "min" else "max", ways)
        parts = [self.cases(a) for a in args]
        known = [p for p in parts if p is not None]
        if len(known) < len(parts):
            return None
        result: list[Case] = []
        for choice in product(*known):
            guards = narrowed([g for some, _ in choice for g in some], self.quotients.every)
            if guards is not None:
                value = combined(op, [v for _, v in choice], self.quotients)
                if value is None or len(result) == MAX_PIECES:
                    return None
                result.append((guards, value))
        return result

    def _chosen(self, condition: Expr, yes: list[Case] | None, no: list[Case] | None) -> list[Case] | None:
        result: list[Case] = []
        for truth, cases in ((True, yes), (False, no)):
            where = self.holds(condition, truth)
            if where is None or cases is None:
                return None
            both = ((narrowed((*a, *b), self.quotients.every), v) for a, (b, v) in product(where, cases))
            result += [(g, v) for g, v in both if g is not None]
        return result if len(result) <= MAX_PIECES else None

    def _extreme(self, op: str, ways: Sequence[Expr]) -> list[Case] | None:
        result: list[Case] = []
        for i, way in enumerate(ways):
            chosen = [self._first(op, way, i, other, j) for j, other in enumerate(ways) if j != i]
            where = self.every(*(x for x in chosen if x is not None))
            cases = self.cases(way)
            if None in chosen or where is None or cases is None:
                return None
            both = ((narrowed((*a, *b), self.quotients.every), v) for a, (b, v) in product(where, cases))
            result += [(g, v) for g, v in both if g is not None]
        return result if len(result) <= MAX_PIECES else None

    def span(self, expr: Expr) -> tuple[float, float] | None:
        """An interval that a value lies in."""
        single = linear(expr, self.extents, self.quotients)
        if single is not None:
            return bounds_of(single, self.quotients.every)
        if not isinstance(expr, Apply):
            return None
        parts = [self.span(a) for a in expr.args]
        known = [p for p in parts if p is not None]
        return _span(expr.op, known) if len(known) == len(parts) else None


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


def _span(op: str, parts: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    lows, highs = [low for low, _ in parts], [high for _, high in parts]
    match op:
        case "+":
            return sum(lows), sum(highs)
        case "-":
            return lows[0] - highs[1], highs[0] - lows[1]
        case "neg":
            return -highs[0], -lows[0]
        case "*":
            ends = [a * b for a in parts[0] for b in parts[1]]
            return min(ends), max(ends)
        case "min":
            return min(lows), min(highs)
        case "max":
            return max(lows), max(highs)
        case "abs":
            return max(0, lows[0], -highs[0]), max(-lows[0], highs[0])
        case "relu":
            return max(0, lows[0]), max(0, highs[0])
        case "select":
            return min(lows[1:]), max(highs[1:])
        case "//" | "%" if lows[1] == highs[1] > 0:
            c = lows[1]
            if op == "//":
                return lows[0] // c, highs[0] // c
            return (lows[0] % c, highs[0] % c) if lows[0] // c == highs[0] // c else (0, c - 1)
    return (0, 1) if op in COMPARISONS or op in ("and", "or", "not") else None


def _bend(expr: Expr, sign: int) -> tuple[str, bool, list[tuple[Expr, Expr]]] | None:
    """An extreme value that a sum contains: its operator, whether the sum rises with it, and for each operand that and
    the sum with the operand in its place."""
    match expr:
        case Apply("min" | "max" as op, args) if rank_values(expr):
            return op, sign > 0, [(a, a) for a in args]
        case Apply("abs", (a,)) if rank_values(expr):
            return "abs", sign > 0, [(x, x) for x in (a, Apply("neg", (a,)))]
        case Apply("neg", (a,)):
            return _rebuilt(_bend(a, -sign), lambda x: Apply("neg", (x,)))
        case Apply("+" | "-" as op, (a, b)):
            left = _rebuilt(_bend(a, sign), lambda x: Apply(op, (x, b)))
            return left or _rebuilt(_bend(b, sign if op == "+" else -sign), lambda x: Apply(op, (a, x)))
    return None


def _rebuilt(
    bend: tuple[str, bool, list[tuple[Expr, Expr]]] | None, around: Callable[[Expr], Expr]
) -> tuple[str, bool, list[tuple[Expr, Expr]]] | None:
    return bend and (bend[0], bend[1], [(way, around(inside)) for way, inside in bend[2]])
