"""Windows, neighborhoods and grids against plain NumPy: values, passes and exact work."""

import numpy as np
import pytest
from mechanisms import agreement, loaded, pass_counts
from references.attention import attention

from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.graph import Dependence
from fusemodel.cascade import extents_of
from fusemodel.numerics import random_inputs, run

ONE = {"b": 1, "h": 1}
TILES = [{}, ONE | {"y": 6, "x": 8, "wy": 3, "wx": 4}, ONE | {"y": 1, "x": 1, "wy": 2, "wx": 2},
         {"b": 1, "y": 5, "x": 11, "wy": 7, "wx": 4}]  # fmt: skip
NEAR = [{}, ONE | {"y": 8, "x": 5, "wy": 5, "wx": 5}, ONE | {"y": 1, "x": 1, "wy": 1, "wx": 1},
        {"b": 1, "y": 5, "x": 6, "wy": 2, "wx": 6}]  # fmt: skip
LINE = [{}, ONE | {"p": 13, "w": 5}, ONE | {"p": 1, "w": 1}, {"b": 1, "p": 7, "w": 7}]
CONV = [{}, ONE | {"y": 6, "x": 8, "ky": 3, "kx": 3, "dil": 1}, ONE | {"y": 1, "x": 1, "ky": 3, "kx": 3, "dil": 2},
        {"b": 1, "y": 3, "x": 4, "ky": 7, "kx": 9, "dil": 1}]  # fmt: skip

PLAIN = [{r: size for r, size in shape.items() if r != "dil"} for shape in CONV]
STRIDED = [
    {},
    ONE | {"p": 13, "w": 5, "dil": 1, "t": 2},
    ONE | {"p": 1, "w": 1},
    {"b": 1, "p": 12, "w": 2, "dil": 1, "t": 5},
]

