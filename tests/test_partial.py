"""Partial mappings: what is fixed stays, what is open is the best there is."""

from __future__ import annotations

import pytest
from commandline import fusemodel

from fusemodel import evaluate
from fusemodel.errors import InputError

HEAD = "name: partial\ncascade: attention-1pass\narch: fusemax-cloud\n"
FRAME = "tile: {p: [p2, p1, p0], p0: 256, p1: P1}\nloops: [b, h, p2, m1, p1]\n"
KEEP = "keep: {global_buffer: {Q: p2, K: m1, V: m1, RM: p2, RD: p2, RNV: p2}}\n"
BIND = """bind:
  QK:   {unit: array_2d, spatial: {x: p0, y: m0}, loops: [e]}
  LM:   {unit: array_2d, spatial: {x: p0, y: m0}}
  SLN:  {unit: array_2d, spatial: {x: p0, y: m0}}
  SLD:  {unit: array_2d, spatial: {x: p0, y: m0}}
  SLNV: {unit: array_2d, spatial: {x: p0, y: m0}, loops: [f]}
  RM: {unit: array_1d, spatial: {x: p0}}
  PRM: {unit: array_1d, spatial: {x: p0}}
  SPD: {unit: array_1d, spatial: {x: p0}}
  RD: {unit: array_1d, spatial: {x: p0}}
  SPNV: {unit: array_1d, spatial: {x: p0}, loops: [f]}
  RNV: {unit: array_1d, spatial: {x: p0}, loops: [f]}
  AV: {unit: array_1d, spatial: {x: p0}, loops: [f]}
"""


def written(tmp_path, text):
    path = tmp_path / "partial.yaml"
    path.write_text(HEAD + text)
    return str(path)


def test_an_open_tile_is_the_best_of_all_divisors(tmp_path):
    auto = evaluate(written(tmp_path, FRAME.replace("P1", "auto") + KEEP + BIND), "bert", "4K")
    full = written(tmp_path, FRAME.replace("P1", "16") + KEEP + BIND + "schedule: "
                   "[[QK, LM, SLN, SLD, SLNV, RM, PRM, SPD, RD, SPNV, RNV, AV]]\n")  # fmt: skip
    every = []
    for p1 in (1, 2, 4, 8, 16):
        try:
            every.append(evaluate(full, "bert", "4K", {"p1": p1}))
        except InputError:
            continue
    best = min(every, key=lambda r: (round(r.cycles), r.dram_bytes, r.energy_j))
    assert auto.cycles == best.cycles
    assert auto.dram_bytes == best.dram_bytes
    assert auto.energy_j == pytest.approx(best.energy_j, rel=1e-12)


def test_what_is_fixed_stays_and_what_is_open_gets_no_worse(tmp_path):
    fixed = FRAME.replace("P1", "4") + KEEP + BIND
    base = evaluate(written(tmp_path, fixed), "bert", "1K")
    opened = BIND.replace("SLN:  {unit: array_2d, spatial: {x: p0, y: m0}}", "SLN: {unit: array_1d}")
    forced = evaluate(written(tmp_path, FRAME.replace("P1", "4") + KEEP + opened + "schedule: auto\n"), "bert", "1K")
    assert {e.name: e.unit for e in forced.einsums}["SLN"] == "array_1d"
    assert forced.cycles > base.cycles
    free = evaluate(written(tmp_path, FRAME.replace("P1", "4") + "keep: auto\n" + BIND), "bert", "1K")
    assert free.cycles <= base.cycles
    assert free.dram_bytes <= base.dram_bytes
    some = KEEP.replace("V: m1", "V: auto").replace("RM: p2", "RM: auto")
    part = evaluate(written(tmp_path, FRAME.replace("P1", "4") + some + BIND), "bert", "1K")
    assert free.energy_j * (1 - 1e-9) <= part.energy_j <= base.energy_j * (1 + 1e-9)
    assert "Q" in part.groups[0].footprint_bytes["global_buffer"]


def test_sizes_need_not_divide(tmp_path):
    """1,009 tokens, a prime: four tiles of 256, the last one smaller, so many of them together as fit."""
    found = evaluate(written(tmp_path, FRAME.replace("P1", "auto") + KEEP + BIND), "bert", 1009)
    assert found.groups[0].tiles == {"p0": 256, "p1": 4, "p2": 1}
    assert found.cycles == evaluate("fusemax", "bert", 1009).cycles


def test_nothing_given_is_the_mapper(tmp_path):
    found = evaluate(written(tmp_path, ""), "bert", "1K")
    assert found.latency_s <= evaluate("fusemax", "bert", "1K").latency_s
    assert found.mapping


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bind: {SLN: {unit: array_9}, QK: auto}\n", "unknown unit 'array_9'"),
        ("bind: {SLM: auto}\n", "unknown Einsum 'SLM'"),
        ("keep: {l9: auto}\nbind: {QK: auto}\n", "unknown level 'l9'"),
        ("keep: {global_buffer: {QK: {under: p, spill: true}}}\nbind: {QK: auto}\n", "details of 'QK'"),
        ("interleave: false\nbind: {QK: auto}\n", "`interleave: false` beside parts that are `auto`"),
        ("tile: {m0: [m3, m2], m2: 100}\nbind: {QK: auto}\n", "no sizes of the parts of 'm0' divide it"),
        ("groups: [{bind: auto}]\n", "which Einsums a group has"),
        (FRAME.replace("P1", "auto") + "bind: {QK: {unit: array_2d, spatial: {z: p0}}}\n", "nothing completes"),
    ],
)
def test_what_cannot_be_completed(tmp_path, text, expected):
    result = fusemodel("eval", written(tmp_path, text), "--workload", "bert", "--seq", "1K")
    assert result.code == 2
    assert expected in " ".join(result.err.split())
