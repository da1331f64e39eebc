"""A 2D array at the level of its processing elements: operands enter skewed, results leave after fill and drain.

Element (x, y) keeps one point of a tile and receives the operand of its row from (x, y - 1) and that of its column from
(x - 1, y), each a cycle later (Kung, "Why systolic architectures?", Computer 1982). Two tasks are modelled: products
accumulated in place while the inner dimension streams through, and a spatial reduction down the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArrayRun:
    """The values that leave the array, and cycles: until the last operation (``cycles``), of which the array is being
    filled (``fill``), that is until the element farthest from the edges has its first operands. ``busy`` counts the
    operations done."""

    values: Floats
    cycles: int
    fill: int
    busy: int


def product(a: Any, b: Any) -> ArrayRun:
    """``a[x, e] * b[e, y]`` summed over e, one step of e a cycle: x rows and y columns of elements, output-stationary.

    A task of E steps takes E cycles at every element; skew adds x - 1 + y - 1 before the last one begins. Tasks that
    follow each other enter without a gap, so that in a pipeline each costs E: what the tile-level simulator charges.
    """
    left, right = np.ascontiguousarray(a, dtype=np.float64), np.ascontiguousarray(b, dtype=np.float64)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"shapes {left.shape} and {right.shape} do not make a product of x, e and e, y")
    out = np.zeros((left.shape[0], right.shape[1]))
    cycles, busy = _product(left, right, out)
    return ArrayRun(out, int(cycles), left.shape[0] + right.shape[1] - 2, int(busy))


def reduction(values: Any, op: str = "sum") -> ArrayRun:
    """``values[x, y]`` reduced over y: a partial result moves one element down each column a cycle, and leaves after as
    many cycles as the column is long, the drain that the tile-level simulator charges. ``op`` is ``sum`` or ``max``."""
    if op not in ("sum", "max"):
        raise ValueError(f"operation {op!r} is not sum or max")
    tile = np.ascontiguousarray(values, dtype=np.float64)
    out = np.zeros(tile.shape[0])
    cycles, busy = _reduction(tile, out, op == "max")
    return ArrayRun(out, int(cycles), 0, int(busy))


@njit(cache=True)
def _product(a, b, out):  # pragma: no cover - compiled
    """Cycle by cycle: operands move first, then every element that has both multiplies and adds."""
    rows, steps = a.shape
    columns = b.shape[1]
    left = np.zeros((rows, columns))
    right = np.zeros((rows, columns))
    at = np.full((rows, columns), -1, dtype=np.int64)  # the step whose operands an element holds
    cycles = rows + columns - 2 + steps
    busy = 0
    for cycle in range(cycles):
        for x in range(rows - 1, -1, -1):
            for y in range(columns - 1, -1, -1):
                e = cycle - x - y
                if e < 0 or e >= steps:
                    at[x, y] = -1
                    continue
                left[x, y] = left[x, y - 1] if y > 0 else a[x, e]
                right[x, y] = right[x - 1, y] if x > 0 else b[e, y]
                at[x, y] = e
        for x in range(rows):
            for y in range(columns):
                if at[x, y] >= 0:
                    out[x, y] += left[x, y] * right[x, y]
                    busy += 1
    return cycles, busy


@njit(cache=True)
def _reduction(values, out, largest):  # pragma: no cover - compiled
    """Partial results move down the columns, one element a cycle."""
    rows, columns = values.shape
    busy = 0
    for x in range(rows):
        out[x] = -np.inf if largest else 0.0
    for cycle in range(columns):
        for x in range(rows):
            v = values[x, cycle]
            out[x] = max(out[x], v) if largest else out[x] + v
            busy += 1
    return columns, busy
