"""Linear attention, retention, state spaces, delta rules and extractors against plain NumPy and each other."""

from pathlib import Path

import numpy as np
import pytest
from mechanisms import agreement, loaded, pass_counts

from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.derive import derive
from fusemodel.cascade import extents_of, parse_cascade
from fusemodel.numerics import compare, random_inputs, run
from fusemodel.numerics.interpret import count_points

FOLDER = Path(__file__).parents[1] / "einsums" / "recurrent"
SHORT, ONE = {"b": 1, "h": 1, "i": 10}, {"b": 1, "h": 2, "i": 1}
PAIRS, PAIR = {"b": 1, "h": 1, "p": 10}, {"b": 1, "h": 2, "p": 1}
CHUNKS = [{}, {"i": 16, "i0": 4, "b": 1, "h": 1}, {"i": 5, "i0": 8, "h": 1}, {"i": 6, "i0": 1, "b": 1}, ONE]
SSD = [{}, {"b": 1, "g": 1, "r": 2}, {"w": 1, "r": 1}]
SYSTEM = [{}, {"b": 1, "i": 9}, {"i": 1}]
SIGNAL = [{}, {"b": 1, "p": 8, "d": 3}, {"p": 1}]
LAYERS = [{"l": 1, "n": 2}, {"l": 4, "n": 4}]

# extents beyond those of the field `test`; each mechanism is run at three shapes or more, a batch of one among them
SHAPES = {
    "linear-attention": [{}, {"b": 1, "h": 1, "p": 7, "m": 30}, {"p": 1, "m": 1}],
    "linear-attention-causal": [{}, SHORT, ONE],
    "linear-attention-causal-quadratic": [{}, PAIRS, PAIR],
    "linear-attention-causal-chunked": CHUNKS,
    "retention": [{}, SHORT, ONE, {"e": 2, "f": 1}],
    "retention-parallel": [{}, PAIRS, PAIR],
    "retention-chunked": CHUNKS,
    "gla": [{}, SHORT, ONE],
    "gla-chunked": CHUNKS,
    "ssd-mamba2": [*SSD, {"i": 1}, {"i": 3}],
    "ssd-mamba2-quadratic": [*SSD, {"p": 1}, {"p": 3}],
    "ssd-mamba2-chunked": [*SSD, {"i": 1}, {"i": 16, "i0": 4}, {"i": 5, "i0": 9}, {"i": 5, "i0": 1}],
    **{name: [{}, SHORT, ONE] for name in ("deltanet", "gated-deltanet", "kda")},
    **dict.fromkeys(("deltanet-chunked", "gated-deltanet-chunked", "kda-chunked"), CHUNKS),
    "lightning-attention": [{}, PAIRS, PAIR, *LAYERS],
    "lightning-attention-chunked": [*CHUNKS, *LAYERS],
    "transnormer-gla": [{}, PAIRS, PAIR, *LAYERS],
    "transnormer-gla-recurrent": [{}, SHORT, ONE],
    "icl-linear-gd": [{}, {"b": 1, "n": 1, "d": 1}, {"b": 2, "n": 40, "d": 9}],
    "icl-gd-step": [{}, {"b": 1, "n": 1, "d": 1}, {"b": 2, "n": 40, "d": 9}],
    "dsf-linear-attention": [{}, SHORT, ONE],
    **dict.fromkeys(("dsf-recurrence", "dsf-s6", "dsf-rg-lru"), SYSTEM),
    **dict.fromkeys(("s4d", "s4d-recurrent"), SIGNAL),
    "dsf-softmax": [{}, SHORT | {"n": 60}, ONE | {"n": 60}],
    "dsf-quasi-lstm": [{}, {"b": 1, "i": 9, "d": 2}, {"i": 1}],
    "tnl-layer": [{}, {"b": 1, "h": 1, "i": 10}, {"b": 1, "i": 1}, *LAYERS],
    "sglu": [{}, {"b": 1, "i": 1}, {"f": 1, "d": 9}],
    **dict.fromkeys(("extractor-she", "extractor-he", "extractor-we", "extractor-me"), SIGNAL),
}

