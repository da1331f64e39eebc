"""The longest chain of operations that need each other.

An Einsum's elements come a tree over its reduced ranks after what they read, operation by operation of its equation.
Of a tensor that is made in a loop, an Einsum in the loop reads what is there at its step; one outside waits for all of
it. Conditions leave nothing out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusemodel.analysis.chains import NOTHING, Row, after, joined, longest, operations, through_loop
from fusemodel.cascade.graph import offset_from, step_rank
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Number,
    accesses,
    is_start,
    reads,
    reduced_ranks,
    reduction_op,
)
from fusemodel.cascade.operators import OPERATORS
from fusemodel.cascade.plan import Compute, Loop, Plan, equations, plan
from fusemodel.cascade.work import is_constant, work_of

_GIVEN = "given"  # where chains begin: inputs, constants and coordinates


def critical_path(cascade: Cascade, extents: Mapping[str, int]) -> tuple[Any, int]:
    """Operations on the longest chain: in SymPy symbols, for all extents from 2 on, and at some extents."""
    import sympy

    paths = _Paths(cascade)
    depth: dict[str, Row] = {name: {_GIVEN: (NOTHING,)} for name in cascade.inputs}
    paths.run(_overlapped(cascade, plan(cascade), {}, ()), depth, ())
    chains = longest(c for name in cascade.outputs for found in depth[name].values() for c in found)
    forms = list(dict.fromkeys(c.symbolic() for c in longest(chains, 2)))
    symbolic = sympy.Max(*forms, evaluate=False) if len(forms) > 1 else forms[0]
    lengths = (c.at(extents) for c in chains)
    return symbolic, max(n for n in lengths if n is not None)


@dataclass(frozen=True)
class _Overlap:
    """Loops along one rank that go step by step together. Those ``again`` are known, but not what they have when."""

    rank: str
    again: tuple[Plan, ...]
    body: tuple[Plan, ...]


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of a loop. ``made`` are the tensors made in it, of which ``known`` has all steps of some and ``start``
    what is there before the first step; ``before`` are those of which an element some steps back is read."""

    rank: str
    made: frozenset[str]
    known: Mapping[str, Row]
    start: Mapping[str, Row]
    before: set[_State] = field(default_factory=set)


@dataclass(frozen=True)
class _State:
    """A tensor as some steps of a loop before."""

    loop: _Step
    tensor: str
    back: int


@dataclass(frozen=True)
class _Paths:
    """Goes through a plan; ``depth`` has the longest chains to each tensor, from states of the loops around it, and
    ``start`` those to the start of an iterative tensor."""

    cascade: Cascade
    start: dict[str, Row] = field(default_factory=dict)

    def run(self, items: Iterable[Compute | _Overlap], depth: dict[str, Row], loops: tuple[_Step, ...]) -> None:
        for item in items:
            if isinstance(item, Compute):
                einsum = self.cascade.explicit[item.equation]
                row = self.row(einsum, depth, loops)
                if is_start(einsum, self.cascade.tensors[einsum.name]):
                    self.start[einsum.name] = row
                depth[einsum.name] = row
            else:
                self.loop(item, depth, loops)

    def loop(self, item: _Overlap, depth: dict[str, Row], loops: tuple[_Step, ...]) -> None:
        made = frozenset(_names(self.cascade, (*item.again, *item.body)))
        known = {name: depth[name] for name in _names(self.cascade, item.again)}
        step = _Step(item.rank, made, known, {name: row for name, row in self.start.items() if name in made})
        here = {name: row for name, row in depth.items() if name not in made}
        within = (*loops, step)
        body = _overlapped(self.cascade, (*item.again, *item.body), {}, [x.rank for x in within])
        self.run(body, here, within)
        rows: dict[Hashable, Row] = {}
        for state in step.before:
            for back in range(1, state.back + 1):
                one = _State(step, state.tensor, back)
                rows[one] = {_State(step, state.tensor, back - 1): (NOTHING,)} if back > 1 else here[state.tensor]
        first: dict[Hashable, Row] = {}
        for state in step.before:
            first[_State(step, state.tensor, 1)] = step.start.get(state.tensor, {})
        states = through_loop(item.rank, rows, first)
        for name in made:
            found = [after(states[s], chains) for s, chains in here[name].items() if s in states]
            rest = {s: chains for s, chains in here[name].items() if s not in states}
            depth[name] = joined([step.start.get(name, {}), rest, *found])

    def row(self, einsum: Einsum, depth: Mapping[str, Row], loops: Sequence[_Step]) -> Row:
        """The longest chains to what an Einsum makes."""
        reduced = () if is_constant(einsum.body) else reduced_ranks(einsum)
        body = _unscaled(einsum)
        every, last = _levels(body), len(work_of(einsum).per_output)
        rows: list[Row] = [{_GIVEN: (operations(every + last, reduced),)}]
        read = [*_accesses(body), *((a, every) for a in accesses(einsum.where))]
        read += [(a, 0) for index in einsum.target.indices for a in accesses(index)]
        for access, levels in read:
            rows.append(after(self.operand(access, depth, loops), (operations(levels + last, reduced),)))
        return joined(rows)

    def operand(self, access: Access, depth: Mapping[str, Row], loops: Sequence[_Step]) -> Row:
        """The longest chains to what an access reads."""
        for loop in loops:
            if access.tensor not in loop.made:
                continue
            iterative = loop.rank in self.cascade.tensors[access.tensor].iterative
            index = access.indices[self.cascade.full_ranks(access.tensor).index(loop.rank)]
            if iterative and index == Number(0):
                return loop.start.get(access.tensor, {})
            shift = _shift(self.cascade, access, loop.rank)
            back = 1 if shift is None else int(iterative) - shift
            if (shift is None or back < 0) and access.tensor in loop.known:
                return loop.known[access.tensor]
            if back:
                state = _State(loop, access.tensor, back)
                loop.before.add(state)
                return {state: (NOTHING,)}
        return depth.get(access.tensor, {})


