"""Blocks on the instances of a machine: times by hand, caches, ragged tiles, and counts for arrays of extents against
the single evaluation and brute force."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemodel import InputError
from fusemodel.arch import load_architecture, parse_architecture
from fusemodel.mapping import load_design, parse_design
from fusemodel.model import evaluate
from fusemodel.model.band import Band
from fusemodel.model.batch import count_batch
from fusemodel.validate.calibration import load_calibration

ARCH = """
name: little
clock: 1 GHz
word: 16 bit
instances: 4
overheads: {launch: 5 us}
overhead_cycles: {block: 1000}
levels:
  far: {kind: dram, bandwidth: 100 GB/s}
  between: {kind: cache, size: 1 MB, bandwidth: 400 GB/s}
  near: {kind: sram, size: 64 KiB, per: instance}
units:
  array: {shape: [64], ops: {mac: , add: {on: lanes}, mul: {on: lanes}}, reduce: [x]}
  lanes: {shape: [16], ops: {add: , mul: }}
"""
MAPPING = """
name: product
cascade: matrix-product
arch: {arch}
split: {{m: [m1, m0], n: [n1, n0], k: [k1, k0]}}
tile: {{m0: 16, n0: 16, k0: 16}}
loops: [z, m1, n1, k1]
grid: [z, m1, n1]
launch: launch
prologue: block
keep: {{near: {{A: k1, B: k1, C: n1}}}}
bind: {{C: {{unit: array, spatial: {{x: [m0, n0, k0]}}}}}}
"""


@pytest.fixture
def arch(tmp_path):
    path = tmp_path / "little.yaml"
    path.write_text(ARCH)
    return str(path)


def product(arch: str, *changes: tuple[str, str]):
    text = MAPPING.format(arch=arch)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_design(text, "product.yaml")


def test_waves_and_overheads_by_hand(arch: str) -> None:
    # 5 x 2 tiles of 16 x 16, three steps of 16 along k: 16^3 / 64 = 64 cycles each
    found = evaluate(product(arch), sets={"z": 1, "m": 70, "n": 32, "k": 40})
    (group,) = found.groups
    assert group.waves == 10 / 4
    alone = 10 * 3 * 64e-9
    assert group.parts_s["array"] == pytest.approx(alone / 4)
    assert group.parts_s["compute"] == pytest.approx(alone / 10 * 3)  # three waves, the last of two blocks
    assert group.parts_s["launch"] == pytest.approx(5e-6)
    assert group.parts_s["prologue"] == pytest.approx(3 * 1e-6)
    # every block asks for its rows of A and columns of B; from afar each element comes once, ragged ones included
    assert found.traffic_bytes["between"]["A"]["read"] == 2 * 70 * 40 * 2
    assert found.traffic_bytes["between"]["B"]["read"] == 5 * 32 * 40 * 2
    assert found.traffic_bytes["far"]["A"]["read"] == 70 * 40 * 2
    assert group.parts_s["far"] == pytest.approx((70 * 40 + 32 * 40 + 70 * 32) * 2 / 100e9)
    assert found.latency_s == pytest.approx(5e-6 + 3e-6 + alone / 10 * 3)


def test_blocks_handed_out_as_instances_become_free(arch: str) -> None:
    found = evaluate(product(arch, ("loops:", "order: dynamic\nloops:")), sets={"z": 1, "m": 70, "n": 32, "k": 40})
    assert found.groups[0].parts_s["compute"] == pytest.approx(10 * 3 * 64e-9 / 4)
    assert found.groups[0].parts_s["prologue"] == pytest.approx(2.5e-6)
    one = evaluate(product(arch, ("loops:", "order: dynamic\nloops:")), sets={"z": 1, "m": 16, "n": 16, "k": 40})
    assert one.groups[0].parts_s["compute"] == pytest.approx(3 * 64e-9)  # one block runs on one instance


def test_blocks_that_are_all_resident_are_not_evened_out(arch: str) -> None:
    two = ("loops:", "order: dynamic\nresident: 2\nloops:")
    sizes = {"z": 1, "m": 80, "n": 16, "k": 40}  # five blocks on four instances, three steps of 64 cycles each
    assert evaluate(product(arch, two), sets=sizes).groups[0].parts_s["compute"] == pytest.approx(2 * 3 * 64e-9)
    more = sizes | {"m": 16 * 33}  # more than are resident: handed out as instances become free
    assert evaluate(product(arch, two), sets=more).groups[0].parts_s["compute"] == pytest.approx(33 * 3 * 64e-9 / 4)


def test_no_more_blocks_are_resident_than_fit(arch: str) -> None:
    """Tiles of A and B, 16 x 1,024 words of 2 bytes each, and C: 66,048 bytes in memories of 64 KiB, or of 192."""
    sizes = {"z": 1, "m": 16 * 16, "n": 16, "k": 1024}
    changes = (("loops:", "order: dynamic\nresident: 2\nloops:"), ("A: k1, B: k1", "A: n1, B: n1"))
    times = []
    for kib in (96, 192):
        text = ARCH.replace("size: 64 KiB", f"size: {kib} KiB")
        with open(arch, "w", encoding="utf-8") as stream:
            stream.write(text)
        times.append(evaluate(product(arch, *changes), sets=sizes).groups[0].parts_s["prologue"])
    assert times == pytest.approx([4e-6, 2e-6])


def test_prologues_beside_the_work_of_other_blocks(arch: str) -> None:
    sizes = {"z": 1, "m": 640, "n": 512, "k": 64}  # 1,280 blocks, each begins in 1 us
    plain, beside = (
        evaluate(product(arch, ("loops:", f"order: dynamic\npersistent: {p}\nloops:")), sets=sizes).groups[0]
        for p in ("false", "true")
    )
    inner = max(plain.parts_s[x] for x in ("compute", "far", "between", "near") if x in plain.parts_s)
    assert plain.parts_s["prologue"] == pytest.approx(320e-6)
    assert inner < 320e-6  # so that prologues are what takes long: max(320 us, inner) in all
    assert beside.parts_s["prologue"] == pytest.approx(320e-6 - inner)


def test_a_warm_cache_serves_what_fits(arch: str) -> None:
    sizes = {"z": 1, "m": 64, "n": 64, "k": 64}
    cold, warm = (
        evaluate(product(arch, ("loops:", f"warm: {w}\nloops:")), sets=sizes).groups[0] for w in ("false", "true")
    )
    assert cold.parts_s["far"] == pytest.approx(3 * 64 * 64 * 2 / 100e9)
    assert warm.parts_s["far"] == 0
    large = {"z": 1, "m": 4096, "n": 64, "k": 4096}  # 34 MB in a cache of 1 MB
    assert evaluate(product(arch, ("loops:", "warm: true\nloops:")), sets=large).groups[0].parts_s["far"] > 3e-4


def test_an_operation_that_another_unit_does() -> None:
    arch = parse_architecture(ARCH)
    assert dict(arch.units["array"].ops["add"].beside) == {"lanes": 1}
    assert arch.units["array"].ops["add"].cycles == 0
    for wrong, part in (("{on: nowhere}", "unknown unit 'nowhere'"), ("{on: array}", "unknown unit 'array'")):
        with pytest.raises(InputError, match=part):
            parse_architecture(ARCH.replace("add: {on: lanes}", f"add: {wrong}"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("grid: [z, m1, n1]", "grid: [m1]"), "not the outermost loops"),
        (("launch: launch", "launch: lunch"), "unknown overhead"),
        (("loops:", "skip: D\nloops:"), "unknown Einsum 'D'"),
        (("loops:", "exposed: [far]\nloops:"), "unknown level of an instance"),
        (("loops:", "multicast: {X: 2}\nloops:"), "unknown tensor 'X'"),
        (("m: [m1, m0]", "m: [m1, m0, m2]"), "split into 3 parts"),
        (("m: [m1, m0]", "m: [k, m0]"), "cannot name a part"),
        (("m: [m1, m0]", "q: [m1, m0]"), "unknown rank 'q'"),
    ],
)
def test_what_cannot_be_said_of_blocks(arch: str, change: tuple[str, str], part: str) -> None:
    with pytest.raises(InputError, match=part):
        product(arch, change)


def test_arrays_equal_the_single_evaluation_of_a_product(arch: str) -> None:
    design = product(arch, ("prologue: block", "prologue: block\nfill: true\nmulticast: {B: 2}"))
    rng = np.random.default_rng(3)
    extents = {r: rng.integers(1, 90, 30).astype(float) for r in ("m", "n", "k")} | {"z": np.ones(30)}
    seconds = count_batch(design, extents).seconds()
    for i in range(30):
        one = evaluate(design, sets={r: int(v[i]) for r, v in extents.items()})
        assert seconds[i] == pytest.approx(one.latency_s, rel=1e-12)


def shapes(kind: str, n: int, seed: int) -> dict[str, np.ndarray]:
    """Random extents for kernel mappings of attention."""
    rng = np.random.default_rng(seed)
    length, e = rng.integers(1, 700, n), rng.choice([64, 72, 128], n)
    found = {"b": rng.integers(1, 4, n), "e": e, "f": e}
    if "causal" in kind or "window" in kind:
        found |= {"g": rng.integers(1, 5, n), "r": rng.integers(1, 7, n), "w": rng.choice([10000, 128, 50], n)}
        found |= {"p": np.ones(n) if "window" in kind else length, "m": length}
    elif kind.startswith(("decode", "unfused", "two")) or "split" in kind:
        rows = length if kind.startswith(("unfused", "two", "flash")) else rng.integers(1, 40, n)
        found |= {"h": rng.integers(1, 5, n), "p": rows, "m": length}
    else:
        found |= {"g": rng.integers(1, 5, n), "r": rng.integers(1, 7, n), "p": length, "m": length}
    if "split" in kind:
        found["z"] = np.minimum(rng.integers(1, 4, n), np.ceil(length / 200))
        found["z"] = np.ceil(length / np.ceil(length / found["z"]))
    return {r: v.astype(float) for r, v in found.items()}


@pytest.mark.parametrize(
    "name",
    ["flash3-causal", "flash3", "flash3-short", "flash3-split", "flash2-causal", "flash2", "decode-packed",
     "decode-split", "decode-window",
     "decode-wait", "decode-split-wait", "flash2-packed-causal", "unfused-gpu", "unfused-triton", "two-pass"],
)  # fmt: skip
def test_arrays_equal_the_single_evaluation(name: str) -> None:
    design, extents = load_design(name), shapes(name, 7, 11)
    counts = count_batch(design, extents)
    seconds = counts.seconds()
    energy = counts.energy_j()
    assert counts.usable.all()
    for i in range(7):
        one = evaluate(design, sets={r: int(v[i]) for r, v in extents.items()})
        assert seconds[i] == pytest.approx(one.latency_s, rel=1e-9), {r: v[i] for r, v in extents.items()}
        assert energy[i] == pytest.approx(one.energy_j, rel=1e-3)
    assert (counts.roofline_seconds() < seconds).all()


def test_what_has_no_closed_form_is_refused() -> None:
    with pytest.raises(InputError, match="leaves tiles to be chosen"):
        count_batch(load_design("fusemax"), {"p": np.array([1024.0])})


def test_extents_that_are_none_are_marked() -> None:
    found = count_batch(load_design("flash3"), {"p": np.array([64.0, 0.5, np.nan]), "m": np.array([64.0, 64.0, 64.0])})
    assert found.usable.tolist() == [True, False, False]


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 20), above=st.integers(-10, 50), below=st.integers(-5, 50),
    scale=st.integers(1, 5), row=st.integers(1, 12), column=st.integers(1, 12),
)  # fmt: skip
def test_tiles_of_a_band(rows, columns, above, below, scale, row, column) -> None:
    below = max(below, scale - above)
    p, m = np.arange(rows)[:, None], np.arange(columns)[None] * scale
    present = np.nonzero((m <= p + above) & (m >= p - below))
    tiles = {(a // row, b // column) for a, b in zip(*(x.tolist() for x in present), strict=True)}
    band = Band(np.array([rows]), np.array([columns]), np.array([above]), np.array([below]), np.array([scale]))
    size = np.array([row]), np.array([column])
    assert band.tiles(*size) == len(tiles)
    assert band.longest(*size) == max(Counter(a for a, _ in tiles).values(), default=0)


def test_long_bands_of_every_size_at_once() -> None:
    """The sum over rows of blocks, written out, for lengths that a table could not hold."""
    rng = np.random.default_rng(0)
    p = rng.integers(10_000, 60_000, 50)
    w = rng.integers(100, 5_000, 50)
    a, c = rng.integers(64, 200, 50), rng.integers(64, 200, 50)
    found = Band(p, p, p * 0, w - 1).tiles(a, c)
    for i in range(50):
        block = np.arange(-(-p[i] // a[i]))
        last = np.minimum((block + 1) * a[i], p[i]) - 1
        first = np.maximum(block * a[i] - w[i] + 1, 0)
        assert found[i] == (last // c[i] - first // c[i] + 1).sum()


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("v100-sxm", 125), ("t4", 65), ("a100-sxm", 312), ("l4", 121), ("l40s", 362), ("rtx-4090", 165.2),
     ("h100-sxm", 989.4), ("h200-sxm", 989.4), ("b200-sxm", 2250), ("h100-pcie", 756), ("a100-pcie", 312),
     ("a100-sxm-40gb", 312)],
)  # fmt: skip
def test_machines_reach_the_rate_of_their_data_sheet(name: str, tflops: float) -> None:
    arch = load_architecture(name)
    rate = 2 * arch.units["tensor"].size * arch.instances * arch.clock_hz / 1e12
    assert rate == pytest.approx(tflops, rel=0.03)
    assert arch.units["sfu"].size == 16
    assert arch.aliases
    assert arch.source


@pytest.mark.parametrize("name", ["l4", "l40s", "t4"])
def test_error_correction_takes_a_sixteenth_of_gddr(name: str) -> None:
    arch = load_architecture(name)
    assert arch.achieved["hbm"] < 15 / 16 * load_architecture("rtx-4090").achieved["hbm"]  # which has none


def test_long_causal_prefill_and_why_few_features_are_slower() -> None:
    """peak x d / (d + 64): exp takes as long as 64 features of both products (16 results and 4096 FLOP a clock)."""
    design = load_design("flash3-causal")
    sizes = {"b": 4, "g": 32, "r": 1, "p": 16384, "m": 16384, "w": 16384}
    for d, measured in ((64, 494), (128, 659), (192, 742), (256, 791)):
        counts = count_batch(design, {r: np.array([float(n)]) for r, n in {**sizes, "e": d, "f": d}.items()})
        flop = 4 * 4 * 32 * d * 16384 * 16385 / 2
        tuned = load_calibration().tuned(design.arch)
        assert flop / counts.seconds(tuned)[0] / 1e12 == pytest.approx(measured, rel=0.05)
        assert flop / counts.seconds()[0] / 1e12 == pytest.approx(measured, rel=0.08)  # nothing fitted
        parts = counts.times()[0].at(0)
        reached = design.arch.achieved["tensor"] / design.arch.achieved["sfu"]
        assert parts.unit_s["sfu"] / parts.unit_s["tensor"] == pytest.approx(reached * 64 / d, rel=0.05)
        assert parts.bound() == "sfu" or d > 64


def test_unfused_against_one_pass_at_every_length() -> None:
    """Ratios of published figures of eager attention and FlashAttention-2 (FlashAttention-3, NeurIPS 2024)."""
    published = {
        64: {512: 282 / 52, 1024: 306 / 63, 2048: 318 / 67, 4096: 321 / 72, 8192: 322 / 73},
        128: {512: 309 / 74, 1024: 350 / 100, 2048: 362 / 119, 4096: 368 / 133, 8192: 370 / 139},
    }
    unfused, fused = load_design("unfused-gpu"), load_design("flash2", arch="h100-sxm")
    copies = load_design("cache-append")
    for d, ratios in published.items():
        for s, ratio in ratios.items():
            b, h = 16384 // s, 2048 // d
            three = evaluate(unfused, sets={"b": b, "h": h, "p": s, "m": s, "e": d, "f": d}).latency_s
            three += evaluate(copies, sets={"b": b, "g": 2 * h, "p": s, "e": d, "f": d}).latency_s
            one = evaluate(fused, sets={"b": b, "g": h, "r": 1, "p": s, "m": s, "e": d, "f": d}).latency_s
            assert three / one == pytest.approx(ratio, rel=0.2)
