"""Speed of the simulator: tasks a second one by one, a million tokens with periods left out, an array of elements."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fusemodel.cascade.workload import load_workload
from fusemodel.mapping import load_design
from fusemodel.model.evaluate import choices
from fusemodel.simulate import simulate
from fusemodel.simulate.array import product
from fusemodel.simulate.engine import run
from fusemodel.simulate.lower import lower
from fusemodel.simulate.machine import machine_of


@pytest.mark.benchmark(group="tile tasks one by one (target: 10 million a second on one core)", timer=time.process_time)
@pytest.mark.parametrize(
    ("mapping", "seq"),
    [("fusemax", 2**14), ("fusemax-cascade", 2**14), ("fusemax-arch", 2**14), ("flat", 2**18), ("causal-cloud", 2**14)],
)
def test_tasks(benchmark, mapping: str, seq: int) -> None:
    """Processor time, so that what else a machine does hardly counts."""
    extents, chosen = choices(load_design(mapping), load_workload("bert"), seq, {"b": 1})
    machine = machine_of(lower(chosen[0], extents))
    run(machine, skip=False)
    counts = benchmark.pedantic(run, args=(machine,), kwargs={"skip": False}, rounds=5)
    benchmark.extra_info["tasks"] = counts.simulated
    benchmark.extra_info["million tasks a second"] = counts.simulated / benchmark.stats.stats.min / 1e6


@pytest.mark.benchmark(group="one million tokens of BERT, periods left out (target: under 5 s)")
@pytest.mark.parametrize("mapping", ["fusemax", "fusemax-arch", "flat"])
def test_a_million_tokens(benchmark, mapping: str) -> None:
    design, workload = load_design(mapping), load_workload("bert")
    simulate(design, workload, 2**14)
    found = benchmark.pedantic(simulate, args=(design, workload, 2**20), rounds=3)
    benchmark.extra_info["tasks"], benchmark.extra_info["run one by one"] = found.tasks, found.simulated


@pytest.mark.benchmark(group="a tile of 128 x 128 x 128, element by element (target: under 1 s)")
def test_elements(benchmark) -> None:
    tile = np.random.default_rng(0).normal(size=(128, 128))
    product(tile, tile)
    assert benchmark(product, tile, tile).busy == 128**3