def _unscaled(einsum: Einsum) -> Expr:
    """The body of a sum without constant factors at its top, which are applied once an output."""
    body = einsum.body
    if not reduced_ranks(einsum) or einsum.selection or reduction_op(einsum) not in ("sum", "mean"):
        return body
    while isinstance(body, Apply) and body.op in ("*", "/"):
        left, right = body.args
        if is_constant(right):
            body = left
        elif is_constant(left) and body.op == "*":
            body = right
        else:
            break
    return body


def _accesses(expr: Expr, above: int = 0) -> Iterator[tuple[Access, int]]:
    """Every access in an expression, with the operations that follow it."""
    if isinstance(expr, Access):
        yield expr, above
        for index in expr.indices:
            yield from ((a, above) for a, _ in _accesses(index))
    elif isinstance(expr, Apply):
        for arg in expr.args:
            yield from _accesses(arg, above + _own_levels(expr))


def _levels(expr: Expr) -> int:
    """Operations on the longest way through an expression."""
    if not isinstance(expr, Apply):
        return 0
    return _own_levels(expr) + max((_levels(a) for a in expr.args), default=0)


def _own_levels(expr: Apply) -> int:
    if is_constant(expr) or not OPERATORS[expr.op].cost:
        return 0
    return (len(expr.args) - 1).bit_length() if expr.op in ("min", "max", "and", "or") else 1


def _overlapped(
    cascade: Cascade, items: Sequence[Plan], known: Mapping[str, tuple[Plan, ...]], around: Sequence[str]
) -> tuple[Compute | _Overlap, ...]:
    """Loops along one rank as one loop where each step needs of the others only steps up to its own. Those that need
    the end of it come in another loop, which goes through the first again: ``known`` has what went before by rank.
    ``around`` are the ranks of the loops around these."""
    items = [_stepped(cascade, x, around) for x in items]
    rank = next((x.rank for x in items if isinstance(x, Loop)), None)
    rank = rank or next((r for r, loops in known.items() for x in items if _follows(cascade, x, r, loops)), None)
    if rank is None:
        return tuple(x for x in items if isinstance(x, Compute))
    again = known.get(rank, ())
    before: list[Plan] = []
    body: list[Plan] = []
    ends: list[Plan] = []
    later: list[Plan] = []
    new, late = set(), set()
    for item in items:
        needs = {a.tensor for n in equations(item) for a in reads(cascade.explicit[n])}
        mine = _names(cascade, [item])
        along = item.rank == rank if isinstance(item, Loop) else needs & new or _follows(cascade, item, rank, again)
        if not needs & late and along and _in_step(cascade, item, rank, new - mine):
            if isinstance(item, Loop) or _holds(cascade, item, rank):
                body += item.body if isinstance(item, Loop) else [item]
                new |= mine
            else:
                ends.append(item)
                late |= mine
        elif needs & (new | late):
            later.append(item)
            late |= mine
        else:
            before.append(item)
    overlap = _Overlap(rank, again, (*body, *ends))
    return (
        *_overlapped(cascade, before, known, around), overlap,
        *_overlapped(cascade, later, {**known, rank: (*again, *body)}, around),
    )  # fmt: skip


def _follows(cascade: Cascade, item: Plan, rank: str, loops: Sequence[Plan]) -> bool:
    """Whether an equation reads what some loops along a rank have at its step."""
    if isinstance(item, Loop) or not _in_step(cascade, item, rank, set()):
        return False
    made = _names(cascade, loops)
    read = (a for a in reads(cascade.explicit[item.equation]) if a.tensor in made)
    return any(_shift(cascade, a, rank) is not None for a in read)


def _shift(cascade: Cascade, access: Access, rank: str) -> int | None:
    """How many steps ahead of its own an Einsum reads a tensor along a rank; None if not by its step."""
    held = cascade.full_ranks(access.tensor)
    return offset_from(access.indices[held.index(rank)], rank) if rank in held else None


def _stepped(cascade: Cascade, item: Plan, around: Sequence[str]) -> Plan:
    """An equation for the next element, ``T[i+1]``, in a loop, also where it does not need the one before."""
    steps = [step_rank(i) for i in cascade.explicit[item.equation].target.indices] if isinstance(item, Compute) else []
    rank = next((r for r in steps if r and r not in around), None)
    return Loop(rank, (item,)) if rank else item


def _names(cascade: Cascade, items: Iterable[Plan]) -> set[str]:
    return {cascade.explicit[n].name for item in items for n in equations(item)}


def _holds(cascade: Cascade, item: Compute, rank: str) -> bool:
    """Whether an equation makes an element at each step of a rank."""
    e = cascade.explicit[item.equation]
    held = cascade.full_ranks(e.name)
    return rank in held and rank not in reduced_ranks(e) and e.target.indices[held.index(rank)] != Number(0)


def _in_step(cascade: Cascade, item: Plan, rank: str, others: set[str]) -> bool:
    """Whether each step of a rank makes elements, or a part of what is reduced over it, and needs of the others no more
    than is there at that step."""
    if isinstance(item, Compute):
        reduces = rank in reduced_ranks(cascade.explicit[item.equation])
        if not reduces and not _holds(cascade, item, rank):
            return False
    for n in equations(item):
        for a in reads(cascade.explicit[n]):
            if a.tensor in others:
                shift = _shift(cascade, a, rank)
                if shift is None or shift > (rank in cascade.tensors[a.tensor].iterative):
                    return False
    return True
