"""Which points of an iteration space are present: conditions as linear constraints, and exact counts of them.

A point is absent where the Einsum's condition fails, where an affine index leaves its tensor, where a ragged split has
no element, and where an operand is absent for one of these reasons. Absent points are not computed and not charged
(DESIGN section 4, rules 3, 4 and 6b).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, isfinite, prod

import numpy as np

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    iteration_ranks,
    rank_values,
    reduced_ranks,
    substitute,
)
from fusemodel.errors import InputError

#: Points enumerated at most for one exact count.
MAX_ENUMERATED = 2**26
#: Points looked at most to tell for which steps some point is present, where elimination cannot.
MAX_WITNESSES = 2**22
_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum(coefficient * coordinate) + constant``."""

    coefficients: Mapping[str, int]
    constant: int

    def key(self) -> tuple[object, ...]:
        """The same for equal forms."""
        return (tuple(sorted(self.coefficients.items())), self.constant)


@dataclass
class Quotients:
    """Coordinates that stand for ``a // c``: their sizes, and the forms (<= 0) that define each of them.

    ``ranges`` has the number of values of every rank, those included that a ragged split pads it with; ``owner`` tells
    the coordinates of different Einsums apart.
    """

    ranges: Mapping[str, int]
    owner: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    forms: dict[str, tuple[Linear, Linear]] = field(default_factory=dict)
    known: dict[tuple[object, ...], tuple[str, int]] = field(default_factory=dict)

    def of(self, a: Linear, c: int) -> Linear:
        """``a // c`` as a form."""
        key = (*a.key(), c)
        if key not in self.known:
            lowest, highest = _bounds(a, {**self.ranges, **self.sizes})
            least = lowest // c
            name = f"{self.owner}//{len(self.known)}"
            self.sizes[name] = highest // c - least + 1
            self.known[key] = name, least
            below = Linear({**_scaled(a, -1).coefficients, name: c}, c * least - a.constant)
            above = Linear({**a.coefficients, name: -c}, a.constant - c * least - (c - 1))
            self.forms[name] = below, above
        name, least = self.known[key]
        return Linear({name: 1}, least)

    def closure(self, forms: Iterable[Linear]) -> list[Linear]:
        """The definitions of the quotients that occur in some forms."""
        result: dict[str, tuple[Linear, Linear]] = {}
        pending = [x for f in forms for x in f.coefficients if x in self.forms]
        while pending:
            name = pending.pop()
            if name not in result:
                result[name] = self.forms[name]
                pending += [x for f in self.forms[name] for x in f.coefficients if x in self.forms]
        return [f for pair in result.values() for f in pair]


def _bounds(a: Linear, sizes: Mapping[str, int]) -> tuple[int, int]:
    reach = [(c * (sizes[r] - 1)) for r, c in a.coefficients.items()]
    return a.constant + sum(min(0, x) for x in reach), a.constant + sum(max(0, x) for x in reach)


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
            if any(p is None for p in parts):
                return None
            forms = [p for p in parts if p is not None]
            if op in ("//", "%") and quotients is not None and not forms[1].coefficients and forms[1].constant > 0:
                quotient = quotients.of(forms[0], forms[1].constant)
                return quotient if op == "//" else _sum(forms[0], _scaled(quotient, -forms[1].constant))
            return _combine(op, forms)
    if any(isinstance(e, Access) for e in _flat(expr)):
        return None
    value = evaluate(expr, extents)
    return Linear({}, int(value)) if isfinite(value) and value == int(value) else None


def _flat(expr: Expr) -> list[Expr]:
    return [expr, *(x for a in getattr(expr, "args", ()) for x in _flat(a))]


def _combine(op: str, parts: list[Linear]) -> Linear | None:
    a = parts[0]
    if op == "neg":
        return _scaled(a, -1)
    if len(parts) != 2:
        return None
    b = parts[1]
    match op:
        case "+":
            return _sum(a, b)
        case "-":
            return _sum(a, _scaled(b, -1))
        case "*" if not b.coefficients:
            return _scaled(a, b.constant)
        case "*" if not a.coefficients:
            return _scaled(b, a.constant)
    return None


def _scaled(a: Linear, k: int) -> Linear:
    return Linear({r: k * c for r, c in a.coefficients.items() if k * c}, k * a.constant)


