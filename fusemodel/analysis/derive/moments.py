"""Sums of powers of differences from a running value, such as a variance: shifted as that moves on.

For S = sum over x of t(x, d), a polynomial in d, with d the mean over the same fiber (or any value made of such sums):
t(x, d + s) = t(x, d) + s * t'(x, d) + s^2 / 2 * t''(x, d) + ..., so S follows d by sums of the derivatives, which
follow it in the same way. Nothing large is subtracted, as where the power is multiplied out. For a variance these are
the updates of Welford (Technometrics, 1962), and of Chan, Golub and LeVeque (1979) for tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import factorial

from fusemodel.analysis.derive.fiber import Fiber, StuckError, replaced
from fusemodel.analysis.derive.identities import expanded_form
from fusemodel.analysis.derive.normal import Normal, bare
from fusemodel.analysis.derive.terms import (
    ONE,
    Mono,
    Poly,
    TooLargeError,
    add,
    atom,
    constant,
    mono,
    multiply,
    parts,
    times_mono,
    to_expr,
    total,
)
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    Extent,
    Number,
    accesses,
    reduction_op,
)
from fusemodel.cascade.printer import format_expr


def shifts(poly: Poly, centres: Iterable[Access]) -> Iterator[tuple[tuple[int, ...], Fraction, Poly]]:
    """The Taylor series in some tensors, without its first term: powers of their shifts, coefficients, derivatives."""
    for powers, coefficient, derived in _series(poly, tuple(centres)):
        if any(powers):
            yield powers, coefficient, derived


def _series(poly: Poly, centres: tuple[Access, ...]) -> Iterator[tuple[tuple[int, ...], Fraction, Poly]]:
    if not centres:
        yield (), Fraction(1), poly
        return
    order, derived = 0, poly
    while derived.terms:
        for powers, coefficient, rest in _series(derived, centres[1:]):
            yield (order, *powers), coefficient / factorial(order), rest
        order, derived = order + 1, derivative(derived, centres[0])


def derivative(poly: Poly, by: Access) -> Poly:
    """With respect to a tensor in which it is a polynomial; sums raised to a power stay as they are."""
    found = Poly()
    for m, c in poly.terms:
        for a, p in m.powers:
            if not any(bare(x) == by for x in accesses(a)):
                continue
            inner = constant(1) if a == by else derivative(Normal()(a), by)
            if a != by and Normal()(a) == atom(a):
                raise StuckError(f"`{format_expr(a)}` is no polynomial in {by.tensor}")
            rest = times_mono(m, mono([(a, Fraction(-1))]))
            found = add(found, multiply(Poly(((rest, c * p),)), inner))
        if m.exponent and any(bare(x) == by for a in parts(Mono((), m.exponent)) for x in accesses(a)):
            raise StuckError(f"an exponent holds {by.tensor}")
    return found


def centres_in(fiber: Fiber, poly: Poly) -> dict[Access, None]:
    """The summaries that stand in an expanded form as factors, to a positive whole power."""
    return {
        a: None
        for m, _ in poly.terms
        for a, p in m.powers
        if isinstance(a, Access) and a.tensor in fiber.summaries and p.denominator == 1 and p > 0
    }


def sources(fiber: Fiber, name: str) -> frozenset[str]:
    """The sums over the rank that a summary is made of, element by element; StuckError where it is of other things."""
    found: set[str] = set()
    todo = [name]
    while todo:
        tensor = todo.pop()
        e = fiber.definition(tensor)
        if e is None or e.selection or (fiber.reduced(e) and not fiber.reduces(e)):
            raise StuckError(f"{name} is made of {tensor}, which has no running value")
        if not fiber.reduces(e):
            todo += [a.tensor for a in accesses(e.body) if a.tensor in fiber.summaries]
            continue
        if reduction_op(e) not in ("sum", "mean"):
            raise StuckError(f"{name} is made of {tensor}, which is no sum")
        found.add(tensor)
    return frozenset(found)


def running_body(fiber: Fiber, name: str, sums: Mapping[str, Expr], count: Expr) -> Expr:
    """A summary made of sums as they are, with the count of the coordinates so far for the extent of the rank; zero
    where it divides by nothing."""
    e = fiber.definition(name)
    assert e is not None

    def go(x: Expr) -> Expr:
        match x:
            case Access(tensor) if tensor in sums:
                return _at(fiber, sums[tensor], x)
            case Access(tensor) if tensor in fiber.summaries:
                inside, _ = fiber.inline(x, fiber.summaries)
                return go(inside) if inside != x else x
            case Extent(rank) if rank == fiber.rank:
                return count
            case Apply(op, args):
                return Apply(op, tuple(go(a) for a in args))
        return x

    body = go(e.target) if name in sums else go(e.body)
    below = {a: None for m, _ in Normal()(body).terms for a, p in m.powers if p < 0 and accesses(a)}
    tests: list[Expr] = [Apply("==", (a, Number(0))) for a in below]
    if not tests:
        return bare(body)
    return Apply("select", (tests[0] if len(tests) == 1 else Apply("or", tuple(tests)), Number(0), bare(body)))


def _at(fiber: Fiber, value: Expr, read: Access) -> Expr:
    return replaced(fiber.cascade, bare(read), {read.tensor: value})


def vanishes(fiber: Fiber, e: Einsum, poly: Poly) -> bool:
    """Whether a sum over what ``e`` sums is proved zero, as that of differences from a mean is."""
    known = _known_sums(fiber, e)
    found = Poly()
    try:
        for m, c in Normal()(to_expr(poly)).terms:
            inside = mono([(a, p) for a, p in m.powers if fiber.along(a)], m.exponent)
            outside = mono([(a, p) for a, p in m.powers if not fiber.along(a)])
            if inside not in known:
                return False
            found = add(found, multiply(Poly(((outside, c),)), known[inside]))
        whole, _ = fiber.inline(to_expr(found), fiber.summaries)
        return not Normal()(whole).terms
    except (TooLargeError, StuckError):
        return False


def _known_sums(fiber: Fiber, e: Einsum) -> dict[Mono, Poly]:
    """Sums over the same points that the cascade has, by what is summed."""
    ranks, names = fiber.reduced(e), fiber.late | fiber.composites
    size = total([(mono((Extent(r), Fraction(1)) for r in ranks), Fraction(1))])
    found = {} if e.where is not None else {ONE: size}
    for other in fiber.cascade.einsums:
        same = fiber.reduces(other) and set(fiber.reduced(other)) == set(ranks) and not other.selection
        if not same or fiber.definition(other.name) is None or reduction_op(other) not in ("sum", "mean"):
            continue
        if format_expr(other.where or Number(1)) != format_expr(e.where or Number(1)):
            continue
        terms = expanded_form(fiber, fiber.inline(other.body, names)[0]).terms
        if len(terms) == 1 and (reduction_op(other) == "sum" or e.where is None):
            value = multiply(atom(bare(other.target)), constant(1 / terms[0][1]))
            found[terms[0][0]] = multiply(value, size) if reduction_op(other) == "mean" else value
    return found
