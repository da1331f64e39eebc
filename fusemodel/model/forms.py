"""Linear forms of coordinates, and coordinates that stand for quotients or are computed otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, isfinite
from typing import TypeAlias

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import Access, Apply, Expr, Extent, Number, RankValue, rank_values, substitute, walk
from fusemodel.errors import InputError


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum(coefficient * coordinate) + constant``; as a condition, that this is at most 0."""

    coefficients: Mapping[str, int]
    constant: int

    def key(self) -> tuple[object, ...]:
        """The same for equal forms."""
        return (tuple(sorted(self.coefficients.items())), self.constant)

    def renamed(self, change: Mapping[str, str]) -> Linear:
        """The same on coordinates of other names."""
        return Linear({change[x]: c for x, c in self.coefficients.items()}, self.constant)

    def __hash__(self) -> int:
        return hash(self.key())


@dataclass(frozen=True, slots=True)
class Defined:
    """A coordinate ``name`` that is a value less ``least``, whatever the operators in it. Extents in it are numbers."""

    name: str
    value: Expr
    least: int

    @property
    def coefficients(self) -> Mapping[str, int]:
        """The coordinates that this couples."""
        return dict.fromkeys((self.name, *rank_values(self.value)), 1)

    def key(self) -> tuple[object, ...]:
        """The same for equal definitions."""
        return (self.name, self.value, self.least)

    def renamed(self, change: Mapping[str, str]) -> Defined:
        """The same on coordinates of other names."""
        ranks: dict[str, Expr] = {r: RankValue(change[r]) for r in rank_values(self.value)}
        return Defined(change[self.name], substitute(self.value, ranks), self.least)


Form: TypeAlias = Linear | Defined
Piece: TypeAlias = tuple[Form, ...]


