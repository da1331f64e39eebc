"""Running sums that are polynomials in a running value: what they are made of, and how they follow it, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from fusemodel.analysis.derive.emit import access
from fusemodel.analysis.derive.fiber import START, Fiber, StuckError, conjunction
from fusemodel.analysis.derive.identities import expanded_form, kept_form
from fusemodel.analysis.derive.moments import running_body, shifts, vanishes
from fusemodel.analysis.derive.normal import bare
from fusemodel.analysis.derive.terms import ONE, ONE_POLY, Poly, mono, scale, term_expr, to_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    Reduction,
    accesses,
    rank_values,
    reduced_ranks,
    reduction_op,
    target_ranks,
)
from fusemodel.cascade.printer import format_expr

if TYPE_CHECKING:
    from fusemodel.analysis.derive.running import Tiling


def running_source(work: Tiling, e: Einsum) -> None:
    """A sum or mean over the rank as a sum that runs over tiles (or as one of each chunk)."""
    op, kept = reduction_op(e), target_ranks(e)
    points = size_of(work, e) if op == "mean" else None
    tile = access(work.names.fresh(f"L{e.name}"), (work.outer, *kept))
    reduction = Reduction("sum", work.in_tile(e).ranks)
    work.out.append(
        replace(e, target=tile, body=work.cut(bare(e.body)), reduction=reduction, where=work.guarded(e.body, e.where))
    )
    if work.chunks:
        work.out.append(Einsum(e.target, tile, Reduction(op, (work.outer,))))
        so_far, before = tile, tile
        if points is not None:
            raise StuckError(f"{e.name} is a mean; its chunks are not of one size")
    else:
        start, before, so_far, end = work.stages(work.names.fresh(f"{'R' if points is None else 'S'}{e.name}"), kept)
        work.out += [Einsum(start, Number(0)), Einsum(so_far, Apply("+", (before, tile)))]
        if points is None:
            work.final[e.name] = end
            work.rest(e, end)
        else:
            work.out.append(Einsum(e.target, Apply("/", (end, points))))
    work.so_far[e.name] = so_far if points is None else Apply("/", (so_far, _counted(work, points)))
    remember(work, e, before)
    if not work.chunks:
        work.steps.append(f"{e.name}: {op} is associative, so it runs over tiles ({work.outer}, {work.inner}).")


def remember(work: Tiling, e: Einsum, before: Expr) -> None:
    """A running sum, to be used again where a sum follows a running value."""
    fiber = work.fiber
    body, _ = fiber.inline(e.body, fiber.late | work.steadied)
    terms = expanded_form(fiber, work.by_own(body)).terms
    if reduction_op(e) == "sum" and len(terms) == 1:
        work.series[_key(e, Poly(((terms[0][0], Fraction(1)),)))] = before, 1 / terms[0][1]


def size_of(work: Tiling, e: Einsum) -> Expr:
    """The points of a reduction. Side condition: none is absent."""
    fiber = work.fiber
    if e.where is not None or any(fiber.may_be_absent(a, fiber.partial) for a in accesses(e.body)):
        raise StuckError(f"{e.name} is a mean of the present points, whose count is not known")
    return term_expr(mono((Extent(r), Fraction(1)) for r in fiber.reduced(e)))


def coordinates(work: Tiling, tiles: Expr) -> Expr:
    """The coordinates of the rank in the first few tiles."""
    return Apply("min", (Apply("*", (tiles, Extent(work.inner))), Extent(work.rank)))


def count_so_far(work: Tiling) -> Expr:
    """The coordinates up to the end of a tile, or those of a chunk."""
    if work.chunks:
        beyond = Apply("-", (Extent(work.rank), Apply("*", (RankValue(work.outer), Extent(work.inner)))))
        return Apply("min", (Extent(work.inner), beyond))
    return coordinates(work, Apply("+", (RankValue(work.outer), Number(1))))


def _counted(work: Tiling, expr: Expr) -> Expr:
    match expr:
        case Extent(rank) if rank == work.rank:
            return count_so_far(work)
        case Apply(op, args):
            return Apply(op, tuple(_counted(work, a) for a in args))
    return expr


def centre(work: Tiling, e: Einsum) -> None:
    """A value made of running sums, as it is after a tile (or of a chunk)."""
    kept = target_ranks(e)
    body = running_body(work.fiber, e.name, work.so_far, count_so_far(work))
    name = work.names.fresh(f"R{e.name}")
    shift = access(work.names.fresh(f"D{e.name}"), (work.outer, *kept))
    if work.chunks:
        local = access(name, (work.outer, *kept))
        work.moving[e.name] = local
        work.out += [Einsum(local, body), Einsum(shift, Apply("-", (e.target, local)))]
    else:
        start, now, then, _ = work.stages(name, kept)
        work.moving[e.name], work.before[e.name] = then, now
        work.out += [Einsum(start, Number(0)), Einsum(then, body), Einsum(shift, Apply("-", (then, now)))]
        work.steps.append(f"{e.name}: {name} is its value over the tiles so far, and {shift.tensor} how far it moves.")
    work.shift[e.name] = shift


def shift_of(work: Tiling, a: Access) -> Access:
    """How far a running value moves with a tile; nothing before there is a first maximum."""
    if a.tensor not in work.shift:
        if work.chunks:
            raise StuckError(f"chunks have no shift of {a.tensor}")
        e = work.fiber.cascade.definitions(a.tensor)[0]
        now, then = work.before[a.tensor], work.moving[a.tensor]
        nothing = Apply("==", (now, START[reduction_op(e)]))
        made = access(work.names.fresh(f"D{a.tensor}"), (work.outer, *target_ranks(e)))
        work.out.append(Einsum(made, Apply("select", (nothing, Number(0), Apply("-", (then, now))))))
        work.shift[a.tensor] = made
    return work.shift[a.tensor]


def shifted(work: Tiling, e: Einsum, before: Expr, centres: Sequence[Access]) -> Expr:
    """A running sum before a tile, relative to the values after it."""
    body, _ = work.fiber.inline(e.body, work.fiber.late | work.steadied)
    poly = kept_form(work.fiber, work.by_own(body))
    used = [work.shift[a.tensor] if a.tensor in work.shift else shift_of(work, a) for a in centres]
    work.steps.append(
        f"{e.name}: t(x, d + s) = t(x, d) + s * t'(x, d) + ..., so it is kept relative to the running "
        f"{', '.join(a.tensor for a in centres)} and shifted by {', '.join(s.tensor for s in used)}."
    )
    return _follow(work, e, poly, before, centres)


def _follow(work: Tiling, e: Einsum, poly: Poly, before: Expr, centres: Sequence[Access]) -> Expr:
    result = before
    for powers, coefficient, derived in shifts(poly, centres):
        if vanishes(work.fiber, e, derived):
            continue
        term, c = _sum_of(work, e, derived, centres)
        for a, n in zip(centres, powers, strict=True):
            for _ in range(n):
                term = Apply("*", (term, shift_of(work, a)))
        result = Apply("+" if coefficient * c > 0 else "-", (result, _times(term, abs(coefficient * c))))
    return result


def _sum_of(work: Tiling, e: Einsum, poly: Poly, centres: Sequence[Access]) -> tuple[Expr, Fraction]:
    """The running sum of a derivative before a tile (that of a chunk), made once, and its coefficient."""
    c = poly.terms[0][1]
    unit = scale(poly, 1 / c)
    key = _key(e, unit)
    if key not in work.series and unit == ONE_POLY and _all_present(work.fiber, e):
        return _points(work, e), c
    if key not in work.series:
        made = _new_sum(work, e, unit, centres)
        work.series[key] = made, Fraction(1)
    value, more = work.series[key]
    return value, c * more


def _new_sum(work: Tiling, e: Einsum, poly: Poly, centres: Sequence[Access]) -> Expr:
    body = work.with_values(to_expr(poly), work.moving)
    held = {*rank_values(body), *rank_values(e.where)}
    kept = tuple(r for r in target_ranks(e) if r in held)
    label = work.names.fresh(f"{e.name}D")
    tile = access(work.names.fresh(f"L{label}"), (work.outer, *kept))
    reduction = Reduction("sum", work.in_tile(e).ranks)
    work.out.append(Einsum(tile, work.cut(bare(body)), reduction, where=work.guarded(body, e.where)))
    if work.chunks:
        return tile
    start, now, then, _ = work.stages(label, kept)
    exponent = work.common_exponent(e)
    moved = _follow(work, e, poly, now, centres)
    if exponent.terms:
        moved = Apply("*", (moved, work.scaling(exponent, target_ranks(e))))
    work.out += [Einsum(start, Number(0)), Einsum(then, Apply("+", (moved, tile)))]
    return now


def _all_present(fiber: Fiber, e: Einsum) -> bool:
    return e.where is None and not any(fiber.may_be_absent(a, fiber.partial) for a in accesses(e.body))


def _points(work: Tiling, e: Einsum) -> Expr:
    """The points summed before a tile, or in a chunk."""
    value = count_so_far(work) if work.chunks else coordinates(work, RankValue(work.outer))
    for r in work.fiber.reduced(e):
        value = value if r == work.rank else Apply("*", (value, Extent(r)))
    return value


def _key(e: Einsum, poly: Poly) -> str:
    condition = conjunction([e.where])
    ranks = ",".join(sorted(reduced_ranks(e)))
    return f"{ranks}|{format_expr(condition) if condition is not None else ''}|{format_expr(to_expr(poly))}"


def _times(value: Expr, c: Fraction) -> Expr:
    if c == 1:
        return value
    factor = term_expr(ONE, c)
    return Apply("*", (factor, value))
