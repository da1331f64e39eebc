"""The best mixes for one combination of sizes: partial choices, without those that do not fit, cannot be better than
the best, or are no better than another one in whatever still matters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate

import numpy as np

from fusemodel.explore.columns import Place
from fusemodel.explore.compare import Compare
from fusemodel.explore.front import Floats, front
from fusemodel.explore.goal import Best
from fusemodel.explore.mix import Mix
from fusemodel.explore.rest import Trade, busiest, busy_fronts, trade
from fusemodel.explore.states import Spill, States

_ROUNDING = 1e-12
_WIDE = 30_000  # partial choices at most
_FEW = 50  # partial choices that are gone on with sooner than bounded by what space costs
_MANY = 200  # partial choices; fewer are not compared with each other


class Tight:
    """One combination ``at`` of the sizes of a mix; ``floor``: cycles that it takes at least."""

    def __init__(self, mix: Mix, at: int, floor: float) -> None:
        self.mix, self.at, self.floor = mix, at, max(floor * (1 - _ROUNDING), mix.floor)
        self.columns, self.cut = mix.columns, False

    @cached_property
    def units(self) -> list[Floats]:
        """What the nests still to come take of the units at least: see :func:`busy_fronts`."""
        busy = self.columns.busy
        return busy_fronts([np.array([o.base[busy, self.at] for o in mine]) for mine in self.mix.costs.options])

    @cached_property
    def trades(self) -> list[Trade]:
        """What is still to come at least of what trades with space."""
        c, mix = self.columns, self.mix
        found = [
            trade(column, c.space.start + k, room, float(mix.least[0][column, self.at]), self.choices(column, k))
            for column in (c.out, c.energy, *range(c.words.start, c.words.stop))
            for k, room in enumerate(mix.capacity) if np.isfinite(room)
        ]  # fmt: skip
        return [x for x in found if x]

    def choices(self, column: int, level: int) -> list[tuple[Floats, Floats]]:
        """What each way to decide adds to a column, and the space it takes."""
        mix, found = self.mix, []
        space = self.columns.space.start + level
        for d in mix.decisions:
            if isinstance(d, str):
                sizes = mix.costs.tensors[d].columns[:, space, self.at]
                sizes = np.where(np.isinf(sizes), np.inf, 0.0) if d in mix.chains else sizes
                found.append((mix.value[d][:, column, self.at], sizes))
            else:
                base = np.array([o.base[[column, space], self.at] for o in mix.costs.options[d]])
                found.append((base[:, 0], base[:, 1]))
        return found

    @cached_property
    def compare(self) -> Compare:
        return Compare(self.mix, self.at, self.floor)

    def run(self, best: Best, spill: Spill | None = None, beam: int | None = None) -> None:
        """Offer the best mixes to ``best``; with a ``beam``, of so many partial ones."""
        mix, at = self.mix, self.at
        count = self.columns.count * (2 if spill else 1)
        states = States(np.zeros((1, count)), np.zeros((1, 0), dtype=np.int16), {})
        rest = [np.min([o.base[self.columns.busy, at].sum() for o in mine]) for mine in mix.costs.options]
        after = [*list(accumulate(rest[::-1]))[::-1], 0.0]
        for d, decision in enumerate(mix.decisions):
            mix.check()
            if isinstance(decision, str):
                states = self.placed(states, decision, spill)
                left = after[mix.where(decision)]
            else:
                states = self.laid(states, decision, spill)
                left = after[decision + 1]
            states = self.pruned(states, d + 1, left, best, spill, beam)
            if not len(states.rows):
                return
        metrics = self.final(states.rows, spill)
        best.offer(metrics, [(mix, at, spill, tuple(map(int, p))) for p in states.picks])

    def placed(self, states: States, tensor: str, spill: Spill | None) -> States:
        """Every partial choice with every place of a tensor; what the uses to come add at least is added at once."""
        mix, at = self.mix, self.at
        cost = mix.costs.tensors[tensor]
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
                    near[self.columns.space] = mix.beyond(tensor, place)[:, at] if again else 0.0
                    if spilt and near[self.columns.space].any():  # only what fits into the block may spill with it
                        continue
                number = mix.numbers[tensor][i, int(spilt)]
                if spill:
                    far = np.zeros_like(columns) if spilt else near
                    more = mix.far_reserve(tensor, number, at) if spilt else mix.reserve[tensor][number, :, at]
                    near = np.concatenate([near + mix.reserve[tensor][number, :, at], far + more])
                else:
                    near = near + mix.reserve[tensor][number, :, at]
                part = states if index is None else states.taken(index)
                picks = np.concatenate([part.picks, np.full((len(part.rows), 1), i, dtype=np.int16)], axis=1)
                held = np.full(len(part.rows), number)
                parts.append(States(part.rows + near, picks, {**part.labels, tensor: held}))
        if not parts:
            return states.taken(np.zeros(0, dtype=np.int64))
        found = States.joined(parts)
        return found.taken(np.flatnonzero(np.isfinite(found.rows[:, 0])))

    def blocks(
        self, states: States, tensor: str, place: Place, spill: Spill | None
    ) -> Iterator[tuple[bool, bool, np.ndarray | None]]:
        """Whether a tensor at a place takes the space of another there, whether it spills, and for which states."""
        before = self.mix.chains.get(tensor)
        if before is None or before not in states.labels or place.own or not place.shared:
            yield False, spill is not None and tensor == spill.tensor, None
            return
        labels = self.mix.labels[before]
        here = np.array([x.place == place for x in labels], dtype=bool)[states.labels[before]]
        spilt = np.array([x.spilt for x in labels], dtype=bool)[states.labels[before]]
        for again, out in ((False, False), (True, False), (True, True)):
            index = np.flatnonzero((here == again) & ((spilt == out) | (not again)))
            if len(index):
                yield again, out, index

    def laid(self, states: States, b: int, spill: Spill | None) -> States:
        """Every partial choice with every option of a nest; tensors that are used no more are forgotten."""
        mix, at = self.mix, self.at
        kept = {t: x for t, x in states.labels.items() if mix.last[t] > b}
        for t in kept:
            if t in mix.follower and mix.where(mix.follower[t]) <= b:
                kept[t] = mix.plain[t][kept[t]]
        ways = range(len(mix.costs.options[b]))
        cheapest = {t: np.min([mix.near[b, o, t][:, :, at] for o in ways], axis=0) for t in mix.nests[b]}
        far = {t: np.min([mix.far[b, o, t][:, :, at] for o in ways], axis=0) for t in mix.nests[b]} if spill else {}
        parts: list[States] = []
        for o, option in enumerate(mix.costs.options[b]):
            base = option.base[:, at]
            rows = states.rows + (np.concatenate([base, base]) if spill else base)
            with np.errstate(invalid="ignore"):
                for t in mix.nests[b]:
                    more = mix.near[b, o, t][:, :, at] - cheapest[t]
                    if spill:
                        more = np.concatenate([more, mix.far[b, o, t][:, :, at] - far[t]], axis=1)
                    rows = rows + more[states.labels[t]]
            picks = np.concatenate([states.picks, np.full((len(rows), 1), o, dtype=np.int16)], axis=1)
            parts.append(States(rows, picks, kept).taken(np.flatnonzero(np.isfinite(rows[:, 0]))))
        return States.joined(parts)

    def pruned(
        self, states: States, decided: int, left: float, best: Best, spill: Spill | None, beam: int | None
    ) -> States:
        """Without what does not fit, cannot be better than the best, or is no better than another one."""
        c, count, mix = self.columns, self.columns.count, self.mix
        least = mix.least[decided][:, self.at]
        room = mix.capacity - least[c.space]
        states = states.taken(np.flatnonzero((states.rows[:, c.space] <= room * (1 + 1e-12) + 1e-9).all(axis=1)))
        if not len(states.rows):
            return states
        more = max(0.0, left - least[c.busy].sum())
        bounds = self.metrics(states.rows[:, :count] + least, more)
        if spill:
            bounds = np.minimum(bounds, self.metrics(states.rows[:, count:] + least, more))
        self.raised(
            bounds, states.rows, decided, traded=spill is None and (len(states.rows) > _FEW or beam is not None)
        )
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
        rows = states.rows if spill else self.compare.matter(states.rows, decided, best)
        return states.taken(undominated(rows, states.keys()))

    def metrics(self, rows: Floats, rest: float = 0.0) -> Floats:
        return self.mix.metrics(rows, self.mix.piped[self.at], rest)

    def raised(self, bounds: Floats, rows: Floats, decided: int, *, traded: bool) -> None:
        """Raise bounds of metrics to what units, and space, leave room for."""
        c, mix = self.columns, self.mix
        if mix.piped[self.at] and c.lines == 1:
            nest = sum(not isinstance(d, str) for d in mix.decisions[:decided])
            done = busiest(rows[:, c.busy], self.units[nest]) * (1 - _ROUNDING)
            bounds[:, 1] = np.maximum(bounds[:, 1], done)
        for x in self.trades if traded else ():
            least = x.bound(rows, decided, float(mix.capacity[x.space - c.space.start])) * (1 - _ROUNDING)
            if x.column in (c.out, c.energy):
                k = 2 if x.column == c.out else 3
                bounds[:, k] = np.maximum(bounds[:, k], least)
            else:
                bounds[:, 1] = np.maximum(bounds[:, 1], least * mix.per_word[x.column - c.words.start])

    def final(self, rows: Floats, spill: Spill | None) -> Floats:
        """Metrics of complete rows."""
        if spill is None:
            return self.metrics(rows)
        mix, count = self.mix, self.columns.count
        near, far = rows[:, :count], rows[:, count:]
        part = self.fraction(near, spill)[:, None]
        mixed = near * (1 - part) + far * part
        mixed[:, self.columns.space] = near[:, self.columns.space]
        size = self.spilt_size(spill)
        k = mix.level_column()
        mixed[:, k] = np.minimum(mixed[:, k] + size, mix.capacity[k - self.columns.space.start])
        return self.metrics(mixed)

    def spilt_size(self, spill: Spill) -> float:
        cost = self.mix.costs.tensors[spill.tensor]
        return float(cost.columns[cost.places.index(spill.place), self.mix.level_column(), self.at])

    def fraction(self, near: Floats, spill: Spill) -> Floats:
        """The part of the block that spills."""
        size, k = self.spilt_size(spill), self.mix.level_column()
        room = self.mix.capacity[k - self.columns.space.start]
        return np.clip((near[:, k] + size - room) / size, 0.0, 1.0)


def undominated(rows: Floats, keys: np.ndarray) -> np.ndarray:
    """The rows that no other one with the same key is as good as in every column."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    return np.concatenate([part[front(rows[part])] for part in np.split(order, cuts)])


__all__ = ["Tight"]
