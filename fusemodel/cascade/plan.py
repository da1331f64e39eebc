"""The order in which equations can be computed: equations, and loops around them along iterative ranks.

Equations that need each other must be stepped. A loop along a rank is legal when every equation in it reads only what
earlier steps made, or the same step before it; what earlier steps made needs no order inside the loop, so the rest is
arranged in the same way, perhaps with loops along other ranks (Allen and Kennedy, 1987).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fusemodel.cascade.graph import components, step_rank
from fusemodel.cascade.ir import Access, Apply, Cascade, Einsum, Expr, Extent, Number, RankValue, reads
from fusemodel.errors import InputError


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute one equation, ``cascade.einsums[equation]``, for the coordinates of the loops around it."""

    equation: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Step ``rank`` from 0 to its extent, and compute ``body`` at each step."""

    rank: str
    body: tuple[Plan, ...]


Plan: TypeAlias = Compute | Loop
_Need: TypeAlias = tuple[int, Access, int]  # equation, what it reads, an equation that makes it
_Linear: TypeAlias = "dict[Expr | None, int]"  # coefficients of coordinates and extents; None: the constant


def plan(cascade: Cascade) -> tuple[Plan, ...]:
    """Every equation once, in an order in which each finds what it reads; InputError for a cyclic definition."""
    makers: dict[str, list[int]] = {}
    for number, einsum in enumerate(cascade.explicit):
        makers.setdefault(einsum.name, []).append(number)
    needs = [
        (number, access, maker)
        for number, einsum in enumerate(cascade.explicit)
        for access in reads(einsum)
        for maker in makers.get(access.tensor, ())
        if _meets(cascade, access, cascade.explicit[maker])
    ]
    return _arrange(cascade, range(len(cascade.explicit)), needs)


def equations(item: Plan) -> Iterator[int]:
    """The equations in a part of a plan, in order."""
    if isinstance(item, Compute):
        yield item.equation
    else:
        for part in item.body:
            yield from equations(part)


def _arrange(cascade: Cascade, nodes: Sequence[int], needs: Sequence[_Need]) -> tuple[Plan, ...]:
    before: dict[int, set[int]] = {n: set() for n in nodes}
    for reader, _, maker in needs:
        before[reader].add(maker)
    result: list[Plan] = []
    for group in components(nodes, before):
        inside = [n for n in needs if n[0] in group and n[2] in group]
        result.append(_loop(cascade, group, inside) if inside else Compute(group[0]))
    return tuple(result)


def _loop(cascade: Cascade, group: Sequence[int], inside: Sequence[_Need]) -> Loop:
    for rank in _step_ranks(cascade, group):
        delays = [_delay(cascade, *need, rank) for need in inside]
        if all(d is not None and d >= 0 for d in delays) and any(delays):
            left = [need for need, delay in zip(inside, delays, strict=True) if delay == 0]
            return Loop(rank, _arrange(cascade, group, left))
    names = list(dict.fromkeys(cascade.einsums[n].name for n in group))
    raise InputError(
        f"cyclic definition: {' -> '.join([*names, names[0]])}", cascade.tensors[names[0]].at,
        expected="a step along an iterative rank, `T[i+1, ...] = ... T[i, ...]`, somewhere in the cycle",
    )  # fmt: skip


def _meets(cascade: Cascade, access: Access, maker: Einsum) -> bool:
    """Whether what is read can be among what an equation makes: the start makes element 0 only, the step all others."""
    tensor = cascade.tensors[access.tensor]
    for rank, index, made in zip(cascade.full_ranks(tensor.name), access.indices, maker.target.indices, strict=False):
        constant = index.value if isinstance(index, Number) and rank in tensor.iterative else None
        if constant is not None and (constant == 0 if step_rank(made) else isinstance(made, Number) and constant != 0):
            return False
    return True


def _step_ranks(cascade: Cascade, group: Sequence[int]) -> list[str]:
    """Ranks that every equation of the group makes an element of at each step, and one makes the next element of."""
    held: list[dict[str, bool]] = []  # for each equation: rank -> whether it makes the next element
    for number in group:
        target = cascade.explicit[number].target
        tensor = cascade.tensors[target.tensor]
        ranks: dict[str, bool] = {}
        for rank, index in zip(cascade.full_ranks(tensor.name), target.indices, strict=False):
            if step_rank(index) == rank or (index == RankValue(rank) and rank not in tensor.iterative):
                ranks[rank] = index != RankValue(rank)
        held.append(ranks)
    return [r for r in cascade.ranks if all(r in h for h in held) and any(h[r] for h in held)]


def _delay(cascade: Cascade, reader: int, access: Access, maker: int, rank: str) -> int | None:
    """The least number of steps of ``rank`` that pass between making an element and reading it; None if unknown."""
    ranks = cascade.full_ranks(access.tensor)
    if rank not in ranks:
        return None
    position = ranks.index(rank)
    made = cascade.explicit[maker].target.indices[position]
    most = _most(access.indices[position], rank, cascade.explicit[reader].where)
    if most is None:
        return 1 if access.indices[position] == Number(0) and step_rank(made) else None
    return (1 if step_rank(made) else 0) - most


def _most(index: Expr, rank: str, where: Expr | None) -> int | None:
    """A constant that ``index - rank`` never exceeds where the condition holds."""
    form = _linear(Apply("-", (index, RankValue(rank))))
    if form is None:
        return None
    bounds = [_upper(form), *(_upper(_add(form, slack)) for slack in _slacks(where))]
    return min((b for b in bounds if b is not None), default=None)


def _slacks(where: Expr | None) -> Iterator[_Linear]:
    """Linear forms that are at least 0 where the condition holds."""
    if not isinstance(where, Apply):
        return
    if where.op == "and":
        for part in where.args:
            yield from _slacks(part)
    elif where.op in ("<", "<=", ">", ">=", "=="):
        small, large = where.args if where.op in ("<", "<=", "==") else where.args[::-1]
        pairs = [(small, large)] + [(large, small)] * (where.op == "==")
        for a, b in pairs:
            if slack := _linear(Apply("-", (b, a))):
                yield _add(slack, {None: -1}) if where.op in ("<", ">") else slack


def _linear(expr: Expr) -> _Linear | None:
    match expr:
        case Number(int(value)):
            return {None: value}
        case RankValue() | Extent():
            return {expr: 1}
        case Apply("neg", (a,)):
            return _scale(_linear(a), -1)
        case Apply("+" | "-" as op, (a, b)):
            left, right = _linear(a), _scale(_linear(b), 1 if op == "+" else -1)
            return None if left is None or right is None else _add(left, right)
        case Apply("*", (Number(int(c)), a)) | Apply("*", (a, Number(int(c)))):
            return _scale(_linear(a), c)
    return None


def _scale(form: _Linear | None, by: int) -> _Linear | None:
    return None if form is None else {key: by * c for key, c in form.items()}


def _add(a: _Linear, b: _Linear) -> _Linear:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}


def _upper(form: _Linear) -> int | None:
    """The largest value of a form, coordinates being from 0 to their extent - 1 and extents at least 1."""
    rest = dict(form)
    total = rest.pop(None, 0)
    for key, c in form.items():
        if isinstance(key, RankValue) and c > 0:  # c * r <= c * (R - 1)
            total -= c
            rest[Extent(key.rank)] = rest.get(Extent(key.rank), 0) + c
    for key, c in rest.items():
        if isinstance(key, Extent):
            if c > 0:
                return None
            total += c
    return total
