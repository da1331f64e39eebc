"""Sweeps: every point mapped optimally, resumed after whatever ended them, by processes and by a cluster."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from commandline import fusemodel, refused
from hypothesis import given
from hypothesis import strategies as st
from test_store import full

from fusemodel import evaluate
from fusemodel.arch import parse_architecture
from fusemodel.cascade import extents_of, load_cascade, parse_cascade
from fusemodel.explore import best_mapping
from fusemodel.explore import sweep as module
from fusemodel.explore.designs import designs, front, nondominated
from fusemodel.explore.problem import canonical, problem, search, solve, tasks_of, text_of
from fusemodel.explore.space import Space, load_space
from fusemodel.explore.store import open_store
from fusemodel.explore.sweep import Sweep, sweep
from fusemodel.report.explore import sweep_data

CASCADE = """
name: rows
ranks: {b: 2, p: 8, m: 6}
batch: [b]
inputs: {X: [p, m]}
outputs: [Z]
einsums: |
  Y[p] = sum[m](exp(X[p, m]))
  Z[p] = exp(Y[p])
"""
SOFTMAX = """
ranks: {b: 2, p: 8, m: 6}
batch: [b]
inputs: {X: [p, m]}
outputs: [A]
einsums: |
  G[p] = max[m](X[p, m])
  N[p, m] = exp(X[p, m] - G[p])
  D[p] = sum[m](N[p, m])
  A[p, m] = N[p, m] / D[p]
"""
ARCH = """
name: small
clock: 1 GHz
word: 16 bit
levels:
  dram: {kind: dram, bandwidth: 1 GB/s, access: 16 bit, read: 100 pJ, write: 100 pJ}
  buffer: {size: 64 B, access: 16 bit, read: 1 pJ, write: 1 pJ, area: 100 um^2}
units:
  lanes:
    shape: [2]
    ops: {mac: {energy: 1 pJ, area: 10 um^2}, max: , exp: {as: 6 mac}, divide: {cycles: 2, energy: 3 pJ}}
    reduce: [x]
"""
SPACE = """
name: small
arch: small-arch.yaml
vary: {lanes: {from: 1, to: 8, times: 2}, buffer: [8, 32, 128]}
set:
  units.lanes.shape: [lanes]
  levels.buffer.size: buffer B
  levels.buffer.area: base * buffer / 64
  levels.buffer.read: base * sqrt(buffer / 64)
cascades: [rows.yaml]
extents: {p: 2 * lanes}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.yaml").write_text(CASCADE)
    (tmp_path / "small-arch.yaml").write_text(ARCH)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def swept(folder: Path, space: Space | None = None, **options) -> Sweep:
    with open_store(folder / "s.sqlite") as store:
        return sweep(space or load_space(str(folder / "space.yaml")), store, **options)


def numbers(found: Sweep) -> list[tuple[float, ...]]:
    return [(r.result["latency_s"], r.result["energy_j"], r.result["dram_bytes"]) for r in found.done if r.result]


def test_every_point_is_mapped_optimally_and_its_mapping_replays(folder: Path) -> None:
    found = swept(folder)
    assert (len(found.rows), len(found.done), found.ended) == (12, 12, None)
    cascade = load_cascade(str(folder / "rows.yaml"))
    for row in found.rows[::3]:
        extents = extents_of(cascade, {"p": 2 * row.machine.values["lanes"]})
        direct = best_mapping(cascade, row.machine.arch, extents)
        replayed = evaluate(direct.design, sets=extents)
        assert row.result is not None
        assert row.result["latency_s"] == replayed.latency_s
        assert row.result["energy_j"] == replayed.energy_j
    chosen = sweep_data(found)["best"]
    (folder / "point.yaml").write_text(yaml.safe_dump(chosen["architecture"], sort_keys=False))
    (folder / "mapping.yaml").write_text(
        yaml.safe_dump({"cascade": "rows.yaml", "arch": "point.yaml", **chosen["mapping"]})
    )
    again = evaluate(str(folder / "mapping.yaml"), sets={"p": 2 * chosen["values"]["lanes"]})
    assert again.latency_s == chosen["latency_s"]
    assert again.energy_j == pytest.approx(chosen["energy_j"], rel=1e-12)
    assert again.area_mm2 == pytest.approx(chosen["area_mm2"], rel=1e-12)


