"""Predicted times of the rows of a table: from data sheets and micro-benchmarks, with fitted efficiencies, and by a
roofline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.arch import Architecture
from fusemodel.errors import InputError
from fusemodel.mapping import Design, load_design
from fusemodel.model.batch import BatchCounts, count_batch
from fusemodel.validate.calibration import Calibration
from fusemodel.validate.rules import Chosen, Rules, choose_rules
from fusemodel.validate.table import ENERGY, LAUNCHES, Skipped, Table

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """Rows that one rule predicts, counted; times follow for any efficiencies."""

    chosen: Chosen
    counts: tuple[BatchCounts, ...]  # one for each option
    beside: bool
    warm: bool | None
    launches: Floats | None = None  # that each row's graph holds

    def each(self, arch: Architecture) -> Floats:
        """Seconds of every option (rows) for every row of the table (columns); infinite where it cannot be taken."""
        found = []
        for option, counts in zip(self.chosen.options, self.counts, strict=True):
            seconds = np.broadcast_to(counts.seconds(arch, warm=self.warm), self.chosen.rows.shape)
            found.append(np.where(option.possible & counts.usable, seconds, np.inf))
        return np.stack(found)

    def seconds(self, arch: Architecture) -> Floats:
        """Seconds of the fastest option for each row."""
        return self.each(arch).min(axis=0) + self.replay(arch)

    def replay(self, arch: Architecture) -> Floats | float:
        """A row's share of the floor of a graph's replay, less that which the launch of its mapping holds already:
        the overhead ``replay`` of the machine, for rows that say how many launches share it."""
        if self.launches is None or self.beside:
            return 0.0
        share = 1 / self.launches - self.chosen.rule.spec.replay
        return np.where(np.isnan(share), 0.0, share) * arch.overheads_s.get("replay", 0.0)

    def energy_j(self, arch: Architecture) -> Floats:
        """Joules of the fastest option for each row."""
        taken = self.each(arch).argmin(axis=0)
        shape = self.chosen.rows.shape
        each = [np.broadcast_to(c.energy_j(arch, warm=self.warm), shape) for c in self.counts]
        return np.stack(each)[taken, np.arange(len(taken))] + arch.idle_w * self.replay(arch)

    def roofline(self) -> Floats:
        """The least of the options' rooflines."""
        shape = self.chosen.rows.shape
        each = [np.broadcast_to(c.roofline_seconds(), shape) for c in self.counts]
        usable = [o.possible & c.usable for o, c in zip(self.chosen.options, self.counts, strict=True)]
        return np.stack([np.where(u, e, np.inf) for u, e in zip(usable, each, strict=True)]).min(axis=0)


@dataclass(frozen=True)
class Predictions:
    """A table and what is predicted for each row of it, in seconds; ``counted`` is what the times are made from."""

    table: Table
    measured_s: Floats
    mechanistic_s: Floats
    calibrated_s: Floats
    roofline_s: Floats
    rule: NDArray[Any]
    arch: NDArray[Any]
    counted: tuple[Counted, ...]

    def energies(self, calibration: Calibration) -> Energies | None:
        """Energies of the rows that have one, on machines whose energies are known; None if there are none."""
        length = len(self.table)
        measured = self.table.numbers.get(ENERGY, np.full(length, np.nan))
        found = {"calibrated": np.zeros(length), "mechanistic": np.zeros(length)}
        for c in self.counted:
            if np.isfinite(measured[c.chosen.rows]).any():
                found["mechanistic"][c.chosen.rows] += c.energy_j(c.chosen.arch)
                found["calibrated"][c.chosen.rows] += c.energy_j(calibration.tuned(c.chosen.arch))
        rows = np.flatnonzero(np.isfinite(measured) & (found["mechanistic"] > 0))
        return Energies(rows, measured[rows], {m: v[rows] for m, v in found.items()}) if len(rows) else None


@dataclass(frozen=True)
class Energies:
    """Rows of a table, and their energies in joules: measured, and predicted by model."""

    rows: NDArray[np.int64]
    measured_j: Floats
    predicted_j: Mapping[str, Floats]


@lru_cache(maxsize=256)
def _design(mapping: str, machine: str) -> Design:
    return load_design(mapping, arch=machine)


