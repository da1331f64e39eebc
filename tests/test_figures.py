"""The figures for papers: files in every format, bars that are our numbers and marks that are the published ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commandline import fusemodel

from fusemodel import compare, evaluate
from fusemodel.errors import InputError
from fusemodel.explore.space import load_space
from fusemodel.report import Request, Section
from fusemodel.report.areas import curves
from fusemodel.report.paper import figures


@pytest.fixture(scope="module")
def default(default_comparison):
    return default_comparison, dict(figures(default_comparison))


def heights(ax):
    return {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers}


def test_bars_are_our_numbers(default):
    found, drawn = default
    panels = {ax.get_title(): ax for ax in drawn["speedup"].axes}
    assert list(panels) == ["bert", "trxl", "t5", "xlm"]
    ours, flat = ([r for r in found.at(n) if r.workload == "xlm"] for n in ("fusemax", "flat"))
    expected = [b.latency_s / a.latency_s for a, b in zip(ours, flat, strict=True)]
    assert heights(panels["xlm"])["flat"] == pytest.approx(expected)


def test_marks_are_the_published_numbers(default):
    """flat at 1K: 0.013386 s / 0.0020131 s, both as published."""
    _, drawn = default
    bert = drawn["speedup"].axes[0]
    marks = np.concatenate([line.get_ydata() for line in bert.lines if line.get_marker() == "x"])
    known = marks[~np.isnan(marks)]
    assert known[0] == pytest.approx(0.013386 / 0.0020131)
    xlm = drawn["speedup"].axes[3]
    assert all(np.isnan(line.get_ydata()).all() for line in xlm.lines if line.get_marker() == "x")


def test_active_share_adds_up_to_the_busy_time(default):
    found, drawn = default
    first = drawn["active"].axes[0]  # the first unit, the first workload
    at = found.at("fusemax")[0]
    total = sum(values[0] for values in heights(first).values())
    assert total == pytest.approx(next(iter(at.busy.values())))


def test_area_against_latency(default):
    """256K tokens of BERT on 256 x 256: 118.28 s as published; four times the array, four times as fast."""
    _, drawn = default
    lines = {line.get_label(): line for line in drawn["area"].axes[0].lines}
    area, latency = lines["fusemax (bert, 256K tokens)"].get_data()
    assert list(area) == sorted(area)
    assert latency[4] == pytest.approx(118.28, rel=1e-4)
    assert latency[5] == pytest.approx(118.28 / 4, rel=1e-2)
    assert lines["published"].get_ydata() == pytest.approx([118.28])


def test_area_against_latency_of_other_mappings(tmp_path):
    """A mapping made for another machine is drawn where it can run; on no machine is an error."""
    space = tmp_path / "space.yaml"
    space.write_text(
        "arch: flat-cloud\nvary: {mib: [8, 32]}\nset: {levels.global_buffer.size: mib MiB, "
        "levels.global_buffer.area: base * mib / 32}\ncascades: [attention-3pass]\nworkloads: [bert]\nseq: [1K]\n"
    )
    found = compare(Request((Section("x", "unfused", ("fusemax",)),), ("bert",), (1024,)))
    (curve,) = curves(found, load_space(str(space)))
    assert curve.name == "unfused (bert, 1K tokens)"
    assert curve.every[1].found.latency_s == evaluate("unfused", "bert", 1024).latency_s
    assert len(curve.front) == 1  # the larger buffer makes it no faster
    space.write_text(space.read_text().replace("mib MiB", "mib KiB"))
    other = compare(Request((Section("x", "layer-fusemax", ("fusemax",)),), ("bert",), (1024,)))
    with pytest.raises(InputError, match="no mapping runs on any architecture"):
        curves(other, load_space(str(space)))


def test_designs_with_other_units(tmp_path):
    request = Request((Section("x", "attention-1pass", ("attention-3pass",)),), ("bert",), (1024,), arch="flat-cloud")
    assert {"utilization", "active", "speedup", "energy"} <= dict(figures(compare(request))).keys()


def test_command_line(tmp_path):
    out = tmp_path / "new" / "folder"
    ran = fusemodel(
        "figures", "flat", "fusemax", "-w", "bert", "-s", "1K,4K", "--out", out, "--format", "svg,pdf,png", "--json"
    )
    files = json.loads(ran.out)["files"]
    assert len(files) == 12
    assert sorted(p.name for p in out.iterdir()) == sorted(f.rsplit("/")[-1] for f in files)
    assert (out / "speedup.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (out / "energy.svg").read_text()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--arch-space", "area-latncy"], "did you mean 'area-latency'?"),
    (["--format", "gif"], "unknown format of a picture 'gif'; expected one of pdf, png, svg"),
    (["--out", "/dev/null/x"], "/dev/null/x: cannot be made"),
])  # fmt: skip
def test_what_cannot_be_drawn(arguments, message):
    ran = fusemodel("figures", "flat", "fusemax", "-w", "bert", "-s", "1K", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
