"""The longest chain of operations that need each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

from fusemodel.analysis.graph import volume
from fusemodel.cascade.graph import offset_from
from fusemodel.cascade.ir import Access, Apply, Cascade, Einsum, iteration_ranks, reads, reduced_ranks
from fusemodel.cascade.plan import Compute, Loop, Plan, equations, plan
from fusemodel.cascade.work import is_constant, work_of

_TRIED_STEPS = 6  # of a loop, before the growth of its chains is taken as steady


def critical_path(cascade: Cascade, extents: Mapping[str, int]) -> tuple[Any, int]:
    """The longest chain of operations that need each other; which one it is depends on the extents."""
    import sympy

    zero = (0, volume([]) * 0)
    depth: dict[str, tuple[int, Any]] = dict.fromkeys(cascade.inputs, zero)

    prior: dict[str, dict[str, tuple[int, Any]]] = {}  # by rank of a loop: what there was before its step

    def operand(a: Access) -> tuple[int, Any]:
        tensor = cascade.tensors[a.tensor]
        for rank, index in zip(cascade.full_ranks(a.tensor), a.indices, strict=True):
            if rank in tensor.iterative and rank in prior and offset_from(index, rank) != 1:
                return prior[rank].get(a.tensor, zero)
        return depth.get(a.tensor, zero)

    def visit(e: Einsum) -> None:
        if is_constant(e.body) and not e.where:
            depth.setdefault(e.name, zero)
            return
        start = max((operand(a) for a in reads(e)), key=lambda d: d[0], default=zero)
        reduced = reduced_ranks(e)
        n = prod(extents[r] for r in reduced)
        # a tree, of which a fused multiply-add is the first level
        steps, tree = (n - 1).bit_length(), sympy.ceiling(sympy.log(volume(reduced), 2)) if reduced else 0
        own = _deep(e.body) + len(work_of(e).per_output)
        mine = start[0] + own + steps, start[1] + own + tree
        depth[e.name] = max(depth.get(e.name, zero), mine, key=lambda d: d[0])

    def run(items: Iterable[Plan]) -> None:
        for item in items:
            if isinstance(item, Compute):
                visit(cascade.explicit[item.equation])
                continue
            steps = min(extents[item.rank], _TRIED_STEPS)
            for _ in range(steps):
                prior[item.rank] = dict(depth)
                run(item.body)
            first = prior.pop(item.rank)
            left = extents[item.rank] - steps
            for name, (n, expr) in list(depth.items()):
                old = first.get(name, zero)
                if n > old[0] and left > 0:
                    depth[name] = n + left * (n - old[0]), expr + (volume([item.rank]) - steps) * (expr - old[1])

    run(_pipelined(cascade, plan(cascade)))
    longest = max((depth[t] for t in cascade.outputs), key=lambda d: d[0])
    return longest[1], longest[0]


def _deep(expr: Any) -> int:
    """Operations on the longest way through an expression."""
    if not isinstance(expr, Apply) or is_constant(expr):
        return 0
    return 1 + max(_deep(a) for a in expr.args)


def _pipelined(cascade: Cascade, items: Sequence[Plan]) -> tuple[Plan, ...]:
    """Loops over one rank as one loop where each step needs only steps up to its own, so that they overlap."""
    first = next((i for i, x in enumerate(items) if isinstance(x, Loop)), None)
    if first is None:
        return tuple(items)
    loop = items[first]
    assert isinstance(loop, Loop)
    before, body, after = list(items[:first]), list(loop.body), []
    inside, late = _names(cascade, [loop]), set()
    for item in items[first + 1 :]:
        needs = {a.tensor for n in equations(item) for a in reads(cascade.explicit[n])}
        mine = _names(cascade, [item])
        if not needs & (inside | late):
            before.append(item)
        elif not needs & late and _in_step(cascade, item, loop.rank, inside):
            body += item.body if isinstance(item, Loop) else [item]
            inside |= mine
        else:
            after.append(item)
            late |= mine
    return (*_pipelined(cascade, before), Loop(loop.rank, tuple(body)), *_pipelined(cascade, after))


def _names(cascade: Cascade, items: Iterable[Plan]) -> set[str]:
    return {cascade.explicit[n].name for item in items for n in equations(item)}


def _in_step(cascade: Cascade, item: Plan, rank: str, inside: set[str]) -> bool:
    if isinstance(item, Loop) and item.rank != rank:
        return False
    for n in equations(item):
        e = cascade.explicit[n]
        if rank not in iteration_ranks(e) or rank in reduced_ranks(e):
            return False
        for a in reads(e):
            for own, index in zip(cascade.full_ranks(a.tensor), a.indices, strict=True):
                shift = offset_from(index, rank) if own == rank else 0
                most = rank in cascade.tensors[a.tensor].iterative
                if a.tensor in inside and (shift is None or shift > most or rank not in cascade.full_ranks(a.tensor)):
                    return False
    return True
