"""Speed of many mappings at once. `make bench` prints the table; compiling stands apart from computing.

A mapping computed is complete: every Einsum and level of a design, its time, energy, EDP, DRAM traffic, the space it
wants at every level and whether it fits (`OBJECTIVES`), or every field of an evaluation. docs/model.md has the peers'
figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from test_speed import seconds

from fusemodel import evaluate
from fusemodel.cascade.workload import load_workload
from fusemodel.mapping import load_design
from fusemodel.model.compiled import OBJECTIVES, CompiledMapping, compile_mapping
from fusemodel.model.compiled.machine import entries, threads
from fusemodel.model.compiled.trace import trace
from fusemodel.model.cost import cost_of
from fusemodel.model.evaluate import extents_in

ROWS = 2_000_000
LENGTH = 2**16
DESIGNS = {"fusemax": {}, "flat": {"QK+GM+SN+SD+A+AV": "rows"}, "unfused": {}}


def design_and_tiles(name: str) -> tuple[CompiledMapping, dict[str, int], dict[str, np.ndarray]]:
    """A mapping, its extents, and sizes of every tile drawn from the powers of two that divide."""
    design = load_design(name)
    mapping = compile_mapping(design, DESIGNS[name])
    extents = extents_in(design, load_workload("bert"), LENGTH, {})
    rng = np.random.default_rng(0)
    tiles: dict[str, np.ndarray] = {}
    for plan in mapping.plans:
        label = "" if len(mapping.plans) == 1 else f"{plan.group.name}."
        for rank, parts in plan.group.parts.items():
            left = np.full(ROWS, float(extents[rank]))
            for part in reversed(parts[1:]):
                size = np.minimum(2.0 ** rng.integers(0, 9, ROWS), left)
                tiles[label + part], left = size, left / size
            tiles[label + parts[0]] = left
    return mapping, extents, tiles


def rate(benchmark, mapping: CompiledMapping, extents: Mapping[str, int], tiles, columns, most: int) -> None:
    mapping.compute(extents, tiles, columns, most)
    benchmark.pedantic(mapping.compute, args=(extents, tiles, columns, most), rounds=5)
    benchmark.extra_info["mappings a second, million"] = (
        len(next(iter(tiles.values()))) / benchmark.stats.stats.min / 1e6
    )
    benchmark.extra_info["results of each"] = len(columns)


@pytest.mark.benchmark(group="objectives of complete mappings, 2 million (target: 5 million a second on two cores)")
@pytest.mark.parametrize("most", sorted({1, threads()}), ids=lambda n: f"{n} threads")
@pytest.mark.parametrize("name", DESIGNS)
def test_objectives(benchmark, name: str, most: int) -> None:
    mapping, extents, tiles = design_and_tiles(name)
    columns = [*OBJECTIVES, *(c for c in mapping.traced(extents).columns if c.startswith("need_bytes."))]
    one_s = seconds(lambda: evaluate(mapping.design, "bert", LENGTH, {"p1": 4} if name == "flat" else None))
    few = {n: c[: ROWS // 100] for n, c in tiles.items()}
    numpy_s = seconds(lambda: [
        cost_of(p, {**extents, **{n.rpartition(".")[2]: c for n, c in few.items()
                                  if "." not in n or n.startswith(f"{p.group.name}.")}}, extents)
        for p in mapping.plans
    ])  # fmt: skip
    rate(benchmark, mapping, extents, tiles, columns, most)
    benchmark.extra_info["baseline: one by one, a second"] = 1 / one_s
    benchmark.extra_info["baseline: the plain model on arrays, million a second"] = ROWS / 100 / numpy_s / 1e6


@pytest.mark.benchmark(group="every field of complete mappings, 200 thousand")
def test_every_field(benchmark) -> None:
    mapping, extents, tiles = design_and_tiles("fusemax")
    few = {n: c[: ROWS // 10] for n, c in tiles.items()}
    rate(benchmark, mapping, extents, few, list(mapping.traced(extents).columns), threads())


@pytest.mark.benchmark(group="before the first batch: tracing a design (any machine, any length)")
def test_trace(benchmark) -> None:
    mapping, extents, _ = design_and_tiles("fusemax")
    benchmark(trace, mapping.design, mapping.plans, extents)


@pytest.mark.benchmark(group="before the first batch: the kernel, once a process")
@pytest.mark.parametrize("kept", [False, True], ids=["compiled", "loaded from disk"])
def test_kernel(benchmark, kept: bool, tmp_path) -> None:
    code = "import numba\nfrom time import perf_counter as t\ns = t()\n" \
           "from fusemodel.model.compiled.machine import entries\nentries()\nprint(t() - s)"  # fmt: skip
    entries()
    times = []

    def start() -> None:
        place = {} if kept else {"NUMBA_CACHE_DIR": str(tmp_path / str(len(times)))}
        ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, **place}, check=True, capture_output=True)
        times.append(float(ran.stdout))

    benchmark.pedantic(start, rounds=2)
    benchmark.extra_info["of which the kernel, s"] = min(times)
