"""The identities that take what waits out of a reduction. Each has one side condition, and says no with a reason.

For a reduction over x of t(x, d), with d known only at the end of an earlier traversal of the same fiber, all of them
bring t to the form G(x) * H(d) (or G(x) + H(d)), where the reduction distributes over the operation and H comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from fusemodel.analysis.derive.fiber import START, Fiber, StuckError
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.signs import nonnegative_product
from fusemodel.analysis.derive.terms import (
    ONE,
    Mono,
    Poly,
    TooLargeError,
    add,
    atom,
    mono,
    multiply,
    parts,
    scale,
    to_expr,
    total,
)
from fusemodel.cascade.ir import Apply, Expr, Number, accesses, rank_values, reduction_op, substitute
from fusemodel.cascade.printer import format_expr

_INCREASING = frozenset(("log", "exp", "exp2", "sigmoid", "tanh"))


@dataclass(frozen=True, slots=True)
class Split:
    """One product taken apart: what stays in the reduction, what comes out of it, and the ranks of what stays but
    changes only with a stabiliser (``exp(-d)`` with d a running maximum)."""

    inside: Mono
    outside: Mono
    coefficient: Fraction
    held: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A maximum or minimum taken apart: ``outside * op(inside) + added``, or with ``exp(op(inside))``. ``held`` are the
    ranks of what stays inside but changes only with a stabiliser."""

    op: str
    inside: Poly
    outside: Poly
    added: Poly
    held: frozenset[str] = frozenset()
    exponential: bool = False


def normal_along(fiber: Fiber) -> Normal:
    """Normal forms that multiply out only sums which mix what is there at once with what waits."""
    return Normal(keep=lambda e: not fiber.mixed(e), distribute=fiber.mixed)


def expanded_form(fiber: Fiber, expr: Expr) -> Poly:
    """With every sum multiplied out that mixes what is there at once with what waits."""
    try:
        return normal_along(fiber)(expr)
    except TooLargeError:
        raise StuckError("its normal form has too many terms") from None


def kept_form(fiber: Fiber, expr: Expr) -> Poly:
    """As :func:`expanded_form`, but a difference from what waits stays one factor where it is raised to a power.

    Multiplied out, sum((x - d)^2) = sum(x^2) - 2 d sum(x) + ... loses all digits where d is large beside x - d; linear
    terms lose no more than rounding the elements does.
    """
    try:
        poly = Normal(keep=lambda e: not fiber.mixed(e) or differs(fiber, e), distribute=fiber.mixed)(expr)
        return add(*(_spread(fiber, m, c) for m, c in poly.terms))
    except TooLargeError:
        raise StuckError("its normal form has too many terms") from None


def _spread(fiber: Fiber, m: Mono, c: Fraction) -> Poly:
    """One product, multiplied out where that is linear in a difference, and in exponents."""
    if m.exponent:
        m = mono(m.powers, expanded_form(fiber, to_expr(m.exponent)))
    kept = [(a, p) for a, p in m.powers if fiber.mixed(a) and differs(fiber, a)]
    if len(kept) != 1 or kept[0][1] != 1:
        return Poly(((m, c),))
    difference = kept[0][0]
    rest = mono([x for x in m.powers if x[0] != difference], m.exponent)
    shared = {x.tensor for a, _ in rest.powers if fiber.along(a) for x in accesses(a) if fiber.along(x)}
    if shared & {x.tensor for x in accesses(difference) if fiber.along(x)}:
        return Poly(((m, c),))
    return multiply(Poly(((rest, c),)), expanded_form(fiber, difference))


def piloted_form(fiber: Fiber, expr: Expr, ranks: Iterable[str]) -> Poly:
    """As :func:`kept_form`, with powers of differences multiplied out relative to the first element of the fiber:
    x - d = (x - x[0]) + (x[0] - d), where neither side is large unless the first element is far from the others (the
    shifted data algorithm of Chan, Golub and LeVeque, The American Statistician, 1983)."""
    first = dict.fromkeys(ranks, Number(0))
    result = Poly()
    try:
        for m, c in kept_form(fiber, expr).terms:
            product = Poly(((mono([x for x in m.powers if not _difference(fiber, *x)], m.exponent), c),))
            for a, p in m.powers:
                for _ in range(int(p) if _difference(fiber, a, p) else 0):
                    product = multiply(product, _about_first(fiber, a, first))
            result = add(result, product)
    except TooLargeError:
        raise StuckError("its normal form has too many terms") from None
    return result


def _difference(fiber: Fiber, a: Expr, p: Fraction) -> bool:
    return p.denominator == 1 and p > 0 and differs(fiber, a)