def test_a_second_run_maps_nothing(folder: Path) -> None:
    first = swept(folder)
    with patch.object(module, "solve", side_effect=AssertionError):
        second = swept(folder)
    assert numbers(second) == numbers(first)
    assert all(r.kept for r in second.rows)
    assert not any(r.kept for r in first.rows)


def test_points_that_differ_only_in_area_are_one_problem(folder: Path) -> None:
    text = SPACE.replace("levels.buffer.size: buffer B", "levels.buffer.size: 64 B").replace(
        "base * sqrt(buffer / 64)", "base"
    )
    (folder / "space.yaml").write_text(text)
    with patch.object(module, "solve", side_effect=solve) as solved:
        found = swept(folder)
    assert (len(found.done), solved.call_count) == (12, 4)
    assert len({r.machine.area_mm2 for r in found.rows}) == 12


def test_an_interruption_keeps_what_is_done_and_the_next_run_goes_on(folder: Path) -> None:
    whole = swept(folder / "..", load_space(str(folder / "space.yaml")))

    def interrupt(progress, rows) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    part = swept(folder, tell=interrupt)
    assert (len(part.done), part.ended, part.error) == (5, "interrupted", None)
    told = []
    rest = swept(folder, tell=lambda progress, rows: told.append((progress.kept, progress.new)))
    assert told[-1] == (5, 7)
    assert numbers(rest) == numbers(whole)


def test_a_search_that_a_limit_ended_is_no_answer_to_a_longer_one(folder: Path) -> None:
    def limited(task):
        return [(k, r | {"proven": False, "limit_s": task.problems[0].seconds}) for k, r in solve(task)]

    with patch.object(module, "solve", side_effect=limited) as solved:
        for seconds, calls in (2.0, 12), (1.0, 12), (2.0, 12), (3.0, 24), (None, 36), (9.0, 36), (None, 36):
            swept(folder, seconds=seconds)
            assert solved.call_count == calls


def test_a_point_without_a_mapping_is_told(folder: Path) -> None:
    arch = ARCH.replace("exp: {as: 6 mac}, ", "")
    (folder / "small-arch.yaml").write_text(arch)
    found = swept(folder)
    assert found.done == []
    assert "no unit of 'small' can compute 'Y'" in found.rows[0].result["error"]
    ran = fusemodel("explore", "--arch-space", folder / "space.yaml", "--store", folder / "s.sqlite", "-j", "1")
    assert ran.code == 0
    assert "No mapping at 12; the first" in ran.out


def test_problems_that_differ_in_batch_ranks_are_mapped_once_and_exactly(folder: Path) -> None:
    cascade, arch = parse_cascade(SOFTMAX), load_space(str(folder / "space.yaml")).machines[4].arch
    wanted = [extents_of(cascade, {"b": b, "m": m}) for b, m in [(1, 6), (2, 6), (4, 6), (7, 6), (4, 5)]]
    problems = [problem(text_of(cascade), arch, canonical(arch), e, ("latency",)) for e in wanted]
    tasks = tasks_of(problems)
    assert sorted(len(t.problems) for t in tasks) == [1, 1, 3]
    found = {k: r for t in tasks for k, r in solve(t)}
    for extents, p in zip(wanted, problems, strict=True):
        direct = search(cascade, arch, extents, ("latency",))
        replayed = evaluate(direct.design, sets=extents)
        assert found[p.key]["cycles"] == pytest.approx(replayed.cycles, rel=1e-12)
        assert found[p.key]["energy_j"] == pytest.approx(replayed.energy_j, rel=1e-12)
        assert found[p.key]["dram_bytes"] == replayed.dram_bytes
        assert found[p.key]["bound"] == pytest.approx(direct.bound, rel=1e-9)
    assert sum(r["evaluated"] > 0 for r in found.values()) == 3