# extents beyond those of the field `test`
SHAPES = {
    "swin": TILES,
    "swin-shifted": TILES,
    "gcvit-local": TILES,
    "gcvit-global-query": TILES,
    "axwin": [{}, {"b": 1, "hl": 1, "hr": 2, "hc": 1, "y": 6, "x": 8, "wx": 3, "s": 2},
              {"b": 1, "y": 1, "x": 1, "wx": 2, "s": 2}],
    "halonet": [{}, ONE | {"y": 8, "x": 8, "t": 4, "i": 8}, ONE | {"y": 1, "x": 1, "t": 3, "i": 5},
                {"b": 1, "y": 7, "x": 5, "t": 2, "i": 8}],
    "neighborhood-na-1d": LINE,
    "dilated-na-1d": [{}, ONE | {"p": 13, "w": 3, "dil": 4}, ONE | {"p": 1, "w": 1, "dil": 1},
                                {"b": 1, "p": 11, "w": 2, "dil": 5}],
    "neighborhood-na": NEAR,
    "neighborhood-biased": NEAR,
    "neighborhood-strided": [n | {"t": t} for n, t in zip(NEAR, (3, 2, 2, 4), strict=True)],
    "dilated-na": [{}, ONE | {"y": 8, "x": 7, "wy": 2, "wx": 3, "dil": 2},
                             ONE | {"y": 1, "x": 1, "wy": 1, "wx": 1, "dil": 1},
                             {"b": 1, "y": 10, "x": 11, "wy": 3, "wx": 2, "dil": 3}],
    "sliding-window-causal": [*({**n, "dil": 1} for n in LINE), {"p": 11, "w": 3, "dil": 3}],
    "block-local": LINE,
    "sink-logit": LINE,
    "swa-sinks": [{}, ONE | {"p": 17, "s": 4, "w": 3, "d": 1}, ONE | {"p": 1, "s": 1, "w": 1}, {"p": 6, "w": 9}],
    "longformer": [{}, ONE | {"p": 14, "g": 1, "w": 5}, ONE | {"p": 1, "g": 1, "w": 1}, {"p": 9, "g": 9, "w": 3}],
    "s2-attn": [{}, {"b": 1, "u": 1, "p": 16, "g": 4}, {"b": 1, "u": 1, "p": 1, "g": 1}, {"b": 1, "p": 13, "g": 6}],
    "sf-attn": [{}, {"b": 1, "u": 1, "z": 2, "p": 16, "g": 4, "s": 3}, {"b": 1, "u": 1, "p": 1, "g": 1, "s": 1},
                {"b": 1, "p": 13, "g": 6, "s": 1}],
    "long-range-grouping": [{}, ONE | {"c": 1, "y": 4, "x": 4, "sy": 2, "sx": 2},
                            ONE | {"c": 1, "y": 1, "x": 1, "sy": 2, "sx": 1}, {"b": 1, "c": 2, "y": 5, "x": 3}],
    "group-pose": [{}, {"b": 1, "n": 3, "k": 7, "h": 1}, {"b": 1, "n": 1, "k": 1, "h": 1}],
    "outlook": [{}, {"b": 1, "h": 1, "y": 4, "x": 8}, {"b": 1, "h": 1, "y": 1, "x": 1}, {"y": 5, "x": 5, "s": 1}],
    "neighborhood-causal-1d": STRIDED,
    "neighborhood-strided-1d": [*STRIDED[:2], ONE | {"p": 1, "w": 1, "dil": 1},
                                {"b": 1, "p": 12, "w": 4, "dil": 3, "t": 2}],
    "msa-conv-shifted": PLAIN,
    "msa-conv-pooled": [n | s for n, s in zip(PLAIN, ({}, {"s": 2}, {}, {"s": 9}), strict=True)],
    "moat-strided": [{}, {"b": 1, "h": 1, "iy": 6, "ix": 9}, {"b": 1, "h": 1, "iy": 1, "ix": 1}, {"iy": 5, "s": 1}],
    "msa-conv": CONV,
    "msa-conv-masked": CONV,
    "moat": [{}, {"b": 1, "h": 1, "y": 3, "x": 5}, {"b": 1, "h": 1, "y": 1, "x": 1}],
    "gcvit-query-generator": [{}, {"b": 1, "c": 4, "y": 4, "x": 7}, {"b": 1, "c": 4, "y": 1, "x": 1}],
}  # fmt: skip

WINDOW = [
    "swin", "swin-shifted", "gcvit-local", "gcvit-global-query", "neighborhood-na-1d", "dilated-na-1d",
    "neighborhood-na", "neighborhood-biased", "neighborhood-strided", "dilated-na", "sliding-window-causal",
    "block-local", "msa-conv", "msa-conv-masked", "longformer", "swa-sinks", "neighborhood-causal-1d",
    "neighborhood-strided-1d", "msa-conv-shifted", "msa-conv-pooled",
]  # fmt: skip
PASSES = {(name, "w"): (3, 1) for name in WINDOW} | {
    ("longformer", "m"): (3, 1),
    ("longformer", "g"): (3, 1),
    ("swa-sinks", "s"): (3, 1),
    ("sf-attn", "s"): (3, 1),
    ("sink-logit", "m"): (3, 1),
    ("halonet", "n"): (3, 1),
    ("long-range-grouping", "n"): (3, 1),
    ("axwin", "w"): (3, 1),
    ("axwin", "u"): (3, 1),
    ("axwin", "t"): (3, 1),
    ("s2-attn", "g"): (3, 1),
    ("sf-attn", "g"): (3, 1),
    ("sf-attn", "m"): (3, 1),
    ("group-pose", "m"): (3, 1),
    ("group-pose", "i"): (3, 1),
    ("outlook", "j"): (3, 1),
    ("moat", "m"): (3, 1),
    ("moat-strided", "m"): (3, 1),
    ("msa-conv-pooled", "gy"): (3, 1),
    ("msa-conv-pooled", "y"): (2, 2),  # all of the image is pooled before a pixel can look at the means
    ("gcvit-query-generator", "y"): (2, 2),
}


test_equals_the_reference = agreement(SHAPES)
test_passes = pass_counts(PASSES)


