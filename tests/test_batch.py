"""Many candidates at once: the same numbers as one by one, and a search that finds the best of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from test_counts import design_of, designs

from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.mapping import Design, load_design
from fusemodel.mapping.spec import Group
from fusemodel.model import Evaluation, evaluate
from fusemodel.model.cost import GroupCost, cost_of
from fusemodel.model.decided import Inexact
from fusemodel.model.evaluate import plans_of
from fusemodel.model.frame import loose_ranks
from fusemodel.model.movement import needs_numbers
from fusemodel.model.plan import Plan
from fusemodel.model.tiles import may_be_ragged


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def factors(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as a product of so many."""
    if parts == 1:
        yield (n,)
        return
    for d in divisors(n):
        for rest in factors(n // d, parts - 1):
            yield (d, *rest)


def ragged(n: int, parts: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Sizes of parts that need not divide a number: the outermost is what it takes."""
    inner = [int(rng.integers(1, max(2, min(n + 2, 40)))) for _ in range(parts - 1)]
    return (-(-n // prod(inner)), *inner)


def candidates(
    group: Group, extents: Mapping[str, int], most: int, rng: np.random.Generator, *, loose: bool = False
) -> list[dict[str, int]]:
    """Sizes of all parts of a group: every combination, or a sample; as many that do not divide, if ``loose``."""
    found = [dict(extents)]
    pending = dict(group.parts)
    while pending:
        rank = next(r for r in pending if all(r not in ps for ps in pending.values()))
        parts = pending.pop(rank)
        each = [(f, s) for f in found for s in factors(f[rank], len(parts))]
        if loose and may_be_ragged(group, rank):
            each += [(f, ragged(f[rank], len(parts), rng)) for f in found for _ in range(3)]
        found = [f | dict(zip(parts, sizes, strict=True)) for f, sizes in each]
        if len(found) > most:
            found = [found[i] for i in sorted(rng.choice(len(found), most, replace=False))]
    return found


def fields(cost: GroupCost) -> dict[tuple[Any, ...], Any]:
    """Every number of a cost."""
    found: dict[tuple[Any, ...], Any] = {
        ("cycles",): cost.cycles, ("schedule",): cost.schedule_cycles, ("drain",): cost.drain_cycles,
    }  # fmt: skip
    for name in ("memory_cycles", "critical_cycles", "by_einsum", "need_words", "excess_words", "spill"):
        found |= {(name, key): value for key, value in getattr(cost, name).items()}
    for name, einsum in cost.einsums.items():
        found |= {(name, f): getattr(einsum, f) for f in ("cycles", "points", "outputs", "work_slots", "energy_pj")}
        found[name, "register_pj"] = einsum.register_pj
    for level, tensors in cost.traffic.items():
        found |= {(level, t, side): getattr(v, side) for t, v in tensors.items() for side in ("read", "write")}
    for level, held in cost.footprint_words.items():
        found |= {(level, t, "footprint"): v for t, v in held.items()}
    return found


def check_batch(plan: Plan, sizes: Sequence[Mapping[str, int]], extents: Mapping[str, int]) -> None:
    names_of = list(sizes[0])
    varying = [n for n in names_of if any(s[n] != sizes[0][n] for s in sizes)]
    batch = {n: np.array([float(s[n]) for s in sizes]) if n in varying else sizes[0][n] for n in names_of}
    many = fields(cost_of(plan, batch, extents))
    for i, one in enumerate(sizes):
        single = fields(cost_of(plan, one, extents))
        for key in {**many, **single}:
            value = np.broadcast_to(np.asarray(many.get(key, 0), dtype=float), (len(sizes),))[i]
            assert value == pytest.approx(float(single.get(key, 0)), rel=1e-12, abs=1e-12), (key, one)


@pytest.mark.parametrize("seq", [4096, 2**18])
@pytest.mark.parametrize("name", sorted(n for n, p in names("mappings").items() if p.parent.name == "attention"))
def test_library(name: str, seq: int) -> None:
    design = load_design(name)
    extents = extents_of(design.cascade, extents_for(design.cascade, load_workload("bert"), seq))
    rng = np.random.default_rng(0)
    for plans in plans_of(design):
        for plan in plans:
            assert not needs_numbers(plan, extents)
            check_batch(plan, candidates(plan.group, extents, 12, rng), extents)


def test_random_designs() -> None:
    seen = {"plans": 0, "absent": 0, "sizes": 0, "ragged": 0, "bounds": 0}

    @settings(max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(designs())
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        raw, mapping = pair
        for group in mapping["groups"]:
            group["budget"] = {"l1": "40 B"}
            for held in group["keep"].get("l1", {}).values():
                if isinstance(held, dict) and held.get("spill"):
                    held["spill"] = True  # as much as needed
        try:
            design = design_of(raw, mapping)
            found = plans_of(design)
        except InputError:
            return
        extents = extents_of(design.cascade)
        rng = np.random.default_rng(0)
        for (plan,) in found:
            sizes = candidates(plan.group, extents, 8, rng, loose=True)
            loose = frozenset(r for s in sizes for r in loose_ranks(plan, s, extents))
            try:
                check_batch(plan, sizes, extents)
            except Inexact:
                seen["bounds"] += 1
                continue
            seen["plans"] += 1
            seen["absent"] += needs_numbers(plan, extents, loose)
            seen["sizes"] += len(sizes)
            seen["ragged"] += bool(loose)

    check()
    assert seen["plans"] >= 150
    assert seen["sizes"] >= 800


# The search

PRODUCT = {
    "name": "product", "ranks": {"m": 12, "n": 8, "k": 6}, "inputs": {"A": ["m", "k"], "B": ["k", "n"]},
    "outputs": ["Z"], "einsums": "Z[m, n] = A[m, k] * B[k, n]\n",
}  # fmt: skip
CAUSAL = {
    "name": "causal", "ranks": {"m": 12, "n": 8, "k": 3}, "inputs": {"A": ["m", "k"], "B": ["k", "n"]},
    "outputs": ["Z"], "einsums": "Z[m, n] = A[m, k] * B[k, n] where n <= m\n",
}  # fmt: skip
CONVOLUTION = {
    "name": "convolution", "ranks": {"m": 12, "n": 4, "k": 2, "i": "m + n - 1"},
    "inputs": {"A": ["i", "k"], "B": ["k", "n"]}, "outputs": ["Z"],
    "einsums": "Z[m] = A[m + n, k] * B[k, n]\n",
}  # fmt: skip
STENCIL = {
    "name": "stencil", "ranks": {"m": 12, "n": 2, "k": 2}, "inputs": {"A": ["m", "k"], "B": ["k", "n"]},
    "outputs": ["Z"], "einsums": "Z[m, n] = sum[k](A[m, k] * B[k, n] + coalesce(A[m - 1, k], 0))\n",
}  # fmt: skip
BASE = {
    "tile": {"m": ["m1", "m0"], "n": ["n2", "n1", "n0"]}, "loops": ["m1", "n2", "k", "n1"],
    "keep": {"l1": {"A": "m1", "B": "n2", "Z": "n2"}},
    "bind": {"Z": {"unit": "grid", "spatial": {"x": "m0", "y": "n0"}}},
}  # fmt: skip
OBJECTIVES = {
    "latency": lambda e: e.latency_s, "dram": lambda e: e.dram_bytes, "energy": lambda e: e.energy_j,
    "edp": lambda e: e.latency_s * e.energy_j,
}  # fmt: skip


def every(raw: dict[str, Any], group: dict[str, Any]) -> Iterator[Evaluation]:
    """Each way to divide m and n, evaluated alone."""
    m, n = raw["ranks"]["m"], raw["ranks"]["n"]
    for m0, (_, n1, n0) in product(divisors(m), factors(n, 3)):
        tile = {**group["tile"], "m0": m0, "n1": n1, "n0": n0}
        try:
            yield evaluate(design_of(raw, {"groups": [{**group, "tile": tile}]}))
        except InputError:
            continue


def laid_over(base: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    """A variant as a group of its own."""
    held = {**base["keep"]["l1"], **variant.get("keep", {}).get("l1", {})}
    return {**base, **variant, "keep": {"l1": {t: k for t, k in held.items() if k is not None}}}


def check_search(raw: dict[str, Any], variants: Sequence[dict[str, Any]], minimise: Sequence[str], budget: str) -> None:
    base = {**BASE, "budget": {"l1": budget}}
    tile = {**base["tile"], "m0": "any", "n1": "any", "n0": "any"}
    search = {**base, "tile": tile, "minimise": list(minimise), "variants": list(variants)}
    found = evaluate(design_of(raw, {"groups": [search]}))
    alone = [e for v in variants for e in every(raw, laid_over(base, v))]
    assert len(alone) < found.groups[0].candidates
    for objective in minimise:
        score = OBJECTIVES[objective]
        best = min(score(e) for e in alone)
        assert score(found) == pytest.approx(best, rel=1e-9), objective
        alone = [e for e in alone if score(e) <= best * (1 + 1e-9)]
    assert any(e.groups[0].tiles == found.groups[0].tiles for e in alone)


@pytest.mark.parametrize("minimise", [["dram"], ["latency", "dram"], ["energy"], ["edp", "latency"]], ids="-".join)
@pytest.mark.parametrize("raw", [PRODUCT, CAUSAL, CONVOLUTION, STENCIL], ids=lambda r: r["name"])
def test_search_finds_the_best_of_all(raw: dict[str, Any], minimise: list[str]) -> None:
    variants = [
        {"name": "n inside"},
        {"name": "m inside", "loops": ["n2", "m1", "n1"], "keep": {"l1": {"A": "m1", "Z": None}}},
    ]
    check_search(raw, variants, minimise, "40 B")


def test_nothing_fits() -> None:
    group = {
        **BASE,
        "tile": {**BASE["tile"], "m0": "any", "n1": "any", "n0": "any"},
        "minimise": ["dram"],
        "budget": {"l1": "2 B"},
    }
    with pytest.raises(InputError, match="none of 60 candidates"):
        evaluate(design_of(PRODUCT, {"groups": [group]}))


def test_a_fixed_outermost_part_is_kept() -> None:
    group = {**BASE, "tile": {**BASE["tile"], "m1": 3, "m0": "any", "n1": "any", "n0": "any"}, "minimise": ["dram"]}
    found = evaluate(design_of(PRODUCT, {"groups": [group]}))
    assert (found.groups[0].tiles["m1"], found.groups[0].tiles["m0"]) == (3, 4)
    assert found.groups[0].candidates == 10


def largest(raw: dict[str, Any], tile: dict[str, Any], budget: str) -> Evaluation:
    return evaluate(design_of(raw, {"groups": [{**BASE, "tile": tile, "budget": {"l1": budget}}]}))


@pytest.mark.parametrize("raw", [PRODUCT, CAUSAL], ids=lambda r: r["name"])
@pytest.mark.parametrize("budget", [30, 48, 70, 1000])
def test_max_is_the_largest_that_fits(raw: dict[str, Any], budget: int) -> None:
    tile = {**BASE["tile"], "m0": "max", "n1": 2, "n0": 2}
    k = raw["ranks"]["k"]
    fitting = [m0 for m0 in divisors(12) if m0 * k + k * 4 + m0 * 4 <= budget]
    if not fitting:
        with pytest.raises(InputError, match="'l1' is over-full"):
            largest(raw, tile, f"{budget} B")
    else:
        assert largest(raw, tile, f"{budget} B").groups[0].tiles["m0"] == max(fitting)


def test_max_beside_parts_of_the_outermost() -> None:
    """What is left must be divided further."""
    raw = {**PRODUCT, "ranks": {"m": 16, "n": 8, "k": 8}}
    tile = {"m": ["m1", "m0"], "m0": "max", "m1": ["ma", "mb"], "mb": 2, "n": ["n2", "n1", "n0"], "n1": 2, "n0": 2}
    group = {
        **BASE,
        "tile": tile,
        "loops": ["ma", "mb", "n2", "k", "n1"],
        "keep": {"l1": {"A": "mb", "B": "n2", "Z": "n2"}},
    }
    found = evaluate(design_of(raw, {"groups": [group]}))
    assert {x: found.groups[0].tiles[x] for x in ("ma", "mb", "m0")} == {"ma": 1, "mb": 2, "m0": 8}


def test_parts_of_an_inner_part() -> None:
    tile = {"m": ["m1", "m0"], "m0": ["ma", "mb"], "ma": 3, "mb": 2, "n": ["n2", "n1", "n0"], "n1": 2, "n0": 2}
    group = {**BASE, "tile": tile, "bind": {"Z": {"unit": "grid", "spatial": {"x": "mb", "y": "n0"}, "loops": ["ma"]}}}
    found = evaluate(design_of(PRODUCT, {"groups": [group]}))
    assert {x: found.groups[0].tiles[x] for x in ("m1", "m0", "ma", "mb")} == {"m1": 2, "m0": 6, "ma": 3, "mb": 2}
    with pytest.raises(InputError, match="part 'm0' has no size; expected a size for 'ma' too"):
        evaluate(design_of(PRODUCT, {"groups": [{**group, "tile": {k: v for k, v in tile.items() if k != "ma"}}]}))


def test_arrays_count_absent_points_as_numbers_do() -> None:
    design: Design = design_of(CAUSAL, {"groups": [{**BASE, "tile": {**BASE["tile"], "m0": 2, "n1": 2, "n0": 2}}]})
    ((plan,),) = plans_of(design)
    extents = extents_of(design.cascade)
    rest = {**extents, "n2": 2, "n1": 2, "n0": 2}
    assert needs_numbers(plan, extents)
    check_batch(plan, [{**rest, "m1": 6, "m0": 2}, {**rest, "m1": 3, "m0": 4}, {**rest, "m1": 3, "m0": 5}], extents)
    assert prod(int(n) for n in (2, 2, 2)) == extents["n"]
