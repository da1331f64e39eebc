"""Counting the tiles of a band of pairs in closed form, for arrays of sizes.

A pair (row, column) is in the band if ``row - below <= scale * column <= row + above``: a causal mask, a sliding
window, or both, perhaps with ``scale`` rows to each position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
_SAMPLED = 64


@dataclass(frozen=True, slots=True)
class Band:
    """``rows`` x ``columns`` pairs; those with ``row - below <= scale * column <= row + above`` are present."""

    rows: Array
    columns: Array
    above: Array
    below: Array
    scale: Array = 1

    def tiles(self, row_size: Array, column_size: Array) -> Array:
        """Tiles of ``row_size`` x ``column_size`` pairs with some pair present, float64."""
        p, m, above, below, a, c, k = self._integers(row_size, column_size)
        last = -(-p // a) - 1
        first = np.maximum(-((a - 1 + above) // a), 0)  # the first block of rows that reaches a column at all
        end = np.minimum(last, (m - 1 + below) // a + 1)
        full = np.maximum(-((above - m + a) // a), first)  # from here the last column is reached
        started = np.maximum(below // a + 1, first)  # from here the first column is not
        full, started = np.minimum(full, end), np.minimum(started, end)
        some = end > first
        tops = _floor_sums(first, full, a, a - 1 + above, c) + np.maximum(end - np.maximum(full, first), 0) * (
            (m - 1) // c
        )
        bottoms = _floor_sums(started, end, a, -below, c)
        total = np.where(some, tops - bottoms + end - first, 0)
        return (total + self._wide(last, p, m, above, below, a, c, k)).astype(np.float64)

    def longest(self, row_size: Array, column_size: Array) -> Array:
        """The most tiles that one block of ``row_size`` rows has: exact where there are few blocks or their first
        column is 0, else where every alignment of a block occurs."""
        p, m, above, below, a, c, k = self._integers(row_size, column_size)
        last = -(-p // a) - 1
        most = np.maximum(
            self._wide(last, p, m, above, below, a, c, k), self._wide(last * 0, p, m, above, below, a, c, k)
        )
        windowed = below + k <= p - 1
        last, p, m, above, below, a, c, k = (v[windowed] for v in (last, p, m, above, below, a, c, k))
        widest = most[windowed]
        for i in range(1, _SAMPLED - 1):
            widest = np.maximum(widest, self._wide(i * last // (_SAMPLED - 1), p, m, above, below, a, c, k))
        step = np.gcd(a, c)
        furthest = c - step + (-below) % step
        every = np.minimum((np.maximum(a - 1 + above + below, 0) + furthest) // c + 1, -(-m // c))
        most[windowed] = np.where(last >= _SAMPLED, np.maximum(widest, every), widest)
        return most.astype(np.float64)

    def _integers(self, row_size: Array, column_size: Array) -> tuple[Array, ...]:
        """Sizes in units of ``1 / scale`` of a column, in which a column is ``scale`` wide."""
        p, k = np.asarray(self.rows, np.int64), np.asarray(self.scale, np.int64)
        m = np.asarray(self.columns, np.int64) * k
        above = np.minimum(self.above, m).astype(np.int64)
        below = np.minimum(self.below, p + k).astype(np.int64) - (k - 1)
        a = np.minimum(row_size, p).astype(np.int64)
        c = np.minimum(column_size, self.columns).astype(np.int64) * k
        return tuple(np.broadcast_arrays(p, m, above, below, a, c, k))

    @staticmethod
    def _wide(i: Array, p: Array, m: Array, above: Array, below: Array, a: Array, c: Array, k: Array) -> Array:
        """Tiles of one block of rows."""
        top = np.minimum(np.minimum((i + 1) * a, p) - 1 + above, m - 1)
        bottom = np.maximum(i * a - below, 0)
        return np.where(top // k >= bottom // k, top // c - bottom // c + 1, 0)


def _floor_sums(start: Array, end: Array, slope: Array, offset: Array, divisor: Array) -> Array:
    """The sum over i from ``start`` to ``end`` - 1 of floor((slope i + offset) / divisor), where the numerators are not
    negative; by the Euclidean algorithm (Graham, Knuth, Patashnik, *Concrete Mathematics*, section 3.5)."""
    n = np.maximum(end - start, 0)
    a, m = slope.copy(), divisor.copy()
    b = np.where(n > 0, slope * start + offset, 0)
    total = np.zeros_like(n)
    while np.any(n > 0):
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        most = a * n + b
        n, b = most // m, most % m
        a, m = m, np.maximum(a, 1)
        n = np.where(most < a, 0, n)
    return total
