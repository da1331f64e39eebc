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
from fusemodel.validate.table import Skipped, Table

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """Rows that one rule predicts, counted; times follow for any efficiencies."""

    chosen: Chosen
    counts: BatchCounts
    beside: bool
    warm: bool | None

    def seconds(self, arch: Architecture) -> Floats:
        return np.broadcast_to(self.counts.seconds(arch, warm=self.warm), self.chosen.rows.shape)


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
            try:
                counts = count_batch(_design(part.rule.spec.mapping, part.arch.file), part.extents)
            except InputError as error:
                raise error.at(part.rule.at) from None
            bad = part.rows[~counts.usable]
            reason[bad[reason[bad] == ""]] = "no whole extents follow from its shape"
            found.append(Counted(part, counts, extra, warm))
    keep = reason == ""
    left_out = [Skipped(int(table.lines[i]), str(reason[i])) for i in np.flatnonzero(~keep)]
    place = np.cumsum(keep) - 1
    kept = []
    for c in found:
        mask = keep[c.chosen.rows]
        if mask.all():
            kept.append(_moved(c, place[c.chosen.rows]))
        elif mask.any():
            extents = {r: v[mask] for r, v in c.chosen.extents.items()}
            part = Chosen(c.chosen.rule, c.chosen.arch, place[c.chosen.rows[mask]], extents)
            kept.append(Counted(part, count_batch(c.counts.design, extents), c.beside, c.warm))
    return table.only(keep, left_out), tuple(kept), reason


def _by_cache(table: Table, item: Chosen) -> list[tuple[bool | None, Chosen]]:
    """Rows apart by whether caches were warm, where the table says so."""
    state = table.text["l2"][item.rows]
    found = []
    for word in dict.fromkeys(state.tolist()):
        mask = state == word
        part = Chosen(item.rule, item.arch, item.rows[mask], {r: v[mask] for r, v in item.extents.items()})
        found.append(({"warm": True, "cold": False}.get(word), part))
    return found


def _moved(c: Counted, rows: NDArray[np.int64]) -> Counted:
    return Counted(Chosen(c.chosen.rule, c.chosen.arch, rows, c.chosen.extents), c.counts, c.beside, c.warm)


def times_of(
    counted: tuple[Counted, ...], length: int, calibration: Calibration | None
) -> Floats:
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
        roofline[c.chosen.rows] += c.counts.roofline_seconds()
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
        times = c.counts.times(calibration.tuned(c.chosen.arch), warm=c.warm)
        for i, row in wanted:
            parts = [t.at(i) for t in times]
            found[row] = max(parts, key=lambda t: t.total_s).bound()
    return found


__all__ = ["Counted", "Predictions", "bounds_of", "count_table", "predict", "times_of"]
