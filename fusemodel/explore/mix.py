"""The best layouts and places together, under the capacity of each level: exact.

Costs add up over nests and tensors, and latency is the largest of sums, so partial choices that are worse in every sum
can be dropped (a multiple-choice knapsack by dominance). Which level serves a tensor is remembered while Einsums that
use it are still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from fusemodel.explore.columns import OptionCost, Place, Priced
from fusemodel.explore.frame import Frame, Scene
from fusemodel.explore.front import Floats, front
from fusemodel.explore.goal import Best
from fusemodel.explore.rest import Trade, busiest, busy_fronts, trade

_PRICES = 60
_ROUNDING = 1e-12
_WIDE = 30_000  # partial choices at most
_MANY = 200  # partial choices; fewer are not compared with each other


@dataclass(frozen=True)
class Spill:
    """A tensor whose tile at a place may live one level further out in part."""

    tensor: str
    place: Place


@dataclass(frozen=True)
class Mixed:
    """A choice for everything: options by nest, places by tensor, the combination of sizes, what spills."""

    options: tuple[int, ...]
    places: dict[str, int]
    at: int
    spill: Spill | None
    piped: bool


@dataclass(frozen=True)
class Label:
    """What matters of a tensor's place while Einsums that use it are still to come: the levels that serve the Einsum
    that makes it and those that read it, its tile in a nest, whether it spills, and the place while another tensor may
    take it."""

    writer: str | None
    reader: str | None
    own: tuple[str, str, int] | None
    spilt: bool
    place: Place | None


@dataclass
class States:
    """Partial choices: columns, picks so far, and for every tensor that is still to be used the number of its label."""

    rows: Floats
    picks: np.ndarray
    labels: dict[str, np.ndarray]

    def taken(self, index: np.ndarray) -> States:
        return States(self.rows[index], self.picks[index], {t: x[index] for t, x in self.labels.items()})

    def keys(self) -> np.ndarray:
        """One number for each combination of labels."""
        total = np.zeros(len(self.rows), dtype=np.int64)
        for x in self.labels.values():
            total = total * (int(x.max(initial=0)) + 1) + x
        return total

    @staticmethod
    def joined(parts: Sequence[States]) -> States:
        return States(
            np.concatenate([p.rows for p in parts]), np.concatenate([p.picks for p in parts]),
            {t: np.concatenate([p.labels[t] for p in parts]) for t in parts[0].labels},
        )  # fmt: skip


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
        self.floor, self.check, self.cut = floor, check, False
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
        self.decisions = [x for i, new in enumerate(self.opens) for x in (*new, i)]
        self.nests = [[t for t in self.last if t in u] for u in used]
        self.labels = {t: self._labels(t) for t in self.last}
        self.plain = {t: self._plain(x) for t, x in self.labels.items()}
        self.near, self.far = self._tables()
        self.reserve = {t: self._reserve(t, self.near) for t in self.last}
        self.least = self._least()
        self.ahead: tuple[int, list[Floats], list[Trade]] | None = None

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

    @staticmethod
    def _plain(labels: list[Label]) -> np.ndarray:
        """For each label, the one without a place."""
        return np.array([labels.index(replace(label, place=None)) for label in labels], dtype=np.int64)

    def _tables(self) -> tuple[dict[tuple[int, int, str], Floats], dict[tuple[int, int, str], Floats]]:
        """For each option of a nest and each tensor, the columns that its use adds (label, column, size); then the same
        where what may spill has spilt. Infinite where it cannot be."""
        near, far = {}, {}
        for b, tensors in enumerate(self.nests):
            for o, option in enumerate(self.costs.options[b]):
                for t in tensors:
                    pairs = [self._used(option, b, t, label) for label in self.labels[t]]
                    near[b, o, t] = np.array([x for x, _ in pairs])
                    far[b, o, t] = np.array([y for _, y in pairs])
        return near, far

    def _used(self, option: OptionCost, b: int, tensor: str, label: Label) -> tuple[Floats, Floats]:
        near, inner = self.columns.nothing(self.costs.length), None
        if label.own and label.own[2] == b and (tensor, *label.own[:2]) in option.tiles:
            near += option.tiles[tensor, label.own[0], label.own[1]]
            inner = label.own[0]
        elif label.own and (label.own[2] == b or label.own[1] in option.option.layout.loops):
            near[0] = np.inf
        far = near.copy() if label.spilt else near
        for t, write, read, wrote in option.words:
            level = inner or (label.writer if write else label.reader)
            if t == tensor and level is not None:
                self.columns.move(near, level, read, wrote)
                if label.spilt:
                    self.columns.move(far, self.scene.arch.outermost, read, wrote)
        return near, far

    def _reserve(self, tensor: str, table: dict[tuple[int, int, str], Floats]) -> Floats:
        """What the use of a tensor in all nests adds at least, for each label."""
        total = np.zeros((len(self.labels[tensor]), self.columns.count, self.costs.length))
        for b, tensors in enumerate(self.nests):
            if tensor in tensors:
                total += self._cheapest(b, tensor, table)
        return total

    def _cheapest(self, b: int, tensor: str, table: dict[tuple[int, int, str], Floats]) -> Floats:
        return np.min([table[b, o, tensor] for o in range(len(self.costs.options[b]))], axis=0)

    def _least(self) -> Floats:
        """The least columns of everything still to come, for each decision and after it (decision, column, size)."""
        rows = []
        for d in self.decisions:
            if isinstance(d, str):
                cost = self.costs.tensors[d]
                index = [self.labels[d].index(self.label(d, p, False)) for p in cost.places]
                columns = cost.columns.copy()
                if d in self.chains:
                    columns[:, self.columns.space] *= np.isinf(columns[:, self.columns.space]).any(
                        axis=1, keepdims=True
                    )
                    columns = np.nan_to_num(columns, nan=0.0, posinf=np.inf)
                rows.append((columns + self.reserve[d][index]).min(axis=0))
            else:
                rows.append(np.min([o.base for o in self.costs.options[d]], axis=0))
        rows.append(np.zeros_like(rows[0]))
        return np.array(list(accumulate(rows[::-1], np.add))[::-1])

    def busiest(self) -> Floats:
        """Cycles that the nests take at least, each on the unit where it is done soonest, for each size."""
        c = self.columns
        return np.sum(
            [np.min([o.base[c.busy].sum(axis=0) for o in mine], axis=0) for mine in self.costs.options], axis=0
        )

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
        return self.metrics(rows, self.piped, self.busiest() - self.least[0][c.busy].sum(axis=0))

    def priced(self, column: int, level: int) -> Floats:
        """The least of a column where space at a level has a price: what a tensor takes of it costs, and what there is
        of it is given back. At every price that is a lower bound (Lagrange); the highest is taken."""
        space = self.columns.space.start + level
        fixed = sum(np.min([o.base[column] for o in mine], axis=0) for mine in self.costs.options)
        best = np.zeros(self.costs.length)
        prices = (
            self.capacity[level] ** -1.0
            * np.geomspace(1.0, 1e9, _PRICES)
            * np.maximum(self.least[0][column], 1.0)[:, None]
        )
        total = np.repeat(np.asarray(fixed)[:, None], _PRICES, axis=1) - prices * self.capacity[level]
        for t, cost in self.costs.tensors.items():
            index = [self.labels[t].index(self.label(t, p, False)) for p in cost.places]
            value = cost.columns[:, column] + self.reserve[t][index][:, column]
            size = np.where(np.isinf(cost.columns[:, space]), 0.0, 0.0 if t in self.chains else cost.columns[:, space])
            total += (value[:, :, None] + size[:, :, None] * prices[None]).min(axis=0)
        return np.maximum(best, total.max(axis=1) * (1 - 1e-12))

    # One combination of sizes

    def spills(self, at: int) -> Iterator[Spill]:
        """Tiles that may spill: made and used here, larger than the room beside everything else at its least, at a
        level next to the outermost one whose words take no time."""
        arch = self.scene.arch
        levels = list(arch.levels)
        if len(levels) < 2 or levels[1] in self.columns.timed or levels[1] not in self.columns.sized:
            return
        k = self.columns.sized.index(levels[1])
        s = self.columns.space.start + k
        for tensor, cost in self.costs.tensors.items():
            if tensor not in self.frame.members or self.last[tensor] == self.where(tensor):
                continue
            for i, place in enumerate(cost.places):
                size = cost.columns[i, s, at]
                if place.own or len(place.shared) != 1 or place.shared[0][0] != levels[1] or not np.isfinite(size):
                    continue
                if self.chains.get(tensor) is None and size + self.least[0][s, at] > self.capacity[k]:
                    yield Spill(tensor, place)

    def spilt(self, at: int, spill: Spill) -> Floats:
        """A lower bound of the metrics where a tile spills: as much as there is no room for moves further out."""
        cost = self.costs.tensors[spill.tensor]
        number = self.labels[spill.tensor].index(self.label(spill.tensor, spill.place, True))
        near = cost.columns[cost.places.index(spill.place), :, at] + self.reserve[spill.tensor][number, :, at]
        far = self.far_reserve(spill.tensor, number, at)
        cheapest = (cost.columns[:, :, at] + self.reserve[spill.tensor][
            [self.labels[spill.tensor].index(self.label(spill.tensor, p, False)) for p in cost.places], :, at
        ]).min(axis=0)  # fmt: skip
        rest = self.least[0][:, at] - cheapest
        rest[~np.isfinite(rest)] = 0.0
        column = self.level_column()
        room = self.capacity[column - self.columns.space.start]
        size = near[column]
        part = float(np.clip((rest[column] + size - room) / size, 0.0, 1.0))
        row = rest + near * (1 - part) + far * part
        row[self.columns.space] = 0.0
        return self.metrics(row[None, :], self.piped[at], max(0.0, self.busiest()[at] - row[self.columns.busy].sum()))

    def ahead_of(self, at: int) -> tuple[list[Floats], list[Trade]]:
        """What is still to come at least, for one combination of sizes: of the units, and of what trades with space."""
        if self.ahead is None or self.ahead[0] != at:
            c = self.columns
            units = busy_fronts([np.array([o.base[c.busy, at] for o in mine]) for mine in self.costs.options])
            trades = [
                trade(column, c.space.start + k, room, float(self.least[0][column, at]), self._trades(column, k, at))
                for column in (c.out, c.energy, *range(c.words.start, c.words.stop))
                for k, room in enumerate(self.capacity)
            ]
            self.ahead = at, units, [x for x in trades if x]
        return self.ahead[1:]

    def _trades(self, column: int, level: int, at: int) -> list[tuple[Floats, Floats]]:
        """What each way to decide adds to a column, and the space it takes."""
        found = []
        for d in self.decisions:
            if isinstance(d, str):
                cost = self.costs.tensors[d]
                index = [self.labels[d].index(self.label(d, p, False)) for p in cost.places]
                sizes = cost.columns[:, self.columns.space.start + level, at]
                sizes = np.where(np.isinf(sizes), np.inf, 0.0) if d in self.chains else sizes
                found.append((cost.columns[:, column, at] + self.reserve[d][index][:, column, at], sizes))
            else:
                base = np.array([o.base[[column, self.columns.space.start + level], at] for o in self.costs.options[d]])
                found.append((base[:, 0], base[:, 1]))
        return found

    def where(self, tensor: str) -> int:
        return next(i for i, new in enumerate(self.opens) if tensor in new)

    def tight(self, at: int, best: Best, spill: Spill | None, beam: int | None = None) -> None:
        """Offer the best mixes for one combination of sizes to ``best``; with a ``beam``, of so many partial ones."""
        count = self.columns.count * (2 if spill else 1)
        states = States(np.zeros((1, count)), np.zeros((1, 0), dtype=np.int16), {})
        rest = [np.min([o.base[self.columns.busy, at].sum() for o in mine]) for mine in self.costs.options]
        after = [*list(accumulate(rest[::-1]))[::-1], 0.0]
        for d, decision in enumerate(self.decisions):
            self.check()
            if isinstance(decision, str):
                states = self.placed(states, decision, at, spill)
                left = after[self.where(decision)]
            else:
                states = self.laid(states, decision, at, spill)
                left = after[decision + 1]
            states = self.pruned(states, d + 1, left, at, best, spill, beam)
            if not len(states.rows):
                return
        metrics = self.final(states.rows, at, spill)
        best.offer(metrics, [(self, at, spill, tuple(map(int, p))) for p in states.picks])

    def placed(self, states: States, tensor: str, at: int, spill: Spill | None) -> States:
        """Every partial choice with every place of a tensor; what the uses to come add at least is added at once."""
        cost = self.costs.tensors[tensor]
        allowed = range(len(cost.places))
        if spill and tensor == spill.tensor:
            allowed = [cost.places.index(spill.place)]
        parts: list[States] = []
        for i in allowed:
            columns, place = cost.columns[i, :, at], cost.places[i]
            if not np.isfinite(columns).all():
                continue
            for again, spilt, index in self.blocks(states, tensor, place, spill):
                near = columns.copy()
                if again or spilt:
                    near[self.columns.space] = 0.0
                number = self.labels[tensor].index(self.label(tensor, place, spilt))
                if spill:
                    far = np.zeros_like(columns) if spilt else near
                    far = far + (self.far_reserve(tensor, number, at) if spilt else self.reserve[tensor][number, :, at])
                    near = np.concatenate([near + self.reserve[tensor][number, :, at], far])
                else:
                    near = near + self.reserve[tensor][number, :, at]
                part = states if index is None else states.taken(index)
                picks = np.concatenate([part.picks, np.full((len(part.rows), 1), i, dtype=np.int16)], axis=1)
                held = np.full(len(part.rows), number)
                parts.append(States(part.rows + near, picks, {**part.labels, tensor: held}))
        if not parts:
            return states.taken(np.zeros(0, dtype=np.int64))
        found = States.joined(parts)
        return found.taken(np.flatnonzero(np.isfinite(found.rows[:, 0])))

    def far_reserve(self, tensor: str, label: int, at: int) -> Floats:
        total = np.zeros(self.columns.count)
        for b, tensors in enumerate(self.nests):
            if tensor in tensors:
                total += np.min(
                    [self.far[b, o, tensor][label, :, at] for o in range(len(self.costs.options[b]))], axis=0
                )
        return total

    def blocks(
        self, states: States, tensor: str, place: Place, spill: Spill | None
    ) -> Iterator[tuple[bool, bool, np.ndarray | None]]:
        """Whether a tensor at a place takes the space of another there, whether it spills, and for which states."""
        before = self.chains.get(tensor)
        if before is None or before not in states.labels or place.own or not place.shared:
            yield False, spill is not None and tensor == spill.tensor, None
            return
        here = np.array([x.place == place for x in self.labels[before]], dtype=bool)[states.labels[before]]
        spilt = np.array([x.spilt for x in self.labels[before]], dtype=bool)[states.labels[before]]
        for again, out in ((False, False), (True, False), (True, True)):
            index = np.flatnonzero((here == again) & ((spilt == out) | (not again)))
            if len(index):
                yield again, out, index

    def laid(self, states: States, b: int, at: int, spill: Spill | None) -> States:
        """Every partial choice with every option of a nest; tensors that are used no more are forgotten."""
        kept = {t: x for t, x in states.labels.items() if self.last[t] > b}
        for t in kept:
            if t in self.follower and self.where(self.follower[t]) <= b:
                kept[t] = self.plain[t][kept[t]]
        ways = range(len(self.costs.options[b]))
        cheapest = {t: np.min([self.near[b, o, t][:, :, at] for o in ways], axis=0) for t in self.nests[b]}
        far = {t: np.min([self.far[b, o, t][:, :, at] for o in ways], axis=0) for t in self.nests[b]} if spill else {}
        parts: list[States] = []
        for o, option in enumerate(self.costs.options[b]):
            base = option.base[:, at]
            rows = states.rows + (np.concatenate([base, base]) if spill else base)
            with np.errstate(invalid="ignore"):
                for t in self.nests[b]:
                    more = self.near[b, o, t][:, :, at] - cheapest[t]
                    if spill:
                        more = np.concatenate([more, self.far[b, o, t][:, :, at] - far[t]], axis=1)
                    rows = rows + more[states.labels[t]]
            picks = np.concatenate([states.picks, np.full((len(rows), 1), o, dtype=np.int16)], axis=1)
            parts.append(States(rows, picks, kept).taken(np.flatnonzero(np.isfinite(rows[:, 0]))))
        return States.joined(parts)

    def pruned(
        self, states: States, decided: int, left: float, at: int, best: Best, spill: Spill | None, beam: int | None
    ) -> States:
        """Without what does not fit, cannot be better than the best, or is no better than another one."""
        c, count = self.columns, self.columns.count
        least = self.least[decided][:, at]
        room = self.capacity - least[c.space]
        states = states.taken(np.flatnonzero((states.rows[:, c.space] <= room * (1 + 1e-12) + 1e-9).all(axis=1)))
        if not len(states.rows):
            return states
        more = max(0.0, left - least[c.busy].sum())
        bounds = self.metrics(states.rows[:, :count] + least, self.piped[at], more)
        if spill:
            bounds = np.minimum(bounds, self.metrics(states.rows[:, count:] + least, self.piped[at], more))
        self.raised(bounds, states.rows, decided, at, traded=spill is None)
        alive = best.open(bounds)
        states, bounds = states.taken(np.flatnonzero(alive)), bounds[alive]
        if beam is not None:
            if len(states.rows) > beam:
                order = np.lexsort(best.goal.scores(bounds).T[::-1])[:beam]
                states = states.taken(np.sort(order))
            return states
        if len(states.rows) <= _MANY:
            return states
        if len(states.rows) > _WIDE:  # too many to compare: the best are gone on with, and nothing is proven
            order = np.sort(np.lexsort(best.goal.scores(bounds).T[::-1])[:_WIDE])
            states, bounds, self.cut = states.taken(order), bounds[order], True
        return self.undominated(states)

    def raised(self, bounds: Floats, rows: Floats, decided: int, at: int, *, traded: bool) -> None:
        """Raise bounds of metrics to what units, and space, leave room for."""
        c = self.columns
        units, trades = self.ahead_of(at)
        if self.piped[at] and c.lines == 1:
            nest = sum(not isinstance(d, str) for d in self.decisions[:decided])
            done = busiest(rows[:, c.busy], units[nest]) * (1 - _ROUNDING)
            bounds[:, 1] = np.maximum(bounds[:, 1], done)
        for x in trades if traded else ():
            least = x.bound(rows, decided, float(self.capacity[x.space - c.space.start])) * (1 - _ROUNDING)
            if x.column in (c.out, c.energy):
                k = 2 if x.column == c.out else 3
                bounds[:, k] = np.maximum(bounds[:, k], least)
            else:
                bounds[:, 1] = np.maximum(bounds[:, 1], least * self.per_word[x.column - c.words.start])

    @staticmethod
    def undominated(states: States) -> States:
        keys = states.keys()
        order = np.argsort(keys, kind="stable")
        cuts = np.flatnonzero(np.diff(keys[order])) + 1
        index = [part[front(states.rows[part])] for part in np.split(order, cuts)]
        return states.taken(np.concatenate(index))

    def final(self, rows: Floats, at: int, spill: Spill | None) -> Floats:
        """Metrics of complete rows."""
        if spill is None:
            return self.metrics(rows, self.piped[at])
        count = self.columns.count
        near, far = rows[:, :count], rows[:, count:]
        part = self.fraction(near, at, spill)[:, None]
        mixed = near * (1 - part) + far * part
        mixed[:, self.columns.space] = near[:, self.columns.space]
        size = self.spilt_size(spill, at)
        k = self.level_column()
        mixed[:, k] = np.minimum(mixed[:, k] + size, self.capacity[k - self.columns.space.start])
        return self.metrics(mixed, self.piped[at])

    def level_column(self) -> int:
        return self.columns.space.start + self.columns.sized.index(list(self.scene.arch.levels)[1])

    def spilt_size(self, spill: Spill, at: int) -> float:
        cost = self.costs.tensors[spill.tensor]
        return float(cost.columns[cost.places.index(spill.place), self.level_column(), at])

    def fraction(self, near: Floats, at: int, spill: Spill) -> Floats:
        """The part of the block that spills."""
        size = self.spilt_size(spill, at)
        room = self.capacity[self.level_column() - self.columns.space.start]
        return np.clip((near[:, self.level_column()] + size - room) / size, 0.0, 1.0)

    def decoded(self, picks: Sequence[int], at: int, spill: Spill | None) -> Mixed:
        options, places = [], {}
        for decision, pick in zip(self.decisions, picks, strict=True):
            if isinstance(decision, str):
                places[decision] = pick
            else:
                options.append(pick)
        return Mixed(tuple(options), places, at, spill, bool(self.piped[at]))