def _about_first(fiber: Fiber, difference: Expr, first: Mapping[str, Expr]) -> Poly:
    terms = Normal()(difference).terms
    along = to_expr(total(t for t in terms if any(map(fiber.along, parts(t[0])))))
    rest = to_expr(total((m, -c) for m, c in terms if not any(map(fiber.along, parts(m)))))
    pilot = substitute(along, first)
    if any(fiber.may_be_absent(a, fiber.partial) for a in accesses(pilot)):
        pilot = Apply("coalesce", (pilot, Number(0)))
    return add(atom(Apply("-", (along, pilot))), atom(Apply("-", (pilot, rest))))


def differs(fiber: Fiber, expr: Expr) -> bool:
    """Whether an expression is a sum of something that changes along the rank and something that waits."""
    if not (isinstance(expr, Apply) and expr.op in ("+", "-")) or not fiber.mixed(expr):
        return False
    terms = [(any(map(fiber.along, parts(m))), any(map(fiber.waits, parts(m)))) for m, _ in Normal()(expr).terms]
    return any(along for along, _ in terms) and any(waits and not along for along, waits in terms)


def ranks_of_mono(m: Mono) -> frozenset[str]:
    return frozenset(r for a in parts(m) for r in rank_values(a))


def split_product(fiber: Fiber, m: Mono, c: Fraction) -> Split:
    """sum(G * H) = H * sum(G), for a factor H that lacks the reduced rank.

    A factor ``exp(-d)`` of a stabiliser d stays with an exponential that traverses the fiber, so that no exponential
    is taken of a large number. Side condition: each factor, and each term of the exponent, lacks the rank or waits for
    nothing.
    """
    inside, outside, differences = [], [], []
    for a, p in m.powers:
        if fiber.mixed(a):
            if p.denominator != 1 or p < 0 or not differs(fiber, a):
                raise StuckError(_mixed(fiber, a))
            differences.append(a)
        (inside if fiber.along(a) else outside).append((a, p))
    moving, kept, free, out = [], [], [], []
    for inner, k in m.exponent.terms if m.exponent else ():
        atoms = list(parts(inner))
        if any(fiber.along(a) for a in atoms):
            if any(fiber.waits(a) for a in atoms):
                raise StuckError(f"an exponent holds {format_expr(to_expr(Poly(((inner, k),))))}, which {_why(fiber)}")
            moving.append((inner, k))
        elif any(fiber.waits(a) for a in atoms):
            waiting = {a.tensor for e in atoms for a in accesses(e) if a.tensor in fiber.summaries}
            (kept if waiting <= fiber.stabilisers else out).append((inner, k))
        else:
            free.append((inner, k))
    if not moving:
        out, kept, free = [*out, *kept, *free], [], []
    held = frozenset(r for inner, _ in kept for r in ranks_of_mono(inner))
    waiting = (x for a in differences for x in accesses(a) if fiber.waits(x) and not fiber.along(x))
    held |= {r for x in waiting for r in rank_values(x)}
    return Split(
        mono(inside, total([*moving, *free, *kept])), mono(outside, total(out)), c, held
    )  # fmt: skip


def signs_of_nothing(fiber: Fiber, terms: Iterable[Mono]) -> list[Expr]:
    """Tests for fibers of which no point is present, where a factor taken out of a sum may be no finite number: a sum
    by which it divides, or of which it takes a logarithm, is 0, or a maximum is minus infinity."""
    found: dict[Expr, None] = {}
    for m in terms:
        for a, p in m.powers:
            if fiber.waits(a) and p < 0:
                found[Apply("==", (a, Number(0)))] = None
            elif fiber.waits(a):
                found |= dict.fromkeys(_of_nothing(fiber, a))
        for inner, _ in m.exponent.terms if m.exponent else ():
            found |= dict.fromkeys(t for a in parts(inner) for t in _of_nothing(fiber, a))
    return list(found)


def _of_nothing(fiber: Fiber, atom: Expr) -> Iterator[Expr]:
    for a in accesses(atom):
        e = fiber.definition(a.tensor) if a.tensor in fiber.summaries else None
        if e is not None and fiber.reduces(e) and reduction_op(e) in START:
            yield Apply("==", (a, START[reduction_op(e)]))
        elif e is not None and a is not atom:
            yield Apply("==", (a, Number(0)))


def _mixed(fiber: Fiber, a: Expr) -> str:
    return f"`{format_expr(a)}` {_why(fiber)}"


def _why(fiber: Fiber) -> str:
    return f"depends on {fiber.rank} and on what is complete only after a traversal of it, and does not factor"


