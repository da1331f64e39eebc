"""A cascade computed element by element, on demand, in plain Python; slow, and written from the rules of the language.

An element is a value and *factors*: reasons for which it is there or absent, each with the axes it depends on. A
reduction passes on the factors that involve none of its ranks and ignores the points that others leave out.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Extent,
    Number,
    RankValue,
    iteration_ranks,
    rank_values,
    reduced_ranks,
    reduction_op,
)

Factors = list[tuple[frozenset, bool]]


def there(factors: Factors) -> bool:
    return all(holds for _, holds in factors)


def _extreme(pick):
    return lambda *xs: math.nan if any(x != x for x in xs) else pick(xs)


def _divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


OPERATORS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": _divide, "neg": lambda a: -a,
    "//": lambda a, b: a // b, "%": lambda a, b: a % b,
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    "and": lambda *xs: all(xs), "or": lambda *xs: any(xs), "not": lambda a: not a,
    "min": _extreme(min), "max": _extreme(max), "abs": abs,
    "relu": lambda a: a if a != a else max(a, 0),
    "floor": lambda a: math.floor(a) if math.isfinite(a) else a,
    "round": lambda a: round(a) if math.isfinite(a) else a,
    "tanh": math.tanh, "sqrt": math.sqrt, "exp": lambda a: math.exp(a) if a < 700 else math.inf,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)) if a > -700 else 0.0,
    "select": lambda c, a, b: a if c else b,
}  # fmt: skip

IDENTITIES = {"sum": 0, "mean": 0, "prod": 1, "max": -math.inf, "min": math.inf, "any": False, "all": True}


def combine(op: str, values: list[Any]) -> Any:
    if not values:
        return IDENTITIES[op]
    match op:
        case "sum":
            return sum(values)
        case "mean":
            return sum(values) / len(values)
        case "prod":
            return math.prod(values)
        case "any":
            return any(values)
        case "all":
            return all(values)
    return OPERATORS[op](*values)


class Oracle:
    """``element(tensor, coordinates)`` is a value, or None where it is absent."""

    def __init__(self, cascade: Cascade, inputs: dict[str, Any], extents: dict[str, int]) -> None:
        self.cascade, self.extents = cascade, extents
        self.inputs = inputs
        self.known: dict[tuple[str, tuple[int, ...]], tuple[Any, Factors]] = {}
        self.scattered: dict[int, dict[tuple[int, ...], Any]] = {}
        self.active: set[tuple[str, tuple[int, ...]]] = set()

    def element(self, name: str, at: tuple[int, ...]) -> Any:
        value, factors = self.cell(name, at)
        return value if there(factors) else None

    def cell(self, name: str, at: tuple[int, ...]) -> tuple[Any, Factors]:
        if name in self.inputs:
            return self.inputs[name][at].item(), []
        key = (name, at)
        if key not in self.known:
            if key in self.active:
                raise RecursionError(f"{name}{list(at)} needs itself")
            self.active.add(key)
            self.known[key] = self.compute(name, at)
            self.active.discard(key)
        return self.known[key]

    def compute(self, name: str, at: tuple[int, ...]) -> tuple[Any, Factors]:
        tensor, ranks = self.cascade.tensors[name], self.cascade.full_ranks(name)
        for einsum in reversed(self.cascade.explicit):
            if einsum.name != name:
                continue
            env: dict[str, int] = {}
            computed = False
            for rank, index, x in zip(ranks, einsum.target.indices, at, strict=True):
                iterative = rank in tensor.iterative
                if index == RankValue(rank):
                    env[rank] = x
                elif iterative and index == Number(0):
                    if x != 0:
                        break
                elif iterative and index == Apply("+", (RankValue(rank), Number(1))):
                    if x == 0:
                        break
                    env[rank] = x - 1
                else:
                    computed = True
            else:
                if computed:
                    return self.scatter(einsum, at), []
                return self.equation(einsum, env, ranks, tensor.iterative)
        axes = frozenset(d for d, r in enumerate(ranks) if r in tensor.iterative)
        return None, [(axes, False)]  # a corner that no start makes

    def equation(self, einsum: Einsum, env: dict[str, int], ranks: tuple[str, ...], iterative) -> tuple[Any, Factors]:
        reduced = frozenset(reduced_ranks(einsum))
        into = einsum.selection.into if einsum.selection else None
        place = env.get(into) if into else None
        points = [
            {**{r: x for r, x in env.items() if r != into}, **dict(zip(reduced, xs, strict=True))}
            for xs in product(*(range(self.extents[r]) for r in reduced))
        ]
        kept: dict[frozenset, bool] = {}
        found: list[tuple[dict[str, int], Any]] = []
        involved: set[str] = set()
        for point in points:
            factors = self.where(einsum.where, point)
            value = None
            try:
                value, more = self.expression(einsum.body, point)
                factors = factors + more
            except RecursionError:
                if there(factors):
                    raise
            for deps, holds in factors:
                if deps & reduced:
                    involved |= deps - reduced
                else:
                    kept[deps] = kept.get(deps, True) and holds
            if there([f for f in factors if f[0] & reduced]):
                found.append((point, value))
        outer = list(kept.items())
        complete = there(outer)
        if einsum.selection and len(found) <= (place or 0):
            outer.append((frozenset(involved) | ({into} if into else set()), False))
            value = None
        elif not complete:
            value = None
        elif einsum.selection:
            value = self.choose(einsum, found, place or 0)
        elif not reduced:
            value = found[0][1]
        else:
            value = combine(reduction_op(einsum), [v for _, v in found])
        rank_at = {r: d for d, r in enumerate(ranks)}
        always = {d for d, r in enumerate(ranks) if r in iterative}
        return value, [(frozenset({rank_at[r] for r in deps} | always), holds) for deps, holds in outer]

    def choose(self, einsum: Einsum, found: list[tuple[dict[str, int], Any]], place: int) -> int:
        s = einsum.selection
        assert s is not None
        sign = 1 if s.op == "argmin" else -1
        order = sorted(found, key=lambda item: (sign * item[1], item[0][s.rank]))
        return order[place][0][s.rank]

    def scatter(self, einsum: Einsum, at: tuple[int, ...]) -> Any:
        number = self.cascade.explicit.index(einsum)
        if number not in self.scattered:
            heaps: dict[tuple[int, ...], list[Any]] = {}
            ranks = iteration_ranks(einsum)
            for xs in product(*(range(self.extents[r]) for r in ranks)):
                env = dict(zip(ranks, xs, strict=True))
                value, factors = self.expression(einsum.body, env)
                indices = [self.expression(i, env) for i in einsum.target.indices]
                factors = factors + self.where(einsum.where, env) + [f for _, fs in indices for f in fs]
                if there(factors):
                    heaps.setdefault(tuple(int(i) for i, _ in indices), []).append(value)
            self.scattered[number] = {k: combine(reduction_op(einsum), v) for k, v in heaps.items()}
        return self.scattered[number].get(at, IDENTITIES[reduction_op(einsum)])

    def where(self, condition, env: dict[str, int]) -> Factors:
        if condition is None:
            return []
        if isinstance(condition, Apply) and condition.op == "and":
            return [f for part in condition.args for f in self.where(part, env)]
        value, factors = self.expression(condition, env)
        return [*factors, (frozenset(rank_values(condition)), bool(value) if there(factors) else False)]

    def expression(self, expr, env: dict[str, int]) -> tuple[Any, Factors]:
        match expr:
            case Number(value):
                return value, []
            case Extent(rank):
                return self.extents[rank], []
            case RankValue(rank):
                return env[rank], []
            case Access():
                return self.access(expr, env)
            case Apply("coalesce", args):
                value, factors = self.expression(args[-1], env)
                for arg in reversed(args[:-1]):
                    first, own = self.expression(arg, env)
                    value = first if there(own) else value
                    factors = [(a[0] | b[0], a[1] or b[1]) for a in own for b in factors]
                return value, factors
            case Apply(op, args):
                parts = [self.expression(a, env) for a in args]
                factors = [f for _, fs in parts for f in fs]
                return (OPERATORS[op](*(v for v, _ in parts)) if there(factors) else None), factors
        raise AssertionError(expr)

    def access(self, access: Access, env: dict[str, int]) -> tuple[Any, Factors]:
        tensor = self.cascade.tensors[access.tensor]
        factors: Factors = []
        at: list[int] = []
        bad: set[int] = set()
        for axis, (rank, index) in enumerate(
            zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True)
        ):  # fmt: skip
            value, own = self.expression(index, env)
            factors += own
            size = self.extents[rank] + (rank in tensor.iterative)
            if there(own):
                assert value == int(value)
                inside = 0 <= value < size
                factors.append((frozenset(rank_values(index)), inside))
            if not there(own) or not inside:
                bad.add(axis)
                value = 0
            at.append(int(value))
        value, gaps = self.cell(access.tensor, tuple(at))
        for axes, holds in gaps:
            if not axes & bad:
                factors.append((frozenset(r for d in axes for r in rank_values(access.indices[d])), holds))
        return (value if there(factors) else None), factors