@dataclass
class Quotients:
    """Coordinates that stand for ``a // c``, or for a value that is no linear form: their sizes, and what defines each.

    ``ranges`` has the number of values of every rank, those included that a ragged split pads it with; ``owner`` tells
    the coordinates of different Einsums apart.
    """

    ranges: Mapping[str, int]
    owner: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    forms: dict[str, Piece] = field(default_factory=dict)
    known: dict[tuple[object, ...], tuple[str, int]] = field(default_factory=dict)

    @property
    def every(self) -> dict[str, int]:
        """The number of values of every coordinate."""
        return {**self.ranges, **self.sizes}

    def of(self, a: Linear, c: int) -> Linear:
        """``a // c`` as a form."""
        key = (*a.key(), c)
        if key not in self.known:
            lowest, highest = bounds_of(a, self.every)
            least = lowest // c
            name = self._new(key, least, highest // c - least + 1)
            below = Linear({**scaled(a, -1).coefficients, name: c}, c * least - a.constant)
            above = Linear({**a.coefficients, name: -c}, a.constant - c * least - (c - 1))
            self.forms[name] = below, above
        name, least = self.known[key]
        return Linear({name: 1}, least)

    def defined(self, value: Expr, extents: Mapping[str, int], size: int) -> Linear:
        """A value on coordinates, from 0 to below ``size`` wherever it matters, as a form."""
        key = (value, size)
        if key not in self.known:
            name = self._new(key, 0, size)
            self.forms[name] = (Defined(name, with_numbers(value, extents), 0),)
        return Linear({self.known[key][0]: 1}, 0)

    def _new(self, key: tuple[object, ...], least: int, size: int) -> str:
        name = f"{self.owner}//{len(self.known)}"
        self.sizes[name] = size
        self.known[key] = name, least
        return name

    def closure(self, forms: Iterable[Form]) -> list[Form]:
        """The definitions of the coordinates made here that occur in some forms."""
        result: dict[str, Piece] = {}
        pending = [x for f in forms for x in f.coefficients if x in self.forms]
        while pending:
            name = pending.pop()
            if name not in result:
                result[name] = self.forms[name]
                pending += [x for f in self.forms[name] for x in f.coefficients if x in self.forms]
        return [f for group in result.values() for f in group]


def bounds_of(a: Linear, sizes: Mapping[str, int]) -> tuple[int, int]:
    """The least and the largest value of a form in a box."""
    reach = [(c * (sizes[r] - 1)) for r, c in a.coefficients.items()]
    return a.constant + sum(min(0, x) for x in reach), a.constant + sum(max(0, x) for x in reach)


def scaled(a: Linear, k: int) -> Linear:
    """``k`` times a form."""
    return Linear({r: k * c for r, c in a.coefficients.items() if k * c}, k * a.constant)


def added(a: Linear, b: Linear) -> Linear:
    """The sum of two forms."""
    ranks = dict.fromkeys([*a.coefficients, *b.coefficients])
    coefficients = {r: a.coefficients.get(r, 0) + b.coefficients.get(r, 0) for r in ranks}
    return Linear({r: c for r, c in coefficients.items() if c}, a.constant + b.constant)


def linear(expr: Expr, extents: Mapping[str, int], quotients: Quotients | None = None) -> Linear | None:
    """The expression as a linear form with whole coefficients; None if it is none. With ``quotients``, ``//`` and ``%``
    by a constant become coordinates of their own."""
    match expr:
        case RankValue(rank):
            return Linear({rank: 1}, 0)
        case Access():
            return None
        case Apply(op, args) if rank_values(expr):
            parts = [linear(a, extents, quotients) for a in args]
            forms = [p for p in parts if p is not None]
            return combined(op, forms, quotients) if len(forms) == len(parts) else None
    value = constant(expr, extents)
    return Linear({}, value) if isinstance(value, int) else None


def constant(expr: Expr, extents: Mapping[str, int]) -> int | float | None:
    """The value of an expression without coordinates, whole numbers as such; None if it depends on data."""
    if any(isinstance(e, Access) for e in walk(expr)):
        return None
    try:
        value = evaluate(expr, extents)
    except InputError:
        return None
    return int(value) if isfinite(value) and value == int(value) else float(value)


def combined(op: str, parts: Sequence[Linear], quotients: Quotients | None) -> Linear | None:
    """An operator on linear forms, as one; None if it is none."""
    a = parts[0]
    if op == "neg":
        return scaled(a, -1)
    if op in ("floor", "round"):
        return a
    if len(parts) != 2:
        return None
    b = parts[1]
    match op:
        case "+":
            return added(a, b)
        case "-":
            return added(a, scaled(b, -1))
        case "*" if not b.coefficients:
            return scaled(a, b.constant)
        case "*" if not a.coefficients:
            return scaled(b, a.constant)
        case "//" | "%" if quotients is not None and not b.coefficients and b.constant > 0:
            quotient = quotients.of(a, b.constant) if a.coefficients else Linear({}, a.constant // b.constant)
            return quotient if op == "//" else added(a, scaled(quotient, -b.constant))
    return None


def narrowed(forms: Sequence[Linear], sizes: Mapping[str, int]) -> tuple[Linear, ...] | None:
    """The forms that say something in a box, in lowest terms, the tightest of each; None if they cannot all be met."""
    tightest: dict[tuple[tuple[str, int], ...], int] = {}
    for form in forms:
        coefficients = {x: c for x, c in form.coefficients.items() if c and sizes[x] > 1}
        divisor = gcd(*coefficients.values()) if coefficients else 1
        constant = -(-form.constant // divisor)
        key = tuple(sorted((x, c // divisor) for x, c in coefficients.items()))
        tightest[key] = max(constant, tightest.get(key, constant))
    low, high = dict.fromkeys(sizes, 0), {x: n - 1 for x, n in sizes.items()}
    for key, constant in tightest.items():
        if len(key) == 1:
            (x, c), *_ = key
            if c > 0:
                high[x] = min(high[x], -constant)
            else:
                low[x] = max(low[x], constant)
            if low[x] > high[x]:
                return None
    result: list[Linear] = []
    for key, constant in tightest.items():
        whole = bounds_of(Linear(dict(key), constant), sizes)
        if whole[1] <= 0:
            continue
        least = constant + sum(c * (low[x] if c > 0 else high[x]) for x, c in key)
        most = constant + sum(c * (high[x] if c > 0 else low[x]) for x, c in key)
        against = tightest.get(tuple((x, -c) for x, c in key))
        if least > 0 or (against is not None and constant + against > 0):
            return None
        if len(key) == 1 or most > 0:
            result.append(Linear(dict(key), constant))
    return tuple(result)


def on_leaves(forms: Sequence[Form], leaves: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> list[Form]:
    """The same forms over the leaves of each rank (``p = p1 * P0 + p0``)."""
    return [
        linear_on_leaves(f, leaves, sizes)
        if isinstance(f, Linear)
        else Defined(f.name, substitute(f.value, _joined(f, leaves, sizes)), f.least)
        for f in forms
    ]


def linear_on_leaves(form: Linear, leaves: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> Linear:
    """One form over the leaves of each rank."""
    coefficients: dict[str, int] = {}
    for rank, c in form.coefficients.items():
        for leaf, stride in _strides(leaves.get(rank, (rank,)), sizes):
            coefficients[leaf] = coefficients.get(leaf, 0) + c * stride
    return Linear({x: c for x, c in coefficients.items() if c}, form.constant)


def _strides(leaves: Sequence[str], sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    stride = 1
    for leaf in reversed(leaves):
        found.append((leaf, stride))
        stride *= int(sizes.get(leaf, 1))
    return found


def _joined(form: Defined, leaves: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> dict[str, Expr]:
    """For each rank in a value, its coordinate from those of its leaves."""
    change: dict[str, Expr] = {}
    for rank in rank_values(form.value):
        terms = [Apply("*", (RankValue(x), Number(s))) for x, s in _strides(leaves.get(rank, (rank,)), sizes)]
        total: Expr = terms[0]
        for term in terms[1:]:
            total = Apply("+", (total, term))
        change[rank] = total
    return change


def with_numbers(expr: Expr, extents: Mapping[str, int]) -> Expr:
    """The expression with extents as numbers."""
    match expr:
        case Extent(rank) if rank in extents:
            return Number(extents[rank])
        case Apply(op, args):
            return Apply(op, tuple(with_numbers(a, extents) for a in args))
    return expr
