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
    tied_a, tied_b = _tied(a), _tied(np.sort(b))
    both = _tied_pairs(a, b)
    ways = (pairs - tied_a) * (pairs - tied_b)
    if ways <= 0:
        return None
    discordant = _inversions(b)
    return float((pairs - tied_a - tied_b + both - 2 * discordant) / np.sqrt(float(ways)))


def _tied(ordered: Floats) -> int:
    counts = np.unique(ordered, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _tied_pairs(a: Floats, b: Floats) -> int:
    counts = np.unique(np.stack([a, b]), axis=1, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Floats) -> int:
    """Pairs that stand in the wrong order, by merging."""
    ranks = np.unique(values, return_inverse=True)[1]
    total, width, n = 0, 1, len(ranks)
    while width < n:
        block = np.arange(n) // (2 * width)
        right = (np.arange(n) // width) % 2 == 1
        order = np.lexsort((right, ranks, block))  # left before right among equals
        from_right = right[order]
        lefts = np.cumsum(~from_right)
        starts = np.searchsorted(block[order], np.arange(block[-1] + 1))
        before = np.concatenate([[0], lefts])[starts]
        whole = np.bincount(block[order], weights=~from_right).astype(np.int64)
        seen = lefts - before[block[order]]
        total += int((whole[block[order]] - seen)[from_right].sum())
        ranks = ranks[order]
        width *= 2
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
