"""How far predictions are from measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Errors:
    """Of ``points``: mean, median and 90th percentile of the absolute relative error and the median signed one, all in
    percent; and Kendall's tau-b."""

    points: int
    mape: float
    median_ape: float
    p90_ape: float
    bias: float
    kendall_tau: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "points": self.points, "mape": self.mape, "median_ape": self.median_ape, "p90_ape": self.p90_ape,
            "bias": self.bias, "kendall_tau": self.kendall_tau,
        }  # fmt: skip


def errors_of(predicted: Floats, measured: Floats) -> Errors:
    """The errors of some points; at least one."""
    signed = predicted / measured - 1
    off = np.abs(signed)
    return Errors(
        len(measured), 100 * float(off.mean()), 100 * float(np.median(off)), 100 * float(np.percentile(off, 90)),
        100 * float(np.median(signed)), kendall_tau(predicted, measured),
    )  # fmt: skip


def kendall_tau(a: Floats, b: Floats) -> float | None:
    """Kendall's tau-b (Kendall, Biometrika 1945), by counting inversions (Knight, JASA 1966); None where one of them is
    constant or there are fewer than two points."""
    n = len(a)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    pairs = n * (n - 1) // 2
    new_a = a[1:] != a[:-1]
    tied_a, tied_b, both = _tied(new_a), _tied(np.diff(np.sort(b)) != 0), _tied(new_a | (b[1:] != b[:-1]))
    ways = (pairs - tied_a) * (pairs - tied_b)
    if ways <= 0:
        return None
    discordant = _inversions(b)
    return float((pairs - tied_a - tied_b + both - 2 * discordant) / np.sqrt(float(ways)))


def _tied(new: NDArray[np.bool_]) -> int:
    """Pairs of equals in order, by where each value but the first differs from the one before it."""
    counts = np.diff(np.flatnonzero(new), prepend=-1, append=len(new))
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Floats) -> int:
    """Pairs that stand in the wrong order: those that the highest bit of their ranks tells apart, then, among equals in
    it, the next one."""
    ranks = np.unique(values, return_inverse=True)[1].astype(np.int64)
    total, at = 0, np.arange(len(ranks))
    for bit in reversed(range(int(ranks.max()).bit_length())):
        group, one = ranks >> (bit + 1), (ranks >> bit) & 1
        first = np.flatnonzero(np.diff(group, prepend=-1))
        size = np.diff(first, append=len(ranks))
        start = np.repeat(first, size)
        ones = np.cumsum(one) - one
        ones -= ones[start]  # before each, in its group
        zeros = np.repeat(size - np.add.reduceat(one, first), size)
        total += int(ones[one == 0].sum())
        ordered = np.empty_like(ranks)
        ordered[start + np.where(one == 1, zeros + ones, at - start - ones)] = ranks
        ranks = ordered
    return total


#: How points are grouped, besides all together: by columns and by what the tables show of them.
def groups_of(columns: Mapping[str, NDArray[Any]]) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Masks of the groups that are reported, by what they are grouped by and their value, in order."""
    found: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for by, values in columns.items():
        for value in sorted({v for v in values.tolist() if v == v and v != ""}, key=lambda v: (isinstance(v, str), v)):
            found[by, f"{value:g}" if isinstance(value, float) else str(value)] = values == value
    return found


__all__ = ["Errors", "errors_of", "groups_of", "kendall_tau"]
