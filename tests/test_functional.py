"""The functional mode: real numbers moved tile by tile are the interpreter's, for every mapping of the library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_counts import chained

from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.mapping import load_design, parse_design
from fusemodel.mapping.spec import Design
from fusemodel.model import evaluate
from fusemodel.model.evaluate import choices
from fusemodel.numerics import random_inputs
from fusemodel.numerics import run as interpret
from fusemodel.simulate import functional, simulate
from fusemodel.simulate.functional import execute
from fusemodel.simulate.lower import lower
from fusemodel.simulate.tasks import BUFFER, DEPENDENCE

#: A few tiles of everything, the last of some chunks ragged.
SMALL = {
    "b": 1, "h": 2, "g": 1, "r": 2, "p": 12, "m": 12, "e": 4, "f": 4, "l": 4, "t": 4, "w": 8, "d": 8, "s": 8, "i": 14,
    "n": 8, "k": 8, "z": 2, "p0": 4, "p_0": 4, "m0": 4, "e0": 2, "f0": 2, "l0": 2, "w0": 4, "i0": 4, "j0": 4, "n0": 4,
    "k0": 4, "h0": 2, "c0": 4, "s0": 4, "g0": 4, "f1": 1, "e1": 1,
}  # fmt: skip
ODD: dict[str, dict[str, int]] = {
    "deltanet-cloud": {"h": 4, "f1": 2, "e1": 2},
    "gemm-split": {"s": 2}, "gemm-pair-split": {"s": 2},
    "causal-cloud": {"b": 2}, "mla-absorbed-cloud": {"h": 4, "p": 8}, "gqa-cloud": {"g": 2, "p": 8},
    "ssd-mamba2-cloud": {"w": 3},
}  # fmt: skip


def small(name: str) -> tuple[Design, dict[str, int]]:
    """A design of the library, and the sizes among these that it has."""
    design = load_design(name)
    sizes = {x for c in design.groups for g in c.groups for x in g.sizes}
    free = {r for r in design.cascade.ranks if r in design.cascade.test} | sizes
    found = {x: n for x, n in {**SMALL, **ODD.get(name, {})}.items() if x in free}
    return design, found


#: Sizes that no tile divides, or less than one tile.
RAGGED: list[tuple[str, dict[str, int]]] = [
    ("fusemax", {"p": 18, "m": 23}),
    ("fusemax", {"p": 19, "p1": 2}),
    ("fusemax", {"p": 3}),
    ("gqa-cloud", {"p": 10, "m": 11}),
]


@pytest.mark.parametrize(("mapping", "more"), [*((m, {}) for m in names("mappings")), *RAGGED])
def test_moving_real_numbers_gives_the_cascade(mapping: str, more: dict[str, int]) -> None:
    design, sets = small(mapping)
    sets |= more
    extents, _ = choices(design, sets=sets)
    inputs = random_inputs(design.cascade, extents, seed=3)
    expected = interpret(design.cascade, inputs, extents).outputs
    schedule = "asap" if len(mapping) % 3 == 0 else "given"
    found = execute(design, sets=sets, inputs=inputs, schedule=schedule)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-9, atol=1e-12)


def test_a_selection_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: c\nranks: {p: 4, m: 8, s: 2}\ninputs: {X: [p, m]}\noutputs: [Y]\n"
        "einsums: |\n  Y[p, s] = topk[m -> s](X[p, m])\n"
    )
    design = parse_design(
        f"cascade: {tmp_path}/c.yaml\narch: fusemax-cloud\nloops: [p]\nbind: {{Y: {{unit: array_1d, loops: [m]}}}}\n"
    )
    with pytest.raises(InputError, match="does not run 'Y', which selects with `topk`"):
        execute(design)


def test_reading_what_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that do not wait for what they need read it before it is written, or after it has been replaced."""
    design, sets = small("fusemax")

    def careless(kind: int, *, loads: bool):
        def lowered(*args: Any, **options: Any):
            tasks = lower(*args, **options)
            actors = tuple(
                replace(a, edges=tuple(e for e in a.edges if e.reason != kind or (a.unit < 0) != loads))
                for a in tasks.actors
            )
            return replace(tasks, actors=actors)

        return lowered

    monkeypatch.setattr(functional, "lower", careless(DEPENDENCE, loads=False))
    with pytest.raises(InputError, match="where it has not been written"):
        execute(design, sets=sets, schedule="asap")
    monkeypatch.setattr(functional, "lower", careless(BUFFER, loads=True))
    with pytest.raises(InputError, match="where it has been replaced"):
        execute(design, sets=sets)


def test_more_than_there_is_room_for_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def cramped(*args: Any, **options: Any):
        tasks = lower(*args, **options)
        return replace(tasks, buffers=tuple(replace(b, words=b.words / 2) for b in tasks.buffers))

    monkeypatch.setattr(functional, "lower", cramped)
    design, sets = small("fusemax")
    with pytest.raises(InputError, match=r"in global_buffer holds \d+ words in room for \d+"):
        execute(design, sets=sets)


@pytest.mark.parametrize("loops", [("e1", "p1"), ("p1", "e1")])
@pytest.mark.parametrize(
    "keep",
    [{}, {"l1": "p1", "dram": "all"}, {"l1": "all"}, {"l1": "p1", "l2": "all"}],
    ids=lambda k: "-".join(k) or "-",
)
def test_partial_sums_under_a_loop_that_others_lack(loops: tuple[str, str], keep: dict[str, str]) -> None:
    """They stay, or leave and come back; and take little longer than the closed form says."""
    design = chained({level: {"S": under} for level, under in keep.items()}, 2, loops)
    extents, _ = choices(design)
    inputs = random_inputs(design.cascade, extents, seed=3)
    found = execute(design, inputs=inputs)
    np.testing.assert_allclose(found["Z"], interpret(design.cascade, inputs, extents).outputs["Z"], rtol=1e-12)
    closed = evaluate(design).cycles
    assert closed <= simulate(design).cycles <= 1.05 * closed
