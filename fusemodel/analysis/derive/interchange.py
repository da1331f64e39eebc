"""Bodies written down to what is there in the first traversal, sums inside them included."""

from __future__ import annotations

from fractions import Fraction

from fusemodel.analysis.derive.fiber import Fiber, by_rank, conjunction, conjuncts
from fusemodel.analysis.derive.identities import expanded_form
from fusemodel.analysis.derive.normal import bare
from fusemodel.analysis.derive.terms import Mono, Poly, inverse_mono, mono, multiply, times_mono, to_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    Extent,
    Reduction,
    accesses,
    rank_values,
    reads,
    reduction_op,
    substitute,
    target_ranks,
)


def inlined(fiber: Fiber, e: Einsum) -> tuple[Expr, tuple[Expr, ...]]:
    """The body down to what is there in the first traversal, and the conditions that go with it, one by one."""
    names = fiber.late | fiber.composites
    body, found = fiber.inline(e.body, names)
    where, more = fiber.inline(e.where, names) if e.where is not None else (None, ())
    joined = conjunction([where, *found, *more])
    if joined is None:
        return body, ()
    return body, joined.args if isinstance(joined, Apply) and joined.op == "and" else (joined,)


def interchanged(fiber: Fiber, e: Einsum, steps: list[str]) -> tuple[Einsum, Expr, tuple[Expr, ...]]:
    """sum[m](a[m] * sum[g](b[g, m])) = sum[m, g](a[m] * b[g, m]), for late sums (and means) over other ranks: the
    Einsum with these ranks, its body as :func:`inlined`, and the conditions.

    Side condition: the inner sum is a factor of every product, and no point of a mean is absent.
    """
    body, conditions = inlined(fiber, e)
    while reduction_op(e) == "sum" and not e.selection:
        inner = next((a for a in accesses(body) if _is_sum(fiber, a.tensor)), None)
        made = None if inner is None else fiber.definition(inner.tensor)
        left = None if inner is None or made is None else _factored(fiber, e, body, inner, made)
        if inner is None or made is None or left is None:
            break
        ranks, names = fiber.reduced(made), fiber.late | fiber.composites
        change = by_rank(fiber.cascade, inner)
        within, found = fiber.inline(substitute(made.body, change), names)
        below = () if made.where is None else (fiber.inline(substitute(made.where, change), names)[0],)
        body = Apply("*", (to_expr(left), within))
        conditions = conjuncts([*conditions, *found, *below])
        e = Einsum(e.target, e.body, Reduction("sum", (*fiber.reduced(e), *ranks)), None, e.where, e.at)
        steps.append(f"{e.name}: sums are interchanged, so {inner.tensor} is summed over {', '.join(ranks)} last.")
    return e, body, conditions


def _is_sum(fiber: Fiber, tensor: str) -> bool:
    """Whether a late tensor is a sum or mean over other ranks."""
    e = fiber.definition(tensor) if tensor in fiber.late else None
    plain = e is not None and not e.selection and bool(fiber.reduced(e))
    return e is not None and plain and reduction_op(e) in ("sum", "mean")


def _factored(fiber: Fiber, e: Einsum, body: Expr, inner: Access, made: Einsum) -> Poly | None:
    """What stands beside an inner sum (divided by its points, for a mean); None where the side condition fails."""
    ranks, size = fiber.reduced(made), Mono()
    if reduction_op(made) == "mean":
        if made.where is not None or any(fiber.may_be_absent(a, fiber.partial) for a in reads(made)):
            return None
        size = mono((Extent(r), Fraction(-1)) for r in ranks)
    factor, poly = mono([(bare(inner), Fraction(1))]), expanded_form(fiber, body)
    if not all(dict(m.powers).get(bare(inner)) == 1 for m, _ in poly.terms):
        return None
    if set(ranks) & {*rank_values(body), *target_ranks(e), *fiber.reduced(e)}:
        return None
    left = Poly(tuple((times_mono(m, inverse_mono(factor)), c) for m, c in poly.terms))
    return multiply(left, Poly(((size, Fraction(1)),)))
