"""Speed of what users wait for. `make bench` prints the table; each figure stands beside a baseline of the same run.

Peers on the same work (attention of BERT at 1K tokens, 2 cores, November 2026): AccelForge evaluates one fused mapping
in 166 ms warm, ZigZag's cost model takes 1.9 ms and its API call 65 ms for one unfused matrix product.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle

import pytest

from fusemodel import compare, evaluate
from fusemodel.library import names
from fusemodel.mapping.load import build_design
from fusemodel.report import load_request
from fusemodel.yamlfile import read_yaml

ACCELFORGE_S = 166e-3  # one fused mapping, warm


def seconds(call: Callable[[], object], repeat: int = 5) -> float:
    """The least time of a few calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "fusemodel.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.benchmark(group="warm evaluation through Python (target: under 0.5 ms)")
@pytest.mark.parametrize("mapping", ["fusemax", "flat", "unfused"])
def test_warm_evaluation(benchmark, mapping: str) -> None:
    evaluate(mapping, "bert", "1K")
    baseline_s = seconds(lambda: build_design(read_yaml(names("mappings")[mapping])))
    benchmark(evaluate, mapping, "bert", "1K")
    benchmark.extra_info["baseline: reading and checking the files, s"] = baseline_s
    benchmark.extra_info["ratio to the baseline"] = benchmark.stats.stats.min / baseline_s
    benchmark.extra_info["ratio to AccelForge"] = benchmark.stats.stats.min / ACCELFORGE_S


@pytest.mark.benchmark(group="warm evaluation through Python, another length and tile each time")
def test_warm_evaluation_of_others(benchmark) -> None:
    every = cycle([(seq, {"p0": p0}) for seq in ("1K", "4K", "16K", "64K", "256K", "1M") for p0 in (64, 128, 256)])
    for _ in range(18):
        seq, sets = next(every)
        evaluate("fusemax", "bert", seq, sets)

    def other() -> None:
        seq, sets = next(every)
        evaluate("fusemax", "bert", seq, sets)

    benchmark(other)
    benchmark.extra_info["ratio to AccelForge"] = benchmark.stats.stats.median / ACCELFORGE_S


@pytest.mark.benchmark(group="cold start of the command line (target: under 0.5 s)")
@pytest.mark.parametrize("arguments", [("--help",), ("eval", "fusemax", "-w", "bert", "-s", "16K")], ids=" ".join)
def test_cold_start(benchmark, arguments: tuple[str, ...]) -> None:
    baseline_s = seconds(lambda: subprocess.run([sys.executable, "-c", "import numpy, typer"], check=True))
    benchmark.pedantic(command, args=arguments, rounds=5, warmup_rounds=1)
    benchmark.extra_info["baseline: python importing numpy and typer, s"] = baseline_s
    benchmark.extra_info["ratio to the baseline"] = benchmark.stats.stats.min / baseline_s


@pytest.mark.benchmark(group="the default comparison: 9 designs x 4 models x 6 lengths")
def test_default_comparison(benchmark) -> None:
    request = load_request()
    result = benchmark.pedantic(compare, args=(request,), rounds=3, warmup_rounds=1)
    benchmark.extra_info["evaluations"] = len(result.rows)
