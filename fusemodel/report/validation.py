"""Predictions against measurements, as terminal tables and as a figure."""

from __future__ import annotations

from collections import Counter

import numpy as np
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.text import Text

from fusemodel.report.plain import PlainTable
from fusemodel.validate.errors import Errors
from fusemodel.validate.report import MODELS, EnergyErrors, Validation

_HEAD = ("points", "calibrated %", "median %", "p90 %", "bias %", "tau", "mechanistic %", "roofline %")


def validation_table(result: Validation, by: str | None = None) -> RenderableType:
    """Errors of the models together and by group, the worst points and what was left out."""
    parts: list[RenderableType] = []
    kinds = dict.fromkeys(k for k, _, _ in result.groups)
    table = _table("Mean absolute error against measured times", "")
    table.add_row("all points", *_cells(result.errors))
    parts.append(table)
    for kind in kinds:
        if by is None or kind == by:
            table = _table(f"By {kind.replace('_', ' ')}", kind)
            for k, value, errors in result.groups:
                if k == kind:
                    table.add_row(value, *_cells(errors))
            parts.append(table)
    parts.append(_worst(result))
    if result.energy:
        parts.append(_energy(result.energy))
    if result.skipped:
        counted = Counter(s.reason for s in result.skipped)
        table = PlainTable("rows", "first line", "reason", title=f"Left out: {len(result.skipped)} rows")
        for reason, n in counted.most_common(12):
            table.add_row(n, next(s.line for s in result.skipped if s.reason == reason), reason)
        parts.append(table)
    return Group(*[x for p in parts for x in (p, Text(""))][:-1])


def _table(title: str, first: str) -> PlainTable:
    table = PlainTable(title=title)
    table.add_column(first, no_wrap=True, overflow="fold")
    for column in _HEAD:
        table.add_column(column.replace(" %", "\n%"), justify="right", no_wrap=True)
    return table


def _cells(errors: dict[str, Errors]) -> list[str]:
    own = errors["calibrated"]
    tau = "" if own.kendall_tau is None else f"{own.kendall_tau:.3f}"
    return [
        f"{own.points:,}", f"{own.mape:.1f}", f"{own.median_ape:.1f}", f"{own.p90_ape:.1f}", f"{own.bias:+.1f}", tau,
        f"{errors['mechanistic'].mape:.1f}", f"{errors['roofline'].mape:.1f}",
    ]  # fmt: skip


def _energy(energy: EnergyErrors) -> RenderableType:
    """Predicted energies against measured ones, row by row, and the mean absolute errors."""
    mean = ", ".join(f"{m} {e.mape:.1f} %" for m, e in energy.errors.items())
    table = PlainTable(title=f"Energy of a launch, {len(energy.rows)} rows, mean absolute error: {mean}")
    for column in ("line", "gpu", "kernel", "op", "shape"):
        table.add_column(column, no_wrap=True)
    for column in ("measured\nmJ", "calibrated\nmJ", "%", "mechanistic\nmJ", "%"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in energy.rows:
        shape = " ".join(f"{row[c]}" for c in _EXTENTS if c in row)
        cells = [f"{1e3 * row['measured_j']:.1f}"]
        for model in energy.errors:
            cells += [f"{1e3 * row[f'{model}_j']:.1f}", f"{100 * (row[f'{model}_j'] / row['measured_j'] - 1):+.0f}"]
        table.add_row(row["line"], row["gpu"], row["kernel"], row["op"], shape, *cells)
    return table


_EXTENTS = ("batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "M", "N", "K")


def _worst(result: Validation) -> RenderableType:
    shape = list(dict.fromkeys(c for w in result.worst for c in w if c not in _NOT_SHAPE))
    table = PlainTable(title="The worst points of the calibrated model, and what it thinks bounds them")
    for column in ("line", "kernel", *shape):
        table.add_column(column.replace("_", "\n"), no_wrap=True)
    for column in ("measured\nus", "calibrated\nus", "mechanistic\nus"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    for w in result.worst:
        times = (f"{w[c]:,.1f}" for c in ("measured_us", "calibrated_us", "mechanistic_us"))
        table.add_row(w["line"], w["kernel"], *(w.get(c, "") for c in shape), *times, w["bound"])
    return table


_NOT_SHAPE = {
    "line", "gpu", "kernel", "op", "measured_us", "calibrated_us", "mechanistic_us", "rule", "bound"
}  # fmt: skip


def errors_figure(result: Validation) -> Figure:
    """Predicted against measured time for each model, every point one dot, coloured by phase or operation."""
    p = result.predictions
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    kinds = p.table.text["op"]
    names = sorted(set(kinds.tolist()))
    measured = p.measured_s * 1e6
    times = {"calibrated": p.calibrated_s, "mechanistic": p.mechanistic_s, "roofline": p.roofline_s}
    low = min(measured.min(), *(t.min() * 1e6 for t in times.values())) / 1.5
    high = max(measured.max(), *(t.max() * 1e6 for t in times.values())) * 1.5
    for i, model in enumerate(MODELS):
        axes = figure.add_subplot(1, 3, i + 1)
        for j, name in enumerate(names):
            mask = kinds == name
            label = name or "attention"
            axes.plot(measured[mask], times[model][mask] * 1e6, "o", ms=2, alpha=0.5, color=f"C{j % 10}", label=label)
        line = np.array([low, high])
        axes.plot(line, line, color="black", lw=0.8)
        axes.plot(line, line * 1.2, line, line / 1.2, color="black", lw=0.4, ls="--")
        found = result.errors[model]
        axes.set(
            xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="measured (us)",
            ylabel="predicted (us)", title=f"{model}: {found.mape:.1f} % mean error of {found.points:,}",
        )  # fmt: skip
        axes.grid(alpha=0.2)
        if i == 0:
            axes.legend(fontsize=8, frameon=False, markerscale=3)
    return figure


__all__ = ["errors_figure", "validation_table"]