ONE_PASS = (1, 1)
PASSES = {
    ("linear-attention", "m"): ONE_PASS,
    ("linear-attention-causal", "i"): ONE_PASS,
    ("linear-attention-causal-quadratic", "m"): (2, 1),  # as written each row waits for its sum
    ("linear-attention-causal-chunked", "i"): ONE_PASS,
    ("retention", "i"): ONE_PASS,
    ("retention-parallel", "m"): ONE_PASS,
    ("retention-chunked", "i"): ONE_PASS,
    ("gla", "i"): ONE_PASS,
    ("gla-chunked", "i"): ONE_PASS,
    ("ssd-mamba2", "i"): ONE_PASS,
    ("ssd-mamba2-quadratic", "m"): (2, 1),  # as written decays from m to p need the sum up to p
    ("ssd-mamba2-chunked", "i"): ONE_PASS,
    ("deltanet", "i"): ONE_PASS,
    ("gated-deltanet", "i"): ONE_PASS,
    ("kda", "i"): ONE_PASS,
    **{(f"{name}-chunked", "i"): ONE_PASS for name in ("deltanet", "gated-deltanet", "kda")},
    ("lightning-attention", "m"): ONE_PASS,
    ("lightning-attention-chunked", "i"): ONE_PASS,
    ("transnormer-gla", "m"): ONE_PASS,
    ("transnormer-gla-recurrent", "i"): ONE_PASS,
    ("icl-linear-gd", "n"): ONE_PASS,
    ("icl-gd-step", "n"): ONE_PASS,
    ("dsf-recurrence", "i"): ONE_PASS,
    ("dsf-linear-attention", "i"): ONE_PASS,
    ("dsf-s6", "i"): ONE_PASS,
    ("dsf-softmax", "i"): ONE_PASS,
    ("dsf-quasi-lstm", "i"): ONE_PASS,
    ("tnl-layer", "i"): ONE_PASS,
    ("sglu", "i"): ONE_PASS,
    ("dsf-rg-lru", "i"): ONE_PASS,
    ("s4d", "p"): ONE_PASS,
    ("s4d-recurrent", "p"): ONE_PASS,
    **{(f"extractor-{kind}", "p"): ONE_PASS for kind in ("she", "he", "we", "me")},
}


def test_every_file_is_tested():
    assert {f.stem for f in FOLDER.glob("*.yaml")} == set(SHAPES)


test_equals_the_reference = agreement(SHAPES)
test_passes = pass_counts(PASSES)


# Forms of one mechanism, and mechanisms that meet


def inputs_of(name, seed=5, **extents):
    sizes = {**loaded(name).test, **extents}
    return random_inputs(loaded(name), extents_of(loaded(name), sizes), seed=seed), sizes


