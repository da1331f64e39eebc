"""The tile-level simulator: against its plain engine, against the closed form, and for the reasons it gives."""

from __future__ import annotations

import csv
import json
import random
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import yaml
from commandline import fusemodel
from hypothesis import HealthCheck, given, settings
from test_counts import design_of, designs

from fusemodel.arch import parse_architecture
from fusemodel.cascade.load import parse_size
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError, Where
from fusemodel.mapping import load_design, parse_design
from fusemodel.mapping.spec import Design
from fusemodel.model import evaluate
from fusemodel.model.evaluate import choices
from fusemodel.model.tiles import Chosen
from fusemodel.simulate import simulate
from fusemodel.simulate.array import product, reduction
from fusemodel.simulate.engine import pace, run
from fusemodel.simulate.lower import lower
from fusemodel.simulate.machine import Counts, Deadlock, Machine, machine_of
from fusemodel.simulate.path import critical_path
from fusemodel.simulate.run import deadlock_error, machines
from fusemodel.simulate.stepwise import UNDER_WAY, Stepwise
from fusemodel.simulate.tasks import REASONS
from fusemodel.simulate.window import record, window_of


def outcome(machine: Machine, **options: Any) -> Counts | tuple[Any, ...]:
    """What a run of the compiled engine counts, or how it gets stuck."""
    try:
        return run(machine, **options)
    except Deadlock as stuck:
        return stuck.ticks, stuck.blocked


def plainly(machine: Machine) -> Counts | tuple[Any, ...]:
    """The same of the plain engine."""
    try:
        return Stepwise(machine).run()
    except Deadlock as stuck:
        return stuck.ticks, stuck.blocked