def test_a_mapping_is_taken_from_a_better_machine_only_where_it_is_the_best(folder: Path) -> None:
    text = SPACE.replace("  levels.buffer.read: base * sqrt(buffer / 64)\n", "  levels.dram.bandwidth: rate GB/s\n")
    (folder / "space.yaml").write_text(
        text.replace("buffer: [8, 32, 128]", "buffer: [8, 16, 32, 64, 128], rate: [0.01, 1, 4, 9]")
    )
    found = swept(folder)
    searched = [r for r in found.done if r.result and r.result["evaluated"]]
    assert 0 < len(searched) < len(found.done) == 80
    cascade = load_cascade(str(folder / "rows.yaml"))
    for row in found.rows[::3]:
        extents = extents_of(cascade, {"p": 2 * row.machine.values["lanes"]})
        direct = search(cascade, row.machine.arch, extents)
        replayed = evaluate(direct.design, sets=extents)
        assert row.result is not None
        assert row.result["cycles"] == pytest.approx(replayed.cycles, rel=1e-12)
        assert row.result["energy_j"] == pytest.approx(replayed.energy_j, rel=1e-12)
        assert row.result["dram_bytes"] == replayed.dram_bytes


def test_machines_with_other_memories_share_counts_and_each_has_its_own_best() -> None:
    """Twelve random memories around the same units, their values in few registers: as each machine by itself."""
    draw = np.random.default_rng(5)
    cascade = parse_cascade(SOFTMAX)
    small = parse_architecture(ARCH.replace("ops: {mac", "registers: {words: 9}\n    ops: {mac"))
    extents = extents_of(cascade)
    machines = []
    for _ in range(12):
        read = float(draw.choice([1.0, 2.0, 5.0]))
        buffer = replace(small.levels["buffer"], size_bytes=float(draw.choice([8, 32, 64, 256])), read_pj=read)
        buffer = replace(buffer, write_pj=read * float(draw.choice([1.0, 1.5])))
        dram = replace(small.levels["dram"], bandwidth_bytes_per_s=float(draw.choice([1e9, 1e10])))
        machines.append(replace(small, levels={"dram": dram, "buffer": buffer}))
    problems = [problem(text_of(cascade), m, canonical(m), extents, ("latency",)) for m in machines]
    tasks = tasks_of(problems)
    assert len({t.family for t in tasks}) == 1
    found = {k: r for t in tasks for k, r in solve(t)}
    for machine, p in zip(machines, problems, strict=True):
        replayed = evaluate(search(cascade, machine, extents, ("latency",)).design, sets=extents)
        assert found[p.key]["proven"]
        assert found[p.key]["cycles"] == pytest.approx(replayed.cycles, rel=1e-12)
        assert found[p.key]["dram_bytes"] == replayed.dram_bytes
        assert found[p.key]["energy_j"] == pytest.approx(replayed.energy_j, rel=1e-9)


def test_batch_ranks_that_equations_mention_are_not_shared(folder: Path) -> None:
    (folder / "rows.yaml").write_text(CASCADE.replace("exp(Y[p])", "exp(Y[p] / B)"))
    cascade = load_cascade(str(folder / "rows.yaml"))
    arch = load_space(str(folder / "space.yaml")).machines[0].arch
    both = [
        problem(text_of(cascade), arch, canonical(arch), extents_of(cascade, {"b": n}), ("latency",)) for n in (2, 4)
    ]
    assert len(tasks_of(both)) == 2


# Processes -----------------------------------------------------------------------------------------------------------


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "fusemodel.cli", "explore", "--arch-space", str(folder / "space.yaml"),
            "--store", str(folder / "s.sqlite"), "--json", *more]  # fmt: skip


def many(folder: Path) -> None:
    """A space that takes some seconds."""
    (folder / "space.yaml").write_text(SPACE.replace("buffer: [8, 32, 128]", "buffer: {from: 8, to: 160, step: 8}"))


def made(folder: Path) -> dict[str, float]:
    """When each result was kept; none if the store is not there yet."""
    try:
        db = sqlite3.connect(f"file:{folder / 's.sqlite'}?mode=ro", uri=True, timeout=10)
        try:
            return dict(db.execute("SELECT key, made FROM results"))
        finally:
            db.close()
    except sqlite3.OperationalError:
        return {}