# Work: the scores that are computed are those of the mask


def along(n, keep):
    """Pairs of a query and a key in a line for which ``keep(p, m)``."""
    return int(np.broadcast_to(keep(np.arange(n["p"])[:, None], np.arange(n["p"])), (n["p"],) * 2).sum())


def grid(n, rows, columns=None):
    """Pairs of pixels whose rows and whose columns each are kept."""
    y, x = (np.arange(n[r]) for r in "yx")
    columns = columns or rows
    return int(rows(y[:, None], y, n["y"]).sum() * columns(x[:, None], x, n["x"]).sum())


def clipped(p, m, size, window, dilation=1):
    """The neighborhood by sorting: the ``window`` keys of the same remainder nearest to a centre left of the middle."""
    keep = np.zeros((len(p), len(m)), dtype=bool)
    for q in range(size):
        same = np.arange(q % dilation, size, dilation)
        distance = abs(same // dilation - (q // dilation - 0.25 + (window % 2) * 0.25))
        keep[q, same[np.argsort(distance, kind="stable")[:window]]] = True
    return keep


def grouped(p, m, n, leader, ends):
    """The window of the ``leader``-th of every ``t`` positions of a remainder, which ends there or is centred."""
    d, u, v = n["dil"], p // n["dil"], m // n["dil"]
    count = (n["p"] - p % d + d - 1) // d
    at = np.minimum(u // n["t"] * n["t"] + leader, count - 1)
    start = np.maximum(at - n["w"] + 1, 0) if ends else np.clip(at - n["w"] // 2, 0, count - n["w"])
    return (p % d == m % d) & (start <= v) & (v < start + n["w"])


def shifted(p, m, size, w):
    return (p - w // 2) // w == (m - w // 2) // w


PAIRS = {
    "swin": lambda n: grid(
        n, lambda p, m, _: p // n["wy"] == m // n["wy"], lambda p, m, _: p // n["wx"] == m // n["wx"]
    ),
    "swin-shifted": lambda n: grid(
        n, lambda p, m, s: shifted(p, m, s, n["wy"]), lambda p, m, s: shifted(p, m, s, n["wx"])
    ),
    "halonet": lambda n: grid(n, lambda p, m, _: abs(2 * (m - p // n["t"] * n["t"]) + 1 - n["t"]) < n["i"]),
    "msa-conv-masked": lambda n: grid(
        n,
        lambda p, m, _: (abs(p - m) <= n["dil"] * (n["ky"] // 2)) & ((p - m) % n["dil"] == 0),
        lambda p, m, _: (abs(p - m) <= n["dil"] * (n["kx"] // 2)) & ((p - m) % n["dil"] == 0),
    ),
    "neighborhood-na": lambda n: grid(
        n, lambda p, m, s: clipped(p, m, s, n["wy"]), lambda p, m, s: clipped(p, m, s, n["wx"])
    ),
    "neighborhood-na-1d": lambda n: along(n, lambda p, m: clipped(p, m, n["p"], n["w"])),
    "dilated-na-1d": lambda n: along(n, lambda p, m: clipped(p, m, n["p"], n["w"], n["dil"])),
    "neighborhood-causal-1d": lambda n: along(n, lambda p, m: grouped(p, m, n, n["t"] - 1, ends=True) & (m <= p)),
    "neighborhood-strided-1d": lambda n: along(n, lambda p, m: grouped(p, m, n, n["t"] // 2, ends=False)),
    "sliding-window-causal": lambda n: along(
        n, lambda p, m: (m <= p) & (p - m < n["dil"] * n["w"]) & ((p - m) % n["dil"] == 0)
    ),
    "block-local": lambda n: along(n, lambda p, m: (m <= p) & (m // n["w"] == p // n["w"])),
    "sink-logit": lambda n: along(n, lambda p, m: (m <= p) & (p - m < n["w"])) + n["p"],
    "swa-sinks": lambda n: along(n, lambda p, m: (m <= p) & ((p - m < n["w"]) | (m < n["s"]))),
    "longformer": lambda n: along(n, lambda p, m: (abs(p - m) <= n["w"] // 2) | (m < n["g"]) | (p < n["g"])),
    "s2-attn": lambda n: along(n, lambda p, m: (m <= p) & (m // n["g"] == p // n["g"])) * 2,
    "long-range-grouping": lambda n: n["c"] ** 2 * grid(
        n, lambda p, m, _: p % n["sy"] == m % n["sy"], lambda p, m, _: p % n["sx"] == m % n["sx"]
    ),
}  # fmt: skip
ROLES = ("b", "h", "u")


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n in PAIRS for s in SHAPES[n][:2]])
def test_exact_work(name, shape):
    """One exponential for every score of the mask (and for every sink), however they are counted."""
    cascade = loaded(name)
    result = run(cascade, extents=shape)
    n = result.extents
    pairs = PAIRS[name](n) * int(np.prod([n[r] for r in ROLES if r in n]))
    scores = [t for t in ("SN", "SW", "SS", "SA") if t in result.tensors]
    present = sum(int(result.present.get(t, np.ones_like(result[t], dtype=bool)).sum()) for t in scores)
    sinks = int(np.prod(result["LD"].shape)) if name == "sink-logit" else 0
    assert present + sinks == pairs
    assert bounds(cascade, n).operations_at["exp"] == pairs


# Claims: what the papers count, from the cascades at their extents


def counted(name, einsum, extents=None):
    cascade = loaded(name)
    found, exact = Dependence(cascade, extents_of(cascade, extents)).count(einsum)
    assert exact
    return found


def macs(name, extents=None):
    cascade = loaded(name)
    return bounds(cascade, extents_of(cascade, extents)).operations_at["mac"]


@pytest.mark.parametrize(
    "name", ["swin", "gcvit-local", "gcvit-global-query", "neighborhood-na", "neighborhood-biased"]
)
def test_windows_cost_two_macs_a_pixel_key_and_channel(name):
    n = extents_of(loaded(name))
    assert macs(name) == 2 * n["b"] * n["y"] * n["x"] * n["w"] * n["h"] * n["e"]


def test_dilation_is_free():
    """DiNAT: as many MACs as NA; the receptive field of l layers of w keys grows from l (w - 1) + 1 to w to the l."""
    assert macs("dilated-na") == macs("neighborhood-biased")

    def field(dilations):
        reached = np.eye(27, dtype=bool)
        for d in dilations:
            n = ONE | {"p": 27, "w": 3, "dil": d, "f": 27}
            given = random_inputs(loaded("dilated-na-1d"), extents_of(loaded("dilated-na-1d"), n))
            given["V"] = np.eye(27)[None, None]
            weights = run(loaded("dilated-na-1d"), given, n)["O"][0, 0]
            reached = (weights.T > 0) @ reached
        return reached[13].sum()

    assert [field([1] * k) for k in (1, 2, 3)] == [3, 5, 7]
    assert [field([1, 3, 9][:k]) for k in (1, 2, 3)] == [3, 9, 27]


def test_the_footprint_of_a_fused_neighborhood():
    """Faster NA: what is alive at once grows with the window, not with the image (no tensor of N w^2 is kept)."""
    for name in ("neighborhood-na", "neighborhood-na-1d"):
        cascade = loaded(name)
        grows = bounds(cascade, extents_of(cascade)).footprint.grows
        assert grows["w"]
        assert not any(grows.get(r) for r in ("y", "x"))


@pytest.mark.parametrize(("tile", "window"), [(8, 7), (4, 5), (16, 3)])
def test_a_tile_of_queries_meets_more_keys_than_it_needs(tile, window):
    """Faster NA: T queries of a tile load T + w - 1 keys along an axis, so w / (T + w - 1) of the scores are of use."""
    extents = ONE | {"p": 128, "w": window}
    start = run(loaded("neighborhood-na-1d"), extents=extents)["START"].reshape(-1)[64 : 64 + tile].astype(int)
    keys = {m for s in start for m in range(s, s + window)}
    assert len(keys) == tile + window - 1
    useful = sum(len({*range(s, s + window)}) for s in start) / (tile * len(keys))
    assert useful == pytest.approx(window / (tile + window - 1))


def test_halo_keys():
    """HaloNet: (b + 2h)^2 keys for b^2 queries, 3.06 times as many; those outside the image are left out."""
    n = extents_of(loaded("halonet"))
    assert n["n"] / n["t"] ** 2 == pytest.approx(3.06, abs=0.005)
    # along an axis of 2 blocks both see 11 of 14 keys for each of their 8 queries
    small = {"b": 1, "h": 1, "y": 16, "x": 16}
    assert counted("halonet", "SN", small) == (8 * 2 * 11) ** 2


def test_groups_of_views():
    """LRGT: 49 groups of 4 V tokens in place of 196 V tokens, 49 times fewer scores."""
    n = extents_of(loaded("long-range-grouping"))
    found = counted("long-range-grouping", "SN")
    assert found == n["b"] * n["h"] * 49 * (4 * n["c"]) ** 2
    assert n["b"] * n["h"] * (196 * n["c"]) ** 2 == 49 * found


def test_factorised_poses():
    """Group Pose: 3.24M scores among 1800 queries become 0.212M, 15.3 times fewer."""
    n = extents_of(loaded("group-pose"))
    scores = (counted("group-pose", "N1") + counted("group-pose", "N2")) // (n["b"] * n["h"])
    assert scores == 212_400
    assert 1800**2 / scores == pytest.approx(15.3, abs=0.05)


def test_outlook_macs():
    """VOLO-D1: 57.8M for values and projection, 18.3M for logits, 3.0M for the sums; 236M for attention's scores."""
    one = {"b": 1}
    assert counted("outlook", "VX", one) + counted("outlook", "P", one) == pytest.approx(57.8e6, rel=1e-3)
    assert counted("outlook", "LA", one) == pytest.approx(18.3e6, rel=2e-3)
    # the paper's 3.0M hold the zeros around the image, 1 of the 14 x 3 rows and columns that the windows reach
    assert counted("outlook", "AV", one) == 6 * 32 * 9 * (14 * 3 - 1) ** 2
    assert counted("outlook", "AV", one) == pytest.approx(3.0e6, rel=0.05)
    among_all = 2 * 784**2 * 192
    assert among_all == pytest.approx(236e6, rel=1e-3)


def test_moat_macs():
    """N (8 D^2 + 36 D) + 4 N D^2 + 2 N^2 D, the filter's 36 N D less what reaches outside the image."""
    n = extents_of(loaded("moat"))
    pixels, d = n["y"] * n["x"], n["c"]
    one = {"b": 1}
    found = {e: counted("moat", e, one) for e in ("T1", "T2", "T3", "Q", "K", "V", "QK", "O", "P")}
    filtered = 4 * d * (3 * n["y"] - 2) * (3 * n["x"] - 2)
    assert found["T2"] == filtered
    assert filtered / (36 * pixels * d) == pytest.approx(0.907, abs=1e-3)
    assert sum(found.values()) - filtered == pixels * 8 * d**2 + 4 * pixels * d**2 + 2 * pixels**2 * d


def test_sliding_convolution_macs():
    """2 N k^2 D, less what reaches outside; zeros that take weight cost a softmax but no product."""
    n = extents_of(loaded("msa-conv"))
    inside = sum(min(56, p + 4) - max(0, p - 3) for p in range(56))
    assert macs("msa-conv") == macs("msa-conv-masked") == 2 * n["b"] * n["h"] * n["e"] * inside**2
    assert macs("msa-conv") / (2 * n["b"] * n["h"] * n["e"] * 56**2 * 49) == pytest.approx(0.94, abs=0.01)
    assert counted("msa-conv", "SN") == n["b"] * n["h"] * 56**2 * 49


def test_shifted_groups_cost_a_quarter():
    """LongLoRA: groups of a quarter of the sequence, a quarter of the work of full causal attention."""
    n = extents_of(loaded("s2-attn"))
    heads = n["b"] * n["u"] * n["z"]
    assert counted("s2-attn", "SN") == heads * 4 * n["g"] * (n["g"] + 1) // 2
    assert counted("s2-attn", "SN") / (heads * n["p"] * (n["p"] + 1) // 2) == pytest.approx(0.25, abs=1e-4)


# What becomes equal at the ends


def given(name, extents, **replaced):
    cascade = loaded(name)
    n = extents_of(cascade, extents)
    made = random_inputs(cascade, n, seed=5)
    return n, made | {k: f(made) if callable(f) else f for k, f in replaced.items()}


def output(name, inputs, extents):
    cascade = loaded(name)
    return run(cascade, {k: v for k, v in inputs.items() if k in cascade.inputs}, extents)["O"]


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def full(inputs, n, mask=None):
    return attention(inputs["Q"], inputs["K"], inputs["V"], mask, 1 / np.sqrt(n["e"]))


def flat(inputs):
    return {k: v.reshape(*v.shape[:-2], -1) for k, v in inputs.items() if k in "QKV"}


def causal(n):
    return np.tri(n["p"], dtype=bool)


SQUARE = {"b": 2, "h": 2, "y": 5, "x": 4, "e": 3, "f": 2}
STRING = {"b": 2, "h": 2, "p": 9, "e": 3, "f": 2}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("neighborhood-na", {"wy": 5, "wx": 4}),
        ("neighborhood-strided", {"wy": 5, "wx": 4, "t": 2}),
        ("neighborhood-biased", {"wy": 5, "wx": 4}),
        ("dilated-na", {"wy": 5, "wx": 4, "dil": 1}),
        ("swin", {"wy": 5, "wx": 6}),
        ("gcvit-local", {"wy": 5, "wx": 4}),
        ("msa-conv-masked", {"ky": 9, "kx": 7, "dil": 1}),
        ("axwin", {"hl": 2, "hr": 1, "hc": 1, "wx": 5, "s": 5}),
        ("halonet", {"t": 5, "i": 5}),
    ],
)
def test_a_window_as_large_as_the_image_is_attention(name, more):
    extents = {k: v for k, v in {**SQUARE, **more}.items() if k != "h" or name != "axwin"}
    n, inputs = given(name, extents)
    inputs |= {k: np.zeros_like(v) for k, v in inputs.items() if k in ("RPB", "RH", "RW")}
    found = output(name, inputs, extents)
    same(found.reshape(*found.shape[:-2], -1), full(flat(inputs), n))


@pytest.mark.parametrize(
    ("name", "more", "mask"),
    [
        ("neighborhood-na-1d", {"w": 9}, None),
        ("dilated-na-1d", {"w": 9, "dil": 1}, None),
        ("longformer", {"g": 2, "w": 17}, None),
        ("sliding-window-causal", {"w": 9, "dil": 1}, causal),
        ("block-local", {"w": 9}, causal),
        ("sink-logit", {"w": 9}, causal),
    ],
)
def test_a_window_as_long_as_the_sequence_is_attention(name, more, mask):
    n, inputs = given(name, STRING | more)
    inputs |= {"QG": inputs["Q"][..., :2], "KG": inputs["K"], "VG": inputs["V"], "SINK": np.full(n["h"], -1e9)}
    same(output(name, inputs, STRING | more), full(inputs, n, mask and mask(n)))


def test_groups_as_long_as_the_sequence_are_causal_attention():
    """In the rolled half of the heads the rolled sequence is what is causal."""
    extents = {"b": 2, "u": 2, "p": 8, "g": 8, "e": 3, "f": 2}
    n, inputs = given("s2-attn", extents)
    found = output("s2-attn", inputs, extents)
    same(found[:, :, 0], full({k: v[:, :, 0] for k, v in inputs.items()}, n, causal(n)))
    rolled = {k: np.roll(v[:, :, 1], -4, axis=-1) for k, v in inputs.items()}
    same(np.roll(found[:, :, 1], -4, axis=-1), full(rolled, n, causal(n)))


def test_rolled_groups_let_a_token_see_a_later_one():
    """The leak of the released mask: in the last group the end of the sequence stands before its beginning."""
    extents = {"b": 1, "u": 1, "p": 8, "g": 4, "e": 3, "f": 2}
    _, inputs = given("s2-attn", extents)
    before = output("s2-attn", inputs, extents)
    inputs["V"][..., -1] += 1.0
    changed = (output("s2-attn", inputs, extents) != before).any(axis=(0, 1, 3))
    np.testing.assert_array_equal(changed, [[False] * 7 + [True], [True] * 2 + [False] * 5 + [True]])


def test_sinks_for_all_tokens_are_attention():
    extents = {"b": 2, "u": 2, "z": 2, "p": 6, "g": 3, "s": 6, "e": 3, "f": 2}
    n, inputs = given("sf-attn", extents)
    same(output("sf-attn", inputs, extents), full(inputs, n))


def test_a_cache_of_all_tokens_is_causal_attention():
    """Whatever part of the cache a token stands in, positions are then those of the sequence."""
    more = {"b": 2, "h": 2, "p": 9, "d": 3, "f": 2}
    _, inputs = given("swa-sinks", more | {"s": 1, "w": 8})
    same(output("swa-sinks", inputs, more | {"s": 1, "w": 8}), output("swa-sinks", inputs, more | {"s": 4, "w": 5}))


@pytest.mark.parametrize(
    ("name", "other", "shape", "more"),
    [
        ("dilated-na-1d", "neighborhood-na-1d", STRING | {"w": 4}, {"dil": 1}),
        ("dilated-na", "neighborhood-biased", SQUARE | {"wy": 4, "wx": 3}, {"dil": 1}),
        ("neighborhood-strided-1d", "dilated-na-1d", STRING | {"w": 3, "dil": 2}, {"t": 1}),
        ("neighborhood-causal-1d", "sliding-window-causal", STRING | {"w": 3, "dil": 2}, {"t": 1}),
        ("neighborhood-strided", "neighborhood-na", SQUARE | {"wy": 4, "wx": 3}, {"t": 1}),
        ("gcvit-local", "swin", SQUARE | {"wy": 3, "wx": 3}, {}),
    ],
)
def test_equal_mechanisms(name, other, shape, more):
    _, inputs = given(name, shape | more)
    same(output(name, inputs, shape | more), output(other, inputs, shape))


def test_a_causal_group_longer_than_its_window_has_queries_without_keys():
    extents = {"b": 1, "h": 2, "p": 12, "w": 2, "dil": 1, "t": 5, "e": 3, "f": 4}
    _, inputs = given("neighborhood-causal-1d", extents)
    found = output("neighborhood-causal-1d", inputs, extents)
    empty = np.arange(12) % 5 < 3  # two keys for five queries, of which the last two see one
    empty[10:] = False  # the last group is of two
    assert (found[..., empty] == 0).all()
    assert (found[..., ~empty] != 0).all()


def test_windows_of_one_pixel_give_values_back():
    shape = {"b": 2, "u": 4, "c": 2, "h": 2, "y": 5, "x": 4, "ky": 1, "kx": 1, "e": 3, "f": 2}
    _, inputs = given("msa-conv-shifted", shape)
    same(output("msa-conv-shifted", inputs, shape), np.einsum("hfuc,bucyx->bhfyx", inputs["WV"], inputs["IN"]))


def test_channels_look_past_the_window_in_four_directions():
    """A pixel is felt a window further than without the rolls: by half a window to each side in the keys."""
    shape = {"b": 1, "u": 4, "c": 1, "h": 1, "y": 11, "x": 11, "ky": 3, "kx": 3, "e": 2, "f": 2}
    _, inputs = given("msa-conv-shifted", shape)
    before = output("msa-conv-shifted", inputs, shape)
    inputs["IN"] = inputs["IN"].copy()
    inputs["IN"][..., 5, 5] += 1
    felt = (output("msa-conv-shifted", inputs, shape) != before).any(axis=(0, 1, 2))
    rows, columns = (np.abs(np.indices((11, 11))[a] - 5) for a in (0, 1))
    np.testing.assert_array_equal(felt, (np.minimum(rows, columns) <= 1) & (np.maximum(rows, columns) <= 2))


def test_cells_of_one_pixel_are_all_pixels_and_the_window_once_more():
    shape = SQUARE | {"ky": 1, "kx": 1, "s": 1}
    n, inputs = given("msa-conv-pooled", shape)
    twice = np.log(1 + np.eye(n["y"] * n["x"]))
    q, k, v = (inputs[t].reshape(*inputs[t].shape[:3], -1) for t in "QKV")
    weights = np.exp(np.einsum("bhep,bhem->bhpm", q, k) / np.sqrt(n["e"]) + twice)
    expected = np.einsum("bhpm,bhfm->bhfp", weights / weights.sum(-1, keepdims=True), v)
    found = output("msa-conv-pooled", inputs, shape)
    same(found.reshape(expected.shape), expected)


def test_a_stride_of_one_and_an_identity_shortcut_are_the_plain_block():
    shape = {"b": 2, "c": 4, "d": 4, "s": 1, "iy": 4, "ix": 3, "h": 2, "e": 3, "f": 2}
    _, inputs = given("moat-strided", shape, WS=np.eye(4))
    plain = {"b": 2, "c": 4, "y": 4, "x": 3, "h": 2, "e": 3, "f": 2}
    own = {t: inputs[t] for t in loaded("moat").inputs}
    same(run(loaded("moat-strided"), inputs, shape)["Z"], run(loaded("moat"), own, plain)["Z"])


def test_no_halo_is_a_tile():
    _, inputs = given("halonet", SQUARE | {"t": 3, "i": 3})
    inputs |= {"RH": np.zeros_like(inputs["RH"]), "RW": np.zeros_like(inputs["RW"]), "RPB": np.zeros((2, 5, 5))}
    same(output("halonet", inputs, SQUARE | {"t": 3, "i": 3}), output("swin", inputs, SQUARE | {"wy": 3, "wx": 3}))


def test_global_queries_that_repeat_are_local():
    shape = SQUARE | {"wy": 3, "wx": 2}
    _, inputs = given("gcvit-global-query", shape)
    inputs["Q"] = np.tile(inputs["QG"], (1, 1, 1, 2, 2))[..., :5, :4]
    same(output("gcvit-global-query", inputs, shape), output("gcvit-local", inputs, shape))


def test_outlook_at_the_identity_counts_the_windows_over_a_pixel():
    """With weights of 1 for the own key values are added once for each window: 1, 2, 1, ... times."""
    extents = {"b": 1, "c": 1, "h": 1, "f": 1, "y": 6, "x": 5}
    _, inputs = given("outlook", extents, WV=np.ones((1, 1, 1)), WA=np.zeros((1, 9, 9, 1)), WP=np.ones((1, 1, 1)),
                      BA=1e6 * np.eye(9)[None], BP=np.zeros(1))  # fmt: skip
    covered = np.outer([1, 2, 1, 2, 1, 1], [1, 2, 1, 2, 1])
    same(output("outlook", inputs, extents)[0, 0], inputs["IN"][0, 0] * covered)


def test_zeros_around_take_weight():
    """The two ways to treat the outside of an image differ at its border only."""
    shape = SQUARE | {"ky": 3, "kx": 3, "dil": 1}
    _, inputs = given("msa-conv", shape)
    zeros, masked = (output(n, inputs, shape) for n in ("msa-conv", "msa-conv-masked"))
    same(zeros[..., 1:-1, 1:-1], masked[..., 1:-1, 1:-1])
    assert (abs(zeros - masked)[..., 0, :] > 1e-9).all()
