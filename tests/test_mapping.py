"""Mapping files: the examples of the design pages, variants, groups, and a user's own copies of library files."""

from __future__ import annotations

import os
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import changed, fusemodel, text_of

from fusemodel import evaluate, parse_design
from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.model import Evaluation

EXAMPLE = """
name: fusemax
cascade: attention-1pass
arch: fusemax-cloud
tile:  {p: [p2, p1, p0], p0: 256, p1: max}          # max: the largest divisor that fits
loops: [b, h, p2, m1, p1]                           # shared by the fused Einsums, outermost first
keep:  {global_buffer: {Q: p2, K: m1, V: m1, RM: p2, RD: p2, RNV: p2}}   # tensor: the loop a tile lives under
bind:
  QK:   {unit: array_2d, spatial: {x: p0, y: m0}, temporal: [e]}
  RM:   {unit: array_1d, spatial: {x: p0}}
  LM:   {unit: array_2d, spatial: {x: p0, y: m0}}
  SLN:  {unit: array_2d, spatial: {x: p0, y: m0}}
  SLD:  {unit: array_2d, spatial: {x: p0, y: m0}}
  SLNV: {unit: array_2d, spatial: {x: p0, y: m0}, temporal: [f]}
  PRM, SPD, RD:  {unit: array_1d, spatial: {x: p0}}
  SPNV, RNV, AV: {unit: array_1d, spatial: {x: p0}, temporal: [f]}
schedule:                                           # each line runs side by side, in a software pipeline
  - [QK, LM, RD, RNV, AV]
  - [RM]
  - [SLN, SLD, PRM, SPD]
  - [SLNV, SPNV]
"""
SKETCH = EXAMPLE.replace("temporal", "loops").replace("name: fusemax\n", "") + "interleave: true\n"
DRAINS = SKETCH.replace("interleave: true", "interleave: false").replace("RD, RNV, AV]", "RD, AV]").replace(
    "[SLNV, SPNV]", "[SLNV, SPNV, RNV]"
)  # fmt: skip
FLAT = """
cascade: attention-3pass
arch: flat-cloud
tile: {p: [p1, p0], p0: 256, m: [m1, m0], m0: 256}
loops: [b, h]                                          # the fused granularity here is a head; a row block adds p2
keep: {global_buffer: {QK: {under: h, spill: true}, A: {under: h, spill: true}, SN: {under: h, spill: true}}}
bind:
  QK: {unit: array_2d, spatial: {x: p0, y: m0}, loops: [p1, m1, e]}
  AV: {unit: array_2d, spatial: {x: p0, y: f}, loops: [p1, m]}
  GM, SN, SD, A: {unit: array_1d, spatial: {x: m0}, loops: [p, m1]}
schedule: [[QK, GM, SN, SD, A, AV]]
interleave: true
"""


def run(text: str, workload: str | None = "bert", seq: int | str | None = "4K", **sets: int) -> Evaluation:
    return evaluate(parse_design(text), workload, seq, sets)


def numbers(result: Evaluation) -> Evaluation:
    return replace(result, mapping="")


@pytest.mark.parametrize(("text", "name"), [(EXAMPLE, "fusemax"), (SKETCH, "fusemax"), (DRAINS, "fusemax-arch")])
@pytest.mark.parametrize("seq", ["1K", "64K"])
def test_the_examples_of_the_design_pages(text: str, name: str, seq: str) -> None:
    ours, library = run(text, seq=seq), evaluate(name, "bert", seq)
    assert {e.name for e in ours.einsums} == {e.name for e in library.einsums}
    order = {e.name: e for e in ours.einsums}
    assert numbers(replace(ours, einsums=[], groups=[])) == numbers(replace(library, einsums=[], groups=[]))
    assert all(
        order[e.name].cycles == e.cycles and order[e.name].traffic_bytes == e.traffic_bytes for e in library.einsums
    )


def test_the_sketch_of_a_spilling_block() -> None:
    result = run(FLAT)
    group = result.groups[0]
    assert group.footprint_bytes["global_buffer"]["QK"] == 4096 * 4096 * 2
    assert group.spilled == {"global_buffer": pytest.approx(1 - 2**25 / (3 * 2**25))}
    shared = run(FLAT.replace("spill: true", "spill: true, share: block")).groups[0]
    assert shared.spilled == {}
    stated = run(FLAT.replace("spill: true", "spill: 0.00775, share: block"), seq="1K").groups[0]
    assert stated.dram_bytes > run(FLAT.replace("spill: true", "share: block"), seq="1K").groups[0].dram_bytes