def _sum(a: Linear, b: Linear) -> Linear:
    ranks = dict.fromkeys([*a.coefficients, *b.coefficients])
    coefficients = {r: a.coefficients.get(r, 0) + b.coefficients.get(r, 0) for r in ranks}
    return Linear({r: c for r, c in coefficients.items() if c}, a.constant + b.constant)


class Conditions:
    """The conditions that points, and the elements of accesses, of a cascade's Einsums must meet to be present."""

    def __init__(self, cascade: Cascade, einsums: Sequence[Einsum]) -> None:
        self.cascade = cascade
        #: For each Einsum, over its own ranks.
        self.of: dict[str, tuple[Expr, ...]] = {}
        self._on_tensor: dict[str, tuple[tuple[str, ...], tuple[Expr, ...]]] = {}
        for einsum in einsums:
            found = list(_conjuncts(einsum.where)) if einsum.where else []
            found += self._present(einsum.body)
            # a rank that is split unevenly is padded where its parts are iterated in its place
            found += [Apply("<", (RankValue(r), Extent(r))) for r in iteration_ranks(einsum) if r in cascade.split]
            self.of[einsum.name] = tuple(dict.fromkeys(found))
            if all(isinstance(i, RankValue) for i in einsum.target.indices):
                # a reduction ignores points, but of a fiber that is absent as a whole there is no result
                reduced = set(reduced_ranks(einsum))
                whole = tuple(c for c in self.of[einsum.name] if not reduced & set(rank_values(c)))
                self._on_tensor[einsum.name] = (cascade.full_ranks(einsum.name), whole)

    def _present(self, expr: Expr) -> list[Expr]:
        """Conditions for a value to be present: every operand, or of ``coalesce`` one."""
        match expr:
            case Access():
                return self.inside(expr)
            case Apply("coalesce", args):
                each = [self._present(a) for a in args]
                return [Apply("or", tuple(_all_of(c) for c in each))] if all(each) else []
            case Apply(_, args):
                return [c for a in args for c in self._present(a)]
        return []

    def inside(self, access: Access) -> list[Expr]:
        """Conditions for the element that an access names to be present."""
        tensor = self.cascade.tensors[access.tensor]
        found: list[Expr] = []
        for rank, index in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True):
            if isinstance(index, Apply) and rank_values(index) and rank not in tensor.iterative:
                found += [Apply(">=", (index, Number(0))), Apply("<", (index, Extent(rank)))]
            elif isinstance(index, RankValue) and index.rank != rank and rank not in tensor.iterative:
                found += [Apply("<", (index, Extent(rank)))]
        ranks, conditions = self._on_tensor.get(access.tensor, ((), ()))
        change = dict(zip(ranks, access.indices, strict=False))
        return found + [substitute(c, change) for c in conditions]


def _all_of(conditions: Sequence[Expr]) -> Expr:
    return conditions[0] if len(conditions) == 1 else Apply("and", tuple(conditions))


def _conjuncts(expr: Expr) -> list[Expr]:
    if isinstance(expr, Apply) and expr.op == "and":
        return [c for a in expr.args for c in _conjuncts(a)]
    return [expr]


def constraints(
    conditions: Sequence[Expr], extents: Mapping[str, int], quotients: Quotients | None = None
) -> tuple[list[Linear], list[Expr]]:
    """The conditions as forms that must be <= 0, and those that are not linear (taken as always met)."""
    forms: list[Linear] = []
    other: list[Expr] = []
    for condition in conditions:
        found = _as_linear(condition, extents, quotients)
        if found is None:
            other.append(condition)
        else:
            forms += found
    return forms, other


def _as_linear(expr: Expr, extents: Mapping[str, int], quotients: Quotients | None) -> list[Linear] | None:
    if not isinstance(expr, Apply) or expr.op not in ("<", "<=", ">", ">=", "=="):
        return None
    op, (left, right) = expr.op, expr.args
    if op in (">", ">="):
        op, left, right = op.replace(">", "<"), right, left
    if op in ("<", "<=") and isinstance(left, Apply) and left.op == "abs":
        inside = left.args[0]
        parts = [_as_linear(Apply(op, (x, right)), extents, quotients) for x in (inside, Apply("neg", (inside,)))]
        return None if None in parts else [f for p in parts if p for f in p]
    form = linear(Apply("-", (left, right)), extents, quotients)
    if form is None:
        return None
    match op:
        case "<":
            return [Linear(form.coefficients, form.constant + 1)]
        case "<=":
            return [form]
    return [form, _scaled(form, -1)]


