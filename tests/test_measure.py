"""Measuring without a GPU: plan, tables, statistics, telemetry, and runs with a worker that makes times up."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commandline import fusemodel, refused
from hypothesis import given
from hypothesis import strategies as st

from fusemodel.errors import InputError
from fusemodel.validate.measure import GROUPS, Machine, Settings, make_plan, measure
from fusemodel.validate.measure.__main__ import main as bare_main
from fusemodel.validate.measure.case import Case, pairs, work
from fusemodel.validate.measure.plan import NAMED_ONLY, START_S, repeats
from fusemodel.validate.measure.rows import drift_of, measured
from fusemodel.validate.measure.run import failures_path, log_path
from fusemodel.validate.measure.stats import drift, summarise
from fusemodel.validate.measure.store import COLUMNS, Table
from fusemodel.validate.measure.telemetry import Reading, Telemetry, condition, energy_between_j
from fusemodel.validate.measure.text import plan_data, plan_text
from fusemodel.validate.measure.timing import GraphTimer, HostTimer, sample

FAKE = str(Path(__file__).with_name("fake_worker.py"))
ROOT = Path(__file__).resolve().parents[1]
#: Columns that a validation reads, as the design names them.
READ = ("gpu", "kernel", "op", "dtype", "batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "window", "causal",
        "latency_us")  # fmt: skip


def fake(*ways: str) -> tuple[str, ...]:
    return (sys.executable, FAKE, "{replies}", *ways)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The plan


def test_the_plan_is_the_sweeps_that_were_asked_for() -> None:
    plan = make_plan()
    cases = {g.name: [e.case for e in g.entries] for g in plan.groups}
    assert set(cases) == set(GROUPS) - set(NAMED_ONLY)
    assert len(cases["sdpa"]) == 3 * 3 * 6 * 2
    assert {(c.head_dim, c.seq_q, c.causal) for c in cases["sdpa"]} == set(
        itertools.product((64, 128, 256), (512, 1024, 2048, 4096, 8192, 16384), (0, 1))
    )
    assert {c.batch * c.seq_q for c in cases["sdpa"]} == {16384}
    assert {c.heads * c.head_dim for c in cases["sdpa"] + cases["triton"]} == {2048}
    assert {c.window for c in cases["flex"]} == {0, 256, 1024, 4096}
    assert {(c.batch, c.seq_kv, c.kv_heads) for c in cases["decode"]} <= set(
        itertools.product((1, 8, 32, 128), (1024, 8192, 65536), (32, 8, 1))
    )
    assert {c.kernel for c in cases["triton"]} == {
        "triton-1pass", "triton-2pass", "triton-3pass", "triton-3pass-recompute", "triton-linear-chunked"
    }  # fmt: skip
    assert {100, 101, 200, 201, 300, 301} <= {
        e.case.heads for e in make_plan(Machine(sms=100), groups=["waves"]).groups[0].entries
    }
    assert [c.op == "idle" for c in cases["energy"]] == [True] + [False] * 12
    assert len(cases["energy"]) == 13


def test_groups_that_are_measured_only_where_they_are_named() -> None:
    plan = make_plan(groups=NAMED_ONLY, minutes=8)
    cases = {g.name: [e.case for e in g.entries] for g in plan.groups}
    assert set(cases) == set(NAMED_ONLY)
    assert {(c.op, c.m * 4 // 2**20) for c in cases["bandwidth"]} >= {("read", 1), ("copy", 4096), ("exp2", 24)}
    assert {c.head_dim for c in cases["serving"]} == {64, 72, 80, 128, 256}
    assert {c.batch for c in cases["serving"] if c.op == "generation_attention"} == {2**i for i in range(12)}
    assert all(c.heads % c.kv_heads == 0 for c in cases["serving"])
    assert set(cases["serving"]) == {e.case for e in make_plan(groups=["serving"], seed=5).groups[0].entries}
    assert all(c.causal == (c.op == "context_attention") for c in cases["serving"])
    assert len({c for g in cases.values() for c in g}) == sum(map(len, cases.values())) == plan.points
    assert sum(g.estimate_s for g in plan.groups) < plan.budget_s


def test_kernels_that_cannot_be_had_are_left_out_by_name() -> None:
    lacking = Machine(missing=(("vllm_flash_attn", "vllm is not installed"),))
    (group,) = make_plan(lacking, groups=["serving"]).groups
    assert {e.case.kernel for e in group.entries} == {"vllm_vit_flash_attn_fa3"}
    ((kernel, why, count),) = group.missing
    (whole,) = make_plan(groups=["serving"]).groups
    assert count + len(group.entries) == len(whole.entries)
    assert f"{kernel}: left out, {why}" in plan_text(make_plan(lacking, groups=["serving"]))
    assert plan_data(make_plan(lacking))["groups"][0]["missing"] == []


def test_a_plan_keeps_to_its_minutes() -> None:
    plan = make_plan(minutes=8)
    spent = itertools.accumulate((g.estimate_s for g in plan.groups), initial=START_S)
    assert all(until <= g.deadline_s for until, g in zip(itertools.islice(spent, 1, None), plan.groups, strict=True))
    ends = [g.deadline_s for g in plan.groups]
    assert ends == sorted(ends)
    assert ends[-1] < plan.budget_s == 480
    # what comes before a group's end: the start, then every group's share
    start = ends[0] - plan.groups[0].budget_s
    for end, shares in zip(ends, itertools.accumulate(g.budget_s for g in plan.groups), strict=True):
        assert end == pytest.approx(start + shares)
    half = make_plan(minutes=4)
    assert [g.deadline_s for g in half.groups] == pytest.approx([e / 2 for e in ends])


def test_the_order_is_drawn_from_the_seed() -> None:
    def order(seed: int) -> list[Case]:
        return [e.case for g in make_plan(seed=seed).groups for e in g.entries]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1), key=str) == sorted(order(2), key=str)
    entries = [e for g in make_plan().groups for e in g.entries]
    again = repeats(entries, 3)
    assert again == repeats(entries, 3) != repeats(entries, 4)
    drawn_from = [e for e in entries if e.case.group != "energy" and e.case.kernel != "flex"]
    assert len(again) == round(len(drawn_from) / 10)
    assert set(again) <= set(drawn_from)
    assert repeats([], 0) == []


def test_what_does_not_fit_the_memory_is_left_out_and_said() -> None:
    small = make_plan(Machine(memory_bytes=16 * 10**9), groups=["decode"]).groups[0]
    large = [c for c in small.too_large if c.kernel == "sdpa-flash"]
    # keys and values of 128 sequences of 64K tokens, 8 heads of 128, 2 bytes: 34 GB
    assert (128, 65536, 8) in {(c.batch, c.seq_kv, c.kv_heads) for c in large}
    assert (1, 65536, 32) not in {(c.batch, c.seq_kv, c.kv_heads) for c in large}
    assert len(small.entries) + len(small.too_large) == 3 * 4 * 3 * 3


@given(st.integers(1, 40), st.integers(0, 50))
def test_pairs_are_counted(length: int, window: int) -> None:
    seen = [(i, j) for i in range(length) for j in range(length) if j <= i and (not window or i - j < window)]
    assert pairs(length, length, True, window) == len(seen)


def test_work_of_shapes_counted_by_hand() -> None:
    one = Case("t", "sdpa-flash", "encoder_attention", "bf16", 2, 8, 2, 100, 300, 64)
    assert work(one).flop == 4 * 2 * 8 * 100 * 300 * 64
    assert work(one).exps == 2 * 8 * 100 * 300
    assert work(one).bytes == 2 * (2 * 2 * 8 * 100 * 64 + 2 * 2 * 2 * 300 * 64)
    stored = Case("t", "triton-3pass", "encoder_attention", "bf16", 2, 8, 2, 100, 300, 64)
    assert work(stored).bytes - work(one).bytes == 4 * 2 * (2 * 8 * 100 * 300)
    assert work(Case("t", "gemm", "gemm", m=3, n=5, k=7)).flop == 2 * 3 * 5 * 7
    assert work(Case("t", "gemm", "gemm", m=3, n=5, k=7)).bytes == 2 * (21 + 35 + 15)
    assert work(Case("t", "copy", "copy", m=10)).bytes == 40
    assert [work(Case("t", "x", op, "fp32", m=10)).bytes for op in ("read", "fill", "exp2")] == [40, 40, 80]
    one = Case("t", "x", "generation_attention", "bf16", 2, 8, 2, 1, 300, 64, window=100)
    assert work(one).flop == 4 * 2 * 8 * 100 * 64
    assert work(one).bytes == 2 * (2 * 2 * 8 * 64 + 2 * 2 * 2 * 100 * 64)
    # the parts of attention with scores in memory add up to its products and exponentials
    parts = [work(Case("t", "p", op, "bf16", 2, 8, 8, 300, 300, 64)) for op in ("bmm_qk", "softmax", "bmm_pv")]
    whole = work(Case("t", "sdpa-math", "encoder_attention", "bf16", 2, 8, 8, 300, 300, 64))
    assert parts[0].flop + parts[2].flop == whole.flop
    assert parts[1].exps == whole.exps


def test_plans_that_cannot_be() -> None:
    refused(fusemodel("measure", "--plan", "--groups", "mikro"), "", "unknown group 'mikro'", "did you mean 'micro'?")
    refused(fusemodel("measure", "--plan", "--dtype", "fp8"), "", "unknown dtype 'fp8'", "bf16")
    for minutes in ("0", "nan", "1e9", "inf"):
        refused(fusemodel("measure", "--plan", f"--minutes={minutes}"), "", f"--minutes {minutes}"[:11])


# Statistics


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50))
def test_statistics_are_numpys(samples: list[float]) -> None:
    found = summarise(samples)
    assert found.median_us == pytest.approx(float(np.median(samples)))
    assert (found.p10_us, found.p90_us) == pytest.approx(tuple(np.percentile(samples, [10, 90])))
    assert found.n == len(samples)


@pytest.mark.parametrize("samples", [[], [1.0, 0.0], [1.0, -1.0], [math.nan], [math.inf]])
def test_no_statistics_of_what_is_no_time(samples: list[float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        summarise(samples)


def test_drift_is_relative_to_the_first() -> None:
    found = drift([100.0, 200.0, 50.0], [101.0, 196.0, 50.0])
    assert found is not None
    assert (found.points, found.median_pct, found.median_abs_pct, found.max_abs_pct) == pytest.approx((3, 0, 1, 2))
    assert drift([], []) is None


# The table


def test_a_table_cut_off_anywhere_keeps_its_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = Table(path, ("a", "b"))
    for i in range(3):
        table.add({"a": i, "b": f'say "{i}", twice\nor not'})
    table.close()
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 4
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        table = Table(path, ("a", "b"))
        kept = max(0, sum(end <= cut for end in ends) - 1)
        assert [r["a"] for r in table.rows] == [str(i) for i in range(kept)]
        assert table.repaired == (cut not in ends and cut > 0)
        table.add({"a": 9, "b": 1.23456789})
        table.close()
        assert rows_of(path)[-1] == {"a": "9", "b": "1.23457"}
        assert path.read_bytes().startswith(whole[: ends[kept]])
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_other_tables_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, line, said in (
        ("gpu,kernal\nx,y\n", 1, "'kernal'"),
        ("no newline", 1, "'no newline'"),
        (",".join(COLUMNS) + "\n1,2\n", 2, "a row of 2 fields"),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            Table(path, COLUMNS)
        assert said in str(caught.value)
        assert str(caught.value).startswith(f"{path}:{line}:1: ")
        assert path.read_text() == text
    with pytest.raises(InputError, match="cannot be written"):
        Table(tmp_path / "no" / "t.csv", COLUMNS)


# The telemetry


def counter(rate_w: float, step_s: float) -> list[Reading]:
    """A device under a steady load, whose energy counter moves in steps."""
    return [Reading(t, 1500, 2600, rate_w, 50, 4, rate_w * (t // step_s) * step_s) for t in np.arange(0, 10, 0.025)]


def test_energy_between_two_moments() -> None:
    readings = counter(300.0, 0.1)
    assert energy_between_j(readings, 2.0, 7.0) == (pytest.approx(1500, rel=0.02), "energy-counter")
    assert energy_between_j(readings, 9.0, 11.0) is None
    assert energy_between_j([], 1.0, 2.0) is None
    assert energy_between_j([Reading(t) for t in range(10)], 1.0, 2.0) is None
    uncounted = [Reading(r.at_s, power_w=200 + 100 * (r.at_s >= 5)) for r in readings]
    assert energy_between_j(uncounted, 4.0, 6.0) == (pytest.approx(500, rel=0.02), "power-readings")
    assert energy_between_j(uncounted, 4.0, 4.1) is None


def test_condition_of_the_device() -> None:
    readings = [
        Reading(0, 100, 10, 1.0, 30, 0),
        Reading(1, 1980, 2600, 500.0, 60, 0x4 | 0x1),
        Reading(2, 1700, 2600, 690.0, 62, 0x20),
        Reading(3, 200, 10, 70.0, 40, 0x1),
    ]
    found = condition(readings, 0.5, 2.5)
    assert found["throttle"] == "power_cap+sw_thermal"
    assert (found["sm_clock_mhz"], found["sm_clock_min_mhz"], found["power_w"]) == (1840, 1700, 595)
    assert condition(readings, 2.9, 3.1)["throttle"] == "none"
    assert condition(readings, 1.01, 1.02)["sm_clock_mhz"] == 1980  # the nearest
    assert condition([Reading(0)], 0, 1)["throttle"] is None
    assert condition([], 0, 1) == {}


def test_telemetry_reads_until_it_is_closed() -> None:
    telemetry = Telemetry(lambda: Reading(time.monotonic(), 1000), period_s=0.001)
    begin = time.monotonic()
    while not telemetry.since(begin):
        time.sleep(0.001)
    telemetry.close()
    count = len(telemetry.since(begin))
    time.sleep(0.01)
    assert len(telemetry.since(begin)) == count


def test_energy_of_a_launch_above_rest() -> None:
    case = Case("energy", "gemm", "gemm", m=1000, n=1000, k=1000)
    reply = {"l2": "warm", "calls": 1000, "begin_s": 2.0, "end_s": 7.0, "config": "", "rel_error": 0.0}
    row = measured(case, reply, counter(300.0, 0.1), idle_w=100.0)
    assert row["latency_us"] == pytest.approx(5000)
    assert row["energy_j"] == pytest.approx(1.5, rel=0.02)
    assert row["energy_above_idle_j"] == pytest.approx(1.0, rel=0.03)
    assert row["tflops"] == pytest.approx(2e9 / 5e-3 / 1e12)
    without = measured(case, reply, [], idle_w=None)
    assert "energy_j" not in without


# Timing


class Device:
    """Stands in for a device's module: keeps its own clock, and notes what happens."""

    def __init__(self, capturable: bool = True) -> None:
        self.capturable, self.now_ms, self.log = capturable, 0.0, []

    class _Context:
        def __init__(self, fails: bool = False) -> None:
            self.fails = fails

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            if self.fails:
                raise RuntimeError("operation not permitted when stream is capturing")

    def Stream(self) -> Device:
        return self

    def wait_stream(self, _: object) -> None: ...

    def current_stream(self) -> Device:
        return self

    def stream(self, _: object) -> Device._Context:
        return Device._Context()

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def CUDAGraph(self) -> Device:
        return self

    def replay(self) -> None:
        self.log.append("replay")
        self.now_ms += 0.5

    def graph(self, _: object) -> Device._Context:
        return Device._Context(fails=not self.capturable)

    def Event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)

    def fill_(self, value: int) -> None:
        assert 0 < value < 128
        self.log.append("flush")
        self.now_ms += 100.0


