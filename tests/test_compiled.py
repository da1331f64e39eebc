"""Many mappings at once give what each gives alone, on every field."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_batch import CAUSAL, CONVOLUTION, PRODUCT, STENCIL, candidates
from test_counts import design_of, designs

from fusemodel import evaluate, evaluate_batch
from fusemodel.arch import load_architecture
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.mapping import Design, load_design
from fusemodel.model.compiled import OBJECTIVES, CompiledMapping, blocks_of, compile_mapping
from fusemodel.model.compiled.machine import compiled, in_parallel
from fusemodel.model.compiled.singly import results_of
from fusemodel.model.compiled.trace import labels_of
from fusemodel.model.elements import values
from fusemodel.model.evaluate import extents_in, plans_of
from fusemodel.model.expression import Graph, Node, Untraceable
from fusemodel.model.movement import in_blocks
from fusemodel.model.plan import Plan

BERT = load_workload("bert")


def alone(
    mapping: CompiledMapping, extents: Mapping[str, int], rows: Sequence[Sequence[Mapping[str, int]]]
) -> list[dict[str, Any]]:
    """Every result of mappings evaluated one after another."""
    return [results_of(replace(mapping.design, arch=mapping.plans[0].arch), mapping.plans, extents, r)[0] for r in rows]


def check(
    mapping: CompiledMapping, extents: Mapping[str, int], rows: Sequence[Sequence[Mapping[str, int]]],
    *, ragged: bool = False,
) -> None:  # fmt: skip
    """``rows`` have the sizes of every group."""
    labels = labels_of([p.group for p in mapping.plans])
    parts = [[p for ps in plan.group.parts.values() for p in ps] for plan in mapping.plans]
    tiles = {
        label + p: np.array([row[i][p] for row in rows])
        for i, label in enumerate(labels) for p in parts[i]
    }  # fmt: skip
    every = list(mapping.traced(extents).columns)
    found = mapping.compute(extents, tiles, every, ragged=ragged)
    for i, single in enumerate(alone(mapping, extents, rows)):
        assert set(single) <= set(every)
        for name in every:
            value, expected = found[name][min(i, len(found[name]) - 1)], single.get(name, 0)
            if isinstance(expected, str):
                assert value == expected or tied(single, name, value), name
            else:
                assert value == pytest.approx(float(expected), rel=1e-12, abs=1e-12), (name, rows[i])


def tied(single: Mapping[str, Any], name: str, other: str) -> bool:
    """Whether another bound than the one named is as good: both take the same time but for rounding."""
    group = name.removesuffix(".bound") if name != "bound" else "groups.0"
    cycles = single[f"{group}.cycles"]
    return any(
        math.isclose(v, cycles, rel_tol=1e-12)
        for n, v in single.items() if n.startswith(group) and n.endswith((f"memory_cycles.{other}", "schedule_cycles"))
    )  # fmt: skip


def sizes_for(
    plans: Sequence[Plan], extents: Mapping[str, int], most: int, *, loose: bool = False
) -> list[list[dict[str, int]]]:
    rng = np.random.default_rng(0)
    each = [candidates(p.group, extents, most, rng, loose=loose) for p in plans]
    length = max(len(c) for c in each)
    return [[c[i % len(c)] for c in each] for i in range(length)]


#: Some mappings of the library in which no point is absent.
TRACED = {
    "fusemax",
    "fusemax-arch",
    "fusemax-cascade",
    "flat",
    "flat-best",
    "unfused",
    "layer-fusemax",
    "linear-fusemax",
}


@pytest.mark.parametrize("name", sorted(names("mappings")))
def test_library(name: str) -> None:
    """Every mapping that the plain model does not count one by one is traced, and computed to the same numbers."""
    design = load_design(name)
    traced = 0
    for seq in (4096, 2**18):
        extents = extents_in(design, load_workload("layer32"), seq, {})
        for plans in product(*plans_of(design)):
            mapping = CompiledMapping(design, plans)
            one_by_one = any(in_blocks(plan) for plan in plans)
            try:
                check(mapping, extents, sizes_for(plans, extents, 12))
                check(mapping, extents, sizes_for(plans, extents, 6, loose=True), ragged=True)
            except Untraceable:
                assert one_by_one
                continue
            assert not one_by_one
            traced += 1
            if traced > 6:
                return
    assert traced or name not in TRACED


def test_random_designs() -> None:
    seen = {"designs": 0, "sizes": 0, "distinct": 0, "ragged": 0}

    @settings(max_examples=350, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(designs())
    def run(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        raw, fields = pair
        for group in fields["groups"]:
            group["budget"] = {"l1": "40 B"}
        try:
            design = design_of(raw, fields)
            plans = tuple(p for (p,) in plans_of(design))
        except InputError:
            return
        extents = extents_in(design, None, None, {})
        mapping = CompiledMapping(design, plans)
        rows = sizes_for(plans, extents, 8)
        try:
            graph = mapping.traced(extents).graph
        except Untraceable:
            return
        check(mapping, extents, rows)
        try:
            check(mapping, extents, sizes_for(plans, extents, 8, loose=True), ragged=True)
            seen["ragged"] += 1
        except Untraceable:
            pass
        seen["designs"] += 1
        seen["sizes"] += len(rows)
        seen["distinct"] += any(n.op == "distinct" for n in graph.nodes)

    run()
    assert seen["designs"] >= 80
    assert seen["sizes"] >= 400
    assert seen["distinct"] >= 5


TILES = {"tile": {"m": ["m1", "m0"], "n": ["n2", "n1", "n0"], "m0": "max", "n1": 2, "n0": "n / n1 / 2"}}
GROUP = {
    **TILES, "loops": ["m1", "n2", "k", "n1"], "keep": {"l1": {"A": "m1", "B": "n2", "Z": "n2"}},
    "bind": {"Z": {"unit": "grid", "spatial": {"x": "m0", "y": "n0"}}}, "budget": {"l1": "48 B"},
}  # fmt: skip


@pytest.mark.parametrize("raw", [PRODUCT, CAUSAL, CONVOLUTION, STENCIL], ids=lambda r: r["name"])
def test_what_is_left_out_is_completed_as_for_one(raw: dict[str, Any]) -> None:
    """Expressions, the largest tile that fits, what is left, ranks as columns, ragged tiles."""
    design: Design = design_of(raw, {"groups": [GROUP]})
    rows = list(product([1, 2, 4, 5], [4, 8], [6, 12]))
    n1, n, m = map(list, zip(*rows, strict=True))
    found = compile_mapping(design).evaluate(sets={"n1": n1, "n": n, "m": m})
    assert not found.one_by_one
    for i, (inner, columns, lines) in enumerate(rows):
        try:
            one = evaluate(design, sets={"n1": inner, "n": columns, "m": lines})
        except InputError:
            assert not (found["valid"][i] and found["fits"][i])
            continue
        assert found["valid"][i]
        assert found["fits"][i]
        assert {t: c[i] for t, c in found.tiles.items()} == one.groups[0].tiles
        for field in ("latency_s", "energy_j", "dram_bytes", "cycles"):
            assert found[field][i] == pytest.approx(getattr(one, field), rel=1e-12), field
        assert found["bound"][i] == one.bound


def test_rows_that_are_not_valid_say_nothing() -> None:
    found = evaluate_batch("fusemax", "bert", "1K", {"p2": [3, 1]})
    assert found["valid"].tolist() == [False, True]
    assert math.isnan(found["latency_s"][0])
    assert not found["fits"][0]
    assert found["bound"][0] == ""


@pytest.mark.parametrize("seq", [1000, 1009])
def test_ragged_rows_are_those_of_one(seq: int) -> None:
    """Tiles that divide, that do not, and larger than the rank, in one batch."""
    p0 = [256, 250, 100, 7, 1024, 1500]
    found = evaluate_batch("fusemax", "bert", seq, {"p0": p0})
    assert not found.one_by_one
    assert found["valid"].all()
    for i, size in enumerate(p0):
        one = evaluate("fusemax", "bert", seq, {"p0": size})
        assert {t: c[i] for t, c in found.tiles.items()} == one.groups[0].tiles
        for field in ("latency_s", "energy_j", "dram_bytes"):
            assert found[field][i] == pytest.approx(getattr(one, field), rel=1e-12), field


def test_objectives_alone() -> None:
    mapping = compile_mapping(load_design("fusemax"))
    sets = {"p0": np.array([64, 128, 256] * 50000)}
    every, few = mapping.evaluate(BERT, 4096, sets), mapping.evaluate(BERT, 4096, sets, OBJECTIVES, threads=2)
    assert set(few.columns) == {*OBJECTIVES, "valid", "need_bytes.dram", "need_bytes.global_buffer"}
    for name in few.columns:
        assert np.array_equal(few[name], every[name]), name


def test_another_machine_needs_no_other_trace() -> None:
    design = load_design("fusemax")
    mapping = CompiledMapping(design, tuple(p for (p,) in plans_of(design)))
    mapping.evaluate(BERT, 4096, {"p0": 128})
    base = load_architecture("fusemax-cloud")
    level = replace(base.levels["global_buffer"], size_bytes=2.0**19, read_pj=3.0)
    unit = replace(base.units["array_2d"], shape={"x": 100, "y": 64})
    levels = {"dram": replace(base.levels["dram"], bandwidth_bytes_per_s=1e9), "global_buffer": level}
    other = replace(base, clock_hz=2e9, levels=levels, units={**base.units, "array_2d": unit})
    found = mapping.on(other).evaluate(BERT, 4096, {"p0": [64, 128]})
    assert len(mapping._traces) == 1
    for i, p0 in enumerate((64, 128)):
        design = replace(mapping.design, arch=other)
        plans = mapping.on(other).plans
        tiles = {t: int(c[i]) for t, c in found.tiles.items()}
        one = results_of(design, plans, extents_in(design, BERT, 4096, {"p0": p0}), [
            {**extents_in(design, BERT, 4096, {}), **tiles}])[0]  # fmt: skip
        assert one["fits"]
        for name, value in one.items():
            assert found[name][i] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12)), name


def test_counts_that_change_in_kind_are_traced_again() -> None:
    """A ragged split at one extent, none at another."""
    raw = {
        "name": "ragged", "ranks": {"m": 12, "m0": 4, "m1": "ceil(m / m0)", "p": 4}, "split": {"m": ["m1", "m0"]},
        "inputs": {"Q": ["p"], "K": ["m"]}, "outputs": ["L"],
        "einsums": "S[m1, m0, p] = Q[p] * K[m1, m0]\nL[m1, p] = max[m0](S[m1, m0, p])\n",
    }  # fmt: skip
    bind = {"S": {"unit": "grid", "spatial": {"x": "p"}}, "L": {"unit": "grid", "spatial": {"x": "p"}}}
    design = design_of(raw, {"groups": [{"loops": ["m1"], "keep": {"l1": {"K": "m1"}}, "bind": bind}]})
    found = compile_mapping(design).evaluate(sets={"m": [8, 9, 12, 16]})
    for i, m in enumerate((8, 9, 12, 16)):
        assert found["dram_bytes"][i] == evaluate(design, sets={"m": m}).dram_bytes


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        ("fusemax", {"p9": [1]}, "unknown rank or tile 'p9'"),
        ("fusemax", {"p0": [1.5]}, "no whole numbers"),
        ("fusemax", {"p0": [1, 2], "p1": [1, 2, 3]}, "differ in length"),
        ("fusemax", {"p0": [[1]]}, "2 dimensions"),
    ],
)
def test_messages(name: str, sets: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compile_mapping(load_design(name)).evaluate(BERT, 1024, sets)


def test_variants_and_choices_are_asked_for() -> None:
    design = load_design("flat")
    with pytest.raises(InputError, match="has variants; expected one of head, rows"):
        compile_mapping(design)
    group = design.groups[0].groups[0].name
    mapping = compile_mapping(design, {group: "rows"})
    with pytest.raises(InputError, match=r"unknown variant 'row'; expected .*; did you mean 'rows'"):
        compile_mapping(design, {group: "row"})
    with pytest.raises(InputError, match="tile 'p1' is to be chosen; expected its sizes"):
        mapping.evaluate(BERT, 1024)
    found = mapping.evaluate(BERT, 2**16, {"p1": [4, 2, 1]})
    best = evaluate("flat", "bert", "64K")
    assert best.groups[0].variant == "rows"
    assert found["latency_s"].min() == pytest.approx(best.latency_s, rel=1e-12)


def test_choices_are_asked_for_where_mappings_are_counted_one_by_one() -> None:
    design = load_design("causal-cloud")
    group = design.groups[0].groups[0]
    mapping = compile_mapping(design, {group.name: group.variant})
    with pytest.raises(InputError, match="is to be chosen"):
        mapping.evaluate(load_workload("layer32"), 1024)


def test_what_is_reserved_is_checked_after_columns_were_computed() -> None:
    design = load_design("flat")
    mapping = compile_mapping(design, {design.groups[0].groups[0].name: "rows"})
    extents = extents_in(design, BERT, 4096, {})
    tiles = {"p2": [4, 8], "p1": [4, 2], "p0": [256, 256], "m1": 16, "m0": 256}
    first = mapping.compute(extents, tiles, ["latency_s"])
    again = mapping.evaluate(BERT, 4096, {"p1": [4, 2]}, ["latency_s"])
    assert first["latency_s"].tolist() == again["latency_s"].tolist()


def test_traffic_as_a_formula() -> None:
    """Two matrix products' operands, the query block once and the keys once a block: section IV of the source."""
    import sympy

    mapping = compile_mapping(load_design("fusemax"))
    b, h, p, m, e, f, m1, p2 = sympy.symbols("b h p m e f m1 p2", positive=True, integer=True)
    word = sympy.Symbol("arch.word_bytes", positive=True)
    expected = word * b * h * (p * (e + f) + m * (e + f) * sympy.Piecewise((p2, m1 > 1), (1, True)))
    assert sympy.simplify(mapping.formula("dram_bytes", BERT, 65536) - expected) == 0


