"""The best layouts and places together, under the capacity of each level: exact.

Costs add up over nests and tensors, and latency is the largest of sums, so partial choices that are worse in every sum
can be dropped (a multiple-choice knapsack by dominance: :mod:`fusemodel.explore.tight`). Which level serves a tensor is
remembered while Einsums that use it are still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.explore.columns import OptionCost, Place, Priced
from fusemodel.explore.frame import Frame, Scene
from fusemodel.explore.front import Floats
from fusemodel.explore.states import Label, Mixed, Spill

_PRICES = 30
_EARLY = 0.02  # of what places may add in words of the outermost level


class Mix:
    """All choices of one frame and order. ``chains``: tensors that may take the place of another, by tensor;
    ``depth``: tiles in flight where all Einsums run side by side; ``floor``: cycles that the frame takes at least;
    ``room``: words that registers may hold between Einsums.
    """

    def __init__(
        self, scene: Scene, frame: Frame, costs: Priced, later: frozenset[str], chains: dict[str, str],
        depth: float, floor: float, room: float,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self.floor, self.check = floor, check
        self.scene, self.frame, self.costs, self.later, self.chains = scene, frame, costs, later, chains
        self.columns = costs.columns
        arch = scene.arch
        self.capacity = np.array([
            *(min(arch.levels[n].size_bytes or 0.0, frame.room(n)) / arch.word_bytes for n in self.columns.sized),
            room,
        ])  # fmt: skip
        self.per_word = np.array([
            arch.word_bytes / (arch.levels[n].bandwidth_bytes_per_s or np.inf) * arch.clock_hz
            for n in self.columns.timed
        ])  # fmt: skip
        self.piped = costs.steps >= depth
        used = [{t for n in nest for t in scene.used(n)} for nest in frame.nests]
        self.opens: list[list[str]] = []
        seen: set[str] = set()
        for i, nest in enumerate(frame.nests):
            new = [t for t in dict.fromkeys(t for n in nest for t in scene.used(n)) if t not in seen]
            self.opens.append(sorted(new, key=lambda t: t in chains))
            seen |= used[i]
        self.last = {t: max(i for i, u in enumerate(used) if t in u) for t in seen}
        self.follower = {a: b for b, a in chains.items()}
        self.nests = [[t for t in self.last if t in u] for u in used]
        self.labels = {t: self._labels(t) for t in self.last}
        self.plain = {t: self._plain(x) for t, x in self.labels.items()}
        self.base = [np.array([o.base for o in mine]) for mine in costs.options]
        self.near, self.far = self._tables()
        self.cheapest = {key: table.min(axis=0) for key, table in self.near.items()}
        self.reserve = {t: self._reserve(t, self.cheapest) for t in self.last}
        self.numbers = {t: self._numbers(t) for t in self.last}
        self.value = {t: cost.columns + self.reserve[t][self.numbers[t][:, 0]] for t, cost in costs.tensors.items()}
        self.decisions = self._order()
        self.least = self._least()

    def _labels(self, tensor: str) -> list[Label]:
        found: dict[Label, None] = {}
        for place in self.costs.tensors[tensor].places:
            found |= {self.label(tensor, place, spilt): None for spilt in (False, True)}
        held = [replace(label, place=None) for label in found]
        return list(dict.fromkeys([*found, *held]))

    def label(self, tensor: str, place: Place, spilt: bool) -> Label:
        """The levels that serve the Einsum that makes a tensor and those that read it, and what else matters."""
        level = place.shared[-1][0] if place.shared else None
        outer = self.scene.arch.outermost
        writer = level or (outer if tensor in self.later or tensor in self.scene.cascade.outputs else None)
        reader = level or (None if tensor in self.frame.members else outer)
        return Label(writer, reader, place.own, spilt, place if tensor in self.follower else None)

    def _numbers(self, tensor: str) -> np.ndarray:
        """The labels of each place: without and with a spill."""
        number = {label: i for i, label in enumerate(self.labels[tensor])}
        places = self.costs.tensors[tensor].places
        return np.array([[number[self.label(tensor, p, spilt)] for spilt in (False, True)] for p in places])

    @staticmethod
    def _plain(labels: list[Label]) -> np.ndarray:
        """For each label, the one without a place."""
        return np.array([labels.index(replace(label, place=None)) for label in labels], dtype=np.int64)

    def _tables(self) -> tuple[dict[tuple[int, str], Floats], dict[tuple[int, str], Floats]]:
        """For each nest and tensor, the columns that its use adds (option, label, column, size); then the same where
        what may spill has spilt. Infinite where it cannot be."""
        near, far = {}, {}
        for b, tensors in enumerate(self.nests):
            for t in tensors:
                pairs = [[self._used(o, b, t, label) for label in self.labels[t]] for o in self.costs.options[b]]
                near[b, t] = np.array([[x for x, _ in mine] for mine in pairs])
                far[b, t] = np.array([[y for _, y in mine] for mine in pairs])
        return near, far

    def _used(self, option: OptionCost, b: int, tensor: str, label: Label) -> tuple[Floats, Floats]:
        near, inner = self.columns.nothing(self.costs.length), None
        outermost = self.scene.arch.outermost
        source = label.reader or label.writer or outermost
        if label.own and label.own[2] == b and (tensor, *label.own[:2], source) in option.tiles:
            near += option.tiles[tensor, label.own[0], label.own[1], source]
            inner = label.own[0]
        elif label.own and (label.own[2] == b or label.own[1] in option.option.layout.loops):
            near[0] = np.inf
        far = near.copy() if label.spilt else near
        for t, write, read, wrote in option.words:
            level = inner or (label.writer if write else label.reader)
            if t == tensor and level is not None:
                self.columns.move(near, level, read, wrote)
                if label.spilt:
                    self.columns.move(far, outermost, read, wrote)
        return near, far

    def _reserve(self, tensor: str, cheapest: dict[tuple[int, str], Floats]) -> Floats:
        """What the use of a tensor in all nests adds at least (label, column, size)."""
        total = np.zeros((len(self.labels[tensor]), self.columns.count, self.costs.length))
        return total + sum(x for (_, t), x in cheapest.items() if t == tensor)

    def _order(self) -> list[str | int]:
        """Every tensor, before the nest that uses it first, and every nest; but first of all the tensors whose place
        decides how much is moved from the outermost level: then bounds soon tell what is not worth going on with."""
        first: dict[str, float] = {}
        for t, value in self.value.items():
            words = value[:, self.columns.out]
            usable = np.isfinite(words)
            most = np.where(usable, words, 0.0).max(axis=0)
            least = np.where(usable, words, np.inf).min(axis=0)
            first[t] = float((most - least)[np.isfinite(least)].sum())
        total = sum(first.values())
        early: list[str] = []
        for t in sorted((t for t, x in first.items() if x > _EARLY * total), key=lambda t: -first[t]):
            line = [t]
            while line[0] in self.chains:  # what takes the place of another comes after it
                line.insert(0, self.chains[line[0]])
            early += [x for x in line if x not in early]
        return [*early, *(x for i, new in enumerate(self.opens) for x in (*(t for t in new if t not in early), i))]

    def _least(self) -> Floats:
        """The least columns of everything still to come, for each decision and after it (decision, column, size)."""
        rows = []
        for d in self.decisions:
            if isinstance(d, str):
                cost = self.costs.tensors[d]
                columns = self.value[d].copy()
                if d in self.chains:
                    space, used = self.columns.space, self.reserve[d][self.numbers[d][:, 0]]
                    legal = np.isfinite(cost.columns[:, space]).all(axis=1, keepdims=True)
                    columns[:, space] = np.where(legal, used[:, space], np.inf)
                rows.append(columns.min(axis=0))
            else:
                rows.append(self.base[d].min(axis=0))
        rows.append(np.zeros_like(rows[0]))
        return np.array(list(accumulate(rows[::-1], np.add))[::-1])

    @cached_property
    def after(self) -> Floats:
        """Cycles that nests from each on, and after the last, take at least, each on the unit where it is done soonest
        (nest, size)."""
        each = [base[:, self.columns.busy].sum(axis=1).min(axis=0) for base in self.base]
        return np.array([*[*accumulate(each[::-1], np.add)][::-1], np.zeros(self.costs.length)])

    @cached_property
    def furthest(self) -> dict[str, Floats]:
        """What the use of each tensor adds at least where it may have spilt (label, column, size)."""
        cheapest = {key: table.min(axis=0) for key, table in self.far.items()}
        return {t: self._reserve(t, cheapest) for t in self.last}

    def metrics(self, rows: Floats, piped: Any, rest: Any = 0.0) -> Floats:
        """Metrics of rows of columns; ``rest``: cycles still to be added to some unit."""
        c = self.columns
        busy = rows[:, c.busy]
        total = busy.sum(axis=1) + rest
        lines = busy.reshape(len(busy), c.lines, -1)
        together = np.maximum(lines.max(axis=2).sum(axis=1), total / lines.shape[2])
        latency = np.maximum(np.where(piped, together, total), self.floor)
        if c.waits.stop > c.waits.start:
            latency = np.maximum(latency, rows[:, c.waits].max(axis=1))
        for k, per_word in enumerate(self.per_word):
            latency = np.maximum(latency, rows[:, c.words.start + k] * per_word)
        return np.stack(
            [rows[:, 0], latency, rows[:, c.out], rows[:, c.energy], rows[:, c.space][:, :-1].sum(axis=1)], axis=1
        )

    def loose(self, *, capped: bool) -> Floats:
        """A lower bound of the metrics for every combination of sizes; ``capped``: what no level has room for together
        is taken into account."""
        c = self.columns
        rows = self.least[0].T.copy()
        if capped:
            rows[~(rows[:, c.space] <= self.capacity * (1 + 1e-12)).all(axis=1)] = np.inf
            for column in (c.out, c.energy, *range(c.words.start, c.words.stop)):
                for k in map(int, np.flatnonzero(np.isfinite(self.capacity))):
                    rows[:, column] = np.maximum(rows[:, column], self.priced(column, k))
        return self.metrics(rows, self.piped, self.after[0] - self.least[0][c.busy].sum(axis=0))

    def priced(self, column: int, level: int) -> Floats:
        """The least of a column where space at a level has a price: what a tensor takes of it costs, and what there is
        of it is given back. At every price that is a lower bound (Lagrange); the highest is taken."""
        space = self.columns.space.start + level
        fixed = sum(base[:, column].min(axis=0) for base in self.base)
        best = np.zeros(self.costs.length)
        prices = (
            self.capacity[level] ** -1.0
            * np.geomspace(1.0, 1e9, _PRICES)
            * np.maximum(self.least[0][column], 1.0)[:, None]
        )
        total = np.repeat(np.asarray(fixed)[:, None], _PRICES, axis=1) - prices * self.capacity[level]
        for t, cost in self.costs.tensors.items():
            value = self.value[t][:, column]
            size = np.where(np.isinf(cost.columns[:, space]), 0.0, 0.0 if t in self.chains else cost.columns[:, space])
            total += (value[:, :, None] + size[:, :, None] * prices[None]).min(axis=0)
        return np.maximum(best, total.max(axis=1) * (1 - 1e-12))

    def spills(self) -> Iterator[tuple[Spill, NDArray[np.bool_]]]:
        """Tiles that may spill, and at which combinations of sizes: made and used here, larger than the room beside
        everything else at its least, at a level next to the outermost one whose words take no time."""
        arch = self.scene.arch
        levels = list(arch.levels)
        if len(levels) < 2 or levels[1] in self.columns.timed or levels[1] not in self.columns.sized:
            return
        k = self.columns.sized.index(levels[1])
        s = self.columns.space.start + k
        for tensor, cost in self.costs.tensors.items():
            if tensor not in self.frame.members or self.last[tensor] == self.where(tensor) or tensor in self.chains:
                continue
            for i, place in enumerate(cost.places):
                if place.own or len(place.shared) != 1 or place.shared[0][0] != levels[1]:
                    continue
                size = cost.columns[i, s]
                yield Spill(tensor, place), np.isfinite(size) & (size + self.least[0][s] > self.capacity[k])

    def spilt(self, at: NDArray[np.int64], spill: Spill) -> Floats:
        """A lower bound of the metrics where a tile spills, for some combinations of sizes: as much as there is no room
        for moves further out."""
        tensor, cost = spill.tensor, self.costs.tensors[spill.tensor]
        number = self.numbers[tensor][cost.places.index(spill.place), 1]
        near = cost.columns[cost.places.index(spill.place)][:, at] + self.reserve[tensor][number][:, at]
        far = self.furthest[tensor][number][:, at]
        cheapest = self.value[tensor][:, :, at].min(axis=0)
        with np.errstate(invalid="ignore"):
            rest = self.least[0][:, at] - cheapest
        rest[~np.isfinite(rest)] = 0.0
        column = self.level_column()
        room = self.capacity[column - self.columns.space.start]
        size = near[column]
        part = np.clip((rest[column] + size - room) / size, 0.0, 1.0)
        rows = rest + near * (1 - part) + far * part
        rows[self.columns.space] = 0.0
        more = np.maximum(0.0, self.after[0][at] - rows[self.columns.busy].sum(axis=0))
        return self.metrics(rows.T, self.piped[at], more)

    @cached_property
    def beyond(self) -> dict[str, Floats]:
        """The space that each place of a tensor needs beside that of the one whose place it takes (place, space, size);
        infinite where that one cannot be there."""
        found, space = {}, self.columns.space
        for tensor, before in self.chains.items():
            mine, theirs = self.costs.tensors[tensor], self.costs.tensors[before]
            found[tensor] = np.full((len(mine.places), space.stop - space.start, self.costs.length), np.inf)
            for i, place in enumerate(mine.places):
                if place in theirs.places and place.shared and not place.own:
                    with np.errstate(invalid="ignore"):
                        more = mine.columns[i, space] - theirs.columns[theirs.places.index(place), space]
                    found[tensor][i] = np.maximum(more, 0.0)
        return found

    def level_column(self) -> int:
        """Space at the level that may spill."""
        return self.columns.space.start + self.columns.sized.index(list(self.scene.arch.levels)[1])

    def where(self, tensor: str) -> int:
        return next(i for i, new in enumerate(self.opens) if tensor in new)

    def decoded(self, picks: Sequence[int], at: int, spill: Spill | None) -> Mixed:
        options, places = [], {}
        for decision, pick in zip(self.decisions, picks, strict=True):
            if isinstance(decision, str):
                places[decision] = int(pick)
            else:
                options.append(int(pick))
        return Mixed(tuple(options), places, at, spill, bool(self.piped[at]))
