"""What can be proved about the sign of an expression."""

from __future__ import annotations

from fusemodel.analysis.derive.fiber import reduced
from fusemodel.analysis.derive.terms import Mono
from fusemodel.cascade.ir import Access, Apply, Cascade, Expr, Extent, Number, RankValue, reduction_op

_NEVER_NEGATIVE = frozenset(("exp", "exp2", "abs", "sigmoid", "softplus", "sqrt", "rsqrt", "relu"))


def nonnegative(cascade: Cascade, expr: Expr, seen: frozenset[str] = frozenset()) -> bool:
    """Whether no element of an expression can be below zero (0 counts as not below)."""
    match expr:
        case Number(value):
            return value >= 0
        case Extent() | RankValue():
            return True
        case Apply("*", (a, b)) if a == b:
            return True
        case Apply("pow", (_, Number(value))) if value % 2 == 0:
            return True
        case Apply("+" | "*" | "/" | "//" | "%", (a, b)):
            return nonnegative(cascade, a, seen) and nonnegative(cascade, b, seen)
        case Apply("max", args):
            return any(nonnegative(cascade, a, seen) for a in args)
        case Apply("min", args):
            return all(nonnegative(cascade, a, seen) for a in args)
        case Apply("select", (_, a, b)):
            return nonnegative(cascade, a, seen) and nonnegative(cascade, b, seen)
        case Apply("log", (Number(value),)):
            return value >= 1
        case Apply("recip", (a,)):
            return nonnegative(cascade, a, seen)
        case Apply(op):
            return op in _NEVER_NEGATIVE
        case Access(tensor):
            definitions = cascade.definitions(tensor)
            if tensor in seen or len(definitions) != 1 or definitions[0].selection:
                return False
            e = definitions[0]
            if reduced(cascade, e) and reduction_op(e) not in ("sum", "mean", "max", "min", "prod"):
                return False
            return nonnegative(cascade, e.body, seen | {tensor})
    return False


def nonnegative_product(cascade: Cascade, mono: Mono) -> bool:
    return all(p % 2 == 0 or p.denominator == 2 or nonnegative(cascade, a) for a, p in mono.powers)
