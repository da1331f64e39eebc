"""Elementwise tensors that are there already, found again by their normal forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fusemodel.analysis.derive.terms import ONE, Mono, mono
from fusemodel.cascade.ir import Access, Expr
from fusemodel.cascade.printer import format_expr


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor made element by element, known by its normal form and its conditions."""

    value: Mono
    access: Access
    conditions: frozenset[str]


def recognised(named: Sequence[Named], m: Mono, conditions: Sequence[Expr]) -> tuple[Mono, Sequence[Expr]]:
    """A product with tensors that are there already in the place of what they are made of."""
    texts = {format_expr(c) for c in conditions}
    for n in named:
        if not n.conditions <= texts or n.value == ONE:
            continue
        powers = dict(m.powers)
        fits = all(p > 0 and powers.get(a, Fraction(0)) >= p for a, p in n.value.powers)
        if fits and (n.value.exponent is None or n.value.exponent == m.exponent):
            left = [(a, p - dict(n.value.powers).get(a, Fraction(0))) for a, p in m.powers]
            exponent = None if n.value.exponent else m.exponent
            rest = mono([*left, (n.access, Fraction(1))], exponent)
            return rest, [c for c in conditions if format_expr(c) not in n.conditions]
    return m, conditions
