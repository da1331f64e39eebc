"""Energy per operation, from the power of kernels under steady load.

Power is taken to be P = P_idle + e_flop * FLOP/s + e_byte * bytes/s + e_exp * exp/s, no coefficient below zero: the
linear model of Choi et al. (A roofline model of energy, IPDPS 2013), with exponentials as a third kind of work. It is
fitted on kernels that do mainly one thing and judged on those it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusemodel.errors import InputError

#: Operations that are fitted on; the others are predicted.
FITTED = ("idle", "gemm", "copy", "exp2_loop")
#: Coefficients, in their order.
TERMS = ("idle_w", "pj_per_flop", "pj_per_byte", "pj_per_exp")


@dataclass(frozen=True, slots=True)
class Energy:
    """A kernel under load: what it drew and what the coefficients say, for one launch."""

    label: str
    fitted: bool
    latency_us: float
    power_w: float
    predicted_w: float

    @property
    def error_pct(self) -> float:
        """Of the predicted power, and so of the energy, relative to the measured."""
        return 100 * (self.predicted_w / self.power_w - 1)


@dataclass(frozen=True, slots=True)
class EnergyFit:
    """Coefficients of one GPU; ``pj_per_byte`` is per byte of compulsory traffic to the device's memory. What the fit
    cannot tell, because no kernel did it, is None."""

    gpu: str
    idle_w: float
    pj_per_flop: float | None
    pj_per_byte: float | None
    pj_per_exp: float | None
    rows: tuple[Energy, ...]

    def error_pct(self, *, fitted: bool) -> float | None:
        """Mean absolute error of the rows that were fitted on, or of those that were not."""
        errors = [abs(r.error_pct) for r in self.rows if r.fitted == fitted]
        return float(np.mean(errors)) if errors else None


def fit_energy(rows: Sequence[Mapping[str, Any]], gpu: str | None = None) -> EnergyFit:
    """Least squares over the rows of the energy group of one GPU, each weighted by its power, so that errors are
    relative.

    Rows are those of a table of measurements (numbers or their texts). InputError where there are rows of several GPUs
    and none is named, or too few to fit."""
    loaded = [r for r in rows if r["group"] == "energy" and str(r.get("repeat", "0")) in ("0", "") and _has_power(r)]
    names = sorted({str(r["gpu"]) for r in loaded})
    if gpu is None and len(names) > 1:
        raise InputError("there are energies of several GPUs", expected=f"one of {', '.join(names)}")
    gpu = gpu if gpu is not None else (names[0] if names else "")
    loaded = [r for r in loaded if r["gpu"] == gpu]
    work = np.array([_rates(r) for r in loaded]).reshape(-1, len(TERMS))
    power = np.array([float(r["power_w"]) for r in loaded])
    seen = np.array([r["op"] in FITTED for r in loaded], dtype=bool)
    told = [i for i in range(len(TERMS)) if seen.any() and np.any(work[seen, i] > 0)]
    if seen.sum() < max(len(told), 2) or 0 not in told:
        raise InputError(
            f"{int(seen.sum())} rows to fit energies on" + (f" for {gpu!r}" if gpu else ""),
            expected="the energy group's products, copies, loops and idle, with the power they drew",
        )
    columns = work[seen][:, told] / power[seen, None]
    found = dict(zip(told, _non_negative(columns, np.ones(int(seen.sum()))), strict=True))
    told_w = work[:, told] @ np.array([found[i] for i in told])
    made = tuple(
        Energy(_label(r), bool(s), float(r["latency_us"]), float(p), float(w))
        for r, s, p, w in zip(loaded, seen, power, told_w, strict=True)
    )
    values = [found.get(i) for i in range(len(TERMS))]
    return EnergyFit(gpu, float(values[0] or 0.0), *(None if v is None else float(v) for v in values[1:]), rows=made)


def _has_power(row: Mapping[str, Any]) -> bool:
    """Whether the energy counter was read: without it there is only the power at a few moments."""
    return all(row.get(c) not in ("", None) and float(row[c]) > 0 for c in ("power_w", "energy_j", "latency_us"))


def _rates(row: Mapping[str, Any]) -> tuple[float, ...]:
    """What each coefficient is multiplied by, in watts: 1 W, and 1e-12 J of each kind of work per second."""
    per_s = 1e6 / float(row["latency_us"])
    return (1.0, *(1e-12 * float(row[c] or 0) * per_s for c in ("flop", "bytes", "exps")))


def _non_negative(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with no coefficient below zero: the best of all sets of coefficients, at most sixteen."""
    count = columns.shape[1]
    best, least = np.zeros(count), float("inf")
    for chosen in range(1, 2**count):
        on = [i for i in range(count) if chosen >> i & 1]
        part, *_ = np.linalg.lstsq(columns[:, on], target, rcond=None)
        left = float(np.sum((columns[:, on] @ part - target) ** 2))
        if np.all(part >= 0) and left < least * (1 - 1e-9) - 1e-15:
            least, best = left, np.zeros(count)
            best[on] = part
    return best


def _label(row: Mapping[str, Any]) -> str:
    """A kernel and its shape, short."""
    shape = [f"{c}={row[c]}" for c in ("batch", "heads", "seq_q", "seq_kv", "head_dim", "M", "N", "K")
             if str(row.get(c, "0")) not in ("", "0", "1")]  # fmt: skip
    return " ".join([str(row["kernel"]), *shape, *(["causal"] if str(row.get("causal")) == "1" else [])])
