"""Normal forms: sums of products of powers of atoms, with everything exponential in one exponent.

Two expressions with the same normal form are equal by the laws of a field and ``exp(a) * exp(b) = exp(a + b)``,
``exp(log(a)) = a``, ``log(a * exp(b)) = log(a) + b``. An atom is whatever these laws do not look into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from fusemodel.cascade.ir import Apply, Expr, Extent, Number
from fusemodel.cascade.printer import format_expr

MAX_TERMS = 48
HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Mono:
    """A product of powers of atoms, times ``exp(exponent)``."""

    powers: tuple[tuple[Expr, Fraction], ...] = ()
    exponent: Poly | None = None


@dataclass(frozen=True, slots=True)
class Poly:
    """A sum of products, each with its coefficient."""

    terms: tuple[tuple[Mono, Fraction], ...] = ()


LOG2: Expr = Apply("log", (Number(2),))
ONE = Mono()
ONE_POLY = Poly(((ONE, Fraction(1)),))


class TooLargeError(Exception):
    """A normal form has too many terms to be of use."""


@lru_cache(maxsize=50_000)
def _text(mono: Mono) -> str:
    parts = [f"{format_expr(a)}^{p}" for a, p in mono.powers]
    inner = mono.exponent.terms if mono.exponent else ()
    return "*".join(parts) + (f"*exp({[(c, _text(m)) for m, c in inner]})" if inner else "")


def total(pairs: Iterable[tuple[Mono, Fraction]]) -> Poly:
    """The sum of terms, like ones collected."""
    found: dict[Mono, Fraction] = {}
    for mono, c in pairs:
        found[mono] = found.get(mono, Fraction(0)) + c
    left = [(m, c) for m, c in found.items() if c]
    if len(left) > MAX_TERMS:
        raise TooLargeError
    return Poly(tuple(sorted(left, key=lambda t: _text(t[0]))))


def mono(powers: Iterable[tuple[Expr, Fraction]], exponent: Poly | None = None) -> Mono:
    """A product, like atoms collected."""
    found: dict[Expr, Fraction] = {}
    for atom, p in powers:
        found[atom] = found.get(atom, Fraction(0)) + p
    left = sorted(((a, p) for a, p in found.items() if p), key=lambda t: format_expr(t[0]))
    return Mono(tuple(left), exponent if exponent and exponent.terms else None)


def constant(value: int | float | Fraction) -> Poly:
    return total([(ONE, Fraction(value))])


def atom(expr: Expr, power: Fraction | int = 1) -> Poly:
    return Poly(((Mono(((expr, Fraction(power)),)), Fraction(1)),))


def add(*polys: Poly) -> Poly:
    return total(t for p in polys for t in p.terms)


def scale(poly: Poly, by: Fraction | int) -> Poly:
    return total((m, c * by) for m, c in poly.terms)


def times_mono(a: Mono, b: Mono) -> Mono:
    both = [p for p in (a.exponent, b.exponent) if p]
    return mono((*a.powers, *b.powers), add(*both) if both else None)


def multiply(a: Poly, b: Poly) -> Poly:
    products = ((times_mono(m, n), c * d) for m, c in a.terms for n, d in b.terms)
    return total((_of_indicators(m), c) for m, c in products if not _excluded(m))


def indicator(condition: Expr, holds: bool = True) -> Expr:
    """1 where a condition holds (or where it does not), else 0."""
    return Apply("select", (condition, Number(int(holds)), Number(int(not holds))))


def _conditions(m: Mono) -> list[Expr]:
    """What the indicators in a product are of."""
    return [a.args[0] for a, _ in m.powers if isinstance(a, Apply) and a == _indicator_like(a)]


def _indicator_like(a: Apply) -> Expr | None:
    return next((x for x in (indicator(a.args[0]), indicator(a.args[0], False)) if x == a), None)


def _excluded(m: Mono) -> bool:
    """[c] * [not c] = 0."""
    found = _conditions(m)
    return len(set(found)) < len(found)


def _of_indicators(m: Mono) -> Mono:
    """[c] * [c] = [c]."""
    powers = ((a, Fraction(1) if isinstance(a, Apply) and a == _indicator_like(a) else p) for a, p in m.powers)
    return Mono(tuple(powers), m.exponent) if _conditions(m) else m


def inverse_mono(m: Mono) -> Mono:
    return Mono(tuple((a, -p) for a, p in m.powers), scale(m.exponent, -1) if m.exponent else None)


def parts(m: Mono) -> Iterator[Expr]:
    """The atoms of a product, those in its exponent included."""
    for a, _ in m.powers:
        yield a
    for inner, _ in m.exponent.terms if m.exponent else ():
        yield from parts(inner)


def all_parts(poly: Poly) -> tuple[Expr, ...]:
    return tuple(a for m, _ in poly.terms for a in parts(m))


def common_exponent(poly: Poly) -> tuple[Poly | None, Poly]:
    """a * exp(c) + b * exp(c) = (a + b) * exp(c): the exponent that all terms share, and what is left."""
    shared = poly.terms[0][0].exponent if poly.terms else None
    if shared is None or any(m.exponent != shared for m, _ in poly.terms):
        return None, poly
    return shared, total((Mono(m.powers), c) for m, c in poly.terms)


# Back to expressions


def number(c: Fraction) -> Expr:
    if c.denominator == 1:
        return Number(int(c))
    return Number(float(c))


def product(factors: Iterable[Expr]) -> Expr | None:
    result: Expr | None = None
    for f in factors:
        result = f if result is None else Apply("*", (result, f))
    return result


def to_expr(poly: Poly) -> Expr:
    """An expression with this normal form; added terms before subtracted ones."""
    result: Expr | None = None
    for m, c in sorted(poly.terms, key=lambda t: (t[1] < 0, t[0] == ONE)):
        sign = "+" if c > 0 else "-"
        result = term_expr(m, c) if result is None else Apply(sign, (result, term_expr(m, abs(c))))
    return Number(0) if result is None else result


def _exponential(exponent: Poly) -> Expr:
    """exp(a), or exp2(b) where a is b * log(2)."""
    if all((LOG2, Fraction(1)) in m.powers for m, _ in exponent.terms):
        rest = multiply(exponent, atom(LOG2, -1))
        return Apply("exp2", (to_expr(rest),))
    return Apply("exp", (to_expr(exponent),))


def term_expr(m: Mono, c: Fraction = Fraction(1)) -> Expr:
    above, below = [], []
    for a, p in m.powers:
        whole, half = divmod(abs(p), 1)
        side = above if p > 0 else below
        side += [a] * int(whole)
        if half == HALF and p < 0 and not isinstance(a, Extent):
            above.append(Apply("rsqrt", (a,)))
        elif half == HALF:
            side.append(Apply("sqrt", (a,)))
        elif half:
            side.append(Apply("pow", (a, number(half))))
    if m.exponent:
        above.append(_exponential(m.exponent))
    exact = c.denominator == 1 or Fraction(float(c)) == c
    top, bottom = (c, Fraction(1)) if exact else (Fraction(c.numerator), Fraction(c.denominator))
    if abs(top) != 1 or not above:
        above.insert(0, number(abs(top)))
    if bottom != 1:
        below.append(number(bottom))
    result = product(above)
    assert result is not None
    for b in below:
        result = Apply("/", (result, b))
    if top < 0:
        result = Number(-result.value) if isinstance(result, Number) else Apply("neg", (result,))
    return result
