"""Score biases, masks, temperatures and edited weights: numbers, passes, points, and the figures papers give."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from mechanisms import agreement, assert_agrees, loaded, pass_counts

from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.derive import derive
from fusemodel.cascade import extents_of, parse_cascade
from fusemodel.numerics import compare, random_inputs, run

HEADS = {"b": 1, "h": 1, "p": 7, "e": 6, "f": 3}
ONE = {"b": 1, "h": 2, "p": 1, "e": 2, "f": 1}
CAUSAL = [{}, HEADS, ONE]
SHAPES = {
    "scaled-attention": [{}, {**HEADS, "m": 13}, {**ONE, "m": 1}],
    "causal-attention": CAUSAL,
    "masked-attention": [{}, {**HEADS, "m": 13}, {**ONE, "m": 1}],
    "alibi": [*CAUSAL, {"h": 8, "p": 5}],
    "softcap": CAUSAL,
    "qk-norm": [{}, {**HEADS, "m": 13}, {**ONE, "m": 1}],
    "qk-rms-norm": CAUSAL,
    "rope": [*CAUSAL, {"e": 14, "p": 33}],
    "fox": CAUSAL,
    "relative-bias": CAUSAL,
    "t5-bias": [*CAUSAL, {"b": 1, "h": 1, "p": 150}, {"p": 21, "n": 8}],
    "shaw-relative": [{}, {"b": 1, "h": 1, "p": 7, "c": 9}, {"b": 1, "h": 2, "p": 1, "c": 1}],
    "relative-skew": CAUSAL,
    "relative-skew-local": [{}, {**HEADS, "i": 3}, {**ONE, "i": 2}, {"p": 12, "i": 1}, {"p": 8, "i": 11}],
    "transformer-xl": [{}, {**HEADS, "t": 3}, {**ONE, "t": 1}],
    "rcmha": [*CAUSAL, {"p": 11, "i": 3}],
    "illama-causal": [{}, {"b": 1, "h": 1, "i": 6}, {"b": 1, "h": 2, "i": 1}],
    "illama-soft-mask": CAUSAL,
    "gpsa": [{}, {"b": 1, "h": 1, "x": 2, "y": 7}, {"b": 1, "h": 2, "x": 1, "y": 1}],
    "urpe": CAUSAL,
    "selective-temp": CAUSAL,
    "selective-temp-token": CAUSAL,
    "l-query": [{}, {"b": 1, "h": 1, "p": 7, "l": 3}, {"b": 3, "p": 1, "l": 1}, {"p": 5, "l": 8}],
    "l-query-two-towers": [{}, {"b": 1, "h": 1, "p": 7, "l": 3, "n": 1}, {"b": 3, "p": 1, "l": 1}],
    "ted-distillation": [{}, {"b": 1, "n": 1}, {"b": 2, "n": 40}],
    "var-redistribution": [*CAUSAL, {"b": 4, "p": 12}],
    "act-calibration": CAUSAL,
    "composite-vl": [{}, {"b": 1, "h": 1, "i": 3, "p": 7}, {"b": 1, "h": 2, "i": 1, "p": 1}],
    "lvlm-boost": CAUSAL,
    "lvlm-boost-bias": CAUSAL,
    "lvlm-boost-choice": [{}, {**HEADS, "s": 2, "j": 1}, {"b": 1, "h": 1, "p": 29, "s": 1, "j": 5}],
    "isolation-reposition": [{}, {**HEADS, "s": 2}, {**ONE, "s": 2}],
}
PASSES = {
    ("scaled-attention", "m"): (3, 1),
    ("causal-attention", "m"): (3, 1),
    ("masked-attention", "m"): (3, 1),
    ("alibi", "m"): (3, 1),
    ("softcap", "m"): (3, 1),
    ("qk-norm", "m"): (3, 1),
    ("qk-rms-norm", "m"): (3, 1),
    ("rope", "m"): (3, 1),
    ("fox", "m"): (3, 1),
    ("relative-bias", "m"): (3, 1),
    ("t5-bias", "m"): (3, 1),
    ("shaw-relative", "m"): (3, 1),
    ("relative-skew", "m"): (3, 1),
    ("relative-skew-local", "j"): (3, 1),
    ("transformer-xl", "m"): (3, 1),
    ("rcmha", "m"): (3, 1),
    ("illama-causal", "m"): (3, 1),
    ("illama-soft-mask", "m"): (3, 1),
    ("gpsa", "m"): (4, 1),
    ("urpe", "m"): (3, 1),
    ("selective-temp", "m"): (3, 1),
    ("selective-temp-token", "m"): (3, 1),
    ("var-redistribution", "m"): (4, 1),
    ("composite-vl", "m"): (3, 1),
    ("lvlm-boost", "m"): (4, 1),
    ("lvlm-boost-bias", "m"): (3, 1),
    ("isolation-reposition", "m"): (3, 1),
    ("l-query", "m"): (3, 1),
    ("l-query-two-towers", "m"): (3, 1),
    ("ted-distillation", "n"): (3, 1),
    ("act-calibration", "p"): (2, 2),
    ("act-calibration", "m"): (4, 2),
    ("lvlm-boost-choice", "m"): (5, 3),
}


test_equals_the_reference = agreement(SHAPES)
test_passes = pass_counts(PASSES)


def drawn(name, extents=None, **given):
    """Random inputs at the extents of `test`, some set to one number or to an array."""
    cascade = loaded(name)
    inputs = random_inputs(cascade, extents_of(cascade, cascade.test | (extents or {})), seed=5)
    for tensor, value in given.items():
        assert inputs[tensor].dtype == np.asarray(value).dtype or inputs[tensor].dtype.kind == "f"
        inputs[tensor] = np.broadcast_to(value, inputs[tensor].shape)
    return inputs


def output(cascade, inputs, extents=None):
    result = run(loaded(cascade) if isinstance(cascade, str) else cascade, inputs, extents)
    return next(iter(result.outputs.values()))


def plain(name, inputs):
    """A plain cascade on the queries, keys and values of another."""
    return output(name, {t: inputs[t] for t in "QKV"})


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def edited(name, old, new):
    """A library cascade with a part of its equations replaced."""
    text = Path(loaded(name).file).read_text()
    assert old in text
    return parse_cascade(text.replace(old, new))


def with_sinks(inputs):
    """The same, keys 0, 3 and 7 drawing every query."""
    inputs = inputs | {"Q": inputs["Q"] + 1, "K": inputs["K"].copy()}
    inputs["K"][..., [0, 3, 7]] += 1.5
    return inputs


# what makes a mechanism plain attention
NEUTRAL = [
    ("relative-bias", {"RB": 0.0}, "scaled-attention"),
    ("shaw-relative", {"AK": 0.0, "AV": 0.0}, "scaled-attention"),
    ("relative-skew", {"ER": 0.0}, "causal-attention"),
    ("illama-soft-mask", {"ALPHA": 1.0}, "scaled-attention"),
    ("gpsa", {"LAM": -800.0}, "scaled-attention"),  # a gate of zero
    ("urpe", {"RB": 0.0, "C": 1.0}, "scaled-attention"),
    ("fox", {"FG": 800.0}, "causal-attention"),  # forget gates of one
    ("selective-temp", {"BETA": 20.0}, "causal-attention"),  # a temperature of one
    ("selective-temp-token", {"WTQ": 0.0, "WTV": 0.0, "ALPHA": -800.0}, "causal-attention"),
    ("var-redistribution", {"SINK": False}, "causal-attention"),
    ("var-redistribution", {"SINK": True}, "causal-attention"),  # the portion of sinks is 1, above the threshold
    ("var-redistribution", {"VIS": False}, "causal-attention"),
    ("lvlm-boost", {"TOP": False}, "causal-attention"),
    ("lvlm-boost", {"GAIN": -800.0}, "causal-attention"),
    ("lvlm-boost", {"TOP": True, "GAIN": 1.0}, "causal-attention"),  # all raised alike
    ("lvlm-boost-bias", {"TOP": False}, "causal-attention"),
    ("lvlm-boost-choice", {"VIS": False}, "causal-attention"),
    ("masked-attention", {"KEEP": True}, "scaled-attention"),
    ("isolation-reposition", {"SEG": 0.0, "REF": False}, "scaled-attention"),  # one subject, no reference
]


@pytest.mark.parametrize(("name", "given", "as_plain"), NEUTRAL)
def test_neutral_parameters_give_plain_attention(name, given, as_plain):
    inputs = drawn(name, **given)
    same(output(name, inputs), plain(as_plain, inputs))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rope", "pow(10000, -2 * i / E)", "0 * i"),
        ("alibi", "exp2(-8 * (h + 1) / H)", "0 * h"),
        ("softcap", "50 * tanh(QK[p, m] / 50)", "1e7 * tanh(QK[p, m] / 1e7)"),
        ("var-redistribution", "0.2, 0.6, 1)", "0.2, 1, 1)"),  # sinks keep all
        ("var-redistribution", "<= 0.5 * AV", "<= -1 * AV"),  # no head is chosen
        ("act-calibration", "0.4", "1"),
    ],
)
def test_neutral_constants_give_plain_attention(name, old, new):
    inputs = with_sinks(drawn(name))
    same(output(edited(name, old, new), inputs), plain("causal-attention", inputs))
    assert not np.allclose(output(name, inputs), plain("causal-attention", inputs), rtol=1e-6)


def test_a_column_above_the_mean_cannot_be_in_a_short_sequence():
    inputs = drawn("act-calibration", {"p": 5})  # the threshold is 5 / 5
    same(output("act-calibration", inputs), plain("causal-attention", inputs))


def test_edits_reach_both_cases():
    """Some heads are chosen and others not; and some columns, of which the first is no part."""
    found = run(loaded("var-redistribution"), drawn("var-redistribution"))
    assert set(np.unique(found["PI"])) == {0.6, 1.0}
    for extents in ({}, {"b": 1, "h": 1, "p": 40}, {"b": 1, "h": 4, "p": 29, "e": 4}):
        inputs = with_sinks(drawn("act-calibration", extents))
        hot = run(loaded("act-calibration"), inputs)["HOT"]
        assert hot.any()
        assert not hot.all(axis=-1).any()
        assert not hot[..., 0].any()
        assert_agrees("act-calibration", None, inputs)


def test_mask_of_data():
    inputs = drawn("masked-attention", {"p": 14, "m": 14})
    inputs["KEEP"] = np.broadcast_to(np.tril(np.ones((14, 14), bool)), inputs["KEEP"].shape)
    same(output("masked-attention", inputs), plain("causal-attention", inputs))


def test_rows_without_keys_are_zero():
    inputs = drawn("masked-attention")
    inputs["KEEP"] = inputs["KEEP"].copy()
    inputs["KEEP"][0, 1, 4] = False
    inputs["KEEP"][1, :, 0] = False
    assert_agrees("masked-attention", None, inputs)
    found = output("masked-attention", inputs)
    assert (found[0, 1, :, 4] == 0).all()
    assert (found[1, :, :, 0] == 0).all()
    keep = np.ones((2, 13), bool)
    keep[0, :6], keep[1] = False, False  # padded in front; nothing but padding
    inputs = drawn("l-query", KEEP=keep)
    assert_agrees("l-query", None, inputs)
    assert (run(loaded("l-query"), inputs)["O"][1] == 0).all()


def test_alibi_is_forgetting_at_a_constant_rate():
    inputs = drawn("alibi", {"h": 8})
    slope = 2.0 ** -np.arange(1, 9)
    gate = np.broadcast_to(-np.log(np.expm1(slope))[:, None], (2, 8, 19))  # log sigmoid(gate) = -slope
    same(output("alibi", inputs), output("fox", inputs | {"FG": gate}))


def test_alibi_is_a_relative_bias():
    inputs = drawn("relative-bias", {"h": 2, "p": 9})
    swapped = {t: np.swapaxes(inputs[t], 0, 1) for t in "QKV"}
    inputs["RB"] = np.where(np.arange(17) > 8, -np.inf, 2.0 ** np.array([[-4], [-8]]) * (np.arange(17) - 8))
    same(output("relative-bias", inputs), np.swapaxes(output("alibi", swapped), 0, 1))


def test_t5_without_bias():
    inputs = drawn("t5-bias", BIAS=0.0)
    same(output("t5-bias", inputs), plain("scaled-attention", inputs | {"Q": inputs["Q"] * np.sqrt(8)}))


def test_cosines_of_unit_vectors_are_products():
    inputs = drawn("qk-norm")
    inputs |= {t: inputs[t] / np.linalg.norm(inputs[t], axis=2, keepdims=True) for t in "QK"}
    same(output("qk-norm", inputs), plain("scaled-attention", inputs | {"Q": inputs["Q"] * inputs["G"] * np.sqrt(8)}))


def test_a_vector_of_zeros_has_no_direction():
    inputs = drawn("qk-norm")
    inputs["Q"][..., 0] = 0
    inputs["K"][..., 1] = 0
    found = output("qk-norm", inputs)
    assert compare(loaded("qk-norm"), inputs=inputs).max_rel_error < 1e-10
    same(found[..., 0], inputs["V"].mean(axis=-1))  # all keys alike


def test_rotation_sees_distances_only():
    inputs = drawn("rope", {"p": 30})
    alike = {t: np.broadcast_to(inputs[t][..., :1], inputs[t].shape) for t in "QK"}
    scores = run(loaded("rope"), inputs | alike)["QK"]
    same(scores[..., 1:, 1:][..., *np.tril_indices(29)], scores[..., :-1, :-1][..., *np.tril_indices(29)])


def test_skew_within_one_block_is_global():
    inputs = drawn("relative-skew-local", {"p": 10, "i": 10})
    skew = inputs | {"ER": inputs["ER"][..., 10:]}  # the nearer half of the distances
    same(output("relative-skew-local", inputs, {"i": 10}), output("relative-skew", skew))


def test_identity_convolutions_leave_relative_attention():
    inputs = drawn("rcmha", U=0.0, W=0.0, CQ=[0, 0, 1.0], CK=[0, 0, 1.0], CV=[0, 0, 1.0])
    skew = {t: inputs[f"{t}0"] for t in "QKV"} | {"ER": inputs["ER"][..., ::-1]}
    same(output("rcmha", inputs), output("relative-skew", skew))


def test_without_position_a_segment_is_a_wider_causal_mask():
    inputs = drawn("transformer-xl", ER=0.0, U=0.0, W=0.0)
    keep = np.broadcast_to(np.arange(19) <= np.arange(12)[:, None] + 7, (3, 2, 12, 19))
    same(output("transformer-xl", inputs), output("masked-attention", {t: inputs[t] for t in "QKV"} | {"KEEP": keep}))


def test_queries_of_single_items():
    inputs = drawn("l-query", {"l": 1}, KEEP=True, GAIN=1.0, BIAS=0.0)
    x = inputs["X"]
    normal = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-8)
    made = {t: np.einsum("hed,bdp->bhep", inputs[f"W{t}"], normal if t == "Q" else x) for t in "QKV"}
    attended = np.einsum("hfd,bhfp->bdp", inputs["WO"], output("causal-attention", made))
    same(output("l-query", inputs, {"l": 1}), attended + normal)


@pytest.mark.parametrize(("alpha", "tower"), [(1.0, 0), (0.0, 1)])
def test_one_tower_alone(alpha, tower):
    inputs = drawn("l-query-two-towers", ALPHA=alpha)
    extents = {"l": (1, 4)[tower]}
    own = {t: inputs[t][tower] for t in ("GAIN", "BIAS", "WQ", "WK", "WV", "WO")}
    alone = output("l-query", {"X": inputs["X"], "KEEP": inputs["KEEP"], **own}, extents)
    found = output("l-query-two-towers", inputs, {"l": 4})
    same(found, np.einsum("nd,bdp->bnp", inputs["ITEM"], alone))


def test_a_student_that_agrees_with_the_teacher_loses_nothing():
    inputs = drawn("ted-distillation", TAU=2.0)
    assert output("ted-distillation", inputs) > 0.01
    inputs["Y"] = inputs["CO"] / 2 + 5
    assert abs(output("ted-distillation", inputs)) < 1e-14


def test_a_boost_is_a_bias():
    inputs = drawn("lvlm-boost")
    same(output("lvlm-boost", inputs), output("lvlm-boost-bias", inputs))
    assert not np.allclose(output("lvlm-boost", inputs), plain("causal-attention", inputs))


def test_weights_of_position_ignore_content():
    """A gate of one: position attention; and averages of the two stay averages."""
    inputs = drawn("gpsa", LAM=800.0)
    same(output("gpsa", inputs), output("gpsa", inputs | {"Q": inputs["Q"][::-1]}))
    weights = run(loaded("gpsa"), drawn("gpsa"))["AG"]
    same(weights.sum(axis=-1), np.ones(weights.shape[:-1]))


def lower(n, ahead=0):
    return (np.arange(n["m"]) <= np.arange(n["p"])[:, None] + ahead).sum()


MASKS = [
    ("causal-attention", "QK", {"p": 9}, lower),
    ("rope", "QK", {"p": 9}, lower),
    ("alibi", "QK", {"p": 9}, lower),
    ("fox", "QK", {"p": 9}, lower),
    ("relative-skew", "QK", {"p": 9}, lower),
    ("relative-skew", "QE", {"p": 9}, lower),
    ("transformer-xl", "QK", {"p": 9, "t": 4}, lambda n: lower(n, n["t"])),
    ("rcmha", "QR", {"p": 9}, lower),
    ("illama-causal", "QK", {"i": 8}, lower),
    ("act-calibration", "QK", {"p": 9}, lower),
    ("composite-vl", "QK", {"p": 9, "i": 8}, lambda n: lower(n, n["i"])),
]


@pytest.mark.parametrize(("name", "tensor", "other", "mask"), MASKS)
def test_points_are_those_of_the_mask(name, tensor, other, mask):
    cascade = loaded(name)
    for extents in ({}, {"b": 1, "h": 2} | other):
        n = extents_of(cascade, cascade.test | extents)
        found = run(cascade, extents=n).present[tensor].sum()
        assert found == n["b"] * n["h"] * mask(n)
        if tensor == "QK":  # the only exponentials are those of the scores
            assert bounds(cascade, n).operations_at["exp"] == found


@pytest.mark.parametrize(("p", "i"), [(19, 4), (12, 5)])
def test_points_of_two_blocks(p, i):
    cascade = loaded("relative-skew-local")
    extents = extents_of(cascade, cascade.test | {"b": 1, "h": 2, "p": p, "i": i})
    found = run(cascade, extents=extents)
    query, key = np.arange(p)[:, None], np.arange(p)
    mask = (key <= query) & (key // i >= query // i - 1)
    assert found.present["QK"].sum() == found.present["QE"].sum() == 2 * mask.sum()
    assert bounds(cascade, extents).operations_at["exp"] == 2 * mask.sum()


@cache
def at_paper(name, **extents):
    cascade = loaded(name)
    return bounds(cascade, extents_of(cascade, extents))


def test_relative_vectors_take_linear_memory():
    """Music Transformer: from 8.5 GB to 4.2 MB for a length of 2048 and 512 features in single precision."""
    skew, n = at_paper("relative-skew"), extents_of(loaded("relative-skew"))
    features = n["h"] * n["e"]
    assert (n["p"], features) == (2048, 512)
    assert 4 * skew.compulsory_at["ER"]["read"] == pytest.approx(4.19e6, rel=2e-3)
    assert 4 * n["p"] * n["m"] * features == pytest.approx(8.59e9, rel=1e-3)  # a vector for each pair


def test_half_of_the_scores():
    """iLLaMA: 50.3% of the scores of 197 tokens, the class token among them."""
    causal, full = (at_paper(name).operations_at["exp"] for name in ("illama-causal", "illama-soft-mask"))
    assert causal / full == pytest.approx(0.503, abs=5e-4)


def test_gated_attention_costs_two_products_as_written_and_three_in_one_pass():
    """ConViT-S: 2 N^2 D multiply-accumulates, and a third product where position weights meet the values apart."""
    cascade = loaded("gpsa")
    n = extents_of(cascade)
    product = n["p"] ** 2 * n["h"] * n["e"]
    assert (n["p"], n["h"] * n["e"]) == (196, 432)
    assert at_paper("gpsa").operations_at["mac"] == 2 * product
    fused = derive(cascade).cascade
    assert bounds(fused, extents_of(fused)).operations_at["mac"] == pytest.approx(3 * product, rel=1e-2)


def test_a_factor_after_the_softmax():
    """URPE: N^2 multiplications and 2 N - 1 parameters a head more."""
    n = extents_of(loaded("urpe"))
    more = at_paper("urpe").operations_at["mul"] - at_paper("relative-bias").operations_at["mul"]
    assert more == n["h"] * n["p"] ** 2
    assert at_paper("urpe").compulsory_at["C"]["read"] == n["h"] * (2 * n["p"] - 1)


def test_temperatures_have_few_parameters():
    """Selective attention: less than 0.5% more; a vector for queries and one for values a layer is 0.01% of 160M."""
    found = at_paper("selective-temp-token").compulsory_at
    share = 12 * sum(found[t]["read"] for t in ("WTQ", "WTV", "ALPHA")) / 160e6
    assert share == pytest.approx(1e-4, rel=0.2)
    assert share < 5e-3


def test_convolutions_cost_three_taps_a_channel():
    """RCMHA: 3 * 3 N D multiply-accumulates more than relative attention, but for taps before the first item."""
    n = extents_of(loaded("rcmha"))
    width, pairs = n["h"] * n["e"], n["p"] * (n["p"] + 1) // 2
    more = at_paper("rcmha").operations_at["mac"] - 3 * pairs * width
    assert more == 9 * n["p"] * width - 9 * width  # three channels lack 1 + 2 taps


def test_image_tokens_that_do_not_ask():
    """EE-MLLM: 24% less of a layer reported for 5000 image and 64 text tokens; 23.6% with 4096 and 11008 features."""
    n = extents_of(loaded("composite-vl"))
    d, tokens = n["d"], n["m"]
    assert (d, n["i"], n["p"]) == (4096, 5000, 64)
    feed_forward = 3 * tokens * d * 11008
    full = 4 * tokens * d * d + 2 * tokens**2 * d + feed_forward
    ours = at_paper("composite-vl").operations_at["mac"] + feed_forward
    assert 1 - ours / full == pytest.approx(0.236, abs=1e-3)
