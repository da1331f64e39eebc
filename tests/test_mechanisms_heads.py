"""Shared, grouped and mixed heads against plain NumPy, their passes, what they equal, and what they cost."""

import numpy as np
import pytest
from mechanisms import agreement, loaded, pass_counts

from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.graph import Dependence
from fusemodel.cascade import extents_of
from fusemodel.numerics import compare, random_inputs, run

# extents beyond those of the field `test`; each mechanism is run at three shapes or more, a batch of one among them
GROUPED = [{}, {"b": 1, "g": 1, "r": 4, "p": 7, "m": 13}, {"b": 1, "g": 2, "r": 1, "p": 1, "m": 1}]
PROJECTED = [{}, {"b": 1, "h": 1, "p": 13, "d": 5}, {"b": 1, "h": 2, "p": 1, "d": 1, "e": 1, "f": 1}]
LATENT = [{}, {"b": 1, "h": 1, "p": 13, "l": 1, "t": 2}, {"b": 1, "h": 2, "p": 1, "d": 3, "j": 2}, {"p": 5, "t": 8}]
LATENT_TILES = [{}, {"b": 1, "h": 1, "p": 13, "l": 1, "m0": 5}, {"b": 1, "p": 1, "m0": 1}, {"p": 12, "m0": 3}]
DRIVEN = [
    {},
    {"b": 1, "h": 12, "g": 5, "p": 7},
    {"b": 3, "h": 1, "g": 4, "p": 3},
    {"b": 1, "h": 2, "g": 1, "p": 1, "e": 1, "f": 1},
]
SHAPES = {
    "mha": PROJECTED,
    "cross-attention": [{}, {"b": 1, "h": 1, "p": 7, "m": 13}, {"b": 1, "p": 1, "m": 1, "d": 1, "c": 2}],
    "mqa": [{}, {"b": 1, "h": 1, "p": 7, "m": 13}, {"b": 1, "h": 2, "p": 1, "m": 1}],
    "gqa": GROUPED,
    "gqa-decode": [{}, {"b": 1, "g": 1, "p": 1, "m": 13}, {"b": 1, "r": 1, "p": 1, "m": 1}, {"p": 7, "m": 7}],
    "gqa-causal": [{}, {"b": 1, "g": 1, "r": 4, "p": 7}, {"b": 1, "g": 2, "r": 1, "p": 1}],
    "gqa-causal-1pass": [{}, {"b": 1, "g": 1, "p": 7, "m0": 8}, {"b": 1, "p": 1, "m0": 1}, {"p": 12, "m0": 3}],
    "mla-flash": LATENT_TILES,
    "mla-absorbed-flash": LATENT_TILES,
    "mla": LATENT,
    "mla-absorbed": LATENT,
    "mla-decode": [{}, {"b": 1, "h": 1, "p": 1, "m": 13}, {"b": 1, "p": 1, "m": 1}, {"p": 7, "m": 7, "t": 2}],
    "differential": [{}, {"b": 1, "h": 1, "p": 7, "m": 13, "l": 1}, {"b": 1, "p": 1, "m": 1, "e": 1, "l": 28}],
    "moh": [{}, {"b": 1, "s": 1, "u": 4, "t": 1, "p": 7}, {"b": 1, "s": 3, "u": 1, "t": 1, "p": 1}, {"u": 5, "t": 5}],
    "moh-llama": [
        {}, {"b": 1, "s": 1, "u": 5, "t": 2, "r": 2, "p": 7}, {"b": 1, "s": 1, "u": 1, "t": 1, "r": 2, "p": 1},
        {"s": 4, "u": 4, "t": 4, "r": 1},
    ],
    "kdgqa": DRIVEN,
    "dgqa": DRIVEN,
    "dgqa-ema": DRIVEN,
    "pgqa": [{}, {"b": 1, "g": 1, "r": 4, "p": 13}, {"b": 1, "g": 2, "r": 1, "p": 1, "f": 2}],
    "minilm-relations": [{}, {"b": 1, "h": 1, "p": 13, "c": 9}, {"b": 1, "p": 2, "e": 1, "c": 1}],
    "minilmv2-relations": [{}, {"b": 1, "a": 1, "p": 13, "g": 9}, {"b": 1, "r": 1, "p": 2, "e": 1, "g": 1}],
}  # fmt: skip
PASSES = {
    **{
        (name, "m"): (3, 1)
        for name in (
            "mha", "cross-attention", "mqa", "gqa", "gqa-decode", "mla", "mla-absorbed", "mla-decode", "differential",
            "moh", "moh-llama", "pgqa", "minilm-relations", "minilmv2-relations", "gqa-causal",
        )
    },
    **{(name, "m"): (1, 1) for name in ("gqa-causal-1pass", "mla-flash", "mla-absorbed-flash")},
    # the norms of the keys decide which queries meet which keys: one pass more than softmax makes
    **{(name, "m"): (4, 2) for name in ("kdgqa", "dgqa", "dgqa-ema")},
}  # fmt: skip


