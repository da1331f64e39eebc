"""Counts of points, tiles and elements under linear conditions, against enumeration."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusemodel.cascade.ir import Expr, Extent, Number, RankValue
from fusemodel.cascade.parse import Names, parse_equations, parse_expression
from fusemodel.errors import NOWHERE
from fusemodel.model import domain
from fusemodel.model.domain import (
    Linear,
    Quotients,
    constraints,
    count,
    count_exactly,
    count_union,
    linear,
    on_leaves,
    regions,
)
from fusemodel.model.elements import Touch, touched, values

SETTINGS = settings(
    max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
Draw = Callable[[Any], Any]


def met(form: Linear, point: dict[str, int]) -> bool:
    return sum(c * point[x] for x, c in form.coefficients.items()) + form.constant <= 0


def points(forms: list[Linear], sizes: dict[str, int]) -> list[dict[str, int]]:
    every = (dict(zip(sizes, at, strict=True)) for at in product(*(range(n) for n in sizes.values())))
    return [p for p in every if all(met(f, p) for f in forms)]


@st.composite
def boxes(draw: Draw, most: int = 4) -> dict[str, int]:
    names = "abcdef"[: draw(st.integers(1, most))]
    return {x: draw(st.integers(1, 5)) for x in names}


@st.composite
def forms_over(draw: Draw, names: list[str], *, unit: bool = False) -> Linear:
    coefficient = st.sampled_from([-1, 0, 1]) if unit else st.integers(-4, 4)
    return Linear({x: c for x in names if (c := draw(coefficient))}, draw(st.integers(-8, 6)))


@st.composite
def problems(draw: Draw, *, unit: bool = False) -> tuple[dict[str, int], list[Linear], list[str]]:
    sizes = draw(boxes())
    forms = draw(st.lists(forms_over(list(sizes), unit=unit), max_size=4))
    loops = [x for x in sizes if draw(st.booleans())]
    return sizes, forms, loops


@SETTINGS
@given(problems())
def test_points(problem: tuple[dict[str, int], list[Linear], list[str]]) -> None:
    sizes, forms, _ = problem
    assert count_exactly(forms, list(sizes), sizes) == (len(points(forms, sizes)), True)


@SETTINGS
@given(problems())
def test_steps_with_a_point(problem: tuple[dict[str, int], list[Linear], list[str]]) -> None:
    sizes, forms, loops = problem
    truth = len({tuple(p[x] for x in loops) for p in points(forms, sizes)})
    assert count_exactly(forms, loops, sizes) == (truth, True)


@SETTINGS
@given(problems(), st.booleans())
def test_what_is_not_exact_is_a_bound(problem: tuple[dict[str, int], list[Linear], list[str]], unit: bool) -> None:
    sizes, forms, loops = problem
    truth = len({tuple(p[x] for x in loops) for p in points(forms, sizes)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "MAX_WITNESSES", 0)
        found, exact = count_exactly(forms, loops, sizes)
    assert found == truth if exact else found >= truth
    free = 1
    for x in loops:
        free *= sizes[x]
    assert found <= free


@st.composite
def tiled(draw: Draw) -> tuple[dict[str, int], list[Linear], list[str]]:
    """Windows, causal orders and ranges over tiled ranks, seen from loops outside the tiles."""
    ranks = {"p": ["p2", "p1", "p0"], "m": ["m2", "m1", "m0"]}
    sizes = {x: draw(st.integers(1, 4)) for leaves in ranks.values() for x in leaves}
    whole = {r: sizes[f"{r}2"] * sizes[f"{r}1"] * sizes[f"{r}0"] for r in ranks}
    low, high = draw(st.integers(-9, 9)), draw(st.integers(-9, 9))
    scale = draw(st.sampled_from([1, 1, 2]))
    conditions = [
        Linear({"m": 1, "p": -scale}, low), Linear({"m": -1, "p": scale}, high),
        Linear({"m": 1}, draw(st.integers(0, 3)) - whole["m"] + 1),
    ]  # fmt: skip
    forms = on_leaves([c for c in conditions if draw(st.integers(0, 3))], ranks, sizes)
    depth = {r: draw(st.integers(0, 3)) for r in ranks}
    return (
        sizes,
        [f for f in forms if isinstance(f, Linear)],
        [x for r, leaves in ranks.items() for x in leaves[: depth[r]]],
    )


@SETTINGS
@given(tiled())
def test_tiles_need_no_enumeration(problem: tuple[dict[str, int], list[Linear], list[str]]) -> None:
    """Boxes of tiles under the conditions that masks are made of: exact by elimination alone."""
    sizes, forms, loops = problem
    truth = len({tuple(p[x] for x in loops) for p in points(forms, sizes)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "MAX_WITNESSES", 0)
        found, exact = count_exactly(forms, loops, sizes)
    assert (found, exact) == (truth, True)


def test_strides_leave_gaps() -> None:
    """A loop over every fourth row, with the rows in between outside it, meets a narrow window now and then."""
    sizes = {"p1": 4, "p0": 4, "m": 16}
    forms = on_leaves(
        [Linear({"m": 1, "p": -1}, 0), Linear({"m": -1, "p": 1}, 0)], {"p": ["p1", "p0"], "m": ["m"]}, sizes
    )
    assert count(forms, ["p0", "m"], sizes) == 16
    assert count(forms, ["p1", "m"], sizes) == 16
    assert count(forms, ["m"], sizes) == 16
    stamps = [Linear({"a": 3, "b": 5, "n": -1}, 0), Linear({"a": -3, "b": -5, "n": 1}, 0)]
    sizes = {"a": 4, "b": 4, "n": 40}
    truth = len({3 * a + 5 * b for a in range(4) for b in range(4)})
    assert count_exactly(stamps, ["n"], sizes) == (truth, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "MAX_WITNESSES", 0)
        found, exact = count_exactly(stamps, ["n"], sizes)
        assert not exact
        assert truth <= found <= 40


def test_long_sequences() -> None:
    n, w = 2**20, 4096
    sizes = {"p1": n // 256, "p0": 256, "m1": n // 256, "m0": 256}
    leaves = {"p": ["p1", "p0"], "m": ["m1", "m0"]}
    causal = on_leaves([Linear({"m": 1, "p": -1}, 0)], leaves, sizes)
    assert count(causal, list(sizes), sizes) == n * (n + 1) // 2
    assert count(causal, ["p1", "m1"], sizes) == (n // 256) * (n // 256 + 1) // 2
    window = [*causal, *on_leaves([Linear({"m": -1, "p": 1}, 1 - w)], leaves, sizes)]
    assert count(window, list(sizes), sizes) == n * w - w * (w - 1) // 2
    assert count(window, ["p1", "m1"], sizes) == sum(min(p1, w // 256) + 1 for p1 in range(n // 256))


@SETTINGS
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=4),
    st.lists(st.integers(-9, 9), min_size=1, max_size=3),
)
def test_values_of_an_index(terms: list[tuple[int, int]], offsets: list[int]) -> None:
    truth = {
        o + sum(s * i for (s, _), i in zip(terms, at, strict=True))
        for at in product(*(range(n) for _, n in terms))
        for o in offsets
    }
    assert values(tuple(terms), tuple(offsets)) == len(truth)


def test_values_of_large_indices() -> None:
    assert values(((1, 2**30), (2**30, 2**9))) == 2**39
    assert values(((1, 2**30), (3, 2**30))) == 2**32 - 3
    assert values(((1, 2**30),), (0, 5)) == 2**30 + 5


@st.composite
def touches(draw: Draw) -> tuple[dict[str, int], list[str], list[Touch]]:
    sizes = draw(boxes(3))
    dimensions = draw(st.integers(1, 2))
    limits = tuple(draw(st.integers(1, 8)) for _ in range(dimensions))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        index = [draw(forms_over(list(sizes))) for _ in range(dimensions)]
        forms = draw(st.lists(forms_over(list(sizes)), max_size=2))
        for i, n in zip(index, limits, strict=True):
            forms += [
                Linear({x: -c for x, c in i.coefficients.items()}, -i.constant),
                Linear(i.coefficients, i.constant - n + 1),
            ]
        parts.append(Touch(tuple(index), ((),) * dimensions, limits, tuple(forms)))
    return sizes, [x for x in sizes if draw(st.booleans())], parts


@SETTINGS
@given(touches(), st.sampled_from([0, 2**20]))
def test_elements_touched(problem: tuple[dict[str, int], list[str], list[Touch]], witnesses: int) -> None:
    sizes, loops, parts = problem
    truth = set()
    for part in parts:
        for p in points([f for f in part.forms if isinstance(f, Linear)], sizes):
            element = tuple(sum(c * p[x] for x, c in i.coefficients.items()) + i.constant for i in part.index if i)
            truth.add((tuple(p[x] for x in loops), element))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "MAX_WITNESSES", witnesses)
        found, exact = touched(parts, loops, sizes)
    assert found == len(truth) if exact else found >= len(truth)
    assert exact or witnesses == 0 or len(parts) > 4


def parsed(text: str) -> Expr:
    return parse_expression(text, NAMES, NOWHERE)


def condition(text: str) -> Expr:
    found = parse_equations(f"Z[p] = X[p, m] where {text}", NAMES, NOWHERE)[0].where
    assert found is not None
    return found


EXTENTS = {"p": 11, "m": 7, "w": 3}
NAMES = Names(dict.fromkeys(EXTENTS))


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("m <= p", lambda p, m: m <= p),
        ("m < p + W", lambda p, m: m < p + 3),
        ("p > 2 * m", lambda p, m: p > 2 * m),
        ("abs(m - p) <= W", lambda p, m: abs(m - p) <= 3),
        ("abs(p - 2 * m) < 2", lambda p, m: abs(p - 2 * m) < 2),
        ("m == p", lambda p, m: m == p),
        ("p // W <= m // W", lambda p, m: p // 3 <= m // 3),
        ("(p - m) % W == 0", lambda p, m: (p - m) % 3 == 0),
        ("p % 4 < m % 3", lambda p, m: p % 4 < m % 3),
        ("(p // 2 + m) // 3 == 1", lambda p, m: (p // 2 + m) // 3 == 1),
    ],
)
def test_conditions_as_written(text: str, law: Callable[[int, int], bool]) -> None:
    quotients = Quotients(EXTENTS)
    found, other = constraints([condition(text)], EXTENTS, quotients)
    assert not other
    forms = [*found, *quotients.closure(found)]
    sizes = {"p": 11, "m": 7, **quotients.sizes}
    truth = [(p, m) for p in range(11) for m in range(7) if law(p, m)]
    assert count(forms, ["p", "m"], sizes) == len(truth)
    assert count(forms, ["p"], sizes) == len({p for p, _ in truth})
    assert count(forms, ["m"], sizes) == len({m for _, m in truth})


@pytest.mark.parametrize(
    "text", ["m * p < 4", "m // p == 1", "abs(m - p) > W", "m / 2 < p", "m != p", "m < p or p < 3"]
)
def test_conditions_that_are_not_one_form(text: str) -> None:
    found, other = constraints([condition(text)], EXTENTS, Quotients(EXTENTS))
    assert not found
    assert len(other) == 1


def test_linear_forms() -> None:
    assert linear(RankValue("p"), EXTENTS) == Linear({"p": 1}, 0)
    assert linear(Extent("p"), EXTENTS) == Linear({}, 11)
    assert linear(Number(2), EXTENTS) == Linear({}, 2)
    assert linear(parsed("2 * p - (m + W) * 3 + p"), EXTENTS) == Linear({"p": 3, "m": -3}, -9)
    assert linear(parsed("p - p"), EXTENTS) == Linear({}, 0)
    assert linear(parsed("p // 2"), EXTENTS) is None
    assert linear(Number(0.5), EXTENTS) is None


@st.composite
def values_of_coordinates(draw: Draw, depth: int = 0) -> str:
    kind = draw(st.integers(0, 12 if depth < 2 else 3))
    if kind <= 3:
        return draw(st.sampled_from(["p", "m", "w", "p", "m", str(draw(st.integers(0, 6)))]))
    a, b = (draw(values_of_coordinates(depth + 1)) for _ in range(2))
    match kind:
        case 4 | 5 | 6:
            return f"({a} {draw(st.sampled_from('+-'))} {b})"
        case 7:
            return f"{draw(st.integers(1, 3))} * {a}"
        case 8 | 9:
            return f"({a} {draw(st.sampled_from(['//', '%']))} {draw(st.integers(1, 4))})"
        case 10 | 11:
            return f"{draw(st.sampled_from(['min', 'max']))}({a}, {b})"
    return draw(st.sampled_from([f"abs({a})", f"select({a} < {b}, {b}, {a})", f"({a} * {b})", f"({a} <= {b})"]))


@st.composite
def conditions_on_coordinates(draw: Draw, depth: int = 0) -> str:
    kind = draw(st.integers(0, 5 if depth < 2 else 2))
    if kind <= 2:
        sign = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
        return f"({draw(values_of_coordinates())} {sign} {draw(values_of_coordinates())})"
    a, b = (draw(conditions_on_coordinates(depth + 1)) for _ in range(2))
    return f"(not {a})" if kind == 3 else f"({a} {'and' if kind == 4 else 'or'} {b})"


LANGUAGE = {"min": min, "max": max, "abs": abs, "select": lambda c, a, b: a if c else b}


@settings(SETTINGS, max_examples=200)
@given(st.lists(conditions_on_coordinates(), min_size=1, max_size=3), st.sampled_from([2**24, 0]))
def test_any_conditions(texts: list[str], witnesses: int) -> None:
    """Whatever the operators, against Python's own arithmetic: points, and steps of some coordinates."""
    extents = {"p": 7, "m": 5, "w": 3}
    at = [dict(zip(extents, x, strict=True)) for x in product(*(range(n) for n in extents.values()))]
    truth = [p for p in at if all(eval(t, LANGUAGE, p) for t in texts)]
    quotients = Quotients(extents)
    pieces, other = regions([condition(t) for t in texts], extents, quotients)
    assert not other
    sizes = {**extents, **quotients.sizes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "MAX_WITNESSES", witnesses)
        for loops in (["p", "m", "w"], ["p", "w"], ["m"], []):
            steps = len({tuple(p[x] for x in loops) for p in truth})
            found, exact = count_union(pieces, loops, sizes, apart=True)
            assert found == steps if exact else found >= steps
            assert exact or not witnesses


