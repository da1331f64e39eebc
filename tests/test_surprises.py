"""Passes that differ from what is said of a mechanism elsewhere: the argument for each, as in docs/analysis.md."""

from pathlib import Path

import numpy as np
import pytest
from mechanisms import loaded, passes_over

from fusemodel.analysis import passes
from fusemodel.cascade import extents_of, parse_cascade
from fusemodel.numerics import compare, random_inputs, run

COUNTED = {  # as written and as derived here; the same elsewhere
    "lvlm-boost": ((4, 1), (3, 1)),
    "pgqa": ((3, 1), (4, 2)),
    "linear-attention-causal-quadratic": ((2, 1), (1, 1)),
    "ssd-mamba2-quadratic": ((2, 1), (1, 1)),
    "lvlm-boost-choice": ((5, 3), (2, 2)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_and_the_page_that_explains_them(name):
    ours, elsewhere = COUNTED[name]
    assert passes_over(name, "m") == [ours]
    assert ours != elsewhere
    page = (Path(__file__).parents[1] / "docs" / "analysis.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"| m | {ours[0]}, derived {ours[1]} | {elsewhere[0]}" in row


def edited(name, *changes):
    text = Path(loaded(name).file).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_cascade(text)


def over_m(cascade):
    return passes(cascade, extents_of(cascade)).passes["m"]


def test_a_second_normalisation_is_the_fourth_pass():
    once = edited(
        "lvlm-boost",
        ("  AD[b, h, p]    = sum[m](AB[b, h, p, m])\n", ""),
        ("  AR[b, h, p, m] = AB[b, h, p, m] / AD[b, h, p]\n", ""),
        ("AR[b, h, p, m] * V", "AB[b, h, p, m] * V"),
    )
    assert over_m(once) == over_m(loaded("lvlm-boost-bias")) == 3


def test_noise_on_an_output_adds_no_pass_over_keys():
    assert over_m(loaded("pgqa")) == over_m(loaded("gqa")) == over_m(loaded("kdgqa")) - 1


def test_a_division_of_sums_waits_for_no_row():
    later = edited(
        "linear-attention-causal-quadratic",
        ("  A[m, p]  = QK[m, p] / DEN[p]\n  O[f, p]  = A[m, p] * V[f, m]", "  N[f, p]  = QK[m, p] * V[f, m]\n"
         "  O[f, p]  = N[f, p] / DEN[p]"),
    )  # fmt: skip
    assert over_m(later) == 1
    assert compare(later).max_rel_error < 1e-10


def test_sums_of_decays_are_what_a_state_space_waits_for():
    given = edited(
        "ssd-mamba2-quadratic",
        ("  LC[0, r]    = 0\n", ""), ("  LC[m+1, r]  = LC[m, r] + LA[r, m]\n", ""),
        ("  RA[g, r]    = exp(AL[g, r])\n", ""),
        ("  LA[r, m]    = -DT[r, m] * RA[g, r]\n", ""), ("  AL: [g, r]        # logarithm of the decay rate\n", ""),
        ("inputs:\n", "inputs:\n  LP: [r, p]\n  LC: [r, m]\n"),
        ("exp(LC[p + 1, r] - LC[m + 1, r])", "exp(LP[r, p] - LC[r, m])"),
    )  # fmt: skip
    assert over_m(given) == 1
    chunked = loaded("ssd-mamba2-chunked")
    assert passes(chunked, extents_of(chunked)).passes["i"] == 1


def test_two_sweeps_and_a_gather_raise_what_was_chosen():
    """Numerators and denominators of all tokens from the sweep that chooses; the chosen ones read again, no other."""
    cascade = loaded("lvlm-boost-choice")
    n = extents_of(cascade, dict(cascade.test))
    x = random_inputs(cascade, n, seed=2)
    result = run(cascade, x)
    for b, h, p in np.ndindex(n["b"], n["h"], n["p"]):
        scores = np.exp(x["Q"][b, h, :, p] @ x["K"][b, h, :, : p + 1] / np.sqrt(n["e"]))
        values = x["V"][b, h, :, : p + 1]
        numerator, denominator = values @ scores, scores.sum()
        chosen = np.flatnonzero(result["TOP"][b, : p + 1])
        gain = result["GAIN"][b, h]
        raised = numerator + gain * values[:, chosen] @ scores[chosen]
        np.testing.assert_allclose(
            result["O"][b, h, :, p], raised / (denominator + gain * scores[chosen].sum()), rtol=1e-10, atol=1e-12
        )