test_equals_the_reference = agreement(SHAPES)
test_passes = pass_counts(PASSES)


def inputs_of(name, extents=None, seed=5):
    cascade = loaded(name)
    sizes = extents_of(cascade, {**cascade.test, **(extents or {})})
    return random_inputs(cascade, sizes, seed=seed), sizes


def result_of(name, inputs, sizes, more=None):
    cascade = loaded(name)
    return run(cascade, inputs, {r: sizes[r] for r in cascade.ranks if r in sizes} | (more or {}))


def output_of(name, inputs, sizes, more=None):
    return next(iter(result_of(name, inputs, sizes, more).outputs.values()))


def present_in(result, name):
    """Where a tensor has elements; a result does not say so of full ones."""
    return np.broadcast_to(result.present.get(name, True), result[name].shape)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


# Degenerate cases


def test_a_context_of_padding_gives_zero():
    inputs, sizes = inputs_of("cross-attention")
    inputs["KEEP"][0] = False
    inputs["KEEP"][1, ::2] = True
    assert compare(loaded("cross-attention"), sizes, inputs=inputs).max_rel_error < 1e-10
    found = output_of("cross-attention", inputs, sizes)
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()


def test_cross_attention_to_itself_is_multi_head():
    inputs, sizes = inputs_of("mha")
    more = {"c": sizes["d"], "g": sizes["d"]}
    context = {"Y": inputs["X"], "KEEP": np.ones((sizes["b"], sizes["m"]), bool)}
    close(output_of("cross-attention", inputs | context, sizes, more), output_of("mha", inputs, sizes))


def test_multi_head_with_plain_projections_is_attention():
    """Heads that are slices of the features."""
    h, e = 3, 4
    inputs, sizes = inputs_of("mha", {"h": h, "d": h * e, "e": e, "f": e})
    cut = np.eye(h * e).reshape(h * e, h, e)
    inputs |= dict.fromkeys(("WQ", "WK", "WV"), cut) | {"WO": np.moveaxis(cut, 0, -1)}
    x = inputs["X"].reshape(sizes["b"], h, e, -1)
    expected = output_of("scaled-attention", {"Q": x, "K": x, "V": x}, sizes)
    close(output_of("mha", inputs, sizes), expected.reshape(inputs["X"].shape))


def test_one_group_is_multi_query():
    inputs, sizes = inputs_of("gqa", {"g": 1})
    one = {name: x[:, 0] for name, x in inputs.items()}
    close(output_of("gqa", inputs, sizes)[:, 0], output_of("mqa", one, sizes, {"h": sizes["r"]}))


def test_one_query_a_group_is_attention():
    inputs, sizes = inputs_of("gqa", {"r": 1})
    plain = {"Q": inputs["Q"][:, :, 0], "K": inputs["K"], "V": inputs["V"]}
    close(output_of("gqa", inputs, sizes)[:, :, 0], output_of("scaled-attention", plain, sizes, {"h": sizes["g"]}))


def test_a_step_that_decodes_everything_is_causal():
    inputs, sizes = inputs_of("gqa-decode", {"r": 1, "p": 11, "m": 11})
    plain = {"Q": inputs["Q"][:, :, 0], "K": inputs["K"], "V": inputs["V"]}
    expected = run(loaded("causal-attention"), plain, {"p": 11, "h": sizes["g"]}).outputs["O"]
    close(output_of("gqa-decode", inputs, sizes)[:, :, 0], expected)


@pytest.mark.parametrize("extents", [{}, {"p": 1, "h": 1}, {"b": 1, "p": 31, "l": 9, "t": 2}])
def test_latent_attention_equals_its_absorbed_form(extents):
    inputs, sizes = inputs_of("mla", extents)
    close(output_of("mla-absorbed", inputs, sizes), output_of("mla", inputs, sizes))


