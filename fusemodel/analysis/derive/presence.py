"""Where elements are present: the conditions of an expression, and fibers of which some point surely is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from fusemodel.analysis.derive.fiber import Fiber, by_rank, conjuncts
from fusemodel.analysis.derive.normal import Normal, bare
from fusemodel.analysis.derive.signs import nonnegative
from fusemodel.analysis.derive.terms import Mono, Poly, TooLargeError
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Expr,
    Extent,
    Number,
    RankValue,
    match_indices,
    rank_values,
    substitute,
    walk,
)

_TURNED = {">=": "<=", ">": "<"}


@dataclass(frozen=True, slots=True)
class Condition:
    """``test`` must hold for an element to be present; where it is not ``known``, what it is stands for it."""

    test: Expr
    known: bool = True

    @property
    def ranks(self) -> frozenset[str]:
        return frozenset(rank_values(self.test))


def conditions_of(fiber: Fiber, expr: Expr) -> tuple[Condition, ...]:
    """All that must hold for an expression to be present at a point."""
    return tuple(dict.fromkeys(_conditions(fiber, expr, {})))


_Known = dict[str, tuple[Condition, ...]]  # conditions of tensors, written over the ranks of their equations


def _conditions(fiber: Fiber, expr: Expr, known: _Known) -> Iterator[Condition]:
    match expr:
        case Apply("coalesce", args):
            if all(any(True for _ in _conditions(fiber, a, known)) for a in args):
                yield Condition(bare(expr), known=False)
        case Apply(_, args):
            for a in args:
                yield from _conditions(fiber, a, known)
        case Access():
            yield from _of_indices(fiber, expr, known)
            if expr.tensor in fiber.partial:
                yield from _of_tensor(fiber, expr, known)


def _of_indices(fiber: Fiber, access: Access, known: _Known) -> Iterator[Condition]:
    tensor = fiber.cascade.tensors[access.tensor]
    for index in access.indices:
        yield from _conditions(fiber, index, known)
    matched = match_indices(fiber.cascade, tensor, access.indices)
    for rank, index in zip(tensor.ranks, matched or (), strict=False):
        if rank in tensor.iterative or index == RankValue(rank):
            continue
        for test in (Apply(">=", (index, Number(0))), Apply("<", (index, Extent(rank)))):
            if not holds(fiber, test):
                yield Condition(bare(test))


def _of_tensor(fiber: Fiber, access: Access, known: _Known) -> Iterator[Condition]:
    e = fiber.definition(access.tensor)
    if e is None or e.selection or len(access.indices) != len(e.target.indices):
        yield Condition(bare(access), known=False)
        return
    if e.name not in known:
        conditions, reduced = conjuncts([e.where]), set(fiber.reduced(e))
        found = [Condition(bare(c)) for c in conditions]
        found += (c for part in (e.body, *conditions) for c in _conditions(fiber, part, known))
        known[e.name] = tuple(dict.fromkeys(c for c in found if not c.ranks & reduced))
    change = by_rank(fiber.cascade, access)
    yield from (Condition(bare(substitute(c.test, change)), c.known) for c in known[e.name])


def surely_some(fiber: Fiber, conditions: Iterable[Condition]) -> bool:
    """Whether at least one point of every fiber is present, at any extents: a coordinate is found that meets all."""
    along = [c for c in conditions if fiber.rank in c.ranks]
    tests = [c.test for c in along]
    if not all(c.known for c in along):
        return False
    inside = (x for t in tests for x in walk(t) if not fiber.along(x) and not isinstance(x, Access))
    for witness in dict.fromkeys((Number(0), *inside)):
        last = Apply("<", (witness, Extent(fiber.rank)))
        if all(holds(fiber, t) for t in (Apply(">=", (witness, Number(0))), last)) and all(
            holds(fiber, substitute(t, {fiber.rank: witness})) for t in tests
        ):
            return True
    return False


def holds(fiber: Fiber, test: Expr) -> bool:
    """Whether a condition is proved true at every point, whatever the extents."""
    match test:
        case Apply("and", args):
            return all(holds(fiber, a) for a in args)
        case Apply("or", args):
            return any(holds(fiber, a) for a in args)
        case Apply(">=" | ">" as op, (a, b)):
            return holds(fiber, Apply(_TURNED[op], (b, a)))
        case Apply("<=" | "<", (Apply("abs", (x,)), b)):
            return all(holds(fiber, Apply(test.op, (y, b))) for y in (x, Apply("neg", (x,))))
        case Apply("==", (a, b)):
            return _difference(fiber, a, b) == Poly()
        case Apply("<=" | "<" as op, (a, b)):
            gap = _difference(fiber, b, a)
            return gap is not None and _least(fiber, gap) > (-1 if op == "<=" else 0)
    return False


def _difference(fiber: Fiber, a: Expr, b: Expr) -> Poly | None:
    """a - b for whole numbers, extents that are one written alike."""

    def alike(e: Expr) -> Expr:
        match e:
            case Extent(rank):
                return Extent(same_extent(fiber, rank))
            case Apply(op, args):
                inner = tuple(alike(a) for a in args)
                return Number(0) if op in ("//", "%") and inner[0] == Number(0) else Apply(op, inner)
        return e

    try:
        return Normal()(Apply("-", (alike(a), alike(b))))
    except TooLargeError:
        return None


def same_extent(fiber: Fiber, rank: str) -> str:
    """The rank whose extent a rank's extent is given as, if it is."""
    extent = fiber.cascade.ranks[rank]
    return same_extent(fiber, extent.rank) if isinstance(extent, Extent) else rank


