"""Our own measurements of two cards against the model: errors, passes, waves, energy; and what reading them needs."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from commandline import fusemodel

from fusemodel.arch import parse_architecture
from fusemodel.library import gpu_dir
from fusemodel.mapping import load_design
from fusemodel.mapping.spec import Group
from fusemodel.model import evaluate
from fusemodel.model.blocks import BlockWork, block_time
from fusemodel.validate.calibration import load_calibration
from fusemodel.validate.predict import predict
from fusemodel.validate.rules import load_rules
from fusemodel.validate.run import validate
from fusemodel.validate.sources import read_any

CARDS = ("h100", "h200")
HEAD = "gpu,kernel,op,dtype,batch,heads,kv_heads,seq_q,seq_kv,head_dim,window,causal,M,N,K,launches,l2,latency_us"


def file_of(card: str) -> str:
    return str(gpu_dir() / f"measured-{card}-sxm.csv")


@pytest.fixture(scope="module", params=CARDS)
def card(request):
    """A card, and every row of its table predicted."""
    return request.param, predict(read_any(file_of(request.param)), load_rules(), load_calibration())


def rows(p, **wanted):
    """Rows of a table whose columns have some values."""
    columns = {**p.table.text, **p.table.numbers}
    return np.flatnonzero(np.all([columns[c] == v for c, v in wanted.items()], axis=0))


def test_every_row_is_predicted_or_left_out_by_name(card) -> None:
    name, p = card
    assert set(p.arch) == {f"{name}-sxm"}
    assert len(p.table) > 650
    assert {s.reason for s in p.table.skipped} == {
        "a kernel whose weights go through shared memory is not described",
        "a back-end that computes half precision in single precision is not described",
        "a micro-benchmark, which the machine's file takes its rates from",
    }


def test_errors_of_kernels_that_nothing_was_fitted_on(card) -> None:
    name, _ = card
    found = validate([file_of(name)])
    assert found.errors["mechanistic"].mape < 14.5
    assert found.errors["calibrated"].mape < 14.5
    assert found.errors["roofline"].mape > 30
    by_kernel = {v: e["mechanistic"].mape for by, v, e in found.groups if by == "kernel"}
    bars = {"sdpa-cudnn": 11, "flex": 10, "triton-1pass": 12, "triton-2pass": 8, "sdpa-flash": 15}
    for kernel, bar in bars.items():
        assert by_kernel[kernel] < bar, kernel


def test_errors_of_flash_attention_3_as_collectors_time_it() -> None:
    """Nothing was fitted on these rows; 12 % is what the model shall keep to on tables of the same kind."""
    found = validate([str(gpu_dir() / "measured-h200-sxm-fa3.csv")])
    assert found.errors["calibrated"].points == 637
    assert found.errors["calibrated"].mape < 10.5
    assert found.errors["mechanistic"].mape < 9.5
    assert found.errors["roofline"].mape > 50
    by_phase = {v: e["mechanistic"].mape for by, v, e in found.groups if by == "phase"}
    assert max(by_phase.values()) < 11
    steady = validate([str(gpu_dir() / "measured-h200-sxm-fa3-steady.csv")])
    assert steady.errors["calibrated"].mape < 12.5


DIVIDED = "divided as the scheduler of variable lengths does"
ROW = "H200,{},{},bf16,{},{},{},{},{},{},{},{},0,0,0,,warm,20"


@pytest.mark.parametrize(
    ("kernel", "op", "shape", "rule"),
    [
        ("vllm_vit_flash_attn_fa3", "encoder_attention", (64, 24, 24, 13, 13, 64, 0, 0), "non-causal, short sequences"),
        ("vllm_vit_flash_attn_fa3", "encoder_attention", (64, 24, 24, 65, 65, 64, 0, 0), "non-causal"),
        ("vllm_vit_flash_attn_fa3", "encoder_attention", (64, 24, 24, 13, 13, 80, 0, 0), "non-causal"),
        ("vllm_vit_flash_attn_fa3", "encoder_attention", (64, 9, 9, 65, 65, 128, 0, 0), "non-causal, other tiles"),
        ("flash_attention_v3", "encoder_attention", (64, 9, 9, 65, 65, 128, 0, 0), "non-causal"),
        ("vllm_vit_flash_attn_fa3", "encoder_attention", (1, 5, 5, 3072, 3072, 64, 0, 0), f"non-causal, {DIVIDED}"),
        ("vllm_flash_attn", "context_attention", (4, 8, 1, 8, 8, 128, 0, 1), "prefill, causal, few queries"),
        ("vllm_flash_attn", "context_attention", (4, 8, 1, 9, 9, 128, 0, 1), "prefill, causal"),
        ("vllm_flash_attn", "context_attention", (4, 8, 1, 512, 512, 64, 128, 1), "prefill in a window, other tiles"),
        ("vllm_flash_attn", "generation_attention", (4, 8, 1, 1, 512, 64, 128, 0), "decode in a window, whole tiles"),
        ("vllm_flash_attn", "generation_attention", (4, 8, 1, 1, 8192, 64, 0, 0), f"decode, {DIVIDED}"),
        ("vllm_flash_attn", "generation_attention", (600, 8, 1, 1, 8192, 64, 0, 0), "decode"),
        ("sdpa-cudnn", "generation_attention", (4, 8, 1, 1, 8192, 64, 0, 0), "cuDNN, one position, keys divided"),
    ],
)  # fmt: skip
def test_tiles_and_parts_of_flash_attention_3(kernel, op, shape, rule, tmp_path) -> None:
    path = tmp_path / "one.csv"
    path.write_text(f"{HEAD}\n{ROW.format(kernel, op, *shape)}\n")
    (found,) = predict(read_any(path), load_rules(), load_calibration()).rule
    assert found == rule


def test_a_short_sequence_takes_a_third_of_a_long_tile(tmp_path) -> None:
    """Of 64 features: tiles of 64 rows, two blocks at once, against tiles of 192; measured, 2.2 and 6.3 us a wave."""
    path = tmp_path / "two.csv"
    lines = [ROW.format("vllm_vit_flash_attn_fa3", "encoder_attention", 64, 132, 132, n, n, 64, 0, 0)
             for n in (64, 128)]  # fmt: skip
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    short, whole = predict(read_any(path), load_rules(), load_calibration()).mechanistic_s * 1e6 / 64
    assert short == pytest.approx(2.2, rel=0.25)
    assert whole == pytest.approx(6.3, rel=0.25)


def test_two_passes_and_three_against_one(card) -> None:
    """The ratio of times at the same shape, 16 K keys, as measured and as predicted with nothing fitted."""
    _, p = card
    shape = {"seq_kv": 8192.0, "head_dim": 128.0, "l2": "warm", "causal": 0.0, "group": "triton"}
    one = rows(p, kernel="triton-1pass", **shape)[0]
    for kernel, bar in (("triton-2pass", 0.15), ("triton-3pass-recompute", 0.15), ("triton-3pass", 0.2)):
        i = rows(p, kernel=kernel, **shape)[0]
        measured, predicted = (t[i] / t[one] for t in (p.measured_s, p.mechanistic_s))
        assert measured > 1.4
        assert predicted == pytest.approx(measured, rel=bar)


def test_one_block_more_than_a_wave(card) -> None:
    """133 blocks on 132 SMs take longer than 132 by more than half of it, measured and predicted; 264 hardly more."""
    _, p = card
    times = {}
    for heads in (132, 133, 264):
        found = rows(p, kernel="triton-1pass", group="waves", heads=float(heads))
        times[heads] = [float(np.median(t[found])) for t in (p.measured_s, p.mechanistic_s)]
    for i in range(2):
        assert times[133][i] > 1.5 * times[132][i]
        assert times[264][i] < 1.35 * times[133][i]


ENERGY = [("sdpa-flash", 0, "flash2"), ("sdpa-flash", 1, "flash2-causal"), ("sdpa-cudnn", 0, "flash3-varlen"),
          ("triton-3pass", 0, "unfused-triton")]  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_energy_of_attention_out_of_sample(name: str) -> None:
    """Energies of products, copies, exponentials and rest foretell those of attention within a third, and 22 % on
    average (steady load; five of the six kernels are told too low)."""
    with open(file_of(name), encoding="utf-8") as stream:
        measured = [r for r in csv.DictReader(stream) if r["group"] == "energy" and r["heads"] != "0"]
    off = []
    for row in measured:
        mapping = next(m for k, c, m in ENERGY if row["kernel"] == k and int(row["causal"]) == c)
        design = load_design(mapping, arch=f"{name}-sxm")
        n = {c: int(row[c]) for c in ("batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim")}
        sizes = {"b": n["batch"], "h": n["heads"], "g": n["kv_heads"], "r": 1, "m": n["seq_kv"], "w": n["seq_kv"],
                 "p": max(n["seq_q"], 128), "e": n["head_dim"], "f": n["head_dim"]}  # fmt: skip
        found = evaluate(design, sets={r: v for r, v in sizes.items() if r in design.cascade.ranks})
        assert found.energy_breakdown_j["idle"] == pytest.approx(design.arch.idle_w * found.latency_s)
        off.append(found.energy_j / float(row["energy_j"]) - 1)
    assert len(off) == 6
    assert max(map(abs, off)) < 1 / 3
    assert np.mean(np.abs(off)) < 0.22


def test_launches_share_the_floor_of_a_replay(tmp_path) -> None:
    """The floor counts whole for one launch and a tenth for each of ten; products hold none of it unless alone."""
    path = tmp_path / "replays.csv"
    attention = "H100,sdpa-cudnn,context_attention,bf16,1,8,8,512,512,128,0,1,0,0,0,{},warm,20"
    product = "H100,gemm,gemm,bf16,1,0,0,0,0,0,0,0,512,512,512,{},warm,5"
    body = [attention.format(n) for n in ("", 1, 10)] + [product.format(n) for n in ("", 1, 10)]
    path.write_text("\n".join([HEAD, *body]) + "\n")
    p = predict(read_any(path), load_rules(), load_calibration())
    unsaid, alone, ten, product_unsaid, product_alone, product_ten = p.mechanistic_s * 1e6
    assert unsaid == pytest.approx(alone)
    assert alone - ten == pytest.approx(4.1 * 0.9)
    assert product_alone - product_unsaid == pytest.approx(4.1)
    assert product_ten - product_unsaid == pytest.approx(0.41)


@pytest.mark.parametrize("name", CARDS)
def test_micro_benchmarks_alone_are_refused_by_name(name: str) -> None:
    found = fusemodel("validate", "--data", str(gpu_dir() / f"measured-{name}-sxm-bandwidth.csv"))
    assert found.code == 2
    assert "a micro-benchmark, which the machine's file takes its rates from" in found.err


def test_blocks_as_the_grid_lists_them_wait_for_half_of_the_longest() -> None:
    """Ten blocks of 1..4 us in turn on two instances, by hand: 25 us of work, 12.5 each, and 2 us of the longest."""
    arch = parse_architecture("""
name: two
clock: 1 MHz
word: 16 bit
instances: 2
levels: {far: {kind: dram}}
units: {lane: {shape: [1], ops: {add: }}}
""")
    group = Group.__new__(Group)
    for name, value in {"order": "listed", "resident": 1, "step": None, "prologue": None, "launch": None,
                        "fill": False, "exposed": ()}.items():  # fmt: skip
        object.__setattr__(group, name, value)
    work = BlockWork(10.0, [{"lane": 25.0}], 4 / 25, 10.0, {})
    assert block_time(work, group, arch).total_s == pytest.approx((12.5 + 2) * 1e-6)
    few = BlockWork(2.0, [{"lane": 7.0}], 4 / 7, 2.0, {})
    assert block_time(few, group, arch).total_s == pytest.approx(4e-6)  # none waits for another
