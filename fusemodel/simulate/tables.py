"""Cycles and words of single firings, where conditions make them differ: counted once for each class of firings.

A condition is a linear form of the coordinates. While the lowered loops stand still its outer part is a number; beyond
where the inner coordinates can change its truth that number does not matter, so there are few classes however long the
loops are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import gcd, prod

import numpy as np

from fusemodel.model.forms import Form, Linear, bounds_of
from fusemodel.simulate.tasks import Table

#: Classes counted at most; beyond, every firing is given the mean.
MAX_CLASSES = 4096

Pieces = Sequence[Sequence[Form]]


def table_of(
    pieces: Pieces,
    loops: Sequence[str],
    sizes: Mapping[str, int],
    counted: Callable[[list[list[Form]]], float | None],
    firsts: Sequence[str] = (),
    lasts: Sequence[str] = (),
) -> Table | None:
    """Amounts by class of the steps of ``loops``: ``counted`` is given the pieces with their steps put in. At steps
    of ``firsts`` that are not the first one, or of ``lasts`` that are not the last, there is nothing. None where the
    classes are too many, or depend on more than linear forms."""
    outer = set(loops)
    axes: dict[tuple[tuple[int, ...], int], tuple[int, int]] = {}
    for piece in pieces:
        for form in piece:
            if not outer & form.coefficients.keys():
                continue
            if not isinstance(form, Linear):
                return None
            key, least, most = _axis(form, loops, sizes)
            low, high = axes.get(key, (least, most))
            axes[key] = min(low, least), max(high, most)
    ends = [(x, 0) for x in firsts if sizes[x] > 1] + [(x, 1) for x in lasts if sizes[x] > 1]
    names = list(axes)
    shape = [axes[k][1] - axes[k][0] + 1 for k in names]
    if prod(shape) * 2 ** len(ends) > MAX_CLASSES:
        return None
    values = np.zeros(shape, dtype=np.float64)
    for at in product(*(range(n) for n in shape)):
        outside = {k: axes[k][0] + i for k, i in zip(names, at, strict=True)}
        found = counted(_put_in(pieces, loops, outside))
        if found is None:
            return None
        values[at] = found
    coefficients = [list(c) for c, _ in names]
    constants, least = [0] * len(names), [axes[k][0] for k in names]
    for x, last in ends:
        unit = [int(y == x) for y in loops]
        other = np.zeros_like(values)
        values = np.stack([other, values] if last else [values, other], axis=-1)
        coefficients.append(unit)
        constants.append(-(sizes[x] - 2) if last else 0)
        least.append(0)
    return Table(values, tuple(map(tuple, coefficients)), tuple(constants), tuple(least))


def _axis(form: Linear, loops: Sequence[str], sizes: Mapping[str, int]):
    """The outer part of a form, and between which values of it (less where it is always met, more where it never is)
    the inner coordinates matter."""
    outer = {x: c for x, c in form.coefficients.items() if x in loops}
    inner = Linear({x: c for x, c in form.coefficients.items() if x not in loops}, form.constant)
    low, high = bounds_of(inner, sizes)
    g = 0
    for c in outer.values():
        g = gcd(g, c)
    key = (tuple(outer.get(x, 0) // g for x in loops), g)
    least, most = -high // g, -((low - 1) // g)  # g * least <= -high: met; g * most >= 1 - low: not met
    reach = bounds_of(Linear({x: c // g for x, c in outer.items()}, 0), sizes)
    least, most = max(least, reach[0]), min(most, reach[1])
    if least > most:  # always or never met, wherever the loops stand
        least = most = min(max(least, reach[0]), reach[1])
    return key, least, most


def _put_in(
    pieces: Pieces, loops: Sequence[str], outside: Mapping[tuple[tuple[int, ...], int], int]
) -> list[list[Form]]:
    found: list[list[Form]] = []
    for piece in pieces:
        forms: list[Form] = []
        for form in piece:
            outer = {x: c for x, c in form.coefficients.items() if x in loops} if isinstance(form, Linear) else {}
            if not outer:
                forms.append(form)
                continue
            g = 0
            for c in outer.values():
                g = gcd(g, c)
            key = (tuple(outer.get(x, 0) // g for x in loops), g)
            inner = {x: c for x, c in form.coefficients.items() if x not in loops}
            forms.append(Linear(inner, form.constant + g * outside[key]))  # type: ignore[union-attr]
        found.append(forms)
    return found


def total_of(table: Table, sizes: Sequence[int]) -> float:
    """The sum over every step of the loops; counted once for each table and sizes."""
    if tuple(sizes) not in table.totals:
        table.totals[tuple(sizes)] = _total(table, sizes)
    return table.totals[tuple(sizes)]


def _total(table: Table, sizes: Sequence[int]) -> float:
    if not table.coefficients:
        return float(table.values) * prod(sizes)
    used = [i for i in range(len(sizes)) if any(c[i] for c in table.coefficients)] or [0]
    rest = prod(n for i, n in enumerate(sizes) if i not in used)
    first, *inner = used
    total = 0.0
    axes = np.ogrid[tuple(slice(0, sizes[i]) for i in inner)] if inner else []
    shape = tuple(sizes[i] for i in inner)
    for step in range(sizes[first]):
        place = np.zeros(shape, dtype=np.int64)
        for c, constant, low, n in zip(
            table.coefficients, table.constants, table.least, table.values.shape, strict=True
        ):
            value = constant + c[first] * step
            value = value + sum((c[i] * axis for i, axis in zip(inner, axes, strict=True)), np.int64(0))
            place = place * n + np.clip(value - low, 0, n - 1)
        total += float(table.values.reshape(-1)[place].sum())
    return total * rest
