"""The mapper against every mapping of the library for the same cascade, on the same architecture: at no model
and length worse.

All 72 searches take many minutes: `FUSEMODEL_BENCHMARK=full` runs them; without it, BERT at 1K, 16K and 256K.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from fusemodel.arch import Architecture, load_architecture
from fusemodel.cascade import extents_of, load_cascade
from fusemodel.cascade.workload import Workload, extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.explore import best_mapping
from fusemodel.library import names
from fusemodel.mapping import load_design
from fusemodel.model import evaluate

FULL = os.environ.get("FUSEMODEL_BENCHMARK") == "full"
PAIRS = [("attention-1pass", "fusemax-cloud"), ("attention-3pass", "flat-cloud"), ("attention-3pass", "fusemax-cloud")]
MODELS = ["bert", "trxl", "t5", "xlm"] if FULL else ["bert"]
LENGTHS = [2**n for n in ((10, 12, 14, 16, 18, 20) if FULL else (10, 14, 18))]


def rivals(cascade: str, machine: Architecture, load: Workload, seq: int) -> dict[str, float]:
    """Seconds of each mapping of the library for a cascade, moved to an architecture that can do all its own can."""
    found = {}
    for name in names("mappings"):
        design = load_design(name)
        units = {n: machine.units.get(n) for n in design.arch.units}
        able = all(u and set(design.arch.units[n].ops) <= set(u.ops) for n, u in units.items())
        if design.cascade.name == cascade and able and design.arch.levels.keys() == machine.levels.keys():
            try:
                found[name] = evaluate(replace(design, arch=machine), load, seq).latency_s
            except InputError:  # it does not fit
                continue
    return found


@pytest.mark.parametrize("seq", LENGTHS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("cascade", "arch"), PAIRS)
def test_never_worse(benchmark, cascade: str, arch: str, model: str, seq: int) -> None:
    loaded, machine, load = load_cascade(cascade), load_architecture(arch), load_workload(model)
    extents = extents_of(loaded, extents_for(loaded, load, seq))
    found = benchmark.pedantic(lambda: best_mapping(loaded, machine, extents), rounds=1)
    ours = evaluate(found.design, load, seq).latency_s
    theirs = rivals(cascade, machine, load, seq)
    benchmark.extra_info |= {"proven": found.proven, "gap": found.gap} | {
        name: other / ours for name, other in theirs.items()
    }
    assert theirs
    assert all(ours <= other * (1 + 1e-12) for other in theirs.values())