@pytest.mark.parametrize("name", ["mla-flash", "mla-absorbed-flash"])
@pytest.mark.parametrize("tile", [1, 4, 19, 64])
def test_one_pass_over_latents_is_the_core_of_the_layer(name, tile):
    inputs, sizes = inputs_of("mla")
    layer = result_of("mla", inputs, sizes)
    b, h, t, p = (sizes[x] for x in "bhtp")
    core = {
        "QN": layer["QN"], "QR": layer["QR"].reshape(b, h, t, p), "CKV": layer["CKV"],
        "KR": layer["KR"].reshape(b, t, p), "WUK": inputs["WUK"], "WUV": inputs["WUV"],
    }  # fmt: skip
    heads = run(loaded(name), core, {"m0": tile})["O"]
    close(np.einsum("hfu,bhfp->bup", inputs["WO"], heads), layer["Z"])


def test_causal_groups_are_steps_that_decode_everything():
    inputs, sizes = inputs_of("gqa-causal")
    whole = run(loaded("gqa-decode"), inputs, {"p": sizes["p"], "m": sizes["p"]})["O"]
    close(output_of("gqa-causal", inputs, sizes), whole)
    close(run(loaded("gqa-causal-1pass"), inputs, {"m0": 5})["O"], whole)


@pytest.mark.parametrize("p", [1, 4])
def test_a_latent_step_continues_the_sequence(p):
    inputs, sizes = inputs_of("mla")
    whole = result_of("mla", inputs, sizes)
    step = {name: x for name, x in inputs.items() if name not in ("WDKV", "GKV", "WKR")}
    rotated = whole["KR"]  # b, i, c, m
    step |= {"X": inputs["X"][..., -p:], "CKV": whole["CKV"], "KR": rotated.reshape(sizes["b"], sizes["t"], -1)}
    close(output_of("mla-decode", step, sizes, {"p": p, "m": sizes["m"]}), whole["Z"][..., -p:])


def test_rotation_sees_distances_only():
    """Positions enter the scores of rotated parts as differences."""
    inputs, sizes = inputs_of("mla")
    inputs["X"][:] = inputs["X"][..., :1]
    scores = result_of("mla", inputs, sizes)["SR"]
    for distance in range(4):
        diagonal = np.diagonal(scores, -distance, axis1=-2, axis2=-1)
        close(diagonal, np.broadcast_to(diagonal[..., :1], diagonal.shape))


def test_differential_without_the_second_map_is_attention():
    """exp(lq1 lk1) - exp(0) + lambda_init = 0; what is left is the norm and its factor."""
    inputs, sizes = inputs_of("differential", {"l": 3})
    start = 0.8 - 0.6 * np.exp(-0.6)
    inputs["LQ2"][:] = 0
    inputs["LQ1"][:], inputs["LK1"][:] = 0, 1
    inputs["LQ1"][0] = np.log(1 - start)
    inputs["G"][:] = 1 / (1 - start)
    plain = {"Q": inputs["Q1"], "K": inputs["K1"], "V": inputs["V"]}
    out = output_of("scaled-attention", plain, sizes)
    close(output_of("differential", inputs, sizes), out / np.sqrt((out**2).mean(axis=-2, keepdims=True) + 1e-5))


def test_all_heads_with_even_gates_are_multi_head():
    inputs, sizes = inputs_of("moh", {"s": 2, "u": 3, "t": 3})
    for router in ("W0", "W1", "WG"):
        inputs[router][:] = 0
    plain = {name: inputs[name] for name in ("X", "WQ", "WK", "WV", "WO")}
    result = result_of("moh", inputs, sizes)
    close(result["G"], np.ones_like(result["G"]))
    close(result["Z"], output_of("mha", plain, sizes))


def test_all_llama_heads_are_causal_grouped_queries():
    inputs, sizes = inputs_of("moh-llama", {"s": 2, "u": 4, "t": 4, "r": 3})
    h, g, r = (sizes[x] for x in "hgr")
    inputs["WO"] = np.eye(h * sizes["f"]).reshape(h, sizes["f"], -1)
    grouped = {"Q": inputs["Q"].reshape(sizes["b"], g, r, sizes["e"], -1), "K": inputs["K"], "V": inputs["V"]}
    expected = output_of("gqa-decode", grouped, sizes).reshape(sizes["b"], h * sizes["f"], -1)
    close(output_of("moh-llama", inputs, sizes, {"d": h * sizes["f"]}), expected)


