"""A thousand machines times four models, each mapped optimally: 4,000 rows in ten minutes on two cores are 0.3 s of one
core a row.

A slice by itself: all machines of one array for all models. `FUSEMODEL_BENCHMARK=full` runs all 4,000 rows.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fusemodel.explore.problem import solve, tasks_of
from fusemodel.explore.space import load_space
from fusemodel.explore.store import open_store
from fusemodel.explore.sweep import _problems, sweep

ROWS = 4000


@pytest.mark.parametrize("shape", [(32, 64), (64, 128), (256, 256)])
def test_machines_that_share_an_array(benchmark, shape: tuple[int, int]) -> None:
    """200 rows; all arrays are taken to need as long."""
    space = load_space("arrays-buffers-bandwidths")
    problems = [p for _, p in _problems(space, None) if tuple(p.arch.units["array_2d"].shape.values()) == shape]
    tasks = tasks_of(problems)
    began = time.process_time()
    found = benchmark.pedantic(lambda: [r for t in tasks for _, r in solve(t)], rounds=1)
    spent = time.process_time() - began
    assert len(found) == 200
    assert all(r["proven"] for r in found)
    benchmark.extra_info |= {
        "rows": len(found), "cpu_s_a_row": spent / len(found), "minutes_for_all": spent / len(found) * ROWS / 2 / 60
    }  # fmt: skip


@pytest.mark.skipif(os.environ.get("FUSEMODEL_BENCHMARK") != "full", reason="minutes: FUSEMODEL_BENCHMARK=full")
def test_all_rows(benchmark, tmp_path: Path) -> None:
    space = load_space("arrays-buffers-bandwidths")
    with open_store(tmp_path / "store.sqlite") as store:
        found = benchmark.pedantic(lambda: sweep(space, store, jobs=2), rounds=1)
    proven = sum(bool(r.result and r.result["proven"]) for r in found.done)
    benchmark.extra_info |= {"rows": len(found.done), "proven": proven, "minutes": found.seconds / 60}
    assert len(found.done) == ROWS


def test_a_thousand_machines_are_read(benchmark) -> None:
    from fusemodel.explore.space import build_space
    from fusemodel.library import names
    from fusemodel.yamlfile import read_yaml

    path = names("spaces")["arrays-buffers-bandwidths"]
    assert len(benchmark.pedantic(lambda: build_space(read_yaml(path)).machines, rounds=1)) == 1000
