"""The hardware operations an Einsum performs, read off its equation."""

from __future__ import annotations

from dataclasses import dataclass

from fusemodel.cascade.ir import Access, Apply, Einsum, Expr, RankValue, reduced_ranks, reduction_op, walk
from fusemodel.cascade.operators import OPERATORS, REDUCTIONS, SELECTIONS


@dataclass(frozen=True, slots=True)
class Work:
    """Operations in the order of the chain: ``per_point`` of the iteration space, and ``per_output`` element."""

    per_point: tuple[str, ...]
    per_output: tuple[str, ...]


def work_of(einsum: Einsum) -> Work:
    """The operations of one Einsum.

    A product that is summed is multiply-accumulate. Constant factors of a sum leave it, and so count once for each
    output. Index arithmetic, conditions on coordinates and constants cost nothing. An Einsum that only moves data
    counts one ``copy``.
    """
    body, per_output = einsum.body, []
    reduced = reduced_ranks(einsum)
    op = reduction_op(einsum)
    if reduced and not einsum.selection and op in ("sum", "mean"):
        body, hoisted = _hoist(body)
        per_output += ["mul"] * hoisted
    per_point = _operations(body)
    if einsum.selection:
        per_point.append(SELECTIONS[einsum.selection.op])
    elif reduced:
        step = REDUCTIONS[op]
        if step == "add" and isinstance(body, Apply) and body.op == "*" and per_point[-1:] == ["mul"]:
            per_point[-1] = "mac"
        else:
            per_point.append(step)
        if op == "mean":
            per_output.append("divide")
    if not per_point and not per_output:
        per_point.append("copy")
    return Work(tuple(per_point), tuple(per_output))


def is_constant(expr: Expr) -> bool:
    """Whether the expression has one value for given extents."""
    return not any(isinstance(e, (Access, RankValue)) for e in walk(expr))


def _hoist(body: Expr) -> tuple[Expr, int]:
    """The body without constant factors at its top, and how many there were."""
    count = 0
    while isinstance(body, Apply) and body.op in ("*", "/"):
        left, right = body.args
        if is_constant(right):
            body, count = left, count + 1
        elif is_constant(left) and body.op == "*":
            body, count = right, count + 1
        else:
            break
    return body, min(count, 1)  # constants multiply into one


def _operations(expr: Expr) -> list[str]:
    if not isinstance(expr, Apply) or is_constant(expr):
        return []
    inner = [op for arg in expr.args for op in _operations(arg)]
    if expr.op == "/" and is_constant(expr.args[1]):
        return [*inner, "mul"]
    cost = OPERATORS[expr.op].cost
    times = max(1, len(expr.args) - 1) if expr.op in ("min", "max", "and", "or") else 1
    return inner + [cost] * times if cost else inner