def edited(name, old, new):
    """A cascade of the library with one equation replaced."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [new if line.strip().startswith(old) else line for line in text.splitlines()]
    assert lines.count(new) == 1
    return parse_cascade("\n".join(lines))


def output(cascade, inputs, extents=None):
    """The one output of a cascade, of which inputs not named in it are dropped."""
    cascade = loaded(cascade) if isinstance(cascade, str) else cascade
    given = {n: inputs[n] for n in cascade.inputs}
    (result,) = run(cascade, given, {r: n for r, n in (extents or {}).items() if r in cascade.ranks}).outputs.values()
    return result


def assert_same(a, b, tolerance=1e-10):
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


FORMS = {
    "linear-attention-causal": ["linear-attention-causal-quadratic", "linear-attention-causal-chunked"],
    "retention": ["retention-parallel", "retention-chunked"],
    "gla": ["gla-chunked"],
    "ssd-mamba2": ["ssd-mamba2-quadratic", "ssd-mamba2-chunked"],
    "deltanet": ["deltanet-chunked"],
    "gated-deltanet": ["gated-deltanet-chunked"],
    "kda": ["kda-chunked"],
    "lightning-attention-chunked": ["lightning-attention"],
    "transnormer-gla-recurrent": ["transnormer-gla"],
    "s4d": ["s4d-recurrent"],
}


@pytest.mark.parametrize(("name", "other"), [(n, o) for n, others in FORMS.items() for o in others])
def test_forms_are_equal(name, other):
    inputs, sizes = inputs_of(name)
    expected = output(name, inputs, sizes)
    more = {r: sizes[r] for r in ("l", "n") if r in sizes and r in loaded(other).ranks}
    for chunk in (1, 5, 37, 64) if "i0" in loaded(other).ranks else (None,):
        assert_same(output(other, inputs, {**more, "i0": chunk} if chunk else more), expected)


@pytest.mark.parametrize("chunk", [1, 8, 37])
def test_lightning_without_decay_is_causal_linear_attention_without_denominator(chunk):
    inputs, sizes = inputs_of("lightning-attention-chunked", i0=chunk)
    none = edited("lightning-attention-chunked", "LR[h]", "  LR[h] = 0 * h")
    scores = np.tril(np.einsum("bhep,bhem->bhpm", inputs["Q"], inputs["K"]))
    expected = np.einsum("bhpm,bhfm->bhfp", scores, inputs["V"])
    assert_same(output(none, inputs, sizes), expected)
    assert_same(output("gla", inputs | {"G": np.full(inputs["Q"].shape, 1e3)}), expected)  # all gates open


def test_lightning_with_the_decay_of_retention():
    """Retention before rotation, scale and norm is lightning attention with other rates."""
    inputs, _ = inputs_of("retention-parallel")
    plain = edited("retention-parallel", "TH[e]", "  TH[e] = 0 * e")
    retained = run(plain, inputs)["R"] * np.sqrt(inputs["Q"].shape[2])
    rates = edited("lightning-attention", "LR[h]", "  LR[h] = -log(1 - exp2(-5 - h))")
    assert_same(output(rates, inputs, {"l": 1, "n": 2}), retained)


def test_the_layer_around_lightning_attention():
    """Its heads are lightning attention of activated projections; a gate of zeros halves what is normed."""
    inputs, sizes = inputs_of("tnl-layer")
    inputs |= {"WG1": 0 * inputs["WG1"], "GAIN": 0 * inputs["GAIN"] + 1, "BIAS": 0 * inputs["BIAS"]}
    layer = run(loaded("tnl-layer"), inputs, {r: sizes[r] for r in ("l", "n")})
    heads = output("lightning-attention", {t: layer[t] for t in "QKV"}, {"l": sizes["l"], "n": sizes["n"]})
    assert_same(layer["O"], heads)
    joined = heads.reshape(sizes["b"], -1, sizes["i"])
    normed = (joined - joined.mean(1, keepdims=True)) / np.sqrt(joined.var(1, keepdims=True) + 1e-5)
    weights = inputs["WO"].reshape(joined.shape[1], -1)
    assert_same(layer["Z"], np.einsum("gc,bgi->bci", weights, normed / 2))


def test_a_unit_without_activation_is_quadratic():
    inputs, _ = inputs_of("sglu")
    assert_same(output("sglu", inputs | {"X": -3 * inputs["X"]}), 9 * output("sglu", inputs))


def test_transnormer_without_rotation_is_normed_and_gated_lightning():
    inputs, sizes = inputs_of("transnormer-gla")
    inputs["TH"] = 0 * inputs["TH"]
    active = {t: inputs[t] / (1 + np.exp(-inputs[t])) for t in "QK"}
    r = output("lightning-attention", inputs | active, sizes)
    expected = inputs["U"] * r / np.sqrt((r**2).mean(axis=(1, 2), keepdims=True) + 1e-6)
    assert_same(output("transnormer-gla", inputs, sizes), expected)


@pytest.mark.parametrize("form", ["", "-chunked"])
def test_delta_rules_that_meet(form):
    inputs, _ = inputs_of(f"gated-deltanet{form}")
    features = inputs["Q"].shape[2]
    wide = {
        "T": np.repeat(inputs["T"][:, :, None], features, axis=2),
        "TB": np.repeat(inputs["TB"][:, None], features, axis=1),
    }
    gated = output(f"gated-deltanet{form}", inputs)
    assert_same(output(f"kda{form}", inputs | wide) * np.sqrt(features), gated)
    still = inputs | {"AL": np.full(inputs["AL"].shape, -1e4)}  # the rate of decay is 0
    plain = output(f"deltanet{form}", inputs)
    assert_same(output(f"gated-deltanet{form}", still), plain)
    assert_same(output(f"kda{form}", still | wide) * np.sqrt(features), plain)
    assert np.abs(gated - plain).max() > 1e-3 * np.abs(plain).max()


def test_chunks_of_a_strong_decay_do_not_overflow():
    """Decays come as exponentials of differences, none of them above 1."""
    for name, gate in (("gla", "G"), ("kda", "T")):
        inputs, _ = inputs_of(name)
        inputs[gate] = inputs[gate] + (-2000.0 if name == "gla" else 300.0)
        expected = output(name, inputs)
        assert np.isfinite(expected).all()
        assert_same(output(f"{name}-chunked", inputs, {"i0": 37}), expected)


def test_linear_systems_that_are_other_mechanisms():
    """#60 claims that one template holds them: linear attention, gated linear attention, S6, lightning attention."""
    inputs, _ = inputs_of("linear-attention-causal")
    assert_same(output("dsf-linear-attention", inputs), output("linear-attention-causal", inputs))

    inputs, _ = inputs_of("gla", h=1)
    features = inputs["V"].shape[2]
    gates = (1 / (1 + np.exp(-inputs["G"]))) ** (1 / 16)
    system = {
        "LAM": np.repeat(gates[:, 0, :, None], features, axis=2),
        "Bi": inputs["K"][:, 0], "Ci": inputs["Q"][:, 0], "U": inputs["V"][:, 0], "Di": 0 * inputs["V"][:, 0],
    }  # fmt: skip
    assert_same(output("dsf-recurrence", system), output("gla", inputs)[:, 0])

    decay = np.exp(-(2.0**-8) * (1 + 1e-5))  # one head, the first layer
    assert_same(
        output("dsf-recurrence", system | {"LAM": np.full(system["LAM"].shape, decay)}),
        output("lightning-attention", inputs, {"l": 1, "n": 24})[:, 0],
    )

    inputs, _ = inputs_of("dsf-softmax")
    one = {"Q": inputs["Q"][:, :, None], "K": inputs["K"][:, :, None], "V": inputs["V"]}
    expected = run(loaded("causal-attention"), one, {"e": 1})["O"]
    assert_same(output("dsf-softmax", inputs, {"n": 60}), expected)

    inputs, sizes = inputs_of("dsf-quasi-lstm")
    gates = run(loaded("dsf-quasi-lstm"), inputs)
    one = np.ones((sizes["b"], 1, sizes["i"]))
    system = {
        "LAM": gates["LAM"][:, None], "Bi": one, "Ci": one,
        "U": gates["Bi"] * gates["ZC"], "Di": np.zeros_like(gates["ZC"]),
    }  # fmt: skip
    assert_same(gates["Ci"] * output("dsf-recurrence", system), gates["Y"])

    inputs, _ = inputs_of("dsf-s6")
    step = np.log1p(np.exp(inputs["T"]))
    rates = np.exp(inputs["AL"])
    system = inputs | {
        "LAM": np.exp(-step[:, None] * rates[..., None]), "U": step * inputs["U"], "Di": inputs["Di"][..., None] / step,
    }  # fmt: skip
    assert_same(output("dsf-recurrence", system), output("dsf-s6", inputs))


