"""What a search is after: one score by objectives in order, or a front of several objectives together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusemodel.explore.front import Floats, front

#: What adds up over groups (the space taken is the largest of them).
METRICS = ("unheld", "latency", "dram", "energy", "buffer")
_TOLERANCE = 1e-9  # scores closer than this are equal
_FEW = 400


def less(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a score is better: the first entry that differs by more than rounding decides."""
    for x, y in zip(a, b, strict=True):
        if x < y * (1 - _TOLERANCE):
            return True
        if x > y * (1 + _TOLERANCE):
            return False
    return False


def added(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    """The metrics of groups that run one after another."""
    return (*(x + y for x, y in zip(a[:-1], b[:-1], strict=True)), max(a[-1], b[-1]))


@dataclass(frozen=True)
class Goal:
    """``objectives`` in order, after what registers cannot hold; ``front`` objectives together."""

    objectives: tuple[str, ...]
    front: tuple[str, ...] = ()

    @property
    def lexical(self) -> bool:
        """Whether scores are compared entry by entry and add up: then one mapping of each group is enough."""
        return not self.front and not {"edp", "buffer"} & set(self.objectives)

    @property
    def keys(self) -> list[int]:
        """The metrics that matter together, where one mapping of each group is not enough."""
        wanted = {"unheld", *self.objectives, *self.front}
        wanted |= {"latency", "energy"} if "edp" in wanted else set()
        return [i for i, m in enumerate(METRICS) if m in wanted]

    def value(self, metrics: Floats, objective: str) -> Floats:
        """An objective of rows of metrics."""
        if objective == "edp":
            return metrics[..., METRICS.index("latency")] * metrics[..., METRICS.index("energy")]
        return metrics[..., METRICS.index(objective)]

    def scores(self, metrics: Floats) -> Floats:
        return np.stack([metrics[..., 0], *(self.value(metrics, o) for o in self.objectives)], axis=-1)

    def score(self, metrics: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(x) for x in self.scores(np.array(metrics, dtype=float)))


@dataclass
class Best:
    """The best metrics so far, each with what they belong to: one, or a front."""

    goal: Goal
    points: list[tuple[tuple[float, ...], object]] = field(default_factory=list)

    def open(self, bounds: Floats) -> NDArray[np.bool_]:
        """Which rows of metrics, as lower bounds, may still belong to something better."""
        alive: NDArray[np.bool_] = np.asarray(np.isfinite(bounds).all(axis=1))
        if not self.points:
            return alive
        if self.goal.lexical:
            mine = self.goal.scores(np.array(self.points[0][0]))
            theirs = self.goal.scores(bounds)
            better = np.asarray(theirs < mine * (1 - _TOLERANCE))
            worse = np.asarray(theirs > mine * (1 + _TOLERANCE))
            decided = better | worse
            first = np.argmax(decided, axis=1)
            return alive & np.logical_or.reduce(decided, axis=1) & better[np.arange(len(bounds)), first]
        keys = self.goal.keys
        held = np.array([p for p, _ in self.points])[:, keys]
        for start in range(0, len(bounds), _FEW):
            part = bounds[start : start + _FEW][:, keys]
            good = np.asarray((held[None] <= part[:, None] * (1 + _TOLERANCE)).all(axis=2))
            beaten = np.logical_or.reduce(good, axis=1)
            alive[start : start + _FEW] &= ~beaten
        return alive

    def offer(self, metrics: Floats, owners: list[object]) -> bool:
        """Take those rows that are better than what is there; whether some are."""
        rows = np.flatnonzero(self.open(metrics))
        if not len(rows):
            return False
        if self.goal.lexical:
            scores = self.goal.scores(metrics[rows])
            first = int(rows[np.lexsort(scores.T[::-1])[0]])
            self.points = [(tuple(map(float, metrics[first])), owners[first])]
            return True
        every = [*self.points, *((tuple(map(float, metrics[i])), owners[i]) for i in map(int, rows))]
        kept = front(np.array([p for p, _ in every])[:, self.goal.keys])
        self.points = [every[i] for i in sorted(kept)]
        return True
