"""The simulator on designs that a library has no reason to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusemodel.errors import InputError
from fusemodel.mapping import load_design
from fusemodel.mapping.spec import Design
from fusemodel.simulate import Simulation, simulate
from fusemodel.simulate.engine import run
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