def test_linear_attention_makes_a_step_of_gradient_descent():
    """#5 (claimed, constructive direction): weights for which the layer predicts what one step of descent predicts."""
    inputs, sizes = inputs_of("icl-gd-step")
    d = sizes["d"]
    keys, values = np.zeros((d + 1, d + 1)), np.zeros(d + 1)
    keys[:d, :d] = inputs["PC"]
    values[d] = inputs["ETA"]
    layer = inputs | {"WKQ": keys, "WPV": values}
    assert_same(output("icl-linear-gd", layer), output("icl-gd-step", inputs))
    identity = inputs | {"PC": np.eye(d)}
    direct = inputs["ETA"] * np.einsum("bn,bdn,bd->b", inputs["Y"], inputs["X"], inputs["XQ"])
    assert_same(output("icl-gd-step", identity), direct)


def test_extractors_that_meet():
    inputs, sizes = inputs_of("extractor-he")
    diagonal = np.eye(sizes["d"])[..., None] * inputs["W"][:, None]
    assert_same(output("extractor-she", inputs | {"W": diagonal}), output("extractor-he", inputs))
    shared = inputs["W"][0]
    equal = inputs | {"W": np.repeat(shared[None], sizes["d"], axis=0)}
    assert_same(output("extractor-we", inputs | {"W": shared}), output("extractor-he", equal))
    mean = run(loaded("extractor-we"), inputs | {"W": np.ones(sizes["p"])})["E"]
    found = run(loaded("extractor-me"), {n: v for n, v in inputs.items() if n != "W"})["E"]
    assert_same(found * np.arange(1, sizes["p"] + 1), mean)


def test_causal_linear_attention_is_derived_in_the_chunks_of_the_library():
    """What `derive` makes of all pairs is the chunked file: as many points, and the same numbers."""
    found = derive(loaded("linear-attention-causal-quadratic")).cascade
    chunked = loaded("linear-attention-causal-chunked")
    assert count_points(found, extents_of(found, {"m0": 128})) == count_points(chunked, extents_of(chunked))
    assert compare(found, {"p": 37, "m0": 8}).max_rel_error < 1e-10
    inputs, _ = inputs_of("linear-attention-causal-chunked")
    assert_same(run(found, inputs, {"m0": 8})["O"], output(chunked, inputs, {"i0": 8}))


