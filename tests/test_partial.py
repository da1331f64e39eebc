"""Partial mappings: what is fixed stays, what is open is the best there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import fusemodel

from fusemodel import evaluate
from fusemodel.errors import InputError

ROOT = Path(__file__).parents[1]
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
    assert base.notes  # what passes through the vector array does not fit into its registers
    assert not free.notes
    some = KEEP.replace("V: m1", "V: auto").replace("RM: p2", "RM: auto")
    part = evaluate(written(tmp_path, FRAME.replace("P1", "4") + some + BIND), "bert", "1K")
    assert part.cycles <= base.cycles
    assert part.energy_j <= base.energy_j * (1 + 1e-9)
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
        ("bind: {SLM: auto}\n", "4:8: unknown Einsum 'SLM'"),
        ("bind: [auto]\n", "'bind' is not a mapping"),
        ("keep: {l9: auto}\nbind: {QK: auto}\n", "4:8: unknown level 'l9'"),
        ("keep: {global_buffer: {K: m9}}\nbind: {QK: auto}\n", "unknown loop 'm9'"),
        ("keep: {global_buffer: {KK: m1}}\nbind: {QK: auto}\n", "unknown tensor 'KK'"),
        ("keep: {global_buffer: [auto]}\nbind: {QK: auto}\n", "'global_buffer' is ['auto']"),
        ("kep: {global_buffer: auto}\nbind: {QK: auto}\n", "4:1: unknown field 'kep'"),
        ("tile: [1, 2]\nbind: auto\n", "'tile' is [1, 2]"),
        ("tile: {p: auto}\nbind: auto\n", "rank 'p' belongs to the cascade"),
        ("loops: p\nbind: auto\n", "'loops' is 'p'"),
        ("schedule: [[QK, ZZ]]\nbind: auto\n", "4:17: unknown Einsum 'ZZ'"),
        ("split: {m: [x1, x0]}\nbind: auto\n", "rank 'm' is split by the cascade already"),
        ("budget: {global_buffer: 3 apples}\nbind: auto\n", "budget of global_buffer"),
        ("keep: {global_buffer: {QK: {under: p, spill: true}}}\n", "completions beside `spill`"),
        ("interleave: false\nbind: {QK: auto}\n", "completions beside `interleave`"),
        ("tile: {m0: [m3, m2], m2: 100}\nbind: {QK: auto}\n", "no sizes of the parts of 'm0' divide it"),
        ("groups: [{bind: auto}, {bind: {AV: auto}}]\n", "which Einsums a group has"),
        ("groups: [{bind: {QK: auto}}, {bind: {AV: auto}}]\n", "no group has 'LM'"),
        (FRAME.replace("P1", "auto") + "bind: {QK: {unit: array_2d, spatial: {z: p0}}}\n", "unknown dimension 'z'"),
        (FRAME.replace("P1", "auto") + "bind: {QK: {unit: array_1d}}\nkeep: {global_buffer: {SLN: all}}\n",
         "nothing completes"),
    ],
)  # fmt: skip
def test_what_cannot_be_completed(tmp_path, text, expected):
    result = fusemodel("eval", written(tmp_path, text), "--workload", "bert", "--seq", "1K")
    assert result.code == 2
    assert expected in " ".join(result.err.split())


@pytest.mark.parametrize("detail", ["reserve: {global_buffer: 0}\n", "warm: true\n"])
def test_one_by_one_is_the_same_as_by_sums(tmp_path, detail):
    """A field that changes nothing makes every completion be evaluated by the model itself."""
    some = KEEP.replace("V: m1", "V: auto").replace("RM: p2", "RM: auto").replace("K: m1", "K: auto")
    text = FRAME.replace("P1", "auto") + some + BIND
    sums = evaluate(written(tmp_path, text), "xlm", "4K")
    each = evaluate(written(tmp_path, text + detail), "xlm", "4K")
    assert each.cycles == sums.cycles
    assert each.dram_bytes == sums.dram_bytes
    assert each.energy_j == pytest.approx(sums.energy_j, rel=1e-12)


@pytest.mark.parametrize(
    "detail",
    [
        "reserve: {global_buffer: 60 * p0 * p1 * e}\n",
        "interleave: false\n",
        "copies",
    ],
)
def test_details_beside_what_is_open(tmp_path, detail):
    """The best of every size and unit by the model, told one at a time."""
    keep = KEEP.replace("RNV: p2", "RNV: {under: p2, copies: 40}") if detail == "copies" else KEEP
    extra = "schedule: [[QK, LM, RD, RNV, AV], [RM], [SLN, SLD, PRM, SPD], [SLNV, SPNV]]\n"
    extra += "" if detail == "copies" else detail
    given = BIND.replace("spatial:", "pipelined: false, spatial:")
    every = []
    for p1 in (1, 2, 4, 8, 16):
        for unit in ("array_1d", "array_2d"):
            bind = given.replace("RM: {unit: array_1d", f"RM: {{unit: {unit}")
            try:
                every.append(
                    evaluate(written(tmp_path, FRAME.replace("P1", str(p1)) + keep + bind + extra), "bert", "4K")
                )
            except InputError:
                continue
    open_ = FRAME.replace("P1", "auto") + keep + given.replace("RM: {unit: array_1d", "RM: {unit: auto") + extra
    found = evaluate(written(tmp_path, open_), "bert", "4K")
    best = min(every, key=lambda r: (len(r.notes), r.cycles, r.dram_bytes, r.energy_j))
    assert len({r.cycles for r in every} | {r.dram_bytes for r in every}) > 2
    assert found.cycles == best.cycles
    assert found.dram_bytes == best.dram_bytes
    assert found.energy_j == pytest.approx(best.energy_j, rel=1e-12)


def replayed(tmp_path, text, *options):
    """The evaluation that `explore` says of a completion, and that of the file it writes."""
    (tmp_path / "open.yaml").write_text(text)
    out = str(tmp_path / "best.yaml")
    said = fusemodel("explore", str(tmp_path / "open.yaml"), *options, "--out", out, "--json")
    sizes = [x for x in options if x not in ("--objective", "latency")]
    told = json.loads(fusemodel("eval", out, *sizes, "--json").out)
    said = json.loads(said.out)
    best = said["best"]
    for field in ("cycles", "dram_bytes", "energy_j"):
        assert best[field] == pytest.approx(told[field], rel=1e-12)
    assert said["proven"]
    return told


def library(name):
    return next((ROOT / "mappings").rglob(f"{name}.yaml")).read_text()


def test_variants_of_which_parts_are_open(tmp_path):
    """FLAT's space with more sizes of its tiles: no worse than with those of the library's file."""
    text = library("flat-best").replace("p0: [256, 128, 64, 32]", "p0: auto").replace("name: flat-best", "name: fb", 1)
    told = replayed(tmp_path, text, "-w", "bert", "-s", "4K")
    mine = evaluate("flat-best", "bert", "4K")
    assert (told["cycles"], told["dram_bytes"]) <= (mine.cycles, mine.dram_bytes)


def test_blocks_of_a_grid_stay(tmp_path):
    """A kernel of a GPU: its tiles open, the best of those that the library's file takes one at a time."""
    sizes = ("--set", "p=2048", "--set", "m=2048")
    text = (
        library("flash2")
        .replace("p0: 128", "p0: [64, 128]")
        .replace('m0: "select(e <= 64, 128, 64)"', "m0: [32, 64, 128]")
    )
    told = replayed(tmp_path, text.replace("unit: fp32, spatial: {x: p0}}", "unit: auto, spatial: {x: p0}}"), *sizes)
    every = [
        evaluate("flash2", sets={"p": 2048, "m": 2048, "p0": p0, "m0": m0}).cycles
        for p0 in (64, 128) for m0 in (32, 64, 128)
    ]  # fmt: skip
    assert told["cycles"] == pytest.approx(min(every), rel=1e-12)
    assert len(set(every)) > 1


