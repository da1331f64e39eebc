"""Loops that only combine what their steps add, as the reductions that other identities look for."""

from __future__ import annotations

from dataclasses import replace

from fusemodel.analysis.derive.emit import assemble
from fusemodel.analysis.derive.fiber import START, StuckError
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.terms import TooLargeError, to_expr
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    Reduction,
    is_start,
    reads,
    reduced_ranks,
)
from fusemodel.errors import InputError

_COMBINES = {"+": ("sum", Number(0)), "*": ("prod", Number(1)), **{op: (op, start) for op, start in START.items()}}


def reductions(cascade: Cascade, rank: str) -> tuple[Cascade, list[str]]:
    """The cascade with op[i](x[i]) for a loop T[i+1] = op(T[i], x[i]) that starts from nothing, and with
    sum[i](x[i] * exp(c[i+1] - c[I])) for T[i+1] = T[i] * exp(c[i] - c[i+1]) + x[i].

    Side condition: only the end T[I] is read. StuckError where there is no such loop along the rank.
    """
    steps: list[str] = []
    names = [n for n, t in cascade.tensors.items() if t.iterative == {rank} and n not in cascade.outputs]
    found = True
    while found:
        found = False
        for name in names:
            made = _reduction(cascade, name, rank) if name in cascade.tensors else None
            if made is not None:
                cascade, found = _with(cascade, name, made), True
                names = [n for n in names if n != name]
                assert made.reduction is not None
                steps.append(f"{name}: only its end is read, so it is the {made.reduction.op} over {rank}.")
                break
    if not steps:
        raise StuckError(f"no loop along {rank} is a reduction")
    return cascade, steps


def _reduction(cascade: Cascade, name: str, rank: str) -> Einsum | None:
    tensor, definitions = cascade.tensors[name], cascade.definitions(name)
    starts = [e for e in definitions if is_start(e, tensor)]
    others = [e for e in definitions if not is_start(e, tensor)]
    if len(starts) != 1 or len(others) != 1:
        return None
    step, at = others[0], tensor.ranks.index(rank)
    previous = Access(name, _put(step.target.indices, at, RankValue(rank)))
    elsewhere = [a for e in cascade.einsums if e is not step for a in reads(e) if a.tensor == name]
    plain = not (step.reduction or step.selection or step.where or starts[0].where or reduced_ranks(step))
    ended = all(a.indices[at] == Extent(rank) for a in elsewhere)
    if not plain or not ended or not isinstance(step.body, Apply) or len(step.body.args) != 2:
        return None
    for old, added in (step.body.args, step.body.args[::-1]):
        if sum(a.tensor == name for a in reads(step)) != 1:
            return None
        op, nothing = _COMBINES.get(step.body.op, ("", None))
        if old != previous:
            added = _unscaled(old, previous, added, rank) if op == "sum" else None
        if added is not None and op and starts[0].body == nothing:
            target = Access(name, _drop(step.target.indices, at))
            return replace(step, target=target, body=added, reduction=Reduction(op, (rank,)))
    return None


def _unscaled(old: Expr, previous: Access, added: Expr, rank: str) -> Expr | None:
    """``x * exp(c[i+1] - c[I])`` for a state that is multiplied by ``exp(c[i] - c[i+1])`` in a step."""
    if not isinstance(old, Apply) or old.op != "*" or previous not in old.args:
        return None
    factor = old.args[1 - old.args.index(previous)]
    match factor:
        case Apply("exp", (Apply("-", (Access(centre, before), Access(same, after))),)) if centre == same:
            moved = [j for j, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
            if [before[j] for j in moved] != [RankValue(rank)]:
                return None
            if after[moved[0]] != Apply("+", (RankValue(rank), Number(1))):
                return None
            end = Access(centre, _put(after, moved[0], Extent(rank)))
            back = Apply("exp", (Apply("-", (Access(centre, after), end)),))
            try:
                return to_expr(Normal()(Apply("*", (added, back))))
            except TooLargeError:
                return None
    return None


def _with(cascade: Cascade, name: str, made: Einsum) -> Cascade:
    """The cascade with a reduction for a loop; the end of the loop is what it makes."""
    tensor = cascade.tensors[name]
    (rank,) = tensor.iterative
    at = tensor.ranks.index(rank)

    def go(x: Expr) -> Expr:
        match x:
            case Access(tensor, indices, where):
                inside = tuple(go(i) for i in indices)
                return Access(tensor, _drop(inside, at) if tensor == name else inside, where)
            case Apply(op, args, where):
                return Apply(op, tuple(go(a) for a in args), where)
        return x

    out: list[Einsum] = []
    for e in cascade.einsums:
        if e.name == name:
            out += [made] if not is_start(e, tensor) else []
            continue
        target = go(e.target)
        assert isinstance(target, Access)
        out.append(replace(e, target=target, body=go(e.body), where=None if e.where is None else go(e.where)))
    try:
        return assemble(cascade, out)
    except InputError as error:
        raise StuckError(f"a loop as a reduction is not legal: {error}") from error


def _put(indices: tuple[Expr, ...], at: int, index: Expr) -> tuple[Expr, ...]:
    return (*indices[:at], index, *indices[at + 1 :])


def _drop(indices: tuple[Expr, ...], at: int) -> tuple[Expr, ...]:
    return (*indices[:at], *indices[at + 1 :])


__all__ = ["reductions"]