def test_associativity_finds_the_step_of_gradient_descent():
    """The Gram matrix of a prompt is not needed: N (D + 1)^2 products become 2 N (D + 1)."""
    found = derive(loaded("icl-linear-gd"))
    assert found.points_before > 20 * found.points_after
    assert compare(found.cascade).max_rel_error < 1e-9


# Counts


def chunk_sizes(length, chunk):
    return [min(chunk, length - start) for start in range(0, length, chunk)]


def pairs_in_chunks(length, chunk, strict=False):
    p, m = np.arange(length)[:, None], np.arange(length)[None, :]
    return int(((m < p if strict else m <= p) & (m // chunk == p // chunk)).sum())


def present(name, tensor, extents):
    result = run(loaded(name), extents=extents)
    return int(np.broadcast_to(result.present.get(tensor, True), result[tensor].shape).sum())


@pytest.mark.parametrize("length", [13, 20])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("linear-attention-causal-quadratic", "QK"), ("retention-parallel", "QK"), ("ssd-mamba2-quadratic", "CB"),
        ("lightning-attention", "QK"),
    ],
)  # fmt: skip
def test_pairs_that_are_not_later(name, tensor, length):
    extents = {"b": 1, "h": 1, "g": 1, "p": length}
    found = present(name, tensor, {r: n for r, n in extents.items() if r in loaded(name).ranks})
    assert found == pairs_in_chunks(length, length) == length * (length + 1) // 2


@pytest.mark.parametrize(("length", "chunk"), [(37, 8), (20, 6)])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("linear-attention-causal-chunked", "QK"), ("retention-chunked", "QK"), ("gla-chunked", "QK"),
        ("ssd-mamba2-chunked", "CB"), ("deltanet-chunked", "QK"), ("gated-deltanet-chunked", "QK"),
        ("kda-chunked", "QK"), ("lightning-attention-chunked", "QK"),
    ],
)  # fmt: skip
def test_pairs_inside_chunks(name, tensor, length, chunk):
    extents = {"b": 1, "h": 1, "g": 1, "i": length, "i0": chunk}
    found = present(name, tensor, {r: n for r, n in extents.items() if r in loaded(name).ranks})
    assert found == pairs_in_chunks(length, chunk)


def macs(name, **extents):
    return bounds(loaded(name), extents_of(loaded(name), extents)).operations_at["mac"]


@pytest.mark.parametrize(("length", "chunk"), [(37, 8), (20, 6), (5, 8)])
def test_multiplications_of_lightning_attention(length, chunk):
    e, f = 6, 5
    found = macs("lightning-attention-chunked", b=1, h=1, i=length, i0=chunk, e=e, f=f)
    assert found == pairs_in_chunks(length, chunk) * (e + f) + 2 * length * e * f
    assert macs("lightning-attention", b=1, h=1, p=length, e=e, f=f) == pairs_in_chunks(length, length) * (e + f)


@pytest.mark.parametrize(("length", "chunk"), [(32, 8), (12, 6)])
def test_multiplications_of_the_delta_rule_in_chunks(length, chunk):
    """Scores of keys and of queries, T by substitution, T V and T K, and three products with the state."""
    e, f = 6, 5
    earlier, pairs = pairs_in_chunks(length, chunk, strict=True), pairs_in_chunks(length, chunk)
    column, between, row = np.arange(chunk)[:, None, None], np.arange(chunk)[:, None], np.arange(chunk)
    substitution = length // chunk * int(((column <= between) & (between < row)).sum())
    expected = 2 * length * e + earlier * e + substitution + 2 * pairs * (e + f) + 3 * length * e * f
    assert macs("deltanet-chunked", b=1, h=1, i=length, i0=chunk, e=e, f=f) == expected


# Claims


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("ssd-mamba2", "WX WB WC TB AL D WN"), ("ssd-mamba2-chunked", "WX WB WC TB AL D WN"),
        ("ssd-mamba2-quadratic", "WX WB WC TB AL D WN"), ("gated-deltanet", "AL TB"),
        ("gated-deltanet-chunked", "AL TB"),
        ("kda", "AL TB"), ("kda-chunked", "AL TB"), ("transnormer-gla", "TH"), ("transnormer-gla-recurrent", "TH"),
        ("dsf-s6", "AL Di"), ("dsf-rg-lru", "AL"),
    ],
)  # fmt: skip
def test_parameters_are_read_once_whatever_the_batch(name, tensors):
    cascade = loaded(name)
    one, four = (bounds(cascade, extents_of(cascade, cascade.test | {"b": b})) for b in (1, 4))
    for tensor in tensors.split():
        assert one.compulsory_at[tensor] == four.compulsory_at[tensor]
    data = [t for t in cascade.inputs if t not in tensors.split()]
    assert all(four.compulsory_at[t]["read"] == 4 * one.compulsory_at[t]["read"] for t in data)