def _least(fiber: Fiber, poly: Poly) -> Fraction:
    """A lower bound of a sum of products of coordinates and extents; minus infinity is -1 here, as nothing needs less.

    A coordinate is at most its extent less one, and ``x // k`` at most ``x / k``; what is subtracted is bounded so, and
    what is left is least where coordinates are 0 and extents 1.
    """
    for m, c in poly.terms:
        if c < 0 and m.powers:
            rest = [t for t in poly.terms if t[0] != m]
            bound = _most(fiber, m)
            return Fraction(-1) if bound is None else _least(fiber, _sum(rest, bound, c))
    found = Fraction(0)
    for m, c in poly.terms:
        low = _lowest(fiber, m)
        if low is None:
            return Fraction(-1)
        found += c * low
    return found


def _sum(terms: list[tuple[Mono, Fraction]], bound: Poly, c: Fraction) -> Poly:
    found: dict[Mono, Fraction] = dict(terms)
    for m, k in bound.terms:
        found[m] = found.get(m, Fraction(0)) + k * c
    return Poly(tuple((m, k) for m, k in found.items() if k))


def _most(fiber: Fiber, m: Mono) -> Poly | None:
    """An upper bound of a product, as a sum of products of extents."""
    match [a for a, p in m.powers for _ in range(int(p))]:
        case [RankValue(rank)]:
            return _difference(fiber, Extent(rank), Number(1))
        case [Apply("//", (x, Number(value)))] if value >= 1 and nonnegative(fiber.cascade, x):
            return Normal()(Apply("/", (x, Number(value))))
        case [Extent(inner), RankValue(outer)] | [RankValue(outer), Extent(inner)]:
            whole = fiber.cascade.parents.get(outer, "")
            if fiber.cascade.split.get(whole) == (outer, inner) and not isinstance(fiber.cascade.ranks[outer], Number):
                return _difference(fiber, Extent(whole), Number(1))  # no tile starts beyond the end
    return None


def _lowest(fiber: Fiber, m: Mono) -> Fraction | None:
    if m.exponent or any(p < 0 or not nonnegative(fiber.cascade, a) for a, p in m.powers):
        return None
    return Fraction(int(all(isinstance(a, Extent) for a, _ in m.powers)))