@pytest.mark.parametrize(
    ("text", "sizes", "truth"),
    [
        ("w <= p % W", {"p": 2**20, "w": 4096}, 2**8 * 4096 * 4097 // 2),
        ("m <= p and (p - m < 4 or m < 2)", {"p": 10**6, "m": 10**6}, 4 * 10**6 - 6 + 2 * (10**6 - 4) - 1),
        ("m != p and m % 2 == p % 2", {"p": 10**5, "m": 10**5}, 2 * (5 * 10**4) ** 2 - 10**5),
        ("min(max(p - W // 2, 0), P - W) <= m and m < min(max(p - W // 2, 0), P - W) + W",
         {"p": 10**6, "m": 10**6, "w": 255}, 255 * 10**6),
        ("p // 8 == m // 8 or abs(p - m) <= 1", {"p": 2**20, "m": 2**20}, 8 * 2**20 + 2 * (2**17 - 1)),
    ],
)  # fmt: skip
def test_long_sequences_whatever_the_operators(text: str, sizes: dict[str, int], truth: int) -> None:
    extents = {**EXTENTS, **sizes}
    quotients = Quotients(extents)
    pieces, _ = regions([condition(text)], extents, quotients)
    loops = [x for x in sizes if x != "w" or "w <" in text]
    assert count_union(pieces, loops, {**extents, **quotients.sizes}, apart=True) == (truth, True)


def test_two_dimensions_fall_apart() -> None:
    """A window in an image: rows and columns are counted on their own, for each place in the window."""
    extents = {"p": 2**12, "m": 2**12, "w": 49}
    text = "p // 8 * 8 - 3 + w // 7 >= 0 and m // 8 * 8 - 3 + w % 7 >= 0"
    quotients = Quotients(extents)
    pieces, _ = regions([condition(text)], extents, quotients)
    per_axis = [2**12 - 8 * (i < 3) for i in range(7)]
    truth = sum(per_axis) ** 2
    assert count_union(pieces, ["p", "m", "w"], {**extents, **quotients.sizes}, apart=True) == (truth, True)
