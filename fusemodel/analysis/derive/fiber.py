"""What stands where with respect to one rank: what is there in the first traversal, what is known only at its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from fusemodel.cascade.graph import step_rank
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    accesses,
    match_indices,
    rank_values,
    reads,
    reduced_ranks,
    reduction_op,
    substitute,
    target_ranks,
)
from fusemodel.cascade.printer import format_expr


class StuckError(Exception):
    """An identity does not apply; the message says why, as a sentence."""


@dataclass(frozen=True)
class Fiber:
    """A cascade seen along one rank.

    A *summary* lacks the rank and descends from a reduction over it. A *late* tensor holds the rank and descends from a
    summary, so that making it traverses the fiber again. A *stabiliser* is a summary made of maxima and minima only.
    """

    cascade: Cascade
    rank: str

    @cached_property
    def _classes(self) -> tuple[frozenset[str], frozenset[str]]:
        summaries: set[str] = set()
        late: set[str] = set()
        grown = True
        while grown:
            size = len(summaries) + len(late)
            for e in self.cascade.einsums:
                waits = any(a.tensor in summaries or a.tensor in late for a in reads(e))
                if self.rank in self.cascade.tensors[e.name].ranks:
                    if waits:
                        late.add(e.name)
                elif waits or self.rank in reduced_ranks(e):
                    summaries.add(e.name)
            grown = len(summaries) + len(late) > size
        return frozenset(summaries), frozenset(late)

    @property
    def summaries(self) -> frozenset[str]:
        return self._classes[0]

    @property
    def late(self) -> frozenset[str]:
        return self._classes[1]

    def along(self, expr: Expr | None) -> bool:
        return self.rank in rank_values(expr)

    def waits(self, expr: Expr | None) -> bool:
        """Whether an expression needs the end of a traversal."""
        return any(a.tensor in self.summaries or a.tensor in self.late for a in accesses(expr))

    def mixed(self, expr: Expr) -> bool:
        return self.along(expr) and self.waits(expr)

    def reduces(self, e: Einsum) -> bool:
        return self.rank in reduced_ranks(e)

    def is_late(self, e: Einsum) -> bool:
        """Whether an Einsum traverses the fiber once more, after a traversal has ended."""
        traverses = self.reduces(e) or self.rank in target_ranks(e)
        return traverses and any(a.tensor in self.summaries or a.tensor in self.late for a in reads(e))

    def definition(self, tensor: str) -> Einsum | None:
        """The one plain equation of a tensor, if that is how it is defined."""
        found = self.cascade.definitions(tensor)
        if len(found) != 1:
            return None
        e = found[0]
        ranks = self.cascade.tensors[tensor].ranks
        plain = e.target.indices == tuple(RankValue(r) for r in ranks) and not any(
            step_rank(i) for i in e.target.indices
        )
        return e if plain else None

    def pointwise(self, tensor: str) -> Einsum | None:
        """Its equation, for a tensor made element by element."""
        e = self.definition(tensor)
        return e if e and not e.selection and not reduced_ranks(e) else None

    def inline(self, expr: Expr, names: Collection[str]) -> tuple[Expr, tuple[Expr, ...]]:
        """The expression with tensors made element by element replaced by their equations, and the conditions of
        these. Absent operands make absent results, so that a condition moves to whatever reads the tensor."""
        conditions: list[Expr] = []

        def go(e: Expr) -> Expr:
            if isinstance(e, Apply):
                if e.op == "coalesce":
                    return e
                return Apply(e.op, tuple(go(a) for a in e.args), e.at)
            if isinstance(e, Access) and e.tensor in names and (d := self.pointwise(e.tensor)):
                if len(e.indices) != len(d.target.indices):
                    return e
                change = by_rank(self.cascade, e)
                if d.where is not None:
                    conditions.append(go(substitute(d.where, change)))
                return go(substitute(d.body, change))
            return e

        result = go(expr)
        return result, tuple(dict.fromkeys(conditions))

    @cached_property
    def stabilisers(self) -> frozenset[str]:
        """Summaries that are maxima or minima over the rank of what is there in the first traversal, or made of these
        and of nothing else that waits, element by element or as maxima over other ranks."""
        found: set[str] = set()
        for _ in self.cascade.einsums:
            for e in self.cascade.einsums:
                if e.name not in self.summaries or self.definition(e.name) is None or e.selection:
                    continue
                waiting = {a.tensor for a in reads(e) if a.tensor in self.summaries}
                extreme = reduction_op(e) in ("max", "min")
                if self.reduces(e):
                    if extreme and not self.is_late(e):
                        found.add(e.name)
                elif (extreme or not reduced_ranks(e)) and waiting and waiting <= found and e.where is None:
                    found.add(e.name)
        return frozenset(found)

    @cached_property
    def composites(self) -> frozenset[str]:
        """Summaries made element by element of a stabiliser and of something that is none (``log(SD) + GM``)."""
        found: set[str] = set()
        for _ in self.cascade.einsums:
            for e in self.cascade.einsums:
                if e.name in self.stabilisers or e.name not in self.summaries or self.pointwise(e.name) is None:
                    continue
                waiting = {a.tensor for a in reads(e) if a.tensor in self.summaries}
                if waiting & (self.stabilisers | found):
                    found.add(e.name)
        return frozenset(found)

    @cached_property
    def partial(self) -> frozenset[str]:
        """Tensors of which elements may be absent."""
        found: set[str] = set()
        for _ in self.cascade.einsums:
            for e in self.cascade.einsums:
                if e.where is not None or any(self.may_be_absent(a, found) for a in reads(e)):
                    found.add(e.name)
        return frozenset(found)

    def may_be_absent(self, a: Access, partial: Collection[str]) -> bool:
        return a.tensor in partial or not all(_inside(i) for i in a.indices)

    def waiting_for(self, e: Einsum) -> str:
        """The summaries an Einsum needs, directly or through late tensors, in words."""
        found: dict[str, None] = {}
        seen: set[str] = set()

        def go(expr: Expr | None) -> None:
            for a in accesses(expr):
                if a.tensor in self.summaries:
                    found[a.tensor] = None
                elif a.tensor in self.late and a.tensor not in seen:
                    seen.add(a.tensor)
                    for d in self.cascade.definitions(a.tensor):
                        go(d.body)
                        go(d.where)

        go(e.body)
        go(e.where)
        return ", ".join(found)


def _inside(index: Expr) -> bool:
    """Whether an index stays inside a tensor that is large enough: a coordinate, or that of a group of them."""
    match index:
        case RankValue() | Number():
            return True
        case Apply("//" | "%", (RankValue(), Number() | Extent())):
            return True
    return False


def by_rank(cascade: Cascade, access: Access) -> dict[str, Expr]:
    """The index of each declared rank."""
    indices = match_indices(cascade, cascade.tensors[access.tensor], access.indices)
    if indices is None:
        raise StuckError(f"{access.tensor} is read by other ranks than its own")
    return dict(zip(cascade.tensors[access.tensor].ranks, indices, strict=True))


def replaced(cascade: Cascade, expr: Expr, change: Mapping[str, Expr]) -> Expr:
    """The expression with tensors replaced by what stands for them, written over their own ranks."""
    if isinstance(expr, Access) and expr.tensor in change:
        return substitute(change[expr.tensor], by_rank(cascade, expr))
    if isinstance(expr, Apply):
        return Apply(expr.op, tuple(replaced(cascade, a, change) for a in expr.args))
    return expr


def conjunction(conditions: Collection[Expr | None]) -> Expr | None:
    """All of the conditions, each once."""
    flat: dict[str, Expr] = {}
    for c in conditions:
        for part in c.args if isinstance(c, Apply) and c.op == "and" else () if c is None else (c,):
            flat.setdefault(format_expr(part), part)
    found = tuple(flat.values())
    return None if not found else found[0] if len(found) == 1 else Apply("and", found)