def test_blocks_hold_every_combination_once() -> None:
    blocks = list(blocks_of({"a": [1, 2, 3], "b": [4, 5], "c": [6, 7, 8]}, 5))
    assert [len(b["a"]) for b in blocks] == [5, 5, 5, 3]
    rows = [tuple(map(int, row)) for b in blocks for row in zip(b["a"], b["b"], b["c"], strict=True)]
    assert rows == list(product([1, 2, 3], [4, 5], [6, 7, 8]))


# Expressions


@st.composite
def expressions(draw: Callable[..., Any]) -> tuple[Any, dict[str, int]]:
    """A function of a few sizes, and the sizes."""
    leaves = [lambda e, n=n: e[n] for n in "abc"] + [lambda e, k=k: k for k in (0, 1, 2, 5)]
    pool = list(leaves)
    for _ in range(draw(st.integers(1, 12))):
        x, y, z = (draw(st.sampled_from(pool)) for _ in range(3))
        pool.append(
            draw(
                st.sampled_from(
                    [
                        lambda e, x=x, y=y: x(e) + y(e), lambda e, x=x, y=y: x(e) - y(e),
                        lambda e, x=x, y=y: x(e) * y(e), lambda e, x=x, y=y: e["max"](x(e), y(e)),
                        lambda e, x=x, y=y: e["min"](x(e), y(e)), lambda e, x=x: e["gt"](x(e), 1),
                        lambda e, x=x, y=y, z=z: e["select"](e["gt"](x(e), y(e)), y(e), z(e)),
                        lambda e, x=x: e["ceildiv"](x(e), 3),
                    ]
                )
            )
        )  # fmt: skip
    return pool[-1], {n: draw(st.integers(1, 9)) for n in "abc"}


