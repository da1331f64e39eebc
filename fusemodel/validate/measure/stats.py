"""Statistics of samples and of repeated points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Of samples in microseconds."""

    median_us: float
    p10_us: float
    p90_us: float
    n: int


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, by linear interpolation between order statistics (Hyndman and Fan, type 7)."""
    ordered = sorted(values)
    if not ordered or not all(math.isfinite(v) for v in ordered):
        raise ValueError("quantiles need finite values, one at least")
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def summarise(samples_us: Sequence[float]) -> Summary:
    """Median, 10th and 90th percentile and number of some samples. ValueError where one is not a positive time."""
    if any(not s > 0 for s in samples_us):
        raise ValueError("a time is not positive")
    return Summary(quantile(samples_us, 0.5), quantile(samples_us, 0.1), quantile(samples_us, 0.9), len(samples_us))


@dataclass(frozen=True, slots=True)
class Drift:
    """Second against first measurements of the same points: changes in per cent, relative to the first."""

    points: int
    median_pct: float
    median_abs_pct: float
    max_abs_pct: float


def drift(first_us: Sequence[float], again_us: Sequence[float]) -> Drift | None:
    """How far repeated points moved; None where nothing was repeated."""
    changes = [100 * (b / a - 1) for a, b in zip(first_us, again_us, strict=True)]
    if not changes:
        return None
    sizes = [abs(c) for c in changes]
    return Drift(len(changes), quantile(changes, 0.5), quantile(sizes, 0.5), max(sizes))