@pytest.mark.parametrize("name", names("mappings"))
def test_library_mappings(name: str) -> None:
    design = parse_design(text_of(name), name)
    assert (design.name, bool(design.about), bool(design.source)) == (name, True, True)
    result = evaluate(design)
    assert 0 < result.latency_s < 1e6
    assert 0 < max(result.utilization.values()) <= 1


def test_what_may_be_left_out() -> None:
    full = run(text_of("fusemax"))
    assert numbers(run(changed("fusemax", ("interleave: true\n", ""), ("name: fusemax\n", "")))) == numbers(full)
    rest = changed("fusemax", ("loops: [e]", "loops: []"), ("loops: [f]", "loops: []"))
    assert run(rest).cycles == full.cycles  # ranks that no loop names are innermost loops
    together = parse_design(text_of("fusemax").partition("schedule:")[0])
    assert [len(g.stages) for c in together.groups for g in c.groups] == [1]


def test_one_rank_or_several_fill_a_dimension() -> None:
    one = changed("fusemax", ("{x: p0, y: m0}, loops: [e]", "{x: [p0], y: [m0]}, loops: [e]"))
    assert numbers(run(one)) == numbers(run(text_of("fusemax")))


def test_a_mapping_on_another_machine() -> None:
    small = evaluate("fusemax-cascade", "bert", "4K", arch="fusemax-cloud")
    assert small.arch == "fusemax-cloud"
    with pytest.raises(InputError, match="unknown operation for 'LM' on unit 'array_2d': 'max'"):
        evaluate("fusemax", "bert", "4K", arch="flat-cloud")


# Variants lay other values over a group


VARIANTS = """
minimise: latency
variants:
  - {name: base}
  - {name: narrow, tile: {p0: 64}}
  - {name: drains, interleave: false}
  - {name: Q in DRAM, keep: {global_buffer: {Q: null}}}
  - {name: Q on chip, keep: {global_buffer: {Q: h}}}
  - {name: elsewhere, bind: {LM: {unit: array_1d, spatial: {x: p0}}}}
"""


def test_variants_are_laid_over_the_group() -> None:
    (candidates,) = parse_design(text_of("fusemax").replace("interleave: true\n", VARIANTS)).groups
    base, narrow, drains, dram, chip, elsewhere = candidates.groups
    assert [g.variant for g in candidates.groups] == ["base", "narrow", "drains", "Q in DRAM", "Q on chip", "elsewhere"]
    assert str(narrow.sizes["p0"]) != str(base.sizes["p0"])
    assert (narrow.keeps, narrow.bindings, narrow.sizes["p1"]) == (base.keeps, base.bindings, base.sizes["p1"])
    assert (base.interleave, drains.interleave) == (True, False)
    under = [{k.tensor: k.under for k in g.keeps} for g in (base, dram, chip)]
    assert under[0] == {"Q": "p2", "K": "m1", "V": "m1", "RM": "p2", "RD": "p2", "RNV": "p2"}
    assert under[1] == {t: u for t, u in under[0].items() if t != "Q"}
    assert under[2] == {**under[0], "Q": "h"}
    assert (base.bindings["LM"].unit, elsewhere.bindings["LM"].unit) == ("array_2d", "array_1d")
    assert elsewhere.bindings["QK"] == base.bindings["QK"]


def test_the_best_variant_is_taken_the_first_among_equals() -> None:
    text = text_of("fusemax").replace("interleave: true\n", VARIANTS)
    result = run(text)
    assert (result.groups[0].variant, result.groups[0].candidates > 1) == ("base", True)
    assert result.cycles == run(text_of("fusemax")).cycles
    least = run(text.replace("minimise: latency", "minimise: [dram, latency]"))
    assert least.dram_bytes <= result.dram_bytes
    drains = text.replace("  - {name: base}\n", "").replace("  - {name: narrow, tile: {p0: 64}}\n", "")
    assert run(drains).groups[0].variant == "Q in DRAM"


def test_sizes_to_choose_from() -> None:
    fixed = {n: run(text_of("fusemax"), p0=n).cycles for n in (64, 128, 256)}
    listed = run(
        changed(
            "fusemax",
            ("p0: 256, p1: max", "p0: [64, 128, 256], p1: any"),
            ("interleave", "minimise: latency\ninterleave"),
        )
    )
    assert listed.cycles == min(fixed.values())
    assert listed.groups[0].tiles["p0"] == 256


