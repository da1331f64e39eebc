"""Energies per operation, fitted on rows made from known ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fusemodel.errors import InputError
from fusemodel.validate.measure.case import Case, work
from fusemodel.validate.measure.energy import EnergyFit, fit_energy
from fusemodel.validate.measure.plan import make_plan
from fusemodel.validate.measure.store import point_of

#: Watts at rest, and pJ per FLOP, byte and exponential, of a GPU that does not exist.
TRUTH = (80.0, 0.45, 40.0, 12.0)


def row(case: Case, truth: Sequence[float] = TRUTH, noise: float = 1.0, gpu: str = "Imagined") -> dict[str, Any]:
    """A case as measured where the model holds, at a time from rates of 600 TFLOP/s, 3 TB/s, 3.5 T exp/s."""
    need = work(case)
    seconds = max(need.flop / 6e14, need.bytes / 3e12, need.exps / 3.5e12) or 1.0
    joules = seconds * truth[0] + 1e-12 * (truth[1] * need.flop + truth[2] * need.bytes + truth[3] * need.exps)
    numbers = {"latency_us": 1e6 * seconds, "energy_j": joules * noise, "power_w": joules * noise / seconds}
    return {
        **point_of(case),
        "gpu": gpu,
        "repeat": 0,
        "flop": need.flop,
        "exps": need.exps,
        "bytes": need.bytes,
        **numbers,
    }


def energy_cases() -> list[Case]:
    return [e.case for e in make_plan(groups=["energy"]).groups[0].entries]


def terms(fit: EnergyFit) -> tuple[float | None, ...]:
    return fit.idle_w, fit.pj_per_flop, fit.pj_per_byte, fit.pj_per_exp


def test_the_planned_kernels_tell_the_energies_and_foretell_the_rest() -> None:
    rows = [row(c) for c in energy_cases()]
    fit = fit_energy(rows)
    assert terms(fit) == pytest.approx(TRUTH)
    assert sum(r.fitted for r in fit.rows) == 7
    assert sum(not r.fitted for r in fit.rows) == 6
    assert fit.error_pct(fitted=False) == pytest.approx(0, abs=1e-6)
    as_read = [{k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in r.items()} for r in rows]
    assert terms(fit_energy(as_read)) == pytest.approx(TRUTH, rel=1e-3)


def test_noise_of_two_per_cent_moves_them_little() -> None:
    rng = np.random.default_rng(1)
    fit = fit_energy([row(c, noise=1 + 0.02 * rng.standard_normal()) for c in energy_cases()])
    assert terms(fit) == pytest.approx(TRUTH, rel=0.2)
    assert (fit.error_pct(fitted=True) or 0) < 3
    assert (fit.error_pct(fitted=False) or 0) < 6


def test_attention_that_draws_more_is_seen_and_not_fitted_away() -> None:
    rows = [row(c, noise=1.5 if c.heads else 1.0) for c in energy_cases()]
    fit = fit_energy(rows)
    assert terms(fit) == pytest.approx(TRUTH)
    assert fit.error_pct(fitted=False) == pytest.approx(100 / 3)


def test_no_energy_is_below_zero() -> None:
    fit = fit_energy([row(c, (80.0, 0.45, -3.0, 12.0)) for c in energy_cases()])
    assert fit.pj_per_byte == 0
    assert all(t is not None and t >= 0 for t in terms(fit))


def test_what_was_not_measured_is_not_made_up() -> None:
    without = [row(c) for c in energy_cases() if c.op != "exp2_loop"]
    assert terms(fit_energy(without)) == pytest.approx((*TRUTH[:3], None))
    blank = [{**row(c), "energy_j": ""} for c in energy_cases()]
    for rows in ([], blank, [row(c) for c in energy_cases() if c.heads]):
        with pytest.raises(InputError, match="rows to fit energies on"):
            fit_energy(rows)


def test_each_gpu_has_its_own() -> None:
    rows = [row(c) for c in energy_cases()] + [row(c, (30.0, 1.0, 60.0, 20.0), gpu="Other") for c in energy_cases()]
    assert terms(fit_energy(rows, "Other")) == pytest.approx((30.0, 1.0, 60.0, 20.0))
    with pytest.raises(InputError, match="several GPUs; expected one of Imagined, Other"):
        fit_energy(rows)
