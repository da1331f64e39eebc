"""Groups in which points may be absent, many mappings at once: what each gives alone, on every field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_batch import candidates
from test_compiled import sizes_for, tied
from test_counts import design_of

from fusemodel import evaluate, evaluate_batch
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError
from fusemodel.mapping import Design, load_design
from fusemodel.model import banded
from fusemodel.model.amounts import Columns
from fusemodel.model.compiled import CompiledMapping, compile_mapping
from fusemodel.model.compiled.lookup import apart
from fusemodel.model.compiled.singly import results_of
from fusemodel.model.compiled.trace import labels_of
from fusemodel.model.decided import Count, Rows
from fusemodel.model.evaluate import extents_in, plans_of
from fusemodel.model.expression import Choice
from fusemodel.model.frame import ragged_frames
from fusemodel.model.movement import needs_numbers
from fusemodel.model.plan import Plan

#: Mappings of the library with causal masks, windows, grouped heads, chunks and ragged splits.
ABSENT = [
    "causal-cloud", "causal-3pass-cloud", "causal-flat", "causal-unfused-cloud", "gqa-causal-cloud", "window-cloud",
    "window-flat", "linear-causal-cloud", "mla-cloud", "mla-absorbed-cloud", "ssd-mamba2-cloud",
]  # fmt: skip


def check(mapping: CompiledMapping, extents: Mapping[str, int], rows: list[list[dict[str, int]]]) -> int:
    """A batch is what its rows are alone: every field, and what is said of them. How many counts it looked up."""
    labels = labels_of([p.group for p in mapping.plans])
    parts = [(i, p) for i, plan in enumerate(mapping.plans) for ps in plan.group.parts.values() for p in ps]
    tiles = {labels[i] + p: np.array([float(row[i][p]) for row in rows]) for i, p in parts}
    traced = mapping.traced(extents, mapping._loose(extents, tiles))
    said = list(traced.notes)
    nodes = [c.code if isinstance(c, Choice) else c for c in traced.columns.values()]
    columns = mapping._run(traced, extents, tiles, len(rows), nodes, "test", 1, said)
    names = {n: c.names for n, c in traced.columns.items() if isinstance(c, Choice)}
    found = dict(zip(traced.columns, columns, strict=True))
    notes: set[str] = set()
    for i, row in enumerate(rows):
        single, mine = results_of(mapping.design, mapping.plans, extents, row)
        assert set(single) <= set(found)
        notes |= {n for n in mine if "stay in registers" not in n}
        assert bool(found["registers_hold"][i]) == (not any("stay in registers" in n for n in mine))
        for name, column in found.items():
            expected = single.get(name, 0)
            if isinstance(expected, str):
                value = names[name][int(column[i])]
                assert value == expected or tied(single, name, value), (name, row)
            else:
                assert column[i] == pytest.approx(float(expected), rel=1e-12, abs=1e-300), (name, row)
    assert set(said) == notes
    return len(traced.counts)


@pytest.mark.parametrize("seq", [1000, 4096])
@pytest.mark.parametrize("name", ABSENT)
def test_library(name: str, seq: int) -> None:
    design = load_design(name)
    try:
        extents = extents_in(design, load_workload("layer32"), seq, {})
    except InputError:  # cascades without a sequence
        extents = extents_in(design, None, None, {})
    for plans in product(*plans_of(design)):
        assert any(needs_numbers(p, extents) for p in plans)
        rows = sizes_for(plans, extents, 10) + sizes_for(plans, extents, 10, loose=True)
        assert check(CompiledMapping(design, plans), extents, rows)


#: Conditions on a row p and a column m, of a matrix product with a sum over m.
MASKS = {
    "causal": "m <= p",
    "strictly before": "m < p",
    "after": "m >= p + 2",
    "window": "m <= p and m >= p - 5",
    "both sides": "abs(m - p) <= 3",
    "blocks": "m // 4 == p // 4",
    "blocks and sinks": "m // 4 == p // 4 or m < 2",
    "several rows a column": "3 * m <= p + 1 and 3 * m + 7 >= p",
    "dilated": "(p - m) % 3 == 0 and m <= p",
    "rows alone": "p < 10 and m <= p",
    "nowhere": "m > p + 100",
}


def masked(where: str, p: int, m: int) -> dict[str, Any]:
    """A product with absent points and one that reads it, heads in groups of two."""
    return {
        "name": "masked", "ranks": {"h": 4, "g": 2, "p": p, "m": m, "e": 3}, "outputs": ["Z"],
        "inputs": {"Q": ["h", "e", "p"], "K": ["g", "e", "m"], "V": ["g", "m"]},
        "einsums": f"S[h, m, p] = Q[h, e, p] * K[h // 2, e, m] where {where}\nZ[h, p] = S[h, m, p] * V[h // 2, m]\n",
    }  # fmt: skip


def tiled(order: list[str], keep: Mapping[str, str], spatial: Mapping[str, str], spill: bool) -> dict[str, Any]:
    held = {t: {"under": under, "spill": spill} if t == "S" else under for t, under in keep.items()}
    bind = {"unit": "grid", "spatial": dict(spatial)}
    return {
        "tile": {"p": ["p2", "p1", "p0"], "m": ["m2", "m1", "m0"], "p1": 1, "p0": 1, "m1": 1, "m0": 1},
        "loops": order, "keep": {"l1": held}, "bind": {"S": bind, "Z": bind}, "budget": {"l1": "300 B"},
    }  # fmt: skip


@pytest.mark.parametrize("where", MASKS.values(), ids=MASKS)
def test_masks_and_any_tiles(where: str) -> None:
    """Random loop orders, kept tiles, spatial choices, extents and tile sizes, ragged ones included."""
    seen = {"designs": 0}

    @settings(max_examples=25, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        loops = data.draw(st.permutations(["p2", "p1", "m2", "m1"]))
        order = ["h", *loops[: data.draw(st.integers(1, 4))]]
        keep = {t: data.draw(st.sampled_from(order)) for t in ("Q", "K", "V", "S", "Z") if data.draw(st.booleans())}
        spatial = data.draw(st.sampled_from([{"x": "p0", "y": "m0"}, {"x": "m0"}, {"y": "p0"}, {}]))
        fields = tiled(order, keep, spatial, data.draw(st.booleans()))
        try:
            design: Design = design_of(masked(where, data.draw(st.integers(3, 26)), data.draw(st.integers(3, 26))),
                                       {"groups": [fields]})  # fmt: skip
            plans = tuple(p for (p,) in plans_of(design))
        except InputError:
            return
        extents = extents_in(design, None, None, {})
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        rows = [[s] for s in candidates(plans[0].group, extents, 12, rng, loose=True)]
        check(CompiledMapping(design, plans), extents, rows)
        seen["designs"] += 1

    run()
    assert seen["designs"] >= 10


def test_bands_are_points_counted() -> None:
    """The closed form against every point: steps of the outer digits of two coordinates."""
    closed: list[bool] = []
    size = st.tuples(*[st.integers(1, 9)] * 4)

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(
        st.sampled_from(sorted(MASKS.values())), st.integers(1, 40), st.integers(1, 40),
        st.lists(size, min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 3),
    )  # fmt: skip
    def run(where: str, p: int, m: int, tiles: list[tuple[int, ...]], rows: int, columns: int) -> None:
        design = design_of(masked(where, p, m), {"groups": [tiled(["h"], {}, {}, False)]})
        ((plan,),) = plans_of(design)
        extents = extents_in(design, None, None, {})
        frame = ragged_frames(plan, extents, frozenset({"p", "m"}))["S"]
        seen = ["p2", "p1", "p0"][:rows] + ["m2", "m1", "m0"][:columns]
        each = [
            {"p2": -(-p // (a * b)), "p1": a, "p0": b, "m2": -(-m // (c * d)), "m1": c, "m0": d}
            for a, b, c, d in tiles
        ]  # fmt: skip
        sizes = Columns({**extents, **{x: np.array([float(s[x]) for s in each]) for x in each[0]}})
        found = banded.steps(frame, frame.pieces, frozenset(seen), sizes)
        closed.append(found is not None)
        present = [x for x in product(range(p), range(m)) if eval(where, {"abs": abs}, {"p": x[0], "m": x[1]})]
        for k, s in enumerate(each):
            steps = {tuple((digits(i, s, "p") | digits(j, s, "m"))[x] for x in seen) for i, j in present}
            assert frame.count(seen, {**extents, **s})[0] == len(steps)
            assert found is None or found[k] == len(steps)

    run()
    assert sum(closed) >= 100


def digits(at: int, sizes: Mapping[str, int], rank: str) -> dict[str, int]:
    """A coordinate as the steps of its loops."""
    middle, inner = sizes[f"{rank}1"], sizes[f"{rank}0"]
    return {f"{rank}2": at // (middle * inner), f"{rank}1": at // inner % middle, f"{rank}0": at % inner}


def test_a_count_is_found_once_for_what_it_depends_on() -> None:
    """24,000 rows of 12 kinds ask for counts of 12, and no row is evaluated alone."""
    mapping = causal()
    p0, p1 = np.meshgrid([64, 128, 256], [1, 2, 4, 8])
    sets = {"p_0": np.tile(p0.ravel(), 2000), "p_1": np.tile(p1.ravel(), 2000)}
    asked: list[tuple[object, int]] = []
    before = Rows.amount

    def amount(self: Rows, count: Count) -> Any:
        asked.append((count.key, self.length))
        return before(self, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rows, "amount", amount)
        found = mapping.evaluate(load_workload("bert"), 4096, sets)
    assert not found.one_by_one
    assert {length for _, length in asked} == {12}
    for i in range(12):
        one = {"p_0": int(sets["p_0"][i]), "p_1": int(sets["p_1"][i])}
        design = replace(mapping.design, groups=(replace(mapping.design.groups[0], groups=(mapping.plans[0].group,)),))
        alone = evaluate(design, "bert", 4096, one)
        for field in ("latency_s", "energy_j", "dram_bytes"):
            assert found[field][i + 12000] == pytest.approx(getattr(alone, field), rel=1e-12)


def causal() -> CompiledMapping:
    design = load_design("causal-cloud")
    return compile_mapping(design, {design.groups[0].groups[0].name: "at 16K tokens"})


def test_rows_that_are_not_valid_say_nothing() -> None:
    for p_2, valid in (([7, 16], [False, True]), ([7], [False])):
        found = causal().evaluate(load_workload("bert"), 4096, {"p_2": p_2, "p_1": 1})
        assert not found.one_by_one
        assert found["valid"].tolist() == valid
        assert np.isnan(found["latency_s"][0])
        assert not found["fits"][0]


def test_blocks_are_evaluated_one_by_one_and_said_to_be() -> None:
    found = evaluate_batch("flash2-causal", seq=1024, sets={"b": [1, 2]})
    assert "runs as blocks" in found.one_by_one
    assert found["latency_s"][1] == pytest.approx(evaluate("flash2-causal", seq=1024, sets={"b": 2}).latency_s)


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(-(2**40), 2**40), st.integers(1, 3)), min_size=1, max_size=60))
def test_rows_that_differ(rows: list[tuple[int, ...]]) -> None:
    columns = [np.array(c, dtype=float) for c in zip(*rows, strict=True)]
    places, first = apart(columns, len(rows))
    assert [rows[i] for i in first] == list(dict.fromkeys(rows))
    assert [rows[first[int(k)]] for k in places] == rows


def test_memory_is_that_of_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are looked up in slices: the same numbers whatever their length."""
    from fusemodel.model.compiled import batch

    design = load_design("window-cloud")
    mapping = compile_mapping(design, {design.groups[0].groups[0].name: design.groups[0].groups[0].variant})
    sets = {p: [1 + i % 7 for i in range(50)] for p in inner_parts(mapping.plans[0])}
    whole = mapping.evaluate(load_workload("layer32"), 1000, sets)
    monkeypatch.setattr(batch, "_ROWS", 7)
    sliced = mapping.evaluate(load_workload("layer32"), 1000, sets)
    assert not whole.one_by_one
    for name, column in whole.columns.items():
        assert np.array_equal(column, sliced[name], equal_nan=column.dtype.kind == "f"), name


def inner_parts(plan: Plan) -> list[str]:
    return [p for ps in plan.group.parts.values() for p in ps[1:]]