def pull_from_extreme(fiber: Fiber, op: str, poly: Poly) -> Pulled:
    """max(x - d) = max(x) - d; max(x * d) = max(x) * d for d >= 0, min(x) * d for d <= 0; max(exp(x)) = exp(max(x)).

    Side condition: the terms that wait lack the rank, or all terms share one factor that does and whose sign is known.
    """
    inside = [(m, c) for m, c in poly.terms if any(fiber.along(a) for a in parts(m))]
    added = total((m, c) for m, c in poly.terms if (m, c) not in inside)
    if not any(fiber.waits(a) for m, _ in inside for a in parts(m)):
        return Pulled(op, total(inside), atom_one(), added)
    return _common_factor(fiber, op, inside, added)


def _common_factor(fiber: Fiber, op: str, inside: list[tuple[Mono, Fraction]], added: Poly) -> Pulled:
    split = [_split_all(fiber, m, c) for m, c in inside]
    stay = split[0].inside
    if len(split) == 1 and not stay.powers and stay.exponent and split[0].coefficient > 0:
        factor = Poly(((_signed(fiber, split[0].outside), split[0].coefficient),))
        return Pulled(op, stay.exponent, factor, added, exponential=True)
    if any(s.inside.exponent for s in split):  # the maximum subtracted in an exponential stays in it
        split = [split_product(fiber, m, c) for m, c in inside]
    outside = split[0].outside
    if any(s.outside != outside for s in split):
        raise StuckError("its terms have no common factor that waits")
    if outside == ONE and not added.terms:
        raise StuckError("nothing that waits is a factor of it")
    factor = Poly(((_signed(fiber, outside), Fraction(1)),))
    held = frozenset(r for s in split for r in s.held)
    return Pulled(op, total((s.inside, s.coefficient) for s in split), factor, added, held)


def _signed(fiber: Fiber, factor: Mono) -> Mono:
    if not nonnegative_product(fiber.cascade, factor):
        raise StuckError(f"the sign of `{format_expr(to_expr(Poly(((factor, Fraction(1)),))))}` is not known")
    return factor


def _split_all(fiber: Fiber, m: Mono, c: Fraction) -> Split:
    """As :func:`split_product`, with everything that lacks the rank outside."""
    s = split_product(fiber, m, c)
    exponent = s.inside.exponent.terms if s.inside.exponent else ()
    out = total((i, k) for i, k in exponent if not any(fiber.along(a) for a in parts(i)))
    stay = total((i, k) for i, k in exponent if any(fiber.along(a) for a in parts(i)))
    outer = add(s.outside.exponent, out) if s.outside.exponent else out
    return Split(mono(s.inside.powers, stay), mono(s.outside.powers, outer), c, frozenset())


def monotone_part(fiber: Fiber, poly: Poly) -> Poly:
    """topk(x + d) = topk(x); topk(x * d) = topk(x) for d > 0; topk(exp(x)) = topk(log(x)) = topk(x): the order of
    elements of a fiber is kept by any increasing function."""
    terms = [(m, c) for m, c in poly.terms if any(fiber.along(a) for a in parts(m))]
    if not terms:
        raise StuckError("nothing in it depends on the rank")
    if len(terms) == 1:
        m, c = terms[0]
        s = _split_all(fiber, m, c)
        if s.outside != ONE and not nonnegative_product(fiber.cascade, s.outside):
            raise StuckError("the sign of a factor is not known")
        inner = s.inside
        if inner.exponent and not inner.powers and c > 0:
            return monotone_part(fiber, inner.exponent)
        match inner:
            case Mono(powers=((Apply(op, (x,)), power),), exponent=None) if op in _INCREASING and power == 1 and c > 0:
                return monotone_part(fiber, Normal()(x))
        sign = Fraction(1 if c > 0 else -1)
        return Poly(((inner, sign),))
    pulled = _common_factor(fiber, "max", terms, Poly())
    return pulled.inside


def atom_one() -> Poly:
    return Poly(((ONE, Fraction(1)),))


def exponent_that_waits(fiber: Fiber, m: Mono) -> Poly:
    """E(d) in a product with a factor exp(E(d)) of stabilisers."""
    terms = m.exponent.terms if m.exponent else ()
    return total((i, k) for i, k in terms if any(fiber.waits(a) for a in parts(i)))


def correction(old: Poly, new: Poly) -> Expr:
    """H(old)^-1 * H(new) for H(d) = exp(E(d)): what rescales an accumulator when the running value moves on.
    exp(x - new) = exp(x - old) * exp(old - new)."""
    return to_expr(Poly(((mono([], add(new, scale(old, -1))), Fraction(1)),)))