def test_every_candidate_of_a_large_search_is_looked_at(tmp_path: Path) -> None:
    product = """
    name: product
    cascade: ./product.yaml
    arch: fusemax-cloud
    minimise: [latency, dram]
    tile: {i: [i1, i0], i0: any, j: [j1, j0], j0: any, k: [k1, k0], k0: any}
    loops: [i1, j1, k1]
    keep: {global_buffer: {A: k1, B: k1}}
    bind: {C: {unit: array_2d, spatial: {x: j0, y: i0}, loops: [k0]}}
    """
    cascade = """
    ranks: {i: 55440, j: 55440, k: 1024}
    inputs: {A: [i, k], B: [k, j]}
    outputs: [C]
    einsums: "C[i, j] = A[i, k] * B[k, j]"
    """
    (tmp_path / "product.yaml").write_text(textwrap.dedent(cascade))
    (tmp_path / "mapping.yaml").write_text(textwrap.dedent(product))
    (group,) = evaluate(str(tmp_path / "mapping.yaml")).groups
    assert group.candidates == 120 * 120 * 11  # 55440 has 120 divisors; more than are looked at in one go


# A user's own files


def test_own_files_without_touching_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of elements, another buffer and another tile, by copies of library files in some folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    arch = changed("fusemax-cloud", ("name: fusemax-cloud", "name: quarter"), ("[256, 256]", "[128, 128]"))
    arch = arch.replace("shape: [256]", "shape: [128]").replace("size: 16 MiB", "size: 2 MiB")
    (folder / "quarter.yaml").write_text(arch)
    (folder / "attention.yaml").write_text(changed("attention-1pass", ("m0: 256", "m0: 128")))
    mapping = changed("fusemax", ("name: fusemax", "name: mine"), ("fusemax-cloud", "quarter.yaml"))
    mapping = mapping.replace("cascade: attention-1pass", "cascade: ./attention.yaml").replace("p0: 256", "p0: 128")
    (folder / "mine.yaml").write_text(mapping)

    base, mine = evaluate("fusemax", "bert", "4K"), evaluate(str(folder / "mine.yaml"), "bert", "4K")
    assert (mine.mapping, mine.arch) == ("mine", "quarter")
    assert (mine.groups[0].tiles["p0"], mine.extents["m0"], mine.extents["m1"]) == (128, 128, 32)
    held = sum(mine.groups[0].footprint_bytes["global_buffer"].values())
    assert held <= 2 * 2**20
    assert mine.cycles > 3.5 * base.cycles  # a quarter of the elements
    assert mine.area_mm2 < base.area_mm2

    for directory, name in (
        (folder, "mine.yaml"),
        (folder, "mine"),
        (tmp_path, "mine/mine.yaml"),
        (Path("/"), folder / "mine.yaml"),
    ):
        monkeypatch.chdir(directory)
        ran = fusemodel("eval", name, "--workload", "bert", "--seq", "4K", "--json")
        assert (ran.code, ran.err) == (0, "")
        assert f'"cycles": {mine.cycles}' in ran.out


def test_a_used_mapping_is_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(changed("fusemax", ("interleave: true", "interleave: false")))
    (tmp_path / "layer.yaml").write_text(changed("layer-fusemax", ("use: fusemax}", "use: own.yaml}")))
    mine, base = evaluate(str(tmp_path / "layer.yaml"), "bert", "4K"), evaluate("layer-fusemax", "bert", "4K")
    assert mine.cycles > base.cycles
    assert len(mine.groups) == len(base.groups) == 7


@pytest.mark.parametrize(
    "changes",
    [
        ("own.yaml", "interleave: true", "interleave: false"),
        ("arch.yaml", "940 MHz", "470 MHz"),
        ("cascade.yaml", "m0: 256", "m0: 128"),
        ("sizes.yaml", "h: 12", "h: 24"),
    ],
)
def test_a_file_that_changes_is_read_again(tmp_path: Path, changes: tuple[str, str, str]) -> None:
    """In a notebook a design is edited and evaluated again and again, in one process."""
    texts = {
        "own.yaml": changed("fusemax", ("fusemax-cloud", "arch.yaml"), ("attention-1pass", "./cascade.yaml")),
        "arch.yaml": text_of("fusemax-cloud"),
        "cascade.yaml": text_of("attention-1pass"),
        "sizes.yaml": text_of("bert"),
        "layer.yaml": changed("layer-fusemax", ("use: fusemax}", "use: own.yaml}")),
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)

    def now(mapping: str) -> float:
        return evaluate(str(tmp_path / mapping), str(tmp_path / "sizes.yaml"), "4K").latency_s

    name, old, new = changes
    before = now("own.yaml"), now("layer.yaml")
    path = tmp_path / name
    path.write_text(texts[name].replace(old, new))
    os.utime(path, ns=(0, 0))
    after = now("own.yaml"), now("layer.yaml")
    assert after[0] != before[0]
    if name in ("own.yaml", "sizes.yaml"):
        assert after[1] != before[1]
