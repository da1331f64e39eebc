"""Plans and reports as JSON and as plain text: no library is needed to read what was measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusemodel.errors import InputError
from fusemodel.validate.measure.plan import Plan, make_plan
from fusemodel.validate.measure.run import Progress, Report, Settings, find_machine
from fusemodel.validate.measure.store import COLUMNS, read

if TYPE_CHECKING:
    from fusemodel.validate.measure.energy import EnergyFit


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan: its groups, how long each is foretold to take, and every point in its order."""
    return {
        "points": plan.points,
        "estimate_s": round(sum(g.estimate_s for g in plan.groups), 1),
        "budget_s": plan.budget_s,
        "seed": plan.seed,
        "machine": asdict(plan.machine),
        "groups": [
            {
                "group": g.name, "about": g.about, "points": sum(len(e.modes) for e in g.entries),
                "estimate_s": round(g.estimate_s, 1), "budget_s": round(g.budget_s, 1),
                "deadline_s": round(g.deadline_s, 1), "too_large": [str(c) for c in g.too_large],
                "missing": [{"kernel": k, "reason": why, "points": n} for k, why, n in g.missing],
                "cases": [{**e.case.to_dict(), "l2": list(e.modes), "estimate_s": round(e.estimate_s, 2)}
                          for e in g.entries],
            }
            for g in plan.groups
        ],
    }  # fmt: skip


def plan_text(plan: Plan, *, cases: bool = True) -> str:
    """A plan as lines: groups, then the cases of each in the order they are measured."""
    of = plan.machine
    device = f"{of.sms} multiprocessors, {of.memory_bytes / 1e9:.0f} GB" + (" (assumed)" if of.assumed else "")
    total = sum(g.estimate_s for g in plan.groups)
    lines = [f"{plan.points} points, about {total:.0f} s of {plan.budget_s:.0f} s, on {device}", ""]
    lines += _columns(
        ("group", "points", "about s", "budget s", "until s", "left out", ""),
        [
            (g.name, sum(len(e.modes) for e in g.entries), f"{g.estimate_s:.0f}", f"{g.budget_s:.0f}",
             f"{g.deadline_s:.0f}", len(g.too_large), g.about)
            for g in plan.groups
        ],
    )  # fmt: skip
    for g in plan.groups if cases else ():
        lines += ["", f"{g.name}:"]
        lines += [f"  {e.case}  [{', '.join(e.modes)}]  {e.estimate_s:.2f} s" for e in g.entries]
        lines += [f"  {c}  too large" for c in g.too_large]
    missing = [f"{kernel}: left out, {why}" for g in plan.groups for kernel, why, _ in g.missing]
    lines += ["", *missing] if missing else []
    return "\n".join(lines)


def report_data(report: Report) -> dict[str, Any]:
    """A report as JSON, with the energies per operation where the energy group was measured."""
    fit = _energies(report)
    energy = None if fit is None else asdict(fit) | {"fitted_error_pct": fit.error_pct(fitted=True),
                                                     "unseen_error_pct": fit.error_pct(fitted=False)}  # fmt: skip
    return {**asdict(report), "total": asdict(report.total), "energy": energy}


def report_text(report: Report) -> str:
    """A report as lines."""
    names = ("planned", "measured", "there", "failed", "left")
    rows = [(name, *(getattr(c, n) for n in names), f"{c.seconds:.0f}") for name, c in report.groups.items()]
    lines = _columns(("group", *names, "s"), [*rows, ("total", *(getattr(report.total, n) for n in names),
                                                      f"{report.seconds:.0f}")])  # fmt: skip
    lines.append("")
    if report.drift:
        d = report.drift
        lines.append(f"{d.points} points again: median {d.median_pct:+.2f} %, in size {d.median_abs_pct:.2f} %, "
                     f"at most {d.max_abs_pct:.2f} %")  # fmt: skip
    if report.idle_w is not None:
        lines.append(f"at rest {report.idle_w:.1f} W")
    if fit := _energies(report):
        told = [f"{v:.3g} pJ per {name}" for name in ("flop", "byte", "exp")
                if (v := getattr(fit, f"pj_per_{name}")) is not None]  # fmt: skip
        errors = [f"{kind} {e:.1f} %" for kind, seen in (("on its own rows", True), ("on unseen rows", False))
                  if (e := fit.error_pct(fitted=seen)) is not None]  # fmt: skip
        lines.append(f"energy: {fit.idle_w:.0f} W, {', '.join(told)}; mean error {', '.join(errors)}")
    if report.repaired:
        lines.append("a last line that was cut off was removed before")
    if report.total.failed:
        lines.append(f"failures are in {report.failures}")
    lines.append(f"{report.gpu}: {report.out}")
    return "\n".join(lines)


def _energies(report: Report) -> EnergyFit | None:
    """The fit of the rows of this report's table and GPU; None where there are too few, or no NumPy to fit with."""
    try:
        from fusemodel.validate.measure.energy import fit_energy

        return fit_energy(read(Path(report.out), COLUMNS), report.gpu)
    except (ImportError, InputError):
        return None


def _columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    first = [i == 0 or header[i] == "" for i in range(len(header))]
    return [
        "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, first, strict=True)).rstrip()
        for row in cells
    ]


def planned(settings: Settings) -> Plan:
    """The plan of some settings for the GPU of this machine, or for an assumed one where there is none."""
    make_plan(groups=settings.groups, minutes=settings.minutes, dtype=settings.dtype)
    return make_plan(find_machine(), groups=settings.groups, minutes=settings.minutes, dtype=settings.dtype,
                     seed=settings.seed)  # fmt: skip


def line_progress() -> Progress:
    """Progress as a line on standard error for each group and for every twentieth point of it."""

    def show(group: str, done: int, total: int, text: str) -> None:
        if done == total or done % 20 == 0:
            sys.stderr.write(f"{group} {done}/{total} {text}\n")
            sys.stderr.flush()

    return show
