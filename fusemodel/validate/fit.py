"""Fitting the named efficiencies on one machine's measurements; they are carried to others unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.arch import Architecture
from fusemodel.errors import InputError
from fusemodel.validate.calibration import Calibration
from fusemodel.validate.errors import errors_of
from fusemodel.validate.predict import Counted, count_table, times_of
from fusemodel.validate.rules import Rules, machines, plain_name
from fusemodel.validate.table import SHAPES, Table

Floats = NDArray[np.float64]
#: Relative errors beyond this count less and less in the fit (pseudo-Huber), so that no odd point decides it.
SOFT = 0.10


@dataclass(frozen=True)
class Fitted:
    """A calibration, the rows it was fitted on, those held out, and the errors on each."""

    calibration: Calibration
    text: str


def held_out(table: Table) -> NDArray[np.bool_]:
    """Half of the shapes, chosen by a hash of each, so that the choice is the same for any order of rows."""
    columns = [table.numbers[c] for shape in SHAPES for c in shape if c in table.numbers and c != "latency_us"]
    found = []
    for values in zip(*columns, strict=True):
        text = ",".join(f"{v:g}" for v in values)
        found.append(hashlib.sha256(text.encode()).digest()[0] % 2 == 1)
    return np.array(found, dtype=bool)


def fit(
    tables: Sequence[Table], rules: Rules, names_of: Calibration, progress: Callable[[str], object] = str,
    machine: str | None = None,
) -> Fitted:  # fmt: skip
    """Fit the efficiencies that a calibration names, on half of the shapes of some tables of one machine (of several,
    the one given), beginning with the values in the machine's file."""
    parts: list[tuple[Floats, tuple[Counted, ...], NDArray[np.bool_]]] = []
    weights: list[Floats] = []
    found: dict[str, Architecture] = {}
    for table in tables:
        kept, counted, _ = count_table(table if machine is None else _of(table, machine), rules)
        found |= {c.chosen.arch.name: c.chosen.arch for c in counted}
        out = held_out(kept)
        parts.append((kept.numbers["latency_us"] * 1e-6, counted, out))
        weights.append(_weights(kept.text["op"])[~_in_campaign(counted, len(kept)) & ~out])
    if len(found) != 1:
        raise InputError(f"measurements of {len(found)} machines to fit on", expected="those of one")
    start = _of_machine(names_of, next(iter(found.values())))
    names = _names(start)
    values = _values(start, names)
    campaigns = sorted({c.chosen.rule.spec.name for _, cs, _ in parts for c in cs if c.chosen.rule.spec.campaign})

    def residuals(x: Floats, of: bool) -> Floats:
        calibration = _calibration(start, names, x, {})
        found = []
        for measured, counted, out in parts:
            normal = ~_in_campaign(counted, len(measured)) & (out == of)
            found.append(np.log(times_of(counted, len(measured), calibration)[normal] / measured[normal]))
        return np.concatenate(found)

    best = _least_squares(lambda x: residuals(x, False), np.concatenate(weights), values, names, progress)
    calibration = _calibration(start, names, best, {})
    slow = {name: _slowed(name, parts, calibration) for name in campaigns}
    calibration = _calibration(start, names, best, slow)
    return Fitted(calibration, _text(calibration, tables, parts, next(iter(found)), names))


def _of(table: Table, machine: str) -> Table:
    """The rows of a table that were measured on one machine."""
    known = machines()
    return table.only(np.array([known.get(plain_name(g)) == machine for g in table.text["gpu"]], dtype=bool))


def _of_machine(names_of: Calibration, arch: Architecture) -> Calibration:
    """The values in a machine's file of what a calibration names."""
    return Calibration(
        {n: min(arch.achieved.get(n, 1.0), 1.0) for n in names_of.achieved},
        {n: arch.overheads_s[n] for n in names_of.overheads_s}, arch.overlap, arch.tail,
        {n: arch.cycles_of[n] for n in names_of.cycles_of},
        copies={arch.outermost: arch.achieved[arch.outermost]} if arch.outermost in arch.achieved else {},
    )  # fmt: skip


def _names(start: Calibration) -> list[tuple[str, str]]:
    return [
        *(("achieved", n) for n in start.achieved), *(("overheads", n) for n in start.overheads_s),
        *(("cycles", n) for n in start.cycles_of), ("overlap", ""), ("tail", ""),
    ]  # fmt: skip


def _values(start: Calibration, names: Sequence[tuple[str, str]]) -> Floats:
    of = {"achieved": start.achieved, "overheads": start.overheads_s, "cycles": start.cycles_of}
    return np.array([of[k][n] if k in of else max(getattr(start, k), 0.05) for k, n in names])


def _limits(names: Sequence[tuple[str, str]]) -> tuple[Floats, Floats]:
    """No rate is exceeded, and no time is less than about a tenth of a microsecond or more than about fifty."""
    low = [{"achieved": 0.05, "overheads": 1e-7, "cycles": 100}.get(k, 0.0) for k, _ in names]
    high = [{"achieved": 1.0, "overheads": 5e-5, "cycles": 1e5}.get(k, 1.0) for k, _ in names]
    return np.array(low), np.array(high)


def _calibration(start: Calibration, names: Sequence[tuple[str, str]], x: Floats, slow) -> Calibration:
    of: dict[str, Any] = {
        "achieved": dict(start.achieved), "overheads": dict(start.overheads_s), "cycles": dict(start.cycles_of)
    }  # fmt: skip
    for (kind, name), value in zip(names, x.tolist(), strict=True):
        if name:
            of[kind][name] = value
        else:
            of[kind] = value
    return Calibration(
        of["achieved"], of["overheads"], of["overlap"], of["tail"], of["cycles"], slow, copies=start.copies
    )


