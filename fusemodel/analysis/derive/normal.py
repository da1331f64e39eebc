"""Expressions to normal forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from fusemodel.analysis.derive.terms import (
    HALF,
    LOG2,
    ONE,
    ONE_POLY,
    Mono,
    Poly,
    add,
    atom,
    common_exponent,
    constant,
    indicator,
    mono,
    multiply,
    scale,
    to_expr,
    total,
)
from fusemodel.cascade.ir import Access, Apply, Expr, Extent, Number, RankValue


def bare(expr: Expr) -> Expr:
    """The expression without the places it was read from."""
    match expr:
        case Access(tensor, indices):
            return Access(tensor, tuple(bare(i) for i in indices))
        case Apply(op, args):
            return Apply(op, tuple(bare(a) for a in args))
    return expr


@dataclass(frozen=True)
class Normal:
    """Makes normal forms. Where ``keep`` holds of a sum, it stays one factor in a product (is not multiplied out);
    where ``distribute`` holds of a choice ``select(c, a, b)``, it becomes ``[c] * a + [not c] * b``."""

    keep: Callable[[Expr], bool] = lambda _: False
    distribute: Callable[[Expr], bool] = lambda _: False

    def __call__(self, expr: Expr) -> Poly:
        match expr:
            case Number(value):
                return constant(value) if math.isfinite(value) else atom(expr)
            case Apply():
                return self.apply(expr)
        return atom(bare(expr))

    def apply(self, expr: Apply) -> Poly:
        args = expr.args
        match expr.op:
            case "+":
                return add(self(args[0]), self(args[1]))
            case "-":
                return add(self(args[0]), scale(self(args[1]), -1))
            case "neg":
                return scale(self(args[0]), -1)
            case "*":
                return self.product(self(args[0]), self(args[1]))
            case "/":
                return self.product(self(args[0]), self.power(self(args[1]), -1))
            case "recip":
                return self.power(self(args[0]), -1)
            case "sqrt" | "rsqrt":
                return self.root(self(args[0]), 1 if expr.op == "sqrt" else -1)
            case "pow" if isinstance(args[1], Number) and args[1].value in (1, 2, 3, 4, -1, -2):
                return self.power(self(args[0]), int(args[1].value))
            case "exp2":  # 2^a = exp(a * log(2))
                return self.exponential(multiply(self(args[0]), atom(LOG2)))
            case "exp":
                return self.exponential(self(args[0]))
            case "log":
                return self.logarithm(self(args[0]))
            case "abs":
                return self.magnitude(self(args[0]))
            case "select" if self.distribute(expr):
                return self.choice(bare(args[0]), self(args[1]), self(args[2]))
        return atom(Apply(expr.op, tuple(self.tidy(a) for a in args)))

    def choice(self, condition: Expr, a: Poly, b: Poly) -> Poly:
        """What both sides add, and the rest of each under its own indicator: a difference of the two would lose digits
        where one is large."""
        both = Poly(tuple(t for t in a.terms if t in b.terms))
        left, right = (Poly(tuple(t for t in side.terms if t not in both.terms)) for side in (a, b))
        return add(both, multiply(atom(indicator(condition)), left), multiply(atom(indicator(condition, False)), right))

    def tidy(self, expr: Expr) -> Expr:
        """An operand of an operator that is not looked into."""
        match expr:
            case Apply("<" | "<=" | ">" | ">=" | "==" | "!=" | "and" | "or" | "not" | "//" | "%"):
                return bare(expr)
            case Number() | Extent() | RankValue() | Access():
                return bare(expr)
        return to_expr(self(expr))

    def factor(self, poly: Poly) -> Poly:
        """A sum as one factor where it is not to be multiplied out."""
        if len(poly.terms) > 1 and self.keep(expr := to_expr(poly)):
            return atom(expr)
        return poly

    def product(self, a: Poly, b: Poly) -> Poly:
        trivial = any(len(p.terms) == 1 and p.terms[0][0] == ONE for p in (a, b))
        return multiply(a, b) if trivial else multiply(self.factor(a), self.factor(b))

    def power(self, poly: Poly, n: int) -> Poly:
        if len(poly.terms) == 1:
            m, c = poly.terms[0]
            raised = Mono(tuple((a, p * n) for a, p in m.powers), scale(m.exponent, n) if m.exponent else None)
            return total([(raised, c**n)])
        if not poly.terms:
            return atom(Number(0), n)
        if n < 0 or self.keep(to_expr(poly)):
            shared, rest = common_exponent(poly)
            return multiply(
                total([(Mono((), scale(shared, n)), Fraction(1))]) if shared else ONE_POLY, atom(to_expr(rest), n)
            )
        result = poly
        for _ in range(n - 1):
            result = multiply(result, poly)
        return result

    def root(self, poly: Poly, sign: int) -> Poly:
        """sqrt(a * b) = sqrt(a) * sqrt(b), for factors that cannot be negative; rsqrt with ``sign`` -1."""
        half = HALF * sign
        if len(poly.terms) != 1:
            return atom(to_expr(poly), half)
        m, c = poly.terms[0]
        out = [(a, p) for a, p in m.powers if _positive(a)]
        left = Mono(tuple((a, p) for a, p in m.powers if not _positive(a)))
        if left == ONE and c > 0 and (root := math.isqrt(c.numerator)) ** 2 == c.numerator and c.denominator == 1:
            coefficient, rest = Fraction(root) ** sign, []
        else:
            coefficient, rest = Fraction(1), [(to_expr(total([(left, c)])), half)]
        exponent = scale(m.exponent, half) if m.exponent else None
        return total([(mono([*((a, p * half) for a, p in out), *rest], exponent), coefficient)])

    def exponential(self, poly: Poly) -> Poly:
        """exp(a + n * log(b)) = exp(a) * b^n."""
        powers: list[tuple[Expr, Fraction]] = []
        left: list[tuple[Mono, Fraction]] = []
        for m, c in poly.terms:
            match m:
                case Mono(powers=((Apply("log", (inner,)), Fraction(numerator=1, denominator=1)),), exponent=None) if (
                    c.denominator == 1
                ):
                    powers.append((inner, c))
                case _:
                    left.append((m, c))
        return total([(mono(powers, total(left)), Fraction(1))])

    def logarithm(self, poly: Poly) -> Poly:
        """log(a * exp(b)) = log(a) + b."""
        if len(poly.terms) == 1 and (exponent := poly.terms[0][0].exponent):
            m, c = poly.terms[0]
            rest = Mono(m.powers)
            if rest == ONE and c == 1:
                return exponent
            return add(exponent, atom(Apply("log", (to_expr(Poly(((rest, c),))),))))
        return atom(Apply("log", (to_expr(poly),)))

    def magnitude(self, poly: Poly) -> Poly:
        """abs(a * b) = abs(a) * abs(b)."""
        if len(poly.terms) != 1:
            return atom(Apply("abs", (to_expr(poly),)))
        m, c = poly.terms[0]
        powers = [(a if _positive(a) or p % 2 == 0 else Apply("abs", (a,)), p) for a, p in m.powers]
        return total([(mono(powers, m.exponent), abs(c))])


def _positive(expr: Expr) -> bool:
    match expr:
        case Extent():
            return True
        case Number(value):
            return value >= 0
        case Apply("exp" | "exp2" | "abs" | "sigmoid" | "softplus" | "sqrt" | "rsqrt" | "relu"):
            return True
    return False