class Event:
    def __init__(self, device: Device) -> None:
        self.device, self.at_ms = device, math.nan

    def record(self) -> None:
        self.at_ms = self.device.now_ms

    def elapsed_time(self, other: Event) -> float:
        return other.at_ms - self.at_ms


def test_graph_replays_are_timed_without_the_flush() -> None:
    device = Device()
    timer = GraphTimer(device, device)
    replay, how = timer.capture(lambda: None, 7)
    assert how == "graph"
    assert timer.time_us(replay, 3, flush=True) == [500.0] * 3
    assert device.log[-7:] == ["flush", "replay"] * 3 + ["synchronize"]
    assert "flush" not in str(timer.time_us(replay, 2, flush=False)) + str(device.log[-3:])


def test_what_cannot_be_captured_is_launched_on_the_stream() -> None:
    launched = []
    replay, how = GraphTimer(Device(capturable=False), Device()).capture(lambda: launched.append(1), 5)
    assert how == "stream"
    before = len(launched)
    replay()
    assert len(launched) - before == 5


def test_samples_are_of_one_launch() -> None:
    found = sample(lambda: time.sleep(2e-4), HostTimer(), cold=False, timed_ms=20)
    assert 200 <= np.median(found.us) < 1e5
    assert len(found.us) >= 9
    assert found.end_s > found.begin_s
    assert sample(lambda: None, HostTimer(), cold=True, timed_ms=5).launches == 1


