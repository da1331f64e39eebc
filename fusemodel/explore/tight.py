"""The best mixes for some combinations of sizes: partial choices, without those that do not fit, cannot be better than
the best, or are no better than another one in whatever still matters. Combinations go side by side, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fusemodel.explore.compare import Compare
from fusemodel.explore.front import Floats, front
from fusemodel.explore.goal import Best
from fusemodel.explore.mix import Mix
from fusemodel.explore.rest import Trade, busiest, busy_fronts, trade
from fusemodel.explore.states import Spill, States

Ints = NDArray[np.int64]
_ROUNDING = 1e-12
_WIDE = 30_000  # partial choices of a combination at most
_TOGETHER = 20_000  # partial choices of several; beyond them half of the combinations waits for the others
_FEW = 50  # partial choices that are gone on with sooner than bounded by what space costs
_MANY = 200  # partial choices; fewer are not compared with each other


class Tight:
    """Combinations ``ats`` of the sizes of a mix, the most promising first; ``floors``: cycles that each takes at
    least."""

    def __init__(self, mix: Mix, ats: Sequence[int] | Ints, floors: Sequence[float] | Floats) -> None:
        self.mix, self.ats, self.columns, self.cut = mix, np.asarray(ats), mix.columns, False
        self.floors = np.maximum(np.asarray(floors, dtype=float) * (1 - _ROUNDING), mix.floor)
        self.compares: dict[int, Compare] = {}

    def here(self, table: Floats) -> Floats:
        """Of a table (..., column, size), what the combinations have (..., combination, column)."""
        return np.ascontiguousarray(np.moveaxis(table[..., self.ats], -1, -2))

    @cached_property
    def least(self) -> Floats:
        return self.here(self.mix.least)

    @cached_property
    def base(self) -> list[Floats]:
        return [self.here(x) for x in self.mix.base]

    @cached_property
    def units(self) -> tuple[Ints, list[list[Floats]]]:
        """What the nests still to come take of the units at least (:func:`busy_fronts`), and for which combinations."""
        busy = np.concatenate([base[:, :, self.columns.busy] for base in self.base])
        alike, index = np.unique(busy.swapaxes(0, 1).reshape(len(self.ats), -1), axis=0, return_inverse=True)
        firsts = [int(np.flatnonzero(index.ravel() == k)[0]) for k in range(len(alike))]
        return index.ravel(), [busy_fronts([base[:, k, self.columns.busy] for base in self.base]) for k in firsts]

    @cached_property
    def trades(self) -> list[Trade]:
        """What is still to come at least of what trades with space."""
        c, mix = self.columns, self.mix
        found = [
            trade(column, c.space.start + k, room, self.least[0, :, column], self.choices(column, k))
            for column in (c.out, c.energy, *range(c.words.start, c.words.stop))
            for k, room in enumerate(mix.capacity) if np.isfinite(room)
        ]  # fmt: skip
        return [x for x in found if x]

    def choices(self, column: int, level: int) -> list[tuple[Floats, Floats]]:
        """What each way to decide adds to a column, and the space it takes (way, combination)."""
        mix, found = self.mix, []
        space = self.columns.space.start + level
        for d in mix.decisions:
            if isinstance(d, str):
                sizes = mix.costs.tensors[d].columns[:, space][:, self.ats]
                sizes = np.where(np.isinf(sizes), np.inf, 0.0) if d in mix.chains else sizes
                found.append((mix.value[d][:, column][:, self.ats], sizes))
            else:
                found.append((self.base[d][:, :, column], self.base[d][:, :, space]))
        return found

    def run(self, best: Best, spill: Spill | None = None, beam: int | None = None) -> None:
        """Offer the best mixes to ``best``; with a ``beam``, of so many partial ones of each combination."""
        count, many = self.columns.count * (2 if spill else 1), len(self.ats)
        nothing = States(np.arange(many), np.zeros((many, count)), np.zeros((many, 0), dtype=np.int16), {})
        waiting = [(nothing, 0)]
        while waiting:
            states, d = waiting.pop()
            while d < len(self.mix.decisions) and len(states.rows):
                if len(states.rows) > _TOGETHER and (held := np.unique(states.at)).size > 1:
                    later = states.at >= held[len(held) // 2]
                    waiting.append((states.taken(np.flatnonzero(later)), d))
                    states = states.taken(np.flatnonzero(~later))
                    continue
                states = self.decided(states, d, best, spill, beam)
                d += 1
            if len(states.rows):
                metrics = self.final(states, spill)
                ats = self.ats[states.at].tolist()
                best.offer(metrics, [(self.mix, at, spill, p) for at, p in zip(ats, states.picks, strict=True)])

    def decided(self, states: States, d: int, best: Best, spill: Spill | None, beam: int | None) -> States:
        """The partial choices after one more decision."""
        mix, decision = self.mix, self.mix.decisions[d]
        mix.check()
        states = (
            self.placed(states, decision, spill) if isinstance(decision, str) else self.laid(states, decision, spill)
        )
        return self.pruned(states, d + 1, best, spill, beam) if len(states.rows) else states

    def placed(self, states: States, tensor: str, spill: Spill | None) -> States:
        """Every partial choice with every place of a tensor; what the uses to come add at least is added at once."""
        mix, cost, space = self.mix, self.mix.costs.tensors[tensor], self.columns.space
        columns = self.here(cost.columns)
        legal = np.isfinite(columns).all(axis=2)
        if spill and tensor == spill.tensor:
            legal[np.arange(len(cost.places)) != cost.places.index(spill.place)] = False
        place, row = np.nonzero(legal[:, states.at])
        at = states.at[row]
        near = columns[place, at]
        spilt = np.full(len(row), spill is not None and tensor == spill.tensor)
        near[spilt, space] = 0.0
        before = mix.chains.get(tensor)
        if before in states.labels:
            again, spilt = self.again(states, tensor, place, row)
            beyond = self.here(mix.beyond[tensor])[place[again], at[again]]
            near[again, space] = np.where(spilt[again, None] & (beyond > 0), np.inf, beyond)  # only what fits may spill
        number = mix.numbers[tensor][place, spilt.astype(int)]
        reserve = self.here(mix.reserve[tensor])[number, at]
        if spill:
            far = np.where(spilt[:, None], 0.0, near)
            more = np.where(spilt[:, None], self.here(mix.furthest[tensor])[number, at], reserve)
            near = np.concatenate([near + reserve, far + more], axis=1)
        else:
            near += reserve
        rows = states.rows[row] + near
        kept = np.flatnonzero(np.isfinite(rows[:, 0]) & np.isfinite(rows[:, space]).all(axis=1))
        found = states.taken(row[kept])
        picks = np.concatenate([found.picks, place[kept, None].astype(np.int16)], axis=1)
        return States(found.at, rows[kept], picks, {**found.labels, tensor: number[kept]})

    def again(self, states: States, tensor: str, place: Ints, row: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether a tensor at a place takes the space of another there, and spills with it."""
        before = self.mix.chains[tensor]
        labels, places = self.mix.labels[before], self.mix.costs.tensors[tensor].places
        able = [p.shared and not p.own for p in places]
        same = np.array([[bool(ok) and x.place == p for x in labels] for p, ok in zip(places, able, strict=True)])
        label = states.labels[before][row]
        taken = same[place, label]
        return taken, taken & np.array([x.spilt for x in labels], dtype=bool)[label]

    def laid(self, states: States, b: int, spill: Spill | None) -> States:
        """Every partial choice with every option of a nest; tensors that are used no more are forgotten."""
        mix = self.mix
        kept = {t: x for t, x in states.labels.items() if mix.last[t] > b}
        for t in kept:
            if t in mix.follower and mix.decisions.index(mix.follower[t]) < mix.decisions.index(b):
                kept[t] = mix.plain[t][kept[t]]
        base = self.base[b]
        rows = np.repeat(states.rows[None], len(base), axis=0)
        rows += (np.concatenate([base, base], axis=2) if spill else base)[:, states.at]
        with np.errstate(invalid="ignore"):
            for t in mix.nests[b]:
                more = [mix.near[b, t], mix.far[b, t]] if spill else [mix.near[b, t]]
                extra = np.concatenate([self.here(x - x.min(axis=0)) for x in more], axis=3)
                rows += extra[:, states.labels[t], states.at]
        option, row = np.nonzero(np.isfinite(rows[:, :, 0]))
        picks = np.concatenate([states.picks[row], option[:, None].astype(np.int16)], axis=1)
        return States(states.at[row], rows[option, row], picks, {t: x[row] for t, x in kept.items()})

    def pruned(self, states: States, decided: int, best: Best, spill: Spill | None, beam: int | None) -> States:
        """Without what does not fit, cannot be better than the best, or is no better than another one."""
        c, count, mix = self.columns, self.columns.count, self.mix
        nest = sum(not isinstance(d, str) for d in mix.decisions[:decided])
        least = self.least[decided]
        room = mix.capacity - least[:, c.space]
        fits = (states.rows[:, c.space] <= (room * (1 + 1e-12) + 1e-9)[states.at]).all(axis=1)
        states = states.taken(np.flatnonzero(fits))
        if not len(states.rows):
            return states
        more = np.maximum(0.0, mix.after[nest][self.ats] - least[:, c.busy].sum(axis=1))[states.at]
        rest = least[states.at]
        near = states.rows[:, :count] + rest
        if spill and spill.tensor in mix.decisions[:decided]:  # at least so much of it
            far = states.rows[:, count:] + rest
            part = self.part(near, states, spill)
            near = np.minimum(near * (1 - part) + far * part, far)
        elif spill:
            near = np.minimum(near, states.rows[:, count:] + rest)
        bounds = self.metrics(states, near, more)
        traded = spill is None and (len(states.rows) > _FEW * len(self.ats) or beam is not None)
        self.raised(bounds, states, decided, traded=traded)
        alive = best.open(bounds)
        states, bounds = states.taken(np.flatnonzero(alive)), bounds[alive]
        if beam is not None:
            return states.taken(self.first(states, bounds, best, beam))
        ats, each = np.unique(states.at, return_counts=True)
        if (each <= _MANY).all():
            return states
        wide = ats[each > _WIDE]
        if len(wide):  # too many to compare: the best are gone on with, and nothing is proven
            states, self.cut = states.taken(self.first(states, bounds, best, _WIDE)), True
        parts = [np.flatnonzero(np.isin(states.at, ats[each <= _MANY]))]
        for at in map(int, ats[each > _MANY]):
            mine = np.flatnonzero(states.at == at)
            some = states.taken(mine)
            rows = some.rows if spill else self.compare(at).matter(some.rows, decided, best)
            parts.append(mine[undominated(rows, some.keys())])
        return states.taken(np.sort(np.concatenate(parts)))

    def first(self, states: States, bounds: Floats, best: Best, most: int) -> Ints:
        """The most promising of each combination."""
        order = np.lexsort((*best.goal.scores(bounds).T[::-1], states.at))
        at = states.at[order]
        return np.sort(order[np.arange(len(at)) - np.searchsorted(at, at) < most])

    def compare(self, at: int) -> Compare:
        if at not in self.compares:
            self.compares[at] = Compare(self.mix, int(self.ats[at]), float(self.floors[at]))
        return self.compares[at]

    def metrics(self, states: States, rows: Floats, rest: Floats | float = 0.0) -> Floats:
        return self.mix.metrics(rows, self.mix.piped[self.ats][states.at], rest)

    def raised(self, bounds: Floats, states: States, decided: int, *, traded: bool) -> None:
        """Raise bounds of metrics to what units, and space, leave room for."""
        c, mix, rows = self.columns, self.mix, states.rows
        if c.lines == 1 and mix.piped[self.ats].any():
            nest = sum(not isinstance(d, str) for d in mix.decisions[:decided])
            index, units = self.units
            kind = np.where(mix.piped[self.ats], index, -1)[states.at]
            for k in range(len(units)):
                some = np.flatnonzero(kind == k)
                if len(some):
                    done = busiest(rows[some, c.busy], units[k][nest]) * (1 - _ROUNDING)
                    bounds[some, 1] = np.maximum(bounds[some, 1], done)
        for x in self.trades if traded else ():
            room = float(mix.capacity[x.space - c.space.start])
            least = x.bound(rows, states.at, decided, room) * (1 - _ROUNDING)
            if x.column in (c.out, c.energy):
                k = 2 if x.column == c.out else 3
                bounds[:, k] = np.maximum(bounds[:, k], least)
            else:
                bounds[:, 1] = np.maximum(bounds[:, 1], least * mix.per_word[x.column - c.words.start])

    def final(self, states: States, spill: Spill | None) -> Floats:
        """Metrics of complete choices."""
        rows = states.rows
        if spill is None:
            return self.metrics(states, rows)
        mix, count = self.mix, self.columns.count
        near, far = rows[:, :count], rows[:, count:]
        k, part = mix.level_column(), self.part(near, states, spill)
        mixed = near * (1 - part) + far * part
        mixed[:, self.columns.space] = near[:, self.columns.space]
        room = mix.capacity[k - self.columns.space.start]
        mixed[:, k] = np.minimum(mixed[:, k] + self.spilt_size(spill)[states.at], room)
        return self.metrics(states, mixed)

    def spilt_size(self, spill: Spill) -> Floats:
        """Words of the tile that spills, for each combination."""
        cost = self.mix.costs.tensors[spill.tensor]
        return cost.columns[cost.places.index(spill.place), self.mix.level_column()][self.ats]

    def part(self, near: Floats, states: States, spill: Spill) -> Floats:
        """The part of the tile that spills, beside what else takes space."""
        k, size = self.mix.level_column(), self.spilt_size(spill)[states.at]
        room = self.mix.capacity[k - self.columns.space.start]
        return np.clip((near[:, k] + size - room) / size, 0.0, 1.0)[:, None]


def undominated(rows: Floats, keys: Ints) -> Ints:
    """The rows that no other one with the same key is as good as in every column."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    return np.concatenate([part[front(rows[part])] for part in np.split(order, cuts)])


__all__ = ["Tight"]