def until(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 100
    while len(made(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    own = [int(x) for x in tasks.read_text().split()] if tasks.exists() else []
    return own + [y for x in own for y in children(x)]


def test_a_run_that_is_killed_loses_nothing_and_leaves_no_workers(folder: Path) -> None:
    many(folder)
    process = subprocess.Popen(command(folder, "--jobs", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(folder, 6, process)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    before = made(folder)
    assert 6 <= len(before) < 80
    again = subprocess.run(command(folder, "--jobs", "1"), capture_output=True, text=True, check=True)
    found = json.loads(again.stdout)
    assert (found["done"], found["kept"], found["rows"]) == (80, len(before), 80)
    assert {k: made(folder)[k] for k in before} == before
    assert [w for w in workers if Path(f"/proc/{w}/cmdline").exists() and Path(f"/proc/{w}/cmdline").read_bytes()] == []


def test_two_runs_at_once_share_the_work(folder: Path) -> None:
    many(folder)
    runs = [subprocess.Popen(command(folder, "--jobs", "1"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [json.loads(r.communicate()[0]) for r in runs]
    assert [f["done"] for f in found] == [80, 80]
    assert sum(f["rows"] - f["kept"] for f in found) == 80
    assert found[0]["best"]["latency_s"] == found[1]["best"]["latency_s"]
    with sqlite3.connect(folder / "s.sqlite") as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_ctrl_c_prints_what_was_found(folder: Path) -> None:
    many(folder)
    process = subprocess.Popen(
        command(folder, "--jobs", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(folder, 4, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    found = json.loads(out)
    assert (process.returncode, found["ended"], err) == (130, "interrupted", "interrupted\n")
    assert 4 <= found["done"] == len(made(folder)) < 80
    assert found["best"]["latency_s"] > 0


def test_a_local_worker_that_dies_is_replaced(folder: Path) -> None:
    many(folder)
    killed = []

    def kill(progress, rows) -> None:
        if progress.new in (3, 30):
            victim = multiprocessing.active_children()[0]
            killed.append(victim.pid)
            victim.kill()

    found = swept(folder, jobs=2, tell=kill)
    assert len(killed) == 2
    assert (len(found.done), found.ended) == (80, None)
    assert numbers(found) == numbers(swept(folder / "..", load_space(str(folder / "space.yaml"))))


def test_a_cluster_that_loses_a_worker_finds_the_same(folder: Path) -> None:
    distributed = pytest.importorskip("distributed")
    many(folder)
    done, killed = Counter(), []
    cluster = distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        workers = client.run(os.getpid)

        def kill(progress, rows) -> None:
            done.update(rows=len(rows))
            if done["rows"] >= 10 and not killed:
                killed.append(next(iter(workers.values())))
                os.kill(killed[0], signal.SIGKILL)

        found = swept(folder, scheduler=cluster.scheduler_address, tell=kill)
    assert len(killed) == 1
    assert (len(found.done), found.ended, done["rows"]) == (80, None, 80)
    assert numbers(found) == numbers(swept(folder / "..", load_space(str(folder / "space.yaml"))))


def test_a_scheduler_that_does_not_answer(folder: Path) -> None:
    pytest.importorskip("distributed")
    with patch("fusemodel.explore.workers._CONNECT_S", 1):
        ran = fusemodel("explore", "--arch-space", folder / "space.yaml", "--store", folder / "s.sqlite",
                        "--scheduler", "tcp://127.0.0.1:1")  # fmt: skip
    refused(ran, "", "no Dask scheduler answers at 'tcp://127.0.0.1:1'", "expected an address such as")


# Command line --------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_ends_with_what_was_found(folder: Path) -> None:
    options = ("explore", "--arch-space", folder / "space.yaml", "--store", folder / "s.sqlite", "-j", "1", "--json")
    with full(7):
        ran = fusemodel(*options)
    found = json.loads(ran.out)
    assert ran.code == 2
    assert ran.err == (
        f"error: {folder / 's.sqlite'}: the disk is full; expected room on the disk; what it holds stays, and the same "
        "command goes on from there\n"
    )
    kept = len(made(folder))
    assert 0 < kept == found["done"] - 1 < 11  # the one that could not be kept is told all the same
    again = json.loads(fusemodel(*options).out)
    assert (again["done"], again["kept"]) == (12, kept)


def test_a_store_that_is_none(folder: Path) -> None:
    (folder / "s.sqlite").write_text("not a store\n" * 100)
    ran = fusemodel("explore", "--arch-space", folder / "space.yaml", "--store", folder / "s.sqlite", "-j", "1")
    refused(ran, str(folder / "s.sqlite"), "this is no store of results", "another file")


def test_tables_files_and_pictures(folder: Path) -> None:
    out, plot, whole = folder / "rows.csv", folder / "area.svg", folder / "all.json"
    options = ("explore", "--arch-space", folder / "space.yaml", "--store", folder / "s.sqlite", "-j", "1")
    ran = fusemodel(*options, "--out", out, "--plot", plot)
    assert ran.code == 0, ran.err
    assert "12 of 12 mapped" in ran.out
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 12
    assert {"lanes", "buffer", "cascade", "area_mm2", "latency_s", "energy_j", "bound_by"} <= rows[0].keys()
    assert "not dominated" in plot.read_text()
    assert fusemodel(*options, "--out", whole).code == 0
    found = json.loads(whole.read_text())
    assert len(found["designs"]) == 12
    areas = [d["area_mm2"] for d in found["front"]]
    assert areas == sorted(areas)
    refused(fusemodel(*options, "--out", folder / "rows.txt"), "", "unknown format of a table '.txt'")
    refused(fusemodel(*options, "-w", "nobody"), "", "unknown workload 'nobody'")
    refused(fusemodel(*options, "--objective", "speed"), "", "unknown objective 'speed'")
    refused(fusemodel(*options[:3], "--scheduler", "x", "-j", "2"), "", "a cluster has its own processes")
    refused(fusemodel("explore", "attention-1pass", *options[1:3]), "", "a space says itself")


def test_workloads_and_lengths_given_replace_those_of_the_file() -> None:
    # the command takes them as `compare` does; only what is asked for is mapped
    space = load_space("area-latency")
    assert (space.workloads, space.seqs) == (("bert",), (256 * 1024,))


def test_search_finds_a_mapping_that_eval_replays(folder: Path) -> None:
    out = folder / "best.yaml"
    options = (folder / "rows.yaml", folder / "small-arch.yaml", "--set", "p=16")
    found = json.loads(fusemodel("explore", *options, "--json", "--out", out).out)
    assert {"best", "front", "evaluated", "space", "seconds", "proven", "gap", "bound"} <= found.keys()
    replayed = json.loads(fusemodel("eval", out, "--set", "p=16", "--json").out)
    for name in ("latency_s", "energy_j", "dram_bytes", "cycles", "traffic_bytes"):
        assert replayed[name] == found["best"][name]
    (folder / "again.yaml").write_text(json.dumps(found["best"]["mapping"]))
    assert (
        json.loads(fusemodel("eval", folder / "again.yaml", "--set", "p=16", "--json").out)["cycles"]
        == replayed["cycles"]
    )
    assert found["bound"] <= found["best"]["cycles"]
    text = fusemodel("explore", *options).out
    assert "Best by latency" in text


def test_what_a_search_cannot_use(folder: Path) -> None:
    one = (folder / "rows.yaml", folder / "small-arch.yaml")
    refused(fusemodel("explore", one[0]), "", "what is to be mapped onto what?")
    refused(fusemodel("explore", *one, "-w", "bert,t5"), "", "a search is for one workload and length")
    refused(fusemodel("explore", *one, "--jobs", "2"), "", "--jobs is for a space")
    refused(fusemodel("explore", *one, "--objective", "latency,pwoer"), "", "unknown objective 'pwoer'")
    refused(fusemodel("explore", *one, "--set", "q=3"), "", "unknown rank or tile 'q'")


# Fronts --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=1, max_size=25))
def test_the_front_is_what_nothing_beats(rows: list[tuple[float, ...]]) -> None:
    kept = nondominated(rows)

    def beats(a, b) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = {r for r in rows if not any(beats(other, r) for other in rows)}
    assert {rows[i] for i in kept} == expected
    assert len(kept) == len(expected)  # one of equals
    assert [rows[i] for i in kept] == sorted(expected)


def test_designs_over_several_workloads_are_geometric_means(folder: Path) -> None:
    found = swept(folder)
    for d in designs(found):
        assert d.numbers["latency_s"] == d.results[0]["latency_s"]
    line = front(designs(found), ["latency"])
    assert [d.numbers["latency_s"] for d in line] == sorted((d.numbers["latency_s"] for d in line), reverse=True)
    (folder / "load.yaml").write_text("name: load\nranks: {m: 12}\n")
    text = SPACE + f"workloads: [{folder / 'load.yaml'}, {folder / 'other.yaml'}]\n"
    (folder / "other.yaml").write_text("name: other\nranks: {m: 24}\n")
    (folder / "space.yaml").write_text(text)
    for d in designs(swept(folder)):
        a, b = (r["energy_j"] for r in d.results)
        assert d.numbers["energy_j"] == pytest.approx((a * b) ** 0.5, rel=1e-12)
