"""Mappings of the mechanisms, cascades mapped on the way, derived cascades of the library, the table of cascades."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import fusemodel

from fusemodel import evaluate
from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.derive import derive
from fusemodel.cascade import format_cascade, load_cascade
from fusemodel.cascade.workload import load_workload
from fusemodel.library import names, root
from fusemodel.mapping import load_design
from fusemodel.report.catalogue import catalogue, catalogue_row

CLOUD = sorted(n for n in names("mappings") if n.endswith("-cloud"))
FLAT = ["causal-flat", "gqa-flat", "window-flat"]
LENGTHS = [2**10, 2**14, 2**18, 2**20]
DERIVED = {n: p for n, p in names("cascades").items() if p.parent.name == "derived"}


@pytest.mark.parametrize("name", [*CLOUD, *FLAT])
def test_every_family_runs_at_every_length(name: str) -> None:
    design = load_design(name)
    for seq in LENGTHS if name in CLOUD else LENGTHS[::2]:
        found = evaluate(name, seq=seq)
        assert found.notes == []
        least = bounds(design.cascade, found.extents)
        assert found.dram_bytes >= least.compulsory_words_at * design.arch.word_bytes * (1 - 1e-12)


@pytest.mark.parametrize("name", ["linear-cloud", "linear-causal-cloud", "deltanet-cloud", "ssd-mamba2-cloud"])
def test_recurrent_mechanisms_read_their_inputs_once(name: str) -> None:
    """But for three positions that a convolution sees again in every chunk, and parameters read again with it."""
    design = load_design(name)
    for workload, seq in (("layer32", 2**12), ("layer32", 2**20), (None, 2**14)):
        found = evaluate(name, workload, seq)
        least = bounds(design.cascade, found.extents).compulsory_words_at * design.arch.word_bytes
        assert least <= found.dram_bytes <= 1.04 * least


def test_what_the_ranking_rests_on() -> None:
    """Closed forms by hand, of 32 heads of 128 channels, 8 groups, latents of 512 and 64."""
    of = ("causal-cloud", "gqa-causal-cloud", "mla-cloud", "mla-absorbed-cloud")
    at = {n: evaluate(n, "layer32", 2**14) for n in of}
    words = 2**14 * 128
    assert at["causal-cloud"].dram_bytes == 2 * words * (32 + 32 + 32 + 32)
    assert at["gqa-causal-cloud"].dram_bytes == 2 * words * (32 + 8 + 8 + 32)
    # slots of the array for a pair of tiles of 256 x 256: products, an addition and a scale, a maximum, exp, a sum
    tiles = 32 * 64 * 65 / 2
    for name, products, last in (
        ("mla-cloud", 128 + 64 + 128, "SLNV"),
        ("mla-absorbed-cloud", 512 + 64 + 512, "SLNC"),
    ):
        busy = {e.name: e.cycles for e in at[name].einsums}
        slots = sum(busy[n] for n in ("SC", "SR", "QK", "LM", "SLN", "SLD", last))
        assert slots == tiles * (products + 2 + 1 + 7 + 1)
        assert at[name].latency_s < 1.08 * slots / 940e6
    window = evaluate("window-cloud", "layer32", 2**20)
    assert window.dram_bytes == pytest.approx(2 * 2**20 * 128 * 32 * (2 + 2 * 1.25), rel=0.01)  # 16K rows see 20K keys


def test_rankings() -> None:
    ran = fusemodel("compare", "mechanisms", "--seq", "1K,64K", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    short, long = found["rankings"]
    assert (short["seq"], long["seq"], long["workload"]) == (1024, 65536, "layer32")
    rows = {(r["mapping"], r["seq"]): r for r in found["rows"]}
    assert len(rows) == 20
    for point in (short, long):
        for measure in ("latency_s", "energy_j", "dram_bytes"):
            values = [rows[d, point["seq"]][measure] for d in point[measure]]
            assert values == sorted(values)
            assert len(set(point[measure])) == 10
    place = {d: i for i, d in enumerate(long["latency_s"])}
    recurrent = ["ssd-mamba2-cloud", "linear-causal-cloud", "deltanet-cloud"]
    assert long["latency_s"][:4] == [*recurrent, "window-cloud"]
    assert place["causal-cloud"] < place["mla-cloud"] < place["mla-absorbed-cloud"] < place["causal-3pass-cloud"]
    assert long["dram_bytes"].index("gqa-causal-cloud") < long["dram_bytes"].index("causal-cloud")
    text = fusemodel("compare", "mechanisms", "--seq", "1K")
    assert text.code == 0
    assert text.out.count("(place)") == 3


def test_comparison_files_that_are_wrong(tmp_path: Path) -> None:
    good = (root() / "comparisons" / "mechanisms.yaml").read_text()
    for change, message in {
        ("causal-cloud: softmax, 1 pass", "casual-cloud: softmax"): "unknown mapping 'casual-cloud'",
        ("workloads: [layer32]", "workloads: [layer33]"): "unknown workload 'layer33'",
        ("  - title: Causal mechanisms\n    designs:", "  - designs:"): "field 'title' is missing or empty",
        ("seq: [1K", "seq: [none"): "a length is 'none'",
        ("rankings:", "ranking:"): "expected `rankings` in a comparison; did you mean 'rankings'?",
    }.items():
        assert change[0] in good
        (tmp_path / "mine.yaml").write_text(good.replace(*change))
        ran = fusemodel("compare", tmp_path / "mine.yaml", "--json")
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err
        assert "mine.yaml:" in ran.err


def test_latency_grows_as_the_work_does() -> None:
    """With the length for recurrences and, past the window, for windows; with its square for causal attention."""
    for name in ("linear-cloud", "deltanet-cloud", "ssd-mamba2-cloud"):
        assert evaluate(name, seq=2**20).latency_s / evaluate(name, seq=2**14).latency_s == pytest.approx(64, rel=0.01)
    window = [evaluate("window-cloud", seq=s).latency_s for s in (2**18, 2**20)]
    assert window[1] / window[0] == pytest.approx(4, rel=0.03)
    causal = [evaluate("causal-cloud", seq=s).latency_s for s in (2**18, 2**20)]
    assert causal[1] / causal[0] == pytest.approx(16, rel=0.03)


def test_causal_points_are_half_and_the_diagonal() -> None:
    found = evaluate("causal-cloud", seq=4096)
    heads = found.extents["b"] * found.extents["h"]
    points = {e.name: e.points for e in found.einsums}
    assert points["SN"] == heads * 4096 * 4097 // 2


@pytest.mark.parametrize("name", DERIVED)
def test_derived_cascades_are_what_derive_finds(name: str) -> None:
    held = load_cascade(name)
    found = derive(load_cascade(name.removesuffix("-1pass"))).cascade
    same = {"name": "", "about": "", "source": "", "provenance": "", "file": ""}
    assert format_cascade(replace(held, **same)) == format_cascade(replace(found, **same))


def test_a_cascade_is_mapped_where_a_mapping_is_expected() -> None:
    ran = fusemodel("eval", "attention-3pass", "--arch", "flat-cloud", "-w", "bert", "-s", "1K", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert found["cascade"] == "attention-3pass"
    assert found["latency_s"] <= evaluate("flat", "bert", "1K").latency_s * (1 + 1e-9)
    assert fusemodel("eval", "attention-3pass").code == 2


def test_derive_map_compare() -> None:
    ran = fusemodel("derive", "attention-3pass", "--arch", "fusemax-cloud", "-w", "bert", "-s", "16K", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)["evaluations"]
    assert [e["mapping"] for e in found] == ["attention-3pass (auto)", *["attention-3pass-derived (auto)"] * 2]
    assert found[2]["latency_s"] < found[0]["latency_s"]
    refused = fusemodel("derive", "attention-3pass", "-w", "bert")
    assert refused.code == 2
    assert "--arch" in refused.err


def test_compare_ranks_cascades() -> None:
    ran = fusemodel("compare", "attention-3pass", "attention-1pass", "--arch", "fusemax-cloud", "-s", "1K", "--json")
    assert ran.code == 0
    rows = json.loads(ran.out)["rows"]
    assert [r["cascade"] for r in rows] == ["attention-3pass", "attention-1pass"]


def test_the_bound_is_drawn(tmp_path: Path) -> None:
    for suffix in ("svg", "png", "pdf"):
        ran = fusemodel("passes", "attention-3pass", "attention-1pass", "-w", "bert", "-s", "4K", "--plot",
                        tmp_path / f"x.{suffix}")  # fmt: skip
        assert ran.code == 0
        assert (tmp_path / f"x.{suffix}").stat().st_size > 5000
    text = (tmp_path / "x.svg").read_text()
    assert all(n in text for n in ("attention-3pass: bound", "attention-1pass: bound", "fusemax", "unfused"))
    refused = fusemodel("passes", "attention-3pass", "--plot", tmp_path / "x.bmp")
    assert refused.code == 2
    assert "svg" in refused.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pdf", "x.png", "x.svg"]


def test_the_table_of_cascades() -> None:
    row = catalogue_row("attention-3pass")
    assert row["passes"] == "m 3 → 1"
    assert row["operations"].startswith("mac 1.031e+11")  # 64 x 12 x 1024^2 x (64 + 64)
    some = {n: names("cascades")[n] for n in ("welford", "gqa")}
    text = catalogue(some, processes=1)
    assert text.index("## heads") < text.index("`gqa`") < text.index("## normalisation") < text.index("`welford`")


def test_the_docs_list_every_cascade() -> None:
    text = (Path(__file__).parent.parent / "docs" / "cascades.md").read_text()
    assert [n for n in names("cascades") if f"| `{n}` |" not in text] == []
    for name in ("attention-1pass", "retention", "welford"):
        assert "| " + " | ".join(v.replace("|", "\\|") for v in catalogue_row(name).values()) + " |" in text


def test_passes_as_derived_are_counted_at_the_given_extents() -> None:
    found = json.loads(fusemodel("passes", "sinkhorn", "--set", "k=3", "--json").out)
    assert (found["passes"]["i"], found["derived"]["i"]) == (4, 4)  # k + 1
    assert all(found["derived"][r] <= n for r, n in found["passes"].items())


def test_workloads_set_only_what_they_mean() -> None:
    """A workload sets ranks by name: batch, heads (and their groups), channels, the width of the model (d) and of its
    feed-forward layer (s). No mapped cascade may call anything else so, and no cascade a plain number d, b, h, e, f or
    g (a dilation is `dil`)."""
    set_by_some = {r for w in names("workloads") for r in load_workload(w).ranks}
    assert set_by_some == {"b", "h", "g", "r", "e", "f", "d", "s"}
    mapped = {load_design(m).cascade.name for m in names("mappings")}
    wide = {"layer-1pass", "layer-3pass", "linear-layers"}
    for name in names("cascades"):
        cascade = load_cascade(name)
        held = {r for t in cascade.tensors for r in cascade.full_ranks(t)}
        held |= {part for r in held for part in cascade.split.get(r, ())} | {cascade.parents.get(r, r) for r in held}
        numbers = (set_by_some & set(cascade.ranks)) - held
        assert numbers <= {"r", "s"}, f"{name} has {numbers} as plain numbers"
        if name in mapped and name != "matrix-product-split":  # which refuses a number of parts that does not fit
            assert numbers <= {"r"}, f"{name} has {numbers} as plain numbers"
            assert name in wide or not {"d", "s"} & set(cascade.ranks), f"{name} calls something d or s"
    window = [evaluate("window-cloud", w, 2**14).extents["dil"] for w in names("workloads")]
    assert set(window) == {1}