def test_groups_of_another_file(tmp_path):
    """One group as another file has it, the others open."""
    text = (
        "name: mixed\ncascade: attention-3pass\narch: flat-cloud\ngroups:\n"
        '  - {use: unfused, only: [QK]}\n  - bind: {"GM, SN, SD, A": auto}\n  - bind: {AV: auto}\n'
    )
    told = replayed(tmp_path, text, "-w", "bert", "-s", "1K")
    assert told["cycles"] <= evaluate("unfused", "bert", "1K").cycles


def test_objectives_of_groups(tmp_path):
    """A file's ``minimise``, as one name, holds for every group; what the command line asks for comes first."""
    (tmp_path / "local.yaml").write_text(library("unfused").replace("name: unfused", "name: local", 1))
    text = (
        "name: mixed\ncascade: attention-3pass\narch: flat-cloud\nminimise: energy\ngroups:\n"
        '  - {use: ./local.yaml, only: [QK]}\n  - bind: {"GM, SN, SD, A": auto}\n  - bind: {AV: auto}\n'
    )
    told = replayed(tmp_path, text, "-w", "bert", "-s", "1K")
    fast = replayed(tmp_path, text, "-w", "bert", "-s", "1K", "--objective", "latency")
    assert told["energy_j"] < fast["energy_j"]
    assert fast["cycles"] < told["cycles"]


