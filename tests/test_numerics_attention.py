"""Attention cascades against independent attention, at many shapes and masks."""

import re

import numpy as np
import pytest
from references.attention import attention, attention_by_loops
from references.build import cascade_of

from fusemodel.cascade import extents_of, load_cascade
from fusemodel.numerics import random_inputs, run

# b, h, p, m, e, f, m0
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1, 5), (1, 1, 1, 7, 3, 2, 3), (1, 1, 7, 1, 3, 2, 4), (1, 2, 5, 8, 4, 3, 4),
    (2, 1, 3, 9, 2, 5, 4), (2, 3, 37, 53, 8, 5, 16), (2, 3, 4, 6, 8, 5, 1), (1, 1, 4, 6, 1, 1, 6),
    (1, 1, 4, 6, 3, 1, 64), (3, 1, 2, 13, 1, 4, 5), (1, 4, 16, 17, 2, 2, 16),
]  # fmt: skip


def at(name, shape):
    sizes = dict(zip(("b", "h", "p", "m", "e", "f", "m0"), shape, strict=True))
    cascade = load_cascade(name)
    return cascade, {r: n for r, n in sizes.items() if r in cascade.ranks}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["attention-3pass", "attention-1pass"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_equals_attention(name, shape, dtype, tolerance):
    cascade, extents = at(name, shape)
    inputs = random_inputs(cascade, extents_of(cascade, extents), seed=1)
    expected = attention(inputs["Q"], inputs["K"], inputs["V"])
    result = run(cascade, inputs, extents, dtype=dtype)
    assert result["AV"].dtype == dtype
    assert np.abs(result["AV"] - expected).max() <= tolerance * np.abs(expected).max()
    assert all(t.dtype == dtype for t in result.tensors.values())


def test_equals_attention_by_loops():
    cascade, extents = at("attention-1pass", (1, 1, 3, 5, 2, 2, 2))
    inputs = random_inputs(cascade, extents_of(cascade, extents))
    expected = attention_by_loops(*(inputs[n][0, 0] for n in "QKV"))
    np.testing.assert_allclose(run(cascade, inputs, extents)["AV"][0, 0], expected, rtol=1e-12)


def test_scores_far_from_zero_do_not_overflow():
    for name in ("attention-3pass", "attention-1pass"):
        cascade, extents = at(name, (1, 1, 3, 10, 2, 2, 4))
        inputs = random_inputs(cascade, extents_of(cascade, extents))
        inputs["Q"] *= 1e3
        result = run(cascade, inputs, extents)["AV"]
        np.testing.assert_allclose(result, attention(*(inputs[n] for n in "QKV")), rtol=1e-9)


THREE_PASSES = """
    QK[m, p] = Q[e, p] * K[e, m] {where}
    GM[p]    = max[m](QK[m, p])
    SN[m, p] = exp(QK[m, p] - GM[p])
    SD[p]    = sum[m](SN[m, p])
    A[m, p]  = SN[m, p] / SD[p]
    AV[f, p] = A[m, p] * V[f, m]
"""
ONE_PASS = """
    QK[m1, m0, p]   = Q[e, p] * K[e, m1, m0] {where}
    LM[m1, p]       = max[m0](QK[m1, m0, p])
    RM[0, p]        = -inf
    RM[m1+1, p]     = max(RM[m1, p], LM[m1, p])
    SLN[m1, m0, p]  = exp(QK[m1, m0, p] - RM[m1+1, p])
    SLD[m1, p]      = sum[m0](SLN[m1, m0, p])
    SLNV[m1, f, p]  = SLN[m1, m0, p] * V[f, m1, m0]
    PRM[m1, p]      = exp(RM[m1, p] - RM[m1+1, p])
    SPD[m1, p]      = RD[m1, p] * PRM[m1, p]
    RD[0, p]        = 0
    RD[m1+1, p]     = SLD[m1, p] + SPD[m1, p]
    SPNV[m1, f, p]  = RNV[m1, f, p] * PRM[m1, p]
    RNV[0, f, p]    = 0
    RNV[m1+1, f, p] = SLNV[m1, f, p] + SPNV[m1, f, p]
    AV[f, p]        = RNV[M1, f, p] / RD[M1, p]
"""
QKV = "Q: [e, p], K: [e, m], V: [f, m]"


def three_passes(where, more="", ranks="p: 6, m: 6, e: 3, f: 2"):
    return cascade_of(THREE_PASSES.format(where=where), ranks=ranks, inputs=QKV + more, outputs="AV")


def one_pass(where, p=6, m=6, m0=4, more=""):
    ranks = f"p: {p}, m: {m}, e: 3, f: 2, m0: {m0}, m1: ceil(m / m0)"
    return cascade_of(
        ONE_PASS.format(where=where), ranks=ranks, inputs=QKV + more, outputs="AV", extra="split: {m: [m1, m0]}"
    )


def check(cascade, mask, scale=1.0):
    inputs = random_inputs(cascade, extents_of(cascade), seed=3)
    mask = mask(inputs) if callable(mask) else mask
    expected = attention(inputs["Q"], inputs["K"], inputs["V"], mask, scale)
    result = run(cascade, inputs)
    np.testing.assert_allclose(result["AV"], expected, rtol=1e-12, atol=1e-14)
    return result


P, M = np.arange(6)[:, None], np.arange(6)[None, :]


@pytest.mark.parametrize(
    ("where", "mask"),
    [
        ("m <= p", M <= P),
        ("p >= m", M <= P),
        ("not m > p", M <= P),
        ("m < p + 1 and m >= p - 2", (M <= P) & (M >= P - 2)),
        ("abs(m - p) <= 1", abs(M - P) <= 1),
        ("m <= p or m == M - 1", (M <= P) | (M == 5)),
        ("m % 2 == 0", np.broadcast_to(M % 2 == 0, (6, 6))),
        ("m // 2 == p // 2", M // 2 == P // 2),
    ],
)
def test_masks_on_coordinates(where, mask):
    result = check(three_passes(f"where {where}"), mask)
    np.testing.assert_array_equal(result.present["QK"], mask.T)
    np.testing.assert_array_equal(result.present["A"], mask.T)


def test_mask_tensor():
    cascade = three_passes("where KEEP[m, p]", ", KEEP: [m, p]")
    check(cascade, lambda inputs: inputs["KEEP"].T)


def test_a_row_without_keys_is_zero():
    mask = M < P
    result = check(three_passes("where m < p"), mask)
    assert result["GM"][0] == -np.inf
    assert result["SD"][0] == 0
    assert (result["AV"][:, 0] == 0).all()
    assert "AV" not in result.present


@pytest.mark.parametrize("m0", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("m", [6, 5])
def test_causal_one_pass(m, m0):
    mask = np.arange(m)[None, :] <= np.arange(6)[:, None]
    result = check(one_pass("where m1*M0 + m0 <= p", m=m, m0=m0), mask)
    assert result.present["QK"].sum() == mask.sum()


def test_ragged_tile_is_absent():
    cascade, extents = at("attention-1pass", (1, 1, 2, 5, 2, 2, 4))
    result = run(cascade, extents=extents)
    assert result["QK"].shape == (1, 1, 2, 4, 2)
    present = result.present["QK"][0, 0, :, :, 0]
    np.testing.assert_array_equal(present, [[True] * 4, [True, False, False, False]])
    assert np.isnan(result["QK"][0, 0, 1, 1]).all()


def test_projected_keys_stay_absent_in_a_ragged_tile():
    equations = "K[e, m1, m0] = W[e, d] * X[d, m1, m0]\n" + ONE_PASS.format(where="").replace("\n    ", "\n")
    cascade = cascade_of(
        equations,
        ranks="p: 3, m: 5, d: 2, e: 3, f: 2, m0: 4, m1: ceil(m / m0)",
        inputs="Q: [e, p], X: [d, m], W: [e, d], V: [f, m]",
        outputs="AV",
        extra="split: {m: [m1, m0]}",
    )
    inputs = random_inputs(cascade, extents_of(cascade))
    expected = attention(inputs["Q"], inputs["W"] @ inputs["X"], inputs["V"])
    np.testing.assert_allclose(run(cascade, inputs)["AV"], expected, rtol=1e-12)


def test_sliding_window_by_affine_index():
    cascade = cascade_of(
        """
        QK[w, p] = Q[e, p] * K[e, p + w - W // 2] / sqrt(E)
        GM[p]    = max[w](QK[w, p])
        SN[w, p] = exp(QK[w, p] - GM[p])
        SD[p]    = sum[w](SN[w, p])
        AV[f, p] = sum[w](SN[w, p] / SD[p] * V[f, p + w - W // 2])
        """,
        ranks="p: 6, m: p, w: 3, e: 4, f: 2",
        inputs=QKV,
        outputs="AV",
    )
    result = check(cascade, abs(M - P) <= 1, scale=0.5)
    np.testing.assert_array_equal(result.present["QK"], (np.arange(3)[:, None] + np.arange(6) - 1).clip(0, 5)
                                  == np.arange(3)[:, None] + np.arange(6) - 1)  # fmt: skip


def test_top_keys_gathered():
    cascade = cascade_of(
        """
        QK[m, p]  = Q[e, p] * K[e, m]
        IDX[s, p] = topk[m -> s](QK[m, p])
        QS[s, p]  = Q[e, p] * K[e, IDX[s, p]]
        GM[p]     = max[s](QS[s, p])
        SN[s, p]  = exp(QS[s, p] - GM[p])
        SD[p]     = sum[s](SN[s, p])
        AV[f, p]  = sum[s](SN[s, p] * V[f, IDX[s, p]] / SD[p])
        """,
        ranks="p: 6, m: 6, s: 2, e: 3, f: 2",
        inputs=QKV,
        outputs="AV",
    )

    def mask(inputs):
        scores = inputs["Q"].T @ inputs["K"]
        return scores >= np.sort(scores, axis=-1)[:, [-2]]

    check(cascade, mask)


def test_top_keys_of_causal_scores_can_be_fewer():
    """Two keys at most of those not later; the first query has one, and the second place is absent throughout."""
    cascade = cascade_of(
        """
        QK[m, p]  = Q[e, p] * K[e, m] where m <= p
        IDX[s, p] = topk[m -> s](QK[m, p])
        KS[e, s, p] = K[e, IDX[s, p]]
        QS[s, p]  = Q[e, p] * KS[e, s, p]
        GM[p]     = max[s](QS[s, p])
        SN[s, p]  = exp(QS[s, p] - GM[p])
        SD[p]     = sum[s](SN[s, p])
        AV[f, p]  = sum[s](SN[s, p] * V[f, IDX[s, p]] / SD[p])
        """,
        ranks="p: 6, m: 6, s: 2, e: 3, f: 2",
        inputs=QKV,
        outputs="AV",
    )

    def mask(inputs):
        scores = np.where(M <= P, inputs["Q"].T @ inputs["K"], -np.inf)
        return (scores >= np.sort(scores, axis=-1)[:, [-2]]) & (M <= P)

    result = check(cascade, mask)
    assert result["IDX"].dtype == np.int64
    assert result["IDX"][1, 0] == -1
    np.testing.assert_array_equal(result.present["IDX"], [[True] * 6, [False] + [True] * 5])
    np.testing.assert_array_equal(result.present["QS"], result.present["IDX"])


def test_the_design_example_as_written():
    design = """
name: attention-1pass
about: Running max, denominator and numerator; one pass over the keys
source: "Nayak et al., FuseMax, MICRO 2024"
ranks: {b: 64, h: 12, p: 1024, m: 1024, e: 64, f: 64, m0: 256, m1: m / m0}   # default extents; expressions allowed
batch: [b, h]                        # carried by every tensor and Einsum, and left out below
split: {m: [m1, m0]}                 # m = m1 * m0_extent + m0
inputs:  {Q: [e, p], K: [e, m], V: [f, m]}
outputs: [AV]
reference: softmax_attention         # an independent function the numbers are checked against
einsums: |
""" + re.sub(r"\n    ", "\n  ", ONE_PASS.format(where=""))
    from fusemodel.cascade import parse_cascade
    from fusemodel.numerics import compare

    cascade = parse_cascade(design)
    assert compare(cascade).max_rel_error < 1e-12
    assert compare(cascade, {"m": 100}).max_rel_error < 1e-12


def test_blocks_do_not_change_the_numbers(monkeypatch):
    cascade = one_pass("where m1*M0 + m0 <= p")
    whole = run(cascade)
    monkeypatch.setattr("fusemodel.numerics.interpret.BLOCK", 5)
    cut = run(cascade)
    for name, values in whole.tensors.items():
        np.testing.assert_allclose(values, cut[name], rtol=1e-12, err_msg=name)