def test_samples_are_as_many_as_fill_the_time() -> None:
    device = Device()  # whose replays take half a millisecond, and whose flushes do not count
    found = sample(lambda: None, GraphTimer(device, device), cold=False)
    assert (len(found.us), found.launches, found.how, set(found.us)) == (200, 1, "graph", {500.0})
    cold = sample(lambda: None, GraphTimer(device, device), cold=True)
    assert (len(cold.us), set(cold.us)) == (167, {500.0})  # 100 ms at 0.5 and 0.1 for the flush


def test_a_brief_timing_is_of_few_replays_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr("fusemodel.validate.measure.timing.time.sleep", rests.append)
    device = Device()
    found = sample(lambda: None, GraphTimer(device, device), cold=False, brief=True)
    assert (found.us, found.launches, found.how) == ((500.0,) * 6, 1, "6 graphs")  # 20 ms hold six rows of 3 ms
    assert device.log.count("replay") == 3 + 6 * 6
    assert rests == [0.1]
    assert len(sample(lambda: None, GraphTimer(device, device), cold=True, brief=True).us) == 167


def test_a_table_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fusemodel.validate.measure.store.os.fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        measure(Settings(tmp_path / "m.csv", minutes=5, groups=("micro",)), command=fake())


# A run


def test_a_run_writes_every_point_and_a_second_nothing(tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    settings = Settings(out, minutes=5, groups=("micro", "waves", "energy"), seed=4)
    seen: list[tuple[str, int, int]] = []
    report = measure(settings, command=fake(), progress=lambda g, i, n, _: seen.append((g, i, n)))
    rows = rows_of(out)
    plan = make_plan(Machine(sms=100, assumed=False), groups=settings.groups)
    assert report.total.measured == len(rows) == plan.points + report.groups["again"].measured
    assert report.groups["again"].measured >= 4
    assert (report.total.failed, report.total.left, report.total.there) == (0, 0, 0)
    assert seen[-1][1] == seen[-1][2]
    assert tuple(rows[0]) == COLUMNS
    assert set(READ) <= set(COLUMNS)
    by_group = Counter(r["group"] for r in rows if r["repeat"] == "0")
    assert by_group == {g.name: sum(len(e.modes) for e in g.entries) for g in plan.groups}
    waves = [r for r in rows if r["group"] == "waves" and r["repeat"] == "0"]
    assert {r["latency_us"] for r in waves} == {"11.128"}  # 10 + 0.128, and the median is one above the least
    first = rows[0]
    assert (first["gpu"], first["torch"], first["cudnn"], first["sms"], first["l2_mb"]) == (
        "Imagined 9000", "1.2.3", "91000", "100", "50"
    )  # fmt: skip
    assert (first["n"], first["launches"], first["how"]) in {("5", "3", "graph")}
    assert first["date"].endswith("Z")
    assert [int(r["order"]) for r in rows] == list(range(1, len(rows) + 1))
    assert report.drift is not None
    assert report.drift.max_abs_pct == 0
    assert not failures_path(out).read_text().count("\n") > 1
    assert "working on" in log_path(out).read_text()

    before = out.read_bytes()
    second = measure(settings, command=fake())
    assert out.read_bytes() == before
    assert (second.total.measured, second.total.there) == (0, len(rows))


def test_a_broken_last_line_is_measured_again(tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    settings = Settings(out, minutes=5, groups=("waves",))
    measure(settings, command=fake())
    whole = [{k: v for k, v in r.items() if k in (*READ, "l2", "repeat")} for r in rows_of(out)]
    out.write_bytes(out.read_bytes()[:-30])
    report = measure(settings, command=fake())
    assert report.repaired
    assert report.total.measured == 1
    assert [{k: v for k, v in r.items() if k in whole[0]} for r in rows_of(out)] == whole


@pytest.mark.parametrize(
    ("way", "error", "said"),
    [("crash:copy", "crashed", "signal 6"), ("exit:copy", "crashed", "exit code 7"),
     ("fail:copy", "unsupported", "not here, not now"), ("lose:copy", "RuntimeError", "illegal memory access was met")],
)  # fmt: skip
def test_a_kernel_that_fails_is_noted_and_the_run_goes_on(tmp_path: Path, way: str, error: str, said: str) -> None:
    out = tmp_path / "m.csv"
    settings = Settings(out, minutes=5, groups=("micro",))
    report = measure(settings, command=fake(way))
    failures = rows_of(failures_path(out))
    assert [f["kernel"] for f in failures] == ["copy"] * 6
    assert {f["error"] for f in failures} == {error}
    assert {f["l2"] for f in failures} == {"warm+cold"}
    assert all(said in f["message"] for f in failures)
    assert report.total.failed == 12
    assert report.lost_workers == (0 if error == "unsupported" else 6)
    assert report.groups["micro"].measured == report.groups["micro"].planned - 12
    assert not [r for r in rows_of(out) if r["kernel"] == "copy"]

    again = measure(settings, command=fake())
    assert again.total.measured == 0  # what failed is left alone
    again = measure(Settings(out, minutes=5, groups=("micro",), retry=True), command=fake())
    assert again.groups["micro"].measured == 12


def test_a_kernel_that_hangs_loses_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusemodel.validate.measure.run.MARGIN_S", 3.0)
    monkeypatch.setattr("fusemodel.validate.measure.run.SLOWER", 0.0)
    out = tmp_path / "m.csv"
    report = measure(Settings(out, minutes=5, groups=("micro",)), command=fake("hang:launch"))
    assert [(f["kernel"], f["error"]) for f in rows_of(failures_path(out))] == [("launch", "timeout")]
    assert report.groups["micro"].measured == report.groups["micro"].planned - 2


def test_a_run_that_loses_every_worker_ends(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers were lost"):
        measure(Settings(tmp_path / "m.csv", minutes=5, groups=("waves",)), command=fake("exit:triton-1pass"))


def test_groups_end_at_their_deadlines_and_the_rest_is_left(tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    settings = Settings(out, minutes=0.05, groups=("micro", "waves"))
    first = measure(settings, command=fake("slow:0.2"))
    assert first.seconds < 0.05 * 60 + 20
    assert first.total.left > 0
    assert first.total.measured + first.total.left == first.total.planned
    second = measure(Settings(out, minutes=5, groups=("micro", "waves")), command=fake())
    assert second.total.left == 0
    assert second.groups["micro"].measured == first.groups["micro"].left
    assert len(rows_of(out)) == second.total.planned


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_rows_and_goes_on(tmp_path: Path, number: int) -> None:
    out = tmp_path / "m.csv"
    code = (
        "import sys; from pathlib import Path; from fusemodel.validate.measure import Settings, measure\n"
        f"try: measure(Settings(Path({str(out)!r}), 5, ('micro',)), command={fake('slow:0.1')!r})\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not out.exists() or out.read_bytes().count(b"\n") < 4:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    kept = rows_of(out)
    assert 3 <= len(kept) < 34
    report = measure(Settings(out, 5, ("micro",)), command=fake())
    assert report.total.there == len(kept)
    assert rows_of(out)[: len(kept)] == kept
    assert len(rows_of(out)) == report.total.planned


def test_drift_of_the_rows_of_one_gpu() -> None:
    def row(gpu: str, k: int, repeat: int, us: float) -> dict[str, object]:
        point = dict.fromkeys(COLUMNS, "") | {"K": k, "l2": "warm"}
        return point | {"gpu": gpu, "repeat": repeat, "latency_us": us}

    rows = [row("a", 1, 0, 10), row("a", 1, 1, 11), row("a", 2, 0, 10), row("b", 1, 0, 10), row("b", 1, 1, 20)]
    found = drift_of(rows, "a")
    assert found is not None
    assert (found.points, found.median_pct) == pytest.approx((1, 10))


# The command line


def test_without_a_gpu_one_line_and_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "m.csv"
    ran = fusemodel("measure", "--out", out)
    refused(ran, "", "there is no GPU to measure: PyTorch ", "expected an NVIDIA GPU")
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_table_in_no_folder_is_refused(tmp_path: Path) -> None:
    refused(fusemodel("measure", "--out", tmp_path / "no" / "m.csv"), "", "cannot be written", "there is no folder")


def test_a_worker_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('libdevice is broken')")
    with pytest.raises(InputError, match=r"no GPU can be measured: .*exit code 1 \(libdevice is broken\)"):
        measure(Settings(tmp_path / "m.csv"), command=command)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="there is no GPU to measure: none at all"):
        measure(Settings(tmp_path / "m.csv"), command=fake("without:none at all"))


def test_the_plan_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = json.loads(fusemodel("measure", "--plan", "--json", "--groups", "micro,flex", "--minutes", "2").out)
    assert [g["group"] for g in found["groups"]] == ["micro", "flex"]
    assert found["budget_s"] == 120
    assert found["points"] == sum(len(c["l2"]) for g in found["groups"] for c in g["cases"])
    assert found["machine"]["assumed"]
    text = fusemodel("measure", "--dry-run").out
    assert "about" in text.splitlines()[0]
    assert "(assumed)" in text.splitlines()[0]
    assert "flex context_attention b1 h16 s16384 d128 causal window 1024  [warm, cold]" in text


def test_a_run_on_both_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake = partial(measure, command=fake("fail:copy"))
    monkeypatch.setattr("fusemodel.validate.measure.measure", with_fake)
    out = tmp_path / "m.csv"
    ran = fusemodel("measure", "--out", out, "--groups", "micro,energy", "--json")
    found = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (found["out"], found["gpu"]) == (str(out), "Imagined 9000")
    assert set(found["groups"]) == {"micro", "energy", "again"}
    assert found["total"]["failed"] == 6 * 2 + 2
    assert found["total"]["measured"] == len(rows_of(out))
    assert found["drift"]["max_abs_pct"] == 0
    assert found["energy"] is None  # there was no telemetry
    text = fusemodel("measure", "--out", out, "--groups", "micro,energy").out
    assert f"failures are in {failures_path(out)}" not in text  # they are of an earlier run
    assert "Imagined 9000" in text

    monkeypatch.setattr("fusemodel.validate.measure.__main__.measure", with_fake)
    report = tmp_path / "report.json"
    assert bare_main(["--out", str(out), "--groups", "micro,energy", "--report", str(report)]) == 0
    assert json.loads(report.read_text())["total"]["there"] == found["total"]["planned"]
    assert bare_main(["--out", str(tmp_path)]) == 2


BARE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from fusemodel.validate.measure.__main__ import main
sys.exit(main({arguments!r}))
"""
ABSENT = ["numpy", "lark", "matplotlib", "networkx", "opt_einsum", "pint", "pydantic", "yaml", "rich", "sympy", "typer",
          "torch", "triton", "pynvml", "numba", "pandas"]  # fmt: skip


def test_a_bare_checkout_plans_and_says_what_is_missing() -> None:
    def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = BARE.format(absent=ABSENT, arguments=list(arguments))
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)

    planned = bare("--plan", "--json")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["points"] == make_plan().points
    wrong = bare("--plan", "--groups", "mikro")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_it_runs_by_its_path(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "fusemodel" / "validate" / "measure"), "--plan", "--groups", "micro"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "exp2-loop" in ran.stdout