PLAIN: dict[str, Callable[..., Any]] = {
    "max": max, "min": min, "gt": lambda x, y: int(x > y), "select": lambda c, x, y: x if c else y,
    "ceildiv": lambda x, y: -(-x // y),
}  # fmt: skip


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(expressions())
def test_canonical_forms_keep_values(drawn: tuple[Any, dict[str, int]]) -> None:
    from fusemodel.model.compiled.tape import run, tape_of

    expression, sizes = drawn
    graph = Graph()
    ops = {op: (lambda *x, op=op: graph.apply(op, *x)) for op in PLAIN}
    node = graph.node(expression({**ops, "a": graph.symbol("a", varies=True), "b": graph.symbol("b", varies=True),
                                  "c": graph.symbol("c")}))  # fmt: skip
    expected = expression({**PLAIN, **sizes})
    assert node.least <= expected <= node.most
    columns = {n: np.array([float(sizes[n])]) for n in "ab"}
    (found,) = run(tape_of([node], columns), {"c": float(sizes["c"])}, columns, 1, 1)
    assert found[0] == expected


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 7)), min_size=1, max_size=4),
    st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True),
)
def test_distinct_values(terms: list[tuple[int, int]], offsets: list[int]) -> None:
    from fusemodel.model.compiled.kernel import distinct

    strides, counts = (np.array(x, dtype=np.int64) for x in zip(*terms, strict=True))
    found = distinct(strides, counts, np.array(sorted(offsets), dtype=np.int64))
    assert found == values(tuple(terms), tuple(offsets))
    every = {sum(s * i for (s, _), i in zip(terms, at, strict=True)) + o
             for at in product(*(range(n) for _, n in terms)) for o in offsets}  # fmt: skip
    assert found == len(every)


