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
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from test_speed import seconds

from fusemodel import evaluate
from fusemodel.cascade.workload import load_workload
from fusemodel.mapping import load_design
from fusemodel.model.compiled import OBJECTIVES, CompiledMapping, compile_mapping
from fusemodel.model.compiled.machine import entries, threads
from fusemodel.model.compiled.singly import results_of
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


@pytest.mark.benchmark(group="causal attention, a million complete mappings: absent points are counted, not halved")
@pytest.mark.parametrize("sizes", ["powers of two", "any size"])
def test_absent_points(benchmark, sizes: str) -> None:
    """Against the same mappings evaluated one by one in the same run. Powers of two come in few combinations; of any
    size, nearly every mapping is the only one with its tiles."""
    design = load_design("causal-cloud")
    mapping = compile_mapping(design, {design.groups[0].groups[0].name: "at 16K tokens"})
    extents = extents_in(design, load_workload("bert"), 2**14, {})
    rng = np.random.default_rng(0)
    p_0, p_1 = 2.0 ** rng.integers(0, 9, (2, ROWS // 2))
    if sizes == "any size":
        p_0, p_1 = (rng.integers(1, 513, ROWS // 2).astype(float) for _ in range(2))
    tiles = {"p_2": np.ceil(extents["p"] / (p_0 * p_1)), "p_1": p_1, "p_0": p_0}
    columns = [*OBJECTIVES, "need_bytes.global_buffer"]
    few = 200

    def alone() -> list[dict[str, Any]]:
        return [
            results_of(design, mapping.plans, extents, [{**extents, **{x: int(n[i]) for x, n in tiles.items()}}])[0]
            for i in range(few)
        ]  # fmt: skip

    start = perf_counter()
    singly = alone()  # once: what it counts is kept
    one_by_one = few / (perf_counter() - start)
    start = perf_counter()
    found = mapping.compute(extents, tiles, columns, ragged=True)
    cold = ROWS // 2 / (perf_counter() - start)
    for i, one in enumerate(singly):
        assert found["energy_j"][i] == pytest.approx(one["energy_j"], rel=1e-12)
    benchmark.pedantic(lambda: mapping.compute(extents, tiles, columns, ragged=True), rounds=3)
    again = ROWS // 2 / benchmark.stats.stats.min
    benchmark.extra_info["mappings a second, first time, traces and compiling included"] = cold
    benchmark.extra_info["mappings a second"] = again
    benchmark.extra_info["baseline: one by one, a second"] = one_by_one
    benchmark.extra_info["ratio"] = again / one_by_one
    assert again > 20 * one_by_one


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
