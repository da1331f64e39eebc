"""What a validation says, as plain data: errors of both models and of the roofline, together and by group."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.validate.calibration import Calibration
from fusemodel.validate.errors import Errors, errors_of, groups_of
from fusemodel.validate.predict import Predictions, bounds_of
from fusemodel.validate.table import Skipped

MODELS = ("calibrated", "mechanistic", "roofline")
WORST = 12
_SHOWN = ("batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "window", "causal", "M", "N", "K")


@dataclass(frozen=True)
class EnergyErrors:
    """Errors of predicted energies: of all rows that have one, by what was run on which machine, and each row."""

    errors: dict[str, Errors]
    groups: list[tuple[str, str, dict[str, Errors]]]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "points": len(self.rows), **{m: e.to_dict() for m, e in self.errors.items()},
            "groups": [{"by": by, "value": value, **{m: e.to_dict() for m, e in errors.items()}}
                       for by, value, errors in self.groups],
            "rows": self.rows,
        }  # fmt: skip


@dataclass(frozen=True)
class Validation:
    """Predictions with their errors: of every model over all points and by group, and the worst points."""

    predictions: Predictions
    errors: dict[str, Errors]
    groups: list[tuple[str, str, dict[str, Errors]]]
    worst: list[dict[str, Any]]
    skipped: tuple[Skipped, ...]
    files: tuple[str, ...]
    energy: EnergyErrors | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON. The numbers at the top are the calibrated model's."""
        top = self.errors["calibrated"]
        reasons = Counter(s.reason for s in self.skipped)
        return {
            "files": list(self.files), **top.to_dict(), "roofline_mape": self.errors["roofline"].mape,
            **{m: self.errors[m].to_dict() for m in MODELS},
            "groups": [
                {"by": by, "value": value, **e["calibrated"].to_dict(), "mechanistic_mape": e["mechanistic"].mape,
                 "roofline_mape": e["roofline"].mape, **{m: e[m].to_dict() for m in MODELS}}
                for by, value, e in self.groups
            ],
            "worst": self.worst,
            "energy": self.energy and self.energy.to_dict(),
            "skipped": [{"reason": r, "rows": n, "lines": [s.line for s in self.skipped if s.reason == r][:20]}
                        for r, n in reasons.most_common()],
            "skipped_rows": len(self.skipped),
        }  # fmt: skip


def validation_of(predictions: Predictions, calibration: Calibration, files: tuple[str, ...]) -> Validation:
    """The errors of some predictions; there is at least one."""
    p = predictions
    every = np.ones(len(p.table), dtype=bool)
    columns = {
        "gpu": p.arch, "op": p.table.text["op"], "kernel": p.table.text["kernel"], "rule": p.rule,
        "head_dim": p.table.numbers.get("head_dim"), "length": _lengths(p), "phase": _phases(p),
    }  # fmt: skip
    found = groups_of({k: v for k, v in columns.items() if v is not None})
    groups = [(by, value, _errors(p, mask)) for (by, value), mask in found.items()]
    return Validation(
        p, _errors(p, every), groups, _worst(p, calibration), p.table.skipped, files, _energy(p, calibration)
    )


def _energy(p: Predictions, calibration: Calibration) -> EnergyErrors | None:
    """The errors of energies, where some were measured."""
    found = p.energies(calibration)
    if found is None:
        return None

    def errors(mask: NDArray[np.bool_]) -> dict[str, Errors]:
        return {m: errors_of(v[mask], found.measured_j[mask]) for m, v in found.predicted_j.items()}

    columns = {"gpu": p.arch[found.rows], "op": p.table.text["op"][found.rows]}
    groups = [(by, value, errors(mask)) for (by, value), mask in groups_of(columns).items()]
    rows = [
        {**_shape(p, int(row)), "measured_j": float(found.measured_j[i]),
         **{f"{m}_j": float(v[i]) for m, v in found.predicted_j.items()}}
        for i, row in enumerate(found.rows)
    ]  # fmt: skip
    return EnergyErrors(errors(np.ones(len(rows), dtype=bool)), groups, rows)


def _errors(p: Predictions, mask: NDArray[np.bool_]) -> dict[str, Errors]:
    times = {"calibrated": p.calibrated_s, "mechanistic": p.mechanistic_s, "roofline": p.roofline_s}
    return {m: errors_of(times[m][mask], p.measured_s[mask]) for m in MODELS}


def _lengths(p: Predictions) -> NDArray[Any] | None:
    """The octave of the number of keys (or rows of a product)."""
    values = p.table.numbers.get("seq_kv", p.table.numbers.get("M"))
    return None if values is None else 2.0 ** np.floor(np.log2(values))


def _phases(p: Predictions) -> NDArray[Any] | None:
    """Prefill, decode or without a mask, as the shape says."""
    numbers = p.table.numbers
    if "seq_q" not in numbers:
        return None
    decode = (numbers["seq_q"] == 1) & (numbers["causal"] == 0) & (numbers["seq_kv"] > 1)
    phases = np.where(decode, "decode", np.where(numbers["causal"] == 1, "prefill", "non-causal")).astype(object)
    return np.where(np.isnan(numbers["seq_q"]), "", phases)


def _worst(p: Predictions, calibration: Calibration) -> list[dict[str, Any]]:
    """The points with the largest error of the calibrated model, with what bounds them according to it."""
    off = np.abs(np.log(p.calibrated_s / p.measured_s))
    rows = [int(i) for i in np.argsort(-off, kind="stable")[:WORST]]
    bounds = bounds_of(p, calibration, dict.fromkeys(rows))
    found = []
    for i in rows:
        found.append(
            {**_shape(p, i), "measured_us": p.measured_s[i] * 1e6,
             "calibrated_us": p.calibrated_s[i] * 1e6, "mechanistic_us": p.mechanistic_s[i] * 1e6,
             "rule": p.rule[i], "bound": bounds.get(i, "")}
        )  # fmt: skip
    return found


def _shape(p: Predictions, i: int) -> dict[str, Any]:
    """Where a row stands, and what was run."""
    numbers = {c: p.table.numbers[c][i] for c in _SHOWN if c in p.table.numbers}
    return {
        "line": int(p.table.lines[i]), "gpu": p.table.text["gpu"][i], "kernel": p.table.text["kernel"][i],
        "op": p.table.text["op"][i], **{c: int(v) for c, v in numbers.items() if v == v},
    }  # fmt: skip


__all__ = ["MODELS", "EnergyErrors", "Validation", "validation_of"]