def same(a: Counts | tuple[Any, ...], b: Counts | tuple[Any, ...]) -> None:
    if isinstance(a, tuple) or isinstance(b, tuple):
        assert a == b
        return
    assert a.ticks == b.ticks
    for name in ("busy", "stalls", "after", "peak"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    for i, j in zip(a.fired, b.fired, strict=True):
        assert np.array_equal(i, j)


def check_totals(chosen: Chosen, machine: Machine, counts: Counts) -> None:
    """Busy cycles and traffic are the closed form's; no cycle of a unit goes unaccounted; nothing is faster."""
    tasks, cost = machine.tasks, chosen.cost
    traffic: dict[tuple[str, str, bool], float] = {}
    for level, tensor, write, words in tasks.untimed:
        traffic[level, tensor, write] = traffic.get((level, tensor, write), 0.0) + words
    for a, actor in enumerate(tasks.actors):
        amount = float((counts.fired[a] * actor.amount.values.reshape(-1)).sum())
        assert counts.fired[a].sum() == actor.firings
        if actor.unit >= 0:
            assert amount == pytest.approx(cost.einsums[actor.name].cycles)
        for level, write, share in actor.flows if actor.unit < 0 else ():
            traffic[level, actor.tensor, write] = traffic.get((level, actor.tensor, write), 0.0) + share * amount
    for level, tensors in cost.traffic.items():
        for tensor, moved in tensors.items():
            assert traffic.get((level, tensor, False), 0.0) == pytest.approx(float(moved.read)), (level, tensor)
            assert traffic.get((level, tensor, True), 0.0) == pytest.approx(float(moved.write)), (level, tensor)
    waits = np.array(
        [
            sum(counts.stalls[a].sum() for a, x in enumerate(tasks.actors) if x.unit == u)
            for u in range(len(tasks.units))
        ]
    )
    assert np.array_equal(counts.busy + waits + counts.after, np.full(len(tasks.units), counts.ticks))
    levels_and_units = [*map(float, cost.memory_cycles.values()), *(machine.cycles(int(b)) for b in counts.busy)]
    bound = max([0.0, *levels_and_units])
    if tasks.ordered:  # what drains may do so while another unit of the stage before still works
        bound = max(bound, float(cost.schedule_cycles - cost.drain_cycles))
    assert machine.cycles(counts.ticks) >= bound * (1 - 1e-9) - 1e-3


def test_random_mappings() -> None:
    """Random mappings of every kind of cascade, both schedules: the compiled engine, with and without skipping, does
    what the plain one does, and adds up to the closed form."""
    seen = {"run": 0, "stuck": 0}

    @settings(
        max_examples=140, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(designs())
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        try:
            design = design_of(*pair)
            extents, chosen = choices(design)
        except InputError:
            return
        for c in chosen:
            for asap in (False, True):
                machine = machine_of(lower(c, extents, asap=asap))
                found = outcome(machine)
                same(found, outcome(machine, skip=False))
                same(found, plainly(machine))
                if isinstance(found, Counts):
                    seen["run"] += 1
                    check_totals(c, machine, found)
                else:
                    seen["stuck"] += 1

    check()
    assert seen["run"] >= 200
    assert seen["stuck"] <= 0.1 * seen["run"]


ARCH = """
name: small
clock: 1 GHz
word: 8 bit
levels:
  dram: {kind: dram, bandwidth: %d B/s, access: 8 bit}
  buffer: {size: 1 MiB, access: 8 bit}
units:
  array:
    {shape: [4, 4], registers: {words: %d}, ops: {mac: {cycles: 1}, max: {cycles: 1}, exp: {cycles: %d}}, reduce: [y]}
  line:
    shape: [4]
    registers: {words: 64}
    ops: {mac: {cycles: 1}, max: {cycles: 1}, exp: {cycles: 3}, divide: {cycles: 2}}
    reduce: [x]
"""
STAGES: list[list[list[str]]] = [
    [["QK", "LM", "RD", "RNV", "AV"], ["RM"], ["SLN", "SLD", "PRM", "SPD"], ["SLNV", "SPNV"]],
    [["QK", "LM", "RD", "AV"], ["RM"], ["SLN", "SLD", "PRM", "SPD"], ["SLNV", "SPNV", "RNV"]],
    [["QK", "LM", "RM", "PRM", "SLN", "SLD", "SPD", "RD", "SLNV", "SPNV", "RNV", "AV"]],
    [["QK"], ["LM", "RM"], ["SLN", "PRM", "SLD", "SPD", "RD", "SLNV"], ["SPNV", "RNV", "AV"]],
]


def pipeline(seed: int) -> tuple[Design, dict[str, int]]:
    """A random one-pass attention on a small machine, with loops long enough for periods."""
    pick = random.Random(seed)
    copies = [pick.choice([1, 1, 2, 3]) for _ in range(3)]
    vector = "{unit: line, spatial: {x: p0}%s}"
    mapping: dict[str, Any] = {
        "name": f"pipeline {seed}", "cascade": "attention-1pass", "arch": "fusemax-cloud",
        "tile": {"p": ["p2", "p1", "p0"], "p0": 4, "p1": pick.choice([1, 2, 3, 6])},
        "loops": pick.choice([["b", "h", "p2", "m1", "p1"], ["h", "b", "p2", "m1", "p1"]]),
        "keep": {"buffer": {
            "Q": {"under": "p2", "copies": copies[0]}, "K": {"under": "m1", "copies": copies[1]},
            "V": {"under": pick.choice(["m1", "h", "b"]), "copies": copies[2]}, "RM": "p2", "RD": "p2", "RNV": "p2",
        }},
        "bind": {
            "QK": {"unit": "array", "spatial": {"x": "p0", "y": "m0"}, "loops": ["e"]},
            "LM, SLN, SLD": {"unit": pick.choice(["array", "array", "line"]), "spatial": {"x": "p0"}},
            "SLNV": {"unit": "array", "spatial": {"x": "p0", "y": "m0"}, "loops": ["f"]},
            "RM, PRM, SPD, RD": yaml.safe_load(vector % ""), "SPNV, RNV, AV": yaml.safe_load(vector % ", loops: [f]"),
        },
        "schedule": pick.choice(STAGES), "interleave": pick.choice([True, False]),
    }  # fmt: skip
    if mapping["bind"]["LM, SLN, SLD"]["unit"] == "array":
        mapping["bind"]["LM, SLN, SLD"]["spatial"]["y"] = "m0"
    if pick.random() < 0.3:
        mapping["keep"]["dram"] = {"QK": "p2"}  # scores pass through memory
    arch = parse_architecture(ARCH % (pick.choice([1, 2, 5, 40]) * 10**9, pick.choice([8, 64]), pick.choice([1, 6])))
    design = parse_design(yaml.safe_dump(mapping, sort_keys=False), arch=arch)
    sets = {"b": pick.choice([1, 2]), "h": pick.choice([1, 3, 7]), "e": 3, "f": 2, "m0": 4,
            "p": 24 * pick.choice([1, 2]), "m": 4 * pick.choice([1, 3, 8, 21])}  # fmt: skip
    return design, sets


def test_periods_skipped_change_nothing() -> None:
    """On 200 random pipelines, cycle for cycle: everything counted is the same when periods are left out."""
    skipped = 0
    for seed in range(200):
        design, sets = pipeline(seed)
        extents, chosen = choices(design, sets=sets)
        machine = machine_of(lower(chosen[0], extents, asap=seed % 3 == 0))
        found, full = outcome(machine), outcome(machine, skip=False)
        same(found, full)
        if isinstance(found, Counts):
            skipped += found.skipped > 0
            check_totals(chosen[0], machine, found)
            if seed % 12 == 0 and machine.tasks.firings < 8000:
                same(found, Stepwise(machine).run())
    assert skipped >= 120


@pytest.mark.parametrize(
    ("mapping", "sets"),
    [
        ("fusemax", {"b": 1, "h": 3, "p": 2048, "m": 4096}),
        ("fusemax-arch", {"b": 1, "h": 3, "p": 2048, "m": 2048}),
        ("fusemax-cascade", {"b": 1, "h": 2, "p": 4096, "m": 2048}),
        ("flat", {"b": 2, "h": 6, "p": 4096, "m": 4096}),
        ("unfused", {"b": 1, "h": 1, "p": 1024, "m": 1024}),
        ("causal-cloud", {"b": 1, "h": 2, "p": 8192, "m": 8192}),
        ("window-cloud", {"h": 2, "p": 4096}),
        ("linear-fusemax", {"b": 2, "p": 2048}),
    ],
)
def test_library_designs_skip_exactly(mapping: str, sets: Mapping[str, int]) -> None:
    extents, chosen = choices(load_design(mapping), sets=dict(sets))
    for c in chosen:
        machine = machine_of(lower(c, extents))
        found = run(machine)
        same(found, run(machine, skip=False))
        check_totals(c, machine, found)


DOUBLE_BUFFERED = ("fusemax", "fusemax-arch", "fusemax-cascade", "flat", "unfused", "linear-fusemax", "linear-cloud",
                   "gqa-cloud", "gqa-flat", "layer-fusemax", "mla-absorbed-cloud", "deltanet-cloud",
                   "linear-causal-cloud", "ssd-mamba2-cloud", "window-flat")  # fmt: skip
LAYER32 = ("gqa-cloud", "gqa-flat", "deltanet-cloud", "linear-causal-cloud", "ssd-mamba2-cloud", "window-flat")


@pytest.mark.parametrize("seq", [2**14, 2**20])
@pytest.mark.parametrize("mapping", DOUBLE_BUFFERED)
def test_within_a_hundredth_when_double_buffered(mapping: str, seq: int) -> None:
    if mapping == "mla-absorbed-cloud" and seq > 2**14:
        seq = 2**16  # tens of millions of tasks differ
    workload = load_workload("layer32" if mapping in LAYER32 else "bert")
    copies = 3 if mapping == "deltanet-cloud" else 2  # a step of its recurrence is nearly as long as the work of two
    found = simulate(load_design(mapping), workload, seq, copies=copies)
    assert 1 - 1e-9 <= found.cycles / found.closed_form_cycles <= 1.01


def test_utilisation_is_the_published_one() -> None:
    """FuseMax, MICRO 2024, and its artifact: both arrays, as in validation/published, from the simulation."""
    from fusemodel.library import published_dir

    text = (published_dir() / "fusemax-bert.csv").read_text().splitlines()
    checked = 0
    for row in csv.DictReader(line for line in text if not line.startswith("#")):
        if not row["utilization.array_2d"] or row["mapping"] == "unfused":
            continue  # `unfused` keeps one row, whose drains the published model leaves out
        seq = parse_size(row["seq"], "seq", Where())
        copies = 2 if row["mapping"] == "flat" else 1  # published as if a second block always fitted
        design = load_design(row["mapping"])
        found = simulate(design, load_workload(row["workload"]), seq, copies=copies, window=0)
        tolerance = 0.03 if seq < 2**12 else 0.005  # at 1K the fill of each head shows
        assert found.utilization["array_2d"] == pytest.approx(float(row["utilization.array_2d"]), rel=tolerance)
        assert found.utilization["array_1d"] == pytest.approx(float(row["utilization.array_1d"]), rel=tolerance)
        checked += 1
    assert checked >= 12


def test_drains_show_where_tiles_are_not_interleaved() -> None:
    """The reason the paper gives: the spatial maximum of each tile drains in the open, 256 cycles a tile."""
    workload = load_workload("bert")
    loose, tight = (simulate(load_design(n), workload, 2**16) for n in ("fusemax-arch", "fusemax"))
    tiles = 64 * 12 * (2**16 // 256) ** 2
    assert loose.stalls["array_1d"]["drain"] >= 256 * tiles
    assert max(loose.stalls["array_1d"], key=lambda r: loose.stalls["array_1d"][r]) == "drain"
    assert sum(tight.stalls["array_1d"].values()) < 1e-4 * tight.cycles
    # interleaving is what hides it: as soon as they can, the same tasks need no stage
    soon = simulate(load_design("fusemax-arch"), workload, 2**16, schedule="asap")
    assert soon.cycles < 0.5 * loose.cycles


def test_what_a_window_takes_by_hand() -> None:
    """A block of 256 rows meets four blocks of keys. One after another each takes a product (129, scaled), a maximum,
    its drain, the running maximum, exponentials (7), a sum, a product, its drain and what is added up (2); in flight
    together, what the 2D array does. With one head its keys and values are loaded before anything else."""
    design = load_design("window-cloud")
    words = 2 * 256 * 128
    load = (
        words * design.arch.word_bytes * design.arch.clock_hz / (design.arch.levels["dram"].bandwidth_bytes_per_s or 1)
    )
    work = 129 + 1 + 7 + 1 + 128 + 2
    for interleave, each in ((False, work + 1 + 2 * 256), (True, work)):
        groups = [replace(c, groups=tuple(replace(g, interleave=interleave) for g in c.groups)) for c in design.groups]
        found = [
            simulate(replace(design, groups=tuple(groups)), None, seq, {"b": 1, "h": 1, "w": 1024}, copies=2).cycles
            for seq in (12288, 16384)
        ]
        more = (found[1] - found[0]) / 16 - 4 * each
        if interleave:  # loads of what comes next begin beside the last blocks
            assert 0.9 * load <= more <= load
        else:
            assert more == pytest.approx(load, abs=0.1)


def test_blocks_on_instances_are_refused() -> None:
    with pytest.raises(InputError, match="runs as blocks on the instances"):
        simulate(load_design("flash2"), load_workload("layer32"), 2**12)


def test_asap_is_no_faster_than_its_units_and_levels() -> None:
    for name in ("fusemax", "flat", "fusemax-arch"):
        found = simulate(load_design(name), load_workload("bert"), 2**14, schedule="asap")
        for group in found.groups:
            assert group.cycles >= group.lower_bound_cycles * (1 - 1e-9)


def test_a_deadlock_names_the_waits_and_the_sizes() -> None:
    design = parse_design(
        "cascade: attention-3pass\narch: flat-cloud\n"
        "tile: {p: [p1, p0], p0: 256}\nloops: [b, h, p1]\n"
        "keep: {global_buffer: {QK: p1, GM: p1, SN: p1, A: p1, Q: p1}}\n"
        "bind:\n"
        "  QK: {unit: array_2d, spatial: {x: p0}, loops: [m, e]}\n"
        "  GM, SN, SD, A: {unit: array_1d, spatial: {x: p0}, loops: [m]}\n"
        "  AV: {unit: array_2d, spatial: {x: p0}, loops: [f, m]}\n"
        "schedule: [[QK, GM, SN, SD, A, AV]]\n"
    )
    extents, chosen = choices(design, sets={"b": 1, "h": 1, "p": 1024, "m": 1024})
    machine = machine_of(lower(chosen[0], extents))
    actors = list(machine.tasks.actors)
    names = [a.name for a in actors]
    qk, sn = names.index("QK"), names.index("SN")
    edges = tuple(
        replace(e, constant=e.constant + 1) if e.other == sn else e for e in actors[qk].edges
    )  # scores of a tile now also need what is computed from the next one
    actors[qk] = replace(actors[qk], edges=edges)
    broken = replace(machine, tasks=replace(machine.tasks, actors=tuple(actors)))
    with pytest.raises(Deadlock) as stuck:
        run(broken)
    with pytest.raises(Deadlock) as plain:
        Stepwise(broken).run()
    assert (stuck.value.ticks, stuck.value.blocked) == (plain.value.ticks, plain.value.blocked)
    text = str(deadlock_error(design, chosen[0], broken, stuck.value))
    assert "deadlock" in text
    assert "QK (task" in text
    assert "waits for room in QK in global_buffer, which holds 512 KiB, until SN has read it" in text


def test_reasons_and_cycles_add_up() -> None:
    found = simulate(load_design("flat"), load_workload("bert"), 2**12)
    for unit, busy in found.busy.items():
        assert busy * found.cycles + sum(found.stalls[unit].values()) == pytest.approx(found.cycles)
        assert set(found.stalls[unit]) <= set(REASONS)
        assert len(found.timeline[unit]) == len(found.intervals)
        assert np.mean(found.timeline[unit]) == pytest.approx(busy, rel=0.05)
    closed = evaluate(load_design("flat"), load_workload("bert"), 2**12)
    assert found.closed_form_cycles == closed.cycles
    for level, tensors in closed.traffic_bytes.items():
        for tensor, moved in tensors.items():
            assert found.traffic_bytes[level][tensor] == pytest.approx(moved)


@pytest.mark.parametrize(("x", "y", "e"), [(1, 1, 1), (4, 4, 3), (5, 3, 7), (16, 8, 64), (64, 64, 64)])
def test_elements_of_an_array_make_the_product(x: int, y: int, e: int) -> None:
    """Values are NumPy's; an array of x by y elements takes e cycles a task, and fills for x + y - 2."""
    rng = np.random.default_rng(x + y + e)
    a, b = rng.normal(size=(x, e)), rng.normal(size=(e, y))
    found = product(a, b)
    np.testing.assert_allclose(found.values, a @ b, rtol=1e-12, atol=1e-12)
    assert found.cycles == e + found.fill == e + x + y - 2
    assert found.busy == x * y * e
    for op, expected in (("sum", a.sum(axis=1)), ("max", a.max(axis=1))):
        reduced = reduction(a, op)
        np.testing.assert_allclose(reduced.values, expected)
        assert reduced.cycles == e


def test_costs_of_tiles_are_those_of_the_elements() -> None:
    """The tile level charges a product its steps, and a spatial reduction the length of the column it runs down."""
    extents, chosen = choices(load_design("fusemax"), sets={"b": 1, "h": 1, "p": 1024, "m": 1024})
    tasks = lower(chosen[0], extents).actors
    by_name = {a.name: a for a in tasks}
    rng = np.random.default_rng(0)
    run_of_tile = product(rng.normal(size=(256, 64)), rng.normal(size=(64, 256)))
    assert float(by_name["QK"].amount.values) == run_of_tile.cycles - run_of_tile.fill == 64
    assert by_name["LM"].drain == reduction(rng.normal(size=(4, 256)), "max").cycles == 256


def test_heads_are_divided_among_instances() -> None:
    """Four arrays with 12 heads have three each, and a quarter of the memory's bandwidth."""
    design, workload = load_design("fusemax"), load_workload("bert")
    four = simulate(design, workload, 2**13, {"b": 1}, instances=4)
    dram = design.arch.levels["dram"]
    quarter = replace(dram, bandwidth_bytes_per_s=(dram.bandwidth_bytes_per_s or 0) / 4)
    slower = replace(design.arch, levels={**design.arch.levels, "dram": quarter})
    alone = simulate(replace(design, arch=slower), workload, 2**13, {"b": 3, "h": 1})
    assert four.cycles == alone.cycles
    assert four.instances == 4
    whole = simulate(design, workload, 2**13, {"b": 1})
    assert 3 < whole.cycles / four.cycles <= 4
    for tensor, moved in whole.traffic_bytes["dram"].items():
        assert four.traffic_bytes["dram"][tensor] == pytest.approx(moved)
    with pytest.raises(InputError, match="no batch rank to divide among 2 instances"):
        simulate(design, workload, 2**13, {"b": 1, "h": 1}, instances=2)


def test_command_line(tmp_path) -> None:
    trace, picture = tmp_path / "t.json", tmp_path / "w.svg"
    arguments = ("simulate", "fusemax", "-w", "bert", "-s", "4K", "--set", "b=1", "--trace", str(trace), "--plot")
    result = fusemodel(*arguments, picture, "--tasks", "400", "--json")
    data = json.loads(result.out)
    assert {"cycles", "closed_form_cycles", "utilization", "stalls"} <= data.keys()
    assert data["cycles"] >= data["closed_form_cycles"]
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X"}
    lanes = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert lanes == {"array_2d", "array_1d", "dram"}
    for lane in range(2):  # a unit does one thing at a time
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X" and e["tid"] == lane)
        assert all(b >= a2 - 1e-9 for (_, a2), (b, _) in pairwise(spans))
    assert "<svg" in picture.read_text()
    assert "QK" in picture.read_text()
    lead = fusemodel("simulate", "fusemax", "-w", "bert", "-s", "4K", "--set", "b=1", "--tasks", "50", "--from", "20K",
                     "--trace", trace)  # fmt: skip
    assert "Critical path of tasks 20,481 to 20,5" in lead.out
    named = next(e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "process_name")
    assert "tasks 20,481 to" in named["args"]["name"]
    wrongs = {
        ("fusemax", "--schedule", "soon"): "unknown schedule",
        (): "give one mapping",
        ("fusemax", "--out", "t.md"): "--out is for --all",
        ("--all", "--set", "b=1"): "--set is not for --all",
        ("fusemax", "-s", "1K", "--from", "1T"): "there is no task 1,099,511,627,777",
    }
    for wrong, message in wrongs.items():
        refused = fusemodel("simulate", *wrong)
        assert refused.code == 2
        assert refused.err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("mapping", "sets", "first"),
    [
        ("fusemax", {"b": 1, "h": 4, "p": 8192, "m": 4096}, 6000),
        ("causal-cloud", {"b": 1, "h": 2, "p": 8192, "m": 8192}, 9000),
        ("deltanet-cloud", {"h": 16, "i": 8192}, 7000),
    ],
)
def test_a_window_anywhere_is_part_of_the_whole(mapping: str, sets: dict[str, int], first: int) -> None:
    """What is recorded after a run with periods left out are the tasks that the plain engine comes to there."""
    machine = machines(load_design(mapping), sets=sets)[0]
    whole = {(t.actor, t.firing): t for t in record(machine, first + 2000)}
    part = record(machine, 500, first)
    under_way = [t for t in part if t.reason == UNDER_WAY]
    fresh = [t for t in part if t.reason != UNDER_WAY]
    assert len(fresh) >= 500
    begin = min(t.issued for t in part)
    assert all(whole[t.actor, t.firing].issued <= begin <= whole[t.actor, t.firing].end == t.end for t in under_way)
    assert {k for k, t in whole.items() if t.issued < begin < t.end} <= {(t.actor, t.firing) for t in under_way}
    for t in fresh:
        same_task = whole[t.actor, t.firing]
        waited = min(same_task.waited, t.waited) if same_task.issued - same_task.waited < begin else same_task.waited
        assert replace(t, reason=0, waited=waited) == replace(same_task, reason=0, waited=waited)
    window = window_of(machine, part, first)
    assert window.what.startswith(f"tasks {first + 1:,} to {first + len(fresh):,} of {machine.tasks.firings:,}, cycles")
    assert sum(x.ticks for x in critical_path(machine, part)) <= max(t.end for t in part) - begin


CAUSAL = """
cascade: causal-attention-1pass
arch: fusemax-cloud
tile: {p: [p1, p0], p0: 64}
loops: [b, h, p1, m1]
keep: {global_buffer: {Q: {under: p1, copies: 2}, K: {under: m1, copies: 4}, V: {under: m1, copies: 4}}}
bind:
  QK: {unit: array_2d, spatial: {x: p0, y: m0}, loops: [e]}
  SN: {unit: array_2d, spatial: {x: p0, y: m0}}
  LGM, LSD: {unit: array_2d, spatial: {x: p0}, loops: [m0]}
  LSNV: {unit: array_2d, spatial: {x: p0, y: f}, loops: [m0]}
  RGM, CGM, RSD: {unit: array_1d, spatial: {x: p0}}
  RSNV, O: {unit: array_1d, spatial: {x: p0}, loops: [f]}
"""


def test_what_absent_blocks_take_by_hand() -> None:
    """No drains here. A block on or below the diagonal takes the 2D array a scaled product (65), exponentials (7), a
    maximum, a sum and a product (64 each): 264; any block the 1D array 1 + 9 + 2 + 128 = 140, and a row 64 more. The
    rows are in order. While the 1D array goes through the absent blocks of a row, the 2D array is ahead by the eight
    tiles that registers have room for, absent ones among them, which hides 858 cycles of each row and no more."""
    design = parse_design(CAUSAL)

    def of_a_head(n: int) -> float:
        sets = {"b": 1, "p": 64 * n, "m": 64 * n, "m0": 64, "e": 64, "f": 64}
        few, more = (simulate(design, sets={**sets, "h": h}, window=0).cycles for h in (2, 4))
        return (more - few) / 2

    one_after_another = {n: 264 * n * (n + 1) // 2 + 140 * n * (n - 1) // 2 + 64 * n for n in (24, 32, 48)}
    hidden = {n: total - of_a_head(n) for n, total in one_after_another.items()}
    assert hidden[32] - hidden[24] == pytest.approx(8 * 858, abs=0.1)
    assert hidden[48] - hidden[32] == pytest.approx(16 * 858, abs=0.1)


def test_memory_does_not_grow_with_the_run() -> None:
    """Twenty times as many tasks, all run one by one, take no more memory."""
    peaks, tasks = [], []
    for heads in (2, 40):
        extents, chosen = choices(load_design("fusemax"), sets={"b": 1, "h": heads, "p": 4096, "m": 4096})
        machine = machine_of(lower(chosen[0], extents))
        pace(machine, 1)  # loads the engine
        tracemalloc.start()
        counts = run(machine, skip=False, block=10**4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        tasks.append(counts.simulated)
        assert counts.skipped == 0
    assert tasks[1] == pytest.approx(20 * tasks[0], rel=0.01)
    assert peaks[1] <= 1.01 * peaks[0] + 4096
