"""Partial mappings that are dropped for others: the best stays, whatever the machine and the objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from test_sweep import ARCH, SOFTMAX

from fusemodel.arch import parse_architecture
from fusemodel.arch.spec import Registers
from fusemodel.cascade import extents_of, parse_cascade
from fusemodel.explore import tight
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.columns import priced
from fusemodel.explore.compare import ranked
from fusemodel.explore.frame import Scene
from fusemodel.explore.goal import Best, Goal
from fusemodel.explore.group import chains, depth
from fusemodel.explore.known import Known, Look
from fusemodel.explore.mix import Mix
from fusemodel.mapping.check import main_einsums

MACHINES = 3  # for each cascade
FRAMES = 9  # of which one is looked at
WANTS = [("latency", "dram", "energy"), ("latency", "energy", "dram"), ("latency", "dram"), ("energy", "latency"),
         ("latency",), ("latency", "dram", "energy")]  # fmt: skip
CHAIN = """
ranks: {p: 8, m: 6, k: 4}
inputs: {X: [p, k], W: [m, k]}
outputs: [Z]
einsums: |
  Y[p, m] = X[p, k] * W[m, k]
  G[p] = max[m](Y[p, m])
  Z[p] = exp(G[p])
"""
STEPS = """
ranks: {i: 6, p: 4}
inputs: {A: [i, p]}
outputs: [Z]
einsums: |
  T[i, p] = exp(S[i, p])
  S[0, p] = 0
  S[i+1, p] = T[i, p] + A[i, p]
  Z[p] = S[I, p]
"""
WIDE = """  wide:
    shape: [2, 3]
    registers: {words: REGISTERS}
    ops: {mac: {energy: 2 pJ}, max: , exp: {as: 3 mac}, add: }
    reduce: [y]