def grouped_of(inputs, sizes):
    """The same heads in groups of equal size."""
    r = sizes["h"] // sizes["g"]
    cut = {"Q": inputs["Q"].reshape(sizes["b"], sizes["g"], r, sizes["e"], -1), "K": inputs["K"], "V": inputs["V"]}
    return output_of("gqa", cut, sizes, {"r": r}).reshape(sizes["b"], sizes["h"], sizes["f"], -1)


@pytest.mark.parametrize("name", ["kdgqa", "dgqa-ema", "dgqa"])
def test_groups_of_equal_norms_are_grouped_queries(name):
    inputs, sizes = inputs_of(name, {"h": 6, "g": 3})
    inputs["K"][:] = inputs["K"][:, :1]
    if "NC" in inputs:
        inputs["NC"][:] = 2.0
    result = result_of(name, inputs, sizes)
    np.testing.assert_array_equal(result["GH"], [0, 0, 1, 1, 2, 2])
    close(result["O"], grouped_of(inputs, sizes))


@pytest.mark.parametrize(("heads", "counts"), [(5, [0, 1, 2, 2]), (3, [0, 0, 1, 2]), (7, [0, 0, 3, 4])])
def test_halves_are_rounded_to_even(heads, counts):
    """Norms 0, 0, 1, 1 after scaling give two groups H / 2 heads each: 2.5 makes 2 (and one more head goes to the
    smallest group), 1.5 makes 2 and 3.5 makes 4 (and the first of the largest loses one)."""
    inputs, sizes = inputs_of("kdgqa", {"b": 1, "h": heads, "g": 4})
    inputs["K"][:] = 1.0
    inputs["K"][:, 2:] = 2.0
    result = result_of("kdgqa", inputs, sizes)
    assert sorted(result["CT"][-1]) == counts
    assert compare(loaded("kdgqa"), sizes, inputs=inputs).max_rel_error < 1e-10


@pytest.mark.parametrize("name", ["kdgqa", "dgqa-ema", "dgqa"])
def test_every_head_is_served_whatever_the_norms(name):
    """Roundings leave too many heads as well as too few, and the group of the least norm without any."""
    cascade, totals, least = loaded(name), set(), set()
    for seed in range(30):
        inputs, sizes = inputs_of(name, {"h": 7, "g": 5, "p": 3}, seed)
        inputs["K"] *= np.random.default_rng(seed).uniform(0.1, 2, (1, 5, 1, 1))
        found = compare(cascade, sizes, inputs=inputs)
        assert found.max_rel_error < 1e-10
        result = result_of(name, inputs, sizes)
        counts = result["CT"][-1]
        assert counts.sum() == 7
        assert (counts >= 0).all()
        np.testing.assert_array_equal(np.bincount(result["GH"].astype(int), minlength=5), counts)
        totals.add(float(result["TOT"][0]))
        least.add(float(counts[result["NN"].argmin()]))
    assert {6, 7, 8} <= totals
    assert 0 in least


def test_static_noise_of_no_size_is_grouped_queries():
    """Noise that the scaling undoes."""
    inputs, sizes = inputs_of("pgqa")
    del inputs["Y"]
    plain = output_of("gqa", inputs, sizes)
    mean, deviation = plain.mean(axis=-2, keepdims=True), plain.std(axis=-2, ddof=1, keepdims=True)
    inputs["Y"] = np.broadcast_to(-mean / deviation, plain.shape)
    close(output_of("pgqa", inputs, sizes), plain)


def test_a_student_that_is_the_teacher_loses_nothing():
    inputs, sizes = inputs_of("minilm-relations", {"c": 6})
    same = inputs | {f"{x}S": inputs[f"{x}T"] for x in "QKV"}
    assert abs(output_of("minilm-relations", same, sizes)) < 1e-14
    assert output_of("minilm-relations", inputs, sizes) > 0.01
    inputs, sizes = inputs_of("minilmv2-relations", {"g": 4})
    assert abs(output_of("minilmv2-relations", inputs | {"XS": inputs["XT"]}, sizes)) < 1e-14
    assert output_of("minilmv2-relations", inputs, sizes) > 0.01


