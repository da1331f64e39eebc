"""The FuseMax evaluation, reproduced: every published figure at hand against the library's own files.

``validation/published`` has a few figures with their citation and is always checked. The full tables of the evaluation
are not part of this project; where a folder with them lies beside the checkout they are checked too.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fusemodel import compare, evaluate
from fusemodel.library import names, published_dir
from fusemodel.report import load_request

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
NAMES = {"architecture": "fusemax-arch", "cascade": "fusemax-cascade"}

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the full published tables are not at hand")


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    return list(csv.DictReader(x for x in path.read_text().splitlines() if not x.startswith("#")))


def check(
    mapping: str, seq: str, latency_s: float, dram_bytes: float, util_2d: str, util_1d: str, energy_j: str
) -> None:
    result = evaluate(mapping, "bert", seq)
    assert result.latency_s == pytest.approx(latency_s, rel=1e-3)
    # FLAT's published spill is the share of all it buffers, ours of the block that spills: a part of the 1 % allowed
    assert result.dram_bytes == pytest.approx(dram_bytes, rel=1e-2 if mapping == "flat" else 1e-3)
    for unit, value in (("array_2d", util_2d), ("array_1d", util_1d)):
        if value:
            assert result.utilization[unit] == pytest.approx(float(value), rel=1e-3)
    if energy_j and mapping in ("flat", "fusemax"):
        assert result.energy_j == pytest.approx(float(energy_j), rel=0.05)


@pytest.mark.parametrize("row", rows(published_dir() / "fusemax-bert.csv"), ids=lambda r: f"{r['mapping']}-{r['seq']}")
def test_figures_of_the_table(row: dict[str, str]) -> None:
    check(
        row["mapping"], row["seq"], float(row["latency_s"]), float(row["dram_bytes"]),
        row["utilization.array_2d"], row["utilization.array_1d"], row["energy_j"],
    )  # fmt: skip


@needs_reference
@pytest.mark.parametrize(
    "row", rows(REFERENCE / "fusemax_attention_bert.csv"), ids=lambda r: f"{r['configuration']}-{r['seq_len']}"
)
def test_every_attention_figure(row: dict[str, str]) -> None:
    mapping = NAMES.get(row["configuration"], row["configuration"])
    energy = str(float(row["energy_pj"]) * 1e-12)
    check(
        mapping, row["seq_len"], float(row["latency_s"]), float(row["dram_traffic_bytes"]), row["util_2d"],
        row["util_1d"], energy,
    )  # fmt: skip


@needs_reference
@pytest.mark.parametrize(
    "row", rows(REFERENCE / "fusemax_linear_layers_bert.csv"), ids=lambda r: f"{r['architecture']}-{r['seq_len']}"
)
def test_every_linear_layer_figure(row: dict[str, str]) -> None:
    result = evaluate(f"linear-{row['architecture']}", "bert", row["seq_len"])
    assert result.latency_s == pytest.approx(float(row["latency_s"]), rel=1e-3)
    assert result.dram_bytes <= float(row["dram_traffic_bytes"]) * (1 + 1e-9)
    assert result.energy_j == pytest.approx(float(row["energy_pj"]) * 1e-12, rel=0.05)


@needs_reference
@pytest.mark.parametrize("row", rows(REFERENCE / "flat_mapping_bert.csv"), ids=lambda r: r["seq_len"])
def test_the_search_finds_the_published_mapping(row: dict[str, str]) -> None:
    """Nothing in the mapping file says which parameters go with which length: the search must find them."""
    result = evaluate("flat", "bert", row["seq_len"])
    group = result.groups[0]
    if row["QK_loc"] == "offchip":
        assert group.variant == "rows, scores and weights in DRAM"
    else:
        assert group.variant == {"head": "head", "row": "rows"}[row["fusion_granularity"]]
    if row["fusion_granularity"] == "row":
        assert group.tiles["p1"] * group.tiles["p0"] == int(row["P1"])
    else:
        assert group.tiles["p2"] == 1
    # 1/128 of the block against 1/129 of block and operand tiles
    spilled = group.spilled.get("global_buffer", 0.0)
    assert spilled == pytest.approx(float(row["proportion_spilled"]), rel=0.01)


@pytest.fixture(scope="module")
def headline():
    return compare(load_request())


def test_headline(headline) -> None:
    """Means over 4 models x 6 lengths; three of the models take no part in any other test of this file."""
    assert headline.mean["fusemax"]["flat"].points == 24
    for row in headline.published:
        ratio = headline.mean[row["subject"]][row["baseline"]]
        found = {
            ("speedup", "mean"): ratio.speedup,
            ("speedup", "geomean"): ratio.speedup_geomean,
            ("speedup", "min"): ratio.speedup_min,
            ("speedup", "max"): ratio.speedup_max,
            ("energy", "mean"): ratio.energy,
        }[row["quantity"], row["statistic"]]
        if row["quantity"] == "speedup":
            assert found == pytest.approx(row["value"], rel=0.02), row
        else:
            assert found == pytest.approx(row["value"], abs=0.01), row


def test_the_best_baseline_is_never_worse_than_the_published_one(headline) -> None:
    for best, published in zip(headline.at("flat-best"), headline.at("flat"), strict=True):
        assert best.latency_s <= published.latency_s * (1 + 1e-9)
    assert headline.mean["fusemax"]["flat-best"].speedup < headline.mean["fusemax"]["flat"].speedup


def test_narrow_row_blocks_beat_the_published_mapping_at_256k() -> None:
    """By hand: 64 rows x 256K keys fit but for a few percent, so that DRAM moves about half of the published bytes and
    the 1D array, 4 operations a point, is what remains."""
    best, published = evaluate("flat-best", "bert", "256K"), evaluate("flat", "bert", "256K")
    assert best.dram_bytes == pytest.approx(published.dram_bytes / 2, rel=0.05)
    points = 64 * 12 * 2**18 * 2**18
    assert best.latency_s == pytest.approx(4 * points / 256 / 940e6, rel=1e-6)
    assert published.latency_s / best.latency_s > 1.13


def test_golden_slots_of_the_one_pass_design() -> None:
    """64 + 1 + 7 + 1 + 64 = 137 slots of the 2D array for each (m, p) point, 99.26 % of the latency at 1M tokens."""
    result = evaluate("fusemax", "bert", "1M")
    slots = 768 * 2**40 * 137 / 65536 / 940e6
    assert result.utilization["array_2d"] == pytest.approx(slots / result.latency_s, rel=1e-12)
    assert result.latency_s == pytest.approx(1891.8, rel=1e-4)


def test_energy_of_registers_is_reported_apart() -> None:
    """The published totals leave register files out, and so does the library's architecture; both totals are given."""
    result = evaluate("fusemax", "bert", "16K")
    assert not any("registers" in name for name in result.energy_breakdown_j)
    assert result.energy_with_registers_j == pytest.approx(result.energy_j + sum(result.register_energy_j.values()))
    assert sum(result.energy_breakdown_j.values()) == pytest.approx(result.energy_j)


def test_what_registers_cannot_hold_is_said(tmp_path) -> None:
    """A block of scores that no level keeps would have to stay in registers: free in the counts, so it is named."""
    text = names("mappings")["flat"].read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("QK: {under: p2, spill: true, share: block}, ", ""))
    (note,) = [n for n in evaluate(str(mine), "bert", "16K").notes if "registers" in n]
    assert note.startswith("QK, GM, SD are kept nowhere but in array_1d and array_2d: 32 MiB of it")
    for design in ("fusemax", "fusemax-arch", "fusemax-cascade", "flat", "flat-best", "unfused"):
        assert evaluate(design, "bert", "64K").notes == []