def test_variants_may_say_what_is_open(tmp_path):
    text = HEAD + "variants:\n  - {name: a, tile: {m0: 128}, keep: auto}\n"
    whole = evaluate(written(tmp_path, "tile: {m0: 128}\nkeep: auto\n"), "bert", "1K")
    (tmp_path / "open.yaml").write_text(text)
    found = evaluate(str(tmp_path / "open.yaml"), "bert", "1K")
    assert found.extents["m0"] == 128
    assert found.cycles == whole.cycles


def test_blocks_of_keys_are_open(tmp_path):
    """The inner part that the cascade makes of a rank: no size of it that is given is better."""
    text = HEAD + FRAME.replace("P1", "auto, m0: M0") + BIND + KEEP
    (tmp_path / "open.yaml").write_text(text.replace("M0", "auto"))
    found = evaluate(str(tmp_path / "open.yaml"), "xlm", "1K")
    every = []
    for m0 in (16, 64, 128, 256):
        (tmp_path / "open.yaml").write_text(text.replace("M0", str(m0)))
        every.append(evaluate(str(tmp_path / "open.yaml"), "xlm", "1K").cycles)
    assert found.cycles <= min(every)
    assert found.cycles < max(every)


def test_a_complete_mapping_has_nothing_open():
    result = fusemodel("explore", "fusemax", "-w", "bert")
    assert result.code == 2
    assert "nothing is open in the mapping 'fusemax'" in result.err
    assert fusemodel("explore", "attention-1pass").code == 2


def test_a_group_of_which_nothing_is_open_stays_as_it_is(tmp_path):
    """Einsums in one nest of loops stay in one, whatever else the file leaves open."""
    text = library("unfused").replace("name: unfused", "name: partly", 1)
    softmax = "    loops: [b, h, p]\n"
    text = text.replace(softmax, softmax + "    schedule: [[GM, SN, SD, A]]\n")
    told = replayed(tmp_path, text.replace("QK: {unit: array_2d,", "QK: {unit: auto,"), "-w", "bert", "-s", "4K")
    mine = evaluate("unfused", "bert", "4K")
    groups = {g["name"]: g for g in told["groups"]}
    assert groups["softmax"]["cycles"] == next(g.cycles for g in mine.groups if g.name == "softmax")
    assert told["cycles"] <= mine.cycles
    assert (tmp_path / "best.yaml").read_text().count("GM, SN, SD, A:") == 1


def test_a_completion_that_is_stopped_keeps_what_it_has(tmp_path):
    text = HEAD + FRAME.replace("P1", "auto") + "keep: auto\n" + BIND.replace("loops: [e]", "loops: auto")
    (tmp_path / "open.yaml").write_text(text)
    said = json.loads(
        fusemodel("explore", tmp_path / "open.yaml", "-w", "bert", "-s", "64K", "--seconds", "0", "--json").out
    )
    assert said["best"]["latency_s"] > 0
    assert not said["proven"]
    assert 0 <= said["gap"] <= 1
