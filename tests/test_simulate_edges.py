"""The simulator on designs that a library has no reason to hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from test_counts import ARCH as COUNTED
from test_counts import check_walk, design_of, designs
from test_simulate import outcome, plainly, same

from fusemodel.arch import parse_architecture
from fusemodel.errors import InputError
from fusemodel.mapping import load_design
from fusemodel.mapping.spec import Design
from fusemodel.model import evaluate
from fusemodel.model.evaluate import choices
from fusemodel.simulate import Simulation, simulate
from fusemodel.simulate.engine import run
from fusemodel.simulate.lower import lower
from fusemodel.simulate.machine import Counts, machine_of
from fusemodel.simulate.run import machines
from fusemodel.simulate.stepwise import Stepwise

ARCH = """
name: small
clock: 1 GHz
word: 16 bit
levels:
  dram: {kind: dram, access: 64 bit, read: 1 pJ, write: 1 pJ%s}
  buffer: {size: 64 MiB, access: 64 bit, read: 1 pJ, write: 1 pJ}
units:
  wide: {shape: [%d], ops: {mac: %s, max: , exp: {as: 6 mac}, divide: }, reduce: [x]}
  line: {shape: [64], ops: {mac: , max: , exp: {as: 6 mac}, divide: }, reduce: [x]}
"""


def design(folder: Path, cascade: str, mapping: str, *, lanes: int = 64, bandwidth: str = "", mac: str = "") -> Design:
    """A design from three texts."""
    (folder / "c.yaml").write_text(f"name: c\n{cascade}")
    (folder / "a.yaml").write_text(ARCH % (f", bandwidth: {bandwidth}" if bandwidth else "", lanes, mac))
    (folder / "m.yaml").write_text(f"name: m\ncascade: c.yaml\narch: a.yaml\n{mapping}")
    return load_design(str(folder / "m.yaml"))


def alike(some: Design, **sets: int) -> Simulation:
    """The simulation, once the plain engine and a full run were seen to say the same."""
    for schedule in ("given", "asap"):
        for machine in machines(some, sets=sets, schedule=schedule):
            found = run(machine)
            assert found.ticks == run(machine, skip=False).ticks == Stepwise(machine).run().ticks
    return simulate(some, sets=sets)


SUMS = """
ranks: {p: 20000, m: 8192}
inputs: {X: [m], W: [p]}
outputs: [Z]
einsums: |
  Y[p] = sum[m](X[m] * W[p])
  Z[p] = Y[p] * W[p]
"""


def test_thousands_of_results_drain_at_once(tmp_path: Path) -> None:
    """A sum down 8192 lanes every cycle: the first is there after 8192 cycles, and then one a cycle, while one
    product of each (on 64 lanes: a task for each) follows."""
    mapping = "tile: {m: [m1, m0], m0: 8192}\nloops: [p]\nkeep: {buffer: {X: all, W: all, Y: all}}\n"
    mapping += "bind: {Y: {unit: wide, spatial: {x: m0}}, Z: {unit: line}}\n"
    found = alike(design(tmp_path, SUMS, mapping, lanes=8192))
    assert found.cycles == pytest.approx(20000 + 8192 + 1, abs=2)
    assert found.stalls["line"] == {"dependence": 1, "drain": 8192}


def test_results_that_drain_need_no_room_where_they_go(tmp_path: Path) -> None:
    """What drains is in the array: a sum a cycle is also stored at one a cycle."""
    cascade = "ranks: {p: 20000, m: 4096}\ninputs: {X: [m], W: [p]}\noutputs: [Y]\n"
    cascade += "einsums: |\n  Y[p] = sum[m](X[m] * W[p])\n"
    mapping = "tile: {m: [m1, m0], m0: 4096}\nloops: [p]\nkeep: {buffer: {X: all, W: all}}\n"
    mapping += "bind: {Y: {unit: wide, spatial: {x: m0}}}\n"
    found = alike(design(tmp_path, cascade, mapping, lanes=4096, bandwidth="64 GB/s"))
    brought = (20000 + 4096) * 2 / 64  # cycles of the memory until everything is on chip
    assert 20000 + 4096 <= found.cycles <= 20000 + 4096 + brought + 64


def test_more_than_can_drain_is_refused(tmp_path: Path) -> None:
    cascade = "ranks: {p: 8388608, m: 1048576}\ninputs: {X: [m], W: [p]}\noutputs: [Y]\n"
    cascade += "einsums: |\n  Y[p] = sum[m](X[m] * W[p])\n"
    mapping = "tile: {m: [m1, m0], m0: 1048576}\nloops: [p]\nbind: {Y: {unit: wide, spatial: {x: m0}}}\n"
    some = design(tmp_path, cascade, mapping, lanes=2**20, mac="{cycles: 0.125}")
    with pytest.raises(InputError, match="8,388,608 results of 'Y' drain at once; expected at most 4,194,304"):
        simulate(some)


_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
HANDED_OVER = """
name: two
clock: 1 GHz
word: 16 bit
levels: {dram: {kind: dram, access: 64 bit}, buffer: {size: 1 MiB, access: 64 bit}}
units:
  line: {shape: [64], ops: {mac: , max: , exp: {on: slow}}, reduce: [x]}
  slow: {shape: [8], ops: {exp: {cycles: 3}}}