"""


def machine(draw: np.random.Generator):
    """Two units with few registers, one memory on chip beside the outermost one, or two."""
    text = ARCH.replace("max: , exp", "max: , add: , exp") + WIDE.replace("REGISTERS", str(draw.choice([2, 6, 40])))
    arch = parse_architecture(text.replace("shape: [2]", f"shape: [{draw.choice([1, 2, 4])}]"))
    sizes = draw.choice([16, 40, 96, 400], 2)
    near = replace(arch.levels["buffer"], size_bytes=float(sizes.min()), read_pj=float(draw.choice([0.0, 0.5, 3.0])))
    far = replace(arch.levels["buffer"], name="far", size_bytes=float(sizes.max()), write_pj=8.0,
                  bandwidth_bytes_per_s=float(draw.choice([1e9, 2e10])))  # fmt: skip
    dram = replace(arch.levels["dram"], bandwidth_bytes_per_s=float(draw.choice([2e8, 2e9, 1e11])))
    some = draw.integers(2)
    return replace(arch, levels={"dram": dram, **({"far": far} if some else {}), "buffer": near})


def tight_machine(draw: np.random.Generator):
    """The same with one register each, and a memory on chip of a few words."""
    arch = machine(draw)
    sizes = {"buffer": float(draw.choice([2, 4, 8])), "far": float(draw.choice([8, 16]))}
    few = Registers(int(draw.choice([1, 2, 3])), 0.0, 0.0, 0.0, counted=True)
    return replace(
        arch, units={n: replace(u, registers=few) for n, u in arch.units.items()},
        levels={n: replace(lv, size_bytes=sizes.get(n)) for n, lv in arch.levels.items()},
    )  # fmt: skip


def looks(cascade, arch, step: int = FRAMES) -> list[Look]:
    """Some frames of all Einsums as one group."""
    scene = Scene(cascade, arch, main_einsums(cascade), extents_of(cascade))
    return Known().frames_of(scene, list(scene.einsums), frozenset())[::step]


def mixes(cascade, arch, room: float) -> Iterator[Mix]:
    """All choices of some frames."""
    for look in looks(cascade, arch):
        yield from mixes_of(look, room)


def mixes_of(look: Look, room: float) -> Iterator[Mix]:
    scene, later = look.scene, frozenset[str]()
    members = list(scene.einsums)
    for order in look.orders[:2]:
        costs = look.costing(order.loops).run()
        if costs:
            yield Mix(scene, look.frame, priced(costs, scene.arch), later, chains(scene, members, later),
                      depth(scene, members), 0.0, room, lambda: None)  # fmt: skip


@pytest.mark.parametrize("text", [SOFTMAX, CHAIN, STEPS], ids=["softmax", "chain", "steps"])
def test_what_is_dropped_is_no_better(text: str) -> None:
    """The best of some frames on random machines, by the same search in which nothing is dropped for another: from
    nothing that is known, and from a mapping that is as fast as any."""
    draw = np.random.default_rng(len(text))
    cascade = parse_cascade(text)
    dropped = 0
    for n in range(MACHINES):
        for k, mix in enumerate(mixes(cascade, machine(draw), float(draw.choice([4, 20, np.inf])))):
            at = int(draw.integers(mix.costs.length))
            goal = Goal(WANTS[(n + k) % len(WANTS)])
            plain = found_by(mix, at, 0.0, Best(goal), lambda _rows, keys: np.arange(len(keys)))
            for floor, known in [(0.0, Best(goal))] + [
                (m[1], Best(goal, [((m[0], m[1], np.inf, np.inf, np.inf), None)]))
                for m, _ in plain.points
                if goal.lexical
            ]:

                def counted(rows, keys, compared=tight.undominated):
                    nonlocal dropped
                    kept = compared(rows, keys)
                    dropped += len(keys) - len(kept)
                    return kept

                found = found_by(mix, at, floor, known, counted)
                assert len(found.points) == len(plain.points)
                for (mine, _), (best, _) in zip(found.points, plain.points, strict=True):
                    assert goal.score(mine) == pytest.approx(goal.score(best), rel=1e-9)
    assert dropped > 100


def found_by(mix: Mix, at: int, floor: float, best: Best, keep) -> Best:
    with patch.object(tight, "_MANY", 0), patch.object(tight, "undominated", keep):
        tight.Tight(mix, [at], [floor]).run(best)
    return best


@pytest.mark.parametrize("text", [SOFTMAX, CHAIN, STEPS], ids=["softmax", "chain", "steps"])
def test_sizes_side_by_side_are_as_good_as_one_by_one(text: str) -> None:
    """All combinations of sizes together, waiting for each other where they are many, and each by itself; with tiles
    that spill too."""
    draw = np.random.default_rng(len(text) + 1)
    cascade = parse_cascade(text)
    spilt = 0
    for n in range(MACHINES):
        for k, mix in enumerate(mixes(cascade, machine(draw), float(draw.choice([4, 20, np.inf])))):
            goal = Goal(WANTS[(n + k) % len(WANTS)])
            every = np.arange(mix.costs.length)
            for spill, ats in [(None, every), *((s, np.flatnonzero(at)) for s, at in mix.spills())]:
                together, apart = Best(goal), Best(goal)
                with patch.object(tight, "_TOGETHER", 40), patch.object(tight, "_MANY", 20):
                    tight.Tight(mix, ats, np.zeros(len(ats))).run(together, spill)
                for at in ats:
                    tight.Tight(mix, [int(at)], [0.0]).run(apart, spill)
                assert len(together.points) == len(apart.points)
                for (mine, _), (other, _) in zip(together.points, apart.points, strict=True):
                    assert goal.score(mine) == pytest.approx(goal.score(other), rel=1e-9)
                spilt += spill is not None and bool(together.points)
    assert spilt or text != SOFTMAX


@pytest.mark.parametrize("text", [SOFTMAX, CHAIN, STEPS], ids=["softmax", "chain", "steps"])
def test_bounds_of_frames_are_below_all_that_they_have(text: str) -> None:
    """The least cycles, words and energy of each frame, tiles that spill among them."""
    draw = np.random.default_rng(len(text) + 2)
    cascade = parse_cascade(text)
    seen, passing, near = 0, 0, 1e9
    for _ in range(4 * MACHINES):
        for look in looks(cascade, tight_machine(draw), 9 if text == CHAIN else 4):
            bounds = Bounds(look.scene)
            more = bounds.passing(look.frame, frozenset())
            least = bounds.metrics(look.frame.members, look.cycles, more)
            for mix in mixes_of(look, np.inf):
                for k, objective in ((1, "latency"), (2, "dram"), (3, "energy")):
                    best = Best(Goal((objective,)))
                    for spill, ats in [(None, np.arange(mix.costs.length)),
                                       *((s, np.flatnonzero(at)) for s, at in mix.spills())]:  # fmt: skip
                        tight.Tight(mix, ats, np.zeros(len(ats))).run(best, spill)
                    for metrics, _ in best.points:
                        if not metrics[0]:
                            assert metrics[k] >= least[k] * (1 - 1e-9), (objective, look.frame)
                            seen, passing = seen + 1, passing + (sum(more) > 0)
                            near = min(near, metrics[k] / least[k]) if sum(more) else near
    assert seen > 20
    assert text == STEPS or (passing > 15 and near < 1.6)


def test_ranks_of_pairs() -> None:
    first, second = np.array([3.0, 1.0, 1.0, 3.0, 2.0]), np.array([5.0, 9.0, 9.0, 4.0, 0.0])
    assert ranked(first, second).tolist() == [3, 0, 0, 2, 1]
    assert ranked(first, None).tolist() == first.tolist()