def _weights(operations: NDArray[Any]) -> Floats:
    """One over the number of rows of each operation, so that they count alike; 1 on average."""
    _, kind, count = np.unique(operations.astype(str), return_inverse=True, return_counts=True)
    return (len(operations) / (len(count) * count))[kind]


def _in_campaign(counted: Sequence[Counted], length: int) -> NDArray[np.bool_]:
    mask = np.zeros(length, dtype=bool)
    for c in counted:
        if c.chosen.rule.spec.campaign:
            mask[c.chosen.rows] = True
    return mask


def _least_squares(
    residuals: Callable[[Floats], Floats], importance: Floats, x: Floats, names: Sequence[tuple[str, str]],
    progress: Callable[[str], object],
) -> Floats:  # fmt: skip
    """Damped Gauss-Newton (Levenberg, 1944; Marquardt, 1963) on pseudo-Huber losses, inside limits."""
    low, high = _limits(names)
    scale = np.maximum(np.abs(x), 0.05 * np.where(high <= 1e-4, 1e-5, np.minimum(high, 1.0)))
    x = np.clip(x, low, high)
    r = residuals(x)
    damping, loss = 1e-2, _loss(r, importance)
    for step in range(60):
        progress(f"step {step + 1}: {100 * float(np.abs(np.expm1(r)).mean()):.2f} % mean error")
        weights = importance / np.sqrt(1 + (r / SOFT) ** 2)
        columns = []
        for i in range(len(x)):
            h = 1e-3 * scale[i]
            h = -h if x[i] + h > high[i] else h
            moved = x.copy()
            moved[i] += h
            columns.append((residuals(moved) - r) / h * scale[i])
        jacobian = np.stack(columns, axis=1)
        normal = jacobian.T @ (jacobian * weights[:, None])
        slope = jacobian.T @ (weights * r)
        while damping < 1e8:
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -slope) * scale
            tried = np.clip(x + move, low, high)
            new = residuals(tried)
            if _loss(new, importance) < loss:
                break
            damping *= 4
        else:
            return x
        better = loss - _loss(new, importance)
        x, r, loss, damping = tried, new, _loss(new, importance), damping / 6
        if better < 1e-6 * loss:
            return x
    return x


def _loss(r: Floats, importance: Floats) -> float:
    return float((importance * (np.sqrt(1 + (r / SOFT) ** 2) - 1)).sum())


def _slowed(rule: str, parts, calibration: Calibration) -> tuple[float, float]:
    """Where clocks fell in a campaign, and to what: the best of a grid, on the half that is not held out."""
    predicted, measured = [], []
    for times, counted, out in parts:
        rows = np.concatenate(
            [c.chosen.rows for c in counted if c.chosen.rule.spec.name == rule] or [np.array([], int)]
        )
        rows = rows[~out[rows]]
        predicted.append(times_of(counted, len(times), calibration)[rows])
        measured.append(times[rows])
    p, m = np.concatenate(predicted), np.concatenate(measured)
    best, least = (1.0, 1.0), np.inf
    for after in np.geomspace(5e-5, 5e-3, 41):
        for rate in np.linspace(0.2, 1, 81):
            error = float(np.mean(np.abs((np.minimum(p, after) + np.maximum(p - after, 0) / rate) / m - 1)))
            if error < least:
                best, least = (float(after), float(rate)), error
    return best


def _text(calibration: Calibration, tables, parts, machine: str, names) -> str:
    """The file that keeps a calibration."""
    halves = {}
    for label, of in (("fitted", False), ("held out", True)):
        p, m = [], []
        for measured, counted, out in parts:
            times = times_of(counted, len(measured), calibration)
            p.append(times[out == of])
            m.append(measured[out == of])
        halves[label] = errors_of(np.concatenate(p), np.concatenate(m))
    lines = [
        "# Written by `fusemodel validate --fit`; change it with that command.",
        "name: calibrated",
        f"about: {len(names)} named efficiencies fitted on {machine}, carried to other machines unchanged",
        "fitted:",
        f"  arch: {machine}",
        "  data:",
    ]
    for table, (measured, _, _) in zip(tables, parts, strict=True):
        sources = sorted({s.split()[0] for s in table.text["source"].tolist() if s})
        lines.append(
            f'    - {{file: {Path(table.file).name}, rows: {len(measured)}, source: "{", ".join(sources)[:120]}"}}'
        )
    lines.append("  half: shapes whose hash is even are fitted on, the others held out")
    for label, errors in halves.items():
        lines.append(
            f"  {label.replace(' ', '_')}: {{points: {errors.points}, mape: {errors.mape:.2f}, "
            f"median_ape: {errors.median_ape:.2f}}}"
        )
    lines += ["achieved:", *(f"  {n}: {v:.4f}" for n, v in calibration.achieved.items())]
    if calibration.copies:
        lines.append("copies:                               # what they reach on the machine fitted on")
        lines += [f"  {n}: {v:.4f}" for n, v in calibration.copies.items()]
    lines += ["overheads:", *(f"  {n}: {v * 1e6:.3f} us" for n, v in calibration.overheads_s.items())]
    lines += ["overhead_cycles:", *(f"  {n}: {v:.0f}" for n, v in calibration.cycles_of.items())]
    lines += [f"overlap: {calibration.overlap:.4f}", f"tail: {calibration.tail:.4f}"]
    if calibration.slow:
        lines.append(
            "campaigns:                            # measured while clocks fell; not carried to other machines"
        )
        for rule, (after, rate) in calibration.slow.items():
            lines.append(f'  - {{rule: "{rule}", after: {after * 1e6:.1f} us, rate: {rate:.3f}}}')
    return "\n".join(lines) + "\n"


__all__ = ["Fitted", "fit", "held_out"]
