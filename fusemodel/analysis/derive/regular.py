"""Forms that the other identities look for: nested reductions made one, parts of a rank read together as the rank, and
sums inside products taken apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from fusemodel.analysis.derive.emit import Names, access, assemble, name_of_product
from fusemodel.analysis.derive.fiber import Fiber, StuckError, conjuncts, reduced
from fusemodel.analysis.derive.identities import ranks_of_mono
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.terms import ONE, Mono, TooLargeError, mono, term_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    RankValue,
    Reduction,
    rank_values,
    reads,
    reduction_op,
    target_ranks,
)
from fusemodel.cascade.printer import format_expr

_ASSOCIATIVE = frozenset(("sum", "max", "min", "prod", "any", "all"))

# Parts of a rank


def joined(cascade: Cascade, rank: str) -> tuple[Cascade, list[str]]:
    """The cascade over a split rank itself instead of its two parts, with op[r1](op[r0](x)) = op[r1, r0](x).

    Side condition: the parts are used together everywhere. StuckError where they are not.
    """
    parts = cascade.split[rank]
    steps: list[str] = []
    einsums = _nested(cascade, parts, steps)
    if any({*parts} & set(cascade.tensors[name].ranks) for name in (*cascade.outputs, *cascade.inputs)):
        raise StuckError(f"an input or output is held by the parts of {rank}")
    made = [_whole(e, rank, parts) for e in einsums]
    if not any(a != b for a, b in zip(made, einsums, strict=True)):
        raise StuckError(f"nothing is held by the parts of {rank}")
    if any(set(parts) & _mentioned(e) for e in made):
        raise StuckError(f"the parts of {rank} are used one without the other")
    steps.append(f"{rank}: whatever holds {parts[0]} and {parts[1]} holds {rank}.")
    return assemble(cascade, made), steps


def _nested(cascade: Cascade, parts: tuple[str, str], steps: list[str]) -> list[Einsum]:
    """The equations without reductions over the inner part that only the same reduction over the outer part reads."""
    outer, inner = parts
    fiber = Fiber(cascade, outer)
    found: dict[str, Einsum] = {}
    for e in cascade.einsums:
        once = fiber.definition(e.name) is not None and e.name not in cascade.outputs
        if once and not e.selection and reduced(cascade, e) == (inner,) and outer in target_ranks(e):
            found[e.name] = e
    readers = {n: [e for e in cascade.einsums if any(a.tensor == n for a in reads(e))] for n in found}
    out: list[Einsum] = []
    for e in cascade.einsums:
        inside = found.get(e.body.tensor) if isinstance(e.body, Access) else None
        if inside and _follows(cascade, e, inside, outer, readers[inside.name]):
            op = reduction_op(e)
            out = [x for x in out if x.name != inside.name]
            out.append(replace(inside, target=e.target, reduction=Reduction(op, parts)))
            steps.append(f"{e.name}: {op} is associative, so {inside.name} over {inner} and it over {outer} are one.")
        else:
            out.append(e)
    return out


def _follows(cascade: Cascade, e: Einsum, inside: Einsum, outer: str, readers: list[Einsum]) -> bool:
    plain = e.body == inside.target and not e.selection and e.where is None and len(readers) == 1
    op = reduction_op(e)
    return plain and reduced(cascade, e) == (outer,) and op == reduction_op(inside) and op in _ASSOCIATIVE


def _mentioned(e: Einsum) -> set[str]:
    found = {*rank_values(e.body), *rank_values(e.where), *target_ranks(e)}
    return found | (set(e.reduction.ranks) if e.reduction else set())


def _whole(e: Einsum, rank: str, parts: tuple[str, str]) -> Einsum:
    outer, inner = parts

    def go(x: Expr) -> Expr:
        match x:
            case Access(tensor, indices, at):
                made: list[Expr] = []
                for i in map(go, indices):
                    if made and made[-1] == RankValue(outer) and i == RankValue(inner):
                        made[-1] = RankValue(rank)
                    else:
                        made.append(i)
                return Access(tensor, tuple(made), at)
            case Apply("+", (Apply("*", (RankValue(a), Extent(b))), RankValue(c))) if (a, b, c) == (
                outer, inner, inner
            ):  # fmt: skip
                return RankValue(rank)
            case Apply(op, args, at):
                return Apply(op, tuple(go(a) for a in args), at)
        return x

    target = go(e.target)
    assert isinstance(target, Access)
    reduction = e.reduction
    if reduction and set(parts) <= set(reduction.ranks):
        left = (r for r in reduction.ranks if r not in parts)
        reduction = Reduction(reduction.op, (rank, *left))
    where = None if e.where is None else go(e.where)
    return replace(e, target=target, body=go(e.body), reduction=reduction, where=where)


# Sums inside products


def apart(cascade: Cascade, rank: str) -> tuple[Cascade, list[str]]:
    """sum[g](a * b[g]) = a * sum[g](b[g]), for sums over another rank of products whose elements hold the rank.

    So what waits for the end of a traversal stands beside the sum, and can leave a reduction over the rank.
    """
    fiber, names = Fiber(cascade, rank), Names.of(cascade)
    out: list[Einsum] = []
    steps: list[str] = []
    for e in cascade.einsums:
        found = _product(fiber, e) if e.name in fiber.late else None
        if found is None:
            out.append(e)
            continue
        outside, inside = found
        ranks = [r for r in target_ranks(e) if r in ranks_of_mono(inside)]
        conditions = conjuncts([e.where])
        within = [c for c in conditions if set(rank_values(c)) & set(reduced(cascade, e))]
        if any(not set(rank_values(c)) <= {*ranks, *reduced(cascade, e)} for c in within):
            out.append(e)
            continue
        made = access(names.fresh(name_of_product(inside)), ranks)
        out.append(Einsum(made, term_expr(inside), Reduction("sum", reduced(cascade, e)), where=_all(within)))
        whole = mono([*outside.powers, (made, Fraction(1))], outside.exponent)
        left = _all(c for c in conditions if c not in within)
        out.append(replace(e, body=term_expr(whole), reduction=None, where=left))
        steps.append(
            f"{e.name}: {format_expr(term_expr(outside))} lacks {', '.join(reduced(cascade, e))}, so it multiplies "
            f"the sum {made.tensor}."
        )
    if not steps:
        raise StuckError("")
    return assemble(cascade, out), steps


def _all(conditions: Iterable[Expr]) -> Expr | None:
    found = tuple(conditions)
    return None if not found else found[0] if len(found) == 1 else Apply("and", found)


def _product(fiber: Fiber, e: Einsum) -> tuple[Mono, Mono] | None:
    """What lacks the reduced ranks of a sum of one product, and the rest; None where there is no such product."""
    summed = set(fiber.reduced(e))
    if fiber.definition(e.name) is None or e.selection or not summed or reduction_op(e) != "sum":
        return None
    try:
        poly = Normal(keep=lambda _: True)(e.body)
    except TooLargeError:
        return None
    if len(poly.terms) != 1 or poly.terms[0][1] != 1:
        return None
    m = poly.terms[0][0]
    if m.exponent and ranks_of_mono(Mono((), m.exponent)) & summed:
        return None
    outside = mono([(a, p) for a, p in m.powers if not summed & set(rank_values(a))], m.exponent)
    inside = mono([(a, p) for a, p in m.powers if summed & set(rank_values(a))])
    waits = any(fiber.waits(a) for a, _ in outside.powers) or outside.exponent is not None
    return (outside, inside) if outside != ONE and inside != ONE and waits else None


__all__ = ["apart", "joined"]