"""


def test_what_is_handed_over_keeps_the_other_unit_busy(tmp_path: Path) -> None:
    """64 exponentials of 3 cycles on 8 lanes take 24 cycles; the sums of them (a cycle, and a drain down 64 lanes)
    go on beside, so that 1000 of them take 24,000 cycles and the last sum."""
    (tmp_path / "a.yaml").write_text(HANDED_OVER)
    (tmp_path / "c.yaml").write_text(
        "name: c\nranks: {p: 1000, m: 64}\ninputs: {X: [m], W: [p]}\noutputs: [S]\n"
        "einsums: |\n  A[p, m] = X[m] * W[p]\n  E[p, m] = exp(A[p, m])\n  S[p] = sum[m](E[p, m])\n"
    )
    (tmp_path / "m.yaml").write_text(
        "name: m\ncascade: c.yaml\narch: a.yaml\nloops: [p]\nkeep: {buffer: {X: all, W: all, S: all}}\n"
        "bind: {'A, E, S': {unit: line, spatial: {x: m}}}\n"
    )
    found = alike(load_design(str(tmp_path / "m.yaml")))
    assert found.closed_form_cycles == 24000
    assert 24000 <= found.cycles <= 24000 + 1 + 3 + 64
    assert found.busy["slow"] == pytest.approx(24000 / found.cycles)
    assert found.utilization["slow"] == pytest.approx(24000 / found.cycles)
    assert {(e.name, e.unit, e.cycles) for e in found.einsums if e.unit == "slow"} == {("E on slow", "slow", 24000.0)}


def test_random_designs_that_hand_operations_over() -> None:
    """Never faster than the closed form's units and levels; the engine does what the plain one does."""
    other = "  other: {shape: [3], ops: {exp: {cycles: 2}, max: {cycles: 1}}}\n"
    text = COUNTED.replace("max: {cycles: 2}, exp: {cycles: 3}", "max: {on: other}, exp: {on: other}")
    arch = parse_architecture(text + other)
    seen = {"run": 0, "stuck": 0}

    @settings(max_examples=140, derandomize=True, database=None, deadline=None, suppress_health_check=_CHECKS)
    @given(designs())
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        try:
            some = replace(design_of(*pair), arch=arch)
            extents, chosen = choices(some)
        except InputError:
            return
        for c in chosen:
            if not any(e.beside for e in c.plan.einsums.values()):
                continue
            for asap in (False, True):
                machine = machine_of(lower(c, extents, asap=asap))
                found = outcome(machine)
                same(found, outcome(machine, skip=False))
                same(found, plainly(machine))
                if not isinstance(found, Counts):
                    seen["stuck"] += 1
                    continue
                seen["run"] += 1
                busy = dict.fromkeys(machine.tasks.units, 0.0)
                for name, e in c.cost.einsums.items():
                    for unit, cycles in [(c.plan.einsums[name].unit, e.cycles), *e.beside.items()]:
                        busy[unit] += float(cycles)
                for unit, ticks in zip(machine.tasks.units, found.busy, strict=True):
                    assert machine.cycles(int(ticks)) == pytest.approx(busy[unit], abs=1e-2)
                least = float(c.cost.schedule_cycles - c.cost.drain_cycles) if not asap else max(busy.values())
                assert machine.cycles(found.ticks) >= least * (1 - 1e-9) - 1e-3

    check()
    assert seen["run"] >= 20
    assert seen["stuck"] <= 0.1 * seen["run"]