# Points


@pytest.mark.parametrize("name", ["mla", "mla-absorbed"])
@pytest.mark.parametrize("p", [1, 19, 30])
def test_later_positions_are_not_scored(name, p):
    inputs, sizes = inputs_of(name, {"p": p})
    mask = np.tril(np.ones((p, p), bool))
    present = present_in(result_of(name, inputs, sizes), "QK")
    np.testing.assert_array_equal(present, np.broadcast_to(mask, present.shape))
    found = bounds(loaded(name), sizes).operations_at
    assert found["max"] == sizes["b"] * sizes["h"] * mask.sum()


@pytest.mark.parametrize("name", ["gqa-causal-1pass", "mla-flash", "mla-absorbed-flash"])
@pytest.mark.parametrize(("p", "tile"), [(19, 4), (12, 3), (5, 8)])
def test_later_positions_are_not_scored_in_tiles_either(name, p, tile):
    """One exponential a pair, and one for each query and tile, which rescales what came before."""
    cascade = loaded(name)
    sizes = extents_of(cascade, {**cascade.test, "p": p, "m0": tile})
    heads = sizes["b"] * (sizes["g"] * sizes["r"] if "g" in sizes else sizes["h"])
    assert bounds(cascade, sizes).operations_at["exp"] == heads * (p * (p + 1) // 2 + p * -(-p // tile))


@pytest.mark.parametrize(("p", "m"), [(1, 23), (4, 9), (7, 7)])
def test_steps_score_what_is_in_the_cache(p, m):
    inputs, sizes = inputs_of("gqa-decode", {"p": p, "m": m})
    mask = np.tril(np.ones((m, m), bool))[-p:]
    present = present_in(result_of("gqa-decode", inputs, sizes), "QK")
    np.testing.assert_array_equal(present, np.broadcast_to(mask, present.shape))
    found = bounds(loaded("gqa-decode"), sizes).operations_at
    assert found["max"] == sizes["b"] * sizes["g"] * sizes["r"] * mask.sum()


@pytest.mark.parametrize("extents", [{}, {"s": 1, "u": 6, "t": 2, "p": 30}])
def test_tokens_are_charged_for_their_own_heads(extents):
    inputs, sizes = inputs_of("moh", extents)
    logits = np.einsum("du,bdp->bup", inputs["WG"], inputs["X"])
    chosen = logits >= -np.sort(-logits, axis=1)[:, sizes["t"] - 1 : sizes["t"]]
    active = np.concatenate([np.ones((sizes["b"], sizes["s"], sizes["p"]), bool), chosen], axis=1)
    result = result_of("moh", inputs, sizes)
    np.testing.assert_array_equal(present_in(result, "G"), active)
    for name in ("Q", "QK", "A", "O", "OG"):
        own = present_in(result, name)
        others = [r for r in loaded("moh").tensors[name].ranks if r not in "bhp"]
        axes = [loaded("moh").tensors[name].ranks.index(r) for r in others]
        np.testing.assert_array_equal(own.all(axis=tuple(axes)), active)
        np.testing.assert_array_equal(own.any(axis=tuple(axes)), active)
    assert present_in(result, "K").all()  # keys and values are needed for every head that some token picks
    assert present_in(result, "V").all()


# Counts that the papers state, or that follow from their extents


def counted(name, extents=None):
    """Points of every Einsum at the extents of the file."""
    cascade = loaded(name)
    found = Dependence(cascade, extents_of(cascade, extents))
    return {einsum: found.count(einsum)[0] for einsum in found.points}


def read_of(name, tensors, extents=None):
    """Words read of some inputs, at the least."""
    cascade = loaded(name)
    found = bounds(cascade, extents_of(cascade, extents)).compulsory_at
    return sum(found[t]["read"] for t in tensors)


def test_shared_keys_cut_the_cache():
    """Multi-query reads 1/H of the keys and values that as many heads of their own have; grouped ones G/H."""
    n = {"b": 1, "p": 1, "m": 1000}
    own = read_of("scaled-attention", "KV", n | {"h": 8, "e": 128, "f": 128, "p": 1000}) / 1000
    assert read_of("mqa", "KV", n | {"h": 8}) / 1000 == own / 8 == 256
    llama = read_of("gqa-decode", "KV", {"b": 1, "m": 1000}) / 1000
    assert llama == 2 * 8 * 128
    driven = extents_of(loaded("kdgqa"))
    keys = read_of("kdgqa", "K")  # which values are read depends on data
    assert keys / (driven["b"] * driven["m"] * driven["h"] * driven["e"]) == 6 / 12


@pytest.mark.parametrize("r", [1, 4, 16])
def test_grouped_decoding_does_as_many_products_a_word_as_heads_share(r):
    macs = bounds(loaded("gqa-decode"), extents_of(loaded("gqa-decode"), {"r": r})).operations_at["mac"]
    assert macs == r * read_of("gqa-decode", "KV", {"r": r})


def test_latent_cache():
    """576 words a token and layer, 4.5 heads of 128, as of a grouped cache with 2.25 groups; less than DeepSeek 67B
    (95 layers of 8 groups) by 93.3% with 6 of 16 bits kept, as the report says."""
    n = {"b": 1, "m": 1000}
    words = read_of("mla-decode", ["CKV", "KR"], n) / 1000
    assert words == 576 == 4.5 * 128 == 2.25 * 2 * 128
    before = 95 * read_of("gqa-decode", "KV", n) / 1000
    after = 60 * words
    assert round(100 * (1 - after * 6 / (before * 16)), 1) == 93.3


def test_latents_absorbed_win_a_step_and_lose_a_prompt():
    """192 + 128 products a score as against 576 + 512; but a step need not unpack the cache."""
    plain, absorbed = counted("mla"), counted("mla-absorbed")
    pairs = plain["QK"]
    assert (plain["SC"] + plain["SR"]) / pairs == 192
    assert plain["O"] / pairs == 128
    assert (absorbed["SC"] + absorbed["SR"]) / pairs == 576
    assert absorbed["Y"] / pairs == 512
    assert sum(plain[t] for t in ("SC", "SR", "O", "KN", "V")) < sum(absorbed[t] for t in ("SC", "SR", "Y", "QA", "O"))
    step = counted("mla-decode", {"b": 1})
    unpacked = plain["KN"] + plain["V"] + 320 * step["QK"]
    assert 100 * sum(step[t] for t in ("SC", "SR", "Y", "QA", "O")) < unpacked


def test_differential_heads_cost_what_twice_as_many_plain_ones_do():
    """Half the heads, each with two maps and values twice as wide."""
    found = counted("differential")
    plain = counted("scaled-attention", {"b": 1, "h": 24, "e": 128, "f": 128, "p": 4096, "m": 4096})
    assert found["QK1"] + found["QK2"] + found["O"] == plain["QK"] + plain["O"]


def test_heads_in_use():
    """24 of 32 heads, 75%; of a layer with its feed-forward part of 14336 that saves 2.8% (2K tokens) to 5% (8K)."""
    inputs, sizes = inputs_of("moh-llama", {"s": 16, "u": 16, "t": 8, "r": 4, "p": 9, "d": 3})
    present = present_in(result_of("moh-llama", inputs, sizes), "QK")
    assert present.sum() == 0.75 * sizes["b"] * 32 * 45
    cascade = loaded("moh-llama")
    assert (cascade.ranks["s"].value + cascade.ranks["t"].value) / 32 == 0.75
    for tokens, share, saved in ((2048, 3.7, 2.8), (8192, 13.3, 5.0)):
        found = counted("moh-llama", {"p": tokens})
        core = found["QK"] + found["O"]
        layer = core + found["Z"] + tokens * 4096 * (4096 + 2 * 1024 + 3 * 14336)
        assert round(100 * core / layer, 1) == share
        assert round(100 * 0.25 * (core + found["Z"]) / layer, 1) == saved


def test_students_compute_half_or_less():
    """Half the products with half the layers, 0.275 with half the width, 0.14 with both; of 12 layers of 768 at 512
    tokens, feed-forward parts four times as wide."""
    products = {}
    for width in (768, 384):
        found = counted("mha", {"p": 512, "d": width, "h": 12, "e": width // 12, "f": width // 12})
        products[width] = sum(found[t] for t in ("Q", "K", "V", "QK", "O", "Z")) + 512 * 8 * width**2
    teacher = 12 * products[768]
    assert 6 * products[768] / teacher == 0.5
    assert round(12 * products[384] / teacher, 3) == 0.275
    assert round(6 * products[384] / teacher, 2) == 0.14