def test_lightning_attention_costs_the_same_at_any_length():
    """#12 and #51 claim constant speed and fixed memory, with N (b (E + F) + 2 E F) MACs a head: the dense count,
    98304 a token with blocks of 256 and 128 features. The exact one leaves out the later half of each block: 65664."""
    cascade = loaded("lightning-attention-chunked")
    block, e, f = 256, 128, 128
    for n in (8192, 65536):
        sizes = extents_of(cascade, {"i": n, "h": 1})
        found = bounds(cascade, sizes)
        dense = found.operations["mac"].subs({s: sizes[s.name.lower()] for s in found.operations["mac"].free_symbols})
        assert dense / n == block * (e + f) + 2 * e * f == 98304
        assert found.operations_at["mac"] / n == (block + 1) / 2 * (e + f) + 2 * e * f == 65664
        assert found.compulsory_words_at / n == 2 * (e + f)  # Q, K, V read and O written, once
        assert str(found.footprint.tensors["KV"]) == "E*F"


def test_where_lightning_attention_overtakes_causal_attention():
    """#12: at N = 2 b + 2 E (E = F) of whole blocks against half of all pairs: 768 with blocks of 256 and 128 features.
    Not computing the later half of blocks either it is b + 2 E: 512."""
    block, e = 256, 128
    at = 2 * block + 2 * e
    assert at * (block * 2 * e + 2 * e * e) == at**2 / 2 * 2 * e
    quadratic, chunked = "lightning-attention", "lightning-attention-chunked"
    assert macs(quadratic, h=1, p=256) < macs(chunked, h=1, i=256)
    assert macs(quadratic, h=1, p=512) == macs(chunked, h=1, i=512)
    assert macs(quadratic, h=1, p=1024) > macs(chunked, h=1, i=1024)


def test_tiles_do_without_the_map_of_all_pairs():
    """#43 claims a fourth of the memory (and half the time): a map of N^2 scores and one of them decayed beside Q, K,
    V and O take four times as much as these alone at N = 6 E = 768; in blocks what is kept is E F words a head."""
    e, n = 128, 768
    result = run(loaded("lightning-attention"), extents={"b": 1, "h": 1, "e": 6, "f": 6, "p": 36})
    given = sum(result[t].size for t in ("QK", "A")) / (4 * 36 * 6)
    assert 1 + given == 4 == 1 + 2 * n * n / (4 * n * e)
    cascade = loaded("lightning-attention-chunked")
    found = bounds(cascade, extents_of(cascade, {"i": n}))
    assert str(found.footprint.tensors["KV"]) == "E*F"
    assert not any(found.footprint.grows.get(r) for r in ("i", "i1"))


def test_products_of_extractors():
    """#40, per sequence of N: N^2 D^2 / 2 (SHE), N^2 D / 2 (HE), N D additions (ME), and N D^2 for the adjustment."""
    n, d = 256, 512
    adjustment = n * d * d
    assert macs("extractor-she") - adjustment == n * (n + 1) // 2 * d * d
    assert macs("extractor-he") - adjustment == macs("extractor-we") - adjustment == n * (n + 1) // 2 * d
    assert macs("extractor-me") == adjustment
    weights = {k: bounds(loaded(f"extractor-{k}"), extents_of(loaded(f"extractor-{k}"))) for k in ("she", "he", "we")}
    assert [b.compulsory_at["W"]["read"] for b in weights.values()] == [n * d * d, n * d, n]


def test_extractors_have_shorter_chains_than_attention():
    """#40 claims a shorter critical path than that of attention: 19 operations (SHE) and 12 (HE, WE) one after another
    against 38, at 256 positions and 512 features."""
    three = loaded("attention-3pass")
    sizes = extents_of(three, {"b": 1, "h": 1, "p": 256, "m": 256, "e": 512, "f": 512})
    assert bounds(three, sizes).critical_path_at == 38
    found = [loaded(f"extractor-{kind}") for kind in ("she", "he", "we")]
    assert [bounds(c, extents_of(c)).critical_path_at for c in found] == [19, 12, 12]