def test_an_instance_has_its_own_levels_and_its_share_of_the_others(tmp_path: Path) -> None:
    """Of four instances each gets a quarter of the memory, or what its port lets through; its buffer is its own."""
    text = ARCH % (", bandwidth: 64 GB/s%s", 64, "") + "instances: 4\n"
    text = text.replace("buffer: {", "buffer: {per: instance, bandwidth: 16 GB/s, ")
    cascade = "ranks: {b: 8, p: 64, m: 4096}\nbatch: [b]\ninputs: {X: [p, m]}\noutputs: [Y]\n"
    cascade += "einsums: |\n  Y[p] = sum[m](X[p, m])\n"
    mapping = "tile: {m: [m1, m0], m0: 64}\nloops: [b, p]\nkeep: {buffer: {X: {under: p, copies: 2}}}\n"
    mapping += "bind: {Y: {unit: line, spatial: {x: m0}, loops: [m1]}}\n"
    for port in ("", ", port: 2 GB/s"):
        some = design(tmp_path, cascade, mapping)
        (tmp_path / "a.yaml").write_text(text % port)
        some = load_design(str(tmp_path / "m.yaml"), arch=str(tmp_path / "a.yaml"))
        words = 2 * 64 * 4096 * 2  # bytes that one of the four brings, for two of eight batches
        found = simulate(some)
        assert found.instances == 4
        bound = words / 2 if port else 2 * words / 16  # memory, or the buffer that is written and read
        assert bound <= found.cycles <= 1.1 * bound, port


def test_what_is_not_simulated_is_refused_at_its_place(tmp_path: Path) -> None:
    cascade = "ranks: {p: 64}\ninputs: {X: [p]}\noutputs: [Y]\neinsums: |\n  Y[p] = exp(X[p])\n"
    design(tmp_path, cascade, "bind: {Y: {unit: line}}\n")
    with (tmp_path / "a.yaml").open("a") as more:
        more.write("overheads: {start: 1 us}\n")
    path = tmp_path / "m.yaml"
    path.write_text(path.read_text() + "launch: start\n")
    with pytest.raises(InputError, match=r"m\.yaml:5:9: 'm' is launched as blocks on the instances of 'small'"):
        simulate(load_design(str(path)))


def test_more_loops_than_the_engine_has_room_for(tmp_path: Path) -> None:
    ranks = "abcdefghijkl"
    cascade = f"ranks: {{{', '.join(f'{x}: 2' for x in ranks)}}}\ninputs: {{X: [{', '.join(ranks)}]}}\noutputs: [Y]\n"
    cascade += f"einsums: |\n  Y[{', '.join(ranks)}] = exp(X[{', '.join(ranks)}])\n"
    some = design(tmp_path, cascade, f"loops: [{', '.join(ranks)}]\nbind: {{Y: {{unit: line}}}}\n")
    with pytest.raises(
        InputError, match=r"m\.yaml:4:8: 'Y' has 12 loops and 0 levels with a bandwidth; expected at most"
    ):
        simulate(some)


@pytest.mark.parametrize(
    "wrong", [{"schedule": "soon"}, {"copies": 0}, {"instances": 0}, {"window": -1}, {"window_from": -1}]
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        simulate(load_design("fusemax"), seq=1024, **wrong)


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_window_of_a_few_loads(tasks: int) -> None:
    """The first tasks only bring something."""
    found = simulate(load_design("fusemax"), seq=1024, window=tasks)
    assert {x.kind for x in found.windows[0].spans} <= {"load"}
    assert {s.kind for s in found.groups[0].critical_path} <= {"transfer", "queue"}


def test_a_window_of_one_that_tiles_do_not_divide() -> None:
    """Candidates whose tiles do not divide a rank are counted one by one; the walk is the oracle of the counts."""
    sets = {"b": 1, "h": 1, "p": 100, "w": 1, "f": 5, "e": 3}
    check_walk(load_design("window-flat"), sets)
    alike(load_design("window-flat"), **sets)


def test_what_is_made_once_is_there_for_every_sequence() -> None:
    """What a head has once is in registers, and wanted again for the next sequence: no tile of it is replaced."""
    sets = {"g": 100, "r": 3, "i": 257, "f": 100, "i0": 300, "b": 2}
    design = load_design("ssd-mamba2-cloud")
    closed = evaluate(design, sets=sets).cycles
    assert closed <= simulate(design, sets=sets).cycles <= 1.01 * closed
