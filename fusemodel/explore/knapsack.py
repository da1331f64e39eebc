"""The best place for every tensor together, under the capacity of each level: exact.

Costs add up over tensors, and latency is the largest of sums, so partial choices that are worse in every sum can be
dropped (a multiple-choice knapsack by dominance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.explore.choices import Choices, Floats

Score = tuple[float, ...]


@dataclass(frozen=True)
class Taken:
    """The index of each tensor's place, the combination of sizes, and the score."""

    places: dict[str, int]
    at: int
    score: Score


def best_of(
    found: Choices, arch: Architecture, objectives: Sequence[str], beat: Score | None = None
) -> tuple[Taken | None, int]:
    """The best mix of places over all combinations of sizes, if it beats a score, and how many combinations had to be
    looked into."""
    table = _Table(found, arch, objectives)
    loose = table.loose()
    looked = 0
    best: Taken | None = None
    for at in np.lexsort(loose.T[::-1]):
        bound = tuple(loose[at])
        if not np.isfinite(bound).all() or (beat is not None and not less(bound, beat)):
            break
        looked += 1
        taken = table.tight(int(at))
        if taken and (beat is None or less(taken.score, beat)):
            best, beat = taken, taken.score
    return best, looked


def less(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a score is better: the first entry that differs by more than rounding decides."""
    for x, y in zip(a, b, strict=True):
        if x < y * (1 - 1e-9):
            return True
        if x > y * (1 + 1e-9):
            return False
    return False


class _Table:
    """Costs as columns: unheld, words of every level with a bandwidth, words of the outermost level, energy, and space
    at every level with a size."""

    def __init__(self, found: Choices, arch: Architecture, objectives: Sequence[str]) -> None:
        self.found, self.arch, self.objectives = found, arch, objectives
        self.timed = [n for n, lv in arch.levels.items() if lv.bandwidth_bytes_per_s]
        self.sized = [n for n, lv in arch.levels.items() if lv.size_bytes is not None]
        self.capacity = np.array([(arch.levels[n].size_bytes or 0.0) / arch.word_bytes for n in self.sized])
        self.per_word = np.array([
            arch.word_bytes / (arch.levels[n].bandwidth_bytes_per_s or np.inf) * arch.clock_hz for n in self.timed
        ])  # fmt: skip
        self.names = list(found.tensors)
        self.costs = [
            np.stack([
                c.unheld, *(c.words[n] for n in self.timed), c.words[arch.outermost], c.energy_pj,
                *(c.space[n] for n in self.sized),
            ])
            for c in found.tensors.values()
        ]  # fmt: skip
        self.plain = 3 + len(self.timed)  # columns that are no space

    def score(self, sums: Floats, at: int | slice) -> Floats:
        """Unheld and the objectives for sums of columns (axis 0)."""
        t = len(self.timed)
        latency = np.asarray(self.found.cycles[at], dtype=float)
        for k in range(t):
            latency = np.maximum(latency, sums[1 + k] * self.per_word[k])
        energy = sums[2 + t] + self.found.energy_pj[at]
        of = {"latency": latency, "dram": sums[1 + t], "energy": energy, "edp": latency * energy}
        return np.stack([sums[0], *(np.broadcast_to(of[o], sums[0].shape) for o in self.objectives)], axis=-1)

    def loose(self) -> Floats:
        """A lower bound for every combination: every cost of every tensor at its least, as if there was space."""
        least = sum(c[: self.plain].min(axis=1) for c in self.costs)
        return self.score(np.asarray(least), slice(None))

    def tight(self, at: int) -> Taken | None:
        """The best mix for one combination; None if nothing fits."""
        states = np.zeros((1, self.costs[0].shape[0]))
        chosen = np.zeros((1, 0), dtype=np.int64)
        left = [c[self.plain :, :, at].min(axis=1) for c in self.costs]
        rest = np.cumsum(np.array(left)[::-1], axis=0)[::-1] if len(self.sized) else np.zeros((len(self.costs), 0))
        for i, cost in enumerate(self.costs):
            options = cost[:, :, at].T
            usable = np.flatnonzero(np.isfinite(options).all(axis=1))
            usable = usable[_front(options[usable])]
            grown = (states[:, None, :] + options[usable][None, :, :]).reshape(-1, states.shape[1])
            kept = np.concatenate(
                [np.repeat(chosen, len(usable), axis=0), np.tile(usable, len(states))[:, None]], axis=1
            )
            room = self.capacity - (rest[i + 1] if i + 1 < len(rest) else 0.0)
            fits = (grown[:, self.plain :] <= room * (1 + 1e-12)).all(axis=1)
            grown, kept = grown[fits], kept[fits]
            if not len(grown):
                return None
            front = _front(grown)
            states, chosen = grown[front], kept[front]
        scores = self.score(states.T, at)
        first = int(np.lexsort(scores.T[::-1])[0])
        return Taken(dict(zip(self.names, map(int, chosen[first]), strict=True)), at, tuple(map(float, scores[first])))


def _front(rows: Floats) -> np.ndarray:
    """Indices of the rows that no other row is as good as in every column; the first of equals."""
    order = np.lexsort(rows.T[::-1])
    kept: list[int] = []
    for i in order:
        if not kept or not (rows[kept] <= rows[i]).all(axis=1).any():
            kept.append(int(i))
    return np.array(kept, dtype=np.int64)