def on_leaves(forms: Sequence[Linear], leaves: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> list[Linear]:
    """The same forms over the leaves of each rank (``p = p1 * P0 + p0``)."""
    result = []
    for form in forms:
        coefficients: dict[str, int] = {}
        for rank, c in form.coefficients.items():
            stride = 1
            for leaf in reversed(leaves.get(rank, (rank,))):
                coefficients[leaf] = coefficients.get(leaf, 0) + c * stride
                stride *= int(sizes.get(leaf, 1))
        result.append(Linear({x: c for x, c in coefficients.items() if c}, form.constant))
    return result


def count(forms: Sequence[Linear], loops: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Steps of ``loops`` during which some point is present, the other coordinates running over all their values."""
    return count_exactly(forms, loops, sizes)[0]


def count_exactly(forms: Sequence[Linear], loops: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, bool]:
    """:func:`count`, and whether it is exact; if not it is an upper bound.

    Coordinates that are not ``loops`` are eliminated (Fourier and Motzkin), which is exact for whole numbers where a
    coefficient is 1 or tiles leave no gap; if there are gaps, small cases are enumerated, and large ones bounded.
    """
    loops = tuple(dict.fromkeys(loops))
    tidy = _tidy(forms, sizes)
    if tidy is None:
        return 0, True
    hidden = {x: sizes[x] for f in tidy for x in f.coefficients if x not in loops}
    hidden, tidy = _merge(hidden, tidy)
    sizes = {**sizes, **hidden}
    tidy, left = _eliminate(tidy, list(hidden), sizes)
    exact = True
    if tidy is not None and left:
        seen = [x for x in loops if any(x in f.coefficients for f in tidy)]
        if prod(sizes[x] for x in (*seen, *left)) <= MAX_WITNESSES:
            free = prod(sizes[x] for x in loops if x not in seen)
            return free * _witnessed(tidy, seen, left, sizes), True
        exact = False
        for x in left:
            tidy = _tidy(_without(tidy, x, sizes)[0], sizes) if tidy is not None else None
    if tidy is None:
        return 0, True
    return _visible(tidy, loops, sizes), exact


def _visible(forms: list[Linear], loops: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Points of the box of ``loops`` that meet every form; coordinates that no form couples are counted apart."""
    coupled, merged = _merge({x: sizes[x] for x in loops if any(x in f.coefficients for f in forms)}, forms)
    total = prod(sizes[x] for x in loops if not any(x in f.coefficients for f in forms))
    while coupled:
        part = {next(iter(coupled))}
        while grown := {x for f in merged if part & f.coefficients.keys() for x in f.coefficients} - part:
            part |= grown
        total *= _enumerate(
            [f for f in merged if part & f.coefficients.keys()], {x: coupled.pop(x) for x in sorted(part)}
        )
    return total


def _tidy(forms: Sequence[Linear], sizes: Mapping[str, int]) -> list[Linear] | None:
    """The forms that say something, in lowest terms, the tightest of each; None if they cannot be met."""
    tightest: dict[tuple[tuple[str, int], ...], int] = {}
    for form in forms:
        coefficients = {x: c for x, c in form.coefficients.items() if c and sizes[x] > 1}
        divisor = gcd(*coefficients.values()) if coefficients else 1
        constant = -(-form.constant // divisor)
        coefficients = {x: c // divisor for x, c in coefficients.items()}
        reach = [c * (sizes[x] - 1) for x, c in coefficients.items()]
        if constant + sum(x for x in reach if x > 0) <= 0:
            continue
        if constant + sum(x for x in reach if x < 0) > 0:
            return None
        key = tuple(sorted(coefficients.items()))
        tightest[key] = max(constant, tightest.get(key, constant))
    return [Linear(dict(key), constant) for key, constant in tightest.items()]


def _eliminate(
    forms: list[Linear] | None, hidden: list[str], sizes: Mapping[str, int]
) -> tuple[list[Linear] | None, list[str]]:
    """Forms without those ``hidden`` coordinates whose elimination is exact, and the coordinates left."""
    while forms is not None:
        hidden = [x for x in hidden if any(x in f.coefficients for f in forms)]
        best: list[Linear] | None = None
        gone = ""
        for x in hidden:
            found, exact = _without(forms, x, sizes)
            if exact and (best is None or len(found) < len(best)):
                best, gone = found, x
        if best is None:
            break
        forms, hidden = _tidy(best, sizes), [x for x in hidden if x != gone]
    return forms, hidden


def _without(forms: Sequence[Linear], x: str, sizes: Mapping[str, int]) -> tuple[list[Linear], bool]:
    """What the forms say of the other coordinates when some whole ``x`` in its range meets them; is that exact?"""
    result = [f for f in forms if x not in f.coefficients]
    bounds = [f for f in forms if x in f.coefficients] + [Linear({x: -1}, 0), Linear({x: 1}, 1 - sizes[x])]
    exact = True
    for low in bounds:
        for high in bounds:
            a, b = -low.coefficients[x], high.coefficients[x]
            if a <= 0 or b <= 0:
                continue
            both = _sum(_scaled(low, b), _scaled(high, a))
            if a > 1 and b > 1 and _bounds(both, sizes)[1] + (a - 1) * (b - 1) > 0:
                exact = False
            result.append(both)
    return result, exact


def _witnessed(forms: list[Linear], seen: Sequence[str], hidden: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Points of ``seen`` for which some ``hidden`` coordinates meet every form, by trying them all."""
    names = [*seen, *hidden]
    axes = dict(zip(names, np.ogrid[tuple(slice(0, sizes[x]) for x in names)], strict=True))
    met = np.ones([sizes[x] for x in names], dtype=bool)
    for form in forms:
        met &= sum((c * axes[x] for x, c in form.coefficients.items()), np.int64(form.constant)) <= 0
    return int(met.any(axis=tuple(range(len(seen), len(names)))).sum())


def _merge(sizes: dict[str, int], forms: list[Linear]) -> tuple[dict[str, int], list[Linear]]:
    """Join an outer and an inner coordinate that only occur as ``outer * size(inner) + inner``."""
    changed = True
    while changed:
        changed = False
        for outer in list(sizes):
            for inner in list(sizes):
                if outer == inner or not all(
                    f.coefficients.get(outer, 0) == f.coefficients.get(inner, 0) * sizes[inner] for f in forms
                ):
                    continue
                sizes = {x: n * (sizes[outer] if x == inner else 1) for x, n in sizes.items() if x != outer}
                forms = [Linear({x: c for x, c in f.coefficients.items() if x != outer}, f.constant) for f in forms]
                changed = True
                break
            if changed:
                break
    return sizes, forms


def _enumerate(forms: list[Linear], sizes: dict[str, int]) -> int:
    """Points of a box that meet every form: all coordinates but the longest are enumerated, that one solved for."""
    solved = max(sizes, key=lambda x: sizes[x])
    others = [x for x in sizes if x != solved]
    total = prod(sizes[x] for x in others)
    if total > MAX_ENUMERATED:
        raise InputError(
            f"conditions over {', '.join(sizes)} leave {total} combinations to count",
            expected=f"at most {MAX_ENUMERATED}",
        )
    result = 0
    for start in range(0, total, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, total), dtype=np.int64)
        coordinates = (
            dict(zip(others, np.unravel_index(index, [sizes[x] for x in others]), strict=True)) if others else {}
        )
        low = np.zeros(len(index), dtype=np.int64)
        high = np.full(len(index), sizes[solved] - 1, dtype=np.int64)
        for form in forms:
            rest = np.full(len(index), form.constant, dtype=np.int64)
            for x in others:
                if c := form.coefficients.get(x, 0):
                    rest += c * coordinates[x]
            c = form.coefficients.get(solved, 0)
            if c > 0:
                high = np.minimum(high, -rest // c)
            elif c < 0:
                low = np.maximum(low, -(-rest // -c))
            else:
                high = np.where(rest <= 0, high, -1)
        result += int(np.maximum(high - low + 1, 0).sum())
    return result