def test_an_expression_decides_nothing() -> None:
    with pytest.raises(Untraceable, match="a decision on gt"):
        bool(Graph().symbol("x") > 1)


# The kernel on disk


def module_in(folder: Path) -> Any:
    path = folder / "twice.py"
    path.write_text("def twice(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location("twice", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    assert compiled(module_in(tmp_path).twice, "int64(int64)")(4) == 8
    kept = sorted((tmp_path / "__pycache__").glob("*.nb?"))
    assert len(kept) == 2
    for path in kept:
        path.write_bytes(b"\x80damaged")
    assert compiled(module_in(tmp_path).twice, "int64(int64)")(4) == 8
    assert all(p.read_bytes() != b"\x80damaged" for p in kept)


def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import IndexDataCacheFile

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_save_index", full)
    assert compiled(module_in(tmp_path).twice, "int64(int64)")(4) == 8
    assert not list(tmp_path.rglob("*.nbc"))


def test_every_candidate_is_computed_by_one_thread() -> None:
    for length, most in product([0, 1, 1000, 2**15, 2**17 + 3], [1, 2, 3]):
        seen = np.zeros(length, dtype=int)

        def mark(start: int, stop: int, seen: np.ndarray = seen) -> None:
            seen[start:stop] += 1

        in_parallel(mark, length, most)
        assert (seen == 1).all()


def test_numba_is_imported_for_batches_only() -> None:
    code = "import sys, fusemodel; fusemodel.evaluate('fusemax', 'bert', '1K'); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nodes_print() -> None:
    graph = Graph()
    node: Node = graph.symbol("a") * 2 + 1
    assert repr(node) == "add(mul(2, a), 1)"
