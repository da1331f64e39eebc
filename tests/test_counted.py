"""Cascades in many styles whose passes were counted by hand, and sums that must not cancel."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commandline import fusemodel
from references.build import cascade_of

from fusemodel.analysis import passes
from fusemodel.analysis.derive import derive
from fusemodel.analysis.derive.check import Check
from fusemodel.cascade import at_extents, extents_of, format_cascade, load_cascade, parse_cascade
from fusemodel.errors import InputError
from fusemodel.numerics import run

ENTRIES = yaml.safe_load((Path(__file__).parent / "cascades_counted.yaml").read_text())
COUNTED = {yaml.safe_load(e["file"])["name"]: e for e in ENTRIES}


@pytest.mark.parametrize("name", COUNTED)
def test_passes_as_written_and_as_derived(name):
    cascade = parse_cascade(COUNTED[name]["file"], name)
    expected = COUNTED[name]["counts"]
    written = passes(cascade, extents_of(cascade)).passes
    found = derive(cascade)
    assert {r: [written[r], found.passes_after[r]] for r in expected} == expected
    again = parse_cascade(format_cascade(found.cascade))
    after = passes(again, extents_of(again)).passes
    assert {r: after[r] for r in found.passes_after} == found.passes_after
    if found.stages:
        assert Check(cascade).same_numbers(again) is None
    several = [r for r, n in found.passes_after.items() if n > 1]
    assert all(any(r in reason for reason in found.obstacles) for r in several), "a reason for each that is left"


# Powers of differences

VARIANCE = """
MU[p] = mean[n](X[n, p])
D[n, p] = X[n, p] - MU[p]
VA[p] = mean[n](D[n, p] * D[n, p])
K4[p] = mean[n](pow(D[n, p], 4))
"""


def moments(equations=VARIANCE, outputs="MU, VA, K4", **more):
    given = {"ranks": "p: 3, n: 200", "inputs": "X: [n, p]"} | more
    return cascade_of(equations, outputs=outputs, **given)


@pytest.mark.parametrize("merge", ["running", "chunks"])
@pytest.mark.parametrize("mean", [0.0, 1e3, -1e7])
@pytest.mark.parametrize("first", [0.0, 1e7])
def test_central_moments_in_one_pass_keep_their_digits(merge, mean, first):
    """Also where the first element is far from all others. numpy subtracts the mean in a pass of its own."""
    cascade = moments("SM[p] = sum[n](X[n, p])\n" + VARIANCE.replace("mean[n](X[n, p])", "SM[p] / N", 1))
    found = derive(cascade, merge=merge)
    assert found.passes_after["n"] == 1
    x = mean + np.random.default_rng(1).standard_normal((200, 3))
    x[0] += first
    for tile in (7, 64, 200):
        made = run(found.cascade, {"X": x}, {"n0": tile}).outputs
        deviations = x - x.mean(axis=0)
        np.testing.assert_allclose(made["VA"], (deviations**2).mean(axis=0), rtol=1e-8)
        np.testing.assert_allclose(made["K4"], (deviations**4).mean(axis=0), rtol=1e-8)


def test_the_update_of_a_variance_is_that_of_chan():
    """M2 = M2_a + n_a * delta^2 + sum over the tile about the new mean; delta from the old mean to the new."""
    found = derive(moments(outputs="VA", equations=VARIANCE.split("K4")[0]))
    lines = format_cascade(found.cascade).splitlines()
    (update,) = [" ".join(line.split()) for line in lines if "min(n1 * N0, N)" in line]
    name = update.split("[")[0]
    assert (
        update == f"{name}[n1 + 1, p] = {name}[n1, p] + min(n1 * N0, N) * DMU[n1, p] * DMU[n1, p] + L{name[1:]}[n1, p]"
    )
    assert not any("side condition" in s for s in found.steps)


def test_weighted_moments_follow_a_mean_that_is_itself_rescaled():
    """Attentive statistics: softmax weights, mean and variance of the values, in one pass."""
    cascade = parse_cascade(COUNTED["attentive-stats"]["file"])
    found = derive(cascade)
    rng = np.random.default_rng(3)
    sizes = {"p": 4, "m": 37, "e": 3, "f": 2}
    x = {n: rng.standard_normal([sizes[r] for r in ranks]) for n, ranks in cascade.inputs.items()}
    x["V"] += 1e6
    score = np.einsum("ep,em->mp", x["Q"], x["K"])
    weight = np.exp(score - score.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = np.einsum("mp,fm->fp", weight, x["V"])
    spread = np.sqrt(np.einsum("mp,fmp->fp", weight, (x["V"][:, :, None] - mean[:, None, :]) ** 2))
    made = run(found.cascade, x, {"m0": 5}).outputs
    np.testing.assert_allclose(made["SG"], spread, rtol=1e-7)


def test_the_check_sees_what_cancels_far_from_zero():
    naive = "S[p] = mean[n](X[n, p])\nT[p] = mean[n](X[n, p] * X[n, p])\nVA[p] = T[p] - S[p] * S[p]"
    original = moments(outputs="VA", equations=VARIANCE.split("K4")[0])
    check, multiplied_out = Check(original), moments(outputs="VA", equations=naive)
    assert check.same_numbers(multiplied_out) is None
    assert check.cancels(multiplied_out)
    assert not check.cancels(derive(original).cascade)


def test_two_ranks_share_a_first_element_and_the_condition_is_said():
    found = derive(parse_cascade(COUNTED["bn-var-2d"]["file"]))
    assert any("relative to the first element" in s for s in found.steps)
    x = 1e6 + np.random.default_rng(5).standard_normal((12, 4, 10))
    made = run(found.cascade, {"X": x}).outputs["VA"]
    np.testing.assert_allclose(made, x.var(axis=(0, 2)), rtol=1e-8)


# Loops, splits, causal chunks


def test_a_user_s_split_gives_the_tiles():
    found = derive(parse_cascade(COUNTED["split-user"]["file"]))
    assert found.cascade.split == {"m": ("m1", "m0")}


def test_strict_causal_products_are_chunked():
    cascade = cascade_of(
        "S[m, p] = Q[e, p] * K[e, m] where m < p\nAV[f, p] = S[m, p] * V[f, m]",
        ranks="p: 1024, m: 1024, e: 16, f: 16", inputs="Q: [e, p], K: [e, m], V: [f, m]", outputs="AV",
    )  # fmt: skip
    found = derive(cascade)
    assert 10 * found.points_after < found.points_before
    assert Check(cascade).same_numbers(found.cascade) is None


def test_the_dual_form_of_a_state_space_layer_reaches_one_pass():
    found = derive(load_cascade("ssd-mamba2-quadratic"))
    assert (found.passes_before["m"], found.passes_after["m"]) == (2, 1)


def test_other_extents():
    cascade = at_extents(load_cascade("sinkhorn"), {"k": 7})
    assert derive(cascade).passes_after["i"] == 8
    with pytest.raises(InputError, match="unknown rank 'q'"):
        at_extents(cascade, {"q": 3})


def test_derive_at_other_extents_and_a_table_where_only_points_fall():
    found = json.loads(fusemodel("derive", "linear-attention", "--set", "p=64", "--json").out)
    assert "p: 64" in found["text"]
    assert fusemodel("derive", "linear-attention", "--set", "q=3").code == 2
    shown = fusemodel("derive", "flash-decoding").out
    assert [line.split() for line in shown.splitlines() if line.startswith(" c ")] == [["c", "2", "1"]]
    assert "in the way: m0: it is traversed 2 times on chip" in fusemodel("derive", "attention-1pass").out
