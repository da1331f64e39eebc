"""What stands where with respect to one rank: what is there in the first traversal, what is known only at its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from fusemodel.cascade.graph import components, step_rank
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
    iteration_ranks,
    match_indices,
    rank_values,
    reads,
    reduced_ranks,
    reduction_op,
    substitute,
    target_ranks,
)
from fusemodel.cascade.printer import format_expr

START = {"max": Number(float("-inf")), "min": Number(float("inf"))}  # an extreme of nothing


class StuckError(Exception):
    """An identity does not apply; the message says why, as a sentence."""


def reduced(cascade: Cascade, e: Einsum) -> tuple[str, ...]:
    """The ranks an Einsum reduces; batch ranks that its tensor carries are none of them."""
    carried = cascade.carried(e.name) if e.name in cascade.tensors else set(cascade.batch) - set(target_ranks(e))
    return tuple(r for r in reduced_ranks(e) if r not in carried)


def closure(step: Callable[[set[str]], Iterable[str]]) -> frozenset[str]:
    """The least set of names that holds all that ``step`` finds, given the set."""
    found: set[str] = set()
    while new := set(step(found)) - found:
        found |= new
    return frozenset(found)


@dataclass(frozen=True)
class Fiber:
    """A cascade seen along one rank.

    A *summary* lacks the rank and descends from a reduction over it. A *late* tensor holds the rank and descends from a
    summary, so that making it traverses the fiber again. A *stabiliser* is a summary made of maxima and minima only.
    What is ``settled``, the summaries of the first traversals, is looked at as if it were given, so that everything
    stands relative to the traversal after these.
    """

    cascade: Cascade
    rank: str
    settled: frozenset[str] = frozenset()

    @cached_property
    def _classes(self) -> tuple[frozenset[str], frozenset[str]]:
        """Summaries, and late tensors."""

        def step(found: set[str]) -> Iterator[str]:
            for e in self.cascade.einsums:
                if e.name in self.carried:
                    continue
                held = self.rank in self.cascade.tensors[e.name].ranks
                waits = self.tensors_read(e) & found
                if waits if held else e.name not in self.settled and (waits or self.reduces(e)):
                    yield e.name

        found = closure(step)
        late = frozenset(n for n in found if self.rank in self.cascade.tensors[n].ranks)
        return found - late, late

    @cached_property
    def carried(self) -> frozenset[str]:
        """What a loop over another rank carries from step to step, where its steps traverse the fiber: what a step
        begins with is given, as far as the step is concerned."""
        loops = self.cascade.ranks.keys() - self.cascade.parents.keys() - {self.rank}
        steps = {n for n, t in self.cascade.tensors.items() if t.iterative & loops}
        if not steps:
            return frozenset()
        needs: dict[str, set[str]] = {}
        for e in self.cascade.einsums:
            needs.setdefault(e.name, set()).update(self.tensors_read(e) - self.cascade.inputs.keys())
        along = {e.name for e in self.cascade.einsums if self.rank in iteration_ranks(e)}
        loop = (set(c) for c in components(list(needs), needs))
        return frozenset(n for c in loop if not along.isdisjoint(c) for n in c & steps)

    @cached_property
    def _reads(self) -> dict[int, frozenset[str]]:
        return {id(e): frozenset(a.tensor for a in reads(e)) for e in self.cascade.einsums}

    def tensors_read(self, e: Einsum) -> frozenset[str]:
        """The tensors that an Einsum of the cascade reads."""
        return self._reads[id(e)]

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

    def reduced(self, e: Einsum) -> tuple[str, ...]:
        """The ranks an Einsum reduces."""
        return reduced(self.cascade, e)

    def reduces(self, e: Einsum) -> bool:
        return self.rank in self.reduced(e)

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
        return e if e and not e.selection and not self.reduced(e) else None

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
        and of nothing else that waits, element by element, as maxima over other ranks or as maxima that run along
        them."""

        def step(found: set[str]) -> Iterator[str]:
            for name in self.summaries - found:
                definitions = self.cascade.definitions(name)
                if self.definition(name):
                    steady = self._steadies(definitions[0], found)
                else:
                    steady = any(self._runs(e, found) for e in definitions) and all(
                        self._runs(e, found) or e.body in START.values() for e in definitions
                    )
                if steady:
                    yield name

        return closure(step)

    def _steadies(self, e: Einsum, found: Collection[str]) -> bool:
        waiting = self.tensors_read(e) & self.summaries
        extreme = reduction_op(e) in START and not e.selection
        if self.reduces(e):
            return extreme and not self.is_late(e)
        return (extreme or not self.reduced(e)) and bool(waiting) and waiting <= set(found) and e.where is None

    def _runs(self, e: Einsum, found: Collection[str]) -> bool:
        """Whether an equation is the larger of its tensor a step before and of a stabiliser."""
        waiting = (self.tensors_read(e) & self.summaries) - {e.name}
        extreme = isinstance(e.body, Apply) and e.body.op in START and not self.reduced(e)
        return extreme and bool(waiting) and waiting <= set(found) and e.where is None

    @cached_property
    def composites(self) -> frozenset[str]:
        """Summaries made element by element of a stabiliser and of something that is none (``log(SD) + GM``)."""

        def step(found: set[str]) -> Iterator[str]:
            for e in self.cascade.einsums:
                waits = e.name in self.summaries - self.stabilisers and self.pointwise(e.name)
                if waits and self.tensors_read(e) & (self.stabilisers | found):
                    yield e.name

        return closure(step)

    @cached_property
    def partial(self) -> frozenset[str]:
        """Tensors of which elements may be absent."""
        outside = {
            e.name
            for e in self.cascade.einsums
            if e.where is not None or any(self.may_be_absent(a, ()) for a in reads(e))
        }

        def step(found: set[str]) -> Iterator[str]:
            yield from outside
            yield from (e.name for e in self.cascade.einsums if self.tensors_read(e) & found)

        return closure(step)

    def may_be_absent(self, a: Access, partial: Collection[str]) -> bool:
        tensor = self.cascade.tensors[a.tensor]
        steps = [r if r in tensor.iterative else None for r in tensor.ranks]
        if len(steps) != len(a.indices):  # parts of a split, in which tensors are
            steps = [None] * len(a.indices)
        return a.tensor in partial or not all(map(_inside, a.indices, steps))

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


def _inside(index: Expr, step: str | None) -> bool:
    """Whether an index stays inside a tensor that is large enough: a coordinate, or that of a group of them; or a step
    of a tensor that runs along a rank."""
    match index:
        case RankValue() | Number():
            return True
        case Apply("//" | "%", (RankValue(), Number() | Extent())):
            return True
        case Extent(rank) | Apply("+", (RankValue(rank), Number(value=1))):
            return rank == step
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


def conjuncts(conditions: Collection[Expr | None]) -> tuple[Expr, ...]:
    """The parts of conditions that must all hold, each once."""
    flat: dict[str, Expr] = {}

    def add(c: Expr | None) -> None:
        if isinstance(c, Apply) and c.op == "and":
            for part in c.args:
                add(part)
        elif c is not None:
            flat.setdefault(format_expr(c), c)

    for c in conditions:
        add(c)
    return tuple(flat.values())


def conjunction(conditions: Collection[Expr | None]) -> Expr | None:
    """All of the conditions, each once."""
    found = conjuncts(conditions)
    return None if not found else found[0] if len(found) == 1 else Apply("and", found)
