"""`init` and `doctor`: what a new user types first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import fusemodel

from fusemodel import doctor


@pytest.fixture
def mine(tmp_path) -> Path:
    assert fusemodel("init", tmp_path / "mine").code == 0
    return tmp_path / "mine"


def test_the_starter_files_run_as_they_are(mine):
    assert sorted(p.name for p in mine.iterdir()) == ["arch.yaml", "cascade.yaml", "mapping.yaml"]
    error = json.loads(fusemodel("run", mine / "cascade.yaml", "--json").out)["max_rel_error"]
    assert error < 1e-12
    found = json.loads(fusemodel("eval", mine / "mapping.yaml", "-w", "bert", "-s", "16K", "--json").out)
    assert found["latency_s"] > 0
    assert not found["notes"]
    ran = fusemodel("compare", "fusemax", mine / "mapping.yaml", "-w", "bert", "-s", "1K,1M", "--html", mine / "r.html")
    assert ran.code == 0
    assert (mine / "r.html").stat().st_size < 6_000_000


def test_one_pass_over_the_keys(mine):
    assert json.loads(fusemodel("passes", mine / "cascade.yaml", "--json").out)["passes"]["m"] == 1


def test_what_the_mapping_says_to_try_helps(mine):
    """Exponentials on the array too, as the comment at its end says."""
    before = json.loads(fusemodel("eval", mine / "mapping.yaml", "--json").out)["cycles"]
    arch = (mine / "arch.yaml").read_text()
    (mine / "arch.yaml").write_text(arch.replace("    reduce: [y]", "      exp: {as: 6 mac}\n    reduce: [y]"))
    mapping = (mine / "mapping.yaml").read_text()
    bound = "  N, LD:    {unit: array, spatial: {x: p0, y: m0}}"
    lines = [bound if line.startswith("  N, LD:") else line for line in mapping.splitlines()]
    (mine / "mapping.yaml").write_text("\n".join(lines))
    after = json.loads(fusemodel("eval", mine / "mapping.yaml", "--json").out)["cycles"]
    assert after < before / 2


def test_nothing_is_overwritten(mine):
    (mine / "arch.yaml").unlink()
    (mine / "mapping.yaml").write_text("mine")
    ran = fusemodel("init", mine)
    assert ran.code == 2
    assert "cascade.yaml: is there already" in ran.err
    assert (mine / "mapping.yaml").read_text() == "mine"
    assert not (mine / "arch.yaml").exists()


def test_doctor():
    ran = fusemodel("doctor", "--json")
    found = {f["what"]: f for f in json.loads(ran.out)["findings"]}
    assert ran.code == 0
    assert found["numpy"]["ok"]
    assert "cascades" in found["library"]["found"]
    assert fusemodel("doctor").code == 0


def test_doctor_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_required", lambda: ["no-such-package"])
    ran = fusemodel("doctor")
    assert ran.code == 1
    assert "pip install no-such-package" in ran.out