def count_table(table: Table, rules: Rules) -> tuple[Table, tuple[Counted, ...], NDArray[Any]]:
    """The rows of a table that have a rule, counted; the others left out with the reason. The row numbers of what is
    counted refer to the table returned."""
    chosen, beside, reason = choose_rules(table, rules)
    found: list[Counted] = []
    for item, extra in [*((c, False) for c in chosen), *((c, True) for c in beside)]:
        for warm, part in _by_cache(table, item):
            counted = _counted(table, part, extra, warm)
            usable = np.any([o.possible & c.usable for o, c in zip(part.options, counted.counts, strict=True)], axis=0)
            bad = part.rows[~usable]
            reason[bad[reason[bad] == ""]] = "no whole extents follow from its shape"
            found.append(counted)
    keep = reason == ""
    left_out = [Skipped(int(table.lines[i]), str(reason[i])) for i in np.flatnonzero(~keep)]
    place = np.cumsum(keep) - 1
    remaining = table.only(keep, left_out)
    kept = []
    for c in found:
        mask = keep[c.chosen.rows]
        part = c.chosen.only(mask, place[c.chosen.rows[mask]])
        if mask.all():
            kept.append(Counted(part, c.counts, c.beside, c.warm, c.launches))
        elif mask.any():
            kept.append(_counted(remaining, part, c.beside, c.warm))
    return remaining, tuple(kept), reason


def _counted(table: Table, part: Chosen, beside: bool, warm: bool | None) -> Counted:
    try:
        counts = tuple(count_batch(_design(o.mapping, part.arch.file), o.extents) for o in part.options)
    except InputError as error:
        raise error.at(part.rule.at) from None
    launches = table.numbers.get(LAUNCHES)
    return Counted(part, counts, beside, warm, None if launches is None else launches[part.rows])


def _by_cache(table: Table, item: Chosen) -> list[tuple[bool | None, Chosen]]:
    """Rows apart by whether caches were warm, where the table says so."""
    state = table.text["l2"][item.rows]
    return [
        ({"warm": True, "cold": False}.get(word), item.only(state == word)) for word in dict.fromkeys(state.tolist())
    ]


def times_of(counted: tuple[Counted, ...], length: int, calibration: Calibration | None) -> Floats:
    """Predicted seconds of every row, with the efficiencies of the architecture files or those of a calibration."""
    total = np.zeros(length)
    for c in counted:
        arch = calibration.tuned(c.chosen.arch) if calibration else c.chosen.arch
        seconds = c.seconds(arch)
        if calibration and c.chosen.rule.spec.campaign:
            seconds = calibration.slowed(seconds, c.chosen.rule.spec.name)
        total[c.chosen.rows] += seconds
    return total


def predict(table: Table, rules: Rules, calibration: Calibration) -> Predictions:
    """Predictions for every row of a table that a rule is for."""
    kept, counted, _ = count_table(table, rules)
    length = len(kept)
    roofline = np.zeros(length)
    rule: NDArray[Any] = np.full(length, "", dtype=object)
    arch: NDArray[Any] = np.full(length, "", dtype=object)
    for c in counted:
        roofline[c.chosen.rows] += c.roofline()
        if not c.beside:
            rule[c.chosen.rows], arch[c.chosen.rows] = c.chosen.rule.spec.name, c.chosen.arch.name
    return Predictions(
        kept, kept.numbers["latency_us"] * 1e-6, times_of(counted, length, None),
        times_of(counted, length, calibration), roofline, rule, arch, counted,
    )  # fmt: skip


def bounds_of(predictions: Predictions, calibration: Calibration, rows: Mapping[int, None]) -> dict[int, str]:
    """What the calibrated model thinks bounds some rows."""
    found: dict[int, str] = {}
    for c in predictions.counted:
        wanted = [(i, int(r)) for i, r in enumerate(c.chosen.rows) if int(r) in rows]
        if c.beside or not wanted:
            continue
        arch = calibration.tuned(c.chosen.arch)
        taken = c.each(arch).argmin(axis=0)
        times = {o: c.counts[o].times(arch, warm=c.warm) for o in {int(taken[i]) for i, _ in wanted}}
        for i, row in wanted:
            parts = [t.at(i) for t in times[int(taken[i])]]
            found[row] = max(parts, key=lambda t: t.total_s).bound()
    return found


__all__ = ["Counted", "Energies", "Predictions", "bounds_of", "count_table", "predict", "times_of"]
